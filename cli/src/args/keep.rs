//! Arguments of the verbs that remove worktrees, keep their work and bring them back.

use clap::Args;

/// Arguments of `rm`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
What exists nowhere else is saved in a snapshot first: `windlass restore` brings it back.
Of ignored files the smallest are saved, up to 64 MiB; what is left out is named. What
cannot be saved keeps the worktree from being removed.

Examples:
  windlass rm a-1234abcd
  windlass rm --force @last
  windlass rm --delete-branch a-1234abcd")]
pub struct RmArgs {
    /// The attempts
    #[arg(required = true, value_name = "ATTEMPT")]
    pub attempts: Vec<String>,
    /// Stop what runs in it first; save a rebase or merge in progress too
    #[arg(long)]
    pub force: bool,
    /// Lose what cannot be saved: special files, unreadable ones, mounts
    #[arg(long)]
    pub discard_unsaved: bool,
    /// Delete the branch as well; commits that no other branch has are saved
    #[arg(long)]
    pub delete_branch: bool,
}

/// Arguments of `restore`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The worktree comes back in its place, with every file, the index and an operation in
progress as they were; on its branch where that is as it was, else with HEAD detached,
which is said. `exec` and `diff` on a removed worktree bring it back by themselves.

Examples:
  windlass restore a-1234abcd
  windlass restore @last --snapshot 1")]
pub struct RestoreArgs {
    /// The attempt
    pub attempt: String,
    /// This snapshot, not the last one
    #[arg(long, value_name = "N")]
    pub snapshot: Option<u32>,
}

/// Arguments of `snapshots`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
A snapshot is an archive that tar reads; docs/snapshots.md says how to get work out of it
without Windlass.

Examples:
  windlass snapshots @last
  windlass snapshots @last --json | jq .left_out
  windlass snapshots a-1234abcd --rm 2")]
pub struct SnapshotsArgs {
    /// The attempt
    pub attempt: String,
    /// Remove this one for good
    #[arg(long, value_name = "N")]
    pub rm: Option<u32>,
    /// With --rm: also if the removed worktree cannot come back without it
    #[arg(long, requires = "rm")]
    pub force: bool,
}

/// Arguments of `gc`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The host does this by itself at its start and every 30 minutes. Worktrees in which nothing
happened for 72 hours are saved and removed, also those that no record speaks of, after a
grace; snapshots whose time is over go. Times count while a host runs, never by a clock
that may jump.

Examples:
  windlass gc --dry-run
  windlass gc --keep a-1234abcd")]
pub struct GcArgs {
    /// Say what would be done, and why, without doing it
    #[arg(long)]
    pub dry_run: bool,
    /// Only note that the worktrees of these attempts stay, however long nothing happens in them
    #[arg(long, value_name = "ATTEMPT", num_args = 1.., conflicts_with_all = ["dry_run", "no_keep"])]
    pub keep: Vec<String>,
    /// Only take that back
    #[arg(long, value_name = "ATTEMPT", num_args = 1.., conflicts_with = "dry_run")]
    pub no_keep: Vec<String>,
}
