//! One pump: copies one log from its segments into the store that keeps it, seals it there, and removes the segments.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::channel::{mpsc, oneshot};
use futures::future::{AbortHandle, Either, select};
use windlass_core::log_store::{GapCause, LogItem, LogKey, LogStoreError, LogStoreExt as _, Seq};
use windlass_core::record::LogSummary;

use super::Shared;

/// How many pages are on their way at a time, for all logs together: that bounds the memory.
const PAGES: usize = 4;

/// How long what a command writes is gathered before it is copied. Nobody waits for it: readers have the segments.
const GATHER: Duration = Duration::from_millis(100);

/// Most doublings of the wait after failures.
const MOST_DOUBLINGS: u32 = 5;

/// How often the removal of segments is tried; what is left then, the next host removes.
const REMOVALS: u32 = 5;

/// Stands for a last number that is not known.
const UNKNOWN: u64 = u64::MAX;

/// What is known of a pump outside of it.
pub(super) struct Pump {
    log: LogKey,
    /// The last number that is kept.
    kept: AtomicU64,
    /// Locked while something is being written; true when nothing may be any more.
    removed: futures::lock::Mutex<bool>,
    ended: Mutex<Option<oneshot::Sender<Option<LogSummary>>>>,
    abort: AbortHandle,
}

impl Pump {
    pub(super) fn new(
        log: LogKey,
        fresh: bool,
        abort: AbortHandle,
        ended: oneshot::Sender<Option<LogSummary>>,
    ) -> Self {
        let kept = AtomicU64::new(if fresh { 0 } else { UNKNOWN });
        Self {
            log,
            kept,
            removed: futures::lock::Mutex::new(false),
            ended: Mutex::new(Some(ended)),
            abort,
        }
    }

    pub(super) fn log(&self) -> &LogKey {
        &self.log
    }

    /// Returns up to which number the log is kept, if that is known.
    pub(super) fn kept(&self) -> Option<Seq> {
        Some(self.kept.load(Ordering::Acquire)).filter(|last| *last != UNKNOWN).map(Seq)
    }

    /// Says that the execution is final.
    pub(super) fn end(&self, known: Option<LogSummary>) {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ended) = ended {
            // A pump that is gone needs no word.
            let _gone = ended.send(known);
        }
    }

    pub(super) fn abort(&self) {
        self.abort.abort();
    }

    /// Waits until nothing is being written, and keeps it so.
    pub(super) async fn hold(&self) -> Held<'_> {
        Held(self.removed.lock().await)
    }
}

/// Keeps a pump from writing.
pub(super) struct Held<'a>(futures::lock::MutexGuard<'a, bool>);

impl Held<'_> {
    /// Keeps it from writing for ever.
    pub(super) fn end(mut self) {
        *self.0 = true;
    }
}

/// The pages that may be on their way.
pub(super) struct Turns {
    free: futures::lock::Mutex<mpsc::Receiver<()>>,
    back: mpsc::Sender<()>,
}

/// Leave to have one page on its way.
struct Turn(mpsc::Sender<()>);

impl Drop for Turn {
    fn drop(&mut self) {
        // There is room for every turn that there is.
        let _given_back = self.0.try_send(());
    }
}

impl Turns {
    pub(super) fn new() -> Self {
        let (back, free) = mpsc::channel(PAGES);
        for _ in 0..PAGES {
            drop(Turn(back.clone()));
        }
        Self { free: futures::lock::Mutex::new(free), back }
    }

    async fn take(&self) -> Turn {
        // It never ends, for we have a sender.
        let _turn = self.free.lock().await.next().await;
        Turn(self.back.clone())
    }
}

/// What a step came to.
enum Next {
    GoOn,
    /// Nothing is left to do.
    Done,
}

/// What a pump does.
pub(super) struct Course {
    shared: Arc<Shared>,
    pump: Arc<Pump>,
    /// Tells that the execution is final; `None` once it did.
    ended: Option<oneshot::Receiver<Option<LogSummary>>>,
    /// The sums of an execution that is final.
    known: Option<LogSummary>,
    /// Everything up to here is kept.
    cursor: Seq,
    sealed: bool,
    failures: u32,
}

impl Course {
    pub(super) fn new(
        shared: Arc<Shared>,
        pump: Arc<Pump>,
        ended: oneshot::Receiver<Option<LogSummary>>,
    ) -> Self {
        let (known, cursor) = (None, Seq(0));
        Self { shared, pump, ended: Some(ended), known, cursor, sealed: false, failures: 0 }
    }

    /// Pumps until the execution is final and all of its log is kept, or the log is gone.
    pub(super) async fn run(mut self) {
        loop {
            match self.step().await {
                Ok(Next::GoOn) => self.failures = 0,
                Ok(Next::Done) | Err(LogStoreError::NotFound { .. }) => return,
                // Whoever sealed it knew that nothing follows; the segments stay, for they say something else.
                Err(LogStoreError::Sealed { .. }) => return,
                Err(_) if self.sealed && self.failures >= REMOVALS => return,
                // There is no room, or something else that may pass. The segments have it all.
                Err(
                    LogStoreError::Full | LogStoreError::Backend(_) | LogStoreError::NotNext { .. },
                ) => self.pause().await,
            }
        }
    }

    async fn pause(&mut self) {
        let doubled = 1 << self.failures.min(MOST_DOUBLINGS);
        self.failures = self.failures.saturating_add(1);
        self.shared.runtime.sleep(self.shared.retry.saturating_mul(doubled)).await;
    }

    /// Copies a page, waits for one, or ends the log.
    async fn step(&mut self) -> Result<Next, LogStoreError> {
        if self.sealed {
            self.shared.segments.remove(self.pump.log()).await?;
            return Ok(Next::Done);
        }
        let turn = self.shared.turns.take().await;
        let page = self.shared.segments.page_after(self.pump.log(), self.cursor).await?;
        if !page.items.is_empty() {
            // The first page tells how far the host before us came: what is kept is not added again.
            self.append(page.items.to_vec()).await?;
            return Ok(Next::GoOn);
        }
        drop(turn);
        if let Some(ended) = &mut self.ended {
            let known = if page.end {
                ended.await
            } else {
                let grown = self.shared.segments.grown(self.pump.log(), self.cursor);
                match select(grown, ended).await {
                    Either::Left((grown, _)) => {
                        grown?;
                        self.shared.runtime.sleep(GATHER).await;
                        return Ok(Next::GoOn);
                    }
                    Either::Right((known, _)) => known,
                }
            };
            // Nobody is left to say it.
            let Ok(known) = known else { return Ok(Next::Done) };
            (self.ended, self.known) = (None, known);
            // What was written until then is looked for once more.
            return Ok(Next::GoOn);
        }
        self.finish(page.end).await
    }

    /// Ends the log in the store that keeps it. Segments that end as they should are not needed any more.
    async fn finish(&mut self, whole: bool) -> Result<Next, LogStoreError> {
        // An empty log is one, too.
        self.append(Vec::new()).await?;
        if !whole && let Some(missing) = self.missing().await? {
            self.append(vec![missing]).await?;
        }
        let removed = self.pump.removed.lock().await;
        if *removed {
            return Ok(Next::Done);
        }
        self.shared.kept.seal(self.pump.log()).await?;
        drop(removed);
        if !whole {
            return Ok(Next::Done);
        }
        self.sealed = true;
        Ok(Next::GoOn)
    }

    /// Stands for what the execution is known to have written and its segments do not have.
    async fn missing(&self) -> Result<Option<LogItem>, LogStoreError> {
        let Some(known) = self.known.filter(|known| known.last_seq > self.cursor.0) else {
            return Ok(None);
        };
        let kept = self.shared.kept.status(self.pump.log()).await?;
        Ok(Some(LogItem::Gap {
            first: Seq(self.cursor.0.saturating_add(1)),
            last: Some(Seq(known.last_seq)),
            bytes: known.bytes.saturating_sub(kept.bytes),
            cause: GapCause::Power,
        }))
    }

    /// Appends what is not there yet; the position is then where the log ends.
    async fn append(&mut self, items: Vec<LogItem>) -> Result<(), LogStoreError> {
        let log = self.pump.log();
        let removed = self.pump.removed.lock().await;
        if *removed {
            return Err(LogStoreError::NotFound { execution: log.execution });
        }
        let kept = self.shared.kept.append(log, items).await;
        drop(removed);
        if let Err(LogStoreError::NotNext { end, .. }) = &kept {
            self.cursor = *end;
        }
        self.cursor = kept?;
        self.pump.kept.store(self.cursor.0, Ordering::Release);
        Ok(())
    }
}
