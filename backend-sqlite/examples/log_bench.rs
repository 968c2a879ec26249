//! Measures the store of logs: fed in pages, then read.
//!
//! ```text
//! cargo run --release -p windlass-sqlite --example log_bench -- DIRECTORY
//! ```
//!
//! Makes a directory of its own below DIRECTORY (which decides the disk that is measured) and removes it.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use bytes::Bytes;
use uuid::Uuid;
use windlass_core::container_service::Place;
use windlass_core::id::{ExecutionId, Nonce};
use windlass_core::locator::Locator;
use windlass_core::log_store::{LogItem, LogKey, LogStore as _, LogStoreExt as _, Seq, Stream};
use windlass_core::time::Timestamp;
use windlass_sqlite::{SqliteLogs, SqliteOptions};

type Failure = Box<dyn Error + Send + Sync>;

/// The time of each entry.
const AT: u64 = 1_700_000_000_000;

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let directory = std::env::args().nth(1).ok_or("usage: log_bench DIRECTORY")?;
    logs(tempfile::tempdir_in(directory)?.path()).await
}

/// Feeds a log in pages as a pump does, then reads it.
async fn logs(directory: &Path) -> Result<(), Failure> {
    let logs = SqliteLogs::open(directory.join("logs.db"), SqliteOptions::default()).await?;
    let rounds =
        [("lines, 256 a page", 80_u32, 256, 1_000), ("entries, 16 a page", 1 << 16, 16, 300)];
    for (name, bytes, items, pages) in rounds {
        let (execution, nonce) =
            (ExecutionId(Uuid::from_u128(u128::from(bytes))), Nonce(Uuid::nil()));
        let place = Place { locator: Locator::new("bench"), nonce, identity: String::new() };
        let log = LogKey { execution, place };
        let text = Bytes::from(vec![b'x'; usize::try_from(bytes)?]);
        let began = Instant::now();
        for page in 0..pages {
            let entry = |n: u64| LogItem::Entry {
                seq: Seq(page * items + n),
                at: Timestamp(AT),
                stream: Stream::Stdout,
                partial: false,
                bytes: text.clone(),
                len: u64::from(bytes),
            };
            logs.append(&log, (1..=items).map(entry).collect()).await?;
        }
        let fed = began.elapsed().as_secs_f64();
        let (began, mut cursor) = (Instant::now(), Seq(0));
        while cursor < Seq(items * pages) {
            cursor = logs.page_after(&log, cursor).await?.next;
        }
        let read = began.elapsed().as_secs_f64();
        let (count, mib) = (items * pages, (items * pages * u64::from(bytes)) >> 20);
        println!("log of {count} {name}: {mib} MiB fed in {fed:.2} s, read in {read:.2} s");
    }
    logs.close().await;
    Ok(())
}
