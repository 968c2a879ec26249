//! [`MemoryContainers`]: the port `ContainerService` over a [`World`].

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use windlass_core::container_service::{
    Adoption, ContainerService, ContainerServiceError, LaunchSpec, Launched, Place, Room,
    StopRequest, lost,
};
use windlass_core::error::BackendError;
use windlass_core::execution::{ExitReport, FinalReport};
use windlass_core::id::{Epoch, ExecutionId, Nonce};
use windlass_core::locator::Locator;
use windlass_core::outcome::{Lost, NotStarted};
use windlass_core::time::Timestamp;

use crate::world::{Evidence, Process, Program, Site, State, World};

const BACKEND: &str = "memory";

/// The containers of a world, as one host sees them: what it is attached to goes with it.
#[derive(Debug)]
pub struct MemoryContainers {
    world: World,
    attached: Mutex<BTreeSet<Locator>>,
}

impl MemoryContainers {
    /// Opens the containers of a world. Opening again is a restart, or a second host.
    #[must_use]
    pub fn new(world: World) -> Self {
        Self { world, attached: Mutex::new(BTreeSet::new()) }
    }

    fn attached(&self) -> MutexGuard<'_, BTreeSet<Locator>> {
        self.attached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attach(&self, place: &Place) {
        self.attached().insert(place.locator.clone());
    }

    fn must_be_attached(
        &self,
        execution: ExecutionId,
        place: &Place,
    ) -> Result<(), ContainerServiceError> {
        if self.attached().contains(&place.locator) {
            return Ok(());
        }
        Err(ContainerServiceError::NotAttached { execution })
    }

    /// Waits until the end of what it is attached to. What lost its supervisor is swept by whoever waits for it.
    async fn end(
        &self,
        execution: ExecutionId,
        place: &Place,
    ) -> Result<FinalReport, ContainerServiceError> {
        self.must_be_attached(execution, place)?;
        self.world
            .wait(|state| {
                sweep(state, &place.locator);
                match state.sites.get(&place.locator).map(|site| &site.evidence) {
                    Some(Evidence::Launched(process)) => process.end().cloned().map(Ok),
                    Some(Evidence::Damaged) => Some(Ok(damaged(state.now))),
                    Some(Evidence::Empty | Evidence::Closed) | None => {
                        Some(Err(failed("wait", "the place is not one of an execution")))
                    }
                }
            })
            .await
    }
}

/// Ends what nobody watches over any more.
fn sweep(state: &mut State, locator: &Locator) {
    state.with_process(locator, |process, log, now| {
        if process.is_orphan() {
            process.sweep(log, now);
        }
    });
}

fn damaged(now: Timestamp) -> FinalReport {
    FinalReport {
        exit: lost(Lost::EvidenceDamaged, now),
        last_seq: 0,
        bytes: 0,
        dropped_bytes: 0,
        output_incomplete: true,
        survivors: Vec::new(),
        more_survivors: 0,
    }
}

fn failed(op: &'static str, why: &'static str) -> ContainerServiceError {
    BackendError::permanent(BACKEND, op, why).into()
}

/// Finds the room that a place names, if it is that one.
fn find<'a>(state: &'a mut State, execution: ExecutionId, place: &Place) -> Option<&'a mut Site> {
    let site = state.sites.get_mut(&place.locator)?;
    (site.place == *place && site.execution == execution).then_some(site)
}

/// Checks what callers promise of a launch.
fn check_spec(spec: &LaunchSpec, execution: ExecutionId) {
    assert_eq!(spec.execution, execution, "the place is of another execution");
    assert!(!spec.argv.is_empty(), "a command has a program");
    assert!(
        spec.env.is_sorted_by(|a, b| a.0 < b.0),
        "the environment is sorted and has no name twice"
    );
    assert_ne!(spec.log_cap_bytes, 0, "a log keeps something");
}

/// Runs the command, as far as it gets.
fn start(state: &mut State, spec: &LaunchSpec, locator: &Locator) -> Process {
    let pids = [state.fresh_pid(), state.fresh_pid()];
    let program = String::from_utf8_lossy(&spec.argv[0].0).into_owned();
    let missing = state.is_missing(&spec.cwd);
    let now = state.now;
    let log = state.logs.entry(locator.clone()).or_default();
    let (reason, message) = match Program::find(&spec.argv) {
        _ if missing => (NotStarted::DirectoryGone, format!("there is no directory {}", spec.cwd)),
        Program::Script(script) => return Process::start(spec, script, pids, log, now),
        Program::NotExecutable => {
            (NotStarted::NotExecutable, format!("{program} may not be executed"))
        }
        Program::NotFound => {
            (NotStarted::ProgramNotFound, format!("there is no program {program}"))
        }
    };
    Process::failed(spec, reason, message, log, now)
}

fn launched(process: &Process) -> Launched {
    match process.failure() {
        Some((reason, message)) => {
            Launched::NotStarted { reason: *reason, message: message.clone() }
        }
        None => Launched::Running(process.running()),
    }
}

#[async_trait]
impl ContainerService for MemoryContainers {
    async fn prepare(
        &self,
        execution: ExecutionId,
        nonce: Nonce,
    ) -> Result<Place, ContainerServiceError> {
        let locator = Locator::new(format!("memory:{execution}.{}", nonce.0));
        self.world.change(|state| {
            if let Some(site) = state.sites.get(&locator) {
                return Ok(site.place.clone());
            }
            if state.room.free_bytes == 0 {
                return Err(ContainerServiceError::Full);
            }
            let identity = state.fresh_identity();
            let place = Place { locator: locator.clone(), nonce, identity };
            let (epoch, evidence) = (Epoch(0), Evidence::Empty);
            let site = Site { execution, place: place.clone(), epoch, evidence };
            state.sites.insert(locator.clone(), site);
            state.logs.entry(locator).or_default();
            Ok(place)
        })
    }

    async fn launch(
        &self,
        place: &Place,
        spec: LaunchSpec,
        epoch: Epoch,
    ) -> Result<Launched, ContainerServiceError> {
        let launched = self.world.change(|state| {
            let Some(site) = find(state, spec.execution, place) else {
                return Err(failed("launch", "the place is not there"));
            };
            check_spec(&spec, site.execution);
            if !site.raise(epoch) {
                return Err(ContainerServiceError::Superseded { held: epoch });
            }
            match &site.evidence {
                Evidence::Empty => {}
                Evidence::Launched(process) => return Ok(launched(process)),
                Evidence::Damaged => return Err(failed("launch", "the evidence is damaged")),
                Evidence::Closed => {
                    let message = "the place was given up before it was used".to_owned();
                    return Ok(Launched::NotStarted { reason: NotStarted::Stopped, message });
                }
            }
            let process = start(state, &spec, &place.locator);
            let answer = launched(&process);
            if let Some(site) = state.sites.get_mut(&place.locator) {
                site.evidence = Evidence::Launched(Box::new(process));
            }
            Ok(answer)
        })?;
        self.attach(place);
        Ok(launched)
    }

    async fn adopt(
        &self,
        execution: ExecutionId,
        place: &Place,
        epoch: Epoch,
    ) -> Result<Adoption, ContainerServiceError> {
        let adoption = self.world.change(|state| {
            let now = state.now;
            let Some(site) = find(state, execution, place) else {
                let detail = format!("{} is not the recorded room", place.locator);
                return Ok(Adoption::Foreign { detail });
            };
            if !site.raise(epoch) {
                return Err(ContainerServiceError::Superseded { held: epoch });
            }
            sweep(state, &place.locator);
            let Some(site) = find(state, execution, place) else {
                return Err(failed("adopt", "the place went away"));
            };
            Ok(match &mut site.evidence {
                Evidence::Damaged => Adoption::Ended(damaged(now)),
                Evidence::Launched(process) => match process.end() {
                    Some(end) => Adoption::Ended(end.clone()),
                    None => Adoption::Running { running: Some(process.running()), exited: None },
                },
                evidence @ (Evidence::Empty | Evidence::Closed) => {
                    *evidence = Evidence::Closed;
                    Adoption::NeverRan
                }
            })
        })?;
        if matches!(adoption, Adoption::Running { .. } | Adoption::Ended(_)) {
            self.attach(place);
        }
        Ok(adoption)
    }

    async fn exited(
        &self,
        execution: ExecutionId,
        place: &Place,
    ) -> Result<ExitReport, ContainerServiceError> {
        Ok(self.end(execution, place).await?.exit)
    }

    async fn finished(
        &self,
        execution: ExecutionId,
        place: &Place,
    ) -> Result<FinalReport, ContainerServiceError> {
        self.end(execution, place).await
    }

    async fn stop(
        &self,
        execution: ExecutionId,
        place: &Place,
        request: StopRequest,
    ) -> Result<(), ContainerServiceError> {
        self.must_be_attached(execution, place)?;
        self.world.change(|state| {
            let Some(site) = find(state, execution, place) else {
                return Err(ContainerServiceError::NotAttached { execution });
            };
            if !site.raise(request.epoch) {
                return Err(ContainerServiceError::Superseded { held: request.epoch });
            }
            state.with_process(&place.locator, |process, log, now| process.stop(request, log, now));
            Ok(())
        })
    }

    async fn places(&self) -> Result<Vec<(ExecutionId, Place)>, ContainerServiceError> {
        Ok(self.world.look(|state| {
            state.sites.values().map(|site| (site.execution, site.place.clone())).collect()
        }))
    }

    async fn discard(
        &self,
        execution: ExecutionId,
        place: &Place,
    ) -> Result<(), ContainerServiceError> {
        self.world.change(|state| {
            let Some(site) = find(state, execution, place) else { return Ok(()) };
            if site.process().is_some_and(|process| process.end().is_none()) {
                return Err(failed("discard", "the place is in use"));
            }
            state.sites.remove(&place.locator);
            state.logs.remove(&place.locator);
            Ok(())
        })?;
        self.attached().remove(&place.locator);
        Ok(())
    }

    async fn room(&self) -> Result<Room, ContainerServiceError> {
        Ok(self.world.look(|state| state.room))
    }
}
