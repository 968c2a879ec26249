//! Why an attempt is held or failed.

use serde::{Deserialize, Serialize};

use crate::id::ExecutionId;

/// Why an attempt is held or failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reason {
    /// Somebody stopped it.
    Stopped,
    /// The execution did not end well.
    EndedBadly {
        /// Which one.
        execution: ExecutionId,
    },
    /// The work could not be committed; it is still in the worktree.
    CommitFailed {
        /// Git's output, at most 4 KiB.
        output: String,
        /// The git execution whose log has all of it, if there was one.
        execution: Option<ExecutionId>,
    },
    /// The cleanup script did not end well; what it had changed was saved and undone. Nothing waits for that.
    CleanupFailed {
        /// Which execution.
        execution: ExecutionId,
    },
    /// The worktree could not be put back to a commit: what was to be undone is still in it.
    ResetFailed {
        /// What git, or what keeps it from being saved first, said.
        output: String,
        /// The git execution whose log has all of it, if there was one.
        execution: Option<ExecutionId>,
    },
    /// The workspace could not be made.
    WorkspaceFailed {
        /// What went wrong.
        message: String,
        /// The git execution that was to check out its files and whose log says all of it, if there was one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        execution: Option<ExecutionId>,
    },
    /// The workspace could not be removed.
    RemoveFailed {
        /// What went wrong.
        message: String,
    },
}
