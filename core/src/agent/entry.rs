//! The entries of a conversation and how they change.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::event::{Approval, ApprovalId};
use super::usage::Usage;
use super::verdict::{Failure, TurnVerdict};
use crate::log_store::{GapCause, Stream};

/// How far a tool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolStatus {
    /// The agent wants it or runs it.
    Created,
    /// It waits for an approval.
    PendingApproval,
    /// It worked.
    Success,
    /// It did not work.
    Failed,
    /// Somebody said no.
    Denied,
    /// The turn or the process ended before it did.
    Unfinished,
}

impl ToolStatus {
    /// Says whether nothing more is expected.
    #[must_use]
    pub fn is_end(self) -> bool {
        match self {
            Self::Created | Self::PendingApproval => false,
            Self::Success | Self::Failed | Self::Denied | Self::Unfinished => true,
        }
    }
}

/// What happens to a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FileChange {
    /// It is written whole.
    Write {
        /// The file.
        path: String,
        /// What is in it then; `None` if the agent does not tell.
        content: Option<String>,
    },
    /// It is removed.
    Delete {
        /// The file.
        path: String,
    },
    /// It gets another name.
    Rename {
        /// The file.
        path: String,
        /// Its new name.
        new_path: String,
        /// What changes in it.
        unified_diff: Option<String>,
    },
    /// Parts of it change.
    Edit {
        /// The file.
        path: String,
        /// The change; `None` if the agent does not tell.
        unified_diff: Option<String>,
        /// Whether the diff's line numbers are those of the file.
        has_line_numbers: bool,
    },
}

impl FileChange {
    /// Returns the file.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Write { path, .. }
            | Self::Delete { path }
            | Self::Rename { path, .. }
            | Self::Edit { path, .. } => path,
        }
    }
}

/// How far a thing to do is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TodoStatus {
    /// Not begun.
    Pending,
    /// Under way.
    InProgress,
    /// Done.
    Completed,
    /// Given up.
    Cancelled,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Todo {
    /// What.
    pub content: String,
    /// How far.
    pub status: TodoStatus,
    /// How much it matters, in the agent's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
}

/// Something that is to be answered in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Its id, or its text where it has none.
    pub id: String,
    /// The question.
    pub text: String,
    /// A few words above it.
    pub header: Option<String>,
    /// Answers to choose from.
    pub options: Vec<String>,
    /// Several may be chosen.
    pub multiple: bool,
}

/// What a tool does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ToolAction {
    /// Reads a file.
    FileRead {
        /// Which.
        path: String,
    },
    /// Changes files.
    FileEdit {
        /// How.
        changes: Vec<FileChange>,
    },
    /// Runs a command.
    CommandRun {
        /// As a shell would take it.
        command: String,
        /// Where, if the agent tells.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cwd: Option<String>,
    },
    /// Searches files or the web.
    Search {
        /// For what.
        query: String,
    },
    /// Fetches from the web.
    WebFetch {
        /// What.
        url: String,
    },
    /// Uses a tool of a server.
    Tool {
        /// The tool's name, with its server's.
        tool_name: String,
        /// What it is given.
        arguments: Value,
    },
    /// Hands work to another agent.
    TaskCreate {
        /// What.
        description: String,
    },
    /// Shows a plan.
    PlanPresentation {
        /// It.
        plan: String,
    },
    /// Keeps a list of what is to be done.
    TodoManagement {
        /// The list.
        todos: Vec<Todo>,
    },
    /// Asks the user.
    AskUserQuestion {
        /// What.
        questions: Vec<Question>,
    },
    /// Anything else.
    Other {
        /// The tool's title or name.
        description: String,
        /// What it is given.
        arguments: Value,
    },
}

/// What a tool wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolOutput {
    /// The text.
    pub text: String,
    /// The exit code of a command, if the agent tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
}

/// What became of a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ApprovalState {
    /// It waits for an answer.
    Pending,
    /// Yes.
    Allowed {
        /// Why, or the answer in words.
        text: Option<String>,
    },
    /// No.
    Denied {
        /// Why.
        text: Option<String>,
    },
    /// The agent took it back.
    Withdrawn,
    /// The process ended before it was answered.
    Unanswered,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Content {
    /// The agent opened or resumed a session.
    Session {
        /// The id for resuming.
        session_id: String,
        /// The model, if it was said.
        model: Option<String>,
    },
    /// Words of the user.
    UserMessage {
        /// The text.
        text: String,
    },
    /// Words of the agent.
    AssistantMessage {
        /// The text.
        text: String,
    },
    /// Thoughts of the agent.
    Thinking {
        /// The text.
        text: String,
    },
    /// A plan of the agent.
    Plan {
        /// The text.
        text: String,
    },
    /// What is to be done.
    Todos {
        /// The list.
        todos: Vec<Todo>,
    },
    /// The use of a tool.
    ToolUse {
        /// The call's id.
        tool_id: String,
        /// The tool's name.
        tool_name: String,
        /// How far it is.
        status: ToolStatus,
        /// What it does.
        action: ToolAction,
        /// What it wrote; `None` if nothing was told.
        result: Option<ToolOutput>,
    },
    /// A question.
    Approval {
        /// The question.
        #[serde(flatten)]
        approval: Approval,
        /// What became of it.
        state: ApprovalState,
    },
    /// A remark of the agent's program.
    SystemMessage {
        /// The text.
        text: String,
    },
    /// Something went wrong.
    ErrorMessage {
        /// What.
        #[serde(flatten)]
        failure: Failure,
        /// It was tried again, so it is no failure.
        retry: bool,
    },
    /// A turn ended.
    Turn {
        /// Its number, from 1.
        turn: u64,
        /// How.
        verdict: TurnVerdict,
        /// What it used, if the agent told.
        usage: Option<Usage>,
    },
    /// Lines that are none of the protocol's, or not understood.
    Raw {
        /// Where they came from.
        stream: Stream,
        /// The text; what is not UTF-8 is replaced.
        text: String,
        /// How many bytes the lines have, line ends not counted.
        bytes: u64,
    },
    /// Part of the log is missing here.
    Gap {
        /// How many bytes, as far as it is known.
        bytes: u64,
        /// Why.
        cause: GapCause,
    },
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its number, from 0, without holes.
    pub index: u64,
    /// The log entry that it began with; 0 for what was there before the log.
    pub seq: u64,
    /// When that was read, in milliseconds since the Unix epoch; `None` if it is not known.
    pub at_ms: Option<u64>,
    /// What it says.
    #[serde(flatten)]
    pub content: Content,
    /// It may still change.
    pub open: bool,
    /// The tool call that it belongs to: a subagent's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// It is of an earlier process of the session, told again.
    #[serde(default, skip_serializing_if = "is_false")]
    pub history: bool,
    /// How many bytes of its texts were left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped_bytes: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl Content {
    /// Returns the text that pieces are appended to.
    pub(super) fn text_mut(&mut self) -> Option<&mut String> {
        match self {
            Self::UserMessage { text }
            | Self::AssistantMessage { text }
            | Self::Thinking { text }
            | Self::Plan { text }
            | Self::Raw { text, .. } => Some(text),
            Self::ToolUse { result, .. } => {
                Some(&mut result.get_or_insert_with(ToolOutput::default).text)
            }
            Self::Session { .. }
            | Self::Todos { .. }
            | Self::Approval { .. }
            | Self::SystemMessage { .. }
            | Self::ErrorMessage { .. }
            | Self::Turn { .. }
            | Self::Gap { .. } => None,
        }
    }

    /// Returns the question, if it is this one.
    pub(super) fn approval_mut(&mut self, id: &ApprovalId) -> Option<&mut ApprovalState> {
        match self {
            Self::Approval { approval, state } if approval.id == *id => Some(state),
            _ => None,
        }
    }
}

/// How the list of entries changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Which entry.
    pub index: u64,
    /// How.
    #[serde(flatten)]
    pub kind: ChangeKind,
}

/// How an entry changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum ChangeKind {
    /// It is new, and the last one.
    Added {
        /// It.
        entry: Box<Entry>,
    },
    /// Its text goes on: that of a message, or the output of a tool.
    Appended {
        /// With this.
        text: String,
    },
    /// It is now this.
    Replaced {
        /// It.
        entry: Box<Entry>,
    },
}
