//! What a tool does, from its name and input: the built-in tools of the agents that have no typed items.

use serde_json::Value;
use windlass_core::agent::{FileChange, Question, Todo, TodoStatus, ToolAction, unified_diff};

use crate::json::Look;

/// The most bytes of texts that are compared line by line for a diff.
const MAX_DIFFED: usize = 2 << 20;

/// Says what a tool does, by the names that Claude Code, Gemini CLI and opencode use.
pub(crate) fn action(name: &str, input: &Value) -> ToolAction {
    let path = || input.first(&["file_path", "filePath", "absolute_path", "notebook_path", "path"]);
    let action = match name {
        "Bash" | "bash" | "shell" | "run_shell_command" => input.filled("command").map(|command| {
            ToolAction::CommandRun { command, cwd: input.first(&["cwd", "dir_path"]) }
        }),
        "Read" | "read" | "read_file" | "NotebookRead" | "list" | "LS" | "list_directory" => {
            path().or_else(|| input.filled("dir_path")).map(|path| ToolAction::FileRead { path })
        }
        "Write" | "write" | "write_file" => path().map(|path| {
            let content = input.text("content").map(str::to_owned);
            ToolAction::FileEdit { changes: vec![FileChange::Write { path, content }] }
        }),
        "Edit" | "edit" | "replace" | "MultiEdit" | "NotebookEdit" | "multiedit" => {
            path().map(|path| ToolAction::FileEdit { changes: edits(&path, input) })
        }
        "Grep"
        | "grep"
        | "Glob"
        | "glob"
        | "search_file_content"
        | "grep_search"
        | "WebSearch"
        | "websearch"
        | "google_web_search"
        | "ToolSearch"
        | "codesearch" => {
            input.first(&["pattern", "query"]).map(|query| ToolAction::Search { query })
        }
        "WebFetch" | "webfetch" | "web_fetch" => {
            input.first(&["url", "prompt"]).map(|url| ToolAction::WebFetch { url })
        }
        "Task" | "task" | "Agent" => input
            .first(&["description", "prompt"])
            .map(|description| ToolAction::TaskCreate { description }),
        "ExitPlanMode" | "exit_plan_mode" => {
            input.filled("plan").map(|plan| ToolAction::PlanPresentation { plan })
        }
        "TodoWrite" | "todowrite" | "write_todos" => {
            Some(ToolAction::TodoManagement { todos: todos(input.list("todos")) })
        }
        "AskUserQuestion" | "question" | "ask_user" => {
            Some(ToolAction::AskUserQuestion { questions: questions(input) })
        }
        _ => None,
    };
    action.unwrap_or_else(|| other(name, input))
}

/// A tool of a server, or one that nobody here knows.
fn other(name: &str, input: &Value) -> ToolAction {
    let arguments = input.clone();
    if name.starts_with("mcp__") {
        ToolAction::Tool { tool_name: name.to_owned(), arguments }
    } else {
        ToolAction::Other { description: name.to_owned(), arguments }
    }
}

fn edits(path: &str, input: &Value) -> Vec<FileChange> {
    let one = |edit: &Value| {
        let old = edit.text("old_string").or_else(|| edit.text("oldString")).unwrap_or_default();
        let new = edit.first(&["new_string", "newString", "new_source"]).unwrap_or_default();
        FileChange::Edit {
            path: path.to_owned(),
            unified_diff: diff(old, &new),
            has_line_numbers: false,
        }
    };
    match input.list("edits") {
        [] => vec![one(input)],
        edits => edits.iter().map(one).collect(),
    }
}

/// Returns the change from one text to another, unless they are huge.
pub(crate) fn diff(old: &str, new: &str) -> Option<String> {
    if old.len().saturating_add(new.len()) > MAX_DIFFED {
        return None;
    }
    unified_diff(old, new)
}

/// Reads a list of what is to be done.
pub(crate) fn todos(list: &[Value]) -> Vec<Todo> {
    let todo = |item: &Value| {
        let content = item.first(&["content", "description", "step", "text"])?;
        let status = match item.text("status") {
            Some("completed" | "done") => TodoStatus::Completed,
            Some("in_progress" | "inProgress") => TodoStatus::InProgress,
            Some("cancelled" | "canceled") => TodoStatus::Cancelled,
            _ if item.is("completed") => TodoStatus::Completed,
            _ => TodoStatus::Pending,
        };
        Some(Todo { content, status, priority: item.filled("priority") })
    };
    list.iter().filter_map(todo).collect()
}

/// Reads questions to the user.
pub(crate) fn questions(input: &Value) -> Vec<Question> {
    let one = |item: &Value| {
        let text = item.first(&["question", "text", "label"])?;
        let option = |option: &Value| {
            option.as_str().map(str::to_owned).or_else(|| option.first(&["label", "value", "name"]))
        };
        Some(Question {
            id: item.filled("id").unwrap_or_else(|| text.clone()),
            text,
            header: item.filled("header"),
            options: item.list("options").iter().filter_map(option).collect(),
            multiple: item.is("multiSelect") || item.is("multiple"),
        })
    };
    match input.list("questions") {
        [] => one(input).into_iter().collect(),
        list => list.iter().filter_map(one).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_edit_shows_what_it_replaces() {
        let input = json!({ "file_path": "/w/a", "old_string": "one\n", "new_string": "two\n" });
        let ToolAction::FileEdit { changes } = action("Edit", &input) else { panic!("no edit") };
        let diff = "@@ -1 +1 @@\n-one\n+two\n";
        assert_eq!(
            changes,
            [FileChange::Edit {
                path: "/w/a".to_owned(),
                unified_diff: Some(diff.to_owned()),
                has_line_numbers: false
            }]
        );
    }

    #[test]
    fn input_of_another_shape_leaves_the_tool_as_it_is() {
        for input in [json!(null), json!({ "command": 1 }), json!([1])] {
            assert_eq!(
                action("Bash", &input),
                ToolAction::Other { description: "Bash".to_owned(), arguments: input }
            );
        }
    }

    #[test]
    fn questions_have_options_of_either_shape() {
        let input = json!({ "questions": [
            { "question": "Which?", "header": "H", "options": [{ "label": "a" }, "b"], "multiSelect": true }
        ]});
        let [question] = &questions(&input)[..] else { panic!("one question") };
        assert_eq!(question.options, ["a", "b"]);
        assert!(question.multiple);
    }
}
