//! The marker: a file in a worktree's private git directory that says whose it is.
//!
//! ```text
//! windlass-worktree 1
//! data_directory=<identity>
//! attempt=<uuid>
//! worktree=<the record as it was when it was made, as JSON; older markers have none>
//! ```
//!
//! The same lines, with `branch`, `oid`, `start` and `files` more, stand in the intent: a file beside a worktree that is being
//! made.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use windlass_core::id::AttemptId;
use windlass_core::workspace::Worktree;

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
    /// The branch that it will be on; without meaning if it will be detached.
    pub(super) branch: String,
    /// Where it starts.
    pub(super) oid: String,
    /// The branch did not exist before, so that undoing takes it away again.
    pub(super) new_branch: bool,
    /// Its files are those of a snapshot, not of a commit alone.
    pub(super) from_snapshot: bool,
    /// The record as it was then; intents of older versions have none.
    pub(super) worktree: Option<Worktree>,
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
    fn lines(&self, worktree: Option<&Worktree>) -> io::Result<String> {
        let worktree = worktree.map(serde_json::to_string).transpose()?;
        let worktree = worktree.map_or_else(String::new, |json| format!("worktree={json}\n"));
        let (data_directory, attempt) = (&self.data_directory, self.attempt);
        Ok(format!("{FIRST_LINE}\ndata_directory={data_directory}\nattempt={attempt}\n{worktree}"))
    }

    pub(super) fn write(&self, admin: &Path, worktree: &Worktree) -> io::Result<()> {
        write_durably(&admin.join(FILE), self.lines(Some(worktree))?.as_bytes())
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

    /// Reads the record that stands in a marker: as it was when the worktree was made.
    pub(super) fn worktree(admin: &Path) -> io::Result<Option<Worktree>> {
        Ok(match read_lines(&admin.join(FILE))? {
            Read::Says(lines) => record(&lines),
            Read::Missing | Read::Unclear(_) => None,
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
    /// What stands in its file.
    pub(super) fn lines(&self) -> io::Result<String> {
        let (branch, oid) = (&self.branch, &self.oid);
        let start = if self.new_branch { "new-branch" } else { "existing" };
        let files = if self.from_snapshot { "snapshot" } else { "commit" };
        let lines = self.marker.lines(self.worktree.as_ref())?;
        Ok(format!("{lines}branch={branch}\noid={oid}\nstart={start}\nfiles={files}\n"))
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
            // Older intents were all for new branches.
            new_branch: value(lines, "start").is_none_or(|start| start == "new-branch"),
            // Older ones do not say it; a creation keeps more than a restoration when it is undone.
            from_snapshot: value(lines, "files") == Some("snapshot"),
            worktree: record(lines),
        })
    }
}

fn record(lines: &[(String, String)]) -> Option<Worktree> {
    serde_json::from_str(value(lines, "worktree")?).ok()
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
    use windlass_core::locator::Locator;
    use windlass_core::workspace::Oid;

    use super::*;

    fn marker() -> Marker {
        let attempt = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        Marker { data_directory: "d=1".to_owned(), attempt }
    }

    fn worktree() -> Worktree {
        Worktree {
            repo: Locator::new(*b"/two\nlines/\xff"),
            path: Locator::new(*b"/p"),
            branch: "a=b".to_owned(),
            base: "main".to_owned(),
            base_oid: Oid("0".repeat(40)),
            target: None,
            copy: None,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Marker::read(dir.path()).unwrap(), Read::Missing));
        marker().write(dir.path(), &worktree()).unwrap();
        let Read::Says(read) = Marker::read(dir.path()).unwrap() else { panic!("unreadable") };
        assert_eq!(read, marker());
        assert_eq!(Marker::worktree(dir.path()).unwrap(), Some(worktree()));
        let intent = Intent {
            marker: marker(),
            branch: "a=b".to_owned(),
            oid: "0".repeat(40),
            new_branch: false,
            from_snapshot: true,
            worktree: Some(worktree()),
        };
        let path = dir.path().join("intent");
        write_durably(&path, intent.lines().unwrap().as_bytes()).unwrap();
        let Read::Says(read) = Intent::read(&path).unwrap() else { panic!("unreadable") };
        assert_eq!(read, intent);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing else is left");
    }

    #[test]
    fn what_an_older_version_wrote_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let attempt = marker().attempt;
        let lines = format!("windlass-worktree 1\ndata_directory=d=1\nattempt={attempt}\n");
        fs::write(dir.path().join(FILE), &lines).unwrap();
        let Read::Says(read) = Marker::read(dir.path()).unwrap() else { panic!("unreadable") };
        assert_eq!(read, marker());
        assert_eq!(Marker::worktree(dir.path()).unwrap(), None);
        let path = dir.path().join("intent");
        fs::write(&path, format!("{lines}branch=x\noid=1\n")).unwrap();
        let Read::Says(read) = Intent::read(&path).unwrap() else { panic!("unreadable") };
        assert!(read.new_branch && !read.from_snapshot && read.worktree.is_none());
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
