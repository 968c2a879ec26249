//! The cases of stores that keep what is appended.

use std::sync::Arc;

use windlass_core::log_store::{GapCause, LogItem, LogStatus, LogStoreError, Seq, Stream};

use super::{LogStorePlace, after, entry, lines, log_of, read_all, waiting, with_gap};

/// A hole cannot be filled later.
pub async fn an_append_that_leaves_out_numbers_is_refused(place: impl LogStorePlace) {
    let store = place.open().await;
    let log = log_of(&place, &*store, &lines(1, 3)).await;
    let refused = store.append(&log, lines(5, 6)).await;
    assert!(
        matches!(refused, Err(LogStoreError::NotNext { end: Seq(3), got: Seq(5), .. })),
        "{refused:?}"
    );
    assert_eq!(read_all(&*store, &log, after(0)).await, lines(1, 3));
    // It makes no log either.
    let missing = place.missing().await;
    let refused = store.append(&missing, lines(2, 3)).await;
    assert!(matches!(refused, Err(LogStoreError::NotNext { .. })), "{refused:?}");
    let status = store.status(&missing).await;
    assert!(matches!(status, Err(LogStoreError::NotFound { .. })), "{status:?}");
}

/// A writer that does not know how far it came repeats itself.
pub async fn an_append_that_overlaps_adds_the_rest(place: impl LogStorePlace) {
    let store = place.open().await;
    let log = log_of(&place, &*store, &lines(1, 3)).await;
    assert_eq!(store.append(&log, lines(2, 6)).await.expect("an append"), Seq(6));
    assert_eq!(read_all(&*store, &log, after(0)).await, lines(1, 6));
}

/// The end is the end.
pub async fn an_append_to_a_sealed_log_is_refused(place: impl LogStorePlace) {
    let store = place.open().await;
    let log = log_of(&place, &*store, &lines(1, 3)).await;
    place.finish(&*store, &log).await;
    let refused = store.append(&log, lines(4, 4)).await;
    assert!(matches!(refused, Err(LogStoreError::Sealed { .. })), "{refused:?}");
    // A repetition is none.
    assert_eq!(store.append(&log, lines(2, 3)).await.expect("the end"), Seq(3));
}

/// That is how whoever feeds a store learns where to go on.
pub async fn an_append_of_nothing_makes_a_log_and_tells_its_end(place: impl LogStorePlace) {
    let store = place.open().await;
    let log = place.missing().await;
    for _ in 0..2 {
        assert_eq!(store.append(&log, Vec::new()).await.expect("the end"), Seq(0));
    }
    assert_eq!(store.status(&log).await.expect("a status"), LogStatus::default());
    assert_eq!(store.append(&log, lines(1, 3)).await.expect("an append"), Seq(3));
    assert_eq!(store.append(&log, Vec::new()).await.expect("the end"), Seq(3));
}

/// Neither what stands before the hole.
pub async fn a_refused_append_adds_nothing(place: impl LogStorePlace) {
    let store = place.open().await;
    let log = log_of(&place, &*store, &lines(1, 3)).await;
    let with_hole = [lines(2, 5), lines(7, 8)].concat();
    let refused = store.append(&log, with_hole).await;
    assert!(matches!(refused, Err(LogStoreError::NotNext { got: Seq(7), .. })), "{refused:?}");
    assert_eq!(read_all(&*store, &log, after(0)).await, lines(1, 3));
    assert_eq!(store.status(&log).await.expect("a status").last, Seq(3));
}

/// A feeder may have got some of what was lost where it reads.
pub async fn a_gap_that_overlaps_stands_for_the_rest(place: impl LogStorePlace) {
    let store = place.open().await;
    let log = log_of(&place, &*store, &lines(1, 5)).await;
    let (first, last) = (Seq(3), Some(Seq(9)));
    let gap = LogItem::Gap { first, last, bytes: 42, cause: GapCause::Power };
    assert_eq!(store.append(&log, vec![gap]).await.expect("an append"), Seq(9));
    let items = read_all(&*store, &log, after(0)).await;
    assert_eq!(items[..5], lines(1, 5));
    assert!(
        matches!(
            items[5..],
            [LogItem::Gap { first: Seq(6), last: Some(Seq(9)), cause: GapCause::Power, .. }]
        ),
        "{items:?}"
    );
    assert_eq!(store.append(&log, lines(10, 10)).await.expect("an append"), Seq(10));
}

/// Two feeders are one too many, and do no harm.
pub async fn appends_at_the_same_time_are_kept_once(place: impl LogStorePlace) {
    const LAST: u64 = 200;
    let store = place.open().await;
    let log = place.create(&*store).await;
    let feeders: Vec<_> = (1..=8)
        .map(|step| {
            let (store, log) = (Arc::clone(&store), log.clone());
            tokio::spawn(async move {
                let mut end = Seq(0);
                while end < Seq(LAST) {
                    let last = LAST.min(end.0 + step);
                    end = store.append(&log, lines(end.0 + 1, last)).await.expect("an append");
                }
            })
        })
        .collect();
    for feeder in feeders {
        feeder.await.expect("a feeder");
    }
    assert_eq!(read_all(&*store, &log, after(0)).await, lines(1, LAST));
    assert_eq!(store.status(&log).await.expect("a status").entries, LAST);
}

/// Wherever it was when nobody waited for it any more.
pub async fn a_dropped_append_ends_with_some_item(place: impl LogStorePlace) {
    let store = place.open().await;
    let log = place.create(&*store).await;
    for round in 0..20 {
        let end = store.append(&log, Vec::new()).await.expect("the end");
        let append = store.append(&log, lines(end.0 + 1, end.0 + 50));
        // Polled once at most.
        if round % 4 == 0 {
            drop(append);
        } else {
            let _may_be_done = futures::future::poll_immediate(append).await;
        }
    }
    let end = store.append(&log, Vec::new()).await.expect("the end");
    let expected = if end.0 == 0 { Vec::new() } else { lines(1, end.0) };
    assert_eq!(read_all(&*store, &log, after(0)).await, expected);
}

/// With its end, and with all that is known of it.
pub async fn what_was_appended_survives_a_restart(place: impl LogStorePlace) {
    let store = place.open().await;
    let log = place.create(&*store).await;
    for item in with_gap() {
        store.append(&log, vec![item]).await.expect("an append");
    }
    let status = store.status(&log).await.expect("a status");
    drop(store);
    let store = place.open().await;
    assert_eq!(store.status(&log).await.expect("a status"), status);
    assert_eq!(store.append(&log, with_gap()).await.expect("the end"), Seq(12));
    assert_eq!(read_all(&*store, &log, after(0)).await, with_gap());
    store.seal(&log).await.expect("a seal");
    drop(store);
    let store = place.open().await;
    assert!(store.status(&log).await.expect("a status").sealed);
}

/// There is nothing to wait for any more.
pub async fn a_removed_log_wakes_who_waits(place: impl LogStorePlace) {
    let store = place.open().await;
    let log = log_of(&place, &*store, &lines(1, 3)).await;
    let grown = waiting(&store, &log, 3);
    tokio::task::yield_now().await;
    store.remove(&log).await.expect("a removal");
    let error = grown.await.expect("a wait").expect_err("no growth");
    assert!(matches!(error, LogStoreError::NotFound { .. }), "{error:?}");
}

/// Nothing of the former one is in it.
pub async fn a_log_can_be_made_again_after_it_was_removed(place: impl LogStorePlace) {
    let store = place.open().await;
    let items: Vec<LogItem> =
        (1..=2_000).map(|seq| entry(seq, Stream::Stdout, &[b'x'; 4_096])).collect();
    let log = log_of(&place, &*store, &items).await;
    store.remove(&log).await.expect("a removal");
    assert_eq!(store.append(&log, lines(1, 2)).await.expect("an append"), Seq(2));
    assert_eq!(read_all(&*store, &log, after(0)).await, lines(1, 2));
    assert_eq!(store.status(&log).await.expect("a status").entries, 2);
    drop(store);
    let store = place.open().await;
    assert_eq!(read_all(&*store, &log, after(0)).await, lines(1, 2));
}
