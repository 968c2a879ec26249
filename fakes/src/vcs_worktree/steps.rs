//! The steps of making, saving and removing a worktree: each may take time, and whoever gives up meanwhile, or dies, leaves
//! what the steps before have done.

use std::collections::BTreeSet;

use windlass_core::locator::Locator;
use windlass_core::vcs_worktree::VcsWorktreeError;

use super::MemoryWorktrees;
use crate::world::{State, World};

/// Where a call is when the step of this name is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorktreeStep {
    /// Creation: it is noted that something is being made there. Nothing else is.
    Noted,
    /// Creation: branch, registration and an empty directory are there.
    Registered,
    /// Creation: the files are there, those that are copied in or restored as well.
    CheckedOut,
    /// Creation: it is marked as ours and whole; the note of its making is not taken away yet.
    Marked,
    /// Save: the directory is out of the way. Nothing is saved.
    TakenAside,
    /// Save: the snapshot is written. What was saved is not recorded beside the worktree.
    Archived,
    /// Save: all of it is done, and not yet answered.
    Recorded,
    /// Removal: it is noted that the deletion has begun.
    Deleting,
    /// Removal: the repository does not know it any more.
    Unregistered,
    /// Removal: all of it is done, and not yet answered.
    Trashed,
}

impl WorktreeStep {
    /// Every step, in the order of a life.
    pub const ALL: [Self; 10] = [
        Self::Noted,
        Self::Registered,
        Self::CheckedOut,
        Self::Marked,
        Self::TakenAside,
        Self::Archived,
        Self::Recorded,
        Self::Deleting,
        Self::Unregistered,
        Self::Trashed,
    ];
}

impl World {
    /// Lets the next call that comes to this step go no further: it waits for ever, and whoever called dies with it.
    pub fn stop_worktree_at(&self, step: WorktreeStep) {
        self.edit(|state| state.worktree_stop = Some(step));
    }
}

/// What waits for a time; it does not any more when it is dropped.
struct Alarm<'a> {
    world: &'a World,
    number: u64,
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        self.world.edit(|state| state.alarms.remove(&self.number));
    }
}

/// What a call holds while it is at it: the lock of a repository, or the note of a creation.
pub(super) struct Held<'a> {
    world: &'a World,
    what: Locator,
    set: fn(&mut State) -> &mut BTreeSet<Locator>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.world.change(|state| (self.set)(state).remove(&self.what));
    }
}

impl MemoryWorktrees {
    /// Goes on when a step has taken its time.
    pub(super) async fn came_to(&self, step: WorktreeStep) {
        let world = self.repositories.shared();
        let due = world.edit(|state| {
            if state.worktree_stop == Some(step) {
                state.worktree_stop = None;
                return Some(None);
            }
            let ms = state.pace.worktree_step_ms;
            (ms > 0).then(|| {
                let (number, due) = (state.fresh_number(), state.now.plus_ms(ms));
                state.alarms.insert(number, due);
                Some((number, due))
            })
        });
        match due {
            None => {}
            Some(None) => std::future::pending().await,
            Some(Some((number, due))) => {
                let _alarm = Alarm { world, number };
                world.wait(|state| (state.now >= due).then_some(())).await;
            }
        }
    }

    /// Waits for the lock of a repository and takes it.
    pub(super) async fn lock(&self, repository: &Locator) -> Held<'_> {
        let world = self.repositories.shared();
        let set: fn(&mut State) -> &mut BTreeSet<Locator> = |state| &mut state.repository_locks;
        world.wait(|state| set(state).insert(repository.clone()).then_some(())).await;
        Held { world, what: repository.clone(), set }
    }

    /// Holds the note of a creation, so that nobody takes it for one that was given up.
    ///
    /// # Errors
    ///
    /// [`VcsWorktreeError::Busy`] if somebody is at it.
    pub(super) fn hold_note(
        &self,
        path: &Locator,
        repository: &Locator,
    ) -> Result<Held<'_>, VcsWorktreeError> {
        let world = self.repositories.shared();
        let set: fn(&mut State) -> &mut BTreeSet<Locator> = |state| &mut state.creations;
        if !world.edit(|state| set(state).insert(path.clone())) {
            return Err(VcsWorktreeError::Busy { repo: repository.clone(), holder: None });
        }
        Ok(Held { world, what: path.clone(), set })
    }
}
