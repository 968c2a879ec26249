//! Makes a worktree so that a crash at any point can be told and undone.
//!
//! Under the repository's lock: a note is written beside the future worktree, git makes branch, registration and
//! directory, the marker is written, the note is removed. A note that is found says that whatever stands there is a
//! half-made worktree of ours, whose branch did not exist before.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use windlass_core::id::AttemptId;
use windlass_core::vcs_worktree::{VcsWorktreeError, Verified};
use windlass_core::workspace::Worktree;

use super::git::failure;
use super::marker::{self, Intent, Marker, Read, sync_parent};
use super::refs::HEADS;
use super::verify::{read_link, registrations};
use super::{Inner, failed, mismatch, path_of, tree};
use crate::group::Cancel;

impl Inner {
    /// Makes the worktree, or verifies the one that is there. The caller holds the repository's lock.
    pub(super) fn create(
        &self,
        cancel: &Cancel,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<Verified, VcsWorktreeError> {
        let path = self.inside(worktree)?;
        let common = path_of(&worktree.repo);
        let note = note_of(&path);
        let intent = Intent {
            marker: self.marker(attempt),
            branch: worktree.branch.clone(),
            oid: worktree.base_oid.0.clone(),
        };
        let half = self.half_made(&path, &note, &intent)?;
        match self.verify(cancel, attempt, worktree) {
            Ok(found) => {
                remove_note(&note)?;
                return Ok(found.verified);
            }
            Err(VcsWorktreeError::Gone { .. } | VcsWorktreeError::Mismatch { .. }) if half => {
                self.undo(cancel, &common, &path, &intent)?;
            }
            Err(VcsWorktreeError::Gone { .. }) => {
                if let Some(admin) = self.registered(&common, attempt)? {
                    self.fill_again(cancel, &admin, &path)?;
                    return self.verify(cancel, attempt, worktree).map(|found| found.verified);
                }
            }
            Err(error) => return Err(error),
        }
        if self.branch_oid(cancel, &common, &worktree.branch)?.is_some() {
            remove_note(&note)?;
            return Err(VcsWorktreeError::BranchExists { branch: worktree.branch.clone() });
        }
        let made = self.make(cancel, &common, &path, &note, &intent);
        match made.and_then(|()| self.verify(cancel, attempt, worktree)) {
            Ok(found) => {
                remove_note(&note)?;
                Ok(found.verified)
            }
            Err(error) => {
                // The first error is the one to act on. If this fails too, the note stays and the next try goes on.
                if self.undo(cancel, &common, &path, &intent).is_ok() {
                    drop(remove_note(&note));
                    self.leave_folder(&path);
                }
                Err(error)
            }
        }
    }

    /// Says whether a half-made worktree of ours may stand at `path`.
    fn half_made(
        &self,
        path: &Path,
        note: &Path,
        intent: &Intent,
    ) -> Result<bool, VcsWorktreeError> {
        match Intent::read(note).map_err(|error| failed("create", note, error))? {
            Read::Missing => Ok(false),
            Read::Says(found) if found == *intent => Ok(true),
            Read::Says(_) => Err(mismatch(path, "another worktree is being made there")),
            Read::Unclear(why) => Err(mismatch(path, why)),
        }
    }

    fn make(
        &self,
        cancel: &Cancel,
        common: &Path,
        path: &Path,
        note: &Path,
        intent: &Intent,
    ) -> Result<(), VcsWorktreeError> {
        let folder = path.parent().unwrap_or(&self.root);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .and_then(|()| sync_parent(folder))
            .and_then(|()| intent.write(note))
            .map_err(|error| failed("create", note, error))?;
        self.add(cancel, common, path, intent)?;
        seal(path, &intent.marker).map_err(|error| failed("create", path, error))
    }

    fn add(
        &self,
        cancel: &Cancel,
        common: &Path,
        path: &Path,
        intent: &Intent,
    ) -> Result<(), VcsWorktreeError> {
        let add = self.git.on_repository(common, "worktree add");
        let add = add
            .set("core.fsync=all")
            .set("core.fsyncMethod=fsync")
            // One worker for each processor; git itself uses one unless told.
            .set("checkout.workers=0")
            // Relative links would change the repository's format.
            .set("worktree.useRelativePaths=false")
            .args(["--quiet", "--no-track", "-b", &intent.branch])
            .arg(path)
            .arg(&intent.oid);
        let ended = add.run(cancel)?;
        if ended.status.success() {
            return Ok(());
        }
        let error = failure("worktree add", &ended);
        match &error {
            VcsWorktreeError::Git { stderr, .. } if stderr.contains("unable to write") => {
                let full = self.lacks_room(cancel, common, path, &intent.oid)?;
                Err(if full { VcsWorktreeError::Full } else { error })
            }
            VcsWorktreeError::Git { stderr, .. } if stderr.contains("already exists") => {
                // Somebody who does not use the lock was quicker: the branch is his, and must survive our undoing.
                let branch = intent.branch.clone();
                let taken = self.branch_oid(cancel, common, &branch)?.is_some();
                let nothing_made = path.symlink_metadata().is_err();
                if taken && nothing_made {
                    remove_note(&note_of(path))?;
                    return Err(VcsWorktreeError::BranchExists { branch });
                }
                Err(error)
            }
            _ => Err(error),
        }
    }

    /// Says whether the files of a commit do not fit. Git says that it could not write one, but not why, and has
    /// given the room back by then.
    fn lacks_room(
        &self,
        cancel: &Cancel,
        common: &Path,
        path: &Path,
        oid: &str,
    ) -> Result<bool, VcsWorktreeError> {
        let existing = path.ancestors().find(|path| path.exists()).unwrap_or(&self.root);
        let room = rustix::fs::statvfs(existing)
            .map_err(|error| failed("create", existing, error.into()))?;
        let listed = self.git.on_repository(common, "ls-tree");
        let listed = listed.args(["-r", "-z", "--format=%(objectsize)", oid]).output(cancel)?;
        let mut blocks = 0;
        let mut files = 0;
        for size in listed.split(|byte| *byte == 0) {
            let size = std::str::from_utf8(size).ok().and_then(|size| size.trim().parse().ok());
            blocks += size.unwrap_or(0_u64).div_ceil(room.f_frsize.max(1));
            files += 1;
        }
        Ok(room.f_bavail < blocks || (room.f_files > 0 && room.f_favail < files))
    }

    /// Removes what a creation that did not end left: registration, directory and the branch if nothing was added to it.
    fn undo(
        &self,
        cancel: &Cancel,
        common: &Path,
        path: &Path,
        intent: &Intent,
    ) -> Result<(), VcsWorktreeError> {
        if matches!(Intent::read(&note_of(path)), Ok(Read::Missing)) {
            return Ok(());
        }
        for admin in registrations(common)? {
            if self.is_half(&admin, path, intent) {
                tree::delete_all(&admin).map_err(|error| failed("undo", &admin, error))?;
            }
        }
        // Git, too, leaves no empty folder; one that is not empty stays.
        drop(fs::remove_dir(common.join("worktrees")));
        tree::delete_all(path).map_err(|error| failed("undo", path, error))?;
        self.undo_branch(&cancel.regardless(), common, intent)
    }

    fn is_half(&self, admin: &Path, path: &Path, intent: &Intent) -> bool {
        let ours = match Marker::read(admin) {
            Ok(Read::Says(marker)) => marker == intent.marker,
            Ok(Read::Missing) => true,
            Ok(Read::Unclear(_)) | Err(_) => false,
        };
        let named = match read_link(&admin.join("gitdir"), "", admin) {
            Ok(Some(link)) => link == path.join(".git"),
            // Git had not come to write it; only our unique name is in the folder's.
            Ok(None) => match (admin.file_name(), path.file_name()) {
                (Some(admin), Some(path)) => {
                    admin.as_encoded_bytes().starts_with(path.as_encoded_bytes())
                }
                _ => false,
            },
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

    /// Gives a registered worktree of ours whose directory is gone a directory again, from its own index.
    fn fill_again(
        &self,
        cancel: &Cancel,
        admin: &Path,
        path: &Path,
    ) -> Result<(), VcsWorktreeError> {
        let moved = read_link(&admin.join("gitdir"), "", admin)
            .map_err(|error| failed("create", admin, error))?
            .filter(|link| *link != path.join(".git") && link.exists());
        if let Some(link) = moved {
            return Err(mismatch(path, format!("it was moved to {}", link.display())));
        }
        let mut link = b"gitdir: ".to_vec();
        link.extend_from_slice(admin.as_os_str().as_encoded_bytes());
        link.push(b'\n');
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o777)
            .create(path)
            .and_then(|()| marker::write_durably(&path.join(".git"), &link))
            .map_err(|error| failed("create", path, error))?;
        let fill = self.git.on_worktree(admin, path, "checkout-index");
        fill.args(["--all", "--force"]).output(cancel).map(drop)
    }

    /// Removes the folder of a repository's worktrees if it is empty.
    pub(super) fn leave_folder(&self, path: &Path) {
        if let Some(folder) = path.parent().filter(|folder| *folder != self.root) {
            // Not empty, or gone: both are fine.
            drop(fs::remove_dir(folder));
        }
    }
}

/// Makes what git wrote survive a power cut, then says whose it is.
fn seal(path: &Path, marker: &Marker) -> io::Result<()> {
    let link = path.join(".git");
    let admin = read_link(&link, "gitdir: ", path)?.ok_or(io::ErrorKind::NotFound)?;
    for file in [&link, &admin.join("gitdir"), &admin.join("commondir"), &admin.join("HEAD")] {
        File::open(file)?.sync_all()?;
    }
    for dir in [path, &admin] {
        sync_parent(dir)?;
    }
    marker.write(&admin)?;
    File::open(path)?.sync_all()
}

/// Some checkout of the repository has this branch.
fn checked_out(common: &Path, name: &str) -> Result<bool, VcsWorktreeError> {
    let head = format!("ref: {name}\n");
    let has = |admin: &Path| fs::read(admin.join("HEAD")).is_ok_and(|read| read == head.as_bytes());
    Ok(has(common) || registrations(common)?.iter().any(|admin| has(admin)))
}

/// Where the note of a worktree's creation lies: beside it.
fn note_of(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".creating");
    path.with_file_name(name)
}

fn remove_note(note: &Path) -> Result<(), VcsWorktreeError> {
    marker::remove_durably(note).map_err(|error| failed("create", note, error))
}
