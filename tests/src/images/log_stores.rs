//! [`LogStores`]: logs under power loss, in each of our stores that keep what is appended.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use tokio::runtime::Runtime;
use uuid::Uuid;
use windlass_core::container_service::Place;
use windlass_core::id::{ExecutionId, Nonce};
use windlass_core::locator::Locator;
use windlass_core::log_store::{
    GapCause, LogItem, LogKey, LogStore, LogStoreError, LogStoreExt as _, Seq, Stream,
};
use windlass_core::time::Timestamp;
use windlass_redb::{RedbLogs, RedbOptions};
use windlass_sqlite::{SqliteLogs, SqliteOptions};

use super::campaign::Subject;
use super::process_stores::chain;
use super::random::Random;
use super::recorder::Recorder;
use super::recording::Recording;

/// How many logs there are.
const LOGS: usize = 3;

/// The store that is examined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStores {
    /// `SqliteLogs`.
    Sqlite,
    /// `RedbLogs`.
    Redb,
}

/// One that is open.
enum Opened {
    Sqlite(Arc<SqliteLogs>),
    Redb(Arc<RedbLogs>),
}

impl Opened {
    fn port(&self) -> &dyn LogStore {
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

impl LogStores {
    async fn open(self, root: &Path) -> Result<Opened, String> {
        let opened = match self {
            Self::Sqlite => {
                let options = SqliteOptions {
                    readers: 1,
                    reserve_bytes: 0,
                    log_reserve_bytes: 0,
                    ..SqliteOptions::default()
                };
                SqliteLogs::open(root.join("logs.db"), options).await.map(Opened::Sqlite)
            }
            Self::Redb => {
                let options = RedbOptions { cache_kib: 1_024, readers: 1, max_bytes: None };
                RedbLogs::open(root.join("logs.redb"), options).await.map(Opened::Redb)
            }
        };
        opened.map_err(|error| format!("it does not open: {}", chain(&error)))
    }
}

/// Names a log.
fn log(nth: usize) -> LogKey {
    let id = Uuid::from_u64_pair(1, nth as u64);
    let place = Place { locator: Locator::new("x"), nonce: Nonce(id), identity: String::new() };
    LogKey { execution: ExecutionId(id), place }
}

/// Returns what stands at a number in a log: always the same. Each eleventh is a gap.
fn item(nth: usize, seq: u64) -> LogItem {
    let seq_of = Seq(seq);
    let mut random = Random::new(nth as u64, seq);
    if seq.is_multiple_of(11) {
        let bytes = random.next() % 1_000;
        return LogItem::Gap { first: seq_of, last: Some(seq_of), bytes, cause: GapCause::Full };
    }
    let most = [20, 300, 5_000][random.below(3)];
    let bytes: Vec<u8> = (0..=random.below(most)).map(|_| random.next().to_le_bytes()[0]).collect();
    LogItem::Entry {
        seq: seq_of,
        at: Timestamp(seq),
        stream: if random.percent(50) { Stream::Stdout } else { Stream::Stderr },
        partial: random.percent(50),
        len: bytes.len() as u64,
        bytes: Bytes::from(bytes),
    }
}

fn items(nth: usize, first: u64, last: u64) -> Vec<LogItem> {
    (first..=last).map(|seq| item(nth, seq)).collect()
}

/// What may be of one log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// There is none.
    #[default]
    Missing,
    /// It ends at this number.
    Kept { last: u64, sealed: bool },
}

impl State {
    fn last(self) -> u64 {
        match self {
            Self::Missing => 0,
            Self::Kept { last, .. } => last,
        }
    }
}

/// What was asked for, and the moments of the call and of the answer.
#[derive(Clone, Copy, Debug)]
struct Step {
    to: State,
    begun: usize,
    answered: Option<usize>,
}

/// What was asked of each log, one after the other.
#[derive(Clone, Debug, Default)]
pub struct History {
    logs: [(State, Vec<Step>); LOGS],
}

impl History {
    fn now(&self, nth: usize) -> State {
        let (base, steps) = &self.logs[nth];
        steps.last().map_or(*base, |step| step.to)
    }

    /// Says why a log must not be like this.
    fn explain(
        &self,
        nth: usize,
        found: State,
        (first, last): (usize, usize),
    ) -> Result<(), String> {
        let (base, steps) = &self.logs[nth];
        let promised =
            steps.iter().take_while(|step| step.answered.is_some_and(|at| at <= last)).count();
        let begun = steps.iter().take_while(|step| step.begun < first).count();
        let state = |count: usize| match count.checked_sub(1) {
            Some(step) => steps[step].to,
            None => *base,
        };
        let mut allowed = state(promised) == found;
        for count in promised..begun.max(promised) {
            let (from, to) = (state(count), state(count + 1));
            // An append may have come to any of its items.
            let between = matches!(
                (to, found),
                (State::Kept { last: to, sealed: false }, State::Kept { last, sealed: false })
                    if (from.last()..=to).contains(&last)
            );
            allowed |= to == found || between;
        }
        if allowed {
            return Ok(());
        }
        Err(format!("log {nth} is {found:?}; {:?} was promised", state(promised)))
    }
}

struct Worker<'a> {
    recorder: Option<&'a Recorder>,
    history: History,
    random: Random,
}

impl Worker<'_> {
    /// Does something to some of the logs at the same time.
    async fn work(&mut self, store: &dyn LogStore) -> Result<(), String> {
        let recorder = self.recorder;
        let now = || recorder.map_or(0, Recorder::position);
        let mut calls = Vec::new();
        for nth in 0..LOGS {
            if self.random.percent(40) {
                continue;
            }
            let from = self.history.now(nth);
            let to = self.next(from);
            self.history.logs[nth].1.push(Step { to, begun: now(), answered: None });
            calls.push(async move {
                let key = log(nth);
                let done = match to {
                    State::Missing => store.remove(&key).await,
                    State::Kept { sealed: true, .. } => store.seal(&key).await,
                    State::Kept { last, .. } => {
                        let added = items(nth, from.last() + 1, last);
                        store.append(&key, added).await.map(|_| ())
                    }
                };
                (nth, now(), done)
            });
        }
        for (nth, moment, done) in join_all(calls).await {
            done.map_err(|error| format!("log {nth}: {}", chain(&error)))?;
            if let Some(step) = self.history.logs[nth].1.last_mut() {
                step.answered = Some(moment);
            }
        }
        Ok(())
    }

    fn next(&mut self, from: State) -> State {
        match from {
            State::Kept { sealed: true, .. } => State::Missing,
            State::Kept { last, .. } if self.random.percent(12) => {
                State::Kept { last, sealed: true }
            }
            State::Kept { .. } | State::Missing => {
                let last = from.last() + 1 + self.random.next() % 8;
                State::Kept { last, sealed: false }
            }
        }
    }
}

/// Reads a log whole and holds it against what was written.
async fn look(store: &dyn LogStore, nth: usize) -> Result<State, String> {
    let key = log(nth);
    let error = |error: LogStoreError| format!("log {nth}: {}", chain(&error));
    let status = match store.status(&key).await {
        Err(LogStoreError::NotFound { .. }) => return Ok(State::Missing),
        status => status.map_err(error)?,
    };
    let (mut next, mut found) = (Seq(0), Vec::new());
    loop {
        let page = store.page_after(&key, next).await.map_err(error)?;
        found.extend(page.items.iter().cloned());
        next = page.next;
        if page.items.is_empty() || page.end {
            break;
        }
    }
    if found != items(nth, 1, status.last.0) {
        return Err(format!("log {nth} is not a part of what was written: {found:?}"));
    }
    Ok(State::Kept { last: status.last.0, sealed: status.sealed })
}

impl Subject for LogStores {
    type History = History;

    fn name(&self) -> &'static str {
        match self {
            Self::Sqlite => "logs in SQLite",
            Self::Redb => "logs in redb",
        }
    }

    fn ignored(&self) -> &'static [&'static str] {
        &["-shm"]
    }

    fn record(
        &self,
        runtime: &Runtime,
        root: &Path,
        seed: u64,
    ) -> Result<(Recording, History), String> {
        let recorder = Recorder::start(root, self.ignored()).map_err(|error| error.to_string())?;
        let (history, random) = (History::default(), Random::new(seed, 1));
        let mut worker = Worker { recorder: Some(&recorder), history, random };
        runtime.block_on(async {
            for _life in 0..1 + worker.random.below(3) {
                let opened = self.open(root).await?;
                for _ in 0..3 + worker.random.below(8) {
                    worker.work(opened.port()).await?;
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
            let opened = self.open(root).await?;
            let examined = examine(opened.port(), history, moments, recorder).await;
            opened.close().await;
            examined
        })
    }
}

async fn examine(
    store: &dyn LogStore,
    history: &History,
    moments: (usize, usize),
    recorder: Option<&Recorder>,
) -> Result<History, String> {
    let mut after = History::default();
    for nth in 0..LOGS {
        let found = look(store, nth).await?;
        history.explain(nth, found, moments)?;
        after.logs[nth].0 = found;
    }
    let mut worker = Worker { recorder, history: after, random: Random::new(0, 2) };
    if recorder.is_some() {
        for _ in 0..2 {
            worker.work(store).await?;
        }
        for nth in 0..LOGS {
            let (found, wanted) = (look(store, nth).await?, worker.history.now(nth));
            if found != wanted {
                return Err(format!("log {nth} is {found:?}, not {wanted:?}"));
            }
        }
    }
    Ok(worker.history)
}
