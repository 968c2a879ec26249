//! `run` and `exec`: start something and follow it.

use std::path::PathBuf;
use std::time::Duration;

use windlass::api::LogQuery;
use windlass::api::client::Client;
use windlass::core::action::RunReason;
use windlass::core::id::ExecutionId;
use windlass::core::record::CommitPolicy;
use windlass::request::{Accepted, ExecRequest, RunRequest, TaskRun, WorkspaceRequest};

use super::outcome::{End, tell};
use crate::args::{ExecArgs, LaunchArgs, RunArgs};
use crate::context::Context;
use crate::error::{Class, CliError};
use crate::follow::{Exact, Followed, Follower};
use crate::ids::{self, Named};
use crate::signals::{Asked, Interrupts, Terminal};
use crate::table::printable;
use crate::{forward, launch};

/// Makes an attempt and follows its execution.
///
/// # Errors
///
/// It was not accepted, or cannot be followed.
pub(super) async fn run(context: &Context, args: RunArgs) -> Result<u8, CliError> {
    if args.task.is_some() {
        return run_task(context, args).await;
    }
    let RunArgs { task: _, repo, base, branch, copy, title, dir, no_commit, launch } = args;
    let workspace = match dir {
        Some(path) => WorkspaceRequest::Directory { path: launch::directory(&path)? },
        None => {
            let repo = repo.unwrap_or_else(|| PathBuf::from("."));
            launch::is_there(&repo)?;
            WorkspaceRequest::Worktree { repo: launch::locator(&repo)?, base, branch, copy }
        }
    };
    let request = RunRequest {
        workspace,
        title,
        commit: if no_commit { CommitPolicy::Keep } else { CommitPolicy::Commit },
        launch: launch::request(&launch, &context.environment)?,
    };
    let client = context.client()?;
    let accepted = client.run(&request).await?;
    announce(context, &client, accepted, &launch).await?;
    go_on(context, client, accepted.execution, &launch).await
}

/// Makes an attempt of a task and follows its execution.
async fn run_task(context: &Context, args: RunArgs) -> Result<u8, CliError> {
    let RunArgs { task, repo: _, base, branch, copy, title, dir, no_commit, launch } = args;
    let request = TaskRun {
        dir: dir.as_deref().map(launch::directory).transpose()?,
        base,
        branch,
        copy: (!copy.is_empty()).then_some(copy),
        title,
        commit: no_commit.then_some(CommitPolicy::Keep),
        launch: launch::request(&launch, &context.environment)?,
    };
    let client = context.client()?;
    let task = ids::task(&client, &task.unwrap_or_default()).await?;
    let accepted = client.run_task(task, &request).await?;
    announce(context, &client, accepted, &launch).await?;
    let project = client.project(client.task(task).await?.project_id).await?;
    let scripts = [("setup", &project.setup), ("cleanup", &project.cleanup), ("dev", &project.dev)];
    let there: Vec<_> =
        scripts.into_iter().filter(|(_, script)| script.is_some()).map(|(name, _)| name).collect();
    if let Some(what) = not_run(&there) {
        let name = printable(&project.name);
        context.output.note(&format!("windlass: the {what} of project {name} is not run"));
    }
    go_on(context, client, accepted.execution, &launch).await
}

/// Names scripts; `None` if there are none.
fn not_run(scripts: &[&str]) -> Option<String> {
    let (last, before) = scripts.split_last()?;
    if before.is_empty() {
        Some(format!("{last} script"))
    } else {
        Some(format!("{} and {last} script", before.join(", ")))
    }
}

/// Starts one more execution in an attempt and follows it.
///
/// # Errors
///
/// It was not accepted, or cannot be followed.
pub(super) async fn exec(context: &Context, args: ExecArgs) -> Result<u8, CliError> {
    let client = context.client()?;
    let attempt = ids::attempt(&client, &args.attempt).await?;
    let launch = launch::request(&args.launch, &context.environment)?;
    let request = ExecRequest { attempt, run_reason: RunReason::Background, launch };
    let accepted = client.exec(request).await?;
    announce(context, &client, accepted, &args.launch).await?;
    go_on(context, client, accepted.execution, &args.launch).await
}

/// Says which attempt and execution it is.
async fn announce(
    context: &Context,
    client: &Client,
    accepted: Accepted,
    launch: &LaunchArgs,
) -> Result<(), CliError> {
    let attempt = ids::short(client, Named::Attempt(accepted.attempt)).await?;
    let execution = ids::short(client, Named::Execution(accepted.execution)).await?;
    context.output.say(&format!("{attempt} {execution}"));
    if launch.detach && !context.output.json {
        context.output.line(&execution)?;
    }
    if accepted.source_is_dirty {
        context
            .output
            .note("windlass: the checkout has uncommitted changes; they are not in the worktree");
    }
    Ok(())
}

async fn go_on(
    context: &Context,
    client: Client,
    id: ExecutionId,
    launch: &LaunchArgs,
) -> Result<u8, CliError> {
    let output = context.output;
    if launch.detach {
        if output.json {
            output.object(&client.execution(id).await?)?;
        }
        return Ok(0);
    }
    // However it cannot be followed any more: it was taken and is not lost by that.
    follow(context, client, id, launch).await.map_err(|error| still_there(error, id))
}

/// Follows an execution to its end.
async fn follow(
    context: &Context,
    client: Client,
    id: ExecutionId,
    launch: &LaunchArgs,
) -> Result<u8, CliError> {
    let output = context.output;
    let asked = Asked::default();
    let terminal = Terminal::find(asked.clone(), launch.stdin);
    let interrupts = Interrupts::new(launch.on_interrupt, terminal);
    let mut follower = Follower::new(client.clone(), vec![id], interrupts)?;
    if launch.stdin {
        let chunks = forward::read(asked);
        let forwarding = forward::forward(client.clone(), id, chunks);
        // It ends by itself, at the latest with this process.
        drop(tokio::spawn(async move {
            if let Err(error) = forwarding.await {
                output
                    .note(&format!("windlass: standard input is not forwarded any more: {error}"));
            }
        }));
    }
    // In JSON the execution is the answer; its output is in its log.
    if !output.json {
        let lines = client.log(id, LogQuery { follow: true, ..LogQuery::default() });
        let mut sink = Exact::standard(!output.quiet);
        let followed = {
            let mut log = std::pin::pin!(follower.output(lines, &mut sink));
            let queued = tell_if_queued(context, &client, id);
            tokio::select! {
                biased;
                followed = &mut log => followed?,
                () = queued => log.await?,
            }
        };
        if let Followed::Detached(code) = followed {
            return Ok(detached(context, &client, id, code).await);
        }
        if sink.is_within_a_line() && output.is_terminal {
            // What is said about its end begins a line of its own.
            output.note("");
        }
    }
    match follower.settled(id).await? {
        Followed::Done(view) => {
            let end = End::look(&client, view).await?;
            if output.json {
                output.object(&end.execution)?;
            }
            tell(output, &end);
            Ok(end.exit_code())
        }
        Followed::Detached(code) => Ok(detached(context, &client, id, code).await),
    }
}

/// Tells people at a terminal that nothing happens because something is waited for.
async fn tell_if_queued(context: &Context, client: &Client, id: ExecutionId) {
    tokio::time::sleep(Duration::from_millis(700)).await;
    if let Ok(view) = client.execution(id).await
        && view.status == "queued"
    {
        let what = match (view.waiting_for, view.queue) {
            (Some(windlass::view::WaitingFor::Workspace), _) => {
                "its worktree is being made".to_owned()
            }
            (Some(windlass::view::WaitingFor::Secret), _) => {
                let name = view.missing_secret.as_deref().unwrap_or_default();
                let key = view.client_key.as_deref().unwrap_or_default();
                format!(
                    "the secret {name} has no value any more; stop it, or give the value: the same command with --key {key}"
                )
            }
            (Some(windlass::view::WaitingFor::Slot) | None, Some(before @ 1..)) => {
                format!("it waits for a slot, {before} before it")
            }
            (Some(windlass::view::WaitingFor::Slot) | None, _) => "it waits for a slot".to_owned(),
        };
        let text = format!("windlass: {} is queued: {what}", id.short());
        // Whoever reads a pipe waits for a slot as for anything else, but for a secret in vain.
        if view.waiting_for == Some(windlass::view::WaitingFor::Secret) {
            context.output.note(&text);
        } else if context.output.is_talkative() {
            context.output.say(&text);
        }
    }
}

/// How long a client that leaves waits to hear how the execution stands.
const LAST_WORD: Duration = Duration::from_millis(500);

async fn detached(context: &Context, client: &Client, id: ExecutionId, code: u8) -> u8 {
    let short = id.short();
    let view = tokio::time::timeout(LAST_WORD, client.execution(id)).await;
    let state = match view {
        Ok(Ok(view)) if view.has_ended() => "has ended; its output",
        Ok(Ok(view)) if view.status == "queued" => "stays queued; follow it with",
        Ok(_) | Err(_) => "runs on; follow it with",
    };
    context.output.note(&format!("windlass: {short} {state}: windlass logs -f {short}"));
    code
}

/// Adds to what to do about a failure to follow how to go on with the execution.
fn still_there(mut error: CliError, id: ExecutionId) -> CliError {
    if error.class != Class::BrokenPipe {
        let hint = error.view.hint.take().map(|hint| format!("{hint}; ")).unwrap_or_default();
        let short = id.short();
        error.view.hint = Some(format!("{hint}{short} goes on: windlass wait {short}"));
    }
    error
}
