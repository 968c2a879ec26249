//! Waiting for executions: told by the loop of each durable write, never by polling.

use futures::channel::{mpsc, oneshot};
use futures::{SinkExt as _, StreamExt as _};
use windlass_core::id::ExecutionId;
use windlass_core::process_store::{Kind, Record, RecordKey};
use windlass_core::record::{AttemptRecord, ExecutionRecord, Phase, Recorded as _};

use super::Handle;
use crate::error::EngineError;
use crate::host::command::Command;
use crate::host::records::decode_error;
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
        let committed =
            |attempt: &AttemptRecord| attempt.committing != Some(id) && attempt.chain != Some(id);
        let mut attempt = self.attempt(caller, record.attempt).await?;
        if !committed(&attempt) {
            let mut changes = self.watch(key).await?;
            // It may have become so between the first look and the watch.
            attempt = self.attempt(caller, record.attempt).await?;
            while !committed(&attempt) {
                let change = changes.next().await.ok_or(EngineError::Closing)?;
                attempt = AttemptRecord::decode(&change).map_err(decode_error)?;
            }
        }
        self.execution(caller, id).await
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
        let key = RecordKey { kind: Kind::Execution, id: id.0 };
        let mut changes = self.watch(key).await?;
        // It may have become so between the first look and the watch.
        let mut record = self.execution(caller, id).await?;
        while !wanted(&record) {
            let change = changes.next().await.ok_or(EngineError::Closing)?;
            record = ExecutionRecord::decode(&change).map_err(decode_error)?;
        }
        Ok(record)
    }

    /// Subscribes to the durable writes of one record. Returns when the loop has it: what is read after that misses nothing.
    async fn watch(&self, key: RecordKey) -> Result<mpsc::UnboundedReceiver<Record>, EngineError> {
        let (watcher, changes) = mpsc::unbounded();
        let mut commands = self.commands.clone();
        let (armed, is_armed) = oneshot::channel();
        let command = Command::Watch { key, watcher, armed };
        commands.send(command).await.map_err(|_| EngineError::Closing)?;
        is_armed.await.map_err(|_| EngineError::Closing)?;
        Ok(changes)
    }
}
