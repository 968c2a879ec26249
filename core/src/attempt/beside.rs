//! What runs beside the chain: background executions, and at most one dev server. Each has a slot of its own, and its end is
//! recorded and nothing else: no message waits for it, and no status follows from it.
//!
//! Whoever claims the workspace stops all of it first, with [`State::stop_beside`], and goes on in [`State::beside_ended`].
//! A merge and a rebase stop dev servers alone.

use super::{Operation, RefusalCode, RequestId, Slot, State, Tracked, Turn, WorkspaceStep};
use crate::action::RunReason;
use crate::container_service::StopCause;
use crate::id::ExecutionId;
use crate::outcome::StoppedBy;
use crate::record::{AttemptStatus, ExecutionRecord, Phase, Reason, RequestRecord};
use crate::workspace::Workspace;

impl State {
    pub(super) fn on_start(
        &mut self,
        turn: &mut Turn<'_>,
        request: RequestId,
        execution: ExecutionRecord,
        key: RequestRecord,
        admitted: bool,
    ) {
        // One that was only asked for is given back, too: nobody would take it when it comes.
        let slot = Slot::of(&execution);
        let is_server = execution.action.run_reason == RunReason::DevServer;
        if let Some(server) = self.dev_server().filter(|_| is_server) {
            let (attempt, server) = (self.attempt.id.short(), server.short());
            let message = format!("{attempt} has a dev server already: {server}");
            turn.begin(Operation::ReleaseSlot(slot));
            turn.refuse(request, RefusalCode::DevServerRuns, message);
            return;
        }
        if self.attempt.status == AttemptStatus::Removed && self.can_be_restored() {
            // Queued until the worktree is there again.
            self.begin_restore(turn, None);
        }
        if let Some(message) = self.workspace_gone().filter(|_| !planted!(StartedUnderClaim)) {
            turn.begin(Operation::ReleaseSlot(slot));
            let code = match &self.attempt.workspace {
                Workspace::Worktree(_) => RefusalCode::WorkspaceGone,
                Workspace::Directory { .. } => RefusalCode::WrongState,
            };
            turn.refuse(request, code, message);
            return;
        }
        if self.attempt.resetting.is_some() {
            turn.begin(Operation::ReleaseSlot(slot));
            let message = "its worktree is being put back to a commit";
            turn.refuse(request, RefusalCode::Busy, message);
            return;
        }
        if let Some(message) = self.is_rewriting() {
            turn.begin(Operation::ReleaseSlot(slot));
            turn.refuse(request, RefusalCode::Busy, message);
            return;
        }
        self.enqueue(turn, request, execution, key, admitted);
    }

    /// Lists what runs beside the chain and is not final.
    fn beside(&self) -> impl Iterator<Item = &Tracked> {
        let is_beside = |tracked: &&Tracked| {
            tracked.record.phase < Phase::Final && !tracked.record.action.run_reason.in_chain()
        };
        self.executions.values().filter(is_beside)
    }

    fn servers(&self) -> impl Iterator<Item = &ExecutionRecord> {
        let is_server =
            |record: &&ExecutionRecord| record.action.run_reason == RunReason::DevServer;
        self.beside().map(|tracked| &tracked.record).filter(is_server)
    }

    /// Names the dev server that runs, or will, and was not asked to stop.
    #[must_use]
    pub fn dev_server(&self) -> Option<ExecutionId> {
        let stays =
            |record: &&ExecutionRecord| record.phase < Phase::Ended && record.stop.is_none();
        self.servers().find(stays).map(|record| record.id)
    }

    /// Says whether an execution is a dev server that takes the place of one that still ends.
    pub(super) fn waits_for_server(&self, id: ExecutionId) -> bool {
        let is_server = self.servers().any(|record| record.id == id);
        is_server && self.servers().any(|other| other.id != id && other.phase > Phase::Queued)
    }

    /// Says whether nothing that runs beside the chain lives any more.
    pub(super) fn beside_is_dead(&self) -> bool {
        self.beside().next().is_none()
    }

    /// Stops what runs beside the chain, for a claim; says whether nothing of it lives by now. If something does,
    /// [`beside_ended`](Self::beside_ended) comes with the end of the last one.
    pub(super) fn stop_beside(&mut self, turn: &mut Turn<'_>) -> bool {
        let cause = StopCause::Stop { by: StoppedBy::Host };
        let targets: Vec<_> = self.beside().map(|tracked| tracked.record.id).collect();
        for id in targets {
            self.stop_one(turn, id, cause, None);
        }
        self.beside_is_dead()
    }

    /// Stops the dev servers, for what others may go on beside; says whether none of them lives by now.
    pub(super) fn stop_servers(&mut self, turn: &mut Turn<'_>) -> bool {
        let cause = StopCause::Stop { by: StoppedBy::Host };
        for id in self.servers().map(|record| record.id).collect::<Vec<_>>() {
            self.stop_one(turn, id, cause, None);
        }
        self.servers().next().is_none()
    }

    /// Goes on after an execution beside the chain is final: with a dev server that takes its place, and with a claim that
    /// waited for it.
    pub(super) fn beside_ended(&mut self, turn: &mut Turn<'_>) {
        let waiting: Vec<_> = self
            .servers()
            .filter(|record| record.phase == Phase::Queued)
            .map(|record| record.id)
            .collect();
        for id in waiting {
            self.begin_prepare(turn, id);
        }
        if self.beside_is_dead() && self.retry_waits() {
            self.go_on_ending(turn);
        }
        if self.servers().next().is_none() {
            self.integrate_without_servers(turn);
        }
    }

    /// Says whether another try waits until what runs beside the chain is dead; nothing is saved before that.
    pub(super) fn retry_waits(&self) -> bool {
        let unsaved = self.attempt.resetting.as_ref().is_some_and(|resetting| !resetting.saved);
        self.attempt.retry.is_some()
            && unsaved
            && self.attempt.ending.is_some()
            && self.workspace_step == WorkspaceStep::Idle
            && !self.attempt.chain.is_some_and(|id| self.is_active(id))
    }

    /// Ends what waits until something beside the chain is dead, when nobody can tell whether it is.
    pub(super) fn give_up_waiting(&mut self, turn: &mut Turn<'_>, message: &str) {
        self.give_up_integration(turn, message);
        if self.retry_waits() {
            self.attempt.ending = None;
            let output = message.to_owned();
            self.finalise(turn, Some(Reason::ResetFailed { output, execution: None }));
        }
    }
}
