//! [`Builder`]: takes the backends and starts the engine.

use std::sync::Arc;
use std::time::Duration;

use windlass_core::attachments::Attachments;
use windlass_core::container_service::ContainerService;
use windlass_core::diff_watch::DiffWatch;
use windlass_core::driver::Ports;
use windlass_core::id::{HostId, NodeId};
use windlass_core::input::Input;
use windlass_core::listeners::Listeners;
use windlass_core::log_store::LogStore;
use windlass_core::process_store::ProcessStore;
use windlass_core::secrets::Secrets;
use windlass_core::vcs_history::VcsHistory;
use windlass_core::vcs_worktree::VcsWorktree;

use crate::config::Config;
use crate::error::EngineError;
use crate::handle::{About, Handle};
use crate::host;
use crate::log_store::Pumped;
use crate::relocation::{self, Relocate};
use crate::runtime::Runtime;
use crate::secrets::MemorySecrets;

/// The backends that an engine works through.
#[derive(Clone, Debug)]
pub struct Backends {
    /// Starts and watches process trees.
    pub containers: Arc<dyn ContainerService>,
    /// Keeps the records.
    pub store: Arc<dyn ProcessStore>,
    /// Keeps the logs: the segments that shims write, for local containers.
    pub logs: Arc<dyn LogStore>,
    /// Makes and removes worktrees.
    pub worktrees: Arc<dyn VcsWorktree>,
}

/// Starts an engine.
#[derive(Debug)]
pub struct Builder {
    backends: Backends,
    config: Config,
    node: NodeId,
    input: Option<Arc<dyn Input>>,
    diff_watch: Option<Arc<dyn DiffWatch>>,
    listeners: Option<Arc<dyn Listeners>>,
    attachments: Option<Arc<dyn Attachments>>,
    history: Option<Arc<dyn VcsHistory>>,
    secrets: Option<Arc<dyn Secrets>>,
    kept_logs: Option<Arc<dyn LogStore>>,
    relocation: Option<Arc<dyn Relocate>>,
    pid: u32,
}

impl Builder {
    /// Takes what every engine needs. `node` names this machine in the records and must be the same at every start.
    #[must_use]
    pub fn new(backends: Backends, config: Config, node: NodeId) -> Self {
        Self {
            backends,
            config,
            node,
            input: None,
            diff_watch: None,
            listeners: None,
            attachments: None,
            history: None,
            secrets: None,
            kept_logs: None,
            relocation: None,
            pid: 0,
        }
    }

    /// Says which process this is, for [`crate::handle::HostStatus`]. The library does not ask the system for it.
    #[must_use]
    pub fn pid(mut self, pid: u32) -> Self {
        self.pid = pid;
        self
    }

    /// Adds the ability to write to standard input.
    #[must_use]
    pub fn input(mut self, input: Arc<dyn Input>) -> Self {
        self.input = Some(input);
        self
    }

    /// Adds the ability to follow the diffs of worktrees.
    #[must_use]
    pub fn diff_watch(mut self, diff_watch: Arc<dyn DiffWatch>) -> Self {
        self.diff_watch = Some(diff_watch);
        self
    }

    /// Adds the ability to tell when a server of an execution listens.
    #[must_use]
    pub fn listeners(mut self, listeners: Arc<dyn Listeners>) -> Self {
        self.listeners = Some(listeners);
        self
    }

    /// Adds the ability to merge, rebase and push the commits of worktrees.
    #[must_use]
    pub fn history(mut self, history: Arc<dyn VcsHistory>) -> Self {
        self.history = Some(history);
        self
    }

    /// Adds the ability to take files along with runs and messages.
    #[must_use]
    pub fn attachments(mut self, attachments: Arc<dyn Attachments>) -> Self {
        self.attachments = Some(attachments);
        self
    }

    /// Adds a way to resolve secrets that are not bare values.
    #[must_use]
    pub fn secrets(mut self, secrets: Arc<dyn Secrets>) -> Self {
        self.secrets = Some(secrets);
        self
    }

    /// Moves every log from [`Backends::logs`] to a store that keeps what is appended, while it is written and after hosts
    /// were killed; nothing is read differently. Whoever opened the store closes it, after the engine was shut down.
    #[must_use]
    pub fn keep_logs_in(mut self, kept: Arc<dyn LogStore>) -> Self {
        self.kept_logs = Some(kept);
        self
    }

    /// Says where things are by now that the records name elsewhere, because what holds them was moved. The records are
    /// changed before anything is adopted.
    #[must_use]
    pub fn relocate(mut self, relocation: Arc<dyn Relocate>) -> Self {
        self.relocation = Some(relocation);
        self
    }

    /// Takes over the records and starts the host loop. Returns when what was unfinished is being adopted.
    ///
    /// # Errors
    ///
    /// When the store cannot be taken over or read.
    pub async fn start<R: Runtime>(self, runtime: Arc<R>) -> Result<Handle, EngineError> {
        let secrets = Arc::new(MemorySecrets::new(self.secrets));
        let retry = Duration::from_millis(self.config.store_retry_ms);
        let segments = self.backends.logs;
        let pumped = self
            .kept_logs
            .map(|kept| Pumped::new(Arc::clone(&segments), kept, Arc::clone(&runtime), retry));
        let ports = Ports {
            containers: self.backends.containers,
            store: self.backends.store,
            logs: pumped.clone().map_or(segments, |pumped| pumped),
            worktrees: self.backends.worktrees,
            history: self.history,
            attachments: self.attachments,
            secrets: Arc::clone(&secrets) as Arc<dyn Secrets>,
        };
        let mut ten = [0; 10];
        ten.copy_from_slice(&runtime.bytes()[..10]);
        let since = runtime.now();
        let about = About { node: self.node, host: HostId::new(since, ten), pid: self.pid, since };
        if let Some(relocation) = &self.relocation {
            relocation::relocate(&*ports.store, &about, &**relocation).await?;
        }
        let (diff_watch, listeners) = (self.diff_watch, self.listeners);
        let handle =
            host::start(runtime, ports, self.input, secrets, pumped, self.config, about).await?;
        Ok(handle.with_diff_watch(diff_watch).with_listeners(listeners))
    }

    /// Does the same on the current tokio runtime.
    ///
    /// # Errors
    ///
    /// As [`Builder::start`].
    #[cfg(feature = "tokio")]
    pub async fn start_on_tokio(self) -> Result<Handle, EngineError> {
        let runtime = crate::tokio_runtime::TokioRuntime::current();
        self.start(Arc::new(runtime)).await
    }
}
