//! The archive: a tar stream compressed with zstd, written and read from one end to the other.
//!
//! Names and link targets are written literally, long ones in GNU's way. A file that turns out to have changed while it
//! was written is taken back: large ones begin a zstd frame of their own, at which the file can be cut off.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek as _, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

/// The level of compression: fast.
const LEVEL: i32 = 1;
/// Longer names do not fit in a header.
const NAME_BYTES: usize = 100;
/// What the header of a long name is called.
const LONG: &[u8] = b"././@LongLink";
/// In the extended header of a file with holes. The name is not put there: it may have line ends.
const SPARSE: &str = "GNU.sparse.major";
/// How much is read at a time.
pub(super) const CHUNK: usize = 128 << 10;

/// A compressed file, in frames.
struct Frames {
    file: File,
    encoder: Option<zstd::Encoder<'static, File>>,
}

impl Frames {
    fn begin(&mut self) -> io::Result<()> {
        let mut encoder = zstd::Encoder::new(self.file.try_clone()?, LEVEL)?;
        encoder.include_checksum(true)?;
        self.encoder = Some(encoder);
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        match self.encoder.take() {
            Some(encoder) => encoder.finish().map(drop),
            None => Ok(()),
        }
    }

    fn encoder(&mut self) -> io::Result<&mut zstd::Encoder<'static, File>> {
        if self.encoder.is_none() {
            self.begin()?;
        }
        self.encoder.as_mut().ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Frames {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.encoder()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.encoder()?.flush()
    }
}

/// What the header of a member says beside its name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes {
    pub(super) mode: u32,
    /// Seconds.
    pub(super) mtime: i64,
}

impl Attributes {
    /// Those of members that stand for no file.
    pub(super) const PLAIN: Self = Self { mode: 0o600, mtime: 0 };

    fn header(self, kind: EntryType, size: u64) -> Header {
        self.fill(Header::new_gnu(), kind, size)
    }

    fn fill(self, mut header: Header, kind: EntryType, size: u64) -> Header {
        header.set_entry_type(kind);
        header.set_mode(self.mode);
        // The listing has times before 1970.
        header.set_mtime(u64::try_from(self.mtime).unwrap_or_default());
        header.set_size(size);
        header
    }
}

/// A place in the archive that can be gone back to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark(u64);

/// Writes an archive.
pub(super) struct Writer {
    builder: Builder<Frames>,
}

impl Writer {
    /// Writes to the beginning of `file`.
    pub(super) fn new(file: &File) -> io::Result<Self> {
        let frames = Frames { file: file.try_clone()?, encoder: None };
        Ok(Self { builder: Builder::new(frames) })
    }

    /// Appends a member; returns the SHA-256 of what it holds. `data` must give exactly `size` bytes.
    pub(super) fn file(
        &mut self,
        name: &[u8],
        attributes: Attributes,
        size: u64,
        data: impl Read,
    ) -> io::Result<[u8; 32]> {
        let mut header = attributes.header(EntryType::Regular, size);
        self.name(&mut header, name)?;
        self.append(&mut header, size, data)
    }

    /// Appends a file with holes: `map` describes `data`, as GNU tar's format 1.0 has it. `size` is that of the file with
    /// its holes, `stored` what `data` gives.
    pub(super) fn sparse(
        &mut self,
        name: &[u8],
        attributes: Attributes,
        size: u64,
        stored: u64,
        data: impl Read,
    ) -> io::Result<[u8; 32]> {
        self.builder.append_pax_extensions([
            (SPARSE, b"1".as_slice()),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.realsize", size.to_string().as_bytes()),
        ])?;
        // GNU tar takes the map for one only behind a header of this kind.
        let mut header = attributes.fill(Header::new_ustar(), EntryType::Regular, stored);
        self.name(&mut header, name)?;
        self.append(&mut header, stored, data)
    }

    fn append(&mut self, header: &mut Header, size: u64, data: impl Read) -> io::Result<[u8; 32]> {
        header.set_cksum();
        let mut data = Hashed { data, sha256: Sha256::new(), read: 0 };
        self.builder.append(header, &mut data)?;
        if data.read != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(data.sha256.finalize().into())
    }

    /// Appends a directory.
    pub(super) fn dir(&mut self, name: &[u8], attributes: Attributes) -> io::Result<()> {
        let mut header = attributes.header(EntryType::Directory, 0);
        let name = if name.ends_with(b"/") { name.to_vec() } else { [name, b"/"].concat() };
        self.name(&mut header, &name)?;
        header.set_cksum();
        self.builder.append(&header, io::empty())
    }

    /// Appends a symbolic link, or another name of an earlier member.
    pub(super) fn link(
        &mut self,
        name: &[u8],
        attributes: Attributes,
        hard: bool,
        target: &[u8],
    ) -> io::Result<()> {
        let kind = if hard { EntryType::Link } else { EntryType::Symlink };
        let mut header = attributes.header(kind, 0);
        if target.len() > NAME_BYTES {
            self.long(EntryType::GNULongLink, target)?;
        }
        if let Some(gnu) = header.as_gnu_mut() {
            let short = target.get(..NAME_BYTES).unwrap_or(target);
            gnu.linkname[..short.len()].copy_from_slice(short);
        }
        self.name(&mut header, name)?;
        header.set_cksum();
        self.builder.append(&header, io::empty())
    }

    fn name(&mut self, header: &mut Header, name: &[u8]) -> io::Result<()> {
        if name.len() > NAME_BYTES {
            self.long(EntryType::GNULongName, name)?;
        }
        set_name(header, name);
        Ok(())
    }

    fn long(&mut self, kind: EntryType, name: &[u8]) -> io::Result<()> {
        let name = [name, b"\0"].concat();
        let size = u64::try_from(name.len()).unwrap_or(u64::MAX);
        let mut header = Attributes { mode: 0o644, mtime: 0 }.header(kind, size);
        set_name(&mut header, LONG);
        header.set_cksum();
        self.builder.append(&header, name.as_slice())
    }

    /// Marks the place where the next member begins.
    pub(super) fn mark(&mut self) -> io::Result<Mark> {
        let frames = self.builder.get_mut();
        frames.end()?;
        frames.file.stream_position().map(Mark)
    }

    /// Takes back what was appended since.
    pub(super) fn go_back(&mut self, mark: Mark) -> io::Result<()> {
        let frames = self.builder.get_mut();
        frames.encoder = None;
        frames.file.set_len(mark.0)?;
        frames.file.seek(SeekFrom::Start(mark.0)).map(drop)
    }

    /// Returns how many bytes have been written, apart from what is still being compressed.
    pub(super) fn written(&mut self) -> io::Result<u64> {
        self.builder.get_mut().file.stream_position()
    }

    /// Ends the archive.
    pub(super) fn finish(self) -> io::Result<()> {
        self.builder.into_inner()?.end()
    }
}

fn set_name(header: &mut Header, name: &[u8]) {
    let short = name.get(..NAME_BYTES).unwrap_or(name);
    header.as_mut_bytes()[..short.len()].copy_from_slice(short);
}

/// Hashes what is read.
struct Hashed<R> {
    data: R,
    sha256: Sha256,
    read: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.data.read(buffer)?;
        self.sha256.update(&buffer[..read]);
        self.read = self.read.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
        Ok(read)
    }
}

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Sparse,
    Dir,
    Link,
    Hard,
}

/// A member that was found.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: Vec<u8>,
    pub(super) kind: Kind,
    /// What a link says.
    pub(super) target: Vec<u8>,
    /// How many bytes are stored.
    pub(super) size: u64,
}

/// Why reading stopped.
#[derive(Debug)]
pub(super) enum ReadError<E> {
    /// There is no such file.
    Missing,
    /// The archive is damaged; why, for people.
    Damaged(String),
    /// The reader wants no more.
    Stopped(E),
}

/// Reads an archive to its end and shows each member to `see`. Returns the SHA-256 of the file and its size.
///
/// What `see` does not read of a member is skipped.
pub(super) fn read<E>(
    path: &Path,
    see: &mut dyn FnMut(&Member, &mut dyn Read) -> Result<(), E>,
) -> Result<([u8; 32], u64), ReadError<E>> {
    let damaged = |error: io::Error| ReadError::Damaged(error.to_string());
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ReadError::Missing,
            _ => damaged(error),
        })?;
    if !file.metadata().map_err(damaged)?.is_file() {
        return Err(ReadError::Damaged("it is no file".to_owned()));
    }
    let mut hashed = Hashed { data: file, sha256: Sha256::new(), read: 0 };
    let buffered = BufReader::with_capacity(CHUNK, &mut hashed);
    let decoder = zstd::Decoder::with_buffer(buffered).map_err(damaged)?;
    let mut archive = tar::Archive::new(decoder);
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        let member = member(&mut entry).map_err(damaged)?;
        see(&member, &mut entry).map_err(ReadError::Stopped)?;
        io::copy(&mut entry, &mut io::sink()).map_err(damaged)?;
    }
    // What follows the last member counts, too.
    let mut decoder = archive.into_inner();
    io::copy(&mut decoder, &mut io::sink()).map_err(damaged)?;
    drop(decoder);
    Ok((hashed.sha256.finalize().into(), hashed.read))
}

fn member<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Member> {
    let mut sparse = false;
    if let Some(extensions) = entry.pax_extensions()? {
        for extension in extensions {
            sparse |= extension?.key_bytes() == SPARSE.as_bytes();
        }
    }
    let kind = match (entry.header().entry_type(), sparse) {
        (EntryType::Regular, false) => Kind::File,
        (EntryType::Regular, true) => Kind::Sparse,
        (EntryType::Directory, false) => Kind::Dir,
        (EntryType::Symlink, false) => Kind::Link,
        (EntryType::Link, false) => Kind::Hard,
        (other, _) => {
            return Err(io::Error::other(format!("it has a member of kind {other:?}")));
        }
    };
    let mut name = entry.path_bytes().into_owned();
    if kind == Kind::Dir && name.ends_with(b"/") {
        name.pop();
    }
    let target = entry.link_name_bytes().unwrap_or_default().into_owned();
    Ok(Member { name, kind, target, size: entry.size() })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Seen = Vec<(Vec<u8>, Kind, Vec<u8>, Vec<u8>)>;

    fn all(path: &Path) -> Result<Seen, ReadError<io::Error>> {
        let mut seen = Vec::new();
        read(path, &mut |member, data| {
            let mut content = Vec::new();
            data.read_to_end(&mut content)?;
            seen.push((member.name.clone(), member.kind, member.target.clone(), content));
            Ok(())
        })?;
        Ok(seen)
    }

    #[test]
    fn what_is_taken_back_is_gone_and_names_are_literal() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let mut writer = Writer::new(&file).unwrap();
        let long = b"n".repeat(3000);
        let target = [b"./x//../\xff".as_slice(), &b"t/".repeat(400)].concat();
        writer.dir(b"files", Attributes::PLAIN).unwrap();
        let first = writer.file(&long, Attributes::PLAIN, 3, b"abc".as_slice()).unwrap();
        assert_eq!(first, <[u8; 32]>::from(Sha256::digest(b"abc")));
        let mark = writer.mark().unwrap();
        writer.file(b"no", Attributes::PLAIN, 1 << 20, io::repeat(1).take(1 << 20)).unwrap();
        let short = writer.file(b"short", Attributes::PLAIN, 9, b"abc".as_slice());
        assert_eq!(short.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        writer.go_back(mark).unwrap();
        writer.link(b"files/l", Attributes::PLAIN, false, &target).unwrap();
        writer.link(b"files/h", Attributes::PLAIN, true, &long).unwrap();
        writer.sparse(b"files/s\n\xff", Attributes::PLAIN, 99, 4, b"map.".as_slice()).unwrap();
        writer.finish().unwrap();
        let expected = vec![
            (b"files".to_vec(), Kind::Dir, Vec::new(), Vec::new()),
            (long.clone(), Kind::File, Vec::new(), b"abc".to_vec()),
            (b"files/l".to_vec(), Kind::Link, target, Vec::new()),
            (b"files/h".to_vec(), Kind::Hard, long, Vec::new()),
            (b"files/s\n\xff".to_vec(), Kind::Sparse, Vec::new(), b"map.".to_vec()),
        ];
        assert_eq!(all(&path).unwrap(), expected);
    }

    #[test]
    fn a_damaged_archive_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        assert!(matches!(all(&path), Err(ReadError::Missing)));
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let mut writer = Writer::new(&file).unwrap();
        writer.file(b"x", Attributes::PLAIN, 5000, io::repeat(7).take(5000)).unwrap();
        writer.finish().unwrap();
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(all(&path).unwrap().len(), 1);
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            std::fs::write(&path, &flipped).unwrap();
            let told = !matches!(all(&path), Ok(seen) if seen == [(b"x".to_vec(), Kind::File, vec![], vec![7; 5000])]);
            // Some bits of a frame's header mean nothing.
            assert!(told || at < 12, "byte {at}");
            std::fs::write(&path, &whole[..at]).unwrap();
            assert!(all(&path).is_err() || at == 0, "cut at {at}");
        }
    }
}
