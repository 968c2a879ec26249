//! Describes the git step that puts a worktree back to a commit. Filters are the user's code, so it runs as an execution.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use windlass_core::id::AttemptId;
use windlass_core::locator::OsBytes;
use windlass_core::vcs_worktree::{CHANGED_SINCE_SAVED, GitStep, StepPlan, VcsWorktreeError};
use windlass_core::workspace::{Oid, Worktree};

use super::aside::exists;
use super::commit::{named, unattended};
use super::verify::Found;
use super::{Inner, mismatch};
use crate::group::Cancel;

/// In the private git directory: its time is when the worktree was last looked at to be saved where it is.
pub(super) const SAVED_AT: &str = "windlass-saved-at";

/// What the step runs. Its arguments are git, the commit, the one that HEAD named when it was planned, the common git
/// directory, what has the time of the save, and how it ends if anything changed since. A second run finds nothing to do; a
/// commit that came in between is not undone.
///
/// Nobody sets the time of a change of status, so whatever git would undo is as it was saved if that is older.
///
/// What a commit would have taken goes with `git clean`, which leaves ignored files, and repositories within. It goes first:
/// what is ignored now, and was not by the commit, is in no snapshot if it is large.
const SCRIPT: &str = r#"git=$1 to=$2 head=$3 common=$4 saved=$5 changed=$6
unset $("$git" rev-parse --local-env-vars)
run() {
    "$git" -c core.fsync=all -c core.fsyncMethod=fsync -c gc.auto=0 -c maintenance.auto=false "$@"
}
now=$(run rev-parse --verify HEAD) || exit
if [ "$now" != "$head" ] && [ "$now" != "$to" ]; then
    echo "HEAD is at $now by now, which is not saved: nothing was undone" >&2
    exit 1
fi
later=$(run ls-files -z --modified --others --exclude-standard | xargs -0 sh -c '
    saved=$1
    shift
    for path; do
        shift
        case $path in
        */) continue ;;
        esac
        if [ -e "./$path" ] || [ -L "./$path" ]; then
            set -- "$@" "./$path"
        fi
    done
    [ $# = 0 ] || find "$@" -prune \( -cnewer "$saved" -o -newer "$saved" \)
' later "$saved") || [ -n "$later" ] || later="git cannot tell"
[ -e "$saved" ] || later=everything
if [ -n "$later" ]; then
    printf 'changed since it was saved, so nothing was undone: %s\n' "$later" >&2
    exit "$changed"
fi
run clean --quiet -d --force || exit
run reset --quiet --hard "$to" || exit
sync -f "$common/objects" "$common" . 2>/dev/null || sync
"#;

/// How many paths git is asked about at once.
const PATHS: usize = 500;

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
        let in_the_way = self.in_the_way(cancel, &found, to)?;
        if !in_the_way.is_empty() {
            let detail = format!(
                "{to} has files where ignored ones are now, which a snapshot may have left out: {}; move them away first",
                named(&in_the_way)
            );
            return Err(mismatch(&found.path, detail));
        }
        let mut argv: Vec<OsBytes> =
            vec!["/bin/sh".into(), "-c".into(), SCRIPT.into(), "windlass-reset".into()];
        argv.push(OsBytes(self.git.program().as_os_str().as_bytes().to_vec()));
        argv.extend([to.0.as_str().into(), found.verified.head.0.as_str().into()]);
        argv.push(OsBytes(found.common.as_os_str().as_bytes().to_vec()));
        argv.push(OsBytes(found.admin.join(SAVED_AT).into_os_string().into_encoded_bytes()));
        argv.push(CHANGED_SINCE_SAVED.to_string().as_str().into());
        Ok(StepPlan::Run(GitStep {
            argv,
            env: unattended(),
            base_env: self.git.base_env(),
            cwd: worktree.path.clone(),
            repository_lock: worktree.repo.clone(),
        }))
    }

    /// Names ignored entries that stand where a commit has files, which HEAD has not: git would replace them.
    fn in_the_way(
        &self,
        cancel: &Cancel,
        found: &Found,
        to: &Oid,
    ) -> Result<Vec<String>, VcsWorktreeError> {
        let added = self.git.on_worktree(&found.admin, &found.path, "diff-tree");
        let added = added.args(["-r", "-z", "--no-renames", "--diff-filter=A", "--name-only"]);
        let added = added.arg(&found.verified.head.0).arg(&to.0).output(cancel)?;
        let added = added.split(|byte| *byte == 0).filter(|path| !path.is_empty());
        let there: BTreeSet<&Path> = added
            .filter_map(|path| standing(&found.path, Path::new(OsStr::from_bytes(path))))
            .collect();
        let mut ignored = Vec::new();
        for some in there.into_iter().collect::<Vec<_>>().chunks(PATHS) {
            let listed = self.git.on_worktree(&found.admin, &found.path, "ls-files");
            let mut listed = listed
                .args(["-z", "--others", "--ignored", "--exclude-standard", "--directory"])
                .arg("--");
            for path in some {
                let mut pattern = OsString::from(":(top,literal)");
                pattern.push(path);
                listed = listed.arg(pattern);
            }
            let listed = listed.output(cancel)?;
            let paths = listed.split(|byte| *byte == 0).filter(|path| !path.is_empty());
            ignored.extend(paths.map(|path| String::from_utf8_lossy(path).into_owned()));
        }
        Ok(ignored)
    }
}

/// Returns what stands where a file would be: something at its path, or what is no directory above it.
pub(super) fn standing<'a>(root: &Path, path: &'a Path) -> Option<&'a Path> {
    let mut above: Vec<&Path> = path.ancestors().filter(|it| !it.as_os_str().is_empty()).collect();
    above.reverse();
    for at in above {
        let meta = root.join(at).symlink_metadata().ok()?;
        if at == path || !meta.is_dir() {
            return Some(at);
        }
    }
    None
}
