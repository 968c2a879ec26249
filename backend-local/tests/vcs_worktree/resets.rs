//! Putting a worktree back where that would take what no snapshot has.

use std::fs;

use windlass_conformance::vcs_worktree::VcsWorktreePlace as _;
use windlass_core::snapshot::SnapshotNumber;
use windlass_core::vcs_worktree::{
    BranchFate, CHANGED_SINCE_SAVED, GitWork, SaveFrom, SaveRequest, StepPlan, VcsWorktree,
    VcsWorktreeError,
};
use windlass_core::workspace::Worktree;

use crate::changes::seed;
use crate::place::{GitPlace, attempt, path};

#[tokio::test]
async fn what_is_ignored_by_now_is_neither_taken_nor_replaced() {
    let place = GitPlace::default();
    let repo = seed(&place);
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    let (dir, at) = (&worktree.path, path(&worktree.path));
    place.write(dir, "build", "a file\n");
    place.write(dir, "out/one", "a file\n");
    let to = place.commit(dir, "before");
    place.ok(&at, &["rm", "--quiet", "-r", "build", "out"]);
    place.write(dir, ".gitignore", "/data/\n/build\n/out\n");
    place.commit(dir, "after");
    place.write(dir, "data/large", "kept\n");
    let work = GitWork::Reset { to: to.clone() };
    for (standing, file) in [("build/", "build/made"), ("out", "out")] {
        place.write(dir, file, "made\n");
        let refused = vcs.plan_step(attempt(1), &worktree, &work).await;
        let Err(VcsWorktreeError::Mismatch { detail, .. }) = refused else { panic!("{refused:?}") };
        assert!(detail.contains(standing), "{detail}");
        assert_eq!(place.read(dir, file).as_deref(), Some("made\n"));
        let first = at.join(standing.trim_end_matches('/'));
        if first.is_dir() {
            fs::remove_dir_all(first).unwrap()
        } else {
            fs::remove_file(first).unwrap()
        }
    }
    save(&*vcs, &worktree).await;
    let planned = vcs.plan_step(attempt(1), &worktree, &work).await.unwrap();
    let StepPlan::Run(step) = planned else { panic!("{planned:?}") };
    assert!(place.perform(&step));
    assert_eq!(place.read(dir, "build").as_deref(), Some("a file\n"));
    assert_eq!(place.read(dir, "data/large").as_deref(), Some("kept\n"));
}

/// Saves a worktree where it is.
async fn save(vcs: &dyn VcsWorktree, worktree: &Worktree) {
    let request = SaveRequest {
        from: SaveFrom::Place,
        branch: BranchFate::Goes,
        ..SaveRequest::before_removal(SnapshotNumber::FIRST)
    };
    vcs.save(attempt(1), worktree, &request).await.unwrap();
}

#[tokio::test]
async fn what_changed_after_the_save_is_named_whatever_its_times_and_name_are() {
    let place = GitPlace::default();
    let repo = seed(&place);
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    let (dir, at) = (&worktree.path, path(&worktree.path));
    place.write(dir, "-delete", "saved\n");
    let old = place.home().join("old");
    fs::write(&old, "made long ago\n").unwrap();
    save(&*vcs, &worktree).await;
    let work = GitWork::Reset { to: worktree.base_oid.clone() };
    let planned = vcs.plan_step(attempt(1), &worktree, &work).await.unwrap();
    let StepPlan::Run(step) = planned else { panic!("{planned:?}") };
    // Its time of modification is older than the save, and is set back once more.
    fs::rename(&old, at.join("moved in")).unwrap();
    let moved = fs::File::open(at.join("moved in")).unwrap();
    moved.set_modified(std::time::UNIX_EPOCH).unwrap();
    let (code, stderr) = place.run_step(&step);
    assert_eq!(code, Some(CHANGED_SINCE_SAVED.into()));
    assert!(stderr.contains("moved in") && !stderr.contains("-delete"), "{stderr}");
    assert_eq!(place.read(dir, "-delete").as_deref(), Some("saved\n"));
    fs::remove_file(at.join("moved in")).unwrap();
    assert_eq!(place.run_step(&step), (Some(0), String::new()));
    assert_eq!(place.read(dir, "-delete"), None);
}

#[tokio::test]
async fn a_commit_that_came_after_the_plan_is_not_undone() {
    let place = GitPlace::default();
    let repo = seed(&place);
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    let dir = &worktree.path;
    place.write(dir, "new", "x\n");
    let work = GitWork::Reset { to: worktree.base_oid.clone() };
    let planned = vcs.plan_step(attempt(1), &worktree, &work).await.unwrap();
    let StepPlan::Run(step) = planned else { panic!("{planned:?}") };
    let late = place.commit(dir, "late");
    let (code, stderr) = place.run_step(&step);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("nothing was undone"), "{stderr}");
    assert_eq!(place.tip(dir, &worktree.branch), late);
    assert_eq!(place.read(dir, "new").as_deref(), Some("x\n"));
}
