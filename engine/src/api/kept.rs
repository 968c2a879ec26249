//! The routes about removing, saving and getting back.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::IntoResponse as _;
use bytes::Bytes;
use serde::Deserialize;
use windlass_core::id::AttemptId;
use windlass_core::snapshot::SnapshotNumber;

use super::error::ApiError;
use super::routes::{Answer, attempt_view, body, caller, id, query};
use super::server::ApiState;
use super::{ItemsView, KeepBody, RestoreBody};
use crate::request::{Caller, GcOptions, RemoveOptions};
use crate::view::{GcItemView, SnapshotView};

/// Shows an attempt after a change of it.
pub(super) async fn changed(state: &ApiState, caller: &Caller, attempt: AttemptId) -> Answer {
    let record = state.handle.attempt(caller, attempt).await?;
    let view = attempt_view(state, caller, &record, true, None).await;
    let snapshots = state.handle.snapshots(caller, attempt).await?;
    Ok(Json(view.with_snapshots(snapshots.len())).into_response())
}

pub(super) async fn remove(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(attempt): Path<String>,
    how: Result<Query<RemoveOptions>, QueryRejection>,
) -> Answer {
    let options = query(how)?;
    let (caller, attempt) = (caller(&headers)?, id(&attempt)?);
    state.handle.remove(caller.clone(), attempt, options).await?;
    changed(&state, &caller, attempt).await
}

pub(super) async fn restore(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(attempt): Path<String>,
    bytes: Bytes,
) -> Answer {
    let RestoreBody { snapshot } = body(&bytes)?;
    let (caller, attempt) = (caller(&headers)?, id(&attempt)?);
    state.handle.restore(caller.clone(), attempt, snapshot).await?;
    changed(&state, &caller, attempt).await
}

pub(super) async fn keep(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(attempt): Path<String>,
    bytes: Bytes,
) -> Answer {
    let KeepBody { keep } = body(&bytes)?;
    let (caller, attempt) = (caller(&headers)?, id(&attempt)?);
    state.handle.keep(caller.clone(), attempt, keep).await?;
    changed(&state, &caller, attempt).await
}

pub(super) async fn list_snapshots(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(attempt): Path<String>,
) -> Answer {
    let snapshots = state.handle.snapshots(&caller(&headers)?, id(&attempt)?).await?;
    let items: Vec<SnapshotView> = snapshots.into_iter().map(Into::into).collect();
    Ok(Json(ItemsView { items, next: None }).into_response())
}

#[derive(Debug, Deserialize)]
pub(super) struct RemoveSnapshotQuery {
    #[serde(default)]
    force: bool,
}

pub(super) async fn remove_snapshot(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path((attempt, number)): Path<(String, String)>,
    how: Result<Query<RemoveSnapshotQuery>, QueryRejection>,
) -> Answer {
    let RemoveSnapshotQuery { force } = query(how)?;
    let (caller, attempt) = (caller(&headers)?, id(&attempt)?);
    let number = number.parse().map(SnapshotNumber);
    let number = number.map_err(|_| ApiError::invalid("a snapshot has a number, from 1"))?;
    state.handle.remove_snapshot(caller.clone(), attempt, number, force).await?;
    changed(&state, &caller, attempt).await
}

pub(super) async fn gc(State(state): State<ApiState>, headers: HeaderMap, bytes: Bytes) -> Answer {
    let options: GcOptions = body(&bytes)?;
    if caller(&headers)?.owner.is_some() {
        return Err(ApiError::invalid("cleanup is the operator's: it is about everybody's"));
    }
    let items = state.handle.gc(options).await?;
    let items: Vec<GcItemView> = items.into_iter().map(Into::into).collect();
    Ok(Json(ItemsView { items, next: None }).into_response())
}
