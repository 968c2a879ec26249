//! The requests about dev servers.

use windlass_core::id::{AttemptId, ExecutionId};

use super::{Client, ClientError};
use crate::api::dev::{DevScriptView, ReadyView};
use crate::api::with_query;
use crate::handle::ReadyCheck;

#[expect(clippy::missing_errors_doc, reason = "as with all requests")]
impl Client {
    /// Asks for the script that the project of an attempt has for dev servers.
    pub async fn dev_script(&self, id: AttemptId) -> Result<String, ClientError> {
        let view: DevScriptView = self.get(&format!("/v1/attempts/{id}/dev-script")).await?;
        Ok(view.script)
    }

    /// Waits until an execution is ready, or has ended.
    pub async fn ready(
        &self,
        id: ExecutionId,
        check: &ReadyCheck,
    ) -> Result<ReadyView, ClientError> {
        let pair = match check {
            ReadyCheck::Port(port) => ("port", port.to_string()),
            ReadyCheck::Pattern(pattern) => ("pattern", pattern.clone()),
        };
        self.get(&with_query(&format!("/v1/executions/{id}/ready"), &[pair])).await
    }
}
