//! Removing a worktree.

use std::cell::Cell;
use std::time::Instant;

use uuid::Uuid;
use windlass::core::id::AttemptId;
use windlass::core::snapshot::SnapshotNumber;
use windlass::core::vcs_worktree::{SaveRequest, VcsWorktree as _, VcsWorktreeExt as _};

use super::Bed;
use crate::bench::measure::{Contender, Sample, interleave};
use crate::bench::report::{Report, Unit, Want};
use crate::failure::{Doing, Failure};

/// Each round deletes two worktrees, and deleting makes everything else slow for a while.
const ROUNDS: u32 = 3;
/// What a removal may take longer than looking whether the worktree is dirty, in seconds.
const EXTRA_SECONDS: f64 = 0.050;

/// From the request until nothing of a clean worktree is in anybody's way, against `dirty?`, which looks at as much, and
/// against `git worktree remove`, which deletes the files meanwhile.
pub(super) fn remove(bed: &Bed<'_>, report: &mut Report) -> Result<(), Failure> {
    let next = Cell::new(0_u32);
    let taken = interleave(
        bed.bench.rounds().min(ROUNDS),
        vec![
            Contender::new("dirty?", || look(bed)),
            Contender::new("git worktree remove --force", || by_git(bed, &next)),
            Contender::new("save and remove", || by_us(bed, &next)),
        ],
    )?;
    let [look, theirs, ours] = taken.as_slice() else {
        return Err(Failure::new("three take turns"));
    };
    report.add_title(format!("{} files", bed.files));
    report.add(look, Unit::Times, None, &[]);
    report.add(theirs, Unit::Times, Some(look), &[]);
    let want = Want::RatioAndMore(1.0, EXTRA_SECONDS + bed.extra());
    report.add(ours, Unit::Times, Some(look), &[want]);
    Ok(())
}

fn look(bed: &Bed<'_>) -> Result<Sample, Failure> {
    let begun = Instant::now();
    let status = bed.vcs.status(bed.attempt, &bed.worktree);
    let status = bed.bench.runtime.block_on(status).doing("ask for the status")?;
    let took = begun.elapsed().as_secs_f64();
    if status.dirty {
        return Err(Failure::new("the worktree is dirty"));
    }
    Ok(Sample::latencies(vec![took]))
}

fn by_git(bed: &Bed<'_>, next: &Cell<u32>) -> Result<Sample, Failure> {
    let at = bed.dir.join(format!("to-remove-{}", next.replace(next.get() + 1)));
    let path = at.to_string_lossy();
    bed.git(&bed.repo, &["worktree", "add", "--quiet", "--detach", &path])?;
    settle(bed)?;
    let begun = Instant::now();
    bed.git(&bed.repo, &["worktree", "remove", "--force", &path])?;
    let took = begun.elapsed().as_secs_f64();
    settle(bed)?;
    Ok(Sample::latencies(vec![took]))
}

fn by_us(bed: &Bed<'_>, next: &Cell<u32>) -> Result<Sample, Failure> {
    let attempt = AttemptId(Uuid::from_u128(2 << 64 | u128::from(next.replace(next.get() + 1))));
    let worktree = bed.create(attempt)?;
    settle(bed)?;
    // As an engine does when a command has ended in it: what takes its turn here looks at one that was looked at, too.
    let status = bed.bench.runtime.block_on(bed.vcs.status(attempt, &worktree));
    status.doing("ask for the status")?;
    let request = SaveRequest::before_removal(SnapshotNumber::FIRST);
    let begun = Instant::now();
    let removed = bed.vcs.save_and_remove(attempt, &worktree, &request);
    let saved = bed.bench.runtime.block_on(removed).doing("remove the worktree")?;
    let took = begun.elapsed().as_secs_f64();
    if saved.snapshot.is_some() {
        return Err(Failure::new("a clean worktree was saved"));
    }
    settle(bed)?;
    Ok(Sample::latencies(vec![took]))
}

/// Lets what was written and deleted come to the disk, so that nobody pays for the one before.
fn settle(bed: &Bed<'_>) -> Result<(), Failure> {
    bed.bench.runtime.block_on(bed.vcs.settle()).doing("empty the trash")?;
    rustix::fs::sync();
    Ok(())
}
