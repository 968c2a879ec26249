//! Measures a worktree against its base and target.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use windlass_core::id::AttemptId;
use windlass_core::vcs_worktree::{VcsWorktreeError, WorktreeStatus};
use windlass_core::workspace::{Oid, Worktree};

use super::Inner;
use super::scan::{Dirt, apart};
use super::verify::Found;
use crate::group::{Cancel, Capture};

/// Most bytes of paths in a command.
const PATHS_MAX: usize = 64 << 10;

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

    /// Says whether git would show anything as changed or untracked.
    pub(super) fn is_dirty(
        &self,
        cancel: &Cancel,
        found: &Found,
    ) -> Result<bool, VcsWorktreeError> {
        let status = self.git.on_worktree(&found.admin, &found.path, "status");
        let status = status
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_LITERAL_PATHSPECS", "1")
            .args(["--porcelain", "-z", "--no-renames", "--ignore-submodules=none"])
            .capture(Capture::Any);
        let status = match self.is_dirty_here(cancel, found)? {
            Some(Dirt::Yes) => return Ok(true),
            Some(Dirt::No) => return Ok(false),
            Some(Dirt::Only(paths)) if paths.iter().map(Vec::len).sum::<usize>() < PATHS_MAX => {
                let status = status.args(["--untracked-files=no", "--"]);
                paths.iter().fold(status, |status, path| status.arg(OsStr::from_bytes(path)))
            }
            Some(Dirt::Only(_)) => status.arg("--untracked-files=no"),
            None => status.arg("--untracked-files=normal"),
        };
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
        if let Some(apart) = apart(&found.common, &of.0, &without.0) {
            return Ok(apart.one);
        }
        let count = self.git.on_worktree(&found.admin, &found.path, "rev-list").arg("--count");
        let count = count.env("GIT_NO_LAZY_FETCH", "1").arg(format!("{without}..{of}"));
        let output = count.output(cancel)?;
        Ok(String::from_utf8_lossy(&output).trim().parse().unwrap_or_default())
    }
}
