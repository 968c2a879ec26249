//! What is asked for about tasks.

use serde::{Deserialize, Serialize};
use windlass_core::id::{AttemptId, ProjectId};
use windlass_core::locator::Locator;
use windlass_core::record::CommitPolicy;

use super::{LaunchRequest, Scripts};

/// A new task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRequest {
    /// The project it is about.
    pub project: ProjectId,
    /// What people call it: one line.
    pub title: String,
    /// All that is to be said of it.
    #[serde(default)]
    pub description: String,
    /// The attempt whose work it goes on from.
    #[serde(default)]
    pub parent: Option<AttemptId>,
}

/// What a user says of a task's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Say {
    /// It is to be done (again), until an attempt of it does something.
    Todo,
    /// It is done, until an attempt of it does something.
    Done,
    /// It is given up: nothing starts for it.
    Cancelled,
    /// It is put away: nothing starts for it.
    Archived,
    /// What was said is taken back: its attempts alone tell how it stands.
    Reopen,
}

/// What is to be changed of a task. What is absent stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskChange {
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// All that is to be said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// How it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Say>,
}

/// A new attempt of a task. What is absent is as its project says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRun {
    /// The user's directory to run in, in place of a new worktree.
    #[serde(default)]
    pub dir: Option<Locator>,
    /// The base.
    #[serde(default)]
    pub base: Option<String>,
    /// The new branch's name; null makes one.
    #[serde(default)]
    pub branch: Option<String>,
    /// Ignored files to copy in: globs as in `.gitignore`, in place of the project's.
    #[serde(default)]
    pub copy: Option<Vec<String>>,
    /// What people call the attempt; null is what they call the task.
    #[serde(default)]
    pub title: Option<String>,
    /// What happens to changes when it ended well.
    #[serde(default)]
    pub commit: Option<CommitPolicy>,
    /// What to run before and after it; in place of the project's, which prepare new worktrees and none of the user's
    /// directories.
    #[serde(flatten)]
    pub scripts: Scripts,
    /// What to run.
    pub launch: LaunchRequest,
}

impl TaskRun {
    /// Makes a request to run something as the project says.
    #[must_use]
    pub fn new(launch: LaunchRequest) -> Self {
        let (dir, base, branch, copy, title, commit) = (None, None, None, None, None, None);
        Self { dir, base, branch, copy, title, commit, scripts: Scripts::default(), launch }
    }
}
