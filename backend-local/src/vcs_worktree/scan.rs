//! Looks at a whole worktree once: what is there, and how each entry stands against a checkout of HEAD.
//!
//! The tree is walked in process, and compared with the index as far as times and numbers prove it, else by content.
//! Git is asked for its configuration, and for attributes where a conversion may apply. No filter is run, and nothing is
//! written.

mod config;
mod content;
mod convert;
mod copies;
mod full;
mod ignore;
mod index;
mod list;
mod lost;
mod memory;
mod nested;
mod quick;
mod scope;
mod sources;
mod staged;
#[cfg(test)]
pub(super) mod tests;
mod walk;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use gix::hash::Kind as HashKind;
use gix::index::entry::Flags;
use windlass_core::error::BackendError;
use windlass_core::vcs_worktree::VcsWorktreeError;
use windlass_core::workspace::CopyIn;

use super::tree::{Fixed, Listing};
use super::verify::Found;
use super::{BACKEND, Inner, failed};
use crate::group::Cancel;
use copies::Copies;
use full::{Context, Full, Seen};
pub(super) use ignore::is_any_meant;
use index::Known;
pub(super) use list::list;
pub(super) use memory::Memory;
use memory::Remembered;
use quick::{Changes, Quick};
pub(crate) use scope::{Entered, Part, Scope};
pub(super) use sources::apart;
use sources::{Sources, Want};
pub(super) use staged::{HeadItem, between};
use staged::{Objects, Staged};
use walk::{Walked, walk};

/// How an entry stands against a checkout of HEAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// A checkout of HEAD gives exactly these bytes, this kind and this executable bit.
    Same,
    /// HEAD has it, and its bytes, kind or executable bit are not what a checkout gives.
    Changed,
    /// HEAD does not have it, and it is not ignored.
    Untracked,
    /// HEAD does not have it, and it is ignored.
    Ignored,
    /// It was copied in when the worktree was made, is unchanged since, and where it came from has the same bytes.
    CopiedIn,
    /// It belongs to a repository inside, nested or a submodule's, its `.git` included.
    Nested,
}

/// One entry that is not [`Standing::Same`]: a file, a link, a special file, or a directory that holds no other entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Differing {
    /// Its path, relative to the worktree.
    pub(super) path: PathBuf,
    /// How it stands.
    pub(super) standing: Standing,
}

/// A worktree as it was when it was looked at.
#[derive(Debug)]
pub(super) struct Scan {
    /// Every entry with its stamp, `.git` included.
    pub(super) listing: Listing,
    /// What is not as a checkout of HEAD gives it, in path order.
    pub(super) differing: Vec<Differing>,
    /// What HEAD has and is not there, in path order.
    pub(super) deleted: Vec<PathBuf>,
    /// The index is not what a checkout of HEAD gives: something is staged, unmerged, or flagged by the user.
    pub(super) index_differs: bool,
    /// A directory of HEAD that the repository has lost, so that no checkout gives what is in it; empty for the top.
    pub(super) lost: Option<PathBuf>,
    /// What nobody could delete, in path order.
    pub(super) fixed: Vec<(PathBuf, Fixed)>,
}

impl Inner {
    /// Looks at a worktree once, which was made with `copy`. Writes nothing.
    pub(super) fn scan(
        &self,
        cancel: &Cancel,
        found: &Found,
        copy: Option<&CopyIn>,
    ) -> Result<Scan, VcsWorktreeError> {
        self.scan_with(cancel, found, copy, None)
    }

    /// Looks at a worktree that was taken aside from `place`. Names that only come to light later stay where they are.
    pub(super) fn scan_aside(
        &self,
        cancel: &Cancel,
        found: &Found,
        place: &Path,
        copy: Option<&CopyIn>,
    ) -> Result<Scan, VcsWorktreeError> {
        let memory = self.memory.of_moved(place, &found.path);
        self.scan_with(cancel, found, copy, memory.as_deref())
    }

    fn scan_with(
        &self,
        cancel: &Cancel,
        found: &Found,
        copy: Option<&CopyIn>,
        memory: Option<&Remembered>,
    ) -> Result<Scan, VcsWorktreeError> {
        let sources = Sources::read(self, cancel, found, Want::Bytes)?;
        let known = index::known(&sources.index, &sources.staged);
        let original = sources
            .original
            .as_ref()
            .map(|original| (original, places(original, &sources.index, &known)));
        let objects = Mutex::new(sources.objects);
        let config = &sources.config;
        let full = Full {
            known: &known,
            original,
            plain: sources.plain,
            sparse: sources.sparse,
            file_mode: config.is("core.filemode", true),
            links: config.is("core.symlinks", true),
            hash: sources.hash,
            objects: &objects,
            copies: Copies::of(&found.admin, copy),
            seen: Mutex::new(Seen::default()),
        };
        let top = Context::top(0..known.len(), sources.rules);
        match walk(&found.path, &full, top, memory, cancel) {
            Ok(Walked::All | Walked::Enough) => {}
            Ok(Walked::Cancelled) => return Err(cancelled()),
            Err(error) => return Err(failed("look", &found.path, error)),
        }
        let index_differs = !sources.staged.is_empty() || sources.damaged || is_flagged(&full);
        let seen = full.seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        let objects = objects.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Seen { directories, closed, mut differing, mut deleted, doubts, mut fixed } = seen;
        let attributes = sources.index_has_attributes_of_head;
        let changed = self.resolve(cancel, found, config, &objects, doubts, attributes)?;
        differing.extend(changed.iter().map(|path| full::differing(path, Standing::Changed)));
        // What the repository has lost, no checkout gives: it is kept as if it had been changed.
        differing.extend(lost::files(&known, &objects, &differing, &deleted));
        // What a partial clone does not have, its remote does.
        let whole = !sources.sparse && !config.is_partial();
        let lost = whole.then(|| lost::directory(&sources.index, &objects)).flatten();
        differing.sort_by(|one, other| one.path.cmp(&other.path));
        deleted.sort();
        fixed.sort_by(|one, other| one.0.cmp(&other.0));
        let listing = list::assemble(directories, closed).ok_or_else(|| {
            BackendError::transient(
                BACKEND,
                "look",
                std::io::Error::from(std::io::ErrorKind::NotFound),
            )
        })?;
        Ok(Scan { listing, differing, deleted, index_differs, lost, fixed })
    }
}

/// What git would show of a worktree, and what it was compared with.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) changes: Changes,
    /// Where HEAD and index differ.
    pub(super) staged: Vec<Staged>,
    pub(super) hash: HashKind,
    pub(super) objects: Objects,
    index: index::Index,
    /// Files that git was told not to look at.
    pub(super) hidden: bool,
}

impl Inner {
    /// Says whether git would show anything as changed or untracked. `None` if only git itself can tell.
    pub(super) fn is_dirty_here(
        &self,
        cancel: &Cancel,
        found: &Found,
    ) -> Result<Option<Dirt>, VcsWorktreeError> {
        let sources = Sources::read(self, cancel, found, Want::Changes)?;
        if sources.damaged || sources.config.is("core.ignorecase", false) {
            return Ok(None);
        }
        if !sources.staged.is_empty() {
            return Ok(Some(Dirt::Yes));
        }
        let plain = sources.plain;
        let looked = self.changes(cancel, found, sources, true, &Scope::everything())?;
        let changes = looked.changes;
        if changes.is_certain() {
            return Ok(Some(Dirt::Yes));
        }
        if plain && changes.attributes {
            return Ok(None);
        }
        let unsure: Vec<_> = changes.unsure.into_iter().chain(changes.submodules).collect();
        Ok(Some(if unsure.is_empty() { Dirt::No } else { Dirt::Only(unsure) }))
    }

    /// Looks for what git would show of this much of the worktree. `None` if only git itself can tell.
    pub(super) fn look(
        &self,
        cancel: &Cancel,
        found: &Found,
        scope: &Scope<'_>,
    ) -> Result<Option<Looked>, VcsWorktreeError> {
        let sources = Sources::read(self, cancel, found, Want::Changes)?;
        let unclear = sources.damaged || sources.config.is("core.ignorecase", false);
        if unclear && !scope.is_followed() {
            return Ok(None);
        }
        let looked = self.changes(cancel, found, sources, false, scope)?;
        Ok((!unclear).then_some(looked))
    }

    fn changes(
        &self,
        cancel: &Cancel,
        found: &Found,
        sources: Sources,
        any: bool,
        scope: &Scope<'_>,
    ) -> Result<Looked, VcsWorktreeError> {
        let known = index::known(&sources.index, &sources.staged);
        let objects = Mutex::new(sources.objects);
        let quick = Quick {
            known: &known,
            index: &sources.index,
            plain: sources.plain,
            sparse: sources.sparse,
            file_mode: sources.config.is("core.filemode", true),
            links: sources.config.is("core.symlinks", true),
            hash: sources.hash,
            objects: &objects,
            any,
            scope,
            seen: Mutex::new(Changes::default()),
        };
        let top = quick::Context::top(0..known.len(), sources.rules, scope.part.clone());
        let memory = self.memory.of(&found.path);
        match walk(&found.path, &quick, top, memory.as_deref(), cancel) {
            Ok(Walked::All | Walked::Enough) => {}
            Ok(Walked::Cancelled) => return Err(cancelled()),
            Err(error) => return Err(failed("look", &found.path, error)),
        }
        let hidden =
            |known: &Known<'_>| known.has(Flags::ASSUME_VALID) || known.has(Flags::SKIP_WORKTREE);
        let hidden = known.iter().any(hidden);
        let changes = quick.seen.into_inner().unwrap_or_else(PoisonError::into_inner);
        let objects = objects.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Sources { hash, staged, index, .. } = sources;
        Ok(Looked { changes, hidden, objects, hash, staged, index })
    }
}

impl Looked {
    /// What HEAD has at a path.
    pub(super) fn head_at(&self, path: &[u8]) -> Option<HeadItem> {
        match self.staged.binary_search_by(|staged| staged.path.as_slice().cmp(path)) {
            Ok(at) => self.staged[at].head,
            Err(_) => {
                let entry = self.index.state.entry_by_path(path.into())?;
                Some(HeadItem { mode: entry.mode.bits(), oid: entry.id })
            }
        }
    }

    pub(super) fn is_tracked(&self, path: &[u8]) -> bool {
        self.index.state.entry_range(path.into()).is_some_and(|range| !range.is_empty())
    }

    pub(super) fn is_gitlink(&self, path: &[u8]) -> bool {
        let entry = self.index.state.entry_by_path(path.into());
        entry.is_some_and(|entry| entry.mode.is_submodule())
    }
}

/// Whether git would show anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Dirt {
    Yes,
    No,
    /// Only if it shows one of these.
    Only(Vec<Vec<u8>>),
}

/// Says whether the user told git not to look at something, or to take it for added.
fn is_flagged(full: &Full<'_>) -> bool {
    full.known.iter().enumerate().any(|(at, known)| {
        let hidden = match &full.original {
            Some((original, places)) => places[at].is_some_and(|place| {
                original.state.entry(place).flags.contains(Flags::SKIP_WORKTREE)
            }),
            None => full.sparse,
        };
        known.unmerged
            || known.has(Flags::ASSUME_VALID)
            || known.has(Flags::INTENT_TO_ADD)
            || (known.has(Flags::SKIP_WORKTREE) && !(hidden && full.sparse))
    })
}

/// Finds what is known in another index.
fn places(
    original: &index::Index,
    index: &index::Index,
    known: &[Known<'_>],
) -> Vec<Option<usize>> {
    let entries = original.state.entries();
    let mut at = 0;
    if original.shares_entries(index) {
        let place = |known: &Known<'_>| {
            let entry = known.entry?;
            // Of an unmerged path the others are left out.
            at += entries[at..].iter().position(|other| std::ptr::eq(other, entry))?;
            Some(at)
        };
        return known.iter().map(place).collect();
    }
    let place = |known: &Known<'_>| {
        while at < entries.len() {
            let path: &[u8] = entries[at].path(&original.state);
            match path.cmp(known.path) {
                std::cmp::Ordering::Less => at += 1,
                std::cmp::Ordering::Equal => return Some(at),
                std::cmp::Ordering::Greater => return None,
            }
        }
        None
    };
    known.iter().map(place).collect()
}

fn cancelled() -> VcsWorktreeError {
    BackendError::transient(BACKEND, "look", crate::group::HelperError::Cancelled).into()
}
