//! The life of one execution, from queued to final.

use super::{Effect, ExecutionStep, Operation, Reply, RequestId, Slot, State, Turn};
use crate::action::RunReason;
use crate::attachments::Attachment;
use crate::container_service::{Launched, Place, StopCause, StopRequest};
use crate::execution::{ExitReport, FinalReport};
use crate::id::ExecutionId;
use crate::outcome::{NotStarted, Outcome, StoppedBy};
use crate::record::{
    AttemptStatus, ExecutionRecord, Hold, LogSummary, Phase, RequestRecord, StopIntent,
};
use crate::workspace::Oid;

use super::Tracked;
use crate::process_store::Revision;

impl State {
    pub(super) fn on_run(
        &mut self,
        turn: &mut Turn<'_>,
        request: RequestId,
        execution: ExecutionRecord,
        key: RequestRecord,
        admitted: bool,
    ) {
        self.attempt.chain = Some(execution.id);
        self.attempt.slot = admitted;
        self.enqueue(turn, request, execution, key, admitted);
        turn.attempt_changed = true;
        if self.attempt.status == AttemptStatus::Creating {
            self.begin_creation(turn);
        }
    }

    pub(super) fn enqueue(
        &mut self,
        turn: &mut Turn<'_>,
        request: RequestId,
        execution: ExecutionRecord,
        key: RequestRecord,
        admitted: bool,
    ) {
        let id = execution.id;
        self.executions.insert(id, Tracked::new(execution, Revision(0), admitted));
        turn.touch(id);
        turn.key = Some(key);
        turn.reply(request, Reply::Accepted);
        if admitted {
            self.begin_prepare(turn, id);
        } else {
            self.take_slot(turn, id, false);
        }
    }

    /// Asks for the slot of an execution; the chain's if it is part of it.
    pub(super) fn take_slot(&self, turn: &mut Turn<'_>, id: ExecutionId, adopted: bool) {
        let Some(tracked) = self.executions.get(&id) else { return };
        let owner = tracked.record.owner.clone();
        turn.begin(Operation::TakeSlot { slot: Slot::of(&tracked.record), owner, adopted });
    }

    pub(super) fn on_admitted(&mut self, turn: &mut Turn<'_>, slot: Slot) {
        let waits =
            |tracked: &&mut Tracked| !tracked.admitted && tracked.step == ExecutionStep::Waiting;
        let id = match slot {
            Slot::Chain(_) => self.attempt.chain,
            Slot::Execution(id) | Slot::DevServer(id) => Some(id),
        };
        let found = id.and_then(|id| self.executions.get_mut(&id)).filter(waits);
        let Some(tracked) = found else {
            // It ended while it waited; nobody needs the slot.
            if id.is_none_or(|id| !self.is_active(id)) {
                turn.begin(Operation::ReleaseSlot(slot));
            }
            return;
        };
        tracked.admitted = true;
        let id = tracked.record.id;
        if matches!(slot, Slot::Chain(_)) {
            self.attempt.slot = true;
        }
        self.begin_prepare(turn, id);
    }

    /// Makes room for a start if everything that it needs is there.
    pub(super) fn begin_prepare(&mut self, turn: &mut Turn<'_>, id: ExecutionId) {
        if (self.attempt.status == AttemptStatus::Creating && !self.makes(id))
            || self.is_retry(id)
            || self.waits_for_server(id)
        {
            return;
        }
        let (workspace, attachments) = (Box::new(self.runs_in(id)), self.attachments_of(id));
        let Some(tracked) = self.executions.get_mut(&id) else { return };
        if tracked.step != ExecutionStep::Waiting || !tracked.admitted {
            return;
        }
        tracked.step = ExecutionStep::Preparing;
        tracked.secrets_given = false;
        let execution = Box::new(tracked.record.clone());
        turn.begin(Operation::Prepare { execution, workspace, attachments });
    }

    /// What is to be in the worktree for an execution; git steps have no use for it.
    pub(super) fn attachments_of(&self, id: ExecutionId) -> Vec<Attachment> {
        let is_step = |it: &Tracked| it.record.action.run_reason == RunReason::Git;
        if self.executions.get(&id).is_none_or(is_step) {
            return Vec::new();
        }
        self.attempt.attachments.clone()
    }

    pub(super) fn on_prepared(
        &mut self,
        turn: &mut Turn<'_>,
        id: ExecutionId,
        place: Place,
        head: Option<Oid>,
    ) {
        let waits = |tracked: &&mut Tracked| tracked.step == ExecutionStep::Preparing;
        let Some(tracked) = self.executions.get_mut(&id).filter(waits) else {
            turn.begin(Operation::Discard { execution: id, place });
            return;
        };
        tracked.step = ExecutionStep::Launching;
        tracked.launched_here = true;
        tracked.record.phase = Phase::Starting;
        tracked.record.place = Some(place);
        tracked.record.missing_secret = None;
        if tracked.record.before_head.is_none() {
            tracked.record.before_head.clone_from(&head);
        }
        let execution = Box::new(tracked.record.clone());
        if !planted!(PlaceNotRecorded) {
            turn.touch(id);
        }
        if execution.action.run_reason.in_chain() {
            if self.attempt.status == AttemptStatus::Ready {
                self.attempt.status = AttemptStatus::Running;
            }
            // With its slot: the next host counts it before anybody is admitted.
            turn.attempt_changed = true;
        }
        if head.is_some() && self.attempt.head != head {
            self.attempt.head = head;
            turn.attempt_changed = true;
        }
        let workspace = Box::new(self.runs_in(id));
        let (port_base, attachments) = (self.attempt.port_base, self.attachments_of(id));
        turn.begin(Operation::Launch { execution, workspace, port_base, attachments });
    }

    pub(super) fn on_secret_missing(&mut self, turn: &mut Turn<'_>, id: ExecutionId, name: &str) {
        let waits = |tracked: &&mut Tracked| tracked.step == ExecutionStep::Preparing;
        let Some(tracked) = self.executions.get_mut(&id).filter(waits) else { return };
        tracked.step = ExecutionStep::Waiting;
        if tracked.secrets_given {
            // They came while it was looked for them.
            self.begin_prepare(turn, id);
            return;
        }
        tracked.admitted = false;
        tracked.record.missing_secret = Some(name.to_owned());
        let slot = self.slot_of_id(id);
        turn.touch(id);
        self.release(turn, slot);
    }

    pub(super) fn on_secrets_given(&mut self, turn: &mut Turn<'_>, id: ExecutionId) {
        let Some(tracked) = self.executions.get_mut(&id) else { return };
        if tracked.step == ExecutionStep::Preparing {
            tracked.secrets_given = true;
        } else if tracked.step == ExecutionStep::Waiting
            && !tracked.admitted
            && tracked.record.missing_secret.take().is_some()
        {
            turn.touch(id);
            self.take_slot(turn, id, false);
        }
    }

    fn slot_of_id(&self, id: ExecutionId) -> Slot {
        match self.executions.get(&id) {
            Some(tracked) => Slot::of(&tracked.record),
            None => Slot::Execution(id),
        }
    }

    /// Gives a slot back; the chain's only once.
    pub(super) fn release(&mut self, turn: &mut Turn<'_>, slot: Slot) {
        if matches!(slot, Slot::Chain(_)) {
            self.attempt.slot = false;
            turn.attempt_changed = true;
        }
        turn.begin(Operation::ReleaseSlot(slot));
    }

    pub(super) fn on_launched(&mut self, turn: &mut Turn<'_>, id: ExecutionId, launched: Launched) {
        let waits = |tracked: &&mut Tracked| tracked.step == ExecutionStep::Launching;
        let Some(tracked) = self.executions.get_mut(&id).filter(waits) else { return };
        match launched {
            Launched::Running(running) => {
                tracked.record.pid = Some(running.pid);
                tracked.record.started_at = Some(running.since);
                self.watch(turn, id);
            }
            Launched::NotStarted { reason, message } => {
                self.on_not_started(turn, id, reason, message);
            }
        }
    }

    /// Records that it runs, waits for its outcome, and passes an accepted stop on.
    pub(super) fn watch(&mut self, turn: &mut Turn<'_>, id: ExecutionId) {
        let Some(tracked) = self.executions.get_mut(&id) else { return };
        let Some(place) = tracked.record.place.clone() else { return };
        tracked.step = ExecutionStep::Watching;
        let stopping = tracked.record.stop.is_some();
        self.note_chain_start(turn, id);
        let Some(tracked) = self.executions.get_mut(&id) else { return };
        let runs = !stopping || planted!(StoppingGoesBack);
        let phase = if runs { Phase::Running } else { Phase::Stopping };
        if tracked.record.phase < phase || tracked.record.pid.is_some() {
            let before = tracked.record.phase;
            tracked.record.phase =
                if planted!(StoppingGoesBack) { phase } else { before.max(phase) };
            turn.touch(id);
        }
        // Waiting is harmless before the phase is stored, and a short command has ended by then.
        let is_fed = tracked.record.text.is_some();
        turn.begin_at_once(Operation::AwaitExit { execution: id, place });
        if is_fed {
            turn.begin(Operation::Feed { execution: id });
        }
        if stopping && !planted!(StopForgotten) {
            self.pass_stop_on(turn, id);
        }
    }

    fn pass_stop_on(&self, turn: &mut Turn<'_>, id: ExecutionId) {
        let Some(tracked) = self.executions.get(&id) else { return };
        let (Some(place), Some(stop)) = (tracked.record.place.clone(), tracked.record.stop) else {
            return;
        };
        let request = StopRequest {
            cause: stop.cause,
            grace: std::time::Duration::from_millis(stop.grace_ms),
            epoch: turn.config.epoch,
        };
        turn.begin(Operation::Stop { execution: id, place, request });
    }

    pub(super) fn on_exited(&mut self, turn: &mut Turn<'_>, id: ExecutionId, report: ExitReport) {
        let waits = |tracked: &&mut Tracked| {
            matches!(tracked.step, ExecutionStep::Watching | ExecutionStep::Adopting)
        };
        let Some(tracked) = self.executions.get_mut(&id).filter(waits) else { return };
        tracked.step = ExecutionStep::Finishing;
        if tracked.record.phase < Phase::Ended {
            record_exit(&mut tracked.record, report);
            turn.touch(id);
        }
        if let Some(place) = tracked.record.place.clone() {
            let worktree = self.runs_in(id).worktree().cloned().map(Box::new);
            turn.begin_at_once(Operation::Finish { execution: id, place, worktree });
        }
    }

    pub(super) fn on_finished(
        &mut self,
        turn: &mut Turn<'_>,
        id: ExecutionId,
        report: FinalReport,
        preview: Option<String>,
        head: Option<Oid>,
    ) {
        let waits = |tracked: &&mut Tracked| tracked.step == ExecutionStep::Finishing;
        let Some(tracked) = self.executions.get_mut(&id).filter(waits) else { return };
        tracked.step = ExecutionStep::Done;
        let record = &mut tracked.record;
        if record.phase < Phase::Ended {
            record_exit(record, report.exit);
        }
        if planted!(OutcomeOverwritten)
            && let Some(StopIntent { cause: StopCause::Stop { by }, .. }) = record.stop
        {
            record.outcome = Some(Outcome::Stopped { by });
        }
        record.phase = Phase::Final;
        record.log = Some(LogSummary {
            last_seq: report.last_seq,
            bytes: report.bytes,
            dropped_bytes: report.dropped_bytes,
        });
        record.survivors = report.survivors;
        record.more_survivors = report.more_survivors;
        record.output_incomplete = report.output_incomplete;
        record.preview = preview;
        record.after_head.clone_from(&head);
        if head.is_some() && self.attempt.head != head {
            self.attempt.head = head;
            turn.attempt_changed = true;
        }
        turn.touch(id);
        self.after_final(turn, id);
    }

    /// Ends an execution that will never run.
    pub(super) fn on_not_started(
        &mut self,
        turn: &mut Turn<'_>,
        id: ExecutionId,
        reason: NotStarted,
        message: String,
    ) {
        self.end_unstarted(turn, id, Outcome::NotStarted { reason }, Some(message));
    }

    /// Ends an execution of which nothing ran, as final.
    pub(super) fn end_unstarted(
        &mut self,
        turn: &mut Turn<'_>,
        id: ExecutionId,
        outcome: Outcome,
        message: Option<String>,
    ) {
        let Some(tracked) = self.executions.get_mut(&id) else { return };
        if tracked.record.phase >= Phase::Ended {
            return;
        }
        tracked.record.log = Some(LogSummary::default());
        tracked.record.after_head.clone_from(&tracked.record.before_head);
        self.end_without_evidence(turn, id, outcome, message);
    }

    /// Ends an execution as final without a report of its end. An outcome that is known stays.
    pub(super) fn end_without_evidence(
        &mut self,
        turn: &mut Turn<'_>,
        id: ExecutionId,
        outcome: Outcome,
        message: Option<String>,
    ) {
        let Some(tracked) = self.executions.get_mut(&id) else { return };
        tracked.step = ExecutionStep::Done;
        let record = &mut tracked.record;
        record.phase = Phase::Final;
        record.outcome.get_or_insert(outcome);
        record.message = message;
        record.ended_at.get_or_insert(turn.at);
        record.pid = None;
        turn.touch(id);
        self.after_final(turn, id);
    }

    /// Goes on after an execution is final: its slot, its chain, a removal that waits for it.
    fn after_final(&mut self, turn: &mut Turn<'_>, id: ExecutionId) {
        let Some(tracked) = self.executions.get(&id) else { return };
        let (reason, slot) = (tracked.record.action.run_reason, Slot::of(&tracked.record));
        if self.makes(id) {
            self.making_ended(turn);
        } else if self.integrates(id) {
            self.integration_step_ended(turn);
        } else if self.attempt.chain == Some(id) {
            self.chain_step_ended(turn, id);
        } else if reason != RunReason::Git {
            // Released even if it was only asked for: admission forgets a waiting slot too.
            turn.begin(Operation::ReleaseSlot(slot));
            self.beside_ended(turn);
        }
        self.go_on_removing(turn);
    }

    pub(super) fn on_stop(
        &mut self,
        turn: &mut Turn<'_>,
        request: RequestId,
        execution: Option<ExecutionId>,
        cause: StopCause,
        grace_ms: Option<u64>,
    ) {
        let binds = matches!(cause, StopCause::Stop { .. });
        let whole = execution.is_none();
        // An execution that has ended and whose work is being committed stands for its chain.
        let committing = execution.is_some() && execution == self.attempt.committing;
        // So does one that the chain has gone on from.
        let passed =
            committing || execution.is_some_and(|id| self.attempt.chain_before.contains(&id));
        let retried = execution.is_some_and(|id| self.is_retry(id));
        let chain = whole || passed || retried || execution == self.attempt.chain;
        if binds && chain && self.chain_is_active() && !self.attempt.chain_stopped {
            self.attempt.chain_stopped = true;
            turn.attempt_changed = true;
        }
        // What waits for the worktree alone is not begun either.
        if binds && whole && !self.chain_is_active() && self.attempt.queue > 0 && !self.holds() {
            self.hold_queue(turn, Hold::Stopped);
        }
        let targets: Vec<_> = match execution {
            Some(id) if binds && passed => self.attempt.chain.into_iter().chain([id]).collect(),
            Some(id) if binds && chain && self.alone_waits(id) => {
                [id].into_iter().chain(self.attempt.making.map(|making| making.execution)).collect()
            }
            Some(id) => vec![id],
            None => self.executions.keys().copied().collect(),
        };
        for id in targets {
            self.stop_one(turn, id, cause, grace_ms);
        }
        turn.reply(request, Reply::Accepted);
    }

    /// Says whether an execution is all that the worktree is being made for.
    fn alone_waits(&self, id: ExecutionId) -> bool {
        let others = |other: &&ExecutionId| **other != id && !self.makes(**other);
        let none = !self.executions.keys().filter(others).any(|other| self.is_active(*other));
        none && self.wanting.is_empty() && self.attempt.making.is_some()
    }

    /// Stops one execution, wherever it is in its life. One that has ended is left as it is.
    pub(super) fn stop_one(
        &mut self,
        turn: &mut Turn<'_>,
        id: ExecutionId,
        cause: StopCause,
        grace_ms: Option<u64>,
    ) {
        let Some(tracked) = self.executions.get_mut(&id) else { return };
        let grace_ms = grace_ms.unwrap_or(tracked.record.options.limits.grace_ms);
        let StopIntent { grace_ms: earlier, .. } =
            tracked.record.stop.unwrap_or(StopIntent { cause, grace_ms, at: turn.at });
        match (tracked.record.phase, tracked.step) {
            (Phase::Ended | Phase::Final, _) => {}
            // Starting and back in preparation: its place was closed for ever, and nothing runs.
            (Phase::Queued, _)
            | (Phase::Starting, ExecutionStep::Waiting | ExecutionStep::Preparing) => {
                let outcome = match cause {
                    StopCause::Stop { by } => Outcome::Stopped { by },
                    StopCause::Complete { .. } => {
                        Outcome::NotStarted { reason: NotStarted::Stopped }
                    }
                };
                self.end_unstarted(turn, id, outcome, Some("stopped before it started".into()));
            }
            (Phase::Starting | Phase::Running | Phase::Stopping, step) => {
                let news = tracked.record.stop.is_none() || grace_ms < earlier;
                if news {
                    let cause = tracked.record.stop.map_or(cause, |stop| stop.cause);
                    tracked.record.stop = Some(StopIntent { cause, grace_ms, at: turn.at });
                    if tracked.record.phase == Phase::Running {
                        tracked.record.phase = Phase::Stopping;
                    }
                    turn.touch(id);
                    if planted!(SlotReleasedEarly) {
                        let slot = self.slot_of_id(id);
                        self.release(turn, slot);
                    }
                }
                // While it is being launched or looked at, the stop is passed on afterwards.
                if step == ExecutionStep::Watching && news {
                    self.pass_stop_on(turn, id);
                } else if matches!(step, ExecutionStep::Retry(_) | ExecutionStep::Stuck) {
                    self.pass_stop_on(turn, id);
                    self.begin_adopt(turn, id);
                }
            }
        }
    }

    pub(super) fn stop_all(&mut self, turn: &mut Turn<'_>) {
        let cause = StopCause::Stop { by: StoppedBy::Host };
        for id in self.executions.keys().copied().collect::<Vec<_>>() {
            self.stop_one(turn, id, cause, None);
        }
    }

    pub(super) fn on_woke(&mut self, turn: &mut Turn<'_>) {
        // One that lies further ahead than any is set to: the clock was stepped back.
        let furthest = turn.at.plus_ms(turn.config.readopt_ms);
        let retries: Vec<_> = self
            .executions
            .iter()
            .filter_map(|(id, tracked)| match tracked.step {
                ExecutionStep::Retry(when) => Some((*id, when)),
                ExecutionStep::Waiting
                | ExecutionStep::Preparing
                | ExecutionStep::Launching
                | ExecutionStep::Adopting
                | ExecutionStep::Watching
                | ExecutionStep::Finishing
                | ExecutionStep::Stuck
                | ExecutionStep::Done => None,
            })
            .collect();
        for (id, when) in retries {
            if when <= turn.at || when > furthest {
                self.begin_adopt(turn, id);
            } else {
                turn.after.push(Effect::WakeAt(when));
            }
        }
    }

    pub(super) fn retry_later(&mut self, turn: &mut Turn<'_>, id: ExecutionId) {
        let when = turn.at.plus_ms(turn.config.readopt_ms);
        if let Some(tracked) = self.executions.get_mut(&id) {
            tracked.step = ExecutionStep::Retry(when);
            turn.after.push(Effect::WakeAt(when));
        }
    }
}

fn record_exit(record: &mut ExecutionRecord, report: ExitReport) {
    record.phase = Phase::Ended;
    record.outcome = Some(report.outcome);
    record.exit = report.exit;
    record.ended_at = Some(report.at);
    record.pid = None;
    record.report = Some(report);
}
