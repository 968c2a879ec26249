//! Waiting for executions: told by the loop of each durable write, never by polling.

use futures::channel::{mpsc, oneshot};
use futures::{SinkExt as _, StreamExt as _};
use windlass_core::id::{AttemptId, ExecutionId};
use windlass_core::process_store::{Kind, Record, RecordKey};
use windlass_core::record::{AttemptRecord, AttemptStatus, ExecutionRecord, Phase, Recorded};

use super::Handle;
use crate::error::EngineError;
use crate::host::command::Command;
use crate::host::records::{decode_error, read};
use crate::request::Caller;

impl Handle {
    /// Waits until an execution runs or never will.
    ///
    /// # Errors
    ///
    /// As [`ended`](Self::ended).
    pub async fn started(
        &self,
        caller: &Caller,
        id: ExecutionId,
    ) -> Result<ExecutionRecord, EngineError> {
        self.until(caller, id, |record| record.phase > Phase::Starting).await
    }

    /// Waits until the outcome of an execution is known and durable.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotFound`]; [`EngineError::Closing`] if the host leaves before.
    pub async fn ended(
        &self,
        caller: &Caller,
        id: ExecutionId,
    ) -> Result<ExecutionRecord, EngineError> {
        self.until(caller, id, |record| record.phase >= Phase::Ended).await
    }

    /// Waits until nothing of an execution will change any more and what it left is committed or not to be.
    ///
    /// # Errors
    ///
    /// As [`ended`](Self::ended).
    pub async fn settled(
        &self,
        caller: &Caller,
        id: ExecutionId,
    ) -> Result<ExecutionRecord, EngineError> {
        let record = self.until(caller, id, |record| record.phase == Phase::Final).await?;
        let key = RecordKey { kind: Kind::Attempt, id: record.attempt.0 };
        if !is_settled(&self.attempt(caller, record.attempt).await?, id) {
            self.changed_to(key, |attempt| is_settled(attempt, id)).await?;
        }
        self.execution(caller, id).await
    }

    /// Waits until nothing of an attempt's chain goes on: no script, no command, no commit, no save, and its worktree is made
    /// or gone. What runs beside the chain does not count.
    ///
    /// # Errors
    ///
    /// As [`ended`](Self::ended).
    pub async fn at_rest(
        &self,
        caller: &Caller,
        id: AttemptId,
    ) -> Result<AttemptRecord, EngineError> {
        let record = self.attempt(caller, id).await?;
        if rests(&record) {
            return Ok(record);
        }
        self.changed_to(RecordKey { kind: Kind::Attempt, id: id.0 }, rests).await
    }

    /// Reads an execution if there is nothing to wait for any more: it is settled, or has ended if that is enough.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotFound`].
    pub async fn done_by_now(
        &self,
        caller: &Caller,
        id: ExecutionId,
        settled: bool,
    ) -> Result<Option<ExecutionRecord>, EngineError> {
        let record = self.execution(caller, id).await?;
        if !settled {
            return Ok((record.phase >= Phase::Ended).then_some(record));
        }
        if record.phase != Phase::Final
            || !is_settled(&self.attempt(caller, record.attempt).await?, id)
        {
            return Ok(None);
        }
        // What the commit noted on it since is read with it.
        self.execution(caller, id).await.map(Some)
    }

    /// Waits until an execution's record is as wanted.
    pub(super) async fn until(
        &self,
        caller: &Caller,
        id: ExecutionId,
        wanted: impl Fn(&ExecutionRecord) -> bool,
    ) -> Result<ExecutionRecord, EngineError> {
        let record = self.execution(caller, id).await?;
        if wanted(&record) {
            return Ok(record);
        }
        self.changed_to(RecordKey { kind: Kind::Execution, id: id.0 }, wanted).await
    }

    /// Waits until a record that is there is as wanted.
    async fn changed_to<T: Recorded + Send>(
        &self,
        key: RecordKey,
        wanted: impl Fn(&T) -> bool,
    ) -> Result<T, EngineError> {
        loop {
            let mut changes = self.watch(key).await?;
            // It may have become so before the watch.
            if let Some((record, _)) = read::<T>(&self.ports, key.id).await?
                && wanted(&record)
            {
                return Ok(record);
            }
            while let Some(change) = changes.next().await {
                let record = T::decode(&change).map_err(decode_error)?;
                if wanted(&record) {
                    return Ok(record);
                }
            }
            // The loop has ended, which the next watch tells, or has started over from the store, which may hold a
            // write that nobody was told of.
        }
    }

    /// Subscribes to the durable writes of one record. Returns when the loop has it: what is read after that misses nothing.
    pub(super) async fn watch(
        &self,
        key: RecordKey,
    ) -> Result<mpsc::UnboundedReceiver<Record>, EngineError> {
        let (watcher, changes) = mpsc::unbounded();
        let mut commands = self.commands.clone();
        let (armed, is_armed) = oneshot::channel();
        let command = Command::Watch { key, watcher, armed };
        commands.send(command).await.map_err(|_| EngineError::Closing)?;
        is_armed.await.map_err(|_| EngineError::Closing)??;
        Ok(changes)
    }
}

/// Says whether nothing of an attempt's chain goes on.
fn rests(attempt: &AttemptRecord) -> bool {
    match attempt.status {
        AttemptStatus::Creating
        | AttemptStatus::Running
        | AttemptStatus::Committing
        | AttemptStatus::Removing => false,
        AttemptStatus::Ready
        | AttemptStatus::Held
        | AttemptStatus::Parked
        | AttemptStatus::Finished
        | AttemptStatus::Removed
        | AttemptStatus::Failed => true,
    }
}

/// Says whether what a final execution left is committed, or saved and undone, or is not to be.
fn is_settled(attempt: &AttemptRecord, execution: ExecutionId) -> bool {
    let is_undone = attempt.resetting.is_some() && attempt.chain_before.last() == Some(&execution);
    attempt.committing != Some(execution) && attempt.chain != Some(execution) && !is_undone
}
