//! What the attempt machine does, row by row.

mod beside;
mod chain;
mod ending;
mod follow_ups;
mod integration;
mod making;
mod removal;
mod retry;

use std::time::Duration;

use super::*;
use crate::action::{Action, ActionKind, RunOptions, RunReason, TimeLimits};
use crate::container_service::{Adoption, Launched, Place, Running, StopCause};
use crate::execution::{ExitReport, FinalReport, ResourceUse};
use crate::id::{AttemptId, NodeId, Nonce};
use crate::locator::Locator;
use crate::outcome::{CompletedBy, Exit, Lost, NotStarted, Outcome, StoppedBy};
use crate::process_store::Record;
use crate::record::{AttemptStatus, Claim, CommitPolicy, NewAttempt, NewExecution, Reason};
use crate::snapshot::{Snapshot, SnapshotCause};
use crate::vcs_worktree::{GitStep, Saved};
use crate::workspace::{Oid, Workspace, Worktree};
use proptest::prelude::*;

const A: AttemptId = AttemptId(Uuid::from_u128(0xa));
const X: ExecutionId = ExecutionId(Uuid::from_u128(0x1));
const Y: ExecutionId = ExecutionId(Uuid::from_u128(0x2));
const GIT: ExecutionId = ExecutionId(Uuid::from_u128(0x9));
const ASKER: RequestId = RequestId(7);

fn config() -> Config {
    Config {
        host: HostId(Uuid::from_u128(0xf)),
        epoch: Epoch(3),
        git_timeout_ms: 60_000,
        git_grace_ms: 1_000,
        readopt_ms: 500,
        max_void_places: 2,
        identity: Identity { name: "w".into(), email: "w@x".into() },
    }
}

fn worktree() -> Worktree {
    Worktree {
        repo: Locator::new("/r/.git"),
        path: Locator::new("/w"),
        branch: "b".into(),
        base: "main".into(),
        base_oid: oid("0"),
        target: Some("main".into()),
        copy: None,
    }
}

fn oid(text: &str) -> Oid {
    Oid(text.to_owned())
}

fn place(n: u128) -> Place {
    Place { locator: Locator::new("/p"), nonce: Nonce(Uuid::from_u128(n)), identity: "1".into() }
}

fn attempt(workspace: Workspace, status: AttemptStatus) -> AttemptRecord {
    let mut record = AttemptRecord::new(NewAttempt {
        id: A,
        title: "do it".into(),
        owner: None,
        workspace,
        commit: CommitPolicy::Commit,
        node: NodeId(Uuid::nil()),
        host: HostId(Uuid::nil()),
        epoch: Epoch(1),
        at: Timestamp(1),
    });
    record.status = status;
    record
}

fn execution(id: ExecutionId, run_reason: RunReason) -> ExecutionRecord {
    ExecutionRecord::queued(NewExecution {
        id,
        attempt: A,
        owner: None,
        client_key: Some("k".into()),
        action: Action {
            kind: ActionKind::Command { argv: vec!["true".into()] },
            run_reason,
            next: None,
        },
        options: RunOptions {
            env: BTreeMap::new(),
            secrets: BTreeMap::new(),
            stdin: Default::default(),
            output: Default::default(),
            leftovers: Default::default(),
            limits: TimeLimits { total_ms: None, idle_ms: None, grace_ms: 5_000 },
            log_cap_bytes: 1 << 20,
        },
        repository_lock: None,
        cwd: Locator::new("/w"),
        at: Timestamp(1),
    })
}

fn key(execution: ExecutionId) -> RequestRecord {
    RequestRecord {
        client_key: "k".into(),
        owner: None,
        attempt: A,
        execution,
        made: None,
        digest: Uuid::nil(),
        at: Timestamp(1),
    }
}

fn run() -> Input {
    let execution = Box::new(execution(X, RunReason::Agent));
    ask(Request::Run { execution, key: key(X), admitted: true })
}

fn ask(request: Request) -> Input {
    Input::Request { id: ASKER, request }
}

fn remove(force: bool) -> Input {
    ask(Request::Remove {
        force,
        discard_unsaved: false,
        delete_branch: false,
        cause: SnapshotCause::Removal,
    })
}

/// The fact that a worktree was saved, with a snapshot of this number if there is one.
fn saved(number: Option<u32>) -> Input {
    saved_at(number, "5")
}

fn saved_at(number: Option<u32>, head: &str) -> Input {
    let snapshot = number.map(|number| snapshot(number, head));
    let saved = Saved { head: oid(head), branch: Some("b".into()), snapshot };
    fact(Fact::Saved(Box::new(saved)))
}

fn snapshot(number: u32, head: &str) -> Snapshot {
    Snapshot {
        number: SnapshotNumber(number),
        head: oid(head),
        branch: Some("b".into()),
        entries: 1,
        bytes: 2,
        deleted: 0,
        commits: 0,
        archive: Locator::new("/s"),
        archive_bytes: 3,
        sha256: "0".into(),
        left_out: Vec::new(),
        more_left_out: 0,
        left_out_bytes: 0,
    }
}

fn stop(execution: Option<ExecutionId>, grace_ms: Option<u64>) -> Input {
    let cause = StopCause::Stop { by: StoppedBy::User };
    ask(Request::Stop { execution, cause, grace_ms })
}

fn failed(message: &str) -> Refusal {
    Refusal { code: RefusalCode::Failed, message: message.into() }
}

fn fact(fact: Fact) -> Input {
    Input::Fact(fact)
}

fn prepared(execution: ExecutionId, n: u128) -> Input {
    fact(Fact::Prepared { execution, place: place(n), head: Some(oid("0")) })
}

fn launched(execution: ExecutionId) -> Input {
    let launched = Launched::Running(Running { pid: 42, since: Timestamp(5) });
    fact(Fact::Launched { execution, launched })
}

fn report(outcome: Outcome) -> ExitReport {
    ExitReport {
        outcome,
        exit: Some(Exit::Code(0)),
        at: Timestamp(9),
        usage: ResourceUse::default(),
        out_of_memory: false,
    }
}

fn final_report(outcome: Outcome) -> FinalReport {
    FinalReport {
        exit: report(outcome),
        last_seq: 1,
        bytes: 3,
        dropped_bytes: 0,
        output_incomplete: false,
        survivors: Vec::new(),
        more_survivors: 0,
    }
}

fn exited(execution: ExecutionId, outcome: Outcome) -> Input {
    fact(Fact::Exited { execution, report: report(outcome) })
}

fn finished(execution: ExecutionId, outcome: Outcome, head: &str) -> Input {
    let report = final_report(outcome);
    fact(Fact::Finished { execution, report, preview: Some("out".into()), head: Some(oid(head)) })
}

const WELL: Outcome = Outcome::Exited { code: 0 };
const BADLY: Outcome = Outcome::Exited { code: 1 };

/// A machine of a worktree that is there, with nothing recorded yet.
fn ready() -> State {
    State::new(attempt(Workspace::Worktree(worktree()), AttemptStatus::Ready))
}

/// Feeds `inputs`, one per millisecond; returns the machine and the effects of the last.
fn feed(mut state: State, inputs: impl IntoIterator<Item = Input>) -> (State, Vec<Effect>) {
    let mut effects = Vec::new();
    for (n, input) in inputs.into_iter().enumerate() {
        let step = state.step(&config(), Timestamp(10 + n as u64), input);
        (state, effects) = (step.state, step.effects);
    }
    (state, effects)
}

/// What effects are, in words: `+` stands for the batch, an operation for its name.
fn words(effects: &[Effect]) -> Vec<String> {
    let word = |effect: &Effect| match effect {
        Effect::Persist { .. } => "+".to_owned(),
        Effect::WakeAt(at) => format!("wake {}", at.0),
        Effect::Reply { reply, .. } => {
            format!("{reply:?}").chars().take_while(|c| c.is_alphanumeric()).collect()
        }
        Effect::Begin(operation) => {
            format!("{operation:?}").chars().take_while(|c| c.is_alphanumeric()).collect()
        }
    };
    effects.iter().map(word).collect()
}

/// Feeds `inputs` to a ready worktree and compares the effects of the last with `expected` words.
#[track_caller]
fn check(inputs: impl IntoIterator<Item = Input>, expected: &[&str]) -> (State, Vec<Effect>) {
    let (state, effects) = feed(ready(), inputs);
    assert_eq!(words(&effects), expected);
    (state, effects)
}

/// The record of an execution in the batch of these effects.
#[track_caller]
fn written(effects: &[Effect], id: ExecutionId) -> ExecutionRecord {
    let record = writes(effects).into_iter().find(|record| record.key.id == id.0).unwrap();
    ExecutionRecord::decode(&record).unwrap()
}

#[track_caller]
fn written_attempt(effects: &[Effect]) -> AttemptRecord {
    let record = writes(effects).into_iter().find(|record| record.key.id == A.0).unwrap();
    AttemptRecord::decode(&record).unwrap()
}

fn writes(effects: &[Effect]) -> Vec<Record> {
    let batches = effects.iter().filter_map(|effect| match effect {
        Effect::Persist { writes } => Some(writes.clone()),
        _ => None,
    });
    let record = |write| match write {
        Write::Put { record, .. } => Some(record),
        Write::Delete { .. } => None,
    };
    batches.flatten().filter_map(record).collect()
}

fn running() -> Vec<Input> {
    vec![run(), prepared(X, 1), launched(X)]
}

fn committing() -> Vec<Input> {
    let step = GitStep {
        argv: vec!["git".into(), "commit".into()],
        base_env: Vec::new(),
        env: Vec::new(),
        cwd: Locator::new("/w"),
        repository_lock: Locator::new("/r/.git"),
    };
    let planned = fact(Fact::StepPlanned { nothing: None, step: Some((GIT, step)) });
    let mut inputs = running();
    inputs.extend([exited(X, WELL), finished(X, WELL, "0"), planned]);
    inputs
}

#[test]
fn a_run_is_recorded_before_it_is_acknowledged_and_prepared() {
    let (_, effects) = check([run()], &["+", "Accepted", "Prepare"]);
    assert_eq!(writes(&effects).len(), 3, "attempt, execution and key in one batch");
}

#[test]
fn a_place_is_recorded_before_anything_is_launched_in_it() {
    let (_, effects) = check([run(), prepared(X, 1)], &["+", "Launch"]);
    let record = written(&effects, X);
    assert_eq!((record.phase, record.place), (Phase::Starting, Some(place(1))));
    assert_eq!(written_attempt(&effects).status, AttemptStatus::Running);
}

#[test]
fn an_exit_is_awaited_without_waiting_for_the_record_that_it_runs() {
    check(running(), &["AwaitExit", "+"]);
}

#[test]
fn an_outcome_is_recorded_when_it_is_known() {
    let mut inputs = running();
    inputs.push(exited(X, BADLY));
    let (_, effects) = check(inputs, &["Finish", "+"]);
    let record = written(&effects, X);
    assert_eq!((record.phase, record.outcome), (Phase::Ended, Some(BADLY)));
}

#[test]
fn a_good_end_is_committed_by_a_git_execution_in_the_slot_of_the_chain() {
    let (_, effects) = check(committing(), &["+", "Prepare"]);
    let git = written(&effects, GIT);
    assert_eq!(git.action.run_reason, RunReason::Git);
    assert_eq!(git.repository_lock, Some(Locator::new("/r/.git")));
    assert_eq!(git.options.limits.total_ms, Some(60_000));
}

#[test]
fn a_commit_is_noted_on_the_execution_whose_work_it_is() {
    let mut inputs = committing();
    inputs.extend([prepared(GIT, 2), launched(GIT), exited(GIT, WELL), finished(GIT, WELL, "1")]);
    let (state, effects) = check(inputs, &["+", "ReleaseSlot"]);
    assert_eq!(written(&effects, X).committed, Some(oid("1")));
    assert_eq!(written_attempt(&effects).status, AttemptStatus::Finished);
    assert!(state.is_idle());
}

#[test]
fn a_failed_commit_holds_the_attempt_with_gits_output() {
    let mut inputs = committing();
    inputs.extend([prepared(GIT, 2), launched(GIT), exited(GIT, BADLY), finished(GIT, BADLY, "0")]);
    inputs.push(saved(Some(1)));
    let (_, effects) = check(inputs, &["+", "ReleaseSlot"]);
    let reason = Reason::CommitFailed { output: "out".into(), execution: Some(GIT) };
    assert_eq!(written_attempt(&effects).reason, Some(reason));
}

#[test]
fn a_lost_commit_is_looked_at_and_tried_once_more() {
    let lost = Outcome::Lost { reason: Lost::SupervisorDied };
    let mut inputs = committing();
    inputs.extend([prepared(GIT, 2), launched(GIT), exited(GIT, lost), finished(GIT, lost, "0")]);
    let (state, _) = check(inputs, &["+", "PlanStep"]);
    let clean = fact(Fact::StepPlanned { nothing: Some(oid("1")), step: None });
    let (_, effects) = feed(state, [clean]);
    assert_eq!(written_attempt(&effects).status, AttemptStatus::Finished);
}

#[test]
fn a_clean_worktree_needs_no_commit() {
    let mut inputs = running();
    let clean = fact(Fact::StepPlanned { nothing: Some(oid("0")), step: None });
    inputs.extend([exited(X, WELL), finished(X, WELL, "0"), clean]);
    let (state, effects) = check(inputs, &["+", "ReleaseSlot"]);
    assert_eq!(written_attempt(&effects).status, AttemptStatus::Finished);
    assert!(state.is_idle());
}

#[test]
fn a_stop_is_recorded_before_it_is_passed_on() {
    let mut inputs = running();
    inputs.push(stop(Some(X), Some(100)));
    let (_, effects) = check(inputs, &["+", "Stop", "Accepted"]);
    assert_eq!(written(&effects, X).phase, Phase::Stopping);
    assert!(written_attempt(&effects).chain_stopped);
}

#[test]
fn a_stop_while_it_is_launched_is_passed_on_when_it_runs() {
    let (_, effects) =
        check([run(), prepared(X, 1), stop(None, None), launched(X)], &["AwaitExit", "+", "Stop"]);
    assert_eq!(written(&effects, X).phase, Phase::Stopping);
}

#[test]
fn a_second_stop_is_passed_on_only_with_a_shorter_grace() {
    let mut inputs = running();
    inputs.extend([stop(Some(X), Some(1_000)), stop(Some(X), Some(10))]);
    let (state, effects) = check(inputs, &["+", "Stop", "Accepted"]);
    let begun = effects.iter().any(|effect| {
        matches!(effect, Effect::Begin(Operation::Stop { request, .. })
            if request.grace == Duration::from_millis(10))
    });
    assert!(begun, "{effects:?}");
    let (_, effects) = feed(state, [stop(Some(X), Some(500))]);
    assert_eq!(words(&effects), ["+", "Accepted"]);
}

#[test]
fn what_is_stopped_before_it_starts_never_starts() {
    let (state, effects) = check([run(), stop(Some(X), None)], &["+", "ReleaseSlot", "Accepted"]);
    let outcome = written(&effects, X).outcome;
    assert_eq!(outcome, Some(Outcome::Stopped { by: StoppedBy::User }));
    let (_, effects) = feed(state, [prepared(X, 1)]);
    assert_eq!(words(&effects), ["Discard"]);
}

#[test]
fn a_stop_after_a_good_exit_keeps_the_commit_from_starting() {
    let mut inputs = running();
    inputs.extend([exited(X, WELL), stop(None, None), finished(X, WELL, "0"), saved(None)]);
    let (_, effects) = check(inputs, &["+", "ReleaseSlot"]);
    assert_eq!(written_attempt(&effects).reason, Some(Reason::Stopped));
}

#[test]
fn what_the_program_completes_ended_well() {
    let completed = Outcome::Completed { by: CompletedBy::Program };
    let mut inputs = running();
    let cause = StopCause::Complete { by: CompletedBy::Program };
    inputs.push(ask(Request::Stop { execution: Some(X), cause, grace_ms: None }));
    inputs.extend([exited(X, completed), finished(X, completed, "0")]);
    check(inputs, &["+", "PlanStep"]);
}

#[test]
fn a_launch_that_did_not_start_ends_with_its_reason() {
    let launched = Launched::NotStarted {
        reason: NotStarted::ProgramNotFound,
        message: "no such program: nope".into(),
    };
    let inputs = [run(), prepared(X, 1), fact(Fact::Launched { execution: X, launched })];
    let (_, effects) = check(inputs, &["+", "ReleaseSlot"]);
    let record = written(&effects, X);
    assert_eq!(record.phase, Phase::Final);
    assert_eq!(record.message.as_deref(), Some("no such program: nope"));
}

#[test]
fn a_launch_in_doubt_is_looked_at() {
    let doubt = fact(Fact::InDoubt { execution: X, message: "gone".into() });
    check([run(), prepared(X, 1), doubt], &["+", "Adopt"]);
}

/// Loads what `state` has stored and tells it that a host has taken over.
fn recover(state: &State) -> (State, Vec<Effect>) {
    let stored = state.executions.values().map(|t| (t.record.clone(), t.revision)).collect();
    let queue = state.queue.iter().map(|it| (it.record.clone(), it.revision)).collect();
    let loaded = State::load(state.attempt.clone(), state.revision, stored).with_queue(queue);
    feed(loaded, [fact(Fact::Recovered)])
}

#[test]
fn a_new_host_queues_what_waited_and_adopts_what_may_run() {
    let (state, _) = feed(ready(), [run()]);
    assert_eq!(words(&recover(&state).1), ["TakeSlot"]);
    let (state, _) = feed(ready(), [run(), prepared(X, 1)]);
    assert_eq!(words(&recover(&state).1), ["TakeSlot", "Adopt"]);
    let (state, _) = feed(ready(), running());
    assert_eq!(words(&recover(&state).1), ["TakeSlot", "Adopt"]);
}

#[test]
fn a_new_host_goes_on_with_a_commit_that_was_being_planned() {
    let mut inputs = running();
    inputs.extend([exited(X, WELL), finished(X, WELL, "0")]);
    let (state, _) = feed(ready(), inputs);
    assert_eq!(words(&recover(&state).1), ["PlanStep"]);
}

#[test]
fn what_never_ran_is_launched_again_in_a_new_place_but_not_for_ever() {
    let (state, _) = feed(ready(), [run(), prepared(X, 1)]);
    let never = || fact(Fact::Adopted { execution: X, adoption: Adoption::NeverRan });
    let (mut state, _) = recover(&state);
    // The first place was that of a host that died: it says nothing of the shim.
    for n in 2..5 {
        let (next, effects) = feed(state, [never()]);
        assert_eq!(words(&effects), ["+", "Prepare"]);
        let doubt = fact(Fact::InDoubt { execution: X, message: "?".into() });
        let (next, effects) = feed(next, [prepared(X, n), doubt]);
        assert_eq!(words(&effects), ["+", "Adopt"]);
        state = next;
    }
    let (_, effects) = feed(state, [never()]);
    let outcome = Outcome::NotStarted { reason: NotStarted::SpawnFailed };
    assert_eq!(written(&effects, X).outcome, Some(outcome));
}

#[test]
fn evidence_that_denies_what_was_seen_is_damaged_and_no_permission_to_start() {
    let (state, _) = feed(ready(), running());
    let (state, _) = recover(&state);
    let never = fact(Fact::Adopted { execution: X, adoption: Adoption::NeverRan });
    let (_, effects) = feed(state, [never]);
    let outcome = Outcome::Lost { reason: Lost::EvidenceDamaged };
    assert_eq!(written(&effects, X).outcome, Some(outcome));
    assert_eq!(words(&effects), ["+", "Save"], "what it left is saved, and nothing is launched");
}

#[test]
fn a_mute_supervisor_is_asked_again_later_and_nothing_is_ended_for_it() {
    let (state, _) = feed(ready(), running());
    let (state, _) = recover(&state);
    let mute = Adoption::Unresponsive { detail: "mute".into() };
    let (state, effects) = feed(state, [fact(Fact::Adopted { execution: X, adoption: mute })]);
    assert_eq!(words(&effects), ["+", "wake 510"]);
    let step = state.step(&config(), Timestamp(510), fact(Fact::Woke));
    assert_eq!(words(&step.effects), ["Adopt"]);
}

#[test]
fn what_cannot_be_verified_is_shown_and_left_alone() {
    let (state, _) = feed(ready(), running());
    let (state, _) = recover(&state);
    let foreign = Adoption::Foreign { detail: "another machine".into() };
    let (state, effects) = feed(state, [fact(Fact::Adopted { execution: X, adoption: foreign })]);
    assert_eq!(words(&effects), ["+"]);
    let record = written(&effects, X);
    assert_eq!((record.phase, record.outcome), (Phase::Running, None));
    assert!(!state.is_idle());
}

#[test]
fn a_recorded_stop_is_passed_on_by_the_next_host() {
    let mut inputs = running();
    inputs.push(stop(Some(X), Some(50)));
    let (state, _) = feed(ready(), inputs);
    let (state, _) = recover(&state);
    let running = Some(Running { pid: 42, since: Timestamp(5) });
    let adoption = Adoption::Running { running, exited: None };
    let (_, effects) = feed(state, [fact(Fact::Adopted { execution: X, adoption })]);
    assert!(words(&effects).contains(&"Stop".to_owned()), "{effects:?}");
}

#[test]
fn a_worktree_is_made_before_anything_is_prepared_in_it() {
    let state = State::new(attempt(Workspace::Worktree(worktree()), AttemptStatus::Creating));
    let (state, effects) = feed(state, [run()]);
    assert_eq!(words(&effects), ["+", "Accepted", "CreateWorktree"]);
    let (_, effects) = feed(state, [fact(Fact::WorktreeCreated { head: oid("0") })]);
    assert_eq!(words(&effects), ["+", "Prepare"]);
}

#[test]
fn a_worktree_that_cannot_be_made_fails_the_attempt_and_its_execution() {
    let state = State::new(attempt(Workspace::Worktree(worktree()), AttemptStatus::Creating));
    let failed = fact(Fact::WorktreeFailed { refusal: failed("no space") });
    let (state, effects) = feed(state, [run(), failed]);
    assert_eq!(words(&effects), ["+", "ReleaseSlot"]);
    assert_eq!(written_attempt(&effects).status, AttemptStatus::Failed);
    let outcome = Outcome::NotStarted { reason: NotStarted::WorkspaceRefused };
    assert_eq!(written(&effects, X).outcome, Some(outcome));
    assert!(state.is_idle());
}

#[test]
fn a_removal_claims_the_workspace_and_admits_nothing_more() {
    let (state, _) = feed(ready(), running());
    let (state, effects) = feed(state, [remove(false)]);
    assert_eq!(words(&effects), ["Refused"], "something runs in it");
    let (state, effects) = feed(state, [remove(true)]);
    assert_eq!(words(&effects), ["+", "Stop"]);
    assert_eq!(written_attempt(&effects).claim, Some(Claim::Remove));
    let start = Request::Start {
        execution: Box::new(execution(Y, RunReason::Background)),
        key: key(Y),
        admitted: true,
    };
    let (state, effects) = feed(state, [ask(start)]);
    assert_eq!(words(&effects), ["ReleaseSlot", "Refused"]);
    let stopped = Outcome::Stopped { by: StoppedBy::Host };
    let (state, effects) = feed(state, [exited(X, stopped), finished(X, stopped, "0")]);
    assert_eq!(words(&effects), ["+", "ReleaseSlot", "Save"]);
    let (state, effects) = feed(state, [saved(None)]);
    assert_eq!(words(&effects), ["+", "RemoveWorktree"]);
    let (state, effects) = feed(state, [fact(Fact::WorktreeRemoved)]);
    assert_eq!(words(&effects), ["+", "Removed"]);
    assert!(state.is_idle());
}

#[test]
fn a_forced_removal_waits_for_a_worktree_that_is_being_made() {
    let state = State::new(attempt(Workspace::Worktree(worktree()), AttemptStatus::Creating));
    let (state, effects) = feed(state, [run(), remove(false)]);
    assert_eq!(words(&effects), ["Refused"]);
    let (state, effects) = feed(state, [remove(true)]);
    assert_eq!(words(&effects), ["+", "ReleaseSlot"]);
    let (state, effects) = feed(state, [fact(Fact::WorktreeCreated { head: oid("0") })]);
    assert_eq!(words(&effects), ["+", "Save"]);
    let (state, _) = feed(state, [saved(None)]);
    let (state, effects) = feed(state, [fact(Fact::WorktreeRemoved)]);
    assert_eq!(words(&effects), ["+", "Removed"]);
    assert!(state.is_idle());
}

#[test]
fn a_refused_removal_leaves_the_attempt_as_it_was() {
    let mut inputs = running();
    inputs.extend([exited(X, BADLY), finished(X, BADLY, "0"), saved(None), remove(false)]);
    let (state, _) = feed(ready(), inputs);
    let refusal = Refusal { code: RefusalCode::Unsaved, message: "dirty".into() };
    let (state, effects) = feed(state, [fact(Fact::SaveRefused { refusal })]);
    assert_eq!(words(&effects), ["+", "Refused"]);
    let attempt = written_attempt(&effects);
    assert_eq!((attempt.status, attempt.claim), (AttemptStatus::Held, None));
    assert!(state.is_idle());
}

#[test]
fn a_directory_is_never_removed_or_committed_to() {
    let directory = Workspace::Directory { path: Locator::new("/d") };
    let state = State::new(attempt(directory, AttemptStatus::Ready));
    let mut inputs = running();
    inputs.extend([exited(X, WELL), finished(X, WELL, "0")]);
    let (state, effects) = feed(state, inputs);
    assert_eq!(words(&effects), ["+", "ReleaseSlot"]);
    let (state, effects) = feed(state, [ask(Request::Commit { message: "m".into() })]);
    assert_eq!(words(&effects), ["Refused"]);
    let (_, effects) = feed(state, [remove(false)]);
    assert_eq!(words(&effects), ["+", "Removed"]);
}

#[test]
fn a_missing_secret_gives_the_slot_back_and_waits_for_it() {
    let missing = fact(Fact::SecretMissing { execution: X, name: "TOKEN".into() });
    let (state, effects) = check([run(), missing], &["+", "ReleaseSlot"]);
    assert_eq!(written(&effects, X).phase, Phase::Queued);
    let (_, effects) = feed(state, [fact(Fact::SecretsGiven { execution: X })]);
    assert_eq!(words(&effects), ["+", "TakeSlot"]);
}

#[test]
fn a_forced_removal_of_what_is_being_committed_goes_on_when_the_plan_is_known() {
    let step = GitStep {
        argv: vec!["git".into()],
        base_env: Vec::new(),
        env: Vec::new(),
        cwd: Locator::new("/w"),
        repository_lock: Locator::new("/r/.git"),
    };
    let facts = [
        Fact::StepPlanned { nothing: None, step: Some((GIT, step)) },
        Fact::StepPlanned { nothing: Some(oid("0")), step: None },
        Fact::StepRefused { message: "busy".into() },
    ];
    for planned in facts {
        let mut inputs = running();
        inputs.extend([exited(X, WELL), finished(X, WELL, "0")]);
        inputs.extend([remove(true), fact(planned.clone())]);
        let (state, effects) = feed(ready(), inputs);
        assert_eq!(words(&effects), ["+", "ReleaseSlot", "Save"], "{planned:?}");
        let (state, effects) = feed(state, [saved(None), fact(Fact::WorktreeRemoved)]);
        assert_eq!(words(&effects), ["+", "Removed"], "{planned:?}");
        assert!(state.is_idle());
    }
}

#[test]
fn a_commit_that_is_stopped_while_it_is_planned_is_not_said_to_be_clean() {
    let mut inputs = running();
    inputs.extend([exited(X, BADLY), finished(X, BADLY, "0"), saved(None)]);
    inputs.extend([ask(Request::Commit { message: "m".into() }), stop(None, None)]);
    inputs.push(committing().pop().unwrap());
    check(inputs, &["+", "Refused", "Save"]);
}

#[test]
fn a_removal_that_waits_for_what_cannot_be_verified_is_given_up() {
    let foreign = || Adoption::Foreign { detail: "another machine".into() };
    let (state, _) = feed(ready(), running());
    let (state, _) = recover(&state);
    let looked_at = fact(Fact::Adopted { execution: X, adoption: foreign() });
    let (state, _) = feed(state, [looked_at.clone(), remove(true)]);
    let (state, effects) = feed(state, [looked_at]);
    assert_eq!(words(&effects), ["+", "Refused"]);
    let attempt = written_attempt(&effects);
    assert_eq!((attempt.status, attempt.claim), (AttemptStatus::Held, None));
    assert_eq!(state.executions().count(), 1, "it is still watched over");
}

/// A machine whose execution is prepared again after its first place was closed unused.
fn prepared_again() -> State {
    let doubt = fact(Fact::InDoubt { execution: X, message: "?".into() });
    let never = fact(Fact::Adopted { execution: X, adoption: Adoption::NeverRan });
    feed(ready(), [run(), prepared(X, 1), doubt, never]).0
}

#[test]
fn what_is_stopped_while_it_is_prepared_again_never_starts() {
    let (state, effects) = feed(prepared_again(), [stop(Some(X), None)]);
    assert_eq!(words(&effects), ["+", "ReleaseSlot", "Accepted"]);
    let (_, effects) = feed(state, [prepared(X, 2)]);
    assert_eq!(words(&effects), ["Discard"]);
}

#[test]
fn nothing_is_launched_again_in_a_workspace_that_is_being_removed() {
    let (state, effects) = feed(prepared_again(), [remove(true)]);
    assert_eq!(words(&effects), ["+", "ReleaseSlot", "Save"]);
    let (_, effects) = feed(state, [prepared(X, 2)]);
    assert_eq!(words(&effects), ["Discard"]);
}

#[test]
fn a_secret_that_went_missing_after_the_first_place_can_be_given_again() {
    let missing = || fact(Fact::SecretMissing { execution: X, name: "TOKEN".into() });
    let (state, effects) = feed(prepared_again(), [missing()]);
    assert_eq!(words(&effects), ["+", "ReleaseSlot"]);
    let given = fact(Fact::SecretsGiven { execution: X });
    let slot = fact(Fact::Admitted(Slot::Chain(A)));
    let (admitted, effects) = feed(state.clone(), [given, slot]);
    assert_eq!(words(&effects), ["Prepare"]);
    let (_, effects) = feed(admitted, [prepared(X, 2)]);
    assert!(written_attempt(&effects).slot, "the next host counts it");
    let (_, effects) = feed(state, [stop(Some(X), None)]);
    assert_eq!(words(&effects), ["+", "ReleaseSlot", "Accepted"], "or it is stopped");
}

#[test]
fn secrets_that_come_while_it_is_looked_for_them_are_not_missed() {
    let given = fact(Fact::SecretsGiven { execution: X });
    let missing = || fact(Fact::SecretMissing { execution: X, name: "TOKEN".into() });
    let (state, _) = check([run(), given, missing()], &["Prepare"]);
    let (_, effects) = feed(state, [missing()]);
    assert_eq!(words(&effects), ["+", "ReleaseSlot"]);
}

#[test]
fn a_refused_start_gives_up_the_slot_that_it_waits_for() {
    let state = State::new(attempt(Workspace::Worktree(worktree()), AttemptStatus::Failed));
    let start = Request::Start {
        execution: Box::new(execution(Y, RunReason::Background)),
        key: key(Y),
        admitted: false,
    };
    let (_, effects) = feed(state, [ask(start)]);
    assert_eq!(words(&effects), ["ReleaseSlot", "Refused"]);
}

#[test]
fn a_stop_of_what_ended_well_stops_the_commit_of_its_work() {
    let (state, effects) = feed(ready(), committing());
    assert_eq!(words(&effects), ["+", "Prepare"]);
    let (_, effects) = feed(state, [stop(Some(X), None)]);
    assert_eq!(words(&effects), ["+", "Save", "Accepted"]);
    assert_eq!(written_attempt(&effects).ending, Some(Reason::Stopped));
}

#[test]
fn a_stop_while_the_worktree_is_made_holds_the_attempt_and_finishes_the_worktree() {
    let state = State::new(attempt(Workspace::Worktree(worktree()), AttemptStatus::Creating));
    let (state, effects) = feed(state, [run(), stop(None, None)]);
    assert_eq!(written_attempt(&effects).status, AttemptStatus::Creating);
    assert_eq!(words(&recover(&state).1), ["+", "CreateWorktree"], "the next host sees to it");
    let (state, effects) = feed(state, [fact(Fact::WorktreeCreated { head: oid("0") })]);
    let attempt = written_attempt(&effects);
    assert_eq!((attempt.status, attempt.reason), (AttemptStatus::Held, Some(Reason::Stopped)));
    assert!(state.is_idle());
}

#[test]
fn what_cannot_be_awaited_is_looked_at_at_once_and_then_after_a_pause() {
    let doubt = || fact(Fact::InDoubt { execution: X, message: "broken".into() });
    let runs = || {
        let running = Some(Running { pid: 42, since: Timestamp(5) });
        fact(Fact::Adopted { execution: X, adoption: Adoption::Running { running, exited: None } })
    };
    let mut inputs = running();
    inputs.push(doubt());
    let (state, _) = check(inputs, &["Adopt"]);
    let (_, effects) = feed(state, [runs(), doubt()]);
    assert_eq!(words(&effects), ["+", "wake 511"]);
}

#[test]
fn a_clock_that_was_stepped_back_delays_no_retry() {
    let (state, _) = feed(ready(), running());
    let (state, _) = recover(&state);
    let mute = Adoption::Unresponsive { detail: "mute".into() };
    let mute = fact(Fact::Adopted { execution: X, adoption: mute });
    let state = state.step(&config(), Timestamp(1_000_000), mute).state;
    let early = state.clone().step(&config(), Timestamp(1_000_100), fact(Fact::Woke));
    assert_eq!(words(&early.effects), ["wake 1000500"]);
    let stepped = state.step(&config(), Timestamp(1_000), fact(Fact::Woke));
    assert_eq!(words(&stepped.effects), ["Adopt"]);
}

#[test]
fn late_facts_change_nothing() {
    let mut inputs = running();
    inputs.extend([exited(X, BADLY), finished(X, BADLY, "0")]);
    let (state, _) = feed(ready(), inputs);
    for late in [launched(X), exited(X, WELL), finished(X, WELL, "1"), fact(Fact::Woke)] {
        let (next, effects) = feed(state.clone(), [late.clone()]);
        assert_eq!((words(&effects), &next), (Vec::new(), &state), "{late:?}");
    }
}

fn any_input() -> impl Strategy<Value = Input> {
    let outcome = prop_oneof![
        Just(WELL),
        Just(BADLY),
        Just(Outcome::Stopped { by: StoppedBy::User }),
        Just(Outcome::Lost { reason: Lost::SupervisorDied }),
    ];
    let id = prop_oneof![Just(X), Just(GIT)];
    prop_oneof![
        (id.clone(), 1..9_u128).prop_map(|(id, n)| prepared(id, n)),
        id.clone().prop_map(launched),
        (id.clone(), outcome.clone()).prop_map(|(id, outcome)| exited(id, outcome)),
        (id.clone(), outcome, "[01]").prop_map(|(id, outcome, head)| finished(id, outcome, &head)),
        (proptest::option::of(id.clone()), proptest::option::of(0..9_u64))
            .prop_map(|(id, grace)| stop(id, grace)),
        id.clone().prop_map(|execution| fact(Fact::InDoubt { execution, message: "?".into() })),
        id.prop_map(|execution| fact(Fact::Adopted { execution, adoption: Adoption::NeverRan })),
        any::<bool>().prop_map(remove),
        Just(ask(Request::Commit { message: "m".into() })),
        Just(committing().pop().unwrap()),
        Just(fact(Fact::StepPlanned { nothing: Some(oid("0")), step: None })),
        Just(fact(Fact::WorktreeRemoved)),
        Just(fact(Fact::Woke)),
        Just(fact(Fact::Recovered)),
    ]
}

/// Makes an input about `GIT` one about the latest git execution: ids are never used twice.
fn rename(input: &mut Input, git: ExecutionId) {
    let id = match input {
        Input::Fact(
            Fact::Prepared { execution, .. }
            | Fact::Launched { execution, .. }
            | Fact::Exited { execution, .. }
            | Fact::Finished { execution, .. }
            | Fact::InDoubt { execution, .. }
            | Fact::Adopted { execution, .. },
        ) => execution,
        Input::Request { request: Request::Stop { execution: Some(execution), .. }, .. } => {
            execution
        }
        _ => return,
    };
    if *id == GIT {
        *id = git;
    }
}

proptest! {
    /// Whatever comes in whatever order: phases never go back, an outcome never changes, nothing is launched that was
    /// not recorded with its place just before, nothing starts after a stop or in a workspace that is being removed, and a
    /// removal that nothing keeps goes on.
    #[test]
    fn phases_never_go_back_and_launches_follow_their_record(
        inputs in proptest::collection::vec(any_input(), 1..60)
    ) {
        let mut state = feed(ready(), [run()]).0;
        let mut last: BTreeMap<ExecutionId, ExecutionRecord> = BTreeMap::new();
        let mut git = GIT;
        for (n, mut input) in inputs.into_iter().enumerate() {
            if let Input::Fact(Fact::StepPlanned { step: Some((id, _)), .. }) = &mut input {
                git = ExecutionId(Uuid::from_u128(0x100 + n as u128));
                *id = git;
            } else {
                rename(&mut input, git);
            }
            let step = state.step(&config(), Timestamp(100 + n as u64), input);
            let mut batches = 0;
            for effect in &step.effects {
                match effect {
                    Effect::Persist { writes } => {
                        batches += 1;
                        for write in writes {
                            let Write::Put { record, .. } = write else { continue };
                            let Ok(record) = ExecutionRecord::decode(record) else { continue };
                            if let Some(before) = last.get(&record.id) {
                                prop_assert!(before.phase <= record.phase);
                                prop_assert!(
                                    before.outcome.is_none() || before.outcome == record.outcome
                                );
                            }
                            last.insert(record.id, record);
                        }
                    }
                    Effect::Begin(Operation::Launch { execution, .. }) => {
                        prop_assert_eq!(batches, 1);
                        prop_assert_eq!(&last[&execution.id].place, &execution.place);
                        prop_assert_eq!(last[&execution.id].phase, Phase::Starting);
                        prop_assert_eq!(step.state.attempt.claim, None);
                        prop_assert_eq!(execution.stop, None);
                    }
                    Effect::Begin(Operation::Save { .. }) => {
                        prop_assert!(step.state.executions().all(|r| r.phase == Phase::Final));
                    }
                    _ => {}
                }
            }
            prop_assert!(batches <= 1);
            let dead = step.state.executions().all(|record| record.phase == Phase::Final);
            prop_assert!(
                step.state.attempt.status != AttemptStatus::Removing
                    || !dead
                    || step.state.workspace_step != WorkspaceStep::Idle,
                "a removal that nothing keeps goes on"
            );
            state = step.state;
        }
    }
}
