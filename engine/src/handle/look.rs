//! Looking into executions and attempts: logs, diffs, the state of a worktree.

use std::sync::Arc;

use windlass_core::id::{AttemptId, ExecutionId};
use windlass_core::log_store::{LogKey, LogPage, LogStatus, LogStoreError, ReadOptions, Seq};
use windlass_core::record::{AttemptStatus, ExecutionRecord, Phase};
use windlass_core::vcs_worktree::{Diff, DiffDetail, WorktreeStatus};
use windlass_core::workspace::Worktree;

use super::Handle;
use crate::error::{EngineError, RefusalCode};
use crate::host::prelude::worktree_error;
use crate::request::Caller;

impl Handle {
    /// Reads one page of a log. An execution that has no log yet gives an empty page.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotFound`].
    pub async fn log_page(
        &self,
        caller: &Caller,
        id: ExecutionId,
        options: ReadOptions,
    ) -> Result<LogPage, EngineError> {
        let record = self.execution(caller, id).await?;
        match log_key(&record) {
            Some(log) => self.ports.logs.read(&log, options).await.map_err(|e| log_error(id, e)),
            None => Ok(LogPage {
                items: Arc::from([]),
                next: Seq(0),
                end: record.phase == Phase::Final,
            }),
        }
    }

    /// Waits until a log has a number above `after` or will never have one.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotFound`]; [`EngineError::Closing`] if the host leaves before.
    pub async fn log_grown(
        &self,
        caller: &Caller,
        id: ExecutionId,
        after: Seq,
    ) -> Result<(), EngineError> {
        let has_log =
            |record: &ExecutionRecord| log_key(record).is_some() || record.phase == Phase::Final;
        let record = self.until(caller, id, has_log).await?;
        match log_key(&record) {
            Some(log) => self.ports.logs.grown(&log, after).await.map_err(|e| log_error(id, e)),
            None => Ok(()),
        }
    }

    /// Measures a log.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotFound`].
    pub async fn log_status(
        &self,
        caller: &Caller,
        id: ExecutionId,
    ) -> Result<LogStatus, EngineError> {
        let record = self.execution(caller, id).await?;
        match log_key(&record) {
            Some(log) => self.ports.logs.status(&log).await.map_err(|e| log_error(id, e)),
            None => Ok(LogStatus { sealed: record.phase == Phase::Final, ..LogStatus::default() }),
        }
    }

    /// Compares an attempt's worktree with its merge base.
    ///
    /// # Errors
    ///
    /// [`EngineError::Refused`] where there is no worktree (any more).
    pub async fn diff(
        &self,
        caller: &Caller,
        id: AttemptId,
        detail: DiffDetail,
    ) -> Result<Diff, EngineError> {
        let worktree = self.worktree(caller, id).await?;
        self.ports.worktrees.diff(id, &worktree, detail).await.map_err(worktree_error)
    }

    /// Measures an attempt's worktree.
    ///
    /// # Errors
    ///
    /// As [`diff`](Self::diff).
    pub async fn worktree_status(
        &self,
        caller: &Caller,
        id: AttemptId,
    ) -> Result<WorktreeStatus, EngineError> {
        let worktree = self.worktree(caller, id).await?;
        self.ports.worktrees.status(id, &worktree).await.map_err(worktree_error)
    }

    async fn worktree(&self, caller: &Caller, id: AttemptId) -> Result<Worktree, EngineError> {
        let attempt = self.attempt(caller, id).await?;
        let code = match attempt.status {
            AttemptStatus::Removed | AttemptStatus::Removing | AttemptStatus::Failed => {
                RefusalCode::WorkspaceGone
            }
            AttemptStatus::Creating => RefusalCode::WrongState,
            AttemptStatus::Ready
            | AttemptStatus::Running
            | AttemptStatus::Committing
            | AttemptStatus::Held
            | AttemptStatus::Parked
            | AttemptStatus::Finished => {
                let no = || {
                    let reason = format!("{} runs in a directory, not in a worktree", id.short());
                    EngineError::refused(RefusalCode::NotAWorktree, reason)
                };
                return attempt.workspace.worktree().cloned().ok_or_else(no);
            }
        };
        let reason = format!("{} has no worktree: it is {}", id.short(), attempt.status.as_str());
        Err(EngineError::refused(code, reason))
    }
}

fn log_key(record: &ExecutionRecord) -> Option<LogKey> {
    let place = record.place.clone()?;
    Some(LogKey { execution: record.id, place })
}

fn log_error(id: ExecutionId, error: LogStoreError) -> EngineError {
    match error {
        LogStoreError::NotFound { .. } => {
            EngineError::NotFound { what: format!("the log of execution {}", id.short()) }
        }
        LogStoreError::Backend(error) => error.into(),
        LogStoreError::NotNext { .. } | LogStoreError::Sealed { .. } | LogStoreError::Full => {
            EngineError::refused(RefusalCode::Full, error.to_string())
        }
    }
}
