//! Making the command: a fork that stops at a gate, and the program search.
//!
//! Raw calls, as std's spawn would wait for the exec and so for the gate. Between fork and exec the child only makes
//! system calls on what was prepared before.
#![expect(
    unsafe_code,
    reason = "fork and execve, and what a child does between them, have no safe form"
)]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Error, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use windlass_core::execution::{ExecFailure, ExecStep, OutputMode, Stdin};
use windlass_core::outcome::NotStarted;
use windlass_core::shim::message::Launch;

use crate::sys;

/// Where programs are searched for if the environment has no `PATH`.
const DEFAULT_PATH: &[u8] = b"/usr/local/bin:/usr/bin:/bin";
/// The size that is asked for each output pipe.
const PIPE_BYTES: libc::c_int = 1 << 20;
/// How much above the shim's own the command's out-of-memory score is.
const OOM_RAISE: i32 = 100;

/// A made child.
#[derive(Debug)]
pub(crate) struct Child {
    /// Its number; also its group's.
    pub(crate) pid: u32,
    /// Opens the gate by a byte; closed without one, the child ends.
    pub(crate) gate: Option<PipeWriter>,
    /// Tells which step failed; its silent end says that the program runs.
    pub(crate) errors: PipeReader,
}

/// Our ends of a child's standard streams.
#[derive(Debug)]
pub(crate) struct Streams {
    /// Standard output, or both.
    pub(crate) stdout: PipeReader,
    /// Standard error, if it is apart.
    pub(crate) stderr: Option<PipeReader>,
    /// Standard input, if it is ours.
    pub(crate) stdin: Option<PipeWriter>,
}

/// Everything that the child needs, made before the fork.
struct Plan {
    candidates: Vec<CString>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    directory: OwnedFd,
    /// Whether the program was named by a path, so that only that is tried.
    by_path: bool,
}

/// The descriptors of a child, by number.
struct ChildFds {
    lock: RawFd,
    gate_writer: RawFd,
    gate: RawFd,
    errors: RawFd,
    stdin: RawFd,
    stdout: RawFd,
    stderr: RawFd,
    directory: RawFd,
}

/// Forks the command. It waits at the gate, in its own group, with its streams in place.
///
/// `lock` is the place's lock: the child lets go of it first. `inherited`, if there is one, it keeps.
///
/// # Errors
///
/// What could not be done, if anything before the gate could not.
pub(crate) fn spawn(
    launch: &Launch,
    lock: BorrowedFd<'_>,
    inherited: Option<BorrowedFd<'_>>,
) -> Result<(Child, Streams), ExecFailure> {
    let plan = plan(launch)?;
    fork(launch, &plan, lock, inherited).map_err(|(step, error)| failure(step, &error))
}

/// Describes a failure by its step and error.
pub(crate) fn failure(step: ExecStep, error: &Error) -> ExecFailure {
    let errno = error.raw_os_error().unwrap_or(0);
    failed(step, errno)
}

fn failed(step: ExecStep, errno: i32) -> ExecFailure {
    let reason = match (step, errno) {
        (ExecStep::Directory, _) => NotStarted::DirectoryGone,
        (ExecStep::Exec, libc::ENOENT | libc::ENOTDIR) => NotStarted::ProgramNotFound,
        (ExecStep::Exec, libc::E2BIG | libc::ENOMEM | libc::EAGAIN | libc::EMFILE | libc::EIO) => {
            NotStarted::SpawnFailed
        }
        (ExecStep::Exec | ExecStep::Interpreter, _) => NotStarted::NotExecutable,
        (ExecStep::Stopped, _) => NotStarted::Stopped,
        (
            ExecStep::Prepare
            | ExecStep::Fork
            | ExecStep::Record
            | ExecStep::Group
            | ExecStep::Streams,
            _,
        ) => NotStarted::SpawnFailed,
    };
    ExecFailure { step, errno: u32::try_from(errno).unwrap_or(0), reason, at: sys::now().wall }
}

/// Reads what the child said; `None` if it has said nothing yet and is still there.
pub(crate) fn read_error(errors: &mut PipeReader) -> Option<Result<(), ExecFailure>> {
    let mut message = [0; 5];
    match errors.read(&mut message) {
        Ok(0) => Some(Ok(())),
        Ok(5) => {
            let [step, a, b, c, d] = message;
            Some(Err(failed(step_of(step), i32::from_ne_bytes([a, b, c, d]))))
        }
        // A pipe's small writes are whole; anything else is as good as the bare fact.
        Ok(_) => Some(Err(failed(ExecStep::Exec, libc::EIO))),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => None,
        Err(error) => Some(Err(failure(ExecStep::Exec, &error))),
    }
}

const STREAMS: u8 = 1;
const DIRECTORY: u8 = 2;
const EXEC: u8 = 3;
const INTERPRETER: u8 = 4;

fn step_of(code: u8) -> ExecStep {
    match code {
        STREAMS => ExecStep::Streams,
        DIRECTORY => ExecStep::Directory,
        INTERPRETER => ExecStep::Interpreter,
        _ => ExecStep::Exec,
    }
}

fn plan(launch: &Launch) -> Result<Plan, ExecFailure> {
    let c_string = |step: ExecStep| {
        move |bytes: Vec<u8>| CString::new(bytes).map_err(|_| failed(step, libc::EINVAL))
    };
    let Some(program) = launch.argv.first() else {
        return Err(failed(ExecStep::Exec, libc::ENOENT));
    };
    let by_path = program.contains(&b'/');
    let candidates = candidates(program, &launch.env);
    let variable = |(name, value): &(Vec<u8>, Vec<u8>)| [name.as_slice(), value].join(&b'=');
    let prepare = ExecStep::Prepare;
    let all = |strings: Vec<Vec<u8>>| {
        strings.into_iter().map(c_string(prepare)).collect::<Result<Vec<_>, _>>()
    };
    let cwd = c_string(ExecStep::Directory)(launch.cwd.clone())?;
    Ok(Plan {
        candidates: all(candidates)?,
        arguments: all(launch.argv.clone())?,
        environment: all(launch.env.iter().map(variable).collect())?,
        directory: sys::open_directory(&cwd)
            .map_err(|error| failure(ExecStep::Directory, &error))?,
        by_path,
    })
}

/// Returns the files to try, in order: as `execvpe` would, but by the given environment and without a shell's help.
fn candidates(program: &[u8], env: &[(Vec<u8>, Vec<u8>)]) -> Vec<Vec<u8>> {
    if program.is_empty() {
        return Vec::new();
    }
    if program.contains(&b'/') {
        return vec![program.to_vec()];
    }
    let path = env.iter().find(|(name, _)| name == b"PATH").map_or(DEFAULT_PATH, |(_, path)| path);
    path.split(|byte| *byte == b':')
        .map(|directory| {
            // An empty element is the current directory.
            let directory = if directory.is_empty() { b"." } else { directory };
            [directory, program].join(&b'/')
        })
        .collect()
}

/// Returns the strings as execve wants them; they must outlive the result.
fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

fn fork(
    launch: &Launch,
    plan: &Plan,
    lock: BorrowedFd<'_>,
    inherited: Option<BorrowedFd<'_>>,
) -> Result<(Child, Streams), (ExecStep, Error)> {
    let prepare = |error| (ExecStep::Prepare, error);
    let (gate_reader, gate_writer) = io::pipe().map_err(prepare)?;
    let (errors, error_writer) = io::pipe().map_err(prepare)?;
    let (stdout, stdout_writer) = output_pipe().map_err(prepare)?;
    let (stderr, stderr_writer) = match launch.output {
        OutputMode::Separate => output_pipe().map(|(reader, writer)| (Some(reader), Some(writer))),
        OutputMode::Merged => Ok((None, None)),
    }
    .map_err(prepare)?;
    let (stdin_reader, stdin) = match launch.stdin {
        Stdin::Null => File::open("/dev/null").map(|null| (OwnedFd::from(null), None)),
        Stdin::Messages => io::pipe().and_then(|(reader, writer)| {
            sys::set_nonblocking(writer.as_fd())?;
            Ok((OwnedFd::from(reader), Some(writer)))
        }),
    }
    .map_err(prepare)?;
    sys::set_nonblocking(errors.as_fd()).map_err(prepare)?;
    // The copy is closed when this returns; the child's own copy of it lives on.
    let _inherited = inherited.map(sys::duplicate_inherited).transpose().map_err(prepare)?;
    let fds = ChildFds {
        lock: lock.as_raw_fd(),
        gate_writer: gate_writer.as_raw_fd(),
        gate: gate_reader.as_raw_fd(),
        errors: error_writer.as_raw_fd(),
        stdin: stdin_reader.as_raw_fd(),
        stdout: stdout_writer.as_raw_fd(),
        stderr: stderr_writer.as_ref().unwrap_or(&stdout_writer).as_raw_fd(),
        directory: plan.directory.as_raw_fd(),
    };
    let (arguments, environment) = (pointers(&plan.arguments), pointers(&plan.environment));
    // SAFETY: the shim has one thread, so the child may do what any program may; it does far less.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: we are the child; the descriptors and the strings are live copies of the parent's.
        unsafe { child(&fds, plan, &arguments, &environment) }
    }
    let pid = u32::try_from(pid).map_err(|_| (ExecStep::Fork, Error::last_os_error()))?;
    // From here, as the first signal may come before the child has run at all. Not a session: the shim has one already, and
    // the kernel takes long to make one.
    if let Err(error) = sys::lead_group(pid) {
        drop(gate_writer);
        sys::reap_blocking(pid);
        return Err((ExecStep::Group, error));
    }
    raise_oom_score(pid);
    let child = Child { pid, gate: Some(gate_writer), errors };
    Ok((child, Streams { stdout, stderr, stdin }))
}

/// Makes a pipe whose reading end does not wait, of a good size where that is allowed.
fn output_pipe() -> io::Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    sys::set_nonblocking(reader.as_fd())?;
    sys::grow_pipe(reader.as_fd(), PIPE_BYTES);
    Ok((reader, writer))
}

/// Makes the kernel take the command before its shim when memory runs out. Where it cannot be done, nothing is lost
/// but that.
fn raise_oom_score(pid: u32) {
    let own = std::fs::read_to_string("/proc/self/oom_score_adj");
    let Some(own) = own.ok().and_then(|text| text.trim().parse::<i32>().ok()) else { return };
    let raised = own.saturating_add(OOM_RAISE).min(1000);
    if let Err(error) = std::fs::write(format!("/proc/{pid}/oom_score_adj"), raised.to_string()) {
        say!("the command's out-of-memory score stays: {error}");
    }
}

/// What the child does: it ends in the program, or in `_exit`.
///
/// # Safety
///
/// Only in a forked child, with descriptors that are open in it and null-terminated arrays of live strings.
unsafe fn child(
    fds: &ChildFds,
    plan: &Plan,
    arguments: &[*const libc::c_char],
    environment: &[*const libc::c_char],
) -> ! {
    // SAFETY: plain system calls on numbers, and on memory that the caller vouches for. Nothing is allocated.
    unsafe {
        // A flock lives as long as any copy of its descriptor.
        libc::close(fds.lock);
        // Else we would hold our own gate open.
        libc::close(fds.gate_writer);
        // Raw, as libc refuses the numbers that it keeps for itself, which a host may have left ignored. Zeros are the
        // default action, no flags and no mask; what cannot be set is at its default.
        let default = [0_u64; 8];
        let nothing = std::ptr::null_mut::<u64>();
        for signal in 1..=64 {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), nothing, 8_usize);
        }
        let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
        for (from, to) in [(fds.stdin, 0), (fds.stdout, 1), (fds.stderr, 2)] {
            // All of ours are above 2, so that none is overwritten before it is copied.
            if libc::dup2(from, to) < 0 {
                give_up(fds.errors, STREAMS, errno());
            }
        }
        let mut word = 0_u8;
        let read = loop {
            let read = libc::read(fds.gate, (&raw mut word).cast(), 1);
            if read >= 0 || errno() != libc::EINTR {
                break read;
            }
        };
        if read != 1 {
            libc::_exit(0);
        }
        if libc::fchdir(fds.directory) < 0 {
            give_up(fds.errors, DIRECTORY, errno());
        }
        let (step, error) = execute(plan, arguments, environment);
        give_up(fds.errors, step, error)
    }
}

/// Tries every candidate; returns only if none could be executed.
///
/// # Safety
///
/// As [`child`].
unsafe fn execute(
    plan: &Plan,
    arguments: &[*const libc::c_char],
    environment: &[*const libc::c_char],
) -> (u8, i32) {
    let mut verdict = (EXEC, libc::ENOENT);
    for candidate in &plan.candidates {
        let error = {
            // SAFETY: the arrays end with null and their strings live as long as the plan.
            unsafe {
                libc::execve(candidate.as_ptr(), arguments.as_ptr(), environment.as_ptr());
            }
            errno()
        };
        match error {
            // The file may be there while the interpreter that it names is not.
            libc::ENOENT if exists(candidate) => {
                if verdict == (EXEC, libc::ENOENT) {
                    verdict = (INTERPRETER, error);
                }
            }
            libc::ENOENT => {}
            libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT if !plan.by_path => {}
            libc::EACCES => verdict = (EXEC, error),
            _ => return (EXEC, error),
        }
    }
    verdict
}

fn exists(path: &CStr) -> bool {
    // SAFETY: the path is a live C string.
    unsafe { libc::access(path.as_ptr(), libc::F_OK) == 0 }
}

fn errno() -> i32 {
    Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Tells the shim and ends.
///
/// # Safety
///
/// Only in a forked child.
unsafe fn give_up(errors: RawFd, step: u8, error: i32) -> ! {
    let [a, b, c, d] = error.to_ne_bytes();
    let message = [step, a, b, c, d];
    // SAFETY: the message is live, and `_exit` runs nothing of the parent's.
    unsafe {
        libc::write(errors, message.as_ptr().cast(), message.len());
        libc::_exit(127)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(program: &str, path: Option<&str>, expected: &[&str]) {
        let env = path.map(|path| (b"PATH".to_vec(), path.as_bytes().to_vec()));
        let found = candidates(program.as_bytes(), &env.into_iter().collect::<Vec<_>>());
        let found = found.iter().map(|path| String::from_utf8_lossy(path)).collect::<Vec<_>>();
        assert_eq!(found, expected);
    }

    #[test]
    fn programs_are_searched_in_the_given_path() {
        check("ls", Some("/a:/b"), &["/a/ls", "/b/ls"]);
        check("ls", Some("/a::/b:"), &["/a/ls", "./ls", "/b/ls", "./ls"]);
        check("ls", Some(""), &["./ls"]);
        check("ls", None, &["/usr/local/bin/ls", "/usr/bin/ls", "/bin/ls"]);
        check("./ls", Some("/a"), &["./ls"]);
        check("", Some("/a"), &[]);
    }

    #[test]
    fn errors_have_the_reason_that_people_expect() {
        let reason = |step, errno| failed(step, errno).reason;
        assert_eq!(reason(ExecStep::Exec, libc::ENOENT), NotStarted::ProgramNotFound);
        assert_eq!(reason(ExecStep::Exec, libc::EACCES), NotStarted::NotExecutable);
        assert_eq!(reason(ExecStep::Exec, libc::ENOEXEC), NotStarted::NotExecutable);
        assert_eq!(reason(ExecStep::Interpreter, libc::ENOENT), NotStarted::NotExecutable);
        assert_eq!(reason(ExecStep::Exec, libc::E2BIG), NotStarted::SpawnFailed);
        assert_eq!(reason(ExecStep::Directory, libc::ENOENT), NotStarted::DirectoryGone);
        assert_eq!(reason(ExecStep::Fork, libc::EAGAIN), NotStarted::SpawnFailed);
    }
}
