//! A faulty [`ProcessStore`].

use async_trait::async_trait;
use windlass_core::id::{AttemptId, ExecutionId, HostId, NodeId};
use windlass_core::process_store::{
    ChangeNumber, ChangePage, CheckReport, Kind, Lease, Page, ProcessStore, ProcessStoreError,
    Query, RecordKey, Stored, Write,
};

use super::{About, Call, Effect, Faulty, Method, Site, Wrong, done};

fn wrong(wrong: Wrong) -> ProcessStoreError {
    match wrong {
        Wrong::Full => ProcessStoreError::Full,
        Wrong::Unknown(op) => op.error().into(),
    }
}

/// Says what a record is about.
fn about(key: RecordKey) -> About {
    match key.kind {
        Kind::Attempt => About::Attempt(AttemptId(key.id)),
        Kind::Execution => About::Execution(ExecutionId(key.id)),
        Kind::Project
        | Kind::Task
        | Kind::FollowUp
        | Kind::Request
        | Kind::Input
        | Kind::Snapshot
        | Kind::Observation => About::Record(key.id),
    }
}

/// Says what a batch is about: its attempt, or the attempt of its execution.
fn about_batch(batch: &[Write]) -> About {
    let attempt = batch.iter().find_map(|write| match write {
        Write::Put { record, .. } => match record.key.kind {
            Kind::Attempt => Some(record.key.id),
            Kind::Execution | Kind::FollowUp | Kind::Snapshot | Kind::Request => record.parent,
            Kind::Project | Kind::Task | Kind::Input | Kind::Observation => None,
        },
        Write::Delete { .. } => None,
    });
    match (attempt, batch.first()) {
        (Some(attempt), _) => About::Attempt(AttemptId(attempt)),
        (None, Some(write)) => about(write.key()),
        (None, None) => About::Nothing,
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: ProcessStore> ProcessStore for Faulty<T> {
    async fn acquire(&self, host: HostId, node: NodeId) -> Result<Lease, ProcessStoreError> {
        let call = Call { site: Site::Acquire, about: About::Nothing };
        let perform = || self.inner.acquire(host, node);
        let tell = |lease: &Lease, tell: &dyn Fn(Effect<'_>)| tell(Effect::Acquired(*lease));
        self.call(call, Method { batch: &[], perform, wrong, tell }).await
    }

    async fn commit(
        &self,
        batch: Vec<Write>,
        lease: Lease,
    ) -> Result<ChangeNumber, ProcessStoreError> {
        let call = Call { site: Site::Commit, about: about_batch(&batch) };
        let perform = || self.inner.commit(batch.clone(), lease);
        let tell = |number: &ChangeNumber, tell: &dyn Fn(Effect<'_>)| {
            tell(Effect::Committed { lease, writes: &batch, number: *number });
        };
        self.call(call, Method { batch: &batch, perform, wrong, tell }).await
    }

    async fn get(&self, key: RecordKey) -> Result<Option<Stored>, ProcessStoreError> {
        let call = Call { site: Site::Get, about: about(key) };
        let perform = || self.inner.get(key);
        self.call(call, Method { batch: &[], perform, wrong, tell: done }).await
    }

    async fn list(&self, query: Query) -> Result<Page, ProcessStoreError> {
        let call = Call { site: Site::List, about: About::Nothing };
        let perform = || self.inner.list(query.clone());
        self.call(call, Method { batch: &[], perform, wrong, tell: done }).await
    }

    async fn changes(
        &self,
        after: ChangeNumber,
        limit: u32,
    ) -> Result<ChangePage, ProcessStoreError> {
        let call = Call { site: Site::Changes, about: About::Nothing };
        let perform = || self.inner.changes(after, limit);
        self.call(call, Method { batch: &[], perform, wrong, tell: done }).await
    }

    async fn check(&self) -> Result<CheckReport, ProcessStoreError> {
        let call = Call { site: Site::Check, about: About::Nothing };
        let perform = || self.inner.check();
        self.call(call, Method { batch: &[], perform, wrong, tell: done }).await
    }
}
