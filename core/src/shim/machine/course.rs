//! The way of an execution from its start to its end.

use super::ladder::Ladder;
use super::{Effect, HELD_PIPES_MS, LeaderExit, LogTotals, Now, Phase, State, To};
use crate::execution::{
    EndCause, ExecFailure, ExecStep, ExitReport, FinalReport, Leftovers, ResourceUse, Survivor,
    SurvivorReason,
};
use crate::outcome::{Deadline, Exit, NotStarted, Outcome};
use crate::shim::journal::{Exited, Record, Started};
use crate::shim::message::Notice;

impl State {
    pub(super) fn on_begun(&mut self, out: &mut Vec<Effect>) {
        if self.phase == Phase::New {
            self.phase = Phase::Forking;
            out.push(Effect::Fork);
        }
    }

    pub(super) fn on_forked(&mut self, now: Now, started: Box<Started>, out: &mut Vec<Effect>) {
        if self.phase != Phase::Forking {
            return;
        }
        self.phase = Phase::Running { since_ms: now.boot_ms, output_ms: now.boot_ms };
        if planted!(GateBeforeStarted) {
            out.push(Effect::OpenGate);
        }
        out.push(Effect::Persist(vec![Record::Started(started.clone())]));
        if !planted!(GateBeforeStarted) {
            out.push(Effect::OpenGate);
        }
        self.started = Some(started);
    }

    pub(super) fn on_executed(&mut self, out: &mut Vec<Effect>) {
        if self.executed || self.exec_failed.is_some() {
            return;
        }
        if let Some(started) = &self.started {
            self.executed = true;
            out.push(Effect::Tell { to: To::All, notice: Notice::Started(started.clone()) });
        }
    }

    pub(super) fn on_exec_failed(&mut self, failure: ExecFailure, out: &mut Vec<Effect>) {
        match self.phase {
            Phase::Forking | Phase::Running { .. } | Phase::Ending(_) if !self.executed => {
                self.never_ran(failure, out);
            }
            Phase::New
            | Phase::Forking
            | Phase::Running { .. }
            | Phase::Draining
            | Phase::Settling { .. }
            | Phase::Ending(_)
            | Phase::Naming
            | Phase::Concluding
            | Phase::Sealing
            | Phase::Gone => {}
        }
    }

    /// Goes straight to the end, as no program was ever executed.
    pub(super) fn never_ran(&mut self, failure: ExecFailure, out: &mut Vec<Effect>) {
        self.exec_failed = Some(failure);
        self.exit = Some(failure.report());
        self.pipes_open = false;
        self.others = false;
        self.close_stdin();
        self.phase = Phase::Sealing;
        out.push(Effect::CloseGate);
        out.push(Effect::SealLog);
    }

    pub(super) fn on_output(&mut self, now: Now) {
        match &mut self.phase {
            Phase::Running { output_ms, .. } => *output_ms = now.boot_ms,
            Phase::New
            | Phase::Forking
            | Phase::Draining
            | Phase::Settling { .. }
            | Phase::Ending(_)
            | Phase::Naming
            | Phase::Concluding
            | Phase::Sealing
            | Phase::Gone => {}
        }
    }

    pub(super) fn on_pipes_closed(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.pipes_open = false;
        if matches!(self.phase, Phase::Settling { .. }) {
            self.settled(now, out);
        }
    }

    pub(super) fn on_children(
        &mut self,
        now: Now,
        leader: Option<LeaderExit>,
        others: bool,
        out: &mut Vec<Effect>,
    ) {
        if matches!(self.phase, Phase::New | Phase::Forking | Phase::Sealing | Phase::Gone) {
            return;
        }
        self.others = others;
        let exited = self.leader.is_none() && leader.is_some();
        if exited {
            self.leader = leader;
            self.on_executed(out);
            self.close_stdin();
            out.push(Effect::CloseInput);
        }
        match &self.phase {
            Phase::Running { .. } if exited => {
                self.phase = Phase::Draining;
                if planted!(OutcomeBeforeOutput) {
                    self.exit = Some(self.report(now));
                    self.record_exit(out);
                }
                out.push(Effect::Drain);
            }
            Phase::Settling { .. } if !others && !self.pipes_open => self.settled(now, out),
            Phase::Ending(_) => self.climb(now, exited, out),
            Phase::New
            | Phase::Forking
            | Phase::Running { .. }
            | Phase::Draining
            | Phase::Settling { .. }
            | Phase::Naming
            | Phase::Concluding
            | Phase::Sealing
            | Phase::Gone => {}
        }
    }

    /// Says whether nothing of the tree lives.
    pub(super) fn tree_is_dead(&self) -> bool {
        self.leader.is_some() && (planted!(LeaderTakenForTree) || !self.others)
    }

    pub(super) fn on_drained(&mut self, now: Now, open: bool, logged: bool, out: &mut Vec<Effect>) {
        let natural = match self.phase {
            Phase::Draining => true,
            Phase::Concluding => false,
            Phase::New
            | Phase::Forking
            | Phase::Running { .. }
            | Phase::Settling { .. }
            | Phase::Ending(_)
            | Phase::Naming
            | Phase::Sealing
            | Phase::Gone => return,
        };
        self.pipes_open = open;
        self.exit = self.exit.take().or_else(|| Some(self.report(now)));
        let lingers = natural && (self.others || open);
        self.phase = if lingers {
            let wait_ms = if open { HELD_PIPES_MS } else { 0 };
            Phase::Settling { until_ms: now.boot_ms.saturating_add(wait_ms) }
        } else {
            Phase::Sealing
        };
        // One sync for exit and end where nothing lies between.
        if lingers || logged {
            self.record_exit(out);
        }
        if !lingers {
            out.push(Effect::SealLog);
        }
    }

    /// Makes the outcome durable and tells hosts, if that was not done and the command's end was seen.
    fn record_exit(&mut self, out: &mut Vec<Effect>) {
        if self.exit_told {
            return;
        }
        if let (Some(record), Some(report)) = (self.exited_record(), &self.exit) {
            out.push(Effect::Persist(vec![record]));
            out.push(Effect::Tell { to: To::All, notice: Notice::Exited(report.clone()) });
            self.exit_told = true;
        }
    }

    fn exited_record(&self) -> Option<Record> {
        let (leader, report) = (self.leader?, self.exit.clone()?);
        Some(Record::Exited(Box::new(Exited {
            wait_status: leader.wait_status,
            after_our_signal: self.after_our_signal,
            report,
        })))
    }

    /// Returns how the execution ended, now that all there is to know is known.
    fn report(&self, now: Now) -> ExitReport {
        let exit = self.leader.map(|leader| Exit::from_wait_status(leader.wait_status));
        let ours = self.stopping.filter(|_| self.after_our_signal || exit.is_none());
        let outcome = match (ours, exit) {
            (Some(cause), _) => cause.outcome(),
            (None, Some(Exit::Code(code))) => Outcome::Exited { code },
            (None, Some(Exit::Signal(signal))) => Outcome::Signaled { signal },
            // Only a stop gives up a leader that was not seen to exit.
            (None, None) => Outcome::Lost { reason: crate::outcome::Lost::SupervisorDied },
        };
        ExitReport {
            outcome,
            exit,
            at: self.leader.map_or(now.wall, |leader| leader.at),
            usage: self.leader.map_or_else(ResourceUse::default, |leader| leader.usage),
            out_of_memory: self.leader.is_some_and(|leader| leader.out_of_memory),
        }
    }

    /// Goes on after a natural exit: the pipes are closed, or were waited for long enough.
    fn settled(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.tree_is_dead() {
            self.conclude(out);
            return;
        }
        match self.config.leftovers {
            Leftovers::Stop => {
                let grace_ms = self.stop_grace_ms.unwrap_or(self.config.grace_ms);
                self.phase = Phase::Ending(Ladder::new(grace_ms, 0));
                self.climb(now, false, out);
            }
            Leftovers::Leave => {
                self.phase = Phase::Naming;
                out.push(Effect::NameSurvivors { reason: SurvivorReason::Left });
            }
        }
    }

    pub(super) fn on_survivors(&mut self, named: Vec<Survivor>, more: u32, out: &mut Vec<Effect>) {
        if self.phase == Phase::Naming {
            self.survivors = (named, more);
            self.conclude(out);
        }
    }

    /// Reads what the pipes hold for the last time.
    pub(super) fn conclude(&mut self, out: &mut Vec<Effect>) {
        self.phase = Phase::Concluding;
        out.push(Effect::Drain);
    }

    pub(super) fn on_log_sealed(&mut self, now: Now, totals: LogTotals, out: &mut Vec<Effect>) {
        if self.phase != Phase::Sealing {
            return;
        }
        let exit = self.exit.clone().unwrap_or_else(|| self.report(now));
        let (survivors, more_survivors) = std::mem::take(&mut self.survivors);
        let report = Box::new(FinalReport {
            exit: exit.clone(),
            last_seq: totals.last_seq,
            bytes: totals.bytes,
            dropped_bytes: totals.dropped_bytes,
            output_incomplete: self.pipes_open || totals.tail_missing,
            survivors,
            more_survivors,
        });
        let mut records = Vec::new();
        if let Some(failure) = self.exec_failed {
            records.push(Record::ExecFailed(failure));
        } else if !self.exit_told {
            records.extend(self.exited_record());
        }
        records.push(Record::Final(report.clone()));
        out.push(Effect::Persist(records));
        if let Some(failure) = self.exec_failed {
            out.push(Effect::Tell { to: To::All, notice: Notice::ExecFailed(failure) });
        } else if !self.exit_told {
            out.push(Effect::Tell { to: To::All, notice: Notice::Exited(exit) });
        }
        out.push(Effect::Tell { to: To::All, notice: Notice::Final(report.clone()) });
        out.push(Effect::Leave);
        self.exit_told = true;
        self.finished = Some(report);
        self.phase = Phase::Gone;
    }

    pub(super) fn on_persist_failed(&mut self, now: Now, errno: u32, out: &mut Vec<Effect>) {
        match self.phase {
            // `Started` is in doubt and the gate closed: the command never runs.
            Phase::Running { .. } => {
                let (step, reason) = (ExecStep::Record, NotStarted::SpawnFailed);
                self.started = None;
                self.never_ran(ExecFailure { step, errno, reason, at: now.wall }, out);
            }
            // `Stopping` is in doubt: ending it matters more than the record of why.
            Phase::Ending(_) => out.push(Effect::Look),
            // `Exited` is in doubt: nobody was told, and it is written again with the end.
            Phase::Settling { .. } => self.exit_told = false,
            Phase::Sealing => {
                self.exit_told = false;
                out.push(Effect::SealLog);
            }
            // `Final` is in doubt: the journal is left as it is, for a host to read.
            Phase::Gone => {
                self.exit_told = false;
                self.finished = None;
                out.push(Effect::Leave);
            }
            Phase::New | Phase::Forking | Phase::Draining | Phase::Naming | Phase::Concluding => {}
        }
    }

    pub(super) fn on_woke(&mut self, now: Now, out: &mut Vec<Effect>) {
        match &self.phase {
            Phase::Running { since_ms, output_ms } => {
                let late = |from: u64, ms: Option<u64>| {
                    ms.is_some_and(|ms| now.boot_ms >= from.saturating_add(ms))
                };
                let limit = if late(*since_ms, self.config.total_ms) {
                    Deadline::Total
                } else if late(*output_ms, self.config.idle_ms) {
                    Deadline::Idle
                } else {
                    return;
                };
                self.begin_stop(now, EndCause::TimedOut { limit }, self.config.grace_ms, 0, out);
            }
            Phase::Settling { until_ms } if now.boot_ms >= *until_ms => self.settled(now, out),
            Phase::Ending(_) => self.climb(now, false, out),
            Phase::New
            | Phase::Forking
            | Phase::Draining
            | Phase::Settling { .. }
            | Phase::Naming
            | Phase::Concluding
            | Phase::Sealing
            | Phase::Gone => {}
        }
    }
}
