//! The optional port `DiffWatch` in memory.
//!
//! Nothing is watched: a follower looks at the whole worktree whenever somebody changed something on the disk.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use async_trait::async_trait;
use bytes::Bytes;
use windlass_core::diff_ledger::{DiffLedger, FoundDiff, Standpoint};
use windlass_core::diff_watch::{DiffCursor, DiffFollower, DiffWatch, DiffWatchError, ToldDiff};
use windlass_core::id::AttemptId;
use windlass_core::locator::Locator;
use windlass_core::vcs_worktree::{Diff, VcsWorktree as _, VcsWorktreeError};
use windlass_core::workspace::Worktree;

use crate::vcs_worktree::MemoryWorktrees;
use crate::world::World;

/// About how many bytes a page of events has.
const PAGE_BYTES: usize = 4 << 10;

/// What is known of each worktree that was followed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Followed(Arc<Mutex<BTreeMap<Locator, DiffLedger>>>);

impl Followed {
    fn ledgers(&self) -> MutexGuard<'_, BTreeMap<Locator, DiffLedger>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl DiffWatch for MemoryWorktrees {
    async fn follow(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        after: Option<DiffCursor>,
    ) -> Result<Box<dyn DiffFollower>, DiffWatchError> {
        self.verify(attempt, worktree).await?;
        let first = self.first_generation();
        let known = self.followed().clone();
        known.ledgers().entry(worktree.path.clone()).or_insert_with(|| DiffLedger::new(first));
        let follower = Follower {
            world: self.shared_world().clone(),
            worktrees: self.again(),
            known,
            attempt,
            worktree: worktree.clone(),
            cursor: after,
        };
        Ok(Box::new(follower))
    }
}

#[derive(Debug)]
struct Follower {
    world: World,
    worktrees: MemoryWorktrees,
    known: Followed,
    attempt: AttemptId,
    worktree: Worktree,
    cursor: Option<DiffCursor>,
}

impl Follower {
    /// Looks at everything and tells what is new.
    fn look(&mut self) -> Result<Vec<ToldDiff>, VcsWorktreeError> {
        let (diff, branch) = self.worktrees.diff_now(self.attempt, &self.worktree)?;
        let mut ledgers = self.known.ledgers();
        let Some(ledger) = ledgers.get_mut(&self.worktree.path) else { return Ok(Vec::new()) };
        let at = Standpoint { base: diff.base.clone(), branch, head: diff.head.clone() };
        let same = |known: &Standpoint| known.base == at.base && known.branch == at.branch;
        match ledger.standpoint().is_some_and(same) {
            true => ledger.replace(at.head, pieces(diff), 0),
            false => ledger.begin(at, pieces(diff), 0),
        }
        let told = ledger.read(self.cursor, PAGE_BYTES);
        self.cursor = told.last().map(|last| last.cursor).or(self.cursor);
        Ok(told)
    }
}

#[async_trait]
impl DiffFollower for Follower {
    async fn next(&mut self) -> Result<Vec<ToldDiff>, DiffWatchError> {
        poll_fn(|context| {
            // Before it looks: what changes after that wakes it.
            self.world.follow_disk(context.waker());
            match self.look() {
                Ok(told) if told.is_empty() => Poll::Pending,
                told => Poll::Ready(told.map_err(Into::into)),
            }
        })
        .await
    }
}

/// Splits a diff into its files, each with what the patch says of it.
fn pieces(diff: Diff) -> Vec<FoundDiff> {
    let patch = diff.patch.unwrap_or_default();
    let text = String::from_utf8_lossy(&patch);
    let mut parts: BTreeMap<&str, &str> = BTreeMap::new();
    let mut begin = 0;
    // No line of a file begins so: each has a sign before it.
    let ends = text.match_indices("\ndiff --git ").map(|(at, _)| at + 1).chain([text.len()]);
    for end in ends {
        let part = &text[begin..end];
        let name = part.lines().next().and_then(|line| line.split_once(" b/"));
        if let Some((_, path)) = name {
            parts.insert(path, part);
        }
        begin = end;
    }
    let found = diff.files.into_iter().map(|file| {
        let paths = [file.old_path.as_ref(), Some(&file.path)].into_iter().flatten();
        let named = paths.filter_map(|path| parts.get(path.to_string().as_str()).copied());
        let patch = named.collect::<String>();
        let bytes = u64::try_from(patch.len()).unwrap_or(u64::MAX);
        FoundDiff { file, bytes, patch: Some(Bytes::from(patch)) }
    });
    found.collect()
}
