//! One log: what its segments hold, how much of it is on the disk, and what its writer knows.

use std::collections::VecDeque;

use bytes::Bytes;
use windlass_core::log_store::{
    From, GapCause, LogItem, LogPage, LogStatus, ReadOptions, Seq, Stream,
};
use windlass_core::shim::frame::{
    FRAME_HEADER_BYTES, MAX_ENTRY_BYTES, SEAL_BYTES, SEGMENT_HEADER_BYTES,
};
use windlass_core::shim::machine::LogTotals;
use windlass_core::shim::retention::Retention;
use windlass_core::time::Timestamp;

use crate::world::Unsynced;

/// The payload of the frame of a secret.
const SECRET_BYTES: usize = 8;
/// The payload of the frame of a gap.
const GAP_BYTES: usize = 16;

/// One log: a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Log {
    /// Entries and gaps without a hole.
    items: Vec<LogItem>,
    /// How many of them are on the disk.
    on_disk: usize,
    /// What they sum up to.
    sums: LogStatus,
    /// It was said that nothing follows, beside the journal.
    pub(crate) marked: bool,
    /// What a power loss left behind the last item is no frame and never was.
    pub(crate) ends_in_damage: bool,
    writer: Option<Box<Writer>>,
}

/// What the shim that writes it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Writer {
    retention: Retention,
    /// The segment that is being written: its size and the payload in it.
    segment: Option<Segment>,
    index: u64,
    /// The segments that are there and complete, by the numbers that they cover.
    closed: VecDeque<(u64, Seq, Seq)>,
    /// Entries that could not be written, and their bytes.
    missed: (u64, u64),
    evicted_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    size: u64,
    first: Seq,
    /// Payload bytes that are kept.
    kept: u64,
}

impl Log {
    /// Begins to be written by a shim.
    pub(crate) fn begin(&mut self, cap_bytes: u64) {
        let (segment, index, closed) = (None, 0, VecDeque::new());
        let retention = Retention::new(cap_bytes);
        let writer = Writer { retention, segment, index, closed, missed: (0, 0), evicted_bytes: 0 };
        self.writer = Some(Box::new(writer));
    }

    /// Returns the most bytes of one entry.
    pub(crate) fn entry_bytes(&self) -> usize {
        let writer = self.writer.as_ref();
        writer.map_or(MAX_ENTRY_BYTES, |writer| writer.retention.entry_bytes())
    }

    /// Says whether its writer never had anything to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty() && self.missed() == (0, 0)
    }

    fn missed(&self) -> (u64, u64) {
        self.writer.as_ref().map_or((0, 0), |writer| writer.missed)
    }

    /// Returns the last number that is in it.
    pub(crate) fn last(&self) -> Seq {
        self.items.last().map_or(Seq(0), LogItem::last_seq)
    }

    fn next(&self) -> Seq {
        Seq(self.last().0 + self.missed().0 + 1)
    }

    /// Writes what was read from a command or given to it; where the disk has no room, it is counted.
    pub(crate) fn entry(
        &mut self,
        at: Timestamp,
        stream: Stream,
        partial: bool,
        bytes: Bytes,
        has_room: bool,
    ) {
        let len = bytes.len() as u64;
        let frame = FRAME_HEADER_BYTES + bytes.len();
        let item = LogItem::Entry { seq: self.next(), at, stream, partial, bytes, len };
        self.write(item, frame, len, has_room);
    }

    /// Writes that something secret was given to the command.
    pub(crate) fn secret(&mut self, at: Timestamp, partial: bool, len: u64, has_room: bool) {
        let (seq, stream) = (self.next(), Stream::Stdin);
        let item = LogItem::Entry { seq, at, stream, partial, bytes: Bytes::new(), len };
        self.write(item, FRAME_HEADER_BYTES + SECRET_BYTES, len, has_room);
    }

    fn write(&mut self, item: LogItem, frame: usize, len: u64, has_room: bool) {
        if has_room {
            self.fill_gap();
            self.make_room(frame as u64);
            if let Some(segment) = self.segment() {
                segment.size += frame as u64;
                segment.kept += len;
            }
            self.push(item);
        } else if let Some(writer) = &mut self.writer {
            writer.missed = (writer.missed.0 + 1, writer.missed.1 + len);
        }
    }

    fn segment(&mut self) -> Option<&mut Segment> {
        self.writer.as_mut()?.segment.as_mut()
    }

    /// Writes the gap for what was missed.
    fn fill_gap(&mut self) {
        let (entries, bytes) = self.missed();
        if entries == 0 {
            return;
        }
        let frame = (FRAME_HEADER_BYTES + GAP_BYTES) as u64;
        self.make_room(frame);
        let first = Seq(self.last().0 + 1);
        let last = Some(Seq(self.last().0 + entries));
        if let Some(segment) = self.segment() {
            segment.size += frame;
        }
        if let Some(writer) = &mut self.writer {
            writer.missed = (0, 0);
        }
        self.push(LogItem::Gap { first, last, bytes, cause: GapCause::Full });
    }

    /// Goes on in another segment if this one has no room for a frame, and lets the oldest go for it.
    fn make_room(&mut self, frame: u64) {
        let last = self.last();
        let Some(writer) = &mut self.writer else { return };
        let fits = |segment: &Segment| writer.retention.fits(segment.size, frame);
        if writer.segment.as_ref().is_some_and(fits) {
            return;
        }
        let mut gone = Vec::new();
        if let Some(segment) = writer.segment.take() {
            let size = segment.size + SEAL_BYTES as u64;
            writer.retention.closed(writer.index, size, segment.kept);
            writer.closed.push_back((writer.index, segment.first, last));
            self.on_disk = self.items.len();
        }
        while let Some(evicted) = writer.retention.evict() {
            writer.evicted_bytes += evicted.bytes;
            let at = writer.closed.iter().position(|(index, _, _)| *index == evicted.index);
            gone.extend(at.and_then(|at| writer.closed.remove(at)).map(|it| (it, evicted.bytes)));
        }
        writer.index += 1;
        let size = SEGMENT_HEADER_BYTES as u64;
        writer.segment = Some(Segment { size, first: Seq(last.0 + 1), kept: 0 });
        for ((_, first, last), _) in gone {
            self.evict(first, last);
        }
    }

    /// Puts a gap in the place of some numbers, one with the gap before it.
    fn evict(&mut self, first: Seq, last: Seq) {
        let from = self.items.partition_point(|item| item.last_seq() < first);
        let to = self.items.partition_point(|item| item.last_seq() <= last);
        let mut all = LogStatus::default();
        self.items[from..to].iter().for_each(|item| all.count(item));
        let before = from.checked_sub(1).and_then(|before| self.items.get(before));
        let (from, first, bytes) = match before {
            Some(LogItem::Gap { first, bytes, cause: GapCause::Cap, .. }) => {
                (from - 1, *first, *bytes + all.bytes)
            }
            Some(_) | None => (from, first, all.bytes),
        };
        let gap = LogItem::Gap { first, last: Some(last), bytes, cause: GapCause::Cap };
        let removed = to - from;
        self.items.splice(from..to, [gap]);
        self.on_disk = (self.on_disk + 1).saturating_sub(removed).min(self.items.len());
        self.sums.entries -= all.entries;
        self.sums.dropped_bytes += all.bytes - all.dropped_bytes;
    }

    /// Adds an item that goes on where it ends.
    pub(crate) fn push(&mut self, item: LogItem) {
        assert!(!self.marked, "nothing follows the end of a log: {item:?}");
        let next = Seq(self.last().0 + 1);
        assert_eq!(item.first_seq(), next, "a log has neither hole nor repeat: {item:?}");
        assert!(item.last_seq() >= item.first_seq(), "an item ends before it begins: {item:?}");
        self.sums.count(&item);
        self.items.push(item);
    }

    /// Ends what is written: the last gap, if there is room for it.
    pub(crate) fn seal(&mut self, has_room: bool) {
        if has_room {
            self.fill_gap();
        }
    }

    /// Notes that all of it is on the disk; says what there is.
    pub(crate) fn sync(&mut self) -> LogTotals {
        self.on_disk = self.items.len();
        let (entries, bytes) = self.missed();
        let evicted = self.writer.as_ref().map_or(0, |writer| writer.evicted_bytes);
        // What the cap took is in the sums as dropped already.
        let written_off = self.sums.dropped_bytes.saturating_sub(evicted);
        LogTotals {
            last_seq: self.last().0 + entries,
            bytes: self.sums.bytes + bytes,
            dropped_bytes: written_off + bytes + evicted,
            tail_missing: entries > 0,
        }
    }

    /// Loses power.
    pub(crate) fn lose(&mut self, unsynced: Unsynced) {
        let written = self.items.len() - self.on_disk;
        let kept = unsynced.kept(written);
        self.ends_in_damage |= matches!(unsynced, Unsynced::Zeroed { .. }) && kept < written;
        self.items.truncate(self.on_disk + kept);
        self.on_disk = self.items.len();
        self.sums = LogStatus::default();
        for item in &self.items {
            self.sums.count(item);
        }
        self.writer = None;
    }

    /// Says what there is, without what a journal knows beyond it.
    pub(crate) fn sums(&self) -> LogStatus {
        self.sums
    }

    /// Returns the bytes of output, in order.
    pub(crate) fn output(&self) -> Vec<u8> {
        let mut output = Vec::new();
        for item in &self.items {
            match item {
                LogItem::Entry { stream, bytes, .. } if *stream != Stream::Stdin => {
                    output.extend_from_slice(bytes);
                }
                LogItem::Entry { .. } | LogItem::Gap { .. } => {}
            }
        }
        output
    }

    /// Returns its items.
    pub(crate) fn items(&self) -> &[LogItem] {
        &self.items
    }

    /// Reads a page; `tail` stands for what is missing behind the last item, and `ends` says that nothing follows it.
    pub(crate) fn read(&self, options: ReadOptions, tail: Option<LogItem>, ends: bool) -> LogPage {
        let (start, mut next) = match options.from {
            From::After(after) => {
                (self.items.partition_point(|item| item.last_seq() <= after), after)
            }
            From::Tail(count) => {
                let start = self.items.len().saturating_sub(count as usize);
                let before = start.checked_sub(1).and_then(|before| self.items.get(before));
                (start, before.map_or(Seq(0), LogItem::last_seq))
            }
        };
        let mut items = Vec::new();
        let mut bytes = 0;
        for item in self.items.iter().skip(start).take(options.max_items.max(1) as usize) {
            bytes += payload(item);
            if bytes > options.max_bytes && !items.is_empty() {
                break;
            }
            items.push(rest_of(item, next));
            next = item.last_seq();
        }
        let end = ends && start + items.len() == self.items.len();
        if let Some(tail) = tail.filter(|tail| end && tail.last_seq() > next) {
            next = tail.last_seq();
            items.push(tail);
        }
        LogPage { items: items.into(), next, end }
    }
}

/// Returns what is left of an item for who has read up to a number: of a gap that reaches back, the rest, and how many
/// bytes that had is not known.
fn rest_of(item: &LogItem, read: Seq) -> LogItem {
    match item {
        LogItem::Gap { first, last, cause, .. } if *first <= read => {
            LogItem::Gap { first: Seq(read.0 + 1), last: *last, bytes: 0, cause: *cause }
        }
        item => item.clone(),
    }
}

/// Returns how many bytes of a page an item takes.
fn payload(item: &LogItem) -> u64 {
    match item {
        LogItem::Entry { bytes, .. } => bytes.len() as u64,
        LogItem::Gap { .. } => 0,
    }
}
