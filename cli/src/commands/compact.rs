//! `util compact`: makes the files of the stores small, where no host has them.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::json;
use windlass::api::error::chain;
use windlass::api::lock::{HostLock, signature};

use crate::args::LogsKind;
use crate::config::{DataDir, show};
use crate::context::Context;
use crate::error::{Class, CliError};
use crate::host::backends::Databases;

/// Compacts the databases, one after the other, and says what came of it.
///
/// # Errors
///
/// There is no data directory, a host has it, or a database cannot be opened or has no room for it.
pub(super) async fn compact(context: &Context) -> Result<u8, CliError> {
    let path = context.environment.data_dir(&context.global)?;
    let data = DataDir::open(&path, &context.global)?
        .ok_or_else(|| CliError::not_found(format!("there is no data directory {}", show(&path))))?
        .ours()?;
    let lock = HostLock::try_take(&data.lock())
        .map_err(|error| CliError::unusable(format!("lock {}", show(&data.lock())), &error))?
        .ok_or_else(|| {
            let holder = signature(&data.lock());
            let message = format!("{} has a host: {holder}", show(&data.path));
            CliError::new(
                Class::Refused,
                "host_exists",
                message,
                "end it first: windlass host stop",
            )
        })?;
    let files: Vec<PathBuf> = match data.logs_kind() {
        LogsKind::Files => vec![data.store()],
        LogsKind::Store | LogsKind::Sqlite | LogsKind::Redb => vec![data.store(), data.logs()],
    };
    let sizes = || files.iter().map(|file| size(file)).collect::<Result<Vec<u64>, CliError>>();
    let before = sizes()?;
    let databases = Databases::open(&data).await?;
    let done = all(&databases).await;
    // What it is written for is there when it is closed.
    databases.close().await;
    let after = sizes()?;
    drop(lock);
    for ((file, before), after) in files.iter().zip(before).zip(after) {
        if context.output.json {
            let name = file.to_string_lossy();
            let line = json!({ "file": name, "bytes_before": before, "bytes_after": after });
            context.output.object(&line)?;
        } else {
            context.output.line(&format!("{}: {before} bytes, now {after}", show(file)))?;
        }
    }
    done.map(|()| 0)
}

/// Compacts one after the other; what fails is named, and what follows is left alone.
async fn all(databases: &Databases) -> Result<(), CliError> {
    databases.store.compact().await.map_err(|error| failed("the records", &error))?;
    match &databases.logs {
        Some(logs) => logs.compact().await.map_err(|error| failed("the logs", &error)),
        None => Ok(()),
    }
}

fn failed(what: &str, error: &(dyn std::error::Error + 'static)) -> CliError {
    CliError::new(
        Class::Failed,
        "store",
        format!("failed to compact {what}: {}", chain(error)),
        "nothing is lost; free some disk space if there is none, and let `windlass doctor` check them",
    )
}

/// Measures a file; one that is not there has no bytes.
fn size(path: &Path) -> Result<u64, CliError> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(CliError::unusable(format!("measure {}", show(path)), &error)),
    }
}
