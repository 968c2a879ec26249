//! The requests about projects and tasks.

use axum::http::Method;
use bytes::Bytes;
use windlass_core::id::{ProjectId, TaskId};
use windlass_core::locator::Locator;
use windlass_core::task::TaskStatus;

use super::{Client, ClientError};
use crate::api::{ItemsView, PlaceBody, SetBody, with_query};
use crate::request::{Accepted, ProjectChange, ProjectRequest, TaskChange, TaskRequest, TaskRun};
use crate::view::{ProjectView, TaskView};

#[expect(clippy::missing_errors_doc, reason = "as with all requests")]
impl Client {
    /// Lists all projects, newest first.
    pub async fn projects(&self) -> Result<ItemsView<ProjectView>, ClientError> {
        self.get("/v1/projects").await
    }

    /// Lists the projects of the repository that a directory is in.
    pub async fn projects_at(&self, path: Locator) -> Result<ItemsView<ProjectView>, ClientError> {
        self.json(Method::POST, "/v1/projects/at", &PlaceBody { path }).await
    }

    /// Reads one project.
    pub async fn project(&self, id: ProjectId) -> Result<ProjectView, ClientError> {
        self.get(&format!("/v1/projects/{id}")).await
    }

    /// Adds a project.
    pub async fn add_project(&self, request: &ProjectRequest) -> Result<ProjectView, ClientError> {
        self.json(Method::POST, "/v1/projects", request).await
    }

    /// Changes a project, if it is at a version.
    pub async fn set_project(
        &self,
        id: ProjectId,
        body: &SetBody<ProjectChange>,
    ) -> Result<ProjectView, ClientError> {
        self.json(Method::PATCH, &format!("/v1/projects/{id}"), body).await
    }

    /// Removes a project; `force` with its tasks.
    pub async fn remove_project(&self, id: ProjectId, force: bool) -> Result<(), ClientError> {
        let path = with_query(&format!("/v1/projects/{id}"), &[("force", force.to_string())]);
        self.fetch(Method::DELETE, &path, Bytes::new()).await.map(drop)
    }

    /// Reads one page of tasks, newest first; `before` is the `next` of the page before.
    pub async fn tasks(
        &self,
        project: Option<ProjectId>,
        status: Option<TaskStatus>,
        before: Option<&str>,
    ) -> Result<ItemsView<TaskView>, ClientError> {
        let mut pairs = Vec::new();
        pairs.extend(project.map(|project| ("project", project.to_string())));
        pairs.extend(status.map(|status| ("status", status.as_str().to_owned())));
        pairs.extend(before.map(|before| ("before", before.to_owned())));
        self.get(&with_query("/v1/tasks", &pairs)).await
    }

    /// Reads one task.
    pub async fn task(&self, id: TaskId) -> Result<TaskView, ClientError> {
        self.get(&format!("/v1/tasks/{id}")).await
    }

    /// Adds a task.
    pub async fn add_task(&self, request: &TaskRequest) -> Result<TaskView, ClientError> {
        self.json(Method::POST, "/v1/tasks", request).await
    }

    /// Changes a task, if it is at a version.
    pub async fn set_task(
        &self,
        id: TaskId,
        body: &SetBody<TaskChange>,
    ) -> Result<TaskView, ClientError> {
        self.json(Method::PATCH, &format!("/v1/tasks/{id}"), body).await
    }

    /// Removes a task; `attempts` saves and removes their worktrees first.
    pub async fn remove_task(&self, id: TaskId, attempts: bool) -> Result<(), ClientError> {
        let path = format!("/v1/tasks/{id}");
        let path = with_query(&path, &[("attempts", attempts.to_string())]);
        self.fetch(Method::DELETE, &path, Bytes::new()).await.map(drop)
    }

    /// Makes an attempt of a task and starts its execution.
    pub async fn run_task(&self, id: TaskId, request: &TaskRun) -> Result<Accepted, ClientError> {
        self.json(Method::POST, &format!("/v1/tasks/{id}/attempts"), request).await
    }
}
