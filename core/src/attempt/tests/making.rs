//! Worktrees in whose files the user's code has a part: a git execution makes them before anything else runs.

use super::*;
use crate::record::Making;
use crate::vcs_worktree::{CreateMode, Origin, Removed};

const SECOND: ExecutionId = ExecutionId(Uuid::from_u128(0x8));
const LOST: Outcome = Outcome::Lost { reason: Lost::MachineRestarted };

fn step() -> GitStep {
    GitStep {
        argv: vec!["sh".into(), "checkout".into()],
        env: vec![("GIT_EDITOR".into(), ":".into())],
        base_env: vec![("HOME".into(), "/base".into())],
        cwd: Locator::new("/w"),
        repository_lock: Locator::new("/r/.git/worktrees/w"),
    }
}

fn needs(execution: ExecutionId) -> Input {
    fact(Fact::WorktreeNeedsStep { execution, step: step() })
}

fn there() -> Input {
    fact(Fact::WorktreeCreated { head: oid("0") })
}

fn incomplete() -> Input {
    fact(Fact::WorktreeFailed { refusal: failed("incomplete") })
}

/// A step runs in what is no worktree yet: its commit is not known.
fn ready_to_start(execution: ExecutionId) -> Input {
    fact(Fact::Prepared { execution, place: place(9), head: None })
}

fn ended(execution: ExecutionId, outcome: Outcome) -> [Input; 2] {
    let report = final_report(outcome);
    let preview = Some("said\n".into());
    [exited(execution, outcome), fact(Fact::Finished { execution, report, preview, head: None })]
}

/// A run whose worktree is being made by a step that runs.
fn making() -> (State, Vec<Effect>) {
    let state = State::new(attempt(Workspace::Worktree(worktree()), AttemptStatus::Creating));
    feed(state, [run(), needs(GIT), ready_to_start(GIT), launched(GIT)])
}

fn recovered(state: &State) -> (State, Vec<Effect>) {
    let executions = state.executions().cloned().map(|record| (record, Revision(7))).collect();
    let state = State::load(state.attempt().clone(), Revision(7), executions);
    feed(state, [fact(Fact::Recovered)])
}

/// How creations were begun.
fn creations(effects: &[Effect]) -> Vec<(CreateMode, Origin)> {
    let begun = effects.iter().filter_map(|effect| match effect {
        Effect::Begin(Operation::CreateWorktree { mode, origin, .. }) => {
            Some((*mode, origin.clone()))
        }
        _ => None,
    });
    begun.collect()
}

#[test]
fn a_step_is_an_execution_that_is_recorded_before_it_is_prepared_and_nothing_else_is() {
    let state = State::new(attempt(Workspace::Worktree(worktree()), AttemptStatus::Creating));
    let (state, effects) = feed(state, [run(), needs(GIT)]);
    assert_eq!(words(&effects), ["+", "Prepare"]);
    let git = written(&effects, GIT);
    assert_eq!(git.action.run_reason, RunReason::Git);
    assert_eq!(git.repository_lock, Some(step().repository_lock));
    assert_eq!(git.options.limits.total_ms, Some(config().git_timeout_ms));
    assert_eq!(git.options.env.get("GIT_EDITOR"), Some(&":".into()));
    assert_eq!(git.options.env.get("HOME"), None, "the command's own environment counts");
    assert_eq!(written_attempt(&effects).making, Some(Making { execution: GIT, tries: 1 }));
    let Some(Effect::Begin(Operation::Prepare { execution, workspace, .. })) = effects.last()
    else {
        panic!("{effects:?}")
    };
    assert_eq!((execution.id, workspace.worktree()), (GIT, None), "it cannot be verified yet");
    let (state, effects) = feed(state, [ready_to_start(GIT)]);
    assert_eq!(words(&effects), ["+", "Launch"]);
    assert_eq!(state.attempt().status, AttemptStatus::Creating);
}

#[test]
fn the_command_starts_once_its_worktree_is_concluded() {
    let (state, _) = making();
    let (state, effects) = feed(state, ended(GIT, WELL));
    assert_eq!(words(&effects), ["+", "CreateWorktree"]);
    assert_eq!(creations(&effects), [(CreateMode::Conclude, Origin::Base)]);
    let (state, effects) = feed(state, [there()]);
    assert_eq!(words(&effects), ["+", "Prepare"]);
    assert_eq!(written_attempt(&effects).making, None);
    assert_eq!(state.executions().map(|record| record.id).collect::<Vec<_>>(), [X]);
}

#[test]
fn what_the_step_proves_counts_whatever_became_of_its_execution() {
    let (state, _) = making();
    let (state, _) = feed(state, ended(GIT, LOST));
    let (state, effects) = feed(state, [there()]);
    assert_eq!(words(&effects), ["+", "Prepare"]);
    assert_eq!(state.attempt().status, AttemptStatus::Ready);
}

#[test]
fn a_bad_end_fails_the_attempt_with_what_was_said() {
    let timed_out = Outcome::TimedOut { limit: crate::outcome::Deadline::Total };
    let stopped = Outcome::Stopped { by: StoppedBy::User };
    for (outcome, expected) in [
        (BADLY, "failed with code 1: said"),
        (timed_out, "did not end within 60 s and was stopped: said"),
        (stopped, "was stopped: said"),
    ] {
        let (state, _) = making();
        let (state, effects) = feed(state, ended(GIT, outcome));
        assert_eq!(creations(&effects), [(CreateMode::Conclude, Origin::Base)]);
        let (state, effects) = feed(state, [incomplete()]);
        let attempt = written_attempt(&effects);
        assert_eq!(attempt.status, AttemptStatus::Failed);
        let Some(Reason::WorkspaceFailed { message, execution }) = attempt.reason else {
            panic!("{attempt:?}")
        };
        assert!(message.ends_with(expected), "{message}");
        assert_eq!(execution, Some(GIT));
        let record = written(&effects, X);
        let refused = Outcome::NotStarted { reason: NotStarted::WorkspaceRefused };
        assert_eq!((record.outcome, record.message), (Some(refused), Some(message)));
        assert!(state.is_idle());
    }
}

#[test]
fn what_goes_wrong_after_a_good_end_is_said_in_its_own_words() {
    let (state, _) = making();
    let (state, _) = feed(state, ended(GIT, WELL));
    let (state, _) = feed(state, [fact(Fact::WorktreeFailed { refusal: failed("no space") })]);
    let expected = Reason::WorkspaceFailed { message: "no space".into(), execution: Some(GIT) };
    assert_eq!(state.attempt().reason, Some(expected));
}

#[test]
fn a_lost_step_is_begun_anew_once() {
    let (state, _) = making();
    let (state, _) = feed(state, ended(GIT, LOST));
    let (state, effects) = feed(state, [incomplete()]);
    assert_eq!(words(&effects), ["+", "CreateWorktree"]);
    assert_eq!(creations(&effects), [(CreateMode::Begin, Origin::Base)]);
    // The host dies, and the next one finds that nothing stands there.
    let (state, effects) = recovered(&state);
    assert_eq!(creations(&effects), [(CreateMode::Conclude, Origin::Base)]);
    let (again, effects) = feed(state, [needs(SECOND)]);
    assert_eq!(words(&effects), [] as [&str; 0], "concluding asks for no step");
    let (state, effects) = feed(again, [incomplete()]);
    assert_eq!(state.attempt().status, AttemptStatus::Failed, "{effects:?}");
}

#[test]
fn a_second_step_that_is_lost_too_fails_the_attempt() {
    let (state, _) = making();
    let (state, _) = feed(state, ended(GIT, LOST));
    let (state, effects) = feed(state, [incomplete(), needs(SECOND)]);
    assert_eq!(words(&effects), ["+", "Prepare"]);
    assert_eq!(written_attempt(&effects).making, Some(Making { execution: SECOND, tries: 2 }));
    let (state, _) = feed(state, [ready_to_start(SECOND), launched(SECOND)]);
    let (state, _) = feed(state, ended(SECOND, LOST));
    let (state, effects) = feed(state, [incomplete()]);
    assert_eq!(written_attempt(&effects).status, AttemptStatus::Failed);
    assert!(state.is_idle());
}

#[test]
fn the_next_host_adopts_the_step_and_creates_nothing_meanwhile() {
    let (state, _) = making();
    let (state, effects) = recovered(&state);
    assert_eq!(words(&effects), ["+", "TakeSlot", "Adopt"]);
    let adopted = fact(Fact::Adopted {
        execution: GIT,
        adoption: Adoption::Running { running: None, exited: None },
    });
    let (state, _) = feed(state, [adopted]);
    let (_, effects) = feed(state, ended(GIT, WELL));
    assert_eq!(creations(&effects), [(CreateMode::Conclude, Origin::Base)]);
}

#[test]
fn a_step_that_ended_before_the_host_died_is_concluded_by_the_next() {
    let (state, _) = making();
    let (state, _) = feed(state, ended(GIT, BADLY));
    let named: Vec<_> = state.attempt().still_needed().collect();
    assert_eq!(named, [GIT], "its end tells why");
    let (state, effects) = recovered(&state);
    assert_eq!(creations(&effects), [(CreateMode::Conclude, Origin::Base)]);
    let (state, _) = feed(state, [incomplete()]);
    assert_eq!(state.attempt().status, AttemptStatus::Failed);
}

#[test]
fn a_step_that_is_recorded_and_not_started_is_started_by_the_next() {
    let state = State::new(attempt(Workspace::Worktree(worktree()), AttemptStatus::Creating));
    let (state, _) = feed(state, [run(), needs(GIT)]);
    let (_, effects) = recovered(&state);
    assert_eq!(words(&effects), ["+", "TakeSlot", "Prepare"]);
}

#[test]
fn a_stop_reaches_the_step_and_nothing_of_the_worktree_stays() {
    for of in [None, Some(X)] {
        let (state, _) = making();
        let (state, effects) = feed(state, [stop(of, None)]);
        assert_eq!(words(&effects), ["+", "ReleaseSlot", "Stop", "Accepted"], "{of:?}");
        assert_eq!(written(&effects, X).outcome, Some(Outcome::Stopped { by: StoppedBy::User }));
        let stopped = Outcome::Stopped { by: StoppedBy::User };
        let (state, effects) = feed(state, ended(GIT, stopped));
        assert_eq!(creations(&effects), [(CreateMode::Conclude, Origin::Base)]);
        let (state, _) = feed(state, [incomplete()]);
        let attempt = state.attempt();
        assert_eq!(
            (attempt.status, &attempt.reason),
            (AttemptStatus::Failed, &Some(Reason::Stopped))
        );
        assert!(state.is_idle());
    }
}

#[test]
fn a_step_is_not_begun_for_a_run_that_was_stopped() {
    let state = State::new(attempt(Workspace::Worktree(worktree()), AttemptStatus::Creating));
    let (state, effects) = feed(state, [run(), stop(None, None), needs(GIT)]);
    assert_eq!(creations(&effects), [(CreateMode::Conclude, Origin::Base)]);
    let (state, _) = feed(state, [incomplete()]);
    assert_eq!(state.attempt().status, AttemptStatus::Failed);
    assert!(state.is_idle());
}

#[test]
fn a_removal_stops_the_step_concludes_and_removes() {
    let (state, _) = making();
    let (_, effects) = feed(state.clone(), [remove(false)]);
    assert_eq!(words(&effects), ["Refused"]);
    let (state, effects) = feed(state, [remove(true)]);
    assert!(words(&effects).contains(&"Stop".to_owned()), "{effects:?}");
    assert!(!words(&effects).contains(&"Save".to_owned()), "{effects:?}");
    let (state, effects) = feed(state, ended(GIT, Outcome::Stopped { by: StoppedBy::Host }));
    assert_eq!(creations(&effects), [(CreateMode::Conclude, Origin::Base)]);
    let (state, effects) = feed(state, [incomplete()]);
    assert_eq!(words(&effects).last().map(String::as_str), Some("Save"));
    let inputs = [fact(Fact::NothingToSave), fact(Fact::WorktreeRemoved)];
    let (state, _) = feed(state, inputs);
    assert_eq!(state.attempt().status, AttemptStatus::Removed);
    assert!(state.is_idle());
}

#[test]
fn a_worktree_is_made_again_by_a_step_in_an_environment_of_its_own() {
    let mut record = attempt(Workspace::Worktree(worktree()), AttemptStatus::Removed);
    let removed = Removed { head: oid("5"), branch: Some("b".into()), snapshot: None };
    record.removed = Some(removed.clone());
    record.removed_from = Some(AttemptStatus::Finished);
    let state = State::load(record, Revision(4), Vec::new());
    let restore = ask(Request::Restore { snapshot: None, missing: false });
    let (state, effects) = feed(state, [restore, needs(GIT)]);
    assert_eq!(written(&effects, GIT).options.env.get("HOME"), Some(&"/base".into()));
    let inputs = [ready_to_start(GIT), launched(GIT)].into_iter().chain(ended(GIT, WELL));
    let (state, effects) = feed(state, inputs);
    assert_eq!(creations(&effects), [(CreateMode::Conclude, Origin::Removed(removed.clone()))]);
    let (state, effects) = feed(state, [there()]);
    assert_eq!(words(&effects), ["+", "Restored"]);
    assert_eq!(state.attempt().status, AttemptStatus::Finished);
    assert!(state.is_idle());
}

#[test]
fn what_cannot_be_put_back_without_a_step_counts_as_removed() {
    let record = attempt(Workspace::Worktree(worktree()), AttemptStatus::Finished);
    let state = State::load(record, Revision(4), Vec::new());
    let refused = fact(Fact::RemoveRefused { refusal: failed("busy") });
    let (state, effects) = feed(state, [remove(false), saved(Some(1)), refused, needs(GIT)]);
    assert_eq!(creations(&effects).first().map(|(mode, _)| *mode), Some(CreateMode::Conclude));
    let (state, _) = feed(state, [incomplete()]);
    assert_eq!(state.attempt().status, AttemptStatus::Removed);
}

#[test]
fn a_creation_that_was_taken_over_waits_for_a_repository_that_is_busy() {
    let busy = || {
        let refusal = Refusal { code: RefusalCode::RepositoryBusy, ..failed("busy") };
        fact(Fact::WorktreeFailed { refusal })
    };
    let state = State::new(attempt(Workspace::Worktree(worktree()), AttemptStatus::Creating));
    let (state, _) = feed(state, [run()]);
    // What nobody had begun leaves nothing: it fails.
    let (failed, _) = feed(state.clone(), [busy()]);
    assert_eq!(failed.attempt().status, AttemptStatus::Failed);
    let (state, _) = recovered(&state);
    let (state, effects) = feed(state, [busy()]);
    let when = 10 + config().readopt_ms;
    assert_eq!(words(&effects), [format!("wake {when}")]);
    let (state, effects) = feed(state, [fact(Fact::Woke)]);
    assert_eq!(words(&effects), [format!("wake {when}")], "it is not time yet");
    let late = state.clone().step(&config(), Timestamp(when), fact(Fact::Woke));
    assert_eq!(creations(&late.effects), [(CreateMode::Begin, Origin::Base)]);
    let (state, effects) = feed(late.state, [there()]);
    assert_eq!(words(&effects), ["+"], "its slot is asked for again");
    assert_eq!(state.attempt().status, AttemptStatus::Ready);
}
