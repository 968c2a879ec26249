//! [`Reference`]: what the port says that a store keeps, as a value.
//!
//! It is the yardstick of tests that do not know beforehand what comes, and was written from the contract alone: no backend
//! and no fake shares a line with it.

use std::collections::BTreeMap;
use std::future::Future;

use windlass_core::id::{Epoch, HostId, NodeId};
use windlass_core::process_store::{
    Change, ChangeNumber, Expect, Kind, Lease, ProcessStore, ProcessStoreError,
    ProcessStoreExt as _, Query, Record, RecordKey, Revision, Stored, Write, validate,
};

/// The most changes that are asked for at a time.
const CHANGES: u32 = 1_000;

/// Everything that a store keeps, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reference {
    visible: Visible,
    leases: BTreeMap<NodeId, (HostId, Epoch)>,
}

/// What of a store can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Visible {
    /// All records.
    pub records: BTreeMap<RecordKey, Stored>,
    /// All changes, in order.
    pub changes: Vec<Change>,
    /// The last batch.
    pub last: ChangeNumber,
}

/// How a write was answered, without what only people read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done and durable: a commit with its number, an acquisition with its epoch.
    Done(u64),
    /// What is stored is not what was expected.
    Conflict {
        /// The record.
        key: RecordKey,
        /// Where it is.
        found: Option<Revision>,
    },
    /// The lease does not hold.
    Superseded {
        /// The node's epoch.
        current: Epoch,
    },
    /// The batch breaks the contract.
    Invalid,
}

impl Answer {
    /// Reads an answer; `None` for one that leaves open what happened.
    #[must_use]
    pub fn of(answer: &Result<ChangeNumber, ProcessStoreError>) -> Option<Self> {
        match answer {
            Ok(number) => Some(Self::Done(number.0)),
            Err(ProcessStoreError::Conflict { key, found, .. }) => {
                Some(Self::Conflict { key: *key, found: *found })
            }
            Err(ProcessStoreError::Superseded { current, .. }) => {
                Some(Self::Superseded { current: *current })
            }
            Err(ProcessStoreError::Invalid { .. }) => Some(Self::Invalid),
            Err(
                ProcessStoreError::Damaged { .. }
                | ProcessStoreError::Newer { .. }
                | ProcessStoreError::Full
                | ProcessStoreError::Backend(_),
            ) => None,
        }
    }
}

impl Reference {
    /// Returns one that shows this, and of which nobody has a lease.
    #[must_use]
    pub fn showing(visible: Visible) -> Self {
        Self { visible, leases: BTreeMap::new() }
    }

    /// Returns what can be read of it.
    #[must_use]
    pub fn visible(&self) -> &Visible {
        &self.visible
    }

    /// Returns the epoch of a node, 0 if nobody ever acquired it.
    #[must_use]
    pub fn epoch(&self, node: NodeId) -> Epoch {
        self.leases.get(&node).map_or(Epoch(0), |(_, epoch)| *epoch)
    }

    /// Returns the revision of a record.
    #[must_use]
    pub fn revision(&self, key: RecordKey) -> Option<Revision> {
        self.visible.records.get(&key).map(|stored| stored.revision)
    }

    /// Raises the epoch of a node for a host.
    pub fn acquire(&mut self, host: HostId, node: NodeId) -> Lease {
        let epoch = Epoch(self.epoch(node).0 + 1);
        self.leases.insert(node, (host, epoch));
        Lease { node, host, epoch }
    }

    /// Applies a batch, or says why nothing of it happens. A batch may be refused for several of its writes: the first
    /// counts.
    pub fn commit(&mut self, batch: &[Write], lease: Lease) -> Answer {
        if validate(batch).is_err() {
            return Answer::Invalid;
        }
        if self.leases.get(&lease.node) != Some(&(lease.host, lease.epoch)) {
            return Answer::Superseded { current: self.epoch(lease.node) };
        }
        self.apply(batch)
    }

    /// Applies a batch of somebody whose lease holds, or says why nothing of it happens.
    pub fn apply(&mut self, batch: &[Write]) -> Answer {
        let refused = batch.iter().find_map(|write| {
            let (key, found) = (write.key(), self.revision(write.key()));
            let expected = match write {
                Write::Put { expect: Expect::Absent, .. } => None,
                Write::Put { expect: Expect::At(revision), .. }
                | Write::Delete { expect: revision, .. } => Some(*revision),
            };
            (found != expected).then_some(Answer::Conflict { key, found })
        });
        if let Some(refusal) = refused {
            return refusal;
        }
        self.visible.last.0 += 1;
        for write in batch {
            match write {
                Write::Put { record, .. } => self.put(record),
                Write::Delete { key, .. } => self.delete(*key),
            }
        }
        Answer::Done(self.visible.last.0)
    }

    fn put(&mut self, record: &Record) {
        let (number, key) = (self.visible.last, record.key);
        let revision = Revision(self.revision(key).map_or(1, |before| before.0 + 1));
        self.note(record, Some(record.state.clone()), revision);
        let stored = Stored { record: record.clone(), revision, change: number };
        self.visible.records.insert(key, stored);
    }

    fn delete(&mut self, key: RecordKey) {
        if let Some(gone) = self.visible.records.remove(&key) {
            self.note(&gone.record, None, Revision(gone.revision.0 + 1));
        }
    }

    fn note(&mut self, record: &Record, state: Option<String>, revision: Revision) {
        self.visible.changes.push(Change {
            number: self.visible.last,
            key: record.key,
            parent: record.parent,
            owner: record.owner.clone(),
            state,
            revision,
        });
    }
}

fn failed(what: &str, error: &ProcessStoreError) -> String {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |it| it.source());
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    format!("{what} failed: {}", causes.join(": "))
}

impl Visible {
    /// Reads all that a store shows of some kinds of records, in lists, and all changes.
    ///
    /// # Errors
    ///
    /// A sentence: the store failed, or a list is not in order.
    #[expect(clippy::manual_async_fn, reason = "a public async function here would be a case")]
    pub fn of(
        store: &dyn ProcessStore,
        kinds: &[Kind],
    ) -> impl Future<Output = Result<Self, String>> + Send {
        async move {
            let mut visible = Self::default();
            for kind in kinds {
                let listed = store.list_all(Query::newest(*kind, Query::MAX_LIMIT)).await;
                let listed = listed.map_err(|error| failed("a list", &error))?;
                let place = |stored: &Stored| (stored.record.at, stored.record.key.id);
                if !listed.is_sorted_by(|newer, older| place(newer) > place(older)) {
                    return Err(format!("a list is not newest first: {listed:?}"));
                }
                let listed = listed.into_iter().map(|stored| (stored.record.key, stored));
                visible.records.extend(listed);
            }
            loop {
                let after = visible.changes.last().map_or(ChangeNumber(0), |change| change.number);
                let page = store.changes(after, CHANGES).await;
                let page = page.map_err(|error| failed("the changes", &error))?;
                visible.last = page.last;
                if page.changes.is_empty()
                    || page.changes.last().map(|it| it.number) == Some(page.last)
                {
                    visible.changes.extend(page.changes);
                    return Ok(visible);
                }
                visible.changes.extend(page.changes);
            }
        }
    }

    /// Makes sure that each record is alone what it is in a list.
    ///
    /// # Errors
    ///
    /// A sentence: the store failed, or its methods contradict each other.
    #[expect(clippy::manual_async_fn, reason = "a public async function here would be a case")]
    pub fn is_each_alone(
        &self,
        store: &dyn ProcessStore,
    ) -> impl Future<Output = Result<(), String>> + Send {
        async move {
            for (key, listed) in &self.records {
                let got = store.get(*key).await.map_err(|error| failed("a read", &error))?;
                if got.as_ref() != Some(listed) {
                    return Err(format!("{key} is {listed:?} in a list and {got:?} alone"));
                }
            }
            Ok(())
        }
    }

    /// Returns the page that a query selects, by name.
    #[must_use]
    pub fn page(&self, query: &Query) -> Vec<RecordKey> {
        let selected = |stored: &&Stored| {
            let record = &stored.record;
            let ends = |end: &String| record.key.id.simple().to_string().ends_with(end.as_str());
            record.key.kind == query.kind
                && (query.states.is_empty() || query.states.contains(&record.state))
                && query.parent.is_none_or(|parent| record.parent == Some(parent))
                && query.owner.as_ref().is_none_or(|owner| record.owner.as_ref() == Some(owner))
                && query.id_suffix.as_ref().is_none_or(ends)
                && query.after.is_none_or(|after| (record.at, record.key.id) < (after.at, after.id))
        };
        let mut page: Vec<_> = self.records.values().filter(selected).collect();
        page.sort_by_key(|stored| std::cmp::Reverse((stored.record.at, stored.record.key.id)));
        let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
        page.into_iter().take(limit).map(|stored| stored.record.key).collect()
    }

    /// Says in which way it differs from what it should be.
    #[must_use]
    pub fn difference(&self, expected: &Self) -> Option<String> {
        if self.last != expected.last {
            return Some(format!("batch {} is the last, not {}", self.last.0, expected.last.0));
        }
        let mut keys: Vec<_> = self.records.keys().chain(expected.records.keys()).collect();
        keys.sort_unstable();
        if let Some(key) =
            keys.into_iter().find(|key| self.records.get(key) != expected.records.get(key))
        {
            let (found, wanted) = (self.records.get(key), expected.records.get(key));
            return Some(format!("{key} is {found:?}, not {wanted:?}"));
        }
        (self.changes != expected.changes)
            .then(|| format!("the changes are {:?}, not {:?}", self.changes, expected.changes))
    }
}
