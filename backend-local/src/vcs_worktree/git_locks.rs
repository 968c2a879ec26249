//! Git's own lock files of a worktree: one that a dead git left behind is removed, a live one is waited for and named.
//!
//! Git does not write down who holds a lock. A lock is taken for dead if no process has it open, no git that can be seen
//! works in the repository, and it stays the same for [`OBSERVED`]: a git that cannot be seen, in a container say, shows
//! by ending. No clock but our own waiting decides.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use windlass_core::vcs_worktree::VcsWorktreeError;

use super::refs::HEADS;
use super::verify::Found;
use super::{Inner, failed, locator};
use crate::group::Cancel;

/// How long a lock without a holder is watched before it is taken for left over.
const OBSERVED: Duration = Duration::from_secs(2);
/// How often it is looked at; git, too, looks again after pauses.
const PAUSE: Duration = Duration::from_millis(50);

/// Tells one lock from a later one of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Inner {
    /// Sees that no lock keeps a commit from being made: waits for live ones, removes those that are left over.
    pub(super) fn clear_locks(
        &self,
        cancel: &Cancel,
        found: &Found,
    ) -> Result<(), VcsWorktreeError> {
        let mut locks = vec![found.admin.join("index.lock"), found.admin.join("HEAD.lock")];
        if let Some(branch) = &found.verified.branch {
            locks.push(found.common.join(format!("{HEADS}{branch}.lock")));
        }
        locks.iter().try_for_each(|lock| self.clear_lock(cancel, found, lock))
    }

    fn clear_lock(
        &self,
        cancel: &Cancel,
        found: &Found,
        lock: &Path,
    ) -> Result<(), VcsWorktreeError> {
        let begun = Instant::now();
        let mut held = None;
        // When this lock was first seen without a holder.
        let mut alone: Option<(Seen, Instant)> = None;
        while let Some(now) = seen(lock) {
            if cancel.pause(PAUSE) || begun.elapsed() > self.lock_wait {
                let repo = locator(&found.common);
                return Err(VcsWorktreeError::Busy { repo, holder: held });
            }
            let holder = holder(found, lock);
            held = holder.or(held);
            match alone.filter(|(before, _)| holder.is_none() && *before == now) {
                // Whoever took it since it was looked at would lose it.
                Some((before, _)) if seen(lock) != Some(before) => alone = None,
                Some((_, since)) if since.elapsed() >= OBSERVED => {
                    return match fs::remove_file(lock) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => {
                            Err(failed("unlock", lock, error))
                        }
                        Ok(()) | Err(_) => Ok(()),
                    };
                }
                Some(_) => {}
                None => alone = holder.is_none().then(|| (now, Instant::now())),
            }
        }
        Ok(())
    }
}

fn seen(lock: &Path) -> Option<Seen> {
    let meta = lock.symlink_metadata().ok()?;
    let modified = (meta.mtime(), meta.mtime_nsec());
    Some(Seen { inode: meta.ino(), size: meta.size(), modified })
}

/// Finds a process that holds the lock, or a git that may: one that works in the repository, or about which that cannot
/// be told.
fn holder(found: &Found, lock: &Path) -> Option<u32> {
    let checkout = found.common.parent().unwrap_or(&found.common);
    let places = [found.path.as_path(), &found.admin, &found.common, checkout];
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let process = entry.path();
        (has_open(&process, lock) || may_be_git_in(&process, &places)).then_some(pid)
    })
}

fn has_open(process: &Path, file: &Path) -> bool {
    let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    open.into_iter().any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == file))
}

fn may_be_git_in(process: &Path, places: &[&Path]) -> bool {
    let Ok(name) = fs::read(process.join("comm")) else { return false };
    if !name.starts_with(b"git") {
        return false;
    }
    // A zombie holds nothing, and has no directory.
    let Ok(directory) = fs::read_link(process.join("cwd")) else {
        return fs::read(process.join("cmdline")).is_ok_and(|line| !line.is_empty());
    };
    let within = |path: &PathBuf| places.iter().any(|place| path.starts_with(place));
    within(&directory) || fs::read(process.join("environ")).is_ok_and(|env| names(&env, places))
}

/// Says whether a variable of git's names one of the places.
fn names(env: &[u8], places: &[&Path]) -> bool {
    env.split(|byte| *byte == 0).filter(|variable| variable.starts_with(b"GIT_")).any(|variable| {
        let value = variable.splitn(2, |byte| *byte == b'=').nth(1).unwrap_or_default();
        places.iter().any(|place| value.starts_with(place.as_os_str().as_encoded_bytes()))
    })
}
