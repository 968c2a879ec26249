//! Where entries are cut: at newlines, else at the borders of characters, and never late.
//!
//! An entry is what one read returned. If it holds a newline, what follows the last one becomes an entry of its own at
//! once. Otherwise, and at the end of that rest, a character that is not complete is held back: at most three bytes, for
//! at most [`HOLD_MS`]. No byte is ever changed, and bytes that are no text are never held.

/// How long the bytes of an incomplete character wait for the rest of it, in milliseconds.
pub const HOLD_MS: u64 = 50;
/// The most bytes that wait.
pub const HOLD_BYTES: usize = 3;
/// How much is searched for a newline at a time.
const SEARCH_BYTES: usize = 512;

/// The part of an incomplete character that the last read of one stream ended with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cutter {
    held: [u8; HOLD_BYTES],
    len: usize,
    since_ms: u64,
}

/// How to cut some bytes: first whole lines, then the rest, then what is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The length of the entry that ends with a newline; 0 is no such entry.
    pub lines: usize,
    /// The length of the partial entry behind it; 0 is no such entry.
    pub rest: usize,
}

impl Cutter {
    /// Returns what is held back. It goes in front of what is read next.
    #[must_use]
    pub fn held(&self) -> &[u8] {
        &self.held[..self.len]
    }

    /// Returns when what is held back must be written as it is, in milliseconds of the clock that `cut` is given.
    #[must_use]
    pub fn due_ms(&self) -> Option<u64> {
        (self.len > 0).then(|| self.since_ms.saturating_add(HOLD_MS))
    }

    /// Cuts `data`, which is what was held and behind it what one read returned. What it holds back is its end.
    pub fn cut(&mut self, data: &[u8], now_ms: u64) -> Cut {
        let lines = after_last_newline(data);
        let rest = &data[lines..];
        let hold = incomplete(rest);
        // What still waits waits from when its first byte came.
        if hold < data.len() || self.len == 0 {
            self.since_ms = now_ms;
        }
        self.len = hold;
        self.held[..hold].copy_from_slice(&rest[rest.len() - hold..]);
        Cut { lines, rest: rest.len() - hold }
    }

    /// Gives up what is held back, to be written as a partial entry.
    pub fn release(&mut self) -> ([u8; HOLD_BYTES], usize) {
        let released = (self.held, self.len);
        self.len = 0;
        released
    }
}

/// Returns where the last line ends that does end.
fn after_last_newline(data: &[u8]) -> usize {
    // In most reads a newline is near the end; where there is none, whole chunks are searched at a time.
    let mut end = data.len();
    while end > 0 {
        let from = end.saturating_sub(SEARCH_BYTES);
        let chunk = &data[from..end];
        if chunk.contains(&b'\n') {
            return chunk.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| from + at + 1);
        }
        end = from;
    }
    0
}

/// Returns how many bytes at the end of `bytes` begin a character that they do not complete.
fn incomplete(bytes: &[u8]) -> usize {
    let tail = &bytes[bytes.len() - bytes.len().min(HOLD_BYTES)..];
    let Some(lead) = tail.iter().rposition(|byte| *byte & 0xc0 != 0x80) else {
        return 0;
    };
    let character = &tail[lead..];
    match std::str::from_utf8(character) {
        Ok(_) => 0,
        Err(error) if error.valid_up_to() == 0 && error.error_len().is_none() => character.len(),
        Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `reads` 10 ms apart and returns the entries; the last call releases what is held.
    fn entries(reads: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut cutter = Cutter::default();
        let mut entries = Vec::new();
        let mut now_ms = 0;
        for read in reads {
            let data = [cutter.held(), read].concat();
            let cut = cutter.cut(&data, now_ms);
            entries.push(data[..cut.lines].to_vec());
            entries.push(data[cut.lines..cut.lines + cut.rest].to_vec());
            now_ms += 10;
        }
        let (held, len) = cutter.release();
        entries.push(held[..len].to_vec());
        entries.retain(|entry| !entry.is_empty());
        entries
    }

    #[track_caller]
    fn check(reads: &[&[u8]], expected: &[&[u8]]) {
        assert_eq!(entries(reads), expected.iter().map(|entry| entry.to_vec()).collect::<Vec<_>>());
    }

    #[test]
    fn a_read_is_cut_after_its_last_newline_only() {
        check(&[b"a\nb\nc"], &[b"a\nb\n", b"c"]);
        check(&[b"a\nb\n"], &[b"a\nb\n"]);
        check(&[b"no newline"], &[b"no newline"]);
        check(&[b"\n"], &[b"\n"]);
    }

    #[test]
    fn a_character_is_not_cut() {
        check(&[b"x\xe2\x82", b"\xac y"], &[b"x", b"\xe2\x82\xac y"]);
        check(&[b"\xf0", b"\x9f", b"\x98", b"\x80"], &[b"\xf0\x9f\x98\x80"]);
        check(&[b"line\n\xc3", b"\xa9\n"], &[b"line\n", b"\xc3\xa9\n"]);
    }

    #[test]
    fn what_is_no_text_is_never_held() {
        check(&[b"\xff", b"\x80\x80", b"\xc0", b"\xf5"], &[b"\xff", b"\x80\x80", b"\xc0", b"\xf5"]);
        check(&[b"\xe0\x80", b"a"], &[b"\xe0\x80", b"a"]);
    }

    #[test]
    fn what_never_completes_comes_out_as_it_is() {
        check(&[b"end\xe2\x82"], &[b"end", b"\xe2\x82"]);
        check(&[b"\xe2\x82", b"oops"], &[b"\xe2\x82oops"]);
    }

    #[test]
    fn the_wait_counts_from_the_first_byte() {
        let mut cutter = Cutter::default();
        assert_eq!(cutter.cut(b"\xf0", 100), Cut { lines: 0, rest: 0 });
        assert_eq!(cutter.due_ms(), Some(150));
        assert_eq!(cutter.cut(b"\xf0\x9f", 140), Cut { lines: 0, rest: 0 });
        assert_eq!(cutter.due_ms(), Some(150));
        assert_eq!(cutter.cut(b"\xf0\x9f\x98\x80\xc3", 145), Cut { lines: 0, rest: 4 });
        assert_eq!(cutter.due_ms(), Some(195));
        assert_eq!(cutter.release(), ([0xc3, 0x9f, 0], 1));
        assert_eq!(cutter.due_ms(), None);
    }

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(text in ".{0,40}", noise in proptest::collection::vec(any::<u8>(), 0..40), sizes in proptest::collection::vec(1_usize..9, 1..40)) {
            for whole in [text.into_bytes(), noise] {
                let mut reads = Vec::new();
                let mut rest = &whole[..];
                for size in sizes.iter().cycle() {
                    if rest.is_empty() {
                        break;
                    }
                    let (read, after) = rest.split_at(rest.len().min(*size));
                    reads.push(read);
                    rest = after;
                }
                prop_assert_eq!(entries(&reads).concat(), whole);
            }
        }

        #[test]
        fn text_is_cut_into_text(text in "[a-zé€😀\n]{0,60}", sizes in proptest::collection::vec(1_usize..9, 1..40)) {
            let mut reads = Vec::new();
            let mut rest = text.as_bytes();
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (read, after) = rest.split_at(rest.len().min(*size));
                reads.push(read);
                rest = after;
            }
            for entry in entries(&reads) {
                prop_assert!(std::str::from_utf8(&entry).is_ok(), "{entry:?}");
            }
        }
    }
}
