//! The suite of `ProcessStore` over [`SqliteStore`].

use std::sync::Arc;

use async_trait::async_trait;
use tempfile::TempDir;
use windlass_conformance::process_store::ProcessStorePlace;
use windlass_core::process_store::ProcessStore;
use windlass_sqlite::{SqliteOptions, SqliteStore};

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

windlass_conformance::process_store_suite! { sqlite => super::Sqlite }
