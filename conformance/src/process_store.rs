//! The suite of [`ProcessStore`].

mod concurrency;
mod killed;
mod lists;
pub mod model;
pub mod reference;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use uuid::Uuid;
use windlass_core::id::{Epoch, HostId, NodeId};
use windlass_core::process_store::{
    Change, ChangeNumber, Expect, Kind, Lease, ProcessStore, ProcessStoreError,
    ProcessStoreExt as _, Query, Record, RecordKey, Revision, Stored, Write,
};
use windlass_core::time::Timestamp;

pub use self::concurrency::{
    a_dropped_commit_is_all_or_nothing, concurrent_commits_are_applied_exactly_once,
    concurrent_creators_have_one_winner, refusals_do_not_affect_neighbours,
    what_is_visible_is_a_prefix,
};
pub use self::killed::what_was_acknowledged_before_a_kill_is_there;
pub use self::lists::{
    a_list_follows_updates_and_deletes, a_page_that_holds_the_rest_is_the_last,
    equal_times_are_ordered_by_id, ids_are_found_by_their_end, lists_are_newest_first,
    lists_select_by_every_field, pages_have_neither_hole_nor_repeat,
    queries_out_of_range_are_refused, several_states_are_merged_in_order,
};

/// Where a store keeps its records.
#[async_trait]
pub trait ProcessStorePlace: Default + Send + Sync {
    /// Opens the store. Opening again is a restart. A store that only one may have open closes what was opened before:
    /// the suite does not use it any more, whether or not it is dropped.
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

/// Expands the cases of stores that several may have open at the same time, in addition to the suite.
#[macro_export]
macro_rules! process_store_shared_suite {
    ($($places:tt)*) => {
        $crate::expand!(process_store { $($places)* } [
            a_store_that_is_open_twice_is_one,
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

/// A restart alone takes nothing from anybody; a takeover does.
pub async fn a_lease_lasts_through_a_restart_until_it_is_superseded(place: impl ProcessStorePlace) {
    let (_, old) = filled(&place, [record(1)]).await;
    let store = place.open().await;
    assert_eq!(commit(&*store, old, vec![create(record(2))]).await, ChangeNumber(2));
    let new = acquire(&*store).await;
    let store = place.open().await;
    assert_superseded(store.commit(vec![create(record(3))], old).await, (1, 2));
    assert_eq!(commit(&*store, new, vec![create(record(3))]).await, ChangeNumber(3));
}

/// Whoever opened it when, and whoever writes.
pub async fn a_store_that_is_open_twice_is_one(place: impl ProcessStorePlace) {
    let (first, old) = filled(&place, [record(1)]).await;
    let second = place.open().await;
    assert_eq!(commit(&*second, old, vec![create(record(2))]).await, ChangeNumber(2));
    assert_eq!(first.require(key(2)).await.expect("a read").record, record(2));
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
    let sizes = BTreeMap::from([(1, 1), (2, 3), (3, 2), (4, 5)]);
    for (size, base) in sizes.values().zip((0..).step_by(10)) {
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
            assert_eq!(in_page(last.number), sizes[&last.number.0]);
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

/// Everything is read and nothing is wrong.
pub async fn a_healthy_store_passes_its_check(place: impl ProcessStorePlace) {
    let (store, lease) = filled(&place, (0..20).map(record)).await;
    commit(&*store, lease, vec![Write::Delete { key: key(3), expect: Revision(1) }]).await;
    let report = store.check().await.expect("a report");
    assert_eq!(report.records, 19);
    assert_eq!((report.set_aside.len(), report.problems.len()), (0, 0), "{report:?}");
    assert_eq!(place.open().await.check().await.expect("a report"), report);
}
