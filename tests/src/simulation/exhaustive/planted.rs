//! The planted bugs: each must be found, or the simulation is not worth much.

use std::time::Instant;

use windlass_core::planted::Bug;

use super::super::oracle::Violation;
use super::super::plan::Plan;
use super::{Depth, Enumeration, FAMILY, SCRIPTS};

/// How a planted bug was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Which bug.
    pub bug: Bug,
    /// After which plan, and what does not hold; `None` if nothing was noticed.
    pub by: Option<(Plan, Violation)>,
    /// How many runs it took.
    pub runs: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// Plants each bug in turn and goes through the family until something does not hold, at most so long for each.
pub fn find_all(bugs: &[Bug], most_seconds: f64, mut tell: impl FnMut(&Found)) -> Vec<Found> {
    let mut all = Vec::new();
    for bug in bugs {
        let found = find(*bug, most_seconds);
        tell(&found);
        all.push(found);
    }
    all
}

/// Plants a bug and goes through the family: first everything as it is, then what goes wrong, a few commands at a time.
#[must_use]
pub fn find(bug: Bug, most_seconds: f64) -> Found {
    let begun = Instant::now();
    let mut found = Found { bug, by: None, runs: 0, seconds: 0.0 };
    let plain = std::iter::once((Depth::Plain, SCRIPTS));
    let singles = SCRIPTS.chunks(1).map(|scripts| (Depth::Singles, scripts));
    for (depth, scripts) in plain.chain(singles) {
        let left = most_seconds - begun.elapsed().as_secs_f64();
        if left <= 0.0 {
            break;
        }
        let (family, planted) = (FAMILY, Some(bug));
        let enumeration =
            Enumeration { family, scripts, depth, stops: true, most_seconds: left, planted };
        let report = enumeration.run();
        found.runs += report.runs;
        if let Some(by) = report.found.into_iter().next() {
            found.by = Some(by);
            break;
        }
    }
    found.seconds = begun.elapsed().as_secs_f64();
    found
}
