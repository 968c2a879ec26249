//! Says what in a worktree is not at rest: an operation in progress, a lock that somebody put on it.

use std::fs;
use std::io;
use std::path::Path;

use windlass_core::vcs_worktree::VcsWorktreeError;

use super::aside::exists;
use super::git::without_newline;
use super::{Inner, locator};

/// Files of the private git directory that say that an operation is in progress, and which.
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

impl Inner {
    /// Refuses a worktree that is not at rest.
    pub(super) fn refuse_unfinished(path: &Path, admin: &Path) -> Result<(), VcsWorktreeError> {
        let mut reasons: Vec<String> = Vec::new();
        for (file, reason) in OPERATIONS {
            if exists(&admin.join(file))? {
                reasons.push(reason.to_owned());
            }
        }
        match fs::read(admin.join("locked")) {
            Ok(reason) => {
                let reason = String::from_utf8_lossy(without_newline(&reason)).into_owned();
                let reason = if reason.is_empty() { reason } else { format!(": {reason}") };
                reasons.push(format!("it is locked{reason}"));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => reasons.push(format!("it is locked, and why cannot be read: {error}")),
        }
        if reasons.is_empty() {
            return Ok(());
        }
        Err(VcsWorktreeError::Unfinished { path: locator(path), detail: reasons.join("; ") })
    }
}
