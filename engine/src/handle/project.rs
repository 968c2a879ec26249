//! Projects: repositories with what their attempts have in common.

use windlass_core::id::{AttemptId, ProjectId};
use windlass_core::locator::Locator;
use windlass_core::process_store::{Kind, ProcessStoreExt as _, Query, RecordKey, Revision};
use windlass_core::record::{ProjectRecord, Recorded};
use windlass_core::vcs_worktree::WorktreeRequest;

use super::Handle;
use crate::error::EngineError;
use crate::host::command::Command;
use crate::host::edits::{Edit, Turn};
use crate::host::prelude::worktree_error;
use crate::host::records::{read_project, store_error};
use crate::request::{Caller, ProjectChange, ProjectRequest};

/// A project as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// Its record.
    pub record: ProjectRecord,
    /// Its version: a change may be bound to it.
    pub version: Revision,
}

impl Handle {
    /// Has a change of projects or tasks made; returns what it was about.
    pub(super) async fn edit(&self, caller: Caller, edit: Edit) -> Result<RecordKey, EngineError> {
        let edit = Box::new(edit);
        self.ask(|answer| Command::Turn(Turn::Edit { caller, edit, answer })).await
    }

    /// Adds a project.
    ///
    /// # Errors
    ///
    /// [`EngineError::Refused`] where there is no repository with a commit, its base is unknown, or the owner has another
    /// project of the same name.
    pub async fn add_project(
        &self,
        caller: Caller,
        request: ProjectRequest,
    ) -> Result<Project, EngineError> {
        let made = self.edit(caller.clone(), Edit::AddProject(request)).await?;
        self.project(&caller, ProjectId(made.id)).await
    }

    /// Changes a project. With a `version` it must be at that one.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotFound`]; [`EngineError::Refused`] with [`RefusalCode::Conflict`](crate::error::RefusalCode::Conflict)
    /// at another version, or for what [`add_project`](Self::add_project) would not take.
    pub async fn set_project(
        &self,
        caller: Caller,
        project: ProjectId,
        version: Option<Revision>,
        change: ProjectChange,
    ) -> Result<Project, EngineError> {
        self.edit(caller.clone(), Edit::SetProject { project, version, change }).await?;
        self.project(&caller, project).await
    }

    /// Removes a project; `force` also if it has tasks, which go with it. Attempts stay.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotFound`]; [`EngineError::Refused`] if it has tasks, or an attempt of one is active.
    pub async fn remove_project(
        &self,
        caller: Caller,
        project: ProjectId,
        force: bool,
    ) -> Result<(), EngineError> {
        self.edit(caller, Edit::RemoveProject { project, force }).await.map(drop)
    }

    /// Reads one project.
    ///
    /// # Errors
    ///
    /// [`EngineError::NotFound`].
    pub async fn project(&self, caller: &Caller, id: ProjectId) -> Result<Project, EngineError> {
        let (record, stored) = read_project(&self.ports, caller.owner.as_deref(), id).await?;
        Ok(Project { record, version: stored.revision })
    }

    /// Lists all projects, newest first.
    ///
    /// # Errors
    ///
    /// [`EngineError::Backend`].
    pub async fn projects(&self, caller: &Caller) -> Result<Vec<Project>, EngineError> {
        let mut query = Query::newest(Kind::Project, Query::MAX_LIMIT);
        query.owner.clone_from(&caller.owner);
        let all = self.ports.store.list_all(query).await.map_err(store_error)?;
        let readable = all.into_iter().filter_map(|stored| {
            let record = ProjectRecord::decode(&stored.record).ok()?;
            Some(Project { record, version: stored.revision })
        });
        Ok(readable.collect())
    }

    /// Lists the projects of the repository that a directory is in, newest first.
    ///
    /// # Errors
    ///
    /// [`EngineError::Refused`] where there is no repository with a commit.
    pub async fn projects_at(
        &self,
        caller: &Caller,
        dir: Locator,
    ) -> Result<Vec<Project>, EngineError> {
        let request = WorktreeRequest {
            attempt: AttemptId(uuid::Uuid::nil()),
            repo: dir,
            base: None,
            branch: None,
            title: String::new(),
            copy: Vec::new(),
        };
        let planned = self.ports.worktrees.plan(request).await.map_err(worktree_error)?;
        let mut projects = self.projects(caller).await?;
        projects.retain(|project| project.record.git_dir == planned.worktree.repo);
        Ok(projects)
    }
}
