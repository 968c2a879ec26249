//! Records and pages that rotted: what can be read is read, and the rest is reported.

use std::fs;
use std::path::Path;

use windlass_core::process_store::{
    ChangeNumber, Expect, Kind, ProcessStore as _, ProcessStoreError, Query, Record, Revision,
    Write,
};

use crate::{acquire, create, filled, key, open, record, room, run};

/// Overwrites each place where `old` stands in the closed store.
fn rot(path: &Path, old: &[u8], new: &[u8]) {
    assert_eq!(old.len(), new.len());
    let mut bytes = fs::read(path).expect("a store");
    let places: Vec<usize> =
        (0..=bytes.len() - old.len()).filter(|&at| &bytes[at..at + old.len()] == old).collect();
    assert!(!places.is_empty(), "nothing to damage");
    for at in places {
        bytes[at..at + old.len()].copy_from_slice(new);
    }
    fs::write(path, bytes).expect("a store");
}

/// Lists all in pages of every size; what is damaged must be missing and nothing else.
async fn listed(store: &impl windlass_core::process_store::ProcessStore, expected: &[u64]) {
    for limit in [1, 2, 3] {
        let mut query = Query { limit, ..Query::newest(Kind::Execution, 1) };
        let mut found = Vec::new();
        loop {
            let page = store.list(query.clone()).await.expect("a page");
            found.extend(page.records.iter().map(|stored| stored.record.key));
            let Some(next) = page.next else { break };
            query.after = Some(next);
        }
        assert!(found.iter().eq(expected.iter().map(|n| key(*n)).collect::<Vec<_>>().iter()));
    }
}

#[test]
fn a_damaged_body_is_set_aside_and_can_be_replaced() {
    let (_directory, path) = room();
    run(async {
        filled(&path, 3).await;
        rot(&path, b"the body of 2", b"the b\xffdy of 2");
        let store = open(&path).await.expect("a store");
        let error = store.get(key(2)).await.expect_err("damage");
        assert!(matches!(error, ProcessStoreError::Damaged { key: found, .. } if found == key(2)));
        listed(&*store, &[3, 1]).await;
        let report = store.check().await.expect("a report");
        assert_eq!((report.records, report.set_aside.len()), (2, 1), "{report:?}");
        assert!(report.set_aside[0].contains(&key(2).id.to_string()), "{report:?}");
        assert_eq!(report.problems, Vec::<String>::new());
        // It is still there, and whoever knows its revision may replace or delete it.
        let lease = acquire(&store).await;
        let taken = store.commit(create(record(2)), lease).await;
        let found = Some(Revision(1));
        assert!(matches!(taken, Err(ProcessStoreError::Conflict { found: f, .. }) if f == found));
        let write = Write::Put { record: record(2), expect: Expect::At(Revision(1)) };
        store.commit(vec![write], lease).await.expect("a commit");
        assert_eq!(store.get(key(2)).await.expect("a read").expect("a record").record, record(2));
        assert_eq!(store.check().await.expect("a report").set_aside, Vec::<String>::new());
        store.close().await;
    });
}

#[test]
fn a_damaged_owner_is_set_aside_and_refuses_only_who_writes_it() {
    let (_directory, path) = room();
    run(async {
        let store = open(&path).await.expect("a store");
        let lease = acquire(&store).await;
        for n in 1..=3 {
            let owner = (n == 2).then(|| "unmistakable".to_owned());
            store.commit(create(Record { owner, ..record(n) }), lease).await.expect("a commit");
        }
        store.close().await;
        rot(&path, b"unmistakable", b"unmistak\xffble");
        let store = open(&path).await.expect("a store");
        assert!(matches!(store.get(key(2)).await, Err(ProcessStoreError::Damaged { .. })));
        listed(&*store, &[3, 1]).await;
        // The change log lost an entry, not the rest.
        let changes = store.changes(ChangeNumber(0), 9).await.expect("changes");
        assert_eq!((changes.changes.len(), changes.last), (2, ChangeNumber(3)));
        let report = store.check().await.expect("a report");
        assert_eq!((report.records, report.set_aside.len()), (2, 1), "{report:?}");
        assert_eq!(report.problems, ["an entry of change 2 is damaged"]);
        let write = |n| vec![Write::Put { record: record(n), expect: Expect::At(Revision(1)) }];
        let refused = store.commit(write(2), lease).await;
        assert!(matches!(refused, Err(ProcessStoreError::Damaged { .. })), "{refused:?}");
        store.commit(write(3), lease).await.expect("the rest is usable");
        store.close().await;
    });
}

#[test]
fn a_kind_that_nobody_knows_is_reported() {
    let (_directory, path) = room();
    run(async {
        filled(&path, 3).await;
        rot(&path, b"execution", b"exekution");
        let store = open(&path).await.expect("a store");
        let report = store.check().await.expect("a report");
        assert_eq!((report.records, report.set_aside.len()), (0, 3), "{report:?}");
        assert!(report.set_aside[0].contains("exekution"));
        assert_eq!(store.get(key(1)).await.expect("a read"), None);
        let lease = acquire(&store).await;
        store.commit(create(record(1)), lease).await.expect("the rest is usable");
        store.close().await;
    });
}

#[test]
fn a_damaged_lease_is_reported_and_refuses_writes() {
    let (_directory, path) = room();
    run(async {
        filled(&path, 1).await;
        let (host, rotten) = ([&[0; 15][..], &[1]].concat(), [&[0; 15][..], &[9]].concat());
        let epoch = 1_u64.to_le_bytes();
        rot(&path, &[&host[..], &epoch].concat(), &[&rotten[..], &epoch].concat());
        let store = open(&path).await.expect("a store");
        let report = store.check().await.expect("a report");
        assert_eq!((report.records, report.problems.len()), (1, 1), "{report:?}");
        let (host, node) = (uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(2));
        let (host, node) = (windlass_core::id::HostId(host), windlass_core::id::NodeId(node));
        let refused = store.acquire(host, node).await;
        assert!(matches!(refused, Err(ProcessStoreError::Backend(_))), "{refused:?}");
        assert!(store.get(key(1)).await.expect("a read").is_some());
        store.close().await;
    });
}

#[test]
fn a_damaged_page_is_reported_and_does_not_stop_the_store_from_opening() {
    for fill in [0x00, 0x5a, 0xff] {
        let (_directory, path) = room();
        run(async {
            filled(&path, 2_000).await;
            let mut bytes = fs::read(&path).expect("a store");
            // The page that holds the oldest records: neither the tables' roots nor anything that opening needs.
            let text = b"the body of 1\"";
            let at = bytes.windows(text.len()).position(|window| window == text).expect("a body");
            let page = at / 4_096 * 4_096;
            bytes[page..page + 4_096].fill(fill);
            fs::write(&path, &bytes).expect("a store");

            let store = open(&path).await.expect("a store");
            let report = store.check().await.expect("a report");
            assert!(!report.problems.is_empty(), "{fill}: {report:?}");
            let newest = store.list(Query::newest(Kind::Execution, 50)).await.expect("a page");
            assert_eq!(newest.records.len(), 50);
            let read = store.get(key(1)).await;
            assert!(!matches!(read, Ok(Some(_))), "{fill}: {read:?}");
            let lease = acquire(&store).await;
            store.commit(create(record(9_999)), lease).await.expect("the rest is usable");
            store.close().await;
        });
    }
}
