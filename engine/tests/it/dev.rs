//! Dev servers over hosts that die at each call of a port.

use windlass::Handle;
use windlass::core::action::RunReason;
use windlass::core::id::{AttemptId, ExecutionId};
use windlass::core::outcome::{Outcome, StoppedBy};
use windlass::core::record::{AttemptRecord, AttemptStatus, ExecutionRecord, Phase};
use windlass::error::RefusalCode;
use windlass::handle::{ListFilter, Readiness, ReadyCheck};
use windlass::request::{ExecRequest, LaunchRequest, RemoveOptions, RetryRequest, WhenFull};
use windlass::{EngineError, config::Config};

use crate::place::{Doom, Place, in_worktree, keyed, operator, run};

fn serve(attempt: AttemptId, argv: &[&str], replace: bool) -> ExecRequest {
    let launch = LaunchRequest::command(argv.iter().copied());
    ExecRequest { attempt, run_reason: RunReason::DevServer, launch, replace }
}

/// Makes an attempt whose chain is over.
async fn rested(handle: &Handle, place: &Place) -> AttemptId {
    let request = in_worktree(&place.repository(), &["script", "file:made:x"]);
    let attempt = run(handle, request).await.attempt;
    handle.at_rest(&operator(), attempt).await.unwrap();
    attempt
}

async fn servers(handle: &Handle, attempt: AttemptId) -> Vec<ExecutionRecord> {
    let filter = ListFilter { all: true, attempt: Some(attempt), ..ListFilter::default() };
    let mut all = handle.executions(&operator(), filter).await.unwrap();
    all.retain(|record| record.action.run_reason == RunReason::DevServer);
    all
}

async fn attempt(handle: &Handle, id: AttemptId) -> AttemptRecord {
    handle.attempt(&operator(), id).await.unwrap()
}

async fn execution(handle: &Handle, id: ExecutionId) -> ExecutionRecord {
    handle.execution(&operator(), id).await.unwrap()
}

/// Replaces a dev server on a host that dies at a call; says whether it did.
async fn replaced_and_dies_at(call: u64, after: bool) -> bool {
    let mut place = Place::with_files();
    let handle = place.start().await;
    let id = rested(&handle, &place).await;
    let old = handle.exec(operator(), serve(id, &["forever"], false)).await.unwrap().execution;
    handle.started(&operator(), old).await.unwrap();
    place.kill().await;
    let doom = Doom::new(call, after);
    place.doom = Some(doom.clone());
    let request = || serve(id, &["forever"], true);
    let first = async {
        let handle = place.start().await;
        let new = handle.exec(keyed("k"), request()).await.unwrap().execution;
        handle.started(&operator(), new).await.unwrap();
    };
    let died = tokio::select! {
        biased;
        () = doom.came() => true,
        () = first => false,
    };
    place.kill().await;
    place.doom = None;
    let handle = place.start().await;
    let name = format!("call {call}, after: {after}");
    let new = handle.exec(keyed("k"), request()).await.unwrap().execution;
    let record = handle.started(&operator(), new).await.unwrap();
    assert_eq!(record.phase, Phase::Running, "{name}");
    let gone = execution(&handle, old).await;
    let stopped = Outcome::Stopped { by: StoppedBy::User };
    assert_eq!((gone.phase, gone.outcome), (Phase::Final, Some(stopped)), "{name}");
    assert_eq!(servers(&handle, id).await.len(), 2, "{name}");
    let record = attempt(&handle, id).await;
    assert_eq!((record.status, record.reason), (AttemptStatus::Finished, None), "{name}");
    assert_eq!(handle.status().await.unwrap().running, 1, "{name}");
    died
}

#[tokio::test]
async fn a_host_that_dies_at_any_call_of_a_port_replaces_a_server_once() {
    for after in [false, true] {
        let mut call = 1;
        while replaced_and_dies_at(call, after).await {
            call += 1;
        }
        assert!(call > 10, "there are more calls than {call}");
    }
}

/// Tries an attempt again, in which a server and something else run, on a host that dies at a call; says whether it did.
async fn retried_and_dies_at(call: u64, after: bool) -> bool {
    let mut place = Place::with_files();
    let handle = place.start().await;
    let id = rested(&handle, &place).await;
    let server = handle.exec(operator(), serve(id, &["forever"], false)).await.unwrap().execution;
    let launch = LaunchRequest::command(["forever"]);
    let run_reason = RunReason::Background;
    let other = ExecRequest { attempt: id, run_reason, launch, replace: false };
    let other = handle.exec(operator(), other).await.unwrap().execution;
    for running in [server, other] {
        handle.started(&operator(), running).await.unwrap();
    }
    place.kill().await;
    let doom = Doom::new(call, after);
    place.doom = Some(doom.clone());
    let request = RetryRequest { attempt: id, from: None, text: None };
    let first = async {
        let handle = place.start().await;
        handle.retry(keyed("r"), request.clone()).await.unwrap();
        handle.at_rest(&operator(), id).await.unwrap();
    };
    let died = tokio::select! {
        biased;
        () = doom.came() => true,
        () = first => false,
    };
    place.kill().await;
    place.doom = None;
    let handle = place.start().await;
    let name = format!("call {call}, after: {after}");
    handle.retry(keyed("r"), request).await.unwrap();
    let record = handle.at_rest(&operator(), id).await.unwrap();
    assert_eq!((record.status, &record.reason), (AttemptStatus::Finished, &None), "{name}");
    for stopped in [server, other] {
        assert_eq!(execution(&handle, stopped).await.phase, Phase::Final, "{name}");
    }
    let status = handle.status().await.unwrap();
    assert_eq!((status.running, status.queued), (0, 0), "{name}");
    died
}

#[tokio::test]
async fn a_host_that_dies_at_any_call_of_a_port_stops_what_runs_beside_a_try() {
    for after in [false, true] {
        let mut call = 1;
        while retried_and_dies_at(call, after).await {
            call += 1;
        }
        assert!(call > 20, "there are more calls than {call}");
    }
}

#[tokio::test]
async fn servers_have_a_limit_of_their_own_and_adopted_ones_count() {
    let mut place = Place::with_files();
    let mut limits = Config::standard().limits;
    (limits.per_host, limits.dev_servers) = (1, 1);
    place.config.limits = limits;
    let handle = place.start().await;
    let first = rested(&handle, &place).await;
    let second = rested(&handle, &place).await;
    let server = handle.exec(operator(), serve(first, &["forever"], false)).await.unwrap();
    handle.started(&operator(), server.execution).await.unwrap();
    let handle = place.restart().await;
    // The chain of another attempt has the one slot that there is for it.
    rested(&handle, &place).await;
    let mut refuse = serve(second, &["forever"], false);
    refuse.launch.when_full = WhenFull::Refuse;
    let refused = handle.exec(operator(), refuse).await;
    assert!(
        matches!(refused, Err(EngineError::Refused { code: RefusalCode::LimitExecutions, .. })),
        "{refused:?}"
    );
    let waits = handle.exec(operator(), serve(second, &["forever"], false)).await.unwrap();
    assert_eq!(execution(&handle, waits.execution).await.phase, Phase::Queued);
    handle.remove(operator(), first, RemoveOptions::default()).await.unwrap();
    let record = handle.started(&operator(), waits.execution).await.unwrap();
    assert_eq!(record.phase, Phase::Running);
}

#[tokio::test]
async fn an_attempt_has_one_server_and_no_other_execution_takes_its_place() {
    let place = Place::with_files();
    let handle = place.start().await;
    let id = rested(&handle, &place).await;
    handle.exec(operator(), serve(id, &["forever"], false)).await.unwrap();
    let refused = handle.exec(operator(), serve(id, &["forever"], false)).await;
    assert!(
        matches!(refused, Err(EngineError::Refused { code: RefusalCode::DevServerRuns, .. })),
        "{refused:?}"
    );
    let background =
        ExecRequest { run_reason: RunReason::Background, ..serve(id, &["forever"], true) };
    let invalid = handle.exec(operator(), background).await;
    assert!(matches!(invalid, Err(EngineError::Invalid { .. })), "{invalid:?}");
}

#[tokio::test]
async fn a_line_of_its_output_says_that_it_is_ready() {
    let place = Place::with_files();
    let handle = place.start().await;
    let id = rested(&handle, &place).await;
    let pattern = |text: &str| ReadyCheck::Pattern(text.to_owned());
    let argv = ["script", "out:list", "sleep:100", "out:ening on 80", "forever"];
    let server = handle.exec(operator(), serve(id, &argv, false)).await.unwrap().execution;
    let ready = handle.ready(&operator(), server, &pattern("listening on [0-9]+")).await.unwrap();
    assert_eq!(ready, Readiness::Ready { line: Some("listening on 80".to_owned()) });
    let port = handle.ready(&operator(), server, &ReadyCheck::Port(80)).await;
    assert!(
        matches!(port, Err(EngineError::Refused { code: RefusalCode::NotListened, .. })),
        "nobody here can tell: {port:?}"
    );
    let argv = ["script", "out:failed", "exit:1"];
    let server = handle.exec(operator(), serve(id, &argv, true)).await.unwrap().execution;
    let ended = handle.ready(&operator(), server, &pattern("listening")).await.unwrap();
    assert_eq!(ended, Readiness::Ended);
    // What it said in the end counts.
    let argv = ["script", "out:listening", "exit:1"];
    let server = handle.exec(operator(), serve(id, &argv, true)).await.unwrap().execution;
    let ready = handle.ready(&operator(), server, &pattern("listening")).await.unwrap();
    assert_eq!(ready, Readiness::Ready { line: Some("listening".to_owned()) });
}

#[tokio::test]
async fn attempts_that_are_there_share_no_ports_and_keep_theirs() {
    let mut place = Place::with_files();
    place.config.ports.blocks = 3;
    let handle = place.start().await;
    let mut ids = Vec::new();
    let mut bases = Vec::new();
    for _ in 0..2 {
        let id = rested(&handle, &place).await;
        bases.push(attempt(&handle, id).await.port_base.unwrap());
        ids.push(id);
    }
    let handle = place.restart().await;
    let third = rested(&handle, &place).await;
    bases.push(attempt(&handle, third).await.port_base.unwrap());
    bases.sort_unstable();
    assert_eq!(bases, [20_000, 20_010, 20_020]);
    // One that is removed gives its ports back, and has them again when it is made again.
    let before = attempt(&handle, ids[0]).await.port_base;
    handle.remove(operator(), ids[0], RemoveOptions::default()).await.unwrap();
    let fourth = rested(&handle, &place).await;
    assert_eq!(attempt(&handle, fourth).await.port_base, before);
    handle.restore(operator(), ids[0], None).await.unwrap();
    assert_eq!(attempt(&handle, ids[0]).await.port_base, before);
}
