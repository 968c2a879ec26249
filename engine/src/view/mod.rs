//! What clients are shown: the JSON of the command line and of the API, made from core's records.
//!
//! Fields are always present and null where nothing is known. Nothing here reads a store or a clock.

mod diff_event;
mod follow_up;
mod history;
mod kept;
mod log_entry;
mod planned;

use std::time::{Duration, SystemTime};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;
use windlass_core::action::{ActionKind, RunReason};
use windlass_core::attachments::Attachment;
use windlass_core::execution::{Survivor, SurvivorReason};
use windlass_core::id::{AttemptId, ExecutionId, TaskId};
use windlass_core::locator::Locator;
use windlass_core::log_store::LogStatus;
use windlass_core::outcome::{Exit, Outcome};
use windlass_core::process_store::Change;
use windlass_core::record::{
    AttemptRecord, AttemptStatus, ExecutionRecord, Hold, LogSummary, Phase, Reason,
};
use windlass_core::time::Timestamp;
use windlass_core::vcs_worktree::{ChangeKind, FileDiff, WorktreeStatus};
use windlass_core::workspace::{Oid, Workspace};

pub use self::diff_event::{DiffEventKind, DiffEventView};
pub use self::follow_up::FollowUpView;
pub use self::history::{
    HistoryView, IntegratedView, Integrating, IntegrationView, MergedView, PullRequestView,
};
pub use self::kept::{GcItemView, SnapshotView};
pub use self::log_entry::{GapView, LogEntryView};
pub use self::planned::{ProjectView, TaskAttemptView, TaskView};
use crate::handle::HostStatus;

/// The version of the shapes in this module. New fields do not raise it.
pub const SCHEMA: u32 = 1;

/// A point in time, as RFC 3339 in UTC with milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Timestamp);

/// The last millisecond of the year 9999: RFC 3339 has no later one.
const LATEST_MS: u64 = 253_402_300_799_999;

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let since = Duration::from_millis(self.0.0.min(LATEST_MS));
        humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + since).fmt(f)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let at = humantime::parse_rfc3339(&text).map_err(D::Error::custom)?;
        let since = at.duration_since(SystemTime::UNIX_EPOCH).map_err(D::Error::custom)?;
        u64::try_from(since.as_millis()).map(|ms| Self(Timestamp(ms))).map_err(D::Error::custom)
    }
}

/// How an execution ended, with what to tell people about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeView {
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// For people, for example which program is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The sums of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogView {
    /// Entries that were written, those that gaps stand for included: the last number.
    pub entries: u64,
    /// Payload bytes, the dropped ones included.
    pub bytes: u64,
    /// Payload bytes that gaps stand for.
    pub dropped_bytes: u64,
    /// Nothing will be added.
    pub sealed: bool,
}

impl From<LogSummary> for LogView {
    fn from(log: LogSummary) -> Self {
        let LogSummary { last_seq, bytes, dropped_bytes } = log;
        Self { entries: last_seq, bytes, dropped_bytes, sealed: true }
    }
}

impl From<LogStatus> for LogView {
    fn from(log: LogStatus) -> Self {
        let LogStatus { last, bytes, dropped_bytes, sealed, .. } = log;
        Self { entries: last.0, bytes, dropped_bytes, sealed }
    }
}

/// A process that outlived its execution, or how many more did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SurvivorView {
    /// One, by name.
    Named {
        /// Its process number.
        pid: u32,
        /// Its command name.
        name: String,
        /// Why it lives.
        reason: SurvivorReason,
    },
    /// The rest, counted.
    More {
        /// How many.
        more: u32,
    },
}

impl SurvivorView {
    fn list(named: &[Survivor], more: u32) -> Vec<Self> {
        let mut all: Vec<_> = named
            .iter()
            .map(|survivor| Self::Named {
                pid: survivor.pid,
                name: survivor.name.clone(),
                reason: survivor.reason,
            })
            .collect();
        if more > 0 {
            all.push(Self::More { more });
        }
        all
    }
}

/// What a queued execution waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitingFor {
    /// Its workspace is being made.
    Workspace,
    /// A slot among the running executions.
    Slot,
    /// A secret that has no value; its record names it.
    Secret,
}

/// One start of one action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecutionView {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Its id.
    pub id: ExecutionId,
    /// The attempt it runs in.
    pub attempt_id: AttemptId,
    /// The client it belongs to.
    pub owner: Option<String>,
    /// The key of the request that asked for it.
    pub client_key: Option<String>,
    /// Why it runs.
    pub run_reason: RunReason,
    /// What it runs.
    pub action: ActionKind,
    /// Where it runs.
    pub cwd: Locator,
    /// `queued`, `starting`, `running`, `stopping`, then the word of its outcome.
    pub status: String,
    /// How it ended.
    pub outcome: Option<OutcomeView>,
    /// What the kernel saw.
    pub exit: Option<Exit>,
    /// The code that the command line ends with for it.
    pub exit_code: Option<u8>,
    /// The command's process number while it runs.
    pub pid: Option<u32>,
    /// When it was asked for.
    pub created_at: Time,
    /// When it began to run.
    pub started_at: Option<Time>,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// From its start to its end, in milliseconds.
    pub duration_ms: Option<u64>,
    /// Its total run time limit in milliseconds.
    pub timeout_ms: Option<u64>,
    /// How many executions wait for a slot before it.
    pub queue: Option<u32>,
    /// What it waits for while it is queued.
    pub waiting_for: Option<WaitingFor>,
    /// The secret that it waits for.
    #[serde(default)]
    pub missing_secret: Option<String>,
    /// HEAD of the worktree before it.
    pub before_head: Option<Oid>,
    /// HEAD of the worktree after it.
    pub after_head: Option<Oid>,
    /// The commit that saved its changes.
    pub committed: Option<Oid>,
    /// The sums of its log.
    pub log: Option<LogView>,
    /// The last of its output.
    pub preview: Option<String>,
    /// What outlived it.
    pub survivors: Vec<SurvivorView>,
    /// Its log lacks output.
    pub output_incomplete: bool,
    /// The execution that was run instead.
    pub superseded_by: Option<ExecutionId>,
    /// The execution that follows it in its chain, once that is recorded.
    pub followed_by: Option<ExecutionId>,
}

/// What a record of an execution does not say itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExecutionContext {
    /// The sums of a log that is being written.
    pub log: Option<LogView>,
    /// What it waits for.
    pub waiting_for: Option<WaitingFor>,
    /// How many executions wait for a slot before it.
    pub queue: Option<u32>,
}

/// Returns the status word of an execution (`design.md` §4).
#[must_use]
pub fn status_word(record: &ExecutionRecord) -> &'static str {
    match (&record.outcome, record.phase) {
        (Some(outcome), _) => outcome.word().as_str(),
        (None, phase) => phase.as_str(),
    }
}

impl ExecutionView {
    /// Makes the view of a record.
    #[must_use]
    pub fn new(record: &ExecutionRecord, context: ExecutionContext) -> Self {
        // An end that the shim did not see has the host's time, and its clock may have been set back meanwhile.
        let ended_at = record.ended_at.map(|at| at.max(record.started_at.unwrap_or(at)));
        let duration_ms = match (record.started_at, ended_at) {
            (Some(started), Some(ended)) => Some(ended.ms_since(started)),
            _ => None,
        };
        let queued = record.phase == Phase::Queued && record.outcome.is_none();
        Self {
            schema: SCHEMA,
            id: record.id,
            attempt_id: record.attempt,
            owner: record.owner.clone(),
            client_key: record.client_key.clone(),
            run_reason: record.action.run_reason,
            action: record.action.kind.clone(),
            cwd: record.cwd.clone(),
            status: status_word(record).to_owned(),
            outcome: record
                .outcome
                .map(|outcome| OutcomeView { outcome, message: record.message.clone() }),
            exit: record.exit,
            exit_code: record.outcome.map(|outcome| outcome.exit_code()),
            pid: record.pid.filter(|_| record.outcome.is_none()),
            created_at: Time(record.created_at),
            started_at: record.started_at.map(Time),
            ended_at: ended_at.map(Time),
            duration_ms,
            timeout_ms: record.options.limits.total_ms,
            queue: context.queue.filter(|_| queued),
            waiting_for: context.waiting_for.filter(|_| queued),
            missing_secret: record.missing_secret.clone().filter(|_| queued),
            before_head: record.before_head.clone(),
            after_head: record.after_head.clone(),
            committed: record.committed.clone(),
            log: record.log.map(LogView::from).or(context.log),
            preview: record.preview.clone(),
            survivors: SurvivorView::list(&record.survivors, record.more_survivors),
            output_incomplete: record.output_incomplete,
            superseded_by: record.superseded_by,
            followed_by: record.followed_by,
        }
    }

    /// Says whether its outcome is known.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.outcome.is_some()
    }
}

/// What a chain does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveView {
    /// Which execution of it is not over.
    pub execution_id: ExecutionId,
    /// Why that runs.
    pub run_reason: RunReason,
}

/// One try in its own workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptView {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Its id.
    pub id: AttemptId,
    /// The task that it belongs to.
    pub task_id: Option<TaskId>,
    /// What people call it.
    pub title: String,
    /// Where it is in its life.
    pub status: AttemptStatus,
    /// Why, if it is held or failed.
    pub reason: Option<Reason>,
    /// The repository: its common git directory; null in a plain directory.
    pub repo: Option<Locator>,
    /// Where its executions run.
    pub worktree: Locator,
    /// Its branch as it was last seen; null in a plain directory, and where HEAD is detached.
    pub branch: Option<String>,
    /// The base as it was named.
    pub base: Option<String>,
    /// The commit that the worktree was made from.
    pub base_oid: Option<Oid>,
    /// The branch that its work is meant for.
    pub target: Option<String>,
    /// HEAD as it was last seen.
    pub head: Option<Oid>,
    /// Commits on this side of the merge base.
    pub ahead: Option<u64>,
    /// Commits on the other side.
    pub behind: Option<u64>,
    /// Something differs from HEAD or is untracked.
    pub dirty: Option<bool>,
    /// The execution of its chain that is active, and why it runs; null if none is.
    pub active: Option<ActiveView>,
    /// Messages that wait for it, in their order.
    pub queue: Vec<FollowUpView>,
    /// Why nothing of its queue starts.
    pub queue_held: Option<Hold>,
    /// How many snapshots of its worktree there are.
    pub snapshots: usize,
    /// Why what its last chain left could not be saved, if it could not: it is in the worktree only.
    pub not_saved: Option<String>,
    /// Its worktree is gone: somebody deleted it.
    pub missing: bool,
    /// Its worktree stays, however long nothing happens in it.
    pub keep: bool,
    /// The first of its own ports, which its executions have as `WINDLASS_PORT_BASE`.
    #[serde(default)]
    pub port_base: Option<u16>,
    /// Where its commits are.
    #[serde(flatten)]
    pub history: HistoryView,
    /// The files that were handed to it; its executions have their paths in `WINDLASS_ATTACHMENTS`.
    #[serde(default)]
    pub attachments: Vec<Attachment>,
    /// Its executions, newest first; null in lists.
    pub executions: Option<Vec<ExecutionId>>,
    /// What its worktree takes on the disk.
    pub disk_bytes: Option<u64>,
    /// When it was created.
    pub created_at: Time,
    /// When its workspace was removed.
    pub removed_at: Option<Time>,
}

impl AttemptView {
    /// Makes the view of a record, with what its worktree looks like now if that was measured.
    #[must_use]
    pub fn new(
        record: &AttemptRecord,
        measured: Option<&WorktreeStatus>,
        executions: Option<Vec<ExecutionId>>,
    ) -> Self {
        let worktree = match &record.workspace {
            Workspace::Worktree(worktree) => Some(worktree),
            Workspace::Directory { .. } => None,
        };
        let recorded = || match &record.removed {
            Some(removed) => removed.branch.clone(),
            None => worktree.map(|worktree| worktree.branch.clone()),
        };
        let branch = measured.map_or_else(recorded, |status| status.branch.clone());
        Self {
            schema: SCHEMA,
            id: record.id,
            task_id: record.task,
            title: record.title.clone(),
            status: record.status,
            reason: record.reason.clone(),
            repo: worktree.map(|worktree| worktree.repo.clone()),
            worktree: record.workspace.path().clone(),
            branch,
            base: worktree.map(|worktree| worktree.base.clone()),
            base_oid: worktree.map(|worktree| worktree.base_oid.clone()),
            target: worktree.and_then(|worktree| worktree.target.clone()),
            head: measured.map(|status| status.head.clone()).or_else(|| record.head.clone()),
            ahead: measured.map(|status| status.ahead),
            behind: measured.map(|status| status.behind),
            dirty: measured.map(|status| status.dirty),
            active: None,
            queue: Vec::new(),
            queue_held: record.queue_held,
            snapshots: 0,
            not_saved: record.not_saved.clone(),
            missing: record.missing,
            keep: record.keep,
            history: HistoryView::new(record),
            port_base: record.port_base,
            attachments: record.attachments.clone(),
            executions,
            disk_bytes: None,
            created_at: Time(record.created_at),
            removed_at: record.removed_at.map(Time),
        }
    }

    /// The same with the number of its snapshots.
    #[must_use]
    pub fn with_snapshots(self, snapshots: usize) -> Self {
        Self { snapshots, ..self }
    }
}

/// One changed file of a diff.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffFileView {
    /// Its path, relative to the worktree.
    pub path: Locator,
    /// Its former path, if renamed or copied.
    pub old_path: Option<Locator>,
    /// How it differs.
    pub change: ChangeKind,
    /// Lines added; null for binary content, and for what is too large to be counted.
    pub added: Option<u64>,
    /// Lines removed; null for binary content, and for what is too large to be counted.
    pub removed: Option<u64>,
    /// The new mode in octal; null if deleted.
    pub mode: Option<String>,
    /// The file is not tracked.
    pub untracked: bool,
    /// It is too large to be in a patch.
    #[serde(default)]
    pub too_large: bool,
}

impl From<FileDiff> for DiffFileView {
    fn from(file: FileDiff) -> Self {
        let FileDiff { path, old_path, change, added, removed, mode, untracked, too_large } = file;
        Self { path, old_path, change, added, removed, mode, untracked, too_large }
    }
}

/// What differs between the merge base and the worktree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffView {
    /// The merge base.
    pub base: Oid,
    /// The commit that HEAD names.
    pub head: Oid,
    /// The files, in path order.
    pub files: Vec<DiffFileView>,
}

/// That one record was written or deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeView {
    /// The batch; several changes may share it.
    pub number: u64,
    /// The kind of thing.
    pub kind: String,
    /// Its id.
    pub id: Uuid,
    /// What it belongs to, for example the attempt of an execution.
    pub parent_id: Option<Uuid>,
    /// The client it belongs to.
    pub owner: Option<String>,
    /// The state that it was put in; null if it was deleted.
    pub state: Option<String>,
    /// How often it has been written.
    pub revision: u64,
}

impl From<&Change> for ChangeView {
    fn from(change: &Change) -> Self {
        let Change { number, key, parent, owner, state, revision } = change.clone();
        Self {
            number: number.0,
            kind: key.kind.as_str().to_owned(),
            id: key.id,
            parent_id: parent,
            owner,
            state,
            revision: revision.0,
        }
    }
}

/// One line of a log that a search found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchHitView {
    /// The execution.
    pub execution_id: ExecutionId,
    /// Its attempt.
    pub attempt_id: AttemptId,
    /// The line, as an entry numbered like the one in which it ends.
    #[serde(flatten)]
    pub line: LogEntryView,
}

/// What is known of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostView {
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
    /// Since when.
    pub since: Time,
    /// In what the records are kept, if the program says so.
    #[serde(default)]
    pub store: Option<String>,
    /// In what the logs are kept, if the program says so.
    #[serde(default)]
    pub logs: Option<String>,
}

impl From<HostStatus> for HostView {
    fn from(status: HostStatus) -> Self {
        let HostStatus { pid, version, epoch, running, queued, since_ms } = status;
        let since = Time(Timestamp(since_ms));
        Self { pid, version, epoch, running, queued, since, store: None, logs: None }
    }
}

/// What became of a commit request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitView {
    /// The attempt.
    pub attempt_id: AttemptId,
    /// The git execution that commits; null if there was nothing to commit.
    pub execution_id: Option<ExecutionId>,
}

/// What went wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorView {
    /// One of the words in `docs/api.md`.
    pub kind: String,
    /// What went wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// An error as it is sent and printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorView,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;
    use windlass_core::action::{Action, Leftovers, OutputMode, RunOptions, Stdin, TimeLimits};
    use windlass_core::id::{Epoch, HostId, NodeId};
    use windlass_core::outcome::NotStarted;
    use windlass_core::record::CommitPolicy;
    use windlass_core::workspace::Worktree;

    use super::*;

    fn execution() -> ExecutionRecord {
        ExecutionRecord {
            id: ExecutionId(Uuid::from_u128(2)),
            attempt: AttemptId(Uuid::from_u128(1)),
            owner: None,
            client_key: None,
            action: Action {
                kind: ActionKind::Command { argv: vec!["a".into()] },
                run_reason: RunReason::Agent,
                next: None,
            },
            options: RunOptions {
                env: BTreeMap::new(),
                secrets: BTreeMap::new(),
                stdin: Stdin::Null,
                output: OutputMode::Separate,
                leftovers: Leftovers::Stop,
                limits: TimeLimits { total_ms: Some(9), idle_ms: None, grace_ms: 5_000 },
                log_cap_bytes: 1,
            },
            repository_lock: None,
            cwd: Locator::new(vec![b'/', 0xff]),
            phase: Phase::Queued,
            place: None,
            void_places: 0,
            stop: None,
            pid: Some(7),
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
            created_at: Timestamp(1_500),
            started_at: None,
            ended_at: None,
        }
    }

    fn attempt() -> AttemptRecord {
        AttemptRecord {
            id: AttemptId(Uuid::from_u128(1)),
            task: None,
            title: "t".to_owned(),
            owner: None,
            status: AttemptStatus::Held,
            reason: Some(Reason::Stopped),
            workspace: Workspace::Worktree(Worktree {
                repo: Locator::new(b"/r".to_vec()),
                path: Locator::new(b"/w".to_vec()),
                branch: "b".to_owned(),
                base: "main".to_owned(),
                base_oid: Oid("1".to_owned()),
                target: None,
                copy: None,
            }),
            commit: CommitPolicy::Commit,
            chain: None,
            committing: None,
            commit_message: None,
            commit_tries: 0,
            slot: false,
            chain_stopped: false,
            claim: None,
            claimed_from: None,
            head: None,
            node: NodeId(Uuid::nil()),
            host: HostId(Uuid::nil()),
            epoch: Epoch(1),
            created_at: Timestamp(0),
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
            port_base: None,
            attachments: Vec::new(),
            history: Default::default(),
        }
    }

    /// Checks that a view has exactly the fields that its schema lists, and can be read back.
    #[track_caller]
    pub(super) fn check_fields<T>(view: &T, schema: &str)
    where
        T: Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
    {
        let json = serde_json::to_value(view).unwrap();
        let schema: Value = serde_json::from_str(schema).unwrap();
        let names =
            |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
        assert_eq!(names(&json), names(&schema["properties"]));
        assert_eq!(&serde_json::from_value::<T>(json).unwrap(), view);
    }

    #[test]
    fn views_have_the_fields_of_their_schemas() {
        let view = ExecutionView::new(&execution(), ExecutionContext::default());
        check_fields(&view, include_str!("../../../docs/schema/execution.json"));
        let view = AttemptView::new(&attempt(), None, None);
        check_fields(&view, include_str!("../../../docs/schema/attempt.json"));
        let status = HostStatus {
            pid: 1,
            version: "1".to_owned(),
            epoch: 1,
            running: 0,
            queued: 0,
            since_ms: 0,
        };
        check_fields(
            &HostView::from(status),
            include_str!("../../../docs/schema/host-status.json"),
        );
        let error = ErrorView { kind: "k".to_owned(), message: "m".to_owned(), hint: None };
        check_fields(&ErrorBody { error }, include_str!("../../../docs/schema/error.json"));
        let file = DiffFileView {
            path: Locator::new(b"p".to_vec()),
            old_path: None,
            change: ChangeKind::Added,
            added: None,
            removed: None,
            mode: None,
            untracked: true,
            too_large: false,
        };
        check_fields(&file, include_str!("../../../docs/schema/diff-file.json"));
    }

    #[test]
    fn an_execution_is_shown_by_its_outcome_once_that_is_known() {
        let mut record = execution();
        let context =
            ExecutionContext { log: None, waiting_for: Some(WaitingFor::Slot), queue: Some(3) };
        let queued = ExecutionView::new(&record, context);
        assert_eq!(
            (queued.status.as_str(), queued.waiting_for, queued.queue),
            ("queued", Some(WaitingFor::Slot), Some(3))
        );

        record.phase = Phase::Ended;
        record.outcome = Some(Outcome::NotStarted { reason: NotStarted::ProgramNotFound });
        record.message = Some("nope".to_owned());
        record.more_survivors = 3;
        let json = serde_json::to_value(ExecutionView::new(&record, context)).unwrap();
        let outcome = serde_json::json!(
            { "kind": "not_started", "reason": "program_not_found", "message": "nope" }
        );
        assert_eq!(json["outcome"], outcome);
        assert_eq!(json["status"], "failed");
        assert_eq!(json["exit_code"], 127);
        assert_eq!(json["pid"], Value::Null);
        assert_eq!((&json["waiting_for"], &json["queue"]), (&Value::Null, &Value::Null));
        assert_eq!(json["survivors"], serde_json::json!([{ "more": 3 }]));
        assert_eq!(json["cwd"], serde_json::json!({ "base64": "L/8=" }));
        assert_eq!(json["created_at"], "1970-01-01T00:00:01.500Z");
    }

    #[test]
    fn nothing_ends_before_it_began() {
        let mut record = execution();
        record.started_at = Some(Timestamp(7_200_000));
        record.ended_at = Some(Timestamp(3_600_000));
        let view = ExecutionView::new(&record, ExecutionContext::default());
        assert_eq!((view.ended_at, view.duration_ms), (view.started_at, Some(0)));
    }

    #[test]
    fn what_was_measured_wins_over_what_was_recorded() {
        let measured = WorktreeStatus {
            head: Oid("2".to_owned()),
            branch: Some("renamed".to_owned()),
            dirty: true,
            ahead: 1,
            behind: 2,
        };
        let view = AttemptView::new(&attempt(), Some(&measured), None);
        assert_eq!(view.branch.as_deref(), Some("renamed"));
        assert_eq!(view.head, Some(Oid("2".to_owned())));
        assert_eq!((view.dirty, view.ahead, view.behind), (Some(true), Some(1), Some(2)));
    }

    #[test]
    fn times_beyond_the_calendar_are_its_last() {
        assert_eq!(Time(Timestamp(u64::MAX)).to_string(), "9999-12-31T23:59:59.999Z");
    }
}
