//! The two locks of a data directory: the host's, held for its life, and that of whoever starts one.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock without waiting; `None` if another process has it.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn try_take(path: &Path) -> io::Result<Option<Self>> {
        let file = open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for the lock; `None` if it was not free in time. The thread that waits for it ends with the process then.
    ///
    /// # Errors
    ///
    /// The system's.
    pub async fn take_within(path: &Path, limit: Duration) -> io::Result<Option<Self>> {
        let file = open(path)?;
        let waiting = tokio::task::spawn_blocking(move || {
            loop {
                match flock(&file, FlockOperation::LockExclusive) {
                    Ok(()) => return Ok(Self { file }),
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(io::Error::from(error)),
                }
            }
        });
        match tokio::time::timeout(limit, waiting).await {
            Ok(Ok(taken)) => taken.map(Some),
            Ok(Err(panicked)) => Err(io::Error::other(panicked)),
            Err(_) => Ok(None),
        }
    }

    /// Writes who holds it into the file, for people and error messages.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn sign(&mut self, text: &str) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.file.write_all(text.as_bytes())
    }
}

/// Reads who signed a lock last; empty if nobody did.
#[must_use]
pub fn signature(path: &Path) -> String {
    let mut text = String::new();
    // What cannot be read is not known.
    let _ = File::open(path).and_then(|file| file.take(1_024).read_to_string(&mut text));
    text.trim().to_owned()
}

/// Opens a lock's file, close-on-exec: no child may keep the lock.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_holds_it_and_the_next_gets_it_when_it_is_dropped() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("host.lock");
        let mut held = Lock::try_take(&path).unwrap().unwrap();
        held.sign("process 7").unwrap();
        assert!(Lock::try_take(&path).unwrap().is_none());
        assert_eq!(signature(&path), "process 7");
        let (next, ()) = tokio::join!(Lock::take_within(&path, Duration::from_secs(30)), async {
            drop(held);
        });
        assert!(next.unwrap().is_some());
    }
}
