//! What only the fake can show: strangers with open files, processes at work, crashes in the middle of a save.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::future::Future;

use uuid::Uuid;
use windlass_conformance::vcs_worktree::MakeAtOnce as _;
use windlass_core::id::AttemptId;
use windlass_core::snapshot::SnapshotNumber;
use windlass_core::vcs_worktree::{
    FoundState, Identity, Origin, Removal, Removed, SaveRequest, VcsWorktree, VcsWorktreeError,
    WorktreeRequest,
};
use windlass_core::workspace::Worktree;
use windlass_fakes::{MemoryRepositories, MemoryWorktrees};

const A: AttemptId = AttemptId(Uuid::from_u128(0xa));
const REMOVAL: SaveRequest = SaveRequest::before_removal(SnapshotNumber::FIRST);

/// Nothing in memory waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    windlass_conformance::block_on(future)
}

/// Makes a worktree with one untracked file.
fn dirty(repositories: &MemoryRepositories) -> (MemoryWorktrees, Worktree) {
    let repo = repositories.init();
    repositories.write(&repo, "file", b"one");
    let user = Identity { name: "User".to_owned(), email: "user@example.org".to_owned() };
    let _first = repositories.commit(&repo, "first", &user);
    let vcs = MemoryWorktrees::open(repositories, "data");
    let (base, branch, title, copy) = (None, None, String::new(), Vec::new());
    let request = WorktreeRequest { attempt: A, repo, base, branch, title, copy };
    let worktree = now(vcs.plan(request)).unwrap().worktree;
    now(vcs.make(A, &worktree, &Origin::Base)).unwrap();
    repositories.write(&worktree.path, "new", b"work");
    (vcs, worktree)
}

#[test]
fn what_changed_after_the_save_stays_and_is_reported() {
    let repositories = MemoryRepositories::default();
    let (vcs, worktree) = dirty(&repositories);
    now(vcs.save(A, &worktree, &REMOVAL)).unwrap();
    repositories.write_aside(&worktree.path, "new", b"more work");
    now(vcs.remove(A, &worktree, Removal::Worktree)).unwrap();
    let found = now(vcs.survey(&[])).unwrap();
    let [left] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(left.state, FoundState::Leftover { detail: "new".to_owned() });
}

#[test]
fn a_worktree_that_somebody_works_in_is_not_taken_away() {
    let repositories = MemoryRepositories::default();
    let (vcs, worktree) = dirty(&repositories);
    repositories.occupy(&worktree.path, true);
    let refused = now(vcs.save(A, &worktree, &REMOVAL));
    assert!(matches!(refused, Err(VcsWorktreeError::Occupied { .. })), "{refused:?}");
    now(vcs.verify(A, &worktree)).unwrap();
    repositories.occupy(&worktree.path, false);
    repositories.lock(&worktree.path, true);
    let refused = now(vcs.save(A, &worktree, &REMOVAL));
    assert!(matches!(refused, Err(VcsWorktreeError::Unfinished { .. })), "{refused:?}");
}

#[test]
fn a_save_that_a_crash_broke_off_is_done_again_or_undone() {
    let repositories = MemoryRepositories::default();
    let (vcs, worktree) = dirty(&repositories);
    repositories.crash_while_saving(&worktree.path);
    let gone = now(vcs.verify(A, &worktree));
    assert!(matches!(gone, Err(VcsWorktreeError::Gone { .. })), "{gone:?}");
    let refused = now(vcs.remove(A, &worktree, Removal::Worktree));
    assert!(matches!(refused, Err(VcsWorktreeError::Unsaved { .. })), "{refused:?}");
    // What becomes of a copy does not touch the other.
    let other = repositories.fork();
    let saved = now(MemoryWorktrees::open(&other, "data").save(A, &worktree, &REMOVAL)).unwrap();
    assert!(saved.snapshot.is_some());
    assert_eq!((other.snapshots(), repositories.snapshots()), (1, 0));
    let (head, branch) = (saved.head, saved.branch);
    let origin = Origin::Removed(Removed { head, branch, snapshot: None });
    now(vcs.make(A, &worktree, &origin)).unwrap();
    assert_eq!(repositories.read(&worktree.path, "new").as_deref(), Some(&b"work"[..]));
}

#[test]
fn a_full_quota_and_a_damaged_snapshot_are_refused() {
    let repositories = MemoryRepositories::default();
    let (vcs, worktree) = dirty(&repositories);
    repositories.set_snapshot_quota(1);
    let refused = now(vcs.save(A, &worktree, &REMOVAL));
    assert!(matches!(refused, Err(VcsWorktreeError::Quota { limit: 1, .. })), "{refused:?}");
    now(vcs.verify(A, &worktree)).unwrap();
    repositories.set_snapshot_quota(1 << 20);
    let saved = now(vcs.save(A, &worktree, &REMOVAL)).unwrap();
    now(vcs.remove(A, &worktree, Removal::Worktree)).unwrap();
    repositories.damage_snapshot("data", A, SnapshotNumber::FIRST);
    let snapshot = Some(SnapshotNumber::FIRST);
    let origin = Origin::Removed(Removed { head: saved.head, branch: saved.branch, snapshot });
    let refused = now(vcs.make(A, &worktree, &origin));
    assert!(matches!(refused, Err(VcsWorktreeError::DamagedSnapshot { .. })), "{refused:?}");
    assert!(!repositories.exists(&worktree.path));
}
