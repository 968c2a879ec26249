//! The Agent Client Protocol, version 1: JSON-RPC 2.0, both ways, with approvals.
//!
//! Own types instead of the schema crate: that brings anyhow, derive_more, serde_with and strum, and is strict where
//! agents are not (tool updates without a call, a replay that ends after its answer, requests that were never agreed on).

mod opening;
mod permission;
mod update;

use serde_json::{Value, json};
use windlass_core::agent::{
    Adapter, Command, Decision, Event, Failure, FailureReason, Line, Message, Refusal, Role, Sink,
    Start, TextMode, TurnVerdict, Usage, UsageReport, Verdict,
};
use windlass_core::log_store::Stream;

use crate::failure;
use crate::json::{Look, micros, object, whole};
use crate::json_rpc::{self, Dialect, Rpc, Waiting};

use opening::Opening;
use permission::Asked;
use update::Calls;

const DIALECT: Dialect = Dialect { versioned: true };

/// The adapter of the Agent Client Protocol.
#[derive(Clone, Debug, Default)]
pub struct Acp {
    opening: Option<Opening>,
    /// Our requests that wait for an answer.
    ours: Waiting<Ours>,
    /// The agent's requests that wait for ours.
    theirs: Waiting<Asked>,
    session: Option<String>,
    calls: Calls,
    /// Something of our side was in the log, so its absence means something.
    our_side_is_known: bool,
    /// Something that may be a turn, of which we saw one side only.
    unasked_turn: bool,
    history: bool,
    used: Usage,
}

/// A request of ours.
#[derive(Clone, Debug, Default)]
struct Ours {
    method: String,
    session: Option<String>,
}

impl Acp {
    fn agent_said(&mut self, message: &Value, sink: &mut Sink) -> bool {
        match json_rpc::read(message) {
            Some(Rpc::Notification { method: "session/update", params }) => {
                self.updated(params.at("update"), sink)
            }
            Some(Rpc::Notification { method, .. }) => method.starts_with("$/"),
            Some(Rpc::Request { id, method: "session/request_permission", params }) => {
                self.works();
                let asked = Asked::read(&id, params);
                self.calls.update(params.at("toolCall"), sink);
                sink.event(Event::Asked(asked.approval(&self.calls, params)));
                self.theirs.insert(id, asked);
                true
            }
            Some(Rpc::Request { id, method, .. }) => {
                // Files and terminals are not served: the agent has its own.
                if self.opening.is_some() {
                    sink.send(format!("refuse:{id}"), DIALECT.refuse(&id, method));
                }
                method.starts_with("fs/") || method.starts_with("terminal/")
            }
            Some(Rpc::Result { id, result }) => {
                let ours = self.ours.remove(&id).unwrap_or_default();
                self.answered(&ours, result, sink);
                true
            }
            Some(Rpc::Error { id, error }) => {
                let ours = self.ours.remove(&id).unwrap_or_default();
                self.refused(&ours.method, error, sink);
                true
            }
            None => false,
        }
    }

    fn agent_was_told(&mut self, message: &Value, sink: &mut Sink) {
        self.our_side_is_known = true;
        match json_rpc::read(message) {
            Some(Rpc::Request { id, method, params }) => {
                match method {
                    "session/prompt" => {
                        self.set_history(false, sink);
                        let text = texts(params.list("prompt"));
                        sink.event(Event::MessageEnded);
                        sink.event(Event::TurnStarted);
                        sink.event(Event::Text {
                            role: Role::User,
                            item: None,
                            text,
                            mode: TextMode::Whole,
                            parent: None,
                        });
                    }
                    // What follows is the past of the session, and some agents go on with it after the answer.
                    "session/load" | "session/fork" => self.set_history(true, sink),
                    _ => {}
                }
                let (method, session) = (method.to_owned(), params.filled("sessionId"));
                self.ours.insert(id, Ours { method, session });
            }
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

    fn set_history(&mut self, on: bool, sink: &mut Sink) {
        if self.history != on {
            self.history = on;
            sink.event(Event::MessageEnded);
            sink.event(Event::History(on));
        }
    }

    /// The agent does something that nobody asked for, as far as the log tells: where our side was not recorded. Whether
    /// it is a turn or the past told again, its answer says.
    fn works(&mut self) {
        self.unasked_turn |= !self.our_side_is_known;
    }

    /// It was a turn.
    fn begin_unasked(&mut self, sink: &mut Sink) {
        if !self.our_side_is_known {
            self.unasked_turn = false;
            sink.event(Event::TurnStarted);
        }
    }

    /// Says whether a turn is under way: what is said outside of one is a remark.
    fn is_prompted(&self) -> bool {
        self.ours.any(|ours| ours.method == "session/prompt")
    }

    fn updated(&mut self, update: &Value, sink: &mut Sink) -> bool {
        let kind = update.text("sessionUpdate").unwrap_or_default();
        match kind {
            "user_message_chunk" | "agent_message_chunk" | "agent_thought_chunk" => {
                self.works();
                let listening = self.history || !self.our_side_is_known;
                if kind == "user_message_chunk" && !listening {
                    // Our own words are in the log already.
                } else if listening || self.is_prompted() {
                    self.calls.words(kind, update, sink);
                } else {
                    let text = update.at("content").filled("text").unwrap_or_default();
                    sink.event(Event::Notice { text });
                }
            }
            "tool_call" | "tool_call_update" => {
                self.works();
                self.calls.update(update, sink);
            }
            "usage_update" => {
                if let Some(cost) = micros(update.at("cost").at("amount")) {
                    let before = self.used.cost_usd_micros;
                    self.used.cost_usd_micros = before.max(Some(cost));
                }
            }
            _ => return update::other(kind, update, sink),
        }
        true
    }

    fn answered(&mut self, ours: &Ours, result: &Value, sink: &mut Sink) {
        let method = ours.method.as_str();
        if let Some(stop) = result.text("stopReason") {
            return self.turn_ended(stop, result, sink);
        }
        // What was told before the answer was the past: of a session that was loaded or forked.
        let told_again = std::mem::take(&mut self.unasked_turn);
        if matches!(method, "session/load" | "session/fork") {
            sink.event(Event::MessageEnded);
        }
        if method == "session/fork" {
            // A fork is another session; what it tells of the past ends with its answer.
            self.set_history(false, sink);
        }
        let opened = match method {
            "session/new" => result.filled("sessionId"),
            "" if !told_again => result.filled("sessionId"),
            "session/load" | "session/resume" => ours.session.clone(),
            _ => None,
        };
        if let Some(id) = opened {
            self.session = Some(id.clone());
            let model = result.at("models").filled("currentModelId");
            sink.event(Event::Session { id, model });
        }
        if let Some(opening) = &mut self.opening {
            opening.answered(method, result, self.session.as_deref(), sink);
        }
    }

    fn turn_ended(&mut self, stop: &str, result: &Value, sink: &mut Sink) {
        self.begin_unasked(sink);
        let cost = self.used.cost_usd_micros;
        self.used = self.used.plus(usage(result));
        self.used.cost_usd_micros = cost;
        if self.used != Usage::default() {
            let (usage, cumulative) = (self.used, false);
            sink.event(Event::Usage(UsageReport { usage, cumulative, session: None }));
        }
        // An agent that was told to stop has forgotten its questions, whether we answer or not.
        for (_, asked) in std::mem::take(&mut self.theirs).iter() {
            sink.event(Event::Withdrawn { id: asked.id.clone() });
        }
        let failed =
            |reason, said: &str| TurnVerdict::Failed { failure: Failure::new(reason, said) };
        sink.event(Event::TurnEnded(match stop {
            "end_turn" => TurnVerdict::Completed,
            "cancelled" => TurnVerdict::Interrupted,
            "max_tokens" => failed(FailureReason::OutputLimit, "the answer was cut off"),
            "max_turn_requests" => failed(FailureReason::TurnLimit, "too many requests in a turn"),
            "refusal" => failed(FailureReason::Refused, "the model refused"),
            other => failed(FailureReason::Unknown, other),
        }));
    }

    fn refused(&mut self, method: &str, error: &Value, sink: &mut Sink) {
        let failure = trouble(error);
        match method {
            "session/prompt" => {
                for (_, asked) in std::mem::take(&mut self.theirs).iter() {
                    sink.event(Event::Withdrawn { id: asked.id.clone() });
                }
                sink.event(Event::TurnEnded(TurnVerdict::Failed { failure }));
            }
            "" if self.unasked_turn => {
                self.begin_unasked(sink);
                sink.event(Event::TurnEnded(TurnVerdict::Failed { failure }));
            }
            _ => {
                self.set_history(false, sink);
                sink.event(Event::Trouble { failure: failure.clone(), retry: false });
                if let Some(opening) = &mut self.opening {
                    opening.refused(method, failure, self.session.as_deref(), sink);
                }
            }
        }
    }

    fn prompt(&self, key: &str, text: &str) -> Result<Vec<Message>, Refusal> {
        let session = self.session.as_deref().ok_or(Refusal::NotReady)?;
        let key = format!("prompt:{key}");
        Ok(vec![Message { bytes: opening::prompt(&key, session, text), key, close: false }])
    }

    /// Cancels the turn and, as the protocol wants it, every question.
    fn interrupt(&self, key: &str) -> Result<Vec<Message>, Refusal> {
        let session = self.session.as_deref().ok_or(Refusal::NotReady)?;
        let params = json!({ "sessionId": session });
        let bytes = DIALECT.notification("session/cancel", &params);
        let mut messages = vec![Message { key: format!("interrupt:{key}"), bytes, close: false }];
        for (id, _) in self.theirs.iter() {
            messages.push(answer(id, &permission::cancelled()));
        }
        Ok(messages)
    }

    fn answer(
        &self,
        id: &str,
        asked: &Asked,
        decision: &Decision,
    ) -> Result<Vec<Message>, Refusal> {
        let mut messages = vec![answer(id, &asked.answer(decision)?)];
        if matches!(decision, Decision::Deny { stop: true, .. }) {
            let cancel = self.interrupt(&format!("deny:{id}"))?;
            messages.extend(
                cancel.into_iter().filter(|one| one.key != messages[0].key).collect::<Vec<_>>(),
            );
        }
        Ok(messages)
    }
}

fn answer(id: &str, result: &Value) -> Message {
    Message { key: format!("answer:{id}"), bytes: DIALECT.answer(id, result), close: false }
}

/// Joins the texts of content blocks.
fn texts(blocks: &[Value]) -> String {
    let text = |block: &Value| {
        block.text("text").map(str::to_owned).or_else(|| block.first(&["uri", "name"]))
    };
    blocks.iter().filter_map(text).collect::<Vec<_>>().join("\n")
}

/// Reads an error of JSON-RPC; agents put the status of the provider's answer into its code, or a word into its data.
fn trouble(error: &Value) -> Failure {
    let mut said = error.filled("message").unwrap_or_default();
    if let Some(details) = error.at("data").first(&["details", "message"])
        && !said.contains(&details)
    {
        said = format!("{said}: {details}");
    }
    let code = error.signed("code").unwrap_or(0);
    match u64::try_from(code) {
        Ok(status) => failure::from_status(status, &said),
        Err(_) => {
            let told = failure::from_words(&said);
            let reason = match (told.reason, code, error.at("data").text("errorName")) {
                (FailureReason::Unknown, -32000, _) => FailureReason::Auth,
                (FailureReason::Unknown, _, Some("APIError")) => FailureReason::Provider,
                (FailureReason::Unknown, _, Some("ProviderAuthError")) => FailureReason::Auth,
                (FailureReason::Unknown, -32602..=-32600, _) => FailureReason::Request,
                (reason, _, _) => reason,
            };
            Failure { reason, ..told }
        }
    }
}

/// Reads what a turn used: some agents put it into the answer, some into its `_meta`, some nowhere.
fn usage(result: &Value) -> Usage {
    let (told, quota) = (result.at("usage"), result.at("_meta").at("quota").at("token_count"));
    let count = |camel: &str, snake: &str| {
        whole(told.at(camel)).or_else(|| whole(quota.at(snake))).unwrap_or(0)
    };
    Usage {
        input_tokens: count("inputTokens", "input_tokens"),
        cached_input_tokens: count("cachedReadTokens", "cached_tokens"),
        cache_write_tokens: count("cachedWriteTokens", "cache_write_tokens"),
        output_tokens: count("outputTokens", "output_tokens"),
        reasoning_tokens: count("thoughtTokens", "thought_tokens"),
        total_tokens: count("totalTokens", "total_tokens"),
        cost_usd_micros: None,
    }
    .summed()
}

impl Adapter for Acp {
    fn name(&self) -> &'static str {
        "acp"
    }

    fn begin(&mut self, start: &Start, sink: &mut Sink) {
        self.our_side_is_known = true;
        self.opening = Some(Opening::new(start.clone(), sink));
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

    fn end(&mut self, sink: &mut Sink) {
        if self.unasked_turn {
            self.begin_unasked(sink);
        }
    }

    fn command(&self, command: &Command) -> Result<Vec<Message>, Refusal> {
        match command {
            Command::Prompt { key, text } => self.prompt(key, text),
            Command::Interrupt { key } => self.interrupt(key),
            Command::Answer { id, decision } => {
                let asked = self.theirs.get(&id.0).ok_or(Refusal::NotOpen { id: id.clone() })?;
                self.answer(&id.0, asked, decision)
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
