//! S: what the store holds durably, decoded.

use std::collections::BTreeMap;
use std::sync::Arc;

use windlass_core::id::{AttemptId, Epoch, ExecutionId};
use windlass_core::process_store::{ChangeNumber, Kind, RecordKey, Revision, Write};
use windlass_core::record::{
    AttemptRecord, ExecutionRecord, FollowUpRecord, Recorded as _, RequestRecord,
};
use windlass_core::snapshot::SnapshotRecord;

/// A record, decoded.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// An attempt.
    Attempt(Arc<AttemptRecord>),
    /// An execution.
    Execution(Arc<ExecutionRecord>),
    /// A request.
    Request(Arc<RequestRecord>),
    /// A message for an attempt.
    FollowUp(Arc<FollowUpRecord>),
    /// A snapshot.
    Snapshot(Arc<SnapshotRecord>),
    /// Anything else, or what cannot be read.
    Other,
}

/// A record with what the store keeps beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// How often it was written.
    pub revision: Revision,
    /// The batch that wrote it last.
    pub change: ChangeNumber,
    /// What it says.
    pub value: Value,
    /// What it said before this batch; `None` if it was not there.
    pub before: Option<Value>,
    /// How many bytes its body has.
    pub bytes: usize,
}

/// What the store holds durably.
#[derive(Clone, Debug, Default)]
pub struct Store {
    kept: BTreeMap<RecordKey, Kept>,
    last: ChangeNumber,
    epoch: Epoch,
}

fn decode(record: &windlass_core::process_store::Record) -> Value {
    match record.key.kind {
        Kind::Attempt => AttemptRecord::decode(record)
            .map_or(Value::Other, |record| Value::Attempt(Arc::new(record))),
        Kind::Execution => ExecutionRecord::decode(record)
            .map_or(Value::Other, |record| Value::Execution(Arc::new(record))),
        Kind::Request => RequestRecord::decode(record)
            .map_or(Value::Other, |record| Value::Request(Arc::new(record))),
        Kind::Snapshot => SnapshotRecord::decode(record)
            .map_or(Value::Other, |record| Value::Snapshot(Arc::new(record))),
        Kind::FollowUp => FollowUpRecord::decode(record)
            .map_or(Value::Other, |record| Value::FollowUp(Arc::new(record))),
        Kind::Project | Kind::Task | Kind::Input | Kind::Observation => Value::Other,
    }
}

impl Store {
    /// Takes a batch that is durable.
    pub fn take(&mut self, writes: &[Write], number: ChangeNumber) {
        self.last = number;
        for write in writes {
            match write {
                Write::Put { record, .. } => {
                    let former = self.kept.remove(&record.key);
                    let revision = Revision(former.as_ref().map_or(0, |kept| kept.revision.0) + 1);
                    let kept = Kept {
                        revision,
                        change: number,
                        value: decode(record),
                        before: former.map(|kept| kept.value),
                        bytes: record.body.len(),
                    };
                    self.kept.insert(record.key, kept);
                }
                Write::Delete { key, .. } => drop(self.kept.remove(key)),
            }
        }
    }

    /// Takes note that an epoch was acquired.
    pub fn acquired(&mut self, epoch: Epoch) {
        self.epoch = self.epoch.max(epoch);
    }

    /// Returns the highest epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Returns the number of the last batch.
    #[must_use]
    pub fn last(&self) -> ChangeNumber {
        self.last
    }

    /// Returns a record.
    #[must_use]
    pub fn get(&self, key: RecordKey) -> Option<&Kept> {
        self.kept.get(&key)
    }

    /// Returns all records.
    pub fn all(&self) -> impl Iterator<Item = (&RecordKey, &Kept)> {
        self.kept.iter()
    }

    /// Returns an execution.
    #[must_use]
    pub fn execution(&self, id: ExecutionId) -> Option<&Arc<ExecutionRecord>> {
        match &self.get(RecordKey { kind: Kind::Execution, id: id.0 })?.value {
            Value::Execution(record) => Some(record),
            Value::Attempt(_)
            | Value::Request(_)
            | Value::FollowUp(_)
            | Value::Snapshot(_)
            | Value::Other => None,
        }
    }

    /// Returns an attempt.
    #[must_use]
    pub fn attempt(&self, id: AttemptId) -> Option<&Arc<AttemptRecord>> {
        match &self.get(RecordKey { kind: Kind::Attempt, id: id.0 })?.value {
            Value::Attempt(record) => Some(record),
            Value::Execution(_)
            | Value::Request(_)
            | Value::FollowUp(_)
            | Value::Snapshot(_)
            | Value::Other => None,
        }
    }

    /// Returns all executions.
    pub fn executions(&self) -> impl Iterator<Item = &Arc<ExecutionRecord>> {
        self.kept.values().filter_map(|kept| match &kept.value {
            Value::Execution(record) => Some(record),
            Value::Attempt(_)
            | Value::Request(_)
            | Value::FollowUp(_)
            | Value::Snapshot(_)
            | Value::Other => None,
        })
    }

    /// Returns the executions of an attempt.
    pub fn executions_of(&self, attempt: AttemptId) -> impl Iterator<Item = &Arc<ExecutionRecord>> {
        self.executions().filter(move |record| record.attempt == attempt)
    }

    /// Returns all attempts.
    pub fn attempts(&self) -> impl Iterator<Item = &Arc<AttemptRecord>> {
        self.kept.values().filter_map(|kept| match &kept.value {
            Value::Attempt(record) => Some(record),
            Value::Execution(_)
            | Value::Request(_)
            | Value::FollowUp(_)
            | Value::Snapshot(_)
            | Value::Other => None,
        })
    }

    /// Returns all messages.
    pub fn follow_ups(&self) -> impl Iterator<Item = &Arc<FollowUpRecord>> {
        self.kept.values().filter_map(|kept| match &kept.value {
            Value::FollowUp(record) => Some(record),
            Value::Attempt(_)
            | Value::Execution(_)
            | Value::Request(_)
            | Value::Snapshot(_)
            | Value::Other => None,
        })
    }

    /// Returns all requests.
    pub fn requests(&self) -> impl Iterator<Item = &Arc<RequestRecord>> {
        self.kept.values().filter_map(|kept| match &kept.value {
            Value::Request(record) => Some(record),
            Value::Attempt(_)
            | Value::Execution(_)
            | Value::FollowUp(_)
            | Value::Snapshot(_)
            | Value::Other => None,
        })
    }
}
