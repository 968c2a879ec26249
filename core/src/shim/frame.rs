//! Log frames and segments: how entries lie on disk.
//!
//! A log is a row of segment files, numbered from 1. Each begins with a [`SegmentHeader`] and holds frames: entries,
//! gaps, and at the end of every segment but the one being written a [`Seal`]. `docs/formats.md` has it byte by byte.
//! Decoding copies nothing. Nothing here reads or writes a file.
//!
//! - **Following.** Bytes below the length of a file are never changed, but for one case: a frame that the disk had no
//!   room for is cut off again. So [`Decoded::Incomplete`] says "read again from here when there is more", and
//!   [`Decoded::Corrupt`] says that waiting is of no use. A reader never keeps part of a frame.
//! - **Ends.** A seal ends a segment. What a shim's death or a power cut left at the end of an unsealed one, incomplete
//!   or corrupt, is a tail to be ignored.
//! - **Gaps.** What the byte cap took is a row of missing segments. [`missing_between`] says what was in them, from the
//!   seal before and the header after. Everything else that is missing has a gap frame in its place.

use crate::id::{ExecutionId, Nonce};
use crate::shim::wire::{Malformed, Reader, Wire, Writer};
use crate::time::Timestamp;

/// The most payload bytes of an entry.
pub const MAX_ENTRY_BYTES: usize = 64 * 1024;
/// The size that a segment file does not exceed.
pub const SEGMENT_BYTES: u64 = 8 << 20;
/// The size of a segment's header.
pub const SEGMENT_HEADER_BYTES: usize = HEADER_BYTES as usize;
/// The size of a frame without its payload.
pub const FRAME_HEADER_BYTES: usize = 36;
/// The size of a seal frame: the last bytes of a sealed segment.
pub const SEAL_BYTES: usize = FRAME_HEADER_BYTES + 24;
/// The version that this code writes.
pub const SEGMENT_VERSION: u16 = 1;

const MAGIC: [u8; 8] = *b"WLSEGMT\n";
const HEADER_BYTES: u16 = 96;

/// Which stream an entry came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "ports", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "ports", serde(rename_all = "snake_case"))]
pub enum Stream {
    /// Standard output, or both where they are merged.
    Stdout,
    /// Standard error.
    Stderr,
    /// A terminal.
    Pty,
    /// What was written to standard input.
    Stdin,
}

/// Why numbers are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "ports", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "ports", serde(rename_all = "snake_case"))]
pub enum GapCause {
    /// The byte cap: head and tail are kept.
    Cap,
    /// The disk was full.
    Full,
    /// The reader asked for drops instead of back-pressure.
    Dropped,
    /// The machine lost power before the bytes were synced, or the shim died.
    Power,
}

/// The front of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Whose log it is.
    pub execution: ExecutionId,
    /// Which start wrote it.
    pub nonce: Nonce,
    /// The segment's number, from 1; also the name of its file.
    pub index: u64,
    /// The number of the first entry that it holds or will hold.
    pub first_seq: u64,
    /// Payload bytes of all numbers before, kept or not.
    pub bytes_before: u64,
    /// Those of them that gap frames stand for.
    pub dropped_before: u64,
}

impl SegmentHeader {
    /// Returns the header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut header = Writer::new();
        header.raw(&MAGIC);
        header.u16(SEGMENT_VERSION);
        header.u16(HEADER_BYTES);
        self.execution.put(&mut header);
        self.nonce.put(&mut header);
        header.u64(self.index);
        header.u64(self.first_seq);
        header.u64(self.bytes_before);
        header.u64(self.dropped_before);
        let header = header.into_bytes();
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[..header.len()].copy_from_slice(&header);
        let crc = crc32fast::hash(&bytes[..SEGMENT_HEADER_BYTES - 4]);
        bytes[SEGMENT_HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the front of a segment file.
    ///
    /// # Errors
    ///
    /// See [`SegmentError`].
    pub fn decode(file: &[u8]) -> Result<Self, SegmentError> {
        let Some(header) = file.get(..SEGMENT_HEADER_BYTES) else {
            return Err(SegmentError::Incomplete);
        };
        Self::read(header).map_err(|Malformed| SegmentError::Damaged)?
    }

    fn read(header: &[u8]) -> Result<Result<Self, SegmentError>, Malformed> {
        let from = &mut Reader::new(header);
        if from.array::<8>()? != MAGIC {
            return Err(Malformed);
        }
        // Of every version: magic, version, and nothing after them before the version is known.
        let version = from.u16()?;
        if version > SEGMENT_VERSION {
            return Ok(Err(SegmentError::Newer { version }));
        }
        let (body, crc) = header.split_at(SEGMENT_HEADER_BYTES - 4);
        if from.u16()? != HEADER_BYTES || crc32fast::hash(body) != Reader::new(crc).u32()? {
            return Err(Malformed);
        }
        Ok(Ok(Self {
            execution: Wire::get(from)?,
            nonce: Wire::get(from)?,
            index: from.u64()?,
            first_seq: from.u64()?,
            bytes_before: from.u64()?,
            dropped_before: from.u64()?,
        }))
    }
}

/// Why a file does not begin as a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentError {
    /// It is shorter than a header: being created, or torn by a crash.
    Incomplete,
    /// It is not what was written.
    Damaged,
    /// It is of a newer version.
    Newer {
        /// Its version.
        version: u16,
    },
}

/// When something was read, by both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameTime {
    /// By the wall clock of its node.
    pub wall: Timestamp,
    /// Nanoseconds since the boot, sleep included: never goes back within one boot.
    pub boot_ns: u64,
}

/// A run of numbers that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first missing number.
    pub first_seq: u64,
    /// The last missing number.
    pub last_seq: u64,
    /// The payload bytes that they had.
    pub bytes: u64,
    /// Why.
    pub cause: GapCause,
}

/// The end of a segment: what is in it, so that a reader that skips it can still count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The last number that the segment covers; one below its first if it covers none.
    pub last_seq: u64,
    /// Payload bytes of the numbers that it covers, kept or not.
    pub bytes: u64,
    /// Those of them that gap frames stand for.
    pub dropped: u64,
    /// The entries in it.
    pub entries: u64,
}

/// One frame, its payload still in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A piece of a stream.
    Entry {
        /// Its number.
        seq: u64,
        /// When it was read, or for input taken.
        time: FrameTime,
        /// Which stream.
        stream: Stream,
        /// It does not end a line.
        partial: bool,
        /// The bytes; empty if they are secret.
        bytes: &'a [u8],
        /// How many bytes it stands for: more than `bytes` has only where they are secret.
        len: u64,
    },
    /// What stands for missing entries.
    Gap {
        /// Which.
        gap: Gap,
        /// When it was written.
        time: FrameTime,
    },
    /// The end of the segment.
    Seal(Seal),
}

/// What is at the front of some bytes of a segment, past its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// A frame.
    Frame {
        /// It.
        frame: Frame<'a>,
        /// How many bytes it takes.
        len: usize,
    },
    /// Not all of a frame is there.
    Incomplete {
        /// How many bytes it takes at least, counted from its front.
        need: usize,
    },
    /// These bytes are no frame and never will be.
    Corrupt,
}

const ENTRY: u8 = 1;
const SECRET: u8 = 2;
const GAP: u8 = 3;
const SEAL: u8 = 4;
const PARTIAL: u8 = 1;

/// Returns the bytes in front of an entry's payload, checksum included.
///
/// `bytes` are at most [`MAX_ENTRY_BYTES`]; the caller writes them right after.
#[must_use]
pub fn encode_entry_header(
    seq: u64,
    time: FrameTime,
    stream: Stream,
    partial: bool,
    bytes: &[u8],
) -> [u8; FRAME_HEADER_BYTES] {
    header(ENTRY, stream_code(stream), if partial { PARTIAL } else { 0 }, seq, time, bytes)
}

/// Returns the frame of an entry whose bytes are not kept, only their number.
#[must_use]
pub fn encode_secret(
    seq: u64,
    time: FrameTime,
    stream: Stream,
    partial: bool,
    len: u64,
) -> Vec<u8> {
    let flags = if partial { PARTIAL } else { 0 };
    whole(SECRET, stream_code(stream), flags, seq, time, &len.to_le_bytes())
}

/// Returns the frame of a gap.
#[must_use]
pub fn encode_gap(gap: &Gap, time: FrameTime) -> Vec<u8> {
    let mut payload = Writer::new();
    payload.u64(gap.first_seq);
    payload.u64(gap.bytes);
    whole(GAP, cause_code(gap.cause), 0, gap.last_seq, time, &payload.into_bytes())
}

/// Returns the frame that ends a segment: always [`SEAL_BYTES`].
#[must_use]
pub fn encode_seal(seal: &Seal, time: FrameTime) -> Vec<u8> {
    let mut payload = Writer::new();
    payload.u64(seal.bytes);
    payload.u64(seal.dropped);
    payload.u64(seal.entries);
    whole(SEAL, 0, 0, seal.last_seq, time, &payload.into_bytes())
}

/// Reads the frame at the front of `bytes`, which begin at a frame's border of a segment.
#[must_use]
pub fn decode(bytes: &[u8]) -> Decoded<'_> {
    let Some((head, rest)) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>() else {
        return Decoded::Incomplete { need: FRAME_HEADER_BYTES };
    };
    match decode_whole(head, rest) {
        Ok(decoded) => decoded,
        Err(Malformed) => Decoded::Corrupt,
    }
}

fn decode_whole<'a>(
    head: &[u8; FRAME_HEADER_BYTES],
    rest: &'a [u8],
) -> Result<Decoded<'a>, Malformed> {
    let from = &mut Reader::new(head);
    let crc = from.u32()?;
    let len = usize::try_from(from.u32()?).map_err(|_| Malformed)?;
    let (kind, code, flags) = (from.u8()?, from.u8()?, from.u16()?);
    let (seq, wall, boot_ns) = (from.u64()?, Timestamp(from.u64()?), from.u64()?);
    // A length that cannot be is found out at once, or a follower would wait for it for ever.
    let possible = match kind {
        ENTRY => len <= MAX_ENTRY_BYTES,
        SECRET => len == 8,
        GAP => len == 16,
        SEAL => len == 24,
        0 | 5..=u8::MAX => false,
    };
    if !possible {
        return Err(Malformed);
    }
    let Some(payload) = rest.get(..len) else {
        return Ok(Decoded::Incomplete { need: FRAME_HEADER_BYTES + len });
    };
    if checksum(head, payload) != crc {
        return Err(Malformed);
    }
    let time = FrameTime { wall, boot_ns };
    let partial = flags & u16::from(PARTIAL) != 0;
    let frame = frame(kind, code, partial, seq, time, payload)?;
    Ok(Decoded::Frame { frame, len: FRAME_HEADER_BYTES + len })
}

/// Makes a frame of fields whose checksum is right.
fn frame(
    kind: u8,
    code: u8,
    partial: bool,
    seq: u64,
    time: FrameTime,
    payload: &[u8],
) -> Result<Frame<'_>, Malformed> {
    let fields = &mut Reader::new(payload);
    match kind {
        ENTRY => {
            let (stream, len) = (stream_of(code)?, payload.len() as u64);
            Ok(Frame::Entry { seq, time, stream, partial, bytes: payload, len })
        }
        SECRET => {
            let (stream, len) = (stream_of(code)?, fields.u64()?);
            Ok(Frame::Entry { seq, time, stream, partial, bytes: &[], len })
        }
        GAP => {
            let (first_seq, bytes) = (fields.u64()?, fields.u64()?);
            let gap = Gap { first_seq, last_seq: seq, bytes, cause: cause_of(code)? };
            Ok(Frame::Gap { gap, time })
        }
        SEAL => {
            let (bytes, dropped, entries) = (fields.u64()?, fields.u64()?, fields.u64()?);
            Ok(Frame::Seal(Seal { last_seq: seq, bytes, dropped, entries }))
        }
        0 | 5..=u8::MAX => Err(Malformed),
    }
}

/// Reads the seal off the end of a segment file, if it is sealed. `end` are its last bytes, [`SEAL_BYTES`] or more.
#[must_use]
pub fn decode_seal(end: &[u8]) -> Option<Seal> {
    let seal = end.len().checked_sub(SEAL_BYTES).map(|from| &end[from..])?;
    match decode(seal) {
        Decoded::Frame { frame: Frame::Seal(seal), len: SEAL_BYTES } => Some(seal),
        Decoded::Frame { .. } | Decoded::Incomplete { .. } | Decoded::Corrupt => None,
    }
}

/// Returns what was in the segments between two that are there; `None` if no number is missing.
#[must_use]
pub fn missing_between(before: &SegmentHeader, seal: &Seal, after: &SegmentHeader) -> Option<Gap> {
    let first_seq = seal.last_seq.saturating_add(1);
    (after.first_seq > first_seq).then(|| Gap {
        first_seq,
        last_seq: after.first_seq - 1,
        bytes: after.bytes_before.saturating_sub(before.bytes_before.saturating_add(seal.bytes)),
        cause: GapCause::Cap,
    })
}

fn header(
    kind: u8,
    code: u8,
    flags: u8,
    seq: u64,
    time: FrameTime,
    payload: &[u8],
) -> [u8; FRAME_HEADER_BYTES] {
    let mut head = [0; FRAME_HEADER_BYTES];
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    head[4..8].copy_from_slice(&len.to_le_bytes());
    head[8] = kind;
    head[9] = code;
    head[10] = flags;
    head[12..20].copy_from_slice(&seq.to_le_bytes());
    head[20..28].copy_from_slice(&time.wall.0.to_le_bytes());
    head[28..36].copy_from_slice(&time.boot_ns.to_le_bytes());
    let crc = checksum(&head, payload);
    head[..4].copy_from_slice(&crc.to_le_bytes());
    head
}

fn whole(kind: u8, code: u8, flags: u8, seq: u64, time: FrameTime, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(kind, code, flags, seq, time, payload).to_vec();
    frame.extend_from_slice(payload);
    frame
}

fn checksum(head: &[u8; FRAME_HEADER_BYTES], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&head[4..]);
    hasher.update(payload);
    hasher.finalize()
}

fn stream_code(stream: Stream) -> u8 {
    match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
        Stream::Pty => 3,
        Stream::Stdin => 4,
    }
}

fn stream_of(code: u8) -> Result<Stream, Malformed> {
    match code {
        1 => Ok(Stream::Stdout),
        2 => Ok(Stream::Stderr),
        3 => Ok(Stream::Pty),
        4 => Ok(Stream::Stdin),
        0 | 5..=u8::MAX => Err(Malformed),
    }
}

fn cause_code(cause: GapCause) -> u8 {
    match cause {
        GapCause::Cap => 1,
        GapCause::Full => 2,
        GapCause::Dropped => 3,
        GapCause::Power => 4,
    }
}

fn cause_of(code: u8) -> Result<GapCause, Malformed> {
    match code {
        1 => Ok(GapCause::Cap),
        2 => Ok(GapCause::Full),
        3 => Ok(GapCause::Dropped),
        4 => Ok(GapCause::Power),
        0 | 5..=u8::MAX => Err(Malformed),
    }
}

/// Returns the name of a segment's file.
#[must_use]
pub fn segment_file(index: u64) -> String {
    format!("{index:08}.seg")
}

/// Reads the number out of a segment file's name.
#[must_use]
pub fn segment_index(name: &str) -> Option<u64> {
    let index = name.strip_suffix(".seg")?.parse().ok()?;
    (index > 0 && segment_file(index) == name).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    const TIME: FrameTime = FrameTime { wall: Timestamp(1_700_000_000_000), boot_ns: 42 };

    fn segment(index: u64, first_seq: u64, bytes_before: u64) -> SegmentHeader {
        SegmentHeader {
            execution: ExecutionId(Uuid::from_u128(1)),
            nonce: Nonce(Uuid::from_u128(2)),
            index,
            first_seq,
            bytes_before,
            dropped_before: 3,
        }
    }

    fn entry(seq: u64, bytes: &[u8]) -> Vec<u8> {
        let mut frame = encode_entry_header(seq, TIME, Stream::Stderr, true, bytes).to_vec();
        frame.extend_from_slice(bytes);
        frame
    }

    fn frames() -> Vec<Vec<u8>> {
        let gap = Gap { first_seq: 8, last_seq: 11, bytes: 900, cause: GapCause::Full };
        vec![
            entry(7, b"hello\xff\0"),
            entry(8, b""),
            entry(9, &[b'x'; MAX_ENTRY_BYTES]),
            encode_secret(10, TIME, Stream::Stdin, false, 77),
            encode_gap(&gap, TIME),
            encode_seal(&Seal { last_seq: 11, bytes: 1, dropped: 2, entries: 3 }, TIME),
        ]
    }

    #[test]
    fn frames_are_read_back_and_a_torn_one_is_incomplete() {
        let all = frames().concat();
        let mut at = 0;
        for frame in frames() {
            let Decoded::Frame { len, .. } = decode(&all[at..]) else { panic!("{at}") };
            assert_eq!(len, frame.len());
            for cut in (0..len).take(80).chain([len - 1]) {
                let need = if cut < FRAME_HEADER_BYTES { FRAME_HEADER_BYTES } else { len };
                assert_eq!(decode(&all[at..at + cut]), Decoded::Incomplete { need }, "{cut}");
            }
            at += len;
        }
        assert_eq!(at, all.len());
        assert_eq!(
            decode(&all),
            Decoded::Frame {
                frame: Frame::Entry {
                    seq: 7,
                    time: TIME,
                    stream: Stream::Stderr,
                    partial: true,
                    bytes: b"hello\xff\0",
                    len: 7,
                },
                len: 43,
            }
        );
        let secret = encode_secret(10, TIME, Stream::Stdin, false, 77);
        let Decoded::Frame { frame: Frame::Entry { bytes, len, .. }, .. } = decode(&secret) else {
            panic!()
        };
        assert_eq!((bytes, len), (&b""[..], 77));
    }

    #[test]
    fn a_flipped_bit_anywhere_is_corrupt_or_waits_for_more_but_is_never_a_frame() {
        for frame in frames() {
            for at in (0..frame.len()).take(100) {
                for bit in 0..8 {
                    let mut flipped = frame.clone();
                    flipped[at] ^= 1 << bit;
                    match decode(&flipped) {
                        Decoded::Corrupt => {}
                        Decoded::Incomplete { .. } => assert!((4..8).contains(&at), "{at}"),
                        Decoded::Frame { .. } => panic!("byte {at} bit {bit}"),
                    }
                }
            }
        }
        assert_eq!(decode(&[0; 100]), Decoded::Corrupt);
    }

    #[test]
    fn a_seal_is_found_at_the_end_of_a_file() {
        let seal = Seal { last_seq: 11, bytes: 1, dropped: 2, entries: 3 };
        let file = frames().concat();
        assert_eq!(decode_seal(&file), Some(seal));
        assert_eq!(decode_seal(&file[..file.len() - 1]), None);
        assert_eq!(decode_seal(b"short"), None);
    }

    #[test]
    fn the_cap_leaves_an_exact_gap() {
        // Segment 1 holds 1 to 10 (100 bytes), the missing ones 11 to 29 (250), the next begins with 30.
        let (before, after) = (segment(1, 1, 0), segment(4, 30, 350));
        let seal = Seal { last_seq: 10, bytes: 100, dropped: 0, entries: 10 };
        let gap = Gap { first_seq: 11, last_seq: 29, bytes: 250, cause: GapCause::Cap };
        assert_eq!(missing_between(&before, &seal, &after), Some(gap));
        assert_eq!(missing_between(&before, &seal, &segment(2, 11, 100)), None);
    }

    #[test]
    fn segment_headers_are_read_back_and_checked() {
        let header = segment(3, 30, 350);
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        for cut in 0..bytes.len() {
            assert_eq!(SegmentHeader::decode(&bytes[..cut]), Err(SegmentError::Incomplete));
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes;
            damaged[at] ^= 0x80;
            assert!(SegmentHeader::decode(&damaged).is_err(), "{at}");
        }
        let mut newer = bytes;
        newer[8] = 2;
        assert_eq!(SegmentHeader::decode(&newer), Err(SegmentError::Newer { version: 2 }));
    }

    #[test]
    fn segment_files_are_named_by_number() {
        assert_eq!(segment_file(1), "00000001.seg");
        assert_eq!(segment_index("00000001.seg"), Some(1));
        assert_eq!(segment_index(&segment_file(123_456_789)), Some(123_456_789));
        for other in ["1.seg", "00000000.seg", "+0000001.seg", "00000001.seg.zst", "journal"] {
            assert_eq!(segment_index(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_decode_to_something(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (decode(&bytes), SegmentHeader::decode(&bytes), decode_seal(&bytes));
        }
    }
}
