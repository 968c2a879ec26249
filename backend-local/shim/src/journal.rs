//! The journal and the lock of the place, as files.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use windlass_core::shim::journal::{self, JOURNAL_BYTES, Record, Verdict};
use windlass_core::shim::message::Launch;

use crate::{JOURNAL_FILE, LOCK_FILE};

/// Why the shim leaves without doing anything.
#[derive(Debug)]
pub(crate) enum NotOurs {
    /// Somebody else holds the lock.
    Locked,
    /// The journal is of another start, or not readable.
    Foreign(&'static str),
    /// Something was recorded before.
    Used,
    /// A call failed.
    Io(io::Error),
}

/// The lock of the place. The kernel lets go of it when the shim ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    /// Takes it, or says that it is taken.
    pub(crate) fn take() -> Result<Self, NotOurs> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(LOCK_FILE)
            .map_err(NotOurs::Io)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(NotOurs::Locked),
            Err(TryLockError::Error(error)) => Err(NotOurs::Io(error)),
        }
    }

    /// Returns the file, for a child to close.
    pub(crate) fn file(&self) -> &File {
        &self.0
    }
}

/// The journal, open for appending records.
#[derive(Debug)]
pub(crate) struct JournalFile {
    file: File,
    end: usize,
    synced: u8,
}

impl JournalFile {
    /// Opens it under the lock and makes sure that it is of this start and untouched.
    pub(crate) fn open(launch: &Launch, _lock: &Lock) -> Result<Self, NotOurs> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(JOURNAL_FILE)
            .map_err(NotOurs::Io)?;
        let mut bytes = vec![0; JOURNAL_BYTES];
        file.read_exact_at(&mut bytes, 0).map_err(NotOurs::Io)?;
        let journal = match journal::read(&bytes) {
            Verdict::Readable(journal) => journal,
            Verdict::Newer { .. } => return Err(NotOurs::Foreign("the journal is newer")),
            Verdict::Damaged => return Err(NotOurs::Foreign("the journal is damaged")),
        };
        if journal.header.nonce != launch.nonce || journal.header.execution != launch.execution {
            return Err(NotOurs::Foreign("the journal is of another start"));
        }
        if !journal.is_untouched() {
            return Err(NotOurs::Used);
        }
        Ok(Self { file, end: journal.end, synced: 0 })
    }

    /// Appends records with one write and syncs them.
    ///
    /// # Errors
    ///
    /// They may or may not be durable; the next append goes over them.
    pub(crate) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let bytes =
            records.iter().flat_map(|record| record.encode(self.synced)).collect::<Vec<_>>();
        if self.end + bytes.len() > JOURNAL_BYTES {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.file.write_all_at(&bytes, self.end as u64)?;
        self.file.sync_data()?;
        self.end += bytes.len();
        self.synced = self.synced.saturating_add(u8::try_from(records.len()).unwrap_or(u8::MAX));
        Ok(())
    }
}
