//! Why a worktree operation was not done.

use crate::error::BackendError;
use crate::locator::Locator;
use crate::snapshot::SnapshotNumber;

/// Why a worktree operation was not done.
#[derive(Debug, thiserror::Error)]
pub enum VcsWorktreeError {
    /// The path is in no repository.
    #[error("{path} is not in a git repository")]
    NotARepository {
        /// The path.
        path: Locator,
    },
    /// The repository has no commit to start from.
    #[error("{repo} has no commit yet")]
    Empty {
        /// The repository.
        repo: Locator,
    },
    /// The base names no commit.
    #[error("{base:?} names no commit")]
    UnknownBase {
        /// The base.
        base: String,
    },
    /// There is such a branch already.
    #[error("branch {branch:?} exists")]
    BranchExists {
        /// The branch.
        branch: String,
    },
    /// Git takes no such branch name.
    #[error("{branch:?} is no valid branch name")]
    InvalidBranch {
        /// The name.
        branch: String,
    },
    /// The step that was to check out its files did not come to its end; the worktree was undone.
    #[error("the files of {path} were not checked out to the end")]
    Incomplete {
        /// Where it was to be.
        path: Locator,
    },
    /// The worktree is gone.
    #[error("worktree {path} is gone")]
    Gone {
        /// Where it was.
        path: Locator,
    },
    /// What is there is not the recorded worktree; nothing was touched.
    #[error("{path} is not the recorded worktree: {detail}")]
    Mismatch {
        /// Where it should be.
        path: Locator,
        /// What is wrong.
        detail: String,
    },
    /// Something in it exists nowhere else; nothing was touched.
    #[error("{path} holds unsaved work: {detail}")]
    Unsaved {
        /// The worktree.
        path: Locator,
        /// What it holds.
        detail: String,
    },
    /// Something in it cannot be saved; nothing was removed.
    #[error("{path} holds what cannot be saved: {}", entries.join(", "))]
    Unsavable {
        /// The worktree.
        path: Locator,
        /// Each entry with its reason, for people; at most 16.
        entries: Vec<String>,
    },
    /// An operation is in progress in it, or it is locked; nothing was touched.
    #[error("{path} is not at rest: {detail}")]
    Unfinished {
        /// The worktree.
        path: Locator,
        /// What is in progress.
        detail: String,
    },
    /// The snapshots of this data directory fill their quota; nothing was removed.
    #[error("the snapshots take {used} bytes, {limit} are allowed")]
    Quota {
        /// How many bytes they take, the new one included.
        used: u64,
        /// How many they may take.
        limit: u64,
    },
    /// There is no such snapshot.
    #[error("snapshot {number} is gone")]
    NoSnapshot {
        /// Its number.
        number: SnapshotNumber,
    },
    /// The snapshot is not what was written; nothing was made of it.
    #[error("snapshot {number} is damaged: {detail}")]
    DamagedSnapshot {
        /// Its number.
        number: SnapshotNumber,
        /// What is wrong.
        detail: String,
    },
    /// Processes work in it; nothing was touched.
    #[error("{path} is in use: {detail}")]
    Occupied {
        /// The worktree.
        path: Locator,
        /// Who works in it.
        detail: String,
    },
    /// Another process holds the repository's lock.
    #[error("repository {repo} is busy{}", held_by(*holder))]
    Busy {
        /// The repository.
        repo: Locator,
        /// The process that took the lock, where it can be told.
        holder: Option<u32>,
    },
    /// There is no git, or one that is too old.
    #[error("git is not usable: {detail}")]
    NoGit {
        /// What is wrong.
        detail: String,
    },
    /// Something that was to be copied in cannot be, or must not be named; what was begun was undone.
    #[error("cannot copy {}", entries.join(", "))]
    CannotCopy {
        /// Each glob or entry with its reason, for people; at most 16.
        entries: Vec<String>,
    },
    /// There is no room on the disk; what was begun was undone.
    #[error("no space left on the disk")]
    Full,
    /// Git refused.
    #[error("git {command} failed: {stderr}")]
    Git {
        /// The git command, for example `worktree add`.
        command: String,
        /// What git said, at most 4 KiB.
        stderr: String,
    },
    /// The backend failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

fn held_by(holder: Option<u32>) -> String {
    holder.map_or_else(String::new, |pid| format!(": process {pid} holds its lock"))
}
