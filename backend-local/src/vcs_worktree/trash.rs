//! The trash: directories of removed worktrees, deleted later and gently.
//!
//! ```text
//! ROOT/.trash/<number>/record     the record of what was saved
//! ROOT/.trash/<number>/tree       the directory
//! ROOT/.trash/<number>/synced     empty: what the repository holds of it is on the disk
//! ROOT/.trash/<number>/leftover   what had to stay, as JSON; while it is there, somebody has to look
//! ROOT/.trash/<number>/kept       empty: the directory is part of a private git directory, and all of it had to stay; it
//!                                 may be a link to where it is, if that is another file system
//! ```
//!
//! A thread of its own deletes, with idle priority and pauses, only what the record lists and is as listed. Whoever opens
//! next goes on. What changed or appeared since the record was written stays, and so does its folder until it is empty.
//!
//! A removal does not wait until the commits that hold the files are on the disk (git itself does not sync them): that is
//! done here, before anything is deleted. Where the machine went down before that, the files may be all that is left of
//! them, and stay.

use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use windlass_core::locator::Locator;

use super::marker::{remove_durably, sync_parent, write_durably};
use super::record::{Kept, Record};
use super::tree::{self, Deleted, Stamp, Unread};
use super::{locator, path_of};

/// The folder in the worktrees root.
pub(super) const FOLDER: &str = ".trash";
const RECORD: &str = "record";
const TREE: &str = "tree";
const SYNCED: &str = "synced";
const LEFTOVER: &str = "leftover";
const KEPT: &str = "kept";

/// How many entries are deleted between two pauses.
const BURST: u32 = 64;
/// The pause is so many times as long as the burst took: file systems are busy with deletions long after them.
const REST: u32 = 3;
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// What had to stay of a removed worktree.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Leftover {
    /// The first few, relative to the directory, each with the reason for people.
    pub(super) stayed: Vec<(Locator, String)>,
    /// How many more.
    pub(super) more: u64,
}

/// One removed worktree that left something.
#[derive(Debug)]
pub(super) struct Remains {
    /// Where it is.
    pub(super) tree: PathBuf,
    /// What it was, if that can be told.
    pub(super) record: Option<Record>,
    /// What stayed.
    pub(super) leftover: Leftover,
}

/// The trash of one worktrees root.
#[derive(Debug)]
pub(super) struct Trash {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The thread is at work.
    running: bool,
    /// Something came since it began.
    more: bool,
    /// Somebody waits for it: no pauses.
    hurry: u32,
    /// It waits for the disk, which can take long.
    syncing: bool,
    /// Everything is to end.
    stop: bool,
}

impl Trash {
    /// Opens the trash below a root; deletes nothing yet.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let folder = root.join(FOLDER);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let (state, changed) = (Mutex::new(State::default()), Condvar::new());
        let shared = Arc::new(Shared { folder, state, changed });
        Ok(Self { shared })
    }

    /// Has nothing deleted from now on.
    pub(super) fn leave_alone(&self) {
        self.shared.state().stop = true;
        self.shared.changed.notify_all();
    }

    /// Takes a directory and its record, and sees that it gets deleted.
    ///
    /// The record is linked first and unlinked last: whatever a crash leaves, a directory in the trash has its record,
    /// and one that is not in the trash has it beside it.
    pub(super) fn take(&self, tree: &Path, record: &Path) -> io::Result<()> {
        // What cannot be looked at may be there.
        if Stamp::at(tree)?.is_some() {
            let turn = self.shared.turn()?;
            let folder = self.shared.new_folder()?;
            let to = folder.join(TREE);
            let moved = link(record, &folder.join(RECORD))
                .and_then(|()| Ok(renameat_with(CWD, tree, CWD, &to, RenameFlags::NOREPLACE)?));
            if let Err(error) = moved {
                drop(fs::remove_file(folder.join(RECORD)));
                drop(fs::remove_dir(&folder));
                return Err(error);
            }
            // File systems keep the order of names; the record beside it goes when these are on the disk.
            File::open(&folder)?.sync_all()?;
            sync_parent(&folder)?;
            drop(turn);
        }
        remove_durably(record)?;
        self.empty();
        Ok(())
    }

    /// Keeps what `deleted` says had to stay of a directory, with the record that it belongs to, until somebody takes it
    /// away.
    pub(super) fn keep(
        &self,
        tree: &Path,
        record: Option<&Path>,
        deleted: Deleted,
    ) -> io::Result<()> {
        let turn = self.shared.turn()?;
        let folder = self.shared.new_folder()?;
        write_durably(&folder.join(KEPT), b"")?;
        if let Some(record) = record {
            link(record, &folder.join(RECORD))?;
        }
        note(&folder, deleted)?;
        let to = folder.join(TREE);
        match renameat_with(CWD, tree, CWD, &to, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::XDEV) => keep_there(tree, &to)?,
            Err(error) => return Err(error.into()),
        }
        File::open(&folder)?.sync_all()?;
        sync_parent(&folder)?;
        sync_parent(tree)?;
        drop(turn);
        Ok(())
    }

    /// Begins to delete what is in the trash, unless that goes on already.
    pub(super) fn empty(&self) {
        let mut state = self.shared.state();
        state.more = true;
        if state.running || state.stop {
            return;
        }
        state.running = true;
        drop(state);
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("windlass-trash".to_owned());
        let spawned = thread.spawn(move || {
            crate::kernel::work_idly();
            let ended = Ended(&shared);
            shared.work();
            drop(ended);
        });
        if spawned.is_err() {
            // Without a thread it waits for the next occasion.
            self.shared.state().running = false;
            self.shared.changed.notify_all();
        }
    }

    /// Waits until everything in the trash is deleted or has to stay. Blocking.
    pub(super) fn settle(&self) {
        self.empty();
        let mut state = self.shared.state();
        state.hurry += 1;
        self.shared.changed.notify_all();
        while state.running {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.hurry -= 1;
    }

    /// Lists what had to stay, in path order.
    pub(super) fn remains(&self) -> io::Result<Vec<Remains>> {
        let mut remains = Vec::new();
        for folder in self.shared.folders()? {
            let Some(leftover) = read_leftover(&folder) else { continue };
            let tree = folder.join(TREE);
            if is_there(&tree).unwrap_or(true) {
                let record = Record::read_summary(&folder.join(RECORD)).unwrap_or_default();
                // Where it is, if it could not be moved here.
                let tree = fs::read_link(&tree).unwrap_or(tree);
                remains.push(Remains { tree, record, leftover });
            }
        }
        Ok(remains)
    }
}

impl Drop for Trash {
    fn drop(&mut self) {
        self.leave_alone();
        // It ends before its next entry; a sync is not waited for, nothing is deleted after it.
        let busy = |state: &mut State| state.running && !state.syncing;
        drop(self.shared.changed.wait_while(self.shared.state(), busy));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Folders are made and removed one at a time, across instances.
    fn turn(&self) -> io::Result<File> {
        let turn = File::open(&self.folder)?;
        rustix::io::retry_on_intr(|| flock(&turn, FlockOperation::LockExclusive))?;
        Ok(turn)
    }

    fn new_folder(&self) -> io::Result<PathBuf> {
        let last = self.folders()?.iter().filter_map(|folder| number(folder)).max();
        let mut next = last.unwrap_or_default() + 1;
        loop {
            let folder = self.folder.join(next.to_string());
            match fs::DirBuilder::new().mode(0o700).create(&folder) {
                Ok(()) => return Ok(folder),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => next += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// The folders, the oldest first.
    fn folders(&self) -> io::Result<Vec<PathBuf>> {
        let mut folders = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            folders.extend(number(&path).map(|number| (number, path)));
        }
        folders.sort();
        Ok(folders.into_iter().map(|(_, path)| path).collect())
    }

    fn work(&self) {
        loop {
            self.state().more = false;
            // What fails is tried again on the next occasion: at a removal, a survey, an opening.
            for folder in self.folders().unwrap_or_default() {
                if self.state().stop {
                    break;
                }
                drop(self.delete(&folder));
            }
            let mut state = self.state();
            if state.stop || !state.more {
                state.running = false;
                return;
            }
        }
    }

    /// Deletes one folder as far as may be.
    fn delete(&self, folder: &Path) -> io::Result<()> {
        // One at a time: another instance may be at it.
        let held = File::open(folder)?;
        match flock(&held, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let (tree, record) = (folder.join(TREE), folder.join(RECORD));
        if is_there(&tree)? {
            if Stamp::at(&folder.join(KEPT))?.is_some() {
                return Ok(());
            }
            let deleted = self.delete_tree(&tree, &record)?;
            if deleted.stopped {
                return Ok(());
            }
            if !deleted.is_whole() {
                return note(folder, deleted);
            }
        }
        // A directory may be on its way into a folder that has none yet.
        let _turn = self.turn()?;
        if is_there(&tree)? {
            return Ok(());
        }
        // Where there is no directory, a link to one that was taken away is left.
        for name in [TREE, LEFTOVER, SYNCED, KEPT, RECORD] {
            remove_durably(&folder.join(name))?;
        }
        fs::remove_dir(folder)
    }

    fn delete_tree(&self, tree: &Path, record: &Path) -> io::Result<Deleted> {
        let unlisted = |why: &str| Deleted {
            stayed: vec![(PathBuf::from("."), why.to_owned())],
            ..Deleted::default()
        };
        let Kept::Whole(found) = Record::read(record)? else {
            return Ok(unlisted("the list of what was saved is damaged"));
        };
        let Some(listing) = found.listing() else {
            return Ok(unlisted("it was not listed"));
        };
        let other_boot = found.is_of_another_boot();
        let synced = record.with_file_name(SYNCED);
        if synced.symlink_metadata().is_err() {
            if other_boot {
                return Ok(unlisted(
                    "the machine went down before its commits were safe: see that the repository has them",
                ));
            }
            let common = path_of(&found.worktree.repo);
            if common.symlink_metadata().is_err() {
                return Ok(unlisted("its repository is gone, and its commits with it"));
            }
            self.state().syncing = true;
            self.changed.notify_all();
            let synced_all = [&common, &common.join("objects")]
                .into_iter()
                .try_for_each(|directory| sync_file_system(directory));
            let mut state = self.state();
            state.syncing = false;
            let stop = state.stop;
            drop(state);
            synced_all?;
            if stop {
                return Ok(Deleted { stopped: true, ..Deleted::default() });
            }
            write_durably(&synced, b"")?;
        }
        let mut pace = Pace { shared: self, left: BURST, begun: Instant::now() };
        let unread = if found.discard { Unread::Go } else { Unread::Stay };
        tree::delete(tree, &listing, other_boot, unread, &mut || pace.next())
    }
}

/// Says that the thread has ended, however it did: others wait for it.
struct Ended<'a>(&'a Shared);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        // After a panic something may have come that nobody saw; it waits for the next occasion.
        if std::thread::panicking() {
            self.0.state().running = false;
        }
        self.0.changed.notify_all();
    }
}

/// Works a little, then rests.
struct Pace<'a> {
    shared: &'a Shared,
    left: u32,
    begun: Instant,
}

impl Pace<'_> {
    fn next(&mut self) -> ControlFlow<()> {
        if let Some(left) = self.left.checked_sub(1) {
            self.left = left;
            return ControlFlow::Continue(());
        }
        let pause = (self.begun.elapsed() * REST).min(PAUSE_MAX);
        let state = self.shared.state();
        let rests = |state: &mut State| !state.stop && state.hurry == 0;
        let waited = self.shared.changed.wait_timeout_while(state, pause, rests);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        (self.left, self.begun) = (BURST, Instant::now());
        if state.stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Gives a file another name; where a file cannot have two, the other is a copy.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    match fs::hard_link(from, to) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        Err(_) => {
            fs::copy(from, to)?;
            File::open(to)?.sync_all()
        }
    }
}

/// Waits until everything that was written to the file system of a directory is on the disk.
#[cfg(target_os = "linux")]
fn sync_file_system(directory: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(directory)?)?)
}

/// As above, for all file systems: there is no way to name one.
#[cfg(not(target_os = "linux"))]
fn sync_file_system(_directory: &Path) -> io::Result<()> {
    rustix::fs::sync();
    Ok(())
}

/// Says whether there is a directory, or a link to one. What cannot be looked at may be there.
fn is_there(tree: &Path) -> io::Result<bool> {
    match fs::metadata(tree) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives a directory that cannot be moved a name that nothing else gets, and links `to` to it.
fn keep_there(tree: &Path, to: &Path) -> io::Result<()> {
    let name = tree.file_name().unwrap_or_default();
    for number in 1_u64.. {
        let mut name = name.to_owned();
        name.push(format!("-kept-{number}"));
        let kept = tree.with_file_name(name);
        if Stamp::at(&kept)?.is_some() {
            continue;
        }
        // A link to what is not there yet goes by itself, if it ends here.
        std::os::unix::fs::symlink(&kept, to)?;
        return Ok(renameat_with(CWD, tree, CWD, &kept, RenameFlags::NOREPLACE)?);
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn number(folder: &Path) -> Option<u64> {
    folder.file_name()?.to_str()?.parse().ok()
}

/// Says what stayed, if that was not said already.
fn note(folder: &Path, deleted: Deleted) -> io::Result<()> {
    let stayed = deleted.stayed.into_iter().map(|(path, why)| (locator(&path), why)).collect();
    let leftover = Leftover { stayed, more: deleted.more };
    if read_leftover(folder).as_ref() == Some(&leftover) {
        return Ok(());
    }
    write_durably(&folder.join(LEFTOVER), &serde_json::to_vec(&leftover)?)
}

fn read_leftover(folder: &Path) -> Option<Leftover> {
    serde_json::from_slice(&fs::read(folder.join(LEFTOVER)).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_looked_at_keeps_its_record() {
        let dir = tempfile::tempdir().unwrap();
        let trash = Trash::open(dir.path()).unwrap();
        let (file, record) = (dir.path().join("file"), dir.path().join("record"));
        fs::write(&file, "x").unwrap();
        fs::write(&record, "x").unwrap();
        // Neither there nor gone: what is above it is no directory.
        trash.take(&file.join("tree"), &record).unwrap_err();
        assert!(record.exists());
        trash.take(&dir.path().join("gone"), &record).unwrap();
        assert!(!record.exists());
    }

    #[test]
    fn what_is_kept_stays_until_it_is_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let trash = Trash::open(dir.path()).unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("index"), "x").unwrap();
        let deleted = Deleted {
            stayed: vec![("index".into(), "it was written since".to_owned())],
            ..Deleted::default()
        };
        trash.keep(&tree, None, deleted).unwrap();
        assert!(!tree.exists());
        for _ in 0..2 {
            trash.settle();
            let remains = trash.remains().unwrap();
            let [left] = remains.as_slice() else { panic!("{remains:?}") };
            assert_eq!(fs::read(left.tree.join("index")).unwrap(), b"x");
            assert_eq!(left.leftover.stayed.len(), 1);
        }
        fs::remove_dir_all(&trash.remains().unwrap()[0].tree).unwrap();
        trash.settle();
        assert_eq!(fs::read_dir(dir.path().join(FOLDER)).unwrap().count(), 0);
    }
}
