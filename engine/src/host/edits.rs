//! Changes of projects and tasks: their records belong to no machine.
//!
//! They are made one at a time, and none while an attempt of a task is being started: what a change decides on (a name is
//! free, nothing of a task runs) is so when it is committed, and no attempt starts for a task that was closed before.

mod project;
mod run;
mod task;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;
use windlass_core::driver::Ports;
use windlass_core::id::{AttemptId, ExecutionId, ProjectId, TaskId};
use windlass_core::process_store::{
    ChangeNumber, Expect, Lease, ProcessStoreError, RecordKey, Revision, Stored, Write,
};
use windlass_core::record::{Recorded, RequestRecord};
use windlass_core::time::Timestamp;

use super::command::{Answer, Command};
use super::prelude::{Found, Prelude, Start, request_before};
use super::records::store_error;
use super::{End, Host};
use crate::error::{EngineError, RefusalCode};
use crate::request::{
    Accepted, Caller, ProjectChange, ProjectRequest, TaskChange, TaskRequest, TaskRun,
};
use crate::runtime::Runtime;

pub(crate) use self::run::Resolved;

/// What is to be changed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Edit {
    /// Add a project.
    AddProject(ProjectRequest),
    /// Change one, if it is still at a version.
    SetProject { project: ProjectId, version: Option<Revision>, change: ProjectChange },
    /// Remove one; `force` with its tasks.
    RemoveProject { project: ProjectId, force: bool },
    /// Add a task.
    AddTask(TaskRequest),
    /// Change one, if it is still at a version.
    SetTask { task: TaskId, version: Option<Revision>, change: TaskChange },
    /// Remove one. Its attempts stay.
    RemoveTask { task: TaskId },
}

/// What has its turn.
pub(crate) enum Turn {
    /// A change, alone.
    Edit { caller: Caller, edit: Box<Edit>, answer: Answer<RecordKey> },
    /// The start of an attempt of a task, beside others.
    Run { caller: Caller, task: TaskId, request: Box<TaskRun>, answer: Answer<Accepted> },
}

impl Turn {
    /// Answers with an error.
    pub(crate) fn fail(self, error: EngineError) {
        match self {
            Self::Edit { answer, .. } => drop(answer.send(Err(error))),
            Self::Run { answer, .. } => drop(answer.send(Err(error))),
        }
    }
}

/// Whose turn it is.
#[derive(Default)]
pub(super) struct Edits {
    /// The attempts of tasks that are being started, by the keys of their requests.
    starting: BTreeSet<Uuid>,
    is_editing: bool,
    waiting: VecDeque<Turn>,
    /// Whose change may or may not have been made.
    in_doubt: Option<Answer<RecordKey>>,
}

impl Edits {
    /// Answers all who wait with an error.
    pub(super) fn fail(&mut self, error: &EngineError) {
        for turn in std::mem::take(&mut self.waiting) {
            turn.fail(error.clone());
        }
        if let Some(answer) = self.in_doubt.take() {
            let _gone = answer.send(Err(error.clone()));
        }
    }

    /// Takes the next one that has its turn now. Nobody overtakes.
    fn next(&mut self) -> Option<Turn> {
        let may = match self.waiting.front()? {
            Turn::Edit { .. } => !self.is_editing && self.starting.is_empty(),
            Turn::Run { .. } => !self.is_editing,
        };
        if may { self.waiting.pop_front() } else { None }
    }
}

/// What became of a change.
pub(crate) struct Edited {
    /// What it was about.
    made: RecordKey,
    /// The batch that made it; `None` if there was nothing to write.
    number: Option<ChangeNumber>,
}

/// Why a change was not made.
pub(crate) enum EditError {
    /// It is not to be.
    Refused(EngineError),
    /// It may have been made, or nothing can be written any more.
    Store(ProcessStoreError),
}

impl From<EngineError> for EditError {
    fn from(error: EngineError) -> Self {
        Self::Refused(error)
    }
}

/// What a change is made with.
struct Editing<'a> {
    ports: &'a Ports,
    caller: &'a Caller,
    at: Timestamp,
    /// Random bits for the id of something new.
    ten: [u8; 10],
}

/// What a change comes to.
struct Prepared {
    /// What it is about.
    made: RecordKey,
    writes: Vec<Write>,
}

impl Editing<'_> {
    fn owner(&self) -> Option<&str> {
        self.caller.owner.as_deref()
    }

    async fn prepare(&self, edit: Edit) -> Result<Prepared, EngineError> {
        match edit {
            Edit::AddProject(request) => self.add_project(request).await,
            Edit::SetProject { project, version, change } => {
                self.set_project(project, version, change).await
            }
            Edit::RemoveProject { project, force } => self.remove_project(project, force).await,
            Edit::AddTask(request) => self.add_task(request).await,
            Edit::SetTask { task, version, change } => self.set_task(task, version, change).await,
            Edit::RemoveTask { task } => self.remove_task(task).await,
        }
    }

    /// Makes the change that a request asks for, unless it was made before.
    async fn perform(&self, edit: Edit, found: &Found, lease: Lease) -> Result<Edited, EditError> {
        if self.caller.key.is_some()
            && let Some(before) = request_before(self.ports, self.owner(), found).await?
        {
            let used = || {
                let reason = format!("the key {:?} was used for another request", found.client_key);
                EngineError::refused(RefusalCode::KeyReused, reason)
            };
            return Ok(Edited { made: before.made.ok_or_else(used)?, number: None });
        }
        let Prepared { made, mut writes } = self.prepare(edit).await?;
        if self.caller.key.is_some() {
            let request = RequestRecord {
                client_key: found.client_key.clone(),
                owner: self.caller.owner.clone(),
                attempt: AttemptId(Uuid::nil()),
                execution: ExecutionId(Uuid::nil()),
                made: Some(made),
                digest: found.digest,
                at: self.at,
            };
            writes.push(Write::Put { record: request.encode(), expect: Expect::Absent });
        }
        if writes.is_empty() {
            return Ok(Edited { made, number: None });
        }
        match self.ports.store.commit(writes, lease).await {
            Ok(number) => Ok(Edited { made, number: Some(number) }),
            Err(error @ ProcessStoreError::Full) => Err(EditError::Refused(store_error(error))),
            Err(error) => Err(EditError::Store(error)),
        }
    }
}

/// Refuses a change that was decided on for another version.
fn check_version(
    stored: &Stored,
    version: Option<Revision>,
    what: &str,
) -> Result<(), EngineError> {
    match version {
        Some(version) if version != stored.revision => {
            let (now, was) = (stored.revision.0, version.0);
            let reason = format!("{what} is at version {now}, not {was}: it was changed meanwhile");
            Err(EngineError::refused(RefusalCode::Conflict, reason))
        }
        Some(_) | None => Ok(()),
    }
}

/// Writes a record that is there, unless nothing of it changes.
fn put_changed<T: Recorded + PartialEq>(before: &T, after: &T, stored: &Stored) -> Vec<Write> {
    if before == after {
        return Vec::new();
    }
    vec![Write::Put { record: after.encode(), expect: Expect::At(stored.revision) }]
}

impl<R: Runtime> Host<R> {
    /// Takes something that waits for its turn.
    pub(super) fn in_turn(&mut self, turn: Turn) {
        self.edits.waiting.push_back(turn);
        self.take_turns();
    }

    fn take_turns(&mut self) {
        while let Some(turn) = self.edits.next() {
            match turn {
                Turn::Edit { caller, edit, answer } => self.prelude_of_edit(caller, *edit, answer),
                Turn::Run { caller, task, request, answer } => {
                    self.prelude_of_task_run(caller, task, request, answer);
                }
            }
        }
    }

    /// Lets others have their turn when a request that starts something is done.
    pub(super) fn start_is_done(&mut self, key: Uuid) {
        if self.edits.starting.remove(&key) {
            self.take_turns();
        }
    }

    fn prelude_of_edit(&mut self, caller: Caller, edit: Edit, answer: Answer<RecordKey>) {
        let found = self.name(&caller, AttemptId(Uuid::nil()), &edit);
        if let Some(waiting) = self.keys.get_mut(&found.key) {
            let edit = Box::new(edit);
            waiting.push(Command::Turn(Turn::Edit { caller, edit, answer }));
            return;
        }
        self.keys.insert(found.key, Vec::new());
        self.edits.is_editing = true;
        let (ports, lease) = (self.parts.ports.clone(), self.lease);
        let (at, ten) = (self.parts.runtime.now(), self.ids.ten());
        self.preludes.push(Box::pin(async move {
            let editing = Editing { ports: &ports, caller: &caller, at, ten };
            let result = editing.perform(edit, &found, lease).await;
            Prelude::Edit { answer, key: found.key, result }
        }));
    }

    pub(super) fn on_edited(
        &mut self,
        answer: Answer<RecordKey>,
        key: Uuid,
        result: Result<Edited, EditError>,
    ) -> Option<End> {
        self.edits.is_editing = false;
        match result {
            Ok(Edited { made, number }) => {
                if let Some(number) = number {
                    self.tell_change(number);
                }
                let _gone = answer.send(Ok(made));
            }
            Err(EditError::Refused(error)) => drop(answer.send(Err(error))),
            Err(EditError::Store(error)) => {
                self.edits.in_doubt = Some(answer);
                return Some(End::Trouble(error));
            }
        }
        self.key_is_done(key);
        self.take_turns();
        None
    }

    fn prelude_of_task_run(
        &mut self,
        caller: Caller,
        task: TaskId,
        request: Box<TaskRun>,
        answer: Answer<Accepted>,
    ) {
        let attempt = AttemptId::new(self.parts.runtime.now(), self.ids.ten());
        let mut canonical = request.clone();
        canonical.launch.keep_what_is_asked();
        let found = self.name(&caller, attempt, &(task, &canonical));
        if let Some(waiting) = self.keys.get_mut(&found.key) {
            waiting.push(Command::Turn(Turn::Run { caller, task, request, answer }));
            return;
        }
        self.keys.insert(found.key, Vec::new());
        self.edits.starting.insert(found.key);
        let limits = self.parts.config.attachments;
        let (ports, blocks) = (self.parts.ports.clone(), Arc::clone(&self.parts.port_blocks));
        self.preludes.push(Box::pin(async move {
            let result = async {
                blocks.load(&ports).await?;
                let mut start = run::resolve(&ports, &caller, task, &request, &found).await?;
                if let Start::New(resolved) = &mut start {
                    resolved.attach(&ports, limits, attempt, &request.launch.attach).await?;
                }
                Ok(start)
            };
            let result = result.await;
            Prelude::TaskRun { caller, request, answer, found, result }
        }));
    }
}
