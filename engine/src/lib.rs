//! Windlass: runs coding agents and any other command in isolated git worktrees, and never loses what they did.

pub mod error;
pub mod handle;
pub mod request;

pub use windlass_core as core;
