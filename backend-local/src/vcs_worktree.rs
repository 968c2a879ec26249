//! [`GitWorktrees`]: the port [`VcsWorktree`] on git.
//!
//! Git's own command line makes, compares and describes; what is asked before every launch is read from git's files
//! without a process. Git steps that can run the user's code on his changes (commits with hooks) are only described here.
//! Objects are never collected, configuration is never written.
//!
//! A worktree is ours if its private git directory holds our marker ([`marker`]); while one is being made, a note beside
//! it says so ([`create`]); one that is being removed is first renamed aside ([`remove`]). Each is enough to go on after
//! a crash at any point.

mod commit;
mod create;
mod diff;
mod git;
mod lock;
mod marker;
mod name;
mod occupants;
mod plan;
mod refs;
mod remove;
mod scratch;
mod status;
mod tree;
mod unsaved;
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
    CommitPlan, Diff, DiffDetail, Identity, Planned, VcsWorktree, VcsWorktreeError, Verified,
    WorktreeRequest, WorktreeStatus,
};
use windlass_core::workspace::Worktree;

use crate::group::Cancel;
use crate::repository_lock::RepositoryLocks;
use git::Git;
use marker::Marker;
use scratch::Scratch;

/// The backend's name in errors.
const BACKEND: &str = "git";

/// How to work with git.
#[derive(Clone, Debug)]
pub struct GitOptions {
    /// The identity of the data directory, one line; it goes into every marker.
    pub data_directory: String,
    /// The directory that worktrees are made in; made if it is missing. It belongs to this data directory alone.
    pub worktrees_root: PathBuf,
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
}

impl GitOptions {
    /// Makes options with the usual prefix `windlass/`, program `git`, 10 minutes for a command and 1 for a lock.
    #[must_use]
    pub fn new(
        data_directory: impl Into<String>,
        worktrees_root: impl Into<PathBuf>,
        env: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        Self {
            data_directory: data_directory.into(),
            worktrees_root: worktrees_root.into(),
            branch_prefix: "windlass/".to_owned(),
            program: PathBuf::from("git"),
            env: env.into_iter().collect(),
            command_deadline: Duration::from_secs(600),
            lock_wait: Duration::from_secs(60),
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
    branch_prefix: String,
    scratch: Scratch,
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
        let lock_wait = options.lock_wait;
        let opening = Arc::new(Opening { options, inner: Mutex::new(None) });
        let first = Arc::clone(&opening);
        let opened = tokio::task::spawn_blocking(move || first.inner().map(drop)).await;
        match opened.map_err(|error| BackendError::permanent(BACKEND, "open", error))? {
            Ok(()) | Err(VcsWorktreeError::NoGit { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(Arc::new(Self { opening, locks: RepositoryLocks::default(), lock_wait }))
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
    ) -> Result<Verified, VcsWorktreeError> {
        let repo = path_of(&worktree.repo);
        if !repo.is_dir() {
            return Err(VcsWorktreeError::NotARepository { path: worktree.repo.clone() });
        }
        let owned = worktree.clone();
        let work = move |inner: &Inner, cancel: &Cancel| inner.create(cancel, attempt, &owned);
        self.locked("create", worktree, work).await
    }

    async fn verify(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<Verified, VcsWorktreeError> {
        let worktree = worktree.clone();
        let verify = move |inner: &Inner, cancel: &Cancel| {
            inner.verify(cancel, attempt, &worktree).map(|found| found.verified)
        };
        self.blocking("verify", verify).await
    }

    async fn status(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<WorktreeStatus, VcsWorktreeError> {
        let worktree = worktree.clone();
        self.blocking("status", move |inner, cancel| inner.status(cancel, attempt, &worktree)).await
    }

    async fn diff(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        detail: DiffDetail,
    ) -> Result<Diff, VcsWorktreeError> {
        let worktree = worktree.clone();
        let diff =
            move |inner: &Inner, cancel: &Cancel| inner.diff(cancel, attempt, &worktree, detail);
        self.blocking("diff", diff).await
    }

    async fn plan_commit(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        message: &str,
        fallback: &Identity,
    ) -> Result<CommitPlan, VcsWorktreeError> {
        let (worktree, message) = (worktree.clone(), message.to_owned());
        let fallback = fallback.clone();
        let plan = move |inner: &Inner, cancel: &Cancel| {
            inner.plan_commit(cancel, attempt, &worktree, &message, &fallback)
        };
        self.blocking("plan commit", plan).await
    }

    async fn remove(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<(), VcsWorktreeError> {
        let owned = worktree.clone();
        if !path_of(&worktree.repo).is_dir() {
            let check = move |inner: &Inner, _: &Cancel| inner.remove_without_repository(&owned);
            return self.blocking("remove", check).await;
        }
        let work = move |inner: &Inner, cancel: &Cancel| inner.remove(cancel, attempt, &owned);
        self.locked("remove", worktree, work).await
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
        let scratch = Scratch::open(&root).map_err(|error| failed("open", &root, error))?;
        let (data_directory, branch_prefix) = (options.data_directory, options.branch_prefix);
        Ok(Self { git, data_directory, root, branch_prefix, scratch })
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
            Ok(below) if plain(below) => Ok(path),
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
