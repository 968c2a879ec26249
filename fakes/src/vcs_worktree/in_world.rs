//! The repositories as a part of a world: who changes them, what commands write into them, and what a power loss leaves.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, MutexGuard};
use std::task::Waker;

use windlass_core::locator::{Locator, OsBytes};
use windlass_core::time::Timestamp;
use windlass_core::vcs_worktree::{GitStep, Identity};

use super::git_steps::RESET_STEP;
use super::making::CHECKOUT_STEP;
use super::merging::HISTORY_STEPS;
use super::{Disk, STEP};
use crate::world::{Happened, ProcessName, Shared, State, Unsynced, World};

/// The disk of a world, while somebody looks at it or changes it.
pub(super) struct DiskGuard<'a> {
    shared: MutexGuard<'a, Shared>,
    changed: bool,
}

impl<'a> DiskGuard<'a> {
    pub(super) fn new(world: &'a World) -> Self {
        Self { shared: world.lock(), changed: false }
    }

    /// Says whether a process has this as its directory.
    pub(super) fn is_worked_in(&self, directory: &Locator) -> bool {
        self.shared.state.is_worked_in(directory)
    }
}

impl Deref for DiskGuard<'_> {
    type Target = Disk;

    fn deref(&self) -> &Disk {
        &self.shared.state.disk
    }
}

impl DerefMut for DiskGuard<'_> {
    fn deref_mut(&mut self) -> &mut Disk {
        self.changed = true;
        Arc::make_mut(&mut self.shared.state.disk)
    }
}

impl Drop for DiskGuard<'_> {
    fn drop(&mut self) {
        self.shared.state.tell_of_disk();
        if self.changed {
            self.shared.take_followers().into_iter().for_each(Waker::wake);
        }
    }
}

/// Says whether a program is that of a git step.
pub(crate) fn is_step(program: &[u8]) -> bool {
    let others = [STEP, RESET_STEP, CHECKOUT_STEP];
    others.iter().chain(&HISTORY_STEPS).any(|step| program == step.as_bytes())
}

impl State {
    /// Tells what happened to directories and files.
    fn tell_of_disk(&mut self) {
        if self.disk.happened.is_empty() {
            return;
        }
        let happened = std::mem::take(&mut Arc::make_mut(&mut self.disk).happened);
        happened.into_iter().for_each(|happened| self.note(|| happened));
    }

    /// Lets a program write a file in its directory, if that is there.
    pub(crate) fn write_in(
        &mut self,
        process: Option<ProcessName>,
        directory: &Locator,
        path: &str,
        content: &[u8],
    ) {
        if self.disk.has(directory) {
            Arc::make_mut(&mut self.disk).write(process, directory, path, content);
            self.tell_of_disk();
        }
    }

    /// Performs a git step; returns with which code it ends.
    pub(crate) fn perform_step(&mut self, step: &GitStep) -> u8 {
        let code = Arc::make_mut(&mut self.disk).perform_step(step);
        self.tell_of_disk();
        code
    }
}

impl Disk {
    /// Says whether there is a directory.
    pub(super) fn has(&self, directory: &Locator) -> bool {
        self.checkouts.contains_key(directory) || self.plain.contains_key(directory)
    }

    /// Says whether a directory would be here if it were anywhere, and is not. Of a disk that nobody uses nothing is said.
    pub(crate) fn lacks(&self, directory: &Locator) -> bool {
        let here = [b"/data/".as_slice(), b"/home/"];
        let is_here = here.iter().any(|front| directory.as_bytes().starts_with(front));
        self.made > 0 && is_here && !self.has(directory)
    }

    /// Writes a file into a directory that is there; one that is there keeps its mode.
    pub(super) fn write(
        &mut self,
        process: Option<ProcessName>,
        directory: &Locator,
        path: &str,
        content: &[u8],
    ) {
        let file = self.files(directory).entry(path.to_owned()).or_default();
        file.content = content.to_vec();
        let (directory, path) = (directory.clone(), path.to_owned());
        self.happened.push(Happened::FileWritten { process, directory, path });
    }

    /// Performs a git step as its program does; returns with which code it ends.
    pub(super) fn perform_step(&mut self, step: &GitStep) -> u8 {
        let argv: Result<&[OsBytes; 2], _> = step.argv.as_slice().try_into();
        let [program, message] = argv.expect("a step that a fake described");
        let message = String::from_utf8_lossy(&message.0).into_owned();
        if program.0 == CHECKOUT_STEP.as_bytes() {
            return u8::from(!self.check_out(step, &message));
        }
        if let Some(program) = HISTORY_STEPS.iter().find(|step| program.0 == step.as_bytes()) {
            return u8::from(!self.perform_history(&step.cwd, program, &message));
        }
        if program.0 == RESET_STEP.as_bytes() {
            return match self.changed_since_saved(&step.cwd) {
                true => windlass_core::vcs_worktree::CHANGED_SINCE_SAVED,
                false => u8::from(!self.put_back_to(&step.cwd, &message)),
            };
        }
        assert_eq!(program.0, STEP.as_bytes(), "{step:?} is not ours");
        let variable = |name: &str| {
            let found = step.env.iter().find(|(other, _)| other == name);
            found.map(|(_, value)| String::from_utf8_lossy(&value.0).into_owned())
        };
        if !self.checkouts.contains_key(&step.cwd) {
            return 1;
        }
        let given = variable("GIT_AUTHOR_NAME").zip(variable("GIT_AUTHOR_EMAIL"));
        let given = given.map(|(name, email)| Identity { name, email });
        let Some(author) = given.or_else(|| self.repository(&step.cwd).identity.clone()) else {
            return 1;
        };
        if self.is_git_locked(&step.cwd) {
            return 1;
        }
        let dirty = self.head_files(&step.cwd) != self.all_files(&step.cwd);
        if dirty {
            self.commit(&step.cwd, &message, &author);
        }
        0
    }

    /// Says whether somebody holds a lock of git's. One that nobody has open was watched for long enough, and goes.
    pub(super) fn is_git_locked(&mut self, dir: &Locator) -> bool {
        let held = self.git_locks.get(dir) == Some(&true);
        if !held {
            self.git_locks.remove(dir);
        }
        held
    }

    /// Loses power: what the creation of a worktree wrote may not be on the disk.
    pub(crate) fn lose(&mut self, now: Timestamp, unsynced: Unsynced) {
        for (path, at) in std::mem::take(&mut self.unsettled) {
            let Some(checkout) = self.checkouts.get_mut(&path).filter(|_| at > now) else {
                continue;
            };
            for file in checkout.files.values_mut() {
                let (len, kept) = (file.content.len(), unsynced.kept(file.content.len()));
                file.content.truncate(kept);
                if matches!(unsynced, Unsynced::Zeroed { .. }) {
                    file.content.resize(len, 0);
                }
            }
            self.doubtful.insert(path);
        }
    }

    /// Completes a worktree of which it is not known whether its files are on the disk: what a power loss leaves of a file is
    /// replaced, anything else is somebody's work and stays.
    pub(super) fn mend(&mut self, path: &Locator) {
        if !self.doubtful.remove(path) {
            return;
        }
        let repository = self
            .checkouts
            .get(path)
            .and_then(|checkout| self.repositories.get(&checkout.repository));
        let whole = repository.and_then(|repository| repository.checked_out(path));
        let Some(checkout) = self.checkouts.get_mut(path) else { return };
        for (name, file) in whole.unwrap_or_default() {
            let found = checkout.files.entry(name).or_default();
            let same = found.content.iter().zip(&file.content).take_while(|(a, b)| a == b).count();
            let is_remnant = found.content.len() <= file.content.len()
                && found.content[same..].iter().all(|byte| *byte == 0);
            if is_remnant {
                *found = file;
            }
        }
    }
}
