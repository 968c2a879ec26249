//! The suites of `ProcessStore` over [`SqliteStore`] and of `LogStore` over [`SqliteLogs`].

use std::sync::Arc;

use async_trait::async_trait;
use tempfile::TempDir;
use windlass_conformance::log_store::{LogStorePlace, fresh_log};
use windlass_conformance::process_store::ProcessStorePlace;
use windlass_core::log_store::{LogItem, LogKey, LogStore};
use windlass_core::process_store::ProcessStore;
use windlass_sqlite::{SqliteLogs, SqliteOptions, SqliteStore};

/// A database in a directory of its own.
struct Sqlite {
    directory: TempDir,
}

impl Default for Sqlite {
    fn default() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory") }
    }
}

#[async_trait]
impl ProcessStorePlace for Sqlite {
    async fn open(&self) -> Arc<dyn ProcessStore> {
        let path = self.directory.path().join("windlass.db");
        SqliteStore::open(path, SqliteOptions::default()).await.expect("a store")
    }
}

#[async_trait]
impl LogStorePlace for Sqlite {
    async fn open(&self) -> Arc<dyn LogStore> {
        let path = self.directory.path().join("logs.db");
        SqliteLogs::open(path, SqliteOptions::default()).await.expect("a store")
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
        // An append is one transaction: a writer that dies in the midst of it has written nothing.
    }
}

windlass_conformance::process_store_suite! { sqlite => super::Sqlite }
windlass_conformance::process_store_shared_suite! { sqlite_open_twice => super::Sqlite }
windlass_conformance::log_store_suite! { sqlite_logs => super::Sqlite }
windlass_conformance::log_store_append_suite! { sqlite_logs_append => super::Sqlite }
windlass_conformance::process_store_histories! { sqlite_histories => super::Sqlite }
windlass_conformance::log_store_histories! { sqlite_logs_histories => super::Sqlite }
