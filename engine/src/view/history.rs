//! What is shown of the commits of an attempt.

use serde::{Deserialize, Serialize};
use windlass_core::id::{AttemptId, ExecutionId};
use windlass_core::record::{AttemptRecord, PullRequest, PullRequestState};
use windlass_core::vcs_history::{
    Conclusion, HistoryWork, InProgress, MergeStyle, Merged, Standing,
};
use windlass_core::workspace::Oid;

use super::Time;
use crate::handle::Integrated;

/// That the commits of an attempt are in a branch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergedView {
    /// The branch.
    pub target: String,
    /// The commit of the branch that brought them, or a later one that has them.
    pub commit: Oid,
    /// The last of them.
    pub head: Oid,
    /// How; null if somebody else did it.
    pub style: Option<MergeStyle>,
    /// When it was recorded.
    pub at: Time,
}

impl From<Merged> for MergedView {
    fn from(merged: Merged) -> Self {
        let Merged { target, commit, head, style, at } = merged;
        Self { target, commit, head, style, at: Time(at) }
    }
}

/// A pull request that was made of an attempt's commits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequestView {
    /// Where it is.
    pub url: String,
    /// How it stands, as far as somebody has said.
    pub state: PullRequestState,
    /// When somebody said so.
    pub at: Time,
}

impl From<PullRequest> for PullRequestView {
    fn from(request: PullRequest) -> Self {
        let PullRequest { url, state, at } = request;
        Self { url, state, at: Time(at) }
    }
}

/// What is being done with the commits of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Integrating {
    /// They are being merged.
    Merge,
    /// They are being put on top of others.
    Rebase,
    /// Something in progress is being given up.
    Abort,
    /// They are being pushed.
    Push,
}

/// Where the commits of an attempt are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryView {
    /// Where they were merged last.
    pub merged: Option<MergedView>,
    /// The target of a merge that did not come to its end: a checkout of it may have a part of that, and merging again ends it.
    pub half_merged: Option<String>,
    /// All that they change is in the target, whoever brought it there; null if that was not looked at.
    pub landed: Option<bool>,
    /// What is being done with them.
    pub integrating: Option<Integrating>,
    /// What is in progress in the worktree; null also if that was not looked at.
    pub in_progress: Option<InProgress>,
    /// The files of the worktree with conflicts, as git prints them.
    pub conflicts: Vec<String>,
    /// The pull requests that were made of them.
    pub pull_requests: Vec<PullRequestView>,
}

impl HistoryView {
    /// Makes the view of what is recorded.
    #[must_use]
    pub fn new(record: &AttemptRecord) -> Self {
        let history = &record.history;
        let integrating = history.integration.as_ref().map(|it| match it.work {
            HistoryWork::Merge { .. } => Integrating::Merge,
            HistoryWork::Rebase { .. } | HistoryWork::Continue => Integrating::Rebase,
            HistoryWork::Abort => Integrating::Abort,
            HistoryWork::Push { .. } => Integrating::Push,
        });
        Self {
            merged: history.merged.clone().map(Into::into),
            half_merged: history.half_merged.as_ref().map(|half| half.target.clone()),
            integrating,
            pull_requests: history.pull_requests.iter().cloned().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// The same with what was found in the worktree.
    pub fn look(&mut self, standing: Standing) {
        let Standing { in_progress, conflicts, landed } = standing;
        self.landed = Some(landed);
        (self.in_progress, self.conflicts) = (in_progress, conflicts);
    }
}

/// What came of something that was done with an attempt's commits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntegratedView {
    /// Which attempt.
    pub attempt_id: AttemptId,
    /// The git execution that did it; null if it was so already.
    pub execution_id: Option<ExecutionId>,
    /// What came of it.
    #[serde(flatten)]
    pub result: IntegrationView,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum IntegrationView {
    /// The commits are in the target.
    Merged(MergedView),
    /// The commits are on top of another.
    Rebased {
        /// HEAD now.
        head: Oid,
        /// The commit that they are on top of.
        onto: Oid,
    },
    /// It stopped at conflicts, which are in the worktree to be resolved.
    Conflicts {
        /// The files, as git prints them.
        files: Vec<String>,
    },
    /// Nothing is in progress any more.
    Aborted {
        /// HEAD now.
        head: Oid,
    },
    /// The branch is there.
    Pushed {
        /// The remote.
        remote: String,
        /// The branch.
        branch: String,
        /// The commit that it is at.
        head: Oid,
    },
    /// It was not done.
    NotDone,
}

impl IntegratedView {
    /// Makes the view of what came of it.
    #[must_use]
    pub fn new(attempt_id: AttemptId, integrated: Integrated) -> Self {
        let result = match integrated.conclusion {
            Conclusion::Merged(merged) => IntegrationView::Merged(merged.into()),
            Conclusion::Rebased { head, onto } => IntegrationView::Rebased { head, onto },
            Conclusion::Conflicts { files } => IntegrationView::Conflicts { files },
            Conclusion::Aborted { head } => IntegrationView::Aborted { head },
            Conclusion::Pushed { remote, branch, head } => {
                IntegrationView::Pushed { remote, branch, head }
            }
            Conclusion::NotDone => IntegrationView::NotDone,
        };
        Self { attempt_id, execution_id: integrated.execution, result }
    }
}
