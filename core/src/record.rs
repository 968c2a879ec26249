//! What the records of a store mean: the bodies, and the only code that reads and writes them.

mod follow_up;
mod history;
mod making;
mod phase;
mod project;
mod reason;
mod removing;
mod request;
mod resetting;
mod retry;
mod task;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::action::{Action, RunOptions};
use crate::attachments::Attachment;
use crate::container_service::{Place, StopCause};
use crate::execution::{ExitReport, Survivor};
use crate::id::{AttemptId, Epoch, ExecutionId, FollowUpId, HostId, NodeId, TaskId};
use crate::locator::Locator;
use crate::outcome::{Exit, Outcome};
use crate::process_store::{Kind, Record, RecordKey};
use crate::time::Timestamp;
use crate::vcs_worktree::Removed;
use crate::workspace::{Oid, Workspace};

pub use follow_up::{FollowUpRecord, FollowUpState, Hold};
pub use history::{AttemptHistory, HalfMerged, Integration, PullRequest, PullRequestState};
pub use making::Making;
pub use phase::Phase;
pub use project::{ProjectDefaults, ProjectRecord};
pub use reason::Reason;
pub use removing::Removing;
pub use request::{RequestRecord, request_id};
pub use resetting::Resetting;
pub use retry::Retry;
pub use task::TaskRecord;

/// The version of the bodies that this code writes.
pub const BODY_VERSION: u32 = 1;

/// Where an attempt is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptStatus {
    /// Its workspace is being made.
    Creating,
    /// Its workspace is there and nothing of its chain has started.
    Ready,
    /// An execution of its chain is queued, starting, running or stopping.
    Running,
    /// What the chain left is being committed, or saved where the chain did not end well.
    Committing,
    /// It ended and waits for somebody; [`AttemptRecord::reason`] says why.
    Held,
    /// It waits for a time.
    Parked,
    /// It ended.
    Finished,
    /// Its workspace is being removed.
    Removing,
    /// Its workspace is gone.
    Removed,
    /// Its workspace could not be made; [`AttemptRecord::reason`] says why.
    Failed,
}

impl AttemptStatus {
    /// Every status.
    pub const ALL: [Self; 10] = [
        Self::Creating,
        Self::Ready,
        Self::Running,
        Self::Committing,
        Self::Held,
        Self::Parked,
        Self::Finished,
        Self::Removing,
        Self::Removed,
        Self::Failed,
    ];

    /// Returns the word that is stored and printed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Committing => "committing",
            Self::Held => "held",
            Self::Parked => "parked",
            Self::Finished => "finished",
            Self::Removing => "removing",
            Self::Removed => "removed",
            Self::Failed => "failed",
        }
    }
}

/// What happens to changes when the chain ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommitPolicy {
    /// They are committed.
    Commit,
    /// They stay in the worktree.
    Keep,
}

/// A durable statement that the workspace is being taken away or rewritten; nothing starts in it meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Claim {
    /// It is being removed.
    Remove,
}

/// One try in its own workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// Its id.
    pub id: AttemptId,
    /// The task that it belongs to; `None` for a run.
    pub task: Option<TaskId>,
    /// What people call it.
    pub title: String,
    /// The client it belongs to.
    pub owner: Option<String>,
    /// Where it is in its life.
    pub status: AttemptStatus,
    /// Why, if it is held or failed.
    pub reason: Option<Reason>,
    /// The directory that its executions run in.
    pub workspace: Workspace,
    /// What happens to changes when the chain ended well.
    pub commit: CommitPolicy,
    /// The execution of the chain that is active, if any. It holds the chain's slot until the chain is finalised.
    pub chain: Option<ExecutionId>,
    /// The execution whose changes are being committed; `None` for a commit that somebody asked for.
    pub committing: Option<ExecutionId>,
    /// The message of the commit that is under way.
    pub commit_message: Option<String>,
    /// How often the current commit was tried.
    pub commit_tries: u32,
    /// The chain's slot is held: something of it was started and it is not finalised.
    pub slot: bool,
    /// A stop binds the chain: nothing of it starts any more.
    pub chain_stopped: bool,
    /// The claim on its workspace.
    pub claim: Option<Claim>,
    /// The status to go back to when the claim is given up.
    pub claimed_from: Option<AttemptStatus>,
    /// HEAD as it was last seen.
    pub head: Option<Oid>,
    /// The machine it is on.
    pub node: NodeId,
    /// The host that wrote it last.
    pub host: HostId,
    /// Its epoch.
    pub epoch: Epoch,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its workspace was removed.
    pub removed_at: Option<Timestamp>,
    /// The removal that is under way.
    #[serde(default)]
    pub removal: Option<Removing>,
    /// What its worktree was when it was removed: from this it is made again.
    #[serde(default)]
    pub removed: Option<Removed>,
    /// The status to go back to when its worktree is made again.
    #[serde(default)]
    pub removed_from: Option<AttemptStatus>,
    /// The removal that failed after the work was saved: parts of the worktree may still be aside. The next request to
    /// remove it goes on with this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half_removed: Option<Removing>,
    /// What its worktree is being made again from.
    #[serde(default)]
    pub restoring: Option<Removed>,
    /// What checks out the files of its worktree, while that is being made and hooks or filters have a part in it.
    #[serde(default)]
    pub making: Option<Making>,
    /// The number of its newest snapshot, gone or not; 0 if there was none.
    #[serde(default)]
    pub last_snapshot: u32,
    /// Its worktree was found to be gone though nobody asked us to remove it.
    #[serde(default)]
    pub missing: bool,
    /// Its worktree stays, however long nothing happens in it.
    #[serde(default)]
    pub keep: bool,
    /// Why the chain ends, while what it left is being saved.
    #[serde(default)]
    pub ending: Option<Reason>,
    /// What the worktree is being put back to, once what is in it is saved, before the chain ends.
    #[serde(default)]
    pub resetting: Option<Resetting>,
    /// The try that begins once the worktree is put back.
    #[serde(default)]
    pub retry: Option<Retry>,
    /// The executions of the active chain that came before the active one, in order.
    #[serde(default)]
    pub chain_before: Vec<ExecutionId>,
    /// How many messages were ever sent to it.
    #[serde(default)]
    pub follow_ups: u64,
    /// How many of them wait.
    #[serde(default)]
    pub queue: u32,
    /// Why nothing of its queue starts.
    #[serde(default)]
    pub queue_held: Option<Hold>,
    /// The message that the active chain is about.
    #[serde(default)]
    pub follow_up: Option<FollowUpId>,
    /// Why what the last chain left could not be saved: it is in the worktree only.
    #[serde(default)]
    pub not_saved: Option<String>,
    /// When the first execution of the chain that is active began to run.
    #[serde(default)]
    pub chain_started_at: Option<Timestamp>,
    /// When its chain was finalised last.
    #[serde(default)]
    pub finalised_at: Option<Timestamp>,
    /// When its work was merged last.
    #[serde(default)]
    pub merged_at: Option<Timestamp>,
    /// Where its commits are, and what is being done with them.
    #[serde(default)]
    pub history: AttemptHistory,
    /// The first of its own ports; `None` if it was made where none were given out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port_base: Option<u16>,
    /// The files that were handed to it, which are put into its worktree before anything starts there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
}

/// The sums of a log, recorded when it is sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSummary {
    /// The last number.
    pub last_seq: u64,
    /// Payload bytes, the dropped ones included.
    pub bytes: u64,
    /// Payload bytes counted in gaps.
    pub dropped_bytes: u64,
}

/// A stop that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopIntent {
    /// Why.
    pub cause: StopCause,
    /// From TERM to KILL.
    pub grace_ms: u64,
    /// When it was accepted.
    pub at: Timestamp,
}

/// One start of one action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutionRecord {
    /// Its id.
    pub id: ExecutionId,
    /// The attempt it runs in.
    pub attempt: AttemptId,
    /// The client it belongs to.
    pub owner: Option<String>,
    /// The key of the request that asked for it.
    pub client_key: Option<String>,
    /// What it runs, and what follows.
    pub action: Action,
    /// How.
    pub options: RunOptions,
    /// The repository whose lock it holds, for a git step.
    pub repository_lock: Option<Locator>,
    /// Where it runs.
    pub cwd: Locator,
    /// Where it is in its life.
    pub phase: Phase,
    /// The evidence, once there is room for it.
    pub place: Option<Place>,
    /// How often a place was used up without a start by a host that lived to see it.
    pub void_places: u32,
    /// The accepted stop.
    pub stop: Option<StopIntent>,
    /// The command's process number while it runs; for people.
    pub pid: Option<u32>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// What the kernel saw.
    pub exit: Option<Exit>,
    /// The message that is written to its standard input, which is closed behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The files that the message means first where it links to names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
    /// What to tell people about a bad outcome, for example the name of the missing program.
    pub message: Option<String>,
    /// The variable whose secret value it waits for.
    #[serde(default)]
    pub missing_secret: Option<String>,
    /// The rest of what was known at its end.
    pub report: Option<ExitReport>,
    /// HEAD of the worktree before it.
    pub before_head: Option<Oid>,
    /// HEAD of the worktree after it.
    pub after_head: Option<Oid>,
    /// The commit that saved its changes.
    pub committed: Option<Oid>,
    /// The sums of its log.
    pub log: Option<LogSummary>,
    /// The last of both streams, lossy, at most 2 KiB.
    pub preview: Option<String>,
    /// What outlived it.
    pub survivors: Vec<Survivor>,
    /// How many more outlived it.
    pub more_survivors: u32,
    /// Its log lacks output.
    pub output_incomplete: bool,
    /// The execution that was run instead.
    pub superseded_by: Option<ExecutionId>,
    /// The execution that follows it in its chain, once that is recorded.
    #[serde(default)]
    pub followed_by: Option<ExecutionId>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it began to run.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// What a new execution is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewExecution {
    /// Its id.
    pub id: ExecutionId,
    /// The attempt it runs in.
    pub attempt: AttemptId,
    /// The client it belongs to.
    pub owner: Option<String>,
    /// The key of the request that asked for it.
    pub client_key: Option<String>,
    /// What it runs, and what follows.
    pub action: Action,
    /// How.
    pub options: RunOptions,
    /// The repository whose lock it holds, for a git step.
    pub repository_lock: Option<Locator>,
    /// Where it runs.
    pub cwd: Locator,
    /// When it was asked for.
    pub at: Timestamp,
}

impl ExecutionRecord {
    /// Makes the record of an execution that waits to be started.
    #[must_use]
    pub fn queued(new: NewExecution) -> Self {
        Self {
            id: new.id,
            attempt: new.attempt,
            owner: new.owner,
            client_key: new.client_key,
            action: new.action,
            options: new.options,
            repository_lock: new.repository_lock,
            cwd: new.cwd,
            phase: Phase::Queued,
            place: None,
            void_places: 0,
            stop: None,
            pid: None,
            outcome: None,
            exit: None,
            text: None,
            attachments: Vec::new(),
            message: None,
            missing_secret: None,
            report: None,
            before_head: None,
            after_head: None,
            committed: None,
            log: None,
            preview: None,
            survivors: Vec::new(),
            more_survivors: 0,
            output_incomplete: false,
            superseded_by: None,
            followed_by: None,
            created_at: new.at,
            started_at: None,
            ended_at: None,
        }
    }
}

/// What a new attempt is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAttempt {
    /// Its id.
    pub id: AttemptId,
    /// What people call it.
    pub title: String,
    /// The client it belongs to.
    pub owner: Option<String>,
    /// The directory that its executions run in.
    pub workspace: Workspace,
    /// What happens to changes when the chain ended well.
    pub commit: CommitPolicy,
    /// The machine it is on.
    pub node: NodeId,
    /// The host that makes it.
    pub host: HostId,
    /// Its epoch.
    pub epoch: Epoch,
    /// When it was asked for.
    pub at: Timestamp,
}

impl AttemptRecord {
    /// Makes the record of a run: a worktree is still to be made, a directory is there.
    #[must_use]
    pub fn new(new: NewAttempt) -> Self {
        let status = match new.workspace {
            Workspace::Worktree(_) => AttemptStatus::Creating,
            Workspace::Directory { .. } => AttemptStatus::Ready,
        };
        Self {
            id: new.id,
            task: None,
            title: new.title,
            owner: new.owner,
            status,
            reason: None,
            workspace: new.workspace,
            commit: new.commit,
            chain: None,
            committing: None,
            commit_message: None,
            commit_tries: 0,
            slot: false,
            chain_stopped: false,
            claim: None,
            claimed_from: None,
            head: None,
            node: new.node,
            host: new.host,
            epoch: new.epoch,
            created_at: new.at,
            removed_at: None,
            removal: None,
            removed: None,
            removed_from: None,
            half_removed: None,
            restoring: None,
            making: None,
            last_snapshot: 0,
            missing: false,
            keep: false,
            ending: None,
            resetting: None,
            retry: None,
            chain_before: Vec::new(),
            follow_ups: 0,
            queue: 0,
            queue_held: None,
            follow_up: None,
            not_saved: None,
            chain_started_at: None,
            finalised_at: None,
            merged_at: None,
            history: AttemptHistory::default(),
            port_base: None,
            attachments: Vec::new(),
        }
    }
}

/// Why a body cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It was written by a newer version.
    #[error("written by a newer version ({found}; this one knows {BODY_VERSION})")]
    Newer {
        /// The version that was found.
        found: u32,
    },
    /// It is not what it should be.
    #[error("not readable")]
    Malformed(#[source] serde_json::Error),
}

/// Writes a value as a JSON object whose first field is the version of the bodies.
fn versioned<T: Serialize>(value: &T) -> serde_json::Result<String> {
    let mut body = format!("{{\"v\":{BODY_VERSION}").into_bytes();
    let own = body.len();
    serde_json::to_writer(&mut body, value)?;
    // Where its own fields begin.
    body[own] = b',';
    String::from_utf8(body).map_err(serde::ser::Error::custom)
}

/// A value that is kept as a record.
pub trait Recorded: Serialize + DeserializeOwned {
    /// Its kind.
    const KIND: Kind;

    /// Returns the record's fields that stores select by: id, parent, owner, state, time.
    fn fields(&self) -> (Uuid, Option<Uuid>, Option<&str>, &'static str, Timestamp);

    /// Returns the name of its record.
    fn key(&self) -> RecordKey {
        RecordKey { kind: Self::KIND, id: self.fields().0 }
    }

    /// Makes the record.
    fn encode(&self) -> Record {
        let (id, parent, owner, state, at) = self.fields();
        Record {
            key: RecordKey { kind: Self::KIND, id },
            parent,
            owner: owner.map(str::to_owned),
            state: state.to_owned(),
            at,
            // Maps have string keys and no value refuses to be serialized, so this cannot fail.
            body: versioned(self).unwrap_or_default(),
        }
    }

    /// Reads the record back.
    ///
    /// # Errors
    ///
    /// [`DecodeError`].
    fn decode(record: &Record) -> Result<Self, DecodeError> {
        let version = version_of(&record.body).map_err(DecodeError::Malformed)?;
        if version > BODY_VERSION {
            return Err(DecodeError::Newer { found: version });
        }
        serde_json::from_str(&record.body).map_err(DecodeError::Malformed)
    }
}

/// Reads the version of a body. It comes first where we wrote it; anywhere else the whole body is read for it.
fn version_of(body: &str) -> serde_json::Result<u32> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    let first = body.strip_prefix(r#"{"v":"#).and_then(|rest| rest.split_once(','));
    match first.and_then(|(version, _)| version.parse().ok()) {
        Some(version) => Ok(version),
        None => serde_json::from_str::<Version>(body).map(|version| version.v),
    }
}

impl Recorded for AttemptRecord {
    const KIND: Kind = Kind::Attempt;

    fn fields(&self) -> (Uuid, Option<Uuid>, Option<&str>, &'static str, Timestamp) {
        let parent = self.task.map(|task| task.0);
        (self.id.0, parent, self.owner.as_deref(), self.status.as_str(), self.created_at)
    }
}

impl Recorded for ExecutionRecord {
    const KIND: Kind = Kind::Execution;

    fn fields(&self) -> (Uuid, Option<Uuid>, Option<&str>, &'static str, Timestamp) {
        let parent = Some(self.attempt.0);
        (self.id.0, parent, self.owner.as_deref(), self.phase.as_str(), self.created_at)
    }
}
