//! The machine of a run: its world, its store, its repositories, and the ports of each host that comes.

use std::sync::Arc;

use uuid::Uuid;
use windlass::Backends;
use windlass_core::id::NodeId;
use windlass_core::input::Input;
use windlass_core::locator::Locator;
use windlass_core::time::Timestamp;
use windlass_core::vcs_worktree::Identity;
use windlass_fakes::faulty::{Conductor, Faulty};
use windlass_fakes::{
    MemoryContainers, MemoryInput, MemoryLogs, MemoryRepositories, MemoryStore, MemoryWorktrees,
    Time, World,
};

use super::view::Scene;

/// When every run begins: some day, in milliseconds.
pub const BEGIN: Timestamp = Timestamp(1_700_000_000_000);

/// How many process numbers there are: few, so that they are given again.
const NUMBERS: u32 = 18;

/// The name of the data directory.
pub const DATA: &str = "data";

/// What survives the hosts of a run.
#[derive(Clone, Debug)]
pub struct Place {
    /// The things themselves.
    pub scene: Scene,
    store: MemoryStore,
    /// The checkout that runs stand in.
    pub repository: Locator,
    /// The directory of runs without a worktree.
    pub directory: Locator,
    /// The machine.
    pub node: NodeId,
}

impl Place {
    /// Makes a machine with one repository and nothing else.
    #[must_use]
    pub fn new() -> Self {
        let world = World::new(BEGIN, Time::Stands);
        world.set_numbers(NUMBERS);
        let repositories = MemoryRepositories::new(world.clone());
        let repository = repositories.init();
        let author = Identity { name: "User".to_owned(), email: "user@localhost".to_owned() };
        repositories.write(&repository, "README", b"a file\n");
        repositories.commit(&repository, "first", &author);
        let directory = repositories.directory();
        Self {
            store: MemoryStore::new(world.clone()),
            scene: Scene { logs: MemoryLogs::new(world.clone()), world, repositories },
            repository,
            directory,
            node: NodeId(Uuid::from_u128(1)),
        }
    }

    /// Opens the ports for a host.
    #[must_use]
    pub fn ports(&self, conductor: &Arc<dyn Conductor>) -> (Backends, Arc<dyn Input>) {
        let Scene { world, logs, repositories } = &self.scene;
        let containers = MemoryContainers::new(world.clone());
        let worktrees = MemoryWorktrees::open(repositories, DATA);
        let backends = Backends {
            containers: Arc::new(Faulty::new(containers, Arc::clone(conductor))),
            store: Arc::new(Faulty::new(self.store.clone(), Arc::clone(conductor))),
            logs: Arc::new(Faulty::new(logs.clone(), Arc::clone(conductor))),
            worktrees: Arc::new(Faulty::new(worktrees, Arc::clone(conductor))),
        };
        let input = Faulty::new(MemoryInput::new(world.clone()), Arc::clone(conductor));
        (backends, Arc::new(input))
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}
