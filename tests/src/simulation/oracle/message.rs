//! Messages for attempts: S25.

use std::collections::{BTreeMap, BTreeSet};

use windlass_core::id::{AttemptId, FollowUpId};
use windlass_core::locator::OsBytes;
use windlass_core::log_store::Stream;
use windlass_core::outcome::Outcome;
use windlass_core::process_store::{Kind, Write};
use windlass_core::record::{AttemptStatus, ExecutionRecord, FollowUpRecord, FollowUpState};

use super::super::event::{Answer, Ask, Event, What};
use super::super::plan::{Request, Verb};
use super::super::view::{Value, View};
use super::{Oracle, Violation};

/// S25: a message that was taken waits, was taken back, or has started one execution that got its text; they start in
/// their order, and none after a stop.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// What was told of a request by its name: the attempt.
    led_to: BTreeMap<String, AttemptId>,
    /// Questions that let messages flow and are not answered yet.
    flowing: BTreeMap<Ask, AttemptId>,
    /// Messages that waited when a stop of their attempt was asked for.
    waited: BTreeMap<Ask, (AttemptId, BTreeSet<FollowUpId>)>,
    /// Messages that wait since a stop was accepted, with its event.
    held: BTreeMap<FollowUpId, (AttemptId, u64)>,
}

impl Messages {
    fn wrong(record: &FollowUpRecord, what: &str) -> Violation {
        let name = record.client_key.as_deref().unwrap_or("without a key");
        Violation::new("S25 a message starts one execution", format!("message {name}: {what}"))
    }

    fn asked(&mut self, ask: Ask, request: &Request, view: &View<'_>) {
        let Some(attempt) = request.verb.of().and_then(|of| self.led_to.get(of)).copied() else {
            return;
        };
        match &request.verb {
            Verb::Hold { held: false, .. } | Verb::Send { .. } | Verb::Retry { .. } => {
                self.flowing.insert(ask, attempt);
                self.held.retain(|_, (of, _)| *of != attempt);
                self.waited.retain(|_, (of, _)| *of != attempt);
            }
            Verb::StopAttempt { .. } if !self.flowing.values().any(|of| *of == attempt) => {
                let waits = |record: &&std::sync::Arc<FollowUpRecord>| {
                    record.attempt == attempt && record.state.waits()
                };
                let waiting = view.store.follow_ups().filter(waits).map(|record| record.id);
                self.waited.insert(ask, (attempt, waiting.collect()));
            }
            _ => {}
        }
    }

    fn answered(
        &mut self,
        ask: Ask,
        request: &Request,
        answer: &Answer,
        event: u64,
        view: &View<'_>,
    ) -> Result<(), Violation> {
        if let Answer::Accepted(accepted) = answer {
            self.led_to.insert(request.name.clone(), accepted.attempt);
        }
        if answer.is_definite() {
            self.flowing.remove(&ask);
        }
        if let (Some((attempt, waited)), Answer::Done) = (self.waited.remove(&ask), answer) {
            let state = |id: &FollowUpId| {
                view.store.follow_ups().find(|record| record.id == *id).map(|record| record.state)
            };
            let still = waited.into_iter().filter(|id| state(id).is_some_and(FollowUpState::waits));
            self.held.extend(still.map(|id| (id, (attempt, event))));
        }
        if let (Verb::Send { .. }, Answer::Done) = (&request.verb, answer) {
            let mut all = view.store.follow_ups();
            let is_it = |record: &FollowUpRecord| {
                record.client_key.as_deref() == Some(&request.name) && record.owner == request.owner
            };
            if !all.any(|record| is_it(record)) {
                let what = format!("message {} was accepted and is not durable", request.name);
                return Err(Violation::new(self.name(), what));
            }
        }
        Ok(())
    }

    /// Looks at a message that was written.
    fn written(
        &self,
        before: Option<&FollowUpRecord>,
        now: &FollowUpRecord,
        view: &View<'_>,
    ) -> Result<(), Violation> {
        let wrong = |what: &str| Err(Self::wrong(now, what));
        let was = before.map(|record| record.state);
        if was == Some(FollowUpState::Cancelled) && now.state != FollowUpState::Cancelled {
            return wrong("it was taken back, and is there again");
        }
        let left =
            before.and_then(|record| record.execution).filter(|id| now.execution != Some(*id));
        if let Some(left) = left {
            let ran = view.kernel.starts_of(left).any(|(_, start)| start.leader.is_some());
            let never = view.store.execution(left).is_some_and(|record| {
                matches!(record.outcome, Some(Outcome::NotStarted { .. } | Outcome::Stopped { .. }))
            });
            if ran || !never {
                return wrong("it is given back, and its execution began");
            }
            if now.execution.is_some() {
                return wrong("it goes from one execution to another");
            }
        }
        if now.state != FollowUpState::Consumed {
            return if now.execution.is_some() {
                wrong("it waits, and has an execution")
            } else {
                Ok(())
            };
        }
        let execution = now.execution.and_then(|id| view.store.execution(id));
        let Some(execution) = execution.filter(|record| record.attempt == now.attempt) else {
            return wrong("it is consumed by nothing that is durable");
        };
        if execution.text.as_ref() != Some(&now.text) {
            return wrong("its execution has another text");
        }
        let same = |other: &FollowUpRecord| other.id != now.id && other.execution == now.execution;
        if view.store.follow_ups().any(|other| same(other)) {
            return wrong("its execution is another message's, too");
        }
        if was == Some(FollowUpState::Consumed) {
            return Ok(());
        }
        let overtaken = |other: &FollowUpRecord| {
            other.attempt == now.attempt && other.position < now.position && other.state.waits()
        };
        if view.store.follow_ups().any(|other| overtaken(other)) {
            return wrong("it overtakes one that waits");
        }
        match self.held.get(&now.id) {
            None => Ok(()),
            Some((_, stop)) => {
                let what = "it starts after a stop, and nobody let it";
                Err(Self::wrong(now, what).because([*stop]))
            }
        }
    }

    /// What an execution that copies its input wrote is what it was to read.
    fn was_read(record: &ExecutionRecord, view: &View<'_>) -> bool {
        let Some(text) = &record.text else { return true };
        let copies = record.action.kind.argv() == [OsBytes::from("echo-stdin")];
        if !copies
            || record.outcome != Some(Outcome::Exited { code: 0 })
            || record.output_incomplete
        {
            return true;
        }
        let Some((_, start)) =
            view.kernel.starts_of(record.id).find(|(_, start)| start.leader.is_some())
        else {
            return true;
        };
        let out = start.output.iter().filter(|(stream, _)| *stream == Stream::Stdout);
        let out: Vec<u8> = out.flat_map(|(_, bytes)| bytes.iter().copied()).collect();
        let mut meant = b"ready".to_vec();
        meant.extend_from_slice(text.as_bytes());
        meant.push(b'\n');
        out == meant
    }
}

impl Oracle for Messages {
    fn name(&self) -> &'static str {
        "S25 a message starts one execution"
    }

    fn check(&mut self, event: &Event, view: &View<'_>) -> Result<(), Violation> {
        match &event.what {
            What::Asked { ask, request, .. } => self.asked(*ask, request, view),
            What::Answered { ask, request, answer } => {
                self.answered(*ask, request, answer, event.number, view)?;
            }
            What::Committed { writes, .. } => {
                for write in writes.iter() {
                    let Write::Put { record, .. } = write else { continue };
                    if !matches!(record.key.kind, Kind::FollowUp | Kind::Attempt) {
                        continue;
                    }
                    let Some(kept) = view.store.get(record.key) else { continue };
                    match (&kept.value, &kept.before) {
                        (Value::FollowUp(now), Some(Value::FollowUp(before))) => {
                            self.written(Some(before), now, view)?;
                        }
                        (Value::FollowUp(now), _) => self.written(None, now, view)?,
                        (Value::Attempt(now), _) => {
                            let waits = |one: &&std::sync::Arc<FollowUpRecord>| {
                                one.attempt == now.id && one.state.waits()
                            };
                            let waiting = view.store.follow_ups().filter(waits).count();
                            if usize::try_from(now.queue).ok() != Some(waiting) {
                                let what = format!(
                                    "{waiting} messages wait for {}, and it counts {}",
                                    now.title, now.queue
                                );
                                return Err(Violation::new(self.name(), what));
                            }
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, view: &View<'_>) -> Result<(), Violation> {
        for attempt in view.store.attempts() {
            let at_rest = matches!(
                attempt.status,
                AttemptStatus::Ready
                    | AttemptStatus::Held
                    | AttemptStatus::Parked
                    | AttemptStatus::Finished
            );
            if at_rest && attempt.queue > 0 && attempt.queue_held.is_none() {
                let what =
                    format!("messages wait for {}, and nothing speaks against them", attempt.title);
                return Err(Violation::new(self.name(), what));
            }
        }
        match view.store.executions().find(|record| !Self::was_read(record, view)) {
            None => Ok(()),
            Some(record) => {
                let name = record.client_key.as_deref().unwrap_or_default();
                let what = format!("the command of message {name} did not read its text once");
                Err(Violation::new(self.name(), what))
            }
        }
    }
}
