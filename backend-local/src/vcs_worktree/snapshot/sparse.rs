//! Files with holes: only their data is stored, behind a map of it, as GNU tar's format 1.0 has it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{SeekFrom, seek};

/// Smaller files are stored with their holes.
const MIN_BYTES: u64 = 1 << 20;
const BLOCK: usize = 512;
/// A longer map is no map: a file of so many pieces is stored with its holes.
const MAX_PIECES: usize = 1 << 20;

/// A piece of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) at: u64,
    pub(super) length: u64,
}

/// Finds the data of a file of `size` bytes that takes `blocks` blocks of 512 bytes. `None` if it has no holes to speak of.
pub(super) fn pieces(file: &File, size: u64, blocks: u64) -> io::Result<Option<Vec<Piece>>> {
    if size < MIN_BYTES || blocks.saturating_mul(512) >= size {
        return Ok(None);
    }
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < size {
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data,
            // Nothing but a hole up to the end.
            Err(rustix::io::Errno::NXIO) => break,
            // The file system knows no holes.
            Err(rustix::io::Errno::INVAL) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let end = seek(file, SeekFrom::Hole(data))?.min(size);
        if end <= data {
            break;
        }
        pieces.push(Piece { at: data, length: end - data });
        at = end;
        if pieces.len() > MAX_PIECES {
            return Ok(None);
        }
    }
    let whole = matches!(pieces.as_slice(), [piece] if piece.at == 0 && piece.length == size);
    Ok((!whole).then_some(pieces))
}

/// What is stored of a file: its map and its data.
#[derive(Debug)]
pub(super) struct Stored<'a> {
    file: &'a File,
    map: io::Cursor<Vec<u8>>,
    pieces: std::vec::IntoIter<Piece>,
    piece: Piece,
    size: u64,
}

impl<'a> Stored<'a> {
    /// Begins to read what is stored of a file of `size` bytes.
    pub(super) fn new(file: &'a File, pieces: Vec<Piece>, size: u64) -> Self {
        // A last piece of nothing says where the file ends.
        let end = Piece { at: size, length: 0 };
        let ends_in_hole = pieces.last().is_none_or(|last| last.at + last.length < size);
        let pieces: Vec<_> = pieces.into_iter().chain(ends_in_hole.then_some(end)).collect();
        let mut map = format!("{}\n", pieces.len());
        for piece in &pieces {
            map.push_str(&format!("{}\n{}\n", piece.at, piece.length));
        }
        let mut map = map.into_bytes();
        map.resize(map.len().div_ceil(BLOCK) * BLOCK, 0);
        let bytes: u64 = pieces.iter().map(|piece| piece.length).sum();
        let size = bytes + u64::try_from(map.len()).unwrap_or_default();
        let piece = Piece { at: 0, length: 0 };
        Self { file, map: io::Cursor::new(map), pieces: pieces.into_iter(), piece, size }
    }

    /// How many bytes it gives.
    pub(super) const fn size(&self) -> u64 {
        self.size
    }
}

impl Read for Stored<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let map = self.map.read(buffer)?;
        if map > 0 || buffer.is_empty() {
            return Ok(map);
        }
        while self.piece.length == 0 {
            match self.pieces.next() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let most = usize::try_from(self.piece.length).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..most], self.piece.at)?;
        let bytes = u64::try_from(read).unwrap_or_default();
        self.piece.at += bytes;
        self.piece.length -= bytes;
        Ok(read)
    }
}

/// Reads the map at the beginning of what is stored of a file of `size` bytes. `None` if it is none.
pub(super) fn read_map(data: &mut dyn Read, size: u64) -> io::Result<Option<Vec<Piece>>> {
    let mut map = Map { data, block: [0; BLOCK], at: BLOCK };
    let Some(count) = map.number()? else { return Ok(None) };
    let mut pieces: Vec<Piece> = Vec::new();
    for _ in 0..count {
        let (Some(at), Some(length)) = (map.number()?, map.number()?) else { return Ok(None) };
        let from = pieces.last().map_or(0, |last| last.at + last.length);
        let fits = at >= from && at.checked_add(length).is_some_and(|end| end <= size);
        if !fits || pieces.len() > MAX_PIECES {
            return Ok(None);
        }
        pieces.push(Piece { at, length });
    }
    Ok(Some(pieces))
}

struct Map<'a> {
    data: &'a mut dyn Read,
    block: [u8; BLOCK],
    at: usize,
}

impl Map<'_> {
    fn number(&mut self) -> io::Result<Option<u64>> {
        let mut number = None;
        loop {
            if self.at == BLOCK {
                self.data.read_exact(&mut self.block)?;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            match byte {
                b'0'..=b'9' => {
                    let digit = u64::from(byte - b'0');
                    let more = number.unwrap_or(0_u64).checked_mul(10);
                    number = more.and_then(|more| more.checked_add(digit));
                    if number.is_none() {
                        return Ok(None);
                    }
                }
                b'\n' => return Ok(number),
                _ => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn what_is_stored_says_where_the_data_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let size = 1 << 40;
        file.set_len(size).unwrap();
        file.write_all_at(b"middle", 1 << 30).unwrap();
        let meta = file.metadata().unwrap();
        let Some(found) = pieces(&file, size, meta.blocks()).unwrap() else {
            eprintln!("not run: no holes here");
            return;
        };
        let mut stored = Stored::new(&file, found.clone(), size);
        let expected = stored.size();
        let mut bytes = Vec::new();
        stored.read_to_end(&mut bytes).unwrap();
        assert_eq!(u64::try_from(bytes.len()).unwrap(), expected);
        assert!(bytes.len() < 1 << 20);
        let mut rest = bytes.as_slice();
        let map = read_map(&mut rest, size).unwrap().unwrap();
        assert_eq!(map[..found.len()], found);
        assert_eq!(map.last(), Some(&Piece { at: size, length: 0 }));
        assert!(rest.windows(6).any(|six| six == b"middle"));
    }

    #[test]
    fn maps_that_lead_outside_are_none() {
        for (text, fits) in [
            ("1\n0\n5\n", true),
            ("2\n0\n2\n2\n3\n", true),
            ("0\n", true),
            ("1\n0\n11\n", false),
            ("1\n18446744073709551615\n2\n", false),
            ("1\n99999999999999999999\n2\n", false),
            ("2\n5\n2\n0\n1\n", false),
            ("\n", false),
            ("x\n", false),
        ] {
            let mut block = text.as_bytes().to_vec();
            block.resize(BLOCK, 0);
            let map = read_map(&mut block.as_slice(), 10).unwrap();
            assert_eq!(map.is_some(), fits, "{text:?}");
        }
        assert!(read_map(&mut b"1\n".as_slice(), 10).is_err());
    }
}
