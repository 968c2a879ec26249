//! From a request to its durable outcome.

use std::process::Command;
use std::thread;
use std::time::Instant;

use super::Bench;
use super::measure::{Contender, Sample, interleave};
use super::report::{Report, Unit};
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
    let count = bench.size(200);
    let mut journal = Preallocated::new(bench, "launch-journal", 1_000)?;
    let alone = interleave(
        bench.rounds(),
        vec![
            Contender::new("posix_spawn, three synced appends", || {
                Sample::each(count, || spawn_true_recorded(&mut journal))
            }),
            Contender::new("posix_spawn", || Sample::each(count, spawn_true)),
        ],
    )?;
    let each = bench.size(20);
    let many = interleave(
        bench.rounds(),
        vec![Contender::new("posix_spawn, 64 at once", || {
            spawn_many(each)
        })],
    )?;
    let mut report = Report::compared(&alone, Unit::Times);
    for one in &many {
        report.add(one, Unit::Times, None, &[]);
    }
    Ok(report)
}
