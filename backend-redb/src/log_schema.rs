//! The tables of a store of logs, byte by byte. Pure but for the making of tables. `docs/redb.md` has it in words.

use ::bytes::Bytes;
use redb::{TableDefinition, WriteTransaction};
use windlass_core::log_store::{GapCause, LogItem, LogKey, LogStatus, Seq, Stream};
use windlass_core::time::Timestamp;

use crate::bytes::{Reader, seal, unseal};
use crate::format::{Format, Migration};

type Raw = &'static [u8];

/// What is known of each log, by execution and nonce.
pub(crate) const LOGS: TableDefinition<'_, Raw, Raw> = TableDefinition::new("logs");
/// Entries and gaps by log and the last number that they cover.
pub(crate) const ITEMS: TableDefinition<'_, Raw, Raw> = TableDefinition::new("items");
/// Logs that were removed and whose items are being removed.
pub(crate) const REMOVED: TableDefinition<'_, Raw, ()> = TableDefinition::new("removed");

/// The format of a store of logs.
pub(crate) static LOGS_FORMAT: Format = Format { holds: "logs", migrations: MIGRATIONS };

const MIGRATIONS: &[Migration] = &[make_tables];

fn make_tables(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    transaction.open_table(LOGS)?;
    transaction.open_table(ITEMS)?;
    transaction.open_table(REMOVED)?;
    Ok(())
}

/// The name of a log: its execution and the nonce of its place.
pub(crate) type LogId = [u8; 32];

pub(crate) fn log_id(log: &LogKey) -> LogId {
    let mut id = [0; 32];
    id[..16].copy_from_slice(log.execution.0.as_bytes());
    id[16..].copy_from_slice(log.place.nonce.0.as_bytes());
    id
}

/// Returns the key of the item of a log that ends with a number.
pub(crate) fn item_key(log: &LogId, last: Seq) -> [u8; 40] {
    let mut key = [0; 40];
    key[..32].copy_from_slice(log);
    key[32..].copy_from_slice(&last.0.to_be_bytes());
    key
}

/// Reads the number back.
pub(crate) fn read_item_key(key: &[u8]) -> Option<Seq> {
    let (_, last) = key.split_last_chunk::<8>()?;
    Some(Seq(u64::from_be_bytes(*last)))
}

/// What is known of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) status: LogStatus,
    pub(crate) gaps: u64,
}

impl Log {
    /// Counts an item that is being added.
    pub(crate) fn count(&mut self, item: &LogItem) {
        self.status.count(item);
        self.gaps += u64::from(matches!(item, LogItem::Gap { .. }));
    }

    pub(crate) fn value(&self, key: &LogId) -> Vec<u8> {
        let LogStatus { last, entries, bytes, dropped_bytes, sealed } = self.status;
        let mut value = vec![0; 4];
        value.push(u8::from(sealed));
        for number in [last.0, entries, self.gaps, bytes, dropped_bytes] {
            value.extend(number.to_le_bytes());
        }
        seal(key, value)
    }

    /// Reads it back; `None` if it is damaged.
    pub(crate) fn read(key: &LogId, value: &[u8]) -> Option<Self> {
        let mut reader = Reader(unseal(key, value)?);
        let sealed = reader.u8()? != 0;
        let (last, entries, gaps) = (Seq(reader.u64()?), reader.u64()?, reader.u64()?);
        let (bytes, dropped_bytes) = (reader.u64()?, reader.u64()?);
        Some(Self { status: LogStatus { last, entries, bytes, dropped_bytes, sealed }, gaps })
    }
}

const ENTRY: u8 = 1;
const GAP: u8 = 2;
/// A gap whose last number is not known.
const GAP_WITHOUT_END: u8 = 3;

/// Makes an item's value.
pub(crate) fn item_value(key: &[u8], item: &LogItem) -> Vec<u8> {
    let mut value = vec![0; 4];
    match item {
        LogItem::Entry { at, stream, partial, bytes, len, .. } => {
            value.extend([ENTRY, stream_number(*stream), u8::from(*partial)]);
            value.extend(at.0.to_le_bytes());
            value.extend(len.to_le_bytes());
            value.extend_from_slice(bytes);
        }
        LogItem::Gap { first, last, bytes, cause } => {
            let tag = if last.is_some() { GAP } else { GAP_WITHOUT_END };
            value.extend([tag, cause_number(*cause)]);
            value.extend(first.0.to_le_bytes());
            value.extend(bytes.to_le_bytes());
        }
    }
    seal(key, value)
}

/// Reads an item; `None` if it is damaged.
pub(crate) fn read_item(key: &[u8], value: &[u8]) -> Option<LogItem> {
    let seq = read_item_key(key)?;
    let mut reader = Reader(unseal(key, value)?);
    let tag = reader.u8()?;
    match tag {
        ENTRY => {
            let (stream, partial) = (stream_of(reader.u8()?)?, reader.u8()? != 0);
            let (at, len) = (Timestamp(reader.u64()?), reader.u64()?);
            let bytes = Bytes::copy_from_slice(reader.0);
            Some(LogItem::Entry { seq, at, stream, partial, bytes, len })
        }
        GAP | GAP_WITHOUT_END => {
            let (cause, first) = (cause_of(reader.u8()?)?, Seq(reader.u64()?));
            let last = (tag == GAP).then_some(seq);
            Some(LogItem::Gap { first, last, bytes: reader.u64()?, cause })
        }
        _ => None,
    }
}

fn stream_number(stream: Stream) -> u8 {
    match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
        Stream::Pty => 3,
        Stream::Stdin => 4,
    }
}

fn stream_of(number: u8) -> Option<Stream> {
    let all = [Stream::Stdout, Stream::Stderr, Stream::Pty, Stream::Stdin];
    all.into_iter().find(|stream| stream_number(*stream) == number)
}

fn cause_number(cause: GapCause) -> u8 {
    match cause {
        GapCause::Cap => 1,
        GapCause::Full => 2,
        GapCause::Dropped => 3,
        GapCause::Power => 4,
    }
}

fn cause_of(number: u8) -> Option<GapCause> {
    let all = [GapCause::Cap, GapCause::Full, GapCause::Dropped, GapCause::Power];
    all.into_iter().find(|cause| cause_number(*cause) == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogId = [7; 32];

    fn items() -> Vec<LogItem> {
        let entry = |seq, stream, bytes: &'static [u8], len| LogItem::Entry {
            seq: Seq(seq),
            at: Timestamp(99),
            stream,
            partial: bytes.is_empty(),
            bytes: Bytes::from_static(bytes),
            len,
        };
        let gap = |first, last, cause| LogItem::Gap { first: Seq(first), last, bytes: 5, cause };
        vec![
            entry(1, Stream::Stdout, b"\0\xff", 2),
            entry(2, Stream::Stderr, b"text", 4),
            entry(3, Stream::Pty, b"", 0),
            entry(4, Stream::Stdin, b"", 77),
            gap(5, Some(Seq(5)), GapCause::Cap),
            gap(6, Some(Seq(9)), GapCause::Full),
            gap(10, Some(Seq(12)), GapCause::Dropped),
            gap(13, None, GapCause::Power),
        ]
    }

    #[test]
    fn items_are_read_as_they_were_written_and_no_bit_changes_unnoticed() {
        for item in items() {
            let key = item_key(&LOG, item.last_seq());
            assert_eq!(read_item_key(&key), Some(item.last_seq()));
            let value = item_value(&key, &item);
            assert_eq!(read_item(&key, &value), Some(item.clone()));
            for bit in 0..value.len() * 8 {
                let mut rotten = value.clone();
                rotten[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(read_item(&key, &rotten), None, "{item:?}, bit {bit}");
            }
            assert_eq!(read_item(&item_key(&LOG, Seq(1_000)), &value), None);
        }
    }

    #[test]
    fn what_is_known_of_a_log_is_read_as_it_was_written() {
        let mut log = Log::default();
        items().iter().for_each(|item| log.count(item));
        let bytes = 2 + 4 + 77 + 4 * 5;
        let status =
            LogStatus { last: Seq(13), entries: 4, bytes, dropped_bytes: 20, sealed: false };
        assert_eq!((log.status, log.gaps), (status, 4));
        log.status.sealed = true;
        assert_eq!(Log::read(&LOG, &log.value(&LOG)), Some(log));
        assert_eq!(Log::read(&[8; 32], &log.value(&LOG)), None);
    }
}
