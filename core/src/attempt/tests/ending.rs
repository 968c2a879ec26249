//! A chain that does not end well: what it left is saved where it is before the chain is finalised.

use super::*;
use crate::snapshot::SnapshotRecord;
use crate::vcs_worktree::{BranchFate, SaveFrom, SaveRequest, Unfinished, Unsavable};

const FAILED: Reason = Reason::EndedBadly { execution: X };

/// The command failed, and what it left is being saved.
fn ending() -> Vec<Input> {
    let mut inputs = running();
    inputs.extend([exited(X, BADLY), finished(X, BADLY, "0")]);
    inputs
}

#[track_caller]
fn finalised(effects: &[Effect], reason: &Reason) -> AttemptRecord {
    let attempt = written_attempt(effects);
    assert_eq!((attempt.status, attempt.reason.as_ref()), (AttemptStatus::Held, Some(reason)));
    assert_eq!((&attempt.ending, attempt.chain), (&None, None));
    attempt
}

#[test]
fn what_it_left_is_saved_where_it_is_and_then_it_is_finalised_with_the_snapshot() {
    let (state, effects) = check(ending(), &["+", "Save"]);
    let recorded = written_attempt(&effects);
    assert_eq!((recorded.status, recorded.ending), (AttemptStatus::Committing, Some(FAILED)));
    let Some(Effect::Begin(Operation::Save { request, .. })) = effects.last() else {
        panic!("{effects:?}");
    };
    let expected = SaveRequest {
        from: SaveFrom::Place,
        unsavable: Unsavable::Discard,
        unfinished: Unfinished::Save,
        branch: BranchFate::Stays,
        ..SaveRequest::before_removal(SnapshotNumber(1))
    };
    assert_eq!(*request, expected);
    let (state, effects) = feed(state, [saved(Some(1))]);
    assert_eq!(words(&effects), ["+", "ReleaseSlot"]);
    assert_eq!(finalised(&effects, &FAILED).last_snapshot, 1);
    let records = writes(&effects);
    assert_eq!(records.len(), 2, "attempt and snapshot in one batch");
    let kept = SnapshotRecord::decode(&records[1]).unwrap();
    assert_eq!((kept.attempt, kept.cause), (A, SnapshotCause::EndedBadly));
    assert!(state.is_idle());
}

#[test]
fn a_commit_that_failed_says_so_on_its_snapshot() {
    let mut inputs = committing();
    inputs.extend([prepared(GIT, 2), launched(GIT), exited(GIT, BADLY), finished(GIT, BADLY, "0")]);
    inputs.push(saved(Some(1)));
    let (_, effects) = feed(ready(), inputs);
    let kept = SnapshotRecord::decode(&writes(&effects)[1]).unwrap();
    assert_eq!(kept.cause, SnapshotCause::CommitFailed);
}

#[test]
fn what_cannot_be_saved_changes_nothing_about_the_end_and_is_said() {
    let refused = || fact(Fact::SaveRefused { refusal: failed("no space") });
    let (_, effects) = feed(feed(ready(), ending()).0, [refused()]);
    let attempt = finalised(&effects, &FAILED);
    assert_eq!((attempt.not_saved.as_deref(), attempt.last_snapshot), (Some("no space"), 0));
    let (_, effects) = feed(feed(ready(), ending()).0, [fact(Fact::NothingToSave)]);
    assert_eq!(finalised(&effects, &FAILED).not_saved, None);
}

#[test]
fn the_next_host_goes_on_with_the_save() {
    let (state, _) = feed(ready(), ending());
    let (state, effects) = recover(&state);
    assert_eq!(words(&effects).last().unwrap(), "Save");
    let (_, effects) = feed(state, [saved(None)]);
    finalised(&effects, &FAILED);
}

#[test]
fn what_never_began_to_run_left_nothing_to_save() {
    let missing = Launched::NotStarted {
        reason: NotStarted::ProgramNotFound,
        message: "there is no program x".into(),
    };
    let launched = fact(Fact::Launched { execution: X, launched: missing });
    let end = Outcome::NotStarted { reason: NotStarted::ProgramNotFound };
    let inputs = [run(), prepared(X, 1), launched, exited(X, end), finished(X, end, "0")];
    let (_, effects) = feed(ready(), inputs);
    assert!(!words(&effects).contains(&"Save".to_owned()), "{effects:?}");
}

#[test]
fn nothing_of_a_directory_is_saved() {
    let directory = Workspace::Directory { path: Locator::new("/d") };
    let state = State::new(attempt(directory, AttemptStatus::Ready));
    let (_, effects) = feed(state, ending());
    assert_eq!(words(&effects), ["+", "ReleaseSlot"]);
}

#[test]
fn a_forced_removal_waits_for_the_save_and_saves_once_more_from_aside() {
    let (state, effects) = feed(feed(ready(), ending()).0, [remove(false)]);
    assert_eq!(words(&effects), ["Refused"]);
    let (state, effects) = feed(state, [remove(true)]);
    assert_eq!(words(&effects), ["+"]);
    let (again, effects) = recover(&state);
    assert_eq!(words(&effects).last().unwrap(), "Save", "{effects:?}");
    assert_eq!(again.attempt().ending, None, "the removal saves what it left");
    let (state, effects) = feed(state, [saved(Some(1))]);
    assert_eq!(words(&effects), ["+", "ReleaseSlot", "Save"]);
    let (_, effects) = feed(state, [saved(Some(2)), fact(Fact::WorktreeRemoved)]);
    let removed = written_attempt(&effects);
    assert_eq!((removed.status, removed.last_snapshot), (AttemptStatus::Removed, 2));
    assert_eq!(removed.removed_from, Some(AttemptStatus::Held));
}

#[test]
fn a_chain_that_started_is_finalised_at_a_time_and_a_commit_alone_is_no_chain() {
    let (state, effects) = feed(ready(), running());
    assert_eq!(written_attempt(&effects).chain_started_at, Some(Timestamp(5)));
    let clean = || fact(Fact::StepPlanned { nothing: Some(oid("0")), step: None });
    let ended = [exited(X, WELL), finished(X, WELL, "0"), clean()];
    let (state, effects) = feed(state, ended);
    let attempt = written_attempt(&effects);
    assert_eq!((attempt.chain_started_at, attempt.finalised_at), (None, Some(Timestamp(12))));
    let (_, effects) = feed(state, [ask(Request::Commit { message: "m".into() }), clean()]);
    assert_eq!(written_attempt(&effects).finalised_at, Some(Timestamp(12)));
}

#[test]
fn a_removal_that_is_refused_says_what_still_goes_on() {
    let said = |inputs: Vec<Input>| {
        let (_, effects) = feed(feed(ready(), inputs).0, [remove(false)]);
        let [Effect::Reply { reply: Reply::Refused(refusal), .. }] = effects.as_slice() else {
            panic!("{effects:?}");
        };
        refusal.message.clone()
    };
    assert_eq!(said(running()), format!("execution {} has not ended", X.short()));
    // The one whose work it is has ended.
    assert_eq!(said(committing()), format!("execution {} has not ended", GIT.short()));
    let mut planning = running();
    planning.extend([exited(X, WELL), finished(X, WELL, "0")]);
    assert_eq!(said(planning), "its work is being committed");
    assert!(said(ending()).contains("is being saved"));
    let mut failed = committing();
    failed.extend([prepared(GIT, 2), launched(GIT), exited(GIT, BADLY), finished(GIT, BADLY, "0")]);
    assert!(said(failed).contains("is being saved"));
}

#[test]
fn what_ran_while_no_host_was_there_is_saved_and_finalised_like_any_other() {
    let (state, _) = feed(ready(), [run(), prepared(X, 1)]);
    let (state, _) = recover(&state);
    let ended = Adoption::Ended(final_report(BADLY));
    let inputs = [fact(Fact::Adopted { execution: X, adoption: ended }), finished(X, BADLY, "0")];
    let (state, effects) = feed(state, inputs);
    assert_eq!(words(&effects), ["+", "Save"]);
    let (_, effects) = feed(state, [saved(Some(1))]);
    assert!(finalised(&effects, &FAILED).finalised_at.is_some());
}
