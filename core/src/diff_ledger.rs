//! [`DiffLedger`]: what is known of a diff that goes on changing, kept so that any number of followers can be told of it.
//!
//! It keeps each file once, as it differs now, with the number of its last change. A follower is a number: what has a larger
//! one is what it does not know. So nothing is queued for anybody, and whoever is slow is told of each file once. It looks
//! at nothing by itself and knows no time: who looks at the worktree says what was found.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::diff_watch::{DiffCursor, DiffEvent, ToldDiff};
use crate::locator::Locator;
use crate::vcs_worktree::{DIFF_BYTES, FileDiff};
use crate::workspace::Oid;

/// How many paths that do not differ any more are remembered, for followers that have not been told.
const MOST_GONE: usize = 16_384;
/// What an event counts for beside its patch when a page is filled.
const EVENT_BYTES: usize = 256;

/// A file that differs, as a look found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundDiff {
    /// How it differs. [`FileDiff::too_large`] says that its own size leaves it out of a patch.
    pub file: FileDiff,
    /// Its bytes before and after.
    pub bytes: u64,
    /// The part of the patch that is about it; `None` if it is too large.
    pub patch: Option<Bytes>,
}

/// From where to where is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standpoint {
    /// The merge base.
    pub base: Oid,
    /// The branch that HEAD names; `None` if it is detached.
    pub branch: Option<String>,
    /// The commit that HEAD names.
    pub head: Oid,
}

/// What stands behind a number.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    File(Locator),
    Gone(Locator),
    /// All before it is what one look found.
    Current,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    seq: u64,
    file: FileDiff,
    patch: Option<Bytes>,
    /// What it takes of the room for patches.
    taken: u64,
}

/// Keeps a diff, generation after generation.
#[derive(Clone, Debug)]
pub struct DiffLedger {
    generation: u64,
    at: Option<Standpoint>,
    unwatched: u64,
    room: u64,
    most_gone: usize,
    seq: u64,
    order: BTreeMap<u64, Item>,
    files: BTreeMap<Locator, Held>,
    gone: BTreeMap<Locator, u64>,
    taken: u64,
    /// The last number of a path that is gone and not remembered any more.
    forgotten: u64,
    /// The number behind which everything is told.
    mark: Option<u64>,
}

impl DiffLedger {
    /// Makes an empty ledger, whose first generation will be `first`. It must be larger than any that was told before, by a
    /// ledger that is no more.
    #[must_use]
    pub const fn new(first: u64) -> Self {
        Self::with_room(first, DIFF_BYTES, MOST_GONE)
    }

    const fn with_room(first: u64, room: u64, most_gone: usize) -> Self {
        Self {
            generation: first,
            at: None,
            unwatched: 0,
            room,
            most_gone,
            seq: 0,
            order: BTreeMap::new(),
            files: BTreeMap::new(),
            gone: BTreeMap::new(),
            taken: 0,
            forgotten: 0,
            mark: None,
        }
    }

    /// Returns from where to where is compared; `None` before the first generation.
    #[must_use]
    pub const fn standpoint(&self) -> Option<&Standpoint> {
        self.at.as_ref()
    }

    /// Lists the files that differ, in path order.
    pub fn files(&self) -> impl Iterator<Item = &FileDiff> {
        self.files.values().map(|held| &held.file)
    }

    /// Returns how a path differs.
    #[must_use]
    pub fn file(&self, path: &Locator) -> Option<&FileDiff> {
        self.files.get(path).map(|held| &held.file)
    }

    /// Lists the files whose path begins with these bytes, in path order.
    pub fn files_below<'a>(&'a self, front: &[u8]) -> impl Iterator<Item = &'a FileDiff> + 'a {
        let front = Locator::new(front);
        let from = self.files.range(front.clone()..);
        let below = from.take_while(move |(path, _)| path.as_bytes().starts_with(front.as_bytes()));
        below.map(|(_, held)| &held.file)
    }

    /// Begins a generation with everything that differs, in path order.
    pub fn begin(&mut self, at: Standpoint, found: Vec<FoundDiff>, unwatched: u64) {
        if self.at.is_some() {
            self.generation += 1;
        }
        *self = Self {
            at: Some(at),
            unwatched,
            ..Self::with_room(self.generation, self.room, self.most_gone)
        };
        for found in found {
            self.upsert(found);
        }
        self.mark();
    }

    /// Notes what a look at everything found, of the same base and branch.
    pub fn replace(&mut self, head: Oid, found: Vec<FoundDiff>, unwatched: u64) {
        let still: BTreeSet<&Locator> = found.iter().map(|found| &found.file.path).collect();
        let gone = self.files.keys().filter(|path| !still.contains(path)).cloned().collect();
        self.update(head, gone, found, unwatched);
    }

    /// Notes what a look at some paths found: which do not differ any more, and how the others do.
    pub fn update(&mut self, head: Oid, gone: Vec<Locator>, found: Vec<FoundDiff>, unwatched: u64) {
        let Some(at) = &mut self.at else { return };
        let mut changed = at.head != head || self.unwatched != unwatched;
        at.head = head;
        self.unwatched = unwatched;
        for path in gone {
            changed |= self.remove(path);
        }
        for found in found {
            changed |= self.upsert(found);
        }
        if changed {
            self.mark();
        }
    }

    /// Says whether there is anything to tell after a cursor.
    #[must_use]
    pub fn has_news(&self, after: Option<DiffCursor>) -> bool {
        self.at.is_some() && self.known(after).is_none_or(|cursor| cursor.seq < self.seq)
    }

    /// Tells what comes after a cursor: at most about so many bytes, and one event at least if there is any.
    #[must_use]
    pub fn read(&self, after: Option<DiffCursor>, most_bytes: usize) -> Vec<ToldDiff> {
        let Some(at) = &self.at else { return Vec::new() };
        let mut told = Vec::new();
        let mut cursor = self.known(after).unwrap_or_else(|| {
            let cursor = DiffCursor { generation: self.generation, seq: 0, since: self.seq };
            let (generation, base, branch) = (self.generation, at.base.clone(), at.branch.clone());
            told.push(ToldDiff { event: DiffEvent::Began { generation, base, branch }, cursor });
            cursor
        });
        let mut bytes = 0;
        for (seq, item) in self.order.range(cursor.seq.saturating_add(1)..) {
            if bytes >= most_bytes && !told.is_empty() {
                break;
            }
            cursor.seq = *seq;
            let event = match item {
                Item::File(path) => match self.files.get(path) {
                    Some(held) => {
                        DiffEvent::File { file: held.file.clone(), patch: held.patch.clone() }
                    }
                    None => continue,
                },
                Item::Gone(_) if *seq <= cursor.since => continue,
                Item::Gone(path) => DiffEvent::Removed { path: path.clone() },
                Item::Current => {
                    DiffEvent::Current { head: at.head.clone(), unwatched: self.unwatched }
                }
            };
            if let DiffEvent::File { patch: Some(patch), .. } = &event {
                bytes += patch.len();
            }
            bytes += EVENT_BYTES;
            told.push(ToldDiff { event, cursor });
        }
        told
    }

    /// Returns the cursor if what follows it is known.
    fn known(&self, after: Option<DiffCursor>) -> Option<DiffCursor> {
        after.filter(|cursor| {
            cursor.generation == self.generation
                && cursor.seq.max(cursor.since) <= self.seq
                && cursor.seq.max(cursor.since) >= self.forgotten
        })
    }

    fn upsert(&mut self, found: FoundDiff) -> bool {
        let FoundDiff { mut file, bytes, mut patch } = found;
        let held = self.files.get(&file.path);
        let taken = self.taken - held.map_or(0, |held| held.taken);
        let fits = !file.too_large && taken.saturating_add(bytes) <= self.room;
        file.too_large = !fits;
        let bytes = if fits { bytes } else { 0 };
        patch = patch.filter(|_| fits);
        if held.is_some_and(|held| held.file == file && held.patch == patch && held.taken == bytes)
        {
            return false;
        }
        if let Some(held) = held {
            self.order.remove(&held.seq);
        }
        if let Some(seq) = self.gone.remove(&file.path) {
            self.order.remove(&seq);
        }
        self.taken = taken + bytes;
        self.seq += 1;
        self.order.insert(self.seq, Item::File(file.path.clone()));
        let held = Held { seq: self.seq, patch, taken: bytes, file };
        self.files.insert(held.file.path.clone(), held);
        true
    }

    fn remove(&mut self, path: Locator) -> bool {
        let Some(held) = self.files.remove(&path) else { return false };
        self.order.remove(&held.seq);
        self.taken -= held.taken;
        self.seq += 1;
        self.order.insert(self.seq, Item::Gone(path.clone()));
        self.gone.insert(path, self.seq);
        if self.gone.len() > self.most_gone {
            self.forget();
        }
        true
    }

    /// Forgets the half of what is gone that went first: whoever has not been told of it begins anew.
    fn forget(&mut self) {
        let mut numbers: Vec<u64> = self.gone.values().copied().collect();
        numbers.sort_unstable();
        let last = numbers.get(numbers.len() / 2).copied().unwrap_or_default();
        self.gone.retain(|_, seq| *seq > last);
        self.order.retain(|seq, item| *seq > last || !matches!(item, Item::Gone(_)));
        self.forgotten = last;
    }

    fn mark(&mut self) {
        if let Some(mark) = self.mark.take() {
            self.order.remove(&mark);
        }
        self.seq += 1;
        self.order.insert(self.seq, Item::Current);
        self.mark = Some(self.seq);
    }
}

/// What a follower knows of a diff: the fold of what it was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiffMirror {
    generation: u64,
    base: Option<Oid>,
    branch: Option<String>,
    head: Option<Oid>,
    unwatched: u64,
    current: bool,
    files: BTreeMap<Locator, (FileDiff, Option<Bytes>)>,
}

impl DiffMirror {
    /// Takes in one event.
    pub fn apply(&mut self, event: &DiffEvent) {
        self.current = false;
        match event {
            DiffEvent::Began { generation, base, branch } => {
                *self = Self {
                    generation: *generation,
                    base: Some(base.clone()),
                    branch: branch.clone(),
                    ..Self::default()
                };
            }
            DiffEvent::File { file, patch } => {
                self.files.insert(file.path.clone(), (file.clone(), patch.clone()));
            }
            DiffEvent::Removed { path } => drop(self.files.remove(path)),
            DiffEvent::Current { head, unwatched } => {
                self.head = Some(head.clone());
                self.unwatched = *unwatched;
                self.current = true;
            }
        }
    }

    /// Says whether the files are a diff as it was at one moment: nothing is still to come of it.
    #[must_use]
    pub const fn is_current(&self) -> bool {
        self.current
    }

    /// Returns the number of the generation; 0 before the first.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns the merge base; `None` before the first generation.
    #[must_use]
    pub const fn base(&self) -> Option<&Oid> {
        self.base.as_ref()
    }

    /// Returns the branch that HEAD names, if it names one.
    #[must_use]
    pub fn branch(&self) -> Option<&str> {
        self.branch.as_deref()
    }

    /// Returns the commit that HEAD names, once it was told.
    #[must_use]
    pub const fn head(&self) -> Option<&Oid> {
        self.head.as_ref()
    }

    /// Returns how many directories are not watched.
    #[must_use]
    pub const fn unwatched(&self) -> u64 {
        self.unwatched
    }

    /// Lists the files that differ, in path order.
    pub fn files(&self) -> impl Iterator<Item = &FileDiff> {
        self.files.values().map(|(file, _)| file)
    }

    /// Puts the parts of the patch together, in path order.
    #[must_use]
    pub fn patch(&self) -> Vec<u8> {
        let parts: Vec<&[u8]> =
            self.files.values().filter_map(|(_, patch)| patch.as_deref()).collect();
        parts.concat()
    }
}

#[cfg(test)]
mod tests;
