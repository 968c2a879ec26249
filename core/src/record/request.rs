//! What a request led to: the record that makes repeating it harmless.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Recorded;
use crate::id::{AttemptId, ExecutionId};
use crate::process_store::{Kind, RecordKey};
use crate::time::Timestamp;

/// What a request with a client key led to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// The key.
    pub client_key: String,
    /// The client.
    pub owner: Option<String>,
    /// The attempt; nil for a request that starts nothing.
    pub attempt: AttemptId,
    /// The execution; likewise.
    pub execution: ExecutionId,
    /// What it made, changed or removed, for a request that starts nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<RecordKey>,
    /// A digest of what was asked for: the same key with another request is refused.
    pub digest: Uuid,
    /// When.
    pub at: Timestamp,
}

impl Recorded for RequestRecord {
    const KIND: Kind = Kind::Request;

    fn fields(&self) -> (Uuid, Option<Uuid>, Option<&str>, &'static str, Timestamp) {
        let id = request_id(self.owner.as_deref(), &self.client_key);
        let parent = self.made.map_or(self.attempt.0, |made| made.id);
        (id, Some(parent), self.owner.as_deref(), "done", self.at)
    }
}

/// Returns the id of the record of a request: the same owner and key give the same one.
#[must_use]
pub fn request_id(owner: Option<&str>, client_key: &str) -> Uuid {
    let name = match owner {
        Some(owner) => format!("o{}:{owner}{client_key}", owner.len()),
        None => format!("-{client_key}"),
    };
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
}
