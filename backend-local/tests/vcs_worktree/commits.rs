//! Committing what is dirty: the step that is described, performed as a user would see it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use windlass_conformance::vcs_worktree::VcsWorktreePlace as _;
use windlass_core::vcs_worktree::{
    GitStep, StepPlan, VcsWorktree, VcsWorktreeError, VcsWorktreeExt as _,
};
use windlass_core::workspace::Worktree;
use windlass_local::{GitOptions, GitWorktrees};

use crate::changes::{fallback, make_a_mess, seed};
use crate::place::{GitPlace, attempt, path, write_program};

pub(crate) async fn step(vcs: &dyn VcsWorktree, worktree: &Worktree, message: &str) -> GitStep {
    match vcs.plan_commit(attempt(1), worktree, message, &fallback()).await.unwrap() {
        StepPlan::Run(step) => step,
        StepPlan::Nothing { head } => panic!("nothing to commit on {head}"),
    }
}

async fn dirty(place: &GitPlace) -> (std::sync::Arc<dyn VcsWorktree>, Worktree) {
    let repo = seed(place);
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    make_a_mess(place, &worktree.path);
    (vcs, worktree)
}

#[tokio::test]
async fn a_mess_is_committed_whole() {
    let place = GitPlace::default();
    let (vcs, worktree) = dirty(&place).await;
    let step = step(&*vcs, &worktree, "work").await;
    assert_eq!(place.run_step(&step), (Some(0), String::new()));
    assert_eq!(place.ok(&path(&worktree.path), &["status", "--porcelain"]), "");
    place.ok(&path(&worktree.repo), &["fsck", "--strict"]);
}

#[tokio::test]
async fn hooks_run_and_a_failing_one_fails_the_step() {
    let place = GitPlace::default();
    let (vcs, worktree) = dirty(&place).await;
    let hook = path(&worktree.repo).join("hooks/pre-commit");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    write_program(&hook, "#!/bin/sh\necho forbidden >&2\nexit 1\n");
    let step = step(&*vcs, &worktree, "work").await;
    let (code, stderr) = place.run_step(&step);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("forbidden"), "{stderr}");
    let verified = vcs.verify(attempt(1), &worktree).await.unwrap();
    assert_eq!(verified.head, worktree.base_oid);
    assert!(vcs.status(attempt(1), &worktree).await.unwrap().dirty);
    fs::remove_file(&hook).unwrap();
    assert_eq!(place.run_step(&step).0, Some(0));
}

#[tokio::test]
async fn an_identity_that_is_half_configured_or_forbidden_to_guess_is_replaced() {
    let place = GitPlace::default();
    let (vcs, worktree) = dirty(&place).await;
    let at = path(&worktree.path);
    place.ok(&at, &["config", "user.useConfigOnly", "true"]);
    place.ok(&at, &["config", "user.name", "Half"]);
    place.ok(&at, &["config", "committer.email", "committer@example.org"]);
    let before = place.ok(&at, &["config", "--list", "--local"]);
    let step = step(&*vcs, &worktree, "work").await;
    assert_eq!(place.run_step(&step), (Some(0), String::new()));
    let who = place.ok(&at, &["log", "-1", "--format=%an <%ae> %cn <%ce>"]);
    assert_eq!(who, "Fallback <fallback@example.org> Half <committer@example.org>");
    assert_eq!(place.ok(&at, &["config", "--list", "--local"]), before);
}

#[tokio::test]
async fn variables_of_git_in_the_attempts_environment_do_not_lead_the_step_astray() {
    let place = GitPlace::default();
    let (vcs, worktree) = dirty(&place).await;
    let other = place.repository();
    let mut step = step(&*vcs, &worktree, "work").await;
    let elsewhere = path(&other).join(".git").into_os_string().into_encoded_bytes();
    step.env.push(("GIT_DIR".to_owned(), windlass_core::locator::OsBytes(elsewhere)));
    assert_eq!(place.run_step(&step), (Some(0), String::new()));
    assert_eq!(place.ok(&path(&other), &["log", "--format=%s"]), "first");
    assert_eq!(place.ok(&path(&worktree.path), &["log", "-1", "--format=%s"]), "work");
}

#[tokio::test]
async fn merges_are_concluded_but_conflict_marks_are_not_committed() {
    let place = GitPlace::default();
    let repo = place.repository();
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    let at = path(&worktree.path);
    place.write(&worktree.path, "greeting", "ours\n");
    place.commit(&worktree.path, "ours");
    place.write(&repo, "greeting", "theirs\n");
    place.commit(&repo, "theirs");
    assert!(!place.git(&at, &["merge", "--quiet", "main"]).status.success());
    let refused = vcs.plan_commit(attempt(1), &worktree, "merged", &fallback()).await;
    let Err(VcsWorktreeError::Unfinished { detail, .. }) = refused else { panic!("{refused:?}") };
    assert!(detail.contains("greeting"), "{detail}");
    // Resolved to what HEAD has: nothing differs, yet the merge is not concluded.
    place.write(&worktree.path, "greeting", "ours\n");
    place.ok(&at, &["add", "greeting"]);
    let step = step(&*vcs, &worktree, "merged").await;
    assert_eq!(place.run_step(&step), (Some(0), String::new()));
    assert_eq!(place.ok(&at, &["log", "-1", "--format=%s"]), "merged");
    assert_eq!(place.ok(&at, &["rev-list", "--count", "HEAD^2"]), "2");
    let plan = vcs.plan_commit(attempt(1), &worktree, "m", &fallback()).await.unwrap();
    assert!(matches!(plan, StepPlan::Nothing { .. }), "{plan:?}");
}

#[tokio::test]
async fn hooks_of_every_kind_are_left_to_git() {
    let place = GitPlace::default();
    let (vcs, worktree) = dirty(&place).await;
    let at = path(&worktree.path);
    let elsewhere = place.home().join("hooks elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let hook = elsewhere.join("commit-msg");
    write_program(&hook, "#!/bin/sh\necho changed by a hook > \"$1\"\n");
    place.ok(&at, &["config", "core.hooksPath", elsewhere.to_str().unwrap()]);
    let step = step(&*vcs, &worktree, "work").await;
    assert_eq!(place.run_step(&step), (Some(0), String::new()));
    assert_eq!(place.ok(&at, &["log", "-1", "--format=%s"]), "changed by a hook");
}

#[tokio::test]
async fn a_message_is_kept_to_the_letter() {
    let place = GitPlace::default();
    let message =
        "-F subject $(false) `false` 'q' \"q\" %s\n\n\n  indented  \n# no comment\n\u{e9}\n\n";
    for hooked in [false, true] {
        let (vcs, worktree) = dirty(&place).await;
        let at = path(&worktree.path);
        if hooked {
            place.ok(&at, &["config", "core.hooksPath", "/nowhere"]);
        }
        let step = step(&*vcs, &worktree, message).await;
        assert_eq!(place.run_step(&step), (Some(0), String::new()));
        let written = place.ok(&at, &["log", "-1", "--format=%B"]);
        let expected =
            "-F subject $(false) `false` 'q' \"q\" %s\n\n  indented\n# no comment\n\u{e9}";
        assert_eq!(written.trim_end(), expected, "hooked: {hooked}");
        let logged = place.ok(&at, &["log", "-1", "-g", "--format=%gs"]);
        assert_eq!(logged, "commit: -F subject $(false) `false` 'q' \"q\" %s");
    }
}

#[tokio::test]
async fn a_second_run_commits_nothing_more() {
    let place = GitPlace::default();
    for hooked in [false, true] {
        let (vcs, worktree) = dirty(&place).await;
        let at = path(&worktree.path);
        if hooked {
            place.ok(&at, &["config", "core.hooksPath", "/nowhere"]);
        }
        let step = step(&*vcs, &worktree, "work").await;
        assert_eq!(place.run_step(&step), (Some(0), String::new()));
        let head = place.ok(&at, &["rev-parse", "HEAD"]);
        assert_eq!(place.run_step(&step), (Some(0), String::new()));
        assert_eq!(place.ok(&at, &["rev-parse", "HEAD"]), head);
    }
}

#[tokio::test]
async fn a_lock_that_a_dead_git_left_is_removed() {
    let place = GitPlace::default();
    let (vcs, worktree) = dirty(&place).await;
    let at = path(&worktree.path);
    let admin = PathBuf::from(place.ok(&at, &["rev-parse", "--absolute-git-dir"]));
    let branch = format!("refs/heads/{}.lock", worktree.branch);
    let locks = [admin.join("index.lock"), path(&worktree.repo).join(branch)];
    for lock in &locks {
        fs::write(lock, "half an index").unwrap();
    }
    let step = step(&*vcs, &worktree, "work").await;
    assert!(locks.iter().all(|lock| !lock.exists()));
    assert_eq!(place.run_step(&step), (Some(0), String::new()));
}

#[tokio::test]
async fn a_lock_that_is_held_is_waited_for_and_its_holder_named() {
    let place = GitPlace::default();
    let (_, worktree) = dirty(&place).await;
    let at = path(&worktree.path);
    let admin = PathBuf::from(place.ok(&at, &["rev-parse", "--absolute-git-dir"]));
    let lock = admin.join("index.lock");
    let held = fs::File::create(&lock).unwrap();
    let options = GitOptions { lock_wait: Duration::from_secs(3), ..place.options("data") };
    let vcs = GitWorktrees::open(options).await.unwrap();
    let refused = vcs.plan_commit(attempt(1), &worktree, "work", &fallback()).await;
    let Err(VcsWorktreeError::Busy { holder, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(holder, Some(std::process::id()));
    assert!(lock.exists(), "it is not ours to remove");
    // Its holder lets go of it while it is waited for.
    let planning = {
        let (vcs, worktree) = (vcs.clone(), worktree.clone());
        tokio::spawn(
            async move { vcs.plan_commit(attempt(1), &worktree, "work", &fallback()).await },
        )
    };
    fs::remove_file(&lock).unwrap();
    drop(held);
    let plan = planning.await.unwrap().unwrap();
    assert!(matches!(plan, StepPlan::Run(_)), "{plan:?}");
}
