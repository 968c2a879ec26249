//! What is recorded of the commits of an attempt: where they are, and what is being done with them.

use serde::{Deserialize, Serialize};

use super::AttemptStatus;
use crate::id::ExecutionId;
use crate::time::Timestamp;
use crate::vcs_history::{Begun, HistoryWork, Merged};

/// What was done with the commits of an attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptHistory {
    /// What is being done with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integration: Option<Integration>,
    /// A merge that did not come to its end: a checkout of its target may be between before and after. The next one into the
    /// same target ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half_merged: Option<HalfMerged>,
    /// Where they were merged last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged: Option<Merged>,
    /// The pull requests that were made of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pull_requests: Vec<PullRequest>,
}

/// Something that is being done with the commits of an attempt: what the next host must know to go on with it. Nothing starts
/// in the workspace meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Integration {
    /// What.
    pub work: HistoryWork,
    /// The status to go back to.
    pub from: AttemptStatus,
    /// When it was asked for.
    pub at: Timestamp,
    /// What is in the worktree is saved, where it has to be before.
    pub saved: bool,
    /// What it is about, once it is planned.
    pub begun: Option<Begun>,
    /// The git execution that does it.
    pub execution: Option<ExecutionId>,
    /// How often it was tried.
    pub tries: u32,
}

/// A merge that did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HalfMerged {
    /// The target.
    pub target: String,
    /// What it was about.
    pub begun: Begun,
}

/// A pull request that was made of an attempt's commits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequest {
    /// Where it is.
    pub url: String,
    /// How it stands, as far as somebody has said.
    pub state: PullRequestState,
    /// When somebody said so.
    pub at: Timestamp,
}

/// How a pull request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullRequestState {
    /// It waits.
    Open,
    /// It was merged.
    Merged,
    /// It was closed without that.
    Closed,
}
