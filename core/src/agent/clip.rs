//! How much of a text an entry keeps.

use serde_json::Value;

use super::entry::{Content, FileChange, ToolAction, ToolOutput};

/// The most bytes of a message.
pub(super) const MESSAGE_BYTES: usize = 256 << 10;
/// The most bytes of what a tool wrote, and of one text that it was given.
pub(super) const TOOL_BYTES: usize = 64 << 10;
/// The most bytes of what a tool was given where its shape is not known.
const ARGUMENT_BYTES: usize = 32 << 10;
/// The most bytes of a remark.
const REMARK_BYTES: usize = 8 << 10;
/// The most files of one edit, things to do, questions and choices.
const LIST_ITEMS: usize = 256;

/// Cuts `text` to at most `most` bytes at a character; returns how many went.
pub(super) fn head(text: &mut String, most: usize) -> u64 {
    if text.len() <= most {
        return 0;
    }
    let dropped = text.len();
    let mut end = most;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text.shrink_to_fit();
    (dropped - end) as u64
}

/// Cuts the middle out of `text`, so that its head and its end fit into `most` bytes; returns how many went.
pub(super) fn middle(text: &mut String, most: usize) -> u64 {
    if text.len() <= most {
        return 0;
    }
    let (mut from, mut to) = (most / 2, text.len() - most / 2);
    while !text.is_char_boundary(from) {
        from -= 1;
    }
    while !text.is_char_boundary(to) {
        to += 1;
    }
    let dropped = to - from;
    let cut = format!("{}\n[{dropped} bytes left out]\n{}", &text[..from], &text[to..]);
    *text = cut;
    dropped as u64
}

/// Appends as much of `piece` as fits; returns what was appended and how many bytes were not.
pub(super) fn append<'a>(text: &mut String, piece: &'a str, most: usize) -> (&'a str, u64) {
    let mut end = most.saturating_sub(text.len()).min(piece.len());
    while !piece.is_char_boundary(end) {
        end -= 1;
    }
    text.push_str(&piece[..end]);
    (&piece[..end], (piece.len() - end) as u64)
}

/// Cuts the texts of a value; returns how many bytes went.
fn value(value: &mut Value, room: &mut usize) -> u64 {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            *room = room.saturating_sub(8);
            0
        }
        Value::String(text) => {
            let dropped = head(text, *room);
            *room -= text.len();
            dropped
        }
        Value::Array(items) => {
            let mut dropped = 0;
            let mut kept = 0;
            for item in items.iter_mut() {
                if *room == 0 {
                    break;
                }
                dropped += self::value(item, room);
                kept += 1;
            }
            dropped + items.drain(kept..).map(|item| size(&item)).sum::<u64>()
        }
        Value::Object(fields) => {
            let mut dropped = 0;
            for (name, field) in fields.iter_mut() {
                *room = room.saturating_sub(name.len());
                dropped += self::value(field, room);
            }
            dropped
        }
    }
}

fn size(value: &Value) -> u64 {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
        Value::String(text) => text.len() as u64,
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(fields) => {
            fields.iter().map(|(name, field)| name.len() as u64 + size(field)).sum()
        }
    }
}

fn arguments(arguments: &mut Value) -> u64 {
    value(arguments, &mut { ARGUMENT_BYTES })
}

fn list<T>(items: &mut Vec<T>, each: impl FnMut(&mut T) -> u64) -> u64 {
    let most = items.len().min(LIST_ITEMS);
    let gone = items.drain(most..).count() as u64;
    items.iter_mut().map(each).sum::<u64>() + gone
}

fn change(change: &mut FileChange, room: &mut usize) -> u64 {
    let text = match change {
        FileChange::Write { content: text, .. }
        | FileChange::Rename { unified_diff: text, .. }
        | FileChange::Edit { unified_diff: text, .. } => text,
        FileChange::Delete { .. } => return 0,
    };
    let Some(text) = text else { return 0 };
    let dropped = head(text, TOOL_BYTES.min(*room));
    *room -= text.len();
    dropped
}

fn action(action: &mut ToolAction) -> u64 {
    match action {
        ToolAction::FileRead { path: text }
        | ToolAction::Search { query: text }
        | ToolAction::WebFetch { url: text }
        | ToolAction::TaskCreate { description: text }
        | ToolAction::PlanPresentation { plan: text }
        | ToolAction::CommandRun { command: text, .. } => head(text, TOOL_BYTES),
        ToolAction::FileEdit { changes } => {
            let room = &mut { MESSAGE_BYTES };
            list(changes, |one| change(one, room))
        }
        ToolAction::Tool { arguments: given, .. } => arguments(given),
        ToolAction::Other { description, arguments: given } => {
            head(description, REMARK_BYTES) + arguments(given)
        }
        ToolAction::TodoManagement { todos } => {
            list(todos, |todo| head(&mut todo.content, REMARK_BYTES))
        }
        ToolAction::AskUserQuestion { questions } => {
            list(questions, |question| head(&mut question.text, REMARK_BYTES))
        }
    }
}

/// Cuts everything in `content` that has no natural limit; returns how many bytes went.
pub(super) fn content(content: &mut Content) -> u64 {
    match content {
        Content::UserMessage { text }
        | Content::AssistantMessage { text }
        | Content::Thinking { text }
        | Content::Plan { text } => head(text, MESSAGE_BYTES),
        Content::Todos { todos } => list(todos, |todo| head(&mut todo.content, REMARK_BYTES)),
        Content::ToolUse { tool_id, tool_name, action: does, result, .. } => {
            let output = |output: &mut ToolOutput| middle(&mut output.text, TOOL_BYTES);
            head(tool_id, REMARK_BYTES)
                + head(tool_name, REMARK_BYTES)
                + action(does)
                + result.as_mut().map_or(0, output)
        }
        Content::Approval { approval, .. } => {
            head(&mut approval.title, REMARK_BYTES)
                + approval.reason.as_mut().map_or(0, |reason| head(reason, REMARK_BYTES))
                + approval.action.as_mut().map_or(0, action)
                + arguments(&mut approval.input)
                + list(&mut approval.choices, |choice| head(&mut choice.name, REMARK_BYTES))
                + list(&mut approval.questions, |one| head(&mut one.text, REMARK_BYTES))
        }
        Content::SystemMessage { text } => head(text, REMARK_BYTES),
        Content::ErrorMessage { failure, .. } => head(&mut failure.message, REMARK_BYTES),
        Content::Session { session_id, .. } => head(session_id, REMARK_BYTES),
        Content::Raw { text, .. } => head(text, TOOL_BYTES),
        Content::Turn { .. } | Content::Gap { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_at_characters() {
        let mut text = "é".repeat(10);
        assert_eq!(head(&mut text, 7), 14);
        assert_eq!(text, "ééé");
        let mut text = format!("{}{}", "é".repeat(100), "ü".repeat(100));
        assert_eq!(middle(&mut text, 10), 392);
        assert_eq!(text, "éé\n[392 bytes left out]\nüü");
        let mut text = "x".to_owned();
        assert_eq!(append(&mut text, "éé", 4), ("é", 2));
    }

    #[test]
    fn the_size_of_arguments_has_a_limit() {
        let mut given = serde_json::json!({ "a": "x".repeat(100_000), "b": vec!["y"; 100_000] });
        let dropped = arguments(&mut given);
        assert!(size(&given) <= ARGUMENT_BYTES as u64 + 16);
        assert_eq!(dropped + size(&given), 200_002);
    }
}
