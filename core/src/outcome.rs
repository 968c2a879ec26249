//! How an execution ended: what the kernel saw, apart from why.

use std::fmt;

/// What the kernel saw of the command's own process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "ports", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "ports", serde(rename_all = "snake_case"))]
pub enum Exit {
    /// It called exit with this code (0 to 255).
    Code(u8),
    /// It died from this signal.
    Signal(u8),
}

impl Exit {
    /// Reads a raw wait status as `wait4` gives it (low 7 bits the signal, next byte the code).
    #[must_use]
    pub fn from_wait_status(raw: u32) -> Self {
        let signal = raw & 0x7f;
        if signal == 0 { Self::Code(((raw >> 8) & 0xff) as u8) } else { Self::Signal(signal as u8) }
    }
}

/// Which deadline fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "ports", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "ports", serde(rename_all = "snake_case"))]
pub enum Deadline {
    /// The total run time.
    Total,
    /// The time without output.
    Idle,
}

/// Who asked for a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "ports", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "ports", serde(rename_all = "snake_case"))]
pub enum StoppedBy {
    /// A person or a client, by request.
    User,
    /// The host, for example before a removal.
    Host,
}

/// Who said that the work was complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "ports", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "ports", serde(rename_all = "snake_case"))]
pub enum CompletedBy {
    /// The agent said that its turn is complete.
    Turn,
    /// The embedding program said that it is.
    Program,
}

/// Why an execution never ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "ports", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "ports", serde(rename_all = "snake_case"))]
pub enum NotStarted {
    /// There is no such program.
    ProgramNotFound,
    /// The program is there but may not be executed.
    NotExecutable,
    /// The directory to run in is gone or cannot be entered.
    DirectoryGone,
    /// The workspace is not the recorded one; the launch was refused.
    WorkspaceRefused,
    /// A limit cannot be enforced or leaves no room.
    LimitRefused,
    /// A secret could not be resolved.
    SecretGone,
    /// The process could not be made.
    SpawnFailed,
    /// It was stopped before it ran.
    Stopped,
}

/// Why nobody can know how an execution ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "ports", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "ports", serde(rename_all = "snake_case"))]
pub enum Lost {
    /// The machine restarted while it ran.
    MachineRestarted,
    /// Its shim died while it ran.
    SupervisorDied,
    /// The journal is missing or damaged.
    EvidenceDamaged,
}

/// How an execution ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "ports", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "ports", serde(tag = "kind", rename_all = "snake_case"))]
pub enum Outcome {
    /// It ended by itself with a code.
    Exited {
        /// The exit code.
        code: u8,
    },
    /// It had said that it was complete and was then ended by us.
    Completed {
        /// Who said so.
        by: CompletedBy,
    },
    /// It died from a signal that we did not send.
    Signaled {
        /// The signal's number.
        signal: u8,
    },
    /// A deadline fired and it was ended by us.
    TimedOut {
        /// Which one.
        limit: Deadline,
    },
    /// It was asked to stop and did.
    Stopped {
        /// Who asked.
        by: StoppedBy,
    },
    /// It never ran.
    NotStarted {
        /// Why.
        reason: NotStarted,
    },
    /// Nobody can know.
    Lost {
        /// Why.
        reason: Lost,
    },
}

/// The one word for an outcome that lists show (`design.md` §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "ports", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "ports", serde(rename_all = "snake_case"))]
pub enum OutcomeWord {
    /// It did what it was for.
    Completed,
    /// It ended badly by itself.
    Failed,
    /// A deadline ended it.
    TimedOut,
    /// A request ended it.
    Killed,
    /// Nobody knows.
    Lost,
}

impl OutcomeWord {
    /// Returns the word as it is printed and stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::Killed => "killed",
            Self::Lost => "lost",
        }
    }
}

impl fmt::Display for OutcomeWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Outcome {
    /// Says whether a chain goes on after it: it exited with 0 or was completed.
    #[must_use]
    pub fn ended_well(&self) -> bool {
        matches!(self, Self::Exited { code: 0 } | Self::Completed { .. })
    }

    /// Returns the word that lists show.
    #[must_use]
    pub fn word(&self) -> OutcomeWord {
        match self {
            Self::Exited { code: 0 } | Self::Completed { .. } => OutcomeWord::Completed,
            Self::Exited { .. } | Self::Signaled { .. } | Self::NotStarted { .. } => {
                OutcomeWord::Failed
            }
            Self::TimedOut { .. } => OutcomeWord::TimedOut,
            Self::Stopped { .. } => OutcomeWord::Killed,
            Self::Lost { .. } => OutcomeWord::Lost,
        }
    }

    /// Returns the exit code that the command line gives for it (`design.md` §4).
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Exited { code } => *code,
            Self::Completed { .. } => 0,
            Self::Signaled { signal } => 128_u8.saturating_add(*signal),
            Self::TimedOut { .. } => 124,
            Self::Stopped { .. } => 143,
            Self::NotStarted { reason: NotStarted::ProgramNotFound } => 127,
            Self::NotStarted { .. } => 126,
            Self::Lost { .. } => 125,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_words_follow_the_table() {
        let table = [
            (Outcome::Exited { code: 0 }, OutcomeWord::Completed, 0),
            (Outcome::Exited { code: 42 }, OutcomeWord::Failed, 42),
            (Outcome::Completed { by: CompletedBy::Turn }, OutcomeWord::Completed, 0),
            (Outcome::Signaled { signal: 9 }, OutcomeWord::Failed, 137),
            (Outcome::TimedOut { limit: Deadline::Idle }, OutcomeWord::TimedOut, 124),
            (Outcome::Stopped { by: StoppedBy::User }, OutcomeWord::Killed, 143),
            (Outcome::NotStarted { reason: NotStarted::ProgramNotFound }, OutcomeWord::Failed, 127),
            (Outcome::NotStarted { reason: NotStarted::NotExecutable }, OutcomeWord::Failed, 126),
            (Outcome::Lost { reason: Lost::SupervisorDied }, OutcomeWord::Lost, 125),
        ];
        for (outcome, word, code) in table {
            assert_eq!((outcome.word(), outcome.exit_code()), (word, code), "{outcome:?}");
        }
    }

    #[test]
    fn wait_statuses_are_read_as_the_kernel_packs_them() {
        assert_eq!(Exit::from_wait_status(0), Exit::Code(0));
        assert_eq!(Exit::from_wait_status(42 << 8), Exit::Code(42));
        assert_eq!(Exit::from_wait_status(9), Exit::Signal(9));
        assert_eq!(Exit::from_wait_status(11 | 0x80), Exit::Signal(11));
    }
}
