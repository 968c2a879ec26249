//! `host`: be it, look at it, end it, install it.

use windlass::api::client::ClientError;
use windlass::api::lock::HostLock;
use windlass::api::{HostKind, VersionView};
use windlass::view::{ErrorView, HostView};

use crate::args::HostAction;
use crate::config::DataDir;
use crate::context::Context;
use crate::duration::{now_ms, show};
use crate::error::CliError;
use crate::host::connect::{START_ONE, leave, no_host, plain_client, version};
use crate::host::daemon::{self, HostOptions};
use crate::host::service;
use crate::table::pairs;

/// Is the host until it is asked to leave.
///
/// # Errors
///
/// Why it could not be.
pub(super) fn run(
    context: &Context,
    background: bool,
    stay: bool,
    moved: bool,
) -> Result<u8, CliError> {
    daemon::run(context, HostOptions { background, stay, moved })?;
    Ok(0)
}

/// Looks at the host, ends it or installs it.
///
/// # Errors
///
/// There is none, or it refuses.
pub(super) async fn host(context: &Context, action: HostAction) -> Result<u8, CliError> {
    let output = context.output;
    match action {
        HostAction::Status => {
            let data = existing(context)?;
            // It says first whether it is one of a version that can be talked to.
            let version = version_of(&data).await?;
            let view = plain_client(&data).host().await.map_err(|error| absent(&data, error))?;
            if output.json {
                output.object(&view)?;
            } else {
                output.bytes(text(context, &view, version.kind).as_bytes())?;
            }
        }
        HostAction::Stop => {
            let data = existing(context).map_err(nothing_to_end)?;
            let host = version_of(&data).await.map_err(nothing_to_end)?;
            leave(&data, &host).await?;
            output.note("the host has left; executions run on");
        }
        HostAction::Install { print } => service::install(&context.data_dir()?, output, print)?,
        HostAction::Run { .. } => {}
    }
    Ok(0)
}

/// How many hosts that are just coming or going are waited for, one after the other.
const COMINGS: u32 = 8;

/// Asks for the version of the host; of one that is just coming or going, when it has.
async fn version_of(data: &DataDir) -> Result<VersionView, CliError> {
    let mut waited = 0;
    loop {
        match version(data).await {
            Ok(version) => return Ok(version),
            Err(ClientError::NoHost { .. } | ClientError::Lost { .. }) if has_no_socket(data) => {
                if !HostLock::is_held(&data.lock()).unwrap_or(false) {
                    return Err(no_host(&data.path));
                }
                if waited == COMINGS || !daemon::come_or_gone(data).await? {
                    return Err(daemon::exists(data, false));
                }
                waited += 1;
            }
            Err(error) => return Err(absent(data, error)),
        }
    }
}

fn has_no_socket(data: &DataDir) -> bool {
    !data.socket().exists()
}

/// Says to people who want no host that there is none.
fn nothing_to_end(error: CliError) -> CliError {
    let none_runs = error.view.hint.as_deref() == Some(START_ONE);
    if !none_runs {
        return error;
    }
    let hint = Some("there is nothing to end; executions run on without a host".to_owned());
    CliError { view: ErrorView { hint, ..error.view }, ..error }
}

/// Opens the data directory; where there is none, there is no host.
fn existing(context: &Context) -> Result<DataDir, CliError> {
    let path = context.environment.data_dir(&context.global)?;
    DataDir::open(&path, &context.global)?.ok_or_else(|| no_host(&path))
}

/// Says that no host runs, where a connection failed because of that.
fn absent(data: &DataDir, error: ClientError) -> CliError {
    // As any other verb says it: somebody has the directory, and no host of it can be asked.
    match HostLock::is_held(&data.lock()) {
        Ok(true) if has_no_socket(data) => daemon::exists(data, false),
        Ok(true) => error.into(),
        Ok(false) | Err(_) => no_host(&data.path),
    }
}

fn text(context: &Context, view: &HostView, kind: HostKind) -> String {
    let kind = match kind {
        HostKind::Daemon => "background process of the command line",
        HostKind::Embedded => "in another program",
    };
    let up = show(now_ms().saturating_sub(view.since.0.0));
    let said = |word: &Option<String>| word.clone().unwrap_or_else(|| "not said".to_owned());
    let rows = [
        ("process", view.pid.to_string()),
        ("version", view.version.clone()),
        ("kind", kind.to_owned()),
        ("epoch", view.epoch.to_string()),
        ("running", view.running.to_string()),
        ("queued", view.queued.to_string()),
        ("since", format!("{} ({up})", view.since)),
        ("store", said(&view.store)),
        ("logs", said(&view.logs)),
    ];
    pairs(context.output, &rows)
}
