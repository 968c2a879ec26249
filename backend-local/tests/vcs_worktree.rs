//! The port `VcsWorktree` on git: the suite, and what only git has.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

#[path = "vcs_worktree/changes.rs"]
mod changes;
#[path = "vcs_worktree/creation.rs"]
mod creation;
#[path = "vcs_worktree/place.rs"]
mod place;
#[path = "vcs_worktree/removal.rs"]
mod removal;
#[path = "vcs_worktree/sources.rs"]
mod sources;

windlass_conformance::vcs_worktree_suite! {
    git => crate::place::GitPlace,
}
