//! What is stored: S13, S22, S23.

use std::collections::{BTreeMap, VecDeque};

use windlass_core::id::{Epoch, ExecutionId};
use windlass_core::process_store::{ChangeNumber, Expect, Write};
use windlass_core::shim::journal::Record;
use windlass_core::time::Timestamp;
use windlass_fakes::faulty::{About, Site};
use windlass_fakes::world::Happened;

use super::super::event::{Event, Life, What};
use super::super::view::{Value, View};
use super::{Oracle, Violation};

/// S13: an older epoch changes nothing.
#[derive(Debug, Default)]
pub(super) struct Fenced {
    epochs: BTreeMap<Life, (Epoch, u64)>,
    /// The highest epoch that has touched an execution, with its event.
    touched: BTreeMap<ExecutionId, (Epoch, u64)>,
}

impl Oracle for Fenced {
    fn name(&self) -> &'static str {
        "S13 an older epoch changes nothing"
    }

    fn check(&mut self, event: &Event, view: &View<'_>) -> Result<(), Violation> {
        match &event.what {
            What::Acquired { life, lease } => {
                self.epochs.insert(*life, (lease.epoch, event.number));
            }
            What::Committed { lease, .. } if lease.epoch != view.store.epoch() => {
                let (held, current) = (lease.epoch.0, view.store.epoch().0);
                let what = format!("epoch {held} writes while {current} holds the records");
                return Err(Violation::new(self.name(), what));
            }
            What::Performed { life, call, failure: None, .. } => {
                // A launch or a look of an older host may find a place that nothing will ever run in.
                let fenced = matches!(call.site, Site::Stop | Site::Send);
                let About::Execution(id) = call.about else { return Ok(()) };
                let Some((epoch, _)) = self.epochs.get(life).copied().filter(|_| fenced) else {
                    return Ok(());
                };
                // Where the last word is written nobody is left who could be told anything.
                let is_over = |records: &[Record]| {
                    records.iter().any(|record| matches!(record, Record::Final(_)))
                };
                if view.kernel.starts_of(id).any(|(_, start)| is_over(&start.journal)) {
                    return Ok(());
                }
                let touched = self.touched.entry(id).or_insert((epoch, event.number));
                if epoch < touched.0 {
                    let what = format!(
                        "a host of epoch {} touches an execution that epoch {} has touched",
                        epoch.0, touched.0.0
                    );
                    let name = "S13 an older epoch changes nothing";
                    return Err(Violation::new(name, what).because([touched.1]));
                }
                *touched = (epoch, event.number);
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, _: &View<'_>) -> Result<(), Violation> {
        Ok(())
    }
}

/// How much later than it was the creation of the last of a chain may be recorded, in milliseconds.
const CHAIN_MS: u64 = 2;

/// S22: revisions, change numbers and times never go back.
#[derive(Debug, Default)]
pub(super) struct Forward {
    last: ChangeNumber,
}

impl Forward {
    fn value(&self, before: Option<&Value>, now: &Value) -> Result<(), Violation> {
        let wrong = |what: &str| Err(Violation::new(self.name(), what));
        match (before, now) {
            (Some(Value::Execution(before)), Value::Execution(now)) => {
                if now.created_at != before.created_at {
                    return wrong("the time at which an execution was asked for changes");
                }
                if before.started_at.is_some() && now.started_at != before.started_at {
                    return wrong("the time at which an execution began changes");
                }
                if before.ended_at.is_some() && now.ended_at != before.ended_at {
                    return wrong("the time at which an execution ended changes");
                }
                // In lists each of a chain comes behind the one before, a millisecond later at least.
                let asked = Timestamp(now.created_at.0.saturating_sub(CHAIN_MS));
                let times = [Some(asked), now.started_at, now.ended_at];
                let times: Vec<_> = times.into_iter().flatten().collect();
                if !times.is_sorted() {
                    return wrong(
                        "an execution ended before it began, or began before it was asked for",
                    );
                }
            }
            (Some(Value::Attempt(before)), Value::Attempt(now)) => {
                if now.created_at != before.created_at {
                    return wrong("the time at which an attempt was made changes");
                }
                if now.last_snapshot < before.last_snapshot {
                    return wrong("the number of an attempt's last snapshot goes back");
                }
                if now.epoch < before.epoch {
                    return wrong("the epoch of an attempt goes back");
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Oracle for Forward {
    fn name(&self) -> &'static str {
        "S22 nothing goes back"
    }

    fn check(&mut self, event: &Event, view: &View<'_>) -> Result<(), Violation> {
        let What::Committed { writes, number, .. } = &event.what else { return Ok(()) };
        if *number <= self.last {
            return Err(Violation::new(self.name(), "a batch has no higher number than the last"));
        }
        self.last = *number;
        for write in writes.iter() {
            let Write::Put { expect, .. } = write else { continue };
            let Some(kept) = view.store.get(write.key()) else { continue };
            let met = match expect {
                Expect::Absent => kept.before.is_none(),
                Expect::At(revision) => revision.0 + 1 == kept.revision.0,
            };
            if !met {
                let what = format!("{} is overwritten by who knew an older revision", write.key());
                return Err(Violation::new(self.name(), what));
            }
            self.value(kept.before.as_ref(), &kept.value)?;
        }
        Ok(())
    }

    fn end(&mut self, _: &View<'_>) -> Result<(), Violation> {
        Ok(())
    }
}

/// How many ports are called at most within a second of the world's time, by the requests of these small plans.
const CALLS_A_SECOND: usize = 3_000;

/// How many bytes a record has at most.
const RECORD_BYTES: usize = 64 << 10;

/// How many shims an execution has at most: one, and one more for each place that was given up.
const SHIMS: u32 = 4;

/// S23: tries, records and calls are bounded.
#[derive(Debug, Default)]
pub(super) struct Bounded {
    calls: VecDeque<Timestamp>,
    shims: BTreeMap<ExecutionId, u32>,
}

impl Oracle for Bounded {
    fn name(&self) -> &'static str {
        "S23 bounded"
    }

    fn check(&mut self, event: &Event, view: &View<'_>) -> Result<(), Violation> {
        match &event.what {
            What::Called { .. } => {
                self.calls.push_back(event.at);
                while self.calls.front().is_some_and(|at| event.at.ms_since(*at) > 1_000) {
                    self.calls.pop_front();
                }
                if self.calls.len() > CALLS_A_SECOND {
                    let what = format!("{} calls within a second", self.calls.len());
                    return Err(Violation::new(self.name(), what));
                }
            }
            What::Committed { writes, .. } => {
                for write in writes.iter() {
                    let bytes = view.store.get(write.key()).map_or(0, |kept| kept.bytes);
                    if bytes > RECORD_BYTES {
                        let what = format!("{} has {bytes} bytes", write.key());
                        return Err(Violation::new(self.name(), what));
                    }
                }
            }
            What::Happened(Happened::ShimStarted { start, .. }) => {
                let count = self.shims.entry(start.execution).or_insert(0);
                *count += 1;
                if *count > SHIMS {
                    let what = format!("an execution has its {count}th shim");
                    return Err(Violation::new(self.name(), what));
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
