//! Input to running executions: recorded before it is sent, so that a repeated message is written once.

use std::sync::atomic::{AtomicU64, Ordering};

use windlass_core::driver::Ports;
use windlass_core::id::Epoch;
use windlass_core::input::{Input, InputError, InputMessage};

use crate::error::{EngineError, RefusalCode};
use crate::host::records::read_execution;
use crate::request::{Caller, InputRequest};

/// Sends one message.
pub(crate) async fn send(
    ports: &Ports,
    input: Option<&dyn Input>,
    epoch: &AtomicU64,
    caller: &Caller,
    request: InputRequest,
) -> Result<(), EngineError> {
    let no_input = |reason: String| EngineError::refused(RefusalCode::NoInput, reason);
    let record = read_execution(ports, caller.owner.as_deref(), request.execution).await?;
    let id = record.id;
    let Some(input) = input else {
        return Err(no_input("this engine's backend writes to no standard input".to_owned()));
    };
    let Some(place) = record.place else {
        let how =
            if record.outcome.is_some() { "was never started" } else { "has not started yet" };
        return Err(no_input(format!("execution {} {how}", id.short())));
    };
    let mut position = 0;
    loop {
        let held = Epoch(epoch.load(Ordering::Acquire));
        let message = InputMessage {
            key: request.key,
            position,
            bytes: request.bytes.0.clone().into(),
            secret: request.secret,
            close: request.close,
        };
        match input.send(id, &place, message, held).await {
            Ok(()) => return Ok(()),
            // The shim numbers what it took; the key, not the position, tells messages apart.
            Err(InputError::NotNext { next, .. }) if next != position => position = next,
            // The loop of this very host has started over with a higher epoch meanwhile.
            Err(InputError::Superseded { .. }) if epoch.load(Ordering::Acquire) > held.0 => {}
            Err(InputError::Superseded { .. }) => return Err(EngineError::Superseded),
            Err(InputError::Backend(error)) => return Err(error.into()),
            Err(InputError::Full { .. }) => {
                let reason = format!("too much input waits to be read by execution {}", id.short());
                return Err(EngineError::refused(RefusalCode::InputFull, reason));
            }
            Err(InputError::Closed { .. } | InputError::NotNext { .. }) => {
                let reason = format!("execution {} takes no input, or no more", id.short());
                return Err(no_input(reason));
            }
        }
    }
}
