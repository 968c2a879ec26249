//! The workspace: how it is made and removed, and what a claim on it means.

use super::{Operation, Refusal, RefusalCode, Reply, RequestId, State, Turn, WorkspaceStep};
use crate::outcome::{NotStarted, Outcome};
use crate::record::{AttemptStatus, Claim, Reason};
use crate::workspace::{Oid, Workspace};

impl State {
    /// Says what keeps new work out of the workspace, if anything does.
    pub(super) fn workspace_gone(&self) -> Option<String> {
        let short = self.attempt.id.short();
        match self.attempt.status {
            AttemptStatus::Removing => Some(format!("the worktree of {short} is being removed")),
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
            Workspace::Worktree(worktree) => {
                self.workspace_step = WorkspaceStep::Creating;
                turn.begin(Operation::CreateWorktree(worktree.clone()));
            }
            Workspace::Directory { .. } => {
                self.attempt.status = AttemptStatus::Ready;
                turn.attempt_changed = true;
            }
        }
    }

    pub(super) fn on_worktree_created(&mut self, turn: &mut Turn<'_>, head: Oid) {
        if self.workspace_step != WorkspaceStep::Creating {
            return;
        }
        self.workspace_step = WorkspaceStep::Idle;
        self.attempt.head = Some(head);
        turn.attempt_changed = true;
        if self.attempt.status == AttemptStatus::Removing {
            self.go_on_removing(turn);
            return;
        }
        // Without a chain: it was stopped meanwhile.
        self.attempt.status = match self.attempt.chain {
            Some(_) => AttemptStatus::Ready,
            None => AttemptStatus::Held,
        };
        for id in self.executions.keys().copied().collect::<Vec<_>>() {
            self.begin_prepare(turn, id);
        }
    }

    pub(super) fn on_worktree_failed(&mut self, turn: &mut Turn<'_>, message: String) {
        if self.workspace_step != WorkspaceStep::Creating {
            return;
        }
        self.workspace_step = WorkspaceStep::Idle;
        if self.attempt.status == AttemptStatus::Removing {
            // Nothing was made, or something half made: the removal looks.
            self.go_on_removing(turn);
            return;
        }
        self.attempt.status = AttemptStatus::Failed;
        turn.attempt_changed = true;
        for id in self.executions.keys().copied().collect::<Vec<_>>() {
            let outcome = Outcome::NotStarted { reason: NotStarted::WorkspaceRefused };
            self.end_unstarted(turn, id, outcome, Some(message.clone()));
        }
        self.attempt.reason = Some(Reason::WorkspaceFailed { message });
    }

    pub(super) fn on_remove(&mut self, turn: &mut Turn<'_>, request: RequestId, force: bool) {
        match self.attempt.status {
            AttemptStatus::Removed => turn.reply(request, Reply::Removed),
            AttemptStatus::Removing => self.waiting.push(request),
            AttemptStatus::Creating
            | AttemptStatus::Ready
            | AttemptStatus::Running
            | AttemptStatus::Committing
            | AttemptStatus::Held
            | AttemptStatus::Parked
            | AttemptStatus::Finished
            | AttemptStatus::Failed => {
                let creating = self.attempt.status == AttemptStatus::Creating;
                let active = self.executions().next().is_some() || self.chain_is_active();
                let busy = creating || active;
                if busy && !force {
                    let what = match self.executions().next() {
                        Some(record) => format!("execution {} has not ended", record.id.short()),
                        None if creating => "its worktree is being made".to_owned(),
                        None => "its work is being committed".to_owned(),
                    };
                    turn.refuse(request, RefusalCode::Busy, what);
                    return;
                }
                if self.workspace_step == WorkspaceStep::Planning && !self.waiting.is_empty() {
                    turn.refuse(request, RefusalCode::Busy, "its work is being committed");
                    return;
                }
                self.waiting.push(request);
                self.attempt.claim = Some(Claim::Remove);
                self.attempt.claimed_from = Some(self.attempt.status);
                self.attempt.chain_stopped = self.chain_is_active();
                self.attempt.status = AttemptStatus::Removing;
                turn.attempt_changed = true;
                self.stop_all(turn);
                self.go_on_removing(turn);
            }
        }
    }

    /// Removes the worktree once every process of the attempt is known dead.
    pub(super) fn go_on_removing(&mut self, turn: &mut Turn<'_>) {
        let dead = self.executions.keys().all(|id| !self.is_active(*id));
        if self.attempt.status != AttemptStatus::Removing
            || self.workspace_step != WorkspaceStep::Idle
            || !dead
        {
            return;
        }
        match &self.attempt.workspace {
            Workspace::Worktree(worktree) => {
                self.workspace_step = WorkspaceStep::Removing;
                turn.begin(Operation::RemoveWorktree(worktree.clone()));
            }
            // The directory is the user's: only our record of it goes.
            Workspace::Directory { .. } => self.removed(turn),
        }
    }

    pub(super) fn on_worktree_removed(&mut self, turn: &mut Turn<'_>) {
        if self.workspace_step == WorkspaceStep::Removing {
            self.removed(turn);
        }
    }

    fn removed(&mut self, turn: &mut Turn<'_>) {
        self.workspace_step = WorkspaceStep::Idle;
        self.attempt.status = AttemptStatus::Removed;
        self.attempt.claim = None;
        self.attempt.claimed_from = None;
        self.attempt.removed_at = Some(turn.at);
        turn.attempt_changed = true;
        self.answer_waiting(turn, &Reply::Removed);
    }

    pub(super) fn on_remove_refused(&mut self, turn: &mut Turn<'_>, refusal: Refusal) {
        if self.workspace_step != WorkspaceStep::Removing {
            return;
        }
        self.workspace_step = WorkspaceStep::Idle;
        self.give_up_removal(turn, refusal);
    }

    /// Withdraws the claim: the attempt is as it was, but for what was stopped.
    pub(super) fn give_up_removal(&mut self, turn: &mut Turn<'_>, refusal: Refusal) {
        if self.attempt.status != AttemptStatus::Removing {
            return;
        }
        let status = self.attempt.claimed_from.take().unwrap_or(AttemptStatus::Held);
        self.attempt.status = match status {
            AttemptStatus::Creating | AttemptStatus::Running | AttemptStatus::Committing => {
                AttemptStatus::Held
            }
            AttemptStatus::Ready
            | AttemptStatus::Held
            | AttemptStatus::Parked
            | AttemptStatus::Finished
            | AttemptStatus::Removing
            | AttemptStatus::Removed
            | AttemptStatus::Failed => status,
        };
        self.attempt.claim = None;
        turn.attempt_changed = true;
        self.answer_waiting(turn, &Reply::Refused(refusal));
    }
}
