//! Worktrees that are given up at each step of their making, saving and removal, and stores that lose power.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use futures::FutureExt as _;
use uuid::Uuid;
use windlass_core::id::{AttemptId, HostId, NodeId};
use windlass_core::process_store::{
    Expect, Kind, ProcessStore as _, ProcessStoreError, Record, RecordKey, Write,
};
use windlass_core::snapshot::SnapshotNumber;
use windlass_core::time::Timestamp;
use windlass_core::vcs_worktree::{
    CreateMode, Creation, FoundState, Identity, Origin, Removal, SaveRequest, VcsWorktree as _,
    VcsWorktreeError, WorktreeRequest,
};
use windlass_core::workspace::Worktree;
use windlass_fakes::{
    Happened, Loss, MemoryRepositories, MemoryStore, MemoryWorktrees, Pace, Time, Unsynced,
    WorktreeStep, World,
};

const A: AttemptId = AttemptId(Uuid::from_u128(0xa));
const REMOVAL: SaveRequest = SaveRequest::before_removal(SnapshotNumber::FIRST);

fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("an answer at once")
}

struct Machine {
    world: World,
    repositories: MemoryRepositories,
    worktree: Worktree,
}

impl Machine {
    fn new() -> Self {
        let world = World::new(Timestamp(0), Time::Stands);
        world.collect_happened();
        let repositories = MemoryRepositories::new(world.clone());
        let repo = repositories.init();
        repositories.write(&repo, "file", b"content");
        let user = Identity { name: "User".to_owned(), email: "user@example.org".to_owned() };
        repositories.commit(&repo, "first", &user);
        let (base, branch, title, copy) = (None, None, String::new(), Vec::new());
        let request = WorktreeRequest { attempt: A, repo, base, branch, title, copy };
        let host = MemoryWorktrees::open(&repositories, "data");
        let worktree = now(host.plan(request)).unwrap().worktree;
        Self { world, repositories, worktree }
    }

    fn host(&self) -> MemoryWorktrees {
        MemoryWorktrees::open(&self.repositories, "data")
    }

    fn create(&self) {
        let made = now(self.host().create(A, &self.worktree, &Origin::Base, CreateMode::Begin));
        assert!(matches!(made, Ok(Creation::Done(_))), "{made:?}");
    }

    fn states(&self) -> Vec<FoundState> {
        let found = now(self.host().survey(std::slice::from_ref(&self.worktree.repo))).unwrap();
        found.into_iter().map(|found| found.state).collect()
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        self.repositories.read(&self.worktree.path, path)
    }
}

#[test]
fn a_creation_that_was_given_up_at_any_step_is_made_again() {
    for step in [
        WorktreeStep::Noted,
        WorktreeStep::Registered,
        WorktreeStep::CheckedOut,
        WorktreeStep::Marked,
    ] {
        let machine = Machine::new();
        machine.world.stop_worktree_at(step);
        let host = machine.host();
        let mut making =
            Box::pin(host.create(A, &machine.worktree, &Origin::Base, CreateMode::Begin));
        assert!((&mut making).now_or_never().is_none(), "{step:?}");
        // Nobody takes it from who is at it.
        let busy = machine.host().save(A, &machine.worktree, &REMOVAL).now_or_never();
        assert!(
            matches!(busy, None | Some(Err(VcsWorktreeError::Busy { .. }))),
            "{step:?}: {busy:?}"
        );
        drop(making);
        assert_eq!(machine.states(), [FoundState::Creating], "{step:?}");
        let verified = now(machine.host().verify(A, &machine.worktree));
        assert!(verified.is_err(), "{step:?}: {verified:?}");
        machine.create();
        assert_eq!(machine.states(), [FoundState::Whole], "{step:?}");
        assert_eq!(machine.read("file").as_deref(), Some(b"content".as_slice()), "{step:?}");
    }
}

#[test]
fn what_is_half_made_is_removed_without_a_trace() {
    for step in [WorktreeStep::Noted, WorktreeStep::Registered, WorktreeStep::CheckedOut] {
        let machine = Machine::new();
        machine.world.stop_worktree_at(step);
        let host = machine.host();
        let making = host.create(A, &machine.worktree, &Origin::Base, CreateMode::Begin);
        assert!(making.now_or_never().is_none(), "{step:?}");
        now(machine.host().remove(A, &machine.worktree, Removal::Worktree)).unwrap();
        assert_eq!(machine.states(), [], "{step:?}");
        let branches = machine.repositories.branches(&machine.worktree.repo);
        assert_eq!(branches, ["main"], "{step:?}");
    }
}

#[test]
fn a_save_that_was_given_up_at_any_step_is_done_again() {
    for step in [WorktreeStep::TakenAside, WorktreeStep::Archived, WorktreeStep::Recorded] {
        let machine = Machine::new();
        machine.create();
        machine.repositories.write(&machine.worktree.path, "new", b"work");
        machine.world.stop_worktree_at(step);
        let host = machine.host();
        assert!(host.save(A, &machine.worktree, &REMOVAL).now_or_never().is_none(), "{step:?}");
        assert_eq!(machine.states(), [FoundState::Removing], "{step:?}");
        if step != WorktreeStep::Recorded {
            let early = now(machine.host().remove(A, &machine.worktree, Removal::Worktree));
            assert!(matches!(early, Err(VcsWorktreeError::Unsaved { .. })), "{step:?}: {early:?}");
        }
        let saved = now(machine.host().save(A, &machine.worktree, &REMOVAL)).unwrap();
        assert_eq!(saved.snapshot.unwrap().entries, 1, "{step:?}");
        now(machine.host().remove(A, &machine.worktree, Removal::Worktree)).unwrap();
        assert_eq!(machine.states(), [], "{step:?}");
    }
}

#[test]
fn a_removal_that_was_given_up_at_any_step_is_ended() {
    for step in [WorktreeStep::Deleting, WorktreeStep::Unregistered, WorktreeStep::Trashed] {
        let machine = Machine::new();
        machine.create();
        now(machine.host().save(A, &machine.worktree, &REMOVAL)).unwrap();
        machine.world.stop_worktree_at(step);
        let host = machine.host();
        let removing = host.remove(A, &machine.worktree, Removal::Worktree);
        assert!(removing.now_or_never().is_none(), "{step:?}");
        now(machine.host().remove(A, &machine.worktree, Removal::Worktree)).unwrap();
        assert_eq!(machine.states(), [], "{step:?}");
        let removed = machine
            .world
            .take_happened()
            .into_iter()
            .filter(|(_, happened)| matches!(happened, Happened::DirectoryRemoved { .. }));
        assert_eq!(removed.count(), 1, "{step:?}");
    }
}

#[test]
fn a_restoration_ends_a_deletion_that_had_begun() {
    for step in [WorktreeStep::Deleting, WorktreeStep::Unregistered] {
        let machine = Machine::new();
        machine.create();
        machine.repositories.write(&machine.worktree.path, "new", b"work");
        let saved = now(machine.host().save(A, &machine.worktree, &REMOVAL)).unwrap();
        machine.world.stop_worktree_at(step);
        let host = machine.host();
        let removing = host.remove(A, &machine.worktree, Removal::Worktree);
        assert!(removing.now_or_never().is_none(), "{step:?}");
        let origin = Origin::Removed(windlass_core::vcs_worktree::Removed {
            head: saved.head,
            branch: saved.branch,
            snapshot: Some(SnapshotNumber::FIRST),
        });
        now(machine.host().create(A, &machine.worktree, &origin, CreateMode::Begin)).unwrap();
        assert_eq!(machine.states(), [FoundState::Whole], "{step:?}");
        assert_eq!(machine.read("new").as_deref(), Some(b"work".as_slice()), "{step:?}");
    }
}

#[test]
fn steps_take_their_time_and_the_lock_of_the_repository() {
    let machine = Machine::new();
    machine.world.set_pace(Pace { worktree_step_ms: 10, ..Pace::default() });
    let host = machine.host();
    let mut making = Box::pin(host.create(A, &machine.worktree, &Origin::Base, CreateMode::Begin));
    for at in [0, 10, 20, 30] {
        machine.world.set_now(Timestamp(at));
        assert!((&mut making).now_or_never().is_none(), "at {at}");
    }
    machine.world.set_now(Timestamp(40));
    assert!(matches!(now(making), Ok(Creation::Done(_))));
}

#[test]
fn a_worktree_that_was_not_on_the_disk_is_mended() {
    for (unsynced, left) in [
        (Unsynced::Gone, b"".as_slice()),
        (Unsynced::Torn { permille: 500 }, b"con".as_slice()),
        (Unsynced::Zeroed { permille: 500 }, b"con\0\0\0\0".as_slice()),
    ] {
        let machine = Machine::new();
        machine.world.set_pace(Pace { settle_ms: 1_000, ..Pace::default() });
        machine.create();
        machine.world.power_loss(Loss::of(unsynced));
        assert_eq!(machine.read("file").as_deref(), Some(left));
        let doubtful = now(machine.host().verify(A, &machine.worktree));
        assert!(matches!(doubtful, Err(VcsWorktreeError::Mismatch { .. })), "{doubtful:?}");
        machine.create();
        assert_eq!(machine.read("file").as_deref(), Some(b"content".as_slice()));
    }
    let machine = Machine::new();
    machine.world.set_pace(Pace { settle_ms: 1_000, ..Pace::default() });
    machine.create();
    machine.world.set_now(Timestamp(1_000));
    machine.world.power_loss(Loss::ALL);
    now(machine.host().verify(A, &machine.worktree)).unwrap();
}

#[test]
fn a_directory_without_a_registration_is_a_mismatch() {
    let machine = Machine::new();
    machine.create();
    machine.repositories.unregister(&machine.worktree.path);
    let found = now(machine.host().verify(A, &machine.worktree));
    assert!(matches!(found, Err(VcsWorktreeError::Mismatch { .. })), "{found:?}");
    assert!(matches!(machine.states()[..], [FoundState::Foreign { .. }]));
}

fn record(id: u128) -> Vec<Write> {
    let key = RecordKey { kind: Kind::Task, id: Uuid::from_u128(id) };
    let (parent, owner, state) = (None, None, "todo".to_owned());
    let record = Record { key, parent, owner, state, at: Timestamp(1), body: "{}".to_owned() };
    vec![Write::Put { record, expect: Expect::Absent }]
}

#[test]
fn a_batch_that_nobody_was_told_of_is_in_doubt_after_a_power_loss() {
    for (unsynced, kept) in
        [(Unsynced::Gone, 0), (Unsynced::Torn { permille: 500 }, 1), (Unsynced::Kept, 2)]
    {
        let world = World::new(Timestamp(0), Time::Stands);
        let store = MemoryStore::new(world.clone());
        let lease = now(store.acquire(HostId(Uuid::nil()), NodeId(Uuid::nil()))).unwrap();
        now(store.commit(record(1), lease)).unwrap();
        world.set_pace(Pace { commit_ms: 10, ..Pace::default() });
        let mut commits = [2, 3].map(|id| Box::pin(store.commit(record(id), lease)));
        for commit in &mut commits {
            assert!(commit.now_or_never().is_none());
        }
        assert_eq!(now(store.check()).unwrap().records, 1);
        world.power_loss(Loss::of(unsynced));
        for commit in commits {
            assert!(matches!(now(commit), Err(ProcessStoreError::Backend(_))));
        }
        assert_eq!(now(store.check()).unwrap().records, 1 + kept, "{unsynced:?}");
    }
}

#[test]
fn a_batch_that_is_given_up_happens_or_not_as_the_world_says() {
    for keeps_dropped_commits in [false, true] {
        let world = World::new(Timestamp(0), Time::Stands);
        let store = MemoryStore::new(world.clone());
        let lease = now(store.acquire(HostId(Uuid::nil()), NodeId(Uuid::nil()))).unwrap();
        world.set_pace(Pace { commit_ms: 10, keeps_dropped_commits, ..Pace::default() });
        assert!(store.commit(record(1), lease).now_or_never().is_none());
        let records = now(store.check()).unwrap().records;
        assert_eq!(records, u64::from(keeps_dropped_commits));
    }
}

#[test]
fn stale_reads_answer_with_what_was() {
    let world = World::new(Timestamp(0), Time::Stands);
    let store = MemoryStore::new(world.clone());
    let lease = now(store.acquire(HostId(Uuid::nil()), NodeId(Uuid::nil()))).unwrap();
    world.set_stale_reads(1);
    for id in 1..=3 {
        now(store.commit(record(id), lease)).unwrap();
        assert_eq!(u128::from(now(store.check()).unwrap().records), id - 1);
    }
    world.set_stale_reads(0);
    assert_eq!(now(store.check()).unwrap().records, 3);
}
