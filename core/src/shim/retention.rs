//! How a log keeps its byte cap: which segments there are, and which goes when room is needed.
//!
//! The head of the log stays, the oldest segment behind the head goes. Sizes are those of files, frames included, so the
//! payload is below the cap as well. No files here.

use std::collections::VecDeque;

use crate::shim::frame::{
    FRAME_HEADER_BYTES, MAX_ENTRY_BYTES, SEAL_BYTES, SEGMENT_BYTES, SEGMENT_HEADER_BYTES,
};

/// The smallest cap; a smaller one counts as this.
pub const MIN_CAP_BYTES: u64 = 64 * 1024;
/// Into how many segments a small cap is divided, half of them head.
const PARTS: u64 = 8;

/// A segment behind the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Closed {
    size: u64,
    evicted: Evicted,
}

/// A segment that has to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evicted {
    /// Its number.
    pub index: u64,
    /// The payload bytes that go with it.
    pub bytes: u64,
}

/// The segments of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    cap_bytes: u64,
    segment_bytes: u64,
    head_segments: u64,
    head_bytes: u64,
    tail: VecDeque<Closed>,
    tail_bytes: u64,
}

impl Retention {
    /// Returns an empty log with a cap.
    #[must_use]
    pub fn new(cap_bytes: u64) -> Self {
        let cap_bytes = cap_bytes.max(MIN_CAP_BYTES);
        let segment_bytes = (cap_bytes / PARTS).min(SEGMENT_BYTES);
        let head_segments = cap_bytes / 2 / segment_bytes;
        Self {
            cap_bytes,
            segment_bytes,
            head_segments,
            head_bytes: 0,
            tail: VecDeque::new(),
            tail_bytes: 0,
        }
    }

    /// Returns the size that no segment file exceeds.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Returns the most payload bytes of an entry, so that any entry fits into a segment.
    #[must_use]
    pub fn entry_bytes(&self) -> usize {
        let overhead = SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES + SEAL_BYTES;
        let room = usize::try_from(self.segment_bytes).unwrap_or(usize::MAX);
        room.saturating_sub(overhead).min(MAX_ENTRY_BYTES)
    }

    /// Says whether a segment of `size` bytes has room for `more` and its seal.
    #[must_use]
    pub fn fits(&self, size: u64, more: u64) -> bool {
        size.saturating_add(more).saturating_add(SEAL_BYTES as u64) <= self.segment_bytes
    }

    /// Notes that a segment was closed, with the size of its file and the payload bytes in it.
    pub fn closed(&mut self, index: u64, size: u64, bytes: u64) {
        if index <= self.head_segments {
            self.head_bytes = self.head_bytes.saturating_add(size);
        } else {
            self.tail.push_back(Closed { size, evicted: Evicted { index, bytes } });
            self.tail_bytes = self.tail_bytes.saturating_add(size);
        }
    }

    /// Returns the segment to delete so that one more fits under the cap, oldest first; call it until it is `None`.
    pub fn evict(&mut self) -> Option<Evicted> {
        let kept = self.head_bytes.saturating_add(self.tail_bytes);
        if kept.saturating_add(self.segment_bytes) <= self.cap_bytes {
            return None;
        }
        let Closed { size, evicted } = self.tail.pop_front()?;
        self.tail_bytes = self.tail_bytes.saturating_sub(size);
        Some(evicted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_default_cap_keeps_64_segments_of_head() {
        let retention = Retention::new(1 << 30);
        assert_eq!((retention.segment_bytes(), retention.head_segments), (SEGMENT_BYTES, 64));
        assert_eq!(retention.entry_bytes(), MAX_ENTRY_BYTES);
    }

    #[test]
    fn the_oldest_behind_the_head_goes_first() {
        let mut retention = Retention::new(0);
        let mut gone = Vec::new();
        for index in 1..=12 {
            while let Some(evicted) = retention.evict() {
                gone.push((evicted.index, evicted.bytes));
            }
            retention.closed(index, 8 * 1024, index);
        }
        assert_eq!(gone, [(5, 5), (6, 6), (7, 7), (8, 8)]);
    }

    proptest! {
        #[test]
        fn the_cap_holds_and_the_head_stays(cap in 0_u64..1 << 24, entries in proptest::collection::vec(0_usize..MAX_ENTRY_BYTES, 1..400)) {
            let mut retention = Retention::new(cap);
            let mut kept = std::collections::BTreeMap::new();
            let (mut index, mut size) = (1, SEGMENT_HEADER_BYTES as u64);
            for entry in entries {
                let frame = (entry.min(retention.entry_bytes()) + FRAME_HEADER_BYTES) as u64;
                if !retention.fits(size, frame) {
                    kept.insert(index, size + SEAL_BYTES as u64);
                    retention.closed(index, size + SEAL_BYTES as u64, 0);
                    while let Some(gone) = retention.evict() {
                        kept.remove(&gone.index);
                    }
                    (index, size) = (index + 1, SEGMENT_HEADER_BYTES as u64);
                }
                prop_assert!(retention.fits(size, frame));
                size += frame;
                let total = kept.values().sum::<u64>() + size;
                prop_assert!(total <= cap.max(MIN_CAP_BYTES), "{total}");
                prop_assert!(index == 1 || kept.contains_key(&1));
            }
        }
    }
}
