//! The port [`LogStore`]: what executions wrote, numbered, readable from any number on.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::container_service::Place;
use crate::error::BackendError;
use crate::id::ExecutionId;
pub use crate::shim::frame::{GapCause, Stream};
use crate::time::Timestamp;

/// Numbers the entries of one log, from 1. As a cursor, 0 is before the first.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct Seq(pub u64);

/// One piece of output, or what stands for a missing one.
#[derive(Clone, PartialEq, Eq)]
pub enum LogItem {
    /// What one read returned.
    Entry {
        /// Its number.
        seq: Seq,
        /// When it was read.
        at: Timestamp,
        /// Which stream.
        stream: Stream,
        /// It does not end a line.
        partial: bool,
        /// The bytes as written; empty for input that was secret.
        bytes: Bytes,
        /// For secret input: how many bytes were written. Else the length of `bytes`.
        len: u64,
    },
    /// Numbers that are missing.
    Gap {
        /// The first missing number.
        first: Seq,
        /// The last missing number, if it is known.
        last: Option<Seq>,
        /// How many payload bytes are missing, as far as it is known.
        bytes: u64,
        /// Why.
        cause: GapCause,
    },
}

impl LogItem {
    /// Returns the last number that it covers; for a gap without a known end, its first.
    #[must_use]
    pub fn last_seq(&self) -> Seq {
        match self {
            Self::Entry { seq, .. } => *seq,
            Self::Gap { first, last, .. } => last.unwrap_or(*first),
        }
    }

    /// Returns the first number that it covers.
    #[must_use]
    pub fn first_seq(&self) -> Seq {
        match self {
            Self::Entry { seq, .. } => *seq,
            Self::Gap { first, .. } => *first,
        }
    }
}

impl fmt::Debug for LogItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry { seq, stream, bytes, .. } => {
                let shown = &bytes[..bytes.len().min(40)];
                write!(f, "#{} {stream:?} {:?}", seq.0, String::from_utf8_lossy(shown))
            }
            Self::Gap { first, last, bytes, cause } => {
                write!(f, "gap {}..{:?} ({bytes} bytes, {cause:?})", first.0, last.map(|seq| seq.0))
            }
        }
    }
}

/// Where the log of an execution is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogKey {
    /// The execution.
    pub execution: ExecutionId,
    /// The place that it was launched in.
    pub place: Place,
}

/// Where to begin reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// After this number.
    After(Seq),
    /// At the first of the last so many items.
    Tail(u32),
}

/// What to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// Where to begin.
    pub from: From,
    /// At most this many items.
    pub max_items: u32,
    /// At most this many payload bytes, but always one item.
    pub max_bytes: u64,
}

/// One page of a log. Cheap to clone: readers at the same place share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPage {
    /// Entries and gaps in order; together they cover every number from the cursor to `next`.
    pub items: Arc<[LogItem]>,
    /// Where to go on: the last number that the page covers.
    pub next: Seq,
    /// Nothing follows and nothing ever will.
    pub end: bool,
}

/// What is known of a log as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStatus {
    /// The last number, 0 if there is none.
    pub last: Seq,
    /// Entries that are kept.
    pub entries: u64,
    /// Payload bytes, the dropped ones included.
    pub bytes: u64,
    /// Payload bytes that were dropped and are counted in gaps.
    pub dropped_bytes: u64,
    /// Nothing will be added.
    pub sealed: bool,
}

impl LogStatus {
    /// Counts an item that is being added.
    pub fn count(&mut self, item: &LogItem) {
        self.last = item.last_seq();
        match item {
            LogItem::Entry { len, .. } => {
                self.entries = self.entries.saturating_add(1);
                self.bytes = self.bytes.saturating_add(*len);
            }
            LogItem::Gap { bytes, .. } => {
                self.bytes = self.bytes.saturating_add(*bytes);
                self.dropped_bytes = self.dropped_bytes.saturating_add(*bytes);
            }
        }
    }
}

/// Why a log store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum LogStoreError {
    /// There is no such log.
    #[error("no log of execution {execution}")]
    NotFound {
        /// The execution.
        execution: ExecutionId,
    },
    /// Items were appended that leave out numbers.
    #[error("log of {execution} ends at {end:?}, got {got:?}")]
    NotNext {
        /// The execution.
        execution: ExecutionId,
        /// The last stored number.
        end: Seq,
        /// The first number that was given.
        got: Seq,
    },
    /// The log is sealed.
    #[error("log of {execution} is sealed")]
    Sealed {
        /// The execution.
        execution: ExecutionId,
    },
    /// There is no room on the disk; nothing was appended.
    #[error("no space left for the log")]
    Full,
    /// The backend failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// What executions wrote, numbered, readable from any number on, during and after the run.
///
/// This is the contract for implementors; callers want [`LogStoreExt`].
///
/// # Contract
///
/// - Entries and gaps together cover every number, in order. A reader that continues at `next` has no hole and no repeat.
/// - Appends are idempotent by number: what is there already is not written again.
/// - Reading while it is written never returns half an entry, and never blocks the writer.
/// - A log whose tail was torn by a crash ends before the torn entry.
///
/// # Cancel safety
///
/// Reads and waits may be dropped. A dropped append is applied up to some item.
///
/// # Example
///
/// ```
/// # use windlass_core::log_store::*;
/// # async fn doc(logs: &dyn LogStore, log: &LogKey) -> Result<(), LogStoreError> {
/// let mut cursor = Seq(0);
/// loop {
///     let page = logs.page_after(log, cursor).await?;
///     cursor = page.next;
///     if page.end {
///         break;
///     }
///     logs.grown(log, cursor).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait LogStore: fmt::Debug + Send + Sync + 'static {
    /// Appends `items`, whose numbers go on where the log ends or repeat what is there; returns the log's last number.
    ///
    /// A store whose entries another process writes ignores them and returns its end, which is never behind.
    ///
    /// # Errors
    ///
    /// [`LogStoreError::NotNext`], [`Sealed`](LogStoreError::Sealed), [`Full`](LogStoreError::Full).
    async fn append(&self, log: &LogKey, items: Vec<LogItem>) -> Result<Seq, LogStoreError>;

    /// Declares that nothing will be added. Sealing again changes nothing.
    ///
    /// # Errors
    ///
    /// [`LogStoreError::Backend`].
    async fn seal(&self, log: &LogKey) -> Result<(), LogStoreError>;

    /// Reads one page; an empty one if there is nothing (yet).
    ///
    /// # Errors
    ///
    /// [`LogStoreError::NotFound`] if there is no such log, not even an empty one.
    async fn read(&self, log: &LogKey, options: ReadOptions) -> Result<LogPage, LogStoreError>;

    /// Waits until the log has a number above `after` or is sealed. Resolves by event, never by polling.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    async fn grown(&self, log: &LogKey, after: Seq) -> Result<(), LogStoreError>;

    /// Measures the log. May read all of it.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    async fn status(&self, log: &LogKey) -> Result<LogStatus, LogStoreError>;

    /// Removes the log. Removing what is not there changes nothing.
    ///
    /// # Errors
    ///
    /// [`LogStoreError::Backend`].
    async fn remove(&self, log: &LogKey) -> Result<(), LogStoreError>;
}

/// What callers of a [`LogStore`] want on top.
pub trait LogStoreExt: LogStore {
    /// Reads a page of a handy size (256 items, 1 MiB) after a number.
    ///
    /// # Errors
    ///
    /// As [`LogStore::read`].
    fn page_after(
        &self,
        log: &LogKey,
        after: Seq,
    ) -> impl Future<Output = Result<LogPage, LogStoreError>> + Send {
        async move {
            let from = From::After(after);
            self.read(log, ReadOptions { from, max_items: 256, max_bytes: 1 << 20 }).await
        }
    }
}

impl<T: LogStore + ?Sized> LogStoreExt for T {}

/// Decides an append for a store that keeps what is appended: returns what `items` have that the log has not.
///
/// Of a gap that begins within what is there, the rest is returned; how many bytes that had is not known.
///
/// # Errors
///
/// [`LogStoreError::NotNext`], [`LogStoreError::Sealed`]; then nothing may be added.
pub fn items_to_add(
    execution: ExecutionId,
    status: &LogStatus,
    items: Vec<LogItem>,
) -> Result<Vec<LogItem>, LogStoreError> {
    let mut end = status.last;
    let mut added = Vec::new();
    for item in items {
        let (first, last) = (item.first_seq(), item.last_seq());
        if last <= end {
            continue;
        }
        if status.sealed {
            return Err(LogStoreError::Sealed { execution });
        }
        let next = Seq(end.0.saturating_add(1));
        if first > next {
            return Err(LogStoreError::NotNext { execution, end, got: first });
        }
        added.push(match item {
            LogItem::Gap { last, cause, .. } if first < next => {
                LogItem::Gap { first: next, last, bytes: 0, cause }
            }
            LogItem::Gap { .. } | LogItem::Entry { .. } => item,
        });
        end = last;
    }
    Ok(added)
}
