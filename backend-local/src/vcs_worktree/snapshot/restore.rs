//! Makes a worktree again as it was when it was removed.

use windlass_core::id::AttemptId;
use windlass_core::snapshot::SnapshotNumber;
use windlass_core::vcs_worktree::{CreateMode, Creation, Removed, VcsWorktreeError};
use windlass_core::workspace::{Oid, Worktree};

use super::super::create::{Fill, Start};
use super::super::refs::HEADS;
use super::super::verify::Found;
use super::super::{Inner, failed, path_of};
use super::examine::{Examined, Unusable, examine};
use super::fill::{Filling, Unfilled};
use super::objects::{BundleHeader, bundle_header};
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
        mode: CreateMode,
    ) -> Result<Creation, VcsWorktreeError> {
        let half = self.completed(attempt, worktree)?;
        if half.is_none() && mode == CreateMode::Conclude {
            let found = self.refuse_incomplete(cancel, attempt, worktree)?;
            return Ok(Creation::Done(found.verified));
        }
        if half.is_none() {
            // What a crash left is undone first: its registration would take the branch.
            self.abandon(cancel, attempt, worktree)?;
            match self.verify(cancel, attempt, worktree) {
                Ok(found) => return Ok(Creation::Done(found.verified)),
                Err(VcsWorktreeError::Gone { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let end = |fill: Fill<'_>| match half {
            Some(half) => {
                let found = self.conclude(cancel, attempt, worktree, half, fill)?;
                Ok(Creation::Done(found.verified))
            }
            None => self.make_again(cancel, attempt, worktree, removed, fill),
        };
        let Some(number) = removed.snapshot else {
            return end(&mut |found: &Found| self.copy_in(cancel, worktree, found));
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
        let mut branches = Vec::new();
        for name in [BUNDLE, OBJECTS] {
            if !examined.manifest.members.contains_key(name) {
                continue;
            }
            let file = scratch.path().join(name);
            let at = |error| failed("restore", &file, error);
            let header = match name {
                BUNDLE => bundle_header(&file).map_err(at)?,
                _ => Some(BundleHeader::default()),
            };
            let header = header.ok_or_else(|| damaged(format!("{name} is no bundle")))?;
            self.bring_in(cancel, &common, &file, header.pack)?;
            branches.extend(header.branches);
        }
        // The one that HEAD named is made with the worktree.
        branches.retain(|(name, _)| removed.branch.as_ref() != Some(name));
        self.make_branches(cancel, &common, &branches)?;
        let mut fill = |found: &Found| {
            Filling::new(&archive, &examined, found).fill().map_err(|error| match error {
                Unfilled::Damaged(why) => damaged(why),
                Unfilled::Failed(error) => error,
            })
        };
        end(&mut fill)
    }

    /// Makes the worktree on its branch, if that still is where it was and is checked out nowhere; else at its commit.
    fn make_again(
        &self,
        cancel: &Cancel,
        attempt: AttemptId,
        worktree: &Worktree,
        removed: &Removed,
        fill: Fill<'_>,
    ) -> Result<Creation, VcsWorktreeError> {
        let common = path_of(&worktree.repo);
        let oid = removed.head.clone();
        let detached = Start::Detached { oid: oid.clone() };
        let mut made = None;
        let start = match &removed.branch {
            None => detached,
            Some(name) => {
                let found = self.branch_oid(cancel, &common, name)?;
                let on_it = |made| Start::Branch { name: name.clone(), oid: oid.clone(), made };
                match found {
                    None => {
                        self.move_branch(cancel, &common, name, None, Some(&oid.0))?;
                        made = Some(name);
                        on_it(true)
                    }
                    Some(tip) if tip == oid && !self.is_checked_out(cancel, &common, name)? => {
                        on_it(false)
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
        again.map(Creation::from)
    }

    /// Makes the branches that went with the worktree, where no other has such a name by now. They stay if the rest
    /// fails: they are what was lost.
    fn make_branches(
        &self,
        cancel: &Cancel,
        common: &std::path::Path,
        branches: &[(String, Oid)],
    ) -> Result<(), VcsWorktreeError> {
        for (name, oid) in branches {
            if self.branch_oid(cancel, common, name)?.is_none() {
                self.move_branch(cancel, common, name, None, Some(&oid.0))?;
            }
        }
        Ok(())
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
