//! The attempt machine: what happens to one attempt and its executions, decided purely.
//!
//! [`State::step`] takes an input and a time and returns effects. It performs nothing, reads no clock, makes no id. The
//! driver performs the effects in order and feeds what happened back as facts.

mod chain;
mod execution;
mod recovery;
#[cfg(test)]
mod tests;
mod workspace;

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::container_service::{Adoption, Launched, Place, StopCause, StopRequest};
use crate::execution::{ExitReport, FinalReport};
use crate::id::{AttemptId, Epoch, ExecutionId, HostId};
use crate::outcome::NotStarted;
use crate::process_store::{Expect, Revision, Write};
use crate::record::{AttemptRecord, ExecutionRecord, Phase, Recorded, RequestRecord};
use crate::time::Timestamp;
use crate::vcs_worktree::{GitStep, Identity};
use crate::workspace::{Oid, Workspace, Worktree};

/// What the machine must know and cannot decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The host that drives it.
    pub host: HostId,
    /// Its epoch.
    pub epoch: Epoch,
    /// How long a git step may take, in milliseconds.
    pub git_timeout_ms: u64,
    /// From TERM to KILL for git steps, in milliseconds.
    pub git_grace_ms: u64,
    /// How long to wait before looking again at an execution whose supervisor does not answer, in milliseconds.
    pub readopt_ms: u64,
    /// How often a launch that never ran is tried again.
    pub max_void_places: u32,
    /// Who commits are by where the repository does not say.
    pub identity: Identity,
}

/// Names a request that waits for a reply. Not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What is fed to the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Somebody asks for something.
    Request {
        /// Whom to answer.
        id: RequestId,
        /// What they ask for.
        request: Request,
    },
    /// Something happened.
    Fact(Fact),
}

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Record the new attempt of this machine and its first execution.
    Run {
        /// The first execution, queued.
        execution: Box<ExecutionRecord>,
        /// The key that it was asked for with.
        key: RequestRecord,
        /// A slot has been taken for it.
        admitted: bool,
    },
    /// Start one more execution beside the chain.
    Start {
        /// The execution, queued.
        execution: Box<ExecutionRecord>,
        /// The key that it was asked for with.
        key: RequestRecord,
        /// A slot has been taken for it.
        admitted: bool,
    },
    /// Stop one execution, or all of the attempt.
    Stop {
        /// Which; `None` is all.
        execution: Option<ExecutionId>,
        /// Why.
        cause: StopCause,
        /// From TERM to KILL; `None` is the execution's own.
        grace_ms: Option<u64>,
    },
    /// Commit what is dirty.
    Commit {
        /// The message.
        message: String,
    },
    /// Remove the workspace.
    Remove {
        /// Stop what runs in it first.
        force: bool,
    },
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A host took the attempt over; everything is to be looked at.
    Recovered,
    /// The time of a [`Effect::WakeAt`] has come.
    Woke,
    /// A slot was granted.
    Admitted(Slot),
    /// The worktree is there.
    WorktreeCreated {
        /// Its commit.
        head: Oid,
    },
    /// The worktree could not be made; nothing of it is left.
    WorktreeFailed {
        /// What to tell people.
        message: String,
    },
    /// There is room for a start, and the workspace is the right one.
    Prepared {
        /// The execution.
        execution: ExecutionId,
        /// The room.
        place: Place,
        /// The commit of the workspace, if it is a worktree.
        head: Option<Oid>,
    },
    /// There is no room, or the workspace is not the right one.
    PrepareFailed {
        /// The execution.
        execution: ExecutionId,
        /// Why it will not start.
        reason: NotStarted,
        /// The same for people.
        message: String,
    },
    /// A secret that the execution needs is gone with a former host.
    SecretMissing {
        /// The execution.
        execution: ExecutionId,
        /// The variable.
        name: String,
    },
    /// Secrets were handed in again.
    SecretsGiven {
        /// The execution.
        execution: ExecutionId,
    },
    /// The launch came to an end.
    Launched {
        /// The execution.
        execution: ExecutionId,
        /// What became of it.
        launched: Launched,
    },
    /// The outcome is known.
    Exited {
        /// The execution.
        execution: ExecutionId,
        /// The outcome.
        report: ExitReport,
    },
    /// Nothing of the execution will change any more.
    Finished {
        /// The execution.
        execution: ExecutionId,
        /// What is known of its end.
        report: FinalReport,
        /// The last of its output.
        preview: Option<String>,
        /// The commit of the workspace after it.
        head: Option<Oid>,
    },
    /// Its evidence was looked at.
    Adopted {
        /// The execution.
        execution: ExecutionId,
        /// What it says.
        adoption: Adoption,
    },
    /// An operation on the execution failed without telling whether it had an effect.
    InDoubt {
        /// The execution.
        execution: ExecutionId,
        /// What went wrong.
        message: String,
    },
    /// How to commit is known.
    CommitPlanned {
        /// HEAD, if there is nothing to commit.
        clean: Option<Oid>,
        /// The step to run, with an id for its execution.
        step: Option<(ExecutionId, GitStep)>,
    },
    /// How to commit could not be found out.
    CommitRefused {
        /// What to tell people.
        message: String,
    },
    /// The worktree is gone.
    WorktreeRemoved,
    /// The worktree was not removed; it is as it was.
    RemoveRefused {
        /// Why.
        refusal: Refusal,
    },
}

/// What a slot is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// The chain of an attempt, from its first start to its end.
    Chain(AttemptId),
    /// One execution beside the chain.
    Execution(ExecutionId),
}

/// Something that the driver must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Store these durably before performing any later effect of this attempt.
    Persist {
        /// One batch.
        writes: Vec<Write>,
    },
    /// Begin an operation; its end comes back as a fact.
    Begin(Operation),
    /// Feed [`Fact::Woke`] at or after this time.
    WakeAt(Timestamp),
    /// Answer a request.
    Reply {
        /// Which.
        request: RequestId,
        /// With what.
        reply: Reply,
    },
}

/// Something that takes time. Safe to begin twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Take a slot; [`Fact::Admitted`] comes when there is one.
    TakeSlot {
        /// For what.
        slot: Slot,
        /// Of which client.
        owner: Option<String>,
        /// It runs already and counts, whatever the limits say.
        adopted: bool,
    },
    /// Give a slot back.
    ReleaseSlot(Slot),
    /// Make the worktree.
    CreateWorktree(Worktree),
    /// Verify the workspace and make room for a start.
    Prepare {
        /// For which execution.
        execution: Box<ExecutionRecord>,
        /// Where it will run.
        workspace: Workspace,
    },
    /// Start the command in its place.
    Launch {
        /// Which execution; it has a place.
        execution: Box<ExecutionRecord>,
        /// Where it runs.
        workspace: Workspace,
    },
    /// Wait for the outcome.
    AwaitExit {
        /// Of which execution.
        execution: ExecutionId,
        /// Its place.
        place: Place,
    },
    /// Wait until nothing changes any more; then look at the log's end and the workspace.
    Finish {
        /// Of which execution.
        execution: ExecutionId,
        /// Its place.
        place: Place,
        /// The worktree it ran in, if it is one.
        worktree: Option<Worktree>,
    },
    /// Look at the evidence.
    Adopt {
        /// Of which execution.
        execution: ExecutionId,
        /// Its place.
        place: Place,
    },
    /// Ask for a stop.
    Stop {
        /// Of which execution.
        execution: ExecutionId,
        /// Its place.
        place: Place,
        /// How.
        request: StopRequest,
    },
    /// Remove a place that was never used.
    Discard {
        /// Of which execution.
        execution: ExecutionId,
        /// The place.
        place: Place,
    },
    /// Find out how to commit.
    PlanCommit {
        /// Where.
        worktree: Worktree,
        /// With which message.
        message: String,
        /// By whom, if the repository does not say.
        identity: Identity,
    },
    /// Remove the worktree.
    RemoveWorktree(Worktree),
}

/// Which rule refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCode {
    /// Executions run in the workspace.
    Busy,
    /// The workspace is being removed, is gone or was never made.
    WorkspaceGone,
    /// What is there is not the recorded worktree.
    WorkspaceMismatch,
    /// Something in the worktree exists nowhere else.
    Unsaved,
    /// The directory is the user's.
    NotAWorktree,
    /// There is no such execution in this attempt.
    NoExecution,
    /// The repository is in use by another process.
    RepositoryBusy,
    /// Anything else that git or a backend said.
    Failed,
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which rule.
    pub code: RefusalCode,
    /// What to tell people.
    pub message: String,
}

/// What a request is answered with. It is sent after everything that it claims is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It is recorded and will be done.
    Accepted,
    /// There was nothing to commit.
    Clean,
    /// This git execution commits.
    Committing(ExecutionId),
    /// The workspace is gone.
    Removed,
    /// It will not be done.
    Refused(Refusal),
}

/// One execution as the machine knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tracked {
    pub(crate) record: ExecutionRecord,
    /// 0: not stored yet.
    revision: Revision,
    /// A slot is held for it (its own or the chain's).
    admitted: bool,
    /// What is under way for it.
    step: ExecutionStep,
}

/// What is under way for an execution. Not recorded: the phase and the evidence tell it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExecutionStep {
    /// It waits for a slot, its workspace or a secret.
    Waiting,
    /// Room is being made.
    Preparing,
    /// It is being launched.
    Launching,
    /// Its evidence is being looked at.
    Adopting,
    /// Its supervisor did not answer; to be looked at again at this time.
    Retry(Timestamp),
    /// Its outcome is awaited.
    Watching,
    /// Its end is awaited.
    Finishing,
    /// Nothing is known and nothing can be done.
    Stuck,
    /// Nothing is left to do.
    Done,
}

/// One attempt and those of its executions that are not final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    attempt: AttemptRecord,
    revision: Revision,
    executions: BTreeMap<ExecutionId, Tracked>,
    /// The worktree is being made, planned on or removed.
    workspace_step: WorkspaceStep,
    /// Who waits for the end of a removal or for the plan of a commit.
    waiting: Vec<RequestId>,
}

/// What is under way for the workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WorkspaceStep {
    Idle,
    Creating,
    Planning,
    Removing,
}

/// What a step leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "effects that are dropped never happen"]
pub struct Step {
    /// The state after it.
    pub state: State,
    /// What to do, in order.
    pub effects: Vec<Effect>,
}

/// Collects what a step writes and does. Writes of one step are one batch.
struct Turn<'a> {
    config: &'a Config,
    at: Timestamp,
    /// Effects that need not wait for the batch.
    before: Vec<Effect>,
    attempt_changed: bool,
    changed: Vec<ExecutionId>,
    key: Option<RequestRecord>,
    /// Effects that wait for the batch.
    after: Vec<Effect>,
}

impl Turn<'_> {
    fn begin(&mut self, operation: Operation) {
        self.after.push(Effect::Begin(operation));
    }

    /// Begins something that only observes and so need not wait for the batch.
    fn begin_at_once(&mut self, operation: Operation) {
        self.before.push(Effect::Begin(operation));
    }

    fn touch(&mut self, execution: ExecutionId) {
        if !self.changed.contains(&execution) {
            self.changed.push(execution);
        }
    }

    fn reply(&mut self, request: RequestId, reply: Reply) {
        self.after.push(Effect::Reply { request, reply });
    }

    fn refuse(&mut self, request: RequestId, code: RefusalCode, message: impl Into<String>) {
        let refusal = Refusal { code, message: message.into() };
        self.reply(request, Reply::Refused(refusal));
    }
}

impl State {
    /// Makes the machine of an attempt that is not recorded yet.
    #[must_use]
    pub fn new(attempt: AttemptRecord) -> Self {
        Self::load(attempt, Revision(0), Vec::new())
    }

    /// Makes the machine from records: the attempt, those of its executions that are not final, and the one whose work is
    /// being committed.
    #[must_use]
    pub fn load(
        attempt: AttemptRecord,
        revision: Revision,
        executions: Vec<(ExecutionRecord, Revision)>,
    ) -> Self {
        let tracked = |(record, revision): (ExecutionRecord, Revision)| {
            let step = ExecutionStep::Waiting;
            (record.id, Tracked { record, revision, admitted: false, step })
        };
        Self {
            attempt,
            revision,
            executions: executions.into_iter().map(tracked).collect(),
            workspace_step: WorkspaceStep::Idle,
            waiting: Vec::new(),
        }
    }

    /// Returns the attempt as it will be once all effects so far are performed.
    #[must_use]
    pub fn attempt(&self) -> &AttemptRecord {
        &self.attempt
    }

    /// Returns the executions that are not final, likewise.
    pub fn executions(&self) -> impl Iterator<Item = &ExecutionRecord> {
        self.executions.values().map(|tracked| &tracked.record)
    }

    /// Says whether nothing is under way, so that the machine may be dropped and loaded again later.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.executions.is_empty()
            && self.workspace_step == WorkspaceStep::Idle
            && self.waiting.is_empty()
    }

    /// Says whether an execution is known and not final.
    fn is_active(&self, id: ExecutionId) -> bool {
        self.executions.get(&id).is_some_and(|tracked| tracked.record.phase < Phase::Final)
    }

    /// Takes one input.
    pub fn step(mut self, config: &Config, at: Timestamp, input: Input) -> Step {
        let mut turn = Turn {
            config,
            at,
            before: Vec::new(),
            attempt_changed: false,
            changed: Vec::new(),
            key: None,
            after: Vec::new(),
        };
        match input {
            Input::Request { id, request } => self.on_request(&mut turn, id, request),
            Input::Fact(fact) => self.on_fact(&mut turn, fact),
        }
        self.finish(turn)
    }

    fn on_request(&mut self, turn: &mut Turn<'_>, id: RequestId, request: Request) {
        match request {
            Request::Run { execution, key, admitted } => {
                self.on_run(turn, id, *execution, key, admitted);
            }
            Request::Start { execution, key, admitted } => {
                self.on_start(turn, id, *execution, key, admitted);
            }
            Request::Stop { execution, cause, grace_ms } => {
                self.on_stop(turn, id, execution, cause, grace_ms);
            }
            Request::Commit { message } => self.on_commit(turn, id, message),
            Request::Remove { force } => self.on_remove(turn, id, force),
        }
    }

    fn on_fact(&mut self, turn: &mut Turn<'_>, fact: Fact) {
        match fact {
            Fact::Recovered => self.on_recovered(turn),
            Fact::Woke => self.on_woke(turn),
            Fact::Admitted(slot) => self.on_admitted(turn, slot),
            Fact::WorktreeCreated { head } => self.on_worktree_created(turn, head),
            Fact::WorktreeFailed { message } => self.on_worktree_failed(turn, message),
            Fact::Prepared { execution, place, head } => {
                self.on_prepared(turn, execution, place, head);
            }
            Fact::PrepareFailed { execution, reason, message } => {
                self.on_not_started(turn, execution, reason, message);
            }
            Fact::SecretMissing { execution, name } => {
                self.on_secret_missing(turn, execution, &name);
            }
            Fact::SecretsGiven { execution } => self.on_secrets_given(turn, execution),
            Fact::Launched { execution, launched } => self.on_launched(turn, execution, launched),
            Fact::Exited { execution, report } => self.on_exited(turn, execution, report),
            Fact::Finished { execution, report, preview, head } => {
                self.on_finished(turn, execution, report, preview, head);
            }
            Fact::Adopted { execution, adoption } => self.on_adopted(turn, execution, adoption),
            Fact::InDoubt { execution, message } => self.on_in_doubt(turn, execution, message),
            Fact::CommitPlanned { clean, step } => self.on_commit_planned(turn, clean, step),
            Fact::CommitRefused { message } => self.on_commit_refused(turn, message),
            Fact::WorktreeRemoved => self.on_worktree_removed(turn),
            Fact::RemoveRefused { refusal } => self.on_remove_refused(turn, refusal),
        }
    }

    /// Turns what was collected into effects: what need not wait, one batch, what waits for it.
    fn finish(mut self, mut turn: Turn<'_>) -> Step {
        let mut writes = Vec::new();
        if turn.attempt_changed {
            self.attempt.host = turn.config.host;
            self.attempt.epoch = turn.config.epoch;
            writes.push(put(&self.attempt, &mut self.revision));
        }
        for id in &turn.changed {
            if let Some(tracked) = self.executions.get_mut(id) {
                writes.push(put(&tracked.record, &mut tracked.revision));
            }
        }
        if let Some(key) = turn.key.take() {
            writes.push(Write::Put { record: key.encode(), expect: Expect::Absent });
        }
        let mut effects = turn.before;
        if !writes.is_empty() {
            effects.push(Effect::Persist { writes });
        }
        effects.extend(turn.after);
        // The one whose work is being committed is written once more when it is.
        let committing = self.attempt.committing;
        self.executions
            .retain(|id, tracked| tracked.record.phase != Phase::Final || committing == Some(*id));
        Step { state: self, effects }
    }
}

/// Writes a record on top of what is stored and counts the revision up, as the store will.
fn put<T: Recorded>(value: &T, revision: &mut Revision) -> Write {
    let expect = match *revision {
        Revision(0) => Expect::Absent,
        stored => Expect::At(stored),
    };
    revision.0 += 1;
    Write::Put { record: value.encode(), expect }
}

/// The environment variable that marks the processes of an execution.
pub const EXECUTION_MARK: &str = "WINDLASS_EXECUTION_ID";

/// Returns what a digest of a request is made of: the same request gives the same digest.
#[must_use]
pub fn digest(canonical: &[u8]) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, canonical)
}
