//! A place: its journal with what of it is on the disk, its lock, and who holds that.

use windlass_core::container_service::Place;
use windlass_core::shim::journal::{
    self, Header, JOURNAL_BYTES, Journal, RECORDS_OFFSET, Record, Verdict,
};

use super::State;
use super::happened::{ProcessName, StartId};
use super::loss::Unsynced;

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// A shim.
    Shim(ProcessName),
    /// A host that looks at the place.
    Host(HostToken),
}

/// One opened container service: what it holds goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostToken(pub(crate) u64);

/// A place's directory.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) place: Place,
    /// The boot that it was made in.
    pub(crate) boot: [u8; 16],
    /// The journal up to its last byte that is not zero.
    bytes: Vec<u8>,
    /// How many of them are on the disk.
    on_disk: usize,
    /// Where the writer's next record goes, and how many records it knows to be synced.
    end: usize,
    known_synced: u8,
    /// What was written since the last sync.
    unsynced_end: usize,
    /// What the bytes say, until they change.
    read: Option<Verdict>,
    pub(crate) lock: Option<Holder>,
    pub(crate) was_locked: bool,
}

impl Site {
    /// Makes a place; everything of it is on the disk.
    pub(crate) fn new(start: StartId, place: Place, boot: [u8; 16]) -> Self {
        let StartId { execution, nonce } = start;
        let header = Header { execution, nonce, machine: b"world".to_vec(), inode: 0 };
        let bytes = header.encode()[..RECORDS_OFFSET].to_vec();
        let end = bytes.len();
        Self {
            place,
            boot,
            on_disk: end,
            end,
            known_synced: 0,
            unsynced_end: end,
            bytes,
            read: None,
            lock: None,
            was_locked: false,
        }
    }

    /// Returns what the journal says.
    pub(crate) fn journal(&mut self) -> &Verdict {
        let bytes = &self.bytes;
        self.read.get_or_insert_with(|| {
            let mut file = [0; JOURNAL_BYTES];
            let len = bytes.len().min(JOURNAL_BYTES);
            file[..len].copy_from_slice(&bytes[..len]);
            journal::read(&file)
        })
    }

    /// Returns the journal, if it can be read.
    pub(crate) fn readable(&mut self) -> Option<&Journal> {
        match self.journal() {
            Verdict::Readable(journal) => Some(journal),
            Verdict::Newer { .. } | Verdict::Damaged => None,
        }
    }

    /// Says whether the journal is of this start and nothing was ever written into it.
    pub(crate) fn is_untouched(&mut self, start: StartId) -> bool {
        self.readable().is_some_and(|journal| {
            let whose =
                StartId { execution: journal.header.execution, nonce: journal.header.nonce };
            whose == start && journal.is_untouched()
        })
    }

    /// Writes records behind what is synced; `false` if there is no room for them. What follows is in doubt until it is
    /// [`synced`](Self::synced).
    pub(crate) fn append(&mut self, records: &[Record]) -> bool {
        let mut bytes = Vec::new();
        for record in records {
            bytes.extend(record.encode(self.known_synced));
        }
        let end = self.end + bytes.len();
        if end > JOURNAL_BYTES {
            return false;
        }
        // What an append that failed left behind is written over.
        let len = self.bytes.len().max(end);
        self.bytes.resize(len, 0);
        self.bytes[self.end..end].copy_from_slice(&bytes);
        self.unsynced_end = end;
        self.read = None;
        true
    }

    /// Notes that what was written last is on the disk: so many records.
    pub(crate) fn synced(&mut self, records: usize) {
        self.end = self.unsynced_end;
        self.on_disk = self.bytes.len();
        let records = u8::try_from(records).unwrap_or(u8::MAX);
        self.known_synced = self.known_synced.saturating_add(records);
    }

    /// Appends a record as a host does that holds the lock, synced.
    pub(crate) fn append_as_host(&mut self, record: &Record) {
        let Some((end, synced)) = self.readable().map(|journal| (journal.end, journal.synced()))
        else {
            return;
        };
        (self.end, self.known_synced) = (end, synced);
        if self.append(std::slice::from_ref(record)) {
            self.synced(1);
        }
    }

    /// Damages the journal beyond reading.
    pub(crate) fn damage(&mut self) {
        self.bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
        self.on_disk = self.bytes.len();
        self.read = None;
    }

    /// Loses power.
    pub(crate) fn lose(&mut self, unsynced: Unsynced) {
        let kept = self.on_disk + unsynced.kept(self.bytes.len() - self.on_disk);
        self.bytes.truncate(kept);
        self.on_disk = kept;
        self.read = None;
        self.lock = None;
    }
}

impl State {
    /// Returns a place, if it is there.
    pub(crate) fn site(&mut self, start: StartId) -> Option<&mut Site> {
        self.sites.get_mut(&start).map(std::sync::Arc::make_mut)
    }
}
