//! The branch that was made for a worktree, also after it was renamed.

use windlass_core::vcs_worktree::VcsWorktreeError;
use windlass_core::workspace::{Oid, Worktree};

use super::Inner;
use super::refs::HEADS;
use super::verify::Found;
use crate::group::Cancel;

/// What git writes into the log of a HEAD whose branch is renamed, before both names.
const RENAMED: &str = "Branch: renamed ";

/// A worktree's own branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OwnBranch {
    /// Its name now, without `refs/heads/`.
    pub(super) name: String,
    /// Where it is.
    pub(super) oid: Oid,
}

impl Inner {
    /// Finds the branch that was made for a worktree, by the log of its HEAD if it was renamed. `None` if it is gone.
    pub(super) fn own_branch(
        &self,
        cancel: &Cancel,
        found: &Found,
        worktree: &Worktree,
    ) -> Result<Option<OwnBranch>, VcsWorktreeError> {
        let mut name = worktree.branch.clone();
        if let Some(oid) = self.branch_oid(cancel, &found.common, &name)? {
            return Ok(Some(OwnBranch { name, oid }));
        }
        let log = self.git.on_repository(&found.admin, "log").env("GIT_NO_LAZY_FETCH", "1");
        let log = log.args(["-g", "--format=%gs", "HEAD", "--"]).run(cancel)?;
        // One that cannot be read tells of no name.
        let text = String::from_utf8_lossy(&log.stdout);
        name = renamed(name, text.lines().rev());
        if name == worktree.branch {
            return Ok(None);
        }
        let oid = self.branch_oid(cancel, &found.common, &name)?;
        Ok(oid.map(|oid| OwnBranch { name, oid }))
    }
}

/// Follows a name through a log, the oldest line first.
fn renamed<'a>(name: String, log: impl Iterator<Item = &'a str>) -> String {
    log.fold(name, |name, line| {
        let names = line.strip_prefix(RENAMED).and_then(|names| names.split_once(" to "));
        let names =
            names.and_then(|(from, to)| Some((from.strip_prefix(HEADS)?, to.strip_prefix(HEADS)?)));
        match names {
            Some((from, to)) if from == name => to.to_owned(),
            Some(_) | None => name,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_followed_in_order_and_those_of_others_are_not() {
        let log = [
            "commit: Branch: renamed refs/heads/a to refs/heads/x",
            "Branch: renamed refs/heads/other to refs/heads/y",
            "Branch: renamed refs/heads/a to refs/heads/b",
            "Branch: renamed refs/heads/b to refs/heads/c/d",
            "Branch: renamed refs/heads/b to refs/heads/z",
            "checkout: moving from c/d to main",
        ];
        assert_eq!(renamed("a".to_owned(), log.into_iter()), "c/d");
        assert_eq!(renamed("q".to_owned(), log.into_iter()), "q");
    }
}
