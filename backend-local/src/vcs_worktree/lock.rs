//! The lock of a repository: one git-administration command at a time, across processes.
//!
//! It is a flock on a file in the common git directory, so that everybody who works on the repository meets there,
//! whatever data directory he comes from, and so that a descriptor of it can be handed to an execution.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags, flock};
use tokio::sync::{OwnedMutexGuard, oneshot};
use windlass_core::vcs_worktree::VcsWorktreeError;

use super::{failed, locator};

/// The lock's file in the common git directory.
const FILE: &str = "windlass.lock";

/// A repository's lock, held until it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    file: File,
    // Declared after the file: the next one in this process tries when the lock is free.
    _turn: OwnedMutexGuard<()>,
}

impl AsFd for Held {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The turns of this process, one queue for each repository.
#[derive(Debug, Default)]
pub(crate) struct RepositoryLocks {
    turns: Mutex<BTreeMap<PathBuf, Arc<tokio::sync::Mutex<()>>>>,
}

impl RepositoryLocks {
    /// Waits for the lock of the repository with this common git directory.
    ///
    /// # Errors
    ///
    /// [`VcsWorktreeError::Busy`] after `wait`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the turn back.
    pub(crate) async fn acquire(
        &self,
        common: &Path,
        wait: Duration,
    ) -> Result<Held, VcsWorktreeError> {
        let busy = || VcsWorktreeError::Busy { repo: locator(common), holder: holder(common) };
        let deadline = tokio::time::Instant::now() + wait;
        let turn = tokio::time::timeout_at(deadline, self.turn(common).lock_owned());
        let turn = turn.await.map_err(|_| busy())?;
        let file = open(common).map_err(|error| failed("lock", common, error))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Held { file, _turn: turn }),
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(error) => return Err(failed("lock", common, error.into())),
        }
        match tokio::time::timeout_at(deadline, wait_in_thread(file, turn)?).await {
            Ok(Ok(held)) => held.map_err(|error| failed("lock", common, error)),
            Ok(Err(_)) | Err(_) => Err(busy()),
        }
    }

    fn turn(&self, common: &Path) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(common.to_owned()).or_default())
    }
}

/// Waits in a thread of its own, since a flock has no deadline and a blocking pool would wait for it when it ends.
///
/// The thread keeps the turn, so that there is at most one per repository however long a stranger holds the lock.
fn wait_in_thread(
    file: File,
    turn: OwnedMutexGuard<()>,
) -> Result<oneshot::Receiver<io::Result<Held>>, VcsWorktreeError> {
    let (sender, receiver) = oneshot::channel();
    let waiting = move || {
        let locked = loop {
            match flock(&file, FlockOperation::LockExclusive) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other,
            }
        };
        let held = Held { file, _turn: turn };
        // If nobody waits any more the lock and the turn come back in the error and are dropped.
        drop(sender.send(locked.map(|()| held).map_err(io::Error::from)));
    };
    std::thread::Builder::new()
        .name("windlass-lock".to_owned())
        .spawn(waiting)
        .map_err(|error| failed("lock", Path::new(FILE), error))?;
    Ok(receiver)
}

fn open(common: &Path) -> io::Result<File> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::CLOEXEC).bits()).unwrap_or_default();
    let path = common.join(FILE);
    // Another user's file may be read-only for us; a flock does not mind.
    let existing = OpenOptions::new().read(true).custom_flags(flags).open(&path);
    match existing {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut options = OpenOptions::new();
            // Not `create_new`: several processes may come first.
            options.read(true).append(true).create(true).mode(0o666).custom_flags(flags);
            options.open(&path)
        }
        other => other,
    }
}

/// Tells who took the lock; it may have handed it on since.
#[cfg(target_os = "linux")]
fn holder(common: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = common.join(FILE).symlink_metadata().ok()?;
    let (major, minor) = (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()));
    let place = format!("{major:02x}:{minor:02x}:{}", meta.ino());
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [_, "FLOCK", _, "WRITE", pid, at, ..] if *at == place => pid.parse().ok(),
            _ => None,
        }
    })
}

#[cfg(not(target_os = "linux"))]
fn holder(_common: &Path) -> Option<u32> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(50);
    const LATE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn one_at_a_time_in_and_across_processes() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (RepositoryLocks::default(), RepositoryLocks::default());
        let held = ours.acquire(dir.path(), LATE).await.unwrap();
        for locks in [&ours, &theirs] {
            let error = locks.acquire(dir.path(), SOON).await.unwrap_err();
            let VcsWorktreeError::Busy { holder, .. } = error else { panic!("{error}") };
            if cfg!(target_os = "linux") {
                assert_eq!(holder, Some(std::process::id()));
            }
        }
        drop(held);
        // The thread that gave up waiting must let go of what it got.
        drop(theirs.acquire(dir.path(), LATE).await.unwrap());
        drop(ours.acquire(dir.path(), LATE).await.unwrap());
    }

    #[tokio::test]
    async fn a_descriptor_that_was_handed_on_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let locks = RepositoryLocks::default();
        let held = locks.acquire(dir.path(), LATE).await.unwrap();
        let handed_on = held.as_fd().try_clone_to_owned().unwrap();
        drop(held);
        assert!(locks.acquire(dir.path(), SOON).await.is_err());
        drop(handed_on);
        drop(locks.acquire(dir.path(), LATE).await.unwrap());
    }
}
