//! The engine over strict ports in memory: requests, restarts, trouble with the store.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails where something is not as it should be, in its helpers too"
)]

mod attachments;
mod chains;
mod clock;
mod dev;
mod events;
mod history;
mod host;
mod live_diff;
mod place;
mod planned;
mod pumping;
mod reset;
mod trouble;
mod worktrees;
