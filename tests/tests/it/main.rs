//! The one test binary: what concerns more than one crate.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on says so by a panic"
)]

mod cli;
mod crash;
mod engine;
mod kernel;
mod log_store;
mod power;
mod simulation;
mod tidy;
mod worktrees;
