//! The one task that writes: takes all waiting batches, decides them in one transaction, syncs once, answers all.
//!
//! A group costs two round trips to the connection's thread: one that begins the transaction and reads what the group
//! touches, one that writes everything and commits. The statements have room for a power of two of rows, the unused ones
//! NULL, so that a few texts serve groups of every size and stay prepared.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use futures::TryStreamExt as _;
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Arguments as _, Connection as _, Either, Executor as _, Row as _};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;
use windlass_core::error::BackendError;
use windlass_core::id::{Epoch, HostId, NodeId};
use windlass_core::process_store::{
    ChangeNumber, Lease, ProcessStoreError, RecordKey, Revision, Write,
};
use windlass_core::time::Timestamp;

use crate::db::{BACKEND, Condition, WriterOptions, condition, failed, failed_shared};
use crate::group::{self, Batch, Before, Content, Entry, Row, Sum, Version};
use crate::query::{blob, optional_blob};
use crate::reserve::Upkeep;

/// Most jobs that wait; who comes later waits for room.
const QUEUE: usize = 512;
/// Most batches of a group.
const GROUP_BATCHES: usize = 256;
/// Most records and most bytes of bodies in a group, but always one batch.
const GROUP_WRITES: usize = 512;
const GROUP_BYTES: usize = 8 << 20;
/// Most rows of one statement: far from the limit of its parameters.
const STATEMENT_ROWS: usize = 128;

/// The answer to a job.
type Reply<T> = oneshot::Sender<Result<T, ProcessStoreError>>;

/// What the writer is asked for.
#[derive(Debug)]
pub(crate) enum Job {
    Commit(CommitJob),
    Acquire { host: HostId, node: NodeId, reply: Reply<Lease> },
    Close { reply: oneshot::Sender<()> },
}

/// A batch that waits.
#[derive(Debug)]
pub(crate) struct CommitJob {
    pub(crate) writes: Vec<Write>,
    pub(crate) lease: Lease,
    pub(crate) reply: Reply<ChangeNumber>,
}

/// Starts the writer; it ends when the sender is dropped and what waits is done.
pub(crate) fn start(options: WriterOptions, connection: SqliteConnection) -> mpsc::Sender<Job> {
    let (sender, queue) = mpsc::channel(QUEUE);
    let upkeep = Upkeep::new(options.reserve);
    let writer = Writer { options, connection: Some(connection), upkeep };
    tokio::spawn(writer.run(queue));
    sender
}

/// Why a group failed as a whole.
#[derive(Debug)]
struct Failure {
    error: Arc<sqlx::Error>,
    /// It is rolled back for certain; else it may have been committed.
    undone: bool,
}

impl Failure {
    /// Says whether trying the batches one by one may help: not while another process writes, and not if the group may
    /// have been committed.
    fn is_of_one(&self) -> bool {
        self.undone && condition(&self.error) != Condition::Busy
    }

    fn answer(&self, op: &'static str) -> ProcessStoreError {
        if self.undone && condition(&self.error) == Condition::Full {
            return ProcessStoreError::Full;
        }
        failed_shared(op, &self.error)
    }
}

#[derive(Debug)]
struct Writer {
    options: WriterOptions,
    /// `None` after a failure that may have left a transaction open: the next job connects anew.
    connection: Option<SqliteConnection>,
    upkeep: Upkeep,
}

impl Writer {
    async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        let mut jobs = Vec::with_capacity(GROUP_BATCHES);
        while queue.recv_many(&mut jobs, GROUP_BATCHES).await > 0 {
            // Who was answered last is about to ask again: one sync for all is better than two for the halves.
            let mut waiting = 0;
            while waiting < jobs.len() && jobs.len() < GROUP_BATCHES {
                waiting = jobs.len();
                tokio::task::yield_now().await;
                while jobs.len() < GROUP_BATCHES
                    && let Ok(job) = queue.try_recv()
                {
                    jobs.push(job);
                }
            }
            let mut group = Vec::new();
            let (mut writes, mut bytes) = (0, 0);
            for job in jobs.drain(..) {
                match job {
                    Job::Commit(job) => {
                        let (more_writes, more_bytes) = (job.writes.len(), size(&job.writes));
                        if writes + more_writes > GROUP_WRITES || bytes + more_bytes > GROUP_BYTES {
                            self.commit_and_answer(std::mem::take(&mut group)).await;
                            (writes, bytes) = (0, 0);
                        }
                        writes += more_writes;
                        bytes += more_bytes;
                        group.push(job);
                    }
                    Job::Acquire { host, node, reply } => {
                        self.commit_and_answer(std::mem::take(&mut group)).await;
                        (writes, bytes) = (0, 0);
                        let answer = self.acquire(host, node).await;
                        // Who no longer waits has no use for the answer; the same below.
                        let _gone = reply.send(answer);
                    }
                    Job::Close { reply } => {
                        self.commit_and_answer(std::mem::take(&mut group)).await;
                        self.close().await;
                        let _gone = reply.send(());
                        return;
                    }
                }
            }
            self.commit_and_answer(group).await;
            if self.upkeep.is_due(queue.is_empty()) {
                self.keep_room().await;
            }
        }
        self.close().await;
    }

    /// Looks after the room for a full disk. A failure is no news: who commits will hear of it.
    async fn keep_room(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        match self.upkeep.renew(&mut connection, &self.options.path).await {
            Ok(()) => self.connection = Some(connection),
            Err(error) if condition(&error) != Condition::Other => {
                self.connection = Some(connection);
            }
            Err(_) => drop(connection),
        }
    }

    async fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            // What was acknowledged is synced; closing only brings the log into the main file.
            let _only_tidies = connection.close().await;
        }
    }

    /// Commits the jobs as one group. If that fails and is undone, each gets a try of its own, so that one that cannot
    /// be written does not take its neighbours with it.
    async fn commit_and_answer(&mut self, jobs: Vec<CommitJob>) {
        if jobs.is_empty() {
            return;
        }
        match self.commit(&jobs).await {
            Ok(answers) => {
                for (job, answer) in jobs.into_iter().zip(answers) {
                    let _gone = job.reply.send(answer);
                }
            }
            Err(failure) if failure.is_of_one() && jobs.len() > 1 => {
                for job in jobs {
                    let answer = match self.commit(std::slice::from_ref(&job)).await {
                        Ok(mut answers) => answers.pop().unwrap_or_else(|| Err(no_answer())),
                        Err(failure) => Err(failure.answer("commit")),
                    };
                    let _gone = job.reply.send(answer);
                }
            }
            Err(failure) => {
                for job in jobs {
                    let _gone = job.reply.send(Err(failure.answer("commit")));
                }
            }
        }
    }

    async fn commit(
        &mut self,
        jobs: &[CommitJob],
    ) -> Result<Vec<Result<ChangeNumber, ProcessStoreError>>, Failure> {
        let batches: Vec<Batch<'_>> =
            jobs.iter().map(|job| Batch { writes: &job.writes, lease: job.lease }).collect();
        let before = match self.begin(&batches).await {
            Ok(before) => before,
            Err(error) => return Err(self.undo(error).await),
        };
        let decided = group::decide(&batches, &before);
        if decided.sum.changes.is_empty() {
            // Everything was refused; whether the empty transaction ends well does not matter to anybody.
            self.roll_back().await;
            return Ok(decided.answers);
        }
        self.write(&decided.sum).await?;
        for job in jobs {
            self.upkeep.note(job.writes.len(), size(&job.writes));
        }
        Ok(decided.answers)
    }

    /// Begins the transaction and reads what the group touches.
    async fn begin(&mut self, batches: &[Batch<'_>]) -> Result<Before, sqlx::Error> {
        let keys: BTreeSet<RecordKey> =
            batches.iter().flat_map(|batch| batch.writes).map(Write::key).collect();
        let keys: Vec<RecordKey> = keys.into_iter().collect();
        let mut text = String::from(
            "BEGIN IMMEDIATE; SELECT coalesce(max(number), 0) FROM changes; \
             SELECT node, host, epoch FROM leases;",
        );
        let mut arguments = SqliteArguments::default();
        for (chunk_number, chunk) in keys.chunks(STATEMENT_ROWS).enumerate() {
            let room = chunk.len().next_power_of_two();
            text.push_str(
                " SELECT k.column1, r.n, r.revision, r.parent, r.owner, r.at FROM (VALUES ",
            );
            for row in 0..room {
                let comma = if row == 0 { "" } else { "," };
                let _infallible =
                    write!(text, "{comma}({},?,?)", chunk_number * STATEMENT_ROWS + row);
            }
            text.push_str(
                ") AS k CROSS JOIN records AS r INDEXED BY records_by_id \
                 ON r.kind = k.column2 AND r.id = k.column3;",
            );
            for key in chunk {
                add(&mut arguments, key.kind.as_str())?;
                add(&mut arguments, blob(key.id))?;
            }
            pad(&mut arguments, 2 * (room - chunk.len()))?;
        }

        let connection = self.connection().await?;
        let persistent = keys.len() <= STATEMENT_ROWS;
        let query = sqlx::query_with(sqlx::AssertSqlSafe(text), arguments).persistent(persistent);
        let mut results = connection.fetch_many(query);
        let mut before = Before::default();
        let mut statement = 0_u32;
        while let Some(result) = results.try_next().await? {
            match (result, statement) {
                (Either::Left(_), _) => statement += 1,
                (Either::Right(row), 1) => before.last = number(row.try_get(0)?),
                (Either::Right(row), 2) => {
                    let node = NodeId(uuid(&row, 0)?);
                    let epoch = Epoch(number(row.try_get(2)?));
                    before.leases.insert(node, (HostId(uuid(&row, 1)?), epoch));
                }
                (Either::Right(row), _) => {
                    let index = usize::try_from(row.try_get::<i64, _>(0)?).unwrap_or(usize::MAX);
                    if let Some(key) = keys.get(index) {
                        let content = content(&row).map_err(|error| error.to_string());
                        before.rows.insert(*key, Row { n: row.try_get(1)?, content });
                    }
                }
            }
        }
        Ok(before)
    }

    /// Writes the sum and commits.
    async fn write(&mut self, sum: &Sum<'_>) -> Result<(), Failure> {
        let (text, arguments, statements) = match statements(sum) {
            Ok(built) => built,
            Err(error) => return Err(self.undo(error).await),
        };
        let small = sum.inserts.len().max(sum.updates.len()).max(sum.changes.len());
        let done = async {
            let connection = self.connection().await?;
            let query = sqlx::query_with(sqlx::AssertSqlSafe(text), arguments)
                .persistent(small <= STATEMENT_ROWS);
            let mut results = connection.fetch_many(query);
            let mut done = Done::default();
            loop {
                match results.try_next().await {
                    Ok(Some(Either::Left(result))) => {
                        done.statements += 1;
                        done.rows +=
                            if done.statements < statements { result.rows_affected() } else { 0 };
                    }
                    Ok(Some(Either::Right(_))) => {}
                    Ok(None) => return Ok(done),
                    Err(error) => {
                        done.error = Some(error);
                        return Ok(done);
                    }
                }
            }
        };
        let done = match done.await {
            Ok(done) => done,
            Err(error) => return Err(self.undo(error).await),
        };
        let rows = sum.deletes.len() + sum.updates.len() + sum.inserts.len() + sum.changes.len();
        match done.error {
            // The last statement is the COMMIT. SQLITE_FULL says that it could not write it.
            Some(error) if done.statements + 1 < statements => Err(self.undo(error).await),
            Some(error) if condition(&error) == Condition::Full => Err(self.undo(error).await),
            Some(error) => {
                self.connection = None;
                Err(Failure { error: Arc::new(error), undone: false })
            }
            None if done.rows == rows as u64 => Ok(()),
            None => {
                let why = format!("{} rows were written instead of {rows}", done.rows);
                Err(Failure { error: Arc::new(sqlx::Error::Protocol(why)), undone: false })
            }
        }
    }

    async fn acquire(&mut self, host: HostId, node: NodeId) -> Result<Lease, ProcessStoreError> {
        // One statement is one transaction.
        const SQL: &str = "INSERT INTO leases (node, host, epoch) VALUES (?, ?, 1) \
             ON CONFLICT (node) DO UPDATE SET host = excluded.host, epoch = epoch + 1 \
             RETURNING epoch";
        let done = async {
            let connection = self.connection().await?;
            let query = sqlx::query(SQL).bind(blob(node.0)).bind(blob(host.0));
            let epochs: Vec<SqliteRow> = connection.fetch_all(query).await?;
            let epoch = epochs.first().ok_or(sqlx::Error::RowNotFound)?;
            Ok(Epoch(number(epoch.try_get(0)?)))
        };
        match done.await {
            Ok(epoch) => Ok(Lease { node, host, epoch }),
            Err(error) if condition(&error) == Condition::Full => {
                self.roll_back().await;
                Err(ProcessStoreError::Full)
            }
            Err(error) => {
                self.connection = None;
                Err(failed("acquire", error))
            }
        }
    }

    async fn connection(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                // Closing the last one may have deleted the log.
                self.upkeep = Upkeep::new(self.options.reserve);
                self.options.connect().await?
            }
        };
        Ok(self.connection.insert(connection))
    }

    /// Rolls back after an error that came before the commit.
    async fn undo(&mut self, error: sqlx::Error) -> Failure {
        self.roll_back().await;
        Failure { error: Arc::new(error), undone: true }
    }

    /// Makes sure that no transaction is open, if need be by closing the connection.
    async fn roll_back(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        // Some errors have already rolled back, and SQLite refuses to do it again. Then a transaction can be begun; and the
        // connection is kept, because closing the last one would delete the log and give its room away on a full disk.
        let rolled_back = match connection.execute(sqlx::query("ROLLBACK")).await {
            Ok(_) => true,
            Err(_) => sqlx::raw_sql("BEGIN; ROLLBACK").execute(&mut connection).await.is_ok(),
        };
        if rolled_back {
            self.connection = Some(connection);
        }
    }
}

/// How far the statements of a group came.
#[derive(Debug, Default)]
struct Done {
    statements: usize,
    rows: u64,
    error: Option<sqlx::Error>,
}

/// Makes the text that writes the sum and commits, its arguments, and the number of statements in it.
fn statements(sum: &Sum<'_>) -> Result<(String, SqliteArguments, usize), sqlx::Error> {
    let mut statements = Statements::default();
    statements.add(
        "DELETE FROM records WHERE n IN (SELECT column1 FROM (VALUES ",
        1,
        "))",
        &sum.deletes,
        |arguments, n| add(arguments, *n),
    )?;
    statements.add(
        "UPDATE OR ROLLBACK records SET state = v.column2, revision = v.column3, change = v.column4, body = v.column5 FROM (VALUES ",
        5,
        ") AS v WHERE records.n = v.column1",
        &sum.updates,
        |arguments, (n, version)| {
            add(arguments, *n)?;
            add(arguments, version.record.state.as_str())?;
            add(arguments, integer(version.revision.0))?;
            add(arguments, integer(version.change.0))?;
            add(arguments, version.record.body.as_str())
        },
    )?;
    statements.add(
        "INSERT OR ROLLBACK INTO records (kind, id, parent, owner, state, at, revision, change, body) SELECT * FROM (VALUES ",
        9,
        ") WHERE column1 IS NOT NULL",
        &sum.inserts,
        add_record,
    )?;
    statements.add(
        "INSERT OR ROLLBACK INTO changes (number, ordinal, kind, id, parent, owner, state, revision) SELECT * FROM (VALUES ",
        8,
        ") WHERE column1 IS NOT NULL",
        &sum.changes,
        add_entry,
    )?;
    statements.text.push_str("COMMIT");
    Ok((statements.text, statements.arguments, statements.count + 1))
}

fn add_record(arguments: &mut SqliteArguments, version: &Version<'_>) -> Result<(), sqlx::Error> {
    let record = version.record;
    add(arguments, record.key.kind.as_str())?;
    add(arguments, blob(record.key.id))?;
    add(arguments, record.parent.map(blob))?;
    add(arguments, record.owner.as_deref())?;
    add(arguments, record.state.as_str())?;
    add(arguments, integer(record.at.0))?;
    add(arguments, integer(version.revision.0))?;
    add(arguments, integer(version.change.0))?;
    add(arguments, record.body.as_str())
}

fn add_entry(arguments: &mut SqliteArguments, entry: &Entry<'_>) -> Result<(), sqlx::Error> {
    add(arguments, integer(entry.number.0))?;
    add(arguments, integer(entry.ordinal as u64))?;
    add(arguments, entry.key.kind.as_str())?;
    add(arguments, blob(entry.key.id))?;
    add(arguments, entry.parent.map(blob))?;
    add(arguments, entry.owner.as_deref())?;
    add(arguments, entry.state)?;
    add(arguments, integer(entry.revision.0))
}

#[derive(Debug, Default)]
struct Statements {
    text: String,
    arguments: SqliteArguments,
    count: usize,
}

impl Statements {
    /// Adds statements with room for all `rows`.
    fn add<T>(
        &mut self,
        head: &str,
        columns: usize,
        tail: &str,
        rows: &[T],
        mut one: impl FnMut(&mut SqliteArguments, &T) -> Result<(), sqlx::Error>,
    ) -> Result<(), sqlx::Error> {
        for chunk in rows.chunks(STATEMENT_ROWS) {
            let room = chunk.len().next_power_of_two();
            self.text.push_str(head);
            for row in 0..room {
                self.text.push_str(if row == 0 { "(?" } else { ",(?" });
                for _ in 1..columns {
                    self.text.push_str(",?");
                }
                self.text.push(')');
            }
            self.text.push_str(tail);
            self.text.push_str("; ");
            for row in chunk {
                one(&mut self.arguments, row)?;
            }
            pad(&mut self.arguments, columns * (room - chunk.len()))?;
            self.count += 1;
        }
        Ok(())
    }
}

/// Reads what the precheck selects of a row.
fn content(row: &SqliteRow) -> Result<Content, sqlx::Error> {
    Ok(Content {
        revision: Revision(number(row.try_get(2)?)),
        parent: optional_blob(row, 3)?,
        owner: row.try_get(4)?,
        at: Timestamp(number(row.try_get(5)?)),
    })
}

fn uuid(row: &SqliteRow, index: usize) -> Result<Uuid, sqlx::Error> {
    optional_blob(row, index)?.ok_or(sqlx::Error::RowNotFound)
}

fn add<'t, T>(arguments: &mut SqliteArguments, value: T) -> Result<(), sqlx::Error>
where
    T: sqlx::Encode<'t, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    arguments.add(value).map_err(sqlx::Error::Encode)
}

fn pad(arguments: &mut SqliteArguments, count: usize) -> Result<(), sqlx::Error> {
    (0..count).try_for_each(|_| add(arguments, None::<i64>))
}

/// Numbers of ours are far below 2^63; a larger one would be a mistake that the table must not hide.
fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn number(integer: i64) -> u64 {
    u64::try_from(integer).unwrap_or(0)
}

fn size(writes: &[Write]) -> usize {
    let body = |write: &Write| match write {
        Write::Put { record, .. } => record.body.len(),
        Write::Delete { .. } => 0,
    };
    writes.iter().map(body).sum()
}

/// The writer answers every job; this is for the compiler.
fn no_answer() -> ProcessStoreError {
    BackendError::permanent(BACKEND, "commit", "the writer gave no answer").into()
}
