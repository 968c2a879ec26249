//! Saving a worktree.

use std::fs;
use std::time::Instant;

use windlass::core::snapshot::SnapshotNumber;
use windlass::core::vcs_worktree::{SaveFrom, SaveRequest, VcsWorktree as _};

use super::Bed;
use crate::bench::measure::{Contender, Sample, interleave};
use crate::bench::report::{Report, Unit, Want};
use crate::failure::{Doing, Failure};

/// How many files are changed, and how many are new.
const CHANGED: u64 = 90;
const NEW: u64 = 10;
/// We write to the disk, read back and compare; git does none of these.
const RATIO: f64 = 2.0;

/// A snapshot of 100 changed files, verified and on the disk, against `git stash --include-untracked`, which syncs nothing.
pub(super) fn save(bed: &Bed<'_>, report: &mut Report) -> Result<(), Failure> {
    let taken = interleave(
        bed.bench.rounds(),
        vec![
            Contender::new("git stash -u", || by_git(bed)),
            Contender::new("snapshot", || by_us(bed)),
        ],
    )?;
    let [theirs, ours] = taken.as_slice() else { return Err(Failure::new("two take turns")) };
    report.add_title(format!("{} files", bed.files));
    report.add(theirs, Unit::Times, None, &[]);
    let want = Want::RatioAndMore(RATIO, bed.extra());
    report.add(ours, Unit::Times, Some(theirs), &[want]);
    Ok(())
}

fn by_git(bed: &Bed<'_>) -> Result<Sample, Failure> {
    dirty(bed)?;
    let begun = Instant::now();
    bed.git(&bed.at, &["stash", "push", "--quiet", "--include-untracked"])?;
    let took = begun.elapsed().as_secs_f64();
    bed.git(&bed.at, &["stash", "drop", "--quiet"])?;
    Ok(Sample::latencies(vec![took]))
}

fn by_us(bed: &Bed<'_>) -> Result<Sample, Failure> {
    dirty(bed)?;
    let request =
        SaveRequest { from: SaveFrom::Place, ..SaveRequest::before_removal(SnapshotNumber::FIRST) };
    let begun = Instant::now();
    let saved = bed.vcs.save(bed.attempt, &bed.worktree, &request);
    let saved = bed.bench.runtime.block_on(saved).doing("save the worktree")?;
    let took = begun.elapsed().as_secs_f64();
    let entries = saved.snapshot.map(|snapshot| snapshot.entries);
    if entries != Some(CHANGED + NEW) {
        return Err(Failure::new(format!("the snapshot has {entries:?} entries")));
    }
    bed.git(&bed.at, &["checkout", "--quiet", "--", "."])?;
    bed.git(&bed.at, &["clean", "--quiet", "--force", "-d"])?;
    Ok(Sample::latencies(vec![took]))
}

fn dirty(bed: &Bed<'_>) -> Result<(), Failure> {
    let step = (bed.files / CHANGED).max(1);
    let numbers = (0..bed.files).step_by(usize::try_from(step).unwrap_or(1));
    for number in numbers.take(usize::try_from(CHANGED).unwrap_or_default()) {
        let file = bed.file(number);
        let mut content = fs::read(&file).doing("read a file")?;
        content.extend_from_slice(b"changed\n");
        fs::write(&file, content).doing("change a file")?;
    }
    for number in 0..NEW {
        fs::write(bed.at.join(format!("new-{number}")), "new\n".repeat(100))
            .doing("make a file")?;
    }
    Ok(())
}
