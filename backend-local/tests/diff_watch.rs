//! The port `DiffWatch` on git worktrees: the suite, and what only git and inotify have.
#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

#[path = "diff_watch/likeness.rs"]
mod likeness;
#[path = "vcs_worktree/place.rs"]
#[expect(dead_code, reason = "not every test of worktrees is here")]
mod place;
#[path = "diff_watch/storms.rs"]
mod storms;

use windlass_conformance::diff_watch::{DiffWatchPlace, Ports};
use windlass_local::GitWorktrees;

impl DiffWatchPlace for place::GitPlace {
    async fn open_watched(&self) -> Ports {
        let worktrees = GitWorktrees::open(self.options("data")).await.unwrap();
        Ports { worktrees: worktrees.clone(), watch: worktrees }
    }
}

windlass_conformance::diff_watch_suite! {
    git => crate::place::GitPlace,
}
