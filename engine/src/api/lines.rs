//! Puts the lines of a log together again: an entry may hold many, or a part of one.

use bytes::Bytes;
use windlass_core::log_store::{LogItem, Seq, Stream};
use windlass_core::time::Timestamp;

/// The longest line that is kept whole; a longer one counts as several.
const MAX_LINE_BYTES: usize = 1 << 20;

/// One line, without its newline, numbered and timed like the entry in which it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) seq: Seq,
    pub(super) at: Timestamp,
    pub(super) stream: Stream,
    pub(super) bytes: Bytes,
}

/// The lines that have begun, one of each stream.
#[derive(Debug, Default)]
pub(super) struct Lines {
    begun: [Option<Line>; 4],
}

fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
        Stream::Pty => 2,
        Stream::Stdin => 3,
    }
}

impl Lines {
    /// Takes an item and adds the lines that it completes to `out`.
    pub(super) fn push(&mut self, item: &LogItem, out: &mut Vec<Line>) {
        let LogItem::Entry { seq, at, stream, bytes, .. } = item else {
            // What is missing may have held the rest of them.
            out.extend(self.finish());
            return;
        };
        let slot = &mut self.begun[index(*stream)];
        let mut rest = bytes.clone();
        while !rest.is_empty() {
            let room = MAX_LINE_BYTES - slot.as_ref().map_or(0, |line| line.bytes.len());
            let end = rest.iter().take(room).position(|&byte| byte == b'\n');
            let piece = rest.split_to(end.unwrap_or(room.min(rest.len())));
            let is_full = end.is_none() && piece.len() == room;
            if end.is_some() {
                let _newline = rest.split_to(1);
            }
            let bytes = match slot.take() {
                None => piece,
                Some(line) => [line.bytes, piece].concat().into(),
            };
            let line = Line { seq: *seq, at: *at, stream: *stream, bytes };
            if end.is_some() || is_full {
                out.push(line);
            } else {
                *slot = Some(line);
            }
        }
    }

    /// Returns what has begun and will not go on.
    pub(super) fn finish(&mut self) -> Vec<Line> {
        let mut left: Vec<_> = self.begun.iter_mut().filter_map(Option::take).collect();
        left.sort_by_key(|line| line.seq);
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: u64, stream: Stream, bytes: &str) -> LogItem {
        LogItem::Entry {
            seq: Seq(seq),
            at: Timestamp(seq),
            stream,
            partial: !bytes.ends_with('\n'),
            bytes: Bytes::copy_from_slice(bytes.as_bytes()),
            len: bytes.len() as u64,
        }
    }

    fn lines(items: &[LogItem]) -> Vec<(u64, String)> {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for item in items {
            lines.push(item, &mut out);
        }
        out.extend(lines.finish());
        out.into_iter().map(|l| (l.seq.0, String::from_utf8_lossy(&l.bytes).into_owned())).collect()
    }

    #[test]
    fn a_line_over_several_entries_is_one_and_streams_do_not_mix() {
        let items = [
            entry(1, Stream::Stdout, "one\ntw"),
            entry(2, Stream::Stderr, "err"),
            entry(3, Stream::Stdout, "o\n\nthree"),
        ];
        let expected = [(1, "one"), (3, "two"), (3, ""), (2, "err"), (3, "three")]
            .map(|(n, s)| (n, s.to_owned()));
        assert_eq!(lines(&items), expected);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let long = "x".repeat(MAX_LINE_BYTES / 2);
        let items: Vec<_> = (1..=5).map(|n| entry(n, Stream::Stdout, &long)).collect();
        let lengths: Vec<_> = lines(&items).into_iter().map(|(_, text)| text.len()).collect();
        assert_eq!(lengths, [MAX_LINE_BYTES, MAX_LINE_BYTES, MAX_LINE_BYTES / 2]);
    }
}
