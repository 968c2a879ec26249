//! Snapshots: which of them may be removed.

use super::{Operation, Refusal, RefusalCode, Reply, RequestId, State, Turn};
use crate::process_store::{Kind, RecordKey, Revision, Write};
use crate::record::AttemptStatus;
use crate::snapshot::{SnapshotNumber, snapshot_id};

impl State {
    /// Says whether a snapshot is gone or about to be.
    pub(super) fn is_dropped(&self, number: SnapshotNumber) -> bool {
        self.dropped.contains(&number) || self.dropping.contains_key(&number)
    }

    /// Says whether what a snapshot may hold is being undone in the worktree.
    fn undoes_by(&self, number: SnapshotNumber) -> bool {
        self.attempt.resetting.is_some() && number.0 == self.attempt.last_snapshot
    }

    pub(super) fn on_remove_snapshot(
        &mut self,
        turn: &mut Turn<'_>,
        request: RequestId,
        number: SnapshotNumber,
        force: bool,
    ) {
        if let Some(waiting) = self.dropping.get_mut(&number) {
            waiting.push(request);
            return;
        }
        let Some(worktree) = self.attempt.workspace.worktree().cloned() else {
            let message = "the attempt runs in a directory of yours, not in a worktree";
            turn.refuse(request, RefusalCode::NotAWorktree, message);
            return;
        };
        let holds = |from: &crate::vcs_worktree::Removed| from.snapshot == Some(number);
        let removals = [&self.attempt.removal, &self.attempt.half_removed];
        let mut saved = removals.into_iter().flatten().filter_map(|how| how.saved.as_ref());
        let restoring = self.attempt.restoring.as_ref();
        if self.dropped.contains(&number) {
            let message = format!("snapshot {number} was removed");
            turn.refuse(request, RefusalCode::NoSnapshot, message);
        } else if restoring.is_some_and(holds) || saved.any(holds) || self.undoes_by(number) {
            let message = format!("snapshot {number} is being used");
            turn.refuse(request, RefusalCode::Busy, message);
        } else if self.needs(number) && !force {
            let message =
                format!("the removed worktree cannot be made again without snapshot {number}");
            turn.refuse(request, RefusalCode::WrongState, message);
        } else {
            self.dropping.insert(number, vec![request]);
            turn.begin(Operation::RemoveSnapshot { worktree: Box::new(worktree), number });
        }
    }

    /// Says whether the removed worktree cannot be made again without a snapshot.
    fn needs(&self, number: SnapshotNumber) -> bool {
        self.attempt.status == AttemptStatus::Removed
            && self.attempt.removed.as_ref().is_some_and(|from| from.snapshot == Some(number))
    }

    pub(super) fn on_snapshot_removed(&mut self, turn: &mut Turn<'_>, number: SnapshotNumber) {
        let Some(waiting) = self.dropping.remove(&number) else { return };
        self.dropped.insert(number);
        let id = snapshot_id(self.attempt.id, number);
        // Written once, when it was made.
        let expect = Revision(1);
        turn.writes.push(Write::Delete { key: RecordKey { kind: Kind::Snapshot, id }, expect });
        if let Some(removed) = &mut self.attempt.removed
            && removed.snapshot == Some(number)
        {
            removed.snapshot = None;
            turn.attempt_changed = true;
        }
        for request in waiting {
            turn.reply(request, Reply::Accepted);
        }
    }

    pub(super) fn on_snapshot_kept(
        &mut self,
        turn: &mut Turn<'_>,
        number: SnapshotNumber,
        refusal: &Refusal,
    ) {
        for request in self.dropping.remove(&number).unwrap_or_default() {
            turn.reply(request, Reply::Refused(refusal.clone()));
        }
    }
}
