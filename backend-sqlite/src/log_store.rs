//! [`SqliteLogs`]: the port `LogStore` on SQLite.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use windlass_core::error::BackendError;
use windlass_core::log_store::{
    LogItem, LogKey, LogPage, LogStatus, LogStore, LogStoreError, ReadOptions, Seq,
};
use windlass_core::process_store::ProcessStoreError;

use crate::db::{self, BACKEND, Db, SqliteOptions};
use crate::growth::Growth;
use crate::log_reader;
use crate::log_writer::{self, Append, Job, Order};
use crate::migrate::Migration;

/// `application_id` in the header: the file is a store of logs of ours.
const APPLICATION_ID: u32 = 0x574e_4c47;

const MIGRATIONS: &[Migration] =
    &[Migration { sql: include_str!("../migrations/logs/0001_logs.sql") }];

/// The name of a log: its execution and the nonce of its place.
pub(crate) type LogId = [u8; 32];

fn log_id(log: &LogKey) -> LogId {
    let mut id = [0; 32];
    id[..16].copy_from_slice(log.execution.0.as_bytes());
    id[16..].copy_from_slice(log.place.nonce.0.as_bytes());
    id
}

/// Logs in a SQLite database of their own: one file, one connection that writes, a few that read.
///
/// It keeps what is appended: somebody feeds it. Concurrent appends share a sync, and an append is durable when it is
/// acknowledged; its last number is committed with it, so that a feeder that was killed goes on after what
/// [`append`](LogStore::append) of nothing returns. Followers are woken by what is appended through the same open store.
#[derive(Debug)]
pub struct SqliteLogs {
    db: Db,
    writer: mpsc::Sender<Job>,
    growth: Arc<Growth>,
}

impl SqliteLogs {
    /// Opens the database at `path`, making it if there is none and migrating it if it is older. It is not that of a
    /// [`SqliteStore`](crate::SqliteStore). Of the options, those about reserved room do not matter here.
    ///
    /// Needs a tokio runtime, which has to live as long as the store.
    ///
    /// # Errors
    ///
    /// [`LogStoreError::Backend`] for a store of a newer version and for a file that is no store of logs or is damaged: it
    /// is left as it is. [`LogStoreError::Full`].
    pub async fn open(
        path: impl AsRef<Path> + Send,
        options: SqliteOptions,
    ) -> Result<Arc<Self>, LogStoreError> {
        let opened = db::open(path.as_ref(), &options, APPLICATION_ID, MIGRATIONS).await;
        let (db, connection) = opened.map_err(not_opened)?;
        let growth = Arc::new(Growth::default());
        let writer = log_writer::start(db.writer.clone(), connection, Arc::clone(&growth));
        Ok(Arc::new(Self { db, writer, growth }))
    }

    /// Returns where the database is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.db.path
    }

    /// Makes the file as small as what is in it allows: it is written anew, for which there has to be room. Appends wait
    /// meanwhile, up to the busy timeout.
    ///
    /// # Errors
    ///
    /// [`LogStoreError::Full`] or [`LogStoreError::Backend`]; the logs are as they were.
    pub async fn compact(&self) -> Result<(), LogStoreError> {
        self.db.compact().await.map_err(|error| not_opened(db::failed_before("compact", error)))
    }

    /// Writes what waits, brings SQLite's log into the main file and closes all connections. Later calls, and those that
    /// wait for growth, fail.
    ///
    /// Not needed for durability; it only leaves one tidy file behind.
    pub async fn close(&self) {
        self.db.readers.close().await;
        let (reply, closed) = oneshot::channel();
        if self.writer.send(Job::Close { reply }).await.is_ok() {
            // An error says that the writer is gone, which is what we want.
            let _gone = closed.await;
        }
        self.growth.end();
    }

    async fn ask(
        &self,
        log: &LogKey,
        op: &'static str,
        order: Order,
    ) -> Result<Seq, LogStoreError> {
        let closed = || BackendError::permanent(BACKEND, op, "the store was closed");
        let (reply, answer) = oneshot::channel();
        let append = Append { log: log_id(log), execution: log.execution, order, reply };
        self.writer.send(Job::Append(append)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    async fn look(&self, log: &LogKey, op: &'static str) -> Result<LogStatus, LogStoreError> {
        let error = |error| failed(op, error);
        let mut reader = self.db.readers.take().await.map_err(error)?;
        let found = log_reader::find(&mut reader.connection, &log_id(log)).await.map_err(error)?;
        reader.give_back();
        let found = found.ok_or(LogStoreError::NotFound { execution: log.execution })?;
        Ok(found.status)
    }
}

/// Wraps an error of SQLite.
fn failed(op: &'static str, error: sqlx::Error) -> LogStoreError {
    failed_shared(op, &Arc::new(error))
}

/// Wraps an error that several callers get.
pub(crate) fn failed_shared(op: &'static str, error: &Arc<sqlx::Error>) -> LogStoreError {
    match db::failed_shared(op, error) {
        ProcessStoreError::Backend(error) => error.into(),
        other => BackendError::permanent(BACKEND, op, other).into(),
    }
}

fn not_opened(error: ProcessStoreError) -> LogStoreError {
    match error {
        ProcessStoreError::Backend(error) => error.into(),
        ProcessStoreError::Full => LogStoreError::Full,
        // The port has no refusal of its own for a newer version.
        other => BackendError::permanent(BACKEND, "open", other).into(),
    }
}

#[async_trait]
impl LogStore for SqliteLogs {
    async fn append(&self, log: &LogKey, items: Vec<LogItem>) -> Result<Seq, LogStoreError> {
        self.ask(log, "append", Order::Append(items)).await
    }

    async fn seal(&self, log: &LogKey) -> Result<(), LogStoreError> {
        self.ask(log, "seal", Order::Seal).await.map(|_| ())
    }

    async fn read(&self, log: &LogKey, options: ReadOptions) -> Result<LogPage, LogStoreError> {
        let error = |error| failed("read", error);
        let mut reader = self.db.readers.take().await.map_err(error)?;
        let page = log_reader::page(&mut reader.connection, &log_id(log), options).await;
        let page = page.map_err(error)?;
        reader.give_back();
        page.ok_or(LogStoreError::NotFound { execution: log.execution })
    }

    async fn grown(&self, log: &LogKey, after: Seq) -> Result<(), LogStoreError> {
        let mut follower = self.growth.follow(log_id(log));
        loop {
            let status = self.look(log, "grown").await?;
            if status.last > after || status.sealed {
                return Ok(());
            }
            // An error says that the store was closed; the next look says it, too.
            let _closed = follower.changed().await;
        }
    }

    async fn status(&self, log: &LogKey) -> Result<LogStatus, LogStoreError> {
        self.look(log, "status").await
    }

    async fn remove(&self, log: &LogKey) -> Result<(), LogStoreError> {
        self.ask(log, "remove", Order::Remove).await.map(|_| ())
    }
}
