//! What needs unsafe code: reading the exit of a process that is not our child, asking for a group by its leader,
//! waiting for a descriptor, and a thread's I/O priority. The first two are probed by trying; kernels without them say so.
#![expect(
    unsafe_code,
    reason = "rustix has neither the ioctl nor the flag nor the priority, tokio no safe way to register a descriptor"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::ioctl::{Updater, opcode};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use windlass_core::outcome::Exit;

/// The first published form of the kernel's `struct pidfd_info`: 64 bytes.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    /// Real, effective, saved and file system user and group.
    ids: [u32; 8],
    exit_code: i32,
}

/// Asks for the exit, and says that it is there.
const PIDFD_INFO_EXIT: u64 = 1 << 3;
/// `_IOWR(0xFF, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: rustix::ioctl::Opcode = opcode::read_write::<PidfdInfo>(0xff, 11);
/// Means the group that the process leads, or led.
const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;

/// How long somebody else may take to reap a process that has ended.
const REAPING: rustix::event::Timespec =
    rustix::event::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Returns how a process ended, whoever reaps it; `None` if it lives or the kernel is older than 6.15. Blocking for a
/// moment.
///
/// The pidfd must have been opened before it was reaped.
pub(crate) fn exit_of(pidfd: impl AsFd) -> Option<Exit> {
    let mut wait = [PollFd::new(&pidfd, PollFlags::IN)];
    let ended = rustix::event::poll(&mut wait, Some(&rustix::event::Timespec::default()));
    if ended != Ok(1) {
        return None;
    }
    // What it ended with is told once it is reaped, which its hanging up says.
    let mut wait = [PollFd::new(&pidfd, PollFlags::empty())];
    match rustix::event::poll(&mut wait, Some(&REAPING)) {
        Ok(_) | Err(_) => reaped_exit_of(&pidfd),
    }
}

fn reaped_exit_of(pidfd: impl AsFd) -> Option<Exit> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the opcode carries the size of `PidfdInfo`, of which the kernel writes no more than that many bytes; every
    // bit pattern is a valid value of its fields.
    let asked = unsafe {
        rustix::ioctl::ioctl(pidfd, Updater::<PIDFD_GET_INFO, PidfdInfo>::new(&mut info))
    };
    if asked.is_err() || info.mask & PIDFD_INFO_EXIT == 0 {
        return None;
    }
    Some(Exit::from_wait_status(info.exit_code.cast_unsigned()))
}

/// Says whether the group that a process leads, or led, has a member. While it has, its number is given to no other one.
///
/// `false` before Linux 6.9.
pub(crate) fn group_lives(leader: impl AsFd) -> bool {
    const NO_SIGNAL: libc::c_int = 0;
    // SAFETY: no memory is passed; the descriptor is open for the length of the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            leader.as_fd().as_raw_fd(),
            NO_SIGNAL,
            std::ptr::null::<libc::siginfo_t>(),
            PIDFD_SIGNAL_PROCESS_GROUP,
        )
    };
    result == 0
}

/// Registers a descriptor, to wait until it can be read.
pub(crate) fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` returns the same open descriptor for its whole life, closes it only when it is dropped, and
    // `AsyncFd` gives no exclusive access to it here.
    let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    Ok(registered?)
}

/// Lets the calling thread do its work when nobody else has any: files and processor come last. A system that knows no
/// such thing treats it as any other.
#[cfg(target_os = "linux")]
pub(crate) fn work_idly() {
    /// A thread, and of those the calling one.
    const WHO_THREAD: libc::c_int = 1;
    /// The class in the upper bits.
    const CLASS_IDLE: libc::c_int = 3 << 13;
    // SAFETY: The call takes three numbers and no pointer.
    let _ = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_THREAD, 0, CLASS_IDLE) };
    // The kernel's threads each have a nice value of their own.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 19);
}

/// As above.
#[cfg(not(target_os = "linux"))]
pub(crate) fn work_idly() {}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::identity::Pidfd;

    #[test]
    fn an_exit_is_seen_by_whoever_held_a_pidfd() {
        for (script, exit) in [("exit 42", Exit::Code(42)), ("kill -9 $$", Exit::Signal(9))] {
            let mut child = Command::new("sh").args(["-c", script]).spawn().unwrap();
            let pidfd = Pidfd::open(child.id()).unwrap();
            child.wait().unwrap();
            let seen = exit_of(&pidfd);
            // Kernels before 6.15 cannot tell, and must say so.
            assert!(seen.is_none_or(|seen| seen == exit), "{script}: {seen:?}");
        }
    }

    #[test]
    fn what_lives_has_no_exit_and_a_group() {
        let mut child = Command::new("cat")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let pidfd = Pidfd::open(child.id()).unwrap();
        assert_eq!(exit_of(&pidfd), None);
        // Pidfds have names in pidfs since the release that knows groups.
        assert_eq!(group_lives(&pidfd), pidfd.pidfs().is_some());
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!group_lives(&pidfd));
    }
}
