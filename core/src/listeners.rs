//! The optional port [`Listeners`]: whether something of an execution listens on a port.

use std::fmt;

use async_trait::async_trait;

use crate::container_service::Place;
use crate::error::BackendError;
use crate::id::ExecutionId;

/// Tells when servers of executions can be connected to.
///
/// # Contract
///
/// - It tells of processes of the execution alone: that somebody else listens on the port means nothing.
/// - It connects to nothing: a server does not notice that it is looked at.
///
/// # Cancel safety
///
/// May be dropped and begun again.
#[async_trait]
pub trait Listeners: fmt::Debug + Send + Sync + 'static {
    /// Waits until a process of a running execution listens on a TCP port. It stays pending while none does, also when the
    /// execution has ended: whoever waits looks after that.
    ///
    /// # Errors
    ///
    /// The backend cannot tell.
    async fn listens(
        &self,
        execution: ExecutionId,
        place: &Place,
        port: u16,
    ) -> Result<(), BackendError>;
}
