//! The engine over strict ports in memory: requests, restarts, trouble with the store.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails where something is not as it should be, in its helpers too"
)]

mod clock;
mod host;
mod place;
mod pumping;
mod trouble;
mod worktrees;
