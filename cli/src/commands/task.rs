//! `task`: what somebody wants done.

use std::io::Read as _;
use std::path::Path;

use windlass::api::SetBody;
use windlass::api::client::Client;
use windlass::core::task::TaskStatus;
use windlass::request::{Say, TaskChange, TaskRequest};
use windlass::view::{TaskAttemptView, TaskView};

use super::outcome::style_of;
use crate::args::{DescriptionArgs, SayArg, StatusArg, TaskAction, TaskAddArgs, TaskSetArgs};
use crate::context::Context;
use crate::duration::{age, now_ms};
use crate::error::CliError;
use crate::ids::{self, shortest};
use crate::output::{Output, Style};
use crate::table::{Cell, fitted_table, pairs, printable};

/// More than the host takes: what is longer is not read to its end.
const DESCRIPTION_BYTES: u64 = (1 << 20) + 1;

/// Does what is to be done with tasks.
///
/// # Errors
///
/// There is no such task, it conflicts with something, or the host's.
pub(super) async fn task(context: &Context, action: TaskAction) -> Result<u8, CliError> {
    let output = context.output;
    match action {
        TaskAction::Add(args) => add(context, args).await?,
        TaskAction::Ls { project, status } => list(context, project, status).await?,
        TaskAction::Show { task } => {
            let client = context.client()?;
            let view = client.task(ids::task(&client, &task).await?).await?;
            if output.json {
                output.object(&view)?;
            } else {
                let project = client.project(view.project_id).await?;
                output.bytes(text(output, &view, &project.name).as_bytes())?;
            }
        }
        TaskAction::Set(args) => set(context, args).await?,
        TaskAction::Rm { task, attempts } => {
            let client = context.client()?;
            let id = ids::task(&client, &task).await?;
            client.remove_task(id, attempts).await?;
            if output.json {
                output.object(&serde_json::json!({ "id": id }))?;
            } else {
                output.note(&format!("removed {}", id.short()));
            }
        }
    }
    Ok(0)
}

async fn add(context: &Context, args: TaskAddArgs) -> Result<(), CliError> {
    let TaskAddArgs { title, project, description, parent } = args;
    // Before anything is asked of the host: it may be what somebody types.
    let description = read(description)?.unwrap_or_default();
    let (client, output) = (context.client()?, context.output);
    let project = match project {
        Some(text) => ids::project(&client, &text).await?,
        None => ids::project_here(&client).await?,
    };
    let parent = match parent {
        Some(text) => Some(ids::attempt(&client, &text).await?),
        None => None,
    };
    let request = TaskRequest { project: project.id, title, description, parent };
    let view = client.add_task(&request).await?;
    if output.json {
        return output.object(&view);
    }
    let id = ids::short_planned(&client, 't', view.id.0).await?;
    output.note(&format!("added a task to project {}", printable(&project.name)));
    output.line(&id)
}

async fn set(context: &Context, args: TaskSetArgs) -> Result<(), CliError> {
    let TaskSetArgs { task, title, description, status, if_version } = args;
    let status = status.map(|status| match status {
        SayArg::Todo => Say::Todo,
        SayArg::Done => Say::Done,
        SayArg::Cancelled => Say::Cancelled,
        SayArg::Archived => Say::Archived,
        SayArg::Reopen => Say::Reopen,
    });
    let change = TaskChange { title, description: read(description)?, status };
    if change == TaskChange::default() {
        return Err(CliError::usage(
            "there is nothing to change",
            "name what is to be changed: windlass task set --help",
        ));
    }
    let (client, output) = (context.client()?, context.output);
    let id = ids::task(&client, &task).await?;
    let view = client.set_task(id, &SetBody { version: if_version, change }).await?;
    if output.json {
        return output.object(&view);
    }
    let (id, status) = (id.short(), view.status.as_str());
    output.note(&format!("{id} is {status}, at version {}", view.version));
    Ok(())
}

/// Takes a description from where it is.
fn read(from: DescriptionArgs) -> Result<Option<String>, CliError> {
    let DescriptionArgs { description, description_file } = from;
    let Some(path) = description_file else { return Ok(description) };
    let is_stdin = path == Path::new("-");
    let mut text = String::new();
    let read = if is_stdin {
        std::io::stdin().lock().take(DESCRIPTION_BYTES).read_to_string(&mut text)
    } else {
        let file = std::fs::File::open(&path);
        file.and_then(|file| file.take(DESCRIPTION_BYTES).read_to_string(&mut text))
    };
    let what = if is_stdin { "standard input".to_owned() } else { path.display().to_string() };
    read.map_err(|error| CliError::io(format!("read {what}"), &error))?;
    Ok(Some(text))
}

async fn list(
    context: &Context,
    project: Option<String>,
    status: Option<StatusArg>,
) -> Result<(), CliError> {
    let (client, output) = (context.client()?, context.output);
    let project = match project {
        Some(text) => Some(ids::project(&client, &text).await?.id),
        None => None,
    };
    let status = status.map(status_of);
    let (mut before, mut shown) = (None, Vec::new());
    loop {
        let page = client.tasks(project, status, before.as_deref()).await?;
        if output.json {
            page.items.iter().try_for_each(|view| output.object(view))?;
        } else {
            shown.extend(page.items);
        }
        match page.next {
            Some(next) => before = Some(next),
            None => break,
        }
    }
    if shown.is_empty() {
        return Ok(());
    }
    let rows = rows(&client, &shown).await?;
    let head = ["TASK", "STATUS", "PROJECT", "ATTEMPTS", "AGE", "TITLE"];
    output.bytes(fitted_table(output, &head, &["PROJECT", "TITLE"], &rows).as_bytes())
}

async fn rows(client: &Client, tasks: &[TaskView]) -> Result<Vec<Vec<Cell>>, CliError> {
    let all: Vec<_> = tasks.iter().map(|view| view.id.0).collect();
    let projects = client.projects().await?.items;
    let row = |view: &TaskView| {
        let project = projects.iter().find(|project| project.id == view.project_id);
        vec![
            shortest('t', view.id.0, &all).into(),
            Cell::styled(view.status.as_str(), style(view.status)),
            project.map_or_else(|| view.project_id.short(), |project| project.name.clone()).into(),
            view.attempts.len().to_string().into(),
            age(now_ms().saturating_sub(view.created_at.0.0)).into(),
            view.title.as_str().into(),
        ]
    };
    Ok(tasks.iter().map(row).collect())
}

fn status_of(status: StatusArg) -> TaskStatus {
    match status {
        StatusArg::Todo => TaskStatus::Todo,
        StatusArg::InProgress => TaskStatus::InProgress,
        StatusArg::InReview => TaskStatus::InReview,
        StatusArg::Done => TaskStatus::Done,
        StatusArg::Cancelled => TaskStatus::Cancelled,
        StatusArg::Archived => TaskStatus::Archived,
    }
}

fn style(status: TaskStatus) -> Style {
    match status {
        TaskStatus::Todo => Style::Plain,
        TaskStatus::InProgress | TaskStatus::InReview => Style::Active,
        TaskStatus::Done => Style::Good,
        TaskStatus::Cancelled | TaskStatus::Archived => Style::Dim,
    }
}

fn text(output: Output, view: &TaskView, project: &str) -> String {
    let mut rows = vec![
        ("task", format!("{} ({})", view.id.short(), view.id)),
        ("title", printable(&view.title)),
        ("status", view.status.as_str().to_owned()),
        ("project", printable(project)),
    ];
    rows.extend(view.parent_attempt_id.map(|id| ("goes on from", id.short())));
    rows.extend(view.owner.clone().map(|owner| ("owner", owner)));
    rows.push(("version", view.version.to_string()));
    rows.push(("created", view.created_at.to_string()));
    let mut text = pairs(output, &rows);
    if !view.description.trim().is_empty() {
        text.push('\n');
        for line in view.description.trim_end().lines() {
            text.push_str(printable(line).trim_end());
            text.push('\n');
        }
    }
    if !view.attempts.is_empty() {
        text.push('\n');
        let all: Vec<_> = view.attempts.iter().map(|attempt| attempt.id.0).collect();
        let row = |attempt: &TaskAttemptView| -> Vec<Cell> {
            let status = attempt.status.as_str();
            vec![
                shortest('a', attempt.id.0, &all).into(),
                Cell::styled(status, style_of(status)),
                attempt.branch.as_deref().unwrap_or("-").into(),
                age(now_ms().saturating_sub(attempt.created_at.0.0)).into(),
                attempt.title.as_str().into(),
            ]
        };
        let rows: Vec<_> = view.attempts.iter().map(row).collect();
        let head = ["ATTEMPT", "STATUS", "BRANCH", "AGE", "TITLE"];
        text.push_str(&fitted_table(output, &head, &["BRANCH", "TITLE"], &rows));
    }
    text
}

#[cfg(test)]
mod tests {
    use windlass::core::id::{AttemptId, ProjectId, TaskId};
    use windlass::core::record::AttemptStatus;
    use windlass::core::time::Timestamp;
    use windlass::view::Time;

    use super::*;

    #[test]
    fn a_task_is_shown_with_its_description_and_its_attempts() {
        let output =
            Output { json: false, quiet: false, color: false, is_terminal: false, width: None };
        let attempt = TaskAttemptView {
            id: AttemptId(uuid::Uuid::from_u128(1)),
            title: "Try".to_owned(),
            status: AttemptStatus::Finished,
            branch: Some("windlass/x".to_owned()),
            created_at: Time(Timestamp(0)),
        };
        let view = TaskView {
            schema: 1,
            id: TaskId(uuid::Uuid::from_u128(2)),
            project_id: ProjectId(uuid::Uuid::from_u128(3)),
            title: "Do it".to_owned(),
            description: "first\n\tsecond\x1b[31m\n\n".to_owned(),
            status: TaskStatus::InReview,
            owner: None,
            parent_attempt_id: None,
            attempts: vec![attempt],
            version: 4,
            created_at: Time(Timestamp(0)),
        };
        let text = text(output, &view, "app");
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("task     t-00000002 ("), "{text}");
        assert!(lines.contains(&"status   in_review"), "{text}");
        assert!(text.contains("\n\nfirst\n second [31m\n\nATTEMPT"), "{text}");
        assert!(text.contains("\na-00000001  finished  windlass/x  "), "{text}");
        let brief = TaskView { description: " \n".to_owned(), attempts: Vec::new(), ..view };
        assert_eq!(super::text(output, &brief, "app").lines().count(), 6);
    }
}
