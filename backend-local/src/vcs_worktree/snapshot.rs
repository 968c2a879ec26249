//! Snapshots: whatever in a worktree exists nowhere else, in one file that plain tools read.
//!
//! A snapshot is written under a temporary name, synced, read back and compared, and only then gets its name: a file of
//! that name is whole. The user's repository is only read. What a snapshot consists of is in `docs/snapshots.md`.

mod archive;
mod examine;
mod fill;
mod git_state;
mod index_file;
mod listing;
mod manifest;
mod objects;
mod place;
mod quote;
mod restore;
mod selection;
mod sparse;
mod store;
mod unpack;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use windlass_core::id::AttemptId;
use windlass_core::snapshot::{Snapshot, SnapshotNumber};
use windlass_core::vcs_worktree::{SaveFrom, SaveRequest, Unsavable, VcsWorktreeError};
use windlass_core::workspace::Worktree;

use super::below::Below;
use super::own_branch::OwnBranch;
use super::scan::Scan;
use super::scratch::ScratchDir;
use super::tree::stamp;
use super::verify::Found;
use super::{Inner, copied, failed, locator};
use crate::group::Cancel;
use archive::{Attributes, Writer};
use examine::{Examined, Unusable, examine};
use git_state::GitState;
use index_file::IndexFile;
use listing::{Side, hex};
use manifest::{Checksum, Manifest};
use objects::{Packed, Unreached};
use place::Temporary;
use quote::quote;
use selection::{Rules, Selection};
use store::{Source, Stop, Stored};

pub(super) use place::sweep;

/// The member that describes every entry.
const LISTING: &str = "listing";
/// The member that names what HEAD has and the worktree had not.
const DELETED: &str = "deleted";
/// The member with commits.
const BUNDLE: &str = "commits.bundle";
/// The member with other objects.
const OBJECTS: &str = "objects.pack";
/// No more of a branch's log is searched.
const LOG_BYTES: u64 = 64 << 20;
/// How often a worktree is saved that changes meanwhile.
const PASSES: u32 = 3;
/// How much of what is left out is named in an answer.
const NAMED: usize = 16;

/// Everything that goes into a snapshot.
struct Saving<'a> {
    attempt: AttemptId,
    worktree: &'a Worktree,
    found: &'a Found,
    scan: &'a Scan,
    request: &'a SaveRequest,
    /// There is a directory.
    directory: bool,
    selection: Selection,
    state: GitState,
    unreached: &'a Unreached,
    bundle: Option<&'a Packed>,
    objects: Option<&'a Packed>,
    /// What the other snapshots take, in bytes.
    used: u64,
}

/// What of a worktree is in its repository: its own git state, and what only that reaches.
#[derive(Debug)]
pub(super) struct Kept {
    /// The index is not what a checkout of HEAD gives, or was taken not to be.
    staged: bool,
    state: GitState,
    unreached: Unreached,
    /// The branch that was made for it.
    pub(super) own: Option<OwnBranch>,
}

impl Inner {
    /// Looks at what of a worktree is in its repository. `staged` says that its index is not what a checkout of HEAD gives.
    pub(super) fn look_at_kept(
        &self,
        cancel: &Cancel,
        worktree: &Worktree,
        found: &Found,
        request: &SaveRequest,
        staged: bool,
    ) -> Result<Kept, VcsWorktreeError> {
        let state = git_state(found)?;
        // Once: what it reaches is looked for where this says that it is.
        let own = self.own_branch(cancel, found, worktree)?;
        let (fate, branch) = (request.branch, own.as_ref());
        let unreached =
            self.unreached_objects(cancel, worktree, found, &state, staged, fate, branch)?;
        Ok(Kept { staged, state, unreached, own })
    }

    /// Saves whatever in a worktree exists nowhere else; `None` if there is no such thing. `kept` may have been looked at
    /// before it was known whether the index differs. Answers its own branch, too.
    #[expect(clippy::too_many_arguments, reason = "it is told what was found out one by one")]
    pub(super) fn write_snapshot(
        &self,
        cancel: &Cancel,
        attempt: AttemptId,
        worktree: &Worktree,
        found: &Found,
        scan: &Scan,
        kept: Kept,
        request: &SaveRequest,
    ) -> Result<(Option<Snapshot>, Option<OwnBranch>), VcsWorktreeError> {
        let kept = if kept.staged == scan.index_differs {
            kept
        } else {
            self.look_at_kept(cancel, worktree, found, request, scan.index_differs)?
        };
        let own = kept.own.clone();
        let snapshot = self.write(cancel, attempt, worktree, found, scan, kept, request)?;
        Ok((snapshot, own))
    }

    #[expect(clippy::too_many_arguments, reason = "it is told what was found out one by one")]
    fn write(
        &self,
        cancel: &Cancel,
        attempt: AttemptId,
        worktree: &Worktree,
        found: &Found,
        scan: &Scan,
        kept: Kept,
        request: &SaveRequest,
    ) -> Result<Option<Snapshot>, VcsWorktreeError> {
        let Kept { staged, state, unreached, own: _ } = kept;
        let elsewhere =
            scan.deleted.is_empty() && !staged && !state.holds_work && !unreached.holds_work;
        if elsewhere && scan.differing.is_empty() {
            // Nothing to choose from: the ordinary end of an attempt whose work was committed.
            refuse(worktree, &Selection::default(), &state)?;
            return Ok(None);
        }
        let mut restless = HashSet::new();
        let selection = select(found, scan, request, &restless)?;
        refuse(worktree, &selection, &state)?;
        let nothing = elsewhere && !selection.holds_work();
        if nothing {
            return Ok(None);
        }
        let scratches = [self.scratch.dir(), self.scratch.dir()];
        let [first, second] =
            scratches.map(|made| made.map_err(|error| failed("save", &self.root, error)));
        let (first, second): (ScratchDir, ScratchDir) = (first?, second?);
        let bundle = self.bundle(cancel, found, &first, &unreached)?;
        let objects = self.object_pack(cancel, found, &second, &unreached)?;
        let mut saving = Saving {
            attempt,
            worktree,
            found,
            scan,
            request,
            directory: found.path.symlink_metadata().is_ok(),
            selection,
            state,
            unreached: &unreached,
            bundle: bundle.as_ref(),
            objects: objects.as_ref(),
            used: self.snapshot_bytes_without(attempt, request.number)?,
        };
        let mut passes = 0;
        loop {
            let (side, path, reason) = match self.save_once(cancel, &saving) {
                Ok(snapshot) => return Ok(Some(snapshot)),
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::Unsavable(side, path, reason)) => (side, path, Some(reason)),
                Err(Stop::Restless(side, path)) => (side, path, None),
            };
            passes += 1;
            if reason.is_some() || passes >= PASSES {
                let discard = side == Side::Work && request.unsavable == Unsavable::Discard;
                // What is left out is not read again.
                if !discard || !restless.insert(path.clone()) {
                    let reason = reason.unwrap_or("it changes while it is read");
                    return Err(unsavable(worktree, vec![Stop::named(side, &path, reason)]));
                }
            }
            saving.selection = select(found, scan, request, &restless)?;
            saving.state = git_state(found)?;
        }
    }

    /// Writes, reads back and names the snapshot once.
    fn save_once(&self, cancel: &Cancel, saving: &Saving<'_>) -> Result<Snapshot, Stop> {
        let place = self.place(saving.attempt)?;
        let at = |error| Stop::Failed(failed("save", place.folder(), error));
        let temporary = place.temporary(saving.request.number).map_err(at)?;
        let stored = self.write_archive(cancel, saving, &temporary)?;
        temporary.sync().map_err(at)?;
        let examined = examine(temporary.path(), None).map_err(|unusable| match unusable {
            Unusable::Failed(error) => Stop::Failed(error),
            Unusable::Missing => at(io::ErrorKind::NotFound.into()),
            Unusable::Damaged(why) => at(io::Error::other(format!("it reads back damaged: {why}"))),
        })?;
        if examined.items != stored.items {
            return Err(at(io::Error::other("it reads back with another listing")));
        }
        self.quota(saving.used.saturating_add(examined.bytes))?;
        // What is deleted later is deleted because it is as it was read.
        unchanged(saving, &stored)?;
        let archive = temporary.name(saving.request.number).map_err(at)?;
        Ok(answer(examined, &archive))
    }

    fn quota(&self, used: u64) -> Result<(), VcsWorktreeError> {
        let limit = self.snapshot_quota_bytes;
        if used > limit { Err(VcsWorktreeError::Quota { used, limit }) } else { Ok(()) }
    }

    fn write_archive(
        &self,
        cancel: &Cancel,
        saving: &Saving<'_>,
        temporary: &Temporary,
    ) -> Result<Stored, Stop> {
        let at = |error| Stop::Failed(failed("save", temporary.path(), error));
        let mut writer = Writer::new(temporary.file()).map_err(at)?;
        let mut stored = Stored::default();
        let full = |writer: &mut Writer| {
            let written = writer.written();
            let written = written.map_err(|error| failed("save", temporary.path(), error))?;
            self.quota(saving.used.saturating_add(written))
        };
        let states = saving.state.index.iter().flat_map(IndexFile::states);
        let indexed: HashMap<&Path, _> = states.collect();
        let refuse_immutable = saving.request.from == SaveFrom::Aside;
        if saving.directory {
            let (root, selection) = (saving.found.path.as_path(), &saving.selection);
            let side = Side::Work;
            let work = Source { side, root, selection, indexed, refuse_immutable };
            work.store(cancel, &mut writer, &mut stored, &full)?;
        }
        let (entries, bytes) = (stored.entries, stored.bytes);
        let (root, selection) = (saving.found.admin.as_path(), &saving.state.selection);
        let (side, indexed) = (Side::Git, HashMap::new());
        let git = Source { side, root, selection, indexed, refuse_immutable };
        git.store(cancel, &mut writer, &mut stored, &full)?;
        (stored.entries, stored.bytes) = (entries, bytes);
        let mut members = BTreeMap::new();
        for (name, packed) in [(BUNDLE, saving.bundle), (OBJECTS, saving.objects)] {
            let Some(packed) = packed else { continue };
            let data = packed.read().map_err(at)?;
            let sha256 = writer.file(name.as_bytes(), Attributes::PLAIN, packed.bytes, data);
            let sha256 = hex(&sha256.map_err(at)?);
            members.insert(name.to_owned(), Checksum { bytes: packed.bytes, sha256 });
        }
        let mut deleted = Vec::new();
        for path in &saving.scan.deleted {
            quote(&mut deleted, path.as_os_str().as_bytes());
            deleted.push(b'\n');
        }
        let mut listing = Vec::new();
        for item in &stored.items {
            item.write(&mut listing);
        }
        for (name, text) in [(DELETED, deleted), (LISTING, listing)] {
            let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
            let written = writer.file(name.as_bytes(), Attributes::PLAIN, bytes, text.as_slice());
            let sha256 = hex(&written.map_err(at)?);
            members.insert(name.to_owned(), Checksum { bytes, sha256 });
        }
        let manifest = manifest(saving, &stored, members);
        let text = serde_json::to_vec_pretty(&manifest).map_err(|error| at(error.into()))?;
        let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
        let name = manifest::NAME.as_bytes();
        writer.file(name, Attributes::PLAIN, bytes, text.as_slice()).map_err(at)?;
        writer.finish().map_err(at)?;
        Ok(stored)
    }

    /// Reads a snapshot that is whole; `None` if there is none, or it is damaged.
    pub(super) fn read_snapshot(
        &self,
        attempt: AttemptId,
        number: SnapshotNumber,
    ) -> Result<Option<Snapshot>, VcsWorktreeError> {
        let archive = self.archive_of(attempt, number);
        match examine(&archive, None) {
            Ok(examined) => Ok(Some(answer(examined, &archive))),
            Err(Unusable::Missing | Unusable::Damaged(_)) => Ok(None),
            Err(Unusable::Failed(error)) => Err(error),
        }
    }
}

fn select(
    found: &Found,
    scan: &Scan,
    request: &SaveRequest,
    restless: &HashSet<PathBuf>,
) -> Result<Selection, VcsWorktreeError> {
    let copied = match copied::read(&found.admin) {
        Ok(copied) => copied.into_iter().map(|(path, copied)| (path, copied.sha256)).collect(),
        // What cannot be told to exist elsewhere is stored.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => BTreeMap::new(),
        Err(error) => return Err(failed("save", &found.admin, error)),
    };
    let (ignored, unsavable) = (&request.ignored, request.unsavable);
    Ok(Selection::of_worktree(scan, &Rules { ignored, unsavable, copied, restless }))
}

fn git_state(found: &Found) -> Result<GitState, VcsWorktreeError> {
    let looked = GitState::look(&found.admin, &found.verified.head.0);
    looked.map_err(|error| failed("save", &found.admin, error))
}

fn refuse(
    worktree: &Worktree,
    selection: &Selection,
    state: &GitState,
) -> Result<(), VcsWorktreeError> {
    let refused = selection.refused.iter().chain(&state.selection.refused);
    let entries: Vec<String> = refused.take(NAMED).cloned().collect();
    if entries.is_empty() { Ok(()) } else { Err(unsavable(worktree, entries)) }
}

fn unsavable(worktree: &Worktree, entries: Vec<String>) -> VcsWorktreeError {
    VcsWorktreeError::Unsavable { path: worktree.path.clone(), entries }
}

/// Refuses if anything that was stored is not as it was then.
fn unchanged(saving: &Saving<'_>, stored: &Stored) -> Result<(), Stop> {
    let mut sides: [Option<Below>; 2] = [None, None];
    for (side, path, then) in &stored.stamps {
        let (slot, root) = match side {
            Side::Work => (&mut sides[0], &saving.found.path),
            Side::Git => (&mut sides[1], &saving.found.admin),
        };
        if slot.is_none() {
            let opened = Below::open(root);
            *slot = Some(opened.map_err(|error| Stop::Failed(failed("save", root, error)))?);
        }
        let now = slot.as_mut().and_then(|below| below.stat(path).ok());
        if now.is_none_or(|now| stamp(&now) != *then) {
            return Err(Stop::Restless(*side, path.clone()));
        }
    }
    Ok(())
}

fn manifest(saving: &Saving<'_>, stored: &Stored, members: BTreeMap<String, Checksum>) -> Manifest {
    let (format, version) = Manifest::header();
    let registration = saving.found.admin.file_name().unwrap_or_default();
    Manifest {
        format,
        version,
        attempt: saving.attempt,
        number: saving.request.number,
        worktree: saving.worktree.clone(),
        registration: locator(Path::new(registration)),
        head: saving.found.verified.head.clone(),
        branch: saving.found.verified.branch.clone(),
        directory: saving.directory,
        entries: stored.entries,
        bytes: stored.bytes,
        deleted: u64::try_from(saving.scan.deleted.len()).unwrap_or(u64::MAX),
        commits: saving.unreached.commits,
        left_out: saving.selection.left_out.clone(),
        members,
    }
}

fn answer(examined: Examined, archive: &Path) -> Snapshot {
    let Examined { manifest, sha256, bytes, .. } = examined;
    let left_out_bytes =
        manifest.left_out.iter().map(|left| left.bytes).fold(0, u64::saturating_add);
    let mut left_out = manifest.left_out;
    let more = left_out.len().saturating_sub(NAMED);
    left_out.truncate(NAMED);
    Snapshot {
        number: manifest.number,
        head: manifest.head,
        branch: manifest.branch,
        entries: manifest.entries,
        bytes: manifest.bytes,
        deleted: manifest.deleted,
        commits: manifest.commits,
        archive: locator(archive),
        archive_bytes: bytes,
        sha256,
        left_out,
        more_left_out: u64::try_from(more).unwrap_or(u64::MAX),
        left_out_bytes,
    }
}

/// The SHA-256 of what a reader gives.
fn digest(mut data: impl Read) -> io::Result<[u8; 32]> {
    let mut sha256 = Sha256::new();
    let mut buffer = vec![0; archive::CHUNK];
    loop {
        match data.read(&mut buffer) {
            Ok(0) => return Ok(sha256.finalize().into()),
            Ok(read) => sha256.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
