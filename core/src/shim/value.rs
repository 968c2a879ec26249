//! The binary forms of what journal and control messages have in common: causes, outcomes, reports.
//!
//! Codes are never given a second meaning. They are part of the frozen formats (`docs/formats.md`).

use crate::execution::{
    EndCause, ExecFailure, ExecStep, ExitReport, FinalReport, Leftovers, OutputMode, ResourceUse,
    Stdin, Survivor, SurvivorReason,
};
use crate::id::{Epoch, ExecutionId, Nonce};
use crate::outcome::{CompletedBy, Deadline, Exit, Lost, NotStarted, Outcome, StoppedBy};
use crate::shim::wire::{Malformed, Reader, Wire, Writer};
use crate::time::Timestamp;

/// Implements [`Wire`] for an enum without fields by a table of codes.
macro_rules! codes {
    ($name:ty { $($variant:path = $code:literal),+ $(,)? }) => {
        impl Wire for $name {
            fn put(&self, to: &mut Writer) {
                to.u8(match self { $($variant => $code),+ });
            }

            fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
                match from.u8()? {
                    $($code => Ok($variant),)+
                    0..=u8::MAX => Err(Malformed),
                }
            }
        }
    };
}

codes!(Deadline { Deadline::Total = 1, Deadline::Idle = 2 });
codes!(StoppedBy { StoppedBy::User = 1, StoppedBy::Host = 2 });
codes!(CompletedBy { CompletedBy::Turn = 1, CompletedBy::Program = 2 });
codes!(NotStarted {
    NotStarted::ProgramNotFound = 1,
    NotStarted::NotExecutable = 2,
    NotStarted::DirectoryGone = 3,
    NotStarted::WorkspaceRefused = 4,
    NotStarted::LimitRefused = 5,
    NotStarted::SecretGone = 6,
    NotStarted::SpawnFailed = 7,
    NotStarted::Stopped = 8,
});
codes!(Lost {
    Lost::MachineRestarted = 1,
    Lost::SupervisorDied = 2,
    Lost::EvidenceDamaged = 3,
});
codes!(SurvivorReason {
    SurvivorReason::Left = 1,
    SurvivorReason::NotPermitted = 2,
    SurvivorReason::Unkillable = 3,
});
codes!(ExecStep {
    ExecStep::Prepare = 1,
    ExecStep::Fork = 2,
    ExecStep::Record = 3,
    ExecStep::Group = 4,
    ExecStep::Streams = 5,
    ExecStep::Directory = 6,
    ExecStep::Exec = 7,
    ExecStep::Interpreter = 8,
    ExecStep::Stopped = 9,
});

codes!(Stdin { Stdin::Null = 1, Stdin::Messages = 2 });
codes!(OutputMode { OutputMode::Separate = 1, OutputMode::Merged = 2 });
codes!(Leftovers { Leftovers::Stop = 1, Leftovers::Leave = 2 });

/// Implements [`Wire`] for a newtype over a number or UUID.
macro_rules! newtype {
    ($name:ident, $method:ident) => {
        impl Wire for $name {
            fn put(&self, to: &mut Writer) {
                to.$method(self.0);
            }

            fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
                from.$method().map(Self)
            }
        }
    };
}

newtype!(ExecutionId, uuid);
newtype!(Nonce, uuid);
newtype!(Epoch, u64);
newtype!(Timestamp, u64);

impl Wire for Exit {
    fn put(&self, to: &mut Writer) {
        match self {
            Self::Code(code) => {
                to.u8(1);
                to.u8(*code);
            }
            Self::Signal(signal) => {
                to.u8(2);
                to.u8(*signal);
            }
        }
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match (from.u8()?, from.u8()?) {
            (1, code) => Ok(Self::Code(code)),
            (2, signal) => Ok(Self::Signal(signal)),
            (0 | 3..=u8::MAX, _) => Err(Malformed),
        }
    }
}

impl Wire for EndCause {
    fn put(&self, to: &mut Writer) {
        match self {
            Self::Stopped { by } => {
                to.u8(1);
                by.put(to);
            }
            Self::Completed { by } => {
                to.u8(2);
                by.put(to);
            }
            Self::TimedOut { limit } => {
                to.u8(3);
                limit.put(to);
            }
        }
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match from.u8()? {
            1 => Ok(Self::Stopped { by: StoppedBy::get(from)? }),
            2 => Ok(Self::Completed { by: CompletedBy::get(from)? }),
            3 => Ok(Self::TimedOut { limit: Deadline::get(from)? }),
            0 | 4..=u8::MAX => Err(Malformed),
        }
    }
}

impl Wire for Outcome {
    fn put(&self, to: &mut Writer) {
        match self {
            Self::Exited { code } => {
                to.u8(1);
                to.u8(*code);
            }
            Self::Signaled { signal } => {
                to.u8(2);
                to.u8(*signal);
            }
            Self::Completed { by } => {
                to.u8(3);
                by.put(to);
            }
            Self::TimedOut { limit } => {
                to.u8(4);
                limit.put(to);
            }
            Self::Stopped { by } => {
                to.u8(5);
                by.put(to);
            }
            Self::NotStarted { reason } => {
                to.u8(6);
                reason.put(to);
            }
            Self::Lost { reason } => {
                to.u8(7);
                reason.put(to);
            }
        }
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match from.u8()? {
            1 => Ok(Self::Exited { code: from.u8()? }),
            2 => Ok(Self::Signaled { signal: from.u8()? }),
            3 => Ok(Self::Completed { by: CompletedBy::get(from)? }),
            4 => Ok(Self::TimedOut { limit: Deadline::get(from)? }),
            5 => Ok(Self::Stopped { by: StoppedBy::get(from)? }),
            6 => Ok(Self::NotStarted { reason: NotStarted::get(from)? }),
            7 => Ok(Self::Lost { reason: Lost::get(from)? }),
            0 | 8..=u8::MAX => Err(Malformed),
        }
    }
}

impl Wire for ResourceUse {
    fn put(&self, to: &mut Writer) {
        to.u64(self.user_us);
        to.u64(self.system_us);
        to.u64(self.max_rss_kib);
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { user_us: from.u64()?, system_us: from.u64()?, max_rss_kib: from.u64()? })
    }
}

impl Wire for ExecFailure {
    fn put(&self, to: &mut Writer) {
        self.step.put(to);
        to.u32(self.errno);
        self.reason.put(to);
        self.at.put(to);
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            step: Wire::get(from)?,
            errno: from.u32()?,
            reason: Wire::get(from)?,
            at: Wire::get(from)?,
        })
    }
}

impl Wire for ExitReport {
    fn put(&self, to: &mut Writer) {
        self.outcome.put(to);
        to.option(self.exit.as_ref(), Exit::put);
        self.at.put(to);
        to.value(&self.usage);
        to.bool(self.out_of_memory);
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            outcome: Wire::get(from)?,
            exit: from.option(Exit::get)?,
            at: Wire::get(from)?,
            usage: from.value()?,
            out_of_memory: from.bool()?,
        })
    }
}

impl Wire for Survivor {
    fn put(&self, to: &mut Writer) {
        to.u32(self.pid);
        self.reason.put(to);
        to.bytes(self.name.as_bytes());
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let pid = from.u32()?;
        let reason = Wire::get(from)?;
        let name = String::from_utf8(from.bytes()?.to_vec()).map_err(|_| Malformed)?;
        Ok(Self { pid, name, reason })
    }
}

impl Wire for FinalReport {
    fn put(&self, to: &mut Writer) {
        to.value(&self.exit);
        to.u64(self.last_seq);
        to.u64(self.bytes);
        to.u64(self.dropped_bytes);
        to.bool(self.output_incomplete);
        to.list(&self.survivors);
        to.u32(self.more_survivors);
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            exit: from.value()?,
            last_seq: from.u64()?,
            bytes: from.u64()?,
            dropped_bytes: from.u64()?,
            output_incomplete: from.bool()?,
            survivors: from.list()?,
            more_survivors: from.u32()?,
        })
    }
}
