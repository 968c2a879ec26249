//! The chain: what follows when one of its executions is final, and how it ends.

use super::{Slot, State, Tracked, Turn};
use crate::action::{Next, RunReason};
use crate::id::ExecutionId;
use crate::outcome::Outcome;
use crate::process_store::Revision;
use crate::record::{
    AttemptStatus, CommitPolicy, ExecutionRecord, NewExecution, Phase, Reason, Resetting,
};
use crate::workspace::Oid;

impl State {
    /// Says whether an execution of the chain is not final or its work is being committed.
    pub(super) fn chain_is_active(&self) -> bool {
        self.attempt.status == AttemptStatus::Committing
            || self.attempt.chain.is_some_and(|id| self.is_active(id))
    }

    /// Goes on after the active execution of the chain is final.
    pub(super) fn chain_step_ended(&mut self, turn: &mut Turn<'_>, id: ExecutionId) {
        // One that ran while no host was there is heard of at its end.
        self.note_chain_start(turn, id);
        let Some(tracked) = self.executions.get(&id) else { return };
        let record = &tracked.record;
        let well = record.outcome.is_some_and(|outcome| outcome.ended_well())
            || planted!(CommittedAfterFailure);
        let stopped = self.attempt.chain_stopped && !planted!(CommittedAfterStop);
        let badly = match (stopped, well) {
            (true, _) => Some(Reason::Stopped),
            (false, false) => Some(Reason::EndedBadly { execution: id }),
            (false, true) => None,
        };
        let returns = badly.is_some() && record.text.is_some() && !has_run(record);
        if returns {
            self.give_back(turn);
        }
        let Some(tracked) = self.executions.get(&id) else { return };
        let record = &tracked.record;
        match (record.action.run_reason, badly) {
            (RunReason::Git, _) => self.git_step_ended(turn, id),
            // What prepares a workspace does so again.
            (RunReason::Setup, Some(reason)) => self.finalise(turn, Some(reason)),
            (RunReason::Setup, None) => self.go_on(turn, id, None),
            (RunReason::Cleanup, Some(reason)) if !well => {
                self.cleanup_failed(turn, id, stopped.then_some(reason));
            }
            (
                RunReason::Agent
                | RunReason::Cleanup
                | RunReason::DevServer
                | RunReason::Background,
                Some(reason),
            ) => self.end_badly(turn, reason),
            (
                RunReason::Agent
                | RunReason::Cleanup
                | RunReason::DevServer
                | RunReason::Background,
                None,
            ) => {
                if self.commits() && self.attempt.claim.is_none() {
                    self.commit_work(turn, id);
                } else {
                    let head = record.after_head.clone();
                    self.go_on(turn, id, head);
                }
            }
        }
    }

    /// Says whether what a chain changes is committed.
    fn commits(&self) -> bool {
        self.attempt.commit == CommitPolicy::Commit && self.attempt.workspace.worktree().is_some()
    }

    /// Starts what follows an execution that ended well and whose work is committed, or finalises the chain. `head` is what
    /// HEAD names by now.
    pub(super) fn go_on(&mut self, turn: &mut Turn<'_>, id: ExecutionId, head: Option<Oid>) {
        let Some(tracked) = self.executions.get(&id) else { return self.finalise(turn, None) };
        let record = &tracked.record;
        // Without a change there is nothing to tidy up. Its own commits count; of a directory nothing is known.
        let worked = record.action.run_reason != RunReason::Agent
            || self.attempt.workspace.worktree().is_none()
            || (head.is_some() && head != record.before_head);
        let next = record.action.next.clone().filter(|_| worked);
        let unbound = self.attempt.claim.is_none() && !self.attempt.chain_stopped;
        match next {
            Some(next) if unbound || planted!(CommittedAfterStop) => self.start(turn, id, *next),
            Some(_) => self.finalise(turn, Some(Reason::Stopped)),
            None => self.finalise(turn, None),
        }
    }

    /// Records what follows an execution; it runs in the slot of the chain.
    fn start(&mut self, turn: &mut Turn<'_>, after: ExecutionId, next: Next) {
        let Some(tracked) = self.executions.get_mut(&after) else { return };
        // Behind what it follows in every list, whatever the clock says.
        let at = turn.at.max(tracked.record.created_at.plus_ms(1));
        let id = after.following(at);
        tracked.record.followed_by = Some(id);
        turn.touch(after);
        let before = &tracked.record;
        let record = ExecutionRecord::queued(NewExecution {
            id,
            attempt: self.attempt.id,
            owner: before.owner.clone(),
            client_key: before.client_key.clone(),
            options: next.options(&before.options),
            action: next.action,
            repository_lock: None,
            cwd: before.cwd.clone(),
            at,
        });
        self.attempt.chain_before.push(after);
        self.attempt.chain = Some(id);
        self.attempt.committing = None;
        self.attempt.commit_message = None;
        self.attempt.status = AttemptStatus::Running;
        turn.attempt_changed = true;
        self.executions.insert(id, Tracked::new(record, Revision(0), true));
        turn.touch(id);
        self.begin_prepare(turn, id);
    }

    /// Ends a chain whose cleanup did not end well. What it changed is undone where it would enter the next commit.
    fn cleanup_failed(&mut self, turn: &mut Turn<'_>, id: ExecutionId, stopped: Option<Reason>) {
        let Some(tracked) = self.executions.get(&id) else { return };
        let record = &tracked.record;
        let reason = stopped.unwrap_or(Reason::CleanupFailed { execution: id });
        if !has_run(record) {
            self.finalise(turn, Some(reason));
            return;
        }
        let to = record.before_head.clone().filter(|_| self.commits());
        self.attempt.resetting = to.map(|to| Resetting { to, saved: false });
        self.attempt.commit_tries = 0;
        self.end_badly(turn, reason);
    }

    /// Notes that the chain has begun, with the first of its own executions that began to run. Git steps are no work.
    pub(super) fn note_chain_start(&mut self, turn: &mut Turn<'_>, id: ExecutionId) {
        let Some(tracked) = self.executions.get(&id) else { return };
        let works = match tracked.record.action.run_reason {
            RunReason::Setup | RunReason::Agent | RunReason::Cleanup => true,
            RunReason::DevServer | RunReason::Background | RunReason::Git => false,
        };
        if !works {
            return;
        }
        let record = &tracked.record;
        // When one began that nobody saw running is not known; it was before its end.
        let unseen = || record.ended_at.filter(|_| record.phase == Phase::Final && has_run(record));
        let began = record.started_at.or_else(unseen);
        if self.attempt.chain_started_at.is_none() && began.is_some() {
            self.attempt.chain_started_at = began;
            turn.attempt_changed = true;
        }
    }

    /// Ends the chain: exactly once, in the batch of what ended it.
    pub(super) fn finalise(&mut self, turn: &mut Turn<'_>, reason: Option<Reason>) {
        let held = reason.as_ref().is_some_and(is_held_for);
        if reason.is_none() {
            self.attempt.not_saved = None;
        }
        self.attempt.reason = reason;
        self.attempt.chain = None;
        self.attempt.chain_before.clear();
        self.attempt.ending = None;
        self.attempt.resetting = None;
        self.attempt.committing = None;
        self.attempt.commit_message = None;
        let stopped = std::mem::take(&mut self.attempt.chain_stopped);
        if self.attempt.chain_started_at.take().is_some() {
            self.attempt.finalised_at = Some(turn.at);
        }
        let status = if held { AttemptStatus::Held } else { AttemptStatus::Finished };
        if self.attempt.claim.is_some() {
            self.attempt.claimed_from = Some(status);
        } else if !matches!(
            self.attempt.status,
            // What is still being made is looked after to its end, by the next host too.
            AttemptStatus::Failed | AttemptStatus::Creating
        ) {
            self.attempt.status = status;
        }
        turn.attempt_changed = true;
        // Released even if it was only asked for: admission forgets a waiting slot too.
        let slot = Slot::Chain(self.attempt.id);
        self.release(turn, slot);
        self.give_up_retry(turn, stopped);
        self.queue_after_chain(turn, stopped);
    }
}

/// Says whether anything of an execution that is over ran, or may have.
fn has_run(record: &ExecutionRecord) -> bool {
    match record.outcome {
        Some(Outcome::NotStarted { .. }) => false,
        // It may have been stopped before it began.
        Some(Outcome::Stopped { .. }) => record.started_at.is_some() || record.report.is_some(),
        Some(
            Outcome::Exited { .. }
            | Outcome::Signaled { .. }
            | Outcome::Completed { .. }
            | Outcome::TimedOut { .. }
            | Outcome::Lost { .. },
        )
        | None => true,
    }
}

/// Says whether somebody has to look before anything goes on.
fn is_held_for(reason: &Reason) -> bool {
    match reason {
        Reason::Stopped
        | Reason::EndedBadly { .. }
        | Reason::CommitFailed { .. }
        | Reason::ResetFailed { .. }
        | Reason::WorkspaceFailed { .. } => true,
        // All that is wrong with these was undone, or concerns nobody who works in it.
        Reason::CleanupFailed { .. } | Reason::RemoveFailed { .. } => false,
    }
}
