//! Where snapshots are: a folder for each attempt, a file for each snapshot.
//!
//! What is being written has another name and is locked by whoever writes it, so that what a dead process left is told
//! from what is under way.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::rand::{GetRandomFlags, getrandom};
use windlass_core::id::AttemptId;
use windlass_core::snapshot::SnapshotNumber;
use windlass_core::vcs_worktree::VcsWorktreeError;

use super::super::marker::{remove_durably, sync_parent};
use super::super::{Inner, failed};

/// What the names of snapshots end with.
const SUFFIX: &str = ".tar.zst";
/// What the names of those begin with that are being written.
const WRITING: &str = ".writing-";

/// The folder of an attempt's snapshots.
#[derive(Debug)]
pub(super) struct Place {
    folder: PathBuf,
}

/// A snapshot that is being written; gone when this is, unless it got its name.
#[derive(Debug)]
pub(super) struct Temporary {
    path: PathBuf,
    file: File,
    named: bool,
}

impl Inner {
    fn folder_of(&self, attempt: AttemptId) -> PathBuf {
        self.snapshots_root.join(attempt.to_string())
    }

    /// Where a snapshot is.
    pub(in crate::vcs_worktree) fn archive_of(
        &self,
        attempt: AttemptId,
        number: SnapshotNumber,
    ) -> PathBuf {
        self.folder_of(attempt).join(format!("{number}{SUFFIX}"))
    }

    /// Makes the folder of an attempt's snapshots.
    pub(super) fn place(&self, attempt: AttemptId) -> Result<Place, VcsWorktreeError> {
        let folder = self.folder_of(attempt);
        let make = || -> io::Result<()> {
            for dir in [&self.snapshots_root, &folder] {
                match DirBuilder::new().mode(0o700).create(dir) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(error),
                }
                sync_parent(dir)?;
            }
            Ok(())
        };
        make().map_err(|error| failed("save", &folder, error))?;
        Ok(Place { folder })
    }

    /// Removes a snapshot. One that is gone is no error.
    pub(in crate::vcs_worktree) fn remove_snapshot(
        &self,
        attempt: AttemptId,
        number: SnapshotNumber,
    ) -> Result<(), VcsWorktreeError> {
        let archive = self.archive_of(attempt, number);
        remove_durably(&archive).map_err(|error| failed("remove", &archive, error))?;
        // Not empty, or gone: both are fine.
        drop(fs::remove_dir(self.folder_of(attempt)));
        Ok(())
    }

    /// What all snapshots of this data directory take, in bytes, but for one that will be replaced.
    pub(super) fn snapshot_bytes_without(
        &self,
        attempt: AttemptId,
        number: SnapshotNumber,
    ) -> Result<u64, VcsWorktreeError> {
        let replaced = self.archive_of(attempt, number);
        let sum = || -> io::Result<u64> {
            let mut sum = 0_u64;
            for folder in entries(&self.snapshots_root)? {
                for path in entries(&folder)? {
                    let counts = path != replaced && !is_temporary(&path);
                    match path.symlink_metadata() {
                        Ok(meta) if counts => sum = sum.saturating_add(meta.len()),
                        Ok(_) => {}
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            Ok(sum)
        };
        sum().map_err(|error| failed("measure", &self.snapshots_root, error))
    }
}

impl Place {
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Begins to write a snapshot.
    pub(super) fn temporary(&self, number: SnapshotNumber) -> io::Result<Temporary> {
        let mut random = [0; 8];
        getrandom(&mut random, GetRandomFlags::empty())?;
        let name = format!("{WRITING}{number}-{:016x}", u64::from_ne_bytes(random));
        let path = self.folder.join(name);
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        let temporary = Temporary { path, file, named: false };
        flock(&temporary.file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(temporary)
    }
}

impl Temporary {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Brings it to the disk, and forgets what is in memory of it, so that it is read from there.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()?;
        forget(&self.file);
        Ok(())
    }

    /// Gives it its name, durably. One that had the name is replaced.
    pub(super) fn name(mut self, number: SnapshotNumber) -> io::Result<PathBuf> {
        let archive = self.path.with_file_name(format!("{number}{SUFFIX}"));
        fs::rename(&self.path, &archive)?;
        self.named = true;
        sync_parent(&archive)?;
        Ok(archive)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.named {
            // What stays is swept when the next instance opens.
            drop(fs::remove_file(&self.path));
            if let Some(folder) = self.path.parent() {
                drop(fs::remove_dir(folder));
            }
        }
    }
}

#[cfg(target_os = "linux")]
fn forget(file: &File) {
    // Only advice: without it the comparison reads memory.
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).unwrap_or_default();
}

#[cfg(not(target_os = "linux"))]
fn forget(_file: &File) {}

/// Removes what dead processes were writing.
pub(in super::super) fn sweep(root: &Path) -> io::Result<()> {
    for folder in entries(root)? {
        for path in entries(&folder)?.into_iter().filter(|path| is_temporary(path)) {
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => remove_durably(&path)?,
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(WRITING.as_bytes()))
}

/// What is in a directory; nothing if there is none.
fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_dead_were_writing_is_swept_and_what_is_under_way_is_not() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(".writing-1-dead"), "x").unwrap();
        fs::write(folder.join("1.tar.zst"), "x").unwrap();
        let place = Place { folder: folder.clone() };
        let busy = place.temporary(SnapshotNumber(2)).unwrap();
        sweep(root.path()).unwrap();
        assert!(busy.path().exists() && folder.join("1.tar.zst").exists());
        assert!(!folder.join(".writing-1-dead").exists());
        drop(busy);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        let named = place.temporary(SnapshotNumber(1)).unwrap().name(SnapshotNumber(1)).unwrap();
        assert_eq!(fs::read(named).unwrap(), b"");
        sweep(&root.path().join("none")).unwrap();
    }
}
