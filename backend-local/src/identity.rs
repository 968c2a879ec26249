//! Who is who: this machine, this boot, this pid namespace, and single processes in a way that survives the reuse of
//! numbers.
//!
//! A process is opened first, verified then, and signalled through what was opened. What cannot be verified is never
//! signalled.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use uuid::Uuid;
use windlass_core::shim::adoption::Match;

/// The file system type of pidfs: there the inode of a pidfd names one process for the whole boot.
const PIDFS_MAGIC: u64 = 0x5049_4446;

/// Where this host is. A missing value is not known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Here {
    /// This machine's id.
    pub(crate) machine: Option<Uuid>,
    /// This boot's id.
    pub(crate) boot: Option<Uuid>,
    /// This pid namespace's inode.
    pub(crate) pid_namespace: Option<u64>,
}

impl Here {
    /// Reads it from the kernel.
    pub(crate) fn read() -> Self {
        let machine = ["/etc/machine-id", "/var/lib/dbus/machine-id"]
            .into_iter()
            .find_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .ok()
            .and_then(|text| text.trim().parse().ok());
        let pid_namespace = fs::metadata("/proc/self/ns/pid").ok().map(|found| found.ino());
        Self { machine, boot, pid_namespace }
    }
}

/// Compares what was recorded with what is there.
pub(crate) fn compare<T: PartialEq>(recorded: Option<T>, found: Option<T>) -> Match {
    match (recorded, found) {
        (Some(recorded), Some(found)) if recorded == found => Match::Same,
        (Some(_), Some(_)) => Match::Differs,
        (None, _) | (_, None) => Match::Unknown,
    }
}

/// One process as it was recorded, to be told from a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessIdentity {
    /// Its number.
    pub(crate) pid: u32,
    /// When it was started, in kernel ticks since the boot.
    pub(crate) start_ticks: Option<u64>,
    /// Its name in pidfs, where the kernel has it.
    pub(crate) pidfs: Option<u64>,
}

/// What became of a recorded process.
#[derive(Debug)]
pub(crate) enum Found {
    /// It lives; this is a verified handle to it.
    Alive(Pidfd),
    /// It is gone, a zombie, or its number belongs to another process.
    Gone,
    /// It cannot be told.
    Unknown,
}

impl ProcessIdentity {
    /// Opens the process and verifies that it is the recorded one.
    pub(crate) fn find(&self) -> Found {
        let fd = match Pidfd::open(self.pid) {
            Ok(fd) => fd,
            Err(Errno::SRCH) => return Found::Gone,
            Err(_) => return Found::Unknown,
        };
        if self.start_ticks.is_none() && self.pidfs.is_none() {
            return Found::Unknown;
        }
        if let (Some(recorded), Some(found)) = (self.pidfs, fd.pidfs())
            && recorded != found
        {
            return Found::Gone;
        }
        match Stat::read(self.pid) {
            StatRead::Found(stat) if stat.is_dead() => Found::Gone,
            StatRead::Found(stat) => match self.start_ticks {
                Some(ticks) if ticks != stat.start_ticks => Found::Gone,
                Some(_) => Found::Alive(fd),
                // Only the name in pidfs is left to go by, and it was compared if this kernel has it.
                None if fd.pidfs().is_some() => Found::Alive(fd),
                None => Found::Unknown,
            },
            StatRead::Gone => Found::Gone,
            StatRead::Unreadable => Found::Unknown,
        }
    }
}

/// A handle to one process, whatever becomes of its number.
#[derive(Debug)]
pub(crate) struct Pidfd(OwnedFd);

impl Pidfd {
    /// Opens whatever process has this number now.
    pub(crate) fn open(pid: u32) -> Result<Self, Errno> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
        rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK).map(Self)
    }

    /// Signals it.
    ///
    /// # Errors
    ///
    /// `ESRCH` if it is gone, `EPERM` if it is out of reach.
    pub(crate) fn signal(&self, signal: Signal) -> Result<(), Errno> {
        rustix::process::pidfd_send_signal(&self.0, signal)
    }

    /// Returns its name in pidfs; `None` before Linux 6.9.
    pub(crate) fn pidfs(&self) -> Option<u64> {
        let kind = rustix::fs::fstatfs(&self.0).ok()?.f_type;
        if u64::try_from(kind).ok()? != PIDFS_MAGIC {
            return None;
        }
        rustix::fs::fstat(&self.0).ok().map(|stat| stat.st_ino)
    }

    /// Returns another handle to the same process.
    pub(crate) fn try_clone(&self) -> std::io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Gives the handle away, for waiting.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.0
    }
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What `/proc/PID/stat` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// The number.
    pub(crate) pid: u32,
    /// The name, at most 15 bytes.
    pub(crate) name: String,
    /// The state's letter.
    state: u8,
    /// The parent.
    pub(crate) parent: u32,
    /// The process group.
    pub(crate) group: u32,
    /// The session.
    pub(crate) session: u32,
    /// When it was started.
    pub(crate) start_ticks: u64,
}

/// Whether a process could be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StatRead {
    /// It could.
    Found(Stat),
    /// There is none.
    Gone,
    /// It may be there.
    Unreadable,
}

impl Stat {
    /// Looks at whatever process has this number now.
    pub(crate) fn read(pid: u32) -> StatRead {
        let bytes = match fs::read(format!("/proc/{pid}/stat")) {
            Ok(bytes) => bytes,
            Err(error) => {
                let gone = [Errno::NOENT, Errno::SRCH].map(|errno| Some(errno.raw_os_error()));
                // Where /proc itself is not there, nothing is known of anybody.
                let known = gone.contains(&error.raw_os_error())
                    && fs::exists("/proc/self/stat").unwrap_or(false);
                return if known { StatRead::Gone } else { StatRead::Unreadable };
            }
        };
        Self::parse(pid, &bytes).map_or(StatRead::Unreadable, StatRead::Found)
    }

    /// Reads the line; the name may contain anything, so the last `)` ends it.
    fn parse(pid: u32, bytes: &[u8]) -> Option<Self> {
        let open = bytes.iter().position(|&byte| byte == b'(')?;
        let close = bytes.iter().rposition(|&byte| byte == b')')?;
        let name = String::from_utf8_lossy(bytes.get(open + 1..close)?).into_owned();
        let rest = std::str::from_utf8(bytes.get(close + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        let parent = fields.next()?.parse().ok()?;
        let group = fields.next()?.parse().ok()?;
        let session = fields.next()?.parse().ok()?;
        // `starttime` is field 22 of the line; the four above were 3 to 6.
        let start_ticks = fields.nth(15)?.parse().ok()?;
        Some(Self { pid, name, state, parent, group, session, start_ticks })
    }

    /// Says whether it has ended, reaped or not.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }

    /// Returns what tells it from a later process with its number.
    pub(crate) fn identity(&self) -> ProcessIdentity {
        ProcessIdentity { pid: self.pid, start_ticks: Some(self.start_ticks), pidfs: None }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn myself() -> Stat {
        match Stat::read(std::process::id()) {
            StatRead::Found(stat) => stat,
            other => panic!("cannot look at myself: {other:?}"),
        }
    }

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_shift_the_fields() {
        let line = b"7 (a) b (c) S 1 2 3 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 0 0";
        let stat = Stat::parse(7, line).unwrap();
        assert_eq!(
            (stat.name.as_str(), stat.parent, stat.group, stat.session),
            ("a) b (c", 1, 2, 3)
        );
        assert_eq!(stat.start_ticks, 12345);
        assert_eq!(Stat::parse(7, b"7 (x) S 1"), None);
    }

    #[test]
    fn a_live_process_is_found_by_its_start_time() {
        assert!(matches!(myself().identity().find(), Found::Alive(_)));
    }

    #[test]
    fn a_recycled_number_is_somebody_else() {
        let me = myself().identity();
        let other = ProcessIdentity { start_ticks: me.start_ticks.map(|ticks| ticks + 1), ..me };
        assert!(matches!(other.find(), Found::Gone));
        let pidfs = Pidfd::open(me.pid).unwrap().pidfs();
        if let Some(name) = pidfs {
            let other = ProcessIdentity { pidfs: Some(name + 1), ..me };
            assert!(matches!(other.find(), Found::Gone));
        }
    }

    #[test]
    fn a_missing_field_cannot_be_verified() {
        let nameless = ProcessIdentity { start_ticks: None, pidfs: None, ..myself().identity() };
        assert!(matches!(nameless.find(), Found::Unknown));
    }

    #[test]
    fn a_zombie_is_not_alive() {
        let mut child = Command::new("true").stdin(Stdio::null()).spawn().unwrap();
        let fd = Pidfd::open(child.id()).unwrap();
        let StatRead::Found(stat) = Stat::read(child.id()) else { panic!("unreaped and gone") };
        // Readable when it has ended; it is not reaped before `wait`.
        let mut wait = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut wait, None).unwrap();
        assert!(matches!(stat.identity().find(), Found::Gone));
        child.wait().unwrap();
        assert!(matches!(stat.identity().find(), Found::Gone));
    }
}
