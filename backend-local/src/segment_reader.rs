//! Reads a place's log segments: from any number on, a page at a time, while they are written.
//!
//! Blocking. Nothing is kept between pages but a [`Position`]; one page takes one buffer, which its items share. What is
//! unreadable in the midst becomes a gap; what a crash left at the end is passed over.

mod page;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};

use bytes::Bytes;
use rustix::fs::OFlags;
use windlass_core::id::{ExecutionId, Nonce};
use windlass_core::log_store::{GapCause, LogItem};
use windlass_core::shim::frame::{
    self, Decoded, Frame, Gap, MAX_ENTRY_BYTES, SEGMENT_HEADER_BYTES, Seal, SegmentError,
    SegmentHeader, missing_between, segment_file, segment_index,
};

use self::page::{Page, item};
use crate::place::PlaceDir;

/// Read at once at most, beyond what one frame needs.
const CHUNK_BYTES: u64 = 256 << 10;
/// The most that a frame takes.
const FRAME_BYTES: u64 = (frame::FRAME_HEADER_BYTES + MAX_ENTRY_BYTES) as u64;

/// A frame's border.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The segment.
    index: u64,
    /// Where in its file.
    offset: u64,
    /// The last number that is covered before it.
    seq: u64,
}

/// How much to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) items: usize,
    pub(crate) bytes: u64,
}

/// One page as it was read.
#[derive(Debug)]
pub(crate) struct PageRead {
    /// What there is.
    pub(crate) items: Vec<LogItem>,
    /// The last number that is covered.
    pub(crate) next: u64,
    /// Where it ended, if a segment was found at all.
    pub(crate) position: Option<Position>,
    /// A limit ended it; there may be more.
    pub(crate) full: bool,
    /// The bytes of the buffers that its items share.
    pub(crate) buffered: u64,
}

/// What a log sums up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) last_seq: u64,
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    pub(crate) dropped_bytes: u64,
}

/// The log of one start.
#[derive(Debug)]
pub(crate) struct SegmentReader<'a> {
    place: &'a PlaceDir,
    execution: ExecutionId,
    nonce: Nonce,
}

/// A segment, open.
#[derive(Debug)]
struct Segment {
    file: File,
    header: SegmentHeader,
}

/// What became of opening a segment.
enum Opened {
    /// It is there.
    Segment(Segment),
    /// It is being created, was torn, or is not what was written.
    Unreadable,
    /// The cap took it meanwhile.
    Gone,
}

/// How the frames of a segment end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// With the last one, or in the midst of one that may still be written.
    Open,
    /// At bytes that are no frame and never will be.
    Damage,
}

/// Bytes of a segment from some offset on.
struct Buffer {
    bytes: Bytes,
    /// How much of it was taken.
    taken: usize,
    /// The offset of the first byte that was not taken.
    offset: u64,
}

impl<'a> SegmentReader<'a> {
    /// Returns a reader for the log of one start.
    pub(crate) fn new(place: &'a PlaceDir, execution: ExecutionId, nonce: Nonce) -> Self {
        Self { place, execution, nonce }
    }

    /// Reads one page after a number. `hint` is where that number ends, if it is known.
    pub(crate) fn read_after(
        &self,
        seq: u64,
        hint: Option<Position>,
        limits: Limits,
    ) -> io::Result<PageRead> {
        let mut page = Page::new(seq, limits);
        if let Some(hint) = hint
            && let Opened::Segment(segment) = self.open(hint.index)?
        {
            self.read_from(segment, hint.offset, &mut page)?;
        } else if let Some((segment, offset)) = self.locate(seq)? {
            if page.items.is_empty() && segment.header.first_seq > seq.saturating_add(1) {
                page.gap(Gap {
                    first_seq: seq + 1,
                    last_seq: segment.header.first_seq - 1,
                    bytes: if seq == 0 { segment.header.bytes_before } else { 0 },
                    cause: GapCause::Power,
                });
            }
            self.read_from(segment, offset, &mut page)?;
        }
        Ok(page.done())
    }

    /// Reads one page from the first of the last `count` items on.
    pub(crate) fn read_tail(&self, count: usize, limits: Limits) -> io::Result<PageRead> {
        let start = self.tail(count)?;
        let Some(Position { index, offset, seq }) = start else {
            return Ok(Page::new(0, limits).done());
        };
        let mut page = Page::new(seq, limits);
        if let Opened::Segment(segment) = self.open(index)? {
            self.read_from(segment, offset, &mut page)?;
        }
        Ok(page.done())
    }

    /// Sums up the log: seals tell of their segments, what is not sealed is read.
    pub(crate) fn sums(&self) -> io::Result<Sums> {
        let mut sums = Sums::default();
        let mut before: Option<(SegmentHeader, Seal)> = None;
        for index in self.indices()? {
            let Opened::Segment(segment) = self.open(index)? else { continue };
            if let Some((header, seal)) = &before
                && let Some(gap) = missing_between(header, seal, &segment.header)
            {
                sums.dropped_bytes += gap.bytes;
            }
            let seal = match segment.seal()? {
                Some(seal) => seal,
                None => self.measure(&segment)?,
            };
            sums.entries += seal.entries;
            sums.dropped_bytes += seal.dropped;
            sums.last_seq = seal.last_seq;
            sums.bytes = segment.header.bytes_before + seal.bytes;
            before = Some((segment.header, seal));
        }
        Ok(sums)
    }

    /// Returns the last number.
    pub(crate) fn last_seq(&self) -> io::Result<u64> {
        for index in self.indices()?.into_iter().rev() {
            if let Opened::Segment(segment) = self.open(index)? {
                return Ok(match segment.seal()? {
                    Some(seal) => seal.last_seq,
                    None => self.measure(&segment)?.last_seq,
                });
            }
        }
        Ok(0)
    }

    /// Says whether something was written behind the last number that cannot be read any more. Bytes that a crash cut off
    /// in the midst of a frame are not that: nobody was promised them.
    pub(crate) fn ends_in_damage(&self) -> io::Result<bool> {
        for index in self.indices()?.into_iter().rev() {
            match self.open(index)? {
                Opened::Segment(segment) => {
                    return Ok(segment.seal()?.is_none() && segment.scan(|_, _| {})? == End::Damage);
                }
                Opened::Unreadable => {
                    let file = self.place.open(&segment_file(index), OFlags::RDONLY)?;
                    // One whose making was cut off has nothing behind its header.
                    if File::from(file).metadata()?.len() > SEGMENT_HEADER_BYTES as u64 {
                        return Ok(true);
                    }
                }
                Opened::Gone => {}
            }
        }
        Ok(false)
    }

    /// Reads a segment without a seal, as if to seal it.
    fn measure(&self, segment: &Segment) -> io::Result<Seal> {
        let header = segment.header;
        let mut seal =
            Seal { last_seq: header.first_seq.saturating_sub(1), bytes: 0, dropped: 0, entries: 0 };
        segment.scan(|frame, _| match frame {
            Frame::Entry { seq, len, .. } => {
                seal.last_seq = seq;
                seal.bytes += len;
                seal.entries += 1;
            }
            Frame::Gap { gap, .. } => {
                seal.last_seq = gap.last_seq;
                seal.bytes += gap.bytes;
                seal.dropped += gap.bytes;
            }
            Frame::Seal(_) => {}
        })?;
        Ok(seal)
    }

    /// Finds the segment in which the first number after `seq` is or will be.
    fn locate(&self, seq: u64) -> io::Result<Option<(Segment, u64)>> {
        // A segment that vanishes or cannot be read is left out and the search begins again; each time there is one less.
        let mut indices = self.indices()?;
        'search: loop {
            let (mut low, mut high) = (0, indices.len());
            let mut found = None;
            while low < high {
                let middle = usize::midpoint(low, high);
                match self.open(indices[middle])? {
                    Opened::Segment(segment)
                        if segment.header.first_seq <= seq.saturating_add(1) =>
                    {
                        low = middle + 1;
                        found = Some(segment);
                    }
                    Opened::Segment(_) => high = middle,
                    Opened::Unreadable | Opened::Gone => {
                        indices.remove(middle);
                        continue 'search;
                    }
                }
            }
            if found.is_none()
                && let Some(&first) = indices.first()
                && let Opened::Segment(segment) = self.open(first)?
            {
                found = Some(segment);
            }
            return Ok(found.map(|segment| (segment, SEGMENT_HEADER_BYTES as u64)));
        }
    }

    /// Finds the first of the last `count` items.
    fn tail(&self, count: usize) -> io::Result<Option<Position>> {
        let mut start = None;
        let mut wanted = count;
        for index in self.indices()?.into_iter().rev() {
            let Opened::Segment(segment) = self.open(index)? else { continue };
            let mut last: VecDeque<Position> = VecDeque::new();
            let mut seq = segment.header.first_seq.saturating_sub(1);
            segment.scan(|frame, offset| {
                let covered = match frame {
                    Frame::Entry { seq, .. } => seq,
                    Frame::Gap { gap, .. } => gap.last_seq,
                    Frame::Seal(_) => return,
                };
                if last.len() == wanted {
                    last.pop_front();
                }
                if wanted > 0 {
                    last.push_back(Position { index, offset, seq });
                }
                seq = covered;
            })?;
            // At the seal, if there is one: it tells of what is missing before it.
            let behind = if segment.seal()?.is_some() { frame::SEAL_BYTES as u64 } else { 0 };
            let end = Position { index, offset: segment.len()?.saturating_sub(behind), seq };
            wanted -= last.len();
            start = last.pop_front().or(start).or(Some(end));
            if wanted == 0 {
                break;
            }
        }
        Ok(start)
    }

    /// Fills a page from a frame's border on, over as many segments as it takes.
    fn read_from(&self, mut segment: Segment, offset: u64, page: &mut Page) -> io::Result<()> {
        let mut offset = offset;
        loop {
            let (end, seal) = segment.fill(offset, page)?;
            let index = segment.header.index;
            page.position = Some(Position { index, offset: end, seq: page.seq });
            if page.full {
                return Ok(());
            }
            // The next one is looked for before the end of this one is believed: it is sealed before there is a next.
            let Some(next) = self.next_after(index)? else {
                if let Some(seal) = seal.filter(|seal| seal.last_seq > page.seq) {
                    page.gap(self.lost_before(&segment, &seal, page.seq)?);
                }
                return Ok(());
            };
            let seal = match seal {
                Some(seal) => Some(seal),
                None => {
                    let (end, seal) = segment.fill(end, page)?;
                    page.position = Some(Position { index, offset: end, seq: page.seq });
                    if page.full {
                        return Ok(());
                    }
                    seal
                }
            };
            let first = next.header.first_seq;
            if first > page.seq.saturating_add(1) {
                page.gap(self.between(&segment, seal, &next.header, page.seq)?);
            }
            segment = next;
            offset = SEGMENT_HEADER_BYTES as u64;
            page.position = Some(Position { index: segment.header.index, offset, seq: page.seq });
        }
    }

    /// Returns what a seal counts and its segment lacks, after what was read of it: the seal reached the disk, and what
    /// stands before it did not.
    fn lost_before(&self, segment: &Segment, seal: &Seal, seq: u64) -> io::Result<Gap> {
        let there = self.measure(segment)?;
        // Who begins within it is not told the sum.
        let bytes = if there.last_seq == seq { seal.bytes.saturating_sub(there.bytes) } else { 0 };
        Ok(Gap { first_seq: seq + 1, last_seq: seal.last_seq, bytes, cause: GapCause::Power })
    }

    /// Returns what is missing between two segments, after what was read of the first.
    fn between(
        &self,
        segment: &Segment,
        seal: Option<Seal>,
        next: &SegmentHeader,
        seq: u64,
    ) -> io::Result<Gap> {
        let whole = match seal {
            Some(seal) => missing_between(&segment.header, &seal, next),
            // Never sealed, and yet there is a next one: its end was lost.
            None => missing_between(&segment.header, &self.measure(segment)?, next)
                .map(|gap| Gap { cause: GapCause::Power, ..gap }),
        };
        let last_seq = next.first_seq - 1;
        Ok(match whole {
            Some(gap) if gap.first_seq == seq + 1 => gap,
            // A part of it was passed already, or the seal covers more than could be read.
            Some(Gap { cause, .. }) => Gap { first_seq: seq + 1, last_seq, bytes: 0, cause },
            None => Gap { first_seq: seq + 1, last_seq, bytes: 0, cause: GapCause::Power },
        })
    }

    /// Opens the next segment that can be read.
    fn next_after(&self, index: u64) -> io::Result<Option<Segment>> {
        if let Opened::Segment(segment) = self.open(index + 1)? {
            return Ok(Some(segment));
        }
        for later in self.indices()?.into_iter().filter(|later| *later > index) {
            if let Opened::Segment(segment) = self.open(later)? {
                return Ok(Some(segment));
            }
        }
        Ok(None)
    }

    /// Lists the segments that are there.
    fn indices(&self) -> io::Result<Vec<u64>> {
        let mut indices: Vec<u64> =
            self.place.files()?.iter().filter_map(|name| segment_index(name)).collect();
        indices.sort_unstable();
        Ok(indices)
    }

    fn open(&self, index: u64) -> io::Result<Opened> {
        let mut file = match self.place.open(&segment_file(index), OFlags::RDONLY) {
            Ok(file) => File::from(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Opened::Gone),
            Err(error) => return Err(error),
        };
        let mut front = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        (&mut file).take(SEGMENT_HEADER_BYTES as u64).read_to_end(&mut front)?;
        match SegmentHeader::decode(&front) {
            Ok(header)
                if (header.execution, header.nonce, header.index)
                    == (self.execution, self.nonce, index) =>
            {
                Ok(Opened::Segment(Segment { file, header }))
            }
            Ok(_) | Err(SegmentError::Incomplete | SegmentError::Damaged) => Ok(Opened::Unreadable),
            Err(SegmentError::Newer { version }) => {
                let message = format!("segment {index} is of the newer version {version}");
                Err(io::Error::new(io::ErrorKind::Unsupported, message))
            }
        }
    }
}

impl Segment {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Reads at most `len` bytes at an offset.
    fn bytes_at(&self, offset: u64, len: u64) -> io::Result<Bytes> {
        let there = self.len()?.saturating_sub(offset).min(len);
        let mut bytes = Vec::with_capacity(usize::try_from(there).unwrap_or(0));
        let mut file = &self.file;
        file.seek(SeekFrom::Start(offset))?;
        file.take(there).read_to_end(&mut bytes)?;
        Ok(Bytes::from(bytes))
    }

    /// Returns the seal at its end, if there is one.
    fn seal(&self) -> io::Result<Option<Seal>> {
        let seal = frame::SEAL_BYTES as u64;
        let at = self.len()?.saturating_sub(seal).max(SEGMENT_HEADER_BYTES as u64);
        Ok(frame::decode_seal(&self.bytes_at(at, seal)?))
    }

    /// Puts what follows an offset into a page; returns where it stopped, and the seal if it is all there was.
    fn fill(&self, offset: u64, page: &mut Page) -> io::Result<(u64, Option<Seal>)> {
        let chunk = page.limits.bytes.saturating_add(FRAME_BYTES).min(CHUNK_BYTES);
        let mut buffer = Buffer::at(offset);
        loop {
            match frame::decode(buffer.rest()) {
                Decoded::Frame { frame: Frame::Seal(seal), .. } => {
                    return Ok((buffer.offset, Some(seal)));
                }
                Decoded::Frame { frame, len } => {
                    let item = item(&frame, &buffer.bytes);
                    if !page.take(&item) {
                        return Ok((buffer.offset, None));
                    }
                    if let Some(item) = item {
                        page.push(item);
                    }
                    buffer.take(len);
                }
                Decoded::Incomplete { need } => {
                    if !buffer.refill(self, need as u64, chunk)? {
                        return Ok((buffer.offset, None));
                    }
                    page.buffered += buffer.bytes.len() as u64;
                }
                Decoded::Corrupt => {
                    if !buffer.resync(self, page.seq)? {
                        return Ok((buffer.offset, None));
                    }
                    page.buffered += buffer.bytes.len() as u64;
                }
            }
        }
    }

    /// Shows every frame with its offset; says how the segment ends.
    fn scan(&self, mut see: impl FnMut(Frame<'_>, u64)) -> io::Result<End> {
        let mut buffer = Buffer::at(SEGMENT_HEADER_BYTES as u64);
        let mut seq = self.header.first_seq.saturating_sub(1);
        loop {
            match frame::decode(buffer.rest()) {
                Decoded::Frame { frame, len } => {
                    seq = match frame {
                        Frame::Entry { seq, .. } => seq,
                        Frame::Gap { gap, .. } => gap.last_seq,
                        Frame::Seal(_) => seq,
                    };
                    see(frame, buffer.offset);
                    buffer.take(len);
                }
                Decoded::Incomplete { need } => {
                    if !buffer.refill(self, need as u64, CHUNK_BYTES)? {
                        return Ok(End::Open);
                    }
                }
                Decoded::Corrupt => {
                    if !buffer.resync(self, seq)? {
                        return Ok(End::Damage);
                    }
                }
            }
        }
    }
}

impl Buffer {
    fn at(offset: u64) -> Self {
        Self { bytes: Bytes::new(), taken: 0, offset }
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.taken..).unwrap_or_default()
    }

    fn take(&mut self, len: usize) {
        self.taken += len;
        self.offset += len as u64;
    }

    /// Reads on; `false` if there are not `need` bytes.
    fn refill(&mut self, segment: &Segment, need: u64, chunk: u64) -> io::Result<bool> {
        let bytes = segment.bytes_at(self.offset, need.max(chunk))?;
        if (bytes.len() as u64) < need {
            return Ok(false);
        }
        self.bytes = bytes;
        self.taken = 0;
        Ok(true)
    }

    /// Goes on to the next frame behind bytes that are none; `false` if there is none.
    fn resync(&mut self, segment: &Segment, seq: u64) -> io::Result<bool> {
        let rest = segment.bytes_at(self.offset, frame::SEGMENT_BYTES)?;
        for skipped in 1..rest.len() {
            let found = match frame::decode(rest.get(skipped..).unwrap_or_default()) {
                Decoded::Frame { frame: Frame::Entry { seq: found, .. }, .. } => found > seq,
                Decoded::Frame { frame: Frame::Gap { gap, .. }, .. } => gap.first_seq > seq,
                Decoded::Frame { frame: Frame::Seal(seal), .. } => seal.last_seq >= seq,
                Decoded::Incomplete { .. } | Decoded::Corrupt => false,
            };
            if found {
                self.bytes = rest;
                self.taken = skipped;
                self.offset += skipped as u64;
                return Ok(true);
            }
        }
        Ok(false)
    }
}
