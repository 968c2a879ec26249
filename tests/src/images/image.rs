//! [`Image`]: what may be on a disk after the power went. Cheap to clone, compare by its [`digest`](Image::digest) and write.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// What is shared between images.
const PAGE: usize = 4096;
/// What a disk writes whole or not at all, in bytes.
pub const SECTOR: u64 = 512;

/// A part of a file.
#[derive(Clone, Debug)]
struct Page {
    bytes: Box<[u8]>,
    digest: OnceLock<u64>,
}

impl Page {
    fn digest(&self) -> u64 {
        *self.digest.get_or_init(|| {
            // Not against people who look for two that are alike; but there are very many pages.
            let words = self
                .bytes
                .chunks_exact(8)
                .map(|word| word.iter().fold(0_u64, |word, byte| (word << 8) | u64::from(*byte)));
            words.fold(0, |digest: u64, word| {
                (digest.rotate_left(29) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            })
        })
    }
}

/// The bytes of a file. A page that is missing is zeros.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    len: u64,
    pages: Vec<Option<Arc<Page>>>,
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("a file that fits into memory")
}

impl Contents {
    /// Returns contents with these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut contents = Self::default();
        contents.write(0, bytes);
        contents
    }

    /// Returns the length, in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Says whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes bytes; what lies between the end and `offset` becomes zeros.
    pub fn write(&mut self, offset: u64, mut bytes: &[u8]) {
        let mut at = index(offset);
        self.len = self.len.max(offset + bytes.len() as u64);
        self.pages.resize(index(self.len).div_ceil(PAGE), None);
        while !bytes.is_empty() {
            let (page, begin) = (at / PAGE, at % PAGE);
            let (now, rest) = bytes.split_at(bytes.len().min(PAGE - begin));
            self.page(page)[begin..begin + now.len()].copy_from_slice(now);
            at += now.len();
            bytes = rest;
        }
    }

    /// Gives it another length; what it grows by is zeros.
    pub fn resize(&mut self, len: u64) {
        self.len = len;
        self.pages.resize(index(len).div_ceil(PAGE), None);
        let kept = index(len) % PAGE;
        if let (1.., Some(Some(_))) = (kept, self.pages.last()) {
            let last = self.pages.len() - 1;
            self.page(last)[kept..].fill(0);
        }
    }

    fn page(&mut self, page: usize) -> &mut [u8] {
        let fresh = || Arc::new(Page { bytes: vec![0; PAGE].into(), digest: OnceLock::new() });
        let page = Arc::make_mut(self.pages[page].get_or_insert_with(fresh));
        page.digest = OnceLock::new();
        &mut page.bytes
    }

    /// Returns all the bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.pages.len() * PAGE);
        for page in &self.pages {
            match page {
                Some(page) => bytes.extend_from_slice(&page.bytes),
                None => bytes.resize(bytes.len() + PAGE, 0),
            }
        }
        bytes.truncate(index(self.len));
        bytes
    }

    fn digest(&self, hasher: &mut DefaultHasher) {
        self.len.hash(hasher);
        for (number, page) in self.pages.iter().enumerate() {
            if let Some(page) = page {
                (number, page.digest()).hash(hasher);
            }
        }
    }

    /// Writes them into a new file, zeros as holes, neighbours with one call.
    fn write_to(&self, file: &File) -> io::Result<()> {
        file.set_len(self.len)?;
        let mut run = Vec::new();
        let mut begin = 0;
        for (number, page) in self.pages.iter().chain([&None]).enumerate() {
            match page {
                Some(page) => {
                    if run.is_empty() {
                        begin = number * PAGE;
                    }
                    run.extend_from_slice(&page.bytes);
                }
                None if run.is_empty() => {}
                None => {
                    run.truncate(index(self.len) - begin);
                    file.write_all_at(&run, begin as u64)?;
                    run.clear();
                }
            }
        }
        Ok(())
    }
}

/// The files and directories below one directory, after a power cut.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// The directories, the parent before the child.
    pub directories: BTreeSet<String>,
    /// The files. One with two names is there twice, as two files of the same number.
    pub files: BTreeMap<String, (u32, Arc<Contents>)>,
}

impl Image {
    /// Returns a number that tells images apart.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.directories.hash(&mut hasher);
        for (path, (_, contents)) in &self.files {
            path.hash(&mut hasher);
            contents.digest(&mut hasher);
        }
        hasher.finish()
    }

    /// Returns how many bytes its files have.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|(_, contents)| contents.len()).sum()
    }

    /// Makes a directory look like it, whatever was in it.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn write(&self, root: &Path) -> io::Result<()> {
        clear(root)?;
        for directory in &self.directories {
            fs::create_dir(root.join(directory))?;
        }
        let mut made: BTreeMap<u32, &str> = BTreeMap::new();
        for (path, (file, contents)) in &self.files {
            if let Some(first) = made.get(file) {
                fs::hard_link(root.join(first), root.join(path))?;
                continue;
            }
            contents.write_to(&File::create_new(root.join(path))?)?;
            made.insert(*file, path);
        }
        Ok(())
    }
}

/// Removes all that is in a directory.
fn clear(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_what_was_written_and_cut() {
        let mut contents = Contents::of(b"0123456789");
        contents.write(5_000, b"far");
        contents.resize(5_001);
        contents.resize(5_004);
        let mut expected = vec![0; 5_004];
        expected[..10].copy_from_slice(b"0123456789");
        expected[5_000] = b'f';
        assert_eq!(contents.bytes(), expected);
        let before = contents.clone();
        contents.write(4_090, &[7; 20]);
        expected[4_090..4_110].fill(7);
        assert_eq!(contents.bytes(), expected);
        assert_eq!(before.bytes()[4_090..4_110], [0; 20]);
        contents.resize(0);
        assert!(contents.is_empty() && contents.bytes().is_empty());
    }

    #[test]
    fn an_image_is_written_as_it_is_and_told_from_others() {
        let mut image = Image::default();
        image.directories.insert("sub".to_owned());
        let mut sparse = Contents::of(&[1; 5_000]);
        sparse.write(100_000, &[2; 10]);
        sparse.resize(200_000);
        let sparse = Arc::new(sparse);
        image.files.insert("sub/one".to_owned(), (1, Arc::clone(&sparse)));
        image.files.insert("sub/two".to_owned(), (1, Arc::clone(&sparse)));
        image.files.insert("empty".to_owned(), (2, Arc::default()));
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("former"), "gone").unwrap();
        image.write(directory.path()).unwrap();
        let read = |name: &str| fs::read(directory.path().join(name)).unwrap();
        assert_eq!((read("sub/one"), read("empty")), (sparse.bytes(), Vec::new()));
        fs::write(directory.path().join("sub/one"), "both").unwrap();
        assert_eq!(read("sub/two"), b"both");
        assert!(!directory.path().join("former").exists());
        let mut other = image.clone();
        assert_eq!(other.digest(), image.digest());
        other.files.remove("empty");
        assert_ne!(other.digest(), image.digest());
        assert_eq!(image.bytes(), 400_000);
    }
}
