//! What the operations on commits do with the port. Errors become facts.

use super::operations::{describe, refusal};
use crate::attempt::{Fact, Refusal, RefusalCode};
use crate::id::{AttemptId, ExecutionId};
use crate::vcs_history::{HistoryRequest, VcsHistory, VcsHistoryError};
use crate::workspace::Worktree;

pub(super) async fn plan(
    vcs: &dyn VcsHistory,
    attempt: AttemptId,
    worktree: &Worktree,
    request: &HistoryRequest,
    execution: ExecutionId,
) -> Fact {
    match vcs.plan_history(attempt, worktree, request).await {
        Ok(plan) => Fact::HistoryPlanned { execution, plan: Box::new(plan) },
        Err(error) => Fact::HistoryRefused { refusal: refused(&error) },
    }
}

pub(super) async fn conclude(
    vcs: &dyn VcsHistory,
    attempt: AttemptId,
    worktree: &Worktree,
    request: &HistoryRequest,
) -> Fact {
    match vcs.conclude_history(attempt, worktree, request).await {
        Ok(conclusion) => Fact::HistoryConcluded { conclusion: Box::new(conclusion) },
        Err(error) => Fact::HistoryRefused { refusal: refused(&error) },
    }
}

/// Says that the host cannot do it at all.
pub(super) fn unsupported() -> Fact {
    let message = "this host does nothing with commits but make them".to_owned();
    Fact::HistoryRefused { refusal: Refusal { code: RefusalCode::Unsupported, message } }
}

fn refused(error: &VcsHistoryError) -> Refusal {
    let code = match error {
        VcsHistoryError::Dirty { .. } | VcsHistoryError::TargetInUse { .. } => RefusalCode::Dirty,
        VcsHistoryError::Conflicts { .. } => RefusalCode::MergeConflict,
        VcsHistoryError::NoBranch { .. }
        | VcsHistoryError::OwnBranch { .. }
        | VcsHistoryError::NoRemote { .. } => RefusalCode::NoTarget,
        VcsHistoryError::Nothing { .. } => RefusalCode::NothingToDo,
        VcsHistoryError::Worktree(error) => return refusal(error),
    };
    Refusal { code, message: describe(error) }
}
