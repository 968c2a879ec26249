//! Cases about removal.

use windlass_core::vcs_worktree::{VcsWorktreeError, WorktreeRequest};

use super::{VcsWorktreePlace, attempt, created, request};

/// Removal is idempotent, also over a restart.
pub async fn a_clean_worktree_is_removed_and_its_branch_kept(place: impl VcsWorktreePlace) {
    let (vcs, repo, worktree) = created(&place).await;
    vcs.remove(attempt(1), &worktree).await.expect("removed");
    assert!(!place.exists(&worktree.path));
    assert!(place.branches(&repo).contains(&worktree.branch));
    let verified = vcs.verify(attempt(1), &worktree).await;
    assert!(matches!(verified, Err(VcsWorktreeError::Gone { .. })), "{verified:?}");
    vcs.remove(attempt(1), &worktree).await.expect("removed already");
    let vcs = place.open().await;
    vcs.remove(attempt(1), &worktree).await.expect("removed already");
    assert!(place.branches(&repo).contains(&worktree.branch));
    assert_eq!(place.read(&repo, "greeting").as_deref(), Some("hello\n"));
}

/// The branch holds what was committed.
pub async fn committed_work_does_not_hinder_removal(place: impl VcsWorktreePlace) {
    let (vcs, repo, worktree) = created(&place).await;
    place.write(&worktree.path, "new", "x\n");
    let head = place.commit(&worktree.path, "work");
    vcs.remove(attempt(1), &worktree).await.expect("removed");
    assert_eq!(place.tip(&repo, &worktree.branch), head);
}

/// Whatever exists nowhere else stays, and so does everything around it.
pub async fn unsaved_work_refuses_removal(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    let dir = &worktree.path;
    place.ignore(dir, "secret");
    place.commit(dir, "ignore");
    let refused = async |path: &str| {
        let refused = vcs.remove(attempt(1), &worktree).await;
        let Err(VcsWorktreeError::Unsaved { detail, .. }) = refused else {
            panic!("{path}: {refused:?}")
        };
        assert!(detail.contains(path), "{detail}");
        vcs.verify(attempt(1), &worktree).await.expect("untouched");
    };
    place.write(dir, "greeting", "changed\n");
    refused("greeting").await;
    assert_eq!(place.read(dir, "greeting").as_deref(), Some("changed\n"));
    place.write(dir, "greeting", "hello\n");
    place.delete(dir, "sub/numbers");
    refused("sub/numbers").await;
    place.write(dir, "sub/numbers", "1\n2\n3\n");
    place.write(dir, "new", "x\n");
    refused("new").await;
    place.delete(dir, "new");
    place.write(dir, "secret", "x\n");
    refused("secret").await;
    assert_eq!(place.read(dir, "secret").as_deref(), Some("x\n"));
    place.delete(dir, "secret");
    vcs.remove(attempt(1), &worktree).await.expect("removed");
}

/// Commits on a detached HEAD would be lost with it.
pub async fn commits_that_no_branch_reaches_refuse_removal(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    place.detach(&worktree.path);
    place.write(&worktree.path, "new", "x\n");
    place.commit(&worktree.path, "lost?");
    let refused = vcs.remove(attempt(1), &worktree).await;
    assert!(matches!(refused, Err(VcsWorktreeError::Unsaved { .. })), "{refused:?}");
    assert_eq!(place.read(&worktree.path, "new").as_deref(), Some("x\n"));
    place.branch(&worktree.path, "saved");
    vcs.remove(attempt(1), &worktree).await.expect("removed");
}

/// Another attempt's worktree stays.
pub async fn what_is_not_ours_is_not_removed(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    let refused = vcs.remove(attempt(2), &worktree).await;
    assert!(matches!(refused, Err(VcsWorktreeError::Mismatch { .. })), "{refused:?}");
    vcs.verify(attempt(1), &worktree).await.expect("untouched");
}

/// The branch can be checked out elsewhere once a worktree that is gone was removed.
pub async fn removing_what_somebody_deleted_frees_the_repository(place: impl VcsWorktreePlace) {
    let (vcs, repo, worktree) = created(&place).await;
    place.delete_directory(&worktree.path);
    vcs.remove(attempt(1), &worktree).await.expect("removed");
    let named = WorktreeRequest { base: Some(worktree.branch.clone()), ..request(&repo, 2) };
    let second = vcs.plan(named).await.expect("a plan").worktree;
    assert_eq!(second.target, Some(worktree.branch));
    vcs.create(attempt(2), &second).await.expect("a worktree");
}
