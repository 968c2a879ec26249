//! Formats of the file: tells a store from anything else before touching it, makes new ones, migrates older ones.
//!
//! The version is `user_version` in the header of the main file. It is there before the file is put into WAL mode, and a
//! migration ends with a checkpoint; so it can be read without opening the database, which might write.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use sqlx::ConnectOptions as _;
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use windlass_core::error::BackendError;
use windlass_core::process_store::ProcessStoreError;

use crate::db::{BACKEND, failed, pragma, refused};

/// One step from the format before it.
#[derive(Debug)]
pub(crate) struct Migration {
    /// What it does. It must not contain a transaction of its own.
    pub(crate) sql: &'static str,
}

/// The steps from nothing to the newest format, whose number is their count.
pub(crate) const MIGRATIONS: &[Migration] =
    &[Migration { sql: include_str!("../migrations/0001_records.sql") }];

/// `application_id` in the header: the file is a store of records of ours.
pub(crate) const APPLICATION_ID: u32 = 0x574e_444c;

const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// How a rollback journal begins.
const JOURNAL_MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
/// Where it says how many pages the file had before.
const JOURNAL_PAGES: std::ops::Range<usize> = 16..20;
const HEADER_BYTES: usize = 100;

/// What lies at the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// Nothing, or an empty file that was about to become a store.
    Nothing,
    /// A store of this format.
    Store { version: u32 },
}

/// Makes sure that a store of the newest format is at `path`, one with this `application_id`.
pub(crate) async fn bring_up(
    path: &Path,
    options: &SqliteConnectOptions,
    application: u32,
    migrations: &'static [Migration],
) -> Result<(), ProcessStoreError> {
    let known = u32::try_from(migrations.len()).unwrap_or(u32::MAX);
    let looked_at = path.to_owned();
    let found = blocking(move || look(&looked_at, application)).await?;
    match found {
        Found::Nothing => create(path, options, application, migrations, known).await,
        Found::Store { version } if version > known => {
            Err(ProcessStoreError::Newer { found: version, known })
        }
        Found::Store { version } if version < known => {
            migrate(path, options, migrations, known).await
        }
        Found::Store { .. } => Ok(()),
    }
}

/// Reads the header without SQLite, so that nothing is written whatever is there.
fn look(path: &Path, wanted: u32) -> Result<Found, ProcessStoreError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(refused(path, error)),
    };
    let mut header = [0_u8; HEADER_BYTES];
    let length = fill(&mut file, &mut header).map_err(|error| refused(path, error))?;
    if is_half_made(path).map_err(|error| refused(path, error))? {
        return Ok(Found::Nothing);
    }
    if length == 0 {
        // A store never shrinks to nothing: with a log beside it, this is damage and not a beginning.
        let log = std::fs::metadata(beside(path, "-wal"));
        return match log {
            Ok(log) if log.len() > 0 => {
                Err(refused(path, "it is empty, but the log beside it is not"))
            }
            _ => Ok(Found::Nothing),
        };
    }
    if length < HEADER_BYTES || &header[..MAGIC.len()] != MAGIC {
        return Err(refused(path, "it is not a SQLite database, or its beginning is damaged"));
    }
    let word = |at: usize| {
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let (version, application) = (word(60), word(68));
    if application != wanted || version == 0 {
        return Err(refused(path, "it is a SQLite database, but not one of Windlass for this"));
    }
    Ok(Found::Store { version })
}

/// Reads as much as there is room for, or there is.
fn fill(file: &mut File, room: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < room.len() {
        match file.read(&mut room[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// Says whether the making of the file was cut short: then the journal beside it says that there was nothing before, and
/// whatever its beginning looks like, the first one to open it makes nothing of it again.
fn is_half_made(path: &Path) -> io::Result<bool> {
    let mut journal = match File::open(beside(path, "-journal")) {
        Ok(journal) => journal,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut header = [0_u8; JOURNAL_PAGES.end];
    let length = fill(&mut journal, &mut header)?;
    Ok(length == header.len()
        && header.starts_with(&JOURNAL_MAGIC)
        && header[JOURNAL_PAGES].iter().all(|byte| *byte == 0))
}

/// Makes a new store: with a rollback journal, so that it is complete or empty at every instant.
async fn create(
    path: &Path,
    options: &SqliteConnectOptions,
    application: u32,
    migrations: &'static [Migration],
    known: u32,
) -> Result<(), ProcessStoreError> {
    let options = options.clone().create_if_missing(true);
    let mut connection = options.connect().await.map_err(|error| failed("open", error))?;
    execute(&mut connection, "BEGIN EXCLUSIVE").await?;
    // Somebody else may have been quicker.
    if version(&mut connection).await? == 0 {
        for migration in migrations {
            execute(&mut connection, migration.sql).await?;
        }
        let stamp = format!("PRAGMA application_id = {application}; PRAGMA user_version = {known}");
        execute_owned(&mut connection, stamp).await?;
    }
    execute(&mut connection, "COMMIT").await?;
    close(connection).await?;
    let path = path.to_owned();
    blocking(move || sync_directory(&path).map_err(|error| refused(&path, error))).await
}

/// Migrates an older store. A copy of the original lies beside it until the migration is durable.
async fn migrate(
    path: &Path,
    options: &SqliteConnectOptions,
    migrations: &'static [Migration],
    known: u32,
) -> Result<(), ProcessStoreError> {
    let mut connection = options.connect().await.map_err(|error| failed("open", error))?;
    checkpoint(&mut connection).await?;
    // The log may have held the end of a migration that was interrupted.
    let found = version(&mut connection).await?;
    if found > known {
        return Err(ProcessStoreError::Newer { found, known });
    }
    let copy = beside(path, &format!(".v{found}"));
    if found < known {
        let (from, to) = (path.to_owned(), copy.clone());
        blocking(move || keep_copy(&from, &to).map_err(|error| refused(&from, error))).await?;
        execute(&mut connection, "BEGIN EXCLUSIVE").await?;
        let done = usize::try_from(found).unwrap_or(usize::MAX);
        for migration in migrations.iter().skip(done) {
            execute(&mut connection, migration.sql).await?;
        }
        execute_owned(&mut connection, format!("PRAGMA user_version = {known}")).await?;
        execute(&mut connection, "COMMIT").await?;
        checkpoint(&mut connection).await?;
    }
    close(connection).await?;
    // Copies of this and of earlier interrupted migrations have done their duty.
    let path = path.to_owned();
    blocking(move || {
        for version in 1..known {
            match std::fs::remove_file(beside(&path, &format!(".v{version}"))) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(refused(&path, error));
                }
                _ => {}
            }
        }
        Ok(())
    })
    .await
}

/// Brings the whole log into the main file.
async fn checkpoint(connection: &mut SqliteConnection) -> Result<(), ProcessStoreError> {
    let busy = pragma::<i64>(connection, "PRAGMA wal_checkpoint(TRUNCATE)").await;
    match busy.map_err(|error| failed("migrate", error))? {
        Some(0) | None => Ok(()),
        Some(_) => {
            Err(BackendError::transient(BACKEND, "migrate", "somebody uses the store").into())
        }
    }
}

async fn version(connection: &mut SqliteConnection) -> Result<u32, ProcessStoreError> {
    let version = pragma::<i64>(connection, "PRAGMA user_version").await;
    let version = version.map_err(|error| failed("migrate", error))?;
    Ok(version.and_then(|version| u32::try_from(version).ok()).unwrap_or(0))
}

async fn execute(
    connection: &mut SqliteConnection,
    sql: &'static str,
) -> Result<(), ProcessStoreError> {
    let done = sqlx::raw_sql(sql).execute(connection).await;
    done.map(|_| ()).map_err(|error| failed("migrate", error))
}

async fn execute_owned(
    connection: &mut SqliteConnection,
    sql: String,
) -> Result<(), ProcessStoreError> {
    let done = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(connection).await;
    done.map(|_| ()).map_err(|error| failed("migrate", error))
}

async fn close(connection: SqliteConnection) -> Result<(), ProcessStoreError> {
    connection.close().await.map_err(|error| failed("migrate", error))
}

/// Copies the file; the copy has its name only when it is whole and durable.
fn keep_copy(from: &Path, to: &Path) -> io::Result<()> {
    let unfinished = beside(to, ".new");
    std::fs::copy(from, &unfinished)?;
    File::open(&unfinished)?.sync_all()?;
    std::fs::rename(&unfinished, to)?;
    sync_directory(to)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// Returns the path with `suffix` at its end.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ProcessStoreError> + Send + 'static,
) -> Result<T, ProcessStoreError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|error| BackendError::permanent(BACKEND, "open", error))?
}

#[cfg(test)]
mod tests {
    use std::fs;

    use uuid::Uuid;
    use windlass_core::id::{HostId, NodeId};
    use windlass_core::process_store::{
        Expect, Kind, ProcessStore as _, Query, Record, RecordKey, Write,
    };
    use windlass_core::time::Timestamp;

    use super::*;
    use crate::{SqliteOptions, SqliteStore};

    const FIRST: &str = include_str!("../migrations/0001_records.sql");

    /// What a next version might do.
    static NEXT: &[Migration] = &[
        Migration { sql: FIRST },
        Migration {
            sql: "ALTER TABLE records ADD COLUMN note TEXT; UPDATE records SET note = 'old'",
        },
    ];
    /// One that does half and fails.
    static FAILING: &[Migration] = &[
        Migration { sql: FIRST },
        Migration { sql: "DELETE FROM records; INSERT INTO nowhere VALUES (1)" },
    ];

    /// Makes a store of format 1 with one record; with `hot`, as a kill leaves it: half of it in the log.
    async fn older(path: &Path, hot: bool) {
        let store = SqliteStore::open(path, SqliteOptions::default()).await.unwrap();
        let lease = store.acquire(HostId(Uuid::nil()), NodeId(Uuid::nil())).await.unwrap();
        let record = Record {
            key: RecordKey { kind: Kind::Task, id: Uuid::nil() },
            parent: None,
            owner: None,
            state: "todo".to_owned(),
            at: Timestamp(1),
            body: "{}".to_owned(),
        };
        let batch = vec![Write::Put { record, expect: Expect::Absent }];
        store.commit(batch, lease).await.unwrap();
        if hot {
            let (main, log) = (fs::read(path).unwrap(), fs::read(beside(path, "-wal")).unwrap());
            store.close().await;
            fs::write(path, main).unwrap();
            fs::write(beside(path, "-wal"), log).unwrap();
        } else {
            store.close().await;
        }
    }

    async fn open(
        path: &Path,
        migrations: &'static [Migration],
    ) -> Result<std::sync::Arc<SqliteStore>, ProcessStoreError> {
        SqliteStore::open_with(path, &SqliteOptions::default(), migrations).await
    }

    fn names(directory: &tempfile::TempDir) -> Vec<String> {
        let entries = fs::read_dir(directory.path()).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| {
            entry.unwrap().file_name().to_string_lossy().into_owned()
        };
        let mut names: Vec<String> = entries.map(name).collect();
        names.sort();
        names
    }

    async fn records(store: &SqliteStore) -> usize {
        store.list(Query::newest(Kind::Task, 10)).await.unwrap().records.len()
    }

    #[tokio::test]
    async fn an_older_store_is_migrated_and_its_copy_removed() {
        for hot in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("windlass.db");
            older(&path, hot).await;
            let store = open(&path, NEXT).await.unwrap();
            assert_eq!(records(&store).await, 1);
            store.close().await;
            assert_eq!(look(&path, APPLICATION_ID).unwrap(), Found::Store { version: 2 });
            assert_eq!(names(&directory), ["windlass.db"]);
            // The version that made it refuses it now, and the new one opens it again.
            let refused = open(&path, MIGRATIONS).await;
            assert!(matches!(refused, Err(ProcessStoreError::Newer { found: 2, known: 1 })));
            assert_eq!(records(&open(&path, NEXT).await.unwrap()).await, 1);
        }
    }

    #[tokio::test]
    async fn a_migration_that_fails_leaves_the_store_and_a_copy_as_they_were() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("windlass.db");
        older(&path, false).await;
        let original = fs::read(&path).unwrap();
        assert!(open(&path, FAILING).await.is_err());
        assert_eq!(fs::read(beside(&path, ".v1")).unwrap(), original);
        let store = open(&path, MIGRATIONS).await.unwrap();
        assert_eq!(records(&store).await, 1);
        store.close().await;
        // A later one that works takes the copy away.
        open(&path, NEXT).await.unwrap().close().await;
        assert_eq!(names(&directory), ["windlass.db"]);
    }

    #[tokio::test]
    async fn an_interrupted_copy_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("windlass.db");
        older(&path, false).await;
        fs::write(beside(&path, ".v1.new"), "half").unwrap();
        open(&path, NEXT).await.unwrap().close().await;
        assert_eq!(names(&directory), ["windlass.db"]);
    }

    #[tokio::test]
    async fn a_store_whose_making_was_cut_short_while_it_was_written_is_made() {
        let made = tempfile::tempdir().unwrap();
        let options = |path: &Path| SqliteConnectOptions::new().filename(path);
        let path = made.path().join("windlass.db");
        bring_up(&path, &options(&path), APPLICATION_ID, MIGRATIONS).await.unwrap();
        let whole = fs::read(&path).unwrap();
        // Sizes of sectors and pages; no page was there, so none is kept.
        let mut journal = vec![0; 512];
        journal[..8].copy_from_slice(&JOURNAL_MAGIC);
        journal[20..28].copy_from_slice(&[0, 0, 2, 0, 0, 0, 0x10, 0]);
        let hollow = vec![0; whole.len()];
        let torn = [&whole[..512], &hollow[512..]].concat();
        for written in [&whole, &hollow, &torn, &torn[..512].to_vec()] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("windlass.db");
            fs::write(&path, written).unwrap();
            fs::write(beside(&path, "-journal"), &journal).unwrap();
            for _ in 0..2 {
                let store = open(&path, MIGRATIONS).await.unwrap();
                assert_eq!(records(&store).await, 0);
                store.close().await;
                assert!(!beside(&path, "-journal").exists());
            }
        }
    }

    #[tokio::test]
    async fn a_store_whose_making_was_interrupted_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("windlass.db");
        // Before the first commit there is an empty file; after it, the store is not in WAL mode yet.
        fs::write(&path, "").unwrap();
        let options = SqliteConnectOptions::new().filename(&path);
        bring_up(&path, &options, APPLICATION_ID, MIGRATIONS).await.unwrap();
        assert_eq!(names(&directory), ["windlass.db"]);
        let store = open(&path, MIGRATIONS).await.unwrap();
        assert_eq!(records(&store).await, 0);
    }
}
