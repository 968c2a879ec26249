//! Logs in databases: fed in pages, as a pump does, and read.

use std::cell::Cell;
use std::time::Instant;

use bytes::Bytes;
use uuid::Uuid;
use windlass::core::container_service::Place;
use windlass::core::id::{ExecutionId, Nonce};
use windlass::core::locator::Locator;
use windlass::core::log_store::{LogItem, LogKey, LogStoreExt as _, Seq, Stream};
use windlass::core::time::Timestamp;

use super::Bench;
use super::databases::{Database, Logs};
use super::measure::{Contender, Sample, interleave};
use super::report::{Report, Unit};
use crate::failure::{Doing, Failure};

/// Pages of what a command writes.
#[derive(Clone, Copy)]
struct Pages {
    entry_bytes: u64,
    entries: u64,
    count: u64,
}

impl Pages {
    fn bytes(self) -> u64 {
        self.entry_bytes * self.entries * self.count
    }

    fn page(self, page: u64, text: &Bytes) -> Vec<LogItem> {
        let entry = |number: u64| LogItem::Entry {
            seq: Seq(page * self.entries + number),
            at: Timestamp(1_700_000_000_000),
            stream: Stream::Stdout,
            partial: false,
            bytes: text.clone(),
            len: self.entry_bytes,
        };
        (1..=self.entries).map(entry).collect()
    }
}

/// Feeds a log that nobody has; returns its name.
async fn feed(logs: &Logs, number: u64, pages: Pages) -> Result<LogKey, Failure> {
    let nonce = Nonce(Uuid::from_u128(u128::from(number)));
    let place = Place { locator: Locator::new("bench"), nonce, identity: String::new() };
    let log = LogKey { execution: ExecutionId(Uuid::from_u128(u128::from(number))), place };
    let text = Bytes::from(vec![b'x'; usize::try_from(pages.entry_bytes).unwrap_or(0)]);
    for page in 0..pages.count {
        logs.port.append(&log, pages.page(page, &text)).await.doing("append a page")?;
    }
    Ok(log)
}

async fn read(logs: &Logs, log: &LogKey, pages: Pages) -> Result<(), Failure> {
    let (mut cursor, mut bytes) = (Seq(0), 0);
    while cursor < Seq(pages.entries * pages.count) {
        let page = logs.port.page_after(log, cursor).await.doing("read a page")?;
        if page.items.is_empty() {
            return Err(Failure::new(format!("the log ends at {}", cursor.0)));
        }
        for item in page.items.iter() {
            if let LogItem::Entry { len, .. } = item {
                bytes += len;
            }
        }
        cursor = page.next;
    }
    if bytes == pages.bytes() {
        Ok(())
    } else {
        Err(Failure::new(format!("{bytes} bytes of {} are in the log", pages.bytes())))
    }
}

pub(super) fn measure(bench: &Bench) -> Result<Report, Failure> {
    let lines = Pages { entry_bytes: 80, entries: 256, count: bench.size(500) };
    let blocks = Pages { entry_bytes: 1 << 16, entries: 16, count: bench.size(100) };
    let mut report = Report::default();
    for (what, pages) in
        [("lines of 80 bytes, 256 a page", lines), ("entries of 64 KiB, 16 a page", blocks)]
    {
        report.add_title(what.to_owned());
        let next = Cell::new(0);
        let logs = Database::ALL.map(|database| {
            let path = bench.path(&format!("logs-{}.{}", pages.entries, database.as_str()));
            bench.runtime.block_on(Logs::open(database, &path))
        });
        let [sqlite, redb] = logs;
        let (sqlite, redb) = (sqlite?, redb?);
        let fed = |logs: &Logs| {
            let number = next.replace(next.get() + 1) + 1;
            let begun = Instant::now();
            bench.runtime.block_on(feed(logs, number, pages))?;
            Ok(Sample::rate(pages.bytes(), begun.elapsed()))
        };
        let [old_sqlite, old_redb] =
            [&sqlite, &redb].map(|logs| bench.runtime.block_on(feed(logs, u64::MAX, pages)));
        let (old_sqlite, old_redb) = (old_sqlite?, old_redb?);
        let was_read = |logs: &Logs, log: &LogKey| {
            let begun = Instant::now();
            bench.runtime.block_on(read(logs, log, pages))?;
            Ok(Sample::rate(pages.bytes(), begun.elapsed()))
        };
        let taken = interleave(
            bench.rounds(),
            vec![
                Contender::new("sqlite, fed", || fed(&sqlite)),
                Contender::new("redb, fed", || fed(&redb)),
                Contender::new("sqlite, read", || was_read(&sqlite, &old_sqlite)),
                Contender::new("redb, read", || was_read(&redb, &old_redb)),
            ],
        )?;
        for one in &taken {
            report.add(one, Unit::Bytes, None, &[]);
        }
        bench.runtime.block_on(async {
            sqlite.close().await;
            redb.close().await;
        });
    }
    Ok(report)
}
