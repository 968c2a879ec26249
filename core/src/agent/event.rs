//! What an agent says, in words that all protocols share.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::entry::{FileChange, Question, Todo, ToolAction, ToolStatus};
use super::usage::{LimitWindow, UsageReport};
use super::verdict::{Failure, TurnVerdict};

/// Whose words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The user's, as they reached the agent.
    User,
    /// The agent's.
    Assistant,
    /// The agent's thoughts.
    Thinking,
    /// The agent's plan.
    Plan,
}

/// How a text relates to what came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextMode {
    /// It goes on where the last piece ended.
    Append,
    /// It is all of it, and nothing follows.
    Whole,
}

/// A piece of a tool's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The text.
    pub text: String,
    /// Whether it goes on or replaces.
    pub mode: TextMode,
}

/// What is new about the use of a tool. `None` leaves what is known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ToolUpdate {
    /// The call's id: one entry per id.
    pub id: String,
    /// The tool's name.
    pub name: Option<String>,
    /// What it does.
    pub action: Option<ToolAction>,
    /// How far it is.
    pub status: Option<ToolStatus>,
    /// What it wrote.
    pub output: Option<Output>,
    /// The exit code of a command.
    pub exit_code: Option<i64>,
    /// What it changed in files; joined into the action.
    pub changes: Vec<FileChange>,
    /// The call that this one belongs to: a subagent's.
    pub parent: Option<String>,
}

impl ToolUpdate {
    /// Makes an update of this call that says nothing yet.
    #[must_use]
    pub fn of(id: impl Into<String>) -> Self {
        Self { id: id.into(), ..Self::default() }
    }
}

/// Names a question of the agent within its execution: the protocol's own id, as JSON text where it is one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ApprovalId(pub String);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalKind {
    /// To run a command.
    Command,
    /// To change files.
    Edit,
    /// To use another tool.
    Tool,
    /// To carry out a plan.
    Plan,
    /// For more permissions.
    Permissions,
    /// Something that only a person can answer.
    Question,
}

/// What choosing an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChoiceKind {
    /// Yes, this time.
    AllowOnce,
    /// Yes, and do not ask again.
    AllowAlways,
    /// No, this time.
    RejectOnce,
    /// No, and do not ask again.
    RejectAlways,
    /// Something of the agent's own.
    Other,
}

/// One answer that the agent offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalChoice {
    /// The protocol's id of it.
    pub id: String,
    /// What to show.
    pub name: String,
    /// What it means.
    pub kind: ChoiceKind,
}

/// A question of the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Approval {
    /// Its id.
    pub id: ApprovalId,
    /// What is asked.
    #[serde(rename = "asks")]
    pub kind: ApprovalKind,
    /// The tool's name.
    pub tool: String,
    /// The tool call that waits.
    pub tool_id: Option<String>,
    /// One line to show: the command, the paths, the title.
    pub title: String,
    /// Why the agent asks, in its words.
    pub reason: Option<String>,
    /// What is asked for, in the words of all agents; `None` if nothing is known of the call.
    pub action: Option<ToolAction>,
    /// The tool's input as the agent gave it, cut if it is large.
    pub input: Value,
    /// Answers that the agent offers; empty where yes and no are all.
    pub choices: Vec<ApprovalChoice>,
    /// What is to be answered in words.
    pub questions: Vec<Question>,
}

/// One thing that an agent said or that was said to it.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Its session is known.
    Session {
        /// The id for resuming.
        id: String,
        /// The model, if it is said.
        model: Option<String>,
    },
    /// It began to work on a message.
    TurnStarted,
    /// Words.
    Text {
        /// Whose.
        role: Role,
        /// Which message, where the protocol names them; else it goes on with the last one of the role.
        item: Option<String>,
        /// The words.
        text: String,
        /// Whether they go on or are all.
        mode: TextMode,
        /// The tool call that they belong to: a subagent's.
        parent: Option<String>,
    },
    /// The message that goes on without a name is complete; the next piece begins another.
    MessageEnded,
    /// A tool.
    Tool(ToolUpdate),
    /// The list of what is to be done, whole.
    Todos {
        /// Which list.
        item: String,
        /// The list.
        todos: Vec<Todo>,
    },
    /// A remark of the agent's program.
    Notice {
        /// It.
        text: String,
    },
    /// Something went wrong.
    Trouble {
        /// What.
        failure: Failure,
        /// It will be tried again, so nothing has failed yet.
        retry: bool,
    },
    /// A question.
    Asked(Approval),
    /// A question was answered: the answer is on its way to the agent, or the agent answered itself.
    Answered {
        /// Which.
        id: ApprovalId,
        /// Yes or no.
        allowed: bool,
        /// Why, or the answer in words.
        text: Option<String>,
    },
    /// The agent no longer wants an answer.
    Withdrawn {
        /// Which question.
        id: ApprovalId,
    },
    /// The agent refused itself something without asking, because it could not ask.
    SelfDenied {
        /// What it was.
        text: String,
    },
    /// What was used so far.
    Usage(UsageReport),
    /// How full the windows of the usage limit are.
    Limits(Vec<LimitWindow>),
    /// A turn ended.
    TurnEnded(TurnVerdict),
    /// What follows is (or no longer is) the past of the session, told again.
    History(bool),
    /// A line that is not understood; it is kept as it is.
    Unknown,
}
