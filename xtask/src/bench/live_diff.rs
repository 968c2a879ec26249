//! The diff of a large worktree as it changes: the first look, an edit, many changes at once, and what it costs to watch.

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use windlass::core::diff_ledger::DiffMirror;
use windlass::core::diff_watch::{DiffFollower, DiffWatch as _};
use windlass::core::vcs_worktree::{DiffDetail, VcsWorktree as _};
use windlass_local::GitWorktrees;

use super::Bench;
use super::idle::field;
use super::measure::{Contender, Sample, interleave};
use super::report::{Report, Unit, Want};
use super::worktree::Bed;
use crate::failure::{Doing, Failure};

const FILES: u64 = 50_000;
/// How many files differ already.
const CHANGED: u64 = 100;
/// How many edits are made one after the other.
const EDITS: u64 = 300;
/// How many files are changed at once.
const MANY: u64 = 10_000;

pub(super) fn measure(bench: &Bench) -> Result<Report, Failure> {
    let bed = Bed::new(bench, bench.size(FILES), false)?;
    let step = (bed.files / CHANGED).max(1);
    for number in (0..bed.files).step_by(usize::try_from(step).unwrap_or(1)) {
        change(&bed, number, "changed\n")?;
    }
    let mut report = Report::default();
    report.add_title(format!("{} files", bed.files));
    first(&bed, &mut report)?;
    let resident = || field("/proc/self/status", "VmRSS:").map(|kib| kib * 1024.0);
    let before = resident()?;
    let vcs = bed.open()?;
    let mut following = Following::begin(&bed, &vcs)?;
    following.until_current()?;
    let watched = resident()?;
    edits(&bed, &mut following, &mut report)?;
    drop(following);
    many(&bed, &mut report)?;
    let memory = (watched - before).max(0.0);
    report.add_amount("memory of a watch", memory, Unit::Bytes, &[Want::AtMost(30e6)]);
    Ok(report)
}

fn change(bed: &Bed<'_>, number: u64, text: &str) -> Result<(), Failure> {
    let file = bed.file(number);
    let mut content = fs::read(&file).doing("read a file")?;
    content.extend_from_slice(text.as_bytes());
    fs::write(&file, content).doing("change a file")
}

/// One who follows, and what it knows.
struct Following<'a> {
    bed: &'a Bed<'a>,
    follower: Box<dyn DiffFollower>,
    mirror: DiffMirror,
}

impl<'a> Following<'a> {
    fn begin(bed: &'a Bed<'a>, vcs: &Arc<GitWorktrees>) -> Result<Self, Failure> {
        let follower = vcs.follow(bed.attempt, &bed.worktree, None);
        let follower = bed.bench.runtime.block_on(follower).doing("follow a diff")?;
        Ok(Self { bed, follower, mirror: DiffMirror::default() })
    }

    fn page(&mut self) -> Result<(), Failure> {
        let told = self.bed.bench.runtime.block_on(self.follower.next()).doing("read a diff")?;
        told.iter().for_each(|told| self.mirror.apply(&told.event));
        Ok(())
    }

    fn until_current(&mut self) -> Result<(), Failure> {
        self.page()?;
        while !self.mirror.is_current() {
            self.page()?;
        }
        Ok(())
    }
}

/// From nothing to a whole diff that is watched, by a backend that knows nothing yet.
fn first(bed: &Bed<'_>, report: &mut Report) -> Result<(), Failure> {
    let git = || {
        let counts = bed.git(&bed.at, &["diff", "--numstat", "HEAD"])?;
        if counts.is_empty() { Err(Failure::new("nothing differs")) } else { Ok(()) }
    };
    let ours = || {
        let mut seconds = Vec::new();
        for _ in 0..3 {
            let vcs = bed.open()?;
            let begun = Instant::now();
            let mut following = Following::begin(bed, &vcs)?;
            following.until_current()?;
            seconds.push(begun.elapsed().as_secs_f64());
        }
        Ok(Sample::latencies(seconds))
    };
    let contenders = vec![
        Contender::new("git diff --numstat", || Sample::each(3, git)),
        Contender::new("first whole diff", ours),
    ];
    let taken = interleave(bed.bench.rounds(), contenders)?;
    for (one, wants) in taken.iter().zip([&[][..], &[Want::RatioAtMost(1.2)]]) {
        report.add(one, Unit::Times, taken.first().filter(|_| !wants.is_empty()), wants);
    }
    Ok(())
}

/// From each write to the event that tells it.
fn edits(bed: &Bed<'_>, following: &mut Following<'_>, report: &mut Report) -> Result<(), Failure> {
    let mut seconds = Vec::new();
    for edit in 0..bed.bench.size(EDITS) {
        let number = edit * 7_919 % bed.files;
        let before = following.mirror.patch();
        let begun = Instant::now();
        change(bed, number, &format!("edit {edit}\n"))?;
        following.until_current()?;
        while following.mirror.patch() == before {
            following.until_current()?;
        }
        seconds.push(begun.elapsed().as_secs_f64());
    }
    let wants = [Want::MedianAtMost(0.05), Want::P99AtMost(0.15)];
    report.add_sample("edit to event", Sample::latencies(seconds), &wants);
    Ok(())
}

/// From the last of many changes to a diff that has them all, against a whole diff of them.
fn many(bed: &Bed<'_>, report: &mut Report) -> Result<(), Failure> {
    let count = bed.bench.size(MANY);
    let round = std::cell::Cell::new(0_u64);
    let expected = |number: u64| {
        bed.bench.runtime.block_on(async {
            let vcs = bed.open_async().await?;
            let diff = vcs.diff(bed.attempt, &bed.worktree, DiffDetail::Patch);
            let files = diff.await.doing("ask for the diff")?.files.len();
            let wanted = usize::try_from(number).unwrap_or(usize::MAX);
            if files >= wanted {
                Ok(files)
            } else {
                Err(Failure::new(format!("{files} files differ")))
            }
        })
    };
    let settle = || {
        let vcs = bed.open()?;
        let mut following = Following::begin(bed, &vcs)?;
        following.until_current()?;
        round.set(round.get() + 1);
        let line = format!("all {}\n", round.get());
        for number in 0..count {
            change(bed, number, &line)?;
        }
        let begun = Instant::now();
        let last = format!("+{}", line.trim_end());
        let told = |mirror: &DiffMirror| {
            let patch = mirror.patch();
            let lines = patch.split(|byte| *byte == b'\n').filter(|one| *one == last.as_bytes());
            u64::try_from(lines.count()).unwrap_or_default() >= count
        };
        while !told(&following.mirror) {
            following.until_current()?;
        }
        Ok(Sample::latencies(vec![begun.elapsed().as_secs_f64()]))
    };
    let cold = || Sample::each(1, || expected(count).map(drop));
    let contenders = vec![
        Contender::new("settled after many changes", settle),
        Contender::new("a plain diff of them", cold),
    ];
    let taken = interleave(bed.bench.rounds().min(3), contenders)?;
    if let [settled, plain] = taken.as_slice() {
        report.add(plain, Unit::Times, None, &[]);
        report.add(settled, Unit::Times, Some(plain), &[Want::RatioAtMost(2.0)]);
    }
    Ok(())
}
