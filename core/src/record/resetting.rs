//! What is recorded of a worktree that is being put back.

use serde::{Deserialize, Serialize};

use crate::workspace::Oid;

/// What a worktree is being put back to: what the next host must know to go on with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resetting {
    /// The commit.
    pub to: Oid,
    /// What is in it is saved: it may be undone.
    pub saved: bool,
}
