//! Cases about removal.

use windlass_core::vcs_worktree::{
    BranchFate, Origin, Removal, SaveFrom, SaveRequest, VcsWorktreeError, VcsWorktreeExt as _,
    WorktreeRequest,
};

use super::{MakeAtOnce as _, REMOVAL, VcsWorktreePlace, attempt, created, request, take_away};

/// Nothing needs a snapshot. Removal is idempotent, also over a restart.
pub async fn a_clean_worktree_is_removed_and_its_branch_kept(place: impl VcsWorktreePlace) {
    let (vcs, repo, worktree) = created(&place).await;
    let saved = vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.expect("removed");
    assert_eq!((&saved.head, saved.snapshot), (&worktree.base_oid, None));
    assert_eq!(saved.branch.as_deref(), Some(worktree.branch.as_str()));
    assert!(!place.exists(&worktree.path));
    assert!(place.branches(&repo).contains(&worktree.branch));
    for vcs in [vcs, place.open().await] {
        let verified = vcs.verify(attempt(1), &worktree).await;
        assert!(matches!(verified, Err(VcsWorktreeError::Gone { .. })), "{verified:?}");
        let saved = vcs.save(attempt(1), &worktree, &REMOVAL).await;
        assert!(matches!(saved, Err(VcsWorktreeError::Gone { .. })), "{saved:?}");
        vcs.remove(attempt(1), &worktree, Removal::Worktree).await.expect("removed already");
    }
    assert!(place.branches(&repo).contains(&worktree.branch));
    assert_eq!(place.read(&repo, "greeting").as_deref(), Some("hello\n"));
}

/// The branch holds what was committed.
pub async fn committed_work_does_not_hinder_removal(place: impl VcsWorktreePlace) {
    let (vcs, repo, worktree) = created(&place).await;
    place.write(&worktree.path, "new", "x\n");
    let head = place.commit(&worktree.path, "work");
    let saved = vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.expect("removed");
    assert_eq!((&saved.head, saved.snapshot), (&head, None));
    assert_eq!(place.tip(&repo, &worktree.branch), head);
}

/// A clean worktree is no exception: who removes must have looked from aside.
pub async fn what_was_not_saved_is_not_removed(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    let in_place = SaveRequest { from: SaveFrom::Place, ..REMOVAL };
    for work in [None, Some("new"), Some("newer")] {
        if let Some(name) = work {
            place.write(&worktree.path, name, "x\n");
            vcs.save(attempt(1), &worktree, &in_place).await.expect("saved in place");
        }
        for removal in [Removal::Worktree, Removal::WorktreeAndBranch] {
            let refused = vcs.remove(attempt(1), &worktree, removal).await;
            assert!(matches!(refused, Err(VcsWorktreeError::Unsaved { .. })), "{refused:?}");
        }
        vcs.verify(attempt(1), &worktree).await.expect("untouched");
    }
    assert_eq!(place.read(&worktree.path, "newer").as_deref(), Some("x\n"));
}

/// Another attempt's worktree stays.
pub async fn what_is_not_ours_is_not_removed(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    place.write(&worktree.path, "new", "x\n");
    let refused = vcs.save(attempt(2), &worktree, &REMOVAL).await;
    assert!(matches!(refused, Err(VcsWorktreeError::Mismatch { .. })), "{refused:?}");
    let refused = vcs.remove(attempt(2), &worktree, Removal::Worktree).await;
    assert!(matches!(refused, Err(VcsWorktreeError::Mismatch { .. })), "{refused:?}");
    vcs.verify(attempt(1), &worktree).await.expect("untouched");
    assert_eq!(place.read(&worktree.path, "new").as_deref(), Some("x\n"));
}

/// The branch can be checked out elsewhere once a worktree that is gone was removed.
pub async fn removing_what_somebody_deleted_frees_the_repository(place: impl VcsWorktreePlace) {
    let (vcs, repo, worktree) = created(&place).await;
    place.delete_directory(&worktree.path);
    vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.expect("removed");
    let named = WorktreeRequest { base: Some(worktree.branch.clone()), ..request(&repo, 2) };
    let second = vcs.plan(named).await.expect("a plan").worktree;
    assert_eq!(second.target.as_ref(), Some(&worktree.branch));
    vcs.make(attempt(2), &second, &Origin::Base).await.expect("a worktree");
    place.delete_branch(&repo, &worktree.branch);
}

/// What the index held outlives the directory.
pub async fn what_was_staged_in_a_deleted_worktree_comes_back(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    place.write(&worktree.path, "new", "staged\n");
    place.stage(&worktree.path, "new");
    place.delete_directory(&worktree.path);
    let origin = take_away(&*vcs, &worktree, &REMOVAL).await;
    let Origin::Removed(what) = &origin else { panic!("{origin:?}") };
    assert!(what.snapshot.is_some(), "it was nowhere else");
    vcs.make(attempt(1), &worktree, &origin).await.expect("restored");
    assert_eq!(place.indexed(&worktree.path, "new").as_deref(), Some("staged\n"));
}

/// A branch goes with a worktree only on request, and only when nothing is lost by it.
pub async fn a_branch_is_deleted_only_if_its_commits_were_saved(place: impl VcsWorktreePlace) {
    let (vcs, repo, worktree) = created(&place).await;
    place.write(&worktree.path, "new", "x\n");
    let head = place.commit(&worktree.path, "work");
    vcs.save(attempt(1), &worktree, &REMOVAL).await.expect("saved");
    let refused = vcs.remove(attempt(1), &worktree, Removal::WorktreeAndBranch).await;
    assert!(matches!(refused, Err(VcsWorktreeError::Unsaved { .. })), "{refused:?}");
    assert_eq!(place.tip(&repo, &worktree.branch), head);
    let with_branch = SaveRequest { branch: BranchFate::Goes, ..REMOVAL };
    let saved = vcs.save(attempt(1), &worktree, &with_branch).await.expect("saved");
    assert_eq!(saved.snapshot.as_ref().map(|snapshot| snapshot.commits), Some(1));
    vcs.remove(attempt(1), &worktree, Removal::WorktreeAndBranch).await.expect("removed");
    assert_eq!(place.branches(&repo), ["main"]);
    let origin = Origin::Removed(super::removed(&saved));
    let verified = vcs.make(attempt(1), &worktree, &origin).await.expect("restored");
    assert_eq!((&verified.head, verified.branch.as_ref()), (&head, Some(&worktree.branch)));
    assert_eq!(place.tip(&repo, &worktree.branch), head);
}
