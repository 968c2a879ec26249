//! [`MemoryWorktrees`]: the port [`VcsWorktree`] in memory, with the user whose repositories they are.
//!
//! It keeps whole trees of small files, an index as what differs from HEAD, and ignores files by plain names. Every
//! operation is done at once; what a crash leaves in the middle of one is made by the user's actions. Where git would do
//! something that is not modelled, they panic rather than guess.

mod compare;
mod git_steps;
mod history;
mod in_world;
mod making;
mod merging;
mod restore;
mod save;
mod steps;
mod survey;
mod user;

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use windlass_core::id::AttemptId;
use windlass_core::locator::Locator;
use windlass_core::time::Timestamp;
use windlass_core::vcs_worktree::{
    CreateMode, Creation, Diff, DiffDetail, Found, GitWork, Origin, Planned, Removal, SaveFrom,
    SaveRequest, Saved, StepPlan, VcsWorktree, VcsWorktreeError, Verified, WorktreeRequest,
    WorktreeStatus,
};
use windlass_core::workspace::{CopyIn, Oid, Worktree};

use history::{File, Files, Head, Repository};
use in_world::DiskGuard;
pub(crate) use in_world::is_step;
use making::HalfMade;
use save::{Archive, ArchiveKey, Aside, Leftover};
pub use steps::WorktreeStep;
pub use user::MemoryRepositories;

use crate::diff_watch::Followed;
use crate::world::{Happened, World};

/// The program of the steps that [`MemoryRepositories::perform`] understands.
const STEP: &str = "memory-git-commit";

/// How many bytes the snapshots of one data directory may take, unless a test says otherwise.
const SNAPSHOT_QUOTA_BYTES: u64 = 10 << 30;

/// All repositories, checkouts and other directories: a value to clone, compare and look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    /// By common git directory.
    repositories: BTreeMap<Locator, Repository>,
    /// Checkouts and worktrees, by directory.
    checkouts: BTreeMap<Locator, Checkout>,
    /// Worktrees whose files are for a step.
    half_made: BTreeMap<Locator, HalfMade>,
    /// Directories in no repository.
    plain: BTreeMap<Locator, Files>,
    /// Worktrees whose files are not on the disk before some time, and those of which it is not known whether they are.
    unsettled: BTreeMap<Locator, Timestamp>,
    doubtful: BTreeSet<Locator>,
    /// Worktrees in which a lock of git was left, and whether somebody still holds it.
    git_locks: BTreeMap<Locator, bool>,
    /// Worktrees that were taken out of the way, by the directory that they were in.
    asides: BTreeMap<Locator, Aside>,
    /// What removals had to leave, by the directory that it was in.
    leftovers: BTreeMap<Locator, Leftover>,
    /// Saved work.
    snapshots: BTreeMap<ArchiveKey, Archive>,
    /// What was in worktrees when they were last looked at to be saved where they are.
    saved_here: BTreeMap<Locator, Files>,
    /// Directories that a process works in.
    occupied: BTreeSet<Locator>,
    snapshot_quota_bytes: u64,
    made: u32,
    /// How many times somebody began to follow a diff.
    followed: u64,
    /// What happened to directories and files, until the world is told.
    happened: Vec<Happened>,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            repositories: BTreeMap::new(),
            checkouts: BTreeMap::new(),
            half_made: BTreeMap::new(),
            plain: BTreeMap::new(),
            unsettled: BTreeMap::new(),
            doubtful: BTreeSet::new(),
            git_locks: BTreeMap::new(),
            asides: BTreeMap::new(),
            leftovers: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            saved_here: BTreeMap::new(),
            occupied: BTreeSet::new(),
            snapshot_quota_bytes: SNAPSHOT_QUOTA_BYTES,
            made: 0,
            followed: 0,
            happened: Vec::new(),
        }
    }
}

/// A directory with files of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Checkout {
    repository: Locator,
    files: Files,
    /// What is no file, link or directory.
    special: BTreeSet<String>,
    /// What was copied in, as it was then.
    copied: Files,
}

impl Checkout {
    fn new(repository: Locator, files: Files) -> Self {
        Self { repository, files, special: BTreeSet::new(), copied: Files::new() }
    }
}

/// Whose a worktree is.
type Marker = (String, AttemptId);

/// What a repository knows of one of its checkouts; it outlives the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Registration {
    head: Head,
    /// Every commit that HEAD has named.
    been: BTreeSet<Oid>,
    /// What the index holds otherwise than HEAD; `None` is a deletion.
    staged: BTreeMap<String, Option<File>>,
    /// The branch whose merge has begun and not ended.
    merging: Option<String>,
    locked: bool,
    /// Whose it is, and what it was made as, if it is one of ours.
    ours: Option<(Marker, Worktree)>,
}

impl Registration {
    fn new(head: Head, been: BTreeSet<Oid>) -> Self {
        let (staged, merging, locked, ours) = (BTreeMap::new(), None, false, None);
        Self { head, been, staged, merging, locked, ours }
    }

    fn marker(&self) -> Option<&Marker> {
        self.ours.as_ref().map(|(marker, _)| marker)
    }
}

/// Worktrees of repositories in memory.
///
/// Several may share [`MemoryRepositories`]: of the same data directory they are restarts, of another they are strangers.
#[derive(Debug)]
pub struct MemoryWorktrees {
    repositories: MemoryRepositories,
    data_directory: String,
    followed: Followed,
}

impl MemoryWorktrees {
    /// Opens the worktrees of a data directory, named by any string without a slash.
    #[must_use]
    pub fn open(repositories: &MemoryRepositories, data_directory: &str) -> Self {
        let repositories = repositories.clone();
        let data_directory = data_directory.to_owned();
        Self { repositories, data_directory, followed: Followed::default() }
    }

    /// Another handle to the same.
    pub(crate) fn again(&self) -> Self {
        let Self { repositories, data_directory, followed } = self;
        let (repositories, followed) = (repositories.clone(), followed.clone());
        Self { repositories, data_directory: data_directory.clone(), followed }
    }

    pub(crate) fn followed(&self) -> &Followed {
        &self.followed
    }

    pub(crate) fn shared_world(&self) -> &World {
        self.repositories.shared()
    }

    /// Returns a number of a generation that is larger than any that was given before with those that came after it.
    pub(crate) fn first_generation(&self) -> u64 {
        let mut world = self.world();
        world.followed += 1;
        world.followed << 32
    }

    /// Compares a worktree with its base, with the patch; returns its branch, too.
    pub(crate) fn diff_now(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<(Diff, Option<String>), VcsWorktreeError> {
        let world = self.world();
        let branch = self.verified(&world, attempt, worktree)?.branch;
        Ok((self.compare(&world, attempt, worktree, DiffDetail::Patch)?, branch))
    }

    fn compare(
        &self,
        world: &Disk,
        attempt: AttemptId,
        worktree: &Worktree,
        detail: DiffDetail,
    ) -> Result<Diff, VcsWorktreeError> {
        let Verified { head, .. } = self.verified(world, attempt, worktree)?;
        let Compared { repository, index, files, .. } = world.compared(worktree)?;
        let base = repository
            .merge_base(&repository.goal(worktree), &head)
            .unwrap_or_else(|| worktree.base_oid.clone());
        let old = repository.commits.get(&base).map(|commit| commit.files.clone());
        let old = old.unwrap_or_default();
        let patch = match detail {
            DiffDetail::Files => None,
            DiffDetail::Patch => Some(compare::patch(&old, &index, files)),
        };
        Ok(Diff { base, head, files: compare::files(&old, &index, files), patch })
    }

    fn world(&self) -> DiskGuard<'_> {
        self.repositories.world()
    }

    /// The marker of an attempt's worktree.
    fn marker(&self, attempt: AttemptId) -> Marker {
        (self.data_directory.clone(), attempt)
    }

    fn root(&self) -> String {
        format!("/data/{}/worktrees/", self.data_directory)
    }

    fn inside(&self, worktree: &Worktree) -> Result<(), VcsWorktreeError> {
        if worktree.path.as_bytes().starts_with(self.root().as_bytes()) {
            Ok(())
        } else {
            Err(mismatch(&worktree.path, "it is not inside the root"))
        }
    }

    /// Finds a worktree and checks whose it is.
    fn verified(
        &self,
        world: &Disk,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<Verified, VcsWorktreeError> {
        let path = &worktree.path;
        self.inside(worktree)?;
        if world.plain.contains_key(path) {
            return Err(mismatch(path, "it is no worktree"));
        }
        let Some(checkout) = world.checkouts.get(path) else {
            return Err(VcsWorktreeError::Gone { path: path.clone() });
        };
        let repository = world.repositories.get(&worktree.repo);
        let Some(repository) = repository.filter(|_| checkout.repository == worktree.repo) else {
            return Err(mismatch(path, "it belongs to another repository"));
        };
        let Some(registration) = repository.checkouts.get(path) else {
            return Err(mismatch(path, "it is not registered"));
        };
        if registration.marker() != Some(&self.marker(attempt)) {
            return Err(mismatch(path, "it carries another marker"));
        }
        if world.half_made.contains_key(path) {
            return Err(mismatch(path, "its creation was not completed"));
        }
        if world.doubtful.contains(path) {
            return Err(mismatch(path, "the machine went down before its files were on the disk"));
        }
        let Some(head) = repository.oid(&registration.head) else {
            return Err(mismatch(path, "its HEAD names no commit"));
        };
        Ok(Verified { head, branch: registration.head.branch().map(str::to_owned) })
    }

    fn branch_name(&self, repository: &Repository, request: &WorktreeRequest) -> String {
        let slug = slug(&request.title);
        let id = request.attempt.0.simple().to_string();
        let named = |id: &str| {
            let name = if slug.is_empty() { id.to_owned() } else { format!("{id}-{slug}") };
            format!("windlass/{name}")
        };
        let short = named(&id[24..]);
        if repository.branches.contains_key(&short) { named(&id) } else { short }
    }
}

impl MemoryWorktrees {
    /// Goes on with a deletion that has begun, wherever it was given up.
    async fn go_on_removing(
        &self,
        marker: &Marker,
        worktree: &Worktree,
        removal: Removal,
    ) -> Result<(), VcsWorktreeError> {
        self.came_to(WorktreeStep::Deleting).await;
        self.world().unregister_aside(worktree);
        self.came_to(WorktreeStep::Unregistered).await;
        if removal == Removal::WorktreeAndBranch {
            self.world().delete_own_branch(worktree);
        }
        self.world().trash(marker, worktree);
        self.came_to(WorktreeStep::Trashed).await;
        Ok(())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl VcsWorktree for MemoryWorktrees {
    async fn plan(&self, request: WorktreeRequest) -> Result<Planned, VcsWorktreeError> {
        let world = self.world();
        let dir = &request.repo;
        let common = world.checkouts.get(dir).map_or(dir, |checkout| &checkout.repository);
        let Some(repository) = world.repositories.get(common) else {
            return Err(VcsWorktreeError::NotARepository { path: dir.clone() });
        };
        let head = repository.checkouts.get(dir).or_else(|| repository.main());
        let head = head.map(|registration| &registration.head);
        if repository.commits.is_empty() {
            return Err(VcsWorktreeError::Empty { repo: dir.clone() });
        }
        let named = request.base.as_deref().unwrap_or("HEAD");
        let Some((base_oid, target)) = repository.resolve(named, head) else {
            return Err(VcsWorktreeError::UnknownBase { base: named.to_owned() });
        };
        let base = request.base.clone().or_else(|| target.clone());
        let branch = match &request.branch {
            Some(branch) => branch.clone(),
            None => self.branch_name(repository, &request),
        };
        repository.free(&branch)?;
        let name = branch.replace('/', "-");
        let path = Locator::new(format!("{}{common}/{name}-{}", self.root(), request.attempt));
        let source_is_dirty = world.checkouts.get(dir).is_some_and(|checkout| {
            let committed = head.and_then(|head| repository.files(head)).unwrap_or_default();
            let index = repository.index(dir).unwrap_or_default();
            !compare::same(&committed, &index, &checkout.files)
        });
        let from = world.checkouts.contains_key(dir).then(|| dir.clone());
        let copy = from.filter(|_| !request.copy.is_empty());
        let copy = copy.map(|from| CopyIn { from, globs: request.copy.clone() });
        let unmatched = copy.as_ref().map(|copy| world.unmatched(copy)).unwrap_or_default();
        let worktree = Worktree {
            repo: common.clone(),
            path,
            branch,
            base: base.unwrap_or_else(|| named.to_owned()),
            base_oid,
            target,
            copy,
        };
        Ok(Planned { worktree, source_is_dirty, unmatched })
    }

    async fn create(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        origin: &Origin,
        mode: CreateMode,
    ) -> Result<Creation, VcsWorktreeError> {
        self.inside(worktree)?;
        let marker = self.marker(attempt);
        let lock = self.lock(&worktree.repo).await;
        let note = self.hold_note(&worktree.path, &worktree.repo)?;
        if self.world().is_being_deleted(&worktree.path, &marker) {
            // What was begun is ended before anything is made in its place.
            self.go_on_removing(&marker, worktree, Removal::Worktree).await?;
        }
        {
            let mut world = self.world();
            world.put_back(&worktree.path, &marker)?;
            world.mend(&worktree.path);
            if world.conclude(&marker, worktree)? {
                return self.verified(&world, attempt, worktree).map(Creation::Done);
            }
            match (self.verified(&world, attempt, worktree), mode) {
                (Err(VcsWorktreeError::Gone { .. }), CreateMode::Begin) => {}
                (Err(VcsWorktreeError::Gone { path }), CreateMode::Conclude) => {
                    return Err(VcsWorktreeError::Incomplete { path });
                }
                (other, CreateMode::Begin | CreateMode::Conclude) => {
                    return other.map(Creation::Done);
                }
            }
            if let Some(step) = world.ask_for_step(&marker, worktree, origin)? {
                return Ok(Creation::Run(step));
            }
            world.note_creation(&marker, worktree, origin);
        }
        self.came_to(WorktreeStep::Noted).await;
        let made = self.world().register(marker, worktree, origin);
        let whole = made.inspect_err(|_| self.world().forget_note(&worktree.path))?;
        self.came_to(WorktreeStep::Registered).await;
        // What follows touches nothing that others share.
        drop(lock);
        self.world().check_out_files(&worktree.path, whole);
        self.came_to(WorktreeStep::CheckedOut).await;
        self.world().mark_whole(&worktree.path);
        self.came_to(WorktreeStep::Marked).await;
        let settled_at = self.repositories.settled_at();
        self.world().creation_ended(&worktree.path, settled_at);
        drop(note);
        self.verified(&self.world(), attempt, worktree).map(Creation::Done)
    }

    async fn verify(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<Verified, VcsWorktreeError> {
        self.verified(&self.world(), attempt, worktree)
    }

    async fn status(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<WorktreeStatus, VcsWorktreeError> {
        let world = self.world();
        let Verified { head, branch } = self.verified(&world, attempt, worktree)?;
        let Compared { repository, committed, index, files } = world.compared(worktree)?;
        let goal = repository.goal(worktree);
        let dirty = !compare::same(&committed, &index, files);
        let ahead = repository.count(&head, &worktree.base_oid);
        let behind = repository.count(&goal, &head);
        Ok(WorktreeStatus { head, branch, dirty, ahead, behind })
    }

    async fn diff(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        detail: DiffDetail,
    ) -> Result<Diff, VcsWorktreeError> {
        self.compare(&self.world(), attempt, worktree, detail)
    }

    async fn plan_step(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        work: &GitWork,
    ) -> Result<StepPlan, VcsWorktreeError> {
        let world = self.world();
        let verified = self.verified(&world, attempt, worktree)?;
        match work {
            GitWork::Commit { message, fallback } => {
                world.plan_commit(worktree, verified, message, fallback)
            }
            GitWork::Reset { to } => world.plan_reset(worktree, verified, to),
        }
    }

    async fn save(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        request: &SaveRequest,
    ) -> Result<Saved, VcsWorktreeError> {
        self.inside(worktree)?;
        let marker = self.marker(attempt);
        let _lock = self.lock(&worktree.repo).await;
        let _note = self.hold_note(&worktree.path, &worktree.repo)?;
        {
            let mut world = self.world();
            if let Some(saved) = world.saved_before(&worktree.path, &marker, request) {
                return Ok(saved);
            }
            world.put_back(&worktree.path, &marker)?;
            if world.abandon(&marker, worktree) {
                return Err(VcsWorktreeError::Gone { path: worktree.path.clone() });
            }
            match self.verified(&world, attempt, worktree) {
                Ok(_) => {}
                // What its registration knows may exist nowhere else.
                Err(VcsWorktreeError::Gone { .. }) if world.is_registered(worktree, &marker) => {}
                Err(error) => return Err(error),
            }
            world.refuse(worktree, request)?;
            if request.from == SaveFrom::Aside && world.is_worked_in(&worktree.path) {
                let (path, detail) = (worktree.path.clone(), "a process works in it".to_owned());
                return Err(VcsWorktreeError::Occupied { path, detail });
            }
            if request.from == SaveFrom::Aside {
                world.take_aside(&worktree.path);
            } else {
                world.note_saved_here(&worktree.path);
            }
        }
        if request.from == SaveFrom::Aside {
            self.came_to(WorktreeStep::TakenAside).await;
        }
        let written = self.world().write_snapshot(&marker, worktree, request);
        let saved = match written {
            Ok(saved) => saved,
            Err(error) => {
                // As it was, so that it can be tried again.
                self.world().put_back(&worktree.path, &marker)?;
                return Err(error);
            }
        };
        self.came_to(WorktreeStep::Archived).await;
        if request.from == SaveFrom::Aside {
            self.world().record_save(&worktree.path, request, &saved);
            self.came_to(WorktreeStep::Recorded).await;
        }
        Ok(saved)
    }

    async fn remove(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        removal: Removal,
    ) -> Result<(), VcsWorktreeError> {
        self.inside(worktree)?;
        let marker = self.marker(attempt);
        if let Removal::Snapshot(number) = removal {
            self.world().snapshots.remove(&(marker.0, marker.1, number));
            return Ok(());
        }
        let _lock = self.lock(&worktree.repo).await;
        let _note = self.hold_note(&worktree.path, &worktree.repo)?;
        if self.world().begin_deletion(&marker, worktree, removal)? {
            return self.go_on_removing(&marker, worktree, removal).await;
        }
        let mut world = self.world();
        if world.abandon(&marker, worktree) {
            return Ok(());
        }
        match self.verified(&world, attempt, worktree) {
            Err(VcsWorktreeError::Gone { .. }) if !world.is_registered(worktree, &marker) => Ok(()),
            Ok(_) | Err(VcsWorktreeError::Gone { .. }) => {
                let (path, detail) = (worktree.path.clone(), "it was not saved".to_owned());
                Err(VcsWorktreeError::Unsaved { path, detail })
            }
            Err(error) => Err(error),
        }
    }

    async fn survey(&self, repos: &[Locator]) -> Result<Vec<Found>, VcsWorktreeError> {
        Ok(self.world().survey(&self.root(), &self.data_directory, repos))
    }
}

/// A verified worktree's repository, what HEAD and its index hold, and what its directory holds.
struct Compared<'a> {
    repository: &'a Repository,
    committed: Files,
    index: Files,
    files: &'a Files,
}

impl Disk {
    fn compared(&self, worktree: &Worktree) -> Result<Compared<'_>, VcsWorktreeError> {
        let gone = || VcsWorktreeError::Gone { path: worktree.path.clone() };
        let repository = self.repositories.get(&worktree.repo).ok_or_else(gone)?;
        let checkout = self.checkouts.get(&worktree.path).ok_or_else(gone)?;
        let committed = repository.checked_out(&worktree.path).ok_or_else(gone)?;
        let index = repository.index(&worktree.path).ok_or_else(gone)?;
        Ok(Compared { repository, committed, index, files: &checkout.files })
    }

    /// Says whether a repository knows a worktree of this marker, whether or not its directory is there.
    fn is_registered(&self, worktree: &Worktree, marker: &Marker) -> bool {
        let repository = self.repositories.get(&worktree.repo);
        let registration = repository.and_then(|repo| repo.checkouts.get(&worktree.path));
        registration.is_some_and(|registration| registration.marker() == Some(marker))
    }
}

fn mismatch(path: &Locator, detail: &str) -> VcsWorktreeError {
    VcsWorktreeError::Mismatch { path: path.clone(), detail: detail.to_owned() }
}

fn slug(title: &str) -> String {
    let lower = title.chars().flat_map(char::to_lowercase);
    let spaced: String =
        lower.map(|char| if char.is_alphanumeric() { char } else { ' ' }).collect();
    let words: Vec<_> = spaced.split_whitespace().collect();
    words.join("-").chars().take(40).collect()
}
