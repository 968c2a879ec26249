//! The lock of a repository: one git step at a time, across processes, for as long as anything of the step lives.
//!
//! The lock is an flock; its descriptor goes to the shim, which hands it to the command. Nobody gives it back: it ends
//! with the last process that has it.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::{Arc, PoisonError, Weak};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};
use windlass_core::locator::Locator;

/// The name of the lock file in the common git directory.
pub(crate) const LOCK_FILE: &str = "windlass.lock";

/// Takes locks of repositories.
#[derive(Debug, Default)]
pub(crate) struct RepositoryLocks {
    /// Who waits in this process: one thread at most waits for the others.
    turns: std::sync::Mutex<HashMap<Locator, Weak<Mutex<()>>>>,
}

impl RepositoryLocks {
    /// Waits for the lock of a repository, named by its common git directory.
    ///
    /// # Cancel safety
    ///
    /// May be dropped; a lock that is got after that is let go at once.
    pub(crate) async fn take(&self, repository: &Locator) -> io::Result<OwnedFd> {
        let turn = self.turn(repository).lock_owned().await;
        let file = open(Path::new(OsStr::from_bytes(repository.as_bytes())))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) => {}
            Err(error) => return Err(error.into()),
        }
        wait_in_thread(file, turn)?.await.map_err(io::Error::other)?
    }

    /// Whose turn it is in this process to wait for what has this name.
    pub(crate) fn turn(&self, repository: &Locator) -> Arc<Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(repository).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::new(Mutex::new(()));
        turns.insert(repository.clone(), Arc::downgrade(&turn));
        turn
    }
}

/// Waits in a thread of its own: a pool of threads would be waited for when its runtime ends.
///
/// The thread keeps the turn, so that there is one at most for each repository.
fn wait_in_thread(
    file: OwnedFd,
    turn: OwnedMutexGuard<()>,
) -> io::Result<oneshot::Receiver<io::Result<OwnedFd>>> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new().name("windlass-lock".to_owned()).spawn(move || {
        let wait = || rustix::fs::flock(&file, FlockOperation::LockExclusive);
        let locked = rustix::io::retry_on_intr(wait);
        drop(turn);
        // If nobody waits any more, the lock comes back in the error and is let go.
        drop(sender.send(locked.map(|()| file).map_err(io::Error::from)));
    })?;
    Ok(receiver)
}

/// Takes the lock of the repository with this common git directory if nobody has it.
pub(crate) fn try_take(common: &Path) -> io::Result<Option<OwnedFd>> {
    let file = open(common)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Says whether nobody has the lock of the repository with this common git directory.
pub(crate) fn is_free(common: &Path) -> io::Result<bool> {
    let Some(file) = try_take(common)? else { return Ok(false) };
    // Given back explicitly: a process that is being made has a copy of the descriptor for a moment.
    rustix::fs::flock(&file, FlockOperation::Unlock)?;
    Ok(true)
}

/// Opens the lock file, and makes it if it is not there.
fn open(common: &Path) -> io::Result<OwnedFd> {
    let path = common.join(LOCK_FILE);
    let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW;
    // Another user's file may be read-only for us; a flock does not mind.
    match rustix::fs::open(&path, flags | OFlags::RDONLY, Mode::empty()) {
        Err(Errno::NOENT) => {}
        other => return Ok(other?),
    }
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH;
    Ok(rustix::fs::open(&path, flags | OFlags::RDWR | OFlags::CREATE, mode)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_waits_until_the_first_is_closed() {
        let home = tempfile::tempdir().unwrap();
        let repository = Locator::new(home.path().as_os_str().as_bytes());
        let locks = Arc::new(RepositoryLocks::default());
        let first = locks.take(&repository).await.unwrap();
        let second = {
            let (locks, repository) = (Arc::clone(&locks), repository.clone());
            tokio::spawn(async move { locks.take(&repository).await })
        };
        let path = home.path().join(LOCK_FILE);
        let other = rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let busy = rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive);
        assert_eq!(busy, Err(rustix::io::Errno::WOULDBLOCK));
        assert!(!second.is_finished());
        drop(first);
        let second = second.await.unwrap().unwrap();
        let busy = rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive);
        assert_eq!(busy, Err(rustix::io::Errno::WOULDBLOCK));
        drop(second);
        rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive).unwrap();
    }
}
