//! The port `VcsWorktree` on git: the suite, and what only git has.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

#[path = "vcs_worktree/changes.rs"]
mod changes;
#[path = "vcs_worktree/comebacks.rs"]
mod comebacks;
#[path = "vcs_worktree/commits.rs"]
mod commits;
#[path = "vcs_worktree/copying.rs"]
mod copying;
#[path = "vcs_worktree/crashes.rs"]
mod crashes;
#[path = "vcs_worktree/creation.rs"]
mod creation;
#[path = "vcs_worktree/damage.rs"]
mod damage;
#[path = "vcs_worktree/dirt.rs"]
mod dirt;
#[path = "vcs_worktree/half_made.rs"]
mod half_made;
#[path = "vcs_worktree/identity.rs"]
mod identity;
#[path = "vcs_worktree/kills.rs"]
mod kills;
#[path = "vcs_worktree/latecomers.rs"]
mod latecomers;
#[path = "vcs_worktree/likeness.rs"]
mod likeness;
#[path = "vcs_worktree/merges.rs"]
mod merges;
#[path = "vcs_worktree/moved.rs"]
mod moved;
#[path = "vcs_worktree/place.rs"]
mod place;
#[path = "vcs_worktree/portrait.rs"]
mod portrait;
#[path = "vcs_worktree/rebases.rs"]
mod rebases;
#[path = "vcs_worktree/removal.rs"]
mod removal;
#[path = "vcs_worktree/resets.rs"]
mod resets;
#[path = "vcs_worktree/snapshots.rs"]
mod snapshots;
#[path = "vcs_worktree/sources.rs"]
mod sources;
#[path = "vcs_worktree/steps.rs"]
mod steps;
#[path = "vcs_worktree/strangers.rs"]
mod strangers;
#[path = "vcs_worktree/survey.rs"]
mod survey;

impl windlass_conformance::vcs_history::VcsHistoryPlace for place::GitPlace {
    async fn open_history(&self) -> windlass_conformance::vcs_history::Ports {
        let worktrees = windlass_local::GitWorktrees::open(self.options("data")).await.unwrap();
        windlass_conformance::vcs_history::Ports {
            worktrees: worktrees.clone(),
            history: worktrees,
        }
    }
}

windlass_conformance::vcs_history_suite! {
    history => crate::place::GitPlace,
}

windlass_conformance::vcs_worktree_suite! {
    git => crate::place::GitPlace,
}
