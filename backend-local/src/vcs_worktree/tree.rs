//! Lists a directory tree and deletes what was listed, never through a link and never across a mount.
//!
//! Deleting takes a listing, so that what appeared or changed since stays.

mod delete;
mod encoded;

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, Stat, openat};

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
    Ok(look(dir, c"")?.mount())
}

/// Why the kernel lets nobody delete something, whatever its permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fixed {
    /// Nothing about it may change.
    Immutable,
    /// It may only grow.
    AppendOnly,
}

impl Fixed {
    /// What to tell people.
    pub(super) const fn why(self) -> &'static str {
        match self {
            Self::Immutable => "it is immutable: `chattr -i` lets it go",
            Self::AppendOnly => "it is append-only: `chattr -a` lets it go",
        }
    }
}

/// What one look tells.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) stamp: Stamp,
    /// On which mount it is, if the kernel says so.
    pub(super) mount: Option<u64>,
    pub(super) fixed: Option<Fixed>,
}

impl Looked {
    /// On which mount it is.
    pub(super) fn mount(&self) -> MountId {
        MountId { dev: self.stamp.dev, id: self.mount }
    }
}

/// Looks at an entry of a directory, not through it; with an empty name at what is open.
pub(super) fn look(at: impl AsFd, name: &CStr) -> rustix::io::Result<Looked> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{StatxFlags, statx};
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
        match statx(&at, name, flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID) {
            // Not every kernel or sandbox knows it.
            Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {}
            answer => return answer.map(|answer| looked(&answer)),
        }
    }
    let stat = if name.is_empty() {
        rustix::fs::fstat(at)?
    } else {
        rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW)?
    };
    Ok(Looked { stamp: stamp(&stat), mount: None, fixed: None })
}

#[cfg(target_os = "linux")]
fn looked(answer: &rustix::fs::Statx) -> Looked {
    use rustix::fs::{StatxAttributes, StatxFlags, makedev};
    let is = |attribute| answer.stx_attributes.contains(attribute);
    let fixed = if is(StatxAttributes::IMMUTABLE) {
        Some(Fixed::Immutable)
    } else {
        is(StatxAttributes::APPEND).then_some(Fixed::AppendOnly)
    };
    let knows_mount = answer.stx_mask & StatxFlags::MNT_ID.bits() != 0;
    let time = |time: &rustix::fs::StatxTimestamp| (time.tv_sec, time.tv_nsec.into());
    let stamp = Stamp {
        dev: makedev(answer.stx_dev_major, answer.stx_dev_minor).into(),
        ino: answer.stx_ino,
        mode: answer.stx_mode.into(),
        size: answer.stx_size,
        mtime: time(&answer.stx_mtime),
        ctime: time(&answer.stx_ctime),
    };
    Looked { stamp, mount: knows_mount.then_some(answer.stx_mnt_id), fixed }
}
