//! What is recorded of a removal that is under way.

use serde::{Deserialize, Serialize};

use crate::snapshot::SnapshotCause;
use crate::vcs_worktree::Removed;

/// A removal that is under way: what the next host must know to go on with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removing {
    /// What runs is stopped, and an operation in progress is saved rather than a reason to refuse.
    pub force: bool,
    /// What cannot be saved is lost rather than a reason to refuse.
    pub discard_unsaved: bool,
    /// The branch goes too.
    pub delete_branch: bool,
    /// Why its work is saved.
    pub cause: SnapshotCause,
    /// The worktree is made again afterwards: somebody had deleted it and wants it back.
    pub restore: bool,
    /// What was saved, once it is.
    pub saved: Option<Removed>,
}

impl Removing {
    /// A removal by the safe rules that keeps the branch.
    pub const SAFE: Self = Self {
        force: false,
        discard_unsaved: false,
        delete_branch: false,
        cause: SnapshotCause::Removal,
        restore: false,
        saved: None,
    };
}
