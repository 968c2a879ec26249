//! Arguments of `send` and `retry`.

use std::path::PathBuf;

use clap::Args;

use super::OnInterrupt;

/// Arguments of `send`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The attempt's command is run again in its workspace, with the message on its standard input,
and its cleanup after it; its setup is not. That begins at once, or when the chain is over:
one message after the other. A stop, a bad end or a failed commit holds what waits, until
--release. A removed worktree is made again first.

Examples:
  windlass send @last 'now make the tests pass'
  windlass send a-1234abcd - < notes.txt
  windlass send @last --attach shot.png 'it looks like ![this](shot.png)'
  windlass send a-1234abcd --replace f-5678cdef 'something else'
  windlass send a-1234abcd --release")]
pub struct SendArgs {
    /// The attempt
    pub attempt: String,
    /// The message; - reads it from standard input
    #[arg(
        value_name = "TEXT",
        allow_hyphen_values = true,
        required_unless_present_any = ["cancel", "hold", "release"],
        conflicts_with_all = ["cancel", "hold", "release"]
    )]
    pub text: Option<String>,
    /// Hand over a copy of this file, in .windlass/attachments of the worktree; names of such files in links of TEXT
    /// become their paths
    #[arg(
        long,
        value_name = "FILE",
        action = clap::ArgAction::Append,
        conflicts_with_all = ["replace", "cancel", "hold", "release"]
    )]
    pub attach: Vec<PathBuf>,
    /// Save and undo what is in the worktree and not committed before it is run
    #[arg(long, conflicts_with_all = ["replace", "cancel", "hold", "release"])]
    pub reset: bool,
    /// Let this message, which waits, say TEXT: its id, or its position
    #[arg(long, value_name = "F", conflicts_with_all = ["cancel", "hold", "release"])]
    pub replace: Option<String>,
    /// Take this message, which waits, back
    #[arg(long, value_name = "F", conflicts_with_all = ["hold", "release"])]
    pub cancel: Option<String>,
    /// Start nothing of what waits
    #[arg(long, conflicts_with = "release")]
    pub hold: bool,
    /// Start what waits, one after the other
    #[arg(long)]
    pub release: bool,
    /// Only if the message is at this version still; else it is a conflict
    #[arg(long, value_name = "N", conflicts_with_all = ["hold", "release"])]
    pub if_version: Option<u64>,
}

/// Arguments of `retry`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
What runs in the attempt is stopped, what is in its worktree is saved in a snapshot, and the
worktree is put back to the commit before the execution, which is then run again, with what
follows it. What ran since stays in the history, as superseded. Ignored files stay.

Examples:
  windlass retry @last
  windlass retry a-1234abcd --from x-5678cdef
  windlass retry -d a-1234abcd
  windlass retry @last --prompt 'the same, but with tests'")]
pub struct RetryArgs {
    /// The attempt, or the execution to run again
    pub id: String,
    /// The execution of its chain to run again [default: its last command]
    #[arg(long, value_name = "EXECUTION")]
    pub from: Option<String>,
    /// Let the command read this on its standard input in place of what it read; - reads it from here
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub prompt: Option<String>,
    /// What Ctrl-C does while following; not with -d
    #[arg(long, value_name = "WHAT", default_value = "ask", conflicts_with = "detach")]
    pub on_interrupt: OnInterrupt,
    /// Do not follow; print the execution's id
    #[arg(short, long)]
    pub detach: bool,
}
