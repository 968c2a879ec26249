//! The port [`VcsHistory`]: what becomes of the commits of a worktree. They are merged, put on top of others, pushed, and
//! found again where they have landed.
//!
//! It is optional: an engine without it refuses these requests. As in [`vcs_worktree`](crate::vcs_worktree), steps that can
//! run the user's code are not performed here but described as a [`GitStep`] that runs as an execution of its own.

mod error;

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::id::AttemptId;
use crate::time::Timestamp;
use crate::vcs_worktree::{Diff, DiffDetail, GitStep, Identity};
use crate::workspace::{Oid, Worktree};

pub use error::VcsHistoryError;

/// How the commits of a worktree get into their target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MergeStyle {
    /// As one commit that has all they change.
    Squash,
    /// With a merge commit that has them as its second parent.
    Commit,
}

/// What is to be done with the commits of a worktree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HistoryWork {
    /// Merge them into a branch.
    Merge {
        /// The branch, without `refs/heads/`.
        target: String,
        /// How.
        style: MergeStyle,
        /// The message of the commit that is made.
        message: String,
    },
    /// Put them on top of a branch, in the worktree.
    Rebase {
        /// The branch, without `refs/heads/`.
        onto: String,
    },
    /// Go on with a rebase that stopped at a conflict, now that it is resolved and staged.
    Continue,
    /// Give up the rebase, merge or the like that is in progress in the worktree, and put that back to before it.
    Abort,
    /// Push the branch under its own name.
    Push {
        /// Where to; `None` is what the repository says, else `origin`, else the only one there is.
        remote: Option<String>,
        /// Also if the branch there is not behind ours, as long as it is where it was last seen.
        force_with_lease: bool,
    },
}

/// What a piece of work is about once it is planned: recorded before it is performed, so that whoever comes later can tell
/// how far it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Begun {
    /// A merge: the target goes from one commit to another, which is made already and belongs to nobody until then.
    Merge {
        /// The target before.
        old: Oid,
        /// The target after.
        new: Oid,
        /// What is merged.
        head: Oid,
    },
    /// A rebase.
    Rebase {
        /// HEAD before.
        head: Oid,
        /// The commit on top of which the commits are put.
        onto: Oid,
    },
    /// An abort.
    Abort,
    /// A push.
    Push {
        /// The remote.
        remote: String,
        /// The branch.
        branch: String,
        /// The commit that it is put at.
        head: Oid,
    },
}

/// That the commits of a worktree are in a branch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merged {
    /// The branch, without `refs/heads/`.
    pub target: String,
    /// The commit of the target that brought them, or a later one that has them.
    pub commit: Oid,
    /// The last of them.
    pub head: Oid,
    /// How; `None` if somebody else did it.
    pub style: Option<MergeStyle>,
    /// When it was recorded.
    pub at: Timestamp,
}

/// A piece of work with all that is needed to plan it, or to tell what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryRequest {
    /// What is to be done.
    pub work: HistoryWork,
    /// Who commits are by where the repository has no identity; its configuration is never written.
    pub fallback: Identity,
    /// The time of the commit that a merge makes.
    pub at: Timestamp,
    /// What was planned before: of the same work, or of a merge before it that did not come to its end.
    pub begun: Option<Begun>,
    /// Where the commits are already, as far as it is recorded.
    pub merged: Option<Merged>,
}

/// How to do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistoryPlan {
    /// It is so already.
    Done(Conclusion),
    /// This step does it. Performing it twice does it once.
    Run {
        /// The step.
        step: GitStep,
        /// What it is about.
        begun: Begun,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Conclusion {
    /// The commits are in the target.
    Merged(Merged),
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
    /// Nothing is in progress any more, and the worktree is as it was before.
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

/// An operation that is in progress in a worktree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InProgress {
    /// A rebase.
    Rebase,
    /// A merge.
    Merge,
    /// A cherry-pick.
    CherryPick,
    /// A revert.
    Revert,
    /// The application of mailed patches.
    Am,
}

/// Where the commits of a worktree stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// What is in progress in the worktree.
    pub in_progress: Option<InProgress>,
    /// Its files with conflicts, as git prints them.
    pub conflicts: Vec<String>,
    /// All that its commits change is in the target: by name, by content, or because they were merged.
    pub landed: bool,
}

/// What becomes of the commits of worktrees.
///
/// # Contract
///
/// - A merge touches no worktree but a checkout of its target, and that only if nothing in it differs from its commit: else
///   nothing is touched. The target moves from the commit that was planned for to the one that was made, or not at all.
/// - Whoever dies when: after a merge that did not come to its end the checkout is as it was, or planning the same again with
///   what had [`Begun`] ends it. Nothing ever looks like its opposite.
/// - A plan makes objects at most, which nobody names; looking makes nothing.
/// - Configuration is never written.
///
/// # Cancel safety
///
/// A dropped future has changed nothing but objects that nobody names.
///
/// # Example
///
/// ```
/// # use windlass_core::vcs_history::*;
/// # use windlass_core::{id::AttemptId, workspace::Worktree};
/// # async fn doc(vcs: &dyn VcsHistory, attempt: AttemptId, worktree: &Worktree, mut request: HistoryRequest)
/// # -> Result<(), VcsHistoryError> {
/// if let HistoryPlan::Run { step, begun } = vcs.plan_history(attempt, worktree, &request).await? {
///     request.begun = Some(begun);
///     // … record the request durably, run the step to its end as an execution, then:
///     let conclusion = vcs.conclude_history(attempt, worktree, &request).await?;
///     assert_ne!(conclusion, Conclusion::NotDone);
/// }
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait VcsHistory: fmt::Debug + Send + Sync + 'static {
    /// Describes how to do a piece of work. What is merged in the worktree must be committed.
    ///
    /// # Errors
    ///
    /// [`VcsHistoryError`]; nothing was touched.
    async fn plan_history(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        request: &HistoryRequest,
    ) -> Result<HistoryPlan, VcsHistoryError>;

    /// Looks what came of a piece of work that has [begun](HistoryRequest::begun) and whose step has ended or is lost. Of a
    /// push nothing can be told here: it answers [`Conclusion::NotDone`].
    ///
    /// # Errors
    ///
    /// [`VcsHistoryError`] if it cannot be looked.
    async fn conclude_history(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        request: &HistoryRequest,
    ) -> Result<Conclusion, VcsHistoryError>;

    /// Looks where the commits of a worktree stand.
    ///
    /// # Errors
    ///
    /// [`VcsHistoryError`] if it cannot be looked.
    async fn standing(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        merged: Option<&Merged>,
    ) -> Result<Standing, VcsHistoryError>;

    /// Compares a merge with the target before it. It needs neither the worktree nor its branch.
    ///
    /// # Errors
    ///
    /// [`VcsHistoryError`] if the commit is gone, or it cannot be looked.
    async fn merged_diff(
        &self,
        worktree: &Worktree,
        merged: &Merged,
        detail: DiffDetail,
    ) -> Result<Diff, VcsHistoryError>;
}
