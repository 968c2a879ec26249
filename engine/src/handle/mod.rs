//! [`Handle`]: what a program does with a running engine. Dropping it detaches; nothing is stopped by that.

mod dev;
mod diff;
mod events;
mod follow_ups;
mod history;
mod keep;
mod look;
mod project;
mod task;
mod wait;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures::SinkExt as _;
use futures::channel::{mpsc, oneshot};
use windlass_core::action::{RunReason, SecretSource};
use windlass_core::attachments::ATTACHMENTS;
use windlass_core::attempt::EXECUTION_MARK;
use windlass_core::container_service::StopCause;
use windlass_core::diff_watch::DiffWatch;
use windlass_core::driver::Ports;
use windlass_core::id::{AttemptId, ExecutionId, HostId, NodeId, ProjectId, TaskId};
use windlass_core::input::Input;
use windlass_core::listeners::Listeners;
use windlass_core::outcome::{CompletedBy, StoppedBy};
use windlass_core::port_block::PORT_BASE;
use windlass_core::process_store::{ChangeNumber, ChangePage, CheckReport, Cursor, Kind, Query};
use windlass_core::record::{
    AttemptRecord, AttemptStatus, ExecutionRecord, Phase, Recorded, RequestRecord, request_id,
};
use windlass_core::time::Timestamp;

use crate::error::{EngineError, RefusalCode};
use crate::host::command::{Answer, Command};
use crate::host::records::{read, read_attempt, read_execution, store_error, visible};
use crate::request::{
    Accepted, AttachRequest, Caller, ExecRequest, InputRequest, LaunchRequest, RunRequest, Scripts,
    StopTarget, WorkspaceRequest,
};

pub use dev::{Readiness, ReadyCheck};
pub use diff::DiffStream;
pub use events::{EventPage, Events, State};
pub use follow_ups::FollowUp;
pub use history::Integrated;
pub use keep::GcItem;
pub use project::Project;
pub use task::{Task, TaskFilter};

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
    /// Its process number; 0 if the program did not say.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Its epoch.
    pub epoch: u64,
    /// Slots that are taken.
    pub running: u32,
    /// Executions that wait for a slot.
    pub queued: u32,
    /// Since when, milliseconds since the Unix epoch.
    pub since_ms: u64,
}

/// Which executions or attempts to list, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Finished executions and removed attempts too.
    pub all: bool,
    /// Only those of this attempt (executions).
    pub attempt: Option<AttemptId>,
    /// Only those of this task (attempts).
    pub task: Option<TaskId>,
    /// Only with this status word.
    pub status: Option<String>,
    /// Go on after this place in the order: time and id of the last one seen.
    pub after: Option<Cursor>,
    /// At most this many; `None` is all.
    pub limit: Option<u32>,
}

/// What the loop was started as.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About {
    pub(crate) node: NodeId,
    pub(crate) host: HostId,
    pub(crate) pid: u32,
    pub(crate) since: Timestamp,
}

/// A running engine. Cheap to clone.
///
/// `caller.owner` limits what is seen; `None` sees all. Every method may be dropped while it waits; a request that was
/// sent is carried out all the same.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    ports: Ports,
    input: Option<Arc<dyn Input>>,
    epoch: Arc<AtomicU64>,
    recent: Arc<events::Recent>,
    diff_watch: Option<Arc<dyn DiffWatch>>,
    listeners: Option<Arc<dyn Listeners>>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl Handle {
    pub(crate) fn new(
        commands: mpsc::Sender<Command>,
        ports: Ports,
        input: Option<Arc<dyn Input>>,
        epoch: Arc<AtomicU64>,
    ) -> Self {
        let recent = Arc::default();
        Self { commands, ports, input, epoch, recent, diff_watch: None, listeners: None }
    }

    /// The same with the ability to follow diffs.
    pub(crate) fn with_diff_watch(self, diff_watch: Option<Arc<dyn DiffWatch>>) -> Self {
        Self { diff_watch, ..self }
    }

    /// The same with the ability to tell who listens.
    pub(crate) fn with_listeners(self, listeners: Option<Arc<dyn Listeners>>) -> Self {
        Self { listeners, ..self }
    }

    /// Sends a command and waits for its answer.
    async fn ask<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T, EngineError> {
        let (answer, told) = oneshot::channel();
        let mut commands = self.commands.clone();
        commands.send(command(answer)).await.map_err(|_| EngineError::Closing)?;
        told.await.map_err(|_| EngineError::Closing)?
    }

    /// Makes an attempt and starts its execution.
    ///
    /// # Errors
    ///
    /// [`EngineError::Refused`] when it cannot be done; nothing is left over then.
    pub async fn run(&self, caller: Caller, request: RunRequest) -> Result<Accepted, EngineError> {
        check_launch(&request.launch)?;
        check_scripts(&request.scripts)?;
        check_workspace(&request.workspace)?;
        self.check_secrets(&caller, &request.launch).await?;
        let request = Box::new(request);
        self.ask(|answer| Command::Run { caller, request, answer }).await
    }

    /// Starts one more execution in an attempt, beside its chain. An attempt has one dev server at a time.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotFound`], [`EngineError::Refused`], [`EngineError::Invalid`] for a run reason of the chain.
    pub async fn exec(
        &self,
        caller: Caller,
        request: ExecRequest,
    ) -> Result<Accepted, EngineError> {
        check_launch(&request.launch)?;
        if request.run_reason.in_chain() {
            let reason = "only background executions and dev servers run beside a chain".to_owned();
            return Err(EngineError::Invalid { reason });
        }
        if !request.launch.attach.is_empty() {
            let reason = "files are attached to a new attempt, or to a message".to_owned();
            return Err(EngineError::Invalid { reason });
        }
        if request.replace && request.run_reason != RunReason::DevServer {
            let reason = "only a dev server takes the place of another one".to_owned();
            return Err(EngineError::Invalid { reason });
        }
        self.check_secrets(&caller, &request.launch).await?;
        let request = Box::new(request);
        self.ask(|answer| Command::Exec { caller, request, answer }).await
    }

    /// Refuses what would wait for ever: a secret whose source gives no value now. A request that was taken before is not
    /// refused for it, and one that lives in memory has come along.
    async fn check_secrets(
        &self,
        caller: &Caller,
        launch: &LaunchRequest,
    ) -> Result<(), EngineError> {
        let nobody = ExecutionId(uuid::Uuid::nil());
        for (name, source) in &launch.secrets {
            let why = match source {
                SecretSource::Memory if launch.secret_values.contains_key(name) => continue,
                SecretSource::Memory => "its value did not come along".to_owned(),
                source => {
                    let wanted = BTreeMap::from([(name.clone(), source.clone())]);
                    match self.ports.secrets.resolve(nobody, &wanted).await {
                        Ok(_) => continue,
                        Err(gone) => gone.why,
                    }
                }
            };
            if let Some(key) = &caller.key {
                let id = request_id(caller.owner.as_deref(), key);
                if read::<RequestRecord>(&self.ports, id).await?.is_some() {
                    return Ok(());
                }
            }
            let reason = format!("the secret {name} has no value: {why}");
            return Err(EngineError::refused(RefusalCode::NoSecret, reason));
        }
        Ok(())
    }

    /// Asks for a stop; returns when that is recorded. `grace: None` is the execution's own.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotFound`].
    pub async fn stop(
        &self,
        caller: Caller,
        target: StopTarget,
        grace: Option<Duration>,
    ) -> Result<(), EngineError> {
        let grace_ms = grace.map(|grace| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
        let cause = StopCause::Stop { by: StoppedBy::User };
        self.ask(|answer| Command::Stop { caller, target, cause, grace_ms, answer }).await
    }

    /// Ends an execution as completed.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotFound`].
    pub async fn complete(
        &self,
        caller: Caller,
        execution: ExecutionId,
    ) -> Result<(), EngineError> {
        let cause = StopCause::Complete { by: CompletedBy::Program };
        let target = StopTarget::Execution(execution);
        self.ask(|answer| Command::Stop { caller, target, cause, grace_ms: None, answer }).await
    }

    /// Commits what is dirty in an attempt's worktree.
    ///
    /// # Errors
    ///
    /// [`EngineError::Refused`] while its chain is active or where there is no worktree.
    pub async fn commit(
        &self,
        caller: Caller,
        attempt: AttemptId,
        message: Option<String>,
    ) -> Result<Commit, EngineError> {
        let who = caller.clone();
        let answer = self.ask(|answer| Command::Commit { caller, attempt, message, answer }).await;
        if let Err(EngineError::Refused { code: RefusalCode::Git, .. }) = &answer
            && let Err(error) = self.worktree_status(&who, attempt).await
        {
            // Git cannot say it as plainly as the worktree itself: it is gone, or another one.
            return Err(error);
        }
        answer
    }

    /// Reads what is known of the host.
    ///
    /// # Errors
    ///
    /// [`EngineError::Closing`].
    pub async fn status(&self) -> Result<HostStatus, EngineError> {
        self.ask(|answer| Command::Status { answer }).await
    }

    /// Drains: takes no more requests, lets what was accepted be written, ends the loop. Executions are not touched.
    ///
    /// # Errors
    ///
    /// [`EngineError::Closing`] if it has ended already.
    pub async fn shut_down(&self) -> Result<(), EngineError> {
        let (answer, told) = oneshot::channel();
        let mut commands = self.commands.clone();
        commands.send(Command::ShutDown { answer }).await.map_err(|_| EngineError::Closing)?;
        told.await.map_err(|_| EngineError::Closing)
    }

    /// Writes to an execution's standard input; returns when it is in the log.
    ///
    /// # Errors
    ///
    /// [`EngineError::Refused`] when it takes no input (any more).
    pub async fn input(&self, caller: Caller, request: InputRequest) -> Result<(), EngineError> {
        crate::input::send(&self.ports, self.input.as_deref(), &self.epoch, &caller, request).await
    }

    /// Reads one execution.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotFound`].
    pub async fn execution(
        &self,
        caller: &Caller,
        id: ExecutionId,
    ) -> Result<ExecutionRecord, EngineError> {
        read_execution(&self.ports, caller.owner.as_deref(), id).await
    }

    /// Reads one attempt.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotFound`].
    pub async fn attempt(
        &self,
        caller: &Caller,
        id: AttemptId,
    ) -> Result<AttemptRecord, EngineError> {
        read_attempt(&self.ports, caller.owner.as_deref(), id).await
    }

    /// Lists executions, newest first.
    ///
    /// # Errors
    ///
    /// [`EngineError::Backend`].
    pub async fn executions(
        &self,
        caller: &Caller,
        filter: ListFilter,
    ) -> Result<Vec<ExecutionRecord>, EngineError> {
        let mut query = Query::newest(Kind::Execution, 1);
        query.owner.clone_from(&caller.owner);
        query.parent = filter.attempt.map(|attempt| attempt.0);
        query.after = filter.after;
        let word = filter.status.as_deref();
        let live = [Phase::Queued, Phase::Starting, Phase::Running, Phase::Stopping];
        let phases: Vec<Phase> = match live.into_iter().find(|p| Some(p.as_str()) == word) {
            Some(phase) => vec![phase],
            None if word.is_some() => vec![Phase::Ended, Phase::Final],
            None if filter.all => Vec::new(),
            None => live.to_vec(),
        };
        query.states = phases.iter().map(|phase| phase.as_str().to_owned()).collect();
        let keep = |record: &ExecutionRecord| {
            word.is_none_or(|word| {
                record.phase < Phase::Ended
                    || record.outcome.is_some_and(|outcome| outcome.word().as_str() == word)
            })
        };
        self.select(query, filter.limit, keep).await
    }

    /// Lists attempts, newest first.
    ///
    /// # Errors
    ///
    /// [`EngineError::Backend`].
    pub async fn attempts(
        &self,
        caller: &Caller,
        filter: ListFilter,
    ) -> Result<Vec<AttemptRecord>, EngineError> {
        let mut query = Query::newest(Kind::Attempt, 1);
        query.owner.clone_from(&caller.owner);
        query.parent = filter.task.map(|task| task.0);
        query.after = filter.after;
        let word = filter.status.as_deref();
        let wanted = AttemptStatus::ALL.into_iter().filter(|status| match word {
            Some(word) => status.as_str() == word,
            None => filter.all || *status != AttemptStatus::Removed,
        });
        query.states = wanted.map(|status| status.as_str().to_owned()).collect();
        if query.states.is_empty() {
            return Ok(Vec::new());
        }
        self.select(query, filter.limit, |_: &AttemptRecord| true).await
    }

    /// Reads the newest records that match, page by page, until there are enough.
    async fn select<T: Recorded>(
        &self,
        mut query: Query,
        limit: Option<u32>,
        keep: impl Fn(&T) -> bool,
    ) -> Result<Vec<T>, EngineError> {
        let enough = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let mut found = Vec::new();
        while found.len() < enough {
            let missing = u32::try_from(enough - found.len()).unwrap_or(u32::MAX);
            query.limit = missing.clamp(1, Query::MAX_LIMIT);
            let page = self.ports.store.list(query.clone()).await.map_err(store_error)?;
            for stored in page.records {
                // What a newer version wrote cannot be shown by this one; `check` reports it.
                if let Ok(record) = T::decode(&stored.record)
                    && keep(&record)
                {
                    found.push(record);
                }
            }
            match page.next {
                Some(next) => query.after = Some::<Cursor>(next),
                None => break,
            }
        }
        Ok(found)
    }

    /// Finds attempts and executions whose id ends with these hex digits (lower case, no hyphens, 4 or more).
    ///
    /// # Errors
    ///
    /// [`EngineError::Invalid`] for anything else.
    pub async fn find_suffix(
        &self,
        caller: &Caller,
        hex: &str,
    ) -> Result<(Vec<AttemptId>, Vec<ExecutionId>), EngineError> {
        let attempts = self.ids_ending(caller, Kind::Attempt, hex).await?;
        let executions = self.ids_ending(caller, Kind::Execution, hex).await?;
        Ok((
            attempts.into_iter().map(AttemptId).collect(),
            executions.into_iter().map(ExecutionId).collect(),
        ))
    }

    /// Finds projects and tasks likewise.
    ///
    /// # Errors
    ///
    /// As [`find_suffix`](Self::find_suffix).
    pub async fn find_planned(
        &self,
        caller: &Caller,
        hex: &str,
    ) -> Result<(Vec<ProjectId>, Vec<TaskId>), EngineError> {
        let projects = self.ids_ending(caller, Kind::Project, hex).await?;
        let tasks = self.ids_ending(caller, Kind::Task, hex).await?;
        Ok((projects.into_iter().map(ProjectId).collect(), tasks.into_iter().map(TaskId).collect()))
    }

    async fn ids_ending(
        &self,
        caller: &Caller,
        kind: Kind,
        hex: &str,
    ) -> Result<Vec<uuid::Uuid>, EngineError> {
        let digits = hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !(4..=32).contains(&hex.len()) || !digits {
            let reason = format!("{hex:?} is no end of an id: 4 to 32 hex digits");
            return Err(EngineError::Invalid { reason });
        }
        let mut query = Query::newest(kind, 20);
        query.owner.clone_from(&caller.owner);
        query.id_suffix = Some(hex.to_owned());
        let page = self.ports.store.list(query).await.map_err(store_error)?;
        Ok(page.records.into_iter().map(|stored| stored.record.key.id).collect())
    }

    /// Reads the changes after a number, whole batches. Those of other owners are left out for a caller with one.
    ///
    /// # Errors
    ///
    /// [`EngineError::Backend`].
    pub async fn changes(
        &self,
        caller: &Caller,
        after: ChangeNumber,
        limit: u32,
    ) -> Result<ChangePage, EngineError> {
        let mut page = self.ports.store.changes(after, limit).await.map_err(store_error)?;
        page.changes.retain(|change| visible(caller.owner.as_deref(), &change.owner));
        Ok(page)
    }

    /// Waits until there is a change after a number.
    ///
    /// # Errors
    ///
    /// [`EngineError::Closing`] if the host leaves before.
    pub async fn changed(&self, after: ChangeNumber) -> Result<(), EngineError> {
        let (answer, told) = oneshot::channel();
        let mut commands = self.commands.clone();
        let command = Command::AwaitChange { after, answer };
        commands.send(command).await.map_err(|_| EngineError::Closing)?;
        told.await.map_err(|_| EngineError::Closing)
    }

    /// Reads every record once and reports what is damaged.
    ///
    /// # Errors
    ///
    /// [`EngineError::Backend`].
    pub async fn check(&self) -> Result<CheckReport, EngineError> {
        self.ports.store.check().await.map_err(store_error)
    }
}

/// The variables that the engine sets itself.
const RESERVED: [&str; 5] =
    [EXECUTION_MARK, "WINDLASS_ATTEMPT_ID", "WINDLASS_BRANCH", PORT_BASE, ATTACHMENTS];

/// The longest part of a branch's name: with what git adds to a lock it is a file's name.
const MAX_BRANCH_PART: usize = 250;

/// Refuses a branch that git would take for something else or could not write.
fn check_workspace(workspace: &WorkspaceRequest) -> Result<(), EngineError> {
    match workspace {
        WorkspaceRequest::Worktree { branch, .. } => check_branch(branch.as_deref()),
        WorkspaceRequest::Directory { .. } => Ok(()),
    }
}

fn check_branch(branch: Option<&str>) -> Result<(), EngineError> {
    let Some(branch) = branch else { return Ok(()) };
    let reason = if branch.starts_with("refs/") {
        format!("{branch:?} is the full name of a reference; a branch is named without refs/heads/")
    } else if branch.split('/').any(|part| part.len() > MAX_BRANCH_PART) {
        format!("a part of the branch's name is longer than {MAX_BRANCH_PART} bytes")
    } else {
        return Ok(());
    };
    Err(EngineError::refused(RefusalCode::InvalidBranch, reason))
}

/// The most bytes of a script.
pub(crate) const SCRIPT_BYTES: usize = 64 << 10;

fn check_scripts(scripts: &Scripts) -> Result<(), EngineError> {
    for script in [&scripts.setup, &scripts.cleanup].into_iter().flatten() {
        let reason = if script.len() > SCRIPT_BYTES {
            format!("a script is longer than {} KiB", SCRIPT_BYTES >> 10)
        } else if script.contains('\0') {
            "a script has a zero byte".to_owned()
        } else {
            continue;
        };
        return Err(EngineError::Invalid { reason });
    }
    Ok(())
}

/// The most files that are handed over with one request.
const ATTACHED: usize = 100;

/// The most bytes of what a file is called.
const CALLED_BYTES: usize = 4_096;

fn check_attached(attach: &[AttachRequest]) -> Result<(), EngineError> {
    let reason = if attach.len() > ATTACHED {
        format!("more than {ATTACHED} files are attached")
    } else if attach.iter().any(|it| it.called.len() > CALLED_BYTES) {
        format!("what a file is called has more than {CALLED_BYTES} bytes")
    } else {
        return Ok(());
    };
    Err(EngineError::Invalid { reason })
}

fn check_launch(launch: &LaunchRequest) -> Result<(), EngineError> {
    let invalid = |reason: &str| Err(EngineError::Invalid { reason: reason.to_owned() });
    check_attached(&launch.attach)?;
    let argv = launch.action.argv();
    if argv.first().is_none_or(|program| program.0.is_empty()) {
        return invalid("there is no command to run");
    }
    let names =
        || launch.env.keys().chain(launch.inherited_env.keys()).chain(launch.secrets.keys());
    if names().any(|name| name.is_empty() || name.contains(['=', '\0'])) {
        return invalid("a variable's name is empty or has an = or a zero byte");
    }
    if let Some(name) = names().find(|name| RESERVED.contains(&name.as_str())) {
        return Err(EngineError::Invalid { reason: format!("{name} is set by the engine") });
    }
    let variables = [&launch.env, &launch.inherited_env, &launch.secret_values];
    let values = argv.iter().chain(variables.into_iter().flat_map(BTreeMap::values));
    if values.into_iter().any(|value| value.0.contains(&0)) {
        return invalid("an argument or a variable's value has a zero byte");
    }
    Ok(())
}
