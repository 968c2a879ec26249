//! Cases about status, diff and commit.

use windlass_core::locator::Locator;
use windlass_core::vcs_worktree::{
    ChangeKind, Diff, DiffDetail, FileDiff, Identity, Origin, StepPlan, VcsWorktree,
    VcsWorktreeExt as _,
};
use windlass_core::workspace::Worktree;

use super::{MakeAtOnce as _, VcsWorktreePlace, attempt, created, fallback, repository, request};

async fn files(vcs: &dyn VcsWorktree, worktree: &Worktree) -> Diff {
    vcs.diff(attempt(1), worktree, DiffDetail::Files).await.expect("a diff")
}

/// Distance counts commits, dirt counts changes.
pub async fn status_tells_dirt_and_distance(place: impl VcsWorktreePlace) {
    let (vcs, repo, worktree) = created(&place).await;
    let status = async || vcs.status(attempt(1), &worktree).await.expect("a status");
    place.write(&worktree.path, "new", "1\n");
    assert!(status().await.dirty);
    let head = place.commit(&worktree.path, "one");
    let after = status().await;
    assert_eq!((after.dirty, after.ahead, after.behind, &after.head), (false, 1, 0, &head));
    place.write(&worktree.path, "greeting", "changed\n");
    assert!(status().await.dirty);
    for content in ["a\n", "b\n"] {
        place.write(&repo, "sub/numbers", content);
        place.commit(&repo, content);
    }
    let after = status().await;
    assert_eq!((after.dirty, after.ahead, after.behind), (true, 1, 2));
    place.write(&worktree.path, "greeting", "hello\n");
    place.delete(&worktree.path, "sub/numbers");
    assert!(status().await.dirty);
}

/// Ignored files do not make a worktree dirty and are in no diff.
pub async fn ignored_files_are_no_dirt(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    place.ignore(&worktree.path, "secret");
    place.commit(&worktree.path, "ignore");
    place.write(&worktree.path, "secret", "x\n");
    assert!(!vcs.status(attempt(1), &worktree).await.expect("a status").dirty);
    let diff = files(&*vcs, &worktree).await;
    let paths: Vec<_> = diff.files.iter().map(|file| file.path.to_string()).collect();
    assert_eq!(paths, [".gitignore"]);
    let plan = vcs.plan_commit(attempt(1), &worktree, "m", &fallback()).await.expect("a plan");
    assert_eq!(plan, StepPlan::Nothing { head: diff.head });
}

/// Nothing was changed.
pub async fn a_new_worktree_has_no_diff(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    let diff = files(&*vcs, &worktree).await;
    assert_eq!((&diff.base, &diff.head), (&worktree.base_oid, &worktree.base_oid));
    assert!(diff.files.is_empty() && diff.patch.is_none());
}

fn summary(file: &FileDiff) -> (String, ChangeKind, Option<u64>, Option<u64>, bool) {
    (file.path.to_string(), file.change, file.added, file.removed, file.untracked)
}

/// Committed and uncommitted changes are one diff, in path order.
pub async fn a_diff_names_every_kind_of_change(place: impl VcsWorktreePlace) {
    let (repo, _) = repository(&place);
    place.write(&repo, "doomed", "x\n");
    place.write(&repo, "script", "run\n");
    place.write(&repo, "wanderer", "one\ntwo\nthree\nfour\n");
    place.commit(&repo, "more");
    let vcs = place.open().await;
    let worktree = vcs.plan(request(&repo, 1)).await.expect("a plan").worktree;
    vcs.make(attempt(1), &worktree, &Origin::Base).await.expect("a worktree");
    let dir = &worktree.path;
    place.write(dir, "committed", "1\n2\n");
    place.commit(dir, "work");
    place.delete(dir, "doomed");
    place.make_executable(dir, "script");
    place.write(dir, "sub/numbers", "1\n3\n4\n5\n");
    place.write(dir, "untracked/file", "nothing like it\n");
    place.delete(dir, "wanderer");
    place.write(dir, "moved/wanderer", "one\ntwo\nthree\nfour\n");
    let diff = files(&*vcs, &worktree).await;
    let seen: Vec<_> = diff.files.iter().map(summary).collect();
    let file = |path: &str, change, added, removed, untracked| {
        (path.to_owned(), change, Some(added), Some(removed), untracked)
    };
    assert_eq!(
        seen,
        [
            file("committed", ChangeKind::Added, 2, 0, false),
            file("doomed", ChangeKind::Deleted, 0, 1, false),
            file("moved/wanderer", ChangeKind::Renamed, 0, 0, true),
            file("script", ChangeKind::Modified, 0, 0, false),
            file("sub/numbers", ChangeKind::Modified, 2, 1, false),
            file("untracked/file", ChangeKind::Added, 1, 0, true),
        ]
    );
    let modes: Vec<_> = diff.files.iter().map(|file| file.mode.as_deref()).collect();
    let plain = Some("100644");
    assert_eq!(modes, [plain, None, plain, Some("100755"), plain, plain]);
    assert_eq!(diff.files[2].old_path, Some(Locator::new(*b"wanderer")));
}

/// What the target gained meanwhile is no change of ours.
pub async fn a_diff_ends_at_the_merge_base(place: impl VcsWorktreePlace) {
    let (vcs, repo, worktree) = created(&place).await;
    place.write(&repo, "theirs", "x\n");
    place.commit(&repo, "theirs");
    place.write(&worktree.path, "ours", "x\n");
    let head = place.commit(&worktree.path, "ours");
    let diff = files(&*vcs, &worktree).await;
    assert_eq!((&diff.base, &diff.head), (&worktree.base_oid, &head));
    let paths: Vec<_> = diff.files.iter().map(|file| file.path.to_string()).collect();
    assert_eq!(paths, ["ours"]);
}

/// A patch names the files and their lines.
pub async fn a_patch_is_made_on_request_only(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    place.write(&worktree.path, "greeting", "hello\nworld\n");
    assert_eq!(files(&*vcs, &worktree).await.patch, None);
    let diff = vcs.diff(attempt(1), &worktree, DiffDetail::Patch).await.expect("a diff");
    let patch = String::from_utf8(diff.patch.expect("a patch")).expect("text");
    for line in ["--- a/greeting\n", "+++ b/greeting\n", "+world\n"] {
        assert!(patch.contains(line), "{line:?} in {patch}");
    }
    assert_eq!(diff.files, files(&*vcs, &worktree).await.files);
}

/// No step for nothing.
pub async fn nothing_to_commit_is_clean(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    let plan = vcs.plan_commit(attempt(1), &worktree, "m", &fallback()).await.expect("a plan");
    assert_eq!(plan, StepPlan::Nothing { head: worktree.base_oid });
}

/// The step stages all kinds of change; its repetition finds nothing.
pub async fn a_commit_step_takes_everything_and_commits_once(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    let dir = &worktree.path;
    place.write(dir, "new", "x\n");
    place.write(dir, "greeting", "changed\n");
    place.delete(dir, "sub/numbers");
    let message = "It's \"$HOME\" `done`\n\n# 100 %\n-x\n\nsecond paragraph";
    let plan = vcs.plan_commit(attempt(1), &worktree, message, &fallback()).await.expect("a plan");
    let StepPlan::Run(step) = plan else { panic!("{plan:?}") };
    assert_eq!((&step.cwd, &step.repository_lock), (&worktree.path, &worktree.repo));
    let before = vcs.verify(attempt(1), &worktree).await.expect("verified");
    assert_eq!(before.head, worktree.base_oid, "planning writes nothing");
    assert!(place.perform(&step));
    let after = vcs.status(attempt(1), &worktree).await.expect("a status");
    assert_eq!((after.dirty, after.ahead), (false, 1));
    assert!(place.perform(&step), "nothing to do is no failure");
    let again = vcs.status(attempt(1), &worktree).await.expect("a status");
    assert_eq!(again, after);
    let (said, author) = place.last_commit(dir);
    assert_eq!(said.trim_end(), message);
    assert_eq!(author, fallback());
    let plan = vcs.plan_commit(attempt(1), &worktree, "m", &fallback()).await.expect("a plan");
    assert_eq!(plan, StepPlan::Nothing { head: after.head });
}

/// The fallback is only a fallback.
pub async fn a_commit_is_by_the_repositorys_identity_if_it_has_one(place: impl VcsWorktreePlace) {
    let (vcs, repo, worktree) = created(&place).await;
    let own = Identity { name: "Own Name".to_owned(), email: "own@example.org".to_owned() };
    place.identify(&repo, &own);
    place.write(&worktree.path, "new", "x\n");
    let plan = vcs.plan_commit(attempt(1), &worktree, "m", &fallback()).await.expect("a plan");
    let StepPlan::Run(step) = plan else { panic!("{plan:?}") };
    assert!(place.perform(&step));
    assert_eq!(place.last_commit(&worktree.path), ("m".to_owned(), own));
}
