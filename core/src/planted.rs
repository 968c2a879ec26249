//! Planted bugs: small wrong turns at the places where promises are kept, so that the simulation can be seen to find them.
//!
//! There is none of this without the feature `planted`, and nothing goes wrong with it until one is chosen.

use std::cell::Cell;

/// In every program that carries planted bugs, for whoever searches it.
#[used]
static MARKER: [u8; 11] = *b"PLANTED_BUG";

/// Declares the bugs, with their names and what they do.
macro_rules! bugs {
    ($($(#[doc = $about:literal])+ $bug:ident = $name:literal,)+) => {
        /// One planted bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Bug {
            $($(#[doc = $about])+ $bug,)+
        }

        impl Bug {
            /// Every bug, in the order in which an execution would meet them.
            pub const ALL: &[Self] = &[$(Self::$bug),+];

            /// Returns its name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$bug => $name),+ }
            }

            /// Says what goes wrong.
            #[must_use]
            pub fn about(self) -> &'static str {
                match self { $(Self::$bug => concat!($($about),+)),+ }
            }
        }
    };
}

bugs! {
    /// A request is acknowledged before what it led to is durable.
    AcknowledgedBeforeDurable = "acknowledged-before-durable",
    /// The key of a request is not recorded with what it led to.
    KeyNotRecorded = "key-not-recorded",
    /// One more than the limit is admitted.
    OneOverTheLimit = "one-over-the-limit",
    /// A slot that becomes free is given to nobody who waits.
    QueueForgotten = "queue-forgotten",
    /// A slot is given back when a stop is asked for, while everything still runs.
    SlotReleasedEarly = "slot-released-early",
    /// What runs already is not counted by the next host.
    LivingNotCounted = "living-not-counted",
    /// A launch does not wait until its place is recorded.
    LaunchedBeforeDurable = "launched-before-durable",
    /// The place of a launch is not recorded at all.
    PlaceNotRecorded = "place-not-recorded",
    /// A launch that failed, nobody knows how far, is repeated in a new place without a look at the old one.
    LaunchedAfterDoubt = "launched-after-doubt",
    /// The shim opens the gate before the start is synced.
    GateBeforeStarted = "gate-before-started",
    /// An error of the store counts as done.
    ErrorTakenForDone = "error-taken-for-done",
    /// The shim obeys whoever asks, whatever their epoch.
    EpochNotCompared = "epoch-not-compared",
    /// An accepted stop is not passed on after a restart.
    StopForgotten = "stop-forgotten",
    /// Executions that are being stopped are not taken over by the next host.
    StoppingNotAdopted = "stopping-not-adopted",
    /// An execution that is being stopped runs again once it is adopted.
    StoppingGoesBack = "stopping-goes-back",
    /// A stop that came too late decides the outcome.
    OutcomeOverwritten = "outcome-overwritten",
    /// A natural end that nobody watched counts as lost although it is recorded.
    ExitTakenForLost = "exit-taken-for-lost",
    /// Recorded numbers are signalled after the machine was restarted.
    SignalledAfterRestart = "signalled-after-restart",
    /// A stop kills at once.
    KilledWithoutTerm = "killed-without-term",
    /// A tree counts as dead once its leader is.
    LeaderTakenForTree = "leader-taken-for-tree",
    /// The deadline of an execution is not kept.
    DeadlineForgotten = "deadline-forgotten",
    /// The outcome is told before what the pipes hold is in the log.
    OutcomeBeforeOutput = "outcome-before-output",
    /// What was stopped is committed all the same.
    CommittedAfterStop = "committed-after-stop",
    /// What did not end well is committed all the same.
    CommittedAfterFailure = "committed-after-failure",
    /// A removal begins before its claim is recorded.
    ClaimNotRecorded = "claim-not-recorded",
    /// A removal does not wait until everything in the worktree is dead.
    RemovedWhileRunning = "removed-while-running",
    /// A new execution is taken although the worktree is claimed.
    StartedUnderClaim = "started-under-claim",
    /// A worktree is removed before what was saved of it is recorded.
    SaveNotRecorded = "save-not-recorded",
}

thread_local! {
    static CHOSEN: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Keeps a bug planted on this thread until it is dropped.
#[derive(Debug)]
#[must_use = "the bug goes when this is dropped"]
pub struct Planted {
    before: Option<Bug>,
}

/// Plants a bug, or none, on this thread.
pub fn plant(bug: Option<Bug>) -> Planted {
    Planted { before: CHOSEN.replace(bug) }
}

impl Drop for Planted {
    fn drop(&mut self) {
        CHOSEN.set(self.before);
    }
}

/// Says whether a bug is planted on this thread.
#[must_use]
pub fn is(bug: Bug) -> bool {
    CHOSEN.get() == Some(bug)
}
