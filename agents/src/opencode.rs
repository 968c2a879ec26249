//! opencode `run --format json`: one way, one message on standard input, and no event that says that it is over.

use serde_json::Value;
use windlass_core::agent::{
    Adapter, Command, Event, Failure, FailureReason, FileChange, Line, Message, Refusal, Role,
    Sink, Start, TextMode, ToolAction, ToolStatus, ToolText, ToolUpdate, TurnVerdict, Usage,
    UsageReport, Verdict,
};
use windlass_core::log_store::Stream;

use crate::json::{Look, micros, object, whole};
use crate::one_shot::{self, Prompt};
use crate::{failure, tools};

/// The adapter of opencode `run --format json`.
#[derive(Clone, Debug, Default)]
pub struct Opencode {
    prompt: Prompt,
    turn_open: bool,
    used: Usage,
    /// How the turn stands: what its last step or error said. It is over when the process is.
    last: Option<TurnVerdict>,
}

impl Opencode {
    fn message(&mut self, message: &Value, sink: &mut Sink) -> bool {
        if let Some(id) = message.filled("sessionID") {
            sink.event(Event::Session { id, model: None });
        }
        let part = message.at("part");
        match message.text("type").unwrap_or_default() {
            "step_start" => {
                self.begin_turn(sink);
                self.last = None;
            }
            "text" => self.words(Role::Assistant, part, sink),
            "reasoning" => self.words(Role::Thinking, part, sink),
            "tool_use" => {
                self.begin_turn(sink);
                sink.event(Event::Tool(tool(part)));
            }
            "step_finish" => {
                self.begin_turn(sink);
                self.used = self.used.plus(usage(part));
                let (usage, cumulative) = (self.used, false);
                sink.event(Event::Usage(UsageReport { usage, cumulative, session: None }));
                self.last = finished(part.text("reason").unwrap_or_default());
            }
            "error" => {
                self.begin_turn(sink);
                let failure = trouble(message.at("error"));
                self.last = Some(TurnVerdict::Failed { failure: failure.clone() });
                sink.event(Event::Trouble { failure, retry: false });
            }
            _ => return false,
        }
        true
    }

    fn words(&mut self, role: Role, part: &Value, sink: &mut Sink) {
        self.begin_turn(sink);
        let (item, mode) = (part.filled("id"), TextMode::Whole);
        let text = part.filled("text").unwrap_or_default();
        sink.event(Event::Text { role, item, text, mode, parent: None });
    }

    fn begin_turn(&mut self, sink: &mut Sink) {
        self.prompt.give(sink);
        if !self.turn_open {
            self.turn_open = true;
            sink.event(Event::TurnStarted);
        }
    }
}

/// What the reason of a step's end says of the turn. After `tool-calls` another step follows, unless a permission was
/// refused: then nothing does, and the turn is not complete.
fn finished(reason: &str) -> Option<TurnVerdict> {
    let failed =
        |reason, said: &str| Some(TurnVerdict::Failed { failure: Failure::new(reason, said) });
    match reason {
        "stop" => Some(TurnVerdict::Completed),
        "length" => failed(FailureReason::OutputLimit, "the answer was cut off"),
        "content-filter" => failed(FailureReason::Refused, "the answer was filtered"),
        "error" => failed(FailureReason::Unknown, "the step failed"),
        _ => None,
    }
}

fn trouble(error: &Value) -> Failure {
    let data = error.at("data");
    let name = error.filled("name").unwrap_or_default();
    let said = data.filled("message").or_else(|| error.filled("message")).unwrap_or(name.clone());
    let mut failure = match data.count("statusCode") {
        Some(status) => failure::from_status(status, &said),
        None => failure::from_words(&said),
    };
    if failure.reason == FailureReason::Unknown {
        failure.reason = match name.as_str() {
            "ProviderAuthError" => FailureReason::Auth,
            "MessageOutputLengthError" => FailureReason::OutputLimit,
            "APIError" => FailureReason::Provider,
            _ => FailureReason::Unknown,
        };
    }
    let after = data.at("responseHeaders").text("retry-after").and_then(|text| text.parse().ok());
    failure.retry_after_ms =
        failure.retry_after_ms.or(after.and_then(|seconds: u64| seconds.checked_mul(1000)));
    failure
}

fn tool(part: &Value) -> ToolUpdate {
    let state = part.at("state");
    let (input, metadata) = (state.at("input"), state.at("metadata"));
    let name = part.filled("tool").unwrap_or_default();
    let exit_code = metadata.signed("exit");
    let error = state.filled("error");
    let refused = error.as_deref().is_some_and(|error| error.contains("rejected permission"));
    let status = match state.text("status") {
        Some("completed") if exit_code.is_some_and(|code| code != 0) => ToolStatus::Failed,
        Some("completed") => ToolStatus::Success,
        Some("error") if refused => ToolStatus::Denied,
        Some("error") => ToolStatus::Failed,
        _ => ToolStatus::Created,
    };
    let mut action = tools::action(&name, input);
    if let (ToolAction::FileEdit { changes }, Some(diff)) = (&mut action, metadata.filled("diff"))
        && let [FileChange::Edit { unified_diff, has_line_numbers, .. }] = &mut changes[..]
    {
        (*unified_diff, *has_line_numbers) = (Some(diff), true);
    }
    let text = state.filled("output").or(error);
    ToolUpdate {
        name: Some(name),
        action: Some(action),
        status: Some(status),
        output: text.map(|text| ToolText { text, mode: TextMode::Whole }),
        exit_code,
        ..ToolUpdate::of(part.first(&["callID", "id"]).unwrap_or_default())
    }
}

/// Reads the tokens of a step. opencode counts cached input apart.
fn usage(part: &Value) -> Usage {
    let tokens = part.at("tokens");
    let count = |of: &Value, key: &str| whole(of.at(key)).unwrap_or(0);
    let (read, write) = (count(tokens.at("cache"), "read"), count(tokens.at("cache"), "write"));
    let reasoning = count(tokens, "reasoning");
    Usage {
        input_tokens: count(tokens, "input").saturating_add(read).saturating_add(write),
        cached_input_tokens: read,
        cache_write_tokens: write,
        output_tokens: count(tokens, "output").saturating_add(reasoning),
        reasoning_tokens: reasoning,
        total_tokens: count(tokens, "total"),
        cost_usd_micros: micros(part.at("cost")),
    }
    .summed()
}

/// Returns what is refused in a line like `! permission requested: bash (rm -f a.txt); auto-rejecting`.
fn self_denied(line: &[u8]) -> Option<String> {
    let line = String::from_utf8_lossy(line);
    let at = line.find("permission requested: ")?;
    let what = line[at + "permission requested: ".len()..].strip_suffix("; auto-rejecting")?;
    Some(format!("refused without asking: {what}"))
}

impl Adapter for Opencode {
    fn name(&self) -> &'static str {
        "opencode"
    }

    fn begin(&mut self, start: &Start, sink: &mut Sink) {
        one_shot::send_prompt(start, sink);
    }

    fn line(&mut self, line: &Line<'_>, sink: &mut Sink) {
        match line.stream {
            Stream::Stdin => self.prompt.line(line),
            Stream::Stderr => match self_denied(line.bytes) {
                Some(text) => sink.event(Event::SelfDenied { text }),
                None => sink.event(Event::Unknown),
            },
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
        if let Some(verdict) = self.last.take() {
            sink.event(Event::TurnEnded(verdict));
        }
    }

    fn command(&self, command: &Command) -> Result<Vec<Message>, Refusal> {
        one_shot::command(self.name(), command)
    }

    fn exit_code(&self, code: u8, last_error: Option<&Failure>) -> Failure {
        match last_error {
            Some(error) if error.reason == FailureReason::Unknown => {
                let told = failure::from_words(&error.message);
                match told.reason {
                    FailureReason::Unknown => Failure { reason: FailureReason::Exit, ..told },
                    _ => told,
                }
            }
            Some(error) => error.clone(),
            None => Failure::new(FailureReason::Exit, format!("exit code {code}")),
        }
    }

    fn review(&self, _: &mut Verdict) {}
}
