//! The routes about how an attempt goes on: messages that are queued for it, and another try.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use serde::Deserialize;
use windlass_core::attempt::FollowUpChange;
use windlass_core::process_store::Revision;

use super::routes::{Answer, attempt_view, body, caller, id, query};
use super::server::ApiState;
use super::{ItemsView, QueueBody, ReplaceBody, RetryBody, SendBody};
use crate::request::RetryRequest;
use crate::view::FollowUpView;

pub(super) fn router() -> Router<ApiState> {
    Router::new()
        .route("/v1/attempts/{id}/follow-ups", get(list).post(send))
        .route("/v1/attempts/{id}/queue", post(hold))
        .route("/v1/attempts/{id}/rest", get(rest))
        .route("/v1/attempts/{id}/retry", post(retry))
        .route("/v1/follow-ups/{id}", get(show).patch(replace).delete(cancel))
}

async fn send(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(attempt): Path<String>,
    bytes: Bytes,
) -> Answer {
    let SendBody { text, with } = body(&bytes)?;
    let sent = state.handle.send_with(caller(&headers)?, id(&attempt)?, text, with).await?;
    Ok((StatusCode::CREATED, Json(FollowUpView::from(sent))).into_response())
}

#[derive(Debug, Deserialize)]
struct ListQuery {
    #[serde(default)]
    all: bool,
}

async fn list(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(attempt): Path<String>,
    which: Result<Query<ListQuery>, QueryRejection>,
) -> Answer {
    let ListQuery { all } = query(which)?;
    let found = state.handle.follow_ups(&caller(&headers)?, id(&attempt)?, all).await?;
    let items: Vec<FollowUpView> = found.into_iter().map(Into::into).collect();
    Ok(Json(ItemsView { items, next: None }).into_response())
}

async fn hold(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(attempt): Path<String>,
    bytes: Bytes,
) -> Answer {
    let QueueBody { held } = body(&bytes)?;
    let (caller, attempt) = (caller(&headers)?, id(&attempt)?);
    state.handle.hold_queue(caller.clone(), attempt, held).await?;
    let record = state.handle.attempt(&caller, attempt).await?;
    Ok(Json(attempt_view(&state, &caller, &record, true, None).await).into_response())
}

async fn rest(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(attempt): Path<String>,
) -> Answer {
    let caller = caller(&headers)?;
    let record = state.handle.at_rest(&caller, id(&attempt)?).await?;
    Ok(Json(attempt_view(&state, &caller, &record, false, None).await).into_response())
}

async fn retry(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(attempt): Path<String>,
    bytes: Bytes,
) -> Answer {
    let RetryBody { from, text } = body(&bytes)?;
    let request = RetryRequest { attempt: id(&attempt)?, from, text };
    let accepted = state.handle.retry(caller(&headers)?, request).await?;
    Ok((StatusCode::CREATED, Json(accepted)).into_response())
}

async fn show(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(message): Path<String>,
) -> Answer {
    let found = state.handle.follow_up(&caller(&headers)?, id(&message)?).await?;
    Ok(Json(FollowUpView::from(found)).into_response())
}

async fn replace(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(message): Path<String>,
    bytes: Bytes,
) -> Answer {
    let ReplaceBody { version, text } = body(&bytes)?;
    change(&state, &headers, &message, version, FollowUpChange::Replace(text)).await
}

#[derive(Debug, Deserialize)]
struct CancelQuery {
    version: Option<u64>,
}

async fn cancel(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(message): Path<String>,
    which: Result<Query<CancelQuery>, QueryRejection>,
) -> Answer {
    let CancelQuery { version } = query(which)?;
    change(&state, &headers, &message, version, FollowUpChange::Cancel).await
}

async fn change(
    state: &ApiState,
    headers: &HeaderMap,
    message: &str,
    version: Option<u64>,
    change: FollowUpChange,
) -> Answer {
    let (caller, message) = (caller(headers)?, id(message)?);
    let version = version.map(Revision);
    let changed = state.handle.change_follow_up(caller, message, version, change).await?;
    Ok(Json(FollowUpView::from(changed)).into_response())
}
