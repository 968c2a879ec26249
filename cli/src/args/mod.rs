//! The command line's verbs and flags. A verb or flag that is not here is refused.

mod dev;
mod events;
mod history;
mod keep;
mod project;
mod send;
mod start;
mod stores;
mod task;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use self::dev::{DevArgs, ReadyPort};
pub use self::events::EventsArgs;
pub use self::history::{AbortArgs, MergeArgs, PrStateArg, PushArgs, RebaseArgs, SetArgs};
pub use self::keep::{GcArgs, RestoreArgs, RmArgs, SnapshotsArgs};
pub use self::project::{
    DefaultsArgs, ProjectAction, ProjectAddArgs, ProjectArgs, ProjectSetArgs, Unset,
};
pub use self::send::{RetryArgs, SendArgs};
pub use self::start::{ExecArgs, LaunchArgs, OnInterrupt, RunArgs};
pub use self::stores::{LogsKind, StoreKind};
pub use self::task::{
    DescriptionArgs, SayArg, StatusArg, TaskAction, TaskAddArgs, TaskArgs, TaskSetArgs,
};
use crate::duration;

/// Runs commands in isolated git worktrees and never loses what they did.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "windlass",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = "\
Ids are printed as a-… (attempt), x-… (execution), t-… (task) and p-… (project). Taken are
full ids, their last 4 or more digits, @last, for an attempt also its branch or one of its
executions, and for a project its name.
Durations: 500ms, 30s, 5m, 2h.

Examples:
  windlass run -- make test          run a command in a new worktree and follow it
  windlass ps                        what runs
  windlass logs -f @last             its output, from the beginning and as it comes
  windlass diff @last                what it changed

Exit codes: 0 done; 1 failed; 2 usage; 3 not found; 4 refused or conflict; 5 no host.
run, exec and wait end with the execution's code; their own failures are 119 (wait timed
out), 120 usage, 121 no host, 122 refused, 123 not found."
)]
pub struct Cli {
    /// What every verb takes.
    #[command(flatten)]
    pub global: Global,
    /// The verb.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What every verb takes.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// The data directory [env: WINDLASS_DATA_DIR; default: windlass in the XDG data directory]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub data_dir: Option<PathBuf>,
    /// The store of a new data directory; refused if an existing one has another
    #[arg(long, global = true, value_name = "KIND", help_heading = "Global options")]
    pub store: Option<StoreKind>,
    /// The log store of a new data directory; refused if an existing one has another
    #[arg(long, global = true, value_name = "KIND", help_heading = "Global options")]
    pub logs: Option<LogsKind>,
    /// The client that it is done for [env: WINDLASS_OWNER; without one, the operator, who sees all]
    #[arg(long, global = true, value_name = "O", help_heading = "Global options")]
    pub owner: Option<String>,
    /// The key under which a repeated request changes nothing
    #[arg(long, global = true, value_name = "K", help_heading = "Global options")]
    pub key: Option<String>,
    /// Print JSON: one object, or one a line for lists
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// Print results and errors only
    #[arg(short, long, global = true, help_heading = "Global options")]
    pub quiet: bool,
    /// When to use colour
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        help_heading = "Global options"
    )]
    pub color: ColorWhen,
    /// Do not start a host where none runs
    #[arg(long, global = true, help_heading = "Global options")]
    pub no_start: bool,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Run a command as a new attempt, in a new worktree
    Run(RunArgs),
    /// Run one more command in an attempt's workspace
    Exec(ExecArgs),
    /// Run an attempt's dev server, beside whatever else runs in it
    Dev(DevArgs),
    /// Send an attempt a message: its command is run again with it
    Send(SendArgs),
    /// Undo what an attempt did since an execution, which is saved, and run that again
    Retry(RetryArgs),
    /// Write to an execution's standard input
    Input(InputArgs),
    /// List executions, newest first
    Ps(PsArgs),
    /// List attempts, newest first
    Ls(LsArgs),
    /// Show everything about an attempt or execution
    Show(ShowArgs),
    /// Print the path of an attempt's worktree
    Path(PathArgs),
    /// Print the output of an execution
    Logs(LogsArgs),
    /// Wait until executions have ended; end with their code
    Wait(WaitArgs),
    /// Stop executions, or all of an attempt, and wait until nothing of them lives
    Stop(StopArgs),
    /// Show what an attempt changed, against its merge base
    Diff(DiffArgs),
    /// Commit what is dirty in an attempt's worktree
    Commit(CommitArgs),
    /// Merge an attempt's commits into its target
    Merge(MergeArgs),
    /// Put an attempt's commits on top of its target
    Rebase(RebaseArgs),
    /// Give up the rebase or merge that is in progress in an attempt's worktree
    Abort(AbortArgs),
    /// Push an attempt's branch
    Push(PushArgs),
    /// Change an attempt's target, or note its pull request
    Set(SetArgs),
    /// Save and remove worktrees; branches stay
    Rm(RmArgs),
    /// Bring a removed worktree back as it was
    Restore(RestoreArgs),
    /// List the snapshots of an attempt, or remove one
    Snapshots(SnapshotsArgs),
    /// Clean up worktrees and snapshots whose time is over
    Gc(GcArgs),
    /// Search all logs, or those of one attempt
    Search(SearchArgs),
    /// Print everything that changed, numbered
    Events(EventsArgs),
    /// Add, list, show, change or remove tasks
    Task(TaskArgs),
    /// Add, list, show, change or remove projects
    Project(ProjectArgs),
    /// Print or change settings of the data directory
    Config(ConfigArgs),
    /// Run, look at, end or install the host
    Host(HostArgs),
    /// Check git, kernel, shim, disk, permissions and store
    #[command(after_help = "\
Ends with 1 if something does not work.

Examples:
  windlass doctor
  windlass doctor --json | jq 'select(.status != \"ok\")'")]
    Doctor,
    /// Small tools
    Util(UtilArgs),
}

impl Verb {
    /// Says whether the verb ends with an execution's code, so that its own failures need codes of their own.
    #[must_use]
    pub fn ends_with_the_execution(&self) -> bool {
        matches!(self, Self::Run(_) | Self::Exec(_) | Self::Dev(_) | Self::Retry(_) | Self::Wait(_))
    }
}

/// The names of the verbs for which [`Verb::ends_with_the_execution`] holds.
pub const FOLLOWING_VERBS: [&str; 5] = ["run", "exec", "dev", "retry", "wait"];

/// Arguments of `input`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The text is written as a line: a newline is added where it does not end with one.

Examples:
  windlass input x-1234abcd yes
  windlass input x-1234abcd --close ''")]
pub struct InputArgs {
    /// The execution; it was started with --stdin
    pub execution: String,
    /// What to write
    #[arg(allow_hyphen_values = true)]
    pub text: OsString,
    /// Write the text as it is, without a newline
    #[arg(short = 'n', long)]
    pub no_newline: bool,
    /// Close standard input after it; an empty text then writes nothing
    #[arg(long)]
    pub close: bool,
    /// Keep only its length in the log
    #[arg(long)]
    pub secret: bool,
}

/// Arguments of `ps`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  windlass ps
  windlass ps -a --status failed
  windlass ps --json | jq -r .id")]
pub struct PsArgs {
    /// Ended ones too
    #[arg(short, long)]
    pub all: bool,
    /// Only with this status: queued, starting, running, stopping, completed, failed, timed_out, killed, lost
    #[arg(long, value_name = "S", value_parser = status_words())]
    pub status: Option<String>,
}

/// Takes the status words, and the word of the outcome `stopped` for what it is called as a status.
fn status_words() -> impl clap::builder::TypedValueParser<Value = String> {
    use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser as _};
    let value = |word| match word {
        "killed" => PossibleValue::new(word).alias("stopped"),
        word => PossibleValue::new(word),
    };
    let parser = PossibleValuesParser::new(STATUS_WORDS.map(value));
    parser.map(|word| if word == "stopped" { "killed".to_owned() } else { word })
}

/// The status words of executions.
pub const STATUS_WORDS: [&str; 9] = [
    "queued",
    "starting",
    "running",
    "stopping",
    "completed",
    "failed",
    "timed_out",
    "killed",
    "lost",
];

/// Arguments of `ls`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  windlass ls
  windlass ls --task t-1234abcd
  windlass ls -a --json | jq -r 'select(.dirty) | .worktree'")]
pub struct LsArgs {
    /// Removed ones too
    #[arg(short, long)]
    pub all: bool,
    /// Only those of this task
    #[arg(long, value_name = "TASK")]
    pub task: Option<String>,
}

/// Arguments of `show`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  windlass show @last
  windlass show a-1234abcd --json")]
pub struct ShowArgs {
    /// The attempt or execution
    pub id: String,
}

/// Arguments of `path`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Example:
  cd \"$(windlass path @last)\"")]
pub struct PathArgs {
    /// The attempt
    pub attempt: String,
}

/// Arguments of `logs`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
An entry is what one read of the pipe returned: some lines, or a part of one. --after,
--tail and --limit count entries. With --grep every matching line is an entry. What was
written to standard input is shown with -t, --json or --stream stdin.

Examples:
  windlass logs -f @last
  windlass logs x-1234abcd --tail 20 -t
  windlass logs x-1234abcd --raw > out 2> err
  windlass logs @last --grep 'error|warning' --stream stderr
  windlass logs @last --json --after 120")]
pub struct LogsArgs {
    /// The execution, or an attempt for its newest one
    pub id: String,
    /// Go on until it has ended
    #[arg(short, long)]
    pub follow: bool,
    /// Only entries after this number
    #[arg(long, value_name = "SEQ", conflicts_with = "tail")]
    pub after: Option<u64>,
    /// Only the last N entries
    #[arg(long, value_name = "N")]
    pub tail: Option<u32>,
    /// At most N entries
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// Only what was written since then: a time (RFC 3339) or a duration ago
    #[arg(long, value_name = "T", value_parser = duration::parse_since)]
    pub since: Option<duration::Since>,
    /// Print the time of each line
    #[arg(short = 't', long, conflicts_with = "raw")]
    pub timestamps: bool,
    /// Only this stream
    #[arg(long, value_name = "S")]
    pub stream: Option<StreamArg>,
    /// Only lines that match this regular expression
    #[arg(long, value_name = "RE", conflicts_with = "raw")]
    pub grep: Option<String>,
    /// Exactly the bytes that were written: standard output to standard output, standard error to standard error
    #[arg(long, conflicts_with = "json")]
    pub raw: bool,
}

/// A stream of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StreamArg {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// What was written to standard input.
    Stdin,
}

/// Arguments of `wait`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Ends with the code of the execution; with several, with the first that is not 0, in the
order given. 119 says that the time was up; --timeout 0s only looks.

Examples:
  windlass wait @last
  windlass wait x-1234abcd x-5678cdef --any --timeout 10m")]
pub struct WaitArgs {
    /// The executions, or attempts for their newest one
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
    /// Wait no longer than this
    #[arg(long, value_name = "D", allow_hyphen_values = true, value_parser = duration::parse)]
    pub timeout: Option<Duration>,
    /// Wait for the first that ends
    #[arg(long)]
    pub any: bool,
}

/// Arguments of `stop`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  windlass stop x-1234abcd
  windlass stop a-1234abcd --grace 30s")]
pub struct StopArgs {
    /// The executions, or attempts for all of theirs
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
    /// How long to wait between TERM and KILL
    #[arg(long, value_name = "D", allow_hyphen_values = true, value_parser = duration::parse)]
    pub grace: Option<Duration>,
}

/// Arguments of `diff`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  windlass diff @last
  windlass diff a-1234abcd --stat
  windlass diff @last | git apply
  windlass diff @last -f")]
pub struct DiffArgs {
    /// The attempt
    pub attempt: String,
    /// Files and counts only
    #[arg(long)]
    pub stat: bool,
    /// Go on showing files and counts as they change, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
}

/// Arguments of `commit`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Example:
  windlass commit @last -m 'Fix the parser'")]
pub struct CommitArgs {
    /// The attempt
    pub attempt: String,
    /// The commit message [default: names the attempt]
    #[arg(short, long, value_name = "M")]
    pub message: Option<String>,
}

/// Arguments of `search`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  windlass search 'panicked at'
  windlass search 'error: .*' --attempt @last")]
pub struct SearchArgs {
    /// The regular expression
    pub re: String,
    /// Only this attempt's logs
    #[arg(long, value_name = "A")]
    pub attempt: Option<String>,
}

/// Arguments of `config`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Settings count from the next start of the host on.

Examples:
  windlass config
  windlass config set limits.per_host 64
  windlass config unset limits.per_host")]
pub struct ConfigArgs {
    /// What to do [default: print all]
    #[command(subcommand)]
    pub action: Option<ConfigAction>,
}

/// What to do with settings.
#[derive(Clone, Debug, Subcommand)]
pub enum ConfigAction {
    /// Print one setting
    Get {
        /// Its name
        name: String,
    },
    /// Change a setting
    Set {
        /// Its name
        name: String,
        /// Its value
        #[arg(allow_hyphen_values = true)]
        value: String,
    },
    /// Go back to the default
    Unset {
        /// Its name
        name: String,
    },
}

/// Arguments of `host`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
A host is started when it is needed and leaves when there is nothing to do. Executions do
not need it to run on.

Examples:
  windlass host status
  windlass host stop
  windlass host install")]
pub struct HostArgs {
    /// What to do
    #[command(subcommand)]
    pub action: HostAction,
}

/// What to do with the host.
#[derive(Clone, Debug, Subcommand)]
pub enum HostAction {
    /// Be the host, in the foreground; for service managers
    #[command(after_help = "\
It drains on SIGTERM and SIGINT: executions run on and the next host adopts them.

Example:
  windlass host run")]
    Run {
        /// Go to the background: what the command line does when it starts a host.
        #[arg(long, hide = true)]
        background: bool,
        /// Do not leave when idle
        #[arg(long)]
        stay: bool,
        /// The data directory was moved or restored on purpose: take it over where it is now
        #[arg(long)]
        moved: bool,
    },
    /// Print what is known of the host
    #[command(after_help = "\
Example:
  windlass host status --json | jq .running")]
    Status,
    /// Make the host leave; executions run on
    #[command(after_help = "\
The next verb that needs a host starts one, which adopts what runs: so settings and a new
version come into force.

Example:
  windlass host stop")]
    Stop,
    /// Register the host with the service manager
    #[command(after_help = "\
Example:
  windlass host install --print")]
    Install {
        /// Print the service's definition instead of installing it
        #[arg(long)]
        print: bool,
    },
}

/// Arguments of `util`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Example:
  windlass util completion fish > ~/.config/fish/completions/windlass.fish")]
pub struct UtilArgs {
    /// Which one
    #[command(subcommand)]
    pub tool: UtilTool,
}

/// Small tools.
#[derive(Clone, Debug, Subcommand)]
pub enum UtilTool {
    /// Print a completion script for a shell
    #[command(after_help = "\
Example:
  windlass util completion bash > ~/.local/share/bash-completion/completions/windlass")]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Make the files of the stores as small as what is in them allows; while no host runs
    #[command(after_help = "\
It needs room for a second copy of what is in an SQLite file. Nothing is lost if it is
interrupted.

Example:
  windlass host stop && windlass util compact")]
    Compact,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::error::ErrorKind> {
        Cli::try_parse_from(line.split(' ')).map_err(|error| error.kind())
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_follows_the_dashes_is_the_command_whatever_it_looks_like() {
        let Verb::Run(run) = parse("windlass run -d --json -- ls --json -d").unwrap().verb else {
            panic!("not run");
        };
        assert_eq!(run.launch.command, ["ls", "--json", "-d"]);
        assert!(run.launch.detach);
    }

    #[test]
    fn contradictions_are_refused() {
        for line in [
            "windlass run",
            "windlass run --shell true -- true",
            "windlass run --dir /tmp --base main -- true",
            "windlass run --timeout 0s -- true",
            "windlass run --timeout 5 -- true",
            "windlass logs x --after 3 --tail 4",
            "windlass logs x --raw --json",
            "windlass logs x --raw --grep a",
            "windlass --store lmdb ps",
            "windlass merge",
            "windlass rebase x --onto b --continue",
            "windlass set x",
            "windlass set x --pr-state merged",
            "windlass run --pty -- true",
            "windlass gc --dry-run --keep x",
            "windlass snapshots x --force",
            "windlass run --dir /tmp --copy a -- true",
            "windlass ps --status done",
            "windlass wait",
            "windlass run --task t --repo /tmp -- true",
            "windlass events --state --after 3",
            "windlass task add",
            "windlass task set t --description a --description-file b",
            "windlass task set t --status in_review",
            "windlass project set p --commit --no-commit",
            "windlass project set p --unset name",
            "windlass dev a --shell x -- y",
            "windlass dev a --ready-port 80 --ready-pattern x -- y",
            "windlass dev a --ready-port 0 -- y",
            "windlass send a",
            "windlass send a text --release",
            "windlass send a --cancel f --if-version 1 --hold",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_status_may_be_named_by_its_outcome() {
        let Verb::Ps(ps) = parse("windlass ps --status stopped").unwrap().verb else {
            panic!("not ps");
        };
        assert_eq!(ps.status.as_deref(), Some("killed"));
    }

    #[test]
    fn what_begins_with_a_hyphen_is_a_bad_value_and_no_flag() {
        for line in ["windlass run --timeout -5s -- true", "windlass wait x --timeout -5s"] {
            assert_eq!(parse(line).unwrap_err(), clap::error::ErrorKind::ValueValidation, "{line}");
        }
        assert!(parse("windlass config set limits.queue -1").is_ok(), "the setting refuses it");
    }

    #[test]
    fn help_fits_the_width_that_it_is_wrapped_at() {
        fn check(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines() {
                assert!(line.chars().count() <= 100, "{}: {line}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn global_options_stand_anywhere() {
        for line in ["windlass --json --owner me ps", "windlass ps --json --owner me"] {
            let cli = parse(line).unwrap();
            assert!(cli.global.json && cli.global.owner.as_deref() == Some("me"), "{line}");
        }
    }

    #[test]
    fn every_verb_has_examples() {
        fn check(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "{}", command.get_name());
            command.get_subcommands().for_each(|verb| {
                let settings_verbs = command.get_name() == "config";
                if !settings_verbs {
                    check(verb);
                }
            });
        }
        check(&Cli::command());
    }

    #[test]
    fn every_verb_has_help() {
        for verb in Cli::command().get_subcommands() {
            assert!(verb.get_about().is_some(), "{}", verb.get_name());
        }
        for name in FOLLOWING_VERBS {
            assert!(Cli::command().find_subcommand(name).is_some(), "{name}");
        }
    }
}
