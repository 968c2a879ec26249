//! What the server asks, and how it is answered.

use serde_json::{Value, json};
use windlass_core::agent::{
    Approval, ApprovalChoice, ApprovalId, ApprovalKind, ChoiceKind, Decision, Event, FileChange,
    Question, Refusal, ToolAction,
};

use crate::json::Look;
use crate::{codex, tools};

/// The most bytes of a decision or permission of the server's that is sent back as it came.
const MAX_RETURNED: usize = 64 << 10;

/// How a request wants its answer.
#[derive(Clone, Debug)]
enum Form {
    /// `accept`, `decline` and the like, or what was offered.
    Decision { offered: Vec<(String, Value)> },
    /// The words of the API before this one.
    Review,
    /// Answers by question.
    Questions(Vec<Question>),
    /// What was asked for, or nothing.
    Permissions { asked: Value },
    /// A form of a tool's server.
    Elicitation,
}

/// A request of the server that waits for an answer.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) id: ApprovalId,
    form: Form,
    kind: ApprovalKind,
    tool: &'static str,
    tool_id: Option<String>,
    title: String,
    reason: Option<String>,
    action: Option<ToolAction>,
    input: Value,
}

impl Asked {
    /// Reads a request; `None` if it is not one that a person can answer.
    pub(super) fn read(id: &str, method: &str, params: &Value) -> Option<Self> {
        let (kind, tool, form) = match method {
            "item/commandExecution/requestApproval" => {
                (ApprovalKind::Command, "shell", Form::Decision { offered: offered(params) })
            }
            "item/fileChange/requestApproval" => {
                (ApprovalKind::Edit, "apply_patch", Form::Decision { offered: offered(params) })
            }
            "execCommandApproval" => (ApprovalKind::Command, "shell", Form::Review),
            "applyPatchApproval" => (ApprovalKind::Edit, "apply_patch", Form::Review),
            "item/tool/requestUserInput" => {
                (ApprovalKind::Question, "ask", Form::Questions(tools::questions(params)))
            }
            "item/permissions/requestApproval" => {
                let asked = small(params.at("permissions"));
                (ApprovalKind::Permissions, "permissions", Form::Permissions { asked })
            }
            "mcpServer/elicitation/request" => {
                (ApprovalKind::Question, "elicitation", Form::Elicitation)
            }
            _ => return None,
        };
        let command = match params.at("command") {
            Value::Array(words) => {
                Some(words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "))
            }
            command => command.as_str().map(str::to_owned),
        };
        let files = params
            .at("fileChanges")
            .as_object()
            .map(|files| files.keys().map(String::as_str).collect::<Vec<_>>().join(", "));
        let question = match &form {
            Form::Questions(questions) => questions.first().map(|one| one.text.clone()),
            _ => None,
        };
        let reason = params.first(&["reason", "message"]);
        let action = match (&command, params.at("fileChanges").as_object()) {
            (Some(command), _) => {
                Some(ToolAction::CommandRun { command: command.clone(), cwd: params.filled("cwd") })
            }
            (None, Some(files)) => Some(ToolAction::FileEdit {
                changes: files.iter().map(|(path, change)| legacy(path, change)).collect(),
            }),
            (None, None) => None,
        };
        let title = command.or(files).or(question).or_else(|| reason.clone());
        Some(Self {
            id: ApprovalId(id.to_owned()),
            form,
            kind,
            tool,
            tool_id: params.first(&["itemId", "callId"]),
            title: title.unwrap_or_else(|| tool.to_owned()),
            reason,
            action,
            input: small(params),
        })
    }

    /// Returns the question as people see it.
    pub(super) fn approval(&self) -> Approval {
        let choice = |(id, _): &(String, Value)| ApprovalChoice {
            id: id.clone(),
            name: id.clone(),
            kind: match id.as_str() {
                "accept" => ChoiceKind::AllowOnce,
                "acceptForSession" => ChoiceKind::AllowAlways,
                "decline" | "cancel" => ChoiceKind::RejectOnce,
                other if other.starts_with("accept") => ChoiceKind::AllowAlways,
                _ => ChoiceKind::Other,
            },
        };
        let (choices, questions) = match &self.form {
            Form::Decision { offered } => (offered.iter().map(choice).collect(), Vec::new()),
            Form::Questions(questions) => (Vec::new(), questions.clone()),
            Form::Review | Form::Permissions { .. } | Form::Elicitation => (Vec::new(), Vec::new()),
        };
        Approval {
            id: self.id.clone(),
            kind: self.kind,
            tool: self.tool.to_owned(),
            tool_id: self.tool_id.clone(),
            title: self.title.clone(),
            reason: self.reason.clone(),
            action: self.action.clone(),
            input: self.input.clone(),
            choices,
            questions,
        }
    }

    /// Says what an answer means that was sent.
    pub(super) fn answered(self, result: &Value) -> Event {
        let decision = match result.at("decision") {
            Value::Object(fields) => fields.keys().next().cloned(),
            decision => decision.as_str().map(str::to_owned),
        };
        let (allowed, text) = match &self.form {
            Form::Decision { .. } | Form::Review => {
                let word = decision.unwrap_or_default();
                let yes = ["accept", "approved", "apply"].iter().any(|yes| word.starts_with(yes));
                (yes, (!yes && word != "decline" && word != "denied").then_some(word))
            }
            Form::Questions(_) => {
                let answers = result.at("answers");
                let any = answers.as_object().is_some_and(|answers| !answers.is_empty());
                (any, any.then(|| answers.to_string()))
            }
            Form::Permissions { .. } => {
                let given = result.at("permissions").as_object();
                (given.is_some_and(|given| !given.is_empty()), None)
            }
            Form::Elicitation => (result.text("action") == Some("accept"), None),
        };
        Event::Answered { id: self.id, allowed, text }
    }

    /// Puts an answer into the words of the request.
    pub(super) fn answer(&self, decision: &Decision) -> Result<Value, Refusal> {
        let no_choice =
            |choice: &str| Refusal::NoSuchChoice { id: self.id.clone(), choice: choice.to_owned() };
        let words = match &self.form {
            Form::Review => ["approved", "approved_for_session", "denied", "abort"],
            _ => ["accept", "acceptForSession", "decline", "cancel"],
        };
        let allowed = matches!(decision, Decision::Allow { .. });
        match (&self.form, decision) {
            (Form::Decision { offered }, Decision::Choose { choice }) => {
                let found = offered.iter().find(|(id, _)| id == choice);
                let known = words.iter().find(|word| *word == choice).map(|word| json!(word));
                let value = found.map(|(_, value)| value.clone()).or(known);
                Ok(json!({ "decision": value.ok_or_else(|| no_choice(choice))? }))
            }
            (Form::Decision { .. } | Form::Review, Decision::Allow { always }) => {
                Ok(json!({ "decision": words[usize::from(*always)] }))
            }
            (Form::Decision { .. } | Form::Review, Decision::Deny { stop, .. }) => {
                Ok(json!({ "decision": words[2 + usize::from(*stop)] }))
            }
            (Form::Questions(_), Decision::Reply { answers }) => {
                let answers: serde_json::Map<String, Value> = answers
                    .iter()
                    .map(|(id, answer)| (id.clone(), json!({ "answers": [answer] })))
                    .collect();
                Ok(json!({ "answers": answers }))
            }
            (Form::Questions(_), Decision::Deny { .. }) => Ok(json!({ "answers": {} })),
            (Form::Permissions { asked }, Decision::Allow { always }) => {
                let scope = if *always { "session" } else { "turn" };
                Ok(json!({ "permissions": asked, "scope": scope }))
            }
            (Form::Permissions { .. }, Decision::Deny { .. }) => {
                Ok(json!({ "permissions": {}, "scope": "turn" }))
            }
            (Form::Elicitation, Decision::Allow { .. } | Decision::Deny { .. }) => {
                let action = if allowed { "accept" } else { "decline" };
                Ok(json!({ "action": action, "content": allowed.then(|| json!({})) }))
            }
            (Form::Elicitation, Decision::Reply { answers }) => {
                let content: serde_json::Map<String, Value> =
                    answers.iter().map(|(id, answer)| (id.clone(), json!(answer))).collect();
                Ok(json!({ "action": "accept", "content": content }))
            }
            (_, Decision::Choose { choice }) => Err(no_choice(choice)),
            (_, Decision::Allow { .. }) => Err(no_choice("allow")),
            (_, Decision::Reply { .. }) => Err(no_choice("reply")),
        }
    }
}

/// Reads a change of the older API: `{"add": {content}}`, `{"update": {unified_diff, move_path}}` or `{"delete": …}`,
/// with the kind as a key or a type.
fn legacy(path: &str, change: &Value) -> FileChange {
    let by_key = change.as_object().and_then(|fields| fields.iter().next());
    let (kind, body) = match (change.text("type"), by_key) {
        (Some(kind), _) => (kind, change),
        (None, Some((kind, body))) => (kind.as_str(), body),
        (None, None) => ("", change),
    };
    let diff = body.first(&["unified_diff", "content"]);
    codex::change_of(
        path.to_owned(),
        &json!({ "type": kind, "move_path": body.at("move_path") }),
        diff,
    )
}

/// Reads the decisions that are offered: words, or objects that are named by their only field.
fn offered(params: &Value) -> Vec<(String, Value)> {
    let one = |decision: &Value| match decision {
        Value::String(word) => Some((word.clone(), decision.clone())),
        Value::Object(fields) => fields.keys().next().map(|name| (name.clone(), small(decision))),
        _ => None,
    };
    params.list("availableDecisions").iter().take(32).filter_map(one).collect()
}

/// Leaves out what is too large to be kept until the answer.
fn small(value: &Value) -> Value {
    if value.to_string().len() > MAX_RETURNED { Value::Null } else { value.clone() }
}
