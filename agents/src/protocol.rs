//! Which agents there are, and which protocols they speak.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use windlass_core::agent::{
    Adapter, Command, Failure, Line, Message, Permission, Refusal, Sink, Start, Verdict,
};

use crate::json::Look;
use crate::{Acp, Claude, CodexAppServer, CodexExec, Gemini, Opencode, Plain};

/// A coding agent, or anything else that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Agent {
    /// Claude Code.
    Claude,
    /// Codex.
    Codex,
    /// Gemini CLI.
    Gemini,
    /// opencode.
    Opencode,
    /// Anything that speaks the Agent Client Protocol.
    Acp,
    /// Any command.
    Plain,
}

/// How an agent is spoken with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Claude Code's `stream-json`, both ways.
    Claude,
    /// Codex `exec --json`.
    CodexExec,
    /// Codex `app-server`.
    CodexAppServer,
    /// Gemini CLI's `stream-json`.
    Gemini,
    /// opencode `run --format json`.
    Opencode,
    /// The Agent Client Protocol.
    Acp,
    /// None.
    Plain,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Claude,
        Self::CodexExec,
        Self::CodexAppServer,
        Self::Gemini,
        Self::Opencode,
        Self::Acp,
        Self::Plain,
    ];

    /// Makes an adapter that has seen nothing.
    #[must_use]
    pub fn adapter(self) -> AnyAdapter {
        match self {
            Self::Claude => AnyAdapter::Claude(Box::default()),
            Self::CodexExec => AnyAdapter::CodexExec(CodexExec::default()),
            Self::CodexAppServer => AnyAdapter::CodexAppServer(Box::default()),
            Self::Gemini => AnyAdapter::Gemini(Gemini::default()),
            Self::Opencode => AnyAdapter::Opencode(Opencode::default()),
            Self::Acp => AnyAdapter::Acp(Box::default()),
            Self::Plain => AnyAdapter::Plain(Plain::default()),
        }
    }

    /// Says whether messages, answers and interrupts can be sent while it runs.
    #[must_use]
    pub fn is_interactive(self) -> bool {
        match self {
            Self::Claude | Self::CodexAppServer | Self::Acp => true,
            Self::CodexExec | Self::Gemini | Self::Opencode | Self::Plain => false,
        }
    }
}

impl Agent {
    /// Returns the protocol that does most for an agent with this permission: one that can ask where it may have to.
    #[must_use]
    pub fn preferred(&self, permission: Permission) -> Protocol {
        match (self, permission) {
            (Self::Claude, _) => Protocol::Claude,
            (Self::Codex, _) => Protocol::CodexAppServer,
            // One way, it leaves out the tools that it would have to ask for.
            (Self::Gemini, Permission::Plan | Permission::Full) => Protocol::Gemini,
            (Self::Gemini, Permission::Ask | Permission::Edit) => Protocol::Acp,
            (Self::Opencode | Self::Acp, _) => Protocol::Acp,
            (Self::Plain, _) => Protocol::Plain,
        }
    }

    /// Tells the protocol from the arguments that the agent was started with; `None` if they leave it open.
    #[must_use]
    pub fn protocol_of_arguments<'a>(
        &self,
        arguments: impl Iterator<Item = &'a str>,
    ) -> Option<Protocol> {
        let mut arguments = arguments.skip(1);
        match self {
            Self::Codex => arguments.find_map(|argument| match argument {
                "app-server" => Some(Protocol::CodexAppServer),
                "exec" | "e" => Some(Protocol::CodexExec),
                _ => None,
            }),
            Self::Gemini => arguments.find_map(|argument| match argument {
                "--acp" | "--experimental-acp" => Some(Protocol::Acp),
                "stream-json" | "--output-format=stream-json" => Some(Protocol::Gemini),
                _ => None,
            }),
            Self::Opencode => arguments.find_map(|argument| match argument {
                "acp" => Some(Protocol::Acp),
                "run" => Some(Protocol::Opencode),
                _ => None,
            }),
            Self::Claude | Self::Acp | Self::Plain => None,
        }
    }

    /// Tells the protocol from the first message that the agent wrote.
    #[must_use]
    pub fn protocol_of_message(&self, first: Option<&Value>) -> Protocol {
        let rpc = first.is_some_and(|first| {
            first.has("method") || first.has("jsonrpc") || (first.has("id") && !first.has("type"))
        });
        match (self, rpc) {
            (Self::Codex, true) => Protocol::CodexAppServer,
            (Self::Codex, false) => Protocol::CodexExec,
            (Self::Gemini | Self::Opencode, true) | (Self::Acp, _) => Protocol::Acp,
            (Self::Gemini, false) => Protocol::Gemini,
            (Self::Opencode, false) => Protocol::Opencode,
            (Self::Claude, _) => Protocol::Claude,
            (Self::Plain, _) => Protocol::Plain,
        }
    }
}

/// There is no agent of this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownAgent {
    /// The name.
    pub name: String,
}

impl fmt::Display for UnknownAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no agent {:?}: there are claude, codex, gemini, opencode, acp:COMMAND and plain",
            self.name
        )
    }
}

impl std::error::Error for UnknownAgent {}

impl FromStr for Agent {
    type Err = UnknownAgent;

    fn from_str(name: &str) -> Result<Self, UnknownAgent> {
        match name {
            "claude" | "claude-code" => Ok(Self::Claude),
            "codex" => Ok(Self::Codex),
            "gemini" => Ok(Self::Gemini),
            "opencode" => Ok(Self::Opencode),
            "acp" => Ok(Self::Acp),
            "plain" => Ok(Self::Plain),
            _ if name.starts_with("acp:") => Ok(Self::Acp),
            _ => Err(UnknownAgent { name: name.to_owned() }),
        }
    }
}

/// An adapter of any protocol.
#[derive(Clone, Debug)]
pub enum AnyAdapter {
    /// Claude Code.
    Claude(Box<Claude>),
    /// Codex `exec --json`.
    CodexExec(CodexExec),
    /// Codex `app-server`.
    CodexAppServer(Box<CodexAppServer>),
    /// Gemini CLI.
    Gemini(Gemini),
    /// opencode.
    Opencode(Opencode),
    /// The Agent Client Protocol.
    Acp(Box<Acp>),
    /// None.
    Plain(Plain),
}

/// Calls the adapter inside.
macro_rules! inner {
    ($self:expr, $adapter:ident => $call:expr) => {
        match $self {
            AnyAdapter::Claude($adapter) => $call,
            AnyAdapter::CodexExec($adapter) => $call,
            AnyAdapter::CodexAppServer($adapter) => $call,
            AnyAdapter::Gemini($adapter) => $call,
            AnyAdapter::Opencode($adapter) => $call,
            AnyAdapter::Acp($adapter) => $call,
            AnyAdapter::Plain($adapter) => $call,
        }
    };
}

impl Adapter for AnyAdapter {
    fn name(&self) -> &'static str {
        inner!(self, adapter => adapter.name())
    }

    fn begin(&mut self, start: &Start, sink: &mut Sink) {
        inner!(self, adapter => adapter.begin(start, sink));
    }

    fn line(&mut self, line: &Line<'_>, sink: &mut Sink) {
        inner!(self, adapter => adapter.line(line, sink));
    }

    fn end(&mut self, sink: &mut Sink) {
        inner!(self, adapter => adapter.end(sink));
    }

    fn command(&self, command: &Command) -> Result<Vec<Message>, Refusal> {
        inner!(self, adapter => adapter.command(command))
    }

    fn exit_code(&self, code: u8, last_error: Option<&Failure>) -> Failure {
        inner!(self, adapter => adapter.exit_code(code, last_error))
    }

    fn review(&self, verdict: &mut Verdict) {
        inner!(self, adapter => adapter.review(verdict));
    }
}
