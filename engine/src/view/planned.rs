//! What clients are shown of projects and tasks.

use serde::{Deserialize, Serialize};
use windlass_core::id::{AttemptId, ProjectId, TaskId};
use windlass_core::locator::Locator;
use windlass_core::record::{
    AttemptRecord, AttemptStatus, CommitPolicy, ProjectDefaults, ProjectRecord, TaskRecord,
};
use windlass_core::task::TaskStatus;

use super::{SCHEMA, Time};
use crate::handle::{Project, Task};

/// A repository with its defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectView {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Its id.
    pub id: ProjectId,
    /// What people call it.
    pub name: String,
    /// The client it belongs to.
    pub owner: Option<String>,
    /// Where its attempts start from.
    pub repo: Locator,
    /// The repository: its common git directory.
    pub git_dir: Locator,
    /// The base of new attempts; null is what HEAD names.
    pub base: Option<String>,
    /// The script that prepares a new workspace.
    pub setup: Option<String>,
    /// The script that tidies up after the work.
    pub cleanup: Option<String>,
    /// The script that serves while people look.
    pub dev: Option<String>,
    /// Ignored files that are copied into new worktrees: globs.
    pub copy: Vec<String>,
    /// What happens to changes when a chain ended well.
    pub commit: CommitPolicy,
    /// How often it has been written: a change may be bound to it.
    pub version: u64,
    /// When it was added.
    pub created_at: Time,
}

impl From<Project> for ProjectView {
    fn from(project: Project) -> Self {
        let Project { record, version } = project;
        let ProjectRecord { id, name, owner, repo, git_dir, defaults, created_at } = record;
        let ProjectDefaults { base, setup, cleanup, dev, copy, commit } = defaults;
        Self {
            schema: SCHEMA,
            id,
            name,
            owner,
            repo,
            git_dir,
            base,
            setup,
            cleanup,
            dev,
            copy,
            commit,
            version: version.0,
            created_at: Time(created_at),
        }
    }
}

/// An attempt, as its task shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskAttemptView {
    /// Its id.
    pub id: AttemptId,
    /// What people call it.
    pub title: String,
    /// Where it is in its life.
    pub status: AttemptStatus,
    /// The branch that was made for it; null in a plain directory.
    pub branch: Option<String>,
    /// When it was created.
    pub created_at: Time,
}

impl From<AttemptRecord> for TaskAttemptView {
    fn from(record: AttemptRecord) -> Self {
        Self {
            id: record.id,
            branch: record.workspace.worktree().map(|worktree| worktree.branch.clone()),
            title: record.title,
            status: record.status,
            created_at: Time(record.created_at),
        }
    }
}

/// What somebody wants done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskView {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Its id.
    pub id: TaskId,
    /// The project it is about.
    pub project_id: ProjectId,
    /// What people call it.
    pub title: String,
    /// All that is to be said of it.
    pub description: String,
    /// How far it is; follows from what its user said and from its attempts.
    pub status: TaskStatus,
    /// The client it belongs to.
    pub owner: Option<String>,
    /// The attempt whose work it goes on from.
    pub parent_attempt_id: Option<AttemptId>,
    /// Its attempts, newest first.
    pub attempts: Vec<TaskAttemptView>,
    /// How often it has been written: a change may be bound to it. Attempts do not raise it.
    pub version: u64,
    /// When it was added.
    pub created_at: Time,
}

impl From<Task> for TaskView {
    fn from(task: Task) -> Self {
        let Task { record, version, status, attempts } = task;
        let TaskRecord { id, project, title, description, owner, parent, said: _, created_at } =
            record;
        Self {
            schema: SCHEMA,
            id,
            project_id: project,
            title,
            description,
            status,
            owner,
            parent_attempt_id: parent,
            attempts: attempts.into_iter().map(Into::into).collect(),
            version: version.0,
            created_at: Time(created_at),
        }
    }
}
