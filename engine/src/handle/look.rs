//! Looking into executions and attempts: logs, diffs, the state of a worktree.

use std::sync::Arc;

use windlass_core::attempt::Slot;
use windlass_core::id::{AttemptId, ExecutionId};
use windlass_core::log_store::{
    GapCause, LogItem, LogKey, LogPage, LogStatus, LogStoreError, ReadOptions, Seq,
};
use windlass_core::record::{AttemptStatus, ExecutionRecord, Phase};
use windlass_core::vcs_worktree::{Diff, DiffDetail, WorktreeStatus};
use windlass_core::workspace::Worktree;

use super::Handle;
use super::keep::without_repository;
use crate::error::{EngineError, RefusalCode};
use crate::host::command::Command;
use crate::host::prelude::worktree_error;
use crate::request::Caller;

impl Handle {
    /// Reads one page of a log. An execution that has no log yet gives an empty page. What a finished execution is known to
    /// have written and its log does not have any more is a gap.
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
            Some(log) => {
                let page = self.ports.logs.read(&log, options).await;
                let page = page.map_err(|error| log_error(id, error))?;
                if page.end || !page.items.is_empty() || record.phase != Phase::Final {
                    return Ok(page);
                }
                self.rest_of_log(&record, &log, page.next).await
            }
            None => Ok(LogPage {
                items: Arc::from([]),
                next: Seq(0),
                end: record.phase == Phase::Final,
            }),
        }
    }

    /// Ends a log that does not know itself that nothing follows any more, because its evidence is damaged.
    async fn rest_of_log(
        &self,
        record: &ExecutionRecord,
        log: &LogKey,
        next: Seq,
    ) -> Result<LogPage, EngineError> {
        let Some(known) = record.log.filter(|known| known.last_seq > next.0) else {
            return Ok(LogPage { items: Arc::from([]), next, end: true });
        };
        let there = self.ports.logs.status(log).await.map_err(|e| log_error(record.id, e))?;
        let gap = LogItem::Gap {
            first: Seq(next.0 + 1),
            last: Some(Seq(known.last_seq)),
            bytes: known.bytes.saturating_sub(there.bytes),
            cause: GapCause::Power,
        };
        Ok(LogPage { items: Arc::from([gap]), next: Seq(known.last_seq), end: true })
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
            Some(log) if record.phase != Phase::Final => {
                self.ports.logs.grown(&log, after).await.map_err(|e| log_error(id, e))
            }
            Some(_) | None => Ok(()),
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

    /// Says for each of these executions how many wait for a slot before it; `None` for one that does not wait for one.
    ///
    /// # Errors
    ///
    /// [`EngineError::Closing`].
    pub async fn waiting_before(
        &self,
        records: &[ExecutionRecord],
    ) -> Result<Vec<Option<u32>>, EngineError> {
        let slots = records.iter().map(Slot::of).collect();
        self.ask(|answer| Command::Queue { slots, answer }).await
    }

    /// Compares an attempt's worktree with its merge base. One that was removed is made again first. The diff of one that was
    /// merged and not changed since is that of the merge, which needs neither worktree nor branch.
    ///
    /// # Errors
    ///
    /// [`EngineError::Refused`] where there is no worktree and none can be made again.
    pub async fn diff(
        &self,
        caller: &Caller,
        id: AttemptId,
        detail: DiffDetail,
    ) -> Result<Diff, EngineError> {
        if let Some(diff) = self.merged_diff(caller, id, detail).await? {
            return Ok(diff);
        }
        let worktree = self.worktree_again(caller, id).await?;
        let diff = self.ports.worktrees.diff(id, &worktree, detail).await;
        diff.map_err(|error| without_repository(worktree_error(error)))
    }

    /// Measures an attempt's worktree. One that was removed is made again first.
    ///
    /// # Errors
    ///
    /// As [`diff`](Self::diff).
    pub async fn worktree_status(
        &self,
        caller: &Caller,
        id: AttemptId,
    ) -> Result<WorktreeStatus, EngineError> {
        let worktree = self.worktree_again(caller, id).await?;
        self.ports.worktrees.status(id, &worktree).await.map_err(worktree_error)
    }

    /// Measures an attempt's worktree if there is one: looking at a list makes nothing again.
    ///
    /// # Errors
    ///
    /// [`EngineError::Refused`] where there is no worktree (any more).
    pub async fn measure(
        &self,
        caller: &Caller,
        id: AttemptId,
    ) -> Result<WorktreeStatus, EngineError> {
        let worktree = self.worktree(caller, id).await?;
        self.ports.worktrees.status(id, &worktree).await.map_err(worktree_error)
    }

    pub(super) async fn worktree_again(
        &self,
        caller: &Caller,
        id: AttemptId,
    ) -> Result<Worktree, EngineError> {
        let attempt = self.attempt(caller, id).await?;
        let restoring = attempt.status == AttemptStatus::Creating && attempt.restoring.is_some();
        if attempt.status == AttemptStatus::Removed || restoring {
            self.restore(caller.clone(), id, None).await?;
        }
        self.worktree(caller, id).await
    }

    pub(super) async fn worktree(
        &self,
        caller: &Caller,
        id: AttemptId,
    ) -> Result<Worktree, EngineError> {
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
