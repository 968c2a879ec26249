//! What clients are shown of saved work and of cleanup.

use serde::{Deserialize, Serialize};
use windlass_core::cleanup::{Action, Thing};
use windlass_core::id::AttemptId;
use windlass_core::locator::Locator;
use windlass_core::snapshot::{LeftOut, SnapshotCause, SnapshotNumber, SnapshotRecord};
use windlass_core::workspace::Oid;

use super::Time;
use crate::handle::GcItem;

/// Saved work of a worktree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotView {
    /// Its number among the attempt's.
    pub number: SnapshotNumber,
    /// The attempt.
    pub attempt_id: AttemptId,
    /// Why it was made.
    pub cause: SnapshotCause,
    /// The commit that HEAD named.
    pub head: Oid,
    /// The branch that HEAD named; null if it was detached.
    pub branch: Option<String>,
    /// Files, links and directories in it.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Tracked files that had been deleted.
    pub deleted: u64,
    /// Commits in it that no other branch reaches.
    pub commits: u64,
    /// Where it is.
    pub archive: Locator,
    /// What it takes there.
    pub archive_bytes: u64,
    /// The SHA-256 of the archive, in hexadecimal.
    pub sha256: String,
    /// What it does not hold: the largest first, at most 16.
    pub left_out: Vec<LeftOut>,
    /// How many more it does not hold.
    pub more_left_out: u64,
    /// The bytes of all that it does not hold.
    pub left_out_bytes: u64,
    /// When it was recorded.
    pub created_at: Time,
}

impl From<SnapshotRecord> for SnapshotView {
    fn from(record: SnapshotRecord) -> Self {
        let SnapshotRecord { attempt, owner: _, cause, snapshot, created_at } = record;
        Self {
            number: snapshot.number,
            attempt_id: attempt,
            cause,
            head: snapshot.head,
            branch: snapshot.branch,
            entries: snapshot.entries,
            bytes: snapshot.bytes,
            deleted: snapshot.deleted,
            commits: snapshot.commits,
            archive: snapshot.archive,
            archive_bytes: snapshot.archive_bytes,
            sha256: snapshot.sha256,
            left_out: snapshot.left_out,
            more_left_out: snapshot.more_left_out,
            left_out_bytes: snapshot.left_out_bytes,
            created_at: Time(created_at),
        }
    }
}

/// One thing that cleanup has looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcItemView {
    /// What it is.
    pub what: Thing,
    /// Where it is.
    pub path: Locator,
    /// The attempt that it belongs to; null if that cannot be told.
    pub attempt_id: Option<AttemptId>,
    /// What was done, or would be.
    pub action: Action,
    /// Why.
    pub reason: String,
    /// Why it was not done after all.
    pub error: Option<String>,
}

impl From<GcItem> for GcItemView {
    fn from(item: GcItem) -> Self {
        let GcItem { what, path, attempt, action, reason, error } = item;
        Self { what, path, attempt_id: attempt, action, reason, error }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;
    use windlass_core::snapshot::{LeftOutReason, Snapshot};
    use windlass_core::time::Timestamp;

    use super::super::tests::check_fields;
    use super::*;

    #[test]
    fn views_have_the_fields_of_their_schemas() {
        let left = LeftOut {
            path: Locator::new(b"target".to_vec()),
            bytes: 7,
            reason: LeftOutReason::Ignored,
        };
        let snapshot = Snapshot {
            number: SnapshotNumber(2),
            head: Oid("1".to_owned()),
            branch: None,
            entries: 1,
            bytes: 2,
            deleted: 3,
            commits: 4,
            archive: Locator::new(b"/s".to_vec()),
            archive_bytes: 5,
            sha256: "ab".to_owned(),
            left_out: vec![left],
            more_left_out: 0,
            left_out_bytes: 7,
        };
        let attempt = AttemptId(Uuid::from_u128(1));
        let cause = SnapshotCause::Removal;
        let record =
            SnapshotRecord { attempt, owner: None, cause, snapshot, created_at: Timestamp(0) };
        let view = SnapshotView::from(record);
        check_fields(&view, include_str!("../../../docs/schema/snapshot.json"));
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!((&json["number"], &json["cause"]), (&json!(2), &json!("removal")));
        let left = json!([{ "path": "target", "bytes": 7, "reason": "ignored" }]);
        assert_eq!(json["left_out"], left);
        let item = GcItemView {
            what: Thing::Worktree,
            path: Locator::new(b"/w".to_vec()),
            attempt_id: Some(attempt),
            action: Action::RemoveIdle,
            reason: "r".to_owned(),
            error: None,
        };
        check_fields(&item, include_str!("../../../docs/schema/gc-item.json"));
        assert_eq!(serde_json::to_value(&item).unwrap()["action"], json!("remove_idle"));
    }
}
