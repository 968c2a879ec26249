//! Has git compare everything, where a look at the worktree cannot tell what may differ.
//!
//! Untracked files are entered in a copy of the index, as empty files that git then finds changed. So git compares
//! everything itself, and neither the index nor the objects of the user's repository are written.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use windlass_core::vcs_worktree::VcsWorktreeError;
use windlass_core::workspace::Oid;

use super::{GITLINK, Side, Untracked};
use crate::group::Cancel;
use crate::vcs_worktree::scratch::ScratchDir;
use crate::vcs_worktree::verify::Found;
use crate::vcs_worktree::{Inner, failed};

/// The empty file, by SHA-1 and by SHA-256.
const EMPTY: [&str; 2] = [
    "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",
    "473a0f4c3be8a93681a267e3b1e9a7dcda1185436fe141f7749120a303721813",
];

impl Inner {
    /// Prepares a comparison of everything.
    pub(super) fn whole(
        &self,
        cancel: &Cancel,
        found: &Found,
        base: &Oid,
        scratch: &ScratchDir,
    ) -> Result<(Vec<Side>, Untracked), VcsWorktreeError> {
        let index =
            scratch.index(&found.admin).map_err(|error| failed("diff", &found.path, error))?;
        let untracked = self.untracked(cancel, found)?;
        self.enter(cancel, found, &untracked, scratch, &index)?;
        let side = Side { index, tree: Some(base.clone()), work_tree: None };
        Ok((vec![side], untracked))
    }

    fn untracked(&self, cancel: &Cancel, found: &Found) -> Result<Untracked, VcsWorktreeError> {
        let asked = self.git.on_worktree(&found.admin, &found.path, "ls-files");
        let listed = asked.args(["-z", "--others", "--exclude-standard"]).output(cancel)?;
        let mut untracked = Untracked::default();
        for path in listed.split(|byte| *byte == 0).filter(|path| !path.is_empty()) {
            let Some(nested) = path.strip_suffix(b"/") else {
                untracked.files.insert(path.to_vec());
                continue;
            };
            let dir = found.path.join(OsStr::from_bytes(nested));
            let head = self.git.within(&dir, "rev-parse");
            let head = head.args(["--verify", "--quiet", "HEAD"]).run(cancel)?;
            let known = if head.status.success() {
                &mut untracked.repositories
            } else {
                &mut untracked.unborn
            };
            known.insert(nested.to_vec());
        }
        Ok(untracked)
    }

    /// Enters untracked files in the copied index.
    fn enter(
        &self,
        cancel: &Cancel,
        found: &Found,
        untracked: &Untracked,
        scratch: &ScratchDir,
        index: &Path,
    ) -> Result<(), VcsWorktreeError> {
        let empty = EMPTY[usize::from(found.verified.head.0.len() == 64)];
        let mut list = Vec::new();
        let mut enter = |mode: &str, path: &[u8]| {
            list.extend_from_slice(format!("{mode} {empty} 0\t").as_bytes());
            list.extend_from_slice(path);
            list.push(0);
        };
        for path in &untracked.files {
            let file = found.path.join(OsStr::from_bytes(path));
            // Gone since it was listed: nothing to compare.
            let Ok(meta) = file.symlink_metadata() else { continue };
            enter(if meta.is_symlink() { "120000" } else { "100644" }, path);
        }
        for path in &untracked.repositories {
            enter(GITLINK, path);
        }
        if list.is_empty() {
            return Ok(());
        }
        let input = scratch
            .input("untracked", &list)
            .map_err(|error| failed("diff", scratch.path(), error))?;
        let update = self.git.on_worktree(&found.admin, &found.path, "update-index");
        let update = update.env("GIT_INDEX_FILE", index).stdin(input);
        // What became a directory, or a file, is replaced by what is there now.
        update.args(["--add", "--replace", "-z", "--index-info"]).output(cancel).map(drop)
    }
}
