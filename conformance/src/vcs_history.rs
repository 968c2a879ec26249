//! Cases of the port [`VcsHistory`].
#![expect(clippy::panic, reason = "a case fails by panicking")]

use std::future::Future;
use std::sync::Arc;

use windlass_core::locator::Locator;
use windlass_core::time::Timestamp;
use windlass_core::vcs_history::{
    Begun, Conclusion, HistoryPlan, HistoryRequest, HistoryWork, InProgress, MergeStyle, Merged,
    VcsHistory, VcsHistoryError,
};
use windlass_core::vcs_worktree::{DiffDetail, GitStep, Origin, VcsWorktree};
use windlass_core::workspace::{Oid, Worktree};

use crate::vcs_worktree::{
    MakeAtOnce as _, VcsWorktreePlace, attempt, fallback, repository, request,
};

/// The two ports of one backend.
#[derive(Clone, Debug)]
pub struct Ports {
    /// What makes worktrees.
    pub worktrees: Arc<dyn VcsWorktree>,
    /// What does something with their commits.
    pub history: Arc<dyn VcsHistory>,
}

/// Where a backend keeps worktrees with whose commits something can be done.
pub trait VcsHistoryPlace: VcsWorktreePlace {
    /// Opens the backend. A second time is a restart of the same data directory.
    fn open_history(&self) -> impl Future<Output = Ports> + Send;
}

/// Expands places into named tests of every case: `vcs_history_suite! { memory => crate::place::Memory }`.
#[macro_export]
macro_rules! vcs_history_suite {
    ($($name:ident => $place:ty),+ $(,)?) => {
        $crate::expand!(vcs_history { $($name => $place),+ } [
            a_merge_moves_the_target_and_a_clean_checkout_of_it_once,
            both_styles_keep_what_the_target_has,
            planning_and_looking_touch_nothing,
            what_is_merged_is_not_merged_again,
            what_somebody_else_merged_is_told_as_that,
            conflicts_are_named,
            a_checkout_that_cannot_follow_is_left_alone,
            what_is_not_committed_is_not_merged,
            targets_that_are_none_are_refused,
            a_target_that_moved_is_left_alone,
            commits_are_put_on_top_of_a_branch_once,
            what_is_in_progress_is_given_up,
            the_diff_of_a_merge_needs_no_worktree,
        ]);
    };
}

/// A worktree with work that is committed, and the checkout of its target.
struct Worked {
    ports: Ports,
    repo: Locator,
    worktree: Worktree,
    request: HistoryRequest,
}

fn wants(work: HistoryWork) -> HistoryRequest {
    let (fallback, at) = (fallback(), Timestamp(1_700_000_000_000));
    HistoryRequest { work, fallback, at, begun: None, merged: None }
}

fn merge(target: &str, style: MergeStyle) -> HistoryWork {
    let message = "Do it".to_owned();
    HistoryWork::Merge { target: target.to_owned(), style, message }
}

impl Worked {
    async fn new(place: &impl VcsHistoryPlace) -> Self {
        let (repo, _) = repository(place);
        let ports = place.open_history().await;
        let vcs = &*ports.worktrees;
        let worktree = vcs.plan(request(&repo, 1)).await.expect("a plan").worktree;
        vcs.make(attempt(1), &worktree, &Origin::Base).await.expect("a worktree");
        place.write(&worktree.path, "new", "new\n");
        place.commit(&worktree.path, "work");
        Self { ports, repo, worktree, request: wants(merge("main", MergeStyle::Squash)) }
    }

    async fn plan(&self) -> Result<HistoryPlan, VcsHistoryError> {
        self.ports.history.plan_history(attempt(1), &self.worktree, &self.request).await
    }

    async fn step(&mut self) -> GitStep {
        match self.plan().await.expect("a plan") {
            HistoryPlan::Run { step, begun } => {
                self.request.begun = Some(begun);
                step
            }
            HistoryPlan::Done(conclusion) => panic!("{conclusion:?}"),
        }
    }

    async fn conclusion(&self) -> Conclusion {
        let concluded =
            self.ports.history.conclude_history(attempt(1), &self.worktree, &self.request).await;
        concluded.expect("a conclusion")
    }

    /// Does what is wanted, to its end.
    async fn done(&mut self, place: &impl VcsHistoryPlace) -> Conclusion {
        match self.plan().await.expect("a plan") {
            HistoryPlan::Done(conclusion) => conclusion,
            HistoryPlan::Run { step, begun } => {
                self.request.begun = Some(begun);
                assert!(place.perform(&step), "{step:?}");
                self.conclusion().await
            }
        }
    }

    async fn merged(&mut self, place: &impl VcsHistoryPlace) -> Merged {
        match self.done(place).await {
            Conclusion::Merged(merged) => merged,
            other => panic!("{other:?}"),
        }
    }

    async fn head(&self) -> Oid {
        let verified = self.ports.worktrees.verify(attempt(1), &self.worktree).await;
        verified.expect("a worktree").head
    }
}

/// Performing the step twice does it once; files of the checkout follow.
pub async fn a_merge_moves_the_target_and_a_clean_checkout_of_it_once(place: impl VcsHistoryPlace) {
    let mut worked = Worked::new(&place).await;
    let step = worked.step().await;
    assert_eq!(step.repository_lock, worked.worktree.repo);
    let Some(Begun::Merge { new, head, .. }) = worked.request.begun.clone() else {
        panic!("{:?}", worked.request.begun)
    };
    assert_eq!(head, worked.head().await);
    for _ in 0..2 {
        assert!(place.perform(&step));
        assert_eq!(place.tip(&worked.repo, "main"), new);
        assert_eq!(place.read(&worked.repo, "new").as_deref(), Some("new\n"));
    }
    let Conclusion::Merged(merged) = worked.conclusion().await else { panic!("not merged") };
    assert_eq!((merged.commit, merged.head, merged.style), (new, head, Some(MergeStyle::Squash)));
    assert_eq!(place.last_commit(&worked.repo).0.trim(), "Do it");
}

/// What came to the target meanwhile stays, and is behind the worktree with the merge.
pub async fn both_styles_keep_what_the_target_has(place: impl VcsHistoryPlace) {
    for (style, behind) in [(MergeStyle::Squash, 2), (MergeStyle::Commit, 2)] {
        let mut worked = Worked::new(&place).await;
        place.write(&worked.repo, "other", "theirs\n");
        place.commit(&worked.repo, "theirs");
        worked.request = wants(merge("main", style));
        let merged = worked.merged(&place).await;
        assert_eq!(merged.style, Some(style));
        let status = worked.ports.worktrees.status(attempt(1), &worked.worktree).await;
        assert_eq!(status.expect("a status").behind, behind, "{style:?}");
        assert_eq!(place.read(&worked.repo, "other").as_deref(), Some("theirs\n"));
        assert_eq!(place.read(&worked.repo, "new").as_deref(), Some("new\n"));
    }
}

/// No branch moves and no file changes before the step is performed.
pub async fn planning_and_looking_touch_nothing(place: impl VcsHistoryPlace) {
    let mut worked = Worked::new(&place).await;
    let (target, own) = (place.tip(&worked.repo, "main"), worked.head().await);
    drop(worked.step().await);
    assert_eq!(worked.conclusion().await, Conclusion::NotDone);
    let standing = worked.ports.history.standing(attempt(1), &worked.worktree, None).await;
    let standing = standing.expect("a standing");
    assert_eq!((standing.landed, standing.in_progress), (false, None));
    assert_eq!((place.tip(&worked.repo, "main"), worked.head().await), (target, own));
    assert_eq!(place.read(&worked.repo, "new"), None);
}

/// Whoever asks again, with what was recorded or with what had begun, is told of the same merge.
pub async fn what_is_merged_is_not_merged_again(place: impl VcsHistoryPlace) {
    let mut worked = Worked::new(&place).await;
    let first = worked.merged(&place).await;
    let begun = worked.request.begun.clone();
    for (begun, merged) in [(begun, None), (None, Some(first.clone()))] {
        worked.request.begun = begun;
        worked.request.merged = merged;
        let again = worked.plan().await.expect("a plan");
        assert_eq!(again, HistoryPlan::Done(Conclusion::Merged(first.clone())));
    }
    let standing = worked.ports.history.standing(attempt(1), &worked.worktree, Some(&first)).await;
    assert!(standing.expect("a standing").landed);
}

/// A target that reaches the commits has them, whoever brought them there.
pub async fn what_somebody_else_merged_is_told_as_that(place: impl VcsHistoryPlace) {
    let mut worked = Worked::new(&place).await;
    worked.request = wants(merge("main", MergeStyle::Commit));
    let by_us = worked.merged(&place).await;
    // Nobody knows of it.
    worked.request = wants(merge("main", MergeStyle::Commit));
    let found = worked.merged(&place).await;
    assert_eq!((found.style, found.head), (None, by_us.head));
    assert_eq!(place.tip(&worked.repo, "main"), by_us.commit);
    let standing = worked.ports.history.standing(attempt(1), &worked.worktree, None).await;
    assert!(standing.expect("a standing").landed);
}

/// What both sides change is named.
pub async fn conflicts_are_named(place: impl VcsHistoryPlace) {
    let worked = Worked::new(&place).await;
    place.write(&worked.repo, "new", "theirs\n");
    let target = place.commit(&worked.repo, "theirs");
    match worked.plan().await {
        Err(VcsHistoryError::Conflicts { files, .. }) => assert_eq!(files, ["new"]),
        other => panic!("{other:?}"),
    }
    assert_eq!(place.tip(&worked.repo, "main"), target);
    assert_eq!(place.read(&worked.repo, "new").as_deref(), Some("theirs\n"));
}

/// Work of the user in a checkout of the target is not touched.
pub async fn a_checkout_that_cannot_follow_is_left_alone(place: impl VcsHistoryPlace) {
    let worked = Worked::new(&place).await;
    let target = place.tip(&worked.repo, "main");
    place.write(&worked.repo, "greeting", "mine\n");
    let refused = worked.plan().await;
    assert!(matches!(refused, Err(VcsHistoryError::TargetInUse { .. })), "{refused:?}");
    assert_eq!(place.tip(&worked.repo, "main"), target);
    assert_eq!(place.read(&worked.repo, "greeting").as_deref(), Some("mine\n"));
}

/// What is only in the worktree would be left behind.
pub async fn what_is_not_committed_is_not_merged(place: impl VcsHistoryPlace) {
    let mut worked = Worked::new(&place).await;
    place.write(&worked.worktree.path, "forgotten", "x\n");
    place.write(&worked.repo, "other", "theirs\n");
    place.commit(&worked.repo, "theirs");
    for work in [merge("main", MergeStyle::Squash), HistoryWork::Rebase { onto: "main".into() }] {
        worked.request = wants(work);
        let refused = worked.plan().await;
        assert!(matches!(refused, Err(VcsHistoryError::Dirty { .. })), "{refused:?}");
    }
}

/// A branch that there is not, and the worktree's own.
pub async fn targets_that_are_none_are_refused(place: impl VcsHistoryPlace) {
    let mut worked = Worked::new(&place).await;
    worked.request = wants(merge("missing", MergeStyle::Squash));
    let refused = worked.plan().await;
    assert!(matches!(refused, Err(VcsHistoryError::NoBranch { .. })), "{refused:?}");
    let own = worked.worktree.branch.clone();
    worked.request = wants(merge(&own, MergeStyle::Squash));
    let refused = worked.plan().await;
    assert!(matches!(refused, Err(VcsHistoryError::OwnBranch { .. })), "{refused:?}");
}

/// The target goes from where it was planned for, or not at all; planning again takes what came meanwhile along.
pub async fn a_target_that_moved_is_left_alone(place: impl VcsHistoryPlace) {
    let mut worked = Worked::new(&place).await;
    let step = worked.step().await;
    place.write(&worked.repo, "other", "theirs\n");
    let moved = place.commit(&worked.repo, "meanwhile");
    assert!(!place.perform(&step));
    assert_eq!(worked.conclusion().await, Conclusion::NotDone);
    assert_eq!(place.tip(&worked.repo, "main"), moved);
    assert_eq!(place.read(&worked.repo, "new"), None);
    worked.merged(&place).await;
    assert_eq!(place.read(&worked.repo, "other").as_deref(), Some("theirs\n"));
    assert_eq!(place.read(&worked.repo, "new").as_deref(), Some("new\n"));
}

/// Files of both are there, and repeating it changes nothing.
pub async fn commits_are_put_on_top_of_a_branch_once(place: impl VcsHistoryPlace) {
    let mut worked = Worked::new(&place).await;
    place.write(&worked.repo, "other", "theirs\n");
    let onto = place.commit(&worked.repo, "theirs");
    worked.request = wants(HistoryWork::Rebase { onto: "main".to_owned() });
    let done = worked.done(&place).await;
    let head = worked.head().await;
    assert_eq!(done, Conclusion::Rebased { head: head.clone(), onto: onto.clone() });
    assert_eq!(place.read(&worked.worktree.path, "other").as_deref(), Some("theirs\n"));
    assert_eq!(place.read(&worked.worktree.path, "new").as_deref(), Some("new\n"));
    assert_eq!(place.tip(&worked.repo, "main"), onto);
    let status = worked.ports.worktrees.status(attempt(1), &worked.worktree).await;
    let status = status.expect("a status");
    assert_eq!((status.behind, status.dirty), (0, false));
    assert_eq!(worked.done(&place).await, Conclusion::Rebased { head, onto });
}

/// Without anything in progress there is nothing to give up.
pub async fn what_is_in_progress_is_given_up(place: impl VcsHistoryPlace) {
    let mut worked = Worked::new(&place).await;
    worked.request = wants(HistoryWork::Abort);
    let refused = worked.plan().await;
    assert!(matches!(refused, Err(VcsHistoryError::Nothing { .. })), "{refused:?}");
    let head = worked.head().await;
    place.write(&worked.repo, "other", "theirs\n");
    place.commit(&worked.repo, "theirs");
    place.begin_merge(&worked.worktree.path, "main");
    let standing = worked.ports.history.standing(attempt(1), &worked.worktree, None).await;
    assert_eq!(standing.expect("a standing").in_progress, Some(InProgress::Merge));
    worked.request = wants(merge("main", MergeStyle::Squash));
    assert!(worked.plan().await.is_err(), "it is not at rest");
    worked.request = wants(HistoryWork::Abort);
    assert_eq!(worked.done(&place).await, Conclusion::Aborted { head: head.clone() });
    assert!(!place.is_merging(&worked.worktree.path));
    // As the repetition of one that was lost.
    assert_eq!(worked.done(&place).await, Conclusion::Aborted { head });
}

/// Two commits are compared, which the target has.
pub async fn the_diff_of_a_merge_needs_no_worktree(place: impl VcsHistoryPlace) {
    let mut worked = Worked::new(&place).await;
    let merged = worked.merged(&place).await;
    place.write(&worked.repo, "new", "later\n");
    place.commit(&worked.repo, "later");
    place.delete_directory(&worked.worktree.path);
    let diff = worked.ports.history.merged_diff(&worked.worktree, &merged, DiffDetail::Patch).await;
    let diff = diff.expect("a diff");
    assert_eq!(diff.head, merged.commit);
    let files: Vec<_> = diff.files.iter().map(|file| (file.path.to_string(), file.added)).collect();
    assert_eq!(files, [("new".to_owned(), Some(1))]);
    assert!(diff.patch.is_some_and(|patch| !patch.is_empty()));
    let gone = Merged { commit: Oid("1".repeat(40)), ..merged };
    let refused =
        worked.ports.history.merged_diff(&worked.worktree, &gone, DiffDetail::Files).await;
    assert!(matches!(refused, Err(VcsHistoryError::Nothing { .. })), "{refused:?}");
}
