//! Why something was not done with the commits of a worktree.

use crate::locator::Locator;
use crate::vcs_worktree::VcsWorktreeError;

/// Why something was not done with the commits of a worktree; nothing was touched.
#[derive(Debug, thiserror::Error)]
pub enum VcsHistoryError {
    /// Not all of the work is committed.
    #[error("{path} has changes that are not committed: {detail}")]
    Dirty {
        /// The worktree.
        path: Locator,
        /// Some of them, for people.
        detail: String,
    },
    /// A checkout of the target cannot follow it.
    #[error("{branch} is checked out in {path}, which cannot follow it: {detail}")]
    TargetInUse {
        /// The target.
        branch: String,
        /// The checkout.
        path: Locator,
        /// What is in the way, for people.
        detail: String,
    },
    /// The two sides change the same.
    #[error("{} with {target}: {}", conflicts(files.len()), named(files))]
    Conflicts {
        /// The target.
        target: String,
        /// The files, as git prints them.
        files: Vec<String>,
    },
    /// There is no such branch, or it has no commit.
    #[error("there is no branch {branch:?} with a commit")]
    NoBranch {
        /// The branch.
        branch: String,
    },
    /// The branch is the worktree's own.
    #[error("{branch:?} is the branch that the work is on")]
    OwnBranch {
        /// The branch.
        branch: String,
    },
    /// There is nothing to do it with.
    #[error("{detail}")]
    Nothing {
        /// What is missing, for people.
        detail: String,
    },
    /// There is no such remote, or it cannot be told which one is meant.
    #[error("{detail}")]
    NoRemote {
        /// What is missing, for people.
        detail: String,
    },
    /// Something is wrong with the worktree, its repository, or git.
    #[error(transparent)]
    Worktree(#[from] VcsWorktreeError),
}

/// How many files a message names.
const NAMED: usize = 50;

fn named(files: &[String]) -> String {
    let first = files.iter().take(NAMED).map(|file| file.escape_debug().to_string());
    let first = first.collect::<Vec<_>>().join(", ");
    match files.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

fn conflicts(files: usize) -> String {
    if files == 1 { "1 file conflicts".to_owned() } else { format!("{files} files conflict") }
}
