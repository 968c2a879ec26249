//! Records: what one writer and many commit, how long a list takes among a million, and an opening after `kill -9`.

use std::env;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use windlass::core::process_store::{Kind, Query};

use super::Bench;
use super::databases::{Database, Store, parent, record};
use super::measure::{Contender, Sample, interleave};
use super::report::{Report, Unit, Want};
use super::sync::Preallocated;
use crate::failure::{Doing, Failure};

/// How many commit at once.
const TASKS: u64 = 64;

/// How many records a long list has.
const RECORDS: u64 = 1_000_000;

/// Records in one batch when it is about having many.
const BATCH: u64 = 1_000;

/// Commits `count` records one by one, on each of `tasks` tasks; `first` is a number that no record has.
async fn commit(open: &Store, first: u64, tasks: u64, count: u64) -> Result<Sample, Failure> {
    let begun = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for task in 0..tasks {
        let open = open.clone();
        let from = first + task * count;
        running.spawn(async move {
            for number in from..from + count {
                open.create(std::iter::once(number)).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.map_err(|error| Failure::new(format!("a task died: {error}")))??;
    }
    Ok(Sample::rate(tasks * count, begun.elapsed()))
}

pub(super) fn measure(bench: &Bench, database: Database) -> Result<Report, Failure> {
    let mut report = Report::default();
    writers(bench, database, &mut report)?;
    let path = bench.path(&format!("million.{}", database.as_str()));
    fill(bench, database, &path)?;
    lists(bench, database, &path, &mut report)?;
    openings(bench, database, &path, &mut report)?;
    Ok(report)
}

fn writers(bench: &Bench, database: Database, report: &mut Report) -> Result<(), Failure> {
    let count = bench.size(1_000);
    let path = bench.path(&format!("writers.{}", database.as_str()));
    let open = bench.runtime.block_on(Store::open(database, &path))?;
    let next = std::cell::Cell::new(0);
    let numbers = |count: u64| next.replace(next.get() + count);
    let mut journal = Preallocated::new(bench, &format!("journal-{}", database.as_str()), count)?;
    let taken = interleave(
        bench.rounds(),
        vec![
            Contender::new("preallocated file, fdatasync", || {
                let begun = Instant::now();
                (0..count).try_for_each(|_| journal.append())?;
                Ok(Sample::rate(count, begun.elapsed()))
            }),
            Contender::new("one task", || {
                bench.runtime.block_on(commit(&open, numbers(count), 1, count))
            }),
            Contender::new("64 tasks", || {
                let each = count.div_ceil(4);
                bench.runtime.block_on(commit(&open, numbers(TASKS * each), TASKS, each))
            }),
        ],
    )?;
    let [limit, one, many] = taken.as_slice() else {
        return Err(Failure::new("three contenders"));
    };
    report.add(limit, Unit::Times, Some(limit), &[]);
    report.add(one, Unit::Times, Some(limit), &[]);
    report.add(many, Unit::Times, Some(one), &[Want::RatioAtLeast(4.0)]);
    bench.runtime.block_on(open.close());
    Ok(())
}

/// Makes a store with many records.
fn fill(bench: &Bench, database: Database, path: &Path) -> Result<(), Failure> {
    let records = bench.size(RECORDS);
    bench.runtime.block_on(async {
        let open = Store::open(database, path).await?;
        for first in (0..records).step_by(usize::try_from(BATCH).unwrap_or(usize::MAX)) {
            open.create(first..first + BATCH).await?;
        }
        let query = Query::newest(Kind::Execution, 1);
        let newest = open.port.list(query).await.doing("list the newest")?;
        open.close().await;
        match newest.records.first() {
            Some(stored) if stored.record == record(records - 1) => Ok(()),
            found => Err(Failure::new(format!("of {records} records the newest is {found:?}"))),
        }
    })
}

fn lists(
    bench: &Bench,
    database: Database,
    path: &Path,
    report: &mut Report,
) -> Result<(), Failure> {
    let open = bench.runtime.block_on(Store::open(database, path))?;
    let count = bench.size(2_000);
    let newest = Query::newest(Kind::Execution, 50);
    let running = Query { states: vec!["running".to_owned()], ..newest.clone() };
    let owned = Query { owner: Some("client-8".to_owned()), ..newest.clone() };
    let children = Query { parent: Some(parent(7)), ..newest.clone() };
    let list = |query: &Query| {
        Sample::each(count, || {
            let page = bench.runtime.block_on(open.port.list(query.clone())).doing("list")?;
            let full = page.records.len() == 50;
            if full { Ok(()) } else { Err(Failure::new(format!("{} of 50", page.records.len()))) }
        })
    };
    let taken = interleave(
        bench.rounds(),
        vec![
            Contender::new("newest 50 of a million", || list(&newest)),
            Contender::new("newest 50 of a million, one state", || list(&running)),
            Contender::new("newest 50 of a million, one owner", || list(&owned)),
            Contender::new("newest 50 of a million, one parent", || list(&children)),
        ],
    )?;
    for one in &taken {
        report.add(one, Unit::Times, None, &[Want::P99AtMost(250e-6)]);
    }
    bench.runtime.block_on(open.close());
    Ok(())
}

fn openings(
    bench: &Bench,
    database: Database,
    path: &Path,
    report: &mut Report,
) -> Result<(), Failure> {
    let records = bench.size(1_000);
    let taken = interleave(
        bench.rounds(),
        vec![Contender::new("open after kill -9, to the first answer", || {
            kill_a_writer(database, path, records)?;
            let begun = Instant::now();
            let store = bench.runtime.block_on(async {
                let store = Store::look(database, path).await?;
                let newest = Query::newest(Kind::Execution, 50);
                store.port.list(newest).await.doing("list")?;
                Ok::<_, Failure>(store)
            })?;
            let took = begun.elapsed().as_secs_f64();
            bench.runtime.block_on(store.close());
            Ok(Sample::latencies(vec![took]))
        })],
    )?;
    for one in &taken {
        report.add(one, Unit::Times, None, &[Want::MedianAtMost(5e-3)]);
    }
    Ok(())
}

/// Starts a process that commits to the store at `path`, and kills it while it has it open.
fn kill_a_writer(database: Database, path: &Path, records: u64) -> Result<(), Failure> {
    let program = env::current_exe().doing("find this program")?;
    let mut writer = Command::new(program)
        .args(["part", "commit", database.as_str()])
        .arg(path)
        .arg(records.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .doing("start a writer")?;
    let pipe = writer.stdout.take().ok_or_else(|| Failure::new("the writer has no pipe"))?;
    let mut said = String::new();
    BufReader::new(pipe).read_line(&mut said).doing("hear of the writer")?;
    writer.kill().doing("kill the writer")?;
    let status = writer.wait().doing("wait for the writer")?;
    if said.trim() == "committed" {
        Ok(())
    } else {
        Err(Failure::new(format!("the writer ended with {status}")))
    }
}

pub(super) fn commit_and_wait(
    database: Database,
    path: &Path,
    records: u64,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Runtime::new().doing("make a runtime")?;
    runtime.block_on(async {
        let open = Store::open(database, path).await?;
        let newest = open.port.list(Query::newest(Kind::Execution, 1)).await.doing("list")?;
        let first = newest.records.first().map_or(0, |stored| stored.record.at.0 + 1);
        commit(&open, first, 1, records).await?;
        println!("committed");
        io::stdout().flush().doing("say so")?;
        // Killed here; or the one who would do so has died, and our input ends.
        io::stdin().read(&mut [0]).doing("wait to be killed").map(drop)
    })
}
