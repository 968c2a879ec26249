//! Looks for whatever in a worktree exists nowhere else.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use windlass_core::vcs_worktree::VcsWorktreeError;

use super::diff::below;
use super::git::without_newline;
use super::refs::{self, HEADS};
use super::tree::{Entry, Listing};
use super::verify::Found;
use super::{Inner, failed};
use crate::group::Cancel;

/// Most names in a message.
const NAMED: usize = 5;

/// Files of the private git directory that say that an operation is not finished, and which.
const OPERATIONS: [(&str, &str); 8] = [
    ("rebase-merge", "a rebase is in progress"),
    ("rebase-apply", "a rebase or am is in progress"),
    ("MERGE_HEAD", "a merge is in progress"),
    ("MERGE_AUTOSTASH", "a merge has stashed changes"),
    ("CHERRY_PICK_HEAD", "a cherry-pick is in progress"),
    ("REVERT_HEAD", "a revert is in progress"),
    ("sequencer", "a cherry-pick or revert is in progress"),
    ("BISECT_LOG", "a bisect is in progress"),
];

/// How far a removal has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing is deleted.
    Whole,
    /// We have begun to delete: files that are gone are no changes.
    Deleting,
}

impl Inner {
    /// Says what is unsaved, for people; empty if nothing is.
    ///
    /// The listing must have been made before: what changes after it is not deleted.
    pub(super) fn unsaved(
        &self,
        cancel: &Cancel,
        found: &Found,
        listing: &Listing,
        branch: &str,
        stage: Stage,
    ) -> Result<Vec<String>, VcsWorktreeError> {
        let mut reasons = self.unfinished(cancel, found, branch)?;
        let (tracked, hidden) = self.tracked(cancel, found, listing)?;
        let files = self.unclean(cancel, found, listing, &hidden, stage)?;
        let known = files.iter().any(|reason| !reason.starts_with("changed"));
        reasons.extend(files);
        reasons.extend(strange(listing, &tracked, known));
        Ok(reasons)
    }

    /// What the private git directory alone holds.
    pub(super) fn unfinished(
        &self,
        cancel: &Cancel,
        found: &Found,
        branch: &str,
    ) -> Result<Vec<String>, VcsWorktreeError> {
        let mut reasons = Vec::new();
        for (file, reason) in OPERATIONS {
            if found.admin.join(file).symlink_metadata().is_ok() {
                reasons.push(reason.to_owned());
            }
        }
        if let Ok(reason) = fs::read(found.admin.join("locked")) {
            let reason = String::from_utf8_lossy(without_newline(&reason)).into_owned();
            let reason = if reason.is_empty() { reason } else { format!(": {reason}") };
            reasons.push(format!("it is locked{reason}"));
        }
        let modules = found.admin.join("modules");
        if fs::read_dir(&modules).is_ok_and(|mut entries| entries.next().is_some()) {
            reasons.push("it has repositories of submodules".to_owned());
        }
        reasons.extend(self.unreached(cancel, found, branch)?);
        Ok(reasons)
    }

    /// Finds commits that HEAD was at and no branch, tag or log of the branch reaches.
    fn unreached(
        &self,
        cancel: &Cancel,
        found: &Found,
        branch: &str,
    ) -> Result<Option<String>, VcsWorktreeError> {
        let mut been = self.logged(cancel, found, &found.admin, "HEAD")?;
        been.insert(found.verified.head.0.clone());
        let mut kept = BTreeSet::new();
        for name in [Some(branch), found.verified.branch.as_deref()].into_iter().flatten() {
            kept.extend(self.logged(cancel, found, &found.common, &format!("{HEADS}{name}"))?);
        }
        let mut list = String::new();
        for oid in been.difference(&kept) {
            list.push_str(oid);
            list.push('\n');
        }
        if list.is_empty() {
            return Ok(None);
        }
        for oid in &kept {
            list.push_str(&format!("^{oid}\n"));
        }
        let scratch = self.scratch.dir().map_err(|error| failed("remove", &found.path, error))?;
        let input = scratch
            .input("commits", list.as_bytes())
            .map_err(|error| failed("remove", scratch.path(), error))?;
        let asked = self.git.on_repository(&found.common, "rev-list").stdin(input);
        let asked =
            asked.args(["--ignore-missing", "--max-count=100", "--abbrev-commit", "--stdin"]);
        let output = asked.args(["--not", "--branches", "--tags", "--remotes"]).output(cancel)?;
        let output = String::from_utf8_lossy(&output);
        let commits: Vec<_> = output.lines().map(str::to_owned).collect();
        Ok((!commits.is_empty()).then(|| named("commits that no branch reaches", &commits)))
    }

    /// The commits that a ref's log names.
    fn logged(
        &self,
        cancel: &Cancel,
        found: &Found,
        dir: &Path,
        name: &str,
    ) -> Result<BTreeSet<String>, VcsWorktreeError> {
        let file = dir.join("logs").join(name);
        let content = match fs::read(&file) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed("remove", &file, error)),
        };
        let mut oids = BTreeSet::new();
        for line in content.split(|byte| *byte == b'\n') {
            let words = line.splitn(3, |byte| *byte == b' ').take(2).filter_map(refs::oid);
            oids.extend(words.map(|oid| oid.0).filter(|oid| oid.bytes().any(|byte| byte != b'0')));
        }
        if found.common.join("reftable").exists() {
            // Logs are in tables, too.
            let asked = self.git.on_worktree(&found.admin, &found.path, "reflog show");
            let ended = asked.args(["--format=%H", name, "--"]).run(cancel)?;
            let lines = ended.stdout.split(|byte| *byte == b'\n');
            oids.extend(lines.filter_map(refs::oid).map(|oid| oid.0));
        }
        Ok(oids)
    }

    /// Lists what git tracks, and of that what it was told not to look at though it is there.
    fn tracked(
        &self,
        cancel: &Cancel,
        found: &Found,
        listing: &Listing,
    ) -> Result<(BTreeSet<PathBuf>, Vec<u8>), VcsWorktreeError> {
        let asked = self.git.on_worktree(&found.admin, &found.path, "ls-files");
        let output = asked.args(["-v", "-z"]).output(cancel)?;
        let mut tracked = BTreeSet::new();
        let mut hidden = Vec::new();
        for entry in output.split(|byte| *byte == 0) {
            let [tag, b' ', path @ ..] = entry else { continue };
            let relative = below(Path::new(""), path);
            let unseen = tag.is_ascii_lowercase() || *tag == b'S';
            if unseen && listing.contains(&relative) {
                hidden.extend_from_slice(path);
                hidden.push(0);
            }
            tracked.insert(relative);
        }
        Ok((tracked, hidden))
    }

    /// Asks git what differs from HEAD, is untracked or ignored.
    fn unclean(
        &self,
        cancel: &Cancel,
        found: &Found,
        listing: &Listing,
        hidden: &[u8],
        stage: Stage,
    ) -> Result<Vec<String>, VcsWorktreeError> {
        let scratch = self.scratch.dir().map_err(|error| failed("remove", &found.path, error))?;
        let status = self.git.on_worktree(&found.admin, &found.path, "status");
        let status = status
            .set("core.trustctime=true")
            .set("core.checkStat=default")
            .args(["--porcelain", "-z", "--no-renames", "--untracked-files=all"])
            .args(["--ignored=matching", "--ignore-submodules=none"]);
        let status = if hidden.is_empty() {
            status
        } else {
            let failed = |error| failed("remove", scratch.path(), error);
            let index = scratch.index(&found.admin).map_err(failed)?;
            for flag in ["--no-assume-unchanged", "--no-skip-worktree"] {
                let input = scratch.input("hidden", hidden).map_err(failed)?;
                let update = self.git.on_worktree(&found.admin, &found.path, "update-index");
                let update = update.env("GIT_INDEX_FILE", &index).stdin(input);
                update.args([flag, "-z", "--stdin"]).output(cancel)?;
            }
            status.env("GIT_INDEX_FILE", index)
        };
        let output = status.output(cancel)?;
        let mut groups =
            [("changed", Vec::new()), ("untracked", Vec::new()), ("ignored", Vec::new())];
        for entry in output.split(|byte| *byte == 0) {
            let [x, y, b' ', path @ ..] = entry else { continue };
            let group = match (*x, *y, stage) {
                (b'?', ..) => 1,
                (b'!', ..) => 2,
                (b' ', b'D', Stage::Deleting) => continue,
                _ => 0,
            };
            groups[group].1.push(sized(path, listing));
        }
        let named = groups.iter().filter(|(_, paths)| !paths.is_empty());
        Ok(named.map(|(group, paths)| self::named(group, paths)).collect())
    }
}

/// Names entries that no commit can hold or that git does not show: special files, mounts, what nested repositories hold.
fn strange(listing: &Listing, tracked: &BTreeSet<PathBuf>, known: bool) -> Vec<String> {
    let (mut special, mut mounts, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    listing.each(&mut |path, entry| {
        let name = path.to_string_lossy().into_owned();
        match entry {
            Entry::Special(_) => special.push(name),
            Entry::Mount => mounts.push(name),
            Entry::File(_) if !tracked.contains(path) && path != Path::new(".git") => {
                unknown.push(name);
            }
            Entry::File(_) | Entry::Dir(_) => {}
        }
    });
    // What git itself has named need not be named again.
    if known {
        unknown.clear();
    }
    [("special files", special), ("mounts", mounts), ("not tracked here", unknown)]
        .iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(group, names)| named(group, names))
        .collect()
}

fn sized(path: &[u8], listing: &Listing) -> String {
    let relative = std::ffi::OsStr::from_bytes(path.strip_suffix(b"/").unwrap_or(path));
    let bytes = listing.bytes_at(Path::new(relative));
    let name = String::from_utf8_lossy(path).into_owned();
    if bytes == 0 { name } else { format!("{name} ({})", size(bytes)) }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes / 1024),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes / 1_048_576),
        _ => format!("{} GiB", bytes / 1_073_741_824),
    }
}

/// Names the first few of a group.
fn named(group: &str, names: &[String]) -> String {
    let first: Vec<_> =
        names.iter().take(NAMED).map(|name| name.escape_debug().to_string()).collect();
    let more = match names.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{group}: {}{more}", first.join(", "))
}
