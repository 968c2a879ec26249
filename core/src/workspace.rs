//! Workspaces: the directory that executions run in.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::locator::Locator;

/// A git object name in hexadecimal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Oid(pub String);

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.get(..10).unwrap_or(&self.0))
    }
}

/// The directory that executions run in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Workspace {
    /// Made and removed by us.
    Worktree(Worktree),
    /// The user's; never removed, reset, cleaned or committed to unless asked.
    Directory {
        /// Where it is.
        path: Locator,
    },
}

impl Workspace {
    /// Returns where executions run.
    #[must_use]
    pub fn path(&self) -> &Locator {
        match self {
            Self::Worktree(worktree) => &worktree.path,
            Self::Directory { path } => path,
        }
    }

    /// Returns the worktree, if it is one.
    #[must_use]
    pub fn worktree(&self) -> Option<&Worktree> {
        match self {
            Self::Worktree(worktree) => Some(worktree),
            Self::Directory { .. } => None,
        }
    }
}

/// A worktree as it is recorded, before and after it exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worktree {
    /// The repository: its common git directory.
    pub repo: Locator,
    /// Where the worktree is, or will be.
    pub path: Locator,
    /// The branch that was made for it, without `refs/heads/`.
    pub branch: String,
    /// The base as it was named.
    pub base: String,
    /// The commit that it was made from.
    pub base_oid: Oid,
    /// The branch that its work is meant for, without `refs/heads/`; `None` if the base was no branch.
    pub target: Option<String>,
    /// What is copied in when it is made.
    #[serde(default)]
    pub copy: Option<CopyIn>,
}

/// Ignored files that are copied into a new worktree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyIn {
    /// The checkout that they come from.
    pub from: Locator,
    /// Globs as in `.gitignore`, relative to its root.
    pub globs: Vec<String>,
}
