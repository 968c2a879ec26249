//! The end of a chain that did not end well: what it left is saved where it is, then the chain is finalised.
//!
//! Whether it could be saved changes nothing about the end; why it could not is noted on the attempt.

use super::{Operation, Refusal, State, Turn, WorkspaceStep, put};
use crate::process_store::Revision;
use crate::record::{AttemptStatus, Reason};
use crate::snapshot::{Snapshot, SnapshotCause, SnapshotNumber, SnapshotRecord};
use crate::vcs_worktree::{BranchFate, SaveFrom, SaveRequest, Unfinished, Unsavable};
use crate::workspace::Oid;

impl State {
    /// Ends a chain that did not end well. Under a claim nothing is saved: a removal does that itself.
    pub(super) fn end_badly(&mut self, turn: &mut Turn<'_>, reason: Reason) {
        let there = match self.attempt.status {
            AttemptStatus::Ready
            | AttemptStatus::Running
            | AttemptStatus::Committing
            | AttemptStatus::Held
            | AttemptStatus::Parked
            | AttemptStatus::Finished => self.workspace_step == WorkspaceStep::Idle,
            AttemptStatus::Creating
            | AttemptStatus::Removing
            | AttemptStatus::Removed
            | AttemptStatus::Failed => false,
        };
        // What never began to run left nothing.
        let worked = self.attempt.chain_started_at.is_some()
            || self.attempt.status == AttemptStatus::Committing;
        if !worked
            || !there
            || self.attempt.claim.is_some()
            || self.attempt.workspace.worktree().is_none()
        {
            self.finalise(turn, Some(reason));
            return;
        }
        self.attempt.ending = Some(reason);
        self.attempt.status = AttemptStatus::Committing;
        turn.attempt_changed = true;
        self.go_on_ending(turn);
    }

    /// Saves what the chain left; also after a restart, when the answer was lost.
    pub(super) fn go_on_ending(&mut self, turn: &mut Turn<'_>) {
        let Some(worktree) = self.attempt.workspace.worktree().cloned() else { return };
        if self.attempt.retry.is_some() && !self.beside_is_dead() {
            // Its end goes on with it.
            return;
        }
        self.workspace_step = WorkspaceStep::Saving;
        let number = SnapshotNumber(self.attempt.last_snapshot).next();
        let (unsavable, branch) = match &self.attempt.resetting {
            // What cannot be saved is not undone. Commits beyond the one that it is put back to are on no branch afterwards.
            Some(_) if self.leaves_commits() => (Unsavable::Refuse, BranchFate::Goes),
            Some(_) => (Unsavable::Refuse, BranchFate::Stays),
            // Nothing is taken away afterwards, so whatever can be saved is.
            None => (Unsavable::Discard, BranchFate::Stays),
        };
        let request = SaveRequest {
            from: SaveFrom::Place,
            unsavable,
            unfinished: Unfinished::Save,
            branch,
            ..SaveRequest::before_removal(number)
        };
        turn.begin(Operation::Save { worktree: Box::new(worktree), request });
    }

    /// Says whether there may be commits that a reset takes off their branch.
    fn leaves_commits(&self) -> bool {
        self.attempt.resetting.as_ref().is_some_and(|resetting| {
            let undoes = self.attempt.retry.is_some() && !self.resets_for_message();
            undoes || self.attempt.head.as_ref() != Some(&resetting.to)
        })
    }

    /// Goes on after what is to be undone is saved as far as it is known, at this commit.
    pub(super) fn ending_is_saved(&mut self, turn: &mut Turn<'_>, head: Oid) {
        if self.resets_for_message()
            && let Some(resetting) = &mut self.attempt.resetting
        {
            // What somebody has committed since is the last commit.
            resetting.to = head.clone();
            self.attempt.head = Some(head.clone());
        }
        let known = self.leaves_commits();
        if self.attempt.resetting.is_some() {
            self.attempt.head = Some(head);
        }
        if !known && self.leaves_commits() && self.attempt.claim.is_none() {
            // Somebody has committed meanwhile: those commits are saved, too, before they are undone.
            turn.attempt_changed = true;
            self.go_on_ending(turn);
        } else {
            self.ending_is_over(turn, None);
        }
    }

    /// Says whether what was to be undone stays: it was for a try that somebody has stopped.
    pub(super) fn stays_as_it_is(&self) -> bool {
        self.attempt.retry.is_some() && self.attempt.chain_stopped
    }

    /// Saves what is there now, also if it was saved before to be undone and nobody knows how far that came.
    pub(super) fn save_again(&mut self, turn: &mut Turn<'_>) {
        if let Some(resetting) = &mut self.attempt.resetting
            && std::mem::take(&mut resetting.saved)
        {
            turn.attempt_changed = true;
        }
        self.go_on_ending(turn);
    }

    /// Finalises the chain after what it left is saved, or could not be.
    pub(super) fn ending_is_over(&mut self, turn: &mut Turn<'_>, refusal: Option<Refusal>) {
        self.workspace_step = WorkspaceStep::Idle;
        let stays = self.stays_as_it_is();
        match (&mut self.attempt.resetting, &refusal) {
            // A removal saves and takes away all of it.
            (Some(resetting), None) if self.attempt.claim.is_none() && !stays => {
                resetting.saved = true;
                self.begin_reset(turn);
                return;
            }
            (Some(_), Some(refusal)) => {
                let output = format!("what was to be undone cannot be saved: {}", refusal.message);
                self.attempt.ending = Some(Reason::ResetFailed { output, execution: None });
            }
            (Some(_) | None, _) => {}
        }
        let Some(reason) = self.attempt.ending.take() else { return };
        self.attempt.not_saved = refusal.map(|refusal| refusal.message);
        self.finalise(turn, Some(reason));
        self.go_on_removing(turn);
    }

    /// Why what an ending chain left is saved.
    pub(super) fn cause_of_ending(&self) -> Option<SnapshotCause> {
        if self.attempt.resetting.is_some() {
            return Some(SnapshotCause::Reset);
        }
        self.attempt.ending.as_ref().map(|reason| match reason {
            Reason::CommitFailed { .. } => SnapshotCause::CommitFailed,
            Reason::Stopped
            | Reason::EndedBadly { .. }
            | Reason::CleanupFailed { .. }
            | Reason::ResetFailed { .. }
            | Reason::WorkspaceFailed { .. }
            | Reason::RemoveFailed { .. } => SnapshotCause::EndedBadly,
        })
    }

    /// Records a snapshot that was made.
    pub(super) fn note_snapshot(
        &mut self,
        turn: &mut Turn<'_>,
        snapshot: Snapshot,
        cause: SnapshotCause,
    ) {
        self.attempt.last_snapshot = snapshot.number.0;
        let record = SnapshotRecord {
            attempt: self.attempt.id,
            owner: self.attempt.owner.clone(),
            cause,
            snapshot,
            created_at: turn.at,
        };
        turn.writes.push(put(&record, &mut Revision(0)));
    }
}
