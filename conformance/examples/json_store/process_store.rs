//! [`JsonStore`]: the port `ProcessStore` on one file of JSON, to show what a backend has to do and no more.
//!
//! The file has a line for each batch and for each lease; what they amount to is in memory. A store for real use finds
//! what it lists by an index, lets concurrent commits share a sync, and does not keep what was overwritten.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use windlass_core::error::BackendError;
use windlass_core::id::{Epoch, HostId, NodeId};
use windlass_core::process_store::{
    Change, ChangeNumber, ChangePage, CheckReport, Cursor, Expect, Lease, Page, ProcessStore,
    ProcessStoreError, Query, Record, RecordKey, Revision, Stored, Write, validate, validate_query,
};
use windlass_core::time::Timestamp;

type Answer<T> = Result<T, ProcessStoreError>;

/// The format that this code writes.
const FORMAT: u32 = 1;
const FIRST_LINE: &[u8] = b"{\"Format\":1}\n";

/// A line of the file. The first one tells the format.
#[derive(Serialize, Deserialize)]
enum Line {
    Format(u32),
    Lease(NodeId, HostId, Epoch),
    Batch(Vec<Written>),
}

/// What a batch wrote; what it expected was met.
#[derive(Serialize, Deserialize)]
enum Written {
    Put(#[serde(with = "Fields")] Record),
    Deleted(RecordKey),
}

/// The fields of a record, for serde.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Record")]
struct Fields {
    key: RecordKey,
    parent: Option<Uuid>,
    owner: Option<String>,
    state: String,
    at: Timestamp,
    body: String,
}

/// What the lines amount to.
#[derive(Debug, Default)]
struct Contents {
    records: BTreeMap<RecordKey, Stored>,
    changes: Vec<Change>,
    leases: BTreeMap<NodeId, (HostId, Epoch)>,
}

impl Contents {
    fn last(&self) -> ChangeNumber {
        self.changes.last().map_or(ChangeNumber(0), |change| change.number)
    }

    /// Says whether the whole of a batch may be written.
    fn check(&self, batch: &[Write], lease: Lease) -> Answer<()> {
        let holder = self.leases.get(&lease.node).copied();
        if holder != Some((lease.host, lease.epoch)) {
            let current = holder.map_or(Epoch(0), |holder| holder.1);
            return Err(ProcessStoreError::Superseded { held: lease.epoch, current });
        }
        for write in batch {
            let key = write.key();
            let expected = match write {
                Write::Put { expect, .. } => *expect,
                Write::Delete { expect, .. } => Expect::At(*expect),
            };
            let found = self.records.get(&key).map(|stored| stored.revision);
            if found.map_or(Expect::Absent, Expect::At) != expected {
                return Err(ProcessStoreError::Conflict { key, expected, found });
            }
        }
        Ok(())
    }

    fn apply(&mut self, line: Line) {
        match line {
            Line::Format(_) => {}
            Line::Lease(node, host, epoch) => {
                self.leases.insert(node, (host, epoch));
            }
            Line::Batch(batch) => {
                let number = ChangeNumber(self.last().0 + 1);
                batch.into_iter().for_each(|written| self.write(number, written));
            }
        }
    }

    fn write(&mut self, number: ChangeNumber, written: Written) {
        let (Written::Put(Record { key, .. }) | Written::Deleted(key)) = written;
        let before = self.records.remove(&key);
        let revision = Revision(before.as_ref().map_or(0, |before| before.revision.0) + 1);
        let mut told = before.map(|before| before.record);
        let mut state = None;
        if let Written::Put(record) = written {
            state = Some(record.state.clone());
            told = Some(record.clone());
            self.records.insert(key, Stored { record, revision, change: number });
        }
        let (parent, owner) = told.map_or((None, None), |told| (told.parent, told.owner));
        self.changes.push(Change { number, key, parent, owner, state, revision });
    }

    fn list(&self, query: &Query) -> Page {
        let mut found: Vec<_> = self.records.values().filter(|it| selects(query, it)).collect();
        found.sort_unstable_by_key(|it| Reverse((it.record.at, it.record.key.id)));
        let limit = query.limit as usize;
        let last = found.get(limit - 1).filter(|_| found.len() > limit);
        let next = last.map(|last| Cursor { at: last.record.at, id: last.record.key.id });
        Page { records: found.into_iter().take(limit).cloned().collect(), next }
    }

    fn changes(&self, after: ChangeNumber, limit: u32) -> ChangePage {
        let rest = &self.changes[self.changes.partition_point(|it| it.number <= after)..];
        let wanted = &rest[..rest.len().min(limit as usize)];
        // A batch is never cut in two.
        let end =
            wanted.last().map_or(0, |last| rest.partition_point(|it| it.number <= last.number));
        ChangePage { changes: rest[..end].to_vec(), last: self.last() }
    }
}

/// Says whether a list has this record, after its cursor.
fn selects(query: &Query, stored: &Stored) -> bool {
    let Record { key, parent, owner, state, at, .. } = &stored.record;
    let ends_with = |end: &String| key.id.simple().to_string().ends_with(end.as_str());
    key.kind == query.kind
        && (query.states.is_empty() || query.states.contains(state))
        && (query.parent.is_none() || query.parent == *parent)
        && (query.owner.is_none() || query.owner == *owner)
        && query.id_suffix.as_ref().is_none_or(ends_with)
        && query.after.is_none_or(|after| (*at, key.id) < (after.at, after.id))
}

/// Records in one file, which one process has open.
#[derive(Debug)]
pub(crate) struct JsonStore(Arc<Mutex<Option<Opened>>>);

#[derive(Debug)]
struct Opened {
    /// Locked.
    file: File,
    /// Where the last line ends that is whole.
    end: u64,
    contents: Contents,
    /// A write may or may not have happened: only the file knows.
    in_doubt: bool,
}

impl JsonStore {
    /// Opens the file at `path`, which need not be there.
    pub(crate) fn open(path: &Path) -> Answer<Self> {
        let options =
            File::options().read(true).write(true).create(true).truncate(false).open(path);
        let file = options.map_err(|error| failed("open", error))?;
        // Whoever has it will let go of it.
        file.try_lock().map_err(|error| BackendError::transient("json", "open", error))?;
        let mut opened = Opened { file, end: 0, contents: Contents::default(), in_doubt: false };
        opened.read()?;
        Ok(Self(Arc::new(Mutex::new(Some(opened)))))
    }

    /// Lets somebody else open the file. Later calls fail.
    pub(crate) fn close(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Does something with the file, on a thread that may block.
    async fn run<T: Send + 'static>(
        &self,
        op: &'static str,
        work: impl FnOnce(&mut Opened) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        let opened = Arc::clone(&self.0);
        let worked = tokio::task::spawn_blocking(move || {
            let mut opened = opened.lock().unwrap_or_else(PoisonError::into_inner);
            let closed = || BackendError::permanent("json", op, "the store was closed");
            let opened = opened.as_mut().ok_or_else(closed)?;
            if opened.in_doubt {
                opened.read()?;
            }
            work(opened)
        });
        worked.await.map_err(|error| BackendError::permanent("json", op, error))?
    }
}

impl Opened {
    /// Reads the file; cuts off a last line that was torn by a crash: nobody was told that it was written.
    fn read(&mut self) -> Answer<()> {
        let mut text = Vec::new();
        let read = self.file.rewind().and_then(|()| self.file.read_to_end(&mut text));
        read.map_err(|error| failed("read", error))?;
        let (mut end, mut contents) = (0, Contents::default());
        for line in text.split_inclusive(|byte| *byte == b'\n').filter(|it| it.ends_with(b"\n")) {
            let line_end = end + line.len();
            match serde_json::from_slice(line) {
                Ok(Line::Format(found)) if found > FORMAT => {
                    return Err(ProcessStoreError::Newer { found, known: FORMAT });
                }
                Ok(line) => contents.apply(line),
                Err(_) if line_end == text.len() && end > 0 => break,
                Err(error) => return Err(failed("read", error)),
            }
            end = line_end;
        }
        (self.end, self.contents, self.in_doubt) = (end as u64, contents, false);
        if end > 0 {
            return Ok(());
        }
        if !FIRST_LINE.starts_with(&text) {
            return Err(BackendError::permanent("json", "open", "it is no store").into());
        }
        self.append("open", Line::Format(FORMAT))
    }

    /// Writes a line, syncs it, and only then takes it for true.
    fn append(&mut self, op: &'static str, line: Line) -> Answer<()> {
        let mut text = serde_json::to_vec(&line).map_err(|error| failed(op, error))?;
        text.push(b'\n');
        self.in_doubt = true;
        let at_end = self.file.set_len(self.end).and_then(|()| self.file.seek(SeekFrom::End(0)));
        match at_end.and_then(|_| self.file.write_all(&text)) {
            // Half a line is none, so that want of room is a refusal.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                return Err(ProcessStoreError::Full);
            }
            written => written.and_then(|()| self.file.sync_all()).map_err(|e| failed(op, e))?,
        }
        self.end += text.len() as u64;
        self.in_doubt = false;
        self.contents.apply(line);
        Ok(())
    }
}

fn failed(op: &'static str, error: impl Into<io::Error>) -> ProcessStoreError {
    BackendError::permanent("json", op, error.into()).into()
}

#[async_trait]
impl ProcessStore for JsonStore {
    async fn acquire(&self, host: HostId, node: NodeId) -> Answer<Lease> {
        let acquire = move |opened: &mut Opened| {
            let epoch = Epoch(opened.contents.leases.get(&node).map_or(0, |holder| holder.1.0) + 1);
            opened.append("acquire", Line::Lease(node, host, epoch))?;
            Ok(Lease { node, host, epoch })
        };
        self.run("acquire", acquire).await
    }

    async fn commit(&self, batch: Vec<Write>, lease: Lease) -> Answer<ChangeNumber> {
        validate(&batch)?;
        let commit = move |opened: &mut Opened| {
            opened.contents.check(&batch, lease)?;
            let written = batch.into_iter().map(|write| match write {
                Write::Put { record, .. } => Written::Put(record),
                Write::Delete { key, .. } => Written::Deleted(key),
            });
            opened.append("commit", Line::Batch(written.collect()))?;
            Ok(opened.contents.last())
        };
        self.run("commit", commit).await
    }

    async fn get(&self, key: RecordKey) -> Answer<Option<Stored>> {
        self.run("get", move |opened| Ok(opened.contents.records.get(&key).cloned())).await
    }

    async fn list(&self, query: Query) -> Answer<Page> {
        validate_query(&query)?;
        self.run("list", move |opened| Ok(opened.contents.list(&query))).await
    }

    async fn changes(&self, after: ChangeNumber, limit: u32) -> Answer<ChangePage> {
        self.run("changes", move |opened| Ok(opened.contents.changes(after, limit))).await
    }

    async fn check(&self) -> Answer<CheckReport> {
        let records = self.run("check", |opened| Ok(opened.contents.records.len())).await? as u64;
        Ok(CheckReport { records, ..CheckReport::default() })
    }
}
