//! Why a request was not done.

use std::sync::Arc;

use windlass_core::error::BackendError;
use windlass_core::id::{AttemptId, ExecutionId, ProjectId, TaskId};

/// Why a request was not done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// There is no such thing.
    #[error("{what} not found")]
    NotFound {
        /// What, for example `execution x-01234567`.
        what: String,
    },
    /// The request makes no sense as it is.
    #[error("{reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// It cannot be done now, or not to this thing.
    #[error("{reason}")]
    Refused {
        /// Which rule; one of the words in `docs/api.md`.
        code: RefusalCode,
        /// What is in the way.
        reason: String,
    },
    /// The host is leaving and takes no more requests.
    #[error("the host is shutting down")]
    Closing,
    /// Another host took over these records.
    #[error("another host has taken over")]
    Superseded,
    /// A backend failed.
    #[error("the engine's backend failed")]
    Backend(#[source] Arc<BackendError>),
}

/// Which rule refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// As many executions run as may, and the request does not queue.
    LimitExecutions,
    /// The queue is full.
    QueueFull,
    /// Less disk is free than the floor.
    DiskFloor,
    /// The same key was used for another request.
    KeyReused,
    /// The source of a secret gives no value.
    NoSecret,
    /// The path is in no repository.
    NotARepository,
    /// The repository of the attempt is not where it was.
    RepositoryGone,
    /// The repository has no commit.
    EmptyRepository,
    /// The base names no commit.
    UnknownBase,
    /// There is such a branch.
    BranchExists,
    /// No such branch name is possible.
    InvalidBranch,
    /// Something in the worktree exists nowhere else and cannot be saved.
    Unsaved,
    /// A rebase, merge or the like is in progress in the worktree, or it is locked.
    Unfinished,
    /// The snapshots fill their quota.
    SnapshotQuota,
    /// There is no such snapshot.
    NoSnapshot,
    /// The snapshot is not what was written.
    DamagedSnapshot,
    /// No such message waits.
    NoFollowUp,
    /// Executions run in the workspace.
    Busy,
    /// The attempt has a dev server.
    DevServerRuns,
    /// The attempt's project has no script for a dev server.
    NoDevScript,
    /// Whether something listens on a port cannot be told.
    NotListened,
    /// The workspace is being removed, or is gone, or is not ready.
    WorkspaceGone,
    /// What is there is not the recorded worktree.
    WorkspaceMismatch,
    /// The repository is in use by another process.
    RepositoryBusy,
    /// There is no usable git.
    NoGit,
    /// The execution takes no input.
    NoInput,
    /// Too much input waits to be read; some of it has to be read first.
    InputFull,
    /// Changes of files cannot be followed.
    NotWatched,
    /// The directory is the user's; that is not done there.
    NotAWorktree,
    /// The attempt is in no state for it.
    WrongState,
    /// No disk space.
    Full,
    /// Something that was to be copied in cannot be.
    CannotCopy,
    /// A file cannot be attached.
    CannotAttach,
    /// Somebody else has changed it meanwhile.
    Conflict,
    /// Another project has this name.
    NameTaken,
    /// Something belongs to it.
    InUse,
    /// The task is cancelled or archived.
    TaskClosed,
    /// Something in the worktree, or in a checkout of the target, is not committed.
    Dirty,
    /// The work conflicts with its target.
    MergeConflict,
    /// There is no such branch or remote, or the work cannot go to it.
    NoTarget,
    /// There is nothing to do it with.
    NothingToDo,
    /// The host cannot do it at all.
    Unsupported,
    /// Git refused.
    Git,
}

impl EngineError {
    /// Makes a not-found error for an execution.
    #[must_use]
    pub fn no_execution(id: ExecutionId) -> Self {
        Self::NotFound { what: format!("execution {}", id.short()) }
    }

    /// Makes a not-found error for an attempt.
    #[must_use]
    pub fn no_attempt(id: AttemptId) -> Self {
        Self::NotFound { what: format!("attempt {}", id.short()) }
    }

    /// Makes a not-found error for a project.
    #[must_use]
    pub fn no_project(id: ProjectId) -> Self {
        Self::NotFound { what: format!("project {}", id.short()) }
    }

    /// Makes a not-found error for a task.
    #[must_use]
    pub fn no_task(id: TaskId) -> Self {
        Self::NotFound { what: format!("task {}", id.short()) }
    }

    /// Makes a refusal.
    pub fn refused(code: RefusalCode, reason: impl Into<String>) -> Self {
        Self::Refused { code, reason: reason.into() }
    }
}

impl From<BackendError> for EngineError {
    fn from(error: BackendError) -> Self {
        Self::Backend(Arc::new(error))
    }
}
