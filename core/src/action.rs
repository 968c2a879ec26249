//! What to run: an action, and what comes after it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use crate::execution::{Leftovers, OutputMode, Stdin};
use crate::locator::OsBytes;

/// What to run, with an optional next action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// What to run.
    #[serde(flatten)]
    pub kind: ActionKind,
    /// Why it runs.
    pub run_reason: RunReason,
    /// What follows when it ended well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Box<Next>>,
}

/// What follows an action in its chain. It gets the same environment and the same secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Next {
    /// What to run.
    pub action: Action,
    /// Standard input.
    pub stdin: Stdin,
    /// Output.
    pub output: OutputMode,
    /// What happens to leftovers.
    pub leftovers: Leftovers,
    /// Time limits.
    pub limits: TimeLimits,
    /// Most bytes of log that are kept (head and tail).
    pub log_cap_bytes: u64,
}

impl Next {
    /// Makes what follows from an action and how to run it. Environment and secrets are those of what comes before.
    #[must_use]
    pub fn new(action: Action, options: &RunOptions) -> Self {
        let RunOptions { env: _, secrets: _, stdin, output, leftovers, limits, log_cap_bytes } =
            options.clone();
        Self { action, stdin, output, leftovers, limits, log_cap_bytes }
    }

    /// Returns how it is run after something that was run so.
    #[must_use]
    pub fn options(&self, before: &RunOptions) -> RunOptions {
        RunOptions {
            env: before.env.clone(),
            secrets: before.secrets.clone(),
            stdin: self.stdin,
            output: self.output,
            leftovers: self.leftovers,
            limits: self.limits,
            log_cap_bytes: self.log_cap_bytes,
        }
    }
}

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ActionKind {
    /// An argument vector, run as it is; never empty.
    Command {
        /// Program and arguments.
        argv: Vec<OsBytes>,
    },
    /// A text for a shell, run as `shell -c script`.
    Script {
        /// The shell's program.
        shell: String,
        /// The text.
        script: String,
    },
}

impl ActionKind {
    /// Returns the argument vector to execute.
    #[must_use]
    pub fn argv(&self) -> Vec<OsBytes> {
        match self {
            Self::Command { argv } => argv.clone(),
            Self::Script { shell, script } => {
                vec![shell.as_str().into(), "-c".into(), script.as_str().into()]
            }
        }
    }
}

/// Why an execution runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunReason {
    /// Prepares a new workspace.
    Setup,
    /// Does the work.
    Agent,
    /// Tidies up after the work.
    Cleanup,
    /// Serves while people look; beside the chain.
    DevServer,
    /// Anything else beside the chain.
    Background,
    /// A git step that may run the user's code.
    Git,
}

impl RunReason {
    /// Says whether it is part of the attempt's chain.
    #[must_use]
    pub fn in_chain(self) -> bool {
        match self {
            Self::Setup | Self::Agent | Self::Cleanup | Self::Git => true,
            Self::DevServer | Self::Background => false,
        }
    }
}

/// Where a variable's secret value comes from at launch. Values are never recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum SecretSource {
    /// A variable of the host's own environment.
    HostEnv {
        /// Its name.
        name: String,
    },
    /// A file that the host can read; one trailing newline is dropped.
    File {
        /// Its path.
        path: String,
    },
    /// Standard output of a command that the host runs; one trailing newline is dropped.
    Command {
        /// Program and arguments.
        argv: Vec<String>,
    },
    /// A bare value that only the memory of the host holds; gone with it.
    Memory,
}

/// Time limits and the stop grace of an execution, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeLimits {
    /// Total run time; `None` is none.
    pub total_ms: Option<u64>,
    /// Longest time without output; `None` is none.
    pub idle_ms: Option<u64>,
    /// From TERM to KILL.
    pub grace_ms: u64,
}

/// How to run an action: everything that is not what to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOptions {
    /// The environment, complete but for secrets and the variables that the engine adds.
    pub env: BTreeMap<String, OsBytes>,
    /// Variables with secret values.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Standard input.
    pub stdin: Stdin,
    /// Output.
    pub output: OutputMode,
    /// What happens to leftovers.
    pub leftovers: Leftovers,
    /// Time limits.
    pub limits: TimeLimits,
    /// Most bytes of log that are kept (head and tail).
    pub log_cap_bytes: u64,
}
