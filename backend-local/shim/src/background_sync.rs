//! Syncing closed segments without waiting for the disk and without a thread: the kernel's own queue.
//!
//! A rotation that waited for its sync would let the command write no faster than the disk. Where the kernel has no such
//! queue, it waits.
#![expect(unsafe_code, reason = "libc has the numbers of these calls, and nothing else")]

use std::fs::File;
use std::io::{self, Error};
use std::os::fd::AsRawFd;

/// How many syncs may be under way; the next one waits for one of them. It bounds what a power cut takes, and the wait at the
/// end.
const IN_FLIGHT: u32 = 32;
const IOCB_CMD_FDSYNC: u16 = 3;

/// The kernel's `struct iocb` on 64-bit machines.
#[repr(C)]
#[derive(Default)]
struct Iocb {
    data: u64,
    key_and_flags: [u32; 2],
    opcode: u16,
    priority: i16,
    fd: u32,
    buf: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    result_fd: u32,
}

/// The kernel's `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Event {
    data: u64,
    object: u64,
    result: i64,
    result2: i64,
}

/// Syncs under way.
#[derive(Debug)]
pub(crate) struct BackgroundSync {
    context: Context,
    in_flight: u32,
}

#[derive(Clone, Copy, Debug)]
enum Context {
    NotAsked,
    Queue(libc::c_ulong),
    Missing,
}

impl BackgroundSync {
    /// Returns one with nothing under way.
    pub(crate) fn new() -> Self {
        Self { context: Context::NotAsked, in_flight: 0 }
    }

    /// Begins to sync a file, which may be closed after.
    ///
    /// # Errors
    ///
    /// It, or one that was begun before, could not be synced.
    pub(crate) fn start(&mut self, file: &File) -> io::Result<()> {
        let Some(context) = self.queue() else { return file.sync_data() };
        let earlier = if self.in_flight < IN_FLIGHT { Ok(()) } else { self.collect(1) };
        match submit(context, file) {
            Ok(()) => self.in_flight += 1,
            // A file system without it, or a queue that is full: then as everybody does.
            Err(_) => file.sync_data()?,
        }
        earlier
    }

    /// Waits for all that was begun.
    ///
    /// # Errors
    ///
    /// One of them failed.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.collect(self.in_flight)
    }

    fn queue(&mut self) -> Option<libc::c_ulong> {
        if let Context::NotAsked = self.context {
            let mut context: libc::c_ulong = 0;
            // SAFETY: the kernel writes one word.
            let made = unsafe { libc::syscall(libc::SYS_io_setup, IN_FLIGHT, &raw mut context) };
            self.context = if made == 0 { Context::Queue(context) } else { Context::Missing };
        }
        match self.context {
            Context::Queue(context) => Some(context),
            Context::NotAsked | Context::Missing => None,
        }
    }

    /// Waits until at least `count` syncs have ended.
    fn collect(&mut self, count: u32) -> io::Result<()> {
        let Context::Queue(context) = self.context else { return Ok(()) };
        let mut result = Ok(());
        let mut missing = count.min(self.in_flight);
        while missing > 0 {
            let mut events = [Event::default(); IN_FLIGHT as usize];
            let no_limit = std::ptr::null_mut::<libc::timespec>();
            // SAFETY: the kernel writes at most `IN_FLIGHT` events into a live array of as many.
            let got = unsafe {
                libc::syscall(
                    libc::SYS_io_getevents,
                    context,
                    libc::c_long::from(missing),
                    libc::c_long::from(IN_FLIGHT),
                    events.as_mut_ptr(),
                    no_limit,
                )
            };
            let Ok(got) = usize::try_from(got) else {
                let error = Error::last_os_error();
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                self.in_flight = 0;
                return Err(error);
            };
            for event in events.iter().take(got) {
                self.in_flight -= 1;
                missing = missing.saturating_sub(1);
                if let Ok(errno @ 1..) = i32::try_from(event.result.saturating_neg()) {
                    result = Err(Error::from_raw_os_error(errno));
                }
            }
        }
        result
    }
}

fn submit(context: libc::c_ulong, file: &File) -> io::Result<()> {
    let fd = u32::try_from(file.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut request = Iocb { opcode: IOCB_CMD_FDSYNC, fd, ..Iocb::default() };
    let mut requests = [&raw mut request];
    let one: libc::c_long = 1;
    // SAFETY: one live request; the kernel copies it and takes its own reference to the file before it returns.
    let taken = unsafe { libc::syscall(libc::SYS_io_submit, context, one, requests.as_mut_ptr()) };
    if taken == 1 { Ok(()) } else { Err(Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn many_files_are_synced_and_closed_meanwhile() {
        let directory = tempfile::tempdir().unwrap();
        let mut sync = BackgroundSync::new();
        for number in 0..20 {
            let mut file = File::create(directory.path().join(number.to_string())).unwrap();
            file.write_all(&[7; 10_000]).unwrap();
            sync.start(&file).unwrap();
            assert!(sync.in_flight <= IN_FLIGHT);
        }
        sync.finish().unwrap();
        assert_eq!(sync.in_flight, 0);
    }
}
