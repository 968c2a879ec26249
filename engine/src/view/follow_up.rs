//! What is shown of messages that are queued for an attempt.

use serde::{Deserialize, Serialize};
use windlass_core::id::{AttemptId, ExecutionId, FollowUpId};
use windlass_core::record::FollowUpState;

use super::{SCHEMA, Time};
use crate::handle::FollowUp;

/// A message that was queued for an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowUpView {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Its id.
    pub id: FollowUpId,
    /// The attempt that it is for.
    pub attempt_id: AttemptId,
    /// The client it belongs to.
    pub owner: Option<String>,
    /// The key of the request that sent it.
    pub client_key: Option<String>,
    /// What it says.
    pub text: String,
    /// Its place among all messages of the attempt, from 1.
    pub position: u64,
    /// What has become of it.
    pub status: FollowUpState,
    /// The execution that was started with it.
    pub execution_id: Option<ExecutionId>,
    /// Counts its changes.
    pub version: u64,
    /// When it was sent.
    pub created_at: Time,
}

impl From<FollowUp> for FollowUpView {
    fn from(message: FollowUp) -> Self {
        let FollowUp { record, version } = message;
        Self {
            schema: SCHEMA,
            id: record.id,
            attempt_id: record.attempt,
            owner: record.owner,
            client_key: record.client_key,
            text: record.text,
            position: record.position,
            status: record.state,
            execution_id: record.execution,
            version: version.0,
            created_at: Time(record.created_at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::check_fields;
    use super::*;
    use uuid::Uuid;
    use windlass_core::time::Timestamp;

    #[test]
    fn a_message_is_as_its_schema_says() {
        let view = FollowUpView {
            schema: SCHEMA,
            id: FollowUpId(Uuid::from_u128(1)),
            attempt_id: AttemptId(Uuid::from_u128(2)),
            owner: None,
            client_key: None,
            text: "go on".to_owned(),
            position: 1,
            status: FollowUpState::Held,
            execution_id: None,
            version: 2,
            created_at: Time(Timestamp(5)),
        };
        check_fields(&view, include_str!("../../../docs/schema/follow-up.json"));
    }
}
