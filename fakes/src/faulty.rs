//! [`Faulty`]: any implementation of a port with whatever can go wrong around its calls.
//!
//! What goes wrong is data: a [`Conductor`] names a [`Fault`] for each call and hears what truly happened and what the
//! caller was told. Nothing here decides anything.

mod container_service;
mod input;
mod log_store;
mod process_store;
mod vcs_history;
mod vcs_worktree;

use std::fmt;
use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use windlass_core::error::BackendError;
use windlass_core::id::{AttemptId, ExecutionId};
use windlass_core::process_store::{ChangeNumber, Lease, Write};

/// A future as the ports return them.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What goes wrong around one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// It takes time, before its effect and after.
    Delay {
        /// Until the effect, in milliseconds.
        before_ms: u64,
        /// From the effect to the answer, in milliseconds.
        after_ms: u64,
    },
    /// It does not begin before nothing goes wrong any more.
    Hang,
    /// It has no effect, and the caller is told that it may have had one.
    ErrorBefore,
    /// It has its effect, and the caller is told that it may have had none.
    ErrorAfter,
    /// There is no room; it has no effect, and the caller is told so.
    Full,
    /// The caller dies before the effect.
    CrashBefore,
    /// The caller dies after the effect and before it hears of it.
    CrashAfter,
    /// It is performed twice, as by something between that repeats itself; the caller hears one answer.
    Twice,
}

impl Fault {
    /// Every fault that is not nothing, the delay a long one.
    pub const ALL: [Self; 8] = [
        Self::Delay { before_ms: 90_000, after_ms: 0 },
        Self::Hang,
        Self::ErrorBefore,
        Self::ErrorAfter,
        Self::Full,
        Self::CrashBefore,
        Self::CrashAfter,
        Self::Twice,
    ];
}

macro_rules! sites {
    ($($(#[$doc:meta])* $name:ident = $text:literal),+ $(,)?) => {
        /// A method of a port.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Site { $($(#[$doc])* $name),+ }

        impl Site {
            /// Every method of every port.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// Returns port and method, for example `store.commit`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }
        }
    };
}

sites! {
    /// Room for a start is made.
    Prepare = "containers.prepare",
    /// A command is launched.
    Launch = "containers.launch",
    /// Evidence is looked at.
    Adopt = "containers.adopt",
    /// An outcome is waited for.
    Exited = "containers.exited",
    /// An end is waited for.
    Finished = "containers.finished",
    /// A stop is asked for.
    Stop = "containers.stop",
    /// Places are listed.
    Places = "containers.places",
    /// A place is removed.
    Discard = "containers.discard",
    /// Room is measured.
    Room = "containers.room",
    /// Records are taken over.
    Acquire = "store.acquire",
    /// A batch is written.
    Commit = "store.commit",
    /// A record is read.
    Get = "store.get",
    /// Records are listed.
    List = "store.list",
    /// Changes are read.
    Changes = "store.changes",
    /// Records are checked.
    Check = "store.check",
    /// Items are added to a log.
    Append = "logs.append",
    /// A log is sealed.
    Seal = "logs.seal",
    /// A log is read.
    Read = "logs.read",
    /// A log is waited for.
    Grown = "logs.grown",
    /// A log is measured.
    LogStatus = "logs.status",
    /// A log is removed.
    RemoveLog = "logs.remove",
    /// A worktree is planned.
    Plan = "worktrees.plan",
    /// A worktree is made.
    Create = "worktrees.create",
    /// A worktree is verified.
    Verify = "worktrees.verify",
    /// A worktree is measured.
    Status = "worktrees.status",
    /// A worktree is compared.
    Diff = "worktrees.diff",
    /// A git step is planned.
    PlanStep = "worktrees.plan_step",
    /// A worktree is saved.
    Save = "worktrees.save",
    /// A worktree is removed.
    Remove = "worktrees.remove",
    /// Worktrees are looked for.
    Survey = "worktrees.survey",
    /// Something with commits is planned.
    PlanHistory = "history.plan",
    /// What came of it is looked at.
    ConcludeHistory = "history.conclude",
    /// Where commits stand is looked at.
    Standing = "history.standing",
    /// A merge is compared.
    MergedDiff = "history.merged_diff",
    /// A message is sent.
    Send = "input.send",
}

impl Site {
    /// Reads port and method back.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|site| site.as_str() == text)
    }

    /// Says whether the call may change something beside what the caller knows.
    #[must_use]
    pub fn has_effect(self) -> bool {
        matches!(
            self,
            Self::Prepare
                | Self::Launch
                | Self::Adopt
                | Self::Stop
                | Self::Discard
                | Self::Acquire
                | Self::Commit
                | Self::Append
                | Self::Seal
                | Self::RemoveLog
                | Self::Create
                | Self::Save
                | Self::Remove
                | Self::Send
        )
    }
}

/// What a call is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum About {
    /// Nothing in particular.
    #[default]
    Nothing,
    /// An attempt.
    Attempt(AttemptId),
    /// An execution.
    Execution(ExecutionId),
    /// A record of which nothing more is known.
    Record(Uuid),
}

/// One call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The method.
    pub site: Site,
    /// What it is about.
    pub about: About,
}

/// Names a call that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallNumber(pub u64);

/// What a call did, whatever its caller is told.
#[derive(Clone, Copy, Debug)]
pub enum Effect<'a> {
    /// A batch is durable.
    Committed {
        /// Under which lease.
        lease: Lease,
        /// What was written.
        writes: &'a [Write],
        /// Its number.
        number: ChangeNumber,
    },
    /// Records were taken over.
    Acquired(Lease),
    /// It was done, and what it did is for others to see.
    Done,
    /// It was refused or failed by itself.
    Failed(&'a (dyn std::error::Error + Send + Sync)),
}

/// What a caller is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It is done.
    Done,
    /// It was refused or failed by itself.
    Failed,
    /// It failed as the fault says.
    Injected,
    /// Nothing: the caller died.
    Nothing,
}

/// Says what goes wrong, and hears what happens. One for each host's life.
pub trait Conductor: fmt::Debug + Send + Sync + 'static {
    /// Hears that a call begins, and what it is to write if it is a batch; says what goes wrong with it.
    fn begin(&self, call: Call, batch: &[Write]) -> (CallNumber, Fault);

    /// Hears what a call did, at the instant in which it did it.
    fn performed(&self, number: CallNumber, call: Call, effect: Effect<'_>);

    /// Hears that a call ends, and what its caller is told.
    fn end(&self, number: CallNumber, call: Call, told: Told);

    /// Says whether the caller is alive: what is dead has no more effects.
    fn lives(&self) -> bool;

    /// Kills the caller.
    fn kill(&self, number: CallNumber, call: Call);

    /// Resolves after some milliseconds.
    fn pause(&self, ms: u64) -> Pending<'static, ()>;

    /// Resolves when nothing goes wrong any more.
    fn healed(&self) -> Pending<'static, ()>;
}

/// A port with whatever can go wrong around its calls.
#[derive(Clone, Debug)]
pub struct Faulty<T> {
    inner: T,
    conductor: Arc<dyn Conductor>,
}

impl<T> Faulty<T> {
    /// Wraps a port.
    pub fn new(inner: T, conductor: Arc<dyn Conductor>) -> Self {
        Self { inner, conductor }
    }

    /// Returns what is wrapped.
    pub fn inner(&self) -> &T {
        &self.inner
    }
}

/// What an injected failure is to look like.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wrong {
    /// There is no room.
    Full,
    /// Nobody knows.
    Unknown(BackendOp),
}

/// The operation that a failure names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackendOp(Site);

impl BackendOp {
    /// Makes the error that every port has.
    pub(crate) fn error(self) -> BackendError {
        BackendError::transient("faulty", self.0.as_str(), "it went wrong as it was told")
    }
}

/// How a method is performed and fails.
pub(crate) struct Method<'b, P, W, S> {
    /// What it is to write, if it is a batch.
    pub(crate) batch: &'b [Write],
    /// Performs it.
    pub(crate) perform: P,
    /// Makes its error.
    pub(crate) wrong: W,
    /// Tells the conductor what it did; not called for errors.
    pub(crate) tell: S,
}

impl<T: Sync> Faulty<T> {
    /// Performs a call with what goes wrong around it.
    pub(crate) async fn call<'a, R, E>(
        &'a self,
        call: Call,
        method: Method<
            '_,
            impl FnMut() -> Pending<'a, Result<R, E>> + Send,
            impl Fn(Wrong) -> E + Send + Sync,
            impl Fn(&R, &dyn Fn(Effect<'_>)) + Send + Sync,
        >,
    ) -> Result<R, E>
    where
        R: Send,
        E: std::error::Error + Send + Sync,
    {
        let Method { batch, mut perform, wrong, tell } = method;
        let conductor = &self.conductor;
        let (number, fault) = conductor.begin(call, batch);
        let unknown = || Wrong::Unknown(BackendOp(call.site));
        let (mut before_ms, mut after_ms) = (0, 0);
        match fault {
            Fault::None | Fault::ErrorAfter | Fault::CrashAfter | Fault::Twice => {}
            Fault::Delay { before_ms: before, after_ms: after } => {
                (before_ms, after_ms) = (before, after);
            }
            Fault::Hang => conductor.healed().await,
            Fault::ErrorBefore | Fault::Full => {
                conductor.end(number, call, Told::Injected);
                let why = if fault == Fault::Full { Wrong::Full } else { unknown() };
                return Err(wrong(why));
            }
            Fault::CrashBefore => conductor.kill(number, call),
        }
        if before_ms > 0 {
            conductor.pause(before_ms).await;
        }
        if !conductor.lives() {
            return pending().await;
        }
        let done = perform().await;
        // Nobody hears what became known to one who died meanwhile.
        if !conductor.lives() {
            return pending().await;
        }
        match &done {
            Ok(result) => tell(result, &|effect| conductor.performed(number, call, effect)),
            Err(error) => conductor.performed(number, call, Effect::Failed(error)),
        }
        if fault == Fault::Twice && call.site != Site::Acquire {
            // The second answer goes where the first one was heard already.
            drop(perform().await);
        }
        if fault == Fault::CrashAfter {
            conductor.kill(number, call);
            return pending().await;
        }
        if after_ms > 0 {
            conductor.pause(after_ms).await;
        }
        if fault == Fault::ErrorAfter {
            conductor.end(number, call, Told::Injected);
            return Err(wrong(unknown()));
        }
        conductor.end(number, call, if done.is_ok() { Told::Done } else { Told::Failed });
        done
    }
}

/// Tells that something was done which others see.
pub(crate) fn done<R>(_: &R, tell: &dyn Fn(Effect<'_>)) {
    tell(Effect::Done);
}
