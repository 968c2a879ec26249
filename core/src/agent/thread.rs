//! The entries that may still change, and what events do to them.

use std::collections::{BTreeMap, VecDeque};

use super::clip;
use super::entry::{
    ApprovalState, Change, ChangeKind, Content, Entry, FileChange, Todo, ToolAction, ToolOutput,
    ToolStatus,
};
use super::event::{Approval, ApprovalId, Output, Role, TextMode, ToolUpdate};
use crate::log_store::Stream;

/// The most entries that may be open at once; beyond it the oldest is closed.
const MAX_OPEN: usize = 256;
/// How many calls that ended are remembered, to know a repetition.
const MAX_ENDED: usize = 256;
/// How many calls that we closed are kept for a late end.
const MAX_LATE: usize = 32;
/// From this size on, further lines begin a new entry.
const RAW_BYTES: usize = 16 << 10;
/// The most bytes of the summary.
const SUMMARY_BYTES: usize = 4096;

/// Where and when the log is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct At {
    pub(super) seq: u64,
    pub(super) at_ms: Option<u64>,
}

/// The end of the list of entries: what may still change. The rest was given away.
#[derive(Clone, Debug, Default)]
pub(super) struct Thread {
    next: u64,
    open: BTreeMap<u64, Entry>,
    tools: BTreeMap<String, u64>,
    items: BTreeMap<(Role, String), u64>,
    lists: BTreeMap<String, u64>,
    /// The message that goes on where the protocol names none.
    current: Option<(Role, Option<String>, u64)>,
    raw: Option<(Stream, u64)>,
    ended: VecDeque<String>,
    late: VecDeque<Entry>,
    approvals: BTreeMap<ApprovalId, (u64, Option<String>)>,
    summary: Option<(u64, String)>,
    changes: Vec<Change>,
    pub(super) at: At,
    pub(super) history: bool,
    /// Paths below it are shown relative to it.
    pub(super) root: Option<String>,
}

impl Thread {
    pub(super) fn next_index(&self) -> u64 {
        self.next
    }

    /// Returns the first index that may still change.
    pub(super) fn settled_below(&self) -> u64 {
        let late = self.late.iter().map(|entry| entry.index).min();
        let open = self.open.keys().next().copied();
        open.into_iter().chain(late).min().unwrap_or(self.next)
    }

    /// Returns about how many bytes are held.
    pub(super) fn weight(&self) -> usize {
        let text = |entry: &Entry| serde_json::to_string(entry).map_or(0, |text| text.len());
        self.open.values().map(text).sum::<usize>() + self.late.iter().map(text).sum::<usize>()
    }

    pub(super) fn summary(&self) -> Option<&str> {
        self.summary.as_ref().map(|(_, text)| text.as_str())
    }

    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Adds an entry at the end; one that is not open is never looked at again.
    fn add(&mut self, content: Content, parent: Option<String>, open: bool) -> u64 {
        if !matches!(content, Content::Raw { .. }) {
            self.end_raw();
        }
        let index = self.next;
        self.next += 1;
        // Of the past are words and deeds; remarks are of now.
        let told_again = matches!(
            content,
            Content::UserMessage { .. }
                | Content::AssistantMessage { .. }
                | Content::Thinking { .. }
                | Content::Plan { .. }
                | Content::Todos { .. }
                | Content::ToolUse { .. }
        );
        let mut entry = Entry {
            index,
            seq: self.at.seq,
            at_ms: self.at.at_ms,
            content,
            open,
            parent,
            history: self.history && told_again,
            dropped_bytes: 0,
        };
        entry.dropped_bytes = clip::content(&mut entry.content);
        if open {
            self.open.insert(index, entry.clone());
        } else {
            self.note_summary(&entry);
        }
        self.changes.push(Change { index, kind: ChangeKind::Added { entry: Box::new(entry) } });
        if self.open.len() > MAX_OPEN {
            self.close_oldest();
        }
        index
    }

    fn replaced(&mut self, index: u64) {
        if let Some(entry) = self.open.get_mut(&index) {
            entry.dropped_bytes += clip::content(&mut entry.content);
            let entry = Box::new(entry.clone());
            self.changes.push(Change { index, kind: ChangeKind::Replaced { entry } });
        }
    }

    /// Appends to the text of an open entry.
    fn append(&mut self, index: u64, piece: &str, most: usize) {
        let Some(entry) = self.open.get_mut(&index) else { return };
        let Some(text) = entry.content.text_mut() else { return };
        let (kept, dropped) = clip::append(text, piece, most);
        entry.dropped_bytes += dropped;
        if !kept.is_empty() {
            let text = kept.to_owned();
            self.changes.push(Change { index, kind: ChangeKind::Appended { text } });
        }
    }

    /// Gives an entry away. Pending questions stay open unless they are answered first.
    fn close(&mut self, index: u64) {
        let Some(mut entry) = self.open.remove(&index) else { return };
        entry.open = false;
        self.note_summary(&entry);
        self.tools.retain(|_, at| *at != index);
        self.items.retain(|_, at| *at != index);
        self.lists.retain(|_, at| *at != index);
        if self.current.as_ref().is_some_and(|(_, _, at)| *at == index) {
            self.current = None;
        }
        if let Content::ToolUse { tool_id, status, .. } = &entry.content {
            if *status == ToolStatus::Unfinished {
                if self.late.len() == MAX_LATE {
                    self.late.pop_front();
                }
                self.late.push_back(entry.clone());
            } else {
                if self.ended.len() == MAX_ENDED {
                    self.ended.pop_front();
                }
                self.ended.push_back(tool_id.clone());
            }
        }
        let entry = Box::new(entry);
        self.changes.push(Change { index, kind: ChangeKind::Replaced { entry } });
    }

    fn close_oldest(&mut self) {
        let approvals: Vec<u64> = self.approvals.values().map(|(index, _)| *index).collect();
        let oldest = self.open.keys().copied().find(|index| !approvals.contains(index));
        if let Some(index) = oldest.or_else(|| self.open.keys().next().copied()) {
            self.leave_tool(index);
            self.close(index);
        }
    }

    fn note_summary(&mut self, entry: &Entry) {
        if let Content::AssistantMessage { text } = &entry.content
            && entry.parent.is_none()
            && !entry.history
            && !text.trim().is_empty()
            && self.summary.as_ref().is_none_or(|(index, _)| *index <= entry.index)
        {
            let mut text = text.clone();
            clip::head(&mut text, SUMMARY_BYTES);
            self.summary = Some((entry.index, text));
        }
    }

    fn end_raw(&mut self) {
        if let Some((_, index)) = self.raw.take() {
            self.close(index);
        }
    }

    pub(super) fn end_current(&mut self) {
        if let Some((_, _, index)) = self.current.take() {
            self.close(index);
        }
    }

    /// Adds an entry that never changes.
    pub(super) fn once(&mut self, content: Content) {
        self.add(content, None, false);
    }

    /// Adds a line that is kept as it is.
    pub(super) fn raw(&mut self, stream: Stream, bytes: &[u8], len: u64) {
        let mut line = String::from_utf8_lossy(bytes).into_owned();
        let cut = len.saturating_sub(bytes.len() as u64);
        let dropped = clip::head(&mut line, RAW_BYTES / 4) + cut;
        if let Some((of, index)) = self.raw
            && let Some(entry) = self.open.get_mut(&index)
            && let Content::Raw { text, bytes: size, .. } = &mut entry.content
            && of == stream
            && text.len() + line.len() < RAW_BYTES
        {
            *size += len;
            text.push('\n');
            text.push_str(&line);
            entry.dropped_bytes += dropped;
            let text = format!("\n{line}");
            self.changes.push(Change { index, kind: ChangeKind::Appended { text } });
            return;
        }
        self.end_raw();
        let index = self.add(Content::Raw { stream, text: line, bytes: len }, None, true);
        if let Some(entry) = self.open.get_mut(&index) {
            entry.dropped_bytes += dropped;
        }
        self.raw = Some((stream, index));
    }

    pub(super) fn text(
        &mut self,
        role: Role,
        item: Option<String>,
        text: &str,
        mode: TextMode,
        parent: Option<String>,
    ) {
        let known = match &item {
            Some(item) => self.items.get(&(role, item.clone())).copied(),
            None => match &self.current {
                Some((of, whose, index)) if *of == role && *whose == parent => Some(*index),
                _ => None,
            },
        };
        let index = match known {
            Some(index) => index,
            None if text.is_empty() => return,
            None => {
                self.end_current();
                let open = mode == TextMode::Append;
                let index = self.add(words(role, text.to_owned()), parent.clone(), open);
                match item {
                    _ if !open => {}
                    Some(item) => drop(self.items.insert((role, item), index)),
                    None => self.current = Some((role, parent, index)),
                }
                return;
            }
        };
        match mode {
            TextMode::Append => self.append(index, text, clip::MESSAGE_BYTES),
            TextMode::Whole => {
                if let Some(entry) = self.open.get_mut(&index) {
                    entry.content = words(role, text.to_owned());
                    entry.dropped_bytes = clip::content(&mut entry.content);
                }
                self.close(index);
            }
        }
    }

    pub(super) fn todos(&mut self, item: String, todos: Vec<Todo>) {
        self.end_current();
        let known = self.lists.get(&item).copied();
        if let Some((index, entry)) =
            known.and_then(|index| Some((index, self.open.get_mut(&index)?)))
        {
            entry.content = Content::Todos { todos };
            self.replaced(index);
        } else {
            let index = self.add(Content::Todos { todos }, None, true);
            self.lists.insert(item, index);
        }
    }

    pub(super) fn tool(&mut self, mut update: ToolUpdate) {
        self.relate(&mut update);
        if let Some(&index) = self.tools.get(&update.id) {
            return self.update_tool(index, update);
        }
        if let Some(at) = self.late.iter().position(|entry| is_tool(entry, &update.id)) {
            if update.status.is_some_and(ToolStatus::is_end)
                && let Some(mut entry) = self.late.remove(at)
            {
                let index = entry.index;
                if let Content::ToolUse { status, .. } = &mut entry.content {
                    *status = ToolStatus::Created;
                }
                self.tools.insert(update.id.clone(), index);
                self.open.insert(index, entry);
                self.update_tool(index, update);
            }
            return;
        }
        if self.ended.contains(&update.id) {
            return;
        }
        self.end_current();
        let name = update.name.clone().unwrap_or_default();
        let action =
            ToolAction::Other { description: name.clone(), arguments: serde_json::Value::Null };
        let content = Content::ToolUse {
            tool_id: update.id.clone(),
            tool_name: name,
            status: ToolStatus::Created,
            action: update.action.take().unwrap_or(action),
            result: None,
        };
        let index = self.next;
        let (id, parent) = (update.id.clone(), update.parent.take());
        let says_more = update.status.is_some_and(|status| status != ToolStatus::Created)
            || update.output.is_some()
            || update.exit_code.is_some()
            || !update.changes.is_empty();
        self.add(content, parent, true);
        self.tools.insert(id, index);
        update.name = None;
        if says_more {
            self.update_tool(index, update);
        }
    }

    fn update_tool(&mut self, index: u64, update: ToolUpdate) {
        let Some(entry) = self.open.get_mut(&index) else { return };
        let Content::ToolUse { tool_name, status, action, result, .. } = &mut entry.content else {
            return;
        };
        let mut changed = false;
        if let Some(name) = update.name.filter(|name| !name.is_empty() && name != tool_name) {
            *tool_name = name;
            changed = true;
        }
        if let Some(new) = update.action
            && new != *action
        {
            *action = new;
            changed = true;
        }
        changed |= joined(action, update.changes);
        let next = update.status.map(|next| settled(*status, next));
        if let Some(next) = next
            && next != *status
        {
            *status = next;
            changed = true;
        }
        if update.exit_code.is_some() {
            result.get_or_insert_with(ToolOutput::default).exit_code = update.exit_code;
            changed = true;
        }
        let mut piece = None;
        match update.output {
            Some(Output { text, mode: TextMode::Whole }) => {
                result.get_or_insert_with(ToolOutput::default).text = text;
                changed = true;
            }
            Some(Output { text, mode: TextMode::Append }) => piece = Some(text),
            None => {}
        }
        if let Some(piece) = piece {
            self.append(index, &piece, clip::TOOL_BYTES);
        }
        if update.status.is_some_and(ToolStatus::is_end) {
            if let Some(entry) = self.open.get_mut(&index) {
                entry.dropped_bytes += clip::content(&mut entry.content);
            }
            self.close(index);
        } else if changed {
            self.replaced(index);
        }
    }

    fn set_tool_status(&mut self, id: Option<&String>, to: ToolStatus) {
        let Some(&index) = id.and_then(|id| self.tools.get(id)) else { return };
        if let Some(entry) = self.open.get_mut(&index)
            && let Content::ToolUse { status, .. } = &mut entry.content
            && *status != to
            && !status.is_end()
        {
            *status = to;
            self.replaced(index);
        }
    }

    /// Adds a question; returns it with what is known of its call, or nothing if it was asked already.
    pub(super) fn ask(&mut self, mut approval: Approval) -> Option<Approval> {
        if self.approvals.contains_key(&approval.id) {
            return None;
        }
        self.end_current();
        if let Some(tool) = &approval.tool_id
            && let Some(entry) = self.tools.get(tool).and_then(|index| self.open.get(index))
            && let Content::ToolUse { action, .. } = &entry.content
        {
            approval.action = Some(action.clone());
        }
        self.set_tool_status(approval.tool_id.as_ref(), ToolStatus::PendingApproval);
        let (id, tool) = (approval.id.clone(), approval.tool_id.clone());
        let state = ApprovalState::Pending;
        let index = self.add(Content::Approval { approval: approval.clone(), state }, None, true);
        self.approvals.insert(id, (index, tool));
        Some(approval)
    }

    /// Returns whether the question was open.
    pub(super) fn settle(&mut self, id: &ApprovalId, to: ApprovalState) -> bool {
        let Some((index, tool)) = self.approvals.remove(id) else { return false };
        let status = match &to {
            ApprovalState::Allowed { .. } => Some(ToolStatus::Created),
            ApprovalState::Denied { .. } => Some(ToolStatus::Denied),
            ApprovalState::Pending | ApprovalState::Withdrawn | ApprovalState::Unanswered => None,
        };
        let others = self.approvals.values().any(|(_, other)| tool.is_some() && *other == tool);
        if let Some(status) = status
            && !(others && status == ToolStatus::Created)
        {
            self.set_tool_status(tool.as_ref(), status);
        }
        if let Some(entry) = self.open.get_mut(&index)
            && let Some(state) = entry.content.approval_mut(id)
        {
            *state = to;
        }
        self.close(index);
        true
    }

    pub(super) fn open_approvals(&self) -> Vec<ApprovalId> {
        self.approvals.keys().cloned().collect()
    }

    /// A call whose end did not come is closed as such.
    fn leave_tool(&mut self, index: u64) {
        if let Some(entry) = self.open.get_mut(&index)
            && let Content::ToolUse { status, .. } = &mut entry.content
            && !status.is_end()
        {
            *status = ToolStatus::Unfinished;
        }
    }

    /// Closes everything but questions: the turn is over.
    pub(super) fn end_turn(&mut self) {
        let approvals: Vec<u64> = self.approvals.values().map(|(index, _)| *index).collect();
        let open: Vec<u64> =
            self.open.keys().copied().filter(|index| !approvals.contains(index)).collect();
        for index in open {
            if self.raw.is_some_and(|(_, raw)| raw == index) {
                continue;
            }
            self.leave_tool(index);
            self.close(index);
        }
        self.current = None;
    }

    /// Closes everything: nothing follows.
    pub(super) fn finish(&mut self) {
        self.end_turn();
        self.end_raw();
        self.late.clear();
    }

    /// Makes the paths of an update relative to the root.
    fn relate(&self, update: &mut ToolUpdate) {
        let Some(root) = self.root.as_deref() else { return };
        let strip = |path: &mut String| {
            let below = path.strip_prefix(root).and_then(|rest| rest.strip_prefix('/'));
            if let Some(below) = below.filter(|below| !below.is_empty()) {
                *path = below.to_owned();
            }
        };
        let changes = match &mut update.action {
            Some(ToolAction::FileRead { path }) => {
                strip(path);
                None
            }
            Some(ToolAction::FileEdit { changes }) => Some(changes),
            _ => None,
        };
        for change in changes.into_iter().flatten().chain(&mut update.changes) {
            match change {
                FileChange::Rename { path, new_path, .. } => {
                    strip(path);
                    strip(new_path);
                }
                FileChange::Write { path, .. }
                | FileChange::Delete { path }
                | FileChange::Edit { path, .. } => strip(path),
            }
        }
    }
}

fn words(role: Role, text: String) -> Content {
    match role {
        Role::User => Content::UserMessage { text },
        Role::Assistant => Content::AssistantMessage { text },
        Role::Thinking => Content::Thinking { text },
        Role::Plan => Content::Plan { text },
    }
}

fn is_tool(entry: &Entry, id: &str) -> bool {
    matches!(&entry.content, Content::ToolUse { tool_id, .. } if tool_id == id)
}

/// Which of two states holds: a refusal is not undone by the failure that follows from it, and a question that is open
/// not by news from the call.
fn settled(now: ToolStatus, next: ToolStatus) -> ToolStatus {
    match (now, next) {
        (ToolStatus::Denied, ToolStatus::Failed | ToolStatus::Created) => ToolStatus::Denied,
        (ToolStatus::PendingApproval, ToolStatus::Created) => ToolStatus::PendingApproval,
        (_, next) => next,
    }
}

/// Puts changes of files into an action; says whether it changed.
fn joined(action: &mut ToolAction, new: Vec<FileChange>) -> bool {
    if new.is_empty() {
        return false;
    }
    match action {
        ToolAction::FileEdit { changes } if *changes == new => false,
        ToolAction::FileEdit { changes } => {
            *changes = new;
            true
        }
        ToolAction::CommandRun { .. } => false,
        _ => {
            *action = ToolAction::FileEdit { changes: new };
            true
        }
    }
}
