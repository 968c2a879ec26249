//! [`Relocate`]: changes records whose locators lead nowhere, because what they name was moved.
//!
//! Nothing is looked at but records, and nothing is moved. A record that is changed already is left as it is, so that it can
//! be done again after a crash at any point.

use std::fmt;

use windlass_core::locator::Locator;
use windlass_core::process_store::{
    Expect, Kind, Lease, ProcessStore, ProcessStoreExt as _, Query, Write,
};
use windlass_core::record::{
    AttemptRecord, ExecutionRecord, FollowUpRecord, FollowUpState, Phase, Recorded,
};
use windlass_core::snapshot::SnapshotRecord;
use windlass_core::workspace::Workspace;

use crate::error::EngineError;
use crate::handle::About;
use crate::host::records::store_error;

/// How many records one batch changes at most.
const BATCH: usize = 500;

/// Says where things are by now.
pub trait Relocate: fmt::Debug + Send + Sync {
    /// Returns where something is by now; `None` for what is where it was.
    fn relocate(&self, from: &Locator) -> Option<Locator>;
}

/// Changes every record that names a place which is elsewhere by now. What an execution that is over ran in stays as it was.
pub(crate) async fn relocate(
    store: &dyn ProcessStore,
    about: &About,
    to: &dyn Relocate,
) -> Result<(), EngineError> {
    let lease = store.acquire(about.host, about.node).await.map_err(store_error)?;
    let all = || Query::newest(Kind::Attempt, Query::MAX_LIMIT);
    change(store, lease, all(), |record| attempt(record, to)).await?;
    let snapshots = Query { kind: Kind::Snapshot, ..all() };
    change(store, lease, snapshots, |record: &mut SnapshotRecord| {
        moved(&mut record.snapshot.archive, to)
    })
    .await?;
    let waiting = FollowUpState::ALL.iter().filter(|state| state.waits());
    let states = waiting.map(|state| state.as_str().to_owned()).collect();
    let waiting = Query { kind: Kind::FollowUp, states, ..all() };
    change(store, lease, waiting, |record: &mut FollowUpRecord| moved(&mut record.cwd, to)).await?;
    let active = Phase::ALL.iter().filter(|phase| **phase != Phase::Final);
    let states = active.map(|phase| phase.as_str().to_owned()).collect();
    let active = Query { kind: Kind::Execution, states, ..all() };
    change(store, lease, active, |record: &mut ExecutionRecord| {
        let lock = record.repository_lock.as_mut().is_some_and(|lock| moved(lock, to));
        moved(&mut record.cwd, to) || lock
    })
    .await
}

/// Changes records of one kind. What cannot be read was set aside by the store or is of a newer version, and is left alone.
async fn change<T: Recorded>(
    store: &dyn ProcessStore,
    lease: Lease,
    query: Query,
    mut change: impl FnMut(&mut T) -> bool,
) -> Result<(), EngineError> {
    let mut writes = Vec::new();
    for stored in store.list_all(query).await.map_err(store_error)? {
        let Ok(mut value) = T::decode(&stored.record) else { continue };
        if change(&mut value) {
            let expect = Expect::At(stored.revision);
            writes.push(Write::Put { record: value.encode(), expect });
        }
    }
    for batch in writes.chunks(BATCH) {
        store.commit(batch.to_vec(), lease).await.map_err(store_error)?;
    }
    Ok(())
}

fn attempt(record: &mut AttemptRecord, to: &dyn Relocate) -> bool {
    match &mut record.workspace {
        Workspace::Worktree(worktree) => {
            let from = worktree.copy.as_mut().map(|copy| &mut copy.from);
            let named = [Some(&mut worktree.path), Some(&mut worktree.repo), from];
            let mut any = false;
            for one in named.into_iter().flatten() {
                any |= moved(one, to);
            }
            any
        }
        Workspace::Directory { path } => moved(path, to),
    }
}

fn moved(locator: &mut Locator, to: &dyn Relocate) -> bool {
    let now = to.relocate(locator);
    let moved = now.is_some();
    if let Some(now) = now {
        *locator = now;
    }
    moved
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use uuid::Uuid;
    use windlass_core::id::{AttemptId, Epoch, HostId, NodeId};
    use windlass_core::record::{CommitPolicy, NewAttempt};
    use windlass_core::snapshot::{Snapshot, SnapshotCause, SnapshotNumber};
    use windlass_core::time::Timestamp;
    use windlass_core::workspace::{CopyIn, Oid, Worktree};
    use windlass_fakes::MemoryStore;

    use super::*;

    /// From `/old` to `/new`, with how often that was said.
    #[derive(Debug, Default)]
    struct Move(AtomicU32);

    impl Relocate for Move {
        fn relocate(&self, from: &Locator) -> Option<Locator> {
            let rest = from.as_bytes().strip_prefix(b"/old/")?;
            self.0.fetch_add(1, Ordering::Relaxed);
            Some(Locator::new([b"/new/", rest].concat()))
        }
    }

    const NODE: NodeId = NodeId(Uuid::from_u128(7));

    fn record(number: u128, workspace: Workspace) -> AttemptRecord {
        AttemptRecord::new(NewAttempt {
            id: AttemptId(Uuid::from_u128(number)),
            title: String::new(),
            owner: None,
            workspace,
            commit: CommitPolicy::Commit,
            node: NODE,
            host: HostId(Uuid::nil()),
            epoch: Epoch(1),
            at: Timestamp(1),
        })
    }

    fn worktree() -> Worktree {
        Worktree {
            repo: Locator::new("/elsewhere/repo/.git"),
            path: Locator::new("/old/worktrees/repo/one"),
            branch: "b".into(),
            base: "main".into(),
            base_oid: Oid("0".into()),
            target: None,
            copy: Some(CopyIn { from: Locator::new("/old/worktrees/repo/two"), globs: Vec::new() }),
        }
    }

    fn snapshot(attempt: AttemptId) -> SnapshotRecord {
        let snapshot = Snapshot {
            number: SnapshotNumber(1),
            head: Oid("0".into()),
            branch: None,
            entries: 0,
            bytes: 0,
            deleted: 0,
            commits: 0,
            archive: Locator::new("/old/snapshots/1.tar.zst"),
            archive_bytes: 0,
            sha256: String::new(),
            left_out: Vec::new(),
            more_left_out: 0,
            left_out_bytes: 0,
        };
        let (cause, created_at) = (SnapshotCause::Removal, Timestamp(1));
        SnapshotRecord { attempt, owner: None, cause, snapshot, created_at }
    }

    async fn read<T: Recorded>(store: &MemoryStore, id: Uuid) -> T {
        let key = windlass_core::process_store::RecordKey { kind: T::KIND, id };
        T::decode(&store.get(key).await.unwrap().unwrap().record).unwrap()
    }

    #[tokio::test]
    async fn records_that_lead_elsewhere_are_changed_once_and_others_are_left_as_they_are() {
        let store = MemoryStore::default();
        let (host, since) = (HostId(Uuid::from_u128(8)), Timestamp(1));
        let about = About { node: NODE, host, pid: 0, since };
        let ours = record(1, Workspace::Worktree(worktree()));
        let theirs = record(2, Workspace::Directory { path: Locator::new("/older") });
        let kept = snapshot(ours.id);
        let lease = store.acquire(host, NODE).await.unwrap();
        let records = [ours.encode(), theirs.encode(), kept.encode()];
        let create = |record| Write::Put { record, expect: Expect::Absent };
        store.commit(records.map(create).to_vec(), lease).await.unwrap();
        let to = Move::default();
        relocate(&store, &about, &to).await.unwrap();
        let Workspace::Worktree(moved) = read::<AttemptRecord>(&store, ours.id.0).await.workspace
        else {
            panic!("it is a worktree");
        };
        assert_eq!(moved.path, Locator::new("/new/worktrees/repo/one"));
        assert_eq!(moved.copy.unwrap().from, Locator::new("/new/worktrees/repo/two"));
        assert_eq!(moved.repo, worktree().repo);
        let archive = read::<SnapshotRecord>(&store, kept.encode().key.id).await.snapshot.archive;
        assert_eq!(archive, Locator::new("/new/snapshots/1.tar.zst"));
        assert_eq!(read::<AttemptRecord>(&store, theirs.id.0).await, theirs);
        // The host of before may write no more, and nothing is left to be done.
        let late = vec![create(record(3, Workspace::Worktree(worktree())).encode())];
        assert!(store.commit(late, lease).await.is_err());
        let moves = to.0.load(Ordering::Relaxed);
        relocate(&store, &about, &to).await.unwrap();
        assert_eq!((moves, to.0.load(Ordering::Relaxed)), (3, 3));
    }
}
