//! Arguments of `task`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Arguments of `task`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
A task is what somebody wants done in a project; `run --task` makes an attempt of it. Its
status follows from its attempts and from what was said of it: todo, in_progress, in_review,
done, cancelled, archived.

Examples:
  windlass task add 'Parse empty files' -p app
  windlass run --task t-1234abcd -- ./agent.sh
  windlass task ls --status in_review")]
pub struct TaskArgs {
    /// What to do
    #[command(subcommand)]
    pub action: TaskAction,
}

/// What to do with tasks.
#[derive(Clone, Debug, Subcommand)]
pub enum TaskAction {
    /// Add a task; prints its id
    Add(TaskAddArgs),
    /// List tasks, newest first
    #[command(after_help = "\
Examples:
  windlass task ls
  windlass task ls -p app --status todo --json")]
    Ls {
        /// Only those of this project
        #[arg(short, long, value_name = "PROJECT")]
        project: Option<String>,
        /// Only those that are this far
        #[arg(long, value_name = "S")]
        status: Option<StatusArg>,
    },
    /// Show everything about a task, with its attempts
    #[command(after_help = "\
Example:
  windlass task show t-1234abcd --json | jq -r '.attempts[].branch'")]
    Show {
        /// The task
        task: String,
    },
    /// Change a task, or say how it stands
    Set(TaskSetArgs),
    /// Remove a task; its attempts stay, as runs
    #[command(after_help = "\
Refused while an attempt of it is active. The records of attempts and their branches stay in
any case.

Examples:
  windlass task rm t-1234abcd
  windlass task rm t-1234abcd --attempts")]
    Rm {
        /// The task
        task: String,
        /// Remove its attempts first, as `windlass rm` does: what their worktrees hold is saved
        #[arg(long)]
        attempts: bool,
    },
}

/// A status of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum StatusArg {
    /// Nothing was done for it.
    Todo,
    /// An attempt works on it.
    InProgress,
    /// None does, and one has ended.
    InReview,
    /// Its work is merged, or somebody says so.
    Done,
    /// It was given up.
    Cancelled,
    /// It was put away.
    Archived,
}

/// Arguments of `task add`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  windlass task add 'Parse empty files'
  windlass task add 'Parse empty files' -p app --description-file notes.md
  git log -1 --format=%B | windlass task add 'Follow this up' --description-file -")]
pub struct TaskAddArgs {
    /// What to call it
    pub title: String,
    /// The project [default: that of the repository we stand in]
    #[arg(short, long, value_name = "PROJECT")]
    pub project: Option<String>,
    /// All that is to be said of it.
    #[command(flatten)]
    pub description: DescriptionArgs,
    /// The attempt whose work it goes on from
    #[arg(long, value_name = "ATTEMPT")]
    pub parent: Option<String>,
}

/// All that is to be said of a task.
#[derive(Clone, Debug, Args)]
pub struct DescriptionArgs {
    /// All that is to be said of it
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// The same from a file; - is standard input
    #[arg(long, value_name = "F", conflicts_with = "description")]
    pub description_file: Option<PathBuf>,
}

/// What is said of a task's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SayArg {
    /// It is to be done, again, until an attempt of it does something.
    Todo,
    /// It is done, until an attempt of it does something.
    Done,
    /// It is given up: nothing starts for it.
    Cancelled,
    /// It is put away: nothing starts for it.
    Archived,
    /// Take back what was said: its attempts tell how it stands.
    Reopen,
}

/// Arguments of `task set`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
What is not named stays. With --if-version nothing is changed if somebody else has changed
the task since (exit code 4).

Examples:
  windlass task set t-1234abcd --status done
  windlass task set t-1234abcd --status reopen
  windlass task set t-1234abcd --title 'Parse empty lines, too' --if-version 2")]
pub struct TaskSetArgs {
    /// The task
    pub task: String,
    /// What to call it
    #[arg(long, value_name = "T")]
    pub title: Option<String>,
    /// All that is to be said of it.
    #[command(flatten)]
    pub description: DescriptionArgs,
    /// How it stands
    #[arg(long, value_name = "S")]
    pub status: Option<SayArg>,
    /// Only if it is at this version, as `task show` says
    #[arg(long, value_name = "N")]
    pub if_version: Option<u64>,
}
