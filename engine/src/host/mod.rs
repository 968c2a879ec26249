//! The host loop: one task that owns all machines, feeds them and performs what they ask for.
//!
//! Nothing in it blocks or waits in line: what takes time is a future of the driver or a prelude of a request. It is
//! generic over clock, spawner and random bits, so that the simulation runs the same code.

mod attachments;
pub(crate) mod changes;
mod cleanup;
pub(crate) mod command;
pub(crate) mod edits;
mod events;
mod follow_ups;
pub(crate) mod new_records;
mod port_blocks;
pub(crate) mod prelude;
mod pumping;
pub(crate) mod records;
pub(crate) mod recovery;
mod requests;
mod retry;
#[cfg(feature = "planted")]
pub mod steps;
mod sweep;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures::channel::{mpsc, oneshot};
use futures::future::{BoxFuture, FusedFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use uuid::Uuid;
use windlass_core::admission;
use windlass_core::attempt::{self, Input, RequestId, State};
use windlass_core::driver::{Driver, Ports};
use windlass_core::id::AttemptId;
use windlass_core::input::Input as InputPort;
use windlass_core::process_store::{ChangeNumber, Lease, ProcessStoreError, Record, RecordKey};
use windlass_core::time::Timestamp;

use crate::config::Config;
use crate::error::EngineError;
use crate::handle::{About, Handle};
use crate::log_store::Pumped;
use crate::runtime::{Ids, Runtime};
use crate::secrets::MemorySecrets;
use command::{Command, Pending};
use port_blocks::PortBlocks;
use prelude::Prelude;

/// How many commands may wait for the loop. More make the caller wait.
const COMMANDS: usize = 1024;

/// Why the loop of one lease ended.
enum End {
    /// No handle is left, or a shutdown was asked for.
    Closed,
    /// The machines are ahead of the store; start over from it.
    Trouble(ProcessStoreError),
}

/// What outlives a lease.
pub(crate) struct Parts<R> {
    runtime: Arc<R>,
    ports: Ports,
    input: Option<Arc<dyn InputPort>>,
    secrets: Arc<MemorySecrets>,
    /// The same as the port of logs, where logs are kept apart from the segments.
    pumped: Option<Arc<Pumped>>,
    config: Config,
    about: About,
    /// Which ports attempts have.
    port_blocks: Arc<PortBlocks>,
    /// The epoch of the current lease, for those who send input beside the loop.
    epoch: Arc<AtomicU64>,
}

impl<R> Clone for Parts<R> {
    fn clone(&self) -> Self {
        Self {
            runtime: Arc::clone(&self.runtime),
            ports: self.ports.clone(),
            input: self.input.clone(),
            secrets: Arc::clone(&self.secrets),
            pumped: self.pumped.clone(),
            config: self.config.clone(),
            about: self.about,
            port_blocks: Arc::clone(&self.port_blocks),
            epoch: Arc::clone(&self.epoch),
        }
    }
}

/// Everything that one lease owns.
struct Host<R> {
    parts: Parts<R>,
    ids: Ids<R>,
    lease: Lease,
    machine: attempt::Config,
    driver: Driver,
    machines: BTreeMap<AttemptId, State>,
    admission: admission::State,
    /// Which attempt to tell when a waiting slot is granted.
    slot_waiters: BTreeMap<attempt::Slot, AttemptId>,
    preludes: FuturesUnordered<BoxFuture<'static, Prelude>>,
    /// Requests by key that are under way; others with the same key wait for them.
    keys: BTreeMap<Uuid, Vec<Command>>,
    edits: edits::Edits,
    /// Attempts whose records are being read for a request; their machines are not dropped meanwhile.
    held: BTreeMap<AttemptId, u32>,
    pending: BTreeMap<RequestId, Pending>,
    next_request: u64,
    wakes: BTreeSet<(Timestamp, AttemptId)>,
    watchers: BTreeMap<RecordKey, Vec<mpsc::UnboundedSender<Record>>>,
    /// At how many watched records those without a watcher are looked for.
    watchers_at_most: usize,
    last_change: ChangeNumber,
    /// A batch was committed under this lease.
    has_persisted: bool,
    change_waiters: Vec<(ChangeNumber, oneshot::Sender<()>)>,
    closing: Option<Vec<oneshot::Sender<()>>>,
    cleanup: cleanup::Cleanup,
}

impl<R> fmt::Debug for Host<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("lease", &self.lease).finish_non_exhaustive()
    }
}

/// Takes over the records, starts adopting, and leaves the loop running in the background.
pub(crate) async fn start<R: Runtime>(
    runtime: Arc<R>,
    ports: Ports,
    input: Option<Arc<dyn InputPort>>,
    secrets: Arc<MemorySecrets>,
    pumped: Option<Arc<Pumped>>,
    config: Config,
    about: About,
) -> Result<Handle, EngineError> {
    let (sender, commands) = mpsc::channel(COMMANDS);
    let epoch = Arc::new(AtomicU64::new(0));
    let parts = Parts {
        runtime,
        ports: ports.clone(),
        input: input.clone(),
        secrets,
        pumped,
        port_blocks: Arc::new(PortBlocks::new(config.ports)),
        config,
        about,
        epoch,
    };
    let handle = Handle::new(sender, ports, input, Arc::clone(&parts.epoch));
    let host = Host::take_over(parts).await?;
    let kept = attachments::kept(&host.parts.ports).await;
    let runtime = Arc::clone(&host.parts.runtime);
    host.sweep_places();
    host.sweep_attachments(kept);
    host.pump_leftovers();
    runtime.spawn(Box::pin(run(host, commands)));
    Ok(handle)
}

/// Runs the loop, over and over after trouble, until it is closed or superseded.
async fn run<R: Runtime>(mut host: Host<R>, mut commands: mpsc::Receiver<Command>) {
    loop {
        match host.serve(&mut commands).await {
            End::Closed => {
                host.count_what_was_watched().await;
                break;
            }
            End::Trouble(error) => match host.start_over(error, &mut commands).await {
                Some(next) => host = next,
                None => break,
            },
        }
    }
    if let Some(pumped) = &host.parts.pumped {
        pumped.close();
    }
    host.say_goodbye();
    // Whoever still asks is told that nobody serves.
    commands.close();
    while let Ok(command) = commands.try_recv() {
        command.fail(EngineError::Closing);
    }
}

impl<R: Runtime> Host<R> {
    /// Serves until the handles are gone, a shutdown, or trouble.
    async fn serve(&mut self, commands: &mut mpsc::Receiver<Command>) -> End {
        let mut timer = self.timer();
        let mut armed = self.wakes.first().copied();
        loop {
            if self.closing.is_some() && self.is_flushed() {
                return End::Closed;
            }
            let first = self.wakes.first().copied();
            if first != armed {
                timer = self.timer();
                armed = first;
            }
            futures::select_biased! {
                event = self.driver.event().fuse() => {
                    if let Some(end) = self.on_event(event) {
                        return end;
                    }
                }
                prelude = self.preludes.select_next_some() => {
                    if let Some(end) = self.on_prelude(prelude) {
                        return end;
                    }
                }
                tidied = self.cleanup.steps.select_next_some() => self.on_tidied(tidied),
                command = commands.next() => match command {
                    Some(command) => self.on_command(command),
                    None => {
                        self.closing.get_or_insert_default();
                    }
                },
                () = timer => {
                    self.wake_due(armed);
                    timer = self.timer();
                    armed = self.wakes.first().copied();
                }
            }
        }
    }

    /// Says whether nothing that was accepted is still on its way to the store.
    fn is_flushed(&self) -> bool {
        self.driver.is_flushed() && self.preludes.is_empty()
    }

    fn timer(&self) -> impl FusedFuture<Output = ()> + Unpin + use<R> {
        match self.wakes.first() {
            Some((at, _)) => {
                let ms = at.ms_since(self.parts.runtime.now()).max(1);
                self.parts.runtime.sleep(Duration::from_millis(ms)).fuse()
            }
            None => {
                let never: BoxFuture<'static, ()> = Box::pin(std::future::pending());
                never.fuse()
            }
        }
    }

    /// Wakes those whose time has come: by the clock, or by the timer that was `armed` for them where the clock was stepped
    /// back since.
    fn wake_due(&mut self, armed: Option<(Timestamp, AttemptId)>) {
        let now = self.parts.runtime.now().max(armed.map_or(Timestamp(0), |(at, _)| at));
        while let Some((at, attempt)) = self.wakes.first().copied() {
            if at > now {
                break;
            }
            self.wakes.pop_first();
            self.feed(attempt, Input::Fact(attempt::Fact::Woke));
        }
    }

    /// Feeds one input to one machine and hands its effects to the driver.
    fn feed(&mut self, id: AttemptId, input: Input) {
        let Some(state) = self.machines.remove(&id) else { return };
        let step = state.step(&self.machine, self.parts.runtime.now(), input);
        self.machines.insert(id, step.state);
        self.driver.submit(id, step.effects);
        self.drop_if_idle(id);
    }

    /// Forgets a machine of which nothing is under way; it is loaded again when somebody asks for it.
    fn drop_if_idle(&mut self, id: AttemptId) {
        if self.driver.is_quiet(id)
            && !self.held.contains_key(&id)
            && self.machines.get(&id).is_some_and(State::is_idle)
        {
            self.machines.remove(&id);
        }
    }

    /// Ends what waits: nobody will answer it any more.
    fn say_goodbye(&mut self) {
        for (_, pending) in std::mem::take(&mut self.pending) {
            pending.fail(EngineError::Closing);
        }
        for (_, waiting) in std::mem::take(&mut self.keys) {
            waiting.into_iter().for_each(|command| command.fail(EngineError::Closing));
        }
        self.cleanup.fail(&EngineError::Closing);
        self.edits.fail(&EngineError::Closing);
        self.watchers.clear();
        self.change_waiters.clear();
        for reply in self.closing.take().unwrap_or_default() {
            let _gone = reply.send(());
        }
    }
}
