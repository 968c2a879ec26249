//! Takes back what a creation that did not come to its end left, in the same process or after a crash.

use std::fs;
use std::io;
use std::path::Path;

use windlass_core::id::AttemptId;
use windlass_core::vcs_worktree::VcsWorktreeError;
use windlass_core::workspace::Worktree;

use super::own::is_named_for;
use super::{Making, remove_note, step};
use crate::group::Cancel;
use crate::repository_lock;
use crate::vcs_worktree::marker::{Intent, Marker, Read};
use crate::vcs_worktree::moved::ends_alike;
use crate::vcs_worktree::refs::HEADS;
use crate::vcs_worktree::underway::note_of;
use crate::vcs_worktree::verify::{read_link, registrations};
use crate::vcs_worktree::{Inner, failed, path_of, tree};

impl Inner {
    /// Undoes what failed; the error that it failed with is the one to act on. If this fails too, the note stays, and the
    /// next try goes on from there.
    pub(super) fn take_back(&self, cancel: &Cancel, making: &Making<'_>, lock: Lock) {
        let Making { common, path, intent, .. } = *making;
        if self.undo(cancel, common, path, intent, lock).is_ok() {
            drop(remove_note(&note_of(path)));
            self.leave_empty(common, path, lock);
        }
    }

    /// Removes the folder of the worktrees of a repository if it is empty. Another creation may be about to put its note
    /// into it, so without the lock it stays.
    fn leave_empty(&self, common: &Path, path: &Path, lock: Lock) {
        let held = match lock {
            Lock::Held => None,
            Lock::Maybe => match repository_lock::try_take(common) {
                Ok(Some(held)) => Some(held),
                Ok(None) | Err(_) => return,
            },
        };
        self.leave_folder(path);
        drop(held);
    }

    /// Undoes a creation that did not come to its end, if there is one; says so. The caller holds the repository's lock.
    ///
    /// # Errors
    ///
    /// [`VcsWorktreeError::Busy`] if somebody is still at it.
    pub(in crate::vcs_worktree) fn abandon(
        &self,
        cancel: &Cancel,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<bool, VcsWorktreeError> {
        let path = self.inside(worktree)?;
        let note = note_of(&path);
        let Some(half) = self.half_made(attempt, worktree, &path, &note)? else {
            return Ok(false);
        };
        match self.verify(cancel, attempt, worktree) {
            // It was whole but for its note.
            Ok(found) => {
                step::forget(&found.admin);
                remove_note(&note)?;
                return Ok(false);
            }
            Err(VcsWorktreeError::Gone { .. } | VcsWorktreeError::Mismatch { .. }) => {}
            Err(error) => return Err(error),
        }
        self.undo(cancel, &path_of(&worktree.repo), &path, &half, Lock::Held)?;
        remove_note(&note)?;
        self.leave_folder(&path);
        Ok(true)
    }

    /// Removes what a creation that did not end left: what it made of the directory, the registration, and the branch if
    /// nothing was added to it.
    pub(super) fn undo(
        &self,
        cancel: &Cancel,
        common: &Path,
        path: &Path,
        intent: &Intent,
        lock: Lock,
    ) -> Result<(), VcsWorktreeError> {
        if matches!(Intent::read(&note_of(path)), Ok(Read::Missing)) {
            return Ok(());
        }
        self.clear(&cancel.regardless(), common, path, intent)?;
        for admin in registrations(common)? {
            if self.is_half(&admin, path, intent) {
                tree::delete_all(&admin).map_err(|error| failed("undo", &admin, error))?;
            }
        }
        leave_registrations(common, lock);
        if intent.new_branch {
            if lock == Lock::Held {
                unlock_branch(common, &intent.branch)?;
            }
            self.undo_branch(&cancel.regardless(), common, intent)?;
        }
        Ok(())
    }

    pub(super) fn is_half(&self, admin: &Path, path: &Path, intent: &Intent) -> bool {
        let ours = match Marker::read(admin) {
            Ok(Read::Says(marker)) => marker == intent.marker,
            Ok(Read::Missing) => true,
            Ok(Read::Unclear(_)) | Err(_) => false,
        };
        let named = match read_link(&admin.join("gitdir"), "", admin) {
            Ok(Some(link)) => {
                // Where its data directory was moved meanwhile, it names the old place.
                let left = link.parent().filter(|place| self.is_left(place));
                link == path.join(".git") || left.is_some_and(|place| ends_alike(place, path))
            }
            // Git had not come to write it; only our unique name is in the folder's.
            Ok(None) => is_named_for(admin, path),
            Err(_) => false,
        };
        ours && named
    }

    fn undo_branch(
        &self,
        never: &Cancel,
        common: &Path,
        intent: &Intent,
    ) -> Result<(), VcsWorktreeError> {
        let found = self.branch_oid(never, common, &intent.branch)?;
        let name = format!("{HEADS}{}", intent.branch);
        if found.is_none_or(|oid| oid.0 != intent.oid) || checked_out(common, &name)? {
            return Ok(());
        }
        let delete = self.git.on_repository(common, "update-ref").set("core.fsync=all");
        delete.args(["-d", &name, &intent.oid]).output(never).map(drop)
    }
}

/// Removes git's lock of a branch that was being made: its git works under the repository's lock, which is ours now, so it
/// is dead.
fn unlock_branch(common: &Path, branch: &str) -> Result<(), VcsWorktreeError> {
    let lock = common.join(format!("{HEADS}{branch}.lock"));
    match fs::remove_file(&lock) {
        Ok(()) => Ok(()),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(())
        }
        Err(error) => Err(failed("undo", &lock, error)),
    }
}

/// Who holds the repository's lock while something is undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lock {
    /// The caller.
    Held,
    /// The caller, or nobody, or another.
    Maybe,
}

/// As git, leaves no empty folder of registrations; one that is not empty stays.
///
/// Another creation may be about to put its own into it, so without the lock it stays too.
fn leave_registrations(common: &Path, lock: Lock) {
    let held = match lock {
        Lock::Held => None,
        Lock::Maybe => match repository_lock::try_take(common) {
            Ok(Some(held)) => Some(held),
            Ok(None) | Err(_) => return,
        },
    };
    drop(fs::remove_dir(common.join("worktrees")));
    drop(held);
}

/// Some checkout of the repository has this branch.
fn checked_out(common: &Path, name: &str) -> Result<bool, VcsWorktreeError> {
    let head = format!("ref: {name}\n");
    let has = |admin: &Path| fs::read(admin.join("HEAD")).is_ok_and(|read| read == head.as_bytes());
    Ok(has(common) || registrations(common)?.iter().any(|admin| has(admin)))
}
