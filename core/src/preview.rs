//! The preview of an execution: the last of both streams, small enough for a list.

use crate::log_store::{LogItem, Stream};

/// The most bytes that a preview has.
pub const PREVIEW_BYTES: usize = 2048;

/// Makes the preview from the last items of a log: both streams represented, cut at characters, failures first.
///
/// Each stream may use what the other leaves. After a bad end what went to standard error comes first.
#[must_use]
pub fn preview(items: &[LogItem], ended_well: bool) -> Option<String> {
    let mut out = Vec::new();
    let mut err = Vec::new();
    for item in items {
        if let LogItem::Entry { stream, bytes, .. } = item {
            match stream {
                Stream::Stdout | Stream::Pty => out.extend_from_slice(bytes),
                Stream::Stderr => err.extend_from_slice(bytes),
                Stream::Stdin => {}
            }
        }
    }
    let (out, err) = (String::from_utf8_lossy(&out), String::from_utf8_lossy(&err));
    let half = PREVIEW_BYTES / 2;
    let err_room = PREVIEW_BYTES - out.len().min(half);
    let err = tail(&err, err_room);
    let out = tail(&out, PREVIEW_BYTES - err.len());
    let text = if ended_well { format!("{out}{err}") } else { format!("{err}{out}") };
    (!text.is_empty()).then_some(text)
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
    fn characters_are_not_cut() {
        let text = preview(&[entry(Stream::Stdout, &"é".repeat(2_000))], true).unwrap();
        assert!(text.chars().all(|c| c == 'é'));
        assert!(text.len() <= PREVIEW_BYTES);
    }
}
