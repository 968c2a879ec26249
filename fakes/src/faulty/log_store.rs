//! A faulty [`LogStore`].

use async_trait::async_trait;
use windlass_core::log_store::{
    LogItem, LogKey, LogPage, LogStatus, LogStore, LogStoreError, ReadOptions, Seq,
};

use super::{About, Call, Faulty, Method, Site, Wrong, done};

fn wrong(wrong: Wrong) -> LogStoreError {
    match wrong {
        Wrong::Full => LogStoreError::Full,
        Wrong::Unknown(op) => op.error().into(),
    }
}

fn about(site: Site, log: &LogKey) -> Call {
    Call { site, about: About::Execution(log.execution) }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: LogStore> LogStore for Faulty<T> {
    async fn append(&self, log: &LogKey, items: Vec<LogItem>) -> Result<Seq, LogStoreError> {
        let perform = || self.inner.append(log, items.clone());
        self.call(about(Site::Append, log), Method { batch: &[], perform, wrong, tell: done }).await
    }

    async fn seal(&self, log: &LogKey) -> Result<(), LogStoreError> {
        let perform = || self.inner.seal(log);
        self.call(about(Site::Seal, log), Method { batch: &[], perform, wrong, tell: done }).await
    }

    async fn read(&self, log: &LogKey, options: ReadOptions) -> Result<LogPage, LogStoreError> {
        let perform = || self.inner.read(log, options);
        self.call(about(Site::Read, log), Method { batch: &[], perform, wrong, tell: done }).await
    }

    async fn grown(&self, log: &LogKey, after: Seq) -> Result<(), LogStoreError> {
        let perform = || self.inner.grown(log, after);
        self.call(about(Site::Grown, log), Method { batch: &[], perform, wrong, tell: done }).await
    }

    async fn status(&self, log: &LogKey) -> Result<LogStatus, LogStoreError> {
        let perform = || self.inner.status(log);
        self.call(about(Site::LogStatus, log), Method { batch: &[], perform, wrong, tell: done })
            .await
    }

    async fn remove(&self, log: &LogKey) -> Result<(), LogStoreError> {
        let perform = || self.inner.remove(log);
        self.call(about(Site::RemoveLog, log), Method { batch: &[], perform, wrong, tell: done })
            .await
    }
}
