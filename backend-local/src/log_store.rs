//! [`FileLogs`]: the segments that a shim writes are the log; nothing is stored twice.
//!
//! It never writes a log. It does not know sockets or processes: that a log is complete is told by the journal, or by a
//! marker beside it where the shim died.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rustix::fs::OFlags;
use tokio::sync::OnceCell;
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
use crate::segment_reader::{Limits, PageRead, Position, SegmentReader, Sums};

/// The marker of a log that nobody will write to any more, though its journal does not say so.
const SEALED: &str = "sealed";
/// The marker of a log that was removed.
const REMOVED: &str = "removed";

/// How many places of readers are remembered.
const POSITIONS: usize = 4096;
/// How many payload bytes of recent pages are kept for readers at the same place.
const SHARED_PAGE_BYTES: u64 = 8 << 20;

/// Logs in the segment files of their places.
#[derive(Debug)]
pub struct FileLogs {
    runs: Arc<Runs>,
    follow: Follow,
    recent: Arc<Mutex<Recent>>,
}

/// Names a log within its directory of places.
type LogId = (ExecutionId, Nonce);

/// What tells one page from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PageId {
    log: LogId,
    after: u64,
    items: usize,
    bytes: u64,
}

/// A page for whoever wants the same one.
#[derive(Clone, Debug)]
struct SharedPage {
    page: LogPage,
    /// A limit ended it, so that it is as it is for ever; else it may turn out to be the end.
    full: bool,
}

/// What is remembered of recent reads, all of it bounded, none of it needed.
#[derive(Debug, Default)]
struct Recent {
    /// Where numbers end, so that a reader goes on without a search.
    positions: HashMap<(LogId, u64), Position>,
    position_order: VecDeque<(LogId, u64)>,
    /// Pages that are being read, or were a moment ago.
    pages: HashMap<PageId, Arc<OnceCell<SharedPage>>>,
    page_order: VecDeque<(PageId, u64)>,
    /// Those in the order, for looking up.
    known: HashSet<PageId>,
    page_bytes: u64,
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
        Ok(Arc::new(Self { runs: Arc::new(runs), follow, recent: Arc::default() }))
    }

    /// Does something with a place, off the async threads.
    async fn run<R: Send + 'static>(
        &self,
        op: &'static str,
        log: &LogKey,
        work: impl FnOnce(&Log) -> io::Result<R> + Send + 'static,
    ) -> Result<R, LogStoreError> {
        let runs = Arc::clone(&self.runs);
        let (execution, nonce) = (log.execution, log.place.nonce);
        let found = tokio::task::spawn_blocking(move || {
            let Some(log) = Log::open(&runs, execution, nonce)? else { return Ok(None) };
            work(&log).map(Some)
        });
        match found.await {
            Ok(Ok(Some(result))) => Ok(result),
            Ok(Ok(None)) => Err(LogStoreError::NotFound { execution }),
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
            From::After(after) => self.recent().position(id, after.0),
            From::Tail(_) => None,
        };
        let read = move |log: &Log| log.read(options.from, hint, limits);
        let (page, end) = self.run("read", log, read).await?;
        if let Some(position) = page.position {
            self.recent().remember(id, page.next, position);
        }
        let (full, next) = (page.full, Seq(page.next));
        Ok(SharedPage { page: LogPage { items: page.items.into(), next, end }, full })
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to follow a log.
    async fn follow(&self, log: &LogKey) -> Result<Follower, LogStoreError> {
        let (execution, nonce) = (log.execution, log.place.nonce);
        let runs = Arc::clone(&self.runs);
        let place = tokio::task::spawn_blocking(move || runs.place(execution, nonce));
        let place = match place.await {
            Ok(Ok(Some(place))) => place,
            Ok(Ok(None)) => return Err(LogStoreError::NotFound { execution }),
            Ok(Err(error)) => return Err(failed("grown", error)),
            Err(error) => return Err(failed("grown", io::Error::other(error))),
        };
        self.follow.directory(place.fd()).map_err(|error| failed("grown", error))
    }
}

#[async_trait]
impl LogStore for FileLogs {
    async fn append(&self, log: &LogKey, _items: Vec<LogItem>) -> Result<Seq, LogStoreError> {
        self.run("append", log, |log| log.reader().last_seq()).await.map(Seq)
    }

    async fn seal(&self, log: &LogKey) -> Result<(), LogStoreError> {
        self.run("seal", log, |log| if log.is_sealed()? { Ok(()) } else { seal(&log.place) }).await
    }

    async fn read(&self, log: &LogKey, options: ReadOptions) -> Result<LogPage, LogStoreError> {
        let From::After(after) = options.from else {
            return Ok(self.read_page(log, options).await?.page);
        };
        let id = PageId {
            log: (log.execution, log.place.nonce),
            after: after.0,
            items: usize::try_from(options.max_items).unwrap_or(usize::MAX),
            bytes: options.max_bytes,
        };
        // Whoever wants the same page at the same time waits for it and gets the same bytes.
        let cell = Arc::clone(self.recent().pages.entry(id).or_default());
        let wanted = Wanted { recent: &self.recent, id, cell };
        let mut fresh = false;
        let read = || {
            fresh = true;
            self.read_page(log, options)
        };
        let SharedPage { page, full } = wanted.cell.get_or_try_init(read).await?.clone();
        if fresh || full || page.end || !self.run("read", log, Log::is_sealed).await? {
            return Ok(page);
        }
        // The log ended since then, perhaps with this page.
        self.recent().pages.remove(&id);
        Ok(self.read_page(log, options).await?.page)
    }

    async fn grown(&self, log: &LogKey, after: Seq) -> Result<(), LogStoreError> {
        let mut follower = self.follow(log).await?;
        loop {
            let from = From::After(after);
            // A page of the size that readers take, so that they find it read.
            let page =
                self.read(log, ReadOptions { from, max_items: 256, max_bytes: 1 << 20 }).await?;
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
        let (sums, sealed) = self.run("status", log, status).await?;
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
        let runs = Arc::clone(&self.runs);
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
        match self.run("remove", log, remove).await {
            Ok(()) | Err(LogStoreError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        self.recent().forget((log.execution, log.place.nonce));
        Ok(())
    }
}

impl Recent {
    fn position(&self, log: LogId, seq: u64) -> Option<Position> {
        self.positions.get(&(log, seq)).copied()
    }

    fn remember(&mut self, log: LogId, seq: u64, position: Position) {
        if self.positions.insert((log, seq), position).is_none() {
            self.position_order.push_back((log, seq));
        }
        while self.position_order.len() > POSITIONS {
            if let Some(oldest) = self.position_order.pop_front() {
                self.positions.remove(&oldest);
            }
        }
    }

    /// Keeps a page that was read, within bounds: what is in it never changes. An empty one may be filled later, and one
    /// that nobody reads any more is nothing to keep.
    fn settle(&mut self, id: PageId, cell: &Arc<OnceCell<SharedPage>>) {
        if !self.pages.get(&id).is_some_and(|there| Arc::ptr_eq(there, cell)) {
            return;
        }
        let Some(page) =
            cell.get().map(|shared| &shared.page).filter(|page| !page.items.is_empty())
        else {
            // Ours and the map's.
            if cell.initialized() || Arc::strong_count(cell) <= 2 {
                self.pages.remove(&id);
            }
            return;
        };
        if !self.known.insert(id) {
            return;
        }
        let bytes = page.items.iter().map(size).sum();
        self.page_order.push_back((id, bytes));
        self.page_bytes += bytes;
        while self.page_bytes > SHARED_PAGE_BYTES {
            let Some((oldest, bytes)) = self.page_order.pop_front() else { break };
            self.known.remove(&oldest);
            self.pages.remove(&oldest);
            self.page_bytes -= bytes;
        }
    }

    fn forget(&mut self, log: LogId) {
        self.positions.retain(|(id, _), _| *id != log);
        self.position_order.retain(|(id, _)| *id != log);
        self.pages.retain(|id, _| id.log != log);
        self.page_order.retain(|(id, _)| id.log != log);
        self.known.retain(|id| id.log != log);
        self.page_bytes = self.page_order.iter().map(|(_, bytes)| bytes).sum();
    }
}

/// A page that somebody waits for.
struct Wanted<'a> {
    recent: &'a Mutex<Recent>,
    id: PageId,
    cell: Arc<OnceCell<SharedPage>>,
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.settle(self.id, &self.cell);
    }
}

/// Returns about how much memory an item takes.
fn size(item: &LogItem) -> u64 {
    let own = size_of::<LogItem>() as u64;
    match item {
        LogItem::Entry { bytes, .. } => own + bytes.len() as u64,
        LogItem::Gap { .. } => own,
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
        if let Ending::At(last) = ending
            && last > page.next
        {
            // The journal knows of more than the segments have.
            page.items.push(LogItem::Gap {
                first: Seq(page.next + 1),
                last: Some(Seq(last)),
                bytes: 0,
                cause: GapCause::Power,
            });
            page.next = last;
            page.position = None;
        }
        Ok((page, true))
    }

    /// Says whether and where the log ends for good.
    fn ending(&self) -> io::Result<Option<Ending>> {
        if let journal::Verdict::Readable(journal) = self.place.read_journal()? {
            if let Some(report) = journal.finished() {
                return Ok(Some(Ending::At(report.last_seq)));
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

/// How a log that is complete ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// At this number, whether it is there or not.
    At(u64),
    /// With the last entry that can be read.
    AsItIs,
}

/// Marks the log of a place as complete.
pub(crate) fn seal(place: &PlaceDir) -> io::Result<()> {
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
