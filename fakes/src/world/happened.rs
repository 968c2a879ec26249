//! What truly happened in a world: the kernel's own truth, for those who judge what others say of it.
//!
//! Nothing of it is told to any port. It is collected only where somebody asked for it, and costs a push then.

use bytes::Bytes;
use windlass_core::id::{ExecutionId, Nonce};
use windlass_core::locator::Locator;
use windlass_core::log_store::Stream;
use windlass_core::outcome::{Exit, NotStarted};
use windlass_core::shim::journal::Record;

/// A process of a world, told from every other one that has or had its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessName {
    /// Counts the boots of the machine, from 1.
    pub boot: u32,
    /// Its number, which may be given again when it is gone.
    pub pid: u32,
    /// When it was started, in kernel ticks since the boot. No number is given twice within a tick.
    pub start_ticks: u64,
}

/// One start of one execution: what a place is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StartId {
    /// The execution.
    pub execution: ExecutionId,
    /// Which of its starts.
    pub nonce: Nonce,
}

/// Who sent a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signaller {
    /// The shim of a start.
    Shim(StartId),
    /// A host that ends what a dead shim left.
    Host,
    /// The process itself.
    Itself,
    /// The kernel, for lack of memory.
    Kernel,
    /// Whoever holds the world: neither host nor shim.
    Somebody,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// A shim was started for a place.
    ShimStarted {
        /// For which start.
        start: StartId,
        /// The shim.
        shim: ProcessName,
    },
    /// A command's program was executed: from here on it does something. The child behind the gate is not told of.
    Started {
        /// Of which start.
        start: StartId,
        /// The command's own process.
        process: ProcessName,
        /// The directory that it runs in.
        directory: Locator,
    },
    /// A command's program could not be executed.
    NotStarted {
        /// Of which start.
        start: StartId,
        /// Why.
        reason: NotStarted,
    },
    /// A process of an execution made another one.
    Forked {
        /// Of which start.
        start: StartId,
        /// Who.
        parent: ProcessName,
        /// Whom.
        child: ProcessName,
    },
    /// A process ended. Shims are told of by [`ShimGone`](Self::ShimGone).
    Exited {
        /// Of which start; `None` for a stranger.
        start: Option<StartId>,
        /// Which.
        process: ProcessName,
        /// It is the command's own process.
        leader: bool,
        /// What the kernel saw.
        exit: Exit,
        /// The kernel killed it for lack of memory.
        out_of_memory: bool,
    },
    /// A signal was delivered to a living process. A shim that is killed is told of by [`ShimGone`](Self::ShimGone) as
    /// well.
    Signalled {
        /// Of which start the process is; `None` for a stranger.
        start: Option<StartId>,
        /// Which.
        process: ProcessName,
        /// The signal's number.
        signal: u8,
        /// Who sent it.
        by: Signaller,
    },
    /// A process wrote into a pipe that its shim reads.
    Wrote {
        /// Of which start.
        start: StartId,
        /// Which process.
        process: ProcessName,
        /// Which pipe; where both are one, standard output.
        stream: Stream,
        /// What.
        bytes: Bytes,
    },
    /// A file was written in a directory, by a process or by the user.
    FileWritten {
        /// By which process; `None` is the user.
        process: Option<ProcessName>,
        /// The directory.
        directory: Locator,
        /// The file's path in it.
        path: String,
    },
    /// A process got a number that another one had before in this boot.
    PidReused {
        /// It.
        process: ProcessName,
        /// Who had it last.
        formerly: ProcessName,
    },
    /// A record of a journal is on the disk.
    Recorded {
        /// Of which start.
        start: StartId,
        /// The record.
        record: Record,
    },
    /// A log is on the disk up to a number.
    LogSynced {
        /// Of which start.
        start: StartId,
        /// The last number.
        last_seq: u64,
    },
    /// A place was removed, with its journal and its log.
    PlaceRemoved {
        /// Of which start.
        start: StartId,
    },
    /// A shim is gone.
    ShimGone {
        /// Of which start.
        start: StartId,
        /// The shim.
        shim: ProcessName,
        /// It was killed; else it left by itself.
        killed: bool,
    },
    /// A process that is nobody's was started.
    StrangerStarted {
        /// It.
        process: ProcessName,
    },
    /// The machine lost power: every process is gone, and what was not synced is as the loss says. It is up again.
    PowerLost {
        /// The number of the boot that began.
        boot: u32,
    },
    /// A directory was made.
    DirectoryMade {
        /// Which.
        directory: Locator,
    },
    /// A directory was renamed.
    DirectoryRenamed {
        /// What it was called.
        from: Locator,
        /// What it is called.
        to: Locator,
    },
    /// A directory was removed with all that was in it.
    DirectoryRemoved {
        /// Which.
        directory: Locator,
    },
}
