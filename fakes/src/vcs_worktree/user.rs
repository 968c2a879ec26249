//! The user of the repositories in memory, and what runs a git step there.

use std::collections::BTreeSet;

use windlass_core::id::AttemptId;
use windlass_core::locator::Locator;
use windlass_core::snapshot::SnapshotNumber;
use windlass_core::time::Timestamp;
use windlass_core::vcs_worktree::{GitStep, Identity};
use windlass_core::workspace::Oid;

use super::history::{Commit, File, Files, Head, Repository};
use super::in_world::DiskGuard;
use super::{Checkout, Disk, Registration, compare};
use crate::world::World;

/// Repositories in memory and the actions of their user.
///
/// # Panics
///
/// Every action panics where git or the file system would refuse it: a test asked for what cannot be.
#[derive(Clone, Debug, Default)]
pub struct MemoryRepositories {
    world: World,
}

impl MemoryRepositories {
    /// Opens the repositories of a world. By default they are in a world of their own.
    #[must_use]
    pub fn new(world: World) -> Self {
        Self { world }
    }

    pub(super) fn shared(&self) -> &World {
        &self.world
    }

    /// Returns when what a creation writes now is on the disk; `None` if it is at once.
    pub(super) fn settled_at(&self) -> Option<Timestamp> {
        self.world.edit(|state| {
            let ms = state.pace.settle_ms;
            (ms > 0).then(|| state.now.plus_ms(ms))
        })
    }

    pub(super) fn world(&self) -> DiskGuard<'_> {
        DiskGuard::new(&self.world)
    }

    /// Makes an empty repository with branch `main` checked out and returns its directory.
    #[must_use]
    pub fn init(&self) -> Locator {
        let mut world = self.world();
        world.made += 1;
        let dir = Locator::new(format!("/home/repository-{}", world.made));
        let common = Locator::new(format!("{dir}/.git"));
        let head = Head::Branch("main".to_owned());
        let registration = Registration::new(head, BTreeSet::new());
        let mut repository = Repository::default();
        repository.checkouts.insert(dir.clone(), registration);
        world.repositories.insert(common.clone(), repository);
        world.checkouts.insert(dir.clone(), Checkout::new(common, Files::new()));
        dir
    }

    /// Makes a directory that is in no repository.
    #[must_use]
    pub fn directory(&self) -> Locator {
        let mut world = self.world();
        world.made += 1;
        let dir = Locator::new(format!("/home/directory-{}", world.made));
        world.plain.insert(dir.clone(), Files::new());
        dir
    }

    /// Writes a file, with the directory if there is none; a file that is there keeps its mode.
    pub fn write(&self, dir: &Locator, path: &str, content: &[u8]) {
        let mut world = self.world();
        if !world.checkouts.contains_key(dir) {
            world.plain.entry(dir.clone()).or_default();
        }
        world.write(None, dir, path, content);
    }

    /// Reads a file; `None` if there is none.
    #[must_use]
    pub fn read(&self, dir: &Locator, path: &str) -> Option<Vec<u8>> {
        let mut world = self.world();
        if !world.checkouts.contains_key(dir) && !world.plain.contains_key(dir) {
            return None;
        }
        world.files(dir).get(path).map(|file| file.content.clone())
    }

    /// Says whether a snapshot of an attempt has a file of this path: among what it keeps, or in a commit that it names.
    #[must_use]
    pub fn is_saved(&self, attempt: AttemptId, path: &str) -> bool {
        let world = self.world();
        let of = world.snapshots.iter().filter(|((_, other, _), _)| *other == attempt);
        of.into_iter().any(|(_, archive)| {
            let named = archive.commits.iter().chain([&archive.snapshot.head]);
            let mut commits = named.filter_map(|oid| {
                world.repositories.values().find_map(|repository| repository.commits.get(oid))
            });
            archive.changed.contains_key(path)
                || commits.any(|commit| commit.files.contains_key(path))
        })
    }

    /// Deletes a file.
    pub fn delete(&self, dir: &Locator, path: &str) {
        let gone = self.world().files(dir).remove(path);
        assert!(gone.is_some(), "there is no {path:?} in {dir}");
    }

    /// Makes an entry that is neither file nor link nor directory, for example a socket.
    pub fn make_special(&self, dir: &Locator, path: &str) {
        let mut world = self.world();
        let checkout = world.checkouts.get_mut(dir).expect("a checkout");
        checkout.special.insert(path.to_owned());
    }

    /// Puts a file as it is, or its deletion, into the index.
    pub fn stage(&self, dir: &Locator, path: &str) {
        let mut world = self.world();
        let file = world.files(dir).get(path).cloned();
        world.registration(dir).staged.insert(path.to_owned(), file);
    }

    /// Reads a file of the index; `None` if there is none.
    #[must_use]
    pub fn indexed(&self, dir: &Locator, path: &str) -> Option<Vec<u8>> {
        let mut world = self.world();
        let index = world.repository(dir).index(dir).unwrap_or_default();
        index.get(path).map(|file| file.content.clone())
    }

    /// Begins a merge that changes no file and does not end it.
    pub fn begin_merge(&self, dir: &Locator, branch: &str) {
        let mut world = self.world();
        assert!(world.repository(dir).branches.contains_key(branch), "there is no {branch:?}");
        world.registration(dir).merging = Some(branch.to_owned());
    }

    /// Says whether a merge has begun and not ended.
    #[must_use]
    pub fn is_merging(&self, dir: &Locator) -> bool {
        self.world().registration(dir).merging.is_some()
    }

    /// Locks a worktree against removal, or gives it free.
    pub fn lock(&self, dir: &Locator, locked: bool) {
        self.world().registration(dir).locked = locked;
    }

    /// Lets a process work in a directory, or leave it.
    pub fn occupy(&self, dir: &Locator, occupied: bool) {
        let mut world = self.world();
        if occupied {
            world.occupied.insert(dir.clone());
        } else {
            world.occupied.remove(dir);
        }
    }

    /// Writes to a worktree that was taken aside, as a process does that has a file of it open.
    pub fn write_aside(&self, dir: &Locator, path: &str, content: &[u8]) {
        let mut world = self.world();
        let aside = world.asides.get_mut(dir).and_then(|aside| aside.checkout.as_mut());
        let file = aside.expect("a worktree aside").files.entry(path.to_owned()).or_default();
        file.content = content.to_vec();
    }

    /// Leaves a worktree as a crash does in the middle of a save: out of the way and not saved.
    pub fn crash_while_saving(&self, dir: &Locator) {
        self.world().take_aside(dir);
    }

    /// Makes a snapshot unreadable.
    pub fn damage_snapshot(
        &self,
        data_directory: &str,
        attempt: AttemptId,
        number: SnapshotNumber,
    ) {
        let key = (data_directory.to_owned(), attempt, number);
        let mut world = self.world();
        world.snapshots.get_mut(&key).expect("a snapshot").damaged = true;
    }

    /// Counts the snapshots that there are.
    #[must_use]
    pub fn snapshots(&self) -> usize {
        self.world().snapshots.len()
    }

    /// Says how many bytes the snapshots of one data directory may take.
    pub fn set_snapshot_quota(&self, bytes: u64) {
        self.world().snapshot_quota_bytes = bytes;
    }

    /// Gives the repository a hook that runs after the checkout of a new worktree and leaves the file `hooked` there.
    pub fn hook(&self, dir: &Locator, fails: bool) {
        self.world().repository(dir).users_code.hook = Some(fails);
    }

    /// Counts how often the hook ran.
    #[must_use]
    pub fn hook_runs(&self, dir: &Locator) -> u32 {
        self.world().repository(dir).users_code.hook_runs
    }

    /// Has the repository's files pass a filter when they are checked out.
    pub fn filter(&self, dir: &Locator) {
        self.world().repository(dir).users_code.filters = true;
    }

    /// Copies everything as it is: what becomes of the copy does not touch this.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self { world: self.world.fork() }
    }

    /// Makes a file executable.
    pub fn make_executable(&self, dir: &Locator, path: &str) {
        let mut world = self.world();
        let file = world.files(dir).get_mut(path);
        file.expect("the file to make executable").executable = true;
    }

    /// Commits everything in a checkout; returns the commit.
    pub fn commit(&self, dir: &Locator, message: &str, author: &Identity) -> Oid {
        self.world().commit(dir, message, author)
    }

    /// Gives the repository an identity.
    pub fn identify(&self, dir: &Locator, identity: &Identity) {
        self.world().repository(dir).identity = Some(identity.clone());
    }

    /// Makes a branch at HEAD without checking it out.
    pub fn branch(&self, dir: &Locator, name: &str) {
        let mut world = self.world();
        let oid = world.head(dir);
        let repository = world.repository(dir);
        repository.free(name).expect("a free branch name");
        repository.branches.insert(name.to_owned(), oid);
    }

    /// Tags HEAD.
    pub fn tag(&self, dir: &Locator, name: &str) {
        let mut world = self.world();
        let oid = world.head(dir);
        world.repository(dir).tags.insert(name.to_owned(), oid);
    }

    /// Renames the branch that is checked out.
    pub fn rename_branch(&self, dir: &Locator, name: &str) {
        let mut world = self.world();
        let old = world.registration(dir).head.branch().map(str::to_owned);
        let old = old.expect("a branch that is checked out");
        let repository = world.repository(dir);
        let oid = repository.branches.remove(&old).expect("a branch with a commit");
        repository.free(name).expect("a free branch name");
        repository.branches.insert(name.to_owned(), oid);
        world.registration(dir).head = Head::Branch(name.to_owned());
    }

    /// Makes a branch at HEAD and checks it out.
    pub fn switch(&self, dir: &Locator, name: &str) {
        self.branch(dir, name);
        self.world().registration(dir).head = Head::Branch(name.to_owned());
    }

    /// Detaches HEAD from its branch.
    pub fn detach(&self, dir: &Locator) {
        let mut world = self.world();
        let oid = world.head(dir);
        world.registration(dir).head = Head::Detached(oid);
    }

    /// Deletes a branch, wherever it is checked out.
    pub fn delete_branch(&self, dir: &Locator, name: &str) {
        let gone = self.world().repository(dir).branches.remove(name);
        assert!(gone.is_some(), "there is no branch {name:?}");
    }

    /// Lists the branches of the repository, sorted.
    #[must_use]
    pub fn branches(&self, dir: &Locator) -> Vec<String> {
        self.world().repository(dir).branches.keys().cloned().collect()
    }

    /// Reads the commit of a branch.
    #[must_use]
    pub fn tip(&self, dir: &Locator, branch: &str) -> Oid {
        let tip = self.world().repository(dir).branches.get(branch).cloned();
        tip.expect("a branch of this name")
    }

    /// Counts the commits of a branch, of a merge those of its first side.
    #[must_use]
    pub fn commits(&self, dir: &Locator, branch: &str) -> usize {
        let tip = self.tip(dir, branch);
        self.world().repository(dir).line(&tip).len()
    }

    /// Lets the repository forget a worktree whose directory stays, as `git worktree prune` may.
    pub fn unregister(&self, dir: &Locator) {
        let mut world = self.world();
        let gone = world.repository(dir).checkouts.remove(dir);
        assert!(gone.is_some(), "{dir} is not registered");
    }

    /// Leaves a lock of git's in a checkout, as a git does that was killed; held by somebody, it keeps every commit away.
    pub fn leave_git_lock(&self, dir: &Locator, held: bool) {
        self.world().git_locks.insert(dir.clone(), held);
    }

    /// Deletes a whole directory.
    pub fn delete_directory(&self, dir: &Locator) {
        let mut world = self.world();
        let gone = world.checkouts.remove(dir).is_some() | world.plain.remove(dir).is_some();
        assert!(gone, "there is no directory {dir}");
    }

    /// Puts an ordinary directory with one file in a directory's place.
    pub fn replace_directory(&self, dir: &Locator) {
        self.delete_directory(dir);
        let files = Files::from([("stranger".to_owned(), File::default())]);
        self.world().plain.insert(dir.clone(), files);
    }

    /// Says whether there is a directory.
    #[must_use]
    pub fn exists(&self, dir: &Locator) -> bool {
        let world = self.world();
        world.checkouts.contains_key(dir) || world.plain.contains_key(dir)
    }

    /// Runs a git step that [`MemoryWorktrees`](super::MemoryWorktrees) described; says whether it ended with 0.
    ///
    /// The containers of the same world run it as well.
    #[must_use]
    pub fn perform(&self, step: &GitStep) -> bool {
        self.world().perform_step(step) == 0
    }

    /// Reads message and author of the commit that HEAD names.
    #[must_use]
    pub fn last_commit(&self, dir: &Locator) -> (String, Identity) {
        let mut world = self.world();
        let oid = world.head(dir);
        let commit = &world.repository(dir).commits[&oid];
        (commit.message.clone(), commit.author.clone())
    }
}

impl Disk {
    pub(super) fn files(&mut self, dir: &Locator) -> &mut Files {
        match self.checkouts.get_mut(dir) {
            Some(checkout) => &mut checkout.files,
            None => self.plain.get_mut(dir).expect("a directory"),
        }
    }

    /// The repository that a directory belongs to.
    pub(super) fn repository(&mut self, dir: &Locator) -> &mut Repository {
        let common = self.checkouts.get(dir).map_or(dir, |checkout| &checkout.repository);
        self.repositories.get_mut(common).expect("a repository")
    }

    pub(super) fn registration(&mut self, dir: &Locator) -> &mut Registration {
        self.repository(dir).checkouts.get_mut(dir).expect("a checkout")
    }

    fn head(&mut self, dir: &Locator) -> Oid {
        let head = self.registration(dir).head.clone();
        self.repository(dir).oid(&head).expect("a commit")
    }

    pub(super) fn head_files(&mut self, dir: &Locator) -> Files {
        self.repository(dir).checked_out(dir).unwrap_or_default()
    }

    /// What a commit of everything would hold.
    pub(super) fn all_files(&mut self, dir: &Locator) -> Files {
        let index = self.repository(dir).index(dir).unwrap_or_default();
        compare::all(&index, self.files(dir))
    }

    pub(super) fn commit(&mut self, dir: &Locator, message: &str, author: &Identity) -> Oid {
        let files = self.all_files(dir);
        let head = self.registration(dir).head.clone();
        let repository = self.repository(dir);
        let parent = repository.oid(&head);
        let (message, author) = (message.to_owned(), author.clone());
        let commit = Commit { parent, merges: None, files, message, author };
        let oid = commit.oid();
        repository.commits.insert(oid.clone(), commit);
        let registration = self.registration(dir);
        registration.been.insert(oid.clone());
        registration.staged.clear();
        registration.merging = None;
        match head {
            Head::Detached(_) => registration.head = Head::Detached(oid.clone()),
            Head::Branch(name) => {
                self.repository(dir).branches.insert(name, oid.clone());
            }
        }
        oid
    }
}
