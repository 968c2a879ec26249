//! Git's index as bytes: which state of each file it holds, and that state replaced, with every other byte kept.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::Stat;
use sha2::{Digest as _, Sha256};

use super::super::tree::Stamp;
use super::listing::hex;

/// Bytes of an entry before its object name: times, device, inode, mode, user, group, size.
const STAT_BYTES: usize = 40;

/// An index that was understood.
#[derive(Debug)]
pub(super) struct IndexFile {
    bytes: Vec<u8>,
    /// How many bytes an object name has.
    hash: usize,
    entries: Vec<Entry>,
    /// Where the extensions begin.
    extensions: usize,
}

/// One entry.
#[derive(Debug)]
struct Entry {
    /// Where it begins.
    at: usize,
    path: Vec<u8>,
    /// 0, or the side of a conflict.
    stage: u8,
}

impl IndexFile {
    /// Reads an index whose object names have as many bytes as `head`, an object name in hexadecimal, says. `None` if it
    /// is not understood.
    pub(super) fn read(bytes: Vec<u8>, head: &str) -> Option<Self> {
        let hash = head.len() / 2;
        let version = number(&bytes, 4)?;
        if !bytes.starts_with(b"DIRC") || !(2..=4).contains(&version) {
            return None;
        }
        let count = number(&bytes, 8)?;
        let end = bytes.len().checked_sub(hash)?;
        let mut entries: Vec<Entry> = Vec::new();
        let mut at = 12;
        let mut name = Vec::new();
        for _ in 0..count {
            let flags_at = at + STAT_BYTES + hash;
            let flags = bytes.get(flags_at..flags_at + 2)?;
            let extended = version >= 3 && flags[0] & 0x40 != 0;
            let stage = flags[0] >> 4 & 3;
            let mut name_at = flags_at + if extended { 4 } else { 2 };
            if version == 4 {
                let (stripped, read) = offset(bytes.get(name_at..end)?)?;
                name.truncate(name.len().checked_sub(stripped)?);
                name_at += read;
            } else {
                name.clear();
            }
            let length = bytes.get(name_at..end)?.iter().position(|byte| *byte == 0)?;
            name.extend_from_slice(&bytes[name_at..name_at + length]);
            let next = if version == 4 {
                name_at + length + 1
            } else {
                at + (name_at + length - at + 8) / 8 * 8
            };
            entries.push(Entry { at, path: name.clone(), stage });
            at = next;
        }
        (at <= end).then_some(Self { bytes, hash, entries, extensions: at })
    }

    /// Says whether it holds exactly this state for each of its files; keyed by path.
    pub(super) fn states(&self) -> impl Iterator<Item = (&Path, State)> {
        self.entries.iter().filter(|entry| entry.stage == 0).filter_map(|entry| {
            let path = Path::new(OsStr::from_bytes(&entry.path));
            // One without a name stands for an entry of a shared index.
            (!entry.path.is_empty()).then(|| (path, self.state(entry)))
        })
    }

    fn state(&self, entry: &Entry) -> State {
        let field = |index: usize| number(&self.bytes, entry.at + 4 * index).unwrap_or_default();
        State {
            ctime: (field(0), field(1)),
            mtime: (field(2), field(3)),
            ino: field(5),
            size: field(9),
        }
    }

    /// Replaces the state of each file for which `now` has one.
    pub(super) fn restate(&mut self, now: &mut dyn FnMut(&Path) -> Option<Stat>) {
        for index in 0..self.entries.len() {
            let entry = &self.entries[index];
            if entry.stage != 0 || entry.path.is_empty() {
                continue;
            }
            let Some(stat) = now(Path::new(OsStr::from_bytes(&entry.path))) else { continue };
            let old = self.state(entry);
            // Where git keeps no nanoseconds, it is to go on keeping none.
            let nanos = |old: u32, new: u32| if old == 0 { 0 } else { new };
            let fields = [
                low(stat.st_ctime),
                nanos(old.ctime.1, low(stat.st_ctime_nsec)),
                low(stat.st_mtime),
                nanos(old.mtime.1, low(stat.st_mtime_nsec)),
                low(stat.st_dev),
                low(stat.st_ino),
            ];
            let at = entry.at;
            for (index, field) in fields.iter().enumerate() {
                self.put(at + 4 * index, *field);
            }
            // The mode between them is git's own: it stays.
            for (index, field) in [stat.st_uid, stat.st_gid, low(stat.st_size)].iter().enumerate() {
                self.put(at + 28 + 4 * index, *field);
            }
        }
    }

    fn put(&mut self, at: usize, field: u32) {
        if let Some(bytes) = self.bytes.get_mut(at..at + 4) {
            bytes.copy_from_slice(&field.to_be_bytes());
        }
    }

    /// Returns the bytes, with their checksum made anew if they had one. `None` if that cannot be.
    pub(super) fn into_bytes(mut self) -> Option<Vec<u8>> {
        let end = self.bytes.len() - self.hash;
        if self.bytes[end..].iter().all(|byte| *byte == 0) {
            return Some(self.bytes);
        }
        let checksum = if self.hash == 32 {
            Sha256::digest(&self.bytes[..end]).to_vec()
        } else {
            let mut hasher = gix::hash::hasher(gix::hash::Kind::Sha1);
            hasher.update(&self.bytes[..end]);
            hasher.try_finalize().ok()?.as_slice().to_vec()
        };
        self.bytes[end..].copy_from_slice(&checksum);
        Some(self.bytes)
    }

    /// Names objects that nothing but the index may reach: the sides of conflicts, also of settled ones, and the trees that
    /// it remembers. In hexadecimal.
    pub(super) fn objects(&self) -> Vec<String> {
        let at = |entry: &Entry| {
            let begin = entry.at + STAT_BYTES;
            self.bytes.get(begin..begin + self.hash)
        };
        let sides = self.entries.iter().filter(|entry| entry.stage != 0);
        let mut found: Vec<String> = sides.filter_map(at).map(hex).collect();
        let end = self.bytes.len() - self.hash;
        let mut rest = &self.bytes[self.extensions..end];
        while let Some((signature, length)) = rest.get(..4).zip(number(rest, 4)) {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let Some(data) = rest.get(8..length.saturating_add(8)) else { break };
            match signature {
                b"TREE" => trees(data, self.hash, &mut found),
                b"REUC" => settled(data, self.hash, &mut found),
                _ => {}
            }
            rest = &rest[8 + length..];
        }
        found
    }
}

/// The state of a file as an index holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    ctime: (u32, u32),
    mtime: (u32, u32),
    ino: u32,
    size: u32,
}

impl State {
    /// Says whether git would take a file with this stamp for the one that it knows.
    pub(super) fn is(&self, stamp: &Stamp) -> bool {
        let time = |held: (u32, u32), is: (i64, i128)| {
            held.0 == low(is.0) && (held.1 == 0 || held.1 == low(is.1))
        };
        time(self.ctime, stamp.ctime)
            && time(self.mtime, stamp.mtime)
            && self.ino == low(stamp.ino)
            && self.size == low(stamp.size)
    }
}

/// The lower 32 bits, which is what an index holds of a number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "git cuts these numbers off just so"
)]
fn low(number: impl Into<i128>) -> u32 {
    number.into() as u32
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

/// Reads how many bytes of the last name go; returns it with how many bytes say so.
fn offset(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0_usize;
    for (index, byte) in bytes.iter().enumerate().take(8) {
        value = (value << 7) | usize::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
        value += 1;
    }
    None
}

/// Collects the trees that an index remembers: name, zero, entries, space, subtrees, newline, object unless outdated.
fn trees(mut data: &[u8], hash: usize, found: &mut Vec<String>) {
    while let Some(zero) = data.iter().position(|byte| *byte == 0) {
        let rest = &data[zero + 1..];
        let Some(line) = rest.iter().position(|byte| *byte == b'\n') else { break };
        let outdated = rest.first() == Some(&b'-');
        data = &rest[line + 1..];
        if !outdated {
            let Some(oid) = data.get(..hash) else { break };
            found.push(hex(oid));
            data = &data[hash..];
        }
    }
}

/// Collects the sides of settled conflicts: name, zero, three modes with a zero each, an object for each mode but 0.
fn settled(mut data: &[u8], hash: usize, found: &mut Vec<String>) {
    loop {
        let mut texts = [[].as_slice(); 4];
        for text in &mut texts {
            let Some(zero) = data.iter().position(|byte| *byte == 0) else { return };
            *text = &data[..zero];
            data = &data[zero + 1..];
        }
        for _ in texts[1..].iter().filter(|mode| **mode != b"0") {
            let Some(oid) = data.get(..hash) else { return };
            found.push(hex(oid));
            data = &data[hash..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;
    use std::process::Command;

    fn git(dir: &Path, args: &[&str]) -> String {
        let settings = ["user.name=U", "user.email=u@e", "init.defaultBranch=main"];
        let output = Command::new("git")
            .args(settings.iter().flat_map(|set| ["-c", set]))
            .args(args)
            .current_dir(dir)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {args:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Makes a repository whose index has extended flags, conflicts, settled ones and names that share beginnings.
    fn repository(dir: &Path, options: &[&str], version: &str) {
        git(dir, &[&["init", "--quiet"], options].concat());
        for name in ["a", "a-b", "d/x", "d/y", "conflict", "settled"] {
            fs::create_dir_all(dir.join("d")).unwrap();
            fs::write(dir.join(name), format!("{name}\n")).unwrap();
        }
        git(dir, &["add", "--all"]);
        git(dir, &["commit", "--quiet", "-m", "1"]);
        git(dir, &["switch", "--quiet", "-c", "other"]);
        for (branch, text) in [("other", "1\n"), ("main", "2\n")] {
            git(dir, &["switch", "--quiet", branch]);
            fs::write(dir.join("conflict"), text).unwrap();
            fs::write(dir.join("settled"), text).unwrap();
            git(dir, &["commit", "--quiet", "-am", branch]);
        }
        let merge = Command::new("git").args(["merge", "other"]).current_dir(dir).output().unwrap();
        assert!(!merge.status.success());
        git(dir, &["add", "settled"]);
        git(dir, &["update-index", "--skip-worktree", "d/y"]);
        git(dir, &["update-index", "--index-version", version]);
    }

    #[test]
    fn every_version_and_hash_is_read_and_restated() {
        for (options, version) in [
            ([].as_slice(), "2"),
            (&[], "3"),
            (&[], "4"),
            (&["--object-format=sha256"], "3"),
            (&["--object-format=sha256"], "4"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let dir = dir.path();
            repository(dir, options, version);
            let head = git(dir, &["rev-parse", "HEAD"]);
            let bytes = fs::read(dir.join(".git/index")).unwrap();
            let mut index = IndexFile::read(bytes.clone(), &head).unwrap();
            let states: BTreeMap<_, _> = index.states().collect();
            let names: Vec<_> = states.keys().map(|path| path.to_str().unwrap()).collect();
            assert_eq!(names, ["a", "a-b", "d/x", "d/y", "settled"], "{version}");
            let listed = git(dir, &["ls-files", "--unmerged"]);
            let sides: Vec<_> =
                listed.lines().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect();
            let objects = index.objects();
            assert_eq!(sides.len(), 3);
            assert!(sides.iter().all(|side| objects.contains(side)), "{objects:?}");
            // The settled one has three sides, too.
            assert!(objects.len() >= 6, "{objects:?}");
            for object in &objects {
                git(dir, &["cat-file", "-e", object]);
            }
            let untouched = IndexFile::read(bytes.clone(), &head).unwrap().into_bytes();
            assert_eq!(untouched.unwrap(), bytes);
            // A copy has other inodes and change times, so that git takes all for changed until it is told.
            for name in ["a", "a-b", "d/x", "settled"] {
                let file = dir.join(name);
                let was = file.metadata().unwrap();
                fs::write(dir.join("copy"), fs::read(&file).unwrap()).unwrap();
                fs::rename(dir.join("copy"), &file).unwrap();
                assert_ne!(was.ino(), file.metadata().unwrap().ino());
            }
            index.restate(&mut |path| rustix::fs::lstat(dir.join(path)).ok());
            fs::write(dir.join(".git/index"), index.into_bytes().unwrap()).unwrap();
            assert_eq!(git(dir, &["diff-files", "--name-only"]), "conflict\nconflict");
            git(dir, &["fsck", "--strict", "--no-dangling"]);
        }
    }

    #[test]
    fn trees_that_are_remembered_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        repository(dir, &[], "2");
        git(dir, &["merge", "--abort"]);
        git(dir, &["reset", "--hard", "--quiet"]);
        git(dir, &["read-tree", "HEAD"]);
        let head = git(dir, &["rev-parse", "HEAD"]);
        let index = IndexFile::read(fs::read(dir.join(".git/index")).unwrap(), &head).unwrap();
        let trees = ["HEAD^{tree}", "HEAD:d"].map(|tree| git(dir, &["rev-parse", tree]));
        assert_eq!(index.objects(), trees);
    }

    #[test]
    fn what_is_no_index_is_none() {
        let head = "0".repeat(40);
        for bytes in [
            b"".as_slice(),
            b"DIRC",
            b"DIRC\0\0\0\x02\0\0\0\x01",
            b"DIRC\0\0\0\x05\0\0\0\0aaaaaaaaaaaaaaaaaaaa",
            b"DIRC\0\0\0\x02\xff\xff\xff\xffaaaaaaaaaaaaaaaaaaaa",
        ] {
            assert!(IndexFile::read(bytes.to_vec(), &head).is_none());
        }
    }
}
