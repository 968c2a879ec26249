//! What Claude Code asks, and how it is answered.

use serde_json::{Value, json};
use windlass_core::agent::{
    Approval, ApprovalId, ApprovalKind, Decision, Event, Question, Refusal, ToolAction,
};

use crate::json::{Look, line};
use crate::tools;

/// The most bytes of a tool's input that are kept for the answer, which repeats it.
const MAX_INPUT: usize = 1 << 20;

/// A `can_use_tool` that waits for an answer.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) id: ApprovalId,
    pub(super) tool_id: String,
    kind: ApprovalKind,
    /// The input, unless it is huge: an answer without it leaves it as it is.
    input: Option<Value>,
    suggestions: Value,
    questions: Vec<Question>,
}

impl Asked {
    pub(super) fn read(id: &str, request: &Value) -> Self {
        let tool = request.text("tool_name").unwrap_or_default();
        let input = request.at("input");
        let action = tools::action(tool, input);
        let (kind, questions) = match action {
            ToolAction::CommandRun { .. } => (ApprovalKind::Command, Vec::new()),
            ToolAction::FileEdit { .. } => (ApprovalKind::Edit, Vec::new()),
            ToolAction::PlanPresentation { .. } => (ApprovalKind::Plan, Vec::new()),
            ToolAction::AskUserQuestion { questions } => (ApprovalKind::Question, questions),
            _ if tool == "ExitPlanMode" => (ApprovalKind::Plan, Vec::new()),
            _ => (ApprovalKind::Tool, Vec::new()),
        };
        let small = |value: &Value| value.to_string().len() <= MAX_INPUT;
        let suggestions = request.at("permission_suggestions");
        Self {
            id: ApprovalId(id.to_owned()),
            tool_id: request.filled("tool_use_id").unwrap_or_default(),
            kind,
            input: small(input).then(|| input.clone()),
            suggestions: if small(suggestions) { suggestions.clone() } else { Value::Null },
            questions,
        }
    }

    /// Returns the question as people see it.
    pub(super) fn approval(&self, request: &Value) -> Approval {
        let tool = request.filled("tool_name").unwrap_or_default();
        let input = request.at("input");
        let action = tools::action(&tool, input);
        let title = match &action {
            ToolAction::CommandRun { command, .. } => Some(command.clone()),
            ToolAction::FileEdit { changes } => changes.first().map(|one| one.path().to_owned()),
            ToolAction::PlanPresentation { plan } => Some(plan.clone()),
            ToolAction::AskUserQuestion { questions } => {
                questions.first().map(|one| one.text.clone())
            }
            _ => None,
        };
        let title = title.or_else(|| request.first(&["title", "display_name", "description"]));
        Approval {
            id: self.id.clone(),
            kind: self.kind,
            title: title.unwrap_or_else(|| tool.clone()),
            tool,
            tool_id: Some(self.tool_id.clone()).filter(|id| !id.is_empty()),
            reason: request.first(&["decision_reason", "blocked_path"]),
            action: Some(action),
            input: input.clone(),
            choices: Vec::new(),
            questions: self.questions.clone(),
        }
    }

    /// Says what an answer means that was sent.
    pub(super) fn answered(self, response: &Value) -> Event {
        let answer = response.at("response");
        let allowed = answer.text("behavior") == Some("allow");
        let text = answer.filled("message").or_else(|| {
            let answers = answer.at("updatedInput").at("answers");
            answers.is_object().then(|| answers.to_string())
        });
        Event::Answered { id: self.id, allowed, text }
    }

    /// Puts an answer into the words of the protocol.
    pub(super) fn answer(&self, decision: &Decision) -> Result<Value, Refusal> {
        match decision {
            Decision::Allow { .. } if self.kind == ApprovalKind::Question => Err(self.no("allow")),
            Decision::Allow { always } => {
                let mut answer = self.allow();
                if *always {
                    answer["updatedPermissions"] = self.remembered();
                }
                Ok(answer)
            }
            Decision::Deny { reason, stop } => {
                let message = reason.clone().unwrap_or_else(|| "the user refused".to_owned());
                Ok(json!({ "behavior": "deny", "message": message, "interrupt": stop }))
            }
            Decision::Reply { answers } => {
                if self.input.is_none() || self.kind != ApprovalKind::Question {
                    return Err(self.no("reply"));
                }
                let text = |id: &str| {
                    let question = self.questions.iter().find(|question| question.id == id);
                    question.map_or_else(|| id.to_owned(), |question| question.text.clone())
                };
                let answers: serde_json::Map<String, Value> =
                    answers.iter().map(|(id, answer)| (text(id), json!(answer))).collect();
                let mut allow = self.allow();
                if allow["updatedInput"].is_object() {
                    allow["updatedInput"]["answers"] = Value::Object(answers);
                }
                Ok(allow)
            }
            Decision::Choose { choice } => Err(self.no(choice)),
        }
    }

    fn no(&self, choice: &str) -> Refusal {
        Refusal::NoSuchChoice { id: self.id.clone(), choice: choice.to_owned() }
    }

    fn allow(&self) -> Value {
        match &self.input {
            Some(input) => json!({ "behavior": "allow", "updatedInput": input }),
            None => json!({ "behavior": "allow" }),
        }
    }

    /// What to remember so that it is not asked again in this session: what was suggested, else the tool.
    fn remembered(&self) -> Value {
        if self.kind == ApprovalKind::Plan {
            return json!([{ "type": "setMode", "mode": "acceptEdits", "destination": "session" }]);
        }
        let mut suggestions = self.suggestions.as_array().cloned().unwrap_or_default();
        for suggestion in &mut suggestions {
            if suggestion.is_object() {
                suggestion["destination"] = json!("session");
            }
        }
        Value::Array(suggestions)
    }
}

/// Makes the answer to a control request.
pub(super) fn response(id: &str, answer: &Value) -> Vec<u8> {
    let response = json!({ "subtype": "success", "request_id": id, "response": answer });
    line(&json!({ "type": "control_response", "response": response }))
}
