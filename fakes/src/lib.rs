//! Strict in-memory ports: they pass the same suites as the real backends, and check what callers may rely on.
//!
//! Nothing here does I/O, reads a clock or needs a runtime. What a fake keeps is a value that can be cloned and compared.

pub mod container_service;
pub mod decision;
mod diff_watch;
pub mod faulty;
pub mod input;
pub mod log_store;
pub mod process_store;
mod vcs_history;
pub mod vcs_worktree;
pub mod world;

pub use container_service::MemoryContainers;
pub use input::MemoryInput;
pub use log_store::MemoryLogs;
pub use process_store::MemoryStore;
pub use vcs_worktree::{MemoryRepositories, MemoryWorktrees, WorktreeStep};
pub use world::{
    Ambush, Happened, Loss, Pace, ProcessName, Signaller, StartId, Time, Unsynced, World,
};
