//! The file below the database, with a gate before it.
//!
//! Opening a database writes: it recovers, and it marks the file as in use. A store of a newer version must be left as it
//! is, and which version it is stands inside the database. So the gate is shut while that is read: what the database
//! writes is held in memory, in order and with its syncs, and the file gets exactly that sequence when the gate opens. If
//! it never does, the file was not touched.

use std::fs::File;
use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;
use redb::backends::FileBackend;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

/// The most that is reserved when the file grows. It doubles, and half of a large disk is not for it alone.
const RESERVED_BYTES: u64 = 64 << 20;

/// A file that a database writes to, or thinks that it does.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    file: FileBackend,
    /// The same file, to reserve room in.
    room: File,
    max_bytes: Option<u64>,
    /// Nothing is held any more; spares reads the lock.
    open: AtomicBool,
    held: Mutex<Held>,
    /// Something could not be written for want of room.
    full: AtomicBool,
}

/// What a shut gate holds back.
#[derive(Debug, Default)]
struct Held {
    writes: Vec<Write>,
    /// The length that the database believes in, if it changed it.
    len: Option<u64>,
}

#[derive(Debug)]
enum Write {
    Bytes { offset: u64, bytes: Vec<u8> },
    Length(u64),
    Sync,
}

impl Gate {
    /// Puts an open gate before `file`.
    pub(crate) fn open(file: File, max_bytes: Option<u64>) -> Result<Self, redb::DatabaseError> {
        Self::new(file, max_bytes, true)
    }

    /// Puts a shut gate before `file`: reads pass, writes are held.
    pub(crate) fn shut(file: File, max_bytes: Option<u64>) -> Result<Self, redb::DatabaseError> {
        Self::new(file, max_bytes, false)
    }

    fn new(file: File, max_bytes: Option<u64>, open: bool) -> Result<Self, redb::DatabaseError> {
        let room = file.try_clone()?;
        let file = FileBackend::new(file)?;
        let (open, full) = (AtomicBool::new(open), AtomicBool::new(false));
        let held = Mutex::default();
        Ok(Self(Arc::new(Inner { file, room, max_bytes, open, held, full })))
    }

    /// Lets through what was held, in its order, and everything from now on.
    pub(crate) fn release(&self) -> io::Result<()> {
        let mut held = self.0.held();
        for write in std::mem::take(&mut held.writes) {
            match write {
                Write::Bytes { offset, bytes } => self.0.file.write(offset, &bytes)?,
                Write::Length(len) => self.0.set_len(len)?,
                Write::Sync => self.0.file.sync_data()?,
            }
        }
        self.0.open.store(true, Ordering::Release);
        Ok(())
    }

    /// Says whether room was missing since this was asked last.
    pub(crate) fn take_full(&self) -> bool {
        self.0.full.swap(false, Ordering::AcqRel)
    }
}

impl Inner {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what is held, unless the gate is open.
    fn shut(&self) -> Option<MutexGuard<'_, Held>> {
        if self.open.load(Ordering::Acquire) {
            return None;
        }
        let held = self.held();
        (!self.open.load(Ordering::Acquire)).then_some(held)
    }

    /// Sets the length. What the file grows by is the store's own from then on, so that a disk that others fill does not
    /// stop it at once.
    fn set_len(&self, len: u64) -> io::Result<()> {
        let before = self.file.len()?;
        if let Some(growth) = len.checked_sub(before).filter(|growth| *growth > 0) {
            if self.max_bytes.is_some_and(|max| len > max) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.reserve(before, growth.min(RESERVED_BYTES))?;
        }
        self.file.set_len(len)
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.room, FallocateFlags::empty(), offset, len) {
            // Not every file system can; then it is as if the room were there.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn noting_room<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && is_full(error)
        {
            self.full.store(true, Ordering::Release);
        }
        result
    }
}

/// Says whether it is room that is missing.
pub(crate) fn is_full(error: &io::Error) -> bool {
    let kinds =
        [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge];
    kinds.contains(&error.kind())
}

impl Held {
    fn len(&self, file: &FileBackend) -> io::Result<u64> {
        self.len.map_or_else(|| file.len(), Ok)
    }

    /// Reads the file as it would be.
    fn read(&self, file: &FileBackend, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset.saturating_add(out.len() as u64);
        if end > self.len(file)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let there = file.len()?.saturating_sub(offset).min(out.len() as u64);
        let there = usize::try_from(there).unwrap_or(out.len());
        out[there..].fill(0);
        file.read(offset, &mut out[..there])?;
        for write in &self.writes {
            match write {
                Write::Bytes { offset: at, bytes } => overlay(offset, out, *at, bytes),
                Write::Length(len) => {
                    // What was cut off is zero if it comes back.
                    let kept = len.saturating_sub(offset).min(out.len() as u64);
                    out[usize::try_from(kept).unwrap_or(0)..].fill(0);
                }
                Write::Sync => {}
            }
        }
        Ok(())
    }
}

/// Copies to `out`, which begins at `offset`, what `bytes`, which begin at `at`, have of it.
fn overlay(offset: u64, out: &mut [u8], at: u64, bytes: &[u8]) {
    let (skip_out, skip_bytes) = (at.saturating_sub(offset), offset.saturating_sub(at));
    let from = usize::try_from(skip_bytes).ok().and_then(|skip| bytes.get(skip..));
    let to = usize::try_from(skip_out).ok().and_then(|skip| out.get_mut(skip..));
    if let (Some(from), Some(to)) = (from, to) {
        let count = from.len().min(to.len());
        to[..count].copy_from_slice(&from[..count]);
    }
}

impl StorageBackend for Gate {
    fn len(&self) -> io::Result<u64> {
        match self.0.shut() {
            Some(held) => held.len(&self.0.file),
            None => self.0.file.len(),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match self.0.shut() {
            Some(held) => held.read(&self.0.file, offset, out),
            None => self.0.file.read(offset, out),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let inner = &self.0;
        if let Some(mut held) = inner.shut() {
            held.writes.push(Write::Length(len));
            held.len = Some(len);
            return Ok(());
        }
        inner.noting_room(inner.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        if let Some(mut held) = self.0.shut() {
            held.writes.push(Write::Sync);
            return Ok(());
        }
        self.0.noting_room(self.0.file.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if let Some(mut held) = self.0.shut() {
            let end = offset.saturating_add(data.len() as u64);
            let len = held.len(&self.0.file)?.max(end);
            held.writes.push(Write::Bytes { offset, bytes: data.to_vec() });
            held.len = Some(len);
            return Ok(());
        }
        self.0.noting_room(self.0.file.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.0.file.close()
    }

    fn try_lock_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, redb::BackendError> {
        self.0.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, redb::BackendError> {
        self.0.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), redb::BackendError> {
        self.0.file.lock_range(start, end)
    }

    fn lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<(), redb::BackendError> {
        self.0.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), redb::BackendError> {
        self.0.file.unlock_range(start, end)
    }

    fn query_lock_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, redb::BackendError> {
        self.0.file.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(gate: &Gate, offset: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0xee; len];
        gate.read(offset, &mut out).unwrap();
        out
    }

    #[test]
    fn a_shut_gate_shows_what_it_holds_and_the_file_gets_it_when_it_opens() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "0123456789").unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let gate = Gate::shut(file, None).unwrap();
        gate.write(2, b"ab").unwrap();
        gate.write(3, b"cd").unwrap();
        gate.set_len(8).unwrap();
        gate.set_len(12).unwrap();
        gate.sync_data().unwrap();
        gate.write(11, b"zzz").unwrap();
        let expected = b"01acd567\0\0\0zzz";
        assert_eq!(gate.len().unwrap(), 14);
        for offset in 0..14 {
            for len in 0..=14 - offset {
                let part = &expected[offset..offset + len];
                assert_eq!(read(&gate, offset as u64, len), part, "{len} at {offset}");
            }
        }
        assert!(gate.read(10, &mut [0; 5]).is_err(), "it ends");
        assert_eq!(fs::read(&path).unwrap(), b"0123456789");
        gate.release().unwrap();
        assert_eq!(fs::read(&path).unwrap(), expected);
        gate.write(0, b"X").unwrap();
        assert_eq!(read(&gate, 0, 2), b"X1");
    }

    #[test]
    fn a_file_grows_no_larger_than_it_may() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let gate = Gate::open(file, Some(10)).unwrap();
        gate.set_len(10).unwrap();
        assert!(!gate.take_full());
        assert!(is_full(&gate.set_len(11).unwrap_err()));
        assert!(gate.take_full() && !gate.take_full());
        gate.set_len(9).unwrap();
    }
}
