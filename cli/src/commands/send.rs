//! `send`: messages that are queued for an attempt.

use std::io::Read as _;

use windlass::api::ReplaceBody;
use windlass::api::client::Client;
use windlass::core::id::{AttemptId, FollowUpId};
use windlass::core::record::{FollowUpState, Hold};
use windlass::request::SendOptions;
use windlass::view::FollowUpView;

use crate::args::SendArgs;
use crate::context::Context;
use crate::error::{Class, CliError};
use crate::{ids, launch};

/// More than a message may have: what is read beyond that is refused by the host.
const TEXT_BYTES: u64 = 1 << 20;

/// Queues a message, or changes what waits.
///
/// # Errors
///
/// It was not taken, or the host's.
pub(super) async fn send(context: &Context, args: SendArgs) -> Result<u8, CliError> {
    let (client, output) = (context.client()?, context.output);
    let attempt = ids::attempt(&client, &args.attempt).await?;
    if args.hold || args.release {
        let view = client.hold_queue(attempt, args.hold).await?;
        if output.json {
            output.object(&view)?;
        } else {
            let verb = if args.hold { "held" } else { "released" };
            output.note(&format!("windlass: the queue of {} is {verb}", attempt.short()));
        }
        return Ok(0);
    }
    let version = args.if_version;
    let message = match (args.text, args.replace, args.cancel) {
        (_, _, Some(name)) => {
            let id = find(&client, attempt, &name).await?;
            client.cancel_follow_up(id, version).await?
        }
        (text, Some(name), None) => {
            let id = find(&client, attempt, &name).await?;
            let text = read(text.unwrap_or_default())?;
            client.replace_follow_up(id, &ReplaceBody { version, text }).await?
        }
        (text, None, None) => {
            let text = read(text.unwrap_or_default())?;
            let with = SendOptions { attach: launch::attached(&args.attach)?, reset: args.reset };
            client.send_message(attempt, text, with).await?
        }
    };
    if output.json {
        output.object(&message)?;
        return Ok(0);
    }
    output.line(&message.id.short())?;
    let held = client.attempt(attempt).await?.queue_held;
    output.note(&format!("windlass: {}", state(&message, held)));
    Ok(0)
}

/// Says what has become of a message.
fn state(message: &FollowUpView, held: Option<Hold>) -> String {
    let id = message.id.short();
    match (message.status, message.execution_id) {
        (FollowUpState::Queued, _) => format!("{id} waits until the chain is over"),
        (FollowUpState::Held, _) => {
            let (why, attempt) = (why_held(held), message.attempt_id.short());
            format!("{id} is held: {why}; windlass send {attempt} --release")
        }
        (FollowUpState::Consumed, Some(execution)) => {
            let execution = execution.short();
            format!("{id} is run by {execution}; windlass logs -f {execution}")
        }
        (FollowUpState::Consumed, None) => format!("{id} was started"),
        (FollowUpState::Cancelled, _) => format!("{id} is taken back"),
    }
}

/// Says why nothing of a queue starts.
#[must_use]
pub(super) fn why_held(held: Option<Hold>) -> &'static str {
    match held {
        None => "what is before it has not started",
        Some(Hold::Asked) => "somebody asked for it",
        Some(Hold::Stopped) => "the chain before was stopped",
        Some(Hold::EndedBadly) => "the chain before did not end well",
        Some(Hold::CommitFailed) => "what the chain before changed could not be committed",
        Some(Hold::ResetFailed) => "what a cleanup left half done could not be undone",
        Some(Hold::NotStarted) => "the first message could not be started",
    }
}

/// Reads the message from standard input if it is a hyphen.
pub(super) fn read(text: String) -> Result<String, CliError> {
    if text != "-" {
        return Ok(text);
    }
    let mut typed = String::new();
    std::io::stdin()
        .lock()
        .take(TEXT_BYTES)
        .read_to_string(&mut typed)
        .map_err(|error| CliError::io("read standard input", &error))?;
    Ok(typed)
}

/// Finds a message of an attempt by its id, the last digits of that, or its position.
async fn find(client: &Client, attempt: AttemptId, name: &str) -> Result<FollowUpId, CliError> {
    let all = client.follow_ups(attempt, true).await?.items;
    let hex = name.strip_prefix("f-").unwrap_or(name).to_lowercase().replace('-', "");
    let is_end = (4..=32).contains(&hex.len()) && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    let ends = |view: &&FollowUpView| is_end && view.id.0.simple().to_string().ends_with(&hex);
    let at = |view: &&FollowUpView| view.position.to_string() == name;
    let found: Vec<_> = all.iter().filter(|view| at(view) || ends(view)).map(|it| it.id).collect();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => {
            let attempt = attempt.short();
            Err(CliError::not_found(format!("{attempt} has no message {name}")))
        }
        several => {
            let names: Vec<_> = several.iter().map(FollowUpId::to_string).collect();
            let message = format!("{name} may be any of {}", names.join(", "));
            Err(CliError::new(Class::Usage, "ambiguous", message, "give more digits of its id"))
        }
    }
}
