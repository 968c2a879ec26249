//! What is recorded of tasks.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Recorded;
use crate::id::{AttemptId, ProjectId, TaskId};
use crate::process_store::Kind;
use crate::task::Said;
use crate::time::Timestamp;

/// What somebody wants done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Its id.
    pub id: TaskId,
    /// The project it is about.
    pub project: ProjectId,
    /// What people call it.
    pub title: String,
    /// All that is to be said of it.
    pub description: String,
    /// The client it belongs to.
    pub owner: Option<String>,
    /// The attempt whose work it goes on from.
    pub parent: Option<AttemptId>,
    /// What its user said of its status. What it is follows from that and its attempts: [`crate::task::status`].
    pub said: Option<Said>,
    /// When it was added.
    pub created_at: Timestamp,
}

impl Recorded for TaskRecord {
    const KIND: Kind = Kind::Task;

    fn fields(&self) -> (Uuid, Option<Uuid>, Option<&str>, &'static str, Timestamp) {
        let said = self.said.map_or("open", |said| said.status.as_str());
        (self.id.0, Some(self.project.0), self.owner.as_deref(), said, self.created_at)
    }
}
