//! [`Pumped`]: the port `LogStore` over two others, the segments that shims write and a store that keeps the logs.
//!
//! A shim writes the bytes once and needs nobody for that. A pump for each log copies them into the store that keeps
//! them, whose last number of a log is the pump's position: it is committed with the entries, so that the next host goes
//! on where this one was killed, and two that pump the same log do no harm. Readers get what is kept from the store that
//! keeps it and the rest from the segments, so that a pump that lags delays nobody.
//!
//! It does not know when an execution begins and ends: its host says so.

mod pump;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::channel::oneshot;
use futures::future::{AbortHandle, Abortable};
use windlass_core::id::ExecutionId;
use windlass_core::log_store::{
    From, LogItem, LogKey, LogPage, LogStatus, LogStore, LogStoreError, ReadOptions, Seq,
};
use windlass_core::record::LogSummary;

use self::pump::{Course, Pump, Turns};
use crate::runtime::Runtime;

/// Logs that shims write into segments, and that are moved into a store that keeps them.
///
/// Every log is in the segments until all of it is kept and its execution is final; then the segments are removed.
/// [`Builder::keep_logs_in`](crate::Builder::keep_logs_in) makes one; a host begins and ends its pumps.
pub struct Pumped {
    shared: Arc<Shared>,
}

impl fmt::Debug for Pumped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { segments, kept, .. } = &*self.shared;
        f.debug_struct("Pumped")
            .field("segments", segments)
            .field("kept", kept)
            .finish_non_exhaustive()
    }
}

/// What the pumps share.
struct Shared {
    segments: Arc<dyn LogStore>,
    kept: Arc<dyn LogStore>,
    runtime: Arc<dyn Runtime>,
    /// How long a pump waits after the first of several failures.
    retry: Duration,
    turns: Turns,
    pumps: Mutex<Pumps>,
}

/// The pumps that run.
#[derive(Default)]
struct Pumps {
    closed: bool,
    running: BTreeMap<ExecutionId, Arc<Pump>>,
}

impl Pumped {
    /// Puts `kept` behind `segments`. A pump whose store fails waits for `retry`, and longer each time.
    #[must_use]
    pub fn new<R: Runtime>(
        segments: Arc<dyn LogStore>,
        kept: Arc<dyn LogStore>,
        runtime: Arc<R>,
        retry: Duration,
    ) -> Arc<Self> {
        let (turns, pumps) = (Turns::new(), Mutex::default());
        let runtime: Arc<dyn Runtime> = runtime;
        Arc::new(Self { shared: Arc::new(Shared { segments, kept, runtime, retry, turns, pumps }) })
    }

    /// Begins to pump a log, unless that goes on already. `fresh` says that nothing of it can have been kept yet.
    pub fn begin(&self, log: LogKey, fresh: bool) {
        self.shared.begin(log, fresh);
    }

    /// Says that an execution is final: whatever its log still lacks of `known` never comes, and when all of it is kept
    /// its segments go.
    pub fn ended(&self, log: LogKey, known: Option<LogSummary>) {
        if let Some(pump) = self.shared.begin(log, false) {
            pump.end(known);
        }
    }

    /// Says whether there are segments of a log.
    ///
    /// # Errors
    ///
    /// As [`LogStore::read`], but for a log that is not there.
    pub async fn has_segments(&self, log: &LogKey) -> Result<bool, LogStoreError> {
        let first = ReadOptions { from: From::After(Seq(0)), max_items: 1, max_bytes: 1 };
        match self.shared.segments.read(log, first).await {
            Ok(_) => Ok(true),
            Err(LogStoreError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns the logs that are being pumped.
    #[must_use]
    pub fn running(&self) -> Vec<LogKey> {
        self.shared.pumps().running.values().map(|pump| pump.log().clone()).collect()
    }

    /// Ends all pumps, wherever they are, and begins no other. The next host goes on.
    pub fn close(&self) {
        let mut pumps = self.shared.pumps();
        pumps.closed = true;
        std::mem::take(&mut pumps.running).into_values().for_each(|pump| pump.abort());
    }
}

impl Shared {
    // Every state of the map is a valid one.
    fn pumps(&self) -> MutexGuard<'_, Pumps> {
        self.pumps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(self: &Arc<Self>, log: LogKey, fresh: bool) -> Option<Arc<Pump>> {
        let (abort, registration) = AbortHandle::new_pair();
        let (ended, has_ended) = oneshot::channel();
        let pump = {
            let mut pumps = self.pumps();
            if pumps.closed {
                return None;
            }
            match pumps.running.get(&log.execution) {
                Some(pump) if pump.log().place.nonce == log.place.nonce => {
                    return Some(Arc::clone(pump));
                }
                // Of a place in which nothing was started.
                Some(before) => before.abort(),
                None => {}
            }
            let pump = Arc::new(Pump::new(log, fresh, abort, ended));
            pumps.running.insert(pump.log().execution, Arc::clone(&pump));
            pump
        };
        let course = Course::new(Arc::clone(self), Arc::clone(&pump), has_ended);
        let (shared, own) = (Arc::clone(self), Arc::clone(&pump));
        self.runtime.spawn(Box::pin(async move {
            let _aborted = Abortable::new(course.run(), registration).await;
            shared.forget(&own);
        }));
        Some(pump)
    }

    fn forget(&self, pump: &Arc<Pump>) {
        let mut pumps = self.pumps();
        let execution = pump.log().execution;
        if pumps.running.get(&execution).is_some_and(|running| Arc::ptr_eq(running, pump)) {
            pumps.running.remove(&execution);
        }
    }

    /// Returns the pump of a log, if one runs.
    fn pump_of(&self, log: &LogKey) -> Option<Arc<Pump>> {
        let pump = self.pumps().running.get(&log.execution).map(Arc::clone);
        pump.filter(|pump| pump.log().place.nonce == log.place.nonce)
    }

    /// Returns up to which number a log is kept, if its pump knows.
    fn known(&self, log: &LogKey) -> Option<Seq> {
        self.pump_of(log)?.kept()
    }

    async fn read_after(
        &self,
        log: &LogKey,
        after: Seq,
        options: ReadOptions,
    ) -> Result<LogPage, LogStoreError> {
        if self.known(log).is_some_and(|kept| after >= kept) {
            match self.segments.read(log, options).await {
                // All of it was kept meanwhile.
                Err(LogStoreError::NotFound { .. }) => {}
                answer => return answer,
            }
        }
        let kept = match self.kept.read(log, options).await {
            Ok(page) if page.end => return Ok(page),
            Ok(page) if !page.items.is_empty() => return Ok(self.with_end(log, page).await),
            kept => kept,
        };
        // Not kept yet; or it cannot be read, and the segments may still have it.
        match self.segments.read(log, options).await {
            Err(LogStoreError::NotFound { .. }) => match kept {
                Err(error @ (LogStoreError::Full | LogStoreError::Backend(_))) => Err(error),
                // It may have been moved between the two looks.
                Ok(_) | Err(_) => self.kept.read(log, options).await,
            },
            answer => answer,
        }
    }

    /// Says of a page with everything that is kept whether anything follows it: the segments know.
    async fn with_end(&self, log: &LogKey, page: LogPage) -> LogPage {
        let kept = match self.known(log) {
            Some(kept) => Some(kept),
            None => self.kept.status(log).await.ok().map(|status| status.last),
        };
        if kept.is_none_or(|kept| page.next < kept) {
            return page;
        }
        let rest = ReadOptions { from: From::After(page.next), max_items: 1, max_bytes: 1 };
        // Without an answer, whoever reads on asks again.
        let rest = self.segments.read(log, rest).await;
        let end = rest.is_ok_and(|rest| rest.end && rest.items.is_empty());
        LogPage { end, ..page }
    }

    async fn read_tail(
        &self,
        log: &LogKey,
        options: ReadOptions,
    ) -> Result<LogPage, LogStoreError> {
        let kept = match self.kept.status(log).await {
            Ok(status) if status.sealed => return self.kept.read(log, options).await,
            Ok(status) => status.last,
            Err(_) => Seq(0),
        };
        // After a power cut more may be kept than the segments have.
        let tail = match self.segments.append(log, Vec::new()).await {
            Ok(last) if last < kept => return self.kept.read(log, options).await,
            Ok(_) => self.segments.read(log, options).await,
            Err(error) => Err(error),
        };
        match tail {
            Err(LogStoreError::NotFound { .. }) => self.kept.read(log, options).await,
            answer => answer,
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl LogStore for Pumped {
    async fn append(&self, log: &LogKey, items: Vec<LogItem>) -> Result<Seq, LogStoreError> {
        match self.shared.segments.append(log, items).await {
            Ok(last) => Ok(last.max(self.shared.known(log).unwrap_or_default())),
            Err(LogStoreError::NotFound { .. }) => Ok(self.shared.kept.status(log).await?.last),
            Err(error) => Err(error),
        }
    }

    async fn seal(&self, log: &LogKey) -> Result<(), LogStoreError> {
        match self.shared.segments.seal(log).await {
            // Then all of it is kept, and sealed.
            Err(LogStoreError::NotFound { .. }) => Ok(()),
            answer => answer,
        }
    }

    async fn read(&self, log: &LogKey, options: ReadOptions) -> Result<LogPage, LogStoreError> {
        match options.from {
            From::After(after) => self.shared.read_after(log, after, options).await,
            From::Tail(_) => self.shared.read_tail(log, options).await,
        }
    }

    async fn grown(&self, log: &LogKey, after: Seq) -> Result<(), LogStoreError> {
        let Shared { segments, kept, .. } = &*self.shared;
        let (last, sealed) = match self.shared.known(log) {
            Some(last) => (last, false),
            None => match kept.status(log).await {
                Ok(status) => (status.last, status.sealed),
                // Not kept yet; or it cannot be read, and the segments may still have it.
                Err(_) => (Seq(0), false),
            },
        };
        if last > after || sealed {
            return Ok(());
        }
        match segments.grown(log, after).await {
            // All of it was kept meanwhile.
            Err(LogStoreError::NotFound { .. }) => kept.grown(log, after).await,
            answer => answer,
        }
    }

    async fn status(&self, log: &LogKey) -> Result<LogStatus, LogStoreError> {
        let Shared { segments, kept, .. } = &*self.shared;
        let there = kept.status(log).await;
        if let Ok(status) = &there
            && status.sealed
        {
            return there;
        }
        match (segments.status(log).await, there) {
            // It may have been moved between the two looks.
            (Err(LogStoreError::NotFound { .. }), _) => kept.status(log).await,
            // After a power cut more may be kept than the segments have.
            (Ok(written), Ok(there)) if there.last > written.last => {
                Ok(LogStatus { sealed: written.sealed, ..there })
            }
            (answer, _) => answer,
        }
    }

    async fn remove(&self, log: &LogKey) -> Result<(), LogStoreError> {
        let Shared { segments, kept, .. } = &*self.shared;
        let pump = self.shared.pump_of(log);
        // Whatever it was doing is done, and it does nothing more, unless the removal is refused.
        let held = match &pump {
            Some(pump) => Some(pump.hold().await),
            None => None,
        };
        segments.remove(log).await?;
        kept.remove(log).await?;
        if let (Some(pump), Some(held)) = (&pump, held) {
            held.end();
            pump.abort();
            self.shared.forget(pump);
        }
        Ok(())
    }
}
