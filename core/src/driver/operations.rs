//! What each operation does with the ports. Errors become facts.

use std::error::Error;
use std::time::Duration;

use super::{Ports, history};
use crate::attachments::{ATTACHMENTS, Attachment};
use crate::attempt::{EXECUTION_MARK, Fact, Operation, Refusal, RefusalCode};
use crate::container_service::{ContainerServiceError, LaunchSpec, Place};
use crate::id::{AttemptId, Epoch, ExecutionId, Nonce};
use crate::locator::OsBytes;
use crate::log_store::{From, LogKey, ReadOptions};
use crate::outcome::{NotStarted, Outcome};
use crate::port_block::PORT_BASE;
use crate::preview::preview;
use crate::record::ExecutionRecord;
use crate::vcs_worktree::{Creation, GitWork, Removal, StepPlan, VcsWorktreeError};
use crate::workspace::{Workspace, Worktree};

/// What an operation may need that only the driver can give.
#[derive(Clone, Copy, Debug)]
pub struct Fresh {
    /// Names a new place.
    pub nonce: Nonce,
    /// Names a new execution.
    pub execution: ExecutionId,
    /// The epoch of the host.
    pub epoch: Epoch,
}

/// Prints an error with its causes.
pub(crate) fn describe(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Performs one operation through the ports; returns what happened, if an attempt is to hear of it.
///
/// # Cancel safety
///
/// Dropping the returned future leaves in doubt how far it came; what it did is found again by recovery.
#[expect(clippy::too_many_lines, reason = "an arm for each operation")]
pub async fn perform(
    ports: &Ports,
    attempt: AttemptId,
    operation: Operation,
    fresh: Fresh,
) -> Option<Fact> {
    match operation {
        // The host's, never given to us.
        Operation::TakeSlot { .. } | Operation::ReleaseSlot(_) | Operation::Feed { .. } => None,
        Operation::CreateWorktree { worktree, origin, mode } => {
            Some(match ports.worktrees.create(attempt, &worktree, &origin, mode).await {
                Ok(Creation::Done(verified)) => Fact::WorktreeCreated { head: verified.head },
                Ok(Creation::Run(step)) => {
                    Fact::WorktreeNeedsStep { execution: fresh.execution, step }
                }
                Err(error) => Fact::WorktreeFailed { refusal: refusal(&error) },
            })
        }
        Operation::Prepare { execution, workspace, attachments } => {
            Some(prepare(ports, &execution, &workspace, &attachments, fresh.nonce).await)
        }
        Operation::Launch { execution, workspace, port_base, attachments } => {
            let own = own_env(ports, &execution, &workspace, port_base, &attachments);
            Some(launch(ports, &execution, own, fresh.epoch).await)
        }
        Operation::AwaitExit { execution, place } => {
            Some(match ports.containers.exited(execution, &place).await {
                Ok(report) => Fact::Exited { execution, report },
                Err(error) => Fact::InDoubt { execution, message: describe(&error) },
            })
        }
        Operation::Finish { execution, place, worktree } => {
            Some(finish(ports, attempt, execution, place, worktree.as_deref()).await)
        }
        Operation::Adopt { execution, place } => {
            Some(match ports.containers.adopt(execution, &place, fresh.epoch).await {
                Ok(adoption) => Fact::Adopted { execution, adoption },
                Err(error) => Fact::InDoubt { execution, message: describe(&error) },
            })
        }
        Operation::Stop { execution, place, request } => {
            match ports.containers.stop(execution, &place, request).await {
                Ok(()) => None,
                Err(error) => Some(Fact::InDoubt { execution, message: describe(&error) }),
            }
        }
        Operation::Discard { execution, place } => {
            // What is left over is found and removed at the next start.
            let _left_over = ports.containers.discard(execution, &place).await;
            None
        }
        Operation::PlanStep { worktree, work } => {
            Some(plan_step(ports, attempt, &worktree, &work, fresh.execution).await)
        }
        Operation::Save { worktree, request } => {
            Some(match ports.worktrees.save(attempt, &worktree, &request).await {
                Ok(saved) => Fact::Saved(Box::new(saved)),
                Err(VcsWorktreeError::Gone { .. }) => Fact::NothingToSave,
                Err(error) => Fact::SaveRefused { refusal: refusal(&error) },
            })
        }
        Operation::PlanHistory { worktree, request } => Some(match &ports.history {
            None => history::unsupported(),
            Some(vcs) => history::plan(&**vcs, attempt, &worktree, &request, fresh.execution).await,
        }),
        Operation::ConcludeHistory { worktree, request } => Some(match &ports.history {
            None => history::unsupported(),
            Some(vcs) => history::conclude(&**vcs, attempt, &worktree, &request).await,
        }),
        Operation::RemoveWorktree { worktree, delete_branch } => {
            let removal =
                if delete_branch { Removal::WorktreeAndBranch } else { Removal::Worktree };
            Some(match ports.worktrees.remove(attempt, &worktree, removal).await {
                Ok(()) => Fact::WorktreeRemoved,
                Err(error) => Fact::RemoveRefused { refusal: refusal(&error) },
            })
        }
        Operation::RemoveSnapshot { worktree, number } => {
            let removal = Removal::Snapshot(number);
            Some(match ports.worktrees.remove(attempt, &worktree, removal).await {
                Ok(()) => Fact::SnapshotRemoved { number },
                Err(error) => Fact::SnapshotKept { number, refusal: refusal(&error) },
            })
        }
    }
}

async fn prepare(
    ports: &Ports,
    execution: &ExecutionRecord,
    workspace: &Workspace,
    attachments: &[Attachment],
    nonce: Nonce,
) -> Fact {
    let (id, attempt) = (execution.id, execution.attempt);
    let failed = |reason, message| Fact::PrepareFailed { execution: id, reason, message };
    if let Err(gone) = ports.secrets.resolve(id, &execution.options.secrets).await {
        return Fact::SecretMissing { execution: id, name: gone.name };
    }
    let head = match workspace {
        Workspace::Worktree(worktree) => match ports.worktrees.verify(attempt, worktree).await {
            Ok(verified) => Some(verified.head),
            Err(error) => return failed(NotStarted::WorkspaceRefused, describe(&error)),
        },
        Workspace::Directory { .. } => None,
    };
    if let (Some(worktree), Some(port)) = (workspace.worktree(), &ports.attachments)
        && !attachments.is_empty()
        && let Err(error) = port.place(attempt, worktree, attachments).await
    {
        return failed(NotStarted::WorkspaceRefused, describe(&error));
    }
    match ports.containers.prepare(id, nonce).await {
        Ok(place) => Fact::Prepared { execution: id, place, head },
        Err(error @ ContainerServiceError::Full) => {
            failed(NotStarted::LimitRefused, describe(&error))
        }
        Err(error) => failed(NotStarted::SpawnFailed, describe(&error)),
    }
}

/// Returns the variables that the engine sets.
fn own_env(
    ports: &Ports,
    execution: &ExecutionRecord,
    workspace: &Workspace,
    port_base: Option<u16>,
    attachments: &[Attachment],
) -> Vec<(String, OsBytes)> {
    let mut env = vec![
        (EXECUTION_MARK.to_owned(), execution.id.to_string().into()),
        ("WINDLASS_ATTEMPT_ID".to_owned(), execution.attempt.to_string().into()),
    ];
    env.extend(port_base.map(|port| (PORT_BASE.to_owned(), port.to_string().into())));
    if let Some(worktree) = workspace.worktree() {
        env.push(("WINDLASS_BRANCH".to_owned(), worktree.branch.as_str().into()));
        if let (Some(port), false) = (&ports.attachments, attachments.is_empty()) {
            let paths: Vec<_> =
                attachments.iter().map(|it| port.path(worktree, &it.name).0).collect();
            env.push((ATTACHMENTS.to_owned(), OsBytes(paths.join(&b'\n'))));
        }
    }
    env
}

async fn launch(
    ports: &Ports,
    execution: &ExecutionRecord,
    own_env: Vec<(String, OsBytes)>,
    epoch: Epoch,
) -> Fact {
    let id = execution.id;
    let in_doubt = |message| Fact::InDoubt { execution: id, message };
    let Some(place) = execution.place.as_ref() else {
        return in_doubt("it has no place".to_owned());
    };
    let secrets = match ports.secrets.resolve(id, &execution.options.secrets).await {
        Ok(values) => values,
        // It was there a moment ago; the place is closed by looking at it.
        Err(gone) => return in_doubt(gone.to_string()),
    };
    let mut env = execution.options.env.clone();
    env.extend(secrets);
    env.extend(own_env);
    let options = &execution.options;
    let spec = LaunchSpec {
        execution: id,
        argv: execution.action.kind.argv(),
        env: env.into_iter().map(|(name, value)| (OsBytes::from(name), value)).collect(),
        cwd: execution.cwd.clone(),
        stdin: options.stdin,
        output: options.output,
        leftovers: options.leftovers,
        total: options.limits.total_ms.map(Duration::from_millis),
        idle: options.limits.idle_ms.map(Duration::from_millis),
        grace: Duration::from_millis(options.limits.grace_ms),
        log_cap_bytes: options.log_cap_bytes,
        repository_lock: execution.repository_lock.clone(),
    };
    match ports.containers.launch(place, spec, epoch).await {
        Ok(launched) => Fact::Launched { execution: id, launched },
        Err(error) => in_doubt(describe(&error)),
    }
}

async fn finish(
    ports: &Ports,
    attempt: AttemptId,
    execution: ExecutionId,
    place: Place,
    worktree: Option<&Worktree>,
) -> Fact {
    let report = match ports.containers.finished(execution, &place).await {
        Ok(report) => report,
        Err(error) => return Fact::InDoubt { execution, message: describe(&error) },
    };
    let log = LogKey { execution, place };
    if matches!(report.exit.outcome, Outcome::Lost { .. }) {
        // A log that cannot be sealed now is sealed when it is read: nothing is added to it any more.
        let _unsealed = ports.logs.seal(&log).await;
    }
    let mut shown = None;
    if report.last_seq > 0 {
        let options = ReadOptions { from: From::Tail(64), max_items: 64, max_bytes: 1 << 20 };
        if let Ok(page) = ports.logs.read(&log, options).await {
            shown = preview(&page.items, report.exit.outcome.ended_well());
        }
    }
    let head = match worktree {
        Some(worktree) => ports.worktrees.verify(attempt, worktree).await.ok().map(|v| v.head),
        None => None,
    };
    Fact::Finished { execution, report, preview: shown, head }
}

async fn plan_step(
    ports: &Ports,
    attempt: AttemptId,
    worktree: &Worktree,
    work: &GitWork,
    execution: ExecutionId,
) -> Fact {
    match ports.worktrees.plan_step(attempt, worktree, work).await {
        Ok(StepPlan::Nothing { head }) => Fact::StepPlanned { nothing: Some(head), step: None },
        Ok(StepPlan::Run(step)) => {
            Fact::StepPlanned { nothing: None, step: Some((execution, step)) }
        }
        Err(error) => Fact::StepRefused { message: describe(&error) },
    }
}

pub(super) fn refusal(error: &VcsWorktreeError) -> Refusal {
    let code = match error {
        VcsWorktreeError::Unsaved { .. } | VcsWorktreeError::Unsavable { .. } => {
            RefusalCode::Unsaved
        }
        VcsWorktreeError::Unfinished { .. } => RefusalCode::Unfinished,
        VcsWorktreeError::Occupied { .. } => RefusalCode::Busy,
        VcsWorktreeError::Mismatch { .. } => RefusalCode::WorkspaceMismatch,
        VcsWorktreeError::Gone { .. } => RefusalCode::WorkspaceGone,
        VcsWorktreeError::Busy { .. } => RefusalCode::RepositoryBusy,
        VcsWorktreeError::Full => RefusalCode::Full,
        VcsWorktreeError::Quota { .. } => RefusalCode::SnapshotQuota,
        VcsWorktreeError::NoSnapshot { .. } => RefusalCode::NoSnapshot,
        VcsWorktreeError::DamagedSnapshot { .. } => RefusalCode::DamagedSnapshot,
        VcsWorktreeError::NotARepository { .. } => RefusalCode::RepositoryGone,
        VcsWorktreeError::Empty { .. }
        | VcsWorktreeError::UnknownBase { .. }
        | VcsWorktreeError::BranchExists { .. }
        | VcsWorktreeError::InvalidBranch { .. }
        | VcsWorktreeError::CannotCopy { .. }
        | VcsWorktreeError::Incomplete { .. }
        | VcsWorktreeError::NoGit { .. }
        | VcsWorktreeError::Git { .. }
        | VcsWorktreeError::Backend(_) => RefusalCode::Failed,
    };
    Refusal { code, message: describe(error) }
}
