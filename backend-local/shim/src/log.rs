//! The log of the execution: segments, written as the output comes.
//!
//! What cannot be written is counted and stands in a gap as soon as there is room again; the command is never ended for
//! it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;

use windlass_core::id::{ExecutionId, Nonce};
use windlass_core::shim::frame::{
    self, FrameTime, Gap, GapCause, SEGMENT_HEADER_BYTES, Seal, SegmentHeader, Stream,
};
use windlass_core::shim::machine::LogTotals;
use windlass_core::shim::message::Launch;
use windlass_core::shim::retention::Retention;

use crate::background_sync::BackgroundSync;
use crate::sys;

/// What all frames up to some point stand for.
#[derive(Clone, Copy, Debug, Default)]
struct Covered {
    seq: u64,
    /// Payload bytes, the dropped ones included.
    bytes: u64,
    dropped: u64,
}

/// Entries behind what is covered that could not be written.
#[derive(Clone, Copy, Debug, Default)]
struct Missed {
    entries: u64,
    bytes: u64,
}

/// The writer of the log.
#[derive(Debug)]
pub(crate) struct Log {
    execution: ExecutionId,
    nonce: Nonce,
    retention: Retention,
    segment: Option<Segment>,
    /// The number of the last segment.
    index: u64,
    covered: Covered,
    missed: Missed,
    evicted_bytes: u64,
    sync: BackgroundSync,
    sync_failed: bool,
}

impl Log {
    /// Returns an empty log; no file is made before there is something to write.
    pub(crate) fn new(launch: &Launch) -> Self {
        Self {
            execution: launch.execution,
            nonce: launch.nonce,
            retention: Retention::new(launch.log_cap_bytes),
            segment: None,
            index: 0,
            covered: Covered::default(),
            missed: Missed::default(),
            evicted_bytes: 0,
            sync: BackgroundSync::new(),
            sync_failed: false,
        }
    }

    /// Returns the most bytes of one entry.
    pub(crate) fn entry_bytes(&self) -> usize {
        self.retention.entry_bytes()
    }

    /// Says whether there never was an entry.
    pub(crate) fn is_empty(&self) -> bool {
        self.last_seq() == 0
    }

    fn last_seq(&self) -> u64 {
        self.covered.seq.saturating_add(self.missed.entries)
    }

    /// Logs bytes as one entry.
    pub(crate) fn entry(&mut self, time: FrameTime, stream: Stream, partial: bool, bytes: &[u8]) {
        let seq = self.last_seq() + 1;
        let header = frame::encode_entry_header(seq, time, stream, partial, bytes);
        self.log(time, &header, bytes, bytes.len() as u64);
    }

    /// Logs the length of bytes that nobody may read.
    pub(crate) fn secret(&mut self, time: FrameTime, stream: Stream, partial: bool, len: u64) {
        let frame = frame::encode_secret(self.last_seq() + 1, time, stream, partial, len);
        self.log(time, &frame, &[], len);
    }

    /// Writes a frame that stands for one entry, or counts the entry as missed.
    fn log(&mut self, time: FrameTime, head: &[u8], payload: &[u8], len: u64) {
        match self.fill_gap(time).and_then(|()| self.write(time, head, payload)) {
            Ok(()) => {
                self.covered.seq += 1;
                self.covered.bytes = self.covered.bytes.saturating_add(len);
                if let Some(segment) = &mut self.segment {
                    segment.entries += 1;
                }
            }
            Err(error) => {
                if self.missed.entries == 0 {
                    say!("output is dropped from here on: {error}");
                }
                self.missed.entries += 1;
                self.missed.bytes = self.missed.bytes.saturating_add(len);
            }
        }
    }

    /// Writes the gap for what was missed, if there is room again.
    fn fill_gap(&mut self, time: FrameTime) -> io::Result<()> {
        let Missed { entries, bytes } = self.missed;
        if entries == 0 {
            return Ok(());
        }
        let (first_seq, last_seq) = (self.covered.seq + 1, self.last_seq());
        let gap = Gap { first_seq, last_seq, bytes, cause: GapCause::Full };
        self.write(time, &frame::encode_gap(&gap, time), &[])?;
        self.covered.seq = last_seq;
        self.covered.bytes = self.covered.bytes.saturating_add(bytes);
        self.covered.dropped = self.covered.dropped.saturating_add(bytes);
        self.missed = Missed::default();
        Ok(())
    }

    /// Writes one frame whole or not at all.
    fn write(&mut self, time: FrameTime, head: &[u8], payload: &[u8]) -> io::Result<()> {
        let len = (head.len() + payload.len()) as u64;
        if let Some(segment) = &mut self.segment
            && self.retention.fits(segment.size, len)
        {
            let written = segment.append(head, payload);
            if segment.broken {
                // What could not be cut off again is left to readers as a tail to be ignored.
                self.close_segment();
            }
            return written;
        }
        self.rotate(time)?;
        match &mut self.segment {
            Some(segment) => segment.append(head, payload),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Seals the segment and makes the next one.
    fn rotate(&mut self, time: FrameTime) -> io::Result<()> {
        self.seal_segment(time)?;
        self.close_segment();
        while let Some(gone) = self.retention.evict() {
            self.evicted_bytes = self.evicted_bytes.saturating_add(gone.bytes);
            if let Err(error) = fs::remove_file(frame::segment_file(gone.index)) {
                say!("segment {} stays: {error}", gone.index);
            }
        }
        let header = SegmentHeader {
            execution: self.execution,
            nonce: self.nonce,
            index: self.index + 1,
            first_seq: self.covered.seq + 1,
            bytes_before: self.covered.bytes,
            dropped_before: self.covered.dropped,
        };
        self.segment = Some(Segment::create(header)?);
        self.index += 1;
        Ok(())
    }

    fn seal_segment(&mut self, time: FrameTime) -> io::Result<()> {
        let Some(segment) = &mut self.segment else { return Ok(()) };
        let seal = Seal {
            last_seq: self.covered.seq,
            bytes: self.covered.bytes.saturating_sub(segment.header.bytes_before),
            dropped: self.covered.dropped.saturating_sub(segment.header.dropped_before),
            entries: segment.entries,
        };
        segment.append(&frame::encode_seal(&seal, time), &[])?;
        Ok(())
    }

    /// Lets go of the segment and has it synced, its name included.
    fn close_segment(&mut self) {
        let Some(segment) = self.segment.take() else { return };
        let bytes = self.covered.bytes.saturating_sub(segment.header.bytes_before);
        let dropped = self.covered.dropped.saturating_sub(segment.header.dropped_before);
        let kept = bytes.saturating_sub(dropped);
        self.retention.closed(segment.header.index, segment.size, kept);
        self.synced(|log| log.sync.start(&segment.file));
        self.synced(|log| log.sync.start(&File::open(".")?));
    }

    fn synced(&mut self, sync: impl FnOnce(&mut Self) -> io::Result<()>) {
        if let Err(error) = sync(self) {
            say!("the log could not be synced: {error}");
            self.sync_failed = true;
        }
    }

    /// Ends the log: the last gap and the last seal, and everything synced, the directory included.
    pub(crate) fn seal(&mut self) -> LogTotals {
        let time = sys::frame_time();
        let sealed = self.fill_gap(time).and_then(|()| self.seal_segment(time));
        if let Err(error) = sealed {
            say!("the log ends without its seal: {error}");
        }
        // At once, and not in the background: most logs have one segment, and a queue is slow to go away.
        if let Some(segment) = self.segment.take() {
            self.synced(|_| segment.file.sync_data());
            self.synced(|_| File::open(".")?.sync_all());
        }
        self.synced(|log| log.sync.finish());
        let dropped = self.covered.dropped.saturating_add(self.missed.bytes);
        LogTotals {
            last_seq: self.last_seq(),
            bytes: self.covered.bytes.saturating_add(self.missed.bytes),
            dropped_bytes: dropped.saturating_add(self.evicted_bytes),
            tail_missing: self.sync_failed || self.missed.entries > 0,
        }
    }
}

/// A segment that is being written.
#[derive(Debug)]
struct Segment {
    file: File,
    header: SegmentHeader,
    /// The size of the file, all of it whole frames.
    size: u64,
    entries: u64,
    /// Part of a frame could not be cut off again; nothing may be appended.
    broken: bool,
}

impl Segment {
    fn create(header: SegmentHeader) -> io::Result<Self> {
        let name = frame::segment_file(header.index);
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&name)?;
        if let Err(error) = file.write_all(&header.encode()) {
            // The disk is full: the name is free again for the next try.
            fs::remove_file(&name)?;
            return Err(error);
        }
        let size = SEGMENT_HEADER_BYTES as u64;
        Ok(Self { file, header, size, entries: 0, broken: false })
    }

    /// Appends a frame whole or not at all.
    fn append(&mut self, head: &[u8], payload: &[u8]) -> io::Result<()> {
        match write_all(&mut self.file, head, payload) {
            Ok(()) => {
                self.size += (head.len() + payload.len()) as u64;
                Ok(())
            }
            Err(error) => {
                let cut = self.file.set_len(self.size);
                let back = self.file.seek(SeekFrom::Start(self.size));
                self.broken = cut.is_err() || back.is_err();
                Err(error)
            }
        }
    }
}

/// Writes both slices, with one call where the disk lets it.
fn write_all(file: &mut File, head: &[u8], payload: &[u8]) -> io::Result<()> {
    let mut slices = [IoSlice::new(head), IoSlice::new(payload)];
    let mut rest = &mut slices[..];
    while rest.iter().any(|slice| !slice.is_empty()) {
        match file.write_vectored(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut rest, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
