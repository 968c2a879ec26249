//! What an agent asks, and how it is answered.

use serde_json::{Value, json};
use windlass_core::agent::{
    Approval, ApprovalChoice, ApprovalId, ApprovalKind, ChoiceKind, Decision, Event, Refusal,
};

use super::update::Calls;
use crate::json::Look;

/// The most options that are looked at.
const MAX_OPTIONS: usize = 32;

/// A request for permission that waits for an answer.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) id: ApprovalId,
    tool_id: String,
    choices: Vec<ApprovalChoice>,
    question: Option<String>,
}

impl Asked {
    pub(super) fn read(id: &str, params: &Value) -> Self {
        let choice = |option: &Value| {
            let id = option.filled("optionId")?;
            let kind = match option.text("kind") {
                Some("allow_once") => ChoiceKind::AllowOnce,
                Some("allow_always") => ChoiceKind::AllowAlways,
                Some("reject_once") => ChoiceKind::RejectOnce,
                Some("reject_always") => ChoiceKind::RejectAlways,
                _ => ChoiceKind::Other,
            };
            Some(ApprovalChoice {
                name: option.filled("name").unwrap_or_else(|| id.clone()),
                id,
                kind,
            })
        };
        let call = params.at("toolCall");
        Self {
            id: ApprovalId(id.to_owned()),
            tool_id: call.filled("toolCallId").unwrap_or_default(),
            choices: params.list("options").iter().take(MAX_OPTIONS).filter_map(choice).collect(),
            question: call.filled("title"),
        }
    }

    /// Returns the question as people see it. What the call is given is not kept.
    pub(super) fn approval(&self, calls: &Calls, params: &Value) -> Approval {
        let (kind, tool) = calls.asks(&self.tool_id);
        Approval {
            id: self.id.clone(),
            kind,
            tool,
            tool_id: Some(self.tool_id.clone()).filter(|id| !id.is_empty()),
            title: self.question.clone().unwrap_or_default(),
            reason: None,
            action: None,
            input: params.at("toolCall").at("rawInput").clone(),
            choices: self.choices.clone(),
            questions: Vec::new(),
        }
    }

    /// Says what an answer means that was sent.
    pub(super) fn answered(self, result: &Value) -> Event {
        let outcome = result.at("outcome");
        let chosen = outcome.filled("optionId");
        let choice =
            self.choices.iter().find(|choice| Some(choice.id.as_str()) == chosen.as_deref());
        let allowed = choice.is_some_and(|choice| {
            matches!(choice.kind, ChoiceKind::AllowOnce | ChoiceKind::AllowAlways)
        });
        let text = chosen.or_else(|| outcome.filled("outcome"));
        Event::Answered { id: self.id, allowed, text }
    }

    /// Puts an answer into the words of the protocol.
    pub(super) fn answer(&self, decision: &Decision) -> Result<Value, Refusal> {
        let none =
            |choice: &str| Refusal::NoSuchChoice { id: self.id.clone(), choice: choice.to_owned() };
        let first = |kinds: &[ChoiceKind]| {
            kinds.iter().find_map(|kind| self.choices.iter().find(|choice| choice.kind == *kind))
        };
        let chosen = match decision {
            Decision::Allow { always } => {
                let (once, ever) = (ChoiceKind::AllowOnce, ChoiceKind::AllowAlways);
                // Once is not for ever: where only that is offered, it must be chosen by name.
                let kinds: &[_] = if *always { &[ever, once] } else { &[once] };
                first(kinds).ok_or_else(|| none("allow"))?
            }
            Decision::Deny { .. } => {
                match first(&[ChoiceKind::RejectOnce, ChoiceKind::RejectAlways]) {
                    Some(choice) => choice,
                    None => return Ok(cancelled()),
                }
            }
            Decision::Choose { choice } => {
                let found = self.choices.iter().find(|one| one.id == *choice);
                found.ok_or_else(|| none(choice))?
            }
            Decision::Reply { .. } => return Err(none("reply")),
        };
        Ok(json!({ "outcome": { "outcome": "selected", "optionId": chosen.id } }))
    }
}

/// The answer to a question of a turn that is cancelled.
pub(super) fn cancelled() -> Value {
    json!({ "outcome": { "outcome": "cancelled" } })
}

/// What a kind of tool call asks for.
pub(super) fn kind_of(kind: &str) -> ApprovalKind {
    match kind {
        "execute" => ApprovalKind::Command,
        "edit" | "delete" | "move" => ApprovalKind::Edit,
        "switch_mode" => ApprovalKind::Plan,
        _ => ApprovalKind::Tool,
    }
}
