//! What was copied in when a worktree was made, and whether it still exists where it came from.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use windlass_core::workspace::CopyIn;

use super::content;
use super::walk::{Kind, kind_of_mode};
use crate::vcs_worktree::below::Below;
use crate::vcs_worktree::copied::{self, Copied};
use crate::vcs_worktree::path_of;
use crate::vcs_worktree::tree::Stamp;

/// The list of what was copied in, and the checkout that it came from.
pub(super) struct Copies {
    listed: BTreeMap<PathBuf, Copied>,
    /// `None` if that cannot be opened: nothing exists there, then.
    source: Option<Mutex<Below>>,
}

impl Copies {
    /// Reads the list of a worktree that was made with `copy`.
    pub(super) fn of(admin: &Path, copy: Option<&CopyIn>) -> Self {
        // A list that is damaged names nothing: all of it is looked at as if it were new.
        let listed = copied::read(admin).unwrap_or_default();
        let from = copy.filter(|_| !listed.is_empty()).map(|copy| path_of(&copy.from));
        let source = from.and_then(|from| Below::open(&from).ok()).map(Mutex::new);
        Self { listed, source }
    }

    /// How something was right after it was copied in.
    pub(super) fn get(&self, path: &Path) -> Option<&Copied> {
        self.listed.get(path)
    }

    /// Says whether the place that something was copied from has these bytes. What cannot be read there has not.
    pub(super) fn are_where_they_came_from(
        &self,
        path: &Path,
        stamp: &Stamp,
        sha256: &[u8; 32],
    ) -> bool {
        self.digest(path, kind_of_mode(stamp.mode)).is_ok_and(|found| found == *sha256)
    }

    fn digest(&self, path: &Path, kind: Kind) -> io::Result<[u8; 32]> {
        let source = self.source.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let mut source = source.lock().unwrap_or_else(PoisonError::into_inner);
        if kind == Kind::Link {
            return content::digest(&mut source.link(path)?.as_slice());
        }
        let mut file = source.file(path)?;
        drop(source);
        if !file.metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        content::digest(&mut file)
    }
}
