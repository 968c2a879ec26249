//! What a merge that did not come to its end left in a checkout of its target: it is told from what others do, so that it can
//! be put back and nothing else is.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;

use windlass_core::vcs_history::{Begun, VcsHistoryError};
use windlass_core::vcs_worktree::VcsWorktreeError;
use windlass_core::workspace::Oid;

use super::pieces;
use crate::group::Cancel;
use crate::vcs_worktree::commit::named;
use crate::vcs_worktree::git::first_line;
use crate::vcs_worktree::refs;
use crate::vcs_worktree::verify::Found;
use crate::vcs_worktree::{Inner, locator};

impl Inner {
    /// Looks at a checkout of the target: `None` if it is as its commit, the commit of a merge if it has a part of that and
    /// nothing else.
    ///
    /// # Errors
    ///
    /// [`VcsHistoryError::TargetInUse`] if it has changes of its own.
    pub(super) fn part_of(
        &self,
        cancel: &Cancel,
        checkout: Option<&Found>,
        target: &str,
        old: &Oid,
        begun: Option<&Begun>,
    ) -> Result<Option<Oid>, VcsHistoryError> {
        let Some(checkout) = checkout else { return Ok(None) };
        let changes = self.tracked_changes(cancel, checkout)?;
        let begun = match begun {
            Some(Begun::Merge { old: before, new, .. })
                if before == old && self.is_commit(cancel, &checkout.common, new)? =>
            {
                Some(new)
            }
            Some(_) | None => None,
        };
        let foreign = match begun {
            Some(new) => {
                let added = self.added(cancel, checkout, old, new)?;
                let at = |path: &[u8]| checkout.path.join(OsStr::from_bytes(path));
                let there = added.into_iter().filter(|path| at(path).symlink_metadata().is_ok());
                let paths: BTreeSet<_> = changes.into_iter().chain(there).collect();
                if paths.is_empty() {
                    return Ok(None);
                }
                match self.foreign(cancel, checkout, old, new, &paths)? {
                    foreign if foreign.is_empty() => return Ok(Some(new.clone())),
                    foreign => foreign,
                }
            }
            None if changes.is_empty() => return Ok(None),
            None => changes,
        };
        let names: Vec<_> =
            foreign.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
        Err(VcsHistoryError::TargetInUse {
            branch: target.to_owned(),
            path: locator(&checkout.path),
            detail: format!("it has changes that are not committed: {}", named(&names)),
        })
    }

    /// Picks those paths that hold something else than the target before, the target after, or a beginning of that.
    fn foreign(
        &self,
        cancel: &Cancel,
        checkout: &Found,
        old: &Oid,
        new: &Oid,
        paths: &BTreeSet<Vec<u8>>,
    ) -> Result<Vec<Vec<u8>>, VcsWorktreeError> {
        // The index is replaced as a whole.
        if !self.has_index_of(cancel, checkout, old)?
            && !self.has_index_of(cancel, checkout, new)?
        {
            return Ok(paths.iter().cloned().collect());
        }
        let mut foreign = Vec::new();
        for path in paths {
            let (before, after) = (
                self.entry(cancel, checkout, old, path)?,
                self.entry(cancel, checkout, new, path)?,
            );
            if before == after || !self.is_remnant(cancel, checkout, path, before, after)? {
                foreign.push(path.clone());
            }
        }
        Ok(foreign)
    }

    fn has_index_of(
        &self,
        cancel: &Cancel,
        checkout: &Found,
        commit: &Oid,
    ) -> Result<bool, VcsWorktreeError> {
        let asked = self.git.on_worktree(&checkout.admin, &checkout.path, "diff-index");
        let asked = asked.args(["--cached", "--quiet", "--ignore-submodules=none"]).arg(&commit.0);
        Ok(asked.answer(cancel)?.is_some())
    }

    /// Names the object that a commit has at a path.
    fn entry(
        &self,
        cancel: &Cancel,
        checkout: &Found,
        commit: &Oid,
        path: &[u8],
    ) -> Result<Option<Oid>, VcsWorktreeError> {
        let listed = self.git.on_repository(&checkout.common, "ls-tree").arg("-z");
        let listed = listed.env("GIT_LITERAL_PATHSPECS", "1").arg("--format=%(objectname)");
        let listed = listed.arg(&commit.0).arg("--").arg(OsStr::from_bytes(path)).output(cancel)?;
        Ok(pieces(&listed).next().and_then(refs::oid))
    }

    fn is_remnant(
        &self,
        cancel: &Cancel,
        checkout: &Found,
        path: &[u8],
        before: Option<Oid>,
        after: Option<Oid>,
    ) -> Result<bool, VcsWorktreeError> {
        let at = checkout.path.join(OsStr::from_bytes(path));
        let Ok(meta) = at.symlink_metadata() else { return Ok(true) };
        let raw = match (meta.is_symlink(), meta.is_file()) {
            (true, _) => fs::read_link(&at).map(|link| link.as_os_str().as_bytes().to_vec()),
            (false, true) => fs::read(&at),
            (false, false) => return Ok(false),
        };
        // What cannot be read cannot be judged.
        let Ok(raw) = raw else { return Ok(false) };
        let blobs = [&before, &after].map(|oid| match oid {
            Some(oid) => self
                .git
                .on_repository(&checkout.common, "cat-file")
                .arg("blob")
                .arg(&oid.0)
                .output(cancel)
                .map(Some),
            None => Ok(None),
        });
        let [was, will_be] = blobs;
        if was?.is_some_and(|was| was == raw) || will_be?.is_some_and(|it| it.starts_with(&raw)) {
            return Ok(true);
        }
        if meta.is_symlink() {
            return Ok(false);
        }
        // Ends of lines and filters make other bytes of the same content.
        let hash = self.git.on_worktree(&checkout.admin, &checkout.path, "hash-object");
        let hash = hash.arg("--").arg(&at).output(cancel)?;
        let hash = refs::oid(first_line(&hash));
        Ok(hash.is_some() && (hash == before || hash == after))
    }
}
