//! How to use the file, and what an error of redb means.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, DatabaseError};
use windlass_core::error::BackendError;
use windlass_core::log_store::LogStoreError;
use windlass_core::process_store::ProcessStoreError;

use crate::gate::is_full;

/// The name in errors.
pub(crate) const BACKEND: &str = "redb";

/// How to use the file. The default suits a host that idles in a few megabytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedbOptions {
    /// Memory for pages, in KiB: what was read and what is being written.
    pub cache_kib: u32,
    /// Most reads that are under way at the same time, each on a thread that may block.
    pub readers: u32,
    /// Largest size of the file, in bytes; above it a write is refused as for a full disk. `None` leaves it to the disk.
    pub max_bytes: Option<u64>,
}

impl Default for RedbOptions {
    fn default() -> Self {
        Self { cache_kib: 8_192, readers: 4, max_bytes: None }
    }
}

impl RedbOptions {
    pub(crate) fn cache_bytes(&self) -> usize {
        usize::try_from(self.cache_kib).unwrap_or(usize::MAX).saturating_mul(1_024)
    }
}

/// An open database and the gate before its file.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) database: Database,
    pub(crate) gate: crate::gate::Gate,
}

/// Why a file was not opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// It is of a newer version.
    #[error("the store has format {found}, this version knows up to {known}")]
    Newer { found: u32, known: u32 },
    /// There is no room.
    #[error("no space left for the store")]
    Full,
    /// Anything else.
    #[error(transparent)]
    Failed(BackendError),
}

impl OpenError {
    /// The file is not what it should be; it was not changed.
    pub(crate) fn refused(
        path: &Path,
        why: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        let source = NotUsable { path: path.to_owned(), why: why.into() };
        Self::Failed(BackendError::permanent(BACKEND, "open", source))
    }

    /// What redb says when it opens `path`.
    pub(crate) fn of_database(path: &Path, error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen => {
                let source = InUse { path: path.to_owned() };
                Self::Failed(BackendError::transient(BACKEND, "open", source))
            }
            DatabaseError::UpgradeRequired(version) => {
                let why = format!("its pages have the old format {version} of redb");
                Self::refused(path, why)
            }
            error => Self::of_redb(path, error.into()),
        }
    }

    /// What redb says while it reads what it has opened.
    pub(crate) fn of_redb(path: &Path, error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) if is_full(&error) => Self::Full,
            error => Self::refused(path, error),
        }
    }

    /// What the file system says.
    pub(crate) fn of_io(path: &Path, error: std::io::Error) -> Self {
        if is_full(&error) { Self::Full } else { Self::refused(path, error) }
    }
}

impl From<OpenError> for ProcessStoreError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Newer { found, known } => Self::Newer { found, known },
            OpenError::Full => Self::Full,
            OpenError::Failed(error) => error.into(),
        }
    }
}

impl From<OpenError> for LogStoreError {
    fn from(error: OpenError) -> Self {
        match error {
            // The port has no refusal of its own for this.
            OpenError::Newer { .. } => BackendError::permanent(BACKEND, "open", error).into(),
            OpenError::Full => Self::Full,
            OpenError::Failed(error) => error.into(),
        }
    }
}

/// The file cannot be used; it was not changed.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be used as a store and was left alone: {why}", path.display())]
struct NotUsable {
    path: PathBuf,
    why: Box<dyn std::error::Error + Send + Sync>,
}

/// One process at a time.
#[derive(Debug, thiserror::Error)]
#[error("{} is open already, in this process or another one", path.display())]
struct InUse {
    path: PathBuf,
}

/// Makes the error for what redb says.
pub(crate) fn failed(op: &'static str, error: redb::Error) -> BackendError {
    failed_shared(op, &Arc::new(error))
}

/// Makes the error for what redb says to several callers.
pub(crate) fn failed_shared(op: &'static str, error: &Arc<redb::Error>) -> BackendError {
    let transient = matches!(
        **error,
        redb::Error::PreviousIo | redb::Error::LockPoisoned(_) | redb::Error::DatabaseAlreadyOpen
    );
    let source = Shared(Arc::clone(error)).into();
    BackendError { backend: BACKEND, op, transient, source }
}

/// An error that several callers get.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Shared(Arc<redb::Error>);
