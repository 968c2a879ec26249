//! The task that keeps the ledger of one worktree: waits until something happens, lets it become quiet, looks, notes.

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use windlass_core::diff_ledger::DiffLedger;
use windlass_core::diff_watch::DiffWatchError;
use windlass_core::error::BackendError;
use windlass_core::vcs_worktree::VcsWorktreeError;

use super::look::{Looker, Seen};
use super::pending::Pending;
use super::watches::Watches;
use super::{Followed, FollowedDiffs, State, unsupported};
use crate::group::Cancel;
use crate::vcs_worktree::Live;

/// How long nothing happens before a few changes are looked at: an editor makes several of one.
const QUIET: Duration = Duration::from_millis(2);
/// The same for many.
const QUIET_OF_MANY: Duration = Duration::from_millis(25);
/// How many are many.
const MANY: usize = 256;
/// How long quiet is waited for at most, unless the last look took longer.
const LONGEST: Duration = Duration::from_millis(15);
/// How long it is waited for at most, however long a look takes.
const LONGEST_OF_ALL: Duration = Duration::from_secs(1);
/// How long a worktree is watched after its last follower has left, so that one that lost its connection can go on.
const LINGER: Duration = Duration::from_secs(10);
/// How many looks in a row may fail because something changed under them.
const FAILURES: u32 = 16;

/// Begins to follow a worktree; what is returned beside it keeps it up, until nobody follows any more.
pub(super) fn begin(
    live: Live,
    all: &FollowedDiffs,
) -> Result<(Arc<Followed>, impl Future<Output = ()> + Send + use<>), DiffWatchError> {
    let watches = Watches::new(&live.top(), all.limits).map_err(no_watch)?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Later than what any watch before it began with, and it counts generations, of which none takes a microsecond.
    let first = u64::try_from(since.as_micros()).unwrap_or(u64::MAX / 2);
    let ledger = Arc::new(DiffLedger::new(first));
    let state = Mutex::new(State { ledger: Arc::clone(&ledger), ended: None, left: false });
    let followed = Arc::new(Followed { state, news: watch::Sender::new(()) });
    let keeper = Keeper {
        followed: Arc::clone(&followed),
        live,
        watches: Arc::new(watches),
        ledger,
        open: all.open.subscribe(),
        alone_since: None,
        pending: Pending::default(),
        last_look: Duration::ZERO,
        failures: 0,
    };
    Ok((followed, keeper.keep()))
}

fn no_watch(error: io::Error) -> DiffWatchError {
    let often = "more worktrees are watched than the system allows (fs.inotify.max_user_instances)";
    match rustix::io::Errno::from_io_error(&error) {
        Some(rustix::io::Errno::MFILE) => unsupported(often),
        _ => unsupported(error.to_string()),
    }
}

struct Keeper {
    followed: Arc<Followed>,
    live: Live,
    watches: Arc<Watches>,
    ledger: Arc<DiffLedger>,
    open: watch::Receiver<()>,
    alone_since: Option<Instant>,
    pending: Pending,
    last_look: Duration,
    failures: u32,
}

impl Keeper {
    async fn keep(mut self) {
        self.pending.everywhere();
        let ended = loop {
            match self.turn().await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => break error,
            }
        };
        self.followed.state().ended = Some(ended);
        self.followed.news.send_replace(());
    }

    /// Waits, looks and notes once; says whether anybody follows still.
    async fn turn(&mut self) -> Result<bool, DiffWatchError> {
        while self.pending.is_empty() {
            let over = tokio::select! {
                biased;
                happened = self.watches.happened(&mut self.pending) => {
                    happened.map_err(no_watch)?;
                    false
                }
                () = left(&self.followed, &mut self.open, &mut self.alone_since) => true,
            };
            if over && self.leave() {
                return Ok(false);
            }
        }
        self.become_quiet().await?;
        let pending = std::mem::take(&mut self.pending);
        let begun = Instant::now();
        let seen = self.look(pending).await;
        self.last_look = begun.elapsed();
        // What failed may have failed because of what happened meanwhile.
        self.watches.read(&mut self.pending).map_err(no_watch)?;
        match seen {
            Ok(seen) => {
                self.failures = 0;
                self.note(seen);
            }
            Err(VcsWorktreeError::Gone { path }) => {
                return Err(VcsWorktreeError::Gone { path }.into());
            }
            Err(error) if self.pending.is_empty() || self.failures >= FAILURES => {
                return Err(error.into());
            }
            Err(_) => {
                self.failures += 1;
                self.pending.everywhere();
            }
        }
        Ok(true)
    }

    /// Waits until nothing happens for a moment: what happens together is looked at together.
    async fn become_quiet(&mut self) -> Result<(), DiffWatchError> {
        if self.ledger.standpoint().is_none() {
            return Ok(());
        }
        let longest = LONGEST.max(self.last_look).min(LONGEST_OF_ALL);
        let begun = Instant::now();
        loop {
            let many = self.pending.count() >= MANY;
            let (quiet, longest) = match many {
                true => (QUIET_OF_MANY, LONGEST_OF_ALL.min(longest * 8)),
                false => (QUIET, longest),
            };
            let left = longest.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            match timeout(quiet.min(left), self.watches.happened(&mut self.pending)).await {
                Ok(happened) => happened.map_err(no_watch)?,
                Err(_) => return Ok(()),
            }
        }
    }

    /// Looks where something happened, and notes what happens meanwhile.
    async fn look(&mut self, pending: Pending) -> Result<Seen, VcsWorktreeError> {
        let failed = |error| BackendError::transient("git", "look", error);
        let (interest, cancel) = Cancel::new().map_err(failed)?;
        let (live, watches) = (self.live.clone(), Arc::clone(&self.watches));
        let ledger = Arc::clone(&self.ledger);
        let mut look = tokio::task::spawn_blocking(move || {
            let looker =
                Looker { live: &live, watches: &watches, ledger: &ledger, cancel: &cancel };
            looker.look(&pending)
        });
        let done = loop {
            tokio::select! {
                biased;
                done = &mut look => break done,
                happened = self.watches.happened(&mut self.pending) => happened.map_err(failed)?,
            }
        };
        drop(interest);
        done.map_err(|error| BackendError::permanent("git", "look", error))?
    }

    /// Notes what was found, and tells the followers.
    fn note(&mut self, seen: Seen) {
        let unwatched = self.watches.unwatched();
        let ledger = {
            // Followers hold on to a ledger only while they read a page of it.
            self.followed.state().ledger = Arc::new(DiffLedger::new(0));
            Arc::make_mut(&mut self.ledger)
        };
        match seen {
            Seen::Anew(at, found) => ledger.begin(at, found, unwatched),
            Seen::All(head, found) => ledger.replace(head, found, unwatched),
            Seen::Some(head, gone, found) => ledger.update(head, gone, found, unwatched),
        }
        self.followed.state().ledger = Arc::clone(&self.ledger);
        self.followed.news.send_replace(());
    }

    /// Leaves if nobody has come back meanwhile; says whether it did.
    fn leave(&self) -> bool {
        let mut state = self.followed.state();
        state.left = self.followed.news.receiver_count() == 0;
        state.left
    }
}

/// Waits until nobody has followed for a while, or at all if the backend is gone.
async fn left(
    followed: &Followed,
    open: &mut watch::Receiver<()>,
    alone_since: &mut Option<Instant>,
) {
    if followed.news.receiver_count() > 0 {
        *alone_since = None;
        followed.news.closed().await;
    }
    let until = *alone_since.get_or_insert_with(Instant::now) + LINGER;
    // Nothing is ever sent: it changes when the backend is dropped.
    drop(timeout_at(until, open.changed()).await);
}
