//! What differs between HEAD and the index.

use std::cmp::Ordering;
use std::ops::Range;
use std::path::Path;

use gix::ObjectId;
use gix::hash::{Kind as HashKind, oid};
use gix::index::State;
use gix::index::entry::Flags;
use gix::index::extension::Tree;
use gix::objs::{CommitRefIter, Exists as _, Find as _, FindHeader as _, Kind, TreeRefIter};

/// Deeper trees are refused.
const DEEPEST: usize = 2048;
const TREE: u32 = 0o040_000;

/// What a commit has at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeadItem {
    /// As in a tree: `0o100644`, `0o100755`, `0o120000` or `0o160000`.
    pub(crate) mode: u32,
    pub(crate) oid: ObjectId,
}

/// A path at which HEAD and index differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Staged {
    pub(crate) path: Vec<u8>,
    /// What HEAD has; `None` if it has nothing there.
    pub(crate) head: Option<HeadItem>,
}

/// Why two trees cannot be compared here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StagedError {
    /// A directory of a sparse index has to be looked into.
    #[error("a directory of a sparse index differs")]
    Sparse,
    #[error("object {0} is missing or damaged")]
    Object(ObjectId),
    #[error("a tree is too deep")]
    Deep,
}

/// The objects of a repository, for reading.
pub(crate) struct Objects {
    odb: gix::odb::Handle,
    hash: HashKind,
}

impl std::fmt::Debug for Objects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Objects").field("hash", &self.hash).finish_non_exhaustive()
    }
}

impl Objects {
    pub(super) fn open(common: &Path, hash: HashKind) -> std::io::Result<Self> {
        Ok(Self { odb: gix::odb::at(common.join("objects"), hash)?, hash })
    }

    /// Reads an object of this kind.
    pub(super) fn read(&self, oid: &oid, kind: Kind) -> Result<Vec<u8>, StagedError> {
        let mut buffer = Vec::new();
        match self.odb.try_find(oid, &mut buffer) {
            Ok(Some(found)) if found.kind == kind => {}
            _ => return Err(StagedError::Object(oid.to_owned())),
        }
        Ok(buffer)
    }

    /// The same for another thread.
    pub(super) fn again(&self) -> Self {
        Self { odb: self.odb.clone(), hash: self.hash }
    }

    /// Says whether an object is there.
    pub(super) fn has(&self, oid: &oid) -> bool {
        self.odb.exists(oid)
    }

    /// The size of an object in bytes; 0 if it is not there.
    pub(crate) fn size_of(&self, oid: &oid) -> u64 {
        self.odb.try_header(oid).ok().flatten().map_or(0, |header| header.size)
    }

    /// The tree of a commit.
    pub(crate) fn tree_of(&self, commit: &oid) -> Result<ObjectId, StagedError> {
        let content = self.read(commit, Kind::Commit)?;
        let tree = CommitRefIter::from_bytes(&content, self.hash).tree_id();
        tree.map_err(|_| StagedError::Object(commit.to_owned()))
    }

    /// The parents of a commit.
    pub(super) fn parents_of(&self, commit: &oid) -> Result<Vec<ObjectId>, StagedError> {
        let content = self.read(commit, Kind::Commit)?;
        Ok(CommitRefIter::from_bytes(&content, self.hash).parent_ids().collect())
    }

    fn items(&self, tree: &oid) -> Result<Vec<Item>, StagedError> {
        let content = self.read(tree, Kind::Tree)?;
        let damaged = || StagedError::Object(tree.to_owned());
        let mut items = Vec::new();
        for entry in TreeRefIter::from_bytes(&content, self.hash) {
            let entry = entry.map_err(|_| damaged())?;
            let mode = canonical(entry.mode.value().into());
            let mut key = entry.filename.to_vec();
            if mode == TREE {
                key.push(b'/');
            }
            items.push(Item { key, item: HeadItem { mode, oid: entry.oid.to_owned() } });
        }
        Ok(items)
    }
}

/// An entry of a tree; the name of a directory ends in a slash, which gives the order.
struct Item {
    key: Vec<u8>,
    item: HeadItem,
}

/// As git reads modes: old trees have others.
const fn canonical(mode: u32) -> u32 {
    match mode & 0o170_000 {
        0o100_000 if mode & 0o100 != 0 => 0o100_755,
        0o100_000 => 0o100_644,
        0o120_000 => 0o120_000,
        0o040_000 => TREE,
        _ => 0o160_000,
    }
}

/// Lists all files of a tree below `prefix`, which is empty or ends in a slash.
pub(super) fn list(
    objects: &Objects,
    prefix: &[u8],
    tree: &oid,
    into: &mut Vec<(Vec<u8>, HeadItem)>,
) -> Result<(), StagedError> {
    if prefix.iter().filter(|byte| **byte == b'/').count() > DEEPEST {
        return Err(StagedError::Deep);
    }
    for Item { key, item } in objects.items(tree)? {
        let path = [prefix, &key].concat();
        if item.mode == TREE {
            list(objects, &path, &item.oid, into)?;
        } else {
            into.push((path, item));
        }
    }
    Ok(())
}

/// A path with what two trees have there.
pub(crate) type Between = (Vec<u8>, Option<HeadItem>, Option<HeadItem>);

/// Lists what differs between two trees.
pub(crate) fn between(
    objects: &Objects,
    prefix: &[u8],
    trees: (&oid, &oid),
    into: &mut Vec<Between>,
) -> Result<(), StagedError> {
    if trees.0 == trees.1 {
        return Ok(());
    }
    if prefix.iter().filter(|byte| **byte == b'/').count() > DEEPEST {
        return Err(StagedError::Deep);
    }
    let (mut one, mut other) = (
        objects.items(trees.0)?.into_iter().peekable(),
        objects.items(trees.1)?.into_iter().peekable(),
    );
    loop {
        let order = match (one.peek(), other.peek()) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(one), Some(other)) => one.key.cmp(&other.key),
        };
        let left = if order.is_le() { one.next() } else { None };
        let right = if order.is_ge() { other.next() } else { None };
        let Some(key) = left.as_ref().or(right.as_ref()).map(|item| &item.key) else { continue };
        let path = [prefix, key].concat();
        let (left, right) = (left.map(|left| left.item), right.map(|right| right.item));
        match (left, right) {
            (Some(left), Some(right)) if left.mode == TREE => {
                between(objects, &path, (&left.oid, &right.oid), into)?;
            }
            (Some(left), Some(right)) => {
                if left != right {
                    into.push((path, Some(left), Some(right)));
                }
            }
            (Some(item), None) | (None, Some(item)) if item.mode == TREE => {
                let mut items = Vec::new();
                list(objects, &path, &item.oid, &mut items)?;
                let side =
                    |item| if left.is_some() { (Some(item), None) } else { (None, Some(item)) };
                into.extend(items.into_iter().map(|(path, item)| {
                    let (left, right) = side(item);
                    (path, left, right)
                }));
            }
            (left, right) => into.push((path, left, right)),
        }
    }
}

/// Lists where HEAD's tree and the index differ, in path order.
pub(super) fn staged(
    objects: &Objects,
    state: &State,
    tree: &oid,
) -> Result<Vec<Staged>, StagedError> {
    let mut comparing = Comparing { objects, state, staged: Vec::new() };
    let all = 0..state.entries().len();
    comparing.level(&mut Vec::new(), all, state.tree(), tree, 0)?;
    comparing.staged.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(comparing.staged)
}

struct Comparing<'a> {
    objects: &'a Objects,
    state: &'a State,
    staged: Vec<Staged>,
}

impl<'a> Comparing<'a> {
    fn level(
        &mut self,
        prefix: &mut Vec<u8>,
        range: Range<usize>,
        cache: Option<&Tree>,
        tree: &oid,
        depth: usize,
    ) -> Result<(), StagedError> {
        if depth > DEEPEST {
            return Err(StagedError::Deep);
        }
        let cached = |cache: &Tree| {
            cache.num_entries.and_then(|count| usize::try_from(count).ok()) == Some(range.len())
                && *cache.id == *tree
        };
        if cache.is_some_and(cached) {
            return Ok(());
        }
        let mut items = self.objects.items(tree)?.into_iter().peekable();
        let mut at = range.start;
        while at < range.end {
            let (key, end) = self.group(prefix.len(), at..range.end);
            while let Some(before) = items.next_if(|item| item.key.as_slice() < key) {
                self.only_head(prefix, &before)?;
            }
            let item = items.next_if(|item| item.key == key).map(|item| item.item);
            match item {
                Some(item) if item.mode == TREE => {
                    let entry = &self.state.entries()[at];
                    if entry.mode.is_sparse()
                        && entry.path(self.state).len() == prefix.len() + key.len()
                    {
                        if entry.id != item.oid {
                            return Err(StagedError::Sparse);
                        }
                    } else {
                        let name = &key[..key.len() - 1];
                        let children = cache.map(|cache| &cache.children).into_iter().flatten();
                        let below =
                            children.into_iter().find(|child| child.name.as_slice() == name);
                        let length = prefix.len();
                        prefix.extend_from_slice(key);
                        self.level(prefix, at..end, below, &item.oid, depth + 1)?;
                        prefix.truncate(length);
                    }
                }
                head => self.compare(at..end, head)?,
            }
            at = end;
        }
        for left in items {
            self.only_head(prefix, &left)?;
        }
        Ok(())
    }

    /// The first name in a part of the index, and where the part that has it ends.
    fn group(&self, prefix: usize, range: Range<usize>) -> (&'a [u8], usize) {
        let state = self.state;
        let entries = &state.entries()[range.clone()];
        let first: &[u8] = entries[0].path(state);
        let rest = &first[prefix..];
        let within = match rest.iter().position(|byte| *byte == b'/') {
            Some(slash) => {
                let head = &first[..=prefix + slash];
                (
                    &rest[..=slash],
                    entries.partition_point(|entry| entry.path(state).starts_with(head)),
                )
            }
            None => (rest, entries.partition_point(|entry| entry.path(state) == first)),
        };
        (within.0, range.start + within.1)
    }

    fn only_head(&mut self, prefix: &[u8], item: &Item) -> Result<(), StagedError> {
        let path = [prefix, &item.key].concat();
        if item.item.mode == TREE {
            let mut items = Vec::new();
            list(self.objects, &path, &item.item.oid, &mut items)?;
            self.staged
                .extend(items.into_iter().map(|(path, item)| Staged { path, head: Some(item) }));
        } else {
            self.staged.push(Staged { path, head: Some(item.item) });
        }
        Ok(())
    }

    fn compare(&mut self, range: Range<usize>, head: Option<HeadItem>) -> Result<(), StagedError> {
        let entries = &self.state.entries()[range];
        if let ([entry], Some(head)) = (entries, head) {
            let same = entry.stage_raw() == 0
                && !entry.flags.contains(Flags::INTENT_TO_ADD)
                && entry.mode.bits() == head.mode
                && entry.id == head.oid;
            if same {
                return Ok(());
            }
        }
        for entry in entries {
            if entry.mode.is_sparse() {
                return Err(StagedError::Sparse);
            }
            let path: &[u8] = entry.path(self.state);
            if self.staged.last().is_none_or(|last| last.path != path) {
                self.staged.push(Staged { path: path.to_vec(), head });
            }
        }
        Ok(())
    }
}
