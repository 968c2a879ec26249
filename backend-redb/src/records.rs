//! Decides batches against what is stored, and writes them.

use redb::{Database, ReadableDatabase as _, ReadableTable, Table, WriteTransaction};
use tokio::sync::oneshot;
use windlass_core::error::BackendError;
use windlass_core::id::{Epoch, HostId, NodeId};
use windlass_core::process_store::{
    ChangeNumber, Expect, Lease, ProcessStoreError, Record, RecordKey, Revision, Write,
};

use crate::db::BACKEND;
use crate::schema::{
    CHANGES, LEASES, PLACES, RECORDS, Told, Value, change_key, lease_value, places_of,
    read_change_key, read_lease, record_key, record_value,
};
use crate::writer::{Failure, Work, closed};

/// The largest body: what is larger would need that much memory in one piece.
const MAX_BODY_BYTES: usize = 1 << 30;

type Answer<T> = Result<T, ProcessStoreError>;

/// What the store of records is asked to write.
#[derive(Debug)]
pub(crate) enum RecordWork {
    Commit { writes: Vec<Write>, lease: Lease, reply: Reply<ChangeNumber> },
    Acquire { host: HostId, node: NodeId, reply: Reply<Lease> },
}

/// Who waits, and what he will be told if the group is committed.
#[derive(Debug)]
pub(crate) struct Reply<T> {
    sender: oneshot::Sender<Answer<T>>,
    answer: Option<Answer<T>>,
}

impl<T> Reply<T> {
    pub(crate) fn new() -> (Self, oneshot::Receiver<Answer<T>>) {
        let (sender, receiver) = oneshot::channel();
        (Self { sender, answer: None }, receiver)
    }

    fn send(self, op: &'static str, end: Result<(), &Failure>) {
        let answer = match (end, self.answer) {
            (Ok(()), answer) => answer.unwrap_or_else(|| Err(closed(op).into())),
            (Err(failure), _) if failure.full => Err(ProcessStoreError::Full),
            (Err(failure), _) => Err(failure.error(op).into()),
        };
        // Who no longer waits has no use for the answer.
        let _gone = self.sender.send(answer);
    }
}

/// The tables of a group that is being written.
pub(crate) struct Tables<'txn> {
    records: Table<'txn, &'static [u8], &'static [u8]>,
    places: Table<'txn, &'static [u8], ()>,
    changes: Table<'txn, &'static [u8], &'static [u8]>,
    leases: Table<'txn, &'static [u8], &'static [u8]>,
    last: u64,
}

/// What is stored of a record that a batch writes.
struct Before {
    revision: Revision,
    parent: Option<uuid::Uuid>,
    owner: Option<String>,
    places: Vec<Vec<u8>>,
}

impl Work for RecordWork {
    type Tables<'txn> = Tables<'txn>;

    fn open(transaction: &WriteTransaction) -> Result<Tables<'_>, redb::Error> {
        let changes = transaction.open_table(CHANGES)?;
        Ok(Tables {
            last: last_change(&changes)?.0,
            records: transaction.open_table(RECORDS)?,
            places: transaction.open_table(PLACES)?,
            changes,
            leases: transaction.open_table(LEASES)?,
        })
    }

    fn mark(database: &Database) -> Result<u64, redb::Error> {
        Ok(last_change(&database.begin_read()?.open_table(CHANGES)?)?.0)
    }

    fn size(&self) -> usize {
        match self {
            Self::Commit { writes, .. } => writes.iter().map(body_bytes).sum(),
            Self::Acquire { .. } => 0,
        }
    }

    fn write(&mut self, tables: &mut Tables<'_>) -> Result<bool, redb::Error> {
        match self {
            Self::Commit { writes, lease, reply } => {
                let answer = tables.commit(writes, *lease)?;
                let wrote = answer.is_ok();
                reply.answer = Some(answer);
                Ok(wrote)
            }
            Self::Acquire { host, node, reply } => {
                let answer = tables.acquire(*host, *node)?;
                let wrote = answer.is_ok();
                reply.answer = Some(answer);
                Ok(wrote)
            }
        }
    }

    fn answer(self, end: Result<(), &Failure>) {
        match self {
            Self::Commit { reply, .. } => reply.send("commit", end),
            Self::Acquire { reply, .. } => reply.send("acquire", end),
        }
    }

    fn leaves_something(&self) -> bool {
        false
    }

    fn tidy(_database: &Database) -> Result<bool, redb::Error> {
        Ok(false)
    }
}

/// Returns the number of the last batch.
pub(crate) fn last_change(
    changes: &impl ReadableTable<&'static [u8], &'static [u8]>,
) -> Result<ChangeNumber, redb::Error> {
    let Some((key, _)) = changes.last()? else { return Ok(ChangeNumber(0)) };
    let unreadable = || redb::Error::Corrupted("the last change has no number".to_owned());
    read_change_key(key.value()).ok_or_else(unreadable)
}

fn body_bytes(write: &Write) -> usize {
    match write {
        Write::Put { record, .. } => record.body.len(),
        Write::Delete { .. } => 0,
    }
}

impl Tables<'_> {
    /// Decides a batch; if it is accepted, writes it.
    fn commit(
        &mut self,
        writes: &[Write],
        lease: Lease,
    ) -> Result<Answer<ChangeNumber>, redb::Error> {
        if let Err(refusal) = self.check_lease(lease)? {
            return Ok(Err(refusal));
        }
        let mut before = Vec::with_capacity(writes.len());
        for write in writes {
            match self.check(write)? {
                Ok(found) => before.push(found),
                Err(refusal) => return Ok(Err(refusal)),
            }
        }
        let number = ChangeNumber(self.last + 1);
        for ((write, before), ordinal) in writes.iter().zip(before).zip(0..) {
            self.apply(number, ordinal, write, before)?;
        }
        self.last = number.0;
        Ok(Ok(number))
    }

    fn check_lease(&self, lease: Lease) -> Result<Answer<()>, redb::Error> {
        let holder = match self.lease(lease.node)? {
            Ok(holder) => holder,
            Err(damaged) => return Ok(Err(damaged)),
        };
        if holder == Some((lease.host, lease.epoch)) {
            return Ok(Ok(()));
        }
        let current = holder.map_or(Epoch(0), |(_, epoch)| epoch);
        Ok(Err(ProcessStoreError::Superseded { held: lease.epoch, current }))
    }

    fn lease(&self, node: NodeId) -> Result<Answer<Option<(HostId, Epoch)>>, redb::Error> {
        let key = node.0.as_bytes();
        let Some(value) = self.leases.get(key.as_slice())? else { return Ok(Ok(None)) };
        let damaged = || {
            let why = format!("the lease of node {node} is damaged");
            BackendError::permanent(BACKEND, "commit", why).into()
        };
        Ok(read_lease(key, value.value()).map(Some).ok_or_else(damaged))
    }

    fn acquire(&mut self, host: HostId, node: NodeId) -> Result<Answer<Lease>, redb::Error> {
        let epoch = match self.lease(node)? {
            Ok(holder) => Epoch(holder.map_or(0, |(_, epoch)| epoch.0) + 1),
            Err(damaged) => return Ok(Err(damaged)),
        };
        let value = lease_value(node, host, epoch);
        self.leases.insert(node.0.as_bytes().as_slice(), &*value)?;
        Ok(Ok(Lease { node, host, epoch }))
    }

    /// Checks what a write expects; returns what is stored.
    fn check(&self, write: &Write) -> Result<Answer<Option<Before>>, redb::Error> {
        let bytes = body_bytes(write);
        if bytes > MAX_BODY_BYTES {
            let why = format!("a body of {bytes} bytes is larger than {MAX_BODY_BYTES}");
            return Ok(Err(BackendError::permanent(BACKEND, "commit", why).into()));
        }
        let key = write.key();
        let stored_key = record_key(key);
        let stored = self.records.get(&*stored_key)?;
        let before = match stored.as_ref().map(|stored| Value::read(&stored_key, stored.value())) {
            None => None,
            Some(Err(reason)) => return Ok(Err(ProcessStoreError::Damaged { key, reason })),
            Some(Ok(value)) => Some(Before {
                revision: value.revision,
                parent: value.parent,
                owner: value.owner.map(str::to_owned),
                places: value.places(key),
            }),
        };
        let expected = match write {
            Write::Put { expect, .. } => *expect,
            Write::Delete { expect, .. } => Expect::At(*expect),
        };
        let found = before.as_ref().map(|before| before.revision);
        let met = match expected {
            Expect::Absent => found.is_none(),
            Expect::At(revision) => found == Some(revision),
        };
        if met {
            Ok(Ok(before))
        } else {
            Ok(Err(ProcessStoreError::Conflict { key, expected, found }))
        }
    }

    fn apply(
        &mut self,
        number: ChangeNumber,
        ordinal: u32,
        write: &Write,
        before: Option<Before>,
    ) -> Result<(), redb::Error> {
        let revision = Revision(before.as_ref().map_or(0, |before| before.revision.0) + 1);
        match write {
            Write::Put { record, .. } => {
                self.put(record, revision, number)?;
                let after = places_of(record);
                let places = before.map_or_else(Vec::new, |before| before.places);
                self.move_places(&places, &after)?;
                let told = Told {
                    key: record.key,
                    parent: record.parent,
                    owner: record.owner.as_deref(),
                    state: Some(&record.state),
                    revision,
                };
                self.tell(number, ordinal, told)
            }
            Write::Delete { key, .. } => {
                self.records.remove(&*record_key(*key))?;
                let Some(before) = before else { return Ok(()) };
                self.move_places(&before.places, &[])?;
                let (parent, owner) = (before.parent, before.owner.as_deref());
                let told = Told { key: *key, parent, owner, state: None, revision };
                self.tell(number, ordinal, told)
            }
        }
    }

    fn put(
        &mut self,
        record: &Record,
        revision: Revision,
        number: ChangeNumber,
    ) -> Result<(), redb::Error> {
        let key = record_key(record.key);
        self.records.insert(&*key, &*record_value(&key, record, revision, number))?;
        Ok(())
    }

    /// Takes a record from where it stood in the lists to where it stands now; touches only what differs.
    fn move_places(&mut self, before: &[Vec<u8>], after: &[Vec<u8>]) -> Result<(), redb::Error> {
        for place in before.iter().filter(|place| !after.contains(place)) {
            self.places.remove(&**place)?;
        }
        for place in after.iter().filter(|place| !before.contains(place)) {
            self.places.insert(&**place, ())?;
        }
        Ok(())
    }

    fn tell(
        &mut self,
        number: ChangeNumber,
        ordinal: u32,
        told: Told<'_>,
    ) -> Result<(), redb::Error> {
        let key = change_key(number, ordinal);
        self.changes.insert(key.as_slice(), &*told.value(&key))?;
        Ok(())
    }
}

/// Reads one record; what is damaged is an error of its own.
pub(crate) fn get(
    database: &Database,
    key: RecordKey,
) -> Result<Answer<Option<windlass_core::process_store::Stored>>, redb::Error> {
    let table = database.begin_read()?.open_table(RECORDS)?;
    let stored_key = record_key(key);
    let Some(value) = table.get(&*stored_key)? else { return Ok(Ok(None)) };
    let read = Value::read(&stored_key, value.value()).and_then(|value| value.stored(key));
    Ok(read.map(Some).map_err(|reason| ProcessStoreError::Damaged { key, reason }))
}
