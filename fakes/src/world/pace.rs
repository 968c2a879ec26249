//! How long things take in a world, and what may befall a shim: data, given by whoever drives it.

pub use super::shim::Ambush;

/// How long things take, in milliseconds. At first nothing takes any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pace {
    /// From the open gate to the executed program.
    pub exec_ms: u64,
    /// A sync of a journal or a log. A shim waits for it; a power loss meanwhile finds bytes that are not synced.
    pub sync_ms: u64,
    /// A batch of the store, from its begin to its acknowledgement. A power loss meanwhile leaves it in doubt.
    pub commit_ms: u64,
    /// A commit that its caller gives up while it is on its way happens all the same.
    pub keeps_dropped_commits: bool,
    /// Each step of making, saving or removing a worktree. Whoever gives up meanwhile leaves it half done.
    pub worktree_step_ms: u64,
    /// From the creation of a worktree until its files are on the disk.
    pub settle_ms: u64,
}
