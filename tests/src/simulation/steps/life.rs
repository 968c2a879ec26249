//! One host: machines, admission and queues, fed step by step. What must be found out or done is a [`Job`] for the loop.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use uuid::Uuid;
use windlass::Config;
use windlass::EngineError;
use windlass::request::Accepted;
use windlass::steps::{self, Asked, Begun, New, Retried, Sent};
use windlass_core::admission;
use windlass_core::attempt::{
    self, Effect, Fact, Input, Operation, Refusal, RefusalCode, Reply, Request, RequestId, Slot,
    State,
};
use windlass_core::cleanup::Act;
use windlass_core::driver::{Fresh, Ports, Queues};
use windlass_core::id::{AttemptId, ExecutionId, HostId};
use windlass_core::process_store::Lease;
use windlass_core::time::Timestamp;

use super::job::{Done, Job};

/// Stands for cleanup among those who ask.
pub(super) const CLEANUP: usize = usize::MAX;

/// Who waits for the reply of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// A client, by its place in the list of requests.
    Client(usize),
    /// A client who started something.
    Starter(usize, Accepted),
    /// A client who tries something again.
    Retrier(usize, Accepted),
    /// Cleanup.
    Cleanup,
}

/// What follows from a step, for the loop.
#[derive(Debug)]
pub(super) enum Next {
    /// To be done through the ports.
    Job(Job),
    /// A client is answered.
    Reply { asker: Asker, reply: Reply },
    /// An admission refuses.
    Full { asker: usize },
    /// A client may go on: another one with its key was answered.
    GoOn(usize),
    /// The machines are ahead of the store.
    StartOver,
    /// Another host has taken over.
    Over,
    /// A pass of cleanup has ended.
    Cleaned,
}

/// Gives ids and nonces.
pub(super) trait Ids {
    fn fresh(&mut self, at: Timestamp, epoch: windlass_core::id::Epoch) -> Fresh;
}

/// One host.
#[derive(Debug)]
pub(super) struct HostLife {
    pub(super) host: HostId,
    pub(super) ports: Ports,
    /// It lives.
    pub(super) alive: bool,
    /// It has taken over.
    pub(super) serves: bool,
    /// It takes no more requests.
    pub(super) closing: bool,
    /// Counts its leases: what was begun under an earlier one is nobody's.
    pub(super) generation: u32,
    pub(super) lease: Lease,
    pub(super) counted_to: Timestamp,
    machine: attempt::Config,
    limits: admission::Limits,
    machines: BTreeMap<AttemptId, State>,
    admission: admission::State,
    slot_waiters: BTreeMap<Slot, AttemptId>,
    queues: Queues,
    held: BTreeMap<AttemptId, u32>,
    pub(super) wakes: BTreeSet<(Timestamp, AttemptId)>,
    /// When the loop wakes it next.
    pub(super) armed: Option<Timestamp>,
    pending: BTreeMap<RequestId, Asker>,
    keys: BTreeMap<Uuid, Vec<usize>>,
    key_of: BTreeMap<usize, Uuid>,
    next_request: u64,
    acts: VecDeque<(AttemptId, Act)>,
    /// A pass of cleanup is under way.
    pub(super) cleans: bool,
    /// Preludes that are under way.
    pub(super) preludes: u32,
}

impl HostLife {
    pub(super) fn new(host: HostId, ports: Ports, config: &Config, lease: Lease) -> Self {
        Self {
            host,
            ports,
            alive: true,
            serves: false,
            closing: false,
            generation: 0,
            lease,
            counted_to: Timestamp(0),
            machine: attempt::Config {
                host,
                epoch: lease.epoch,
                git_timeout_ms: config.git_timeout_ms,
                git_grace_ms: config.stop_grace_ms,
                readopt_ms: config.readopt_ms,
                max_void_places: 3,
                identity: config.identity.clone(),
            },
            limits: config.limits,
            machines: BTreeMap::new(),
            admission: admission::State::new(config.limits),
            slot_waiters: BTreeMap::new(),
            queues: Queues::default(),
            held: BTreeMap::new(),
            wakes: BTreeSet::new(),
            armed: None,
            pending: BTreeMap::new(),
            keys: BTreeMap::new(),
            key_of: BTreeMap::new(),
            next_request: 0,
            acts: VecDeque::new(),
            cleans: false,
            preludes: 0,
        }
    }

    /// Says how many slots are taken and how many wait.
    pub(super) fn counts(&self) -> (u32, u32) {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        (count(self.admission.running()), count(self.admission.queued()))
    }

    /// Says whether nothing that was accepted is still on its way to the store.
    pub(super) fn is_flushed(&self) -> bool {
        self.queues.is_empty() && self.preludes == 0
    }

    /// Begins anew with what is recorded.
    pub(super) fn take_over(
        &mut self,
        at: Timestamp,
        lease: Lease,
        machines: BTreeMap<AttemptId, State>,
        ids: &mut dyn Ids,
        out: &mut Vec<Next>,
    ) {
        self.lease = lease;
        self.machine.epoch = lease.epoch;
        self.serves = true;
        self.counted_to = at;
        self.machines = machines;
        for (slot, owner) in steps::living(&self.machines) {
            self.admit(at, admission::Input::Adopt { slot, owner }, ids, out);
        }
        for id in self.machines.keys().copied().collect::<Vec<_>>() {
            self.feed(at, id, Input::Fact(Fact::Recovered), ids, out);
        }
    }

    /// Forgets everything of a lease.
    pub(super) fn lose_lease(&mut self) {
        self.generation += 1;
        self.serves = false;
        self.machines.clear();
        self.admission = admission::State::new(self.limits);
        self.slot_waiters.clear();
        self.queues = Queues::default();
        self.held.clear();
        self.wakes.clear();
        self.armed = None;
        self.pending.clear();
        self.keys.clear();
        self.key_of.clear();
        self.acts.clear();
        self.cleans = false;
        self.preludes = 0;
    }

    /// Takes note that something is found out for a request; the machine of its attempt stays in memory meanwhile.
    pub(super) fn begin_prelude(&mut self, attempt: Option<AttemptId>) {
        self.preludes += 1;
        if let Some(attempt) = attempt {
            self.hold(attempt);
        }
    }

    fn hold(&mut self, attempt: AttemptId) {
        *self.held.entry(attempt).or_insert(0) += 1;
    }

    fn release_hold(&mut self, attempt: AttemptId) {
        if let Some(count) = self.held.get_mut(&attempt) {
            *count -= 1;
            if *count == 0 {
                self.held.remove(&attempt);
            }
        }
        self.drop_if_idle(attempt);
    }

    /// Takes the key of a request; `false` if another one with it is under way, which is waited for.
    pub(super) fn take_key(&mut self, client: usize, key: Uuid) -> bool {
        if let Some(waiting) = self.keys.get_mut(&key) {
            waiting.push(client);
            return false;
        }
        self.keys.insert(key, Vec::new());
        self.key_of.insert(client, key);
        true
    }

    /// Lets those go on who waited for the key of a client that was answered.
    pub(super) fn key_is_done(&mut self, client: usize, out: &mut Vec<Next>) {
        let Some(key) = self.key_of.remove(&client) else { return };
        out.extend(self.keys.remove(&key).unwrap_or_default().into_iter().map(Next::GoOn));
    }

    fn feed(
        &mut self,
        at: Timestamp,
        id: AttemptId,
        input: Input,
        ids: &mut dyn Ids,
        out: &mut Vec<Next>,
    ) {
        let Some(state) = self.machines.remove(&id) else { return };
        let step = state.step(&self.machine, at, input);
        self.machines.insert(id, step.state);
        let due = self.queues.submit(id, step.effects);
        self.perform(at, id, due, ids, out);
        self.drop_if_idle(id);
    }

    fn drop_if_idle(&mut self, id: AttemptId) {
        if self.queues.is_quiet(id)
            && !self.held.contains_key(&id)
            && self.machines.get(&id).is_some_and(State::is_idle)
        {
            self.machines.remove(&id);
        }
    }

    fn perform(
        &mut self,
        at: Timestamp,
        attempt: AttemptId,
        due: Vec<Effect>,
        ids: &mut dyn Ids,
        out: &mut Vec<Next>,
    ) {
        // What admission leads to comes behind what is due already, as it would from the driver's queue.
        let mut slots = Vec::new();
        for effect in due {
            match effect {
                Effect::Persist { writes } => out.push(Next::Job(Job::Commit { attempt, writes })),
                Effect::Begin(Operation::TakeSlot { slot, owner, adopted }) => {
                    self.slot_waiters.insert(slot, attempt);
                    slots.push(if adopted {
                        admission::Input::Adopt { slot, owner }
                    } else {
                        admission::Input::Wait { slot, owner }
                    });
                }
                Effect::Begin(Operation::ReleaseSlot(slot)) => {
                    self.slot_waiters.remove(&slot);
                    slots.push(admission::Input::Release(slot));
                }
                Effect::Begin(Operation::Feed { execution }) => {
                    self.feed_input(attempt, execution, out)
                }
                Effect::Begin(operation) => {
                    let fresh = ids.fresh(at, self.lease.epoch);
                    out.push(Next::Job(Job::Operation { attempt, operation, fresh }));
                }
                Effect::WakeAt(when) => drop(self.wakes.insert((when, attempt))),
                Effect::Reply { request, reply } => self.reply(request, reply, out),
            }
        }
        for slot in slots {
            self.admit(at, slot, ids, out);
        }
    }

    /// Writes the message of an execution to its standard input.
    fn feed_input(&mut self, attempt: AttemptId, execution: ExecutionId, out: &mut Vec<Next>) {
        let of = |state: &State| {
            state.executions().find(|record| record.id == execution).and_then(|it| it.text.clone())
        };
        let Some(text) = self.machines.get(&attempt).and_then(of) else { return };
        self.preludes += 1;
        out.push(Next::Job(Job::Feed { attempt, execution, text }));
    }

    fn on_fed(
        &mut self,
        at: Timestamp,
        attempt: AttemptId,
        execution: ExecutionId,
        result: Result<(), EngineError>,
        ids: &mut dyn Ids,
        out: &mut Vec<Next>,
    ) {
        match result {
            // Whoever has closed it, or ended, wants no more.
            Ok(()) | Err(EngineError::Refused { .. } | EngineError::Superseded) => {}
            Err(error) => {
                let fact = Fact::InDoubt { execution, message: error.to_string() };
                self.feed(at, attempt, Input::Fact(fact), ids, out);
            }
        }
    }

    fn reply(&mut self, request: RequestId, reply: Reply, out: &mut Vec<Next>) {
        let Some(asker) = self.pending.remove(&request) else { return };
        out.push(Next::Reply { asker: asker.clone(), reply });
        match asker {
            Asker::Starter(client, _) | Asker::Retrier(client, _) => self.key_is_done(client, out),
            Asker::Cleanup => self.next_act(out),
            Asker::Client(_) => {}
        }
    }

    fn admit(
        &mut self,
        at: Timestamp,
        input: admission::Input,
        ids: &mut dyn Ids,
        out: &mut Vec<Next>,
    ) {
        let full = std::mem::replace(&mut self.admission, admission::State::new(self.limits));
        let step = full.step(input);
        self.admission = step.state;
        for effect in step.effects {
            if let admission::Effect::Admit(slot) = effect
                && let Some(attempt) = self.slot_waiters.get(&slot).copied()
            {
                self.feed(at, attempt, Input::Fact(Fact::Admitted(slot)), ids, out);
            }
        }
    }

    fn ask(
        &mut self,
        at: Timestamp,
        attempt: AttemptId,
        request: Request,
        asker: Asker,
        ids: &mut dyn Ids,
        out: &mut Vec<Next>,
    ) {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.pending.insert(id, asker);
        self.feed(at, attempt, Input::Request { id, request }, ids, out);
    }

    fn insert(&mut self, attempt: AttemptId, state: Option<State>) {
        if let Some(state) = state {
            self.machines.entry(attempt).or_insert(state);
        }
    }

    /// Wakes those whose time has come.
    pub(super) fn wake(&mut self, at: Timestamp, ids: &mut dyn Ids, out: &mut Vec<Next>) {
        while let Some((when, attempt)) =
            self.wakes.first().copied().filter(|(when, _)| *when <= at)
        {
            self.wakes.remove(&(when, attempt));
            self.feed(at, attempt, Input::Fact(Fact::Woke), ids, out);
        }
    }

    /// Takes what came of a job.
    pub(super) fn on_done(
        &mut self,
        at: Timestamp,
        done: Done,
        ids: &mut dyn Ids,
        out: &mut Vec<Next>,
    ) {
        match done {
            Done::Nothing | Done::TakenOver(_) | Done::Told { .. } => {}
            Done::Committed { attempt, result } => match self.queues.committed(attempt, result) {
                Ok((_, due)) => {
                    self.perform(at, attempt, due, ids, out);
                    self.drop_if_idle(attempt);
                }
                Err(error) if steps::is_superseded(&error) => out.push(Next::Over),
                Err(_) => out.push(Next::StartOver),
            },
            Done::Fact { attempt, fact: Some(fact) } => {
                self.feed(at, attempt, Input::Fact(fact), ids, out);
            }
            Done::Fact { fact: None, .. } => {}
            Done::Begun { asker, held, result } => {
                self.preludes -= 1;
                self.on_begun(at, asker, result, ids, out);
                if let Some(attempt) = held {
                    self.release_hold(attempt);
                }
            }
            Done::Loaded { attempt, .. } => {
                self.preludes -= 1;
                self.release_hold(attempt);
            }
            Done::Asked { asker, attempt, result } => {
                self.preludes -= 1;
                if let Ok(Asked { machine, since, request }) = result {
                    let asker =
                        if asker == CLEANUP { Asker::Cleanup } else { Asker::Client(asker) };
                    self.on_asked(at, attempt, machine, since, request, asker, ids, out);
                } else if asker == CLEANUP {
                    self.next_act(out);
                }
                self.release_hold(attempt);
            }
            Done::Sent { asker, attempt, result } => {
                self.preludes -= 1;
                if let Ok(Sent::New(asked)) = result {
                    let Asked { machine, request, .. } = *asked;
                    self.request(at, attempt, machine, request, asker, ids, out);
                }
                self.release_hold(attempt);
            }
            Done::Retried { asker, attempt, result } => {
                self.preludes -= 1;
                self.on_retried(at, (asker, attempt), result, ids, out);
                self.release_hold(attempt);
            }
            Done::Fed { attempt, execution, result } => {
                self.preludes -= 1;
                self.on_fed(at, attempt, execution, result, ids, out);
            }
            Done::Looked(result) => {
                self.acts = result.map_or_else(
                    |_| VecDeque::new(),
                    |plan| {
                        let acts = plan.decisions.into_iter();
                        acts.filter_map(|one| Some((one.attempt?, one.act?))).collect()
                    },
                );
                self.next_act(out);
            }
        }
    }

    fn on_retried(
        &mut self,
        at: Timestamp,
        (asker, attempt): (usize, AttemptId),
        result: Result<Retried, EngineError>,
        ids: &mut dyn Ids,
        out: &mut Vec<Next>,
    ) {
        match result {
            Ok(Retried::New { accepted, asked }) => {
                let Asked { machine, since, request } = *asked;
                self.insert(attempt, machine);
                if self.machines.get(&attempt).map(State::revision) != since {
                    let (code, message) = (RefusalCode::Busy, "it has gone on".to_owned());
                    let reply = Reply::Refused(Refusal { code, message });
                    out.push(Next::Reply { asker: Asker::Client(asker), reply });
                    return self.key_is_done(asker, out);
                }
                let asker = Asker::Retrier(asker, accepted);
                self.ask(at, attempt, request, asker, ids, out);
            }
            Ok(Retried::Repeated(_)) | Err(_) => self.key_is_done(asker, out),
        }
    }

    fn on_begun(
        &mut self,
        at: Timestamp,
        client: usize,
        result: Result<Begun, EngineError>,
        ids: &mut dyn Ids,
        out: &mut Vec<Next>,
    ) {
        let Ok(Begun::New(new)) = result else {
            self.key_is_done(client, out);
            return;
        };
        let New { accepted, machine, slot, refuse_when_full, request, owner } = *new;
        let attempt = accepted.attempt;
        self.insert(attempt, machine);
        let full = std::mem::replace(&mut self.admission, admission::State::new(self.limits));
        let step = full.step(admission::Input::Ask { slot, owner, refuse_when_full });
        self.admission = step.state;
        let is_run = matches!(request, Request::Run { .. });
        self.slot_waiters.insert(slot, attempt);
        let admitted = match step.effects.into_iter().next() {
            Some(admission::Effect::Admit(_)) => true,
            Some(admission::Effect::Queue { .. }) | None => false,
            Some(admission::Effect::Refuse { .. }) => {
                self.slot_waiters.remove(&slot);
                if is_run {
                    self.machines.remove(&attempt);
                }
                self.key_is_done(client, out);
                out.push(Next::Full { asker: client });
                return;
            }
        };
        let request = match request {
            Request::Run { execution, key, .. } => Request::Run { execution, key, admitted },
            Request::Start { execution, key, .. } => Request::Start { execution, key, admitted },
            other => other,
        };
        self.ask(at, attempt, request, Asker::Starter(client, accepted), ids, out);
    }

    #[expect(clippy::too_many_arguments, reason = "what was found out, and who asked")]
    fn on_asked(
        &mut self,
        at: Timestamp,
        attempt: AttemptId,
        machine: Option<State>,
        since: Option<windlass_core::process_store::Revision>,
        request: Request,
        asker: Asker,
        ids: &mut dyn Ids,
        out: &mut Vec<Next>,
    ) {
        self.insert(attempt, machine);
        let revision = self.machines.get(&attempt).map(State::revision);
        if since.is_some() && since != revision {
            if asker == Asker::Cleanup {
                self.next_act(out);
            }
            return;
        }
        self.ask(at, attempt, request, asker, ids, out);
    }

    /// Asks a machine whose records were read as `machine` says.
    #[expect(clippy::too_many_arguments, reason = "what was found out, and who asked")]
    pub(super) fn request(
        &mut self,
        at: Timestamp,
        attempt: AttemptId,
        machine: Option<State>,
        request: Request,
        client: usize,
        ids: &mut dyn Ids,
        out: &mut Vec<Next>,
    ) {
        self.insert(attempt, machine);
        self.ask(at, attempt, request, Asker::Client(client), ids, out);
    }

    pub(super) fn begin_pass(&mut self, at: Timestamp, period_ms: u64, out: &mut Vec<Next>) {
        self.cleans = true;
        let watched_ms = at.ms_since(self.counted_to).min(period_ms);
        self.counted_to = at;
        out.push(Next::Job(Job::Look { watched_ms }));
    }

    fn next_act(&mut self, out: &mut Vec<Next>) {
        match self.acts.pop_front() {
            Some((attempt, act)) => {
                let prelude = super::job::Prelude::Change { attempt, verb: steps::Verb::Act(act) };
                out.push(Next::Job(Job::Prelude { asker: CLEANUP, prelude }));
            }
            None => {
                self.cleans = false;
                out.push(Next::Cleaned);
            }
        }
    }
}
