//! [`MemoryInput`]: the optional port `Input` in memory.

use async_trait::async_trait;
use windlass_core::container_service::Place;
use windlass_core::id::{Epoch, ExecutionId};
use windlass_core::input::{Input, InputError, InputMessage};

use crate::world::{Refusal, World};

/// Feeds the executions of a world.
#[derive(Clone, Debug)]
pub struct MemoryInput {
    world: World,
}

impl MemoryInput {
    /// Opens the input of a world.
    #[must_use]
    pub fn new(world: World) -> Self {
        Self { world }
    }
}

#[async_trait]
impl Input for MemoryInput {
    async fn send(
        &self,
        execution: ExecutionId,
        place: &Place,
        message: InputMessage,
        epoch: Epoch,
    ) -> Result<(), InputError> {
        let closed = || InputError::Closed { execution };
        self.world.change(|state| {
            let site = state.sites.get_mut(&place.locator).ok_or_else(closed)?;
            assert_eq!(site.execution, execution, "the place is of another execution");
            if !site.raise(epoch) {
                return Err(InputError::Superseded { held: epoch });
            }
            let fed = state
                .with_process(&place.locator, |process, log, now| process.feed(&message, log, now));
            fed.ok_or_else(closed)?.map_err(|refusal| match refusal {
                Refusal::Closed => closed(),
                Refusal::NotNext { next } => {
                    InputError::NotNext { position: message.position, next }
                }
                Refusal::Full => InputError::Full { limit_bytes: crate::world::INPUT_LIMIT_BYTES },
            })
        })
    }
}
