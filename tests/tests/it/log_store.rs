//! The suite of `LogStore` over logs that are moved while they are written and read.

use std::marker::PhantomData;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;
use windlass::log_store::Pumped;
use windlass::tokio_runtime::TokioRuntime;
use windlass_conformance::log_store::{LogStorePlace, fresh_log};
use windlass_core::log_store::{LogItem, LogKey, LogStore};
use windlass_redb::{RedbLogs, RedbOptions};
use windlass_sqlite::{SqliteLogs, SqliteOptions};

/// A store that keeps what is appended, in a file.
#[async_trait]
trait InFile: LogStore + Sized {
    async fn open_at(path: &Path) -> Arc<Self>;
    async fn close_it(&self);
}

#[async_trait]
impl InFile for RedbLogs {
    async fn open_at(path: &Path) -> Arc<Self> {
        Self::open(path, RedbOptions::default()).await.unwrap()
    }

    async fn close_it(&self) {
        self.close().await;
    }
}

#[async_trait]
impl InFile for SqliteLogs {
    async fn open_at(path: &Path) -> Arc<Self> {
        Self::open(path, SqliteOptions::default()).await.unwrap()
    }

    async fn close_it(&self) {
        self.close().await;
    }
}

/// What one host has open.
struct Opened<From, To> {
    segments: Arc<From>,
    kept: Arc<To>,
    pumped: Arc<Pumped>,
}

/// A place where logs are written into one store, as if shims did it, and moved into another one.
struct Moving<From, To> {
    directory: TempDir,
    opened: Mutex<Option<Opened<From, To>>>,
    /// The logs, and whether they have ended.
    logs: Mutex<Vec<(LogKey, bool)>>,
    stores: PhantomData<(From, To)>,
}

impl<From, To> Default for Moving<From, To> {
    fn default() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory, opened: Mutex::default(), logs: Mutex::default(), stores: PhantomData }
    }
}

impl<From, To> Moving<From, To> {
    fn segments(&self) -> Arc<From> {
        Arc::clone(&self.opened.lock().unwrap().as_ref().unwrap().segments)
    }

    fn pumped(&self) -> Arc<Pumped> {
        Arc::clone(&self.opened.lock().unwrap().as_ref().unwrap().pumped)
    }
}

#[async_trait]
impl<From: InFile, To: InFile> LogStorePlace for Moving<From, To> {
    async fn open(&self) -> Arc<dyn LogStore> {
        let before = self.opened.lock().unwrap().take();
        if let Some(Opened { segments, kept, pumped }) = before {
            pumped.close();
            segments.close_it().await;
            kept.close_it().await;
        }
        let segments = From::open_at(&self.directory.path().join("segments")).await;
        let kept = To::open_at(&self.directory.path().join("kept")).await;
        let pumped = Pumped::new(
            Arc::clone(&segments) as Arc<dyn LogStore>,
            Arc::clone(&kept) as Arc<dyn LogStore>,
            Arc::new(TokioRuntime::current()),
            Duration::from_millis(10),
        );
        for (log, has_ended) in self.logs.lock().unwrap().iter() {
            if *has_ended {
                pumped.ended(log.clone(), None);
            } else {
                pumped.begin(log.clone(), false);
            }
        }
        let opened = Opened { segments, kept, pumped: Arc::clone(&pumped) };
        *self.opened.lock().unwrap() = Some(opened);
        pumped
    }

    async fn create(&self, _store: &dyn LogStore) -> LogKey {
        let log = fresh_log();
        self.segments().append(&log, Vec::new()).await.unwrap();
        self.pumped().begin(log.clone(), true);
        self.logs.lock().unwrap().push((log.clone(), false));
        log
    }

    async fn missing(&self) -> LogKey {
        fresh_log()
    }

    async fn write(&self, _store: &dyn LogStore, log: &LogKey, items: &[LogItem]) {
        self.segments().append(log, items.to_vec()).await.unwrap();
    }

    async fn finish(&self, _store: &dyn LogStore, log: &LogKey) {
        self.segments().seal(log).await.unwrap();
        self.pumped().ended(log.clone(), None);
        let mut logs = self.logs.lock().unwrap();
        logs.iter_mut().filter(|(known, _)| known == log).for_each(|(_, ended)| *ended = true);
    }

    async fn tear(&self, _store: &dyn LogStore, _log: &LogKey, _item: &LogItem) {
        // An append is one transaction: who dies in the midst of it has written nothing.
    }
}

windlass_conformance::log_store_suite! {
    moved_to_redb => super::Moving<super::SqliteLogs, super::RedbLogs>,
    moved_to_sqlite => super::Moving<super::RedbLogs, super::SqliteLogs>,
}
