//! The journal of a place: what of an execution is known for ever.
//!
//! A file of 4 KiB, preallocated with zeros by the host, which also writes the header. Records are appended by the shim
//! (or by a host that holds the lock) and never rewritten. The format is frozen for ever; `docs/formats.md` has it byte
//! by byte. Nothing here reads or writes a file.

use crate::execution::{EndCause, ExecFailure, ExitReport, FinalReport};
use crate::id::{Epoch, ExecutionId, Nonce};
use crate::shim::wire::{Malformed, Reader, Wire, Writer};
use crate::time::Timestamp;

/// The size of the file.
pub const JOURNAL_BYTES: usize = 4096;
/// Where the first record is.
pub const RECORDS_OFFSET: usize = HEADER_BYTES as usize;
/// The version that this code writes.
pub const JOURNAL_VERSION: u16 = 1;
/// The most bytes of a machine id that the header keeps.
pub const MACHINE_ID_BYTES: usize = 48;
/// The most bytes of a cgroup's path that a record keeps; a longer one is not recorded.
pub const CGROUP_BYTES: usize = 1024;
/// The most survivors that a record names.
pub const NAMED_SURVIVORS: usize = 16;
/// The most bytes of a survivor's name that a record keeps.
pub const SURVIVOR_NAME_BYTES: usize = 32;

const HEADER_BYTES: u16 = 128;
const MAGIC: [u8; 8] = *b"WLJOURN\n";
/// Type, number of records known to be synced, payload length, checksum.
const FRAME_BYTES: usize = 8;

/// Whose journal it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The execution.
    pub execution: ExecutionId,
    /// The start.
    pub nonce: Nonce,
    /// The machine, as the host names it: at most [`MACHINE_ID_BYTES`].
    pub machine: Vec<u8>,
    /// The inode of the directory that it was made in, by which a copy is recognised; 0 if it has none.
    pub inode: u64,
}

/// The identity of a started command, complete before it runs anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// The epoch that launched it.
    pub epoch: Epoch,
    /// The control protocol that its shim speaks.
    pub protocol: u16,
    /// The version of its shim's package.
    pub shim_version: String,
    /// The boot that it runs in.
    pub boot: [u8; 16],
    /// The inode of its pid namespace.
    pub pid_namespace: u64,
    /// Its number; also that of its group and session.
    pub pid: u32,
    /// Its start time in kernel ticks since the boot.
    pub start_ticks: u64,
    /// Its pidfs handle, where the kernel has such: never given to another process.
    pub pidfs_handle: Option<[u8; 8]>,
    /// The group that it leads.
    pub group: u32,
    /// The cgroup of its own, where one was delegated.
    pub cgroup: Option<Vec<u8>>,
    /// The shim's number.
    pub shim_pid: u32,
    /// The shim's start time in kernel ticks since the boot.
    pub shim_start_ticks: u64,
    /// When, by the wall clock of its node.
    pub at: Timestamp,
}

/// Why it is being ended by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopping {
    /// Why.
    pub cause: EndCause,
    /// The epoch that asked, or that was known when a deadline fired.
    pub epoch: Epoch,
    /// When, by the wall clock of its node.
    pub at: Timestamp,
}

/// The command's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exited {
    /// The status as the kernel packs it.
    pub wait_status: u32,
    /// Our first signal had gone out before.
    pub after_our_signal: bool,
    /// What the execution's outcome is.
    pub report: ExitReport,
}

/// That nothing ever ran here, nor will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Void {
    /// The epoch that wrote it.
    pub epoch: Epoch,
    /// When, by the wall clock of its node.
    pub at: Timestamp,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The command is about to run; synced before it may.
    Started(Box<Started>),
    /// The command could not be started.
    ExecFailed(ExecFailure),
    /// It is being ended by us; synced before the first signal.
    Stopping(Stopping),
    /// The command ended, and what the pipes held then is in the log.
    Exited(Box<Exited>),
    /// Nothing will change any more; the log is synced.
    Final(Box<FinalReport>),
    /// Written by a host that holds the lock: never ran, and must not.
    Void(Void),
}

impl Record {
    fn code(&self) -> u8 {
        match self {
            Self::Started(_) => 1,
            Self::ExecFailed(_) => 2,
            Self::Stopping(_) => 3,
            Self::Exited(_) => 4,
            Self::Final(_) => 5,
            Self::Void(_) => 6,
        }
    }

    fn decode(code: u8, payload: &[u8]) -> Result<Self, Malformed> {
        let from = &mut Reader::new(payload);
        match code {
            1 => Wire::get(from).map(Box::new).map(Self::Started),
            2 => Wire::get(from).map(Self::ExecFailed),
            3 => Wire::get(from).map(Self::Stopping),
            4 => Wire::get(from).map(Box::new).map(Self::Exited),
            5 => Wire::get(from).map(Box::new).map(Self::Final),
            6 => Wire::get(from).map(Self::Void),
            0 | 7..=u8::MAX => Err(Malformed),
        }
    }

    /// Returns the bytes of the record, to be written at [`Journal::end`] when `synced` records are known to be synced.
    ///
    /// Records that share one write and one sync have the same `synced`.
    #[must_use]
    pub fn encode(&self, synced: u8) -> Vec<u8> {
        let mut payload = Writer::new();
        match self {
            Self::Started(started) => started.put(&mut payload),
            Self::ExecFailed(failure) => failure.put(&mut payload),
            Self::Stopping(stopping) => stopping.put(&mut payload),
            Self::Exited(exited) => exited.put(&mut payload),
            Self::Final(report) => bounded(report).put(&mut payload),
            Self::Void(void) => void.put(&mut payload),
        }
        let payload = payload.into_bytes();
        let mut record = Writer::new();
        record.u8(self.code());
        record.u8(synced);
        // Every record is far below the file's 4 KiB: its parts are bounded.
        record.u16(u16::try_from(payload.len()).unwrap_or(u16::MAX));
        record.u32(checksum(self.code(), synced, &payload));
        record.raw(&payload);
        record.into_bytes()
    }
}

/// Cuts what is named to the bounds of the format.
fn bounded(report: &FinalReport) -> FinalReport {
    let mut report = report.clone();
    let over = report.survivors.len().saturating_sub(NAMED_SURVIVORS);
    report.survivors.truncate(NAMED_SURVIVORS);
    report.more_survivors =
        report.more_survivors.saturating_add(u32::try_from(over).unwrap_or(u32::MAX));
    for survivor in &mut report.survivors {
        survivor.name.truncate(survivor.name.floor_char_boundary(SURVIVOR_NAME_BYTES));
    }
    report
}

fn checksum(code: u8, synced: u8, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[code, synced]);
    hasher.update(&u16::try_from(payload.len()).unwrap_or(u16::MAX).to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

impl Header {
    /// Returns the whole file of a journal without records.
    #[must_use]
    pub fn encode(&self) -> [u8; JOURNAL_BYTES] {
        let mut header = Writer::new();
        header.raw(&MAGIC);
        header.u16(JOURNAL_VERSION);
        header.u16(HEADER_BYTES);
        self.execution.put(&mut header);
        self.nonce.put(&mut header);
        header.bytes(&self.machine[..self.machine.len().min(MACHINE_ID_BYTES)]);
        header.u64(self.inode);
        let header = header.into_bytes();
        let mut file = [0; JOURNAL_BYTES];
        file[..header.len()].copy_from_slice(&header);
        let crc = crc32fast::hash(&file[..RECORDS_OFFSET - 4]);
        file[RECORDS_OFFSET - 4..RECORDS_OFFSET].copy_from_slice(&crc.to_le_bytes());
        file
    }
}

/// What a journal's bytes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It can be read.
    Readable(Journal),
    /// It is whole and of a newer version; nothing more is known.
    Newer {
        /// Its version.
        version: u16,
    },
    /// It is not what was written.
    Damaged,
}

/// A journal that can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    /// Whose it is.
    pub header: Header,
    /// Its records in the order of writing.
    pub records: Vec<Record>,
    /// What follows them.
    pub tail: Tail,
    /// Where the next record goes.
    pub end: usize,
}

/// What follows the last record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Zeros.
    Clean,
    /// A record that was being written when the machine stopped; nobody was told of it.
    Torn,
}

impl Journal {
    /// Says whether nothing was ever written after the header.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.records.is_empty() && self.tail == Tail::Clean
    }

    /// Returns the number of records, for [`Record::encode`] of the next one by whoever holds the lock and has synced
    /// the file.
    #[must_use]
    pub fn synced(&self) -> u8 {
        u8::try_from(self.records.len()).unwrap_or(u8::MAX)
    }

    /// Returns the identity of the command, if it was started.
    #[must_use]
    pub fn started(&self) -> Option<&Started> {
        self.records.iter().find_map(|record| match record {
            Record::Started(started) => Some(&**started),
            Record::ExecFailed(_)
            | Record::Stopping(_)
            | Record::Exited(_)
            | Record::Final(_)
            | Record::Void(_) => None,
        })
    }

    /// Returns why it was ended by us, if it was.
    #[must_use]
    pub fn stopping(&self) -> Option<&Stopping> {
        self.records.iter().find_map(|record| match record {
            Record::Stopping(stopping) => Some(stopping),
            Record::Started(_)
            | Record::ExecFailed(_)
            | Record::Exited(_)
            | Record::Final(_)
            | Record::Void(_) => None,
        })
    }

    /// Returns why it could not be started, if it could not.
    #[must_use]
    pub fn exec_failed(&self) -> Option<&ExecFailure> {
        self.records.iter().find_map(|record| match record {
            Record::ExecFailed(failure) => Some(failure),
            Record::Started(_)
            | Record::Stopping(_)
            | Record::Exited(_)
            | Record::Final(_)
            | Record::Void(_) => None,
        })
    }

    /// Returns the command's end, if it is known.
    #[must_use]
    pub fn exited(&self) -> Option<&Exited> {
        self.records.iter().find_map(|record| match record {
            Record::Exited(exited) => Some(&**exited),
            Record::Started(_)
            | Record::ExecFailed(_)
            | Record::Stopping(_)
            | Record::Final(_)
            | Record::Void(_) => None,
        })
    }

    /// Returns the execution's end, if it is known.
    #[must_use]
    pub fn finished(&self) -> Option<&FinalReport> {
        self.records.iter().find_map(|record| match record {
            Record::Final(report) => Some(&**report),
            Record::Started(_)
            | Record::ExecFailed(_)
            | Record::Stopping(_)
            | Record::Exited(_)
            | Record::Void(_) => None,
        })
    }

    /// Returns the host's word that nothing ran, if it gave it.
    #[must_use]
    pub fn void(&self) -> Option<&Void> {
        self.records.iter().find_map(|record| match record {
            Record::Void(void) => Some(void),
            Record::Started(_)
            | Record::ExecFailed(_)
            | Record::Stopping(_)
            | Record::Exited(_)
            | Record::Final(_) => None,
        })
    }
}

/// Reads a journal.
///
/// Bytes that are no record are what a crash left of one: they are passed over, as nobody was told of it. They are
/// damage exactly if a later record says that more was synced before it than can be read.
#[must_use]
pub fn read(file: &[u8]) -> Verdict {
    let header = match read_header(file) {
        Ok(Ok(header)) => header,
        Ok(Err(version)) => return Verdict::Newer { version },
        Err(Malformed) => return Verdict::Damaged,
    };
    let mut records = Vec::new();
    let mut at = RECORDS_OFFSET;
    let mut clean = at;
    while at < file.len() {
        match read_record(&file[at..]) {
            Ok((synced, record, len)) => {
                if usize::from(synced) > records.len() {
                    return Verdict::Damaged;
                }
                records.push(record);
                at += len;
                clean = at;
            }
            // No record begins with a zero, and most of the file is zeros.
            Err(Malformed) => at += 1 + zeros(&file[at + 1..]),
        }
    }
    let rest = &file[clean..];
    let used =
        if zeros(rest) == rest.len() { None } else { rest.iter().rposition(|byte| *byte != 0) };
    let (tail, end) = used.map_or((Tail::Clean, clean), |last| (Tail::Torn, clean + last + 1));
    Verdict::Readable(Journal { header, records, tail, end })
}

/// Counts the zeros at the front.
fn zeros(bytes: &[u8]) -> usize {
    let (blocks, _) = bytes.as_chunks::<32>();
    let whole = 32 * blocks.iter().take_while(|block| **block == [0; 32]).count();
    whole + bytes[whole..].iter().take_while(|byte| **byte == 0).count()
}

/// Reads the header, or the version if it is a newer one.
fn read_header(file: &[u8]) -> Result<Result<Header, u16>, Malformed> {
    // Of every version: magic, version, length of the header, and the checksum in its last four bytes.
    let from = &mut Reader::new(file);
    if from.array::<8>()? != MAGIC {
        return Err(Malformed);
    }
    let version = from.u16()?;
    let len = usize::from(from.u16()?);
    let body = file.get(..len.checked_sub(4).ok_or(Malformed)?).ok_or(Malformed)?;
    let crc = Reader::new(&file[body.len()..]).u32()?;
    if crc32fast::hash(body) != crc {
        return Err(Malformed);
    }
    if version > JOURNAL_VERSION {
        return Ok(Err(version));
    }
    if len != RECORDS_OFFSET || file.len() != JOURNAL_BYTES {
        return Err(Malformed);
    }
    let execution = Wire::get(from)?;
    let nonce = Wire::get(from)?;
    let machine = from.bytes()?.to_vec();
    let inode = from.u64()?;
    Ok(Ok(Header { execution, nonce, machine, inode }))
}

fn read_record(bytes: &[u8]) -> Result<(u8, Record, usize), Malformed> {
    let from = &mut Reader::new(bytes);
    let code = from.u8()?;
    // Zeros are the common case, and their checksum need not be computed.
    if code == 0 {
        return Err(Malformed);
    }
    let synced = from.u8()?;
    let len = usize::from(from.u16()?);
    let crc = from.u32()?;
    let payload = from.raw(len)?;
    if checksum(code, synced, payload) != crc {
        return Err(Malformed);
    }
    Ok((synced, Record::decode(code, payload)?, FRAME_BYTES + len))
}

impl Wire for Started {
    fn put(&self, to: &mut Writer) {
        self.epoch.put(to);
        to.u16(self.protocol);
        let cut = self.shim_version.floor_char_boundary(32);
        to.bytes(&self.shim_version.as_bytes()[..cut]);
        to.raw(&self.boot);
        to.u64(self.pid_namespace);
        to.u32(self.pid);
        to.u64(self.start_ticks);
        to.option(self.pidfs_handle.as_ref(), |handle, to| to.raw(handle));
        to.u32(self.group);
        let cgroup = self.cgroup.as_ref().filter(|path| path.len() <= CGROUP_BYTES);
        to.option(cgroup, |path, to| to.bytes(path));
        to.u32(self.shim_pid);
        to.u64(self.shim_start_ticks);
        self.at.put(to);
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            epoch: Wire::get(from)?,
            protocol: from.u16()?,
            shim_version: String::from_utf8_lossy(from.bytes()?).into_owned(),
            boot: from.array()?,
            pid_namespace: from.u64()?,
            pid: from.u32()?,
            start_ticks: from.u64()?,
            pidfs_handle: from.option(Reader::array)?,
            group: from.u32()?,
            cgroup: from.option(|from| from.bytes().map(<[u8]>::to_vec))?,
            shim_pid: from.u32()?,
            shim_start_ticks: from.u64()?,
            at: Wire::get(from)?,
        })
    }
}

impl Wire for Stopping {
    fn put(&self, to: &mut Writer) {
        to.value(&self.cause);
        self.epoch.put(to);
        self.at.put(to);
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { cause: from.value()?, epoch: Wire::get(from)?, at: Wire::get(from)? })
    }
}

impl Wire for Exited {
    fn put(&self, to: &mut Writer) {
        to.u32(self.wait_status);
        to.bool(self.after_our_signal);
        to.value(&self.report);
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { wait_status: from.u32()?, after_our_signal: from.bool()?, report: from.value()? })
    }
}

impl Wire for Void {
    fn put(&self, to: &mut Writer) {
        self.epoch.put(to);
        self.at.put(to);
    }

    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { epoch: Wire::get(from)?, at: Wire::get(from)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::execution::{ExecStep, ResourceUse, Survivor, SurvivorReason};
    use crate::outcome::{Exit, NotStarted, Outcome, StoppedBy};
    use proptest::prelude::*;
    use uuid::Uuid;

    fn header() -> Header {
        Header {
            execution: ExecutionId(Uuid::from_u128(1)),
            nonce: Nonce(Uuid::from_u128(2)),
            machine: vec![b'm'; MACHINE_ID_BYTES],
            inode: u64::MAX,
        }
    }

    fn report() -> ExitReport {
        ExitReport {
            outcome: Outcome::Stopped { by: StoppedBy::User },
            exit: Some(Exit::Signal(15)),
            at: Timestamp(u64::MAX),
            usage: ResourceUse { user_us: 1, system_us: 2, max_rss_kib: 3 },
            out_of_memory: false,
        }
    }

    /// One record of each kind, each as large as it can be.
    fn largest() -> Vec<Record> {
        let survivor =
            Survivor { pid: u32::MAX, name: "é".repeat(200), reason: SurvivorReason::Unkillable };
        vec![
            Record::Started(Box::new(Started {
                epoch: Epoch(7),
                protocol: 1,
                shim_version: "9".repeat(500),
                boot: [9; 16],
                pid_namespace: 4_026_531_836,
                pid: u32::MAX,
                start_ticks: u64::MAX,
                pidfs_handle: Some([5; 8]),
                group: u32::MAX,
                cgroup: Some(vec![b'/'; CGROUP_BYTES]),
                shim_pid: u32::MAX,
                shim_start_ticks: u64::MAX,
                at: Timestamp(u64::MAX),
            })),
            Record::ExecFailed(ExecFailure {
                step: ExecStep::Exec,
                errno: 2,
                reason: NotStarted::ProgramNotFound,
                at: Timestamp(1),
            }),
            Record::Stopping(Stopping {
                cause: EndCause::Stopped { by: StoppedBy::User },
                epoch: Epoch(8),
                at: Timestamp(2),
            }),
            Record::Exited(Box::new(Exited {
                wait_status: 15,
                after_our_signal: true,
                report: report(),
            })),
            Record::Final(Box::new(FinalReport {
                exit: report(),
                last_seq: u64::MAX,
                bytes: u64::MAX,
                dropped_bytes: u64::MAX,
                output_incomplete: true,
                survivors: vec![survivor; 40],
                more_survivors: 5,
            })),
            Record::Void(Void { epoch: Epoch(9), at: Timestamp(3) }),
        ]
    }

    /// Writes each batch with one write and one sync.
    fn file(batches: &[&[Record]]) -> Vec<u8> {
        let mut file = header().encode().to_vec();
        let (mut at, mut synced) = (RECORDS_OFFSET, 0);
        for batch in batches {
            let bytes = batch.iter().flat_map(|record| record.encode(synced)).collect::<Vec<_>>();
            file[at..at + bytes.len()].copy_from_slice(&bytes);
            at += bytes.len();
            synced += u8::try_from(batch.len()).unwrap();
        }
        file
    }

    #[track_caller]
    fn readable(file: &[u8]) -> Journal {
        match read(file) {
            Verdict::Readable(journal) => journal,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_worst_case_fits_and_is_read_back() {
        let records = largest();
        let batches = records.iter().map(std::slice::from_ref).collect::<Vec<_>>();
        let journal = readable(&file(&batches));
        assert_eq!(journal.tail, Tail::Clean);
        assert_eq!(journal.header, header());
        assert_eq!(journal.records.len(), records.len());
        // Every record twice would fit as well: there is room for torn ones.
        assert!(journal.end - RECORDS_OFFSET <= (JOURNAL_BYTES - RECORDS_OFFSET) * 3 / 4);
        let report = journal.finished().unwrap();
        assert_eq!((report.survivors.len(), report.more_survivors), (16, 29));
        assert_eq!(report.survivors[0].name, "é".repeat(16));
        assert_eq!(
            journal.exited(),
            Some(&Exited { wait_status: 15, after_our_signal: true, report: report.exit.clone() })
        );
        assert_eq!(journal.stopping().unwrap().epoch, Epoch(8));
        assert_eq!(journal.exec_failed().unwrap().step, ExecStep::Exec);
        assert_eq!(journal.started().unwrap().pidfs_handle, Some([5; 8]));
        assert_eq!(journal.void().unwrap().epoch, Epoch(9));
    }

    #[test]
    fn a_new_journal_is_untouched() {
        let journal = readable(&header().encode());
        assert!(journal.is_untouched());
        assert_eq!(journal.end, RECORDS_OFFSET);
    }

    #[test]
    fn every_tear_of_the_last_write_is_ignored() {
        let records = largest();
        let whole = file(&[&records[..1], &records[2..3], &records[3..5]]);
        let before = readable(&file(&[&records[..1], &records[2..3]]));
        let end = readable(&whole).end;
        for cut in before.end + 1..end {
            let mut torn = whole.clone();
            torn[cut..].fill(0);
            if torn == whole {
                continue; // nothing but zeros was lost
            }
            let journal = readable(&torn);
            assert!(journal.records.len() < 4, "{cut}");
            assert_eq!(journal.records[..2], before.records, "{cut}");
            // What comes after a tear is read again.
            let void = Record::Void(Void { epoch: Epoch(1), at: Timestamp(1) });
            let bytes = void.encode(journal.synced());
            torn[journal.end..journal.end + bytes.len()].copy_from_slice(&bytes);
            assert_eq!(readable(&torn).records.last(), Some(&void), "{cut}");
        }
    }

    #[test]
    fn a_sector_lost_from_an_unsynced_batch_is_no_damage() {
        let records = largest();
        let whole = file(&[&records[..1], &records[3..5]]);
        let start = readable(&file(&[&records[..1]])).end;
        let mut torn = whole;
        torn[start..start + 20].fill(0);
        let journal = readable(&torn);
        assert!(journal.exited().is_none());
        assert!(journal.finished().is_some());
    }

    #[test]
    fn damage_before_the_tail_is_damage() {
        let records = largest();
        let batches = records.iter().map(std::slice::from_ref).collect::<Vec<_>>();
        let whole = file(&batches);
        let last = readable(&file(&batches[..5])).end;
        for at in 0..last {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x40;
            assert_eq!(read(&damaged), Verdict::Damaged, "{at}");
        }
    }

    #[test]
    fn a_newer_version_is_its_own_verdict_if_it_is_whole() {
        let mut file = header().encode();
        file[8] = 2;
        assert_eq!(read(&file), Verdict::Damaged);
        let crc = crc32fast::hash(&file[..RECORDS_OFFSET - 4]);
        file[RECORDS_OFFSET - 4..RECORDS_OFFSET].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(read(&file), Verdict::Newer { version: 2 });
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_verdict(mut bytes in proptest::collection::vec(any::<u8>(), 0..JOURNAL_BYTES + 9), keep in any::<bool>()) {
            if keep {
                let header = header().encode();
                let len = bytes.len().min(RECORDS_OFFSET);
                bytes[..len].copy_from_slice(&header[..len]);
            }
            let _ = read(&bytes);
        }
    }
}
