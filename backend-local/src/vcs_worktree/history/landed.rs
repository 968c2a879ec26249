//! Says where the commits of a worktree stand, and whether they have landed in their target, by content where not by name.
//!
//! Looking writes nothing into the repository: objects that it takes go to a scratch directory.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::{Mutex, PoisonError};

use windlass_core::id::AttemptId;
use windlass_core::vcs_history::{Merged, Standing, VcsHistoryError};
use windlass_core::vcs_worktree::VcsWorktreeError;
use windlass_core::workspace::{Oid, Worktree};

use super::in_progress;
use super::merge::Tree;
use crate::group::Cancel;
use crate::vcs_worktree::verify::Found;
use crate::vcs_worktree::{Inner, failed};

/// How many commits of a target are compared with the work.
const COMPARED: &str = "--max-count=256";
/// How many answers are remembered.
const REMEMBERED: usize = 256;

/// What is asked: target, head, and the commit from which on the work counts.
type Question = (Oid, Oid, Oid);

/// What was found out about commits, which do not change.
#[derive(Debug, Default)]
pub(in crate::vcs_worktree) struct Landings {
    known: Mutex<Vec<(Question, bool)>>,
}

impl Landings {
    fn get(&self, question: &Question) -> Option<bool> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().find(|(asked, _)| asked == question).map(|(_, answer)| *answer)
    }

    fn put(&self, question: Question, answer: bool) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.remove(0);
        }
        known.push((question, answer));
    }
}

impl Inner {
    pub(super) fn standing(
        &self,
        cancel: &Cancel,
        attempt: AttemptId,
        worktree: &Worktree,
        merged: Option<&Merged>,
    ) -> Result<Standing, VcsHistoryError> {
        let found = self.verify(cancel, attempt, worktree)?;
        let in_progress = in_progress(&found)?;
        let conflicts = match in_progress {
            Some(_) => self.conflicts(cancel, &found)?,
            None => Vec::new(),
        };
        // What is half done has landed nowhere, wherever HEAD is meanwhile.
        let landed = in_progress.is_none() && self.has_landed(cancel, &found, worktree, merged)?;
        Ok(Standing { in_progress, conflicts, landed })
    }

    fn has_landed(
        &self,
        cancel: &Cancel,
        found: &Found,
        worktree: &Worktree,
        merged: Option<&Merged>,
    ) -> Result<bool, VcsWorktreeError> {
        let head = &found.verified.head;
        if let Some(merged) = merged.filter(|merged| merged.head == *head)
            && self.has_merge(cancel, found, merged)?
        {
            return Ok(true);
        }
        let Some(target) = &worktree.target else { return Ok(false) };
        let Some(tip) = self.branch_oid(cancel, &found.common, target)? else { return Ok(false) };
        if *head == worktree.base_oid || tip == worktree.base_oid {
            // Nothing was done, or nothing came to the target since.
            return Ok(false);
        }
        let since = self.since(cancel, found, merged, target, &tip)?;
        let question = (tip, head.clone(), since.unwrap_or_else(|| worktree.base_oid.clone()));
        if let Some(known) = self.landings.get(&question) {
            return Ok(known);
        }
        let (tip, head, since) = &question;
        let landed = self.reaches(cancel, &found.common, tip, head)?
            || self.is_there_by_content(cancel, found, worktree, (tip, head, since))?;
        self.landings.put(question, landed);
        Ok(landed)
    }

    /// Says whether a merge that is recorded is still in its target.
    fn has_merge(
        &self,
        cancel: &Cancel,
        found: &Found,
        merged: &Merged,
    ) -> Result<bool, VcsWorktreeError> {
        let Some(tip) = self.branch_oid(cancel, &found.common, &merged.target)? else {
            return Ok(false);
        };
        if tip == merged.commit {
            return Ok(true);
        }
        let question = (tip, merged.commit.clone(), merged.head.clone());
        if let Some(known) = self.landings.get(&question) {
            return Ok(known);
        }
        let (tip, commit, _) = &question;
        let there = self.is_commit(cancel, &found.common, commit)?
            && self.reaches(cancel, &found.common, tip, commit)?;
        self.landings.put(question, there);
        Ok(there)
    }

    /// Says whether a merge would change nothing, or a commit of the target changes just what all of the work does.
    fn is_there_by_content(
        &self,
        cancel: &Cancel,
        found: &Found,
        worktree: &Worktree,
        (tip, head, since): (&Oid, &Oid, &Oid),
    ) -> Result<bool, VcsWorktreeError> {
        let base = match *since == worktree.base_oid {
            true => self.merge_base(cancel, found, worktree)?,
            false => since.clone(),
        };
        if self.tree_of(cancel, &found.common, &base)?
            == self.tree_of(cancel, &found.common, head)?
        {
            return Ok(false);
        }
        let has_drivers = self.git.on_repository(&found.common, "config");
        let has_drivers = has_drivers.args(["--get-regexp", r"^merge\..*\.driver$"]);
        // Drivers are the user's code, which is not run by looking.
        if has_drivers.answer(cancel)?.is_none() {
            let scratch = self.scratch.dir().map_err(|error| failed("look", &found.path, error))?;
            let since = (*since != worktree.base_oid).then_some(since);
            let objects = Some(scratch.path());
            match self.merged_tree(cancel, found, tip, head, since, objects) {
                Ok(Tree::Clean(tree)) => {
                    if tree == self.tree_of(cancel, &found.common, tip)? {
                        return Ok(true);
                    }
                }
                // An old git cannot tell it this way.
                Ok(Tree::Conflicts(_)) | Err(VcsWorktreeError::NoGit { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.has_the_same_patch(cancel, found, &base, (tip, head))
    }

    fn has_the_same_patch(
        &self,
        cancel: &Cancel,
        found: &Found,
        base: &Oid,
        (tip, head): (&Oid, &Oid),
    ) -> Result<bool, VcsWorktreeError> {
        let ours = self.git.on_repository(&found.common, "diff-tree").args(["-p", "--no-ext-diff"]);
        let ours = ours.arg("--no-textconv").arg(&base.0).arg(&head.0).output(cancel)?;
        let ours = self.patch_ids(cancel, found, &ours)?;
        let theirs = self.git.on_repository(&found.common, "log");
        let theirs = theirs.args(["-p", "--no-merges", "--no-ext-diff", "--no-textconv", COMPARED]);
        let theirs = theirs.arg(format!("{base}..{tip}")).output(cancel)?;
        let theirs = self.patch_ids(cancel, found, &theirs)?;
        Ok(!ours.is_empty() && ours.is_subset(&theirs))
    }

    fn patch_ids(
        &self,
        cancel: &Cancel,
        found: &Found,
        patches: &[u8],
    ) -> Result<BTreeSet<Vec<u8>>, VcsWorktreeError> {
        let at = |error| failed("look", &found.path, error);
        let scratch = self.scratch.dir().map_err(at)?;
        let file = scratch.path().join("patches");
        std::fs::write(&file, patches).map_err(at)?;
        let input = File::open(&file).map_err(at)?;
        let ids = self.git.on_repository(&found.common, "patch-id").arg("--stable").stdin(input);
        let ids = ids.output(cancel)?;
        let lines = ids.split(|byte| *byte == b'\n');
        let first = |line: &[u8]| line.split(|byte| *byte == b' ').next().map(<[u8]>::to_vec);
        Ok(lines.filter_map(first).filter(|id| !id.is_empty()).collect())
    }
}
