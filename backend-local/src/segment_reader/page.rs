//! One page of a log while it is being filled: what of it there is room for, and what is missing in it.

use bytes::Bytes;
use windlass_core::log_store::{GapCause, LogItem, Seq};
use windlass_core::shim::frame::{Frame, Gap};

use super::{Limits, PageRead, Position};

/// Makes an item of a frame; its bytes stay in the buffer. `None` for a seal.
pub(super) fn item(frame: &Frame<'_>, buffer: &Bytes) -> Option<LogItem> {
    match *frame {
        Frame::Entry { seq, time, stream, partial, bytes, len } => Some(LogItem::Entry {
            seq: Seq(seq),
            at: time.wall,
            stream,
            partial,
            bytes: if bytes.is_empty() { Bytes::new() } else { buffer.slice_ref(bytes) },
            len,
        }),
        Frame::Gap { gap, .. } => Some(gap_item(&gap)),
        Frame::Seal(_) => None,
    }
}

fn gap_item(gap: &Gap) -> LogItem {
    LogItem::Gap {
        first: Seq(gap.first_seq),
        last: Some(Seq(gap.last_seq)),
        bytes: gap.bytes,
        cause: gap.cause,
    }
}

/// A page being filled.
pub(super) struct Page {
    pub(super) items: Vec<LogItem>,
    bytes: u64,
    pub(super) seq: u64,
    pub(super) position: Option<Position>,
    pub(super) limits: Limits,
    pub(super) full: bool,
    pub(super) buffered: u64,
}

impl Page {
    pub(super) fn new(seq: u64, limits: Limits) -> Self {
        Self { items: Vec::new(), bytes: 0, seq, position: None, limits, full: false, buffered: 0 }
    }

    /// Says whether there is room for an item; one always fits.
    pub(super) fn take(&mut self, item: &Option<LogItem>) -> bool {
        let more = match item {
            Some(LogItem::Entry { seq, bytes, .. }) if seq.0 > self.seq => bytes.len() as u64,
            Some(LogItem::Entry { .. } | LogItem::Gap { .. }) | None => 0,
        };
        let over = self.items.len() >= self.limits.items
            || self.bytes.saturating_add(more) > self.limits.bytes;
        self.full = over && !self.items.is_empty();
        !self.full
    }

    /// Adds an item, and what is missing before it; passes over what is behind.
    pub(super) fn push(&mut self, item: LogItem) {
        let (first, last) = (item.first_seq().0, item.last_seq().0);
        if last <= self.seq {
            return;
        }
        if first > self.seq + 1 {
            let (first_seq, last_seq) = (self.seq + 1, first - 1);
            self.gap(Gap { first_seq, last_seq, bytes: 0, cause: GapCause::Power });
        }
        if let LogItem::Entry { bytes, .. } = &item {
            self.bytes += bytes.len() as u64;
        }
        self.items.push(item);
        self.seq = last;
    }

    pub(super) fn gap(&mut self, gap: Gap) {
        self.items.push(gap_item(&gap));
        self.seq = gap.last_seq;
    }

    pub(super) fn done(self) -> PageRead {
        let Self { items, seq, position, full, buffered, .. } = self;
        PageRead { items, next: seq, position, full, buffered }
    }
}
