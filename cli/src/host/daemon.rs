//! Is the host: holds the lock, drives the engine, serves the API, leaves when idle or asked to.

use std::io::Write as _;
use std::time::Duration;

use windlass::api::lock::{HostLock, signature};
use windlass::api::socket;
use windlass::view::ErrorBody;
use windlass::{Builder, EngineError};

use super::connect::is_absent;
use super::lock::{free_within, take_within};
use super::log::HostLog;
use super::presence::Presence;
use super::serving::{LeaveSignals, Serving};
use super::settings::Settings;
use super::{backends, inside, moved, secrets, start, stores};
use crate::config::{DataDir, show};
use crate::context::Context;
use crate::error::{Class, CliError};

/// How long a host that is leaving may keep the one that follows waiting.
const LEAVING: Duration = Duration::from_secs(8);

/// How long somebody who has not signed the lock may have it before it is another program's.
const MOMENT: Duration = Duration::from_secs(1);

/// How long whoever starts a host may keep another one waiting.
const STARTING: Duration = Duration::from_secs(20);

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
    let checked = moved::check(data, options.moved)?;
    let signals = LeaveSignals::new(options.background)
        .map_err(|error| CliError::io("listen for signals", &error))?;
    let settings = Settings::read(data)?;
    // One that was meant and did not come to its end still is.
    let meant = options.moved || checked.moves.is_some();
    let opened = backends::open(context, data, &settings, checked.is_other, meant).await?;
    let databases = opened.databases;
    let ports = match context.options.wrap {
        Some(wrap) => wrap(opened.backends),
        None => opened.backends,
    };
    let mut builder = Builder::new(ports, settings.engine(), data.node())
        .pid(std::process::id())
        .input(opened.input)
        .diff_watch(opened.diff_watch)
        .listeners(opened.listeners)
        .attachments(opened.attachments)
        .history(opened.history)
        .secrets(std::sync::Arc::new(secrets::HostSecrets::new(context.environment.clone())));
    if let Some(logs) = databases.logs.as_ref().map(stores::KeptLogs::port) {
        builder = builder.keep_logs_in(match context.options.wrap_logs {
            Some(wrap) => wrap(logs),
            None => logs,
        });
    }
    if let Some(moves) = &checked.moves {
        builder = builder.relocate(std::sync::Arc::new(moves.clone()));
    }
    let handle = builder.start_on_tokio().await.map_err(|error| not_started(data, &error))?;
    if let Some(moves) = checked.moves {
        moved::taken_over(data)?;
        log.say(&format!("took over what the records say is in {}", moves.from()));
    }
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
    let presence = Presence::watch(data)
        .map_err(|error| CliError::unusable(format!("watch {}", show(&data.path)), &error))?;
    let ended = Serving { data, handle, stay, log }.until_end(listener, signals, presence).await;
    // The engine has ended: nothing is written any more.
    databases.close().await;
    ended
}

/// Takes the lock that makes this process the host.
async fn take_host_lock(data: &DataDir) -> Result<HostLock, CliError> {
    let path = data.lock();
    let failed =
        |error: &std::io::Error| CliError::unusable(format!("lock {}", show(&path)), error);
    if let Some(lock) = HostLock::try_take(&path).map_err(|error| failed(&error))? {
        return signed(lock).map_err(|error| failed(&error));
    }
    // From before it is asked, so that no answer is missed.
    let mut presence = Presence::watch(data).map_err(|error| failed(&error))?;
    let mut answers = does_answer(data).await;
    if !answers {
        // A daemon of ours may be leaving, or may answer again. Who has not signed either takes it for a moment, or is
        // another program and stays.
        let limit = if signature(&path).is_empty() { MOMENT } else { LEAVING };
        tokio::select! {
            biased;
            taken = take_within(&path, limit) => {
                if let Some(lock) = taken.map_err(|error| failed(&error))? {
                    return signed(lock).map_err(|error| failed(&error));
                }
            }
            () = answer(data, &mut presence) => {}
        }
        answers = does_answer(data).await;
    }
    Err(exists(data, answers))
}

/// Waits until a data directory has a host that answers, or none at all; for as long as one may take to come or go.
/// Says whether that happened.
///
/// # Errors
///
/// The system's.
pub async fn come_or_gone(data: &DataDir) -> Result<bool, CliError> {
    let failed = |error: std::io::Error| CliError::io("look for the host", &error);
    if !HostLock::is_held(&data.lock()).map_err(failed)? {
        return Ok(true);
    }
    let path = data.lock();
    let limit = if signature(&path).is_empty() { MOMENT } else { LEAVING };
    let mut presence = Presence::watch(data).map_err(failed)?;
    tokio::select! {
        biased;
        free = free_within(&path, limit) => free.map_err(failed),
        () = answer(data, &mut presence) => Ok(true),
    }
}

/// Waits until the host answers.
async fn answer(data: &DataDir, presence: &mut Presence) {
    while !does_answer(data).await {
        presence.changed().await;
    }
}

/// Writes into the lock who has it.
fn signed(lock: HostLock) -> std::io::Result<HostLock> {
    let sign = format!("windlass {}, process {}\n", env!("CARGO_PKG_VERSION"), std::process::id());
    lock.sign(&sign).map(|()| lock)
}

/// Says whether the host of a data directory takes connections.
async fn does_answer(data: &DataDir) -> bool {
    !matches!(socket::connect(&data.socket()).await, Err(error) if is_absent(&error))
}

/// Makes the error for a data directory whose lock another process has.
#[must_use]
pub fn exists(data: &DataDir, answers: bool) -> CliError {
    let (path, holder) = (show(&data.path), signature(&data.lock()));
    let (message, hint) = match (holder.as_str(), answers) {
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
            stores::unusable(&data.store(), &windlass::api::error::chain(source.as_ref()))
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

/// Turns an error of the engine into one of the command line.
pub fn engine_error(error: &EngineError) -> CliError {
    windlass::api::error::ApiError::from(error.clone()).view.into()
}
