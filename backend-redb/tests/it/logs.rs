//! The file of logs: what it is not, what a kill and damage leave of it, and that what was removed makes room.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use windlass_conformance::log_store::{entry, fresh_log};
use windlass_core::log_store::{
    GapCause, LogItem, LogKey, LogStore, LogStoreError, LogStoreExt as _, Seq, Stream,
};
use windlass_redb::{RedbLogs, RedbOptions, RedbStore};

use crate::{chain, filled, open, room, run};

/// Set for the process that is to be killed: the path of the store.
const VICTIM: &str = "WINDLASS_LOGS_OF_A_VICTIM";
const CYCLES: u64 = 8;
/// The logs that a victim feeds at the same time.
const LOGS: u128 = 4;

async fn open_logs(path: &Path) -> Result<Arc<RedbLogs>, LogStoreError> {
    RedbLogs::open(path, RedbOptions::default()).await
}

fn lines(first: u64, last: u64) -> Vec<LogItem> {
    (first..=last)
        .map(|seq| entry(seq, Stream::Stdout, format!("line {seq} of a log\n").as_bytes()))
        .collect()
}

async fn all(logs: &RedbLogs, log: &LogKey) -> Vec<LogItem> {
    let (mut items, mut cursor) = (Vec::new(), Seq(0));
    loop {
        let page = logs.page_after(log, cursor).await.expect("a page");
        if page.items.is_empty() {
            return items;
        }
        items.extend(page.items.iter().cloned());
        cursor = page.next;
    }
}

#[test]
fn logs_and_records_are_not_taken_for_each_other() {
    let (directory, path) = room();
    run(async {
        filled(&path, 1).await;
        let before = fs::read(&path).expect("a file");
        let error = open_logs(&path).await.expect_err("a refusal");
        assert!(chain(&error).contains("it holds records, not logs"), "{}", chain(&error));
        assert!(fs::read(&path).expect("a file") == before);
        let path = directory.path().join("logs.redb");
        open_logs(&path).await.expect("a store").close().await;
        let before = fs::read(&path).expect("a file");
        let error = RedbStore::open(&path, RedbOptions::default()).await.expect_err("a refusal");
        assert!(chain(&error).contains("it holds logs, not records"), "{}", chain(&error));
        assert!(fs::read(&path).expect("a file") == before);
        assert!(open(&path).await.is_err());
    });
}

#[test]
fn what_a_closed_store_is_asked_fails_and_nobody_waits_for_ever() {
    let (_directory, path) = room();
    run(async {
        let logs = open_logs(&path).await.expect("a store");
        let log = fresh_log();
        logs.append(&log, lines(1, 3)).await.expect("an append");
        let waiting = {
            let (logs, log) = (Arc::clone(&logs), log.clone());
            tokio::spawn(async move { logs.grown(&log, Seq(3)).await })
        };
        tokio::task::yield_now().await;
        logs.close().await;
        assert!(waiting.await.expect("a task").is_err());
        assert!(logs.append(&log, lines(4, 4)).await.is_err());
        assert!(logs.status(&log).await.is_err());
    });
}

#[test]
fn a_damaged_item_is_a_gap_and_the_rest_is_read() {
    let (_directory, path) = room();
    run(async {
        let logs = open_logs(&path).await.expect("a store");
        let log = fresh_log();
        logs.append(&log, lines(1, 5)).await.expect("an append");
        logs.close().await;
        let mut bytes = fs::read(&path).expect("a file");
        let text = b"line 3 of a log";
        let places: Vec<usize> =
            (0..bytes.len() - text.len()).filter(|&at| bytes[at..].starts_with(text)).collect();
        assert!(!places.is_empty(), "nothing to damage");
        for at in places {
            bytes[at] ^= 1;
        }
        fs::write(&path, bytes).expect("a file");
        let logs = open_logs(&path).await.expect("a store");
        let items = all(&logs, &log).await;
        let gap =
            LogItem::Gap { first: Seq(3), last: Some(Seq(3)), bytes: 0, cause: GapCause::Power };
        assert_eq!(items, [lines(1, 2), vec![gap], lines(4, 5)].concat());
        logs.append(&log, lines(6, 6)).await.expect("the rest is usable");
        logs.close().await;
    });
}

#[test]
fn what_is_removed_makes_room_even_if_it_was_interrupted() {
    let (_directory, path) = room();
    run(async {
        let big: Vec<LogItem> =
            (1..=400).map(|seq| entry(seq, Stream::Stdout, &[b'x'; 32 << 10])).collect();
        let (gone, kept) = (fresh_log(), fresh_log());
        let logs = open_logs(&path).await.expect("a store");
        for items in big.chunks(50) {
            logs.append(&gone, items.to_vec()).await.expect("an append");
        }
        logs.append(&kept, lines(1, 9)).await.expect("an append");
        logs.remove(&gone).await.expect("a removal");
        // Whatever of it is left is removed by the next one who opens the file; it takes a file of half the size to hold
        // what is appended next to what was removed.
        logs.close().await;
        let size = fs::metadata(&path).expect("a file").len();
        let options = RedbOptions { max_bytes: Some(size), ..RedbOptions::default() };
        let logs = RedbLogs::open(&path, options).await.expect("a store");
        for items in big.chunks(50) {
            logs.append(&fresh_log(), items_from(items, 1)).await.expect("an append");
        }
        assert_eq!(all(&logs, &kept).await, lines(1, 9));
        logs.close().await;
    });
}

/// Gives items the numbers from `first` on.
fn items_from(items: &[LogItem], first: u64) -> Vec<LogItem> {
    let bytes = |item: &LogItem| match item {
        LogItem::Entry { bytes, .. } => bytes.clone(),
        LogItem::Gap { .. } => bytes::Bytes::new(),
    };
    (first..).zip(items).map(|(seq, item)| entry(seq, Stream::Stdout, &bytes(item))).collect()
}

#[test]
fn what_was_appended_before_a_kill_is_there() {
    if let Some(path) = std::env::var_os(VICTIM) {
        run(append_until_killed(Path::new(&path)));
    }
    let (_directory, path) = room();
    let mut acknowledged = [0; LOGS as usize];
    for cycle in 0..CYCLES {
        let mut victim = start(&path);
        let stdout = BufReader::new(victim.stdout.take().expect("its output"));
        let mut said = 0;
        for line in stdout.lines() {
            let line = line.expect("a line");
            let Some(text) = line.strip_prefix("acknowledged ") else { continue };
            let (log, end) = text.split_once(' ').expect("a log and its end");
            let log: usize = log.parse().expect("a log");
            acknowledged[log] = end.parse::<u64>().expect("an end");
            said += 1;
            if said == 1 + cycle * 5 {
                victim.kill().expect("a kill");
            }
        }
        assert!(said > cycle * 5, "it ended by itself");
        victim.wait().expect("an end");
        run(async {
            let logs = open_logs(&path).await.expect("a store");
            for (log, end) in (0..LOGS).zip(acknowledged) {
                let log = known_log(log);
                let last = logs.append(&log, Vec::new()).await.expect("the end");
                assert!(last >= Seq(end), "{last:?} instead of {end}");
                let expected = if last == Seq(0) { Vec::new() } else { lines(1, last.0) };
                assert_eq!(all(&logs, &log).await, expected);
            }
            logs.close().await;
        });
    }
}

fn start(path: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "logs::what_was_appended_before_a_kill_is_there", "--nocapture"])
        .env(VICTIM, path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("a victim")
}

/// The log that the victims of all cycles know.
fn known_log(n: u128) -> LogKey {
    let mut log = fresh_log();
    log.execution.0 = uuid::Uuid::from_u128(n);
    log.place.nonce.0 = uuid::Uuid::from_u128(n);
    log
}

/// Feeds several logs from where they end, as one does that was killed before.
async fn append_until_killed(path: &Path) {
    let logs = open_logs(path).await.expect("a store");
    let feeders: Vec<_> = (0..LOGS)
        .map(|n| {
            let logs = Arc::clone(&logs);
            tokio::spawn(async move {
                let log = known_log(n);
                let mut end = logs.append(&log, Vec::new()).await.expect("the end");
                loop {
                    let items = lines(end.0 + 1, end.0 + 7);
                    end = logs.append(&log, items).await.expect("an append");
                    std::io::stdout()
                        .write_all(format!("acknowledged {n} {}\n", end.0).as_bytes())
                        .expect("a listener");
                }
            })
        })
        .collect();
    for feeder in feeders {
        let _endless: () = feeder.await.expect("a feeder without end");
    }
}
