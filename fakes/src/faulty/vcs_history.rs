//! A faulty [`VcsHistory`].

use async_trait::async_trait;
use windlass_core::id::AttemptId;
use windlass_core::vcs_history::{
    Conclusion, HistoryPlan, HistoryRequest, Merged, Standing, VcsHistory, VcsHistoryError,
};
use windlass_core::vcs_worktree::{Diff, DiffDetail, VcsWorktreeError};
use windlass_core::workspace::Worktree;

use super::{About, Call, Faulty, Method, Site, Wrong, done};

fn wrong(wrong: Wrong) -> VcsHistoryError {
    match wrong {
        Wrong::Full => VcsWorktreeError::Full.into(),
        Wrong::Unknown(op) => VcsWorktreeError::from(op.error()).into(),
    }
}

fn about(site: Site, attempt: AttemptId) -> Call {
    Call { site, about: About::Attempt(attempt) }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: VcsHistory> VcsHistory for Faulty<T> {
    async fn plan_history(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        request: &HistoryRequest,
    ) -> Result<HistoryPlan, VcsHistoryError> {
        let perform = || self.inner.plan_history(attempt, worktree, request);
        let call = about(Site::PlanHistory, attempt);
        self.call(call, Method { batch: &[], perform, wrong, tell: done }).await
    }

    async fn conclude_history(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        request: &HistoryRequest,
    ) -> Result<Conclusion, VcsHistoryError> {
        let perform = || self.inner.conclude_history(attempt, worktree, request);
        let call = about(Site::ConcludeHistory, attempt);
        self.call(call, Method { batch: &[], perform, wrong, tell: done }).await
    }

    async fn standing(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        merged: Option<&Merged>,
    ) -> Result<Standing, VcsHistoryError> {
        let perform = || self.inner.standing(attempt, worktree, merged);
        let call = about(Site::Standing, attempt);
        self.call(call, Method { batch: &[], perform, wrong, tell: done }).await
    }

    async fn merged_diff(
        &self,
        worktree: &Worktree,
        merged: &Merged,
        detail: DiffDetail,
    ) -> Result<Diff, VcsHistoryError> {
        let perform = || self.inner.merged_diff(worktree, merged, detail);
        let call = Call { site: Site::MergedDiff, about: About::Nothing };
        self.call(call, Method { batch: &[], perform, wrong, tell: done }).await
    }
}
