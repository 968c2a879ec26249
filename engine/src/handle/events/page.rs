//! What is read of the store's changes at a time, and what of it one follower is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;
use windlass_core::driver::Ports;
use windlass_core::id::TaskId;
use windlass_core::process_store::{Change, ChangeNumber, Kind, RecordKey};
use windlass_core::record::TaskRecord;

use crate::error::EngineError;
use crate::host::records::{attempts_of_task, read, store_error, task_status};

/// How many changes are read at once, at least, if there are so many.
const CHANGES: u32 = 512;

/// A change, and whether it only follows from the one before: a task's status from that of an attempt.
#[derive(Debug)]
struct Entry {
    change: Change,
    follows: bool,
}

/// Some whole batches, with what follows from them.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    after: ChangeNumber,
    last: ChangeNumber,
    /// How many changes there were, the untold ones included.
    size: usize,
    entries: Arc<[Entry]>,
}

impl Chunk {
    /// Reads what comes after a number; `None` if there is nothing.
    ///
    /// # Errors
    ///
    /// [`EngineError::Invalid`] for a number that is still to come.
    pub(super) async fn read(
        ports: &Ports,
        after: ChangeNumber,
    ) -> Result<Option<Self>, EngineError> {
        let page = ports.store.changes(after, CHANGES).await.map_err(store_error)?;
        let Some(last) = page.changes.last().map(|change| change.number) else {
            if after > page.last {
                // Of another store, or of this one before it was restored: waiting for it would be silence.
                let reason =
                    format!("change {} has not come yet: the last one is {}", after.0, page.last.0);
                return Err(EngineError::Invalid { reason });
            }
            return Ok(None);
        };
        let size = page.changes.len();
        let mut statuses = Statuses { ports, known: BTreeMap::new() };
        let mut entries = Vec::with_capacity(size);
        for mut change in page.changes {
            match change.key.kind {
                // Of use to the host alone.
                Kind::Request | Kind::Input | Kind::Observation => {}
                Kind::Project | Kind::Execution | Kind::FollowUp | Kind::Snapshot => {
                    entries.push(Entry { change, follows: false });
                }
                Kind::Task => {
                    if change.state.is_some() {
                        let now = statuses.of(change.key.id).await?;
                        // One that is gone by now has a change of its own that says so.
                        change.state = now.and_then(|task| task.state).or(change.state);
                    }
                    entries.push(Entry { change, follows: false });
                }
                Kind::Attempt => {
                    let (number, task) = (change.number, change.parent);
                    entries.push(Entry { change, follows: false });
                    if let Some(task) = task
                        && let Some(task) = statuses.of(task).await?
                    {
                        entries.push(Entry { change: Change { number, ..task }, follows: true });
                    }
                }
            }
        }
        Ok(Some(Self { after, last, size, entries: entries.into() }))
    }

    pub(super) fn after(&self) -> ChangeNumber {
        self.after
    }

    pub(super) fn last(&self) -> ChangeNumber {
        self.last
    }

    /// Makes one of as many changes of which nobody is told.
    #[cfg(test)]
    pub(super) fn untold(after: u64, last: u64, size: usize) -> Self {
        let (after, last) = (ChangeNumber(after), ChangeNumber(last));
        Self { after, last, size, entries: Arc::new([]) }
    }

    /// Counts its changes, at least 1.
    pub(super) fn size(&self) -> usize {
        self.size
    }
}

/// The statuses of tasks as they are now, each read once.
struct Statuses<'a> {
    ports: &'a Ports,
    known: BTreeMap<Uuid, Option<Change>>,
}

impl Statuses<'_> {
    /// Returns a task's status as a change without a number; `None` for one that is not there, or cannot be read.
    async fn of(&mut self, id: Uuid) -> Result<Option<Change>, EngineError> {
        if let Some(known) = self.known.get(&id) {
            return Ok(known.clone());
        }
        let task = match read::<TaskRecord>(self.ports, id).await {
            Ok(task) => task,
            Err(EngineError::Backend(error)) if error.transient => {
                return Err(EngineError::Backend(error));
            }
            // What is damaged or of a newer version is left out here as in lists.
            Err(_) => None,
        };
        let now = match task {
            Some((record, stored)) => {
                let attempts = attempts_of_task(self.ports, TaskId(id)).await?;
                Some(Change {
                    number: ChangeNumber(0),
                    key: RecordKey { kind: Kind::Task, id },
                    parent: Some(record.project.0),
                    owner: record.owner.clone(),
                    state: Some(task_status(&record, &attempts).as_str().to_owned()),
                    revision: stored.revision,
                })
            }
            None => None,
        };
        self.known.insert(id, now.clone());
        Ok(now)
    }
}

/// Some events, in order: whole batches.
#[derive(Clone, Debug)]
pub struct EventPage {
    entries: Arc<[Entry]>,
    /// Where they begin.
    from: usize,
    /// Those after that which are not for this follower, in order.
    left_out: Vec<usize>,
}

impl EventPage {
    /// Takes those of a chunk after a number that are to be told; `None` if there are none.
    pub(super) fn select(
        chunk: Chunk,
        after: ChangeNumber,
        mut is_told: impl FnMut(&Change, bool) -> bool,
    ) -> Option<Self> {
        let entries = chunk.entries;
        let from = entries.partition_point(|entry| entry.change.number <= after);
        let of = entries.iter().enumerate().skip(from);
        let left_out: Vec<usize> = of
            .filter(|(_, entry)| !is_told(&entry.change, entry.follows))
            .map(|(at, _)| at)
            .collect();
        let any = left_out.len() < entries.len() - from;
        any.then_some(Self { entries, from, left_out })
    }

    /// Goes through the events.
    pub fn iter(&self) -> impl Iterator<Item = &Change> {
        let mut left_out = self.left_out.iter().copied().peekable();
        let of = self.entries.iter().enumerate().skip(self.from);
        of.filter(move |(at, _)| left_out.next_if_eq(at).is_none()).map(|(_, entry)| &entry.change)
    }

    /// Counts the events; at least 1.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a page is never empty")]
    pub fn len(&self) -> usize {
        self.entries.len() - self.from - self.left_out.len()
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::process_store::Revision;

    use super::*;

    fn chunk(numbers: &[u64]) -> Chunk {
        let entry = |number: &u64| Entry {
            change: Change {
                number: ChangeNumber(*number),
                key: RecordKey { kind: Kind::Execution, id: Uuid::nil() },
                parent: None,
                owner: None,
                state: None,
                revision: Revision(1),
            },
            follows: false,
        };
        let last = ChangeNumber(*numbers.last().unwrap());
        let entries: Vec<_> = numbers.iter().map(entry).collect();
        Chunk { after: ChangeNumber(0), last, size: numbers.len(), entries: entries.into() }
    }

    #[test]
    fn a_page_begins_after_the_number_and_leaves_out_what_is_not_for_the_follower() {
        let of = |after, odd_only: bool| {
            let told = |change: &Change, _| !odd_only || change.number.0 % 2 == 1;
            EventPage::select(chunk(&[1, 1, 2, 3, 4, 4, 5]), ChangeNumber(after), told)
        };
        let numbers =
            |page: &EventPage| page.iter().map(|change| change.number.0).collect::<Vec<_>>();
        let page = of(1, false).unwrap();
        assert_eq!((numbers(&page), page.len()), (vec![2, 3, 4, 4, 5], 5));
        let page = of(0, true).unwrap();
        assert_eq!((numbers(&page), page.len()), (vec![1, 1, 3, 5], 4));
        assert!(of(5, false).is_none());
        assert!(of(3, true).is_some());
        assert!(EventPage::select(chunk(&[2]), ChangeNumber(0), |_, _| false).is_none());
    }
}
