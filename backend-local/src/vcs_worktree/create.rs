//! Makes a worktree so that a crash at any point can be told and undone.
//!
//! A note is written beside the future worktree ([`underway`](super::underway)); git makes branch, registration and
//! directory under the repository's lock, which is let go then; files and index are written, what is to be copied or
//! restored follows; the marker is written, the note is removed. A note that is found says that whatever stands there is a
//! half-made worktree of ours. Where the user's code has a part in the files, they come by a step between two calls
//! ([`step`]).

mod own;
mod step;
mod undo;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use windlass_core::id::AttemptId;
use windlass_core::vcs_worktree::{CreateMode, Creation, GitStep, VcsWorktreeError};
use windlass_core::workspace::{Oid, Worktree};

use self::undo::Lock;
use super::checkout::{CheckedOut, Site};
use super::git::failure;
use super::marker::{self, Intent, Marker, Read, sync_parent};
use super::refs::HEADS;
use super::underway::{self, note_of};
use super::verify::{Found, read_link};
use super::{Inner, failed, mismatch, path_of, settle, tree};
use crate::group::Cancel;

pub(super) use step::lock_of;

/// Where a new worktree starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// On the worktree's own branch, which does not exist yet, at this commit.
    NewBranch {
        /// The commit.
        oid: Oid,
    },
    /// On a branch that exists, is at this commit, and is checked out nowhere.
    Branch {
        /// Its name, without `refs/heads/`.
        name: String,
        /// The commit.
        oid: Oid,
        /// It was made for this, so that undoing takes it away again.
        made: bool,
    },
    /// At this commit, on no branch.
    Detached {
        /// The commit.
        oid: Oid,
    },
}

impl Start {
    const fn oid(&self) -> &Oid {
        match self {
            Self::NewBranch { oid } | Self::Branch { oid, .. } | Self::Detached { oid } => oid,
        }
    }
}

/// What is done once the files are there and before the creation counts.
pub(super) type Fill<'a> = &'a mut dyn FnMut(&Found) -> Result<(), VcsWorktreeError>;

/// A creation under way.
#[derive(Clone, Copy)]
struct Making<'a> {
    common: &'a Path,
    path: &'a Path,
    intent: &'a Intent,
    worktree: &'a Worktree,
}

/// What came of making a worktree.
pub(super) enum Made {
    /// It is whole.
    Whole(Found),
    /// Its files are for a step.
    Step(GitStep),
}

impl From<Made> for Creation {
    fn from(made: Made) -> Self {
        match made {
            Made::Whole(found) => Self::Done(found.verified),
            Made::Step(step) => Self::Run(step),
        }
    }
}

/// How the files of a worktree come.
enum Files {
    /// They are there; this is its private git directory.
    There(PathBuf),
    /// By a step.
    Step(GitStep),
}

impl Inner {
    /// Makes the worktree from its base, or verifies the one that is there. The caller holds the repository's lock.
    pub(super) fn create(
        &self,
        cancel: &Cancel,
        attempt: AttemptId,
        worktree: &Worktree,
        mode: CreateMode,
    ) -> Result<Creation, VcsWorktreeError> {
        let path = self.inside(worktree)?;
        let common = path_of(&worktree.repo);
        if let Some(half) = self.completed(attempt, worktree)? {
            let mut fill = |found: &Found| self.copy_in(cancel, worktree, found);
            let found = self.conclude(cancel, attempt, worktree, half, &mut fill)?;
            return Ok(Creation::Done(found.verified));
        }
        if mode == CreateMode::Conclude {
            let found = self.refuse_incomplete(cancel, attempt, worktree)?;
            return Ok(Creation::Done(found.verified));
        }
        self.mark_again(attempt, worktree)?;
        self.mend(cancel, attempt, worktree)?;
        if path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
            && note_of(&path).symlink_metadata().is_err()
            && let Some(admin) = self.registered(&common, attempt)?
        {
            self.point_home(attempt, worktree, &admin, &path)?;
            self.fill_again(cancel, &common, &admin, &path)?;
            let found = self.verify(cancel, attempt, worktree)?;
            return Ok(Creation::Done(found.verified));
        }
        let start = Start::NewBranch { oid: worktree.base_oid.clone() };
        let mut fill = |found: &Found| self.copy_in(cancel, worktree, found);
        self.create_at(cancel, attempt, worktree, &start, &mut fill).map(Creation::from)
    }

    /// Makes a worktree at `start`, or verifies the one that is there, or says which step makes its files.
    ///
    /// `fill` runs after the files of the commit are checked out and before the creation counts as whole: a crash inside
    /// it is undone as half-made, and its failure undoes all. The caller holds the repository's lock through `cancel`; it
    /// is let go before the files are written.
    pub(super) fn create_at(
        &self,
        cancel: &Cancel,
        attempt: AttemptId,
        worktree: &Worktree,
        start: &Start,
        fill: Fill<'_>,
    ) -> Result<Made, VcsWorktreeError> {
        let path = self.inside(worktree)?;
        let common = path_of(&worktree.repo);
        let note = note_of(&path);
        let half = self.half_made(attempt, worktree, &path, &note)?;
        match self.verify(cancel, attempt, worktree) {
            Ok(found) => {
                if half.is_some() {
                    step::forget(&found.admin);
                }
                remove_note(&note)?;
                return Ok(Made::Whole(found));
            }
            Err(VcsWorktreeError::Gone { .. } | VcsWorktreeError::Mismatch { .. })
                if half.is_some() =>
            {
                if let Some(found) = &half {
                    self.undo(cancel, &common, &path, found, Lock::Held)?;
                    remove_note(&note)?;
                    own::refuse_leftover(&path)?;
                }
            }
            Err(VcsWorktreeError::Gone { .. }) => {}
            // Not one of anybody: what is there, if anything, is what an undoing had to leave.
            Err(VcsWorktreeError::Mismatch { .. })
                if path.is_dir()
                    && path.join(".git").symlink_metadata().is_err()
                    && self.registered(&common, attempt)?.is_none() =>
            {
                own::refuse_leftover(&path)?;
            }
            Err(error) => return Err(error),
        }
        if let Some(error) = self.cannot_start(cancel, &common, worktree, start)? {
            remove_note(&note)?;
            return Err(error);
        }
        let intent = self.intent(attempt, worktree, start);
        let held = self.begin(&path, &note, &intent)?;
        let making = Making { common: &common, path: &path, intent: &intent, worktree };
        if let Err(error) = self.register(cancel, &making, start) {
            self.take_back(cancel, &making, Lock::Held);
            return Err(error);
        }
        // What follows touches nothing that others share. Whoever outlives us keeps the note instead of the lock.
        cancel.change_lock(held);
        match self.make(cancel, &making, start, fill) {
            Ok(Files::There(admin)) => {
                step::forget(&admin);
                remove_note(&note)?;
                // It is whole; what is not on the disk yet is said by its note.
                drop(self.settler.settle(&admin, &path));
                self.verify(cancel, attempt, worktree).map(Made::Whole)
            }
            Ok(Files::Step(step)) => {
                cancel.unlock();
                Ok(Made::Step(step))
            }
            Err(error) => {
                self.take_back(cancel, &making, Lock::Maybe);
                Err(error)
            }
        }
    }

    fn intent(&self, attempt: AttemptId, worktree: &Worktree, start: &Start) -> Intent {
        let branch = match start {
            Start::NewBranch { .. } | Start::Detached { .. } => worktree.branch.clone(),
            Start::Branch { name, .. } => name.clone(),
        };
        Intent {
            marker: self.marker(attempt),
            branch,
            oid: start.oid().0.clone(),
            new_branch: matches!(start, Start::NewBranch { .. } | Start::Branch { made: true, .. }),
            from_snapshot: !matches!(start, Start::NewBranch { .. }),
            worktree: Some(worktree.clone()),
        }
    }

    /// Reads the note of a half-made worktree of this attempt at `path`, if there is one that nobody is at any more.
    fn half_made(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        path: &Path,
        note: &Path,
    ) -> Result<Option<Intent>, VcsWorktreeError> {
        let at_note = |error| failed("create", note, error);
        match Intent::read(note).map_err(at_note)? {
            Read::Missing => Ok(None),
            Read::Says(found) if found.marker != self.marker(attempt) => {
                Err(mismatch(path, "another worktree is being made there"))
            }
            Read::Says(found) => {
                let free = underway::is_free(note)
                    .and_then(|free| Ok(free && step::is_free(path, worktree)?));
                if free.map_err(at_note)? {
                    return Ok(Some(found));
                }
                Err(VcsWorktreeError::Busy { repo: worktree.repo.clone(), holder: None })
            }
            Read::Unclear(why) => Err(mismatch(path, why)),
        }
    }

    /// Why a worktree cannot start there.
    fn cannot_start(
        &self,
        cancel: &Cancel,
        common: &Path,
        worktree: &Worktree,
        start: &Start,
    ) -> Result<Option<VcsWorktreeError>, VcsWorktreeError> {
        Ok(match start {
            Start::NewBranch { .. } => {
                let taken = self.branch_oid(cancel, common, &worktree.branch)?.is_some();
                taken.then(|| VcsWorktreeError::BranchExists { branch: worktree.branch.clone() })
            }
            Start::Branch { name, oid, .. } => {
                let found = self.branch_oid(cancel, common, name)?;
                let same = found.as_ref() == Some(oid);
                let gone = || VcsWorktreeError::UnknownBase { base: name.clone() };
                (!same).then(gone)
            }
            Start::Detached { .. } => None,
        })
    }

    fn begin(
        &self,
        path: &Path,
        note: &Path,
        intent: &Intent,
    ) -> Result<OwnedFd, VcsWorktreeError> {
        let folder = path.parent().unwrap_or(&self.root);
        let made = || {
            if !folder.is_dir() {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
                sync_parent(folder)?;
            }
            underway::begin(note, intent)
        };
        made().map_err(|error| failed("create", note, error))
    }

    /// Makes it, but for what is for a step.
    fn make(
        &self,
        cancel: &Cancel,
        making: &Making<'_>,
        start: &Start,
        fill: Fill<'_>,
    ) -> Result<Files, VcsWorktreeError> {
        let Making { common, path, worktree, .. } = *making;
        let at = |error| failed("create", path, error);
        let admin = read_link(&path.join(".git"), "gitdir: ", path).map_err(at)?;
        let admin = admin.ok_or_else(|| mismatch(path, "git left its file .git empty"))?;
        let site = Site { path, admin: &admin, common, oid: start.oid() };
        let config = self.config(cancel, &admin, path)?;
        let new = matches!(start, Start::NewBranch { .. });
        // What is made again has what the hook once made of it, as far as it was saved.
        let hook = if new { self.hook(cancel, &config, site)? } else { None };
        if hook.is_some() {
            return self.ask_for_step(site, hook.as_deref()).map(Files::Step);
        }
        settle::note(&admin).map_err(at)?;
        match self.check_out(cancel, &config, site)? {
            CheckedOut::Done => {}
            CheckedOut::Filtered => return self.ask_for_step(site, None).map(Files::Step),
        }
        let verified = self.head(cancel, &admin, common, path)?;
        let found = Found {
            path: path.to_owned(),
            admin: admin.clone(),
            common: common.to_owned(),
            verified,
        };
        fill(&found)?;
        if !new {
            // A checkout is completed from the objects; what was restored is nowhere else in the repository.
            settle::settle_now(&admin, path).map_err(at)?;
        }
        self.seal(&found, &making.intent.marker, worktree).map_err(at)?;
        Ok(Files::There(admin))
    }

    /// Lets git make branch, registration and directory.
    fn register(
        &self,
        cancel: &Cancel,
        making: &Making<'_>,
        start: &Start,
    ) -> Result<(), VcsWorktreeError> {
        let Making { common, path, intent, .. } = *making;
        let add = self.git.on_repository(common, "worktree add");
        let add = add
            .set("core.fsync=all")
            .set("core.fsyncMethod=fsync")
            // Relative links would change the repository's format.
            .set("worktree.useRelativePaths=false")
            .args(["--quiet", "--no-checkout"]);
        let add = match start {
            Start::NewBranch { oid } => {
                add.args(["--no-track", "-b", &intent.branch]).arg(path).arg(&oid.0)
            }
            Start::Branch { name, .. } => add.arg("--").arg(path).arg(name),
            Start::Detached { oid } => add.arg("--detach").arg(path).arg(&oid.0),
        };
        let ended = add.run(cancel)?;
        if ended.status.success() {
            return Ok(());
        }
        let error = failure("worktree add", &ended);
        if let VcsWorktreeError::Git { stderr, .. } = &error
            && stderr.contains("already exists")
            && matches!(start, Start::NewBranch { .. })
        {
            // Somebody who does not use the lock was quicker: the branch is his, and must survive our undoing.
            let branch = intent.branch.clone();
            let taken = self.branch_oid(cancel, common, &branch)?.is_some();
            if taken && path.symlink_metadata().is_err() {
                remove_note(&note_of(path))?;
                return Err(VcsWorktreeError::BranchExists { branch });
            }
        }
        Err(error)
    }

    /// Makes what says whose it is survive a power cut, and says it last.
    fn seal(&self, found: &Found, marker: &Marker, worktree: &Worktree) -> io::Result<()> {
        let (path, admin) = (&found.path, &found.admin);
        for file in ["gitdir", "commondir", "HEAD"] {
            File::open(admin.join(file))?.sync_all()?;
        }
        File::open(path.join(".git"))?.sync_all()?;
        for dir in [path, admin] {
            sync_parent(dir)?;
        }
        if let Some(branch) = &found.verified.branch {
            sync_ref(&found.common, branch)?;
        }
        File::open(path)?.sync_all()?;
        marker.write(admin, worktree)
    }

    /// Gives a registered worktree of ours whose directory is gone a directory again, from its own index.
    fn fill_again(
        &self,
        cancel: &Cancel,
        common: &Path,
        admin: &Path,
        path: &Path,
    ) -> Result<(), VcsWorktreeError> {
        let moved = read_link(&admin.join("gitdir"), "", admin)
            .map_err(|error| failed("create", admin, error))?
            .filter(|link| *link != path.join(".git") && link.exists());
        if let Some(link) = moved {
            let to = link.parent().unwrap_or(&link).display();
            let detail = format!("it was moved to {to}; `git worktree move` brings it back");
            return Err(mismatch(path, detail));
        }
        // Its own directory is not there to ask in.
        let config = self.config(cancel, admin, common)?;
        let runs = config.drivers().next().is_some() && {
            let head = self.head(cancel, admin, common, common)?.head;
            self.filters(cancel, &config, Site { path: common, admin, common, oid: &head })?
        };
        if runs {
            let detail = "its directory is gone, and its files go through a filter: remove it, which saves what is left \
                          of it, and make it again (restore)";
            return Err(mismatch(path, detail));
        }
        // Under another name: half of its files would look as if the rest had been deleted.
        let filling = filling_of(path);
        let at = |error| failed("create", &filling, error);
        let mut link = b"gitdir: ".to_vec();
        link.extend_from_slice(admin.as_os_str().as_encoded_bytes());
        link.push(b'\n');
        match read_link(&filling.join(".git"), "gitdir: ", &filling).map_err(at)? {
            Some(ours) if ours == *admin => tree::delete_all(&filling).map_err(at)?,
            Some(_) => return Err(mismatch(&filling, "it is in the way")),
            None => {}
        }
        let begun = || {
            if let Some(folder) = path.parent() {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            }
            // One that is there already is empty: a crash came before its link.
            drop(fs::remove_dir(&filling));
            fs::create_dir(&filling)?;
            marker::write_durably(&filling.join(".git"), &link)
        };
        begun().map_err(at)?;
        let fill = self.git.on_worktree(admin, &filling, "checkout-index").arg("--all");
        // What came back is no younger than the rest of it: it is synced at once.
        let filled = fill.output(cancel).and_then(|_| {
            settle::settle_now(admin, &filling).map_err(at)?;
            renameat_with(CWD, &filling, CWD, path, RenameFlags::NOREPLACE)
                .map_err(io::Error::from)
                .and_then(|()| sync_parent(path))
                .map_err(|error| failed("create", path, error))
        });
        if filled.is_err() {
            // What stays is taken away by the next one.
            drop(tree::delete_all(&filling));
        }
        filled
    }

    /// Removes the folder of a repository's worktrees if it is empty.
    pub(super) fn leave_folder(&self, path: &Path) {
        if let Some(folder) = path.parent().filter(|folder| *folder != self.root) {
            // Not empty, or gone: both are fine.
            drop(fs::remove_dir(folder));
        }
    }
}

/// Where the files of a worktree are written whose directory is gone; the survey leaves names with this end alone.
fn filling_of(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".filling.new");
    path.with_file_name(name)
}

/// Makes the name of a loose ref, which git has synced, survive a power cut; one that is packed already does.
fn sync_ref(common: &Path, branch: &str) -> io::Result<()> {
    let heads = common.join(HEADS);
    let mut at = heads.join(branch);
    if !at.is_file() {
        return Ok(());
    }
    while at.pop() && at.starts_with(&heads) {
        File::open(&at)?.sync_all()?;
    }
    Ok(())
}

fn remove_note(note: &Path) -> Result<(), VcsWorktreeError> {
    marker::remove_durably(note).map_err(|error| failed("create", note, error))
}
