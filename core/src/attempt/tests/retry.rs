//! Another try: saved, undone, begun, and the history kept.

use super::chain::Play;
use super::*;
use crate::vcs_worktree::{BranchFate, GitWork, Unsavable};

const NEW: ExecutionId = ExecutionId(Uuid::from_u128(0x77));

/// An attempt whose chain is over, with the records of what it ran.
fn over() -> (Play, Vec<(ExecutionRecord, Revision)>) {
    let mut play = Play::new(false, false);
    play.goes(WELL, "0", "1");
    let (record, revision) = {
        let tracked = &play.state.executions[&X];
        (tracked.record.clone(), tracked.revision)
    };
    play.nothing("1");
    (play, vec![(record, revision)])
}

fn retry(superseded: Vec<(ExecutionRecord, Revision)>) -> Input {
    let mut execution = execution(NEW, RunReason::Agent);
    execution.before_head = Some(oid("0"));
    ask(Request::Retry { execution: Box::new(execution), superseded, key: key(NEW) })
}

fn begun() -> Play {
    let (mut play, superseded) = over();
    play.feed(retry(superseded));
    play
}

#[test]
fn it_is_recorded_saved_undone_and_only_then_begun() {
    let mut play = begun();
    assert_eq!(play.words(), ["+", "Accepted", "Save"]);
    let Some(Effect::Begin(Operation::Save { request, .. })) = play.effects.last() else {
        panic!("{:?}", play.effects);
    };
    assert_eq!((request.unsavable, request.branch), (Unsavable::Refuse, BranchFate::Goes));
    assert_eq!(written(&play.effects, NEW).phase, Phase::Queued);
    play.saved(Some(1));
    let Some(Effect::Begin(Operation::PlanStep { work, .. })) = play.effects.last() else {
        panic!("{:?}", play.effects);
    };
    assert_eq!(*work, GitWork::Reset { to: oid("0") });
    play.git(WELL, "1", "0");
    assert_eq!(play.words(), ["+", "TakeSlot"], "one batch");
    assert_eq!(written(&play.effects, X).superseded_by, Some(NEW));
    let attempt = written_attempt(&play.effects);
    assert_eq!((attempt.chain, &attempt.retry, &attempt.resetting), (Some(NEW), &None, &None));
    assert_eq!((attempt.status, attempt.reason), (AttemptStatus::Running, None));
    play.feed(fact(Fact::Admitted(Slot::Chain(A))));
    play.goes(WELL, "0", "0");
    play.nothing("0");
    assert_eq!(written_attempt(&play.effects).status, AttemptStatus::Finished);
    assert!(play.state.is_idle());
}

#[test]
fn nothing_starts_meanwhile_and_the_next_host_goes_on() {
    let start = || {
        let execution = Box::new(execution(Y, RunReason::Background));
        ask(Request::Start { execution, key: key(Y), admitted: true })
    };
    let mut play = begun();
    play.feed(start());
    assert_eq!(play.words(), ["ReleaseSlot", "Refused"]);
    play.feed(fact(Fact::Admitted(Slot::Chain(A))));
    assert!(!play.words().contains(&"Prepare".to_owned()), "{:?}", play.words());
    let mut play = play.recovered();
    assert_eq!(play.words(), ["Save"]);
    play.saved(None);
    let mut play = play.recovered();
    assert_eq!(play.words(), ["+", "Save"], "somebody may have worked in it meanwhile");
    play.saved(None);
    play.nothing("0");
    assert_eq!(written(&play.effects, X).superseded_by, Some(NEW));
    assert_eq!(play.recovered().words(), ["TakeSlot"]);
    play.feed(start());
    assert!(play.words().contains(&"Accepted".to_owned()));
}

#[test]
fn what_cannot_be_saved_or_undone_ends_it_and_is_not_touched() {
    let ended = |play: &Play, status| {
        let record = written(&play.effects, NEW);
        assert_eq!((record.phase, record.started_at), (Phase::Final, None));
        let attempt = written_attempt(&play.effects);
        assert_eq!((attempt.status, &attempt.retry), (status, &None));
        assert!(writes(&play.effects).iter().all(|it| it.key.id != X.0), "nothing is superseded");
        assert!(play.state.is_idle(), "{:?}", play.state);
    };
    let mut play = begun();
    play.feed(fact(Fact::SaveRefused { refusal: failed("a socket") }));
    ended(&play, AttemptStatus::Held);
    let mut play = begun();
    play.saved(None);
    play.feed(fact(Fact::StepRefused { message: "a rebase".into() }));
    ended(&play, AttemptStatus::Held);
    let mut play = begun();
    play.saved(None);
    play.git(BADLY, "1", "1");
    ended(&play, AttemptStatus::Held);
}

#[test]
fn a_stop_and_a_forced_removal_end_it() {
    for execution in [None, Some(NEW)] {
        let mut play = begun();
        play.feed(stop(execution, None));
        let record = written(&play.effects, NEW);
        assert_eq!(record.outcome, Some(Outcome::Stopped { by: StoppedBy::User }));
        play.saved(None);
        let attempt = written_attempt(&play.effects);
        assert_eq!((attempt.status, attempt.reason), (AttemptStatus::Held, Some(Reason::Stopped)));
        assert!(play.state.is_idle(), "nothing is undone");
        // It comes while the way back is being looked for.
        let mut play = begun();
        play.saved(None);
        play.feed(stop(execution, None));
        play.planned();
        let attempt = written_attempt(&play.effects);
        assert_eq!((attempt.status, attempt.reason), (AttemptStatus::Held, Some(Reason::Stopped)));
        assert!(play.state.is_idle(), "nothing is undone");
    }
    let mut play = begun();
    play.feed(remove(true));
    play.saved(None);
    assert_eq!(play.words(), ["+", "ReleaseSlot", "Save"]);
    play.saved(None);
    play.feed(fact(Fact::WorktreeRemoved));
    assert_eq!(
        (play.state.attempt.status, &play.state.attempt.retry),
        (AttemptStatus::Removed, &None)
    );
    assert!(play.state.is_idle());
}

#[test]
fn it_is_refused_while_anything_runs_and_in_a_directory() {
    let mut play = Play::new(false, false);
    play.runs("0");
    play.feed(retry(Vec::new()));
    assert_eq!(play.words(), ["Refused"]);
    let directory = Workspace::Directory { path: Locator::new("/d") };
    let state = State::new(attempt(directory, AttemptStatus::Finished));
    assert_eq!(words(&feed(state, [retry(Vec::new())]).1), ["Refused"]);
}

/// An attempt at rest, at a commit, with something that is not committed.
fn rested() -> Play {
    let (mut play, _) = over();
    play.state.attempt.head = Some(oid("1"));
    play
}

const MESSAGE: crate::id::FollowUpId = crate::id::FollowUpId(Uuid::from_u128(0x61));

fn send_with_reset() -> Input {
    let record = super::follow_ups::message(MESSAGE, "go on");
    ask(Request::Send {
        message: Box::new(crate::record::FollowUpRecord { reset: true, ..record }),
    })
}

#[test]
fn a_message_with_a_reset_is_run_once_what_is_not_committed_is_saved_and_undone() {
    let mut play = rested();
    play.feed(send_with_reset());
    assert_eq!(play.words(), ["+", "Accepted", "Save"]);
    let Some(Effect::Begin(Operation::Save { request, .. })) = play.effects.last() else {
        panic!("{:?}", play.effects);
    };
    assert_eq!((request.unsavable, request.branch), (Unsavable::Refuse, BranchFate::Stays));
    let attempt = written_attempt(&play.effects);
    assert_eq!((attempt.follow_up, attempt.queue), (Some(MESSAGE), 0));
    let mut again = play.recovered();
    assert_eq!(again.words(), ["Save"]);
    // Somebody has committed meanwhile: that is the last commit, and stays.
    again.feed(saved_at(Some(1), "7"));
    play.saved(Some(1));
    for (mut play, to) in [(play, "1"), (again, "7")] {
        let Some(Effect::Begin(Operation::PlanStep { work, .. })) = play.effects.last() else {
            panic!("{:?}", play.effects);
        };
        assert_eq!(*work, GitWork::Reset { to: oid(to) });
        play.git(WELL, to, to);
        assert_eq!(play.words(), ["+", "TakeSlot"]);
        play.feed(fact(Fact::Admitted(Slot::Chain(A))));
        play.runs(to);
        assert!(play.words().contains(&"Feed".to_owned()), "{:?}", play.words());
        play.ends(WELL, to);
        play.nothing(to);
        let attempt = written_attempt(&play.effects);
        assert_eq!((attempt.status, attempt.follow_up), (AttemptStatus::Finished, None));
        assert!(play.state.is_idle());
    }
}

#[test]
fn a_message_whose_reset_cannot_be_done_goes_back_and_is_held() {
    use crate::record::{FollowUpRecord, FollowUpState, Hold};
    let told = |play: &Play| {
        let all = writes(&play.effects);
        let record = all.iter().rev().find(|record| record.key.id == MESSAGE.0).unwrap();
        FollowUpRecord::decode(record).unwrap()
    };
    let begun = || {
        let mut play = rested();
        play.feed(send_with_reset());
        play
    };
    let mut refused = begun();
    refused.feed(fact(Fact::SaveRefused { refusal: failed("a socket") }));
    let mut stopped = begun();
    stopped.feed(stop(None, None));
    stopped.saved(None);
    for (play, hold) in [(refused, Hold::NotStarted), (stopped, Hold::Stopped)] {
        let message = told(&play);
        assert_eq!((message.state, message.execution), (FollowUpState::Held, None));
        let attempt = written_attempt(&play.effects);
        assert_eq!((attempt.queue, attempt.queue_held), (1, Some(hold)));
        assert_eq!((attempt.retry, attempt.follow_up), (None, None));
        assert_eq!(attempt.status, AttemptStatus::Held);
        assert!(play.state.is_idle());
    }
}
