//! Compares the merge base with the worktree, untracked files included.
//!
//! A look at the worktree tells which paths may differ; git compares these ([`narrow`]), or everything where a look cannot
//! tell ([`whole`]). Either way on an index of our own: neither the index nor the objects of the user's repository are
//! written.

mod merged;
mod narrow;
mod parse;
mod pieces;
#[cfg(test)]
mod tests;
mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use windlass_core::id::AttemptId;
use windlass_core::vcs_worktree::{
    DIFF_BYTES, DIFF_FILE_BYTES, Diff, DiffDetail, FileDiff, VcsWorktreeError,
};
use windlass_core::workspace::{Oid, Worktree};

use super::git::first_line;
use super::scan::{Looked, Scope, apart};
use super::scratch::ScratchDir;
use super::verify::Found;
use super::{Inner, failed, refs};
use crate::group::{Cancel, Capture};
use narrow::Narrowed;
use parse::Parsed;
pub(crate) use pieces::Pieces;

const GITLINK: &str = "160000";
/// Lines of larger files are not counted: the memory that it takes is a multiple.
const COUNTED: &str = "core.bigFileThreshold=16m";
/// Most bytes that git may print: every line of [`DIFF_BYTES`] with its sign, and room for names.
const OUTPUT_MAX: usize = 768 << 20;

/// What git does not track and does not ignore.
#[derive(Debug, Default)]
struct Untracked {
    files: BTreeSet<Vec<u8>>,
    /// Nested repositories.
    repositories: BTreeSet<Vec<u8>>,
    /// Nested repositories without a commit, which git cannot compare.
    unborn: BTreeSet<Vec<u8>>,
}

/// One comparison.
#[derive(Debug)]
struct Side {
    index: PathBuf,
    /// Compare with this commit, else with the index.
    tree: Option<Oid>,
    /// What is compared, else the worktree.
    work_tree: Option<PathBuf>,
}

/// What may differ, and how to compare it.
#[derive(Debug)]
enum Comparison {
    Narrow(Box<(Narrowed, Looked)>),
    Whole(Vec<Side>, Untracked),
}

impl Inner {
    pub(super) fn diff(
        &self,
        cancel: &Cancel,
        attempt: AttemptId,
        worktree: &Worktree,
        detail: DiffDetail,
    ) -> Result<Diff, VcsWorktreeError> {
        let found = self.verify(cancel, attempt, worktree)?;
        let base = self.merge_base(cancel, &found, worktree)?;
        let scratch = self.scratch.dir().map_err(|error| failed("diff", &found.path, error))?;
        let comparison = match self.narrow(cancel, &found, &base, &Scope::everything())? {
            Some(narrow) => Comparison::Narrow(Box::new(narrow)),
            None => {
                let (sides, untracked) = self.whole(cancel, &found, &base, &scratch)?;
                Comparison::Whole(sides, untracked)
            }
        };
        let patch = detail == DiffDetail::Patch;
        let (mut files, printed) = self.compare(cancel, &found, &scratch, &comparison, patch)?;
        let sizes = self.sizes(cancel, &found, &base, &comparison, &files)?;
        mark_too_large(&mut files, &sizes);
        let head = found.verified.head.clone();
        let left_out: Vec<_> = files.iter().filter(|file| file.too_large).collect();
        let patch = match printed {
            Some(printed) if patch && left_out.is_empty() => Some(printed),
            _ if patch => {
                Some(self.patch_without(cancel, &found, &scratch, &comparison, &left_out)?)
            }
            _ => None,
        };
        Ok(Diff { base, head, files, patch })
    }

    /// Finds the files with their counts; also the patch, if it is wanted and small enough to be tried at once.
    fn compare(
        &self,
        cancel: &Cancel,
        found: &Found,
        scratch: &ScratchDir,
        comparison: &Comparison,
        patch: bool,
    ) -> Result<(Vec<FileDiff>, Option<Vec<u8>>), VcsWorktreeError> {
        let nothing_left_out = BTreeSet::new();
        let made;
        let (sides, untracked, small) = match comparison {
            Comparison::Narrow(narrow) => {
                let (narrowed, looked) = &**narrow;
                made = self.sides(narrowed, looked.hash, scratch, &nothing_left_out)?;
                (&made, &narrowed.untracked, is_small(narrowed))
            }
            Comparison::Whole(sides, untracked) => (sides, untracked, false),
        };
        let with_patch = patch && small;
        let (mut files, mut patches) = (Vec::new(), Vec::new());
        for side in sides {
            let print = |options: &[&str]| {
                let command = self.diff_command(found, side);
                let command = options.iter().fold(command, |command, option| command.arg(option));
                self.finish(command, side).capture(Capture::UpTo(OUTPUT_MAX)).output(cancel)
            };
            // The lines of a patch can be counted; git would compare everything once more.
            let output = match with_patch {
                true => print(&["--raw", "-z", "--patch", "--binary"])?,
                false => print(&["--raw", "-z", "--numstat"])?,
            };
            let mut parsed = Parsed::read(&output);
            patches.extend_from_slice(parsed.patch);
            let counted;
            if parsed.uncounted {
                counted = print(&["--raw", "-z", "--numstat"])?;
                parsed = Parsed::read(&counted);
            }
            files.extend(parsed.files);
        }
        let files = Parsed::name_untracked(files, untracked);
        Ok((files, with_patch.then_some(patches)))
    }

    /// Makes the patch of all that is not too large, and says in it what is.
    fn patch_without(
        &self,
        cancel: &Cancel,
        found: &Found,
        scratch: &ScratchDir,
        comparison: &Comparison,
        left_out: &[&FileDiff],
    ) -> Result<Vec<u8>, VcsWorktreeError> {
        let mut patch = Vec::new();
        let mut paths = BTreeSet::new();
        for file in left_out {
            let name = file.path.as_bytes().escape_ascii();
            patch.extend_from_slice(
                format!("{name} is too large and not in this patch\n").as_bytes(),
            );
            let both = [Some(&file.path), file.old_path.as_ref()];
            paths.extend(both.into_iter().flatten().map(|path| path.as_bytes().to_vec()));
        }
        let made;
        let sides = match comparison {
            Comparison::Narrow(narrow) => {
                made = self.sides(&narrow.0, narrow.1.hash, scratch, &paths)?;
                &made
            }
            Comparison::Whole(sides, _) => sides,
        };
        for side in sides {
            let command = self.diff_command(found, side).args(["--patch", "--binary"]);
            let mut command = self.finish(command, side).capture(Capture::UpTo(OUTPUT_MAX));
            if matches!(comparison, Comparison::Whole(..)) && !paths.is_empty() {
                command = command.arg(":/");
                for path in &paths {
                    let mut pattern = b":(top,exclude,literal)".to_vec();
                    pattern.extend_from_slice(path);
                    command = command.arg(OsStr::from_bytes(&pattern));
                }
            }
            patch.extend(command.output(cancel)?);
        }
        Ok(patch)
    }

    fn diff_command(&self, found: &Found, side: &Side) -> super::git::GitCommand<'_> {
        let work_tree: &Path = side.work_tree.as_deref().unwrap_or(&found.path);
        let command = self.git.on_worktree(&found.admin, work_tree, "diff");
        command
            .env("GIT_INDEX_FILE", &side.index)
            .env("GIT_NO_LAZY_FETCH", "1")
            .set("diff.suppressBlankEmpty=false")
            .set("diff.renameLimit=1000")
            .set("diff.autoRefreshIndex=true")
            // The index that was made up for this has no more entries than are needed.
            .set("core.sparseCheckout=false")
            .set(COUNTED)
            .args(["-M", "--full-index", "--no-color", "--no-ext-diff", "--ita-invisible-in-index"])
            .args(["--no-textconv", "--no-relative", "--src-prefix=a/", "--dst-prefix=b/", "-U3"])
            .args(["--inter-hunk-context=0", "--submodule=short", "--ignore-submodules=dirty"])
            .args(["-O/dev/null", "--diff-algorithm=default"])
    }

    #[expect(clippy::unused_self, reason = "it is one step of a command of this git")]
    fn finish<'a>(
        &self,
        command: super::git::GitCommand<'a>,
        side: &Side,
    ) -> super::git::GitCommand<'a> {
        match &side.tree {
            Some(tree) => command.arg(&tree.0).arg("--"),
            None => command.arg("--"),
        }
    }

    pub(super) fn merge_base(
        &self,
        cancel: &Cancel,
        found: &Found,
        worktree: &Worktree,
    ) -> Result<Oid, VcsWorktreeError> {
        let head = &found.verified.head;
        let goal = self.goal(cancel, found, worktree)?;
        if goal == *head {
            return Ok(goal);
        }
        for other in [&goal, &worktree.base_oid] {
            if let Some(apart) = apart(&found.common, &head.0, &other.0) {
                return Ok(Oid(apart.base.to_string()));
            }
            let asked = self.git.on_worktree(&found.admin, &found.path, "merge-base");
            let asked = asked.env("GIT_NO_LAZY_FETCH", "1").arg(&other.0).arg(&head.0);
            if let Some(output) = asked.answer(cancel)?
                && let Some(oid) = refs::oid(first_line(&output))
            {
                return Ok(oid);
            }
        }
        // Histories without a common commit: all that differs from where it began.
        Ok(worktree.base_oid.clone())
    }

    /// How many bytes each file has, before and after.
    fn sizes(
        &self,
        cancel: &Cancel,
        found: &Found,
        base: &Oid,
        comparison: &Comparison,
        files: &[FileDiff],
    ) -> Result<Vec<(u64, u64)>, VcsWorktreeError> {
        let size = |path: &[u8]| -> (u64, u64) {
            match comparison {
                Comparison::Narrow(narrow) => narrow.0.sizes.get(path).copied().unwrap_or_default(),
                Comparison::Whole(..) => (0, on_disk(found, path)),
            }
        };
        let tree = match comparison {
            Comparison::Narrow(..) => BTreeMap::new(),
            Comparison::Whole(..) => self.tree_sizes(cancel, found, base)?,
        };
        let sizes = files.iter().map(|file| {
            let old = file.old_path.as_ref().unwrap_or(&file.path).as_bytes();
            let before = tree.get(old).copied().unwrap_or_else(|| size(old).0);
            (before, size(file.path.as_bytes()).1)
        });
        Ok(sizes.collect())
    }

    fn tree_sizes(
        &self,
        cancel: &Cancel,
        found: &Found,
        base: &Oid,
    ) -> Result<BTreeMap<Vec<u8>, u64>, VcsWorktreeError> {
        let listed = self.git.on_repository(&found.common, "ls-tree");
        let listed = listed.env("GIT_NO_LAZY_FETCH", "1");
        let output = listed.args(["-r", "-l", "-z", "--full-tree", &base.0]).output(cancel)?;
        let size = |line: &[u8]| {
            let tab = line.iter().position(|byte| *byte == b'\t')?;
            let size = line[..tab].rsplit(|byte| *byte == b' ').next()?;
            let size = std::str::from_utf8(size).ok()?.parse().ok()?;
            Some((line[tab + 1..].to_vec(), size))
        };
        Ok(output.split(|byte| *byte == 0).filter_map(size).collect())
    }
}

fn on_disk(found: &Found, path: &[u8]) -> u64 {
    let meta = found.path.join(OsStr::from_bytes(path)).symlink_metadata();
    meta.ok().filter(std::fs::Metadata::is_file).map_or(0, |meta| meta.len())
}

/// Says whether nothing of it can be too large.
fn is_small(narrowed: &Narrowed) -> bool {
    let mut sum = 0_u64;
    narrowed.sizes.values().all(|(before, after)| {
        sum = sum.saturating_add(*before).saturating_add(*after);
        *before <= DIFF_FILE_BYTES && *after <= DIFF_FILE_BYTES && sum <= DIFF_BYTES
    })
}

fn mark_too_large(files: &mut [FileDiff], sizes: &[(u64, u64)]) {
    let mut sum = 0_u64;
    for (file, (before, after)) in files.iter_mut().zip(sizes) {
        let both = before.saturating_add(*after);
        let alone = *before > DIFF_FILE_BYTES || *after > DIFF_FILE_BYTES;
        file.too_large = alone || sum.saturating_add(both) > DIFF_BYTES;
        if !file.too_large {
            sum = sum.saturating_add(both);
        }
    }
}
