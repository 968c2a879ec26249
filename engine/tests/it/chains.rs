//! Chains over hosts that die at each call of a port.

use windlass::Handle;
use windlass::core::action::{RunReason, Stdin};
use windlass::core::id::AttemptId;
use windlass::core::log_store::{From, LogItem, ReadOptions, Seq, Stream};
use windlass::core::process_store::ChangeNumber;
use windlass::core::record::{
    AttemptRecord, AttemptStatus, CommitPolicy, ExecutionRecord, FollowUpState, Reason,
};
use windlass::error::RefusalCode;
use windlass::handle::ListFilter;
use windlass::request::{
    ExecRequest, InputRequest, ProjectChange, ProjectRequest, RetryRequest, RunRequest, Say,
    Scripts, StopTarget, TaskChange, TaskRequest, TaskRun,
};
use windlass::{EngineError, request::LaunchRequest};

use crate::place::{Doom, Place, in_worktree, keyed, operator, run};

/// A chain of three that each change a file; the last one ends with this code.
fn chain(place: &Place, code: u8) -> RunRequest {
    let mut request = in_worktree(&place.repository(), &["script", "file:made:work"]);
    request.scripts = Scripts {
        setup: Some("file:dep:x".to_owned()),
        cleanup: Some(format!("file:made:tidy file:new:x exit:{code}")),
    };
    request
}

async fn attempt(handle: &Handle, id: AttemptId) -> AttemptRecord {
    handle.attempt(&operator(), id).await.unwrap()
}

/// Waits, by changes, until a chain is over.
async fn over(handle: &Handle, id: AttemptId) -> AttemptRecord {
    loop {
        let after = handle.changes(&operator(), ChangeNumber(0), 1).await.unwrap().last;
        let record = attempt(handle, id).await;
        if matches!(record.status, AttemptStatus::Finished | AttemptStatus::Held) {
            return record;
        }
        handle.changed(after).await.unwrap();
    }
}

async fn history(handle: &Handle, attempt: AttemptId) -> Vec<ExecutionRecord> {
    let filter = ListFilter { all: true, attempt: Some(attempt), ..ListFilter::default() };
    let mut all = handle.executions(&operator(), filter).await.unwrap();
    all.reverse();
    all
}

/// Why executions ran, git steps aside: where no time passes, they stand anywhere among the others.
fn reasons(history: &[ExecutionRecord]) -> Vec<RunReason> {
    let reasons = history.iter().map(|record| record.action.run_reason);
    reasons.filter(|reason| *reason != RunReason::Git).collect()
}

const WHOLE: [RunReason; 3] = [RunReason::Setup, RunReason::Agent, RunReason::Cleanup];

#[tokio::test]
async fn a_chain_runs_one_after_the_other_and_each_is_told_what_follows_it() {
    let place = Place::with_files();
    let handle = place.start().await;
    let accepted = run(&handle, chain(&place, 0)).await;
    let record = over(&handle, accepted.attempt).await;
    assert_eq!((record.status, &record.reason), (AttemptStatus::Finished, &None));
    let mut history = history(&handle, accepted.attempt).await;
    assert_eq!((reasons(&history), history.len()), (WHOLE.to_vec(), 5));
    history.retain(|record| record.action.run_reason != RunReason::Git);
    assert_eq!(history[0].id, accepted.execution);
    assert_eq!(history[0].followed_by, Some(history[1].id));
    assert_eq!(history[1].followed_by, Some(history[2].id));
    let path = record.workspace.path();
    assert_eq!(place.repositories.read(path, "made"), Some(b"tidy".to_vec()));
    let status = handle.status().await.unwrap();
    assert_eq!((status.running, status.queued), (0, 0));
}

/// Plays a chain on hosts of which the first dies at a call; says whether it did.
async fn dies_at(call: u64, after: bool, code: u8) -> bool {
    let mut place = Place::with_files();
    let request = chain(&place, code);
    let doom = Doom::new(call, after);
    place.doom = Some(doom.clone());
    let first = async {
        let handle = place.start().await;
        let accepted = handle.run(keyed("k"), request.clone()).await.unwrap();
        over(&handle, accepted.attempt).await;
    };
    let died = tokio::select! {
        biased;
        () = doom.came() => true,
        () = first => false,
    };
    place.kill().await;
    place.doom = None;
    let handle = place.start().await;
    let accepted = handle.run(keyed("k"), request).await.unwrap();
    let record = over(&handle, accepted.attempt).await;
    let name = format!("call {call}, after: {after}, code {code}");
    let history = history(&handle, accepted.attempt).await;
    assert_eq!(reasons(&history), WHOLE, "{name}");
    assert!(record.finalised_at.is_some(), "{name}");
    let path = record.workspace.path();
    let (made, new) = (place.repositories.read(path, "made"), place.repositories.read(path, "new"));
    if code == 0 {
        assert_eq!((record.status, record.reason), (AttemptStatus::Finished, None), "{name}");
        assert_eq!((made.as_deref(), new.is_some()), (Some(&b"tidy"[..]), true), "{name}");
    } else {
        let cleanup = history.iter().find(|it| it.action.run_reason == RunReason::Cleanup);
        let failed = Reason::CleanupFailed { execution: cleanup.unwrap().id };
        assert_eq!(
            (record.status, record.reason),
            (AttemptStatus::Finished, Some(failed)),
            "{name}"
        );
        assert_eq!((made.as_deref(), new.is_some()), (Some(&b"work"[..]), false), "{name}");
        // A host that takes over saves once more before it undoes anything.
        let saved = handle.snapshots(&operator(), accepted.attempt).await.unwrap().len();
        assert!((1..=2).contains(&saved), "{name}: {saved}");
    }
    let status = handle.status().await.unwrap();
    assert_eq!((status.running, status.queued), (0, 0), "{name}");
    died
}

/// Sends a message to an attempt at rest on a host that dies at a call; says whether it did.
async fn sent_and_dies_at(call: u64, after: bool) -> bool {
    let mut place = Place::with_files();
    let handle = place.start().await;
    let mut request = in_worktree(&place.repository(), &["script", "echo", "file:made:work"]);
    request.launch.stdin = Stdin::Messages;
    request.scripts.cleanup = Some("file:new:x".to_owned());
    let accepted = run(&handle, request).await;
    let close = InputRequest {
        execution: accepted.execution,
        key: uuid::Uuid::from_u128(1),
        bytes: "first".into(),
        secret: false,
        close: true,
    };
    handle.started(&operator(), accepted.execution).await.unwrap();
    handle.input(operator(), close).await.unwrap();
    over(&handle, accepted.attempt).await;
    place.kill().await;
    let doom = Doom::new(call, after);
    place.doom = Some(doom.clone());
    let text = || "go on".to_owned();
    let first = async {
        let handle = place.start().await;
        handle.send(keyed("s"), accepted.attempt, text()).await.unwrap();
        over(&handle, accepted.attempt).await;
    };
    let died = tokio::select! {
        biased;
        () = doom.came() => true,
        () = first => false,
    };
    place.kill().await;
    place.doom = None;
    let handle = place.start().await;
    let sent = handle.send(keyed("s"), accepted.attempt, text()).await.unwrap();
    let record = over(&handle, accepted.attempt).await;
    let name = format!("call {call}, after: {after}");
    assert_eq!(
        (record.status, record.queue, record.follow_ups),
        (AttemptStatus::Finished, 0, 1),
        "{name}"
    );
    let agents: Vec<_> = history(&handle, accepted.attempt).await;
    let agents: Vec<_> =
        agents.iter().filter(|it| it.action.run_reason == RunReason::Agent).collect();
    assert_eq!(agents.len(), 2, "{name}");
    let sent = handle.follow_up(&operator(), sent.record.id).await.unwrap().record;
    assert_eq!(
        (sent.state, sent.execution),
        (FollowUpState::Consumed, Some(agents[1].id)),
        "{name}"
    );
    let options = ReadOptions { from: From::After(Seq(0)), max_items: 100, max_bytes: 1 << 20 };
    let log = handle.log_page(&operator(), agents[1].id, options).await.unwrap();
    let echoed = log.items.iter().filter(|item| is_output(item, b"go on\n")).count();
    assert_eq!(echoed, 1, "{name}: it is read once");
    died
}

/// Tries an attempt at rest again on a host that dies at a call; says whether it did.
async fn retried_and_dies_at(call: u64, after: bool) -> bool {
    let mut place = Place::with_files();
    let handle = place.start().await;
    let accepted = run(&handle, chain(&place, 0)).await;
    let record = over(&handle, accepted.attempt).await;
    let before = history(&handle, accepted.attempt).await;
    place.repositories.write(record.workspace.path(), "by-hand", b"x");
    place.kill().await;
    let doom = Doom::new(call, after);
    place.doom = Some(doom.clone());
    let request = RetryRequest { attempt: accepted.attempt, from: None, text: None };
    let first = async {
        let handle = place.start().await;
        handle.retry(keyed("r"), request.clone()).await.unwrap();
        handle.at_rest(&operator(), accepted.attempt).await.unwrap();
    };
    let died = tokio::select! {
        biased;
        () = doom.came() => true,
        () = first => false,
    };
    place.kill().await;
    place.doom = None;
    let handle = place.start().await;
    // It may have been taken by the first host, and be over by now: the key says so.
    let retried = handle.retry(keyed("r"), request).await.unwrap().execution;
    let record = handle.at_rest(&operator(), accepted.attempt).await.unwrap();
    let name = format!("call {call}, after: {after}");
    assert_eq!((record.status, &record.reason), (AttemptStatus::Finished, &None), "{name}");
    let all = history(&handle, accepted.attempt).await;
    let agents = all.iter().filter(|it| it.action.run_reason == RunReason::Agent).count();
    assert_eq!(agents, 2, "{name}");
    for old in &before {
        let now = all.iter().find(|it| it.id == old.id).unwrap();
        let is_setup = old.action.run_reason == RunReason::Setup;
        // Where no time passes, git steps stand anywhere among the others.
        if old.action.run_reason != RunReason::Git {
            let expected = (!is_setup).then_some(retried);
            assert_eq!(now.superseded_by, expected, "{name} {:?}", old.action.run_reason);
        }
    }
    let path = record.workspace.path();
    assert_eq!(place.repositories.read(path, "by-hand"), None, "{name}");
    assert_eq!(place.repositories.read(path, "made").as_deref(), Some(&b"tidy"[..]), "{name}");
    let saved = handle.snapshots(&operator(), accepted.attempt).await.unwrap().len();
    assert!((1..=2).contains(&saved), "{name}: {saved}");
    died
}

#[tokio::test]
async fn a_host_that_dies_at_any_call_of_a_port_tries_again_once() {
    for after in [false, true] {
        let mut call = 1;
        while retried_and_dies_at(call, after).await {
            call += 1;
        }
        assert!(call > 30, "there are more calls than {call}");
    }
}

fn is_output(item: &LogItem, text: &[u8]) -> bool {
    match item {
        LogItem::Entry { stream: Stream::Stdout, bytes, .. } => bytes.as_ref() == text,
        _ => false,
    }
}

#[tokio::test]
async fn a_host_that_dies_at_any_call_of_a_port_starts_a_message_once() {
    for after in [false, true] {
        let mut call = 1;
        while sent_and_dies_at(call, after).await {
            call += 1;
        }
        assert!(call > 15, "there are more calls than {call}");
    }
}

#[tokio::test]
async fn a_host_that_dies_at_any_call_of_a_port_changes_nothing_about_a_chain() {
    for code in [0, 1] {
        for after in [false, true] {
            let mut call = 1;
            while dies_at(call, after, code).await {
                call += 1;
            }
            assert!(call > 30, "there are more calls than {call}");
        }
    }
}

#[tokio::test]
async fn a_stop_of_the_first_binds_the_whole_chain() {
    let place = Place::with_files();
    let handle = place.start().await;
    let mut request = chain(&place, 0);
    request.launch = LaunchRequest::command(["forever"]);
    let accepted = run(&handle, request).await;
    let setup = handle.settled(&operator(), accepted.execution).await.unwrap();
    let agent = setup.followed_by.unwrap();
    handle.started(&operator(), agent).await.unwrap();
    handle.stop(operator(), StopTarget::Execution(setup.id), None).await.unwrap();
    let record = over(&handle, accepted.attempt).await;
    assert_eq!((record.status, record.reason), (AttemptStatus::Held, Some(Reason::Stopped)));
    assert_eq!(reasons(&history(&handle, accepted.attempt).await), WHOLE[..2]);
}

#[tokio::test]
async fn an_attempt_of_a_task_has_the_scripts_of_its_project_and_nothing_starts_once_it_is_closed()
{
    let place = Place::with_files();
    let handle = place.start().await;
    let with = ProjectChange {
        name: Some("app".to_owned()),
        setup: Some(Some("file:dep:x".to_owned())),
        cleanup: Some(Some("file:new:x".to_owned())),
        commit: Some(CommitPolicy::Keep),
        ..ProjectChange::default()
    };
    let repo = place.repository();
    let project = handle.add_project(operator(), ProjectRequest { repo, with }).await.unwrap();
    let (title, description) = ("do it".to_owned(), String::new());
    let request = TaskRequest { project: project.record.id, title, description, parent: None };
    let task = handle.add_task(operator(), request).await.unwrap().record.id;
    let command = || TaskRun::new(LaunchRequest::command(["script", "file:made:x"]));
    let commits = TaskRun { commit: Some(CommitPolicy::Commit), ..command() };
    let accepted = handle.run_task(operator(), task, commits).await.unwrap();
    over(&handle, accepted.attempt).await;
    assert_eq!(reasons(&history(&handle, accepted.attempt).await), WHOLE);
    let scripts = Scripts { setup: Some(" ".to_owned()), cleanup: None };
    let without = TaskRun { scripts, ..command() };
    let second = handle.run_task(operator(), task, without).await.unwrap();
    over(&handle, second.attempt).await;
    assert_eq!(reasons(&history(&handle, second.attempt).await), [RunReason::Agent]);
    let change = TaskChange { status: Some(Say::Cancelled), ..TaskChange::default() };
    handle.set_task(operator(), task, None, change).await.unwrap();
    let exec = ExecRequest {
        attempt: second.attempt,
        run_reason: RunReason::Background,
        launch: LaunchRequest::command(["exit", "0"]),
        replace: false,
    };
    let refused = handle.exec(operator(), exec.clone()).await;
    assert!(
        matches!(refused, Err(EngineError::Refused { code: RefusalCode::TaskClosed, .. })),
        "{refused:?}"
    );
    let reopen = TaskChange { status: Some(Say::Reopen), ..TaskChange::default() };
    handle.set_task(operator(), task, None, reopen).await.unwrap();
    handle.exec(operator(), exec).await.unwrap();
}
