//! Merges into a branch. The commit is made by plumbing, belongs to nobody, and is known before anything moves; the step
//! moves the target to it, with the checkout that the target may have.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use windlass_core::locator::OsBytes;
use windlass_core::vcs_history::{
    Begun, Conclusion, HistoryPlan, HistoryRequest, MergeStyle, Merged, VcsHistoryError,
};
use windlass_core::vcs_worktree::{Identity, VcsWorktreeError};
use windlass_core::workspace::{Oid, Worktree};

use super::{PRELUDE, pieces};
use crate::group::Cancel;
use crate::vcs_worktree::commit::{cleaned, unattended};
use crate::vcs_worktree::git::{failure, first_line};
use crate::vcs_worktree::refs::{self, HEADS};
use crate::vcs_worktree::verify::Found;
use crate::vcs_worktree::{Inner, failed};

/// What the step runs. Its arguments are git, the common git directory, the target's full name, the commits before and after,
/// what to say in the reflog, the checkout of the target or nothing, and the commit of a merge of which that checkout has a
/// part, or nothing.
///
/// A checkout follows before its branch moves: git puts files and index first. Who dies between leaves a checkout in which
/// the merge seems to be staged, never one in which it seems to be undone. The next one puts that back and begins anew.
const SCRIPT: &str = r#"
flush
if [ -z "$checkout" ]; then
    [ "$(run rev-parse --verify --quiet "$ref")" = "$new" ] && exit 0
    if run worktree list --porcelain | grep -qxF "branch $ref"; then
        echo "$ref is checked out by now: nothing was merged" >&2
        exit 1
    fi
    run update-ref -m "$why" "$ref" "$new" "$old" || exit
    flush
    exit 0
fi
cd "$checkout" || exit
if [ "$(run symbolic-ref --quiet HEAD)" != "$ref" ]; then
    echo "$checkout is on another branch by now: nothing was merged" >&2
    exit 1
fi
now=$(run rev-parse --verify HEAD) || exit
[ "$now" = "$new" ] && exit 0
if [ "$now" != "$old" ]; then
    echo "$ref is at $now by now: nothing was merged" >&2
    exit 1
fi
changed() {
    run diff-tree -r -z --no-renames --name-only --diff-filter="$1" "$old" "$part"
}
if [ -n "$part" ]; then
    if [ -n "$(changed a | tr -d '\000' | head -c 1)" ]; then
        changed a | run --literal-pathspecs restore --source="$old" --staged --worktree \
            --pathspec-from-file=- --pathspec-file-nul || exit
    fi
    if [ -n "$(changed A | tr -d '\000' | head -c 1)" ]; then
        changed A | xargs -0 rm -f -- || exit
        changed A | run --literal-pathspecs rm --quiet --cached --force --ignore-unmatch \
            --pathspec-from-file=- --pathspec-file-nul || exit
    fi
fi
GIT_REFLOG_ACTION=$why
export GIT_REFLOG_ACTION
run merge --quiet --ff-only --no-squash --no-verify-signatures --no-stat \
    --no-autostash --no-overwrite-ignore "$new" || exit
flush
"#;

/// Each object is on the disk before it has its name: git takes one whose file is there for whole, also if a power cut left it
/// empty.
const SYNCED: &str = "core.fsync=loose-object";

/// Before these versions git cannot merge without a worktree, or not from a commit that is named.
const WRITES_TREES: &str = "git 2.38";

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) target: &'a str,
    pub(super) style: MergeStyle,
    pub(super) message: &'a str,
}

/// What two sides come to.
pub(super) enum Tree {
    Clean(Oid),
    Conflicts(Vec<String>),
}

impl Inner {
    pub(super) fn plan_merge(
        &self,
        cancel: &Cancel,
        found: &Found,
        worktree: &Worktree,
        request: &HistoryRequest,
        wanted: Wanted<'_>,
    ) -> Result<HistoryPlan, VcsHistoryError> {
        let target = wanted.target;
        if target == worktree.branch || found.verified.branch.as_deref() == Some(target) {
            return Err(VcsHistoryError::OwnBranch { branch: target.to_owned() });
        }
        self.refuse_uncommitted(cancel, found, worktree)?;
        let Some(old) = self.branch_oid(cancel, &found.common, target)? else {
            return Err(VcsHistoryError::NoBranch { branch: target.to_owned() });
        };
        let head = &found.verified.head;
        if let Some(merged) = self.merged_before(cancel, found, request, wanted, &old)? {
            return Ok(HistoryPlan::Done(Conclusion::Merged(merged)));
        }
        let Some(tree) = self.tree_to_be(cancel, found, worktree, request, (target, &old))? else {
            let merged = Merged {
                target: target.to_owned(),
                commit: old,
                head: head.clone(),
                style: None,
                at: request.at,
            };
            return Ok(HistoryPlan::Done(Conclusion::Merged(merged)));
        };
        let checkout = self.checkout_of(cancel, found, target)?;
        let part = self.part_of(cancel, checkout.as_ref(), target, &old, request.begun.as_ref())?;
        let parents = Parents { old: &old, head, tree: &tree };
        let new = self.make_commit(cancel, found, request, wanted, parents)?;
        if let Some(checkout) = &checkout {
            let from = part.is_none().then_some(&old);
            self.refuse_in_the_way(cancel, checkout, target, from, &new)?;
        }
        let full = format!("{HEADS}{target}");
        let why = format!("windlass: merge {}", worktree.branch);
        let script = format!(
            "git=$1 common=$2 ref=$3 old=$4 new=$5 why=$6 checkout=$7 part=$8\n{PRELUDE}{SCRIPT}"
        );
        let place = checkout.as_ref().map_or(Path::new(""), |checkout| checkout.path.as_path());
        let arguments: [&OsStr; 7] = [
            found.common.as_os_str(),
            OsStr::new(&full),
            OsStr::new(&old.0),
            OsStr::new(&new.0),
            OsStr::new(&why),
            place.as_os_str(),
            OsStr::new(part.as_ref().map_or("", |part| &part.0)),
        ];
        let mut step = self.history_step("windlass-merge", &script, worktree, &arguments);
        step.env.extend(self.identity(cancel, found, &request.fallback)?);
        let begun = Begun::Merge { old, new, head: head.clone() };
        Ok(HistoryPlan::Run { step, begun })
    }

    /// Finds what the target will hold; `None` if all of the work is in it already, which somebody else has brought there.
    fn tree_to_be(
        &self,
        cancel: &Cancel,
        found: &Found,
        worktree: &Worktree,
        request: &HistoryRequest,
        (target, old): (&str, &Oid),
    ) -> Result<Option<Oid>, VcsHistoryError> {
        let (common, head) = (&found.common, &found.verified.head);
        let nothing = |why: &str| {
            let detail = format!("there is nothing to merge: {} {why}", worktree.branch);
            Err(VcsHistoryError::Nothing { detail })
        };
        if *head == worktree.base_oid {
            return nothing("has no commit of its own");
        }
        if self.reaches(cancel, common, old, head)? {
            return Ok(None);
        }
        let since = self.since(cancel, found, request.merged.as_ref(), target, old)?;
        let tree = match self.merged_tree(cancel, found, old, head, since.as_ref(), None)? {
            Tree::Clean(tree) => tree,
            Tree::Conflicts(files) => {
                return Err(VcsHistoryError::Conflicts { target: target.to_owned(), files });
            }
        };
        if self.tree_of(cancel, common, old)? != tree {
            return Ok(Some(tree));
        }
        let base = since.map_or_else(|| self.merge_base(cancel, found, worktree), Ok)?;
        if self.tree_of(cancel, common, &base)? == self.tree_of(cancel, common, head)? {
            return nothing("changes nothing");
        }
        Ok(None)
    }

    /// Finds these commits merged already, by us.
    fn merged_before(
        &self,
        cancel: &Cancel,
        found: &Found,
        request: &HistoryRequest,
        wanted: Wanted<'_>,
        tip: &Oid,
    ) -> Result<Option<Merged>, VcsWorktreeError> {
        let head = &found.verified.head;
        if let Some(merged) = &request.merged
            && merged.target == wanted.target
            && merged.head == *head
            && self.is_commit(cancel, &found.common, &merged.commit)?
            && self.reaches(cancel, &found.common, tip, &merged.commit)?
        {
            return Ok(Some(merged.clone()));
        }
        if let Some(Begun::Merge { new, head: merged, .. }) = &request.begun
            && merged == head
            && self.is_commit(cancel, &found.common, new)?
            && self.reaches(cancel, &found.common, tip, new)?
        {
            return Ok(Some(Merged {
                target: wanted.target.to_owned(),
                commit: new.clone(),
                head: head.clone(),
                style: Some(self.style_of(cancel, &found.common, new)?),
                at: request.at,
            }));
        }
        Ok(None)
    }

    /// Says how a merge of ours was made.
    fn style_of(
        &self,
        cancel: &Cancel,
        common: &Path,
        commit: &Oid,
    ) -> Result<MergeStyle, VcsWorktreeError> {
        let second = Oid(format!("{commit}^2"));
        let two = self.is_commit(cancel, common, &second)?;
        Ok(if two { MergeStyle::Commit } else { MergeStyle::Squash })
    }

    /// Names the commit from which on the work is not in the target yet, if that was squashed into it before: what came before
    /// is there in other words, and would conflict with itself.
    pub(super) fn since(
        &self,
        cancel: &Cancel,
        found: &Found,
        merged: Option<&Merged>,
        target: &str,
        tip: &Oid,
    ) -> Result<Option<Oid>, VcsWorktreeError> {
        let Some(merged) = merged
            .filter(|merged| merged.target == target && merged.style == Some(MergeStyle::Squash))
        else {
            return Ok(None);
        };
        let there = self.is_commit(cancel, &found.common, &merged.commit)?
            && self.is_commit(cancel, &found.common, &merged.head)?
            && self.reaches(cancel, &found.common, tip, &merged.commit)?
            && self.reaches(cancel, &found.common, &found.verified.head, &merged.head)?;
        Ok(there.then(|| merged.head.clone()))
    }

    /// Merges two sides without touching a worktree. New objects go to a directory of their own if one is named.
    pub(super) fn merged_tree(
        &self,
        cancel: &Cancel,
        found: &Found,
        old: &Oid,
        head: &Oid,
        since: Option<&Oid>,
        objects: Option<&Path>,
    ) -> Result<Tree, VcsWorktreeError> {
        let merge = self.git.on_repository(&found.common, "merge-tree").set(SYNCED);
        let mut merge = merge.args(["--write-tree", "--name-only", "--no-messages", "-z"]);
        if let Some(since) = since {
            merge = merge.arg(format!("--merge-base={since}"));
        }
        if let Some(objects) = objects {
            merge = merge
                .env("GIT_OBJECT_DIRECTORY", objects)
                .env("GIT_ALTERNATE_OBJECT_DIRECTORIES", quoted(&found.common.join("objects")));
        }
        let ended = merge.arg(&old.0).arg(&head.0).run(cancel)?;
        let mut printed = pieces(&ended.stdout);
        let tree = printed.next().and_then(refs::oid);
        match (ended.status.code(), tree) {
            (Some(0), Some(tree)) => Ok(Tree::Clean(tree)),
            (Some(1), Some(_)) => {
                let mut files: Vec<_> =
                    printed.map(|path| String::from_utf8_lossy(path).into_owned()).collect();
                files.dedup();
                Ok(Tree::Conflicts(files))
            }
            (Some(129), _) => {
                let detail =
                    format!("{WRITES_TREES} or newer is needed to merge, 2.40 to merge again");
                Err(VcsWorktreeError::NoGit { detail })
            }
            _ => Err(failure("merge-tree", &ended)),
        }
    }

    pub(super) fn tree_of(
        &self,
        cancel: &Cancel,
        common: &Path,
        commit: &Oid,
    ) -> Result<Oid, VcsWorktreeError> {
        let asked = self.git.on_repository(common, "rev-parse").args(["--verify", "--quiet"]);
        let asked = asked.arg("--end-of-options").arg(format!("{commit}^{{tree}}"));
        let ended = asked.run(cancel)?;
        refs::oid(first_line(&ended.stdout))
            .filter(|_| ended.status.success())
            .ok_or_else(|| failure("rev-parse", &ended))
    }

    /// Says whether there is a commit of this name.
    pub(super) fn is_commit(
        &self,
        cancel: &Cancel,
        common: &Path,
        commit: &Oid,
    ) -> Result<bool, VcsWorktreeError> {
        let asked = self.git.on_repository(common, "rev-parse").args(["--verify", "--quiet"]);
        let asked = asked.arg("--end-of-options").arg(format!("{commit}^{{commit}}"));
        Ok(asked.env("GIT_NO_LAZY_FETCH", "1").run(cancel)?.status.success())
    }

    fn make_commit(
        &self,
        cancel: &Cancel,
        found: &Found,
        request: &HistoryRequest,
        wanted: Wanted<'_>,
        parents: Parents<'_>,
    ) -> Result<Oid, VcsWorktreeError> {
        let scratch = self.scratch.dir().map_err(|error| failed("merge", &found.path, error))?;
        let message = scratch.path().join("message");
        fs::write(&message, cleaned(wanted.message))
            .map_err(|error| failed("merge", &message, error))?;
        let mut commit = self.git.on_repository(&found.common, "commit-tree").set(SYNCED);
        commit = commit.arg("-p").arg(&parents.old.0);
        if wanted.style == MergeStyle::Commit {
            commit = commit.arg("-p").arg(&parents.head.0);
        }
        for (name, value) in self.identity(cancel, found, &request.fallback)? {
            commit = commit.env(&name, OsStr::from_bytes(&value.0));
        }
        let date = format!("@{} +0000", request.at.0 / 1_000);
        commit = commit.env("GIT_AUTHOR_DATE", &date).env("GIT_COMMITTER_DATE", &date);
        let made = commit.arg("-F").arg(&message).arg(&parents.tree.0).output(cancel)?;
        refs::oid(first_line(&made)).ok_or_else(|| VcsWorktreeError::Git {
            command: "commit-tree".to_owned(),
            stderr: "it named no commit".to_owned(),
        })
    }

    /// Names author and committer as a commit would.
    pub(super) fn identity(
        &self,
        cancel: &Cancel,
        found: &Found,
        fallback: &Identity,
    ) -> Result<Vec<(String, OsBytes)>, VcsWorktreeError> {
        let mut env = self.settings(cancel, found)?.identity(fallback);
        env.extend(unattended());
        Ok(env)
    }
}

/// Writes a directory as git reads it in a list of them.
fn quoted(path: &Path) -> OsString {
    let bytes = path.as_os_str().as_bytes();
    if !bytes.contains(&b':') && !bytes.starts_with(b"\"") {
        return path.as_os_str().to_owned();
    }
    let mut quoted = vec![b'"'];
    for byte in bytes {
        if matches!(byte, b'"' | b'\\') {
            quoted.push(b'\\');
        }
        quoted.push(*byte);
    }
    quoted.push(b'"');
    OsString::from_vec(quoted)
}

/// What a commit is made of.
struct Parents<'a> {
    old: &'a Oid,
    head: &'a Oid,
    tree: &'a Oid,
}
