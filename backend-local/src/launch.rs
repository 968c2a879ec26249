//! Starts shims: by posix_spawn only, so that the size of the host does not matter, and reaps them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{WaitId, WaitIdOptions};
use tokio::net::UnixStream;
use windlass_core::container_service::LaunchSpec;
use windlass_core::execution::ExecFailure;
use windlass_core::outcome::NotStarted;
use windlass_core::shim::message::Launch;

use crate::connection::Connection;
use crate::evidence::Start;
use crate::identity::Pidfd;
use crate::kernel::register;
use crate::node::Node;
use crate::open_files;
use crate::place::STDERR;
use crate::sweep::MARK;

/// The most of what a shim said that a message repeats.
const SAID_BYTES: usize = 1024;

/// Starts a shim in a place; it waits to be told what to run. The repository's lock goes with it.
///
/// # Cancel safety
///
/// When dropped, a shim that was started leaves, as nobody tells it what to run.
pub(crate) async fn spawn(
    node: &Arc<Node>,
    start: &Start,
    repository: Option<OwnedFd>,
) -> io::Result<Connection> {
    let (node, start) = (Arc::clone(node), start.clone());
    let spawned = tokio::task::spawn_blocking(move || spawn_now(&node, &start, repository));
    let stream = spawned.await.map_err(io::Error::other)??;
    stream.set_nonblocking(true)?;
    Ok(Connection::new(UnixStream::from_std(stream)?))
}

fn spawn_now(
    node: &Node,
    start: &Start,
    repository: Option<OwnedFd>,
) -> io::Result<std::os::unix::net::UnixStream> {
    let Some(place) = node.runs.place(start.execution, start.place.nonce)? else {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the place is gone"));
    };
    let said = place.open(STDERR, OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND)?;
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let mut command = Command::new(node.shim.path());
    command
        .arg0("windlass-shim")
        .args(node.shim.arguments(&start.execution.to_string()))
        // What the command gets is in the launch message; the shim itself needs none of it.
        .env_clear()
        .stdin(theirs)
        .stdout(repository.map_or_else(Stdio::null, Stdio::from))
        .stderr(File::from(said))
        .current_dir(PathBuf::from(format!("/proc/self/fd/{}", place.fd().as_raw_fd())));
    // No hook before exec: with one, std would fork.
    let child = command.spawn()?;
    // Nobody else waits for it, so its number is its own until it is reaped.
    let pidfd = Pidfd::open(child.id())?;
    if let Some(limit) = &node.open_files {
        open_files::limit(child.id(), limit);
    }
    tokio::spawn(reap(pidfd));
    Ok(ours.into())
}

/// Waits for a shim to end and takes its status, which nobody needs.
async fn reap(shim: Pidfd) {
    if let Ok(shim) = register(shim.into_fd())
        && shim.readable().await.is_ok()
    {
        // Somebody may have reaped it for us.
        let _ = rustix::process::waitid(WaitId::PidFd(shim.as_fd()), WaitIdOptions::EXITED);
    }
}

/// Returns what a shim is told.
pub(crate) fn message(start: &Start, spec: &LaunchSpec) -> Launch {
    let mark = start.execution.to_string();
    let mut env: Vec<(Vec<u8>, Vec<u8>)> = spec
        .env
        .iter()
        .filter(|(name, _)| name.0 != MARK.as_bytes())
        .map(|(name, value)| (name.0.clone(), value.0.clone()))
        .collect();
    // By this its processes are found if the shim dies.
    env.push((MARK.as_bytes().to_vec(), mark.into_bytes()));
    env.sort();
    let ms =
        |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Launch {
        execution: start.execution,
        nonce: start.place.nonce,
        epoch: start.epoch,
        argv: spec.argv.iter().map(|argument| argument.0.clone()).collect(),
        env,
        cwd: spec.cwd.as_bytes().to_vec(),
        stdin: spec.stdin,
        output: spec.output,
        leftovers: spec.leftovers,
        total_ms: spec.total.map(ms),
        idle_ms: spec.idle.map(ms),
        grace_ms: ms(spec.grace),
        log_cap_bytes: spec.log_cap_bytes,
    }
}

/// Says for people why a command could not be started.
pub(crate) fn explain(failure: &ExecFailure, spec: Option<&LaunchSpec>) -> String {
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let program = spec
        .and_then(|spec| spec.argv.first())
        .map_or_else(|| "the program".to_owned(), |program| lossy(&program.0));
    let what = match failure.reason {
        NotStarted::ProgramNotFound => format!("{program} was not found"),
        NotStarted::NotExecutable => format!("{program} cannot be executed"),
        NotStarted::DirectoryGone => {
            let directory = spec.map_or_else(String::new, |spec| lossy(spec.cwd.as_bytes()));
            format!("the directory {directory} cannot be entered")
        }
        NotStarted::Stopped => "it was stopped before it ran".to_owned(),
        NotStarted::WorkspaceRefused
        | NotStarted::LimitRefused
        | NotStarted::SecretGone
        | NotStarted::SpawnFailed => format!("{program} could not be started"),
    };
    match i32::try_from(failure.errno) {
        Ok(errno @ 1..) => format!("{what}: {}", io::Error::from_raw_os_error(errno)),
        Ok(_) | Err(_) => what,
    }
}

/// Returns the last that a shim said of itself, for people.
pub(crate) async fn last_words(node: &Arc<Node>, start: &Start) -> String {
    let (node, start) = (Arc::clone(node), start.clone());
    let read = move || {
        let place = node.runs.place(start.execution, start.place.nonce).ok()??;
        let file = File::from(place.open(STDERR, OFlags::RDONLY).ok()?);
        let len = file.metadata().ok()?.len();
        let from = len.saturating_sub(SAID_BYTES as u64);
        let mut bytes = vec![0; usize::try_from(len - from).ok()?];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, from).ok()?;
        Some(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    let said = tokio::task::spawn_blocking(read).await.ok().flatten();
    said.filter(|said| !said.is_empty())
        .unwrap_or_else(|| "the shim left without a word".to_owned())
}
