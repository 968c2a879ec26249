//! The optional port [`DiffWatch`]: the diff of a worktree as it changes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::id::AttemptId;
use crate::locator::Locator;
use crate::vcs_worktree::{FileDiff, VcsWorktreeError};
use crate::workspace::{Oid, Worktree};

/// Where a follower is: what was told up to here need not be told again.
///
/// It is good for the watch that gave it, and for as long as that lasts; any other begins anew. As text it is three numbers
/// with dots between them, which mean nothing to whoever keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiffCursor {
    /// The generation.
    pub(crate) generation: u64,
    /// The last number that was told.
    pub(crate) seq: u64,
    /// The last number that there was when the follower began: what was gone by then is not told.
    pub(crate) since: u64,
}

impl fmt::Display for DiffCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.generation, self.seq, self.since)
    }
}

/// The text is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no cursor of a diff")]
pub struct InvalidDiffCursor;

impl FromStr for DiffCursor {
    type Err = InvalidDiffCursor;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut numbers = text.split('.').map(str::parse);
        let mut number = || numbers.next()?.ok();
        let cursor = number().zip(number()).zip(number());
        match (cursor, numbers.next()) {
            (Some(((generation, seq), since)), None) => Ok(Self { generation, seq, since }),
            _ => Err(InvalidDiffCursor),
        }
    }
}

/// What a follower is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiffEvent {
    /// Everything that was told before is void: what follows is told from nothing.
    ///
    /// So a follower begins, and so it goes on when the base or the branch is another one, or when something was missed.
    Began {
        /// Which generation. A later one has a larger number; how much larger says nothing.
        generation: u64,
        /// The merge base, which everything is compared with.
        base: Oid,
        /// The branch that HEAD names; `None` if it is detached.
        branch: Option<String>,
    },
    /// A file differs like this now, whatever was told of it before.
    File {
        /// The file. [`FileDiff::too_large`] says that there is no patch of it.
        file: FileDiff,
        /// The part of the patch that is about it, as git prints it; `None` for what is too large, and for a
        /// repository inside that has no commit.
        patch: Option<Bytes>,
    },
    /// The file at this path does not differ any more, or not under this path. It may be one that was never told.
    Removed {
        /// The path.
        path: Locator,
    },
    /// Everything that was seen is told: the files that were told and not removed are the diff.
    Current {
        /// The commit that HEAD names.
        head: Oid,
        /// How many directories could not be watched: changes in them are seen only when something else changes, too. Not 0
        /// where the system watches no more.
        unwatched: u64,
    },
}

/// One event, and where its follower is after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldDiff {
    /// What is told.
    pub event: DiffEvent,
    /// Where to go on.
    pub cursor: DiffCursor,
}

/// Why a diff cannot be followed (any more).
#[derive(Clone, Debug, thiserror::Error)]
pub enum DiffWatchError {
    /// The system tells of no changes, or of no more of them.
    #[error("changes cannot be watched: {reason}")]
    Unsupported {
        /// Why, for people.
        reason: String,
    },
    /// The worktree cannot be looked at.
    #[error(transparent)]
    Worktree(Arc<VcsWorktreeError>),
}

impl From<VcsWorktreeError> for DiffWatchError {
    fn from(error: VcsWorktreeError) -> Self {
        Self::Worktree(Arc::new(error))
    }
}

/// Follows the diffs of worktrees: from the merge base to the worktree, as [`VcsWorktree::diff`] tells them.
///
/// # Contract
///
/// - A follower is first told that a generation began, then every file, then that it is current. From then on it is told
///   what changed, each time up to an event that says that it is current.
/// - When nothing changes any more, what was told is what [`VcsWorktree::diff`] answers, but for
///   [`FileDiff::too_large`] where files of more than [`DIFF_BYTES`] differ: there is a patch of what was told first, and
///   what a file took is given back when it changes again.
/// - Watching begins before the first look: no change is missed. What comes faster than it can be told is told as it is in
///   the end; a follower that is slow costs nothing and misses nothing but what did not last.
/// - What is ignored is not watched. Neither index nor objects are written.
/// - Followers of one worktree share what it takes. The watch ends some time after the last of them.
///
/// [`VcsWorktree::diff`]: crate::vcs_worktree::VcsWorktree::diff
/// [`DIFF_BYTES`]: crate::vcs_worktree::DIFF_BYTES
///
/// # Example
///
/// ```
/// # use windlass_core::diff_ledger::DiffMirror;
/// # use windlass_core::diff_watch::*;
/// # use windlass_core::id::AttemptId;
/// # use windlass_core::workspace::Worktree;
/// # async fn doc(watch: &dyn DiffWatch, attempt: AttemptId, worktree: &Worktree) -> Result<(), DiffWatchError> {
/// let mut follower = watch.follow(attempt, worktree, None).await?;
/// let mut mirror = DiffMirror::default();
/// while !mirror.is_current() {
///     for told in follower.next().await? {
///         mirror.apply(&told.event);
///     }
/// }
/// println!("{} files differ", mirror.files().count());
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait DiffWatch: fmt::Debug + Send + Sync + 'static {
    /// Begins to follow a worktree's diff, or goes on after a cursor. Returns when the worktree is watched.
    ///
    /// # Errors
    ///
    /// [`DiffWatchError::Unsupported`]; [`DiffWatchError::Worktree`] as
    /// [`VcsWorktree::verify`](crate::vcs_worktree::VcsWorktree::verify).
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again.
    async fn follow(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        after: Option<DiffCursor>,
    ) -> Result<Box<dyn DiffFollower>, DiffWatchError>;
}

/// Follows one diff. Dropping it ends that.
#[async_trait]
pub trait DiffFollower: fmt::Debug + Send {
    /// Waits until there is something to tell and returns it: one event at least, and no more than fits into a page.
    ///
    /// # Errors
    ///
    /// See [`DiffWatchError`]; nothing follows then.
    ///
    /// # Cancel safety
    ///
    /// May be dropped; nothing is lost.
    async fn next(&mut self) -> Result<Vec<ToldDiff>, DiffWatchError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_is_written_and_nothing_else_is() {
        let cursor = DiffCursor { generation: 7, seq: u64::MAX, since: 0 };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for text in ["", "1", "1.2", "1.2.3.4", "1.2.x", "-1.2.3", "1..3"] {
            assert_eq!(text.parse::<DiffCursor>(), Err(InvalidDiffCursor), "{text:?}");
        }
    }
}
