//! Another try: what was done since is saved and undone first. Nothing of the history is dropped.

use super::{RefusalCode, Reply, RequestId, State, Tracked, Turn, WorkspaceStep};
use crate::id::ExecutionId;
use crate::outcome::{NotStarted, Outcome};
use crate::process_store::Revision;
use crate::record::{
    AttemptStatus, ExecutionRecord, Hold, Reason, RequestRecord, Resetting, Retry,
};

impl State {
    pub(super) fn on_retry(
        &mut self,
        turn: &mut Turn<'_>,
        request: RequestId,
        mut execution: ExecutionRecord,
        superseded: Vec<(ExecutionRecord, Revision)>,
        key: RequestRecord,
    ) {
        if self.attempt.workspace.worktree().is_none() {
            let message = "the attempt runs in a directory of yours, which is never put back";
            turn.refuse(request, RefusalCode::NotAWorktree, message);
            return;
        }
        if let Some(message) = self.workspace_gone() {
            turn.refuse(request, RefusalCode::WorkspaceGone, message);
            return;
        }
        let idle = self.workspace_step == WorkspaceStep::Idle;
        if let Some(message) = self.is_busy_but_for(|reason| !reason.in_chain()) {
            turn.refuse(request, RefusalCode::Busy, message);
            return;
        }
        let Some(to) = execution.before_head.take().filter(|_| idle) else {
            let message = "its worktree is being looked at, or where it began is not known";
            turn.refuse(request, RefusalCode::Busy, message);
            return;
        };
        // Nothing is saved before all of it is dead: what it writes after that would be lost.
        self.stop_beside(turn);
        self.attempt.resetting = Some(Resetting { to, saved: false });
        self.attempt.commit_tries = 0;
        let superseded_ids = superseded.iter().map(|(record, _)| record.id).collect();
        self.attempt.retry = Some(Retry { execution: execution.id, superseded: superseded_ids });
        for (record, revision) in superseded {
            self.executions.insert(record.id, Tracked::new(record, revision, false));
        }
        let id = execution.id;
        self.executions.insert(id, Tracked::new(execution, Revision(0), false));
        turn.touch(id);
        // So it ends if nothing comes of the try.
        self.attempt.ending = Some(Reason::Stopped);
        self.attempt.status = AttemptStatus::Committing;
        turn.attempt_changed = true;
        turn.key = Some(key);
        turn.reply(request, Reply::Accepted);
        self.go_on_ending(turn);
    }

    /// Puts the worktree back to its last commit, and then begins with a message. It goes the way of another try.
    pub(super) fn begin_with_reset(&mut self, turn: &mut Turn<'_>, execution: ExecutionRecord) {
        let Some(worktree) = self.attempt.workspace.worktree() else { return };
        let to = self.attempt.head.clone().unwrap_or_else(|| worktree.base_oid.clone());
        self.stop_beside(turn);
        self.attempt.resetting = Some(Resetting { to, saved: false });
        self.attempt.commit_tries = 0;
        let id = execution.id;
        self.attempt.retry = Some(Retry { execution: id, superseded: Vec::new() });
        self.executions.insert(id, Tracked::new(execution, Revision(0), false));
        turn.touch(id);
        self.attempt.ending = Some(Reason::Stopped);
        self.attempt.status = AttemptStatus::Committing;
        self.attempt.reason = None;
        turn.attempt_changed = true;
        self.go_on_ending(turn);
    }

    /// Says whether the worktree is put back for a message: to its last commit, whoever made that.
    pub(super) fn resets_for_message(&self) -> bool {
        self.attempt.retry.is_some() && self.attempt.follow_up.is_some()
    }

    /// Says whether an execution waits until the worktree is put back.
    pub(super) fn is_retry(&self, id: ExecutionId) -> bool {
        self.attempt.retry.as_ref().is_some_and(|retry| retry.execution == id)
    }

    /// Goes on after the worktree is put back: with the try that it was for, or to the end of the chain.
    pub(super) fn reset_is_over(&mut self, turn: &mut Turn<'_>) {
        let unbound = !self.attempt.chain_stopped && self.attempt.claim.is_none();
        let waits = |retry: &Retry| unbound && self.is_active(retry.execution);
        let Some(retry) = self.attempt.retry.clone().filter(waits) else {
            let reason = self.attempt.ending.take();
            self.finalise(turn, reason);
            return;
        };
        for old in retry.superseded {
            if let Some(tracked) = self.executions.get_mut(&old) {
                tracked.record.superseded_by = Some(retry.execution);
                turn.touch(old);
            }
        }
        self.attempt.retry = None;
        self.attempt.ending = None;
        self.attempt.resetting = None;
        self.attempt.reason = None;
        self.attempt.chain_before.clear();
        self.attempt.chain = Some(retry.execution);
        self.attempt.status = AttemptStatus::Running;
        turn.attempt_changed = true;
        self.take_slot(turn, retry.execution, false);
    }

    /// Ends the execution that waited for a worktree that was not put back.
    pub(super) fn give_up_retry(&mut self, turn: &mut Turn<'_>, stopped: bool) {
        let Some(retry) = self.attempt.retry.take() else { return };
        let why = match &self.attempt.reason {
            Some(Reason::ResetFailed { output, .. }) => {
                format!("the worktree could not be put back: {output}")
            }
            Some(_) | None => "it was stopped before the worktree was put back".to_owned(),
        };
        let outcome = Outcome::NotStarted { reason: NotStarted::WorkspaceRefused };
        self.end_unstarted(turn, retry.execution, outcome, Some(why));
        if self.attempt.follow_up.is_some() {
            self.give_back(turn);
            if stopped {
                self.hold_queue(turn, Hold::Stopped);
            }
        }
    }
}
