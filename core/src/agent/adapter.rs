//! The trait that each protocol implements, and what it is told and says.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::event::{ApprovalId, Event};
use super::usage::Usage;
use super::verdict::{Failure, Verdict};
use crate::log_store::Stream;

/// How a line ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnd {
    /// With its newline.
    Whole,
    /// The stream ended, or a gap came, before its newline.
    Torn,
    /// It was longer than [`MAX_LINE_BYTES`](super::MAX_LINE_BYTES): only its head is here.
    Cut,
}

/// One line of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Which stream. A terminal counts as standard output.
    pub stream: Stream,
    /// Its bytes, without the line end.
    pub bytes: &'a [u8],
    /// How many bytes it has, more than `bytes` if it was cut.
    pub len: u64,
    /// How it ended.
    pub end: LineEnd,
}

/// What an agent may do without asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// Look and plan only.
    Plan,
    /// Ask before anything that changes something.
    Ask,
    /// Change files, ask before the rest.
    Edit,
    /// Everything.
    Full,
}

/// What an agent was started for. Recorded with its action, so that a replay has it too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The first message; `None` to wait for one.
    pub prompt: Option<String>,
    /// The adapter sends the first message; else it is an argument or the whole of standard input.
    pub prompt_by_protocol: bool,
    /// The session to resume.
    pub resume: Option<String>,
    /// The directory that the agent works in, absolute, as it sees it.
    pub cwd: String,
    /// The model; `None` leaves the agent's default.
    pub model: Option<String>,
    /// What it may do without asking.
    pub permission: Permission,
    /// Further directories that it may write to: the git directories of a linked worktree.
    pub writable_roots: Vec<String>,
    /// What the session had used before, where it is known.
    pub session_usage: Option<Usage>,
    /// Name and version that the agent is told of its client.
    pub client: (String, String),
}

/// Bytes for the agent's standard input.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Its name, unique within the execution and the same in every replay: a second one with the key is the first again.
    pub key: String,
    /// What to write, newline included.
    pub bytes: Vec<u8>,
    /// Close the stream after it.
    pub close: bool,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = String::from_utf8_lossy(&self.bytes);
        write!(f, "Message {} {:?}{}", self.key, text, if self.close { " close" } else { "" })
    }
}

/// What the host wants of a running agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A further message.
    Prompt {
        /// The client's key of it.
        key: String,
        /// The message.
        text: String,
    },
    /// An answer to an open question.
    Answer {
        /// Which.
        id: ApprovalId,
        /// The answer.
        decision: Decision,
    },
    /// Leave off the turn.
    Interrupt {
        /// The client's key of it.
        key: String,
    },
    /// No further message will come: end when the turn is over.
    Finish,
}

/// An answer to a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case")]
pub enum Decision {
    /// Yes.
    Allow {
        /// And do not ask again in this session.
        always: bool,
    },
    /// No.
    Deny {
        /// Why, for the agent to read.
        reason: Option<String>,
        /// And end the turn.
        stop: bool,
    },
    /// One of the offered choices, by its id.
    Choose {
        /// The choice.
        choice: String,
    },
    /// Answers in words: question and answer.
    Reply {
        /// By the question's id or text.
        answers: Vec<(String, String)>,
    },
}

/// Why a command cannot be carried out now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The protocol has no such message: a new process must resume the session instead.
    #[error("the protocol of {agent} has no message for it")]
    Unsupported {
        /// The adapter's name.
        agent: &'static str,
    },
    /// There is no such question, or it is answered or withdrawn.
    #[error("no question {id} is open", id = .id.0)]
    NotOpen {
        /// The question.
        id: ApprovalId,
    },
    /// The answer is none that the question has.
    #[error("the question {id} has no choice {choice}", id = .id.0)]
    NoSuchChoice {
        /// The question.
        id: ApprovalId,
        /// The choice.
        choice: String,
    },
    /// No session is open yet.
    #[error("the agent has not opened its session yet")]
    NotReady,
    /// No turn is under way.
    #[error("no turn is under way")]
    NoTurn,
}

/// Where an adapter puts what it found.
#[derive(Clone, Debug, Default)]
pub struct Sink {
    /// What was said, in order.
    pub events: Vec<Event>,
    /// What to send, in order.
    pub messages: Vec<Message>,
}

impl Sink {
    /// Adds an event.
    pub fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Adds a message that keeps the stream open.
    pub fn send(&mut self, key: impl Into<String>, bytes: Vec<u8>) {
        self.messages.push(Message { key: key.into(), bytes, close: false });
    }
}

/// One protocol, as a pure machine.
///
/// # Contract
///
/// - The state depends on the lines alone (those of standard input included) and on the [`Start`]: [`command`] changes
///   nothing, the message takes effect when its line is in the log.
/// - Nothing is an error. What is not understood is [`Event::Unknown`]; no input makes it panic.
/// - The memory it holds has a limit that does not depend on the input.
///
/// [`command`]: Adapter::command
pub trait Adapter: fmt::Debug {
    /// Returns the protocol's name.
    fn name(&self) -> &'static str;

    /// Gives what is to be sent before the agent said anything. Called once, first, and only for an agent of ours.
    fn begin(&mut self, start: &Start, sink: &mut Sink);

    /// Takes one line of any stream.
    fn line(&mut self, line: &Line<'_>, sink: &mut Sink);

    /// Gives what is left when no line will follow.
    fn end(&mut self, sink: &mut Sink);

    /// Puts a command into messages.
    ///
    /// # Errors
    ///
    /// See [`Refusal`].
    fn command(&self, command: &Command) -> Result<Vec<Message>, Refusal>;

    /// Reads what an exit code other than 0 says, given the last thing that went wrong.
    fn exit_code(&self, code: u8, last_error: Option<&Failure>) -> Failure;

    /// Has the last word on a verdict, for what only the protocol knows.
    fn review(&self, verdict: &mut Verdict);
}
