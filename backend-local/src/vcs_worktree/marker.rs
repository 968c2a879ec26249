//! The marker: a file in a worktree's private git directory that says whose it is.
//!
//! ```text
//! windlass-worktree 1
//! data_directory=<identity>
//! attempt=<uuid>
//! ```
//!
//! The same lines, with `branch` and `oid` more, stand in the intent: a file beside a worktree that is being made.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use windlass_core::id::AttemptId;

/// The marker's file in the private git directory.
pub(super) const FILE: &str = "windlass-worktree";
const FIRST_LINE: &str = "windlass-worktree 1";
/// Longer files are not ours.
const MAX_BYTES: u64 = 64 * 1024;

/// Whose a worktree is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    /// The identity of the data directory.
    pub(super) data_directory: String,
    /// The attempt.
    pub(super) attempt: AttemptId,
}

/// That a worktree is being made: written before anything of it exists, gone when it is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Intent {
    /// Whose it will be.
    pub(super) marker: Marker,
    /// The branch that did not exist before.
    pub(super) branch: String,
    /// Where it starts.
    pub(super) oid: String,
}

/// What a marker's file says.
#[derive(Debug)]
pub(super) enum Read<T> {
    /// There is none.
    Missing,
    /// It cannot be understood; the reason for people.
    Unclear(String),
    /// It says this.
    Says(T),
}

impl Marker {
    fn lines(&self) -> String {
        format!("{FIRST_LINE}\ndata_directory={}\nattempt={}\n", self.data_directory, self.attempt)
    }

    pub(super) fn write(&self, admin: &Path) -> io::Result<()> {
        write_durably(&admin.join(FILE), self.lines().as_bytes())
    }

    pub(super) fn read(admin: &Path) -> io::Result<Read<Self>> {
        Ok(match read_lines(&admin.join(FILE))? {
            Read::Missing => Read::Missing,
            Read::Unclear(why) => Read::Unclear(why),
            Read::Says(lines) => match Self::parse(&lines) {
                Some(marker) => Read::Says(marker),
                None => Read::Unclear("its marker is damaged".to_owned()),
            },
        })
    }

    fn parse(lines: &[(String, String)]) -> Option<Self> {
        Some(Self {
            data_directory: value(lines, "data_directory")?.to_owned(),
            attempt: value(lines, "attempt")?.parse().ok()?,
        })
    }
}

impl Intent {
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let lines = format!("{}branch={}\noid={}\n", self.marker.lines(), self.branch, self.oid);
        write_durably(path, lines.as_bytes())
    }

    pub(super) fn read(path: &Path) -> io::Result<Read<Self>> {
        Ok(match read_lines(path)? {
            Read::Missing => Read::Missing,
            Read::Unclear(why) => Read::Unclear(why),
            Read::Says(lines) => match Self::parse(&lines) {
                Some(intent) => Read::Says(intent),
                None => Read::Unclear("the note of its creation is damaged".to_owned()),
            },
        })
    }

    fn parse(lines: &[(String, String)]) -> Option<Self> {
        Some(Self {
            marker: Marker::parse(lines)?,
            branch: value(lines, "branch")?.to_owned(),
            oid: value(lines, "oid")?.to_owned(),
        })
    }
}

fn value<'a>(lines: &'a [(String, String)], key: &str) -> Option<&'a str> {
    lines.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

fn read_lines(path: &Path) -> io::Result<Read<Vec<(String, String)>>> {
    let meta = match path.symlink_metadata() {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Read::Missing),
        Err(error) => return Err(error),
    };
    if !meta.is_file() || meta.len() > MAX_BYTES {
        return Ok(Read::Unclear("its marker is no small file".to_owned()));
    }
    let bytes = fs::read(path)?;
    let Ok(text) = String::from_utf8(bytes) else {
        return Ok(Read::Unclear("its marker is no text".to_owned()));
    };
    let mut lines = text.lines();
    match lines.next() {
        Some(FIRST_LINE) => {}
        Some(line) if line.starts_with("windlass-worktree ") => {
            return Ok(Read::Unclear("its marker is of a newer version".to_owned()));
        }
        _ => return Ok(Read::Unclear("its marker is damaged".to_owned())),
    }
    let pairs = lines.filter_map(|line| line.split_once('='));
    Ok(Read::Says(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()))
}

/// Writes a file that is whole or not there, and is there after a power cut.
pub(super) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    });
    if let Err(error) = written {
        // Nothing is left of what could not be written.
        drop(fs::remove_file(&temporary));
        return Err(error);
    }
    sync_parent(path)
}

/// Removes a file durably; one that is gone is no error.
pub(super) fn remove_durably(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes what the directory of `path` lists survive a power cut.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker() -> Marker {
        let attempt = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        Marker { data_directory: "d=1".to_owned(), attempt }
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Marker::read(dir.path()).unwrap(), Read::Missing));
        marker().write(dir.path()).unwrap();
        let Read::Says(read) = Marker::read(dir.path()).unwrap() else { panic!("unreadable") };
        assert_eq!(read, marker());
        let intent = Intent { marker: marker(), branch: "a=b".to_owned(), oid: "0".repeat(40) };
        let path = dir.path().join("intent");
        intent.write(&path).unwrap();
        let Read::Says(read) = Intent::read(&path).unwrap() else { panic!("unreadable") };
        assert_eq!(read, intent);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing else is left");
    }

    #[test]
    fn what_is_newer_or_damaged_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["windlass-worktree 2\nx=y\n", "", "windlass-worktree 1\nattempt=x\n", "\u{0}"]
        {
            fs::write(dir.path().join(FILE), text).unwrap();
            assert!(matches!(Marker::read(dir.path()).unwrap(), Read::Unclear(_)), "{text:?}");
        }
    }
}
