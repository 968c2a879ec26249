//! What clients ask for about the commits of an attempt.

use serde::{Deserialize, Serialize};
use windlass_core::record::PullRequestState;
use windlass_core::vcs_history::MergeStyle;

/// What of an attempt's work is to be merged, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergeRequest {
    /// Into which branch; `None` is the attempt's target.
    #[serde(default)]
    pub into: Option<String>,
    /// How.
    #[serde(default = "with_a_merge_commit")]
    pub style: MergeStyle,
    /// The message of the commit; `None` makes one of the title.
    #[serde(default)]
    pub message: Option<String>,
}

fn with_a_merge_commit() -> MergeStyle {
    MergeStyle::Commit
}

impl Default for MergeRequest {
    fn default() -> Self {
        Self { into: None, style: with_a_merge_commit(), message: None }
    }
}

/// On top of what an attempt's work is to be put.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebaseRequest {
    /// Which branch; `None` is the attempt's target.
    #[serde(default)]
    pub onto: Option<String>,
    /// Go on with the one that is in progress, whose conflicts are resolved and staged.
    #[serde(default, rename = "continue")]
    pub go_on: bool,
}

/// Where an attempt's branch is to be pushed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushRequest {
    /// The remote; `None` is what the repository says, else `origin`, else the only one there is.
    #[serde(default)]
    pub remote: Option<String>,
    /// Also if the branch there is not behind, as long as it is where it was last seen.
    #[serde(default)]
    pub force_with_lease: bool,
}

/// What is to be changed about an attempt; what is not named stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptChange {
    /// The branch that its work is meant for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// A pull request that was made of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<PullRequestChange>,
}

/// What is to be noted of a pull request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequestChange {
    /// Where it is.
    pub url: String,
    /// How it stands; null forgets it.
    pub state: Option<PullRequestState>,
}
