//! The user of the repositories in memory, and what runs a git step there.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use windlass_core::id::AttemptId;
use windlass_core::locator::{Locator, OsBytes};
use windlass_core::snapshot::SnapshotNumber;
use windlass_core::vcs_worktree::{GitStep, Identity};
use windlass_core::workspace::Oid;

use super::history::{Commit, File, Files, Head, Repository};
use super::{Checkout, Registration, STEP, World, compare};

/// Repositories in memory and the actions of their user.
///
/// # Panics
///
/// Every action panics where git or the file system would refuse it: a test asked for what cannot be.
#[derive(Clone, Debug, Default)]
pub struct MemoryRepositories {
    pub(super) world: Arc<Mutex<World>>,
}

impl MemoryRepositories {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
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
        let file: &mut File = world.files(dir).entry(path.to_owned()).or_default();
        file.content = content.to_vec();
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

    /// Copies everything as it is: what becomes of the copy does not touch this.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self { world: Arc::new(Mutex::new(self.world().clone())) }
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
    #[must_use]
    pub fn perform(&self, step: &GitStep) -> bool {
        let argv: Result<&[OsBytes; 2], _> = step.argv.as_slice().try_into();
        let [program, message] = argv.expect("a step that a fake described");
        assert_eq!(program.0, STEP.as_bytes(), "{step:?} is not ours");
        let message = String::from_utf8_lossy(&message.0).into_owned();
        let variable = |name: &str| {
            let found = step.env.iter().find(|(other, _)| other == name);
            found.map(|(_, value)| String::from_utf8_lossy(&value.0).into_owned())
        };
        let mut world = self.world();
        if !world.checkouts.contains_key(&step.cwd) {
            return false;
        }
        let given = variable("GIT_AUTHOR_NAME").zip(variable("GIT_AUTHOR_EMAIL"));
        let given = given.map(|(name, email)| Identity { name, email });
        let Some(author) = given.or_else(|| world.repository(&step.cwd).identity.clone()) else {
            return false;
        };
        let dirty = world.head_files(&step.cwd) != world.all_files(&step.cwd);
        if dirty {
            world.commit(&step.cwd, &message, &author);
        }
        true
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

impl World {
    fn files(&mut self, dir: &Locator) -> &mut Files {
        match self.checkouts.get_mut(dir) {
            Some(checkout) => &mut checkout.files,
            None => self.plain.get_mut(dir).expect("a directory"),
        }
    }

    /// The repository that a directory belongs to.
    fn repository(&mut self, dir: &Locator) -> &mut Repository {
        let common = self.checkouts.get(dir).map_or(dir, |checkout| &checkout.repository);
        self.repositories.get_mut(common).expect("a repository")
    }

    fn registration(&mut self, dir: &Locator) -> &mut Registration {
        self.repository(dir).checkouts.get_mut(dir).expect("a checkout")
    }

    fn head(&mut self, dir: &Locator) -> Oid {
        let head = self.registration(dir).head.clone();
        self.repository(dir).oid(&head).expect("a commit")
    }

    fn head_files(&mut self, dir: &Locator) -> Files {
        self.repository(dir).checked_out(dir).unwrap_or_default()
    }

    /// What a commit of everything would hold.
    fn all_files(&mut self, dir: &Locator) -> Files {
        let index = self.repository(dir).index(dir).unwrap_or_default();
        compare::all(&index, self.files(dir))
    }

    fn commit(&mut self, dir: &Locator, message: &str, author: &Identity) -> Oid {
        let files = self.all_files(dir);
        let head = self.registration(dir).head.clone();
        let repository = self.repository(dir);
        let parent = repository.oid(&head);
        let (message, author) = (message.to_owned(), author.clone());
        let commit = Commit { parent, files, message, author };
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
