//! Pushes of a worktree's branch. They ask the network and run hooks and helpers, so they are steps, which hold the lock of the
//! worktree alone: nothing else in the repository waits for the network.

use std::ffi::OsStr;

use windlass_core::vcs_history::{Begun, HistoryPlan, VcsHistoryError};
use windlass_core::vcs_worktree::VcsWorktreeError;
use windlass_core::workspace::Worktree;

use crate::group::Cancel;
use crate::vcs_worktree::git::{first_line, without_newline};
use crate::vcs_worktree::verify::Found;
use crate::vcs_worktree::{Inner, locator};

/// Pushes one commit under the name of the branch. Its arguments are git, the remote, the branch, the commit, and an option or
/// nothing.
const SCRIPT: &str = r#"git=$1 remote=$2 branch=$3 head=$4 option=$5
unset $("$git" rev-parse --local-env-vars)
"$git" -c gc.auto=0 -c maintenance.auto=false push ${option:+"$option"} -- "$remote" "$head:refs/heads/$branch"
"#;

impl Inner {
    pub(super) fn plan_push(
        &self,
        cancel: &Cancel,
        found: &Found,
        worktree: &Worktree,
        remote: Option<&str>,
        force_with_lease: bool,
    ) -> Result<HistoryPlan, VcsHistoryError> {
        let Some(branch) = found.verified.branch.clone() else {
            let detail = "there is no branch to push: HEAD is detached".to_owned();
            return Err(VcsHistoryError::Nothing { detail });
        };
        let remote = self.remote(cancel, found, &branch, remote)?;
        let head = found.verified.head.clone();
        let option =
            if force_with_lease { format!("--force-with-lease={branch}") } else { String::new() };
        let arguments: [&OsStr; 4] =
            [OsStr::new(&remote), OsStr::new(&branch), OsStr::new(&head.0), OsStr::new(&option)];
        let mut step = self.history_step("windlass-push", SCRIPT, worktree, &arguments);
        step.repository_lock = locator(&found.admin);
        Ok(HistoryPlan::Run { step, begun: Begun::Push { remote, branch, head } })
    }

    /// Finds the remote that is meant.
    fn remote(
        &self,
        cancel: &Cancel,
        found: &Found,
        branch: &str,
        named: Option<&str>,
    ) -> Result<String, VcsHistoryError> {
        let listed = self.git.on_worktree(&found.admin, &found.path, "remote").output(cancel)?;
        let remotes: Vec<String> = listed
            .split(|byte| *byte == b'\n')
            .filter(|name| !name.is_empty())
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect();
        let none = |detail: String| VcsHistoryError::NoRemote { detail };
        if let Some(named) = named {
            let known = remotes.iter().any(|remote| remote == named);
            return known.then(|| named.to_owned()).ok_or_else(|| {
                none(format!("there is no remote {named:?}; there are: {}", remotes.join(", ")))
            });
        }
        let keys = [
            format!("branch.{branch}.pushRemote"),
            "remote.pushDefault".to_owned(),
            format!("branch.{branch}.remote"),
        ];
        for key in keys {
            let configured = self.configured(cancel, found, &key)?;
            // A branch that follows one of its own repository has the remote `.`.
            if let Some(remote) = configured.filter(|remote| remotes.contains(remote)) {
                return Ok(remote);
            }
        }
        match remotes.as_slice() {
            [] => Err(none("the repository has no remote".to_owned())),
            [only] => Ok(only.clone()),
            many if many.iter().any(|remote| remote == "origin") => Ok("origin".to_owned()),
            many => Err(none(format!("which remote is meant? There are: {}", many.join(", ")))),
        }
    }

    fn configured(
        &self,
        cancel: &Cancel,
        found: &Found,
        key: &str,
    ) -> Result<Option<String>, VcsWorktreeError> {
        let asked = self.git.on_worktree(&found.admin, &found.path, "config").arg("--get").arg(key);
        let answer = asked.answer(cancel)?;
        Ok(answer
            .map(|value| String::from_utf8_lossy(without_newline(first_line(&value))).into_owned()))
    }
}
