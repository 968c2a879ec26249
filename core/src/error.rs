//! The opaque error of a backend, carried by the error of each port.

use std::error::Error;

/// A backend failed in a way that no caller can act on but by trying again or telling somebody.
#[derive(Debug, thiserror::Error)]
#[error("{backend}: {op} failed")]
pub struct BackendError {
    /// The backend's name, for example `sqlite`.
    pub backend: &'static str,
    /// The operation, for example `commit`.
    pub op: &'static str,
    /// Whether trying again later may help.
    pub transient: bool,
    /// What the backend said.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

impl BackendError {
    /// Wraps a cause that will not go away by itself.
    pub fn permanent(
        backend: &'static str,
        op: &'static str,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self { backend, op, transient: false, source: source.into() }
    }

    /// Wraps a cause that may be gone at the next try.
    pub fn transient(
        backend: &'static str,
        op: &'static str,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self { backend, op, transient: true, source: source.into() }
    }
}
