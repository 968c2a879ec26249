//! Describes the git step that puts a worktree back to a commit. Filters are the user's code, so it runs as an execution.

use std::os::unix::ffi::OsStrExt as _;

use windlass_core::id::AttemptId;
use windlass_core::locator::OsBytes;
use windlass_core::vcs_worktree::{GitStep, StepPlan, VcsWorktreeError};
use windlass_core::workspace::{Oid, Worktree};

use super::aside::exists;
use super::commit::unattended;
use super::{Inner, mismatch};
use crate::group::Cancel;

/// What the step runs. Its arguments are git, the commit and the common git directory. A second run finds nothing to do.
///
/// What a commit would have taken goes with `git clean`, which leaves ignored files, and repositories within. It goes first:
/// what is ignored now, and was not by the commit, is in no snapshot if it is large.
const SCRIPT: &str = r#"git=$1 to=$2 common=$3
unset $("$git" rev-parse --local-env-vars)
run() {
    "$git" -c core.fsync=all -c core.fsyncMethod=fsync -c gc.auto=0 -c maintenance.auto=false "$@"
}
run clean --quiet -d --force || exit
run reset --quiet --hard "$to" || exit
sync -f "$common/objects" "$common" . 2>/dev/null || sync
"#;

/// Files of the private git directory that say that something is in progress which a reset does not end.
const OUTLASTING: [(&str, &str); 4] = [
    ("rebase-merge", "a rebase is in progress"),
    ("rebase-apply", "a rebase or am is in progress"),
    ("sequencer", "a cherry-pick or revert is in progress"),
    ("BISECT_LOG", "a bisect is in progress"),
];

impl Inner {
    pub(super) fn plan_reset(
        &self,
        cancel: &Cancel,
        attempt: AttemptId,
        worktree: &Worktree,
        to: &Oid,
    ) -> Result<StepPlan, VcsWorktreeError> {
        let found = self.verify(cancel, attempt, worktree)?;
        self.clear_locks(cancel, &found)?;
        for (file, reason) in OUTLASTING {
            if exists(&found.admin.join(file))? {
                let (path, detail) = (worktree.path.clone(), reason.to_owned());
                return Err(VcsWorktreeError::Unfinished { path, detail });
            }
        }
        let dirt = self.dirt(cancel, &found)?;
        let moves = found.verified.head != *to;
        let merging = exists(&found.admin.join("MERGE_HEAD"))?;
        if !moves && !dirt.any() && dirt.unmerged.is_empty() && !merging {
            return Ok(StepPlan::Nothing { head: found.verified.head });
        }
        match &found.verified.branch {
            Some(branch) if moves && *branch != worktree.branch => {
                let detail = format!(
                    "HEAD is on branch {branch:?}, which was not made for it and would be moved"
                );
                return Err(mismatch(&found.path, detail));
            }
            Some(_) | None => {}
        }
        let mut argv: Vec<OsBytes> =
            vec!["/bin/sh".into(), "-c".into(), SCRIPT.into(), "windlass-reset".into()];
        argv.push(OsBytes(self.git.program().as_os_str().as_bytes().to_vec()));
        argv.push(to.0.as_str().into());
        argv.push(OsBytes(found.common.as_os_str().as_bytes().to_vec()));
        Ok(StepPlan::Run(GitStep {
            argv,
            env: unattended(),
            base_env: self.git.base_env(),
            cwd: worktree.path.clone(),
            repository_lock: worktree.repo.clone(),
        }))
    }
}
