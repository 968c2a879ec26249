//! Making a worktree.

use std::cell::Cell;
use std::time::Instant;

use uuid::Uuid;
use windlass::core::id::AttemptId;
use windlass::core::locator::Locator;
use windlass::core::vcs_worktree::{CreateMode, Origin, VcsWorktree as _, WorktreeRequest};

use super::{Bed, at_once};
use crate::bench::measure::{Contender, Sample, interleave};
use crate::bench::report::{Report, Unit, Want};
use crate::failure::{Doing, Failure};

/// We may take as long as git.
const RATIO: f64 = 1.0;
/// What is made is not deleted in between, so there are few rounds: on some file systems a mass deletion makes creation
/// slow for minutes. For the same reason this is the last operation on its repository.
const ROUNDS: u32 = 3;

/// From the planned worktree to the acknowledged one, against `git worktree add` with a new branch, which syncs nothing.
pub(super) fn create(bed: &Bed<'_>, report: &mut Report) -> Result<(), Failure> {
    let next = Cell::new(0_u32);
    let taken = interleave(
        bed.bench.rounds().min(ROUNDS),
        vec![
            Contender::new("git worktree add", || by_git(bed, &next)),
            Contender::new("create a worktree", || by_us(bed, &next)),
        ],
    )?;
    let [theirs, ours] = taken.as_slice() else { return Err(Failure::new("two take turns")) };
    report.add(theirs, Unit::Times, None, &[]);
    let want = Want::RatioAndMore(RATIO, bed.extra());
    report.add(ours, Unit::Times, Some(theirs), &[want]);
    Ok(())
}

fn by_git(bed: &Bed<'_>, next: &Cell<u32>) -> Result<Sample, Failure> {
    let name = format!("theirs-{}", next.replace(next.get() + 1));
    let at = bed.dir.join(&name);
    let begun = Instant::now();
    bed.git(&bed.repo, &["worktree", "add", "--quiet", "-b", &name, &at.to_string_lossy()])?;
    let took = begun.elapsed().as_secs_f64();
    settle();
    Ok(Sample::latencies(vec![took]))
}

fn by_us(bed: &Bed<'_>, next: &Cell<u32>) -> Result<Sample, Failure> {
    let number = next.replace(next.get() + 1);
    let attempt = AttemptId(Uuid::from_u128(1 << 64 | u128::from(number)));
    let request = WorktreeRequest {
        attempt,
        repo: Locator::new(bed.repo.as_os_str().as_encoded_bytes()),
        base: None,
        branch: None,
        title: "creation".to_owned(),
        copy: Vec::new(),
    };
    let planned = bed.bench.runtime.block_on(bed.vcs.plan(request)).doing("plan a worktree")?;
    let begun = Instant::now();
    let made = bed.vcs.create(attempt, &planned.worktree, &Origin::Base, CreateMode::Begin);
    at_once(bed.bench.runtime.block_on(made).doing("make a worktree")?)?;
    let took = begun.elapsed().as_secs_f64();
    settle();
    Ok(Sample::latencies(vec![took]))
}

/// Lets what was written come to the disk, so that nobody pays for the one before.
fn settle() {
    rustix::fs::sync();
}
