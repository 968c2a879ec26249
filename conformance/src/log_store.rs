//! The suite of [`LogStore`].
#![expect(clippy::panic, reason = "a case that fails panics")]

mod append;
pub mod model;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use windlass_core::container_service::Place;
use windlass_core::locator::Locator;
use windlass_core::log_store::{
    From, GapCause, LogItem, LogKey, LogPage, LogStatus, LogStore, LogStoreError, LogStoreExt as _,
    ReadOptions, Seq, Stream,
};
use windlass_core::time::Timestamp;

use crate::script::{fresh_execution, fresh_nonce};

pub use self::append::{
    a_dropped_append_ends_with_some_item, a_gap_that_overlaps_stands_for_the_rest,
    a_log_can_be_made_again_after_it_was_removed, a_refused_append_adds_nothing,
    a_removed_log_wakes_who_waits, an_append_of_nothing_makes_a_log_and_tells_its_end,
    an_append_that_leaves_out_numbers_is_refused, an_append_that_overlaps_adds_the_rest,
    an_append_to_a_sealed_log_is_refused, appends_at_the_same_time_are_kept_once,
    what_was_appended_survives_a_restart,
};

/// Where a log store keeps its logs, and who writes them.
#[async_trait]
pub trait LogStorePlace: Default + Send + Sync {
    /// Opens the store. Opening again, after what was opened is dropped, is a restart.
    async fn open(&self) -> Arc<dyn LogStore>;

    /// Makes an empty log of a new execution, as its start does.
    async fn create(&self, store: &dyn LogStore) -> LogKey;

    /// Names a log that was never made.
    async fn missing(&self) -> LogKey;

    /// Writes items that go on where the log ends, as whoever writes the logs of this store does: a store that is fed
    /// is fed through [`append`](LogStore::append).
    async fn write(&self, store: &dyn LogStore, log: &LogKey, items: &[LogItem]);

    /// Ends the log, as whoever writes the logs of this store does when the execution is over.
    async fn finish(&self, store: &dyn LogStore, log: &LogKey);

    /// Writes half of an item, as a writer does that dies in the midst of it.
    async fn tear(&self, store: &dyn LogStore, log: &LogKey, item: &LogItem);
}

/// Expands the suite over places: `log_store_suite! { files => Files }`.
#[macro_export]
macro_rules! log_store_suite {
    ($($places:tt)*) => {
        $crate::expand!(log_store { $($places)* } [
            an_unknown_log_is_not_found,
            an_empty_log_has_an_empty_page,
            items_are_read_as_they_were_written,
            pages_go_on_without_hole_or_repeat,
            a_page_keeps_its_limits_and_has_one_item_at_least,
            reading_begins_after_any_number,
            the_tail_begins_at_the_last_items,
            a_gap_stands_for_its_numbers,
            a_secret_has_a_length_and_no_bytes,
            the_end_is_told_only_when_nothing_follows,
            growth_wakes_who_waits,
            the_end_wakes_who_waits,
            nobody_waits_for_what_is_there,
            a_reader_sees_a_page_grow,
            a_log_survives_a_restart,
            a_torn_tail_is_passed_over,
            sealing_again_changes_nothing,
            appending_what_is_there_changes_nothing,
            the_status_sums_it_up,
            a_removed_log_is_gone,
            logs_are_kept_apart,
            a_hundred_followers_see_the_same,
            a_long_log_is_read_whole,
        ]);
    };
}

/// Expands the cases of stores that keep what is appended, in addition to the suite.
#[macro_export]
macro_rules! log_store_append_suite {
    ($($places:tt)*) => {
        $crate::expand!(log_store { $($places)* } [
            an_append_that_leaves_out_numbers_is_refused,
            an_append_that_overlaps_adds_the_rest,
            an_append_to_a_sealed_log_is_refused,
            an_append_of_nothing_makes_a_log_and_tells_its_end,
            a_refused_append_adds_nothing,
            a_gap_that_overlaps_stands_for_the_rest,
            appends_at_the_same_time_are_kept_once,
            a_dropped_append_ends_with_some_item,
            what_was_appended_survives_a_restart,
            a_removed_log_wakes_who_waits,
            a_log_can_be_made_again_after_it_was_removed,
        ]);
    };
}

/// Names a log that nobody has: a place of a store that is fed needs no more to make one.
#[must_use]
pub fn fresh_log() -> LogKey {
    let (execution, nonce) = (fresh_execution(), fresh_nonce());
    let locator = Locator::new(nonce.0.to_string());
    LogKey { execution, place: Place { locator, nonce, identity: String::new() } }
}

/// Returns an entry with these bytes.
#[must_use]
pub fn entry(seq: u64, stream: Stream, bytes: &[u8]) -> LogItem {
    LogItem::Entry {
        seq: Seq(seq),
        at: Timestamp(1_700_000_000_000 + seq),
        stream,
        partial: bytes.last() != Some(&b'\n'),
        bytes: Bytes::copy_from_slice(bytes),
        len: bytes.len() as u64,
    }
}

/// Returns lines of stdout with the numbers from `first` to `last`.
fn lines(first: u64, last: u64) -> Vec<LogItem> {
    (first..=last)
        .map(|seq| entry(seq, Stream::Stdout, format!("line {seq}\n").as_bytes()))
        .collect()
}

fn after(seq: u64) -> ReadOptions {
    ReadOptions { from: From::After(Seq(seq)), max_items: 1000, max_bytes: 1 << 20 }
}

async fn read(store: &dyn LogStore, log: &LogKey, options: ReadOptions) -> LogPage {
    store.read(log, options).await.expect("a page")
}

/// Reads all there is, page by page, and checks that the pages join.
async fn read_all(store: &dyn LogStore, log: &LogKey, options: ReadOptions) -> Vec<LogItem> {
    let From::After(mut cursor) = options.from else { panic!("read from a number on") };
    let mut items: Vec<LogItem> = Vec::new();
    loop {
        let page = read(store, log, ReadOptions { from: From::After(cursor), ..options }).await;
        for item in page.items.iter() {
            assert_eq!(item.first_seq().0, cursor.0 + 1, "a hole or a repeat before {item:?}");
            cursor = item.last_seq();
            items.push(item.clone());
        }
        assert_eq!(page.next, cursor);
        if page.end || page.items.is_empty() {
            return items;
        }
    }
}

/// Makes a log with items.
async fn log_of(place: &impl LogStorePlace, store: &dyn LogStore, items: &[LogItem]) -> LogKey {
    let log = place.create(store).await;
    place.write(store, &log, items).await;
    log
}

/// What was never made is not empty.
pub async fn an_unknown_log_is_not_found(place: impl LogStorePlace) {
    let store = place.open().await;
    let log = place.missing().await;
    let not_found = |error: Option<LogStoreError>| matches!(error, Some(LogStoreError::NotFound { execution }) if execution == log.execution);
    assert!(not_found(store.read(&log, after(0)).await.err()));
    assert!(not_found(store.grown(&log, Seq(0)).await.err()));
    assert!(not_found(store.status(&log).await.err()));
}

/// What was made and not written to is not missing.
pub async fn an_empty_log_has_an_empty_page(place: impl LogStorePlace) {
    let store = place.open().await;
    let log = place.create(&*store).await;
    let page = read(&*store, &log, after(0)).await;
    assert_eq!(page, LogPage { items: Arc::new([]), next: Seq(0), end: false });
    let tail = ReadOptions { from: From::Tail(3), ..after(0) };
    assert_eq!(read(&*store, &log, tail).await, page);
}

/// Bytes, times, streams and flags.
pub async fn items_are_read_as_they_were_written(place: impl LogStorePlace) {
    let store = place.open().await;
    let big = vec![0xfe; 64 << 10];
    let items = [
        entry(1, Stream::Stdout, b"text\n"),
        entry(2, Stream::Stderr, b"\0\xff\xfe no text"),
        entry(3, Stream::Pty, "½ a character: \u{1f4a9}".as_bytes()),
        entry(4, Stream::Stdin, b"typed\n"),
        entry(5, Stream::Stdout, &big),
        entry(6, Stream::Stdout, b"\n"),
    ];
    let log = log_of(&place, &*store, &items).await;
    assert_eq!(&read(&*store, &log, after(0)).await.items[..], &items);
}

/// Whatever the size of the pages.
pub async fn pages_go_on_without_hole_or_repeat(place: impl LogStorePlace) {
    let store = place.open().await;
    let items = lines(1, 100);
    let log = log_of(&place, &*store, &items).await;
    for (max_items, max_bytes) in [(1, 1 << 20), (7, 1 << 20), (1000, 1), (1000, 50)] {
        let options = ReadOptions { max_items, max_bytes, ..after(0) };
        assert_eq!(read_all(&*store, &log, options).await, items, "{options:?}");
    }
}

/// A reader with little room still gets on.
pub async fn a_page_keeps_its_limits_and_has_one_item_at_least(place: impl LogStorePlace) {
    let store = place.open().await;
    let log = log_of(&place, &*store, &lines(1, 20)).await;
    let page = read(&*store, &log, ReadOptions { max_items: 3, ..after(0) }).await;
    assert_eq!((&page.items[..], page.next), (&lines(1, 3)[..], Seq(3)));
    // Seven bytes each.
    let page = read(&*store, &log, ReadOptions { max_bytes: 20, ..after(3) }).await;
    assert_eq!(&page.items[..], &lines(4, 5)[..]);
    let page = read(&*store, &log, ReadOptions { max_bytes: 0, ..after(5) }).await;
    assert_eq!(&page.items[..], &lines(6, 6)[..]);
}

/// Without having read what is before.
pub async fn reading_begins_after_any_number(place: impl LogStorePlace) {
    let store = place.open().await;
    let log = log_of(&place, &*store, &lines(1, 40)).await;
    for seq in [39, 17, 0, 38, 1] {
        assert_eq!(&read(&*store, &log, after(seq)).await.items[..], &lines(seq + 1, 40)[..]);
    }
    for seq in [40, 41, 1000] {
        let page = read(&*store, &log, after(seq)).await;
        assert_eq!((page.items.len(), page.next), (0, Seq(seq)));
    }
}

/// Counted in items.
pub async fn the_tail_begins_at_the_last_items(place: impl LogStorePlace) {
    let store = place.open().await;
    let log = log_of(&place, &*store, &lines(1, 40)).await;
    for (count, first) in [(1, 40), (10, 31), (40, 1), (1000, 1), (u32::MAX, 1)] {
        let options = ReadOptions { from: From::Tail(count), ..after(0) };
        let page = read(&*store, &log, options).await;
        assert_eq!((&page.items[..], page.next), (&lines(first, 40)[..], Seq(40)), "{count}");
    }
    let page = read(&*store, &log, ReadOptions { from: From::Tail(0), ..after(0) }).await;
    assert_eq!((page.items.len(), page.next), (0, Seq(40)));
    // The limits of a page hold here, too, and reading goes on from there.
    let options = ReadOptions { from: From::Tail(10), max_items: 4, ..after(0) };
    let page = read(&*store, &log, options).await;
    assert_eq!((&page.items[..], page.next), (&lines(31, 34)[..], Seq(34)));
}

/// Twelve numbers, the middle of which are missing.
fn with_gap() -> Vec<LogItem> {
    let mut items = lines(1, 3);
    let (first, last) = (Seq(4), Some(Seq(9)));
    items.push(LogItem::Gap { first, last, bytes: 42, cause: GapCause::Full });
    items.extend(lines(10, 12));
    items
}

/// It is counted as if the entries were there.
pub async fn a_gap_stands_for_its_numbers(place: impl LogStorePlace) {
    let store = place.open().await;
    let items = with_gap();
    let log = log_of(&place, &*store, &items).await;
    assert_eq!(read_all(&*store, &log, after(0)).await, items);
    assert_eq!(&read(&*store, &log, after(3)).await.items[..], &items[3..]);
    assert_eq!(&read(&*store, &log, after(9)).await.items[..], &items[4..]);
    // From within it, what is missing yet is told, and nothing twice after it.
    let page = read(&*store, &log, after(6)).await;
    assert!(matches!(page.items[0], LogItem::Gap { last: Some(Seq(9)), .. }), "{page:?}");
    assert_eq!(&page.items[1..], &items[4..]);
}

/// It is counted, and not kept.
pub async fn a_secret_has_a_length_and_no_bytes(place: impl LogStorePlace) {
    let store = place.open().await;
    let secret = LogItem::Entry {
        seq: Seq(2),
        at: Timestamp(7),
        stream: Stream::Stdin,
        partial: false,
        bytes: Bytes::new(),
        len: 16,
    };
    let items = [lines(1, 1), vec![secret], lines(3, 3)].concat();
    let log = log_of(&place, &*store, &items).await;
    assert_eq!(&read(&*store, &log, after(0)).await.items[..], &items);
}

/// A page that ends where the log does, and one that does not.
pub async fn the_end_is_told_only_when_nothing_follows(place: impl LogStorePlace) {
    let store = place.open().await;
    let log = log_of(&place, &*store, &lines(1, 10)).await;
    assert!(!read(&*store, &log, after(0)).await.end);
    assert!(!read(&*store, &log, after(10)).await.end);
    place.finish(&*store, &log).await;
    assert!(!read(&*store, &log, ReadOptions { max_items: 5, ..after(0) }).await.end);
    assert!(read(&*store, &log, after(5)).await.end);
    let page = read(&*store, &log, after(10)).await;
    assert_eq!(page, LogPage { items: Arc::new([]), next: Seq(10), end: true });
    let empty = place.create(&*store).await;
    place.finish(&*store, &empty).await;
    assert!(read(&*store, &empty, after(0)).await.end);
}

/// Starts to wait, and returns when the wait has begun as far as one can tell.
fn waiting(
    store: &Arc<dyn LogStore>,
    log: &LogKey,
    seq: u64,
) -> tokio::task::JoinHandle<Result<(), LogStoreError>> {
    let (store, log) = (Arc::clone(store), log.clone());
    tokio::spawn(async move { store.grown(&log, Seq(seq)).await })
}

/// One entry is enough.
pub async fn growth_wakes_who_waits(place: impl LogStorePlace) {
    let store = place.open().await;
    let log = log_of(&place, &*store, &lines(1, 3)).await;
    for seq in 4..=20 {
        let grown = waiting(&store, &log, seq - 1);
        // Some of them wait already when it is written, and some do not yet.
        if seq % 2 == 0 {
            tokio::task::yield_now().await;
        }
        place.write(&*store, &log, &lines(seq, seq)).await;
        grown.await.expect("a wait").expect("growth");
        assert_eq!(read(&*store, &log, after(seq - 1)).await.next, Seq(seq));
    }
}

/// There is nothing to wait for any more.
pub async fn the_end_wakes_who_waits(place: impl LogStorePlace) {
    let store = place.open().await;
    let log = log_of(&place, &*store, &lines(1, 3)).await;
    let grown = waiting(&store, &log, 3);
    tokio::task::yield_now().await;
    place.finish(&*store, &log).await;
    grown.await.expect("a wait").expect("the end");
    assert!(read(&*store, &log, after(3)).await.end);
    store.grown(&log, Seq(3)).await.expect("the end");
}

/// At once.
pub async fn nobody_waits_for_what_is_there(place: impl LogStorePlace) {
    let store = place.open().await;
    let log = log_of(&place, &*store, &lines(1, 3)).await;
    for seq in 0..3 {
        store.grown(&log, Seq(seq)).await.expect("growth");
    }
}

/// What was read a moment ago, and shared, does not hide what came after.
pub async fn a_reader_sees_a_page_grow(place: impl LogStorePlace) {
    let store = place.open().await;
    let log = place.create(&*store).await;
    for last in 1..=20 {
        place.write(&*store, &log, &lines(last, last)).await;
        assert_eq!(read_all(&*store, &log, after(0)).await, lines(1, last));
        assert_eq!(store.page_after(&log, Seq(last)).await.expect("a page").next, Seq(last));
    }
}

/// In every part.
pub async fn a_log_survives_a_restart(place: impl LogStorePlace) {
    let store = place.open().await;
    let (open, ended) = (with_gap(), lines(1, 5));
    let open_log = log_of(&place, &*store, &open).await;
    let ended_log = log_of(&place, &*store, &ended).await;
    place.finish(&*store, &ended_log).await;
    drop(store);
    let store = place.open().await;
    assert_eq!(read_all(&*store, &open_log, after(0)).await, open);
    assert_eq!(read_all(&*store, &ended_log, after(0)).await, ended);
    assert!(!read(&*store, &open_log, after(0)).await.end);
    assert!(read(&*store, &ended_log, after(0)).await.end);
    place.write(&*store, &open_log, &lines(13, 14)).await;
    assert_eq!(&read(&*store, &open_log, after(12)).await.items[..], &lines(13, 14)[..]);
}

/// Half an entry is none.
pub async fn a_torn_tail_is_passed_over(place: impl LogStorePlace) {
    let store = place.open().await;
    let log = log_of(&place, &*store, &lines(1, 5)).await;
    place.tear(&*store, &log, &lines(6, 6)[0]).await;
    assert_eq!(read_all(&*store, &log, after(0)).await, lines(1, 5));
    drop(store);
    let store = place.open().await;
    assert_eq!(read_all(&*store, &log, after(0)).await, lines(1, 5));
    store.seal(&log).await.expect("a seal");
    let page = read(&*store, &log, after(0)).await;
    assert_eq!((&page.items[..], page.end), (&lines(1, 5)[..], true));
    assert_eq!(store.status(&log).await.expect("a status").last, Seq(5));
}

/// By whomever.
pub async fn sealing_again_changes_nothing(place: impl LogStorePlace) {
    let store = place.open().await;
    let log = log_of(&place, &*store, &lines(1, 5)).await;
    store.seal(&log).await.expect("a seal");
    store.seal(&log).await.expect("a seal");
    assert!(store.status(&log).await.expect("a status").sealed);
    let other = log_of(&place, &*store, &lines(1, 5)).await;
    place.finish(&*store, &other).await;
    store.seal(&other).await.expect("a seal");
    for log in [log, other] {
        assert_eq!(read_all(&*store, &log, after(0)).await, lines(1, 5));
    }
}

/// The end is told.
pub async fn appending_what_is_there_changes_nothing(place: impl LogStorePlace) {
    let store = place.open().await;
    let items = lines(1, 5);
    let log = log_of(&place, &*store, &items).await;
    for again in [items.clone(), lines(2, 4), Vec::new()] {
        assert_eq!(store.append(&log, again).await.expect("the end"), Seq(5));
    }
    assert_eq!(read_all(&*store, &log, after(0)).await, items);
}

/// Gaps included.
pub async fn the_status_sums_it_up(place: impl LogStorePlace) {
    let store = place.open().await;
    let log = log_of(&place, &*store, &with_gap()).await;
    let mut expected = LogStatus {
        last: Seq(12),
        entries: 6,
        bytes: 3 * 7 + 3 * 8 + 42,
        dropped_bytes: 42,
        sealed: false,
    };
    assert_eq!(store.status(&log).await.expect("a status"), expected);
    place.finish(&*store, &log).await;
    expected.sealed = true;
    assert_eq!(store.status(&log).await.expect("a status"), expected);
    let empty = place.create(&*store).await;
    assert_eq!(store.status(&empty).await.expect("a status"), LogStatus::default());
}

/// And stays so.
pub async fn a_removed_log_is_gone(place: impl LogStorePlace) {
    let store = place.open().await;
    let log = log_of(&place, &*store, &lines(1, 5)).await;
    let kept = log_of(&place, &*store, &lines(1, 3)).await;
    place.finish(&*store, &log).await;
    assert_eq!(read_all(&*store, &log, after(0)).await, lines(1, 5));
    store.remove(&log).await.expect("a removal");
    store.remove(&log).await.expect("nothing to remove");
    store.remove(&place.missing().await).await.expect("nothing to remove");
    let gone = |error| matches!(error, Some(LogStoreError::NotFound { .. }));
    assert!(gone(store.read(&log, after(0)).await.err()));
    drop(store);
    let store = place.open().await;
    assert!(gone(store.status(&log).await.err()));
    assert_eq!(read_all(&*store, &kept, after(0)).await, lines(1, 3));
}

/// Even at the same numbers.
pub async fn logs_are_kept_apart(place: impl LogStorePlace) {
    let store = place.open().await;
    let one = log_of(&place, &*store, &[entry(1, Stream::Stdout, b"one")]).await;
    let other = log_of(&place, &*store, &[entry(1, Stream::Stdout, b"other")]).await;
    let bytes = |page: &LogPage| match &page.items[0] {
        LogItem::Entry { bytes, .. } => bytes.clone(),
        LogItem::Gap { .. } => panic!("a gap"),
    };
    assert_eq!(bytes(&read(&*store, &one, after(0)).await), "one");
    assert_eq!(bytes(&read(&*store, &other, after(0)).await), "other");
}

/// Everything, while it is written.
pub async fn a_hundred_followers_see_the_same(place: impl LogStorePlace) {
    const LAST: u64 = 300;
    let store = place.open().await;
    let log = place.create(&*store).await;
    let followers: Vec<_> = (0..100)
        .map(|_| {
            let (store, log) = (Arc::clone(&store), log.clone());
            tokio::spawn(async move {
                let (mut cursor, mut seen) = (Seq(0), Vec::new());
                loop {
                    let page = store.page_after(&log, cursor).await.expect("a page");
                    seen.extend(page.items.iter().map(LogItem::last_seq));
                    cursor = page.next;
                    if page.end {
                        return seen;
                    }
                    store.grown(&log, cursor).await.expect("growth");
                }
            })
        })
        .collect();
    for first in (1..=LAST).step_by(10) {
        place.write(&*store, &log, &lines(first, first + 9)).await;
    }
    place.finish(&*store, &log).await;
    let expected: Vec<Seq> = (1..=LAST).map(Seq).collect();
    for follower in followers {
        assert_eq!(follower.await.expect("a follower"), expected);
    }
}

/// Whatever it takes to store it.
pub async fn a_long_log_is_read_whole(place: impl LogStorePlace) {
    const LAST: u64 = 400;
    let store = place.open().await;
    let items: Vec<LogItem> = (1..=LAST)
        .map(|seq| {
            let bytes = vec![u8::try_from(seq % 251).unwrap_or(0); 64 << 10];
            entry(seq, Stream::Stdout, &bytes)
        })
        .collect();
    let log = log_of(&place, &*store, &items).await;
    assert_eq!(read_all(&*store, &log, after(0)).await, items);
    for seq in [0, 127, 128, 129, 255, 256, LAST - 1] {
        let page = read(&*store, &log, ReadOptions { max_items: 1, ..after(seq) }).await;
        assert_eq!(page.items.first(), items.get(usize::try_from(seq).expect("a small number")));
    }
    let tail = ReadOptions { from: From::Tail(300), max_items: 1, ..after(0) };
    assert_eq!(read(&*store, &log, tail).await.items[0].first_seq(), Seq(LAST - 299));
    let status = store.status(&log).await.expect("a status");
    assert_eq!((status.last, status.bytes), (Seq(LAST), LAST << 16));
}
