//! What a log store remembers of recent reads: where numbers end, and pages that several readers want. All of it is
//! bounded, and none of it needed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use futures::future::{BoxFuture, Shared};
use windlass_core::id::{ExecutionId, Nonce};
use windlass_core::log_store::{LogItem, LogPage};

use crate::segment_reader::Position;

/// How many places of readers are remembered.
const POSITIONS: usize = 4096;
/// How many bytes recent pages may keep in memory for readers at the same place.
const SHARED_BYTES: u64 = 8 << 20;

/// Names a log within its directory of places.
pub(crate) type LogId = (ExecutionId, Nonce);

/// What tells one page from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PageId {
    pub(crate) log: LogId,
    pub(crate) after: u64,
    pub(crate) items: u32,
    pub(crate) bytes: u64,
}

/// A page for whoever wants the same one.
#[derive(Clone, Debug)]
pub(crate) struct SharedPage {
    pub(crate) page: LogPage,
    /// A limit ended it, so that it is as it is for ever.
    pub(crate) full: bool,
    /// The bytes that it keeps in memory.
    pub(crate) held: u64,
}

impl SharedPage {
    /// Counts what a page keeps in memory, the buffers that its items share included.
    pub(crate) fn new(page: LogPage, full: bool, buffered: u64) -> Self {
        let held = (page.items.len() * size_of::<LogItem>()) as u64 + buffered;
        Self { page, full, held }
    }
}

/// A page that is being read, or was. Whoever waits for it drives it, so that it does not depend on whoever came first.
/// `None` if it could not be read.
pub(crate) type Reading = Shared<BoxFuture<'static, Option<SharedPage>>>;

/// Remembers recent reads.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    positions: HashMap<(LogId, u64), Position>,
    position_order: VecDeque<(LogId, u64)>,
    pages: HashMap<PageId, Reading>,
    /// Those that were read and are kept, the oldest first, with what they hold.
    page_order: VecDeque<(PageId, u64)>,
    kept: HashSet<PageId>,
    held: u64,
}

impl Recent {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns where a number ends, if a reader was there.
    pub(crate) fn position(&self, log: LogId, seq: u64) -> Option<Position> {
        self.lock().positions.get(&(log, seq)).copied()
    }

    /// Remembers where a number ends.
    pub(crate) fn remember(&self, log: LogId, seq: u64, position: Position) {
        let mut inner = self.lock();
        if inner.positions.insert((log, seq), position).is_none() {
            inner.position_order.push_back((log, seq));
        }
        while inner.position_order.len() > POSITIONS {
            if let Some(oldest) = inner.position_order.pop_front() {
                inner.positions.remove(&oldest);
            }
        }
    }

    /// Joins whoever reads a page, or begins to; says whether it was begun.
    pub(crate) fn join(&self, id: PageId, begin: impl FnOnce() -> Reading) -> Joined<'_> {
        let mut inner = self.lock();
        let mut fresh = false;
        let reading = inner.pages.entry(id).or_insert_with(|| {
            fresh = true;
            begin()
        });
        Joined { reading: reading.clone(), recent: self, id, fresh }
    }

    /// Lets go of all that is remembered of a log.
    pub(crate) fn forget(&self, log: LogId) {
        let mut inner = self.lock();
        inner.positions.retain(|(id, _), _| *id != log);
        inner.position_order.retain(|(id, _)| *id != log);
        inner.pages.retain(|id, _| id.log != log);
        inner.page_order.retain(|(id, _)| id.log != log);
        inner.kept.retain(|id| id.log != log);
        inner.held = inner.page_order.iter().map(|(_, held)| held).sum();
    }
}

impl Inner {
    /// Keeps a full page that was read, within bounds: it never changes. Another one may grow, and one that nobody reads
    /// any more is nothing to keep.
    fn settle(&mut self, id: PageId, reading: &Reading) {
        if !self.pages.get(&id).is_some_and(|there| there.ptr_eq(reading)) {
            return;
        }
        let held = match reading.peek() {
            Some(Some(shared)) if shared.full => shared.held,
            Some(_) => {
                self.pages.remove(&id);
                return;
            }
            // Others than the map and us may still wait for it.
            None => {
                if reading.strong_count().is_none_or(|readers| readers <= 2) {
                    self.pages.remove(&id);
                }
                return;
            }
        };
        if !self.kept.insert(id) {
            return;
        }
        self.page_order.push_back((id, held));
        self.held += held;
        while self.held > SHARED_BYTES {
            let Some((oldest, held)) = self.page_order.pop_front() else { break };
            self.kept.remove(&oldest);
            self.pages.remove(&oldest);
            self.held -= held;
        }
    }
}

/// Somebody who waits for a page.
#[derive(Debug)]
pub(crate) struct Joined<'a> {
    pub(crate) reading: Reading,
    /// It was begun for us.
    pub(crate) fresh: bool,
    recent: &'a Recent,
    id: PageId,
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        self.recent.lock().settle(self.id, &self.reading);
    }
}
