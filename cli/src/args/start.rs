//! Arguments of the verbs that start something.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::duration;

/// What to do when somebody presses Ctrl-C while following.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnInterrupt {
    /// Ask on a terminal; detach without one.
    Ask,
    /// Stop the execution.
    Stop,
    /// Leave it running.
    Detach,
}

/// How to run a command.
#[derive(Clone, Debug, Args)]
pub struct LaunchArgs {
    /// Run TEXT with /bin/sh instead of a command
    #[arg(long, value_name = "TEXT", conflicts_with = "command")]
    pub shell: Option<String>,
    /// Set a variable; without a value, take it from here
    #[arg(long, value_name = "K[=V]", action = clap::ArgAction::Append)]
    pub env: Vec<OsString>,
    /// Take all variables from here
    #[arg(long)]
    pub env_all: bool,
    /// Set a variable to a secret: from here (K), or at launch from a file, the host's environment or a shell command
    /// (K=file:PATH, K=env:NAME, K=cmd:TEXT). Never recorded
    #[arg(long, value_name = "K[=SOURCE]", action = clap::ArgAction::Append)]
    pub secret: Vec<OsString>,
    /// Stop it after this time
    #[arg(long, value_name = "D", allow_hyphen_values = true, value_parser = duration::parse_positive)]
    pub timeout: Option<Duration>,
    /// Stop it after this time without output
    #[arg(long, value_name = "D", allow_hyphen_values = true, value_parser = duration::parse_positive)]
    pub idle_timeout: Option<Duration>,
    /// Forward standard input; with -d it is fed by `windlass input` alone
    #[arg(short = 'i', long)]
    pub stdin: bool,
    /// One pipe for both streams: exact order of writing
    #[arg(long)]
    pub merge_streams: bool,
    /// Leave what the command started running when it ends
    #[arg(long)]
    pub leave_running: bool,
    /// Refuse if no slot is free, instead of waiting for one
    #[arg(long)]
    pub no_queue: bool,
    /// What Ctrl-C does while following; not with -d
    #[arg(long, value_name = "WHAT", default_value = "ask", conflicts_with = "detach")]
    pub on_interrupt: OnInterrupt,
    /// Do not follow; print the execution's id
    #[arg(short, long)]
    pub detach: bool,
    /// The command
    #[arg(last = true, value_name = "CMD", required_unless_present = "shell")]
    pub command: Vec<OsString>,
}

/// Arguments of `run`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  windlass run -- cargo test
  windlass run --title 'Try the new parser' --base main -- ./agent.sh
  windlass run --task t-1234abcd -- ./agent.sh
  windlass run --setup 'npm ci' --cleanup 'npm run format' --copy '.env*' -- ./agent.sh
  windlass run -d --timeout 30m --env-all -- make all
  windlass run --dir /srv/data --no-queue -- ./check
  windlass run --shell 'make && ./smoke | tee report'

The command starts at the top of the new worktree, also if you stand in a directory below.
What it changed is committed on the attempt's branch when it ends with 0.
The first line on standard error names attempt and execution; with -d the execution's id
is on standard output.")]
pub struct RunArgs {
    /// Make it an attempt of this task, in its project's repository and with its defaults
    #[arg(long, value_name = "TASK")]
    pub task: Option<String>,
    /// A directory in the repository [default: here]
    #[arg(long, value_name = "P", conflicts_with_all = ["dir", "task"])]
    pub repo: Option<PathBuf>,
    /// Where to start from: a branch, tag or commit [default: HEAD]
    #[arg(long, value_name = "REF", conflicts_with = "dir")]
    pub base: Option<String>,
    /// The name of the new branch [default: made from the title]
    #[arg(long, value_name = "B", conflicts_with = "dir")]
    pub branch: Option<String>,
    /// Copy ignored files into the worktree: a glob as in .gitignore, for example '.env*'
    #[arg(long, value_name = "GLOB", conflicts_with = "dir", action = clap::ArgAction::Append)]
    pub copy: Vec<String>,
    /// Run TEXT with /bin/sh in the new workspace first; if it does not end with 0, nothing else runs
    #[arg(long, value_name = "TEXT")]
    pub setup: Option<String>,
    /// Run TEXT with /bin/sh last, if the command ended well and there are new commits; what it does badly is undone
    #[arg(long, value_name = "TEXT")]
    pub cleanup: Option<String>,
    /// What to call the attempt [default: made from the command]
    #[arg(long, value_name = "T")]
    pub title: Option<String>,
    /// Put a copy of this file into .windlass/attachments of the worktree, which git ignores
    #[arg(long, value_name = "FILE", conflicts_with = "dir", action = clap::ArgAction::Append)]
    pub attach: Vec<PathBuf>,
    /// Run in this directory as it is, without a worktree
    #[arg(long, value_name = "P")]
    pub dir: Option<PathBuf>,
    /// Leave changes in the worktree instead of committing them
    #[arg(long, conflicts_with = "dir")]
    pub no_commit: bool,
    /// Commit them, also if the task's project says otherwise
    #[arg(long, requires = "task", conflicts_with_all = ["dir", "no_commit"])]
    pub commit: bool,
    /// How to run it.
    #[command(flatten)]
    pub launch: LaunchArgs,
}

/// Arguments of `exec`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  windlass exec @last -- git log --oneline -3
  windlass exec a-1234abcd -d -- npm test

Without --timeout it is stopped after 30 minutes, in the foreground too, or after what the
setting background_timeout says (`windlass config`). It starts at the top of the worktree.")]
pub struct ExecArgs {
    /// The attempt
    pub attempt: String,
    /// How to run it.
    #[command(flatten)]
    pub launch: LaunchArgs,
}
