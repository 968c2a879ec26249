//! `wait` and `stop`: until executions have ended.

use std::collections::BTreeMap;
use std::time::Duration;

use windlass::api::Until;
use windlass::api::client::Client;
use windlass::core::id::ExecutionId;
use windlass::request::StopTarget;
use windlass::view::ExecutionView;

use super::outcome::{End, words};
use crate::args::{OnInterrupt, StopArgs, WaitArgs};
use crate::context::Context;
use crate::duration::millis;
use crate::error::{Class, CliError};
use crate::follow::{Followed, Follower};
use crate::ids::{self, Named};
use crate::signals::Interrupts;

/// Waits until executions are settled.
///
/// # Errors
///
/// The time was up, there is no such execution, or the host's.
pub(super) async fn wait(context: &Context, args: WaitArgs) -> Result<u8, CliError> {
    let client = context.client()?;
    let mut wanted = Vec::new();
    for text in &args.ids {
        let id = ids::execution(&client, text).await?;
        if !wanted.contains(&id) {
            wanted.push(id);
        }
    }
    let interrupts = Interrupts::new(OnInterrupt::Detach, None);
    let mut follower = Follower::new(client.clone(), Vec::new(), interrupts)?;
    let work = until_done(context, &client, &wanted, args.any);
    let work = within(args.timeout, work);
    match follower.watch(work).await? {
        Followed::Done(code) => code,
        Followed::Detached(code) => Ok(code),
    }
}

async fn within(
    limit: Option<Duration>,
    work: impl Future<Output = Result<u8, CliError>>,
) -> Result<u8, CliError> {
    let Some(limit) = limit else { return work.await };
    match tokio::time::timeout(limit, work).await {
        Ok(code) => code,
        Err(_) => Err(CliError::new(
            Class::TimedOut,
            "wait_timed_out",
            format!("not ended after {}", crate::duration::show(millis(limit))),
            "it runs on; wait again, longer, or stop it",
        )),
    }
}

/// Prints executions as they end and returns the code: of the first in the given order that is not 0.
async fn until_done(
    context: &Context,
    client: &Client,
    wanted: &[ExecutionId],
    any: bool,
) -> Result<u8, CliError> {
    let mut codes = BTreeMap::new();
    let mut ended = client.wait(wanted.iter().copied(), Until::Settled);
    while let Some(view) = ended.next().await? {
        let end = End::look(client, view).await?;
        print(context, &end.execution)?;
        if end.commit_failed.is_some() {
            context
                .output
                .note("windlass: its changes could not be committed; see `windlass show`");
        }
        codes.insert(end.execution.id, end.exit_code());
        if any {
            return Ok(end.exit_code());
        }
    }
    let codes = wanted.iter().filter_map(|id| codes.get(id)).copied();
    Ok(codes.into_iter().find(|&code| code != 0).unwrap_or(0))
}

fn print(context: &Context, view: &ExecutionView) -> Result<(), CliError> {
    if context.output.json {
        context.output.object(view)
    } else if context.output.quiet {
        Ok(())
    } else {
        context.output.line(&format!("{} {}", view.id.short(), words(view)))
    }
}

/// Stops executions and waits until their outcome is known.
///
/// # Errors
///
/// There is no such thing, or the host's.
pub(super) async fn stop(context: &Context, args: StopArgs) -> Result<u8, CliError> {
    let client = context.client()?;
    let grace_ms = args.grace.map(millis);
    let mut named = Vec::new();
    for text in &args.ids {
        named.push(ids::any(&client, text).await?);
    }
    let mut stopped = Vec::new();
    for name in named {
        match name {
            Named::Execution(id) => {
                client.stop(StopTarget::Execution(id), grace_ms).await?;
                stopped.push(id);
            }
            Named::Attempt(id) => {
                // What is active is looked up before: after the stop it may have ended already.
                let active = client.active_of(id).await?.items;
                client.stop(StopTarget::Attempt(id), grace_ms).await?;
                stopped.extend(active.iter().map(|view| view.id));
            }
        }
    }
    let interrupts = Interrupts::new(OnInterrupt::Detach, None);
    let mut follower = Follower::new(client.clone(), Vec::new(), interrupts)?;
    let mut ended = client.wait(stopped, Until::Ended);
    loop {
        match follower.watch(ended.next()).await? {
            Followed::Done(Ok(Some(view))) => print(context, &view)?,
            Followed::Done(Ok(None)) => return Ok(0),
            Followed::Done(Err(error)) => return Err(error.into()),
            Followed::Detached(code) => return Ok(code),
        }
    }
}
