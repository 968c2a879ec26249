//! The lock of a repository, waited for with a deadline: one git-administration command at a time, across processes.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use windlass_core::vcs_worktree::VcsWorktreeError;

use super::{failed, locator};
use crate::repository_lock::{LOCK_FILE, RepositoryLocks};

/// Waits for the lock of the repository with this common git directory; it is held until it is closed.
///
/// # Errors
///
/// [`VcsWorktreeError::Busy`] after `wait`.
///
/// # Cancel safety
///
/// May be dropped; a lock that is got after that is let go at once.
pub(super) async fn acquire(
    locks: &RepositoryLocks,
    common: &Path,
    wait: Duration,
) -> Result<OwnedFd, VcsWorktreeError> {
    let repo = locator(common);
    match tokio::time::timeout(wait, locks.take(&repo)).await {
        Ok(taken) => taken.map_err(|error| failed("lock", common, error)),
        Err(_) => Err(VcsWorktreeError::Busy { repo, holder: holder(common) }),
    }
}

/// Tells who took the lock; it may have handed it on since.
#[cfg(target_os = "linux")]
fn holder(common: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = common.join(LOCK_FILE).symlink_metadata().ok()?;
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
        let held = acquire(&ours, dir.path(), LATE).await.unwrap();
        for locks in [&ours, &theirs] {
            let error = acquire(locks, dir.path(), SOON).await.unwrap_err();
            let VcsWorktreeError::Busy { holder, .. } = error else { panic!("{error}") };
            if cfg!(target_os = "linux") {
                assert_eq!(holder, Some(std::process::id()));
            }
        }
        drop(held);
        // The threads that nobody waits for any more must let go of what they got.
        drop(acquire(&theirs, dir.path(), LATE).await.unwrap());
        drop(acquire(&ours, dir.path(), LATE).await.unwrap());
    }

    #[tokio::test]
    async fn a_descriptor_that_was_handed_on_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let locks = RepositoryLocks::default();
        let held = acquire(&locks, dir.path(), LATE).await.unwrap();
        let handed_on = held.try_clone().unwrap();
        drop(held);
        assert!(acquire(&locks, dir.path(), SOON).await.is_err());
        drop(handed_on);
        drop(acquire(&locks, dir.path(), LATE).await.unwrap());
    }
}
