//! Looking at a worktree: is it dirty, and what differs.

use std::fs;

use windlass::core::vcs_worktree::{DiffDetail, VcsWorktree as _};

use super::super::report::Report;
use super::Bed;
use crate::failure::{Doing, Failure};

/// How many files are changed for a diff.
const CHANGED: u64 = 100;

/// Is the worktree dirty? It is not, so that everything has to be looked at.
pub(super) fn dirty(bed: &Bed<'_>, report: &mut Report) -> Result<(), Failure> {
    bed.compare(
        report,
        ["git status", "dirty?"],
        1.2,
        || {
            let shown = bed.git(&bed.at, &["status", "--porcelain"])?;
            if shown.is_empty() { Ok(()) } else { Err(Failure::new("the worktree is dirty")) }
        },
        || {
            let status = bed.vcs.status(bed.attempt, &bed.worktree);
            let status = bed.bench.runtime.block_on(status).doing("ask for the status")?;
            if status.dirty { Err(Failure::new("the worktree is dirty")) } else { Ok(()) }
        },
    )
}

/// What differs, with 100 changed files.
pub(super) fn diff(bed: &Bed<'_>, report: &mut Report) -> Result<(), Failure> {
    let step = (bed.files / CHANGED).max(1);
    let changed: Vec<_> = (0..bed.files).step_by(usize::try_from(step).unwrap_or(1)).collect();
    for number in &changed {
        let file = bed.file(*number);
        let mut content = fs::read(&file).doing("read a file")?;
        content.extend_from_slice(b"changed\n");
        fs::write(&file, content).doing("change a file")?;
    }
    bed.compare(
        report,
        ["git diff", "diff"],
        1.3,
        || {
            let patch = bed.git(&bed.at, &["diff", "HEAD"])?;
            if patch.is_empty() { Err(Failure::new("nothing differs")) } else { Ok(()) }
        },
        || {
            let diff = bed.vcs.diff(bed.attempt, &bed.worktree, DiffDetail::Patch);
            let diff = bed.bench.runtime.block_on(diff).doing("ask for the diff")?;
            if diff.files.len() == changed.len() {
                Ok(())
            } else {
                Err(Failure::new(format!("{} files differ", diff.files.len())))
            }
        },
    )?;
    bed.git(&bed.at, &["checkout", "--quiet", "--", "."]).map(drop)
}
