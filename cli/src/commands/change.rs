//! `input` and `commit`: requests that change something.

use std::os::unix::ffi::OsStringExt as _;

use windlass::api::Until;
use windlass::core::locator::OsBytes;
use windlass::core::record::Reason;
use windlass::request::InputRequest;

use super::outcome::{not_committed, repositories_within, words};
use crate::args::{CommitArgs, InputArgs, OnInterrupt};
use crate::context::{Context, random_uuid};
use crate::error::{Class, CliError};
use crate::follow::{Followed, Follower};
use crate::ids;
use crate::signals::Interrupts;

/// Writes to an execution's standard input.
///
/// # Errors
///
/// It takes none, or the host's.
pub(super) async fn input(context: &Context, args: InputArgs) -> Result<u8, CliError> {
    let client = context.client()?;
    let execution = ids::execution(&client, &args.execution).await?;
    let mut bytes = args.text.into_vec();
    let closes_only = args.close && bytes.is_empty();
    if !args.no_newline && !closes_only && !bytes.ends_with(b"\n") {
        bytes.push(b'\n');
    }
    let key = match &context.global.key {
        // The same key names the same message, whatever its form.
        Some(key) => uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, key.as_bytes()),
        None => random_uuid()?,
    };
    let (secret, close) = (args.secret, args.close);
    client.input(InputRequest { execution, key, bytes: OsBytes(bytes), secret, close }).await?;
    Ok(0)
}

/// Commits what is dirty in an attempt's worktree.
///
/// # Errors
///
/// Git refused, or the host's.
pub(super) async fn commit(context: &Context, args: CommitArgs) -> Result<u8, CliError> {
    let (client, output) = (context.client()?, context.output);
    let attempt = ids::attempt(&client, &args.attempt).await?;
    let accepted = client.commit(attempt, args.message).await?;
    let Some(id) = accepted.execution_id else {
        if output.json {
            output.object(&serde_json::json!({
                "attempt_id": attempt, "execution_id": null, "committed": null
            }))?;
        } else {
            output.note("nothing to commit");
            let within = repositories_within(&client, &client.attempt(attempt).await?).await?;
            if let Some(text) = not_committed(&within) {
                output.note(&text);
            }
        }
        return Ok(0);
    };
    let interrupts = Interrupts::new(OnInterrupt::Detach, None);
    let mut follower = Follower::new(client.clone(), vec![id], interrupts)?;
    let mut wait = client.wait([id], Until::Settled);
    let view = match follower.watch(wait.next()).await? {
        Followed::Done(view) => view?,
        Followed::Detached(code) => return Ok(code),
    };
    let Some(view) = view else {
        return Err(CliError::not_found(format!("execution {} not found", id.short())));
    };
    if !view.outcome.as_ref().is_some_and(|view| view.outcome.ended_well()) {
        let said = match client.attempt(attempt).await?.reason {
            Some(Reason::CommitFailed { output, .. }) => output,
            _ => view.preview.clone().unwrap_or_default(),
        };
        let said = said.trim();
        return Err(CliError::new(
            Class::Failed,
            "commit_failed",
            format!(
                "the commit {}{}{said}",
                words(&view),
                if said.is_empty() { "" } else { ":\n" }
            ),
            format!(
                "the changes are still in the worktree; all git said: windlass logs {}",
                id.short()
            ),
        ));
    }
    let committed = match &view.after_head {
        Some(head) => Some(head.clone()),
        None => client.attempt(attempt).await?.head,
    };
    if output.json {
        output.object(&serde_json::json!({
            "attempt_id": attempt, "execution_id": id, "committed": committed
        }))?;
    } else if let Some(oid) = committed {
        output.line(&oid.0)?;
    }
    Ok(0)
}
