//! Makes a worktree again as it was when it was removed.

use windlass_core::id::AttemptId;
use windlass_core::snapshot::SnapshotNumber;
use windlass_core::vcs_worktree::{Removed, VcsWorktreeError, Verified};
use windlass_core::workspace::Worktree;

use super::super::create::Start;
use super::super::refs::HEADS;
use super::super::verify::Found;
use super::super::{Inner, failed, path_of};
use super::examine::{Examined, Unusable, examine};
use super::fill::{Filling, Unfilled};
use super::objects::pack_in_bundle;
use super::{BUNDLE, OBJECTS};
use crate::group::Cancel;

impl Inner {
    /// Makes the worktree again, or verifies the one that is there. The caller holds the repository's lock.
    pub(in super::super) fn restore(
        &self,
        cancel: &Cancel,
        attempt: AttemptId,
        worktree: &Worktree,
        removed: &Removed,
    ) -> Result<Verified, VcsWorktreeError> {
        // What a crash left is undone first: its registration would take the branch.
        self.abandon(cancel, attempt, worktree)?;
        match self.verify(cancel, attempt, worktree) {
            Ok(found) => return Ok(found.verified),
            Err(VcsWorktreeError::Gone { .. }) => {}
            Err(error) => return Err(error),
        }
        let Some(number) = removed.snapshot else {
            let mut fill = |found: &Found| self.copy_in(cancel, worktree, found);
            return self.make_again(cancel, attempt, worktree, removed, &mut fill);
        };
        let damaged = |detail: String| VcsWorktreeError::DamagedSnapshot { number, detail };
        let archive = self.archive_of(attempt, number);
        let scratch = self.scratch.dir().map_err(|error| failed("restore", &self.root, error))?;
        let examined =
            examine(&archive, Some(scratch.path())).map_err(|unusable| match unusable {
                Unusable::Missing => VcsWorktreeError::NoSnapshot { number },
                Unusable::Damaged(why) => damaged(why),
                Unusable::Failed(error) => error,
            })?;
        fits(&examined, attempt, number, removed).map_err(damaged)?;
        let common = path_of(&worktree.repo);
        for name in [BUNDLE, OBJECTS] {
            if !examined.manifest.members.contains_key(name) {
                continue;
            }
            let file = scratch.path().join(name);
            let at = |error| failed("restore", &file, error);
            let from = if name == BUNDLE { pack_in_bundle(&file).map_err(at)? } else { Some(0) };
            let from = from.ok_or_else(|| damaged(format!("{name} is no bundle")))?;
            self.bring_in(cancel, &common, &file, from)?;
        }
        let mut fill = |found: &Found| {
            Filling::new(&archive, &examined, found).fill().map_err(|error| match error {
                Unfilled::Damaged(why) => damaged(why),
                Unfilled::Failed(error) => error,
            })
        };
        self.make_again(cancel, attempt, worktree, removed, &mut fill)
    }

    /// Makes the worktree on its branch, if that still is where it was and is checked out nowhere; else at its commit.
    fn make_again(
        &self,
        cancel: &Cancel,
        attempt: AttemptId,
        worktree: &Worktree,
        removed: &Removed,
        fill: super::super::create::Fill<'_>,
    ) -> Result<Verified, VcsWorktreeError> {
        let common = path_of(&worktree.repo);
        let oid = removed.head.clone();
        let detached = Start::Detached { oid: oid.clone() };
        let mut made = None;
        let start = match &removed.branch {
            None => detached,
            Some(name) => {
                let found = self.branch_oid(cancel, &common, name)?;
                let on_it = Start::Branch { name: name.clone(), oid: oid.clone() };
                match found {
                    None => {
                        self.move_branch(cancel, &common, name, None, Some(&oid.0))?;
                        made = Some(name);
                        on_it
                    }
                    Some(tip) if tip == oid && !self.is_checked_out(cancel, &common, name)? => {
                        on_it
                    }
                    Some(_) => detached,
                }
            }
        };
        let again = self.create_at(cancel, attempt, worktree, &start, fill);
        if let (Err(_), Some(name)) = (&again, made) {
            // The first error is the one to act on. A branch that stays is the one that was lost.
            drop(self.move_branch(&cancel.regardless(), &common, name, Some(&oid.0), None));
        }
        again.map(|found| found.verified)
    }

    /// Makes or deletes a branch that is where it was.
    fn move_branch(
        &self,
        cancel: &Cancel,
        common: &std::path::Path,
        name: &str,
        from: Option<&str>,
        to: Option<&str>,
    ) -> Result<(), VcsWorktreeError> {
        let update = self.git.on_repository(common, "update-ref").set("core.fsync=all");
        let update = update.set("core.fsyncMethod=fsync").env("GIT_NO_LAZY_FETCH", "1");
        let branch = format!("{HEADS}{name}");
        let update = match (from, to) {
            // An empty old value says that there must be none.
            (None, Some(to)) => update.args([branch.as_str(), to, ""]),
            (Some(from), _) => update.args(["-d", branch.as_str(), from]),
            (None, None) => return Ok(()),
        };
        update.output(cancel).map(drop)
    }

    fn is_checked_out(
        &self,
        cancel: &Cancel,
        common: &std::path::Path,
        name: &str,
    ) -> Result<bool, VcsWorktreeError> {
        let asked = self.git.on_repository(common, "for-each-ref");
        let asked = asked.arg("--format=%(worktreepath)").arg(format!("{HEADS}{name}"));
        Ok(!asked.output(cancel)?.trim_ascii().is_empty())
    }
}

/// Compares what was asked for with what the snapshot says of itself.
fn fits(
    examined: &Examined,
    attempt: AttemptId,
    number: SnapshotNumber,
    removed: &Removed,
) -> Result<(), String> {
    let manifest = &examined.manifest;
    if manifest.attempt != attempt || manifest.number != number {
        return Err(format!("it is snapshot {} of {}", manifest.number, manifest.attempt.short()));
    }
    if manifest.head != removed.head {
        return Err(format!("it was made on commit {}", manifest.head));
    }
    Ok(())
}
