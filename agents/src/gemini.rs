//! Gemini CLI, `-o stream-json`: one way, one turn; what would need an approval is not there at all.

use serde_json::Value;
use windlass_core::agent::{
    Adapter, AgentOutcome, Command, Event, Failure, FailureReason, Line, Message, Refusal, Role,
    Sink, Start, TextMode, ToolStatus, ToolText, ToolUpdate, TurnVerdict, Usage, UsageReport,
    Verdict,
};
use windlass_core::log_store::Stream;
use windlass_core::outcome::Exit;

use crate::json::{Look, object, whole};
use crate::one_shot::{self, Prompt};
use crate::{failure, tools};

/// The adapter of Gemini CLI's `stream-json`.
#[derive(Clone, Debug, Default)]
pub struct Gemini {
    prompt: Prompt,
    turn_open: bool,
}

impl Gemini {
    fn message(&mut self, message: &Value, sink: &mut Sink) -> bool {
        match message.text("type").unwrap_or_default() {
            "init" => {
                let id = message.filled("session_id").unwrap_or_default();
                sink.event(Event::Session { id, model: message.filled("model") });
            }
            "message" => return self.words(message, sink),
            "tool_use" => {
                self.begin_turn(sink);
                let name = message.filled("tool_name").unwrap_or_default();
                sink.event(Event::Tool(ToolUpdate {
                    action: Some(tools::action(&name, message.at("parameters"))),
                    name: Some(name),
                    status: Some(ToolStatus::Created),
                    ..ToolUpdate::of(message.filled("tool_id").unwrap_or_default())
                }));
            }
            "tool_result" => {
                self.begin_turn(sink);
                sink.event(Event::Tool(tool_result(message)));
            }
            "error" => {
                let said = message.filled("message").unwrap_or_default();
                if message.text("severity") == Some("warning") {
                    sink.event(Event::Notice { text: said });
                } else {
                    let failure = failure::from_words(&said);
                    sink.event(Event::Trouble { failure, retry: false });
                }
            }
            "result" => self.result(message, sink),
            _ => return false,
        }
        true
    }

    fn words(&mut self, message: &Value, sink: &mut Sink) -> bool {
        let text = message.filled("content").unwrap_or_default();
        let (role, mode) = match (message.text("role"), message.is("delta")) {
            (Some("user"), _) => (Role::User, TextMode::Whole),
            (Some("assistant" | "model"), true) => (Role::Assistant, TextMode::Append),
            (Some("assistant" | "model"), false) => (Role::Assistant, TextMode::Whole),
            _ => return false,
        };
        self.begin_turn(sink);
        sink.event(Event::Text { role, item: None, text, mode, parent: None });
        true
    }

    fn result(&mut self, message: &Value, sink: &mut Sink) {
        self.begin_turn(sink);
        if message.has("stats") {
            let usage = usage(message.at("stats"));
            sink.event(Event::Usage(UsageReport { usage, cumulative: false, session: None }));
        }
        self.turn_open = false;
        let verdict = if message.text("status") == Some("success") {
            TurnVerdict::Completed
        } else {
            let error = message.at("error");
            let said = error.filled("message").unwrap_or_else(|| "failed".to_owned());
            TurnVerdict::Failed { failure: failure::from_words(&said) }
        };
        sink.event(Event::TurnEnded(verdict));
    }

    fn begin_turn(&mut self, sink: &mut Sink) {
        if !self.turn_open {
            self.turn_open = true;
            sink.event(Event::TurnStarted);
        }
    }
}

fn tool_result(message: &Value) -> ToolUpdate {
    let error = message.at("error");
    let said = error.filled("message");
    let refused = |text: &str| {
        let lower = text.to_lowercase();
        lower.contains("denied") || lower.contains("rejected by user")
    };
    let status = match message.text("status") {
        Some("success") => ToolStatus::Success,
        _ if said.as_deref().is_some_and(refused) => ToolStatus::Denied,
        _ => ToolStatus::Failed,
    };
    // A tool may succeed without a word; an empty text says that it was asked.
    let text = message.text("output").map(str::to_owned).or(said);
    ToolUpdate {
        status: Some(status),
        output: text.map(|text| ToolText { text, mode: TextMode::Whole }),
        ..ToolUpdate::of(message.filled("tool_id").unwrap_or_default())
    }
}

fn usage(stats: &Value) -> Usage {
    let count = |key: &str| whole(stats.at(key)).unwrap_or(0);
    Usage {
        input_tokens: count("input_tokens"),
        cached_input_tokens: count("cached"),
        output_tokens: count("output_tokens"),
        reasoning_tokens: count("thoughts"),
        total_tokens: count("total_tokens"),
        ..Usage::default()
    }
    .summed()
}

/// Returns the status of the provider's answer that an exit code is: it exits with the status, of which 8 bits are left.
fn status_of(code: u8) -> Option<u16> {
    let status = u16::from(code) + 256;
    (400..512).contains(&status).then_some(status)
}

impl Adapter for Gemini {
    fn name(&self) -> &'static str {
        "gemini"
    }

    fn begin(&mut self, start: &Start, sink: &mut Sink) {
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

    fn end(&mut self, _: &mut Sink) {}

    fn command(&self, command: &Command) -> Result<Vec<Message>, Refusal> {
        one_shot::command(self.name(), command)
    }

    fn exit_code(&self, code: u8, last_error: Option<&Failure>) -> Failure {
        let said =
            last_error.map_or_else(|| format!("exit code {code}"), |error| error.message.clone());
        if let Some(status) = status_of(code) {
            return failure::from_status(status.into(), &said);
        }
        let told = failure::from_words(&said);
        let reason = match code {
            41 => FailureReason::Auth,
            42 if told.reason == FailureReason::Session => FailureReason::Session,
            42 | 52 => FailureReason::Config,
            53 => FailureReason::TurnLimit,
            54 => FailureReason::Tool,
            55 => FailureReason::Untrusted,
            _ if told.reason == FailureReason::Unknown => FailureReason::Exit,
            _ => told.reason,
        };
        Failure { reason, ..told }
    }

    fn review(&self, verdict: &mut Verdict) {
        // The stream does not tell the status, the exit code does.
        if let AgentOutcome::Failed { failure } = &mut verdict.outcome
            && let Some(Exit::Code(code)) = verdict.exit
            && let Some(status) = status_of(code)
            && failure.http_status.is_none()
        {
            *failure = Failure {
                resets_at_ms: failure.resets_at_ms,
                retry_after_ms: failure.retry_after_ms,
                ..failure::from_status(status.into(), &failure.message)
            };
        }
    }
}
