//! Git steps: the commit of a chain's work, and the way back to a commit. Both are planned first and run as executions.

use super::{
    Operation, Refusal, RefusalCode, Reply, RequestId, State, Tracked, Turn, WorkspaceStep,
};
use crate::action::{
    Action, ActionKind, Leftovers, OutputMode, RunOptions, RunReason, Stdin, TimeLimits,
};
use crate::id::ExecutionId;
use crate::outcome::{NotStarted, Outcome};
use crate::process_store::Revision;
use crate::record::{AttemptStatus, ExecutionRecord, NewExecution, Reason};
use crate::vcs_worktree::{CHANGED_SINCE_SAVED, GitStep, GitWork};
use crate::workspace::Oid;

/// How often a git step whose execution was lost is tried.
const STEP_TRIES: u32 = 2;

/// How often a worktree is saved to be put back while somebody writes in it.
const RESET_TRIES: u32 = 5;

/// How much is kept of what git and its hooks say.
const GIT_LOG_BYTES: u64 = 64 << 20;

impl State {
    /// Commits what an execution of the chain changed.
    pub(super) fn commit_work(&mut self, turn: &mut Turn<'_>, id: ExecutionId) {
        let Some(tracked) = self.executions.get(&id) else { return };
        let message = default_message(&tracked.record, &self.attempt.title);
        self.attempt.commit_tries = 0;
        self.begin_commit(turn, Some(id), message);
    }

    fn begin_commit(&mut self, turn: &mut Turn<'_>, of: Option<ExecutionId>, message: String) {
        if self.attempt.workspace.worktree().is_none() {
            return;
        }
        self.attempt.status = AttemptStatus::Committing;
        self.attempt.committing = of;
        self.attempt.commit_message = Some(message);
        self.attempt.commit_tries += 1;
        turn.attempt_changed = true;
        self.plan_step(turn);
    }

    /// Begins to put the worktree back, now that what is in it is saved.
    pub(super) fn begin_reset(&mut self, turn: &mut Turn<'_>) {
        let first = self.attempt.commit_tries == 0;
        self.attempt.commit_tries += 1;
        if let Some(id) = self.attempt.chain.filter(|_| first) {
            self.attempt.chain_before.push(id);
        }
        turn.attempt_changed = true;
        self.plan_step(turn);
    }

    /// Says whether the worktree is being put back, so that the git step is for that.
    pub(super) fn resets(&self) -> bool {
        self.attempt.resetting.as_ref().is_some_and(|resetting| resetting.saved)
    }

    /// Finds out how to do the git step that is due; also after a restart, when the answer was lost.
    pub(super) fn plan_step(&mut self, turn: &mut Turn<'_>) {
        let Some(worktree) = self.attempt.workspace.worktree().cloned().map(Box::new) else {
            return;
        };
        self.workspace_step = WorkspaceStep::Planning;
        let work = match self.attempt.resetting.as_ref().filter(|resetting| resetting.saved) {
            Some(resetting) => GitWork::Reset { to: resetting.to.clone() },
            None => GitWork::Commit {
                message: self.attempt.commit_message.clone().unwrap_or_default(),
                fallback: turn.config.identity.clone(),
            },
        };
        turn.begin(Operation::PlanStep { worktree, work });
    }

    pub(super) fn on_commit(&mut self, turn: &mut Turn<'_>, request: RequestId, message: String) {
        if self.attempt.workspace.worktree().is_none() {
            let message = "the attempt runs in a directory of yours, not in a worktree";
            turn.refuse(request, RefusalCode::NotAWorktree, message);
        } else if let Some(message) = self.workspace_gone() {
            turn.refuse(request, RefusalCode::WorkspaceGone, message);
        } else if let Some(message) = self.is_integrating() {
            turn.refuse(request, RefusalCode::Busy, message);
        } else if self.chain_is_active()
            || self.attempt.status == AttemptStatus::Creating
            || self.workspace_step != WorkspaceStep::Idle
        {
            turn.refuse(request, RefusalCode::Busy, "its chain is still active");
        } else {
            self.waiting.push(request);
            self.attempt.commit_tries = 0;
            self.begin_commit(turn, None, message);
        }
    }

    pub(super) fn on_step_planned(
        &mut self,
        turn: &mut Turn<'_>,
        nothing: Option<Oid>,
        step: Option<(ExecutionId, GitStep)>,
    ) {
        if self.workspace_step != WorkspaceStep::Planning {
            return;
        }
        self.workspace_step = WorkspaceStep::Idle;
        // What a cleanup left half done is undone all the same; a commit and another try are bound by a stop.
        let commits = !self.resets() && !planted!(CommittedAfterStop);
        let bound = self.attempt.chain_stopped && commits || self.stays_as_it_is();
        match step {
            Some(_) if bound || self.attempt.claim.is_some() => {
                let message = "it was stopped before anything was committed".to_owned();
                let refusal = Refusal { code: RefusalCode::Busy, message };
                self.answer_commit(turn, &Reply::Refused(refusal));
                let ending = self.attempt.ending.take().filter(|_| self.resets());
                match ending {
                    Some(reason) => self.finalise(turn, Some(reason)),
                    None => self.end_badly(turn, Reason::Stopped),
                }
            }
            Some((id, step)) => {
                let record = self.git_execution(turn, id, step, self.attempt.committing);
                self.attempt.chain = Some(id);
                turn.attempt_changed = true;
                // A git step runs in the slot of the chain, or needs none.
                self.executions.insert(id, Tracked::new(record, Revision(0), true));
                turn.touch(id);
                self.answer_commit(turn, &Reply::Committing(id));
                self.begin_prepare(turn, id);
            }
            None if self.resets() => {
                self.attempt.head = nothing.or(self.attempt.head.take());
                self.reset_is_over(turn);
            }
            None => {
                self.answer_commit(turn, &Reply::Clean);
                self.attempt.head = nothing.or(self.attempt.head.take());
                match self.attempt.committing {
                    Some(of) => {
                        let head = self.attempt.head.clone();
                        self.go_on(turn, of, head);
                    }
                    // A commit that somebody asked for does away with the reason; that there was nothing to commit does not.
                    None => {
                        let reason = self.attempt.reason.take();
                        self.finalise(turn, reason);
                    }
                }
            }
        }
        self.go_on_removing(turn);
    }

    pub(super) fn on_step_refused(&mut self, turn: &mut Turn<'_>, message: String) {
        if self.workspace_step != WorkspaceStep::Planning {
            return;
        }
        self.workspace_step = WorkspaceStep::Idle;
        if self.resets() {
            let reason = Reason::ResetFailed { output: message, execution: None };
            self.finalise(turn, Some(reason));
        } else {
            let refusal = Refusal { code: RefusalCode::Failed, message: message.clone() };
            self.answer_commit(turn, &Reply::Refused(refusal));
            self.end_badly(turn, Reason::CommitFailed { output: message, execution: None });
        }
        self.go_on_removing(turn);
    }

    /// Goes on after a git step is final.
    pub(super) fn git_step_ended(&mut self, turn: &mut Turn<'_>, id: ExecutionId) {
        let Some(tracked) = self.executions.get(&id) else { return };
        let record = &tracked.record;
        let (outcome, head) = (record.outcome, record.after_head.clone());
        let moved = head.is_some() && head != record.before_head;
        let lost =
            matches!(outcome, Some(Outcome::Lost { .. })) && self.attempt.commit_tries < STEP_TRIES;
        // Its host went before it began: what it would undo may be more by now.
        let unstarted = Outcome::NotStarted { reason: NotStarted::Stopped };
        let put_off = outcome == Some(unstarted) && !self.attempt.chain_stopped;
        let changed = outcome == Some(Outcome::Exited { code: CHANGED_SINCE_SAVED })
            && self.attempt.commit_tries < RESET_TRIES;
        match outcome {
            Some(outcome) if outcome.ended_well() && self.resets() => self.reset_is_over(turn),
            Some(outcome) if outcome.ended_well() => {
                let committed = head.clone().filter(|_| moved);
                self.record_commit(turn, id, committed);
                match self.attempt.committing {
                    Some(of) => self.go_on(turn, of, head),
                    None => self.finalise(turn, None),
                }
            }
            // Nobody knows how far it came, or there is more by now: look, save, and try once more.
            Some(_)
                if (lost || put_off || changed)
                    && self.resets()
                    && self.attempt.claim.is_none() =>
            {
                self.save_again(turn);
            }
            Some(_) if lost && !self.resets() && !self.attempt.chain_stopped => {
                if moved {
                    self.record_commit(turn, id, head);
                }
                let of = self.attempt.committing;
                let message = self.attempt.commit_message.clone().unwrap_or_default();
                self.begin_commit(turn, of, message);
            }
            Some(_) | None if self.resets() => {
                let (output, execution) = (said(turn, record), Some(id));
                // The removal that it was stopped for saves what is in the worktree.
                let ending = self.attempt.ending.take().filter(|_| self.attempt.claim.is_some());
                let failed = Reason::ResetFailed { output, execution };
                self.finalise(turn, Some(ending.unwrap_or(failed)));
            }
            Some(_) | None => {
                let output = said(turn, record);
                let stopped = self.attempt.chain_stopped;
                let failed = Reason::CommitFailed { output, execution: Some(id) };
                self.end_badly(turn, if stopped { Reason::Stopped } else { failed });
            }
        }
    }

    /// Notes the commit on the git execution and asks to note it on the execution whose work it is.
    fn record_commit(&mut self, turn: &mut Turn<'_>, git: ExecutionId, committed: Option<Oid>) {
        for id in [Some(git), self.attempt.committing].into_iter().flatten() {
            if let Some(tracked) = self.executions.get_mut(&id) {
                tracked.record.committed.clone_from(&committed);
                turn.touch(id);
            }
        }
    }

    /// Makes the record of a git step that runs in the environment of another execution, if there is one.
    pub(super) fn git_execution(
        &self,
        turn: &Turn<'_>,
        id: ExecutionId,
        step: GitStep,
        like: Option<ExecutionId>,
    ) -> ExecutionRecord {
        let like = like.and_then(|id| self.executions.get(&id));
        let mut env = match like {
            Some(tracked) => tracked.record.options.env.clone(),
            None => step.base_env.into_iter().collect(),
        };
        env.extend(step.env);
        ExecutionRecord::queued(NewExecution {
            id,
            attempt: self.attempt.id,
            owner: self.attempt.owner.clone(),
            client_key: None,
            action: Action {
                kind: ActionKind::Command { argv: step.argv },
                run_reason: RunReason::Git,
                next: None,
            },
            options: RunOptions {
                env,
                secrets: Default::default(),
                stdin: Stdin::Null,
                output: OutputMode::Merged,
                leftovers: Leftovers::Stop,
                limits: TimeLimits {
                    total_ms: Some(turn.config.git_timeout_ms),
                    idle_ms: None,
                    grace_ms: turn.config.git_grace_ms,
                },
                log_cap_bytes: GIT_LOG_BYTES,
            },
            repository_lock: Some(step.repository_lock),
            cwd: step.cwd,
            at: turn.at,
        })
    }

    /// Answers who asked for a commit. Under a claim it is the removal that is waited for.
    fn answer_commit(&mut self, turn: &mut Turn<'_>, reply: &Reply) {
        if self.attempt.claim.is_none() {
            self.answer_waiting(turn, reply);
        }
    }

    pub(super) fn answer_waiting(&mut self, turn: &mut Turn<'_>, reply: &Reply) {
        for request in std::mem::take(&mut self.waiting) {
            turn.reply(request, reply.clone());
        }
    }
}

/// Tells what git and its hooks said that did not end well.
pub(super) fn said(turn: &Turn<'_>, record: &ExecutionRecord) -> String {
    let said = record.preview.clone().or(record.message.clone());
    match (said, record.outcome) {
        (said, Some(Outcome::TimedOut { .. })) => {
            let seconds = turn.config.git_timeout_ms / 1_000;
            let said = said.unwrap_or_default();
            format!("{said}git, or a hook of it, did not end within {seconds} s and was stopped")
        }
        (Some(said), _) => said,
        (None, outcome) => {
            let word = outcome.map_or("lost", |outcome| outcome.word().as_str());
            format!("git said nothing and ended as {word}")
        }
    }
}

/// Makes the message of a commit from the title and the action: a subject of at most 72 characters, then the rest.
fn default_message(record: &ExecutionRecord, title: &str) -> String {
    let title = title.trim();
    let line = title.lines().next().unwrap_or_default();
    let short = record.attempt.short();
    if record.action.run_reason == RunReason::Cleanup {
        return format!("Clean up after {short}\n");
    }
    if line.is_empty() {
        return format!("Work of {short}\n");
    }
    let subject: String = line.chars().take(72).collect();
    let rest = title.get(subject.len()..).unwrap_or_default().trim();
    let body = if rest.is_empty() { String::new() } else { format!("\n{rest}\n") };
    format!("{subject}\n{body}\nAttempt: {short}\n")
}
