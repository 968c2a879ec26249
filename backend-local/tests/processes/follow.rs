//! What is special about segments: damage, holes, ends that are missing, and watches.

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;

use windlass_conformance::container_service::ContainerServicePlace as _;
use windlass_conformance::log_store::entry;
use windlass_conformance::script::{fresh_execution, fresh_nonce};
use windlass_core::container_service::{ContainerService as _, LaunchSpec, Place};
use windlass_core::id::Epoch;
use windlass_core::log_store::{
    From, GapCause, LogItem, LogKey, LogStore, LogStoreExt as _, ReadOptions, Seq, Stream,
};
use windlass_core::shim::frame::segment_file;

use crate::adoption::Run;
use crate::logs::Segments;
use crate::place::{Local, path_of};

/// Reads all that can be read, and checks that it covers every number.
async fn read(store: &dyn LogStore, log: &LogKey) -> (Vec<LogItem>, bool) {
    let (mut cursor, mut items) = (Seq(0), Vec::new());
    loop {
        let page = store.page_after(log, cursor).await.unwrap();
        for item in page.items.iter() {
            assert_eq!(item.first_seq().0, cursor.0 + 1, "{item:?}");
            cursor = item.last_seq();
        }
        items.extend(page.items.iter().cloned());
        if page.end || page.items.is_empty() {
            return (items, page.end);
        }
    }
}

fn lines(first: u64, last: u64) -> Vec<LogItem> {
    let line = |seq: u64| entry(seq, Stream::Stdout, format!("line {seq:04}\n").as_bytes());
    (first..=last).map(line).collect()
}

/// Three segments of ten lines, the last one unsealed.
async fn three_segments(place: &Segments) -> LogKey {
    let log = place.make().await;
    place.with(&log, |writer| {
        for first in [1, 11, 21] {
            if first > 1 {
                writer.rotate();
            }
            lines(first, first + 9).iter().for_each(|item| writer.write(item));
        }
    });
    log
}

fn damage(place: &Place, index: u64, needle: &[u8]) {
    let path = path_of(place).join(segment_file(index));
    let mut file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    let at = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    file.seek(SeekFrom::Start(at as u64)).unwrap();
    file.write_all(b"?").unwrap();
}

fn gap(first: u64, last: u64, bytes: u64, cause: GapCause) -> LogItem {
    LogItem::Gap { first: Seq(first), last: Some(Seq(last)), bytes, cause }
}

#[tokio::test]
async fn an_unreadable_entry_in_the_midst_is_a_gap() {
    let place = Segments::default();
    let log = three_segments(&place).await;
    damage(&log.place, 2, b"line 0015");
    let expected = [lines(1, 14), vec![gap(15, 15, 0, GapCause::Power)], lines(16, 30)].concat();
    assert_eq!(read(&*place.logs(), &log).await, (expected, false));
}

#[tokio::test]
async fn a_segment_whose_end_was_lost_is_followed_by_a_gap() {
    let place = Segments::default();
    let log = three_segments(&place).await;
    let path = path_of(&log.place).join(segment_file(2));
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    // The header, four whole frames and half of one.
    file.set_len(96 + 4 * (36 + 10) + 20).unwrap();
    let expected = [lines(1, 14), vec![gap(15, 20, 60, GapCause::Power)], lines(21, 30)].concat();
    assert_eq!(read(&*place.logs(), &log).await, (expected, false));
}

#[tokio::test]
async fn segments_that_the_cap_took_are_a_gap_with_their_bytes() {
    let place = Segments::default();
    let log = three_segments(&place).await;
    fs::remove_file(path_of(&log.place).join(segment_file(2))).unwrap();
    let logs = place.logs();
    let expected = [lines(1, 10), vec![gap(11, 20, 100, GapCause::Cap)], lines(21, 30)].concat();
    assert_eq!(read(&*logs, &log).await, (expected, false));
    let status = logs.status(&log).await.unwrap();
    assert_eq!((status.bytes, status.dropped_bytes, status.entries), (300, 100, 20));
    // From within the hole, only what is ahead is told.
    let page = logs.page_after(&log, Seq(15)).await.unwrap();
    assert_eq!(page.items[0], gap(16, 20, 0, GapCause::Cap));
}

#[tokio::test]
async fn a_segment_that_goes_while_it_is_read_is_a_gap_without_a_repeat() {
    let place = Segments::default();
    let log = three_segments(&place).await;
    let logs = place.logs();
    let options = windlass_core::log_store::ReadOptions {
        from: windlass_core::log_store::From::After(Seq(0)),
        max_items: 15,
        max_bytes: 1 << 20,
    };
    assert_eq!(logs.read(&log, options).await.unwrap().next, Seq(15));
    fs::remove_file(path_of(&log.place).join(segment_file(2))).unwrap();
    let page = logs.page_after(&log, Seq(15)).await.unwrap();
    let expected = [vec![gap(16, 20, 0, GapCause::Cap)], lines(21, 30)].concat();
    assert_eq!(page.items[..], expected);
}

#[tokio::test]
async fn what_the_journal_counted_and_the_segments_lack_is_a_gap() {
    let place = Segments::default();
    let log = three_segments(&place).await;
    place.with(&log, crate::logs::Writer::finish);
    fs::remove_file(path_of(&log.place).join(segment_file(3))).unwrap();
    let expected = [lines(1, 20), vec![gap(21, 30, 100, GapCause::Power)]].concat();
    assert_eq!(read(&*place.logs(), &log).await, (expected, true));
}

#[tokio::test]
async fn what_a_seal_counted_and_its_segment_lacks_is_a_gap() {
    let place = Segments::default();
    let log = three_segments(&place).await;
    place.with(&log, crate::logs::Writer::rotate);
    damage(&log.place, 3, b"line 0030");
    let store = place.logs();
    let expected = [lines(1, 29), vec![gap(30, 30, 10, GapCause::Power)]].concat();
    // Also once a host has found that the shim is gone, and closed the log.
    for end in [false, true] {
        assert_eq!(read(&*store, &log).await, (expected.clone(), end));
        assert_eq!(store.status(&log).await.unwrap().last, Seq(30));
        let page = store.page_after(&log, Seq(30)).await.unwrap();
        assert!(page.items.is_empty() && page.end == end, "{page:?}");
        let tail = ReadOptions { from: From::Tail(0), max_items: 9, max_bytes: 999 };
        assert_eq!(store.read(&log, tail).await.unwrap().next, Seq(30));
        store.seal(&log).await.unwrap();
    }
}

#[tokio::test]
async fn what_neither_segments_nor_journal_can_tell_is_a_gap_without_an_end() {
    let unknown =
        |first| LogItem::Gap { first: Seq(first), last: None, bytes: 0, cause: GapCause::Power };
    // The header of the last segment, its last frame, and the header of the only one; then a frame with others behind it.
    for (segments, needle, expected) in [
        (3, &b"WLSEGMT"[..], [lines(1, 20), vec![unknown(21)]].concat()),
        (3, b"line 0030", [lines(1, 29), vec![unknown(30)]].concat()),
        (1, b"WLSEGMT", vec![unknown(1)]),
        (
            3,
            b"line 0021",
            [lines(1, 20), vec![gap(21, 21, 0, GapCause::Power)], lines(22, 30)].concat(),
        ),
    ] {
        let place = Segments::default();
        let log = three_segments(&place).await;
        for gone in segments + 1..=3 {
            fs::remove_file(path_of(&log.place).join(segment_file(gone))).unwrap();
        }
        damage(&log.place, segments, needle);
        // No journal that can be read, and a host that found so and closed the log.
        fs::write(path_of(&log.place).join("journal"), vec![b'?'; 4096]).unwrap();
        let store = place.logs();
        store.seal(&log).await.unwrap();

        let at = String::from_utf8_lossy(needle);
        assert_eq!(read(&*store, &log).await, (expected.clone(), true), "{at}");
        // Who goes on behind it is not told again, and who asks for the end is told too.
        let last = expected.last().unwrap();
        let page = store.page_after(&log, last.last_seq()).await.unwrap();
        assert!(page.end && page.items.is_empty(), "{at}: {:?}", page.items);
        let tail = ReadOptions { from: From::Tail(1), max_items: 9, max_bytes: 999 };
        assert_eq!(store.read(&log, tail).await.unwrap().items.last(), Some(last), "{at}");
    }
}

#[tokio::test]
async fn a_log_that_is_whole_has_no_gap_though_its_journal_is_damaged() {
    let place = Segments::default();
    let log = three_segments(&place).await;
    // The making of the next segment was cut off: there was nothing in it.
    fs::write(path_of(&log.place).join(segment_file(4)), b"WLSEGMT\n").unwrap();
    fs::write(path_of(&log.place).join("journal"), vec![b'?'; 4096]).unwrap();
    let store = place.logs();
    store.seal(&log).await.unwrap();
    assert_eq!(read(&*store, &log).await, (lines(1, 30), true));
}

#[tokio::test]
async fn every_cut_of_the_last_segment_is_read_up_to_the_last_whole_entry() {
    let place = Segments::default();
    let log = place.make().await;
    place.with(&log, |writer| lines(1, 5).iter().for_each(|item| writer.write(item)));
    let path = path_of(&log.place).join(segment_file(1));
    let whole = fs::read(&path).unwrap();
    let frame = 36 + 10;
    for len in 0..=whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        let entries = len.saturating_sub(96) / frame;
        let logs = place.logs();
        let expected = lines(1, entries as u64);
        assert_eq!(read(&*logs, &log).await, (expected, false), "{len}");
    }
}

#[tokio::test]
async fn watches_last_as_long_as_their_followers() {
    let place = Segments::default();
    let log = three_segments(&place).await;
    let logs = place.logs();
    // Those of this log: other tests of this process have others.
    let inode = fs::metadata(path_of(&log.place)).unwrap().ino();
    let line = format!(" ino:{inode:x} ");
    let watches = || {
        let fds = fs::read_dir("/proc/self/fdinfo").unwrap();
        let infos = fds.filter_map(|fd| fs::read_to_string(fd.unwrap().path()).ok());
        infos.map(|info| info.matches(&line).count()).sum::<usize>()
    };
    assert_eq!(watches(), 0);
    let mut waits: Vec<_> = (0..10).map(|_| Box::pin(logs.grown(&log, Seq(30)))).collect();
    // Each is driven until it waits for a change; the last of them to arm the watch says so.
    while watches() == 0 {
        for wait in &mut waits {
            assert!(futures::poll!(wait.as_mut()).is_pending());
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(watches(), 1);
    place.with(&log, |writer| writer.write(&lines(31, 31)[0]));
    for wait in waits {
        wait.await.unwrap();
    }
    assert_eq!(watches(), 0);
}

#[tokio::test]
async fn who_follows_and_is_not_looked_after_holds_nobody_up() {
    let place = Segments::default();
    let log = three_segments(&place).await;
    let logs = place.logs();
    let mut waits: Vec<_> = (0..10).map(|_| Box::pin(logs.grown(&log, Seq(30)))).collect();
    for wait in &mut waits {
        assert!(futures::poll!(wait.as_mut()).is_pending());
    }
    assert_eq!(logs.page_after(&log, Seq(0)).await.unwrap().next, Seq(30));
}

#[tokio::test]
async fn a_read_that_was_begun_before_hides_nothing_and_holds_nobody_up() {
    let place = Segments::default();
    let log = three_segments(&place).await;
    let logs = place.logs();
    for seq in 31..=80 {
        // Begun, and not looked after any more: whoever wants the same page does not depend on it.
        let mut begun = Box::pin(logs.page_after(&log, Seq(seq - 1)));
        if let std::task::Poll::Ready(page) = futures::poll!(begun.as_mut()) {
            assert_eq!(page.unwrap().next, Seq(seq - 1));
        }
        place.with(&log, |writer| writer.write(&lines(seq, seq)[0]));
        assert_eq!(logs.page_after(&log, Seq(seq - 1)).await.unwrap().next, Seq(seq));
        logs.grown(&log, Seq(seq - 1)).await.unwrap();
    }
}

#[tokio::test]
async fn a_capped_log_of_a_real_shim_keeps_head_and_tail() {
    let local = Local::default();
    let service = local.open();
    let execution = fresh_execution();
    let place = service.prepare(execution, fresh_nonce()).await.unwrap();
    let spec = local.shell("seq 1 9000000", &[]);
    let spec = LaunchSpec { execution, log_cap_bytes: 24 << 20, ..spec };
    service.launch(&place, spec, Epoch(1)).await.unwrap();
    let run = Run { execution, place };
    let report = run.finished(&service).await;
    let logs = windlass_local::FileLogs::open(&local.runs()).unwrap();
    let log = LogKey { execution, place: run.place.clone() };
    let (items, end) = read(&*logs, &log).await;
    assert!(end);
    let kept: u64 = items
        .iter()
        .map(|item| match item {
            LogItem::Entry { len, .. } => *len,
            LogItem::Gap { .. } => 0,
        })
        .sum();
    let gaps: Vec<_> = items.iter().filter(|item| matches!(item, LogItem::Gap { .. })).collect();
    let [LogItem::Gap { bytes, cause: GapCause::Cap, .. }] = gaps[..] else { panic!("{gaps:?}") };
    assert_eq!(kept + bytes, report.bytes);
    assert_eq!(*bytes, report.dropped_bytes);
    assert_eq!(logs.status(&log).await.unwrap().dropped_bytes, report.dropped_bytes);
    let output = local.output(execution, &run.place, usize::MAX).await;
    assert!(output.starts_with(b"1\n2\n3\n"));
    assert!(output.ends_with(b"\n8999999\n9000000\n"));
}
