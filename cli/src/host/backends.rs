//! Opens the backends that a data directory was made with.

use std::sync::Arc;
use std::time::Duration;

use windlass::Backends;
use windlass::api::error::chain;
use windlass::core::input::Input;
use windlass_local::{
    FileLogs, GitOptions, GitWorktrees, LocalContainers, LocalOptions, OpenFiles, Provenance,
    ShimChoice,
};
use windlass_sqlite::{SqliteOptions, SqliteStore};

use crate::config::{DataDir, show};
use crate::context::Context;
use crate::error::{Class, CliError};

/// Below this many free bytes nothing new is admitted.
const DISK_FLOOR_BYTES: u64 = 1 << 30;

/// From TERM to KILL for what a dead shim left running.
const ORPHAN_GRACE: Duration = Duration::from_secs(5);

/// The backends, and what is optional.
#[derive(Debug)]
pub struct Opened {
    /// The ports.
    pub backends: Backends,
    /// Standard input.
    pub input: Arc<dyn Input>,
}

/// Opens them.
///
/// # Errors
///
/// One of them cannot be used.
pub async fn open(context: &Context, data: &DataDir, was_moved: bool) -> Result<Opened, CliError> {
    let store = store(data).await?;
    let runs_dir = data.path.join("runs");
    let shim = match &context.options.shim {
        Some(path) => ShimChoice::Path(path.clone()),
        None => ShimChoice::Beside,
    };
    let options = LocalOptions {
        runs_dir: runs_dir.clone(),
        shim,
        disk_floor_bytes: DISK_FLOOR_BYTES,
        orphan_grace: ORPHAN_GRACE,
        provenance: if was_moved { Provenance::Moved } else { Provenance::InPlace },
        open_files: OpenFiles::Raise,
    };
    let containers = {
        // It asks the shim for its version.
        let opened = tokio::task::spawn_blocking(move || LocalContainers::open(options)).await;
        opened
            .map_err(|error| failed("open the executions", &error))?
            .map_err(|error| failed("open the executions", &error))?
    };
    let logs = FileLogs::open(&runs_dir).map_err(|error| failed("open the logs", &error))?;
    let git = GitOptions::new(
        data.node().0.to_string(),
        data.path.join("worktrees"),
        context.environment.variables.clone(),
    );
    let worktrees = GitWorktrees::open(git).await.map_err(|error| failed("use git", &error))?;
    let input = Arc::clone(&containers) as Arc<dyn Input>;
    Ok(Opened { backends: Backends { containers, store, logs, worktrees }, input })
}

/// Opens the store.
///
/// # Errors
///
/// It is of a newer version, damaged, or cannot be opened.
pub async fn store(data: &DataDir) -> Result<Arc<SqliteStore>, CliError> {
    let path = data.path.join("windlass.db");
    SqliteStore::open(&path, SqliteOptions::default())
        .await
        .map_err(|error| failed(&format!("open {}", show(&path)), &error))
}

fn failed(what: &str, error: &(dyn std::error::Error + 'static)) -> CliError {
    CliError::new(
        Class::Failed,
        "backend",
        format!("failed to {what}: {}", chain(error)),
        "`windlass doctor` checks git, shim, store, disk and permissions",
    )
}
