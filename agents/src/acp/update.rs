//! Session updates: words, tool calls and the rest.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;
use windlass_core::agent::{
    ApprovalKind, Event, FileChange, Role, Sink, TextMode, ToolAction, ToolStatus, ToolText,
    ToolUpdate,
};

use super::permission::kind_of;
use crate::json::Look;
use crate::tools;

/// How many calls are remembered.
const MAX_CALLS: usize = 256;
/// The most bytes of a call's input that are remembered.
const MAX_INPUT: usize = 16 << 10;

/// Updates that say nothing about the conversation.
const PASSED_OVER: &[&str] = &[
    "available_commands_update",
    "config_option_update",
    "current_mode_update",
    "session_info_update",
];

/// What is known of a call: an update leaves out what did not change.
#[derive(Clone, Debug, Default)]
struct Call {
    kind: String,
    title: String,
    input: Value,
    path: Option<String>,
}

/// The calls under way, and which message goes on.
#[derive(Clone, Debug, Default)]
pub(super) struct Calls {
    known: BTreeMap<String, Call>,
    order: VecDeque<String>,
    message: Option<String>,
}

impl Calls {
    /// Takes a piece of a message.
    pub(super) fn words(&mut self, kind: &str, update: &Value, sink: &mut Sink) {
        let message = update.filled("messageId");
        if message.is_some() && message != self.message {
            self.message = message;
            sink.event(Event::MessageEnded);
        }
        let content = update.at("content");
        let role = match kind {
            "user_message_chunk" => Role::User,
            "agent_thought_chunk" => Role::Thinking,
            _ => Role::Assistant,
        };
        let text = content.text("text").map(str::to_owned).unwrap_or_else(|| {
            let what = content.first(&["uri", "type"]).unwrap_or_default();
            format!("[{what}]")
        });
        sink.event(Event::Text { role, item: None, text, mode: TextMode::Append, parent: None });
    }

    /// Takes what is told of a call. There may have been no word of it before.
    pub(super) fn update(&mut self, update: &Value, sink: &mut Sink) {
        let Some(id) = update.filled("toolCallId") else { return };
        if !self.known.contains_key(&id) {
            if self.order.len() == MAX_CALLS
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
            self.order.push_back(id.clone());
        }
        let call = self.known.entry(id.clone()).or_default();
        if let Some(kind) = update.filled("kind") {
            call.kind = kind;
        }
        if let Some(title) = update.filled("title") {
            call.title = title;
        }
        if let Some(path) = update.list("locations").first().and_then(|one| one.filled("path")) {
            call.path = Some(path);
        }
        let input = update.at("rawInput");
        let says = input.as_object().is_some_and(|fields| !fields.is_empty());
        if says && input.to_string().len() <= MAX_INPUT {
            call.input = input.clone();
        }
        let told = if says { input.clone() } else { call.input.clone() };
        let ended = matches!(update.text("status"), Some("completed" | "failed"));
        let exit_code = ended.then(|| exit_code(update.at("rawOutput"))).flatten();
        let status = match update.text("status") {
            Some("completed") if exit_code.is_some_and(|code| code != 0) => ToolStatus::Failed,
            Some("completed") => ToolStatus::Success,
            Some("failed") => ToolStatus::Failed,
            _ => ToolStatus::Created,
        };
        let text = if ended { output(update) } else { None };
        sink.event(Event::Tool(ToolUpdate {
            name: Some(call.name()),
            action: Some(call.action(&told)),
            status: Some(status),
            output: text.map(|text| ToolText { text, mode: TextMode::Whole }),
            exit_code,
            changes: update.list("content").iter().filter_map(change).collect(),
            ..ToolUpdate::of(id)
        }));
    }

    /// Says what permission for a call is asked for, and the name of its tool.
    pub(super) fn asks(&self, id: &str) -> (ApprovalKind, String) {
        match self.known.get(id) {
            Some(call) => (kind_of(&call.kind), call.name()),
            None => (ApprovalKind::Tool, String::new()),
        }
    }
}

impl Call {
    /// The protocol names kinds, not tools.
    fn name(&self) -> String {
        if self.kind.is_empty() { self.title.clone() } else { self.kind.clone() }
    }

    fn action(&self, input: &Value) -> ToolAction {
        let title = || self.title.clone();
        let named = |keys: &[&str]| input.first(keys);
        let path = || {
            named(&["file_path", "filePath", "filepath", "absolute_path", "path"])
                .or_else(|| self.path.clone())
        };
        match self.kind.as_str() {
            "execute" => ToolAction::CommandRun {
                command: named(&["command"]).unwrap_or_else(title),
                cwd: named(&["cwd"]),
            },
            "read" => ToolAction::FileRead { path: path().unwrap_or_else(title) },
            "edit" => ToolAction::FileEdit { changes: self.edit(path(), input) },
            "delete" => {
                let path = path().unwrap_or_else(title);
                ToolAction::FileEdit { changes: vec![FileChange::Delete { path }] }
            }
            "search" => {
                let query = named(&["pattern", "query"]).unwrap_or_else(title);
                ToolAction::Search { query }
            }
            "fetch" => ToolAction::WebFetch { url: named(&["url"]).unwrap_or_else(title) },
            _ => ToolAction::Other { description: title(), arguments: input.clone() },
        }
    }

    /// What an edit is going to do, until its diff is told.
    fn edit(&self, path: Option<String>, input: &Value) -> Vec<FileChange> {
        let Some(path) = path else { return Vec::new() };
        if let Some(content) = input.text("content") {
            return vec![FileChange::Write { path, content: Some(content.to_owned()) }];
        }
        let old = input.text("old_string").or_else(|| input.text("oldString"));
        let new = input.text("new_string").or_else(|| input.text("newString"));
        let (unified_diff, has_line_numbers) = match (old, new, input.filled("diff")) {
            (_, _, Some(diff)) => (Some(diff), true),
            (Some(old), Some(new), None) => (tools::diff(old, new), false),
            _ => (None, false),
        };
        vec![FileChange::Edit { path, unified_diff, has_line_numbers }]
    }
}

/// Reads the diff among the contents of a call.
fn change(content: &Value) -> Option<FileChange> {
    if content.text("type") != Some("diff") {
        return None;
    }
    let path = content.filled("path")?;
    let new = content.text("newText").unwrap_or_default();
    match content.text("oldText") {
        None | Some("") => Some(FileChange::Write { path, content: Some(new.to_owned()) }),
        Some(old) => {
            let unified_diff = tools::diff(old, new);
            Some(FileChange::Edit { path, unified_diff, has_line_numbers: true })
        }
    }
}

/// Reads what a call that ended wrote.
fn output(update: &Value) -> Option<String> {
    let text = |content: &Value| match content.text("type") {
        Some("content") => content.at("content").text("text").map(str::to_owned),
        _ => None,
    };
    let texts: Vec<String> = update.list("content").iter().filter_map(text).collect();
    if !texts.is_empty() {
        return Some(texts.join("\n"));
    }
    let raw = update.at("rawOutput");
    raw.as_str()
        .map(str::to_owned)
        .or_else(|| raw.text("output").or_else(|| raw.text("error")).map(str::to_owned))
}

fn exit_code(output: &Value) -> Option<i64> {
    let keys = ["exit", "exitCode", "exit_code"];
    let of = |value: &Value| keys.iter().find_map(|key| value.signed(key));
    of(output).or_else(|| of(output.at("metadata")))
}

/// Takes the updates that are neither words nor calls; says whether they are known.
pub(super) fn other(kind: &str, update: &Value, sink: &mut Sink) -> bool {
    match kind {
        "plan" => {
            let todos = tools::todos(update.list("entries"));
            sink.event(Event::Todos { item: "plan".to_owned(), todos });
        }
        "notice" | "compaction_update" | "compaction_summary_chunk" => {
            let text = update
                .first(&["text", "message", "status"])
                .or_else(|| update.at("content").filled("text"));
            sink.event(Event::Notice { text: text.unwrap_or_else(|| kind.to_owned()) });
        }
        _ => return PASSED_OVER.contains(&kind),
    }
    true
}
