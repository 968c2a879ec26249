//! The requests about how an attempt goes on: messages that are queued for it, and another try.

use axum::http::Method;
use bytes::Bytes;
use windlass_core::id::{AttemptId, FollowUpId};

use super::{Client, ClientError};
use crate::api::{ItemsView, QueueBody, ReplaceBody, RetryBody, SendBody, with_query};
use crate::request::{Accepted, RetryRequest, SendOptions};
use crate::view::{AttemptView, FollowUpView};

#[expect(clippy::missing_errors_doc, reason = "as with all requests")]
impl Client {
    /// Queues a message.
    pub async fn send_message(
        &self,
        id: AttemptId,
        text: String,
        with: SendOptions,
    ) -> Result<FollowUpView, ClientError> {
        let body = SendBody { text, with };
        self.json(Method::POST, &format!("/v1/attempts/{id}/follow-ups"), &body).await
    }

    /// Lists the messages of an attempt in their order: those that wait, or `all`.
    pub async fn follow_ups(
        &self,
        id: AttemptId,
        all: bool,
    ) -> Result<ItemsView<FollowUpView>, ClientError> {
        let path = format!("/v1/attempts/{id}/follow-ups");
        self.get(&with_query(&path, &[("all", all.to_string())])).await
    }

    /// Reads one message.
    pub async fn follow_up(&self, id: FollowUpId) -> Result<FollowUpView, ClientError> {
        self.get(&format!("/v1/follow-ups/{id}")).await
    }

    /// Lets a message that waits say something else, if it is at a version.
    pub async fn replace_follow_up(
        &self,
        id: FollowUpId,
        body: &ReplaceBody,
    ) -> Result<FollowUpView, ClientError> {
        self.json(Method::PATCH, &format!("/v1/follow-ups/{id}"), body).await
    }

    /// Takes a message that waits back, if it is at a version.
    pub async fn cancel_follow_up(
        &self,
        id: FollowUpId,
        version: Option<u64>,
    ) -> Result<FollowUpView, ClientError> {
        let pairs: Vec<_> = version.map(|it| ("version", it.to_string())).into_iter().collect();
        let path = with_query(&format!("/v1/follow-ups/{id}"), &pairs);
        let bytes = self.fetch(Method::DELETE, &path, Bytes::new()).await?;
        serde_json::from_slice(&bytes).map_err(|error| ClientError::protocol(&error))
    }

    /// Waits until nothing of an attempt's chain goes on.
    pub async fn at_rest(&self, id: AttemptId) -> Result<AttemptView, ClientError> {
        self.get(&format!("/v1/attempts/{id}/rest")).await
    }

    /// Undoes what was done since an execution, which is saved first, and runs it again.
    pub async fn retry(&self, request: RetryRequest) -> Result<Accepted, ClientError> {
        let RetryRequest { attempt, from, text } = request;
        self.json(Method::POST, &format!("/v1/attempts/{attempt}/retry"), &RetryBody { from, text })
            .await
    }

    /// Holds the queue of an attempt, or lets it flow.
    pub async fn hold_queue(&self, id: AttemptId, held: bool) -> Result<AttemptView, ClientError> {
        let body = QueueBody { held };
        self.json(Method::POST, &format!("/v1/attempts/{id}/queue"), &body).await
    }
}
