//! Processes that a test started: waiting for them with a deadline, and ending what is left of them.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How long anything may take before a test gives up on it. Far more than it needs, so that a busy machine fails nothing.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often the processes are gone through before what still appears is given up on.
const PASSES: usize = 50;

/// Waits for a child to end.
///
/// # Errors
///
/// [`io::ErrorKind::TimedOut`] after [`PATIENCE`]; the child was killed then.
pub fn wait(child: &mut Child) -> io::Result<ExitStatus> {
    if let Some(status) = child.try_wait()? {
        return Ok(status);
    }
    let pidfd = open(child.id())?;
    if ended(&pidfd, PATIENCE)? {
        return child.wait();
    }
    child.kill()?;
    child.wait()?;
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("it still ran after {PATIENCE:?}")))
}

/// Opens a handle on a process.
///
/// # Errors
///
/// When there is no such process.
pub fn open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Sends a signal to the process behind a handle; one that is gone is no error.
///
/// # Errors
///
/// When it may not be signalled.
pub fn signal(pidfd: &OwnedFd, signal: Signal) -> io::Result<()> {
    match pidfd_send_signal(pidfd, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Waits until the process behind a handle has ended; `false` if it has not within `patience`.
///
/// # Errors
///
/// When the system refuses to wait.
pub fn ended(pidfd: &OwnedFd, patience: Duration) -> io::Result<bool> {
    let timeout = Timespec {
        tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(patience.subsec_nanos()),
    };
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    Ok(poll(&mut fds, Some(&timeout))? > 0)
}

/// Kills every process that works in `dir`, holds a file of it open, or was started with it in its environment, until none
/// is left. Returns how many that were.
///
/// # Errors
///
/// When one is left that cannot be ended.
pub fn sweep(dir: &Path) -> io::Result<usize> {
    let dir = dir.canonicalize()?;
    let mut killed = 0;
    for _ in 0..PASSES {
        let found = belonging(&dir)?;
        if found.is_empty() {
            return Ok(killed);
        }
        for pid in found {
            // The handle first, then a second look: the number may have passed to another process meanwhile.
            let Ok(pidfd) = open(pid) else { continue };
            if belongs(pid, &dir) {
                signal(&pidfd, Signal::KILL)?;
                ended(&pidfd, PATIENCE)?;
                killed += 1;
            }
        }
    }
    Err(io::Error::other(format!("processes of {} keep appearing", dir.display())))
}

/// Lists the processes that [`sweep`] would kill.
///
/// # Errors
///
/// When the processes cannot be listed.
pub fn belonging(dir: &Path) -> io::Result<Vec<u32>> {
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let pid = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        found.extend(pid.filter(|&pid| pid != own && belongs(pid, dir)));
    }
    Ok(found)
}

fn belongs(pid: u32, dir: &Path) -> bool {
    let proc = Path::new("/proc").join(pid.to_string());
    let inside = |link: &Path| fs::read_link(link).is_ok_and(|target| target.starts_with(dir));
    if inside(&proc.join("cwd")) {
        return true;
    }
    let mut files = fs::read_dir(proc.join("fd")).into_iter().flatten().flatten();
    if files.any(|entry| inside(&entry.path())) {
        return true;
    }
    let needle = dir.as_os_str().as_bytes();
    fs::read(proc.join("environ"))
        .is_ok_and(|environ| environ.windows(needle.len()).any(|part| part == needle))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_sweep_ends_what_belongs_to_the_directory_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let mut inside = Command::new("sleep").arg("1000").current_dir(dir.path()).spawn().unwrap();
        let mut marked =
            Command::new("sleep").arg("1000").env("ROOT", dir.path().join("x")).spawn().unwrap();
        let mut stranger = Command::new("sleep").arg("1000").spawn().unwrap();
        let killed = sweep(dir.path());
        let stranger_lives = stranger.try_wait().unwrap().is_none();
        for child in [&mut inside, &mut marked, &mut stranger] {
            drop(child.kill());
            child.wait().unwrap();
        }
        assert_eq!(killed.unwrap(), 2);
        assert!(stranger_lives);
    }
}
