//! Lists a directory tree and deletes what was listed, never through a link and never across a mount.
//!
//! Deleting takes a listing, so that what appeared or changed since stays.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, openat, statat, unlinkat};

/// What must not have changed between listing and deleting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    dev: i128,
    ino: u64,
    size: u64,
    mtime: (i64, i128),
    ctime: (i64, i128),
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
    /// Something is mounted here; it was not looked into.
    Mount,
}

/// A listed directory.
#[derive(Debug)]
pub(super) struct Listing {
    dev: i128,
    ino: u64,
    pub(super) entries: BTreeMap<OsString, Entry>,
}

/// Lists a directory. `None` if there is none.
pub(super) fn list(path: &Path) -> io::Result<Option<Listing>> {
    match open_dir(CWD, path.as_os_str()) {
        Ok(dir) => {
            let mount = mount_of(&dir)?;
            list_dir(&dir, &mount).map(Some)
        }
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn list_dir(dir: &OwnedFd, mount: &MountId) -> io::Result<Listing> {
    let own = rustix::fs::fstat(dir)?;
    let mut listing = Listing { dev: own.st_dev.into(), ino: own.st_ino, entries: BTreeMap::new() };
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            // Gone again: nothing to list.
            Err(rustix::io::Errno::NOENT) => continue,
            other => other?,
        };
        let listed = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => list_child(dir, name, mount)?,
            FileType::RegularFile | FileType::Symlink => Entry::File(stamp(&stat)),
            _ => Entry::Special(stamp(&stat)),
        };
        listing.entries.insert(OsString::from_vec(name.to_bytes().to_vec()), listed);
    }
    Ok(listing)
}

fn list_child(dir: &OwnedFd, name: &CStr, mount: &MountId) -> io::Result<Entry> {
    let child = open_dir(dir, OsStr::from_bytes(name.to_bytes()))?;
    if mount_of(&child)? == *mount {
        list_dir(&child, mount).map(Entry::Dir)
    } else {
        Ok(Entry::Mount)
    }
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
                Entry::File(_) | Entry::Special(_) | Entry::Mount => see(path, entry),
            }
            path.pop();
        }
    }

    /// Returns the size of what is at `path`, directories summed.
    pub(super) fn bytes_at(&self, path: &Path) -> u64 {
        let mut parts = path.components();
        let Some(entry) = parts.next().and_then(|part| self.entries.get(part.as_os_str())) else {
            return 0;
        };
        match entry {
            Entry::File(stamp) => stamp.size,
            Entry::Dir(below) if parts.as_path().as_os_str().is_empty() => below.bytes(),
            Entry::Dir(below) => below.bytes_at(parts.as_path()),
            Entry::Special(_) | Entry::Mount => 0,
        }
    }

    /// Says whether there is an entry at `path`.
    pub(super) fn contains(&self, path: &Path) -> bool {
        let mut parts = path.components();
        let entry = parts.next().and_then(|part| self.entries.get(part.as_os_str()));
        match entry {
            None => false,
            Some(Entry::Dir(below)) if !parts.as_path().as_os_str().is_empty() => {
                below.contains(parts.as_path())
            }
            Some(_) => parts.as_path().as_os_str().is_empty(),
        }
    }

    fn bytes(&self) -> u64 {
        let mut sum = 0;
        self.each(&mut |_, entry| {
            if let Entry::File(stamp) = entry {
                sum += stamp.size;
            }
        });
        sum
    }
}

/// Deletes what was listed and is unchanged, and the directories that are empty then.
///
/// Returns the paths that stayed, relative to the top; empty if the directory itself is gone.
pub(super) fn delete(path: &Path, listing: &Listing) -> io::Result<Vec<PathBuf>> {
    let mut stayed = Vec::new();
    let dir = match open_dir(CWD, path.as_os_str()) {
        Ok(dir) => dir,
        Err(rustix::io::Errno::NOENT) => return Ok(stayed),
        Err(error) => return Err(error.into()),
    };
    delete_in(&dir, listing, &mut PathBuf::new(), &mut stayed)?;
    drop(dir);
    match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(rustix::io::Errno::NOTEMPTY | rustix::io::Errno::EXIST) if stayed.is_empty() => {
            stayed.push(PathBuf::from("."));
        }
        Err(_) if !stayed.is_empty() => {}
        Err(error) => return Err(error.into()),
    }
    Ok(stayed)
}

/// Deletes a whole directory as it is now; what appears meanwhile makes it fail.
pub(super) fn delete_all(path: &Path) -> io::Result<()> {
    let Some(listing) = list(path)? else { return Ok(()) };
    match delete(path, &listing)?.first() {
        None => Ok(()),
        Some(stayed) => Err(io::Error::other(format!("{} could not be deleted", stayed.display()))),
    }
}

fn delete_in(
    dir: &OwnedFd,
    listing: &Listing,
    path: &mut PathBuf,
    stayed: &mut Vec<PathBuf>,
) -> io::Result<()> {
    let own = rustix::fs::fstat(dir)?;
    if (i128::from(own.st_dev), own.st_ino) != (listing.dev, listing.ino) {
        stayed.push(path.clone());
        return Ok(());
    }
    for (name, entry) in &listing.entries {
        path.push(name);
        let deleted = match entry {
            Entry::File(stamp) | Entry::Special(stamp) => delete_file(dir, name, stamp)?,
            Entry::Dir(below) => delete_child(dir, name, below, path, stayed)?,
            Entry::Mount => false,
        };
        if !deleted {
            stayed.push(path.clone());
        }
        path.pop();
    }
    Ok(())
}

fn delete_file(dir: &OwnedFd, name: &OsStr, listed: &Stamp) -> io::Result<bool> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if stamp(&stat) == *listed => {}
        Ok(_) => return Ok(false),
        Err(rustix::io::Errno::NOENT) => return Ok(true),
        Err(error) => return Err(error.into()),
    }
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Says whether it is gone or what is left of it has been named.
fn delete_child(
    dir: &OwnedFd,
    name: &OsStr,
    below: &Listing,
    path: &mut PathBuf,
    stayed: &mut Vec<PathBuf>,
) -> io::Result<bool> {
    let child = match open_dir(dir, name) {
        Ok(child) => child,
        Err(rustix::io::Errno::NOENT) => return Ok(true),
        // No longer a directory.
        Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let named = stayed.len();
    delete_in(&child, below, path, stayed)?;
    drop(child);
    match unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(true),
        Err(rustix::io::Errno::NOTEMPTY | rustix::io::Errno::EXIST | rustix::io::Errno::NOTDIR) => {
            Ok(stayed.len() > named)
        }
        Err(error) => Err(error.into()),
    }
}

fn open_dir(at: impl AsFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let name = CString::new(name.as_bytes()).map_err(|_| rustix::io::Errno::INVAL)?;
    openat(at, name, flags, Mode::empty())
}

fn stamp(stat: &Stat) -> Stamp {
    Stamp {
        // Wide enough for every system's types.
        dev: stat.st_dev.into(),
        ino: stat.st_ino,
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        mtime: (stat.st_mtime, stat.st_mtime_nsec.into()),
        ctime: (stat.st_ctime, stat.st_ctime_nsec.into()),
    }
}

/// Tells mounts apart: by the kernel's number where it gives one (a bind mount shows the same device).
#[derive(Debug, PartialEq, Eq)]
struct MountId {
    dev: i128,
    id: Option<u64>,
}

#[cfg(target_os = "linux")]
fn mount_of(dir: &OwnedFd) -> io::Result<MountId> {
    use rustix::fs::{StatxFlags, statx};
    let number = rustix::fs::fstat(dir)?.st_dev.into();
    // Not every kernel or sandbox answers.
    let id = statx(dir, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)
        .ok()
        .filter(|answer| answer.stx_mask & StatxFlags::MNT_ID.bits() != 0)
        .map(|answer| answer.stx_mnt_id);
    Ok(MountId { dev: number, id })
}

#[cfg(not(target_os = "linux"))]
fn mount_of(dir: &OwnedFd) -> io::Result<MountId> {
    Ok(MountId { dev: rustix::fs::fstat(dir)?.st_dev.into(), id: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_changed_or_appeared_since_the_listing_stays() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("precious"), "x").unwrap();
        let top = dir.path().join("top");
        fs::create_dir_all(top.join("a/b")).unwrap();
        fs::write(top.join("a/b/old"), "1").unwrap();
        fs::write(top.join("a/changed"), "1").unwrap();
        fs::write(top.join("plain"), "1").unwrap();
        std::os::unix::fs::symlink(&outside, top.join("link")).unwrap();
        let listing = list(&top).unwrap().unwrap();
        assert_eq!(listing.bytes_at(Path::new("a")), 2);
        assert_eq!(listing.bytes_at(Path::new("a/b/old")), 1);
        fs::write(top.join("a/changed"), "22").unwrap();
        fs::write(top.join("a/b/new"), "2").unwrap();
        let stayed = delete(&top, &listing).unwrap();
        assert_eq!(stayed, [Path::new("a/b"), Path::new("a/changed")]);
        assert_eq!(fs::read(top.join("a/b/new")).unwrap(), b"2");
        assert_eq!(fs::read(top.join("a/changed")).unwrap(), b"22");
        assert!(!top.join("plain").exists() && !top.join("a/b/old").exists());
        assert!(outside.join("precious").exists());
        delete_all(&top).unwrap();
        assert!(!top.exists());
        delete_all(&top).unwrap();
        assert!(list(&top).unwrap().is_none());
    }

    #[test]
    fn a_directory_that_was_replaced_stays() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        fs::create_dir_all(top.join("a")).unwrap();
        let listing = list(&top).unwrap().unwrap();
        fs::rename(top.join("a"), dir.path().join("moved")).unwrap();
        fs::create_dir(top.join("a")).unwrap();
        fs::write(top.join("a/new"), "x").unwrap();
        assert_eq!(delete(&top, &listing).unwrap(), [Path::new("a")]);
        assert!(top.join("a/new").exists());
    }
}
