//! [`Handle`]: what a program does with a running engine. Dropping it detaches; nothing is stopped by that.

use std::time::Duration;

use windlass_core::id::{AttemptId, ExecutionId};
use windlass_core::log_store::{LogPage, LogStatus, ReadOptions, Seq};
use windlass_core::process_store::{ChangeNumber, ChangePage};
use windlass_core::record::{AttemptRecord, ExecutionRecord};
use windlass_core::vcs_worktree::{Diff, DiffDetail, WorktreeStatus};

use crate::error::EngineError;
use crate::request::{Accepted, Caller, ExecRequest, InputRequest, RunRequest, StopTarget};

/// What became of a commit request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Commit {
    /// There was nothing to commit.
    Clean,
    /// This git execution commits it.
    Started(ExecutionId),
}

/// What is known of the host.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HostStatus {
    /// Its process number.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Its epoch.
    pub epoch: u64,
    /// Executions that run.
    pub running: u32,
    /// Executions that wait for a slot.
    pub queued: u32,
    /// Since when, milliseconds since the Unix epoch.
    pub since_ms: u64,
}

/// Which executions or attempts to list, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Finished ones too.
    pub all: bool,
    /// Only those of this attempt (executions).
    pub attempt: Option<AttemptId>,
    /// Only with this status word.
    pub status: Option<String>,
    /// At most this many; `None` is all.
    pub limit: Option<u32>,
}

/// A running engine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    _private: (),
}

/// What the methods promise together: `caller.owner` limits what is seen; `None` sees all. Every method may be dropped
/// while it waits; a request that was sent is carried out all the same.
#[expect(clippy::unused_async, clippy::missing_errors_doc, reason = "signatures first")]
impl Handle {
    /// Makes an attempt and starts its execution.
    pub async fn run(&self, _caller: Caller, _request: RunRequest) -> Result<Accepted, EngineError> {
        Err(EngineError::Closing)
    }

    /// Starts one more execution in an attempt.
    pub async fn exec(&self, _caller: Caller, _request: ExecRequest) -> Result<Accepted, EngineError> {
        Err(EngineError::Closing)
    }

    /// Asks for a stop; returns when it is recorded. `grace: None` is the execution's own.
    pub async fn stop(&self, _caller: Caller, _target: StopTarget, _grace: Option<Duration>) -> Result<(), EngineError> {
        Err(EngineError::Closing)
    }

    /// Ends an execution as completed.
    pub async fn complete(&self, _caller: Caller, _execution: ExecutionId) -> Result<(), EngineError> {
        Err(EngineError::Closing)
    }

    /// Commits what is dirty in an attempt's worktree.
    pub async fn commit(&self, _caller: Caller, _attempt: AttemptId, _message: Option<String>) -> Result<Commit, EngineError> {
        Err(EngineError::Closing)
    }

    /// Removes an attempt's worktree; returns when it is gone. `force` stops what runs in it.
    pub async fn remove(&self, _caller: Caller, _attempt: AttemptId, _force: bool) -> Result<(), EngineError> {
        Err(EngineError::Closing)
    }

    /// Writes to an execution's standard input; returns when it is in the log.
    pub async fn input(&self, _caller: Caller, _request: InputRequest) -> Result<(), EngineError> {
        Err(EngineError::Closing)
    }

    /// Reads one execution.
    pub async fn execution(&self, _caller: &Caller, _id: ExecutionId) -> Result<ExecutionRecord, EngineError> {
        Err(EngineError::Closing)
    }

    /// Reads one attempt.
    pub async fn attempt(&self, _caller: &Caller, _id: AttemptId) -> Result<AttemptRecord, EngineError> {
        Err(EngineError::Closing)
    }

    /// Lists executions, newest first.
    pub async fn executions(&self, _caller: &Caller, _filter: ListFilter) -> Result<Vec<ExecutionRecord>, EngineError> {
        Err(EngineError::Closing)
    }

    /// Lists attempts, newest first.
    pub async fn attempts(&self, _caller: &Caller, _filter: ListFilter) -> Result<Vec<AttemptRecord>, EngineError> {
        Err(EngineError::Closing)
    }

    /// Finds executions and attempts whose id ends with these hex digits (no hyphens, lower case, 4 or more).
    pub async fn find_suffix(&self, _caller: &Caller, _hex: &str) -> Result<(Vec<AttemptId>, Vec<ExecutionId>), EngineError> {
        Err(EngineError::Closing)
    }

    /// Waits until the outcome of an execution is known and durable.
    pub async fn ended(&self, _caller: &Caller, _id: ExecutionId) -> Result<ExecutionRecord, EngineError> {
        Err(EngineError::Closing)
    }

    /// Waits until nothing of an execution will change any more, and its attempt has been finalised after it (so that
    /// `committed` is known).
    pub async fn settled(&self, _caller: &Caller, _id: ExecutionId) -> Result<ExecutionRecord, EngineError> {
        Err(EngineError::Closing)
    }

    /// Reads one page of a log. A queued execution has an empty log.
    pub async fn log_page(&self, _caller: &Caller, _id: ExecutionId, _options: ReadOptions) -> Result<LogPage, EngineError> {
        Err(EngineError::Closing)
    }

    /// Waits until a log has a number above `after` or will never have one.
    pub async fn log_grown(&self, _caller: &Caller, _id: ExecutionId, _after: Seq) -> Result<(), EngineError> {
        Err(EngineError::Closing)
    }

    /// Measures a log.
    pub async fn log_status(&self, _caller: &Caller, _id: ExecutionId) -> Result<LogStatus, EngineError> {
        Err(EngineError::Closing)
    }

    /// Compares an attempt's worktree with its merge base.
    pub async fn diff(&self, _caller: &Caller, _id: AttemptId, _detail: DiffDetail) -> Result<Diff, EngineError> {
        Err(EngineError::Closing)
    }

    /// Measures an attempt's worktree.
    pub async fn worktree_status(&self, _caller: &Caller, _id: AttemptId) -> Result<WorktreeStatus, EngineError> {
        Err(EngineError::Closing)
    }

    /// Reads the changes after a number.
    pub async fn changes(&self, _after: ChangeNumber, _limit: u32) -> Result<ChangePage, EngineError> {
        Err(EngineError::Closing)
    }

    /// Waits until there is a change after a number.
    pub async fn changed(&self, _after: ChangeNumber) -> Result<(), EngineError> {
        Err(EngineError::Closing)
    }

    /// Reads what is known of the host.
    pub async fn status(&self) -> Result<HostStatus, EngineError> {
        Err(EngineError::Closing)
    }

    /// Drains: takes no more requests, lets recorded work be written, ends the loop. Executions are not touched.
    pub async fn shut_down(&self) -> Result<(), EngineError> {
        Err(EngineError::Closing)
    }
}
