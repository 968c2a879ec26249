//! Compares a merge with the target before it: two commits, no worktree.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use windlass_core::vcs_history::{Merged, VcsHistoryError};
use windlass_core::vcs_worktree::{Diff, DiffDetail, FileDiff, VcsWorktreeError};
use windlass_core::workspace::{Oid, Worktree};

use super::parse::Parsed;
use super::{COUNTED, GITLINK, Inner, OUTPUT_MAX, mark_too_large};
use crate::group::{Cancel, Capture};
use crate::vcs_worktree::git::first_line;
use crate::vcs_worktree::{failed, path_of, refs};

impl Inner {
    pub(in crate::vcs_worktree) fn diff_of_merge(
        &self,
        cancel: &Cancel,
        worktree: &Worktree,
        merged: &Merged,
        detail: DiffDetail,
    ) -> Result<Diff, VcsHistoryError> {
        let common = path_of(&worktree.repo);
        if !common.is_dir() {
            let path = worktree.repo.clone();
            return Err(VcsWorktreeError::NotARepository { path }.into());
        }
        let (from, to) = match merged.style {
            Some(_) => (format!("{}^1", merged.commit), merged.commit.clone()),
            // What somebody else made of it is not known; what it was made of is.
            None => (worktree.base_oid.0.clone(), merged.head.clone()),
        };
        let asked = self.git.on_repository(&common, "rev-parse").args(["--verify", "--quiet"]);
        let asked = asked.arg("--end-of-options").arg(format!("{from}^{{commit}}")).run(cancel)?;
        let base = refs::oid(first_line(&asked.stdout)).filter(|_| asked.status.success());
        let Some(base) = base.filter(|_| matches!(self.is_there(cancel, &common, &to), Ok(true)))
        else {
            let detail = format!("{to} is not in the repository any more");
            return Err(VcsHistoryError::Nothing { detail });
        };
        let sides = (&base, &to);
        let listed =
            self.compare_commits(cancel, &common, sides, &["--raw", "-z", "--numstat"], &[])?;
        let mut files = Parsed::read(&listed).files;
        let sizes = self.object_sizes(cancel, &common, &listed)?;
        let both = |file: &FileDiff| sizes.get(file.path.as_bytes()).copied().unwrap_or_default();
        let sizes: Vec<_> = files.iter().map(both).collect();
        mark_too_large(&mut files, &sizes);
        let mut patch = None;
        if detail == DiffDetail::Patch {
            let left_out: Vec<_> = files.iter().filter(|file| file.too_large).collect();
            let mut text = Vec::new();
            let mut excluded: Vec<Vec<u8>> = Vec::new();
            for file in left_out {
                let name = file.path.as_bytes().escape_ascii();
                text.extend(format!("{name} is too large and not in this patch\n").into_bytes());
                let paths = [Some(&file.path), file.old_path.as_ref()];
                excluded.extend(paths.into_iter().flatten().map(|path| path.as_bytes().to_vec()));
            }
            let options = ["--patch", "--binary"];
            text.extend(self.compare_commits(cancel, &common, sides, &options, &excluded)?);
            patch = Some(text);
        }
        Ok(Diff { base, head: to, files, patch })
    }

    fn compare_commits(
        &self,
        cancel: &Cancel,
        common: &Path,
        (from, to): (&Oid, &Oid),
        options: &[&str],
        excluded: &[Vec<u8>],
    ) -> Result<Vec<u8>, VcsWorktreeError> {
        let command = self.git.on_repository(common, "diff-tree").set(COUNTED);
        let command = command.set("diff.renameLimit=1000").set("diff.suppressBlankEmpty=false");
        let command = command.args(["-r", "-M", "--full-index", "--no-color", "--no-ext-diff"]);
        let command = command.args(["--no-textconv", "--src-prefix=a/", "--dst-prefix=b/", "-U3"]);
        let command = command.args(["--submodule=short", "-O/dev/null"]);
        let command = options.iter().fold(command, |command, option| command.arg(option));
        let mut command = command.arg(&from.0).arg(&to.0).arg("--");
        if !excluded.is_empty() {
            command = command.arg(":/");
        }
        for path in excluded {
            let mut pattern = b":(top,exclude,literal)".to_vec();
            pattern.extend_from_slice(path);
            command = command.arg(OsStr::from_bytes(&pattern));
        }
        command.capture(Capture::UpTo(OUTPUT_MAX)).output(cancel)
    }

    /// Reads how many bytes each changed file has, before and after, by its path after.
    fn object_sizes(
        &self,
        cancel: &Cancel,
        common: &Path,
        listed: &[u8],
    ) -> Result<BTreeMap<Vec<u8>, (u64, u64)>, VcsWorktreeError> {
        let at = |error| failed("diff", common, error);
        let mut pieces = listed.split(|byte| *byte == 0);
        let (mut paths, mut names) = (Vec::new(), Vec::new());
        while let Some(raw) = pieces.next().and_then(|piece| piece.strip_prefix(b":")) {
            let words: Vec<_> = raw.split(|byte| *byte == b' ').collect();
            let [old_mode, new_mode, old, new, status] = words.as_slice() else { break };
            let renamed = matches!(status.first(), Some(b'R' | b'C'));
            let path = if renamed { pieces.nth(1) } else { pieces.next() };
            paths.push(path.unwrap_or_default().to_vec());
            for (mode, oid) in [(old_mode, old), (new_mode, new)] {
                // What a submodule names is in another repository.
                let elsewhere = *mode == GITLINK.as_bytes();
                names.extend_from_slice(if elsewhere { b"-" } else { oid });
                names.push(b'\n');
            }
        }
        let scratch = self.scratch.dir().map_err(at)?;
        let list = scratch.path().join("objects");
        fs::write(&list, &names).map_err(at)?;
        let asked = self.git.on_repository(common, "cat-file");
        let asked = asked.arg("--batch-check=%(objectsize)").env("GIT_NO_LAZY_FETCH", "1");
        let sizes = asked.stdin(File::open(&list).map_err(at)?).output(cancel)?;
        // What there is not, and the name that stands for nothing, has no size.
        let size = |line: &[u8]| String::from_utf8_lossy(line).parse().unwrap_or(0_u64);
        let sizes: Vec<_> = sizes.split(|byte| *byte == b'\n').map(size).collect();
        let pairs = sizes.chunks(2).map(|pair| match pair {
            [before, after] => (*before, *after),
            _ => (0, 0),
        });
        Ok(paths.into_iter().zip(pairs).collect())
    }

    fn is_there(
        &self,
        cancel: &Cancel,
        common: &Path,
        commit: &Oid,
    ) -> Result<bool, VcsWorktreeError> {
        let asked = self.git.on_repository(common, "cat-file").arg("-e");
        Ok(asked.arg(format!("{commit}^{{commit}}")).run(cancel)?.status.success())
    }
}
