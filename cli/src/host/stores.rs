//! The databases of a data directory: opened by their kind, closed in the end, made small on request.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use windlass::api::error::chain;
use windlass::core::error::BackendError;
use windlass::core::log_store::{LogStore, LogStoreError};
use windlass::core::process_store::{ProcessStore, ProcessStoreError};
use windlass_redb::{RedbLogs, RedbOptions, RedbStore};
use windlass_sqlite::{SqliteLogs, SqliteOptions, SqliteStore};

use crate::args::{LogsKind, StoreKind};
use crate::config::{DataDir, show};
use crate::error::{Class, CliError};

/// The open store of a data directory.
#[derive(Clone, Debug)]
pub enum Store {
    /// On SQLite.
    Sqlite(Arc<SqliteStore>),
    /// On redb.
    Redb(Arc<RedbStore>),
}

impl Store {
    /// Opens it, and makes it if it is not there. The caller holds the host's lock.
    ///
    /// # Errors
    ///
    /// It is of a newer version, damaged, open elsewhere, or cannot be opened.
    pub async fn open(data: &DataDir) -> Result<Self, CliError> {
        let path = data.store();
        // The databases say in words of their own what these say plainly.
        writable(&data.path)?;
        writable(&path)?;
        let opened = match data.store_kind() {
            StoreKind::Sqlite => {
                SqliteStore::open(&path, SqliteOptions::default()).await.map(Self::Sqlite)
            }
            StoreKind::Redb => RedbStore::open(&path, RedbOptions::default()).await.map(Self::Redb),
        };
        opened.map_err(|error| match error {
            ProcessStoreError::Newer { found, known } => newer(&path, found, known),
            ProcessStoreError::Full => full(&path),
            ProcessStoreError::Backend(source) => not_opened(&path, &source),
            ProcessStoreError::Conflict { .. }
            | ProcessStoreError::Superseded { .. }
            | ProcessStoreError::Invalid { .. }
            | ProcessStoreError::Damaged { .. } => unusable(&path, &chain(&error)),
        })
    }

    /// Returns it as what the engine works with.
    #[must_use]
    pub fn port(&self) -> Arc<dyn ProcessStore> {
        match self {
            Self::Sqlite(store) => Arc::clone(store) as Arc<dyn ProcessStore>,
            Self::Redb(store) => Arc::clone(store) as Arc<dyn ProcessStore>,
        }
    }

    /// Makes its file as small as what is in it allows.
    ///
    /// # Errors
    ///
    /// There is no room for it, or it is damaged; the records are as they were.
    pub async fn compact(&self) -> Result<(), ProcessStoreError> {
        match self {
            Self::Sqlite(store) => store.compact().await,
            Self::Redb(store) => store.compact().await.map(drop),
        }
    }

    /// Writes what waits and closes it.
    pub async fn close(&self) {
        match self {
            Self::Sqlite(store) => store.close().await,
            Self::Redb(store) => store.close().await,
        }
    }
}

/// The open database that keeps the logs of a data directory.
#[derive(Clone, Debug)]
pub enum KeptLogs {
    /// On SQLite.
    Sqlite(Arc<SqliteLogs>),
    /// On redb.
    Redb(Arc<RedbLogs>),
}

impl KeptLogs {
    /// Opens it, and makes it if it is not there; `None` where the segments are all there is. The caller holds the host's
    /// lock.
    ///
    /// # Errors
    ///
    /// As [`Store::open`].
    pub async fn open(data: &DataDir) -> Result<Option<Self>, CliError> {
        let path = data.logs();
        let opened = match data.logs_kind().beside(data.store_kind()) {
            LogsKind::Files => return Ok(None),
            kind => {
                writable(&data.path)?;
                writable(&path)?;
                match kind {
                    LogsKind::Redb => {
                        RedbLogs::open(&path, RedbOptions::default()).await.map(Self::Redb)
                    }
                    LogsKind::Sqlite | LogsKind::Store | LogsKind::Files => {
                        SqliteLogs::open(&path, SqliteOptions::default()).await.map(Self::Sqlite)
                    }
                }
            }
        };
        opened.map(Some).map_err(|error| match error {
            LogStoreError::Full => full(&path),
            LogStoreError::Backend(source) => not_opened(&path, &source),
            LogStoreError::NotFound { .. }
            | LogStoreError::NotNext { .. }
            | LogStoreError::Sealed { .. } => unusable(&path, &chain(&error)),
        })
    }

    /// Returns it as what the engine works with.
    #[must_use]
    pub fn port(&self) -> Arc<dyn LogStore> {
        match self {
            Self::Sqlite(logs) => Arc::clone(logs) as Arc<dyn LogStore>,
            Self::Redb(logs) => Arc::clone(logs) as Arc<dyn LogStore>,
        }
    }

    /// Makes its file as small as what is in it allows.
    ///
    /// # Errors
    ///
    /// There is no room for it, or it is damaged; the logs are as they were.
    pub async fn compact(&self) -> Result<(), LogStoreError> {
        match self {
            Self::Sqlite(logs) => logs.compact().await,
            Self::Redb(logs) => logs.compact().await.map(drop),
        }
    }

    /// Writes what waits and closes it.
    pub async fn close(&self) {
        match self {
            Self::Sqlite(logs) => logs.close().await,
            Self::Redb(logs) => logs.close().await,
        }
    }
}

/// Makes the error for a store of a newer version.
fn newer(path: &Path, found: u32, known: u32) -> CliError {
    CliError::new(
        Class::Refused,
        "newer_format",
        format!("{} has format {found}, this version knows up to {known}", show(path)),
        "use the newer windlass that made it, or another --data-dir",
    )
}

fn full(path: &Path) -> CliError {
    let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
    CliError::unusable(format!("open {}", show(path)), &full)
}

/// Makes the error for a database that its backend could not open. What may pass is that somebody else has it.
fn not_opened(path: &Path, error: &BackendError) -> CliError {
    if error.transient {
        return CliError::new(
            Class::Refused,
            "host_exists",
            format!("{} is in use by another program, which is not its host", show(path)),
            "end that program first, or name another directory with --data-dir",
        );
    }
    unusable(path, &chain(error))
}

/// Makes the error for a database that cannot be opened, for a reason that does not go away by itself.
pub fn unusable(path: &Path, why: &str) -> CliError {
    let hint = if path.exists() {
        let beside = ["-wal", "-shm"].map(|suffix| beside(path, suffix));
        let names = if beside.iter().any(|path| path.exists()) {
            "move it and its -wal and -shm files away"
        } else {
            "move it away"
        };
        format!(
            "it was left alone: restore it from a backup, or {names} to begin anew; --data-dir names another data directory"
        )
    } else {
        "name another data directory with --data-dir".to_owned()
    };
    let message = format!("failed to open {}: {why}", show(path));
    CliError::new(Class::Refused, "store", message, hint)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Refuses what is there and may not be written.
pub(super) fn writable(path: &Path) -> Result<(), CliError> {
    match rustix::fs::access(path, rustix::fs::Access::WRITE_OK) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(CliError::unusable(format!("write to {}", show(path)), &error.into())),
    }
}
