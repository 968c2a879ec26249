//! Logs whose segments are written as a shim writes them, for the suite of the log store.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use windlass_conformance::log_store::LogStorePlace;
use windlass_conformance::script::{fresh_execution, fresh_nonce};
use windlass_core::container_service::ContainerService as _;
use windlass_core::execution::{ExitReport, FinalReport, ResourceUse};
use windlass_core::id::{ExecutionId, Nonce};
use windlass_core::log_store::{LogItem, LogKey, LogStore};
use windlass_core::outcome::{Exit, Outcome};
use windlass_core::shim::frame::{
    self, FrameTime, Gap, SEGMENT_BYTES, Seal, SegmentHeader, segment_file,
};
use windlass_core::shim::journal::{self, Record};
use windlass_core::time::Timestamp;
use windlass_local::FileLogs;

use crate::place::{Local, path_of};

/// A data directory whose logs are written by the test.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    local: Local,
    writers: Mutex<HashMap<ExecutionId, Writer>>,
}

/// What a shim knows of its log.
#[derive(Debug)]
pub(crate) struct Writer {
    log: LogKey,
    file: Option<File>,
    header: SegmentHeader,
    written: u64,
    seal: Seal,
}

impl Writer {
    pub(crate) fn new(log: &LogKey) -> Self {
        let header = SegmentHeader {
            execution: log.execution,
            nonce: log.place.nonce,
            index: 0,
            first_seq: 1,
            bytes_before: 0,
            dropped_before: 0,
        };
        let seal = Seal { last_seq: 0, bytes: 0, dropped: 0, entries: 0 };
        Self { log: log.clone(), file: None, header, written: 0, seal }
    }

    /// Ends the segment; the next write begins another one.
    pub(crate) fn rotate(&mut self) {
        let seal = frame::encode_seal(&self.seal, FrameTime::default());
        if let Some(mut file) = self.file.take() {
            file.write_all(&seal).unwrap();
        }
    }

    fn begin(&mut self) {
        self.header.index += 1;
        self.header.first_seq = self.seal.last_seq + 1;
        self.header.bytes_before += self.seal.bytes;
        self.header.dropped_before += self.seal.dropped;
        self.seal = Seal { bytes: 0, dropped: 0, entries: 0, ..self.seal };
        let path = path_of(&self.log.place).join(segment_file(self.header.index));
        let mut file = OpenOptions::new().create_new(true).append(true).open(path).unwrap();
        file.write_all(&self.header.encode()).unwrap();
        self.written = frame::SEGMENT_HEADER_BYTES as u64;
        self.file = Some(file);
    }

    pub(crate) fn write(&mut self, item: &LogItem) {
        let bytes = encode(item);
        let whole = self.written + bytes.len() as u64 + frame::SEAL_BYTES as u64;
        if self.file.is_some() && whole > SEGMENT_BYTES {
            self.rotate();
        }
        if self.file.is_none() {
            self.begin();
        }
        self.file.as_mut().unwrap().write_all(&bytes).unwrap();
        self.written += bytes.len() as u64;
        self.seal.last_seq = item.last_seq().0;
        match item {
            LogItem::Entry { len, .. } => {
                self.seal.bytes += len;
                self.seal.entries += 1;
            }
            LogItem::Gap { bytes, .. } => {
                self.seal.bytes += bytes;
                self.seal.dropped += bytes;
            }
        }
    }

    /// Writes the final record as well.
    pub(crate) fn finish(&mut self) {
        self.rotate();
        let report = FinalReport {
            exit: ExitReport {
                outcome: Outcome::Exited { code: 0 },
                exit: Some(Exit::Code(0)),
                at: Timestamp(1),
                usage: ResourceUse::default(),
                out_of_memory: false,
            },
            last_seq: self.seal.last_seq,
            bytes: self.header.bytes_before + self.seal.bytes,
            dropped_bytes: self.header.dropped_before + self.seal.dropped,
            output_incomplete: false,
            survivors: Vec::new(),
            more_survivors: 0,
        };
        append(&self.log, &Record::Final(Box::new(report)));
    }
}

/// Returns the frame of an item.
pub(crate) fn encode(item: &LogItem) -> Vec<u8> {
    match item {
        LogItem::Entry { seq, at, stream, partial, bytes, len } => {
            let time = FrameTime { wall: *at, boot_ns: 0 };
            if bytes.len() as u64 != *len {
                return frame::encode_secret(seq.0, time, *stream, *partial, *len);
            }
            let mut frame =
                frame::encode_entry_header(seq.0, time, *stream, *partial, bytes).to_vec();
            frame.extend_from_slice(bytes);
            frame
        }
        LogItem::Gap { first, last, bytes, cause } => {
            let gap =
                Gap { first_seq: first.0, last_seq: last.unwrap().0, bytes: *bytes, cause: *cause };
            frame::encode_gap(&gap, FrameTime::default())
        }
    }
}

/// Appends a record to the journal of a place.
pub(crate) fn append(log: &LogKey, record: &Record) {
    let path = path_of(&log.place).join("journal");
    let journal = match journal::read(&fs::read(&path).unwrap()) {
        journal::Verdict::Readable(journal) => journal,
        other => panic!("{other:?}"),
    };
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&record.encode(journal.synced()), journal.end as u64).unwrap();
}

impl Segments {
    pub(crate) fn with<R>(&self, log: &LogKey, work: impl FnOnce(&mut Writer) -> R) -> R {
        let mut writers = self.writers.lock().unwrap();
        work(writers.entry(log.execution).or_insert_with(|| Writer::new(log)))
    }

    pub(crate) async fn make(&self) -> LogKey {
        let execution = fresh_execution();
        let place = self.local.open().prepare(execution, fresh_nonce()).await.unwrap();
        LogKey { execution, place }
    }

    pub(crate) fn logs(&self) -> Arc<FileLogs> {
        FileLogs::open(&self.local.runs()).unwrap()
    }
}

#[async_trait]
impl LogStorePlace for Segments {
    async fn open(&self) -> Arc<dyn LogStore> {
        self.logs()
    }

    async fn create(&self, _store: &dyn LogStore) -> LogKey {
        self.make().await
    }

    async fn missing(&self) -> LogKey {
        let mut log = self.make().await;
        log.place.nonce = Nonce(uuid::Uuid::nil());
        log
    }

    async fn write(&self, _store: &dyn LogStore, log: &LogKey, items: &[LogItem]) {
        self.with(log, |writer| items.iter().for_each(|item| writer.write(item)));
    }

    async fn finish(&self, _store: &dyn LogStore, log: &LogKey) {
        self.with(log, Writer::finish);
    }

    async fn tear(&self, _store: &dyn LogStore, log: &LogKey, item: &LogItem) {
        let bytes = encode(item);
        self.with(log, |writer| {
            writer.file.as_mut().unwrap().write_all(&bytes[..bytes.len() / 2]).unwrap();
        });
    }
}
