//! Events: everything that changed, numbered, from any number on.
//!
//! A follower is a number. What is new is read from the store once for all who have seen everything before, and kept for a
//! while; who is slower reads the store by himself. So nobody loses anything, and nobody's slowness costs memory.

mod page;
mod recent;
mod state;

use std::collections::BTreeMap;

use uuid::Uuid;
use windlass_core::process_store::{Change, ChangeNumber, Kind};

use super::Handle;
use crate::error::EngineError;
use crate::request::Caller;
use page::Chunk;

pub use page::EventPage;
pub(super) use recent::Recent;
pub use state::State;

/// Of how many tasks a follower remembers the status that he was told.
const REMEMBERED: usize = 1_024;

/// A follower of what changes: attempts, executions, projects, tasks, snapshots.
///
/// The state of a task is its [status](windlass_core::task::TaskStatus), as it was with the change or later: what is told last
/// is how it stands. It follows from its attempts, so a change of an attempt is followed by one of its task, with the same
/// number, where that has another status than was told before.
///
/// # Contract
///
/// Numbers never go back. After a break, following from [`Events::after`] on misses nothing.
#[derive(Debug)]
pub struct Events {
    handle: Handle,
    owner: Option<String>,
    after: ChangeNumber,
    told: BTreeMap<Uuid, Option<String>>,
}

impl Handle {
    /// Follows what changes after a number; 0 is everything. An owner is told of what is its own.
    #[must_use]
    pub fn events(&self, caller: &Caller, after: ChangeNumber) -> Events {
        let (handle, owner) = (self.clone(), caller.owner.clone());
        Events { handle, owner, after, told: BTreeMap::new() }
    }
}

impl Events {
    /// Returns the number up to which everything was told: where to follow from after a break.
    #[must_use]
    pub fn after(&self) -> ChangeNumber {
        self.after
    }

    /// Waits for the next page of events; never an empty one.
    ///
    /// # Errors
    ///
    /// [`EngineError::Closing`] if the host leaves before; [`EngineError::Invalid`] if it began after a number that is still to
    /// come; [`EngineError::Backend`].
    ///
    /// # Cancel safety
    ///
    /// May be dropped; nothing is lost.
    pub async fn next(&mut self) -> Result<EventPage, EngineError> {
        loop {
            let chunk = self.handle.recent.next(&self.handle, self.after).await?;
            if let Some(page) = self.select(chunk) {
                return Ok(page);
            }
        }
    }

    /// Returns the next page of what has happened by now; `None` if there is no more.
    ///
    /// # Errors
    ///
    /// As [`next`](Self::next), but for the host that leaves.
    ///
    /// # Cancel safety
    ///
    /// As [`next`](Self::next).
    pub async fn so_far(&mut self) -> Result<Option<EventPage>, EngineError> {
        while let Some(chunk) = self.handle.recent.by_now(&self.handle, self.after).await? {
            if let Some(page) = self.select(chunk) {
                return Ok(Some(page));
            }
        }
        Ok(None)
    }

    /// Takes what of a chunk is news to this follower.
    fn select(&mut self, chunk: Chunk) -> Option<EventPage> {
        let after = std::mem::replace(&mut self.after, chunk.last());
        let (owner, told) = (self.owner.as_deref(), &mut self.told);
        EventPage::select(chunk, after, |change, follows| {
            if owner.is_some() && owner != change.owner.as_deref() {
                return false;
            }
            is_news(told, change, follows)
        })
    }
}

/// Says whether a change is to be told, and remembers what was said of a task.
fn is_news(told: &mut BTreeMap<Uuid, Option<String>>, change: &Change, follows: bool) -> bool {
    if change.key.kind != Kind::Task {
        return true;
    }
    if follows && told.get(&change.key.id) == Some(&change.state) {
        return false;
    }
    if told.len() >= REMEMBERED && !told.contains_key(&change.key.id) {
        // What is forgotten may be told once more.
        told.pop_first();
    }
    told.insert(change.key.id, change.state.clone());
    true
}

#[cfg(test)]
mod tests {
    use windlass_core::process_store::{RecordKey, Revision};

    use super::*;

    fn task(id: u128, state: &str) -> Change {
        Change {
            number: ChangeNumber(1),
            key: RecordKey { kind: Kind::Task, id: Uuid::from_u128(id) },
            parent: None,
            owner: None,
            state: Some(state.to_owned()),
            revision: Revision(1),
        }
    }

    #[test]
    fn the_status_of_a_task_is_told_when_it_is_another_one_and_whenever_its_record_changes() {
        let mut told = BTreeMap::new();
        let mut says = |state, follows| is_news(&mut told, &task(1, state), follows);
        assert!(says("todo", false));
        assert!(!says("todo", true));
        assert!(says("in_progress", true));
        assert!(!says("in_progress", true));
        assert!(says("in_progress", false));
        assert!(says("todo", true));
    }

    #[test]
    fn what_a_follower_remembers_is_bounded_and_what_is_forgotten_is_told_again() {
        let mut told = BTreeMap::new();
        for id in 0..=REMEMBERED as u128 {
            assert!(is_news(&mut told, &task(id, "todo"), true));
        }
        assert_eq!(told.len(), REMEMBERED);
        assert!(is_news(&mut told, &task(0, "todo"), true));
        assert!(!is_news(&mut told, &task(REMEMBERED as u128, "todo"), true));
    }
}
