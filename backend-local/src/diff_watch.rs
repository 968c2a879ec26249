//! The optional port [`DiffWatch`] on git worktrees: directories are watched by inotify, and what changed is looked at.
//!
//! One task keeps the ledger of a worktree while anybody follows it, and for a while after, so that whoever lost the
//! connection can go on where it was. Followers read the ledger; nothing is sent to them but that there is something new.
//! Where the system has no inotify nothing is watched: what macOS tells of changes is of whole trees, ignored directories
//! included, and late.

#[cfg(target_os = "linux")]
mod keeper;
#[cfg(target_os = "linux")]
mod look;
#[cfg(target_os = "linux")]
mod pending;
#[cfg(target_os = "linux")]
mod watches;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use async_trait::async_trait;
use tokio::sync::watch;
use windlass_core::diff_ledger::DiffLedger;
use windlass_core::diff_watch::{DiffCursor, DiffFollower, DiffWatch, DiffWatchError, ToldDiff};
use windlass_core::id::AttemptId;
use windlass_core::workspace::Worktree;

use crate::vcs_worktree::GitWorktrees;

/// About how many bytes a page of events has.
const PAGE_BYTES: usize = 256 << 10;

/// How much of a worktree whose diff is followed is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiffWatchLimits {
    /// How many directories of one worktree. The system has a limit, too, for all that its user watches. Beyond either the
    /// rest is looked at whenever something changes that is watched.
    pub directories: usize,
    /// How many changes are taken at a time. If there are more, everything is looked at.
    pub events: usize,
}

impl Default for DiffWatchLimits {
    /// As much as the system allows.
    fn default() -> Self {
        Self { directories: usize::MAX, events: usize::MAX }
    }
}

/// The worktrees that are followed.
#[derive(Debug)]
pub(crate) struct FollowedDiffs {
    limits: DiffWatchLimits,
    followed: Mutex<Vec<(AttemptId, Worktree, Weak<Followed>)>>,
    /// Dropped with the backend: then nothing lingers.
    open: watch::Sender<()>,
}

impl FollowedDiffs {
    pub(crate) fn new(limits: DiffWatchLimits) -> Self {
        Self { limits, followed: Mutex::default(), open: watch::Sender::new(()) }
    }

    /// Returns a follower of what is followed already.
    fn join(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        after: Option<DiffCursor>,
    ) -> Option<Follower> {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        followed.retain(|(_, _, one)| one.strong_count() > 0);
        followed
            .iter()
            .filter(|(of, at, _)| *of == attempt && at == worktree)
            .find_map(|(_, _, one)| Follower::of(&one.upgrade()?, after))
    }
}

/// One worktree that is followed.
#[derive(Debug)]
struct Followed {
    state: Mutex<State>,
    /// Changes with the state. Its receivers are the followers.
    news: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    ledger: Arc<DiffLedger>,
    /// Why nothing will change any more.
    ended: Option<DiffWatchError>,
    /// Nobody followed any more.
    left: bool,
}

impl Followed {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who follows.
#[derive(Debug)]
struct Follower {
    followed: Arc<Followed>,
    news: watch::Receiver<()>,
    cursor: Option<DiffCursor>,
}

impl Follower {
    /// `None` if it is over with what would be followed.
    fn of(followed: &Arc<Followed>, after: Option<DiffCursor>) -> Option<Self> {
        let state = followed.state();
        if state.left || state.ended.is_some() {
            return None;
        }
        let news = followed.news.subscribe();
        drop(state);
        Some(Self { followed: Arc::clone(followed), news, cursor: after })
    }
}

#[async_trait]
impl DiffFollower for Follower {
    async fn next(&mut self) -> Result<Vec<ToldDiff>, DiffWatchError> {
        loop {
            self.news.borrow_and_update();
            let (ledger, ended) = {
                let state = self.followed.state();
                (Arc::clone(&state.ledger), state.ended.clone())
            };
            let told = ledger.read(self.cursor, PAGE_BYTES);
            if let Some(last) = told.last() {
                self.cursor = Some(last.cursor);
                return Ok(told);
            }
            if let Some(ended) = ended {
                return Err(ended);
            }
            if self.news.changed().await.is_err() {
                return Err(unsupported("the watch is over"));
            }
        }
    }
}

fn unsupported(reason: impl Into<String>) -> DiffWatchError {
    DiffWatchError::Unsupported { reason: reason.into() }
}

#[async_trait]
impl DiffWatch for GitWorktrees {
    async fn follow(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        after: Option<DiffCursor>,
    ) -> Result<Box<dyn DiffFollower>, DiffWatchError> {
        let live = self.live(attempt, worktree).await?;
        if let Some(follower) = self.followed.join(attempt, worktree, after) {
            return Ok(Box::new(follower));
        }
        #[cfg(not(target_os = "linux"))]
        {
            drop(live);
            Err(unsupported("this system has no inotify"))
        }
        #[cfg(target_os = "linux")]
        {
            let (followed, keep) = keeper::begin(live, &self.followed)?;
            let follower = Follower::of(&followed, after);
            let mut all = self.followed.followed.lock().unwrap_or_else(PoisonError::into_inner);
            all.push((attempt, worktree.clone(), Arc::downgrade(&followed)));
            drop(all);
            drop(tokio::spawn(keep));
            let follower = follower.ok_or_else(|| unsupported("the watch is over"))?;
            Ok(Box::new(follower))
        }
    }
}
