//! Reading records on behalf of requests.

use std::sync::Arc;

use windlass_core::attempt::State;
use windlass_core::driver::Ports;
use windlass_core::error::BackendError;
use windlass_core::id::{AttemptId, ExecutionId, ProjectId, TaskId};
use windlass_core::process_store::{
    Kind, ProcessStoreError, ProcessStoreExt as _, Query, RecordKey, Revision, Stored,
};
use windlass_core::record::{
    AttemptRecord, DecodeError, ExecutionRecord, FollowUpRecord, FollowUpState, Phase,
    ProjectRecord, Recorded, TaskRecord,
};
use windlass_core::task::{self, Activity, TaskStatus};

use crate::error::{EngineError, RefusalCode};

/// Turns a store's error into what a caller is told.
pub(crate) fn store_error(error: ProcessStoreError) -> EngineError {
    match error {
        ProcessStoreError::Superseded { .. } => EngineError::Superseded,
        ProcessStoreError::Full => {
            EngineError::refused(RefusalCode::Full, "no space left for the records")
        }
        ProcessStoreError::Backend(error) => error.into(),
        error => EngineError::Backend(Arc::new(BackendError::permanent("store", "access", error))),
    }
}

pub(crate) fn decode_error(error: DecodeError) -> EngineError {
    EngineError::Backend(Arc::new(BackendError::permanent("store", "decode", error)))
}

/// Reads one record and decodes it.
pub(crate) async fn read<T: Recorded>(
    ports: &Ports,
    id: uuid::Uuid,
) -> Result<Option<(T, Stored)>, EngineError> {
    let key = RecordKey { kind: T::KIND, id };
    let Some(stored) = ports.store.get(key).await.map_err(store_error)? else { return Ok(None) };
    let value = T::decode(&stored.record).map_err(decode_error)?;
    Ok(Some((value, stored)))
}

pub(crate) async fn read_execution(
    ports: &Ports,
    owner: Option<&str>,
    id: ExecutionId,
) -> Result<ExecutionRecord, EngineError> {
    let found = read::<ExecutionRecord>(ports, id.0).await?;
    let found = found.map(|(record, _)| record).filter(|record| visible(owner, &record.owner));
    found.ok_or_else(|| EngineError::no_execution(id))
}

pub(crate) async fn read_attempt(
    ports: &Ports,
    owner: Option<&str>,
    id: AttemptId,
) -> Result<AttemptRecord, EngineError> {
    let found = read::<AttemptRecord>(ports, id.0).await?;
    let found = found.map(|(record, _)| record).filter(|record| visible(owner, &record.owner));
    found.ok_or_else(|| EngineError::no_attempt(id))
}

pub(crate) async fn read_project(
    ports: &Ports,
    owner: Option<&str>,
    id: ProjectId,
) -> Result<(ProjectRecord, Stored), EngineError> {
    let found = read::<ProjectRecord>(ports, id.0).await?;
    let found = found.filter(|(record, _)| visible(owner, &record.owner));
    found.ok_or_else(|| EngineError::no_project(id))
}

pub(crate) async fn read_task(
    ports: &Ports,
    owner: Option<&str>,
    id: TaskId,
) -> Result<(TaskRecord, Stored), EngineError> {
    let found = read::<TaskRecord>(ports, id.0).await?;
    let found = found.filter(|(record, _)| visible(owner, &record.owner));
    found.ok_or_else(|| EngineError::no_task(id))
}

/// Reads what this version can read of the attempts of a task, newest first.
pub(crate) async fn attempts_of_task(
    ports: &Ports,
    task: TaskId,
) -> Result<Vec<AttemptRecord>, EngineError> {
    let mut query = Query::newest(Kind::Attempt, Query::MAX_LIMIT);
    query.parent = Some(task.0);
    let all = ports.store.list_all(query).await.map_err(store_error)?;
    Ok(all.iter().filter_map(|stored| AttemptRecord::decode(&stored.record).ok()).collect())
}

/// Decides the status of a task from its record and its attempts.
pub(crate) fn task_status(record: &TaskRecord, attempts: &[AttemptRecord]) -> TaskStatus {
    task::status(record.said, attempts.iter().map(Activity::of))
}

/// Says whether a caller sees what belongs to an owner: the operator sees all, an owner only its own.
pub(crate) fn visible(caller: Option<&str>, owner: &Option<String>) -> bool {
    caller.is_none() || caller == owner.as_deref()
}

/// Loads the machine of an attempt: its record and what is not final.
pub(super) async fn load_attempt(
    ports: &Ports,
    id: AttemptId,
) -> Result<Option<State>, EngineError> {
    let Some((attempt, stored)) = read::<AttemptRecord>(ports, id.0).await? else {
        return Ok(None);
    };
    let mut query = Query::newest(Kind::Execution, Query::MAX_LIMIT);
    query.parent = Some(id.0);
    let active = Phase::ALL.iter().filter(|phase| **phase != Phase::Final);
    query.states = active.map(|phase| phase.as_str().to_owned()).collect();
    let mut executions = Vec::new();
    for stored in ports.store.list_all(query).await.map_err(store_error)? {
        let record = ExecutionRecord::decode(&stored.record).map_err(decode_error)?;
        executions.push((record, stored.revision));
    }
    for needed in attempt.still_needed() {
        let known = executions.iter().any(|(record, _)| record.id == needed);
        if !known && let Some((record, stored)) = read(ports, needed.0).await? {
            executions.push((record, stored.revision));
        }
    }
    let queue = queue_of(ports, &attempt).await?;
    Ok(Some(State::load(attempt, stored.revision, executions).with_queue(queue)))
}

/// Reads the messages that wait for an attempt, and the one that its active chain is about.
pub(super) async fn queue_of(
    ports: &Ports,
    attempt: &AttemptRecord,
) -> Result<Vec<(FollowUpRecord, Revision)>, EngineError> {
    let mut queue = Vec::new();
    if attempt.queue > 0 {
        let mut query = Query::newest(Kind::FollowUp, Query::MAX_LIMIT);
        query.parent = Some(attempt.id.0);
        let waiting = FollowUpState::ALL.into_iter().filter(|state| state.waits());
        query.states = waiting.map(|state| state.as_str().to_owned()).collect();
        for stored in ports.store.list_all(query).await.map_err(store_error)? {
            let record = FollowUpRecord::decode(&stored.record).map_err(decode_error)?;
            queue.push((record, stored.revision));
        }
    }
    if let Some(active) = attempt.follow_up
        && let Some((record, stored)) = read::<FollowUpRecord>(ports, active.0).await?
    {
        queue.push((record, stored.revision));
    }
    Ok(queue)
}
