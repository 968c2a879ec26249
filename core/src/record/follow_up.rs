//! What is recorded of messages that are queued for an attempt.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Recorded;
use crate::action::{Action, RunOptions};
use crate::attachments::Attachment;
use crate::id::{AttemptId, ExecutionId, FollowUpId};
use crate::locator::Locator;
use crate::process_store::Kind;
use crate::time::Timestamp;

/// What has become of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FollowUpState {
    /// It waits for its turn.
    Queued,
    /// It waits, and nothing of its queue starts.
    Held,
    /// An execution was started with it.
    Consumed,
    /// It was taken back.
    Cancelled,
}

impl FollowUpState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Queued, Self::Held, Self::Consumed, Self::Cancelled];

    /// Returns the word that is stored and printed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Held => "held",
            Self::Consumed => "consumed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Says whether it waits.
    #[must_use]
    pub fn waits(self) -> bool {
        match self {
            Self::Queued | Self::Held => true,
            Self::Consumed | Self::Cancelled => false,
        }
    }
}

/// Why nothing of a queue starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hold {
    /// Somebody asked for it.
    Asked,
    /// The chain before was stopped.
    Stopped,
    /// The chain before did not end well.
    EndedBadly,
    /// What the chain before changed could not be committed.
    CommitFailed,
    /// What the cleanup of the chain before left half done is still in the worktree.
    ResetFailed,
    /// The first message was to be started, and was not.
    NotStarted,
}

/// A message that is queued for an attempt, with what it starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowUpRecord {
    /// Its id.
    pub id: FollowUpId,
    /// The attempt that it is for.
    pub attempt: AttemptId,
    /// The client it belongs to.
    pub owner: Option<String>,
    /// The key of the request that sent it.
    pub client_key: Option<String>,
    /// A digest of the request that sent it.
    pub digest: Uuid,
    /// What it says.
    pub text: String,
    /// Its place among all messages of the attempt, from 1.
    pub position: u64,
    /// What has become of it.
    pub state: FollowUpState,
    /// What is started with it: the agent again, and what follows.
    pub action: Action,
    /// How.
    pub options: RunOptions,
    /// Where.
    pub cwd: Locator,
    /// The files that were handed over with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
    /// What is in the worktree and not committed is saved and undone before it is started.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reset: bool,
    /// The execution that was started with it.
    pub execution: Option<ExecutionId>,
    /// When it was sent.
    pub created_at: Timestamp,
}

impl Recorded for FollowUpRecord {
    const KIND: Kind = Kind::FollowUp;

    fn fields(&self) -> (Uuid, Option<Uuid>, Option<&str>, &'static str, Timestamp) {
        let parent = Some(self.attempt.0);
        (self.id.0, parent, self.owner.as_deref(), self.state.as_str(), self.created_at)
    }
}
