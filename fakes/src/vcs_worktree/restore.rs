//! Making worktrees: from their base, and again from what they were.

use std::collections::BTreeSet;

use windlass_core::locator::Locator;
use windlass_core::vcs_worktree::{Removed, VcsWorktreeError};
use windlass_core::workspace::{CopyIn, Worktree};

use super::history::{Files, Head, Repository};
use super::{Checkout, Disk, Marker, Registration, compare};

impl Disk {
    /// Makes a worktree from its base on its new branch. One whose directory was deleted gets it back.
    pub(super) fn make(
        &mut self,
        marker: Marker,
        worktree: &Worktree,
    ) -> Result<(), VcsWorktreeError> {
        let is_registered = self.is_registered(worktree, &marker);
        let repository = self.repository_of(worktree)?;
        if !is_registered {
            repository.free(&worktree.branch)?;
            if !repository.commits.contains_key(&worktree.base_oid) {
                return Err(no_commit(&worktree.base_oid.0));
            }
            repository.branches.insert(worktree.branch.clone(), worktree.base_oid.clone());
            let head = Head::Branch(worktree.branch.clone());
            let been = BTreeSet::from([worktree.base_oid.clone()]);
            let mut registration = Registration::new(head, been);
            registration.ours = Some((marker, worktree.clone()));
            repository.checkouts.insert(worktree.path.clone(), registration);
        }
        let files = repository.checked_out(&worktree.path).unwrap_or_default();
        let mut checkout = Checkout::new(worktree.repo.clone(), files);
        self.copy_in(worktree, &mut checkout);
        self.checkouts.insert(worktree.path.clone(), checkout);
        Ok(())
    }

    /// Makes a worktree again as it was when it was removed.
    pub(super) fn restore(
        &mut self,
        marker: Marker,
        worktree: &Worktree,
        removed: &Removed,
    ) -> Result<(), VcsWorktreeError> {
        let archive = match removed.snapshot {
            None => None,
            Some(number) => {
                let key = (marker.0.clone(), marker.1, number);
                match self.snapshots.get(&key) {
                    None => return Err(VcsWorktreeError::NoSnapshot { number }),
                    Some(archive) if archive.damaged => {
                        let detail = "a checksum is wrong".to_owned();
                        return Err(VcsWorktreeError::DamagedSnapshot { number, detail });
                    }
                    Some(archive) => Some(archive.clone()),
                }
            }
        };
        let repository = self.repository_of(worktree)?;
        if !repository.commits.contains_key(&removed.head) {
            return Err(no_commit(&removed.head.0));
        }
        // What is registered of a directory that is gone makes room for what comes.
        repository.checkouts.remove(&worktree.path);
        let head = head_of(repository, removed);
        let mut been = BTreeSet::from([removed.head.clone()]);
        been.extend(archive.iter().flat_map(|archive| archive.been.iter().cloned()));
        let mut registration = Registration::new(head, been);
        if let Some(archive) = &archive {
            registration.staged.clone_from(&archive.staged);
            registration.merging.clone_from(&archive.merging);
        }
        registration.ours = Some((marker, worktree.clone()));
        repository.checkouts.insert(worktree.path.clone(), registration);
        let files = repository.checked_out(&worktree.path).unwrap_or_default();
        let mut checkout = Checkout::new(worktree.repo.clone(), files);
        if let Some(archive) = archive {
            checkout.files.retain(|path, _| !archive.deleted.contains(path));
            checkout.files.extend(archive.changed);
        }
        self.copy_in(worktree, &mut checkout);
        self.checkouts.insert(worktree.path.clone(), checkout);
        Ok(())
    }

    fn repository_of(&mut self, worktree: &Worktree) -> Result<&mut Repository, VcsWorktreeError> {
        let no_repository = VcsWorktreeError::NotARepository { path: worktree.repo.clone() };
        self.repositories.get_mut(&worktree.repo).ok_or(no_repository)
    }

    /// Copies the ignored files that are asked for, but over nothing.
    pub(super) fn copy_in(&self, worktree: &Worktree, checkout: &mut Checkout) {
        let Some(copy) = &worktree.copy else { return };
        for (path, file) in self.untracked(&copy.from) {
            if compare::globbed(&copy.globs, &path) && !checkout.files.contains_key(&path) {
                checkout.files.insert(path.clone(), file.clone());
                checkout.copied.insert(path, file);
            }
        }
    }

    /// The globs of what is to be copied that no file matches.
    pub(super) fn unmatched(&self, copy: &CopyIn) -> Vec<String> {
        let files = self.untracked(&copy.from);
        let misses = |glob: &&String| {
            let glob = std::slice::from_ref(*glob);
            !files.keys().any(|path| compare::globbed(glob, path))
        };
        copy.globs.iter().filter(misses).cloned().collect()
    }

    /// The files of a checkout that are not tracked, ignored ones included.
    fn untracked(&self, dir: &Locator) -> Files {
        let Some(checkout) = self.checkouts.get(dir) else { return Files::new() };
        let repository = self.repositories.get(&checkout.repository);
        let index = repository.and_then(|repo| repo.index(dir)).unwrap_or_default();
        let files = checkout.files.iter().filter(|(path, _)| !index.contains_key(*path));
        files.map(|(path, file)| (path.clone(), file.clone())).collect()
    }
}

/// What HEAD is to name: the branch if it is where it was and free, else the commit. A branch that is gone comes back.
fn head_of(repository: &mut Repository, removed: &Removed) -> Head {
    let detached = Head::Detached(removed.head.clone());
    let Some(branch) = &removed.branch else { return detached };
    match repository.branches.get(branch) {
        Some(tip) if *tip == removed.head && !repository.is_checked_out(branch) => {
            Head::Branch(branch.clone())
        }
        None if repository.free(branch).is_ok() => {
            repository.branches.insert(branch.clone(), removed.head.clone());
            Head::Branch(branch.clone())
        }
        Some(_) | None => detached,
    }
}

fn no_commit(oid: &str) -> VcsWorktreeError {
    let (command, stderr) = ("worktree add".to_owned(), format!("{oid} is no commit"));
    VcsWorktreeError::Git { command, stderr }
}
