//! Rebases in a worktree, and the way back from whatever is in progress there.

use std::ffi::OsStr;
use std::fs;

use windlass_core::vcs_history::{
    Begun, Conclusion, HistoryPlan, HistoryRequest, InProgress, VcsHistoryError,
};
use windlass_core::vcs_worktree::VcsWorktreeError;
use windlass_core::workspace::{Oid, Worktree};

use super::{PRELUDE, in_progress};
use crate::group::Cancel;
use crate::vcs_worktree::Inner;
use crate::vcs_worktree::refs;
use crate::vcs_worktree::verify::Found;

/// Puts the commits behind one commit on top of another. Its arguments are git, the common and the private git directory, HEAD
/// as it was when it was planned, and these two. A second run finds it done, or stopped at a conflict, and does nothing.
const REBASE: &str = r#"
if [ -d "$admin/rebase-merge" ] || [ -d "$admin/rebase-apply" ]; then
    echo "a rebase is in progress already" >&2
    exit 1
fi
now=$(run rev-parse --verify HEAD) || exit
if [ "$now" != "$head" ]; then
    echo "HEAD is at $now by now: nothing was rebased" >&2
    exit 1
fi
run -c rebase.updateRefs=false -c rebase.autoSquash=false -c rebase.missingCommitsCheck=ignore \
    rebase --no-autostash --no-fork-point --onto "$onto" "$upstream"
code=$?
flush
exit $code
"#;

/// Goes on with what is in progress, or gives it up. Its arguments are git, the common git directory, the command that began it
/// and what that is to do.
const GO_ON: &str = r#"
run "$what" "$how"
code=$?
flush
exit $code
"#;

impl Inner {
    pub(super) fn plan_rebase(
        &self,
        cancel: &Cancel,
        found: &Found,
        worktree: &Worktree,
        request: &HistoryRequest,
        onto: &str,
    ) -> Result<HistoryPlan, VcsHistoryError> {
        if onto == worktree.branch || found.verified.branch.as_deref() == Some(onto) {
            return Err(VcsHistoryError::OwnBranch { branch: onto.to_owned() });
        }
        self.refuse_uncommitted(cancel, found, worktree)?;
        let Some(tip) = self.branch_oid(cancel, &found.common, onto)? else {
            return Err(VcsHistoryError::NoBranch { branch: onto.to_owned() });
        };
        let head = found.verified.head.clone();
        if self.reaches(cancel, &found.common, &head, &tip)? {
            return Ok(HistoryPlan::Done(Conclusion::Rebased { head, onto: tip }));
        }
        let since = self.since(cancel, found, request.merged.as_ref(), onto, &tip)?;
        let upstream = since.unwrap_or_else(|| tip.clone());
        let script =
            format!("git=$1 common=$2 admin=$3 head=$4 onto=$5 upstream=$6\n{PRELUDE}{REBASE}");
        let arguments: [&OsStr; 5] = [
            found.common.as_os_str(),
            found.admin.as_os_str(),
            OsStr::new(&head.0),
            OsStr::new(&tip.0),
            OsStr::new(&upstream.0),
        ];
        let mut step = self.history_step("windlass-rebase", &script, worktree, &arguments);
        step.env.extend(self.committer(cancel, found, request)?);
        Ok(HistoryPlan::Run { step, begun: Begun::Rebase { head, onto: tip } })
    }

    /// Who commits are by that are made again; their authors stay.
    fn committer(
        &self,
        cancel: &Cancel,
        found: &Found,
        request: &HistoryRequest,
    ) -> Result<Vec<(String, windlass_core::locator::OsBytes)>, VcsWorktreeError> {
        let all = self.identity(cancel, found, &request.fallback)?;
        Ok(all.into_iter().filter(|(name, _)| !name.starts_with("GIT_AUTHOR_")).collect())
    }

    pub(super) fn plan_continue(
        &self,
        cancel: &Cancel,
        found: &Found,
        worktree: &Worktree,
        request: &HistoryRequest,
    ) -> Result<HistoryPlan, VcsHistoryError> {
        if in_progress(found)? != Some(InProgress::Rebase) {
            let detail = "no rebase is in progress in the worktree".to_owned();
            return Err(VcsHistoryError::Nothing { detail });
        }
        self.clear_locks(cancel, found)?;
        let files = self.conflicts(cancel, found)?;
        let onto = ["rebase-merge/onto", "rebase-apply/onto"]
            .iter()
            .find_map(|file| refs::oid(fs::read(found.admin.join(file)).ok()?.trim_ascii()));
        let onto = onto.unwrap_or_else(|| found.verified.head.clone());
        if !files.is_empty() {
            return Err(VcsHistoryError::Conflicts { target: onto.0, files });
        }
        let head = found.verified.head.clone();
        let mut step = self.go_on(found, worktree, "windlass-rebase", ["rebase", "--continue"]);
        step.env.extend(self.committer(cancel, found, request)?);
        Ok(HistoryPlan::Run { step, begun: Begun::Rebase { head, onto } })
    }

    pub(super) fn plan_abort(
        &self,
        found: &Found,
        worktree: &Worktree,
        request: &HistoryRequest,
    ) -> Result<HistoryPlan, VcsHistoryError> {
        let command = match in_progress(found)? {
            Some(InProgress::Rebase) => "rebase",
            Some(InProgress::Merge) => "merge",
            Some(InProgress::CherryPick) => "cherry-pick",
            Some(InProgress::Revert) => "revert",
            Some(InProgress::Am) => "am",
            // What was tried before and lost has come to its end.
            None if request.begun == Some(Begun::Abort) => {
                let head = found.verified.head.clone();
                return Ok(HistoryPlan::Done(Conclusion::Aborted { head }));
            }
            None => {
                let detail = "nothing is in progress in the worktree".to_owned();
                return Err(VcsHistoryError::Nothing { detail });
            }
        };
        let step = self.go_on(found, worktree, "windlass-abort", [command, "--abort"]);
        Ok(HistoryPlan::Run { step, begun: Begun::Abort })
    }

    fn go_on(
        &self,
        found: &Found,
        worktree: &Worktree,
        name: &str,
        command: [&str; 2],
    ) -> windlass_core::vcs_worktree::GitStep {
        let script = format!("git=$1 common=$2 what=$3 how=$4\n{PRELUDE}{GO_ON}");
        let [what, how] = command;
        let arguments = [found.common.as_os_str(), OsStr::new(what), OsStr::new(how)];
        self.history_step(name, &script, worktree, &arguments)
    }

    pub(super) fn conclude_rebase(
        &self,
        cancel: &Cancel,
        found: &Found,
        onto: &Oid,
    ) -> Result<Conclusion, VcsWorktreeError> {
        if in_progress(found)? == Some(InProgress::Rebase) {
            return Ok(Conclusion::Conflicts { files: self.conflicts(cancel, found)? });
        }
        let head = found.verified.head.clone();
        match self.reaches(cancel, &found.common, &head, onto)? {
            true => Ok(Conclusion::Rebased { head, onto: onto.clone() }),
            false => Ok(Conclusion::NotDone),
        }
    }
}
