//! What is done with the commits of an attempt: merge, rebase, abort, push.
//!
//! It is recorded before anything is planned, planned by the port, recorded with what it is about, and runs as a git execution;
//! what came of it is looked at afterwards. The attempt counts as committing meanwhile, so that nothing starts in its workspace.

use super::{
    Operation, Refusal, RefusalCode, Reply, RequestId, State, Tracked, Turn, WorkspaceStep,
};
use crate::id::ExecutionId;
use crate::outcome::Outcome;
use crate::process_store::Revision;
use crate::record::{AttemptStatus, HalfMerged, Hold, Integration, PullRequest, PullRequestState};
use crate::snapshot::SnapshotNumber;
use crate::vcs_history::{Begun, Conclusion, HistoryPlan, HistoryRequest, HistoryWork};
use crate::vcs_worktree::{SaveFrom, SaveRequest, Unfinished};
use crate::workspace::Workspace;

/// How many pull requests are kept of an attempt; older ones are forgotten.
const PULL_REQUESTS: usize = 32;

/// How often it is tried where the execution was lost.
const INTEGRATION_TRIES: u32 = 2;

impl State {
    /// Says whether an execution does something with the attempt's commits.
    pub(super) fn integrates(&self, id: ExecutionId) -> bool {
        self.integration().is_some_and(|integration| integration.execution == Some(id))
    }

    pub(super) fn integration(&self) -> Option<&Integration> {
        self.attempt.history.integration.as_ref()
    }

    /// Says what is being done with the attempt's commits, if anything is.
    pub(super) fn is_integrating(&self) -> Option<String> {
        let doing = match self.integration()?.work {
            HistoryWork::Merge { .. } => "its work is being merged",
            HistoryWork::Rebase { .. } | HistoryWork::Continue => "it is being rebased",
            HistoryWork::Abort => "what is in progress in its worktree is being given up",
            HistoryWork::Push { .. } => "its branch is being pushed",
        };
        Some(doing.to_owned())
    }

    /// The same of what must not be disturbed by anything that starts beside it. A push looks at the branch alone.
    pub(super) fn is_rewriting(&self) -> Option<String> {
        let pushes = |it: &Integration| matches!(it.work, HistoryWork::Push { .. });
        if self.integration().is_some_and(pushes) { None } else { self.is_integrating() }
    }

    pub(super) fn on_integrate(
        &mut self,
        turn: &mut Turn<'_>,
        request: RequestId,
        work: HistoryWork,
    ) {
        if self.attempt.workspace.worktree().is_none() {
            let message = "the attempt runs in a directory of yours, not in a worktree";
            turn.refuse(request, RefusalCode::NotAWorktree, message);
            return;
        }
        if let Some(message) = self.workspace_gone() {
            turn.refuse(request, RefusalCode::WorkspaceGone, message);
            return;
        }
        if self.integration().is_some_and(|integration| integration.work == work) {
            // The same request once more, before the first one was heard of.
            self.integrating.push(request);
            return;
        }
        let in_the_way = match &work {
            // Who works beside the chain sees no difference.
            HistoryWork::Merge { .. } | HistoryWork::Push { .. } => self.is_chain_busy(),
            HistoryWork::Rebase { .. } | HistoryWork::Continue | HistoryWork::Abort => {
                self.is_busy().or_else(|| self.is_chain_busy())
            }
        };
        if let Some(message) = in_the_way {
            turn.refuse(request, RefusalCode::Busy, message);
            return;
        }
        self.integrating.push(request);
        self.attempt.history.integration = Some(Integration {
            work,
            from: self.attempt.status,
            at: turn.at,
            saved: false,
            begun: None,
            execution: None,
            tries: 0,
        });
        self.attempt.status = AttemptStatus::Committing;
        turn.attempt_changed = true;
        self.plan_integration(turn);
    }

    /// Says what keeps the commits from being looked at, if anything does.
    fn is_chain_busy(&self) -> Option<String> {
        if let Some(doing) = self.is_integrating() {
            return Some(doing);
        }
        let active = self.chain_is_active()
            || self.attempt.status == AttemptStatus::Creating
            || self.workspace_step != WorkspaceStep::Idle;
        active.then(|| "its chain is still active".to_owned())
    }

    /// Finds out how to do what is to be done; also after a restart, when the answer was lost.
    fn plan_integration(&mut self, turn: &mut Turn<'_>) {
        // A dev server is nobody's work. Its end goes on with this, and may have done so at once.
        if self.is_rewriting().is_some()
            && (!self.stop_servers(turn) || self.workspace_step != WorkspaceStep::Idle)
        {
            return;
        }
        let Some(worktree) = self.attempt.workspace.worktree().cloned() else { return };
        let Some(integration) = &mut self.attempt.history.integration else { return };
        if integration.work == HistoryWork::Abort && !integration.saved {
            // What was done about the conflicts would be gone.
            self.workspace_step = WorkspaceStep::Saving;
            let number = SnapshotNumber(self.attempt.last_snapshot).next();
            let request = SaveRequest {
                from: SaveFrom::Place,
                unfinished: Unfinished::Save,
                ..SaveRequest::before_removal(number)
            };
            turn.begin(Operation::Save { worktree: Box::new(worktree), request });
            return;
        }
        integration.tries += 1;
        integration.execution = None;
        turn.attempt_changed = true;
        self.workspace_step = WorkspaceStep::Integrating;
        if let Some(request) = self.history_request(turn) {
            let (worktree, request) = (Box::new(worktree), Box::new(request));
            turn.begin(Operation::PlanHistory { worktree, request });
        }
    }

    fn history_request(&self, turn: &Turn<'_>) -> Option<HistoryRequest> {
        let history = &self.attempt.history;
        let Integration { work, begun, at, .. } = history.integration.clone()?;
        let before = history.half_merged.as_ref().filter(
            |half| matches!(&work, HistoryWork::Merge { target, .. } if *target == half.target),
        );
        Some(HistoryRequest {
            begun: begun.or_else(|| before.map(|half| half.begun.clone())),
            work,
            fallback: turn.config.identity.clone(),
            at,
            merged: history.merged.clone(),
        })
    }

    /// Says whether what is being saved is what an abort would undo.
    pub(super) fn saves_for_abort(&self) -> bool {
        self.workspace_step == WorkspaceStep::Saving
            && self.integration().is_some_and(|integration| !integration.saved)
    }

    /// Goes on after what an abort would undo is saved, or could not be.
    pub(super) fn abort_is_saved(&mut self, turn: &mut Turn<'_>, refusal: Option<Refusal>) {
        self.workspace_step = WorkspaceStep::Idle;
        match refusal {
            Some(refusal) => self.end_integration(turn, Reply::Refused(refusal)),
            None if self.is_called_off() => self.call_integration_off(turn),
            None => {
                if let Some(integration) = &mut self.attempt.history.integration {
                    integration.saved = true;
                }
                turn.attempt_changed = true;
                self.plan_integration(turn);
            }
        }
    }

    /// Goes on after the dev servers are dead that it waited for.
    pub(super) fn integrate_without_servers(&mut self, turn: &mut Turn<'_>) {
        if !self.integration_waits() {
            return;
        }
        if self.is_called_off() {
            self.call_integration_off(turn);
        } else {
            self.plan_integration(turn);
        }
    }

    /// Says whether nothing was begun of it yet, because dev servers end.
    fn integration_waits(&self) -> bool {
        self.workspace_step == WorkspaceStep::Idle
            && self.is_rewriting().is_some()
            && self.integration().is_some_and(|integration| integration.execution.is_none())
    }

    /// Gives up what waits for a dev server of which nobody can tell whether it runs.
    pub(super) fn give_up_integration(&mut self, turn: &mut Turn<'_>, message: &str) {
        if self.integration_waits() {
            let (code, message) = (RefusalCode::Busy, message.to_owned());
            self.end_integration(turn, Reply::Refused(Refusal { code, message }));
        }
    }

    /// Says whether nothing of it is to begin any more.
    fn is_called_off(&self) -> bool {
        self.attempt.chain_stopped || self.attempt.claim.is_some()
    }

    fn call_integration_off(&mut self, turn: &mut Turn<'_>) {
        let message = "it was stopped before anything was done".to_owned();
        self.end_integration(turn, Reply::Refused(Refusal { code: RefusalCode::Busy, message }));
    }

    pub(super) fn on_history_planned(
        &mut self,
        turn: &mut Turn<'_>,
        id: ExecutionId,
        plan: HistoryPlan,
    ) {
        if self.workspace_step != WorkspaceStep::Integrating {
            return;
        }
        self.workspace_step = WorkspaceStep::Idle;
        match plan {
            HistoryPlan::Done(conclusion) => self.conclude_integration(turn, None, conclusion),
            HistoryPlan::Run { .. } if self.is_called_off() => self.call_integration_off(turn),
            HistoryPlan::Run { step, begun } => {
                let record = self.git_execution(turn, id, step, None);
                let Some(integration) = &mut self.attempt.history.integration else { return };
                integration.execution = Some(id);
                integration.begun = Some(begun);
                turn.attempt_changed = true;
                // It needs no slot.
                self.executions.insert(id, Tracked::new(record, Revision(0), true));
                turn.touch(id);
                self.begin_prepare(turn, id);
            }
        }
    }

    pub(super) fn on_history_refused(&mut self, turn: &mut Turn<'_>, refusal: Refusal) {
        if self.workspace_step == WorkspaceStep::Integrating {
            self.workspace_step = WorkspaceStep::Idle;
            self.end_integration(turn, Reply::Refused(refusal));
        }
    }

    /// Looks what came of it once its execution is final.
    pub(super) fn integration_step_ended(&mut self, turn: &mut Turn<'_>) {
        let outcome = self.integration_outcome();
        let pushed = match self.integration().and_then(|integration| integration.begun.clone()) {
            Some(Begun::Push { remote, branch, head }) => {
                let well = outcome.is_some_and(|outcome| outcome.ended_well());
                let pushed = Conclusion::Pushed { remote, branch, head };
                Some(if well { pushed } else { Conclusion::NotDone })
            }
            Some(Begun::Merge { .. } | Begun::Rebase { .. } | Begun::Abort) | None => None,
        };
        if let Some(conclusion) = pushed {
            self.on_integrated(turn, conclusion);
            return;
        }
        let (Some(worktree), Some(request)) =
            (self.attempt.workspace.worktree(), self.history_request(turn))
        else {
            return;
        };
        self.workspace_step = WorkspaceStep::Integrating;
        let (worktree, request) = (Box::new(worktree.clone()), Box::new(request));
        turn.begin(Operation::ConcludeHistory { worktree, request });
    }

    fn integration_outcome(&self) -> Option<Outcome> {
        let id = self.integration()?.execution?;
        self.executions.get(&id)?.record.outcome
    }

    pub(super) fn on_history_concluded(&mut self, turn: &mut Turn<'_>, conclusion: Conclusion) {
        if self.workspace_step == WorkspaceStep::Integrating {
            self.workspace_step = WorkspaceStep::Idle;
            self.on_integrated(turn, conclusion);
        }
    }

    fn on_integrated(&mut self, turn: &mut Turn<'_>, conclusion: Conclusion) {
        let Some(integration) = self.integration() else { return };
        let execution = integration.execution;
        let record = execution.and_then(|id| self.executions.get(&id)).map(|it| &it.record);
        if conclusion != Conclusion::NotDone {
            self.conclude_integration(turn, execution, conclusion);
            return;
        }
        let stopped = self.is_called_off() || record.is_some_and(|record| record.stop.is_some());
        let lost = matches!(self.integration_outcome(), Some(Outcome::Lost { .. }));
        if lost && !stopped && integration.tries < INTEGRATION_TRIES {
            // Nobody knows how far it came: the plan looks.
            self.plan_integration(turn);
            return;
        }
        let said = record.map(|record| super::git_step::said(turn, record)).unwrap_or_default();
        let more = execution.map(|id| format!(" (windlass logs {} has all of it)", id.short()));
        let why = if stopped { "it was stopped: " } else { "" };
        let part = match &integration.work {
            HistoryWork::Merge { target, .. } => {
                format!("; if a checkout of {target} has a part of it, merging again ends it")
            }
            HistoryWork::Rebase { .. }
            | HistoryWork::Continue
            | HistoryWork::Abort
            | HistoryWork::Push { .. } => String::new(),
        };
        let message = format!("{why}{}{}{part}", said.trim(), more.unwrap_or_default());
        let code = if stopped { RefusalCode::Busy } else { RefusalCode::Failed };
        self.end_integration(turn, Reply::Refused(Refusal { code, message }));
    }

    /// Records what came of it.
    fn conclude_integration(
        &mut self,
        turn: &mut Turn<'_>,
        execution: Option<ExecutionId>,
        conclusion: Conclusion,
    ) {
        match &conclusion {
            Conclusion::Merged(merged) => {
                // What was merged once and is found there again is as merged as it was.
                if self.attempt.history.merged.as_ref() != Some(merged) {
                    self.attempt.history.merged = Some(merged.clone());
                    self.attempt.merged_at = Some(turn.at);
                }
                let ended = |half: &HalfMerged| half.target == merged.target;
                if self.attempt.history.half_merged.as_ref().is_some_and(ended) {
                    self.attempt.history.half_merged = None;
                }
            }
            Conclusion::Rebased { head, onto } => {
                self.attempt.head = Some(head.clone());
                if let Workspace::Worktree(worktree) = &mut self.attempt.workspace {
                    // Its own commits are those since then.
                    worktree.base_oid = onto.clone();
                }
            }
            Conclusion::Aborted { head } => self.attempt.head = Some(head.clone()),
            Conclusion::Conflicts { .. } | Conclusion::Pushed { .. } | Conclusion::NotDone => {}
        }
        self.end_integration(turn, Reply::Integrated { execution, conclusion });
    }

    /// Goes back to how the attempt was before, and answers.
    fn end_integration(&mut self, turn: &mut Turn<'_>, reply: Reply) {
        let Some(integration) = self.attempt.history.integration.take() else { return };
        if let (HistoryWork::Merge { target, .. }, Some(begun), Reply::Refused(_)) =
            (integration.work, integration.begun, &reply)
        {
            self.attempt.history.half_merged = Some(HalfMerged { target, begun });
        }
        if self.attempt.claim.is_some() {
            self.attempt.claimed_from = Some(integration.from);
        } else {
            self.attempt.status = integration.from;
        }
        let stopped = std::mem::take(&mut self.attempt.chain_stopped);
        turn.attempt_changed = true;
        if stopped && self.attempt.queue > 0 && !self.holds() {
            self.hold_queue(turn, Hold::Stopped);
        }
        for request in std::mem::take(&mut self.integrating) {
            turn.reply(request, reply.clone());
        }
        self.go_on_removing(turn);
        self.take_follow_up(turn);
    }

    pub(super) fn on_set_target(
        &mut self,
        turn: &mut Turn<'_>,
        request: RequestId,
        target: String,
    ) {
        match &mut self.attempt.workspace {
            Workspace::Worktree(worktree) if worktree.branch == target => {
                let message = format!("{target:?} is the branch that the work is on");
                turn.refuse(request, RefusalCode::NoTarget, message);
            }
            Workspace::Worktree(worktree) => {
                turn.attempt_changed |= worktree.target.as_ref() != Some(&target);
                worktree.target = Some(target);
                turn.reply(request, Reply::Accepted);
            }
            Workspace::Directory { .. } => {
                let message = "the attempt runs in a directory of yours, not in a worktree";
                turn.refuse(request, RefusalCode::NotAWorktree, message);
            }
        }
    }

    pub(super) fn on_set_pull_request(
        &mut self,
        turn: &mut Turn<'_>,
        request: RequestId,
        url: String,
        state: Option<PullRequestState>,
    ) {
        let known = &mut self.attempt.history.pull_requests;
        let before = known.iter().position(|known| known.url == url);
        match (before, state) {
            (Some(at), None) => drop(known.remove(at)),
            (Some(at), Some(state)) => known[at] = PullRequest { url, state, at: turn.at },
            (None, Some(state)) => {
                known.push(PullRequest { url, state, at: turn.at });
                let too_many = known.len().saturating_sub(PULL_REQUESTS);
                drop(known.drain(..too_many));
            }
            (None, None) => {}
        }
        turn.attempt_changed = true;
        turn.reply(request, Reply::Accepted);
    }

    /// Goes on after a restart; nobody who asked waits any more.
    pub(super) fn go_on_integrating(&mut self, turn: &mut Turn<'_>) {
        if self.workspace_step == WorkspaceStep::Integrating {
            return;
        }
        match self.integration().map(|integration| integration.execution) {
            // It is being adopted.
            Some(Some(id)) if self.is_active(id) => {}
            Some(Some(_)) => self.integration_step_ended(turn),
            Some(None) if self.is_called_off() => self.call_integration_off(turn),
            Some(None) => self.plan_integration(turn),
            None => {}
        }
    }
}
