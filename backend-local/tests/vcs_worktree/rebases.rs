//! Rebases in a worktree, the way back from them, and pushes.

use std::fs;

use windlass_conformance::vcs_worktree::VcsWorktreePlace as _;
use windlass_core::vcs_history::{
    Conclusion, HistoryWork, InProgress, MergeStyle, VcsHistory, VcsHistoryError,
};
use windlass_core::workspace::Oid;

use crate::merges::{Merging, merge, request};
use crate::place::attempt;

fn rebase() -> HistoryWork {
    HistoryWork::Rebase { onto: "main".to_owned() }
}

/// A worktree whose target went on in another file, or in the same.
async fn diverged(same: bool) -> Merging {
    let mut merging = Merging::new().await;
    let file = if same { "greeting" } else { "other" };
    merging.place.write(&merging.repo, file, "theirs\n");
    merging.place.commit(&merging.repo, "theirs");
    merging.request = request(rebase());
    merging
}

#[tokio::test]
async fn commits_are_put_on_top_of_the_target() {
    let mut merging = diverged(false).await;
    let tip = merging.says(&["rev-parse", "main"]);
    let Conclusion::Rebased { head, onto } = merging.done().await else { panic!("not rebased") };
    assert_eq!((onto.0.as_str(), &head), (tip.as_str(), &merging.head()));
    assert_eq!(merging.place.ok(&merging.at(), &["log", "--format=%s", "main.."]), "work");
    assert_eq!(merging.place.ok(&merging.at(), &["status", "--porcelain"]), "");
    // Once more, from whatever is known.
    assert_eq!(
        merging.done().await,
        Conclusion::Rebased { head: head.clone(), onto: onto.clone() }
    );
    merging.request.begun = None;
    assert_eq!(merging.done().await, Conclusion::Rebased { head, onto });
}

#[tokio::test]
async fn a_rebase_that_conflicts_stays_for_somebody_to_resolve_and_goes_on() {
    let mut merging = diverged(true).await;
    let step = merging.step().await;
    assert_eq!(merging.place.run_step(&step).0, Some(1));
    let conflicts = Conclusion::Conflicts { files: vec!["greeting".to_owned()] };
    assert_eq!(merging.concluded().await, conflicts);
    let standing = merging.vcs.standing(attempt(1), &merging.worktree, None).await.unwrap();
    assert_eq!(standing.in_progress, Some(InProgress::Rebase));
    assert_eq!(standing.conflicts, ["greeting"]);
    merging.request = request(HistoryWork::Continue);
    let refused = merging.plan().await.unwrap_err();
    assert!(matches!(refused, VcsHistoryError::Conflicts { .. }), "{refused:?}");
    merging.place.write(&merging.worktree.path, "greeting", "both\n");
    merging.place.ok(&merging.at(), &["add", "greeting"]);
    let Conclusion::Rebased { head, .. } = merging.done().await else { panic!("not rebased") };
    assert_eq!(head, merging.head());
    let branch = merging.place.ok(&merging.at(), &["symbolic-ref", "--short", "HEAD"]);
    assert_eq!(branch, merging.worktree.branch);
    assert_eq!(merging.place.ok(&merging.at(), &["log", "--format=%s", "main.."]), "work");
}

#[tokio::test]
async fn what_is_in_progress_is_given_up_and_the_worktree_is_as_before() {
    let mut merging = diverged(true).await;
    let before = merging.head();
    let step = merging.step().await;
    assert_eq!(merging.place.run_step(&step).0, Some(1));
    merging.request = request(HistoryWork::Abort);
    assert_eq!(merging.done().await, Conclusion::Aborted { head: before.clone() });
    // As the repetition of one that was lost.
    assert_eq!(merging.done().await, Conclusion::Aborted { head: before.clone() });
    assert_eq!(
        (merging.head(), merging.place.ok(&merging.at(), &["status", "-s"])),
        (before, String::new())
    );
    for command in [["merge", "main"], ["cherry-pick", "main"]] {
        assert!(!merging.place.git(&merging.at(), &command).status.success());
        merging.request = request(HistoryWork::Abort);
        assert!(matches!(merging.done().await, Conclusion::Aborted { .. }), "{command:?}");
    }
    merging.request = request(HistoryWork::Abort);
    let refused = merging.plan().await.unwrap_err();
    assert!(matches!(refused, VcsHistoryError::Nothing { .. }), "{refused:?}");
}

#[tokio::test]
async fn what_is_not_committed_is_not_rebased_and_heads_that_moved_are_left() {
    let mut merging = diverged(false).await;
    let step = merging.step().await;
    merging.place.ok(&merging.at(), &["commit", "--quiet", "--allow-empty", "-m", "meanwhile"]);
    let head = merging.head();
    assert_eq!(merging.place.run_step(&step).0, Some(1));
    assert_eq!((merging.concluded().await, merging.head()), (Conclusion::NotDone, head));
    fs::write(merging.at().join("forgotten"), "x").unwrap();
    let refused = merging.plan().await.unwrap_err();
    assert!(matches!(refused, VcsHistoryError::Dirty { .. }), "{refused:?}");
}

#[tokio::test]
async fn what_was_squashed_before_is_left_behind_by_a_rebase() {
    let mut merging = Merging::new().await;
    merging.request = request(merge(MergeStyle::Squash));
    let merged = merging.merged().await;
    merging.place.write(&merging.worktree.path, "greeting", "hello, all\n");
    merging.place.commit(&merging.worktree.path, "once more");
    merging.request = request(rebase());
    merging.request.merged = Some(merged.clone());
    let Conclusion::Rebased { onto, .. } = merging.done().await else { panic!("not rebased") };
    assert_eq!(onto, merged.commit);
    assert_eq!(merging.place.ok(&merging.at(), &["log", "--format=%s", "main.."]), "once more");
}

#[tokio::test]
async fn a_branch_is_pushed_under_its_name_and_forced_only_when_asked() {
    let mut merging = Merging::new().await;
    let push = |remote: Option<&str>, force_with_lease| {
        request(HistoryWork::Push { remote: remote.map(str::to_owned), force_with_lease })
    };
    merging.request = push(None, false);
    let refused = merging.plan().await.unwrap_err();
    assert!(matches!(refused, VcsHistoryError::NoRemote { .. }), "{refused:?}");
    let there = merging.place.home().join("there.git");
    let there_text = there.to_str().unwrap();
    merging.says(&["init", "--quiet", "--bare", there_text]);
    merging.says(&["remote", "add", "upstream", there_text]);
    merging.request = push(Some("origin"), false);
    let refused = merging.plan().await.unwrap_err();
    assert!(refused.to_string().contains("upstream"), "{refused}");
    merging.request = push(None, false);
    let before = merging.says(&["config", "--list", "--local"]);
    let step = merging.step().await;
    assert_ne!(step.repository_lock, merging.worktree.repo, "nothing else waits for the network");
    for _ in 0..2 {
        assert_eq!(merging.place.run_step(&step).0, Some(0));
    }
    let branch = merging.worktree.branch.clone();
    let at_remote = |merging: &Merging| Oid(merging.place.ok(&there, &["rev-parse", &branch]));
    assert_eq!(at_remote(&merging), merging.head());
    assert_eq!(merging.says(&["config", "--list", "--local"]), before);
    merging.place.ok(&merging.at(), &["commit", "--quiet", "--amend", "-m", "other words"]);
    let step = merging.step().await;
    let (code, said) = merging.place.run_step(&step);
    assert!(code == Some(1) && said.contains("non-fast-forward"), "{said}");
    merging.request = push(None, true);
    let step = merging.step().await;
    assert_eq!(merging.place.run_step(&step).0, Some(0));
    assert_eq!(at_remote(&merging), merging.head());
}
