//! [`TokioRuntime`]: clock, spawner and random bits on tokio and the operating system.

use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use windlass_core::time::Timestamp;

use crate::runtime::{Clock, Entropy, Spawner};

/// Uses the tokio runtime that it was made in.
#[derive(Clone, Debug)]
pub struct TokioRuntime {
    handle: tokio::runtime::Handle,
}

impl TokioRuntime {
    /// Takes the current runtime.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn current() -> Self {
        Self { handle: tokio::runtime::Handle::current() }
    }
}

impl Clock for TokioRuntime {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place where the engine's time comes from"
    )]
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

impl Spawner for TokioRuntime {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        drop(self.handle.spawn(task));
    }
}

impl Entropy for TokioRuntime {
    /// # Panics
    ///
    /// When the operating system has no random bits, which Linux and macOS never say after boot.
    fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the operating system gives random bits");
        bytes
    }
}
