//! The port [`VcsWorktree`]: worktrees of version-controlled repositories.
//!
//! It makes, checks, compares and removes them. Steps that can run the user's code (commit hooks, filters) are not
//! performed here: they are described as a [`GitStep`] that runs as an execution of its own.

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::BackendError;
use crate::id::AttemptId;
use crate::locator::{Locator, OsBytes};
use crate::workspace::{Oid, Worktree};

/// Which worktree somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorktreeRequest {
    /// For which attempt.
    pub attempt: AttemptId,
    /// Any directory in the repository, or the repository.
    pub repo: Locator,
    /// The base: a branch, tag, commit or remote branch; `None` is what HEAD names.
    pub base: Option<String>,
    /// The new branch's name; `None` makes one from prefix, short id and title.
    pub branch: Option<String>,
    /// The attempt's title; any text.
    pub title: String,
}

/// A worktree as it will be, with what its user should know first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The record to keep before it is created.
    pub worktree: Worktree,
    /// The checkout that the request stood in has uncommitted changes, which will not be in the worktree.
    pub source_is_dirty: bool,
}

/// What was found where a worktree is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorktreeStatus {
    /// The commit that HEAD names.
    pub head: Oid,
    /// The branch that HEAD names; `None` if it is detached.
    pub branch: Option<String>,
    /// Something differs from HEAD or is untracked (ignored files do not count).
    pub dirty: bool,
    /// Commits since the merge base with the base, on this side.
    pub ahead: u64,
    /// Commits since the merge base with the target (else the base), on the other side.
    pub behind: u64,
}

/// What was verified before a launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The commit that HEAD names.
    pub head: Oid,
    /// The branch that HEAD names; `None` if it is detached.
    pub branch: Option<String>,
}

/// Who a commit is by when the repository does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name.
    pub name: String,
    /// Mail address.
    pub email: String,
}

/// A git step that may run the user's code and therefore runs as an execution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitStep {
    /// Program and arguments.
    pub argv: Vec<OsBytes>,
    /// Variables to add to the attempt's environment.
    pub env: Vec<(String, OsBytes)>,
    /// Where to run it.
    pub cwd: Locator,
    /// The repository whose lock it holds.
    pub repository_lock: Locator,
}

/// How to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitPlan {
    /// There is nothing to commit.
    Clean {
        /// The commit that HEAD names.
        head: Oid,
    },
    /// This step commits everything that is dirty. Performing it twice commits once.
    Run(GitStep),
}

/// How a file differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// Its content or mode changed.
    Modified,
    /// It is gone.
    Deleted,
    /// It has another path.
    Renamed,
    /// It was copied from another path.
    Copied,
    /// It became another kind of entry (file, link, submodule).
    TypeChanged,
}

/// One changed file of a diff.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDiff {
    /// Its path, relative to the worktree.
    pub path: Locator,
    /// Its former path, if renamed or copied.
    pub old_path: Option<Locator>,
    /// How it differs.
    pub change: ChangeKind,
    /// Lines added; `None` for binary content.
    pub added: Option<u64>,
    /// Lines removed; `None` for binary content.
    pub removed: Option<u64>,
    /// The new mode in octal as git prints it, for example `100755`; `None` if deleted.
    pub mode: Option<String>,
    /// The file is not tracked.
    pub untracked: bool,
}

/// How much of a diff to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiffDetail {
    /// Changed files with counts.
    Files,
    /// Also the text that `git apply` takes.
    Patch,
}

/// What differs between the merge base and the worktree, untracked files included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diff {
    /// The merge base.
    pub base: Oid,
    /// The commit that HEAD names.
    pub head: Oid,
    /// The files, in path order.
    pub files: Vec<FileDiff>,
    /// The patch, if it was asked for; raw bytes.
    pub patch: Option<Vec<u8>>,
}

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
    /// There is no room on the disk; what was begun was undone.
    #[error("no space left for a worktree")]
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

/// Worktrees of version-controlled repositories.
///
/// # Contract
///
/// - Nothing is touched that does not carry our marker for this attempt.
/// - Each operation is safe to perform twice: creating what is there, removing what is gone.
/// - The user's repository is not written by looking (no index refresh, no objects).
///
/// # Cancel safety
///
/// A dropped future may leave its work half done; performing it again completes it.
///
/// # Example
///
/// ```
/// # use windlass_core::vcs_worktree::*;
/// # async fn doc(vcs: &dyn VcsWorktree, request: WorktreeRequest) -> Result<(), VcsWorktreeError> {
/// let attempt = request.attempt;
/// let planned = vcs.plan(request).await?;
/// // … record `planned.worktree` durably, then:
/// vcs.create(attempt, &planned.worktree).await?;
/// let diff = vcs.diff(attempt, &planned.worktree, DiffDetail::Files).await?;
/// assert!(diff.files.is_empty());
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait VcsWorktree: fmt::Debug + Send + Sync + 'static {
    /// Resolves a request to what will be created. Makes nothing.
    ///
    /// # Errors
    ///
    /// [`VcsWorktreeError::NotARepository`], [`Empty`](VcsWorktreeError::Empty),
    /// [`UnknownBase`](VcsWorktreeError::UnknownBase), [`BranchExists`](VcsWorktreeError::BranchExists),
    /// [`InvalidBranch`](VcsWorktreeError::InvalidBranch), [`NoGit`](VcsWorktreeError::NoGit).
    async fn plan(&self, request: WorktreeRequest) -> Result<Planned, VcsWorktreeError>;

    /// Makes the worktree and its branch, with our marker. One that is there already is verified and kept.
    ///
    /// # Errors
    ///
    /// See [`VcsWorktreeError`]; what was begun is undone.
    async fn create(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<Verified, VcsWorktreeError>;

    /// Checks that what is there is the recorded worktree of this attempt.
    ///
    /// # Errors
    ///
    /// [`VcsWorktreeError::Gone`], [`Mismatch`](VcsWorktreeError::Mismatch).
    async fn verify(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<Verified, VcsWorktreeError>;

    /// Measures it against its base and target.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify).
    async fn status(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<WorktreeStatus, VcsWorktreeError>;

    /// Compares the merge base with the worktree, untracked files included, renames found.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify).
    async fn diff(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        detail: DiffDetail,
    ) -> Result<Diff, VcsWorktreeError>;

    /// Describes how to commit what is dirty. Writes nothing.
    ///
    /// `fallback` is used where the repository has no identity; its configuration is never written.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify).
    async fn plan_commit(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        message: &str,
        fallback: &Identity,
    ) -> Result<CommitPlan, VcsWorktreeError>;

    /// Removes a worktree that holds nothing unsaved; keeps its branch. One that is gone is no error.
    ///
    /// # Errors
    ///
    /// [`VcsWorktreeError::Unsaved`], [`Occupied`](VcsWorktreeError::Occupied),
    /// [`Mismatch`](VcsWorktreeError::Mismatch): nothing was touched.
    async fn remove(&self, attempt: AttemptId, worktree: &Worktree)
    -> Result<(), VcsWorktreeError>;
}
