//! The one task that writes logs: takes all that waits, writes it in one transaction, syncs once, answers all.
//!
//! Each append is decided before it writes anything, so that a refused one has nothing to undo. All that is asked for can
//! be done twice; so if a group fails, each of it gets a transaction of its own, whatever became of the group.

use std::sync::Arc;

use futures::FutureExt as _;
use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{Arguments as _, Connection as _, Row as _};
use tokio::sync::{mpsc, oneshot};
use windlass_core::id::ExecutionId;
use windlass_core::log_store::{LogItem, LogStatus, LogStoreError, Seq, items_to_add};

use crate::db::{Condition, WriterOptions, condition};
use crate::growth::Growth;
use crate::log_reader::{self, Found, cause_word, signed, stream_word};
use crate::log_store::{LogId, failed_shared};

/// Most jobs that wait; who comes later waits for room.
const QUEUE: usize = 256;
/// Most appends of a group, and most bytes, but always one append.
const GROUP_APPENDS: usize = 128;
const GROUP_BYTES: usize = 8 << 20;
/// Most rows of one statement. Fewer go in powers of two, so that a few texts serve and stay prepared.
const STATEMENT_ROWS: usize = 64;
/// How many items of a removed log go in one transaction.
const TIDIED_ITEMS: i64 = 256;

type Answer = Result<Seq, LogStoreError>;

/// What the task is asked for.
#[derive(Debug)]
pub(crate) enum Job {
    Append(Append),
    Close { reply: oneshot::Sender<()> },
}

/// Something to be done with a log, and somebody who waits for the answer.
#[derive(Debug)]
pub(crate) struct Append {
    pub(crate) log: LogId,
    pub(crate) execution: ExecutionId,
    pub(crate) order: Order,
    pub(crate) reply: oneshot::Sender<Answer>,
}

/// What is to be done with a log.
#[derive(Debug)]
pub(crate) enum Order {
    Append(Vec<LogItem>),
    Seal,
    Remove,
}

impl Append {
    fn bytes(&self) -> usize {
        let payload = |item: &LogItem| match item {
            LogItem::Entry { bytes, .. } => bytes.len(),
            LogItem::Gap { .. } => 0,
        };
        match &self.order {
            Order::Append(items) => items.iter().map(payload).sum(),
            Order::Seal | Order::Remove => 0,
        }
    }

    fn op(&self) -> &'static str {
        match self.order {
            Order::Append(_) => "append",
            Order::Seal => "seal",
            Order::Remove => "remove",
        }
    }

    fn fail(self, error: &Arc<sqlx::Error>) {
        let answer = match condition(error) {
            Condition::Full => LogStoreError::Full,
            Condition::Busy | Condition::Other => failed_shared(self.op(), error),
        };
        // Who no longer waits has no use for the answer; the same below.
        let _gone = self.reply.send(Err(answer));
    }
}

/// Starts the task; it ends when the sender is dropped and what waits is done.
pub(crate) fn start(
    options: WriterOptions,
    connection: SqliteConnection,
    growth: Arc<Growth>,
) -> mpsc::Sender<Job> {
    let (sender, queue) = mpsc::channel(QUEUE);
    let writer = Writer { options, connection: Some(connection), growth, left: true };
    tokio::spawn(writer.run(queue));
    sender
}

#[derive(Debug)]
struct Writer {
    options: WriterOptions,
    /// `None` after a failure that may have left a transaction open: the next group connects anew.
    connection: Option<SqliteConnection>,
    growth: Arc<Growth>,
    /// Items of removed logs are left, as far as is known.
    left: bool,
}

impl Writer {
    async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(first) = self.next(&mut queue).await {
            let mut waiting = Some(first);
            let (mut group, mut bytes) = (Vec::new(), 0);
            while let Some(job) = waiting.take() {
                match job {
                    Job::Append(append) => {
                        bytes += append.bytes();
                        group.push(append);
                    }
                    Job::Close { reply } => {
                        self.commit_and_answer(group).await;
                        self.close().await;
                        let _gone = reply.send(());
                        return;
                    }
                }
                if group.len() < GROUP_APPENDS && bytes < GROUP_BYTES {
                    waiting = queue.try_recv().ok();
                }
            }
            self.commit_and_answer(group).await;
            // However busy it is, what is left gets less.
            self.tidy_up().await;
        }
        self.close().await;
    }

    /// Waits for a job, and tidies up meanwhile.
    async fn next(&mut self, queue: &mut mpsc::Receiver<Job>) -> Option<Job> {
        while self.left {
            match queue.recv().now_or_never() {
                Some(job) => return job,
                None => self.tidy_up().await,
            }
        }
        queue.recv().await
    }

    /// Does a part of what is left.
    async fn tidy_up(&mut self) {
        if self.left {
            // Whatever goes wrong here goes wrong again where somebody waits for the answer, and is told then.
            self.left = self.tidy().await.unwrap_or(false);
        }
    }

    async fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            // What was acknowledged is synced; closing only brings SQLite's log into the main file.
            let _only_tidies = connection.close().await;
        }
    }

    async fn commit_and_answer(&mut self, group: Vec<Append>) {
        if group.is_empty() {
            return;
        }
        self.left |= group.iter().any(|append| matches!(append.order, Order::Remove));
        match self.commit(&group).await {
            Ok(answers) => {
                for (append, answer) in group.into_iter().zip(answers) {
                    self.answer(append, answer);
                }
            }
            Err(error) if group.len() > 1 && condition(&error) != Condition::Busy => {
                for append in group {
                    match self.commit(std::slice::from_ref(&append)).await {
                        Ok(answers) => {
                            if let Some(answer) = answers.into_iter().next() {
                                self.answer(append, answer);
                            }
                        }
                        Err(error) => append.fail(&Arc::new(error)),
                    }
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                group.into_iter().for_each(|append| append.fail(&error));
            }
        }
    }

    fn answer(&self, append: Append, answer: Answer) {
        if answer.is_ok() {
            self.growth.wake(&append.log);
        }
        let _gone = append.reply.send(answer);
    }

    /// Does everything of a group in one transaction.
    async fn commit(&mut self, group: &[Append]) -> Result<Vec<Answer>, sqlx::Error> {
        let mut connection = self.connection().await?;
        let written = write(&mut connection, group).await;
        self.keep(connection, written.is_ok()).await;
        written
    }

    /// Removes a part of what is left of removed logs; returns whether something is left.
    async fn tidy(&mut self) -> Result<bool, sqlx::Error> {
        let mut connection = self.connection().await?;
        let tidied = tidy(&mut connection).await;
        self.keep(connection, tidied.is_ok()).await;
        tidied
    }

    async fn connection(&mut self) -> Result<SqliteConnection, sqlx::Error> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => self.options.connect().await,
        }
    }

    /// Keeps a connection if no transaction is open in it.
    async fn keep(&mut self, mut connection: SqliteConnection, done: bool) {
        // Some errors have already rolled back, and SQLite says so; then a new connection is as good.
        if done || sqlx::raw_sql("ROLLBACK").execute(&mut connection).await.is_ok() {
            self.connection = Some(connection);
        }
    }
}

async fn write(
    connection: &mut SqliteConnection,
    group: &[Append],
) -> Result<Vec<Answer>, sqlx::Error> {
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut *connection).await?;
    let mut answers = Vec::with_capacity(group.len());
    for append in group {
        answers.push(match &append.order {
            Order::Append(items) => add(connection, append, items).await?,
            Order::Seal => seal(connection, &append.log).await?,
            Order::Remove => remove(connection, &append.log).await?,
        });
    }
    // One that has written nothing costs no sync.
    sqlx::raw_sql("COMMIT").execute(&mut *connection).await?;
    Ok(answers)
}

async fn add(
    connection: &mut SqliteConnection,
    append: &Append,
    items: &[LogItem],
) -> Result<Answer, sqlx::Error> {
    let found = log_reader::find(connection, &append.log).await?;
    let before = found.map_or(LogStatus::default(), |found| found.status);
    let added = match items_to_add(append.execution, &before, items.to_vec()) {
        Ok(added) => added,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let mut log = match found {
        Some(_) if added.is_empty() => return Ok(Ok(before.last)),
        Some(found) => found,
        None => Found { n: make(connection, &append.log).await?, status: before, gaps: 0 },
    };
    let mut rest = &added[..];
    while !rest.is_empty() {
        // The largest power of two that there are.
        let count = STATEMENT_ROWS.min(1 << rest.len().ilog2());
        let (now, later) = rest.split_at(count);
        insert(connection, log.n, now).await?;
        rest = later;
    }
    for item in &added {
        log.status.count(item);
        log.gaps += u64::from(matches!(item, LogItem::Gap { .. }));
    }
    update(connection, &log).await?;
    Ok(Ok(log.status.last))
}

/// Makes an empty log; returns its number in the table.
async fn make(connection: &mut SqliteConnection, log: &LogId) -> Result<i64, sqlx::Error> {
    const SQL: &str = "INSERT INTO logs (execution, nonce) VALUES (?, ?) RETURNING n";
    let (execution, nonce) = log.split_at(16);
    let query = sqlx::query(SQL).bind(execution.to_vec()).bind(nonce.to_vec());
    query.fetch_one(connection).await?.try_get(0)
}

async fn update(connection: &mut SqliteConnection, log: &Found) -> Result<(), sqlx::Error> {
    const SQL: &str = "UPDATE logs SET last = ?, entries = ?, gaps = ?, bytes = ?, dropped = ?, \
         sealed = ? WHERE n = ?";
    let LogStatus { last, entries, bytes, dropped_bytes, sealed } = log.status;
    let mut query = sqlx::query(SQL);
    for number in [last.0, entries, log.gaps, bytes, dropped_bytes] {
        query = query.bind(signed(number));
    }
    query.bind(i64::from(sealed)).bind(log.n).execute(connection).await?;
    Ok(())
}

async fn insert(
    connection: &mut SqliteConnection,
    log: i64,
    items: &[LogItem],
) -> Result<(), sqlx::Error> {
    let mut text = String::from(
        "INSERT INTO items \
         (log, first, last, stream, at, partial, cause, endless, len, bytes) VALUES ",
    );
    let mut arguments = SqliteArguments::default();
    for (item, row) in items.iter().zip(0..) {
        text.push_str(if row == 0 { "(?" } else { ",(?" });
        text.push_str(",?,?,?,?,?,?,?,?,?)");
        add_row(&mut arguments, log, item).map_err(sqlx::Error::Encode)?;
    }
    sqlx::query_with(sqlx::AssertSqlSafe(text), arguments).execute(connection).await?;
    Ok(())
}

fn add_row(
    arguments: &mut SqliteArguments,
    log: i64,
    item: &LogItem,
) -> Result<(), sqlx::error::BoxDynError> {
    arguments.add(log)?;
    arguments.add(signed(item.first_seq().0))?;
    arguments.add(signed(item.last_seq().0))?;
    match item {
        LogItem::Entry { at, stream, partial, bytes, len, .. } => {
            arguments.add(stream_word(*stream))?;
            arguments.add(signed(at.0))?;
            arguments.add(i64::from(*partial))?;
            arguments.add(None::<&str>)?;
            arguments.add(None::<i64>)?;
            arguments.add(signed(*len))?;
            arguments.add(&bytes[..])
        }
        LogItem::Gap { last, bytes, cause, .. } => {
            arguments.add(None::<&str>)?;
            arguments.add(None::<i64>)?;
            arguments.add(None::<i64>)?;
            arguments.add(cause_word(*cause))?;
            arguments.add(i64::from(last.is_none()))?;
            arguments.add(signed(*bytes))?;
            arguments.add(None::<&[u8]>)
        }
    }
}

async fn seal(connection: &mut SqliteConnection, log: &LogId) -> Result<Answer, sqlx::Error> {
    let Some(mut found) = log_reader::find(connection, log).await? else { return Ok(Ok(Seq(0))) };
    if !found.status.sealed {
        found.status.sealed = true;
        update(connection, &found).await?;
    }
    Ok(Ok(found.status.last))
}

/// Removes a log at once, and its items later.
async fn remove(connection: &mut SqliteConnection, log: &LogId) -> Result<Answer, sqlx::Error> {
    if let Some(found) = log_reader::find(connection, log).await? {
        const SQL: &str = "UPDATE logs SET removed = 1 WHERE n = ?";
        sqlx::query(SQL).bind(found.n).execute(connection).await?;
    }
    Ok(Ok(Seq(0)))
}

async fn tidy(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    const REMOVED: &str = "SELECT n FROM logs INDEXED BY logs_removed WHERE removed LIMIT 1";
    let Some(row) = sqlx::query(REMOVED).fetch_optional(&mut *connection).await? else {
        return Ok(false);
    };
    let log: i64 = row.try_get(0)?;
    // Each statement is a transaction. After a crash between them it is done again.
    const ITEMS: &str = "DELETE FROM items WHERE n IN \
         (SELECT n FROM items INDEXED BY items_by_number WHERE log = ? LIMIT ?)";
    let query = sqlx::query(ITEMS).bind(log).bind(TIDIED_ITEMS);
    if query.execute(&mut *connection).await?.rows_affected() == 0 {
        sqlx::query("DELETE FROM logs WHERE n = ?").bind(log).execute(&mut *connection).await?;
    }
    Ok(true)
}
