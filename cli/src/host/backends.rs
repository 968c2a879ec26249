//! Opens the backends that a data directory was made with.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use windlass::Backends;
use windlass::api::error::chain;
use windlass::core::input::Input;
use windlass::core::process_store::ProcessStoreError;
use windlass_local::{
    FileLogs, GitOptions, GitWorktrees, LocalContainers, LocalOptions, OpenFiles, Provenance,
    ShimChoice,
};
use windlass_sqlite::{SqliteOptions, SqliteStore};

use super::settings::Settings;
use crate::config::{DataDir, show};
use crate::context::Context;
use crate::error::{Class, CliError};

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
pub async fn open(
    context: &Context,
    data: &DataDir,
    settings: &Settings,
    was_moved: bool,
    meant: bool,
) -> Result<Opened, CliError> {
    let store = store(data).await?;
    let runs_dir = data.path.join("runs");
    writable(&runs_dir)?;
    let shim = match &context.options.shim {
        Some(path) => ShimChoice::Path(path.clone()),
        None => ShimChoice::Beside,
    };
    let options = LocalOptions {
        runs_dir: runs_dir.clone(),
        shim,
        disk_floor_bytes: settings.disk_floor_bytes(),
        // What a dead shim left running gets as long as anything that is stopped.
        orphan_grace: Duration::from_millis(settings.engine().stop_grace_ms),
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
    let mut git = GitOptions::new(
        data.node().0.to_string(),
        data.path.join("worktrees"),
        context.environment.variables.clone(),
    );
    git.branch_prefix = settings.branch_prefix();
    git.snapshot_quota_bytes = settings.snapshot_quota_bytes();
    // Somebody who says that it was moved means the worktrees, wherever they are.
    git.provenance = if meant { Provenance::Moved } else { Provenance::InPlace };
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
    let path = data.store();
    // SQLite says in words of its own what these say plainly.
    writable(&data.path)?;
    writable(&path)?;
    SqliteStore::open(&path, SqliteOptions::default()).await.map_err(|error| match &error {
        ProcessStoreError::Newer { found, known } => CliError::new(
            Class::Refused,
            "newer_format",
            format!("{} has format {found}, this version knows up to {known}", show(&path)),
            "use the newer windlass that made it, or another --data-dir",
        ),
        ProcessStoreError::Full => CliError::unusable(
            format!("open {}", show(&path)),
            &std::io::Error::from(std::io::ErrorKind::StorageFull),
        ),
        ProcessStoreError::Backend(source) if source.transient => {
            failed(&format!("open {}", show(&path)), &error)
        }
        ProcessStoreError::Conflict { .. }
        | ProcessStoreError::Superseded { .. }
        | ProcessStoreError::Invalid { .. }
        | ProcessStoreError::Damaged { .. }
        | ProcessStoreError::Backend(_) => unusable_store(&path, &chain(&error)),
    })
}

/// Makes the error for a store that cannot be opened, for a reason that does not go away by itself.
pub fn unusable_store(path: &Path, why: &str) -> CliError {
    let hint = if path.exists() {
        "it was left alone: restore it from a backup, or move it and its -wal and -shm files away to begin anew; --data-dir names another data directory"
    } else {
        "name another data directory with --data-dir"
    };
    let message = format!("failed to open {}: {why}", show(path));
    CliError::new(Class::Refused, "store", message, hint)
}

/// Refuses what is there and may not be written.
fn writable(path: &Path) -> Result<(), CliError> {
    match rustix::fs::access(path, rustix::fs::Access::WRITE_OK) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(CliError::unusable(format!("write to {}", show(path)), &error.into())),
    }
}

fn failed(what: &str, error: &(dyn std::error::Error + 'static)) -> CliError {
    CliError::new(
        Class::Failed,
        "backend",
        format!("failed to {what}: {}", chain(error)),
        "`windlass doctor` checks git, shim, store, disk and permissions",
    )
}
