//! Events to many followers: an engine as an embedding program has it, and its API.
//!
//! Records are put into the store beside the engine, under the lease of another node, many in a batch: nothing that an engine
//! does by itself makes so many changes. A change of a task after each batch is what wakes the followers.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;
use windlass::api::HostKind;
use windlass::api::server::{ServeOptions, serve};
use windlass::api::socket;
use windlass::core::id::{HostId, NodeId, TaskId};
use windlass::core::locator::Locator;
use windlass::core::process_store::{
    ChangeNumber, Expect, Kind, Lease, ProcessStore as _, Record, RecordKey, Write,
};
use windlass::core::time::Timestamp;
use windlass::request::{Caller, ProjectChange, ProjectRequest, TaskChange, TaskRequest};
use windlass_tests::repo::TempRepo;

use super::Bench;
use super::host::Host;
use super::measure::{Contender, Sample, Taken, interleave};
use super::report::{Report, Unit, Want};
use crate::failure::{Doing, Failure};

/// How many follow.
const FOLLOWERS: u32 = 100;

/// How many records a batch has.
const BATCH: u32 = 200;

/// How many events a second there are to be.
const RATE: u32 = 10_000;

/// Makes changes of an engine's store.
struct Changes {
    host: Host,
    lease: Lease,
    task: TaskId,
    next: u128,
}

impl Changes {
    async fn new(bench: &Bench) -> Result<Self, Failure> {
        let host = Host::open(&bench.data("events")?).await?;
        let repo = TempRepo::with_commit();
        let caller = Caller::default;
        let repo = Locator::new(repo.path().as_os_str().as_encoded_bytes());
        let request = ProjectRequest { repo, with: ProjectChange::default() };
        let project = host.handle.add_project(caller(), request).await.doing("add a project")?;
        let (title, description) = ("0".to_owned(), String::new());
        let request = TaskRequest { project: project.record.id, title, description, parent: None };
        let task = host.handle.add_task(caller(), request).await.doing("add a task")?.record.id;
        let other = NodeId(Uuid::from_u128(2));
        let me = HostId(Uuid::from_u128(2));
        let lease = host.store.acquire(me, other).await.doing("take another node's lease")?;
        Ok(Self { host, lease, task, next: 1 << 64 })
    }

    /// Makes a batch of changes and one that wakes; returns the number of the last.
    async fn make(&mut self) -> Result<ChangeNumber, Failure> {
        let mut batch = Vec::new();
        for _ in 0..BATCH {
            self.next += 1;
            let record = Record {
                key: RecordKey { kind: Kind::Execution, id: Uuid::from_u128(self.next) },
                parent: Some(Uuid::from_u128(1)),
                owner: None,
                state: "final".to_owned(),
                at: Timestamp(1),
                body: "{}".to_owned(),
            };
            batch.push(Write::Put { record, expect: Expect::Absent });
        }
        let number = self.host.store.commit(batch, self.lease).await.doing("commit")?;
        let change = TaskChange { title: Some(self.next.to_string()), ..TaskChange::default() };
        let set = self.host.handle.set_task(Caller::default(), self.task, None, change);
        set.await.doing("change a task")?;
        Ok(ChangeNumber(number.0 + 1))
    }
}

/// What followers tell: up to which number they have seen everything, and when.
type Seen = tokio::sync::mpsc::UnboundedSender<(ChangeNumber, Instant)>;

/// Follows from a number on, and counts; ends after `last`, which is told when it is known.
async fn follow(
    host: Host,
    after: ChangeNumber,
    mut last: watch::Receiver<Option<ChangeNumber>>,
    seen: Option<Seen>,
) -> Result<u64, Failure> {
    let mut events = host.handle.events(&Caller::default(), after);
    let mut count = 0;
    loop {
        if last.borrow_and_update().is_some_and(|last| events.after() >= last) {
            return Ok(count);
        }
        tokio::select! {
            biased;
            page = events.next() => {
                count += page.doing("follow")?.iter().count() as u64;
                if let Some(seen) = &seen {
                    // Whoever measures may have left.
                    let _gone = seen.send((events.after(), Instant::now()));
                }
            }
            _ = last.changed() => {}
        }
    }
}

/// Lets many follow while `batches` are made, one after the other or as the rate says; returns how long it took until all had
/// seen all, and of each batch how long until the one who follows last had it.
async fn live(bench: &Bench, batches: u64, paced: bool) -> Result<(Duration, Vec<f64>), Failure> {
    let mut changes = Changes::new(bench).await?;
    let beyond = ChangeNumber(u64::MAX >> 1);
    let page = changes.host.handle.changes(&Caller::default(), beyond, 1).await;
    let after = page.doing("read changes")?.last;
    let (tell, last) = watch::channel(None);
    let (seen, mut times) = tokio::sync::mpsc::unbounded_channel();
    let mut followers = JoinSet::new();
    for n in 0..FOLLOWERS {
        let seen = (n + 1 == FOLLOWERS).then(|| seen.clone());
        followers.spawn(follow(changes.host.clone(), after, last.clone(), seen));
    }
    drop(seen);
    let begun = Instant::now();
    let step = Duration::from_secs(1) * BATCH / RATE;
    let mut ticks = tokio::time::interval(step);
    let mut made = Vec::new();
    for _ in 0..batches {
        if paced {
            ticks.tick().await;
        }
        made.push((changes.make().await?, Instant::now()));
    }
    tell.send_replace(made.last().map(|(number, _)| *number));
    while let Some(joined) = followers.join_next().await {
        let counted = joined.map_err(|error| Failure::new(error.to_string()))??;
        if counted != events(batches) {
            return Err(Failure::new(format!("a follower saw {counted} events")));
        }
    }
    let took = begun.elapsed();
    let (mut waits, mut had) = (Vec::new(), Vec::new());
    while let Ok(one) = times.try_recv() {
        had.push(one);
    }
    for (number, at) in made {
        let first = had.iter().find(|(seen, _)| *seen >= number);
        waits.extend(first.map(|(_, seen)| seen.saturating_duration_since(at).as_secs_f64()));
    }
    changes.host.close().await?;
    Ok((took, waits))
}

/// Reads a stream of events over the socket and counts its lines, as little as a client can do; ends after so many.
async fn read(socket: PathBuf, lines: u64) -> Result<(), Failure> {
    let mut stream = socket::connect(&socket).await.doing("connect")?;
    let request = "GET /v1/events?follow=true HTTP/1.1\r\nhost: windlass\r\n\r\n";
    stream.write_all(request.as_bytes()).await.doing("ask for events")?;
    let (mut buffer, mut seen, mut before) = (vec![0; 1 << 16], 0, 0);
    while seen < lines {
        let count = stream.read(&mut buffer).await.doing("read events")?;
        if count == 0 {
            return Err(Failure::new(format!("the stream ended after {seen} events")));
        }
        for &byte in &buffer[..count] {
            // Every event is an object that ends its line; nothing else does.
            seen += u64::from(before == b'}' && byte == b'\n');
            before = byte;
        }
    }
    Ok(())
}

/// Lets many clients of the API follow while `batches` are made; returns how long it took until all had read all.
async fn served(bench: &Bench, batches: u64) -> Result<Duration, Failure> {
    let mut changes = Changes::new(bench).await?;
    let path = bench.data("events-api")?.dir.join("s");
    let listener = socket::bind(&path).doing("bind a socket")?;
    let (close, closing) = watch::channel(false);
    let (clients, _counted) = watch::channel(0);
    let options = ServeOptions {
        kind: HostKind::Embedded,
        version: "0".to_owned(),
        pid: 0,
        stop: None,
        clients,
        closing,
        keeps: None,
    };
    let server = tokio::spawn(serve(changes.host.handle.clone(), listener, options));
    let begun = Instant::now();
    let mut readers = JoinSet::new();
    for _ in 0..FOLLOWERS {
        // With those of the project and its task.
        readers.spawn(read(path.clone(), 2 + events(batches)));
    }
    for _ in 0..batches {
        changes.make().await?;
    }
    while let Some(joined) = readers.join_next().await {
        joined.map_err(|error| Failure::new(error.to_string()))??;
    }
    let took = begun.elapsed();
    close.send_replace(true);
    let served = server.await.map_err(|error| Failure::new(error.to_string()))?;
    served.doing("serve")?;
    changes.host.close().await?;
    Ok(took)
}

pub(super) fn measure(bench: &Bench) -> Result<Report, Failure> {
    let batches = bench.size(500);
    let mut report = Report::default();
    report.add_title(format!("{FOLLOWERS} followers in the program, {RATE} events a second"));
    let (took, waits) = bench.runtime.block_on(live(bench, batches, true))?;
    let paced = Taken { label: "seen by each", samples: vec![rate(batches, took)] };
    // It takes as long as its batches are apart, and what the last one takes.
    report.add(&paced, Unit::Times, None, &[Want::RateAtLeast(f64::from(RATE) * 0.95)]);
    let behind = "from durable to seen by the last one";
    report.add_sample(behind, Sample::latencies(waits), &[Want::P99AtMost(0.05)]);
    report.add_title(format!("{FOLLOWERS} followers, as fast as changes are made"));
    let taken = interleave(
        bench.rounds(),
        vec![
            Contender::new("seen by each, in the program", || {
                let (took, _) = bench.runtime.block_on(live(bench, batches, false))?;
                Ok(rate(batches, took))
            }),
            Contender::new("read by each, over the API", || {
                Ok(rate(batches, bench.runtime.block_on(served(bench, batches))?))
            }),
        ],
    )?;
    for one in &taken {
        report.add(one, Unit::Times, None, &[Want::RateAtLeast(f64::from(RATE))]);
    }
    Ok(report)
}

/// Counts the events of so many batches.
fn events(batches: u64) -> u64 {
    batches * u64::from(BATCH + 1)
}

/// Returns how many events each follower saw a second.
fn rate(batches: u64, took: Duration) -> Sample {
    Sample::rate(events(batches), took)
}
