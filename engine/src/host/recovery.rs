//! Taking over: at the start, and again after trouble with the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::channel::mpsc;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use windlass_core::admission;
use windlass_core::attempt::{self, Fact, Input, Slot, State};
use windlass_core::driver::{Driver, Ports};
use windlass_core::id::AttemptId;
use windlass_core::process_store::{
    ChangeNumber, Kind, ProcessStoreError, ProcessStoreExt as _, Query, RecordKey, Revision,
};
use windlass_core::record::{AttemptRecord, AttemptStatus, ExecutionRecord, Phase, Recorded};

use super::cleanup::Cleanup;
use super::command::{Command, Pending};
use super::edits::Edits;
use super::records::{queue_of, store_error};
use super::{Host, Parts};
use crate::error::{EngineError, RefusalCode};
use crate::request::Accepted;
use crate::runtime::{Ids, Runtime};

impl<R: Runtime> Host<R> {
    /// Raises the epoch, reads what is unfinished and begins to adopt it.
    pub(super) async fn take_over(parts: Parts<R>) -> Result<Self, EngineError> {
        let Parts { ports, config, about, .. } = &parts;
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
        let ids = || Ids(Arc::clone(&parts.runtime));
        let driver = Driver::new(ports.clone(), lease, Box::new(ids()));
        parts.epoch.store(lease.epoch.0, Ordering::Release);
        let mut host = Self {
            ids: ids(),
            lease,
            machine,
            driver,
            machines: BTreeMap::new(),
            admission: admission::State::new(config.limits),
            slot_waiters: BTreeMap::new(),
            preludes: FuturesUnordered::new(),
            keys: BTreeMap::new(),
            edits: Edits::default(),
            held: BTreeMap::new(),
            pending: BTreeMap::new(),
            next_request: 0,
            wakes: BTreeSet::new(),
            watchers: BTreeMap::new(),
            watchers_at_most: 64,
            last_change: last.last,
            has_persisted: false,
            change_waiters: Vec::new(),
            closing: None,
            cleanup: Cleanup::new(config.cleanup_period_ms, parts.runtime.now()),
            parts,
        };
        host.recover().await?;
        Ok(host)
    }

    /// Loads every attempt of which something is unfinished. Those that run are counted before anybody is admitted.
    async fn recover(&mut self) -> Result<(), EngineError> {
        self.machines = unfinished(&self.parts.ports).await?;
        for (slot, owner) in living(&self.machines) {
            self.admit(admission::Input::Adopt { slot, owner });
        }
        self.pump_unfinished();
        for id in self.machines.keys().copied().collect::<Vec<_>>() {
            self.feed(id, Input::Fact(Fact::Recovered));
        }
        Ok(())
    }

    /// After trouble with the store: raises the epoch and builds everything again from what is there.
    ///
    /// Requests whose batch was under way are answered with an error; repeating them with their key is safe. Returns
    /// `None` when another host has taken over.
    pub(super) async fn start_over(
        &mut self,
        error: ProcessStoreError,
        commands: &mut mpsc::Receiver<Command>,
    ) -> Option<Self> {
        let superseded = is_superseded(&error);
        let told = store_error(error);
        let mut in_doubt = Vec::new();
        for (_, pending) in std::mem::take(&mut self.pending) {
            if let Pending::Accepted { accepted, .. } = &pending {
                in_doubt.push(accepted.clone());
            }
            pending.fail(told.clone());
        }
        self.cleanup.fail(&told);
        self.edits.fail(&told);
        for command in std::mem::take(&mut self.keys).into_values().flatten() {
            command.fail(told.clone());
        }
        if superseded || self.closing.is_some() {
            return None;
        }
        // Nothing of this lease goes on: no operation, and no prelude, which has read what is no longer so. Preludes are
        // run to their end rather than kept waiting: one may hold a connection to the store that taking over needs.
        let ids = Ids(Arc::clone(&self.parts.runtime));
        self.driver = Driver::new(self.parts.ports.clone(), self.lease, Box::new(ids));
        while let Some(prelude) = self.preludes.next().await {
            prelude.fail(told.clone());
        }
        if is_full(&told) {
            // Room is made by people, who are told instead of kept waiting: they ask again and are refused.
            self.watchers.clear();
        }
        if !self.has_persisted {
            // What failed now would fail again at once.
            self.pause().await;
        }
        loop {
            if let Ok(mut host) = Self::take_over(self.parts.clone()).await {
                host.continue_from(self, in_doubt);
                return Some(host);
            }
            self.pause().await;
            self.refuse_all(commands, &told);
            if self.closing.is_some() {
                return None;
            }
        }
    }

    fn pause(&self) -> BoxFuture<'static, ()> {
        self.parts.runtime.sleep(Duration::from_millis(self.parts.config.store_retry_ms))
    }

    /// Answers what was asked meanwhile: nobody waits for a store that may not come back.
    fn refuse_all(&mut self, commands: &mut mpsc::Receiver<Command>, told: &EngineError) {
        loop {
            match commands.try_recv() {
                Ok(Command::ShutDown { answer }) => {
                    self.closing.get_or_insert_default().push(answer);
                }
                // Known without the store.
                Ok(Command::Status { answer }) => drop(answer.send(Ok(self.status()))),
                // It waits for what is durable anyway, and so through the trouble, too.
                Ok(Command::AwaitChange { after, answer }) => self.on_await_change(after, answer),
                Ok(Command::Watch { key, watcher, armed }) if is_passing(told) => {
                    self.on_watch(key, watcher);
                    let _gone = armed.send(Ok(()));
                }
                Ok(command) => command.fail(told.clone()),
                Err(mpsc::TryRecvError::Empty) => return,
                Err(mpsc::TryRecvError::Closed) => {
                    self.closing.get_or_insert_default();
                    return;
                }
            }
        }
    }

    /// Takes over from the loop of the lease before what does not depend on the records.
    ///
    /// Those who watch records are not taken over: they look again, for a batch that was in doubt may be durable.
    fn continue_from(&mut self, before: &mut Self, in_doubt: Vec<Accepted>) {
        self.next_request = before.next_request;
        for (after, answer) in std::mem::take(&mut before.change_waiters) {
            self.on_await_change(after, answer);
        }
        for accepted in in_doubt {
            if !self.waits_for(accepted.attempt, accepted.execution) {
                self.parts.secrets.forget(accepted.execution);
            }
        }
    }
}

/// Says whether trouble is likely to be over soon.
fn is_passing(error: &EngineError) -> bool {
    matches!(error, EngineError::Backend(source) if source.transient)
}

/// Says whether there is no room for the records.
fn is_full(error: &EngineError) -> bool {
    matches!(error, EngineError::Refused { code: RefusalCode::Full, .. })
}

/// Says whether another host has taken over, so that this one must not go on.
pub(crate) fn is_superseded(error: &ProcessStoreError) -> bool {
    matches!(error, ProcessStoreError::Superseded { .. })
}

/// Loads the machine of every attempt of which something is unfinished.
pub(crate) async fn unfinished(ports: &Ports) -> Result<BTreeMap<AttemptId, State>, EngineError> {
    let mut machines = BTreeMap::new();
    let mut unfinished = BTreeSet::new();
    let mut executions: BTreeMap<AttemptId, Vec<_>> = BTreeMap::new();
    let mut query = Query::newest(Kind::Execution, Query::MAX_LIMIT);
    let active = Phase::ALL.iter().filter(|phase| **phase != Phase::Final);
    query.states = active.map(|phase| phase.as_str().to_owned()).collect();
    for stored in ports.store.list_all(query).await.map_err(store_error)? {
        // What cannot be read was set aside by the store or is of a newer version: it is left alone.
        if let Ok(record) = ExecutionRecord::decode(&stored.record) {
            unfinished.insert(record.attempt);
            executions.entry(record.attempt).or_default().push((record, stored.revision));
        }
    }
    let mut query = Query::newest(Kind::Attempt, Query::MAX_LIMIT);
    let busy = [AttemptStatus::Creating, AttemptStatus::Committing, AttemptStatus::Removing];
    query.states = busy.iter().map(|status| status.as_str().to_owned()).collect();
    for stored in ports.store.list_all(query).await.map_err(store_error)? {
        unfinished.insert(AttemptId(stored.record.key.id));
    }
    for id in unfinished {
        let Some((record, revision)) = readable::<AttemptRecord>(ports, id.0).await? else {
            continue;
        };
        let mut own = executions.remove(&id).unwrap_or_default();
        // One that is final is not among them.
        for needed in record.still_needed() {
            if own.iter().all(|(execution, _)| execution.id != needed) {
                own.extend(readable(ports, needed.0).await?);
            }
        }
        let queue = queue_of(ports, &record).await?;
        machines.insert(id, State::load(record, revision, own).with_queue(queue));
    }
    Ok(machines)
}

/// Names the slots of everything that may run: they are taken before anything that waits asks for one.
pub(crate) fn living(machines: &BTreeMap<AttemptId, State>) -> Vec<(Slot, Option<String>)> {
    let mut taken = Vec::new();
    for (id, state) in machines {
        if state.attempt().slot {
            taken.push((Slot::Chain(*id), state.attempt().owner.clone()));
        }
        let lives = |record: &&ExecutionRecord| {
            record.phase > Phase::Queued && !record.action.run_reason.in_chain()
        };
        for record in state.executions().filter(lives) {
            taken.push((Slot::of(record), record.owner.clone()));
        }
    }
    taken
}

/// Reads one record with its revision; `None` if there is none that this version can read.
async fn readable<T: Recorded>(
    ports: &Ports,
    id: uuid::Uuid,
) -> Result<Option<(T, Revision)>, EngineError> {
    match ports.store.get(RecordKey { kind: T::KIND, id }).await {
        Ok(Some(stored)) => {
            Ok(T::decode(&stored.record).ok().map(|value| (value, stored.revision)))
        }
        // Set aside and reported by the store; what it described is left alone.
        Ok(None) | Err(ProcessStoreError::Damaged { .. }) => Ok(None),
        Err(error) => Err(store_error(error)),
    }
}
