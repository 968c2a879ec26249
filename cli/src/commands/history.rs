//! `merge`, `rebase`, `abort`, `push` and `set`: what becomes of the commits of attempts.

use windlass::core::record::PullRequestState;
use windlass::core::vcs_history::MergeStyle;
use windlass::request::{
    AttemptChange, MergeRequest, PullRequestChange, PushRequest, RebaseRequest,
};
use windlass::view::{IntegratedView, IntegrationView};

use super::keep::patiently;
use crate::args::{AbortArgs, MergeArgs, PrStateArg, PushArgs, RebaseArgs, SetArgs};
use crate::context::Context;
use crate::error::{Class, CliError};
use crate::ids;
use crate::output::Output;
use crate::table::printable;

/// Merges an attempt's commits into a branch.
///
/// # Errors
///
/// They conflict, something is not committed, or the host's.
pub(super) async fn merge(context: &Context, args: MergeArgs) -> Result<u8, CliError> {
    let (client, output) = (context.client()?, context.output);
    let id = ids::attempt(&client, &args.attempt).await?;
    let style = if args.squash { MergeStyle::Squash } else { MergeStyle::Commit };
    let request = MergeRequest { into: args.into, style, message: args.message };
    let what = format!("merging {} …", id.short());
    let view = patiently(output, &what, client.merge(id, &request)).await?;
    tell(output, &view)
}

/// Puts an attempt's commits on top of a branch.
///
/// # Errors
///
/// They conflict, something is not committed, or the host's.
pub(super) async fn rebase(context: &Context, args: RebaseArgs) -> Result<u8, CliError> {
    let (client, output) = (context.client()?, context.output);
    let id = ids::attempt(&client, &args.attempt).await?;
    let request = RebaseRequest { onto: args.onto, go_on: args.go_on };
    let what = format!("rebasing {} …", id.short());
    let view = patiently(output, &what, client.rebase(id, &request)).await?;
    tell(output, &view)
}

/// Gives up what is in progress in an attempt's worktree.
///
/// # Errors
///
/// Nothing is in progress, something cannot be saved, or the host's.
pub(super) async fn abort(context: &Context, args: AbortArgs) -> Result<u8, CliError> {
    let (client, output) = (context.client()?, context.output);
    let id = ids::attempt(&client, &args.attempt).await?;
    let what = format!("saving and putting back {} …", id.short());
    let view = patiently(output, &what, client.abort(id)).await?;
    tell(output, &view)
}

/// Pushes an attempt's branch.
///
/// # Errors
///
/// There is no such remote, it refuses, or the host's.
pub(super) async fn push(context: &Context, args: PushArgs) -> Result<u8, CliError> {
    let (client, output) = (context.client()?, context.output);
    let id = ids::attempt(&client, &args.attempt).await?;
    let request = PushRequest { remote: args.remote, force_with_lease: args.force_with_lease };
    let what = format!("pushing the branch of {} …", id.short());
    let view = patiently(output, &what, client.push(id, &request)).await?;
    tell(output, &view)
}

/// Tells what came of it. Conflicts are told as a failure, too.
fn tell(output: Output, view: &IntegratedView) -> Result<u8, CliError> {
    let id = view.attempt_id.short();
    if output.json {
        output.object(view)?;
    }
    let (note, line) = match &view.result {
        IntegrationView::Merged(merged) => {
            let how = match (merged.style, view.execution_id) {
                (None, _) => "is in",
                (Some(_), None) => "was merged before into",
                (Some(_), Some(_)) => "is merged into",
            };
            (format!("{id} {how} {}", printable(&merged.target)), &merged.commit)
        }
        IntegrationView::Rebased { head, onto } => {
            (format!("{id} is on top of {}", onto.0.get(..10).unwrap_or(&onto.0)), head)
        }
        IntegrationView::Aborted { head } => {
            (format!("nothing is in progress in the worktree of {id} any more"), head)
        }
        IntegrationView::Pushed { remote, branch, head } => {
            (format!("pushed {} to {}", printable(branch), printable(remote)), head)
        }
        IntegrationView::Conflicts { files } => return Err(stopped(&id, files)),
        IntegrationView::NotDone => {
            let hint = "`windlass show` tells how it stands";
            return Err(CliError::new(Class::Failed, "git", "it was not done", hint));
        }
    };
    if !output.json {
        output.note(&note);
        output.line(&line.0)?;
    }
    Ok(0)
}

/// Makes the error of a rebase that stopped.
fn stopped(id: &str, files: &[String]) -> CliError {
    let message = match files {
        [] => "the rebase stopped; the worktree has it in progress".to_owned(),
        files => {
            let files: Vec<_> = files.iter().map(|file| printable(file)).collect();
            format!("the rebase stopped at conflicts in {}", files.join(", "))
        }
    };
    let hint = format!(
        "resolve them in the worktree (`windlass path {id}`), `git add` them, then windlass rebase {id} --continue; or give it up: windlass abort {id}"
    );
    CliError::new(Class::Refused, "merge_conflict", message, hint)
}

/// Changes what is recorded of an attempt.
///
/// # Errors
///
/// A name that is none, or the host's.
pub(super) async fn set(context: &Context, args: SetArgs) -> Result<u8, CliError> {
    let (client, output) = (context.client()?, context.output);
    let id = ids::attempt(&client, &args.attempt).await?;
    let state = match args.pr_state {
        PrStateArg::Open => Some(PullRequestState::Open),
        PrStateArg::Merged => Some(PullRequestState::Merged),
        PrStateArg::Closed => Some(PullRequestState::Closed),
        PrStateArg::None => None,
    };
    let pull_request = args.pr.map(|url| PullRequestChange { url, state });
    let change = AttemptChange { target: args.target, pull_request };
    let view = client.set_attempt(id, &change).await?;
    if output.json {
        output.object(&view)?;
    } else {
        output.note(&format!("changed {}", id.short()));
    }
    Ok(0)
}
