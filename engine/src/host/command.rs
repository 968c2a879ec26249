//! What handles send to the loop, and who waits for what.

use std::fmt;

use futures::channel::{mpsc, oneshot};
use uuid::Uuid;
use windlass_core::attempt::Slot;
use windlass_core::container_service::StopCause;
use windlass_core::id::{AttemptId, ExecutionId, FollowUpId};
use windlass_core::process_store::{ChangeNumber, Record, RecordKey};
use windlass_core::vcs_history::HistoryWork;

use super::changes::Change;
use super::edits::Turn;
use crate::error::EngineError;
use crate::handle::{Commit, GcItem, HostStatus, Integrated};
use crate::request::{
    Accepted, Caller, ExecRequest, GcOptions, RetryRequest, RunRequest, SendOptions, StopTarget,
};

pub(crate) type Answer<T> = oneshot::Sender<Result<T, EngineError>>;

/// What a handle sends to the loop.
pub(crate) enum Command {
    Run {
        caller: Caller,
        request: Box<RunRequest>,
        answer: Answer<Accepted>,
    },
    Exec {
        caller: Caller,
        request: Box<ExecRequest>,
        answer: Answer<Accepted>,
    },
    Stop {
        caller: Caller,
        target: StopTarget,
        cause: StopCause,
        grace_ms: Option<u64>,
        answer: Answer<()>,
    },
    Commit {
        caller: Caller,
        attempt: AttemptId,
        message: Option<String>,
        answer: Answer<Commit>,
    },
    Integrate {
        caller: Caller,
        attempt: AttemptId,
        work: HistoryWork,
        answer: Answer<Integrated>,
    },
    Retry {
        caller: Caller,
        request: RetryRequest,
        answer: Answer<Accepted>,
    },
    Send {
        caller: Caller,
        attempt: AttemptId,
        text: String,
        with: SendOptions,
        answer: Answer<FollowUpId>,
    },
    Change {
        caller: Caller,
        attempt: AttemptId,
        change: Change,
        answer: Answer<()>,
    },
    Gc {
        options: GcOptions,
        answer: Answer<Vec<GcItem>>,
    },
    /// What has its turn among the changes of projects and tasks.
    Turn(Turn),
    Watch {
        key: RecordKey,
        watcher: mpsc::UnboundedSender<Record>,
        armed: Answer<()>,
    },
    AwaitChange {
        after: ChangeNumber,
        answer: oneshot::Sender<()>,
    },
    Status {
        answer: Answer<HostStatus>,
    },
    /// Asks how many wait before each of these slots.
    Queue {
        slots: Vec<Slot>,
        answer: Answer<Vec<Option<u32>>>,
    },
    ShutDown {
        answer: oneshot::Sender<()>,
    },
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Run { .. } => "Run",
            Self::Exec { .. } => "Exec",
            Self::Stop { .. } => "Stop",
            Self::Commit { .. } => "Commit",
            Self::Integrate { .. } => "Integrate",
            Self::Retry { .. } => "Retry",
            Self::Send { .. } => "Send",
            Self::Change { .. } => "Change",
            Self::Gc { .. } => "Gc",
            Self::Turn(_) => "Turn",
            Self::Watch { .. } => "Watch",
            Self::AwaitChange { .. } => "AwaitChange",
            Self::Status { .. } => "Status",
            Self::Queue { .. } => "Queue",
            Self::ShutDown { .. } => "ShutDown",
        })
    }
}

impl Command {
    /// Answers with an error.
    pub(crate) fn fail(self, error: EngineError) {
        match self {
            Self::Run { answer, .. } | Self::Exec { answer, .. } | Self::Retry { answer, .. } => {
                drop(answer.send(Err(error)));
            }
            Self::Stop { answer, .. } | Self::Change { answer, .. } => {
                drop(answer.send(Err(error)))
            }
            Self::Send { answer, .. } => drop(answer.send(Err(error))),
            Self::Gc { answer, .. } => drop(answer.send(Err(error))),
            Self::Turn(turn) => turn.fail(error),
            Self::Commit { answer, .. } => drop(answer.send(Err(error))),
            Self::Integrate { answer, .. } => drop(answer.send(Err(error))),
            Self::Status { answer } => drop(answer.send(Err(error))),
            Self::Queue { answer, .. } => drop(answer.send(Err(error))),
            Self::Watch { armed, .. } => drop(armed.send(Err(error))),
            // Dropping the sender tells these.
            Self::AwaitChange { .. } | Self::ShutDown { .. } => {}
        }
    }
}

/// Who waits for the reply of a machine.
pub(crate) enum Pending {
    Accepted { accepted: Accepted, key: Uuid, answer: Answer<Accepted> },
    Done(Answer<()>, Subject),
    Commit(Answer<Commit>),
    Integrate(Answer<Integrated>),
    Sent(Answer<FollowUpId>, FollowUpId),
}

/// What a request without an answer of its own was about, for its error.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Subject {
    Attempt,
    Execution(ExecutionId),
}

impl Pending {
    pub(crate) fn fail(self, error: EngineError) {
        match self {
            Self::Accepted { answer, .. } => drop(answer.send(Err(error))),
            Self::Done(answer, _) => drop(answer.send(Err(error))),
            Self::Commit(answer) => drop(answer.send(Err(error))),
            Self::Integrate(answer) => drop(answer.send(Err(error))),
            Self::Sent(answer, _) => drop(answer.send(Err(error))),
        }
    }
}
