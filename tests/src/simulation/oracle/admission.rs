//! What was admitted: S1, S2, S21.

use std::collections::{BTreeMap, BTreeSet};

use windlass_core::action::RunReason;
use windlass_core::id::{AttemptId, ExecutionId};
use windlass_core::process_store::{Kind, Write};
use windlass_core::record::{ExecutionRecord, request_id};
use windlass_fakes::world::Happened;

use super::super::event::{Answer, Event, What};
use super::super::view::View;
use super::{Oracle, Violation};

/// S1: what a client was told to be admitted is durable.
#[derive(Debug, Default)]
pub(super) struct Acknowledged;

impl Oracle for Acknowledged {
    fn name(&self) -> &'static str {
        "S1 acknowledged is durable"
    }

    fn check(&mut self, event: &Event, view: &View<'_>) -> Result<(), Violation> {
        let What::Answered {
            request,
            answer: Answer::Accepted(accepted) | Answer::Trying(accepted),
            ..
        } = &event.what
        else {
            return Ok(());
        };
        let name = &request.name;
        let lacks = |what: &str| {
            Err(Violation::new(self.name(), format!("{name} was accepted, and {what}")))
        };
        let Some(execution) = view.store.execution(accepted.execution) else {
            return lacks("no record of its execution is durable");
        };
        if execution.attempt != accepted.attempt || view.store.attempt(accepted.attempt).is_none() {
            return lacks("no record of its attempt is durable");
        }
        let id = request_id(request.owner.as_deref(), name);
        let known = view.store.requests().any(|record| {
            record.execution == accepted.execution
                && request_id(record.owner.as_deref(), &record.client_key) == id
        });
        if known { Ok(()) } else { lacks("its key is not durable") }
    }

    fn end(&mut self, _: &View<'_>) -> Result<(), Violation> {
        Ok(())
    }
}

/// Says whether an execution has the key of another one because it goes on with what that was asked for: it follows it in its
/// chain, or is about the same message, which was given back.
fn is_of_the_same(record: &ExecutionRecord, view: &View<'_>) -> bool {
    let follows = |other: &ExecutionRecord| other.followed_by == Some(record.id);
    let never_ran = |other: &ExecutionRecord| {
        let key = (&other.client_key, &other.owner) == (&record.client_key, &record.owner);
        let ran = view.kernel.starts_of(other.id).any(|(_, start)| start.leader.is_some());
        key && other.id != record.id && other.text.is_some() && !ran
    };
    let mut others = view.store.executions_of(record.attempt);
    others.any(|other| follows(other) || (record.text.is_some() && never_ran(other)))
}

/// S2: the same client key gives the same execution.
#[derive(Debug, Default)]
pub(super) struct SameKey {
    told: BTreeMap<(Option<String>, String), (AttemptId, ExecutionId, u64)>,
    recorded: BTreeMap<(Option<String>, String), (ExecutionId, u64)>,
}

impl Oracle for SameKey {
    fn name(&self) -> &'static str {
        "S2 one key, one execution"
    }

    fn check(&mut self, event: &Event, view: &View<'_>) -> Result<(), Violation> {
        match &event.what {
            What::Answered {
                request,
                answer: Answer::Accepted(accepted) | Answer::Trying(accepted),
                ..
            } => {
                let key = (request.owner.clone(), request.name.clone());
                let new = (accepted.attempt, accepted.execution, event.number);
                let (attempt, execution, number) = *self.told.entry(key).or_insert(new);
                if (attempt, execution) != (accepted.attempt, accepted.execution) {
                    let what = format!("{} was told two executions", request.name);
                    return Err(Violation::new(self.name(), what).because([number]));
                }
            }
            What::Committed { writes, .. } => {
                for write in writes.iter().filter(|write| write.key().kind == Kind::Execution) {
                    let Write::Put { record, .. } = write else { continue };
                    let id = ExecutionId(record.key.id);
                    let Some(record) = view.store.execution(id) else { continue };
                    let Some(client_key) = record.client_key.clone() else { continue };
                    if is_of_the_same(record, view) {
                        continue;
                    }
                    let key = (record.owner.clone(), client_key);
                    let new = (id, event.number);
                    let (first, number) = *self.recorded.entry(key).or_insert(new);
                    if first != id {
                        let key = record.client_key.as_deref().unwrap_or_default();
                        let what = format!("the key {key} has led to two executions");
                        return Err(Violation::new(self.name(), what).because([number]));
                    }
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

/// S21: what runs never exceeds a limit. Limits do not change in a run, so what is adopted does not exceed them either.
#[derive(Debug, Default)]
pub(super) struct WithinLimits;

impl Oracle for WithinLimits {
    fn name(&self) -> &'static str {
        "S21 within limits"
    }

    fn check(&mut self, event: &Event, view: &View<'_>) -> Result<(), Violation> {
        let What::Happened(Happened::Started { .. }) = &event.what else { return Ok(()) };
        let mut slots = BTreeSet::new();
        let mut owners: BTreeMap<&str, BTreeSet<uuid::Uuid>> = BTreeMap::new();
        for (start, seen) in view.kernel.starts() {
            let alive = seen.leader.is_some_and(|leader| seen.living.contains(&leader));
            let Some(record) = view.store.execution(start.execution).filter(|_| alive) else {
                continue;
            };
            let slot = match record.action.run_reason {
                RunReason::Setup | RunReason::Agent | RunReason::Cleanup => record.attempt.0,
                RunReason::DevServer | RunReason::Background => record.id.0,
                // It runs in the slot of its chain, or needs none.
                RunReason::Git => continue,
            };
            slots.insert(slot);
            if let Some(owner) = &record.owner {
                owners.entry(owner).or_default().insert(slot);
            }
        }
        let settings = &view.plan.settings;
        let over = |count: usize, limit: u32| count > usize::try_from(limit).unwrap_or(usize::MAX);
        if over(slots.len(), settings.per_host) {
            let what = format!("{} run, {} may", slots.len(), settings.per_host);
            return Err(Violation::new(self.name(), what));
        }
        for (owner, slots) in owners {
            if over(slots.len(), settings.per_owner) {
                let what = format!("{} of {owner} run, {} may", slots.len(), settings.per_owner);
                return Err(Violation::new(self.name(), what));
            }
        }
        Ok(())
    }

    fn end(&mut self, _: &View<'_>) -> Result<(), Violation> {
        Ok(())
    }
}
