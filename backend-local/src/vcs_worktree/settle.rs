//! Brings what a creation wrote to the disk, behind its back.
//!
//! Syncing thousands of new files takes as long as writing them, and nobody should wait for it. So a worktree is
//! acknowledged with a note in its private git directory that names the boot in which it was made; the file systems are
//! synced in a thread, then the note goes. A note that names another boot says that the machine went down in between:
//! files may be empty or missing, and the worktree is not trusted until somebody has looked, or it was created again.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::marker::remove_durably;
use crate::identity::Here;

/// The note, in the private git directory.
pub(super) const FILE: &str = "windlass-unsynced";

/// Says whether a name in a private git directory is that of the note, or of one that is being written. It goes at any
/// time.
pub(super) fn is_note(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(FILE.as_bytes())
}

/// Whether what a creation wrote is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// It is.
    Yes,
    /// It is not, but the machine has not gone down since.
    NotYet,
    /// Nobody can tell: the machine went down before it was known to be.
    Doubtful,
}

/// Reads how it stands with a worktree.
pub(super) fn settled(admin: &Path) -> io::Result<Settled> {
    match fs::read(admin.join(FILE)) {
        Ok(noted) => {
            let boot = boot().filter(|boot| noted.trim_ascii() == boot.as_bytes());
            Ok(boot.map_or(Settled::Doubtful, |_| Settled::NotYet))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Settled::Yes),
        Err(error) => Err(error),
    }
}

/// Notes that what follows is not on the disk yet. The marker, written later, syncs the directory that both are in. Where
/// boots cannot be told apart there is no note: [`Settler::settle`] does it all at once then.
pub(super) fn note(admin: &Path) -> io::Result<()> {
    match boot() {
        Some(boot) => {
            let mut file = File::create(admin.join(FILE))?;
            file.write_all(boot.as_bytes())?;
            file.sync_all()
        }
        None => Ok(()),
    }
}

/// Syncs the file systems of a worktree and its private git directory, then takes the note away.
pub(super) fn settle_now(admin: &Path, path: &Path) -> io::Result<()> {
    sync_file_systems([admin, path])?;
    remove_durably(&admin.join(FILE))
}

fn boot() -> Option<String> {
    Here::read().boot.map(|boot| boot.to_string())
}

/// Syncs in a thread, which lives as long as there is something to sync.
#[derive(Debug, Default)]
pub(super) struct Settler {
    queue: Arc<Mutex<Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Private git directories with their worktrees.
    waiting: BTreeSet<(PathBuf, PathBuf)>,
    running: bool,
    closed: bool,
}

impl Settler {
    /// Sees that a worktree's files come to the disk and its note goes.
    ///
    /// # Errors
    ///
    /// Only where it had to be done at once.
    pub(super) fn settle(&self, admin: &Path, path: &Path) -> io::Result<()> {
        if boot().is_none() {
            return settle_now(admin, path);
        }
        let mut queue = locked(&self.queue);
        queue.waiting.insert((admin.to_owned(), path.to_owned()));
        if queue.running {
            return Ok(());
        }
        let shared = Arc::clone(&self.queue);
        let thread = std::thread::Builder::new().name("windlass-sync".to_owned());
        // Without a thread the note stays, and whoever verifies the worktree next tries again.
        queue.running = thread.spawn(move || work(&shared)).is_ok();
        Ok(())
    }
}

impl Drop for Settler {
    fn drop(&mut self) {
        // Syncing is not waited for; after this nothing is touched any more.
        locked(&self.queue).closed = true;
    }
}

fn work(shared: &Mutex<Queue>) {
    loop {
        let taken = {
            let mut queue = locked(shared);
            if queue.closed || queue.waiting.is_empty() {
                queue.running = false;
                return;
            }
            std::mem::take(&mut queue.waiting)
        };
        // Several at once share one sync.
        let all = taken.iter().flat_map(|(admin, path)| [admin.as_path(), path.as_path()]);
        let synced = sync_file_systems(all);
        let queue = locked(shared);
        if synced.is_ok() && !queue.closed {
            for (admin, _) in &taken {
                // It stays where it cannot be removed, and the next to verify the worktree tries again.
                drop(remove_durably(&admin.join(FILE)));
            }
        }
    }
}

fn locked(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Syncs each file system that one of these is on. What is gone needs none.
fn sync_file_systems<'a>(paths: impl IntoIterator<Item = &'a Path>) -> io::Result<()> {
    let mut devices = BTreeSet::new();
    for path in paths {
        let directory = match File::open(path) {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if devices.insert(directory.metadata()?.dev()) {
            sync_file_system(&directory)?;
        }
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn sync_file_system(directory: &File) -> io::Result<()> {
    Ok(rustix::fs::syncfs(directory)?)
}

#[cfg(not(target_os = "linux"))]
#[expect(clippy::unnecessary_wraps, reason = "the same signature as where it can fail")]
fn sync_file_system(_directory: &File) -> io::Result<()> {
    rustix::fs::sync();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_of_this_boot_is_no_doubt_and_one_of_another_is() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(settled(dir.path()).unwrap(), Settled::Yes);
        note(dir.path()).unwrap();
        if boot().is_some() {
            assert_eq!(settled(dir.path()).unwrap(), Settled::NotYet);
        }
        fs::write(dir.path().join(FILE), "01890a5d-ac96-774b-bcce-b302099a8057\n").unwrap();
        assert_eq!(settled(dir.path()).unwrap(), Settled::Doubtful);
        settle_now(dir.path(), dir.path()).unwrap();
        assert_eq!(settled(dir.path()).unwrap(), Settled::Yes);
    }

    #[test]
    fn what_is_gone_needs_no_sync() {
        let dir = tempfile::tempdir().unwrap();
        settle_now(&dir.path().join("gone"), dir.path()).unwrap();
    }
}
