//! Records and pages that rotted: what can be read is read, and the rest is reported.

use std::fs;
use std::path::Path;

use windlass_core::process_store::{
    ChangeNumber, CheckReport, Expect, Kind, ProcessStore as _, ProcessStoreError, Query, Revision,
    Write,
};

use crate::{acquire, chain, create, filled, key, open, record, room, run};

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

async fn checked(path: &Path) -> CheckReport {
    open(path).await.expect("a store").check().await.expect("a report")
}

/// Damages the body of record 2 of 3, and looks.
async fn with_damaged_body(old: &[u8], new: &[u8]) {
    let (_directory, path) = room();
    filled(&path, 3).await;
    rot(&path, old, new);
    let store = open(&path).await.expect("a store");
    let error = store.get(key(2)).await.expect_err("damage");
    assert!(matches!(error, ProcessStoreError::Damaged { key: found, .. } if found == key(2)));
    for limit in [1, 2, 3] {
        let mut query = Query { limit, ..Query::newest(Kind::Execution, 1) };
        let mut found = Vec::new();
        loop {
            let page = store.list(query.clone()).await.expect("a page");
            found.extend(page.records.iter().map(|stored| stored.record.key));
            let Some(next) = page.next else { break };
            query.after = Some(next);
        }
        assert_eq!(found, [key(3), key(1)], "in pages of {limit}");
    }
    let report = store.check().await.expect("a report");
    assert_eq!((report.records, report.set_aside.len()), (2, 1), "{report:?}");
    assert!(report.set_aside[0].contains(&key(2).id.to_string()), "{report:?}");
    // It is still there, and whoever knows its revision may replace or delete it.
    let lease = acquire(&store).await;
    let taken = store.commit(create(record(2)), lease).await;
    let found = Some(Revision(1));
    assert!(matches!(taken, Err(ProcessStoreError::Conflict { found: f, .. }) if f == found));
    let write = Write::Put { record: record(2), expect: Expect::At(Revision(1)) };
    store.commit(vec![write], lease).await.expect("a commit");
    assert_eq!(store.get(key(2)).await.expect("a read").expect("a record").record, record(2));
    assert_eq!(store.check().await.expect("a report").set_aside, Vec::<String>::new());
}

#[test]
fn a_body_that_is_no_json_is_set_aside() {
    run(with_damaged_body(b"\"the body of 2\"}", b"\"the body of 2\"]"));
    run(with_damaged_body(
        b"{\"v\":1,\"note\":\"the body of 2",
        b"\0\"v\":1,\"note\":\"the body of 2",
    ));
}

#[test]
fn a_body_that_is_no_text_is_set_aside() {
    run(with_damaged_body(b"the body of 2", b"the body \xff\xfe 2"));
}

#[test]
fn an_owner_that_is_no_text_is_set_aside() {
    let (_directory, path) = room();
    run(async {
        let store = open(&path).await.expect("a store");
        let lease = acquire(&store).await;
        for n in 1..=3 {
            let owner = (n == 2).then(|| "unmistakable".to_owned());
            let record = windlass_core::process_store::Record { owner, ..record(n) };
            store.commit(create(record), lease).await.expect("a commit");
        }
        store.close().await;
        rot(&path, b"unmistakable", b"unmistak\xffble");
        let store = open(&path).await.expect("a store");
        assert!(matches!(store.get(key(2)).await, Err(ProcessStoreError::Damaged { .. })));
        let page = store.list(Query::newest(Kind::Execution, 5)).await.expect("a page");
        let found: Vec<_> = page.records.iter().map(|stored| stored.record.key).collect();
        assert_eq!(found, [key(3), key(1)]);
        // The change log lost an entry, not the rest.
        let changes = store.changes(ChangeNumber(0), 9).await.expect("changes");
        assert_eq!((changes.changes.len(), changes.last), (2, ChangeNumber(3)));
    });
}

#[test]
fn a_state_that_is_no_word_is_set_aside() {
    let (_directory, path) = room();
    run(async {
        filled(&path, 3).await;
        rot(&path, b"queued", b"qu ued");
        let report = checked(&path).await;
        assert_eq!((report.records, report.set_aside.len()), (0, 3), "{report:?}");
        let store = open(&path).await.expect("a store");
        assert!(matches!(store.get(key(1)).await, Err(ProcessStoreError::Damaged { .. })));
    });
}

#[test]
fn a_kind_that_nobody_knows_is_reported() {
    let (_directory, path) = room();
    run(async {
        filled(&path, 3).await;
        rot(&path, b"execution", b"exekution");
        let report = checked(&path).await;
        assert_eq!((report.records, report.set_aside.len()), (0, 3), "{report:?}");
        assert!(report.set_aside[0].contains("exekution"));
        let store = open(&path).await.expect("a store");
        assert_eq!(store.get(key(1)).await.expect("a read"), None);
        let lease = acquire(&store).await;
        store.commit(create(record(1)), lease).await.expect("the rest is usable");
    });
}

#[test]
fn a_damaged_page_is_reported_and_does_not_stop_the_store_from_opening() {
    let (_directory, path) = room();
    run(async {
        filled(&path, 2_000).await;
        let mut bytes = fs::read(&path).expect("a store");
        // The page that holds the oldest records: neither the schema nor anything that opening needs.
        let text = b"the body of 1\"";
        let at = bytes.windows(text.len()).position(|window| window == text).expect("a body");
        let page = at / 4_096 * 4_096;
        bytes[page..page + 4_096].fill(0x5a);
        fs::write(&path, &bytes).expect("a store");

        let store = open(&path).await.expect("a store");
        let report = store.check().await.expect("a report");
        assert!(!report.problems.is_empty(), "{report:?}");
        let newest = store.list(Query::newest(Kind::Execution, 50)).await.expect("a page");
        assert_eq!(newest.records.len(), 50);
        let error = store.get(key(1)).await.expect_err("damage");
        assert!(chain(&error).contains("malformed"), "{}", chain(&error));
    });
}
