//! Taking over: at the start, and again after trouble with the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use windlass_core::admission;
use windlass_core::attempt::{self, Fact, Input, State};
use windlass_core::driver::{Driver, Ports};
use windlass_core::id::AttemptId;
use windlass_core::process_store::{
    ChangeNumber, Kind, ProcessStoreError, ProcessStoreExt as _, Query, RecordKey,
};
use windlass_core::record::{AttemptRecord, AttemptStatus, ExecutionRecord, Phase, Recorded as _};

use super::Host;
use super::records::{load_attempt, store_error};
use crate::config::Config;
use crate::error::EngineError;
use crate::handle::About;
use crate::runtime::{Ids, Runtime};
use crate::secrets::MemorySecrets;

impl<R: Runtime> Host<R> {
    /// Raises the epoch, reads what is unfinished and begins to adopt it.
    pub(super) async fn take_over(
        runtime: Arc<R>,
        ports: Ports,
        secrets: Arc<MemorySecrets>,
        config: Config,
        about: About,
    ) -> Result<Self, EngineError> {
        let lease = ports.store.acquire(about.host, about.node).await.map_err(store_error)?;
        let last =
            ports.store.changes(ChangeNumber(u64::MAX >> 1), 1).await.map_err(store_error)?;
        let machine = attempt::Config {
            host: about.host,
            epoch: lease.epoch,
            git_timeout_ms: config.git_timeout_ms,
            git_grace_ms: config.stop_grace_ms,
            readopt_ms: config.readopt_ms,
            max_void_places: 3,
            identity: config.identity.clone(),
        };
        let driver = Driver::new(ports.clone(), lease, Box::new(Ids(Arc::clone(&runtime))));
        let mut host = Self {
            ids: Ids(Arc::clone(&runtime)),
            runtime,
            secrets,
            about,
            lease,
            machine,
            driver,
            machines: BTreeMap::new(),
            admission: admission::State::new(config.limits),
            slot_waiters: BTreeMap::new(),
            preludes: FuturesUnordered::new(),
            keys: BTreeMap::new(),
            held: BTreeMap::new(),
            pending: BTreeMap::new(),
            next_request: 0,
            wakes: BTreeSet::new(),
            watchers: BTreeMap::new(),
            last_change: last.last,
            change_waiters: Vec::new(),
            closing: None,
            config,
            ports,
        };
        host.recover().await?;
        Ok(host)
    }

    /// Loads every attempt of which something is unfinished. Those that run are counted before anybody is admitted.
    async fn recover(&mut self) -> Result<(), EngineError> {
        let mut unfinished = BTreeSet::new();
        let mut executions: BTreeMap<AttemptId, Vec<_>> = BTreeMap::new();
        let mut query = Query::newest(Kind::Execution, Query::MAX_LIMIT);
        let active = Phase::ALL.iter().filter(|phase| **phase != Phase::Final);
        query.states = active.map(|phase| phase.as_str().to_owned()).collect();
        for stored in self.ports.store.list_all(query).await.map_err(store_error)? {
            // What cannot be read was set aside by the store or is of a newer version: it is left alone.
            if let Ok(record) = ExecutionRecord::decode(&stored.record) {
                unfinished.insert(record.attempt);
                executions.entry(record.attempt).or_default().push((record, stored.revision));
            }
        }
        let mut query = Query::newest(Kind::Attempt, Query::MAX_LIMIT);
        let busy = [AttemptStatus::Creating, AttemptStatus::Committing, AttemptStatus::Removing];
        query.states = busy.iter().map(|status| status.as_str().to_owned()).collect();
        for stored in self.ports.store.list_all(query).await.map_err(store_error)? {
            unfinished.insert(AttemptId(stored.record.key.id));
        }
        for id in unfinished {
            let key = RecordKey { kind: Kind::Attempt, id: id.0 };
            let Ok(Some(stored)) = self.ports.store.get(key).await else { continue };
            let Ok(record) = AttemptRecord::decode(&stored.record) else { continue };
            let state = match record.committing {
                // The execution whose work is being committed is final and not among them.
                Some(_) => match load_attempt(&self.ports, id).await? {
                    Some(state) => state,
                    None => continue,
                },
                None => {
                    let own = executions.remove(&id).unwrap_or_default();
                    State::load(record, stored.revision, own)
                }
            };
            self.machines.insert(id, state);
        }
        for id in self.machines.keys().copied().collect::<Vec<_>>() {
            self.feed(id, Input::Fact(Fact::Recovered));
        }
        Ok(())
    }

    /// After trouble with the store: raises the epoch and builds everything again from what is there.
    ///
    /// Requests under way are answered with an error; repeating them with their key is safe. Returns `None` when another
    /// host has taken over.
    pub(super) async fn start_over(&mut self, error: ProcessStoreError) -> Option<Self> {
        let superseded = matches!(error, ProcessStoreError::Superseded { .. });
        let told = store_error(error);
        for (_, pending) in std::mem::take(&mut self.pending) {
            pending.fail(told.clone());
        }
        for (_, waiting) in std::mem::take(&mut self.keys) {
            waiting.into_iter().for_each(|command| command.fail(told.clone()));
        }
        if superseded {
            return None;
        }
        loop {
            let parts = (Arc::clone(&self.runtime), self.ports.clone(), Arc::clone(&self.secrets));
            let taken =
                Self::take_over(parts.0, parts.1, parts.2, self.config.clone(), self.about).await;
            match taken {
                Ok(mut host) => {
                    // Those who watch records and changes need not know.
                    host.watchers = std::mem::take(&mut self.watchers);
                    host.change_waiters = std::mem::take(&mut self.change_waiters);
                    host.closing = self.closing.take();
                    host.next_request = self.next_request;
                    return Some(host);
                }
                Err(_) => {
                    let pause = Duration::from_millis(self.config.store_retry_ms);
                    self.runtime.sleep(pause).await;
                }
            }
        }
    }
}
