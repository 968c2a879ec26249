//! The member `listing`: one line for each entry of the worktree and of its private git directory.
//!
//! `docs/snapshots.md` describes the lines.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use super::quote::{quote, unquote};

/// Which of the two directories an entry is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Side {
    /// The worktree.
    Work,
    /// Its private git directory.
    Git,
}

impl Side {
    const fn word(self) -> &'static str {
        match self {
            Self::Work => "work",
            Self::Git => "git",
        }
    }

    /// The folder of the archive that holds its files.
    pub(super) const fn folder(self) -> &'static [u8] {
        match self {
            Self::Work => b"files",
            Self::Git => b"git",
        }
    }
}

/// Where the bytes of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bytes {
    /// In the archive; the SHA-256 of what is stored there.
    Archive([u8; 32]),
    /// In a checkout of HEAD.
    Checkout,
    /// Where they were copied in from; their SHA-256.
    Copied([u8; 32]),
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A directory.
    Dir,
    /// A regular file, stored as it is.
    File(Bytes),
    /// A regular file with holes, stored as its data behind a map of it.
    Sparse([u8; 32]),
    /// A symbolic link.
    Link {
        /// What it says.
        target: Vec<u8>,
        /// A checkout of HEAD has the same.
        checkout: bool,
    },
    /// Another name of a file that an earlier line has.
    Hard(PathBuf),
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) side: Side,
    /// Relative; empty is the directory itself.
    pub(super) path: PathBuf,
    pub(super) what: What,
    /// The permissions: `st_mode` without the kind.
    pub(super) mode: u32,
    /// Seconds and nanoseconds.
    pub(super) mtime: (i64, u32),
    pub(super) size: u64,
    /// The index held this state of the file.
    pub(super) indexed: bool,
}

impl Item {
    /// Appends the entry as a line.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let (kind, bytes) = match &self.what {
            What::Dir => ("dir", "-".to_owned()),
            What::File(Bytes::Archive(sha256)) => ("file", hex(sha256)),
            What::File(Bytes::Checkout) => ("file", "checkout".to_owned()),
            What::File(Bytes::Copied(sha256)) => ("copied", hex(sha256)),
            What::Sparse(sha256) => ("sparse", hex(sha256)),
            What::Link { checkout: true, .. } => ("link", "checkout".to_owned()),
            What::Link { checkout: false, .. } => ("link", "archive".to_owned()),
            What::Hard(_) => ("hard", "-".to_owned()),
        };
        let (seconds, nanoseconds) = self.mtime;
        let indexed = if self.indexed { "indexed" } else { "-" };
        out.extend_from_slice(
            format!(
                "{} {kind} {:04o} {seconds}.{nanoseconds:09} {} {bytes} {indexed} ",
                self.side.word(),
                self.mode,
                self.size
            )
            .as_bytes(),
        );
        quote(out, self.path.as_os_str().as_bytes());
        let target = match &self.what {
            What::Link { target, .. } => Some(target.as_slice()),
            What::Hard(first) => Some(first.as_os_str().as_bytes()),
            What::Dir | What::File(_) | What::Sparse(_) => None,
        };
        if let Some(target) = target {
            out.push(b' ');
            quote(out, target);
        }
        out.push(b'\n');
    }

    /// Reads a line without its end. `None` if it is none, or names something that it must not.
    fn read(line: &[u8]) -> Option<Self> {
        let quoted = line.iter().position(|byte| *byte == b'"')?;
        let words = std::str::from_utf8(&line[..quoted]).ok()?;
        let words: Vec<&str> = words.split(' ').collect();
        let [side, kind, mode, mtime, size, bytes, indexed, ""] = words.as_slice() else {
            return None;
        };
        let (path, rest) = unquote(&line[quoted..])?;
        let target = match rest {
            [] => None,
            [b' ', rest @ ..] => match unquote(rest)? {
                (target, []) => Some(target),
                _ => return None,
            },
            _ => return None,
        };
        let side = match *side {
            "work" => Side::Work,
            "git" => Side::Git,
            _ => return None,
        };
        let what = match (*kind, *bytes, target) {
            ("dir", "-", None) => What::Dir,
            ("file", "checkout", None) if side == Side::Work => What::File(Bytes::Checkout),
            ("file", sha256, None) => What::File(Bytes::Archive(unhex(sha256)?)),
            ("copied", sha256, None) if side == Side::Work => {
                What::File(Bytes::Copied(unhex(sha256)?))
            }
            ("sparse", sha256, None) => What::Sparse(unhex(sha256)?),
            ("link", "archive", Some(target)) => What::Link { target, checkout: false },
            ("link", "checkout", Some(target)) if side == Side::Work => {
                What::Link { target, checkout: true }
            }
            ("hard", "-", Some(first)) => What::Hard(relative(first)?),
            _ => return None,
        };
        let (seconds, nanoseconds) = mtime.split_once('.')?;
        let mode = u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o7777)?;
        let item = Self {
            side,
            path: relative(path)?,
            what,
            mode,
            mtime: (
                seconds.parse().ok()?,
                nanoseconds.parse().ok().filter(|nanos| *nanos < 1_000_000_000)?,
            ),
            size: size.parse().ok()?,
            indexed: match *indexed {
                "indexed" => true,
                "-" => false,
                _ => return None,
            },
        };
        // The worktree itself is a directory, and its link to the repository is not ours to give.
        let fits = match item.path.components().next() {
            None => item.what == What::Dir,
            Some(first) => side == Side::Git || first.as_os_str() != ".git",
        };
        fits.then_some(item)
    }

    /// The name of its member.
    pub(super) fn member(&self) -> Vec<u8> {
        member(self.side, &self.path)
    }

    /// The SHA-256 of its member, if its bytes are in one.
    pub(super) fn stored(&self) -> Option<&[u8; 32]> {
        match &self.what {
            What::File(Bytes::Archive(sha256)) | What::Sparse(sha256) => Some(sha256),
            What::File(Bytes::Checkout | Bytes::Copied(_))
            | What::Dir
            | What::Link { .. }
            | What::Hard(_) => None,
        }
    }
}

/// The name of an entry's member.
pub(super) fn member(side: Side, path: &Path) -> Vec<u8> {
    let path = path.as_os_str().as_bytes();
    let folder = side.folder();
    if path.is_empty() { folder.to_vec() } else { [folder, b"/", path].concat() }
}

/// A path that stays below where it is resolved: plain names with single slashes between, or nothing.
pub(super) fn relative(bytes: Vec<u8>) -> Option<PathBuf> {
    let path = PathBuf::from(OsString::from_vec(bytes));
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    let rebuilt: PathBuf = path.components().collect();
    let same = rebuilt.as_os_str() == path.as_os_str();
    (plain && same && !path.as_os_str().as_bytes().contains(&0)).then_some(path)
}

/// Reads all lines. `None` if one is damaged, if there are two of one name, or if a directory is missing on the way.
pub(super) fn read(text: &[u8]) -> Option<Vec<Item>> {
    let mut items = Vec::new();
    let mut seen = std::collections::HashMap::new();
    if !text.is_empty() && !text.ends_with(b"\n") {
        return None;
    }
    for line in text.strip_suffix(b"\n").into_iter().flat_map(|text| text.split(|b| *b == b'\n')) {
        let item = Item::read(line)?;
        let key = |path: &Path| (item.side, path.to_owned());
        let parent = item.path.parent().map(key);
        if parent.is_some_and(|parent| seen.get(&parent) != Some(&true)) {
            return None;
        }
        if let What::Hard(first) = &item.what
            && seen.get(&key(first)) != Some(&false)
        {
            return None;
        }
        if seen.insert(key(&item.path), item.what == What::Dir).is_some() {
            return None;
        }
        items.push(item);
    }
    Some(items)
}

/// Writes a digest as people do.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digit =
        |nibble: u8| char::from(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let text = text.as_bytes();
    if text.len() != 64 || !text.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let digit = |byte: u8| if byte < b'a' { byte - b'0' } else { byte - b'a' + 10 };
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0]) << 4 | digit(pair[1]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(path: &str, what: What) -> Item {
        let (mode, mtime) = (0o4755, (-5, 999_999_999));
        let indexed = matches!(what, What::File(_));
        Item { side: Side::Work, path: path.into(), what, mode, mtime, size: 7, indexed }
    }

    #[test]
    fn what_is_written_is_read() {
        let raw = String::from_utf8_lossy(b"a\nb \"q\"").into_owned();
        let items = vec![
            item("", What::Dir),
            item("d", What::Dir),
            item("d/archived", What::File(Bytes::Archive([7; 32]))),
            item("d/same", What::File(Bytes::Checkout)),
            item("d/env", What::File(Bytes::Copied([255; 32]))),
            item("holes", What::Sparse([0; 32])),
            item(&raw, What::Link { target: b"..//x\n\xff".to_vec(), checkout: false }),
            item("l", What::Link { target: b"".to_vec(), checkout: true }),
            item("other", What::Hard("d/same".into())),
        ];
        let mut text = Vec::new();
        for item in &items {
            item.write(&mut text);
        }
        assert_eq!(read(&text), Some(items));
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for path in ["..", "a/../b", "/etc/passwd", "a//b", "./a", "a/", "a/.", "a\0b"] {
            assert_eq!(relative(path.as_bytes().to_vec()), None, "{path:?}");
        }
        assert_eq!(relative(b"a/..b/...".to_vec()), Some("a/..b/...".into()));
    }

    #[test]
    fn listings_that_contradict_themselves_are_refused() {
        let dir = "work dir 0755 0.000000000 0 - - \"\"\n";
        let link = "work link 0777 0.000000000 1 archive - \"l\" \"/etc\"\n";
        for (text, fits) in [
            (format!("{dir}{link}"), true),
            (format!("{dir}{link}{link}"), false),
            // Through a link, or through nothing.
            (format!("{dir}{link}work dir 0755 0.000000000 0 - - \"l/x\"\n"), false),
            (format!("{dir}work dir 0755 0.000000000 0 - - \"x/y\"\n"), false),
            (format!("{dir}work hard 0644 0.000000000 1 - - \"h\" \"none\"\n"), false),
            (format!("{dir}work dir 0755 0.000000000 0 - - \".git\"\n"), false),
            (format!("{dir}work file 0644 0.000000000 0 checkout - \".git\"\n"), false),
            (format!("{dir}git file 0644 0.000000000 0 checkout - \"x\"\n"), false),
            (format!("{dir}work dir 10000 0.000000000 0 - - \"x\"\n"), false),
            (dir.trim_end().to_owned(), false),
        ] {
            assert_eq!(read(text.as_bytes()).is_some(), fits, "{text}");
        }
    }
}
