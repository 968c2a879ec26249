//! Arguments of `events`.

use clap::Args;

/// Arguments of `events`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Attempts, executions, projects, tasks and snapshots. The number of the last event that was
seen is where to go on: nothing is missed. A change of an attempt that gives its task
another status is followed by one of the task, with the same number.

Examples:
  windlass events -f
  windlass events --after 1200 --json
  windlass events --state -f --json")]
pub struct EventsArgs {
    /// Only what came after this number
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "state")]
    pub after: u64,
    /// First everything that there is, as of one number, then what changed after it
    #[arg(long)]
    pub state: bool,
    /// Go on as more happens
    #[arg(short, long)]
    pub follow: bool,
}
