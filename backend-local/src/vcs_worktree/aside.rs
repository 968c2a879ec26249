//! Takes a worktree out of the way while it is saved and removed, and puts it back.
//!
//! Beside its place, on the same file system, so that each step is one rename:
//!
//! ```text
//! .removing-<attempt>            the directory
//! .removing-<attempt>.saved      what was saved of it ([`Record`]); without this it has to be saved anew
//! .removing-<attempt>.deleting   the same: its deletion has begun and will be ended
//! ```
//!
//! The registration follows the directory, so that git does not take it for gone.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use windlass_core::id::AttemptId;
use windlass_core::vcs_worktree::{BranchFate, VcsWorktreeError};
use windlass_core::workspace::Worktree;

use super::git::without_newline;
use super::marker::{remove_durably, sync_parent};
use super::record::{Kept, Record};
use super::tree::Stamp;
use super::verify::{Found, read_link};
use super::{Inner, failed, mismatch, path_of};
use crate::group::Cancel;

/// What the names of everything begin with that a removal keeps beside the worktree.
pub(super) const PREFIX: &str = ".removing-";
/// What the name of a record of a whole worktree ends with.
pub(super) const SAVED: &str = ".saved";
/// What it ends with once the deletion has begun.
pub(super) const DELETING: &str = ".deleting";

/// Where the parts of a worktree under removal are.
#[derive(Debug)]
pub(super) struct Places {
    /// The worktree's own place.
    pub(super) path: PathBuf,
    /// Where its directory is while it is under removal.
    pub(super) aside: PathBuf,
    /// The record while nothing is deleted.
    pub(super) saved: PathBuf,
    /// The record once the deletion has begun.
    pub(super) deleting: PathBuf,
}

/// How far the removal of a worktree has come.
#[derive(Debug)]
pub(super) enum Whereabouts {
    /// It has not begun: the worktree is at its place, or nowhere.
    Home,
    /// It is aside, and not known to be saved.
    Aside,
    /// It is saved.
    Saved(Box<Record>),
    /// Its deletion has begun.
    Deleting(Box<Record>),
}

impl Places {
    fn new(path: PathBuf, attempt: AttemptId) -> Self {
        let beside = |end: &str| path.with_file_name(format!("{PREFIX}{attempt}{end}"));
        let (aside, saved, deleting) = (beside(""), beside(SAVED), beside(DELETING));
        Self { path, aside, saved, deleting }
    }
}

impl Inner {
    /// Says where the parts of a worktree would be.
    pub(super) fn places(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<Places, VcsWorktreeError> {
        Ok(Places::new(self.inside(worktree)?, attempt))
    }

    /// Says how far the removal of a worktree has come. The caller holds the repository's lock.
    pub(super) fn whereabouts(
        &self,
        attempt: AttemptId,
        places: &Places,
    ) -> Result<Whereabouts, VcsWorktreeError> {
        let read = |file: &Path| Record::read(file).map_err(|error| failed("look", file, error));
        let ours = |record: &Record| {
            record.attempt == attempt && record.data_directory == self.data_directory
        };
        match read(&places.deleting)? {
            Kept::Missing => {}
            Kept::Whole(record) if ours(&record) => return Ok(Whereabouts::Deleting(record)),
            Kept::Whole(_) | Kept::Damaged => {
                let detail = format!(
                    "its deletion had begun, and {} is damaged: move away by hand what is in {}",
                    places.deleting.display(),
                    places.aside.display()
                );
                return Err(mismatch(&places.path, detail));
            }
        }
        let aside = exists(&places.aside)?;
        match read(&places.saved)? {
            Kept::Whole(record) if ours(&record) => {
                let stale = !aside && exists(&places.path)?;
                if !stale {
                    return Ok(Whereabouts::Saved(record));
                }
            }
            Kept::Missing | Kept::Damaged | Kept::Whole(_) => {}
        }
        Ok(if aside { Whereabouts::Aside } else { Whereabouts::Home })
    }

    /// Says whether a worktree is under removal, as far as one look can tell.
    pub(super) fn may_be_aside(&self, attempt: AttemptId, worktree: &Worktree) -> bool {
        let there = |path: &Path| path.symlink_metadata().is_ok();
        self.places(attempt, worktree)
            .is_ok_and(|places| !there(&places.path) && there(&places.aside))
    }

    /// Puts a worktree back that a crash left aside before it was saved. The caller holds the repository's lock.
    pub(super) fn bring_home(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<(), VcsWorktreeError> {
        let places = self.places(attempt, worktree)?;
        match self.whereabouts(attempt, &places)? {
            Whereabouts::Aside => self.put_back(attempt, worktree, &places),
            Whereabouts::Home | Whereabouts::Saved(_) | Whereabouts::Deleting(_) => Ok(()),
        }
    }

    /// Sees that nothing of a removal is in the way of a creation: one whose deletion has begun is ended, any other is put
    /// back. The caller holds the repository's lock.
    pub(super) fn clear_for_creation(
        &self,
        cancel: &Cancel,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<(), VcsWorktreeError> {
        let places = self.places(attempt, worktree)?;
        match self.whereabouts(attempt, &places)? {
            Whereabouts::Home => Ok(()),
            Whereabouts::Aside | Whereabouts::Saved(_) => self.put_back(attempt, worktree, &places),
            Whereabouts::Deleting(_) => self.remove(cancel, attempt, worktree, BranchFate::Stays),
        }
    }

    /// Takes a worktree aside that was `top` before it was verified. What has taken its place since is put back. The
    /// caller holds the repository's lock.
    pub(super) fn take_aside(
        &self,
        found: Found,
        places: &Places,
        top: &Stamp,
    ) -> Result<Found, VcsWorktreeError> {
        self.refuse_other_file_system(places)?;
        // On the disk before the registration says so: the two may be on different file systems.
        rename(&places.path, &places.aside)?;
        let taken = Stamp::at(&places.aside);
        let taken = taken.map_err(|error| failed("take aside", &places.aside, error))?;
        if !taken.is_some_and(|taken| taken.is_same(top)) {
            rename(&places.aside, &places.path)?;
            return Err(mismatch(&places.path, "another directory took its place meanwhile"));
        }
        repoint(&found.admin, &places.aside)
            .map_err(|error| failed("take aside", &found.admin, error))?;
        Ok(Found { path: places.aside.clone(), ..found })
    }

    /// Refuses what could not be renamed into the trash later.
    fn refuse_other_file_system(&self, places: &Places) -> Result<(), VcsWorktreeError> {
        let device = |path: &Path| {
            let meta = path.metadata().map_err(|error| failed("take aside", path, error))?;
            Ok::<_, VcsWorktreeError>(meta.dev())
        };
        if device(&places.path)? == device(&self.root)? {
            return Ok(());
        }
        let detail = format!("it is on another file system than {}", self.root.display());
        Err(mismatch(&places.path, detail))
    }

    /// Puts a worktree back to its place, as it is. The caller holds the repository's lock.
    ///
    /// The registration is told before the directory moves: found in between, the directory still is aside.
    pub(super) fn put_back(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        places: &Places,
    ) -> Result<(), VcsWorktreeError> {
        remove_durably(&places.saved).map_err(|error| failed("put back", &places.saved, error))?;
        if !exists(&places.aside)? {
            return Ok(());
        }
        if exists(&places.path)? {
            let detail = format!(
                "something else took its place while it was aside as {}: move that away and try again",
                places.aside.display()
            );
            return Err(mismatch(&places.path, detail));
        }
        if let Some(admin) = self.registered(&path_of(&worktree.repo), attempt)? {
            let link = link_of(&admin)?;
            if link.as_deref() == Some(&places.aside) {
                repoint(&admin, &places.path)
                    .and_then(|()| File::open(&admin)?.sync_all())
                    .map_err(|error| failed("put back", &admin, error))?;
            }
        }
        rename(&places.aside, &places.path)
    }
}

/// Reads which directory a registration names.
pub(super) fn link_of(admin: &Path) -> Result<Option<PathBuf>, VcsWorktreeError> {
    let link = read_link(&admin.join("gitdir"), "", admin)
        .map_err(|error| failed("read a registration", admin, error))?;
    let directory = link.as_deref().and_then(Path::parent);
    // A relative link has `..` in it; its directory need not be there, the one above it must.
    let resolved = directory.and_then(|directory| {
        let above = fs::canonicalize(directory.parent()?).ok()?;
        Some(above.join(directory.file_name()?))
    });
    Ok(resolved.or_else(|| directory.map(Path::to_owned)))
}

/// Makes a registration name a directory beside the one that it names, in the form that it has.
fn repoint(admin: &Path, directory: &Path) -> io::Result<()> {
    let content = fs::read(admin.join("gitdir"))?;
    let link = Path::new(std::ffi::OsStr::from_bytes(without_newline(&content)));
    let (Some(now), Some(name)) = (link.parent(), directory.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the registration is damaged"));
    };
    point_to(admin, &now.with_file_name(name))
}

/// Makes a registration name a directory.
pub(super) fn point_to(admin: &Path, directory: &Path) -> io::Result<()> {
    let file = admin.join("gitdir");
    let mut line = directory.join(".git").into_os_string().into_encoded_bytes();
    line.push(b'\n');
    if line == fs::read(&file)? {
        return Ok(());
    }
    // Whole or as it was, whatever happens; which of the two, those who rely on it see to.
    let new = admin.join("gitdir.new");
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(&line)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&new, &file)).inspect_err(|_| drop(fs::remove_file(&new)))
}

/// Says whether anything is there, a link to nowhere too.
pub(super) fn exists(path: &Path) -> Result<bool, VcsWorktreeError> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("look", path, error)),
    }
}

/// Renames durably; what is there already is not replaced.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), VcsWorktreeError> {
    let renamed = renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE);
    let synced = renamed.map_err(io::Error::from).and_then(|()| {
        sync_parent(to)?;
        if from.parent() == to.parent() { Ok(()) } else { sync_parent(from) }
    });
    synced.map_err(|error| failed("rename", from, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vcs_worktree::scan::tests::place::Place;

    #[test]
    fn what_took_its_place_is_put_back_and_not_taken_for_it() {
        let place = Place::new(&[]);
        fs::write(place.repo.join("file"), "1").unwrap();
        place.commit(&place.repo);
        place.worktree();
        let attempt = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        let places = Places::new(place.at.clone(), attempt);
        let verified = Stamp::at(&place.at).unwrap().unwrap();
        let moved = place.home().join("moved");
        fs::rename(&place.at, &moved).unwrap();
        fs::create_dir(&place.at).unwrap();
        fs::copy(moved.join(".git"), place.at.join(".git")).unwrap();
        fs::write(place.at.join("theirs"), "x").unwrap();
        let registered = fs::read(place.admin().join("gitdir")).unwrap();
        let refused = place.inner.take_aside(place.found(), &places, &verified);
        assert!(matches!(refused, Err(VcsWorktreeError::Mismatch { .. })), "{refused:?}");
        assert!(place.at.join("theirs").exists() && !places.aside.exists());
        assert_eq!(fs::read(place.admin().join("gitdir")).unwrap(), registered);
        fs::remove_dir_all(&place.at).unwrap();
        fs::rename(&moved, &place.at).unwrap();
        place.inner.take_aside(place.found(), &places, &verified).unwrap();
        assert!(places.aside.join("file").exists() && !place.at.exists());
    }
}
