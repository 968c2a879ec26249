//! The attempt machine: what happens to one attempt and its executions, decided purely.
//!
//! [`State::step`] takes an input and a time and returns effects. It performs nothing, reads no clock, makes no id. The
//! driver performs the effects in order and feeds what happened back as facts.

mod beside;
mod chain;
mod effect;
mod ending;
mod execution;
mod follow_ups;
mod git_step;
mod input;
mod integration;
mod making;
mod recovery;
mod removal;
mod retry;
mod snapshots;
#[cfg(test)]
mod tests;
mod workspace;

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::id::{Epoch, ExecutionId, FollowUpId, HostId};
use crate::process_store::{Expect, Revision, Write};
use crate::record::{AttemptRecord, ExecutionRecord, Phase, Recorded, Removing, RequestRecord};
use crate::snapshot::SnapshotNumber;
use crate::time::Timestamp;
use crate::vcs_worktree::Identity;

pub use effect::{Effect, Operation, Refusal, RefusalCode, Reply, RequestId, Slot};
pub use follow_ups::FollowUpChange;
pub use input::{Fact, Input, Request};

/// What the machine must know and cannot decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The host that drives it.
    pub host: HostId,
    /// Its epoch.
    pub epoch: Epoch,
    /// How long a git step may take, in milliseconds.
    pub git_timeout_ms: u64,
    /// From TERM to KILL for git steps, in milliseconds.
    pub git_grace_ms: u64,
    /// How long to wait before looking again at an execution whose supervisor does not answer, in milliseconds.
    pub readopt_ms: u64,
    /// How often a launch that never ran is tried again.
    pub max_void_places: u32,
    /// Who commits are by where the repository does not say.
    pub identity: Identity,
}

/// One execution as the machine knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tracked {
    pub(crate) record: ExecutionRecord,
    /// 0: not stored yet.
    revision: Revision,
    /// A slot is held for it (its own or the chain's).
    admitted: bool,
    /// What is under way for it.
    step: ExecutionStep,
    /// Secrets were handed in while it was being prepared, perhaps too late for that.
    secrets_given: bool,
    /// Waiting for its end has failed before: it is looked at again after a pause.
    doubted: bool,
    /// This host launched it: that it never ran is the shim's doing, not that of a host that died meanwhile.
    launched_here: bool,
}

impl Tracked {
    fn new(record: ExecutionRecord, revision: Revision, admitted: bool) -> Self {
        let step = ExecutionStep::Waiting;
        let (secrets_given, doubted, launched_here) = (false, false, false);
        Self { record, revision, admitted, step, secrets_given, doubted, launched_here }
    }
}

/// What is under way for an execution. Not recorded: the phase and the evidence tell it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExecutionStep {
    /// It waits for a slot, its workspace or a secret.
    Waiting,
    /// Room is being made.
    Preparing,
    /// It is being launched.
    Launching,
    /// Its evidence is being looked at.
    Adopting,
    /// Its supervisor did not answer; to be looked at again at this time.
    Retry(Timestamp),
    /// Its outcome is awaited.
    Watching,
    /// Its end is awaited.
    Finishing,
    /// Nothing is known and nothing can be done.
    Stuck,
    /// Nothing is left to do.
    Done,
}

/// One attempt and those of its executions that are not final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    attempt: AttemptRecord,
    revision: Revision,
    executions: BTreeMap<ExecutionId, Tracked>,
    /// Messages that wait, by position, and the one that the active chain is about.
    queue: Vec<follow_ups::Message>,
    /// The worktree is being made, planned on, saved or removed.
    workspace_step: WorkspaceStep,
    /// Who waits for the end of a removal or for the plan of a commit.
    waiting: Vec<RequestId>,
    /// Who waits for the worktree to be there again.
    wanting: Vec<RequestId>,
    /// Who waits for what is being done with the commits.
    integrating: Vec<RequestId>,
    /// Snapshots that are being removed, and who waits for it.
    dropping: BTreeMap<SnapshotNumber, Vec<RequestId>>,
    /// Snapshots that were removed: whoever asked before that was known asks in vain.
    dropped: BTreeSet<SnapshotNumber>,
    /// Why a removal is given up, while the worktree is put back.
    given_up: Option<Refusal>,
    /// A creation that another host began.
    taken_over: bool,
    /// When a creation that was taken over is tried again.
    creation_again: Option<Timestamp>,
}

/// What is under way for the workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WorkspaceStep {
    Idle,
    Creating,
    /// Its files are being checked out by an execution.
    Making,
    /// That has ended.
    Concluding,
    Planning,
    Saving,
    Removing,
    PuttingBack,
    /// It is there, and is looked at and completed.
    Mending,
    /// What is to be done with its commits is being planned, or looked at afterwards.
    Integrating,
}

impl WorkspaceStep {
    /// Says whether a creation is under way and may come to its end.
    fn creates(self) -> bool {
        match self {
            Self::Creating | Self::Concluding => true,
            Self::Idle
            | Self::Making
            | Self::Planning
            | Self::Saving
            | Self::Removing
            | Self::PuttingBack
            | Self::Mending
            | Self::Integrating => false,
        }
    }
}

/// What a step leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "effects that are dropped never happen"]
pub struct Step {
    /// The state after it.
    pub state: State,
    /// What to do, in order.
    pub effects: Vec<Effect>,
}

/// Collects what a step writes and does. Writes of one step are one batch.
struct Turn<'a> {
    config: &'a Config,
    at: Timestamp,
    /// Effects that need not wait for the batch.
    before: Vec<Effect>,
    attempt_changed: bool,
    changed: Vec<ExecutionId>,
    told: Vec<FollowUpId>,
    key: Option<RequestRecord>,
    /// Writes of records that the machine does not keep.
    writes: Vec<Write>,
    /// Effects that wait for the batch.
    after: Vec<Effect>,
}

impl Turn<'_> {
    fn begin(&mut self, operation: Operation) {
        if planted!(LaunchedBeforeDurable) && matches!(operation, Operation::Launch { .. }) {
            return self.begin_at_once(operation);
        }
        self.after.push(Effect::Begin(operation));
    }

    /// Begins something that only observes and so need not wait for the batch.
    fn begin_at_once(&mut self, operation: Operation) {
        self.before.push(Effect::Begin(operation));
    }

    fn touch(&mut self, execution: ExecutionId) {
        if !self.changed.contains(&execution) {
            self.changed.push(execution);
        }
    }

    /// Says whether somebody is told that something holds.
    fn promises(&self) -> bool {
        let promise = |effect: &Effect| {
            let Effect::Reply { reply, .. } = effect else { return false };
            !matches!(reply, Reply::Refused(_))
        };
        self.after.iter().any(promise)
    }

    /// Notes that a message has changed.
    fn tell(&mut self, message: FollowUpId) {
        if !self.told.contains(&message) {
            self.told.push(message);
        }
    }

    fn reply(&mut self, request: RequestId, reply: Reply) {
        let effects =
            if planted!(AcknowledgedBeforeDurable) { &mut self.before } else { &mut self.after };
        effects.push(Effect::Reply { request, reply });
    }

    fn refuse(&mut self, request: RequestId, code: RefusalCode, message: impl Into<String>) {
        let refusal = Refusal { code, message: message.into() };
        self.reply(request, Reply::Refused(refusal));
    }
}

impl State {
    /// Makes the machine of an attempt that is not recorded yet.
    #[must_use]
    pub fn new(attempt: AttemptRecord) -> Self {
        Self::load(attempt, Revision(0), Vec::new())
    }

    /// Makes the machine from records: the attempt, those of its executions that are not final, and those that it
    /// [names](AttemptRecord::still_needed) all the same.
    #[must_use]
    pub fn load(
        attempt: AttemptRecord,
        revision: Revision,
        executions: Vec<(ExecutionRecord, Revision)>,
    ) -> Self {
        let tracked = |(record, revision): (ExecutionRecord, Revision)| {
            (record.id, Tracked::new(record, revision, false))
        };
        Self {
            attempt,
            revision,
            executions: executions.into_iter().map(tracked).collect(),
            queue: Vec::new(),
            workspace_step: WorkspaceStep::Idle,
            waiting: Vec::new(),
            wanting: Vec::new(),
            integrating: Vec::new(),
            dropping: BTreeMap::new(),
            dropped: BTreeSet::new(),
            given_up: None,
            taken_over: false,
            creation_again: None,
        }
    }

    /// Returns the attempt as it will be once all effects so far are performed.
    #[must_use]
    pub fn attempt(&self) -> &AttemptRecord {
        &self.attempt
    }

    /// Returns the attempt's revision, likewise.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Returns the executions that are not final, likewise.
    pub fn executions(&self) -> impl Iterator<Item = &ExecutionRecord> {
        self.executions.values().map(|tracked| &tracked.record)
    }

    /// Says whether an execution is not final.
    #[must_use]
    pub fn has_executions(&self) -> bool {
        self.executions().any(|record| record.phase < Phase::Final)
    }

    /// Says whether nothing is under way, so that the machine may be dropped and loaded again later.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.executions.is_empty()
            && self.workspace_step == WorkspaceStep::Idle
            && self.waiting.is_empty()
            && self.wanting.is_empty()
            && self.integrating.is_empty()
            && self.dropping.is_empty()
    }

    /// Says whether an execution is known and not final.
    fn is_active(&self, id: ExecutionId) -> bool {
        self.executions.get(&id).is_some_and(|tracked| tracked.record.phase < Phase::Final)
    }

    /// Takes one input.
    pub fn step(mut self, config: &Config, at: Timestamp, input: Input) -> Step {
        let mut turn = Turn {
            config,
            at,
            before: Vec::new(),
            attempt_changed: false,
            changed: Vec::new(),
            told: Vec::new(),
            key: None,
            writes: Vec::new(),
            after: Vec::new(),
        };
        match input {
            Input::Request { id, request } => self.on_request(&mut turn, id, request),
            Input::Fact(fact) => self.on_fact(&mut turn, fact),
        }
        self.finish(turn)
    }

    fn on_request(&mut self, turn: &mut Turn<'_>, id: RequestId, request: Request) {
        match request {
            Request::Run { execution, key, admitted } => {
                self.on_run(turn, id, *execution, key, admitted);
            }
            Request::Start { execution, key, admitted } => {
                self.on_start(turn, id, *execution, key, admitted);
            }
            Request::Retry { execution, superseded, key } => {
                self.on_retry(turn, id, *execution, superseded, key);
            }
            Request::Stop { execution, cause, grace_ms } => {
                self.on_stop(turn, id, execution, cause, grace_ms);
            }
            Request::Commit { message } => self.on_commit(turn, id, message),
            Request::Integrate { work } => self.on_integrate(turn, id, work),
            Request::SetTarget { target } => self.on_set_target(turn, id, target),
            Request::SetPullRequest { url, state } => {
                self.on_set_pull_request(turn, id, url, state);
            }
            Request::Remove { force, discard_unsaved, delete_branch, cause } => {
                let removing =
                    Removing { force, discard_unsaved, delete_branch, cause, ..Removing::SAFE };
                self.on_remove(turn, id, removing);
            }
            Request::Restore { snapshot, missing } => {
                self.on_restore(turn, id, snapshot.map(|snapshot| *snapshot), missing);
            }
            Request::RemoveSnapshot { number, force } => {
                self.on_remove_snapshot(turn, id, number, force);
            }
            Request::Send { message } => self.on_send(turn, id, *message),
            Request::ChangeFollowUp { follow_up, version, change } => {
                self.on_change_follow_up(turn, id, follow_up, version, change);
            }
            Request::HoldQueue { held } => self.on_hold_queue(turn, id, held),
            Request::SetMissing { missing } => self.on_set_missing(turn, id, missing),
            Request::SetKeep { keep } => self.on_set_keep(turn, id, keep),
        }
    }

    fn on_fact(&mut self, turn: &mut Turn<'_>, fact: Fact) {
        match fact {
            Fact::Recovered => self.on_recovered(turn),
            Fact::Woke => {
                self.on_woke(turn);
                self.on_woke_to_create(turn);
            }
            Fact::Admitted(slot) => self.on_admitted(turn, slot),
            Fact::WorktreeCreated { head } => self.on_worktree_created(turn, head),
            Fact::WorktreeNeedsStep { execution, step } => {
                self.on_worktree_needs_step(turn, execution, step);
            }
            Fact::WorktreeFailed { refusal } => self.on_worktree_failed(turn, refusal),
            Fact::Prepared { execution, place, head } => {
                self.on_prepared(turn, execution, place, head);
            }
            Fact::PrepareFailed { execution, reason, message } => {
                self.on_not_started(turn, execution, reason, message);
            }
            Fact::SecretMissing { execution, name } => {
                self.on_secret_missing(turn, execution, &name);
            }
            Fact::SecretsGiven { execution } => self.on_secrets_given(turn, execution),
            Fact::Launched { execution, launched } => self.on_launched(turn, execution, launched),
            Fact::Exited { execution, report } => self.on_exited(turn, execution, report),
            Fact::Finished { execution, report, preview, head } => {
                self.on_finished(turn, execution, report, preview, head);
            }
            Fact::Adopted { execution, adoption } => self.on_adopted(turn, execution, adoption),
            Fact::InDoubt { execution, message } => self.on_in_doubt(turn, execution, message),
            Fact::StepPlanned { nothing, step } => self.on_step_planned(turn, nothing, step),
            Fact::StepRefused { message } => self.on_step_refused(turn, message),
            Fact::HistoryPlanned { execution, plan } => {
                self.on_history_planned(turn, execution, *plan);
            }
            Fact::HistoryConcluded { conclusion } => {
                self.on_history_concluded(turn, *conclusion);
            }
            Fact::HistoryRefused { refusal } => self.on_history_refused(turn, refusal),
            Fact::WorktreeRemoved => self.on_worktree_removed(turn),
            Fact::Saved(saved) => self.on_saved(turn, *saved),
            Fact::NothingToSave => self.on_nothing_to_save(turn),
            Fact::SaveRefused { refusal } => self.on_save_refused(turn, refusal),
            Fact::RemoveRefused { refusal } => self.on_remove_refused(turn, refusal),
            Fact::SnapshotRemoved { number } => self.on_snapshot_removed(turn, number),
            Fact::SnapshotKept { number, refusal } => {
                self.on_snapshot_kept(turn, number, &refusal);
            }
        }
    }

    /// Turns what was collected into effects: what need not wait, one batch, what waits for it.
    fn finish(mut self, mut turn: Turn<'_>) -> Step {
        let mut writes = Vec::new();
        // What is promised is written under the lease, also where it holds already: a host that was superseded and has not
        // noticed knows neither what holds nor what there is.
        let writes_something = turn.key.is_some()
            || !(turn.changed.is_empty() && turn.told.is_empty() && turn.writes.is_empty());
        turn.attempt_changed |= turn.promises() && !writes_something;
        if turn.attempt_changed {
            self.attempt.host = turn.config.host;
            self.attempt.epoch = turn.config.epoch;
            writes.push(put(&self.attempt, &mut self.revision));
        }
        for id in &turn.changed {
            if let Some(tracked) = self.executions.get_mut(id) {
                writes.push(put(&tracked.record, &mut tracked.revision));
            }
        }
        for message in self.queue.iter_mut().filter(|it| turn.told.contains(&it.record.id)) {
            writes.push(put(&message.record, &mut message.revision));
        }
        writes.append(&mut turn.writes);
        if let Some(key) = turn.key.take().filter(|_| !planted!(KeyNotRecorded)) {
            writes.push(Write::Put { record: key.encode(), expect: Expect::Absent });
        }
        let mut effects = turn.before;
        if !writes.is_empty() {
            effects.push(Effect::Persist { writes });
        }
        effects.extend(turn.after);
        // The one whose work is being committed is written once more when it is; how the one that makes the worktree ended
        // is told when the creation is concluded; what another try is instead of is noted when that begins.
        let kept: Vec<_> = self.attempt.still_needed().collect();
        self.executions
            .retain(|id, tracked| tracked.record.phase != Phase::Final || kept.contains(id));
        let active = self.attempt.follow_up;
        self.queue.retain(|it| it.record.state.waits() || active == Some(it.record.id));
        Step { state: self, effects }
    }
}

/// Writes a record on top of what is stored and counts the revision up, as the store will.
fn put<T: Recorded>(value: &T, revision: &mut Revision) -> Write {
    let expect = match *revision {
        Revision(0) => Expect::Absent,
        stored => Expect::At(stored),
    };
    revision.0 += 1;
    Write::Put { record: value.encode(), expect }
}

/// The environment variable that marks the processes of an execution.
pub const EXECUTION_MARK: &str = "WINDLASS_EXECUTION_ID";

/// Returns what a digest of a request is made of: the same request gives the same digest.
#[must_use]
pub fn digest(canonical: &[u8]) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, canonical)
}
