//! Takes over worktrees that were moved together with their data directory: what is registered names their old place.
//!
//! Nothing is ever looked for in the old place but whether it stands. Where it does, the data directory is a copy, and the
//! registration is the original's: it is left alone, and so is the worktree.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use windlass_core::id::AttemptId;
use windlass_core::vcs_worktree::VcsWorktreeError;
use windlass_core::workspace::Worktree;

use super::aside::{exists, link_of, point_to};
use super::marker::write_durably;
use super::verify::read_link;
use super::{Inner, failed, locator, path_of, provenance};

/// How the `.git` of a directory leads to a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leads {
    /// It does.
    There,
    /// It did, relative to where the directory was.
    FromItsOldPlace,
    /// It leads elsewhere or nowhere.
    Elsewhere,
}

impl Inner {
    /// Mends what is registered of a worktree that was moved with its data directory. The caller holds the repository's
    /// lock.
    pub(super) fn take_over(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<(), VcsWorktreeError> {
        let places = self.places(attempt, worktree)?;
        let directory = match [exists(&places.path)?, exists(&places.aside)?] {
            [true, _] => &places.path,
            [false, true] => &places.aside,
            // What is registered of one that is gone is mended when it is made again.
            [false, false] => return Ok(()),
        };
        if is_linked(directory) {
            return Ok(());
        }
        let Some(admin) = self.left_behind(attempt, worktree)? else { return Ok(()) };
        let at = |error| failed("take over", &admin, error);
        match leads(directory, &admin).map_err(at)? {
            Leads::There => {}
            Leads::FromItsOldPlace => {
                let mut link = b"gitdir: ".to_vec();
                link.extend_from_slice(admin.as_os_str().as_encoded_bytes());
                link.push(b'\n');
                write_durably(&directory.join(".git"), &link).map_err(at)?;
            }
            // What stands there is told by whoever verifies it.
            Leads::Elsewhere => return Ok(()),
        }
        self.point_home(attempt, worktree, &admin, directory)
    }

    /// Has a registration that was left behind by a move name where its worktree is, or will be. The caller holds the
    /// repository's lock.
    pub(super) fn point_home(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        admin: &Path,
        directory: &Path,
    ) -> Result<(), VcsWorktreeError> {
        if !link_of(admin)?.is_some_and(|link| self.is_left(&link)) {
            return Ok(());
        }
        let at = |error| failed("take over", admin, error);
        // The registration last: until then all of this is done again.
        self.marker(attempt).write(admin, worktree).map_err(at)?;
        let pointed = point_to(admin, directory).and_then(|()| File::open(admin)?.sync_all());
        pointed.map_err(at)
    }

    /// Says whether a worktree was moved with its data directory and is not taken over, as far as one look can tell.
    pub(super) fn may_be_left_behind(&self, attempt: AttemptId, worktree: &Worktree) -> bool {
        self.copied.is_none() && matches!(self.left_behind(attempt, worktree), Ok(Some(_)))
    }

    /// Finds the registration of a worktree that names a place outside our root where nothing is any more.
    fn left_behind(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<Option<PathBuf>, VcsWorktreeError> {
        let Some(admin) = self.registered(&path_of(&worktree.repo), attempt)? else {
            return Ok(None);
        };
        let link = link_of(&admin)?;
        let left = link.is_some_and(|link| self.is_left(&link));
        Ok(left.then_some(admin))
    }

    /// Says whether a directory that a registration of ours names is one that a move has left nothing of.
    pub(super) fn is_left(&self, directory: &Path) -> bool {
        !directory.starts_with(&self.root)
            && exists(directory).is_ok_and(|there| !there)
            && self.original(directory).is_none()
    }

    /// Returns the root that a registered directory lies in, if that is the root of this data directory's original, or of a
    /// copy of it.
    pub(super) fn original(&self, directory: &Path) -> Option<PathBuf> {
        let root = fs::canonicalize(directory.parent()?.parent()?).ok()?;
        let same = root != self.root && provenance::is_root_of(&root, &self.data_directory);
        same.then_some(root)
    }

    /// The record of a worktree that lies in one of our folders, wherever it was when that was written.
    pub(super) fn at_home(&self, folder: &Path, worktree: Worktree) -> Worktree {
        match path_of(&worktree.path).file_name() {
            Some(name) => Worktree { path: locator(&folder.join(name)), ..worktree },
            None => worktree,
        }
    }
}

/// Says what to do about a worktree that is a copy of one which is in use.
pub(super) fn copied(path: &Path, original: &Path) -> String {
    format!(
        "it is a copy: its repository has {} registered, in another copy of this data directory; use it there. If that one is \
         not in use any more, move it away, and this one is taken over; to have a worktree made here beside it, move {} away \
         and restore",
        original.display(),
        path.display()
    )
}

/// Says whether a directory and its registration name each other.
fn is_linked(directory: &Path) -> bool {
    let link = directory.join(".git");
    let admin = read_link(&link, "gitdir: ", directory).ok().flatten();
    let back = admin.and_then(|admin| read_link(&admin.join("gitdir"), "", &admin).ok().flatten());
    back.is_some_and(|back| back == link)
}

fn leads(directory: &Path, admin: &Path) -> io::Result<Leads> {
    let link = directory.join(".git");
    if !link.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
        return Ok(Leads::Elsewhere);
    }
    let Some(to) = read_link(&link, "gitdir: ", Path::new(""))? else {
        return Ok(Leads::Elsewhere);
    };
    Ok(match fs::canonicalize(directory.join(&to)) {
        Ok(to) if to == *admin => Leads::There,
        Ok(_) => Leads::Elsewhere,
        Err(_) if to.is_relative() && ends_alike(&to, admin) => Leads::FromItsOldPlace,
        Err(_) => Leads::Elsewhere,
    })
}

/// Says whether two paths have the same last two names.
pub(super) fn ends_alike(one: &Path, other: &Path) -> bool {
    let end = |path: &Path| {
        let folder = path.parent()?.file_name()?;
        Some((folder.to_owned(), path.file_name()?.to_owned()))
    };
    end(one).is_some() && end(one) == end(other)
}
