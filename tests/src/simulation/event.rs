//! What happens in a run, as oracles see it: calls of the ports, the kernel's truth, what clients ask for and hear.

use std::sync::Arc;

use windlass::handle::GcItem;
use windlass::request::Accepted;
use windlass_core::id::{Epoch, ExecutionId};
use windlass_core::log_store::{LogPage, Seq};
use windlass_core::process_store::{ChangeNumber, Lease, Write};
use windlass_core::time::Timestamp;
use windlass_fakes::faulty::{Call, CallNumber, Fault, Told};
use windlass_fakes::world::Happened;

use super::plan::{Request, Verb};

/// Counts the hosts of a run, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Life(pub u32);

/// Counts what clients ask for, from 1. A request that is repeated is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ask(pub u32);

/// One thing that happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its number, from 1.
    pub number: u64,
    /// When, in the time of the world.
    pub at: Timestamp,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum What {
    /// A host calls a port.
    Called {
        /// Which host.
        life: Life,
        /// Names the call.
        number: CallNumber,
        /// What is called.
        call: Call,
        /// What will go wrong.
        fault: Fault,
    },
    /// A call ended.
    Returned {
        /// Which host.
        life: Life,
        /// Names the call.
        number: CallNumber,
        /// What was called.
        call: Call,
        /// What the host was told.
        told: Told,
    },
    /// A call had its effect or failed by itself, whatever the host is told.
    Performed {
        /// Which host.
        life: Life,
        /// Names the call.
        number: CallNumber,
        /// What was called.
        call: Call,
        /// Why it failed, if it did.
        failure: Option<String>,
    },
    /// A batch is durable.
    Committed {
        /// Which host wrote it.
        life: Life,
        /// Under which lease.
        lease: Lease,
        /// Its number.
        number: ChangeNumber,
        /// What was written.
        writes: Arc<[Write]>,
    },
    /// A host took over the records.
    Acquired {
        /// Which host.
        life: Life,
        /// Its lease.
        lease: Lease,
    },
    /// Something happened in the kernel.
    Happened(Happened),
    /// A client asks for something.
    Asked {
        /// Names it.
        ask: Ask,
        /// The host that is asked.
        life: Life,
        /// What.
        request: Arc<Request>,
    },
    /// A client hears an answer.
    Answered {
        /// To what.
        ask: Ask,
        /// What was asked for.
        request: Arc<Request>,
        /// The answer.
        answer: Answer,
    },
    /// A client read a page of a log.
    Read {
        /// Of which execution.
        execution: ExecutionId,
        /// Who reads.
        follower: Ask,
        /// After which number.
        after: Seq,
        /// What.
        page: LogPage,
    },
    /// A host comes.
    HostComes {
        /// Which.
        life: Life,
    },
    /// A host has taken over and serves.
    HostServes {
        /// Which.
        life: Life,
        /// Its epoch.
        epoch: Epoch,
    },
    /// A host is gone.
    HostGone {
        /// Which.
        life: Life,
        /// Why.
        why: Gone,
    },
    /// What a host says of itself.
    HostSays {
        /// Which.
        life: Life,
        /// Slots that are taken.
        running: u32,
        /// How many wait.
        queued: u32,
    },
    /// Nothing goes wrong from here on.
    Healed,
    /// Everything was asked to end, and long enough ago: what has not ended by now never will.
    Settled,
}

/// Why a host is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// It was killed.
    Killed,
    /// It was killed while it took over.
    KilledInRecovery,
    /// It left in good order.
    Left,
    /// It could not take over.
    Failed,
}

/// What a client hears.
#[derive(Clone, Debug)]
pub enum Answer {
    /// What it asked for has started or will.
    Accepted(Accepted),
    /// This execution will be recorded once the worktree is put back.
    Trying(Accepted),
    /// It is done, or recorded.
    Done,
    /// This git execution commits.
    Committing(ExecutionId),
    /// There was nothing to commit.
    Clean,
    /// What cleanup found.
    Cleaned(Vec<GcItem>),
    /// It will not be done.
    Refused {
        /// The rule.
        code: windlass::error::RefusalCode,
        /// Why.
        reason: String,
    },
    /// It makes no sense, or there is no such thing.
    Wrong(String),
    /// Nobody knows what became of it: the host failed or is gone.
    Unknown(String),
}

impl Answer {
    /// Says whether it tells what became of the request.
    #[must_use]
    pub fn is_definite(&self) -> bool {
        !matches!(self, Self::Unknown(_))
    }

    /// Says whether it is a promise.
    #[must_use]
    pub fn is_promise(&self) -> bool {
        match self {
            Self::Accepted(_)
            | Self::Trying(_)
            | Self::Done
            | Self::Committing(_)
            | Self::Clean
            | Self::Cleaned(_) => true,
            Self::Refused { .. } | Self::Wrong(_) | Self::Unknown(_) => false,
        }
    }
}

impl Verb {
    /// Returns the name of what it is about, if it is about something that was there before.
    #[must_use]
    pub fn of(&self) -> Option<&str> {
        match self {
            Self::Run { .. } | Self::Gc { .. } => None,
            Self::Exec { of, .. }
            | Self::Stop { of, .. }
            | Self::StopAttempt { of }
            | Self::Complete { of }
            | Self::Commit { of }
            | Self::Remove { of, .. }
            | Self::Restore { of, .. }
            | Self::RemoveSnapshot { of, .. }
            | Self::Keep { of, .. }
            | Self::Input { of, .. }
            | Self::Send { of, .. }
            | Self::Change { of, .. }
            | Self::Hold { of, .. }
            | Self::Retry { of }
            | Self::Wait { of }
            | Self::Follow { of }
            | Self::Diff { of } => Some(of),
        }
    }

    /// Says whether it has a key: what has, changes nothing when it is repeated.
    #[must_use]
    pub fn has_key(&self) -> bool {
        matches!(
            self,
            Self::Run { .. } | Self::Exec { .. } | Self::Send { .. } | Self::Retry { .. }
        )
    }

    /// Returns what runs, to be changed.
    pub fn launch_mut(&mut self) -> Option<&mut super::plan::Launch> {
        match self {
            Self::Run { launch, .. } | Self::Exec { launch, .. } => Some(launch),
            _ => None,
        }
    }

    /// Returns what runs, if it starts something.
    #[must_use]
    pub fn launch(&self) -> Option<&super::plan::Launch> {
        match self {
            Self::Run { launch, .. } | Self::Exec { launch, .. } => Some(launch),
            Self::Stop { .. }
            | Self::StopAttempt { .. }
            | Self::Complete { .. }
            | Self::Commit { .. }
            | Self::Remove { .. }
            | Self::Restore { .. }
            | Self::RemoveSnapshot { .. }
            | Self::Keep { .. }
            | Self::Gc { .. }
            | Self::Input { .. }
            | Self::Send { .. }
            | Self::Change { .. }
            | Self::Hold { .. }
            | Self::Retry { .. }
            | Self::Wait { .. }
            | Self::Follow { .. }
            | Self::Diff { .. } => None,
        }
    }
}
