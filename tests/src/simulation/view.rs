//! [`View`]: what oracles look at beside the event: S, K, and the things themselves.
//!
//! It is made from events and fakes, with none of the engine's own code but the codec of the records.

mod kernel;
mod store;

use windlass_core::time::Timestamp;
use windlass_fakes::{MemoryLogs, MemoryRepositories, World};

pub use kernel::{Kernel, Process, Start};
pub use store::{Kept, Store, Value};

use super::plan::Plan;

/// The things themselves: to be looked at, never changed.
#[derive(Clone, Debug)]
pub struct Scene {
    /// The world of processes, places and logs.
    pub world: World,
    /// Its logs.
    pub logs: MemoryLogs,
    /// Repositories and worktrees.
    pub repositories: MemoryRepositories,
}

/// What an oracle sees.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// What is being run.
    pub plan: &'a Plan,
    /// The time.
    pub now: Timestamp,
    /// S: what the store holds durably, this event included.
    pub store: &'a Store,
    /// K: what happened in the kernel, this event included.
    pub kernel: &'a Kernel,
    /// L and V: logs and worktrees.
    pub scene: &'a Scene,
    /// Nothing goes wrong any more.
    pub healed: bool,
}
