//! Removing, saving and getting back: worktrees, their snapshots, cleanup.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use windlass_core::cleanup::{Action, Decision, Thing};
use windlass_core::id::AttemptId;
use windlass_core::locator::Locator;
use windlass_core::process_store::{Kind, ProcessStoreExt as _, Query};
use windlass_core::snapshot::{SnapshotCause, SnapshotNumber, SnapshotRecord};

use super::Handle;
use crate::error::{EngineError, RefusalCode};
use crate::host::changes::Change;
use crate::host::command::Command;
use crate::host::records::store_error;
use crate::request::{Caller, GcOptions, RemoveOptions};

/// One thing that cleanup has looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcItem {
    /// What it is.
    pub what: Thing,
    /// Where it is.
    pub path: Locator,
    /// The attempt that it belongs to, if that can be told.
    pub attempt: Option<AttemptId>,
    /// What was done, or would be.
    pub action: Action,
    /// Why.
    pub reason: String,
    /// Why it was not done after all.
    pub error: Option<String>,
}

impl From<&Decision> for GcItem {
    fn from(decision: &Decision) -> Self {
        Self {
            what: decision.thing,
            path: decision.path.clone(),
            attempt: decision.attempt,
            action: decision.action,
            reason: decision.reason.clone(),
            error: None,
        }
    }
}

impl Handle {
    pub(super) async fn change(
        &self,
        caller: Caller,
        attempt: AttemptId,
        change: Change,
    ) -> Result<(), EngineError> {
        let answer = self.ask(|answer| Command::Change { caller, attempt, change, answer }).await;
        answer.map_err(without_repository)
    }

    /// Saves an attempt's worktree where anything in it exists nowhere else, and removes it; returns when it is gone.
    ///
    /// # Errors
    ///
    /// [`EngineError::Refused`] when something runs in it, is in progress or cannot be saved: it is as it was then.
    pub async fn remove(
        &self,
        caller: Caller,
        attempt: AttemptId,
        options: RemoveOptions,
    ) -> Result<(), EngineError> {
        let change = Change::Remove { options, cause: SnapshotCause::Removal };
        let answer = self.change(caller, attempt, change).await;
        if let Err(EngineError::Refused { code: RefusalCode::Full, reason }) = &answer
            && let Ok(room) = self.ports.containers.room().await
        {
            // What is needed is not known before it is written; what there is helps to free enough.
            let (free, reason) = (room.free_bytes >> 20, reason.as_str());
            let reason = format!(
                "{reason}: what must be saved first needs more than the {free} MiB that are free"
            );
            return Err(EngineError::refused(RefusalCode::Full, reason));
        }
        answer
    }

    /// Makes an attempt's removed worktree again as it was, or as it was in one of its snapshots; returns when it is there.
    ///
    /// A worktree that is there stays as it is; one that somebody deleted comes back as far as its repository knows it.
    ///
    /// # Errors
    ///
    /// [`EngineError::Refused`] where there is nothing to make it from, or where it is there and a snapshot is asked for.
    pub async fn restore(
        &self,
        caller: Caller,
        attempt: AttemptId,
        snapshot: Option<SnapshotNumber>,
    ) -> Result<(), EngineError> {
        self.change(caller, attempt, Change::Restore { snapshot }).await
    }

    /// Lists an attempt's snapshots, newest first.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotFound`].
    pub async fn snapshots(
        &self,
        caller: &Caller,
        attempt: AttemptId,
    ) -> Result<Vec<SnapshotRecord>, EngineError> {
        self.attempt(caller, attempt).await?;
        let mut query = Query::newest(Kind::Snapshot, Query::MAX_LIMIT);
        query.parent = Some(attempt.0);
        let mut records = self.select(query, None, |_: &SnapshotRecord| true).await?;
        records.sort_by_key(|record| std::cmp::Reverse(record.snapshot.number));
        Ok(records)
    }

    /// Counts the snapshots of every attempt that has some.
    ///
    /// # Errors
    ///
    /// [`EngineError::Backend`].
    pub async fn snapshot_counts(
        &self,
        caller: &Caller,
    ) -> Result<BTreeMap<AttemptId, usize>, EngineError> {
        let mut query = Query::newest(Kind::Snapshot, Query::MAX_LIMIT);
        query.owner.clone_from(&caller.owner);
        let mut counts = BTreeMap::new();
        for stored in self.ports.store.list_all(query).await.map_err(store_error)? {
            if let Some(attempt) = stored.record.parent {
                *counts.entry(AttemptId(attempt)).or_insert(0) += 1;
            }
        }
        Ok(counts)
    }

    /// Removes a snapshot; `force` also if the removed worktree cannot be made again without it.
    ///
    /// # Errors
    ///
    /// [`EngineError::Refused`].
    pub async fn remove_snapshot(
        &self,
        caller: Caller,
        attempt: AttemptId,
        number: SnapshotNumber,
        force: bool,
    ) -> Result<(), EngineError> {
        self.change(caller, attempt, Change::RemoveSnapshot { number, force }).await
    }

    /// Says whether an attempt's worktree stays, however long nothing happens in it.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotFound`].
    pub async fn keep(
        &self,
        caller: Caller,
        attempt: AttemptId,
        keep: bool,
    ) -> Result<(), EngineError> {
        self.change(caller, attempt, Change::SetKeep { keep }).await
    }

    /// Cleans up now, or says what that would do; returns what was found, each with what was done about it.
    ///
    /// # Errors
    ///
    /// [`EngineError::Backend`] if it cannot be looked.
    pub async fn gc(&self, options: GcOptions) -> Result<Vec<GcItem>, EngineError> {
        self.ask(|answer| Command::Gc { options, answer }).await
    }
}

/// Says of an attempt's own repository that it is not where it was: nobody named it in the request.
pub(super) fn without_repository(error: EngineError) -> EngineError {
    match error {
        EngineError::Refused {
            code: RefusalCode::NotARepository | RefusalCode::RepositoryGone,
            reason,
        } => {
            let reason = format!("the attempt's repository is gone: {reason}");
            EngineError::refused(RefusalCode::RepositoryGone, reason)
        }
        error => error,
    }
}
