//! Chains: S26.

use std::collections::{BTreeMap, BTreeSet};

use windlass_core::action::RunReason;
use windlass_core::id::{AttemptId, ExecutionId};
use windlass_core::outcome::Outcome;
use windlass_core::process_store::{Kind, Write};
use windlass_core::record::{ExecutionRecord, Phase};

use super::super::event::{Answer, Ask, Event, What};
use super::super::plan::{Request, Verb};
use super::super::view::{Value, View};
use super::{Oracle, Violation};

/// S26: of a chain one comes after the other, if that ended well and nobody stopped any of them.
#[derive(Debug, Default)]
pub(super) struct Chains {
    /// What was told of a request by its name.
    led_to: BTreeMap<String, (AttemptId, ExecutionId)>,
    /// What there was when a stop was asked for.
    there: BTreeMap<Ask, BTreeSet<ExecutionId>>,
    /// What was stopped, with the event of the answer.
    bound: BTreeMap<ExecutionId, u64>,
}

fn in_chain(record: &ExecutionRecord) -> bool {
    matches!(record.action.run_reason, RunReason::Setup | RunReason::Agent | RunReason::Cleanup)
}

/// Finds what an execution comes after.
fn before<'a>(record: &ExecutionRecord, view: &'a View<'_>) -> Option<&'a ExecutionRecord> {
    let mut others = view.store.executions_of(record.attempt);
    others.find(|other| other.followed_by == Some(record.id)).map(|other| &**other)
}

impl Chains {
    fn wrong(record: &ExecutionRecord, what: &str) -> Violation {
        let name = record.client_key.as_deref().unwrap_or("without a key");
        let reason = record.action.run_reason;
        Violation::new("S26 chain step by step", format!("{reason:?} of {name}: {what}"))
    }

    fn stopped(&mut self, ask: Ask, request: &Request, event: u64, view: &View<'_>) {
        let there = self.there.remove(&ask).unwrap_or_default();
        let (of, whole) = match &request.verb {
            Verb::Stop { of, .. } => (of, false),
            Verb::StopAttempt { of } => (of, true),
            _ => return,
        };
        let Some((attempt, execution)) = self.led_to.get(of).copied() else { return };
        for record in view.store.executions_of(attempt).filter(|record| in_chain(record)) {
            if there.contains(&record.id) && (whole || record.id == execution) {
                self.bound.entry(record.id).or_insert(event);
            }
        }
    }

    /// Looks at an execution that is recorded for the first time.
    fn begins(&self, record: &ExecutionRecord, view: &View<'_>) -> Result<(), Violation> {
        let Some(former) = before(record, view) else { return Ok(()) };
        let wrong = |what: &str| Err(Self::wrong(record, what));
        let well =
            matches!(former.outcome, Some(Outcome::Exited { code: 0 } | Outcome::Completed { .. }));
        if former.phase != Phase::Final || !well {
            return wrong("it begins, and what it follows has not ended well");
        }
        let order = matches!(
            (former.action.run_reason, record.action.run_reason),
            (RunReason::Setup, RunReason::Agent) | (RunReason::Agent, RunReason::Cleanup)
        );
        if !order {
            return wrong("it does not belong behind what it follows");
        }
        let worked = former.committed.is_some() || former.after_head != former.before_head;
        if record.action.run_reason == RunReason::Cleanup && !worked {
            return wrong("there is nothing to tidy up");
        }
        let mut earlier = Some(former);
        while let Some(one) = earlier {
            if let Some(stop) = self.bound.get(&one.id) {
                return Err(Self::wrong(record, "its chain was stopped").because([*stop]));
            }
            earlier = before(one, view);
        }
        Ok(())
    }

    fn written(
        &self,
        former: Option<&ExecutionRecord>,
        now: &ExecutionRecord,
        view: &View<'_>,
    ) -> Result<(), Violation> {
        let wrong = |what: &str| Err(Self::wrong(now, what));
        let Some(former) = former else {
            return if in_chain(now) { self.begins(now, view) } else { Ok(()) };
        };
        if former.followed_by.is_some() && now.followed_by != former.followed_by {
            return wrong("it is followed by another one");
        }
        if now.followed_by.is_some_and(|id| view.store.execution(id).is_none()) {
            return wrong("what follows it is not durable");
        }
        if former.superseded_by.is_some() && now.superseded_by != former.superseded_by {
            return wrong("it is superseded by another one");
        }
        if former.superseded_by != now.superseded_by {
            let by = now.superseded_by.and_then(|id| view.store.execution(id));
            if by.is_none_or(|by| by.attempt != now.attempt) {
                return wrong("what supersedes it is not durable");
            }
            if now.phase != Phase::Final {
                return wrong("it is superseded before it is over");
            }
        }
        Ok(())
    }
}

impl Oracle for Chains {
    fn name(&self) -> &'static str {
        "S26 chain step by step"
    }

    fn check(&mut self, event: &Event, view: &View<'_>) -> Result<(), Violation> {
        match &event.what {
            What::Asked { ask, request, .. } => {
                if matches!(request.verb, Verb::Stop { .. } | Verb::StopAttempt { .. }) {
                    let there = view.store.executions().map(|record| record.id).collect();
                    self.there.insert(*ask, there);
                }
            }
            What::Answered { request, answer: Answer::Accepted(accepted), .. } => {
                let led_to = (accepted.attempt, accepted.execution);
                self.led_to.insert(request.name.clone(), led_to);
            }
            What::Answered { ask, request, answer: Answer::Done } => {
                self.stopped(*ask, request, event.number, view);
            }
            What::Committed { writes, .. } => {
                for write in writes.iter() {
                    let Write::Put { record, .. } = write else { continue };
                    if record.key.kind != Kind::Execution {
                        continue;
                    }
                    let Some(kept) = view.store.get(record.key) else { continue };
                    let Value::Execution(now) = &kept.value else { continue };
                    let former = match &kept.before {
                        Some(Value::Execution(former)) => Some(&**former),
                        _ => None,
                    };
                    self.written(former, now, view)?;
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
