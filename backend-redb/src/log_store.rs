//! [`RedbLogs`]: the port `LogStore` on redb.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use windlass_core::log_store::{
    LogItem, LogKey, LogPage, LogStatus, LogStore, LogStoreError, ReadOptions, Seq,
};

use crate::db::RedbOptions;
use crate::door::Door;
use crate::growth::Growth;
use crate::log_schema::{LOGS_FORMAT, log_id};
use crate::logs::{self, LogWork, Order};
use crate::writer::{Writer, closed};

/// Logs in a redb database of their own: one file that one process has open, one thread that writes, a few that read.
///
/// It keeps what is appended: somebody feeds it. Concurrent appends share a sync, and an append is durable when it is
/// acknowledged; its last number is committed with it, so that a feeder that was killed goes on after what
/// [`append`](LogStore::append) of nothing returns. Followers are woken by what is appended through the same open store.
#[derive(Debug)]
pub struct RedbLogs {
    // Dropped before the writer, whose thread then is the last to let go of the database and closes it.
    door: Arc<Door>,
    writer: Writer<LogWork>,
    growth: Arc<Growth>,
}

impl RedbLogs {
    /// Opens the database at `path`, making it if there is none and migrating it if it is older.
    ///
    /// Needs a tokio runtime. Only one may have the file open: a store that was dropped is closed a moment later; call
    /// [`close`](Self::close) first to open it again at once.
    ///
    /// # Errors
    ///
    /// [`LogStoreError::Backend`] for a store of a newer version, for a file that is no store of logs or is damaged, and,
    /// transient, for one that is open already: it is left as it is. [`LogStoreError::Full`].
    pub async fn open(
        path: impl AsRef<Path> + Send,
        options: RedbOptions,
    ) -> Result<Arc<Self>, LogStoreError> {
        let door = Door::open(path.as_ref(), options, &LOGS_FORMAT).await?;
        let writer = Writer::start(Arc::clone(&door))?;
        Ok(Arc::new(Self { door, writer, growth: Arc::default() }))
    }

    /// Returns where the database is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.door.path()
    }

    /// Makes the file as small as what is in it allows; returns whether something was moved. Everybody else waits
    /// meanwhile, and a kill in its midst makes the next opening read the whole file.
    ///
    /// # Errors
    ///
    /// [`LogStoreError::Backend`]; the logs are as they were.
    pub async fn compact(&self) -> Result<bool, LogStoreError> {
        Ok(self.writer.compact().await?)
    }

    /// Writes what waits and closes the database. Later calls, and those that wait for growth, fail.
    ///
    /// Not needed for durability; it lets somebody else open the file.
    pub async fn close(&self) {
        self.writer.close().await;
        self.growth.end();
    }

    async fn ask(
        &self,
        log: &LogKey,
        op: &'static str,
        order: Order,
    ) -> Result<Seq, LogStoreError> {
        let (work, answer) =
            LogWork::new(log_id(log), log.execution, order, Arc::clone(&self.growth));
        self.writer.give(op, work).await?;
        answer.await.map_err(|_| closed(op))?
    }

    async fn look(&self, log: &LogKey, op: &'static str) -> Result<LogStatus, LogStoreError> {
        let (id, execution) = (log_id(log), log.execution);
        let look = move |database: &redb::Database| logs::look(database, op, execution, &id);
        Ok(self.door.run(op, look).await??.status)
    }
}

#[async_trait]
impl LogStore for RedbLogs {
    async fn append(&self, log: &LogKey, items: Vec<LogItem>) -> Result<Seq, LogStoreError> {
        self.ask(log, "append", Order::Append(items)).await
    }

    async fn seal(&self, log: &LogKey) -> Result<(), LogStoreError> {
        self.ask(log, "seal", Order::Seal).await.map(|_| ())
    }

    async fn read(&self, log: &LogKey, options: ReadOptions) -> Result<LogPage, LogStoreError> {
        let (id, execution) = (log_id(log), log.execution);
        self.door.run("read", move |database| logs::read(database, execution, &id, options)).await?
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
