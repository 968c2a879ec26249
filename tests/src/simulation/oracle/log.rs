//! What was written: S14, S15, S16, S17.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::FutureExt as _;
use windlass_core::id::ExecutionId;
use windlass_core::log_store::{
    From as ReadFrom, LogItem, LogKey, LogStore as _, ReadOptions, Seq, Stream,
};
use windlass_core::outcome::Outcome;
use windlass_core::process_store::{Kind, Write};
use windlass_core::record::{ExecutionRecord, Phase};
use windlass_core::shim::journal::Record;
use windlass_fakes::world::{Happened, StartId};

use super::super::event::{Ask, Event, What};
use super::super::plan::Blow;
use super::super::view::{Start, Value, View};
use super::{Oracle, Violation};

/// Reads the whole log of an execution as it is now; `None` if there is none.
fn log(record: &ExecutionRecord, view: &View<'_>) -> Option<Vec<LogItem>> {
    let key = LogKey { execution: record.id, place: record.place.clone()? };
    let (mut items, mut after) = (Vec::new(), Seq(0));
    loop {
        let from = ReadFrom::After(after);
        let options = ReadOptions { from, max_items: u32::MAX, max_bytes: u64::MAX };
        let page = view.scene.logs.read(&key, options).now_or_never()?.ok()?;
        items.extend(page.items.iter().cloned());
        if page.end || page.next == after {
            return Some(items);
        }
        after = page.next;
    }
}

/// Returns the start that a record names.
fn start_of<'a>(record: &ExecutionRecord, view: &'a View<'_>) -> Option<&'a Start> {
    let nonce = record.place.as_ref()?.nonce;
    view.kernel.of_start(StartId { execution: record.id, nonce })
}

/// What was written to one stream, and how much of it a log is known to hold.
#[derive(Debug, Default)]
struct Written {
    bytes: Vec<u8>,
    at: usize,
}

/// Compares a log with what was written; returns how many bytes it accounts for.
fn compare(items: &[LogItem], start: &Start) -> Result<u64, String> {
    let mut streams: BTreeMap<Stream, Written> = BTreeMap::new();
    for (stream, bytes) in &start.output {
        streams.entry(*stream).or_default().bytes.extend_from_slice(bytes);
    }
    let (mut next, mut gap, mut counted) = (1, None, 0);
    for item in items {
        if item.first_seq().0 != next {
            return Err(format!("number {next} is missing"));
        }
        next = item.last_seq().0 + 1;
        match item {
            LogItem::Gap { bytes, .. } => {
                gap = Some(gap.unwrap_or(0) + bytes);
                counted += bytes;
            }
            LogItem::Entry { stream: Stream::Stdin, .. } => {}
            LogItem::Entry { seq, stream, bytes, .. } => {
                counted += bytes.len() as u64;
                let written = streams.entry(*stream).or_default();
                let found = place(&written.bytes[written.at..], bytes, gap);
                let Some(found) = found else {
                    return Err(format!("number {} holds what {stream:?} never was", seq.0));
                };
                written.at += found + bytes.len();
            }
        }
    }
    Ok(counted)
}

/// Finds a piece: where the last one ended; behind a gap, that many bytes further on or anywhere.
fn place(rest: &[u8], piece: &Bytes, gap: Option<u64>) -> Option<usize> {
    if rest.starts_with(piece) {
        return Some(0);
    }
    let behind = usize::try_from(gap?).ok()?;
    if piece.is_empty() {
        return None;
    }
    if rest.get(behind..).is_some_and(|rest| rest.starts_with(piece)) {
        return Some(behind);
    }
    rest.windows(piece.len()).position(|window| window == &piece[..])
}

/// Calls `each` for every execution that a batch brings to an end or past it.
fn ended(
    event: &Event,
    view: &View<'_>,
    phase: Phase,
    mut each: impl FnMut(&ExecutionRecord) -> Result<(), Violation>,
) -> Result<(), Violation> {
    let What::Committed { writes, .. } = &event.what else { return Ok(()) };
    for write in writes.iter() {
        if let Write::Put { record, .. } = write
            && record.key.kind == Kind::Execution
            && let Some(kept) = view.store.get(record.key)
            && let Value::Execution(now) = &kept.value
        {
            let before = match &kept.before {
                Some(Value::Execution(before)) => Some(before.phase),
                _ => None,
            };
            if now.phase >= phase && before.is_none_or(|before| before < phase) {
                each(now)?;
            }
        }
    }
    Ok(())
}

fn is_lost(record: &ExecutionRecord) -> bool {
    matches!(record.outcome, Some(Outcome::Lost { .. }))
}

/// S14: the log, with its gaps, is what was written.
#[derive(Debug, Default)]
pub(super) struct Exact;

impl Exact {
    fn look(record: &ExecutionRecord, view: &View<'_>) -> Result<(), Violation> {
        let Some(start) = start_of(record, view) else { return Ok(()) };
        let Some(items) = log(record, view) else { return Ok(()) };
        let name = record.client_key.as_deref().unwrap_or("a git step");
        let wrong =
            |what: String| Err(Violation::new("S14 exact log", format!("log of {name}: {what}")));
        let counted = match compare(&items, start) {
            Ok(counted) => counted,
            Err(what) => return wrong(what),
        };
        let written: usize = start.output[..start.before_exit].iter().map(|(_, b)| b.len()).sum();
        let whole = record.phase == Phase::Final && !is_lost(record) && !record.output_incomplete;
        if whole && start.exit.is_some() && counted < written as u64 {
            return wrong(format!("it accounts for {counted} of {written} bytes"));
        }
        let sums = record.log.filter(|_| whole && start.exit.is_some());
        let last = items.last().map_or(0, |item| item.last_seq().0);
        match sums {
            Some(sums) if sums.last_seq != last => {
                wrong(format!("it ends at {last}, and its record says {}", sums.last_seq))
            }
            _ => Ok(()),
        }
    }
}

impl Oracle for Exact {
    fn name(&self) -> &'static str {
        "S14 exact log"
    }

    fn check(&mut self, event: &Event, view: &View<'_>) -> Result<(), Violation> {
        ended(event, view, Phase::Final, |record| Self::look(record, view))
    }

    fn end(&mut self, view: &View<'_>) -> Result<(), Violation> {
        view.store.executions().try_for_each(|record| Self::look(record, view))
    }
}

/// S15: what was in a log when its execution was final, and what was on the disk, stays.
#[derive(Debug, Default)]
pub(super) struct Stays {
    sealed: BTreeMap<ExecutionId, Vec<LogItem>>,
    synced: BTreeMap<StartId, u64>,
}

impl Oracle for Stays {
    fn name(&self) -> &'static str {
        "S15 what is logged stays"
    }

    fn check(&mut self, event: &Event, view: &View<'_>) -> Result<(), Violation> {
        if let What::Happened(Happened::LogSynced { start, last_seq }) = &event.what {
            let synced = self.synced.entry(*start).or_insert(0);
            *synced = (*synced).max(*last_seq);
        }
        ended(event, view, Phase::Final, |record| {
            if let Some(items) = log(record, view) {
                self.sealed.insert(record.id, items);
            }
            Ok(())
        })
    }

    fn end(&mut self, view: &View<'_>) -> Result<(), Violation> {
        for record in view.store.executions() {
            let name = record.client_key.as_deref().unwrap_or("a git step");
            let Some(items) = log(record, view) else { continue };
            if self.sealed.get(&record.id).is_some_and(|before| *before != items) {
                let what = format!("the log of {name} changed after it was final");
                return Err(Violation::new(self.name(), what));
            }
            let Some(place) = &record.place else { continue };
            let start = StartId { execution: record.id, nonce: place.nonce };
            let last = items.last().map_or(0, |item| item.last_seq().0);
            let synced = self.synced.get(&start).copied().unwrap_or(0);
            if last < synced {
                let what = format!("the log of {name} was on the disk to {synced}, now to {last}");
                return Err(Violation::new(self.name(), what));
            }
        }
        Ok(())
    }
}

/// S16: an outcome is not ahead of what was written before it, gaps aside.
#[derive(Debug, Default)]
pub(super) struct NotAhead;

/// Says how many bytes of those that were written before the end are in the log, and how many they are, if some are missing
/// and no gap stands for them.
fn missing(record: &ExecutionRecord, start: &Start, view: &View<'_>) -> Option<(u64, u64)> {
    if is_lost(record) || start.exit.is_none() || start.lost_power || start.shim_killed {
        return None;
    }
    let items = log(record, view)?;
    let held: u64 = items
        .iter()
        .map(|item| match item {
            LogItem::Entry { stream: Stream::Stdin, .. } => 0,
            LogItem::Entry { bytes, .. } => bytes.len() as u64,
            LogItem::Gap { bytes, .. } => *bytes,
        })
        .sum();
    let written = start.output[..start.before_exit].iter().map(|(_, b)| b.len() as u64);
    let written: u64 = written.sum();
    // What a power cut took is a gap of which nobody knows how much it was, or the whole log.
    let gap = items.iter().any(|item| matches!(item, LogItem::Gap { .. }));
    let cut = view.kernel.power_losses() > 0 && (gap || items.is_empty());
    // What a full disk did not take becomes a gap when the log is sealed, which is looked at then.
    let full =
        view.plan.interventions.iter().any(|one| matches!(one.what, Blow::Room { free_bytes: 0 }));
    (held < written && !cut && !full).then_some((held, written))
}

impl Oracle for NotAhead {
    fn name(&self) -> &'static str {
        "S16 outcome after output"
    }

    fn check(&mut self, event: &Event, view: &View<'_>) -> Result<(), Violation> {
        let name = |record: &ExecutionRecord| {
            record.client_key.clone().unwrap_or_else(|| "a git step".to_owned())
        };
        ended(event, view, Phase::Ended, |record| {
            let Some(start) = start_of(record, view) else { return Ok(()) };
            // The log is on the disk with the last record. Where power came first the end says that some may be missing.
            let synced = start.journal.iter().any(|record| matches!(record, Record::Final(_)));
            if view.kernel.power_losses() > 0 && !synced {
                return Ok(());
            }
            let Some((held, written)) = missing(record, start, view) else { return Ok(()) };
            let name = name(record);
            let what = format!("{name} has ended, and {held} of {written} bytes are logged");
            Err(Violation::new("S16 outcome after output", what))
        })?;
        ended(event, view, Phase::Final, |record| {
            let Some(start) = start_of(record, view) else { return Ok(()) };
            if record.output_incomplete {
                return Ok(());
            }
            let Some((held, written)) = missing(record, start, view) else { return Ok(()) };
            let name = name(record);
            let what =
                format!("{held} of {written} bytes of {name} are logged, and nobody says so");
            Err(Violation::new("S16 outcome after output", what))
        })
    }

    fn end(&mut self, _: &View<'_>) -> Result<(), Violation> {
        Ok(())
    }
}

/// S17: whoever reads on where he was misses nothing and reads nothing twice.
#[derive(Debug, Default)]
pub(super) struct Resumed {
    names: BTreeMap<Ask, String>,
    cursors: BTreeMap<String, (Seq, u64)>,
    seen: BTreeMap<(ExecutionId, u64), (Bytes, u64)>,
}

impl Oracle for Resumed {
    fn name(&self) -> &'static str {
        "S17 resumed reads"
    }

    fn check(&mut self, event: &Event, _: &View<'_>) -> Result<(), Violation> {
        if let What::Asked { ask, request, .. } = &event.what {
            self.names.insert(*ask, request.name.clone());
        }
        let What::Read { execution, follower, after, page } = &event.what else { return Ok(()) };
        let Some(name) = self.names.get(follower) else { return Ok(()) };
        let (cursor, number) = self.cursors.get(name).copied().unwrap_or((Seq(0), 0));
        let wrong = |what: &str| {
            Err(Violation::new("S17 resumed reads", format!("{name}: {what}")).because([number]))
        };
        if *after != cursor {
            return wrong("a reader goes on elsewhere than where it was");
        }
        let mut next = after.0 + 1;
        for item in page.items.iter() {
            if item.first_seq().0 != next {
                return wrong("a page has a hole or a repeat");
            }
            next = item.last_seq().0 + 1;
            if let LogItem::Entry { seq, bytes, .. } = item {
                let seen = self.seen.entry((*execution, seq.0));
                let (first, at) = seen.or_insert_with(|| (bytes.clone(), event.number));
                if *first != *bytes {
                    return Err(Violation::new(
                        "S17 resumed reads",
                        format!("number {} reads differently a second time", seq.0),
                    )
                    .because([*at]));
                }
            }
        }
        if page.next.0 + 1 != next {
            return wrong("a page says to go on elsewhere than at its end");
        }
        self.cursors.insert(name.clone(), (page.next, event.number));
        Ok(())
    }

    fn end(&mut self, _: &View<'_>) -> Result<(), Violation> {
        Ok(())
    }
}
