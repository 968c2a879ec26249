//! The index in memory, and beside each of its paths what HEAD has there.

use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gix::ObjectId;
use gix::bstr::ByteSlice as _;
use gix::hash::Kind as HashKind;
use gix::index::entry::{Flags, Mode, Stat};
use gix::index::{Entry, File, State};

use super::staged::{self, HeadItem, Objects, Staged, StagedError};
use crate::vcs_worktree::tree::Stamp;

/// An index that was read.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) state: Arc<State>,
    /// When it was written: what was changed at that time or later may have changed unnoticed.
    written: (i64, i128),
    /// The sum at its end, if it has one.
    sum: Option<ObjectId>,
}

/// How the index file is.
#[derive(Debug)]
pub(super) enum Read {
    Index(Index),
    Missing,
    /// It cannot be read, for example because the power was cut while it was written.
    Damaged,
}

impl Index {
    /// Reads an index with all that it shares.
    pub(super) fn read(file: &Path, hash: HashKind) -> Read {
        match file.symlink_metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Read::Missing,
            Err(_) => return Read::Damaged,
            Ok(_) => {}
        }
        let options = gix::index::decode::Options::default();
        // Git does not check the sum of an index that it reads either.
        match File::at(file, hash, true, options) {
            Ok(index) => {
                let time = index.timestamp();
                let written = (time.unix_seconds(), time.nanoseconds().into());
                let sum = index.checksum();
                Read::Index(Self { state: Arc::new(into_state(index)), written, sum })
            }
            Err(_) => Read::Damaged,
        }
    }

    /// An index without entries, older than everything.
    pub(super) fn empty(hash: HashKind) -> Self {
        Self { state: Arc::new(State::new(hash)), written: (i64::MIN, 0), sum: None }
    }

    /// Makes the index of another file that has the same content.
    pub(super) fn shared(&self, sum: &Sum) -> Option<Self> {
        let same = self.sum == Some(sum.sum);
        same.then(|| Self { state: Arc::clone(&self.state), written: sum.written, sum: self.sum })
    }

    /// Says whether both have the same entries because they are one.
    pub(super) fn shares_entries(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }

    /// Says whether a file is as it was when the entry was made, as far as the system can tell.
    pub(super) fn is_unchanged(&self, entry: &Entry, stamp: &Stamp) -> bool {
        same_stat(&entry.stat, stamp) && !self.is_racy(stamp)
    }

    /// Says whether it may have changed after it was looked at without its time telling.
    fn is_racy(&self, stamp: &Stamp) -> bool {
        // A file system that has no fractions of a second rounds down.
        if stamp.mtime.1 == 0 {
            stamp.mtime.0 >= self.written.0
        } else {
            stamp.mtime >= self.written
        }
    }

    /// Replaces the directories of a sparse index by what is in them.
    pub(super) fn expand(&mut self, objects: &Objects) -> Result<(), StagedError> {
        let backing = self.state.path_backing();
        let sparse = self.state.entries().iter().filter(|entry| entry.mode.is_sparse());
        let sparse: Vec<(Vec<u8>, ObjectId)> =
            sparse.map(|entry| (entry.path_in(backing).to_vec(), entry.id)).collect();
        let state = Arc::make_mut(&mut self.state);
        state.remove_entries(|_, _, entry| entry.mode.is_sparse());
        let mut items = Vec::new();
        for (path, tree) in sparse {
            staged::list(objects, &path, &tree, &mut items)?;
        }
        let flags = Flags::SKIP_WORKTREE | Flags::EXTENDED;
        for (path, item) in items {
            let mode = Mode::from_bits_truncate(item.mode);
            let path = path.as_slice().into();
            state.dangerously_push_entry(Stat::default(), item.oid, flags, mode, path);
        }
        state.sort_entries();
        Ok(())
    }

    /// Lists the directories that a sparse index has as one entry.
    pub(super) fn sparse_directories(&self) -> impl Iterator<Item = PathBuf> {
        use std::os::unix::ffi::OsStrExt as _;
        let sparse = self.state.entries().iter().filter(|entry| entry.mode.is_sparse());
        sparse.map(|entry| PathBuf::from(std::ffi::OsStr::from_bytes(entry.path(&self.state))))
    }
}

/// What tells the content of an index without reading it, and when it was written.
#[derive(Debug)]
pub(super) struct Sum {
    sum: ObjectId,
    written: (i64, i128),
}

impl Sum {
    /// Reads the sum at the end of an index; `None` if there is none.
    pub(super) fn read(file: &Path, hash: HashKind) -> Option<Self> {
        let file = std::fs::File::open(file).ok()?;
        let meta = file.metadata().ok()?;
        let mut sum = vec![0; hash.len_in_bytes()];
        let at = meta.len().checked_sub(sum.len() as u64)?;
        file.read_exact_at(&mut sum, at).ok()?;
        let sum = ObjectId::from_bytes_or_panic(&sum);
        let written = (meta.mtime(), meta.mtime_nsec().into());
        (!sum.is_null()).then_some(Self { sum, written })
    }

    /// Says whether two files have the same content.
    pub(super) fn is_of_the_same(&self, other: &Self) -> bool {
        self.sum == other.sum
    }
}

fn into_state(file: File) -> State {
    file.into()
}

/// Compares what an index keeps of a file: numbers cut to 32 bits.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "as an index keeps them"
)]
fn same_stat(stat: &Stat, stamp: &Stamp) -> bool {
    stat.mtime.secs == stamp.mtime.0 as u32
        && i128::from(stat.mtime.nsecs) == stamp.mtime.1
        && stat.ctime.secs == stamp.ctime.0 as u32
        && i128::from(stat.ctime.nsecs) == stamp.ctime.1
        && stat.ino == stamp.ino as u32
        && stat.size == stamp.size as u32
}

/// One path that index or HEAD have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    pub(super) path: &'a [u8],
    /// Its entry in the index; of an unmerged path the first.
    pub(super) entry: Option<&'a Entry>,
    pub(super) unmerged: bool,
    /// `None` if HEAD has what the entry says.
    staged: Option<&'a Staged>,
}

impl Known<'_> {
    /// What HEAD has there.
    pub(super) fn head(&self) -> Option<HeadItem> {
        match (self.staged, self.entry) {
            (Some(staged), _) => staged.head,
            (None, Some(entry)) => Some(HeadItem { mode: entry.mode.bits(), oid: entry.id }),
            (None, None) => None,
        }
    }

    /// The entry, if it says what HEAD says.
    pub(super) fn entry_of_head(&self) -> Option<&Entry> {
        self.entry.filter(|_| self.staged.is_none() && !self.unmerged)
    }

    pub(super) fn has(&self, flags: Flags) -> bool {
        self.entry.is_some_and(|entry| entry.flags.contains(flags))
    }

    pub(super) fn is_gitlink(&self) -> bool {
        self.entry.is_some_and(|entry| entry.mode.is_submodule())
    }
}

/// Puts index and HEAD side by side, in path order.
pub(super) fn known<'a>(index: &'a Index, staged: &'a [Staged]) -> Vec<Known<'a>> {
    let mut known: Vec<Known<'a>> = Vec::with_capacity(index.state.entries().len() + staged.len());
    let mut staged = staged.iter().peekable();
    let only_head = |staged: &'a Staged| Known {
        path: &staged.path,
        entry: None,
        unmerged: false,
        staged: Some(staged),
    };
    for entry in index.state.entries() {
        let path: &[u8] = entry.path(&index.state);
        if known.last().is_some_and(|last| last.path == path) {
            continue;
        }
        while let Some(before) = staged.next_if(|staged| staged.path.as_slice() < path) {
            known.push(only_head(before));
        }
        let here = staged.next_if(|staged| staged.path.as_slice() == path);
        let unmerged = entry.stage_raw() != 0;
        known.push(Known { path, entry: Some(entry), unmerged, staged: here });
    }
    known.extend(staged.map(only_head));
    known
}

/// What a directory has under one name.
#[derive(Clone, Debug)]
pub(super) struct Group<'a> {
    pub(super) name: &'a [u8],
    /// The path itself.
    pub(super) own: Option<usize>,
    /// What is below it.
    pub(super) below: Range<usize>,
}

/// Groups what is known of a directory by the names in it, sorted. `prefix` is the directory's path with a slash.
pub(super) fn groups<'a>(
    known: &[Known<'a>],
    range: Range<usize>,
    prefix: usize,
) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let path = known[at].path;
        let rest = &path[prefix..];
        let slash = rest.find_byte(b'/');
        let Some(slash) = slash else {
            groups.push(Group { name: rest, own: Some(at), below: 0..0 });
            at += 1;
            continue;
        };
        let head = &path[..=prefix + slash];
        let end = at + known[at..range.end].partition_point(|known| known.path.starts_with(head));
        groups.push(Group { name: &rest[..slash], own: None, below: at..end });
        at = end;
    }
    groups.sort_by(|one, other| one.name.cmp(other.name));
    // A path may be a file here and a directory there.
    groups.dedup_by(|later, first| {
        let same = later.name == first.name;
        if same {
            first.own = first.own.or(later.own);
            first.below =
                if first.below.is_empty() { later.below.clone() } else { first.below.clone() };
        }
        same
    });
    groups
}
