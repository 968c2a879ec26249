//! Measures the stores: durable commits by one task and by many, lists of a large store, opening after a kill; logs fed
//! and read.
//!
//! ```text
//! cargo run --release -p windlass-redb --example redb_bench -- DIRECTORY [RECORDS]
//! ```
//!
//! Makes a directory of its own below DIRECTORY (which decides the disk that is measured) and removes it. RECORDS is how
//! many records the lists walk over, a million if it is not given.

use std::error::Error;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use uuid::Uuid;
use windlass_core::container_service::Place;
use windlass_core::id::{ExecutionId, HostId, NodeId, Nonce};
use windlass_core::locator::Locator;
use windlass_core::log_store::{LogItem, LogKey, LogStore as _, LogStoreExt as _, Seq, Stream};
use windlass_core::process_store::{
    Expect, Kind, Lease, ProcessStore, Query, Record, RecordKey, Revision, Write,
};
use windlass_core::time::Timestamp;
use windlass_redb::{RedbLogs, RedbOptions, RedbStore};

type Failure = Box<dyn Error + Send + Sync>;

/// The time of the first record.
const AT: u64 = 1_700_000_000_000;
const ROUND: Duration = Duration::from_secs(3);

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let Some(directory) = arguments.next() else {
        return Err("usage: redb_bench DIRECTORY [RECORDS]".into());
    };
    if arguments.next().as_deref() == Some("--commit-until-killed") {
        return until_killed(Path::new(&directory)).await;
    }
    let records = std::env::args().nth(2).map_or(Ok(1_000_000), |text| text.parse())?;
    let directory = tempfile::tempdir_in(directory)?;

    println!("append of 220 bytes + fdatasync   {:>9.0} /s", appends(directory.path())?);
    let store = open(directory.path()).await?;
    let one = commits(&store, 1).await?;
    println!("commits by one task               {one:>9.0} /s");
    let many = commits(&store, 64).await?;
    println!("commits by 64 tasks               {many:>9.0} /s   {:.1} times as many", many / one);
    let updates = updates(&store, 64).await?;
    println!("updates by 64 tasks               {updates:>9.0} /s");

    let began = Instant::now();
    fill(&store, records).await?;
    println!("{records} records of 1 KiB written in {:.1} s", began.elapsed().as_secs_f64());
    lists(&store).await?;
    store.close().await;
    opens(directory.path()).await?;
    logs(directory.path()).await?;
    println!("resident memory                   {:>9} KiB", resident_kib());
    Ok(())
}

async fn open(directory: &Path) -> Result<Arc<RedbStore>, Failure> {
    Ok(RedbStore::open(directory.join("windlass.redb"), RedbOptions::default()).await?)
}

fn appends(directory: &Path) -> Result<f64, Failure> {
    let mut file = File::create(directory.join("append"))?;
    let (began, mut count) = (Instant::now(), 0_u32);
    while began.elapsed() < ROUND {
        file.write_all(&[b'x'; 220])?;
        file.sync_data()?;
        count += 1;
    }
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}

/// Makes an id as the engine does: it begins with its time and ends at random.
fn id(at: u64, n: u128) -> Uuid {
    let mut random = n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    random ^= random >> 64;
    let bytes = random.wrapping_mul(0xbf58_476d_1ce4_e5b9).to_be_bytes();
    let mut end = [0; 10];
    end.copy_from_slice(&bytes[6..]);
    ExecutionId::new(Timestamp(at), end).0
}

fn record(n: u128, state: &str, at: u64, body_bytes: usize) -> Record {
    Record {
        key: RecordKey { kind: Kind::Execution, id: id(at, n) },
        parent: Some(id(at, n / 3)),
        owner: (n.is_multiple_of(4)).then(|| format!("client-{}", n % 100)),
        state: state.to_owned(),
        at: Timestamp(at),
        body: format!(r#"{{"v":1,"text":"{}"}}"#, "x".repeat(body_bytes)),
    }
}

async fn acquire(store: &RedbStore) -> Result<Lease, Failure> {
    Ok(store.acquire(HostId(id(AT, 1)), NodeId(id(AT, 2))).await?)
}

/// Returns how many batches of one new record a second `tasks` tasks commit.
async fn commits(store: &Arc<RedbStore>, tasks: u32) -> Result<f64, Failure> {
    let lease = acquire(store).await?;
    let began = Instant::now();
    let tasks: Vec<_> = (0..tasks)
        .map(|task| {
            let store = Arc::clone(store);
            tokio::spawn(async move {
                let mut count = 0_u32;
                while began.elapsed() < ROUND {
                    let n = u128::from(lease.epoch.0) << 80
                        | u128::from(task) << 40
                        | u128::from(count);
                    let record = record(n, "queued", AT + u64::from(count), 190);
                    store
                        .commit(vec![Write::Put { record, expect: Expect::Absent }], lease)
                        .await?;
                    count += 1;
                }
                Ok::<_, Failure>(count)
            })
        })
        .collect();
    let mut count = 0;
    for task in tasks {
        count += task.await??;
    }
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}

/// Returns how many batches of one changed record a second `tasks` tasks commit.
async fn updates(store: &Arc<RedbStore>, tasks: u32) -> Result<f64, Failure> {
    let lease = acquire(store).await?;
    let began = Instant::now();
    let tasks: Vec<_> = (0..tasks)
        .map(|task| {
            let store = Arc::clone(store);
            tokio::spawn(async move {
                let n = u128::from(lease.epoch.0) << 80 | u128::from(task) << 40;
                let mut count = 0_u32;
                while began.elapsed() < ROUND {
                    let state = if count.is_multiple_of(2) { "running" } else { "stopping" };
                    let expect = match count {
                        0 => Expect::Absent,
                        revision => Expect::At(Revision(u64::from(revision))),
                    };
                    let record = record(n, state, 5, 190);
                    store.commit(vec![Write::Put { record, expect }], lease).await?;
                    count += 1;
                }
                Ok::<_, Failure>(count)
            })
        })
        .collect();
    let mut count = 0;
    for task in tasks {
        count += task.await??;
    }
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}

async fn fill(store: &RedbStore, records: u32) -> Result<(), Failure> {
    let lease = acquire(store).await?;
    let base = 1_u128 << 100;
    for chunk in (0..u128::from(records)).collect::<Vec<_>>().chunks(500) {
        let put = |n: &u128| {
            let state = if n.is_multiple_of(1_000) { "running" } else { "final" };
            let at = AT + u64::try_from(n * 10).unwrap_or(u64::MAX);
            Write::Put { record: record(base + n, state, at, 1_000), expect: Expect::Absent }
        };
        store.commit(chunk.iter().map(put).collect(), lease).await?;
    }
    Ok(())
}

async fn lists(store: &RedbStore) -> Result<(), Failure> {
    let newest = Query::newest(Kind::Execution, 50);
    let state = |states: &[&str]| states.iter().map(|&state| state.to_owned()).collect();
    let suffix = id(AT + 770, (1 << 100) + 77).simple().to_string();
    let queries = [
        ("newest 50", newest.clone()),
        ("newest 50 of a state", Query { states: state(&["running"]), ..newest.clone() }),
        (
            "newest 50 of three states",
            Query { states: state(&["final", "queued", "running"]), ..newest.clone() },
        ),
        ("newest 50 of an owner", Query { owner: Some("client-8".to_owned()), ..newest.clone() }),
        (
            "of a parent",
            Query { parent: Some(id(AT + 9_000, ((1_u128 << 100) + 900) / 3)), ..newest.clone() },
        ),
        (
            "id ends with 4 digits",
            Query { id_suffix: Some(suffix[28..].to_owned()), ..newest.clone() },
        ),
        ("id ends with 8 digits", Query { id_suffix: Some(suffix[24..].to_owned()), ..newest }),
    ];
    for (name, query) in queries {
        let mut times = Vec::new();
        let mut found = 0;
        for _ in 0..3_000 {
            let began = Instant::now();
            found = store.list(query.clone()).await?.records.len();
            times.push(began.elapsed().as_micros());
        }
        times.sort_unstable();
        println!(
            "{name:<28} ({found:>2} found)   p50 {:>5} µs   p99 {:>5} µs",
            times[1_500], times[2_970]
        );
    }
    Ok(())
}

/// Opens the store after a process that was committing was killed.
async fn opens(directory: &Path) -> Result<(), Failure> {
    let mut times = Vec::new();
    for _ in 0..11 {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(directory)
            .arg("--commit-until-killed")
            .stdout(Stdio::piped())
            .spawn()?;
        let mut said = String::new();
        let mut stdout = std::io::BufReader::new(child.stdout.take().ok_or("no stdout")?);
        std::io::BufRead::read_line(&mut stdout, &mut said)?;
        child.kill()?;
        child.wait()?;
        let log = std::fs::metadata(directory.join("windlass.redb"))?.len();
        let began = Instant::now();
        let store = open(directory).await?;
        store.list(Query::newest(Kind::Execution, 1)).await?;
        times.push((began.elapsed().as_micros(), log));
        store.close().await;
    }
    times.sort_unstable();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!(
        "open and first list after a kill     p50 {:>5} µs   max {:>5} µs   ({} KiB of file)",
        median.0,
        worst.0,
        median.1 / 1024
    );
    Ok(())
}

/// Commits without end; says so once a few thousand are durable.
async fn until_killed(directory: &Path) -> Result<(), Failure> {
    let store = open(directory).await?;
    let lease = acquire(&store).await?;
    for n in 0_u128.. {
        let record = record(u128::from(lease.epoch.0) << 90 | n, "queued", 9, 1_000);
        store.commit(vec![Write::Put { record, expect: Expect::Absent }], lease).await?;
        if n == 400 {
            println!("committing");
        }
    }
    Ok(())
}

/// Feeds a log in pages as a pump does, then reads it.
async fn logs(directory: &Path) -> Result<(), Failure> {
    let logs = RedbLogs::open(directory.join("logs.redb"), RedbOptions::default()).await?;
    let rounds =
        [("lines, 256 a page", 80_u32, 256, 1_000), ("entries, 16 a page", 1 << 16, 16, 300)];
    for (name, bytes, items, pages) in rounds {
        let (execution, nonce) = (ExecutionId(id(AT, u128::from(bytes))), Nonce(id(AT, 3)));
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

/// Returns the resident memory of this process, 0 where there is no `/proc`.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
