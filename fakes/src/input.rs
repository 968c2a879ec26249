//! [`MemoryInput`]: the optional port `Input` in memory.

use async_trait::async_trait;
use windlass_core::container_service::Place;
use windlass_core::error::BackendError;
use windlass_core::id::{Epoch, ExecutionId};
use windlass_core::input::{Input, InputError, InputMessage};
use windlass_core::shim::message::{self, InputRefusal, MAX_WAITING_INPUT_BYTES};

use crate::container_service::Reply;
use crate::world::{StartId, World};

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
        let limit_bytes = MAX_WAITING_INPUT_BYTES;
        if message.bytes.len() as u64 > limit_bytes {
            return Err(InputError::Full { limit_bytes });
        }
        let start = StartId { execution, nonce: place.nonce };
        let position = message.position;
        let input = message::Input {
            epoch,
            key: message.key,
            position,
            secret: message.secret,
            close: message.close,
            bytes: message.bytes.to_vec(),
        };
        // Nobody listens where nothing runs.
        let Some(letter) = self.world.change(|state| state.letter(start, input)) else {
            return Err(InputError::Closed { execution });
        };
        match self.world.wait(|state| state.letters.remove(&letter)).await {
            Reply::Taken => Ok(()),
            Reply::Refused(InputRefusal::NotNext, next) => {
                Err(InputError::NotNext { position, next })
            }
            Reply::Refused(InputRefusal::Full, _) => Err(InputError::Full { limit_bytes }),
            Reply::Refused(InputRefusal::Closed, _) => Err(InputError::Closed { execution }),
            Reply::Superseded => Err(InputError::Superseded { held: epoch }),
            Reply::Broken => {
                let why = "the shim went away";
                Err(BackendError::transient("memory", "send", why).into())
            }
        }
    }
}
