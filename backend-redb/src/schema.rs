//! The tables of a store of records, byte by byte. Pure but for the making of tables. `docs/redb.md` has it in words.
//!
//! Numbers are little-endian in values and big-endian in keys, where their order counts. Every value begins with a
//! checksum over its key and itself: redb does not look at its own checksums when it reads.

use redb::{TableDefinition, WriteTransaction};
use uuid::Uuid;
use windlass_core::id::{Epoch, HostId, NodeId};
use windlass_core::process_store::{
    Change, ChangeNumber, Kind, Record, RecordKey, Revision, Stored,
};
use windlass_core::time::Timestamp;

use crate::bytes::{Reader, crc, seal, unseal};
use crate::format::{Format, Migration};

type Bytes = &'static [u8];

/// Records by kind and id.
pub(crate) const RECORDS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("records");
/// Places in the orders of lists; the keys say it all.
pub(crate) const PLACES: TableDefinition<'_, Bytes, ()> = TableDefinition::new("places");
/// Writes by batch and place in the batch.
pub(crate) const CHANGES: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("changes");
/// Leases by node.
pub(crate) const LEASES: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("leases");

/// The format of a store of records.
pub(crate) static RECORDS_FORMAT: Format = Format { holds: "records", migrations: MIGRATIONS };

const MIGRATIONS: &[Migration] = &[make_tables];

fn make_tables(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    transaction.open_table(RECORDS)?;
    transaction.open_table(PLACES)?;
    transaction.open_table(CHANGES)?;
    transaction.open_table(LEASES)?;
    Ok(())
}

/// Returns the key of a record: the word of its kind, a zero, its id.
pub(crate) fn record_key(key: RecordKey) -> Vec<u8> {
    let word = key.kind.as_str().as_bytes();
    [word, &[0], key.id.as_bytes()].concat()
}

/// Reads the key of a record back: the word of its kind, and its id.
pub(crate) fn read_record_key(key: &[u8]) -> Option<(&str, Uuid)> {
    let (front, id) = key.split_last_chunk::<16>()?;
    let (0, word) = front.split_last().map(|(zero, word)| (*zero, word))? else { return None };
    Some((std::str::from_utf8(word).ok()?, Uuid::from_bytes(*id)))
}

/// Bytes of a record's value before its state.
const HEAD_BYTES: usize = 54;

/// A record's value, read as far as needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Value<'a> {
    pub(crate) revision: Revision,
    pub(crate) change: ChangeNumber,
    pub(crate) at: Timestamp,
    pub(crate) parent: Option<Uuid>,
    pub(crate) owner: Option<&'a str>,
    pub(crate) state: &'a str,
    body_crc: u32,
    body: &'a [u8],
}

impl<'a> Value<'a> {
    /// Reads everything but the body, which may be damaged even so.
    pub(crate) fn read(key: &[u8], value: &'a [u8]) -> Result<Self, String> {
        let short = || "it is cut short".to_owned();
        let mut reader = Reader(value);
        let sum = reader.u32().ok_or_else(short)?;
        let body_crc = reader.u32().ok_or_else(short)?;
        let revision = Revision(reader.u64().ok_or_else(short)?);
        let change = ChangeNumber(reader.u64().ok_or_else(short)?);
        let at = Timestamp(reader.u64().ok_or_else(short)?);
        let flags = reader.u8().ok_or_else(short)?;
        let state_bytes = reader.u8().ok_or_else(short)?;
        let owner_bytes = reader.u32().ok_or_else(short)?;
        let parent = reader.uuid().ok_or_else(short)?;
        let state = reader.bytes(usize::from(state_bytes)).ok_or_else(short)?;
        let owner = usize::try_from(owner_bytes).ok().and_then(|count| reader.bytes(count));
        let owner = owner.ok_or_else(short)?;
        let body = reader.0;
        let front = value.get(4..value.len() - body.len()).unwrap_or_default();
        if sum != crc(&[key, front]) {
            return Err("its checksum is wrong".to_owned());
        }
        // With a right checksum these were written so; but nothing is shown that breaks the contract.
        let text = |bytes: &'a [u8], what: &str| {
            std::str::from_utf8(bytes).map_err(|error| format!("its {what} is no text: {error}"))
        };
        Ok(Self {
            revision,
            change,
            at,
            parent: (flags & 1 != 0).then_some(parent),
            owner: (flags & 2 != 0).then(|| text(owner, "owner")).transpose()?,
            state: text(state, "state")?,
            body_crc,
            body,
        })
    }

    /// Reads the body, too.
    pub(crate) fn stored(&self, key: RecordKey) -> Result<Stored, String> {
        if self.body_crc != crc(&[self.body]) {
            return Err("the checksum of its body is wrong".to_owned());
        }
        let body = std::str::from_utf8(self.body);
        let body = body.map_err(|error| format!("its body is no text: {error}"))?;
        let record = Record {
            key,
            parent: self.parent,
            owner: self.owner.map(str::to_owned),
            state: self.state.to_owned(),
            at: self.at,
            body: body.to_owned(),
        };
        Ok(Stored { record, revision: self.revision, change: self.change })
    }

    /// Returns where the record stands in the lists.
    pub(crate) fn places(&self, key: RecordKey) -> Vec<Vec<u8>> {
        places(key, self.at, self.parent, self.owner, self.state)
    }
}

/// Makes a record's value.
pub(crate) fn record_value(
    key: &[u8],
    record: &Record,
    revision: Revision,
    change: ChangeNumber,
) -> Vec<u8> {
    let owner = record.owner.as_deref().unwrap_or_default().as_bytes();
    let state = record.state.as_bytes();
    let (body, front) = (record.body.as_bytes(), HEAD_BYTES + state.len() + owner.len());
    let mut value = Vec::with_capacity(front + body.len());
    value.extend([0; 4]);
    value.extend(crc(&[body]).to_le_bytes());
    value.extend(revision.0.to_le_bytes());
    value.extend(change.0.to_le_bytes());
    value.extend(record.at.0.to_le_bytes());
    value.push(u8::from(record.parent.is_some()) | u8::from(record.owner.is_some()) << 1);
    value.push(u8::try_from(state.len()).unwrap_or(u8::MAX));
    value.extend(u32::try_from(owner.len()).unwrap_or(u32::MAX).to_le_bytes());
    value.extend(record.parent.unwrap_or_default().as_bytes());
    value.extend(state);
    value.extend(owner);
    let sum = crc(&[key, &value[4..]]);
    value[..4].copy_from_slice(&sum.to_le_bytes());
    value.extend(body);
    value
}

/// A way of listing: all records of a kind, or those that have something in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order<'a> {
    Time,
    State(&'a str),
    Parent(Uuid),
    Owner(&'a str),
    OwnerState(&'a str, &'a str),
    /// The last hex digits of the id, at most [`TAIL_DIGITS`], as they are printed.
    Tail(&'a str),
}

/// Digits of an id's end that the order of tails has.
pub(crate) const TAIL_DIGITS: usize = 8;
/// A time and an id end each place.
const PLACE_BYTES: usize = 24;

impl Order<'_> {
    /// Returns how every place in this order begins.
    pub(crate) fn prefix(&self, kind: Kind) -> Vec<u8> {
        let tag = match self {
            Self::Time => b't',
            Self::State(_) => b's',
            Self::Parent(_) => b'p',
            Self::Owner(_) => b'o',
            Self::OwnerState(..) => b'w',
            Self::Tail(_) => b'i',
        };
        let mut prefix = Vec::with_capacity(64);
        prefix.push(tag);
        prefix.extend(kind.as_str().as_bytes());
        prefix.push(0);
        match self {
            Self::Time => {}
            Self::State(state) => push_state(&mut prefix, state),
            Self::Parent(parent) => prefix.extend(parent.as_bytes()),
            Self::Owner(owner) => push_owner(&mut prefix, owner),
            Self::OwnerState(owner, state) => {
                push_owner(&mut prefix, owner);
                push_state(&mut prefix, state);
            }
            Self::Tail(digits) => prefix.extend(digits.bytes().rev()),
        }
        prefix
    }

    fn place(&self, key: RecordKey, at: Timestamp) -> Vec<u8> {
        let mut place = self.prefix(key.kind);
        push_end(&mut place, at, key.id);
        place
    }
}

/// A state is a word, so that a zero ends it.
fn push_state(place: &mut Vec<u8>, state: &str) {
    place.extend(state.as_bytes());
    place.push(0);
}

/// An owner is any text, so that its length has to be told.
fn push_owner(place: &mut Vec<u8>, owner: &str) {
    place.extend(u32::try_from(owner.len()).unwrap_or(u32::MAX).to_be_bytes());
    place.extend(owner.as_bytes());
}

/// Adds what a place ends with.
pub(crate) fn push_end(place: &mut Vec<u8>, at: Timestamp, id: Uuid) {
    place.extend(at.0.to_be_bytes());
    place.extend(id.as_bytes());
}

/// Reads the end of a place.
pub(crate) fn read_end(place: &[u8]) -> Option<(Timestamp, Uuid)> {
    let (_, end) = place.split_last_chunk::<PLACE_BYTES>()?;
    let (at, id) = end.split_first_chunk::<8>()?;
    Some((Timestamp(u64::from_be_bytes(*at)), Uuid::from_slice(id).ok()?))
}

/// Returns the last digits of an id.
fn tail(id: Uuid) -> String {
    let digits = id.simple().to_string();
    digits[digits.len() - TAIL_DIGITS..].to_owned()
}

fn places(
    key: RecordKey,
    at: Timestamp,
    parent: Option<Uuid>,
    owner: Option<&str>,
    state: &str,
) -> Vec<Vec<u8>> {
    let tail = tail(key.id);
    let mut orders = vec![Order::Time, Order::State(state), Order::Tail(&tail)];
    orders.extend(parent.map(Order::Parent));
    if let Some(owner) = owner {
        orders.extend([Order::Owner(owner), Order::OwnerState(owner, state)]);
    }
    orders.iter().map(|order| order.place(key, at)).collect()
}

/// Returns where a record stands in the lists.
pub(crate) fn places_of(record: &Record) -> Vec<Vec<u8>> {
    places(record.key, record.at, record.parent, record.owner.as_deref(), &record.state)
}

/// Returns the key of the entry `ordinal` of a batch.
pub(crate) fn change_key(number: ChangeNumber, ordinal: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&number.0.to_be_bytes());
    key[8..].copy_from_slice(&ordinal.to_be_bytes());
    key
}

/// Reads the number of the batch back.
pub(crate) fn read_change_key(key: &[u8]) -> Option<ChangeNumber> {
    let (number, _ordinal) = key.split_first_chunk::<8>()?;
    Some(ChangeNumber(u64::from_be_bytes(*number)))
}

/// One entry of the change log, as it is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told<'a> {
    pub(crate) key: RecordKey,
    pub(crate) parent: Option<Uuid>,
    pub(crate) owner: Option<&'a str>,
    pub(crate) state: Option<&'a str>,
    pub(crate) revision: Revision,
}

impl Told<'_> {
    /// Makes the entry's value.
    pub(crate) fn value(&self, key: &[u8]) -> Vec<u8> {
        let word = self.key.kind.as_str().as_bytes();
        let state = self.state.unwrap_or_default().as_bytes();
        let owner = self.owner.unwrap_or_default().as_bytes();
        let flags = u8::from(self.parent.is_some())
            | u8::from(self.owner.is_some()) << 1
            | u8::from(self.state.is_some()) << 2;
        let mut value = vec![0; 4];
        value.extend(self.revision.0.to_le_bytes());
        value.push(flags);
        value.push(u8::try_from(word.len()).unwrap_or(u8::MAX));
        value.push(u8::try_from(state.len()).unwrap_or(u8::MAX));
        value.extend(self.key.id.as_bytes());
        value.extend(self.parent.unwrap_or_default().as_bytes());
        value.extend(word);
        value.extend(state);
        value.extend(owner);
        seal(key, value)
    }
}

/// Reads an entry of the change log; `None` if it is damaged or of a kind that nobody knows.
pub(crate) fn read_change(key: &[u8], value: &[u8]) -> Option<Change> {
    let number = read_change_key(key)?;
    let mut reader = Reader(unseal(key, value)?);
    let revision = Revision(reader.u64()?);
    let (flags, word_bytes, state_bytes) = (reader.u8()?, reader.u8()?, reader.u8()?);
    let (id, parent) = (reader.uuid()?, reader.uuid()?);
    let word = std::str::from_utf8(reader.bytes(usize::from(word_bytes))?).ok()?;
    let state = std::str::from_utf8(reader.bytes(usize::from(state_bytes))?).ok()?;
    let owner = std::str::from_utf8(reader.0).ok()?;
    Some(Change {
        number,
        key: RecordKey { kind: Kind::from_word(word)?, id },
        parent: (flags & 1 != 0).then_some(parent),
        owner: (flags & 2 != 0).then(|| owner.to_owned()),
        state: (flags & 4 != 0).then(|| state.to_owned()),
        revision,
    })
}

/// Makes the value of a lease.
pub(crate) fn lease_value(node: NodeId, host: HostId, epoch: Epoch) -> Vec<u8> {
    let mut value = vec![0; 4];
    value.extend(host.0.as_bytes());
    value.extend(epoch.0.to_le_bytes());
    seal(node.0.as_bytes(), value)
}

/// Reads a lease; `None` if it is damaged.
pub(crate) fn read_lease(node: &[u8], value: &[u8]) -> Option<(HostId, Epoch)> {
    let mut reader = Reader(unseal(node, value)?);
    Some((HostId(reader.uuid()?), Epoch(reader.u64()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            key: RecordKey { kind: Kind::Execution, id: Uuid::from_u128(0x1234_5678_9abc_def0) },
            parent: Some(Uuid::from_u128(7)),
            owner: Some("someb\0dy".to_owned()),
            state: "queued".to_owned(),
            at: Timestamp(9),
            body: r#"{"v":1}"#.to_owned(),
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let bare = Record { parent: None, owner: None, body: String::new(), ..record() };
        let empty = Record { owner: Some(String::new()), ..record() };
        for record in [record(), bare, empty] {
            let key = record_key(record.key);
            assert_eq!(read_record_key(&key), Some(("execution", record.key.id)));
            let value = record_value(&key, &record, Revision(3), ChangeNumber(5));
            let read = Value::read(&key, &value).unwrap();
            assert_eq!(read.places(record.key), places_of(&record));
            let stored = Stored { record, revision: Revision(3), change: ChangeNumber(5) };
            assert_eq!(read.stored(stored.record.key).unwrap(), stored);
        }
    }

    #[test]
    fn a_changed_bit_is_noticed_wherever_it_is() {
        let record = record();
        let key = record_key(record.key);
        let value = record_value(&key, &record, Revision(3), ChangeNumber(5));
        for bit in 0..value.len() * 8 {
            let mut rotten = value.clone();
            rotten[bit / 8] ^= 1 << (bit % 8);
            let read = Value::read(&key, &rotten).and_then(|read| read.stored(record.key));
            assert!(read.is_err(), "bit {bit}");
        }
        for length in 0..value.len() {
            let read = Value::read(&key, &value[..length]).and_then(|read| read.stored(record.key));
            assert!(read.is_err(), "{length} bytes");
        }
        let other = record_key(RecordKey { id: Uuid::nil(), ..record.key });
        assert!(Value::read(&other, &value).is_err(), "it is another record's");
    }

    #[test]
    fn a_damaged_body_leaves_the_revision_readable() {
        let record = record();
        let key = record_key(record.key);
        let mut value = record_value(&key, &record, Revision(3), ChangeNumber(5));
        *value.last_mut().unwrap() ^= 1;
        let read = Value::read(&key, &value).unwrap();
        assert_eq!(read.revision, Revision(3));
        assert!(read.stored(record.key).unwrap_err().contains("body"));
    }

    #[test]
    fn places_sort_as_lists_do_and_do_not_mix() {
        let key = |n: u128| RecordKey { kind: Kind::Task, id: Uuid::from_u128(n) };
        let place = |order: Order<'_>, at, n| order.place(key(n), Timestamp(at));
        assert!(place(Order::Time, 1, 9) < place(Order::Time, 2, 0));
        assert!(place(Order::Time, 1, 0) < place(Order::Time, 1, 1));
        assert_eq!(read_end(&place(Order::Owner("x"), 5, 6)), Some((Timestamp(5), key(6).id)));
        // One owner's name, or one state, begins with another's.
        let within = |order: Order<'_>, place: &[u8]| {
            place.starts_with(&order.prefix(Kind::Task))
                && place.len() == order.prefix(Kind::Task).len() + PLACE_BYTES
        };
        assert!(!within(Order::Owner("ab"), &place(Order::Owner("ab\0c"), 1, 1)));
        assert!(!within(Order::State("run"), &place(Order::State("running"), 1, 1)));
        assert!(!within(Order::OwnerState("a", "b"), &place(Order::OwnerState("ab", ""), 1, 1)));
        let other = RecordKey { kind: Kind::Execution, ..key(1) };
        assert!(!within(Order::Time, &Order::Time.place(other, Timestamp(1))));
        let whole = Order::Tail("9abcdef0").place(record().key, Timestamp(1));
        assert!(places_of(&Record { at: Timestamp(1), ..record() }).contains(&whole));
        assert!(whole.starts_with(&Order::Tail("ef0").prefix(Kind::Execution)));
    }

    #[test]
    fn changes_and_leases_are_read_as_they_were_written() {
        let key = change_key(ChangeNumber(7), 1);
        assert_eq!(read_change_key(&key), Some(ChangeNumber(7)));
        let deleted = Told {
            key: record().key,
            parent: None,
            owner: Some("o"),
            state: None,
            revision: Revision(2),
        };
        let value = deleted.value(&key);
        let change = read_change(&key, &value).unwrap();
        assert_eq!((change.number, change.key), (ChangeNumber(7), record().key));
        assert_eq!((change.owner.as_deref(), change.state, change.parent), (Some("o"), None, None));
        for byte in 0..value.len() {
            let mut rotten = value.clone();
            rotten[byte] ^= 0x10;
            assert_eq!(read_change(&key, &rotten), None, "byte {byte}");
        }
        let (node, host) = (NodeId(Uuid::from_u128(1)), HostId(Uuid::from_u128(2)));
        let value = lease_value(node, host, Epoch(9));
        assert_eq!(read_lease(node.0.as_bytes(), &value), Some((host, Epoch(9))));
        assert_eq!(read_lease(host.0.as_bytes(), &value), None, "it is another node's");
    }
}
