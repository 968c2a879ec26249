//! Little-endian values one after another: what journal records and control messages are made of.
//!
//! A reader ignores what follows the fields that it knows, so a message grows by appending fields. A value inside a
//! value is a [block](Writer::block), with its own length, so it can grow as well. No framing and no checksums here.

use std::fmt;

use uuid::Uuid;

/// The bytes are not what they should be: too short, or a code that nobody defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed bytes")
    }
}

impl std::error::Error for Malformed {}

/// A value that has one binary form.
pub trait Wire: Sized {
    /// Appends the value.
    fn put(&self, to: &mut Writer);

    /// Takes the value off the front.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if it is not there.
    fn get(from: &mut Reader<'_>) -> Result<Self, Malformed>;
}

/// Collects bytes.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Returns an empty writer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns what was written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Appends bytes as they are, without a length.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends one byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Appends a 0 or a 1.
    pub fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    /// Appends two bytes.
    pub fn u16(&mut self, value: u16) {
        self.raw(&value.to_le_bytes());
    }

    /// Appends four bytes.
    pub fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    /// Appends eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    /// Appends sixteen bytes.
    pub fn uuid(&mut self, value: Uuid) {
        self.raw(value.as_bytes());
    }

    /// Appends a length (u32) and the bytes. Nothing here is ever near 4 GiB; what is beyond is left out.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.u32(len);
        self.raw(bytes.get(..len as usize).unwrap_or(bytes));
    }

    /// Appends a 0, or a 1 and the value.
    pub fn option<T>(&mut self, value: Option<&T>, put: impl FnOnce(&T, &mut Self)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            put(value, self);
        }
    }

    /// Appends a length (u32) and what `put` writes.
    pub fn block(&mut self, put: impl FnOnce(&mut Self)) {
        let mut inner = Self::new();
        put(&mut inner);
        self.bytes(&inner.bytes);
    }

    /// Appends a value as a block.
    pub fn value(&mut self, value: &impl Wire) {
        self.block(|inner| value.put(inner));
    }

    /// Appends a count (u32) and each value as a block.
    pub fn list<T: Wire>(&mut self, values: &[T]) {
        self.u32(u32::try_from(values.len()).unwrap_or(u32::MAX));
        for value in values {
            self.value(value);
        }
    }
}

/// Takes values off the front of bytes.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Returns a reader over `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Returns what was not taken yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Takes `len` bytes as they are.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if there are fewer; likewise for every other method here.
    pub fn raw(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Takes an array.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*taken)
    }

    /// Takes one byte.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Takes a truth value: any byte but 0 is true.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub fn bool(&mut self) -> Result<bool, Malformed> {
        self.u8().map(|byte| byte != 0)
    }

    /// Takes two bytes.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    /// Takes four bytes.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    /// Takes eight bytes.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    /// Takes sixteen bytes.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub fn uuid(&mut self) -> Result<Uuid, Malformed> {
        self.array().map(Uuid::from_bytes)
    }

    /// Takes a length and that many bytes.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.u32()?;
        self.raw(usize::try_from(len).map_err(|_| Malformed)?)
    }

    /// Takes a flag and, if it is set, a value.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub fn option<T>(
        &mut self,
        get: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        if self.bool()? { get(self).map(Some) } else { Ok(None) }
    }

    /// Takes a value that was put as a block; what the block holds beyond it is ignored.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub fn value<T: Wire>(&mut self) -> Result<T, Malformed> {
        T::get(&mut Reader::new(self.bytes()?))
    }

    /// Takes a count and that many values.
    ///
    /// # Errors
    ///
    /// [`Malformed`].
    pub fn list<T: Wire>(&mut self) -> Result<Vec<T>, Malformed> {
        let count = self.u32()?;
        // No capacity from an untrusted count: each value takes at least its own length off the bytes.
        (0..count).map(|_| self.value()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Pair(u8, u64);

    impl Wire for Pair {
        fn put(&self, to: &mut Writer) {
            to.u8(self.0);
            to.u64(self.1);
        }

        fn get(from: &mut Reader<'_>) -> Result<Self, Malformed> {
            Ok(Self(from.u8()?, from.u64()?))
        }
    }

    #[test]
    fn what_a_newer_writer_appends_is_ignored_at_every_level() {
        let mut writer = Writer::new();
        writer.block(|inner| {
            Pair(1, 2).put(inner);
            inner.bytes(b"a field of the future");
        });
        writer.u16(7);
        writer.u32(99);
        let bytes = writer.into_bytes();
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.value(), Ok(Pair(1, 2)));
        assert_eq!(reader.u16(), Ok(7));
        assert_eq!(reader.rest().len(), 4);
    }

    #[test]
    fn a_cut_anywhere_is_malformed_and_a_huge_count_allocates_nothing() {
        let mut writer = Writer::new();
        writer.list(&[Pair(1, 2), Pair(3, 4)]);
        let bytes = writer.into_bytes();
        for cut in 0..bytes.len() {
            assert_eq!(Reader::new(&bytes[..cut]).list::<Pair>(), Err(Malformed), "{cut}");
        }
        assert_eq!(Reader::new(&[0xff; 8]).list::<Pair>(), Err(Malformed));
    }
}
