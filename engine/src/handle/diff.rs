//! Following the diff of an attempt.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::channel::mpsc;
use futures::future::{Either, select};
use windlass_core::diff_watch::{DiffCursor, DiffFollower, DiffWatch, DiffWatchError, ToldDiff};
use windlass_core::error::BackendError;
use windlass_core::id::AttemptId;
use windlass_core::process_store::{Kind, Record, RecordKey};
use windlass_core::record::{AttemptRecord, AttemptStatus, Recorded as _};
use windlass_core::vcs_worktree::VcsWorktreeError;
use windlass_core::workspace::Worktree;

use super::Handle;
use super::keep::without_repository;
use crate::error::{EngineError, RefusalCode};
use crate::host::prelude::worktree_code;
use crate::host::records::decode_error;
use crate::request::Caller;

impl Handle {
    /// Follows what differs between an attempt's merge base and its worktree. One that was removed is made again first.
    ///
    /// It goes on while executions come and go. When the attempt's target becomes another branch, a generation begins.
    ///
    /// # Errors
    ///
    /// [`EngineError::Refused`] where there is no worktree and none can be made again, or where nothing can be followed.
    pub async fn follow_diff(
        &self,
        caller: &Caller,
        id: AttemptId,
        after: Option<DiffCursor>,
    ) -> Result<DiffStream, EngineError> {
        let Some(watch) = self.diff_watch.clone() else {
            return Err(not_watched("this engine's backend follows no diffs".to_owned()));
        };
        let first = self.worktree_again(caller, id).await?;
        let records = self.watch(key(id)).await?;
        // It may have changed before that.
        let worktree = self.worktree(caller, id).await.unwrap_or(first);
        let follower = watch.follow(id, &worktree, after).await.map_err(watch_error)?;
        Ok(DiffStream { handle: self.clone(), watch, id, worktree, follower, records })
    }
}

const fn key(id: AttemptId) -> RecordKey {
    RecordKey { kind: Kind::Attempt, id: id.0 }
}

/// A diff that is followed. Dropping it ends that.
#[derive(Debug)]
pub struct DiffStream {
    handle: Handle,
    watch: Arc<dyn DiffWatch>,
    id: AttemptId,
    worktree: Worktree,
    follower: Box<dyn DiffFollower>,
    records: mpsc::UnboundedReceiver<Record>,
}

impl DiffStream {
    /// Waits until there is something to tell and returns it; whoever is slow is told of each file once.
    ///
    /// # Errors
    ///
    /// [`EngineError::Refused`] when the worktree is gone; [`EngineError::Closing`] when the host leaves. Nothing follows.
    ///
    /// # Cancel safety
    ///
    /// May be dropped; nothing is lost.
    pub async fn next(&mut self) -> Result<Vec<ToldDiff>, EngineError> {
        loop {
            let first = match select(self.follower.next(), self.records.next()).await {
                Either::Left((told, _)) => Either::Left(told),
                Either::Right((record, _)) => Either::Right(record),
            };
            let record = match first {
                Either::Left(Ok(told)) => return Ok(told),
                Either::Left(Err(error)) => {
                    self.begin_again(error).await?;
                    continue;
                }
                Either::Right(record) => record,
            };
            let worktree = match record {
                Some(record) => decoded(&record),
                None => self.read_again().await?.workspace.worktree().cloned(),
            };
            if let Some(worktree) = worktree.filter(|worktree| *worktree != self.worktree) {
                self.follower =
                    self.watch.follow(self.id, &worktree, None).await.map_err(watch_error)?;
                self.worktree = worktree;
            }
        }
    }

    /// Follows again what is there again: a removal takes the worktree away first, and puts it back if it is refused.
    async fn begin_again(&mut self, error: DiffWatchError) -> Result<(), EngineError> {
        let is_gone = matches!(
            &error,
            DiffWatchError::Worktree(error) if matches!(**error, VcsWorktreeError::Gone { .. })
        );
        if !is_gone {
            return Err(watch_error(error));
        }
        let mut record = self.handle.attempt(&Caller::default(), self.id).await?;
        while record.claim.is_some() && record.status != AttemptStatus::Removed {
            record = match self.records.next().await {
                Some(record) => AttemptRecord::decode(&record).map_err(decode_error)?,
                None => self.read_again().await?,
            };
        }
        if record.status == AttemptStatus::Removed {
            return Err(watch_error(error));
        }
        let follower = self.watch.follow(self.id, &self.worktree, None).await;
        self.follower = follower.map_err(watch_error)?;
        Ok(())
    }

    /// Goes on where the loop has started over from the store, or has ended, which this tells.
    async fn read_again(&mut self) -> Result<AttemptRecord, EngineError> {
        self.records = self.handle.watch(key(self.id)).await?;
        self.handle.attempt(&Caller::default(), self.id).await
    }
}

/// What a newer version wrote says nothing to this one.
fn decoded(record: &Record) -> Option<Worktree> {
    AttemptRecord::decode(record).ok()?.workspace.worktree().cloned()
}

fn not_watched(reason: String) -> EngineError {
    EngineError::refused(RefusalCode::NotWatched, reason)
}

fn watch_error(error: DiffWatchError) -> EngineError {
    match error {
        DiffWatchError::Unsupported { .. } => not_watched(error.to_string()),
        DiffWatchError::Worktree(error) => match worktree_code(&error) {
            Some(code) => without_repository(EngineError::refused(code, error.to_string())),
            None => BackendError::transient("worktrees", "follow a diff", error).into(),
        },
    }
}
