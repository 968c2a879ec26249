//! What is done with commits: recorded before it is planned, taken over at each place, told once it is recorded.

use super::*;
use crate::record::{Hold, PullRequestState};
use crate::vcs_history::{Begun, Conclusion, HistoryPlan, HistoryWork, MergeStyle, Merged};

const STEP: ExecutionId = ExecutionId(Uuid::from_u128(0x51));

fn merge() -> HistoryWork {
    let message = "m".to_owned();
    HistoryWork::Merge { target: "main".into(), style: MergeStyle::Squash, message }
}

fn push() -> HistoryWork {
    HistoryWork::Push { remote: None, force_with_lease: false }
}

fn rebase() -> HistoryWork {
    HistoryWork::Rebase { onto: "main".into() }
}

fn wants(work: HistoryWork) -> Input {
    ask(Request::Integrate { work })
}

fn begun() -> Begun {
    Begun::Merge { old: oid("1"), new: oid("2"), head: oid("5") }
}

fn planned(begun: Begun) -> Input {
    let step = GitStep {
        argv: vec!["git".into()],
        base_env: Vec::new(),
        env: Vec::new(),
        cwd: Locator::new("/w"),
        repository_lock: Locator::new("/r/.git"),
    };
    let plan = Box::new(HistoryPlan::Run { step, begun });
    fact(Fact::HistoryPlanned { execution: STEP, plan })
}

fn merged() -> Merged {
    Merged {
        target: "main".into(),
        commit: oid("2"),
        head: oid("5"),
        style: Some(MergeStyle::Squash),
        at: Timestamp(1),
    }
}

fn concluded(conclusion: Conclusion) -> Input {
    fact(Fact::HistoryConcluded { conclusion: Box::new(conclusion) })
}

fn done(conclusion: Conclusion) -> Input {
    let plan = Box::new(HistoryPlan::Done(conclusion));
    fact(Fact::HistoryPlanned { execution: STEP, plan })
}

/// The step from its place to its end.
fn goes(outcome: Outcome) -> Vec<Input> {
    vec![prepared(STEP, 7), launched(STEP), exited(STEP, outcome), finished(STEP, outcome, "5")]
}

fn at_rest(status: AttemptStatus) -> State {
    State::new(attempt(Workspace::Worktree(worktree()), status))
}

/// A merge up to the end of its step.
fn merging(outcome: Outcome) -> (State, Vec<Effect>) {
    let begun = [wants(merge()), planned(begun())];
    feed(at_rest(AttemptStatus::Held), begun.into_iter().chain(goes(outcome)))
}

#[track_caller]
fn answer(effects: &[Effect]) -> Reply {
    let reply = |effect: &Effect| match effect {
        Effect::Reply { request: ASKER, reply } => Some(reply.clone()),
        _ => None,
    };
    effects.iter().find_map(reply).unwrap_or_else(|| panic!("{effects:?}"))
}

#[track_caller]
fn refused(effects: &[Effect]) -> RefusalCode {
    match answer(effects) {
        Reply::Refused(refusal) => refusal.code,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_merge_is_recorded_planned_recorded_run_and_looked_at() {
    let (state, effects) = feed(at_rest(AttemptStatus::Held), [wants(merge())]);
    assert_eq!(words(&effects), ["+", "PlanHistory"]);
    let attempt = written_attempt(&effects);
    assert_eq!(attempt.status, AttemptStatus::Committing);
    assert_eq!(attempt.history.integration.unwrap().work, merge());
    let (state, effects) = feed(state, [planned(begun())]);
    assert_eq!(words(&effects), ["+", "Prepare"]);
    let integration = written_attempt(&effects).history.integration.unwrap();
    assert_eq!((integration.begun, integration.execution), (Some(begun()), Some(STEP)));
    assert_eq!(written(&effects, STEP).action.run_reason, RunReason::Git);
    let (state, effects) = feed(state, goes(WELL));
    assert_eq!(words(&effects), ["+", "ConcludeHistory"]);
    let (state, effects) = feed(state, [concluded(Conclusion::Merged(merged()))]);
    assert_eq!(words(&effects), ["+", "Integrated"]);
    let attempt = written_attempt(&effects);
    assert_eq!((attempt.status, attempt.merged_at.is_some()), (AttemptStatus::Held, true));
    assert_eq!((attempt.history.merged, attempt.history.integration), (Some(merged()), None));
    assert_eq!((attempt.slot, attempt.chain), (false, None));
    assert!(state.is_idle());
}

#[test]
fn what_is_so_already_is_told_and_recorded() {
    let (state, _) = feed(at_rest(AttemptStatus::Finished), [wants(merge())]);
    let (state, effects) = feed(state, [done(Conclusion::Merged(merged()))]);
    assert_eq!(words(&effects), ["+", "Integrated"]);
    let at = written_attempt(&effects).merged_at;
    // Found once more, it is as merged as it was.
    let (_, effects) = feed(state, [wants(merge()), done(Conclusion::Merged(merged()))]);
    assert_eq!(written_attempt(&effects).merged_at, at);
}

#[test]
fn what_is_refused_leaves_the_attempt_as_it_was() {
    for status in [AttemptStatus::Ready, AttemptStatus::Held, AttemptStatus::Finished] {
        let refusal = Refusal { code: RefusalCode::MergeConflict, message: "f".into() };
        let inputs = [wants(merge()), fact(Fact::HistoryRefused { refusal })];
        let (state, effects) = feed(at_rest(status), inputs);
        assert_eq!(refused(&effects), RefusalCode::MergeConflict);
        let attempt = written_attempt(&effects);
        assert_eq!((attempt.status, attempt.merged_at), (status, None));
        assert!(attempt.history.integration.is_none() && attempt.history.half_merged.is_none());
        assert!(state.is_idle());
    }
}

#[test]
fn a_merge_that_failed_is_remembered_until_the_target_has_it() {
    let (state, _) = merging(BADLY);
    let (state, effects) = feed(state, [concluded(Conclusion::NotDone)]);
    assert_eq!(refused(&effects), RefusalCode::Failed);
    let half = written_attempt(&effects).history.half_merged.unwrap();
    assert_eq!((half.target.as_str(), half.begun), ("main", begun()));
    let (state, effects) = feed(state, [wants(merge())]);
    let Some(Effect::Begin(Operation::PlanHistory { request, .. })) = effects.last() else {
        panic!("{effects:?}")
    };
    assert_eq!(request.begun, Some(begun()));
    let (_, effects) = feed(state, [done(Conclusion::Merged(merged()))]);
    assert_eq!(written_attempt(&effects).history.half_merged, None);
}

#[test]
fn a_merge_that_was_lost_is_looked_at_and_planned_once_more() {
    let lost = Outcome::Lost { reason: Lost::SupervisorDied };
    let (state, effects) = merging(lost);
    assert_eq!(words(&effects), ["+", "ConcludeHistory"]);
    let (_, effects) = feed(state.clone(), [concluded(Conclusion::Merged(merged()))]);
    assert_eq!(words(&effects), ["+", "Integrated"]);
    let (state, effects) = feed(state, [concluded(Conclusion::NotDone)]);
    assert_eq!(words(&effects), ["+", "PlanHistory"]);
    let again = [planned(begun())].into_iter().chain(goes(lost));
    let (_, effects) = feed(state, again.chain([concluded(Conclusion::NotDone)]));
    assert_eq!(refused(&effects), RefusalCode::Failed);
}

#[test]
fn whether_a_push_came_through_is_said_by_its_outcome() {
    let begun = Begun::Push { remote: "origin".into(), branch: "b".into(), head: oid("5") };
    for (outcome, well) in [(WELL, true), (BADLY, false)] {
        let inputs = [wants(push()), planned(begun.clone())].into_iter().chain(goes(outcome));
        let (_, effects) = feed(at_rest(AttemptStatus::Finished), inputs);
        assert_eq!(matches!(answer(&effects), Reply::Integrated { .. }), well);
        assert_eq!(written_attempt(&effects).status, AttemptStatus::Finished);
    }
}

#[test]
fn a_rebase_moves_the_base_and_its_conflicts_are_told() {
    let begun = Begun::Rebase { head: oid("5"), onto: oid("9") };
    let inputs = [wants(rebase()), planned(begun)].into_iter().chain(goes(BADLY));
    let (state, _) = feed(at_rest(AttemptStatus::Finished), inputs);
    let conflicts = Conclusion::Conflicts { files: vec!["f".into()] };
    let (_, effects) = feed(state.clone(), [concluded(conflicts.clone())]);
    assert_eq!(
        answer(&effects),
        Reply::Integrated { execution: Some(STEP), conclusion: conflicts }
    );
    let conclusion = Conclusion::Rebased { head: oid("10"), onto: oid("9") };
    let (_, effects) = feed(state, [concluded(conclusion)]);
    let attempt = written_attempt(&effects);
    assert_eq!((attempt.head, attempt.status), (Some(oid("10")), AttemptStatus::Finished));
    assert_eq!(attempt.workspace.worktree().unwrap().base_oid, oid("9"));
}

#[test]
fn what_an_abort_undoes_is_saved_before() {
    let (state, effects) = feed(at_rest(AttemptStatus::Finished), [wants(HistoryWork::Abort)]);
    assert_eq!(words(&effects), ["+", "Save"]);
    assert_eq!(words(&recover(&state).1), ["Save"]);
    let (state, effects) = feed(state, [saved(Some(1))]);
    assert_eq!(words(&effects), ["+", "PlanHistory"]);
    assert_eq!(written_attempt(&effects).last_snapshot, 1);
    assert_eq!(words(&recover(&state).1), ["+", "PlanHistory"]);
    let (state, _) = feed(state, [planned(Begun::Abort)].into_iter().chain(goes(WELL)));
    let (_, effects) = feed(state, [concluded(Conclusion::Aborted { head: oid("5") })]);
    assert_eq!(words(&effects), ["+", "Integrated"]);
    let unsaved = [wants(HistoryWork::Abort), fact(Fact::SaveRefused { refusal: failed("full") })];
    let (state, effects) = feed(at_rest(AttemptStatus::Finished), unsaved);
    assert_eq!(refused(&effects), RefusalCode::Failed);
    assert!(state.is_idle(), "nothing was undone");
}

#[test]
fn a_new_host_goes_on_wherever_it_was() {
    let (state, _) = feed(at_rest(AttemptStatus::Held), [wants(merge())]);
    assert_eq!(words(&recover(&state).1), ["+", "PlanHistory"]);
    let (state, _) = feed(state, [planned(begun())]);
    assert_eq!(words(&recover(&state).1), ["Prepare"]);
    let (state, _) = feed(state, [prepared(STEP, 7)]);
    assert_eq!(words(&recover(&state).1), ["Adopt"]);
    let (state, _) = merging(WELL);
    let (state, effects) = recover(&state);
    assert_eq!(words(&effects), ["ConcludeHistory"]);
    let (_, effects) = feed(state, [concluded(Conclusion::Merged(merged()))]);
    assert_eq!(written_attempt(&effects).history.merged, Some(merged()));
}

#[test]
fn the_same_request_waits_for_the_first_and_others_are_busy() {
    let (state, _) = feed(at_rest(AttemptStatus::Finished), [wants(merge())]);
    let (state, effects) = feed(
        state,
        [Input::Request { id: RequestId(8), request: Request::Integrate { work: merge() } }],
    );
    assert_eq!(words(&effects), [""; 0]);
    for other in [
        wants(push()),
        wants(rebase()),
        remove(false),
        ask(Request::Commit { message: "m".into() }),
    ] {
        assert_eq!(refused(&feed(state.clone(), [other]).1), RefusalCode::Busy);
    }
    let background = Box::new(execution(Y, RunReason::Background));
    let start = ask(Request::Start { execution: background, key: key(Y), admitted: true });
    let (_, effects) = feed(state.clone(), [start]);
    assert_eq!(words(&effects), ["ReleaseSlot", "Refused"]);
    let (_, effects) = feed(state, [done(Conclusion::Merged(merged()))]);
    assert_eq!(words(&effects), ["+", "Integrated", "Integrated"]);
}

#[test]
fn nothing_is_done_with_commits_while_the_chain_works() {
    let (state, _) = feed(ready(), running());
    for work in [merge(), push(), rebase(), HistoryWork::Abort] {
        assert_eq!(refused(&feed(state.clone(), [wants(work)]).1), RefusalCode::Busy);
    }
    // Who works beside the chain is in the way of what changes the worktree alone.
    let background = Box::new(execution(Y, RunReason::Background));
    let start = ask(Request::Start { execution: background, key: key(Y), admitted: true });
    let (state, _) = feed(at_rest(AttemptStatus::Finished), [start]);
    assert_eq!(refused(&feed(state.clone(), [wants(rebase())]).1), RefusalCode::Busy);
    assert_eq!(words(&feed(state, [wants(merge())]).1), ["+", "PlanHistory"]);
    let directory = Workspace::Directory { path: Locator::new("/d") };
    let state = State::new(attempt(directory, AttemptStatus::Finished));
    assert_eq!(refused(&feed(state, [wants(merge())]).1), RefusalCode::NotAWorktree);
    let removed = at_rest(AttemptStatus::Removed);
    assert_eq!(refused(&feed(removed, [wants(merge())]).1), RefusalCode::WorkspaceGone);
}

#[test]
fn a_stop_calls_off_what_has_not_begun_and_stops_what_has() {
    let (state, _) = feed(at_rest(AttemptStatus::Finished), [wants(merge())]);
    let (state, _) = feed(state, [stop(None, None)]);
    let (state, effects) = feed(state, [planned(begun())]);
    assert_eq!(refused(&effects), RefusalCode::Busy);
    assert!(state.is_idle() && !state.attempt().chain_stopped);
    let inputs = [wants(merge()), planned(begun()), prepared(STEP, 7), launched(STEP)];
    let (state, _) = feed(at_rest(AttemptStatus::Finished), inputs);
    let (state, effects) = feed(state, [stop(Some(STEP), None)]);
    assert_eq!(words(&effects), ["+", "Stop", "Accepted"]);
    let stopped = Outcome::Stopped { by: StoppedBy::User };
    let (state, _) = feed(state, [exited(STEP, stopped), finished(STEP, stopped, "5")]);
    // It may have come to its end all the same.
    let (_, effects) = feed(state.clone(), [concluded(Conclusion::Merged(merged()))]);
    assert_eq!(words(&effects), ["+", "Integrated"]);
    let (state, effects) = feed(state, [concluded(Conclusion::NotDone)]);
    assert_eq!(refused(&effects), RefusalCode::Busy);
    assert!(state.is_idle());
}

#[test]
fn a_removal_by_force_waits_until_it_is_known_what_was_done() {
    let (state, _) = merging(WELL);
    let (state, _) = feed(state, [remove(true)]);
    assert_eq!(state.attempt().status, AttemptStatus::Removing);
    let (recovered, effects) = recover(&state);
    assert_eq!(words(&effects), ["+", "ConcludeHistory"]);
    for state in [state, recovered] {
        let (state, effects) = feed(state, [concluded(Conclusion::Merged(merged()))]);
        let attempt = written_attempt(&effects);
        assert_eq!(attempt.history.merged, Some(merged()));
        assert_eq!(attempt.claimed_from, Some(AttemptStatus::Held));
        assert_eq!(words(&effects).last().map(String::as_str), Some("Save"));
        let (state, _) = feed(state, [saved(None), fact(Fact::WorktreeRemoved)]);
        assert_eq!(state.attempt().status, AttemptStatus::Removed);
    }
    // What is only planned is not begun any more.
    let (state, _) = feed(at_rest(AttemptStatus::Finished), [wants(merge()), remove(true)]);
    let (_, effects) = feed(state.clone(), [planned(begun())]);
    assert_eq!(words(&effects), ["+", "Refused", "Save"]);
    assert_eq!(words(&recover(&state).1), ["+", "Save"]);
}

#[test]
fn a_target_and_pull_requests_are_recorded() {
    let target = |target: &str| ask(Request::SetTarget { target: target.into() });
    let (state, effects) = feed(at_rest(AttemptStatus::Finished), [target("next")]);
    let worktree = written_attempt(&effects).workspace.worktree().cloned().unwrap();
    assert_eq!(worktree.target.as_deref(), Some("next"));
    assert_eq!(refused(&feed(state.clone(), [target("b")]).1), RefusalCode::NoTarget);
    let pull_request = |n: usize, state| {
        let url = format!("https://example.org/{n}");
        ask(Request::SetPullRequest { url, state })
    };
    let (open, merged) = (Some(PullRequestState::Open), Some(PullRequestState::Merged));
    let noted = [pull_request(1, open), pull_request(2, open), pull_request(1, merged)];
    let (state, effects) = feed(state, noted);
    let all = written_attempt(&effects).history.pull_requests;
    let states: Vec<_> = all.iter().map(|it| it.state).collect();
    assert_eq!(states, [PullRequestState::Merged, PullRequestState::Open]);
    let (state, effects) = feed(state, [pull_request(1, None), pull_request(7, None)]);
    assert_eq!(written_attempt(&effects).history.pull_requests.len(), 1);
    let (state, _) = feed(state, (10..60).map(|n| pull_request(n, open)));
    assert_eq!(state.attempt().history.pull_requests.len(), 32);
}

proptest! {
    /// Whatever comes in whatever order, with hosts that die between: at most one step lives, none begins after it was stopped
    /// or under a claim, and in the end the attempt is where it was, or removed.
    #[test]
    fn whatever_happens_it_comes_to_its_end(
        events in prop::collection::vec((0_u8..14, any::<bool>()), 0..40),
        work in prop::sample::select(vec![merge(), push(), rebase(), HistoryWork::Abort]),
    ) {
        let (mut state, _) = feed(at_rest(AttemptStatus::Finished), [wants(work.clone())]);
        let about = match &work {
            HistoryWork::Merge { .. } => begun(),
            HistoryWork::Push { .. } => {
                Begun::Push { remote: "o".into(), branch: "b".into(), head: oid("5") }
            }
            HistoryWork::Rebase { .. } | HistoryWork::Continue => {
                Begun::Rebase { head: oid("5"), onto: oid("9") }
            }
            HistoryWork::Abort => Begun::Abort,
        };
        let conclusion = |well| if well { Conclusion::Merged(merged()) } else { Conclusion::NotDone };
        let mut off = false;
        for (event, well) in events {
            let outcome = if well { WELL } else { Outcome::Lost { reason: Lost::SupervisorDied } };
            let begins = matches!(event, 1 | 2);
            let input = match event {
                0 => {
                    state = recover(&state).0;
                    continue;
                }
                1 | 2 => planned(about.clone()),
                3 => prepared(STEP, 7),
                4 => launched(STEP),
                5 => exited(STEP, outcome),
                6 => finished(STEP, outcome, "5"),
                7 | 8 => concluded(conclusion(well)),
                9 => saved(well.then_some(state.attempt().last_snapshot + 1)),
                10 if well => { off |= state.integration().is_some(); stop(None, None) }
                10 => { off |= state.integration().is_some(); remove(true) }
                11 => fact(Fact::WorktreeRemoved),
                12 => {
                    let running = Some(Running { pid: 42, since: Timestamp(5) });
                    let adoption = Adoption::Running { running, exited: None };
                    fact(Fact::Adopted { execution: STEP, adoption })
                }
                _ => fact(Fact::Woke),
            };
            let waits = state.workspace_step == WorkspaceStep::Integrating;
            let (next, effects) = feed(state, [input]);
            state = next;
            let prepares = words(&effects).iter().any(|word| word == "Prepare");
            prop_assert!(!(off && begins && waits && prepares), "it began after it was called off");
            let living = state.executions().filter(|record| record.phase < Phase::Final).count();
            prop_assert!(living <= 1);
            off &= state.integration().is_some();
        }
        // A host that stays brings it to its end.
        state = recover(&state).0;
        for _ in 0..40 {
            if state.integration().is_none() && state.attempt().status != AttemptStatus::Removing {
                break;
            }
            let running = Some(Running { pid: 42, since: Timestamp(5) });
            let adoption = Adoption::Running { running, exited: None };
            let next = [
                saved(None),
                planned(about.clone()),
                prepared(STEP, 7),
                launched(STEP),
                fact(Fact::Adopted { execution: STEP, adoption }),
                exited(STEP, WELL),
                finished(STEP, WELL, "5"),
                concluded(conclusion(true)),
                fact(Fact::WorktreeRemoved),
            ];
            state = feed(state, next).0;
        }
        prop_assert!(state.integration().is_none());
        let status = state.attempt().status;
        prop_assert!(
            matches!(status, AttemptStatus::Finished | AttemptStatus::Removed),
            "{:?}", status
        );
        prop_assert!(!state.attempt().chain_stopped && state.attempt().claim.is_none());
    }
}

#[test]
fn a_message_waits_until_it_is_over_and_is_held_by_a_stop() {
    let (mut state, _) = feed(at_rest(AttemptStatus::Finished), [wants(merge())]);
    state.attempt.queue = 1;
    let (stopped, _) = feed(state.clone(), [stop(None, None)]);
    let (stopped, _) = feed(stopped, [planned(begun())]);
    assert_eq!(stopped.attempt().queue_held, Some(Hold::Stopped));
    let (state, _) = feed(state, [done(Conclusion::Merged(merged()))]);
    assert_eq!(state.attempt().queue_held, None);
}
