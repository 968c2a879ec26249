//! The system calls that std does not have, each behind a safe function. Nothing here decides anything.
#![expect(
    unsafe_code,
    reason = "std has no wrappers for these calls, and a crate of them would triple the shim"
)]

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Error};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use windlass_core::execution::ResourceUse;
use windlass_core::shim::frame::FrameTime;
use windlass_core::shim::machine::Now;
use windlass_core::time::Timestamp;

/// The file system type of pidfs.
const PIDFS_MAGIC: u64 = 0x5049_4446;

/// Turns the -1 of a call into its error.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}

/// Takes ownership of a descriptor that a call has just returned.
fn owned(result: libc::c_int) -> io::Result<OwnedFd> {
    let fd = check(result)?;
    // SAFETY: the kernel has just made it for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn clock(id: libc::clockid_t) -> (u64, u64) {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec. Both clocks exist on every kernel that we support.
    unsafe { libc::clock_gettime(id, &raw mut time) };
    (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// Reads both clocks.
pub(crate) fn frame_time() -> FrameTime {
    let (wall_s, wall_ns) = clock(libc::CLOCK_REALTIME);
    let (boot_s, boot_ns) = clock(libc::CLOCK_BOOTTIME);
    FrameTime {
        wall: Timestamp(wall_s * 1_000 + wall_ns / 1_000_000),
        boot_ns: boot_s * 1_000_000_000 + boot_ns,
    }
}

/// Reads both clocks, as the machine wants them.
pub(crate) fn now() -> Now {
    let time = frame_time();
    Now { boot_ms: time.boot_ns / 1_000_000, wall: time.wall }
}

/// Makes reads and writes return instead of waiting.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: F_GETFL and F_SETFL take no pointers.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    // SAFETY: as above.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) })?;
    Ok(())
}

/// Asks for a pipe of this size; one that is not granted is no harm.
pub(crate) fn grow_pipe(fd: BorrowedFd<'_>, bytes: libc::c_int) {
    // SAFETY: F_SETPIPE_SZ takes no pointer.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETPIPE_SZ, bytes) };
}

/// Returns how many bytes a pipe holds.
pub(crate) fn bytes_waiting(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Waits until one of the descriptors is ready.
pub(crate) fn poll(fds: &mut [libc::pollfd]) -> io::Result<()> {
    let count = libc::nfds_t::try_from(fds.len()).unwrap_or(libc::nfds_t::MAX);
    // SAFETY: the pointer and the count are those of a live slice.
    match check(unsafe { libc::poll(fds.as_mut_ptr(), count, -1) }) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        Err(error) => Err(error),
    }
}

/// A timer on the clock that counts sleep.
#[derive(Debug)]
pub(crate) struct Timer {
    fd: File,
    armed_ms: Option<u64>,
}

impl Timer {
    /// Makes one that is not armed.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: no pointers.
        let fd = owned(unsafe { libc::timerfd_create(libc::CLOCK_BOOTTIME, flags) })?;
        Ok(Self { fd: File::from(fd), armed_ms: None })
    }

    /// Makes it ready at `boot_ms` or earlier. An earlier time stays: the wake-up in between costs less than arming it
    /// anew for every read.
    pub(crate) fn arm(&mut self, boot_ms: u64) -> io::Result<()> {
        if self.armed_ms.is_some_and(|armed_ms| armed_ms <= boot_ms) {
            return Ok(());
        }
        // A time of zero would disarm it.
        let boot_ms = boot_ms.max(1);
        let value = libc::timespec {
            tv_sec: libc::time_t::try_from(boot_ms / 1_000).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::try_from(boot_ms % 1_000).unwrap_or(0) * 1_000_000,
        };
        let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let spec = libc::itimerspec { it_interval: zero, it_value: value };
        // SAFETY: the pointer is to a live itimerspec; the old value is not asked for.
        let result = unsafe {
            libc::timerfd_settime(
                self.fd.as_raw_fd(),
                libc::TFD_TIMER_ABSTIME,
                &raw const spec,
                std::ptr::null_mut(),
            )
        };
        check(result)?;
        self.armed_ms = Some(boot_ms);
        Ok(())
    }

    /// Takes note that it fired.
    pub(crate) fn fired(&mut self) {
        let mut count = [0; 8];
        // Not ready is no error: it only says that there is nothing to take.
        if io::Read::read(&mut self.fd, &mut count).is_ok() {
            self.armed_ms = None;
        }
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The signals that the shim hears of: an end of a child, and the request to end itself.
#[derive(Debug)]
pub(crate) struct Signals(File);

impl Signals {
    /// Blocks them and listens to them; ignores what would end the shim by accident.
    pub(crate) fn listen() -> io::Result<Self> {
        let ignored = [
            libc::SIGPIPE,
            libc::SIGXFSZ,
            libc::SIGHUP,
            libc::SIGINT,
            libc::SIGQUIT,
            libc::SIGUSR1,
            libc::SIGUSR2,
            libc::SIGALRM,
            libc::SIGTSTP,
            libc::SIGTTIN,
            libc::SIGTTOU,
        ];
        for signal in ignored {
            // SAFETY: ignoring a signal runs no code of ours.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
        // A host may have left it ignored, and then children would vanish unseen.
        // SAFETY: the default action runs no code of ours.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set that the other calls then use.
        let fd = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
            libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
            check(libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut()))?;
            libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        owned(fd).map(|fd| Self(File::from(fd)))
    }

    /// Takes all that came; returns whether one of them asked the shim to end.
    pub(crate) fn take(&mut self) -> bool {
        const SIZE: usize = size_of::<libc::signalfd_siginfo>();
        let mut terminate = false;
        let mut info = [0; SIZE];
        while let Ok(SIZE) = io::Read::read(&mut self.0, &mut info) {
            // The signal's number is the first field.
            let [a, b, c, d, ..] = info;
            terminate |= i32::from_ne_bytes([a, b, c, d]) == libc::SIGTERM;
        }
        terminate
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Leaves the host's session, adopts every orphan below us, and lets go of what was inherited but for 0, 1 and 2.
pub(crate) fn detach() -> io::Result<()> {
    // SAFETY: no pointers. It fails only for the leader of a group, which a spawned process is not unless it was asked
    // for; then it has what it needs.
    unsafe { libc::setsid() };
    let on: libc::c_ulong = 1;
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, on, 0, 0, 0) })?;
    let name = c"windlass-shim";
    // SAFETY: the name is a live string of less than 16 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
    close_inherited()
}

fn close_inherited() -> io::Result<()> {
    let (first, last): (libc::c_uint, libc::c_uint) = (3, libc::c_uint::MAX);
    // SAFETY: nothing of this process owns a descriptor yet: it is the first thing that it does.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0 {
        return Ok(());
    }
    let open = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<RawFd>().ok())
        .filter(|fd| *fd > 2)
        .collect::<Vec<_>>();
    for fd in open {
        // SAFETY: as above; the directory's own descriptor is closed already, and closing it again is an error that
        // harms nobody.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

/// Takes standard input over and leaves null in its place.
pub(crate) fn take_standard_input() -> io::Result<OwnedFd> {
    let null = File::open("/dev/null")?;
    // SAFETY: F_DUPFD_CLOEXEC takes no pointer.
    let taken = owned(unsafe { libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: nothing owns the descriptor 0 but std's handle, which names it by number and only reads from it.
    check(unsafe { libc::dup2(null.as_raw_fd(), 0) })?;
    Ok(taken)
}

/// Returns the user at the other end of a Unix socket.
pub(crate) fn peer_uid(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = libc::socklen_t::try_from(size_of::<libc::ucred>()).unwrap_or(0);
    // SAFETY: the kernel writes at most `len` bytes into a live ucred.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut len,
        )
    };
    check(result)?;
    Ok(credentials.uid)
}

/// Returns our effective user.
pub(crate) fn own_uid() -> u32 {
    // SAFETY: it cannot fail and takes nothing.
    unsafe { libc::geteuid() }
}

/// Returns a copy of a descriptor that survives an exec, at a number that no program uses by habit.
pub(crate) fn duplicate_inherited(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD takes no pointer.
    owned(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD, 100) })
}

/// Opens a directory to enter it later.
pub(crate) fn open_directory(path: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: the path is a live C string.
    owned(unsafe { libc::open(path.as_ptr(), flags) })
}

/// A child's end that is there to be reaped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeenExit {
    /// The status as wait4 packs it.
    pub(crate) wait_status: u32,
    /// What it and what it waited for used.
    pub(crate) usage: ResourceUse,
}

/// Looks whether a child has exited, and leaves it a zombie.
pub(crate) fn peek_exit(pid: u32) -> io::Result<Option<SeenExit>> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // glibc's waitid hides the fifth argument, the resource use.
    // SAFETY: both pointers are to live values of the types that the kernel writes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_waitid,
            libc::P_PID,
            pid,
            info.as_mut_ptr(),
            options,
            usage.as_mut_ptr(),
        )
    };
    if result < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: zeroed is a valid value of both, and the kernel wrote over it or not at all.
    let (info, usage) = unsafe { (info.assume_init(), usage.assume_init()) };
    // SAFETY: the fields of a child's siginfo, zero if there was none.
    let (child, status) = unsafe { (info.si_pid(), info.si_status()) };
    if child == 0 {
        return Ok(None);
    }
    let status = u32::try_from(status).unwrap_or(0);
    let wait_status = match info.si_code {
        libc::CLD_EXITED => (status & 0xff) << 8,
        libc::CLD_DUMPED => status | 0x80,
        _ => status,
    };
    Ok(Some(SeenExit { wait_status, usage: resource_use(&usage) }))
}

fn resource_use(usage: &libc::rusage) -> ResourceUse {
    let us = |time: libc::timeval| {
        u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000
            + u64::try_from(time.tv_usec).unwrap_or(0)
    };
    ResourceUse {
        user_us: us(usage.ru_utime),
        system_us: us(usage.ru_stime),
        max_rss_kib: u64::try_from(usage.ru_maxrss).unwrap_or(0),
    }
}

/// Reaps a child if it has exited; returns whether it is gone.
pub(crate) fn reap(pid: u32) -> bool {
    wait4(pid, libc::WNOHANG)
}

/// Waits until a child is gone.
pub(crate) fn reap_blocking(pid: u32) {
    wait4(pid, 0);
}

fn wait4(pid: u32, options: libc::c_int) -> bool {
    let Ok(number) = libc::pid_t::try_from(pid) else { return true };
    loop {
        // SAFETY: neither status nor usage is asked for.
        let result =
            unsafe { libc::wait4(number, std::ptr::null_mut(), options, std::ptr::null_mut()) };
        match check(result) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // No such child: somebody else's, or none.
            Err(_) => return true,
        }
    }
}

/// Makes a child that has not executed anything the leader of a group of its own.
pub(crate) fn lead_group(pid: u32) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| Error::from_raw_os_error(libc::ESRCH))?;
    // SAFETY: no pointers.
    check(unsafe { libc::setpgid(pid, pid) }).map(drop)
}

/// Signals a group whose leader is our child and was not reaped: its number cannot be anybody else's.
pub(crate) fn signal_group(group: u32, signal: libc::c_int) -> io::Result<()> {
    let group = libc::pid_t::try_from(group).map_err(|_| Error::from_raw_os_error(libc::ESRCH))?;
    // Never 0 or 1: those would be our own group, or everybody.
    if group <= 1 {
        return Err(Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: no pointers.
    check(unsafe { libc::kill(-group, signal) }).map(drop)
}

/// Opens a process, to signal it and no successor of its number.
pub(crate) fn open_pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    owned(libc::c_int::try_from(result).unwrap_or(-1))
}

/// Signals an opened process; 0 only asks whether we may.
pub(crate) fn signal_pidfd(pidfd: BorrowedFd<'_>, signal: libc::c_int) -> io::Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: without a siginfo the kernel makes one as kill does.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, 0) };
    check(libc::c_int::try_from(result).unwrap_or(-1)).map(drop)
}

/// Returns an opened process's number in pidfs, which is its file handle there too; `None` where pidfds are no pidfs.
pub(crate) fn pidfs_handle(pidfd: BorrowedFd<'_>) -> Option<[u8; 8]> {
    let mut system = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the pointer is to a live statfs.
    check(unsafe { libc::fstatfs(pidfd.as_raw_fd(), system.as_mut_ptr()) }).ok()?;
    // SAFETY: zeroed is valid, and the call filled it in.
    let kind = unsafe { system.assume_init() }.f_type;
    if u64::try_from(kind).ok()? != PIDFS_MAGIC {
        return None;
    }
    let mut stat = MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: the pointer is to a live stat.
    check(unsafe { libc::fstat(pidfd.as_raw_fd(), stat.as_mut_ptr()) }).ok()?;
    // SAFETY: zeroed is valid, and the call filled it in.
    let stat = unsafe { stat.assume_init() };
    Some(stat.st_ino.to_le_bytes())
}
