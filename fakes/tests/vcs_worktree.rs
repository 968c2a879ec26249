//! The suites of the ports `VcsWorktree` and `DiffWatch` over their fakes.

use std::sync::Arc;

use windlass_conformance::diff_watch::{DiffWatchPlace, Ports};
use windlass_conformance::vcs_history::{self, VcsHistoryPlace};
use windlass_conformance::vcs_worktree::VcsWorktreePlace;
use windlass_core::locator::Locator;
use windlass_core::vcs_worktree::{GitStep, Identity, VcsWorktree};
use windlass_core::workspace::Oid;
use windlass_fakes::{MemoryRepositories, MemoryWorktrees};

/// Repositories in memory; opening worktrees again is a restart.
#[derive(Default)]
struct Memory(MemoryRepositories);

impl VcsWorktreePlace for Memory {
    async fn open(&self) -> Arc<dyn VcsWorktree> {
        Arc::new(MemoryWorktrees::open(&self.0, "data"))
    }

    async fn open_other(&self) -> Arc<dyn VcsWorktree> {
        Arc::new(MemoryWorktrees::open(&self.0, "other"))
    }

    fn init(&self) -> Locator {
        self.0.init()
    }

    fn directory(&self) -> Locator {
        self.0.directory()
    }

    fn write(&self, dir: &Locator, path: &str, content: &str) {
        self.0.write(dir, path, content.as_bytes());
    }

    fn read(&self, dir: &Locator, path: &str) -> Option<String> {
        self.0.read(dir, path).and_then(|content| String::from_utf8(content).ok())
    }

    fn delete(&self, dir: &Locator, path: &str) {
        self.0.delete(dir, path);
    }

    fn make_executable(&self, dir: &Locator, path: &str) {
        self.0.make_executable(dir, path);
    }

    fn make_special(&self, dir: &Locator, path: &str) {
        self.0.make_special(dir, path);
    }

    fn stage(&self, dir: &Locator, path: &str) {
        self.0.stage(dir, path);
    }

    fn indexed(&self, dir: &Locator, path: &str) -> Option<String> {
        self.0.indexed(dir, path).and_then(|content| String::from_utf8(content).ok())
    }

    fn hook(&self, dir: &Locator, fails: bool) {
        self.0.hook(dir, fails);
    }

    fn hook_runs(&self, dir: &Locator) -> u32 {
        self.0.hook_runs(dir)
    }

    fn filter(&self, dir: &Locator) {
        self.0.filter(dir);
    }

    fn begin_merge(&self, dir: &Locator, branch: &str) {
        self.0.begin_merge(dir, branch);
    }

    fn is_merging(&self, dir: &Locator) -> bool {
        self.0.is_merging(dir)
    }

    fn delete_branch(&self, dir: &Locator, name: &str) {
        self.0.delete_branch(dir, name);
    }

    fn commit(&self, dir: &Locator, message: &str) -> Oid {
        let user = Identity { name: "User".to_owned(), email: "user@example.org".to_owned() };
        self.0.commit(dir, message, &user)
    }

    fn identify(&self, dir: &Locator, identity: &Identity) {
        self.0.identify(dir, identity);
    }

    fn branch(&self, dir: &Locator, name: &str) {
        self.0.branch(dir, name);
    }

    fn tag(&self, dir: &Locator, name: &str) {
        self.0.tag(dir, name);
    }

    fn rename_branch(&self, dir: &Locator, name: &str) {
        self.0.rename_branch(dir, name);
    }

    fn switch(&self, dir: &Locator, name: &str) {
        self.0.switch(dir, name);
    }

    fn detach(&self, dir: &Locator) {
        self.0.detach(dir);
    }

    fn branches(&self, dir: &Locator) -> Vec<String> {
        self.0.branches(dir)
    }

    fn tip(&self, dir: &Locator, branch: &str) -> Oid {
        self.0.tip(dir, branch)
    }

    fn delete_directory(&self, dir: &Locator) {
        self.0.delete_directory(dir);
    }

    fn replace_directory(&self, dir: &Locator) {
        self.0.replace_directory(dir);
    }

    fn exists(&self, dir: &Locator) -> bool {
        self.0.exists(dir)
    }

    fn perform(&self, step: &GitStep) -> bool {
        self.0.perform(step)
    }

    fn last_commit(&self, dir: &Locator) -> (String, Identity) {
        self.0.last_commit(dir)
    }
}

impl DiffWatchPlace for Memory {
    async fn open_watched(&self) -> Ports {
        let worktrees = Arc::new(MemoryWorktrees::open(&self.0, "data"));
        Ports { worktrees: worktrees.clone(), watch: worktrees }
    }
}

impl VcsHistoryPlace for Memory {
    async fn open_history(&self) -> vcs_history::Ports {
        let worktrees = Arc::new(MemoryWorktrees::open(&self.0, "data"));
        vcs_history::Ports { worktrees: worktrees.clone(), history: worktrees }
    }
}

windlass_conformance::vcs_history_suite! {
    history => crate::Memory,
}

windlass_conformance::vcs_worktree_suite! {
    memory => crate::Memory,
}

windlass_conformance::diff_watch_suite! {
    followed => crate::Memory,
}
