//! The suites of `ProcessStore` over [`RedbStore`] and of `LogStore` over [`RedbLogs`].

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tempfile::TempDir;
use windlass_conformance::log_store::{LogStorePlace, fresh_log};
use windlass_conformance::process_store::ProcessStorePlace;
use windlass_core::log_store::{LogItem, LogKey, LogStore};
use windlass_core::process_store::ProcessStore;
use windlass_redb::{RedbLogs, RedbOptions, RedbStore};

/// A database in a directory of its own. Only one may have it open, so that opening it again closes it first.
struct Redb<T> {
    directory: TempDir,
    opened: Mutex<Option<Arc<T>>>,
}

impl<T> Default for Redb<T> {
    fn default() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self { directory, opened: Mutex::default() }
    }
}

impl<T> Redb<T> {
    /// Takes what is open, or puts what was opened.
    fn swap(&self, opened: Option<Arc<T>>) -> Option<Arc<T>> {
        std::mem::replace(&mut *self.opened.lock().unwrap_or_else(PoisonError::into_inner), opened)
    }
}

#[async_trait]
impl ProcessStorePlace for Redb<RedbStore> {
    async fn open(&self) -> Arc<dyn ProcessStore> {
        if let Some(before) = self.swap(None) {
            before.close().await;
        }
        let path = self.directory.path().join("windlass.redb");
        let store = RedbStore::open(path, RedbOptions::default()).await.expect("a store");
        self.swap(Some(Arc::clone(&store)));
        store
    }
}

#[async_trait]
impl LogStorePlace for Redb<RedbLogs> {
    async fn open(&self) -> Arc<dyn LogStore> {
        if let Some(before) = self.swap(None) {
            before.close().await;
        }
        let path = self.directory.path().join("logs.redb");
        let store = RedbLogs::open(path, RedbOptions::default()).await.expect("a store");
        self.swap(Some(Arc::clone(&store)));
        store
    }

    async fn create(&self, store: &dyn LogStore) -> LogKey {
        let log = fresh_log();
        store.append(&log, Vec::new()).await.expect("an empty log");
        log
    }

    async fn missing(&self) -> LogKey {
        fresh_log()
    }

    async fn write(&self, store: &dyn LogStore, log: &LogKey, items: &[LogItem]) {
        store.append(log, items.to_vec()).await.expect("an append");
    }

    async fn finish(&self, store: &dyn LogStore, log: &LogKey) {
        store.seal(log).await.expect("a seal");
    }

    async fn tear(&self, _store: &dyn LogStore, _log: &LogKey, _item: &LogItem) {
        // An append is one transaction: a writer that dies in the midst of it has written nothing. The kill test does that.
    }
}

windlass_conformance::process_store_suite! { redb => super::Redb<super::RedbStore> }
windlass_conformance::log_store_suite! { redb_logs => super::Redb<super::RedbLogs> }
windlass_conformance::log_store_append_suite! { redb_logs_append => super::Redb<super::RedbLogs> }
windlass_conformance::process_store_histories! { redb_histories => super::Redb<super::RedbStore> }
windlass_conformance::log_store_histories! { redb_logs_histories => super::Redb<super::RedbLogs> }
