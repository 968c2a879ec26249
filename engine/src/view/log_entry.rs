//! Entries of logs as clients see them.

use base64::Engine as _;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use windlass_core::log_store::{GapCause, LogItem, Stream};

use super::Time;

/// Numbers that are missing from a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapView {
    /// The first missing number.
    pub first_seq: u64,
    /// The last missing number, if it is known.
    pub last_seq: Option<u64>,
    /// How many payload bytes are missing.
    pub bytes: u64,
    /// Why.
    pub cause: GapCause,
}

/// One line of a log in JSON: an entry, or the gap that stands for missing ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, try_from = "FlatEntry")]
pub enum LogEntryView {
    /// What is missing.
    Gap {
        /// The last number that it covers: where to go on.
        seq: u64,
        /// What is missing.
        gap: GapView,
    },
    /// UTF-8.
    Text {
        /// Its number.
        seq: u64,
        /// When it was read.
        at: Time,
        /// Which stream.
        stream: Stream,
        /// The bytes as written.
        text: String,
        /// It does not end a line.
        partial: bool,
        /// How many bytes of secret input it stands for; absent for anything else.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        secret_bytes: Option<u64>,
    },
    /// Anything else.
    Bytes {
        /// Its number.
        seq: u64,
        /// When it was read.
        at: Time,
        /// Which stream.
        stream: Stream,
        /// The bytes as written, in base64 (standard alphabet, padded).
        bytes: String,
        /// It does not end a line.
        partial: bool,
    },
}

/// The fields of all forms, to be read in one go: trying one form after the other costs more than everything else that a
/// follower does.
#[derive(Deserialize)]
struct FlatEntry {
    seq: u64,
    at: Option<Time>,
    stream: Option<Stream>,
    text: Option<String>,
    bytes: Option<String>,
    #[serde(default)]
    partial: bool,
    secret_bytes: Option<u64>,
    gap: Option<GapView>,
}

impl TryFrom<FlatEntry> for LogEntryView {
    type Error = &'static str;

    fn try_from(flat: FlatEntry) -> Result<Self, Self::Error> {
        let FlatEntry { seq, at, stream, text, bytes, partial, secret_bytes, gap } = flat;
        if let Some(gap) = gap {
            return Ok(Self::Gap { seq, gap });
        }
        let (Some(at), Some(stream)) = (at, stream) else {
            return Err("an entry without `at` and `stream`");
        };
        match (text, bytes) {
            (Some(text), None) => Ok(Self::Text { seq, at, stream, text, partial, secret_bytes }),
            (None, Some(bytes)) => Ok(Self::Bytes { seq, at, stream, bytes, partial }),
            _ => Err("an entry with neither or both of `text` and `bytes`"),
        }
    }
}

impl LogEntryView {
    /// Makes the view of an item.
    #[must_use]
    pub fn new(item: &LogItem) -> Self {
        match item {
            LogItem::Gap { first, last, bytes, cause } => Self::Gap {
                seq: item.last_seq().0,
                gap: GapView {
                    first_seq: first.0,
                    last_seq: last.map(|seq| seq.0),
                    bytes: *bytes,
                    cause: *cause,
                },
            },
            LogItem::Entry { seq, at, stream, partial, bytes, len } => {
                let (seq, at, stream, partial) = (seq.0, Time(*at), *stream, *partial);
                match std::str::from_utf8(bytes) {
                    Ok(text) => {
                        let written = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                        let secret_bytes = (*len != written).then_some(*len);
                        Self::Text { seq, at, stream, text: text.to_owned(), partial, secret_bytes }
                    }
                    Err(_) => {
                        let bytes = base64::engine::general_purpose::STANDARD.encode(bytes);
                        Self::Bytes { seq, at, stream, bytes, partial }
                    }
                }
            }
        }
    }

    /// Returns the number to go on after.
    #[must_use]
    pub fn seq(&self) -> u64 {
        match self {
            Self::Gap { seq, .. } | Self::Text { seq, .. } | Self::Bytes { seq, .. } => *seq,
        }
    }

    /// Returns stream and payload, or `None` for a gap.
    ///
    /// # Errors
    ///
    /// The base64 is none.
    pub fn payload(&self) -> Result<Option<(Stream, Bytes)>, base64::DecodeError> {
        match self {
            Self::Gap { .. } => Ok(None),
            Self::Text { stream, text, .. } => {
                Ok(Some((*stream, Bytes::copy_from_slice(text.as_bytes()))))
            }
            Self::Bytes { stream, bytes, .. } => {
                let bytes = base64::engine::general_purpose::STANDARD.decode(bytes)?;
                Ok(Some((*stream, bytes.into())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use windlass_core::log_store::Seq;
    use windlass_core::time::Timestamp;

    use super::*;

    #[test]
    fn entries_are_text_bytes_or_a_gap() {
        let entry = |bytes: &'static [u8], len| LogItem::Entry {
            seq: Seq(3),
            at: Timestamp(0),
            stream: Stream::Stdout,
            partial: false,
            bytes: Bytes::from_static(bytes),
            len,
        };
        let gap = LogItem::Gap { first: Seq(4), last: None, bytes: 9, cause: GapCause::Full };
        let table = [
            (
                entry(b"a\n", 2),
                r#"{"seq":3,"at":"1970-01-01T00:00:00.000Z","stream":"stdout","text":"a\n","partial":false}"#,
            ),
            (
                entry(b"\xff", 1),
                r#"{"seq":3,"at":"1970-01-01T00:00:00.000Z","stream":"stdout","bytes":"/w==","partial":false}"#,
            ),
            (
                entry(b"", 5),
                r#"{"seq":3,"at":"1970-01-01T00:00:00.000Z","stream":"stdout","text":"","partial":false,"secret_bytes":5}"#,
            ),
            (gap, r#"{"seq":4,"gap":{"first_seq":4,"last_seq":null,"bytes":9,"cause":"full"}}"#),
        ];
        for (item, expected) in table {
            let view = LogEntryView::new(&item);
            assert_eq!(serde_json::to_string(&view).unwrap(), expected);
            assert_eq!(serde_json::from_str::<LogEntryView>(expected).unwrap(), view);
        }
        assert!(serde_json::from_str::<LogEntryView>(r#"{"seq":1}"#).is_err());
    }
}
