//! [`MemoryStore`]: the port `ProcessStore` in memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;
use windlass_core::error::BackendError;
use windlass_core::id::{Epoch, HostId, NodeId};
use windlass_core::process_store::{
    Change, ChangeNumber, ChangePage, CheckReport, Cursor, Expect, Lease, Page, ProcessStore,
    ProcessStoreError, Query, Record, RecordKey, Revision, Stored, Write, validate, validate_query,
};

use crate::world::{Unsynced, World};

/// Everything that a store keeps: a value to clone, compare and look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    stored: BTreeMap<RecordKey, Stored>,
    leases: BTreeMap<NodeId, (HostId, Epoch)>,
    changes: Vec<Change>,
    last: ChangeNumber,
}

impl Records {
    /// Raises the epoch of a node and gives it to a host.
    pub fn acquire(&mut self, host: HostId, node: NodeId) -> Lease {
        let lease = self.leases.entry(node).or_insert((host, Epoch(0)));
        *lease = (host, Epoch(lease.1.0 + 1));
        Lease { node, host, epoch: lease.1 }
    }

    /// Writes all of a batch or nothing.
    ///
    /// # Errors
    ///
    /// Refusals only.
    pub fn commit(
        &mut self,
        batch: Vec<Write>,
        lease: Lease,
    ) -> Result<ChangeNumber, ProcessStoreError> {
        validate(&batch)?;
        self.check_lease(lease)?;
        for write in &batch {
            self.check_write(write)?;
        }
        self.last.0 += 1;
        let before = self.changes.len();
        for write in batch {
            let change = match write {
                Write::Put { record, .. } => self.put(record),
                Write::Delete { key, .. } => self.delete(key),
            };
            self.changes.extend(change);
        }
        assert!(self.changes.len() > before, "a batch without changes was checked as valid");
        Ok(self.last)
    }

    fn check_lease(&self, lease: Lease) -> Result<(), ProcessStoreError> {
        let holder = self.leases.get(&lease.node);
        if holder == Some(&(lease.host, lease.epoch)) {
            return Ok(());
        }
        let current = holder.map_or(Epoch(0), |(_, epoch)| *epoch);
        Err(ProcessStoreError::Superseded { held: lease.epoch, current })
    }

    fn check_write(&self, write: &Write) -> Result<(), ProcessStoreError> {
        let key = write.key();
        let expected = match write {
            Write::Put { expect, .. } => *expect,
            Write::Delete { expect, .. } => Expect::At(*expect),
        };
        let found = self.stored.get(&key).map(|stored| stored.revision);
        let met = match expected {
            Expect::Absent => found.is_none(),
            Expect::At(revision) => found == Some(revision),
        };
        if met { Ok(()) } else { Err(ProcessStoreError::Conflict { key, expected, found }) }
    }

    fn put(&mut self, record: Record) -> Option<Change> {
        let before = self.stored.get(&record.key).map_or(0, |stored| stored.revision.0);
        let change = Change {
            number: self.last,
            key: record.key,
            parent: record.parent,
            owner: record.owner.clone(),
            state: Some(record.state.clone()),
            revision: Revision(before + 1),
        };
        let stored = Stored { record, revision: change.revision, change: self.last };
        self.stored.insert(change.key, stored);
        Some(change)
    }

    fn delete(&mut self, key: RecordKey) -> Option<Change> {
        let Stored { record, revision, .. } = self.stored.remove(&key)?;
        Some(Change {
            number: self.last,
            key,
            parent: record.parent,
            owner: record.owner,
            state: None,
            revision: Revision(revision.0 + 1),
        })
    }

    /// Reads one record.
    #[must_use]
    pub fn get(&self, key: RecordKey) -> Option<&Stored> {
        self.stored.get(&key)
    }

    /// Reads one page, newest first.
    ///
    /// # Errors
    ///
    /// [`ProcessStoreError::Invalid`].
    pub fn list(&self, query: &Query) -> Result<Page, ProcessStoreError> {
        validate_query(query)?;
        let mut found: Vec<&Stored> =
            self.stored.values().filter(|stored| selects(query, &stored.record)).collect();
        found.sort_unstable_by_key(|stored| std::cmp::Reverse(place(&stored.record)));
        let limit = query.limit as usize;
        let next = match found.get(limit - 1) {
            Some(last) if found.len() > limit => {
                Some(Cursor { at: last.record.at, id: last.record.key.id })
            }
            _ => None,
        };
        Ok(Page { records: found.into_iter().take(limit).cloned().collect(), next })
    }

    /// Reads the changes after a number, whole batches.
    #[must_use]
    pub fn changes(&self, after: ChangeNumber, limit: u32) -> ChangePage {
        let rest = &self.changes[self.changes.partition_point(|change| change.number <= after)..];
        let wanted = rest.len().min(limit as usize);
        let end = match rest[..wanted].last() {
            Some(last) => rest.partition_point(|change| change.number <= last.number),
            None => 0,
        };
        ChangePage { changes: rest[..end].to_vec(), last: self.last }
    }
}

/// A place in the order of a list.
fn place(record: &Record) -> (u64, Uuid) {
    (record.at.0, record.key.id)
}

fn selects(query: &Query, record: &Record) -> bool {
    record.key.kind == query.kind
        && (query.states.is_empty() || query.states.contains(&record.state))
        && (query.parent.is_none() || record.parent == query.parent)
        && (query.owner.is_none() || record.owner == query.owner)
        && query
            .id_suffix
            .as_ref()
            .is_none_or(|end| record.key.id.simple().to_string().ends_with(end.as_str()))
        && query.after.is_none_or(|after| place(record) < (after.at.0, after.id))
}

/// The records of a world, and the batches that are on their way to the disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    records: Arc<Records>,
    /// Batches that were begun and not acknowledged, by their order.
    in_flight: BTreeMap<u64, (Vec<Write>, Lease)>,
    /// What the records were before, the newest first; kept only where reads are stale.
    past: VecDeque<Arc<Records>>,
    /// By how many batches reads are behind.
    behind: usize,
}

impl Store {
    fn commit(
        &mut self,
        batch: Vec<Write>,
        lease: Lease,
    ) -> Result<ChangeNumber, ProcessStoreError> {
        let before = Arc::clone(&self.records);
        let committed = Arc::make_mut(&mut self.records).commit(batch, lease);
        if committed.is_ok() {
            self.remember(before);
        }
        committed
    }

    fn remember(&mut self, before: Arc<Records>) {
        if self.behind > 0 {
            self.past.push_front(before);
            self.past.truncate(self.behind);
        }
    }

    /// Returns what readers see.
    fn seen(&self) -> &Records {
        self.past.back().unwrap_or(&self.records)
    }

    /// Loses power: of the batches that nobody was told of, so many happened to be written.
    pub(crate) fn lose(&mut self, unsynced: Unsynced) {
        let in_flight = std::mem::take(&mut self.in_flight);
        let kept = unsynced.kept(in_flight.len());
        for (batch, lease) in in_flight.into_values().take(kept) {
            // One that was refused changes nothing.
            let _refused = self.commit(batch, lease);
        }
        self.past.clear();
    }
}

impl World {
    /// Returns the records as they are on the disk: what is there after a power loss in which nothing on its way was kept.
    #[must_use]
    pub fn records(&self) -> Arc<Records> {
        self.look(|state| Arc::clone(&state.store.records))
    }

    /// Lets every read of the store answer with what was there so many batches ago, as a reader does that kept its
    /// snapshot; 0 ends that.
    pub fn set_stale_reads(&self, batches: usize) {
        self.edit(|state| {
            state.store.behind = batches;
            state.store.past.truncate(batches);
        });
    }
}

/// A store in memory. Clones share the records: opening again is cloning.
///
/// Unless its world says that a commit takes time, it never waits: every call is done when its future is polled first.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    world: World,
}

impl MemoryStore {
    /// Opens the store of a world. By default it is in a world of its own.
    #[must_use]
    pub fn new(world: World) -> Self {
        Self { world }
    }

    /// Opens a store over records, for example those of an earlier moment, in a world of its own.
    #[must_use]
    pub fn over(records: Records) -> Self {
        let store = Self::default();
        store.world.edit(|state| state.store.records = Arc::new(records));
        store
    }

    /// Returns the records as they are now.
    #[must_use]
    pub fn snapshot(&self) -> Records {
        (*self.world.records()).clone()
    }

    fn seen<T>(&self, look: impl FnOnce(&Records) -> T) -> T {
        self.world.look(|state| look(state.store.seen()))
    }
}

/// A batch that is on its way. Given up, it is as if it had never been, or written all the same: as the world says.
struct OnItsWay<'a> {
    world: &'a World,
    number: u64,
}

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        self.world.edit(|state| {
            state.alarms.remove(&self.number);
            if let Some((batch, lease)) = state.store.in_flight.remove(&self.number)
                && state.pace.keeps_dropped_commits
            {
                let _refused = state.store.commit(batch, lease);
            }
        });
    }
}

#[async_trait]
impl ProcessStore for MemoryStore {
    async fn acquire(&self, host: HostId, node: NodeId) -> Result<Lease, ProcessStoreError> {
        Ok(self.world.edit(|state| {
            let before = Arc::clone(&state.store.records);
            let lease = Arc::make_mut(&mut state.store.records).acquire(host, node);
            state.store.remember(before);
            lease
        }))
    }

    async fn commit(
        &self,
        batch: Vec<Write>,
        lease: Lease,
    ) -> Result<ChangeNumber, ProcessStoreError> {
        let mut batch = Some(batch);
        let begun = self.world.edit(|state| {
            let batch = batch.take().unwrap_or_default();
            if state.pace.commit_ms == 0 {
                return Err(state.store.commit(batch, lease));
            }
            let number = state.fresh_number();
            let due = state.now.plus_ms(state.pace.commit_ms);
            state.store.in_flight.insert(number, (batch, lease));
            state.alarms.insert(number, due);
            Ok((number, due))
        });
        let (number, due) = match begun {
            Ok(begun) => begun,
            Err(committed) => return committed,
        };
        let _on_its_way = OnItsWay { world: &self.world, number };
        self.world
            .wait(|state| {
                if !state.store.in_flight.contains_key(&number) {
                    let why = "the power was cut";
                    return Some(Err(BackendError::transient("memory", "commit", why).into()));
                }
                if state.now < due {
                    return None;
                }
                let (batch, lease) = state.store.in_flight.remove(&number)?;
                Some(state.store.commit(batch, lease))
            })
            .await
    }

    async fn get(&self, key: RecordKey) -> Result<Option<Stored>, ProcessStoreError> {
        Ok(self.seen(|records| records.get(key).cloned()))
    }

    async fn list(&self, query: Query) -> Result<Page, ProcessStoreError> {
        self.seen(|records| records.list(&query))
    }

    async fn changes(
        &self,
        after: ChangeNumber,
        limit: u32,
    ) -> Result<ChangePage, ProcessStoreError> {
        Ok(self.seen(|records| records.changes(after, limit)))
    }

    async fn check(&self) -> Result<CheckReport, ProcessStoreError> {
        let records = self.seen(|records| records.stored.len() as u64);
        Ok(CheckReport { records, ..CheckReport::default() })
    }
}
