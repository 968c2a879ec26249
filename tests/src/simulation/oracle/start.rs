//! What is started: S3, S4, S5, S19.

use std::collections::{BTreeMap, BTreeSet};

use windlass_core::action::RunReason;
use windlass_core::id::{AttemptId, ExecutionId};
use windlass_core::outcome::Outcome;
use windlass_core::process_store::{Kind, Write};
use windlass_core::record::Phase;
use windlass_core::shim::journal::Record;
use windlass_fakes::world::Happened;

use super::super::event::{Answer, Ask, Event, What};
use super::super::plan::{Request, Verb};
use super::super::view::View;
use super::{Oracle, Violation};

/// S3: whatever starts has a durable intent that names this very start.
#[derive(Debug, Default)]
pub(super) struct Intended;

impl Oracle for Intended {
    fn name(&self) -> &'static str {
        "S3 a start has its intent"
    }

    fn check(&mut self, event: &Event, view: &View<'_>) -> Result<(), Violation> {
        let What::Happened(Happened::Started { start, .. } | Happened::ShimStarted { start, .. }) =
            &event.what
        else {
            return Ok(());
        };
        let wrong = |what: &str| Err(Violation::new(self.name(), what));
        let Some(record) = view.store.execution(start.execution) else {
            return wrong("something starts that has no durable record");
        };
        if record.place.as_ref().map(|place| place.nonce) != Some(start.nonce) {
            return wrong("something starts in a place that is not the recorded one");
        }
        match record.phase {
            Phase::Queued => return wrong("something starts that is recorded as queued"),
            Phase::Ended | Phase::Final => {
                return wrong("something starts that is recorded as ended");
            }
            Phase::Starting | Phase::Running | Phase::Stopping => {}
        }
        let journal = view.kernel.of_start(*start).map(|seen| &seen.journal);
        let noted = journal
            .is_some_and(|records| records.iter().any(|one| matches!(one, Record::Started(_))));
        if matches!(event.what, What::Happened(Happened::Started { .. })) && !noted {
            return wrong("a program runs whose start is not in its journal");
        }
        Ok(())
    }

    fn end(&mut self, _: &View<'_>) -> Result<(), Violation> {
        Ok(())
    }
}

/// S4: an execution starts at most once.
#[derive(Debug, Default)]
pub(super) struct Once {
    started: BTreeMap<ExecutionId, u64>,
}

impl Oracle for Once {
    fn name(&self) -> &'static str {
        "S4 at most one start"
    }

    fn check(&mut self, event: &Event, _: &View<'_>) -> Result<(), Violation> {
        let What::Happened(Happened::Started { start, .. }) = &event.what else { return Ok(()) };
        match self.started.insert(start.execution, event.number) {
            None => Ok(()),
            Some(first) => {
                let what = "an execution was started twice";
                Err(Violation::new(self.name(), what).because([first]))
            }
        }
    }

    fn end(&mut self, _: &View<'_>) -> Result<(), Violation> {
        Ok(())
    }
}

/// S5: nothing of a chain starts after a failure or an accepted stop.
#[derive(Debug, Default)]
pub(super) struct ChainOrder {
    /// What was told of a request that stops, by its name: the attempt or execution.
    led_to: BTreeMap<String, (AttemptId, ExecutionId)>,
    /// The executions that there were when a stop was asked for.
    there: BTreeMap<Ask, BTreeSet<ExecutionId>>,
    /// Executions that waited when a stop was accepted, with its event.
    never: BTreeMap<ExecutionId, u64>,
    /// Chain executions after which nothing of their chain may begin.
    bound: BTreeMap<ExecutionId, u64>,
    begun: BTreeSet<ExecutionId>,
}

impl ChainOrder {
    /// Binds what a stop is about.
    fn stopped(&mut self, ask: Ask, request: &Request, number: u64, view: &View<'_>) {
        let (of, whole) = match &request.verb {
            Verb::Stop { of, .. } => (of, false),
            Verb::StopAttempt { of } => (of, true),
            _ => return,
        };
        let Some((attempt, execution)) = self.led_to.get(of).copied() else { return };
        let there = self.there.remove(&ask).unwrap_or_default();
        for record in view.store.executions_of(attempt) {
            if (!whole && record.id != execution) || !there.contains(&record.id) {
                continue;
            }
            if record.phase == Phase::Queued {
                self.never.insert(record.id, number);
            }
            if record.action.run_reason == RunReason::Agent {
                self.bound.insert(record.id, number);
            }
        }
    }

    /// Looks at a git step that is recorded for the first time.
    fn begins(&self, id: ExecutionId, view: &View<'_>) -> Result<(), Violation> {
        let Some(record) = view.store.execution(id) else { return Ok(()) };
        if record.action.run_reason != RunReason::Git {
            return Ok(());
        }
        let of = view.store.attempt(record.attempt).and_then(|attempt| attempt.committing);
        let Some(of) = of else { return Ok(()) };
        if let Some(stop) = self.bound.get(&of) {
            let what = "work is committed whose execution or attempt was stopped before";
            return Err(Violation::new(self.name(), what).because([*stop]));
        }
        let well = view.store.execution(of).is_some_and(|record| {
            matches!(record.outcome, Some(Outcome::Exited { code: 0 } | Outcome::Completed { .. }))
        });
        if well {
            Ok(())
        } else {
            Err(Violation::new(self.name(), "work is committed that did not end well"))
        }
    }
}

impl Oracle for ChainOrder {
    fn name(&self) -> &'static str {
        "S5 chain order"
    }

    fn check(&mut self, event: &Event, view: &View<'_>) -> Result<(), Violation> {
        match &event.what {
            What::Answered { request, answer: Answer::Accepted(accepted), .. } => {
                let led_to = (accepted.attempt, accepted.execution);
                self.led_to.insert(request.name.clone(), led_to);
            }
            What::Asked { ask, request, .. } => {
                if matches!(request.verb, Verb::Stop { .. } | Verb::StopAttempt { .. }) {
                    let there = view.store.executions().map(|record| record.id).collect();
                    self.there.insert(*ask, there);
                }
            }
            What::Answered { ask, request, answer: Answer::Done } => {
                self.stopped(*ask, request, event.number, view);
            }
            What::Committed { writes, .. } => {
                for write in writes.iter().filter(|write| write.key().kind == Kind::Execution) {
                    let Write::Put { record, .. } = write else { continue };
                    let id = ExecutionId(record.key.id);
                    if self.begun.insert(id) {
                        self.begins(id, view)?;
                    }
                }
            }
            What::Happened(Happened::Started { start, .. }) => {
                if let Some(stop) = self.never.get(&start.execution) {
                    let what = "an execution starts that waited when its stop was accepted";
                    return Err(Violation::new(self.name(), what).because([*stop]));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, _: &View<'_>) -> Result<(), Violation> {
        Ok(())
    }
}

/// S19: at most one execution of an attempt's chain lives at a time.
#[derive(Debug, Default)]
pub(super) struct OneWriter;

impl Oracle for OneWriter {
    fn name(&self) -> &'static str {
        "S19 one writer"
    }

    fn check(&mut self, event: &Event, view: &View<'_>) -> Result<(), Violation> {
        let What::Happened(Happened::Started { start, .. }) = &event.what else { return Ok(()) };
        let in_chain = |id: ExecutionId| {
            let record = view.store.execution(id)?;
            let beside =
                matches!(record.action.run_reason, RunReason::DevServer | RunReason::Background);
            (!beside).then_some(record.attempt)
        };
        let Some(attempt) = in_chain(start.execution) else { return Ok(()) };
        for (other, seen) in view.kernel.starts() {
            let alive = seen.leader.is_some_and(|leader| seen.living.contains(&leader));
            if alive && other != *start && in_chain(other.execution) == Some(attempt) {
                let what = "two executions of one chain live at the same time";
                return Err(Violation::new(self.name(), what));
            }
        }
        Ok(())
    }

    fn end(&mut self, _: &View<'_>) -> Result<(), Violation> {
        Ok(())
    }
}
