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
use super::{Checkout, Marker, World, compare, mismatch};

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
    pub(super) repository: Locator,
    /// What was asked and answered, and the directory as it was then.
    saved: Option<(SaveRequest, Saved, Option<Checkout>)>,
}

/// What a removal had to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leftover {
    pub(super) marker: Marker,
    pub(super) files: Files,
}

impl World {
    /// Takes a worktree out of the way, whether or not its directory is there.
    pub(super) fn take_aside(&mut self, path: &Locator) {
        let checkout = self.checkouts.remove(path);
        let registered =
            self.repositories.iter().find(|(_, repo)| repo.checkouts.contains_key(path));
        let repository = registered.map(|(common, _)| common.clone());
        let repository = repository.expect("a registered worktree");
        self.asides.insert(path.clone(), Aside { checkout, repository, saved: None });
    }

    /// Whose a worktree aside is.
    pub(super) fn marker_aside(&self, path: &Locator) -> Option<&Marker> {
        let repository = self.repositories.get(&self.asides.get(path)?.repository)?;
        repository.checkouts.get(path)?.marker()
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
        let (asked, saved, _) = self.asides.get(path)?.saved.as_ref()?;
        (self.marker_aside(path) == Some(marker) && asked == request).then(|| saved.clone())
    }

    /// Saves a verified worktree, or what is registered of one whose directory is gone.
    pub(super) fn save(
        &mut self,
        marker: Marker,
        worktree: &Worktree,
        request: &SaveRequest,
    ) -> Result<Saved, VcsWorktreeError> {
        self.refuse(worktree, request)?;
        let archive = self.archive(&marker, worktree, request)?;
        let (head, branch) = (archive.snapshot.head.clone(), archive.snapshot.branch.clone());
        let holds_something = !archive.changed.is_empty()
            || !archive.deleted.is_empty()
            || !archive.staged.is_empty()
            || archive.merging.is_some()
            || !archive.commits.is_empty()
            || archive.snapshot.left_out_bytes > 0;
        let snapshot = holds_something.then(|| archive.snapshot.clone());
        if holds_something {
            let key = (marker.0, marker.1, request.number);
            let others =
                self.snapshots.iter().filter(|(other, _)| other.0 == key.0 && **other != key);
            let used: u64 = others.map(|(_, archive)| archive.snapshot.archive_bytes).sum();
            let (used, limit) = (used + archive.snapshot.archive_bytes, self.snapshot_quota_bytes);
            if used > limit {
                return Err(VcsWorktreeError::Quota { used, limit });
            }
            self.snapshots.insert(key, archive);
        }
        let saved = Saved { head, branch, snapshot };
        if request.from == SaveFrom::Aside {
            let seen = self.checkouts.get(&worktree.path).cloned();
            self.take_aside(&worktree.path);
            if let Some(aside) = self.asides.get_mut(&worktree.path) {
                aside.saved = Some((request.clone(), saved.clone(), seen));
            }
        }
        Ok(saved)
    }

    /// Refuses what is not at rest or cannot be saved.
    fn refuse(&self, worktree: &Worktree, request: &SaveRequest) -> Result<(), VcsWorktreeError> {
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
        if let Some(checkout) = self.checkouts.get(path) {
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

    /// Removes what was saved from aside; says whether there was such a thing.
    pub(super) fn remove_aside(
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
        let Some((request, saved, seen)) = aside.saved.clone() else {
            return Err(unsaved("its save was not completed"));
        };
        let files = aside.checkout.as_ref().map(|checkout| checkout.files.clone());
        if removal == Removal::WorktreeAndBranch {
            if request.branch != BranchFate::Goes {
                return Err(unsaved("the commits of its branch were not saved"));
            }
            let repository = self.repositories.get_mut(&worktree.repo);
            if let (Some(repository), Some(branch)) = (repository, &saved.branch)
                && repository.branches.get(branch) == Some(&saved.head)
            {
                repository.branches.remove(branch);
            }
        }
        let seen = seen.map(|checkout| checkout.files).unwrap_or_default();
        let mut left = files.unwrap_or_default();
        left.retain(|name, file| seen.get(name) != Some(file));
        if !left.is_empty() {
            let leftover = Leftover { marker: marker.clone(), files: left };
            self.leftovers.insert(path.clone(), leftover);
        }
        self.asides.remove(path);
        if let Some(repository) = self.repositories.get_mut(&worktree.repo) {
            repository.checkouts.remove(path);
        }
        Ok(true)
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
