//! Windlass: runs coding agents and any other command in isolated git worktrees, and never loses what they did.

#[cfg(feature = "api")]
pub mod api;
pub mod builder;
pub mod config;
pub mod error;
pub mod handle;
mod host;
mod input;
pub mod log_store;
pub mod relocation;
pub mod request;
pub mod runtime;
mod secrets;
#[cfg(feature = "tokio")]
pub mod tokio_runtime;
pub mod view;

pub use builder::{Backends, Builder};
pub use config::Config;
pub use error::EngineError;
pub use handle::Handle;
#[cfg(feature = "planted")]
#[doc(hidden)]
pub use host::steps;
pub use windlass_core as core;
