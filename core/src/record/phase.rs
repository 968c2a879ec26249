//! Where an execution is in its life.

use serde::{Deserialize, Serialize};

/// Where an execution is in its life. Never back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It waits for a slot or its workspace.
    Queued,
    /// It is recorded, with its place; it may or may not run.
    Starting,
    /// It runs.
    Running,
    /// It was asked to stop.
    Stopping,
    /// Its outcome is known; leftovers and the log's end are not.
    Ended,
    /// Nothing of it will change any more.
    Final,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Starting, Self::Running, Self::Stopping, Self::Ended, Self::Final];

    /// Returns the word that is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Ended => "ended",
            Self::Final => "final",
        }
    }
}
