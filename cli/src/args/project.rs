//! Arguments of `project`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Arguments of `project`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
A project is a repository with what its attempts have in common. Where a project is taken,
its name is, or the last 4 or more digits of its id.

Examples:
  windlass project add
  windlass project set app --base main --copy '.env*'
  windlass project ls")]
pub struct ProjectArgs {
    /// What to do
    #[command(subcommand)]
    pub action: ProjectAction,
}

/// What to do with projects.
#[derive(Clone, Debug, Subcommand)]
pub enum ProjectAction {
    /// Add a project; prints its id
    Add(ProjectAddArgs),
    /// List projects, newest first
    #[command(after_help = "\
Example:
  windlass project ls --json | jq -r .name")]
    Ls,
    /// Show everything about a project
    #[command(after_help = "\
Examples:
  windlass project show
  windlass project show app --json")]
    Show {
        /// The project [default: that of the repository we stand in]
        project: Option<String>,
    },
    /// Change a project
    Set(ProjectSetArgs),
    /// Remove a project; attempts stay
    #[command(after_help = "\
Examples:
  windlass project rm app
  windlass project rm app --force")]
    Rm {
        /// The project
        project: String,
        /// Take its tasks along, unless an attempt of one is active
        #[arg(long)]
        force: bool,
    },
}

/// What the attempts of a project have in common.
#[derive(Clone, Debug, Args)]
pub struct DefaultsArgs {
    /// What to call it [default: as its directory]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Where attempts start from: a branch, tag or commit [default: HEAD]
    #[arg(long, value_name = "REF")]
    pub base: Option<String>,
    /// The script that prepares a new workspace
    #[arg(long, value_name = "SCRIPT")]
    pub setup: Option<String>,
    /// The script that tidies up after the work
    #[arg(long, value_name = "SCRIPT")]
    pub cleanup: Option<String>,
    /// The script of the dev server
    #[arg(long, value_name = "SCRIPT")]
    pub dev: Option<String>,
    /// Copy ignored files into new worktrees: a glob as in .gitignore, for example '.env*'
    #[arg(long, value_name = "GLOB", action = clap::ArgAction::Append)]
    pub copy: Vec<String>,
    /// Leave changes in the worktree instead of committing them
    #[arg(long)]
    pub no_commit: bool,
}

/// Arguments of `project add`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
`run --task` runs the setup script before and the cleanup script after its command. The dev
script is kept with the project and not run.

Examples:
  windlass project add
  windlass project add --repo ~/src/app --name app --base main --copy '.env*'")]
pub struct ProjectAddArgs {
    /// A directory in the repository [default: here]
    #[arg(long, value_name = "P")]
    pub repo: Option<PathBuf>,
    /// What its attempts have in common.
    #[command(flatten)]
    pub defaults: DefaultsArgs,
}

/// What goes back to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Unset {
    /// Attempts start from HEAD.
    Base,
    /// No setup script.
    Setup,
    /// No cleanup script.
    Cleanup,
    /// No dev script.
    Dev,
    /// Nothing is copied.
    Copy,
}

/// Arguments of `project set`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
What is not named stays. Globs take the place of those that there were. With --if-version
nothing is changed if somebody else has changed the project since (exit code 4).

Examples:
  windlass project set app --base develop
  windlass project set app --unset base --unset copy
  windlass project set app --name application --if-version 3")]
pub struct ProjectSetArgs {
    /// The project
    pub project: String,
    /// What its attempts have in common.
    #[command(flatten)]
    pub defaults: DefaultsArgs,
    /// Commit changes (again)
    #[arg(long, conflicts_with = "no_commit")]
    pub commit: bool,
    /// Take this back
    #[arg(long, value_name = "WHAT", action = clap::ArgAction::Append)]
    pub unset: Vec<Unset>,
    /// Only if it is at this version, as `project show` says
    #[arg(long, value_name = "N")]
    pub if_version: Option<u64>,
}
