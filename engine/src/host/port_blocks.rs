//! Which blocks of ports the attempts have that are there: a new one gets another.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use windlass_core::driver::Ports;
use windlass_core::id::AttemptId;
use windlass_core::port_block::PortRange;
use windlass_core::process_store::{Kind, ProcessStoreExt as _, Query, Record};
use windlass_core::record::{AttemptRecord, AttemptStatus, Recorded as _};

use super::records::store_error;
use crate::error::EngineError;

/// The blocks that are given out. What the records say is read when the first run is asked for.
#[derive(Debug)]
pub(crate) struct PortBlocks {
    range: PortRange,
    taken: Mutex<Option<Taken>>,
}

/// Which attempt has which block, and how many have each.
#[derive(Debug, Default)]
struct Taken {
    of: BTreeMap<AttemptId, u16>,
    counts: BTreeMap<u16, u32>,
}

impl Taken {
    fn insert(&mut self, attempt: AttemptId, base: u16) {
        self.remove(attempt);
        self.of.insert(attempt, base);
        *self.counts.entry(base).or_insert(0) += 1;
    }

    fn remove(&mut self, attempt: AttemptId) {
        let Some(base) = self.of.remove(&attempt) else { return };
        if let Some(count) = self.counts.get_mut(&base) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&base);
            }
        }
    }
}

impl PortBlocks {
    pub(crate) fn new(range: PortRange) -> Self {
        Self { range, taken: Mutex::new(None) }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Option<Taken>) -> T) -> T {
        work(&mut self.taken.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads which blocks are given out, once.
    pub(super) async fn load(&self, ports: &Ports) -> Result<(), EngineError> {
        if self.with(|taken| taken.is_some()) {
            return Ok(());
        }
        let mut query = Query::newest(Kind::Attempt, Query::MAX_LIMIT);
        let there = AttemptStatus::ALL.into_iter().filter(|status| !is_gone(status.as_str()));
        query.states = there.map(|status| status.as_str().to_owned()).collect();
        let stored = ports.store.list_all(query).await.map_err(store_error)?;
        // What a newer version wrote is left as it is.
        let records = stored.iter().filter_map(|one| AttemptRecord::decode(&one.record).ok());
        let found: Vec<_> = records.filter_map(|it| Some((it.id, it.port_base?))).collect();
        self.with(|taken| {
            let taken = taken.get_or_insert_default();
            found.into_iter().for_each(|(attempt, base)| taken.insert(attempt, base));
        });
        Ok(())
    }

    /// Gives a block to a new attempt; none before what is given out was read.
    pub(super) fn take(&self, attempt: AttemptId) -> Option<u16> {
        self.with(|taken| {
            let taken = taken.as_mut()?;
            let is_taken = |base| taken.counts.contains_key(&base);
            let base = self.range.block_for(attempt, is_taken)?;
            taken.insert(attempt, base);
            Some(base)
        })
    }

    /// Notes what a batch says: the block of an attempt that is gone is free, one that is made again has it back.
    pub(super) fn note(&self, record: &Record) {
        if record.key.kind != Kind::Attempt {
            return;
        }
        let attempt = AttemptId(record.key.id);
        if is_gone(&record.state) {
            self.with(|taken| taken.iter_mut().for_each(|taken| taken.remove(attempt)));
        } else if record.state == AttemptStatus::Creating.as_str()
            && let Ok(AttemptRecord { port_base: Some(base), .. }) = AttemptRecord::decode(record)
        {
            self.with(|taken| taken.iter_mut().for_each(|taken| taken.insert(attempt, base)));
        }
    }
}

/// Says whether an attempt with this status has no workspace.
fn is_gone(status: &str) -> bool {
    [AttemptStatus::Removed, AttemptStatus::Failed].iter().any(|gone| gone.as_str() == status)
}
