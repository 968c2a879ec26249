//! [`MemoryContainers`]: the port `ContainerService` over a [`World`].
//!
//! The host's side of what the shims of a world do: it starts them, talks to them over connections, and when one is gone
//! looks at its place, as the service that ships does.

mod look;
mod watcher;

use std::time::Duration;

use async_trait::async_trait;
use windlass_core::container_service::{
    Adoption, ContainerService, ContainerServiceError, LaunchSpec, Launched, Place, Room,
    StopCause, StopRequest,
};
use windlass_core::error::BackendError;
use windlass_core::execution::{EndCause, ExecFailure, ExitReport, FinalReport};
use windlass_core::id::{Epoch, ExecutionId, Nonce};
use windlass_core::locator::Locator;
use windlass_core::outcome::{NotStarted, Outcome};
use windlass_core::shim::message::Stop;

use self::watcher::{Answer, Known, Ordered, Trouble, Watcher};
pub(crate) use self::watcher::{Line, Owner, Reply, Watcher as HostWatcher, WatcherKey};
use crate::world::{Happened, HostToken, Site, StartId, State, World};

const BACKEND: &str = "memory";

/// How often an order is given again when the shim goes away under it.
const TRIES: usize = 3;

/// From TERM to KILL for what a dead shim left, unless somebody says otherwise.
const ORPHAN_GRACE: Duration = Duration::from_secs(5);

/// The containers of a world, as one host sees them: its connections and locks go with it, what it started does not.
#[derive(Debug)]
pub struct MemoryContainers {
    world: World,
    host: HostToken,
    orphan_grace_ms: u64,
}

impl Drop for MemoryContainers {
    fn drop(&mut self) {
        self.world.change(|state| state.host_gone(self.host));
    }
}

impl MemoryContainers {
    /// Opens the containers of a world. Opening again is a restart, or a second host.
    #[must_use]
    pub fn new(world: World) -> Self {
        Self::with_orphan_grace(world, ORPHAN_GRACE)
    }

    /// The same, with how long what a dead shim left may take from TERM to KILL.
    #[must_use]
    pub fn with_orphan_grace(world: World, grace: Duration) -> Self {
        let host = world.edit(|state| HostToken(state.fresh_number()));
        let orphan_grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        Self { world, host, orphan_grace_ms }
    }

    fn key(&self, execution: ExecutionId, place: &Place) -> WatcherKey {
        (self.host, StartId { execution, nonce: place.nonce })
    }

    /// Waits for something about an execution that was launched or adopted here; `None` if nothing is attached.
    async fn known<T: Send>(
        &self,
        op: &'static str,
        execution: ExecutionId,
        place: &Place,
        what: impl Fn(&Known) -> Option<T> + Send + Sync,
    ) -> Result<Option<T>, ContainerServiceError> {
        let key = self.key(execution, place);
        self.world
            .wait(|state| {
                let Some(watcher) = state.watchers.get(&key) else { return Some(Ok(None)) };
                match what(&watcher.known) {
                    Some(known) => Some(Ok(Some(known))),
                    None if watcher.known.never_ran => Some(Ok(None)),
                    None if watcher.known.is_stuck() => Some(Err(trouble(op, watcher))),
                    None => None,
                }
            })
            .await
    }

    /// Reads the end that the journal has.
    fn recorded(
        &self,
        execution: ExecutionId,
        place: &Place,
    ) -> Result<FinalReport, ContainerServiceError> {
        let (_, start) = self.key(execution, place);
        let report = self.world.edit(|state| {
            let journal = state.site(start).and_then(Site::readable);
            journal.and_then(|journal| journal.finished().cloned())
        });
        report.ok_or(ContainerServiceError::NotAttached { execution })
    }

    /// Starts a shim in a place that was never used.
    fn start(
        &self,
        state: &mut State,
        place: &Place,
        spec: &LaunchSpec,
        epoch: Epoch,
    ) -> Result<(), ContainerServiceError> {
        let key = self.key(spec.execution, place);
        let conn = state.watch_launch(key, place, epoch, self.orphan_grace_ms);
        state.log(key.1).begin(spec.log_cap_bytes);
        match state.spawn_shim(key.1, Box::new(spec.clone()), epoch, conn) {
            Some(shim) => {
                state.connected(conn, shim, Owner::Watcher(key));
                Ok(())
            }
            None => {
                state.watchers.remove(&key);
                let why = "no process can be made";
                Err(BackendError::transient(BACKEND, "launch", why).into())
            }
        }
    }
}

/// Returns the boot that a place was made in, from its recorded identity; `None` if it is not of a world.
pub(crate) fn boot_of(identity: &str) -> Option<u32> {
    let (room, boot) = identity.strip_prefix("room ")?.split_once(" boot ")?;
    room.parse::<u64>().ok()?;
    boot.parse().ok()
}

/// Checks what callers promise of a launch.
fn check_spec(spec: &LaunchSpec) {
    assert!(!spec.argv.is_empty(), "a command has a program");
    assert!(
        spec.env.is_sorted_by(|a, b| a.0 < b.0),
        "the environment is sorted and has no name twice"
    );
    assert_ne!(spec.log_cap_bytes, 0, "a log keeps something");
}

/// Says for people why a command could not be started.
fn explain(failure: &ExecFailure, spec: &LaunchSpec) -> String {
    let program = spec
        .argv
        .first()
        .map_or_else(String::new, |program| String::from_utf8_lossy(&program.0).into_owned());
    match failure.reason {
        NotStarted::ProgramNotFound => format!("there is no program {program}"),
        NotStarted::NotExecutable => format!("{program} may not be executed"),
        NotStarted::DirectoryGone => format!("there is no directory {}", spec.cwd),
        NotStarted::Stopped => "it was stopped before it ran".to_owned(),
        NotStarted::WorkspaceRefused
        | NotStarted::LimitRefused
        | NotStarted::SecretGone
        | NotStarted::SpawnFailed => format!("{program} could not be started"),
    }
}

/// Returns the error for what keeps a watcher from knowing more.
fn trouble(op: &'static str, watcher: &Watcher) -> ContainerServiceError {
    let held = watcher.epoch;
    match &watcher.known.trouble {
        Some(Trouble::Superseded) => ContainerServiceError::Superseded { held },
        Some(Trouble::Foreign(why) | Trouble::Unverifiable(why)) => {
            BackendError::permanent(BACKEND, op, *why).into()
        }
        Some(Trouble::Unresponsive(why)) => BackendError::transient(BACKEND, op, *why).into(),
        None => {
            let why = "what became of it is not known";
            BackendError::transient(BACKEND, op, why).into()
        }
    }
}

/// Says what became of a launch, once that is decided.
fn launched(watcher: &Watcher, spec: &LaunchSpec) -> Result<Launched, ContainerServiceError> {
    let known = &watcher.known;
    if let Some(failure) = &known.failed {
        let message = explain(failure, spec);
        return Ok(Launched::NotStarted { reason: failure.reason, message });
    }
    if let Some(running) = known.running {
        return Ok(Launched::Running(running));
    }
    if known.never_ran {
        let message = "the shim left without a word".to_owned();
        return Ok(Launched::NotStarted { reason: NotStarted::SpawnFailed, message });
    }
    match known.finished.as_ref().map(|report| report.exit.outcome) {
        Some(Outcome::NotStarted { reason }) => {
            let message = "it was tried before and did not start".to_owned();
            Ok(Launched::NotStarted { reason, message })
        }
        _ => Err(trouble("launch", watcher)),
    }
}

/// Says what an adoption came to.
fn adoption(watcher: &Watcher) -> Result<Adoption, ContainerServiceError> {
    let known = &watcher.known;
    if let Some(report) = &known.finished {
        return Ok(Adoption::Ended(report.clone()));
    }
    Ok(match &known.trouble {
        Some(Trouble::Unresponsive(why)) => Adoption::Unresponsive { detail: (*why).to_owned() },
        Some(Trouble::Foreign(why)) => Adoption::Foreign { detail: (*why).to_owned() },
        Some(Trouble::Unverifiable(why)) => Adoption::Unverifiable { detail: (*why).to_owned() },
        Some(Trouble::Superseded) => return Err(trouble("adopt", watcher)),
        None if known.never_ran => Adoption::NeverRan,
        None => {
            let running = known.running.filter(|_| known.exited.is_none());
            Adoption::Running { running, exited: known.exited.clone() }
        }
    })
}

#[async_trait]
impl ContainerService for MemoryContainers {
    async fn prepare(
        &self,
        execution: ExecutionId,
        nonce: Nonce,
    ) -> Result<Place, ContainerServiceError> {
        let start = StartId { execution, nonce };
        self.world.edit(|state| {
            if let Some(site) = state.sites.get(&start) {
                return Ok(site.place.clone());
            }
            if state.room.free_bytes == 0 {
                return Err(ContainerServiceError::Full);
            }
            let locator = Locator::new(format!("memory:{execution}.{}", nonce.0));
            let identity = format!("room {} boot {}", state.fresh_number(), state.kernel.boot);
            let place = Place { locator, nonce, identity };
            state.make_site(start, place.clone());
            let _empty = state.log(start);
            Ok(place)
        })
    }

    async fn launch(
        &self,
        place: &Place,
        spec: LaunchSpec,
        epoch: Epoch,
    ) -> Result<Launched, ContainerServiceError> {
        check_spec(&spec);
        let key = self.key(spec.execution, place);
        self.world.change(|state| {
            if state.watchers.get(&key).is_some_and(Watcher::is_useful) {
                return Ok(());
            }
            let Some(site) = state.site(key.1) else {
                return Err(BackendError::transient(BACKEND, "launch", "its place is gone").into());
            };
            if site.place == *place && site.lock.is_none() && site.is_untouched(key.1) {
                return self.start(state, place, &spec, epoch);
            }
            state.watch_place(key, place, epoch, self.orphan_grace_ms);
            Ok(())
        })?;
        self.world
            .wait(|state| {
                let Some(watcher) = state.watchers.get(&key) else {
                    let why = "the host is gone";
                    return Some(Err(BackendError::transient(BACKEND, "launch", why).into()));
                };
                let is_decided = !watcher.is_looking() && watcher.known.is_decided();
                is_decided.then(|| launched(watcher, &spec))
            })
            .await
    }

    async fn adopt(
        &self,
        execution: ExecutionId,
        place: &Place,
        epoch: Epoch,
    ) -> Result<Adoption, ContainerServiceError> {
        let key = self.key(execution, place);
        let mut has_looked = false;
        self.world
            .wait(|state| {
                match state.watchers.get(&key) {
                    Some(watcher) if has_looked => {
                        if watcher.is_looking() {
                            return None;
                        }
                        let adopted = adoption(watcher);
                        if adopted.is_err() {
                            state.watchers.remove(&key);
                        }
                        return Some(adopted);
                    }
                    Some(watcher) if watcher.is_useful() => {
                        let known = &watcher.known;
                        if watcher.is_looking() || !known.is_decided() {
                            return None;
                        }
                        // A higher epoch has to be told to the shim; a lower one to go away.
                        if known.finished.is_some() || known.never_ran || watcher.epoch == epoch {
                            return Some(adoption(watcher));
                        }
                    }
                    Some(_) | None => {}
                }
                has_looked = true;
                state.watch_place(key, place, epoch, self.orphan_grace_ms);
                None
            })
            .await
    }

    async fn exited(
        &self,
        execution: ExecutionId,
        place: &Place,
    ) -> Result<ExitReport, ContainerServiceError> {
        let what = |known: &Known| known.exited.clone();
        match self.known("exited", execution, place, what).await? {
            Some(report) => Ok(report),
            None => Ok(self.recorded(execution, place)?.exit),
        }
    }

    async fn finished(
        &self,
        execution: ExecutionId,
        place: &Place,
    ) -> Result<FinalReport, ContainerServiceError> {
        let what = |known: &Known| Some((known.finished.clone()?, known.recorded));
        match self.known("finished", execution, place, what).await? {
            Some((report, recorded)) => {
                if recorded {
                    let key = self.key(execution, place);
                    self.world.edit(|state| drop(state.watchers.remove(&key)));
                }
                Ok(report)
            }
            None => self.recorded(execution, place),
        }
    }

    async fn stop(
        &self,
        execution: ExecutionId,
        place: &Place,
        request: StopRequest,
    ) -> Result<(), ContainerServiceError> {
        let key = self.key(execution, place);
        let stop = Stop {
            epoch: request.epoch,
            cause: match request.cause {
                StopCause::Stop { by } => EndCause::Stopped { by },
                StopCause::Complete { by } => EndCause::Completed { by },
            },
            grace_ms: u64::try_from(request.grace.as_millis()).unwrap_or(u64::MAX),
            interrupt_ms: 0,
        };
        let gone = || ContainerServiceError::NotAttached { execution };
        for _ in 0..TRIES {
            let ordered = self.world.wait(|state| {
                if !state.watchers.contains_key(&key) {
                    return Some(None);
                }
                state.order_stop(key, stop).map(Some)
            });
            let ticket = match ordered.await {
                None => return Err(gone()),
                Some(Ordered::Asked(ticket)) => ticket,
                Some(Ordered::Done) => return Ok(()),
                Some(Ordered::Unknown) => break,
                Some(Ordered::Over) => {
                    return self.world.edit(|state| match state.watchers.get(&key) {
                        Some(watcher) if watcher.known.finished.is_some() => Ok(()),
                        Some(watcher) if !watcher.known.never_ran => Err(trouble("stop", watcher)),
                        Some(_) | None => Err(gone()),
                    });
                }
            };
            let answer = self.world.wait(|state| match state.watchers.get_mut(&key) {
                Some(watcher) => watcher.take_answer(ticket),
                None => Some(Answer::Broken),
            });
            match answer.await {
                Answer::Taken => return Ok(()),
                Answer::Superseded => {
                    return Err(ContainerServiceError::Superseded { held: request.epoch });
                }
                Answer::Broken => {}
            }
        }
        let why = "the shim does not answer";
        Err(BackendError::transient(BACKEND, "stop", why).into())
    }

    async fn places(&self) -> Result<Vec<(ExecutionId, Place)>, ContainerServiceError> {
        Ok(self.world.look(|state| {
            let sites = state.sites.iter();
            sites.map(|(start, site)| (start.execution, site.place.clone())).collect()
        }))
    }

    async fn discard(
        &self,
        execution: ExecutionId,
        place: &Place,
    ) -> Result<(), ContainerServiceError> {
        let key = self.key(execution, place);
        self.world.change(|state| {
            let start = key.1;
            let Some(site) = state.site(start) else {
                state.watchers.remove(&key);
                return Ok(());
            };
            if site.place != *place {
                let why = "the room is not the recorded one";
                return Err(BackendError::permanent(BACKEND, "discard", why).into());
            }
            let in_use = site.lock.is_some();
            let started = site.readable().and_then(|journal| journal.started().cloned());
            let lives = started.is_some_and(|started| state.command_of(&started).is_some());
            if in_use || lives {
                let why = "the place is in use";
                return Err(BackendError::transient(BACKEND, "discard", why).into());
            }
            state.sites.remove(&start);
            state.logs.remove(&start);
            state.watchers.remove(&key);
            state.note(|| Happened::PlaceRemoved { start });
            Ok(())
        })
    }

    async fn room(&self) -> Result<Room, ContainerServiceError> {
        Ok(self.world.look(|state| state.room))
    }
}
