//! Following a diff: the route that tells it, and the client that goes on where it was.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use windlass_core::diff_watch::DiffCursor;
use windlass_core::id::AttemptId;

use super::client::{Client, ClientError};
use super::error::{ApiError, json_line};
use super::resume::{Lines, survive};
use super::routes::{Answer, caller, id, query};
use super::server::ApiState;
use super::stream::{Reader, respond};
use super::with_query;
use crate::handle::DiffStream;
use crate::view::DiffEventView;

#[derive(Debug, Deserialize)]
pub(super) struct DiffQuery {
    after: Option<String>,
}

/// Tells a diff as it changes.
pub(super) async fn follow(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(attempt): Path<String>,
    what: Result<Query<DiffQuery>, QueryRejection>,
) -> Answer {
    let (caller, attempt) = (caller(&headers)?, id(&attempt)?);
    let after = query(what)?.after.map(|text| text.parse::<DiffCursor>()).transpose();
    let after = after
        .map_err(|_| ApiError::invalid("`after` is no cursor of an event of a diff".to_owned()))?;
    let stream = state.handle.follow_diff(&caller, attempt, after).await?;
    Ok(respond(DiffReader { stream }, state.closing))
}

#[derive(Debug)]
struct DiffReader {
    stream: DiffStream,
}

impl Reader for DiffReader {
    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        let mut chunk = BytesMut::new();
        for told in self.stream.next().await? {
            chunk.extend_from_slice(&json_line(&DiffEventView::from(told)));
        }
        Ok(Some(chunk.freeze()))
    }
}

impl Client {
    /// Follows an attempt's diff; goes on after a cursor if that is still good.
    #[must_use]
    pub fn follow_diff(&self, id: AttemptId, after: Option<String>) -> DiffLines {
        DiffLines { client: self.clone(), id, after, lines: None, losses: 0 }
    }
}

/// A diff as it changes. A connection that is lost is made again, and goes on where it was if the host can; if not, the next
/// event says that everything is told anew.
#[derive(Debug)]
pub struct DiffLines {
    client: Client,
    id: AttemptId,
    after: Option<String>,
    lines: Option<Lines<DiffEventView>>,
    losses: u32,
}

impl DiffLines {
    /// Waits for the next event.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; also when the worktree is gone.
    ///
    /// # Cancel safety
    ///
    /// May be dropped; nothing is lost.
    pub async fn next(&mut self) -> Result<DiffEventView, ClientError> {
        loop {
            let lines = match &mut self.lines {
                Some(lines) => lines,
                None => {
                    let after = self.after.iter().map(|after| ("after", after.clone()));
                    let path = format!("/v1/attempts/{}/diff/events", self.id);
                    let path = with_query(&path, &after.collect::<Vec<_>>());
                    self.lines.insert(self.client.lines(&path).await?)
                }
            };
            match lines.next().await {
                Ok(Some(event)) => {
                    self.losses = 0;
                    self.after = Some(event.cursor.clone());
                    return Ok(event);
                }
                Ok(None) => {
                    self.lines = None;
                    let reason = "the diff ended early".to_owned();
                    survive(ClientError::Lost { reason }, &mut self.losses)?;
                }
                Err(error) => {
                    self.lines = None;
                    survive(error, &mut self.losses)?;
                }
            }
        }
    }
}
