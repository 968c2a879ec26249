//! The chain: what follows when one of its executions is final, and how its work is committed.

use super::{
    Operation, Refusal, RefusalCode, Reply, RequestId, Slot, State, Tracked, Turn, WorkspaceStep,
};
use crate::action::{
    Action, ActionKind, Leftovers, OutputMode, RunOptions, RunReason, Stdin, TimeLimits,
};
use crate::id::ExecutionId;
use crate::outcome::Outcome;
use crate::process_store::Revision;
use crate::record::{AttemptStatus, CommitPolicy, ExecutionRecord, NewExecution, Reason};
use crate::vcs_worktree::GitStep;
use crate::workspace::{Oid, Worktree};

/// How often a commit whose execution was lost is tried.
const COMMIT_TRIES: u32 = 2;

/// How much is kept of what git and its hooks say.
const GIT_LOG_BYTES: u64 = 64 << 20;

impl State {
    /// Says whether an execution of the chain is not final or its work is being committed.
    pub(super) fn chain_is_active(&self) -> bool {
        self.attempt.status == AttemptStatus::Committing
            || self.attempt.chain.is_some_and(|id| self.is_active(id))
    }

    /// Goes on after the active execution of the chain is final.
    pub(super) fn chain_step_ended(&mut self, turn: &mut Turn<'_>, id: ExecutionId) {
        let Some(tracked) = self.executions.get(&id) else { return };
        let record = &tracked.record;
        if record.action.run_reason == RunReason::Git {
            self.commit_ended(turn, id);
            return;
        }
        // One that ran while no host was there is heard of at its end.
        self.note_chain_start(turn, id);
        let Some(tracked) = self.executions.get(&id) else { return };
        let record = &tracked.record;
        let well = record.outcome.is_some_and(|outcome| outcome.ended_well());
        let commits = self.attempt.commit == CommitPolicy::Commit
            && self.attempt.workspace.worktree().is_some();
        if self.attempt.chain_stopped && !planted!(CommittedAfterStop) {
            self.end_badly(turn, Reason::Stopped);
        } else if !well && !planted!(CommittedAfterFailure) {
            self.end_badly(turn, Reason::EndedBadly { execution: id });
        } else if commits && self.attempt.claim.is_none() {
            let message = default_message(record, &self.attempt.title);
            self.attempt.commit_tries = 0;
            self.begin_commit(turn, Some(id), message);
        } else {
            self.finalise(turn, None);
        }
    }

    /// Notes that the chain has begun, with the first of its own executions that began to run. Git steps are no work.
    pub(super) fn note_chain_start(&mut self, turn: &mut Turn<'_>, id: ExecutionId) {
        let Some(tracked) = self.executions.get(&id) else { return };
        let works = match tracked.record.action.run_reason {
            RunReason::Setup | RunReason::Agent | RunReason::Cleanup => true,
            RunReason::DevServer | RunReason::Background | RunReason::Git => false,
        };
        if !works {
            return;
        }
        if self.attempt.chain_started_at.is_none() && tracked.record.started_at.is_some() {
            self.attempt.chain_started_at = tracked.record.started_at;
            turn.attempt_changed = true;
        }
    }

    /// Ends the chain: exactly once, in the batch of what ended it.
    pub(super) fn finalise(&mut self, turn: &mut Turn<'_>, reason: Option<Reason>) {
        // That it could not be removed keeps nobody from going on with it.
        let held = !matches!(reason, None | Some(Reason::RemoveFailed { .. }));
        if reason.is_none() {
            self.attempt.not_saved = None;
        }
        self.attempt.reason = reason;
        self.attempt.chain = None;
        self.attempt.committing = None;
        self.attempt.commit_message = None;
        self.attempt.chain_stopped = false;
        if self.attempt.chain_started_at.take().is_some() {
            self.attempt.finalised_at = Some(turn.at);
        }
        let status = if held { AttemptStatus::Held } else { AttemptStatus::Finished };
        if self.attempt.claim.is_some() {
            self.attempt.claimed_from = Some(status);
        } else if !matches!(
            self.attempt.status,
            // What is still being made is looked after to its end, by the next host too.
            AttemptStatus::Failed | AttemptStatus::Creating
        ) {
            self.attempt.status = status;
        }
        turn.attempt_changed = true;
        // Released even if it was only asked for: admission forgets a waiting slot too.
        let slot = Slot::Chain(self.attempt.id);
        self.release(turn, slot);
    }

    pub(super) fn begin_commit(
        &mut self,
        turn: &mut Turn<'_>,
        of: Option<ExecutionId>,
        message: String,
    ) {
        let Some(worktree) = self.attempt.workspace.worktree().cloned() else { return };
        self.attempt.status = AttemptStatus::Committing;
        self.attempt.committing = of;
        self.attempt.commit_message = Some(message);
        self.attempt.commit_tries += 1;
        turn.attempt_changed = true;
        self.plan_commit(turn, worktree);
    }

    /// Finds out how to commit; also after a restart, when the answer was lost.
    pub(super) fn plan_commit(&mut self, turn: &mut Turn<'_>, worktree: Worktree) {
        self.workspace_step = WorkspaceStep::Planning;
        let message = self.attempt.commit_message.clone().unwrap_or_default();
        let identity = turn.config.identity.clone();
        let worktree = Box::new(worktree);
        turn.begin(Operation::PlanCommit { worktree, message, identity });
    }

    pub(super) fn on_commit(&mut self, turn: &mut Turn<'_>, request: RequestId, message: String) {
        if self.attempt.workspace.worktree().is_none() {
            let message = "the attempt runs in a directory of yours, not in a worktree";
            turn.refuse(request, RefusalCode::NotAWorktree, message);
        } else if let Some(message) = self.workspace_gone() {
            turn.refuse(request, RefusalCode::WorkspaceGone, message);
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

    pub(super) fn on_commit_planned(
        &mut self,
        turn: &mut Turn<'_>,
        clean: Option<Oid>,
        step: Option<(ExecutionId, GitStep)>,
    ) {
        if self.workspace_step != WorkspaceStep::Planning {
            return;
        }
        self.workspace_step = WorkspaceStep::Idle;
        match step {
            Some(_)
                if (self.attempt.chain_stopped && !planted!(CommittedAfterStop))
                    || self.attempt.claim.is_some() =>
            {
                let message = "it was stopped before anything was committed".to_owned();
                let refusal = Refusal { code: RefusalCode::Busy, message };
                self.answer_commit(turn, &Reply::Refused(refusal));
                self.end_badly(turn, Reason::Stopped);
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
            None => {
                self.answer_commit(turn, &Reply::Clean);
                self.attempt.head = clean.or(self.attempt.head.take());
                // A commit that somebody asked for does away with the reason; that there was nothing to commit does not.
                let asked_for = self.attempt.committing.is_none();
                let reason = self.attempt.reason.take().filter(|_| asked_for);
                self.finalise(turn, reason);
            }
        }
        self.go_on_removing(turn);
    }

    pub(super) fn on_commit_refused(&mut self, turn: &mut Turn<'_>, message: String) {
        if self.workspace_step != WorkspaceStep::Planning {
            return;
        }
        self.workspace_step = WorkspaceStep::Idle;
        let refusal = Refusal { code: RefusalCode::Failed, message: message.clone() };
        self.answer_commit(turn, &Reply::Refused(refusal));
        self.end_badly(turn, Reason::CommitFailed { output: message, execution: None });
        self.go_on_removing(turn);
    }

    /// Goes on after the git execution that commits is final.
    fn commit_ended(&mut self, turn: &mut Turn<'_>, id: ExecutionId) {
        let Some(tracked) = self.executions.get(&id) else { return };
        let record = &tracked.record;
        let (outcome, head) = (record.outcome, record.after_head.clone());
        let moved = head.is_some() && head != record.before_head;
        match outcome {
            Some(outcome) if outcome.ended_well() => {
                let committed = head.filter(|_| moved);
                self.record_commit(turn, id, committed);
                self.finalise(turn, None);
            }
            // Nobody knows how far it came: look, and try once more.
            Some(Outcome::Lost { .. })
                if self.attempt.commit_tries < COMMIT_TRIES && !self.attempt.chain_stopped =>
            {
                if moved {
                    self.record_commit(turn, id, head);
                }
                let of = self.attempt.committing;
                let message = self.attempt.commit_message.clone().unwrap_or_default();
                self.begin_commit(turn, of, message);
            }
            Some(_) | None => {
                let said = record.preview.clone().or(record.message.clone());
                let output = match (said, outcome) {
                    (said, Some(Outcome::TimedOut { .. })) => {
                        let seconds = turn.config.git_timeout_ms / 1_000;
                        let said = said.unwrap_or_default();
                        format!(
                            "{said}git, or a hook of it, did not end within {seconds} s and was stopped"
                        )
                    }
                    (Some(said), _) => said,
                    (None, outcome) => {
                        let word = outcome.map_or("lost", |outcome| outcome.word().as_str());
                        format!("git said nothing and ended as {word}")
                    }
                };
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

/// Makes the message of a commit from the title and the action: a subject of at most 72 characters, then the rest.
fn default_message(record: &ExecutionRecord, title: &str) -> String {
    let title = title.trim();
    let line = title.lines().next().unwrap_or_default();
    let short = record.attempt.short();
    if line.is_empty() {
        return format!("Work of {short}\n");
    }
    let subject: String = line.chars().take(72).collect();
    let rest = title.get(subject.len()..).unwrap_or_default().trim();
    let body = if rest.is_empty() { String::new() } else { format!("\n{rest}\n") };
    format!("{subject}\n{body}\nAttempt: {short}\n")
}
