//! What a new attempt of a task is to be, from the request, the task and its project.

use windlass_core::driver::Ports;
use windlass_core::id::{AttemptId, TaskId};
use windlass_core::record::{CommitPolicy, ProjectRecord, TaskRecord};

use crate::config::AttachmentLimits;
use crate::error::EngineError;
use crate::host::attachments;
use crate::host::prelude::{self, Found, PlannedRun, Start};
use crate::host::records::{read_project, read_task};
use crate::request::{AttachRequest, Caller, RunRequest, Scripts, TaskRun, WorkspaceRequest};

/// What a new attempt of a task is to be.
pub(crate) struct Resolved {
    workspace: WorkspaceRequest,
    title: String,
    commit: CommitPolicy,
    scripts: Scripts,
    planned: PlannedRun,
}

impl Resolved {
    /// Keeps the files that are handed over with it.
    pub(super) async fn attach(
        &mut self,
        ports: &Ports,
        limits: AttachmentLimits,
        attempt: AttemptId,
        wanted: &[AttachRequest],
    ) -> Result<(), EngineError> {
        let of = &self.planned.workspace;
        self.planned.attachments =
            attachments::keep(ports, limits, attempt, of, wanted, &[]).await?;
        Ok(())
    }

    /// Makes the request of a run that comes to the same.
    pub(crate) fn into_run(self, request: TaskRun) -> (RunRequest, PlannedRun) {
        let Self { workspace, title, commit, scripts, planned } = self;
        let TaskRun { launch, .. } = request;
        let request = RunRequest { workspace, title: Some(title), commit, scripts, launch };
        (request, planned)
    }
}

/// Finds out what a new attempt of a task is to be, unless the same request was taken before.
pub(super) async fn resolve(
    ports: &Ports,
    caller: &Caller,
    task: TaskId,
    request: &TaskRun,
    found: &Found,
) -> Result<Start<Resolved>, EngineError> {
    let owner = caller.owner.as_deref();
    if caller.key.is_some()
        && let Some(accepted) = prelude::repeated(ports, owner, found).await?
    {
        return Ok(Start::Repeated(accepted));
    }
    let (record, _) = read_task(ports, owner, task).await?;
    prelude::refuse_closed(&record)?;
    // A task is seen by whoever sees its project.
    let (project, _) = read_project(ports, None, record.project).await?;
    let run = as_run(request, &record, &project);
    let title = run.title.clone().unwrap_or_default();
    Ok(match prelude::run(ports, caller, &run, found, title.clone()).await? {
        Start::Repeated(accepted) => Start::Repeated(accepted),
        Start::New(planned) => Start::New(Resolved {
            workspace: run.workspace,
            title,
            commit: run.commit,
            scripts: run.scripts,
            planned: PlannedRun { task: Some(task), ..planned },
        }),
    })
}

/// Fills in what the request leaves to the task and its project.
fn as_run(request: &TaskRun, task: &TaskRecord, project: &ProjectRecord) -> RunRequest {
    let TaskRun { dir, base, branch, copy, title, commit, scripts, launch } = request;
    let defaults = &project.defaults;
    let or = |own: &Option<String>, default: &Option<String>| {
        own.clone().or_else(|| default.clone().filter(|_| dir.is_none()))
    };
    let scripts = Scripts {
        setup: or(&scripts.setup, &defaults.setup),
        cleanup: or(&scripts.cleanup, &defaults.cleanup),
    };
    let workspace = match dir {
        Some(path) => WorkspaceRequest::Directory { path: path.clone() },
        None => WorkspaceRequest::Worktree {
            repo: project.repo.clone(),
            base: base.clone().or_else(|| defaults.base.clone()),
            branch: branch.clone(),
            copy: copy.clone().unwrap_or_else(|| defaults.copy.clone()),
        },
    };
    let title = title.as_deref().map(str::trim).filter(|title| !title.is_empty());
    RunRequest {
        workspace,
        title: Some(title.unwrap_or(&task.title).to_owned()),
        commit: commit.unwrap_or(defaults.commit),
        scripts,
        launch: launch.clone(),
    }
}
