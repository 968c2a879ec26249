//! A diff file by file, each with what the patch says of it, of all of a worktree or of some paths.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use bytes::Bytes;
use windlass_core::diff_ledger::FoundDiff;
use windlass_core::vcs_worktree::{FileDiff, VcsWorktreeError};
use windlass_core::workspace::Oid;

use super::parse::Parsed;
use super::{Comparison, GITLINK, OUTPUT_MAX, Side, is_small, mark_too_large};
use crate::group::{Cancel, Capture};
use crate::vcs_worktree::scan::Scope;
use crate::vcs_worktree::scratch::ScratchDir;
use crate::vcs_worktree::verify::Found;
use crate::vcs_worktree::{Inner, failed};

/// What a look found to differ.
#[derive(Debug)]
pub(crate) struct Pieces {
    /// The files, in path order.
    pub(crate) files: Vec<FoundDiff>,
    /// It is everything that differs, whatever was asked for.
    pub(crate) is_whole: bool,
    /// Paths that were asked for and are ignored.
    pub(crate) ignored: Vec<Vec<u8>>,
}

type Parts = BTreeMap<Vec<u8>, Bytes>;

impl Inner {
    /// Compares this much of a worktree with the base.
    pub(in crate::vcs_worktree) fn pieces(
        &self,
        cancel: &Cancel,
        found: &Found,
        base: &Oid,
        scope: &Scope<'_>,
    ) -> Result<Pieces, VcsWorktreeError> {
        let scratch = self.scratch.dir().map_err(|error| failed("diff", &found.path, error))?;
        let mut ignored = Vec::new();
        let comparison = match self.narrow(cancel, found, base, scope)? {
            Some(mut narrow) => {
                ignored = std::mem::take(&mut narrow.1.changes.ignored);
                Comparison::Narrow(Box::new(narrow))
            }
            None => {
                let (sides, untracked) = self.whole(cancel, found, base, &scratch)?;
                Comparison::Whole(sides, untracked)
            }
        };
        let is_whole = matches!(comparison, Comparison::Whole(..)) || scope.part.is_all();
        let (files, parts) = match &comparison {
            Comparison::Narrow(narrow) if is_small(&narrow.0) => {
                self.at_once(cancel, found, &scratch, &comparison)?
            }
            Comparison::Narrow(_) | Comparison::Whole(..) => {
                let (files, _) = self.compare(cancel, found, &scratch, &comparison, false)?;
                (files, None)
            }
        };
        let sizes = self.sizes(cancel, found, base, &comparison, &files)?;
        let mut files = files;
        mark_too_large(&mut files, &sizes);
        let mut parts = match parts {
            Some(parts) => parts,
            None => self.apart(cancel, found, &scratch, &comparison, &files)?,
        };
        let files = files.into_iter().zip(sizes).map(|(mut file, (before, after))| {
            let patch = parts.remove(file.path.as_bytes()).filter(|_| !file.too_large);
            // Of a repository without a commit git prints nothing.
            file.too_large |= patch.is_none() && file.mode.as_deref() != Some(GITLINK);
            FoundDiff { file, bytes: before.saturating_add(after), patch }
        });
        Ok(Pieces { files: files.collect(), is_whole, ignored })
    }

    /// Finds files, counts and patch by one command.
    fn at_once(
        &self,
        cancel: &Cancel,
        found: &Found,
        scratch: &ScratchDir,
        comparison: &Comparison,
    ) -> Result<(Vec<FileDiff>, Option<Parts>), VcsWorktreeError> {
        let Comparison::Narrow(narrow) = comparison else { return Ok((Vec::new(), None)) };
        let (narrowed, looked) = &**narrow;
        let sides = self.sides(narrowed, looked.hash, scratch, &BTreeSet::new())?;
        let (mut files, mut parts) = (Vec::new(), Some(Parts::new()));
        for side in &sides {
            let output =
                self.print(cancel, found, side, &["--raw", "-z", "--patch", "--binary"])?;
            let parsed = Parsed::read(&output);
            parts = parts.zip(parsed.parts()).map(|(mut parts, more)| {
                parts.extend(more.into_iter().map(|(path, part)| (path, copied(part))));
                parts
            });
            if parsed.uncounted {
                let counted = self.print(cancel, found, side, &["--raw", "-z", "--numstat"])?;
                files.extend(Parsed::read(&counted).files);
            } else {
                files.extend(parsed.files);
            }
        }
        Ok((Parsed::name_untracked(files, &narrowed.untracked), parts))
    }

    /// Makes the patch of what is not too large, part by part.
    fn apart(
        &self,
        cancel: &Cancel,
        found: &Found,
        scratch: &ScratchDir,
        comparison: &Comparison,
        files: &[FileDiff],
    ) -> Result<Parts, VcsWorktreeError> {
        let both = |file: &FileDiff| {
            let paths = [Some(&file.path), file.old_path.as_ref()];
            paths.into_iter().flatten().map(|path| path.as_bytes().to_vec()).collect::<Vec<_>>()
        };
        let large = files.iter().filter(|file| file.too_large);
        let left_out: BTreeSet<Vec<u8>> = large.flat_map(both).collect();
        let made;
        let sides = match comparison {
            Comparison::Narrow(narrow) => {
                made = self.sides(&narrow.0, narrow.1.hash, scratch, &left_out)?;
                &made
            }
            Comparison::Whole(sides, _) => sides,
        };
        let mut parts = Parts::new();
        for side in sides {
            let command = self.diff_command(found, side);
            let command = command.args(["--raw", "-z", "--patch", "--binary"]);
            let mut command = self.finish(command, side).capture(Capture::UpTo(OUTPUT_MAX));
            if matches!(comparison, Comparison::Whole(..)) && !left_out.is_empty() {
                command = command.arg(":/");
                for path in &left_out {
                    let mut pattern = b":(top,exclude,literal)".to_vec();
                    pattern.extend_from_slice(path);
                    command = command.arg(OsStr::from_bytes(&pattern));
                }
            }
            let output = command.output(cancel)?;
            // What cannot be told apart is left out.
            let more = Parsed::read(&output).parts().unwrap_or_default();
            parts.extend(more.into_iter().map(|(path, part)| (path, copied(part))));
        }
        Ok(parts)
    }

    fn print(
        &self,
        cancel: &Cancel,
        found: &Found,
        side: &Side,
        options: &[&str],
    ) -> Result<Vec<u8>, VcsWorktreeError> {
        let command = self.diff_command(found, side);
        let command = options.iter().fold(command, |command, option| command.arg(option));
        self.finish(command, side).capture(Capture::UpTo(OUTPUT_MAX)).output(cancel)
    }
}

/// Each part is kept for as long as the file differs like this: it must not hold on to all the others.
fn copied(part: &[u8]) -> Bytes {
    Bytes::copy_from_slice(part)
}
