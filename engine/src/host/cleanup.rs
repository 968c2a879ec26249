//! Cleanup: passes at the start, now and then and on request, beside everything else that the loop does.
//!
//! What is decided is in [`windlass_core::cleanup`]; what changes an attempt goes through its machine like any other
//! request, one at a time. A pass keeps neither the loop nor the host alive, and one that is broken off is begun anew by
//! the next host.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use uuid::Uuid;
use windlass_core::cleanup::{
    Act, Decision, Facts, Observation, Observed, Plan, Policy, Subject, Watched, decide,
};
use windlass_core::driver::Ports;
use windlass_core::id::{AttemptId, NodeId};
use windlass_core::process_store::{
    Expect, Kind, Lease, ProcessStoreError, ProcessStoreExt as _, Query, RecordKey, Revision,
    Stored, Write,
};
use windlass_core::record::{AttemptRecord, AttemptStatus, Phase, Recorded};
use windlass_core::snapshot::SnapshotRecord;
use windlass_core::time::Timestamp;
use windlass_core::vcs_worktree::Found;

use super::Host;
use super::changes::Change;
use super::command::{Answer, Command};
use super::prelude::{Prelude, worktree_error};
use super::records::store_error;
use crate::config::CLEANUP_PERIOD_MS;
use crate::error::EngineError;
use crate::handle::GcItem;
use crate::request::{Caller, GcOptions};
use crate::runtime::Runtime;

/// How many observations one batch holds at most.
const BATCH: usize = 500;

/// What the loop hears of cleanup.
pub(super) enum Tidied {
    /// It is time for a pass.
    Due,
    /// A pass knows what to do.
    Looked(Box<Result<Plan, EngineError>>),
    /// One thing was done, or not: why.
    Acted(Option<String>),
}

/// The passes of one lease.
pub(super) struct Cleanup {
    /// The timer, and what is under way.
    pub(super) steps: FuturesUnordered<BoxFuture<'static, Tidied>>,
    /// A pass is under way.
    is_passing: bool,
    /// What the pass has found, as far as it has come.
    items: Vec<GcItem>,
    /// What is still to be done, each with the place of its item. The first one is under way.
    acts: VecDeque<(usize, AttemptId, Act)>,
    /// Who waits for the pass.
    waiting: Vec<Answer<Vec<GcItem>>>,
    /// Who asked when it was under way: they wait for the next one.
    next: Vec<Answer<Vec<GcItem>>>,
    /// Up to when this host's watching has been counted.
    counted_to: Timestamp,
}

impl Cleanup {
    /// Makes what is due at once if passes come by themselves.
    pub(super) fn new(period_ms: Option<u64>, now: Timestamp) -> Self {
        let steps: FuturesUnordered<BoxFuture<'static, Tidied>> = FuturesUnordered::new();
        if period_ms.is_some() {
            steps.push(Box::pin(async { Tidied::Due }));
        }
        let (items, acts) = (Vec::new(), VecDeque::new());
        let (waiting, next) = (Vec::new(), Vec::new());
        Self { steps, is_passing: false, items, acts, waiting, next, counted_to: now }
    }

    /// Answers everybody who waits with an error.
    pub(super) fn fail(&mut self, error: &EngineError) {
        for answer in self.waiting.drain(..).chain(self.next.drain(..)) {
            let _gone = answer.send(Err(error.clone()));
        }
    }
}

impl<R: Runtime> Host<R> {
    pub(super) fn on_gc(&mut self, options: GcOptions, answer: Answer<Vec<GcItem>>) {
        if options.dry_run {
            let look = self.look();
            self.preludes.push(Box::pin(async move {
                let result = look
                    .await
                    .map(|looked| looked.plan.decisions.iter().map(GcItem::from).collect());
                Prelude::Gc { answer, result }
            }));
        } else if self.cleanup.is_passing {
            self.cleanup.next.push(answer);
        } else {
            self.cleanup.waiting.push(answer);
            self.begin_pass();
        }
    }

    pub(super) fn on_tidied(&mut self, tidied: Tidied) {
        match tidied {
            Tidied::Due => {
                if let Some(ms) = self.parts.config.cleanup_period_ms {
                    let pause = self.parts.runtime.sleep(Duration::from_millis(ms));
                    self.cleanup.steps.push(Box::pin(async move {
                        pause.await;
                        Tidied::Due
                    }));
                }
                if !self.cleanup.is_passing && self.closing.is_none() {
                    self.begin_pass();
                }
            }
            Tidied::Looked(result) => match *result {
                Ok(plan) => {
                    self.cleanup.items = plan.decisions.iter().map(GcItem::from).collect();
                    self.cleanup.acts =
                        plan.decisions.into_iter().enumerate().filter_map(to_do).collect();
                    self.go_on_cleaning();
                }
                Err(error) => {
                    if matches!(error, EngineError::Superseded) {
                        // Another host drives these records: this one has nothing left to do.
                        self.closing.get_or_insert_default();
                    }
                    for answer in std::mem::take(&mut self.cleanup.waiting) {
                        let _gone = answer.send(Err(error.clone()));
                    }
                    self.end_pass();
                }
            },
            Tidied::Acted(error) => {
                if let Some((n, _, _)) = self.cleanup.acts.pop_front()
                    && let Some(item) = self.cleanup.items.get_mut(n)
                {
                    item.error = error;
                }
                self.go_on_cleaning();
            }
        }
    }

    /// Looks in the background; what it observes is recorded, and what it decides comes back.
    fn begin_pass(&mut self) {
        self.cleanup.is_passing = true;
        let look = self.look();
        self.cleanup.counted_to = self.parts.runtime.now();
        let (ports, lease) = (self.parts.ports.clone(), self.lease);
        self.cleanup.steps.push(Box::pin(async move {
            let result = match look.await {
                Ok(looked) => looked.record(&ports, lease).await,
                Err(error) => Err(error),
            };
            Tidied::Looked(Box::new(result))
        }));
    }

    fn look(&self) -> impl Future<Output = Result<Looked, EngineError>> + Send + use<R> {
        let pass = Looking {
            ports: self.parts.ports.clone(),
            node: self.parts.about.node,
            policy: self.parts.config.cleanup,
            at: self.parts.runtime.now(),
            watched_ms: self.watched_ms(),
        };
        pass.look()
    }

    /// Returns for how long this host has watched since it was counted last. A clock that jumps ahead adds no more than the
    /// longest time between two passes; one that jumps back adds nothing.
    fn watched_ms(&self) -> u64 {
        let most = self.parts.config.cleanup_period_ms.unwrap_or(CLEANUP_PERIOD_MS);
        self.parts.runtime.now().ms_since(self.cleanup.counted_to).min(most)
    }

    /// Begins the next thing that is to be done, or ends the pass.
    fn go_on_cleaning(&mut self) {
        let Some((_, attempt, act)) = self.cleanup.acts.front().cloned() else {
            let items = std::mem::take(&mut self.cleanup.items);
            for answer in std::mem::take(&mut self.cleanup.waiting) {
                let _gone = answer.send(Ok(items.clone()));
            }
            self.end_pass();
            return;
        };
        let change = change(act);
        let (answer, told): (Answer<()>, _) = oneshot::channel();
        self.cleanup.steps.push(Box::pin(async move {
            Tidied::Acted(match told.await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some(EngineError::Closing.to_string()),
            })
        }));
        self.on_command(Command::Change { caller: Caller::default(), attempt, change, answer });
    }

    fn end_pass(&mut self) {
        self.cleanup.is_passing = false;
        self.cleanup.waiting = std::mem::take(&mut self.cleanup.next);
        if !self.cleanup.waiting.is_empty() && self.closing.is_none() {
            self.begin_pass();
        }
    }

    /// Counts the time since the last pass for the next host, if anything waits for its grace to be over.
    pub(super) async fn count_what_was_watched(&mut self) {
        self.cleanup.steps.clear();
        let (ms, at) = (self.watched_ms(), self.parts.runtime.now());
        let ports = &self.parts.ports;
        let key = RecordKey { kind: Kind::Observation, id: Observed::Clock.id() };
        let Ok(Some(stored)) = ports.store.get(key).await else { return };
        let Ok(clock) = Observation::decode(&stored.record) else { return };
        let since = Watched { ms: clock.since.ms.saturating_add(ms), ..clock.since };
        let clock = Observation { since, at, ..clock };
        let write = Write::Put { record: clock.encode(), expect: Expect::At(stored.revision) };
        // Nobody is harmed if it is not counted.
        let _not_counted = ports.store.commit(vec![write], self.lease).await;
    }
}

/// Returns the change that a decision of cleanup asks for.
pub(super) fn change(act: Act) -> Change {
    match act {
        Act::SetMissing => Change::SetMissing,
        Act::RemoveIdle(since) => Change::RemoveIdle { since },
        Act::RemoveOrphan(worktree) => Change::RemoveOrphan { worktree },
        Act::RemoveSnapshot(number) => Change::RemoveSnapshot { number, force: true },
        Act::EndRemoval(worktree) => Change::EndRemoval { worktree },
    }
}

fn to_do((n, decision): (usize, Decision)) -> Option<(usize, AttemptId, Act)> {
    Some((n, decision.attempt?, decision.act?))
}

/// What a pass looks with.
pub(super) struct Looking {
    pub(super) ports: Ports,
    pub(super) node: NodeId,
    pub(super) policy: Policy,
    pub(super) at: Timestamp,
    pub(super) watched_ms: u64,
}

/// What a pass has decided, with the observations that are stored.
pub(super) struct Looked {
    plan: Plan,
    clock: Observation,
    stored: BTreeMap<Uuid, Revision>,
}

impl Looking {
    pub(super) async fn look(self) -> Result<Looked, EngineError> {
        let (observed, stored) = self.observations().await?;
        let before = observed.get(&Observed::Clock.id()).map(|clock| clock.since);
        let watched = before.unwrap_or_default().and_looked_again(self.watched_ms);
        let clock =
            Observation { what: Observed::Clock, mark: Uuid::nil(), since: watched, at: self.at };
        let repos: BTreeSet<_> = self
            .attempts()
            .await?
            .values()
            .filter_map(|(record, _)| Some(record.workspace.worktree()?.repo.clone()))
            .collect();
        let repos: Vec<_> = repos.into_iter().collect();
        // Before the records: whatever is found by then has one, if it ever had.
        let found = self.ports.worktrees.survey(&repos).await.map_err(worktree_error)?;
        let snapshots = self.snapshots().await?;
        let mut facts = Facts {
            node: self.node,
            watched,
            at: self.at,
            policy: self.policy,
            found,
            attempts: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            records_are_damaged: false,
            snapshots,
            observed,
        };
        self.add_attempts(&mut facts).await?;
        let mut plan = decide(&facts);
        let is_orphan = |decision: &Decision| matches!(decision.act, Some(Act::RemoveOrphan(_)));
        if plan.decisions.iter().any(is_orphan) {
            let report = self.ports.store.check().await.map_err(store_error)?;
            facts.records_are_damaged = !report.set_aside.is_empty() || !report.problems.is_empty();
            plan = decide(&facts);
        }
        Ok(Looked { plan, clock, stored })
    }

    async fn list(&self, query: Query) -> Result<Vec<Stored>, EngineError> {
        self.ports.store.list_all(query).await.map_err(store_error)
    }

    async fn observations(
        &self,
    ) -> Result<(BTreeMap<Uuid, Observation>, BTreeMap<Uuid, Revision>), EngineError> {
        let all = self.list(Query::newest(Kind::Observation, Query::MAX_LIMIT)).await?;
        let (mut observed, mut stored) = (BTreeMap::new(), BTreeMap::new());
        for one in all {
            let id = one.record.key.id;
            stored.insert(id, one.revision);
            // One that cannot be read begins anew.
            if let Ok(observation) = Observation::decode(&one.record) {
                observed.insert(id, observation);
            }
        }
        Ok((observed, stored))
    }

    async fn snapshots(&self) -> Result<Vec<SnapshotRecord>, EngineError> {
        let all = self.list(Query::newest(Kind::Snapshot, Query::MAX_LIMIT)).await?;
        Ok(all.iter().filter_map(|one| SnapshotRecord::decode(&one.record).ok()).collect())
    }

    /// Reads the attempts that may have a worktree.
    async fn attempts(
        &self,
    ) -> Result<BTreeMap<AttemptId, (AttemptRecord, Revision)>, EngineError> {
        let mut query = Query::newest(Kind::Attempt, Query::MAX_LIMIT);
        let there = AttemptStatus::ALL.iter().filter(|status| **status != AttemptStatus::Removed);
        query.states = there.map(|status| status.as_str().to_owned()).collect();
        let mut attempts = BTreeMap::new();
        for one in self.list(query).await? {
            // What cannot be read is looked for by name where something is found of it.
            if let Ok(record) = AttemptRecord::decode(&one.record) {
                attempts.insert(record.id, (record, one.revision));
            }
        }
        Ok(attempts)
    }

    /// Reads whatever attempts there are of what was found, and what goes on in them.
    async fn add_attempts(&self, facts: &mut Facts) -> Result<(), EngineError> {
        let mut attempts = self.attempts().await?;
        let of_snapshots = facts.snapshots.iter().map(|record| record.attempt);
        let named: BTreeSet<_> = facts
            .found
            .iter()
            .filter_map(|found: &Found| found.attempt)
            .chain(of_snapshots)
            .collect();
        for id in named {
            if attempts.contains_key(&id) {
                continue;
            }
            let key = RecordKey { kind: Kind::Attempt, id: id.0 };
            match self.ports.store.get(key).await {
                Ok(None) => {}
                Ok(Some(stored)) => match AttemptRecord::decode(&stored.record) {
                    Ok(record) => drop(attempts.insert(id, (record, stored.revision))),
                    Err(_) => drop(facts.unreadable.insert(id)),
                },
                Err(ProcessStoreError::Damaged { .. }) => drop(facts.unreadable.insert(id)),
                Err(error) => return Err(store_error(error)),
            }
        }
        let mut query = Query::newest(Kind::Execution, Query::MAX_LIMIT);
        let active = Phase::ALL.iter().filter(|phase| **phase != Phase::Final);
        query.states = active.map(|phase| phase.as_str().to_owned()).collect();
        let active = self.list(query).await?;
        let busy: BTreeSet<_> = active.iter().filter_map(|one| one.record.parent).collect();
        for (id, (record, revision)) in attempts {
            if record.workspace.worktree().is_none() {
                continue;
            }
            let mark = self.mark(id, revision).await?;
            let busy = busy.contains(&id.0);
            let landed = self.has_landed(id, &record).await;
            facts.attempts.insert(id, Subject { record, revision, busy, mark, landed });
        }
        Ok(())
    }

    /// Says whether all of an attempt's work is known to be in its target. What cannot be looked at is not known.
    async fn has_landed(&self, attempt: AttemptId, record: &AttemptRecord) -> bool {
        let at_rest = matches!(record.status, AttemptStatus::Held | AttemptStatus::Finished);
        let (Some(history), Some(worktree)) = (&self.ports.history, record.workspace.worktree())
        else {
            return false;
        };
        let merged = record.history.merged.as_ref();
        at_rest
            && history
                .standing(attempt, worktree, merged)
                .await
                .is_ok_and(|standing| standing.landed)
    }

    /// Makes a value that changes whenever something happens in an attempt.
    async fn mark(&self, attempt: AttemptId, revision: Revision) -> Result<Uuid, EngineError> {
        let mut query = Query::newest(Kind::Execution, 1);
        query.parent = Some(attempt.0);
        let newest = self.ports.store.list(query).await.map_err(store_error)?;
        let newest = newest.records.first().map(|one| (one.record.key.id, one.revision));
        let text = format!("{} {newest:?}", revision.0);
        Ok(Uuid::new_v5(&attempt.0, text.as_bytes()))
    }
}

impl Looked {
    /// Records what was observed, with the clock if anything waits for a grace to be over.
    pub(super) async fn record(self, ports: &Ports, lease: Lease) -> Result<Plan, EngineError> {
        let Self { plan, clock, stored } = self;
        let expect = |id: &Uuid| match stored.get(id) {
            Some(revision) => Expect::At(*revision),
            None => Expect::Absent,
        };
        let mut writes: Vec<_> = plan
            .observe
            .iter()
            .map(|observation| Write::Put {
                record: observation.encode(),
                expect: expect(&observation.what.id()),
            })
            .collect();
        for id in &plan.forget {
            if let Some(revision) = stored.get(id) {
                let key = RecordKey { kind: Kind::Observation, id: *id };
                writes.push(Write::Delete { key, expect: *revision });
            }
        }
        if !writes.is_empty() || stored.len() > 1 {
            // The clock last: an observation from a later pass than the clock's would never count as seen again.
            writes
                .push(Write::Put { record: clock.encode(), expect: expect(&Observed::Clock.id()) });
        }
        for batch in writes.chunks(BATCH) {
            match ports.store.commit(batch.to_vec(), lease).await {
                Ok(_) => {}
                // One that is damaged is there and not listed. The others are written without it.
                Err(ProcessStoreError::Conflict { .. } | ProcessStoreError::Damaged { .. }) => {
                    for write in batch {
                        let _refused = ports.store.commit(vec![write.clone()], lease).await;
                    }
                }
                Err(error) => return Err(store_error(error)),
            }
        }
        Ok(plan)
    }
}
