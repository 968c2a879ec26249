//! `dev`: an attempt's dev server, and whether it is ready.

use std::time::Duration;

use windlass::api::client::{Client, ClientError};
use windlass::api::dev::ReadyView;
use windlass::core::action::RunReason;
use windlass::core::id::{AttemptId, ExecutionId};
use windlass::handle::ReadyCheck;
use windlass::request::ExecRequest;

use super::run::{Following, announce, go_on};
use crate::args::{DevArgs, ReadyPort};
use crate::context::Context;
use crate::error::{Class, CliError};
use crate::table::printable;
use crate::{ids, launch};

/// How long it may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Starts an attempt's dev server, says when it is ready, and follows it.
///
/// # Errors
///
/// It was not accepted, was not ready in time, or cannot be followed.
pub(super) async fn dev(context: &Context, args: DevArgs) -> Result<u8, CliError> {
    let client = context.client()?;
    let attempt = ids::attempt(&client, &args.attempt).await?;
    let check = check(&client, attempt, &args).await?;
    let script = match (&args.shell, args.command.is_empty()) {
        (None, true) => Some(client.dev_script(attempt).await?),
        (Some(_), _) | (_, false) => None,
    };
    let how = args.launch(script);
    let launch = launch::request(&how, &context.environment)?;
    let (run_reason, replace) = (RunReason::DevServer, args.replace);
    let accepted = client.exec(ExecRequest { attempt, run_reason, launch, replace }).await?;
    announce(context, &client, &accepted, args.detach).await?;
    let (id, following) = (accepted.execution, Following::from(&how));
    let Some(check) = check else { return go_on(context, client, id, following).await };
    let limit = args.ready_timeout.unwrap_or(READY_TIMEOUT);
    if args.detach {
        return match wait(&client, id, &check, limit).await? {
            ReadyView { ready: true, line } => {
                say_ready(context, &check, line.as_deref());
                go_on(context, client, id, following).await
            }
            ReadyView { ready: false, .. } => Err(ended(&client, id).await),
        };
    }
    follow(context, client, id, &check, limit, following).await
}

/// Follows a dev server and says meanwhile when it is ready.
async fn follow(
    context: &Context,
    client: Client,
    id: ExecutionId,
    check: &ReadyCheck,
    limit: Duration,
    following: Following,
) -> Result<u8, CliError> {
    let mut code = std::pin::pin!(go_on(context, client.clone(), id, following));
    let readiness = tokio::select! {
        biased;
        readiness = wait(&client, id, check, limit) => readiness?,
        code = &mut code => {
            // Whoever leaves it running need not know; one that ended was never ready.
            let code = code?;
            return match client.execution(id).await {
                Ok(view) if view.has_ended() => Ok(never_ready(context, id, code)),
                Ok(_) | Err(_) => Ok(code),
            };
        }
    };
    if readiness.ready {
        say_ready(context, check, readiness.line.as_deref());
        return code.await;
    }
    let code = code.await?;
    Ok(never_ready(context, id, code))
}

/// Says that it ended before it was ready, which is a failure however it ended.
fn never_ready(context: &Context, id: ExecutionId, code: u8) -> u8 {
    context.output.note(&format!("windlass: {} ended before it was ready", id.short()));
    code.max(1)
}

/// Finds out what to wait for.
async fn check(
    client: &Client,
    attempt: AttemptId,
    args: &DevArgs,
) -> Result<Option<ReadyCheck>, CliError> {
    let own = |message: String| {
        let hint = "name the number of the port that the server listens on";
        CliError::new(Class::Usage, "usage", message, hint)
    };
    Ok(match (args.ready_port, &args.ready_pattern) {
        (Some(ReadyPort::Number(port)), _) => Some(ReadyCheck::Port(port)),
        (Some(ReadyPort::Own(offset)), _) => {
            let base = client.attempt(attempt).await?.port_base;
            let base = base.ok_or_else(|| own(format!("{} has no ports", attempt.short())))?;
            let port = base.checked_add(offset);
            Some(ReadyCheck::Port(
                port.ok_or_else(|| own(format!("there is no port {base} + {offset}")))?,
            ))
        }
        (None, Some(pattern)) => {
            // Before anything is started.
            regex::bytes::Regex::new(pattern).map_err(|error| {
                let message = format!("{pattern:?} is no regular expression: {error}");
                CliError::usage(message, "escape what it is to take literally with a backslash")
            })?;
            Some(ReadyCheck::Pattern(pattern.clone()))
        }
        (None, None) if args.ready_timeout.is_some() => {
            return Err(CliError::usage(
                "--ready-timeout without --ready-port or --ready-pattern waits for nothing",
                "say when it is ready with one of them",
            ));
        }
        (None, None) => None,
    })
}

/// Waits until it is ready or has ended.
async fn wait(
    client: &Client,
    id: ExecutionId,
    check: &ReadyCheck,
    limit: Duration,
) -> Result<ReadyView, CliError> {
    match tokio::time::timeout(limit, client.ready(id, check)).await {
        Ok(readiness) => Ok(readiness?),
        Err(_) => {
            let what = match check {
                ReadyCheck::Port(port) => format!("nothing of it listens on port {port}"),
                ReadyCheck::Pattern(pattern) => {
                    format!("no line of its output matches {}", printable(pattern))
                }
            };
            let limit = humantime::format_duration(limit);
            let id = id.short();
            let message = format!("{id} is not ready after {limit}: {what}");
            let hint = format!("it runs on: windlass logs -f {id}; windlass stop {id} ends it");
            Err(CliError::new(Class::TimedOut, "not_ready", message, hint))
        }
    }
}

fn say_ready(context: &Context, check: &ReadyCheck, line: Option<&str>) {
    let how = match check {
        ReadyCheck::Port(port) => format!("http://localhost:{port}"),
        ReadyCheck::Pattern(_) => printable(line.unwrap_or_default()),
    };
    context.output.say(&format!("windlass: ready: {how}"));
}

/// Makes the error for a server that ended before it was ready, with the last of its output.
async fn ended(client: &Client, id: ExecutionId) -> CliError {
    let short = id.short();
    let settled: Result<_, ClientError> =
        client.wait([id], windlass::api::Until::Settled).next().await;
    let view = match settled {
        Ok(view) => view,
        Err(error) => return error.into(),
    };
    let why = view.as_ref().and_then(|view| view.outcome.as_ref()?.message.clone());
    let said = view.and_then(|view| view.preview).unwrap_or_default();
    let mut message = format!("{short} ended before it was ready");
    if let Some(why) = why {
        message.push_str(&format!(" ({why})"));
    }
    for line in said.lines() {
        message.push_str("\n  ");
        message.push_str(&printable(line));
    }
    CliError::new(
        Class::Failed,
        "not_ready",
        message,
        format!("windlass logs {short} has all of its output"),
    )
}
