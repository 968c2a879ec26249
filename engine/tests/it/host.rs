//! What requests lead to, and what the next host makes of it.

use windlass::EngineError;
use windlass::core::id::{AttemptId, ExecutionId};
use windlass::core::outcome::{NotStarted, Outcome, StoppedBy};
use windlass::core::record::{AttemptStatus, Phase, Reason};
use windlass::error::RefusalCode;
use windlass::handle::Commit;
use windlass::request::{
    ExecRequest, InputRequest, LaunchRequest, RemoveOptions, StopTarget, WhenFull,
};

use crate::place::{
    Place, in_directory, in_worktree, keyed, operator, owner, run, settled, until, with_secret,
};
use windlass::core::action::{RunReason, Stdin};

const FORCED: RemoveOptions =
    RemoveOptions { force: true, discard_unsaved: false, delete_branch: false };

const WELL: Option<Outcome> = Some(Outcome::Exited { code: 0 });

fn exec(attempt: AttemptId, argv: &[&str]) -> ExecRequest {
    let launch = LaunchRequest::command(argv.iter().copied());
    ExecRequest { attempt, run_reason: RunReason::Background, launch, replace: false }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, EngineError>) -> RefusalCode {
    match result {
        Err(EngineError::Refused { code, .. }) => code,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_command_runs_and_what_it_printed_is_there() {
    let place = Place::new();
    let handle = place.start().await;
    let accepted = run(&handle, in_directory(&["print", "hello", ""])).await;
    let record = settled(&handle, &accepted).await;
    assert_eq!((record.phase, record.outcome), (Phase::Final, WELL));
    assert_eq!(record.preview.as_deref(), Some("hello"));
    let attempt = handle.attempt(&operator(), accepted.attempt).await.unwrap();
    assert_eq!((attempt.status, attempt.reason), (AttemptStatus::Finished, None));
    let status = handle.status().await.unwrap();
    assert_eq!((status.running, status.queued), (0, 0));
}

#[tokio::test]
async fn what_a_command_changed_is_committed_to_its_branch() {
    let place = Place::new();
    let (repo, handle) = (place.repository(), place.start().await);
    let accepted = run(&handle, in_worktree(&repo, &["wait", "0"])).await;
    handle.started(&operator(), accepted.execution).await.unwrap();
    let attempt = handle.attempt(&operator(), accepted.attempt).await.unwrap();
    let worktree = attempt.workspace.worktree().unwrap();
    place.repositories.write(&worktree.path, "new", b"work");
    place.world.release(accepted.execution);
    let record = settled(&handle, &accepted).await;
    let tip = place.repositories.tip(&repo, &worktree.branch);
    assert_eq!(record.committed.as_ref(), Some(&tip));
    let attempt = handle.attempt(&operator(), accepted.attempt).await.unwrap();
    assert_eq!((attempt.status, attempt.head), (AttemptStatus::Finished, Some(tip)));
}

#[tokio::test]
async fn a_commit_on_request_says_whether_there_was_anything() {
    let place = Place::new();
    let (repo, handle) = (place.repository(), place.start().await);
    let accepted = run(&handle, in_worktree(&repo, &["exit", "1"])).await;
    settled(&handle, &accepted).await;
    let commit = async || handle.commit(operator(), accepted.attempt, None).await.unwrap();
    assert_eq!(commit().await, Commit::Clean);
    let attempt = handle.attempt(&operator(), accepted.attempt).await.unwrap();
    let path = &attempt.workspace.worktree().unwrap().path;
    place.repositories.write(path, "new", b"work");
    let Commit::Started(git) = commit().await else { panic!("it is dirty") };
    let record = handle.settled(&operator(), git).await.unwrap();
    assert_eq!((record.outcome, record.committed.is_some()), (WELL, true));
    assert_eq!(place.repositories.last_commit(path).0.trim(), "exit 1");
}

#[tokio::test]
async fn a_stop_ends_what_runs_and_holds_the_attempt() {
    let place = Place::new();
    let handle = place.start().await;
    let accepted = run(&handle, in_directory(&["forever"])).await;
    handle.started(&operator(), accepted.execution).await.unwrap();
    let target = StopTarget::Execution(accepted.execution);
    handle.stop(operator(), target, None).await.unwrap();
    let record = settled(&handle, &accepted).await;
    assert_eq!(record.outcome, Some(Outcome::Stopped { by: StoppedBy::User }));
    let attempt = handle.attempt(&operator(), accepted.attempt).await.unwrap();
    assert_eq!(attempt.reason, Some(Reason::Stopped));
    handle.stop(operator(), target, None).await.unwrap();
    let nobody = StopTarget::Execution(ExecutionId(uuid::Uuid::from_u128(1)));
    let unknown = handle.stop(operator(), nobody, None).await;
    assert!(matches!(unknown, Err(EngineError::NotFound { .. })), "{unknown:?}");
}

#[tokio::test]
async fn what_is_removed_in_a_directory_takes_no_more_work_and_holds_no_slot() {
    let place = Place::with_limits(1, 8);
    let (repo, handle) = (place.repository(), place.start().await);
    let accepted = run(&handle, in_worktree(&repo, &["exit", "0"])).await;
    settled(&handle, &accepted).await;
    let attempt = handle.attempt(&operator(), accepted.attempt).await.unwrap();
    let path = &attempt.workspace.worktree().unwrap().path;
    assert!(place.repositories.exists(path));
    handle.remove(operator(), accepted.attempt, RemoveOptions::default()).await.unwrap();
    assert!(!place.repositories.exists(path));
    handle.remove(operator(), accepted.attempt, RemoveOptions::default()).await.unwrap();
    let plain = run(&handle, in_directory(&["exit", "0"])).await;
    settled(&handle, &plain).await;
    handle.remove(operator(), plain.attempt, RemoveOptions::default()).await.unwrap();
    // The refused one had asked for a slot while all were taken; nobody holds it afterwards.
    let other = run(&handle, in_directory(&["wait", "0"])).await;
    let request = exec(plain.attempt, &["exit", "0"]);
    assert_eq!(refused(handle.exec(operator(), request).await), RefusalCode::WrongState);
    place.world.release(other.execution);
    settled(&handle, &other).await;
    let status = handle.status().await.unwrap();
    assert_eq!((status.running, status.queued), (0, 0));
}

#[tokio::test]
async fn a_removal_is_refused_while_something_runs_unless_it_is_forced() {
    let place = Place::new();
    let (repo, handle) = (place.repository(), place.start().await);
    let accepted = run(&handle, in_worktree(&repo, &["forever"])).await;
    handle.started(&operator(), accepted.execution).await.unwrap();
    let gentle = handle.remove(operator(), accepted.attempt, RemoveOptions::default()).await;
    assert_eq!(refused(gentle), RefusalCode::Busy);
    handle.remove(operator(), accepted.attempt, FORCED).await.unwrap();
    assert_eq!(place.world.alive(accepted.execution), 0);
    let attempt = handle.attempt(&operator(), accepted.attempt).await.unwrap();
    assert_eq!((attempt.status, attempt.claim), (AttemptStatus::Removed, None));
}

#[tokio::test]
async fn the_next_host_adopts_what_runs_and_starts_nothing_twice() {
    let place = Place::new();
    let (repo, handle) = (place.repository(), place.start().await);
    let accepted = run(&handle, in_worktree(&repo, &["wait", "3"])).await;
    handle.started(&operator(), accepted.execution).await.unwrap();
    let handle = place.restart().await;
    assert_eq!(handle.status().await.unwrap().running, 1);
    place.world.release(accepted.execution);
    let record = settled(&handle, &accepted).await;
    assert_eq!(record.outcome, Some(Outcome::Exited { code: 3 }));
    assert_eq!(place.launches(), 1);
    assert_eq!(handle.status().await.unwrap().running, 0);
}

#[tokio::test]
async fn a_repeated_key_gives_the_same_answer_and_another_request_is_refused() {
    let place = Place::new();
    let handle = place.start().await;
    let request = || in_directory(&["exit", "0"]);
    let (first, second) =
        futures::join!(handle.run(keyed("k"), request()), handle.run(keyed("k"), request()),);
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first, second);
    settled(&handle, &first).await;
    let handle = place.restart().await;
    assert_eq!(handle.run(keyed("k"), request()).await.unwrap(), first);
    let other = handle.run(keyed("k"), in_directory(&["exit", "1"])).await;
    assert_eq!(refused(other), RefusalCode::KeyReused);
    let mut of_another = keyed("k");
    of_another.owner = Some("a".to_owned());
    assert_ne!(handle.run(of_another, request()).await.unwrap(), first);
}

#[tokio::test]
async fn owners_do_not_see_each_other() {
    let place = Place::new();
    let handle = place.start().await;
    let (a, b) = (owner("a"), owner("b"));
    let accepted = handle.run(a.clone(), in_directory(&["forever"])).await.unwrap();
    handle.started(&a, accepted.execution).await.unwrap();
    let missing = |error| assert!(matches!(error, EngineError::NotFound { .. }), "{error:?}");
    missing(handle.execution(&b, accepted.execution).await.unwrap_err());
    missing(handle.settled(&b, accepted.execution).await.unwrap_err());
    missing(handle.attempt(&b, accepted.attempt).await.unwrap_err());
    for target in [StopTarget::Execution(accepted.execution), StopTarget::Attempt(accepted.attempt)]
    {
        missing(handle.stop(b.clone(), target, None).await.unwrap_err());
    }
    missing(handle.remove(b.clone(), accepted.attempt, FORCED).await.unwrap_err());
    let request = exec(accepted.attempt, &["exit", "0"]);
    missing(handle.exec(b.clone(), request).await.unwrap_err());
    let changes = handle.changes(&b, Default::default(), 1_000).await.unwrap();
    assert_eq!(changes.changes, []);
    assert_eq!(place.world.alive(accepted.execution), 1);
}

#[tokio::test]
async fn who_finds_no_slot_waits_in_line_or_is_refused() {
    let place = Place::with_limits(1, 1);
    let handle = place.start().await;
    let first = run(&handle, in_directory(&["wait", "0"])).await;
    let second = run(&handle, in_directory(&["exit", "2"])).await;
    let mut impatient = in_directory(&["exit", "0"]);
    impatient.launch.when_full = WhenFull::Refuse;
    let full = handle.run(operator(), impatient).await;
    assert_eq!(refused(full), RefusalCode::LimitExecutions);
    let third = handle.run(operator(), in_directory(&["exit", "0"])).await;
    assert_eq!(refused(third), RefusalCode::QueueFull);
    // The line is the same after a restart.
    let handle = place.restart().await;
    let record = handle.execution(&operator(), second.execution).await.unwrap();
    assert_eq!(record.phase, Phase::Queued);
    place.world.release(first.execution);
    assert_eq!(settled(&handle, &second).await.outcome, Some(Outcome::Exited { code: 2 }));
    let status = handle.status().await.unwrap();
    assert_eq!((status.running, status.queued), (0, 0));
}

#[tokio::test]
async fn what_is_stopped_in_line_never_starts_and_leaves_no_slot() {
    let place = Place::with_limits(1, 8);
    let handle = place.start().await;
    let first = run(&handle, in_directory(&["wait", "0"])).await;
    handle.started(&operator(), first.execution).await.unwrap();
    let second = run(&handle, in_directory(&["exit", "0"])).await;
    let target = StopTarget::Attempt(second.attempt);
    handle.stop(operator(), target, None).await.unwrap();
    let record = settled(&handle, &second).await;
    assert_eq!(record.outcome, Some(Outcome::Stopped { by: StoppedBy::User }));
    place.world.release(first.execution);
    settled(&handle, &first).await;
    assert_eq!(place.launches(), 1);
    let status = handle.status().await.unwrap();
    assert_eq!((status.running, status.queued), (0, 0));
}

#[tokio::test]
async fn a_secret_that_went_with_its_host_is_waited_for_and_given_again() {
    let place = Place::with_limits(1, 8);
    let handle = place.start().await;
    let first = run(&handle, in_directory(&["wait", "0"])).await;
    handle.started(&operator(), first.execution).await.unwrap();
    let request = || with_secret(&["exit", "0"]);
    let waiting = handle.run(keyed("k"), request()).await.unwrap();
    let handle = place.restart().await;
    place.world.release(first.execution);
    let record = until(&handle, &waiting, |record| record.missing_secret.is_some()).await;
    assert_eq!(record.phase, Phase::Queued);
    assert_eq!(record.missing_secret.as_deref(), Some("TOKEN"));
    // It keeps nobody from running meanwhile.
    let other = run(&handle, in_directory(&["exit", "0"])).await;
    assert_eq!(settled(&handle, &other).await.outcome, WELL);
    assert_eq!(handle.run(keyed("k"), request()).await.unwrap(), waiting);
    assert_eq!(settled(&handle, &waiting).await.outcome, WELL);
}

#[tokio::test]
async fn a_program_that_is_missing_is_named() {
    let place = Place::new();
    let handle = place.start().await;
    let accepted = run(&handle, in_directory(&["nope"])).await;
    let record = settled(&handle, &accepted).await;
    let reason = NotStarted::ProgramNotFound;
    assert_eq!(record.outcome, Some(Outcome::NotStarted { reason }));
    assert_eq!(record.message.as_deref(), Some("there is no program nope"));
}

#[tokio::test]
async fn input_reaches_what_was_adopted() {
    let place = Place::new();
    let handle = place.start().await;
    let mut request = in_directory(&["echo-stdin"]);
    request.launch.stdin = Stdin::Messages;
    let accepted = run(&handle, request).await;
    handle.started(&operator(), accepted.execution).await.unwrap();
    let message = |key, bytes: &str, close| InputRequest {
        execution: accepted.execution,
        key: uuid::Uuid::from_u128(key),
        bytes: bytes.into(),
        secret: false,
        close,
    };
    handle.input(operator(), message(1, "one ", false)).await.unwrap();
    let handle = place.restart().await;
    handle.input(operator(), message(1, "one ", false)).await.unwrap();
    handle.input(operator(), message(2, "two", true)).await.unwrap();
    let record = settled(&handle, &accepted).await;
    assert_eq!(record.outcome, WELL);
    assert!(record.preview.unwrap().ends_with("one two"));
}

#[tokio::test]
async fn a_shutdown_drains_and_touches_nothing_that_runs() {
    let place = Place::new();
    let handle = place.start().await;
    let accepted = run(&handle, in_directory(&["wait", "0"])).await;
    handle.started(&operator(), accepted.execution).await.unwrap();
    let waiter = handle.clone();
    let waits = async { waiter.ended(&operator(), accepted.execution).await };
    let (ended, closed) = futures::join!(waits, handle.shut_down());
    closed.unwrap();
    assert!(matches!(ended, Err(EngineError::Closing)), "{ended:?}");
    place.all_tasks_end().await;
    let late = handle.run(operator(), in_directory(&["exit", "0"])).await;
    assert!(matches!(late, Err(EngineError::Closing)), "{late:?}");
    let handle = place.start().await;
    place.world.release(accepted.execution);
    assert_eq!(settled(&handle, &accepted).await.outcome, WELL);
    drop((handle, waiter));
    place.all_tasks_end().await;
}
