//! Saves a worktree: under the repository's lock, from its place or from aside.
//!
//! From aside: look that nobody works in it; take it aside, so that later writes by path fail; look again, also for mapped
//! files; scan; write the snapshot; keep the record of what it then was. Whatever fails, it is put back as it was, also by the next host.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use windlass_core::id::AttemptId;
use windlass_core::snapshot::Snapshot;
use windlass_core::vcs_worktree::{
    BranchFate, SaveFrom, SaveRequest, Saved, Unfinished, Unsavable, VcsWorktreeError,
};
use windlass_core::workspace::Worktree;

use super::aside::{Places, Whereabouts, exists, link_of};
use super::marker::sync_parent;
use super::occupants::{mappers, occupants};
use super::own_branch::OwnBranch;
use super::record::{Record, boot};
use super::reset::SAVED_AT;
use super::scan::Scan;
use super::settle;
use super::tree::{self, Listing, Stamp};
use super::verify::{Found, gone};
use super::{Inner, failed, locator, mismatch, path_of};
use crate::group::Cancel;

/// How many entries an error names.
const NAMED: usize = 16;

impl Inner {
    /// Saves the worktree. The caller holds the repository's lock.
    pub(super) fn save(
        &self,
        cancel: &Cancel,
        attempt: AttemptId,
        worktree: &Worktree,
        request: &SaveRequest,
    ) -> Result<Saved, VcsWorktreeError> {
        let places = self.places(attempt, worktree)?;
        match self.whereabouts(attempt, &places)? {
            Whereabouts::Deleting(record) => return Ok(record.saved()),
            Whereabouts::Saved(record) if self.answers(&record, request)? => {
                return Ok(record.saved());
            }
            Whereabouts::Saved(_) | Whereabouts::Aside => {
                self.put_back(attempt, worktree, &places)?;
            }
            Whereabouts::Home => {}
        }
        if self.abandon(cancel, attempt, worktree)? {
            return Err(gone(&places.path));
        }
        // Before it is verified: whatever takes its place after that is another directory.
        let top = Stamp::at(&places.path).map_err(|error| failed("save", &places.path, error))?;
        match (self.verify(cancel, attempt, worktree), request.from) {
            (Ok(found), SaveFrom::Place) => {
                refuse_unfinished(&found, &places, request)?;
                // Before anything is read: what changes from here on may not be in it.
                let mark = found.admin.join(SAVED_AT);
                fs::write(&mark, b"").map_err(|error| failed("save", &mark, error))?;
                let scan = self.scan(cancel, &found, worktree.copy.as_ref())?;
                let staged = scan.index_differs;
                let kept = self.look_at_kept(cancel, worktree, &found, request, staged)?;
                let (snapshot, _) =
                    self.write_snapshot(cancel, attempt, worktree, &found, &scan, kept, request)?;
                Ok(Saved { head: found.verified.head, branch: found.verified.branch, snapshot })
            }
            (Ok(found), SaveFrom::Aside) => {
                let top = top.ok_or_else(|| gone(&places.path))?;
                self.save_aside(cancel, attempt, worktree, request, &places, (found, &top))
            }
            (Err(VcsWorktreeError::Gone { .. }), _) => {
                self.save_gone(cancel, attempt, worktree, request, &places)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Says whether what was saved is what is asked for this time.
    fn answers(&self, record: &Record, request: &SaveRequest) -> Result<bool, VcsWorktreeError> {
        let alike = request.from == SaveFrom::Aside
            && record.ignored == request.ignored
            && (record.fate == BranchFate::Goes || request.branch == BranchFate::Stays);
        match &record.snapshot {
            Some(snapshot) if alike && snapshot.number == request.number => {
                let kept = self.read_snapshot(record.attempt, snapshot.number)?;
                Ok(kept.as_ref() == Some(snapshot))
            }
            Some(_) => Ok(false),
            None => Ok(alike),
        }
    }

    fn save_aside(
        &self,
        cancel: &Cancel,
        attempt: AttemptId,
        worktree: &Worktree,
        request: &SaveRequest,
        places: &Places,
        (found, top): (Found, &Stamp),
    ) -> Result<Saved, VcsWorktreeError> {
        refuse_unfinished(&found, places, request)?;
        refuse_occupied(places, &places.path)?;
        let saved = self.take_aside(found, places, top).and_then(|found| {
            refuse_occupied(places, &found.path)?;
            // Listed before it is read: what changes later is seen by it.
            let admin = list(&found.admin)?;
            let (scan, kept, mappers) = std::thread::scope(|scope| {
                let mappers = scope.spawn(|| mappers(&found.path));
                // Mostly nothing is staged; git waits for the disk while the files are looked at.
                let kept = || self.look_at_kept(cancel, worktree, &found, request, false);
                let kept = scope.spawn(kept);
                let copy = worktree.copy.as_ref();
                let scan = self.scan_aside(cancel, &found, &places.path, copy);
                (scan, kept.join(), mappers.join())
            });
            let mappers = mappers.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            refuse_occupants(places, &mappers)?;
            let scan = scan?;
            refuse_lost(&scan, places, request)?;
            refuse_fixed(&scan, places, request)?;
            let kept = kept.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            let (snapshot, own) =
                self.write_snapshot(cancel, attempt, worktree, &found, &scan, kept, request)?;
            let listings = (Some(&scan.listing), &admin);
            self.keep(attempt, worktree, request, places, &found, (snapshot, own), listings)
        });
        saved.inspect_err(|_| {
            // The first error is the one to act on. If this fails too, the next to look puts it back.
            drop(self.put_back(attempt, worktree, places));
        })
    }

    /// Saves what the private git directory holds of a worktree whose directory somebody deleted.
    fn save_gone(
        &self,
        cancel: &Cancel,
        attempt: AttemptId,
        worktree: &Worktree,
        request: &SaveRequest,
        places: &Places,
    ) -> Result<Saved, VcsWorktreeError> {
        let common = path_of(&worktree.repo);
        let Some(admin) = self.registered(&common, attempt)? else {
            return Err(gone(&places.path));
        };
        refuse_moved(&admin, places)?;
        let verified = self.head(cancel, &admin, &common, &admin)?;
        let found = Found { path: places.path.clone(), admin, common, verified };
        refuse_unfinished(&found, places, request)?;
        let index_differs = self.is_staged(cancel, &found)?;
        let (differing, deleted) = (Vec::new(), Vec::new());
        let (listing, lost, fixed) = (Listing::of_nothing(), None, Vec::new());
        let scan = Scan { listing, differing, deleted, index_differs, lost, fixed };
        let admin = list(&found.admin)?;
        let kept = self.look_at_kept(cancel, worktree, &found, request, index_differs)?;
        let (snapshot, own) =
            self.write_snapshot(cancel, attempt, worktree, &found, &scan, kept, request)?;
        if request.from == SaveFrom::Place {
            let (head, branch) = (found.verified.head, found.verified.branch);
            return Ok(Saved { head, branch, snapshot });
        }
        let listings = (None, &admin);
        self.keep(attempt, worktree, request, places, &found, (snapshot, own), listings)
    }

    /// Says whether the index of a worktree without a directory holds something that HEAD does not.
    fn is_staged(&self, cancel: &Cancel, found: &Found) -> Result<bool, VcsWorktreeError> {
        let staged = self.git.on_repository(&found.admin, "diff-index");
        let staged = staged.env("GIT_NO_LAZY_FETCH", "1");
        let staged = staged.args(["--cached", "--quiet", "--ignore-submodules=none", "HEAD"]);
        Ok(staged.answer(cancel)?.is_none())
    }

    /// Keeps the record of a saved worktree; from then on it can be removed.
    #[expect(clippy::too_many_arguments, reason = "it gathers what was found out one by one")]
    fn keep(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        request: &SaveRequest,
        places: &Places,
        found: &Found,
        (snapshot, own): (Option<Snapshot>, Option<OwnBranch>),
        (directory, admin): (Option<&Listing>, &Listing),
    ) -> Result<Saved, VcsWorktreeError> {
        let record = Record {
            data_directory: self.data_directory.clone(),
            attempt,
            worktree: worktree.clone(),
            head: found.verified.head.clone(),
            branch: found.verified.branch.clone(),
            snapshot,
            ignored: request.ignored.clone(),
            fate: request.branch,
            own_name: own.as_ref().map(|own| own.name.clone()),
            own_branch: own.map(|own| own.oid),
            discard: request.unsavable == Unsavable::Discard,
            boot: boot(),
            listing: Vec::new(),
            admin: Vec::new(),
        }
        .listed(directory, admin);
        let at = |error| failed("save", &places.saved, error);
        let folder = places.path.parent().unwrap_or(&self.root);
        if !exists(folder)? {
            // It went with the last of its neighbours.
            DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(at)?;
            sync_parent(folder).map_err(at)?;
        }
        record.write(&places.saved).map_err(at)?;
        Ok(record.saved())
    }
}

/// Lists a private git directory, but for the note that goes by itself.
pub(super) fn list(admin: &Path) -> Result<Listing, VcsWorktreeError> {
    let listed = tree::list(admin).map_err(|error| failed("look", admin, error))?;
    let mut listed = listed.ok_or_else(|| mismatch(admin, "it is gone"))?;
    listed.entries.retain(|name, _| !settle::is_note(name));
    Ok(listed)
}

fn refuse_unfinished(
    found: &Found,
    places: &Places,
    request: &SaveRequest,
) -> Result<(), VcsWorktreeError> {
    match request.unfinished {
        Unfinished::Refuse => Inner::refuse_unfinished(&places.path, &found.admin),
        Unfinished::Save => Ok(()),
    }
}

/// Makes the trees of an index, for a shell: a new index remembers none that it takes to be there.
const MAKE_AGAIN: &str = "git ls-files -s | (export GIT_INDEX_FILE=$(mktemp -u); git update-index --index-info && git \
                          write-tree)";

/// Refuses where the repository has lost a directory of HEAD: what is in it could be kept, and not be made again.
fn refuse_lost(
    scan: &Scan,
    places: &Places,
    request: &SaveRequest,
) -> Result<(), VcsWorktreeError> {
    match &scan.lost {
        Some(lost) if request.unsavable == Unsavable::Refuse => {
            let name = if lost.as_os_str().is_empty() { Path::new(".") } else { lost };
            let entry = format!(
                "{} (the repository has lost this directory of HEAD; in the worktree this may make it again: \
                 {MAKE_AGAIN})",
                name.display()
            );
            Err(VcsWorktreeError::Unsavable { path: locator(&places.path), entries: vec![entry] })
        }
        Some(_) | None => Ok(()),
    }
}

/// Refuses what could be saved, and not be removed afterwards by anybody.
fn refuse_fixed(
    scan: &Scan,
    places: &Places,
    request: &SaveRequest,
) -> Result<(), VcsWorktreeError> {
    if scan.fixed.is_empty() || request.unsavable == Unsavable::Discard {
        return Ok(());
    }
    let named = scan.fixed.iter().take(NAMED).map(|(path, fixed)| {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        format!("{} ({})", path.display(), fixed.why())
    });
    Err(VcsWorktreeError::Unsavable { path: locator(&places.path), entries: named.collect() })
}

/// Refuses while somebody works in it: what he writes later would be lost, and he cannot know.
pub(super) fn refuse_occupied(places: &Places, at: &Path) -> Result<(), VcsWorktreeError> {
    refuse_occupants(places, &occupants(at))
}

fn refuse_occupants(places: &Places, occupants: &[String]) -> Result<(), VcsWorktreeError> {
    if occupants.is_empty() {
        return Ok(());
    }
    let (path, detail) = (locator(&places.path), occupants.join(", "));
    Err(VcsWorktreeError::Occupied { path, detail })
}

/// Refuses a worktree that is registered elsewhere, if something is there.
pub(super) fn refuse_moved(admin: &Path, places: &Places) -> Result<(), VcsWorktreeError> {
    match link_of(admin)? {
        Some(link) if link != places.path && link != places.aside && exists(&link)? => {
            let detail = format!(
                "it was moved to {}: move it back, for example with `git worktree move`",
                link.display()
            );
            Err(mismatch(&places.path, detail))
        }
        _ => Ok(()),
    }
}
