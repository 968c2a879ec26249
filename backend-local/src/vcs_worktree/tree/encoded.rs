//! The compact form of a listing that is kept in a file until all of it is deleted.
//!
//! ```text
//! directory = stamp, number of entries, { kind byte, length of the name, name, [stamp | directory] }
//! stamp     = device, inode, mode, size, mtime s, mtime ns, ctime s, ctime ns
//! ```
//!
//! Numbers are LEB128, signed ones folded (0, -1, 1, -2, …), device and inode as the difference from the directory's.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use super::{Entry, Listing, Stamp};

const FILE: u8 = b'f';
const SPECIAL: u8 = b's';
const DIR: u8 = b'd';
const UNREADABLE: u8 = b'u';
const MOUNT: u8 = b'm';

/// Deeper nested directories have no path that the system takes, and would take our stack.
const DEPTH_MAX: u32 = 1 << 12;

/// What the outermost stamp is told from.
const NOTHING: Stamp = Stamp { dev: 0, ino: 0, mode: 0, size: 0, mtime: (0, 0), ctime: (0, 0) };

impl Listing {
    /// Appends the compact form.
    pub(in super::super) fn encode(&self, out: &mut Vec<u8>) {
        self.encode_below(&NOTHING, out);
    }

    fn encode_below(&self, parent: &Stamp, out: &mut Vec<u8>) {
        self.stamp.encode(parent, out);
        number(self.entries.len() as u128, out);
        for (name, entry) in &self.entries {
            let kind = match entry {
                Entry::File(_) => FILE,
                Entry::Special(_) => SPECIAL,
                Entry::Dir(_) => DIR,
                Entry::Unreadable(_) => UNREADABLE,
                Entry::Mount => MOUNT,
            };
            out.push(kind);
            number(name.len() as u128, out);
            out.extend_from_slice(name.as_bytes());
            match entry {
                Entry::File(stamp) | Entry::Special(stamp) | Entry::Unreadable(stamp) => {
                    stamp.encode(&self.stamp, out);
                }
                Entry::Dir(below) => below.encode_below(&self.stamp, out),
                Entry::Mount => {}
            }
        }
    }

    /// Reads the compact form back; `None` if that is not what it is.
    pub(in super::super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let listing = reader.directory(&NOTHING, DEPTH_MAX)?;
        reader.0.is_empty().then_some(listing)
    }

    /// Reads back only which directory was listed.
    pub(in super::super) fn decode_top(bytes: &[u8]) -> Option<Stamp> {
        Reader(bytes).top()
    }
}

impl Stamp {
    fn encode(&self, parent: &Self, out: &mut Vec<u8>) {
        signed(self.dev.wrapping_sub(parent.dev), out);
        signed(i128::from(self.ino) - i128::from(parent.ino), out);
        number(self.mode.into(), out);
        number(self.size.into(), out);
        for (seconds, nanoseconds) in [self.mtime, self.ctime] {
            signed(seconds.into(), out);
            signed(nanoseconds, out);
        }
    }
}

fn number(value: u128, out: &mut Vec<u8>) {
    // Nearly all are small, and small ones are much quicker.
    match u64::try_from(value) {
        Ok(mut small) => {
            while small > 0x7f {
                out.push(u8::try_from(small & 0x7f).unwrap_or_default() | 0x80);
                small >>= 7;
            }
            out.push(u8::try_from(small).unwrap_or_default());
        }
        Err(_) => large(value, out),
    }
}

fn large(mut value: u128, out: &mut Vec<u8>) {
    loop {
        let low = u8::try_from(value & 0x7f).unwrap_or_default();
        value >>= 7;
        if value == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

fn signed(value: i128, out: &mut Vec<u8>) {
    number(((value << 1) ^ (value >> 127)).cast_unsigned(), out);
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u128> {
        let mut small = 0_u64;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            small |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(small.into());
            }
        }
        let mut value = u128::from(small);
        for shift in (63..128).step_by(7) {
            let byte = self.byte()?;
            value |= u128::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i128> {
        let folded = self.number()?;
        Some((folded >> 1).cast_signed() ^ -(folded & 1).cast_signed())
    }

    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn stamp(&mut self, parent: &Stamp) -> Option<Stamp> {
        let dev = parent.dev.wrapping_add(self.signed()?);
        let ino = u64::try_from(i128::from(parent.ino).checked_add(self.signed()?)?).ok()?;
        let mode = self.number()?.try_into().ok()?;
        let size = self.number()?.try_into().ok()?;
        let mut time = || Some((i64::try_from(self.signed()?).ok()?, self.signed()?));
        Some(Stamp { dev, ino, mode, size, mtime: time()?, ctime: time()? })
    }

    /// The directory's own stamp comes first.
    fn top(&mut self) -> Option<Stamp> {
        self.stamp(&NOTHING)
    }

    fn directory(&mut self, parent: &Stamp, depth: u32) -> Option<Listing> {
        let stamp = self.stamp(parent)?;
        let mut entries = BTreeMap::new();
        for _ in 0..self.number()? {
            let kind = self.byte()?;
            let length = self.number()?.try_into().ok()?;
            let name = OsString::from_vec(self.bytes(length)?.to_vec());
            let entry = match kind {
                FILE => Entry::File(self.stamp(&stamp)?),
                SPECIAL => Entry::Special(self.stamp(&stamp)?),
                UNREADABLE => Entry::Unreadable(self.stamp(&stamp)?),
                DIR => Entry::Dir(self.directory(&stamp, depth.checked_sub(1)?)?),
                MOUNT => Entry::Mount,
                _ => return None,
            };
            entries.insert(name, entry);
        }
        Some(Listing { stamp, entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stamps() -> impl Strategy<Value = Stamp> {
        let time = (any::<i64>(), -1_i128..1_000_000_000);
        (any::<u64>(), any::<u64>(), any::<u32>(), any::<u64>(), time.clone(), time).prop_map(
            |(dev, ino, mode, size, mtime, ctime)| Stamp {
                dev: dev.into(),
                ino,
                mode,
                size,
                mtime,
                ctime,
            },
        )
    }

    fn listings() -> impl Strategy<Value = Listing> {
        let names = prop::collection::vec(1_u8.., 1..9).prop_map(OsString::from_vec);
        let leaf = prop_oneof![
            stamps().prop_map(Entry::File),
            stamps().prop_map(Entry::Special),
            stamps().prop_map(Entry::Unreadable),
            Just(()).prop_map(|()| Entry::Mount),
        ];
        let entry = leaf.prop_recursive(4, 32, 6, {
            let names = names.clone();
            move |inner| {
                (stamps(), prop::collection::btree_map(names.clone(), inner, 0..6))
                    .prop_map(|(stamp, entries)| Entry::Dir(Listing { stamp, entries }))
            }
        });
        (stamps(), prop::collection::btree_map(names, entry, 0..6))
            .prop_map(|(stamp, entries)| Listing { stamp, entries })
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(listing in listings()) {
            let mut bytes = Vec::new();
            listing.encode(&mut bytes);
            let read = Listing::decode(&bytes).unwrap();
            prop_assert_eq!(Listing::decode_top(&bytes), Some(listing.stamp));
            prop_assert_eq!(format!("{read:?}"), format!("{listing:?}"));
            bytes.pop();
            prop_assert!(Listing::decode(&bytes).is_none());
        }

        #[test]
        fn garbage_does_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(Listing::decode(&bytes));
        }
    }
}
