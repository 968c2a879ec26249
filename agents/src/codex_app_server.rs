//! Codex `app-server`: JSON-RPC without `jsonrpc`, both ways, with approvals.
//!
//! The server numbers its own requests from 0, ours have names: the two are kept apart, and 0 is an id like any other.

mod approval;

use serde_json::{Value, json};
use windlass_core::agent::{
    Adapter, Command, Event, Failure, FailureReason, LimitWindow, Line, Message, Permission,
    Refusal, Role, Sink, Start, TextMode, ToolText, ToolUpdate, TurnVerdict, Usage, UsageReport,
    Verdict,
};
use windlass_core::log_store::Stream;

use crate::codex::{self, Phase};
use crate::failure;
use crate::json::{Look, object};
use crate::json_rpc::{self, Dialect, Rpc, Waiting};

use approval::Asked;

const DIALECT: Dialect = Dialect { versioned: false };

/// Notifications that say nothing about the conversation, or what is said elsewhere too.
const PASSED_OVER: &[&str] = &[
    "account/login/completed",
    "account/updated",
    "app/list/updated",
    "hook/completed",
    "hook/started",
    "item/commandExecution/terminalInteraction",
    "item/fileChange/outputDelta",
    "item/mcpToolCall/progress",
    "item/reasoning/summaryPartAdded",
    "mcpServer/startupStatus/updated",
    "rawResponseItem/completed",
    "remoteControl/status/changed",
    "skills/changed",
    "thread/archived",
    "thread/closed",
    "thread/compacted",
    "thread/goal/cleared",
    "thread/goal/updated",
    "thread/name/updated",
    "thread/settings/updated",
    "thread/status/changed",
    "turn/diff/updated",
];

/// The adapter of Codex `app-server`.
#[derive(Clone, Debug, Default)]
pub struct CodexAppServer {
    start: Option<Start>,
    /// Our requests that wait for an answer, with their methods.
    ours: Waiting<String>,
    /// The server's requests that wait for ours.
    theirs: Waiting<Asked>,
    thread: Option<String>,
    turn: Option<String>,
    turn_open: bool,
    /// What the thread had used before this process.
    before: Option<Usage>,
    /// What the thread used in this process, and what the ones before it did.
    used: Usage,
    used_elsewhere: Usage,
    limits: Vec<LimitWindow>,
}

impl CodexAppServer {
    fn server_said(&mut self, message: &Value, sink: &mut Sink) -> bool {
        match json_rpc::read(message) {
            Some(Rpc::Notification { method, params }) => self.notified(method, params, sink),
            Some(Rpc::Request { id, method, params }) => {
                match Asked::read(&id, method, params) {
                    Some(asked) => {
                        sink.event(Event::Asked(asked.approval()));
                        self.theirs.insert(id, asked);
                    }
                    None => {
                        if self.start.is_some() {
                            sink.send(format!("refuse:{id}"), DIALECT.refuse(&id, method));
                        }
                        return false;
                    }
                }
                true
            }
            Some(Rpc::Result { id, result }) => {
                let method = self.ours.remove(&id).unwrap_or_default();
                self.answered(&method, result, sink);
                true
            }
            Some(Rpc::Error { id, error }) => {
                let method = self.ours.remove(&id).unwrap_or_default();
                self.refused(&id, &method, error, sink);
                true
            }
            None => false,
        }
    }

    fn server_was_told(&mut self, message: &Value, sink: &mut Sink) {
        match json_rpc::read(message) {
            Some(Rpc::Request { id, method, .. }) => self.ours.insert(id, method.to_owned()),
            Some(Rpc::Result { id, result }) => {
                if let Some(asked) = self.theirs.remove(&id) {
                    sink.event(asked.answered(result));
                }
            }
            Some(Rpc::Error { id, .. }) => {
                if let Some(asked) = self.theirs.remove(&id) {
                    sink.event(Event::Answered { id: asked.id, allowed: false, text: None });
                }
            }
            Some(Rpc::Notification { .. }) | None => {}
        }
    }

    fn answered(&mut self, method: &str, result: &Value, sink: &mut Sink) {
        let driven = self.start.clone();
        let thread = result.at("thread");
        match (method, driven) {
            ("initialize", Some(start)) => {
                sink.send("initialized", DIALECT.notification("initialized", &Value::Null));
                sink.send("thread", open_thread(&start));
            }
            ("thread/start" | "thread/resume" | "thread/fork", start) => {
                self.opened(thread, result.filled("model"), sink);
                if let Some(start) = start
                    && let Some(prompt) = &start.prompt
                    && let Some(thread) = &self.thread
                {
                    sink.send("prompt", start_turn("prompt", thread, prompt));
                }
            }
            // Which request it answers is not known where our side was not recorded.
            ("", _) if thread.has("id") && thread.has("status") => {
                self.opened(thread, result.filled("model"), sink);
            }
            ("turn/start", _) => self.turn = result.at("turn").filled("id").or(self.turn.take()),
            _ => {}
        }
    }

    fn opened(&mut self, thread: &Value, model: Option<String>, sink: &mut Sink) {
        if let Some(id) = thread.filled("id") {
            if self.thread.as_ref() != Some(&id) && self.thread.replace(id.clone()).is_some() {
                self.before = None;
                self.used_elsewhere = self.used_elsewhere.plus(std::mem::take(&mut self.used));
            }
            sink.event(Event::Session { id, model: model.or_else(|| thread.filled("model")) });
        }
    }

    fn refused(&mut self, id: &str, method: &str, error: &Value, sink: &mut Sink) {
        let said = error.filled("message").unwrap_or_default();
        let mut failure = failure::from_words(&said);
        let opening = matches!(method, "initialize" | "thread/start" | "thread/resume");
        if failure.reason == FailureReason::Unknown && method.starts_with("thread/") {
            failure.reason = FailureReason::Session;
        }
        match method {
            "turn/interrupt" | "turn/steer" => sink.event(Event::Notice { text: said }),
            "turn/start" if !self.turn_open => {
                sink.event(Event::TurnStarted);
                sink.event(Event::TurnEnded(TurnVerdict::Failed { failure }));
            }
            _ => {
                sink.event(Event::Trouble { failure: failure.clone(), retry: false });
                // Without a thread there will be no turn: that is the end of what we started.
                if self.start.is_some() && opening && (id == "\"initialize\"" || id == "\"thread\"")
                {
                    sink.event(Event::TurnEnded(TurnVerdict::Failed { failure }));
                }
            }
        }
    }

    fn notified(&mut self, method: &str, params: &Value, sink: &mut Sink) -> bool {
        match method {
            "thread/started" => self.opened(params.at("thread"), None, sink),
            "turn/started" => {
                self.turn = params.at("turn").filled("id");
                self.begin_turn(sink);
            }
            "turn/completed" => self.turn_completed(params.at("turn"), sink),
            "turn/plan/updated" => {
                let item = format!("plan:{}", params.text("turnId").unwrap_or_default());
                let todos = codex::plan(params.list("plan"));
                sink.event(Event::Todos { item, todos });
            }
            "item/started" => return codex::item(params.at("item"), Phase::Started, sink),
            "item/updated" => return codex::item(params.at("item"), Phase::Updated, sink),
            "item/completed" => return codex::item(params.at("item"), Phase::Completed, sink),
            "item/agentMessage/delta" => delta(Role::Assistant, params, sink),
            "item/plan/delta" => delta(Role::Plan, params, sink),
            "item/reasoning/summaryTextDelta" | "item/reasoning/textDelta" => {
                delta(Role::Thinking, params, sink);
            }
            "item/commandExecution/outputDelta" => {
                let text = params.text("delta").unwrap_or_default().to_owned();
                sink.event(Event::Tool(ToolUpdate {
                    output: Some(ToolText { text, mode: TextMode::Append }),
                    ..ToolUpdate::of(params.filled("itemId").unwrap_or_default())
                }));
            }
            "thread/tokenUsage/updated" => self.usage(params.at("tokenUsage"), sink),
            "account/rateLimits/updated" => self.rate_limits(params.at("rateLimits"), sink),
            "serverRequest/resolved" => {
                let id = params.at("requestId").to_string();
                if let Some(asked) = self.theirs.remove(&id) {
                    sink.event(Event::Withdrawn { id: asked.id });
                }
            }
            "error" => {
                let (failure, retry) = (trouble(params.at("error")), params.is("willRetry"));
                sink.event(Event::Trouble { failure, retry });
            }
            "configWarning" | "deprecationNotice" | "warning" | "model/rerouted" => {
                let text = params.first(&["summary", "message"]).unwrap_or_default();
                sink.event(Event::Notice { text });
            }
            _ => return PASSED_OVER.contains(&method),
        }
        true
    }

    fn begin_turn(&mut self, sink: &mut Sink) {
        if !self.turn_open {
            self.turn_open = true;
            sink.event(Event::TurnStarted);
        }
    }

    fn turn_completed(&mut self, turn: &Value, sink: &mut Sink) {
        self.begin_turn(sink);
        self.turn_open = false;
        self.turn = None;
        for (_, asked) in std::mem::take(&mut self.theirs).iter() {
            sink.event(Event::Withdrawn { id: asked.id.clone() });
        }
        sink.event(Event::TurnEnded(match turn.text("status") {
            Some("completed") => TurnVerdict::Completed,
            Some("interrupted") => TurnVerdict::Interrupted,
            _ => TurnVerdict::Failed { failure: trouble(turn.at("error")) },
        }));
    }

    fn usage(&mut self, usage: &Value, sink: &mut Sink) {
        let total = codex::usage(usage.at("total"));
        let last = codex::usage(usage.at("last"));
        // What is told before the first turn is the past of a thread that was resumed.
        let past = if self.turn_open { total.minus(last) } else { total };
        let before = *self.before.get_or_insert(past);
        self.used = total.minus(before);
        let usage = self.used_elsewhere.plus(self.used);
        sink.event(Event::Usage(UsageReport { usage, cumulative: false, session: Some(total) }));
    }

    fn rate_limits(&mut self, limits: &Value, sink: &mut Sink) {
        let reached = limits.has("rateLimitReachedType");
        let window = |name: &str| {
            let window = limits.at(name);
            window.is_object().then(|| LimitWindow {
                name: name.to_owned(),
                used_percent: window.count("usedPercent").and_then(|used| u32::try_from(used).ok()),
                resets_at_ms: window.count("resetsAt").and_then(|at| at.checked_mul(1000)),
                exhausted: reached && window.count("usedPercent") >= Some(100),
            })
        };
        let windows: Vec<_> = ["primary", "secondary"].into_iter().filter_map(window).collect();
        // An update without windows says nothing new.
        if !windows.is_empty() && windows != self.limits {
            self.limits.clone_from(&windows);
            sink.event(Event::Limits(windows));
        }
    }

    fn prompt(&self, key: &str, text: &str) -> Result<Vec<Message>, Refusal> {
        let thread = self.thread.as_deref().ok_or(Refusal::NotReady)?;
        let key = format!("prompt:{key}");
        Ok(vec![Message { bytes: start_turn(&key, thread, text), key, close: false }])
    }

    fn interrupt(&self, key: &str) -> Result<Vec<Message>, Refusal> {
        let (Some(thread), Some(turn)) = (&self.thread, &self.turn) else {
            return Err(Refusal::NoTurn);
        };
        let key = format!("interrupt:{key}");
        let params = json!({ "threadId": thread, "turnId": turn });
        let bytes = DIALECT.request(&key, "turn/interrupt", &params);
        Ok(vec![Message { key, bytes, close: false }])
    }
}

fn delta(role: Role, params: &Value, sink: &mut Sink) {
    sink.event(Event::Text {
        role,
        item: params.filled("itemId"),
        text: params.text("delta").unwrap_or_default().to_owned(),
        mode: TextMode::Append,
        parent: None,
    });
}

/// Reads an error: its kind is a word, or an object whose only field is one.
fn trouble(error: &Value) -> Failure {
    let said = error.filled("message").unwrap_or_default();
    let said = match error.filled("additionalDetails") {
        Some(details) if !said.contains(&details) => format!("{said} ({details})"),
        _ => said,
    };
    let info = error.at("codexErrorInfo");
    let status = info
        .as_object()
        .and_then(|fields| fields.values().next())
        .and_then(|fields| fields.count("httpStatusCode"));
    let told = match status {
        Some(status) => failure::from_status(status, &said),
        None => failure::from_words(&said),
    };
    let reason = match info.as_str() {
        Some("usageLimitExceeded") => FailureReason::UsageLimit,
        Some("contextWindowExceeded") => FailureReason::ContextWindow,
        Some("internalServerError" | "serverOverloaded") => FailureReason::Provider,
        Some("unauthorized") => FailureReason::Auth,
        Some("badRequest") => FailureReason::Request,
        Some("sandboxError") => FailureReason::Tool,
        _ => told.reason,
    };
    Failure { reason, ..told }
}

/// What the permission is called: when to ask, and what the sandbox allows.
fn policy(permission: Permission) -> (&'static str, &'static str) {
    match permission {
        Permission::Plan => ("on-request", "read-only"),
        Permission::Ask => ("untrusted", "workspace-write"),
        Permission::Edit => ("on-request", "workspace-write"),
        Permission::Full => ("never", "danger-full-access"),
    }
}

fn open_thread(start: &Start) -> Vec<u8> {
    let (approvals, sandbox) = policy(start.permission);
    let mut params = json!({
        "cwd": start.cwd,
        "approvalPolicy": approvals,
        "sandbox": sandbox,
        "config": { "sandbox_workspace_write": {
            "writable_roots": start.writable_roots,
            "exclude_slash_tmp": true,
            "exclude_tmpdir_env_var": true,
        }},
    });
    if let Some(model) = &start.model {
        params["model"] = json!(model);
    }
    match &start.resume {
        Some(thread) => {
            params["threadId"] = json!(thread);
            params["excludeTurns"] = json!(true);
            DIALECT.request("thread", "thread/resume", &params)
        }
        None => DIALECT.request("thread", "thread/start", &params),
    }
}

fn start_turn(id: &str, thread: &str, text: &str) -> Vec<u8> {
    let input = json!([{ "type": "text", "text": text }]);
    DIALECT.request(id, "turn/start", &json!({ "threadId": thread, "input": input }))
}

impl Adapter for CodexAppServer {
    fn name(&self) -> &'static str {
        "codex-app-server"
    }

    fn begin(&mut self, start: &Start, sink: &mut Sink) {
        self.start = Some(start.clone());
        if start.resume.is_some() {
            self.before = start.session_usage;
        }
        let (name, version) = &start.client;
        let params = json!({
            "clientInfo": { "name": name, "title": name, "version": version },
            "capabilities": { "experimentalApi": false },
        });
        sink.send("initialize", DIALECT.request("initialize", "initialize", &params));
    }

    fn line(&mut self, line: &Line<'_>, sink: &mut Sink) {
        let message = object(line.bytes);
        match (line.stream, message) {
            (Stream::Stdin, Some(message)) => self.server_was_told(&message, sink),
            (Stream::Stdout | Stream::Pty, Some(message)) => {
                if !self.server_said(&message, sink) {
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
        match command {
            Command::Prompt { key, text } => self.prompt(key, text),
            Command::Interrupt { key } => self.interrupt(key),
            Command::Answer { id, decision } => {
                let asked = self.theirs.get(&id.0).ok_or(Refusal::NotOpen { id: id.clone() })?;
                let bytes = DIALECT.answer(&id.0, &asked.answer(decision)?);
                let key = format!("answer:{}", id.0);
                Ok(vec![Message { key, bytes, close: false }])
            }
            Command::Finish => {
                let (key, bytes) = ("finish".to_owned(), Vec::new());
                Ok(vec![Message { key, bytes, close: true }])
            }
        }
    }

    fn exit_code(&self, code: u8, last_error: Option<&Failure>) -> Failure {
        codex::exit_code(code, last_error)
    }

    fn review(&self, _: &mut Verdict) {}
}
