//! The preview of an execution: the last of both streams, small enough for a list.

use crate::log_store::{LogItem, Stream};

/// The most bytes that a preview has.
pub const PREVIEW_BYTES: usize = 2048;

/// Makes the preview from the last items of a log: both streams represented, cut at characters, failures first.
///
/// Each stream may use what the other leaves. After a bad end what went to standard error comes first.
#[must_use]
pub fn preview(items: &[LogItem], ended_well: bool) -> Option<String> {
    let out = last(items, |stream| matches!(stream, Stream::Stdout | Stream::Pty));
    let err = last(items, |stream| stream == Stream::Stderr);
    let (out, err) = (String::from_utf8_lossy(&out), String::from_utf8_lossy(&err));
    let half = PREVIEW_BYTES / 2;
    let err_room = PREVIEW_BYTES - out.len().min(half);
    let err = tail(&err, err_room);
    let out = tail(&out, PREVIEW_BYTES - err.len());
    let text = if ended_well { format!("{out}{err}") } else { format!("{err}{out}") };
    (!text.is_empty()).then_some(text)
}

/// Returns the last bytes of the streams that are `wanted`: at least as many as a preview shows, from the beginning of a
/// character on.
fn last(items: &[LogItem], wanted: impl Fn(Stream) -> bool) -> Vec<u8> {
    let mut pieces = Vec::new();
    let mut len = 0;
    for item in items.iter().rev() {
        if let LogItem::Entry { stream, bytes, .. } = item
            && wanted(*stream)
        {
            // Three more: where the first of them continue a character, they are left out.
            let from = bytes.len().saturating_sub(PREVIEW_BYTES + 3 - len);
            pieces.push(bytes.slice(from..));
            len += bytes.len() - from;
            if len == PREVIEW_BYTES + 3 {
                break;
            }
        }
    }
    let mut all = pieces.into_iter().rev().fold(Vec::with_capacity(len), |mut all, piece| {
        all.extend_from_slice(&piece);
        all
    });
    if len == PREVIEW_BYTES + 3 {
        let continued = all.iter().take(3).take_while(|byte| **byte & 0xC0 == 0x80).count();
        all.drain(..continued);
    }
    all
}

/// Returns the longest end of `text` that has at most `most` bytes and begins at a character.
fn tail(text: &str, most: usize) -> &str {
    let mut start = text.len().saturating_sub(most);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_store::Seq;
    use crate::time::Timestamp;
    use bytes::Bytes;

    fn entry(stream: Stream, text: &str) -> LogItem {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        let len = text.len() as u64;
        LogItem::Entry { seq: Seq(1), at: Timestamp(0), stream, partial: false, bytes, len }
    }

    #[test]
    fn a_short_result_survives_noise_on_the_other_stream() {
        let noise = "x".repeat(10_000);
        let items = [entry(Stream::Stdout, "42\n"), entry(Stream::Stderr, &noise)];
        let text = preview(&items, true).unwrap();
        assert!(text.starts_with("42\n"));
        assert_eq!(text.len(), PREVIEW_BYTES);
    }

    #[test]
    fn after_a_bad_end_errors_come_first() {
        let items = [entry(Stream::Stdout, "out\n"), entry(Stream::Stderr, "err\n")];
        assert_eq!(preview(&items, false).unwrap(), "err\nout\n");
    }

    #[test]
    fn of_much_output_the_last_is_shown() {
        let all: String = (0..2_000).map(|n| format!("{n} é\n")).collect();
        let pieces = all.as_bytes().chunks(7).map(|piece| {
            let (len, bytes) = (piece.len() as u64, Bytes::copy_from_slice(piece));
            let (seq, at, stream) = (Seq(1), Timestamp(0), Stream::Stdout);
            LogItem::Entry { seq, at, stream, partial: true, bytes, len }
        });
        let pieces: Vec<_> = pieces.collect();
        for end in pieces.len() - 9..=pieces.len() {
            let shown: usize = pieces[..end].len() * 7;
            let whole = String::from_utf8_lossy(&all.as_bytes()[..shown.min(all.len())]);
            assert_eq!(preview(&pieces[..end], true).unwrap(), tail(&whole, PREVIEW_BYTES));
        }
    }

    #[test]
    fn characters_are_not_cut() {
        let text = preview(&[entry(Stream::Stdout, &"é".repeat(2_000))], true).unwrap();
        assert!(text.chars().all(|c| c == 'é'));
        assert!(text.len() <= PREVIEW_BYTES);
    }
}
