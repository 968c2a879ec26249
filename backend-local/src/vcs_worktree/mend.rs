//! Completes a worktree whose creation was acknowledged and may not have come to the disk before the machine went down.
//!
//! What a power cut leaves of a new file is nothing, an empty file, or its beginning with zeros after it. Only that is
//! replaced by what a checkout gives; a file with any other content is somebody's work and stays.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, fchmod, mkdirat, openat, renameat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use windlass_core::id::AttemptId;
use windlass_core::vcs_worktree::VcsWorktreeError;
use windlass_core::workspace::Worktree;

use super::below::Below;
use super::settle::{self, Settled};
use super::tree::Stamp;
use super::verify::Found;
use super::{Inner, failed, locator};
use crate::group::Cancel;

/// How much is compared at once.
const CHUNK: usize = 64 << 10;

impl Inner {
    /// Completes the worktree if it is in doubt. The caller holds the repository's lock.
    pub(super) fn mend(
        &self,
        cancel: &Cancel,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<(), VcsWorktreeError> {
        let found = match self.verify_settled_or_not(cancel, attempt, worktree) {
            Ok(found) => found,
            Err(VcsWorktreeError::Gone { .. } | VcsWorktreeError::Mismatch { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let at = |error| failed("mend", &found.admin, error);
        if settle::settled(&found.admin).map_err(at)? != Settled::Doubtful {
            return Ok(());
        }
        self.replace_damaged(cancel, &found)?;
        settle::settle_now(&found.admin, &found.path).map_err(at)
    }

    fn replace_damaged(&self, cancel: &Cancel, found: &Found) -> Result<(), VcsWorktreeError> {
        let at = |error| failed("mend", &found.path, error);
        let (admin, path) = (&found.admin, &found.path);
        let scratch = self.scratch.dir().map_err(at)?;
        // An index without a single stat: every file is compared by its content.
        let index = scratch.path().join("index");
        let read = self.git.on_worktree(admin, path, "read-tree").env("GIT_INDEX_FILE", &index);
        read.arg("HEAD").output(cancel)?;
        // A worktree that is in doubt was made without a filter: one that applies by now has no part in what it was.
        let unfiltered = self.config(cancel, admin, path)?.unfiltered();
        let differing = self.git.on_worktree(admin, path, "diff-files").set_all(&unfiltered);
        let differing = differing.env("GIT_INDEX_FILE", &index);
        let differing =
            differing.args(["-z", "--name-only", "--ignore-submodules=all"]).output(cancel)?;
        let listed = self.git.on_worktree(admin, path, "ls-files");
        if listed.args(["-z"]).output(cancel).is_err() {
            // Git cannot read the index any more: what is left of it says nothing.
            let lost = admin.join("index");
            fs::copy(&index, &lost).map_err(|error| failed("mend", &lost, error))?;
        }
        let mut prefix = scratch.path().join("files").into_os_string();
        prefix.push("/");
        let mut option = std::ffi::OsString::from("--prefix=");
        option.push(&prefix);
        let names = scratch.input("names", &differing).map_err(at)?;
        let out = self.git.on_worktree(admin, path, "checkout-index").set_all(&unfiltered);
        let out = out.env("GIT_INDEX_FILE", &index).stdin(names);
        out.arg(option).args(["-z", "--stdin"]).output(cancel)?;
        let fresh = Path::new(&prefix);
        let mut work = Below::open(path).map_err(at)?;
        for name in differing.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let name = Path::new(std::ffi::OsStr::from_bytes(name));
            replace(&mut work, name, &fresh.join(name)).map_err(at)?;
        }
        Ok(())
    }
}

/// Puts a fresh file in the place of one that is missing or is what a power cut leaves of it. Nothing is read or written
/// through a link that somebody made meanwhile.
fn replace(work: &mut Below, name: &Path, fresh: &Path) -> io::Result<()> {
    let Some(new) = Stamp::at(fresh)? else { return Ok(()) };
    match work.stat(name) {
        Ok(stat) => {
            let files = [stat.st_mode, new.mode].map(FileType::from_raw_mode);
            if files != [FileType::RegularFile; 2]
                || !is_remnant(&mut work.file(name)?, &mut File::open(fresh)?)?
            {
                return Ok(());
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            for folder in name.ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
                if !folder.as_os_str().is_empty() {
                    make_folder(work, folder)?;
                }
            }
        }
        // A directory on the way is a file or a link now: somebody's work.
        Err(error) if is_in_the_way(&error) => return Ok(()),
        Err(error) => return Err(error),
    }
    let (parent, last) = work.parent(name)?;
    match renameat(CWD, fresh, parent, last) {
        Err(Errno::XDEV) => copy(parent, last, fresh, new.mode),
        done => Ok(done?),
    }
}

fn make_folder(work: &mut Below, folder: &Path) -> io::Result<()> {
    let (parent, name) = work.parent(folder)?;
    match mkdirat(parent, name, Mode::from_raw_mode(0o777)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn is_in_the_way(error: &io::Error) -> bool {
    let errors = [Errno::NOTDIR, Errno::LOOP].map(|errno| Some(errno.raw_os_error()));
    errors.contains(&error.raw_os_error())
}

/// Copies what cannot be renamed, in the place of what is there.
fn copy(parent: BorrowedFd<'_>, name: &OsStr, fresh: &Path, mode: u32) -> io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    if FileType::from_raw_mode(mode) == FileType::Symlink {
        return Ok(symlinkat(&fs::read_link(fresh)?, parent, name)?);
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?);
    io::copy(&mut File::open(fresh)?, &mut &file)?;
    Ok(fchmod(&file, Mode::from_raw_mode(mode))?)
}

/// Says whether `found` is the beginning of `whole`, maybe an empty one, with nothing but zeros after it.
fn is_remnant(found: &mut impl Read, whole: &mut impl Read) -> io::Result<bool> {
    let (mut one, mut other) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut same = true;
    loop {
        let read = fill(found, &mut one)?;
        if read == 0 {
            return Ok(true);
        }
        if fill(whole, &mut other[..read])? < read {
            return Ok(false);
        }
        let alike = one[..read].iter().zip(&other).take_while(|(one, other)| one == other);
        let alike = if same { alike.count() } else { 0 };
        same = alike == read;
        if one[alike..read].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
}

/// Reads as much as there is room for, or all that is left.
fn fill(from: &mut impl Read, room: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < room.len() {
        match from.read(&mut room[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// What to tell people of a worktree in doubt.
pub(super) fn doubt(found: &Found) -> VcsWorktreeError {
    let detail = format!(
        "the machine went down before its files were safely on the disk, so some may be empty or missing: creating it \
         again completes it; to trust it as it is, look at `git status` and remove {}",
        found.admin.join(settle::FILE).display(),
    );
    VcsWorktreeError::Mismatch { path: locator(&found.path), detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remnants_are_beginnings_with_zeros_after_them() {
        for (found, remnant) in [
            ("", true),
            ("ab", true),
            ("ab\0\0", true),
            ("\0\0\0\0", true),
            ("abcd", true),
            ("ax", false),
            ("abcdef", false),
            ("ab\0d", false),
        ] {
            let is = is_remnant(&mut found.as_bytes(), &mut &b"abcd"[..]).unwrap();
            assert_eq!(is, remnant, "{found:?}");
        }
        let whole = vec![1; 3 * CHUNK];
        for (at, byte, remnant) in [(0, 0, true), (CHUNK, 0, false), (2 * CHUNK + 5, 0, true)] {
            let mut found = whole.clone();
            found[at] = byte;
            let end = if at == CHUNK { found.len() } else { at + 1 };
            let is = is_remnant(&mut &found[..end], &mut whole.as_slice()).unwrap();
            assert_eq!(is, remnant, "{at}");
        }
    }

    #[test]
    fn nothing_is_written_through_a_link_that_somebody_made() {
        let dir = tempfile::tempdir().unwrap();
        let (work, outside) = (dir.path().join("work"), dir.path().join("outside"));
        fs::create_dir_all(work.join("kept")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("empty"), "").unwrap();
        std::os::unix::fs::symlink(&outside, work.join("linked")).unwrap();
        let fresh = dir.path().join("fresh");
        for name in ["linked/empty", "linked/missing", "kept/missing", "new/below/missing"] {
            fs::write(&fresh, "whole").unwrap();
            replace(&mut Below::open(&work).unwrap(), Path::new(name), &fresh).unwrap();
        }
        assert_eq!(fs::read(outside.join("empty")).unwrap(), b"");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
        for name in ["kept/missing", "new/below/missing"] {
            assert_eq!(fs::read(work.join(name)).unwrap(), b"whole");
        }
    }
}
