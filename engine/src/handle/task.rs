//! Tasks: what somebody wants done, with the attempts that try.

use windlass_core::id::{ProjectId, TaskId};
use windlass_core::process_store::{Cursor, Kind, Query, Revision, Stored};
use windlass_core::record::{AttemptRecord, AttemptStatus, Recorded, TaskRecord};
use windlass_core::task::TaskStatus;

use super::{Handle, check_branch, check_launch, check_scripts};
use crate::error::EngineError;
use crate::host::command::Command;
use crate::host::edits::{Edit, Turn};
use crate::host::records::{attempts_of_task, read_task, store_error, task_status};
use crate::request::{Accepted, Caller, RemoveOptions, TaskChange, TaskRequest, TaskRun};

/// A task with its attempts, and the status that follows from both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its record.
    pub record: TaskRecord,
    /// Its version: a change may be bound to it. Its attempts do not raise it.
    pub version: Revision,
    /// How far it is.
    pub status: TaskStatus,
    /// Its attempts, newest first.
    pub attempts: Vec<AttemptRecord>,
}

/// Which tasks to list, newest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskFilter {
    /// Only those of this project.
    pub project: Option<ProjectId>,
    /// Only those that are this far.
    pub status: Option<TaskStatus>,
    /// Go on after this place in the order: time and id of the last one seen.
    pub after: Option<Cursor>,
    /// At most this many; `None` is all.
    pub limit: Option<u32>,
}

impl Handle {
    /// Adds a task to a project.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotFound`] for a project or parent that is not there; [`EngineError::Invalid`].
    pub async fn add_task(
        &self,
        caller: Caller,
        request: TaskRequest,
    ) -> Result<Task, EngineError> {
        let made = self.edit(caller.clone(), Edit::AddTask(request)).await?;
        self.task(&caller, TaskId(made.id)).await
    }

    /// Changes a task. With a `version` it must be at that one.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotFound`]; [`EngineError::Refused`] with [`RefusalCode::Conflict`](crate::error::RefusalCode::Conflict)
    /// at another version; [`EngineError::Invalid`].
    pub async fn set_task(
        &self,
        caller: Caller,
        task: TaskId,
        version: Option<Revision>,
        change: TaskChange,
    ) -> Result<Task, EngineError> {
        self.edit(caller.clone(), Edit::SetTask { task, version, change }).await?;
        self.task(&caller, task).await
    }

    /// Removes a task. Its attempts stay, as runs; `with_attempts` removes them first by the safe rules: their worktrees are
    /// saved and go.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotFound`]; [`EngineError::Refused`] while an attempt is active, or where a worktree holds what cannot
    /// be saved: the task is there then, and so is that worktree.
    pub async fn remove_task(
        &self,
        caller: Caller,
        task: TaskId,
        with_attempts: bool,
    ) -> Result<(), EngineError> {
        // One that is gone may have been removed by this very request.
        if with_attempts && let Ok(known) = self.task(&caller, task).await {
            for attempt in known.attempts {
                if attempt.status != AttemptStatus::Removed {
                    self.remove(caller.clone(), attempt.id, RemoveOptions::default()).await?;
                }
            }
        }
        self.edit(caller, Edit::RemoveTask { task }).await.map(drop)
    }

    /// Makes an attempt of a task, with the defaults of its project, and starts its execution.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run); [`EngineError::Refused`] with [`RefusalCode::TaskClosed`](crate::error::RefusalCode::TaskClosed)
    /// for one that is cancelled or archived.
    pub async fn run_task(
        &self,
        caller: Caller,
        task: TaskId,
        request: TaskRun,
    ) -> Result<Accepted, EngineError> {
        check_launch(&request.launch)?;
        check_scripts(&request.scripts)?;
        check_branch(request.branch.as_deref())?;
        self.check_secrets(&caller, &request.launch).await?;
        let request = Box::new(request);
        self.ask(|answer| Command::Turn(Turn::Run { caller, task, request, answer })).await
    }

    /// Reads one task.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotFound`].
    pub async fn task(&self, caller: &Caller, id: TaskId) -> Result<Task, EngineError> {
        let (record, stored) = read_task(&self.ports, caller.owner.as_deref(), id).await?;
        self.and_attempts(record, stored.revision).await
    }

    /// Lists tasks, newest first.
    ///
    /// # Errors
    ///
    /// [`EngineError::Backend`].
    pub async fn tasks(
        &self,
        caller: &Caller,
        filter: TaskFilter,
    ) -> Result<Vec<Task>, EngineError> {
        let enough = filter.limit.map_or(usize::MAX, |limit| limit as usize);
        let mut query = Query::newest(Kind::Task, Query::MAX_LIMIT);
        query.owner.clone_from(&caller.owner);
        query.parent = filter.project.map(|project| project.0);
        query.after = filter.after;
        let mut found = Vec::new();
        loop {
            let page = self.ports.store.list(query.clone()).await.map_err(store_error)?;
            for Stored { record, revision, .. } in page.records {
                if found.len() >= enough {
                    return Ok(found);
                }
                // What a newer version wrote cannot be shown by this one; `check` reports it.
                let Ok(record) = TaskRecord::decode(&record) else { continue };
                let task = self.and_attempts(record, revision).await?;
                if filter.status.is_none_or(|status| status == task.status) {
                    found.push(task);
                }
            }
            match page.next {
                Some(next) => query.after = Some(next),
                None => return Ok(found),
            }
        }
    }

    async fn and_attempts(
        &self,
        record: TaskRecord,
        version: Revision,
    ) -> Result<Task, EngineError> {
        let attempts = attempts_of_task(&self.ports, record.id).await?;
        let status = task_status(&record, &attempts);
        Ok(Task { record, version, status, attempts })
    }
}
