//! What runs beside the chain: dev servers one after the other, and claims that wait for their end.

use super::chain::Play;
use super::*;
use crate::vcs_history::{HistoryWork, MergeStyle};

const S1: ExecutionId = ExecutionId(Uuid::from_u128(0x51));
const S2: ExecutionId = ExecutionId(Uuid::from_u128(0x52));
const NEW: ExecutionId = ExecutionId(Uuid::from_u128(0x77));
const STOPPED: Outcome = Outcome::Stopped { by: StoppedBy::Host };

fn beside(id: ExecutionId, run_reason: RunReason) -> Input {
    let execution = Box::new(execution(id, run_reason));
    ask(Request::Start { execution, key: key(id), admitted: true })
}

fn serve(id: ExecutionId) -> Input {
    beside(id, RunReason::DevServer)
}

/// An attempt at rest.
fn rested() -> State {
    let record = attempt(Workspace::Worktree(worktree()), AttemptStatus::Finished);
    State::load(record, Revision(4), Vec::new())
}

/// The same with a dev server that runs.
fn serving() -> State {
    feed(rested(), [serve(S1), prepared(S1, 1), launched(S1)]).0
}

fn ends(id: ExecutionId) -> [Input; 2] {
    [exited(id, STOPPED), finished(id, STOPPED, "0")]
}

fn retry() -> Input {
    let mut execution = execution(NEW, RunReason::Agent);
    execution.before_head = Some(oid("0"));
    let (execution, superseded) = (Box::new(execution), Vec::new());
    ask(Request::Retry { execution, superseded, key: key(NEW) })
}

#[test]
fn its_start_and_its_end_say_nothing_about_the_attempt() {
    let mut state = rested();
    for input in [serve(S1), prepared(S1, 1), launched(S1), exited(S1, BADLY)] {
        let (next, effects) = feed(state, [input]);
        assert_eq!(next.attempt.status, AttemptStatus::Finished);
        let is_attempt = |record: &Record| {
            // HEAD is noted wherever it is seen.
            let seen = AttemptRecord::decode(record).ok().filter(|it| it.head.is_none());
            record.key.id == A.0 && seen.is_some()
        };
        assert!(!writes(&effects).iter().any(is_attempt), "{effects:?}");
        state = next;
    }
    let (state, effects) = feed(state, [finished(S1, BADLY, "0")]);
    assert_eq!(words(&effects), ["+", "ReleaseSlot"]);
    let Some(Effect::Begin(Operation::ReleaseSlot(slot))) = effects.last() else {
        panic!("{effects:?}");
    };
    assert_eq!(*slot, Slot::DevServer(S1));
    assert!(state.is_idle());
    assert_eq!((state.attempt.status, &state.attempt.reason), (AttemptStatus::Finished, &None));
}

#[test]
fn an_attempt_has_one_at_a_time() {
    let (state, effects) = feed(serving(), [serve(S2)]);
    assert_eq!(words(&effects), ["ReleaseSlot", "Refused"]);
    let Some(Effect::Reply { reply: Reply::Refused(refusal), .. }) = effects.last() else {
        panic!("{effects:?}");
    };
    assert_eq!(refusal.code, RefusalCode::DevServerRuns);
    // Other executions run beside it.
    let (state, effects) = feed(state, [beside(Y, RunReason::Background)]);
    assert_eq!(words(&effects), ["+", "Accepted", "Prepare"]);
    assert_eq!(state.dev_server(), Some(S1));
}

#[test]
fn one_that_was_asked_to_stop_is_followed_by_the_next_once_it_is_dead() {
    let (state, effects) = feed(serving(), [stop(Some(S1), None), serve(S2)]);
    assert_eq!(words(&effects), ["+", "Accepted"], "it waits");
    assert_eq!(state.dev_server(), Some(S2));
    let (again, effects) = recover(&state);
    assert_eq!(words(&effects), ["TakeSlot", "Adopt", "TakeSlot"], "so it does for the next host");
    let (again, effects) = feed(again, [fact(Fact::Admitted(Slot::DevServer(S2)))]);
    assert_eq!(words(&effects), [""; 0]);
    let running = Some(Running { pid: 42, since: Timestamp(5) });
    let adoption = Adoption::Running { running, exited: None };
    let (again, effects) = feed(again, [fact(Fact::Adopted { execution: S1, adoption })]);
    assert_eq!(words(&effects), ["AwaitExit", "+", "Stop"]);
    for state in [state, again] {
        let (state, effects) = feed(state, [exited(S1, STOPPED)]);
        assert_eq!(words(&effects), ["Finish", "+"], "what it left may still hold its port");
        let (state, effects) = feed(state, [finished(S1, STOPPED, "0")]);
        assert_eq!(words(&effects), ["+", "ReleaseSlot", "Prepare"]);
        let (_, effects) = feed(state, [prepared(S2, 2)]);
        assert_eq!(words(&effects), ["+", "Launch"]);
    }
}

#[test]
fn messages_do_not_wait_for_it() {
    let mut play = Play::new(false, false);
    play.feed(serve(S1));
    play.feed(prepared(S1, 1));
    play.feed(launched(S1));
    play.goes(WELL, "0", "0");
    play.nothing("0");
    assert_eq!(written_attempt(&play.effects).status, AttemptStatus::Finished);
    assert_eq!(play.state.dev_server(), Some(S1));
    assert_eq!(play.words(), ["+", "ReleaseSlot"]);
    assert!(play.state.attempt.chain.is_none(), "so the next message is taken");
}

#[test]
fn a_removal_stops_it_without_being_forced_and_spares_other_work() {
    let (state, effects) = feed(serving(), [remove(false)]);
    assert_eq!(words(&effects), ["+", "Stop"]);
    let (state, effects) = feed(state, [serve(S2)]);
    assert_eq!(words(&effects), ["ReleaseSlot", "Refused"]);
    let (_, effects) = feed(state, ends(S1));
    assert_eq!(words(&effects), ["+", "ReleaseSlot", "Save"]);
    let (state, _) = feed(serving(), [beside(Y, RunReason::Background)]);
    let (_, effects) = feed(state, [remove(false)]);
    assert_eq!(words(&effects), ["Refused"]);
}

#[test]
fn a_stop_of_the_attempt_stops_it() {
    let (_, effects) = feed(serving(), [stop(None, None)]);
    assert_eq!(words(&effects), ["+", "Stop", "Accepted"]);
}

#[test]
fn another_try_stops_all_of_it_and_saves_nothing_before_it_is_dead() {
    let (state, _) =
        feed(serving(), [beside(Y, RunReason::Background), prepared(Y, 2), launched(Y)]);
    let (state, effects) = feed(state, [retry()]);
    assert_eq!(words(&effects), ["+", "Stop", "Stop", "Accepted"]);
    let (state, effects) = feed(state, ends(S1));
    assert_eq!(words(&effects), ["+", "ReleaseSlot"]);
    let (again, effects) = recover(&state);
    assert!(!words(&effects).contains(&"Save".to_owned()), "{effects:?}");
    let running = Some(Running { pid: 42, since: Timestamp(5) });
    let adoption = Adoption::Running { running, exited: None };
    let (again, _) = feed(again, [fact(Fact::Adopted { execution: Y, adoption })]);
    for state in [state, again] {
        let (state, effects) = feed(state, ends(Y));
        assert_eq!(words(&effects), ["+", "ReleaseSlot", "Save"]);
        let (_, effects) = feed(state, [saved_at(Some(1), "0")]);
        assert_eq!(words(&effects), ["+", "PlanStep"]);
    }
}

#[test]
fn a_try_that_waits_ends_with_a_stop_a_removal_and_with_what_nobody_can_tell() {
    let waiting = || feed(serving(), [retry()]).0;
    let (state, effects) = feed(waiting(), [remove(true)]);
    assert_eq!(state.attempt.retry, None);
    assert_eq!(written(&effects, NEW).phase, Phase::Final);
    let (state, effects) = feed(state, ends(S1));
    assert_eq!(words(&effects), ["+", "ReleaseSlot", "Save"]);
    let (_, effects) = feed(state, [saved(None)]);
    assert_eq!(words(&effects), ["+", "RemoveWorktree"], "one save is enough");
    let (state, effects) = feed(waiting(), [stop(None, None)]);
    assert_eq!(written(&effects, NEW).phase, Phase::Final);
    let (state, _) = feed(state, ends(S1));
    let (state, _) = feed(state, [saved_at(None, "0")]);
    assert_eq!(
        (state.attempt.status, &state.attempt.reason),
        (AttemptStatus::Held, &Some(Reason::Stopped))
    );
    assert!(state.is_idle());
    let (state, _) = recover(&waiting());
    let adoption = Adoption::Foreign { detail: "another epoch".into() };
    let (state, effects) = feed(state, [fact(Fact::Adopted { execution: S1, adoption })]);
    assert_eq!(written(&effects, NEW).phase, Phase::Final);
    assert!(matches!(state.attempt.reason, Some(Reason::ResetFailed { .. })));
}

fn integrate(work: HistoryWork) -> Input {
    ask(Request::Integrate { work })
}

fn merge() -> HistoryWork {
    let (target, message) = ("main".to_owned(), "m".to_owned());
    HistoryWork::Merge { target, style: MergeStyle::Squash, message }
}

#[test]
fn a_merge_stops_it_and_is_planned_once_it_is_dead() {
    let (state, effects) = feed(serving(), [integrate(merge())]);
    assert_eq!(words(&effects), ["+", "Stop"]);
    let (again, _) = recover(&state);
    let running = Some(Running { pid: 42, since: Timestamp(5) });
    let adoption = Adoption::Running { running, exited: None };
    let (again, effects) = feed(again, [fact(Fact::Adopted { execution: S1, adoption })]);
    assert!(!words(&effects).contains(&"PlanHistory".to_owned()), "{effects:?}");
    for state in [state, again] {
        let (_, effects) = feed(state, ends(S1));
        assert_eq!(words(&effects), ["+", "ReleaseSlot", "PlanHistory"]);
    }
    // One that has not begun is taken back at once.
    let (state, _) = feed(rested(), [beside(S1, RunReason::DevServer)]);
    let (state, effects) = feed(state, [integrate(merge())]);
    assert_eq!(words(&effects).iter().filter(|it| *it == "PlanHistory").count(), 1, "{effects:?}");
    assert_eq!(state.dev_server(), None);
    let (_, effects) = feed(serving(), [integrate(merge()), remove(true)]);
    assert_eq!(words(&effects), ["+"]);
}

#[test]
fn a_merge_that_waits_for_it_ends_with_a_stop_and_with_what_nobody_can_tell() {
    let waiting = || feed(serving(), [integrate(merge())]).0;
    let (state, _) = feed(waiting(), [stop(None, None)]);
    let (state, effects) = feed(state, ends(S1));
    assert_eq!(words(&effects), ["+", "ReleaseSlot", "Refused"]);
    assert!(state.is_idle());
    let (state, _) = recover(&waiting());
    let adoption = Adoption::Foreign { detail: "another epoch".into() };
    let (state, _) = feed(state, [fact(Fact::Adopted { execution: S1, adoption })]);
    assert_eq!(state.attempt.status, AttemptStatus::Finished);
}

#[test]
fn it_waits_for_a_removed_worktree_that_is_made_again() {
    let (state, effects) = feed(super::removal::removed_state(), [serve(S1)]);
    assert_eq!(words(&effects), ["+", "CreateWorktree", "Accepted"]);
    let (_, effects) = feed(state, [super::removal::there()]);
    assert_eq!(words(&effects), ["+", "Prepare"]);
}

#[test]
fn its_port_block_reaches_every_launch() {
    let mut record = attempt(Workspace::Worktree(worktree()), AttemptStatus::Ready);
    record.port_base = Some(20_040);
    let (_, effects) = feed(State::new(record), [run(), prepared(X, 1)]);
    let Some(Effect::Begin(Operation::Launch { port_base, .. })) = effects.last() else {
        panic!("{effects:?}");
    };
    assert_eq!(*port_base, Some(20_040));
}

proptest! {
    #[test]
    fn never_two_dev_servers_and_nothing_is_saved_under_one(
        inputs in proptest::collection::vec((0_u8..9, any::<bool>()), 1..60)
    ) {
        let mut state = serving();
        let mut next = 0x200;
        for (n, (what, first)) in inputs.into_iter().enumerate() {
            let of = |record: &&ExecutionRecord| record.action.run_reason == RunReason::DevServer;
            let mut servers: Vec<_> =
                state.executions().filter(of).map(|record| record.id).collect();
            if first {
                servers.reverse();
            }
            let id = servers.first().copied().unwrap_or(S1);
            let input = match what {
                0 => {
                    next += 1;
                    serve(ExecutionId(Uuid::from_u128(next)))
                }
                1 => stop(Some(id), None),
                2 => prepared(id, n as u128 + 10),
                3 => launched(id),
                4 => exited(id, STOPPED),
                5 => finished(id, STOPPED, "0"),
                6 if first => retry(),
                6 => saved_at(None, "0"),
                7 => fact(Fact::StepRefused { message: "no".into() }),
                _ => {
                    let running = Some(Running { pid: 42, since: Timestamp(5) });
                    let adoption = Adoption::Running { running, exited: None };
                    if first {
                        fact(Fact::Adopted { execution: id, adoption })
                    } else {
                        state = recover(&state).0;
                        fact(Fact::Woke)
                    }
                }
            };
            let known = state.executions.contains_key(&NEW);
            if what == 6 && first && known {
                continue;
            }
            let step = state.step(&config(), Timestamp(100 + n as u64), input);
            state = step.state;
            let lives = |record: &&ExecutionRecord| {
                !record.action.run_reason.in_chain()
                    && (Phase::Starting..Phase::Final).contains(&record.phase)
            };
            let living = state.executions().filter(lives).count();
            prop_assert!(living <= 1, "{:?}", state.executions);
            let saves = |effect: &Effect| matches!(effect, Effect::Begin(Operation::Save { .. }));
            if step.effects.iter().any(saves) {
                prop_assert_eq!(living, 0, "saved while a server runs");
            }
        }
    }
}
