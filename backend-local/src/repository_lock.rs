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
use tokio::sync::Mutex;
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
        let turn = self.turn(repository);
        let guard = turn.lock_owned().await;
        let repository = repository.clone();
        let waiting = tokio::task::spawn_blocking(move || {
            // The turn ends with the wait, not with whoever asked for it.
            let _guard = guard;
            let path = Path::new(OsStr::from_bytes(repository.as_bytes())).join(LOCK_FILE);
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?;
            rustix::io::retry_on_intr(|| {
                rustix::fs::flock(&file, FlockOperation::LockExclusive)
            })?;
            Ok(file)
        });
        waiting.await.map_err(io::Error::other)?
    }

    fn turn(&self, repository: &Locator) -> Arc<Mutex<()>> {
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
