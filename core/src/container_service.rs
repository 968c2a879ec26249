//! The port [`ContainerService`]: starts, finds again, watches and stops process trees.
//!
//! It records evidence of its own, so that a host that comes later can tell what happened. It does not know attempts,
//! chains or the store.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::action::{Leftovers, OutputMode, Stdin};
use crate::error::BackendError;
use crate::execution::{ExitReport, FinalReport};
use crate::id::{Epoch, ExecutionId, Nonce};
use crate::locator::{Locator, OsBytes};
use crate::outcome::{CompletedBy, Lost, NotStarted, StoppedBy};
use crate::time::Timestamp;

/// Durable room for one start of one execution, made before it is recorded and before anything runs.
///
/// Serialized into the execution's record; a later host finds the evidence by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Where the evidence is.
    pub locator: Locator,
    /// Which start it is for.
    pub nonce: Nonce,
    /// What the backend needs to recognise the room again, for example device and inode; opaque to everybody else.
    pub identity: String,
}

/// How to start a command. Not recorded: it may carry resolved secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct LaunchSpec {
    /// Which execution.
    pub execution: ExecutionId,
    /// Program and arguments; never empty.
    pub argv: Vec<OsBytes>,
    /// The whole environment, sorted by name.
    pub env: Vec<(OsBytes, OsBytes)>,
    /// The directory to run in.
    pub cwd: Locator,
    /// Standard input.
    pub stdin: Stdin,
    /// Output.
    pub output: OutputMode,
    /// What happens to leftovers after a natural exit.
    pub leftovers: Leftovers,
    /// Total run time; `None` is none.
    pub total: Option<Duration>,
    /// Longest time without output; `None` is none.
    pub idle: Option<Duration>,
    /// From TERM to KILL when a deadline fires.
    pub grace: Duration,
    /// Most payload bytes of log that are kept.
    pub log_cap_bytes: u64,
    /// A repository whose administration lock the execution holds while anything of it lives.
    pub repository_lock: Option<Locator>,
}

impl fmt::Debug for LaunchSpec {
    /// Prints names of variables, never their values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaunchSpec")
            .field("execution", &self.execution)
            .field("argv", &self.argv)
            .field("env", &self.env.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("cwd", &self.cwd)
            .finish_non_exhaustive()
    }
}

/// That a command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// The command's process number, for people; never signal by it.
    pub pid: u32,
    /// When it was started.
    pub since: Timestamp,
}

/// What became of a launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Launched {
    /// It runs, or ran so shortly that it has already ended; [`ContainerService::exited`] tells.
    Running(Running),
    /// It did not start and never will in this place.
    NotStarted {
        /// Why.
        reason: NotStarted,
        /// The same for people, for example which program is missing.
        message: String,
    },
}

/// What a place says about its execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adoption {
    /// It is being supervised, and we are attached.
    Running {
        /// The command, unless it has ended and its tree has not.
        running: Option<Running>,
        /// The outcome, if it is known already.
        exited: Option<ExitReport>,
    },
    /// It has ended.
    Ended(FinalReport),
    /// It never ran and never will in this place; launching again needs a new one.
    NeverRan,
    /// Its supervisor lives but does not answer, or answers for another start. Nothing was touched; try again later.
    Unresponsive {
        /// What was seen.
        detail: String,
    },
    /// The place is not the recorded one or not of this machine. Nothing was touched, nothing will be.
    Foreign {
        /// What was seen.
        detail: String,
    },
    /// It cannot be told whether it runs. Nothing was touched.
    Unverifiable {
        /// What was seen.
        detail: String,
    },
}

/// Why a stop is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "cause")]
pub enum StopCause {
    /// It is to stop.
    Stop {
        /// Who asked.
        by: StoppedBy,
    },
    /// It is complete; ending it is a formality.
    Complete {
        /// Who said so.
        by: CompletedBy,
    },
}

/// How to stop an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopRequest {
    /// Why.
    pub cause: StopCause,
    /// From TERM to KILL; 0 kills at once.
    pub grace: Duration,
    /// The host's epoch.
    pub epoch: Epoch,
}

/// How much room there is for more executions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// Free bytes where evidence and logs go.
    pub free_bytes: u64,
    /// The floor below which nothing new is admitted.
    pub floor_bytes: u64,
}

/// Why a container service did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ContainerServiceError {
    /// There is no room for evidence; nothing was made.
    #[error("no space left for an execution")]
    Full,
    /// The place belongs to a higher epoch: another host drives it.
    #[error("epoch {held:?} was superseded")]
    Superseded {
        /// The epoch that was given.
        held: Epoch,
    },
    /// Nothing is attached to this place; adopt it first.
    #[error("execution {execution} is not attached")]
    NotAttached {
        /// The execution.
        execution: ExecutionId,
    },
    /// The backend failed; a launch may or may not have happened, and adopting the place tells.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// Starts, finds again, watches and stops process trees.
///
/// # Contract
///
/// - A place is used for one start at most, whatever crashed when. Damage is never permission to start.
/// - What was launched lives on when the host dies; its output is kept, its deadlines hold, its end is recorded.
/// - Nothing is signalled that was not verified to be of the execution.
/// - Every method may be called again with the same arguments after an error or a crash.
///
/// # Cancel safety
///
/// Dropping a returned future of [`launch`](Self::launch) leaves the launch in doubt: adopt the place. The others may
/// be dropped and called again.
///
/// # Example
///
/// ```
/// # use windlass_core::container_service::*;
/// # use windlass_core::id::*;
/// # async fn doc(containers: &dyn ContainerService, id: ExecutionId, nonce: Nonce, epoch: Epoch, spec: LaunchSpec) -> Result<(), ContainerServiceError> {
/// let place = containers.prepare(id, nonce).await?;
/// // … record the place durably, then:
/// if let Launched::Running(_) = containers.launch(&place, spec, epoch).await? {
///     let end = containers.exited(id, &place).await?;
///     println!("{:?}", end.outcome);
/// }
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait ContainerService: fmt::Debug + Send + Sync + 'static {
    /// Makes durable room for one start. Nothing runs yet.
    ///
    /// # Errors
    ///
    /// [`ContainerServiceError::Full`]: nothing was made. [`Backend`](ContainerServiceError::Backend): room without a
    /// record may be left over, which [`places`](Self::places) lists.
    async fn prepare(
        &self,
        execution: ExecutionId,
        nonce: Nonce,
    ) -> Result<Place, ContainerServiceError>;

    /// Starts the command in its place and attaches. Returns when it runs or cannot.
    ///
    /// # Errors
    ///
    /// [`ContainerServiceError::Backend`]: unknown; adopt the place.
    async fn launch(
        &self,
        place: &Place,
        spec: LaunchSpec,
        epoch: Epoch,
    ) -> Result<Launched, ContainerServiceError>;

    /// Looks at the evidence in a place and attaches if it is supervised. What died without a supervisor is swept:
    /// its remaining processes are verified and killed. A place where nothing ever ran is closed for ever.
    ///
    /// # Errors
    ///
    /// [`ContainerServiceError::Backend`]: try again; nothing was decided.
    async fn adopt(
        &self,
        execution: ExecutionId,
        place: &Place,
        epoch: Epoch,
    ) -> Result<Adoption, ContainerServiceError>;

    /// Waits until the outcome is known and durable. Resolves by event, never by polling.
    ///
    /// # Errors
    ///
    /// [`ContainerServiceError::NotAttached`] before a launch or adoption by this service.
    async fn exited(
        &self,
        execution: ExecutionId,
        place: &Place,
    ) -> Result<ExitReport, ContainerServiceError>;

    /// Waits until nothing of the execution will change any more.
    ///
    /// # Errors
    ///
    /// As [`exited`](Self::exited).
    async fn finished(
        &self,
        execution: ExecutionId,
        place: &Place,
    ) -> Result<FinalReport, ContainerServiceError>;

    /// Asks for a stop; returns when the request is accepted. Asking again is harmless, and a shorter grace counts.
    ///
    /// # Errors
    ///
    /// [`ContainerServiceError::Superseded`] by a newer host; [`NotAttached`](ContainerServiceError::NotAttached).
    async fn stop(
        &self,
        execution: ExecutionId,
        place: &Place,
        request: StopRequest,
    ) -> Result<(), ContainerServiceError>;

    /// Lists the places that exist, by execution, in no order.
    ///
    /// # Errors
    ///
    /// [`ContainerServiceError::Backend`].
    async fn places(&self) -> Result<Vec<(ExecutionId, Place)>, ContainerServiceError>;

    /// Removes a place whose execution has ended or never ran, its log included. One that is in use is left alone and
    /// is an error.
    ///
    /// # Errors
    ///
    /// [`ContainerServiceError::Backend`].
    async fn discard(
        &self,
        execution: ExecutionId,
        place: &Place,
    ) -> Result<(), ContainerServiceError>;

    /// Measures the room for more.
    ///
    /// # Errors
    ///
    /// [`ContainerServiceError::Backend`].
    async fn room(&self) -> Result<Room, ContainerServiceError>;
}

/// Returns the report for an execution whose end nobody saw.
#[must_use]
pub fn lost(reason: Lost, at: Timestamp) -> ExitReport {
    ExitReport {
        outcome: crate::outcome::Outcome::Lost { reason },
        exit: None,
        at,
        usage: crate::execution::ResourceUse::default(),
        out_of_memory: false,
    }
}
