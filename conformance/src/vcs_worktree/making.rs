//! Cases about worktrees in whose files the user's code has a part: it runs in a step, at most once.

use std::future::Future;

use windlass_core::id::AttemptId;
use windlass_core::vcs_worktree::{
    CreateMode, Creation, FoundState, GitStep, Origin, Removal, VcsWorktree, VcsWorktreeError,
    VcsWorktreeExt as _, Verified,
};
use windlass_core::workspace::Worktree;

use super::{REMOVAL, VcsWorktreePlace, attempt, created, removed, repository, request};

/// Makes worktrees in whose files the user's code has no part.
pub trait MakeAtOnce {
    /// Makes a worktree as [`VcsWorktree::create`] does.
    ///
    /// # Errors
    ///
    /// Its own.
    ///
    /// # Panics
    ///
    /// When it asks for a step: nothing in the repository is to run.
    fn make(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        origin: &Origin,
    ) -> impl Future<Output = Result<Verified, VcsWorktreeError>> + Send;
}

impl<T: VcsWorktree + ?Sized> MakeAtOnce for T {
    async fn make(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        origin: &Origin,
    ) -> Result<Verified, VcsWorktreeError> {
        match self.create(attempt, worktree, origin, CreateMode::Begin).await? {
            Creation::Done(verified) => Ok(verified),
            Creation::Run(step) => panic!("nothing of the user's is to run, but {step:?} is"),
        }
    }
}

/// Begins the worktree of attempt 1 and returns the step that it asks for.
async fn begin(vcs: &dyn VcsWorktree, worktree: &Worktree, origin: &Origin) -> GitStep {
    let made = vcs.create(attempt(1), worktree, origin, CreateMode::Begin).await;
    let Ok(Creation::Run(step)) = made else { panic!("{made:?}") };
    assert_eq!(step.cwd, worktree.path);
    step
}

/// Concludes the worktree of attempt 1, which is whole then.
async fn conclude(vcs: &dyn VcsWorktree, worktree: &Worktree, origin: &Origin) {
    for mode in [CreateMode::Conclude, CreateMode::Begin, CreateMode::Conclude] {
        let made = vcs.create(attempt(1), worktree, origin, mode).await;
        let Ok(Creation::Done(verified)) = made else { panic!("{made:?}") };
        assert_eq!(vcs.verify(attempt(1), worktree).await.expect("verified"), verified);
    }
}

#[track_caller]
fn assert_incomplete(made: &Result<Creation, VcsWorktreeError>) {
    assert!(matches!(made, Err(VcsWorktreeError::Incomplete { .. })), "{made:?}");
}

/// A repeated creation finds the worktree, work and all.
pub async fn creating_what_is_there_keeps_it(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    place.write(&worktree.path, "greeting", "work\n");
    let oid = place.commit(&worktree.path, "work");
    place.write(&worktree.path, "more", "work\n");
    let verified = vcs.make(attempt(1), &worktree, &Origin::Base).await.expect("kept");
    assert_eq!(verified.head, oid);
    assert_eq!(place.read(&worktree.path, "more").as_deref(), Some("work\n"));
}

/// The host dies after the step and before it concludes.
pub async fn a_hook_runs_once_in_a_step_and_whoever_comes_next_concludes(
    place: impl VcsWorktreePlace,
) {
    let (repo, oid) = repository(&place);
    place.hook(&repo, false);
    for (number, mode) in [(1, CreateMode::Conclude), (2, CreateMode::Begin)] {
        let vcs = place.open().await;
        let worktree = vcs.plan(request(&repo, number)).await.expect("a plan").worktree;
        let made = vcs.create(attempt(number), &worktree, &Origin::Base, CreateMode::Begin).await;
        let Ok(Creation::Run(step)) = made else { panic!("{made:?}") };
        assert_eq!(place.read(&worktree.path, "greeting"), None);
        let before = place.hook_runs(&repo);
        assert!(place.perform(&step), "the step");
        assert!(place.perform(&step), "it is done");
        let vcs = place.open().await;
        let made = vcs.create(attempt(number), &worktree, &Origin::Base, mode).await;
        let Ok(Creation::Done(verified)) = made else { panic!("{made:?}") };
        assert_eq!((&verified.head, verified.branch.as_ref()), (&oid, Some(&worktree.branch)));
        assert!(!place.perform(&step), "nobody waits for it any more");
        assert_eq!(place.hook_runs(&repo), before + 1);
        assert_eq!(place.read(&worktree.path, "greeting").as_deref(), Some("hello\n"));
        assert!(place.read(&worktree.path, "hooked").is_some());
    }
}

/// A hook that fails fails the creation, and nothing of it is left.
pub async fn a_step_that_failed_is_undone_and_can_be_asked_for_again(place: impl VcsWorktreePlace) {
    let (repo, _) = repository(&place);
    place.hook(&repo, true);
    let vcs = place.open().await;
    let worktree = vcs.plan(request(&repo, 1)).await.expect("a plan").worktree;
    let step = begin(&*vcs, &worktree, &Origin::Base).await;
    assert!(!place.perform(&step), "the hook fails");
    assert!(!place.perform(&step), "it is not tried again");
    assert_eq!(place.hook_runs(&repo), 1);
    for _ in 0..2 {
        let made = vcs.create(attempt(1), &worktree, &Origin::Base, CreateMode::Conclude).await;
        assert_incomplete(&made);
        assert_eq!(place.branches(&repo), ["main"]);
        assert!(!place.exists(&worktree.path));
    }
    place.hook(&repo, false);
    let again = begin(&*vcs, &worktree, &Origin::Base).await;
    assert!(!place.perform(&step), "nobody waits for the first one");
    assert!(place.perform(&again), "the second one");
    conclude(&*vcs, &worktree, &Origin::Base).await;
    assert_eq!(place.hook_runs(&repo), 2);
}

/// The host dies before it can start the step: what stands there is undone, and the old step does nothing any more.
pub async fn a_step_that_nobody_ran_is_asked_for_anew(place: impl VcsWorktreePlace) {
    let (repo, _) = repository(&place);
    place.hook(&repo, false);
    let vcs = place.open().await;
    let worktree = vcs.plan(request(&repo, 1)).await.expect("a plan").worktree;
    let lost = begin(&*vcs, &worktree, &Origin::Base).await;
    let vcs = place.open().await;
    let step = begin(&*vcs, &worktree, &Origin::Base).await;
    assert!(!place.perform(&lost), "it is not wanted any more");
    assert_eq!(place.hook_runs(&repo), 0);
    assert!(place.perform(&step), "the step");
    conclude(&*vcs, &worktree, &Origin::Base).await;
    assert_eq!(place.hook_runs(&repo), 1);
}

/// Nothing is begun by concluding.
pub async fn concluding_needs_a_step_that_is_complete(place: impl VcsWorktreePlace) {
    let (repo, _) = repository(&place);
    let vcs = place.open().await;
    let worktree = vcs.plan(request(&repo, 1)).await.expect("a plan").worktree;
    let concluded = vcs.create(attempt(1), &worktree, &Origin::Base, CreateMode::Conclude).await;
    assert_incomplete(&concluded);
    place.hook(&repo, false);
    begin(&*vcs, &worktree, &Origin::Base).await;
    let concluded = vcs.create(attempt(1), &worktree, &Origin::Base, CreateMode::Conclude).await;
    assert_incomplete(&concluded);
    assert_eq!(place.branches(&repo), ["main"]);
    assert!(!place.exists(&worktree.path));
}

/// It is no worktree yet: neither before its step nor after it.
pub async fn a_half_made_worktree_is_found_by_nothing_but_a_creation_or_a_removal(
    place: impl VcsWorktreePlace,
) {
    let (repo, _) = repository(&place);
    place.hook(&repo, false);
    for performed in [false, true] {
        let vcs = place.open().await;
        let worktree = vcs.plan(request(&repo, 1)).await.expect("a plan").worktree;
        let step = begin(&*vcs, &worktree, &Origin::Base).await;
        assert!(!performed || place.perform(&step), "the step");
        let verified = vcs.verify(attempt(1), &worktree).await;
        assert!(matches!(verified, Err(VcsWorktreeError::Mismatch { .. })), "{verified:?}");
        let found = vcs.survey(&[]).await.expect("a survey");
        let ours = found.iter().find(|thing| thing.attempt == Some(attempt(1)));
        let ours = ours.expect("the half-made worktree");
        assert_eq!((&ours.path, &ours.state), (&worktree.path, &FoundState::Creating));
        let saved = vcs.save(attempt(1), &worktree, &REMOVAL).await;
        assert!(matches!(saved, Err(VcsWorktreeError::Gone { .. })), "{saved:?}");
        vcs.remove(attempt(1), &worktree, Removal::Worktree).await.expect("removed");
        assert_eq!(place.branches(&repo), ["main"]);
        assert!(!place.exists(&worktree.path));
        assert_eq!(vcs.survey(&[]).await.expect("a survey"), []);
    }
}

/// What is made again is what was saved: a filter makes what came of the commit, and a hook would make something new.
pub async fn a_filter_has_a_part_in_making_a_worktree_again_and_the_hook_has_none(
    place: impl VcsWorktreePlace,
) {
    let (repo, _) = repository(&place);
    place.filter(&repo);
    place.hook(&repo, false);
    let vcs = place.open().await;
    let worktree = vcs.plan(request(&repo, 1)).await.expect("a plan").worktree;
    let step = begin(&*vcs, &worktree, &Origin::Base).await;
    assert!(place.perform(&step), "the step");
    conclude(&*vcs, &worktree, &Origin::Base).await;
    place.write(&worktree.path, "sub/numbers", "changed\n");
    place.delete(&worktree.path, "hooked");
    let saved = vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.expect("removed");
    place.delete_branch(&repo, &worktree.branch);
    let origin = Origin::Removed(removed(&saved));
    let lost = begin(&*vcs, &worktree, &origin).await;
    let concluded = vcs.create(attempt(1), &worktree, &origin, CreateMode::Conclude).await;
    assert_incomplete(&concluded);
    assert_eq!(place.branches(&repo), ["main"]);
    let step = begin(&*vcs, &worktree, &origin).await;
    assert!(!place.perform(&lost), "it is not wanted any more");
    assert!(place.perform(&step), "the step");
    let vcs = place.open().await;
    conclude(&*vcs, &worktree, &origin).await;
    let verified = vcs.verify(attempt(1), &worktree).await.expect("verified");
    assert_eq!(verified.branch.as_ref(), Some(&worktree.branch));
    assert_eq!(place.read(&worktree.path, "greeting").as_deref(), Some("hello\n"));
    assert_eq!(place.read(&worktree.path, "sub/numbers").as_deref(), Some("changed\n"));
    assert_eq!(place.read(&worktree.path, "hooked"), None);
    assert_eq!(place.hook_runs(&repo), 1);
}
