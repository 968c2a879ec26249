//! The routes about dev servers: the script that there is for them, and when one is ready. They are started as any
//! execution beside a chain.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::IntoResponse as _;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::routes::{Answer, caller, id, query};
use super::server::ApiState;
use crate::handle::{Readiness, ReadyCheck};

pub(super) fn router() -> Router<ApiState> {
    Router::new()
        .route("/v1/attempts/{id}/dev-script", get(script))
        .route("/v1/executions/{id}/ready", get(ready))
}

/// What `GET /v1/attempts/{id}/dev-script` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevScriptView {
    /// The script of the attempt's project.
    pub script: String,
}

/// What `GET /v1/executions/{id}/ready` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyView {
    /// It became ready; else it has ended.
    pub ready: bool,
    /// The line that says so, where a pattern was looked for.
    pub line: Option<String>,
}

async fn script(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(attempt): Path<String>,
) -> Answer {
    let script = state.handle.dev_script(&caller(&headers)?, id(&attempt)?).await?;
    Ok(Json(DevScriptView { script }).into_response())
}

/// What to wait for: one of them.
#[derive(Debug, Deserialize)]
struct ReadyQuery {
    port: Option<u16>,
    pattern: Option<String>,
}

async fn ready(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(execution): Path<String>,
    what: Result<Query<ReadyQuery>, QueryRejection>,
) -> Answer {
    let check = match query(what)? {
        ReadyQuery { port: Some(port), pattern: None } => ReadyCheck::Port(port),
        ReadyQuery { port: None, pattern: Some(pattern) } => ReadyCheck::Pattern(pattern),
        ReadyQuery { .. } => {
            return Err(ApiError::invalid("`port` or `pattern` says when it is ready"));
        }
    };
    let readiness = state.handle.ready(&caller(&headers)?, id(&execution)?, &check).await?;
    let view = match readiness {
        Readiness::Ready { line } => ReadyView { ready: true, line },
        Readiness::Ended => ReadyView { ready: false, line: None },
    };
    Ok(Json(view).into_response())
}
