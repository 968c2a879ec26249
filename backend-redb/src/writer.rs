//! The one thread that writes: takes all waiting jobs, writes them in one transaction, syncs once, answers all.
//!
//! Each job is decided before it writes anything, on top of those before it in the group. So a refused one has nothing to
//! undo and its neighbours do not notice. If the group cannot be written, and it is certain that nothing of it was, each
//! job gets a transaction of its own, so that one for which there is no room does not take the others with it.

use std::sync::Arc;

use redb::{Database, WriteTransaction};
use tokio::sync::{mpsc, oneshot};
use windlass_core::error::BackendError;

use crate::db::{BACKEND, failed, failed_shared};
use crate::door::{Door, caught};
use crate::format::begin;

/// Most jobs that wait; who comes later waits for room.
const QUEUE: usize = 512;
/// Most jobs of a group.
const GROUP_JOBS: usize = 256;
/// Most bytes of a group, but always one job.
const GROUP_BYTES: usize = 8 << 20;

/// Something to write, and somebody who waits for the answer.
pub(crate) trait Work: Send + 'static {
    /// The tables that it writes to.
    type Tables<'txn>;

    /// Opens the tables.
    fn open(transaction: &WriteTransaction) -> Result<Self::Tables<'_>, redb::Error>;

    /// Returns a number that every group changes, unless repeating a group does no harm.
    fn mark(database: &Database) -> Result<u64, redb::Error>;

    /// Returns about how many bytes it writes.
    fn size(&self) -> usize;

    /// Decides, and writes unless it is refused; returns whether it wrote. May be called again after a failure.
    fn write(&mut self, tables: &mut Self::Tables<'_>) -> Result<bool, redb::Error>;

    /// Answers, after the group was committed or not.
    fn answer(self, end: Result<(), &Failure>);

    /// Says whether it leaves something to [tidy](Self::tidy) when it is done.
    fn leaves_something(&self) -> bool;

    /// Does a part of what nobody waits for, in a transaction of its own; returns whether something is left.
    fn tidy(database: &Database) -> Result<bool, redb::Error>;
}

/// Why a group failed.
#[derive(Debug)]
pub(crate) struct Failure {
    error: Arc<redb::Error>,
    /// Nothing of it was written, for certain.
    pub(crate) undone: bool,
    /// There was no room.
    pub(crate) full: bool,
}

impl Failure {
    /// Makes the error for one of those who wait.
    pub(crate) fn error(&self, op: &'static str) -> BackendError {
        failed_shared(op, &self.error)
    }
}

/// What the thread is asked for.
#[derive(Debug)]
enum Job<W> {
    Work(W),
    Compact { reply: oneshot::Sender<Result<bool, BackendError>> },
    Close { reply: oneshot::Sender<()> },
}

/// Gives jobs to the thread. The thread ends when the last one is dropped and what waits is done.
#[derive(Debug)]
pub(crate) struct Writer<W> {
    queue: mpsc::Sender<Job<W>>,
}

impl<W: Work> Writer<W> {
    /// Starts the thread.
    pub(crate) fn start(door: Arc<Door>) -> Result<Self, BackendError> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let thread = Thread { door, jobs, left: true };
        std::thread::Builder::new()
            .name("windlass-store".to_owned())
            .spawn(move || thread.run())
            .map_err(|error| BackendError::permanent(BACKEND, "open", error))?;
        Ok(Self { queue })
    }

    /// Gives it work; waits for room in the queue.
    pub(crate) async fn give(&self, op: &'static str, work: W) -> Result<(), BackendError> {
        self.queue.send(Job::Work(work)).await.map_err(|_| closed(op))
    }

    /// Brings what is free to the end of the file and cuts it off; returns whether something was.
    pub(crate) async fn compact(&self) -> Result<bool, BackendError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.queue.send(Job::Compact { reply }).await;
        sent.map_err(|_| closed("compact"))?;
        answer.await.map_err(|_| closed("compact"))?
    }

    /// Writes what waits, closes the database and ends the thread.
    pub(crate) async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        if self.queue.send(Job::Close { reply }).await.is_ok() {
            // An error says that the thread is gone, which is what we want.
            let _gone = answer.await;
        }
    }
}

/// The error of a store that was closed.
pub(crate) fn closed(op: &'static str) -> BackendError {
    BackendError::permanent(BACKEND, op, "the store was closed")
}

struct Thread<W> {
    door: Arc<Door>,
    jobs: mpsc::Receiver<Job<W>>,
    /// Something is left to tidy, as far as is known.
    left: bool,
}

impl<W: Work> Thread<W> {
    fn run(mut self) {
        while let Some(first) = self.next() {
            let mut waiting = vec![first];
            self.gather(&mut waiting);
            let (mut group, mut bytes) = (Vec::new(), 0);
            for job in waiting {
                match job {
                    Job::Work(work) => {
                        let size = work.size();
                        if bytes + size > GROUP_BYTES {
                            self.commit_and_answer(std::mem::take(&mut group));
                            bytes = 0;
                        }
                        bytes += size;
                        group.push(work);
                    }
                    Job::Compact { reply } => {
                        self.commit_and_answer(std::mem::take(&mut group));
                        bytes = 0;
                        // Who no longer waits has no use for the answer; the same below.
                        let _gone = reply.send(self.compact());
                    }
                    Job::Close { reply } => {
                        self.commit_and_answer(std::mem::take(&mut group));
                        self.door.close();
                        let _gone = reply.send(());
                        return;
                    }
                }
            }
            self.commit_and_answer(group);
            // However busy it is, what is left gets less.
            self.tidy();
        }
    }

    /// Waits for a job, and tidies up meanwhile.
    fn next(&mut self) -> Option<Job<W>> {
        while self.left {
            match self.jobs.try_recv() {
                Ok(job) => return Some(job),
                Err(mpsc::error::TryRecvError::Disconnected) => return None,
                Err(mpsc::error::TryRecvError::Empty) => self.tidy(),
            }
        }
        self.jobs.blocking_recv()
    }

    /// Does a part of what is left.
    fn tidy(&mut self) {
        if self.left {
            // Whatever goes wrong here goes wrong again where somebody waits for the answer, and is told then.
            self.left = caught(|| self.door.with(W::tidy)).unwrap_or(false);
        }
    }

    /// Takes what else waits.
    fn gather(&mut self, waiting: &mut Vec<Job<W>>) {
        // Who was answered last is about to ask again: one sync for all is better than two for the halves.
        let mut before = 0;
        while before < waiting.len() && waiting.len() < GROUP_JOBS {
            before = waiting.len();
            std::thread::yield_now();
            while waiting.len() < GROUP_JOBS
                && let Ok(job) = self.jobs.try_recv()
            {
                waiting.push(job);
            }
        }
    }

    fn commit_and_answer(&mut self, mut group: Vec<W>) {
        if group.is_empty() {
            return;
        }
        self.left |= group.iter().any(W::leaves_something);
        match self.commit(&mut group) {
            Ok(()) => group.into_iter().for_each(|work| work.answer(Ok(()))),
            Err(failure) if failure.undone && group.len() > 1 => {
                for mut work in group {
                    let end = self.commit(std::slice::from_mut(&mut work));
                    work.answer(end.as_ref().copied());
                }
            }
            Err(failure) => group.into_iter().for_each(|work| work.answer(Err(&failure))),
        }
    }

    /// Writes a group. After a failure the database is opened again, and it is looked what became of it.
    fn commit(&self, group: &mut [W]) -> Result<(), Failure> {
        self.door.take_full();
        let before = match self.mark() {
            // An earlier failure left it closed, or broken.
            Err(_) => {
                self.open_again().map_err(|error| Failure::before(error, false))?;
                self.mark().map_err(|error| Failure::before(error, false))?
            }
            Ok(mark) => mark,
        };
        let Err(error) = caught(|| self.door.with(|database| write(database, group))) else {
            return Ok(());
        };
        let full = self.door.take_full();
        let after = self.open_again().and_then(|()| self.mark());
        let undone = after.is_ok_and(|after| after == before);
        Err(Failure { error: Arc::new(error), undone, full: full && undone })
    }

    fn mark(&self) -> Result<u64, redb::Error> {
        caught(|| self.door.with(W::mark))
    }

    fn open_again(&self) -> Result<(), redb::Error> {
        caught(|| self.door.open_again().map_err(|error| std::io::Error::other(error).into()))
    }

    fn compact(&self) -> Result<bool, BackendError> {
        let compacted = caught(|| {
            self.door.with_alone(|database| {
                let moved = database.compact()?;
                // From here on the file can be opened at once again, even after a kill.
                begin(database)?.commit()?;
                Ok(moved)
            })
        });
        let error = match compacted {
            Ok(moved) => return Ok(moved),
            Err(error) => error,
        };
        // If it cannot be opened again now, the next job tries it and says so.
        let _next = self.open_again();
        Err(failed("compact", error))
    }
}

impl Failure {
    /// It failed before anything was begun.
    fn before(error: redb::Error, full: bool) -> Self {
        Self { error: Arc::new(error), undone: true, full }
    }
}

/// Writes a group and commits it, unless everything was refused.
fn write<W: Work>(database: &Database, group: &mut [W]) -> Result<(), redb::Error> {
    let transaction = begin(database)?;
    let mut wrote = false;
    {
        let mut tables = W::open(&transaction)?;
        for work in group {
            wrote |= work.write(&mut tables)?;
        }
    }
    if wrote {
        transaction.commit()?;
    } else {
        transaction.abort()?;
    }
    Ok(())
}
