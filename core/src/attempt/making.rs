//! The step that checks out a worktree's files where hooks or filters have a part in it: a git execution of its own, before
//! anything else runs in the workspace.

use super::{Config, Effect, Operation, Refusal, RefusalCode, State, Tracked, Turn, WorkspaceStep};
use crate::id::ExecutionId;
use crate::outcome::Outcome;
use crate::process_store::Revision;
use crate::record::{AttemptStatus, ExecutionRecord, Making, Reason};
use crate::vcs_worktree::{CreateMode, GitStep, Origin};
use crate::workspace::Workspace;

/// How often a checkout whose execution was lost is tried.
const MAKING_TRIES: u32 = 2;

impl State {
    /// Says whether an execution is the one that checks out the worktree's files.
    pub(super) fn makes(&self, id: ExecutionId) -> bool {
        self.attempt.making.is_some_and(|making| making.execution == id)
    }

    /// Returns what an execution runs in. What is still being made is no worktree that could be verified.
    pub(super) fn runs_in(&self, id: ExecutionId) -> Workspace {
        match &self.attempt.workspace {
            Workspace::Worktree(worktree) if self.makes(id) => {
                Workspace::Directory { path: worktree.path.clone() }
            }
            workspace @ (Workspace::Worktree(_) | Workspace::Directory { .. }) => workspace.clone(),
        }
    }

    /// Goes on with a creation after a restart: with its step, if that was asked for.
    pub(super) fn go_on_creating(&mut self, turn: &mut Turn<'_>) {
        match self.attempt.making {
            Some(making) if self.is_active(making.execution) => {
                self.workspace_step = WorkspaceStep::Making;
            }
            Some(_) => self.making_ended(turn),
            None => {
                self.taken_over = true;
                self.begin_creation(turn);
            }
        }
    }

    /// Tries a creation that was taken over again, later, if somebody still has the repository; says whether it will. To
    /// fail would leave what the other host has made of it.
    pub(super) fn create_later(&mut self, turn: &mut Turn<'_>, refusal: &Refusal) -> bool {
        let later = self.taken_over
            && self.workspace_step == WorkspaceStep::Creating
            && self.attempt.status == AttemptStatus::Creating
            && refusal.code == RefusalCode::RepositoryBusy;
        // What is begun after this one is this host's own.
        self.taken_over = later;
        if later {
            let when = turn.at.plus_ms(turn.config.readopt_ms);
            self.creation_again = Some(when);
            turn.after.push(Effect::WakeAt(when));
        }
        later
    }

    /// Goes on with a creation whose time has come.
    pub(super) fn on_woke_to_create(&mut self, turn: &mut Turn<'_>) {
        let Some(when) = self.creation_again else { return };
        // A clock that was set back brings it at once.
        if when <= turn.at || when > turn.at.plus_ms(turn.config.readopt_ms) {
            self.creation_again = None;
            self.begin_creation(turn);
        } else {
            turn.after.push(Effect::WakeAt(when));
        }
    }

    /// Runs the step, unless nobody wants the worktree any more.
    pub(super) fn on_worktree_needs_step(
        &mut self,
        turn: &mut Turn<'_>,
        id: ExecutionId,
        step: GitStep,
    ) {
        match self.workspace_step {
            WorkspaceStep::Creating => {}
            WorkspaceStep::PuttingBack => {
                // Nothing is left to be put back, and nothing may run under the claim: it counts as removed.
                let saved = self.attempt.removal.as_ref().and_then(|how| how.saved.clone());
                if let Some(saved) = saved {
                    self.create_worktree(turn, Origin::Removed(saved), CreateMode::Conclude);
                }
                return;
            }
            WorkspaceStep::Mending => {
                // It went between the look and this one; nothing runs for somebody who thinks that it is there.
                self.create_worktree(turn, Origin::Base, CreateMode::Conclude);
                return;
            }
            WorkspaceStep::Idle
            | WorkspaceStep::Making
            | WorkspaceStep::Concluding
            | WorkspaceStep::Planning
            | WorkspaceStep::Saving
            | WorkspaceStep::Removing
            | WorkspaceStep::Integrating => return,
        }
        if !self.is_wanted() {
            self.attempt.making = None;
            turn.attempt_changed = true;
            self.making_ended(turn);
            return;
        }
        let tries = self.attempt.making.map_or(1, |making| making.tries);
        let like = self.attempt.chain.or_else(|| self.executions.keys().next().copied());
        let record = self.git_execution(turn, id, step, like);
        self.attempt.making = Some(Making { execution: id, tries });
        self.workspace_step = WorkspaceStep::Making;
        turn.attempt_changed = true;
        // It runs in the slot of the chain, or needs none.
        self.executions.insert(id, Tracked::new(record, Revision(0), true));
        turn.touch(id);
        self.begin_prepare(turn, id);
    }

    /// Says whether anything is to run in a worktree that is being made. One that is made again is wanted for itself.
    fn is_wanted(&self) -> bool {
        let waited_for = self.executions.keys().any(|id| self.is_active(*id));
        self.attempt.claim.is_none() && (self.attempt.restoring.is_some() || waited_for)
    }

    /// Concludes the creation once its step has ended, or is not to begin.
    pub(super) fn making_ended(&mut self, turn: &mut Turn<'_>) {
        self.workspace_step = WorkspaceStep::Concluding;
        let origin = self.origin();
        self.create_worktree(turn, origin, CreateMode::Conclude);
    }

    /// Begins a creation again whose step was lost; says whether it did.
    pub(super) fn make_once_more(&mut self, turn: &mut Turn<'_>) -> bool {
        let concluded = self.workspace_step == WorkspaceStep::Concluding;
        let Some(making) = self.attempt.making.filter(|_| concluded && self.is_wanted()) else {
            return false;
        };
        let record = self.executions.get(&making.execution).map(|tracked| &tracked.record);
        let lost = record.is_some_and(|record| {
            matches!(record.outcome, Some(Outcome::Lost { .. })) && record.stop.is_none()
        });
        if !lost || making.tries >= MAKING_TRIES {
            return false;
        }
        self.attempt.making = Some(Making { tries: making.tries + 1, ..making });
        turn.attempt_changed = true;
        self.begin_creation(turn);
        true
    }

    /// Says why the worktree could not be made: in the words of the step, if that is why.
    pub(super) fn why_not_made(&self, turn: &Turn<'_>, refusal: Refusal) -> (Refusal, Reason) {
        let made_by =
            self.attempt.making.filter(|_| self.workspace_step == WorkspaceStep::Concluding);
        let record = made_by.and_then(|making| self.executions.get(&making.execution));
        let record = record.map(|tracked| &tracked.record);
        let ended_badly =
            |record: &&ExecutionRecord| !record.outcome.is_some_and(|outcome| outcome.ended_well());
        let message = match record.filter(ended_badly) {
            Some(record) => said(turn.config, record),
            None => refusal.message,
        };
        let execution = made_by.map(|making| making.execution);
        let reason = Reason::WorkspaceFailed { message: message.clone(), execution };
        (Refusal { message, ..refusal }, reason)
    }

    /// What the worktree is being made from.
    pub(super) fn origin(&self) -> Origin {
        match &self.attempt.restoring {
            Some(removed) => Origin::Removed(removed.clone()),
            None => Origin::Base,
        }
    }

    pub(super) fn create_worktree(&self, turn: &mut Turn<'_>, origin: Origin, mode: CreateMode) {
        if let Some(worktree) = self.attempt.workspace.worktree() {
            let worktree = Box::new(worktree.clone());
            turn.begin(Operation::CreateWorktree { worktree, origin, mode });
        }
    }
}

/// Says how a checkout ended that did not end well, and what it had said.
fn said(config: &Config, record: &ExecutionRecord) -> String {
    let who = "git, or a hook or filter that it ran for the checkout,";
    let how = match record.outcome {
        Some(Outcome::Exited { code }) => format!("{who} failed with code {code}"),
        Some(Outcome::Signaled { signal }) => format!("{who} died from signal {signal}"),
        Some(Outcome::TimedOut { .. }) => {
            let seconds = config.git_timeout_ms / 1_000;
            format!("{who} did not end within {seconds} s and was stopped")
        }
        Some(Outcome::Stopped { .. } | Outcome::Completed { .. }) => format!("{who} was stopped"),
        Some(Outcome::NotStarted { .. }) => format!("{who} was not started"),
        Some(Outcome::Lost { .. }) | None => format!("{who} was lost"),
    };
    match record.preview.as_ref().or(record.message.as_ref()).map(|said| said.trim()) {
        Some(said) if !said.is_empty() => format!("{how}: {said}"),
        Some(_) | None => how,
    }
}
