//! What clients ask for.

mod history;
mod project;
mod task;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use windlass_core::action::{ActionKind, Leftovers, OutputMode, RunReason, SecretSource, Stdin};
use windlass_core::id::{AttemptId, ExecutionId};
use windlass_core::locator::{Locator, OsBytes};
use windlass_core::record::CommitPolicy;

pub use history::{AttemptChange, MergeRequest, PullRequestChange, PushRequest, RebaseRequest};
pub use project::{ProjectChange, ProjectRequest};
pub use task::{Say, TaskChange, TaskRequest, TaskRun};

/// Where a run is to happen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum WorkspaceRequest {
    /// A new worktree on a new branch.
    Worktree {
        /// Any directory in the repository.
        repo: Locator,
        /// The base; `None` is what HEAD names.
        base: Option<String>,
        /// The new branch's name; `None` makes one.
        branch: Option<String>,
        /// Ignored files to copy in from the checkout that `repo` is in: globs as in `.gitignore`.
        #[serde(default)]
        copy: Vec<String>,
    },
    /// A directory that is the user's.
    Directory {
        /// Where it is.
        path: Locator,
    },
}

/// Whether a request waits for a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// It waits in the queue.
    #[default]
    Queue,
    /// It is refused.
    Refuse,
}

/// How an action is to be run. What is not given gets the engine's default.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchRequest {
    /// What to run.
    pub action: ActionKind,
    /// The environment, without secrets.
    #[serde(default)]
    pub env: BTreeMap<String, OsBytes>,
    /// Variables that nobody named: the caller had them. Those in `env` win, and a key does not stand for these: the same
    /// request from elsewhere is the same request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inherited_env: BTreeMap<String, OsBytes>,
    /// Variables with secret values.
    #[serde(default)]
    pub secrets: BTreeMap<String, SecretSource>,
    /// The bare values of those that are [`SecretSource::Memory`]; never recorded.
    #[serde(default)]
    pub secret_values: BTreeMap<String, OsBytes>,
    /// Standard input.
    #[serde(default)]
    pub stdin: Stdin,
    /// Output.
    #[serde(default)]
    pub output: OutputMode,
    /// What happens to leftovers.
    #[serde(default)]
    pub leftovers: Leftovers,
    /// Total run time in milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Longest time without output in milliseconds.
    #[serde(default)]
    pub idle_timeout_ms: Option<u64>,
    /// When no slot is free.
    #[serde(default)]
    pub when_full: WhenFull,
    /// Files that are handed to a new attempt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attach: Vec<AttachRequest>,
}

/// What comes with a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendOptions {
    /// Files that are handed over with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attach: Vec<AttachRequest>,
    /// What is in the worktree and not committed is saved and undone before it is started.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reset: bool,
}

/// A file that is handed to an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachRequest {
    /// Where it is, for the host.
    pub file: Locator,
    /// What it is called, for example in links to it.
    pub called: String,
}

impl fmt::Debug for LaunchRequest {
    /// Prints names of variables, never their values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaunchRequest")
            .field("action", &self.action)
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .field("inherited_env", &self.inherited_env.keys().collect::<Vec<_>>())
            .field("secrets", &self.secrets)
            .finish_non_exhaustive()
    }
}

impl LaunchRequest {
    /// Makes a request to run `action` with nothing else set.
    #[must_use]
    pub fn new(action: ActionKind) -> Self {
        Self {
            action,
            env: BTreeMap::new(),
            inherited_env: BTreeMap::new(),
            secrets: BTreeMap::new(),
            secret_values: BTreeMap::new(),
            stdin: Stdin::default(),
            output: OutputMode::default(),
            leftovers: Leftovers::default(),
            timeout_ms: None,
            idle_timeout_ms: None,
            when_full: WhenFull::default(),
            attach: Vec::new(),
        }
    }

    /// Leaves what was asked for, which is what a key stands for: nothing that the caller's surroundings gave, no bare
    /// secret, and not whether it would wait for a slot.
    pub(crate) fn keep_what_is_asked(&mut self) {
        self.inherited_env.clear();
        self.secret_values.clear();
        self.when_full = WhenFull::default();
    }

    /// Makes a request to run an argument vector.
    #[must_use]
    pub fn command<T: Into<OsBytes>>(argv: impl IntoIterator<Item = T>) -> Self {
        Self::new(ActionKind::Command { argv: argv.into_iter().map(Into::into).collect() })
    }
}

/// The scripts around the command of a run. One that is empty is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scripts {
    /// Runs first, and prepares the workspace. If it does not end well, nothing else runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup: Option<String>,
    /// Runs last, when the command ended well and changed something that is committed, and tidies up after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleanup: Option<String>,
}

/// A new attempt: its chain of setup script, command as agent, and cleanup script.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRequest {
    /// Where.
    pub workspace: WorkspaceRequest,
    /// What people call it; `None` makes one from the command.
    pub title: Option<String>,
    /// What happens to changes when it ended well. Ignored in a directory, which is never committed to.
    pub commit: CommitPolicy,
    /// What to run before and after it.
    #[serde(flatten)]
    pub scripts: Scripts,
    /// What to run.
    pub launch: LaunchRequest,
}

impl RunRequest {
    /// Makes a request to run something, to commit what it changes, and nothing else.
    #[must_use]
    pub fn new(workspace: WorkspaceRequest, launch: LaunchRequest) -> Self {
        let (title, commit, scripts) = (None, CommitPolicy::Commit, Scripts::default());
        Self { workspace, title, commit, scripts, launch }
    }
}

/// One more execution in an attempt, beside its chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// The attempt.
    pub attempt: AttemptId,
    /// Why.
    pub run_reason: RunReason,
    /// What to run.
    pub launch: LaunchRequest,
    /// A dev server that runs is stopped, and this one begins when it is dead.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
}

/// Another try: what was done since an execution is saved and undone, and that is run again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryRequest {
    /// The attempt.
    pub attempt: AttemptId,
    /// From which execution of its chain on; `None` is its last command.
    pub from: Option<ExecutionId>,
    /// What the command reads on standard input; `None` is what it read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// What a run or exec led to. The same client key gives the same answer. Of a chain it is the first execution; the record of
/// one that has ended names the one that followed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The attempt.
    pub attempt: AttemptId,
    /// The execution.
    pub execution: ExecutionId,
    /// The checkout that the request stood in has uncommitted changes, which are not in the worktree.
    #[serde(default)]
    pub source_is_dirty: bool,
    /// The globs of what was to be copied in that no file matches.
    #[serde(default)]
    pub unmatched: Vec<String>,
}

/// What to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopTarget {
    /// One execution.
    Execution(ExecutionId),
    /// Everything of an attempt.
    Attempt(AttemptId),
}

/// Who asks, and under which key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The client that executions belong to; `None` is the operator, who sees all.
    pub owner: Option<String>,
    /// The key under which a repeated request changes nothing; `None` makes one.
    pub key: Option<String>,
}

/// A message to standard input.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputRequest {
    /// The execution.
    pub execution: ExecutionId,
    /// The key under which a repeated message is written once.
    pub key: Uuid,
    /// What to write; with `close` it may be empty.
    pub bytes: OsBytes,
    /// Whether the log keeps its length only.
    #[serde(default)]
    pub secret: bool,
    /// Whether standard input is closed after it.
    #[serde(default)]
    pub close: bool,
}

impl fmt::Debug for InputRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InputRequest {} ({} bytes)", self.key, self.bytes.0.len())
    }
}

/// How to remove a worktree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveOptions {
    /// What runs in it is stopped first, and an operation in progress is saved rather than a reason to refuse.
    #[serde(default)]
    pub force: bool,
    /// What cannot be saved is lost rather than a reason to refuse.
    #[serde(default)]
    pub discard_unsaved: bool,
    /// Its branch is deleted too; what only it reaches is saved.
    #[serde(default)]
    pub delete_branch: bool,
}

/// How to clean up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcOptions {
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
}
