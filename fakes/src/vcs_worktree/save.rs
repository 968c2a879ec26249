//! Saving and removing worktrees.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;
use windlass_core::id::AttemptId;
use windlass_core::locator::Locator;
use windlass_core::snapshot::{LeftOut, LeftOutReason, Snapshot, SnapshotNumber};
use windlass_core::vcs_worktree::{
    BranchFate, Ignored, Removal, SaveFrom, SaveRequest, Saved, Unfinished, Unsavable,
    VcsWorktreeError,
};
use windlass_core::workspace::{Oid, Worktree};

use super::history::{File, Files};
use super::{Checkout, Disk, Marker, compare, mismatch};
use crate::world::Happened;

/// How many entries an error or a snapshot names.
const NAMED: usize = 16;

/// Names a snapshot: data directory, attempt, number.
pub(super) type ArchiveKey = (String, AttemptId, SnapshotNumber);

/// Saved work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Archive {
    pub(super) snapshot: Snapshot,
    pub(super) changed: Files,
    pub(super) deleted: BTreeSet<String>,
    pub(super) staged: BTreeMap<String, Option<File>>,
    pub(super) merging: Option<String>,
    pub(super) been: BTreeSet<Oid>,
    /// The commits that it holds itself.
    pub(super) commits: BTreeSet<Oid>,
    pub(super) damaged: bool,
}

/// A worktree that was taken out of the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Aside {
    /// The directory; `None` if it was gone.
    pub(super) checkout: Option<Checkout>,
    /// Whose it is, and what it was made as.
    pub(super) ours: Option<(Marker, Worktree)>,
    /// Its deletion has begun and will be ended.
    deleting: bool,
    /// The directory as it was when its snapshot was written, until that is recorded.
    seen: Option<Checkout>,
    /// What was asked and answered, and the directory as it was then.
    saved: Option<(SaveRequest, Saved, Option<Checkout>)>,
}

/// What a removal had to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leftover {
    pub(super) marker: Marker,
    pub(super) files: Files,
}

impl Disk {
    /// Takes a worktree out of the way, whether or not its directory is there.
    pub(super) fn take_aside(&mut self, path: &Locator) {
        let checkout = self.checkouts.remove(path);
        let mut registrations =
            self.repositories.values().filter_map(|repo| repo.checkouts.get(path));
        let registration = registrations.next().expect("a registered worktree");
        let ours = registration.ours.clone();
        if checkout.is_some() {
            let to = Locator::new([path.as_bytes(), b".removing"].concat());
            self.happened.push(Happened::DirectoryRenamed { from: path.clone(), to });
        }
        let (deleting, seen, saved) = (false, None, None);
        self.asides.insert(path.clone(), Aside { checkout, ours, deleting, seen, saved });
    }

    /// Whose a worktree aside is.
    pub(super) fn marker_aside(&self, path: &Locator) -> Option<&Marker> {
        self.asides.get(path)?.ours.as_ref().map(|(marker, _)| marker)
    }

    /// Says whether the deletion of a worktree of this marker has begun.
    pub(super) fn is_being_deleted(&self, path: &Locator, marker: &Marker) -> bool {
        let deleting = self.asides.get(path).is_some_and(|aside| aside.deleting);
        deleting && self.marker_aside(path) == Some(marker)
    }

    /// Puts a worktree of this marker that is aside where it was; what stands in its place now is not touched.
    pub(super) fn put_back(
        &mut self,
        path: &Locator,
        marker: &Marker,
    ) -> Result<(), VcsWorktreeError> {
        if self.marker_aside(path) != Some(marker) {
            return Ok(());
        }
        if self.plain.contains_key(path) || self.checkouts.contains_key(path) {
            return Err(mismatch(path, "something stands in its place"));
        }
        if let Some(checkout) = self.asides.remove(path).and_then(|aside| aside.checkout) {
            self.checkouts.insert(path.clone(), checkout);
            let from = Locator::new([path.as_bytes(), b".removing"].concat());
            self.happened.push(Happened::DirectoryRenamed { from, to: path.clone() });
        }
        Ok(())
    }

    /// What the same request was answered before, if the worktree is still aside.
    pub(super) fn saved_before(
        &self,
        path: &Locator,
        marker: &Marker,
        request: &SaveRequest,
    ) -> Option<Saved> {
        let aside = self.asides.get(path)?;
        let (asked, saved, _) = aside.saved.as_ref()?;
        let answers = asked == request || aside.deleting;
        (self.marker_aside(path) == Some(marker) && answers).then(|| saved.clone())
    }

    /// Writes the snapshot of a worktree that is at its place or aside, if there is anything to keep.
    pub(super) fn write_snapshot(
        &mut self,
        marker: &Marker,
        worktree: &Worktree,
        request: &SaveRequest,
    ) -> Result<Saved, VcsWorktreeError> {
        let archive = self.archive(marker, worktree, request)?;
        let (head, branch) = (archive.snapshot.head.clone(), archive.snapshot.branch.clone());
        let holds_something = !archive.changed.is_empty()
            || !archive.deleted.is_empty()
            || !archive.staged.is_empty()
            || archive.merging.is_some()
            || !archive.commits.is_empty()
            || archive.snapshot.left_out_bytes > 0;
        let snapshot = holds_something.then(|| archive.snapshot.clone());
        if holds_something {
            let key = (marker.0.clone(), marker.1, request.number);
            let others =
                self.snapshots.iter().filter(|(other, _)| other.0 == key.0 && **other != key);
            let used: u64 = others.map(|(_, archive)| archive.snapshot.archive_bytes).sum();
            let (used, limit) = (used + archive.snapshot.archive_bytes, self.snapshot_quota_bytes);
            if used > limit {
                return Err(VcsWorktreeError::Quota { used, limit });
            }
            self.snapshots.insert(key, archive);
        }
        // What changes from here on is not in it, and is seen by that when it is removed.
        if let Some(aside) = self.asides.get_mut(&worktree.path) {
            aside.seen.clone_from(&aside.checkout);
        }
        Ok(Saved { head, branch, snapshot })
    }

    /// Records what was saved of a worktree aside; from then on it can be removed.
    pub(super) fn record_save(&mut self, path: &Locator, request: &SaveRequest, saved: &Saved) {
        if let Some(aside) = self.asides.get_mut(path) {
            let seen = aside.seen.take();
            aside.saved = Some((request.clone(), saved.clone(), seen));
        }
    }

    /// Refuses what is not at rest or cannot be saved.
    pub(super) fn refuse(
        &self,
        worktree: &Worktree,
        request: &SaveRequest,
    ) -> Result<(), VcsWorktreeError> {
        let path = worktree.path.clone();
        let repository = self.repositories.get(&worktree.repo);
        let registration = repository.and_then(|repo| repo.checkouts.get(&path));
        if let (Some(registration), Unfinished::Refuse) = (registration, request.unfinished) {
            let detail = match &registration.merging {
                Some(branch) => Some(format!("a merge of {branch:?} is in progress")),
                None => registration.locked.then(|| "it is locked".to_owned()),
            };
            if let Some(detail) = detail {
                return Err(VcsWorktreeError::Unfinished { path, detail });
            }
        }
        if request.from == SaveFrom::Aside && self.occupied.contains(&path) {
            let detail = "a process works in it".to_owned();
            return Err(VcsWorktreeError::Occupied { path, detail });
        }
        let special = self.checkouts.get(&path).map(|checkout| &checkout.special);
        if let (Some(special), Unsavable::Refuse) = (special, request.unsavable)
            && !special.is_empty()
        {
            let named = special.iter().take(NAMED);
            let entries = named.map(|path| format!("{path}: a special file")).collect();
            return Err(VcsWorktreeError::Unsavable { path, entries });
        }
        Ok(())
    }

    /// Collects whatever exists nowhere else.
    fn archive(
        &self,
        marker: &Marker,
        worktree: &Worktree,
        request: &SaveRequest,
    ) -> Result<Archive, VcsWorktreeError> {
        let path = &worktree.path;
        let gone = || VcsWorktreeError::Gone { path: path.clone() };
        let repository = self.repositories.get(&worktree.repo).ok_or_else(gone)?;
        let registration = repository.checkouts.get(path).ok_or_else(gone)?;
        // Only of one whose directory is gone can the branch be gone, too.
        let head = repository.oid(&registration.head).unwrap_or_else(|| worktree.base_oid.clone());
        let committed = repository.checked_out(path).unwrap_or_default();
        let index = repository.index(path).unwrap_or_default();
        let (mut changed, mut deleted, mut left_out) = (Files::new(), BTreeSet::new(), Vec::new());
        let aside = self.asides.get(path).and_then(|aside| aside.checkout.as_ref());
        if let Some(checkout) = self.checkouts.get(path).or(aside) {
            let mut ignored = Vec::new();
            for name in compare::differing(&committed, &checkout.files) {
                match checkout.files.get(&name) {
                    None => drop(deleted.insert(name)),
                    Some(file) if checkout.copied.get(&name) == Some(file) => {}
                    Some(file) => {
                        let tracked = index.contains_key(&name) || committed.contains_key(&name);
                        if !tracked && compare::ignored(&checkout.files, &name) {
                            ignored.push((name, file));
                        } else {
                            changed.insert(name, file.clone());
                        }
                    }
                }
            }
            left_out = choose(ignored, &request.ignored, &mut changed);
            left_out.extend(checkout.special.iter().map(|name| LeftOut {
                path: Locator::new(name.as_bytes()),
                bytes: 0,
                reason: LeftOutReason::Discarded,
            }));
        }
        let branch = registration.head.branch();
        let goes = branch.filter(|_| request.branch == BranchFate::Goes);
        let commits = repository.unreached(&registration.been, goes);
        let mut archive = Archive {
            snapshot: empty_snapshot(marker, request.number, head, branch),
            changed,
            deleted,
            staged: registration.staged.clone(),
            merging: registration.merging.clone(),
            been: registration.been.clone(),
            commits,
            damaged: false,
        };
        archive.count(left_out);
        Ok(archive)
    }

    /// Notes that what was saved from aside is being deleted; says whether there is such a thing.
    pub(super) fn begin_deletion(
        &mut self,
        marker: &Marker,
        worktree: &Worktree,
        removal: Removal,
    ) -> Result<bool, VcsWorktreeError> {
        let path = &worktree.path;
        let Some(aside) = self.asides.get(path) else { return Ok(false) };
        if self.marker_aside(path) != Some(marker) {
            return Err(mismatch(path, "it carries another marker"));
        }
        let unsaved = |detail: &str| VcsWorktreeError::Unsaved {
            path: path.clone(),
            detail: detail.to_owned(),
        };
        let Some((request, ..)) = &aside.saved else {
            return Err(unsaved("its save was not completed"));
        };
        if removal == Removal::WorktreeAndBranch && request.branch != BranchFate::Goes {
            return Err(unsaved("the commits of its branch were not saved"));
        }
        if let Some(aside) = self.asides.get_mut(path) {
            aside.deleting = true;
        }
        Ok(true)
    }

    /// Lets the repository forget a worktree that is being deleted.
    pub(super) fn unregister_aside(&mut self, worktree: &Worktree) {
        if let Some(repository) = self.repositories.get_mut(&worktree.repo) {
            repository.checkouts.remove(&worktree.path);
        }
    }

    /// Deletes the branch of a worktree that is being deleted, if it is where it was saved.
    pub(super) fn delete_own_branch(&mut self, worktree: &Worktree) {
        let aside = self.asides.get(&worktree.path);
        let Some((_, saved, _)) = aside.and_then(|aside| aside.saved.as_ref()) else { return };
        let repository = self.repositories.get_mut(&worktree.repo);
        if let (Some(repository), Some(branch)) = (repository, &saved.branch)
            && repository.branches.get(branch) == Some(&saved.head)
        {
            repository.branches.remove(branch);
        }
    }

    /// Deletes what is still as it was saved; what changed since is left.
    pub(super) fn trash(&mut self, marker: &Marker, worktree: &Worktree) {
        let path = &worktree.path;
        let Some(aside) = self.asides.remove(path) else { return };
        let seen = aside.saved.and_then(|(_, _, seen)| seen);
        let seen = seen.map(|checkout| checkout.files).unwrap_or_default();
        let mut left = aside.checkout.map(|checkout| checkout.files).unwrap_or_default();
        left.retain(|name, file| seen.get(name) != Some(file));
        if !left.is_empty() {
            let leftover = Leftover { marker: marker.clone(), files: left };
            self.leftovers.insert(path.clone(), leftover);
        }
        let directory = Locator::new([path.as_bytes(), b".removing"].concat());
        self.happened.push(Happened::DirectoryRemoved { directory });
    }
}

impl Archive {
    /// Sums up what it holds.
    fn count(&mut self, mut left_out: Vec<LeftOut>) {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let size = |file: &File| count(file.content.len());
        let snapshot = &mut self.snapshot;
        snapshot.entries = count(self.changed.len());
        snapshot.bytes = self.changed.values().map(size).sum();
        snapshot.deleted = count(self.deleted.len());
        snapshot.commits = count(self.commits.len());
        snapshot.archive_bytes = snapshot.bytes + 512;
        snapshot.left_out_bytes = left_out.iter().map(|left| left.bytes).sum();
        left_out.sort_by_key(|left| std::cmp::Reverse(left.bytes));
        snapshot.more_left_out = count(left_out.len().saturating_sub(NAMED));
        left_out.truncate(NAMED);
        snapshot.left_out = left_out;
        let text = format!("{:?} {:?} {:?}", self.changed, self.deleted, self.staged);
        let digest = Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()).simple().to_string();
        self.snapshot.sha256 = digest.repeat(2);
    }
}

/// Takes the ignored entries that a snapshot is to hold into `changed`; returns the others.
fn choose(mut ignored: Vec<(String, &File)>, which: &Ignored, changed: &mut Files) -> Vec<LeftOut> {
    let size = |file: &File| u64::try_from(file.content.len()).unwrap_or(u64::MAX);
    ignored.sort_by_key(|(name, file)| (size(file), name.clone()));
    let (mut room, mut left_out) = (0_u64, Vec::new());
    for (name, file) in ignored {
        room = room.saturating_add(size(file));
        let takes = match which {
            Ignored::UpTo(bytes) => room <= *bytes,
            Ignored::Globs(globs) => compare::globbed(globs, &name),
        };
        if takes {
            changed.insert(name, file.clone());
        } else {
            let path = Locator::new(name.as_bytes());
            left_out.push(LeftOut { path, bytes: size(file), reason: LeftOutReason::Ignored });
        }
    }
    left_out
}

fn empty_snapshot(
    marker: &Marker,
    number: SnapshotNumber,
    head: Oid,
    branch: Option<&str>,
) -> Snapshot {
    let (data_directory, attempt) = marker;
    Snapshot {
        number,
        head,
        branch: branch.map(str::to_owned),
        entries: 0,
        bytes: 0,
        deleted: 0,
        commits: 0,
        archive: Locator::new(format!(
            "/data/{data_directory}/snapshots/{attempt}/{number}.tar.zst"
        )),
        archive_bytes: 0,
        sha256: String::new(),
        left_out: Vec::new(),
        more_left_out: 0,
        left_out_bytes: 0,
    }
}
