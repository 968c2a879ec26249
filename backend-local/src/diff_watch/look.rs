//! One look at a worktree that changed: at everything, or at the paths where something happened.
//!
//! What is told of a path depends on other paths only where a file may have been renamed: git pairs what is gone with what
//! is new. So a look at some paths takes in all that is gone and all that is new if it finds any of both.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use windlass_core::diff_ledger::{DiffLedger, FoundDiff, Standpoint};
use windlass_core::locator::Locator;
use windlass_core::vcs_worktree::{ChangeKind, FileDiff, VcsWorktreeError};
use windlass_core::workspace::Oid;

use super::pending::Pending;
use super::watches::{Role, Watches};
use crate::group::Cancel;
use crate::vcs_worktree::{Entered, GitDirectory, Live, Part, Scope, Stand};

/// More files than this that are gone or new are not looked at together; everything is.
const MOST_PAIRED: usize = 2_048;

/// What a look found.
#[derive(Debug)]
pub(super) enum Seen {
    /// Everything that differs, in a new generation.
    Anew(Standpoint, Vec<FoundDiff>),
    /// Everything that differs.
    All(Oid, Vec<FoundDiff>),
    /// What does not differ any more, and how others do.
    Some(Oid, Vec<Locator>, Vec<FoundDiff>),
}

/// What it takes to look.
#[derive(Debug)]
pub(super) struct Looker<'a> {
    pub(super) live: &'a Live,
    pub(super) watches: &'a Watches,
    /// What is known, which nobody else changes meanwhile.
    pub(super) ledger: &'a DiffLedger,
    pub(super) cancel: &'a Cancel,
}

impl Looker<'_> {
    /// Looks where something happened.
    pub(super) fn look(&self, pending: &Pending) -> Result<Seen, VcsWorktreeError> {
        let stand = match pending.has_moved() {
            true => self.stand_watched()?,
            false => self.live.stand(self.cancel)?,
        };
        let known = self.ledger.standpoint();
        let anew = pending.has_missed()
            || known.is_none_or(|at| at.base != stand.at.base || at.branch != stand.at.branch);
        let moved = known.is_none_or(|at| at.head != stand.at.head);
        if !anew && !moved && self.watches.unwatched() == 0 {
            match pending.paths() {
                Some(paths) if paths.is_empty() => {
                    return Ok(Seen::Some(stand.at.head, Vec::new(), Vec::new()));
                }
                Some(paths) => {
                    if let Some(seen) = self.some(&stand, paths)? {
                        return Ok(seen);
                    }
                }
                None => {}
            }
        }
        let (stand, found) = self.all()?;
        let known = known.filter(|at| at.base == stand.at.base && at.branch == stand.at.branch);
        Ok(match known {
            Some(_) if !pending.has_missed() => Seen::All(stand.at.head, found),
            _ => Seen::Anew(stand.at, found),
        })
    }

    /// Looks at everything, and watches it.
    fn all(&self) -> Result<(Stand, Vec<FoundDiff>), VcsWorktreeError> {
        self.watches.begin_round();
        self.watches.arm(&[]);
        let stand = self.stand_watched()?;
        let enters = |entered: Entered<'_>| self.enter(&stand, entered);
        let scope = Scope { part: Part::All, enters: Some(&enters) };
        let pieces = stand.pieces(self.cancel, &scope)?;
        self.watches.end_round();
        Ok((stand, pieces.files))
    }

    /// Finds out where the worktree stands, from what is watched.
    fn stand_watched(&self) -> Result<Stand, VcsWorktreeError> {
        loop {
            let stand = self.live.stand(self.cancel)?;
            let directories = stand.git_directories().into_iter();
            let is_new = directories.map(|(directory, role)| {
                let role = match role {
                    GitDirectory::Private => Role::Private,
                    GitDirectory::Common => Role::Common,
                    GitDirectory::Info => Role::Info,
                    GitDirectory::Refs => Role::Refs,
                };
                self.watches.arm_git(&directory, role)
            });
            // What changed before it was watched is read after that. Each is new once.
            if !is_new.fold(false, |any, new| any | new) {
                return Ok(stand);
            }
        }
    }

    fn enter(&self, stand: &Stand, entered: Entered<'_>) {
        match entered {
            Entered::Directory(path) => self.watches.arm(path),
            // Its own commits decide whether it differs.
            Entered::Repository(path) => {
                let Some(git) = stand.git_directory(Path::new(OsStr::from_bytes(path))) else {
                    return;
                };
                let role = Role::Inside(Arc::from(path));
                self.watches.arm_git(&git, role.clone());
                self.watches.arm_git(&git.join("logs"), role);
            }
        }
    }

    /// Looks at some paths. `None` if everything is to be looked at.
    fn some(
        &self,
        stand: &Stand,
        happened: &BTreeSet<Vec<u8>>,
    ) -> Result<Option<Seen>, VcsWorktreeError> {
        let mut paths: BTreeSet<&[u8]> = happened.iter().map(Vec::as_slice).collect();
        let mut affected = self.affected(&mut paths);
        let mut paired = false;
        loop {
            let enters = |entered: Entered<'_>| self.enter(stand, entered);
            let part = Part::of(paths.iter().copied());
            let scope = Scope { part, enters: Some(&enters) };
            let mut pieces = stand.pieces(self.cancel, &scope)?;
            if self.watches.unwatched() > 0 {
                return Ok(None);
            }
            // A repository on the way, for example: whatever was known below it is no more.
            let others = pieces.files.iter().map(|one| one.file.path.as_bytes());
            let others: Vec<_> = others.filter(|path| !scope.part.covers(path)).collect();
            if !others.is_empty() {
                affected = self.affected(&mut paths.iter().copied().chain(others).collect());
            }
            if pieces.is_whole {
                return Ok(Some(Seen::All(stand.at.head.clone(), pieces.files)));
            }
            if !paired && self.may_pair(&affected, &pieces.files) {
                paired = true;
                let all: Vec<_> =
                    self.ledger.files().filter(|file| Sides::of(file).any()).collect();
                if all.len() > MOST_PAIRED {
                    return Ok(None);
                }
                paths.extend(all.into_iter().flat_map(both));
                affected = self.affected(&mut paths);
                continue;
            }
            self.watches.hush(std::mem::take(&mut pieces.ignored));
            let still: BTreeSet<&Locator> = pieces.files.iter().map(|one| &one.file.path).collect();
            let gone = affected.into_iter().filter(|path| !still.contains(path)).cloned().collect();
            return Ok(Some(Seen::Some(stand.at.head.clone(), gone, pieces.files)));
        }
    }

    /// Finds the known files that a look at these paths decides about. Of one that was renamed both paths are looked at.
    fn affected<'a>(&'a self, paths: &mut BTreeSet<&'a [u8]>) -> BTreeSet<&'a Locator> {
        let part = Part::of(paths.iter().copied());
        let mut affected = BTreeSet::new();
        for file in self.ledger.files() {
            if both(file).any(|path| part.covers(path)) {
                affected.insert(&file.path);
                paths.extend(both(file));
            }
        }
        affected
    }

    /// Says whether git may pair something that is gone with something that is new, of which one was not looked at.
    fn may_pair(&self, affected: &BTreeSet<&Locator>, found: &[FoundDiff]) -> bool {
        let (mut others, mut these) = (Sides::default(), Sides::default());
        for file in self.ledger.files() {
            let sides = if affected.contains(&file.path) { &mut these } else { &mut others };
            *sides = sides.and(Sides::of(file));
        }
        these = found.iter().fold(these, |sides, one| sides.and(Sides::of(&one.file)));
        let all = others.and(these);
        these.any() && others.any() && all.old && all.new
    }
}

/// Which sides of a renaming a file may be.
#[derive(Clone, Copy, Debug, Default)]
struct Sides {
    old: bool,
    new: bool,
}

impl Sides {
    fn of(file: &FileDiff) -> Self {
        match file.change {
            ChangeKind::Added => Self { old: false, new: true },
            ChangeKind::Deleted => Self { old: true, new: false },
            ChangeKind::Renamed | ChangeKind::Copied => Self { old: true, new: true },
            ChangeKind::Modified | ChangeKind::TypeChanged => Self::default(),
        }
    }

    const fn and(self, other: Self) -> Self {
        Self { old: self.old || other.old, new: self.new || other.new }
    }

    const fn any(self) -> bool {
        self.old || self.new
    }
}

fn both(file: &FileDiff) -> impl Iterator<Item = &[u8]> {
    [Some(&file.path), file.old_path.as_ref()].into_iter().flatten().map(Locator::as_bytes)
}
