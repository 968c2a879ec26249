//! One execution that this service watches: a task with a connection to its shim, and what is known so far.
//!
//! The task ends with the execution, or when the service is dropped; the execution does not care.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use uuid::Uuid;
use windlass_core::container_service::{ContainerServiceError, Running};
use windlass_core::error::BackendError;
use windlass_core::execution::{ExecFailure, ExitReport, FinalReport};
use windlass_core::id::Epoch;
use windlass_core::input::InputError;
use windlass_core::shim::journal;
use windlass_core::shim::message::{
    self, InputRefusal, MAX_WAITING_INPUT_BYTES, Notice, Request, Welcome,
};

use crate::connection::{Connection, HELLO_PATIENCE};
use crate::evidence::{Ended, Examined, Start, command, examine, running, shim};
use crate::follow::Follower;
use crate::identity::{Found, Pidfd};
use crate::node::Node;
use crate::sweep;

/// How many orders wait for the task.
const ORDERS: usize = 16;

/// What is known of an execution. It only grows, but for the trouble.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    /// The command, since it runs.
    pub(crate) running: Option<Running>,
    /// Why it could not be started.
    pub(crate) failed: Option<ExecFailure>,
    /// The outcome.
    pub(crate) exited: Option<ExitReport>,
    /// The end.
    pub(crate) finished: Option<FinalReport>,
    /// The journal has the end.
    pub(crate) recorded: bool,
    /// Nothing ever ran.
    pub(crate) never_ran: bool,
    /// What keeps us from knowing more.
    pub(crate) trouble: Option<Trouble>,
}

/// What keeps us from an execution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Its shim does not answer; its end will be noticed all the same.
    Unresponsive(String),
    /// Another host drives it.
    Superseded,
    /// The place is not ours.
    Foreign(String),
    /// It cannot be told whether it runs.
    Unverifiable(String),
    /// The place cannot be read.
    Unreadable(String),
}

impl State {
    fn welcome(&mut self, welcome: &Welcome) {
        self.running = welcome.started.as_ref().map(running).or(self.running);
        self.failed = welcome.exec_failed.or(self.failed);
        self.exited = welcome.exited.clone().or_else(|| self.exited.take());
        self.trouble = None;
        if let Some(report) = &welcome.finished {
            self.finish(report.clone(), true);
        }
    }

    fn end(&mut self, ended: Ended) {
        self.running = ended.running.or(self.running);
        self.finish(ended.report, ended.recorded);
    }

    fn finish(&mut self, report: FinalReport, recorded: bool) {
        self.exited = Some(report.exit.clone());
        self.finished = Some(report);
        self.recorded = recorded;
        self.trouble = None;
    }
}

/// What the service tells a task to do.
#[derive(Debug)]
pub(crate) enum Order {
    Stop(message::Stop, oneshot::Sender<Result<(), ContainerServiceError>>),
    Input(message::Input, oneshot::Sender<Result<(), InputError>>),
}

/// A task that watches an execution; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) state: watch::Receiver<State>,
    pub(crate) orders: mpsc::Sender<Order>,
    pub(crate) epoch: Epoch,
    task: AbortHandle,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where a task begins.
#[derive(Debug)]
pub(crate) enum Begin {
    /// With a shim that was just started, and is to be told what to run.
    Launch(Connection, Box<message::Launch>),
    /// With what an examination found.
    Found(Examined),
}

impl Attached {
    /// Watches an execution from now on.
    pub(crate) fn new(node: &Arc<Node>, start: Start, begin: Begin) -> Self {
        let (state, seen) = watch::channel(State::default());
        let (orders, received) = mpsc::channel(ORDERS);
        let epoch = start.epoch;
        let mut watcher = Watcher {
            node: Arc::clone(node),
            start,
            state,
            orders: received,
            pending: Pending::default(),
            started: None,
        };
        // What is known already is known before anybody asks.
        let next = match begin {
            Begin::Launch(connection, launch) => Next::Launch(connection, launch),
            Begin::Found(examined) => watcher.found(Ok(examined)),
        };
        let task = tokio::spawn(watcher.run(next)).abort_handle();
        Self { state: seen, orders, epoch, task }
    }
}

/// What a task does next.
enum Next {
    Launch(Connection, Box<message::Launch>),
    Serve(Connection),
    Examine,
    /// Wait for the shim to go, or to be told to stop the command itself.
    Watch,
    Done,
}

struct Watcher {
    node: Arc<Node>,
    start: Start,
    state: watch::Sender<State>,
    orders: mpsc::Receiver<Order>,
    pending: Pending,
    /// What the shim wrote down at the start: it tells the shim apart from whoever has its number later.
    started: Option<journal::Started>,
}

impl Watcher {
    async fn run(mut self, mut next: Next) {
        loop {
            next = match next {
                Next::Launch(mut connection, launch) => {
                    // If the shim is gone already, the place says why.
                    match connection.send(&Request::Launch(launch)).await {
                        Ok(()) => Next::Serve(connection),
                        Err(_) => Next::Examine,
                    }
                }
                Next::Serve(connection) => self.serve(connection).await,
                Next::Examine => {
                    let examined = examine(&self.node, &self.start).await;
                    self.found(examined)
                }
                Next::Watch => self.watch().await,
                Next::Done => return,
            };
        }
    }

    /// Takes in what an examination found.
    fn found(&mut self, examined: io::Result<Examined>) -> Next {
        let trouble = match examined {
            Ok(Examined::Supervised(connection, welcome)) => {
                self.hold(welcome.started.as_ref());
                self.state.send_modify(|state| state.welcome(&welcome));
                return if welcome.finished.is_some() {
                    Next::Done
                } else {
                    Next::Serve(connection)
                };
            }
            Ok(Examined::Ended(ended)) => {
                self.state.send_modify(|state| state.end(ended));
                return Next::Done;
            }
            Ok(Examined::NeverRan) => {
                self.state.send_modify(|state| state.never_ran = true);
                return Next::Done;
            }
            Ok(Examined::Unresponsive(detail)) => Trouble::Unresponsive(detail),
            Ok(Examined::Superseded) => Trouble::Superseded,
            Ok(Examined::Foreign(detail)) => Trouble::Foreign(detail),
            Ok(Examined::Unverifiable(detail)) => Trouble::Unverifiable(detail),
            Err(error) => Trouble::Unreadable(error.to_string()),
        };
        let next = match trouble {
            Trouble::Unresponsive(_) => Next::Watch,
            Trouble::Superseded
            | Trouble::Foreign(_)
            | Trouble::Unverifiable(_)
            | Trouble::Unreadable(_) => Next::Done,
        };
        self.state.send_modify(|state| state.trouble = Some(trouble));
        next
    }

    /// Opens a handle to the command while it lives: what it ended with can be read from it even if the shim dies.
    fn hold(&mut self, started: Option<&journal::Started>) {
        if let Some(started) = started {
            self.started = Some(started.clone());
        }
        if let Some(started) = started
            && self.start.leader.is_none()
            && let Found::Alive(leader) = command(started).find()
        {
            self.start.leader = Some(Arc::new(leader));
        }
    }

    /// Talks to the shim until there is nothing more to say.
    async fn serve(&mut self, mut connection: Connection) -> Next {
        let next = loop {
            tokio::select! {
                biased;
                notice = connection.next() => match notice {
                    Ok(Some(notice)) => {
                        if self.notice(notice) {
                            break Next::Done;
                        }
                    }
                    Ok(None) | Err(_) => break Next::Examine,
                },
                order = self.orders.recv() => {
                    let Some(order) = order else { break Next::Done };
                    if matches!(order, Order::Stop(..)) {
                        self.wake_shim();
                    }
                    let request = self.pending.add(order);
                    if connection.send(&request).await.is_err() {
                        break Next::Examine;
                    }
                }
                () = tokio::time::sleep(HELLO_PATIENCE), if self.is_undecided() => {
                    // The command may have stopped its shim before we were told of the start.
                    if let Ok((started, _)) = self.look_around().await {
                        self.hold(started.as_ref());
                        self.wake_shim();
                    }
                }
            }
        };
        self.pending.fail();
        next
    }

    /// Says whether it is not known yet if the command was started.
    fn is_undecided(&self) -> bool {
        let state = self.state.borrow();
        state.running.is_none() && state.failed.is_none() && state.finished.is_none()
    }

    /// Lets a shim go on that somebody stopped, the command for example: it could not do what it is told.
    fn wake_shim(&self) {
        if let Some(Found::Alive(shim)) = self.started.as_ref().map(|started| shim(started).find())
        {
            // One that is gone is noticed all the same.
            let _ = shim.signal(Signal::CONT);
        }
    }

    /// Takes in what a shim says; `true` if it was its last word.
    fn notice(&mut self, notice: Notice) -> bool {
        match notice {
            Notice::Welcome(welcome) => {
                self.hold(welcome.started.as_ref());
                self.state.send_modify(|state| state.welcome(&welcome));
            }
            Notice::Started(started) => {
                self.hold(Some(&started));
                self.state.send_modify(|state| state.running = Some(running(&started)));
            }
            Notice::ExecFailed(failure) => self.state.send_modify(|state| {
                state.failed = Some(failure);
                state.exited = Some(failure.report());
            }),
            Notice::Exited(report) => self.state.send_modify(|state| state.exited = Some(report)),
            Notice::Final(report) => {
                self.state.send_modify(|state| state.finish(*report, true));
                return true;
            }
            Notice::StopTaken => self.pending.stop_taken(),
            Notice::InputTaken { key, .. } => self.pending.input(key, Ok(())),
            Notice::InputRefused { key, position, reason, next } => {
                let limit_bytes = MAX_WAITING_INPUT_BYTES;
                let execution = self.start.execution;
                let refusal = match reason {
                    InputRefusal::NotNext => InputError::NotNext { position, next },
                    InputRefusal::Full => InputError::Full { limit_bytes },
                    InputRefusal::Closed => InputError::Closed { execution },
                };
                self.pending.input(key, Err(refusal));
            }
            Notice::Superseded { epoch } => self.pending.superseded(epoch),
            Notice::Unsupported { .. } => self.pending.fail(),
        }
        false
    }

    /// Waits for a mute shim to go. What it supervises is stopped only when somebody asks for it.
    async fn watch(&mut self) -> Next {
        let Ok(seen) = self.look_around().await else { return Next::Done };
        let (started, mut follower) = seen;
        let shim = started.as_ref().map(|started| shim(started).find());
        let gone = async {
            if let Some(Found::Alive(fd)) = shim
                && sweep::gone(fd.into_fd()).await.is_ok()
            {
                return;
            }
            // Somebody else holds the lock, and does something with the place.
            follower.changed().await;
        };
        tokio::pin!(gone);
        loop {
            tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    None => return Next::Done,
                    Some(Order::Stop(stop, reply)) => {
                        // Nobody may be waiting for the answer any more.
                        let _ = reply.send(stop_by_handle(started.as_ref(), stop));
                    }
                    Some(Order::Input(_, reply)) => {
                        let _ = reply.send(Err(InputError::Backend(broken("send"))));
                    }
                },
                () = &mut gone => return Next::Examine,
            }
        }
    }

    /// Reads the identities that the journal of a place has, whoever holds its lock, and begins to follow it.
    async fn look_around(&self) -> io::Result<(Option<journal::Started>, Follower)> {
        let node = Arc::clone(&self.node);
        let (execution, nonce) = (self.start.execution, self.start.place.nonce);
        let look = move || {
            let place = node.runs.place(execution, nonce)?;
            let place = place.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            let follower = node.follow(place.fd())?;
            let started = match place.read_journal()? {
                journal::Verdict::Readable(journal) => journal.started().cloned(),
                journal::Verdict::Newer { .. } | journal::Verdict::Damaged => None,
            };
            Ok((started, follower))
        };
        tokio::task::spawn_blocking(look).await.map_err(io::Error::other)?
    }
}

/// Row 3, by explicit request: signals the recorded command itself, verified.
fn stop_by_handle(
    started: Option<&journal::Started>,
    stop: message::Stop,
) -> Result<(), ContainerServiceError> {
    let fd = match started.map(command).map(|command| command.find()) {
        Some(Found::Alive(fd)) => fd,
        Some(Found::Gone) => return Ok(()),
        Some(Found::Unknown) | None => return Err(broken("stop").into()),
    };
    let first = if stop.grace_ms == 0 { Signal::KILL } else { Signal::TERM };
    match fd.signal(first) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => return Err(BackendError::transient("local", "stop", error).into()),
    }
    if first == Signal::TERM {
        tokio::spawn(kill_later(fd, Duration::from_millis(stop.grace_ms)));
    }
    Ok(())
}

/// Kills a process that does not end in time.
async fn kill_later(fd: Pidfd, grace: Duration) {
    let Ok(watched) = fd.try_clone() else { return };
    if tokio::time::timeout(grace, sweep::gone(watched.into_fd())).await.is_err() {
        // Gone in the last moment is as good.
        let _ = fd.signal(Signal::KILL);
    }
}

/// Somebody who waits for an answer, and for which epoch he speaks.
type Waiting<E> = (Epoch, oneshot::Sender<Result<(), E>>);

/// Orders whose answers are on their way.
#[derive(Debug, Default)]
struct Pending {
    /// Answered in order.
    stops: VecDeque<Waiting<ContainerServiceError>>,
    /// Answered by key.
    inputs: HashMap<Uuid, Vec<Waiting<InputError>>>,
}

impl Pending {
    /// Remembers who waits, and returns what is to be said.
    fn add(&mut self, order: Order) -> Request {
        match order {
            Order::Stop(stop, reply) => {
                self.stops.push_back((stop.epoch, reply));
                Request::Stop(stop)
            }
            Order::Input(input, reply) => {
                self.inputs.entry(input.key).or_default().push((input.epoch, reply));
                Request::Input(input)
            }
        }
    }

    // Whoever asked may have gone; nobody is missed then.

    fn stop_taken(&mut self) {
        if let Some((_, reply)) = self.stops.pop_front() {
            let _ = reply.send(Ok(()));
        }
    }

    fn input(&mut self, key: Uuid, answer: Result<(), InputError>) {
        let Some(waiting) = self.inputs.get_mut(&key) else { return };
        let (_, reply) = waiting.remove(0);
        if waiting.is_empty() {
            self.inputs.remove(&key);
        }
        let _ = reply.send(answer);
    }

    /// Fails what came from a lower epoch.
    fn superseded(&mut self, epoch: Epoch) {
        let (old, rest): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.stops).into_iter().partition(|(held, _)| *held < epoch);
        self.stops = rest;
        for (held, reply) in old {
            let _ = reply.send(Err(ContainerServiceError::Superseded { held }));
        }
        for waiting in self.inputs.values_mut() {
            for (held, reply) in waiting.extract_if(.., |(held, _)| *held < epoch) {
                let _ = reply.send(Err(InputError::Superseded { held }));
            }
        }
        self.inputs.retain(|_, waiting| !waiting.is_empty());
    }

    /// Fails everything: there will be no answer.
    fn fail(&mut self) {
        for (_, reply) in self.stops.drain(..) {
            let _ = reply.send(Err(broken("stop").into()));
        }
        for (_, reply) in self.inputs.drain().flat_map(|(_, waiting)| waiting) {
            let _ = reply.send(Err(broken("send").into()));
        }
    }
}

/// The shim went away or does not answer; asking again is safe.
pub(crate) fn broken(op: &'static str) -> BackendError {
    BackendError::transient("local", op, "the shim does not answer")
}
