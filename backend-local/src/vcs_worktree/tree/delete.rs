//! Deletes what was listed and is as listed: never through a link, never across a mount, nothing that changed or
//! appeared since.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, chmodat, fchmod, fstat, statat, unlinkat};
use rustix::io::Errno;

use super::{Entry, Listing, Stamp, list, mount_of, open_dir, stamp};

/// Most paths that are named of what stayed; the rest is counted.
const NAMED: usize = 64;

/// What becomes of directories that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Unread {
    /// They go if they are empty.
    Stay,
    /// They go with all that is in them.
    Go,
}

/// How a deletion went.
#[derive(Debug, Default)]
pub(in super::super) struct Deleted {
    /// What stayed, relative to the top, each with the reason for people; the first few.
    pub(in super::super) stayed: Vec<(PathBuf, String)>,
    /// How many more stayed.
    pub(in super::super) more: u64,
    /// It was told to stop before the end.
    pub(in super::super) stopped: bool,
}

impl Deleted {
    /// Says whether all of it is gone.
    pub(in super::super) fn is_whole(&self) -> bool {
        self.stayed.is_empty() && self.more == 0 && !self.stopped
    }
}

/// Deletes what was listed and is unchanged, and the directories that are empty then.
///
/// `other_boot` says that the listing is of another boot: devices may have got other numbers since. `unread` says what to
/// do about directories that could not be read when they were listed. `pace` is asked before each entry, and may wait or
/// stop it.
pub(in super::super) fn delete(
    path: &Path,
    listing: &Listing,
    other_boot: bool,
    unread: Unread,
    pace: &mut dyn FnMut() -> ControlFlow<()>,
) -> io::Result<Deleted> {
    let dir = match open_dir(CWD, path.as_os_str()) {
        Ok(dir) => dir,
        Err(Errno::NOENT) => return Ok(Deleted::default()),
        Err(error) => return Err(error.into()),
    };
    let dev = i128::from(fstat(&dir)?.st_dev);
    let mut deletion = Deletion {
        listed_dev: listing.stamp.dev,
        dev: if other_boot { dev } else { listing.stamp.dev },
        links: links(listing),
        path: PathBuf::new(),
        unread,
        pace,
        deleted: Deleted::default(),
        mount: mount_of(&dir)?,
    };
    let ended = deletion.directory(&dir, listing)?;
    drop(dir);
    let mut deleted = deletion.deleted;
    if ended.is_break() {
        deleted.stopped = true;
        return Ok(deleted);
    }
    if deleted.is_whole() {
        match unlinkat(CWD, path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => deleted.stayed.push((PathBuf::from("."), why(error))),
        }
    }
    Ok(deleted)
}

/// Deletes a whole directory as it is now; what appears meanwhile makes it fail.
pub(in super::super) fn delete_all(path: &Path) -> io::Result<()> {
    let Some(listing) = list(path)? else { return Ok(()) };
    let deleted = delete(path, &listing, false, Unread::Stay, &mut || ControlFlow::Continue(()))?;
    match deleted.stayed.first() {
        None => Ok(()),
        Some((stayed, why)) => {
            Err(io::Error::other(format!("{} could not be deleted: {why}", stayed.display())))
        }
    }
}

impl Listing {
    /// The listing of a directory that is gone.
    pub(in super::super) fn of_nothing() -> Self {
        let stamp = Stamp { dev: 0, ino: 0, mode: 0, size: 0, mtime: (0, 0), ctime: (0, 0) };
        Self { stamp, entries: BTreeMap::new() }
    }

    /// Says whether this is what was listed before, entry by entry.
    pub(in super::super) fn is_as(&self, listed: &Self, other_boot: bool) -> bool {
        let is = |found: &Stamp, listed: &Stamp| {
            let dev = if other_boot { found.dev } else { listed.dev };
            *found == Stamp { dev, ..*listed }
        };
        self.entries.len() == listed.entries.len()
            && self.entries.iter().zip(&listed.entries).all(|((name, found), (as_name, listed))| {
                name == as_name
                    && match (found, listed) {
                        (Entry::File(found), Entry::File(listed))
                        | (Entry::Special(found), Entry::Special(listed))
                        | (Entry::Unreadable(found), Entry::Unreadable(listed)) => {
                            is(found, listed)
                        }
                        (Entry::Dir(found), Entry::Dir(listed)) => {
                            found.stamp.ino == listed.stamp.ino && found.is_as(listed, other_boot)
                        }
                        (Entry::Mount, Entry::Mount) => true,
                        _ => false,
                    }
            })
    }
}

impl Stamp {
    /// Says whether the directory at `path` is the one that was listed, whatever is in it now.
    pub(in super::super) fn is_of(&self, path: &Path, other_boot: bool) -> io::Result<bool> {
        let found = stamp(&fstat(&open_dir(CWD, path.as_os_str())?)?);
        Ok(found.ino == self.ino && (other_boot || found.dev == self.dev))
    }
}

/// Which inodes are listed under several names, and whether one of those is gone: unlinking a name changes the inode's
/// change time for the others.
fn links(listing: &Listing) -> BTreeMap<u64, bool> {
    let mut inodes = Vec::new();
    listing.each(&mut |_, entry| {
        if let Entry::File(stamp) | Entry::Special(stamp) = entry {
            inodes.push(stamp.ino);
        }
    });
    inodes.sort_unstable();
    let several = inodes.windows(2).filter(|pair| pair[0] == pair[1]);
    several.map(|pair| (pair[0], false)).collect()
}

/// One deletion under way.
struct Deletion<'a> {
    listed_dev: i128,
    /// What the listed device is now.
    dev: i128,
    links: BTreeMap<u64, bool>,
    /// Where it is, relative to the top.
    path: PathBuf,
    unread: Unread,
    pace: &'a mut dyn FnMut() -> ControlFlow<()>,
    deleted: Deleted,
    mount: super::MountId,
}

impl Deletion<'_> {
    fn device(&self, listed: i128) -> i128 {
        if listed == self.listed_dev { self.dev } else { listed }
    }

    fn stays(&mut self, why: impl Into<String>) {
        if self.deleted.stayed.len() < NAMED {
            self.deleted.stayed.push((self.path.clone(), why.into()));
        } else {
            self.deleted.more += 1;
        }
    }

    /// Deletes what is listed in an open directory.
    fn directory(&mut self, dir: &OwnedFd, listing: &Listing) -> io::Result<ControlFlow<()>> {
        let own = fstat(dir)?;
        if (i128::from(own.st_dev), own.st_ino)
            != (self.device(listing.stamp.dev), listing.stamp.ino)
        {
            self.stays("another directory took its place");
            return Ok(ControlFlow::Continue(()));
        }
        if mount_of(dir)? != self.mount {
            self.stays("something is mounted there");
            return Ok(ControlFlow::Continue(()));
        }
        for (name, entry) in &listing.entries {
            if (self.pace)().is_break() {
                return Ok(ControlFlow::Break(()));
            }
            self.path.push(name);
            let ended = match entry {
                Entry::File(stamp) | Entry::Special(stamp) => {
                    self.file(dir, name, stamp);
                    ControlFlow::Continue(())
                }
                Entry::Dir(below) => self.child(dir, name, below)?,
                Entry::Unreadable(listed) => {
                    self.unreadable(dir, name, listed)?;
                    ControlFlow::Continue(())
                }
                Entry::Mount => {
                    self.stays("something is mounted there");
                    ControlFlow::Continue(())
                }
            };
            self.path.pop();
            if ended.is_break() {
                return Ok(ended);
            }
        }
        self.name_unlisted(dir, listing);
        Ok(ControlFlow::Continue(()))
    }

    fn file(&mut self, dir: &OwnedFd, name: &OsStr, listed: &Stamp) {
        match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if self.is_listed(&stamp(&stat), listed) => {}
            Ok(_) => return self.stays("it was written since"),
            Err(Errno::NOENT) => return self.unlinked(listed),
            Err(error) => return self.stays(why(error)),
        }
        match unlink(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => self.unlinked(listed),
            Err(error) => self.stays(why(error)),
        }
    }

    fn is_listed(&self, found: &Stamp, listed: &Stamp) -> bool {
        let mut expected = Stamp { dev: self.device(listed.dev), ..*listed };
        if self.links.get(&listed.ino) == Some(&true) {
            expected.ctime = found.ctime;
        }
        *found == expected
    }

    fn unlinked(&mut self, listed: &Stamp) {
        if let Some(gone) = self.links.get_mut(&listed.ino) {
            *gone = true;
        }
    }

    fn child(
        &mut self,
        dir: &OwnedFd,
        name: &OsStr,
        below: &Listing,
    ) -> io::Result<ControlFlow<()>> {
        let child = match open_dir(dir, name) {
            Ok(child) => child,
            Err(Errno::NOENT) => return Ok(ControlFlow::Continue(())),
            Err(Errno::NOTDIR | Errno::LOOP) => {
                self.stays("it is no directory any more");
                return Ok(ControlFlow::Continue(()));
            }
            Err(error) => {
                self.stays(why(error));
                return Ok(ControlFlow::Continue(()));
            }
        };
        let before = (self.deleted.stayed.len(), self.deleted.more);
        let ended = self.directory(&child, below)?;
        drop(child);
        // What stayed in it was named; the directory stays with it.
        if ended.is_break() || before != (self.deleted.stayed.len(), self.deleted.more) {
            return Ok(ended);
        }
        match unlink(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => self.stays(why(error)),
        }
        Ok(ended)
    }

    /// What is in it was not listed; it goes if that is nothing, or was to be discarded.
    fn unreadable(&mut self, dir: &OwnedFd, name: &OsStr, listed: &Stamp) -> io::Result<()> {
        match unlink(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) if self.unread == Unread::Go => {
                self.discard(dir, name, listed)
            }
            Err(error) => {
                self.stays(why(error));
                Ok(())
            }
        }
    }

    /// Deletes a directory with whatever is in it by now.
    fn discard(&mut self, dir: &OwnedFd, name: &OsStr, listed: &Stamp) -> io::Result<()> {
        let before = (self.deleted.stayed.len(), self.deleted.more);
        match opened_up(dir, name) {
            Ok(child) => {
                let own = fstat(&child)?;
                let listed = (self.device(listed.dev), listed.ino);
                if (i128::from(own.st_dev), own.st_ino) == listed {
                    self.everything(&child)?;
                } else {
                    self.stays("another directory took its place");
                }
            }
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => self.stays(why(error)),
        }
        if before == (self.deleted.stayed.len(), self.deleted.more)
            && let Err(error) = unlink(dir, name, AtFlags::REMOVEDIR)
        {
            self.stays(why(error));
        }
        Ok(())
    }

    fn everything(&mut self, dir: &OwnedFd) -> io::Result<()> {
        if mount_of(dir)? != self.mount {
            self.stays("something is mounted there");
            return Ok(());
        }
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            self.path.push(name);
            match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                    self.discard(dir, name, &stamp(&stat))?;
                }
                Ok(_) => {
                    if let Err(error) = unlink(dir, name, AtFlags::empty()) {
                        self.stays(why(error));
                    }
                }
                Err(Errno::NOENT) => {}
                Err(error) => self.stays(why(error)),
            }
            self.path.pop();
        }
        Ok(())
    }

    /// Names what appeared in a directory since it was listed.
    fn name_unlisted(&mut self, dir: &OwnedFd, listing: &Listing) {
        let Ok(entries) = Dir::read_from(dir) else { return };
        for entry in entries.flatten() {
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." || listing.entries.contains_key(name) {
                continue;
            }
            self.path.push(name);
            self.stays("it appeared since");
            self.path.pop();
        }
    }
}

/// Opens a directory, after it was made readable if it is not.
fn opened_up(dir: &OwnedFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    match open_dir(dir, name) {
        Err(Errno::ACCESS) => {
            let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let mode = Mode::from_raw_mode(stat.st_mode) | Mode::RWXU;
            match chmodat(dir, name, mode, AtFlags::SYMLINK_NOFOLLOW) {
                // Older kernels cannot change a mode without following a link; what was a directory a moment ago is ours.
                Err(Errno::NOTSUP | Errno::NOSYS) => chmodat(dir, name, mode, AtFlags::empty())?,
                done => done?,
            }
            open_dir(dir, name)
        }
        other => other,
    }
}

/// Unlinks a name; a directory of ours that nobody may write to is made writable first.
fn unlink(dir: &OwnedFd, name: &OsStr, flags: AtFlags) -> rustix::io::Result<()> {
    match unlinkat(dir, name, flags) {
        Err(Errno::ACCESS) => {
            let mode = Mode::from_raw_mode(fstat(dir)?.st_mode);
            fchmod(dir.as_fd(), mode | Mode::RWXU)?;
            unlinkat(dir, name, flags)
        }
        other => other,
    }
}

fn why(error: Errno) -> String {
    match error {
        Errno::PERM => "it may not be deleted: is it immutable or append-only?".to_owned(),
        Errno::ROFS => "its file system is read-only".to_owned(),
        Errno::BUSY => "something is mounted there".to_owned(),
        error => io::Error::from(error).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn now(path: &Path, listing: &Listing) -> Vec<PathBuf> {
        let deleted =
            delete(path, listing, false, Unread::Stay, &mut || ControlFlow::Continue(())).unwrap();
        deleted.stayed.into_iter().map(|(path, _)| path).collect()
    }

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
        fs::write(top.join("a/changed"), "22").unwrap();
        fs::write(top.join("a/b/new"), "2").unwrap();
        assert_eq!(now(&top, &listing), [Path::new("a/b/new"), Path::new("a/changed")]);
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
        assert_eq!(now(&top, &listing), [Path::new("a")]);
        assert!(top.join("a/new").exists());
    }

    /// Unlinking one name changes the change time of what the other names; that was us.
    #[test]
    fn several_names_of_one_file_go_also_after_an_interruption() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        fs::create_dir(&top).unwrap();
        fs::write(top.join("a"), "1").unwrap();
        fs::hard_link(top.join("a"), top.join("b")).unwrap();
        fs::hard_link(top.join("a"), top.join("c")).unwrap();
        let listing = list(&top).unwrap().unwrap();
        let mut left = 2;
        let deleted = delete(&top, &listing, false, Unread::Stay, &mut || {
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
        assert!(deleted.stopped && !top.join("a").exists() && top.join("c").exists());
        assert_eq!(now(&top, &listing), [] as [&Path; 0]);
        assert!(!top.exists());
    }

    #[test]
    fn a_file_with_several_names_that_was_written_stays() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        fs::create_dir(&top).unwrap();
        fs::write(top.join("a"), "1").unwrap();
        fs::hard_link(top.join("a"), top.join("b")).unwrap();
        let listing = list(&top).unwrap().unwrap();
        fs::remove_file(top.join("a")).unwrap();
        fs::write(top.join("b"), "22").unwrap();
        assert_eq!(now(&top, &listing), [Path::new("b")]);
    }

    /// After another boot the same file system may have another number.
    #[test]
    fn a_listing_of_another_boot_may_name_another_device() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        fs::create_dir_all(top.join("a")).unwrap();
        fs::write(top.join("a/file"), "1").unwrap();
        let mut listing = list(&top).unwrap().unwrap();
        renumber(&mut listing);
        assert_eq!(now(&top, &listing), [Path::new("")]);
        let deleted =
            delete(&top, &listing, true, Unread::Stay, &mut || ControlFlow::Continue(())).unwrap();
        assert!(deleted.is_whole() && !top.exists());
    }

    /// Root can read everything: what could not be read is made up.
    #[test]
    fn what_could_not_be_read_goes_only_where_that_was_asked_for() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let (top, outside) = (dir.path().join("top"), dir.path().join("outside"));
        fs::create_dir_all(top.join("closed/below")).unwrap();
        fs::write(top.join("closed/below/file"), "1").unwrap();
        fs::write(&outside, "precious").unwrap();
        std::os::unix::fs::symlink(&outside, top.join("closed/link")).unwrap();
        for path in ["closed/below", "closed"] {
            fs::set_permissions(top.join(path), fs::Permissions::from_mode(0o000)).unwrap();
        }
        let stamp = Stamp::at(&top.join("closed")).unwrap().unwrap();
        let mut listing = list(&top).unwrap().unwrap();
        listing.entries.insert("closed".into(), Entry::Unreadable(stamp));
        assert_eq!(now(&top, &listing), [Path::new("closed")]);
        // Another directory is not what was to be discarded.
        let other = Entry::Unreadable(Stamp { ino: stamp.ino + 1, ..stamp });
        listing.entries.insert("closed".into(), other);
        let go = |listing: &Listing| {
            let pace = &mut || ControlFlow::Continue(());
            delete(&top, listing, false, Unread::Go, pace).unwrap()
        };
        assert!(!go(&listing).is_whole() && top.join("closed").exists());
        listing.entries.insert("closed".into(), Entry::Unreadable(stamp));
        assert!(go(&listing).is_whole() && !top.exists());
        assert_eq!(fs::read(&outside).unwrap(), b"precious");
    }

    fn renumber(listing: &mut Listing) {
        listing.stamp.dev += 1;
        for entry in listing.entries.values_mut() {
            match entry {
                Entry::File(stamp) | Entry::Special(stamp) | Entry::Unreadable(stamp) => {
                    stamp.dev += 1;
                }
                Entry::Dir(below) => renumber(below),
                Entry::Mount => {}
            }
        }
    }

    #[test]
    fn more_than_a_few_that_stay_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        fs::create_dir(&top).unwrap();
        let listing = list(&top).unwrap().unwrap();
        for number in 0..NAMED + 3 {
            fs::write(top.join(number.to_string()), "x").unwrap();
        }
        let deleted =
            delete(&top, &listing, false, Unread::Stay, &mut || ControlFlow::Continue(())).unwrap();
        assert_eq!((deleted.stayed.len(), deleted.more), (NAMED, 3));
    }
}
