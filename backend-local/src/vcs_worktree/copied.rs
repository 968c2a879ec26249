//! The list of what was copied into a worktree, in its private git directory.
//!
//! ```text
//! windlass-copied 1
//! {"path":…,"dev":…,"ino":…,"mode":…,"size":…,"mtime":[s,ns],"ctime":[s,ns],"sha256":"<hexadecimal>"}
//! …
//! ```
//!
//! A file that is as listed exists elsewhere. The digest is that of its bytes, of a link that of its target.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use windlass_core::locator::Locator;

use super::marker::write_durably;
use super::tree::Stamp;
use super::{locator, path_of};

/// The list's file in the private git directory.
pub(super) const FILE: &str = "windlass-copied";
const FIRST_LINE: &str = "windlass-copied 1";

/// How something was right after it was copied in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Copied {
    /// Its stamp.
    pub(super) stamp: Stamp,
    /// The SHA-256 of its bytes, or of its target.
    pub(super) sha256: [u8; 32],
}

#[derive(Serialize, Deserialize)]
struct Line {
    path: Locator,
    dev: i128,
    ino: u64,
    mode: u32,
    size: u64,
    mtime: (i64, i128),
    ctime: (i64, i128),
    sha256: String,
}

/// Reads the list; no list is an empty one.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidData`] if it is damaged.
pub(super) fn read(admin: &Path) -> io::Result<BTreeMap<PathBuf, Copied>> {
    let text = match fs::read_to_string(admin.join(FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    let mut lines = text.lines();
    if lines.next() != Some(FIRST_LINE) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    lines.map(|line| entry(line).ok_or_else(|| io::ErrorKind::InvalidData.into())).collect()
}

fn entry(line: &str) -> Option<(PathBuf, Copied)> {
    let line: Line = serde_json::from_str(line).ok()?;
    let Line { path, dev, ino, mode, size, mtime, ctime, sha256 } = line;
    let stamp = Stamp { dev, ino, mode, size, mtime, ctime };
    Some((path_of(&path), Copied { stamp, sha256: digest(&sha256)? }))
}

fn digest(hex: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if hex.len() != 2 * digest.len() {
        return None;
    }
    for (index, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(hex.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(digest)
}

/// Writes the list durably.
pub(super) fn write(admin: &Path, copied: &BTreeMap<PathBuf, Copied>) -> io::Result<()> {
    let mut text = format!("{FIRST_LINE}\n");
    for (path, Copied { stamp, sha256 }) in copied {
        let Stamp { dev, ino, mode, size, mtime, ctime } = *stamp;
        let hex = sha256.iter().fold(String::new(), |mut hex, byte| {
            // Writing to memory does not fail.
            let _infallible = write!(hex, "{byte:02x}");
            hex
        });
        let line = Line { path: locator(path), dev, ino, mode, size, mtime, ctime, sha256: hex };
        text.push_str(&serde_json::to_string(&line)?);
        text.push('\n');
    }
    write_durably(&admin.join(FILE), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn what_is_written_is_read_and_damage_is_no_list() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).unwrap().is_empty());
        let stamp = Stamp {
            dev: 1,
            ino: u64::MAX,
            mode: 0o100_600,
            size: 3,
            mtime: (-1, 2),
            ctime: (3, 4),
        };
        let copied = Copied { stamp, sha256: [0xab; 32] };
        let list: BTreeMap<_, _> =
            [Path::new("a/.env"), Path::new(OsStr::from_bytes(b"raw\n\xff"))]
                .map(|path| (path.to_owned(), copied))
                .into();
        write(dir.path(), &list).unwrap();
        assert_eq!(read(dir.path()).unwrap(), list);
        for damage in ["", "windlass-copied 2\n", "windlass-copied 1\n{}\n"] {
            fs::write(dir.path().join(FILE), damage).unwrap();
            let error = read(dir.path()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{damage:?}");
        }
    }
}
