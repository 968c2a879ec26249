//! Cases about what comes back, and about files that are copied in.

use windlass_core::snapshot::SnapshotNumber;
use windlass_core::vcs_worktree::{
    DiffDetail, Origin, Removal, VcsWorktreeError, VcsWorktreeExt as _, WorktreeRequest,
};

use super::{
    MakeAtOnce as _, REMOVAL, VcsWorktreePlace, attempt, created, removed, request, take_away,
};

/// The branch is all that is needed.
pub async fn a_clean_worktree_comes_back_on_its_branch(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    place.write(&worktree.path, "new", "x\n");
    let head = place.commit(&worktree.path, "work");
    let origin = take_away(&*vcs, &worktree, &REMOVAL).await;
    let vcs = place.open().await;
    let verified = vcs.make(attempt(1), &worktree, &origin).await.expect("restored");
    assert_eq!((&verified.head, verified.branch.as_ref()), (&head, Some(&worktree.branch)));
    assert_eq!(vcs.verify(attempt(1), &worktree).await.expect("verified"), verified);
    assert!(!vcs.status(attempt(1), &worktree).await.expect("a status").dirty);
    assert_eq!(place.read(&worktree.path, "new").as_deref(), Some("x\n"));
}

/// Changed, executable, deleted, untracked and ignored: the same diff, the same files.
pub async fn what_was_dirty_comes_back_as_it_was(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    let dir = &worktree.path;
    place.ignore(dir, "secret");
    place.commit(dir, "ignore");
    place.write(dir, "greeting", "changed\r\n");
    place.make_executable(dir, "greeting");
    place.delete(dir, "sub/numbers");
    place.write(dir, "deep/er/new", "x\n");
    place.write(dir, "secret", "hush\n");
    let before = vcs.diff(attempt(1), &worktree, DiffDetail::Patch).await.expect("a diff");
    let status = vcs.status(attempt(1), &worktree).await.expect("a status");
    let origin = take_away(&*vcs, &worktree, &REMOVAL).await;
    assert!(!place.exists(dir));
    vcs.make(attempt(1), &worktree, &origin).await.expect("restored");
    let after = vcs.diff(attempt(1), &worktree, DiffDetail::Patch).await.expect("a diff");
    assert_eq!(after, before);
    assert_eq!(vcs.status(attempt(1), &worktree).await.expect("a status"), status);
    assert_eq!(place.read(dir, "greeting").as_deref(), Some("changed\r\n"));
    assert_eq!(place.read(dir, "sub/numbers"), None);
    assert_eq!(place.read(dir, "deep/er/new").as_deref(), Some("x\n"));
    assert_eq!(place.read(dir, "secret").as_deref(), Some("hush\n"));
}

/// What is staged and what lies in the directory may differ; both come back.
pub async fn the_index_comes_back(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    let dir = &worktree.path;
    place.write(dir, "greeting", "staged\n");
    place.stage(dir, "greeting");
    place.write(dir, "greeting", "later\n");
    place.write(dir, "new", "staged\n");
    place.stage(dir, "new");
    place.delete(dir, "new");
    place.delete(dir, "sub/numbers");
    place.stage(dir, "sub/numbers");
    let origin = take_away(&*vcs, &worktree, &REMOVAL).await;
    vcs.make(attempt(1), &worktree, &origin).await.expect("restored");
    assert_eq!(place.indexed(dir, "greeting").as_deref(), Some("staged\n"));
    assert_eq!(place.read(dir, "greeting").as_deref(), Some("later\n"));
    assert_eq!(place.indexed(dir, "new").as_deref(), Some("staged\n"));
    assert_eq!(place.read(dir, "new"), None);
    assert_eq!(place.indexed(dir, "sub/numbers"), None);
}

/// Commits on a detached HEAD would be lost with it.
pub async fn commits_that_no_branch_reaches_come_back(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    place.detach(&worktree.path);
    place.write(&worktree.path, "new", "x\n");
    let head = place.commit(&worktree.path, "lost?");
    let saved = vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.expect("removed");
    assert_eq!(saved.snapshot.as_ref().map(|snapshot| snapshot.commits), Some(1));
    let origin = Origin::Removed(removed(&saved));
    let verified = vcs.make(attempt(1), &worktree, &origin).await.expect("restored");
    assert_eq!((verified.head, verified.branch), (head, None));
    assert_eq!(place.read(&worktree.path, "new").as_deref(), Some("x\n"));
}

/// Somebody's commits on the branch stay its tip; the work comes back on the commit that it was made on.
pub async fn a_branch_that_moved_on_is_left_where_it_is(place: impl VcsWorktreePlace) {
    let (vcs, repo, worktree) = created(&place).await;
    place.write(&worktree.path, "greeting", "changed\n");
    let origin = take_away(&*vcs, &worktree, &REMOVAL).await;
    let named = WorktreeRequest { base: Some(worktree.branch.clone()), ..request(&repo, 2) };
    let second = vcs.plan(named).await.expect("a plan").worktree;
    vcs.make(attempt(2), &second, &Origin::Base).await.expect("a worktree");
    place.write(&second.path, "theirs", "x\n");
    let theirs = place.commit(&second.path, "theirs");
    place.delete_branch(&repo, &worktree.branch);
    place.branch(&second.path, &worktree.branch);
    let verified = vcs.make(attempt(1), &worktree, &origin).await.expect("restored");
    assert_eq!((&verified.head, &verified.branch), (&worktree.base_oid, &None));
    assert_eq!(place.tip(&repo, &worktree.branch), theirs);
    assert_eq!(place.read(&worktree.path, "greeting").as_deref(), Some("changed\n"));
}

/// Two worktrees never share a branch.
pub async fn a_branch_that_is_checked_out_elsewhere_is_left_there(place: impl VcsWorktreePlace) {
    let (vcs, repo, worktree) = created(&place).await;
    let origin = take_away(&*vcs, &worktree, &REMOVAL).await;
    place.delete_branch(&repo, &worktree.branch);
    place.switch(&repo, &worktree.branch);
    let verified = vcs.make(attempt(1), &worktree, &origin).await.expect("restored");
    assert_eq!((verified.head, verified.branch), (worktree.base_oid, None));
}

/// Somebody deleted it; its commits are where they were or in the snapshot.
pub async fn a_branch_that_is_gone_comes_back_with_its_worktree(place: impl VcsWorktreePlace) {
    let (vcs, repo, worktree) = created(&place).await;
    place.write(&worktree.path, "new", "x\n");
    let origin = take_away(&*vcs, &worktree, &REMOVAL).await;
    place.delete_branch(&repo, &worktree.branch);
    let verified = vcs.make(attempt(1), &worktree, &origin).await.expect("restored");
    assert_eq!(verified.branch.as_ref(), Some(&worktree.branch));
    assert_eq!(place.tip(&repo, &worktree.branch), worktree.base_oid);
    assert_eq!(place.read(&worktree.path, "new").as_deref(), Some("x\n"));
}

/// A repeated restoration changes nothing, not even what was done since.
pub async fn restoring_what_is_there_keeps_it(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    place.write(&worktree.path, "new", "x\n");
    let origin = take_away(&*vcs, &worktree, &REMOVAL).await;
    vcs.make(attempt(1), &worktree, &origin).await.expect("restored");
    place.write(&worktree.path, "new", "y\n");
    vcs.make(attempt(1), &worktree, &origin).await.expect("kept");
    assert_eq!(place.read(&worktree.path, "new").as_deref(), Some("y\n"));
}

/// A removal that is given up after the save leaves the very worktree.
pub async fn what_was_saved_and_not_removed_is_put_back(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    for (number, content) in [(1, None), (2, Some("x\n"))] {
        if let Some(content) = content {
            place.write(&worktree.path, "new", content);
        }
        let number = SnapshotNumber(number);
        let asked = windlass_core::vcs_worktree::SaveRequest { number, ..REMOVAL };
        let saved = vcs.save(attempt(1), &worktree, &asked).await.expect("saved");
        let vcs = place.open().await;
        let origin = Origin::Removed(removed(&saved));
        let verified = vcs.make(attempt(1), &worktree, &origin).await.expect("put back");
        assert_eq!((verified.head, verified.branch), (saved.head, saved.branch));
        assert_eq!(place.read(&worktree.path, "new").as_deref(), content);
        assert_eq!(place.read(&worktree.path, "greeting").as_deref(), Some("hello\n"));
    }
    let refused = vcs.remove(attempt(1), &worktree, Removal::Worktree).await;
    assert!(matches!(refused, Err(VcsWorktreeError::Unsaved { .. })), "{refused:?}");
}

/// What stands in its place now stays.
pub async fn nothing_is_restored_over_a_strangers_directory(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    place.write(&worktree.path, "new", "x\n");
    let origin = take_away(&*vcs, &worktree, &REMOVAL).await;
    place.write(&worktree.path, "stranger", "x\n");
    let refused = vcs.make(attempt(1), &worktree, &origin).await;
    assert!(matches!(refused, Err(VcsWorktreeError::Mismatch { .. })), "{refused:?}");
    assert_eq!(place.read(&worktree.path, "stranger").as_deref(), Some("x\n"));
    assert_eq!(place.read(&worktree.path, "new"), None);
}

/// Nothing is made of a snapshot that somebody removed; removing it again is no error.
pub async fn a_snapshot_that_is_gone_restores_nothing(place: impl VcsWorktreePlace) {
    let (vcs, repo, worktree) = created(&place).await;
    place.write(&worktree.path, "new", "x\n");
    let origin = take_away(&*vcs, &worktree, &REMOVAL).await;
    for _ in 0..2 {
        let gone = Removal::Snapshot(SnapshotNumber::FIRST);
        vcs.remove(attempt(1), &worktree, gone).await.expect("removed");
        let refused = vcs.make(attempt(1), &worktree, &origin).await;
        let Err(VcsWorktreeError::NoSnapshot { number }) = refused else { panic!("{refused:?}") };
        assert_eq!(number, SnapshotNumber::FIRST);
    }
    assert!(!place.exists(&worktree.path));
    assert_eq!(place.tip(&repo, &worktree.branch), worktree.base_oid);
}

/// Only what is not tracked is copied, and never over something.
pub async fn ignored_files_are_copied_in_by_globs(place: impl VcsWorktreePlace) {
    let (repo, _) = super::repository(&place);
    place.write(&repo, ".gitignore", ".env\n.env.local\n");
    place.write(&repo, "sub/.env.tracked", "committed\n");
    place.commit(&repo, "ignore");
    place.write(&repo, ".env", "A=1\n");
    place.write(&repo, "sub/.env.local", "B=2\n");
    place.write(&repo, "sub/.env.tracked", "changed\n");
    place.write(&repo, "other", "x\n");
    let vcs = place.open().await;
    let asked = |globs: &[&str]| {
        let copy = globs.iter().map(|glob| (*glob).to_owned()).collect();
        WorktreeRequest { copy, ..request(&repo, 1) }
    };
    let planned = vcs.plan(asked(&["no*", ".env*", "sub/.env.tracked"])).await.expect("a plan");
    assert_eq!(planned.unmatched, ["no*", "sub/.env.tracked"]);
    let planned = vcs.plan(asked(&[".env*"])).await.expect("a plan");
    assert_eq!(planned.unmatched, Vec::<String>::new());
    let (worktree, copy) = (planned.worktree, vec![".env*".to_owned()]);
    assert_eq!(worktree.copy.as_ref().map(|copy| &copy.globs), Some(&copy));
    vcs.make(attempt(1), &worktree, &Origin::Base).await.expect("a worktree");
    let read = |path| place.read(&worktree.path, path);
    assert_eq!(read(".env").as_deref(), Some("A=1\n"));
    assert_eq!(read("sub/.env.local").as_deref(), Some("B=2\n"));
    assert_eq!(read("sub/.env.tracked").as_deref(), Some("committed\n"));
    assert_eq!(read("other"), None);
    assert!(!vcs.status(attempt(1), &worktree).await.expect("a status").dirty);
}

/// What was copied in and not changed since needs no snapshot; what was changed does.
pub async fn copied_files_are_no_work_and_come_back(place: impl VcsWorktreePlace) {
    let (repo, _) = super::repository(&place);
    place.ignore(&repo, ".env");
    place.commit(&repo, "ignore");
    place.write(&repo, ".env", "A=1\n");
    let vcs = place.open().await;
    let asked = WorktreeRequest { copy: vec![".env".to_owned()], ..request(&repo, 1) };
    let worktree = vcs.plan(asked).await.expect("a plan").worktree;
    vcs.make(attempt(1), &worktree, &Origin::Base).await.expect("a worktree");
    let saved = vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.expect("removed");
    assert_eq!(saved.snapshot, None);
    vcs.make(attempt(1), &worktree, &Origin::Removed(removed(&saved))).await.expect("restored");
    assert_eq!(place.read(&worktree.path, ".env").as_deref(), Some("A=1\n"));
    place.write(&worktree.path, ".env", "A=2\n");
    let origin = take_away(&*vcs, &worktree, &REMOVAL).await;
    vcs.make(attempt(1), &worktree, &origin).await.expect("restored");
    assert_eq!(place.read(&worktree.path, ".env").as_deref(), Some("A=2\n"));
}
