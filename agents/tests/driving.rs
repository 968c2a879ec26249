//! Agents that are driven: from the first message to the prompt, questions and answers, interrupts, refusals.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use serde_json::{Value, json};
use windlass_agents::{AnyAdapter, Protocol};
use windlass_core::agent::{
    Approval, ApprovalId, Command, Conversation, Decision, Ending, Fact, FailureReason, Message,
    Output, Permission, Refusal, Start, TurnVerdict, What,
};
use windlass_core::log_store::Stream;

fn start() -> Start {
    Start {
        prompt: Some("Do it.".to_owned()),
        prompt_by_protocol: true,
        resume: None,
        cwd: "/w".to_owned(),
        model: None,
        permission: Permission::Ask,
        writable_roots: vec!["/m/.git/objects".to_owned()],
        session_usage: None,
        client: ("windlass".to_owned(), "1".to_owned()),
    }
}

/// An agent's desk: what is sent lands in the log, as the shim does it, and is kept to be looked at.
struct Desk {
    conversation: Conversation<AnyAdapter>,
    seq: u64,
    sent: Vec<Message>,
    facts: Vec<Fact>,
}

impl Desk {
    fn new(protocol: Protocol, start: &Start) -> Self {
        let mut desk = Self {
            conversation: Conversation::new(protocol.adapter()),
            seq: 0,
            sent: Vec::new(),
            facts: Vec::new(),
        };
        let outputs = desk.conversation.begin(start);
        desk.take(outputs);
        desk
    }

    fn take(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output.what {
                What::Send(message) => self.send(message),
                What::Fact(fact) => self.facts.push(fact),
                What::Changed(_) => {}
            }
        }
    }

    /// Sends a message once, whatever its key is asked for again.
    fn send(&mut self, message: Message) {
        if self.sent.iter().any(|sent| sent.key == message.key) {
            return;
        }
        self.sent.push(message.clone());
        self.seq += 1;
        let outputs = self.conversation.piece(self.seq, None, Stream::Stdin, &message.bytes);
        self.take(outputs);
    }

    fn hear(&mut self, message: &Value) {
        self.seq += 1;
        let line = format!("{message}\n");
        let outputs = self.conversation.piece(self.seq, None, Stream::Stdout, line.as_bytes());
        self.take(outputs);
    }

    fn command(&mut self, command: &Command) -> Result<(), Refusal> {
        for message in self.conversation.command(command)? {
            self.send(message);
        }
        Ok(())
    }

    fn answer(&mut self, id: &str, decision: Decision) -> Result<(), Refusal> {
        self.command(&Command::Answer { id: ApprovalId(id.to_owned()), decision })
    }

    #[track_caller]
    fn last(&self) -> (String, Value) {
        let message = self.sent.last().unwrap();
        (message.key.clone(), serde_json::from_slice(&message.bytes).unwrap())
    }

    fn keys(&self) -> Vec<&str> {
        self.sent.iter().map(|message| message.key.as_str()).collect()
    }

    #[track_caller]
    fn asked(&self) -> &Approval {
        let asked = self.facts.iter().rev().find_map(|fact| match fact {
            Fact::Asked { approval } => Some(approval),
            _ => None,
        });
        asked.unwrap()
    }

    #[track_caller]
    fn ended(&self) -> &TurnVerdict {
        let ended = self.facts.iter().rev().find_map(|fact| match fact {
            Fact::TurnEnded { verdict, .. } => Some(verdict),
            _ => None,
        });
        ended.unwrap()
    }
}

const ALLOW: Decision = Decision::Allow { always: false };

fn deny(stop: bool) -> Decision {
    Decision::Deny { reason: Some("no".to_owned()), stop }
}

fn codex(start: &Start) -> Desk {
    let mut desk = Desk::new(Protocol::CodexAppServer, start);
    desk.hear(&json!({ "id": "initialize", "result": {} }));
    desk
}

fn codex_with_a_turn() -> Desk {
    let mut desk = codex(&start());
    desk.hear(&json!({ "id": "thread", "result": { "thread": { "id": "t1", "status": {} }, "model": "m" } }));
    desk.hear(&json!({ "id": "prompt", "result": { "turn": { "id": "u1" } } }));
    desk.hear(&json!({ "method": "turn/started", "params": { "turn": { "id": "u1" } } }));
    desk
}

fn codex_asks(desk: &mut Desk, id: u64, item: &str) {
    desk.hear(&json!({ "method": "item/commandExecution/requestApproval", "id": id, "params": {
        "itemId": item, "command": "rm x", "cwd": "/w",
        "availableDecisions": ["accept", { "acceptWithExecpolicyAmendment": { "a": ["rm"] } }, "cancel"] } }));
}

#[test]
fn codex_is_led_to_its_first_turn() {
    let desk = codex_with_a_turn();
    assert_eq!(desk.keys(), ["initialize", "initialized", "thread", "prompt"]);
    let (_, prompt) = desk.last();
    assert_eq!(prompt["params"]["threadId"], "t1");
    assert_eq!(prompt["params"]["input"][0]["text"], "Do it.");
    assert!(desk.facts.contains(&Fact::Session { id: "t1".to_owned() }));
    let thread: Value = serde_json::from_slice(&desk.sent[2].bytes).unwrap();
    assert_eq!(thread["params"]["approvalPolicy"], "untrusted");
    let roots = &thread["params"]["config"]["sandbox_workspace_write"];
    assert_eq!(roots["writable_roots"], json!(["/m/.git/objects"]));
    assert_eq!(roots["exclude_slash_tmp"], true);
    assert_eq!(thread.get("jsonrpc"), None);
}

#[test]
fn codex_resumes_the_same_thread() {
    let desk = codex(&Start { resume: Some("t0".to_owned()), ..start() });
    let (_, thread) = desk.last();
    assert_eq!(thread["method"], "thread/resume");
    assert_eq!(thread["params"]["threadId"], "t0");
    assert_eq!(thread["params"]["excludeTurns"], true);
}

#[test]
fn a_thread_that_is_not_there_fails_the_start() {
    let mut desk = codex(&Start { resume: Some("t0".to_owned()), ..start() });
    let message = "no rollout found for thread id t0";
    desk.hear(&json!({ "id": "thread", "error": { "code": -32600, "message": message } }));
    let TurnVerdict::Failed { failure } = desk.ended() else { panic!("{:?}", desk.ended()) };
    assert_eq!(failure.reason, FailureReason::Session);
}

#[test]
fn parallel_questions_of_codex_are_kept_apart_and_zero_is_an_id() {
    let mut desk = codex_with_a_turn();
    codex_asks(&mut desk, 1, "b");
    codex_asks(&mut desk, 0, "a");
    desk.answer("1", deny(false)).unwrap();
    assert_eq!(desk.last().1, json!({ "id": 1, "result": { "decision": "decline" } }));
    desk.answer("0", Decision::Allow { always: true }).unwrap();
    assert_eq!(desk.last().1, json!({ "id": 0, "result": { "decision": "acceptForSession" } }));
    let no = Refusal::NotOpen { id: ApprovalId("0".to_owned()) };
    assert_eq!(desk.answer("0", ALLOW), Err(no));
}

#[test]
fn what_codex_offers_can_be_chosen_by_name() {
    let mut desk = codex_with_a_turn();
    codex_asks(&mut desk, 0, "a");
    let choose = |choice: &str| Decision::Choose { choice: choice.to_owned() };
    assert!(matches!(desk.answer("0", choose("dance")), Err(Refusal::NoSuchChoice { .. })));
    desk.answer("0", choose("acceptWithExecpolicyAmendment")).unwrap();
    let decision = json!({ "acceptWithExecpolicyAmendment": { "a": ["rm"] } });
    assert_eq!(desk.last().1["result"]["decision"], decision);
    assert!(desk.facts.iter().any(|fact| matches!(fact, Fact::Answered { allowed: true, .. })));
}

#[test]
fn a_question_that_is_withdrawn_can_no_longer_be_answered() {
    let mut desk = codex_with_a_turn();
    codex_asks(&mut desk, 0, "a");
    desk.command(&Command::Interrupt { key: "k".to_owned() }).unwrap();
    assert_eq!(desk.last().1["params"], json!({ "threadId": "t1", "turnId": "u1" }));
    desk.hear(&json!({ "method": "turn/completed", "params": { "turn": { "id": "u1", "status": "interrupted" } } }));
    assert_eq!(desk.ended(), &TurnVerdict::Interrupted);
    assert!(desk.facts.contains(&Fact::Withdrawn { id: ApprovalId("0".to_owned()) }));
    assert!(matches!(desk.answer("0", ALLOW), Err(Refusal::NotOpen { .. })));
    desk.hear(&json!({ "method": "serverRequest/resolved", "params": { "requestId": 0 } }));
    assert!(matches!(
        desk.command(&Command::Interrupt { key: "l".to_owned() }),
        Err(Refusal::NoTurn)
    ));
}

#[test]
fn a_question_about_files_names_the_files_of_its_item() {
    let mut desk = codex_with_a_turn();
    desk.hear(&json!({ "method": "item/started", "params": { "item": { "type": "fileChange", "id": "f",
        "changes": [{ "path": "/w/b.txt", "kind": { "type": "add" }, "diff": "x\n" }], "status": "inProgress" } } }));
    desk.hear(&json!({ "method": "item/fileChange/requestApproval", "id": 0, "params": { "itemId": "f" } }));
    let action = serde_json::to_value(&desk.asked().action).unwrap();
    assert_eq!(action["changes"][0]["path"], "b.txt");
}

#[test]
fn questions_of_codex_in_words_are_answered_in_words() {
    let mut desk = codex_with_a_turn();
    desk.hear(&json!({ "method": "item/tool/requestUserInput", "id": 5, "params": {
        "questions": [{ "id": "q", "header": "H", "question": "Which?", "options": [{ "label": "a" }] }] } }));
    assert_eq!(desk.asked().questions[0].options, ["a"]);
    assert!(matches!(desk.answer("5", ALLOW), Err(Refusal::NoSuchChoice { .. })));
    desk.answer("5", Decision::Reply { answers: vec![("q".to_owned(), "a".to_owned())] }).unwrap();
    assert_eq!(desk.last().1["result"], json!({ "answers": { "q": { "answers": ["a"] } } }));
}

#[test]
fn a_request_that_nobody_here_knows_is_refused_once() {
    let mut desk = codex_with_a_turn();
    let ask = json!({ "method": "item/tool/call", "id": 7, "params": {} });
    desk.hear(&ask);
    assert_eq!(desk.last().1["error"]["code"], -32601);
    let sent = desk.sent.len();
    desk.hear(&ask);
    assert_eq!(desk.sent.len(), sent);
}

fn claude() -> Desk {
    let mut desk = Desk::new(Protocol::Claude, &start());
    desk.hear(&json!({ "type": "control_response",
        "response": { "subtype": "success", "request_id": "initialize", "response": {} } }));
    desk
}

#[test]
fn claude_is_prompted_after_it_is_initialized() {
    let mut desk = claude();
    assert_eq!(desk.keys(), ["initialize", "prompt"]);
    assert_eq!(desk.last().1["message"]["content"], "Do it.");
    desk.hear(&json!({ "type": "system", "subtype": "init", "session_id": "s" }));
    desk.hear(
        &json!({ "type": "result", "subtype": "success", "is_error": false, "result": "ok" }),
    );
    assert_eq!(desk.ended(), &TurnVerdict::Completed);
    desk.command(&Command::Finish).unwrap();
    assert!(desk.sent.last().unwrap().close);
}

#[test]
fn a_claude_that_cannot_be_initialized_fails() {
    let mut desk = Desk::new(Protocol::Claude, &start());
    desk.hear(&json!({ "type": "control_response",
        "response": { "subtype": "error", "request_id": "initialize", "error": "broken" } }));
    assert!(matches!(desk.ended(), TurnVerdict::Failed { .. }));
    assert_eq!(desk.keys(), ["initialize"]);
}

fn claude_asks(desk: &mut Desk, id: &str, tool: &str, input: &Value) {
    desk.hear(&json!({ "type": "control_request", "request_id": id, "request": {
        "subtype": "can_use_tool", "tool_name": tool, "input": input, "tool_use_id": format!("toolu_{id}"),
        "permission_suggestions": [{ "type": "addRules", "rules": [{ "toolName": tool }],
            "behavior": "allow", "destination": "localSettings" }] } }));
}

#[test]
fn answers_to_claude_repeat_the_input_and_last_for_the_session_only() {
    let mut desk = claude();
    let (one, two) = (json!({ "command": "ls" }), json!({ "command": "rm" }));
    claude_asks(&mut desk, "r1", "Bash", &one);
    claude_asks(&mut desk, "r2", "Bash", &two);
    desk.answer("r2", deny(true)).unwrap();
    let response = json!({ "behavior": "deny", "message": "no", "interrupt": true });
    assert_eq!(desk.last().1["response"]["response"], response);
    assert_eq!(desk.last().1["response"]["request_id"], "r2");
    desk.answer("r1", Decision::Allow { always: true }).unwrap();
    let response = &desk.last().1["response"]["response"];
    assert_eq!(response["updatedInput"], one);
    assert_eq!(response["updatedPermissions"][0]["destination"], "session");
}

#[test]
fn a_question_that_claude_took_back_gets_no_answer() {
    let mut desk = claude();
    claude_asks(&mut desk, "r1", "Bash", &json!({ "command": "ls" }));
    desk.hear(&json!({ "type": "control_cancel_request", "request_id": "r1" }));
    assert!(desk.facts.contains(&Fact::Withdrawn { id: ApprovalId("r1".to_owned()) }));
    assert!(matches!(desk.answer("r1", ALLOW), Err(Refusal::NotOpen { .. })));
}

#[test]
fn a_question_of_claude_in_words_is_answered_within_its_input() {
    let mut desk = claude();
    let input = json!({ "questions": [{ "question": "Which?", "options": [{ "label": "a" }] }] });
    claude_asks(&mut desk, "r1", "AskUserQuestion", &input);
    assert!(matches!(desk.answer("r1", ALLOW), Err(Refusal::NoSuchChoice { .. })));
    let answers = vec![("Which?".to_owned(), "a".to_owned())];
    desk.answer("r1", Decision::Reply { answers }).unwrap();
    let updated = &desk.last().1["response"]["response"]["updatedInput"];
    assert_eq!(updated["answers"], json!({ "Which?": "a" }));
    assert_eq!(updated["questions"], input["questions"]);
}

#[test]
fn work_of_claudes_own_is_no_turn_of_ours() {
    let mut desk = claude();
    desk.hear(
        &json!({ "type": "result", "subtype": "success", "is_error": false, "result": "ok" }),
    );
    let said = json!([{ "type": "text", "text": "a task ended" }]);
    desk.hear(&json!({ "type": "assistant", "message": { "id": "m", "content": said } }));
    assert_eq!(desk.conversation.turns(), (1, false));
    desk.hear(&json!({ "type": "result", "subtype": "error_during_execution", "is_error": true,
        "origin": { "kind": "task-notification" } }));
    assert_eq!(desk.ended(), &TurnVerdict::Completed);
}

fn acp(start: &Start, capabilities: &Value) -> Desk {
    let mut desk = Desk::new(Protocol::Acp, start);
    desk.hear(&json!({ "jsonrpc": "2.0", "id": "initialize",
        "result": { "protocolVersion": 1, "agentCapabilities": capabilities } }));
    desk
}

const MODES: &str = r#"{"sessionId":"s","modes":{"currentModeId":"default","availableModes":[{"id":"default"},{"id":"yolo"},
    {"id":"plan"}]},"models":{"currentModelId":"a","availableModels":[{"modelId":"a"},{"modelId":"b"}]}}"#;

fn acp_with_a_turn() -> Desk {
    let mut desk = acp(&start(), &json!({}));
    let modes: Value = serde_json::from_str(MODES).unwrap();
    desk.hear(&json!({ "jsonrpc": "2.0", "id": "session", "result": modes }));
    desk
}

fn acp_asks(desk: &mut Desk, id: u64) {
    desk.hear(&json!({ "jsonrpc": "2.0", "id": id, "method": "session/request_permission", "params": {
        "sessionId": "s", "toolCall": { "toolCallId": format!("c{id}"), "title": "rm x", "kind": "execute" },
        "options": [{ "optionId": "always", "name": "Always", "kind": "allow_always" },
            { "optionId": "once", "name": "Yes", "kind": "allow_once" },
            { "optionId": "no", "name": "No", "kind": "reject_once" }] } }));
}

#[test]
fn an_acp_session_in_the_right_mode_is_prompted_at_once() {
    let desk = acp_with_a_turn();
    assert_eq!(desk.keys(), ["initialize", "session", "prompt"]);
    assert_eq!(desk.last().1["jsonrpc"], "2.0");
    assert_eq!(desk.last().1["params"]["sessionId"], "s");
    assert_eq!(desk.conversation.turns(), (1, true));
}

#[test]
fn mode_and_model_are_set_before_the_prompt() {
    let permission = Permission::Full;
    let mut desk = acp(&Start { permission, model: Some("b".to_owned()), ..start() }, &json!({}));
    let modes: Value = serde_json::from_str(MODES).unwrap();
    desk.hear(&json!({ "jsonrpc": "2.0", "id": "session", "result": modes }));
    assert_eq!(desk.last().1["params"], json!({ "sessionId": "s", "modeId": "yolo" }));
    desk.hear(&json!({ "jsonrpc": "2.0", "id": "mode", "error": { "code": -32603, "message": "untrusted" } }));
    assert_eq!(desk.last().1["params"], json!({ "sessionId": "s", "modelId": "b" }));
    desk.hear(&json!({ "jsonrpc": "2.0", "id": "model", "result": {} }));
    assert_eq!(desk.last().0, "prompt");
}

#[test]
fn a_plan_is_not_begun_where_planning_only_is_refused() {
    let mut desk = acp(&Start { permission: Permission::Plan, ..start() }, &json!({}));
    let modes: Value = serde_json::from_str(MODES).unwrap();
    desk.hear(&json!({ "jsonrpc": "2.0", "id": "session", "result": modes }));
    desk.hear(
        &json!({ "jsonrpc": "2.0", "id": "mode", "error": { "code": -32603, "message": "no" } }),
    );
    assert!(matches!(desk.ended(), TurnVerdict::Failed { .. }));
    assert!(!desk.keys().contains(&"prompt"));
}

#[test]
fn a_session_is_resumed_without_a_replay_where_that_is_possible() {
    let resume = Start { resume: Some("old".to_owned()), ..start() };
    let can = json!({ "loadSession": true, "sessionCapabilities": { "resume": {} } });
    assert_eq!(acp(&resume, &can).last().1["method"], "session/resume");
    let mut desk = acp(&resume, &json!({ "loadSession": true }));
    assert_eq!(desk.last().1["method"], "session/load");
    desk.hear(&json!({ "jsonrpc": "2.0", "id": "session", "result": {} }));
    assert!(desk.facts.contains(&Fact::Session { id: "old".to_owned() }));
    assert_eq!(desk.last().0, "prompt");
    let desk = acp(&resume, &json!({}));
    let TurnVerdict::Failed { failure } = desk.ended() else { panic!("{:?}", desk.ended()) };
    assert_eq!(failure.reason, FailureReason::Session);
}

#[test]
fn an_answer_to_acp_is_one_of_its_options() {
    let mut desk = acp_with_a_turn();
    acp_asks(&mut desk, 0);
    acp_asks(&mut desk, 1);
    desk.answer("1", deny(false)).unwrap();
    assert_eq!(
        desk.last().1["result"]["outcome"],
        json!({ "outcome": "selected", "optionId": "no" })
    );
    desk.answer("0", ALLOW).unwrap();
    assert_eq!(desk.last().1["id"], 0);
    assert_eq!(desk.last().1["result"]["outcome"]["optionId"], "once");
}

#[test]
fn what_is_asked_for_once_is_not_allowed_for_ever() {
    let mut desk = acp_with_a_turn();
    desk.hear(
        &json!({ "jsonrpc": "2.0", "id": 0, "method": "session/request_permission", "params": {
        "toolCall": { "toolCallId": "c" },
        "options": [{ "optionId": "always", "name": "Always", "kind": "allow_always" }] } }),
    );
    assert!(matches!(desk.answer("0", ALLOW), Err(Refusal::NoSuchChoice { .. })));
    desk.answer("0", deny(false)).unwrap();
    assert_eq!(desk.last().1["result"]["outcome"], json!({ "outcome": "cancelled" }));
}

#[test]
fn an_interrupt_of_acp_answers_every_question() {
    let mut desk = acp_with_a_turn();
    acp_asks(&mut desk, 0);
    acp_asks(&mut desk, 1);
    desk.command(&Command::Interrupt { key: "k".to_owned() }).unwrap();
    assert_eq!(desk.keys()[3..], ["interrupt:k", "answer:0", "answer:1"]);
    desk.hear(
        &json!({ "jsonrpc": "2.0", "id": "prompt", "result": { "stopReason": "cancelled" } }),
    );
    assert_eq!(desk.ended(), &TurnVerdict::Interrupted);
}

#[test]
fn files_are_not_served() {
    let mut desk = acp_with_a_turn();
    desk.hear(&json!({ "jsonrpc": "2.0", "id": 3, "method": "fs/write_text_file",
        "params": { "path": "/w/a", "content": "x" } }));
    assert_eq!(desk.last().1["error"]["code"], -32601);
}

#[test]
fn a_second_prompt_is_a_turn_of_its_own() {
    let mut desk = acp_with_a_turn();
    desk.hear(&json!({ "jsonrpc": "2.0", "id": "prompt", "result": { "stopReason": "end_turn" } }));
    let (key, text) = ("f1".to_owned(), "More.".to_owned());
    desk.command(&Command::Prompt { key, text }).unwrap();
    assert_eq!(desk.last().0, "prompt:f1");
    assert_eq!(desk.conversation.turns(), (2, true));
}

#[test]
fn a_replay_asks_for_the_same_messages_under_the_same_keys() {
    let mut desk = acp_with_a_turn();
    acp_asks(&mut desk, 0);
    desk.answer("0", ALLOW).unwrap();
    let mut again = Conversation::new(Protocol::Acp.adapter());
    let mut keys: Vec<String> = Vec::new();
    let note = |outputs: Vec<Output>, keys: &mut Vec<String>| {
        for output in outputs {
            if let What::Send(message) = output.what {
                keys.push(message.key);
            }
        }
    };
    note(again.begin(&start()), &mut keys);
    let modes: Value = serde_json::from_str(MODES).unwrap();
    let log = [
        (Stream::Stdin, String::from_utf8(desk.sent[0].bytes.clone()).unwrap()),
        (Stream::Stdout, json!({ "id": "initialize", "result": {} }).to_string() + "\n"),
        (Stream::Stdin, String::from_utf8(desk.sent[1].bytes.clone()).unwrap()),
        (Stream::Stdout, json!({ "id": "session", "result": modes }).to_string() + "\n"),
    ];
    for (seq, (stream, line)) in (1..).zip(&log) {
        note(again.piece(seq, None, *stream, line.as_bytes()), &mut keys);
    }
    assert_eq!(keys, ["initialize", "session", "prompt"]);
}

#[test]
fn one_shot_agents_get_their_message_and_nothing_after_it() {
    for protocol in [Protocol::CodexExec, Protocol::Gemini, Protocol::Opencode, Protocol::Plain] {
        let mut desk = Desk::new(protocol, &start());
        assert_eq!(desk.keys(), ["prompt"]);
        assert_eq!(desk.sent[0].bytes, b"Do it.");
        assert!(desk.sent[0].close);
        let prompt = Command::Prompt { key: "k".to_owned(), text: "x".to_owned() };
        assert!(matches!(desk.command(&prompt), Err(Refusal::Unsupported { .. })));
        let mut desk = Desk::new(protocol, &Start { prompt_by_protocol: false, ..start() });
        assert_eq!(desk.keys(), Vec::<&str>::new());
        assert_eq!(desk.command(&Command::Finish), Ok(()));
    }
}

#[test]
fn tokens_of_a_resumed_thread_are_counted_once() {
    let session_usage = Some(windlass_core::agent::Usage {
        input_tokens: 100,
        output_tokens: 10,
        total_tokens: 110,
        ..Default::default()
    });
    let resumed = Start { resume: Some("t".to_owned()), session_usage, ..start() };
    let mut desk = Desk::new(Protocol::CodexExec, &resumed);
    desk.hear(
        &json!({ "type": "turn.completed", "usage": { "input_tokens": 250, "output_tokens": 30 } }),
    );
    let report = desk.conversation.usage().unwrap();
    assert_eq!((report.usage.input_tokens, report.usage.output_tokens), (150, 20));
    assert!(!report.cumulative);
    assert_eq!(report.session.unwrap().total_tokens, 280);
    let (_, verdict) = desk.conversation.finish(Ending::default());
    assert_eq!(verdict.turns, 1);
}
