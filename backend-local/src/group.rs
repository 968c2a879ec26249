//! Helper commands of the host, such as git: each in a process group of its own, under a deadline.
//!
//! The only user of `command-group`. It is for short helpers whose output fits in memory; executions run under a shim
//! instead, whose exit code this crate would lose inside a subreaper. Everything here blocks: call it on the blocking
//! pool. Standard input is null or a file, the environment is exactly what is given, and nothing is waited for by polling.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use command_group::{CommandGroup as _, GroupChild};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Most bytes that are kept of standard error: its end.
const STDERR_KEPT: usize = 4 * 1024;
/// How long pipes that a left-over child holds open are read after the command itself has ended.
const DRAIN: Duration = Duration::from_millis(500);

/// What is kept of standard output.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Capture {
    /// All of it; more than this many bytes is an error.
    UpTo(usize),
    /// Whether there is any: the command is killed at its first bytes.
    Any,
}

/// A helper command.
#[derive(Debug)]
pub(crate) struct Helper<'a> {
    /// The program, an absolute path: a search would make the spawn fork.
    pub(crate) program: &'a Path,
    /// Its arguments.
    pub(crate) args: &'a [OsString],
    /// Its whole environment.
    pub(crate) env: &'a [(OsString, OsString)],
    /// Its standard input; without one it is the lock that it works under, else null.
    pub(crate) stdin: Option<File>,
    /// What is kept of its output.
    pub(crate) stdout: Capture,
    /// After this its group is killed.
    pub(crate) deadline: Duration,
}

/// How a helper ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// What the kernel says.
    pub(crate) status: ExitStatus,
    /// Standard output, as far as it was asked for.
    pub(crate) stdout: Vec<u8>,
    /// The last 4 KiB of standard error.
    pub(crate) stderr: Vec<u8>,
}

/// Why a helper did not end by itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HelperError {
    #[error("could not be started")]
    Spawn(#[source] io::Error),
    #[error("did not end within {0:?} and was killed{said}", said = said(.1))]
    Deadline(Duration, String),
    #[error("was killed because nobody waits for it any more")]
    Cancelled,
    #[error("wrote more than {0} bytes and was killed")]
    TooMuch(usize),
    #[error("could not be watched")]
    Watch(#[source] io::Error),
}

/// What it had written to standard error by then.
fn said(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!("; it had said: {stderr}") }
}

/// Held by whoever wants the helpers to end well; dropping it kills the one that runs and all that would follow.
#[derive(Debug)]
pub(crate) struct Interest {
    _open_end: OwnedFd,
}

/// Tells a helper whether anybody is still interested, and under which lock it works.
#[derive(Debug)]
pub(crate) struct Cancel {
    interest: Option<OwnedFd>,
    lock: Mutex<Option<OwnedFd>>,
}

impl Cancel {
    /// For what must be done even if nobody waits: bounded by the deadline only.
    pub(crate) const fn never() -> Self {
        Self { interest: None, lock: Mutex::new(None) }
    }

    /// Makes a pair that is connected by a pipe: the kernel tells the end of interest, whoever dies.
    pub(crate) fn new() -> io::Result<(Interest, Self)> {
        let (reader, writer) = io::pipe()?;
        let cancel = Self { interest: Some(reader.into()), lock: Mutex::new(None) };
        Ok((Interest { _open_end: writer.into() }, cancel))
    }

    /// Puts what follows under a lock: helpers inherit its descriptor, so that it lasts as long as they work, also when
    /// we are killed meanwhile.
    pub(crate) fn under(self, lock: OwnedFd) -> Self {
        self.change_lock(lock);
        self
    }

    /// Puts what follows under another lock, and lets go of the one before.
    pub(crate) fn change_lock(&self, lock: OwnedFd) {
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = Some(lock);
    }

    /// Gives the lock back, whoever has a copy of its descriptor: a process that is being made has one for a moment. Every
    /// helper must have ended.
    pub(crate) fn unlock(&self) {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(lock) = lock {
            // What cannot be given back explicitly goes with the last copy.
            let _unlocked = rustix::fs::flock(&lock, rustix::fs::FlockOperation::Unlock);
        }
    }

    /// Another descriptor of the lock, if there is one to spare.
    fn lock(&self) -> io::Result<Option<OwnedFd>> {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        lock.as_ref().map(OwnedFd::try_clone).transpose()
    }

    /// As [`never`](Self::never), under the same lock.
    pub(crate) fn regardless(&self) -> Self {
        // Without a descriptor to spare, what must be done is done without it.
        Self { interest: None, lock: Mutex::new(self.lock().ok().flatten()) }
    }

    /// Does work in this process that looks at a flag: it is set when nobody is interested any more, or at the deadline.
    ///
    /// # Errors
    ///
    /// [`HelperError::Cancelled`] and [`HelperError::Deadline`] if the flag was set, whatever the work answered.
    pub(crate) fn interruptible<T>(
        &self,
        deadline: Duration,
        work: impl FnOnce(&AtomicBool) -> T,
    ) -> Result<T, HelperError> {
        let (done, working) = io::pipe().map_err(HelperError::Watch)?;
        let stop = AtomicBool::new(false);
        let (answer, watched) = std::thread::scope(|scope| {
            let watch = scope.spawn(|| self.watch(&done, deadline, &stop));
            let answer = work(&stop);
            drop(working);
            (answer, watch.join())
        });
        match watched {
            Ok(Ok(None)) => Ok(answer),
            Ok(Ok(Some(error))) => Err(error),
            Ok(Err(error)) => Err(HelperError::Watch(error)),
            Err(_) => Err(HelperError::Watch(io::Error::other("the watch over it failed"))),
        }
    }

    /// Waits for the end of the work, of the interest or of the time, whichever is first.
    fn watch(
        &self,
        done: &io::PipeReader,
        deadline: Duration,
        stop: &AtomicBool,
    ) -> io::Result<Option<HelperError>> {
        let until = Instant::now() + deadline;
        let waited = loop {
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                break Ok(Some(HelperError::Deadline(deadline, String::new())));
            };
            let mut ends = vec![PollFd::new(done, PollFlags::IN)];
            ends.extend(self.interest.as_ref().map(|end| PollFd::new(end, PollFlags::IN)));
            let left = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
            match poll(&mut ends, Some(&left)) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => break Err(error.into()),
            }
            let closed =
                |index: usize| ends.get(index).is_some_and(|end| !end.revents().is_empty());
            if closed(0) {
                return Ok(None);
            }
            if closed(1) {
                break Ok(Some(HelperError::Cancelled));
            }
        };
        stop.store(true, Ordering::Relaxed);
        waited
    }

    /// Waits for so long, or until nobody is interested any more; says whether that is so.
    pub(crate) fn pause(&self, time: Duration) -> bool {
        let Some(interest) = &self.interest else {
            std::thread::sleep(time);
            return false;
        };
        let time = Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: time.subsec_nanos().into(),
        };
        let mut ends = [PollFd::new(interest, PollFlags::IN)];
        // The other end is never written to: it can only be closed.
        matches!(poll(&mut ends, Some(&time)), Ok(1..))
    }

    /// Returns what a helper has as its standard input: the lock, whose file is empty, or null.
    fn stdin(&self) -> io::Result<Stdio> {
        Ok(self.lock()?.map_or_else(Stdio::null, Stdio::from))
    }
}

/// Runs a helper to its end.
///
/// Whatever is left of its group when the command itself has ended is killed.
///
/// # Errors
///
/// See [`HelperError`]; the group is dead then.
pub(crate) fn run(helper: Helper<'_>, cancel: &Cancel) -> Result<Ended, HelperError> {
    let started = Instant::now();
    let stdin = match helper.stdin {
        Some(file) => Stdio::from(file),
        None => cancel.stdin().map_err(HelperError::Spawn)?,
    };
    let mut child = Command::new(helper.program)
        .args(helper.args)
        .env_clear()
        .envs(helper.env.iter().map(|(name, value)| (name, value)))
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .group_spawn()
        .map_err(HelperError::Spawn)?;
    let read = Reading::new(child.inner(), helper.stdout, started + helper.deadline)
        .and_then(|mut reading| reading.until_the_end(cancel).map(|end| (reading, end)));
    // The leader is not reaped yet, so its number is still that of the group.
    let killed = child.kill();
    let status = reap(&mut child).map_err(HelperError::Watch)?;
    let (reading, end) = read.map_err(HelperError::Watch)?;
    match end {
        End::Ended | End::Enough => {}
        End::Deadline => {
            let said = String::from_utf8_lossy(&reading.err).trim().to_owned();
            return Err(HelperError::Deadline(helper.deadline, said));
        }
        End::Cancelled => return Err(HelperError::Cancelled),
        End::TooMuch(max) => return Err(HelperError::TooMuch(max)),
    }
    // A group that is gone is what we want; anything else would have kept the reaping waiting.
    drop(killed);
    Ok(Ended { status, stdout: reading.out, stderr: reading.err })
}

/// Reaps the leader alone: waiting for the group would take exit codes away from others.
fn reap(child: &mut GroupChild) -> io::Result<ExitStatus> {
    child.inner().wait()
}

/// Why reading stopped.
enum End {
    Ended,
    Enough,
    Deadline,
    Cancelled,
    TooMuch(usize),
}

/// The output of a running helper.
struct Reading {
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    /// Readable when the command itself has ended; `None` where the kernel has no such thing, or once it has ended.
    exit: Option<OwnedFd>,
    capture: Capture,
    until: Instant,
    out: Vec<u8>,
    err: Vec<u8>,
}

impl Reading {
    fn new(child: &mut Child, capture: Capture, until: Instant) -> io::Result<Self> {
        Ok(Self {
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            exit: exit_of(child)?,
            capture,
            until,
            out: Vec::new(),
            err: Vec::new(),
        })
    }

    fn until_the_end(&mut self, cancel: &Cancel) -> io::Result<End> {
        let mut until = self.until;
        loop {
            if self.stdout.is_none() && self.stderr.is_none() && self.exit.is_none() {
                return Ok(End::Ended);
            }
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                return Ok(if until < self.until { End::Ended } else { End::Deadline });
            };
            let ready = self.wait(cancel, left)?;
            if ready.cancelled {
                return Ok(End::Cancelled);
            }
            if ready.stdout
                && let Some(end) = self.read_stdout()?
            {
                return Ok(end);
            }
            if ready.stderr {
                self.read_stderr()?;
            }
            if ready.exit {
                // A child that it left behind may hold the pipes for ever.
                self.exit = None;
                until = self.until.min(Instant::now() + DRAIN);
            }
        }
    }

    fn wait(&self, cancel: &Cancel, left: Duration) -> io::Result<Ready> {
        let fds = [
            self.stdout.as_ref().map(AsFd::as_fd),
            self.stderr.as_ref().map(AsFd::as_fd),
            self.exit.as_ref().map(AsFd::as_fd),
            cancel.interest.as_ref().map(AsFd::as_fd),
        ];
        let mut polled: Vec<_> =
            fds.iter().flatten().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        let timeout = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut polled, Some(&timeout)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Ready::default()),
            Err(error) => return Err(error.into()),
        }
        let mut flags = polled.iter().map(|fd| !fd.revents().is_empty());
        let mut of = |index: usize| fds[index].is_some() && flags.next() == Some(true);
        Ok(Ready { stdout: of(0), stderr: of(1), exit: of(2), cancelled: of(3) })
    }

    fn read_stdout(&mut self) -> io::Result<Option<End>> {
        let Some(pipe) = &mut self.stdout else { return Ok(None) };
        let mut chunk = [0; 64 * 1024];
        let read = pipe.read(&mut chunk)?;
        if read == 0 {
            self.stdout = None;
            return Ok(None);
        }
        self.out.extend_from_slice(&chunk[..read]);
        Ok(match self.capture {
            Capture::Any => Some(End::Enough),
            Capture::UpTo(max) if self.out.len() > max => Some(End::TooMuch(max)),
            Capture::UpTo(_) => None,
        })
    }

    fn read_stderr(&mut self) -> io::Result<()> {
        let Some(pipe) = &mut self.stderr else { return Ok(()) };
        let mut chunk = [0; 4 * 1024];
        let read = pipe.read(&mut chunk)?;
        if read == 0 {
            self.stderr = None;
        }
        self.err.extend_from_slice(&chunk[..read]);
        let excess = self.err.len().saturating_sub(STDERR_KEPT);
        self.err.drain(..excess);
        Ok(())
    }
}

/// What can be read without waiting.
#[derive(Default)]
struct Ready {
    stdout: bool,
    stderr: bool,
    exit: bool,
    cancelled: bool,
}

#[cfg(target_os = "linux")]
fn exit_of(child: &Child) -> io::Result<Option<OwnedFd>> {
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
    Ok(Some(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?))
}

#[cfg(not(target_os = "linux"))]
#[expect(clippy::unnecessary_wraps, reason = "the same signature as where it can fail")]
fn exit_of(_child: &Child) -> io::Result<Option<OwnedFd>> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, stdout: Capture, deadline: Duration) -> Result<Ended, HelperError> {
        let args = ["-c".into(), script.into()];
        let helper = Helper {
            program: Path::new("/bin/sh"),
            args: &args,
            env: &[("GIVEN".into(), "1".into()), ("PATH".into(), "/usr/bin:/bin".into())],
            stdin: None,
            stdout,
            deadline,
        };
        run(helper, &Cancel::never())
    }

    const LONG: Duration = Duration::from_secs(60);
    const ALL: Capture = Capture::UpTo(1 << 20);

    #[test]
    fn output_status_and_environment_are_exact() {
        let ended = sh("echo $GIVEN $HOME; echo no >&2; cat; exit 7", ALL, LONG).unwrap();
        assert_eq!(ended.status.code(), Some(7));
        assert_eq!(ended.stdout, b"1\n");
        assert_eq!(ended.stderr, b"no\n");
    }

    #[test]
    fn a_helper_that_hangs_is_killed_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let late = dir.path().join("late");
        let script = format!("(sleep 600; touch {late:?}) & sleep 600");
        let begun = Instant::now();
        let error = sh(&script, ALL, Duration::from_millis(100)).unwrap_err();
        assert!(matches!(error, HelperError::Deadline(..)), "{error}");
        assert!(begun.elapsed() < LONG);
    }

    #[test]
    fn a_child_that_holds_the_pipes_does_not_hold_us() {
        let begun = Instant::now();
        let ended = sh("echo done; setsid sleep 5 &", ALL, LONG).unwrap();
        assert_eq!(ended.stdout, b"done\n");
        assert!(begun.elapsed() < Duration::from_secs(4));
    }

    #[test]
    fn too_much_output_is_refused_and_the_first_bytes_can_be_enough() {
        let error = sh("cat /dev/zero", Capture::UpTo(100_000), LONG).unwrap_err();
        assert!(matches!(error, HelperError::TooMuch(100_000)), "{error}");
        assert!(!sh("cat /dev/zero", Capture::Any, LONG).unwrap().stdout.is_empty());
        assert!(sh("true", Capture::Any, LONG).unwrap().stdout.is_empty());
    }

    #[test]
    fn only_the_end_of_standard_error_is_kept() {
        let script = "head -c 100000 /dev/zero >&2; echo end >&2";
        let ended = sh(script, ALL, LONG).unwrap();
        assert_eq!(ended.stderr.len(), STDERR_KEPT);
        assert!(ended.stderr.ends_with(b"end\n"));
    }

    #[test]
    fn losing_interest_kills() {
        let (interest, cancel) = Cancel::new().unwrap();
        drop(interest);
        let args = ["-c".into(), "sleep 600".into()];
        let program = Path::new("/bin/sh");
        let env = [("PATH".into(), "/usr/bin:/bin".into())];
        let helper =
            Helper { program, args: &args, env: &env, stdin: None, stdout: ALL, deadline: LONG };
        let error = run(helper, &cancel).unwrap_err();
        assert!(matches!(error, HelperError::Cancelled), "{error}");
    }

    #[test]
    fn a_helper_that_outlives_us_keeps_the_lock_that_it_works_under() {
        use rustix::fs::{FlockOperation, flock};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        std::fs::write(&path, "").unwrap();
        let lock = File::open(&path).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        let cancel = Cancel::never().under(lock.into());
        // It says that it runs, and ends when this test's end of the pipe is closed.
        let (hold, held) = io::pipe().unwrap();
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "echo up; read -r line <&2; exit 0"])
            .stdin(cancel.stdin().unwrap())
            .stdout(Stdio::piped())
            .stderr(hold)
            .spawn()
            .unwrap();
        let mut up = [0; 3];
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut up).unwrap();
        drop(cancel);
        let other = File::open(&path).unwrap();
        let busy = flock(&other, FlockOperation::NonBlockingLockExclusive);
        assert_eq!(busy, Err(rustix::io::Errno::WOULDBLOCK));
        drop(held);
        child.wait().unwrap();
        flock(&other, FlockOperation::NonBlockingLockExclusive).unwrap();
    }
}
