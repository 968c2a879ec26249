//! Completes a worktree whose creation was acknowledged and may not have come to the disk before the machine went down.
//!
//! What a power cut leaves of a new file is nothing, an empty file, or its beginning with zeros after it. Only that is
//! replaced by what a checkout gives; a file with any other content is somebody's work and stays.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use windlass_core::id::AttemptId;
use windlass_core::vcs_worktree::VcsWorktreeError;
use windlass_core::workspace::Worktree;

use super::settle::{self, Settled};
use super::verify::Found;
use super::{Inner, failed, locator};
use crate::group::Cancel;

impl Inner {
    /// Completes the worktree if it is in doubt. The caller holds the repository's lock.
    pub(super) fn mend(
        &self,
        cancel: &Cancel,
        attempt: AttemptId,
        worktree: &Worktree,
    ) -> Result<(), VcsWorktreeError> {
        let found = match self.verify_settled_or_not(cancel, attempt, worktree) {
            Ok(found) => found,
            Err(VcsWorktreeError::Gone { .. } | VcsWorktreeError::Mismatch { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let at = |error| failed("mend", &found.admin, error);
        if settle::settled(&found.admin).map_err(at)? != Settled::Doubtful {
            return Ok(());
        }
        self.replace_damaged(cancel, &found)?;
        settle::settle_now(&found.admin, &found.path).map_err(at)
    }

    fn replace_damaged(&self, cancel: &Cancel, found: &Found) -> Result<(), VcsWorktreeError> {
        let at = |error| failed("mend", &found.path, error);
        let (admin, path) = (&found.admin, &found.path);
        let scratch = self.scratch.dir().map_err(at)?;
        // An index without a single stat: every file is compared by its content.
        let index = scratch.path().join("index");
        let read = self.git.on_worktree(admin, path, "read-tree").env("GIT_INDEX_FILE", &index);
        read.arg("HEAD").output(cancel)?;
        let differing = self.git.on_worktree(admin, path, "diff-files");
        let differing = differing.env("GIT_INDEX_FILE", &index);
        let differing =
            differing.args(["-z", "--name-only", "--ignore-submodules=all"]).output(cancel)?;
        let listed = self.git.on_worktree(admin, path, "ls-files");
        if listed.args(["-z"]).output(cancel).is_err() {
            // Git cannot read the index any more: what is left of it says nothing.
            let lost = admin.join("index");
            fs::copy(&index, &lost).map_err(|error| failed("mend", &lost, error))?;
        }
        let mut prefix = scratch.path().join("files").into_os_string();
        prefix.push("/");
        let mut option = std::ffi::OsString::from("--prefix=");
        option.push(&prefix);
        let names = scratch.input("names", &differing).map_err(at)?;
        let out = self.git.on_worktree(admin, path, "checkout-index");
        let out = out.env("GIT_INDEX_FILE", &index).stdin(names);
        out.arg(option).args(["-z", "--stdin"]).output(cancel)?;
        let fresh = Path::new(&prefix);
        for name in differing.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let name = Path::new(std::ffi::OsStr::from_bytes(name));
            replace(&path.join(name), &fresh.join(name)).map_err(at)?;
        }
        Ok(())
    }
}

/// Puts a fresh file in the place of one that is missing or is what a power cut leaves of it.
fn replace(old: &Path, fresh: &Path) -> io::Result<()> {
    if fresh.symlink_metadata().is_err() {
        return Ok(());
    }
    match old.symlink_metadata() {
        Ok(meta) if meta.is_file() => {
            if !is_remnant(&fs::read(old)?, &fs::read(fresh)?) {
                return Ok(());
            }
        }
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = old.parent() {
                fs::create_dir_all(parent)?;
            }
        }
        // A directory on the way is a file now: somebody's work.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(()),
        Err(error) => return Err(error),
    }
    match fs::rename(fresh, old) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            let mut file = fs::File::create(old)?;
            file.write_all(&fs::read(fresh)?)?;
            file.set_permissions(fresh.symlink_metadata()?.permissions())
        }
        other => other,
    }
}

/// Says whether `found` is the beginning of `whole`, maybe an empty one, with nothing but zeros after it.
fn is_remnant(found: &[u8], whole: &[u8]) -> bool {
    let same = found.iter().zip(whole).take_while(|(one, other)| one == other).count();
    found.len() <= whole.len() && found[same..].iter().all(|byte| *byte == 0)
}

/// What to tell people of a worktree in doubt.
pub(super) fn doubt(found: &Found) -> VcsWorktreeError {
    let detail = format!(
        "the machine went down before its files were safely on the disk, so some may be empty or missing: creating it \
         again completes it; to trust it as it is, look at `git status` and remove {}",
        found.admin.join(settle::FILE).display(),
    );
    VcsWorktreeError::Mismatch { path: locator(&found.path), detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remnants_are_beginnings_with_zeros_after_them() {
        for (found, remnant) in [
            ("", true),
            ("ab", true),
            ("ab\0\0", true),
            ("\0\0\0\0", true),
            ("abcd", true),
            ("ax", false),
            ("abcdef", false),
            ("ab\0d", false),
        ] {
            assert_eq!(is_remnant(found.as_bytes(), b"abcd"), remnant, "{found:?}");
        }
    }
}
