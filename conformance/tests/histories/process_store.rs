//! Stores of records that break their word.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use windlass_conformance::process_store::ProcessStorePlace;
use windlass_conformance::process_store::model::random_histories;
use windlass_core::id::{HostId, NodeId};
use windlass_core::process_store::{
    ChangeNumber, ChangePage, CheckReport, Lease, Page, ProcessStore, ProcessStoreError, Query,
    RecordKey, Stored, Write,
};
use windlass_fakes::MemoryStore;
use windlass_fakes::process_store::Records;

use crate::found;

/// What a store does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Break {
    /// Nothing.
    None,
    /// A restart forgets the last batch.
    Forgets,
    /// A batch becomes visible in two parts.
    Halves,
    /// An older epoch still writes.
    IgnoresEpochs,
    /// A dropped commit is done after the next restart, whatever came in between.
    ComesLate,
    /// A refused batch leaves its first write behind.
    LeavesRefused,
}

/// Commits that were dropped under way.
type Dropped = Arc<Mutex<Vec<(Vec<Write>, Lease)>>>;

/// A place whose stores break their word in one way.
struct Broken {
    how: Break,
    store: MemoryStore,
    /// What there was before the last batch.
    before: Arc<Mutex<Records>>,
    dropped: Dropped,
}

#[derive(Debug)]
struct BrokenStore {
    how: Break,
    inner: MemoryStore,
    before: Arc<Mutex<Records>>,
    dropped: Dropped,
}

impl Broken {
    fn new(how: Break) -> Self {
        let (store, before, dropped) = Default::default();
        Self { how, store, before, dropped }
    }

    async fn opened(&self) -> Arc<dyn ProcessStore> {
        let mut inner = self.store.clone();
        if self.how == Break::Forgets {
            inner = MemoryStore::over(self.before.lock().expect("no panic").clone());
        }
        let late = std::mem::take(&mut *self.dropped.lock().expect("no panic"));
        for (batch, lease) in late {
            // Nobody asks for the lease any more.
            let lease = inner.acquire(lease.host, lease.node).await.expect("a lease");
            let _refused = inner.commit(batch, lease).await;
        }
        let (before, dropped) = (Arc::clone(&self.before), Arc::clone(&self.dropped));
        Arc::new(BrokenStore { how: self.how, inner, before, dropped })
    }
}

#[async_trait]
impl ProcessStore for BrokenStore {
    async fn acquire(&self, host: HostId, node: NodeId) -> Result<Lease, ProcessStoreError> {
        self.inner.acquire(host, node).await
    }

    async fn commit(
        &self,
        mut batch: Vec<Write>,
        mut lease: Lease,
    ) -> Result<ChangeNumber, ProcessStoreError> {
        *self.before.lock().expect("no panic") = self.inner.snapshot();
        match self.how {
            Break::IgnoresEpochs => {
                if let Ok(current) = self.inner.acquire(lease.host, lease.node).await {
                    lease = current;
                }
            }
            Break::Halves if batch.len() > 1 => {
                let rest = batch.split_off(1);
                self.inner.commit(batch, lease).await?;
                batch = rest;
            }
            Break::ComesLate => {
                self.dropped.lock().expect("no panic").push((batch.clone(), lease));
                tokio::task::yield_now().await;
                self.dropped.lock().expect("no panic").pop();
            }
            Break::LeavesRefused => {
                let answer = self.inner.commit(batch.clone(), lease).await;
                if answer.is_err() {
                    batch.truncate(1);
                    let _also_refused = self.inner.commit(batch, lease).await;
                }
                return answer;
            }
            Break::None | Break::Forgets | Break::Halves => {}
        }
        self.inner.commit(batch, lease).await
    }

    async fn get(&self, key: RecordKey) -> Result<Option<Stored>, ProcessStoreError> {
        self.inner.get(key).await
    }

    async fn list(&self, query: Query) -> Result<Page, ProcessStoreError> {
        self.inner.list(query).await
    }

    async fn changes(
        &self,
        after: ChangeNumber,
        limit: u32,
    ) -> Result<ChangePage, ProcessStoreError> {
        self.inner.changes(after, limit).await
    }

    async fn check(&self) -> Result<CheckReport, ProcessStoreError> {
        self.inner.check().await
    }
}

macro_rules! places {
    ($($name:ident),+) => {
        $(struct $name(Broken);

        impl Default for $name {
            fn default() -> Self {
                Self(Broken::new(Break::$name))
            }
        }

        #[async_trait]
        impl ProcessStorePlace for $name {
            async fn open(&self) -> Arc<dyn ProcessStore> {
                self.0.opened().await
            }
        })+
    };
}

places!(None, Forgets, Halves, IgnoresEpochs, ComesLate, LeavesRefused);

#[test]
fn a_store_that_keeps_its_word_is_not_accused() {
    random_histories::<None>();
}

#[test]
fn every_broken_word_is_found() {
    let findings = [
        found(random_histories::<Forgets>),
        found(random_histories::<Halves>),
        found(random_histories::<IgnoresEpochs>),
        found(random_histories::<ComesLate>),
        found(random_histories::<LeavesRefused>),
    ];
    for finding in findings {
        assert!(finding.contains("no state that is allowed"), "{finding}");
    }
}
