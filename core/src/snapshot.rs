//! Snapshots: saved work of a worktree, numbered per attempt.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::id::AttemptId;
use crate::locator::Locator;
use crate::process_store::Kind;
use crate::record::Recorded;
use crate::time::Timestamp;
use crate::workspace::Oid;

/// Numbers the snapshots of one attempt, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SnapshotNumber(pub u32);

impl SnapshotNumber {
    /// The number of an attempt's first snapshot.
    pub const FIRST: Self = Self(1);

    /// Returns the number after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for SnapshotNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Something in a worktree that a snapshot does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Its path, relative to the worktree; a directory stands for all in it.
    pub path: Locator,
    /// Its size in bytes.
    pub bytes: u64,
    /// Why it is not saved.
    pub reason: LeftOutReason,
}

/// Why something was not saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftOutReason {
    /// It is ignored, and the smaller ignored entries filled the limit.
    Ignored,
    /// It cannot be saved (a special file, an unreadable one, a mount), and that was accepted.
    Discarded,
}

/// What a backend saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its number.
    pub number: SnapshotNumber,
    /// The commit that HEAD named.
    pub head: Oid,
    /// The branch that HEAD named, without `refs/heads/`; `None` if it was detached.
    pub branch: Option<String>,
    /// How many files, links and directories it holds the content of.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many tracked files had been deleted.
    pub deleted: u64,
    /// How many commits it holds that no other branch reaches.
    pub commits: u64,
    /// Where it is.
    pub archive: Locator,
    /// How many bytes it takes there.
    pub archive_bytes: u64,
    /// The SHA-256 of the archive, in hexadecimal.
    pub sha256: String,
    /// What it does not hold: the largest first, at most 16.
    pub left_out: Vec<LeftOut>,
    /// How many more it does not hold.
    pub more_left_out: u64,
    /// The bytes of all that it does not hold.
    pub left_out_bytes: u64,
}

/// Why a snapshot was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotCause {
    /// The worktree was to be removed.
    Removal,
    /// The work could not be committed.
    CommitFailed,
    /// The chain ended badly.
    EndedBadly,
    /// The worktree was to be put back to a commit.
    Reset,
    /// The worktree had no record.
    Orphan,
}

/// A snapshot as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// The attempt whose work it is.
    pub attempt: AttemptId,
    /// The client that the attempt belongs to.
    pub owner: Option<String>,
    /// Why it was made.
    pub cause: SnapshotCause,
    /// What was saved.
    pub snapshot: Snapshot,
    /// When it was recorded.
    pub created_at: Timestamp,
}

/// Returns the id of the record of a snapshot: the same attempt and number give the same one.
#[must_use]
pub fn snapshot_id(attempt: AttemptId, number: SnapshotNumber) -> Uuid {
    Uuid::new_v5(&attempt.0, &number.0.to_be_bytes())
}

impl Recorded for SnapshotRecord {
    const KIND: Kind = Kind::Snapshot;

    fn fields(&self) -> (Uuid, Option<Uuid>, Option<&str>, &'static str, Timestamp) {
        let id = snapshot_id(self.attempt, self.snapshot.number);
        (id, Some(self.attempt.0), self.owner.as_deref(), "kept", self.created_at)
    }
}
