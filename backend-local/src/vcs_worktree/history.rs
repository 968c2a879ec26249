//! What becomes of the commits of worktrees: the doors of [`VcsHistory`](windlass_core::vcs_history::VcsHistory), and what its
//! parts share.

mod checkout;
mod landed;
mod merge;
mod push;
mod rebase;
mod remnants;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use windlass_core::id::AttemptId;
use windlass_core::locator::OsBytes;
use windlass_core::vcs_history::{
    Begun, Conclusion, HistoryPlan, HistoryRequest, HistoryWork, InProgress, Merged, Standing,
    VcsHistoryError,
};
use windlass_core::vcs_worktree::{Diff, DiffDetail, GitStep, VcsWorktreeError};
use windlass_core::workspace::{Oid, Worktree};

pub(super) use landed::Landings;

use super::aside::exists;
use super::commit::{named, unattended};
use super::verify::Found;
use super::{GitWorktrees, Inner};
use crate::group::Cancel;

/// Files of the private git directory that say what is in progress. A rebase of the older kind and the application of mailed
/// patches share one.
const IN_PROGRESS: [(&str, InProgress); 6] = [
    ("rebase-merge", InProgress::Rebase),
    ("rebase-apply/applying", InProgress::Am),
    ("rebase-apply", InProgress::Rebase),
    ("MERGE_HEAD", InProgress::Merge),
    ("CHERRY_PICK_HEAD", InProgress::CherryPick),
    ("REVERT_HEAD", InProgress::Revert),
];

/// What the scripts of these steps begin with: a git that syncs what it writes and collects nothing.
const PRELUDE: &str = r#"unset $("$git" rev-parse --local-env-vars)
run() {
    "$git" -c core.fsync=all -c core.fsyncMethod=fsync -c gc.auto=0 -c maintenance.auto=false "$@"
}
flush() {
    sync -f "$common/objects" "$common" . 2>/dev/null || sync
}
"#;

/// Takes what went wrong with a worktree apart from what only this port knows.
fn split<T>(
    done: Result<T, VcsHistoryError>,
) -> Result<Result<T, VcsHistoryError>, VcsWorktreeError> {
    match done {
        Err(VcsHistoryError::Worktree(error)) => Err(error),
        done => Ok(done),
    }
}

impl GitWorktrees {
    /// Describes how to do something with the commits of a worktree.
    pub(crate) async fn history_plan(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        request: &HistoryRequest,
    ) -> Result<HistoryPlan, VcsHistoryError> {
        let request = request.clone();
        let plan = move |inner: &Inner, cancel: &Cancel, worktree: &Worktree| {
            split(inner.plan_history(cancel, attempt, worktree, &request))
        };
        self.at_place("plan", attempt, worktree, plan).await?
    }

    /// Looks what came of it.
    pub(crate) async fn history_conclusion(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        request: &HistoryRequest,
    ) -> Result<Conclusion, VcsHistoryError> {
        let request = request.clone();
        let conclude = move |inner: &Inner, cancel: &Cancel, worktree: &Worktree| {
            split(inner.conclude_history(cancel, attempt, worktree, &request))
        };
        self.at_place("conclude", attempt, worktree, conclude).await?
    }

    /// Looks where the commits of a worktree stand.
    pub(crate) async fn history_standing(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        merged: Option<&Merged>,
    ) -> Result<Standing, VcsHistoryError> {
        let merged = merged.cloned();
        let standing = move |inner: &Inner, cancel: &Cancel, worktree: &Worktree| {
            split(inner.standing(cancel, attempt, worktree, merged.as_ref()))
        };
        self.at_place("look", attempt, worktree, standing).await?
    }

    /// Compares a merge with the target before it.
    pub(crate) async fn diff_of_merge(
        &self,
        worktree: &Worktree,
        merged: &Merged,
        detail: DiffDetail,
    ) -> Result<Diff, VcsHistoryError> {
        let (worktree, merged) = (worktree.clone(), merged.clone());
        let diff = move |inner: &Inner, cancel: &Cancel| {
            split(inner.diff_of_merge(cancel, &worktree, &merged, detail))
        };
        self.blocking("diff", diff).await?
    }
}

impl Inner {
    fn plan_history(
        &self,
        cancel: &Cancel,
        attempt: AttemptId,
        worktree: &Worktree,
        request: &HistoryRequest,
    ) -> Result<HistoryPlan, VcsHistoryError> {
        let found = self.verify(cancel, attempt, worktree)?;
        match &request.work {
            HistoryWork::Merge { target, style, message } => {
                let wanted = merge::Wanted { target, style: *style, message };
                self.plan_merge(cancel, &found, worktree, request, wanted)
            }
            HistoryWork::Rebase { onto } => {
                self.plan_rebase(cancel, &found, worktree, request, onto)
            }
            HistoryWork::Continue => self.plan_continue(cancel, &found, worktree, request),
            HistoryWork::Abort => self.plan_abort(&found, worktree, request),
            HistoryWork::Push { remote, force_with_lease } => {
                self.plan_push(cancel, &found, worktree, remote.as_deref(), *force_with_lease)
            }
        }
    }

    fn conclude_history(
        &self,
        cancel: &Cancel,
        attempt: AttemptId,
        worktree: &Worktree,
        request: &HistoryRequest,
    ) -> Result<Conclusion, VcsHistoryError> {
        let found = self.verify(cancel, attempt, worktree)?;
        let conclusion = match (&request.work, &request.begun) {
            (HistoryWork::Merge { target, style, .. }, Some(Begun::Merge { new, head, .. })) => {
                let tip = self.branch_oid(cancel, &found.common, target)?;
                let there = match &tip {
                    Some(tip) => self.reaches(cancel, &found.common, tip, new)?,
                    None => false,
                };
                let merged = Merged {
                    target: target.clone(),
                    commit: new.clone(),
                    head: head.clone(),
                    style: Some(*style),
                    at: request.at,
                };
                if there { Conclusion::Merged(merged) } else { Conclusion::NotDone }
            }
            (_, Some(Begun::Rebase { onto, .. })) => self.conclude_rebase(cancel, &found, onto)?,
            (_, Some(Begun::Abort)) if in_progress(&found)?.is_none() => {
                Conclusion::Aborted { head: found.verified.head }
            }
            _ => Conclusion::NotDone,
        };
        Ok(conclusion)
    }

    /// Says whether a commit is another one or follows from it.
    fn reaches(
        &self,
        cancel: &Cancel,
        common: &Path,
        from: &Oid,
        to: &Oid,
    ) -> Result<bool, VcsWorktreeError> {
        if from == to {
            return Ok(true);
        }
        let asked = self.git.on_repository(common, "merge-base").arg("--is-ancestor");
        let asked = asked.env("GIT_NO_LAZY_FETCH", "1").arg(&to.0).arg(&from.0);
        Ok(asked.answer(cancel)?.is_some())
    }

    /// Names the files of a worktree that have conflicts.
    fn conflicts(&self, cancel: &Cancel, found: &Found) -> Result<Vec<String>, VcsWorktreeError> {
        let listed = self.git.on_worktree(&found.admin, &found.path, "ls-files");
        let listed = listed.args(["--unmerged", "-z"]).output(cancel)?;
        let mut files: Vec<String> = Vec::new();
        for entry in listed.split(|byte| *byte == 0) {
            let path = entry.splitn(2, |byte| *byte == b'\t').nth(1).unwrap_or_default();
            let path = String::from_utf8_lossy(path).into_owned();
            if !path.is_empty() && files.last() != Some(&path) {
                files.push(path);
            }
        }
        Ok(files)
    }

    /// Refuses a worktree with something in progress, or with something that is not committed.
    fn refuse_uncommitted(
        &self,
        cancel: &Cancel,
        found: &Found,
        worktree: &Worktree,
    ) -> Result<(), VcsHistoryError> {
        Self::refuse_operation(found, worktree)?;
        self.clear_locks(cancel, found)?;
        let dirt = self.dirt(cancel, found)?;
        if dirt.any() || !dirt.unmerged.is_empty() {
            let path = worktree.path.clone();
            let detail = self.changed_paths(cancel, found)?;
            return Err(VcsHistoryError::Dirty { path, detail });
        }
        if exists(&found.path.join(".gitmodules"))? {
            return self.refuse_dirty_submodules(cancel, found, worktree);
        }
        Ok(())
    }

    /// Refuses a worktree with a submodule in which something is not committed: a commit cannot take it.
    fn refuse_dirty_submodules(
        &self,
        cancel: &Cancel,
        found: &Found,
        worktree: &Worktree,
    ) -> Result<(), VcsHistoryError> {
        let status = self.git.on_worktree(&found.admin, &found.path, "status");
        let status = status.args(["--porcelain", "-z", "--no-renames", "--untracked-files=no"]);
        let output = status.arg("--ignore-submodules=none").output(cancel)?;
        let paths = pieces(&output).filter_map(|entry| entry.get(3..));
        let paths: Vec<_> = paths.map(|path| String::from_utf8_lossy(path).into_owned()).collect();
        if paths.is_empty() {
            return Ok(());
        }
        let detail = format!("in a submodule, where git itself commits: {}", named(&paths));
        Err(VcsHistoryError::Dirty { path: worktree.path.clone(), detail })
    }

    fn refuse_operation(found: &Found, worktree: &Worktree) -> Result<(), VcsWorktreeError> {
        match in_progress(found)? {
            None => Ok(()),
            Some(what) => {
                let (path, detail) = (worktree.path.clone(), in_words(what).to_owned());
                Err(VcsWorktreeError::Unfinished { path, detail })
            }
        }
    }

    /// Names some of what is not committed, for people.
    fn changed_paths(&self, cancel: &Cancel, found: &Found) -> Result<String, VcsWorktreeError> {
        let status = self.git.on_worktree(&found.admin, &found.path, "status");
        let status = status.args(["--porcelain", "-z", "--no-renames", "--untracked-files=normal"]);
        let output = status.arg("--ignore-submodules=dirty").output(cancel)?;
        let paths = output.split(|byte| *byte == 0).filter_map(|entry| entry.get(3..));
        let paths: Vec<_> = paths.map(|path| String::from_utf8_lossy(path).into_owned()).collect();
        Ok(named(&paths))
    }

    /// Makes a step of a script and its arguments, which begin with git.
    fn history_step(
        &self,
        name: &str,
        script: &str,
        worktree: &Worktree,
        arguments: &[&OsStr],
    ) -> GitStep {
        let mut argv: Vec<OsBytes> = vec!["/bin/sh".into(), "-c".into(), script.into()];
        argv.push(name.into());
        argv.push(OsBytes(self.git.program().as_os_str().as_bytes().to_vec()));
        argv.extend(arguments.iter().map(|argument| OsBytes(argument.as_bytes().to_vec())));
        GitStep {
            argv,
            env: unattended(),
            base_env: self.git.base_env(),
            cwd: worktree.path.clone(),
            repository_lock: worktree.repo.clone(),
        }
    }
}

/// Says what is in progress in a worktree.
fn in_progress(found: &Found) -> Result<Option<InProgress>, VcsWorktreeError> {
    for (file, what) in IN_PROGRESS {
        if exists(&found.admin.join(file))? {
            return Ok(Some(what));
        }
    }
    Ok(None)
}

fn in_words(what: InProgress) -> &'static str {
    match what {
        InProgress::Rebase => "a rebase is in progress",
        InProgress::Merge => "a merge is in progress",
        InProgress::CherryPick => "a cherry-pick is in progress",
        InProgress::Revert => "a revert is in progress",
        InProgress::Am => "the application of mailed patches is in progress",
    }
}

/// Splits what git printed with zero bytes.
fn pieces(output: &[u8]) -> impl Iterator<Item = &[u8]> {
    output.split(|byte| *byte == 0).filter(|piece| !piece.is_empty())
}
