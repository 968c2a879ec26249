//! [`LocalContainers`]: process trees of this machine, each under a shim of its own.
//!
//! It knows no attempts and no store. What it remembers of an execution is what it could read from the place again.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::{oneshot, watch};
use windlass_core::container_service::{
    Adoption, ContainerService, ContainerServiceError, LaunchSpec, Launched, Place, Room,
    StopCause, StopRequest,
};
use windlass_core::error::BackendError;
use windlass_core::execution::{EndCause, ExitReport, FinalReport};
use windlass_core::id::{Epoch, ExecutionId, Nonce};
use windlass_core::outcome::{NotStarted, Outcome};
use windlass_core::shim::message;

use crate::attached::{Attached, Begin, Order, State, Trouble, broken};
use crate::evidence::{Examined, Start, Use, examine, recorded, untouched, usage};
use crate::launch::{explain, last_words, message as launch_message, spawn};
use crate::node::Node;
pub use crate::node::{LocalOptions, Provenance};
use crate::repository_lock::RepositoryLocks;
pub use crate::shim_program::ShimChoice;

/// How often an order is given again when the shim goes away under it.
const TRIES: usize = 3;

/// Runs commands of this machine under shims.
#[derive(Debug)]
pub struct LocalContainers {
    node: Arc<Node>,
    repositories: RepositoryLocks,
    slots: Mutex<HashMap<(ExecutionId, Nonce), Arc<Slot>>>,
}

/// What this service has of one start.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// Launching and adopting take turns.
    turn: tokio::sync::Mutex<()>,
    attached: Mutex<Option<Arc<Attached>>>,
}

impl Slot {
    pub(crate) fn attached(&self) -> Option<Arc<Attached>> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn attach(&self, attached: Attached) -> Arc<Attached> {
        let attached = Arc::new(attached);
        let mut slot = self.attached.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(Arc::clone(&attached));
        attached
    }
}

impl LocalContainers {
    /// Opens the service: the directory of places, made if it is not there, and the shim, which is executed by its
    /// descriptor from now on. Blocking for a moment; needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`ContainerServiceError::Backend`] if the directory is not private to this user, or there is no shim of this
    /// version.
    pub fn open(options: LocalOptions) -> Result<Arc<Self>, ContainerServiceError> {
        let node = Node::open(options).map_err(|error| failed("open", error))?;
        let (repositories, slots) = (RepositoryLocks::default(), Mutex::default());
        Ok(Arc::new(Self { node, repositories, slots }))
    }

    /// Returns what there is of a start.
    pub(crate) fn slot(&self, execution: ExecutionId, place: &Place) -> Option<Arc<Slot>> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.get(&(execution, place.nonce)).cloned()
    }

    /// Returns what there is of a start, or makes room for it.
    fn slot_or_new(&self, execution: ExecutionId, place: &Place) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry((execution, place.nonce)).or_default())
    }

    fn forget(&self, execution: ExecutionId, place: &Place) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.remove(&(execution, place.nonce));
    }

    /// Starts a shim in a place that was never used and tells it what to run.
    async fn start(
        &self,
        start: &Start,
        spec: &LaunchSpec,
        slot: &Slot,
    ) -> io::Result<Arc<Attached>> {
        let repository = match &spec.repository_lock {
            Some(repository) => Some(self.repositories.take(repository).await?),
            None => None,
        };
        let connection = spawn(&self.node, start, repository).await?;
        let launch = Box::new(launch_message(start, spec));
        Ok(slot.attach(Attached::new(&self.node, start.clone(), Begin::Launch(connection, launch))))
    }

    /// Waits until a launch is decided, one way or the other.
    async fn launched(
        &self,
        start: &Start,
        spec: &LaunchSpec,
        attached: &Attached,
    ) -> Result<Launched, ContainerServiceError> {
        let state = until(attached, is_decided).await;
        if let Some(failure) = &state.failed {
            let message = explain(failure, Some(spec));
            return Ok(Launched::NotStarted { reason: failure.reason, message });
        }
        if let Some(running) = state.running {
            return Ok(Launched::Running(running));
        }
        if state.never_ran {
            let message = last_words(&self.node, start).await;
            return Ok(Launched::NotStarted { reason: NotStarted::SpawnFailed, message });
        }
        match state.finished.map(|report| report.exit.outcome) {
            Some(Outcome::NotStarted { reason }) => {
                let message = "it was tried before and did not start".to_owned();
                Ok(Launched::NotStarted { reason, message })
            }
            _ => Err(trouble("launch", start.epoch, state.trouble)),
        }
    }

    /// Waits for something about an execution that was launched or adopted here; `None` if nothing is attached.
    async fn known<T>(
        &self,
        op: &'static str,
        execution: ExecutionId,
        place: &Place,
        what: impl Fn(&State) -> Option<T> + Send + Sync,
    ) -> Result<Option<T>, ContainerServiceError> {
        let Some(attached) = self.slot(execution, place).and_then(|slot| slot.attached()) else {
            return Ok(None);
        };
        let state = until(&attached, |state| {
            what(state).is_some() || state.never_ran || state.trouble.as_ref().is_some_and(is_final)
        })
        .await;
        match what(&state) {
            Some(known) => Ok(Some(known)),
            None if state.never_ran => Ok(None),
            None => Err(trouble(op, attached.epoch, state.trouble)),
        }
    }

    /// Reads the end that the journal has; nothing is kept of what it says for ever.
    async fn recorded(
        &self,
        op: &'static str,
        execution: ExecutionId,
        place: &Place,
    ) -> Result<FinalReport, ContainerServiceError> {
        let start = Start::unattached(execution, place);
        let report = recorded(&self.node, &start).await.map_err(|error| failed(op, error))?;
        report.ok_or(ContainerServiceError::NotAttached { execution })
    }

    /// Says whether a place was never used, as far as that can be told without keeping its lock.
    async fn is_fresh(&self, start: &Start) -> Result<bool, ContainerServiceError> {
        untouched(&self.node, start).await.map_err(|error| failed("launch", error))
    }
}

/// Says whether what is attached answers for its execution.
fn is_useful(attached: &Attached) -> bool {
    attached.state.borrow().trouble.is_none()
}

/// Says whether it is known what became of a launch.
fn is_decided(state: &State) -> bool {
    state.running.is_some() || state.exited.is_some() || state.never_ran || state.trouble.is_some()
}

/// Says whether a trouble will not go away while we wait.
fn is_final(trouble: &Trouble) -> bool {
    match trouble {
        Trouble::Unresponsive(_) => false,
        Trouble::Superseded
        | Trouble::Foreign(_)
        | Trouble::Unverifiable(_)
        | Trouble::Unreadable(_) => true,
    }
}

/// Waits until the state is as wanted, or will not change any more.
async fn until(attached: &Attached, wanted: impl FnMut(&State) -> bool + Send) -> State {
    let mut state: watch::Receiver<State> = attached.state.clone();
    match state.wait_for(wanted).await {
        Ok(state) => state.clone(),
        // The task is over; what it left is all there is.
        Err(_) => attached.state.borrow().clone(),
    }
}

#[async_trait]
impl ContainerService for LocalContainers {
    async fn prepare(
        &self,
        execution: ExecutionId,
        nonce: Nonce,
    ) -> Result<Place, ContainerServiceError> {
        let node = Arc::clone(&self.node);
        let made =
            tokio::task::spawn_blocking(move || node.runs.make(&node.here, execution, nonce));
        made.await.map_err(io::Error::other).flatten().map_err(|error| failed("prepare", error))
    }

    async fn launch(
        &self,
        place: &Place,
        spec: LaunchSpec,
        epoch: Epoch,
    ) -> Result<Launched, ContainerServiceError> {
        let start = Start { epoch, ..Start::unattached(spec.execution, place) };
        let slot = self.slot_or_new(start.execution, place);
        let _turn = slot.turn.lock().await;
        let attached = match slot.attached().filter(|attached| is_useful(attached)) {
            Some(attached) => attached,
            None if self.is_fresh(&start).await? => {
                self.start(&start, &spec, &slot).await.map_err(|error| failed("launch", error))?
            }
            None => {
                let examined =
                    examine(&self.node, &start).await.map_err(|error| failed("launch", error))?;
                slot.attach(Attached::new(&self.node, start.clone(), Begin::Found(examined)))
            }
        };
        self.launched(&start, &spec, &attached).await
    }

    async fn adopt(
        &self,
        execution: ExecutionId,
        place: &Place,
        epoch: Epoch,
    ) -> Result<Adoption, ContainerServiceError> {
        let start = Start { epoch, ..Start::unattached(execution, place) };
        let slot = self.slot_or_new(execution, place);
        let _turn = slot.turn.lock().await;
        if let Some(attached) = slot.attached().filter(|attached| is_useful(attached)) {
            let state = until(&attached, is_decided).await;
            // A higher epoch has to be told to the shim; a lower one to go away.
            if state.finished.is_some() || state.never_ran || attached.epoch == epoch {
                return adoption(state, epoch);
            }
        }
        let examined = examine(&self.node, &start).await.map_err(|error| failed("adopt", error))?;
        if let Examined::Superseded = examined {
            return Err(ContainerServiceError::Superseded { held: epoch });
        }
        let attached = slot.attach(Attached::new(&self.node, start, Begin::Found(examined)));
        let state = attached.state.borrow().clone();
        adoption(state, epoch)
    }

    async fn exited(
        &self,
        execution: ExecutionId,
        place: &Place,
    ) -> Result<ExitReport, ContainerServiceError> {
        let what = |state: &State| state.exited.clone();
        match self.known("exited", execution, place, what).await? {
            Some(report) => Ok(report),
            None => Ok(self.recorded("exited", execution, place).await?.exit),
        }
    }

    async fn finished(
        &self,
        execution: ExecutionId,
        place: &Place,
    ) -> Result<FinalReport, ContainerServiceError> {
        let what = |state: &State| Some((state.finished.clone()?, state.recorded));
        match self.known("finished", execution, place, what).await? {
            Some((report, recorded)) => {
                if recorded {
                    self.forget(execution, place);
                }
                Ok(report)
            }
            None => self.recorded("finished", execution, place).await,
        }
    }

    async fn stop(
        &self,
        execution: ExecutionId,
        place: &Place,
        request: StopRequest,
    ) -> Result<(), ContainerServiceError> {
        let Some(attached) = self.slot(execution, place).and_then(|slot| slot.attached()) else {
            return Err(ContainerServiceError::NotAttached { execution });
        };
        let stop = message::Stop {
            epoch: request.epoch,
            cause: match request.cause {
                StopCause::Stop { by } => EndCause::Stopped { by },
                StopCause::Complete { by } => EndCause::Completed { by },
            },
            grace_ms: u64::try_from(request.grace.as_millis()).unwrap_or(u64::MAX),
            interrupt_ms: 0,
        };
        let mut last = broken("stop").into();
        for _ in 0..TRIES {
            let (reply, answer) = oneshot::channel();
            let sent = attached.orders.send(Order::Stop(stop, reply)).await;
            let answer = if sent.is_ok() { answer.await.ok() } else { None };
            match answer {
                Some(Err(error @ ContainerServiceError::Backend(_))) => last = error,
                Some(answer) => return answer,
                // The task is over: either it has ended, and there is nothing to stop, or we cannot reach it.
                None => {
                    let state = attached.state.borrow().clone();
                    return match state.finished {
                        Some(_) => Ok(()),
                        None if state.never_ran => {
                            Err(ContainerServiceError::NotAttached { execution })
                        }
                        None => Err(trouble("stop", attached.epoch, state.trouble)),
                    };
                }
            }
        }
        Err(last)
    }

    async fn places(&self) -> Result<Vec<(ExecutionId, Place)>, ContainerServiceError> {
        let node = Arc::clone(&self.node);
        let list = tokio::task::spawn_blocking(move || node.runs.list(&node.here));
        list.await.map_err(io::Error::other).flatten().map_err(|error| failed("list", error))
    }

    async fn discard(
        &self,
        execution: ExecutionId,
        place: &Place,
    ) -> Result<(), ContainerServiceError> {
        let start = Start::unattached(execution, place);
        let slot = self.slot_or_new(execution, place);
        let _turn = slot.turn.lock().await;
        let lock =
            match usage(&self.node, &start).await.map_err(|error| failed("discard", error))? {
                Use::Gone => {
                    self.forget(execution, place);
                    return Ok(());
                }
                Use::None(lock) => lock,
                Use::Some(detail) => {
                    return Err(BackendError::transient("local", "discard", detail).into());
                }
            };
        let node = Arc::clone(&self.node);
        let nonce = place.nonce;
        let removed = tokio::task::spawn_blocking(move || {
            let _lock = lock;
            node.runs.remove(execution, nonce)
        });
        removed
            .await
            .map_err(io::Error::other)
            .flatten()
            .map_err(|error| failed("discard", error))?;
        self.forget(execution, place);
        Ok(())
    }

    async fn room(&self) -> Result<Room, ContainerServiceError> {
        let node = Arc::clone(&self.node);
        let free = tokio::task::spawn_blocking(move || node.runs.free_bytes());
        let free_bytes = free
            .await
            .map_err(io::Error::other)
            .flatten()
            .map_err(|error| failed("room", error))?;
        Ok(Room { free_bytes, floor_bytes: self.node.options.disk_floor_bytes })
    }
}

/// Says what an adoption came to.
fn adoption(state: State, epoch: Epoch) -> Result<Adoption, ContainerServiceError> {
    if let Some(report) = state.finished {
        return Ok(Adoption::Ended(report));
    }
    match state.trouble {
        Some(Trouble::Unresponsive(detail)) => return Ok(Adoption::Unresponsive { detail }),
        Some(Trouble::Foreign(detail)) => return Ok(Adoption::Foreign { detail }),
        Some(Trouble::Unverifiable(detail)) => return Ok(Adoption::Unverifiable { detail }),
        Some(other) => return Err(trouble("adopt", epoch, Some(other))),
        None if state.never_ran => return Ok(Adoption::NeverRan),
        None => {}
    }
    let running = state.running.filter(|_| state.exited.is_none());
    Ok(Adoption::Running { running, exited: state.exited })
}

/// Returns the error for a trouble.
fn trouble(op: &'static str, held: Epoch, trouble: Option<Trouble>) -> ContainerServiceError {
    let detail = match trouble {
        Some(Trouble::Superseded) => return ContainerServiceError::Superseded { held },
        Some(Trouble::Foreign(detail) | Trouble::Unverifiable(detail)) => {
            return BackendError::permanent("local", op, detail).into();
        }
        Some(Trouble::Unresponsive(detail) | Trouble::Unreadable(detail)) => detail,
        None => "what became of it is not known".to_owned(),
    };
    BackendError::transient("local", op, detail).into()
}

fn failed(op: &'static str, error: io::Error) -> ContainerServiceError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ContainerServiceError::Full,
        io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported => {
            BackendError::permanent("local", op, error).into()
        }
        _ => BackendError::transient("local", op, error).into(),
    }
}
