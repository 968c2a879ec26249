//! Copying that a crash broke off: a list says what was not there before, so that what is there of it now is ours to take
//! back, and what others made is not.
//!
//! The list is `windlass-copying` in the private git directory: paths with a zero byte after each, directories with a
//! slash at their end.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, statat, unlinkat};
use rustix::io::Errno;

use super::open_dir;
use crate::vcs_worktree::marker::write_durably;

/// The list's file in the private git directory.
pub(in crate::vcs_worktree) const FILE: &str = "windlass-copying";

/// Lists what is to be copied and is not there yet.
pub(super) fn note(target: &OwnedFd, admin: &Path, names: &[PathBuf]) -> io::Result<()> {
    let mut missing = BTreeSet::new();
    for name in names {
        // A directory that is missing says that all below it is.
        let mut above = name.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty());
        let gone = |path: &Path| Ok::<_, io::Error>(find(target, path)?.is_none());
        if gone(name)? {
            missing.insert((name.as_path(), false));
        }
        above.try_for_each(|dir| {
            if !missing.contains(&(dir, true)) && gone(dir)? {
                missing.insert((dir, true));
            }
            Ok::<_, io::Error>(())
        })?;
    }
    let mut list = Vec::new();
    for (path, is_dir) in missing {
        list.extend_from_slice(path.as_os_str().as_bytes());
        list.extend_from_slice(if is_dir { b"/\0" } else { b"\0" });
    }
    write_durably(&admin.join(FILE), &list)
}

/// Removes what a copying that was broken off has made.
pub(super) fn take_back(target: &OwnedFd, admin: &Path) -> io::Result<()> {
    let list = match fs::read(admin.join(FILE)) {
        Ok(list) => list,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    // The deepest first: what is in a directory goes before it.
    let mut paths: Vec<&[u8]> =
        list.split(|byte| *byte == 0).filter(|path| !path.is_empty()).collect();
    paths.sort_unstable_by(|one, other| other.cmp(one));
    for path in paths {
        let (path, flags) = match path.strip_suffix(b"/") {
            Some(dir) => (dir, AtFlags::REMOVEDIR),
            None => (path, AtFlags::empty()),
        };
        let path = Path::new(OsStr::from_bytes(path));
        let (Some(parent), Some(name)) = (find_dir(target, path.parent())?, path.file_name())
        else {
            continue;
        };
        match unlinkat(&parent, name, flags) {
            // A directory in which somebody else put something stays.
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Finds an entry below a directory without following a link.
fn find(target: &OwnedFd, path: &Path) -> io::Result<Option<()>> {
    let (Some(parent), Some(name)) = (find_dir(target, path.parent())?, path.file_name()) else {
        return Ok(None);
    };
    match statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(Some(())),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Opens a directory below another; `None` if it is not there.
fn find_dir(target: &OwnedFd, path: Option<&Path>) -> io::Result<Option<OwnedFd>> {
    let mut dir = target.try_clone()?;
    for part in path.into_iter().flat_map(Path::components) {
        dir = match open_dir(&dir, part.as_os_str()) {
            Ok(below) => below,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
    }
    Ok(Some(dir))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn what_was_copied_is_taken_back_and_what_was_there_stays() {
        let (work, admin) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |path: &str| work.path().join(path);
        fs::create_dir_all(at("mine/deep")).unwrap();
        fs::write(at("mine/.env"), "a hook's").unwrap();
        let target: OwnedFd = File::open(work.path()).unwrap().into();
        take_back(&target, admin.path()).unwrap();
        let names = [".env", "mine/.env", "mine/deep/.env", "new/deep/.env", "busy/.env"]
            .map(PathBuf::from);
        note(&target, admin.path(), &names).unwrap();
        for name in [".env", "mine/deep/.env", "new/deep/.env", "busy/.env", "busy/another's"] {
            fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            fs::write(at(name), "half").unwrap();
        }
        take_back(&target, admin.path()).unwrap();
        for (path, there) in [
            (".env", false),
            ("mine/.env", true),
            ("mine/deep", true),
            ("mine/deep/.env", false),
            ("new", false),
            ("busy/.env", false),
            ("busy/another's", true),
        ] {
            assert_eq!(at(path).exists(), there, "{path}");
        }
    }
}
