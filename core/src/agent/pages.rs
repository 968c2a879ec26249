//! Entries in pages: a long conversation is never held as a whole.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::adapter::Adapter;
use super::conversation::Conversation;
use super::entry::{Change, ChangeKind, Entry};
use crate::log_store::Seq;

/// How many entries a page has.
pub const PAGE_ENTRIES: u64 = 64;

/// How many checkpoints are kept.
const MAX_POINTS: usize = 32;
/// A conversation that holds more than this is no checkpoint; the next one will be.
const MAX_POINT_BYTES: usize = 256 << 10;

/// One operation of a JSON patch (RFC 6902).
///
/// The document is `{"pages": {"0": [entry, …], …}}`. Entry `i` is item `i mod 64` of page `i / 64`; an open one has an
/// array `tail` of pieces that its text (or the output of its tool) goes on with. So a reader of some pages applies the
/// operations of those and ignores the rest, and a growing text costs its size only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PatchOp {
    /// `add` or `replace`.
    pub op: String,
    /// A JSON pointer.
    pub path: String,
    /// What to put there.
    pub value: Value,
}

/// Puts a change into operations of a JSON patch.
#[must_use]
pub fn patch(change: &Change) -> Vec<PatchOp> {
    let (page, slot) = (change.index / PAGE_ENTRIES, change.index % PAGE_ENTRIES);
    let at = |op: &str, path: String, value: Value| PatchOp { op: op.to_owned(), path, value };
    vec![match &change.kind {
        ChangeKind::Added { entry } if slot == 0 => {
            at("add", format!("/pages/{page}"), json!([document(entry)]))
        }
        ChangeKind::Added { entry } => at("add", format!("/pages/{page}/{slot}"), document(entry)),
        ChangeKind::Appended { text } => {
            at("add", format!("/pages/{page}/{slot}/tail/-"), json!(text))
        }
        ChangeKind::Replaced { entry } => {
            at("replace", format!("/pages/{page}/{slot}"), document(entry))
        }
    }]
}

/// An entry as it stands in the document.
fn document(entry: &Entry) -> Value {
    let mut value = serde_json::to_value(entry).unwrap_or(Value::Null);
    if entry.open
        && let Value::Object(fields) = &mut value
    {
        fields.insert("tail".to_owned(), json!([]));
    }
    value
}

/// Some entries of a conversation, kept up to date by its changes.
#[derive(Clone, Debug)]
pub struct Window {
    from: u64,
    limit: u64,
    entries: Vec<Entry>,
}

impl Window {
    /// Makes one of at most `limit` entries, beginning with number `from`.
    #[must_use]
    pub fn new(from: u64, limit: u64) -> Self {
        Self { from, limit, entries: Vec::new() }
    }

    /// Applies a change; one of another entry does nothing.
    pub fn apply(&mut self, change: &Change) {
        let Some(slot) = change.index.checked_sub(self.from).filter(|slot| *slot < self.limit)
        else {
            return;
        };
        let Ok(slot) = usize::try_from(slot) else { return };
        match &change.kind {
            ChangeKind::Added { entry } => self.entries.push((**entry).clone()),
            ChangeKind::Appended { text } => {
                let entry = self.entries.get_mut(slot);
                if let Some(all) = entry.and_then(|entry| entry.content.text_mut()) {
                    all.push_str(text);
                }
            }
            ChangeKind::Replaced { entry } => {
                if let Some(kept) = self.entries.get_mut(slot) {
                    *kept = (**entry).clone();
                }
            }
        }
    }

    /// Says whether nothing in it will change, given what [`Conversation::settled_below`] says.
    #[must_use]
    pub fn is_settled(&self, settled_below: u64) -> bool {
        settled_below >= self.from.saturating_add(self.limit)
    }

    /// Returns the entries.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

/// Where to begin to read a page: checkpoints of a conversation.
#[derive(Clone, Debug)]
pub struct Index<A> {
    points: Vec<(Seq, Conversation<A>)>,
    /// Entries between two checkpoints.
    step: u64,
}

impl<A: Adapter + Clone> Default for Index<A> {
    fn default() -> Self {
        Self { points: Vec::new(), step: 4 * PAGE_ENTRIES }
    }
}

impl<A: Adapter + Clone> Index<A> {
    /// Notes how the conversation is after the log item `cursor`, if it is time. Keeps at most 32 of 256 KiB.
    pub fn note(&mut self, cursor: Seq, conversation: &Conversation<A>) {
        let last = self.points.last().map_or(0, |(_, point)| point.len());
        if conversation.len() < last.saturating_add(self.step)
            || conversation.weight() > MAX_POINT_BYTES
        {
            return;
        }
        if self.points.len() == MAX_POINTS {
            let mut nth = 0;
            self.points.retain(|_| {
                nth += 1;
                nth % 2 == 0
            });
            self.step = self.step.saturating_mul(2);
        }
        self.points.push((cursor, conversation.clone()));
    }

    /// Returns the latest checkpoint from which all entries from number `from` on can be read, with the cursor after
    /// which the log goes on.
    #[must_use]
    pub fn before(&self, from: u64) -> Option<(Seq, Conversation<A>)> {
        let point = self.points.iter().rev().find(|(_, point)| point.len() <= from);
        point.map(|(cursor, point)| (*cursor, point.clone()))
    }
}
