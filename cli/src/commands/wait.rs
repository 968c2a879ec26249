//! `wait` and `stop`: until executions have ended.

use std::collections::BTreeMap;
use std::time::Duration;

use windlass::api::Until;
use windlass::api::client::Client;
use windlass::core::action::RunReason;
use windlass::core::id::{AttemptId, ExecutionId};
use windlass::core::record::AttemptStatus;
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
    let (wanted, codes) = (&*wanted, BTreeMap::new());
    let mut waiting = Waiting { context, client: &client, wanted, any: args.any, codes };
    let work = waiting.until_done(args.timeout);
    match follower.watch(work).await? {
        Followed::Done(code) => code,
        Followed::Detached(code) => Ok(code),
    }
}

/// Executions that are waited for.
struct Waiting<'a> {
    context: &'a Context,
    client: &'a Client,
    /// In the given order.
    wanted: &'a [ExecutionId],
    any: bool,
    /// The codes of those that are done.
    codes: BTreeMap<ExecutionId, u8>,
}

impl Waiting<'_> {
    /// Prints executions as they end and returns the code: of the first in the given order that is not 0, or of the one
    /// that was enough.
    async fn until_done(&mut self, limit: Option<Duration>) -> Result<u8, CliError> {
        let Some(limit) = limit else { return self.all().await };
        let began = tokio::time::Instant::now();
        // However short the time is, what is done already is seen.
        for view in self.client.done_by_now(self.wanted, Until::Settled).await? {
            if let Some(code) = self.done(view).await? {
                return Ok(code);
            }
        }
        if self.codes.len() == self.wanted.len() {
            return Ok(self.code());
        }
        let left = limit.saturating_sub(began.elapsed());
        let timed_out = match tokio::time::timeout(left, self.all()).await {
            Ok(code) => return code,
            Err(_) if limit.is_zero() => "not ended yet".to_owned(),
            Err(_) => format!("not ended after {}", crate::duration::show(millis(limit))),
        };
        let hint = "nothing is stopped for that; wait again, longer, or stop it";
        Err(CliError::new(Class::TimedOut, "wait_timed_out", timed_out, hint))
    }

    /// Waits for all that are left.
    async fn all(&mut self) -> Result<u8, CliError> {
        let left = self.wanted.iter().filter(|id| !self.codes.contains_key(id)).copied();
        let mut ended = self.client.wait(left, Until::Settled);
        while let Some(view) = ended.next().await? {
            if let Some(code) = self.done(view).await? {
                return Ok(code);
            }
        }
        Ok(self.code())
    }

    /// Prints one that is done; returns its code if it is enough.
    async fn done(&mut self, view: ExecutionView) -> Result<Option<u8>, CliError> {
        let end = End::look(self.client, view).await?;
        print(self.context, &end.execution)?;
        if end.commit_failed.is_some() {
            self.context
                .output
                .note("windlass: its changes could not be committed; see `windlass show`");
        }
        self.codes.insert(end.execution.id, end.exit_code());
        Ok(self.any.then_some(end.exit_code()))
    }

    fn code(&self) -> u8 {
        let mut codes = self.wanted.iter().filter_map(|id| self.codes.get(id)).copied();
        codes.find(|&code| code != 0).unwrap_or(0)
    }
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

/// Stops executions and waits until all is over that goes on in them: also the commit of their work, and the save of what
/// is left of it.
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
    let (mut stopped, mut awaited) = (Vec::new(), Vec::new());
    for name in named {
        match name {
            Named::Execution(id) => {
                client.stop(StopTarget::Execution(id), grace_ms).await?;
                stopped.push(id);
            }
            Named::Attempt(id) => {
                // What is active is looked up before: after the stop it may have ended already.
                let active = client.active_of(id).await?.items;
                awaited.extend(newest_of_chain(&client, id).await?);
                client.stop(StopTarget::Attempt(id), grace_ms).await?;
                stopped.extend(active.iter().map(|view| view.id));
            }
        }
    }
    awaited.extend(stopped.iter().copied());
    awaited.sort_unstable();
    awaited.dedup();
    let interrupts = Interrupts::new(OnInterrupt::Detach, None);
    let mut follower = Follower::new(client.clone(), Vec::new(), interrupts)?;
    let mut ended = client.wait(awaited, Until::Settled);
    loop {
        match follower.watch(ended.next()).await? {
            // What had ended before is waited for, but was not stopped.
            Followed::Done(Ok(Some(view))) if !stopped.contains(&view.id) => {}
            Followed::Done(Ok(Some(view))) => print(context, &view)?,
            Followed::Done(Ok(None)) => return Ok(0),
            Followed::Done(Err(error)) => return Err(error.into()),
            Followed::Detached(code) => return Ok(code),
        }
    }
}

/// Finds the execution that stands for what an attempt's chain does: it is settled when the chain is over, whose work may
/// be being committed or saved while none of its executions is active.
async fn newest_of_chain(
    client: &Client,
    attempt: AttemptId,
) -> Result<Option<ExecutionId>, CliError> {
    let view = client.attempt(attempt).await?;
    if view.status != AttemptStatus::Committing {
        return Ok(None);
    }
    for id in view.executions.unwrap_or_default() {
        let reason = client.execution(id).await?.run_reason;
        if matches!(reason, RunReason::Setup | RunReason::Agent | RunReason::Cleanup) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}
