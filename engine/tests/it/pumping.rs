//! Logs that are moved into a store of their own: whole, once, whatever becomes of host and store.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use windlass::core::error::BackendError;
use windlass::core::log_store::{
    GapCause, LogItem, LogKey, LogPage, LogStatus, LogStore, LogStoreError, LogStoreExt as _,
    ReadOptions, Seq, Stream,
};
use windlass::core::record::LogSummary;
use windlass::log_store::Pumped;
use windlass_conformance::log_store::{entry, fresh_log};
use windlass_fakes::log_store::MemoryLogs;
use windlass_fakes::world::{Time, World};

use crate::place::{Fault, Place, TestRuntime, in_directory, operator, run, settled};

/// What becomes of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// There is no room.
    Full,
    /// It is done, and nobody hears of it.
    Unheard,
    /// It is not done, and nobody knows.
    Lost,
}

/// A store that keeps logs and fails as it is told.
#[derive(Debug)]
struct Kept {
    logs: MemoryLogs,
    /// What becomes of the next appends.
    troubles: Mutex<VecDeque<Trouble>>,
    /// How often something was appended, and sealed.
    done: watch::Sender<(u32, u32)>,
}

impl Kept {
    fn new(troubles: impl IntoIterator<Item = Trouble>) -> Arc<Self> {
        let troubles = Mutex::new(troubles.into_iter().collect());
        Arc::new(Self { logs: memory(), troubles, done: watch::Sender::new((0, 0)) })
    }

    async fn until(&self, done: impl FnMut(&(u32, u32)) -> bool) {
        self.done.subscribe().wait_for(done).await.unwrap();
    }

    async fn items(&self, log: &LogKey) -> Vec<LogItem> {
        all(&self.logs, log).await
    }
}

#[async_trait]
impl LogStore for Kept {
    async fn append(&self, log: &LogKey, items: Vec<LogItem>) -> Result<Seq, LogStoreError> {
        let nobody_knows = || BackendError::transient("kept", "append", "nobody knows").into();
        let trouble = self.troubles.lock().unwrap().pop_front();
        match trouble {
            None => {
                let last = self.logs.append(log, items).await?;
                self.done.send_modify(|(appended, _)| *appended += 1);
                Ok(last)
            }
            Some(Trouble::Full) => Err(LogStoreError::Full),
            Some(Trouble::Unheard) => {
                self.logs.append(log, items).await?;
                Err(nobody_knows())
            }
            Some(Trouble::Lost) => Err(nobody_knows()),
        }
    }

    async fn seal(&self, log: &LogKey) -> Result<(), LogStoreError> {
        self.logs.seal(log).await?;
        self.done.send_modify(|(_, sealed)| *sealed += 1);
        Ok(())
    }

    async fn read(&self, log: &LogKey, options: ReadOptions) -> Result<LogPage, LogStoreError> {
        self.logs.read(log, options).await
    }

    async fn grown(&self, log: &LogKey, after: Seq) -> Result<(), LogStoreError> {
        self.logs.grown(log, after).await
    }

    async fn status(&self, log: &LogKey) -> Result<LogStatus, LogStoreError> {
        self.logs.status(log).await
    }

    async fn remove(&self, log: &LogKey) -> Result<(), LogStoreError> {
        self.logs.remove(log).await
    }
}

/// Logs of a world of their own.
fn memory() -> MemoryLogs {
    MemoryLogs::new(World::new(windlass::core::time::Timestamp(0), Time::Stands))
}

async fn all(logs: &dyn LogStore, log: &LogKey) -> Vec<LogItem> {
    let (mut items, mut cursor) = (Vec::new(), Seq(0));
    loop {
        let page = logs.page_after(log, cursor).await.unwrap();
        if page.items.is_empty() {
            return items;
        }
        items.extend(page.items.iter().cloned());
        cursor = page.next;
    }
}

fn lines(first: u64, last: u64) -> Vec<LogItem> {
    (first..=last).map(|seq| entry(seq, Stream::Stdout, b"a line\n")).collect()
}

/// Segments with a log, and what they are moved with.
struct Moving {
    runtime: Arc<TestRuntime>,
    segments: Arc<MemoryLogs>,
    kept: Arc<Kept>,
    log: LogKey,
}

impl Moving {
    async fn new(items: Vec<LogItem>, troubles: impl IntoIterator<Item = Trouble>) -> Self {
        let (segments, log) = (memory(), fresh_log());
        segments.append(&log, items).await.unwrap();
        let runtime = Arc::new(TestRuntime::default());
        Self { runtime, segments: Arc::new(segments), kept: Kept::new(troubles), log }
    }

    fn pumped(&self) -> Arc<Pumped> {
        Pumped::new(
            Arc::clone(&self.segments) as Arc<dyn LogStore>,
            Arc::clone(&self.kept) as Arc<dyn LogStore>,
            Arc::clone(&self.runtime),
            Duration::from_millis(1_000),
        )
    }

    async fn has_segments(&self) -> bool {
        self.segments.page_after(&self.log, Seq(0)).await.is_ok()
    }
}

#[tokio::test]
async fn a_pump_waits_while_there_is_no_room_and_goes_on() {
    for trouble in [Trouble::Full, Trouble::Unheard, Trouble::Lost] {
        let moving = Moving::new(lines(1, 600), [trouble; 7]).await;
        let pumped = moving.pumped();
        moving.segments.seal(&moving.log).await.unwrap();
        pumped.ended(moving.log.clone(), None);
        assert_eq!(all(&*pumped, &moving.log).await, lines(1, 600), "while it waits");
        moving.runtime.all_tasks_end().await;
        assert_eq!(moving.kept.items(&moving.log).await, lines(1, 600), "{trouble:?}");
        assert!(moving.kept.status(&moving.log).await.unwrap().sealed);
        assert!(!moving.has_segments().await, "they are not needed any more");
        assert!(pumped.running().is_empty());
        // It waited longer each time: 1 + 2 + 4 + 8 + 16 + 32 + 32 seconds.
        assert!(moving.runtime.passed() >= 95_000, "{trouble:?}: {} ms", moving.runtime.passed());
        assert_eq!(all(&*pumped, &moving.log).await, lines(1, 600), "afterwards");
    }
}

#[tokio::test]
async fn segments_stay_until_the_execution_is_final() {
    let moving = Moving::new(lines(1, 10), []).await;
    let pumped = moving.pumped();
    pumped.begin(moving.log.clone(), true);
    moving.kept.until(|(appended, _)| *appended > 0).await;
    moving.segments.seal(&moving.log).await.unwrap();
    pumped.grown(&moving.log, Seq(10)).await.unwrap();
    tokio::task::yield_now().await;
    assert!(moving.has_segments().await);
    assert_eq!(pumped.running(), std::slice::from_ref(&moving.log));
    pumped.ended(moving.log.clone(), None);
    moving.runtime.all_tasks_end().await;
    assert!(!moving.has_segments().await);
    assert_eq!(moving.kept.items(&moving.log).await, lines(1, 10));
}

#[tokio::test]
async fn wherever_a_host_was_killed_the_next_one_adds_nothing_twice() {
    for kept in [0, 1, 255, 256, 257, 599, 600] {
        let moving = Moving::new(lines(1, 600), []).await;
        if kept > 0 {
            moving.kept.append(&moving.log, lines(1, kept)).await.unwrap();
        }
        moving.segments.seal(&moving.log).await.unwrap();
        let pumped = moving.pumped();
        pumped.ended(moving.log.clone(), None);
        moving.runtime.all_tasks_end().await;
        assert_eq!(moving.kept.items(&moving.log).await, lines(1, 600), "{kept}");
        // Another host, which comes when all of it is done.
        let pumped = moving.pumped();
        pumped.ended(moving.log.clone(), None);
        moving.runtime.all_tasks_end().await;
        assert_eq!(moving.kept.items(&moving.log).await, lines(1, 600), "{kept}");
    }
}

#[tokio::test]
async fn two_hosts_that_move_the_same_log_move_it_once() {
    let moving = Moving::new(lines(1, 2_000), []).await;
    moving.segments.seal(&moving.log).await.unwrap();
    for _ in 0..2 {
        moving.pumped().ended(moving.log.clone(), None);
    }
    moving.runtime.all_tasks_end().await;
    assert_eq!(moving.kept.items(&moving.log).await, lines(1, 2_000));
}

#[tokio::test]
async fn what_segments_have_lost_is_a_gap_and_they_are_left_alone() {
    // They do not know that they ended, and their execution is known to have written more.
    let moving = Moving::new(lines(1, 10), []).await;
    let known = LogSummary { last_seq: 15, bytes: 100, dropped_bytes: 0 };
    for _ in 0..2 {
        moving.pumped().ended(moving.log.clone(), Some(known));
        moving.runtime.all_tasks_end().await;
        let gap =
            LogItem::Gap { first: Seq(11), last: Some(Seq(15)), bytes: 30, cause: GapCause::Power };
        assert_eq!(moving.kept.items(&moving.log).await, [lines(1, 10), vec![gap]].concat());
        assert!(moving.kept.status(&moving.log).await.unwrap().sealed);
        assert!(moving.has_segments().await);
    }
}

#[tokio::test]
async fn after_a_power_cut_what_is_kept_counts_where_segments_have_less() {
    let moving = Moving::new(lines(1, 5), []).await;
    moving.kept.append(&moving.log, lines(1, 10)).await.unwrap();
    let pumped = moving.pumped();
    assert_eq!(all(&*pumped, &moving.log).await, lines(1, 10));
    assert_eq!(pumped.status(&moving.log).await.unwrap().last, Seq(10));
    pumped.grown(&moving.log, Seq(9)).await.unwrap();
    let tail = windlass::core::log_store::From::Tail(2);
    let options = ReadOptions { from: tail, max_items: 10, max_bytes: 1 << 20 };
    assert_eq!(pumped.read(&moving.log, options).await.unwrap().items[..], lines(9, 10)[..]);
    moving.segments.seal(&moving.log).await.unwrap();
    pumped.ended(moving.log.clone(), None);
    moving.runtime.all_tasks_end().await;
    assert_eq!(moving.kept.items(&moving.log).await, lines(1, 10));
}

#[tokio::test]
async fn a_log_that_is_removed_while_it_is_moved_does_not_come_back() {
    let moving = Moving::new(lines(1, 1_000), []).await;
    let pumped = moving.pumped();
    pumped.begin(moving.log.clone(), true);
    tokio::task::yield_now().await;
    pumped.remove(&moving.log).await.unwrap();
    moving.runtime.all_tasks_end().await;
    for logs in [&*pumped as &dyn LogStore, &*moving.segments, &*moving.kept] {
        let gone = logs.page_after(&moving.log, Seq(0)).await;
        assert!(matches!(gone, Err(LogStoreError::NotFound { .. })), "{gone:?}");
    }
}

#[tokio::test]
async fn a_host_moves_what_its_executions_write_and_what_others_left() {
    let mut place = Place::new();
    let kept = Kept::new([]);
    place.kept = Some(Arc::clone(&kept) as Arc<dyn LogStore>);
    let handle = place.start().await;
    let accepted = run(&handle, in_directory(&["print", "something\n", ""])).await;
    let record = settled(&handle, &accepted).await;
    let log = LogKey { execution: record.id, place: record.place.clone().unwrap() };
    let expected = handle.log_page(&operator(), record.id, whole()).await.unwrap();
    assert!(!expected.items.is_empty());
    let mut handle = handle;
    // The first one may be killed before all of it was moved.
    for _ in 0..3 {
        handle = place.restart().await;
        let page = handle.log_page(&operator(), record.id, whole()).await.unwrap();
        assert_eq!(page, expected);
    }
    kept.until(|(_, sealed)| *sealed > 0).await;
    assert_eq!(kept.items(&log).await, expected.items.to_vec());
    drop(handle);
}

#[tokio::test]
async fn a_log_whose_end_was_in_doubt_is_moved_all_the_same() {
    for fault in [Fault::Before, Fault::After] {
        let mut place = Place::new();
        let kept = Kept::new([]);
        place.kept = Some(Arc::clone(&kept) as Arc<dyn LogStore>);
        let handle = place.start().await;
        place.store.fail("final", fault);
        let accepted = run(&handle, in_directory(&["print", "something\n", ""])).await;
        let record = settled(&handle, &accepted).await;
        let log = LogKey { execution: record.id, place: record.place.clone().unwrap() };
        // The same host moves it; nothing was restarted.
        kept.until(|(_, sealed)| *sealed > 0).await;
        assert_eq!(kept.status(&log).await.unwrap().last.0, record.log.unwrap().last_seq);
        handle.shut_down().await.unwrap();
    }
}

fn whole() -> ReadOptions {
    let from = windlass::core::log_store::From::After(Seq(0));
    ReadOptions { from, max_items: 1_000, max_bytes: 1 << 20 }
}
