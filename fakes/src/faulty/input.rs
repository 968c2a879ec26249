//! A faulty [`Input`].

use async_trait::async_trait;
use windlass_core::container_service::Place;
use windlass_core::id::{Epoch, ExecutionId};
use windlass_core::input::{Input, InputError, InputMessage};

use super::{About, Call, Faulty, Method, Site, Wrong, done};

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: Input> Input for Faulty<T> {
    async fn send(
        &self,
        execution: ExecutionId,
        place: &Place,
        message: InputMessage,
        epoch: Epoch,
    ) -> Result<(), InputError> {
        let call = Call { site: Site::Send, about: About::Execution(execution) };
        let wrong = |wrong| match wrong {
            Wrong::Full => InputError::Full { limit_bytes: 0 },
            Wrong::Unknown(op) => op.error().into(),
        };
        let perform = || self.inner.send(execution, place, message.clone(), epoch);
        self.call(call, Method { batch: &[], perform, wrong, tell: done }).await
    }
}
