//! A running engine to measure, in a data directory of its own, as an embedding program has it.

use std::env;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;
use windlass::core::admission::Limits;
use windlass::core::container_service::{ContainerService, ContainerServiceError};
use windlass::core::diff_watch::DiffWatchError;
use windlass::core::id::{ExecutionId, NodeId};
use windlass::core::locator::{Locator, OsBytes};
use windlass::core::log_store::LogStoreError;
use windlass::core::outcome::Outcome;
use windlass::core::process_store::{ChangeNumber, ProcessStore, ProcessStoreError};
use windlass::core::record::{CommitPolicy, ExecutionRecord, Phase};
use windlass::core::vcs_worktree::VcsWorktreeError;
use windlass::request::{Caller, LaunchRequest, RunRequest, Scripts, WorkspaceRequest};
use windlass::{Backends, Builder, Config, EngineError, Handle};
use windlass_local::{
    FileLogs, GitOptions, GitWorktrees, LocalContainers, LocalOptions, OpenFiles, Provenance,
    ShimChoice,
};
use windlass_sqlite::{SqliteOptions, SqliteStore};

use super::container_service::CountedAdoptions;
use crate::failure::{Doing, Failure};

/// Says what was being done when a port or the engine refused.
macro_rules! doing {
    ($($error:ty),+) => {
        $(impl<T> Doing<T> for Result<T, $error> {
            fn doing(self, what: impl std::fmt::Display) -> Result<T, Failure> {
                self.map_err(|error| Failure::new(format!("to {what}: {error}")))
            }
        })+
    };
}

doing!(
    EngineError,
    ContainerServiceError,
    DiffWatchError,
    LogStoreError,
    ProcessStoreError,
    VcsWorktreeError
);

/// Where an engine keeps its things, and the shim it starts.
#[derive(Clone, Debug)]
pub(crate) struct Data {
    pub(crate) dir: PathBuf,
    pub(crate) shim: PathBuf,
}

/// A running engine.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) handle: Handle,
    pub(crate) containers: Arc<CountedAdoptions>,
    pub(crate) store: Arc<SqliteStore>,
    cwd: Locator,
}

impl Host {
    /// Opens the engine on a data directory, with room for everything at once.
    pub(crate) async fn open(data: &Data) -> Result<Self, Failure> {
        let runs = data.dir.join("runs");
        for dir in [&data.dir, &runs] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .doing("make a data directory")?;
        }
        let store = SqliteStore::open(data.dir.join("windlass.db"), SqliteOptions::default())
            .await
            .doing("open the store")?;
        let containers = LocalContainers::open(LocalOptions {
            runs_dir: runs.clone(),
            shim: ShimChoice::Path(data.shim.clone()),
            disk_floor_bytes: 1 << 30,
            orphan_grace: Duration::from_secs(1),
            provenance: Provenance::InPlace,
            open_files: OpenFiles::Raise,
        });
        let containers = CountedAdoptions::new(containers.doing("open the containers")?);
        let logs = FileLogs::open(&runs).doing("open the logs")?;
        let git = GitOptions::new("bench", data.dir.join("worktrees"), env::vars_os());
        let worktrees = GitWorktrees::open(git).await.doing("open the worktrees")?;
        let backends = Backends {
            containers: Arc::clone(&containers) as Arc<dyn ContainerService>,
            store: Arc::clone(&store) as Arc<dyn ProcessStore>,
            logs,
            worktrees,
        };
        let config = Config {
            limits: Limits { per_owner: 10_000, per_host: 10_000, dev_servers: 1, queue: 10_000 },
            log_cap_bytes: 1 << 40,
            ..Config::standard()
        };
        let handle = Builder::new(backends, config, NodeId(Uuid::from_u128(1)))
            .start_on_tokio()
            .await
            .doing("start the engine")?;
        Ok(Self {
            handle,
            containers,
            store,
            cwd: Locator::new(data.dir.clone().into_os_string().into_vec()),
        })
    }

    /// Starts a command in a plain directory.
    pub(crate) async fn start(&self, argv: &[&str]) -> Result<ExecutionId, Failure> {
        let request = RunRequest {
            workspace: WorkspaceRequest::Directory { path: self.cwd.clone() },
            title: None,
            commit: CommitPolicy::Keep,
            scripts: Scripts::default(),
            launch: LaunchRequest::command(argv.iter().map(|&argument| OsBytes::from(argument))),
        };
        let accepted = self.handle.run(Caller::default(), request).await.doing("run a command")?;
        Ok(accepted.execution)
    }

    /// Waits until an execution runs, or has run.
    pub(crate) async fn running(&self, id: ExecutionId) -> Result<(), Failure> {
        loop {
            // Beyond the last change there is none to read, but its number is told.
            let beyond = ChangeNumber(u64::MAX >> 1);
            let seen = self
                .handle
                .changes(&Caller::default(), beyond, 1)
                .await
                .doing("read changes")?
                .last;
            let record = self.handle.execution(&Caller::default(), id).await.doing("look")?;
            if record.phase >= Phase::Running {
                return Ok(());
            }
            self.handle.changed(seen).await.doing("wait for a change")?;
        }
    }

    /// Runs a command until its outcome is durable; anything but success is a failure.
    pub(crate) async fn run(&self, argv: &[&str]) -> Result<ExecutionRecord, Failure> {
        let id = self.start(argv).await?;
        let record = self.handle.ended(&Caller::default(), id).await.doing("wait for a command")?;
        match record.outcome {
            Some(Outcome::Exited { code: 0 }) => Ok(record),
            other => {
                Err(Failure::new(format!("{argv:?} ended as {other:?}: {:?}", record.message)))
            }
        }
    }

    /// Ends the engine; what runs goes on.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        self.handle.shut_down().await.doing("end the engine")?;
        self.store.close().await;
        Ok(())
    }
}
