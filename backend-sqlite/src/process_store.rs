//! [`SqliteStore`]: the port `ProcessStore` on SQLite.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use futures::TryStreamExt as _;
use sqlx::Row as _;
use tokio::sync::{mpsc, oneshot};
use windlass_core::error::BackendError;
use windlass_core::id::{HostId, NodeId};
use windlass_core::process_store::{
    ChangeNumber, ChangePage, CheckReport, Lease, Page, ProcessStore, ProcessStoreError, Query,
    RecordKey, Stored, Write, validate, validate_query,
};

use crate::db::{self, BACKEND, Db, SqliteOptions, failed};
use crate::migrate::{APPLICATION_ID, MIGRATIONS, Migration};
use crate::query::{self, CHANGES, COLUMNS, GET, blob};
use crate::reserve;
use crate::writer::{self, CommitJob, Job};

/// The most that a report names; what is beyond is counted.
const REPORTED: usize = 100;

/// Records in a SQLite database: one file, one connection that writes, a few that read.
///
/// Concurrent commits share a sync. Every commit is synced before it is acknowledged (WAL, `synchronous=FULL`, asserted
/// when it is opened). Dropping the store detaches: what was given to [`commit`](ProcessStore::commit) is still written.
#[derive(Debug)]
pub struct SqliteStore {
    db: Db,
    writer: mpsc::Sender<Job>,
}

impl SqliteStore {
    /// Opens the database at `path`, making it if there is none and migrating it if it is older.
    ///
    /// Needs a tokio runtime, which has to live as long as the store.
    ///
    /// # Errors
    ///
    /// [`ProcessStoreError::Newer`] for a store of a newer version, [`ProcessStoreError::Backend`] for a file that is no
    /// store or is damaged: it is left as it is. [`ProcessStoreError::Full`].
    ///
    /// # Example
    ///
    /// ```
    /// # use windlass_core::process_store::{Kind, ProcessStore as _, Query};
    /// # use windlass_sqlite::{SqliteOptions, SqliteStore};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = tempfile::tempdir()?;
    /// let path = directory.path().join("windlass.db");
    /// let store = SqliteStore::open(&path, SqliteOptions::default()).await?;
    /// assert!(store.list(Query::newest(Kind::Attempt, 50)).await?.records.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn open(
        path: impl AsRef<Path> + Send,
        options: SqliteOptions,
    ) -> Result<Arc<Self>, ProcessStoreError> {
        Self::open_with(path.as_ref(), &options, MIGRATIONS).await
    }

    pub(crate) async fn open_with(
        path: &Path,
        options: &SqliteOptions,
        migrations: &'static [Migration],
    ) -> Result<Arc<Self>, ProcessStoreError> {
        let (db, connection) = db::open(path, options, APPLICATION_ID, migrations).await?;
        let writer = writer::start(db.writer.clone(), connection);
        Ok(Arc::new(Self { db, writer }))
    }

    /// Returns where the database is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.db.path
    }

    /// Makes the file as small as what is in it allows: it is written anew, for which there has to be room. Commits wait
    /// meanwhile, up to the busy timeout; the room that is kept for a full disk goes and is taken again.
    ///
    /// # Errors
    ///
    /// [`ProcessStoreError::Full`] or [`ProcessStoreError::Backend`]; the records are as they were.
    pub async fn compact(&self) -> Result<(), ProcessStoreError> {
        self.db.compact().await.map_err(|error| db::failed_before("compact", error))
    }

    /// Writes what waits, brings the log into the main file and closes all connections. Later calls fail.
    ///
    /// Not needed for durability; it only leaves one tidy file behind. On a disk that is nearly full the log stays, with
    /// the room that it has.
    pub async fn close(&self) {
        // Only the last connection tidies up, and not if it may only read.
        let precious = reserve::is_precious(&self.db.path, self.db.writer.reserve);
        let keeper = if precious { self.db.keeper().await } else { None };
        if keeper.is_none() {
            self.db.readers.close().await;
        }
        let (reply, closed) = oneshot::channel();
        if self.writer.send(Job::Close { reply }).await.is_ok() {
            // An error says that the writer is gone, which is what we want.
            let _gone = closed.await;
        }
        if let Some(reader) = keeper {
            reader.give_back();
            self.db.readers.close().await;
        }
    }

    async fn ask<T>(
        &self,
        op: &'static str,
        job: Job,
        answer: oneshot::Receiver<Result<T, ProcessStoreError>>,
    ) -> Result<T, ProcessStoreError> {
        let closed = || BackendError::permanent(BACKEND, op, "the store was closed");
        self.writer.send(job).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

#[async_trait]
impl ProcessStore for SqliteStore {
    async fn acquire(&self, host: HostId, node: NodeId) -> Result<Lease, ProcessStoreError> {
        let (reply, answer) = oneshot::channel();
        self.ask("acquire", Job::Acquire { host, node, reply }, answer).await
    }

    async fn commit(
        &self,
        batch: Vec<Write>,
        lease: Lease,
    ) -> Result<ChangeNumber, ProcessStoreError> {
        validate(&batch)?;
        let (reply, answer) = oneshot::channel();
        self.ask("commit", Job::Commit(CommitJob { writes: batch, lease, reply }), answer).await
    }

    async fn get(&self, key: RecordKey) -> Result<Option<Stored>, ProcessStoreError> {
        let query = sqlx::query(GET).bind(key.kind.as_str()).bind(blob(key.id));
        let error = |error| failed("get", error);
        let mut reader = self.db.readers.take().await.map_err(error)?;
        let row = query.fetch_optional(&mut reader.connection).await.map_err(error)?;
        reader.give_back();
        let Some(row) = row else {
            return Ok(None);
        };
        match query::stored(key.kind, &row) {
            Ok(stored) => Ok(Some(stored)),
            Err(reason) => Err(ProcessStoreError::Damaged { key, reason }),
        }
    }

    async fn list(&self, mut query: Query) -> Result<Page, ProcessStoreError> {
        validate_query(&query)?;
        loop {
            let error = |error| failed("list", error);
            let (text, arguments) = query::list(&query).map_err(error)?;
            let mut reader = self.db.readers.take().await.map_err(error)?;
            let row = sqlx::query_with(sqlx::AssertSqlSafe(text), arguments)
                .fetch_one(&mut reader.connection)
                .await;
            reader.give_back();
            match row.and_then(|row| {
                let packed: Option<&[u8]> = row.try_get(0)?;
                query::page(&query, packed.unwrap_or_default()).ok_or(sqlx::Error::RowNotFound)
            }) {
                Ok(page) => return Ok(page),
                // A page may be shorter than asked for, as long as it says where to go on.
                Err(error) if db::too_big(&error) && query.limit > 1 => query.limit /= 2,
                Err(error) => return Err(failed("list", error)),
            }
        }
    }

    async fn changes(
        &self,
        after: ChangeNumber,
        limit: u32,
    ) -> Result<ChangePage, ProcessStoreError> {
        let error = |error| failed("changes", error);
        let mut reader = self.db.readers.take().await.map_err(error)?;
        let rows = sqlx::query(CHANGES)
            .bind(i64::try_from(after.0).unwrap_or(i64::MAX))
            .bind(i64::from(limit))
            .fetch_all(&mut reader.connection)
            .await
            .map_err(error)?;
        reader.give_back();
        let last: i64 = match rows.first() {
            Some(row) => row.try_get(0).map_err(error)?,
            None => 0,
        };
        let changes = rows.iter().filter_map(query::change).collect();
        Ok(ChangePage { changes, last: ChangeNumber(u64::try_from(last).unwrap_or(0)) })
    }

    async fn check(&self) -> Result<CheckReport, ProcessStoreError> {
        let mut report = CheckReport::default();
        let error = |error| failed("check", error);
        let mut reader = self.db.readers.take().await.map_err(error)?;
        let found =
            sqlx::query("PRAGMA integrity_check(100)").fetch_all(&mut reader.connection).await;
        match found {
            Ok(rows) => {
                let lines = rows.iter().filter_map(|row| row.try_get::<String, _>(0).ok());
                report.problems.extend(lines.filter(|line| line != "ok"));
            }
            Err(error) => report.problems.push(error.to_string()),
        }
        let text =
            format!("SELECT {COLUMNS}, r.kind, r.n FROM records AS r NOT INDEXED ORDER BY r.n");
        let mut rows = sqlx::query(sqlx::AssertSqlSafe(text)).fetch(&mut reader.connection);
        let mut more = 0_u64;
        loop {
            match rows.try_next().await {
                Ok(None) => break,
                Ok(Some(row)) => match query::readable(&row) {
                    Ok(()) => report.records += 1,
                    Err(line) if report.set_aside.len() < REPORTED => report.set_aside.push(line),
                    Err(_) => more += 1,
                },
                // A damaged page ends the walk, not the report.
                Err(error) => {
                    report.problems.push(format!("not all records could be read: {error}"));
                    break;
                }
            }
        }
        drop(rows);
        reader.give_back();
        if more > 0 {
            report.set_aside.push(format!("and {more} more"));
        }
        Ok(report)
    }
}
