//! Checks that what is there is the recorded worktree: from git's files, without a process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use windlass_core::id::AttemptId;
use windlass_core::vcs_worktree::{VcsWorktreeError, Verified};
use windlass_core::workspace::Worktree;

use super::aside::link_of;
use super::checkout::CHECKED_OUT_INDEX;
use super::git::without_newline;
use super::marker::{self, Marker, Read};
use super::mend::doubt;
use super::refs::{self, HEADS, Head};
use super::settle::{self, Settled};
use super::underway::note_of;
use super::{Inner, failed, locator, mismatch, moved, path_of};
use crate::group::Cancel;

/// A worktree that was verified.
#[derive(Debug)]
pub(super) struct Found {
    /// Its directory.
    pub(super) path: PathBuf,
    /// Its private git directory.
    pub(super) admin: PathBuf,
    /// The common git directory.
    pub(super) common: PathBuf,
    /// What HEAD names.
    pub(super) verified: Verified,
}

impl Inner {
    /// Verifies in both directions, the directory names its registration, the registration the directory, and that what
    /// the creation wrote is on the disk, or will be.
    pub(super) fn verify(
        &self,
        cancel: &Cancel,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<Found, VcsWorktreeError> {
        let found = self.verify_settled_or_not(cancel, attempt, worktree)?;
        let at = |error| failed("verify", &found.admin, error);
        match settle::settled(&found.admin).map_err(at)? {
            Settled::Yes => {}
            // Whoever made it may be gone. What cannot be done now stays noted.
            Settled::NotYet => drop(self.settler.settle(&found.admin, &found.path)),
            Settled::Doubtful => return Err(doubt(&found)),
        }
        Ok(found)
    }

    /// As [`verify`](Self::verify), whether or not what the creation wrote is on the disk.
    pub(super) fn verify_settled_or_not(
        &self,
        cancel: &Cancel,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<Found, VcsWorktreeError> {
        let path = self.inside(worktree)?;
        let common = common_of(worktree, &path)?;
        match path.symlink_metadata() {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => {
                let detail = "it is no directory; move away what is there to have it made again";
                return Err(mismatch(&path, detail));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(VcsWorktreeError::Gone { path: worktree.path.clone() });
            }
            Err(error) => return Err(failed("verify", &path, error)),
        }
        let real = fs::canonicalize(&path).map_err(|error| failed("verify", &path, error))?;
        if real != path {
            return Err(mismatch(&path, format!("a link on the way leads to {}", real.display())));
        }
        let admin = self.registration(attempt, &path, &common)?;
        self.check_marker(&admin, &path, attempt)?;
        let verified = self.head(cancel, &admin, &common, &path)?;
        Ok(Found { path, admin, common, verified })
    }

    fn check_marker(
        &self,
        admin: &Path,
        path: &Path,
        attempt: AttemptId,
    ) -> Result<(), VcsWorktreeError> {
        match Marker::read(admin).map_err(|error| failed("verify", admin, error))? {
            Read::Says(marker) if marker == self.marker(attempt) => Ok(()),
            Read::Says(marker) if marker.data_directory != self.data_directory => {
                let whose = &marker.data_directory;
                let detail = format!(
                    "it belongs to another data directory ({whose}), and only that uses it"
                );
                Err(mismatch(path, detail))
            }
            Read::Says(marker) => {
                Err(mismatch(path, format!("it belongs to attempt {}", marker.attempt.short())))
            }
            Read::Missing => {
                let file = admin.join(marker::FILE);
                let detail = if is_traced(admin) {
                    format!("its marker {} is gone: restoring it marks it again", file.display())
                } else {
                    "it carries no marker of ours: it was registered by somebody else, or its creation was not completed; \
                     move it away to have the worktree made again"
                        .to_owned()
                };
                Err(mismatch(path, detail))
            }
            Read::Unclear(why) => {
                let file = admin.join(marker::FILE);
                let detail = format!(
                    "{why} ({}): if no newer version wrote it, move that file away, and restoring it marks it again",
                    file.display()
                );
                Err(mismatch(path, detail))
            }
        }
    }

    /// Marks a worktree again whose marker somebody deleted: that it is registered at a place of ours, and what else the
    /// creation left, say whose it is. The caller holds the repository's lock, and was asked for this attempt's worktree.
    pub(super) fn mark_again(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<(), VcsWorktreeError> {
        let path = self.inside(worktree)?;
        let made = |path: &Path| path.is_dir() && note_of(path).symlink_metadata().is_err();
        let Some(common) = made(&path).then(|| common_of(worktree, &path)).transpose()? else {
            return Ok(());
        };
        let Ok(admin) = self.registration(attempt, &path, &common) else { return Ok(()) };
        let at = |error| failed("mark", &admin, error);
        match Marker::read(&admin).map_err(at)? {
            Read::Missing if is_traced(&admin) => {
                self.marker(attempt).write(&admin, worktree).map_err(at)
            }
            Read::Missing | Read::Says(_) | Read::Unclear(_) => Ok(()),
        }
    }

    /// Reads what HEAD names; asks git where its files do not say it plainly.
    pub(super) fn head(
        &self,
        cancel: &Cancel,
        admin: &Path,
        common: &Path,
        path: &Path,
    ) -> Result<Verified, VcsWorktreeError> {
        let unborn = |branch: &str| {
            let detail = format!(
                "its HEAD names branch {branch:?}, which has no commit; commit there or switch to a branch that has one"
            );
            mismatch(path, detail)
        };
        match refs::head(admin, common).map_err(|error| failed("verify", admin, error))? {
            Head::Commit { oid, branch } => return Ok(Verified { head: oid, branch }),
            Head::Unborn { branch } => return Err(unborn(&branch)),
            Head::Unusual => {}
        }
        // Each argument is printed as the options before it say.
        let asked = self.git.on_worktree(admin, path, "rev-parse");
        let asked = asked.args(["--verify", "--quiet", "HEAD"]).run(cancel)?;
        let Some(head) = refs::oid(asked.stdout.trim_ascii()).filter(|_| asked.status.success())
        else {
            let detail = "its HEAD names no commit; `git switch` to a branch that exists";
            return Err(mismatch(path, detail));
        };
        let name = self.git.on_worktree(admin, path, "symbolic-ref");
        let name = name.args(["--quiet", "HEAD"]).answer(cancel)?;
        let name = name.map(|name| String::from_utf8_lossy(without_newline(&name)).into_owned());
        let branch = name.and_then(|name| name.strip_prefix(HEADS).map(str::to_owned));
        Ok(Verified { head, branch })
    }

    /// Says of a worktree that is gone where it is, if somebody moved it with git; any other error stays as it is.
    pub(super) fn or_moved(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        error: VcsWorktreeError,
    ) -> VcsWorktreeError {
        if !matches!(error, VcsWorktreeError::Gone { .. }) || self.may_be_aside(attempt, worktree) {
            return error;
        }
        // What cannot be looked up makes it no less gone.
        let admin = self.registered(&path_of(&worktree.repo), attempt).ok().flatten();
        match admin.and_then(|admin| moved_to(&admin, &path_of(&worktree.path))) {
            Some(detail) => mismatch(&path_of(&worktree.path), detail),
            None => error,
        }
    }

    /// Finds the registration that carries the marker of this attempt, wherever it says the worktree is, but for one that
    /// the original of this data directory uses, or a copy of it.
    pub(super) fn registered(
        &self,
        common: &Path,
        attempt: AttemptId,
    ) -> Result<Option<PathBuf>, VcsWorktreeError> {
        let ours = self.marker(attempt);
        let mut elsewhere = None;
        for admin in registrations(common)? {
            let marker = Marker::read(&admin).map_err(|error| failed("verify", &admin, error))?;
            if !matches!(marker, Read::Says(marker) if marker == ours) {
                continue;
            }
            match link_of(&admin)? {
                Some(link) if link.starts_with(&self.root) => return Ok(Some(admin)),
                Some(link) if self.original(&link).is_some() => {}
                Some(_) | None => elsewhere = elsewhere.or(Some(admin)),
            }
        }
        Ok(elsewhere)
    }

    /// Follows the links from a worktree to its registration and back.
    fn registration(
        &self,
        attempt: AttemptId,
        path: &Path,
        common: &Path,
    ) -> Result<PathBuf, VcsWorktreeError> {
        let link = path.join(".git").symlink_metadata();
        if link.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            let detail = match self.registered(common, attempt)? {
                Some(_) => {
                    let common = quoted(common);
                    format!("its file .git is gone; `git -C {common} worktree repair` may mend it")
                }
                None => {
                    "something that is not ours stands there: move it away and try again".to_owned()
                }
            };
            return Err(mismatch(path, detail));
        }
        let admin = registration_of(path, common)?;
        let back = read_link(&admin.join("gitdir"), "", &admin)
            .map_err(|error| failed("verify", &admin, error))?;
        match back.as_deref().map(same_file) {
            Some(Some(back)) if back == path.join(".git") => {}
            _ => {
                let back = back.unwrap_or_default();
                let other = back.parent().filter(|other| self.original(other).is_some());
                let detail = match other {
                    Some(original) => moved::copied(path, original),
                    None => {
                        let repair = format!("worktree repair {}", quoted(path));
                        let repair = format!("`git -C {} {repair}` may mend it", quoted(common));
                        format!("it is registered as {}; {repair}", back.display())
                    }
                };
                return Err(mismatch(path, detail));
            }
        }
        let shared = read_link(&admin.join("commondir"), "", &admin)
            .map_err(|error| failed("verify", &admin, error))?;
        match shared.and_then(|shared| fs::canonicalize(shared).ok()) {
            Some(shared) if shared == *common => Ok(admin),
            _ => Err(mismatch(path, "its registration belongs to another repository")),
        }
    }
}

/// Says whether a private git directory shows that one of our creations checked out its files.
fn is_traced(admin: &Path) -> bool {
    admin.join(CHECKED_OUT_INDEX).symlink_metadata().is_ok_and(|meta| meta.is_file())
}

/// The recorded common git directory, which must still be one.
fn common_of(worktree: &Worktree, path: &Path) -> Result<PathBuf, VcsWorktreeError> {
    let recorded = path_of(&worktree.repo);
    match fs::canonicalize(&recorded) {
        Ok(real) if real == recorded => Ok(real),
        Ok(real) => Err(mismatch(path, format!("its repository is now {}", real.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let detail =
                format!("its repository {} is gone; put it back where it was", recorded.display());
            Err(mismatch(path, detail))
        }
        Err(error) => Err(failed("verify", &recorded, error)),
    }
}

/// Follows the link from a worktree to its registration.
fn registration_of(path: &Path, common: &Path) -> Result<PathBuf, VcsWorktreeError> {
    let link = path.join(".git");
    let repair = format!("`git -C {} worktree repair` may mend it", quoted(common));
    let meta = link.symlink_metadata().map_err(|error| failed("verify", &link, error))?;
    if !meta.is_file() {
        let detail = "its .git is no file: it is a repository of its own; move it away to have the worktree made again";
        return Err(mismatch(path, detail));
    }
    let admin = read_link(&link, "gitdir: ", path)
        .map_err(|error| failed("verify", &link, error))?
        .ok_or_else(|| mismatch(path, format!("its file .git is damaged; {repair}")))?;
    let admin = fs::canonicalize(&admin).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            let detail = "it is not registered in its repository any more, as after `git worktree prune`; its files are \
                          untouched: move them away, then it can be restored";
            mismatch(path, detail)
        }
        _ => failed("verify", &admin, error),
    })?;
    if admin.parent() != Some(&common.join("worktrees")) {
        return Err(mismatch(path, format!("it belongs to {}; {repair}", admin.display())));
    }
    Ok(admin)
}

/// Says where a registration has the worktree that is not at `path` any more, if something is there.
pub(super) fn moved_to(admin: &Path, path: &Path) -> Option<String> {
    let link = read_link(&admin.join("gitdir"), "", admin).ok()??;
    let moved = link != path.join(".git") && link.exists();
    let to = fs::canonicalize(link.parent()?).ok()?;
    let detail = || format!("it was moved to {}; `git worktree move` brings it back", to.display());
    moved.then(detail)
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// Resolves the directory that a file is in, not the file.
fn same_file(path: &Path) -> Option<PathBuf> {
    let parent = fs::canonicalize(path.parent()?).ok()?;
    Some(parent.join(path.file_name()?))
}

/// Reads a path out of one of git's link files; a relative one is meant from `base`. `None` if it holds none.
pub(super) fn read_link(file: &Path, prefix: &str, base: &Path) -> io::Result<Option<PathBuf>> {
    let content = match fs::read(file) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let path = without_newline(&content).strip_prefix(prefix.as_bytes()).unwrap_or_default();
    let path = (!path.is_empty()).then(|| PathBuf::from(OsString::from_vec(path.to_vec())));
    Ok(path.map(|path| base.join(path)))
}

/// Lists the private git directories of all worktrees of a repository.
pub(super) fn registrations(common: &Path) -> Result<Vec<PathBuf>, VcsWorktreeError> {
    let folder = common.join("worktrees");
    let read = || -> io::Result<Vec<PathBuf>> {
        match fs::read_dir(&folder) {
            Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    };
    read().map_err(|error| failed("list worktrees", &folder, error))
}

/// Says where a worktree would be by its path, for messages.
pub(super) fn gone(path: &Path) -> VcsWorktreeError {
    VcsWorktreeError::Gone { path: locator(path) }
}
