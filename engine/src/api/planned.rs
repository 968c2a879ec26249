//! The routes about projects and tasks.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use serde::Deserialize;
use windlass_core::process_store::Revision;
use windlass_core::task::TaskStatus;

use super::routes::{Answer, MAX_PAGE, body, caller, cursor, id, next_page, query};
use super::server::ApiState;
use super::{ItemsView, PlaceBody, SetBody};
use crate::handle::{Project, TaskFilter};
use crate::request::{ProjectChange, ProjectRequest, TaskChange, TaskRequest, TaskRun};
use crate::view::{ProjectView, TaskView};

pub(super) fn router() -> Router<ApiState> {
    Router::new()
        .route("/v1/projects", get(list_projects).post(add_project))
        .route("/v1/projects/at", post(projects_at))
        .route("/v1/projects/{id}", get(show_project).patch(set_project).delete(remove_project))
        .route("/v1/tasks", get(list_tasks).post(add_task))
        .route("/v1/tasks/{id}", get(show_task).patch(set_task).delete(remove_task))
        .route("/v1/tasks/{id}/attempts", post(run_task))
}

fn projects(found: Vec<Project>) -> Answer {
    let items: Vec<ProjectView> = found.into_iter().map(Into::into).collect();
    Ok(Json(ItemsView { items, next: None }).into_response())
}

async fn list_projects(State(state): State<ApiState>, headers: HeaderMap) -> Answer {
    projects(state.handle.projects(&caller(&headers)?).await?)
}

async fn projects_at(State(state): State<ApiState>, headers: HeaderMap, bytes: Bytes) -> Answer {
    let PlaceBody { path } = body(&bytes)?;
    projects(state.handle.projects_at(&caller(&headers)?, path).await?)
}

async fn add_project(State(state): State<ApiState>, headers: HeaderMap, bytes: Bytes) -> Answer {
    let request: ProjectRequest = body(&bytes)?;
    let project = state.handle.add_project(caller(&headers)?, request).await?;
    Ok((StatusCode::CREATED, Json(ProjectView::from(project))).into_response())
}

async fn show_project(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(project): Path<String>,
) -> Answer {
    let project = state.handle.project(&caller(&headers)?, id(&project)?).await?;
    Ok(Json(ProjectView::from(project)).into_response())
}

async fn set_project(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(project): Path<String>,
    bytes: Bytes,
) -> Answer {
    let SetBody::<ProjectChange> { version, change } = body(&bytes)?;
    let (caller, project) = (caller(&headers)?, id(&project)?);
    let version = version.map(Revision);
    let project = state.handle.set_project(caller, project, version, change).await?;
    Ok(Json(ProjectView::from(project)).into_response())
}

/// How to remove a project.
#[derive(Debug, Deserialize)]
struct RemoveProject {
    #[serde(default)]
    force: bool,
}

async fn remove_project(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(project): Path<String>,
    how: Result<Query<RemoveProject>, QueryRejection>,
) -> Answer {
    let RemoveProject { force } = query(how)?;
    state.handle.remove_project(caller(&headers)?, id(&project)?, force).await?;
    Ok(Json(serde_json::json!({})).into_response())
}

/// Which tasks to list.
#[derive(Debug, Deserialize)]
struct TaskQuery {
    project: Option<String>,
    status: Option<TaskStatus>,
    before: Option<String>,
    limit: Option<u32>,
}

async fn list_tasks(
    State(state): State<ApiState>,
    headers: HeaderMap,
    which: Result<Query<TaskQuery>, QueryRejection>,
) -> Answer {
    let TaskQuery { project, status, before, limit } = query(which)?;
    let filter = TaskFilter {
        project: project.as_deref().map(id).transpose()?,
        status,
        after: before.as_deref().map(cursor).transpose()?,
        limit: Some(limit.unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE)),
    };
    let tasks = state.handle.tasks(&caller(&headers)?, filter).await?;
    let last = tasks.last().map(|task| (task.record.created_at, task.record.id.0));
    let next = next_page(filter.limit, tasks.len(), last);
    let items: Vec<TaskView> = tasks.into_iter().map(Into::into).collect();
    Ok(Json(ItemsView { items, next }).into_response())
}

async fn add_task(State(state): State<ApiState>, headers: HeaderMap, bytes: Bytes) -> Answer {
    let request: TaskRequest = body(&bytes)?;
    let task = state.handle.add_task(caller(&headers)?, request).await?;
    Ok((StatusCode::CREATED, Json(TaskView::from(task))).into_response())
}

async fn show_task(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(task): Path<String>,
) -> Answer {
    let task = state.handle.task(&caller(&headers)?, id(&task)?).await?;
    Ok(Json(TaskView::from(task)).into_response())
}

async fn set_task(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(task): Path<String>,
    bytes: Bytes,
) -> Answer {
    let SetBody::<TaskChange> { version, change } = body(&bytes)?;
    let (caller, task) = (caller(&headers)?, id(&task)?);
    let task = state.handle.set_task(caller, task, version.map(Revision), change).await?;
    Ok(Json(TaskView::from(task)).into_response())
}

/// How to remove a task.
#[derive(Debug, Deserialize)]
struct RemoveTask {
    #[serde(default)]
    attempts: bool,
}

async fn remove_task(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(task): Path<String>,
    how: Result<Query<RemoveTask>, QueryRejection>,
) -> Answer {
    let RemoveTask { attempts } = query(how)?;
    state.handle.remove_task(caller(&headers)?, id(&task)?, attempts).await?;
    Ok(Json(serde_json::json!({})).into_response())
}

async fn run_task(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(task): Path<String>,
    bytes: Bytes,
) -> Answer {
    let request: TaskRun = body(&bytes)?;
    let accepted = state.handle.run_task(caller(&headers)?, id(&task)?, request).await?;
    Ok((StatusCode::CREATED, Json(accepted)).into_response())
}
