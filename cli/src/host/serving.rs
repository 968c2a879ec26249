//! Serves until there is a reason to leave, and drains then. A socket that was taken away is made again.

use std::time::Duration;

use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use windlass::EngineError;
use windlass::api::server::{Keeps, ServeOptions, serve};
use windlass::api::{HostKind, socket};
use windlass::core::process_store::ChangeNumber;
use windlass::handle::Handle;

use super::daemon::engine_error;
use super::idle;
use super::log::HostLog;
use super::presence::{Lost, Presence};
use crate::config::{DataDir, show};
use crate::error::{Class, CliError};

/// How long answers that are being sent may take when the host leaves.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// What a host serves with.
pub(super) struct Serving<'a> {
    /// Where.
    pub(super) data: &'a DataDir,
    /// What.
    pub(super) handle: Handle,
    /// How long it stays without anything to do; `None` is for ever.
    pub(super) stay: Option<Duration>,
    /// Where it says what it does.
    pub(super) log: &'a HostLog,
}

/// Why a host leaves.
struct Leaving {
    why: String,
    /// The server cannot go on: that is a failure.
    failed: bool,
    /// Another directory may be where its own was.
    displaced: bool,
}

impl Leaving {
    fn because(why: impl Into<String>) -> Self {
        Self { why: why.into(), failed: false, displaced: false }
    }
}

impl Serving<'_> {
    /// Serves until it is to leave.
    ///
    /// # Errors
    ///
    /// The server or the engine failed.
    pub(super) async fn until_end(
        &self,
        listener: UnixListener,
        signals: LeaveSignals,
        presence: Presence,
    ) -> Result<(), CliError> {
        let (closing, closed) = watch::channel(false);
        let (clients, seen_clients) = watch::channel(0);
        let (stop, stopped) = mpsc::channel(1);
        let options = || ServeOptions {
            kind: HostKind::Daemon,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            stop: Some(stop.clone()),
            clients: clients.clone(),
            closing: closed.clone(),
            keeps: Some(Keeps {
                store: self.data.store_kind().as_str().to_owned(),
                logs: self.data.logs_kind().as_str().to_owned(),
            }),
        };
        let mut servers = JoinSet::new();
        servers.spawn(serve(self.handle.clone(), listener, options()));
        let wakes = Wakes { signals, presence, stopped, seen_clients };
        let leaving = self.wait(&mut servers, options, wakes).await;
        self.log.say(&format!("leaving: {}", leaving.why));
        // Who comes from now on starts the next host, which waits for the lock.
        if !leaving.displaced
            && let Err(error) = std::fs::remove_file(self.data.socket())
        {
            self.log.say(&format!("failed to remove {}: {error}", show(&self.data.socket())));
        }
        let drained = self.handle.shut_down().await;
        // The receivers are in the servers; without them there is nobody to tell.
        let _told = closing.send(true);
        let ended = async { while servers.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_ANSWERS, ended).await.is_err() {
            self.log.say("some answers were not taken in time");
        }
        self.log.say("left; executions run on");
        match drained {
            _ if leaving.failed => {
                Err(CliError::new(Class::Failed, "backend", leaving.why, "see the host's log"))
            }
            Ok(()) | Err(EngineError::Closing) => Ok(()),
            Err(error) => Err(engine_error(&error)),
        }
    }

    /// Waits for a reason to leave.
    async fn wait(
        &self,
        servers: &mut JoinSet<std::io::Result<()>>,
        options: impl Fn() -> ServeOptions,
        mut wakes: Wakes,
    ) -> Leaving {
        let mut idle = std::pin::pin!(idle_for(&self.handle, &mut wakes.seen_clients, self.stay));
        loop {
            tokio::select! {
                biased;
                Some(ended) = servers.join_next() => {
                    let why = format!("the server ended: {ended:?}");
                    return Leaving { failed: true, ..Leaving::because(why) };
                }
                name = wakes.signals.next() => return Leaving::because(format!("got {name}")),
                _ = wakes.stopped.recv() => return Leaving::because("a client asked for it"),
                () = engine_end(&self.handle) => {
                    let why = "the engine ended: another host took over, or the store failed";
                    return Leaving::because(why);
                }
                ended = &mut idle => return match ended {
                    Ok(()) => Leaving::because("there was nothing to do"),
                    Err(error) => Leaving::because(format!("the engine ended: {error}")),
                },
                lost = wakes.presence.lost() => match lost {
                    Lost::Directory => {
                        let why = format!("{} was taken away or moved", show(&self.data.path));
                        return Leaving { displaced: true, ..Leaving::because(why) };
                    }
                    Lost::Socket => match socket::bind(&self.data.socket()) {
                        Ok(listener) => {
                            servers.spawn(serve(self.handle.clone(), listener, options()));
                            self.log.say("the socket was gone; it is made again");
                        }
                        Err(error) => {
                            let why = format!("the socket is gone and cannot be made: {error}");
                            return Leaving { failed: true, displaced: true, ..Leaving::because(why) };
                        }
                    },
                },
            }
        }
    }
}

/// What may make a host leave.
struct Wakes {
    signals: LeaveSignals,
    presence: Presence,
    stopped: mpsc::Receiver<()>,
    seen_clients: watch::Receiver<usize>,
}

/// Waits until the engine's loop has ended.
async fn engine_end(handle: &Handle) {
    // No batch has a number above the last one, so only the end of the loop answers.
    let _ended = handle.changed(ChangeNumber(u64::MAX)).await;
}

async fn idle_for(
    handle: &Handle,
    clients: &mut watch::Receiver<usize>,
    stay: Option<Duration>,
) -> Result<(), EngineError> {
    match stay {
        Some(limit) => idle::idle(handle, clients, limit).await,
        None => std::future::pending().await,
    }
}

/// The signals that make a host leave.
#[derive(Debug)]
pub(super) struct LeaveSignals {
    term: Signal,
    int: Signal,
    hup: Signal,
    /// A terminal that is closed is no reason to leave for a host in the background.
    ignores_hup: bool,
}

impl LeaveSignals {
    pub(super) fn new(background: bool) -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
            ignores_hup: background,
        })
    }

    async fn next(&mut self) -> &'static str {
        loop {
            tokio::select! {
                biased;
                _ = self.term.recv() => return "SIGTERM",
                _ = self.int.recv() => return "SIGINT",
                _ = self.hup.recv() => if !self.ignores_hup { return "SIGHUP" },
            }
        }
    }
}
