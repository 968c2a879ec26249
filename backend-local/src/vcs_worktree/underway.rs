//! The note of a creation that is under way, beside the future worktree.
//!
//! What it says is enough to undo whatever stands there after a crash ([`Intent`]). Its flock says that somebody is still
//! at it: the process that creates, or a git of it that outlived it. So the files can be checked out without the
//! repository's lock, and nobody undoes what goes on.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use super::locator;
use super::marker::{Intent, sync_parent};
use crate::repository_lock::RepositoryLocks;

/// What the name of a note ends with.
const SUFFIX: &str = ".creating";

/// Where the note of a worktree's creation lies.
pub(super) fn note_of(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(SUFFIX);
    path.with_file_name(name)
}

/// Writes a note durably; it is locked from its first moment, until the descriptor and all its copies are closed.
pub(super) fn begin(note: &Path, intent: &Intent) -> io::Result<OwnedFd> {
    let mut temporary = note.as_os_str().to_owned();
    temporary.push(".new");
    let lines = intent.lines()?;
    let written = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&temporary)?;
        file.write_all(lines.as_bytes())?;
        file.sync_all()?;
        // Helpers get it as their standard input: there is nothing to write to, and nothing left to read.
        let mut held = File::open(&temporary)?;
        held.seek(SeekFrom::End(0))?;
        flock(&held, FlockOperation::NonBlockingLockExclusive)?;
        fs::rename(&temporary, note)?;
        Ok(held)
    };
    let held = written().inspect_err(|_: &io::Error| drop(fs::remove_file(&temporary)))?;
    sync_parent(note)?;
    Ok(held.into())
}

/// Says whether nobody is at what the note tells of. No note is a free one.
pub(super) fn is_free(note: &Path) -> io::Result<bool> {
    let Some(file) = open(note)? else { return Ok(true) };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            // Given back explicitly: a process that is being made has a copy of the descriptor for a moment.
            flock(&file, FlockOperation::Unlock)?;
            Ok(true)
        }
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Waits until nobody is at what the note tells of; says whether that came in time.
///
/// # Cancel safety
///
/// May be dropped; a thread that still waits then lets go at once of what it gets.
pub(super) async fn wait_until_free(
    turns: &RepositoryLocks,
    note: PathBuf,
    wait: Duration,
) -> io::Result<bool> {
    if is_free(&note)? {
        return Ok(true);
    }
    match tokio::time::timeout(wait, wait_in_turn(turns, note)).await {
        Ok(waited) => waited.map(|()| true),
        Err(_) => Ok(false),
    }
}

/// Waits as long as it takes. However many wait for a note, there is one thread for it, which keeps the turn.
async fn wait_in_turn(turns: &RepositoryLocks, note: PathBuf) -> io::Result<()> {
    let turn = turns.turn(&locator(&note)).lock_owned().await;
    if is_free(&note)? {
        return Ok(());
    }
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // A thread of its own: a pool of threads would be waited for when its runtime ends.
    std::thread::Builder::new().name("windlass-note".to_owned()).spawn(move || {
        let waited = open(&note).and_then(|file| match file {
            Some(file) => {
                let lock = || flock(&file, FlockOperation::LockExclusive);
                rustix::io::retry_on_intr(lock).map_err(io::Error::from)
            }
            None => Ok(()),
        });
        drop(turn);
        // Nobody waits any more: nothing to tell.
        drop(sender.send(waited));
    })?;
    receiver.await.map_err(io::Error::other)?
}

fn open(note: &Path) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    match rustix::fs::open(note, flags, Mode::empty()) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vcs_worktree::marker::{Marker, Read};

    fn intent() -> Intent {
        let attempt = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        Intent {
            marker: Marker { data_directory: "d".to_owned(), attempt },
            branch: "b".to_owned(),
            oid: "0".repeat(40),
            new_branch: true,
            from_snapshot: false,
            worktree: None,
        }
    }

    #[tokio::test]
    async fn a_note_is_held_until_the_last_copy_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let note = note_of(&dir.path().join("x"));
        assert!(is_free(&note).unwrap());
        let held = begin(&note, &intent()).unwrap();
        let Read::Says(read) = Intent::read(&note).unwrap() else { panic!("unreadable") };
        assert_eq!(read, intent());
        let copy = held.try_clone().unwrap();
        drop(held);
        assert!(!is_free(&note).unwrap());
        let turns = RepositoryLocks::default();
        let waited = wait_until_free(&turns, note.clone(), Duration::from_millis(20)).await;
        assert!(!waited.unwrap());
        let wait = |note| async move {
            wait_until_free(&RepositoryLocks::default(), note, Duration::from_secs(60)).await
        };
        let waiting = tokio::spawn(wait(note.clone()));
        drop(copy);
        assert!(waiting.await.unwrap().unwrap());
        // Whoever waited lets go in its own time.
        assert!(wait(note).await.unwrap());
    }

    /// Whoever gives up leaves its thread waiting: that one must do for all who come later.
    #[tokio::test]
    async fn however_many_wait_there_is_one_thread() {
        let dir = tempfile::tempdir().unwrap();
        let note = note_of(&dir.path().join("x"));
        let held = begin(&note, &intent()).unwrap();
        let turns = RepositoryLocks::default();
        for _ in 0..3 {
            let waited = wait_until_free(&turns, note.clone(), Duration::from_millis(5)).await;
            assert!(!waited.unwrap());
        }
        let turn = turns.turn(&locator(&note));
        assert!(turn.try_lock().is_err(), "the thread keeps the turn");
        // Itself, the one that is asked for here, and the guard in the thread: nobody else has come that far.
        assert_eq!(std::sync::Arc::strong_count(&turn), 2);
        drop(held);
        drop(turn.lock().await);
        assert!(wait_until_free(&turns, note, Duration::from_secs(60)).await.unwrap());
    }
}
