//! Putting a worktree back to a commit.

use windlass_core::snapshot::SnapshotNumber;
use windlass_core::vcs_worktree::{
    BranchFate, GitStep, GitWork, SaveFrom, SaveRequest, StepPlan, Unfinished, VcsWorktree,
    VcsWorktreeError, VcsWorktreeExt as _,
};
use windlass_core::workspace::{Oid, Worktree};

use super::{VcsWorktreePlace, attempt, created, fallback};

async fn plan(
    vcs: &dyn VcsWorktree,
    worktree: &Worktree,
    to: &Oid,
) -> Result<StepPlan, VcsWorktreeError> {
    vcs.plan_step(attempt(1), worktree, &GitWork::Reset { to: to.clone() }).await
}

/// Saves a worktree where it is, as is done before anything is undone.
async fn save(vcs: &dyn VcsWorktree, worktree: &Worktree, number: u32) {
    let request = SaveRequest {
        from: SaveFrom::Place,
        unfinished: Unfinished::Save,
        branch: BranchFate::Goes,
        ..SaveRequest::before_removal(SnapshotNumber(number))
    };
    vcs.save(attempt(1), worktree, &request).await.expect("it is saved");
}

async fn step(vcs: &dyn VcsWorktree, worktree: &Worktree, to: &Oid) -> GitStep {
    save(vcs, worktree, 1).await;
    match plan(vcs, worktree, to).await.expect("a plan") {
        StepPlan::Run(step) => step,
        StepPlan::Nothing { head } => panic!("nothing to undo on {head}"),
    }
}

/// Commits beyond it, changes, deletions, new and staged files go; ignored files stay.
pub async fn a_reset_undoes_what_a_commit_would_take(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    let dir = &worktree.path;
    place.ignore(dir, "kept");
    place.write(dir, "work", "done\n");
    let to = place.commit(dir, "work");
    place.write(dir, "work", "half\n");
    place.commit(dir, "half");
    place.write(dir, "greeting", "changed\n");
    place.delete(dir, "sub/numbers");
    place.write(dir, "new/one", "x\n");
    place.write(dir, "staged", "x\n");
    place.stage(dir, "staged");
    place.write(dir, "kept", "mine\n");
    let run = step(&*vcs, &worktree, &to).await;
    assert_eq!((&run.cwd, &run.repository_lock), (&worktree.path, &worktree.repo));
    assert_eq!(place.read(dir, "new/one").as_deref(), Some("x\n"), "planning writes nothing");
    for _ in 0..2 {
        assert!(place.perform(&run));
        let status = vcs.status(attempt(1), &worktree).await.expect("a status");
        assert_eq!((&status.head, status.dirty), (&to, false));
        assert_eq!(status.branch.as_deref(), Some(worktree.branch.as_str()));
        assert_eq!(place.read(dir, "work").as_deref(), Some("done\n"));
        assert_eq!(place.read(dir, "greeting").as_deref(), Some("hello\n"));
        assert_eq!(place.read(dir, "sub/numbers").as_deref(), Some("1\n2\n3\n"));
        assert_eq!((place.read(dir, "new/one"), place.read(dir, "staged")), (None, None));
        assert_eq!(place.read(dir, "kept").as_deref(), Some("mine\n"));
    }
    assert_eq!(place.tip(dir, &worktree.branch), to);
    let again = plan(&*vcs, &worktree, &to).await.expect("a plan");
    assert_eq!(again, StepPlan::Nothing { head: to });
    let commit = vcs.plan_commit(attempt(1), &worktree, "m", &fallback()).await.expect("a plan");
    assert!(matches!(commit, StepPlan::Nothing { .. }), "{commit:?}");
}

/// Somebody may write between the save and the step: that is in no snapshot, so nothing goes until it is.
pub async fn a_reset_undoes_only_what_was_saved(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    let (dir, base) = (&worktree.path, &worktree.base_oid);
    place.ignore(dir, "kept");
    place.write(dir, "work", "saved\n");
    let run = step(&*vcs, &worktree, base).await;
    place.write(dir, "late\n", "late\n");
    assert!(!place.perform(&run));
    for (name, content) in [("work", "saved\n"), ("late\n", "late\n")] {
        assert_eq!(place.read(dir, name).as_deref(), Some(content));
    }
    save(&*vcs, &worktree, 2).await;
    place.write(dir, "greeting", "changed late\n");
    assert!(!place.perform(&run));
    assert_eq!(place.read(dir, "greeting").as_deref(), Some("changed late\n"));
    save(&*vcs, &worktree, 3).await;
    place.write(dir, "kept", "ignored\n");
    assert!(place.perform(&run), "what stays may change");
    assert_eq!((place.read(dir, "work"), place.read(dir, "late\n")), (None, None));
    assert_eq!(place.read(dir, "greeting").as_deref(), Some("hello\n"));
    assert_eq!(place.read(dir, "kept").as_deref(), Some("ignored\n"));
}

/// What was begun is not concluded by the next commit.
pub async fn a_reset_ends_a_merge(place: impl VcsWorktreePlace) {
    let (vcs, repo, worktree) = created(&place).await;
    place.switch(&repo, "theirs");
    place.write(&repo, "theirs", "x\n");
    place.commit(&repo, "theirs");
    place.begin_merge(&worktree.path, "theirs");
    let run = step(&*vcs, &worktree, &worktree.base_oid).await;
    assert!(place.perform(&run));
    assert!(!place.is_merging(&worktree.path));
    let status = vcs.status(attempt(1), &worktree).await.expect("a status");
    assert_eq!((status.head, status.dirty), (worktree.base_oid, false));
}

/// The branch that HEAD names may be somebody else's by now: it is not moved. Files are put back all the same.
pub async fn a_reset_moves_no_branch_of_somebody_else(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    let dir = &worktree.path;
    place.switch(dir, "theirs");
    place.write(dir, "new", "x\n");
    let run = step(&*vcs, &worktree, &worktree.base_oid).await;
    assert!(place.perform(&run));
    assert_eq!(place.read(dir, "new"), None);
    place.write(dir, "theirs", "x\n");
    let theirs = place.commit(dir, "theirs");
    let refused = plan(&*vcs, &worktree, &worktree.base_oid).await;
    assert!(matches!(refused, Err(VcsWorktreeError::Mismatch { .. })), "{refused:?}");
    assert_eq!(place.tip(dir, "theirs"), theirs);
}

/// No step for nothing.
pub async fn nothing_to_undo_needs_no_step(place: impl VcsWorktreePlace) {
    let (vcs, _, worktree) = created(&place).await;
    let plan = plan(&*vcs, &worktree, &worktree.base_oid).await.expect("a plan");
    assert_eq!(plan, StepPlan::Nothing { head: worktree.base_oid });
}
