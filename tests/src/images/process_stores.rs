//! [`ProcessStores`]: records under power loss, in each of our stores.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::join_all;
use tokio::runtime::Runtime;
use uuid::Uuid;
use windlass_conformance::process_store::reference::{Answer, Reference, Visible};
use windlass_core::id::{Epoch, HostId, NodeId};
use windlass_core::process_store::{Expect, Kind, Lease, ProcessStore, Record, RecordKey, Write};
use windlass_core::time::Timestamp;
use windlass_redb::{RedbOptions, RedbStore};
use windlass_sqlite::{SqliteOptions, SqliteStore};

use super::campaign::Subject;
use super::random::Random;
use super::recorder::Recorder;
use super::recording::Recording;

/// How many names there are.
const KEYS: u64 = 10;
const HOST: HostId = HostId(Uuid::from_u128(1));
const NODE: NodeId = NodeId(Uuid::from_u128(2));

/// The store that is examined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessStores {
    /// `SqliteStore`.
    Sqlite,
    /// `RedbStore`.
    Redb,
}

/// One that is open.
enum Opened {
    Sqlite(Arc<SqliteStore>),
    Redb(Arc<RedbStore>),
}

impl Opened {
    fn port(&self) -> &dyn ProcessStore {
        match self {
            Self::Sqlite(store) => &**store,
            Self::Redb(store) => &**store,
        }
    }

    async fn close(self) {
        match self {
            Self::Sqlite(store) => store.close().await,
            Self::Redb(store) => store.close().await,
        }
    }
}

impl ProcessStores {
    fn path(self, root: &Path) -> PathBuf {
        root.join(match self {
            Self::Sqlite => "windlass.db",
            Self::Redb => "windlass.redb",
        })
    }

    /// Opens it, with the room that it keeps for itself if it is to work.
    async fn open(self, root: &Path, works: bool) -> Result<Opened, String> {
        let path = self.path(root);
        let opened = match self {
            Self::Sqlite => {
                let room = if works { 64 << 10 } else { 0 };
                let options = SqliteOptions {
                    readers: 1,
                    reserve_bytes: room,
                    log_reserve_bytes: room,
                    ..SqliteOptions::default()
                };
                SqliteStore::open(path, options).await.map(Opened::Sqlite)
            }
            Self::Redb => {
                let options = RedbOptions { cache_kib: 1_024, readers: 1, max_bytes: None };
                RedbStore::open(path, options).await.map(Opened::Redb)
            }
        };
        opened.map_err(|error| format!("it does not open: {}", chain(&error)))
    }
}

/// Returns an error with all its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// A commit, and the moments of its call and of its answer.
#[derive(Clone, Debug)]
struct Attempt {
    batch: Vec<Write>,
    begun: usize,
    answered: Option<(usize, u64)>,
}

/// What was asked of a store, and what it promised.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// What it had before.
    base: Visible,
    base_epoch: Epoch,
    attempts: Vec<Attempt>,
    /// The moments of the calls and answers of acquisitions.
    acquisitions: Vec<(usize, Option<usize>)>,
}

impl History {
    /// Explains what a store shows by what was asked of it.
    ///
    /// # Errors
    ///
    /// A sentence: something promised is missing, or something is there that nobody asked for, or half of it.
    fn explain(&self, visible: &Visible, (first, last): (usize, usize)) -> Result<(), String> {
        let answered = |attempt: &Attempt| {
            attempt.answered.filter(|(moment, _)| *moment <= last).map(|(_, number)| number)
        };
        let mut reference = Reference::showing(self.base.clone());
        let mut open: Vec<&Attempt> =
            self.attempts.iter().filter(|attempt| attempt.begun < first).collect();
        for number in self.base.last.0 + 1..=visible.last.0 {
            let of_number = |change: &&_| {
                let change: &&windlass_core::process_store::Change = change;
                change.number.0 == number
            };
            let shown: Vec<_> = visible.changes.iter().filter(of_number).collect();
            let explained = open.iter().position(|attempt| {
                let mut next = reference.clone();
                answered(attempt).is_none_or(|given| given == number)
                    && next.apply(&attempt.batch) == Answer::Done(number)
                    && next.visible().changes.iter().filter(of_number).eq(shown.iter().copied())
            });
            let Some(explained) = explained else {
                return Err(format!("nobody asked for batch {number}: {shown:?}"));
            };
            reference.apply(&open.remove(explained).batch);
        }
        let promised =
            self.attempts.iter().filter_map(answered).find(|number| *number > visible.last.0);
        if let Some(number) = promised {
            return Err(format!("batch {number} was acknowledged and is gone"));
        }
        visible.difference(reference.visible()).map_or(Ok(()), Err)
    }

    /// Returns the lowest and the highest epoch that may be in force.
    fn epochs(&self, (first, last): (usize, usize)) -> (u64, u64) {
        let promised =
            |(_, answered): &&(usize, Option<usize>)| answered.is_some_and(|moment| moment <= last);
        let begun = |(begun, _): &&(usize, Option<usize>)| *begun < first;
        let count = |count: usize| self.base_epoch.0 + count as u64;
        let low = count(self.acquisitions.iter().filter(promised).count());
        (low, count(self.acquisitions.iter().filter(begun).count()).max(low))
    }
}

/// Gives a store work and writes down what it says.
struct Worker<'a> {
    recorder: Option<&'a Recorder>,
    history: History,
    /// What is stored, if everything was answered.
    reference: Reference,
    random: Random,
}

impl Worker<'_> {
    fn now(&self) -> usize {
        self.recorder.map_or(0, Recorder::position)
    }

    async fn acquire(&mut self, store: &dyn ProcessStore) -> Result<Lease, String> {
        let nth = self.history.acquisitions.len();
        let begun = self.now();
        self.history.acquisitions.push((begun, None));
        let lease = store.acquire(HOST, NODE).await;
        let lease = lease.map_err(|error| format!("an acquisition failed: {}", chain(&error)))?;
        self.history.acquisitions[nth].1 = Some(self.now());
        Ok(lease)
    }

    /// Makes a batch over names that no other batch of the same moment has.
    fn batch(&mut self, keys: std::ops::Range<u64>) -> Vec<Write> {
        let mut batch = Vec::new();
        for n in keys {
            if !batch.is_empty() && self.random.percent(50) {
                continue;
            }
            let key = RecordKey { kind: Kind::Execution, id: Uuid::from_u64_pair(n, n) };
            let write = match self.reference.revision(key) {
                Some(expect) if self.random.percent(25) => Write::Delete { key, expect },
                found => {
                    let expect = found.map_or(Expect::Absent, Expect::At);
                    Write::Put { record: self.record(key), expect }
                }
            };
            batch.push(write);
        }
        batch
    }

    fn record(&mut self, key: RecordKey) -> Record {
        let len = [10, 200, 3_000, 9_000][self.random.below(4)];
        let byte = char::from(b'a' + u8::try_from(self.random.below(26)).unwrap_or(0));
        let body = byte.to_string().repeat(1 + self.random.below(len));
        Record {
            key,
            parent: self.random.percent(50).then(|| Uuid::from_u64_pair(7, self.random.next() % 3)),
            owner: self.random.percent(50).then(|| "somebody".to_owned()),
            state: ["queued", "running", "ended"][self.random.below(3)].to_owned(),
            at: Timestamp(1_000 + self.random.next() % 5),
            body: format!("\"{body}\""),
        }
    }

    /// Commits up to three batches at the same time, each over names of its own.
    async fn commit(&mut self, store: &dyn ProcessStore, lease: Lease) -> Result<(), String> {
        let count = if self.random.percent(30) { 3 } else { 1 };
        let share = KEYS / count;
        let batches: Vec<_> =
            (0..count).map(|nth| self.batch(nth * share..(nth + 1) * share)).collect();
        self.commit_these(store, lease, batches).await
    }

    async fn commit_these(
        &mut self,
        store: &dyn ProcessStore,
        lease: Lease,
        batches: Vec<Vec<Write>>,
    ) -> Result<(), String> {
        let begun = self.now();
        let from = self.history.attempts.len();
        let attempts = batches.iter().cloned();
        self.history.attempts.extend(attempts.map(|batch| Attempt {
            batch,
            begun,
            answered: None,
        }));
        let recorder = self.recorder;
        let commits = batches.iter().map(|batch| async {
            let answer = store.commit(batch.clone(), lease).await;
            (recorder.map_or(0, Recorder::position), answer)
        });
        let mut answered = Vec::new();
        for (nth, (moment, answer)) in join_all(commits).await.into_iter().enumerate() {
            let number = answer.map_err(|error| format!("a commit failed: {}", chain(&error)))?;
            self.history.attempts[from + nth].answered = Some((moment, number.0));
            answered.push((number.0, nth));
        }
        answered.sort_unstable();
        for (number, nth) in answered {
            if self.reference.apply(&batches[nth]) != Answer::Done(number) {
                return Err(format!("batch {number} was applied against its condition"));
            }
        }
        Ok(())
    }
}

impl Subject for ProcessStores {
    type History = History;

    fn name(&self) -> &'static str {
        match self {
            Self::Sqlite => "records in SQLite",
            Self::Redb => "records in redb",
        }
    }

    fn ignored(&self) -> &'static [&'static str] {
        // The index of SQLite's log is rebuilt when the first one opens it.
        &["-shm"]
    }

    fn record(
        &self,
        runtime: &Runtime,
        root: &Path,
        seed: u64,
    ) -> Result<(Recording, History), String> {
        let recorder = Recorder::start(root, self.ignored()).map_err(|error| error.to_string())?;
        let mut worker = Worker {
            recorder: Some(&recorder),
            history: History::default(),
            reference: Reference::default(),
            random: Random::new(seed, 0),
        };
        runtime.block_on(async {
            for _life in 0..1 + worker.random.below(3) {
                let opened = self.open(root, true).await?;
                let lease = worker.acquire(opened.port()).await?;
                for _ in 0..2 + worker.random.below(6) {
                    worker.commit(opened.port(), lease).await?;
                }
                if let (Opened::Redb(store), true) = (&opened, worker.random.percent(20)) {
                    let compacted = store.compact().await;
                    compacted.map_err(|error| format!("no compaction: {}", chain(&error)))?;
                    worker.commit(opened.port(), lease).await?;
                }
                opened.close().await;
            }
            Ok::<_, String>(())
        })?;
        let history = worker.history;
        Ok((recorder.finish(), history))
    }

    fn examine(
        &self,
        runtime: &Runtime,
        root: &Path,
        history: &History,
        moments: (usize, usize),
        recorder: Option<&Recorder>,
    ) -> Result<History, String> {
        runtime.block_on(async {
            let opened = self.open(root, recorder.is_some()).await?;
            let examined = examine(opened.port(), history, moments, recorder).await;
            opened.close().await;
            examined
        })
    }
}

async fn examine(
    store: &dyn ProcessStore,
    history: &History,
    moments: (usize, usize),
    recorder: Option<&Recorder>,
) -> Result<History, String> {
    let visible = Visible::of(store, &[Kind::Execution]).await?;
    history.explain(&visible, moments)?;
    let report = store.check().await.map_err(|error| format!("no check: {}", chain(&error)))?;
    if !(report.set_aside.is_empty() && report.problems.is_empty()) {
        return Err(format!("its check reports {report:?}"));
    }
    if report.records != visible.records.len() as u64 {
        return Err(format!("it counts {} records, not {}", report.records, visible.records.len()));
    }
    // It goes on as if nothing had happened.
    let (low, high) = history.epochs(moments);
    let base = History { base: visible.clone(), ..History::default() };
    let reference = Reference::showing(visible);
    let mut worker = Worker { recorder, history: base, reference, random: Random::new(0, 0) };
    let lease = worker.acquire(store).await?;
    if !(low + 1..=high + 1).contains(&lease.epoch.0) {
        return Err(format!("epoch {} follows one from {low} to {high}", lease.epoch.0));
    }
    worker.history.base_epoch = Epoch(lease.epoch.0 - 1);
    if recorder.is_some() {
        worker.commit(store, lease).await?;
        let after = Visible::of(store, &Kind::ALL).await?;
        after.is_each_alone(store).await?;
        after.difference(worker.reference.visible()).map_or(Ok(()), Err)?;
    }
    Ok(worker.history)
}
