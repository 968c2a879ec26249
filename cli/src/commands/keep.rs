//! `rm`, `restore`, `snapshots` and `gc`: worktrees go, their work stays, and they come back.

use std::future::Future;
use std::time::Duration;

use windlass::core::cleanup::{Action, Thing};
use windlass::core::record::AttemptStatus;
use windlass::core::snapshot::{LeftOut, LeftOutReason, SnapshotNumber};
use windlass::request::{GcOptions, RemoveOptions};
use windlass::view::{AttemptView, GcItemView, SnapshotView};

use crate::args::{GcArgs, RestoreArgs, RmArgs, SnapshotsArgs};
use crate::context::Context;
use crate::duration::{age, now_ms};
use crate::error::CliError;
use crate::ids;
use crate::output::{Output, Style};
use crate::table::{Cell, fitted_table, printable, size};

/// After this somebody who waits is told what for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Waits for what may take long; says what is waited for.
pub(super) async fn patiently<T>(output: Output, what: &str, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    match tokio::time::timeout(PATIENCE, &mut work).await {
        Ok(done) => done,
        Err(_) => {
            if output.is_talkative() {
                output.say(what);
            }
            work.await
        }
    }
}

/// Removes worktrees. Goes on after a refusal and fails with the first one.
///
/// # Errors
///
/// Something in a worktree runs, is in progress or cannot be saved, or the host's.
pub(super) async fn rm(context: &Context, args: RmArgs) -> Result<u8, CliError> {
    let (client, output) = (context.client()?, context.output);
    let mut attempts = Vec::new();
    for text in &args.attempts {
        attempts.push(ids::attempt(&client, text).await?);
    }
    let options = RemoveOptions {
        force: args.force,
        discard_unsaved: args.discard_unsaved,
        delete_branch: args.delete_branch,
    };
    let mut failed: Option<CliError> = None;
    for id in attempts {
        let before = client.snapshots(id).await.map(|list| list.items.len()).unwrap_or_default();
        let what = format!("saving and removing {} …", id.short());
        match patiently(output, &what, client.remove(id, options)).await {
            Ok(view) if output.json => output.object(&view)?,
            Ok(_) => {
                output.note(&format!("removed {}", id.short()));
                // What was saved is a remark: the removal is done.
                let saved = client.snapshots(id).await.map(|list| list.items).unwrap_or_default();
                if let Some(snapshot) = saved.first().filter(|_| saved.len() > before) {
                    describe(output, snapshot);
                }
            }
            Err(error) => {
                let mut error = CliError::from(error);
                if error.view.kind == "busy" && !args.force {
                    let force = "`windlass rm --force` stops what windlass started in it";
                    let hint = error.view.hint.take().unwrap_or_default();
                    error.view.hint = Some(format!("{hint}; {force}"));
                }
                if let Some(earlier) = failed.replace(error) {
                    earlier.print(output.json);
                }
            }
        }
    }
    failed.map_or(Ok(0), Err)
}

/// Tells what a snapshot holds, and what it does not.
fn describe(output: Output, snapshot: &SnapshotView) {
    output.note(&format!(
        "  saved as snapshot {}: {} in {}",
        snapshot.number,
        contents(snapshot),
        size(snapshot.archive_bytes)
    ));
    if let Some(left_out) = left_out(snapshot) {
        output.note(&format!("  not saved: {left_out}"));
    }
}

/// Counts what a snapshot holds.
fn contents(snapshot: &SnapshotView) -> String {
    let counted = [
        (snapshot.entries, "entry", "entries"),
        (snapshot.deleted, "deletion", "deletions"),
        (snapshot.commits, "commit", "commits"),
    ];
    let parts: Vec<_> = counted
        .iter()
        .filter(|(count, ..)| *count > 0)
        .map(|(count, one, many)| format!("{count} {}", if *count == 1 { one } else { many }))
        .collect();
    if parts.is_empty() { "git state".to_owned() } else { parts.join(", ") }
}

/// Names what a snapshot does not hold; `None` if it holds everything.
fn left_out(snapshot: &SnapshotView) -> Option<String> {
    let one = |left: &LeftOut| {
        let name = printable(&String::from_utf8_lossy(left.path.as_bytes()));
        let why = match left.reason {
            LeftOutReason::Ignored => "ignored",
            LeftOutReason::Discarded => "discarded",
        };
        format!("{name} ({why}, {})", size(left.bytes))
    };
    let mut named: Vec<_> = snapshot.left_out.iter().map(one).collect();
    if snapshot.more_left_out > 0 {
        named.push(format!("{} more", snapshot.more_left_out));
    }
    (!named.is_empty()).then(|| named.join(", "))
}

/// Brings a removed worktree back.
///
/// # Errors
///
/// There is nothing to make it from, or the host's.
pub(super) async fn restore(context: &Context, args: RestoreArgs) -> Result<u8, CliError> {
    let (client, output) = (context.client()?, context.output);
    let id = ids::attempt(&client, &args.attempt).await?;
    let snapshot = args.snapshot.map(SnapshotNumber);
    let what = format!("restoring {} …", id.short());
    let before = client.attempt(id).await?;
    let view = patiently(output, &what, client.restore(id, snapshot)).await?;
    if let Some(text) = what_is_other(&before, &view) {
        output.note(&format!("windlass: {text}"));
    }
    if output.json {
        output.object(&view)?;
    } else {
        // As `path` prints it: byte for byte.
        output.bytes(&[view.worktree.as_bytes(), b"\n"].concat())?;
    }
    Ok(0)
}

/// Says what people may not expect of a worktree that was made again.
fn what_is_other(before: &AttemptView, after: &AttemptView) -> Option<String> {
    let was_there = before.status != AttemptStatus::Removed && !before.missing;
    if was_there {
        return Some(format!("{} was not removed; it is as it was", after.id.short()));
    }
    match (&before.branch, &after.branch) {
        (Some(branch), None) => {
            let head = after.head.as_ref().map(|head| head.0.get(..10).unwrap_or(&head.0));
            Some(format!(
                "HEAD is detached at {}: branch {branch} was moved, deleted or checked out elsewhere, and is left alone",
                head.unwrap_or("its commit")
            ))
        }
        (Some(branch), Some(other)) if branch != other => {
            Some(format!("it is on branch {other}; its branch was {branch}"))
        }
        _ => None,
    }
}

/// Lists an attempt's snapshots, or removes one.
///
/// # Errors
///
/// The host's.
pub(super) async fn snapshots(context: &Context, args: SnapshotsArgs) -> Result<u8, CliError> {
    let (client, output) = (context.client()?, context.output);
    let id = ids::attempt(&client, &args.attempt).await?;
    if let Some(number) = args.rm {
        let view = client.remove_snapshot(id, SnapshotNumber(number), args.force).await?;
        if output.json {
            output.object(&view)?;
        } else {
            output.note(&format!("removed snapshot {number} of {}", id.short()));
        }
        return Ok(0);
    }
    let list = client.snapshots(id).await?.items;
    if output.json {
        return list.iter().try_for_each(|item| output.object(item)).map(|()| 0);
    }
    if !list.is_empty() {
        let head = ["N", "AGE", "WHY", "HOLDS", "SIZE", "NOT SAVED", "ARCHIVE"];
        let rows: Vec<_> = list.iter().map(|item| row(item, now_ms())).collect();
        output.bytes(fitted_table(output, &head, &["NOT SAVED"], &rows).as_bytes())?;
    }
    Ok(0)
}

fn row(snapshot: &SnapshotView, now: u64) -> Vec<Cell> {
    vec![
        snapshot.number.to_string().into(),
        age(now.saturating_sub(snapshot.created_at.0.0)).into(),
        word(&snapshot.cause).into(),
        contents(snapshot).into(),
        size(snapshot.archive_bytes).into(),
        left_out(snapshot).unwrap_or_else(|| "nothing".to_owned()).into(),
        String::from_utf8_lossy(snapshot.archive.as_bytes()).into_owned().into(),
    ]
}

/// The word of a value as JSON has it, for people.
fn word(value: &impl serde::Serialize) -> String {
    let word = serde_json::to_value(value).ok().and_then(|word| word.as_str().map(str::to_owned));
    word.unwrap_or_default().replace('_', " ")
}

/// Cleans up, or says what that would do; or notes which worktrees stay.
///
/// # Errors
///
/// The host's.
pub(super) async fn gc(context: &Context, args: GcArgs) -> Result<u8, CliError> {
    let (client, output) = (context.client()?, context.output);
    if !args.keep.is_empty() || !args.no_keep.is_empty() {
        let named = args.keep.iter().map(|text| (text, true));
        for (text, keep) in named.chain(args.no_keep.iter().map(|text| (text, false))) {
            let id = ids::attempt(&client, text).await?;
            let view = client.keep(id, keep).await?;
            if output.json {
                output.object(&view)?;
            } else {
                let what = if keep { "stays" } else { "may go when it is idle" };
                output.note(&format!("the worktree of {} {what}", id.short()));
            }
        }
        return Ok(0);
    }
    let options = GcOptions { dry_run: args.dry_run };
    let items = patiently(output, "cleaning up …", client.gc(options)).await?.items;
    let failed = items.iter().any(|item| item.error.is_some());
    if output.json {
        items.iter().try_for_each(|item| output.object(item))?;
    } else if !items.is_empty() {
        let head = ["WHAT", "ATTEMPT", "ACTION", "REASON", "PATH"];
        let rows: Vec<_> = items.iter().map(item_row).collect();
        output.bytes(fitted_table(output, &head, &["REASON"], &rows).as_bytes())?;
    }
    Ok(u8::from(failed))
}

fn item_row(item: &GcItemView) -> Vec<Cell> {
    let what = match item.what {
        Thing::Worktree => "worktree",
        Thing::Snapshot => "snapshot",
    };
    let style = match (&item.error, item.action) {
        (Some(_), _) => Style::Bad,
        (None, Action::Keep) => Style::Dim,
        (None, _) => Style::Active,
    };
    let reason = match &item.error {
        Some(error) => format!("{}; not done: {error}", item.reason),
        None => item.reason.clone(),
    };
    vec![
        what.into(),
        item.attempt_id.map(|id| id.short().to_string()).unwrap_or_default().into(),
        Cell::styled(word(&item.action), style),
        reason.into(),
        String::from_utf8_lossy(item.path.as_bytes()).into_owned().into(),
    ]
}
