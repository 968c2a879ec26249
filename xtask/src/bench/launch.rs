//! From a request to its durable outcome.

use std::process::Command;
use std::thread;
use std::time::Instant;

use super::Bench;
use super::fork::Ballast;
use super::host::Host;
use super::measure::{Contender, Sample, interleave};
use super::report::{Report, Unit, Want};
use super::sync::Preallocated;
use crate::failure::{Doing, Failure};

/// How many are in flight when it is about the rate.
const IN_FLIGHT: u64 = 64;

/// Runs `true` by posix_spawn and waits for it.
pub(crate) fn spawn_true() -> Result<(), Failure> {
    // No hook, no user, a path: the standard library then takes posix_spawn.
    let status = Command::new("/bin/true").status().doing("run /bin/true")?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::new(format!("/bin/true ended with {status}")))
    }
}

/// Runs `true`, with three durable steps: that it is wanted, that it runs, how it ended.
fn spawn_true_recorded(journal: &mut Preallocated) -> Result<(), Failure> {
    journal.append()?;
    let mut child = Command::new("/bin/true").spawn().doing("run /bin/true")?;
    journal.append()?;
    let status = child.wait().doing("wait for /bin/true")?;
    journal.append()?;
    if status.success() {
        Ok(())
    } else {
        Err(Failure::new(format!("/bin/true ended with {status}")))
    }
}

/// Runs `each` times `true` on each of [`IN_FLIGHT`] threads.
fn spawn_many(each: u64) -> Result<Sample, Failure> {
    let begun = Instant::now();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..IN_FLIGHT)
            .map(|_| scope.spawn(move || (0..each).try_for_each(|_| spawn_true())))
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| Failure::new("a thread died"))?)
    })?;
    Ok(Sample::rate(each * IN_FLIGHT, begun.elapsed()))
}

pub(super) fn measure(bench: &Bench) -> Result<Report, Failure> {
    let host = bench.runtime.block_on(Host::open(&bench.data("launch")?))?;
    let mut report = Report::default();
    alone(bench, &host, &mut report)?;
    together(bench, &host, &mut report)?;
    bench.runtime.block_on(host.close())?;
    Ok(report)
}

/// One after the other, from a small and from a big host.
fn alone(bench: &Bench, host: &Host, report: &mut Report) -> Result<(), Failure> {
    let count = bench.size(200);
    let mut journal = Preallocated::new(bench, "launch-journal", 1_000)?;
    let ours =
        || Sample::each(count, || bench.runtime.block_on(host.run(&["/bin/true"])).map(drop));
    let taken = interleave(
        bench.rounds(),
        vec![
            Contender::new("posix_spawn, three synced appends", || {
                Sample::each(count, || spawn_true_recorded(&mut journal))
            }),
            Contender::new("posix_spawn", || Sample::each(count, spawn_true)),
            Contender::new("windlass, request to durable outcome", ours),
            Contender::new("windlass, from a host of 1 GiB", || {
                let ballast = Ballast::new(1 << 30);
                let sample = ours();
                ballast.check()?;
                sample
            }),
        ],
    )?;
    let [limit, bare, small, big] = taken.as_slice() else {
        return Err(Failure::new("four contenders"));
    };
    report.add(limit, Unit::Times, Some(limit), &[]);
    report.add(bare, Unit::Times, Some(limit), &[]);
    report.add(small, Unit::Times, Some(limit), &[Want::RatioAtMost(5.0)]);
    report.add(big, Unit::Times, Some(small), &[Want::RatioAtMost(1.1)]);
    Ok(())
}

/// Many in flight.
fn together(bench: &Bench, host: &Host, report: &mut Report) -> Result<(), Failure> {
    let each = bench.size(20);
    let taken = interleave(
        bench.rounds(),
        vec![
            Contender::new("posix_spawn, 64 at once", || spawn_many(each)),
            Contender::new("windlass, 64 in flight", || {
                bench.runtime.block_on(run_many(host, each))
            }),
        ],
    )?;
    let [limit, ours] = taken.as_slice() else { return Err(Failure::new("two contenders")) };
    report.add(limit, Unit::Times, Some(limit), &[]);
    report.add(ours, Unit::Times, Some(limit), &[Want::RateAtLeast(300.0)]);
    Ok(())
}

/// Runs `each` times `true` on each of [`IN_FLIGHT`] tasks, durable at each step.
async fn run_many(host: &Host, each: u64) -> Result<Sample, Failure> {
    let begun = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let host = host.clone();
        running.spawn(async move {
            for _ in 0..each {
                host.run(&["/bin/true"]).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.map_err(|error| Failure::new(format!("a task died: {error}")))??;
    }
    Ok(Sample::rate(each * IN_FLIGHT, begun.elapsed()))
}
