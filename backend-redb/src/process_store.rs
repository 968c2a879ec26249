//! [`RedbStore`]: the port `ProcessStore` on redb.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::oneshot;
use windlass_core::id::{HostId, NodeId};
use windlass_core::process_store::{
    ChangeNumber, ChangePage, CheckReport, Lease, Page, ProcessStore, ProcessStoreError, Query,
    RecordKey, Stored, Write, validate, validate_query,
};

use crate::check;
use crate::db::RedbOptions;
use crate::door::Door;
use crate::query;
use crate::records::{self, RecordWork, Reply};
use crate::schema::RECORDS_FORMAT;
use crate::writer::{Writer, closed};

/// Records in a redb database: one file that one process has open, one thread that writes, a few that read.
///
/// Concurrent commits share a sync. Every commit is synced before it is acknowledged, and leaves a file that is opened at
/// once after a kill. Dropping the store detaches: what was given to [`commit`](ProcessStore::commit) is still written.
#[derive(Debug)]
pub struct RedbStore {
    // Dropped before the writer, whose thread then is the last to let go of the database and closes it.
    door: Arc<Door>,
    writer: Writer<RecordWork>,
}

impl RedbStore {
    /// Opens the database at `path`, making it if there is none and migrating it if it is older.
    ///
    /// Needs a tokio runtime. Only one may have the file open: a store that was dropped is closed a moment later; call
    /// [`close`](Self::close) first to open it again at once.
    ///
    /// # Errors
    ///
    /// [`ProcessStoreError::Newer`] for a store of a newer version, [`ProcessStoreError::Backend`] for a file that is no
    /// store or is damaged, and, transient, for one that is open already: it is left as it is.
    /// [`ProcessStoreError::Full`].
    ///
    /// # Example
    ///
    /// ```
    /// # use windlass_core::process_store::{Kind, ProcessStore as _, Query};
    /// # use windlass_redb::{RedbOptions, RedbStore};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// let path = directory.path().join("windlass.redb");
    /// let store = RedbStore::open(&path, RedbOptions::default()).await?;
    /// assert!(store.list(Query::newest(Kind::Attempt, 50)).await?.records.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn open(
        path: impl AsRef<Path> + Send,
        options: RedbOptions,
    ) -> Result<Arc<Self>, ProcessStoreError> {
        let door = Door::open(path.as_ref(), options, &RECORDS_FORMAT).await?;
        let writer = Writer::start(Arc::clone(&door))?;
        Ok(Arc::new(Self { door, writer }))
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
    /// [`ProcessStoreError::Backend`]; the records are as they were.
    pub async fn compact(&self) -> Result<bool, ProcessStoreError> {
        Ok(self.writer.compact().await?)
    }

    /// Writes what waits and closes the database. Later calls fail.
    ///
    /// Not needed for durability; it lets somebody else open the file.
    pub async fn close(&self) {
        self.writer.close().await;
    }

    async fn ask<T>(
        &self,
        op: &'static str,
        work: RecordWork,
        answer: oneshot::Receiver<Result<T, ProcessStoreError>>,
    ) -> Result<T, ProcessStoreError> {
        self.writer.give(op, work).await?;
        answer.await.map_err(|_| closed(op))?
    }
}

#[async_trait]
impl ProcessStore for RedbStore {
    async fn acquire(&self, host: HostId, node: NodeId) -> Result<Lease, ProcessStoreError> {
        let (reply, answer) = Reply::new();
        self.ask("acquire", RecordWork::Acquire { host, node, reply }, answer).await
    }

    async fn commit(
        &self,
        batch: Vec<Write>,
        lease: Lease,
    ) -> Result<ChangeNumber, ProcessStoreError> {
        validate(&batch)?;
        let (reply, answer) = Reply::new();
        self.ask("commit", RecordWork::Commit { writes: batch, lease, reply }, answer).await
    }

    async fn get(&self, key: RecordKey) -> Result<Option<Stored>, ProcessStoreError> {
        self.door.run("get", move |database| records::get(database, key)).await?
    }

    async fn list(&self, query: Query) -> Result<Page, ProcessStoreError> {
        validate_query(&query)?;
        Ok(self.door.run("list", move |database| query::list(database, &query)).await?)
    }

    async fn changes(
        &self,
        after: ChangeNumber,
        limit: u32,
    ) -> Result<ChangePage, ProcessStoreError> {
        let changes =
            self.door.run("changes", move |database| query::changes(database, after, limit));
        Ok(changes.await?)
    }

    async fn check(&self) -> Result<CheckReport, ProcessStoreError> {
        Ok(self.door.run("check", check::check).await?)
    }
}
