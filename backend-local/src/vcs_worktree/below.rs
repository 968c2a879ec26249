//! Opens and makes entries below a directory, name by name: no link on the way is ever followed.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat, openat, statat};

/// A directory, and those below it that were last gone through.
#[derive(Debug)]
pub(super) struct Below {
    root: OwnedFd,
    way: Vec<(OsString, OwnedFd)>,
}

impl Below {
    /// Opens the directory at `path`, which must be no link.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { root: dir(CWD, path.as_os_str())?, way: Vec::new() })
    }

    /// Opens the directory that `path` is in; returns it with the last name of `path`.
    pub(super) fn parent<'p>(&mut self, path: &'p Path) -> io::Result<(BorrowedFd<'_>, &'p OsStr)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let above = path.parent().unwrap_or(Path::new(""));
        Ok((self.dir(above)?, name))
    }

    /// Opens a directory; the empty path is the directory itself.
    pub(super) fn dir(&mut self, path: &Path) -> io::Result<BorrowedFd<'_>> {
        let mut kept = 0;
        let mut parts = path.components();
        for (name, _) in &self.way {
            let mut ahead = parts.clone();
            if ahead.next().is_none_or(|part| part.as_os_str() != name) {
                break;
            }
            parts = ahead;
            kept += 1;
        }
        self.way.truncate(kept);
        for part in parts {
            let next = dir(self.last(), part.as_os_str())?;
            self.way.push((part.as_os_str().to_owned(), next));
        }
        Ok(self.last())
    }

    fn last(&self) -> BorrowedFd<'_> {
        self.way.last().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd())
    }

    /// Forgets open directories, which may be replaced or renamed.
    pub(super) fn forget(&mut self) {
        self.way.clear();
    }

    /// Looks at what is at `path`; the empty path is the directory itself.
    pub(super) fn stat(&mut self, path: &Path) -> io::Result<Stat> {
        if path.as_os_str().is_empty() {
            return Ok(rustix::fs::fstat(&self.root)?);
        }
        let (parent, name) = self.parent(path)?;
        Ok(statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Opens a regular file for reading. A link or a pipe that has taken its place does not make it wait.
    pub(super) fn file(&mut self, path: &Path) -> io::Result<std::fs::File> {
        let (parent, name) = self.parent(path)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(openat(parent, name, flags | OFlags::NOCTTY, Mode::empty())?.into())
    }

    /// Reads what a link says.
    pub(super) fn link(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        let (parent, name) = self.parent(path)?;
        Ok(rustix::fs::readlinkat(parent, name, Vec::new())?.into_bytes())
    }
}

fn dir(at: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let name = CString::new(name.as_bytes()).map_err(|_| io::ErrorKind::InvalidInput)?;
    Ok(openat(at, name.as_c_str(), flags, Mode::empty())?)
}

/// Joins a path to the directory that it is below, for messages.
pub(super) fn shown(root: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn no_link_is_followed_and_the_way_is_kept_as_far_as_it_goes() {
        let top = tempfile::tempdir().unwrap();
        let root = top.path().join("root");
        fs::create_dir_all(root.join("a/b/c")).unwrap();
        fs::create_dir_all(root.join("a/d")).unwrap();
        fs::write(root.join("a/b/c/f"), "1").unwrap();
        fs::write(root.join("a/d/f"), "22").unwrap();
        fs::write(top.path().join("f"), "out").unwrap();
        std::os::unix::fs::symlink("..", root.join("up")).unwrap();
        std::os::unix::fs::symlink("../../f", root.join("a/f")).unwrap();
        let mut below = Below::open(&root).unwrap();
        assert_eq!(below.stat(Path::new("a/b/c/f")).unwrap().st_size, 1);
        assert_eq!(below.way.len(), 3);
        assert_eq!(below.stat(Path::new("a/d/f")).unwrap().st_size, 2);
        assert_eq!(below.way.len(), 2);
        for path in ["up/f", "a/f"] {
            assert!(below.file(Path::new(path)).is_err(), "{path}");
        }
        assert_eq!(below.link(Path::new("a/f")).unwrap(), b"../../f");
        assert!(below.stat(Path::new("")).is_ok());
        assert!(Below::open(&root.join("up")).is_err());
    }
}
