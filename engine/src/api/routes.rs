//! The routes under `/v1`: each turns a request into one call of the [`Handle`](crate::handle::Handle).

use std::str::FromStr;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use windlass_core::id::{AttemptId, ExecutionId};
use windlass_core::process_store::{ChangeNumber, Cursor};
use windlass_core::record::{AttemptRecord, AttemptStatus, ExecutionRecord, Phase};
use windlass_core::time::Timestamp;
use windlass_core::vcs_worktree::DiffDetail;

use super::error::ApiError;
use super::server::ApiState;
use super::stream::{DoneReader, EventReader, LogReader, SearchReader, WaitReader, respond};
use super::{
    API_VERSION, CommitBody, EventsQuery, ExecBody, IdsView, InputBody, ItemsView, KEY_HEADER,
    LogQuery, OWNER_HEADER, StopBody, Until, VersionView,
};
use super::{follow_ups, history, kept, planned};
use crate::error::{EngineError, RefusalCode};
use crate::handle::{self, Commit, ListFilter};
use crate::request::{Caller, ExecRequest, InputRequest, RunRequest, StopTarget};
use crate::view::{
    ActiveView, AttemptView, CommitView, DiffView, ExecutionContext, ExecutionView, HostView,
    WaitingFor,
};

/// How many items a page of a list has at most.
pub(super) const MAX_PAGE: u32 = 1_000;

/// How many worktrees are measured at a time.
const MEASURES: usize = 8;

pub(super) type Answer = Result<Response, ApiError>;

pub(super) fn router() -> Router<ApiState> {
    Router::new()
        .route("/v1/version", get(version))
        .route("/v1/host", get(host))
        .route("/v1/host/stop", post(stop_host))
        .route("/v1/check", get(check))
        .route("/v1/ids/{suffix}", get(find_ids))
        .route("/v1/attempts", get(list_attempts).post(run))
        .route("/v1/attempts/{id}", get(show_attempt).delete(kept::remove).patch(history::set))
        .route("/v1/attempts/{id}/executions", get(list_of_attempt).post(exec))
        .route("/v1/attempts/{id}/commit", post(commit))
        .route("/v1/attempts/{id}/stop", post(stop_attempt))
        .route("/v1/attempts/{id}/restore", post(kept::restore))
        .route("/v1/attempts/{id}/keep", post(kept::keep))
        .route("/v1/attempts/{id}/snapshots", get(kept::list_snapshots))
        .route("/v1/attempts/{id}/snapshots/{number}", delete(kept::remove_snapshot))
        .route("/v1/gc", post(kept::gc))
        .route("/v1/attempts/{id}/diff", get(diff))
        .route("/v1/attempts/{id}/diff.patch", get(patch))
        .route("/v1/attempts/{id}/diff/events", get(super::diff::follow))
        .route("/v1/executions", get(list_executions))
        .route("/v1/executions/{id}", get(show_execution))
        .route("/v1/executions/{id}/input", post(input))
        .route("/v1/executions/{id}/log", get(log))
        .route("/v1/executions/{id}/stop", post(stop_execution))
        .merge(super::dev::router())
        .merge(follow_ups::router())
        .merge(history::router())
        .merge(planned::router())
        .route("/v1/wait", get(wait))
        .route("/v1/events", get(events))
        .route("/v1/search", get(search))
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
}

async fn unknown() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "not_found", "no such route", Some("see docs/api.md"))
}

async fn not_allowed() -> ApiError {
    let status = StatusCode::METHOD_NOT_ALLOWED;
    ApiError::new(status, "invalid", "the route has no such method", Some("see docs/api.md"))
}

/// Reads who asks from the headers.
pub(super) fn caller(headers: &HeaderMap) -> Result<Caller, ApiError> {
    let text = |name| {
        let Some(value) = headers.get(name) else {
            return Ok(None);
        };
        match std::str::from_utf8(value.as_bytes()) {
            Ok(text) if (1..=256).contains(&text.len()) => Ok(Some(text.to_owned())),
            _ => Err(ApiError::invalid(format!("header {name} is not UTF-8 of 1 to 256 bytes"))),
        }
    };
    Ok(Caller { owner: text(OWNER_HEADER)?, key: text(KEY_HEADER)? })
}

/// Reads an id from a path.
pub(super) fn id<T: FromStr>(text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|_| {
        ApiError::new(
            StatusCode::NOT_FOUND,
            "not_found",
            format!("{text:?} is no full id"),
            Some("GET /v1/ids/{suffix} finds the full one"),
        )
    })
}

/// Reads a body; an empty one stands for `{}`.
pub(super) fn body<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, ApiError> {
    let bytes = if bytes.is_empty() { &b"{}"[..] } else { bytes };
    serde_json::from_slice(bytes)
        .map_err(|error| ApiError::invalid(format!("the body is not what it should be: {error}")))
}

/// Reads the query.
pub(super) fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, ApiError> {
    query.map(|Query(query)| query).map_err(|error| ApiError::invalid(error.body_text()))
}

async fn version(State(state): State<ApiState>) -> Json<VersionView> {
    let version = state.version.to_string();
    Json(VersionView { api: API_VERSION, version, kind: state.kind, pid: state.pid })
}

async fn host(State(state): State<ApiState>) -> Answer {
    let mut view = HostView::from(state.handle.status().await?);
    if let Some(keeps) = state.keeps {
        view.store = Some(keeps.store.clone());
        view.logs = Some(keeps.logs.clone());
    }
    Ok(Json(view).into_response())
}

async fn check(State(state): State<ApiState>) -> Answer {
    Ok(Json(state.handle.check().await?).into_response())
}

async fn stop_host(State(state): State<ApiState>) -> Answer {
    let Some(stop) = &state.stop else {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "embedded",
            "the host belongs to another program",
            Some("end that program instead"),
        ));
    };
    // A full channel or a gone receiver says that it is leaving already.
    let _leaving = stop.try_send(());
    Ok((StatusCode::ACCEPTED, Json(serde_json::json!({}))).into_response())
}

async fn find_ids(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(suffix): Path<String>,
) -> Answer {
    let hex: String = suffix.chars().filter(|&c| c != '-').collect::<String>().to_lowercase();
    if !(4..=32).contains(&hex.len()) || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(ApiError::invalid("an id's end is 4 to 32 hex digits"));
    }
    let caller = caller(&headers)?;
    let (attempts, executions) = state.handle.find_suffix(&caller, &hex).await?;
    let (projects, tasks) = state.handle.find_planned(&caller, &hex).await?;
    Ok(Json(IdsView { attempts, executions, projects, tasks }).into_response())
}

async fn run(State(state): State<ApiState>, headers: HeaderMap, bytes: Bytes) -> Answer {
    let request: RunRequest = body(&bytes)?;
    let accepted = state.handle.run(caller(&headers)?, request).await?;
    Ok((StatusCode::CREATED, Json(accepted)).into_response())
}

async fn exec(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(attempt): Path<String>,
    bytes: Bytes,
) -> Answer {
    let ExecBody { run_reason, launch, replace } = body(&bytes)?;
    let request = ExecRequest { attempt: id(&attempt)?, run_reason, launch, replace };
    let accepted = state.handle.exec(caller(&headers)?, request).await?;
    Ok((StatusCode::CREATED, Json(accepted)).into_response())
}

/// What of a list is wanted.
#[derive(Debug, Deserialize)]
struct ListQuery {
    #[serde(default)]
    all: bool,
    status: Option<String>,
    task: Option<String>,
    branch: Option<String>,
    before: Option<String>,
    limit: Option<u32>,
    #[serde(default)]
    measure: bool,
}

impl ListQuery {
    fn filter(&self, attempt: Option<AttemptId>) -> Result<ListFilter, ApiError> {
        let after = self.before.as_deref().map(cursor).transpose()?;
        let limit = Some(self.limit.unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE));
        Ok(ListFilter {
            all: self.all,
            attempt,
            task: self.task.as_deref().map(id).transpose()?,
            status: self.status.clone(),
            after,
            limit,
        })
    }
}

/// Reads a place in the order of a list.
pub(super) fn cursor(text: &str) -> Result<Cursor, ApiError> {
    let parsed = text.split_once('.').and_then(|(at, id)| {
        Some(Cursor { at: Timestamp(at.parse().ok()?), id: id.parse().ok()? })
    });
    parsed.ok_or_else(|| ApiError::invalid("`before` is not what `next` said"))
}

/// Returns where to go on after a page, if it was full.
pub(super) fn next_page(
    limit: Option<u32>,
    count: usize,
    last: Option<(Timestamp, uuid::Uuid)>,
) -> Option<String> {
    let is_full = limit.is_some_and(|limit| u64::from(limit) <= count as u64);
    last.filter(|_| is_full).map(|(at, id)| format!("{}.{id}", at.0))
}

async fn list_executions(
    State(state): State<ApiState>,
    headers: HeaderMap,
    list: Result<Query<ListQuery>, QueryRejection>,
) -> Answer {
    executions(&state, &caller(&headers)?, query(list)?.filter(None)?).await
}

async fn list_of_attempt(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(attempt): Path<String>,
    list: Result<Query<ListQuery>, QueryRejection>,
) -> Answer {
    let (caller, attempt) = (caller(&headers)?, id(&attempt)?);
    state.handle.attempt(&caller, attempt).await?;
    executions(&state, &caller, query(list)?.filter(Some(attempt))?).await
}

async fn executions(state: &ApiState, caller: &Caller, filter: ListFilter) -> Answer {
    let records = state.handle.executions(caller, filter.clone()).await?;
    let last = records.last().map(|record| (record.created_at, record.id.0));
    let next = next_page(filter.limit, records.len(), last);
    let contexts = contexts(state, caller, &records).await?;
    let items = records.iter().zip(contexts);
    let items = items.map(|(record, context)| ExecutionView::new(record, context)).collect();
    Ok(Json(ItemsView { items, next }).into_response())
}

/// Says what those executions that are queued wait for, and behind how many.
async fn contexts(
    state: &ApiState,
    caller: &Caller,
    records: &[ExecutionRecord],
) -> Result<Vec<ExecutionContext>, ApiError> {
    let mut contexts = vec![ExecutionContext::default(); records.len()];
    if records.iter().all(|record| record.phase != Phase::Queued) {
        return Ok(contexts);
    }
    // A host that leaves does not know any more; the rest is not withheld for it.
    let before = state.handle.waiting_before(records).await.unwrap_or_default();
    for (n, (record, context)) in records.iter().zip(&mut contexts).enumerate() {
        if record.phase == Phase::Queued {
            context.queue = before.get(n).copied().flatten();
            context.waiting_for = Some(waiting_for(state, caller, record, context.queue).await?);
        }
    }
    Ok(contexts)
}

/// Says what a queued execution waits for.
async fn waiting_for(
    state: &ApiState,
    caller: &Caller,
    record: &ExecutionRecord,
    queue: Option<u32>,
) -> Result<WaitingFor, ApiError> {
    if record.missing_secret.is_some() {
        return Ok(WaitingFor::Secret);
    }
    if queue.is_some() {
        return Ok(WaitingFor::Slot);
    }
    let attempt = state.handle.attempt(caller, record.attempt).await?;
    Ok(match attempt.status {
        AttemptStatus::Creating => WaitingFor::Workspace,
        _ => WaitingFor::Slot,
    })
}

async fn show_execution(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(execution): Path<String>,
) -> Answer {
    let caller = caller(&headers)?;
    let record = state.handle.execution(&caller, id(&execution)?).await?;
    let log = match record.log {
        Some(_) => None,
        // A log that cannot be measured is shown as unknown: the rest is not withheld for it.
        None => state.handle.log_status(&caller, record.id).await.ok().map(Into::into),
    };
    let mut contexts = contexts(&state, &caller, std::slice::from_ref(&record)).await?;
    let context = ExecutionContext { log, ..contexts.pop().unwrap_or_default() };
    Ok(Json(ExecutionView::new(&record, context)).into_response())
}

async fn list_attempts(
    State(state): State<ApiState>,
    headers: HeaderMap,
    list: Result<Query<ListQuery>, QueryRejection>,
) -> Answer {
    let (caller, list) = (caller(&headers)?, query(list)?);
    let filter = list.filter(None)?;
    let mut records = state.handle.attempts(&caller, filter.clone()).await?;
    let last = records.last().map(|record| (record.created_at, record.id.0));
    let next = next_page(filter.limit, records.len(), last);
    if let Some(branch) = &list.branch {
        records.retain(|record| {
            record.workspace.worktree().is_some_and(|worktree| worktree.branch == *branch)
        });
    }
    let snapshots = state.handle.snapshot_counts(&caller).await?;
    let items = stream::iter(records)
        .map(|record| {
            let (state, caller) = (&state, &caller);
            let snapshots = snapshots.get(&record.id).copied().unwrap_or(0);
            async move {
                let view = attempt_view(state, caller, &record, list.measure, None).await;
                view.with_snapshots(snapshots)
            }
        })
        .buffered(MEASURES)
        .collect()
        .await;
    Ok(Json(ItemsView { items, next }).into_response())
}

/// Makes the view of an attempt, with a look at its worktree if that is wanted and there is one.
pub(super) async fn attempt_view(
    state: &ApiState,
    caller: &Caller,
    record: &AttemptRecord,
    measure: bool,
    executions: Option<Vec<ExecutionId>>,
) -> AttemptView {
    let is_there = !matches!(
        record.status,
        AttemptStatus::Creating | AttemptStatus::Removed | AttemptStatus::Failed
    );
    let mut is_gone = false;
    let measured = if measure && is_there && record.workspace.worktree().is_some() {
        // A worktree that cannot be measured is shown as unknown: the rest is not withheld for it.
        let measured = state.handle.measure(caller, record.id).await;
        is_gone =
            matches!(&measured, Err(EngineError::Refused { code: RefusalCode::WorkspaceGone, .. }));
        measured.ok()
    } else {
        None
    };
    let mut view = AttemptView::new(record, measured.as_ref(), executions);
    view.missing |= is_gone;
    if measured.is_some()
        && let Ok(Some(standing)) = state.handle.standing(caller, record.id).await
    {
        view.history.look(standing);
    }
    if let Some(id) = record.chain
        && let Ok(active) = state.handle.execution(caller, id).await
    {
        let run_reason = active.action.run_reason;
        view.active = Some(ActiveView { execution_id: id, run_reason });
    }
    if record.queue > 0
        && let Ok(waiting) = state.handle.follow_ups(caller, record.id, false).await
    {
        view.queue = waiting.into_iter().map(Into::into).collect();
    }
    view
}

async fn show_attempt(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(attempt): Path<String>,
) -> Answer {
    let caller = caller(&headers)?;
    let record = state.handle.attempt(&caller, id(&attempt)?).await?;
    let filter = ListFilter {
        all: true,
        attempt: Some(record.id),
        limit: Some(MAX_PAGE),
        ..ListFilter::default()
    };
    let executions = state.handle.executions(&caller, filter).await?;
    let ids = executions.iter().map(|execution| execution.id).collect();
    let snapshots = state.handle.snapshots(&caller, record.id).await?;
    let view = attempt_view(&state, &caller, &record, true, Some(ids)).await;
    Ok(Json(view.with_snapshots(snapshots.len())).into_response())
}

async fn commit(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(attempt): Path<String>,
    bytes: Bytes,
) -> Answer {
    let CommitBody { message } = body(&bytes)?;
    let attempt = id(&attempt)?;
    let execution = match state.handle.commit(caller(&headers)?, attempt, message).await? {
        Commit::Clean => None,
        Commit::Started(execution) => Some(execution),
    };
    Ok(Json(CommitView { attempt_id: attempt, execution_id: execution }).into_response())
}

async fn stop_attempt(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(attempt): Path<String>,
    bytes: Bytes,
) -> Answer {
    stop(&state, caller(&headers)?, StopTarget::Attempt(id(&attempt)?), &bytes).await
}

async fn stop_execution(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(execution): Path<String>,
    bytes: Bytes,
) -> Answer {
    stop(&state, caller(&headers)?, StopTarget::Execution(id(&execution)?), &bytes).await
}

async fn stop(state: &ApiState, caller: Caller, target: StopTarget, bytes: &Bytes) -> Answer {
    let StopBody { grace_ms } = body(bytes)?;
    state.handle.stop(caller, target, grace_ms.map(Duration::from_millis)).await?;
    Ok((StatusCode::ACCEPTED, Json(serde_json::json!({}))).into_response())
}

async fn diff(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(attempt): Path<String>,
) -> Answer {
    let diff = state.handle.diff(&caller(&headers)?, id(&attempt)?, DiffDetail::Files).await?;
    let files = diff.files.into_iter().map(Into::into).collect();
    Ok(Json(DiffView { base: diff.base, head: diff.head, files }).into_response())
}

async fn patch(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(attempt): Path<String>,
) -> Answer {
    let diff = state.handle.diff(&caller(&headers)?, id(&attempt)?, DiffDetail::Patch).await?;
    let patch = Body::from(diff.patch.unwrap_or_default());
    Ok(([(CONTENT_TYPE, "text/x-patch")], patch).into_response())
}

async fn input(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(execution): Path<String>,
    bytes: Bytes,
) -> Answer {
    let InputBody { key, bytes, secret, close } = body(&bytes)?;
    let (caller, execution) = (caller(&headers)?, id(&execution)?);
    let request = InputRequest { execution, key, bytes, secret, close };
    // What is queued takes its input when it runs.
    state.handle.started(&caller, execution).await?;
    state.handle.input(caller, request).await?;
    Ok(Json(serde_json::json!({})).into_response())
}

async fn log(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(execution): Path<String>,
    what: Result<Query<LogQuery>, QueryRejection>,
) -> Answer {
    let (caller, execution, what) = (caller(&headers)?, id(&execution)?, query(what)?);
    // What is not there is an answer, not a stream that begins with an error.
    state.handle.execution(&caller, execution).await?;
    let reader = LogReader::new(state.handle.clone(), caller, execution, &what)?;
    Ok(respond(reader, state.closing))
}

#[derive(Debug, Deserialize)]
struct WaitQuery {
    ids: String,
    #[serde(default)]
    until: Until,
    /// Only those that are done by now.
    #[serde(default)]
    now: bool,
}

async fn wait(
    State(state): State<ApiState>,
    headers: HeaderMap,
    what: Result<Query<WaitQuery>, QueryRejection>,
) -> Answer {
    let WaitQuery { ids, until, now } = query(what)?;
    let caller = caller(&headers)?;
    let ids = ids.split(',').map(id).collect::<Result<Vec<ExecutionId>, _>>()?;
    if ids.len() > MAX_PAGE as usize {
        let reason = "too many executions to wait for at once (1000)";
        return Err(EngineError::Invalid { reason: reason.to_owned() }.into());
    }
    for execution in &ids {
        state.handle.execution(&caller, *execution).await?;
    }
    if now {
        let left = ids.into();
        return Ok(respond(
            DoneReader { handle: state.handle, caller, until, left },
            state.closing,
        ));
    }
    Ok(respond(WaitReader::new(&state.handle, &caller, &ids, until), state.closing))
}

async fn events(
    State(state): State<ApiState>,
    headers: HeaderMap,
    what: Result<Query<EventsQuery>, QueryRejection>,
) -> Answer {
    let EventsQuery { after, state: with_state, follow } = query(what)?;
    let caller = caller(&headers)?;
    let there = if with_state { Some(state.handle.state(&caller).await?) } else { None };
    let after = there.as_ref().map_or(ChangeNumber(after), handle::State::number);
    let events = state.handle.events(&caller, after);
    let reader = EventReader { state: there, events, follow };
    Ok(respond(reader, state.closing))
}

#[derive(Debug, Deserialize)]
struct SearchQuery {
    re: String,
    attempt: Option<String>,
}

async fn search(
    State(state): State<ApiState>,
    headers: HeaderMap,
    what: Result<Query<SearchQuery>, QueryRejection>,
) -> Answer {
    let SearchQuery { re, attempt } = query(what)?;
    let caller = caller(&headers)?;
    let attempt = attempt.as_deref().map(id).transpose()?;
    if let Some(attempt) = attempt {
        state.handle.attempt(&caller, attempt).await?;
    }
    let reader = SearchReader::new(state.handle.clone(), caller, &re, attempt)?;
    Ok(respond(reader, state.closing))
}
