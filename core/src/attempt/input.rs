//! What is fed to the machine: requests and facts.

use crate::container_service::{Adoption, Launched, Place, StopCause};
use crate::execution::{ExitReport, FinalReport};
use crate::id::{ExecutionId, FollowUpId};
use crate::outcome::NotStarted;
use crate::process_store::Revision;
use crate::record::{ExecutionRecord, FollowUpRecord, PullRequestState, RequestRecord};
use crate::snapshot::{Snapshot, SnapshotCause, SnapshotNumber};
use crate::vcs_history::{Conclusion, HistoryPlan, HistoryWork};
use crate::vcs_worktree::{GitStep, Saved};
use crate::workspace::Oid;

use super::effect::{Refusal, RequestId, Slot};
use super::follow_ups::FollowUpChange;

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
    /// Save what was done since an execution, put the worktree back to the commit before it, and run it again.
    Retry {
        /// What is run then, queued; its HEAD before it is the commit.
        execution: Box<ExecutionRecord>,
        /// What it is run instead of; final.
        superseded: Vec<(ExecutionRecord, Revision)>,
        /// The key that it was asked for with.
        key: RequestRecord,
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
    /// Do something with the commits of the worktree.
    Integrate {
        /// What.
        work: HistoryWork,
    },
    /// Change the branch that the work is meant for.
    SetTarget {
        /// The branch, without `refs/heads/`.
        target: String,
    },
    /// Note a pull request, or how it stands by now.
    SetPullRequest {
        /// Where it is.
        url: String,
        /// How it stands; `None` forgets it.
        state: Option<PullRequestState>,
    },
    /// Remove the workspace.
    Remove {
        /// Stop what runs in it first; save an operation in progress.
        force: bool,
        /// Lose what cannot be saved.
        discard_unsaved: bool,
        /// Delete the branch too.
        delete_branch: bool,
        /// Why.
        cause: SnapshotCause,
    },
    /// Make the worktree again as it was when it was removed.
    Restore {
        /// From this snapshot; `None` is what it was removed as.
        snapshot: Option<Box<Snapshot>>,
        /// Its directory was looked for and is gone though nobody asked us to remove it.
        missing: bool,
    },
    /// Remove a snapshot that is recorded.
    RemoveSnapshot {
        /// Its number.
        number: SnapshotNumber,
        /// Also if the removed worktree cannot be made again without it.
        force: bool,
    },
    /// Queue a message, and start it when its turn has come.
    Send {
        /// The message; its position is the machine's to say.
        message: Box<FollowUpRecord>,
    },
    /// Change a message that waits.
    ChangeFollowUp {
        /// Which.
        follow_up: FollowUpId,
        /// The version that it must still be at.
        version: Option<Revision>,
        /// What is to be changed.
        change: FollowUpChange,
    },
    /// Hold the queue, or let it flow.
    HoldQueue {
        /// Whether it is held.
        held: bool,
    },
    /// Note whether the worktree was found to be gone.
    SetMissing {
        /// Whether it was.
        missing: bool,
    },
    /// Note whether the worktree stays, however long nothing happens in it.
    SetKeep {
        /// Whether it does.
        keep: bool,
    },
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A host took the attempt over; everything is to be looked at.
    Recovered,
    /// The time of a [`Effect::WakeAt`](super::Effect::WakeAt) has come.
    Woke,
    /// A slot was granted.
    Admitted(Slot),
    /// The worktree is there.
    WorktreeCreated {
        /// Its commit.
        head: Oid,
    },
    /// The worktree is registered, and its files are for a step that may run the user's code.
    WorktreeNeedsStep {
        /// An id for its execution.
        execution: ExecutionId,
        /// The step.
        step: GitStep,
    },
    /// The worktree could not be made or put back; nothing that was begun is left.
    WorktreeFailed {
        /// Why.
        refusal: Refusal,
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
    /// How to do the next git step is known.
    StepPlanned {
        /// HEAD, if there is nothing to do.
        nothing: Option<Oid>,
        /// The step to run, with an id for its execution.
        step: Option<(ExecutionId, GitStep)>,
    },
    /// How to do the next git step could not be found out.
    StepRefused {
        /// What to tell people.
        message: String,
    },
    /// How to do something with the commits is known.
    HistoryPlanned {
        /// An id for its execution.
        execution: ExecutionId,
        /// How.
        plan: Box<HistoryPlan>,
    },
    /// What came of it is known.
    HistoryConcluded {
        /// What.
        conclusion: Box<Conclusion>,
    },
    /// It could not be found out; nothing was touched by that.
    HistoryRefused {
        /// Why.
        refusal: Refusal,
    },
    /// The worktree is gone.
    WorktreeRemoved,
    /// What was to be removed is saved.
    Saved(Box<Saved>),
    /// Nothing is left of what was to be saved.
    NothingToSave,
    /// It was not saved; the worktree is as it was.
    SaveRefused {
        /// Why.
        refusal: Refusal,
    },
    /// The saved worktree was not removed.
    RemoveRefused {
        /// Why.
        refusal: Refusal,
    },
    /// A snapshot is gone.
    SnapshotRemoved {
        /// Its number.
        number: SnapshotNumber,
    },
    /// A snapshot could not be removed.
    SnapshotKept {
        /// Its number.
        number: SnapshotNumber,
        /// Why.
        refusal: Refusal,
    },
}
