//! `show` and `path`: everything about one attempt or execution.

use windlass::core::locator::Locator;
use windlass::view::{AttemptView, ExecutionView};

use super::chain::reason_word;
use super::list::{command_of, measure, state};
use super::outcome::{not_committed, repositories_within};
use super::send::why_held;
use crate::args::{PathArgs, ShowArgs};
use crate::context::Context;
use crate::duration;
use crate::error::CliError;
use crate::ids::{self, Named};
use crate::output::Output;
use crate::table::{pairs, printable, size};

/// How many characters of a message are shown.
const SHOWN: usize = 60;

/// How many executions of an attempt are shown with their reasons.
const NAMED: usize = 20;

/// Shows everything about one.
///
/// # Errors
///
/// There is none, or the host's.
pub(super) async fn show(context: &Context, args: ShowArgs) -> Result<u8, CliError> {
    let (client, output) = (context.client()?, context.output);
    match ids::any(&client, &args.id).await? {
        Named::Execution(id) => {
            let view = client.execution(id).await?;
            if output.json {
                output.object(&view)?;
            } else {
                output.bytes(execution_text(output, &view).as_bytes())?;
            }
        }
        Named::Attempt(id) => {
            let mut view = client.attempt(id).await?;
            measure(&mut view).await;
            if output.json {
                output.object(&view)?;
            } else {
                let within = repositories_within(&client, &view).await?;
                let mut newest = Vec::new();
                for id in view.executions.iter().flatten().take(NAMED) {
                    newest.push(client.execution(*id).await?);
                }
                output.bytes(attempt_text(output, &view, &within, &newest).as_bytes())?;
            }
        }
    }
    Ok(0)
}

/// Prints the path of an attempt's worktree, byte for byte.
///
/// # Errors
///
/// There is none, or the host's.
pub(super) async fn path(context: &Context, args: PathArgs) -> Result<u8, CliError> {
    let client = context.client()?;
    let view = client.attempt(ids::attempt(&client, &args.attempt).await?).await?;
    if context.output.json {
        context.output.object(&serde_json::json!({ "id": view.id, "worktree": view.worktree }))?;
    } else {
        let mut line = view.worktree.as_bytes().to_vec();
        line.push(b'\n');
        context.output.bytes(&line)?;
    }
    Ok(0)
}

fn execution_text(output: Output, view: &ExecutionView) -> String {
    let mut rows = vec![
        ("execution", format!("{} ({})", view.id.short(), view.id)),
        ("attempt", view.attempt_id.short()),
        ("command", command_of(view)),
        ("directory", view.cwd.to_string()),
        ("reason", word(&view.run_reason)),
        ("status", state(view)),
    ];
    if let Some(pid) = view.pid {
        rows.push(("process", pid.to_string()));
    }
    rows.push(("created", view.created_at.to_string()));
    rows.extend(view.started_at.map(|at| ("started", at.to_string())));
    rows.extend(view.ended_at.map(|at| ("ended", at.to_string())));
    rows.extend(view.duration_ms.map(|ms| ("took", duration::show(ms))));
    rows.extend(view.timeout_ms.map(|ms| ("timeout", duration::show(ms))));
    rows.extend(view.waiting_for.map(|what| match view.queue {
        Some(0) => ("waits for", format!("{}, as the next", word(&what))),
        Some(before) => ("waits for", format!("{}, {before} before it", word(&what))),
        None => match &view.missing_secret {
            Some(name) => ("waits for", format!("the secret {name}, which has no value any more")),
            None => ("waits for", word(&what)),
        },
    }));
    rows.extend(view.before_head.as_ref().map(|oid| ("HEAD before", oid.to_string())));
    rows.extend(view.after_head.as_ref().map(|oid| ("HEAD after", oid.to_string())));
    rows.extend(view.committed.as_ref().map(|oid| ("committed", oid.to_string())));
    if let Some(log) = &view.log {
        let mut text = format!("{} in {} entries", size(log.bytes), log.entries);
        if log.dropped_bytes > 0 {
            text.push_str(&format!(", {} of it dropped", size(log.dropped_bytes)));
        }
        if view.output_incomplete {
            text.push_str(", incomplete");
        }
        rows.push(("log", text));
    }
    rows.extend(view.owner.clone().map(|owner| ("owner", owner)));
    rows.extend(view.superseded_by.map(|id| ("superseded by", id.short())));
    rows.extend(view.followed_by.map(|id| ("followed by", id.short())));
    pairs(output, &rows)
}

fn attempt_text(
    output: Output,
    view: &AttemptView,
    within: &[Locator],
    newest: &[ExecutionView],
) -> String {
    let mut rows = vec![
        ("attempt", format!("{} ({})", view.id.short(), view.id)),
        ("title", printable(&view.title)),
        ("status", view.status.as_str().to_owned()),
    ];
    rows.extend(view.task_id.map(|task| ("task", task.short())));
    rows.extend(view.reason.as_ref().map(|reason| ("reason", reason_text(reason))));
    rows.extend(view.repo.as_ref().map(|repo| ("repository", repo.to_string())));
    let gone = if view.missing { " (gone: somebody deleted it)" } else { "" };
    rows.push(("worktree", format!("{}{gone}", view.worktree)));
    match &view.branch {
        Some(branch) => rows.push(("branch", branch.clone())),
        None if view.repo.is_some() => rows.push(("branch", "none: HEAD is detached".to_owned())),
        None => {}
    }
    if let (Some(base), Some(oid)) = (&view.base, &view.base_oid) {
        rows.push(("base", format!("{base} ({oid})")));
    }
    rows.extend(view.target.clone().map(|target| ("target", target)));
    rows.extend(where_it_is(view));
    rows.extend(view.port_base.map(|port| ("ports", format!("from {port} on"))));
    rows.extend(view.head.as_ref().map(|head| ("head", head.to_string())));
    if let (Some(ahead), Some(behind)) = (view.ahead, view.behind) {
        rows.push(("commits", format!("{ahead} ahead, {behind} behind")));
    }
    rows.extend(view.dirty.map(|dirty| ("dirty", if dirty { "yes" } else { "no" }.to_owned())));
    rows.extend(view.not_saved.as_deref().map(|why| ("not saved", printable(why))));
    rows.extend(not_committed(within).map(|text| ("", text)));
    rows.extend(view.disk_bytes.map(|bytes| ("disk", size(bytes))));
    rows.push(("created", view.created_at.to_string()));
    rows.extend(view.removed_at.map(|at| ("removed", at.to_string())));
    rows.extend(view.queue_held.map(|hold| ("queue held", why_held(Some(hold)).to_owned())));
    for attached in &view.attachments {
        rows.push(("attachment", format!("{} ({})", attached.name, size(attached.bytes))));
    }
    for message in &view.queue {
        let (id, status) = (message.id.short(), message.status.as_str());
        let text = message.text.lines().next().unwrap_or_default();
        let text: String = text.chars().take(SHOWN).collect();
        rows.push((
            "message",
            format!("{id} {status} (version {}): {}", message.version, printable(&text)),
        ));
    }
    for (n, execution) in newest.iter().enumerate() {
        let (id, reason) = (execution.id.short(), reason_word(execution.run_reason));
        let name = if n == 0 { "executions" } else { "" };
        rows.push((name, format!("{id} {reason}: {}", state(execution))));
    }
    let all = view.executions.as_ref().map_or(0, Vec::len);
    if all > newest.len() {
        rows.push(("", format!("and {} older ones", all - newest.len())));
    }
    pairs(output, &rows)
}

/// Says where the commits of an attempt are, and what is in progress with them.
fn where_it_is(view: &AttemptView) -> Vec<(&'static str, String)> {
    let history = &view.history;
    let mut rows = Vec::new();
    if let Some(merged) = &history.merged {
        let later = view.head.as_ref().is_some_and(|head| *head != merged.head);
        let later = if later { "; it has other commits by now" } else { "" };
        rows.push(("merged", format!("into {} ({}){later}", merged.target, merged.commit)));
    } else if history.landed == Some(true) {
        rows.push(("merged", "all of it is in the target, not by windlass".to_owned()));
    }
    rows.extend(history.half_merged.as_ref().map(|target| {
        let target = printable(target);
        ("half merged", format!("a checkout of {target} may have a part; merging again ends it"))
    }));
    rows.extend(history.integrating.map(|doing| ("under way", word(&doing))));
    rows.extend(history.in_progress.map(|what| ("in progress", word(&what))));
    rows.extend(history.conflicts.iter().map(|file| ("conflict", printable(file))));
    for request in &history.pull_requests {
        rows.push((
            "pull request",
            format!("{} ({})", printable(&request.url), word(&request.state)),
        ));
    }
    rows
}

fn reason_text(reason: &windlass::core::record::Reason) -> String {
    use windlass::core::record::Reason;
    match reason {
        Reason::Stopped => "it was stopped".to_owned(),
        Reason::EndedBadly { execution } => format!("{} did not end well", execution.short()),
        Reason::CleanupFailed { execution } => {
            format!("its cleanup {} did not end well", execution.short())
        }
        Reason::ResetFailed { output, .. } => {
            format!("the worktree could not be put back: {}", printable(output.trim()))
        }
        Reason::CommitFailed { output, .. } if output.trim().is_empty() => {
            "the changes could not be committed".to_owned()
        }
        Reason::CommitFailed { output, .. } => {
            format!("the changes could not be committed: {}", printable(output.trim()))
        }
        Reason::WorkspaceFailed { message, execution } => {
            let more = execution.map(|id| format!(" (windlass logs {} has all of it)", id.short()));
            let more = more.unwrap_or_default();
            format!("the workspace could not be made: {}{more}", printable(message))
        }
        Reason::RemoveFailed { message } => {
            format!("the workspace could not be removed: {}", printable(message))
        }
    }
}

/// Returns the word that a value has in JSON.
pub(super) fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use windlass::core::action::{ActionKind, RunReason};
    use windlass::core::id::{AttemptId, ExecutionId};
    use windlass::core::locator::Locator;
    use windlass::core::outcome::{Exit, Outcome};
    use windlass::core::record::{AttemptStatus, Reason};
    use windlass::core::time::Timestamp;
    use windlass::core::workspace::Oid;
    use windlass::view::{HistoryView, OutcomeView, Time};

    use super::*;

    /// An execution that failed with 3.
    pub(crate) fn execution() -> ExecutionView {
        ExecutionView {
            schema: 1,
            id: ExecutionId(uuid::Uuid::from_u128(2)),
            attempt_id: AttemptId(uuid::Uuid::from_u128(1)),
            owner: None,
            client_key: None,
            run_reason: RunReason::Agent,
            action: ActionKind::Command { argv: vec!["make".into(), "test".into()] },
            cwd: Locator::new(b"/w".to_vec()),
            status: "failed".to_owned(),
            outcome: Some(OutcomeView { outcome: Outcome::Exited { code: 3 }, message: None }),
            exit: Some(Exit::Code(3)),
            exit_code: Some(3),
            pid: None,
            created_at: Time(Timestamp(0)),
            started_at: Some(Time(Timestamp(100))),
            ended_at: Some(Time(Timestamp(1_334))),
            duration_ms: Some(1_234),
            timeout_ms: None,
            queue: None,
            waiting_for: None,
            missing_secret: None,
            before_head: None,
            after_head: None,
            committed: None,
            log: None,
            preview: None,
            survivors: Vec::new(),
            output_incomplete: false,
            superseded_by: None,
            followed_by: None,
        }
    }

    /// An attempt that was not measured.
    pub(crate) fn attempt() -> AttemptView {
        AttemptView {
            schema: 1,
            id: AttemptId(uuid::Uuid::from_u128(1)),
            task_id: None,
            title: "Try it".to_owned(),
            status: AttemptStatus::Held,
            reason: Some(Reason::Stopped),
            repo: Some(Locator::new(b"/r/.git".to_vec())),
            worktree: Locator::new(b"/w".to_vec()),
            branch: Some("windlass/x".to_owned()),
            base: Some("main".to_owned()),
            base_oid: Some(Oid("abc".to_owned())),
            target: None,
            head: None,
            ahead: None,
            behind: None,
            dirty: None,
            active: None,
            queue: Vec::new(),
            queue_held: None,
            snapshots: 0,
            not_saved: None,
            missing: false,
            keep: false,
            port_base: None,
            attachments: Vec::new(),
            history: HistoryView::default(),
            executions: None,
            disk_bytes: None,
            created_at: Time(Timestamp(1_000)),
            removed_at: None,
        }
    }

    const PLAIN: Output =
        Output { json: false, quiet: false, color: false, is_terminal: false, width: None };

    #[test]
    fn what_is_known_is_shown_and_nothing_else() {
        let text = execution_text(PLAIN, &execution());
        assert!(text.contains("\nstatus     failed with code 3\n"), "{text}");
        assert!(text.contains("\ntook       1.2s\n"), "{text}");
        assert!(!text.contains("committed"), "{text}");
        let text = attempt_text(PLAIN, &attempt(), &[Locator::new(b"n".to_vec())], &[execution()]);
        assert!(text.contains("\nexecutions  x-00000002 agent: failed with code 3\n"), "{text}");
        assert!(text.contains(" n is a repository of its own and is not committed\n"), "{text}");
        assert!(text.contains("\nreason      it was stopped\n"), "{text}");
        assert!(!text.contains("ahead"), "{text}");
    }
}
