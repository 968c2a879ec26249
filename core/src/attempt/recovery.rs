//! Taking over: what a new host does with an attempt, and what evidence leads to.

use super::{ExecutionStep, Operation, Refusal, RefusalCode, State, Tracked, Turn};
use crate::container_service::Adoption;
use crate::id::ExecutionId;
use crate::outcome::{Lost, NotStarted, Outcome};
use crate::record::{AttemptStatus, Phase, Reason};

impl State {
    pub(super) fn on_recovered(&mut self, turn: &mut Turn<'_>) {
        let chain = self.attempt.chain.filter(|id| self.is_active(*id));
        for id in self.executions.keys().copied().collect::<Vec<_>>() {
            let makes = self.makes(id);
            let commits = Some(id) == chain && self.attempt.status == AttemptStatus::Committing;
            // What follows in a chain runs in the slot that this holds.
            let continues =
                Some(id) == chain && self.attempt.slot && !self.attempt.chain_before.is_empty();
            let integrates = self.integrates(id);
            let (retries, undoes) = (self.is_retry(id), self.resets());
            let Some(tracked) = self.executions.get_mut(&id) else { continue };
            match tracked.record.phase {
                Phase::Queued if commits && undoes => self.put_off(turn, id),
                Phase::Queued if commits || makes || continues || integrates => {
                    tracked.admitted = true;
                    self.begin_prepare(turn, id);
                }
                // It waits until the worktree is put back.
                Phase::Queued if retries => {}
                Phase::Queued => {
                    tracked.record.message = None;
                    tracked.record.missing_secret = None;
                    self.take_slot(turn, id, false);
                }
                Phase::Stopping if planted!(StoppingNotAdopted) => {}
                Phase::Starting | Phase::Running | Phase::Stopping | Phase::Ended => {
                    tracked.admitted = true;
                    if !makes && !integrates {
                        self.take_slot(turn, id, true);
                    }
                    self.begin_adopt(turn, id);
                }
                Phase::Final => {}
            }
        }
        // Written before anything is touched: whose records are another host's by now hears so.
        turn.attempt_changed |=
            matches!(self.attempt.status, AttemptStatus::Creating | AttemptStatus::Removing);
        match self.attempt.status {
            AttemptStatus::Creating => self.go_on_creating(turn),
            AttemptStatus::Committing if self.integration().is_some() => {
                self.go_on_integrating(turn);
            }
            // While no host was there, somebody may have worked in it: it is saved once more before anything is undone.
            AttemptStatus::Committing if self.attempt.ending.is_some() && chain.is_none() => {
                self.save_again(turn);
            }
            AttemptStatus::Committing if chain.is_none() => self.plan_step(turn),
            AttemptStatus::Committing => {}
            AttemptStatus::Removing => {
                if self.integration().is_some() {
                    self.stop_all(turn);
                    self.go_on_integrating(turn);
                } else if chain.is_none()
                    && let Some(reason) = self.attempt.ending.take()
                {
                    // The removal saves what the chain left.
                    self.finalise(turn, Some(reason));
                } else if chain.is_none() && self.attempt.slot {
                    // What was being committed when the claim came is not: nobody else gives the chain's slot back.
                    self.finalise(turn, Some(Reason::Stopped));
                }
                self.stop_all(turn);
                // What was being made again when the removal came is looked at before it is saved.
                if self.attempt.restoring.is_some() || self.attempt.making.is_some() {
                    self.go_on_creating(turn);
                } else {
                    self.go_on_removing(turn);
                }
            }
            AttemptStatus::Ready
            | AttemptStatus::Running
            | AttemptStatus::Held
            | AttemptStatus::Parked
            | AttemptStatus::Finished
            | AttemptStatus::Removed
            | AttemptStatus::Failed => {}
        }
    }

    /// Ends a step that undoes and has not begun: while no host was there, somebody may have worked in what was saved for it.
    fn put_off(&mut self, turn: &mut Turn<'_>, id: ExecutionId) {
        let outcome = Outcome::NotStarted { reason: NotStarted::Stopped };
        let message = "its host went before it began: what is there is saved once more first";
        self.end_unstarted(turn, id, outcome, Some(message.to_owned()));
    }

    pub(super) fn begin_adopt(&mut self, turn: &mut Turn<'_>, id: ExecutionId) {
        let Some(tracked) = self.executions.get_mut(&id) else { return };
        let Some(place) = tracked.record.place.clone() else { return };
        tracked.step = ExecutionStep::Adopting;
        turn.begin(Operation::Adopt { execution: id, place });
    }

    pub(super) fn on_adopted(&mut self, turn: &mut Turn<'_>, id: ExecutionId, adoption: Adoption) {
        let waits = |tracked: &&mut Tracked| tracked.step == ExecutionStep::Adopting;
        let Some(tracked) = self.executions.get_mut(&id).filter(waits) else { return };
        match adoption {
            Adoption::Running { running, exited } => {
                if tracked.record.message.take().is_some() {
                    turn.touch(id);
                }
                if let Some(running) = running {
                    tracked.record.started_at.get_or_insert(running.since);
                    if tracked.record.pid.replace(running.pid) != Some(running.pid) {
                        turn.touch(id);
                    }
                }
                match exited {
                    Some(report) => self.on_exited(turn, id, report),
                    None => self.watch(turn, id),
                }
            }
            Adoption::Ended(report) => {
                // What kept it from being looked at does so no more.
                tracked.record.message = None;
                self.on_exited(turn, id, report.exit);
            }
            Adoption::NeverRan => self.never_ran(turn, id),
            Adoption::Unresponsive { detail } => {
                self.note(turn, id, detail);
                self.retry_later(turn, id);
            }
            Adoption::Foreign { detail } | Adoption::Unverifiable { detail } => {
                tracked.step = ExecutionStep::Stuck;
                // No fact will come that tells it dead, so nobody is kept waiting for a removal.
                let message = format!("whether {} runs cannot be told: {detail}", id.short());
                self.note(turn, id, detail);
                self.give_up_waiting(turn, &message);
                self.give_up_removal(turn, Refusal { code: RefusalCode::Busy, message });
            }
        }
    }

    /// Shows what keeps an execution from going on.
    fn note(&mut self, turn: &mut Turn<'_>, id: ExecutionId, detail: String) {
        let Some(tracked) = self.executions.get_mut(&id) else { return };
        if tracked.record.message.as_ref() != Some(&detail) {
            tracked.record.message = Some(detail);
            turn.touch(id);
        }
    }

    /// Launches again in a new place, unless something speaks against it. The old one is closed for ever.
    fn never_ran(&mut self, turn: &mut Turn<'_>, id: ExecutionId) {
        let claimed = self.attempt.claim.is_some();
        let bound = self.attempt.chain_stopped && self.attempt.chain == Some(id);
        let undoes = self.attempt.chain == Some(id) && self.resets();
        let (workspace, attachments) = (Box::new(self.runs_in(id)), self.attachments_of(id));
        let Some(tracked) = self.executions.get_mut(&id) else { return };
        let has_run = tracked.record.phase > Phase::Starting || tracked.record.started_at.is_some();
        if has_run {
            // It was seen running: what says that it never did is damaged, and damage is no permission to start.
            let outcome = Outcome::Lost { reason: Lost::EvidenceDamaged };
            let message = "it ran, and its evidence says that it did not".to_owned();
            self.end_without_evidence(turn, id, outcome, Some(message));
            return;
        }
        tracked.record.void_places += u32::from(std::mem::take(&mut tracked.launched_here));
        if let Some(stop) = tracked.record.stop {
            let outcome = match stop.cause {
                crate::container_service::StopCause::Stop { by } => Outcome::Stopped { by },
                crate::container_service::StopCause::Complete { .. } => {
                    Outcome::NotStarted { reason: NotStarted::Stopped }
                }
            };
            self.end_unstarted(turn, id, outcome, Some("stopped before it started".into()));
        } else if claimed || bound {
            let outcome = Outcome::NotStarted { reason: NotStarted::Stopped };
            self.end_unstarted(turn, id, outcome, None);
        } else if undoes {
            self.put_off(turn, id);
        } else if tracked.record.void_places > turn.config.max_void_places {
            let tries = tracked.record.void_places;
            let outcome = Outcome::NotStarted { reason: NotStarted::SpawnFailed };
            let message = format!("its supervisor did not start it in {tries} tries");
            self.end_unstarted(turn, id, outcome, Some(message));
        } else {
            tracked.step = ExecutionStep::Preparing;
            tracked.secrets_given = false;
            let execution = Box::new(tracked.record.clone());
            turn.touch(id);
            turn.begin(Operation::Prepare { execution, workspace, attachments });
        }
    }

    /// An operation failed without telling whether it had an effect: the evidence tells.
    pub(super) fn on_in_doubt(&mut self, turn: &mut Turn<'_>, id: ExecutionId, message: String) {
        let Some(tracked) = self.executions.get_mut(&id) else { return };
        match tracked.step {
            // Looking again at once would not help what just failed.
            ExecutionStep::Adopting => {
                self.note(turn, id, message);
                self.retry_later(turn, id);
            }
            ExecutionStep::Watching | ExecutionStep::Finishing if tracked.doubted => {
                self.note(turn, id, message);
                self.retry_later(turn, id);
            }
            ExecutionStep::Launching if planted!(LaunchedAfterDoubt) => {
                tracked.step = ExecutionStep::Waiting;
                self.begin_prepare(turn, id);
            }
            ExecutionStep::Launching => {
                // Of a place that is gone nothing tells an older host from the one that has the records: the store does.
                turn.touch(id);
                self.begin_adopt(turn, id);
            }
            ExecutionStep::Watching | ExecutionStep::Finishing => {
                tracked.doubted = true;
                self.begin_adopt(turn, id);
            }
            ExecutionStep::Preparing => {
                self.on_not_started(turn, id, NotStarted::SpawnFailed, message);
            }
            ExecutionStep::Waiting
            | ExecutionStep::Retry(_)
            | ExecutionStep::Stuck
            | ExecutionStep::Done => {}
        }
    }
}
