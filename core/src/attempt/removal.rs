//! Removal: a claim, the end of all processes, a save, and only then the removal. Each step is resumed by the next host.

use super::{Operation, Refusal, RefusalCode, Reply, RequestId, State, Turn, WorkspaceStep};
use crate::action::RunReason;
use crate::record::{AttemptStatus, Claim, ExecutionRecord, Reason, Removing};
use crate::snapshot::{SnapshotCause, SnapshotNumber};
use crate::vcs_worktree::{
    BranchFate, CreateMode, Origin, Removed, SaveRequest, Saved, Unfinished, Unsavable,
};
use crate::workspace::Workspace;

impl State {
    /// Says what still goes on in the workspace, if anything does. A dev server is nobody's work: it is stopped.
    pub(super) fn is_busy(&self) -> Option<String> {
        self.is_busy_but_for(|reason| reason == RunReason::DevServer)
    }

    /// Says what still goes on in the workspace beside executions that are stopped without more ado.
    pub(super) fn is_busy_but_for(&self, yields: impl Fn(RunReason) -> bool) -> Option<String> {
        // One that is final may still be known: its work is being committed then.
        let counts = |record: &&ExecutionRecord| {
            self.is_active(record.id) && !yields(record.action.run_reason)
        };
        if let Some(record) = self.executions().find(counts) {
            return Some(format!("execution {} has not ended", record.id.short()));
        }
        if self.attempt.status == AttemptStatus::Creating {
            return Some("its worktree is being made".to_owned());
        }
        if let Some(doing) = self.is_integrating() {
            return Some(doing);
        }
        if self.attempt.ending.is_some() {
            return Some("what its last execution left is being saved".to_owned());
        }
        let planning = self.workspace_step == WorkspaceStep::Planning;
        (self.chain_is_active() || planning).then(|| "its work is being committed".to_owned())
    }

    pub(super) fn on_remove(&mut self, turn: &mut Turn<'_>, request: RequestId, how: Removing) {
        match self.attempt.status {
            AttemptStatus::Removed if self.goes_on_with(&how) => {
                self.waiting.push(request);
                self.end_removal(turn, &how);
            }
            AttemptStatus::Removed if how.delete_branch => {
                let message = "its worktree was removed and its branch kept: make it again \
                               (restore) and remove it with its branch, which saves the branch";
                turn.refuse(request, RefusalCode::WrongState, message);
            }
            AttemptStatus::Removed => turn.reply(request, Reply::Removed),
            AttemptStatus::Removing => self.waiting.push(request),
            AttemptStatus::Creating
            | AttemptStatus::Ready
            | AttemptStatus::Running
            | AttemptStatus::Committing
            | AttemptStatus::Held
            | AttemptStatus::Parked
            | AttemptStatus::Finished
            | AttemptStatus::Failed => {
                if let Some(what) = self.is_busy().filter(|_| !how.force) {
                    turn.refuse(request, RefusalCode::Busy, what);
                    return;
                }
                if self.workspace_step == WorkspaceStep::Planning && !self.waiting.is_empty() {
                    turn.refuse(request, RefusalCode::Busy, "its work is being committed");
                    return;
                }
                self.waiting.push(request);
                self.claim(turn, how);
            }
        }
    }

    /// Claims the workspace and begins to remove it.
    pub(super) fn claim(&mut self, turn: &mut Turn<'_>, how: Removing) {
        self.attempt.claim = Some(Claim::Remove);
        self.attempt.claimed_from = Some(self.attempt.status);
        self.attempt.removal = Some(how);
        self.attempt.chain_stopped = self.chain_is_active();
        // Another try that waits for what runs beside it has begun nothing: the removal saves what is there.
        let waits = self.retry_waits();
        self.attempt.status = AttemptStatus::Removing;
        turn.attempt_changed = !planted!(ClaimNotRecorded);
        if let Some(reason) = self.attempt.ending.take_if(|_| waits) {
            self.finalise(turn, Some(reason));
        }
        self.stop_all(turn);
        self.go_on_removing(turn);
    }

    /// Says whether a removal failed after the work was saved and can be gone on with as is asked for now.
    fn goes_on_with(&self, how: &Removing) -> bool {
        let begun = self.attempt.half_removed.as_ref();
        begun.is_some_and(|begun| begun.delete_branch || !how.delete_branch)
    }

    /// Goes on with a removal that failed after the work was saved.
    fn end_removal(&mut self, turn: &mut Turn<'_>, how: &Removing) {
        let Some(begun) = self.attempt.half_removed.clone() else { return };
        self.attempt.removal = Some(Removing {
            force: begun.force || how.force,
            discard_unsaved: begun.discard_unsaved || how.discard_unsaved,
            ..begun
        });
        self.attempt.claim = Some(Claim::Remove);
        self.attempt.claimed_from = self.attempt.removed_from.take();
        self.attempt.removed_at = None;
        self.attempt.status = AttemptStatus::Removing;
        turn.attempt_changed = true;
        self.go_on_removing(turn);
    }

    /// Saves the worktree once every process of the attempt is known dead, and removes it once it is saved.
    pub(super) fn go_on_removing(&mut self, turn: &mut Turn<'_>) {
        let dead = self.executions.keys().all(|id| !self.is_active(*id));
        if self.attempt.status != AttemptStatus::Removing
            || self.workspace_step != WorkspaceStep::Idle
            || !(dead || planted!(RemovedWhileRunning))
        {
            return;
        }
        // One that an older version claimed says nothing of how: by the safe rules.
        let how = self.attempt.removal.clone().unwrap_or(Removing::SAFE);
        match &self.attempt.workspace {
            Workspace::Worktree(worktree) if how.saved.is_none() => {
                self.workspace_step = WorkspaceStep::Saving;
                let number = SnapshotNumber(self.attempt.last_snapshot).next();
                let unsavable =
                    if how.discard_unsaved { Unsavable::Discard } else { Unsavable::Refuse };
                let unfinished = if how.force { Unfinished::Save } else { Unfinished::Refuse };
                let branch = if how.delete_branch { BranchFate::Goes } else { BranchFate::Stays };
                let request = SaveRequest {
                    unsavable,
                    unfinished,
                    branch,
                    ..SaveRequest::before_removal(number)
                };
                let worktree = Box::new(worktree.clone());
                turn.begin(Operation::Save { worktree, request });
            }
            Workspace::Worktree(worktree) => {
                self.workspace_step = WorkspaceStep::Removing;
                let worktree = Box::new(worktree.clone());
                let delete_branch = how.delete_branch;
                turn.begin(Operation::RemoveWorktree { worktree, delete_branch });
            }
            // The directory is the user's: only our record of it goes.
            Workspace::Directory { .. } => self.removed(turn),
        }
    }

    /// Records what was saved; the removal begins after that is durable.
    pub(super) fn on_saved(&mut self, turn: &mut Turn<'_>, saved: Saved) {
        if self.workspace_step != WorkspaceStep::Saving {
            return;
        }
        let Saved { head, branch, snapshot } = saved;
        let number = snapshot.as_ref().map(|snapshot| snapshot.number);
        if self.saves_for_abort() {
            if let Some(snapshot) = snapshot {
                self.note_snapshot(turn, snapshot, SnapshotCause::Reset);
            }
            self.abort_is_saved(turn, None);
            return;
        }
        let ending = self.cause_of_ending();
        if let Some(snapshot) = snapshot {
            let removal = self.attempt.removal.as_ref().unwrap_or(&Removing::SAFE).cause;
            self.note_snapshot(turn, snapshot, ending.unwrap_or(removal));
        }
        if ending.is_some() {
            self.ending_is_saved(turn, head);
            return;
        }
        self.attempt.head = Some(head.clone());
        self.save_is_over(turn, Removed { head, branch, snapshot: number });
    }

    /// Nothing of it is left but what the repository has; that is tidied up all the same.
    pub(super) fn on_nothing_to_save(&mut self, turn: &mut Turn<'_>) {
        if self.workspace_step != WorkspaceStep::Saving {
            return;
        }
        if self.saves_for_abort() {
            self.abort_is_saved(turn, None);
        } else if self.attempt.ending.is_some() {
            self.ending_is_over(turn, None);
        } else if let Some(worktree) = self.attempt.workspace.worktree() {
            let head = self.attempt.head.clone().unwrap_or_else(|| worktree.base_oid.clone());
            let branch = Some(worktree.branch.clone());
            self.save_is_over(turn, Removed { head, branch, snapshot: None });
        }
    }

    fn save_is_over(&mut self, turn: &mut Turn<'_>, saved: Removed) {
        self.workspace_step = WorkspaceStep::Idle;
        self.attempt.removal.get_or_insert(Removing::SAFE).saved = Some(saved);
        turn.attempt_changed = !planted!(SaveNotRecorded);
        if planted!(SaveNotRecorded) {
            turn.writes.clear();
        }
        self.go_on_removing(turn);
    }

    pub(super) fn on_save_refused(&mut self, turn: &mut Turn<'_>, refusal: Refusal) {
        if self.workspace_step != WorkspaceStep::Saving {
            return;
        }
        if self.saves_for_abort() {
            self.abort_is_saved(turn, Some(refusal));
        } else if self.attempt.ending.is_some() {
            self.ending_is_over(turn, Some(refusal));
        } else {
            self.workspace_step = WorkspaceStep::Idle;
            self.give_up_removal(turn, refusal);
        }
    }

    pub(super) fn on_worktree_removed(&mut self, turn: &mut Turn<'_>) {
        if self.workspace_step == WorkspaceStep::Removing {
            self.workspace_step = WorkspaceStep::Idle;
            self.removed(turn);
        }
    }

    /// Notes that the workspace is gone, and what it was.
    pub(super) fn removed(&mut self, turn: &mut Turn<'_>) {
        let removal = self.attempt.removal.take();
        let restore = removal.as_ref().is_some_and(|how| how.restore);
        // One whose worktree was never made has nothing to come back to.
        let never_made = self.attempt.claimed_from == Some(AttemptStatus::Failed);
        if let Some(saved) = removal.and_then(|how| how.saved).filter(|_| !never_made) {
            self.attempt.removed = Some(saved);
        }
        let before = self.attempt.claimed_from.take();
        // A removal that came while it was being made again: what it was before that still holds.
        if self.attempt.removed_from.is_none() {
            self.attempt.removed_from = before.map(at_rest);
        }
        self.attempt.status = AttemptStatus::Removed;
        self.attempt.claim = None;
        self.attempt.half_removed = None;
        self.attempt.missing = false;
        self.attempt.removed_at = Some(turn.at);
        if matches!(self.attempt.reason, Some(Reason::RemoveFailed { .. })) {
            self.attempt.reason = None;
        }
        turn.attempt_changed = true;
        self.answer_waiting(turn, &Reply::Removed);
        if restore {
            self.begin_restore(turn, None);
        }
    }

    /// The worktree is saved and aside and cannot be removed: it is put back.
    pub(super) fn on_remove_refused(&mut self, turn: &mut Turn<'_>, refusal: Refusal) {
        if self.workspace_step != WorkspaceStep::Removing {
            return;
        }
        self.workspace_step = WorkspaceStep::Idle;
        let saved = self.attempt.removal.as_ref().and_then(|how| how.saved.clone());
        match (self.attempt.workspace.worktree(), saved) {
            (Some(worktree), Some(saved)) => {
                self.workspace_step = WorkspaceStep::PuttingBack;
                self.given_up = Some(refusal);
                let (worktree, origin) = (Box::new(worktree.clone()), Origin::Removed(saved));
                let mode = CreateMode::Begin;
                turn.begin(Operation::CreateWorktree { worktree, origin, mode });
            }
            (Some(_) | None, _) => self.give_up_removal(turn, refusal),
        }
    }

    pub(super) fn was_put_back(&mut self, turn: &mut Turn<'_>) {
        let Some(refusal) = self.given_up.take() else { return };
        if self.attempt.half_removed.take().is_none() {
            self.give_up_removal(turn, refusal);
            return;
        }
        // What an earlier removal had left is whole again: it is saved as it is by now.
        self.attempt.removed = None;
        self.attempt.removal.get_or_insert(Removing::SAFE).saved = None;
        turn.attempt_changed = true;
        self.go_on_removing(turn);
    }

    /// It is neither removed nor where it was, and all of it is saved: it counts as removed, so that it can be made again,
    /// and its removal can be gone on with.
    pub(super) fn was_not_put_back(&mut self, turn: &mut Turn<'_>, refusal: Refusal) {
        let first = self.given_up.take().map_or_else(String::new, |first| first.message);
        // Mostly the same thing is in the way of both.
        let why = if first == refusal.message {
            first
        } else {
            format!("{first}; nor could it be put back: {}", refusal.message)
        };
        let message = format!(
            "{why}; all of it is saved, and parts of it may be left: once nothing is in the way any more, \
             removing it again removes them, and restoring it brings it back"
        );
        let told = Reply::Refused(Refusal { message: message.clone(), ..refusal });
        self.answer_waiting(turn, &told);
        self.answer_wanting(turn, &told);
        if let Some(how) = &mut self.attempt.removal {
            how.restore = false;
        }
        let begun = self.attempt.removal.clone();
        self.removed(turn);
        self.attempt.half_removed = begun;
        self.attempt.reason = Some(Reason::RemoveFailed { message });
    }

    /// Withdraws the claim: the attempt is as it was, but for what was stopped.
    pub(super) fn give_up_removal(&mut self, turn: &mut Turn<'_>, refusal: Refusal) {
        if self.attempt.status != AttemptStatus::Removing {
            return;
        }
        let before = self.attempt.claimed_from.take().unwrap_or(AttemptStatus::Held);
        self.attempt.status = match self.workspace_step {
            // What is still being made is looked after to its end, by the next host too.
            WorkspaceStep::Creating | WorkspaceStep::Making | WorkspaceStep::Concluding => {
                AttemptStatus::Creating
            }
            WorkspaceStep::Idle
            | WorkspaceStep::Planning
            | WorkspaceStep::Saving
            | WorkspaceStep::Removing
            | WorkspaceStep::PuttingBack
            | WorkspaceStep::Mending
            | WorkspaceStep::Integrating => at_rest(before),
        };
        self.attempt.claim = None;
        self.attempt.removal = None;
        // Git's words on a failed commit are nowhere else in the record.
        if !matches!(self.attempt.reason, Some(Reason::CommitFailed { .. })) {
            self.attempt.reason = Some(Reason::RemoveFailed { message: refusal.message.clone() });
        }
        turn.attempt_changed = true;
        self.answer_waiting(turn, &Reply::Refused(refusal.clone()));
        self.answer_wanting(turn, &Reply::Refused(refusal));
        self.take_follow_up(turn);
    }
}

/// What a status is once everything was stopped.
fn at_rest(status: AttemptStatus) -> AttemptStatus {
    match status {
        AttemptStatus::Creating | AttemptStatus::Running | AttemptStatus::Committing => {
            AttemptStatus::Held
        }
        AttemptStatus::Ready
        | AttemptStatus::Held
        | AttemptStatus::Parked
        | AttemptStatus::Finished
        | AttemptStatus::Removing
        | AttemptStatus::Removed
        | AttemptStatus::Failed => status,
    }
}
