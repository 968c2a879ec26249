//! Git steps: commits, and the way back to a commit.

use windlass_core::locator::Locator;
use windlass_core::vcs_worktree::{GitStep, Identity, StepPlan, VcsWorktreeError, Verified};
use windlass_core::workspace::{Oid, Worktree};

use super::history::Head;
use super::{Compared, Disk, STEP, compare, mismatch};

/// The program of the steps that put a worktree back.
pub(super) const RESET_STEP: &str = "memory-git-reset";

impl Disk {
    /// Describes how to commit everything in a verified worktree.
    pub(super) fn plan_commit(
        &self,
        worktree: &Worktree,
        verified: Verified,
        message: &str,
        fallback: &Identity,
    ) -> Result<StepPlan, VcsWorktreeError> {
        let Compared { repository, committed, index, files } = self.compared(worktree)?;
        if compare::same(&committed, &index, files) {
            return Ok(StepPlan::Nothing { head: verified.head });
        }
        let env = match &repository.identity {
            Some(_) => Vec::new(),
            None => vec![
                ("GIT_AUTHOR_NAME".to_owned(), fallback.name.as_str().into()),
                ("GIT_AUTHOR_EMAIL".to_owned(), fallback.email.as_str().into()),
            ],
        };
        Ok(StepPlan::Run(GitStep {
            argv: vec![STEP.into(), message.into()],
            env,
            base_env: Vec::new(),
            cwd: worktree.path.clone(),
            repository_lock: worktree.repo.clone(),
        }))
    }

    /// Describes how to put a verified worktree back to a commit.
    pub(super) fn plan_reset(
        &self,
        worktree: &Worktree,
        verified: Verified,
        to: &Oid,
    ) -> Result<StepPlan, VcsWorktreeError> {
        let Compared { repository, committed, index, files } = self.compared(worktree)?;
        let registration = repository.checkouts.get(&worktree.path);
        let merging = registration.is_some_and(|registration| registration.merging.is_some());
        let moves = verified.head != *to;
        if !moves && !merging && compare::same(&committed, &index, files) {
            return Ok(StepPlan::Nothing { head: verified.head });
        }
        if moves && verified.branch.is_some_and(|branch| branch != worktree.branch) {
            return Err(mismatch(&worktree.path, "HEAD is on a branch that was not made for it"));
        }
        Ok(StepPlan::Run(GitStep {
            argv: vec![RESET_STEP.into(), to.0.as_str().into()],
            env: Vec::new(),
            base_env: Vec::new(),
            cwd: worktree.path.clone(),
            repository_lock: worktree.repo.clone(),
        }))
    }

    /// Notes what is in a worktree that is about to be saved where it is.
    pub(super) fn note_saved_here(&mut self, dir: &Locator) {
        if let Some(checkout) = self.checkouts.get(dir) {
            let files = checkout.files.clone();
            self.saved_here.insert(dir.clone(), files);
        }
    }

    /// Says whether something that would be undone is not as it was saved.
    pub(super) fn changed_since_saved(&mut self, dir: &Locator) -> bool {
        let committed = self.head_files(dir);
        let Some(checkout) = self.checkouts.get(dir) else { return false };
        let (files, saved) = (&checkout.files, self.saved_here.get(dir));
        compare::differing(&committed, files).iter().any(|path| {
            let now = files.get(path);
            let same = saved.is_some_and(|saved| saved.get(path) == now);
            now.is_some() && !same && !compare::ignored(files, path)
        })
    }

    /// Performs the step as its program does; says whether it ended with 0.
    pub(super) fn put_back_to(&mut self, dir: &Locator, to: &str) -> bool {
        let to = Oid(to.to_owned());
        if !self.checkouts.contains_key(dir) || self.is_git_locked(dir) {
            return false;
        }
        // Ignored files stay, by the rules as they are before.
        let seen = self.all_files(dir);
        let repository = self.repository(dir);
        let Some(commit) = repository.commits.get(&to) else { return false };
        let whole = commit.files.clone();
        let Some(registration) = repository.checkouts.get_mut(dir) else { return false };
        registration.staged.clear();
        registration.merging = None;
        registration.been.insert(to.clone());
        match registration.head.clone() {
            Head::Detached(_) => registration.head = Head::Detached(to),
            Head::Branch(name) => {
                repository.branches.insert(name, to);
            }
        }
        let files = self.files(dir);
        files.retain(|path, _| !seen.contains_key(path));
        files.extend(whole);
        true
    }
}
