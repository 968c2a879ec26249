//! Starts the host in the background: its own executable with `host run`, which says through a pipe when it is ready.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use windlass::view::ErrorBody;

use super::log;
use crate::config::{DataDir, show};
use crate::error::{Class, CliError};

/// How long a host may take until it is ready.
const READY: Duration = Duration::from_secs(10);

/// What the host writes when it is ready. Anything else is an error in JSON.
pub const READY_WORD: &str = "ready\n";

/// Starts a host and waits until it is ready. The caller holds the start lock.
///
/// # Errors
///
/// What the host said, or the end of its log.
pub async fn in_background(data: &DataDir) -> Result<(), CliError> {
    let failed = |error: &std::io::Error| CliError::io("start the host", error);
    let log = log::open(&data.log())
        .map_err(|error| CliError::unusable(format!("open {}", show(&data.log())), &error))?;
    let mut child = Command::new(program())
        .arg("--data-dir")
        .arg(&data.path)
        .args(["host", "run", "--background"].map(OsString::from))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(|error| failed(&error))?;
    let Some(pipe) = child.stdout.take() else {
        return Err(failed(&std::io::Error::other("no pipe")));
    };
    // It is never waited for: it outlives this process.
    drop(child);
    let mut pipe = Receiver::from_owned_fd(OwnedFd::from(pipe)).map_err(|error| failed(&error))?;
    let mut said = String::new();
    match tokio::time::timeout(READY, pipe.read_to_string(&mut said)).await {
        Err(_) => Err(unready(data, "was not ready within 10 s")),
        Ok(Err(error)) => Err(failed(&error)),
        Ok(Ok(_)) if said == READY_WORD => Ok(()),
        Ok(Ok(_)) => match serde_json::from_str::<ErrorBody>(&said) {
            Ok(body) => Err(CliError::from_start(body.error)),
            Err(_) => Err(unready(data, "ended before it was ready")),
        },
    }
}

fn unready(data: &DataDir, what: &str) -> CliError {
    let path = data.log();
    let tail = log::tail(&path);
    let message = if tail.is_empty() {
        format!("the host {what}")
    } else {
        format!("the host {what}; the end of {}:\n{tail}", show(&path))
    };
    CliError::new(
        Class::NoHost,
        "no_host",
        message,
        "`windlass host run` shows in the foreground what goes wrong; `windlass doctor` checks what it needs",
    )
}

/// Returns this program's executable; where it was replaced meanwhile, the one that runs.
fn program() -> PathBuf {
    match std::env::current_exe() {
        Ok(path) if path.exists() => path,
        Ok(_) | Err(_) => PathBuf::from("/proc/self/exe"),
    }
}
