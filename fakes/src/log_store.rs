//! [`MemoryLogs`]: the port `LogStore` in memory.
//!
//! The containers of the same world write their logs here, as shims do; others may be fed through the port.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use windlass_core::log_store::{
    From, LogItem, LogKey, LogPage, LogStatus, LogStore, LogStoreError, ReadOptions, Seq, Stream,
    items_to_add,
};
use windlass_core::time::Timestamp;

use crate::world::{State, World};

/// One log: a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Log {
    items: Vec<LogItem>,
    sealed: bool,
}

impl Log {
    fn last(&self) -> Seq {
        self.items.last().map_or(Seq(0), LogItem::last_seq)
    }

    /// Writes what a command has written.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8], at: Timestamp) {
        let len = bytes.len() as u64;
        let bytes = Bytes::copy_from_slice(bytes);
        let partial = bytes.last() != Some(&b'\n');
        self.push(LogItem::Entry { seq: self.next(), at, stream, partial, bytes, len });
    }

    /// Writes that something secret was written to the command.
    pub(crate) fn write_secret(&mut self, len: u64, at: Timestamp) {
        let (seq, stream) = (self.next(), Stream::Stdin);
        self.push(LogItem::Entry { seq, at, stream, partial: false, bytes: Bytes::new(), len });
    }

    fn next(&self) -> Seq {
        Seq(self.last().0 + 1)
    }

    fn push(&mut self, item: LogItem) {
        assert!(!self.sealed, "nothing follows the end of a log: {item:?}");
        assert_eq!(item.first_seq(), self.next(), "a log has neither hole nor repeat: {item:?}");
        assert!(item.last_seq() >= item.first_seq(), "an item ends before it begins: {item:?}");
        self.items.push(item);
    }

    pub(crate) fn seal(&mut self) {
        self.sealed = true;
    }

    pub(crate) fn status(&self) -> LogStatus {
        let mut status = LogStatus { sealed: self.sealed, ..LogStatus::default() };
        for item in &self.items {
            status.count(item);
        }
        status
    }

    /// Returns the bytes of output, in order.
    fn output(&self) -> Vec<u8> {
        let mut output = Vec::new();
        for item in &self.items {
            match item {
                LogItem::Entry { stream, bytes, .. } if *stream != Stream::Stdin => {
                    output.extend_from_slice(bytes);
                }
                LogItem::Entry { .. } | LogItem::Gap { .. } => {}
            }
        }
        output
    }

    fn read(&self, options: ReadOptions) -> LogPage {
        let (start, mut next) = match options.from {
            From::After(after) => {
                (self.items.partition_point(|item| item.last_seq() <= after), after)
            }
            From::Tail(count) => {
                let start = self.items.len().saturating_sub(count as usize);
                let before = start.checked_sub(1).and_then(|before| self.items.get(before));
                (start, before.map_or(Seq(0), LogItem::last_seq))
            }
        };
        let mut items = Vec::new();
        let mut bytes = 0;
        for item in self.items.iter().skip(start).take(options.max_items.max(1) as usize) {
            bytes += payload(item);
            if bytes > options.max_bytes && !items.is_empty() {
                break;
            }
            next = item.last_seq();
            items.push(item.clone());
        }
        let end = self.sealed && start + items.len() == self.items.len();
        LogPage { items: Arc::from(items), next, end }
    }
}

/// Returns how many bytes of a page an item takes.
fn payload(item: &LogItem) -> u64 {
    match item {
        LogItem::Entry { bytes, .. } => bytes.len() as u64,
        LogItem::Gap { .. } => 0,
    }
}

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
        self.world.change(|state| {
            state.logs.entry(log.place.locator.clone()).or_default();
        });
    }

    /// Waits until a log has this many bytes of output or is at its end; returns them.
    pub async fn output(&self, log: &LogKey, at_least: usize) -> Vec<u8> {
        self.world
            .wait(|state| {
                let Some(log) = state.logs.get(&log.place.locator) else { return Some(Vec::new()) };
                let output = log.output();
                (log.sealed || output.len() >= at_least).then_some(output)
            })
            .await
    }
}

fn find<'a>(state: &'a State, log: &LogKey) -> Result<&'a Log, LogStoreError> {
    let found = state.logs.get(&log.place.locator);
    found.ok_or(LogStoreError::NotFound { execution: log.execution })
}

#[async_trait]
impl LogStore for MemoryLogs {
    async fn append(&self, log: &LogKey, items: Vec<LogItem>) -> Result<Seq, LogStoreError> {
        let execution = log.execution;
        self.world.change(|state| {
            let log = state.logs.entry(log.place.locator.clone()).or_default();
            for item in items_to_add(execution, &log.status(), items)? {
                log.push(item);
            }
            Ok(log.last())
        })
    }

    async fn seal(&self, log: &LogKey) -> Result<(), LogStoreError> {
        self.world.change(|state| {
            if let Some(log) = state.logs.get_mut(&log.place.locator) {
                log.seal();
            }
        });
        Ok(())
    }

    async fn read(&self, log: &LogKey, options: ReadOptions) -> Result<LogPage, LogStoreError> {
        self.world.look(|state| Ok(find(state, log)?.read(options)))
    }

    async fn grown(&self, log: &LogKey, after: Seq) -> Result<(), LogStoreError> {
        self.world
            .wait(|state| match find(state, log) {
                Err(error) => Some(Err(error)),
                Ok(log) if log.sealed || log.last() > after => Some(Ok(())),
                Ok(_) => None,
            })
            .await
    }

    async fn status(&self, log: &LogKey) -> Result<LogStatus, LogStoreError> {
        self.world.look(|state| Ok(find(state, log)?.status()))
    }

    async fn remove(&self, log: &LogKey) -> Result<(), LogStoreError> {
        self.world.change(|state| state.logs.remove(&log.place.locator));
        Ok(())
    }
}
