//! What must be found out before a request can be fed to a machine: keys, room, workspaces, records.

use uuid::Uuid;
use windlass_core::attachments::Attachment;
use windlass_core::attempt::State;
use windlass_core::container_service::StopCause;
use windlass_core::driver::Ports;
use windlass_core::id::{AttemptId, ExecutionId, FollowUpId, TaskId};
use windlass_core::process_store::RecordKey;
use windlass_core::record::{RequestRecord, TaskRecord, request_id};
use windlass_core::vcs_history::{HistoryWork, VcsHistoryError};
use windlass_core::vcs_worktree::{VcsWorktreeError, WorktreeRequest};
use windlass_core::workspace::Workspace;

use super::changes::Changed;
use super::command::Answer;
use super::edits::{EditError, Edited, Resolved};
use super::follow_ups::Sent;
use super::records::{load_attempt, read, read_execution, visible};
use super::retry::Again;
use crate::error::{EngineError, RefusalCode};
use crate::handle::{Commit, GcItem, Integrated};
use crate::request::{Accepted, Caller, ExecRequest, RunRequest, TaskRun, WorkspaceRequest};

/// A request whose prelude has ended.
pub(super) enum Prelude {
    Run {
        caller: Caller,
        request: Box<RunRequest>,
        answer: Answer<Accepted>,
        found: Found,
        result: Result<Start<PlannedRun>, EngineError>,
    },
    Exec {
        caller: Caller,
        request: Box<ExecRequest>,
        answer: Answer<Accepted>,
        found: Found,
        result: Result<Start<Loaded>, EngineError>,
    },
    /// The attempt of an execution is known; its machine must be kept before its records are read.
    Locate {
        caller: Caller,
        stop: Stop,
        result: Result<AttemptId, EngineError>,
    },
    Stop {
        stop: Stop,
        attempt: AttemptId,
        result: Result<Loaded, EngineError>,
    },
    Commit {
        message: Option<String>,
        answer: Answer<Commit>,
        attempt: AttemptId,
        result: Result<Loaded, EngineError>,
    },
    Integrate {
        work: HistoryWork,
        answer: Answer<Integrated>,
        attempt: AttemptId,
        result: Result<Loaded, EngineError>,
    },
    Retry {
        caller: Caller,
        answer: Answer<Accepted>,
        found: Found,
        result: Result<Start<Box<Again>>, EngineError>,
    },
    Send {
        answer: Answer<FollowUpId>,
        attempt: AttemptId,
        result: Result<Sent, EngineError>,
    },
    /// A message was written to standard input, or could not be.
    Fed {
        attempt: AttemptId,
        execution: ExecutionId,
        result: Result<(), EngineError>,
    },
    Change {
        answer: Answer<()>,
        attempt: AttemptId,
        result: Result<Changed, EngineError>,
    },
    TaskRun {
        caller: Caller,
        request: Box<TaskRun>,
        answer: Answer<Accepted>,
        found: Found,
        result: Result<Start<Resolved>, EngineError>,
    },
    Edit {
        answer: Answer<RecordKey>,
        key: Uuid,
        result: Result<Edited, EditError>,
    },
    /// A pass of cleanup that only says what it would do.
    Gc {
        answer: Answer<Vec<GcItem>>,
        result: Result<Vec<GcItem>, EngineError>,
    },
}

/// What a stop asks for, and who waits for it.
pub(super) struct Stop {
    pub(super) execution: Option<ExecutionId>,
    pub(super) cause: StopCause,
    pub(super) grace_ms: Option<u64>,
    pub(super) answer: Answer<()>,
}

impl Prelude {
    /// Answers with an error instead.
    pub(super) fn fail(self, error: EngineError) {
        match self {
            Self::Run { answer, .. }
            | Self::Exec { answer, .. }
            | Self::TaskRun { answer, .. }
            | Self::Retry { answer, .. } => drop(answer.send(Err(error))),
            Self::Edit { answer, .. } => drop(answer.send(Err(error))),
            Self::Locate { stop: Stop { answer, .. }, .. }
            | Self::Stop { stop: Stop { answer, .. }, .. }
            | Self::Change { answer, .. } => drop(answer.send(Err(error))),
            Self::Send { answer, .. } => drop(answer.send(Err(error))),
            Self::Fed { .. } => {}
            Self::Gc { answer, .. } => drop(answer.send(Err(error))),
            Self::Commit { answer, .. } => drop(answer.send(Err(error))),
            Self::Integrate { answer, .. } => drop(answer.send(Err(error))),
        }
    }
}

/// What names a request that starts something.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Its key as text.
    pub(super) client_key: String,
    /// The id of its record.
    pub(super) key: Uuid,
    /// A digest of what it asks for.
    pub(super) digest: Uuid,
    /// The attempt that it is for.
    pub(super) attempt: AttemptId,
}

/// Whether a request that starts something is a repetition.
pub(super) enum Start<T> {
    /// It led to this already.
    Repeated(Accepted),
    /// It is new.
    New(T),
}

/// Where a run will happen.
pub(crate) struct PlannedRun {
    pub(super) workspace: Workspace,
    pub(super) source_is_dirty: bool,
    /// The globs of what is to be copied in that no file matches.
    pub(super) unmatched: Vec<String>,
    /// The task that it is an attempt of.
    pub(super) task: Option<TaskId>,
    /// The files that were handed over with it.
    pub(super) attachments: Vec<Attachment>,
}

/// An attempt as its records say; used unless the loop has its machine already.
pub(super) struct Loaded {
    pub(super) attempt: AttemptId,
    pub(super) state: Option<State>,
}

/// Looks whether a key has been used for the same request.
pub(super) async fn request_before(
    ports: &Ports,
    owner: Option<&str>,
    found: &Found,
) -> Result<Option<RequestRecord>, EngineError> {
    let id = request_id(owner, &found.client_key);
    let Some((record, _)) = read::<RequestRecord>(ports, id).await? else { return Ok(None) };
    if record.digest != found.digest {
        let reason = format!("the key {:?} was used for another request", found.client_key);
        return Err(EngineError::refused(RefusalCode::KeyReused, reason));
    }
    Ok(Some(record))
}

/// Looks what a request that starts something has led to.
pub(super) async fn repeated(
    ports: &Ports,
    owner: Option<&str>,
    found: &Found,
) -> Result<Option<Accepted>, EngineError> {
    let Some(record) = request_before(ports, owner, found).await? else { return Ok(None) };
    Ok(Some(Accepted {
        attempt: record.attempt,
        execution: record.execution,
        source_is_dirty: false,
        unmatched: Vec::new(),
    }))
}

pub(super) async fn room(ports: &Ports) -> Result<(), EngineError> {
    let room = ports.containers.room().await.map_err(container_error)?;
    if room.free_bytes < room.floor_bytes {
        let (free, floor) = (room.free_bytes >> 20, room.floor_bytes >> 20);
        let reason = format!("{free} MiB of disk are free, {floor} MiB must be");
        return Err(EngineError::refused(RefusalCode::DiskFloor, reason));
    }
    Ok(())
}

/// Prepares a run: its key, room on the disk, its workspace.
pub(super) async fn run(
    ports: &Ports,
    caller: &Caller,
    request: &RunRequest,
    found: &Found,
    title: String,
) -> Result<Start<PlannedRun>, EngineError> {
    if caller.key.is_some()
        && let Some(accepted) = repeated(ports, caller.owner.as_deref(), found).await?
    {
        return Ok(Start::Repeated(accepted));
    }
    room(ports).await?;
    match &request.workspace {
        WorkspaceRequest::Directory { path } => Ok(Start::New(PlannedRun {
            workspace: Workspace::Directory { path: path.clone() },
            source_is_dirty: false,
            unmatched: Vec::new(),
            task: None,
            attachments: Vec::new(),
        })),
        WorkspaceRequest::Worktree { repo, base, branch, copy } => {
            let request = WorktreeRequest {
                attempt: found.attempt,
                repo: repo.clone(),
                base: base.clone(),
                branch: branch.clone(),
                title,
                copy: copy.clone(),
            };
            let planned = ports.worktrees.plan(request).await;
            let planned = planned.map_err(|error| in_the_way(error, branch.as_deref()))?;
            Ok(Start::New(PlannedRun {
                workspace: Workspace::Worktree(planned.worktree),
                source_is_dirty: planned.source_is_dirty,
                unmatched: planned.unmatched,
                task: None,
                attachments: Vec::new(),
            }))
        }
    }
}

/// Prepares one more execution: its key, room on the disk, its attempt.
pub(super) async fn exec(
    ports: &Ports,
    caller: &Caller,
    found: &Found,
) -> Result<Start<Loaded>, EngineError> {
    if caller.key.is_some()
        && let Some(accepted) = repeated(ports, caller.owner.as_deref(), found).await?
    {
        return Ok(Start::Repeated(accepted));
    }
    room(ports).await?;
    let loaded = on_attempt(ports, caller, found.attempt).await?;
    refuse_closed_task_of(ports, &loaded).await?;
    Ok(Start::New(loaded))
}

/// Refuses to start anything in an attempt of a task that its user closed.
pub(super) async fn refuse_closed_task_of(
    ports: &Ports,
    loaded: &Loaded,
) -> Result<(), EngineError> {
    let task = loaded.state.as_ref().and_then(|state| state.attempt().task);
    match task {
        Some(task) => match read::<TaskRecord>(ports, task.0).await? {
            Some((record, _)) => refuse_closed(&record),
            // It was removed since; its attempts are runs.
            None => Ok(()),
        },
        None => Ok(()),
    }
}

/// Refuses to start anything for a task that its user closed.
pub(super) fn refuse_closed(task: &TaskRecord) -> Result<(), EngineError> {
    match task.said {
        Some(said) if said.status.is_closed() => {
            let (task, status) = (task.id.short(), said.status.as_str());
            let reason = format!("{task} is {status}: nothing starts for it");
            Err(EngineError::refused(RefusalCode::TaskClosed, reason))
        }
        Some(_) | None => Ok(()),
    }
}

/// Loads an attempt that the caller may see.
pub(super) async fn on_attempt(
    ports: &Ports,
    caller: &Caller,
    attempt: AttemptId,
) -> Result<Loaded, EngineError> {
    let state = load_attempt(ports, attempt).await?;
    let seen = state
        .as_ref()
        .is_some_and(|state| visible(caller.owner.as_deref(), &state.attempt().owner));
    if !seen {
        return Err(EngineError::no_attempt(attempt));
    }
    Ok(Loaded { attempt, state })
}

/// Finds the attempt of an execution that the caller may see.
pub(super) async fn attempt_of(
    ports: &Ports,
    caller: &Caller,
    id: ExecutionId,
) -> Result<AttemptId, EngineError> {
    Ok(read_execution(ports, caller.owner.as_deref(), id).await?.attempt)
}

pub(crate) fn container_error(
    error: windlass_core::container_service::ContainerServiceError,
) -> EngineError {
    use windlass_core::container_service::ContainerServiceError as E;
    match error {
        E::Full => EngineError::refused(RefusalCode::Full, "no space left for an execution"),
        E::Superseded { .. } => EngineError::Superseded,
        E::NotAttached { execution } => EngineError::no_execution(execution),
        E::Backend(error) => error.into(),
    }
}

/// Says of a branch that is in the way of another one what it keeps from being made.
fn in_the_way(error: VcsWorktreeError, wanted: Option<&str>) -> EngineError {
    match (&error, wanted) {
        (VcsWorktreeError::BranchExists { branch }, Some(wanted)) if branch != wanted => {
            let reason = format!("{error} and keeps {wanted:?} from being made");
            EngineError::refused(RefusalCode::BranchExists, reason)
        }
        _ => worktree_error(error),
    }
}

pub(crate) fn worktree_error(error: VcsWorktreeError) -> EngineError {
    match (worktree_code(&error), error) {
        (_, VcsWorktreeError::Backend(error)) => error.into(),
        (code, error) => EngineError::refused(code.unwrap_or(RefusalCode::Git), error.to_string()),
    }
}

pub(crate) fn history_error(error: VcsHistoryError) -> EngineError {
    let code = match error {
        VcsHistoryError::Worktree(error) => return worktree_error(error),
        VcsHistoryError::Dirty { .. } | VcsHistoryError::TargetInUse { .. } => RefusalCode::Dirty,
        VcsHistoryError::Conflicts { .. } => RefusalCode::MergeConflict,
        VcsHistoryError::NoBranch { .. }
        | VcsHistoryError::OwnBranch { .. }
        | VcsHistoryError::NoRemote { .. } => RefusalCode::NoTarget,
        VcsHistoryError::Nothing { .. } => RefusalCode::NothingToDo,
    };
    EngineError::refused(code, error.to_string())
}

/// Says which rule it is that refuses; `None` if it is none, but a failure.
pub(crate) fn worktree_code(error: &VcsWorktreeError) -> Option<RefusalCode> {
    use VcsWorktreeError as E;
    Some(match error {
        E::NotARepository { .. } => RefusalCode::NotARepository,
        E::Empty { .. } => RefusalCode::EmptyRepository,
        E::UnknownBase { .. } => RefusalCode::UnknownBase,
        E::BranchExists { .. } => RefusalCode::BranchExists,
        E::InvalidBranch { .. } => RefusalCode::InvalidBranch,
        E::Gone { .. } => RefusalCode::WorkspaceGone,
        E::Mismatch { .. } => RefusalCode::WorkspaceMismatch,
        E::Unsaved { .. } | E::Unsavable { .. } => RefusalCode::Unsaved,
        E::Unfinished { .. } => RefusalCode::Unfinished,
        E::Quota { .. } => RefusalCode::SnapshotQuota,
        E::NoSnapshot { .. } => RefusalCode::NoSnapshot,
        E::DamagedSnapshot { .. } => RefusalCode::DamagedSnapshot,
        E::Occupied { .. } => RefusalCode::Busy,
        E::Busy { .. } => RefusalCode::RepositoryBusy,
        E::NoGit { .. } => RefusalCode::NoGit,
        E::Full => RefusalCode::Full,
        E::CannotCopy { .. } => RefusalCode::CannotCopy,
        E::Git { .. } | E::Incomplete { .. } => RefusalCode::Git,
        E::Backend(_) => return None,
    })
}
