//! Remembers between looks which names directories hold, so that one that is as it was need not be read again.
//!
//! Used where git's answer is wanted, and where a worktree is saved from aside: what it missed there is not listed, so it
//! is not deleted. Only on file systems that change the times of a directory whenever an entry comes or goes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::fstatfs;

use super::walk::Kind;
use crate::vcs_worktree::tree::Stamp;

/// Most worktrees that are remembered.
const WORKTREES: usize = 16;
/// Most bytes of names that are remembered of one.
const BYTES: usize = 16 << 20;
/// A directory that changed later than so many seconds ago may change again without its time telling.
const SETTLED_SECONDS: i64 = 2;

/// What is remembered of all worktrees.
#[derive(Debug, Default)]
pub(in crate::vcs_worktree) struct Memory {
    /// The one that was looked at last is last.
    worktrees: Mutex<Vec<(PathBuf, Arc<Remembered>)>>,
}

/// What is remembered of one worktree.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    held: RwLock<HashMap<Vec<u8>, Held>>,
    bytes: Mutex<usize>,
}

/// The names in a directory.
#[derive(Clone, Debug)]
pub(super) struct Held {
    stamp: Stamp,
    /// One after the other, each with a zero byte.
    pub(super) names: Arc<[u8]>,
    /// Where each name ends, its zero byte included.
    pub(super) items: Arc<[(usize, Kind)]>,
}

impl Memory {
    /// Returns what is remembered of a worktree; `None` if its file system cannot be relied on.
    pub(super) fn of(&self, path: &Path) -> Option<Arc<Remembered>> {
        self.of_moved(path, path)
    }

    /// Returns what is remembered of a worktree that is at another place now.
    pub(super) fn of_moved(&self, path: &Path, at: &Path) -> Option<Arc<Remembered>> {
        if !tells_changes(at) {
            return None;
        }
        let mut worktrees = self.worktrees.lock().unwrap_or_else(PoisonError::into_inner);
        let known = worktrees.iter().position(|(known, _)| known == path);
        let (path, remembered) = match known {
            Some(at) => worktrees.remove(at),
            None => (path.to_owned(), Arc::default()),
        };
        if worktrees.len() >= WORKTREES {
            worktrees.remove(0);
        }
        worktrees.push((path, Arc::clone(&remembered)));
        Some(remembered)
    }
}

impl Remembered {
    /// Returns what a directory held when it was as it is now.
    pub(super) fn recall(&self, path: &[u8], stamp: &Stamp) -> Option<Held> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.get(path).filter(|held| held.stamp == *stamp).cloned()
    }

    /// Remembers what a directory held that was looked at before it was read.
    pub(super) fn keep(
        &self,
        path: &[u8],
        stamp: &Stamp,
        names: &Arc<[u8]>,
        items: &Arc<[(usize, Kind)]>,
    ) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok();
        let now = now.and_then(|now| i64::try_from(now.as_secs()).ok()).unwrap_or_default();
        let changed = stamp.mtime.0.max(stamp.ctime.0);
        let settled = now.checked_sub(changed).is_some_and(|age| age >= SETTLED_SECONDS);
        if !settled {
            return;
        }
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let mut bytes: MutexGuard<'_, usize> =
            self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        // Directories that are gone are forgotten with all the others.
        if *bytes > BYTES {
            held.clear();
            *bytes = 0;
        }
        *bytes += path.len() + names.len() + std::mem::size_of_val(&**items);
        let (names, items) = (Arc::clone(names), Arc::clone(items));
        held.insert(path.to_vec(), Held { stamp: *stamp, names, items });
    }
}

/// Says whether the file system is one whose directories tell by their times that they changed.
#[cfg(target_os = "linux")]
fn tells_changes(path: &Path) -> bool {
    /// ext2 to ext4, XFS, btrfs, tmpfs, F2FS, ZFS, bcachefs.
    const KNOWN: [u32; 7] =
        [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0xf2f5_2010, 0x2fc1_2fc1, 0xca45_1a4e];
    let Ok(dir) = std::fs::File::open(path) else { return false };
    let kind = fstatfs(dir).ok().and_then(|stat| u32::try_from(stat.f_type).ok());
    kind.is_some_and(|kind| KNOWN.contains(&kind))
}

#[cfg(not(target_os = "linux"))]
fn tells_changes(_: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(mtime: i64) -> Stamp {
        Stamp { dev: 1, ino: 2, mode: 0o40_755, size: 3, mtime: (mtime, 4), ctime: (mtime, 5) }
    }

    #[test]
    fn a_directory_is_remembered_as_long_as_it_is_as_it_was_and_had_settled() {
        let remembered = Remembered::default();
        let names: Arc<[u8]> = Arc::from(&b"a\0"[..]);
        let items: Arc<[(usize, Kind)]> = Arc::from(&[(2, Kind::File)][..]);
        remembered.keep(b"old", &stamp(1_000_000), &names, &items);
        assert!(remembered.recall(b"old", &stamp(1_000_000)).is_some());
        assert!(remembered.recall(b"old", &stamp(1_000_001)).is_none());
        assert!(remembered.recall(b"other", &stamp(1_000_000)).is_none());
        // Far ahead of every clock: it may be written to at the same time again.
        let ahead = stamp(i64::MAX / 2);
        remembered.keep(b"new", &ahead, &names, &items);
        assert!(remembered.recall(b"new", &ahead).is_none());
    }

    #[test]
    fn only_the_last_worktrees_are_remembered() {
        let home = tempfile::tempdir().unwrap();
        let memory = Memory::default();
        if memory.of(home.path()).is_none() {
            println!("not run: temporary files lie where nothing is remembered");
            return;
        }
        let path = |number: usize| home.path().join(number.to_string());
        for number in 0..=WORKTREES {
            std::fs::create_dir(path(number)).unwrap();
            memory.of(&path(number)).unwrap();
        }
        let first = Arc::clone(&memory.worktrees.lock().unwrap()[0].1);
        assert_eq!(memory.worktrees.lock().unwrap().len(), WORKTREES);
        assert!(Arc::ptr_eq(&first, &memory.of(&path(1)).unwrap()));
    }
}
