//! `project`: repositories with what their attempts have in common.

use std::path::PathBuf;

use windlass::api::SetBody;
use windlass::api::client::Client;
use windlass::core::record::CommitPolicy;
use windlass::request::{ProjectChange, ProjectRequest};
use windlass::view::ProjectView;

use crate::args::{DefaultsArgs, ProjectAction, ProjectAddArgs, ProjectSetArgs, Unset};
use crate::context::Context;
use crate::duration::{age, now_ms};
use crate::error::CliError;
use crate::ids::{self, shortest};
use crate::launch;
use crate::output::Output;
use crate::table::{Cell, fitted_table, pairs, printable};

/// Does what is to be done with projects.
///
/// # Errors
///
/// There is no such project, it conflicts with something, or the host's.
pub(super) async fn project(context: &Context, action: ProjectAction) -> Result<u8, CliError> {
    let (client, output) = (context.client()?, context.output);
    match action {
        ProjectAction::Add(args) => add(&client, output, args).await?,
        ProjectAction::Ls => list(output, &client.projects().await?.items)?,
        ProjectAction::Show { project } => {
            let view = match project {
                Some(text) => ids::project(&client, &text).await?,
                None => ids::project_here(&client).await?,
            };
            show(output, &view)?;
        }
        ProjectAction::Set(args) => set(&client, output, args).await?,
        ProjectAction::Rm { project, force } => {
            let view = ids::project(&client, &project).await?;
            client.remove_project(view.id, force).await?;
            if output.json {
                output.object(&serde_json::json!({ "id": view.id }))?;
            } else {
                output.note(&format!("removed project {}", printable(&view.name)));
            }
        }
    }
    Ok(0)
}

async fn add(client: &Client, output: Output, args: ProjectAddArgs) -> Result<(), CliError> {
    let repo = args.repo.unwrap_or_else(|| PathBuf::from("."));
    launch::is_there(&repo)?;
    let request = ProjectRequest { repo: launch::locator(&repo)?, with: change(args.defaults) };
    let view = client.add_project(&request).await?;
    if output.json {
        return output.object(&view);
    }
    let id = ids::short_planned(client, 'p', view.id.0).await?;
    output.note(&format!("added project {}: {}", printable(&view.name), view.repo));
    output.line(&id)
}

async fn set(client: &Client, output: Output, args: ProjectSetArgs) -> Result<(), CliError> {
    let ProjectSetArgs { project, defaults, commit, unset, if_version } = args;
    let mut change = change(defaults);
    if commit {
        change.commit = Some(CommitPolicy::Commit);
    }
    for what in unset {
        let given = match what {
            Unset::Base => change.base.replace(None).is_some(),
            Unset::Setup => change.setup.replace(None).is_some(),
            Unset::Cleanup => change.cleanup.replace(None).is_some(),
            Unset::Dev => change.dev.replace(None).is_some(),
            Unset::Copy => change.copy.replace(Vec::new()).is_some_and(|globs| !globs.is_empty()),
        };
        if given {
            return Err(CliError::usage(
                "something is given and taken back at once",
                "leave out the flag or its --unset",
            ));
        }
    }
    if change == ProjectChange::default() {
        return Err(CliError::usage(
            "there is nothing to change",
            "name what is to be changed: windlass project set --help",
        ));
    }
    let id = ids::project(client, &project).await?.id;
    let view = client.set_project(id, &SetBody { version: if_version, change }).await?;
    if output.json {
        return output.object(&view);
    }
    output.note(&format!("project {} is at version {}", printable(&view.name), view.version));
    Ok(())
}

/// Takes what is given.
fn change(defaults: DefaultsArgs) -> ProjectChange {
    let DefaultsArgs { name, base, setup, cleanup, dev, copy, no_commit } = defaults;
    ProjectChange {
        name,
        base: base.map(Some),
        setup: setup.map(Some),
        cleanup: cleanup.map(Some),
        dev: dev.map(Some),
        copy: (!copy.is_empty()).then_some(copy),
        commit: no_commit.then_some(CommitPolicy::Keep),
    }
}

fn list(output: Output, projects: &[ProjectView]) -> Result<(), CliError> {
    if output.json {
        return projects.iter().try_for_each(|view| output.object(view));
    }
    if projects.is_empty() {
        return Ok(());
    }
    let all: Vec<_> = projects.iter().map(|view| view.id.0).collect();
    let row = |view: &ProjectView| -> Vec<Cell> {
        vec![
            shortest('p', view.id.0, &all).into(),
            view.name.as_str().into(),
            view.base.as_deref().unwrap_or("-").into(),
            age(now_ms().saturating_sub(view.created_at.0.0)).into(),
            view.repo.to_string().into(),
        ]
    };
    let rows: Vec<_> = projects.iter().map(row).collect();
    let head = ["PROJECT", "NAME", "BASE", "AGE", "REPOSITORY"];
    output.bytes(fitted_table(output, &head, &["NAME", "BASE", "REPOSITORY"], &rows).as_bytes())
}

fn show(output: Output, view: &ProjectView) -> Result<(), CliError> {
    if output.json {
        return output.object(view);
    }
    output.bytes(text(output, view).as_bytes())
}

fn text(output: Output, view: &ProjectView) -> String {
    let mut rows = vec![
        ("project", format!("{} ({})", view.id.short(), view.id)),
        ("name", printable(&view.name)),
        ("repository", view.repo.to_string()),
        ("base", view.base.clone().unwrap_or_else(|| "HEAD".to_owned())),
    ];
    let scripts = [("setup", &view.setup), ("cleanup", &view.cleanup), ("dev", &view.dev)];
    for (name, script) in scripts {
        rows.extend(script.as_deref().map(|script| (name, printable(script))));
    }
    if !view.copy.is_empty() {
        rows.push(("copy", printable(&view.copy.join(" "))));
    }
    let commit = match view.commit {
        CommitPolicy::Commit => "changes are committed",
        CommitPolicy::Keep => "changes stay in the worktree",
    };
    rows.push(("commit", commit.to_owned()));
    rows.extend(view.owner.clone().map(|owner| ("owner", owner)));
    rows.push(("version", view.version.to_string()));
    rows.push(("created", view.created_at.to_string()));
    pairs(output, &rows)
}
