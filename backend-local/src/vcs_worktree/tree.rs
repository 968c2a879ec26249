//! Lists a directory tree and deletes what was listed, never through a link and never across a mount.
//!
//! Deleting takes a listing, so that what appeared or changed since stays.

mod delete;
mod encoded;

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, Stat, openat};

pub(super) use super::scan::list;
pub(super) use delete::{Deleted, Unread, delete, delete_all};

/// What must not have changed between listing and deleting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) dev: i128,
    pub(super) ino: u64,
    /// `st_mode`: kind and permissions.
    pub(super) mode: u32,
    pub(super) size: u64,
    /// Seconds and nanoseconds.
    pub(super) mtime: (i64, i128),
    pub(super) ctime: (i64, i128),
}

impl Stamp {
    /// Looks at what is at `path`, which may be a link; `None` if nothing is.
    pub(super) fn at(path: &Path) -> io::Result<Option<Self>> {
        match rustix::fs::lstat(path) {
            Ok(stat) => Ok(Some(stamp(&stat))),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Says whether both are of the same file or directory, however that has changed.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.dev, self.ino) == (other.dev, other.ino)
    }
}

/// One entry of a listed directory.
#[derive(Debug)]
pub(super) enum Entry {
    /// A regular file or a link.
    File(Stamp),
    /// A socket, pipe or device.
    Special(Stamp),
    /// A directory on the same mount.
    Dir(Listing),
    /// A directory that could not be read.
    Unreadable(Stamp),
    /// Something is mounted here; it was not looked into.
    Mount,
}

/// A listed directory.
#[derive(Debug)]
pub(super) struct Listing {
    /// The directory itself.
    pub(super) stamp: Stamp,
    /// What is in it.
    pub(super) entries: BTreeMap<OsString, Entry>,
}

impl Listing {
    /// Calls `see` for each entry that is no directory, with its path relative to the top.
    pub(super) fn each(&self, see: &mut impl FnMut(&Path, &Entry)) {
        self.each_below(&mut PathBuf::new(), see);
    }

    fn each_below(&self, path: &mut PathBuf, see: &mut impl FnMut(&Path, &Entry)) {
        for (name, entry) in &self.entries {
            path.push(name);
            match entry {
                Entry::Dir(below) => below.each_below(path, see),
                Entry::File(_) | Entry::Special(_) | Entry::Unreadable(_) | Entry::Mount => {
                    see(path, entry);
                }
            }
            path.pop();
        }
    }
}

fn open_dir(at: impl AsFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let name = CString::new(name.as_bytes()).map_err(|_| rustix::io::Errno::INVAL)?;
    openat(at, name, flags, Mode::empty())
}

/// Makes the stamp of what was looked at.
#[cfg_attr(
    target_os = "linux",
    expect(clippy::useless_conversion, reason = "other systems have narrower numbers")
)]
pub(super) fn stamp(stat: &Stat) -> Stamp {
    Stamp {
        // Wide enough for every system's types.
        dev: stat.st_dev.into(),
        ino: stat.st_ino,
        mode: stat.st_mode.into(),
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        mtime: (stat.st_mtime, stat.st_mtime_nsec.into()),
        ctime: (stat.st_ctime, stat.st_ctime_nsec.into()),
    }
}

/// Tells mounts apart: by the kernel's number where it gives one (a bind mount shows the same device).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MountId {
    dev: i128,
    id: Option<u64>,
}

/// Says on which mount a directory is.
pub(super) fn mount_of(dir: &OwnedFd) -> io::Result<MountId> {
    Ok(mount_at(dir, &rustix::fs::fstat(dir)?))
}

/// As [`mount_of`], of a directory that was looked at.
#[cfg(target_os = "linux")]
pub(super) fn mount_at(dir: &OwnedFd, stat: &Stat) -> MountId {
    use rustix::fs::{AtFlags, StatxFlags, statx};
    // Not every kernel or sandbox answers.
    let id = statx(dir, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)
        .ok()
        .filter(|answer| answer.stx_mask & StatxFlags::MNT_ID.bits() != 0)
        .map(|answer| answer.stx_mnt_id);
    MountId { dev: stat.st_dev.into(), id }
}

/// As [`mount_of`], of a directory that was looked at.
#[cfg(not(target_os = "linux"))]
pub(super) fn mount_at(_: &OwnedFd, stat: &Stat) -> MountId {
    MountId { dev: stat.st_dev.into(), id: None }
}
