//! What the machine asks for: effects, operations and replies.

use crate::action::RunReason;
use crate::attachments::Attachment;
use crate::container_service::{Place, StopRequest};
use crate::id::{AttemptId, ExecutionId};
use crate::process_store::Write;
use crate::record::ExecutionRecord;
use crate::snapshot::SnapshotNumber;
use crate::time::Timestamp;
use crate::vcs_history::{Conclusion, HistoryRequest};
use crate::vcs_worktree::{CreateMode, GitWork, Origin, SaveRequest};
use crate::workspace::{Workspace, Worktree};

/// Names a request that waits for a reply. Not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What a slot is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// The chain of an attempt, from its first start to its end.
    Chain(AttemptId),
    /// One execution beside the chain.
    Execution(ExecutionId),
    /// One dev server; these have a limit of their own.
    DevServer(ExecutionId),
}

impl Slot {
    /// Names the slot that an execution runs in.
    #[must_use]
    pub fn of(record: &ExecutionRecord) -> Self {
        match record.action.run_reason {
            RunReason::Setup | RunReason::Agent | RunReason::Cleanup | RunReason::Git => {
                Self::Chain(record.attempt)
            }
            RunReason::Background => Self::Execution(record.id),
            RunReason::DevServer => Self::DevServer(record.id),
        }
    }
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
    /// Feed [`Fact::Woke`](super::Fact::Woke) at or after this time.
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
    /// Take a slot; [`Fact::Admitted`](super::Fact::Admitted) comes when there is one.
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
    /// Make the worktree, or make it again, or put it back.
    CreateWorktree {
        /// Which.
        worktree: Box<Worktree>,
        /// From what.
        origin: Origin,
        /// Whether it begins, or its step has ended.
        mode: CreateMode,
    },
    /// Verify the workspace and make room for a start.
    Prepare {
        /// For which execution.
        execution: Box<ExecutionRecord>,
        /// Where it will run.
        workspace: Box<Workspace>,
        /// What is to be there before.
        attachments: Vec<Attachment>,
    },
    /// Start the command in its place.
    Launch {
        /// Which execution; it has a place.
        execution: Box<ExecutionRecord>,
        /// Where it runs.
        workspace: Box<Workspace>,
        /// The first of the attempt's own ports.
        port_base: Option<u16>,
        /// What was put there before.
        attachments: Vec<Attachment>,
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
        worktree: Option<Box<Worktree>>,
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
    /// Write its message to standard input and close it. Written once, however often it is begun.
    Feed {
        /// Of which execution.
        execution: ExecutionId,
    },
    /// Remove a place that was never used.
    Discard {
        /// Of which execution.
        execution: ExecutionId,
        /// The place.
        place: Place,
    },
    /// Find out how to commit, or how to put the worktree back to a commit.
    PlanStep {
        /// Where.
        worktree: Box<Worktree>,
        /// What is to be done.
        work: GitWork,
    },
    /// Find out how to do something with the worktree's commits.
    PlanHistory {
        /// Of which worktree.
        worktree: Box<Worktree>,
        /// What is to be done.
        request: Box<HistoryRequest>,
    },
    /// Look what came of it.
    ConcludeHistory {
        /// Of which worktree.
        worktree: Box<Worktree>,
        /// What was to be done.
        request: Box<HistoryRequest>,
    },
    /// Save what exists nowhere else.
    Save {
        /// Of which worktree.
        worktree: Box<Worktree>,
        /// How.
        request: SaveRequest,
    },
    /// Remove the worktree that was saved.
    RemoveWorktree {
        /// Which.
        worktree: Box<Worktree>,
        /// Its branch goes too.
        delete_branch: bool,
    },
    /// Remove a snapshot.
    RemoveSnapshot {
        /// Of which worktree.
        worktree: Box<Worktree>,
        /// Its number.
        number: SnapshotNumber,
    },
}

/// Which rule refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCode {
    /// Executions run in the workspace.
    Busy,
    /// The attempt has a dev server.
    DevServerRuns,
    /// The workspace is being removed, is gone or was never made.
    WorkspaceGone,
    /// What is there is not the recorded worktree.
    WorkspaceMismatch,
    /// Something in the worktree exists nowhere else and cannot be saved.
    Unsaved,
    /// A rebase, merge or the like is in progress in the worktree, or it is locked.
    Unfinished,
    /// The directory is the user's.
    NotAWorktree,
    /// There is no such execution in this attempt.
    NoExecution,
    /// The repository is in use by another process.
    RepositoryBusy,
    /// The repository is not where it was.
    RepositoryGone,
    /// The attempt is in no state for it.
    WrongState,
    /// The snapshots fill their quota.
    SnapshotQuota,
    /// No such message waits.
    NoFollowUp,
    /// It was decided on for another version.
    Conflict,
    /// As many messages wait as may.
    QueueFull,
    /// There is no such snapshot.
    NoSnapshot,
    /// The snapshot is not what was written.
    DamagedSnapshot,
    /// Something in the worktree, or in a checkout of the target, is not committed.
    Dirty,
    /// The work conflicts with its target.
    MergeConflict,
    /// There is no such branch or remote, or it is not one that the work could go to.
    NoTarget,
    /// There is nothing to do it with.
    NothingToDo,
    /// The host cannot do it at all.
    Unsupported,
    /// There is no room on the disk.
    Full,
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
    /// The worktree is there again.
    Restored,
    /// What was to be done with the commits has come to its end.
    Integrated {
        /// The git execution that did it; `None` if it was so already.
        execution: Option<ExecutionId>,
        /// What came of it.
        conclusion: Conclusion,
    },
    /// It will not be done.
    Refused(Refusal),
}
