//! Batches that fail or are in doubt: the loop starts over from the store, and nobody waits for ever.

use windlass::EngineError;
use windlass::core::outcome::Outcome;
use windlass::core::process_store::{ChangeNumber, Kind, RecordKey};
use windlass::core::record::AttemptStatus;
use windlass::request::{RemoveOptions, StopTarget};

use crate::place::{
    Fault, Place, in_directory, in_worktree, keyed, operator, run, settled, with_secret,
};

const WELL: Option<Outcome> = Some(Outcome::Exited { code: 0 });

#[tokio::test]
async fn a_run_whose_batch_is_in_doubt_can_be_repeated_with_its_key() {
    for fault in [Fault::Before, Fault::After] {
        let place = Place::new();
        let handle = place.start().await;
        place.store.fail("queued", fault);
        let request = || with_secret(&["exit", "0"]);
        let unsure = handle.run(keyed("k"), request()).await;
        assert!(matches!(unsure, Err(EngineError::Backend(_))), "{unsure:?}");
        let accepted = handle.run(keyed("k"), request()).await.unwrap();
        assert_eq!(settled(&handle, &accepted).await.outcome, WELL, "{fault:?}");
        assert_eq!(place.launches(), 1, "{fault:?}");
    }
}

#[tokio::test]
async fn those_who_waited_with_the_same_key_are_answered_too() {
    let place = Place::new();
    let handle = place.start().await;
    place.store.fail("queued", Fault::After);
    let request = || in_directory(&["exit", "0"]);
    let (first, second) =
        futures::join!(handle.run(keyed("k"), request()), handle.run(keyed("k"), request()),);
    assert!(matches!(first, Err(EngineError::Backend(_))), "{first:?}");
    let accepted = handle.run(keyed("k"), request()).await.unwrap();
    if let Ok(second) = second {
        assert_eq!(second, accepted, "it came when the loop had started over");
    }
    assert_eq!(settled(&handle, &accepted).await.outcome, WELL);
}

#[tokio::test]
async fn whatever_batch_fails_an_execution_starts_once_and_who_waits_is_told() {
    for state in ["starting", "running", "ended", "final"] {
        for fault in [Fault::Before, Fault::After] {
            let place = Place::new();
            let handle = place.start().await;
            place.store.fail(state, fault);
            let accepted = run(&handle, in_directory(&["wait", "0"])).await;
            let releases = async {
                handle.started(&operator(), accepted.execution).await.unwrap();
                // Whoever waits is known to the loop by then.
                handle.status().await.unwrap();
                place.world.release(accepted.execution);
            };
            let (record, ()) = futures::join!(settled(&handle, &accepted), releases);
            assert_eq!(record.outcome, WELL, "{state} {fault:?}");
            assert_eq!(place.launches(), 1, "{state} {fault:?}");
            let status = handle.status().await.unwrap();
            assert_eq!((status.running, status.queued), (0, 0), "{state} {fault:?}");
        }
    }
}

#[tokio::test]
async fn who_follows_changes_hears_of_a_batch_that_was_in_doubt() {
    let place = Place::new();
    let handle = place.start().await;
    let accepted = run(&handle, in_directory(&["exit", "0"])).await;
    settled(&handle, &accepted).await;
    let last = handle.changes(&operator(), ChangeNumber(0), 1).await.unwrap().last;
    // Nothing is written after it.
    place.store.fail("removed", Fault::After);
    let (told, unsure) = futures::join!(
        handle.changed(last),
        handle.remove(operator(), accepted.attempt, RemoveOptions::default()),
    );
    told.unwrap();
    assert!(matches!(unsure, Err(EngineError::Backend(_))), "{unsure:?}");
    let page = handle.changes(&operator(), last, 1_000).await.unwrap();
    assert_eq!(page.changes[0].state.as_deref(), Some("removed"));
}

#[tokio::test]
async fn a_stop_that_was_in_doubt_is_carried_out_if_it_is_stored() {
    let place = Place::new();
    let handle = place.start().await;
    let accepted = run(&handle, in_directory(&["forever"])).await;
    handle.started(&operator(), accepted.execution).await.unwrap();
    place.store.fail("stopping", Fault::After);
    let target = StopTarget::Execution(accepted.execution);
    let unsure = handle.stop(operator(), target, None).await;
    assert!(matches!(unsure, Err(EngineError::Backend(_))), "{unsure:?}");
    let record = settled(&handle, &accepted).await;
    assert!(matches!(record.outcome, Some(Outcome::Stopped { .. })), "{record:?}");
}

#[tokio::test]
async fn a_host_whose_store_does_not_come_back_can_be_shut_down() {
    let place = Place::new();
    let handle = place.start().await;
    place.store.set_down(true);
    place.store.fail("queued", Fault::Before);
    let failed = handle.run(operator(), in_directory(&["exit", "0"])).await;
    assert!(matches!(failed, Err(EngineError::Backend(_))), "{failed:?}");
    handle.shut_down().await.unwrap();
    place.all_tasks_end().await;
}

#[tokio::test]
async fn a_host_says_how_it_is_while_its_store_is_away() {
    let place = Place::new();
    let handle = place.start().await;
    let epoch = handle.status().await.unwrap().epoch;
    place.store.set_down(true);
    place.store.fail("queued", Fault::Before);
    let failed = handle.run(operator(), in_directory(&["exit", "0"])).await;
    assert!(matches!(failed, Err(EngineError::Backend(_))), "{failed:?}");
    // It has not taken over again, and says so.
    assert_eq!(handle.status().await.unwrap().epoch, epoch);
}

#[tokio::test]
async fn a_host_whose_store_does_not_come_back_ends_with_its_last_handle() {
    let place = Place::new();
    let handle = place.start().await;
    place.store.set_down(true);
    place.store.fail("queued", Fault::Before);
    let failed = handle.run(operator(), in_directory(&["exit", "0"])).await;
    assert!(matches!(failed, Err(EngineError::Backend(_))), "{failed:?}");
    drop(handle);
    place.all_tasks_end().await;
}

#[tokio::test]
async fn a_record_that_is_damaged_keeps_no_host_from_starting() {
    let place = Place::new();
    let (repo, handle) = (place.repository(), place.start().await);
    place.store.fail("committing", Fault::After);
    place.store.set_down(true);
    let accepted = run(&handle, in_worktree(&repo, &["exit", "0"])).await;
    let committing = async || {
        let attempt = handle.attempt(&operator(), accepted.attempt).await.unwrap();
        attempt.status == AttemptStatus::Committing
    };
    let mut last = ChangeNumber(0);
    while !committing().await {
        // Told that the host is in trouble, it looks again.
        let _told = handle.changed(last).await;
        last = handle.changes(&operator(), last, 1).await.unwrap().last;
    }
    place.kill().await;
    place.store.set_down(false);
    place.store.damage(RecordKey { kind: Kind::Execution, id: accepted.execution.0 });
    let handle = place.start().await;
    let attempt = loop {
        let last = handle.changes(&operator(), ChangeNumber(0), 1).await.unwrap().last;
        let attempt = handle.attempt(&operator(), accepted.attempt).await.unwrap();
        if attempt.status == AttemptStatus::Finished {
            break attempt;
        }
        handle.changed(last).await.unwrap();
    };
    assert_eq!(attempt.committing, None);
}
