//! Worktrees that lose nothing: removed, made again, cleaned up, over hosts that are killed.

use windlass::EngineError;
use windlass::Handle;
use windlass::core::action::RunReason;
use windlass::core::cleanup::{Action, Thing};
use windlass::core::id::AttemptId;
use windlass::core::outcome::Outcome;
use windlass::core::process_store::{ChangeNumber, Kind, RecordKey};
use windlass::core::record::{AttemptRecord, AttemptStatus, Reason};
use windlass::core::snapshot::{SnapshotCause, SnapshotNumber};
use windlass::core::vcs_worktree::DiffDetail;
use windlass::core::workspace::Worktree;
use windlass::error::RefusalCode;
use windlass::handle::GcItem;
use windlass::request::{ExecRequest, GcOptions, LaunchRequest, RemoveOptions};

use crate::place::{Fault, Place, in_worktree, operator, run, settled};

const SAFE: RemoveOptions =
    RemoveOptions { force: false, discard_unsaved: false, delete_branch: false };
const DRY: GcOptions = GcOptions { dry_run: true };
const REAL: GcOptions = GcOptions { dry_run: false };
const HALF_AN_HOUR: u64 = 30 * 60 * 1_000;
const ONE: SnapshotNumber = SnapshotNumber(1);

async fn attempt(handle: &Handle, id: AttemptId) -> AttemptRecord {
    handle.attempt(&operator(), id).await.unwrap()
}

/// Makes a worktree that ended well and holds uncommitted work.
async fn dirty(place: &Place, handle: &Handle) -> (AttemptId, Worktree) {
    let accepted = run(handle, in_worktree(&place.repository(), &["exit", "0"])).await;
    settled(handle, &accepted).await;
    let record = attempt(handle, accepted.attempt).await;
    let worktree = record.workspace.worktree().unwrap().clone();
    place.repositories.write(&worktree.path, "new", b"work");
    (accepted.attempt, worktree)
}

/// Waits, by changes, until an attempt is as wanted.
async fn until(
    handle: &Handle,
    id: AttemptId,
    wanted: impl Fn(&AttemptRecord) -> bool,
) -> AttemptRecord {
    loop {
        let after = handle.changes(&operator(), ChangeNumber(0), 1).await.unwrap().last;
        let record = attempt(handle, id).await;
        if wanted(&record) {
            return record;
        }
        handle.changed(after).await.unwrap();
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, EngineError>) -> RefusalCode {
    match result {
        Err(EngineError::Refused { code, .. }) => code,
        other => panic!("not refused: {other:?}"),
    }
}

fn background(attempt: AttemptId, argv: &[&str]) -> ExecRequest {
    let launch = LaunchRequest::command(argv.iter().copied());
    ExecRequest { attempt, run_reason: RunReason::Background, launch, replace: false }
}

/// What was done, or would be, about the things of an attempt.
fn about(items: &[GcItem], id: AttemptId) -> Vec<(Thing, Action)> {
    let mine = items.iter().filter(|item| item.attempt == Some(id));
    mine.map(|item| (item.what, item.action)).collect()
}

#[tokio::test]
async fn what_is_dirty_is_saved_removed_and_comes_back_for_whoever_needs_it() {
    let place = Place::new();
    let handle = place.start().await;
    let (id, worktree) = dirty(&place, &handle).await;
    handle.remove(operator(), id, SAFE).await.unwrap();
    assert!(!place.repositories.exists(&worktree.path));
    let record = attempt(&handle, id).await;
    assert_eq!((record.status, record.claim), (AttemptStatus::Removed, None));
    let snapshots = handle.snapshots(&operator(), id).await.unwrap();
    let [kept] = snapshots.as_slice() else { panic!("{snapshots:?}") };
    assert_eq!((kept.snapshot.number, kept.cause), (ONE, SnapshotCause::Removal));
    // An execution, over the next host.
    let handle = place.restart().await;
    let accepted = handle.exec(operator(), background(id, &["exit", "0"])).await.unwrap();
    let execution = settled(&handle, &accepted).await;
    assert_eq!(execution.outcome, Some(Outcome::Exited { code: 0 }));
    assert_eq!(place.repositories.read(&worktree.path, "new").as_deref(), Some(&b"work"[..]));
    assert_eq!(attempt(&handle, id).await.status, AttemptStatus::Finished);
    // A diff.
    handle.remove(operator(), id, SAFE).await.unwrap();
    assert_eq!(refused(handle.measure(&operator(), id).await), RefusalCode::WorkspaceGone);
    let diff = handle.diff(&operator(), id, DiffDetail::Files).await.unwrap();
    assert_eq!(diff.files.len(), 1);
    // By name.
    handle.remove(operator(), id, SAFE).await.unwrap();
    handle.restore(operator(), id, None).await.unwrap();
    handle.restore(operator(), id, None).await.unwrap();
    assert!(place.repositories.exists(&worktree.path));
    assert_eq!(handle.snapshots(&operator(), id).await.unwrap().len(), 3);
}

#[tokio::test]
async fn an_older_snapshot_can_be_had_and_one_that_is_needed_is_kept() {
    let place = Place::new();
    let handle = place.start().await;
    let (id, worktree) = dirty(&place, &handle).await;
    handle.remove(operator(), id, SAFE).await.unwrap();
    handle.restore(operator(), id, None).await.unwrap();
    place.repositories.write(&worktree.path, "new", b"later");
    let there = handle.restore(operator(), id, Some(ONE)).await;
    assert_eq!(refused(there), RefusalCode::WrongState);
    handle.remove(operator(), id, SAFE).await.unwrap();
    let drop = async |number, force| {
        handle.remove_snapshot(operator(), id, SnapshotNumber(number), force).await
    };
    assert_eq!(refused(drop(2, false).await), RefusalCode::WrongState);
    assert_eq!(refused(drop(3, false).await), RefusalCode::NoSnapshot);
    handle.restore(operator(), id, Some(ONE)).await.unwrap();
    assert_eq!(place.repositories.read(&worktree.path, "new").as_deref(), Some(&b"work"[..]));
    drop(1, false).await.unwrap();
    assert_eq!(refused(drop(1, true).await), RefusalCode::NoSnapshot);
    assert_eq!(place.repositories.snapshots(), 1);
    assert_eq!(handle.snapshots(&operator(), id).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_removal_that_is_refused_leaves_everything_and_says_why() {
    let place = Place::new();
    let handle = place.start().await;
    let (id, worktree) = dirty(&place, &handle).await;
    let remove = async |options| handle.remove(operator(), id, options).await;
    place.repositories.occupy(&worktree.path, true);
    assert_eq!(refused(remove(SAFE).await), RefusalCode::Busy);
    place.repositories.occupy(&worktree.path, false);
    place.repositories.begin_merge(&worktree.path, "main");
    assert_eq!(refused(remove(SAFE).await), RefusalCode::Unfinished);
    place.repositories.make_special(&worktree.path, "socket");
    let forced = RemoveOptions { force: true, ..SAFE };
    assert_eq!(refused(remove(forced).await), RefusalCode::Unsaved);
    place.repositories.set_snapshot_quota(1);
    let discarding = RemoveOptions { discard_unsaved: true, ..forced };
    assert_eq!(refused(remove(discarding).await), RefusalCode::SnapshotQuota);
    let record = attempt(&handle, id).await;
    assert_eq!((record.status, record.claim), (AttemptStatus::Finished, None));
    assert!(matches!(record.reason, Some(Reason::RemoveFailed { .. })), "{record:?}");
    assert_eq!(place.repositories.read(&worktree.path, "new").as_deref(), Some(&b"work"[..]));
    place.repositories.set_snapshot_quota(1 << 20);
    remove(discarding).await.unwrap();
    handle.restore(operator(), id, None).await.unwrap();
    assert!(place.repositories.is_merging(&worktree.path));
}

#[tokio::test]
async fn a_damaged_snapshot_restores_nothing_and_stays_removed() {
    let place = Place::new();
    let handle = place.start().await;
    let (id, worktree) = dirty(&place, &handle).await;
    handle.remove(operator(), id, SAFE).await.unwrap();
    place.repositories.damage_snapshot("d", id, ONE);
    let damaged = handle.restore(operator(), id, None).await;
    assert_eq!(refused(damaged), RefusalCode::DamagedSnapshot);
    assert_eq!(attempt(&handle, id).await.status, AttemptStatus::Removed);
    let accepted = handle.exec(operator(), background(id, &["exit", "0"])).await.unwrap();
    let execution = settled(&handle, &accepted).await;
    assert!(matches!(execution.outcome, Some(Outcome::NotStarted { .. })), "{execution:?}");
    assert!(!place.repositories.exists(&worktree.path));
    assert_eq!(handle.status().await.unwrap().running, 0);
}

#[tokio::test]
async fn a_removal_goes_on_whatever_batch_of_it_fails() {
    // The claim, the snapshot with the claim, the end.
    for state in ["removing", "kept", "removed"] {
        for fault in [Fault::Before, Fault::After] {
            let place = Place::new();
            let handle = place.start().await;
            let (id, worktree) = dirty(&place, &handle).await;
            place.store.fail(state, fault);
            let unsure = handle.remove(operator(), id, SAFE).await;
            assert!(matches!(unsure, Err(EngineError::Backend(_))), "{state} {fault:?}");
            handle.remove(operator(), id, SAFE).await.unwrap();
            assert!(!place.repositories.exists(&worktree.path), "{state} {fault:?}");
            let snapshots = handle.snapshots(&operator(), id).await.unwrap();
            assert_eq!(snapshots.len(), 1, "{state} {fault:?}");
            assert_eq!(place.repositories.snapshots(), 1, "{state} {fault:?}");
            handle.restore(operator(), id, None).await.unwrap();
            let read = place.repositories.read(&worktree.path, "new");
            assert_eq!(read.as_deref(), Some(&b"work"[..]), "{state} {fault:?}");
        }
    }
}

#[tokio::test]
async fn a_host_that_is_killed_between_save_and_removal_is_gone_on_for() {
    for state in ["kept", "removed"] {
        let place = Place::new();
        let handle = place.start().await;
        let (id, worktree) = dirty(&place, &handle).await;
        // The store takes nothing any more: the host stands still right there until it is killed.
        place.store.fail(state, Fault::Before);
        place.store.set_down(true);
        let unsure = handle.remove(operator(), id, SAFE).await;
        assert!(matches!(unsure, Err(EngineError::Backend(_))), "{unsure:?}");
        assert!(!place.repositories.exists(&worktree.path), "it is aside, or gone");
        place.kill().await;
        place.store.set_down(false);
        let handle = place.start().await;
        let gone = |record: &AttemptRecord| record.status == AttemptStatus::Removed;
        until(&handle, id, gone).await;
        assert_eq!(handle.snapshots(&operator(), id).await.unwrap().len(), 1, "{state}");
        handle.restore(operator(), id, None).await.unwrap();
        let read = place.repositories.read(&worktree.path, "new");
        assert_eq!(read.as_deref(), Some(&b"work"[..]), "{state}");
    }
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let mut place = Place::new();
    place.config.cleanup.idle_ms = Some(HALF_AN_HOUR);
    let handle = place.start().await;
    let (id, worktree) = dirty(&place, &handle).await;
    let keeps = [(Thing::Worktree, Action::Keep)];
    for _ in 0..3 {
        place.pass(HALF_AN_HOUR);
        let items = handle.gc(DRY).await.unwrap();
        assert_eq!(about(&items, id), keeps, "what a dry run sees is not observed");
    }
    assert_eq!(about(&handle.gc(REAL).await.unwrap(), id), keeps, "seen once");
    place.pass(HALF_AN_HOUR);
    let removes = [(Thing::Worktree, Action::RemoveIdle)];
    assert_eq!(about(&handle.gc(DRY).await.unwrap(), id), removes);
    assert!(place.repositories.exists(&worktree.path));
    let items = handle.gc(REAL).await.unwrap();
    assert_eq!(about(&items, id), removes);
    assert!(items.iter().all(|item| item.error.is_none()), "{items:?}");
    assert!(!place.repositories.exists(&worktree.path));
    handle.restore(operator(), id, None).await.unwrap();
    assert_eq!(place.repositories.read(&worktree.path, "new").as_deref(), Some(&b"work"[..]));
    assert_eq!(about(&handle.gc(REAL).await.unwrap(), id)[0], keeps[0], "its time begins anew");
}

#[tokio::test]
async fn what_is_kept_or_in_use_is_never_idle() {
    let mut place = Place::new();
    place.config.cleanup.idle_ms = Some(0);
    // The world's time flows while nothing else happens.
    place.config.background_timeout_ms = None;
    let handle = place.start().await;
    let (kept, _) = dirty(&place, &handle).await;
    handle.keep(operator(), kept, true).await.unwrap();
    let (used, _) = dirty(&place, &handle).await;
    let running = handle.exec(operator(), background(used, &["wait", "0"])).await.unwrap();
    handle.started(&operator(), running.execution).await.unwrap();
    for _ in 0..3 {
        place.pass(HALF_AN_HOUR);
        let items = handle.gc(REAL).await.unwrap();
        for id in [kept, used] {
            assert_eq!(about(&items, id), [(Thing::Worktree, Action::Keep)], "{items:?}");
        }
    }
    place.world.release(running.execution);
    settled(&handle, &running).await;
    handle.keep(operator(), kept, false).await.unwrap();
    for _ in 0..2 {
        handle.gc(REAL).await.unwrap();
    }
    for id in [kept, used] {
        assert_eq!(attempt(&handle, id).await.status, AttemptStatus::Removed);
    }
}

#[tokio::test]
async fn an_orphan_is_saved_and_removed_after_its_grace_and_can_be_made_again() {
    let mut place = Place::new();
    place.config.cleanup.orphan_ms = Some(2 * HALF_AN_HOUR);
    let handle = place.start().await;
    let (id, worktree) = dirty(&place, &handle).await;
    place.kill().await;
    place.store.lose_records();
    let handle = place.start().await;
    let keeps = [(Thing::Worktree, Action::Keep)];
    assert_eq!(about(&handle.gc(REAL).await.unwrap(), id), keeps);
    place.pass(HALF_AN_HOUR);
    assert_eq!(about(&handle.gc(REAL).await.unwrap(), id), keeps);
    // A clock that jumps ahead counts as one period; the time of the host before counts, too.
    handle.shut_down().await.unwrap();
    place.all_tasks_end().await;
    let handle = place.start().await;
    place.pass(1_000 * HALF_AN_HOUR);
    let items = handle.gc(REAL).await.unwrap();
    assert_eq!(about(&items, id), [(Thing::Worktree, Action::RemoveOrphan)]);
    assert!(items.iter().all(|item| item.error.is_none()), "{items:?}");
    assert!(!place.repositories.exists(&worktree.path));
    let snapshots = handle.snapshots(&operator(), id).await.unwrap();
    assert_eq!(snapshots[0].cause, SnapshotCause::Orphan);
    handle.restore(operator(), id, None).await.unwrap();
    assert_eq!(place.repositories.read(&worktree.path, "new").as_deref(), Some(&b"work"[..]));
}

#[tokio::test]
async fn a_jump_of_the_clock_ends_no_grace() {
    let mut place = Place::new();
    place.config.cleanup.orphan_ms = Some(48 * HALF_AN_HOUR);
    let handle = place.start().await;
    let (id, _) = dirty(&place, &handle).await;
    place.kill().await;
    place.store.lose_records();
    let handle = place.start().await;
    for _ in 0..3 {
        let items = handle.gc(REAL).await.unwrap();
        assert_eq!(about(&items, id), [(Thing::Worktree, Action::Keep)]);
        place.pass(1_000_000 * HALF_AN_HOUR);
    }
}

#[tokio::test]
async fn what_a_damaged_record_describes_is_no_orphan() {
    let mut place = Place::new();
    place.config.cleanup.orphan_ms = Some(0);
    let handle = place.start().await;
    let (id, worktree) = dirty(&place, &handle).await;
    place.store.damage(RecordKey { kind: Kind::Attempt, id: id.0 });
    for _ in 0..3 {
        place.pass(HALF_AN_HOUR);
        let items = handle.gc(REAL).await.unwrap();
        assert_eq!(about(&items, id), [(Thing::Worktree, Action::Keep)]);
    }
    assert!(place.repositories.exists(&worktree.path));
}

#[tokio::test]
async fn what_somebody_deleted_is_marked_and_made_again_on_request() {
    let place = Place::new();
    let handle = place.start().await;
    let (id, worktree) = dirty(&place, &handle).await;
    place.repositories.stage(&worktree.path, "new");
    place.repositories.delete_directory(&worktree.path);
    let items = handle.gc(REAL).await.unwrap();
    assert_eq!(about(&items, id), [(Thing::Worktree, Action::MarkMissing)]);
    assert!(attempt(&handle, id).await.missing);
    let items = handle.gc(REAL).await.unwrap();
    assert_eq!(about(&items, id), [(Thing::Worktree, Action::Keep)]);
    handle.restore(operator(), id, None).await.unwrap();
    let record = attempt(&handle, id).await;
    assert_eq!((record.missing, record.status), (false, AttemptStatus::Finished));
    let staged = place.repositories.indexed(&worktree.path, "new");
    assert_eq!(staged.as_deref(), Some(&b"work"[..]));
}

#[tokio::test]
async fn a_snapshot_expires_when_its_time_is_over() {
    let mut place = Place::new();
    place.config.cleanup.snapshot_ms = Some(HALF_AN_HOUR);
    let handle = place.start().await;
    let (id, _) = dirty(&place, &handle).await;
    handle.remove(operator(), id, SAFE).await.unwrap();
    handle.restore(operator(), id, None).await.unwrap();
    handle.remove(operator(), id, SAFE).await.unwrap();
    let keeps = (Thing::Snapshot, Action::Keep);
    assert_eq!(about(&handle.gc(REAL).await.unwrap(), id), [keeps, keeps]);
    place.pass(HALF_AN_HOUR);
    let items = about(&handle.gc(REAL).await.unwrap(), id);
    assert!(items.contains(&(Thing::Snapshot, Action::ExpireSnapshot)), "{items:?}");
    assert!(items.contains(&keeps), "its worktree is made again from the last one");
    let left = handle.snapshots(&operator(), id).await.unwrap();
    assert_eq!(left.iter().map(|kept| kept.snapshot.number.0).collect::<Vec<_>>(), [2]);
    assert_eq!(place.repositories.snapshots(), 1);
}

#[tokio::test]
async fn cleanup_wakes_nobody_who_waits_for_changes_and_keeps_no_host() {
    let mut place = Place::new();
    place.config.cleanup.idle_ms = Some(1_000 * HALF_AN_HOUR);
    let handle = place.start().await;
    dirty(&place, &handle).await;
    let last = handle.changes(&operator(), ChangeNumber(0), 1).await.unwrap().last;
    handle.gc(REAL).await.unwrap();
    let observed = handle.changes(&operator(), last, 100).await.unwrap().changes;
    assert!(observed.iter().all(|change| change.key.kind == Kind::Observation), "{observed:?}");
    assert!(!observed.is_empty());
    let waits = handle.clone();
    let changed = async { waits.changed(last).await };
    let (changed, closed) = futures::join!(changed, handle.shut_down());
    assert!(matches!(changed, Err(EngineError::Closing)), "{changed:?}");
    closed.unwrap();
    drop((handle, waits));
    place.all_tasks_end().await;
}
