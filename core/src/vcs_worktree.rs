//! The port [`VcsWorktree`]: worktrees of version-controlled repositories.
//!
//! It makes, checks, compares, saves and removes them. Steps that can run the user's code (hooks, filters) are not
//! performed here: they are described as a [`GitStep`] that runs as an execution of its own.

mod error;

use std::fmt;
use std::future::Future;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::id::AttemptId;
use crate::locator::{Locator, OsBytes};
use crate::snapshot::{Snapshot, SnapshotNumber};
use crate::workspace::{Oid, Worktree};

pub use error::VcsWorktreeError;

/// Which worktree somebody wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorktreeRequest {
    /// For which attempt.
    pub attempt: AttemptId,
    /// Any directory in the repository, or the repository.
    pub repo: Locator,
    /// The base: a branch, tag, commit or remote branch; `None` is what HEAD names.
    pub base: Option<String>,
    /// The new branch's name; `None` makes one from prefix, short id and title.
    pub branch: Option<String>,
    /// The attempt's title; any text.
    pub title: String,
    /// Ignored files to copy in from the checkout that `repo` is in: globs as in `.gitignore`, relative to its root.
    pub copy: Vec<String>,
}

/// A worktree as it will be, with what its user should know first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The record to keep before it is created.
    pub worktree: Worktree,
    /// The checkout that the request stood in has uncommitted changes, which will not be in the worktree.
    pub source_is_dirty: bool,
    /// The globs of what is to be copied in that no file matches by now.
    pub unmatched: Vec<String>,
}

/// What was found where a worktree is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorktreeStatus {
    /// The commit that HEAD names.
    pub head: Oid,
    /// The branch that HEAD names; `None` if it is detached.
    pub branch: Option<String>,
    /// Something differs from HEAD or is untracked (ignored files do not count).
    pub dirty: bool,
    /// Commits since the merge base with the base, on this side.
    pub ahead: u64,
    /// Commits since the merge base with the target (else the base), on the other side.
    pub behind: u64,
}

/// What was verified before a launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The commit that HEAD names.
    pub head: Oid,
    /// The branch that HEAD names; `None` if it is detached.
    pub branch: Option<String>,
}

/// Who a commit is by when the repository does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name.
    pub name: String,
    /// Mail address.
    pub email: String,
}

/// A git step that may run the user's code and therefore runs as an execution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitStep {
    /// Program and arguments.
    pub argv: Vec<OsBytes>,
    /// Variables to add to the attempt's environment.
    pub env: Vec<(String, OsBytes)>,
    /// The environment for an attempt that has none of its own.
    pub base_env: Vec<(String, OsBytes)>,
    /// Where to run it.
    pub cwd: Locator,
    /// The git directory whose lock it holds: that of the repository, or of the worktree alone.
    pub repository_lock: Locator,
}

/// What came of a creation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Creation {
    /// The worktree is there.
    Done(Verified),
    /// It is registered and has no files yet: this step checks them out, and may run the user's code for it. When it has
    /// ended, however it did, the creation is to be [concluded](CreateMode::Conclude).
    Run(GitStep),
}

/// How to go about a creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateMode {
    /// Begins it. What a former one left half made is completed if its step proves to be complete, and undone if not.
    Begin,
    /// Ends one whose step has ended: completes it if the step proves to be complete, undoes it if not. Asks for no step.
    Conclude,
}

/// The exit code of a step that was to put a worktree back and did nothing, because something in it has changed since it was
/// saved: it is to be saved again. That of `EX_TEMPFAIL` in `sysexits.h`.
pub const CHANGED_SINCE_SAVED: u8 = 75;

/// What a git step in a worktree is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GitWork {
    /// Commit everything that is dirty.
    Commit {
        /// The message.
        message: String,
        /// Who it is by where the repository has no identity; its configuration is never written.
        fallback: Identity,
    },
    /// Put the worktree back to a commit: HEAD's branch, the index and the tracked files are as it has them, and what a
    /// commit would have taken is gone. Ignored files and repositories within stay. What is not as the last save of the
    /// worktree in its place found it is not undone: then the step does nothing and ends with [`CHANGED_SINCE_SAVED`].
    Reset {
        /// To which commit.
        to: Oid,
    },
}

/// How to do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepPlan {
    /// There is nothing to do.
    Nothing {
        /// The commit that HEAD names.
        head: Oid,
    },
    /// This step does it. Performing it twice does it once.
    Run(GitStep),
}

/// How a file differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// Its content or mode changed.
    Modified,
    /// It is gone.
    Deleted,
    /// It has another path.
    Renamed,
    /// It was copied from another path.
    Copied,
    /// It became another kind of entry (file, link, submodule).
    TypeChanged,
}

/// One changed file of a diff.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDiff {
    /// Its path, relative to the worktree.
    pub path: Locator,
    /// Its former path, if renamed or copied.
    pub old_path: Option<Locator>,
    /// How it differs.
    pub change: ChangeKind,
    /// Lines added; `None` for binary content, and for what is too large to be counted.
    pub added: Option<u64>,
    /// Lines removed; `None` for binary content, and for what is too large to be counted.
    pub removed: Option<u64>,
    /// The new mode in octal as git prints it, for example `100755`; `None` if deleted.
    pub mode: Option<String>,
    /// The file is not tracked.
    pub untracked: bool,
    /// It is not in a patch: its content before or after is larger than [`DIFF_FILE_BYTES`], or that of the files before it
    /// fills [`DIFF_BYTES`].
    #[serde(default)]
    pub too_large: bool,
}

/// How many bytes a file may have, before or after, to be in a patch.
pub const DIFF_FILE_BYTES: u64 = 2 << 20;

/// How many bytes all files of a patch may have together, before and after.
pub const DIFF_BYTES: u64 = 200 << 20;

/// How much of a diff to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiffDetail {
    /// Changed files with counts.
    Files,
    /// Also the text that `git apply` takes.
    Patch,
}

/// What differs between the merge base and the worktree, untracked files included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diff {
    /// The merge base.
    pub base: Oid,
    /// The commit that HEAD names.
    pub head: Oid,
    /// The files, in path order.
    pub files: Vec<FileDiff>,
    /// The patch, if it was asked for, without what is [too large](FileDiff::too_large); raw bytes.
    pub patch: Option<Vec<u8>>,
}

/// What a worktree is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Origin {
    /// From its base, on its new branch, with what is to be copied in.
    Base,
    /// From what was there when it was removed.
    Removed(Removed),
}

/// What a worktree was when it was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// The commit that HEAD named.
    pub head: Oid,
    /// The branch that HEAD named; `None` if it was detached.
    pub branch: Option<String>,
    /// The snapshot that holds its work; `None` if there was nothing to save.
    pub snapshot: Option<SnapshotNumber>,
}

/// How to save a worktree's work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaveRequest {
    /// The number of the snapshot. Saving under a number that is not recorded replaces what a crash left of it.
    pub number: SnapshotNumber,
    /// From where.
    pub from: SaveFrom,
    /// What to do about what cannot be saved.
    pub unsavable: Unsavable,
    /// What to do about a rebase, merge or the like that is in progress, and about a locked worktree.
    pub unfinished: Unfinished,
    /// Which ignored entries to save.
    pub ignored: Ignored,
    /// What will become of the branch: commits of one that is to go must be in the snapshot.
    pub branch: BranchFate,
}

/// How many bytes of ignored entries a snapshot holds unless told otherwise: enough for `.env` and notes, not for
/// `target` or `node_modules`.
pub const IGNORED_BYTES: u64 = 64 << 20;

impl SaveRequest {
    /// Asks for what comes before a removal by the safe rules: from aside, refusing whatever cannot be saved or is in
    /// progress, with ignored entries up to [`IGNORED_BYTES`].
    #[must_use]
    pub const fn before_removal(number: SnapshotNumber) -> Self {
        Self {
            number,
            from: SaveFrom::Aside,
            unsavable: Unsavable::Refuse,
            unfinished: Unfinished::Refuse,
            ignored: Ignored::UpTo(IGNORED_BYTES),
            branch: BranchFate::Stays,
        }
    }
}

/// What becomes of a worktree's branch after it was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BranchFate {
    /// It stays: what it reaches exists elsewhere.
    Stays,
    /// It is to be deleted: what only it reaches goes into the snapshot.
    Goes,
}

/// From where a worktree is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveFrom {
    /// From its place, where it stays.
    Place,
    /// From aside: it is taken out of the way first, so that nobody finds it by its path and it can be removed. It is put
    /// back if it is not saved.
    Aside,
}

/// What to do about something that cannot be saved: a special file, an unreadable one, a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unsavable {
    /// Refuse, and name it.
    Refuse,
    /// Leave it out.
    Discard,
}

/// What to do about an operation that is in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unfinished {
    /// Refuse, and name it.
    Refuse,
    /// Save its state with the rest.
    Save,
}

/// Which ignored entries a snapshot holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ignored {
    /// The smallest first, up to so many bytes.
    UpTo(u64),
    /// Those that these globs match, whatever their size.
    Globs(Vec<String>),
}

/// What was saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The commit that HEAD named.
    pub head: Oid,
    /// The branch that HEAD named; `None` if it was detached.
    pub branch: Option<String>,
    /// The snapshot; `None` if everything exists elsewhere.
    pub snapshot: Option<Snapshot>,
}

/// What to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// The worktree that was saved from aside; keep its branch.
    Worktree,
    /// The same, and delete the branch, whose commits are in the snapshot where no other branch reaches them.
    WorktreeAndBranch,
    /// This snapshot.
    Snapshot(SnapshotNumber),
}

/// One thing that was found where worktrees are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it is.
    pub path: Locator,
    /// Whose it is; `None` if it carries no marker of ours.
    pub attempt: Option<AttemptId>,
    /// The worktree as far as it can be told from what is there.
    pub worktree: Option<Worktree>,
    /// In what state.
    pub state: FoundState,
}

/// The state of what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FoundState {
    /// A worktree.
    Whole,
    /// A registration whose directory is gone.
    Missing,
    /// Its creation had begun.
    Creating,
    /// Its removal had begun.
    Removing,
    /// What its removal had to leave, for example because somebody wrote to it meanwhile.
    Leftover {
        /// Why, for people.
        detail: String,
    },
    /// Not ours to touch: no marker, or that of another data directory.
    Foreign {
        /// Why, for people.
        detail: String,
    },
}

/// Worktrees of version-controlled repositories.
///
/// # Contract
///
/// - Nothing is touched that does not carry our marker for this attempt.
/// - Nothing is deleted that [`save`](Self::save) did not see as it is: what changed since stays and is reported by
///   [`survey`](Self::survey).
/// - Each operation is safe to perform twice: creating what is there, removing what is gone.
/// - The user's repository is not written by looking (no index refresh, no objects).
///
/// # Cancel safety
///
/// A dropped future may leave its work half done; performing it again completes it.
///
/// # Example
///
/// ```
/// # use windlass_core::vcs_worktree::*;
/// # async fn doc(vcs: &dyn VcsWorktree, request: WorktreeRequest) -> Result<(), VcsWorktreeError> {
/// let attempt = request.attempt;
/// let planned = vcs.plan(request).await?;
/// // … record `planned.worktree` durably, then:
/// let made = vcs.create(attempt, &planned.worktree, &Origin::Base, CreateMode::Begin).await?;
/// if let Creation::Run(step) = made {
///     // … run the step to its end as an execution, then:
///     vcs.create(attempt, &planned.worktree, &Origin::Base, CreateMode::Conclude).await?;
/// }
/// let diff = vcs.diff(attempt, &planned.worktree, DiffDetail::Files).await?;
/// assert!(diff.files.is_empty());
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait VcsWorktree: fmt::Debug + Send + Sync + 'static {
    /// Resolves a request to what will be created. Makes nothing.
    ///
    /// # Errors
    ///
    /// [`VcsWorktreeError::NotARepository`], [`Empty`](VcsWorktreeError::Empty),
    /// [`UnknownBase`](VcsWorktreeError::UnknownBase), [`BranchExists`](VcsWorktreeError::BranchExists),
    /// [`InvalidBranch`](VcsWorktreeError::InvalidBranch), [`CannotCopy`](VcsWorktreeError::CannotCopy),
    /// [`NoGit`](VcsWorktreeError::NoGit).
    async fn plan(&self, request: WorktreeRequest) -> Result<Planned, VcsWorktreeError>;

    /// Makes the worktree, with our marker: new on its new branch, or again as it was when it was removed.
    ///
    /// It runs nothing of the user's: where hooks or filters have a part in making its files, they come by a
    /// [step](Creation::Run). Until that has ended and the creation is concluded the worktree is none: nothing but a creation
    /// or a removal finds it. A step performs its work at most once, however often it is run, and what it did is proven by
    /// what it leaves, whoever dies when.
    ///
    /// One that is there already is verified and kept; one that was saved from aside and not removed is put back as it is.
    /// Made again, it is on its branch if that still is where it was and
    /// is checked out nowhere else, and detached at its former commit if not; a branch that is gone comes back from the
    /// snapshot. Every byte, mode, link and time, the index and an operation in progress are as they were, or it fails.
    ///
    /// # Errors
    ///
    /// [`NoSnapshot`](VcsWorktreeError::NoSnapshot), [`DamagedSnapshot`](VcsWorktreeError::DamagedSnapshot),
    /// [`Incomplete`](VcsWorktreeError::Incomplete) for a step that did not come to its end, and see [`VcsWorktreeError`];
    /// what was begun is undone.
    async fn create(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        origin: &Origin,
        mode: CreateMode,
    ) -> Result<Creation, VcsWorktreeError>;

    /// Checks that what is there is the recorded worktree of this attempt.
    ///
    /// # Errors
    ///
    /// [`VcsWorktreeError::Gone`], [`Mismatch`](VcsWorktreeError::Mismatch).
    async fn verify(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<Verified, VcsWorktreeError>;

    /// Measures it against its base and target.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify).
    async fn status(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<WorktreeStatus, VcsWorktreeError>;

    /// Compares the merge base with the worktree, untracked files included, renames found.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify).
    async fn diff(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        detail: DiffDetail,
    ) -> Result<Diff, VcsWorktreeError>;

    /// Describes how to do a piece of work that may run the user's code. Writes nothing.
    ///
    /// A reset moves no branch but the one that was made for the worktree.
    ///
    /// # Errors
    ///
    /// As [`verify`](Self::verify); [`VcsWorktreeError::Unfinished`] where an operation in progress is in the way;
    /// [`Mismatch`](VcsWorktreeError::Mismatch) for a reset that would move a branch of somebody else's.
    async fn plan_step(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        work: &GitWork,
    ) -> Result<StepPlan, VcsWorktreeError>;

    /// Saves exactly and durably whatever in the worktree exists nowhere else, and verifies what it wrote.
    ///
    /// Saving again, after a crash too, gives the same answer or saves anew. Of a worktree whose directory is gone, what
    /// its private git directory holds is saved.
    ///
    /// # Errors
    ///
    /// [`VcsWorktreeError::Unsavable`], [`Unfinished`](VcsWorktreeError::Unfinished),
    /// [`Occupied`](VcsWorktreeError::Occupied), [`Quota`](VcsWorktreeError::Quota),
    /// [`Full`](VcsWorktreeError::Full), [`Mismatch`](VcsWorktreeError::Mismatch),
    /// [`Gone`](VcsWorktreeError::Gone) if nothing of it is left: the worktree is where it was.
    async fn save(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        request: &SaveRequest,
    ) -> Result<Saved, VcsWorktreeError>;

    /// Removes what was saved. What is gone is no error.
    ///
    /// It returns when nothing of the worktree is in anybody's way any more; files may be deleted later, also by the next
    /// host.
    ///
    /// # Errors
    ///
    /// [`VcsWorktreeError::Unsaved`] if it was not [saved](Self::save) from aside,
    /// [`Mismatch`](VcsWorktreeError::Mismatch): nothing was touched.
    async fn remove(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        removal: Removal,
    ) -> Result<(), VcsWorktreeError>;

    /// Lists what is where worktrees are made, and the registrations of ours in `repos`, in path order.
    ///
    /// # Errors
    ///
    /// [`VcsWorktreeError::Backend`] if it cannot be listed; a single thing that cannot be read is
    /// [`Foreign`](FoundState::Foreign).
    async fn survey(&self, repos: &[Locator]) -> Result<Vec<Found>, VcsWorktreeError>;
}

/// Comfort for callers of [`VcsWorktree`].
pub trait VcsWorktreeExt: VcsWorktree {
    /// Describes how to commit what is dirty, by `fallback` where the repository has no identity.
    ///
    /// # Errors
    ///
    /// As [`plan_step`](VcsWorktree::plan_step).
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again.
    fn plan_commit(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        message: &str,
        fallback: &Identity,
    ) -> impl Future<Output = Result<StepPlan, VcsWorktreeError>> + Send {
        let work = GitWork::Commit { message: message.to_owned(), fallback: fallback.clone() };
        async move { self.plan_step(attempt, worktree, &work).await }
    }

    /// Saves a worktree as `request` says and removes it; keeps its branch.
    ///
    /// # Errors
    ///
    /// As [`save`](VcsWorktree::save) and [`remove`](VcsWorktree::remove).
    ///
    /// # Cancel safety
    ///
    /// As theirs.
    fn save_and_remove(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        request: &SaveRequest,
    ) -> impl Future<Output = Result<Saved, VcsWorktreeError>> + Send {
        async move {
            let saved = self.save(attempt, worktree, request).await?;
            self.remove(attempt, worktree, Removal::Worktree).await?;
            Ok(saved)
        }
    }
}

impl<T: VcsWorktree + ?Sized> VcsWorktreeExt for T {}
