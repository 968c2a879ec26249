//! Merges, rebases and pushes in memory. A step is named by its program and has one argument, words with spaces between.

use std::collections::BTreeSet;

use windlass_core::id::AttemptId;
use windlass_core::locator::Locator;
use windlass_core::vcs_history::{
    Begun, Conclusion, HistoryPlan, HistoryRequest, HistoryWork, InProgress, MergeStyle, Merged,
    Standing, VcsHistoryError,
};
use windlass_core::vcs_worktree::{Diff, DiffDetail, GitStep, VcsWorktreeError, Verified};
use windlass_core::workspace::{Oid, Worktree};

use super::history::{Commit, Files, Head, Repository};
use super::{Compared, Disk, MemoryWorktrees, compare, mismatch};

/// The programs of the steps.
pub(super) const HISTORY_STEPS: [&str; 4] =
    ["memory-git-merge", "memory-git-rebase", "memory-git-abort", "memory-git-push"];

impl MemoryWorktrees {
    pub(crate) fn history_plan(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        request: &HistoryRequest,
    ) -> Result<HistoryPlan, VcsHistoryError> {
        let mut world = self.world();
        let verified = self.verified(&world, attempt, worktree)?;
        match &request.work {
            HistoryWork::Merge { target, style, message } => {
                world.refuse_uncommitted(worktree)?;
                world.plan_merge(worktree, &verified, request, (target, *style, message))
            }
            HistoryWork::Rebase { onto } => {
                world.refuse_uncommitted(worktree)?;
                world.plan_rebase(worktree, &verified, onto)
            }
            HistoryWork::Continue => Err(nothing("no rebase is in progress in the worktree")),
            HistoryWork::Abort => {
                let repository = world.repository(&worktree.path);
                let begun = repository.checkouts.get(&worktree.path);
                match begun.is_some_and(|registration| registration.merging.is_some()) {
                    true => Ok(run(worktree, HISTORY_STEPS[2], "merge", Begun::Abort)),
                    false if request.begun == Some(Begun::Abort) => {
                        Ok(HistoryPlan::Done(Conclusion::Aborted { head: verified.head }))
                    }
                    false => Err(nothing("nothing is in progress in the worktree")),
                }
            }
            HistoryWork::Push { remote, .. } => {
                let Some(branch) = verified.branch else {
                    return Err(nothing("there is no branch to push"));
                };
                let remote = remote.clone().unwrap_or_else(|| "origin".to_owned());
                let words = format!("{remote} {branch} {}", verified.head);
                let begun = Begun::Push { remote, branch, head: verified.head };
                Ok(run(worktree, HISTORY_STEPS[3], &words, begun))
            }
        }
    }

    pub(crate) fn history_conclusion(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        request: &HistoryRequest,
    ) -> Result<Conclusion, VcsHistoryError> {
        let mut world = self.world();
        let Verified { head, .. } = self.verified(&world, attempt, worktree)?;
        let repository = world.repository(&worktree.path);
        Ok(match (&request.work, &request.begun) {
            (
                HistoryWork::Merge { target, style, .. },
                Some(Begun::Merge { new, head: merged, .. }),
            ) if repository
                .branches
                .get(target)
                .is_some_and(|tip| repository.reaches(tip, new)) =>
            {
                Conclusion::Merged(Merged {
                    target: target.clone(),
                    commit: new.clone(),
                    head: merged.clone(),
                    style: Some(*style),
                    at: request.at,
                })
            }
            (_, Some(Begun::Rebase { onto, .. })) if repository.reaches(&head, onto) => {
                Conclusion::Rebased { head, onto: onto.clone() }
            }
            (_, Some(Begun::Abort)) => {
                let begun = repository.checkouts.get(&worktree.path);
                match begun.is_some_and(|registration| registration.merging.is_some()) {
                    true => Conclusion::NotDone,
                    false => Conclusion::Aborted { head },
                }
            }
            _ => Conclusion::NotDone,
        })
    }

    pub(crate) fn history_standing(
        &self,
        attempt: AttemptId,
        worktree: &Worktree,
        merged: Option<&Merged>,
    ) -> Result<Standing, VcsHistoryError> {
        let mut world = self.world();
        let Verified { head, .. } = self.verified(&world, attempt, worktree)?;
        let repository = world.repository(&worktree.path);
        let begun = repository.checkouts.get(&worktree.path);
        let merging = begun.is_some_and(|registration| registration.merging.is_some());
        let tip = worktree.target.as_ref().and_then(|target| repository.branches.get(target));
        let by_name =
            tip.is_some_and(|tip| head != worktree.base_oid && repository.reaches(tip, &head));
        let by_record = merged.is_some_and(|merged| {
            let tip = repository.branches.get(&merged.target);
            merged.head == head && tip.is_some_and(|tip| repository.reaches(tip, &merged.commit))
        });
        Ok(Standing {
            in_progress: merging.then_some(InProgress::Merge),
            conflicts: Vec::new(),
            landed: !merging && (by_name || by_record),
        })
    }

    pub(crate) fn diff_of_merge(
        &self,
        worktree: &Worktree,
        merged: &Merged,
        detail: DiffDetail,
    ) -> Result<Diff, VcsHistoryError> {
        let world = self.world();
        let repository = world.repositories.get(&worktree.repo);
        let commits = repository.map(|repository| &repository.commits);
        let gone = || nothing("the merge is not in the repository any more");
        let (from, to) = match merged.style {
            Some(_) => {
                let commit = commits.and_then(|commits| commits.get(&merged.commit));
                (commit.and_then(|commit| commit.parent.clone()).ok_or_else(gone)?, &merged.commit)
            }
            None => (worktree.base_oid.clone(), &merged.head),
        };
        let files = |oid: &Oid| {
            let commit = commits.and_then(|commits| commits.get(oid)).ok_or_else(gone)?;
            Ok::<_, VcsHistoryError>(commit.files.clone())
        };
        let (old, new) = (files(&from)?, files(to)?);
        let patch = match detail {
            DiffDetail::Files => None,
            DiffDetail::Patch => Some(compare::patch(&old, &new, &new)),
        };
        let files = compare::files(&old, &new, &new);
        Ok(Diff { base: from, head: to.clone(), files, patch })
    }
}

fn nothing(detail: &str) -> VcsHistoryError {
    VcsHistoryError::Nothing { detail: detail.to_owned() }
}

fn run(worktree: &Worktree, program: &str, words: &str, begun: Begun) -> HistoryPlan {
    let step = GitStep {
        argv: vec![program.into(), words.into()],
        env: Vec::new(),
        base_env: Vec::new(),
        cwd: worktree.path.clone(),
        repository_lock: worktree.repo.clone(),
    };
    HistoryPlan::Run { step, begun }
}

/// Merges trees, file by file; names the files that both sides changed.
fn merged(base: &Files, ours: &Files, theirs: &Files) -> Result<Files, Vec<String>> {
    let (mut files, mut conflicts) = (Files::new(), Vec::new());
    let paths: BTreeSet<_> = base.keys().chain(ours.keys()).chain(theirs.keys()).collect();
    for path in paths {
        let (was, our, their) = (base.get(path), ours.get(path), theirs.get(path));
        let file = match (our == was, their == was || our == their) {
            (_, true) => our,
            (true, false) => their,
            (false, false) => {
                conflicts.push(path.clone());
                continue;
            }
        };
        files.extend(file.map(|file| (path.clone(), file.clone())));
    }
    if conflicts.is_empty() { Ok(files) } else { Err(conflicts) }
}

impl Repository {
    /// Says whether a commit is another one or follows from it.
    fn reaches(&self, from: &Oid, to: &Oid) -> bool {
        let (mut todo, mut seen) = (vec![from.clone()], BTreeSet::new());
        while let Some(oid) = todo.pop() {
            if oid == *to {
                return true;
            }
            if let Some(commit) = self.commits.get(&oid)
                && seen.insert(oid)
            {
                todo.extend(commit.parent.iter().chain(&commit.merges).cloned());
            }
        }
        false
    }

    fn tree(&self, oid: &Oid) -> Files {
        self.commits.get(oid).map(|commit| commit.files.clone()).unwrap_or_default()
    }
}

impl Disk {
    fn refuse_uncommitted(&self, worktree: &Worktree) -> Result<(), VcsHistoryError> {
        let Compared { repository, committed, index, files } = self.compared(worktree)?;
        let path = worktree.path.clone();
        let begun = repository.checkouts.get(&path);
        if begun.is_some_and(|registration| registration.merging.is_some()) {
            let detail = "a merge is in progress".to_owned();
            return Err(VcsWorktreeError::Unfinished { path, detail }.into());
        }
        if !compare::same(&committed, &index, files) {
            return Err(VcsHistoryError::Dirty { path, detail: "files".to_owned() });
        }
        Ok(())
    }

    fn plan_merge(
        &mut self,
        worktree: &Worktree,
        verified: &Verified,
        request: &HistoryRequest,
        (target, style, message): (&String, MergeStyle, &str),
    ) -> Result<HistoryPlan, VcsHistoryError> {
        let head = &verified.head;
        let repository = self.repository(&worktree.path);
        let Some(old) = repository.branches.get(target).cloned() else {
            return Err(VcsHistoryError::NoBranch { branch: target.clone() });
        };
        if *target == worktree.branch {
            return Err(VcsHistoryError::OwnBranch { branch: target.clone() });
        }
        let is = |commit: &Oid, style| Merged {
            target: target.clone(),
            commit: commit.clone(),
            head: head.clone(),
            style,
            at: request.at,
        };
        let before = request.merged.as_ref();
        if let Some(merged) =
            before.filter(|merged| merged.head == *head && merged.target == *target)
            && repository.reaches(&old, &merged.commit)
        {
            return Ok(HistoryPlan::Done(Conclusion::Merged(merged.clone())));
        }
        if let Some(Begun::Merge { new, head: begun, .. }) = &request.begun
            && begun == head
            && repository.reaches(&old, new)
        {
            return Ok(HistoryPlan::Done(Conclusion::Merged(is(new, Some(style)))));
        }
        if *head == worktree.base_oid {
            return Err(nothing("there is nothing to merge"));
        }
        if repository.reaches(&old, head) {
            return Ok(HistoryPlan::Done(Conclusion::Merged(is(&old, None))));
        }
        let base = repository.merge_base(&old, head).unwrap_or_else(|| worktree.base_oid.clone());
        let (was, ours) = (repository.tree(&base), repository.tree(&old));
        let files = merged(&was, &ours, &repository.tree(head))
            .map_err(|files| VcsHistoryError::Conflicts { target: target.clone(), files })?;
        if files == ours {
            return Ok(HistoryPlan::Done(Conclusion::Merged(is(&old, None))));
        }
        let author = repository.identity.clone().unwrap_or_else(|| request.fallback.clone());
        let merges = (style == MergeStyle::Commit).then(|| head.clone());
        let message = message.to_owned();
        let commit = Commit { parent: Some(old.clone()), merges, files, message, author };
        let new = commit.oid();
        repository.commits.insert(new.clone(), commit);
        for dir in self.checkouts_of(&worktree.path, target) {
            if self.head_files(&dir) != self.all_files(&dir) {
                return Err(VcsHistoryError::TargetInUse {
                    branch: target.clone(),
                    path: dir,
                    detail: "it has changes that are not committed".to_owned(),
                });
            }
        }
        let begun = Begun::Merge { old: old.clone(), new: new.clone(), head: head.clone() };
        Ok(run(worktree, HISTORY_STEPS[0], &format!("{target} {old} {new}"), begun))
    }

    fn plan_rebase(
        &mut self,
        worktree: &Worktree,
        verified: &Verified,
        onto: &str,
    ) -> Result<HistoryPlan, VcsHistoryError> {
        let repository = self.repository(&worktree.path);
        let Some(tip) = repository.branches.get(onto).cloned() else {
            return Err(VcsHistoryError::NoBranch { branch: onto.to_owned() });
        };
        if verified.branch.as_deref() != Some(worktree.branch.as_str()) {
            return Err(mismatch(&worktree.path, "its branch is another one").into());
        }
        let head = verified.head.clone();
        if repository.reaches(&head, &tip) {
            return Ok(HistoryPlan::Done(Conclusion::Rebased { head, onto: tip }));
        }
        let words = format!("{head} {tip}");
        Ok(run(worktree, HISTORY_STEPS[1], &words, Begun::Rebase { head, onto: tip }))
    }

    /// Lists the directories of a worktree's repository in which a branch is checked out.
    fn checkouts_of(&mut self, dir: &Locator, branch: &str) -> Vec<Locator> {
        let checkouts = self.repository(dir).checkouts.iter();
        let there = checkouts.filter(|(_, it)| it.head.branch() == Some(branch));
        there.map(|(dir, _)| dir.clone()).collect()
    }

    /// Performs a step as its program does; says whether it ended with 0.
    pub(super) fn perform_history(&mut self, dir: &Locator, program: &str, words: &str) -> bool {
        if !self.checkouts.contains_key(dir) || self.is_git_locked(dir) {
            return false;
        }
        let words: Vec<_> = words.split(' ').map(str::to_owned).collect();
        match (program, words.as_slice()) {
            ("memory-git-merge", [target, old, new]) => {
                self.move_target(dir, target, &Oid(old.clone()), &Oid(new.clone()))
            }
            ("memory-git-rebase", [head, onto]) => {
                self.replay(dir, &Oid(head.clone()), &Oid(onto.clone()))
            }
            ("memory-git-abort", [_]) => {
                let registration = self.registration(dir);
                registration.merging = None;
                registration.staged.clear();
                true
            }
            ("memory-git-push", [remote, branch, head]) => {
                let name = format!("{remote}/{branch}");
                self.repository(dir).pushed.insert(name, Oid(head.clone()));
                true
            }
            _ => false,
        }
    }

    fn move_target(&mut self, dir: &Locator, target: &str, old: &Oid, new: &Oid) -> bool {
        let now = self.repository(dir).branches.get(target).cloned();
        if now.as_ref() == Some(new) {
            return true;
        }
        let checkouts = self.checkouts_of(dir, target);
        let clean = checkouts.iter().all(|dir| self.head_files(dir) == self.all_files(dir));
        if now.as_ref() != Some(old) || !clean {
            return false;
        }
        let (before, after) = (self.repository(dir).tree(old), self.repository(dir).tree(new));
        self.repository(dir).branches.insert(target.to_owned(), new.clone());
        for checkout in checkouts {
            self.registration(&checkout).been.insert(new.clone());
            let files = self.files(&checkout);
            files.retain(|path, _| !before.contains_key(path));
            files.extend(after.clone());
        }
        true
    }

    fn replay(&mut self, dir: &Locator, head: &Oid, onto: &Oid) -> bool {
        let Head::Branch(branch) = self.registration(dir).head.clone() else { return false };
        let repository = self.repository(dir);
        if repository.branches.get(&branch) != Some(head) {
            return false;
        }
        let Some(base) = repository.merge_base(onto, head) else { return false };
        let mut line = Vec::new();
        let mut at = head.clone();
        while at != base {
            let commit = repository.commits[&at].clone();
            let Some(parent) = commit.parent.clone() else { return false };
            line.push(commit);
            at = parent;
        }
        let before = repository.tree(head);
        let mut tip = onto.clone();
        for commit in line.into_iter().rev() {
            let was = commit.parent.as_ref().map(|parent| repository.tree(parent));
            let both = merged(&was.unwrap_or_default(), &repository.tree(&tip), &commit.files);
            let Ok(files) = both else { return false };
            let again = Commit { parent: Some(tip.clone()), merges: None, files, ..commit };
            tip = again.oid();
            repository.commits.insert(tip.clone(), again);
        }
        let after = repository.tree(&tip);
        repository.branches.insert(branch, tip.clone());
        self.registration(dir).been.insert(tip);
        let files = self.files(dir);
        files.retain(|path, _| !before.contains_key(path));
        files.extend(after);
        true
    }
}
