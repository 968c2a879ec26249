//! Looks at a worktree that is followed: where it stands, and what differs in some of its paths.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use windlass_core::diff_ledger::Standpoint;
use windlass_core::id::AttemptId;
use windlass_core::vcs_worktree::VcsWorktreeError;
use windlass_core::workspace::Worktree;

use super::diff::Pieces;
use super::refs::HEADS;
use super::scan::Scope;
use super::verify::{Found, read_link};
use super::{GitWorktrees, Inner, Opening, path_of};
use crate::group::Cancel;

/// A worktree to be looked at again and again. Its methods block.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    opening: Arc<Opening>,
    attempt: AttemptId,
    worktree: Worktree,
}

/// What git keeps in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GitDirectory {
    /// What is the worktree's alone: HEAD, the index.
    Private,
    /// What all worktrees share: configuration, packed refs.
    Common,
    /// Rules: what is ignored, attributes.
    Info,
    /// Refs.
    Refs,
}

/// Where a worktree stands.
#[derive(Debug)]
pub(crate) struct Stand {
    inner: Arc<Inner>,
    found: Found,
    /// From where to where is compared.
    pub(crate) at: Standpoint,
    target: Option<String>,
}

impl GitWorktrees {
    /// Prepares to look at a worktree again and again. One that a crash left aside is put back.
    pub(crate) async fn live(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<Live, VcsWorktreeError> {
        let verify = move |inner: &Inner, cancel: &Cancel, worktree: &Worktree| {
            inner.verify(cancel, attempt, worktree).map(drop)
        };
        self.at_place("follow", attempt, worktree, verify).await?;
        let opening = Arc::clone(&self.opening);
        Ok(Live { opening, attempt, worktree: worktree.clone() })
    }
}

impl Live {
    /// The worktree's directory.
    pub(crate) fn top(&self) -> PathBuf {
        path_of(&self.worktree.path)
    }

    /// Verifies the worktree, and finds out where it stands.
    pub(crate) fn stand(&self, cancel: &Cancel) -> Result<Stand, VcsWorktreeError> {
        let inner = self.opening.inner()?;
        let found = inner.verify(cancel, self.attempt, &self.worktree)?;
        let base = inner.merge_base(cancel, &found, &self.worktree)?;
        let verified = &found.verified;
        let at = Standpoint { base, branch: verified.branch.clone(), head: verified.head.clone() };
        Ok(Stand { inner, found, at, target: self.worktree.target.clone() })
    }
}

impl Stand {
    /// Compares this much of the worktree with the base.
    pub(crate) fn pieces(
        &self,
        cancel: &Cancel,
        scope: &Scope<'_>,
    ) -> Result<Pieces, VcsWorktreeError> {
        self.inner.pieces(cancel, &self.found, &self.at.base, scope)
    }

    /// Lists the directories in which git keeps what decides where the worktree stands and what is ignored, as far as they
    /// are there.
    pub(crate) fn git_directories(&self) -> Vec<(PathBuf, GitDirectory)> {
        let common = &self.found.common;
        let mut refs = vec![common.join("refs"), common.join("reftable")];
        refs.push(self.found.admin.join("reftable"));
        for branch in self.at.branch.iter().chain(&self.target) {
            let name = format!("{HEADS}{branch}");
            let ends = name.char_indices().filter(|(_, char)| *char == '/');
            refs.extend(ends.map(|(end, _)| common.join(&name[..end])));
        }
        refs.sort();
        refs.dedup();
        let others = [
            (self.found.admin.clone(), GitDirectory::Private),
            (common.clone(), GitDirectory::Common),
            (common.join("info"), GitDirectory::Info),
        ];
        let refs = refs.into_iter().map(|refs| (refs, GitDirectory::Refs));
        others.into_iter().chain(refs).collect()
    }

    /// The git directory of a repository inside; `None` if it has none that can be read.
    pub(crate) fn git_directory(&self, repository: &Path) -> Option<PathBuf> {
        let dir = self.found.path.join(repository);
        let git = dir.join(".git");
        if git.symlink_metadata().ok()?.is_dir() {
            return Some(git);
        }
        read_link(&git, "gitdir: ", &dir).ok().flatten()
    }
}
