//! What cleanup decides, row by row.

use super::*;
use crate::id::{Epoch, HostId};
use crate::record::{CommitPolicy, NewAttempt, Removing};
use crate::snapshot::{Snapshot, SnapshotCause};
use crate::vcs_worktree::Removed;
use crate::workspace::{Oid, Workspace};

const A: AttemptId = AttemptId(Uuid::from_u128(0xa));
const NODE: NodeId = NodeId(Uuid::from_u128(0x7));
const HOUR: u64 = 3_600_000;
const POLICY: Policy =
    Policy { idle_ms: Some(72 * HOUR), orphan_ms: Some(24 * HOUR), snapshot_ms: Some(720 * HOUR) };

fn worktree() -> Worktree {
    Worktree {
        repo: Locator::new("/r/.git"),
        path: Locator::new("/w"),
        branch: "b".into(),
        base: "main".into(),
        base_oid: Oid("0".into()),
        target: None,
        copy: None,
    }
}

fn record(status: AttemptStatus) -> AttemptRecord {
    let mut record = AttemptRecord::new(NewAttempt {
        id: A,
        title: String::new(),
        owner: None,
        workspace: Workspace::Worktree(worktree()),
        commit: CommitPolicy::Commit,
        node: NODE,
        host: HostId(Uuid::nil()),
        epoch: Epoch(1),
        at: Timestamp(1),
    });
    record.status = status;
    record
}

fn found(state: FoundState) -> Found {
    Found { path: Locator::new("/w"), attempt: Some(A), worktree: Some(worktree()), state }
}

/// A data directory with one recorded worktree that is there, watched once.
fn facts(status: AttemptStatus) -> Facts {
    let mark = Uuid::from_u128(1);
    let subject =
        Subject { record: record(status), revision: Revision(3), busy: false, mark, landed: false };
    Facts {
        node: NODE,
        watched: Watched { ms: 0, passes: 1 },
        at: Timestamp(5),
        policy: POLICY,
        found: vec![found(FoundState::Whole)],
        attempts: BTreeMap::from([(A, subject)]),
        unreadable: BTreeSet::new(),
        records_are_damaged: false,
        snapshots: Vec::new(),
        observed: BTreeMap::new(),
    }
}

/// The same without the record.
fn orphaned() -> Facts {
    Facts { attempts: BTreeMap::new(), ..facts(AttemptStatus::Finished) }
}

fn subject(facts: &mut Facts) -> &mut Subject {
    facts.attempts.get_mut(&A).unwrap()
}

/// Takes over what a plan observes, as the store does.
fn remember(facts: &mut Facts, plan: &Plan) {
    for observation in &plan.observe {
        facts.observed.insert(observation.what.id(), observation.clone());
    }
    facts.observed.retain(|id, _| !plan.forget.contains(id));
}

/// Decides, and lets `hours` go by before the next pass.
fn pass(facts: &mut Facts, hours: u64) -> Plan {
    let plan = decide(facts);
    remember(facts, &plan);
    facts.watched = facts.watched.and_looked_again(hours * HOUR);
    plan
}

#[track_caller]
fn check(facts: &Facts, action: Action, said: &str) {
    let plan = decide(facts);
    let [decision] = plan.decisions.as_slice() else { panic!("{plan:?}") };
    assert_eq!(decision.action, action, "{}", decision.reason);
    assert!(decision.reason.contains(said), "{}", decision.reason);
    assert_eq!(decision.act.is_some(), action != Action::Keep);
}

#[test]
fn an_idle_worktree_is_removed_after_its_grace_and_says_how_much_is_left() {
    let mut facts = facts(AttemptStatus::Finished);
    check(&facts, Action::Keep, "after 3 d more");
    pass(&mut facts, 71);
    check(&facts, Action::Keep, "after 1 h more");
    pass(&mut facts, 1);
    check(&facts, Action::RemoveIdle, "for 3 d");
    assert_eq!(decide(&facts).decisions[0].act, Some(Act::RemoveIdle(Revision(3))));
}

#[test]
fn of_a_worktree_whose_work_is_merged_that_is_said() {
    let mut facts = facts(AttemptStatus::Finished);
    subject(&mut facts).landed = true;
    check(&facts, Action::Keep, "its work is merged; it is removed after 3 d more");
    pass(&mut facts, 72);
    check(&facts, Action::RemoveIdle, "its work is merged; nothing has happened");
}

#[test]
fn whatever_happens_in_a_worktree_begins_its_time_anew() {
    let mut facts = facts(AttemptStatus::Held);
    pass(&mut facts, 100);
    subject(&mut facts).mark = Uuid::from_u128(2);
    check(&facts, Action::Keep, "after 3 d more");
    pass(&mut facts, 72);
    check(&facts, Action::RemoveIdle, "nothing has happened");
}

#[test]
fn one_pass_is_not_enough_however_short_the_grace() {
    let mut facts = facts(AttemptStatus::Finished);
    facts.policy.idle_ms = Some(0);
    check(&facts, Action::Keep, "more");
    pass(&mut facts, 0);
    check(&facts, Action::RemoveIdle, "");
    let mut facts = Facts { policy: facts.policy, ..orphaned() };
    facts.policy.orphan_ms = Some(0);
    check(&facts, Action::Keep, "more");
    pass(&mut facts, 0);
    check(&facts, Action::RemoveOrphan, "");
}

#[test]
fn a_worktree_in_use_is_kept_and_not_even_watched() {
    for (status, said) in [
        (AttemptStatus::Creating, "being made"),
        (AttemptStatus::Running, "runs"),
        (AttemptStatus::Committing, "committed"),
        (AttemptStatus::Parked, "waits"),
        (AttemptStatus::Removing, "being removed"),
        (AttemptStatus::Removed, "was removed"),
    ] {
        let mut facts = facts(status);
        pass(&mut facts, 1_000);
        check(&facts, Action::Keep, said);
        assert!(facts.observed.is_empty(), "{status:?}");
    }
    let mut busy = facts(AttemptStatus::Finished);
    pass(&mut busy, 1_000);
    subject(&mut busy).busy = true;
    check(&busy, Action::Keep, "has not ended");
    assert_eq!(decide(&busy).forget.len(), 1, "its time begins anew afterwards");
}

#[test]
fn what_is_to_stay_stays() {
    let mut facts = facts(AttemptStatus::Finished);
    pass(&mut facts, 1_000);
    subject(&mut facts).record.keep = true;
    check(&facts, Action::Keep, "however long");
    subject(&mut facts).record.keep = false;
    facts.policy.idle_ms = None;
    check(&facts, Action::Keep, "switched off");
}

#[test]
fn another_machines_worktree_is_kept() {
    let mut facts = facts(AttemptStatus::Finished);
    pass(&mut facts, 1_000);
    facts.node = NodeId(Uuid::from_u128(8));
    check(&facts, Action::Keep, "another machine");
}

#[test]
fn an_orphan_is_removed_after_its_grace() {
    for state in
        [FoundState::Whole, FoundState::Missing, FoundState::Creating, FoundState::Removing]
    {
        let mut facts = Facts { found: vec![found(state)], ..orphaned() };
        check(&facts, Action::Keep, "after 1 d more");
        pass(&mut facts, 24);
        check(&facts, Action::RemoveOrphan, "no record");
        let act = Some(Act::RemoveOrphan(Box::new(worktree())));
        assert_eq!(decide(&facts).decisions[0].act, act);
    }
}

#[test]
fn what_may_have_a_record_is_no_orphan() {
    let mut damaged = orphaned();
    pass(&mut damaged, 1_000);
    let unreadable = Facts { unreadable: BTreeSet::from([A]), ..damaged.clone() };
    check(&unreadable, Action::Keep, "record is damaged");
    damaged.records_are_damaged = true;
    check(&damaged, Action::Keep, "may have had one");
    damaged.records_are_damaged = false;
    damaged.policy.orphan_ms = None;
    check(&damaged, Action::Keep, "switched off");
    damaged.policy = POLICY;
    damaged.found[0].worktree = None;
    check(&damaged, Action::Keep, "does not say enough");
}

#[test]
fn what_is_not_ours_is_kept_for_ever() {
    let foreign = FoundState::Foreign { detail: "no marker".into() };
    let leftover = FoundState::Leftover { detail: "a, b".into() };
    for (state, said) in [(foreign, "no marker"), (leftover, "a, b")] {
        for attempt in [None, Some(A)] {
            let thing = Found { attempt, ..found(state.clone()) };
            let mut facts = Facts { found: vec![thing], ..orphaned() };
            pass(&mut facts, 10_000);
            check(&facts, Action::Keep, said);
            assert!(facts.observed.is_empty());
        }
    }
}

#[test]
fn a_worktree_that_somebody_deleted_is_marked_once() {
    for state in [Some(FoundState::Missing), None] {
        let mut facts = facts(AttemptStatus::Held);
        facts.found = state.map(found).into_iter().collect();
        check(&facts, Action::MarkMissing, "somebody deleted it");
        subject(&mut facts).record.missing = true;
        pass(&mut facts, 1_000);
        check(&facts, Action::Keep, "somebody deleted it");
        facts.found = vec![found(FoundState::Whole)];
        check(&facts, Action::MarkFound, "there again");
    }
    let failed = Facts { found: Vec::new(), ..facts(AttemptStatus::Failed) };
    check(&failed, Action::Keep, "never made");
}

#[test]
fn a_worktree_that_was_moved_is_kept() {
    let mut facts = facts(AttemptStatus::Finished);
    pass(&mut facts, 1_000);
    facts.found[0].path = Locator::new("/elsewhere");
    check(&facts, Action::Keep, "not where");
    facts.found = vec![found(FoundState::Foreign { detail: "it was moved to /x".into() })];
    check(&facts, Action::Keep, "it was moved to /x");
}

#[test]
fn what_stands_in_its_place_is_told_once_and_is_not_taken_for_nothing() {
    let detail = "it is no worktree".to_owned();
    let stranger = Found { attempt: None, worktree: None, ..found(FoundState::Foreign { detail }) };
    let mut facts = Facts { found: vec![stranger], ..facts(AttemptStatus::Finished) };
    check(&facts, Action::Keep, "not the recorded worktree: it is no worktree");
    assert_eq!(decide(&facts).decisions[0].attempt, Some(A));
    // Nobody expects one there.
    subject(&mut facts).record.status = AttemptStatus::Failed;
    check(&facts, Action::Keep, "it is not ours");
    // It is another's place.
    subject(&mut facts).record.status = AttemptStatus::Finished;
    facts.found[0].path = Locator::new("/elsewhere");
    let actions: Vec<_> = decide(&facts).decisions.iter().map(|one| one.action).collect();
    assert_eq!(actions, [Action::Keep, Action::MarkMissing]);
}

#[test]
fn a_snapshot_expires_after_its_worktree_was_removed() {
    let snapshot = Snapshot {
        number: SnapshotNumber(4),
        head: Oid("0".into()),
        branch: None,
        entries: 0,
        bytes: 0,
        deleted: 0,
        commits: 0,
        archive: Locator::new("/s"),
        archive_bytes: 0,
        sha256: String::new(),
        left_out: Vec::new(),
        more_left_out: 0,
        left_out_bytes: 0,
    };
    let (cause, created_at) = (SnapshotCause::Removal, Timestamp(1));
    let kept = SnapshotRecord { attempt: A, owner: None, cause, snapshot, created_at };
    let mut facts = facts(AttemptStatus::Removed);
    facts.found.clear();
    facts.snapshots = vec![kept];
    subject(&mut facts).record.removed_at = Some(Timestamp(9));
    check(&facts, Action::Keep, "30 d more");
    pass(&mut facts, 719);
    check(&facts, Action::Keep, "1 h more");
    pass(&mut facts, 1);
    check(&facts, Action::ExpireSnapshot, "30 d ago");
    let act = Some(Act::RemoveSnapshot(SnapshotNumber(4)));
    assert_eq!(decide(&facts).decisions[0].act, act);
    // Removed a second time: the time begins anew.
    subject(&mut facts).record.removed_at = Some(Timestamp(10));
    check(&facts, Action::Keep, "30 d more");
    // What its worktree is made again from stays until its work is merged.
    pass(&mut facts, 720);
    let snapshot = Some(SnapshotNumber(4));
    let from = Removed { head: Oid("0".into()), branch: None, snapshot };
    subject(&mut facts).record.removed = Some(from);
    check(&facts, Action::Keep, "not merged");
    subject(&mut facts).record.merged_at = Some(Timestamp(8));
    check(&facts, Action::ExpireSnapshot, "30 d ago");
    subject(&mut facts).record.half_removed = Some(Removing::SAFE);
    check(&facts, Action::Keep, "has not ended");
    subject(&mut facts).record.half_removed = None;
    subject(&mut facts).record.status = AttemptStatus::Creating;
    check(&facts, Action::Keep, "has a worktree");
    facts.policy.snapshot_ms = None;
    check(&facts, Action::Keep, "switched off");
    facts.policy = POLICY;
    facts.attempts.clear();
    check(&facts, Action::Keep, "cannot be read");
}

#[test]
fn what_is_gone_is_forgotten_and_the_clock_is_not() {
    let mut facts = orphaned();
    let (what, since) = (Observed::Clock, facts.watched);
    let clock = Observation { what, mark: Uuid::nil(), since, at: Timestamp(1) };
    facts.observed.insert(Observed::Clock.id(), clock);
    pass(&mut facts, 1);
    assert_eq!(facts.observed.len(), 2);
    facts.found.clear();
    pass(&mut facts, 1);
    assert_eq!(facts.observed.keys().collect::<Vec<_>>(), [&Observed::Clock.id()]);
}

#[test]
fn observations_survive_their_records() {
    for what in [
        Observed::Clock,
        Observed::Idle { attempt: A },
        Observed::Orphan { attempt: A, path: Locator::new(*b"/\xff") },
        Observed::Snapshot { attempt: A, number: SnapshotNumber(1) },
    ] {
        let since = Watched { ms: 1, passes: 2 };
        let observation = Observation { what, mark: Uuid::from_u128(3), since, at: Timestamp(4) };
        assert_eq!(Observation::decode(&observation.encode()).unwrap(), observation);
    }
}

#[test]
fn spans_are_printed_to_the_minute() {
    for (ms, said) in
        [(0, "0 min"), (1, "1 min"), (HOUR, "1 h"), (25 * HOUR + 60_000, "1 d 1 h 1 min")]
    {
        assert_eq!(words(ms), said);
    }
}

/// It counts as removed, is saved, and its directory is still there: nobody else would end that.
#[test]
fn a_removal_that_was_interrupted_is_ended() {
    let mut facts = facts(AttemptStatus::Removed);
    facts.found = vec![found(FoundState::Removing)];
    let plan = decide(&facts);
    let [decision] = plan.decisions.as_slice() else { panic!("{plan:?}") };
    let act = Some(Act::EndRemoval(Box::new(worktree())));
    assert_eq!((decision.action, &decision.act), (Action::EndRemoval, &act));
    let failed = &mut subject(&mut facts).record;
    failed.half_removed = Some(Removing::SAFE);
    failed.reason = Some(Reason::RemoveFailed { message: "it is immutable".to_owned() });
    check(&facts, Action::EndRemoval, "its removal failed: it is immutable");
    facts.node = NodeId(Uuid::from_u128(8));
    assert_eq!(decide(&facts).decisions[0].act, None, "another machine's");
    for state in [FoundState::Whole, FoundState::Creating] {
        let mut facts = self::facts(AttemptStatus::Removed);
        facts.found = vec![found(state)];
        assert_eq!(decide(&facts).decisions[0].act, None);
    }
    facts.node = NODE;
    facts.attempts.get_mut(&A).unwrap().record.status = AttemptStatus::Removing;
    assert_eq!(decide(&facts).decisions[0].act, None, "its attempt does that");
}
