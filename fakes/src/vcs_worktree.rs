//! [`MemoryWorktrees`]: the port [`VcsWorktree`] in memory, with the user whose repositories they are.
//!
//! It keeps whole trees of small files, has no index (what HEAD's commit holds is tracked) and ignores files by plain
//! names. Where git would do something that is not modelled, the user's actions panic rather than guess.

mod compare;
mod history;
mod user;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use windlass_core::id::AttemptId;
use windlass_core::locator::Locator;
use windlass_core::vcs_worktree::{
    CommitPlan, Diff, DiffDetail, GitStep, Identity, Planned, VcsWorktree, VcsWorktreeError,
    Verified, WorktreeRequest, WorktreeStatus,
};
use windlass_core::workspace::{Oid, Worktree};

use history::{Files, Head, Repository};
pub use user::MemoryRepositories;

/// The program of the steps that [`MemoryRepositories::perform`] understands.
const STEP: &str = "memory-git-commit";

/// All repositories, checkouts and other directories.
#[derive(Debug, Default)]
struct World {
    /// By common git directory.
    repositories: BTreeMap<Locator, Repository>,
    /// Checkouts and worktrees, by directory.
    checkouts: BTreeMap<Locator, Checkout>,
    /// Directories in no repository.
    plain: BTreeMap<Locator, Files>,
    made: u32,
}

/// A directory with files of a repository.
#[derive(Debug)]
struct Checkout {
    repository: Locator,
    files: Files,
}

/// What a repository knows of one of its checkouts; it outlives the directory.
#[derive(Debug)]
struct Registration {
    head: Head,
    /// Every commit that HEAD has named.
    been: BTreeSet<Oid>,
    /// Whose it is, if it is one of ours.
    marker: Option<(String, AttemptId)>,
}

/// Worktrees of repositories in memory.
///
/// Several may share [`MemoryRepositories`]: of the same data directory they are restarts, of another they are strangers.
#[derive(Debug)]
pub struct MemoryWorktrees {
    world: Arc<Mutex<World>>,
    data_directory: String,
}

impl MemoryWorktrees {
    /// Opens the worktrees of a data directory, named by any string without a slash.
    #[must_use]
    pub fn open(repositories: &MemoryRepositories, data_directory: &str) -> Self {
        let world = Arc::clone(&repositories.world);
        Self { world, data_directory: data_directory.to_owned() }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
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
        world: &World,
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
        if registration.marker != Some((self.data_directory.clone(), attempt)) {
            return Err(mismatch(path, "it carries another marker"));
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
            let committed = head.and_then(|head| repository.files(head));
            !committed.is_some_and(|committed| compare::same(&committed, &checkout.files))
        });
        let worktree = Worktree {
            repo: common.clone(),
            path,
            branch,
            base: base.unwrap_or_else(|| named.to_owned()),
            base_oid,
            target,
        };
        Ok(Planned { worktree, source_is_dirty })
    }

    async fn create(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<Verified, VcsWorktreeError> {
        let mut world = self.world();
        match self.verified(&world, attempt, worktree) {
            Err(VcsWorktreeError::Gone { .. }) => {}
            other => return other,
        }
        let Some(repository) = world.repositories.get_mut(&worktree.repo) else {
            return Err(VcsWorktreeError::NotARepository { path: worktree.repo.clone() });
        };
        let marker = Some((self.data_directory.clone(), attempt));
        let registered = repository.checkouts.get(&worktree.path);
        // One whose directory was deleted gets it back; its branch is its own.
        if registered.is_none_or(|registration| registration.marker != marker) {
            repository.free(&worktree.branch)?;
            if !repository.commits.contains_key(&worktree.base_oid) {
                return Err(VcsWorktreeError::Git {
                    command: "worktree add".to_owned(),
                    stderr: format!("{} is no commit", worktree.base_oid),
                });
            }
            repository.branches.insert(worktree.branch.clone(), worktree.base_oid.clone());
            let head = Head::Branch(worktree.branch.clone());
            let been = BTreeSet::from([worktree.base_oid.clone()]);
            let registration = Registration { head, been, marker };
            repository.checkouts.insert(worktree.path.clone(), registration);
        }
        let files = repository.checked_out(&worktree.path).unwrap_or_default();
        let checkout = Checkout { repository: worktree.repo.clone(), files };
        world.checkouts.insert(worktree.path.clone(), checkout);
        self.verified(&world, attempt, worktree)
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
        let (repository, committed, files) = world.compared(worktree)?;
        let goal = repository.goal(worktree);
        let dirty = !compare::same(&committed, files);
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
        let world = self.world();
        let Verified { head, .. } = self.verified(&world, attempt, worktree)?;
        let (repository, committed, files) = world.compared(worktree)?;
        let base = repository
            .merge_base(&repository.goal(worktree), &head)
            .unwrap_or_else(|| worktree.base_oid.clone());
        let old = repository.commits.get(&base).map(|commit| commit.files.clone());
        let old = old.unwrap_or_default();
        let patch = match detail {
            DiffDetail::Files => None,
            DiffDetail::Patch => Some(compare::patch(&old, &committed, files)),
        };
        Ok(Diff { base, head, files: compare::files(&old, &committed, files), patch })
    }

    async fn plan_commit(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        message: &str,
        fallback: &Identity,
    ) -> Result<CommitPlan, VcsWorktreeError> {
        let world = self.world();
        let Verified { head, .. } = self.verified(&world, attempt, worktree)?;
        let (repository, committed, files) = world.compared(worktree)?;
        if compare::same(&committed, files) {
            return Ok(CommitPlan::Clean { head });
        }
        let env = match &repository.identity {
            Some(_) => Vec::new(),
            None => vec![
                ("GIT_AUTHOR_NAME".to_owned(), fallback.name.as_str().into()),
                ("GIT_AUTHOR_EMAIL".to_owned(), fallback.email.as_str().into()),
            ],
        };
        Ok(CommitPlan::Run(GitStep {
            argv: vec![STEP.into(), message.into()],
            env,
            cwd: worktree.path.clone(),
            repository_lock: worktree.repo.clone(),
        }))
    }

    async fn remove(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<(), VcsWorktreeError> {
        let mut world = self.world();
        let gone = match self.verified(&world, attempt, worktree) {
            Ok(_) => false,
            Err(VcsWorktreeError::Gone { .. }) => true,
            Err(error) => return Err(error),
        };
        let ours = Some((self.data_directory.clone(), attempt));
        let registered = world.repositories.get(&worktree.repo).and_then(|repository| {
            let registration = repository.checkouts.get(&worktree.path)?;
            (registration.marker == ours).then_some((repository, registration))
        });
        let Some((repository, registration)) = registered else { return Ok(()) };
        let mut unsaved = repository.unreached(&registration.been);
        if !gone {
            let (_, committed, files) = world.compared(worktree)?;
            unsaved.extend(compare::differing(&committed, files));
        }
        if !unsaved.is_empty() {
            let (path, detail) = (worktree.path.clone(), unsaved.join(", "));
            return Err(VcsWorktreeError::Unsaved { path, detail });
        }
        world.checkouts.remove(&worktree.path);
        if let Some(repository) = world.repositories.get_mut(&worktree.repo) {
            repository.checkouts.remove(&worktree.path);
        }
        Ok(())
    }
}

impl World {
    /// A verified worktree's repository, what HEAD holds, and what its directory holds.
    fn compared(
        &self,
        worktree: &Worktree,
    ) -> Result<(&Repository, Files, &Files), VcsWorktreeError> {
        let gone = || VcsWorktreeError::Gone { path: worktree.path.clone() };
        let repository = self.repositories.get(&worktree.repo).ok_or_else(gone)?;
        let checkout = self.checkouts.get(&worktree.path).ok_or_else(gone)?;
        let committed = repository.checked_out(&worktree.path).ok_or_else(gone)?;
        Ok((repository, committed, &checkout.files))
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
