//! Says what in a worktree is not at rest: an operation in progress, a lock that somebody put on it.

use std::fs;
use std::path::Path;

use windlass_core::vcs_worktree::VcsWorktreeError;

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
        let mut reasons: Vec<String> = OPERATIONS
            .iter()
            .filter(|(file, _)| admin.join(file).symlink_metadata().is_ok())
            .map(|(_, reason)| (*reason).to_owned())
            .collect();
        if let Ok(reason) = fs::read(admin.join("locked")) {
            let reason = String::from_utf8_lossy(without_newline(&reason)).into_owned();
            let reason = if reason.is_empty() { reason } else { format!(": {reason}") };
            reasons.push(format!("it is locked{reason}"));
        }
        if reasons.is_empty() {
            return Ok(());
        }
        Err(VcsWorktreeError::Unfinished { path: locator(path), detail: reasons.join("; ") })
    }
}
