//! The record of a saved worktree: what the answer was, and every entry as it was when it was saved.
//!
//! ```text
//! windlass-saved 1
//! <JSON in one line>
//! <length> <listing of the directory> <length> <listing of the private git directory> <SHA-256 of all before>
//! ```
//!
//! Lengths are 8 bytes, the lowest first; 0 stands for no listing. What is deleted later, maybe by another host, is what
//! this names and is as this says.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use windlass_core::id::AttemptId;
use windlass_core::snapshot::Snapshot;
use windlass_core::vcs_worktree::{BranchFate, Ignored, Saved};
use windlass_core::workspace::{Oid, Worktree};

use super::marker::write_durably;
use super::tree::{Listing, Stamp};
use crate::identity::Here;

const FIRST_LINE: &str = "windlass-saved 1\n";
const SUM_BYTES: usize = 32;

/// What is known of a saved worktree.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// Whose it is.
    pub(super) data_directory: String,
    /// The attempt.
    pub(super) attempt: AttemptId,
    /// The worktree as it was asked for.
    pub(super) worktree: Worktree,
    /// The commit that HEAD named.
    pub(super) head: Oid,
    /// The branch that HEAD named.
    pub(super) branch: Option<String>,
    /// The snapshot, if one was needed.
    pub(super) snapshot: Option<Snapshot>,
    /// Which ignored entries it was to hold.
    pub(super) ignored: Ignored,
    /// What was to become of the branch.
    pub(super) fate: BranchFate,
    /// Where the worktree's own branch was; `None` if there was none.
    pub(super) own_branch: Option<Oid>,
    /// What that was called; `None` in older records: as it was made.
    #[serde(default)]
    pub(super) own_name: Option<String>,
    /// What cannot be saved was to be discarded.
    #[serde(default)]
    pub(super) discard: bool,
    /// The boot in which it was listed: devices have other numbers in another.
    pub(super) boot: Option<String>,
    /// The directory, encoded; empty if it was gone. Whoever needs all of it decodes it.
    #[serde(skip)]
    pub(super) listing: Vec<u8>,
    /// The private git directory, encoded.
    #[serde(skip)]
    pub(super) admin: Vec<u8>,
}

/// What is found where a record is kept.
#[derive(Debug)]
pub(super) enum Kept {
    /// Nothing.
    Missing,
    /// Something that is no whole record.
    Damaged,
    /// A record.
    Whole(Box<Record>),
}

impl Record {
    /// The answer that was given.
    pub(super) fn saved(&self) -> Saved {
        let (head, branch) = (self.head.clone(), self.branch.clone());
        Saved { head, branch, snapshot: self.snapshot.clone() }
    }

    /// Adds what was there: the directory, if there was one, and the private git directory.
    pub(super) fn listed(mut self, directory: Option<&Listing>, admin: &Listing) -> Self {
        if let Some(directory) = directory {
            directory.encode(&mut self.listing);
        }
        admin.encode(&mut self.admin);
        self
    }

    /// What the worktree's own branch is called.
    pub(super) fn own_name(&self) -> &str {
        self.own_name.as_ref().unwrap_or(&self.worktree.branch)
    }

    /// Says whether it was listed in another boot: devices may have got other numbers since.
    pub(super) fn is_of_another_boot(&self) -> bool {
        self.boot.is_none() || self.boot != boot()
    }

    /// Which directory was listed; `None` if it was gone.
    pub(super) fn top(&self) -> Option<Stamp> {
        Listing::decode_top(&self.listing)
    }

    /// Every entry of the directory; `None` if it was gone.
    pub(super) fn listing(&self) -> Option<Listing> {
        Listing::decode(&self.listing)
    }

    /// Every entry of the private git directory.
    pub(super) fn admin(&self) -> Option<Listing> {
        Listing::decode(&self.admin)
    }

    /// Writes it durably.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let mut bytes = FIRST_LINE.as_bytes().to_vec();
        serde_json::to_writer(&mut bytes, self)?;
        bytes.push(b'\n');
        for listing in [&self.listing, &self.admin] {
            bytes.extend_from_slice(&(listing.len() as u64).to_le_bytes());
            bytes.extend_from_slice(listing);
        }
        let sum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&sum);
        write_durably(path, &bytes)
    }

    /// Reads it whole.
    pub(super) fn read(path: &Path) -> io::Result<Kept> {
        let Some(mut file) = open(path)? else { return Ok(Kept::Missing) };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(Self::parse(&bytes).map_or(Kept::Damaged, |record| Kept::Whole(Box::new(record))))
    }

    /// Reads it without its listings and unchecked: quick, for reports.
    pub(super) fn read_summary(path: &Path) -> io::Result<Option<Self>> {
        let Some(file) = open(path)? else { return Ok(None) };
        let mut file = BufReader::new(file);
        let (mut first, mut line) = (Vec::new(), Vec::new());
        file.by_ref().take(FIRST_LINE.len() as u64).read_to_end(&mut first)?;
        file.read_until(b'\n', &mut line)?;
        let known = first == FIRST_LINE.as_bytes();
        Ok(known.then(|| serde_json::from_slice(&line).ok()).flatten())
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (body, sum) = bytes.split_at_checked(bytes.len().checked_sub(SUM_BYTES)?)?;
        if Sha256::digest(body)[..] != *sum {
            return None;
        }
        let rest = body.strip_prefix(FIRST_LINE.as_bytes())?;
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let mut record: Self = serde_json::from_slice(&rest[..end]).ok()?;
        let mut rest = &rest[end + 1..];
        for listing in [&mut record.listing, &mut record.admin] {
            let (length, after) = rest.split_first_chunk()?;
            let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
            let (encoded, after) = after.split_at_checked(length)?;
            *listing = encoded.to_vec();
            rest = after;
        }
        rest.is_empty().then_some(record)
    }
}

/// Names this boot, as far as the system does.
pub(super) fn boot() -> Option<String> {
    Here::read().boot.map(|boot| boot.to_string())
}

/// Opens a regular file; a link is none.
fn open(path: &Path) -> io::Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => {
            let file = File::from(file);
            Ok(file.metadata()?.is_file().then_some(file))
        }
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vcs_worktree::{locator, tree};
    use std::fs;

    fn record(dir: &Path) -> Record {
        Record {
            data_directory: "d".to_owned(),
            attempt: "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap(),
            worktree: Worktree {
                repo: locator(Path::new("/r\n\u{e4}")),
                path: locator(Path::new("/w")),
                branch: "b".to_owned(),
                base: "main".to_owned(),
                base_oid: Oid("0".repeat(40)),
                target: None,
                copy: None,
            },
            head: Oid("1".repeat(40)),
            branch: Some("b".to_owned()),
            snapshot: None,
            ignored: Ignored::UpTo(1),
            fate: BranchFate::Stays,
            own_branch: None,
            own_name: None,
            discard: false,
            boot: None,
            listing: Vec::new(),
            admin: Vec::new(),
        }
        .listed(None, &tree::list(dir).unwrap().unwrap())
    }

    #[test]
    fn what_is_written_is_read_and_what_is_damaged_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        assert!(matches!(Record::read(&path).unwrap(), Kept::Missing));
        assert!(Record::read_summary(&path).unwrap().is_none());
        let written = record(dir.path());
        written.write(&path).unwrap();
        let Kept::Whole(read) = Record::read(&path).unwrap() else { panic!("damaged") };
        assert_eq!(format!("{read:?}"), format!("{written:?}"));
        assert_eq!(Record::read_summary(&path).unwrap().unwrap().worktree, written.worktree);
        let bytes = fs::read(&path).unwrap();
        for at in [0, 20, bytes.len() / 2, bytes.len() - 1] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            fs::write(&path, &damaged).unwrap();
            assert!(matches!(Record::read(&path).unwrap(), Kept::Damaged), "{at}");
        }
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(matches!(Record::read(&path).unwrap(), Kept::Damaged));
    }
}
