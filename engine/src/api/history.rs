//! The routes about the commits of attempts.

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::IntoResponse as _;
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;

use super::kept::changed;
use super::routes::{Answer, body, caller, id};
use super::server::ApiState;
use crate::request::{AttemptChange, MergeRequest, PushRequest, RebaseRequest};
use crate::view::IntegratedView;

pub(super) fn router() -> Router<ApiState> {
    Router::new()
        .route("/v1/attempts/{id}/merge", post(merge))
        .route("/v1/attempts/{id}/rebase", post(rebase))
        .route("/v1/attempts/{id}/abort", post(abort))
        .route("/v1/attempts/{id}/push", post(push))
}

async fn merge(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(attempt): Path<String>,
    bytes: Bytes,
) -> Answer {
    let request: MergeRequest = body(&bytes)?;
    let attempt = id(&attempt)?;
    let integrated = state.handle.merge(caller(&headers)?, attempt, request).await?;
    Ok(Json(IntegratedView::new(attempt, integrated)).into_response())
}

async fn rebase(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(attempt): Path<String>,
    bytes: Bytes,
) -> Answer {
    let request: RebaseRequest = body(&bytes)?;
    let attempt = id(&attempt)?;
    let integrated = state.handle.rebase(caller(&headers)?, attempt, request).await?;
    Ok(Json(IntegratedView::new(attempt, integrated)).into_response())
}

async fn abort(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(attempt): Path<String>,
) -> Answer {
    let attempt = id(&attempt)?;
    let integrated = state.handle.abort(caller(&headers)?, attempt).await?;
    Ok(Json(IntegratedView::new(attempt, integrated)).into_response())
}

async fn push(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(attempt): Path<String>,
    bytes: Bytes,
) -> Answer {
    let request: PushRequest = body(&bytes)?;
    let attempt = id(&attempt)?;
    let integrated = state.handle.push(caller(&headers)?, attempt, request).await?;
    Ok(Json(IntegratedView::new(attempt, integrated)).into_response())
}

pub(super) async fn set(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(attempt): Path<String>,
    bytes: Bytes,
) -> Answer {
    let change: AttemptChange = body(&bytes)?;
    let (caller, attempt) = (caller(&headers)?, id(&attempt)?);
    state.handle.set_attempt(caller.clone(), attempt, change).await?;
    changed(&state, &caller, attempt).await
}
