//! The requests about the commits of attempts.

use axum::http::Method;
use windlass_core::id::AttemptId;

use super::{Client, ClientError};
use crate::request::{AttemptChange, MergeRequest, PushRequest, RebaseRequest};
use crate::view::{AttemptView, IntegratedView};

#[expect(clippy::missing_errors_doc, reason = "as with all requests")]
impl Client {
    /// Merges an attempt's commits; returns when that is done.
    pub async fn merge(
        &self,
        id: AttemptId,
        request: &MergeRequest,
    ) -> Result<IntegratedView, ClientError> {
        self.json(Method::POST, &format!("/v1/attempts/{id}/merge"), request).await
    }

    /// Puts an attempt's commits on top of its target.
    pub async fn rebase(
        &self,
        id: AttemptId,
        request: &RebaseRequest,
    ) -> Result<IntegratedView, ClientError> {
        self.json(Method::POST, &format!("/v1/attempts/{id}/rebase"), request).await
    }

    /// Gives up what is in progress in an attempt's worktree.
    pub async fn abort(&self, id: AttemptId) -> Result<IntegratedView, ClientError> {
        let path = format!("/v1/attempts/{id}/abort");
        self.json(Method::POST, &path, &serde_json::json!({})).await
    }

    /// Pushes an attempt's branch.
    pub async fn push(
        &self,
        id: AttemptId,
        request: &PushRequest,
    ) -> Result<IntegratedView, ClientError> {
        self.json(Method::POST, &format!("/v1/attempts/{id}/push"), request).await
    }

    /// Changes an attempt: what is named.
    pub async fn set_attempt(
        &self,
        id: AttemptId,
        change: &AttemptChange,
    ) -> Result<AttemptView, ClientError> {
        self.json(Method::PATCH, &format!("/v1/attempts/{id}"), change).await
    }
}
