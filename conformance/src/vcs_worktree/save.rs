//! Cases about saving.

use windlass_core::snapshot::{LeftOutReason, SnapshotNumber};
use windlass_core::vcs_worktree::{
    Ignored, Removal, SaveFrom, SaveRequest, Unfinished, Unsavable, VcsWorktreeError,
};

use super::{MakeAtOnce as _, REMOVAL, VcsWorktreePlace, attempt, created, removed};

/// A crash may come after each save: the next one answers the same, and nothing is there by its path meanwhile.
pub async fn saving_again_gives_the_same_answer(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    place.write(&worktree.path, "new", "x\n");
    let first = vcs.save(attempt(1), &worktree, &REMOVAL).await.expect("saved");
    assert!(!place.exists(&worktree.path));
    let snapshot = first.snapshot.clone().expect("a snapshot");
    assert_eq!((snapshot.number, snapshot.entries), (SnapshotNumber::FIRST, 1));
    assert_eq!(vcs.save(attempt(1), &worktree, &REMOVAL).await.expect("saved"), first);
    let vcs = place.open().await;
    assert_eq!(vcs.save(attempt(1), &worktree, &REMOVAL).await.expect("saved"), first);
    vcs.remove(attempt(1), &worktree, Removal::Worktree).await.expect("removed");
}

/// What was saved in place goes on as if nothing had been.
pub async fn saving_in_place_leaves_the_worktree(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    let in_place = SaveRequest { from: SaveFrom::Place, ..REMOVAL };
    let clean = vcs.save(attempt(1), &worktree, &in_place).await.expect("saved");
    assert_eq!(clean.snapshot, None);
    place.write(&worktree.path, "greeting", "changed\n");
    place.delete(&worktree.path, "sub/numbers");
    let saved = vcs.save(attempt(1), &worktree, &in_place).await.expect("saved");
    let snapshot = saved.snapshot.expect("a snapshot");
    assert_eq!((snapshot.entries, snapshot.bytes, snapshot.deleted), (1, 8, 1));
    assert!(vcs.status(attempt(1), &worktree).await.expect("a status").dirty);
    assert_eq!(place.read(&worktree.path, "greeting").as_deref(), Some("changed\n"));
    // The next one has a number of its own and both are kept.
    place.write(&worktree.path, "greeting", "changed again\n");
    let second = SaveRequest { number: SnapshotNumber(2), ..in_place };
    let saved = vcs.save(attempt(1), &worktree, &second).await.expect("saved");
    assert_eq!(saved.snapshot.map(|snapshot| snapshot.number), Some(SnapshotNumber(2)));
}

/// A refusal names it and leaves everything where it was.
pub async fn what_cannot_be_saved_is_named_and_nothing_is_touched(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    place.write(&worktree.path, "new", "x\n");
    place.make_special(&worktree.path, "pipe");
    for from in [SaveFrom::Place, SaveFrom::Aside] {
        let request = SaveRequest { from, ..REMOVAL };
        let refused = vcs.save(attempt(1), &worktree, &request).await;
        let Err(VcsWorktreeError::Unsavable { entries, .. }) = refused else {
            panic!("{refused:?}")
        };
        assert!(entries.len() == 1 && entries[0].contains("pipe"), "{entries:?}");
        vcs.verify(attempt(1), &worktree).await.expect("untouched");
        assert_eq!(place.read(&worktree.path, "new").as_deref(), Some("x\n"));
    }
    let refused = vcs.remove(attempt(1), &worktree, Removal::Worktree).await;
    assert!(matches!(refused, Err(VcsWorktreeError::Unsaved { .. })), "{refused:?}");
}

/// Losing it is somebody's decision, and the snapshot says what was lost.
pub async fn what_is_discarded_is_left_out_and_named(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    place.write(&worktree.path, "new", "x\n");
    place.make_special(&worktree.path, "pipe");
    let discarding = SaveRequest { unsavable: Unsavable::Discard, ..REMOVAL };
    let saved = vcs.save(attempt(1), &worktree, &discarding).await.expect("saved");
    let snapshot = saved.snapshot.clone().expect("a snapshot");
    let left: Vec<_> =
        snapshot.left_out.iter().map(|left| (left.path.to_string(), left.reason)).collect();
    assert_eq!(left, [("pipe".to_owned(), LeftOutReason::Discarded)]);
    vcs.remove(attempt(1), &worktree, Removal::Worktree).await.expect("removed");
    let origin = windlass_core::vcs_worktree::Origin::Removed(removed(&saved));
    vcs.make(attempt(1), &worktree, &origin).await.expect("restored");
    assert_eq!(place.read(&worktree.path, "new").as_deref(), Some("x\n"));
}

/// An operation in progress is somebody's work at hand; its state can be saved on request.
pub async fn a_merge_that_has_not_ended_refuses_and_can_be_saved(place: impl VcsWorktreePlace) {
    let (vcs, repo, worktree) = created(&place).await;
    place.switch(&repo, "side");
    place.write(&repo, "theirs", "x\n");
    place.commit(&repo, "theirs");
    place.begin_merge(&worktree.path, "side");
    let refused = vcs.save(attempt(1), &worktree, &REMOVAL).await;
    assert!(matches!(refused, Err(VcsWorktreeError::Unfinished { .. })), "{refused:?}");
    vcs.verify(attempt(1), &worktree).await.expect("untouched");
    assert!(place.is_merging(&worktree.path));
    let forced = SaveRequest { unfinished: Unfinished::Save, ..REMOVAL };
    let origin = super::take_away(&*vcs, &worktree, &forced).await;
    vcs.make(attempt(1), &worktree, &origin).await.expect("restored");
    assert!(place.is_merging(&worktree.path));
}

/// Ignored files that nobody chose are work all the same: an `.env`, notes.
pub async fn what_is_ignored_by_default_is_saved(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    place.ignore(&worktree.path, "secret");
    place.commit(&worktree.path, "ignore");
    place.write(&worktree.path, "secret", "x\n");
    let origin = super::take_away(&*vcs, &worktree, &REMOVAL).await;
    vcs.make(attempt(1), &worktree, &origin).await.expect("restored");
    assert_eq!(place.read(&worktree.path, "secret").as_deref(), Some("x\n"));
}

/// The smallest come first, or those that are named; what stays out is named with its size.
pub async fn ignored_files_are_chosen_by_size_or_globs(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    place.write(&worktree.path, ".gitignore", "big\nsmall\n");
    place.commit(&worktree.path, "ignore");
    place.write(&worktree.path, "big", &"x".repeat(10_000));
    place.write(&worktree.path, "small", "x\n");
    let chosen = [
        (Ignored::UpTo(5_000), 2, "big", 10_000),
        (Ignored::Globs(vec!["b*g".to_owned()]), 10_000, "small", 2),
    ];
    for (number, (ignored, bytes, left_path, left_bytes)) in (1..).zip(chosen) {
        let number = SnapshotNumber(number);
        let request = SaveRequest { number, from: SaveFrom::Place, ignored, ..REMOVAL };
        let saved = vcs.save(attempt(1), &worktree, &request).await.expect("saved");
        let snapshot = saved.snapshot.expect("a snapshot");
        assert_eq!((snapshot.entries, snapshot.bytes), (1, bytes));
        let [left] = snapshot.left_out.as_slice() else { panic!("{snapshot:?}") };
        assert_eq!((left.path.to_string(), left.bytes), (left_path.to_owned(), left_bytes));
        assert_eq!((left.reason, snapshot.left_out_bytes), (LeftOutReason::Ignored, left_bytes));
    }
}
