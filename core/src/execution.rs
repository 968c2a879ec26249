//! What is said of a finished or running process tree, shared by the shim and everything above it.

use crate::outcome::{CompletedBy, Deadline, Exit, NotStarted, Outcome, StoppedBy};
use crate::time::Timestamp;

/// A process that outlived its execution.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "ports", derive(serde::Serialize, serde::Deserialize))]
pub struct Survivor {
    /// Its number in the execution's pid namespace.
    pub pid: u32,
    /// Its command name as the kernel has it (at most 15 bytes on Linux), never its arguments.
    pub name: String,
    /// Why it lives.
    pub reason: SurvivorReason,
}

/// Why a process outlived its execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "ports", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "ports", serde(rename_all = "snake_case"))]
pub enum SurvivorReason {
    /// The execution asked to leave its children running.
    Left,
    /// We may not signal it (it changed its user).
    NotPermitted,
    /// It did not die from SIGKILL in time (uninterruptible sleep).
    Unkillable,
}

/// Resource use of a process tree, as `wait4` reports it for what was reaped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "ports", derive(serde::Serialize, serde::Deserialize))]
pub struct ResourceUse {
    /// User CPU time in microseconds.
    pub user_us: u64,
    /// System CPU time in microseconds.
    pub system_us: u64,
    /// Largest resident size of one process, in KiB.
    pub max_rss_kib: u64,
}

/// What is known when the outcome becomes visible.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "ports", derive(serde::Serialize, serde::Deserialize))]
pub struct ExitReport {
    /// How it ended.
    pub outcome: Outcome,
    /// What the kernel saw; `None` if the command never ran or nobody saw it.
    pub exit: Option<Exit>,
    /// When it ended, by the wall clock of its node.
    pub at: Timestamp,
    /// Resource use; zero where nothing ran.
    pub usage: ResourceUse,
    /// The kernel killed it for lack of memory.
    pub out_of_memory: bool,
}

/// What is known when nothing of the execution will change any more.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "ports", derive(serde::Serialize, serde::Deserialize))]
pub struct FinalReport {
    /// What was known at the exit.
    pub exit: ExitReport,
    /// The last number of the log, 0 if there is none.
    pub last_seq: u64,
    /// Payload bytes of the log, the dropped ones included.
    pub bytes: u64,
    /// Payload bytes that were dropped and are counted in gaps.
    pub dropped_bytes: u64,
    /// A pipe was still held open when we stopped reading, or the tail of the log is missing.
    pub output_incomplete: bool,
    /// What outlived it: at most 16 by name.
    pub survivors: Vec<Survivor>,
    /// How many more outlived it.
    pub more_survivors: u32,
}

/// Why the shim ended an execution before it ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "ports", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "ports", serde(tag = "cause", rename_all = "snake_case"))]
pub enum EndCause {
    /// It was asked to stop.
    Stopped {
        /// Who asked.
        by: StoppedBy,
    },
    /// It had said that it was complete.
    Completed {
        /// Who said so.
        by: CompletedBy,
    },
    /// A deadline fired.
    TimedOut {
        /// Which one.
        limit: Deadline,
    },
}

impl EndCause {
    /// Returns the outcome of an execution that was ended for this cause.
    #[must_use]
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Stopped { by } => Outcome::Stopped { by },
            Self::Completed { by } => Outcome::Completed { by },
            Self::TimedOut { limit } => Outcome::TimedOut { limit },
        }
    }
}

/// What was being done when a command could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "ports", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "ports", serde(rename_all = "snake_case"))]
pub enum ExecStep {
    /// Making pipes and the like.
    Prepare,
    /// Making the process.
    Fork,
    /// Recording that it is about to run.
    Record,
    /// Giving it a process group of its own.
    Group,
    /// Connecting its standard streams.
    Streams,
    /// Entering its directory.
    Directory,
    /// Executing the program.
    Exec,
    /// Executing the program, which is there while its interpreter is not.
    Interpreter,
    /// Nothing: it was stopped first.
    Stopped,
}

/// That a command could not be started, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "ports", derive(serde::Serialize, serde::Deserialize))]
pub struct ExecFailure {
    /// What was being done.
    pub step: ExecStep,
    /// The system's error number, 0 if there is none.
    pub errno: u32,
    /// The same as a reason.
    pub reason: NotStarted,
    /// When, by the wall clock of its node.
    pub at: Timestamp,
}

impl ExecFailure {
    /// Returns the report of an execution that never ran.
    #[must_use]
    pub fn report(&self) -> ExitReport {
        ExitReport {
            outcome: Outcome::NotStarted { reason: self.reason },
            exit: None,
            at: self.at,
            usage: ResourceUse::default(),
            out_of_memory: false,
        }
    }
}

/// How the command's standard input is connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "ports", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "ports", serde(rename_all = "snake_case"))]
pub enum Stdin {
    /// Null: reads see the end at once.
    #[default]
    Null,
    /// A pipe fed with keyed messages.
    Messages,
}

/// How the command's output is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "ports", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "ports", serde(rename_all = "snake_case"))]
pub enum OutputMode {
    /// Two pipes: streams are told apart, their order is the order of reading.
    #[default]
    Separate,
    /// One pipe for both: exact order of writing, all of it tagged stdout.
    Merged,
}

/// What happens to what is left of the tree after a natural exit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "ports", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "ports", serde(rename_all = "snake_case"))]
pub enum Leftovers {
    /// It is stopped as the command would be.
    #[default]
    Stop,
    /// It is left running and named.
    Leave,
}
