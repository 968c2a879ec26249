//! [`GitWorktrees`]: the port [`VcsWorktree`] on git.
//!
//! Git's own command line makes, compares and describes; what is asked before every launch is read from git's files
//! without a process. Git steps that can run the user's code on his changes (commits with hooks) are only described here.
//! Objects are never collected, configuration is never written.
//!
//! A worktree is ours if its private git directory holds our marker ([`marker`]); while one is being made, a note beside
//! it says so ([`create`]); one that is being removed is first renamed aside ([`remove`]). Each is enough to go on after
//! a crash at any point.

mod aside;
mod below;
mod cache_tree;
mod checkout;
mod commit;
mod copied;
mod copy;
mod create;
mod diff;
mod git;
mod git_locks;
mod history;
mod live;
mod lock;
mod marker;
mod mend;
mod moved;
mod name;
mod occupants;
mod own_branch;
mod plan;
mod provenance;
mod record;
mod refs;
mod remove;
mod repository;
mod reset;
mod save;
mod scan;
mod scratch;
mod settle;
mod snapshot;
mod status;
mod survey;
mod trash;
mod tree;
mod underway;
mod unfinished;
mod verify;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use windlass_core::error::BackendError;
use windlass_core::id::AttemptId;
use windlass_core::locator::Locator;
use windlass_core::vcs_worktree::{
    BranchFate, CreateMode, Creation, Diff, DiffDetail, Found, GitWork, Origin, Planned, Removal,
    SaveRequest, Saved, StepPlan, VcsWorktree, VcsWorktreeError, Verified, WorktreeRequest,
    WorktreeStatus,
};
use windlass_core::workspace::Worktree;

use crate::diff_watch::{DiffWatchLimits, FollowedDiffs};
use crate::group::Cancel;
use crate::node::Provenance;
use crate::repository_lock::RepositoryLocks;
use git::Git;
use history::Landings;
pub(crate) use live::{GitDirectory, Live, Stand};
use marker::Marker;
pub(crate) use scan::{Entered, Part, Scope};
use scratch::Scratch;
use settle::Settler;
use trash::Trash;

/// The backend's name in errors.
const BACKEND: &str = "git";

/// How many bytes snapshots may take unless told otherwise.
const SNAPSHOT_QUOTA_BYTES: u64 = 10 << 30;

/// How to work with git.
#[derive(Clone, Debug)]
pub struct GitOptions {
    /// The identity of the data directory, one line; it goes into every marker.
    pub data_directory: String,
    /// The directory that worktrees are made in; made if it is missing. It belongs to this data directory alone.
    pub worktrees_root: PathBuf,
    /// The directory that snapshots are kept in; made if it is missing. It belongs to this data directory alone.
    pub snapshots_root: PathBuf,
    /// How many bytes snapshots may take. Beyond, nothing is removed that needs one.
    pub snapshot_quota_bytes: u64,
    /// What the names of new branches begin with, for example `windlass/`.
    pub branch_prefix: String,
    /// The git program: absolute, or to be found by `PATH` in `env`.
    pub program: PathBuf,
    /// The environment of git. Variables that begin with `GIT_` are dropped.
    pub env: Vec<(OsString, OsString)>,
    /// After this a git command is killed.
    pub command_deadline: Duration,
    /// How long a repository's lock is waited for.
    pub lock_wait: Duration,
    /// Whether the root is where it was. In one that was copied or restored nothing is touched until that is meant.
    pub provenance: Provenance,
    /// How much of a worktree whose diff is followed is watched.
    pub diff_watch: DiffWatchLimits,
}

impl GitOptions {
    /// Makes options with the usual prefix `windlass/`, program `git`, 10 minutes for a command and 1 for a lock; snapshots
    /// lie in `snapshots` beside the worktrees and may take 10 GiB.
    #[must_use]
    pub fn new(
        data_directory: impl Into<String>,
        worktrees_root: impl Into<PathBuf>,
        env: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let worktrees_root = worktrees_root.into();
        Self {
            data_directory: data_directory.into(),
            snapshots_root: worktrees_root.with_file_name("snapshots"),
            snapshot_quota_bytes: SNAPSHOT_QUOTA_BYTES,
            worktrees_root,
            branch_prefix: "windlass/".to_owned(),
            program: PathBuf::from("git"),
            env: env.into_iter().collect(),
            command_deadline: Duration::from_secs(600),
            lock_wait: Duration::from_secs(60),
            provenance: Provenance::InPlace,
            diff_watch: DiffWatchLimits::default(),
        }
    }
}

/// Worktrees of git repositories on this machine.
///
/// Locators are absolute paths. One instance at a time owns a worktrees root.
#[derive(Debug)]
pub struct GitWorktrees {
    opening: Arc<Opening>,
    locks: RepositoryLocks,
    lock_wait: Duration,
    pub(crate) followed: FollowedDiffs,
}

/// What is open, or how to open it once there is a git.
#[derive(Debug)]
struct Opening {
    options: GitOptions,
    inner: Mutex<Option<Arc<Inner>>>,
}

impl Opening {
    /// Returns what is open, and opens it if it is not. Blocking.
    fn inner(&self) -> Result<Arc<Inner>, VcsWorktreeError> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(inner) = &*inner {
            return Ok(Arc::clone(inner));
        }
        let opened = Arc::new(Inner::open(self.options.clone())?);
        *inner = Some(Arc::clone(&opened));
        Ok(opened)
    }
}

/// What the blocking operations share.
#[derive(Debug)]
struct Inner {
    git: Git,
    data_directory: String,
    root: PathBuf,
    snapshots_root: PathBuf,
    snapshot_quota_bytes: u64,
    branch_prefix: String,
    lock_wait: Duration,
    scratch: Scratch,
    /// What looks found in directories.
    memory: scan::Memory,
    landings: Landings,
    trash: Trash,
    settler: Settler,
    /// Why nothing below the root may be touched, if so.
    copied: Option<String>,
}

impl GitWorktrees {
    /// Opens the backend: looks for git, makes the root, and sweeps what a dead process left to be swept.
    ///
    /// Without git it opens all the same: directories need none. Every use says [`VcsWorktreeError::NoGit`] until one is
    /// there.
    ///
    /// # Errors
    ///
    /// A [`VcsWorktreeError::Backend`] when the root cannot be made or the data directory's identity is no line.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again.
    pub async fn open(options: GitOptions) -> Result<Arc<Self>, VcsWorktreeError> {
        let (lock_wait, limits) = (options.lock_wait, options.diff_watch);
        let opening = Arc::new(Opening { options, inner: Mutex::new(None) });
        let first = Arc::clone(&opening);
        let opened = tokio::task::spawn_blocking(move || first.inner().map(drop)).await;
        match opened.map_err(|error| BackendError::permanent(BACKEND, "open", error))? {
            Ok(()) | Err(VcsWorktreeError::NoGit { .. }) => {}
            Err(error) => return Err(error),
        }
        let (locks, followed) = (RepositoryLocks::default(), FollowedDiffs::new(limits));
        Ok(Arc::new(Self { opening, locks, lock_wait, followed }))
    }

    /// The one door to the blocking pool; dropping the future kills the git that runs.
    async fn blocking<T: Send + 'static>(
        &self,
        op: &'static str,
        work: impl FnOnce(&Inner, &Cancel) -> Result<T, VcsWorktreeError> + Send + 'static,
    ) -> Result<T, VcsWorktreeError> {
        self.blocking_under(op, None, work).await
    }

    async fn blocking_under<T: Send + 'static>(
        &self,
        op: &'static str,
        lock: Option<OwnedFd>,
        work: impl FnOnce(&Inner, &Cancel) -> Result<T, VcsWorktreeError> + Send + 'static,
    ) -> Result<T, VcsWorktreeError> {
        let pair = Cancel::new().map_err(|error| BackendError::transient(BACKEND, op, error))?;
        let (interest, mut cancel) = pair;
        if let Some(lock) = lock {
            cancel = cancel.under(lock);
        }
        let opening = Arc::clone(&self.opening);
        let done = tokio::task::spawn_blocking(move || work(&*opening.inner()?, &cancel)).await;
        drop(interest);
        done.map_err(|error| BackendError::permanent(BACKEND, op, error))?
    }

    /// As [`blocking`](Self::blocking), on a worktree; one that a crash left aside is put back first, and one that was moved
    /// with its data directory is taken over.
    async fn at_place<T: Send + 'static>(
        &self,
        op: &'static str,
        attempt: AttemptId,
        worktree: &Worktree,
        work: impl Fn(&Inner, &Cancel, &Worktree) -> Result<T, VcsWorktreeError>
        + Clone
        + Send
        + 'static,
    ) -> Result<T, VcsWorktreeError> {
        let work = move |inner: &Inner, cancel: &Cancel, worktree: &Worktree| {
            work(inner, cancel, worktree).map_err(|error| inner.or_moved(attempt, worktree, error))
        };
        let (owned, first) = (worktree.clone(), work.clone());
        let first = self.blocking(op, move |inner, cancel| {
            let done = first(inner, cancel, &owned);
            let mendable = match &done {
                Err(VcsWorktreeError::Gone { .. }) => inner.may_be_aside(attempt, &owned),
                Err(VcsWorktreeError::Mismatch { .. }) => inner.may_be_left_behind(attempt, &owned),
                Ok(_) | Err(_) => false,
            };
            Ok((done, mendable))
        });
        let (done, mendable) = first.await?;
        if !mendable || !path_of(&worktree.repo).is_dir() {
            return done;
        }
        let owned = worktree.clone();
        let again = move |inner: &Inner, cancel: &Cancel| {
            inner.take_over(attempt, &owned)?;
            inner.bring_home(attempt, &owned)?;
            work(inner, cancel, &owned)
        };
        self.locked(op, worktree, again).await
    }

    /// Waits until all that was removed is deleted, or had to stay. Removals need not wait for that.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again.
    pub async fn settle(&self) -> Result<(), VcsWorktreeError> {
        self.blocking("settle", |inner, _| {
            inner.trash.settle();
            Ok(())
        })
        .await
    }

    /// As [`blocking`](Self::blocking), with the lock of the worktree's repository held until it and every git of it is
    /// done.
    async fn locked<T: Send + 'static>(
        &self,
        op: &'static str,
        worktree: &Worktree,
        work: impl FnOnce(&Inner, &Cancel) -> Result<T, VcsWorktreeError> + Send + 'static,
    ) -> Result<T, VcsWorktreeError> {
        let held = lock::acquire(&self.locks, &path_of(&worktree.repo), self.lock_wait).await?;
        self.blocking_under(op, Some(held), work).await
    }

    /// Waits until a creation that nobody waits for any more, a git of a dead host, or a step is done with this worktree.
    /// Its files are written without the repository's lock.
    async fn wait_for_creation(&self, worktree: &Worktree) -> Result<(), VcsWorktreeError> {
        let owned = worktree.clone();
        let inside = move |inner: &Inner, _: &Cancel| inner.inside(&owned);
        let note = underway::note_of(&self.blocking("create", inside).await?);
        let free = underway::wait_until_free(&self.locks, note.clone(), self.lock_wait).await;
        if !free.map_err(|error| failed("create", &note, error))? {
            return Err(VcsWorktreeError::Busy { repo: worktree.repo.clone(), holder: None });
        }
        let owned = worktree.clone();
        let step = move |inner: &Inner, _: &Cancel| {
            let path = inner.inside(&owned)?;
            create::lock_of(&path, &owned).map_err(|error| failed("create", &path, error))
        };
        if let Some(admin) = self.blocking("create", step).await? {
            drop(lock::acquire(&self.locks, &admin, self.lock_wait).await?);
        }
        Ok(())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl VcsWorktree for GitWorktrees {
    async fn plan(&self, request: WorktreeRequest) -> Result<Planned, VcsWorktreeError> {
        self.blocking("plan", move |inner, cancel| inner.plan(cancel, &request)).await
    }

    async fn create(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        origin: &Origin,
        mode: CreateMode,
    ) -> Result<Creation, VcsWorktreeError> {
        let repo = path_of(&worktree.repo);
        if !repo.is_dir() {
            return Err(VcsWorktreeError::NotARepository { path: worktree.repo.clone() });
        }
        self.wait_for_creation(worktree).await?;
        let (owned, origin) = (worktree.clone(), origin.clone());
        let work = move |inner: &Inner, cancel: &Cancel| {
            inner.take_over(attempt, &owned)?;
            inner.clear_for_creation(cancel, attempt, &owned)?;
            match &origin {
                Origin::Base => inner.create(cancel, attempt, &owned, mode),
                Origin::Removed(removed) => inner.restore(cancel, attempt, &owned, removed, mode),
            }
        };
        self.locked("create", worktree, work).await
    }

    async fn verify(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<Verified, VcsWorktreeError> {
        let verify = move |inner: &Inner, cancel: &Cancel, worktree: &Worktree| {
            inner.verify(cancel, attempt, worktree).map(|found| found.verified)
        };
        self.at_place("verify", attempt, worktree, verify).await
    }

    async fn status(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<WorktreeStatus, VcsWorktreeError> {
        let status = move |inner: &Inner, cancel: &Cancel, worktree: &Worktree| {
            inner.status(cancel, attempt, worktree)
        };
        self.at_place("status", attempt, worktree, status).await
    }

    async fn diff(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        detail: DiffDetail,
    ) -> Result<Diff, VcsWorktreeError> {
        let diff = move |inner: &Inner, cancel: &Cancel, worktree: &Worktree| {
            inner.diff(cancel, attempt, worktree, detail)
        };
        self.at_place("diff", attempt, worktree, diff).await
    }

    async fn plan_step(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        work: &GitWork,
    ) -> Result<StepPlan, VcsWorktreeError> {
        let work = work.clone();
        let plan = move |inner: &Inner, cancel: &Cancel, worktree: &Worktree| match &work {
            GitWork::Commit { message, fallback } => {
                inner.plan_commit(cancel, attempt, worktree, message, fallback)
            }
            GitWork::Reset { to } => inner.plan_reset(cancel, attempt, worktree, to),
        };
        self.at_place("plan step", attempt, worktree, plan).await
    }

    async fn save(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        request: &SaveRequest,
    ) -> Result<Saved, VcsWorktreeError> {
        let (owned, request) = (worktree.clone(), request.clone());
        if !path_of(&worktree.repo).is_dir() {
            let detail = remove::without_repository(worktree);
            return Err(mismatch(&path_of(&worktree.path), detail));
        }
        let work = move |inner: &Inner, cancel: &Cancel| {
            inner.take_over(attempt, &owned)?;
            inner.save(cancel, attempt, &owned, &request)
        };
        self.locked("save", worktree, work).await
    }

    async fn remove(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        removal: Removal,
    ) -> Result<(), VcsWorktreeError> {
        let owned = worktree.clone();
        let fate = match removal {
            Removal::Worktree => BranchFate::Stays,
            Removal::WorktreeAndBranch => BranchFate::Goes,
            Removal::Snapshot(number) => {
                let work = move |inner: &Inner, _: &Cancel| inner.remove_snapshot(attempt, number);
                return self.blocking("remove snapshot", work).await;
            }
        };
        if !path_of(&worktree.repo).is_dir() {
            let work =
                move |inner: &Inner, _: &Cancel| inner.remove_without_repository(attempt, &owned);
            return self.blocking("remove", work).await;
        }
        let work = move |inner: &Inner, cancel: &Cancel| {
            inner.take_over(attempt, &owned)?;
            inner.remove(cancel, attempt, &owned, fate)
        };
        self.locked("remove", worktree, work).await
    }

    async fn survey(&self, repos: &[Locator]) -> Result<Vec<Found>, VcsWorktreeError> {
        let repos = repos.to_vec();
        self.blocking("survey", move |inner, _| inner.survey(&repos)).await
    }
}

impl Inner {
    fn open(options: GitOptions) -> Result<Self, VcsWorktreeError> {
        let git = Git::find(&options.program, options.env, options.command_deadline)?;
        if options.data_directory.contains('\n') {
            let error = io::Error::from(io::ErrorKind::InvalidInput);
            return Err(BackendError::permanent(BACKEND, "open", error).into());
        }
        let root = options.worktrees_root;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&root);
        let root = made
            .and_then(|()| fs::canonicalize(&root))
            .map_err(|error| failed("open", &root, error))?;
        let snapshots_root = options.snapshots_root;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&snapshots_root);
        let snapshots_root = made
            .and_then(|()| fs::canonicalize(&snapshots_root))
            .map_err(|error| failed("open", &snapshots_root, error))?;
        let scratch = Scratch::open(&root).map_err(|error| failed("open", &root, error))?;
        let (data_directory, branch_prefix) = (options.data_directory, options.branch_prefix);
        let lock_wait = options.lock_wait;
        let copied = provenance::check(&root, &data_directory, options.provenance)
            .map_err(|error| failed("open", &root, error))?;
        let trash = Trash::open(&root).map_err(|error| failed("open", &root, error))?;
        if copied.is_some() {
            trash.leave_alone();
        } else {
            trash.empty();
            // What is left of unfinished ones is in nobody's way.
            drop(snapshot::sweep(&snapshots_root));
        }
        Ok(Self {
            git,
            data_directory,
            root,
            snapshots_root,
            snapshot_quota_bytes: options.snapshot_quota_bytes,
            branch_prefix,
            lock_wait,
            scratch,
            memory: scan::Memory::default(),
            landings: Landings::default(),
            trash,
            settler: Settler::default(),
            copied,
        })
    }

    /// The marker of an attempt's worktree.
    fn marker(&self, attempt: AttemptId) -> Marker {
        Marker { data_directory: self.data_directory.clone(), attempt }
    }

    /// Refuses a path that is not below our root; nothing outside is ever looked at.
    fn inside(&self, worktree: &Worktree) -> Result<PathBuf, VcsWorktreeError> {
        let path = path_of(&worktree.path);
        let plain = |below: &Path| {
            below.components().count() >= 2
                && below.components().all(|part| matches!(part, Component::Normal(_)))
        };
        match path.strip_prefix(&self.root) {
            Ok(below) if plain(below) => match &self.copied {
                None => Ok(path),
                Some(why) => Err(mismatch(&path, why)),
            },
            _ => Err(mismatch(&path, format!("it is not inside {}", self.root.display()))),
        }
    }
}

fn path_of(locator: &Locator) -> PathBuf {
    PathBuf::from(OsString::from_vec(locator.as_bytes().to_vec()))
}

fn locator(path: &Path) -> Locator {
    Locator::new(path.as_os_str().as_bytes())
}

fn mismatch(path: &Path, detail: impl Into<String>) -> VcsWorktreeError {
    VcsWorktreeError::Mismatch { path: locator(path), detail: detail.into() }
}

/// A file operation that failed, with the path that the system's error does not name.
#[derive(Debug, thiserror::Error)]
#[error("{}", path.display())]
struct AtPath {
    path: PathBuf,
    source: io::Error,
}

fn failed(op: &'static str, path: &Path, source: io::Error) -> VcsWorktreeError {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => VcsWorktreeError::Full,
        _ => {
            let at = AtPath { path: path.to_owned(), source };
            BackendError::permanent(BACKEND, op, at).into()
        }
    }
}
