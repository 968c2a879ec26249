//! The workspace: how it is made, and made again.

use super::{Refusal, RefusalCode, Reply, RequestId, State, Turn, WorkspaceStep};
use crate::outcome::{NotStarted, Outcome};
use crate::record::{AttemptStatus, Reason, Removing};
use crate::snapshot::Snapshot;
use crate::vcs_worktree::{CreateMode, Origin, Removed};
use crate::workspace::{Oid, Workspace};

impl State {
    /// Says what keeps new work out of the workspace, if anything does.
    pub(super) fn workspace_gone(&self) -> Option<String> {
        let short = self.attempt.id.short();
        match self.attempt.status {
            AttemptStatus::Removing => Some(format!("the worktree of {short} is being removed")),
            AttemptStatus::Removed if self.attempt.workspace.worktree().is_none() => Some(format!(
                "{short} was removed; the directory that it ran in is yours and as it was"
            )),
            AttemptStatus::Removed => Some(format!("the worktree of {short} was removed")),
            AttemptStatus::Failed => Some(format!("the worktree of {short} was never made")),
            AttemptStatus::Creating
            | AttemptStatus::Ready
            | AttemptStatus::Running
            | AttemptStatus::Committing
            | AttemptStatus::Held
            | AttemptStatus::Parked
            | AttemptStatus::Finished => None,
        }
    }

    pub(super) fn begin_creation(&mut self, turn: &mut Turn<'_>) {
        match &self.attempt.workspace {
            Workspace::Worktree(_) => {
                self.workspace_step = WorkspaceStep::Creating;
                let origin = self.origin();
                self.create_worktree(turn, origin, CreateMode::Begin);
            }
            Workspace::Directory { .. } => {
                self.attempt.status = AttemptStatus::Ready;
                turn.attempt_changed = true;
            }
        }
    }

    pub(super) fn on_worktree_created(&mut self, turn: &mut Turn<'_>, head: Oid) {
        self.taken_over = false;
        if self.workspace_step == WorkspaceStep::PuttingBack {
            self.workspace_step = WorkspaceStep::Idle;
            self.was_put_back(turn);
            return;
        }
        if self.workspace_step == WorkspaceStep::Mending {
            self.workspace_step = WorkspaceStep::Idle;
            self.answer_wanting(turn, &Reply::Restored);
            self.go_on_removing(turn);
            self.take_follow_up(turn);
            return;
        }
        if !self.workspace_step.creates() {
            return;
        }
        self.workspace_step = WorkspaceStep::Idle;
        self.attempt.making = None;
        self.attempt.head = Some(head);
        self.attempt.missing = false;
        turn.attempt_changed = true;
        let again = self.attempt.restoring.take().is_some();
        if again {
            self.attempt.removed = None;
            self.attempt.removed_at = None;
            self.attempt.half_removed = None;
        }
        if self.attempt.status == AttemptStatus::Removing {
            if again {
                self.attempt.claimed_from = self.attempt.removed_from.take();
                let message = "its worktree is being removed again".to_owned();
                let refusal = Refusal { code: RefusalCode::WorkspaceGone, message };
                self.answer_wanting(turn, &Reply::Refused(refusal));
            }
            self.go_on_removing(turn);
            return;
        }
        let before = self.attempt.removed_from.take().filter(|_| again);
        self.attempt.status = match (before, self.attempt.chain) {
            (Some(before), _) => before,
            (None, Some(_)) => AttemptStatus::Ready,
            // It was stopped meanwhile, or removed by a version that did not note what it was.
            (None, None) => AttemptStatus::Held,
        };
        if again {
            // What kept it from being made again or from being removed does so no more.
            self.attempt.reason = self.attempt.reason.take().filter(is_about_work);
            self.answer_wanting(turn, &Reply::Restored);
        }
        for id in self.executions.keys().copied().collect::<Vec<_>>() {
            self.begin_prepare(turn, id);
        }
        self.take_follow_up(turn);
    }

    pub(super) fn on_worktree_failed(&mut self, turn: &mut Turn<'_>, refusal: Refusal) {
        if self.workspace_step == WorkspaceStep::PuttingBack {
            self.workspace_step = WorkspaceStep::Idle;
            self.was_not_put_back(turn, refusal);
            return;
        }
        if self.workspace_step == WorkspaceStep::Mending {
            self.workspace_step = WorkspaceStep::Idle;
            self.answer_wanting(turn, &Reply::Refused(refusal));
            self.go_on_removing(turn);
            self.take_follow_up(turn);
            return;
        }
        if !self.workspace_step.creates()
            || self.make_once_more(turn)
            || self.create_later(turn, &refusal)
        {
            return;
        }
        let (refusal, reason) = self.why_not_made(turn, refusal);
        self.workspace_step = WorkspaceStep::Idle;
        self.attempt.making = None;
        turn.attempt_changed = true;
        let again = self.attempt.restoring.take().is_some();
        if again {
            self.answer_wanting(turn, &Reply::Refused(refusal.clone()));
        }
        if self.attempt.status == AttemptStatus::Removing {
            if let Some(begun) = self.attempt.half_removed.clone().filter(|_| again) {
                // Parts of it may be left: the removal before this one is gone on with.
                self.attempt.claimed_from = self.attempt.removed_from.take();
                self.attempt.removal.get_or_insert(Removing::SAFE).saved = begun.saved;
                self.go_on_removing(turn);
            } else if again {
                // It is as gone as it was.
                self.removed(turn);
            } else {
                // Nothing was made, or something half made: the removal looks.
                self.go_on_removing(turn);
            }
            return;
        }
        self.attempt.status = if again { AttemptStatus::Removed } else { AttemptStatus::Failed };
        self.hold_what_cannot_start(turn);
        // One that was stopped meanwhile was undone for that.
        let told = self.attempt.reason.as_ref().is_some_and(is_about_work);
        for id in self.executions.keys().copied().collect::<Vec<_>>() {
            let outcome = Outcome::NotStarted { reason: NotStarted::WorkspaceRefused };
            self.end_unstarted(turn, id, outcome, Some(refusal.message.clone()));
        }
        if !told {
            self.attempt.reason = Some(reason);
        }
    }

    /// Says whether there is anything that the removed worktree can be made again from.
    pub(super) fn can_be_restored(&self) -> bool {
        let needs = |number| self.dropping.contains_key(&number) || self.dropped.contains(&number);
        self.what_was_removed().is_some_and(|removed| !removed.snapshot.is_some_and(needs))
    }

    /// Returns what the worktree was when it was removed.
    fn what_was_removed(&self) -> Option<Removed> {
        let worktree = self.attempt.workspace.worktree()?;
        if self.attempt.removed.is_some() {
            return self.attempt.removed.clone();
        }
        if self.attempt.removed_from == Some(AttemptStatus::Failed) {
            return None;
        }
        // Removed by a version that removed what was clean only, and kept the branch.
        let head = self.attempt.head.clone().unwrap_or_else(|| worktree.base_oid.clone());
        Some(Removed { head, branch: Some(worktree.branch.clone()), snapshot: None })
    }

    /// Begins to make a removed worktree again; nothing happens if it never was made.
    pub(super) fn begin_restore(&mut self, turn: &mut Turn<'_>, snapshot: Option<Snapshot>) {
        let from = match snapshot {
            Some(Snapshot { number, head, branch, .. }) => {
                Some(Removed { head, branch, snapshot: Some(number) })
            }
            None => self.what_was_removed(),
        };
        if from.is_some() {
            self.attempt.restoring = from;
            self.attempt.status = AttemptStatus::Creating;
            turn.attempt_changed = true;
            self.begin_creation(turn);
        }
    }

    pub(super) fn on_restore(
        &mut self,
        turn: &mut Turn<'_>,
        request: RequestId,
        snapshot: Option<Snapshot>,
        missing: bool,
    ) {
        if self.attempt.workspace.worktree().is_none() {
            let message = "the attempt runs in a directory of yours, not in a worktree";
            turn.refuse(request, RefusalCode::NotAWorktree, message);
            return;
        }
        let number = snapshot.as_ref().map(|snapshot| snapshot.number);
        if let Some(number) = number.filter(|number| self.is_dropped(*number)) {
            let message = format!("snapshot {number} was removed");
            turn.refuse(request, RefusalCode::NoSnapshot, message);
            return;
        }
        match self.attempt.status {
            AttemptStatus::Removed if snapshot.is_some() || self.can_be_restored() => {
                self.wanting.push(request);
                self.begin_restore(turn, snapshot);
            }
            AttemptStatus::Creating
                if self.attempt.restoring.is_some()
                    && number.is_none_or(|_| {
                        self.attempt.restoring.as_ref().and_then(|from| from.snapshot) == number
                    }) =>
            {
                self.wanting.push(request);
            }
            AttemptStatus::Removed | AttemptStatus::Removing | AttemptStatus::Failed => {
                let message = self.workspace_gone().unwrap_or_default();
                turn.refuse(request, RefusalCode::WorkspaceGone, message);
            }
            AttemptStatus::Creating => {
                turn.refuse(request, RefusalCode::Busy, "its worktree is being made");
            }
            AttemptStatus::Ready
            | AttemptStatus::Running
            | AttemptStatus::Committing
            | AttemptStatus::Held
            | AttemptStatus::Parked
            | AttemptStatus::Finished => {
                self.restore_what_is_there(turn, request, number.is_some(), missing);
            }
        }
    }

    /// Restores what nobody asked us to remove: its directory is gone, or there is nothing to do.
    fn restore_what_is_there(
        &mut self,
        turn: &mut Turn<'_>,
        request: RequestId,
        of_snapshot: bool,
        missing: bool,
    ) {
        if of_snapshot {
            let message = "its worktree is there: remove it first, which saves what is in it";
            turn.refuse(request, RefusalCode::WrongState, message);
        } else if !missing
            && (self.is_busy().is_some() || self.workspace_step != WorkspaceStep::Idle)
        {
            turn.reply(request, Reply::Restored);
        } else if !missing {
            // Looked at, and completed where a power cut left it half on the disk.
            self.wanting.push(request);
            self.workspace_step = WorkspaceStep::Mending;
            // Written first: whoever was superseded would make what another host has removed since.
            turn.attempt_changed = true;
            self.create_worktree(turn, Origin::Base, CreateMode::Begin);
        } else if let Some(message) = self.is_busy() {
            turn.refuse(request, RefusalCode::Busy, message);
        } else {
            // What is left of it is saved first: its index, its operation in progress, its commits.
            self.wanting.push(request);
            self.claim(turn, Removing { restore: true, ..Removing::SAFE });
        }
    }

    pub(super) fn on_set_missing(
        &mut self,
        turn: &mut Turn<'_>,
        request: RequestId,
        missing: bool,
    ) {
        let at_rest = self.workspace_gone().is_none()
            && self.workspace_step == WorkspaceStep::Idle
            && self.attempt.workspace.worktree().is_some();
        if at_rest && self.attempt.missing != missing {
            self.attempt.missing = missing;
            turn.attempt_changed = true;
        }
        turn.reply(request, Reply::Accepted);
    }

    pub(super) fn on_set_keep(&mut self, turn: &mut Turn<'_>, request: RequestId, keep: bool) {
        if self.attempt.keep != keep {
            self.attempt.keep = keep;
            turn.attempt_changed = true;
        }
        turn.reply(request, Reply::Accepted);
    }

    pub(super) fn answer_wanting(&mut self, turn: &mut Turn<'_>, reply: &Reply) {
        for request in std::mem::take(&mut self.wanting) {
            turn.reply(request, reply.clone());
        }
    }
}

/// Says whether a reason is about the work, not about its workspace.
fn is_about_work(reason: &Reason) -> bool {
    match reason {
        Reason::Stopped
        | Reason::EndedBadly { .. }
        | Reason::CommitFailed { .. }
        | Reason::CleanupFailed { .. }
        | Reason::ResetFailed { .. } => true,
        Reason::WorkspaceFailed { .. } | Reason::RemoveFailed { .. } => false,
    }
}
