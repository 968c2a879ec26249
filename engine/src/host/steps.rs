//! The logic of the host as single steps, without its loop: for the step loop of the simulation. No part of the API.
//!
//! It performs nothing by itself and keeps nothing: whoever calls it owns machines, admission and queues, as
//! `Host` does. What a step reads, it reads through the ports.

use std::collections::BTreeMap;

use windlass_core::attempt::{FollowUpChange, Request, Slot, State};
use windlass_core::cleanup::{Act, Plan};
use windlass_core::driver::Ports;
use windlass_core::id::{AttemptId, ExecutionId, FollowUpId};
use windlass_core::process_store::{Lease, ProcessStoreError, Revision};
use windlass_core::snapshot::{SnapshotCause, SnapshotNumber};
use windlass_core::time::Timestamp;

use super::changes::{self, Change};
use super::cleanup::Looking;
use super::new_records::{self, NewRecord, title};
use super::prelude::{self, Loaded, Start};
use super::{follow_ups, recovery, retry, sweep};
use crate::config::Config;
use crate::error::EngineError;
use crate::request::{
    Accepted, Caller, ExecRequest, RemoveOptions, RetryRequest, RunRequest, SendOptions, WhenFull,
};

/// What a host knows when it takes a request.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Where to look.
    pub ports: &'a Ports,
    /// The defaults.
    pub config: &'a Config,
    /// Under which lease.
    pub lease: Lease,
    /// When.
    pub at: Timestamp,
    /// The id that a new attempt gets.
    pub attempt: AttemptId,
    /// The id that a new execution gets.
    pub execution: ExecutionId,
}

/// What a request that starts something leads to.
#[derive(Debug)]
pub enum Begun {
    /// It was made before.
    Repeated(Accepted),
    /// It is new: a slot is asked for, then the machine is fed.
    New(Box<New>),
}

/// A request that starts something, before its slot.
#[derive(Debug)]
pub struct New {
    /// What is told once it is recorded.
    pub accepted: Accepted,
    /// The machine of the attempt as its records say, used unless there is one in memory.
    pub machine: Option<State>,
    /// Which slot it needs.
    pub slot: Slot,
    /// Of which client.
    pub owner: Option<String>,
    /// It would rather be refused than wait.
    pub refuse_when_full: bool,
    /// What the machine is asked, without a slot yet.
    pub request: Request,
}

/// A request for a change, before the machine is fed.
#[derive(Debug)]
pub struct Asked {
    /// The machine of the attempt as its records say, used unless there is one in memory.
    pub machine: Option<State>,
    /// The revision that the attempt must still be at.
    pub since: Option<Revision>,
    /// What the machine is asked.
    pub request: Request,
}

/// What is to be changed about an attempt.
#[derive(Clone, Debug)]
pub enum Verb {
    /// Save and remove the worktree.
    Remove(RemoveOptions),
    /// Make the worktree again.
    Restore(Option<SnapshotNumber>),
    /// Remove a snapshot.
    RemoveSnapshot {
        /// Which.
        number: SnapshotNumber,
        /// Though the worktree cannot be made again without it.
        force: bool,
    },
    /// Note whether the worktree stays.
    SetKeep(bool),
    /// Change a message that waits.
    FollowUp {
        /// Which.
        id: FollowUpId,
        /// What of it.
        change: FollowUpChange,
    },
    /// Hold the queue of messages, or let it flow.
    HoldQueue(bool),
    /// Do what cleanup has decided.
    Act(Act),
}

/// What a message for an attempt leads to.
#[derive(Debug)]
pub enum Sent {
    /// It was sent before.
    Repeated,
    /// It is new.
    New(Box<Asked>),
}

/// What a request for another try leads to.
#[derive(Debug)]
pub enum Retried {
    /// It was made before.
    Repeated(Accepted),
    /// It is new.
    New {
        /// What is told once it is recorded.
        accepted: Accepted,
        /// What is to be asked.
        asked: Box<Asked>,
    },
}

/// Loads the machine of every attempt of which something is unfinished.
///
/// # Errors
///
/// When the store cannot be read.
pub async fn unfinished(ports: &Ports) -> Result<BTreeMap<AttemptId, State>, EngineError> {
    recovery::unfinished(ports).await
}

/// Names the slots of everything that may run.
#[must_use]
pub fn living(machines: &BTreeMap<AttemptId, State>) -> Vec<(Slot, Option<String>)> {
    recovery::living(machines)
}

/// Says whether another host has taken over, so that this one must not go on.
#[must_use]
pub fn is_superseded(error: &ProcessStoreError) -> bool {
    recovery::is_superseded(error)
}

/// Clears the places that no record speaks of.
pub async fn sweep(ports: &Ports) {
    sweep::sweep(ports).await;
}

/// Prepares a run.
///
/// # Errors
///
/// As [`crate::Handle::run`].
pub async fn run(
    context: Context<'_>,
    caller: &Caller,
    request: RunRequest,
) -> Result<Begun, EngineError> {
    let mut canonical = request.clone();
    canonical.launch.keep_what_is_asked();
    let random = || *context.execution.0.as_bytes();
    let found = new_records::name(caller, context.attempt, &canonical, random);
    let ports = context.ports;
    let planned = match prelude::run(ports, caller, &request, &found, title(&request)).await? {
        Start::Repeated(accepted) => return Ok(Begun::Repeated(accepted)),
        Start::New(planned) => planned,
    };
    let new = NewRecord { lease: context.lease, caller, found: &found, at: context.at };
    let source_is_dirty = planned.source_is_dirty;
    let unmatched = planned.unmatched.clone();
    let attempt = new.attempt(&request, planned);
    let id = context.execution;
    let accepted = Accepted { attempt: attempt.id, execution: id, source_is_dirty, unmatched };
    let (slot, cwd) = (Slot::Chain(attempt.id), attempt.workspace.path().clone());
    let refuse_when_full = request.launch.when_full == WhenFull::Refuse;
    let execution = new.chain(context.config, id, request.scripts, request.launch, cwd);
    let key = new.request(id);
    let request = Request::Run { execution: Box::new(execution), key, admitted: false };
    let machine = Some(State::new(attempt));
    let owner = caller.owner.clone();
    Ok(Begun::New(Box::new(New { accepted, machine, slot, owner, refuse_when_full, request })))
}

/// Prepares one more execution in an attempt.
///
/// # Errors
///
/// As [`crate::Handle::exec`].
pub async fn exec(
    context: Context<'_>,
    caller: &Caller,
    request: ExecRequest,
) -> Result<Begun, EngineError> {
    let mut canonical = request.clone();
    canonical.launch.keep_what_is_asked();
    let random = || *context.execution.0.as_bytes();
    let found = new_records::name(caller, request.attempt, &canonical, random);
    let state = match prelude::exec(context.ports, caller, &found).await? {
        Start::Repeated(accepted) => return Ok(Begun::Repeated(accepted)),
        Start::New(Loaded { attempt, state }) => {
            state.ok_or_else(|| EngineError::no_attempt(attempt))?
        }
    };
    let new = NewRecord { lease: context.lease, caller, found: &found, at: context.at };
    let (id, reason) = (context.execution, request.run_reason);
    let cwd = state.attempt().workspace.path().clone();
    let refuse_when_full = request.launch.when_full == WhenFull::Refuse;
    let execution = new.execution(context.config, id, reason, request.launch, cwd);
    let key = new.request(id);
    let (attempt, unmatched) = (found.attempt, Vec::new());
    let accepted = Accepted { attempt, execution: id, source_is_dirty: false, unmatched };
    let (slot, machine) = (Slot::of(&execution), Some(state));
    let request = Request::Start { execution: Box::new(execution), key, admitted: false };
    let owner = caller.owner.clone();
    Ok(Begun::New(Box::new(New { accepted, machine, slot, owner, refuse_when_full, request })))
}

/// Returns the id of the message that a caller sends under its key.
#[must_use]
pub fn message_id(caller: &Caller) -> Option<FollowUpId> {
    follow_ups::id_of(caller)
}

/// Prepares a message for an attempt, sent under a key.
///
/// # Errors
///
/// As [`crate::Handle::send`].
pub async fn send(
    ports: &Ports,
    config: &Config,
    at: Timestamp,
    caller: &Caller,
    attempt: AttemptId,
    text: String,
) -> Result<Sent, EngineError> {
    let Some(id) = message_id(caller) else {
        return Err(EngineError::Invalid { reason: "a message needs a key here".to_owned() });
    };
    let (caller, with, limits) = (caller.clone(), SendOptions::default(), config.attachments);
    let message = follow_ups::Message { caller, attempt, text, with, limits, id, at };
    Ok(match follow_ups::prepare(ports, message).await? {
        follow_ups::Sent::Repeated(_) => Sent::Repeated,
        follow_ups::Sent::New { loaded, message } => {
            let (machine, request) = (loaded.state, Request::Send { message });
            Sent::New(Box::new(Asked { machine, since: None, request }))
        }
    })
}

/// Prepares another try.
///
/// # Errors
///
/// As [`crate::Handle::retry`].
pub async fn retry(
    context: Context<'_>,
    caller: &Caller,
    request: RetryRequest,
) -> Result<Retried, EngineError> {
    let random = || *context.execution.0.as_bytes();
    let found = new_records::name(caller, request.attempt, &request, random);
    let again = match retry::prepare(context.ports, caller, request, &found).await? {
        Start::Repeated(accepted) => return Ok(Retried::Repeated(accepted)),
        Start::New(again) => again,
    };
    let retry::Again { loaded, chosen, superseded, text } = *again;
    let new = NewRecord { lease: context.lease, caller, found: &found, at: context.at };
    let attempt = loaded.state.as_ref().map(State::attempt);
    let (request, accepted) =
        retry::begin(&new, context.execution, attempt, (chosen, text), superseded);
    let since = loaded.state.as_ref().map(State::revision);
    let asked = Box::new(Asked { machine: loaded.state, since, request });
    Ok(Retried::New { accepted, asked })
}

/// Writes the message of an execution to its standard input, as the host does when it runs.
///
/// # Errors
///
/// As [`crate::Handle::input`].
pub async fn feed(
    ports: &Ports,
    to: &dyn windlass_core::input::Input,
    epoch: windlass_core::id::Epoch,
    execution: ExecutionId,
    text: String,
) -> Result<(), EngineError> {
    input(ports, to, epoch, &Caller::default(), follow_ups::message(execution, text)).await
}

/// Loads the machine of an attempt that the caller may see.
///
/// # Errors
///
/// [`EngineError::NotFound`], or when the store cannot be read.
pub async fn load(
    ports: &Ports,
    caller: &Caller,
    attempt: AttemptId,
) -> Result<Option<State>, EngineError> {
    Ok(prelude::on_attempt(ports, caller, attempt).await?.state)
}

/// Finds the attempt of an execution that the caller may see.
///
/// # Errors
///
/// As [`load`].
pub async fn attempt_of(
    ports: &Ports,
    caller: &Caller,
    id: ExecutionId,
) -> Result<AttemptId, EngineError> {
    prelude::attempt_of(ports, caller, id).await
}

/// Prepares a change.
///
/// # Errors
///
/// As the verbs of [`crate::Handle`].
pub async fn change(
    ports: &Ports,
    lease: Lease,
    at: Timestamp,
    caller: &Caller,
    attempt: AttemptId,
    verb: Verb,
) -> Result<Asked, EngineError> {
    let change = match verb {
        Verb::Remove(options) => Change::Remove { options, cause: SnapshotCause::Removal },
        Verb::Restore(snapshot) => Change::Restore { snapshot },
        Verb::RemoveSnapshot { number, force } => Change::RemoveSnapshot { number, force },
        Verb::SetKeep(keep) => Change::SetKeep { keep },
        Verb::FollowUp { id, change } => Change::FollowUp { follow_up: id, version: None, change },
        Verb::HoldQueue(held) => Change::HoldQueue { held },
        Verb::Act(act) => super::cleanup::change(act),
    };
    let changed = changes::prepare(ports, caller, attempt, change).await?;
    let orphan = changed.orphan.map(|worktree| {
        let worktree = *worktree;
        changes::machine_of_orphan(lease, attempt, worktree, at)
    });
    let machine = changed.loaded.state.or(orphan);
    Ok(Asked { machine, since: changed.since, request: changed.request })
}

/// Looks what is to be cleaned up, and records what was observed.
///
/// # Errors
///
/// When anything that must be looked at cannot be.
pub async fn look(
    ports: &Ports,
    config: &Config,
    lease: Lease,
    at: Timestamp,
    watched_ms: u64,
) -> Result<Plan, EngineError> {
    let (ports, node, policy) = (ports.clone(), lease.node, config.cleanup);
    let looking = Looking { ports: ports.clone(), node, policy, at, watched_ms };
    looking.look().await?.record(&ports, lease).await
}

/// Sends a message to standard input.
///
/// # Errors
///
/// As [`crate::Handle::input`].
pub async fn input(
    ports: &Ports,
    input: &dyn windlass_core::input::Input,
    epoch: windlass_core::id::Epoch,
    caller: &Caller,
    request: crate::request::InputRequest,
) -> Result<(), EngineError> {
    let epoch = std::sync::atomic::AtomicU64::new(epoch.0);
    crate::input::send(ports, Some(input), &epoch, caller, request).await
}
