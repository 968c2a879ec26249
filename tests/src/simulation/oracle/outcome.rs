//! How executions end: S6, S7, S8.

use windlass_core::container_service::StopCause;
use windlass_core::id::ExecutionId;
use windlass_core::outcome::{Deadline, Exit, Lost, NotStarted, Outcome};
use windlass_core::process_store::{Kind, Write};
use windlass_core::record::{AttemptStatus, ExecutionRecord, Phase};
use windlass_fakes::world::{Signaller, StartId};

use super::super::event::{Event, What};
use super::super::plan::{Blow, Intervention, Verb};
use super::super::view::{Start, Value, View};
use super::{Oracle, Violation};

/// Calls `each` for every execution of a batch, with what it was before.
fn executions<'a>(
    event: &Event,
    view: &'a View<'_>,
    mut each: impl FnMut(Option<&'a ExecutionRecord>, &'a ExecutionRecord) -> Result<(), Violation>,
) -> Result<(), Violation> {
    let What::Committed { writes, .. } = &event.what else { return Ok(()) };
    for write in writes.iter() {
        if let Write::Put { record, .. } = write
            && record.key.kind == Kind::Execution
            && let Some(kept) = view.store.get(record.key)
            && let Value::Execution(now) = &kept.value
        {
            let before = match &kept.before {
                Some(Value::Execution(before)) => Some(&**before),
                _ => None,
            };
            each(before, now)?;
        }
    }
    Ok(())
}

/// Returns the start of an execution whose program was executed.
fn ran<'a>(view: &'a View<'_>, id: ExecutionId) -> Option<(StartId, &'a Start)> {
    view.kernel.starts_of(id).find(|(_, start)| start.leader.is_some())
}

/// Returns how the process of an execution ended whose program was never executed: nothing is told of one behind the gate
/// but the signals that it gets.
fn behind_the_gate(id: ExecutionId, view: &View<'_>) -> Option<Exit> {
    let mut signals = view.kernel.starts_of(id).flat_map(|(_, start)| &start.signals);
    signals.next().map(|(_, signal, _)| Exit::Signal(*signal))
}

/// S6: the recorded outcome is what the kernel saw.
#[derive(Debug, Default)]
pub(super) struct True;

impl True {
    /// Says what is wrong with an outcome, if anything is.
    fn wrong(record: &ExecutionRecord, outcome: Outcome, view: &View<'_>) -> Option<String> {
        let start = ran(view, record.id).map(|(_, start)| start);
        let exit = match start {
            Some(start) => start.exit,
            None => behind_the_gate(record.id, view),
        };
        let saw = |what: &str| Some(format!("{what}; the kernel saw {exit:?}"));
        if record.exit.is_some() && record.exit != exit {
            return saw(&format!("its exit is recorded as {:?}", record.exit));
        }
        match outcome {
            Outcome::Exited { code } if exit != Some(Exit::Code(code)) => {
                saw(&format!("it is recorded as exited with {code}"))
            }
            Outcome::Signaled { signal } if exit != Some(Exit::Signal(signal)) => {
                saw(&format!("it is recorded as died from signal {signal}"))
            }
            Outcome::Signaled { signal } => {
                let start = start?;
                let leader = start.leader?;
                let ours = start.signals.iter().any(|(process, sent, by)| {
                    *process == leader && *sent == signal && matches!(by, Signaller::Shim(_))
                });
                ours.then(|| "it is recorded as died from a signal that we sent".to_owned())
            }
            Outcome::TimedOut { limit } => Self::wrong_deadline(record, limit, start),
            Outcome::Stopped { .. } => {
                let asked = record.stop.is_some_and(|s| matches!(s.cause, StopCause::Stop { .. }));
                (start.is_some() && !asked)
                    .then(|| "it is recorded as stopped, and nobody stopped it".to_owned())
            }
            Outcome::Completed { .. } => {
                let asked =
                    record.stop.is_some_and(|s| matches!(s.cause, StopCause::Complete { .. }));
                (!asked).then(|| "it is recorded as completed, and nobody said so".to_owned())
            }
            Outcome::NotStarted { .. } if start.is_some() => {
                Some("it is recorded as not started, and it ran".to_owned())
            }
            Outcome::NotStarted { reason } => {
                let known = matches!(
                    reason,
                    NotStarted::ProgramNotFound
                        | NotStarted::NotExecutable
                        | NotStarted::DirectoryGone
                );
                let seen = view.kernel.starts_of(record.id).find_map(|(_, s)| s.not_started);
                (known && seen != Some(reason))
                    .then(|| format!("it is recorded as {reason:?}; the kernel saw {seen:?}"))
            }
            Outcome::Exited { .. } | Outcome::Lost { .. } => None,
        }
    }

    fn wrong_deadline(
        record: &ExecutionRecord,
        limit: Deadline,
        start: Option<&Start>,
    ) -> Option<String> {
        let limits = &record.options.limits;
        let ms = match limit {
            Deadline::Total => limits.total_ms,
            Deadline::Idle => limits.idle_ms,
        };
        let Some(ms) = ms else {
            return Some("it is recorded as timed out, and has no such limit".to_owned());
        };
        let start = start?;
        let (from, to) = (start.gate_at?, start.exited_at?);
        (to.ms_since(from) < ms).then(|| {
            let took = to.ms_since(from);
            format!("it is recorded as timed out after {ms} ms and ran {took} ms")
        })
    }
}

/// How much later than its deadline a command may end, beside what it was given to end by itself, in milliseconds.
const LATE_MS: u64 = 1_000;

/// Says whether a command ran on after its total deadline although its shim was there to see to it.
fn ran_over(record: &ExecutionRecord, view: &View<'_>) -> Option<String> {
    let (_, start) = ran(view, record.id)?;
    let stopped = |of: &Intervention| matches!(of.what, Blow::StopShim { .. });
    if start.shim_killed || start.lost_power || view.plan.interventions.iter().any(stopped) {
        return None;
    }
    let ms = record.options.limits.total_ms?;
    let graces = view.plan.requests.iter().filter_map(|request| match request.verb {
        Verb::Stop { grace_ms, .. } => grace_ms,
        _ => None,
    });
    let grace_ms = graces.chain([view.plan.settings.stop_grace_ms]).max()?;
    let took = start.exited_at?.ms_since(start.gate_at?);
    let most = ms.saturating_add(grace_ms).saturating_add(LATE_MS);
    (took > most).then(|| format!("it ran {took} ms, and its deadline is {ms} ms"))
}

impl Oracle for True {
    fn name(&self) -> &'static str {
        "S6 true outcome"
    }

    fn check(&mut self, event: &Event, view: &View<'_>) -> Result<(), Violation> {
        executions(event, view, |before, now| {
            if before.is_some_and(|before| before.outcome.is_some()) {
                return Ok(());
            }
            let wrong = now.outcome.and_then(|outcome| Self::wrong(now, outcome, view));
            let wrong = wrong.or_else(|| now.outcome.and_then(|_| ran_over(now, view)));
            wrong.map_or(Ok(()), |wrong| Err(Violation::new("S6 true outcome", wrong)))
        })
    }

    fn end(&mut self, _: &View<'_>) -> Result<(), Violation> {
        Ok(())
    }
}

/// S7: an execution is lost only if nobody could have known how it ended.
#[derive(Debug, Default)]
pub(super) struct RightlyLost;

impl Oracle for RightlyLost {
    fn name(&self) -> &'static str {
        "S7 rightly lost"
    }

    fn check(&mut self, event: &Event, view: &View<'_>) -> Result<(), Violation> {
        executions(event, view, |before, now| {
            let Some(Outcome::Lost { reason }) = now.outcome else { return Ok(()) };
            if before.is_some_and(|before| before.outcome.is_some()) {
                return Ok(());
            }
            let wrong = |what: &str| Err(Violation::new("S7 rightly lost", what));
            let nonce = now.place.as_ref().map(|place| place.nonce);
            let start = view.kernel.starts_of(now.id).find(|(id, _)| Some(id.nonce) == nonce);
            let Some((_, start)) = start else {
                return match view.kernel.power_losses() {
                    0 => wrong("it is recorded as lost, and no shim was ever started for it"),
                    _ => Ok(()),
                };
            };
            if start.outcome_is_durable() {
                return wrong("it is recorded as lost, and its journal holds the outcome");
            }
            let excused = match reason {
                Lost::MachineRestarted => start.lost_power,
                Lost::SupervisorDied | Lost::EvidenceDamaged => {
                    start.shim_killed || start.lost_power
                }
            };
            if excused { Ok(()) } else { wrong("it is recorded as lost, and its shim did not die") }
        })
    }

    fn end(&mut self, _: &View<'_>) -> Result<(), Violation> {
        Ok(())
    }
}

/// S8: one end, for ever, and only allowed transitions.
#[derive(Debug, Default)]
pub(super) struct OneEnd;

impl OneEnd {
    fn attempts(&self, event: &Event, view: &View<'_>) -> Result<(), Violation> {
        let What::Committed { writes, .. } = &event.what else { return Ok(()) };
        for write in writes.iter().filter(|write| write.key().kind == Kind::Attempt) {
            let Some(kept) = view.store.get(write.key()) else { continue };
            let Value::Attempt(now) = &kept.value else { continue };
            let wrong = |what: String| {
                Err(Violation::new(self.name(), format!("attempt {}: {what}", now.title)))
            };
            if now.claim.is_some() != (now.status == AttemptStatus::Removing) {
                return wrong("its claim and its status do not fit".to_owned());
            }
            let Some(Value::Attempt(before)) = &kept.before else { continue };
            if !may_become(before.status, now.status) {
                let (from, to) = (before.status.as_str(), now.status.as_str());
                return wrong(format!("it goes from {from} to {to}"));
            }
            let ended =
                |id| view.store.execution(id).is_none_or(|record| record.phase == Phase::Final);
            if let Some(chain) = before.chain
                && now.chain != before.chain
                && !ended(chain)
            {
                return wrong("its chain goes on before the execution is final".to_owned());
            }
        }
        Ok(())
    }
}

/// Says whether an attempt may go from one status to another.
fn may_become(from: AttemptStatus, to: AttemptStatus) -> bool {
    use AttemptStatus as S;
    if from == to {
        return true;
    }
    match from {
        S::Removed => to == S::Creating,
        S::Failed => matches!(to, S::Removing | S::Removed),
        S::Creating => !matches!(to, S::Committing | S::Parked),
        S::Ready | S::Running | S::Committing | S::Held | S::Parked | S::Finished => {
            !matches!(to, S::Creating | S::Failed)
        }
        S::Removing => !matches!(to, S::Committing),
    }
}

impl Oracle for OneEnd {
    fn name(&self) -> &'static str {
        "S8 one end"
    }

    fn check(&mut self, event: &Event, view: &View<'_>) -> Result<(), Violation> {
        executions(event, view, |before, now| {
            let Some(before) = before else { return Ok(()) };
            let name = now.client_key.as_deref().unwrap_or("a git step");
            let wrong =
                |what: &str| Err(Violation::new("S8 one end", format!("execution {name}: {what}")));
            if now.phase < before.phase {
                return wrong("its phase goes back");
            }
            if before.outcome.is_some() && now.outcome != before.outcome {
                return wrong("its outcome changes");
            }
            if before.outcome.is_some() && now.exit != before.exit {
                return wrong("what the kernel saw changes");
            }
            if (now.phase >= Phase::Ended) != now.outcome.is_some() {
                return wrong("its phase and its outcome do not fit");
            }
            Ok(())
        })?;
        self.attempts(event, view)
    }

    fn end(&mut self, _: &View<'_>) -> Result<(), Violation> {
        Ok(())
    }
}
