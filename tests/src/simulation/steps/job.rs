//! What a host does through the ports, as data: performed at one instant, answered at another.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use windlass::Config;
use windlass::error::EngineError;
use windlass::request::{Caller, ExecRequest, InputRequest, RetryRequest, RunRequest};
use windlass::steps::{self, Asked, Begun, Retried, Sent, Verb};
use windlass_core::attempt::{Fact, Operation, State};
use windlass_core::cleanup::Plan as CleanupPlan;
use windlass_core::driver::{Fresh, Ports, perform};
use windlass_core::id::{AttemptId, ExecutionId, HostId, NodeId};
use windlass_core::process_store::{ChangeNumber, Lease, ProcessStoreError, Write};
use windlass_core::time::Timestamp;

use std::collections::BTreeMap;

/// Something to be done through the ports.
#[derive(Clone, Debug)]
pub(super) enum Job {
    /// Take over the records.
    TakeOver { host: HostId, node: NodeId },
    /// Clear places that no record speaks of.
    Sweep,
    /// Write a batch.
    Commit { attempt: AttemptId, writes: Vec<Write> },
    /// An operation of a machine.
    Operation { attempt: AttemptId, operation: Operation, fresh: Fresh },
    /// What must be known before a machine is asked.
    Prelude { asker: usize, prelude: Prelude },
    /// What an execution is to read that a message has started.
    Feed { attempt: AttemptId, execution: ExecutionId, text: String },
    /// A look at what is to be cleaned up.
    Look { watched_ms: u64 },
}

/// What must be found out before a machine is asked.
#[derive(Clone, Debug)]
pub(super) enum Prelude {
    Run { request: Box<RunRequest>, attempt: AttemptId, execution: ExecutionId },
    Exec { request: Box<ExecRequest>, execution: ExecutionId },
    Load { attempt: AttemptId },
    Change { attempt: AttemptId, verb: Verb },
    Input { request: InputRequest },
    Send { attempt: AttemptId, text: String },
    Retry { request: RetryRequest, execution: ExecutionId },
}

impl Prelude {
    /// Returns the attempt whose machine stays in memory meanwhile.
    pub(super) fn attempt(&self) -> Option<AttemptId> {
        match self {
            Self::Run { .. } | Self::Input { .. } => None,
            Self::Exec { request, .. } => Some(request.attempt),
            Self::Load { attempt } | Self::Change { attempt, .. } | Self::Send { attempt, .. } => {
                Some(*attempt)
            }
            Self::Retry { request, .. } => Some(request.attempt),
        }
    }
}

/// What came of a job.
#[derive(Debug)]
pub(super) enum Done {
    TakenOver(Result<(Lease, BTreeMap<AttemptId, State>), EngineError>),
    Nothing,
    Committed { attempt: AttemptId, result: Result<ChangeNumber, ProcessStoreError> },
    Fact { attempt: AttemptId, fact: Option<Fact> },
    Begun { asker: usize, held: Option<AttemptId>, result: Result<Begun, EngineError> },
    Loaded { asker: usize, attempt: AttemptId, result: Result<Option<State>, EngineError> },
    Asked { asker: usize, attempt: AttemptId, result: Result<Asked, EngineError> },
    Told { asker: usize, result: Result<(), EngineError> },
    Sent { asker: usize, attempt: AttemptId, result: Result<Sent, EngineError> },
    Retried { asker: usize, attempt: AttemptId, result: Result<Retried, EngineError> },
    Fed { attempt: AttemptId, execution: ExecutionId, result: Result<(), EngineError> },
    Looked(Result<CleanupPlan, EngineError>),
}

/// What a job is done with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tools<'a> {
    pub(super) ports: &'a Ports,
    pub(super) input: &'a dyn windlass_core::input::Input,
    pub(super) config: &'a Config,
    pub(super) lease: Lease,
    pub(super) at: Timestamp,
}

/// Does as much of a job as can be done at one instant: all of it, or nothing that others see.
pub(super) fn attempt(tools: Tools<'_>, caller: &Caller, job: Job) -> Option<Done> {
    at_once(does(tools, caller, job))
}

/// Polls a future once.
pub(super) fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}

async fn does(tools: Tools<'_>, caller: &Caller, job: Job) -> Done {
    let Tools { ports, config, lease, at, input } = tools;
    match job {
        Job::TakeOver { host, node } => {
            let taken = async {
                let store =
                    |error: ProcessStoreError| EngineError::Invalid { reason: error.to_string() };
                let lease = ports.store.acquire(host, node).await.map_err(store)?;
                let last = ChangeNumber(u64::MAX >> 1);
                ports.store.changes(last, 1).await.map_err(store)?;
                Ok((lease, steps::unfinished(ports).await?))
            };
            Done::TakenOver(taken.await)
        }
        Job::Sweep => {
            steps::sweep(ports).await;
            Done::Nothing
        }
        Job::Commit { attempt, writes } => {
            let result = ports.store.commit(writes, lease).await;
            Done::Committed { attempt, result }
        }
        Job::Operation { attempt, operation, fresh } => {
            let fact = perform(ports, attempt, operation, fresh).await;
            Done::Fact { attempt, fact }
        }
        Job::Feed { attempt, execution, text } => {
            let result = steps::feed(ports, input, lease.epoch, execution, text).await;
            Done::Fed { attempt, execution, result }
        }
        Job::Look { watched_ms } => {
            Done::Looked(steps::look(ports, config, lease, at, watched_ms).await)
        }
        Job::Prelude { asker, prelude } => match prelude {
            Prelude::Run { request, attempt, execution } => {
                let context = steps::Context { ports, config, lease, at, attempt, execution };
                let result = steps::run(context, caller, *request).await;
                Done::Begun { asker, held: None, result }
            }
            Prelude::Exec { request, execution } => {
                let attempt = request.attempt;
                let context = steps::Context { ports, config, lease, at, attempt, execution };
                let result = steps::exec(context, caller, *request).await;
                Done::Begun { asker, held: Some(attempt), result }
            }
            Prelude::Load { attempt } => {
                let result = steps::load(ports, caller, attempt).await;
                Done::Loaded { asker, attempt, result }
            }
            Prelude::Change { attempt, verb } => {
                let result = steps::change(ports, lease, at, caller, attempt, verb).await;
                Done::Asked { asker, attempt, result }
            }
            Prelude::Send { attempt, text } => {
                let result = steps::send(ports, config, at, caller, attempt, text).await;
                Done::Sent { asker, attempt, result }
            }
            Prelude::Retry { request, execution } => {
                let attempt = request.attempt;
                let context = steps::Context { ports, config, lease, at, attempt, execution };
                let result = steps::retry(context, caller, request).await;
                Done::Retried { asker, attempt, result }
            }
            Prelude::Input { request } => {
                let result = steps::input(ports, input, lease.epoch, caller, request).await;
                Done::Told { asker, result }
            }
        },
    }
}
