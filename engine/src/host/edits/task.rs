//! Tasks: added, changed, removed.

use windlass_core::id::TaskId;
use windlass_core::process_store::{Expect, Kind, ProcessStoreExt as _, Query, Revision, Write};
use windlass_core::record::{AttemptRecord, AttemptStatus, Phase, Recorded, TaskRecord};
use windlass_core::task::{Said, TaskStatus};

use super::{Editing, Prepared, check_version, put_changed};
use crate::error::{EngineError, RefusalCode};
use crate::host::records::{attempts_of_task, read_attempt, read_project, read_task, store_error};
use crate::request::{Say, TaskChange, TaskRequest};

/// The most characters of a title.
const TITLE_CHARS: usize = 1_000;

/// The most bytes of a description.
const DESCRIPTION_BYTES: usize = 1 << 20;

impl Editing<'_> {
    pub(super) async fn add_task(&self, request: TaskRequest) -> Result<Prepared, EngineError> {
        let TaskRequest { project, title, description, parent } = request;
        let (project, _) = read_project(self.ports, self.owner(), project).await?;
        if let Some(parent) = parent {
            read_attempt(self.ports, self.owner(), parent).await?;
        }
        let record = TaskRecord {
            id: TaskId::new(self.at, self.ten),
            project: project.id,
            title: checked_title(&title)?,
            description: checked_description(description)?,
            owner: self.caller.owner.clone(),
            parent,
            said: None,
            created_at: self.at,
        };
        let writes = vec![Write::Put { record: record.encode(), expect: Expect::Absent }];
        Ok(Prepared { made: record.key(), writes })
    }

    pub(super) async fn set_task(
        &self,
        id: TaskId,
        version: Option<Revision>,
        change: TaskChange,
    ) -> Result<Prepared, EngineError> {
        let (before, stored) = read_task(self.ports, self.owner(), id).await?;
        check_version(&stored, version, &id.short())?;
        let TaskChange { title, description, status } = change;
        let mut after = before.clone();
        if let Some(title) = title {
            after.title = checked_title(&title)?;
        }
        if let Some(description) = description {
            after.description = checked_description(description)?;
        }
        if let Some(say) = status {
            if matches!(say, Say::Cancelled | Say::Archived) {
                self.check_nothing_waits(id).await?;
            }
            let said = |status| Some(Said { status, at: self.at });
            after.said = match say {
                Say::Todo => said(TaskStatus::Todo),
                Say::Done => said(TaskStatus::Done),
                Say::Cancelled => said(TaskStatus::Cancelled),
                Say::Archived => said(TaskStatus::Archived),
                Say::Reopen => None,
            };
        }
        Ok(Prepared { made: after.key(), writes: put_changed(&before, &after, &stored) })
    }

    /// Refuses to close a task while messages would still start something in it.
    async fn check_nothing_waits(&self, id: TaskId) -> Result<(), EngineError> {
        let attempts = attempts_of_task(self.ports, id).await?;
        let flows = |it: &&AttemptRecord| it.queue > 0 && it.queue_held.is_none();
        let Some(attempt) = attempts.iter().find(flows) else { return Ok(()) };
        let (short, count) = (attempt.id.short(), attempt.queue);
        let reason = format!(
            "messages wait for {short} of {} ({count}) and would be started: hold them first (windlass send {short} --hold), \
             or stop {short}",
            id.short()
        );
        Err(EngineError::refused(RefusalCode::Busy, reason))
    }

    pub(super) async fn remove_task(&self, id: TaskId) -> Result<Prepared, EngineError> {
        let (_, stored) = read_task(self.ports, self.owner(), id).await?;
        self.check_quiet(id).await?;
        let key = stored.record.key;
        Ok(Prepared { made: key, writes: vec![Write::Delete { key, expect: stored.revision }] })
    }

    /// Refuses to remove a task while an attempt of it is active: a chain, or anything else that runs in it.
    pub(super) async fn check_quiet(&self, id: TaskId) -> Result<(), EngineError> {
        for attempt in attempts_of_task(self.ports, id).await? {
            let busy = match attempt.status {
                AttemptStatus::Creating
                | AttemptStatus::Running
                | AttemptStatus::Committing
                | AttemptStatus::Removing => true,
                AttemptStatus::Ready
                | AttemptStatus::Held
                | AttemptStatus::Parked
                | AttemptStatus::Finished
                | AttemptStatus::Removed
                | AttemptStatus::Failed => {
                    let mut query = Query::newest(Kind::Execution, 1);
                    query.parent = Some(attempt.id.0);
                    let live = Phase::ALL.into_iter().filter(|phase| *phase != Phase::Final);
                    query.states = live.map(|phase| phase.as_str().to_owned()).collect();
                    !self.ports.store.list_all(query).await.map_err(store_error)?.is_empty()
                }
            };
            if busy {
                let (attempt, task) = (attempt.id.short(), id.short());
                let reason = format!("{attempt} of {task} is active");
                return Err(EngineError::refused(RefusalCode::Busy, reason));
            }
        }
        Ok(())
    }
}

fn checked_title(title: &str) -> Result<String, EngineError> {
    let title = title.trim();
    let why = if title.is_empty() {
        "a task has a title"
    } else if title.chars().count() > TITLE_CHARS {
        "the title of a task has at most 1000 characters: the rest belongs into its description"
    } else if title.chars().any(char::is_control) {
        "the title of a task is one line without control characters"
    } else {
        return Ok(title.to_owned());
    };
    Err(EngineError::Invalid { reason: why.to_owned() })
}

fn checked_description(description: String) -> Result<String, EngineError> {
    if description.len() > DESCRIPTION_BYTES {
        let reason = "the description of a task has at most 1 MiB".to_owned();
        return Err(EngineError::Invalid { reason });
    }
    Ok(description)
}
