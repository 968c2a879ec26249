//! Makes entries below a directory: each next to where it will be, name by name, over nothing but what the listing allows.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, fchmod, futimens, linkat, mkdirat,
    openat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::super::below::Below;
use super::super::tree::{Entry, Listing};
use super::listing::{Item, What};
use super::sparse::Piece;

/// Removes what is in a directory and not in `kept`, and what is there as another kind than in `dirs`.
pub(super) fn clear(
    below: &mut Below,
    listing: &Listing,
    kept: &dyn Fn(&Path, bool) -> bool,
) -> io::Result<()> {
    clear_in(below, listing, &mut PathBuf::new(), kept)
}

fn clear_in(
    below: &mut Below,
    listing: &Listing,
    path: &mut PathBuf,
    kept: &dyn Fn(&Path, bool) -> bool,
) -> io::Result<()> {
    for (name, entry) in &listing.entries {
        path.push(name);
        match entry {
            Entry::Dir(inside) => {
                clear_in(below, inside, path, kept)?;
                if !kept(path, true) {
                    below.forget();
                    let (parent, name) = below.parent(path)?;
                    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
                        // Something in it stays.
                        Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            Entry::File(_) | Entry::Special(_) if !kept(path, false) => {
                let (parent, name) = below.parent(path)?;
                unlinkat(parent, name, AtFlags::empty())?;
            }
            Entry::File(_) | Entry::Special(_) | Entry::Unreadable(_) | Entry::Mount => {}
        }
        path.pop();
    }
    Ok(())
}

/// Makes a directory that only we may enter until its mode is set; one that is there is kept.
pub(super) fn dir(below: &mut Below, path: &Path) -> io::Result<()> {
    let (parent, name) = below.parent(path)?;
    match mkdirat(parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Makes a file, in the place of one that is there.
pub(super) fn file(below: &mut Below, path: &Path) -> io::Result<File> {
    let (parent, name) = below.parent(path)?;
    remove(parent, name)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?.into())
}

/// Makes a symbolic link, in the place of what is there.
pub(super) fn link(below: &mut Below, path: &Path, target: &[u8]) -> io::Result<()> {
    let (parent, name) = below.parent(path)?;
    remove(parent, name)?;
    Ok(symlinkat(target, parent, name)?)
}

/// Gives the file at `first` another name, in the place of what is there. `again` is the same directory.
pub(super) fn hard(
    below: &mut Below,
    again: &mut Below,
    path: &Path,
    first: &Path,
) -> io::Result<()> {
    let (parent, name) = below.parent(path)?;
    remove(parent, name)?;
    let (from, first) = again.parent(first)?;
    Ok(linkat(from, first, parent, name, AtFlags::empty())?)
}

fn remove(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Writes what is stored of a file with holes; the map has been read.
pub(super) fn pieces(
    file: &File,
    data: &mut dyn Read,
    pieces: &[Piece],
    size: u64,
) -> io::Result<()> {
    let mut buffer = vec![0; super::archive::CHUNK];
    for piece in pieces {
        let (mut at, mut left) = (piece.at, piece.length);
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            data.read_exact(&mut buffer[..most])?;
            file.write_all_at(&buffer[..most], at)?;
            let written = u64::try_from(most).unwrap_or_default();
            at += written;
            left -= written;
        }
    }
    file.set_len(size)
}

/// Writes what is stored of a file.
pub(super) fn content(mut file: &File, data: &mut dyn Read) -> io::Result<()> {
    io::copy(data, &mut file)?;
    file.flush()
}

/// Gives an entry its permissions and its time, where it has others.
pub(super) fn finish(below: &mut Below, item: &Item) -> io::Result<()> {
    let stat = below.stat(&item.path)?;
    let mode = Mode::from_raw_mode(raw(item.mode));
    let time = Timespec { tv_sec: item.mtime.0, tv_nsec: item.mtime.1.into() };
    let same_time =
        (stat.st_mtime, i128::from(stat.st_mtime_nsec)) == (item.mtime.0, item.mtime.1.into());
    let same_mode = Mode::from_raw_mode(stat.st_mode) == mode;
    let omit = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    let times = Timestamps { last_access: omit, last_modification: time };
    match (&item.what, FileType::from_raw_mode(stat.st_mode)) {
        (What::Link { .. }, FileType::Symlink) => {
            if !same_time {
                let (parent, name) = below.parent(&item.path)?;
                utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
            }
        }
        (What::Dir, FileType::Directory) => {
            if !same_mode || !same_time {
                let dir = below.dir(&item.path)?;
                finish_open(dir, mode, &times)?;
            }
        }
        (What::File(_) | What::Sparse(_), FileType::RegularFile) => {
            if !same_mode {
                // What we may not open has the permissions that it was to get, or is not ours.
                finish_open(below.file(&item.path)?.as_fd(), mode, &times)?;
            } else if !same_time {
                let (parent, name) = below.parent(&item.path)?;
                utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
            }
        }
        (What::Hard(_), _) => {}
        (What::Link { .. } | What::Dir | What::File(_) | What::Sparse(_), _) => {
            return Err(io::Error::other("it is of another kind"));
        }
    }
    Ok(())
}

fn finish_open(fd: BorrowedFd<'_>, mode: Mode, times: &Timestamps) -> io::Result<()> {
    fchmod(fd, mode)?;
    Ok(futimens(fd, times)?)
}

#[cfg(target_os = "linux")]
const fn raw(mode: u32) -> rustix::fs::RawMode {
    mode
}

#[cfg(not(target_os = "linux"))]
fn raw(mode: u32) -> rustix::fs::RawMode {
    // The listing allows no more than twelve bits.
    rustix::fs::RawMode::try_from(mode).unwrap_or_default()
}

/// Which entries a directory is to have: their paths, and whether they are directories.
pub(super) fn kinds<'a>(items: impl Iterator<Item = &'a Item>) -> HashSet<(&'a Path, bool)> {
    items.map(|item| (item.path.as_path(), item.what == What::Dir)).collect()
}
