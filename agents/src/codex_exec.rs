//! Codex `exec --json`: one way, one turn, never asks.

use serde_json::Value;
use windlass_core::agent::{
    Adapter, Command, Event, Failure, Line, Message, Refusal, Role, Sink, Start, TextMode,
    TurnVerdict, Usage, UsageReport, Verdict,
};
use windlass_core::log_store::Stream;

use crate::codex::{self, Phase};
use crate::failure;
use crate::json::{Look, object};
use crate::one_shot::{self, Prompt};

/// The adapter of Codex `exec --json`.
#[derive(Clone, Debug, Default)]
pub struct CodexExec {
    prompt: Prompt,
    turn_open: bool,
    /// What the thread had used before, if somebody knows: its counts go on over processes.
    before: Option<Usage>,
}

impl CodexExec {
    fn message(&mut self, message: &Value, sink: &mut Sink) -> bool {
        match message.text("type").unwrap_or_default() {
            "thread.started" => {
                let id = message.filled("thread_id").unwrap_or_default();
                sink.event(Event::Session { id, model: None });
                self.prompt.give(sink);
            }
            "turn.started" => self.begin_turn(sink),
            "item.started" => return codex::item(message.at("item"), Phase::Started, sink),
            "item.updated" => return codex::item(message.at("item"), Phase::Updated, sink),
            "item.completed" => return codex::item(message.at("item"), Phase::Completed, sink),
            "turn.completed" => {
                self.begin_turn(sink);
                if message.has("usage") {
                    self.usage(codex::usage(message.at("usage")), sink);
                }
                self.end_turn(TurnVerdict::Completed, sink);
            }
            "turn.failed" => {
                self.begin_turn(sink);
                let said = message.at("error").filled("message").unwrap_or_default();
                let failure = failure::from_words(&said);
                self.end_turn(TurnVerdict::Failed { failure }, sink);
            }
            "error" => {
                let said = message.filled("message").unwrap_or_default();
                let retry = said.starts_with("Reconnecting");
                sink.event(Event::Trouble { failure: failure::from_words(&said), retry });
            }
            _ => return false,
        }
        true
    }

    fn begin_turn(&mut self, sink: &mut Sink) {
        self.prompt.give(sink);
        if !self.turn_open {
            self.turn_open = true;
            sink.event(Event::TurnStarted);
        }
    }

    fn end_turn(&mut self, verdict: TurnVerdict, sink: &mut Sink) {
        self.turn_open = false;
        sink.event(Event::TurnEnded(verdict));
    }

    fn usage(&self, session: Usage, sink: &mut Sink) {
        let (usage, cumulative) = match self.before {
            Some(before) => (session.minus(before), false),
            None => (session, true),
        };
        sink.event(Event::Usage(UsageReport { usage, cumulative, session: Some(session) }));
    }
}

impl Adapter for CodexExec {
    fn name(&self) -> &'static str {
        "codex-exec"
    }

    fn begin(&mut self, start: &Start, sink: &mut Sink) {
        self.before = match &start.resume {
            Some(_) => start.session_usage,
            None => Some(Usage::default()),
        };
        if let Some(text) = start.prompt.clone().filter(|_| !start.prompt_by_protocol) {
            let (role, mode) = (Role::User, TextMode::Whole);
            sink.event(Event::Text { role, item: None, text, mode, parent: None });
        }
        one_shot::send_prompt(start, sink);
    }

    fn line(&mut self, line: &Line<'_>, sink: &mut Sink) {
        match line.stream {
            Stream::Stdin => self.prompt.line(line),
            Stream::Stderr => sink.event(Event::Unknown),
            Stream::Stdout | Stream::Pty => {
                if line.bytes.is_empty() {
                    return;
                }
                let known = object(line.bytes).is_some_and(|message| self.message(&message, sink));
                if !known {
                    sink.event(Event::Unknown);
                }
            }
        }
    }

    fn end(&mut self, sink: &mut Sink) {
        self.prompt.give(sink);
    }

    fn command(&self, command: &Command) -> Result<Vec<Message>, Refusal> {
        one_shot::command(self.name(), command)
    }

    fn exit_code(&self, code: u8, last_error: Option<&Failure>) -> Failure {
        codex::exit_code(code, last_error)
    }

    fn review(&self, _: &mut Verdict) {}
}
