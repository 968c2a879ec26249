//! What an execution's end means for the exit code, and what people are told about it.

use windlass::api::client::Client;
use windlass::core::action::RunReason;
use windlass::core::locator::Locator;
use windlass::core::outcome::{Deadline, NotStarted, Outcome, StoppedBy};
use windlass::core::record::{AttemptStatus, Reason};
use windlass::view::{AttemptView, ExecutionView, SurvivorView};

use super::chain::reason_word;
use crate::duration;
use crate::error::CliError;
use crate::output::{Output, Style};
use crate::table::printable;

/// How a settled execution ended, with the attempt it is in.
#[derive(Clone, Debug)]
pub(super) struct End {
    /// The execution.
    pub(super) execution: ExecutionView,
    /// Its attempt, if it was looked at.
    pub(super) attempt: Option<AttemptView>,
    /// What git said, if its changes could not be committed.
    pub(super) commit_failed: Option<String>,
    /// Repositories in the worktree that are not part of its own.
    pub(super) repositories: Vec<Locator>,
    /// The cleanup that followed it, if that did not end well.
    pub(super) cleanup: Option<ExecutionView>,
}

impl End {
    /// Looks at the attempt of a settled execution.
    ///
    /// # Errors
    ///
    /// The host's.
    pub(super) async fn look(client: &Client, execution: ExecutionView) -> Result<Self, CliError> {
        let is_chain = matches!(
            execution.run_reason,
            RunReason::Setup | RunReason::Agent | RunReason::Cleanup
        );
        if !is_chain {
            let (commit_failed, repositories, cleanup) = (None, Vec::new(), None);
            return Ok(Self { execution, attempt: None, commit_failed, repositories, cleanup });
        }
        let attempt = client.attempt(execution.attempt_id).await?;
        let ended_well = execution.outcome.as_ref().is_some_and(|view| view.outcome.ended_well());
        let mut commit_failed = None;
        if let Some(Reason::CommitFailed { output, .. }) = &attempt.reason
            && ended_well
            && execution.committed.is_none()
            && is_newest(client, &attempt, &execution).await?
        {
            commit_failed = Some(output.clone());
        }
        let repositories = match (ended_well, &commit_failed) {
            (true, None) => repositories_within(client, &attempt).await?,
            _ => Vec::new(),
        };
        let (attempt, cleanup) = (Some(attempt), None);
        Ok(Self { execution, attempt, commit_failed, repositories, cleanup })
    }

    /// Returns the code that `run`, `exec` and `wait` end with.
    #[must_use]
    pub(super) fn exit_code(&self) -> u8 {
        match self.execution.exit_code.unwrap_or(0) {
            0 if self.commit_failed.is_some() => 1,
            code => code,
        }
    }
}

/// Lists the repositories in a dirty worktree that git takes for something of their own: no commit has what is in them.
///
/// # Errors
///
/// The host's.
pub(super) async fn repositories_within(
    client: &Client,
    attempt: &AttemptView,
) -> Result<Vec<Locator>, CliError> {
    // Only of one that is there: what was removed would be made again for it.
    if attempt.dirty != Some(true) {
        return Ok(Vec::new());
    }
    let files = client.diff(attempt.id).await?.files.into_iter();
    let within = files.filter(|file| file.untracked && file.mode.as_deref() == Some(GITLINK));
    Ok(within.map(|file| file.path).collect())
}

/// The mode by which git names a repository in a repository.
const GITLINK: &str = "160000";

/// Says of repositories in a worktree that they are not committed; `None` if there are none.
#[must_use]
pub(super) fn not_committed(within: &[Locator]) -> Option<String> {
    let names: Vec<_> = within.iter().map(|path| printable(&path.to_string())).collect();
    match names.as_slice() {
        [] => None,
        [one] => Some(format!("{one} is a repository of its own and is not committed")),
        several => {
            let several = several.join(", ");
            Some(format!("{several} are repositories of their own and are not committed"))
        }
    }
}

/// Says whether an execution is the newest of its attempt's chain: a later one explains the attempt's state then.
async fn is_newest(
    client: &Client,
    attempt: &AttemptView,
    execution: &ExecutionView,
) -> Result<bool, CliError> {
    for id in attempt.executions.iter().flatten() {
        if *id == execution.id {
            return Ok(true);
        }
        let other = client.execution(*id).await?;
        if matches!(other.run_reason, RunReason::Setup | RunReason::Agent | RunReason::Cleanup) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Returns how a status word is to look.
#[must_use]
pub(super) fn style_of(status: &str) -> Style {
    match status {
        "completed" | "finished" | "ready" => Style::Good,
        "failed" | "timed_out" | "killed" | "lost" | "held" => Style::Bad,
        "running" | "starting" | "stopping" | "queued" | "creating" | "committing" | "removing" => {
            Style::Active
        }
        _ => Style::Plain,
    }
}

/// Says in a few words how an execution ended.
#[must_use]
pub(super) fn words(execution: &ExecutionView) -> String {
    let Some(view) = &execution.outcome else { return execution.status.clone() };
    let text = match view.outcome {
        Outcome::Exited { code: 0 } | Outcome::Completed { .. } => "completed".to_owned(),
        Outcome::Exited { code } => format!("failed with code {code}"),
        Outcome::Signaled { signal } => format!("died from signal {signal}"),
        Outcome::TimedOut { limit: Deadline::Total } => "timed out".to_owned(),
        Outcome::TimedOut { limit: Deadline::Idle } => "timed out for lack of output".to_owned(),
        Outcome::Stopped { by } => format!("killed: stopped {}", by_whom(by)),
        // The message says the same with names.
        Outcome::NotStarted { reason } => {
            let why = view.message.as_deref().unwrap_or(not_started(reason));
            return format!("failed: not started: {}", printable(why));
        }
        Outcome::Lost { reason } => format!("lost: {}", lost(reason)),
    };
    match &view.message {
        Some(message) => format!("{text}: {}", printable(message)),
        None => text,
    }
}

fn by_whom(by: StoppedBy) -> &'static str {
    match by {
        StoppedBy::User => "on request",
        StoppedBy::Host => "by the host, or by a signal to its shim",
    }
}

fn not_started(reason: NotStarted) -> &'static str {
    match reason {
        NotStarted::ProgramNotFound => "there is no such program",
        NotStarted::NotExecutable => "the program may not be executed",
        NotStarted::DirectoryGone => "the directory is gone",
        NotStarted::WorkspaceRefused => "the workspace is not the recorded one",
        NotStarted::LimitRefused => "a limit cannot be enforced",
        NotStarted::SecretGone => "a secret has no value",
        NotStarted::SpawnFailed => "the process could not be made",
        NotStarted::Stopped => "it was stopped before",
    }
}

/// Says what to do about an execution that was not started, if there is anything to do.
fn what_to_do(execution: &ExecutionView) -> Option<&'static str> {
    let Outcome::NotStarted { reason } = execution.outcome.as_ref()?.outcome else { return None };
    match reason {
        NotStarted::ProgramNotFound => Some(
            "check the name and the PATH that it was looked for on, or give a path; what only a shell knows needs sh -c '…'",
        ),
        NotStarted::NotExecutable => Some(
            "make it executable (chmod +x), and see that its first line names an interpreter that is there",
        ),
        NotStarted::DirectoryGone => Some("put the directory back, or name another one"),
        NotStarted::WorkspaceRefused => Some(
            "`windlass restore` makes a deleted worktree again; put right what else is named and try again",
        ),
        NotStarted::LimitRefused | NotStarted::SpawnFailed => {
            Some("`windlass doctor` checks what this machine lets be used")
        }
        NotStarted::SecretGone => Some("start it again and hand the secret over: --secret NAME"),
        NotStarted::Stopped => None,
    }
}

fn lost(reason: windlass::core::outcome::Lost) -> &'static str {
    use windlass::core::outcome::Lost;
    match reason {
        Lost::MachineRestarted => "the machine restarted while it ran",
        Lost::SupervisorDied => "its shim died while it ran",
        Lost::EvidenceDamaged => "its journal is missing or damaged",
    }
}

/// Says to people how a followed execution ended. Without a terminal only what its own output cannot have said.
pub(super) fn tell(output: Output, end: &End) {
    let execution = &end.execution;
    if output.quiet || output.json {
        return;
    }
    let said_by_itself =
        matches!(execution.outcome.as_ref().map(|view| view.outcome), Some(Outcome::Exited { .. }));
    if output.is_terminal || !said_by_itself {
        output.say(&summary(end));
        if let Some(hint) = what_to_do(execution) {
            output.say(&format!("  hint: {hint}"));
        }
    } else if execution.exit_code != Some(0)
        && let Some(left) = left_changes(end)
    {
        output.say(&left);
    }
    if let Some(text) = beside_it(end) {
        output.say(&text);
    }
    if let Some(text) = not_committed(&end.repositories) {
        output.say(&format!("windlass: {text}"));
    }
    if let Some(git) = &end.commit_failed {
        let is_gone = end.attempt.as_ref().is_some_and(|attempt| attempt.missing);
        let where_now = if is_gone { "" } else { "; they are still in the worktree" };
        output.say(&format!("windlass: the changes could not be committed{where_now}"));
        for line in git.lines() {
            output.say(&format!("  {line}"));
        }
    }
    if execution.output_incomplete {
        output.say("windlass: its log lacks output");
    }
    for survivor in &execution.survivors {
        match survivor {
            SurvivorView::Named { pid, name, reason } => {
                output.say(&format!(
                    "windlass: process {pid} ({name}) outlived it: {}",
                    why(*reason)
                ));
            }
            SurvivorView::More { more } => output.say(&format!("windlass: and {more} more")),
        }
    }
}

/// Says what of the scripts around the command did not end well, which its own output cannot say.
fn beside_it(end: &End) -> Option<String> {
    let said = |execution: &ExecutionView, then: &str| {
        let (id, how) = (execution.id.short(), words(execution));
        let reason = reason_word(execution.run_reason);
        format!("windlass: {reason} {id} {how}; {then}")
    };
    if end.execution.run_reason == RunReason::Setup {
        return Some(said(&end.execution, "the command was not started"));
    }
    let cleanup = end.cleanup.as_ref()?;
    let attempt = end.attempt.as_ref();
    let reason = attempt.and_then(|attempt| attempt.reason.as_ref());
    Some(match reason {
        Some(Reason::ResetFailed { output, .. }) => {
            let text = said(cleanup, "what it changed is still in the worktree");
            format!("{text}: {}", printable(output.trim()))
        }
        Some(Reason::CleanupFailed { .. } | Reason::Stopped)
            if attempt.is_some_and(|attempt| attempt.dirty == Some(false)) =>
        {
            said(cleanup, "what it changed was saved and undone")
        }
        _ => said(cleanup, "what it changed is as it left it"),
    })
}

fn why(reason: windlass::core::execution::SurvivorReason) -> &'static str {
    use windlass::core::execution::SurvivorReason;
    match reason {
        SurvivorReason::Left => "it was to be left running",
        SurvivorReason::NotPermitted => "it may not be signalled",
        SurvivorReason::Unkillable => "it does not die",
    }
}

/// One or two lines: how it ended, where its changes are.
fn summary(end: &End) -> String {
    let execution = &end.execution;
    let mut text = format!("windlass: {} {}", execution.id.short(), words(execution));
    if let Some(ms) = execution.duration_ms {
        text.push_str(&format!(" after {}", duration::show(ms)));
    }
    let Some(attempt) = &end.attempt else { return text };
    if attempt.status == AttemptStatus::Failed {
        return text; // Its workspace could not be made: there may be no such branch.
    }
    if let Some(left) = left_changes(end) {
        text.push_str(&format!("\n{left}"));
    } else if attempt.repo.is_some() {
        let place = place(attempt);
        let id = attempt.id.short();
        if let Some(commit) = &execution.committed {
            let short = commit.0.get(..10).unwrap_or(&commit.0);
            text.push_str(&format!("\nwindlass: {place}, committed {short}; windlass diff {id}"));
        } else if attempt.missing {
            text.push_str(&format!("\nwindlass: {place}; its worktree is gone"));
        } else {
            text.push_str(&format!("\nwindlass: {place}, nothing to commit"));
        }
    }
    text
}

/// Names what the commits of an attempt are on.
fn place(attempt: &AttemptView) -> String {
    match &attempt.branch {
        Some(branch) => format!("branch {branch}"),
        None => "HEAD is detached".to_owned(),
    }
}

/// Says that changes were left in the worktree, and where.
fn left_changes(end: &End) -> Option<String> {
    let attempt = end.attempt.as_ref()?;
    let is_left = attempt.dirty == Some(true)
        && end.execution.committed.is_none()
        && attempt.status != AttemptStatus::Failed;
    let (place, id) = (place(attempt), attempt.id.short());
    is_left.then(|| format!("windlass: {place}, changes not committed; windlass diff {id}"))
}

#[cfg(test)]
mod tests {
    use windlass::view::OutcomeView;

    use super::*;
    use crate::commands::show::tests::execution;

    #[test]
    fn a_failed_commit_makes_a_good_end_a_failure() {
        let (commit_failed, repositories, cleanup) = (None, Vec::new(), None);
        let attempt = None;
        let execution = execution();
        let mut end = End { execution, attempt, commit_failed, repositories, cleanup };
        end.execution.exit_code = Some(0);
        assert_eq!(end.exit_code(), 0);
        end.commit_failed = Some("hook refused".to_owned());
        assert_eq!(end.exit_code(), 1);
        end.execution.exit_code = Some(42);
        assert_eq!(end.exit_code(), 42);
    }

    #[test]
    fn a_missing_program_is_named() {
        let mut execution = execution();
        execution.outcome = Some(OutcomeView {
            outcome: Outcome::NotStarted { reason: NotStarted::ProgramNotFound },
            message: Some("nope was not found".to_owned()),
        });
        assert_eq!(words(&execution), "failed: not started: nope was not found");
        execution.outcome =
            Some(OutcomeView { outcome: Outcome::Stopped { by: StoppedBy::User }, message: None });
        assert_eq!(words(&execution), "killed: stopped on request");
    }
}
