//! Compares the merge base with the worktree, untracked files included.
//!
//! Untracked files are entered in a copy of the index, as empty files that git then finds changed. So git compares
//! everything itself, and neither the index nor the objects of the user's repository are written.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use windlass_core::id::AttemptId;
use windlass_core::locator::Locator;
use windlass_core::vcs_worktree::{ChangeKind, Diff, DiffDetail, FileDiff, VcsWorktreeError};
use windlass_core::workspace::{Oid, Worktree};

use super::git::first_line;
use super::scratch::ScratchDir;
use super::verify::Found;
use super::{Inner, failed, refs};
use crate::group::Cancel;

const GITLINK: &str = "160000";
/// The empty file, by SHA-1 and by SHA-256.
const EMPTY: [&str; 2] = [
    "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",
    "473a0f4c3be8a93681a267e3b1e9a7dcda1185436fe141f7749120a303721813",
];

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
        let index =
            scratch.index(&found.admin).map_err(|error| failed("diff", &found.path, error))?;
        let untracked = self.untracked(cancel, &found)?;
        self.enter(cancel, &found, &untracked, &scratch, &index)?;
        let command = self.git.on_worktree(&found.admin, &found.path, "diff");
        let command = command
            .env("GIT_INDEX_FILE", &index)
            .env("GIT_NO_LAZY_FETCH", "1")
            .set("diff.suppressBlankEmpty=false")
            .set("diff.renameLimit=1000")
            .args(["--raw", "--numstat", "-z", "-M", "--full-index", "--no-color", "--no-ext-diff"])
            .args(["--no-textconv", "--no-relative", "--src-prefix=a/", "--dst-prefix=b/", "-U3"])
            .args(["--inter-hunk-context=0", "--submodule=short", "--ignore-submodules=dirty"])
            .args(["-O/dev/null", "--diff-algorithm=default"]);
        let command = match detail {
            DiffDetail::Files => command,
            DiffDetail::Patch => command.args(["--patch", "--binary"]),
        };
        let output = command.arg(&base.0).arg("--").output(cancel)?;
        let mut parsed = Parsed::read(&output);
        parsed.name_untracked(&untracked);
        let patch = match detail {
            DiffDetail::Files => None,
            DiffDetail::Patch => Some(parsed.patch.to_vec()),
        };
        Ok(Diff { base, head: found.verified.head, files: parsed.files, patch })
    }

    fn merge_base(
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

    fn untracked(&self, cancel: &Cancel, found: &Found) -> Result<Untracked, VcsWorktreeError> {
        let asked = self.git.on_worktree(&found.admin, &found.path, "ls-files");
        let listed = asked.args(["-z", "--others", "--exclude-standard"]).output(cancel)?;
        let mut untracked = Untracked::default();
        for path in listed.split(|byte| *byte == 0).filter(|path| !path.is_empty()) {
            let Some(nested) = path.strip_suffix(b"/") else {
                untracked.files.insert(path.to_vec());
                continue;
            };
            let dir = found.path.join(OsStr::from_bytes(nested));
            let head = self.git.within(&dir, "rev-parse");
            let head = head.args(["--verify", "--quiet", "HEAD"]).run(cancel)?;
            let known = if head.status.success() {
                &mut untracked.repositories
            } else {
                &mut untracked.unborn
            };
            known.insert(nested.to_vec());
        }
        Ok(untracked)
    }

    /// Enters untracked files in the copied index.
    fn enter(
        &self,
        cancel: &Cancel,
        found: &Found,
        untracked: &Untracked,
        scratch: &ScratchDir,
        index: &Path,
    ) -> Result<(), VcsWorktreeError> {
        let empty = EMPTY[usize::from(found.verified.head.0.len() == 64)];
        let mut list = Vec::new();
        let mut enter = |mode: &str, path: &[u8]| {
            list.extend_from_slice(format!("{mode} {empty} 0\t").as_bytes());
            list.extend_from_slice(path);
            list.push(0);
        };
        for path in &untracked.files {
            let file = found.path.join(OsStr::from_bytes(path));
            // Gone since it was listed: nothing to compare.
            let Ok(meta) = file.symlink_metadata() else { continue };
            enter(if meta.is_symlink() { "120000" } else { "100644" }, path);
        }
        for path in &untracked.repositories {
            enter(GITLINK, path);
        }
        if list.is_empty() {
            return Ok(());
        }
        let input = scratch
            .input("untracked", &list)
            .map_err(|error| failed("diff", scratch.path(), error))?;
        let update = self.git.on_worktree(&found.admin, &found.path, "update-index");
        let update = update.env("GIT_INDEX_FILE", index).stdin(input);
        // What became a directory, or a file, is replaced by what is there now.
        update.args(["--add", "--replace", "-z", "--index-info"]).output(cancel).map(drop)
    }
}

/// What git does not track and does not ignore.
#[derive(Debug, Default)]
struct Untracked {
    files: BTreeSet<Vec<u8>>,
    /// Nested repositories.
    repositories: BTreeSet<Vec<u8>>,
    /// Nested repositories without a commit, which git cannot compare.
    unborn: BTreeSet<Vec<u8>>,
}

/// What git printed, understood.
#[derive(Debug)]
struct Parsed<'a> {
    files: Vec<FileDiff>,
    patch: &'a [u8],
}

impl<'a> Parsed<'a> {
    /// Reads raw lines, then counts, then the patch, the latter two after an empty record.
    fn read(output: &'a [u8]) -> Self {
        let mut records = Records { rest: output };
        let mut files = BTreeMap::new();
        let mut counts = BTreeMap::new();
        while let Some(record) = records.next() {
            if let Some(raw) = record.strip_prefix(b":") {
                if let Some(file) = raw_line(raw, &mut records) {
                    // An unmerged file comes twice; the second says what the worktree holds.
                    files.insert(file.path.as_bytes().to_vec(), file);
                }
            } else if record.is_empty() {
                break;
            } else if let Some((path, count)) = count_line(record, &mut records) {
                counts.insert(path, count);
            }
        }
        let with_counts = |(path, file): (Vec<u8>, FileDiff)| {
            let (added, removed) = counts.get(path.as_slice()).copied().unwrap_or_default();
            FileDiff { added, removed, ..file }
        };
        Self { files: files.into_iter().map(with_counts).collect(), patch: records.rest }
    }

    fn name_untracked(&mut self, untracked: &Untracked) {
        for file in &mut self.files {
            let path = file.path.as_bytes();
            file.untracked =
                untracked.files.contains(path) || untracked.repositories.contains(path);
        }
        self.files.extend(untracked.unborn.iter().map(|path| FileDiff {
            path: Locator::new(path.clone()),
            old_path: None,
            change: ChangeKind::Added,
            added: None,
            removed: None,
            mode: Some(GITLINK.to_owned()),
            untracked: true,
        }));
        self.files.sort_by(|one, other| one.path.cmp(&other.path));
    }
}

/// Records that end with a zero byte.
struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|byte| *byte == 0)?;
        let (record, rest) = (&self.rest[..end], &self.rest[end + 1..]);
        self.rest = rest;
        Some(record)
    }
}

/// Reads `old-mode new-mode old-oid new-oid status`, followed by one or two paths.
fn raw_line(line: &[u8], records: &mut Records<'_>) -> Option<FileDiff> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split(' ');
    let (_, mode, _, _) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let status = words.next()?;
    let first = records.next()?;
    let (change, moved) = match status.as_bytes().first()? {
        b'A' => (ChangeKind::Added, false),
        b'D' => (ChangeKind::Deleted, false),
        b'R' => (ChangeKind::Renamed, true),
        b'C' => (ChangeKind::Copied, true),
        b'T' => (ChangeKind::TypeChanged, false),
        _ => (ChangeKind::Modified, false),
    };
    let (old, path) = if moved { (Some(first), records.next()?) } else { (None, first) };
    Some(FileDiff {
        path: Locator::new(path),
        old_path: old.map(Locator::new),
        change,
        added: None,
        removed: None,
        mode: (change != ChangeKind::Deleted).then(|| mode.to_owned()),
        untracked: false,
    })
}

type Count = (Option<u64>, Option<u64>);

/// Reads `added TAB removed TAB path`, or without a path but followed by the old and the new one.
fn count_line<'a>(line: &'a [u8], records: &mut Records<'a>) -> Option<(&'a [u8], Count)> {
    let mut words = line.splitn(3, |byte| *byte == b'\t');
    let mut number = || -> Option<Option<u64>> {
        let text = std::str::from_utf8(words.next()?).ok()?;
        Some(text.parse().ok())
    };
    let count = (number()?, number()?);
    match words.next()? {
        b"" => {
            records.next()?;
            Some((records.next()?, count))
        }
        path => Some((path, count)),
    }
}

/// A path that git printed, below a directory.
pub(super) fn below(dir: &Path, path: &[u8]) -> PathBuf {
    dir.join(OsStr::from_bytes(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_anything_in_them_are_read() {
        let output = b":100644 100755 11 22 M\0a\nb\0:100644 100644 11 11 R100\0old\0\xff\0\
            :100644 000000 11 00 D\0gone\0\
            1\t2\ta\nb\0-\t-\t\0old\0\xff\x000\t1\tgone\0\0diff --git a/x\0b\n";
        let parsed = Parsed::read(output);
        assert_eq!(parsed.patch, b"diff --git a/x\0b\n");
        let seen: Vec<_> = parsed
            .files
            .iter()
            .map(|file| {
                (file.path.as_bytes(), file.change, file.added, file.removed, file.mode.as_deref())
            })
            .collect();
        assert_eq!(
            seen,
            [
                (&b"a\nb"[..], ChangeKind::Modified, Some(1), Some(2), Some("100755")),
                (b"gone", ChangeKind::Deleted, Some(0), Some(1), None),
                (b"\xff", ChangeKind::Renamed, None, None, Some("100644")),
            ]
        );
        assert_eq!(parsed.files[2].old_path, Some(Locator::new(*b"old")));
        assert!(Parsed::read(b"").files.is_empty());
    }
}
