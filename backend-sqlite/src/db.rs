//! Opens the file: connections, pragmas, and what an error of SQLite means.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use windlass_core::error::BackendError;
use windlass_core::process_store::ProcessStoreError;

use crate::migrate::{self, Migration};
use crate::readers::{Reader, Readers};
use crate::reserve::Reserve;

/// The name in errors.
pub(crate) const BACKEND: &str = "sqlite";

/// The longest path that SQLite opens, in bytes, with room for the suffixes of its own files.
const MAX_PATH_BYTES: usize = 500;

/// How to use the file. The default suits a host that idles in a few megabytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteOptions {
    /// Most connections that read at the same time. They are made when needed.
    pub readers: u32,
    /// How long a write waits while another process writes.
    pub busy_timeout: Duration,
    /// Page cache of each connection, in KiB.
    pub cache_kib: u32,
    /// Largest size of the database file, in bytes; above it a commit is refused as for a full disk. `None` leaves it
    /// to the disk.
    pub max_bytes: Option<u64>,
    /// Room in the database file that is kept for commits on a full disk, in bytes. It is taken where the disk has four
    /// times as much free, after the first commit, and renewed as it is used up. 0 for none.
    pub reserve_bytes: u64,
    /// Room for the log, in bytes: at least the 4 MiB after which it is written from its beginning again. Taken
    /// after the first commit, by the same rule.
    pub log_reserve_bytes: u64,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            readers: 4,
            busy_timeout: Duration::from_secs(5),
            cache_kib: 2_048,
            max_bytes: None,
            reserve_bytes: 4 << 20,
            log_reserve_bytes: 8 << 20,
        }
    }
}

/// The open file: how to connect to it, and its readers.
#[derive(Debug)]
pub(crate) struct Db {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// How the writer connects.
    pub(crate) writer: WriterOptions,
    /// The readers, connected when needed.
    pub(crate) readers: Readers,
}

/// How to make the connection that writes.
#[derive(Clone)]
pub(crate) struct WriterOptions {
    pub(crate) path: PathBuf,
    pub(crate) reserve: Reserve,
    connect: SqliteConnectOptions,
    max_bytes: Option<u64>,
}

impl fmt::Debug for WriterOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriterOptions").field("max_bytes", &self.max_bytes).finish_non_exhaustive()
    }
}

/// Opens `path`, making or migrating it if need be; returns it with the writer's connection.
pub(crate) async fn open(
    path: &Path,
    options: &SqliteOptions,
    application: u32,
    migrations: &'static [Migration],
) -> Result<(Db, SqliteConnection), ProcessStoreError> {
    let path = std::path::absolute(path).map_err(|source| refused(path, source))?;
    let length = path.as_os_str().len();
    if length > MAX_PATH_BYTES {
        let why = format!("its path has {length} bytes, SQLite takes {MAX_PATH_BYTES}");
        return Err(refused(&path, why));
    }
    if path.to_str().is_none() {
        return Err(refused(&path, "its path is not UTF-8, and SQLite takes nothing else"));
    }
    migrate::bring_up(&path, &connect_options(&path, options), application, migrations).await?;

    let writer = WriterOptions {
        path: path.clone(),
        reserve: Reserve { main: options.reserve_bytes, log: options.log_reserve_bytes },
        connect: connect_options(&path, options).thread_name(|_| "windlass-store".to_owned()),
        max_bytes: options.max_bytes,
    };
    let connection = writer.connect().await.map_err(opening)?;
    let reader = connect_options(&path, options)
        .read_only(true)
        .thread_name(|id| format!("windlass-read-{id}"));
    let readers = Readers::new(reader, options.readers);
    Ok((Db { path, writer, readers }, connection))
}

impl Db {
    /// Writes the file anew, without what is free in it, and makes it as long as what it holds.
    pub(crate) async fn compact(&self) -> Result<(), sqlx::Error> {
        // A copy of everything does not belong into memory.
        const SQL: &str = "PRAGMA temp_store = FILE; VACUUM; PRAGMA wal_checkpoint(TRUNCATE)";
        let mut connection = self.writer.connect().await?;
        sqlx::raw_sql(SQL).execute(&mut connection).await?;
        connection.close().await
    }

    /// Returns a reader that has the log open, `None` if there can be none.
    pub(crate) async fn keeper(&self) -> Option<Reader<'_>> {
        let mut reader = self.readers.take().await.ok()?;
        let read = sqlx::raw_sql("SELECT epoch FROM leases").fetch_all(&mut reader.connection);
        read.await.is_ok().then_some(reader)
    }
}

fn connect_options(path: &Path, options: &SqliteOptions) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .busy_timeout(options.busy_timeout)
        .statement_cache_capacity(64)
        // A page of a list in one go: the connection's thread need not wait for the reader half-way.
        .row_buffer_size(256)
        .pragma("synchronous", "FULL")
        .pragma("cache_size", format!("-{}", options.cache_kib))
        .pragma("temp_store", "MEMORY")
        .pragma("trusted_schema", "OFF")
        .disable_statement_logging()
}

impl WriterOptions {
    /// Connects, and makes sure that what the connection commits is durable.
    pub(crate) async fn connect(&self) -> Result<SqliteConnection, sqlx::Error> {
        let mut connection = self.connect.connect().await?;
        let journal: Option<String> = pragma(&mut connection, "PRAGMA journal_mode").await?;
        if journal.as_deref() != Some("wal") {
            let _new: Option<String> = pragma(&mut connection, "PRAGMA journal_mode = WAL").await?;
        }
        assert_durable(&mut connection).await?;
        // A burst must not leave a huge log file behind.
        let _limit: Option<i64> =
            pragma(&mut connection, "PRAGMA journal_size_limit = 16777216").await?;
        if let Some(max_bytes) = self.max_bytes {
            let page: Option<i64> = pragma(&mut connection, "PRAGMA page_size").await?;
            let pages = i64::try_from(max_bytes).unwrap_or(i64::MAX) / page.unwrap_or(4_096).max(1);
            let limit = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
            sqlx::raw_sql(limit).execute(&mut connection).await?;
        }
        Ok(connection)
    }
}

/// Reads the pragmas back: a commit that is not synced must never be acknowledged.
async fn assert_durable(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let synchronous: Option<i64> = pragma(connection, "PRAGMA synchronous").await?;
    let journal: Option<String> = pragma(connection, "PRAGMA journal_mode").await?;
    if synchronous == Some(2) && journal.as_deref() == Some("wal") {
        return Ok(());
    }
    let why =
        format!("commits would not be durable: synchronous {synchronous:?}, journal {journal:?}");
    Err(sqlx::Error::Configuration(why.into()))
}

/// Runs a pragma and returns the first column of its first row.
pub(crate) async fn pragma<T>(
    connection: &mut SqliteConnection,
    sql: &'static str,
) -> Result<Option<T>, sqlx::Error>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    let row = sqlx::raw_sql(sql).fetch_optional(connection).await?;
    row.map(|row| row.try_get(0)).transpose()
}

/// Makes the error for a file that is not what it should be.
pub(crate) fn refused(
    path: &Path,
    why: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> ProcessStoreError {
    let source = NotUsable { path: path.to_owned(), why: why.into() };
    BackendError::permanent(BACKEND, "open", source).into()
}

/// The file cannot be used; it was not changed.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be used as a store and was left alone: {why}", path.display())]
struct NotUsable {
    path: PathBuf,
    why: Box<dyn std::error::Error + Send + Sync>,
}

/// What an error of SQLite means for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// The disk, or the largest size, is reached. SQLite has written no commit.
    Full,
    /// Somebody else writes.
    Busy,
    /// Anything else.
    Other,
}

/// Reads the condition from the error's code.
pub(crate) fn condition(error: &sqlx::Error) -> Condition {
    const BUSY: i32 = 5;
    const LOCKED: i32 = 6;
    const FULL: i32 = 13;
    match code(error) {
        Some(BUSY | LOCKED) => Condition::Busy,
        Some(FULL) => Condition::Full,
        _ => Condition::Other,
    }
}

/// Says whether a value became larger than SQLite takes (1 GB).
pub(crate) fn too_big(error: &sqlx::Error) -> bool {
    const TOO_BIG: i32 = 18;
    code(error) == Some(TOO_BIG)
}

/// Returns the primary result code, the low byte of the extended one.
fn code(error: &sqlx::Error) -> Option<i32> {
    extended_code(error).map(|code| code & 0xff)
}

fn extended_code(error: &sqlx::Error) -> Option<i32> {
    error.as_database_error()?.code()?.parse().ok()
}

/// Wraps an error of an opening. Here it also means a full disk that the index of the log finds no room; of a commit it
/// does not, because the log itself may have been written by then.
fn opening(error: sqlx::Error) -> ProcessStoreError {
    failed_before("open", error)
}

/// Wraps an error after which nothing can have been committed.
pub(crate) fn failed_before(op: &'static str, error: sqlx::Error) -> ProcessStoreError {
    const IOERR_SHMSIZE: i32 = 10 | (19 << 8);
    if condition(&error) == Condition::Full || extended_code(&error) == Some(IOERR_SHMSIZE) {
        return ProcessStoreError::Full;
    }
    failed(op, error)
}

/// Wraps an error of a read, or of a write that may have happened.
pub(crate) fn failed(op: &'static str, error: sqlx::Error) -> ProcessStoreError {
    failed_shared(op, &Arc::new(error))
}

/// Wraps an error that several callers get.
pub(crate) fn failed_shared(op: &'static str, error: &Arc<sqlx::Error>) -> ProcessStoreError {
    let source = Shared(Arc::clone(error));
    match condition(error) {
        Condition::Busy => BackendError::transient(BACKEND, op, source).into(),
        Condition::Full | Condition::Other => BackendError::permanent(BACKEND, op, source).into(),
    }
}

/// An error that several callers get.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Shared(Arc<sqlx::Error>);
