//! The one way to the database: [`Door::run`] for reads, [`Door::with`] for the thread that writes.
//!
//! redb blocks, so nothing of it runs on a thread that runs futures. After an error of the file redb refuses everything
//! until it is opened again; the door does that, behind everybody who is inside.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use redb::Database;
use tokio::sync::Semaphore;
use windlass_core::error::BackendError;

use crate::db::{BACKEND, OpenError, Opened, RedbOptions, failed};
use crate::format::{self, Format};

/// Runs `work` and makes an error of a panic: that is how redb answers to some damaged pages.
pub(crate) fn caught<R>(work: impl FnOnce() -> Result<R, redb::Error>) -> Result<R, redb::Error> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<&str>().copied();
        let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Err(redb::Error::Corrupted(said.unwrap_or("it gave up").to_owned()))
    })
}

/// A database that can be opened again behind its users.
#[derive(Debug)]
pub(crate) struct Door {
    path: PathBuf,
    options: RedbOptions,
    format: &'static Format,
    /// `None` once it was closed, or while it cannot be opened again.
    opened: RwLock<Option<Opened>>,
    turns: Arc<Semaphore>,
}

impl Door {
    /// Opens a store, off the async threads.
    pub(crate) async fn open(
        path: &Path,
        options: RedbOptions,
        format: &'static Format,
    ) -> Result<Arc<Self>, OpenError> {
        let path = std::path::absolute(path).map_err(|error| OpenError::refused(path, error))?;
        let opening = tokio::task::spawn_blocking(move || {
            let opened = format::open(&path, &options, format)?;
            let turns = usize::try_from(options.readers.max(1)).unwrap_or(usize::MAX);
            let turns = Arc::new(Semaphore::new(turns.min(Semaphore::MAX_PERMITS)));
            let opened = RwLock::new(Some(opened));
            Ok(Arc::new(Self { path, options, format, opened, turns }))
        });
        let failed = |error| OpenError::Failed(BackendError::permanent(BACKEND, "open", error));
        opening.await.map_err(failed)?
    }

    /// Returns where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` on a thread that may block, when it is its turn.
    ///
    /// # Cancel safety
    ///
    /// `work` is done in its turn, whether or not somebody waits.
    pub(crate) async fn run<R: Send + 'static>(
        self: &Arc<Self>,
        op: &'static str,
        work: impl FnOnce(&Database) -> Result<R, redb::Error> + Send + 'static,
    ) -> Result<R, BackendError> {
        let door = Arc::clone(self);
        // In a task of its own: who is not polled for a while would keep a turn that is his from everybody else.
        let working = tokio::spawn(async move {
            let turn = Arc::clone(&door.turns).acquire_owned().await;
            let turn = turn.map_err(|error| BackendError::permanent(BACKEND, op, error))?;
            let working = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                caught(|| door.with(work))
            });
            working.await.map_err(|error| BackendError::permanent(BACKEND, op, error))
        });
        let worked = working.await.map_err(|error| BackendError::permanent(BACKEND, op, error))?;
        worked?.map_err(|error| failed(op, error))
    }

    /// Runs `work` here. Blocking.
    pub(crate) fn with<R>(
        &self,
        work: impl FnOnce(&Database) -> Result<R, redb::Error>,
    ) -> Result<R, redb::Error> {
        match &*self.inside() {
            Some(opened) => work(&opened.database),
            None => Err(redb::Error::DatabaseClosed),
        }
    }

    /// Says whether room was missing since this was asked last.
    pub(crate) fn take_full(&self) -> bool {
        self.inside().as_ref().is_some_and(|opened| opened.gate.take_full())
    }

    /// Waits until everybody is outside, closes the database and opens it again. Blocking.
    pub(crate) fn open_again(&self) -> Result<(), OpenError> {
        let mut opened = self.alone();
        // Its lock has to go before it can be opened.
        drop(opened.take());
        *opened = Some(format::open(&self.path, &self.options, self.format)?);
        Ok(())
    }

    /// Waits until everybody is outside and does something that needs the database for itself. Blocking.
    pub(crate) fn with_alone<R>(
        &self,
        work: impl FnOnce(&mut Database) -> Result<R, redb::Error>,
    ) -> Result<R, redb::Error> {
        match &mut *self.alone() {
            Some(opened) => work(&mut opened.database),
            None => Err(redb::Error::DatabaseClosed),
        }
    }

    /// Waits until everybody is outside and closes the database. Blocking.
    pub(crate) fn close(&self) {
        drop(self.alone().take());
    }

    // A panic of redb leaves the option as it was; what it left in the database shows when that is used.
    fn inside(&self) -> RwLockReadGuard<'_, Option<Opened>> {
        self.opened.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn alone(&self) -> RwLockWriteGuard<'_, Option<Opened>> {
        self.opened.write().unwrap_or_else(PoisonError::into_inner)
    }
}
