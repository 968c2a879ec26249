//! Measures a worktree against its base and target.

use windlass_core::id::AttemptId;
use windlass_core::vcs_worktree::{VcsWorktreeError, WorktreeStatus};
use windlass_core::workspace::{Oid, Worktree};

use super::Inner;
use super::verify::Found;
use crate::group::{Cancel, Capture};

impl Inner {
    pub(super) fn status(
        &self,
        cancel: &Cancel,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<WorktreeStatus, VcsWorktreeError> {
        let found = self.verify(cancel, attempt, worktree)?;
        let dirty = self.is_dirty(cancel, &found)?;
        let head = found.verified.head.clone();
        let goal = self.goal(cancel, &found, worktree)?;
        let ahead = self.count(cancel, &found, &worktree.base_oid, &head)?;
        let behind = self.count(cancel, &found, &head, &goal)?;
        Ok(WorktreeStatus { head, branch: found.verified.branch, dirty, ahead, behind })
    }

    fn is_dirty(&self, cancel: &Cancel, found: &Found) -> Result<bool, VcsWorktreeError> {
        let status = self.git.on_worktree(&found.admin, &found.path, "status");
        let status = status.args(["--porcelain", "-z", "--no-renames", "--untracked-files=normal"]);
        let status = status.arg("--ignore-submodules=none").capture(Capture::Any);
        Ok(!status.output(cancel)?.is_empty())
    }

    /// The commit that the work is measured against: of the target, else the base.
    pub(super) fn goal(
        &self,
        cancel: &Cancel,
        found: &Found,
        worktree: &Worktree,
    ) -> Result<Oid, VcsWorktreeError> {
        let target = match &worktree.target {
            Some(target) => self.branch_oid(cancel, &found.common, target)?,
            None => None,
        };
        Ok(target.unwrap_or_else(|| worktree.base_oid.clone()))
    }

    /// Counts the commits that `of` reaches and `without` does not.
    fn count(
        &self,
        cancel: &Cancel,
        found: &Found,
        without: &Oid,
        of: &Oid,
    ) -> Result<u64, VcsWorktreeError> {
        if without == of {
            return Ok(0);
        }
        let count = self.git.on_worktree(&found.admin, &found.path, "rev-list").arg("--count");
        let count = count.env("GIT_NO_LAZY_FETCH", "1").arg(format!("{without}..{of}"));
        let output = count.output(cancel)?;
        Ok(String::from_utf8_lossy(&output).trim().parse().unwrap_or_default())
    }
}
