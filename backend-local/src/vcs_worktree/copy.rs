//! Copies files that git does not track from a checkout into a new worktree.
//!
//! Git itself says which files the globs mean. Both sides are walked component by component and no link is followed, so
//! nothing is read or written outside, whoever changes directories meanwhile. What is there already stays.

mod again;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Stat, Timespec, Timestamps, fchmod, fstat, futimens,
    mkdirat, openat, readlinkat, statat, symlinkat, utimensat,
};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use windlass_core::vcs_worktree::VcsWorktreeError;
use windlass_core::workspace::{CopyIn, Worktree};

use super::copied::{self, Copied};
use super::scan::is_any_meant;
use super::tree::stamp;
use super::verify::Found;
use super::{Inner, failed, path_of};
use crate::group::Cancel;

pub(super) use again::FILE as COPYING;

/// Most names in a message.
const NAMED: usize = 16;
/// Up to so many copied files are synced one by one; more of them come to the disk with the rest of the worktree.
const SYNCED: usize = 64;
/// Permissions that are kept; the bits that give a program other rights are not.
const KEPT_MODE: u32 = 0o777;

/// Why one entry was not copied.
enum Refused {
    /// By a rule, in words for people.
    Rule(&'static str),
    Failed(io::Error),
}

impl<T: Into<io::Error>> From<T> for Refused {
    fn from(error: T) -> Self {
        Self::Failed(error.into())
    }
}

/// Checks globs before anything is done with them.
pub(super) fn check_globs(globs: &[String]) -> Result<(), VcsWorktreeError> {
    let wrong = |glob: &String| {
        let plain = glob.strip_prefix('!').unwrap_or(glob);
        let why = if plain.trim().is_empty() || plain.starts_with('#') {
            "says nothing"
        } else if plain.starts_with('/') {
            "is absolute; globs are relative to the checkout"
        } else if plain.split('/').any(|part| part == "..") {
            "leads out of the checkout"
        } else if plain.contains(['\n', '\r', '\0']) {
            "has more than one line"
        } else if !is_closed(plain) {
            "has a [ without its ], or ends with a backslash: it never matches"
        } else {
            return None;
        };
        Some(format!("{glob:?}: it {why}"))
    };
    let entries: Vec<_> = globs.iter().filter_map(wrong).take(NAMED).collect();
    if entries.is_empty() { Ok(()) } else { Err(VcsWorktreeError::CannotCopy { entries }) }
}

/// Says whether each set in brackets ends, as does each escape.
fn is_closed(glob: &str) -> bool {
    let mut rest = glob.chars();
    while let Some(next) = rest.next() {
        match next {
            '\\' if rest.next().is_none() => return false,
            '[' => {
                let Some(after) = after_set(rest.as_str()) else { return false };
                rest = after.chars();
            }
            _ => {}
        }
    }
    true
}

/// What follows a set in brackets, from behind its first bracket; `None` if it does not end.
fn after_set(set: &str) -> Option<&str> {
    let set = set.strip_prefix(['!', '^']).unwrap_or(set);
    // The first one stands for itself.
    let mut inside = set.strip_prefix(']').unwrap_or(set).chars();
    loop {
        match inside.next()? {
            ']' => return Some(inside.as_str()),
            '\\' => {
                inside.next()?;
            }
            '[' if inside.as_str().starts_with(':') => {
                let (name, after) = inside.as_str().split_once(']')?;
                // Else it is a bracket like any other character.
                if name.len() > 1 && name.ends_with(':') {
                    inside = after.chars();
                }
            }
            _ => {}
        }
    }
}

/// Removes what a copying into a half-made worktree has made.
pub(super) fn take_back(path: &Path, admin: &Path) -> io::Result<()> {
    again::take_back(&open_dir(CWD, path.as_os_str())?, admin)
}

impl Inner {
    /// Copies in what the record asks for, and writes down what was copied. What a crash leaves of it is taken back when it
    /// is done again, or undone: what was there before stays, whoever made it.
    pub(super) fn copy_in(
        &self,
        cancel: &Cancel,
        worktree: &Worktree,
        found: &Found,
    ) -> Result<(), VcsWorktreeError> {
        let Some(copy) = worktree.copy.as_ref().filter(|copy| !copy.globs.is_empty()) else {
            return Ok(());
        };
        check_globs(&copy.globs)?;
        let at = |error| failed("copy", &found.path, error);
        let target = open_dir(CWD, found.path.as_os_str()).map_err(|error| at(error.into()))?;
        again::take_back(&target, &found.admin).map_err(at)?;
        let names = self.matching(cancel, copy, &path_of(&copy.from))?;
        again::note(&target, &found.admin, &names).map_err(at)?;
        self.copy_named(cancel, copy, found, names)
    }

    fn copy_named(
        &self,
        cancel: &Cancel,
        copy: &CopyIn,
        found: &Found,
        names: Vec<PathBuf>,
    ) -> Result<(), VcsWorktreeError> {
        let from = path_of(&copy.from);
        let open = |path: &Path| open_dir(CWD, path.as_os_str());
        let source = open(&from).map_err(|error| failed("copy", &from, error.into()))?;
        let target =
            open(&found.path).map_err(|error| failed("copy", &found.path, error.into()))?;
        let mut copying = Copying {
            source,
            target,
            sync: names.len() <= SYNCED,
            copied: BTreeMap::new(),
            made: BTreeMap::new(),
        };
        let done = cancel.interruptible(self.git.deadline(), |stop| copying.all(names, stop));
        let refused = done.map_err(|error| super::git::helper_failed("copy", error))?;
        let refused = refused.map_err(|(path, error)| failed("copy", &path, error))?;
        if !refused.is_empty() {
            return Err(VcsWorktreeError::CannotCopy { entries: refused });
        }
        copying.finish_directories().map_err(|error| failed("copy", &found.path, error))?;
        copied::write(&found.admin, &copying.copied)
            .map_err(|error| failed("copy", &found.admin, error))
    }

    /// Names the globs that no file matches. A checkout in which that cannot be found out has none: copying says why.
    pub(super) fn unmatched(&self, cancel: &Cancel, copy: &CopyIn) -> Vec<String> {
        let Ok(names) = self.matching(cancel, copy, &path_of(&copy.from)) else {
            return Vec::new();
        };
        let paths = || names.iter().map(|name| name.as_os_str().as_bytes());
        let misses = |glob: &&String| !glob.starts_with('!') && !is_any_meant(glob, paths());
        copy.globs.iter().filter(misses).cloned().collect()
    }

    /// Asks git which files of a checkout that it does not track match.
    fn matching(
        &self,
        cancel: &Cancel,
        copy: &CopyIn,
        from: &Path,
    ) -> Result<Vec<PathBuf>, VcsWorktreeError> {
        let at = |error| failed("copy", from, error);
        let scratch = self.scratch.dir().map_err(at)?;
        let mut patterns = copy.globs.join("\n");
        patterns.push('\n');
        scratch.input("globs", patterns.as_bytes()).map_err(at)?;
        let listed = self.git.within(from, "ls-files").args(["-z", "--others", "--ignored"]);
        let listed = listed.arg("--exclude-from").arg(scratch.path().join("globs"));
        let output = listed.output(cancel)?;
        let names = output.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        Ok(names.map(|name| PathBuf::from(OsStr::from_bytes(name))).collect())
    }
}

/// Copying under way.
struct Copying {
    source: OwnedFd,
    target: OwnedFd,
    sync: bool,
    copied: BTreeMap<PathBuf, Copied>,
    /// Directories that were made, with how they are in the source.
    made: BTreeMap<PathBuf, Stat>,
}

impl Copying {
    /// Copies them all; answers what was refused, for people.
    fn all(
        &mut self,
        names: Vec<PathBuf>,
        stop: &std::sync::atomic::AtomicBool,
    ) -> Result<Vec<String>, (PathBuf, io::Error)> {
        let mut refused = Vec::new();
        for name in names {
            if refused.len() == NAMED || stop.load(std::sync::atomic::Ordering::Relaxed) {
                break;
            }
            match self.one(&name) {
                Ok(Some(copied)) => {
                    self.copied.insert(name, copied);
                }
                Ok(None) => {}
                Err(Refused::Rule(why)) => refused.push(format!("{}: {why}", name.display())),
                Err(Refused::Failed(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
                    refused.push(format!("{}: {error}", name.display()));
                }
                Err(Refused::Failed(error)) => return Err((name, error)),
            }
        }
        Ok(refused)
    }

    /// Copies one; nothing if it is gone or there is something at its place already.
    fn one(&mut self, path: &Path) -> Result<Option<Copied>, Refused> {
        let text = path.as_os_str().as_bytes();
        if text.ends_with(b"/") {
            return Err(Refused::Rule("it is a repository of its own"));
        }
        let plain = |part: Component<'_>| match part {
            Component::Normal(name) => !name.eq_ignore_ascii_case(".git"),
            _ => false,
        };
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Refused::Rule("it has no name"));
        };
        if !path.components().all(plain) {
            return Err(Refused::Rule("it belongs to a repository"));
        }
        let Some(source) = self.source_dir(parent)? else { return Ok(None) };
        let stat = match statat(&source, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        match kind {
            FileType::RegularFile => {}
            FileType::Symlink => self.stays_inside(&source, parent, path, name)?,
            FileType::Directory => return Ok(None),
            _ => return Err(Refused::Rule("it is no file, directory or link")),
        }
        let Some(target) = self.target_dir(parent)? else { return Ok(None) };
        let copied = if kind == FileType::Symlink {
            copy_link(&source, &target, name, &stat)
        } else {
            copy_file(&source, &target, name, self.sync)
        };
        match copied {
            Err(Refused::Failed(error)) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(Refused::Failed(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    /// Opens a directory of the source; `None` if it is gone or no directory any more.
    fn source_dir(&self, path: &Path) -> Result<Option<OwnedFd>, Refused> {
        let mut dir = self.source.try_clone()?;
        for part in path.components() {
            dir = match open_dir(&dir, part.as_os_str()) {
                Ok(below) => below,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
        }
        Ok(Some(dir))
    }

    /// Opens a directory of the worktree, made where it is missing; `None` if something else is in the way.
    fn target_dir(&mut self, path: &Path) -> Result<Option<OwnedFd>, Refused> {
        let mut dir = self.target.try_clone()?;
        let mut source = self.source.try_clone()?;
        let mut at = PathBuf::new();
        for part in path.components() {
            let name = part.as_os_str();
            at.push(name);
            source = open_dir(&source, name)?;
            match mkdirat(&dir, name, Mode::RWXU) {
                Ok(()) => {
                    self.made.insert(at.clone(), fstat(&source)?);
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            dir = match open_dir(&dir, name) {
                Ok(below) => below,
                Err(Errno::NOTDIR | Errno::LOOP) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
        }
        Ok(Some(dir))
    }

    /// Checks that a link names something inside its checkout, by its text and by what it leads to.
    fn stays_inside(
        &self,
        dir: &OwnedFd,
        parent: &Path,
        path: &Path,
        name: &OsStr,
    ) -> Result<(), Refused> {
        let out = Err(Refused::Rule("it is a link that leads out of the checkout"));
        let link = readlinkat(dir, name, Vec::new())?;
        let link = Path::new(OsStr::from_bytes(link.to_bytes()));
        let mut depth = parent.components().count();
        for part in link.components() {
            depth = match part {
                Component::Normal(_) => depth + 1,
                Component::CurDir => depth,
                Component::ParentDir if depth > 0 => depth - 1,
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => return out,
            };
        }
        if leads_out(&self.source, path) { out } else { Ok(()) }
    }

    /// Gives the directories that were made the modes and times that they have in the source, the deepest first.
    fn finish_directories(&self) -> io::Result<()> {
        for (path, stat) in self.made.iter().rev() {
            let mut dir = self.target.try_clone()?;
            for part in path.components() {
                dir = open_dir(&dir, part.as_os_str())?;
            }
            fchmod(&dir, Mode::from_raw_mode(stat.st_mode & KEPT_MODE))?;
            futimens(&dir, &times(stat))?;
        }
        Ok(())
    }
}

/// Says whether what a path leads to, all links followed, is outside of a directory.
#[cfg(target_os = "linux")]
fn leads_out(root: &OwnedFd, path: &Path) -> bool {
    use rustix::fs::{ResolveFlags, openat2};
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let opened = openat2(root, path, flags, Mode::empty(), ResolveFlags::BENEATH);
    // One that leads nowhere, or round and round, leads nowhere outside.
    matches!(opened, Err(Errno::XDEV))
}

#[cfg(not(target_os = "linux"))]
fn leads_out(_root: &OwnedFd, _path: &Path) -> bool {
    false
}

fn copy_file(
    source: &OwnedFd,
    target: &OwnedFd,
    name: &OsStr,
    sync: bool,
) -> Result<Copied, Refused> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut from = File::from(openat(source, name, flags, Mode::empty())?);
    let stat = fstat(&from)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Refused::Rule("it is no file, directory or link"));
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut to = File::from(openat(target, name, flags, Mode::RUSR | Mode::WUSR)?);
    let mut digest = Sha256::new();
    let mut chunk = vec![0; 256 << 10];
    loop {
        let read = from.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        digest.update(&chunk[..read]);
        to.write_all(&chunk[..read])?;
    }
    fchmod(&to, Mode::from_raw_mode(stat.st_mode & KEPT_MODE))?;
    futimens(&to, &times(&stat))?;
    if sync {
        to.sync_all()?;
    }
    Ok(Copied { stamp: stamp(&fstat(&to)?), sha256: digest.finalize().into() })
}

fn copy_link(
    source: &OwnedFd,
    target: &OwnedFd,
    name: &OsStr,
    stat: &Stat,
) -> Result<Copied, Refused> {
    let link = readlinkat(source, name, Vec::new())?;
    symlinkat(&link, target, name)?;
    let timed = utimensat(target, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW);
    let made = timed.and_then(|()| statat(target, name, AtFlags::SYMLINK_NOFOLLOW));
    // What was made and then failed goes with the rest of the half-made worktree.
    Ok(Copied { stamp: stamp(&made?), sha256: Sha256::digest(link.to_bytes()).into() })
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds: i64, nanoseconds: i128| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or_default(),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec.into()),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec.into()),
    }
}

fn open_dir(at: impl AsFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_that_lead_elsewhere_are_refused() {
        for (glob, fine) in [
            (".env*", true),
            ("!.env.example", true),
            ("config/**/local.toml", true),
            ("a..b", true),
            ("../x", false),
            ("a/../../x", false),
            ("/etc/passwd", false),
            ("!/x", false),
            ("", false),
            ("# x", false),
            ("a\n../b", false),
            ("[", false),
            ("a[b", false),
            ("[!]", false),
            ("[[:alpha:]", false),
            ("x\\", false),
            ("[a-z]*", true),
            ("[]]", true),
            ("[^]a]", true),
            ("[[:alpha:]_]x", true),
            ("[[:]", true),
            ("\\[", true),
            ("]", true),
        ] {
            assert_eq!(check_globs(&[glob.to_owned()]).is_ok(), fine, "{glob:?}");
        }
    }
}
