//! The suite of `ProcessStore` over the example backend.

#[path = "../examples/json_store/process_store.rs"]
mod process_store;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tempfile::TempDir;
use uuid::Uuid;
use windlass_conformance::process_store::ProcessStorePlace;
use windlass_core::id::{Epoch, HostId, NodeId};
use windlass_core::process_store::{ProcessStore, ProcessStoreError};

use self::process_store::JsonStore;

/// A file in a directory of its own. Only one may have it open, so that opening it again closes it first.
struct Json {
    directory: TempDir,
    opened: Mutex<Option<Arc<JsonStore>>>,
}

impl Default for Json {
    fn default() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { directory, opened: Mutex::default() }
    }
}

#[async_trait]
impl ProcessStorePlace for Json {
    async fn open(&self) -> Arc<dyn ProcessStore> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(before) = opened.take() {
            before.close();
        }
        let store = JsonStore::open(&self.directory.path().join("records.json"));
        let store = Arc::new(store.expect("a store"));
        *opened = Some(Arc::clone(&store));
        store
    }
}

windlass_conformance::process_store_suite! { json => super::Json }
windlass_conformance::process_store_histories! { json_histories => super::Json }

#[test]
fn the_example_is_as_short_as_the_guide_says() {
    let text = include_str!("../examples/json_store/process_store.rs");
    assert!(text.lines().count() < 300, "{} lines", text.lines().count());
}

#[test]
fn a_newer_file_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("records.json");
    let text = "{\"Format\":2}\n{\"Rows\":[]}\n";
    std::fs::write(&path, text).expect("a file");
    let refused = JsonStore::open(&path).expect_err("a refusal");
    assert!(matches!(refused, ProcessStoreError::Newer { found: 2, known: 1 }), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&path).expect("a file"), text);
}

#[test]
fn what_is_no_store_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("records.json");
    for text in ["notes", "notes\n", "{}\n", "[1, 2"] {
        std::fs::write(&path, text).expect("a file");
        assert!(JsonStore::open(&path).is_err(), "{text}");
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), text);
    }
}

#[test]
fn a_torn_line_is_cut_off_and_a_damaged_one_is_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("records.json");
    let host = HostId(Uuid::nil());
    let acquire = |store: JsonStore| {
        let lease = windlass_conformance::block_on(store.acquire(host, NodeId(Uuid::nil())));
        lease.expect("a lease").epoch
    };
    for epoch in 1..=3 {
        assert_eq!(acquire(JsonStore::open(&path).expect("a store")), Epoch(epoch));
    }
    let whole = std::fs::read_to_string(&path).expect("a file");
    let last = whole.trim_end().rfind('\n').expect("several lines") + 1;
    for torn in [&whole[..last], &whole[..last + 9], &format!("{}\n", &whole[..last + 9])] {
        std::fs::write(&path, torn).expect("a file");
        assert_eq!(acquire(JsonStore::open(&path).expect("a store")), Epoch(3), "{torn}");
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), whole);
    }
    for torn in ["", "{", "{\"Format\":1}"] {
        std::fs::write(&path, torn).expect("a file");
        assert_eq!(acquire(JsonStore::open(&path).expect("a store")), Epoch(1), "{torn}");
    }
    let damaged = whole.replacen("Lease", "Leash", 1);
    std::fs::write(&path, &damaged).expect("a file");
    assert!(JsonStore::open(&path).is_err());
    assert_eq!(std::fs::read_to_string(&path).expect("a file"), damaged);
}
