//! Stores of logs that break their word.

use std::sync::Arc;

use async_trait::async_trait;
use windlass_conformance::log_store::model::random_histories;
use windlass_conformance::log_store::{LogStorePlace, fresh_log};
use windlass_core::log_store::{
    LogItem, LogKey, LogPage, LogStatus, LogStore, LogStoreError, ReadOptions, Seq,
};
use windlass_fakes::{MemoryLogs, World};

use crate::found;

/// What a store does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Break {
    /// Nothing.
    None,
    /// A seal is not kept.
    ForgetsSeals,
    /// The last of several items is not kept.
    LosesItems,
    /// A log that was removed is still there.
    KeepsRemoved,
}

#[derive(Debug)]
struct BrokenLogs {
    how: Break,
    inner: MemoryLogs,
}

#[async_trait]
impl LogStore for BrokenLogs {
    async fn append(&self, log: &LogKey, mut items: Vec<LogItem>) -> Result<Seq, LogStoreError> {
        let last = items.last().map(LogItem::last_seq);
        if self.how == Break::LosesItems && items.len() > 3 {
            items.pop();
        }
        let end = self.inner.append(log, items).await?;
        Ok(last.unwrap_or(end).max(end))
    }

    async fn seal(&self, log: &LogKey) -> Result<(), LogStoreError> {
        if self.how == Break::ForgetsSeals { Ok(()) } else { self.inner.seal(log).await }
    }

    async fn read(&self, log: &LogKey, options: ReadOptions) -> Result<LogPage, LogStoreError> {
        self.inner.read(log, options).await
    }

    async fn grown(&self, log: &LogKey, after: Seq) -> Result<(), LogStoreError> {
        self.inner.grown(log, after).await
    }

    async fn status(&self, log: &LogKey) -> Result<LogStatus, LogStoreError> {
        self.inner.status(log).await
    }

    async fn remove(&self, log: &LogKey) -> Result<(), LogStoreError> {
        if self.how == Break::KeepsRemoved { Ok(()) } else { self.inner.remove(log).await }
    }
}

macro_rules! places {
    ($($name:ident),+) => {
        $(#[derive(Default)]
        struct $name(World);

        #[async_trait]
        impl LogStorePlace for $name {
            async fn open(&self) -> Arc<dyn LogStore> {
                Arc::new(BrokenLogs { how: Break::$name, inner: MemoryLogs::new(self.0.clone()) })
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
                // An append is done at once.
            }
        })+
    };
}

places!(None, ForgetsSeals, LosesItems, KeepsRemoved);

#[test]
fn a_store_that_keeps_its_word_is_not_accused() {
    random_histories::<None>();
}

#[test]
fn every_broken_word_is_found() {
    let findings = [
        found(random_histories::<ForgetsSeals>),
        found(random_histories::<LosesItems>),
        found(random_histories::<KeepsRemoved>),
    ];
    for finding in findings {
        assert!(finding.contains("allowed is"), "{finding}");
    }
}
