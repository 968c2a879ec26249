//! [`FileLogs`]: the segments that a shim writes are the log; nothing is stored twice.
//!
//! It never writes a log. It does not know sockets or processes: that a log is complete is told by the journal, or by a
//! marker beside it where the shim died.

use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt as _;
use rustix::fs::OFlags;
use tokio::sync::Semaphore;
use windlass_core::error::BackendError;
use windlass_core::id::{ExecutionId, Nonce};
use windlass_core::log_store::{
    From, GapCause, LogItem, LogKey, LogPage, LogStatus, LogStore, LogStoreError, ReadOptions, Seq,
};
use windlass_core::shim::adoption::Match;
use windlass_core::shim::frame::segment_index;
use windlass_core::shim::journal;

use crate::follow::{Follow, Follower};
use crate::identity::Here;
use crate::place::{PlaceDir, PlaceIdentity, Runs};
use crate::recent::{PageId, Recent, SharedPage};
use crate::segment_reader::{Limits, PageRead, Position, SegmentReader, Sums};

/// The marker of a log that nobody will write to any more, though its journal does not say so.
const SEALED: &str = "sealed";
/// The marker of a log that was removed.
const REMOVED: &str = "removed";

/// How many reads are under way at a time. More would not be faster on a disk, and each has a buffer of a page.
const READS: usize = 4;

/// Logs in the segment files of their places.
#[derive(Debug)]
pub struct FileLogs {
    files: Files,
    follow: Follow,
}

/// The files, and what is remembered of them.
#[derive(Clone, Debug)]
struct Files {
    runs: Arc<Runs>,
    recent: Arc<Recent>,
    reads: Arc<Semaphore>,
}

impl FileLogs {
    /// Opens the logs of a directory of places, the one that [`LocalContainers`](crate::container_service::LocalContainers)
    /// has. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`LogStoreError::Backend`] if the directory is not private or cannot be opened.
    pub fn open(runs_dir: &Path) -> Result<Arc<Self>, LogStoreError> {
        let runs = Runs::open(runs_dir).map_err(|error| failed("open", error))?;
        let follow = Follow::open().map_err(|error| failed("open", error))?;
        let files = Files {
            runs: Arc::new(runs),
            recent: Arc::default(),
            reads: Arc::new(Semaphore::new(READS)),
        };
        Ok(Arc::new(Self { files, follow }))
    }

    /// Begins to follow a log.
    async fn follow(&self, log: &LogKey) -> Result<Follower, LogStoreError> {
        let (execution, nonce) = (log.execution, log.place.nonce);
        let runs = Arc::clone(&self.files.runs);
        let place = self.files.in_turn("grown", move || runs.place(execution, nonce)).await?;
        let Some(place) = place else { return Err(LogStoreError::NotFound { execution }) };
        self.follow.directory(place.fd()).map_err(|error| failed("grown", error))
    }
}

impl Files {
    /// Does something with a place, off the async threads.
    async fn run<R: Send + 'static>(
        &self,
        op: &'static str,
        log: &LogKey,
        work: impl FnOnce(&Log) -> io::Result<R> + Send + 'static,
    ) -> Result<R, LogStoreError> {
        let runs = Arc::clone(&self.runs);
        let (execution, nonce) = (log.execution, log.place.nonce);
        let found = self.in_turn(op, move || {
            let Some(log) = Log::open(&runs, execution, nonce)? else { return Ok(None) };
            work(&log).map(Some)
        });
        found.await?.ok_or(LogStoreError::NotFound { execution })
    }

    /// Does something with files, off the async threads. However many ask, few threads are made for it, and few pages are
    /// held at once.
    async fn in_turn<R: Send + 'static>(
        &self,
        op: &'static str,
        work: impl FnOnce() -> io::Result<R> + Send + 'static,
    ) -> Result<R, LogStoreError> {
        let reads = Arc::clone(&self.reads);
        // In a task of its own: who is not polled for a while would keep a turn that is his from everybody else.
        let done = tokio::spawn(async move {
            let turn = reads.acquire_owned().await.map_err(io::Error::other)?;
            let done = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                work()
            });
            done.await.map_err(io::Error::other)?
        });
        match done.await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(error)) => Err(failed(op, error)),
            Err(error) => Err(failed(op, io::Error::other(error))),
        }
    }

    /// Reads a page from the files.
    async fn read_page(
        &self,
        log: &LogKey,
        options: ReadOptions,
    ) -> Result<SharedPage, LogStoreError> {
        let id = (log.execution, log.place.nonce);
        let limits = Limits {
            items: usize::try_from(options.max_items.max(1)).unwrap_or(usize::MAX),
            bytes: options.max_bytes,
        };
        let hint = match options.from {
            From::After(after) => self.recent.position(id, after.0),
            From::Tail(_) => None,
        };
        let read = move |log: &Log| log.read(options.from, hint, limits);
        let (page, end) = self.run("read", log, read).await?;
        if let Some(position) = page.position {
            self.recent.remember(id, page.next, position);
        }
        let (full, buffered, next) = (page.full, page.buffered, Seq(page.next));
        let page = LogPage { items: page.items.into(), next, end };
        Ok(SharedPage::new(page, full, buffered))
    }
}

#[async_trait]
impl LogStore for FileLogs {
    async fn append(&self, log: &LogKey, _items: Vec<LogItem>) -> Result<Seq, LogStoreError> {
        self.files.run("append", log, |log| log.reader().last_seq()).await.map(Seq)
    }

    async fn seal(&self, log: &LogKey) -> Result<(), LogStoreError> {
        self.files
            .run("seal", log, |log| if log.is_sealed()? { Ok(()) } else { seal(&log.place) })
            .await
    }

    async fn read(&self, log: &LogKey, options: ReadOptions) -> Result<LogPage, LogStoreError> {
        let From::After(after) = options.from else {
            return Ok(self.files.read_page(log, options).await?.page);
        };
        let ReadOptions { max_items: items, max_bytes: bytes, .. } = options;
        let of_log = (log.execution, log.place.nonce);
        let id = PageId { log: of_log, after: after.0, items, bytes };
        // Whoever wants the same page at the same time waits for it and gets the same bytes.
        let joined = self.files.recent.join(id, || {
            let (files, log) = (self.files.clone(), log.clone());
            async move { files.read_page(&log, options).await.ok() }.boxed().shared()
        });
        match joined.reading.clone().await {
            // One that others began before us may not have what was written since, unless it was full even so.
            Some(shared) if joined.fresh || shared.full => Ok(shared.page),
            // Or it could not be read, and the error is for each to see.
            Some(_) | None => Ok(self.files.read_page(log, options).await?.page),
        }
    }

    async fn grown(&self, log: &LogKey, after: Seq) -> Result<(), LogStoreError> {
        let mut follower = self.follow(log).await?;
        let probe = ReadOptions { from: From::After(after), max_items: 1, max_bytes: 1 };
        loop {
            // Begun after the watch was set or told of a change: what comes later wakes us again.
            let page = self.files.read_page(log, probe).await?.page;
            if page.next > after || page.end {
                return Ok(());
            }
            follower.changed().await;
        }
    }

    async fn status(&self, log: &LogKey) -> Result<LogStatus, LogStoreError> {
        let status = |log: &Log| {
            let sealed = log.is_sealed()?;
            Ok((log.sums()?, sealed))
        };
        let (sums, sealed) = self.files.run("status", log, status).await?;
        Ok(LogStatus {
            last: Seq(sums.last_seq),
            entries: sums.entries,
            bytes: sums.bytes,
            dropped_bytes: sums.dropped_bytes,
            sealed,
        })
    }

    async fn remove(&self, log: &LogKey) -> Result<(), LogStoreError> {
        let identity = PlaceIdentity::decode(&log.place.identity);
        let runs = Arc::clone(&self.files.runs);
        let remove = move |log: &Log| {
            let here = Here::read();
            let ours = identity.is_some_and(|recorded| {
                recorded.machine(&here) != Match::Differs
                    && recorded.directory(&here, &runs, Some(&log.place)) == Match::Same
            });
            if !ours {
                return Err(io::Error::other("the place is not the recorded one"));
            }
            log.remove()
        };
        match self.files.run("remove", log, remove).await {
            Ok(()) | Err(LogStoreError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        self.files.recent.forget((log.execution, log.place.nonce));
        Ok(())
    }
}

/// One log, open.
#[derive(Debug)]
struct Log {
    place: PlaceDir,
    execution: ExecutionId,
    nonce: Nonce,
}

impl Log {
    fn open(runs: &Runs, execution: ExecutionId, nonce: Nonce) -> io::Result<Option<Self>> {
        let Some(place) = runs.place(execution, nonce)? else { return Ok(None) };
        if place.exists(REMOVED)? {
            return Ok(None);
        }
        Ok(Some(Self { place, execution, nonce }))
    }

    fn reader(&self) -> SegmentReader<'_> {
        SegmentReader::new(&self.place, self.execution, self.nonce)
    }

    /// Reads a page, and says whether it is the end.
    fn read(
        &self,
        from: From,
        hint: Option<Position>,
        limits: Limits,
    ) -> io::Result<(PageRead, bool)> {
        let reader = self.reader();
        // What is sealed before the reading does not grow during it.
        let ending = self.ending()?;
        let mut page = match from {
            From::After(after) => reader.read_after(after.0, hint, limits)?,
            From::Tail(count) => {
                reader.read_tail(usize::try_from(count).unwrap_or(usize::MAX), limits)?
            }
        };
        let Some(ending) = ending.filter(|_| !page.full) else { return Ok((page, false)) };
        match ending {
            // The journal knows of more than the segments have.
            Ending::At(end) if end.last_seq > page.next => {
                page.items.push(self.missing_tail(end, page.next)?);
                page.next = end.last_seq;
                page.position = None;
            }
            // It cannot say how much there was. Who has read the gap has read behind the last number.
            Ending::AsItIs if reader.ends_in_damage()? && page.next <= reader.last_seq()? => {
                let first = Seq(page.next + 1);
                let gap = LogItem::Gap { first, last: None, bytes: 0, cause: GapCause::Power };
                page.items.push(gap);
                page.next = first.0;
                page.position = None;
            }
            Ending::At(_) | Ending::AsItIs => {}
        }
        Ok((page, true))
    }

    /// Stands for the numbers after `last` that the segments do not have. The shim counted what it could not write.
    fn missing_tail(&self, end: End, last: u64) -> io::Result<LogItem> {
        let there = self.reader().sums()?;
        let bytes = end.bytes.saturating_sub(there.bytes);
        let was_dropped =
            bytes > 0 && end.dropped_bytes.saturating_sub(there.dropped_bytes) >= bytes;
        Ok(LogItem::Gap {
            first: Seq(last + 1),
            last: Some(Seq(end.last_seq)),
            bytes,
            cause: if was_dropped { GapCause::Full } else { GapCause::Power },
        })
    }

    /// Says whether and where the log ends for good.
    fn ending(&self) -> io::Result<Option<Ending>> {
        if let journal::Verdict::Readable(journal) = self.place.read_journal()? {
            if let Some(report) = journal.finished() {
                return Ok(Some(Ending::At(End {
                    last_seq: report.last_seq,
                    bytes: report.bytes,
                    dropped_bytes: report.dropped_bytes,
                })));
            }
            if journal.void().is_some() || journal.exec_failed().is_some() {
                return Ok(Some(Ending::AsItIs));
            }
        }
        Ok(self.place.exists(SEALED)?.then_some(Ending::AsItIs))
    }

    fn is_sealed(&self) -> io::Result<bool> {
        Ok(self.ending()?.is_some())
    }

    /// Sums it up; the journal's word counts where it has it.
    fn sums(&self) -> io::Result<Sums> {
        let mut sums = self.reader().sums()?;
        if let journal::Verdict::Readable(journal) = self.place.read_journal()?
            && let Some(report) = journal.finished()
        {
            sums.last_seq = report.last_seq;
            sums.bytes = report.bytes;
            sums.dropped_bytes = report.dropped_bytes;
        }
        Ok(sums)
    }

    /// Removes what was written. The lock says whether somebody writes.
    fn remove(&self) -> io::Result<()> {
        let Some(_lock) = self.place.try_lock()? else {
            return Err(io::Error::other("the log is being written"));
        };
        self.place.write_synced(REMOVED, b"")?;
        for name in self.place.files()? {
            if segment_index(&name).is_some() {
                self.place.unlink(&name)?;
            }
        }
        self.place.sync()
    }
}

/// The end of a log as its journal has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    last_seq: u64,
    bytes: u64,
    dropped_bytes: u64,
}

/// How a log that is complete ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// As the journal says, whether it is all there or not.
    At(End),
    /// With the last entry that can be read.
    AsItIs,
}

/// Marks the log of a place as complete. What its shim wrote and did not live to sync is on the disk before: from here on it
/// counts.
pub(crate) fn seal(place: &PlaceDir) -> io::Result<()> {
    for name in place.files()? {
        if segment_index(&name).is_some() {
            rustix::fs::fdatasync(place.open(&name, OFlags::RDONLY)?)?;
        }
    }
    drop(place.open(SEALED, OFlags::WRONLY | OFlags::CREATE)?);
    place.sync()
}

fn failed(op: &'static str, error: io::Error) -> LogStoreError {
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
    if full.contains(&error.kind()) {
        return LogStoreError::Full;
    }
    let transient = error.kind() != io::ErrorKind::Unsupported;
    LogStoreError::Backend(BackendError { backend: "files", op, transient, source: error.into() })
}
