//! The virtual machine: a world in which time flows.

use std::sync::Arc;
use std::time::Duration;

use windlass_core::action::{Leftovers, OutputMode, Stdin};
use windlass_core::container_service::{LaunchSpec, Place};
use windlass_core::id::ExecutionId;
use windlass_core::locator::{Locator, OsBytes};
use windlass_core::time::Timestamp;
use windlass_fakes::{MemoryContainers, MemoryInput, MemoryLogs, Time, World};

use super::cases::{Case, ORPHAN_GRACE};
use super::{Machine, Ports};

pub(super) struct Virtual {
    world: World,
}

impl Virtual {
    pub(super) fn new() -> Self {
        let world = World::new(Timestamp(1_700_000_000_000), Time::Flows);
        world.remove_directory(&Locator::new("gone"));
        Self { world }
    }
}

impl Machine for Virtual {
    fn open(&self) -> Ports {
        let containers = MemoryContainers::with_orphan_grace(self.world.clone(), ORPHAN_GRACE);
        Ports {
            containers: Arc::new(containers),
            input: Arc::new(MemoryInput::new(self.world.clone())),
            logs: Arc::new(MemoryLogs::new(self.world.clone())),
        }
    }

    fn spec(&self, case: &Case, execution: ExecutionId) -> LaunchSpec {
        LaunchSpec {
            execution,
            argv: case.words.iter().map(|word| OsBytes(word.to_vec())).collect(),
            env: Vec::new(),
            cwd: Locator::new(if case.has_directory { "home" } else { "gone" }),
            stdin: Stdin::Null,
            output: OutputMode::Separate,
            leftovers: Leftovers::Stop,
            total: None,
            idle: None,
            grace: Duration::from_millis(200),
            log_cap_bytes: 1 << 30,
            repository_lock: None,
        }
    }

    fn kill_shim(&self, execution: ExecutionId, _place: &Place) {
        assert!(self.world.kill_shim(execution), "there is no shim");
    }

    fn alive(&self, execution: ExecutionId) -> usize {
        self.world.alive(execution)
    }
}
