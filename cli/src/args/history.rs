//! Arguments of the verbs about the commits of attempts.

use clap::{Args, ValueEnum};

/// Arguments of `merge`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
What is not committed in the worktree, or in a checkout of the target, is a reason to refuse;
so is a conflict. Nothing is touched then. A clean checkout of the target follows. No commit
hooks run. What is merged already is not merged again.

Examples:
  windlass merge @last
  windlass merge a-1234abcd --squash -m 'Add the parser'
  windlass merge a-1234abcd --into next")]
pub struct MergeArgs {
    /// The attempt
    pub attempt: String,
    /// Make one commit of all its commits, not a merge commit
    #[arg(long)]
    pub squash: bool,
    /// Into this branch, not into the attempt's target
    #[arg(long, value_name = "B")]
    pub into: Option<String>,
    /// The commit message [default: the attempt's title]
    #[arg(short, long, value_name = "M")]
    pub message: Option<String>,
}

/// Arguments of `rebase`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Where it conflicts it stays in the worktree, ends with 4 and names the files. Resolve them
there, by hand or with `windlass send` or `windlass exec`, `git add` them, and go on with
--continue; or give it up with `windlass abort`.

Examples:
  windlass rebase @last
  windlass rebase a-1234abcd --onto next
  windlass rebase a-1234abcd --continue")]
pub struct RebaseArgs {
    /// The attempt
    pub attempt: String,
    /// On top of this branch, not of the attempt's target
    #[arg(long, value_name = "B", conflicts_with = "go_on")]
    pub onto: Option<String>,
    /// Go on after the conflicts are resolved and staged
    #[arg(long = "continue")]
    pub go_on: bool,
}

/// Arguments of `abort`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The worktree is put back to before it. What is in it is saved in a snapshot first.

Example:
  windlass abort a-1234abcd")]
pub struct AbortArgs {
    /// The attempt
    pub attempt: String,
}

/// Arguments of `push`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Hooks run, and nobody can be asked for a password. The configuration is not changed.

Examples:
  windlass push @last
  windlass push a-1234abcd --remote fork --force-with-lease")]
pub struct PushArgs {
    /// The attempt
    pub attempt: String,
    /// To this remote [default: what the repository says, else origin, else the only one]
    #[arg(long, value_name = "R")]
    pub remote: Option<String>,
    /// Also if the branch there is not behind, as long as it is where it was last seen
    #[arg(long)]
    pub force_with_lease: bool,
}

/// Arguments of `set`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  windlass set a-1234abcd --target next
  windlass set @last --pr https://example.org/pulls/7
  windlass set @last --pr https://example.org/pulls/7 --pr-state merged")]
pub struct SetArgs {
    /// The attempt
    pub attempt: String,
    /// The branch that its work is meant for
    #[arg(long, value_name = "B", required_unless_present = "pr")]
    pub target: Option<String>,
    /// Note a pull request that was made of it
    #[arg(long, value_name = "URL")]
    pub pr: Option<String>,
    /// How the pull request stands; none forgets it
    #[arg(long, value_name = "S", requires = "pr", default_value = "open")]
    pub pr_state: PrStateArg,
}

/// How a pull request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PrStateArg {
    /// It waits.
    Open,
    /// It was merged.
    Merged,
    /// It was closed without that.
    Closed,
    /// It is not one of this attempt.
    None,
}
