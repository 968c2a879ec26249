//! The lock of a data directory: whoever holds it is the host.
//!
//! A program that embeds the engine takes it before it opens a store, binds [`socket`](super::socket) and serves; the
//! command line then works against it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

/// The lock's name in a data directory.
pub const LOCK_FILE: &str = "host.lock";

/// The socket's name in a data directory.
pub const SOCKET_FILE: &str = "host.sock";

/// A lock that is held until it is dropped, and by no child.
#[derive(Debug)]
pub struct HostLock {
    file: OwnedFd,
}

impl HostLock {
    /// Takes the lock without waiting; `None` if another process has it. Nobody has signed it then.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn try_take(path: &Path) -> io::Result<Option<Self>> {
        let file = open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Self::unsigned(file).map(Some),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for the lock. Blocks the thread. Nobody has signed it then.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn take(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        loop {
            match flock(&file, FlockOperation::LockExclusive) {
                Ok(()) => return Self::unsigned(file),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until nobody has the lock, without taking it: who signed it last is still named. Blocks the thread.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn wait_until_free(path: &Path) -> io::Result<()> {
        let file = open(path)?;
        loop {
            match flock(&file, FlockOperation::LockShared) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Says whether a process has the lock, without taking it.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn is_held(path: &Path) -> io::Result<bool> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes away who signed it before: that process does not hold it any more.
    fn unsigned(file: OwnedFd) -> io::Result<Self> {
        rustix::fs::ftruncate(&file, 0)?;
        Ok(Self { file })
    }

    /// Writes who holds it into the file, for people and error messages: at most 1 KiB.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn sign(&self, text: &str) -> io::Result<()> {
        let bytes = &text.as_bytes()[..text.len().min(1_024)];
        rustix::fs::ftruncate(&self.file, 0)?;
        let written = rustix::io::pwrite(&self.file, bytes, 0)?;
        if written < bytes.len() {
            return Err(io::Error::from(io::ErrorKind::WriteZero));
        }
        Ok(())
    }
}

/// Reads who signed a lock last; empty if nobody did, or it cannot be read.
#[must_use]
pub fn signature(path: &Path) -> String {
    let mut bytes = [0; 1_024];
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let read = rustix::fs::open(path, flags, Mode::empty())
        .and_then(|file| rustix::io::read(file, &mut bytes));
    let text = read.ok().and_then(|length| bytes.get(..length)).unwrap_or_default();
    String::from_utf8_lossy(text).trim().to_owned()
}

/// Opens a lock's file, close-on-exec: a lock lives on in every copy of its descriptor.
fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_and_says_who() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join(LOCK_FILE);
        assert_eq!(signature(&path), "");
        let held = HostLock::try_take(&path).unwrap().unwrap();
        held.sign("a longer name\n").unwrap();
        held.sign("process 7\n").unwrap();
        assert!(HostLock::try_take(&path).unwrap().is_none());
        assert!(HostLock::is_held(&path).unwrap());
        assert_eq!(signature(&path), "process 7");
        drop(held);
        HostLock::wait_until_free(&path).unwrap();
        assert!(!HostLock::is_held(&path).unwrap());
        assert_eq!(signature(&path), "process 7", "waiting for it is not taking it");
        assert!(HostLock::try_take(&path).unwrap().is_some());
        assert_eq!(signature(&path), "", "the one before is named");
    }
}
