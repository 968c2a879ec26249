//! Removes a worktree that holds nothing unsaved, so that a crash at any point can be told and gone on from.
//!
//! Under the repository's lock: check; rename aside, so that later writes by path fail; list; check again; note that
//! deleting begins; delete what was listed and is unchanged; unregister. The branch stays.

use std::fs;
use std::path::{Path, PathBuf};

use windlass_core::id::AttemptId;
use windlass_core::vcs_worktree::{VcsWorktreeError, Verified};
use windlass_core::workspace::Worktree;

use super::marker::{sync_parent, write_durably};
use super::occupants::occupants;
use super::tree::{self, Listing};
use super::unsaved::Stage;
use super::verify::{Found, gone, read_link};
use super::{Inner, failed, locator, mismatch, path_of};
use crate::group::Cancel;

/// In the private git directory: everything was saved when we looked, and deleting has begun.
const DELETING: &str = "windlass-deleting";

impl Inner {
    /// Removes the worktree. The caller holds the repository's lock.
    pub(super) fn remove(
        &self,
        cancel: &Cancel,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<(), VcsWorktreeError> {
        let path = self.inside(worktree)?;
        let common = path_of(&worktree.repo);
        let aside = aside_of(&path, attempt);
        let discarded = common.join(format!("windlass-removed-{attempt}"));
        let there = path.symlink_metadata().is_ok();
        let renamed = aside.symlink_metadata().is_ok();
        match (there, renamed) {
            (true, true) => {
                let detail = format!("its removal had begun: see {}", aside.display());
                return Err(mismatch(&path, detail));
            }
            (true, false) => {
                let found = self.verify(cancel, attempt, worktree)?;
                // What it writes later would be lost, and it cannot know.
                let occupants = occupants(&path);
                if !occupants.is_empty() {
                    let (path, detail) = (worktree.path.clone(), occupants.join(", "));
                    return Err(VcsWorktreeError::Occupied { path, detail });
                }
                let listing = list(&path)?;
                let stage = Stage::Whole;
                let unsaved = self.unsaved(cancel, &found, &listing, &worktree.branch, stage)?;
                refuse(&path, &unsaved)?;
                rename(&path, &aside)?;
            }
            (false, _) => {}
        }
        match self.registered(&common, attempt)? {
            Some(admin) => {
                let found = self.found_aside(cancel, &admin, &common, &aside)?;
                if there || renamed {
                    self.finish(cancel, &found, &path, &discarded, worktree)?;
                } else {
                    self.forget(cancel, &found, &path, &discarded, worktree)?;
                }
            }
            None if renamed => {
                return refuse(&aside, &["it was written to during its removal".to_owned()]);
            }
            None => {}
        }
        tree::delete_all(&discarded).map_err(|error| failed("remove", &discarded, error))?;
        self.leave_folder(&path);
        Ok(())
    }

    /// Without its repository nothing can be told of a worktree; only one that is gone is removed.
    pub(super) fn remove_without_repository(
        &self,
        worktree: &Worktree,
    ) -> Result<(), VcsWorktreeError> {
        let path = self.inside(worktree)?;
        match path.symlink_metadata() {
            Ok(_) => Err(mismatch(&path, format!("its repository {} is gone", worktree.repo))),
            Err(_) => Ok(()),
        }
    }

    fn found_aside(
        &self,
        cancel: &Cancel,
        admin: &Path,
        common: &Path,
        aside: &Path,
    ) -> Result<Found, VcsWorktreeError> {
        // Git wants a directory to stand in.
        let stand = if aside.is_dir() { aside } else { admin };
        let verified: Verified = self.head(cancel, admin, common, stand)?;
        let (admin, common) = (admin.to_owned(), common.to_owned());
        Ok(Found { path: aside.to_owned(), admin, common, verified })
    }

    /// Goes on with a worktree that is aside.
    fn finish(
        &self,
        cancel: &Cancel,
        found: &Found,
        path: &Path,
        discarded: &Path,
        worktree: &Worktree,
    ) -> Result<(), VcsWorktreeError> {
        let aside = &found.path;
        let begun = found.admin.join(DELETING);
        let stage = if begun.exists() { Stage::Deleting } else { Stage::Whole };
        let listing = list(aside)?;
        let unsaved = self.unsaved(cancel, found, &listing, &worktree.branch, stage);
        let refused = unsaved.and_then(|unsaved| match stage {
            Stage::Whole => refuse(path, &unsaved),
            Stage::Deleting => refuse(aside, &unsaved),
        });
        if let Err(error) = refused {
            if stage == Stage::Whole {
                rename(aside, path)?;
            }
            return Err(error);
        }
        write_durably(&begun, b"").map_err(|error| failed("remove", &begun, error))?;
        let stayed =
            tree::delete(aside, &listing).map_err(|error| failed("remove", aside, error))?;
        discard(&found.admin, discarded)?;
        let written: Vec<_> = stayed
            .iter()
            .map(|path| format!("{} was written during the removal", path.display()))
            .collect();
        refuse(aside, &written)
    }

    /// Unregisters a worktree whose directory somebody else removed.
    fn forget(
        &self,
        cancel: &Cancel,
        found: &Found,
        path: &Path,
        discarded: &Path,
        worktree: &Worktree,
    ) -> Result<(), VcsWorktreeError> {
        let link = read_link(&found.admin.join("gitdir"), "", &found.admin)
            .map_err(|error| failed("remove", &found.admin, error))?;
        if let Some(link) = link.filter(|link| link.symlink_metadata().is_ok()) {
            return Err(mismatch(path, format!("it was moved to {}", link.display())));
        }
        if found.admin.join(DELETING).exists() {
            return discard(&found.admin, discarded);
        }
        let mut unsaved = self.unfinished(cancel, found, &worktree.branch)?;
        let staged = self.git.on_repository(&found.admin, "diff-index");
        let staged = staged.args(["--cached", "--quiet", "--ignore-submodules=none", "HEAD"]);
        if staged.answer(cancel)?.is_none() {
            unsaved.push("its directory is gone, its index holds staged changes".to_owned());
        }
        refuse(path, &unsaved)?;
        discard(&found.admin, discarded)
    }
}

/// Takes a registration out of the repository in one step, then deletes it.
fn discard(admin: &Path, discarded: &Path) -> Result<(), VcsWorktreeError> {
    let done = || {
        fs::rename(admin, discarded)?;
        sync_parent(admin)?;
        sync_parent(discarded)?;
        // As git does; a folder that is not empty stays.
        if let Some(folder) = admin.parent() {
            drop(fs::remove_dir(folder));
        }
        tree::delete_all(discarded)
    };
    done().map_err(|error| failed("remove", admin, error))
}

fn list(path: &Path) -> Result<Listing, VcsWorktreeError> {
    let listed = tree::list(path).map_err(|error| failed("remove", path, error))?;
    listed.ok_or_else(|| gone(path))
}

fn rename(from: &Path, to: &Path) -> Result<(), VcsWorktreeError> {
    let renamed = rustix::fs::renameat_with(
        rustix::fs::CWD,
        from,
        rustix::fs::CWD,
        to,
        rustix::fs::RenameFlags::NOREPLACE,
    );
    let synced = renamed.map_err(Into::into).and_then(|()| sync_parent(to));
    synced.map_err(|error| failed("remove", from, error))
}

fn refuse(path: &Path, unsaved: &[String]) -> Result<(), VcsWorktreeError> {
    if unsaved.is_empty() {
        return Ok(());
    }
    Err(VcsWorktreeError::Unsaved { path: locator(path), detail: unsaved.join("; ") })
}

/// Where a worktree goes before it is deleted: beside its place, on the same file system.
fn aside_of(path: &Path, attempt: AttemptId) -> PathBuf {
    path.with_file_name(format!(".removing-{attempt}"))
}
