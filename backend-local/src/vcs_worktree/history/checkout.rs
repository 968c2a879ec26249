//! Checkouts of a branch that is to move: they follow it, or are a reason to leave it.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use windlass_core::vcs_history::VcsHistoryError;
use windlass_core::vcs_worktree::{VcsWorktreeError, Verified};
use windlass_core::workspace::Oid;

use super::{in_progress, in_words, pieces};
use crate::group::Cancel;
use crate::vcs_worktree::commit::named;
use crate::vcs_worktree::git::without_newline;
use crate::vcs_worktree::refs::HEADS;
use crate::vcs_worktree::reset::standing;
use crate::vcs_worktree::verify::Found;
use crate::vcs_worktree::{Inner, locator};

impl Inner {
    /// Finds the checkout of a branch; refuses where it is checked out so that nobody can follow it.
    pub(super) fn checkout_of(
        &self,
        cancel: &Cancel,
        found: &Found,
        branch: &str,
    ) -> Result<Option<Found>, VcsHistoryError> {
        let in_use = |path: &Path, detail: &str| VcsHistoryError::TargetInUse {
            branch: branch.to_owned(),
            path: locator(path),
            detail: detail.to_owned(),
        };
        if let Some(admin) = rebased_in(&found.common, branch) {
            return Err(in_use(&admin, "it is being rebased there"));
        }
        let listed = self.git.on_repository(&found.common, "worktree list");
        let listed = listed.args(["--porcelain", "-z"]).output(cancel)?;
        let full = format!("branch {HEADS}{branch}");
        let mut there = Vec::new();
        let mut path = None;
        for line in pieces(&listed) {
            if let Some(at) = line.strip_prefix(b"worktree ") {
                path = Some(PathBuf::from(OsStr::from_bytes(at)));
            } else if line == full.as_bytes() {
                there.extend(path.take());
            }
        }
        let path = match there.as_slice() {
            [] => return Ok(None),
            [path] => path,
            [path, ..] => return Err(in_use(path, "it is checked out elsewhere, too")),
        };
        if path.starts_with(&self.root) {
            return Err(in_use(path, "it is the worktree of another attempt"));
        }
        if !path.is_dir() {
            let detail = "it is gone; `git worktree prune` forgets it";
            return Err(in_use(path, detail));
        }
        let checkout = self.opened(cancel, path, &found.common, branch)?;
        if let Some(what) = in_progress(&checkout)? {
            return Err(in_use(path, in_words(what)));
        }
        self.clear_locks(cancel, &checkout)?;
        Ok(Some(checkout))
    }

    fn opened(
        &self,
        cancel: &Cancel,
        path: &Path,
        common: &Path,
        branch: &str,
    ) -> Result<Found, VcsWorktreeError> {
        let asked = self.git.within(path, "rev-parse").arg("--absolute-git-dir");
        let admin = asked.output(cancel)?;
        let admin = PathBuf::from(OsStr::from_bytes(without_newline(&admin)));
        let head = self.branch_oid(cancel, common, branch)?.unwrap_or_else(|| Oid(String::new()));
        let verified = Verified { head, branch: Some(branch.to_owned()) };
        Ok(Found { path: path.to_owned(), admin, common: common.to_owned(), verified })
    }

    /// Lists what is tracked in a checkout and differs from its commit, in the index or in the files.
    pub(super) fn tracked_changes(
        &self,
        cancel: &Cancel,
        checkout: &Found,
    ) -> Result<Vec<Vec<u8>>, VcsWorktreeError> {
        let status = self.git.on_worktree(&checkout.admin, &checkout.path, "status");
        let status = status.args(["--porcelain", "-z", "--no-renames", "--untracked-files=no"]);
        let output = status.arg("--ignore-submodules=dirty").output(cancel)?;
        Ok(pieces(&output).filter_map(|entry| Some(entry.get(3..)?.to_vec())).collect())
    }

    /// Refuses a checkout that has something of its own where the target will have files. `from` is the commit that is
    /// checked out, unless a part of the merge is there already.
    pub(super) fn refuse_in_the_way(
        &self,
        cancel: &Cancel,
        checkout: &Found,
        branch: &str,
        from: Option<&Oid>,
        to: &Oid,
    ) -> Result<(), VcsHistoryError> {
        let Some(from) = from else { return Ok(()) };
        let added = self.added(cancel, checkout, from, to)?;
        let there = added.iter().filter_map(|path| {
            standing(&checkout.path, Path::new(OsStr::from_bytes(path)))
                // What is in the way above a file may be a file that the merge removes.
                .filter(|at| at.as_os_str().as_bytes() == path.as_slice())
        });
        let there: Vec<_> = there.map(|path| path.to_string_lossy().into_owned()).collect();
        if there.is_empty() {
            return Ok(());
        }
        Err(VcsHistoryError::TargetInUse {
            branch: branch.to_owned(),
            path: locator(&checkout.path),
            detail: format!("the merge has files where it has others: {}", named(&there)),
        })
    }

    /// Lists the files that a commit has and another one has not.
    pub(super) fn added(
        &self,
        cancel: &Cancel,
        checkout: &Found,
        from: &Oid,
        to: &Oid,
    ) -> Result<Vec<Vec<u8>>, VcsWorktreeError> {
        let added = self.git.on_repository(&checkout.common, "diff-tree");
        let added = added.args(["-r", "-z", "--no-renames", "--diff-filter=A", "--name-only"]);
        let added = added.arg(&from.0).arg(&to.0).output(cancel)?;
        Ok(pieces(&added).map(<[u8]>::to_vec).collect())
    }
}

/// Finds a private git directory in which a branch is being rebased: it is checked out nowhere then, and will be moved.
fn rebased_in(common: &Path, branch: &str) -> Option<PathBuf> {
    let full = format!("{HEADS}{branch}");
    let linked = fs::read_dir(common.join("worktrees")).into_iter().flatten().flatten();
    let mut admins = linked.map(|entry| entry.path()).chain([common.to_owned()]);
    admins.find(|admin| {
        ["rebase-merge/head-name", "rebase-apply/head-name"].iter().any(|file| {
            fs::read(admin.join(file)).is_ok_and(|name| name.trim_ascii() == full.as_bytes())
        })
    })
}
