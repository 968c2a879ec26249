//! What makes a worktree that hooks or filters have a part in.

use serde::{Deserialize, Serialize};

use super::AttemptRecord;
use crate::id::ExecutionId;

/// The git execution that checks out the files of a worktree that is being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Making {
    /// Which.
    pub execution: ExecutionId,
    /// How often it was tried, this one counted.
    pub tries: u32,
}

impl AttemptRecord {
    /// Names the executions that are needed even if they are final: the one whose work is being committed, the one that makes
    /// the worktree, the one that does something with its commits, and those that another try is to be instead of.
    pub fn still_needed(&self) -> impl Iterator<Item = ExecutionId> {
        let making = self.making.map(|making| making.execution);
        let integrates = self.history.integration.iter().filter_map(|it| it.execution);
        let superseded = self.retry.iter().flat_map(|retry| retry.superseded.iter().copied());
        self.committing.into_iter().chain(making).chain(integrates).chain(superseded)
    }
}
