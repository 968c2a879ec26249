//! Merges into a branch: what is decided, and what the step that is described does to the target and its checkout.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use windlass_conformance::vcs_worktree::VcsWorktreePlace as _;
use windlass_core::locator::{Locator, OsBytes};
use windlass_core::time::Timestamp;
use windlass_core::vcs_history::{
    Begun, Conclusion, HistoryPlan, HistoryRequest, HistoryWork, MergeStyle, Merged, VcsHistory,
    VcsHistoryError,
};
use windlass_core::vcs_worktree::{DiffDetail, GitStep, VcsWorktreeError};
use windlass_core::workspace::{Oid, Worktree};
use windlass_local::{GitOptions, GitWorktrees};

use crate::changes::fallback;
use crate::place::{GitPlace, attempt, path, write_program};

/// A repository with a checkout of `main`, and a worktree with work that is committed.
pub(crate) struct Merging {
    pub(crate) place: GitPlace,
    pub(crate) repo: Locator,
    pub(crate) vcs: Arc<GitWorktrees>,
    pub(crate) worktree: Worktree,
    pub(crate) request: HistoryRequest,
}

pub(crate) fn request(work: HistoryWork) -> HistoryRequest {
    HistoryRequest {
        work,
        fallback: fallback(),
        at: Timestamp(1_700_000_000_000),
        begun: None,
        merged: None,
    }
}

pub(crate) fn merge(style: MergeStyle) -> HistoryWork {
    HistoryWork::Merge {
        target: "main".to_owned(),
        style,
        message: "Do it\n\nAll of it.".to_owned(),
    }
}

impl Merging {
    pub(crate) async fn new() -> Self {
        let place = GitPlace::default();
        let repo = place.repository();
        let vcs = GitWorktrees::open(place.options("data")).await.unwrap();
        let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
        place.write(&worktree.path, "greeting", "hello, world\n");
        place.write(&worktree.path, "dir/new", "new\n");
        place.commit(&worktree.path, "work");
        Self { place, repo, vcs, worktree, request: request(merge(MergeStyle::Squash)) }
    }

    pub(crate) fn at(&self) -> PathBuf {
        path(&self.worktree.path)
    }

    pub(crate) fn main(&self) -> PathBuf {
        path(&self.repo)
    }

    /// What git says in the checkout of the target.
    pub(crate) fn says(&self, args: &[&str]) -> String {
        self.place.ok(&self.main(), args)
    }

    pub(crate) fn head(&self) -> Oid {
        Oid(self.place.ok(&self.at(), &["rev-parse", "HEAD"]))
    }

    pub(crate) async fn plan(&self) -> Result<HistoryPlan, VcsHistoryError> {
        self.vcs.plan_history(attempt(1), &self.worktree, &self.request).await
    }

    pub(crate) async fn step(&mut self) -> GitStep {
        match self.plan().await.unwrap() {
            HistoryPlan::Run { step, begun } => {
                self.request.begun = Some(begun);
                step
            }
            HistoryPlan::Done(conclusion) => panic!("{conclusion:?}"),
        }
    }

    pub(crate) async fn concluded(&self) -> Conclusion {
        self.vcs.conclude_history(attempt(1), &self.worktree, &self.request).await.unwrap()
    }

    /// Does what is asked for, to its end.
    pub(crate) async fn done(&mut self) -> Conclusion {
        let step = match self.plan().await.unwrap() {
            HistoryPlan::Done(conclusion) => return conclusion,
            HistoryPlan::Run { step, begun } => {
                self.request.begun = Some(begun);
                step
            }
        };
        let (code, said) = self.place.run_step(&step);
        assert_eq!(code, Some(0), "{said}");
        self.concluded().await
    }

    pub(crate) async fn merged(&mut self) -> Merged {
        match self.done().await {
            Conclusion::Merged(merged) => merged,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn landed(&self, merged: Option<&Merged>) -> bool {
        self.vcs.standing(attempt(1), &self.worktree, merged).await.unwrap().landed
    }

    /// Frees the target: nobody has it checked out.
    fn free_target(&self) {
        self.says(&["switch", "--quiet", "--create", "elsewhere"]);
    }

    /// The commit that a planned merge will make.
    fn new_commit(&self) -> String {
        let Some(Begun::Merge { new, .. }) = &self.request.begun else { panic!("no merge") };
        new.0.clone()
    }

    async fn refused(&self) -> VcsHistoryError {
        self.plan().await.unwrap_err()
    }
}

#[track_caller]
fn in_use(error: &VcsHistoryError) -> &str {
    match error {
        VcsHistoryError::TargetInUse { detail, .. } => detail,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_squash_puts_one_commit_on_a_target_that_nobody_has_checked_out() {
    let mut merging = Merging::new().await;
    merging.place.write(&merging.worktree.path, "sub/numbers", "1\n");
    merging.place.commit(&merging.worktree.path, "more");
    merging.free_target();
    let before = merging.says(&["rev-parse", "main"]);
    let merged = merging.merged().await;
    assert_eq!(merging.says(&["rev-parse", "main"]), merged.commit.0);
    assert_eq!(merging.says(&["log", "--format=%P", "-1", "main"]), before);
    assert_eq!(merging.says(&["log", "--format=%B", "-1", "main"]), "Do it\n\nAll of it.");
    let who = merging.says(&["log", "--format=%an <%ae> %cn %at", "-1", "main"]);
    assert_eq!(who, "Fallback <fallback@example.org> Fallback 1700000000");
    let branch = merging.worktree.branch.clone();
    assert_eq!(merging.says(&["diff", "main", &branch]), "");
    assert_eq!((merged.head, merged.style), (merging.head(), Some(MergeStyle::Squash)));
    assert_eq!(merging.says(&["status", "--porcelain"]), "");
    merging.says(&["fsck", "--strict"]);
}

#[tokio::test]
async fn a_merge_commit_has_both_sides() {
    let mut merging = Merging::new().await;
    merging.request.work = merge(MergeStyle::Commit);
    merging.place.write(&merging.repo, "other", "theirs\n");
    merging.place.commit(&merging.repo, "theirs");
    let theirs = merging.says(&["rev-parse", "main"]);
    let merged = merging.merged().await;
    let parents = merging.says(&["log", "--format=%P", "-1", "main"]);
    assert_eq!(parents, format!("{theirs} {}", merging.head()));
    assert_eq!(merging.says(&["rev-parse", "HEAD"]), merged.commit.0);
    assert_eq!(fs::read_to_string(merging.main().join("other")).unwrap(), "theirs\n");
}

#[tokio::test]
async fn a_clean_checkout_of_the_target_follows() {
    let mut merging = Merging::new().await;
    fs::write(merging.main().join("untracked"), "mine\n").unwrap();
    let merged = merging.merged().await;
    assert_eq!(merging.says(&["rev-parse", "HEAD"]), merged.commit.0);
    assert_eq!(merging.says(&["status", "--porcelain"]), "?? untracked");
    assert_eq!(fs::read_to_string(merging.main().join("dir/new")).unwrap(), "new\n");
    let reflog = merging.says(&["reflog", "-1", "main"]);
    assert!(reflog.contains("windlass: merge"), "{reflog}");
}

#[tokio::test]
async fn a_dirty_checkout_of_the_target_is_a_reason_to_touch_nothing() {
    let merging = Merging::new().await;
    for (file, staged) in [("greeting", false), ("sub/numbers", false), ("staged", true)] {
        fs::write(merging.main().join(file), "mine\n").unwrap();
        if staged {
            merging.says(&["add", file]);
        }
        let before = merging.place.fingerprint(&merging.worktree);
        let refused = merging.refused().await;
        assert!(in_use(&refused).contains(file), "{refused}");
        assert_eq!(merging.place.fingerprint(&merging.worktree).len(), before.len());
        merging.says(&["reset", "--quiet", "--hard"]);
    }
    // What is not tracked is in the way only where a file will be; what is ignored, too.
    fs::create_dir(merging.main().join("dir")).unwrap();
    fs::write(merging.main().join("dir/new"), "mine\n").unwrap();
    assert!(in_use(&merging.refused().await).contains("dir/new"));
    fs::write(merging.main().join(".git/info/exclude"), "new\n").unwrap();
    assert!(in_use(&merging.refused().await).contains("dir/new"));
}

#[tokio::test]
async fn conflicts_are_named_and_nothing_is_touched() {
    let merging = Merging::new().await;
    merging.place.write(&merging.repo, "greeting", "good morning\n");
    merging.place.commit(&merging.repo, "theirs");
    let before = merging.says(&["rev-parse", "main"]);
    let refused = merging.refused().await;
    let VcsHistoryError::Conflicts { files, .. } = &refused else { panic!("{refused:?}") };
    assert_eq!(files, &["greeting"]);
    assert_eq!(refused.to_string(), "1 file conflicts with main: greeting");
    assert_eq!(merging.says(&["rev-parse", "main"]), before);
    assert_eq!(merging.says(&["status", "--porcelain"]), "");
}

#[tokio::test]
async fn what_is_not_committed_or_in_progress_is_not_merged() {
    let merging = Merging::new().await;
    merging.place.write(&merging.worktree.path, "forgotten", "x\n");
    let refused = merging.refused().await;
    let VcsHistoryError::Dirty { detail, .. } = &refused else { panic!("{refused:?}") };
    assert!(detail.contains("forgotten"), "{refused}");
    merging.place.commit(&merging.worktree.path, "remembered");
    fs::write(path(&merging.worktree.repo).join("worktrees/x"), "").unwrap_or_default();
    let admin = merging.place.ok(&merging.at(), &["rev-parse", "--absolute-git-dir"]);
    fs::write(Path::new(&admin).join("CHERRY_PICK_HEAD"), merging.head().0).unwrap();
    let refused = merging.refused().await;
    let VcsHistoryError::Worktree(VcsWorktreeError::Unfinished { detail, .. }) = &refused else {
        panic!("{refused:?}")
    };
    assert!(detail.contains("cherry-pick"), "{refused}");
}

#[tokio::test]
async fn what_is_not_committed_in_a_submodule_is_not_merged() {
    let merging = Merging::new().await;
    let inner = path(&merging.place.repository());
    let inner = inner.to_str().unwrap();
    merging.place.ok(&merging.at(), &["submodule", "--quiet", "add", inner, "sub module"]);
    merging.place.commit(&merging.worktree.path, "a submodule");
    assert!(matches!(merging.plan().await, Ok(HistoryPlan::Run { .. })));
    fs::write(merging.at().join("sub module/greeting"), "changed\n").unwrap();
    let refused = merging.refused().await;
    let VcsHistoryError::Dirty { detail, .. } = &refused else { panic!("{refused:?}") };
    assert!(detail.contains("sub module"), "{refused}");
}

#[tokio::test]
async fn targets_that_are_none_are_refused() {
    let mut merging = Merging::new().await;
    let branch = merging.worktree.branch.clone();
    for target in ["missing", branch.as_str(), "HEAD", "main~0"] {
        merging.request.work = HistoryWork::Merge {
            target: target.to_owned(),
            style: MergeStyle::Squash,
            message: "m".to_owned(),
        };
        let refused = merging.refused().await;
        let named = match &refused {
            VcsHistoryError::NoBranch { branch } | VcsHistoryError::OwnBranch { branch } => branch,
            other => panic!("{other:?}"),
        };
        assert_eq!(named, target);
    }
}

#[tokio::test]
async fn without_a_commit_or_a_change_there_is_nothing_to_merge() {
    let place = GitPlace::default();
    let repo = place.repository();
    let vcs = GitWorktrees::open(place.options("data")).await.unwrap();
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    let request = request(merge(MergeStyle::Squash));
    let refused = vcs.plan_history(attempt(1), &worktree, &request).await.unwrap_err();
    assert!(matches!(refused, VcsHistoryError::Nothing { .. }), "{refused:?}");
    place.ok(&path(&worktree.path), &["commit", "--quiet", "--allow-empty", "-m", "empty"]);
    place.write(&repo, "other", "x\n");
    place.commit(&repo, "theirs");
    let refused = vcs.plan_history(attempt(1), &worktree, &request).await.unwrap_err();
    assert!(refused.to_string().contains("changes nothing"), "{refused}");
    let standing = vcs.standing(attempt(1), &worktree, None).await.unwrap();
    assert!(!standing.landed);
}

#[tokio::test]
async fn a_merge_that_is_repeated_is_the_same_one() {
    let mut merging = Merging::new().await;
    let step = merging.step().await;
    assert_eq!(merging.concluded().await, Conclusion::NotDone);
    for _ in 0..2 {
        assert_eq!(merging.place.run_step(&step), (Some(0), String::new()));
    }
    let new = merging.new_commit();
    assert_eq!(merging.says(&["rev-parse", "main"]), new);
    // Whoever knows only that it had begun, and whoever knows that it was done.
    let Conclusion::Merged(merged) = merging.done().await else { panic!("not merged") };
    assert_eq!(merged.commit.0, new);
    merging.request.begun = None;
    merging.request.merged = Some(merged.clone());
    merging.place.write(&merging.repo, "later", "x\n");
    merging.place.commit(&merging.repo, "later");
    assert_eq!(merging.merged().await, merged);
    assert_eq!(merging.says(&["rev-list", "--count", "main"]), "3");
}

#[tokio::test]
async fn a_target_that_moved_meanwhile_is_left_alone() {
    for checked_out in [true, false] {
        let mut merging = Merging::new().await;
        if !checked_out {
            merging.free_target();
        }
        let step = merging.step().await;
        if checked_out {
            merging.says(&["commit", "--quiet", "--allow-empty", "-m", "meanwhile"]);
        } else {
            let empty = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";
            let other = merging.says(&["commit-tree", "-p", "main", "-m", "meanwhile", empty]);
            merging.says(&["update-ref", "refs/heads/main", &other]);
        }
        let now = merging.says(&["rev-parse", "main"]);
        assert_ne!(merging.place.run_step(&step).0, Some(0));
        assert_eq!(merging.concluded().await, Conclusion::NotDone);
        assert_eq!(merging.says(&["rev-parse", "main"]), now);
        assert_eq!(merging.says(&["status", "--porcelain"]), "");
    }
}

#[tokio::test]
async fn a_target_that_is_checked_out_meanwhile_is_left_alone() {
    let mut merging = Merging::new().await;
    merging.free_target();
    let before = merging.says(&["rev-parse", "main"]);
    let step = merging.step().await;
    merging.says(&["switch", "--quiet", "main"]);
    let (code, said) = merging.place.run_step(&step);
    assert_eq!(code, Some(1));
    assert!(said.contains("checked out"), "{said}");
    assert_eq!(merging.says(&["rev-parse", "main"]), before);
}

/// What a merge leaves that dies while git writes the files of a checkout.
fn die_between(merging: &Merging, new: &str) {
    merging.says(&["restore", "--source", new, "--worktree", "greeting"]);
    fs::create_dir_all(merging.main().join("dir")).unwrap();
    fs::write(merging.main().join("dir/new"), "ne").unwrap();
}

#[tokio::test]
async fn a_merge_that_died_among_the_files_of_a_checkout_is_ended_by_the_next() {
    let mut merging = Merging::new().await;
    drop(merging.step().await);
    let new = merging.new_commit();
    die_between(&merging, &new);
    // Git's lock is left, too; nobody holds it.
    fs::write(merging.main().join(".git/index.lock"), "").unwrap();
    assert_eq!(merging.concluded().await, Conclusion::NotDone);
    let merged = merging.merged().await;
    assert_eq!(merged.commit.0, new);
    assert_eq!(merging.says(&["rev-parse", "HEAD"]), new);
    assert_eq!(merging.says(&["status", "--porcelain"]), "");
}

#[tokio::test]
async fn a_merge_that_died_before_its_ref_is_ended_by_the_next() {
    let mut merging = Merging::new().await;
    drop(merging.step().await);
    let new = merging.new_commit();
    merging.says(&["read-tree", "-m", "-u", "HEAD", &new]);
    let seems = merging.says(&["diff", "--cached", "--name-status", "HEAD"]);
    assert_eq!(seems, "A\tdir/new\nM\tgreeting", "it seems to be staged, never to be undone");
    assert_eq!(merging.merged().await.commit.0, new);
    assert_eq!(merging.says(&["status", "--porcelain"]), "");
}

#[tokio::test]
async fn more_work_after_a_merge_that_died_is_merged_from_the_beginning() {
    let mut merging = Merging::new().await;
    drop(merging.step().await);
    let new = merging.new_commit();
    die_between(&merging, &new);
    merging.place.write(&merging.worktree.path, "dir/new", "newer\n");
    merging.place.commit(&merging.worktree.path, "more");
    let merged = merging.merged().await;
    assert_ne!(merged.commit.0, new);
    assert_eq!(fs::read_to_string(merging.main().join("dir/new")).unwrap(), "newer\n");
    assert_eq!(merging.says(&["status", "--porcelain"]), "");
}

#[tokio::test]
async fn what_somebody_else_did_in_a_half_merged_checkout_is_not_put_back() {
    let mut merging = Merging::new().await;
    drop(merging.step().await);
    let new = merging.new_commit();
    die_between(&merging, &new);
    fs::write(merging.main().join("dir/new"), "something else\n").unwrap();
    assert!(in_use(&merging.refused().await).contains("dir/new"));
    fs::write(merging.main().join("dir/new"), "ne").unwrap();
    fs::write(merging.main().join("sub/numbers"), "mine\n").unwrap();
    assert!(in_use(&merging.refused().await).contains("sub/numbers"));
    assert_eq!(fs::read_to_string(merging.main().join("sub/numbers")).unwrap(), "mine\n");
}

#[tokio::test]
async fn a_linked_worktree_of_the_user_follows_and_that_of_an_attempt_does_not() {
    let mut merging = Merging::new().await;
    merging.free_target();
    let linked = merging.place.home().join("linked \"worktree\"");
    let linked = linked.to_str().unwrap();
    merging.says(&["worktree", "add", "--quiet", linked, "main"]);
    let merged = merging.merged().await;
    let at = Path::new(linked);
    assert_eq!(merging.place.ok(at, &["rev-parse", "HEAD"]), merged.commit.0);
    assert_eq!(merging.place.ok(at, &["status", "--porcelain"]), "");
    fs::remove_dir_all(at).unwrap();
    merging.place.write(&merging.worktree.path, "more", "x\n");
    merging.place.commit(&merging.worktree.path, "more");
    assert!(in_use(&merging.refused().await).contains("is gone"));
    merging.says(&["worktree", "prune"]);
    let other = merging.place.worktree(&*merging.vcs, &merging.repo, 2).await.unwrap();
    merging.request.work = HistoryWork::Merge {
        target: other.branch,
        style: MergeStyle::Squash,
        message: "m".to_owned(),
    };
    assert!(in_use(&merging.refused().await).contains("another attempt"));
}

#[tokio::test]
async fn a_bare_repository_has_no_checkout_to_follow() {
    let place = GitPlace::default();
    let seed = place.repository();
    let bare = place.home().join("bare.git");
    place.ok(&path(&seed), &["clone", "--quiet", "--bare", ".", bare.to_str().unwrap()]);
    let vcs = GitWorktrees::open(place.options("data")).await.unwrap();
    let worktree = place.worktree(&*vcs, &crate::place::locator(&bare), 1).await.unwrap();
    place.write(&worktree.path, "greeting", "bare\n");
    place.commit(&worktree.path, "work");
    let request = request(merge(MergeStyle::Squash));
    let repo = crate::place::locator(&bare);
    let mut merging = Merging { place, repo, vcs, worktree, request };
    let merged = merging.merged().await;
    assert_eq!(merging.says(&["rev-parse", "main"]), merged.commit.0);
    assert_eq!(merging.says(&["show", "main:greeting"]), "bare");
}

#[tokio::test]
async fn what_was_squashed_before_does_not_conflict_with_itself() {
    let mut merging = Merging::new().await;
    let first = merging.merged().await;
    merging.request.begun = None;
    merging.request.merged = Some(first.clone());
    merging.place.write(&merging.worktree.path, "greeting", "hello, all\n");
    merging.place.commit(&merging.worktree.path, "once more");
    let second = merging.merged().await;
    assert_ne!(second.commit, first.commit);
    assert_eq!(merging.says(&["log", "--format=%P", "-1", "main"]), first.commit.0);
    assert_eq!(fs::read_to_string(merging.main().join("greeting")).unwrap(), "hello, all\n");
}

#[tokio::test]
async fn what_somebody_else_merged_is_found_by_name_and_by_content() {
    for how in ["merge", "squash", "squash and more", "cherry-pick and revert of others"] {
        let mut merging = Merging::new().await;
        assert!(!merging.landed(None).await, "{how}");
        let branch = merging.worktree.branch.clone();
        merging.place.write(&merging.repo, "other", "theirs\n");
        merging.place.commit(&merging.repo, "theirs");
        match how {
            "merge" => drop(merging.says(&["merge", "--quiet", "--no-edit", &branch])),
            _ => {
                merging.says(&["merge", "--quiet", "--squash", &branch]);
                merging.says(&["commit", "--quiet", "-m", "squashed"]);
            }
        }
        if how.contains("more") || how.contains("others") {
            // Later work on the same lines hides it from a merge, not from those who compare patches.
            merging.place.write(&merging.repo, "greeting", "something else\n");
            merging.place.commit(&merging.repo, "later");
        }
        let before = merging.place.fingerprint(&merging.worktree);
        assert!(merging.landed(None).await, "{how}");
        assert!(merging.place.fingerprint(&merging.worktree) == before, "looking wrote something");
        if !how.contains("more") && !how.contains("others") {
            let tip = merging.says(&["rev-parse", "main"]);
            let merged = merging.merged().await;
            assert_eq!((merged.style, merged.commit.0.as_str()), (None, tip.as_str()), "{how}");
            assert_eq!(merging.says(&["rev-parse", "main"]), tip, "{how}");
        }
    }
}

#[tokio::test]
async fn the_diff_of_a_merge_is_there_when_worktree_and_branch_are_gone() {
    let mut merging = Merging::new().await;
    let merged = merging.merged().await;
    let at = merging.worktree.path.to_string();
    merging.says(&["worktree", "remove", "--force", "--force", &at]);
    let branch = merging.worktree.branch.clone();
    merging.says(&["branch", "--quiet", "-D", &branch]);
    let diff =
        merging.vcs.merged_diff(&merging.worktree, &merged, DiffDetail::Patch).await.unwrap();
    let files: Vec<_> = diff.files.iter().map(|file| file.path.to_string()).collect();
    assert_eq!(files, ["dir/new", "greeting"]);
    assert_eq!((diff.files[0].added, diff.files[1].removed), (Some(1), Some(1)));
    let patch = String::from_utf8(diff.patch.unwrap()).unwrap();
    assert!(patch.contains("+hello, world") && patch.starts_with("diff --git"), "{patch}");
    let gone = Merged { commit: Oid("1".repeat(40)), ..merged };
    let refused = merging.vcs.merged_diff(&merging.worktree, &gone, DiffDetail::Files).await;
    assert!(matches!(refused, Err(VcsHistoryError::Nothing { .. })), "{refused:?}");
}

#[tokio::test]
async fn what_is_too_large_is_not_in_the_patch_of_a_merge() {
    let mut merging = Merging::new().await;
    merging.place.write(&merging.worktree.path, "large", &"large\n".repeat(400_000));
    merging.place.ok(&merging.at(), &["mv", "sub/numbers", "moved"]);
    merging.place.commit(&merging.worktree.path, "large");
    let merged = merging.merged().await;
    let diff =
        merging.vcs.merged_diff(&merging.worktree, &merged, DiffDetail::Patch).await.unwrap();
    let files: Vec<_> =
        diff.files.iter().map(|file| (file.path.to_string(), file.too_large)).collect();
    let expected = [("dir/new", false), ("greeting", false), ("large", true), ("moved", false)];
    assert_eq!(files, expected.map(|(path, large)| (path.to_owned(), large)));
    let patch = String::from_utf8(diff.patch.unwrap()).unwrap();
    assert!(patch.starts_with("large is too large") && patch.len() < 10_000, "{}", patch.len());
    assert!(patch.contains("rename to moved") && patch.contains("+hello, world"), "{patch}");
}

#[tokio::test]
async fn a_hook_of_the_user_runs_when_his_checkout_follows_and_configuration_changes_nothing() {
    let mut merging = Merging::new().await;
    let hook = path(&merging.worktree.repo).join("hooks/post-merge");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    let told = merging.place.home().join("told");
    write_program(&hook, format!("#!/bin/sh\necho ran >> '{}'\n", told.display()));
    for (key, value) in [
        ("merge.verifySignatures", "true"),
        ("merge.ff", "false"),
        ("merge.autoStash", "true"),
        ("branch.main.mergeOptions", "--squash --no-commit"),
    ] {
        merging.says(&["config", key, value]);
    }
    let before = merging.says(&["config", "--list", "--local"]);
    let merged = merging.merged().await;
    assert_eq!(merging.says(&["rev-parse", "HEAD"]), merged.commit.0);
    assert_eq!(fs::read_to_string(told).unwrap(), "ran\n");
    assert_eq!(merging.says(&["config", "--list", "--local"]), before);
}

#[tokio::test]
async fn a_git_that_is_killed_at_any_time_leaves_what_the_next_merge_ends() {
    for killed_after_us in [0, 500, 1_500, 3_000, 6_000, 12_000] {
        let mut merging = Merging::new().await;
        for number in 0..40 {
            merging.place.write(&merging.worktree.path, &format!("many/{number}"), "x\n");
        }
        merging.place.commit(&merging.worktree.path, "many");
        let step = merging.step().await;
        let new = merging.new_commit();
        let wrapper = merging.place.home().join("killed");
        // The killer and its victims are one group, which nothing outlives.
        let seconds = f64::from(killed_after_us) / 1_000_000.0;
        write_program(
            &wrapper,
            format!("#!/bin/sh\nexec timeout --signal=KILL {seconds:.6} \"$@\"\n"),
        );
        let mut killed = step.clone();
        killed.argv.insert(0, OsBytes(wrapper.as_os_str().as_encoded_bytes().to_vec()));
        drop(merging.place.run_step(&killed));
        let merged = merging.merged().await;
        assert_eq!(merged.commit.0, new, "{killed_after_us}");
        assert_eq!(merging.says(&["status", "--porcelain"]), "", "{killed_after_us}");
        assert_eq!(merging.says(&["rev-parse", "HEAD"]), new, "{killed_after_us}");
    }
}

#[tokio::test]
async fn options_that_are_used_elsewhere_do_not_change_what_is_made() {
    let place = GitPlace::default();
    let repo = place.repository();
    place.ok(&path(&repo), &["config", "user.name", "Me"]);
    place.ok(&path(&repo), &["config", "user.email", "me@example.org"]);
    let options: GitOptions = place.options("data");
    let vcs = GitWorktrees::open(options).await.unwrap();
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    place.write(&worktree.path, "file", "x\n");
    place.commit(&worktree.path, "work");
    let request = request(merge(MergeStyle::Squash));
    let mut merging = Merging { place, repo, vcs, worktree, request };
    merging.merged().await;
    assert_eq!(merging.says(&["log", "--format=%an %ce", "-1", "main"]), "Me me@example.org");
}
