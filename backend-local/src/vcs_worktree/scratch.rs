//! Room for temporary files: copies of an index, lists for a command's standard input.
//!
//! It lies in the worktrees root, so that it needs no environment and shares the root's file system and permissions.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, flock};

use super::tree;

/// The folder in the worktrees root.
pub(super) const FOLDER: &str = ".scratch";

/// The room of one instance. What others left when they died is swept when one opens.
#[derive(Debug)]
pub(super) struct Scratch {
    folder: PathBuf,
    /// Its flock says that the folder is in use.
    _lock: File,
    next: AtomicU64,
}

impl Scratch {
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let all = root.join(FOLDER);
        make(&all)?;
        // Several instances may open at once; only one sweeps and takes a number at a time.
        let turn = File::open(&all)?;
        flock(&turn, FlockOperation::LockExclusive)?;
        let mut number = 0;
        for entry in fs::read_dir(&all)? {
            let entry = entry?;
            if let Some(used) = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok())
            {
                number = number.max(used);
            }
            // What cannot be swept, because a git of the dead is only just dying in it, is left to the next one.
            drop(sweep(&entry.path()));
        }
        let folder = all.join((number + 1).to_string());
        make(&folder)?;
        let lock = File::open(&folder)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        drop(turn);
        Ok(Self { folder, _lock: lock, next: AtomicU64::new(0) })
    }

    /// Makes an empty directory that is gone when the value is.
    pub(super) fn dir(&self) -> io::Result<ScratchDir> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(number.to_string());
        make(&path)?;
        Ok(ScratchDir { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A failure only leaves what the next one sweeps.
        drop(tree::delete_all(&self.folder));
    }
}

fn make(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn sweep(folder: &Path) -> io::Result<()> {
    let held = File::open(folder)?;
    match flock(&held, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => tree::delete_all(folder),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A temporary directory.
#[derive(Debug)]
pub(super) struct ScratchDir {
    path: PathBuf,
}

impl ScratchDir {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file and opens it for reading from its beginning.
    pub(super) fn input(&self, name: &str, content: &[u8]) -> io::Result<File> {
        let path = self.path.join(name);
        File::create(&path)?.write_all(content)?;
        File::open(path)
    }

    /// Copies a worktree's index; returns where the copy is. No index is an empty one.
    pub(super) fn index(&self, admin: &Path) -> io::Result<PathBuf> {
        let copy = self.path.join("index");
        let original = match File::open(admin.join("index")) {
            Ok(original) => original,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(copy),
            Err(error) => return Err(error),
        };
        let written = original.metadata()?.modified()?;
        let mut file = File::create(&copy)?;
        io::copy(&mut &original, &mut file)?;
        // Git takes what changed after the index was written for unsure; a younger copy would make it sure.
        file.set_modified(written)?;
        Ok(copy)
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        // A failure only leaves what the next instance sweeps.
        drop(tree::delete_all(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_dead_left_is_swept_and_what_is_used_is_not() {
        let root = tempfile::tempdir().unwrap();
        let all = root.path().join(FOLDER);
        fs::create_dir_all(all.join("7/0")).unwrap();
        fs::write(all.join("7/0/index"), "x").unwrap();
        let first = Scratch::open(root.path()).unwrap();
        assert!(!all.join("7").exists());
        let dir = first.dir().unwrap();
        drop(dir.input("list", b"x").unwrap());
        let second = Scratch::open(root.path()).unwrap();
        assert!(dir.path().join("list").exists());
        drop((dir, first, second));
        assert_eq!(fs::read_dir(&all).unwrap().count(), 0);
    }
    #[test]
    fn what_cannot_be_swept_keeps_nobody_from_opening() {
        let root = tempfile::tempdir().unwrap();
        let all = root.path().join(FOLDER);
        fs::create_dir(&all).unwrap();
        std::os::unix::fs::symlink("nowhere", all.join("9")).unwrap();
        let scratch = Scratch::open(root.path()).unwrap();
        assert!(scratch.folder.ends_with("10"));
    }
}
