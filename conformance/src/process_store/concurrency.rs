//! Many at once, and what each of them sees.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::{join_all, poll_immediate};
use windlass_core::id::Epoch;
use windlass_core::process_store::{
    ChangeNumber, Expect, Lease, ProcessStoreError, ProcessStoreExt as _, Record, RecordKey,
    Revision,
};

use super::{
    ProcessStorePlace, acquire, changes, commit, create, filled, key, listed, newest, put, record,
};

/// Runs `make(n)` for every `n` at the same time, each in a task of its own.
async fn together<T, F>(count: u64, make: impl Fn(u64) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let tasks: Vec<_> = (0..count).map(|n| tokio::spawn(make(n))).collect();
    join_all(tasks).await.into_iter().map(|task| task.expect("a task")).collect()
}

/// 64 tasks, each counting in a record of its own and appending others.
pub async fn concurrent_commits_are_applied_exactly_once(place: impl ProcessStorePlace) {
    let (store, lease) = filled(&place, (0..64).map(record)).await;
    let numbers = together(64, |task| {
        let store = Arc::clone(&store);
        async move {
            let mut numbers = Vec::new();
            for revision in 1..=10 {
                let batch = vec![
                    put(record(task), Expect::At(Revision(revision))),
                    create(record(1_000 + task * 100 + revision)),
                ];
                numbers.push(commit(&*store, lease, batch).await);
            }
            numbers
        }
    })
    .await;
    assert!(numbers.iter().all(|numbers| numbers.is_sorted()));
    let all: BTreeSet<_> = numbers.concat().into_iter().map(|number| number.0).collect();
    assert!(all.into_iter().eq(2..642), "numbers are missing or given twice");
    let store = place.open().await;
    assert_eq!(listed(&*store, newest(1_000)).await.len(), 64 + 640);
    for (task, numbers) in (0..).zip(&numbers) {
        let stored = store.require(key(task)).await.expect("a read");
        assert_eq!((stored.revision, Some(&stored.change)), (Revision(11), numbers.last()));
    }
    assert_eq!(changes(&*store, 1, u32::MAX).await.len(), 2 * 640);
}

/// The same name at the same time.
pub async fn concurrent_creators_have_one_winner(place: impl ProcessStorePlace) {
    let store = place.open().await;
    let lease = acquire(&*store).await;
    for round in 0..5 {
        let answers = together(32, |task| {
            let store = Arc::clone(&store);
            let mine = Record { owner: Some(task.to_string()), ..record(round) };
            async move { store.commit(vec![create(mine)], lease).await }
        })
        .await;
        let winners: Vec<usize> = answers
            .iter()
            .enumerate()
            .filter(|(_, answer)| answer.is_ok())
            .map(|(n, _)| n)
            .collect();
        let stored = store.require(key(round)).await.expect("a read");
        assert_eq!(winners.len(), 1);
        assert_eq!(stored.record.owner, Some(winners[0].to_string()));
        assert_eq!(stored.revision, Revision(1));
    }
}

/// Some are refused, all others go through, whatever shared a sync.
pub async fn refusals_do_not_affect_neighbours(place: impl ProcessStorePlace) {
    let (store, lease) = filled(&place, [record(5_000)]).await;
    let answers = together(90, |task| {
        let store = Arc::clone(&store);
        async move {
            let (writes, lease) = match task % 3 {
                0 => (vec![create(record(task))], lease),
                // A good write before a bad one.
                1 => (vec![create(record(task)), create(record(5_000))], lease),
                _ => (vec![create(record(task))], Lease { epoch: Epoch(0), ..lease }),
            };
            store.commit(writes, lease).await
        }
    })
    .await;
    for (task, answer) in answers.iter().enumerate() {
        let as_expected = match task % 3 {
            0 => answer.is_ok(),
            1 => matches!(answer, Err(ProcessStoreError::Conflict { .. })),
            _ => matches!(answer, Err(ProcessStoreError::Superseded { .. })),
        };
        assert!(as_expected, "{task}: {answer:?}");
    }
    let found = listed(&*store, newest(1_000)).await;
    let expected = [5_000].into_iter().chain((0..90).rev().filter(|n| n % 3 == 0));
    assert_eq!(found, expected.map(key).collect::<Vec<_>>());
    let page = store.changes(ChangeNumber(0), u32::MAX).await.expect("changes");
    assert_eq!((page.last, page.changes.len()), (ChangeNumber(31), 31));
}

/// While others commit, a reader never sees a number without all before it, nor half a batch.
pub async fn what_is_visible_is_a_prefix(place: impl ProcessStorePlace) {
    let store = place.open().await;
    let lease = acquire(&*store).await;
    let writers = together(16, |task| {
        let store = Arc::clone(&store);
        async move {
            for n in 0..20 {
                let pair = [0, 1].map(|half| create(record(task * 1_000 + n * 2 + half)));
                commit(&*store, lease, Vec::from(pair)).await;
            }
        }
    });
    let reader = async {
        let mut cursor = ChangeNumber(0);
        while cursor < ChangeNumber(320) {
            let page = store.changes(cursor, 7).await.expect("changes");
            assert!(page.changes.last().is_none_or(|change| change.number <= page.last));
            for pair in page.changes.chunks(2) {
                let numbers: Vec<u64> = pair.iter().map(|change| change.number.0).collect();
                assert_eq!(numbers, [cursor.0 + 1; 2]);
                assert!(store.get(pair[1].key).await.expect("a read").is_some());
                cursor = pair[0].number;
            }
            tokio::task::yield_now().await;
        }
    };
    futures::join!(writers, reader);
}

/// Whoever stops waiting changes nothing of what happens.
pub async fn a_dropped_commit_is_all_or_nothing(place: impl ProcessStorePlace) {
    let store = place.open().await;
    let lease = acquire(&*store).await;
    let pair = |n: u64| vec![create(record(2 * n)), create(record(2 * n + 1))];
    let mut acknowledged = BTreeSet::new();
    for n in 0..50 {
        let commit = store.commit(pair(n), lease);
        // Polled once at most, then dropped, wherever it is.
        if n.is_multiple_of(5) {
            drop(commit);
        } else if poll_immediate(commit).await.is_some_and(|answer| answer.is_ok()) {
            acknowledged.insert(n);
        }
    }
    commit(&*store, lease, pair(1_000)).await;
    let page = place.open().await.changes(ChangeNumber(0), u32::MAX).await.expect("changes");
    assert_eq!(page.changes.len() as u64, 2 * page.last.0, "{:?}", page.changes);
    let done: BTreeSet<RecordKey> = page.changes.iter().map(|change| change.key).collect();
    for n in 0..50 {
        let [first, second] = [2 * n, 2 * n + 1].map(|n| done.contains(&key(n)));
        assert_eq!(first, second, "half a batch");
        assert!(first || !acknowledged.contains(&n), "an acknowledged batch is gone");
        assert!(!first || !n.is_multiple_of(5), "what was never begun was done");
    }
}
