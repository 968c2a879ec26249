//! What is done with the commits of an attempt, and where they stand.

use windlass_core::id::{AttemptId, ExecutionId};
use windlass_core::record::{AttemptRecord, AttemptStatus};
use windlass_core::vcs_history::{Conclusion, HistoryWork, Merged, Standing, VcsHistory};
use windlass_core::vcs_worktree::{Diff, DiffDetail, WorktreeStatus};

use super::Handle;
use super::keep::without_repository;
use crate::error::{EngineError, RefusalCode};
use crate::host::changes::Change;
use crate::host::command::Command;
use crate::host::prelude::history_error;
use crate::request::{AttemptChange, Caller, MergeRequest, PushRequest, RebaseRequest};

/// The longest name of a branch or a remote, and the longest address of a pull request.
const NAME_BYTES: usize = 2048;

/// What came of something that was done with an attempt's commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Integrated {
    /// The git execution that did it; `None` if it was so already.
    pub execution: Option<ExecutionId>,
    /// What came of it.
    pub conclusion: Conclusion,
}

impl Handle {
    /// Merges an attempt's commits into its target; returns when that is done and recorded. What is merged already is not
    /// merged again.
    ///
    /// # Errors
    ///
    /// [`EngineError::Refused`] where it conflicts, where something is not committed in the worktree or in the checkout of
    /// the target, and while the attempt works: nothing was touched.
    pub async fn merge(
        &self,
        caller: Caller,
        attempt: AttemptId,
        request: MergeRequest,
    ) -> Result<Integrated, EngineError> {
        let record = self.attempt(&caller, attempt).await?;
        let target = target_of(&record, request.into, "--into")?;
        if let Some(merged) = merged_and_removed(&record, &target) {
            let conclusion = Conclusion::Merged(merged.clone());
            return Ok(Integrated { execution: None, conclusion });
        }
        let message = request.message.unwrap_or_else(|| default_message(&record));
        let work = HistoryWork::Merge { target, style: request.style, message };
        self.integrate(caller, attempt, work).await
    }

    /// Puts an attempt's commits on top of its target, in its worktree. Where they conflict, that stays in the worktree to be
    /// resolved: [`Conclusion::Conflicts`].
    ///
    /// # Errors
    ///
    /// [`EngineError::Refused`] where something is not committed, and while anything runs in the worktree.
    pub async fn rebase(
        &self,
        caller: Caller,
        attempt: AttemptId,
        request: RebaseRequest,
    ) -> Result<Integrated, EngineError> {
        if request.go_on {
            if request.onto.is_some() {
                let reason = "a rebase that goes on has its branch already".to_owned();
                return Err(EngineError::Invalid { reason });
            }
            return self.integrate(caller, attempt, HistoryWork::Continue).await;
        }
        let record = self.attempt(&caller, attempt).await?;
        let onto = target_of(&record, request.onto, "--onto")?;
        self.integrate(caller, attempt, HistoryWork::Rebase { onto }).await
    }

    /// Gives up the rebase, merge or the like that is in progress in an attempt's worktree. What is in the worktree is saved
    /// in a snapshot before it is undone.
    ///
    /// # Errors
    ///
    /// [`EngineError::Refused`] if nothing is in progress, while anything runs in the worktree, and where something cannot be
    /// saved.
    pub async fn abort(
        &self,
        caller: Caller,
        attempt: AttemptId,
    ) -> Result<Integrated, EngineError> {
        self.integrate(caller, attempt, HistoryWork::Abort).await
    }

    /// Pushes an attempt's branch under its own name.
    ///
    /// # Errors
    ///
    /// [`EngineError::Refused`] where there is no such remote, and where git or the remote refuses.
    pub async fn push(
        &self,
        caller: Caller,
        attempt: AttemptId,
        request: PushRequest,
    ) -> Result<Integrated, EngineError> {
        let PushRequest { remote, force_with_lease } = request;
        remote.as_deref().map_or(Ok(()), check_name)?;
        self.integrate(caller, attempt, HistoryWork::Push { remote, force_with_lease }).await
    }

    async fn integrate(
        &self,
        caller: Caller,
        attempt: AttemptId,
        work: HistoryWork,
    ) -> Result<Integrated, EngineError> {
        self.history()?;
        self.worktree_again(&caller, attempt).await?;
        self.ask(|answer| Command::Integrate { caller, attempt, work, answer })
            .await
            .map_err(without_repository)
    }

    fn history(&self) -> Result<&dyn VcsHistory, EngineError> {
        self.ports.history.as_deref().ok_or_else(|| {
            let reason = "this host does nothing with commits but make them";
            EngineError::refused(RefusalCode::Unsupported, reason)
        })
    }

    /// Changes an attempt: the branch that its work is meant for, a pull request that was made of it.
    ///
    /// # Errors
    ///
    /// [`EngineError::Invalid`] for a name that is none; [`EngineError::Refused`] for its own branch.
    pub async fn set_attempt(
        &self,
        caller: Caller,
        attempt: AttemptId,
        change: AttemptChange,
    ) -> Result<(), EngineError> {
        let AttemptChange { target, pull_request } = change;
        target.as_deref().map_or(Ok(()), check_name)?;
        if let Some(pull_request) = &pull_request {
            check_name(&pull_request.url)?;
            if !["https://", "http://"].iter().any(|begin| pull_request.url.starts_with(begin)) {
                let reason = format!("{:?} is no address of a pull request", pull_request.url);
                return Err(EngineError::Invalid { reason });
            }
        }
        if target.is_none() && pull_request.is_none() {
            self.attempt(&caller, attempt).await?;
        }
        if let Some(target) = target {
            self.change(caller.clone(), attempt, Change::SetTarget { target }).await?;
        }
        if let Some(change) = pull_request {
            self.change(caller, attempt, Change::SetPullRequest { change }).await?;
        }
        Ok(())
    }

    /// Looks where the commits of an attempt stand, if its worktree is there and the host can tell.
    ///
    /// # Errors
    ///
    /// [`EngineError::Refused`] where there is no worktree (any more).
    pub async fn standing(
        &self,
        caller: &Caller,
        id: AttemptId,
    ) -> Result<Option<Standing>, EngineError> {
        let Some(history) = &self.ports.history else { return Ok(None) };
        let record = self.attempt(caller, id).await?;
        let worktree = self.worktree(caller, id).await?;
        let standing = history.standing(id, &worktree, record.history.merged.as_ref()).await;
        standing.map(Some).map_err(|error| without_repository(history_error(error)))
    }

    /// Compares a merged attempt with its target before the merge, where nothing was done since: that is what it changed, also
    /// when its worktree and its branch are gone. `None` for any other.
    pub(super) async fn merged_diff(
        &self,
        caller: &Caller,
        id: AttemptId,
        detail: DiffDetail,
    ) -> Result<Option<Diff>, EngineError> {
        let Some(history) = &self.ports.history else { return Ok(None) };
        let record = self.attempt(caller, id).await?;
        let (Some(merged), Some(worktree)) = (&record.history.merged, record.workspace.worktree())
        else {
            return Ok(None);
        };
        if record.status == AttemptStatus::Removed {
            if record.removed.as_ref().is_some_and(|removed| removed.head != merged.head) {
                return Ok(None);
            }
        } else {
            let as_merged = |status: WorktreeStatus| status.head == merged.head && !status.dirty;
            if !self.measure(caller, id).await.is_ok_and(as_merged) {
                return Ok(None);
            }
        }
        // What cannot be compared this way is compared as any other.
        Ok(history.merged_diff(worktree, merged, detail).await.ok())
    }
}

/// Finds an attempt merged as it was when its worktree was removed: it need not be made again to say so.
fn merged_and_removed<'a>(record: &'a AttemptRecord, target: &str) -> Option<&'a Merged> {
    let merged = record.history.merged.as_ref().filter(|merged| merged.target == target)?;
    let removed = record.removed.as_ref().filter(|_| record.status == AttemptStatus::Removed)?;
    (removed.head == merged.head).then_some(merged)
}

fn target_of(
    record: &AttemptRecord,
    named: Option<String>,
    option: &str,
) -> Result<String, EngineError> {
    let Some(worktree) = record.workspace.worktree() else {
        let reason = format!("{} runs in a directory, not in a worktree", record.id.short());
        return Err(EngineError::refused(RefusalCode::NotAWorktree, reason));
    };
    let target = named.or_else(|| worktree.target.clone()).ok_or_else(|| {
        let reason = format!(
            "{} was made from {}, which is no branch, and has no target: name one with {option}",
            record.id.short(),
            worktree.base
        );
        EngineError::refused(RefusalCode::NoTarget, reason)
    })?;
    check_name(&target)?;
    Ok(target)
}

fn check_name(name: &str) -> Result<(), EngineError> {
    let wrong = name.is_empty()
        || name.len() > NAME_BYTES
        || name.starts_with('-')
        || name.chars().any(|char| char.is_control() || char.is_whitespace());
    if wrong {
        let reason = format!("{name:?} is no name that git or a browser would take");
        return Err(EngineError::Invalid { reason });
    }
    Ok(())
}

/// Makes the message of a merge from the title: a subject of at most 72 characters, then the rest.
fn default_message(record: &AttemptRecord) -> String {
    let (title, short) = (record.title.trim(), record.id.short());
    let line = title.lines().next().unwrap_or_default();
    if line.is_empty() {
        return format!("Merge {short}\n");
    }
    let subject: String = line.chars().take(72).collect();
    let rest = title.get(subject.len()..).unwrap_or_default().trim();
    let body = if rest.is_empty() { String::new() } else { format!("\n{rest}\n") };
    format!("{subject}\n{body}\nAttempt: {short}\n")
}
