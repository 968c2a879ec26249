//! Claude Code: `stream-json` both ways, with the control protocol.

mod approval;
mod words;

use std::collections::VecDeque;

use serde_json::{Value, json};
use windlass_core::agent::{
    Adapter, Command, Event, Failure, FailureReason, LimitWindow, Line, Message, Refusal, Role,
    Sink, Start, TextMode, TurnVerdict, Usage, UsageReport, Verdict,
};
use windlass_core::log_store::Stream;

use crate::failure;
use crate::json::{Look, line, micros, object, whole};
use crate::json_rpc::Waiting;

use approval::Asked;
use words::Words;

/// How many messages of ours may wait for their replay.
const MAX_SENT: usize = 64;
/// How many calls are remembered that were asked for or refused.
const MAX_ASKED: usize = 256;

/// Types that say nothing about the conversation.
const PASSED_OVER: &[&str] = &[
    "auth_status",
    "command_lifecycle",
    "control_response",
    "keep_alive",
    "prompt_suggestion",
    "streamlined_text",
    "tool_progress",
    "tool_use_summary",
    "transcript_mirror",
];

/// Kinds of `system` that say nothing about the conversation.
const SYSTEM_PASSED_OVER: &[&str] = &[
    "background_tasks_changed",
    "code_change_published",
    "files_persisted",
    "hook_progress",
    "hook_response",
    "hook_started",
    "post_turn_summary",
    "session_state_changed",
    "status",
    "task_notification",
    "task_progress",
    "task_started",
    "task_updated",
    "thinking_tokens",
    "vcs_state_changed",
    "worker_shutting_down",
];

/// The adapter of Claude Code.
#[derive(Clone, Debug, Default)]
pub struct Claude {
    start: Option<Start>,
    words: Words,
    /// Our control requests that wait for an answer, with their kinds.
    ours: Waiting<String>,
    /// The agent's that wait for ours.
    theirs: Waiting<Asked>,
    /// Messages of ours that may come back as replays.
    sent: VecDeque<String>,
    /// Calls that were asked for or refused: a refusal is told twice.
    asked: VecDeque<String>,
    /// A turn of ours is under way. What the agent does between them is its own affair.
    turn_open: bool,
    /// Something of our side was in the log, so its absence means something.
    our_side_is_known: bool,
    /// We asked for the turn to be left off.
    interrupting: bool,
    used: Usage,
    limits: Vec<LimitWindow>,
    /// What the last message of the model said went wrong.
    error: Option<String>,
}

impl Claude {
    fn agent_said(&mut self, message: &Value, sink: &mut Sink) -> bool {
        if let Some(id) = message.filled("session_id")
            && message.text("type") != Some("conversation_reset")
        {
            let model = message.filled("model");
            sink.event(Event::Session { id, model });
        }
        match message.text("type").unwrap_or_default() {
            "system" => return self.system(message, sink),
            "stream_event" => {
                self.works(sink);
                self.words.streamed(message, sink);
            }
            "assistant" => {
                self.works(sink);
                self.error = message.filled("error").or(self.error.take());
                self.words.assistant(message, sink);
            }
            "user" => self.user(message, sink),
            "result" => self.result(message, sink),
            "control_request" => self.asks(message, sink),
            "control_cancel_request" => {
                let id = message.filled("request_id").unwrap_or_default();
                if let Some(asked) = self.theirs.remove(&id) {
                    sink.event(Event::Withdrawn { id: asked.id });
                }
            }
            "control_response" => self.answered(message.at("response"), sink),
            "rate_limit_event" => self.rate_limit(message.at("rate_limit_info"), sink),
            "conversation_reset" => {
                sink.event(Event::Notice { text: "new conversation".to_owned() })
            }
            other => return PASSED_OVER.contains(&other),
        }
        true
    }

    fn system(&mut self, message: &Value, sink: &mut Sink) -> bool {
        match message.text("subtype").unwrap_or_default() {
            "init" => {}
            "api_retry" => {
                let said = message.first(&["error", "message"]);
                let said = said.unwrap_or_else(|| "the request is tried again".to_owned());
                let mut failure = match message.count("error_status") {
                    Some(status) => failure::from_status(status, &said),
                    None => failure::from_words(&said),
                };
                failure.retry_after_ms = message.count("retry_delay_ms").or(failure.retry_after_ms);
                sink.event(Event::Trouble { failure, retry: true });
            }
            "compact_boundary" => {
                sink.event(Event::Notice { text: "context compacted".to_owned() })
            }
            "informational" | "local_command" => {
                let text = message.first(&["content", "message", "text"]).unwrap_or_default();
                sink.event(Event::Notice { text });
            }
            "permission_denied" => self.denied(message, sink),
            other => return SYSTEM_PASSED_OVER.contains(&other),
        }
        true
    }

    /// Something was refused without a question to us.
    fn denied(&mut self, denial: &Value, sink: &mut Sink) {
        let id = denial.filled("tool_use_id").unwrap_or_default();
        if self.note_asked(id) {
            let tool = denial.filled("tool_name").unwrap_or_default();
            sink.event(Event::SelfDenied { text: format!("refused without asking: {tool}") });
        }
    }

    /// Remembers a call; says whether it is new.
    fn note_asked(&mut self, id: String) -> bool {
        if id.is_empty() {
            return true;
        }
        if self.asked.contains(&id) {
            return false;
        }
        if self.asked.len() == MAX_ASKED {
            self.asked.pop_front();
        }
        self.asked.push_back(id);
        true
    }

    fn user(&mut self, message: &Value, sink: &mut Sink) {
        let content = message.at("message").at("content");
        let parent = message.filled("parent_tool_use_id");
        self.words.results(content, message.at("tool_use_result"), parent.as_ref(), sink);
        let text = words::text_of(content);
        if message.is("isReplay") {
            let print = fingerprint(&text);
            if let Some(at) = self.sent.iter().position(|sent| *sent == print) {
                self.sent.remove(at);
                return;
            }
        } else if message.is("isSynthetic") || parent.is_some() {
            return;
        }
        if !text.is_empty() {
            self.works(sink);
            words::user(text, sink);
        }
    }

    fn result(&mut self, message: &Value, sink: &mut Sink) {
        self.usage(message, sink);
        for denial in message.list("permission_denials") {
            self.denied(denial, sink);
        }
        let said = message.filled("result").unwrap_or_default();
        // One process gives several results: of scheduled work and of its background tasks, too.
        let origin = message.at("origin");
        let origin = origin.as_str().or_else(|| origin.text("kind")).unwrap_or("human");
        self.works(sink);
        if origin != "human" || !self.turn_open {
            let failed = message.is("is_error");
            if failed {
                let failure = failure::from_words(&said);
                sink.event(Event::Trouble { failure, retry: true });
            }
            sink.event(Event::MessageEnded);
            return sink.event(Event::Notice { text: format!("work of its own ended ({origin})") });
        }
        if !self.words.take_said() && !message.is("is_error") && !said.is_empty() {
            let (role, mode) = (Role::Assistant, TextMode::Whole);
            sink.event(Event::Text { role, item: None, text: said, mode, parent: None });
        }
        for (_, asked) in std::mem::take(&mut self.theirs).iter() {
            sink.event(Event::Withdrawn { id: asked.id.clone() });
        }
        let verdict = self.verdict(message);
        self.turn_open = false;
        self.interrupting = false;
        self.error = None;
        sink.event(Event::TurnEnded(verdict));
        if message.count("queued_turn_count").is_some_and(|queued| queued > 0) {
            self.begin_turn(sink);
        }
    }

    fn verdict(&self, message: &Value) -> TurnVerdict {
        let subtype = message.text("subtype").unwrap_or_default();
        let why = message.text("terminal_reason").unwrap_or_default();
        if subtype == "success" && !message.is("is_error") {
            return TurnVerdict::Completed;
        }
        if self.interrupting || why.starts_with("aborted") {
            return TurnVerdict::Interrupted;
        }
        let said = message.filled("result").unwrap_or_else(|| {
            let text = |error: &Value| {
                error.as_str().map(str::to_owned).or_else(|| error.filled("message"))
            };
            let errors: Vec<String> = message.list("errors").iter().filter_map(text).collect();
            if errors.is_empty() { subtype.to_owned() } else { errors.join("\n") }
        });
        let told = match message.count("api_error_status") {
            Some(status) => failure::from_status(status, &said),
            None => failure::from_words(&said),
        };
        let spent = self.limits.iter().any(|window| window.exhausted);
        let reason = match (subtype, self.error.as_deref()) {
            ("error_max_turns", _) => FailureReason::TurnLimit,
            ("error_max_budget_usd", _) => FailureReason::Budget,
            _ if why == "blocking_limit" || spent => FailureReason::UsageLimit,
            (_, Some("authentication_failed" | "oauth_org_not_allowed")) => FailureReason::Auth,
            (_, Some("billing_error")) => FailureReason::UsageLimit,
            (_, Some("rate_limit")) if told.reason != FailureReason::UsageLimit => {
                FailureReason::RateLimit
            }
            (_, Some("invalid_request")) if told.reason == FailureReason::Unknown => {
                FailureReason::Request
            }
            (_, Some("server_error" | "overloaded")) => FailureReason::Provider,
            (_, Some("max_output_tokens")) => FailureReason::OutputLimit,
            _ => told.reason,
        };
        TurnVerdict::Failed { failure: Failure { reason, ..told } }
    }

    /// A result tells the tokens of its turn, and per model those of the process; the cost is of the process.
    fn usage(&mut self, message: &Value, sink: &mut Sink) {
        let models = message.at("modelUsage").as_object().filter(|models| !models.is_empty());
        let cost = micros(message.at("total_cost_usd"));
        self.used = match models {
            Some(models) => models.values().map(model_usage).fold(Usage::default(), Usage::plus),
            None if message.has("usage") => {
                let cost = self.used.cost_usd_micros;
                let sum = self.used.plus(words::usage(message.at("usage")));
                Usage { cost_usd_micros: cost, ..sum }
            }
            None => self.used,
        };
        self.used.cost_usd_micros = cost.or(self.used.cost_usd_micros);
        if self.used != Usage::default() {
            let (usage, cumulative) = (self.used, false);
            sink.event(Event::Usage(UsageReport { usage, cumulative, session: None }));
        }
    }

    fn rate_limit(&mut self, info: &Value, sink: &mut Sink) {
        let exhausted = info.text("status") == Some("rejected");
        let name = info.filled("rateLimitType").unwrap_or_default();
        let used = whole(&json!(info.at("utilization").as_f64().map(|used| used * 100.0)));
        let window = LimitWindow {
            name: name.clone(),
            used_percent: used.and_then(|used| u32::try_from(used).ok()),
            resets_at_ms: info.count("resetsAt").and_then(|at| at.checked_mul(1000)),
            exhausted: exhausted && info.text("overageStatus") != Some("allowed"),
        };
        self.limits.retain(|other| other.name != name);
        self.limits.truncate(16);
        self.limits.push(window);
        sink.event(Event::Limits(self.limits.clone()));
    }

    fn asks(&mut self, message: &Value, sink: &mut Sink) {
        let id = message.filled("request_id").unwrap_or_default();
        let request = message.at("request");
        match request.text("subtype").unwrap_or_default() {
            "can_use_tool" => {
                self.works(sink);
                let asked = Asked::read(&id, request);
                self.note_asked(asked.tool_id.clone());
                sink.event(Event::Asked(asked.approval(request)));
                self.theirs.insert(id, asked);
            }
            // We register no hooks; one that is called all the same is told to go on.
            "hook_callback" if self.start.is_some() => {
                sink.send(format!("hook:{id}"), approval::response(&id, &json!({})));
            }
            other if self.start.is_some() => {
                let error = format!("{other} is not supported");
                let response = json!({ "subtype": "error", "request_id": id, "error": error });
                let message = json!({ "type": "control_response", "response": response });
                sink.send(format!("refuse:{id}"), line(&message));
            }
            _ => {}
        }
    }

    /// Takes the answer to a control request of ours.
    fn answered(&mut self, response: &Value, sink: &mut Sink) {
        let id = response.filled("request_id").unwrap_or_default();
        let kind = self.ours.remove(&id).unwrap_or_default();
        let failed = response.text("subtype") == Some("error");
        if failed {
            let said = response.filled("error").unwrap_or_default();
            let failure = failure::from_words(&said);
            sink.event(Event::Trouble { failure: failure.clone(), retry: false });
            if kind == "interrupt" {
                self.interrupting = false;
            }
            if kind == "initialize" && self.start.is_some() {
                sink.event(Event::TurnEnded(TurnVerdict::Failed { failure }));
            }
        } else if kind == "initialize"
            && let Some(prompt) = self.start.as_ref().and_then(|start| start.prompt.as_ref())
        {
            sink.send("prompt", user_message(prompt));
        }
    }

    fn agent_was_told(&mut self, message: &Value, sink: &mut Sink) {
        self.our_side_is_known = true;
        match message.text("type").unwrap_or_default() {
            "user" => {
                let text = words::text_of(message.at("message").at("content"));
                if self.sent.len() == MAX_SENT {
                    self.sent.pop_front();
                }
                self.sent.push_back(fingerprint(&text));
                self.begin_turn(sink);
                words::user(text, sink);
            }
            "control_request" => {
                let kind = message.at("request").filled("subtype").unwrap_or_default();
                self.interrupting |= kind == "interrupt" && self.turn_open;
                let id = message.filled("request_id").unwrap_or_default();
                self.ours.insert(id, kind);
            }
            "control_response" => {
                let response = message.at("response");
                let id = response.filled("request_id").unwrap_or_default();
                if let Some(asked) = self.theirs.remove(&id) {
                    sink.event(asked.answered(response));
                }
            }
            _ => {}
        }
    }

    /// The agent does something: part of a turn, whoever asked for it, if we cannot know who did.
    fn works(&mut self, sink: &mut Sink) {
        if !self.our_side_is_known {
            self.begin_turn(sink);
        }
    }

    fn begin_turn(&mut self, sink: &mut Sink) {
        if !self.turn_open {
            self.turn_open = true;
            sink.event(Event::TurnStarted);
        }
    }
}

fn model_usage(model: &Value) -> Usage {
    let count = |key: &str| whole(model.at(key)).unwrap_or(0);
    let (read, write) = (count("cacheReadInputTokens"), count("cacheCreationInputTokens"));
    Usage {
        input_tokens: count("inputTokens").saturating_add(read).saturating_add(write),
        cached_input_tokens: read,
        cache_write_tokens: write,
        output_tokens: count("outputTokens"),
        ..Usage::default()
    }
    .summed()
}

/// What a message is known by when it comes back: its length and how it begins.
fn fingerprint(text: &str) -> String {
    let head: String = text.chars().take(256).collect();
    format!("{} {head}", text.len())
}

/// Makes a message of the user.
fn user_message(text: &str) -> Vec<u8> {
    line(&json!({
        "type": "user",
        "message": { "role": "user", "content": text },
        "parent_tool_use_id": null,
    }))
}

fn control(id: &str, request: &Value) -> Vec<u8> {
    line(&json!({ "type": "control_request", "request_id": id, "request": request }))
}

impl Adapter for Claude {
    fn name(&self) -> &'static str {
        "claude"
    }

    fn begin(&mut self, start: &Start, sink: &mut Sink) {
        self.start = Some(start.clone());
        self.our_side_is_known = true;
        let request = json!({ "subtype": "initialize", "hooks": null });
        sink.send("initialize", control("initialize", &request));
    }

    fn line(&mut self, line: &Line<'_>, sink: &mut Sink) {
        let message = object(line.bytes);
        match (line.stream, message) {
            (Stream::Stdin, Some(message)) => self.agent_was_told(&message, sink),
            (Stream::Stdout | Stream::Pty, Some(message)) => {
                if !self.agent_said(&message, sink) {
                    sink.event(Event::Unknown);
                }
            }
            (Stream::Stdout | Stream::Pty, None) if line.bytes.is_empty() => {}
            (Stream::Stdout | Stream::Pty | Stream::Stderr, _) => sink.event(Event::Unknown),
            (Stream::Stdin, None) => {}
        }
    }

    fn end(&mut self, _: &mut Sink) {}

    fn command(&self, command: &Command) -> Result<Vec<Message>, Refusal> {
        let one = |key: String, bytes: Vec<u8>| Ok(vec![Message { key, bytes, close: false }]);
        match command {
            Command::Prompt { key, text } => {
                let key = format!("prompt:{key}");
                let bytes = user_message(text);
                one(key, bytes)
            }
            Command::Interrupt { key } => {
                let key = format!("interrupt:{key}");
                let bytes = control(&key, &json!({ "subtype": "interrupt" }));
                one(key, bytes)
            }
            Command::Answer { id, decision } => {
                let asked = self.theirs.get(&id.0).ok_or(Refusal::NotOpen { id: id.clone() })?;
                let bytes = approval::response(&id.0, &asked.answer(decision)?);
                one(format!("answer:{}", id.0), bytes)
            }
            Command::Finish => {
                let (key, bytes) = ("finish".to_owned(), Vec::new());
                Ok(vec![Message { key, bytes, close: true }])
            }
        }
    }

    fn exit_code(&self, code: u8, last_error: Option<&Failure>) -> Failure {
        let said =
            last_error.map_or_else(|| format!("exit code {code}"), |error| error.message.clone());
        let told = failure::from_words(&said);
        let reason = match told.reason {
            FailureReason::Unknown => FailureReason::Exit,
            told => told,
        };
        Failure { reason, ..told }
    }

    fn review(&self, _: &mut Verdict) {}
}
