//! What is recorded of projects.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{CommitPolicy, Recorded};
use crate::id::ProjectId;
use crate::locator::Locator;
use crate::process_store::Kind;
use crate::time::Timestamp;

/// A repository with its defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectRecord {
    /// Its id.
    pub id: ProjectId,
    /// What people call it; no two projects of an owner have the same.
    pub name: String,
    /// The client it belongs to.
    pub owner: Option<String>,
    /// Where its attempts start from: the root of a checkout, or a repository that has none.
    pub repo: Locator,
    /// The repository: its common git directory.
    pub git_dir: Locator,
    /// What its attempts have in common.
    pub defaults: ProjectDefaults,
    /// When it was added.
    pub created_at: Timestamp,
}

/// What the attempts of a project have in common where they do not say otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectDefaults {
    /// The base of new attempts; `None` is what HEAD names.
    pub base: Option<String>,
    /// The script that prepares a new workspace.
    pub setup: Option<String>,
    /// The script that tidies up after the work.
    pub cleanup: Option<String>,
    /// The script that serves while people look.
    pub dev: Option<String>,
    /// Ignored files to copy into new worktrees: globs as in `.gitignore`.
    pub copy: Vec<String>,
    /// What happens to changes when a chain ended well.
    pub commit: CommitPolicy,
}

impl ProjectDefaults {
    /// Says nothing: attempts start from HEAD, get no ignored files, and what they changed is committed.
    #[must_use]
    pub fn none() -> Self {
        Self {
            base: None,
            setup: None,
            cleanup: None,
            dev: None,
            copy: Vec::new(),
            commit: CommitPolicy::Commit,
        }
    }
}

impl Recorded for ProjectRecord {
    const KIND: Kind = Kind::Project;

    fn fields(&self) -> (Uuid, Option<Uuid>, Option<&str>, &'static str, Timestamp) {
        (self.id.0, None, self.owner.as_deref(), "known", self.created_at)
    }
}
