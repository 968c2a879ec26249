//! Worktrees whose files are for a step: the user's code has a part in them.
//!
//! A half-made worktree is registered, with a directory without files, and nothing but a creation or a removal takes it for
//! one. What the step did is told by its state, whoever dies when.

use windlass_core::locator::Locator;
use windlass_core::time::Timestamp;
use windlass_core::vcs_worktree::{GitStep, Origin, VcsWorktreeError};
use windlass_core::workspace::Worktree;

use super::history::{File, Files};
use super::{Checkout, Disk, Marker};
use crate::world::Happened;

/// The program of the steps that check out files.
pub(super) const CHECKOUT_STEP: &str = "memory-git-checkout";
/// The file that a hook leaves in a worktree.
const HOOKED: &str = "hooked";

/// What the user's code has to do with the checkouts of a repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct UsersCode {
    /// A hook after the checkout of a new worktree; whether it fails.
    pub(super) hook: Option<bool>,
    /// How often it ran.
    pub(super) hook_runs: u32,
    /// Files pass a filter.
    pub(super) filters: bool,
}

/// A worktree that is being made by a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HalfMade {
    marker: Marker,
    worktree: Worktree,
    origin: Origin,
    ticket: String,
    state: StepState,
    /// The branch was made for it.
    made_branch: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StepState {
    Asked,
    Begun,
    Done,
}

impl Disk {
    /// Registers a worktree and asks for the step that makes its files, if the user's code has a part in them.
    pub(super) fn ask_for_step(
        &mut self,
        marker: &Marker,
        worktree: &Worktree,
        origin: &Origin,
    ) -> Result<Option<GitStep>, VcsWorktreeError> {
        let Some(repository) = self.repositories.get(&worktree.repo) else { return Ok(None) };
        let registered = self.is_registered(worktree, marker);
        let code = &repository.users_code;
        let hooked = code.hook.is_some() && *origin == Origin::Base;
        if !(hooked || code.filters) || (registered && *origin == Origin::Base) {
            return Ok(None);
        }
        let branch = match origin {
            Origin::Base => Some(&worktree.branch),
            Origin::Removed(removed) => removed.branch.as_ref(),
        };
        let made_branch = branch.is_some_and(|name| !repository.branches.contains_key(name));
        // As it will be, but for its files.
        match origin {
            Origin::Base => self.make(marker.clone(), worktree)?,
            Origin::Removed(removed) => self.restore(marker.clone(), worktree, removed)?,
        }
        let checkout = Checkout::new(worktree.repo.clone(), Files::new());
        self.checkouts.insert(worktree.path.clone(), checkout);
        self.made += 1;
        let ticket = self.made.to_string();
        let half = HalfMade {
            marker: marker.clone(),
            worktree: worktree.clone(),
            origin: origin.clone(),
            ticket: ticket.clone(),
            state: StepState::Asked,
            made_branch,
        };
        self.half_made.insert(worktree.path.clone(), half);
        Ok(Some(GitStep {
            argv: vec![CHECKOUT_STEP.into(), ticket.into()],
            env: Vec::new(),
            base_env: Vec::new(),
            cwd: worktree.path.clone(),
            repository_lock: worktree.repo.clone(),
        }))
    }

    /// Performs a step, once; says whether it ended with 0.
    pub(super) fn check_out(&mut self, step: &GitStep, ticket: &str) -> bool {
        let Some(half) = self.half_made.get_mut(&step.cwd) else { return false };
        if half.ticket != ticket || half.state != StepState::Asked {
            return half.ticket == ticket && half.state == StepState::Done;
        }
        half.state = StepState::Begun;
        let half = half.clone();
        let Some(repository) = self.repositories.get_mut(&half.worktree.repo) else { return false };
        let mut files = repository.checked_out(&step.cwd).unwrap_or_default();
        let code = &mut repository.users_code;
        if let (Some(fails), Origin::Base) = (code.hook, &half.origin) {
            code.hook_runs += 1;
            files.insert(HOOKED.to_owned(), File { content: b"x\n".to_vec(), executable: false });
            if fails {
                return false;
            }
        }
        if let Some(checkout) = self.checkouts.get_mut(&step.cwd) {
            checkout.files = files;
        }
        if let Some(half) = self.half_made.get_mut(&step.cwd) {
            half.state = StepState::Done;
        }
        true
    }

    /// Makes a worktree whole whose step is done, says so, and undoes any other half-made one.
    pub(super) fn conclude(
        &mut self,
        marker: &Marker,
        worktree: &Worktree,
    ) -> Result<bool, VcsWorktreeError> {
        let ours = |half: &&HalfMade| half.marker == *marker;
        let half = self.half_made.get(&worktree.path).filter(ours).cloned();
        let Some(half) = half else { return Ok(false) };
        if half.state != StepState::Done {
            self.abandon(marker, worktree);
            return Ok(false);
        }
        self.half_made.remove(&worktree.path);
        match &half.origin {
            Origin::Base => {
                let files = self.checkouts.get(&worktree.path).map(|made| made.files.clone());
                let mut checkout = Checkout::new(worktree.repo.clone(), files.unwrap_or_default());
                self.copy_in(worktree, &mut checkout);
                self.checkouts.insert(worktree.path.clone(), checkout);
            }
            // A filter that changes nothing: what a restoration makes is what the step made.
            Origin::Removed(removed) => self.restore(marker.clone(), worktree, removed)?,
        }
        Ok(true)
    }

    /// Undoes a half-made worktree, if it is of this marker, and says so. What its creation did not make stays.
    pub(super) fn abandon(&mut self, marker: &Marker, worktree: &Worktree) -> bool {
        let path = &worktree.path;
        let ours = |half: &&HalfMade| half.marker == *marker;
        let Some(half) = self.half_made.get(path).filter(ours).cloned() else { return false };
        let committed =
            self.repositories.get(&worktree.repo).and_then(|repo| repo.checked_out(path));
        self.half_made.remove(path);
        if let Some(checkout) = self.checkouts.remove(path)
            && half.is_checkout()
        {
            let committed = committed.unwrap_or_default();
            let mut kept = checkout.files;
            kept.retain(|name, file| {
                committed.get(name) != Some(file) && checkout.copied.get(name) != Some(file)
            });
            if !kept.is_empty() {
                self.plain.insert(path.clone(), kept);
            }
        }
        let Some(repository) = self.repositories.get_mut(&worktree.repo) else { return true };
        let registration = repository.checkouts.remove(path);
        let branch = registration.and_then(|gone| gone.head.branch().map(str::to_owned));
        if let Some(branch) = branch.filter(|_| half.made_branch) {
            repository.branches.remove(&branch);
        }
        true
    }
}

impl HalfMade {
    /// Says whether its files are those of a commit, and no code of the user's has a part in them.
    fn is_checkout(&self) -> bool {
        self.ticket.is_empty() && self.origin == Origin::Base
    }
}

impl Disk {
    /// Notes that a worktree is being made, without a step of the user's code. Until it is [whole](Self::mark_whole), whoever
    /// finds the note undoes what there is.
    pub(super) fn note_creation(&mut self, marker: &Marker, worktree: &Worktree, origin: &Origin) {
        let branch = match origin {
            Origin::Base => Some(&worktree.branch),
            Origin::Removed(removed) => removed.branch.as_ref(),
        };
        let registered = self.is_registered(worktree, marker);
        let repository = self.repositories.get(&worktree.repo);
        let made_branch = !registered
            && branch.is_some_and(|name| {
                repository.is_some_and(|repository| !repository.branches.contains_key(name))
            });
        let half = HalfMade {
            marker: marker.clone(),
            worktree: worktree.clone(),
            origin: origin.clone(),
            ticket: String::new(),
            state: StepState::Begun,
            made_branch,
        };
        self.half_made.insert(worktree.path.clone(), half);
    }

    /// Registers a worktree with its branch and an empty directory; returns what that is to hold.
    pub(super) fn register(
        &mut self,
        marker: Marker,
        worktree: &Worktree,
        origin: &Origin,
    ) -> Result<Checkout, VcsWorktreeError> {
        match origin {
            Origin::Base => self.make(marker, worktree)?,
            Origin::Removed(removed) => self.restore(marker, worktree, removed)?,
        }
        let empty = Checkout::new(worktree.repo.clone(), Files::new());
        let whole = self.checkouts.insert(worktree.path.clone(), empty.clone());
        let directory = worktree.path.clone();
        self.happened.push(Happened::DirectoryMade { directory });
        Ok(whole.unwrap_or(empty))
    }

    /// Puts the files into the directory of a worktree that is being made.
    pub(super) fn check_out_files(&mut self, path: &Locator, whole: Checkout) {
        if let Some(checkout) = self.checkouts.get_mut(path) {
            let others = std::mem::replace(checkout, whole).files;
            for (name, file) in others {
                checkout.files.entry(name).or_insert(file);
            }
        }
    }

    /// Marks a worktree that is being made as whole.
    pub(super) fn mark_whole(&mut self, path: &Locator) {
        if let Some(half) = self.half_made.get_mut(path) {
            half.state = StepState::Done;
        }
    }

    /// Takes the note of a creation away; what was written is on the disk at some time.
    pub(super) fn creation_ended(&mut self, path: &Locator, settled_at: Option<Timestamp>) {
        self.half_made.remove(path);
        if let Some(at) = settled_at {
            self.unsettled.insert(path.clone(), at);
        }
    }

    /// Takes the note of a creation away that came to nothing.
    pub(super) fn forget_note(&mut self, path: &Locator) {
        self.half_made.remove(path);
    }

    /// Lists the notes of creations that have no directory yet.
    pub(super) fn notes(&self) -> impl Iterator<Item = (&Locator, &Marker, &Worktree)> {
        let bare = self.half_made.iter().filter(|(path, _)| !self.checkouts.contains_key(*path));
        bare.map(|(path, half)| (path, &half.marker, &half.worktree))
    }
}
