//! What the private git directory holds: index, logs, refs, an operation in progress, repositories of submodules.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::super::below::Below;
use super::super::tree::{self, Entry, Listing};
use super::index_file::IndexFile;
use super::selection::Selection;

/// The file of the index.
pub(super) const INDEX: &str = "index";
/// What holds it while it is written, as git has it.
pub(super) const INDEX_LOCK: &str = "index.lock";
/// More of a file is not searched for object names.
const SEARCHED_BYTES: u64 = 64 << 20;

/// Names whose being there means that something is not in any commit: an operation in progress, refs, settings and
/// repositories of this worktree alone.
const HOLDING: [&str; 12] = [
    "rebase-merge",
    "rebase-apply",
    "MERGE_HEAD",
    "MERGE_AUTOSTASH",
    "CHERRY_PICK_HEAD",
    "REVERT_HEAD",
    "sequencer",
    "BISECT_LOG",
    "refs",
    "config.worktree",
    "info",
    "modules",
];

/// A private git directory that was looked at.
#[derive(Debug)]
pub(super) struct GitState {
    pub(super) selection: Selection,
    /// The index, if there is one that is understood.
    pub(super) index: Option<IndexFile>,
    /// Whatever looks like an object name in it.
    pub(super) words: BTreeSet<String>,
    /// It holds something that is in no commit.
    pub(super) holds_work: bool,
}

/// Says whether what has this name in a private git directory is the worktree's own state. The rest says where worktree
/// and repository are, or belongs to whoever works on them now.
pub(super) fn is_state(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    !matches!(bytes, b"gitdir" | b"commondir")
        && !bytes.starts_with(b"windlass-")
        && !bytes.starts_with(b"fsmonitor--daemon")
        && !bytes.ends_with(b".lock")
        && !bytes.ends_with(b".new")
}

impl GitState {
    /// Looks at one. `head` is an object name of the repository.
    pub(super) fn look(admin: &Path, head: &str) -> io::Result<Self> {
        let listing = tree::list(admin)?.ok_or(io::ErrorKind::NotFound)?;
        let names = listing.entries.keys();
        let without: HashSet<PathBuf> =
            names.filter(|name| !is_state(name)).map(PathBuf::from).collect();
        let selection = Selection::of_everything(&listing, &without);
        let mut below = Below::open(admin)?;
        let index = match below.file(Path::new(INDEX)) {
            Ok(mut file) => {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes)?;
                IndexFile::read(bytes, head)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let mut words = BTreeSet::new();
        search(&mut below, &listing, &mut PathBuf::new(), head.len(), &mut words)?;
        let holds_work = HOLDING.iter().any(|name| {
            listing.entries.get(OsStr::new(name)).is_some_and(|entry| match entry {
                Entry::Dir(below) => has_file(below),
                Entry::File(_) | Entry::Special(_) | Entry::Unreadable(_) | Entry::Mount => true,
            })
        });
        Ok(Self { selection, index, words, holds_work })
    }
}

fn has_file(listing: &Listing) -> bool {
    let mut found = false;
    listing.each(&mut |_, _| found = true);
    found
}

/// Collects object names from the small text files that git keeps its state in.
fn search(
    below: &mut Below,
    listing: &Listing,
    path: &mut PathBuf,
    digits: usize,
    words: &mut BTreeSet<String>,
) -> io::Result<()> {
    for (name, entry) in &listing.entries {
        let bytes = name.as_bytes();
        let top = path.as_os_str().is_empty();
        let other = matches!(bytes, b"modules" | b"reftable" | b"index")
            || bytes.starts_with(b"sharedindex.")
            || !is_state(name);
        if top && other {
            continue;
        }
        path.push(name);
        match entry {
            Entry::Dir(inside) => search(below, inside, path, digits, words)?,
            Entry::File(stamp) if stamp.mode & 0o170_000 == 0o100_000 => {
                let mut content = Vec::new();
                below.file(path)?.take(SEARCHED_BYTES).read_to_end(&mut content)?;
                collect(&content, digits, words);
            }
            Entry::File(_) | Entry::Special(_) | Entry::Unreadable(_) | Entry::Mount => {}
        }
        path.pop();
    }
    Ok(())
}

/// Collects words of so many hexadecimal digits, but for those of zeros alone.
pub(super) fn collect(content: &[u8], digits: usize, words: &mut BTreeSet<String>) {
    let hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    for word in content.split(|byte| !byte.is_ascii_alphanumeric()) {
        if word.len() == digits && word.iter().all(hex) && word.iter().any(|byte| *byte != b'0') {
            words.insert(String::from_utf8_lossy(word).into_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_names_are_found_wherever_git_puts_them() {
        let (a, b) = ("a".repeat(40), "1".repeat(40));
        let text =
            format!("pick {a} x\n{}\t{b}\nmerge -C {a}b {}\n", "0".repeat(40), "g".repeat(40));
        let mut words = BTreeSet::new();
        collect(text.as_bytes(), 40, &mut words);
        assert_eq!(words.into_iter().collect::<Vec<_>>(), [b, a]);
    }

    #[test]
    fn where_things_are_is_no_state() {
        for name in ["gitdir", "commondir", "windlass-worktree", INDEX_LOCK, "HEAD.new"] {
            assert!(!is_state(OsStr::new(name)), "{name}");
        }
        for name in ["HEAD", "index", "ORIG_HEAD", "rebase-merge", "config.worktree", "locked"] {
            assert!(is_state(OsStr::new(name)), "{name}");
        }
    }
}
