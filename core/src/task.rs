//! The status of a task, decided from its attempts and from what its user said of it.
//!
//! It is not recorded: what is recorded of the attempts tells it at any time, so that no crash lies between the two.

use serde::{Deserialize, Serialize};

use crate::record::AttemptRecord;
use crate::time::Timestamp;

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// Nothing was done for it.
    Todo,
    /// An attempt works on it.
    InProgress,
    /// None does, and one has ended.
    InReview,
    /// Its work is merged, or its user says so.
    Done,
    /// Its user gave it up.
    Cancelled,
    /// Its user put it away.
    Archived,
}

impl TaskStatus {
    /// Every status.
    pub const ALL: [Self; 6] =
        [Self::Todo, Self::InProgress, Self::InReview, Self::Done, Self::Cancelled, Self::Archived];

    /// Returns the word that is stored and printed.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Todo => "todo",
            Self::InProgress => "in_progress",
            Self::InReview => "in_review",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Archived => "archived",
        }
    }

    /// Says whether only the user moves a task out of it; nothing starts for such a task.
    #[must_use]
    pub fn is_closed(self) -> bool {
        match self {
            Self::Cancelled | Self::Archived => true,
            Self::Todo | Self::InProgress | Self::InReview | Self::Done => false,
        }
    }
}

/// What its user said of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// The status.
    pub status: TaskStatus,
    /// When.
    pub at: Timestamp,
}

/// What a task needs to know of one attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// An execution of its chain has started, and the chain is not finalised.
    pub active: bool,
    /// When its chain was finalised last.
    pub finalised_at: Option<Timestamp>,
    /// When its work was merged last.
    pub merged_at: Option<Timestamp>,
}

impl Activity {
    /// Takes it from the record of an attempt.
    #[must_use]
    pub fn of(attempt: &AttemptRecord) -> Self {
        Self {
            active: attempt.chain_started_at.is_some(),
            finalised_at: attempt.finalised_at,
            merged_at: attempt.merged_at,
        }
    }
}

/// Decides the status of a task.
///
/// What its user closed stays closed. Else an active attempt makes it `in_progress`; without one the last of these events
/// counts: a merge makes it `done`, the end of a chain `in_review`, and what its user said of it is so until then.
#[must_use]
pub fn status(said: Option<Said>, attempts: impl IntoIterator<Item = Activity>) -> TaskStatus {
    if let Some(said) = said.filter(|said| said.status.is_closed()) {
        return said.status;
    }
    // Of what happened in one millisecond the user's word counts most, then a merge.
    let mut last = said.map(|said| (said.at, 2, said.status));
    for attempt in attempts {
        if attempt.active {
            return TaskStatus::InProgress;
        }
        let merged = attempt.merged_at.map(|at| (at, 1, TaskStatus::Done));
        let finalised = attempt.finalised_at.map(|at| (at, 0, TaskStatus::InReview));
        last = last.max(merged).max(finalised);
    }
    match last {
        // Nobody works on it, whatever was said.
        Some((_, _, TaskStatus::InProgress)) | None => TaskStatus::Todo,
        Some((_, _, status)) => status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Activity = Activity { active: false, finalised_at: None, merged_at: None };

    fn ended(at: u64) -> Activity {
        Activity { finalised_at: Some(Timestamp(at)), ..NEW }
    }

    fn merged(at: u64) -> Activity {
        Activity { merged_at: Some(Timestamp(at)), ..ended(at - 1) }
    }

    fn said(status: TaskStatus, at: u64) -> Option<Said> {
        Some(Said { status, at: Timestamp(at) })
    }

    #[test]
    fn the_attempts_decide_and_the_last_event_counts() {
        let active = Activity { active: true, ..NEW };
        let cases: [(&[Activity], TaskStatus); 8] = [
            (&[], TaskStatus::Todo),
            (&[NEW], TaskStatus::Todo),
            (&[NEW, active], TaskStatus::InProgress),
            (&[ended(5), active], TaskStatus::InProgress),
            (&[ended(5), NEW], TaskStatus::InReview),
            (&[merged(5), ended(3)], TaskStatus::Done),
            (&[merged(5), ended(6)], TaskStatus::InReview),
            (&[merged(5), active], TaskStatus::InProgress),
        ];
        for (attempts, expected) in cases {
            assert_eq!(status(None, attempts.iter().copied()), expected, "{attempts:?}");
        }
    }

    #[test]
    fn what_the_user_closed_stays_closed_and_all_else_is_so_until_something_happens() {
        let active = Activity { active: true, ..NEW };
        for closed in [TaskStatus::Cancelled, TaskStatus::Archived] {
            assert_eq!(status(said(closed, 1), [active, merged(9)]), closed);
        }
        assert_eq!(status(said(TaskStatus::Done, 5), [ended(4)]), TaskStatus::Done);
        assert_eq!(status(said(TaskStatus::Done, 5), [ended(6)]), TaskStatus::InReview);
        assert_eq!(status(said(TaskStatus::Todo, 7), [merged(6)]), TaskStatus::Todo);
        assert_eq!(status(said(TaskStatus::Todo, 7), [active]), TaskStatus::InProgress);
        assert_eq!(status(said(TaskStatus::InProgress, 7), [NEW]), TaskStatus::Todo);
        assert_eq!(status(said(TaskStatus::Todo, 6), [merged(6)]), TaskStatus::Todo);
    }
}
