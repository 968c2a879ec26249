//! A faulty [`VcsWorktree`].

use async_trait::async_trait;
use windlass_core::id::AttemptId;
use windlass_core::locator::Locator;
use windlass_core::vcs_worktree::{
    CreateMode, Creation, Diff, DiffDetail, Found, GitWork, Origin, Planned, Removal, SaveRequest,
    Saved, StepPlan, VcsWorktree, VcsWorktreeError, Verified, WorktreeRequest, WorktreeStatus,
};
use windlass_core::workspace::Worktree;

use super::{About, Call, Faulty, Method, Site, Wrong, done};

fn wrong(wrong: Wrong) -> VcsWorktreeError {
    match wrong {
        Wrong::Full => VcsWorktreeError::Full,
        Wrong::Unknown(op) => op.error().into(),
    }
}

fn about(site: Site, attempt: AttemptId) -> Call {
    Call { site, about: About::Attempt(attempt) }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: VcsWorktree> VcsWorktree for Faulty<T> {
    async fn plan(&self, request: WorktreeRequest) -> Result<Planned, VcsWorktreeError> {
        let call = about(Site::Plan, request.attempt);
        let perform = || self.inner.plan(request.clone());
        self.call(call, Method { batch: &[], perform, wrong, tell: done }).await
    }

    async fn create(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        origin: &Origin,
        mode: CreateMode,
    ) -> Result<Creation, VcsWorktreeError> {
        let perform = || self.inner.create(attempt, worktree, origin, mode);
        self.call(about(Site::Create, attempt), Method { batch: &[], perform, wrong, tell: done })
            .await
    }

    async fn verify(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<Verified, VcsWorktreeError> {
        let perform = || self.inner.verify(attempt, worktree);
        self.call(about(Site::Verify, attempt), Method { batch: &[], perform, wrong, tell: done })
            .await
    }

    async fn status(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<WorktreeStatus, VcsWorktreeError> {
        let perform = || self.inner.status(attempt, worktree);
        self.call(about(Site::Status, attempt), Method { batch: &[], perform, wrong, tell: done })
            .await
    }

    async fn diff(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        detail: DiffDetail,
    ) -> Result<Diff, VcsWorktreeError> {
        let perform = || self.inner.diff(attempt, worktree, detail);
        self.call(about(Site::Diff, attempt), Method { batch: &[], perform, wrong, tell: done })
            .await
    }

    async fn plan_step(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        work: &GitWork,
    ) -> Result<StepPlan, VcsWorktreeError> {
        let perform = || self.inner.plan_step(attempt, worktree, work);
        self.call(about(Site::PlanStep, attempt), Method { batch: &[], perform, wrong, tell: done })
            .await
    }

    async fn save(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        request: &SaveRequest,
    ) -> Result<Saved, VcsWorktreeError> {
        let perform = || self.inner.save(attempt, worktree, request);
        self.call(about(Site::Save, attempt), Method { batch: &[], perform, wrong, tell: done })
            .await
    }

    async fn remove(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        removal: Removal,
    ) -> Result<(), VcsWorktreeError> {
        let perform = || self.inner.remove(attempt, worktree, removal);
        self.call(about(Site::Remove, attempt), Method { batch: &[], perform, wrong, tell: done })
            .await
    }

    async fn survey(&self, repos: &[Locator]) -> Result<Vec<Found>, VcsWorktreeError> {
        let call = Call { site: Site::Survey, about: About::Nothing };
        let perform = || self.inner.survey(repos);
        self.call(call, Method { batch: &[], perform, wrong, tell: done }).await
    }
}
