//! A wall clock that is set while executions run.

use windlass::core::outcome::Outcome;
use windlass::core::record::Phase;
use windlass::request::Accepted;
use windlass::view::{ExecutionContext, ExecutionView};

use crate::place::{Place, in_directory, operator, run, settled};

const HOUR_MS: i64 = 3_600_000;

#[tokio::test]
async fn a_clock_that_is_set_ends_nothing_early_and_changes_no_order() {
    let place = Place::with_limits(1, 8);
    let handle = place.start().await;
    // Its deadlines would be the shim's affair; here the host must leave it alone.
    let first = run(&handle, in_directory(&["wait", "0"])).await;
    handle.started(&operator(), first.execution).await.unwrap();
    place.set_clock(-HOUR_MS);
    let second = run(&handle, in_directory(&["print", "second", ""])).await;
    let third = run(&handle, in_directory(&["exit", "3"])).await;
    // A host that starts a day later, and one that starts two days before that, find all as it was.
    place.set_clock(24 * HOUR_MS);
    drop(handle);
    let handle = place.restart().await;
    place.set_clock(-48 * HOUR_MS);
    drop(handle);
    let handle = place.restart().await;
    for (accepted, phase) in
        [(&first, Phase::Running), (&second, Phase::Queued), (&third, Phase::Queued)]
    {
        let record = handle.execution(&operator(), accepted.execution).await.unwrap();
        assert_eq!((record.phase, record.outcome), (phase, None));
    }
    place.world.release(first.execution);
    for (accepted, code) in [(&first, 0), (&second, 0), (&third, 3)] {
        let record = settled(&handle, accepted).await;
        assert_eq!(record.outcome, Some(Outcome::Exited { code }));
        let view = ExecutionView::new(&record, ExecutionContext::default());
        assert!(view.started_at.is_some() && view.ended_at >= view.started_at, "{view:?}");
    }
    assert_eq!(place.launches(), 3);
    // What came first has the lower number, whatever the clock said.
    let page = handle.changes(&operator(), Default::default(), 1_000).await.unwrap();
    let numbers: Vec<_> = page.changes.iter().map(|change| change.number).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    let ended = |accepted: &Accepted| {
        page.changes.iter().position(|change| {
            change.key.id == accepted.execution.0 && change.state.as_deref() == Some("final")
        })
    };
    assert!(ended(&first).is_some() && ended(&first) < ended(&second), "{page:?}");
    assert!(ended(&second) < ended(&third), "{page:?}");
}
