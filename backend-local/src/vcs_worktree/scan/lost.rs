//! What HEAD names and the repository does not have any more: a worktree's file may be the last that there is of it.

use std::collections::BTreeSet;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use gix::bstr::ByteSlice as _;
use gix::index::entry::{Flags, Mode};
use gix::index::extension::Tree;

use super::full;
use super::index::{Index, Known};
use super::staged::Objects;
use super::{Differing, Standing};

/// Most threads.
const THREADS: usize = 4;
/// Fewer files are looked for by one thread.
const PART: usize = 4_096;

/// Lists the files that are as in HEAD, and whose content in the repository is gone.
pub(super) fn files(
    known: &[Known<'_>],
    objects: &Objects,
    differing: &[Differing],
    deleted: &[PathBuf],
) -> Vec<Differing> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(THREADS);
    let parts = known.chunks(known.len().div_ceil(threads).max(PART));
    let lost: Vec<Differing> = std::thread::scope(|scope| {
        let others = parts.clone().skip(1);
        let others: Vec<_> = others.map(|part| (part, objects.again())).collect();
        let others: Vec<_> = others
            .into_iter()
            .map(|(part, objects)| scope.spawn(move || among(part, &objects)))
            .collect();
        let mut lost = parts.clone().next().map_or_else(Vec::new, |part| among(part, objects));
        for other in others {
            lost.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        lost
    });
    if lost.is_empty() {
        return lost;
    }
    let paths = differing.iter().map(|one| one.path.as_path());
    let told: BTreeSet<&Path> = paths.chain(deleted.iter().map(PathBuf::as_path)).collect();
    let news = lost.iter().filter(|one| !told.contains(one.path.as_path()));
    news.cloned().collect()
}

fn among(known: &[Known<'_>], objects: &Objects) -> Vec<Differing> {
    let lost = known.iter().filter(|known| {
        let kept = known.head().is_some_and(|item| item.mode != Mode::COMMIT.bits());
        let hidden = known.has(Flags::SKIP_WORKTREE);
        kept && !hidden && known.head().is_some_and(|item| !objects.has(&item.oid))
    });
    lost.map(|known| full::differing(known.path, Standing::Changed)).collect()
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
