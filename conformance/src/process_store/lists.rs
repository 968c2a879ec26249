//! Lists: order, pages and filters.

use std::collections::BTreeSet;

use uuid::Uuid;
use windlass_core::process_store::{
    Cursor, Expect, Kind, ProcessStoreError, Query, Record, RecordKey, Revision, Write,
};
use windlass_core::time::Timestamp;

use super::{
    ProcessStorePlace, commit, create, filled, id, key, listed, newest, pages, put, record,
};

/// By time, not by the order of writing.
pub async fn lists_are_newest_first(place: impl ProcessStorePlace) {
    let at = |n, at| Record { at: Timestamp(at), ..record(n) };
    let (store, lease) = filled(&place, [at(1, 20), at(2, 30)]).await;
    commit(&*store, lease, vec![create(at(3, 10)), create(at(4, 0)), create(at(5, 1 << 62))]).await;
    let order = [5, 2, 1, 3, 4].map(key);
    assert_eq!(listed(&*store, newest(100)).await, order);
    assert_eq!(listed(&*store, newest(2)).await, order);
}

/// The order is total.
pub async fn equal_times_are_ordered_by_id(place: impl ProcessStorePlace) {
    let ids = [id(1, 0), id(0, u64::MAX), id(u64::MAX, 1), id(1, 1 << 63), id(0, 0), id(1, 1)];
    let records = ids.map(|id| Record {
        key: RecordKey { id, kind: Kind::Execution },
        at: Timestamp(7),
        ..record(0)
    });
    let (store, _) = filled(&place, records).await;
    let mut expected = ids;
    expected.sort_unstable_by(|a, b| b.cmp(a));
    for limit in [1, 2, 5, 100] {
        let ids: Vec<Uuid> =
            listed(&*store, newest(limit)).await.iter().map(|key| key.id).collect();
        assert_eq!(ids, expected, "in pages of {limit}");
    }
}

/// Also where a page ends between equal times.
pub async fn pages_have_neither_hole_nor_repeat(place: impl ProcessStorePlace) {
    let at = |n: u64| Record { at: Timestamp(n / 5), ..record(n) };
    let (store, _) = filled(&place, (0..53).map(at)).await;
    let everything: Vec<RecordKey> = (0..53).rev().map(key).collect();
    for limit in [1, 3, 10, 52, 53, 54, Query::MAX_LIMIT] {
        let pages = pages(&*store, newest(limit)).await;
        assert!(pages.iter().all(|page| page.len() <= limit as usize));
        assert_eq!(pages.concat(), everything, "in pages of {limit}");
    }
    let after = Cursor { at: Timestamp(3), id: id(17, 17) };
    let rest = listed(&*store, Query { after: Some(after), ..newest(4) }).await;
    assert_eq!(rest, everything[36..]);
}

/// Nobody is sent for a page that is empty.
pub async fn a_page_that_holds_the_rest_is_the_last(place: impl ProcessStorePlace) {
    let (store, _) = filled(&place, (0..10).map(record)).await;
    for limit in [10, 11, 1_000] {
        assert_eq!(store.list(newest(limit)).await.expect("a page").next, None, "{limit}");
    }
    assert_eq!(pages(&*store, newest(5)).await.len(), 2);
}

/// Each filter alone, and all together.
pub async fn lists_select_by_every_field(place: impl ProcessStorePlace) {
    let states = ["queued", "running", "final"];
    let record = |n: u64| Record {
        owner: (!n.is_multiple_of(4)).then(|| format!("owner-{}", n % 4)),
        parent: (!n.is_multiple_of(5)).then(|| id(900, n % 5)),
        state: states[(n % 3) as usize].to_owned(),
        ..record(n)
    };
    let (store, lease) = filled(&place, (0..120).map(record)).await;
    // The same fields in another kind.
    let task = |n| Record { key: RecordKey { kind: Kind::Task, ..key(n) }, ..record(n) };
    commit(&*store, lease, (0..120).map(|n| create(task(n))).collect()).await;

    let some_states = [vec![], vec!["running"], vec!["final", "queued"], vec!["none"]];
    for states in some_states {
        for owner in [None, Some("owner-1"), Some("owner-0")] {
            for parent in [None, Some(id(900, 2)), Some(id(900, 0))] {
                for suffix in [None, Some("1"), Some("0b"), Some("000b")] {
                    let query = Query {
                        states: states.iter().map(|&state| state.to_owned()).collect(),
                        owner: owner.map(str::to_owned),
                        parent,
                        id_suffix: suffix.map(str::to_owned),
                        ..newest(3)
                    };
                    let wanted = |record: &Record| {
                        (states.is_empty() || states.contains(&record.state.as_str()))
                            && (owner.is_none() || record.owner.as_deref() == owner)
                            && (parent.is_none() || record.parent == parent)
                            && suffix
                                .is_none_or(|end| record.key.id.simple().to_string().ends_with(end))
                    };
                    let expected: Vec<_> = (0..120)
                        .rev()
                        .map(record)
                        .filter(wanted)
                        .map(|record| record.key)
                        .collect();
                    assert_eq!(listed(&*store, query.clone()).await, expected, "{query:?}");
                }
            }
        }
    }
}

/// One order over all of them, however many and whether or not a state is named twice.
pub async fn several_states_are_merged_in_order(place: impl ProcessStorePlace) {
    let state = |n: u64| format!("state_{}", n % 40);
    let record = |n: u64| Record { state: state(n), at: Timestamp(n / 3), ..record(n) };
    let (store, _) = filled(&place, (0..200).map(record)).await;
    for states in [vec![3, 1, 2, 3], (0..39).collect::<Vec<_>>(), vec![41, 7]] {
        let named = |n: &u64| states.iter().any(|&other| state(other) == state(*n));
        let expected: Vec<_> = (0..200).rev().filter(named).map(key).collect();
        for limit in [1, 4, 1_000] {
            let states = states.iter().map(|&n| state(n)).collect();
            assert_eq!(listed(&*store, Query { states, ..newest(limit) }).await, expected);
        }
    }
}

/// Any number of digits, as people type them.
pub async fn ids_are_found_by_their_end(place: impl ProcessStorePlace) {
    let ends = [0x0123_4567_89ab_cdef, 0xffff_ffff_89ab_cdef, 0xffff_ffff_ffff_cdef, 0xdef, 0];
    let record = |(n, end): (u64, u64)| Record {
        key: RecordKey { kind: Kind::Execution, id: id(n, end) },
        ..record(n)
    };
    let (store, _) = filled(&place, (0..).zip(ends).map(record)).await;
    let whole = id(0, ends[0]).simple().to_string();
    for digits in 1..=32 {
        let suffix = whole[32 - digits..].to_owned();
        let expected: Vec<_> = (0..)
            .zip(ends)
            .map(|(n, end)| id(n, end))
            .filter(|id| id.simple().to_string().ends_with(&suffix))
            .collect();
        let query = Query { id_suffix: Some(suffix.clone()), ..newest(2) };
        let found: BTreeSet<Uuid> =
            listed(&*store, query).await.into_iter().map(|key| key.id).collect();
        assert_eq!(found, expected.into_iter().collect(), "{suffix}");
    }
}

/// Neither nothing nor everything is a page, and an end is made of digits.
pub async fn queries_out_of_range_are_refused(place: impl ProcessStorePlace) {
    let (store, _) = filled(&place, [record(1)]).await;
    let suffix = |suffix: &str| Query { id_suffix: Some(suffix.to_owned()), ..newest(1) };
    let long = "0".repeat(33);
    let queries = [
        newest(0),
        newest(Query::MAX_LIMIT + 1),
        newest(u32::MAX),
        suffix(""),
        suffix("AB"),
        suffix("0-1"),
        suffix("xyz"),
        suffix("ä"),
        suffix(&long),
    ];
    for query in queries {
        let answer = store.list(query.clone()).await;
        assert!(matches!(answer, Err(ProcessStoreError::Invalid { .. })), "{query:?} {answer:?}");
    }
    assert_eq!(listed(&*store, newest(Query::MAX_LIMIT)).await, [key(1)]);
}

/// What selects a record is its current version.
pub async fn a_list_follows_updates_and_deletes(place: impl ProcessStorePlace) {
    let (store, lease) = filled(&place, (1..=4).map(record)).await;
    let running = Record { state: "running".to_owned(), ..record(2) };
    let batch = vec![
        put(running, Expect::At(Revision(1))),
        Write::Delete { key: key(3), expect: Revision(1) },
    ];
    commit(&*store, lease, batch).await;
    let of_state = |state: &str| Query { states: vec![state.to_owned()], ..newest(10) };
    assert_eq!(listed(&*store, of_state("queued")).await, [4, 1].map(key));
    assert_eq!(listed(&*store, of_state("running")).await, [key(2)]);
}
