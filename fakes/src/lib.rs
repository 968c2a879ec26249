//! Strict in-memory ports: they pass the same suites as the real backends, and check what callers may rely on.
//!
//! Nothing here does I/O, reads a clock or needs a runtime. What a fake keeps is a value that can be cloned and compared.

pub mod process_store;
pub mod vcs_worktree;

pub use process_store::MemoryStore;
pub use vcs_worktree::{MemoryRepositories, MemoryWorktrees};
