//! Opens the backends that a data directory was made with.

use std::sync::Arc;
use std::time::Duration;

use windlass::Backends;
use windlass::api::error::chain;
use windlass::core::attachments::Attachments;
use windlass::core::diff_watch::DiffWatch;
use windlass::core::input::Input;
use windlass::core::listeners::Listeners;
use windlass::core::vcs_history::VcsHistory;
use windlass_local::{
    FileAttachments, FileLogs, GitOptions, GitWorktrees, LocalContainers, LocalOptions, OpenFiles,
    Provenance, ShimChoice,
};

use super::settings::Settings;
use super::stores::{KeptLogs, Store, writable};
use crate::config::DataDir;
use crate::context::Context;
use crate::error::{Class, CliError};

/// The backends, and what is optional.
#[derive(Debug)]
pub struct Opened {
    /// The ports.
    pub backends: Backends,
    /// Standard input.
    pub input: Arc<dyn Input>,
    /// Diffs as they change.
    pub diff_watch: Arc<dyn DiffWatch>,
    /// Merges, rebases, pushes.
    pub history: Arc<dyn VcsHistory>,
    /// Files that are handed over.
    pub attachments: Arc<dyn Attachments>,
    /// Who listens on ports.
    pub listeners: Arc<dyn Listeners>,
    /// The databases, to be closed when the engine was shut down.
    pub databases: Databases,
}

/// What is open and is closed in the end.
#[derive(Debug)]
pub struct Databases {
    /// The records.
    pub store: Store,
    /// The logs, where they are kept apart from the segments.
    pub logs: Option<KeptLogs>,
}

impl Databases {
    /// Opens them. The caller holds the host's lock.
    ///
    /// # Errors
    ///
    /// One of them cannot be used.
    pub async fn open(data: &DataDir) -> Result<Self, CliError> {
        Ok(Self { store: Store::open(data).await?, logs: KeptLogs::open(data).await? })
    }

    /// Writes what waits and closes them.
    pub async fn close(&self) {
        if let Some(logs) = &self.logs {
            logs.close().await;
        }
        self.store.close().await;
    }
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
    let databases = Databases::open(data).await?;
    let store = databases.store.port();
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
    let attachments = Arc::new(FileAttachments::new(data.path.join("attachments")));
    let listeners = Arc::clone(&containers) as Arc<dyn Listeners>;
    let diff_watch = Arc::clone(&worktrees) as Arc<dyn DiffWatch>;
    let history = Arc::clone(&worktrees) as Arc<dyn VcsHistory>;
    let backends = Backends { containers, store, logs, worktrees };
    Ok(Opened { backends, input, diff_watch, history, attachments, listeners, databases })
}

fn failed(what: &str, error: &(dyn std::error::Error + 'static)) -> CliError {
    CliError::new(
        Class::Failed,
        "backend",
        format!("failed to {what}: {}", chain(error)),
        "`windlass doctor` checks git, shim, store, disk and permissions",
    )
}
