//! Keyed messages to the standard input of local executions.

use async_trait::async_trait;
use tokio::sync::oneshot;
use windlass_core::container_service::Place;
use windlass_core::id::{Epoch, ExecutionId};
use windlass_core::input::{Input, InputError, InputMessage};
use windlass_core::shim::message::{self, MAX_WAITING_INPUT_BYTES};

use crate::attached::{Order, broken};
use crate::container_service::LocalContainers;

#[async_trait]
impl Input for LocalContainers {
    async fn send(
        &self,
        execution: ExecutionId,
        place: &Place,
        message: InputMessage,
        epoch: Epoch,
    ) -> Result<(), InputError> {
        if message.bytes.len() as u64 > MAX_WAITING_INPUT_BYTES {
            return Err(InputError::Full { limit_bytes: MAX_WAITING_INPUT_BYTES });
        }
        let Some(attached) = self.slot(execution, place).and_then(|slot| slot.attached()) else {
            return Err(InputError::Closed { execution });
        };
        let input = message::Input {
            epoch,
            key: message.key,
            position: message.position,
            secret: message.secret,
            close: message.close,
            bytes: message.bytes.to_vec(),
        };
        let (reply, answer) = oneshot::channel();
        if attached.orders.send(Order::Input(input, reply)).await.is_ok()
            && let Ok(answer) = answer.await
        {
            return answer;
        }
        // The task is over. If the execution is, it takes no input; else we do not know what became of the message.
        let state = attached.state.borrow();
        if state.finished.is_some() || state.never_ran {
            return Err(InputError::Closed { execution });
        }
        Err(InputError::Backend(broken("send")))
    }
}
