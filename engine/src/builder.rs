//! [`Builder`]: takes the backends and starts the engine.

use std::sync::Arc;

use windlass_core::container_service::ContainerService;
use windlass_core::driver::Ports;
use windlass_core::id::{HostId, NodeId};
use windlass_core::input::Input;
use windlass_core::log_store::LogStore;
use windlass_core::process_store::ProcessStore;
use windlass_core::secrets::Secrets;
use windlass_core::vcs_worktree::VcsWorktree;

use crate::config::Config;
use crate::error::EngineError;
use crate::handle::{About, Handle};
use crate::host;
use crate::runtime::Runtime;
use crate::secrets::MemorySecrets;

/// The backends that an engine works through.
#[derive(Clone, Debug)]
pub struct Backends {
    /// Starts and watches process trees.
    pub containers: Arc<dyn ContainerService>,
    /// Keeps the records.
    pub store: Arc<dyn ProcessStore>,
    /// Keeps the logs.
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
    secrets: Option<Arc<dyn Secrets>>,
    pid: u32,
}

impl Builder {
    /// Takes what every engine needs. `node` names this machine in the records and must be the same at every start.
    #[must_use]
    pub fn new(backends: Backends, config: Config, node: NodeId) -> Self {
        Self { backends, config, node, input: None, secrets: None, pid: 0 }
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

    /// Adds a way to resolve secrets that are not bare values.
    #[must_use]
    pub fn secrets(mut self, secrets: Arc<dyn Secrets>) -> Self {
        self.secrets = Some(secrets);
        self
    }

    /// Takes over the records and starts the host loop. Returns when what was unfinished is being adopted.
    ///
    /// # Errors
    ///
    /// When the store cannot be taken over or read.
    pub async fn start<R: Runtime>(self, runtime: Arc<R>) -> Result<Handle, EngineError> {
        let secrets = Arc::new(MemorySecrets::new(self.secrets));
        let ports = Ports {
            containers: self.backends.containers,
            store: self.backends.store,
            logs: self.backends.logs,
            worktrees: self.backends.worktrees,
            secrets: Arc::clone(&secrets) as Arc<dyn Secrets>,
        };
        let mut ten = [0; 10];
        ten.copy_from_slice(&runtime.bytes()[..10]);
        let since = runtime.now();
        let about = About { node: self.node, host: HostId::new(since, ten), pid: self.pid, since };
        host::start(runtime, ports, self.input, secrets, self.config, about).await
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
