//! Is the host: holds the lock, drives the engine, serves the API, leaves when idle or asked to.

use std::io::Write as _;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use windlass::api::lock::{HostLock, signature};
use windlass::api::server::{ServeOptions, serve};
use windlass::api::{HostKind, socket};
use windlass::core::process_store::ChangeNumber;
use windlass::handle::Handle;
use windlass::view::ErrorBody;
use windlass::{Builder, EngineError};

use super::connect::is_absent;
use super::lock::take_within;
use super::log::HostLog;
use super::settings::Settings;
use super::{backends, idle, inside, moved, secrets, start};
use crate::config::{DataDir, show};
use crate::context::Context;
use crate::error::{Class, CliError};

/// How long a host that is leaving may keep the one that follows waiting.
const LEAVING: Duration = Duration::from_secs(8);

/// How long whoever starts a host may keep another one waiting.
const STARTING: Duration = Duration::from_secs(20);

/// How long answers that are being sent may take when the host leaves.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// The most file descriptors that the host asks for: a few for each execution. Commands inherit the limit, so it is not
/// as high as it could be.
const DESCRIPTORS: u64 = 16_384;

/// How to be the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostOptions {
    /// In a session of its own, with standard output as the pipe that says when it is ready.
    pub background: bool,
    /// Never leaves when idle.
    pub stay: bool,
    /// The data directory was moved on purpose.
    pub moved: bool,
}

/// Is the host until it is asked to leave.
///
/// # Errors
///
/// Why it could not be. In the background it is told through the pipe, too.
pub fn run(context: &Context, options: HostOptions) -> Result<(), CliError> {
    if !options.background {
        return run_with(context, options, &mut |_| {});
    }
    let mut is_ready = false;
    let result = run_with(context, options, &mut |_| is_ready = true);
    if let Err(error) = &result
        && !is_ready
    {
        let body = ErrorBody { error: error.view.clone() };
        // The view has string keys only and cannot fail to be encoded; a starter that is gone wants no answer.
        let text = serde_json::to_string(&body).unwrap_or_default();
        let _ = std::io::stdout().write_all(text.as_bytes());
    }
    result
}

fn run_with(
    context: &Context,
    options: HostOptions,
    ready: &mut (dyn FnMut(()) + Send),
) -> Result<(), CliError> {
    inside::refuse(&context.environment)?;
    let data = context.data_dir()?;
    let log = if options.background {
        rustix::process::setsid()
            .map_err(|error| CliError::io("start a session", &error.into()))?;
        HostLog::background(&data.log())
            .map_err(|error| CliError::unusable(format!("open {}", show(&data.log())), &error))?
    } else {
        HostLog::foreground()
    };
    // It must not keep a file system busy.
    std::env::set_current_dir("/").map_err(|error| CliError::io("change to /", &error))?;
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| CliError::io("start the runtime", &error))?;
    let ended = runtime.block_on(live(context, &data, options, &log, ready));
    if let Err(error) = &ended
        && options.background
    {
        log.say(&format!("failed: {error}"));
    }
    // Threads that wait for something in the system end with the process.
    runtime.shutdown_background();
    ended
}

fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(DESCRIPTORS, |maximum| maximum.min(DESCRIPTORS));
    if current.is_some_and(|current| current < wanted) {
        // Without it there is room for fewer executions; that is reported when it happens.
        let _kept = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    }
}

/// Takes the locks, starts the engine, serves, and drains in the end.
async fn live(
    context: &Context,
    data: &DataDir,
    options: HostOptions,
    log: &HostLog,
    ready: &mut (dyn FnMut(()) + Send),
) -> Result<(), CliError> {
    // Whoever starts a host in the background holds it for the host.
    let start_lock = if options.background {
        None
    } else {
        let taken = take_within(&data.start_lock(), STARTING).await;
        Some(
            taken
                .map_err(|error| CliError::unusable("take the lock for starting a host", &error))?,
        )
    };
    let _host_lock = take_host_lock(data).await?;
    let was_moved = moved::check(data, options.moved)?;
    let signals = Signals::new(options.background)
        .map_err(|error| CliError::io("listen for signals", &error))?;
    let settings = Settings::read(data)?;
    let backends = backends::open(context, data, &settings, was_moved, options.moved).await?;
    let ports = match context.options.wrap {
        Some(wrap) => wrap(backends.backends),
        None => backends.backends,
    };
    let handle = Builder::new(ports, settings.engine(), data.node())
        .pid(std::process::id())
        .input(backends.input)
        .secrets(std::sync::Arc::new(secrets::HostSecrets::new(context.environment.clone())))
        .start_on_tokio()
        .await
        .map_err(|error| not_started(data, &error))?;
    let listener = socket::bind(&data.socket()).map_err(|error| {
        CliError::unusable(format!("listen at {}", show(&data.socket())), &error)
    })?;
    if options.background {
        tell_ready().map_err(|error| CliError::io("say that the host is ready", &error))?;
    }
    ready(());
    drop(start_lock);
    log.say(&format!("version {} is ready", env!("CARGO_PKG_VERSION")));
    let stay = if options.stay { None } else { context.options.idle.or(settings.idle_exit()) };
    serve_until_end(data, handle, listener, signals, stay, log).await
}

/// Takes the lock that makes this process the host.
async fn take_host_lock(data: &DataDir) -> Result<HostLock, CliError> {
    let path = data.lock();
    let failed =
        |error: &std::io::Error| CliError::unusable(format!("lock {}", show(&path)), error);
    let mut lock = HostLock::try_take(&path).map_err(|error| failed(&error))?;
    let mut answers = true;
    let holder = if lock.is_none() { signature(&path) } else { String::new() };
    if lock.is_none() {
        let connected = socket::connect(&data.socket()).await;
        answers = !matches!(&connected, Err(error) if is_absent(error));
        // One that answers stays, and so does the unsigned one of another program; a daemon of ours may be leaving.
        if !answers && !holder.is_empty() {
            lock = take_within(&path, LEAVING).await.map_err(|error| failed(&error))?;
        }
    }
    let Some(lock) = lock else { return Err(exists(data, &holder, answers)) };
    let sign = format!("windlass {}, process {}\n", env!("CARGO_PKG_VERSION"), std::process::id());
    lock.sign(&sign).map_err(|error| failed(&error))?;
    Ok(lock)
}

/// Makes the error for a data directory whose lock another process has.
fn exists(data: &DataDir, holder: &str, answers: bool) -> CliError {
    let path = show(&data.path);
    let (message, hint) = match (holder, answers) {
        ("", _) => (
            format!("{path} is in use by another program, which serves no API"),
            "end that program first, or name another directory with --data-dir".to_owned(),
        ),
        (_, true) => (
            format!("{path} has a host already: {holder}"),
            "use it as it is, or end it first: windlass host stop".to_owned(),
        ),
        (_, false) => (
            format!("{path} has a host already, which does not answer: {holder}"),
            format!("see {}; it may be killed: executions run on", show(&data.log())),
        ),
    };
    CliError::new(Class::Refused, "host_exists", message, hint)
}

/// Makes the error for an engine that did not start: all that it needs for that is its store.
fn not_started(data: &DataDir, error: &EngineError) -> CliError {
    match error {
        EngineError::Backend(source) if !source.transient => {
            backends::unusable_store(&data.store(), &windlass::api::error::chain(source.as_ref()))
        }
        _ => engine_error(error),
    }
}

/// Tells whoever started this host, and lets go of the pipe.
fn tell_ready() -> std::io::Result<()> {
    let mut stdout = std::io::stdout();
    // A starter that is gone wants no answer; the host stays for whoever comes.
    let _ = stdout.write_all(start::READY_WORD.as_bytes()).and_then(|()| stdout.flush());
    rustix::stdio::dup2_stdout(std::fs::OpenOptions::new().write(true).open("/dev/null")?)?;
    Ok(())
}

async fn serve_until_end(
    data: &DataDir,
    handle: Handle,
    listener: UnixListener,
    mut signals: Signals,
    stay: Option<Duration>,
    log: &HostLog,
) -> Result<(), CliError> {
    let (closing, closed) = watch::channel(false);
    let (clients, mut seen_clients) = watch::channel(0);
    let (stop, mut stopped) = mpsc::channel(1);
    let serve_options = ServeOptions {
        kind: HostKind::Daemon,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        stop: Some(stop),
        clients,
        closing: closed,
    };
    let mut server = tokio::spawn(serve(handle.clone(), listener, serve_options));
    let mut server_ended = None;
    let why = tokio::select! {
        biased;
        ended = &mut server => {
            let why = format!("the server ended: {ended:?}");
            server_ended = Some(why.clone());
            why
        }
        name = signals.next() => format!("got {name}"),
        _ = stopped.recv() => "a client asked for it".to_owned(),
        () = engine_end(&handle) => "the engine ended: another host took over, or the store failed".to_owned(),
        ended = idle_for(&handle, &mut seen_clients, stay) => match ended {
            Ok(()) => "there was nothing to do".to_owned(),
            Err(error) => format!("the engine ended: {error}"),
        },
    };
    log.say(&format!("leaving: {why}"));
    // Who comes from now on starts the next host, which waits for the lock.
    if let Err(error) = std::fs::remove_file(data.socket()) {
        log.say(&format!("failed to remove {}: {error}", show(&data.socket())));
    }
    let drained = handle.shut_down().await;
    // The receivers are in the server; without them there is nobody to tell.
    let _told = closing.send(true);
    if server_ended.is_none() && tokio::time::timeout(LAST_ANSWERS, server).await.is_err() {
        log.say("some answers were not taken in time");
    }
    log.say("left; executions run on");
    match (server_ended, drained) {
        (Some(why), _) => Err(CliError::new(Class::Failed, "backend", why, "see the host's log")),
        (None, Ok(()) | Err(EngineError::Closing)) => Ok(()),
        (None, Err(error)) => Err(engine_error(&error)),
    }
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

/// Turns an error of the engine into one of the command line.
pub fn engine_error(error: &EngineError) -> CliError {
    windlass::api::error::ApiError::from(error.clone()).view.into()
}

/// The signals that make a host leave.
#[derive(Debug)]
struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
    /// A terminal that is closed is no reason to leave for a host in the background.
    ignores_hup: bool,
}

impl Signals {
    fn new(background: bool) -> std::io::Result<Self> {
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
