//! [`Stage`]: where a run takes place. It hears everything, asks the oracles, and says what goes wrong.

mod conductor;
mod faults;
mod trace;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use uuid::Uuid;
use windlass::Handle;
use windlass_core::id::{Epoch, HostId, NodeId};
use windlass_core::process_store::{ChangeNumber, Expect, Lease, Revision, Write};
use windlass_core::time::Timestamp;
use windlass_fakes::Happened;
use windlass_fakes::decision::{Decision, Decisions};
use windlass_fakes::faulty::Fault;

use super::event::{Answer, Ask, Event, Gone, Life, What};
use super::names::Names;
use super::oracle::{Oracle, Violation};
use super::plan::{Blow, Class, Intervention, Plan, When};
use super::sometimes::Sometimes;
use super::view::{Kernel, Scene, Store, View};
pub use conductor::LifeConductor;
pub use trace::Digest;

/// How much of a run is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// What is counted.
    Counts,
    /// Every event too.
    Events,
}

/// One host.
#[derive(Clone, Debug)]
pub struct Host {
    /// Nothing killed it, and it has not left.
    pub lives: bool,
    /// It serves requests through this, where there are handles.
    pub handle: Option<Handle>,
    /// It has taken over.
    serves: bool,
    /// How often its loop was polled.
    polls: u32,
    /// How many ports it has called.
    calls: u32,
    /// Tasks of the engine that have not ended.
    tasks: u32,
    /// The epoch that it acquired last.
    epoch: Epoch,
}

/// A fault that was not in the plan by name: it can be put there.
pub type Chosen = Intervention;

/// What a run is told afterwards.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What did not hold.
    pub violation: Option<Violation>,
    /// The number of the event at which it was noticed.
    pub noticed_at: u64,
    /// What happened how often.
    pub sometimes: Sometimes,
    /// A digest of everything that happened, in order.
    pub digest: u64,
    /// How many events there were.
    pub events: u64,
    /// How many ports were called.
    pub calls: u64,
    /// All events, if they were kept.
    pub trace: Vec<Event>,
    /// What went wrong by the swarm, as the plan could name it.
    pub chosen: Vec<Chosen>,
    /// Which other decisions mattered.
    pub mattered: Vec<Decision>,
    /// S as it was at the end.
    pub store: Store,
    /// K as it was at the end.
    pub kernel: Kernel,
    /// What people call things.
    pub names: Names,
}

struct Inner {
    plan: Arc<Plan>,
    decisions: Decisions,
    faults: faults::Faults,
    store: Store,
    kernel: Kernel,
    names: Names,
    oracles: Vec<Box<dyn Oracle>>,
    violation: Option<(Violation, u64)>,
    sometimes: Sometimes,
    digest: Digest,
    trace: Option<Vec<Event>>,
    events: u64,
    calls: u64,
    asks: u32,
    hosts: BTreeMap<Life, Host>,
    /// Requests that were asked and have no definite answer, by name, and how many clients want it.
    open: BTreeMap<String, u32>,
    healed: bool,
    ending: bool,
    /// What was struck at a call and is to be done as soon as nothing is being polled.
    blows: VecDeque<Blow>,
    watchers: Vec<Waker>,
}

/// Where a run takes place.
pub struct Stage {
    inner: Mutex<Inner>,
    /// The things themselves.
    pub scene: Scene,
    /// When it began.
    pub began: Timestamp,
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stage").field("scene", &self.scene).finish_non_exhaustive()
    }
}

impl Stage {
    /// Sets the stage for a plan.
    #[must_use]
    pub fn new(plan: Arc<Plan>, scene: Scene, oracles: Vec<Box<dyn Oracle>>, keep: Keep) -> Self {
        let mut decisions = Decisions::new(plan.seed);
        for fixed in &plan.fixed {
            decisions.fix(&Decision {
                site: fixed.site.clone(),
                about: fixed.about.clone(),
                nth: fixed.nth,
                draw: 0,
                answer: fixed.answer,
            });
        }
        scene.world.collect_happened();
        scene.world.set_pace(plan.settings.pace.into());
        let began = scene.world.now();
        let inner = Inner {
            faults: faults::Faults::of(&plan),
            plan,
            decisions,
            store: Store::default(),
            kernel: Kernel::default(),
            names: Names::default(),
            oracles,
            violation: None,
            sometimes: Sometimes::default(),
            digest: Digest::default(),
            trace: (keep == Keep::Events).then(Vec::new),
            events: 0,
            calls: 0,
            asks: 0,
            hosts: BTreeMap::new(),
            open: BTreeMap::new(),
            healed: false,
            ending: false,
            blows: VecDeque::new(),
            watchers: Vec::new(),
        };
        Self { inner: Mutex::new(inner), scene, began }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of something that happened, after what happened in the kernel before it.
    pub fn note(&self, what: What) {
        // Nobody waits for the others.
        let wakes = matches!(
            what,
            What::Committed { .. }
                | What::Answered { .. }
                | What::HostComes { .. }
                | What::HostServes { .. }
                | What::HostGone { .. }
                | What::Healed
        );
        let mut inner = self.lock();
        inner.catch_up(&self.scene);
        if let What::Committed { number, .. } = &what
            && number.0 > inner.store.last().0 + 1
        {
            inner.catch_up_with_the_store(&self.scene);
        }
        let now = self.scene.world.now();
        if !inner.knows(&what) {
            inner.take(&self.scene, now, what);
        }
        let wakes = wakes || inner.violation.is_some() || !inner.blows.is_empty();
        let watchers = if wakes { std::mem::take(&mut inner.watchers) } else { Vec::new() };
        drop(inner);
        watchers.into_iter().for_each(Waker::wake);
    }

    /// Takes note of what happened in the kernel.
    pub fn catch_up(&self) {
        let mut inner = self.lock();
        inner.catch_up(&self.scene);
        inner.catch_up_with_the_store(&self.scene);
        if inner.violation.is_none() {
            return;
        }
        let watchers = std::mem::take(&mut inner.watchers);
        drop(inner);
        watchers.into_iter().for_each(Waker::wake);
    }

    /// Reads what oracles see.
    pub fn look<T>(&self, look: impl FnOnce(&View<'_>) -> T) -> T {
        let inner = self.lock();
        look(&inner.view(&self.scene, self.scene.world.now()))
    }

    /// Says whether something does not hold.
    #[must_use]
    pub fn is_violated(&self) -> bool {
        self.lock().violation.is_some()
    }

    /// Says that something does not hold that no oracle has seen.
    pub fn violate(&self, violation: Violation) {
        let mut inner = self.lock();
        inner.violate(violation);
        let watchers = std::mem::take(&mut inner.watchers);
        drop(inner);
        watchers.into_iter().for_each(Waker::wake);
    }

    /// Resolves when `ready` has an answer; it is asked again after each event.
    pub async fn when<T>(&self, mut ready: impl FnMut(&Self) -> Option<T> + Send) -> T {
        std::future::poll_fn(|context| {
            if let Some(answer) = ready(self) {
                return std::task::Poll::Ready(answer);
            }
            self.lock().watchers.push(context.waker().clone());
            std::task::Poll::Pending
        })
        .await
    }

    /// Returns what was struck at a call and has not been done.
    pub fn next_blow(&self) -> Option<Blow> {
        self.lock().blows.pop_front()
    }

    /// Says that nothing goes wrong any more.
    pub fn heal(&self) {
        self.lock().healed = true;
        self.scene.world.leave_shims_alone();
        self.note(What::Healed);
    }

    /// Says whether nothing goes wrong any more.
    #[must_use]
    pub fn is_healed(&self) -> bool {
        self.lock().healed
    }

    /// Says that everything is asked to end from here on.
    pub fn begin_ending(&self) {
        let mut inner = self.lock();
        inner.ending = true;
        let watchers = std::mem::take(&mut inner.watchers);
        drop(inner);
        watchers.into_iter().for_each(Waker::wake);
    }

    /// Says whether everything is asked to end.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.lock().ending
    }

    /// Notes that a client wants an answer to a request with this name.
    pub fn open(&self, name: &str) {
        *self.lock().open.entry(name.to_owned()).or_insert(0) += 1;
    }

    /// Notes that a client has its answer, or that what it asks about will never be.
    pub fn close(&self, name: &str) {
        let mut inner = self.lock();
        if let Some(count) = inner.open.get_mut(name) {
            *count -= 1;
            if *count == 0 {
                inner.open.remove(name);
            }
        }
        let watchers = std::mem::take(&mut inner.watchers);
        drop(inner);
        watchers.into_iter().for_each(Waker::wake);
    }

    /// Names the requests without a definite answer.
    #[must_use]
    pub fn unanswered(&self) -> Vec<String> {
        self.lock().open.keys().cloned().collect()
    }

    /// Names those of them that start something.
    #[must_use]
    pub fn unanswered_starts(&self) -> Vec<String> {
        let inner = self.lock();
        let asks = inner.plan.interventions.iter().filter_map(|one| match &one.what {
            Blow::Ask(request) => Some(&**request),
            _ => None,
        });
        let all = inner.plan.requests.iter().chain(asks);
        let starts: BTreeSet<_> = all
            .filter(|request| request.verb.has_key())
            .map(|request| request.name.as_str())
            .collect();
        inner.open.keys().filter(|name| starts.contains(name.as_str())).cloned().collect()
    }

    /// Counts something that is to happen now and then.
    pub fn count(&self, name: &'static str) {
        self.lock().sometimes.count(name);
    }

    /// Names what a client will ask.
    pub fn next_ask(&self) -> Ask {
        let mut inner = self.lock();
        inner.asks += 1;
        Ask(inner.asks)
    }

    /// Takes note of an answer, and of what was started by it.
    pub fn answered(&self, ask: Ask, request: &Arc<super::plan::Request>, answer: Answer) {
        {
            let mut inner = self.lock();
            match &answer {
                Answer::Accepted(accepted) => {
                    inner.names.accept(&request.name, accepted.attempt, accepted.execution);
                }
                Answer::Refused { .. } | Answer::Wrong(_) => inner.names.refuse(&request.name),
                Answer::Done
                | Answer::Trying(_)
                | Answer::Committing(_)
                | Answer::Clean
                | Answer::Cleaned(_)
                | Answer::Unknown(_) => {}
            }
        }
        self.note(What::Answered { ask, request: Arc::clone(request), answer });
    }

    /// Reads the names.
    pub fn names<T>(&self, look: impl FnOnce(&Names) -> T) -> T {
        look(&self.lock().names)
    }

    /// Finds the attempt of this name that is recorded. There may be others by it that were asked for in vain.
    #[must_use]
    pub fn attempt_named(&self, name: &str) -> Option<windlass_core::id::AttemptId> {
        let inner = self.lock();
        inner.names.attempts_named(name).find(|id| inner.store.attempt(*id).is_some())
    }

    /// Makes random bits for a host, which depend on nothing but the seed, the host and how often it asked.
    pub fn random(&self, life: Life) -> [u8; 16] {
        let mut inner = self.lock();
        let about = life.0.to_string();
        let nth = inner.decisions.count("random", &about);
        let mut bytes = [0; 16];
        for (draw, half) in (0..).zip(bytes.chunks_exact_mut(8)) {
            let question =
                windlass_fakes::decision::Question { site: "random", about: &about, nth, draw };
            half.copy_from_slice(&inner.decisions.draw(&question).to_be_bytes());
        }
        bytes
    }

    /// Chooses one of `count`, 0 unless the swarm reorders.
    pub fn choose(&self, class: Class, site: &'static str, about: &str, count: u64) -> u64 {
        self.lock().choose(class, site, about, count)
    }

    // Hosts.

    /// A host comes.
    pub fn host_comes(&self) -> Life {
        let life = {
            let mut inner = self.lock();
            let life = Life(inner.hosts.last_key_value().map_or(1, |(last, _)| last.0 + 1));
            if inner.hosts.values().any(|host| host.lives) {
                inner.sometimes.count("two hosts lived at once");
            }
            let host = Host {
                lives: true,
                handle: None,
                serves: false,
                polls: 0,
                calls: 0,
                tasks: 0,
                epoch: Epoch(0),
            };
            inner.hosts.insert(life, host);
            life
        };
        self.note(What::HostComes { life });
        life
    }

    /// A host has taken over and serves.
    pub fn host_serves(&self, life: Life, handle: Handle) {
        let epoch = {
            let mut inner = self.lock();
            let Some(host) = inner.hosts.get_mut(&life).filter(|host| host.lives) else { return };
            host.handle = Some(handle);
            inner.store.epoch()
        };
        self.note(What::HostServes { life, epoch });
    }

    /// A host is gone; returns whether it lived.
    pub fn host_gone(&self, life: Life, why: Gone) -> bool {
        let (why, handle) = {
            let mut inner = self.lock();
            let Some(host) = inner.hosts.get_mut(&life).filter(|host| host.lives) else {
                return false;
            };
            host.lives = false;
            let why =
                if why == Gone::Killed && !host.serves { Gone::KilledInRecovery } else { why };
            (why, host.handle.take())
        };
        // What it holds may wake others.
        drop(handle);
        self.note(What::HostGone { life, why });
        true
    }

    /// A task of the engine began or ended; says whether it was the last one of a host that serves.
    pub fn host_task(&self, life: Life, begins: bool) -> bool {
        let mut inner = self.lock();
        let Some(host) = inner.hosts.get_mut(&life) else { return false };
        host.tasks = if begins { host.tasks + 1 } else { host.tasks.saturating_sub(1) };
        host.lives && !begins && host.tasks == 0
    }

    /// Says whether a host lives.
    #[must_use]
    pub fn lives(&self, life: Life) -> bool {
        self.lock().hosts.get(&life).is_some_and(|host| host.lives)
    }

    /// Returns the hosts that live, oldest first.
    #[must_use]
    pub fn living(&self) -> Vec<Life> {
        let inner = self.lock();
        inner.hosts.iter().filter(|(_, host)| host.lives).map(|(life, _)| *life).collect()
    }

    /// Returns the hosts that live and whose records another one took over.
    #[must_use]
    pub fn superseded(&self) -> Vec<Life> {
        let inner = self.lock();
        let current = inner.store.epoch();
        let stale = inner
            .hosts
            .iter()
            .filter(|(_, host)| host.lives && host.epoch < current && host.epoch != Epoch(0));
        stale.map(|(life, _)| *life).collect()
    }

    /// Returns the hosts that serve, newest first.
    #[must_use]
    pub fn serving(&self) -> Vec<(Life, Handle)> {
        let inner = self.lock();
        let serving = inner.hosts.iter().rev().filter(|(_, host)| host.lives);
        serving.filter_map(|(life, host)| Some((*life, host.handle.clone()?))).collect()
    }

    /// Says whether a host is to die after a poll of it.
    pub fn dies_after_poll(&self, life: Life) -> bool {
        let mut inner = self.lock();
        let Some(host) = inner.hosts.get_mut(&life).filter(|host| host.lives) else { return false };
        host.polls += 1;
        let polls = host.polls;
        inner.dies_after_poll(life, polls)
    }

    /// Ends the run: asks the oracles a last time.
    pub fn finish(&self) -> Outcome {
        let now = self.scene.world.now();
        let mut inner = self.lock();
        inner.catch_up(&self.scene);
        if inner.violation.is_none() {
            inner.ask_at_the_end(&self.scene, now);
        }
        let (violation, noticed_at) = match inner.violation.take() {
            Some((violation, at)) => (Some(violation), at),
            None => (None, inner.events),
        };
        Outcome {
            violation,
            noticed_at,
            sometimes: std::mem::take(&mut inner.sometimes),
            digest: inner.digest.value(),
            events: inner.events,
            calls: inner.calls,
            trace: inner.trace.take().unwrap_or_default(),
            chosen: std::mem::take(&mut inner.faults.chosen),
            mattered: inner.decisions.mattered().to_vec(),
            store: std::mem::take(&mut inner.store),
            kernel: std::mem::take(&mut inner.kernel),
            names: std::mem::take(&mut inner.names),
        }
    }
}

impl Inner {
    fn view<'a>(&'a self, scene: &'a Scene, now: Timestamp) -> View<'a> {
        View {
            plan: &self.plan,
            now,
            store: &self.store,
            kernel: &self.kernel,
            scene,
            healed: self.healed,
        }
    }

    fn catch_up(&mut self, scene: &Scene) {
        for (at, happened) in scene.world.take_happened() {
            self.kernel.take(at, &happened);
            self.take(scene, at, What::Happened(happened));
        }
    }

    /// Says whether a batch was noticed in the store before its host told of it.
    fn knows(&self, what: &What) -> bool {
        let takes_time = self.plan.settings.pace.commit_ms > 0;
        matches!(what, What::Committed { number, .. } if takes_time && *number <= self.store.last())
    }

    /// Takes note of batches that were written though their hosts did not live to be told.
    fn catch_up_with_the_store(&mut self, scene: &Scene) {
        if self.plan.settings.pace.commit_ms == 0 {
            return;
        }
        let records = scene.world.records();
        let mut batches: BTreeMap<ChangeNumber, Vec<Write>> = BTreeMap::new();
        for change in records.changes(self.store.last(), u32::MAX).changes {
            let write = match records.get(change.key) {
                Some(stored) => {
                    let before = Revision(change.revision.0 - 1);
                    let expect = if before.0 == 0 { Expect::Absent } else { Expect::At(before) };
                    Write::Put { record: stored.record.clone(), expect }
                }
                None => Write::Delete { key: change.key, expect: change.revision },
            };
            batches.entry(change.number).or_default().push(write);
        }
        for (number, writes) in batches {
            self.names.learn(&writes);
            let lease = Lease { epoch: self.store.epoch(), ..NOBODY };
            let what = What::Committed { life: Life(0), lease, number, writes: writes.into() };
            self.sometimes.count("a batch was written that nobody was told of");
            self.take(scene, scene.world.now(), what);
        }
    }

    /// Takes one event: S and the names first, then everybody who watches.
    fn take(&mut self, scene: &Scene, at: Timestamp, what: What) {
        self.events += 1;
        match &what {
            What::Committed { writes, number, .. } => self.store.take(writes, *number),
            What::Acquired { life, lease } => {
                self.store.acquired(lease.epoch);
                if let Some(host) = self.hosts.get_mut(life) {
                    host.epoch = lease.epoch;
                }
            }
            What::HostServes { life, .. } => {
                if let Some(host) = self.hosts.get_mut(life) {
                    host.serves = true;
                }
            }
            _ => {}
        }
        let event = Event { number: self.events, at, what };
        self.digest.take(&event);
        if self.violation.is_none() {
            self.ask(scene, &event);
            let exited =
                matches!(&event.what, What::Happened(Happened::Exited { leader: true, .. }));
            if exited && !self.hosts.values().any(|host| host.lives) {
                self.sometimes.count("an exit came while no host was there");
            }
            let mut sometimes = std::mem::take(&mut self.sometimes);
            sometimes.watch(&event, &self.view(scene, at));
            self.sometimes = sometimes;
        }
        if let Some(trace) = &mut self.trace {
            trace.push(event);
        }
    }

    fn ask(&mut self, scene: &Scene, event: &Event) {
        let mut oracles = std::mem::take(&mut self.oracles);
        let view = self.view(scene, event.at);
        let found = oracles.iter_mut().find_map(|oracle| oracle.check(event, &view).err());
        self.oracles = oracles;
        if let Some(violation) = found {
            self.violate(violation);
        }
    }

    fn ask_at_the_end(&mut self, scene: &Scene, now: Timestamp) {
        let mut oracles = std::mem::take(&mut self.oracles);
        let view = self.view(scene, now);
        let found = oracles.iter_mut().find_map(|oracle| oracle.end(&view).err());
        self.oracles = oracles;
        if let Some(violation) = found {
            self.violate(violation);
        }
    }

    fn violate(&mut self, violation: Violation) {
        if self.violation.is_none() {
            self.violation = Some((violation, self.events));
        }
    }
}

/// The lease of a batch of which is not known whose it was.
const NOBODY: Lease =
    Lease { node: NodeId(Uuid::nil()), host: HostId(Uuid::nil()), epoch: Epoch(0) };

/// Says at which call something is struck, as a plan names it.
#[must_use]
pub fn at_call(site: &str, about: &str, nth: u32, fault: Fault) -> Intervention {
    let when = When::Call { site: site.to_owned(), about: about.to_owned(), nth };
    Intervention { when, what: Blow::Fault(fault) }
}
