//! Follow-ups: queued, held, started once, given back.

use super::chain::{Play, to_the_end};
use super::*;
use crate::action::Stdin;
use crate::record::{FollowUpRecord, FollowUpState, Hold};

const ONE: FollowUpId = FollowUpId(Uuid::from_u128(0x51));
const TWO: FollowUpId = FollowUpId(Uuid::from_u128(0x52));

pub(super) fn message(id: FollowUpId, text: &str) -> FollowUpRecord {
    let agent = execution(X, RunReason::Agent);
    FollowUpRecord {
        id,
        attempt: A,
        owner: None,
        client_key: Some("s".into()),
        digest: Uuid::nil(),
        text: text.into(),
        position: 0,
        state: FollowUpState::Queued,
        action: agent.action,
        options: agent.options,
        cwd: agent.cwd,
        attachments: Vec::new(),
        reset: false,
        execution: None,
        created_at: Timestamp(1),
    }
}

fn send(id: FollowUpId, text: &str) -> Input {
    ask(Request::Send { message: Box::new(message(id, text)) })
}

fn hold(held: bool) -> Input {
    ask(Request::HoldQueue { held })
}

fn change(id: FollowUpId, version: Option<u64>, change: FollowUpChange) -> Input {
    ask(Request::ChangeFollowUp { follow_up: id, version: version.map(Revision), change })
}

/// The message in the batch of these effects.
#[track_caller]
fn told(effects: &[Effect], id: FollowUpId) -> FollowUpRecord {
    let record = writes(effects).into_iter().find(|record| record.key.id == id.0).unwrap();
    FollowUpRecord::decode(&record).unwrap()
}

#[track_caller]
fn refusal(effects: &[Effect]) -> RefusalCode {
    match effects.last() {
        Some(Effect::Reply { reply: Reply::Refused(refusal), .. }) => refusal.code,
        _ => panic!("{effects:?}"),
    }
}

/// An attempt whose chain is over.
fn over(outcome: Outcome) -> Play {
    let mut play = Play::new(false, false);
    play.goes(outcome, "0", "0");
    if outcome == WELL {
        play.nothing("0")
    } else {
        play.saved(None)
    }
    play
}

fn admitted(play: &mut Play) {
    play.feed(fact(Fact::Admitted(Slot::Chain(A))));
}

#[test]
fn a_message_to_an_attempt_at_rest_is_consumed_in_the_batch_that_records_its_execution() {
    for outcome in [WELL, BADLY] {
        let mut play = over(outcome);
        play.feed(send(ONE, "go on"));
        assert_eq!(play.words(), ["+", "Accepted", "TakeSlot"]);
        let (told, attempt) = (told(&play.effects, ONE), written_attempt(&play.effects));
        let id = play.current();
        assert_eq!((told.state, told.execution), (FollowUpState::Consumed, Some(id)));
        assert_eq!((attempt.status, attempt.queue), (AttemptStatus::Running, 0));
        assert_eq!((attempt.follow_up, attempt.reason), (Some(ONE), None));
        let record = written(&play.effects, id);
        assert_eq!((record.phase, record.text.as_deref()), (Phase::Queued, Some("go on")));
        assert_eq!(
            (record.options.stdin, record.action.run_reason),
            (Stdin::Messages, RunReason::Agent)
        );
        admitted(&mut play);
        play.runs("0");
        assert_eq!(play.words(), ["AwaitExit", "+", "Feed"], "fed once it is recorded to run");
        play.ends(WELL, "0");
        play.nothing("0");
        assert_eq!(written_attempt(&play.effects).follow_up, None);
        assert!(play.state.is_idle());
    }
}

#[test]
fn messages_wait_for_the_chain_and_run_one_after_the_other() {
    let mut play = Play::new(true, false);
    play.runs("0");
    play.feed(send(ONE, "one"));
    assert_eq!(play.words(), ["+", "Accepted"]);
    play.feed(send(TWO, "two"));
    let attempt = written_attempt(&play.effects);
    assert_eq!((attempt.queue, told(&play.effects, TWO).position), (2, 2));
    play.ends(WELL, "0");
    assert_eq!(play.state.attempt.queue, 2, "the agent comes first");
    play.goes(WELL, "0", "0");
    play.nothing("0");
    assert_eq!(play.words(), ["+", "ReleaseSlot", "TakeSlot"], "one batch");
    assert!(written_attempt(&play.effects).finalised_at.is_some());
    assert_eq!(told(&play.effects, ONE).state, FollowUpState::Consumed);
    let mut again = play.recovered();
    assert_eq!(again.words(), ["TakeSlot"]);
    admitted(&mut again);
    again.goes(WELL, "0", "0");
    again.nothing("0");
    assert_eq!(told(&again.effects, TWO).state, FollowUpState::Consumed);
    assert_eq!(again.state.attempt.queue, 0);
}

#[test]
fn what_waits_is_held_by_a_bad_end_a_stop_and_a_failed_commit_until_it_is_released() {
    let bad_end = |play: &mut Play| {
        play.ends(BADLY, "0");
        play.saved(None);
    };
    let stopped = |play: &mut Play| {
        play.feed(stop(None, None));
        play.ends(Outcome::Stopped { by: StoppedBy::User }, "0");
        play.saved(None);
    };
    let stopped_late = |play: &mut Play| {
        play.ends(WELL, "0");
        play.feed(stop(None, None));
        play.nothing("0");
    };
    let commit_failed = |play: &mut Play| {
        play.ends(WELL, "0");
        play.feed(fact(Fact::StepRefused { message: "hook".into() }));
        play.saved(None);
    };
    type Ending = fn(&mut Play);
    let cases: [(Ending, Hold); 4] = [
        (bad_end, Hold::EndedBadly),
        (stopped, Hold::Stopped),
        (stopped_late, Hold::Stopped),
        (commit_failed, Hold::CommitFailed),
    ];
    for (end, why) in cases {
        let mut play = Play::new(false, false);
        play.runs("0");
        play.feed(send(ONE, "one"));
        end(&mut play);
        let attempt = written_attempt(&play.effects);
        assert_eq!((attempt.queue_held, attempt.queue, attempt.chain), (Some(why), 1, None));
        assert_eq!(told(&play.effects, ONE).state, FollowUpState::Held);
        // What comes later waits behind it.
        let mut play = play.recovered();
        play.feed(send(TWO, "two"));
        assert_eq!(told(&play.effects, TWO).state, FollowUpState::Held);
        play.feed(hold(false));
        assert_eq!(told(&play.effects, ONE).state, FollowUpState::Consumed, "{why:?}");
        assert_eq!(told(&play.effects, TWO).state, FollowUpState::Queued);
    }
}

#[test]
fn a_cleanup_that_ended_badly_holds_nothing() {
    let mut play = Play::new(false, true);
    play.goes(WELL, "0", "1");
    play.nothing("1");
    play.feed(send(ONE, "one"));
    play.goes(BADLY, "1", "1");
    play.saved(None);
    play.nothing("1");
    assert_eq!(told(&play.effects, ONE).state, FollowUpState::Consumed);
}

#[test]
fn a_message_whose_execution_never_ran_goes_back_and_is_held() {
    let mut play = over(WELL);
    play.feed(send(ONE, "one"));
    admitted(&mut play);
    let first = play.current();
    let reason = NotStarted::WorkspaceRefused;
    let failed = Fact::PrepareFailed { execution: first, reason, message: "gone".into() };
    let mut stopped = play.clone();
    play.feed(fact(failed));
    let back = told(&play.effects, ONE);
    assert_eq!((back.state, back.execution), (FollowUpState::Held, None));
    let attempt = written_attempt(&play.effects);
    assert_eq!((attempt.queue, attempt.queue_held), (1, Some(Hold::NotStarted)));
    assert_eq!((attempt.follow_up, attempt.chain), (None, None));
    play.feed(hold(false));
    assert_ne!(play.current(), first, "another execution");
    // A stop before it began is a stop: it does not start again by itself.
    stopped = stopped.recovered();
    stopped.feed(stop(None, None));
    let attempt = written_attempt(&stopped.effects);
    assert_eq!((attempt.queue, attempt.queue_held), (1, Some(Hold::Stopped)));
}

#[test]
fn two_editors_conflict_and_what_was_started_cannot_be_changed() {
    let mut play = Play::new(false, false);
    play.runs("0");
    play.feed(send(ONE, "one"));
    play.feed(change(ONE, Some(1), FollowUpChange::Replace("other".into())));
    assert_eq!((told(&play.effects, ONE).text.as_str(), play.words().len()), ("other", 2));
    play.feed(change(ONE, Some(1), FollowUpChange::Replace("late".into())));
    assert_eq!(refusal(&play.effects), RefusalCode::Conflict);
    play.feed(change(ONE, Some(2), FollowUpChange::Cancel));
    assert_eq!(told(&play.effects, ONE).state, FollowUpState::Cancelled);
    play.feed(change(ONE, None, FollowUpChange::Cancel));
    assert_eq!(refusal(&play.effects), RefusalCode::NoFollowUp);
    play.ends(WELL, "0");
    play.nothing("0");
    assert!(play.state.is_idle(), "nothing is left to start");
    play.feed(send(TWO, "two"));
    play.feed(change(TWO, None, FollowUpChange::Replace("late".into())));
    assert_eq!(refusal(&play.effects), RefusalCode::NoFollowUp);
}

#[test]
fn a_queue_that_somebody_holds_stays_held_and_a_repeated_message_is_one() {
    let mut play = over(WELL);
    play.feed(hold(true));
    play.feed(send(ONE, "one"));
    assert_eq!(told(&play.effects, ONE).state, FollowUpState::Held);
    play.feed(send(ONE, "one"));
    assert_eq!(
        (play.words(), play.state.attempt.queue),
        (vec!["+".to_owned(), "Accepted".to_owned()], 1)
    );
    play.feed(change(ONE, None, FollowUpChange::Cancel));
    play.feed(send(TWO, "two"));
    assert_eq!(play.state.attempt.queue_held, Some(Hold::Asked));
    play.feed(hold(false));
    assert_eq!(told(&play.effects, TWO).state, FollowUpState::Consumed);
}

#[test]
fn a_removed_worktree_is_made_again_first_and_one_that_cannot_be_holds_the_queue() {
    let mut play = over(WELL);
    play.feed(remove(false));
    play.saved(None);
    play.feed(send(ONE, "early"));
    assert_eq!(refusal(&play.effects), RefusalCode::WorkspaceGone, "while it goes");
    play.feed(fact(Fact::WorktreeRemoved));
    play.feed(send(ONE, "one"));
    assert_eq!(play.words(), ["+", "CreateWorktree", "Accepted"]);
    let mut failing = play.clone();
    play.feed(fact(Fact::WorktreeCreated { head: oid("0") }));
    assert_eq!(told(&play.effects, ONE).state, FollowUpState::Consumed);
    failing.feed(fact(Fact::WorktreeFailed { refusal: failed("no room") }));
    assert_eq!(told(&failing.effects, ONE).state, FollowUpState::Held);
    assert_eq!(failing.state.attempt.queue_held, Some(Hold::NotStarted));
}

#[test]
fn a_forced_removal_holds_what_waits_and_restoring_starts_nothing() {
    let mut play = Play::new(false, false);
    play.runs("0");
    play.feed(send(ONE, "one"));
    play.feed(remove(true));
    play.ends(Outcome::Stopped { by: StoppedBy::Host }, "0");
    play.saved(None);
    play.feed(fact(Fact::WorktreeRemoved));
    play.feed(ask(Request::Restore { snapshot: None, missing: false }));
    play.feed(fact(Fact::WorktreeCreated { head: oid("0") }));
    assert_eq!((play.state.attempt.queue, play.state.attempt.chain), (1, None));
    assert_eq!(play.state.attempt.queue_held, Some(Hold::Stopped));
}

proptest! {
    /// Whatever is sent, stopped, held and taken over in whatever order: each message is consumed by one execution that ran
    /// at most, nothing starts while the queue is held, and in the end nothing waits that could start.
    #[test]
    fn each_message_is_consumed_once(
        events in proptest::collection::vec((0..12_u8, any::<bool>()), 1..60),
    ) {
        let mut play = Play::new(false, false);
        let (mut sent, mut ran) = (0_u128, BTreeMap::<String, u32>::new());
        for (event, well) in events {
            let current = play.state.attempt.chain;
            let held = play.state.attempt.queue_held.is_some();
            match (event, current) {
                (0, _) => play = play.recovered(),
                (1, _) if sent < 5 => {
                    sent += 1;
                    play.feed(send(FollowUpId(Uuid::from_u128(sent)), &sent.to_string()));
                }
                (2, _) if well => play.feed(stop(None, None)),
                (2, _) => play.feed(hold(false)),
                (3, _) => play.feed(hold(well)),
                (4, Some(_)) => play.feed(fact(Fact::Admitted(Slot::Chain(A)))),
                (5, Some(_)) => play.prepared("0"),
                (6, Some(id)) => play.feed(launched(id)),
                (7, Some(_)) => play.ends(if well { WELL } else { BADLY }, "0"),
                (8, _) => play.nothing("0"),
                (9, _) => play.saved(None),
                (10, Some(execution)) if !well => {
                    let reason = NotStarted::SpawnFailed;
                    let message = String::new();
                    play.feed(fact(Fact::PrepareFailed { execution, reason, message }));
                }
                _ => play.feed(fact(Fact::Woke)),
            }
            for record in writes(&play.effects) {
                let Ok(record) = ExecutionRecord::decode(&record) else { continue };
                let Some(text) = record.text.clone() else { continue };
                let releases = event == 1 || event == 2 || event == 3;
                prop_assert!(record.phase != Phase::Queued || !held || releases);
                if record.phase == Phase::Running && record.started_at.is_some() {
                    *ran.entry(format!("{text} {}", record.id)).or_insert(0) += 1;
                }
            }
        }
        to_the_end(&mut play, |_| {});
        let mut texts: Vec<_> =
            ran.keys().filter_map(|key| key.split_once(' ').map(|(text, _)| text)).collect();
        texts.sort_unstable();
        let all = texts.len();
        texts.dedup();
        prop_assert_eq!(all, texts.len(), "a message was run by two executions");
        let attempt = play.state.attempt();
        prop_assert!(attempt.queue == 0 || attempt.queue_held.is_some(), "{:?}", attempt);
        prop_assert_eq!(play.state.queue.len(), attempt.queue as usize);
    }
}

#[test]
fn a_stop_while_the_worktree_comes_back_for_a_message_holds_it() {
    let (state, _) = feed(removal::removed_state(), [send(ONE, "more")]);
    assert_eq!(state.attempt().status, AttemptStatus::Creating);
    let (state, effects) = feed(state, [stop(None, None)]);
    assert_eq!(told(&effects, ONE).state, FollowUpState::Held);
    assert_eq!(state.attempt().queue_held, Some(Hold::Stopped));
    let (_, effects) = feed(state, [removal::there()]);
    assert!(!words(&effects).contains(&"Prepare".to_owned()), "{effects:?}");
    assert!(!words(&effects).contains(&"TakeSlot".to_owned()), "{effects:?}");
}
