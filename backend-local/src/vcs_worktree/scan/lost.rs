//! What HEAD names and the repository does not have any more: a worktree's file may be the last that there is of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use gix::bstr::ByteSlice as _;
use gix::index::entry::{Flags, Mode};
use gix::index::extension::Tree;

use super::full;
use super::index::{Index, Known};
use super::staged::Objects;
use super::{Differing, Standing};

/// Lists the files that are as in HEAD, and whose content in the repository is gone.
pub(super) fn files(
    known: &[Known<'_>],
    objects: &Objects,
    differing: &[Differing],
    deleted: &[PathBuf],
) -> Vec<Differing> {
    let lost = known.iter().filter(|known| {
        let kept = known.head().is_some_and(|item| item.mode != Mode::COMMIT.bits());
        let hidden = known.has(Flags::SKIP_WORKTREE);
        kept && !hidden && known.head().is_some_and(|item| !objects.has(&item.oid))
    });
    let lost: Vec<Differing> =
        lost.map(|known| full::differing(known.path, Standing::Changed)).collect();
    if lost.is_empty() {
        return lost;
    }
    let paths = differing.iter().map(|one| one.path.as_path());
    let told: BTreeSet<&Path> = paths.chain(deleted.iter().map(PathBuf::as_path)).collect();
    let news = lost.iter().filter(|one| !told.contains(one.path.as_path()));
    news.cloned().collect()
}

/// Finds a directory of HEAD, as the index remembers it, that the repository does not have; the top is empty.
pub(super) fn directory(index: &Index, objects: &Objects) -> Option<PathBuf> {
    index.state.tree().and_then(|tree| missing(tree, &mut PathBuf::new(), objects))
}

fn missing(tree: &Tree, at: &mut PathBuf, objects: &Objects) -> Option<PathBuf> {
    // Without a number of entries its name is not known to be that of anything.
    if tree.num_entries.is_some() && !objects.has(&tree.id) {
        return Some(at.clone());
    }
    tree.children.iter().find_map(|child| {
        at.push(child.name.to_path_lossy());
        let found = missing(child, at, objects);
        at.pop();
        found
    })
}
