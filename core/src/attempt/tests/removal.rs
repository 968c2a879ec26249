//! Removing, making again, snapshots: row by row, then in a small world with restarts at any time.

use std::collections::BTreeSet;

use super::*;
use crate::container_service::Launched;
use crate::process_store::{Kind, RecordKey};
use crate::record::Removing;
use crate::snapshot::{SnapshotNumber, SnapshotRecord, snapshot_id};
use crate::vcs_worktree::{BranchFate, Origin, Removed, SaveRequest, Unfinished, Unsavable};

const ONE: SnapshotNumber = SnapshotNumber(1);

/// A recorded attempt whose worktree is there and at rest.
fn at_rest(status: AttemptStatus) -> State {
    let record = attempt(Workspace::Worktree(worktree()), status);
    State::load(record, Revision(4), Vec::new())
}

fn removed_as(number: Option<u32>) -> Removed {
    let snapshot = number.map(SnapshotNumber);
    Removed { head: oid("5"), branch: Some("b".into()), snapshot }
}

fn gone() -> Input {
    fact(Fact::WorktreeRemoved)
}

pub(super) fn there() -> Input {
    fact(Fact::WorktreeCreated { head: oid("5") })
}

fn not_there() -> Input {
    fact(Fact::WorktreeFailed { refusal: failed("no space") })
}

fn restore(number: Option<u32>, missing: bool) -> Input {
    let snapshot = number.map(|number| Box::new(snapshot(number, "7")));
    ask(Request::Restore { snapshot, missing })
}

fn start(admitted: bool) -> Input {
    let execution = Box::new(execution(Y, RunReason::Background));
    ask(Request::Start { execution, key: key(Y), admitted })
}

fn drop_snapshot(number: u32, force: bool) -> Input {
    ask(Request::RemoveSnapshot { number: SnapshotNumber(number), force })
}

/// A worktree that was removed with a snapshot.
pub(super) fn removed_state() -> State {
    feed(at_rest(AttemptStatus::Finished), [remove(false), saved(Some(1)), gone()]).0
}

/// What a save or a creation was begun with.
fn begun(effects: &[Effect]) -> Operation {
    let operation = effects.iter().find_map(|effect| match effect {
        Effect::Begin(operation) => Some(operation.clone()),
        _ => None,
    });
    operation.unwrap()
}

#[track_caller]
fn origin(effects: &[Effect]) -> Origin {
    match begun(effects) {
        Operation::CreateWorktree { origin, .. } => origin,
        other => panic!("{other:?}"),
    }
}

/// How a save was begun.
fn request(effects: &[Effect]) -> SaveRequest {
    let request = effects.iter().find_map(|effect| match effect {
        Effect::Begin(Operation::Save { request, .. }) => Some(request.clone()),
        _ => None,
    });
    request.unwrap()
}

#[test]
fn what_was_saved_is_recorded_with_the_claim_before_anything_is_removed() {
    let (state, effects) = feed(at_rest(AttemptStatus::Finished), [remove(false)]);
    assert_eq!(words(&effects), ["+", "Save"]);
    let claimed = written_attempt(&effects);
    assert_eq!((claimed.claim, claimed.removal), (Some(Claim::Remove), Some(Removing::SAFE)));
    assert_eq!(request(&effects), SaveRequest::before_removal(ONE));
    let (state, effects) = feed(state, [saved(Some(1))]);
    assert_eq!(words(&effects), ["+", "RemoveWorktree"]);
    let records = writes(&effects);
    assert_eq!(records.len(), 2, "attempt and snapshot in one batch");
    let kept = SnapshotRecord::decode(&records[1]).unwrap();
    assert_eq!((kept.attempt, kept.cause), (A, SnapshotCause::Removal));
    assert_eq!(records[1].key.id, snapshot_id(A, ONE));
    let recorded = written_attempt(&effects);
    assert_eq!(recorded.last_snapshot, 1);
    assert_eq!(recorded.removal.unwrap().saved, Some(removed_as(Some(1))));
    let (state, effects) = feed(state, [gone()]);
    assert_eq!(words(&effects), ["+", "Removed"]);
    let removed = written_attempt(&effects);
    assert_eq!(
        (removed.status, removed.removed),
        (AttemptStatus::Removed, Some(removed_as(Some(1))))
    );
    assert_eq!((removed.claim, removed.removal), (None, None));
    assert!(state.is_idle());
}

#[test]
fn a_clean_worktree_leaves_no_snapshot_and_uses_up_no_number() {
    let (state, effects) = feed(at_rest(AttemptStatus::Finished), [remove(false), saved(None)]);
    assert_eq!(words(&effects), ["+", "RemoveWorktree"]);
    assert_eq!(writes(&effects).len(), 1);
    let (_, effects) = feed(state, [gone()]);
    let removed = written_attempt(&effects);
    assert_eq!((removed.last_snapshot, removed.removed), (0, Some(removed_as(None))));
}

#[test]
fn what_a_removal_may_do_is_what_was_asked_for() {
    let removal = |force, discard_unsaved, delete_branch| {
        let cause = SnapshotCause::Removal;
        ask(Request::Remove { force, discard_unsaved, delete_branch, cause })
    };
    for (input, unfinished, unsavable, branch) in [
        (removal(false, false, false), Unfinished::Refuse, Unsavable::Refuse, BranchFate::Stays),
        (removal(true, false, false), Unfinished::Save, Unsavable::Refuse, BranchFate::Stays),
        (removal(false, true, false), Unfinished::Refuse, Unsavable::Discard, BranchFate::Stays),
        (removal(false, false, true), Unfinished::Refuse, Unsavable::Refuse, BranchFate::Goes),
    ] {
        let (state, effects) = feed(at_rest(AttemptStatus::Held), [input]);
        let expected =
            SaveRequest { unfinished, unsavable, branch, ..SaveRequest::before_removal(ONE) };
        assert_eq!(request(&effects), expected);
        let again = recover(&state).1;
        assert_eq!(request(&again), expected, "the next host goes on in the same way");
        let (_, effects) = feed(state, [saved(Some(1))]);
        let Operation::RemoveWorktree { delete_branch, .. } = begun(&effects) else {
            panic!("{effects:?}")
        };
        assert_eq!(delete_branch, branch == BranchFate::Goes);
    }
}

#[test]
fn a_refused_save_withdraws_the_claim_and_shows_why() {
    let commit_failed = Reason::CommitFailed { output: "hook".into(), execution: None };
    let remove_failed = Reason::RemoveFailed { message: "a socket".into() };
    for (before, after) in [
        (None, &remove_failed),
        (Some(Reason::Stopped), &remove_failed),
        (Some(commit_failed.clone()), &commit_failed),
    ] {
        let mut state = at_rest(AttemptStatus::Held);
        state.attempt.reason = before;
        let refused = fact(Fact::SaveRefused { refusal: failed("a socket") });
        let (state, effects) = feed(state, [remove(false), refused]);
        assert_eq!(words(&effects), ["+", "Refused"]);
        let attempt = written_attempt(&effects);
        assert_eq!((attempt.status, attempt.claim), (AttemptStatus::Held, None));
        assert_eq!((attempt.removal, attempt.reason.as_ref()), (None, Some(after)));
        assert!(state.is_idle());
    }
}

#[test]
fn what_cannot_be_removed_after_all_is_put_back_and_its_snapshot_kept() {
    let refused = fact(Fact::RemoveRefused { refusal: failed("busy") });
    let (state, effects) =
        feed(at_rest(AttemptStatus::Finished), [remove(false), saved(Some(1)), refused]);
    assert_eq!(words(&effects), ["CreateWorktree"]);
    assert_eq!(origin(&effects), Origin::Removed(removed_as(Some(1))));
    let (state, effects) = feed(state, [there()]);
    assert_eq!(words(&effects), ["+", "Refused"]);
    let attempt = written_attempt(&effects);
    assert_eq!((attempt.status, attempt.claim), (AttemptStatus::Finished, None));
    assert_eq!(attempt.reason, Some(Reason::RemoveFailed { message: "busy".into() }));
    let (_, effects) = feed(state, [remove(false)]);
    assert_eq!(request(&effects).number, SnapshotNumber(2));
}

#[test]
fn what_is_neither_removed_nor_put_back_counts_as_removed_and_can_be_made_again() {
    let refused = fact(Fact::RemoveRefused { refusal: failed("busy") });
    let inputs = [remove(false), saved(Some(1)), refused, not_there()];
    let (state, effects) = feed(at_rest(AttemptStatus::Finished), inputs);
    assert_eq!(words(&effects), ["+", "Refused"]);
    let attempt = written_attempt(&effects);
    assert_eq!(attempt.status, AttemptStatus::Removed);
    let Some(Reason::RemoveFailed { message }) = &attempt.reason else { panic!("{attempt:?}") };
    assert!(message.starts_with("busy; nor could it be put back: no space; all of it is saved"));
    let (state, effects) = feed(state, [restore(None, false)]);
    assert_eq!(origin(&effects), Origin::Removed(removed_as(Some(1))));
    let (_, effects) = feed(state, [there()]);
    let attempt = written_attempt(&effects);
    assert_eq!((attempt.status, attempt.reason), (AttemptStatus::Finished, None));
    assert_eq!((attempt.half_removed, attempt.removed), (None, None));
}

/// A worktree whose removal failed after it was saved, and could not be put back.
fn half_removed() -> State {
    let refused = fact(Fact::RemoveRefused { refusal: failed("busy") });
    feed(at_rest(AttemptStatus::Finished), [remove(false), saved(Some(1)), refused, not_there()]).0
}

#[test]
fn a_removal_that_failed_is_gone_on_with_when_it_is_asked_for_again() {
    let state = half_removed();
    assert_eq!(words(&recover(&state).1), Vec::<String>::new(), "what failed stays failed");
    let (state, effects) = feed(state, [remove(false)]);
    assert_eq!(words(&effects), ["+", "RemoveWorktree"], "it is saved already");
    let claimed = written_attempt(&effects);
    assert_eq!((claimed.status, claimed.claim), (AttemptStatus::Removing, Some(Claim::Remove)));
    assert_eq!(claimed.removal.unwrap().saved, Some(removed_as(Some(1))));
    assert_eq!(words(&recover(&state).1), ["+", "RemoveWorktree"], "the next host goes on with it");
    let (ended, effects) = feed(state.clone(), [gone()]);
    assert_eq!(words(&effects), ["+", "Removed"]);
    let removed = written_attempt(&effects);
    assert_eq!((removed.status, &removed.reason), (AttemptStatus::Removed, &None));
    assert_eq!((removed.half_removed, removed.removed), (None, Some(removed_as(Some(1)))));
    let (back, _) = feed(ended, [restore(None, false), there()]);
    assert_eq!(back.attempt().status, AttemptStatus::Finished);
    // It fails once more in the same way: the reason is said once.
    let refused = || fact(Fact::RemoveRefused { refusal: failed("no space") });
    let (state, effects) = feed(state, [refused(), not_there()]);
    assert_eq!(words(&effects), ["+", "Refused"]);
    let Some(Reason::RemoveFailed { message }) = &state.attempt().reason else { panic!() };
    assert_eq!(message.matches("no space").count(), 1, "{message}");
    assert_eq!(words(&feed(state, [remove(false)]).1), ["+", "RemoveWorktree"]);
}

#[test]
fn what_is_whole_again_when_its_removal_goes_on_is_saved_anew() {
    let refused = fact(Fact::RemoveRefused { refusal: failed("it was not saved") });
    let (state, effects) = feed(half_removed(), [remove(false), refused.clone(), there()]);
    assert_eq!(words(&effects), ["+", "Save"]);
    assert_eq!(request(&effects).number, SnapshotNumber(2));
    let (state, effects) = feed(state, [saved(Some(2)), gone()]);
    assert_eq!(words(&effects), ["+", "Removed"]);
    assert_eq!(state.attempt().removed, Some(removed_as(Some(2))));
    // Once is enough: what cannot be removed then stays where it is.
    let inputs = [remove(false), refused.clone(), there(), saved(Some(2)), refused, there()];
    let (state, effects) = feed(half_removed(), inputs);
    assert_eq!(words(&effects), ["+", "Refused"]);
    let attempt = state.attempt();
    assert_eq!((attempt.status, attempt.claim), (AttemptStatus::Finished, None));
    assert_eq!((&attempt.removed, &attempt.half_removed), (&None, &None));
}

#[test]
fn a_half_removed_worktree_keeps_its_snapshot_and_its_branch() {
    assert_eq!(words(&feed(half_removed(), [drop_snapshot(1, true)]).1), ["Refused"]);
    let with_branch = ask(Request::Remove {
        force: true,
        discard_unsaved: false,
        delete_branch: true,
        cause: SnapshotCause::Removal,
    });
    assert_eq!(
        words(&feed(half_removed(), [with_branch]).1),
        ["Refused"],
        "it is not saved for that"
    );
    // Work that comes makes it again.
    let (state, effects) = feed(half_removed(), [start(true)]);
    assert_eq!(words(&effects), ["+", "CreateWorktree", "Accepted"]);
    assert_eq!(feed(state, [there()]).0.attempt().half_removed, None);
    // A restoration that fails changes nothing about it; one that is overtaken by a removal ends with that.
    let (state, _) = feed(half_removed(), [restore(None, false), not_there()]);
    assert_eq!(words(&feed(state, [remove(false)]).1), ["+", "RemoveWorktree"]);
    let (state, effects) = feed(half_removed(), [restore(None, false), remove(true), not_there()]);
    assert_eq!(words(&effects), ["+", "Refused", "RemoveWorktree"]);
    let (state, _) = feed(state, [gone()]);
    assert_eq!(state.attempt().removed, Some(removed_as(Some(1))));
    let (state, _) = feed(state, [restore(None, false), there()]);
    assert_eq!(state.attempt().status, AttemptStatus::Finished);
}

#[test]
fn the_next_host_goes_on_with_a_removal_wherever_it_was() {
    let claimed = feed(at_rest(AttemptStatus::Held), [remove(false)]).0;
    let (again, effects) = recover(&claimed);
    assert_eq!(words(&effects), ["+", "Save"]);
    assert_eq!(request(&effects).number, ONE);
    let saved_once = feed(again, [saved(Some(1))]).0;
    let (again, effects) = recover(&saved_once);
    assert_eq!(words(&effects), ["+", "RemoveWorktree"], "it is saved once");
    // Put back, and nobody noted it: the backend says that it is not saved.
    let refused = fact(Fact::RemoveRefused { refusal: failed("unsaved") });
    let putting_back = feed(again.clone(), [refused.clone()]).0;
    assert_eq!(words(&recover(&putting_back).1), ["+", "RemoveWorktree"]);
    let (state, effects) = feed(recover(&putting_back).0, [refused, there()]);
    assert_eq!(words(&effects), ["+"], "nobody waits any more");
    assert_eq!(state.attempt().status, AttemptStatus::Held);
    let (state, effects) = feed(again, [gone()]);
    assert_eq!(words(&effects), ["+"]);
    assert_eq!(words(&recover(&state).1), Vec::<String>::new());
}

#[test]
fn a_forced_removal_is_gone_on_with_when_what_ran_is_known_dead() {
    let (state, _) = feed(ready(), running());
    let (state, _) = feed(state, [remove(true)]);
    let (state, effects) = recover(&state);
    assert_eq!(words(&effects), ["+", "TakeSlot", "Adopt"]);
    let running = Some(Running { pid: 42, since: Timestamp(5) });
    let adoption = Adoption::Running { running, exited: None };
    let (state, effects) = feed(state, [fact(Fact::Adopted { execution: X, adoption })]);
    assert!(words(&effects).contains(&"Stop".to_owned()), "{effects:?}");
    let stopped = Outcome::Stopped { by: StoppedBy::Host };
    let (_, effects) = feed(state, [exited(X, stopped), finished(X, stopped, "0")]);
    assert_eq!(words(&effects), ["+", "ReleaseSlot", "Save"]);
    assert_eq!(request(&effects).unfinished, Unfinished::Save);
}

#[test]
fn a_claim_of_an_older_version_is_gone_on_with_by_the_safe_rules() {
    let mut state = at_rest(AttemptStatus::Removing);
    state.attempt.claim = Some(Claim::Remove);
    state.attempt.claimed_from = Some(AttemptStatus::Finished);
    let (state, effects) = recover(&state);
    assert_eq!(request(&effects), SaveRequest::before_removal(ONE));
    let (state, _) = feed(state, [saved(Some(1)), gone()]);
    assert_eq!(state.attempt().removed, Some(removed_as(Some(1))));
}

#[test]
fn what_somebody_deleted_is_tidied_up_without_a_snapshot() {
    let inputs = [remove(false), fact(Fact::NothingToSave)];
    let (state, effects) = feed(at_rest(AttemptStatus::Finished), inputs);
    assert_eq!(words(&effects), ["+", "RemoveWorktree"]);
    let (state, _) = feed(state, [gone()]);
    let expected = Removed { head: oid("0"), branch: Some("b".into()), snapshot: None };
    assert_eq!(state.attempt().removed, Some(expected));
}

#[test]
fn a_worktree_that_was_never_made_has_nothing_to_come_back_to() {
    let inputs = [remove(false), fact(Fact::NothingToSave), gone()];
    let (state, effects) = feed(at_rest(AttemptStatus::Failed), inputs);
    assert_eq!(words(&effects), ["+", "Removed"]);
    for input in [restore(None, false), start(true)] {
        let (_, effects) = feed(state.clone(), [input]);
        assert!(words(&effects).contains(&"Refused".to_owned()), "{effects:?}");
    }
}

#[test]
fn a_removed_worktree_comes_back_with_the_status_that_it_had() {
    for status in [AttemptStatus::Finished, AttemptStatus::Held] {
        let mut state = at_rest(status);
        state.attempt.reason = Some(Reason::EndedBadly { execution: X });
        let (state, _) = feed(state, [remove(false), saved(Some(1)), gone()]);
        let (state, effects) = feed(state, [restore(None, false)]);
        assert_eq!(words(&effects), ["+", "CreateWorktree"]);
        assert_eq!(origin(&effects), Origin::Removed(removed_as(Some(1))));
        let creating = written_attempt(&effects);
        assert_eq!(creating.status, AttemptStatus::Creating);
        assert_eq!(creating.restoring, Some(removed_as(Some(1))));
        let again = recover(&state).1;
        assert_eq!(origin(&again), Origin::Removed(removed_as(Some(1))));
        let (state, effects) = feed(state, [there()]);
        assert_eq!(words(&effects), ["+", "Restored"]);
        let back = written_attempt(&effects);
        assert_eq!((back.status, back.removed_at), (status, None));
        assert_eq!((back.removed, back.restoring), (None, None));
        assert_eq!(back.reason, Some(Reason::EndedBadly { execution: X }));
        assert!(state.is_idle());
    }
}

#[test]
fn what_cannot_be_made_again_stays_removed_with_the_reason() {
    let (state, effects) = feed(removed_state(), [restore(None, false), not_there()]);
    assert_eq!(words(&effects), ["+", "Refused"]);
    let attempt = written_attempt(&effects);
    assert_eq!(attempt.status, AttemptStatus::Removed);
    assert_eq!(
        attempt.reason,
        Some(Reason::WorkspaceFailed { message: "no space".into(), execution: None })
    );
    assert_eq!(attempt.removed, Some(removed_as(Some(1))));
    let (state, _) = feed(state, [restore(None, false), there()]);
    assert_eq!((state.attempt().status, &state.attempt().reason), (AttemptStatus::Finished, &None));
}

#[test]
fn a_snapshot_can_be_chosen() {
    let (state, effects) = feed(removed_state(), [restore(Some(9), false)]);
    let chosen =
        Removed { head: oid("7"), branch: Some("b".into()), snapshot: Some(SnapshotNumber(9)) };
    assert_eq!(origin(&effects), Origin::Removed(chosen));
    let (state, effects) = feed(state, [restore(Some(1), false)]);
    assert_eq!(words(&effects), ["Refused"], "another one is being made");
    let (_, effects) = feed(state, [restore(None, false), there()]);
    assert_eq!(words(&effects), ["+", "Restored", "Restored"]);
}

#[test]
fn an_execution_on_a_removed_worktree_waits_for_it_to_be_made_again() {
    let (state, effects) = feed(removed_state(), [start(true)]);
    assert_eq!(words(&effects), ["+", "CreateWorktree", "Accepted"]);
    assert_eq!(written(&effects, Y).phase, Phase::Queued);
    assert_eq!(words(&recover(&state).1), ["+", "TakeSlot", "CreateWorktree"]);
    let (back, effects) = feed(state.clone(), [there()]);
    assert_eq!(words(&effects), ["+", "Prepare"]);
    assert_eq!(back.attempt().status, AttemptStatus::Finished);
    let (_, effects) = feed(state, [not_there()]);
    let outcome = Outcome::NotStarted { reason: NotStarted::WorkspaceRefused };
    assert_eq!(written(&effects, Y).outcome, Some(outcome));
    assert_eq!(written_attempt(&effects).status, AttemptStatus::Removed);
}

#[test]
fn an_attempt_that_an_older_version_removed_comes_back_on_its_branch() {
    let mut state = at_rest(AttemptStatus::Removed);
    state.attempt.head = Some(oid("3"));
    let (_, effects) = feed(state, [restore(None, false)]);
    let expected = Removed { head: oid("3"), branch: Some("b".into()), snapshot: None };
    assert_eq!(origin(&effects), Origin::Removed(expected));
}

#[test]
fn what_is_there_is_looked_at_and_completed_and_takes_no_snapshot() {
    let state = at_rest(AttemptStatus::Held);
    let (looked_at, effects) = feed(state.clone(), [restore(None, false)]);
    let looks = vec!["+".to_owned(), "CreateWorktree".to_owned()];
    assert_eq!((words(&effects), origin(&effects)), (looks, Origin::Base));
    let (whole, effects) = feed(looked_at.clone(), [there()]);
    assert_eq!(
        (words(&effects), whole.is_idle()),
        (vec!["+".to_owned(), "Restored".to_owned()], true)
    );
    let (other, effects) = feed(looked_at.clone(), [not_there()]);
    assert_eq!(words(&effects), ["Refused"]);
    let AttemptRecord { host, epoch, .. } = other.attempt().clone();
    let expected = AttemptRecord { host, epoch, ..state.attempt().clone() };
    assert_eq!(*other.attempt(), expected, "it is as it was");
    let (claimed, effects) = feed(looked_at, [remove(false)]);
    assert_eq!(words(&effects), ["+"], "one after the other");
    assert_eq!(words(&feed(claimed, [there()]).1), ["+", "Restored", "Save"]);
    let (busy, _) = feed(ready(), running());
    assert_eq!(words(&feed(busy, [restore(None, false)]).1), ["+", "Restored"]);
    assert_eq!(words(&feed(state, [restore(Some(1), false)]).1), ["Refused"]);
    let directory = Workspace::Directory { path: Locator::new("/d") };
    let state = State::load(attempt(directory, AttemptStatus::Removed), Revision(1), Vec::new());
    for input in [restore(None, false), start(true), drop_snapshot(1, true)] {
        let (_, effects) = feed(state.clone(), [input]);
        assert!(words(&effects).contains(&"Refused".to_owned()), "{effects:?}");
    }
}

#[test]
fn what_somebody_deleted_is_saved_as_far_as_it_is_known_and_made_again() {
    let mut state = at_rest(AttemptStatus::Held);
    state.attempt.missing = true;
    let (state, effects) = feed(state, [restore(None, true)]);
    assert_eq!(words(&effects), ["+", "Save"]);
    assert_eq!(words(&recover(&state).1), ["+", "Save"]);
    let (state, effects) = feed(state, [saved(Some(1)), gone()]);
    assert_eq!(words(&effects), ["+", "CreateWorktree"]);
    let (state, effects) = feed(state, [there()]);
    assert_eq!(words(&effects), ["+", "Restored"]);
    assert_eq!((state.attempt().status, state.attempt().missing), (AttemptStatus::Held, false));
    let refused = fact(Fact::SaveRefused { refusal: failed("no") });
    let (_, effects) = feed(state, [restore(None, true), refused]);
    assert_eq!(words(&effects), ["+", "Refused"]);
}

#[test]
fn a_removal_overtakes_a_restoration() {
    let (state, effects) = feed(removed_state(), [restore(None, false), remove(false)]);
    assert_eq!(words(&effects), ["Refused"], "it is being made");
    let (state, effects) = feed(state, [remove(true)]);
    assert_eq!(words(&effects), ["+"]);
    assert_eq!(words(&recover(&state).1), ["+", "CreateWorktree"], "nobody knows how far it came");
    let (made, effects) = feed(state.clone(), [there()]);
    assert_eq!(words(&effects), ["+", "Refused", "Save"]);
    assert_eq!(request(&effects).number, SnapshotNumber(2));
    let (made, effects) = feed(made, [saved(Some(2)), gone()]);
    assert_eq!(words(&effects), ["+", "Removed"]);
    assert_eq!(made.attempt().removed, Some(removed_as(Some(2))));
    let (not_made, effects) = feed(state, [not_there()]);
    assert_eq!(words(&effects), ["+", "Refused", "Removed"]);
    assert_eq!(not_made.attempt().removed, Some(removed_as(Some(1))), "as it was before");
    for state in [made, not_made] {
        let (state, _) = feed(state, [restore(None, false), there()]);
        assert_eq!(state.attempt().status, AttemptStatus::Finished);
    }
}

#[test]
fn a_branch_goes_with_its_worktree_or_not_at_all() {
    let with_branch = ask(Request::Remove {
        force: true,
        discard_unsaved: false,
        delete_branch: true,
        cause: SnapshotCause::Removal,
    });
    assert_eq!(words(&feed(removed_state(), [with_branch]).1), ["Refused"]);
    assert_eq!(words(&feed(removed_state(), [remove(false)]).1), ["+", "Removed"]);
}

#[test]
fn a_snapshot_that_is_needed_goes_by_force_only() {
    assert_eq!(words(&feed(removed_state(), [drop_snapshot(1, false)]).1), ["Refused"]);
    let (state, effects) = feed(removed_state(), [drop_snapshot(1, true)]);
    assert_eq!(words(&effects), ["RemoveSnapshot"]);
    assert_eq!(words(&feed(state.clone(), [restore(None, false)]).1), ["Refused"]);
    let (state, effects) =
        feed(state, [drop_snapshot(1, true), fact(Fact::SnapshotRemoved { number: ONE })]);
    assert_eq!(words(&effects), ["+", "Accepted", "Accepted"]);
    let deleted = effects.iter().any(|effect| {
        let key = RecordKey { kind: Kind::Snapshot, id: snapshot_id(A, ONE) };
        matches!(effect, Effect::Persist { writes }
            if writes.contains(&Write::Delete { key, expect: Revision(1) }))
    });
    assert!(deleted, "{effects:?}");
    assert_eq!(state.attempt().removed, Some(removed_as(None)), "the branch is left");
    let (state, effects) = feed(state, [drop_snapshot(1, true)]);
    assert_eq!(words(&effects), ["Refused"], "whoever saw its record before asks in vain");
    assert_eq!(words(&feed(state, [restore(Some(1), false)]).1), ["Refused"]);
}

#[test]
fn a_snapshot_that_cannot_be_removed_stays() {
    let kept = fact(Fact::SnapshotKept { number: ONE, refusal: failed("no") });
    let (state, effects) = feed(at_rest(AttemptStatus::Held), [drop_snapshot(1, false), kept]);
    assert_eq!(words(&effects), ["Refused"]);
    assert!(state.is_idle());
}

#[test]
fn a_snapshot_in_use_is_not_removed() {
    let (state, _) = feed(removed_state(), [restore(None, false)]);
    assert_eq!(words(&feed(state, [drop_snapshot(1, true)]).1), ["Refused"]);
    let (state, _) = feed(at_rest(AttemptStatus::Held), [remove(false), saved(Some(1))]);
    assert_eq!(words(&feed(state, [drop_snapshot(1, true)]).1), ["Refused"]);
}

#[test]
fn a_commit_that_was_asked_for_keeps_the_reason_if_there_was_nothing_to_commit() {
    let clean = || fact(Fact::StepPlanned { nothing: Some(oid("0")), step: None });
    let commit = || ask(Request::Commit { message: "m".into() });
    let reason = Some(Reason::EndedBadly { execution: X });
    let mut state = at_rest(AttemptStatus::Held);
    state.attempt.reason.clone_from(&reason);
    let (state, effects) = feed(state, [commit(), clean()]);
    assert_eq!(words(&effects), ["+", "Clean", "ReleaseSlot"]);
    assert_eq!((state.attempt().status, &state.attempt().reason), (AttemptStatus::Held, &reason));
    let mut state = at_rest(AttemptStatus::Finished);
    state.attempt.reason = Some(Reason::RemoveFailed { message: "busy".into() });
    let (state, _) = feed(state, [commit(), clean()]);
    assert_eq!(state.attempt().status, AttemptStatus::Finished, "that holds nobody");
}

#[test]
fn marks_are_recorded() {
    for input in
        [|| ask(Request::SetMissing { missing: true }), || ask(Request::SetKeep { keep: true })]
    {
        let (state, effects) = feed(at_rest(AttemptStatus::Held), [input()]);
        assert_eq!(words(&effects), ["+", "Accepted"]);
        let again = words(&feed(state, [input()]).1);
        assert_eq!(again, ["+", "Accepted"], "who has lost the records promises nothing");
    }
    let late = ask(Request::SetMissing { missing: true });
    let (state, effects) = feed(removed_state(), [late]);
    assert_eq!(words(&effects), ["+", "Accepted"]);
    assert!(!state.attempt().missing, "it is gone anyway");
}

/// Where the worktree is in the small world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spot {
    Nowhere,
    Place,
    Aside,
}

/// A store, a worktree, snapshots, and operations that are under way.
struct SmallWorld {
    state: State,
    records: BTreeMap<RecordKey, (Record, Revision)>,
    spot: Spot,
    archives: BTreeSet<SnapshotNumber>,
    /// Snapshots that somebody removed by force.
    given_up: BTreeSet<SnapshotNumber>,
    under_way: Vec<Operation>,
    at: u64,
    ids: u128,
}

impl SmallWorld {
    fn new() -> Self {
        let record = attempt(Workspace::Worktree(worktree()), AttemptStatus::Finished);
        let stored = (record.encode(), Revision(1));
        Self {
            state: State::load(record, Revision(1), Vec::new()),
            records: BTreeMap::from([(stored.0.key, stored)]),
            spot: Spot::Place,
            archives: BTreeSet::new(),
            given_up: BTreeSet::new(),
            under_way: Vec::new(),
            at: 100,
            ids: 0x1000,
        }
    }

    fn stored(&self) -> AttemptRecord {
        let key = RecordKey { kind: Kind::Attempt, id: A.0 };
        AttemptRecord::decode(&self.records[&key].0).unwrap()
    }

    fn feed(&mut self, input: Input) {
        self.at += 1;
        let step = self.state.clone().step(&config(), Timestamp(self.at), input);
        self.state = step.state;
        for effect in step.effects {
            match effect {
                Effect::Persist { writes } => {
                    writes.into_iter().for_each(|write| self.write(write))
                }
                Effect::Begin(operation) => self.begin(operation),
                Effect::WakeAt(_) | Effect::Reply { .. } => {}
            }
        }
    }

    fn write(&mut self, write: Write) {
        let key = write.key();
        let found = self.records.get(&key).map(|(_, revision)| *revision);
        match write {
            Write::Put { record, expect } => {
                let expected = match expect {
                    Expect::Absent => None,
                    Expect::At(revision) => Some(revision),
                };
                assert_eq!(found, expected, "{key:?} conflicts");
                let revision = Revision(found.unwrap_or_default().0 + 1);
                self.records.insert(key, (record, revision));
            }
            Write::Delete { expect, .. } => {
                assert_eq!(found, Some(expect), "{key:?} conflicts");
                self.records.remove(&key);
            }
        }
    }

    fn begin(&mut self, operation: Operation) {
        let stored = self.stored();
        match &operation {
            Operation::Prepare { .. } | Operation::Launch { .. } => {
                assert_eq!(stored.claim, None, "nothing starts in a claimed workspace");
                assert_eq!(self.spot, Spot::Place, "nothing starts where nothing is");
            }
            Operation::RemoveWorktree { .. } => {
                let saved = stored.removal.and_then(|how| how.saved);
                assert!(saved.is_some(), "nothing is removed before its save is recorded");
            }
            Operation::Save { request, .. } => {
                let id = snapshot_id(A, request.number);
                let recorded = self.records.contains_key(&RecordKey { kind: Kind::Snapshot, id });
                assert!(!recorded, "no recorded snapshot is written over");
            }
            Operation::TakeSlot { .. }
            | Operation::ReleaseSlot(_)
            | Operation::Feed { .. }
            | Operation::CreateWorktree { .. }
            | Operation::AwaitExit { .. }
            | Operation::Finish { .. }
            | Operation::Adopt { .. }
            | Operation::Stop { .. }
            | Operation::Discard { .. }
            | Operation::PlanStep { .. }
            | Operation::RemoveSnapshot { .. }
            | Operation::PlanHistory { .. }
            | Operation::ConcludeHistory { .. } => {}
        }
        self.under_way.push(operation);
    }

    /// Does what an operation does, or fails at it; returns what is told about it.
    fn perform(&mut self, operation: Operation, well: bool) -> Option<Fact> {
        let refusal = failed("as told");
        Some(match operation {
            Operation::Save { request, .. } => match self.spot {
                Spot::Nowhere => Fact::NothingToSave,
                Spot::Place | Spot::Aside if well => {
                    self.spot = Spot::Aside;
                    self.archives.insert(request.number);
                    let snapshot = Some(snapshot(request.number.0, "5"));
                    let (head, branch) = (oid("5"), Some("b".into()));
                    Fact::Saved(Box::new(Saved { head, branch, snapshot }))
                }
                Spot::Place | Spot::Aside => {
                    self.spot = Spot::Place;
                    Fact::SaveRefused { refusal }
                }
            },
            Operation::RemoveWorktree { .. } if self.spot == Spot::Place || !well => {
                Fact::RemoveRefused { refusal }
            }
            Operation::RemoveWorktree { .. } => {
                if self.spot == Spot::Aside {
                    let saved = self.stored().removal.and_then(|how| how.saved).unwrap();
                    let number = saved.snapshot.unwrap();
                    assert!(self.archives.contains(&number), "what is removed is saved");
                }
                self.spot = Spot::Nowhere;
                Fact::WorktreeRemoved
            }
            Operation::CreateWorktree { origin, .. } => {
                self.make(&origin, well);
                match self.spot {
                    Spot::Place => Fact::WorktreeCreated { head: oid("5") },
                    Spot::Aside | Spot::Nowhere => Fact::WorktreeFailed { refusal },
                }
            }
            Operation::RemoveSnapshot { number, .. } if well => {
                self.archives.remove(&number);
                self.given_up.insert(number);
                Fact::SnapshotRemoved { number }
            }
            Operation::RemoveSnapshot { number, .. } => Fact::SnapshotKept { number, refusal },
            Operation::TakeSlot { slot, .. } => Fact::Admitted(slot),
            Operation::Prepare { execution, .. } => {
                self.ids += 1;
                let (place, head) = (place(self.ids), Some(oid("5")));
                Fact::Prepared { execution: execution.id, place, head }
            }
            Operation::Launch { execution, .. } => {
                assert_eq!(self.spot, Spot::Place, "it stays while something starts in it");
                let (reason, message) = (NotStarted::SpawnFailed, String::new());
                let launched = Launched::NotStarted { reason, message };
                Fact::Launched { execution: execution.id, launched }
            }
            Operation::Adopt { execution, .. } => {
                Fact::Adopted { execution, adoption: Adoption::NeverRan }
            }
            Operation::PlanStep { .. } => Fact::StepPlanned { nothing: Some(oid("5")), step: None },
            Operation::ReleaseSlot(_)
            | Operation::Feed { .. }
            | Operation::AwaitExit { .. }
            | Operation::Finish { .. }
            | Operation::Stop { .. }
            | Operation::Discard { .. }
            | Operation::PlanHistory { .. }
            | Operation::ConcludeHistory { .. } => return None,
        })
    }

    /// Makes the worktree if there is anything to make it from, or puts it back.
    fn make(&mut self, origin: &Origin, well: bool) {
        let from = match origin {
            Origin::Base => None,
            Origin::Removed(removed) => removed.snapshot,
        };
        let has = from.is_none_or(|number| self.archives.contains(&number));
        if well && (has || self.spot == Spot::Aside) {
            self.spot = Spot::Place;
        }
    }

    /// Lets one operation come to its end.
    fn go_on(&mut self, which: usize, well: bool) {
        if self.under_way.is_empty() {
            return;
        }
        let operation = self.under_way.remove(which % self.under_way.len());
        if let Some(fact) = self.perform(operation, well) {
            self.feed(Input::Fact(fact));
        }
        self.check();
    }

    /// Kills the host: what was under way may have been done, and nobody heard of it.
    fn restart(&mut self, done: bool) {
        for operation in std::mem::take(&mut self.under_way) {
            if done {
                let _unheard = self.perform(operation, true);
            }
        }
        let executions = self.records.values().filter_map(|(record, revision)| {
            let execution = ExecutionRecord::decode(record).ok()?;
            let active = record.key.kind == Kind::Execution && execution.phase != Phase::Final;
            active.then_some((execution, *revision))
        });
        let executions = executions.collect();
        let revision = self.records[&RecordKey { kind: Kind::Attempt, id: A.0 }].1;
        self.state = State::load(self.stored(), revision, executions);
        self.feed(Input::Fact(Fact::Recovered));
        self.check();
    }

    /// Whatever is nowhere can be made again.
    fn check(&self) {
        let stored = self.stored();
        if self.spot == Spot::Nowhere {
            let from = stored.removal.and_then(|how| how.saved).or(stored.removed);
            let number = from.and_then(|from| from.snapshot);
            let there = number.is_some_and(|number| self.archives.contains(&number));
            assert!(there || !self.given_up.is_empty(), "the work is lost");
        }
    }

    fn ask(&mut self, which: u8) {
        self.ids += 1;
        let id = ExecutionId(Uuid::from_u128(self.ids));
        let input = match which {
            0 => remove(false),
            1 => remove(true),
            2 => restore(None, false),
            3 => restore(None, self.spot == Spot::Nowhere),
            4 => {
                let mut record = execution(id, RunReason::Background);
                record.client_key = Some(self.ids.to_string());
                let key = RequestRecord { client_key: self.ids.to_string(), ..key(id) };
                let admitted = self.ids.is_multiple_of(2);
                ask(Request::Start { execution: Box::new(record), key, admitted })
            }
            5 => stop(None, None),
            6 => ask(Request::Commit { message: "m".into() }),
            7 => ask(Request::SetKeep { keep: self.ids.is_multiple_of(2) }),
            _ => {
                // As a request's prelude does: only what is recorded is asked for.
                let number = SnapshotNumber(u32::from(which - 7));
                let id = snapshot_id(A, number);
                if !self.records.contains_key(&RecordKey { kind: Kind::Snapshot, id }) {
                    return;
                }
                if which.is_multiple_of(2) {
                    drop_snapshot(number.0, true)
                } else {
                    restore(Some(number.0), false)
                }
            }
        };
        self.feed(input);
        self.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Whatever is asked, fails and is killed in whatever order: no batch conflicts, nothing starts in a claimed workspace,
    /// nothing is removed before its save is recorded, the work is never lost, and in a healed world all comes to rest, and
    /// a removal that failed is ended when it is asked for again.
    #[test]
    fn work_outlives_every_removal_restoration_and_restart(
        steps in proptest::collection::vec((0..4_u8, any::<u8>(), any::<bool>()), 1..60)
    ) {
        let mut world = SmallWorld::new();
        for (kind, which, well) in steps {
            match kind {
                0 | 1 => world.ask(which % 12),
                2 => world.go_on(usize::from(which), well || which % 3 == 0),
                _ => if which.is_multiple_of(2) { world.restart(well) } else { world.go_on(0, well) },
            }
        }
        for _ in 0..1_000 {
            world.go_on(0, true);
        }
        prop_assert!(world.under_way.is_empty(), "{:?}", world.under_way);
        let stored = world.stored();
        prop_assert!(world.state.is_idle(), "{:?}", world.state);
        match stored.status {
            AttemptStatus::Removed => prop_assert!(world.spot != Spot::Place),
            AttemptStatus::Held | AttemptStatus::Finished => {
                prop_assert_eq!(world.spot, Spot::Place);
                prop_assert_eq!(stored.claim, None);
            }
            other => prop_assert!(false, "it rests as {:?}", other),
        }
        if stored.half_removed.is_some() {
            prop_assert_eq!(stored.status, AttemptStatus::Removed);
            world.feed(remove(false));
            for _ in 0..100 {
                world.go_on(0, true);
            }
            let stored = world.stored();
            prop_assert_eq!((stored.status, &stored.half_removed), (AttemptStatus::Removed, &None));
            prop_assert_eq!(world.spot, Spot::Nowhere);
        }
    }
}
