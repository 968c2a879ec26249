//! From the first message to the prompt: initialize, a session, its mode and model.

use serde_json::{Value, json};
use windlass_core::agent::{Event, Failure, FailureReason, Permission, Sink, Start, TurnVerdict};

use super::DIALECT;
use crate::json::Look;

/// Version of the protocol.
const VERSION: u64 = 1;

/// What is still to be done before the prompt.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    start: Start,
    /// Steps after the session is open, in order.
    steps: Vec<Step>,
    ready: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Mode(Choice),
    Model(Choice),
}

/// How something is chosen: agents differ.
#[derive(Clone, Debug)]
enum Choice {
    /// By a method of its own.
    Method { method: &'static str, field: &'static str, value: String },
    /// As an option of the session.
    Option { id: String, value: String },
}

impl Opening {
    pub(super) fn new(start: Start, sink: &mut Sink) -> Self {
        let (name, version) = &start.client;
        let params = json!({
            "protocolVersion": VERSION,
            "clientCapabilities": {
                "fs": { "readTextFile": false, "writeTextFile": false },
                "terminal": false,
            },
            "clientInfo": { "name": name, "title": name, "version": version },
        });
        sink.send("initialize", DIALECT.request("initialize", "initialize", &params));
        Self { start, steps: Vec::new(), ready: false }
    }

    /// Takes an answer to one of our requests.
    pub(super) fn answered(
        &mut self,
        method: &str,
        result: &Value,
        session: Option<&str>,
        sink: &mut Sink,
    ) {
        match method {
            "initialize" => self.open(result, sink),
            "session/new" | "session/load" | "session/resume" if !self.ready => {
                self.steps = steps(&self.start, result);
                self.ready = true;
                self.next(session, sink);
            }
            "session/set_mode" | "session/set_model" | "session/set_config_option" => {
                self.next(session, sink);
            }
            _ => {}
        }
    }

    /// Takes a refusal of one of our requests.
    pub(super) fn refused(
        &mut self,
        method: &str,
        failure: Failure,
        session: Option<&str>,
        sink: &mut Sink,
    ) {
        let ended = |failure| Event::TurnEnded(TurnVerdict::Failed { failure });
        match method {
            "initialize" => sink.event(ended(failure)),
            "session/new" | "session/load" | "session/resume" if !self.ready => {
                let reason = match failure.reason {
                    FailureReason::Unknown => FailureReason::Session,
                    told => told,
                };
                sink.event(ended(Failure { reason, ..failure }));
            }
            // To plan only is a promise; the others can be kept by asking.
            "session/set_mode" | "session/set_config_option"
                if self.start.permission == Permission::Plan =>
            {
                sink.event(ended(Failure { reason: FailureReason::Config, ..failure }));
            }
            "session/set_mode" | "session/set_model" | "session/set_config_option" => {
                self.next(session, sink);
            }
            _ => {}
        }
    }

    fn open(&mut self, result: &Value, sink: &mut Sink) {
        let can = result.at("agentCapabilities");
        let mut params = json!({ "cwd": self.start.cwd, "mcpServers": [] });
        let method = match &self.start.resume {
            None => "session/new",
            // Without a replay where it can be had: the past is known.
            Some(_) if can.at("sessionCapabilities").has("resume") => "session/resume",
            Some(_) if can.is("loadSession") => "session/load",
            Some(_) => {
                let said = "the agent can neither resume nor load a session";
                let failure = Failure::new(FailureReason::Session, said);
                sink.event(Event::Trouble { failure: failure.clone(), retry: false });
                return sink.event(Event::TurnEnded(TurnVerdict::Failed { failure }));
            }
        };
        if let Some(id) = &self.start.resume {
            params["sessionId"] = json!(id);
        }
        sink.send("session", DIALECT.request("session", method, &params));
    }

    /// Does the next step; after the last one it prompts.
    fn next(&mut self, session: Option<&str>, sink: &mut Sink) {
        let Some(session) = session else { return };
        if !self.steps.is_empty() {
            let (key, choice) = match self.steps.remove(0) {
                Step::Mode(choice) => ("mode", choice),
                Step::Model(choice) => ("model", choice),
            };
            return sink.send(key, choice.request(key, session));
        }
        if let Some(text) = self.start.prompt.take() {
            sink.send("prompt", prompt("prompt", session, &text));
        }
    }
}

impl Choice {
    fn request(&self, key: &str, session: &str) -> Vec<u8> {
        match self {
            Self::Method { method, field, value } => {
                DIALECT.request(key, method, &json!({ "sessionId": session, *field: value }))
            }
            Self::Option { id, value } => {
                let params = json!({ "sessionId": session, "configId": id, "value": value });
                DIALECT.request(key, "session/set_config_option", &params)
            }
        }
    }
}

/// What a permission may be called, most fitting first.
fn mode_names(permission: Permission) -> &'static [&'static str] {
    match permission {
        Permission::Plan => &["plan", "read-only", "readonly", "architect", "ask"],
        Permission::Ask => &["default", "ask", "build", "code", "auto"],
        Permission::Edit => &["autoEdit", "auto_edit", "acceptEdits", "accept-edits"],
        Permission::Full => {
            &["yolo", "bypassPermissions", "full-access", "full_access", "dontAsk", "autopilot"]
        }
    }
}

/// Says what is to be set, given what the session offers and how it is.
fn steps(start: &Start, session: &Value) -> Vec<Step> {
    let mut steps = Vec::new();
    let option = |category: &str| {
        session.list("configOptions").iter().find(|option| {
            option.text("category") == Some(category) || option.text("id") == Some(category)
        })
    };
    let offered = |list: &[Value], keys: &[&str]| -> Vec<String> {
        list.iter().filter_map(|one| one.first(keys)).collect()
    };
    let modes = session.at("modes");
    let names = mode_names(start.permission);
    let pick = |offered: &[String]| {
        names.iter().find_map(|name| offered.iter().find(|id| id == name).cloned())
    };
    if let Some(id) = pick(&offered(modes.list("availableModes"), &["id"])) {
        if modes.text("currentModeId") != Some(&id) {
            let (method, field) = ("session/set_mode", "modeId");
            steps.push(Step::Mode(Choice::Method { method, field, value: id }));
        }
    } else if let Some(option) = option("mode")
        && let Some(value) = pick(&offered(option.list("options"), &["value", "id"]))
        && option.text("currentValue") != Some(&value)
    {
        let id = option.filled("id").unwrap_or_default();
        steps.push(Step::Mode(Choice::Option { id, value }));
    }
    let Some(model) = &start.model else { return steps };
    if session.has("models") {
        if session.at("models").text("currentModelId") != Some(model) {
            let (method, field) = ("session/set_model", "modelId");
            steps.push(Step::Model(Choice::Method { method, field, value: model.clone() }));
        }
    } else if let Some(option) = option("model")
        && option.text("currentValue") != Some(model)
    {
        let id = option.filled("id").unwrap_or_default();
        steps.push(Step::Model(Choice::Option { id, value: model.clone() }));
    }
    steps
}

/// Makes a prompt.
pub(super) fn prompt(id: &str, session: &str, text: &str) -> Vec<u8> {
    let prompt = json!([{ "type": "text", "text": text }]);
    DIALECT.request(id, "session/prompt", &json!({ "sessionId": session, "prompt": prompt }))
}
