//! The optional port [`Input`]: keyed messages to a running execution's standard input.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use uuid::Uuid;

use crate::container_service::Place;
use crate::error::BackendError;
use crate::id::{Epoch, ExecutionId};

/// A message to standard input.
#[derive(Clone, PartialEq, Eq)]
pub struct InputMessage {
    /// Its name: a message with a known key is acknowledged and not written again.
    pub key: Uuid,
    /// Its place in the order, from 0. One that is not next is refused.
    pub position: u64,
    /// What to write.
    pub bytes: Bytes,
    /// Whether the log keeps its length only.
    pub secret: bool,
    /// Whether the stream is closed after it.
    pub close: bool,
}

impl fmt::Debug for InputMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InputMessage #{} {} ({} bytes)", self.position, self.key, self.bytes.len())
    }
}

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The position is not the next one.
    #[error("message {position} is not next, {next} is")]
    NotNext {
        /// The position that was given.
        position: u64,
        /// The next one.
        next: u64,
    },
    /// Too much waits to be read by the command; nothing was taken.
    #[error("more than {limit_bytes} bytes wait to be read")]
    Full {
        /// The most that waits.
        limit_bytes: u64,
    },
    /// The execution takes no input, has closed it or has ended.
    #[error("execution {execution} takes no input")]
    Closed {
        /// The execution.
        execution: ExecutionId,
    },
    /// Another host drives it.
    #[error("epoch {held:?} was superseded")]
    Superseded {
        /// The epoch that was given.
        held: Epoch,
    },
    /// The backend failed; the message may or may not have been written, and sending it again is safe.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// Sends keyed messages to a running execution.
///
/// # Contract
///
/// - An accepted message is in the log before it is written, and is written once at most.
/// - Sending a message again with the same key changes nothing and succeeds.
///
/// # Cancel safety
///
/// May be dropped and sent again.
#[async_trait]
pub trait Input: fmt::Debug + Send + Sync + 'static {
    /// Sends one message.
    ///
    /// # Errors
    ///
    /// See [`InputError`].
    async fn send(
        &self,
        execution: ExecutionId,
        place: &Place,
        message: InputMessage,
        epoch: Epoch,
    ) -> Result<(), InputError>;
}
