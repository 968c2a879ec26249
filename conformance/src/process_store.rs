//! The suite of [`ProcessStore`].

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::{join_all, poll_immediate};
use uuid::Uuid;
use windlass_core::id::{Epoch, HostId, NodeId};
use windlass_core::process_store::{
    Change, ChangeNumber, Cursor, Expect, Kind, Lease, ProcessStore, ProcessStoreError,
    ProcessStoreExt as _, Query, Record, RecordKey, Revision, Stored, Write,
};
use windlass_core::time::Timestamp;

/// Where a store keeps its records.
#[async_trait]
pub trait ProcessStorePlace: Default + Send + Sync {
    /// Opens the store. Opening again is a restart, whether or not what was opened before is dropped.
    async fn open(&self) -> Arc<dyn ProcessStore>;
}

/// Expands the suite over places: `process_store_suite! { memory => Memory }`.
#[macro_export]
macro_rules! process_store_suite {
    ($($places:tt)*) => {
        $crate::expand!(process_store { $($places)* } [
            what_is_put_is_read_back,
            a_missing_record_is_none,
            creating_twice_conflicts,
            a_put_needs_the_current_revision,
            a_put_of_an_absent_record_conflicts,
            revisions_count_from_one,
            a_deleted_record_is_gone_and_can_be_created_again,
            a_delete_needs_the_current_revision,
            a_batch_is_applied_as_a_whole,
            one_refused_write_refuses_the_batch,
            invalid_batches_are_refused,
            every_field_of_a_record_can_change,
            large_bodies_are_kept,
            any_owner_is_kept,
            an_acknowledged_commit_survives_a_restart,
            acquiring_raises_the_epoch,
            nodes_have_epochs_of_their_own,
            a_superseded_lease_writes_nothing,
            a_lease_lasts_through_a_restart_until_it_is_superseded,
            a_lease_that_nobody_was_given_writes_nothing,
            change_numbers_are_consecutive,
            a_refusal_consumes_no_change_number,
            lists_are_newest_first,
            equal_times_are_ordered_by_id,
            pages_have_neither_hole_nor_repeat,
            a_page_that_holds_the_rest_is_the_last,
            lists_select_by_every_field,
            several_states_are_merged_in_order,
            ids_are_found_by_their_end,
            queries_out_of_range_are_refused,
            a_list_follows_updates_and_deletes,
            changes_tell_what_was_written,
            changes_never_cut_a_batch,
            changes_after_the_last_are_none,
            concurrent_commits_are_applied_exactly_once,
            concurrent_creators_have_one_winner,
            refusals_do_not_affect_neighbours,
            what_is_visible_is_a_prefix,
            a_dropped_commit_is_all_or_nothing,
            a_healthy_store_passes_its_check,
        ]);
    };
}

/// Makes an id whose time part is `time` and whose end is `end`.
fn id(time: u64, end: u64) -> Uuid {
    Uuid::from_u64_pair(time, end)
}

fn key(n: u64) -> RecordKey {
    RecordKey { kind: Kind::Execution, id: id(n, n) }
}

fn record(n: u64) -> Record {
    Record {
        key: key(n),
        parent: Some(id(900, n % 3)),
        owner: Some("somebody".to_owned()),
        state: "queued".to_owned(),
        at: Timestamp(1_000 + n),
        body: format!(r#"{{"v":1,"n":{n}}}"#),
    }
}

fn put(record: Record, expect: Expect) -> Write {
    Write::Put { record, expect }
}

fn create(record: Record) -> Write {
    put(record, Expect::Absent)
}

async fn acquire(store: &dyn ProcessStore) -> Lease {
    store.acquire(HostId(id(1, 1)), NodeId(id(2, 2))).await.expect("a lease")
}

/// Commits one batch and insists on it.
async fn commit(store: &dyn ProcessStore, lease: Lease, batch: Vec<Write>) -> ChangeNumber {
    store.commit(batch, lease).await.expect("a commit")
}

/// Opens the store and creates these records, all in one batch.
async fn filled(
    place: &impl ProcessStorePlace,
    records: impl IntoIterator<Item = Record>,
) -> (Arc<dyn ProcessStore>, Lease) {
    let store = place.open().await;
    let lease = acquire(&*store).await;
    commit(&*store, lease, records.into_iter().map(create).collect()).await;
    (store, lease)
}

fn newest(limit: u32) -> Query {
    Query::newest(Kind::Execution, limit)
}

/// Lists the whole of what a query selects, in pages of its limit.
async fn pages(store: &dyn ProcessStore, mut query: Query) -> Vec<Vec<RecordKey>> {
    let mut pages = Vec::new();
    loop {
        let page = store.list(query.clone()).await.expect("a page");
        pages.push(page.records.iter().map(|stored| stored.record.key).collect());
        match page.next {
            Some(next) => query.after = Some(next),
            None => return pages,
        }
    }
}

async fn listed(store: &dyn ProcessStore, query: Query) -> Vec<RecordKey> {
    pages(store, query).await.concat()
}

async fn changes(store: &dyn ProcessStore, after: u64, limit: u32) -> Vec<Change> {
    store.changes(ChangeNumber(after), limit).await.expect("changes").changes
}

#[track_caller]
fn assert_conflict(answer: Result<ChangeNumber, ProcessStoreError>, wanted: Option<Revision>) {
    assert!(
        matches!(answer, Err(ProcessStoreError::Conflict { found, .. }) if found == wanted),
        "{answer:?}"
    );
}

/// Nothing is lost or added.
pub async fn what_is_put_is_read_back(place: impl ProcessStorePlace) {
    let bare = Record { parent: None, owner: None, at: Timestamp(0), ..record(2) };
    let (store, _) = filled(&place, [record(1), bare.clone()]).await;
    let stored = |record| Stored { record, revision: Revision(1), change: ChangeNumber(1) };
    assert_eq!(store.get(key(1)).await.expect("a read"), Some(stored(record(1))));
    assert_eq!(store.require(key(2)).await.expect("a read"), stored(bare.clone()));
    let page = store.list(newest(10)).await.expect("a page");
    assert_eq!(page.records, [stored(record(1)), stored(bare)]);
}

/// Kind and id together are the name.
pub async fn a_missing_record_is_none(place: impl ProcessStorePlace) {
    let (store, _) = filled(&place, [record(1)]).await;
    assert_eq!(store.get(key(2)).await.expect("a read"), None);
    let other = RecordKey { kind: Kind::Attempt, ..key(1) };
    assert_eq!(store.get(other).await.expect("a read"), None);
    assert!(store.list(Query::newest(Kind::Attempt, 10)).await.expect("a page").records.is_empty());
}

/// The second creator learns that there is one.
pub async fn creating_twice_conflicts(place: impl ProcessStorePlace) {
    let (store, lease) = filled(&place, [record(1)]).await;
    let other = Record { body: "{}".to_owned(), ..record(1) };
    assert_conflict(store.commit(vec![create(other)], lease).await, Some(Revision(1)));
    assert_eq!(store.require(key(1)).await.expect("a read").record, record(1));
}

/// Compare and set.
pub async fn a_put_needs_the_current_revision(place: impl ProcessStorePlace) {
    let (store, lease) = filled(&place, [record(1)]).await;
    for wrong in [0, 2, 99] {
        let write = put(record(1), Expect::At(Revision(wrong)));
        assert_conflict(store.commit(vec![write], lease).await, Some(Revision(1)));
    }
    commit(&*store, lease, vec![put(record(1), Expect::At(Revision(1)))]).await;
    let stale = put(record(1), Expect::At(Revision(1)));
    assert_conflict(store.commit(vec![stale], lease).await, Some(Revision(2)));
}

/// What is not there is at no revision.
pub async fn a_put_of_an_absent_record_conflicts(place: impl ProcessStorePlace) {
    let (store, lease) = filled(&place, [record(1)]).await;
    for revision in [0, 1] {
        let write = put(record(2), Expect::At(Revision(revision)));
        assert_conflict(store.commit(vec![write], lease).await, None);
    }
    assert_eq!(store.get(key(2)).await.expect("a read"), None);
}

/// One more with each put.
pub async fn revisions_count_from_one(place: impl ProcessStorePlace) {
    let (store, lease) = filled(&place, [record(1)]).await;
    for revision in 1..5 {
        let stored = store.require(key(1)).await.expect("a read");
        assert_eq!((stored.revision, stored.change), (Revision(revision), ChangeNumber(revision)));
        let write = put(record(1), Expect::At(Revision(revision)));
        assert_eq!(commit(&*store, lease, vec![write]).await, ChangeNumber(revision + 1));
    }
}

/// A name can be used again.
pub async fn a_deleted_record_is_gone_and_can_be_created_again(place: impl ProcessStorePlace) {
    let (store, lease) = filled(&place, [record(1), record(2)]).await;
    commit(&*store, lease, vec![put(record(1), Expect::At(Revision(1)))]).await;
    let delete = Write::Delete { key: key(1), expect: Revision(2) };
    commit(&*store, lease, vec![delete]).await;
    assert_eq!(store.get(key(1)).await.expect("a read"), None);
    assert_eq!(listed(&*store, newest(10)).await, [key(2)]);
    commit(&*store, lease, vec![create(record(1))]).await;
    assert_eq!(store.require(key(1)).await.expect("a read").revision, Revision(1));
}

/// Nobody deletes what he has not seen.
pub async fn a_delete_needs_the_current_revision(place: impl ProcessStorePlace) {
    let (store, lease) = filled(&place, [record(1)]).await;
    let delete = |n, revision| vec![Write::Delete { key: key(n), expect: Revision(revision) }];
    assert_conflict(store.commit(delete(1, 2), lease).await, Some(Revision(1)));
    assert_conflict(store.commit(delete(2, 1), lease).await, None);
    assert_eq!(store.require(key(1)).await.expect("a read").record, record(1));
}

/// Creations, changes and deletions in one.
pub async fn a_batch_is_applied_as_a_whole(place: impl ProcessStorePlace) {
    let (store, lease) = filled(&place, [record(1), record(2)]).await;
    let changed = Record { state: "running".to_owned(), ..record(2) };
    let attempt = Record { key: RecordKey { kind: Kind::Attempt, ..key(2) }, ..record(3) };
    let batch = vec![
        Write::Delete { key: key(1), expect: Revision(1) },
        put(changed.clone(), Expect::At(Revision(1))),
        create(attempt.clone()),
        create(record(4)),
    ];
    let number = commit(&*store, lease, batch).await;
    assert_eq!(store.get(key(1)).await.expect("a read"), None);
    for (record, revision) in [(changed, 2), (attempt, 1), (record(4), 1)] {
        let stored = Stored { record, revision: Revision(revision), change: number };
        assert_eq!(store.require(stored.record.key).await.expect("a read"), stored);
    }
}

/// All or nothing, wherever the refused write stands.
pub async fn one_refused_write_refuses_the_batch(place: impl ProcessStorePlace) {
    let (store, lease) = filled(&place, [record(1)]).await;
    let good = || [create(record(2)), Write::Delete { key: key(1), expect: Revision(1) }];
    for position in 0..=2 {
        let mut batch = Vec::from(good());
        batch.insert(position, put(record(3), Expect::At(Revision(1))));
        assert_conflict(store.commit(batch, lease).await, None);
        assert_eq!(listed(&*store, newest(10)).await, [key(1)]);
    }
    assert_eq!(commit(&*store, lease, Vec::from(good())).await, ChangeNumber(2));
}

/// What breaks the contract is refused before anything is looked at.
pub async fn invalid_batches_are_refused(place: impl ProcessStorePlace) {
    let (store, lease) = filled(&place, [record(1)]).await;
    let state = |state: &str| vec![create(Record { state: state.to_owned(), ..record(2) })];
    let batches = [
        vec![],
        vec![create(record(2)), create(record(3)), create(record(2))],
        vec![create(record(2)), Write::Delete { key: key(2), expect: Revision(1) }],
        state(""),
        state("Running"),
        state("two words"),
        state("läuft"),
        state(&"x".repeat(33)),
        vec![create(Record { at: Timestamp(u64::MAX), ..record(2) })],
    ];
    for batch in batches {
        let answer = store.commit(batch.clone(), lease).await;
        assert!(matches!(answer, Err(ProcessStoreError::Invalid { .. })), "{batch:?} {answer:?}");
    }
    assert_eq!(listed(&*store, newest(10)).await, [key(1)]);
    commit(&*store, lease, state(&"x".repeat(32))).await;
}

/// No field is bound to the first version, and lists see the new one.
pub async fn every_field_of_a_record_can_change(place: impl ProcessStorePlace) {
    let (store, lease) = filled(&place, [record(1), record(2)]).await;
    let versions = [
        Record { parent: None, ..record(1) },
        Record { parent: Some(id(7, 7)), owner: None, ..record(1) },
        Record { owner: Some("another".to_owned()), state: "final".to_owned(), ..record(1) },
        Record { at: Timestamp(5_000), body: r#"{"v":2}"#.to_owned(), ..record(1) },
    ];
    for (version, revision) in versions.into_iter().zip(1..) {
        let write = put(version.clone(), Expect::At(Revision(revision)));
        commit(&*store, lease, vec![write]).await;
        assert_eq!(store.require(key(1)).await.expect("a read").record, version);
        let query = Query {
            states: vec![version.state.clone()],
            parent: version.parent,
            owner: version.owner.clone(),
            ..newest(10)
        };
        assert!(listed(&*store, query).await.contains(&key(1)), "{version:?}");
    }
    assert_eq!(listed(&*store, newest(10)).await, [key(1), key(2)]);
}

/// A body is as long as it is.
pub async fn large_bodies_are_kept(place: impl ProcessStorePlace) {
    let bodies = [0, 1, 4_000, 1 << 20].map(|length| format!(r#""{}""#, "ä".repeat(length)));
    let records =
        bodies.iter().zip(1..).map(|(body, n)| Record { body: body.clone(), ..record(n) });
    let (store, _) = filled(&place, records).await;
    for (body, n) in bodies.iter().zip(1..) {
        assert_eq!(&store.require(key(n)).await.expect("a read").record.body, body);
    }
    let page = store.list(newest(10)).await.expect("a page");
    assert!(page.records.iter().map(|stored| &stored.record.body).eq(bodies.iter().rev()));
}

/// Owners are text of any kind, and are compared as they are.
pub async fn any_owner_is_kept(place: impl ProcessStorePlace) {
    let owners =
        ["", " ", "a", "A", "ä", "a\u{308}", "🦀", "'; --", "a%", "a\nb 1 2", "ab\0c", "ab"];
    let owned = |(owner, n): (&&str, u64)| Record { owner: Some((*owner).to_owned()), ..record(n) };
    let (store, lease) = filled(&place, owners.iter().zip(1..).map(owned)).await;
    commit(&*store, lease, vec![create(Record { owner: None, ..record(99) })]).await;
    for (owner, n) in owners.iter().zip(1..) {
        let query = Query { owner: Some((*owner).to_owned()), ..newest(10) };
        let page = store.list(query).await.expect("a page");
        let found: Vec<_> = page.records.iter().map(|stored| &stored.record).collect();
        assert_eq!(found, [&owned((owner, n))], "{owner:?}");
    }
}

/// That is what the acknowledgement says.
pub async fn an_acknowledged_commit_survives_a_restart(place: impl ProcessStorePlace) {
    let (store, lease) = filled(&place, [record(1)]).await;
    let number = commit(&*store, lease, vec![put(record(1), Expect::At(Revision(1)))]).await;
    let before = store.require(key(1)).await.expect("a read");
    for _ in 0..2 {
        let again = place.open().await;
        assert_eq!(again.require(key(1)).await.expect("a read"), before);
        let page = again.changes(ChangeNumber(0), 10).await.expect("changes");
        assert_eq!((page.last, page.changes.len()), (number, 2));
    }
    drop(store);
    assert_eq!(place.open().await.require(key(1)).await.expect("a read"), before);
}

/// Each takeover is told apart, also across a restart.
pub async fn acquiring_raises_the_epoch(place: impl ProcessStorePlace) {
    let node = NodeId(id(5, 5));
    for (host, epoch) in [(1, 1), (1, 2), (2, 3)] {
        let store = place.open().await;
        let host = HostId(id(host, host));
        let lease = store.acquire(host, node).await.expect("a lease");
        assert_eq!(lease, Lease { node, host, epoch: Epoch(epoch) });
    }
}

/// Taking over one node leaves the others to their hosts.
pub async fn nodes_have_epochs_of_their_own(place: impl ProcessStorePlace) {
    let store = place.open().await;
    let host = HostId(id(1, 1));
    let here = store.acquire(host, NodeId(id(2, 1))).await.expect("a lease");
    let there = store.acquire(host, NodeId(id(2, 2))).await.expect("a lease");
    assert_eq!((here.epoch, there.epoch), (Epoch(1), Epoch(1)));
    store.acquire(host, NodeId(id(2, 2))).await.expect("a lease");
    commit(&*store, here, vec![create(record(1))]).await;
    assert!(store.commit(vec![create(record(2))], there).await.is_err());
}

#[track_caller]
fn assert_superseded(answer: Result<ChangeNumber, ProcessStoreError>, wanted: (u64, u64)) {
    assert!(
        matches!(
            answer,
            Err(ProcessStoreError::Superseded { held: Epoch(held), current: Epoch(current) })
                if (held, current) == wanted
        ),
        "{answer:?}"
    );
}

/// A host that was replaced changes nothing any more.
pub async fn a_superseded_lease_writes_nothing(place: impl ProcessStorePlace) {
    let (store, old) = filled(&place, [record(1)]).await;
    let new = acquire(&*store).await;
    let batch = vec![create(record(2)), Write::Delete { key: key(1), expect: Revision(1) }];
    assert_superseded(store.commit(batch.clone(), old).await, (1, 2));
    assert_eq!(listed(&*store, newest(10)).await, [key(1)]);
    assert_eq!(commit(&*store, new, batch).await, ChangeNumber(2));
}

/// A restart alone takes nothing from anybody; a takeover does, whoever opened when.
pub async fn a_lease_lasts_through_a_restart_until_it_is_superseded(place: impl ProcessStorePlace) {
    let (first, old) = filled(&place, [record(1)]).await;
    let second = place.open().await;
    assert_eq!(commit(&*second, old, vec![create(record(2))]).await, ChangeNumber(2));
    let new = acquire(&*second).await;
    assert_superseded(first.commit(vec![create(record(3))], old).await, (1, 2));
    assert_eq!(commit(&*first, new, vec![create(record(3))]).await, ChangeNumber(3));
    assert_superseded(place.open().await.commit(vec![create(record(4))], old).await, (1, 2));
}

/// A lease is not made up.
pub async fn a_lease_that_nobody_was_given_writes_nothing(place: impl ProcessStorePlace) {
    let store = place.open().await;
    let forged = Lease { node: NodeId(id(2, 2)), host: HostId(id(1, 1)), epoch: Epoch(1) };
    assert_superseded(store.commit(vec![create(record(1))], forged).await, (1, 0));
    let lease = acquire(&*store).await;
    let ahead = Lease { epoch: Epoch(2), ..lease };
    assert_superseded(store.commit(vec![create(record(1))], ahead).await, (2, 1));
    let another = Lease { host: HostId(id(3, 3)), ..lease };
    assert_superseded(store.commit(vec![create(record(1))], another).await, (1, 1));
    assert_eq!(listed(&*store, newest(10)).await, []);
}

/// From 1, one for each batch, however large.
pub async fn change_numbers_are_consecutive(place: impl ProcessStorePlace) {
    let store = place.open().await;
    assert_eq!(store.changes(ChangeNumber(0), 10).await.expect("changes").last, ChangeNumber(0));
    for n in 1..=4 {
        let store = place.open().await;
        let lease = acquire(&*store).await;
        let batch = (0..n).map(|m| create(record(n * 10 + m))).collect();
        assert_eq!(commit(&*store, lease, batch).await, ChangeNumber(n));
    }
}

/// Readers see no number that nothing belongs to.
pub async fn a_refusal_consumes_no_change_number(place: impl ProcessStorePlace) {
    let (store, lease) = filled(&place, [record(1)]).await;
    assert!(store.commit(vec![create(record(1))], lease).await.is_err());
    assert!(store.commit(Vec::new(), lease).await.is_err());
    let forged = Lease { epoch: Epoch(77), ..lease };
    assert!(store.commit(vec![create(record(2))], forged).await.is_err());
    assert_eq!(commit(&*store, lease, vec![create(record(2))]).await, ChangeNumber(2));
}

/// By time, not by the order of writing.
pub async fn lists_are_newest_first(place: impl ProcessStorePlace) {
    let at = |n, at| Record { at: Timestamp(at), ..record(n) };
    let (store, lease) = filled(&place, [at(1, 20), at(2, 30)]).await;
    commit(&*store, lease, vec![create(at(3, 10)), create(at(4, 0)), create(at(5, 1 << 62))]).await;
    let order = [5, 2, 1, 3, 4].map(key);
    assert_eq!(listed(&*store, newest(100)).await, order);
    assert_eq!(listed(&*store, newest(2)).await, order);
}

/// The order is total.
pub async fn equal_times_are_ordered_by_id(place: impl ProcessStorePlace) {
    let ids = [id(1, 0), id(0, u64::MAX), id(u64::MAX, 1), id(1, 1 << 63), id(0, 0), id(1, 1)];
    let records = ids.map(|id| Record {
        key: RecordKey { id, kind: Kind::Execution },
        at: Timestamp(7),
        ..record(0)
    });
    let (store, _) = filled(&place, records).await;
    let mut expected = ids;
    expected.sort_unstable_by(|a, b| b.cmp(a));
    for limit in [1, 2, 5, 100] {
        let ids: Vec<Uuid> =
            listed(&*store, newest(limit)).await.iter().map(|key| key.id).collect();
        assert_eq!(ids, expected, "in pages of {limit}");
    }
}

/// Also where a page ends between equal times.
pub async fn pages_have_neither_hole_nor_repeat(place: impl ProcessStorePlace) {
    let at = |n: u64| Record { at: Timestamp(n / 5), ..record(n) };
    let (store, _) = filled(&place, (0..53).map(at)).await;
    let everything: Vec<RecordKey> = (0..53).rev().map(key).collect();
    for limit in [1, 3, 10, 52, 53, 54, Query::MAX_LIMIT] {
        let pages = pages(&*store, newest(limit)).await;
        assert!(pages.iter().all(|page| page.len() <= limit as usize));
        assert_eq!(pages.concat(), everything, "in pages of {limit}");
    }
    let after = Cursor { at: Timestamp(3), id: id(17, 17) };
    let rest = listed(&*store, Query { after: Some(after), ..newest(4) }).await;
    assert_eq!(rest, everything[36..]);
}

/// Nobody is sent for a page that is empty.
pub async fn a_page_that_holds_the_rest_is_the_last(place: impl ProcessStorePlace) {
    let (store, _) = filled(&place, (0..10).map(record)).await;
    for limit in [10, 11, 1_000] {
        assert_eq!(store.list(newest(limit)).await.expect("a page").next, None, "{limit}");
    }
    assert_eq!(pages(&*store, newest(5)).await.len(), 2);
}

/// Each filter alone, and all together.
pub async fn lists_select_by_every_field(place: impl ProcessStorePlace) {
    let states = ["queued", "running", "final"];
    let record = |n: u64| Record {
        owner: (!n.is_multiple_of(4)).then(|| format!("owner-{}", n % 4)),
        parent: (!n.is_multiple_of(5)).then(|| id(900, n % 5)),
        state: states[(n % 3) as usize].to_owned(),
        ..record(n)
    };
    let (store, lease) = filled(&place, (0..120).map(record)).await;
    // The same fields in another kind.
    let task = |n| Record { key: RecordKey { kind: Kind::Task, ..key(n) }, ..record(n) };
    commit(&*store, lease, (0..120).map(|n| create(task(n))).collect()).await;

    let some_states = [vec![], vec!["running"], vec!["final", "queued"], vec!["none"]];
    for states in some_states {
        for owner in [None, Some("owner-1"), Some("owner-0")] {
            for parent in [None, Some(id(900, 2)), Some(id(900, 0))] {
                for suffix in [None, Some("1"), Some("0b"), Some("000b")] {
                    let query = Query {
                        states: states.iter().map(|&state| state.to_owned()).collect(),
                        owner: owner.map(str::to_owned),
                        parent,
                        id_suffix: suffix.map(str::to_owned),
                        ..newest(3)
                    };
                    let wanted = |record: &Record| {
                        (states.is_empty() || states.contains(&record.state.as_str()))
                            && (owner.is_none() || record.owner.as_deref() == owner)
                            && (parent.is_none() || record.parent == parent)
                            && suffix
                                .is_none_or(|end| record.key.id.simple().to_string().ends_with(end))
                    };
                    let expected: Vec<_> = (0..120)
                        .rev()
                        .map(record)
                        .filter(wanted)
                        .map(|record| record.key)
                        .collect();
                    assert_eq!(listed(&*store, query.clone()).await, expected, "{query:?}");
                }
            }
        }
    }
}

/// One order over all of them, however many and whether or not a state is named twice.
pub async fn several_states_are_merged_in_order(place: impl ProcessStorePlace) {
    let state = |n: u64| format!("state_{}", n % 40);
    let record = |n: u64| Record { state: state(n), at: Timestamp(n / 3), ..record(n) };
    let (store, _) = filled(&place, (0..200).map(record)).await;
    for states in [vec![3, 1, 2, 3], (0..39).collect::<Vec<_>>(), vec![41, 7]] {
        let named = |n: &u64| states.iter().any(|&other| state(other) == state(*n));
        let expected: Vec<_> = (0..200).rev().filter(named).map(key).collect();
        for limit in [1, 4, 1_000] {
            let states = states.iter().map(|&n| state(n)).collect();
            assert_eq!(listed(&*store, Query { states, ..newest(limit) }).await, expected);
        }
    }
}

/// Any number of digits, as people type them.
pub async fn ids_are_found_by_their_end(place: impl ProcessStorePlace) {
    let ends = [0x0123_4567_89ab_cdef, 0xffff_ffff_89ab_cdef, 0xffff_ffff_ffff_cdef, 0xdef, 0];
    let record = |(n, end): (u64, u64)| Record {
        key: RecordKey { kind: Kind::Execution, id: id(n, end) },
        ..record(n)
    };
    let (store, _) = filled(&place, (0..).zip(ends).map(record)).await;
    let whole = id(0, ends[0]).simple().to_string();
    for digits in 1..=32 {
        let suffix = whole[32 - digits..].to_owned();
        let expected: Vec<_> = (0..)
            .zip(ends)
            .map(|(n, end)| id(n, end))
            .filter(|id| id.simple().to_string().ends_with(&suffix))
            .collect();
        let query = Query { id_suffix: Some(suffix.clone()), ..newest(2) };
        let found: BTreeSet<Uuid> =
            listed(&*store, query).await.into_iter().map(|key| key.id).collect();
        assert_eq!(found, expected.into_iter().collect(), "{suffix}");
    }
}

/// Neither nothing nor everything is a page, and an end is made of digits.
pub async fn queries_out_of_range_are_refused(place: impl ProcessStorePlace) {
    let (store, _) = filled(&place, [record(1)]).await;
    let suffix = |suffix: &str| Query { id_suffix: Some(suffix.to_owned()), ..newest(1) };
    let long = "0".repeat(33);
    let queries = [
        newest(0),
        newest(Query::MAX_LIMIT + 1),
        newest(u32::MAX),
        suffix(""),
        suffix("AB"),
        suffix("0-1"),
        suffix("xyz"),
        suffix("ä"),
        suffix(&long),
    ];
    for query in queries {
        let answer = store.list(query.clone()).await;
        assert!(matches!(answer, Err(ProcessStoreError::Invalid { .. })), "{query:?} {answer:?}");
    }
    assert_eq!(listed(&*store, newest(Query::MAX_LIMIT)).await, [key(1)]);
}

/// What selects a record is its current version.
pub async fn a_list_follows_updates_and_deletes(place: impl ProcessStorePlace) {
    let (store, lease) = filled(&place, (1..=4).map(record)).await;
    let running = Record { state: "running".to_owned(), ..record(2) };
    let batch = vec![
        put(running, Expect::At(Revision(1))),
        Write::Delete { key: key(3), expect: Revision(1) },
    ];
    commit(&*store, lease, batch).await;
    let of_state = |state: &str| Query { states: vec![state.to_owned()], ..newest(10) };
    assert_eq!(listed(&*store, of_state("queued")).await, [4, 1].map(key));
    assert_eq!(listed(&*store, of_state("running")).await, [key(2)]);
}

/// Number, name, belongings, state and revision of each write.
pub async fn changes_tell_what_was_written(place: impl ProcessStorePlace) {
    let (store, lease) = filled(&place, [record(2), record(1)]).await;
    let running = Record { state: "running".to_owned(), owner: None, ..record(1) };
    commit(&*store, lease, vec![put(running.clone(), Expect::At(Revision(1)))]).await;
    let batch = vec![
        Write::Delete { key: key(1), expect: Revision(2) },
        Write::Delete { key: key(2), expect: Revision(1) },
    ];
    commit(&*store, lease, batch).await;
    let change = |number, record: &Record, state: Option<&str>, revision| Change {
        number: ChangeNumber(number),
        key: record.key,
        parent: record.parent,
        owner: record.owner.clone(),
        state: state.map(str::to_owned),
        revision: Revision(revision),
    };
    let expected = [
        change(1, &record(2), Some("queued"), 1),
        change(1, &record(1), Some("queued"), 1),
        change(2, &running, Some("running"), 2),
        change(3, &running, None, 3),
        change(3, &record(2), None, 2),
    ];
    assert_eq!(changes(&*store, 0, 100).await, expected);
    assert_eq!(changes(&*place.open().await, 1, 100).await, expected[2..]);
}

/// Whoever reads on after the last number misses nothing.
pub async fn changes_never_cut_a_batch(place: impl ProcessStorePlace) {
    let store = place.open().await;
    let lease = acquire(&*store).await;
    let sizes = [1_u64, 3, 2, 5];
    for (size, base) in sizes.iter().zip((0..).step_by(10)) {
        commit(&*store, lease, (base..base + size).map(|n| create(record(n))).collect()).await;
    }
    let mut expected = Vec::new();
    for limit in 1..=12 {
        let mut cursor = ChangeNumber(0);
        let mut all = Vec::new();
        loop {
            let page = store.changes(cursor, limit).await.expect("changes");
            assert_eq!(page.last, ChangeNumber(4));
            let Some(last) = page.changes.last() else { break };
            let in_page = |number| {
                page.changes.iter().filter(|change| change.number == number).count() as u64
            };
            assert_eq!(in_page(last.number), sizes[(last.number.0 - 1) as usize]);
            let without_last = page.changes.len() as u64 - in_page(last.number);
            assert!(without_last < u64::from(limit), "more than was asked for");
            let enough = page.changes.len() as u64 >= u64::from(limit);
            assert!(enough || last.number == page.last, "less than was asked for");
            cursor = last.number;
            all.extend(page.changes);
        }
        if expected.is_empty() {
            expected.clone_from(&all);
        }
        assert_eq!((all.len(), &all), (11, &expected));
    }
}

/// The last number is told all the same.
pub async fn changes_after_the_last_are_none(place: impl ProcessStorePlace) {
    let (store, lease) = filled(&place, [record(1)]).await;
    commit(&*store, lease, vec![create(record(2))]).await;
    for after in [2, 3, u64::MAX] {
        let page = store.changes(ChangeNumber(after), 10).await.expect("changes");
        assert_eq!((page.changes, page.last), (vec![], ChangeNumber(2)));
    }
    assert_eq!(changes(&*store, 0, 0).await, []);
}

/// Runs `make(n)` for every `n` at the same time, each in a task of its own.
async fn together<T, F>(count: u64, make: impl Fn(u64) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let tasks: Vec<_> = (0..count).map(|n| tokio::spawn(make(n))).collect();
    join_all(tasks).await.into_iter().map(|task| task.expect("a task")).collect()
}

/// 64 tasks, each counting in a record of its own and appending others.
pub async fn concurrent_commits_are_applied_exactly_once(place: impl ProcessStorePlace) {
    let (store, lease) = filled(&place, (0..64).map(record)).await;
    let numbers = together(64, |task| {
        let store = Arc::clone(&store);
        async move {
            let mut numbers = Vec::new();
            for revision in 1..=10 {
                let batch = vec![
                    put(record(task), Expect::At(Revision(revision))),
                    create(record(1_000 + task * 100 + revision)),
                ];
                numbers.push(commit(&*store, lease, batch).await);
            }
            numbers
        }
    })
    .await;
    assert!(numbers.iter().all(|numbers| numbers.is_sorted()));
    let all: BTreeSet<_> = numbers.concat().into_iter().map(|number| number.0).collect();
    assert!(all.into_iter().eq(2..642), "numbers are missing or given twice");
    let store = place.open().await;
    assert_eq!(listed(&*store, newest(1_000)).await.len(), 64 + 640);
    for (task, numbers) in (0..).zip(&numbers) {
        let stored = store.require(key(task)).await.expect("a read");
        assert_eq!((stored.revision, Some(&stored.change)), (Revision(11), numbers.last()));
    }
    assert_eq!(changes(&*store, 1, u32::MAX).await.len(), 2 * 640);
}

/// The same name at the same time.
pub async fn concurrent_creators_have_one_winner(place: impl ProcessStorePlace) {
    let store = place.open().await;
    let lease = acquire(&*store).await;
    for round in 0..5 {
        let answers = together(32, |task| {
            let store = Arc::clone(&store);
            let mine = Record { owner: Some(task.to_string()), ..record(round) };
            async move { store.commit(vec![create(mine)], lease).await }
        })
        .await;
        let winners: Vec<usize> = answers
            .iter()
            .enumerate()
            .filter(|(_, answer)| answer.is_ok())
            .map(|(n, _)| n)
            .collect();
        let stored = store.require(key(round)).await.expect("a read");
        assert_eq!(winners.len(), 1);
        assert_eq!(stored.record.owner, Some(winners[0].to_string()));
        assert_eq!(stored.revision, Revision(1));
    }
}

/// Some are refused, all others go through, whatever shared a sync.
pub async fn refusals_do_not_affect_neighbours(place: impl ProcessStorePlace) {
    let (store, lease) = filled(&place, [record(5_000)]).await;
    let answers = together(90, |task| {
        let store = Arc::clone(&store);
        async move {
            let (writes, lease) = match task % 3 {
                0 => (vec![create(record(task))], lease),
                // A good write before a bad one.
                1 => (vec![create(record(task)), create(record(5_000))], lease),
                _ => (vec![create(record(task))], Lease { epoch: Epoch(0), ..lease }),
            };
            store.commit(writes, lease).await
        }
    })
    .await;
    for (task, answer) in answers.iter().enumerate() {
        let as_expected = match task % 3 {
            0 => answer.is_ok(),
            1 => matches!(answer, Err(ProcessStoreError::Conflict { .. })),
            _ => matches!(answer, Err(ProcessStoreError::Superseded { .. })),
        };
        assert!(as_expected, "{task}: {answer:?}");
    }
    let found = listed(&*store, newest(1_000)).await;
    let expected = [5_000].into_iter().chain((0..90).rev().filter(|n| n % 3 == 0));
    assert_eq!(found, expected.map(key).collect::<Vec<_>>());
    let page = store.changes(ChangeNumber(0), u32::MAX).await.expect("changes");
    assert_eq!((page.last, page.changes.len()), (ChangeNumber(31), 31));
}

/// While others commit, a reader never sees a number without all before it, nor half a batch.
pub async fn what_is_visible_is_a_prefix(place: impl ProcessStorePlace) {
    let store = place.open().await;
    let lease = acquire(&*store).await;
    let writers = together(16, |task| {
        let store = Arc::clone(&store);
        async move {
            for n in 0..20 {
                let pair = [0, 1].map(|half| create(record(task * 1_000 + n * 2 + half)));
                commit(&*store, lease, Vec::from(pair)).await;
            }
        }
    });
    let reader = async {
        let mut cursor = ChangeNumber(0);
        while cursor < ChangeNumber(320) {
            let page = store.changes(cursor, 7).await.expect("changes");
            assert!(page.changes.last().is_none_or(|change| change.number <= page.last));
            for pair in page.changes.chunks(2) {
                let numbers: Vec<u64> = pair.iter().map(|change| change.number.0).collect();
                assert_eq!(numbers, [cursor.0 + 1; 2]);
                assert!(store.get(pair[1].key).await.expect("a read").is_some());
                cursor = pair[0].number;
            }
            tokio::task::yield_now().await;
        }
    };
    futures::join!(writers, reader);
}

/// Whoever stops waiting changes nothing of what happens.
pub async fn a_dropped_commit_is_all_or_nothing(place: impl ProcessStorePlace) {
    let store = place.open().await;
    let lease = acquire(&*store).await;
    let pair = |n: u64| vec![create(record(2 * n)), create(record(2 * n + 1))];
    let mut acknowledged = BTreeSet::new();
    for n in 0..50 {
        let commit = store.commit(pair(n), lease);
        // Polled once at most, then dropped, wherever it is.
        if n.is_multiple_of(5) {
            drop(commit);
        } else if poll_immediate(commit).await.is_some_and(|answer| answer.is_ok()) {
            acknowledged.insert(n);
        }
    }
    commit(&*store, lease, pair(1_000)).await;
    let page = place.open().await.changes(ChangeNumber(0), u32::MAX).await.expect("changes");
    assert_eq!(page.changes.len() as u64, 2 * page.last.0, "{:?}", page.changes);
    let done: BTreeSet<RecordKey> = page.changes.iter().map(|change| change.key).collect();
    for n in 0..50 {
        let [first, second] = [2 * n, 2 * n + 1].map(|n| done.contains(&key(n)));
        assert_eq!(first, second, "half a batch");
        assert!(first || !acknowledged.contains(&n), "an acknowledged batch is gone");
        assert!(!first || !n.is_multiple_of(5), "what was never begun was done");
    }
}

/// Everything is read and nothing is wrong.
pub async fn a_healthy_store_passes_its_check(place: impl ProcessStorePlace) {
    let (store, lease) = filled(&place, (0..20).map(record)).await;
    commit(&*store, lease, vec![Write::Delete { key: key(3), expect: Revision(1) }]).await;
    let report = store.check().await.expect("a report");
    assert_eq!(report.records, 19);
    assert_eq!((report.set_aside.len(), report.problems.len()), (0, 0), "{report:?}");
    assert_eq!(place.open().await.check().await.expect("a report"), report);
}
