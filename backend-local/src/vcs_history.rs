//! The port [`VcsHistory`] on git.
//!
//! What it decides and describes is in [`vcs_worktree`](crate::vcs_worktree), which knows the worktrees.

use async_trait::async_trait;
use windlass_core::id::AttemptId;
use windlass_core::vcs_history::{
    Conclusion, HistoryPlan, HistoryRequest, Merged, Standing, VcsHistory, VcsHistoryError,
};
use windlass_core::vcs_worktree::{Diff, DiffDetail};
use windlass_core::workspace::Worktree;

use crate::vcs_worktree::GitWorktrees;

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl VcsHistory for GitWorktrees {
    async fn plan_history(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        request: &HistoryRequest,
    ) -> Result<HistoryPlan, VcsHistoryError> {
        self.history_plan(attempt, worktree, request).await
    }

    async fn conclude_history(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        request: &HistoryRequest,
    ) -> Result<Conclusion, VcsHistoryError> {
        self.history_conclusion(attempt, worktree, request).await
    }

    async fn standing(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        merged: Option<&Merged>,
    ) -> Result<Standing, VcsHistoryError> {
        self.history_standing(attempt, worktree, merged).await
    }

    async fn merged_diff(
        &self,
        worktree: &Worktree,
        merged: &Merged,
        detail: DiffDetail,
    ) -> Result<Diff, VcsHistoryError> {
        self.diff_of_merge(worktree, merged, detail).await
    }
}
