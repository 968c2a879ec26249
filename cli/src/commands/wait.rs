//! `wait` and `stop`: until executions have ended.

use std::collections::BTreeMap;
use std::time::Duration;

use windlass::api::Until;
use windlass::api::client::Client;
use windlass::core::id::{AttemptId, ExecutionId};
use windlass::request::StopTarget;
use windlass::view::ExecutionView;

use super::chain::stands_for;
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
    let mut wanted: Vec<(ExecutionId, ExecutionId)> = Vec::new();
    for text in &args.ids {
        let id = ids::execution(&client, text).await?;
        if !wanted.iter().any(|(given, _)| *given == id) {
            wanted.push((id, id));
        }
    }
    let interrupts = Interrupts::new(OnInterrupt::Detach, None);
    let mut follower = Follower::new(client.clone(), Vec::new(), interrupts)?;
    let codes = BTreeMap::new();
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
    /// In the given order, each with the one that it stands for by now.
    wanted: Vec<(ExecutionId, ExecutionId)>,
    any: bool,
    /// The codes of those that are done, by what was given.
    codes: BTreeMap<ExecutionId, u8>,
}

/// What came of one that has settled.
enum Settled {
    /// It stands for one that follows it.
    GoesOn,
    /// It is done.
    Done,
    /// It is done, and enough.
    Enough(u8),
}

impl Waiting<'_> {
    /// Prints executions as they end and returns the code: of the first in the given order that is not 0, or of the one
    /// that was enough.
    async fn until_done(&mut self, limit: Option<Duration>) -> Result<u8, CliError> {
        let Some(limit) = limit else { return self.all().await };
        let began = tokio::time::Instant::now();
        // However short the time is, what is done already is seen.
        loop {
            let mut goes_on = false;
            let left: Vec<_> = self.left().collect();
            for view in self.client.done_by_now(&left, Until::Settled).await? {
                match self.settled(view).await? {
                    Settled::GoesOn => goes_on = true,
                    Settled::Done => {}
                    Settled::Enough(code) => return Ok(code),
                }
            }
            if !goes_on {
                break;
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

    /// Names those that are waited for by now.
    fn left(&self) -> impl Iterator<Item = ExecutionId> {
        let left = self.wanted.iter().filter(|(given, _)| !self.codes.contains_key(given));
        left.map(|(_, now)| *now)
    }

    /// Waits for all that are left.
    async fn all(&mut self) -> Result<u8, CliError> {
        'wait: loop {
            let mut ended = self.client.wait(self.left(), Until::Settled);
            while let Some(view) = ended.next().await? {
                match self.settled(view).await? {
                    Settled::GoesOn => continue 'wait,
                    Settled::Done => {}
                    Settled::Enough(code) => return Ok(code),
                }
            }
            return Ok(self.code());
        }
    }

    /// Prints one that is done, unless it stands for one that follows it.
    async fn settled(&mut self, view: ExecutionView) -> Result<Settled, CliError> {
        let meant = |(given, now): &&mut (ExecutionId, ExecutionId)| {
            *now == view.id && !self.codes.contains_key(given)
        };
        let Some((given, now)) = self.wanted.iter_mut().find(meant) else {
            return Ok(Settled::Done);
        };
        if let Some(next) = stands_for(&view) {
            *now = next;
            return Ok(Settled::GoesOn);
        }
        let given = *given;
        let end = End::look(self.client, view).await?;
        print(self.context, &end.execution)?;
        if end.commit_failed.is_some() {
            self.context
                .output
                .note("windlass: its changes could not be committed; see `windlass show`");
        }
        self.codes.insert(given, end.exit_code());
        Ok(if self.any { Settled::Enough(end.exit_code()) } else { Settled::Done })
    }

    fn code(&self) -> u8 {
        let mut codes = self.wanted.iter().filter_map(|(id, _)| self.codes.get(id)).copied();
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

/// Reads what follows an execution in its chain.
async fn followers(client: &Client, id: ExecutionId) -> Result<Vec<ExecutionView>, CliError> {
    let mut followers = Vec::new();
    let mut next = client.execution(id).await?.followed_by;
    while let Some(id) = next {
        let view = client.execution(id).await?;
        next = view.followed_by;
        followers.push(view);
    }
    Ok(followers)
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
    let (mut stopped, mut awaited, mut resting) = (Vec::new(), Vec::new(), Vec::new());
    for name in named {
        match name {
            Named::Execution(id) => {
                // It stands for what follows it, which may run by now, or may have begun until the stop was accepted.
                stopped.push(id);
                let before = followers(&client, id).await?;
                client.stop(StopTarget::Execution(id), grace_ms).await?;
                for follower in followers(&client, id).await? {
                    let ended = |view: &ExecutionView| view.id == follower.id && view.has_ended();
                    if !before.iter().any(ended) {
                        stopped.push(follower.id);
                    }
                    awaited.push(follower.id);
                }
            }
            Named::Attempt(id) => {
                // What is active is looked up before: after the stop it may have ended already.
                let active = client.active_of(id).await?.items;
                client.stop(StopTarget::Attempt(id), grace_ms).await?;
                stopped.extend(active.iter().map(|view| view.id));
                resting.push(id);
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
            Followed::Done(Ok(None)) => break,
            Followed::Done(Err(error)) => return Err(error.into()),
            Followed::Detached(code) => return Ok(code),
        }
    }
    // Its work may still be committed or saved, and its worktree made.
    for id in resting {
        match follower.watch(client.at_rest(id)).await? {
            Followed::Done(rests) => drop(rests?),
            Followed::Detached(code) => return Ok(code),
        }
    }
    Ok(0)
}

/// Stops everything in an attempt, and waits until nothing of it goes on.
///
/// # Errors
///
/// The host's.
pub(super) async fn stop_attempt(
    context: &Context,
    client: &Client,
    id: AttemptId,
) -> Result<(), CliError> {
    let active: Vec<_> = client.active_of(id).await?.items.iter().map(|view| view.id).collect();
    client.stop(StopTarget::Attempt(id), None).await?;
    let mut ended = client.wait(active, Until::Settled);
    while let Some(view) = ended.next().await? {
        if context.output.is_talkative() {
            context.output.say(&format!("windlass: {} {}", view.id.short(), words(&view)));
        }
    }
    client.at_rest(id).await?;
    Ok(())
}
