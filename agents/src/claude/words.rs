//! What Claude says and does: streamed pieces first, whole messages after them.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;
use windlass_core::agent::{
    Event, FileChange, Role, Sink, TextMode, ToolStatus, ToolText, ToolUpdate, Usage,
};

use crate::json::{Look, whole};
use crate::tools;

/// How many messages are followed at once, those of subagents included.
const MAX_MESSAGES: usize = 64;

/// Pieces and blocks of the messages under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Words {
    /// The message that streams, by the call that it belongs to (empty for none).
    streaming: BTreeMap<String, String>,
    /// How many blocks of a message came whole.
    whole: VecDeque<(String, u64)>,
    said: bool,
}

impl Words {
    /// Says whether there were words in this turn, and forgets it.
    pub(super) fn take_said(&mut self) -> bool {
        std::mem::take(&mut self.said)
    }

    /// Takes an event of the model's stream.
    pub(super) fn streamed(&mut self, message: &Value, sink: &mut Sink) {
        let event = message.at("event");
        let parent = message.filled("parent_tool_use_id");
        let key = parent.clone().unwrap_or_default();
        match event.text("type").unwrap_or_default() {
            "message_start" => {
                let id = event.at("message").filled("id").unwrap_or_default();
                if self.streaming.len() >= MAX_MESSAGES {
                    self.streaming.clear();
                }
                self.streaming.insert(key, id);
            }
            "content_block_delta" => {
                let delta = event.at("delta");
                let (role, text) = match delta.text("type").unwrap_or_default() {
                    "text_delta" => (Role::Assistant, delta.text("text")),
                    "thinking_delta" => (Role::Thinking, delta.text("thinking")),
                    _ => return,
                };
                let message = self.streaming.get(&key).map_or("", String::as_str);
                let block = event.count("index").unwrap_or(0);
                let item = Some(format!("{message}#{block}"));
                let (text, mode) = (text.unwrap_or_default().to_owned(), TextMode::Append);
                sink.event(Event::Text { role, item, text, mode, parent });
            }
            _ => {}
        }
    }

    /// Takes blocks of a message. A message comes in several lines with the same id, a block or more in each.
    pub(super) fn assistant(&mut self, line: &Value, sink: &mut Sink) {
        let message = line.at("message");
        let parent = line.filled("parent_tool_use_id");
        let id = message.filled("id").unwrap_or_default();
        if let Some(text) = message.text("content") {
            let item = Some(format!("{id}#0"));
            self.whole_words(Role::Assistant, item, text.to_owned(), parent, sink);
            return;
        }
        for block in message.list("content") {
            let item = Some(format!("{id}#{}", self.next_block(&id)));
            let parent = parent.clone();
            match block.text("type").unwrap_or_default() {
                "text" => {
                    let text = block.filled("text").unwrap_or_default();
                    self.whole_words(Role::Assistant, item, text, parent, sink);
                }
                "thinking" => {
                    let text = block.filled("thinking").unwrap_or_default();
                    self.whole_words(Role::Thinking, item, text, parent, sink);
                }
                "tool_use" | "server_tool_use" | "mcp_tool_use" => {
                    let name = block.filled("name").unwrap_or_default();
                    sink.event(Event::Tool(ToolUpdate {
                        action: Some(tools::action(&name, block.at("input"))),
                        name: Some(name),
                        status: Some(ToolStatus::Created),
                        parent,
                        ..ToolUpdate::of(block.filled("id").unwrap_or_default())
                    }));
                }
                kind if kind.ends_with("_tool_result") => result(block, &Value::Null, sink),
                _ => {}
            }
        }
    }

    fn whole_words(
        &mut self,
        role: Role,
        item: Option<String>,
        text: String,
        parent: Option<String>,
        sink: &mut Sink,
    ) {
        self.said |= role == Role::Assistant && parent.is_none() && !text.is_empty();
        sink.event(Event::Text { role, item, text, mode: TextMode::Whole, parent });
    }

    /// Counts the blocks of a message: they have no number of their own.
    fn next_block(&mut self, id: &str) -> u64 {
        if let Some((_, count)) = self.whole.iter_mut().find(|(known, _)| known == id) {
            *count += 1;
            return *count - 1;
        }
        if self.whole.len() == MAX_MESSAGES {
            self.whole.pop_front();
        }
        self.whole.push_back((id.to_owned(), 1));
        0
    }

    /// Takes the results of tools out of a message of the user.
    pub(super) fn results(
        &mut self,
        content: &Value,
        told: &Value,
        parent: Option<&String>,
        sink: &mut Sink,
    ) {
        let results: Vec<&Value> = content
            .as_array()
            .into_iter()
            .flatten()
            .filter(|block| block.text("type") == Some("tool_result"))
            .collect();
        // What is told beside the blocks is of the only one.
        let told = if results.len() == 1 && parent.is_none() { told } else { &Value::Null };
        for block in results {
            result(block, told, sink);
        }
    }
}

fn result(block: &Value, told: &Value, sink: &mut Sink) {
    let content = block.at("content");
    let text = match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let text = |part: &Value| match part.text("type") {
                Some("text") | None => part.text("text").map(str::to_owned),
                Some(other) => Some(format!("[{other}]")),
            };
            parts.iter().filter_map(text).collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    };
    let status = if block.is("is_error") { ToolStatus::Failed } else { ToolStatus::Success };
    sink.event(Event::Tool(ToolUpdate {
        status: Some(status),
        output: Some(ToolText { text, mode: TextMode::Whole }),
        exit_code: told.signed("exitCode").or_else(|| told.signed("exit_code")),
        changes: patch(told).into_iter().collect(),
        ..ToolUpdate::of(block.filled("tool_use_id").unwrap_or_default())
    }));
}

/// Reads the patch that is told with the result of an edit.
fn patch(told: &Value) -> Option<FileChange> {
    let path = told.filled("filePath")?;
    let hunks = told.list("structuredPatch");
    if hunks.is_empty() {
        return None;
    }
    let mut diff = String::new();
    for hunk in hunks {
        let number = |key: &str| hunk.count(key).unwrap_or(0);
        diff.push_str(&format!(
            "@@ -{},{} +{},{} @@\n",
            number("oldStart"),
            number("oldLines"),
            number("newStart"),
            number("newLines")
        ));
        for line in hunk.list("lines").iter().filter_map(Value::as_str) {
            diff.push_str(line);
            diff.push('\n');
        }
    }
    Some(FileChange::Edit { path, unified_diff: Some(diff), has_line_numbers: true })
}

/// Gives words of the user.
pub(super) fn user(text: String, sink: &mut Sink) {
    let (role, mode) = (Role::User, TextMode::Whole);
    sink.event(Event::Text { role, item: None, text, mode, parent: None });
}

/// Joins the words of a message, which is a text or a list of blocks.
pub(super) fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => {
            let text = |block: &Value| match block.text("type") {
                Some("text") => block.text("text").map(str::to_owned),
                Some("tool_result") | None => None,
                Some(other) => Some(format!("[{other}]")),
            };
            blocks.iter().filter_map(text).collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}

/// Reads token counts of the API, which counts cached input apart.
pub(super) fn usage(counts: &Value) -> Usage {
    let count = |key: &str| whole(counts.at(key)).unwrap_or(0);
    let (read, write) = (count("cache_read_input_tokens"), count("cache_creation_input_tokens"));
    Usage {
        input_tokens: count("input_tokens").saturating_add(read).saturating_add(write),
        cached_input_tokens: read,
        cache_write_tokens: write,
        output_tokens: count("output_tokens"),
        ..Usage::default()
    }
    .summed()
}
