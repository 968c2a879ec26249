//! The first layer: the machines alone. A loop takes what is due, feeds it, and schedules what follows.
//!
//! No tasks and no wakers: what a host does through the ports is a value (`job`), performed whole at one virtual instant and
//! answered at another. Machines, admission, queues, operations and the host's reading of records are those that ship
//! ([`windlass::steps`]); what is written here again of the engine's host is who waits for whom (`life`).

mod clients;
mod conductor;
mod ending;
mod job;
mod life;

use std::collections::BTreeMap;
use std::sync::Arc;

use windlass::Config;
use windlass_core::admission::Limits;
use windlass_core::cleanup::Policy;
use windlass_core::driver::{Fresh, Ports};
use windlass_core::id::{Epoch, ExecutionId, HostId, Nonce};
use windlass_core::process_store::Lease;
use windlass_core::time::Timestamp;
use windlass_fakes::Loss;
use windlass_fakes::faulty::Conductor;
use windlass_fakes::world::{Ambush, Pace};

use super::event::{Gone, Life, What};
use super::oracle::{Oracle, Violation};
use super::place::Place;
use super::plan::{Blow, Class, Plan, Settings, When};
use super::stage::{Keep, Outcome, Stage};
use clients::Clients;
use conductor::{Begun, Later, StepConductor, Stepwise};
use job::{Done, Job, Tools};
use life::{HostLife, Ids, Next};

/// How long an answer takes where nothing is slow, in milliseconds.
const ANSWER_MS: u64 = 1;
/// How long a host waits after its store failed, in milliseconds.
const PAUSE_MS: u64 = 1_000;
/// How many steps a run may take; one that takes more goes in circles.
const MOST_STEPS: u32 = 50_000;
/// How long a host that is asked to leave has for it, in milliseconds, before it is killed.
const LEAVE_MS: u64 = 30_000;

/// Runs a plan.
#[must_use]
pub fn run(plan: &Arc<Plan>, oracles: Vec<Box<dyn Oracle>>, keep: Keep) -> Outcome {
    let place = Place::new();
    let stage = Arc::new(Stage::new(Arc::clone(plan), place.scene.clone(), oracles, keep));
    // A job is done whole at one instant.
    let whole = Pace { commit_ms: 0, worktree_step_ms: 0, ..plan.settings.pace.into() };
    place.scene.world.set_pace(whole);
    let mut steps = Steps::new(Arc::clone(plan), place, Arc::clone(&stage));
    steps.run();
    drop(steps);
    stage.finish()
}

/// Something that is due.
#[derive(Debug)]
enum Due {
    /// A host does something.
    Perform { life: Life, generation: u32, job: Job, begun: Begun },
    /// A host hears what came of it.
    Answer { life: Life, generation: u32, done: Box<Done> },
    /// Machines of a host wanted to be woken.
    Wake { life: Life, generation: u32 },
    /// A host that lost its lease takes over again.
    TakeOver { life: Life },
    /// A pass of cleanup.
    Clean { life: Life, generation: u32 },
    /// A host comes, if none is there or a second one was asked for.
    Host { second: bool },
    /// A client asks, or asks again.
    Ask(usize),
    /// Something is done to the world.
    Blow(Blow),
    /// Nothing goes wrong any more.
    Heal,
    /// A host that was asked to leave has had time enough.
    Insist(Life),
    /// It is time to look how things are.
    Nothing,
}

/// One run.
#[derive(Debug)]
struct Steps {
    plan: Arc<Plan>,
    config: Config,
    place: Place,
    stage: Arc<Stage>,
    ground: Arc<Stepwise>,
    hosts: BTreeMap<Life, Host>,
    clients: Clients,
    due: BTreeMap<(Timestamp, u64, u64), Due>,
    /// Jobs that wait for something in the world.
    waiting: Vec<(Life, u32, Job, Begun)>,
    /// Jobs that wait until nothing goes wrong.
    hanging: Vec<(Life, u32, Job, Begun)>,
    sequence: u64,
    now: Timestamp,
    ending: Option<ending::Ending>,
    settled: bool,
}

/// One host with its ports.
#[derive(Debug)]
struct Host {
    life: HostLife,
    conductor: Arc<StepConductor>,
    input: Arc<dyn windlass_core::input::Input>,
}

/// Makes ids of a host's random bits.
struct HostIds<'a> {
    stage: &'a Stage,
    life: Life,
}

impl HostIds<'_> {
    fn ten(&self) -> [u8; 10] {
        let mut ten = [0; 10];
        ten.copy_from_slice(&self.stage.random(self.life)[..10]);
        ten
    }
}

impl Ids for HostIds<'_> {
    fn fresh(&mut self, at: Timestamp, epoch: Epoch) -> Fresh {
        let nonce = uuid::Builder::from_random_bytes(self.stage.random(self.life)).into_uuid();
        Fresh { nonce: Nonce(nonce), execution: ExecutionId::new(at, self.ten()), epoch }
    }
}

impl Steps {
    fn new(plan: Arc<Plan>, place: Place, stage: Arc<Stage>) -> Self {
        let now = place.scene.world.now();
        let ground = Arc::new(Stepwise(place.scene.world.clone()));
        let clients = Clients::new(&plan);
        Self {
            config: config(&plan.settings),
            plan,
            place,
            stage,
            ground,
            hosts: BTreeMap::new(),
            clients,
            due: BTreeMap::new(),
            waiting: Vec::new(),
            hanging: Vec::new(),
            sequence: 0,
            now,
            ending: None,
            settled: false,
        }
    }

    fn schedule(&mut self, at: Timestamp, due: Due) {
        self.sequence += 1;
        // What is due at the same time comes in the order in which it was scheduled, unless the swarm reorders.
        let rank = match &due {
            Due::Perform { .. } | Due::Answer { .. } => {
                self.stage.choose(Class::Reorder, "order", "", 4)
            }
            _ => 0,
        };
        self.due.insert((at.max(self.now), rank, self.sequence), due);
    }

    fn after(&mut self, ms: u64, due: Due) {
        self.schedule(self.now.plus_ms(ms), due);
    }

    fn run(&mut self) {
        let began = self.now;
        self.schedule(began, Due::Host { second: false });
        let plan = Arc::clone(&self.plan);
        for (client, request) in plan.requests.iter().enumerate() {
            self.schedule(began.plus_ms(request.at_ms), Due::Ask(client));
        }
        for intervention in &plan.interventions {
            if let When::At(ms) = intervention.when {
                self.schedule(began.plus_ms(ms), Due::Blow(intervention.what.clone()));
            }
        }
        self.schedule(began.plus_ms(plan.settings.heal_ms), Due::Heal);
        let mut steps = 0;
        while !self.settled && !self.stage.is_violated() {
            steps += 1;
            if steps > MOST_STEPS {
                let what = format!("after {MOST_STEPS} steps it has not come to rest");
                self.stage.violate(Violation::new("L no storm", what));
                return;
            }
            self.step();
        }
    }

    /// Does what is due next: a timer of the world, or something of ours.
    fn step(&mut self) {
        let world = &self.place.scene.world;
        let ours = self.due.first_key_value().map(|((at, ..), _)| *at);
        let Some(ours) = ours else {
            self.settled = true;
            return;
        };
        if let Some(timer) = world.next_timer().filter(|timer| *timer <= ours) {
            self.now = self.now.max(timer);
            world.set_now(self.now);
            self.stage.catch_up();
        } else {
            self.now = self.now.max(ours);
            world.set_now(self.now);
            let Some((_, due)) = self.due.pop_first() else { return };
            self.does(due);
            self.stage.catch_up();
        }
        while let Some(blow) = self.stage.next_blow() {
            self.strike(blow);
        }
        self.poll_waiting();
        self.go_on_ending();
    }

    fn does(&mut self, due: Due) {
        match due {
            Due::Perform { life, generation, job, begun } => {
                self.perform(life, generation, job, begun);
            }
            Due::Answer { life, generation, done } => {
                if self.is_current(life, generation) {
                    self.on_done(life, *done);
                }
            }
            Due::Wake { life, generation } => {
                if self.is_current(life, generation) {
                    if let Some(host) = self.hosts.get_mut(&life) {
                        host.life.armed = None;
                    }
                    self.drive(life, |host, at, ids, out| host.wake(at, ids, out));
                }
            }
            Due::TakeOver { life } => {
                if let Some(host) = self.hosts.get(&life).filter(|host| host.life.alive) {
                    let (host, node) = (host.life.host, self.place.node);
                    let generation = self.generation(life);
                    let job = Job::TakeOver { host, node };
                    self.perform(life, generation, job, Begun::default());
                }
            }
            Due::Clean { life, generation } => {
                if self.is_current(life, generation) {
                    let period = self.config.cleanup_period_ms.unwrap_or(30 * 60_000);
                    self.drive(life, |host, at, _, out| {
                        if !host.cleans && !host.closing {
                            host.begin_pass(at, period, out);
                        }
                    });
                    self.after(period, Due::Clean { life, generation });
                }
            }
            Due::Host { second } => {
                if second || !self.is_hosted() {
                    self.host_comes();
                }
            }
            Due::Ask(client) => self.on_ask(client),
            Due::Blow(blow) => self.strike(blow),
            Due::Heal => self.heal(),
            Due::Insist(life) => self.host_gone(life, Gone::Killed),
            Due::Nothing => {}
        }
    }

    fn generation(&self, life: Life) -> u32 {
        self.hosts.get(&life).map_or(0, |host| host.life.generation)
    }

    fn is_current(&self, life: Life, generation: u32) -> bool {
        self.hosts
            .get(&life)
            .is_some_and(|host| host.life.alive && host.life.generation == generation)
    }

    /// Lets a host do something, and does what follows.
    fn drive(
        &mut self,
        life: Life,
        act: impl FnOnce(&mut HostLife, Timestamp, &mut dyn Ids, &mut Vec<Next>),
    ) {
        let Some(host) = self.hosts.get_mut(&life) else { return };
        let mut out = Vec::new();
        let mut ids = HostIds { stage: &self.stage, life };
        act(&mut host.life, self.now, &mut ids, &mut out);
        for next in out {
            self.follow(life, next);
        }
        self.arm(life);
    }

    /// Sees to it that the machines of a host are woken when they want to be.
    fn arm(&mut self, life: Life) {
        let Some(host) = self.hosts.get_mut(&life) else { return };
        let Some((first, _)) = host.life.wakes.first().copied() else { return };
        if host.life.armed.is_none_or(|armed| armed > first || armed <= self.now) {
            host.life.armed = Some(first);
            let generation = host.life.generation;
            let at = first.max(self.now.plus_ms(1));
            self.schedule(at, Due::Wake { life, generation });
        }
    }

    fn follow(&mut self, life: Life, next: Next) {
        let generation = self.generation(life);
        match next {
            Next::Job(job) => {
                if let Job::Prelude { prelude, .. } = &job
                    && let Some(host) = self.hosts.get_mut(&life)
                {
                    host.life.begin_prelude(prelude.attempt());
                }
                self.after(0, Due::Perform { life, generation, job, begun: Begun::default() });
            }
            Next::Reply { asker, reply } => self.on_reply(life, asker, reply),
            Next::Full { asker } => self.on_full(life, asker),
            Next::GoOn(client) => self.after(0, Due::Ask(client)),
            Next::StartOver => self.lose_lease(life, true),
            Next::Over => {
                self.lose_lease(life, false);
                self.host_gone(life, Gone::Left);
            }
            Next::Cleaned => self.on_cleaned(life),
        }
    }

    /// Does a job as far as it goes.
    fn perform(&mut self, life: Life, generation: u32, job: Job, begun: Begun) {
        if !self.is_current(life, generation) {
            return;
        }
        let Some(host) = self.hosts.get(&life) else { return };
        let caller = self.clients.caller_of(&job);
        let tools = Tools {
            ports: &host.life.ports,
            input: host.input.as_ref(),
            config: &self.config,
            lease: host.life.lease,
            at: self.now,
        };
        host.conductor.begin_job(begun);
        let done = job::attempt(tools, &caller, job.clone());
        let aside = host.conductor.end_job();
        if !self.stage.lives(life) {
            self.host_died(life);
            return;
        }
        let begun = aside.begun;
        match (done, aside.later) {
            (Some(done), _) => {
                let late = if aside.answer_late_ms == 0 { ANSWER_MS } else { aside.answer_late_ms };
                self.after(late, Due::Answer { life, generation, done: Box::new(done) });
            }
            (None, Some(Later::After(ms))) => {
                self.after(ms, Due::Perform { life, generation, job, begun });
            }
            (None, Some(Later::Healed)) if self.stage.is_healed() => {
                self.after(0, Due::Perform { life, generation, job, begun });
            }
            (None, Some(Later::Healed)) => self.hanging.push((life, generation, job, begun)),
            (None, None) => self.waiting.push((life, generation, job, begun)),
        }
    }

    /// Looks again at what waits for something in the world.
    fn poll_waiting(&mut self) {
        for (life, generation, job, begun) in std::mem::take(&mut self.waiting) {
            self.perform(life, generation, job, begun);
        }
    }

    fn on_done(&mut self, life: Life, done: Done) {
        match done {
            Done::TakenOver(Ok((lease, machines))) => {
                let now = self.now;
                self.stage.note(What::HostServes { life, epoch: lease.epoch });
                self.wake_clients();
                self.drive(life, |host, at, ids, out| {
                    host.take_over(at, lease, machines, ids, out);
                });
                let generation = self.generation(life);
                self.schedule(
                    now,
                    Due::Perform { life, generation, job: Job::Sweep, begun: Begun::default() },
                );
                if self.config.cleanup_period_ms.is_some() {
                    self.schedule(now, Due::Clean { life, generation });
                }
            }
            Done::TakenOver(Err(_)) => self.after(PAUSE_MS, Due::TakeOver { life }),
            Done::Told { asker, result } => {
                if let Some(host) = self.hosts.get_mut(&life) {
                    host.life.preludes -= 1;
                }
                self.on_told(asker, result);
            }
            done => {
                self.hear(life, &done);
                let ask = self.machine_request(&done);
                self.drive(life, |host, at, ids, out| {
                    if let Some((client, attempt, machine, request)) = ask {
                        host.request(at, attempt, machine, request, client, ids, out);
                    }
                    host.on_done(at, done, ids, out);
                });
            }
        }
        self.leave_if_flushed(life);
    }

    fn leave_if_flushed(&mut self, life: Life) {
        let leaves = self
            .hosts
            .get(&life)
            .is_some_and(|host| host.life.alive && host.life.closing && host.life.is_flushed());
        if leaves {
            self.lose_lease(life, false);
            self.host_gone(life, Gone::Left);
        }
    }

    /// Forgets the machines of a host; it takes over again unless another one has.
    fn lose_lease(&mut self, life: Life, again: bool) {
        let Some(host) = self.hosts.get_mut(&life) else { return };
        host.life.lose_lease();
        self.forget_asked(life, "the host has lost its lease");
        if again {
            self.after(PAUSE_MS, Due::TakeOver { life });
        }
    }

    // Hosts.

    fn host_comes(&mut self) {
        let life = self.stage.host_comes();
        let conductor = conductor::of_life(&self.stage, &self.ground, life);
        let dynamic = Arc::clone(&conductor) as Arc<dyn Conductor>;
        let (backends, input) = self.place.ports(&dynamic);
        let ports = Ports {
            containers: backends.containers,
            store: backends.store,
            logs: backends.logs,
            worktrees: backends.worktrees,
            history: None,
            attachments: None,
            secrets: Arc::new(NoSecrets),
        };
        let ids = HostIds { stage: &self.stage, life };
        let host = HostId::new(self.now, ids.ten());
        let lease = Lease { node: self.place.node, host, epoch: Epoch(0) };
        let life_ = HostLife::new(host, ports, &self.config, lease);
        self.hosts.insert(life, Host { life: life_, conductor, input });
        self.after(0, Due::TakeOver { life });
    }

    /// Says whether a host lives that has the records, or is about to. One that was superseded and has not noticed does not
    /// count: beside it there would be a lock that tells it.
    fn is_hosted(&self) -> bool {
        let newest = self.stage.look(|view| view.store.epoch());
        let drives = |host: &Host| !host.life.serves || host.life.lease.epoch == newest;
        self.hosts.values().any(|host| host.life.alive && drives(host))
    }

    fn host_gone(&mut self, life: Life, why: Gone) {
        self.stage.host_gone(life, why);
        self.host_died(life);
    }

    /// Drops what a host had; another one comes.
    fn host_died(&mut self, life: Life) {
        let Some(host) = self.hosts.get_mut(&life) else { return };
        if !host.life.alive {
            return;
        }
        host.life.alive = false;
        host.life.lose_lease();
        self.forget_asked(life, "the host is gone");
        self.waiting.retain(|(of, ..)| *of != life);
        self.hanging.retain(|(of, ..)| *of != life);
        self.after(self.plan.settings.restart_ms, Due::Host { second: false });
    }

    fn heal(&mut self) {
        // That two hosts live is one of the things that go wrong.
        let living = self.stage.living();
        for older in living.iter().rev().skip(1) {
            self.host_gone(*older, Gone::Killed);
        }
        for stale in self.stage.superseded() {
            self.host_gone(stale, Gone::Killed);
        }
        self.stage.heal();
        for (life, generation, job, begun) in std::mem::take(&mut self.hanging) {
            self.after(0, Due::Perform { life, generation, job, begun });
        }
        if self.stage.living().is_empty() {
            self.host_comes();
        }
        self.begin_ending();
    }

    /// Does something to the world.
    fn strike(&mut self, blow: Blow) {
        let world = self.place.scene.world.clone();
        match blow {
            Blow::Fault(_) => {}
            Blow::KillHost => {
                if let Some(life) = self.stage.living().last().copied() {
                    self.host_gone(life, Gone::Killed);
                }
            }
            Blow::LeaveHost => {
                if let Some(life) = self.stage.living().last().copied() {
                    if let Some(host) = self.hosts.get_mut(&life) {
                        host.life.closing = true;
                    }
                    self.leave_if_flushed(life);
                    self.after(LEAVE_MS, Due::Insist(life));
                }
            }
            Blow::SecondHost => self.after(0, Due::Host { second: true }),
            Blow::PowerLoss { journals, logs, store, worktrees } => {
                for life in self.stage.living() {
                    self.host_gone(life, Gone::Killed);
                }
                let (journals, logs) = (journals.into(), logs.into());
                let (store, worktrees) = (store.into(), worktrees.into());
                world.power_loss(Loss { journals, logs, store, worktrees });
            }
            Blow::KillShim { of } => {
                for execution in self.executions_named(&of) {
                    world.kill_shim(execution);
                }
            }
            Blow::StopShim { of, effect } => {
                for execution in self.executions_named(&of) {
                    world.ambush_shim(execution, effect, Ambush::Freeze);
                }
            }
            Blow::Room { free_bytes } => {
                let floor_bytes = 1 << 30;
                world.set_room(windlass_core::container_service::Room { free_bytes, floor_bytes });
            }
            Blow::Release { of } => {
                for execution in self.executions_named(&of) {
                    world.release(execution);
                }
            }
            Blow::Write { of, path, text } => {
                if let Some(dir) = self.directory_of(&of) {
                    self.place.scene.repositories.write(&dir, &path, text.as_bytes());
                }
            }
            Blow::DeleteDirectory { of } => {
                if let Some(dir) = self.directory_of(&of) {
                    self.place.scene.repositories.delete_directory(&dir);
                }
            }
            Blow::Ask(request) => {
                let client = self.clients.add(*request);
                self.after(0, Due::Ask(client));
            }
        }
        self.stage.catch_up();
    }

    fn executions_named(&self, name: &str) -> Vec<ExecutionId> {
        self.stage.names(|names| names.executions_named(name).collect())
    }

    /// Returns where the worktree of an attempt is, if it is there.
    fn directory_of(&self, name: &str) -> Option<windlass_core::locator::Locator> {
        let attempts: Vec<_> = self.stage.names(|names| names.attempts_named(name).collect());
        let path = attempts.into_iter().find_map(|id| {
            self.stage.look(|view| Some(view.store.attempt(id)?.workspace.worktree()?.path.clone()))
        })?;
        self.place.scene.repositories.exists(&path).then_some(path)
    }
}

fn config(settings: &Settings) -> Config {
    let standard = Config::standard();
    Config {
        limits: Limits {
            per_owner: settings.per_owner,
            per_host: settings.per_host,
            dev_servers: settings.per_host,
            queue: settings.queue,
        },
        stop_grace_ms: settings.stop_grace_ms,
        background_timeout_ms: settings.background_timeout_ms,
        git_timeout_ms: settings.git_timeout_ms,
        log_cap_bytes: settings.log_cap_bytes,
        cleanup_period_ms: settings.cleanup_period_ms,
        cleanup: Policy {
            idle_ms: settings.idle_ms,
            orphan_ms: settings.orphan_ms,
            ..standard.cleanup
        },
        ..standard
    }
}

/// There are no secrets in these worlds.
#[derive(Debug)]
struct NoSecrets;

#[async_trait::async_trait]
impl windlass_core::secrets::Secrets for NoSecrets {
    async fn resolve(
        &self,
        _execution: ExecutionId,
        wanted: &BTreeMap<String, windlass_core::action::SecretSource>,
    ) -> Result<BTreeMap<String, windlass_core::locator::OsBytes>, windlass_core::secrets::SecretGone>
    {
        match wanted.keys().next() {
            Some(name) => Err(windlass_core::secrets::SecretGone {
                name: name.clone(),
                why: "there are none".to_owned(),
            }),
            None => Ok(BTreeMap::new()),
        }
    }
}
