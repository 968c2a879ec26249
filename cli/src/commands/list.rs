//! `ps` and `ls`: executions and attempts, newest first.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use uuid::Uuid;
use windlass::core::action::{ActionKind, RunReason};
use windlass::core::locator::Locator;
use windlass::view::{AttemptView, ExecutionView, Time};

use super::chain::reason_word;
use super::outcome::{style_of, words};
use super::show;
use crate::args::{LsArgs, PsArgs};
use crate::context::Context;
use crate::duration::{age, now_ms, show};
use crate::error::CliError;
use crate::ids::{self, shortest};
use crate::output::Style;
use crate::table::{Cell, fitted_table, printable, size, without_what_does_not_fit};

/// How many items are asked for at once.
const PAGE: u32 = 500;

/// Lists executions.
///
/// # Errors
///
/// The host's.
pub(super) async fn ps(context: &Context, args: PsArgs) -> Result<u8, CliError> {
    let client = context.client()?;
    let all = args.all || args.status.is_some();
    let (mut before, mut shown) = (None, Vec::new());
    loop {
        let page = client.executions(all, args.status.as_deref(), before.as_deref(), PAGE).await?;
        if context.output.json {
            for item in &page.items {
                context.output.object(item)?;
            }
        } else {
            shown.extend(page.items);
        }
        match page.next {
            Some(next) => before = Some(next),
            None => break,
        }
    }
    if !shown.is_empty() {
        let head = ["EXECUTION", "ATTEMPT", "STATUS", "AGE", "TOOK", "COMMAND"];
        let rows = execution_rows(&shown, now_ms());
        context
            .output
            .bytes(fitted_table(context.output, &head, &["COMMAND"], &rows).as_bytes())?;
    }
    Ok(0)
}

fn execution_rows(executions: &[ExecutionView], now: u64) -> Vec<Vec<Cell>> {
    let ids: Vec<Uuid> = executions.iter().map(|view| view.id.0).collect();
    let attempts: Vec<Uuid> = executions.iter().map(|view| view.attempt_id.0).collect();
    let row = |view: &ExecutionView| {
        let took = match (view.started_at, view.duration_ms) {
            (_, Some(ms)) => show(ms),
            (Some(started), None) => show(now.saturating_sub(started.0.0)),
            (None, None) => String::new(),
        };
        let status = match view.exit_code {
            Some(code) if code != 0 => format!("{} ({code})", view.status),
            _ => view.status.clone(),
        };
        vec![
            shortest('x', view.id.0, &ids).into(),
            shortest('a', view.attempt_id.0, &attempts).into(),
            Cell::styled(status, style_of(&view.status)),
            age(ms_ago(view.created_at, now)).into(),
            took.into(),
            what(view).into(),
        ]
    };
    executions.iter().map(row).collect()
}

fn ms_ago(at: Time, now: u64) -> u64 {
    now.saturating_sub(at.0.0)
}

/// The beginning of the names that git steps give their scripts.
const STEP: &[u8] = b"windlass-";

/// Says in a few words what an execution runs: a git step by its name, not by the script that it is made of.
#[must_use]
pub(super) fn what(view: &ExecutionView) -> String {
    match view.run_reason {
        RunReason::Setup | RunReason::Cleanup => {
            format!("{}: {}", reason_word(view.run_reason), command_of(view))
        }
        RunReason::Agent | RunReason::DevServer | RunReason::Background | RunReason::Git => {
            command_of(view)
        }
    }
}

/// The same without the reason of a script of the chain.
#[must_use]
pub(super) fn command_of(view: &ExecutionView) -> String {
    if view.run_reason != RunReason::Git {
        return command(&view.action);
    }
    let name = match &view.action {
        // A shell, -c, a script, its name.
        ActionKind::Command { argv } => argv.get(3).and_then(|name| name.0.strip_prefix(STEP)),
        ActionKind::Script { .. } => None,
    };
    name.map_or_else(|| "git".to_owned(), |name| printable(&String::from_utf8_lossy(name)))
}

/// Returns a command as people type it, more or less.
#[must_use]
pub(super) fn command(action: &ActionKind) -> String {
    match action {
        ActionKind::Script { script, .. } => printable(script),
        ActionKind::Command { argv } => {
            let words = argv.iter().map(|word| {
                let word = printable(&String::from_utf8_lossy(&word.0));
                if word.is_empty() || word.contains([' ', '\'', '"']) {
                    format!("'{}'", word.replace('\'', "'\\''"))
                } else {
                    word
                }
            });
            words.collect::<Vec<_>>().join(" ")
        }
    }
}

/// Lists attempts.
///
/// # Errors
///
/// The host's.
pub(super) async fn ls(context: &Context, args: LsArgs) -> Result<u8, CliError> {
    let client = context.client()?;
    let task = match &args.task {
        Some(text) => Some(ids::task(&client, text).await?),
        None => None,
    };
    let (mut before, mut shown) = (None, Vec::new());
    loop {
        let mut page = match task {
            Some(task) => client.attempts_of(task, args.all, before.as_deref(), true).await?,
            None => client.attempts(args.all, None, before.as_deref(), true).await?,
        };
        for item in &mut page.items {
            measure(item).await;
        }
        if context.output.json {
            for item in &page.items {
                context.output.object(item)?;
            }
        } else {
            shown.extend(page.items);
        }
        match page.next {
            Some(next) => before = Some(next),
            None => break,
        }
    }
    if !shown.is_empty() {
        let head =
            ["ATTEMPT", "STATUS", "BRANCH", "BASE", "COMMITS", "DIRTY", "DISK", "AGE", "TITLE"];
        let rows = attempt_rows(&shown, now_ms());
        let may_be_cut = ["BRANCH", "BASE", "TITLE"];
        let (head, rows) = without_what_does_not_fit(context.output, &head, &may_be_cut, rows);
        context.output.bytes(fitted_table(context.output, &head, &may_be_cut, &rows).as_bytes())?;
    }
    Ok(0)
}

fn attempt_rows(attempts: &[AttemptView], now: u64) -> Vec<Vec<Cell>> {
    let ids: Vec<Uuid> = attempts.iter().map(|view| view.id.0).collect();
    let row = |view: &AttemptView| {
        let word = view.status.as_str();
        let status = match view.active.map(|active| active.run_reason) {
            Some(reason @ (RunReason::Setup | RunReason::Cleanup)) => {
                format!("{word} ({})", reason_word(reason))
            }
            Some(_) | None if view.history.integrating.is_some() => {
                let doing = view.history.integrating.as_ref().map(show::word).unwrap_or_default();
                format!("{word} ({doing})")
            }
            Some(_) | None if view.history.in_progress.is_some() => {
                let files = view.history.conflicts.len();
                format!("{word} ({files} conflicts)")
            }
            Some(_) | None if view.history.landed == Some(true) => format!("{word} (merged)"),
            Some(_) | None => match view.queue.len() {
                0 => word.to_owned(),
                waiting if view.queue_held.is_some() => format!("{word} ({waiting} held)"),
                waiting => format!("{word} ({waiting} wait)"),
            },
        };
        let dirty = match view.dirty {
            Some(true) => Cell::styled("yes", Style::Active),
            Some(false) => "no".into(),
            None if view.missing => Cell::styled("gone", Style::Bad),
            None => "-".into(),
        };
        vec![
            shortest('a', view.id.0, &ids).into(),
            Cell::styled(status, style_of(word)),
            view.branch.as_deref().unwrap_or("-").into(),
            view.base.as_deref().unwrap_or("-").into(),
            match (view.ahead, view.behind) {
                (Some(ahead), Some(behind)) => format!("+{ahead} -{behind}").into(),
                _ => "-".into(),
            },
            dirty,
            view.disk_bytes.map_or_else(|| "-".to_owned(), size).into(),
            age(ms_ago(view.created_at, now)).into(),
            view.title.as_str().into(),
        ]
    };
    attempts.iter().map(row).collect()
}

/// Adds what an attempt's worktree takes on this machine's disk. The user's own directory is not walked.
pub(super) async fn measure(attempt: &mut AttemptView) {
    if attempt.repo.is_none() || attempt.removed_at.is_some() {
        return;
    }
    let path = attempt.worktree.clone();
    let walked = tokio::task::spawn_blocking(move || disk_bytes(&path)).await;
    attempt.disk_bytes = walked.ok().flatten();
}

/// Sums what a directory takes, links not followed, other file systems left out; `None` if it is not there.
fn disk_bytes(path: &Locator) -> Option<u64> {
    let root = Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()));
    let metadata = std::fs::symlink_metadata(root).ok()?;
    let device = metadata.dev();
    let (mut bytes, mut todo) = (metadata.blocks() * 512, vec![root.to_owned()]);
    while let Some(directory) = todo.pop() {
        // What goes away or cannot be read while it is walked takes nothing.
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.dev() != device {
                continue;
            }
            bytes += metadata.blocks() * 512;
            if metadata.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    Some(bytes)
}

/// Shows how an execution stands, in a few words.
#[must_use]
pub(super) fn state(view: &ExecutionView) -> String {
    if view.has_ended() { words(view) } else { view.status.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::show::tests::{attempt, execution};
    use crate::output::Output;

    const PLAIN: Output =
        Output { json: false, quiet: false, color: false, is_terminal: false, width: None };

    #[test]
    fn commands_are_shown_as_typed() {
        let action =
            ActionKind::Command { argv: vec!["sh".into(), "-c".into(), "a 'b'\nc".into()] };
        assert_eq!(command(&action), "sh -c 'a '\\''b'\\'' c'");
        let action =
            ActionKind::Script { shell: "/bin/sh".to_owned(), script: "make\n".to_owned() };
        assert_eq!(command(&action), "make ");
    }

    #[test]
    fn a_git_step_is_shown_by_its_name() {
        let mut view = execution();
        let argv = ["/bin/sh", "-c", "git=$1 …", "windlass-commit", "/usr/bin/git", "message"];
        view.action = ActionKind::Command { argv: argv.map(Into::into).to_vec() };
        assert!(what(&view).starts_with("/bin/sh -c"), "a command of the user's is shown as it is");
        view.run_reason = RunReason::Git;
        assert_eq!(what(&view), "commit");
        view.action = ActionKind::Command { argv: vec!["git".into(), "fetch".into()] };
        assert_eq!(what(&view), "git");
    }

    #[test]
    fn executions_are_a_row_each() {
        let head = ["A", "B", "C", "D", "E", "F"];
        let text = fitted_table(PLAIN, &head, &[], &execution_rows(&[execution()], 65_000));
        let row = text.lines().nth(1).unwrap();
        assert_eq!(row, "x-00000002  a-00000001  failed (3)  1m  1.2s  make test");
    }

    #[test]
    fn what_is_unknown_of_an_attempt_is_a_dash() {
        let head = ["A", "S", "BR", "B", "C", "D", "DISK", "AGE", "T"];
        let text = fitted_table(PLAIN, &head, &[], &attempt_rows(&[attempt()], 1_000));
        let row = text.lines().nth(1).unwrap();
        let words: Vec<_> = row.split_whitespace().collect();
        assert_eq!(
            words,
            ["a-00000001", "held", "windlass/x", "main", "-", "-", "-", "now", "Try", "it"]
        );
    }

    #[test]
    fn a_directory_is_measured_without_following_links() {
        let root = tempfile::tempdir().unwrap();
        let inside = root.path().join("inside");
        std::fs::create_dir(&inside).unwrap();
        std::fs::write(inside.join("file"), vec![1; 100_000]).unwrap();
        std::os::unix::fs::symlink("/", inside.join("link")).unwrap();
        let bytes = disk_bytes(&Locator::new(inside.as_os_str().as_bytes())).unwrap();
        assert!((100_000..200_000).contains(&bytes), "{bytes}");
        assert_eq!(disk_bytes(&Locator::new(b"/nonexistent".to_vec())), None);
    }
}
