//! Requests that change an attempt's worktree or its snapshots: what must be found out before a machine is asked.

use windlass_core::attempt::{FollowUpChange, Request, State};
use windlass_core::driver::Ports;
use windlass_core::id::{AttemptId, FollowUpId};
use windlass_core::process_store::{Lease, Revision};
use windlass_core::record::{AttemptRecord, AttemptStatus, CommitPolicy, NewAttempt};
use windlass_core::snapshot::{SnapshotCause, SnapshotNumber, SnapshotRecord, snapshot_id};
use windlass_core::time::Timestamp;
use windlass_core::vcs_worktree::{Removal, VcsWorktreeError};
use windlass_core::workspace::{Workspace, Worktree};

use super::Host;
use super::command::{Answer, Pending, Subject};
use super::prelude::{Loaded, on_attempt, refuse_closed_task_of, worktree_error};
use super::records::{load_attempt, read};
use crate::error::{EngineError, RefusalCode};
use crate::request::{Caller, PullRequestChange, RemoveOptions};
use crate::runtime::Runtime;

/// What is to be changed.
pub(crate) enum Change {
    /// Save and remove the worktree.
    Remove { options: RemoveOptions, cause: SnapshotCause },
    /// The same by the safe rules, unless something has happened since.
    RemoveIdle { since: Revision },
    /// Make a record of a worktree that has none, save it and remove it.
    RemoveOrphan { worktree: Box<Worktree> },
    /// Go on with the removal of a worktree that counts as removed.
    EndRemoval { worktree: Box<Worktree> },
    /// Make the worktree again.
    Restore { snapshot: Option<SnapshotNumber> },
    /// Remove a snapshot.
    RemoveSnapshot { number: SnapshotNumber, force: bool },
    /// Change a message that waits.
    FollowUp { follow_up: FollowUpId, version: Option<Revision>, change: FollowUpChange },
    /// Hold the queue, or let it flow.
    HoldQueue { held: bool },
    /// Look whether the worktree is gone, and note it.
    SetMissing,
    /// Note whether the worktree stays.
    SetKeep { keep: bool },
    /// Change the branch that the work is meant for.
    SetTarget { target: String },
    /// Note a pull request.
    SetPullRequest { change: PullRequestChange },
}

/// A change that can be asked for.
pub(super) struct Changed {
    pub(super) loaded: Loaded,
    /// The worktree of an attempt that has no record yet.
    pub(super) orphan: Option<Box<Worktree>>,
    /// The revision that the attempt must still be at.
    pub(super) since: Option<Revision>,
    pub(super) request: Request,
}

/// Finds out what a change needs.
pub(super) async fn prepare(
    ports: &Ports,
    caller: &Caller,
    attempt: AttemptId,
    change: Change,
) -> Result<Changed, EngineError> {
    let change = match change {
        Change::RemoveOrphan { worktree } => return orphan(ports, attempt, worktree).await,
        change => change,
    };
    let loaded = on_attempt(ports, caller, attempt).await?;
    let mut since = None;
    let request = match change {
        Change::Remove { options, cause } => removal(options, cause),
        Change::RemoveIdle { since: revision } => {
            since = Some(revision);
            removal(RemoveOptions::default(), SnapshotCause::Removal)
        }
        Change::RemoveOrphan { .. } => removal(RemoveOptions::default(), SnapshotCause::Orphan),
        // Its machine knows of it.
        Change::EndRemoval { .. } if is_half_removed(&loaded) => {
            removal(RemoveOptions::default(), SnapshotCause::Removal)
        }
        Change::EndRemoval { worktree } => {
            end_removal(ports, &loaded, &worktree).await?;
            // All that its record could say, it says already.
            Request::SetMissing { missing: false }
        }
        Change::Restore { snapshot: None } => {
            Request::Restore { snapshot: None, missing: is_missing(ports, &loaded).await }
        }
        Change::Restore { snapshot: Some(number) } => {
            let snapshot = Some(Box::new(snapshot(ports, attempt, number).await?.snapshot));
            Request::Restore { snapshot, missing: false }
        }
        Change::RemoveSnapshot { number, force } => {
            snapshot(ports, attempt, number).await?;
            Request::RemoveSnapshot { number, force }
        }
        Change::FollowUp { follow_up, version, change } => {
            Request::ChangeFollowUp { follow_up, version, change }
        }
        Change::HoldQueue { held } => {
            if !held {
                refuse_closed_task_of(ports, &loaded).await?;
            }
            Request::HoldQueue { held }
        }
        Change::SetMissing => Request::SetMissing { missing: is_missing(ports, &loaded).await },
        Change::SetKeep { keep } => Request::SetKeep { keep },
        Change::SetTarget { target } => Request::SetTarget { target },
        Change::SetPullRequest { change: PullRequestChange { url, state } } => {
            Request::SetPullRequest { url, state }
        }
    };
    Ok(Changed { loaded, orphan: None, since, request })
}

fn removal(options: RemoveOptions, cause: SnapshotCause) -> Request {
    let RemoveOptions { force, discard_unsaved, delete_branch } = options;
    Request::Remove { force, discard_unsaved, delete_branch, cause }
}

/// Says whether a removal failed after the work was saved.
fn is_half_removed(loaded: &Loaded) -> bool {
    loaded.state.as_ref().is_some_and(|state| state.attempt().half_removed.is_some())
}

/// Ends the removal of a worktree whose attempt's record says that it is over. What is there was saved, and goes only as it
/// was saved: nothing is left for the attempt's machine to decide. One that is made again meanwhile is refused by the port.
async fn end_removal(
    ports: &Ports,
    loaded: &Loaded,
    worktree: &Worktree,
) -> Result<(), EngineError> {
    let status = loaded.state.as_ref().map(|state| state.attempt().status);
    if status != Some(AttemptStatus::Removed) {
        let reason = format!("{} does not say that it was removed", loaded.attempt.short());
        return Err(EngineError::refused(RefusalCode::WrongState, reason));
    }
    let removed = ports.worktrees.remove(loaded.attempt, worktree, Removal::Worktree).await;
    removed.map_err(worktree_error)
}

/// Looks once more whether a worktree without a record really has none.
async fn orphan(
    ports: &Ports,
    attempt: AttemptId,
    worktree: Box<Worktree>,
) -> Result<Changed, EngineError> {
    if load_attempt(ports, attempt).await?.is_some() {
        let reason = format!("{} has a record", attempt.short());
        return Err(EngineError::refused(RefusalCode::WrongState, reason));
    }
    let loaded = Loaded { attempt, state: None };
    let request = removal(RemoveOptions::default(), SnapshotCause::Orphan);
    Ok(Changed { loaded, orphan: Some(worktree), since: None, request })
}

/// Says whether an attempt that should have a worktree has none.
async fn is_missing(ports: &Ports, loaded: &Loaded) -> bool {
    let Some(record) = loaded.state.as_ref().map(State::attempt) else { return false };
    let Some(worktree) = record.workspace.worktree() else { return false };
    let verified = ports.worktrees.verify(loaded.attempt, worktree).await;
    matches!(verified, Err(VcsWorktreeError::Gone { .. }))
}

async fn snapshot(
    ports: &Ports,
    attempt: AttemptId,
    number: SnapshotNumber,
) -> Result<SnapshotRecord, EngineError> {
    let found = read::<SnapshotRecord>(ports, snapshot_id(attempt, number)).await?;
    let missing = || {
        let reason = format!("{} has no snapshot {number}", attempt.short());
        EngineError::refused(RefusalCode::NoSnapshot, reason)
    };
    found.map(|(record, _)| record).ok_or_else(missing)
}

impl<R: Runtime> Host<R> {
    /// Asks an attempt's machine for a change.
    pub(super) fn begin_change(
        &mut self,
        attempt: AttemptId,
        changed: Changed,
        answer: Answer<()>,
    ) {
        let Changed { loaded, orphan, since, request } = changed;
        self.insert(loaded);
        if let Some(worktree) = orphan
            && !self.machines.contains_key(&attempt)
        {
            let at = self.parts.runtime.now();
            self.machines.insert(attempt, machine_of_orphan(self.lease, attempt, *worktree, at));
        }
        let revision = self.machines.get(&attempt).map(State::revision);
        // What runs beside a chain changes nothing about its attempt's record.
        let runs = self.machines.get(&attempt).is_some_and(State::has_executions);
        if since.is_some() && (since != revision || runs) {
            let reason = "something has happened in it meanwhile";
            let _gone = answer.send(Err(EngineError::refused(RefusalCode::WrongState, reason)));
            return;
        }
        self.ask(attempt, request, Pending::Done(answer, Subject::Attempt));
    }
}

/// Makes the machine of a worktree whose record was lost. Its record is written with the claim, so that what is saved of it
/// can be found and made again like any other.
pub(super) fn machine_of_orphan(
    lease: Lease,
    attempt: AttemptId,
    worktree: Worktree,
    at: Timestamp,
) -> State {
    let mut record = AttemptRecord::new(NewAttempt {
        id: attempt,
        title: format!("found without a record: {}", worktree.branch),
        owner: None,
        workspace: Workspace::Worktree(worktree),
        commit: CommitPolicy::Keep,
        node: lease.node,
        host: lease.host,
        epoch: lease.epoch,
        at,
    });
    record.status = AttemptStatus::Held;
    State::new(record)
}
