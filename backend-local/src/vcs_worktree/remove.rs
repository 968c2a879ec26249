//! Removes a worktree that was saved from aside, so that a crash at any point can be told and gone on from.
//!
//! Under the repository's lock: check that it is as it was saved; note that its deletion begins, by renaming its record;
//! unregister; delete the branch if that is asked for; hand the directory to the [trash](super::trash). Until the note
//! whatever does not hold puts it back. The branch stays unless it is to go.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use windlass_core::id::AttemptId;
use windlass_core::snapshot::Snapshot;
use windlass_core::vcs_worktree::{BranchFate, VcsWorktreeError};
use windlass_core::workspace::{Oid, Worktree};

use super::aside::{Places, Whereabouts, exists, rename};
use super::git::without_newline;
use super::marker::sync_parent;
use super::record::Record;
use super::refs::HEADS;
use super::save::{self, refuse_moved, refuse_occupied};
use super::settle;
use super::tree::{self, Listing, Stamp, Unread};
use super::{Inner, failed, locator, mismatch, path_of};
use crate::group::Cancel;

impl Inner {
    /// Removes the worktree. The caller holds the repository's lock.
    pub(super) fn remove(
        &self,
        cancel: &Cancel,
        attempt: AttemptId,
        worktree: &Worktree,
        fate: BranchFate,
    ) -> Result<(), VcsWorktreeError> {
        let places = self.places(attempt, worktree)?;
        let record = match self.whereabouts(attempt, &places)? {
            Whereabouts::Deleting(record) => {
                self.check_still_saved(&places, &record)?;
                record
            }
            Whereabouts::Saved(record) => {
                refuse_another(&places, &record)?;
                if let Err(error) = self.check_saved(cancel, &places, &record, fate) {
                    // The first error is the one to act on. If this fails too, the next to look puts it back.
                    drop(self.put_back(attempt, worktree, &places));
                    return Err(error);
                }
                rename(&places.saved, &places.deleting)?;
                record
            }
            Whereabouts::Aside => {
                self.put_back(attempt, worktree, &places)?;
                return Err(unsaved(&places.path, "it was not saved"));
            }
            Whereabouts::Home => return self.remove_unsaved(cancel, attempt, worktree, fate),
        };
        self.unregister(attempt, worktree, Some((&record, &places)))?;
        // The worktree goes all the same; a branch that may not go is said at the end.
        let branch = match fate {
            BranchFate::Stays => Ok(()),
            BranchFate::Goes => self.delete_branch(cancel, worktree, Some(&record), None),
        };
        self.hand_over(&places)?;
        branch
    }

    /// Goes on where the deletion had begun before the repository went. Without its repository nothing else can be told
    /// of a worktree: only one that is gone is removed.
    pub(super) fn remove_without_repository(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<(), VcsWorktreeError> {
        let places = self.places(attempt, worktree)?;
        if let Whereabouts::Deleting(record) = self.whereabouts(attempt, &places)? {
            self.check_still_saved(&places, &record)?;
            return self.hand_over(&places);
        }
        for path in [&places.path, &places.aside] {
            if exists(path)? {
                return Err(mismatch(path, without_repository(worktree)));
            }
        }
        Ok(())
    }

    /// What can be done about a worktree that was not saved: nothing, unless it is gone.
    fn remove_unsaved(
        &self,
        cancel: &Cancel,
        attempt: AttemptId,
        worktree: &Worktree,
        fate: BranchFate,
    ) -> Result<(), VcsWorktreeError> {
        let path = self.inside(worktree)?;
        // One that was never whole holds nothing of anybody.
        let is_undone = self.abandon(cancel, attempt, worktree)?;
        match self.verify(cancel, attempt, worktree) {
            Ok(_) => return Err(unsaved(&path, "it was not saved")),
            Err(VcsWorktreeError::Gone { .. }) => {}
            // What is left there is not of its creation.
            Err(VcsWorktreeError::Mismatch { .. }) if is_undone => {}
            Err(error) => return Err(error),
        }
        if self.registered(&path_of(&worktree.repo), attempt)?.is_some() {
            let detail = "its directory is gone, and its private git directory was not saved";
            return Err(unsaved(&path, detail));
        }
        self.unregister(attempt, worktree, None)?;
        self.leave_folder(&path);
        match fate {
            BranchFate::Stays => Ok(()),
            BranchFate::Goes => self.delete_branch(cancel, worktree, None, None),
        }
    }

    /// Checks that everything still is as it was saved. Listed files are compared one by one when they are deleted.
    fn check_saved(
        &self,
        cancel: &Cancel,
        places: &Places,
        record: &Record,
        fate: BranchFate,
    ) -> Result<(), VcsWorktreeError> {
        refuse_occupied(places, &places.aside)?;
        let other_boot = record.is_of_another_boot();
        let admin = self.registered(&path_of(&record.worktree.repo), record.attempt)?;
        if let Some(admin) = &admin {
            refuse_moved(admin, places)?;
            let found = save::list(admin)?;
            if record.admin().is_none_or(|listed| !found.is_as(&listed, other_boot)) {
                let detail = "its private git directory changed since it was saved";
                return Err(unsaved(&places.path, detail));
            }
        }
        if let Some(snapshot) = &record.snapshot {
            self.check_archive(record.attempt, snapshot)?;
        }
        match fate {
            BranchFate::Stays => Ok(()),
            BranchFate::Goes => {
                self.deletable(cancel, &record.worktree, Some(record), Some(places)).map(drop)
            }
        }
    }

    /// Checks, where a deletion has begun and stopped, that the snapshot of what is to be deleted is still there.
    fn check_still_saved(&self, places: &Places, record: &Record) -> Result<(), VcsWorktreeError> {
        let Some(snapshot) = record.snapshot.as_ref() else { return Ok(()) };
        if !exists(&places.aside)? {
            return Ok(());
        }
        self.check_archive(record.attempt, snapshot).map_err(|error| {
            let aside = places.aside.display();
            let detail = format!("{error}, and {aside} is all that is left: move that away first");
            unsaved(&places.path, detail)
        })
    }

    /// A look at the archive; its content was verified when it was written.
    fn check_archive(
        &self,
        attempt: AttemptId,
        snapshot: &Snapshot,
    ) -> Result<(), VcsWorktreeError> {
        let archive = self.archive_of(attempt, snapshot.number);
        match archive.symlink_metadata() {
            Ok(meta) if meta.is_file() && meta.len() == snapshot.archive_bytes => Ok(()),
            Ok(_) => Err(VcsWorktreeError::DamagedSnapshot {
                number: snapshot.number,
                detail: "its archive is not as long as it was".to_owned(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(VcsWorktreeError::NoSnapshot { number: snapshot.number })
            }
            Err(error) => Err(failed("remove", &archive, error)),
        }
    }

    /// Takes the registration out of the repository in one step, then deletes what of it is as it was saved.
    fn unregister(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        saved: Option<(&Record, &Places)>,
    ) -> Result<(), VcsWorktreeError> {
        let common = path_of(&worktree.repo);
        let discarded = common.join(format!("windlass-removed-{attempt}"));
        // What a crash left of another one would be in the way.
        self.discard(&discarded, saved)?;
        if let Some(admin) = self.registered(&common, attempt)? {
            let done = || {
                fs::rename(&admin, &discarded)?;
                sync_parent(&admin)?;
                sync_parent(&discarded)?;
                // As git does; a folder that is not empty stays.
                if let Some(folder) = admin.parent() {
                    drop(fs::remove_dir(folder));
                }
                Ok(())
            };
            done().map_err(|error| failed("remove", &admin, error))?;
        }
        self.discard(&discarded, saved)
    }

    /// Deletes what is left of a registration as far as it is as it was saved. The rest was staged or committed after
    /// that, by somebody who still had the way in: it is kept in the trash, and reported.
    fn discard(
        &self,
        discarded: &Path,
        saved: Option<(&Record, &Places)>,
    ) -> Result<(), VcsWorktreeError> {
        let delete = || -> io::Result<()> {
            if Stamp::at(discarded)?.is_none() {
                return Ok(());
            }
            for entry in fs::read_dir(discarded)? {
                let entry = entry?;
                if settle::is_note(&entry.file_name()) {
                    fs::remove_file(entry.path())?;
                }
            }
            let (record, places) = saved.unzip();
            let listing = record.and_then(Record::admin).unwrap_or_else(Listing::of_nothing);
            let other_boot = record.is_some_and(Record::is_of_another_boot);
            let whole = &mut || ControlFlow::Continue(());
            let deleted = tree::delete(discarded, &listing, other_boot, Unread::Stay, whole)?;
            if deleted.is_whole() {
                return Ok(());
            }
            self.trash.keep(discarded, places.map(|places| places.deleting.as_path()), deleted)
        };
        delete().map_err(|error| failed("remove", discarded, error))
    }

    /// Gives the directory to the trash, and leaves nothing in its place.
    fn hand_over(&self, places: &Places) -> Result<(), VcsWorktreeError> {
        self.trash
            .take(&places.aside, &places.deleting)
            .map_err(|error| failed("remove", &places.aside, error))?;
        self.leave_folder(&places.path);
        Ok(())
    }

    /// Deletes the worktree's own branch, if nothing is lost with it.
    fn delete_branch(
        &self,
        cancel: &Cancel,
        worktree: &Worktree,
        record: Option<&Record>,
        places: Option<&Places>,
    ) -> Result<(), VcsWorktreeError> {
        let Some(oid) = self.deletable(cancel, worktree, record, places)? else { return Ok(()) };
        let delete = self.git.on_repository(&path_of(&worktree.repo), "update-ref");
        let delete = delete.set("core.fsync=all").set("core.fsyncMethod=fsync");
        let branch = record.map_or(worktree.branch.as_str(), Record::own_name);
        let name = format!("{HEADS}{branch}");
        delete.args(["-d", &name, &oid.0]).output(cancel).map(drop)
    }

    /// Finds where the worktree's own branch is, and that it may go; `None` if it is gone.
    ///
    /// `places` are given while the worktree itself still has it checked out.
    fn deletable(
        &self,
        cancel: &Cancel,
        worktree: &Worktree,
        record: Option<&Record>,
        places: Option<&Places>,
    ) -> Result<Option<Oid>, VcsWorktreeError> {
        let common = path_of(&worktree.repo);
        let branch = record.map_or(worktree.branch.as_str(), Record::own_name);
        let Some(oid) = self.branch_oid(cancel, &common, branch)? else { return Ok(None) };
        let refused =
            |why: &str| unsaved(&path_of(&worktree.path), format!("branch {branch} {why}"));
        if record.is_some_and(|record| record.own_branch.as_ref() != Some(&oid)) {
            return Err(refused("has moved since it was saved"));
        }
        let name = format!("{HEADS}{branch}");
        let asked = self.git.on_repository(&common, "for-each-ref").arg("--format=%(worktreepath)");
        let at = asked.arg(&name).output(cancel)?;
        let at = Path::new(OsStr::from_bytes(without_newline(&at)));
        let own = places.is_some_and(|places| at == places.aside || at == places.path);
        if !own && !at.as_os_str().is_empty() {
            return Err(refused(&format!("is checked out in {}", at.display())));
        }
        let saved = record.is_some_and(|record| {
            let commits = record.snapshot.as_ref().is_some_and(|snapshot| snapshot.commits > 0);
            record.fate == BranchFate::Goes && commits
        });
        if !saved && self.holds_commits(cancel, &common, branch, &oid)? {
            return Err(refused("has commits that no other branch reaches"));
        }
        Ok(Some(oid))
    }

    /// Says whether a branch has commits that no other branch, tag or remote branch reaches.
    fn holds_commits(
        &self,
        cancel: &Cancel,
        common: &Path,
        branch: &str,
        oid: &Oid,
    ) -> Result<bool, VcsWorktreeError> {
        let list = self.git.on_repository(common, "rev-list").env("GIT_NO_LAZY_FETCH", "1");
        let list = list.args(["--max-count=1", &oid.0, "--not", &format!("--exclude={branch}")]);
        Ok(!list.args(["--branches", "--tags", "--remotes"]).output(cancel)?.is_empty())
    }
}

/// Refuses if what is aside is not the directory that was saved. It is not ours to put anywhere, then.
fn refuse_another(places: &Places, record: &Record) -> Result<(), VcsWorktreeError> {
    let Some(top) = record.top().filter(|_| places.aside.symlink_metadata().is_ok()) else {
        return Ok(());
    };
    let same = top.is_of(&places.aside, record.is_of_another_boot());
    if same.map_err(|error| failed("remove", &places.aside, error))? {
        return Ok(());
    }
    let detail = format!("{} is another directory than was saved", places.aside.display());
    Err(mismatch(&places.path, detail))
}

/// Says what to do about a worktree whose repository is gone.
pub(super) fn without_repository(worktree: &Worktree) -> String {
    format!(
        "its repository {} is gone, and with it what the files were compared with: bring it back, or move away by hand what is to be kept",
        worktree.repo
    )
}

fn unsaved(path: &Path, detail: impl Into<String>) -> VcsWorktreeError {
    VcsWorktreeError::Unsaved { path: locator(path), detail: detail.into() }
}
