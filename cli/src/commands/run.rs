//! `run` and `exec`: start something and follow it.

use std::path::PathBuf;
use std::time::Duration;

use windlass::api::LogQuery;
use windlass::api::client::Client;
use windlass::core::action::RunReason;
use windlass::core::id::ExecutionId;
use windlass::core::record::CommitPolicy;
use windlass::request::{
    Accepted, ExecRequest, LaunchRequest, RunRequest, Scripts, TaskRun, WorkspaceRequest,
};

use super::chain::Chain;
use super::outcome::tell;
use crate::args::{ExecArgs, LaunchArgs, OnInterrupt, RunArgs};
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
    let RunArgs { task: _, repo, base, branch, copy, setup, cleanup, title, dir, .. } = args;
    let (no_commit, launch) = (args.no_commit, args.launch);
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
        scripts: Scripts { setup, cleanup },
        launch: LaunchRequest {
            attach: launch::attached(&args.attach)?,
            ..launch::request(&launch, &context.environment)?
        },
    };
    let client = context.client()?;
    let accepted = client.run(&request).await?;
    announce(context, &client, &accepted, launch.detach).await?;
    go_on(context, client, accepted.execution, (&launch).into()).await
}

/// Makes an attempt of a task and follows its execution.
async fn run_task(context: &Context, args: RunArgs) -> Result<u8, CliError> {
    let RunArgs { task, base, branch, copy, setup, cleanup, title, dir, launch, .. } = args;
    let commit = match (args.commit, args.no_commit) {
        (true, _) => Some(CommitPolicy::Commit),
        (false, true) => Some(CommitPolicy::Keep),
        (false, false) => None,
    };
    let request = TaskRun {
        dir: dir.as_deref().map(launch::directory).transpose()?,
        base,
        branch,
        copy: (!copy.is_empty()).then_some(copy),
        title,
        commit,
        scripts: Scripts { setup, cleanup },
        launch: LaunchRequest {
            attach: launch::attached(&args.attach)?,
            ..launch::request(&launch, &context.environment)?
        },
    };
    let client = context.client()?;
    let task = ids::task(&client, &task.unwrap_or_default()).await?;
    let accepted = client.run_task(task, &request).await?;
    announce(context, &client, &accepted, launch.detach).await?;
    go_on(context, client, accepted.execution, (&launch).into()).await
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
    let run_reason = RunReason::Background;
    let request = ExecRequest { attempt, run_reason, launch, replace: false };
    let accepted = client.exec(request).await?;
    announce(context, &client, &accepted, args.launch.detach).await?;
    go_on(context, client, accepted.execution, (&args.launch).into()).await
}

/// How to go on with what was started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Following {
    /// Not at all.
    pub(super) detach: bool,
    /// Standard input is forwarded.
    pub(super) stdin: bool,
    /// What Ctrl-C does.
    pub(super) on_interrupt: OnInterrupt,
}

impl From<&LaunchArgs> for Following {
    fn from(args: &LaunchArgs) -> Self {
        Self { detach: args.detach, stdin: args.stdin, on_interrupt: args.on_interrupt }
    }
}

/// Says which attempt and execution it is.
pub(super) async fn announce(
    context: &Context,
    client: &Client,
    accepted: &Accepted,
    detach: bool,
) -> Result<(), CliError> {
    let attempt = ids::short(client, Named::Attempt(accepted.attempt)).await?;
    let execution = ids::short(client, Named::Execution(accepted.execution)).await?;
    context.output.say(&format!("{attempt} {execution}"));
    if detach && !context.output.json {
        context.output.line(&execution)?;
    }
    for glob in &accepted.unmatched {
        let glob = printable(glob);
        context
            .output
            .note(&format!("windlass: no file matches --copy {glob}: none was copied in"));
    }
    if accepted.source_is_dirty {
        context
            .output
            .note("windlass: the checkout has uncommitted changes; they are not in the worktree");
    }
    Ok(())
}

/// Follows what was started, if it is to be followed.
pub(super) async fn go_on(
    context: &Context,
    client: Client,
    id: ExecutionId,
    launch: Following,
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

/// Follows an execution, and what follows it in its chain, to the end.
async fn follow(
    context: &Context,
    client: Client,
    id: ExecutionId,
    launch: Following,
) -> Result<u8, CliError> {
    let output = context.output;
    let asked = Asked::default();
    let terminal = Terminal::find(asked.clone(), launch.stdin);
    let interrupts = Interrupts::new(launch.on_interrupt, terminal);
    // A stop of the first binds all of the chain.
    let mut follower = Follower::new(client.clone(), vec![id], interrupts)?;
    let mut input = launch.stdin.then(|| forward::read(asked));
    let mut chain = Chain::default();
    let mut id = id;
    loop {
        let takes_input =
            input.is_some() && client.execution(id).await?.run_reason != RunReason::Setup;
        if let Some(chunks) = input.take_if(|_| takes_input) {
            let forwarding = forward::forward(client.clone(), id, chunks);
            // It ends by itself, at the latest with this process.
            drop(tokio::spawn(async move {
                if let Err(error) = forwarding.await {
                    output.note(&format!(
                        "windlass: standard input is not forwarded any more: {error}"
                    ));
                }
            }));
        }
        if let Followed::Detached(code) = show_output(context, &client, &mut follower, id).await? {
            return Ok(detached(context, &client, id, code).await);
        }
        let view = match follower.settled(id).await? {
            Followed::Done(view) => view,
            Followed::Detached(code) => return Ok(detached(context, &client, id, code).await),
        };
        match chain.goes_on(view) {
            Some(next) => {
                if output.is_talkative() {
                    output.say(&chain.progress(next));
                }
                id = next;
            }
            None => break,
        }
    }
    let end = chain.end(&client).await?;
    if output.json {
        output.object(&end.execution)?;
    }
    tell(output, &end);
    Ok(end.exit_code())
}

/// Writes the output of an execution to ours, until it ends. In JSON the execution is the answer; its output is in its log.
async fn show_output(
    context: &Context,
    client: &Client,
    follower: &mut Follower,
    id: ExecutionId,
) -> Result<Followed<()>, CliError> {
    let output = context.output;
    if output.json {
        return Ok(Followed::Done(()));
    }
    let lines = client.log(id, LogQuery { follow: true, ..LogQuery::default() });
    let mut sink = Exact::standard(!output.quiet);
    let followed = {
        let mut log = std::pin::pin!(follower.output(lines, &mut sink));
        let queued = tell_if_queued(context, client, id);
        tokio::select! {
            biased;
            followed = &mut log => followed?,
            () = queued => log.await?,
        }
    };
    if matches!(followed, Followed::Done(())) && sink.is_within_a_line() && output.is_terminal {
        // What is said about its end begins a line of its own.
        output.note("");
    }
    Ok(followed)
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
