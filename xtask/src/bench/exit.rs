//! From the exit of a command to somebody who waits for it knowing the durable outcome.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::Bench;
use super::host::Host;
use super::measure::{Contender, Sample, interleave};
use super::report::{Report, Unit, Want};
use super::sync::Preallocated;
use crate::failure::{Doing, Failure};

/// How many are in flight when it is about crowds.
const CROWD: u64 = 32;

/// What may come on top of waitpid and a synced append, in seconds.
const ON_TOP: f64 = 1e-3;

/// Returns the time that all processes share, in nanoseconds.
fn now() -> i128 {
    let time = clock_gettime(ClockId::Monotonic);
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

/// Waits a while, then writes the time into a file as the last thing that this process does.
pub(super) fn stamp(path: &Path, after: Duration) -> Result<(), Failure> {
    thread::sleep(after);
    fs::write(path, now().to_string()).doing("write the time")
}

/// Returns the seconds since the time in a file.
#[expect(clippy::cast_precision_loss, reason = "nanoseconds of minutes are far below 2^52")]
fn since(path: &Path) -> Result<f64, Failure> {
    let now = now();
    let text = fs::read_to_string(path).doing("read the time of an exit")?;
    let then: i128 = text.parse().map_err(|_| Failure::new(format!("{text:?} is no time")))?;
    fs::remove_file(path).doing("remove the time of an exit")?;
    Ok((now - then) as f64 / 1e9)
}

pub(super) fn measure(bench: &Bench) -> Result<Report, Failure> {
    let count = bench.size(200);
    let program = env::current_exe().doing("find this program")?;
    let mut journal = Preallocated::new(bench, "exit-journal", 1_000)?;
    let host = bench.runtime.block_on(Host::open(&bench.data("exit")?))?;
    let taken = interleave(
        bench.rounds(),
        vec![
            Contender::new("waitpid, synced append", || {
                let path = bench.path("exit-limit");
                let mut seconds = Vec::new();
                for _ in 0..count {
                    let status = Command::new(&program).args(["part", "stamp"]).arg(&path).status();
                    let status = status.doing("run the stamp")?;
                    journal.append()?;
                    if !status.success() {
                        return Err(Failure::new(format!("the stamp ended with {status}")));
                    }
                    seconds.push(since(&path)?);
                }
                Ok(Sample::latencies(seconds))
            }),
            Contender::new("windlass, one at a time", || {
                bench.runtime.block_on(async {
                    let path = bench.path("exit-ours-0");
                    let seconds = stamps(&host, &program, path, count, 0).await?;
                    Ok(Sample::latencies(seconds))
                })
            }),
            Contender::new("windlass, 32 in flight", || {
                bench.runtime.block_on(crowd(bench, &host, &program, true))
            }),
            Contender::new("windlass, 32 that start and end at once", || {
                bench.runtime.block_on(crowd(bench, &host, &program, false))
            }),
        ],
    )?;
    bench.runtime.block_on(host.close())?;
    let [limit, alone, crowded, storm] = taken.as_slice() else {
        return Err(Failure::new("four contenders"));
    };
    let mut report = Report::default();
    report.add(limit, Unit::Times, Some(limit), &[]);
    report.add(alone, Unit::Times, Some(limit), &[Want::MedianAtMost(limit.figure() + ON_TOP)]);
    report.add(crowded, Unit::Times, Some(limit), &[Want::P99AtMost(5e-3)]);
    // Both processors are busy with starting processes all the while: this shows how long one waits for a turn.
    report.add(storm, Unit::Times, Some(limit), &[]);
    Ok(report)
}

/// Runs the stamp `count` times, one after the other; each waits `after_ms` before it ends.
async fn stamps(
    host: &Host,
    program: &Path,
    path: PathBuf,
    count: u64,
    after_ms: u64,
) -> Result<Vec<f64>, Failure> {
    let after = after_ms.to_string();
    let (Some(program), Some(text)) = (program.to_str(), path.to_str()) else {
        return Err(Failure::new("the target directory is not UTF-8"));
    };
    let mut seconds = Vec::new();
    for _ in 0..count {
        host.run(&[program, "part", "stamp", text, &after]).await?;
        seconds.push(since(&path)?);
    }
    Ok(seconds)
}

/// Keeps [`CROWD`] executions in flight. `staggered` ones live for a while, each its own, so that their ends are apart.
async fn crowd(
    bench: &Bench,
    host: &Host,
    program: &Path,
    staggered: bool,
) -> Result<Sample, Failure> {
    let each = bench.size(20);
    let mut running = tokio::task::JoinSet::new();
    for number in 0..CROWD {
        let (host, program) = (host.clone(), program.to_owned());
        let path = bench.path(&format!("exit-ours-{number}"));
        let after_ms = if staggered { 500 + 17 * number } else { 0 };
        running.spawn(async move { stamps(&host, &program, path, each, after_ms).await });
    }
    let mut seconds = Vec::new();
    while let Some(ended) = running.join_next().await {
        seconds.extend(ended.map_err(|error| Failure::new(format!("a task died: {error}")))??);
    }
    Ok(Sample::latencies(seconds))
}
