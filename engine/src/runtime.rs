//! What the host loop needs of the world beside the ports: a clock, random bits and somebody to run its tasks.

use std::time::Duration;

use futures::future::BoxFuture;
use windlass_core::driver::IdSource;
use windlass_core::id::{ExecutionId, Nonce};
use windlass_core::time::Timestamp;

/// Tells the time and wakes up later.
pub trait Clock: Send + Sync + 'static {
    /// Returns the wall-clock time.
    fn now(&self) -> Timestamp;

    /// Resolves after `duration`, by a clock that is not stepped.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// Runs tasks in the background.
pub trait Spawner: Send + Sync + 'static {
    /// Runs `task` to its end, independently of the caller.
    fn spawn(&self, task: BoxFuture<'static, ()>);
}

/// Gives random bits.
pub trait Entropy: Send + Sync + 'static {
    /// Returns 16 random bytes.
    fn bytes(&self) -> [u8; 16];
}

/// All of it.
pub trait Runtime: Clock + Spawner + Entropy {}

impl<T: Clock + Spawner + Entropy> Runtime for T {}

/// Makes ids from a runtime's time and random bits.
#[derive(Debug)]
pub(crate) struct Ids<R>(pub(crate) std::sync::Arc<R>);

impl<R: Runtime> Ids<R> {
    pub(crate) fn ten(&self) -> [u8; 10] {
        let mut ten = [0; 10];
        ten.copy_from_slice(&self.0.bytes()[..10]);
        ten
    }
}

impl<R: Runtime> IdSource for Ids<R> {
    fn execution(&mut self) -> ExecutionId {
        ExecutionId::new(self.0.now(), self.ten())
    }

    fn nonce(&mut self) -> Nonce {
        Nonce(uuid::Builder::from_random_bytes(self.0.bytes()).into_uuid())
    }
}
