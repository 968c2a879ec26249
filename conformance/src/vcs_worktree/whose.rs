//! Whose a worktree is, and what stands in its place.

use windlass_core::vcs_worktree::{DiffDetail, Origin, VcsWorktreeError, VcsWorktreeExt as _};
use windlass_core::workspace::Worktree;

use super::making::MakeAtOnce as _;
use super::{REMOVAL, VcsWorktreePlace, attempt, created, fallback, request};

/// One attempt's worktree is not another's.
pub async fn another_attempt_is_a_mismatch(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    let refused = vcs.verify(attempt(2), &worktree).await;
    assert!(matches!(refused, Err(VcsWorktreeError::Mismatch { .. })), "{refused:?}");
    let refused = vcs.make(attempt(2), &worktree, &Origin::Base).await;
    assert!(matches!(refused, Err(VcsWorktreeError::Mismatch { .. })), "{refused:?}");
    let refused = vcs.diff(attempt(2), &worktree, DiffDetail::Files).await;
    assert!(matches!(refused, Err(VcsWorktreeError::Mismatch { .. })), "{refused:?}");
}

/// Two data directories on one repository do not touch each other's worktrees.
pub async fn another_data_directory_is_a_mismatch(place: impl VcsWorktreePlace) {
    let (vcs, repo, worktree) = created(&place).await;
    let other = place.open_other().await;
    for refused in [
        other.verify(attempt(1), &worktree).await.map(|_| ()),
        other.make(attempt(1), &worktree, &Origin::Base).await.map(|_| ()),
        other.save_and_remove(attempt(1), &worktree, &REMOVAL).await.map(drop),
    ] {
        assert!(matches!(refused, Err(VcsWorktreeError::Mismatch { .. })), "{refused:?}");
    }
    let beside = other.plan(request(&repo, 2)).await.expect("a plan").worktree;
    other.make(attempt(2), &beside, &Origin::Base).await.expect("a worktree");
    other.save_and_remove(attempt(2), &beside, &REMOVAL).await.expect("removed");
    vcs.verify(attempt(1), &worktree).await.expect("untouched");
}

/// Whatever a record says, nothing outside the root is looked at.
pub async fn a_path_outside_the_root_is_a_mismatch(place: impl VcsWorktreePlace) {
    let (vcs, repo, worktree) = created(&place).await;
    let outside = Worktree { path: repo.clone(), ..worktree };
    for refused in [
        vcs.verify(attempt(1), &outside).await.map(|_| ()),
        vcs.make(attempt(1), &outside, &Origin::Base).await.map(|_| ()),
        vcs.save_and_remove(attempt(1), &outside, &REMOVAL).await.map(drop),
    ] {
        assert!(matches!(refused, Err(VcsWorktreeError::Mismatch { .. })), "{refused:?}");
    }
    assert_eq!(place.read(&repo, "greeting").as_deref(), Some("hello\n"));
}

/// Somebody removed it by hand.
pub async fn a_directory_that_was_deleted_is_gone(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    place.delete_directory(&worktree.path);
    for refused in [
        vcs.verify(attempt(1), &worktree).await.map(|_| ()),
        vcs.status(attempt(1), &worktree).await.map(|_| ()),
        vcs.diff(attempt(1), &worktree, DiffDetail::Files).await.map(|_| ()),
        vcs.plan_commit(attempt(1), &worktree, "m", &fallback()).await.map(|_| ()),
    ] {
        assert!(matches!(refused, Err(VcsWorktreeError::Gone { .. })), "{refused:?}");
    }
}

/// What stands in its place is not it, and stays.
pub async fn a_directory_that_was_replaced_is_a_mismatch(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    place.replace_directory(&worktree.path);
    for refused in [
        vcs.verify(attempt(1), &worktree).await.map(|_| ()),
        vcs.make(attempt(1), &worktree, &Origin::Base).await.map(|_| ()),
        vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.map(drop),
    ] {
        assert!(matches!(refused, Err(VcsWorktreeError::Mismatch { .. })), "{refused:?}");
    }
    assert!(place.exists(&worktree.path));
}
