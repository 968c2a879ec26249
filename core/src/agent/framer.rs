//! Lines from bytes that arrive in any pieces.

/// The longest line that is kept whole. Of a longer one the first 64 KiB are kept, and all bytes are counted.
pub const MAX_LINE_BYTES: usize = 16 << 20;

/// How much is kept of a line that is too long to be a message.
const KEPT_OF_LONG: usize = 64 << 10;

/// A line, or what is there of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Framed<'a> {
    /// Its bytes without the line end; the head of it, if it was too long.
    pub(super) bytes: &'a [u8],
    /// How many bytes were read, without the line end.
    pub(super) len: u64,
    /// Its newline was seen.
    pub(super) ended: bool,
}

/// Puts lines together. Holds at most [`MAX_LINE_BYTES`].
#[derive(Clone, Debug, Default)]
pub struct Framer {
    held: Vec<u8>,
    /// Bytes of the line under way, more than `held` has if it is too long.
    len: u64,
}

impl Framer {
    /// Takes bytes and gives every line that ends in them.
    pub(super) fn push(&mut self, bytes: &[u8], mut each: impl FnMut(Framed<'_>)) {
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|&byte| byte == b'\n') {
            let (line, after) = rest.split_at(at);
            rest = &after[1..];
            if self.len == 0 && line.len() <= MAX_LINE_BYTES {
                each(framed(line, line.len() as u64, true));
            } else {
                self.hold(line);
                self.give(true, &mut each);
            }
        }
        self.hold(rest);
    }

    /// Returns how many bytes are held.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Gives what is there of a line whose end will not come.
    pub(super) fn flush(&mut self, mut each: impl FnMut(Framed<'_>)) {
        if self.len > 0 {
            self.give(false, &mut each);
        }
    }

    fn give(&mut self, ended: bool, each: &mut impl FnMut(Framed<'_>)) {
        let held = std::mem::take(&mut self.held);
        let len = std::mem::take(&mut self.len);
        each(framed(&held, len, ended));
    }

    fn hold(&mut self, bytes: &[u8]) {
        let long = |len: u64| len > MAX_LINE_BYTES as u64;
        let was_long = long(self.len);
        self.len = self.len.saturating_add(bytes.len() as u64);
        if !long(self.len) {
            self.held.extend_from_slice(bytes);
        } else if !was_long {
            let room = KEPT_OF_LONG.saturating_sub(self.held.len()).min(bytes.len());
            self.held.extend_from_slice(&bytes[..room]);
            self.held.truncate(KEPT_OF_LONG);
            self.held.shrink_to_fit();
        }
    }
}

fn framed(bytes: &[u8], len: u64, ended: bool) -> Framed<'_> {
    match bytes.strip_suffix(b"\r") {
        Some(stripped) if len == bytes.len() as u64 => {
            Framed { bytes: stripped, len: len - 1, ended }
        }
        _ => Framed { bytes, len, ended },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(pieces: &[&[u8]]) -> Vec<(Vec<u8>, u64, bool)> {
        let mut framer = Framer::default();
        let mut lines = Vec::new();
        for piece in pieces {
            framer.push(piece, |line| lines.push((line.bytes.to_vec(), line.len, line.ended)));
        }
        framer.flush(|line| lines.push((line.bytes.to_vec(), line.len, line.ended)));
        lines
    }

    #[test]
    fn a_line_that_never_ends_is_counted_and_its_head_is_kept() {
        let piece = vec![b'x'; 1 << 20];
        let mut framer = Framer::default();
        for _ in 0..100 {
            framer.push(&piece, |_| panic!("no line ended"));
            assert!(framer.held.capacity() <= 2 * MAX_LINE_BYTES);
        }
        let mut seen = None;
        framer.push(b"\nnext\n", |line| {
            seen.get_or_insert((line.bytes.len(), line.len));
        });
        assert_eq!(seen, Some((KEPT_OF_LONG, 100 << 20)));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_lines(
            bytes in prop::collection::vec(prop::sample::select(b"ab\r\n\xff".to_vec()), 0..200),
            cuts in prop::collection::vec(0usize..200, 0..8),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(lines(&pieces), lines(&[&bytes]));
        }
    }
}
