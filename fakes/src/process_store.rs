//! [`MemoryStore`]: the port `ProcessStore` in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use uuid::Uuid;
use windlass_core::id::{Epoch, HostId, NodeId};
use windlass_core::process_store::{
    Change, ChangeNumber, ChangePage, CheckReport, Cursor, Expect, Lease, Page, ProcessStore,
    ProcessStoreError, Query, Record, RecordKey, Revision, Stored, Write, validate, validate_query,
};

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

/// A store in memory. Clones share the records: opening again is cloning.
///
/// It never waits: every call is done when its future is polled first.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    records: Arc<Mutex<Records>>,
}

impl MemoryStore {
    /// Opens a store over records, for example those of an earlier moment.
    #[must_use]
    pub fn over(records: Records) -> Self {
        Self { records: Arc::new(Mutex::new(records)) }
    }

    /// Returns the records as they are now.
    #[must_use]
    pub fn snapshot(&self) -> Records {
        self.records().clone()
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        // A failed assertion of one caller must not hide what the others see.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ProcessStore for MemoryStore {
    async fn acquire(&self, host: HostId, node: NodeId) -> Result<Lease, ProcessStoreError> {
        Ok(self.records().acquire(host, node))
    }

    async fn commit(
        &self,
        batch: Vec<Write>,
        lease: Lease,
    ) -> Result<ChangeNumber, ProcessStoreError> {
        self.records().commit(batch, lease)
    }

    async fn get(&self, key: RecordKey) -> Result<Option<Stored>, ProcessStoreError> {
        Ok(self.records().get(key).cloned())
    }

    async fn list(&self, query: Query) -> Result<Page, ProcessStoreError> {
        self.records().list(&query)
    }

    async fn changes(
        &self,
        after: ChangeNumber,
        limit: u32,
    ) -> Result<ChangePage, ProcessStoreError> {
        Ok(self.records().changes(after, limit))
    }

    async fn check(&self) -> Result<CheckReport, ProcessStoreError> {
        let records = self.records().stored.len() as u64;
        Ok(CheckReport { records, ..CheckReport::default() })
    }
}
