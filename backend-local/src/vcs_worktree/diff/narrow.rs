//! Has git compare only what may differ: an index is made up that holds these paths as the merge base has them.
//!
//! New files are entered as those that git was told to expect (`git add --intent-to-add`). What counts as gone although
//! something is there (it became ignored, or a pipe) is compared with an empty directory instead.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufWriter, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _};
use std::path::{Path, PathBuf};

use gix::ObjectId;
use gix::hash::Kind as HashKind;
use gix::index::entry::{Flags, Mode, Stat};
use gix::index::{File, State};
use windlass_core::vcs_worktree::VcsWorktreeError;
use windlass_core::workspace::Oid;

use super::{Side, Untracked};
use crate::group::Cancel;
use crate::vcs_worktree::scan::{HeadItem, Looked, Scope, between};
use crate::vcs_worktree::scratch::ScratchDir;
use crate::vcs_worktree::verify::Found;
use crate::vcs_worktree::{Inner, failed};

/// What a comparison rests on.
#[derive(Debug, Default)]
pub(super) struct Narrowed {
    /// What the worktree is compared with, by path; `None` if the base has nothing there.
    pub(super) present: BTreeMap<Vec<u8>, Option<HeadItem>>,
    /// What the base has and counts as gone.
    pub(super) absent: BTreeMap<Vec<u8>, Option<HeadItem>>,
    pub(super) untracked: Untracked,
    /// Bytes of each, before and after.
    pub(super) sizes: BTreeMap<Vec<u8>, (u64, u64)>,
}

impl Inner {
    /// Finds out what of this much of the worktree may differ from the base. `None` if a look cannot tell.
    pub(super) fn narrow(
        &self,
        cancel: &Cancel,
        found: &Found,
        base: &Oid,
        scope: &Scope<'_>,
    ) -> Result<Option<(Narrowed, Looked)>, VcsWorktreeError> {
        let Some(looked) = self.look(cancel, found, scope)? else { return Ok(None) };
        if looked.hidden {
            return Ok(None);
        }
        let Some(mut bases) = between_base_and_head(&looked, found, base) else { return Ok(None) };
        if !scope.part.is_all() {
            // What was met on the way is compared with what the base has, too.
            let met: BTreeSet<&[u8]> = looked.changes.paths().collect();
            bases.retain(|path, _| scope.part.covers(path) || met.contains(path.as_slice()));
        }
        let changes = &looked.changes;
        let tracked = changes.changed.iter().chain(&changes.unsure).chain(&changes.submodules);
        let staged = looked.staged.iter().map(|staged| &staged.path);
        for path in tracked.chain(staged.filter(|path| scope.part.covers(path))) {
            if !bases.contains_key(path) {
                bases.insert(path.clone(), looked.head_at(path));
            }
        }
        let mut narrowed = Narrowed::default();
        for path in &changes.repositories {
            let dir = found.path.join(OsStr::from_bytes(path));
            let head = self.git.within(&dir, "rev-parse");
            let head = head.args(["--verify", "--quiet", "HEAD"]).run(cancel)?;
            if head.status.success() {
                narrowed.untracked.repositories.insert(path.clone());
                bases.entry(path.clone()).or_insert(None);
            } else {
                narrowed.untracked.unborn.insert(path.clone());
            }
        }
        for path in &changes.untracked {
            narrowed.untracked.files.insert(path.clone());
            bases.entry(path.clone()).or_insert(None);
        }
        for (path, item) in bases {
            self.sort(found, &looked, &mut narrowed, path, item);
        }
        Ok(Some((narrowed, looked)))
    }

    /// Decides which side of the comparison a path is on.
    fn sort(
        &self,
        found: &Found,
        looked: &Looked,
        narrowed: &mut Narrowed,
        path: Vec<u8>,
        item: Option<HeadItem>,
    ) {
        let untracked = &narrowed.untracked;
        let shown = looked.is_tracked(&path)
            || untracked.files.contains(&path)
            || untracked.repositories.contains(&path);
        let inside = untracked.repositories.iter().chain(&untracked.unborn).any(|dir| {
            path.strip_prefix(dir.as_slice()).is_some_and(|rest| rest.starts_with(b"/"))
        });
        let meta = found.path.join(OsStr::from_bytes(&path)).symlink_metadata();
        // Git takes other errors, such as a loop of links on the way, for no answer.
        let unclear = meta.as_ref().err().is_some_and(|error| {
            !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        });
        let meta = meta.ok();
        let special = meta.as_ref().is_some_and(|meta| {
            let kind = meta.file_type();
            kind.is_fifo() || kind.is_socket() || kind.is_block_device() || kind.is_char_device()
        });
        let directory = meta.as_ref().is_some_and(fs::Metadata::is_dir);
        let repository = untracked.repositories.contains(&path) || looked.is_gitlink(&path);
        let gone = meta.is_none() || (directory && !repository);
        // Git sees for itself that nothing is there, and finds what was renamed; the rest it must not see.
        let other = directory
            && !repository
            && found.path.join(OsStr::from_bytes(&path)).join(".git").symlink_metadata().is_ok();
        let unseen = unclear || special || inside || other || (!gone && !shown);
        let before = item.map_or(0, |item| looked.objects.size_of(&item.oid));
        let after = meta.filter(fs::Metadata::is_file).map_or(0, |meta| meta.len());
        narrowed.sizes.insert(path.clone(), (before, after));
        match item {
            None if gone || unseen => {}
            item if unseen => drop(narrowed.absent.insert(path, item)),
            item => drop(narrowed.present.insert(path, item)),
        }
    }

    /// Writes the indexes to compare with, without what is left out.
    pub(super) fn sides(
        &self,
        narrowed: &Narrowed,
        hash: HashKind,
        scratch: &ScratchDir,
        left_out: &BTreeSet<Vec<u8>>,
    ) -> Result<Vec<Side>, VcsWorktreeError> {
        let mut sides = Vec::new();
        let failed = |error| failed("diff", scratch.path(), error);
        let number = if left_out.is_empty() { 0 } else { 1 };
        for (items, name) in [(&narrowed.present, "present"), (&narrowed.absent, "absent")] {
            let items: Vec<_> =
                items.iter().filter(|(path, _)| !left_out.contains(*path)).collect();
            if items.is_empty() {
                continue;
            }
            let index = scratch.path().join(format!("{name}-{number}"));
            write_index(&index, hash, &items).map_err(failed)?;
            let work_tree = match name {
                "absent" => Some(empty_directory(scratch).map_err(failed)?),
                _ => None,
            };
            sides.push(Side { index, tree: None, work_tree });
        }
        Ok(sides)
    }
}

fn empty_directory(scratch: &ScratchDir) -> io::Result<PathBuf> {
    let path = scratch.path().join("empty");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
    Ok(path)
}

/// What the base has where it differs from HEAD. `None` if its objects cannot be read here.
fn between_base_and_head(
    looked: &Looked,
    found: &Found,
    base: &Oid,
) -> Option<BTreeMap<Vec<u8>, Option<HeadItem>>> {
    if *base == found.verified.head {
        return Some(BTreeMap::new());
    }
    let tree = |oid: &Oid| {
        let oid = ObjectId::from_hex(oid.0.as_bytes()).ok()?;
        looked.objects.tree_of(&oid).ok()
    };
    let (base, head) = (tree(base)?, tree(&found.verified.head)?);
    let mut differing = Vec::new();
    between(&looked.objects, b"", (&base, &head), &mut differing).ok()?;
    Some(differing.into_iter().map(|(path, base, _)| (path, base)).collect())
}

/// Writes an index that git has to compare entry by entry: no times are in it.
fn write_index(
    file: &Path,
    hash: HashKind,
    items: &[(&Vec<u8>, &Option<HeadItem>)],
) -> io::Result<()> {
    let mut state = State::new(hash);
    for (path, item) in items {
        let (mode, oid, flags) = match item {
            Some(item) => (Mode::from_bits_truncate(item.mode), item.oid, Flags::empty()),
            None => {
                let expected = Flags::INTENT_TO_ADD | Flags::EXTENDED;
                (Mode::FILE, ObjectId::empty_blob(hash), expected)
            }
        };
        state.dangerously_push_entry(Stat::default(), oid, flags, mode, path.as_slice().into());
    }
    state.sort_entries();
    let mut out = BufWriter::new(fs::File::create(file)?);
    let options = gix::index::write::Options::default();
    File::from_state(state, file).write_to(&mut out, options).map_err(io::Error::other)?;
    out.flush()
}
