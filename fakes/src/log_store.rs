//! [`MemoryLogs`]: the port `LogStore` in memory.
//!
//! The shims of the same world write their logs here, and the journals of their places say where these end; others may be
//! fed through the port.

mod log;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use windlass_core::error::BackendError;
use windlass_core::log_store::{
    GapCause, LogItem, LogKey, LogPage, LogStatus, LogStore, LogStoreError, ReadOptions, Seq,
    Stream, items_to_add,
};
use windlass_core::shim::machine::LogTotals;

pub(crate) use self::log::Log;
use crate::world::{Happened, StartId, State, World};

/// The logs of a world.
#[derive(Clone, Debug)]
pub struct MemoryLogs {
    world: World,
}

impl MemoryLogs {
    /// Opens the logs of a world. Opening again is a restart.
    #[must_use]
    pub fn new(world: World) -> Self {
        Self { world }
    }

    /// Makes an empty log, as preparing a place does.
    pub fn create(&self, log: &LogKey) {
        self.world.edit(|state| {
            state.log(start(log));
        });
    }

    /// Returns everything that is in a log now: what a reader would be given, without waiting.
    #[must_use]
    pub fn items(&self, log: &LogKey) -> Vec<LogItem> {
        self.world.edit(|state| state.log(start(log)).items().to_vec())
    }

    /// Waits until a log has this many bytes of output or is at its end; returns them.
    pub async fn output(&self, log: &LogKey, at_least: usize) -> Vec<u8> {
        self.world
            .wait(|state| {
                let start = start(log);
                let Some(log) = state.logs.get(&start) else { return Some(Vec::new()) };
                let output = log.output();
                let is_enough = output.len() >= at_least || state.ending(start).is_some();
                is_enough.then_some(output)
            })
            .await
    }
}

fn start(log: &LogKey) -> StartId {
    StartId { execution: log.execution, nonce: log.place.nonce }
}

/// How a log that is complete ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// As its journal says, whether it is all there or not: the last number, the bytes, the dropped ones.
    At(Seq, u64, u64),
    /// With the last entry that can be read.
    AsItIs,
}

impl State {
    /// Returns a log, made if it is not there.
    pub(crate) fn log(&mut self, start: StartId) -> &mut Log {
        Arc::make_mut(self.logs.entry(start).or_default())
    }

    fn has_room(&self) -> bool {
        self.room.free_bytes > 0
    }

    /// Lets a shim log bytes.
    pub(crate) fn log_entry(
        &mut self,
        start: StartId,
        stream: Stream,
        partial: bool,
        bytes: Bytes,
    ) {
        let (now, has_room) = (self.now, self.has_room());
        self.log(start).entry(now, stream, partial, bytes, has_room);
        self.stirred = true;
    }

    /// Lets a shim log the length of bytes that nobody may read.
    pub(crate) fn log_secret(&mut self, start: StartId, partial: bool, len: u64) {
        let (now, has_room) = (self.now, self.has_room());
        self.log(start).secret(now, partial, len, has_room);
    }

    /// Lets a shim write the end of its log.
    pub(crate) fn seal_written(&mut self, start: StartId) {
        let has_room = self.has_room();
        self.log(start).seal(has_room);
    }

    /// Syncs a log.
    pub(crate) fn sync_log(&mut self, start: StartId) -> LogTotals {
        let totals = self.log(start).sync();
        self.note(|| Happened::LogSynced { start, last_seq: totals.last_seq });
        totals
    }

    /// Says whether and where a log ends for good.
    pub(crate) fn ending(&mut self, start: StartId) -> Option<Ending> {
        let journal = self.site(start).and_then(|site| site.readable());
        if let Some(journal) = journal {
            if let Some(report) = journal.finished() {
                let last = Seq(report.last_seq);
                return Some(Ending::At(last, report.bytes, report.dropped_bytes));
            }
            if journal.void().is_some() || journal.exec_failed().is_some() {
                return Some(Ending::AsItIs);
            }
        }
        let marked = self.logs.get(&start).is_some_and(|log| log.marked);
        marked.then_some(Ending::AsItIs)
    }

    fn find(&mut self, key: &LogKey) -> Result<&Log, LogStoreError> {
        let found = self.logs.get(&start(key)).map(|log| &**log);
        found.ok_or(LogStoreError::NotFound { execution: key.execution })
    }

    fn page(&mut self, key: &LogKey, options: ReadOptions) -> Result<LogPage, LogStoreError> {
        let ending = self.ending(start(key));
        let log = self.find(key)?;
        let first = Seq(log.last().0 + 1);
        let tail = match ending {
            Some(Ending::At(last, bytes, dropped)) if last > log.last() => {
                let there = log.sums();
                let bytes = bytes.saturating_sub(there.bytes);
                let was_dropped = bytes > 0 && dropped.saturating_sub(there.dropped_bytes) >= bytes;
                let cause = if was_dropped { GapCause::Full } else { GapCause::Power };
                Some(LogItem::Gap { first, last: Some(last), bytes, cause })
            }
            Some(Ending::AsItIs) if log.ends_in_damage => {
                Some(LogItem::Gap { first, last: None, bytes: 0, cause: GapCause::Power })
            }
            Some(_) | None => None,
        };
        Ok(log.read(options, tail, ending.is_some()))
    }

    fn log_status(&mut self, key: &LogKey) -> Result<LogStatus, LogStoreError> {
        let ending = self.ending(start(key));
        let mut status = LogStatus { sealed: ending.is_some(), ..self.find(key)?.sums() };
        if let Some(Ending::At(last, bytes, dropped)) = ending {
            (status.last, status.bytes, status.dropped_bytes) = (last, bytes, dropped);
        }
        Ok(status)
    }
}

#[async_trait]
impl LogStore for MemoryLogs {
    async fn append(&self, log: &LogKey, items: Vec<LogItem>) -> Result<Seq, LogStoreError> {
        self.world.change(|state| {
            let start = start(log);
            let sealed = state.ending(start).is_some();
            let there = state.logs.get(&start).map(|log| log.sums()).unwrap_or_default();
            let items = items_to_add(log.execution, &LogStatus { sealed, ..there }, items)?;
            // One that is refused makes no log.
            let written = state.log(start);
            items.into_iter().for_each(|item| written.push(item));
            let _totals = written.sync();
            Ok(written.last())
        })
    }

    async fn seal(&self, log: &LogKey) -> Result<(), LogStoreError> {
        self.world.change(|state| {
            if state.ending(start(log)).is_none()
                && let Some(log) = state.logs.get_mut(&start(log))
            {
                let log = Arc::make_mut(log);
                log.sync();
                log.marked = true;
            }
        });
        Ok(())
    }

    async fn read(&self, log: &LogKey, options: ReadOptions) -> Result<LogPage, LogStoreError> {
        self.world.edit(|state| state.page(log, options))
    }

    async fn grown(&self, log: &LogKey, after: Seq) -> Result<(), LogStoreError> {
        self.world
            .wait(|state| match state.log_status(log) {
                Err(error) => Some(Err(error)),
                Ok(status) if status.sealed || status.last > after => Some(Ok(())),
                Ok(_) => None,
            })
            .await
    }

    async fn status(&self, log: &LogKey) -> Result<LogStatus, LogStoreError> {
        self.world.edit(|state| state.log_status(log))
    }

    async fn remove(&self, log: &LogKey) -> Result<(), LogStoreError> {
        self.world.change(|state| {
            if state.site(start(log)).is_some_and(|site| site.lock.is_some()) {
                let why = "the log is being written";
                return Err(BackendError::transient("memory", "remove", why).into());
            }
            state.logs.remove(&start(log));
            Ok(())
        })
    }
}
