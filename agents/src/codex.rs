//! Items and usage of Codex, which `exec` writes in snake case and `app-server` in camel case.

use serde_json::Value;
use windlass_core::agent::{
    Event, Failure, FailureReason, FileChange, Role, Sink, TextMode, Todo, TodoStatus, ToolAction,
    ToolStatus, ToolText, ToolUpdate, Usage,
};

use crate::json::{Look, whole};
use crate::{failure, tools};

/// Where an item is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Started,
    Updated,
    Completed,
}

/// Puts an item into events; says whether it is known.
pub(crate) fn item(item: &Value, phase: Phase, sink: &mut Sink) -> bool {
    let Some(id) = item.filled("id") else { return false };
    match item.text("type").unwrap_or_default() {
        "userMessage" | "user_message" => {
            if phase == Phase::Completed {
                words(sink, Role::User, id, texts(item.list("content")));
            }
        }
        "agentMessage" | "agent_message" => message(sink, Role::Assistant, id, item, phase),
        "plan" => message(sink, Role::Plan, id, item, phase),
        "reasoning" => {
            if phase == Phase::Completed {
                let parts = [item.list("summary"), item.list("content")];
                let parts = parts.into_iter().find(|list| !list.is_empty());
                let text = parts.map(texts).or_else(|| item.filled("text"));
                words(sink, Role::Thinking, id, text.unwrap_or_default());
            }
        }
        "commandExecution" | "command_execution" => command(sink, id, item, phase),
        "fileChange" | "file_change" => {
            let changes: Vec<_> = item.list("changes").iter().filter_map(change).collect();
            sink.event(Event::Tool(ToolUpdate {
                name: Some("apply_patch".to_owned()),
                action: Some(ToolAction::FileEdit { changes }),
                status: Some(status(item, phase)),
                ..ToolUpdate::of(id)
            }));
        }
        "mcpToolCall" | "mcp_tool_call" | "dynamicToolCall" => server_tool(sink, id, item, phase),
        "webSearch" | "web_search" => {
            let query = item.filled("query").unwrap_or_default();
            let action = ToolAction::Search { query };
            plain_tool(sink, id, "web_search", action, item, phase);
        }
        "collabToolCall" | "collab_tool_call" | "collabAgentToolCall" => {
            let description = item.first(&["prompt", "tool"]).unwrap_or_default();
            let action = ToolAction::TaskCreate { description };
            plain_tool(sink, id, "task", action, item, phase);
        }
        "imageView" | "image_view" => {
            let path = item.filled("path").unwrap_or_default();
            let action = ToolAction::FileRead { path };
            plain_tool(sink, id, "view_image", action, item, phase);
        }
        "todoList" | "todo_list" => {
            sink.event(Event::Todos { item: id, todos: tools::todos(item.list("items")) });
        }
        "error" => {
            let text = item.filled("message").unwrap_or_default();
            if phase == Phase::Completed {
                sink.event(Event::Notice { text });
            }
        }
        "contextCompaction" | "context_compaction" => {
            if phase == Phase::Completed {
                sink.event(Event::Notice { text: "context compacted".to_owned() });
            }
        }
        "enteredReviewMode" | "exitedReviewMode" => {
            if phase == Phase::Completed {
                let text = item.first(&["review", "type"]).unwrap_or_default();
                sink.event(Event::Notice { text });
            }
        }
        _ => return phase != Phase::Completed,
    }
    true
}

fn message(sink: &mut Sink, role: Role, id: String, item: &Value, phase: Phase) {
    // The text at the start is empty; where it is not, what follows goes on from it or replaces it.
    if phase == Phase::Completed {
        words(sink, role, id, item.filled("text").unwrap_or_default());
    }
}

fn words(sink: &mut Sink, role: Role, id: String, text: String) {
    sink.event(Event::Text { role, item: Some(id), text, mode: TextMode::Whole, parent: None });
}

/// Joins the texts of a list of parts, which are strings or objects with a text.
pub(crate) fn texts(parts: &[Value]) -> String {
    let text = |part: &Value| part.as_str().map(str::to_owned).or_else(|| part.filled("text"));
    parts.iter().filter_map(text).collect::<Vec<_>>().join("\n")
}

fn status(item: &Value, phase: Phase) -> ToolStatus {
    match item.text("status") {
        Some("declined" | "denied" | "rejected") => ToolStatus::Denied,
        Some("failed" | "error") => ToolStatus::Failed,
        Some("interrupted" | "cancelled") => ToolStatus::Unfinished,
        _ if phase != Phase::Completed => ToolStatus::Created,
        _ => ToolStatus::Success,
    }
}

fn command(sink: &mut Sink, id: String, item: &Value, phase: Phase) {
    let exit_code = item.signed("exitCode").or_else(|| item.signed("exit_code"));
    let output = item.first(&["aggregatedOutput", "aggregated_output"]);
    let status = match (status(item, phase), exit_code) {
        (ToolStatus::Success, Some(code)) if code != 0 => ToolStatus::Failed,
        (status, _) => status,
    };
    let command = item.filled("command").unwrap_or_default();
    sink.event(Event::Tool(ToolUpdate {
        name: Some("shell".to_owned()),
        action: Some(ToolAction::CommandRun { command, cwd: item.filled("cwd") }),
        status: Some(status),
        output: output.map(|text| ToolText { text, mode: TextMode::Whole }),
        exit_code,
        ..ToolUpdate::of(id)
    }));
}

fn server_tool(sink: &mut Sink, id: String, item: &Value, phase: Phase) {
    let tool = item.filled("tool").unwrap_or_default();
    let tool_name = match item.first(&["server", "namespace"]) {
        Some(server) => format!("{server}.{tool}"),
        None => tool,
    };
    let failed = item.has("error") || item.at("success").as_bool() == Some(false);
    let told = if item.has("error") { item.at("error") } else { item.at("result") };
    let text = match told {
        Value::Null => texts(item.list("contentItems")),
        Value::String(text) => text.clone(),
        told => told.filled("message").unwrap_or_else(|| match told.list("content") {
            [] => told.to_string(),
            parts => texts(parts),
        }),
    };
    let status = match status(item, phase) {
        ToolStatus::Success if failed => ToolStatus::Failed,
        status => status,
    };
    sink.event(Event::Tool(ToolUpdate {
        name: Some(tool_name.clone()),
        action: Some(ToolAction::Tool { tool_name, arguments: item.at("arguments").clone() }),
        status: Some(status),
        output: (!text.is_empty()).then_some(ToolText { text, mode: TextMode::Whole }),
        ..ToolUpdate::of(id)
    }));
}

fn plain_tool(
    sink: &mut Sink,
    id: String,
    name: &str,
    action: ToolAction,
    item: &Value,
    phase: Phase,
) {
    sink.event(Event::Tool(ToolUpdate {
        name: Some(name.to_owned()),
        action: Some(action),
        status: Some(status(item, phase)),
        ..ToolUpdate::of(id)
    }));
}

/// Reads one change of a file. `exec` tells path and kind only.
pub(crate) fn change(change: &Value) -> Option<FileChange> {
    let path = change.filled("path")?;
    Some(change_of(path, change.at("kind"), change.text("diff").map(str::to_owned)))
}

/// Reads a change of `path`: `kind` is a word or an object with a type.
pub(crate) fn change_of(path: String, kind: &Value, diff: Option<String>) -> FileChange {
    let word = kind.as_str().or_else(|| kind.text("type")).unwrap_or_default();
    let moved = kind.first(&["move_path", "movePath"]);
    match (word, moved) {
        ("add", _) => FileChange::Write { path, content: diff },
        ("delete", _) => FileChange::Delete { path },
        (_, Some(new_path)) => FileChange::Rename { path, new_path, unified_diff: diff },
        _ => FileChange::Edit { path, unified_diff: diff, has_line_numbers: true },
    }
}

/// Reads the steps of a plan.
pub(crate) fn plan(steps: &[Value]) -> Vec<Todo> {
    let step = |step: &Value| {
        let content = step.first(&["step", "text"])?;
        let status = match step.text("status") {
            Some("completed") => TodoStatus::Completed,
            Some("inProgress" | "in_progress") => TodoStatus::InProgress,
            _ => TodoStatus::Pending,
        };
        Some(Todo { content, status, priority: None })
    };
    steps.iter().filter_map(step).collect()
}

/// Reads token counts of either spelling. Codex counts cached input as input and reasoning as output.
pub(crate) fn usage(counts: &Value) -> Usage {
    let count = |camel: &str, snake: &str| {
        whole(counts.at(camel)).or_else(|| whole(counts.at(snake))).unwrap_or(0)
    };
    Usage {
        input_tokens: count("inputTokens", "input_tokens"),
        cached_input_tokens: count("cachedInputTokens", "cached_input_tokens"),
        cache_write_tokens: count("cacheWriteInputTokens", "cache_write_input_tokens"),
        output_tokens: count("outputTokens", "output_tokens"),
        reasoning_tokens: count("reasoningOutputTokens", "reasoning_output_tokens"),
        // Its own total is the size of the window when that is full.
        total_tokens: 0,
        cost_usd_micros: None,
    }
    .summed()
}

/// Reads an exit code of Codex.
pub(crate) fn exit_code(code: u8, last_error: Option<&Failure>) -> Failure {
    let said =
        last_error.map_or_else(|| format!("exit code {code}"), |error| error.message.clone());
    let known = failure::from_words(&said);
    match (code, known.reason) {
        (2, FailureReason::Unknown) => Failure { reason: FailureReason::Config, ..known },
        (_, FailureReason::Unknown) => Failure { reason: FailureReason::Exit, ..known },
        _ => known,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn events(value: &Value, phase: Phase) -> Vec<Event> {
        let mut sink = Sink::default();
        assert!(item(value, phase, &mut sink));
        sink.events
    }

    #[test]
    fn both_spellings_give_the_same_command() {
        let exec = json!({ "id": "1", "type": "command_execution", "command": "ls", "aggregated_output": "a\n",
            "exit_code": 2, "status": "completed" });
        let app = json!({ "id": "1", "type": "commandExecution", "command": "ls", "aggregatedOutput": "a\n",
            "exitCode": 2, "status": "completed" });
        assert_eq!(events(&exec, Phase::Completed), events(&app, Phase::Completed));
        let [Event::Tool(update)] = &events(&exec, Phase::Completed)[..] else { panic!("a tool") };
        assert_eq!(update.status, Some(ToolStatus::Failed));
    }

    #[test]
    fn a_moved_file_is_renamed() {
        let kind = json!({ "type": "update", "move_path": "b" });
        assert_eq!(
            change_of("a".to_owned(), &kind, None),
            FileChange::Rename {
                path: "a".to_owned(),
                new_path: "b".to_owned(),
                unified_diff: None
            }
        );
    }

    #[test]
    fn an_item_of_a_new_type_is_not_known_when_it_is_complete() {
        let new = json!({ "id": "1", "type": "hologram" });
        assert!(item(&new, Phase::Started, &mut Sink::default()));
        assert!(!item(&new, Phase::Completed, &mut Sink::default()));
    }
}
