//! What is not the recorded worktree is said, with what mends it; and hooks that a creation runs.

use std::fs;
use std::path::{Path, PathBuf};

use windlass_conformance::vcs_worktree::{MakeAtOnce as _, VcsWorktreePlace as _};
use windlass_core::vcs_worktree::{
    DiffDetail, FoundState, Origin, VcsWorktree, VcsWorktreeError, WorktreeRequest,
};
use windlass_core::workspace::Worktree;

use crate::place::{GitPlace, attempt, path, write_program};

/// What verifying says that is wrong.
async fn wrong(vcs: &dyn VcsWorktree, worktree: &Worktree) -> String {
    match vcs.verify(attempt(1), worktree).await {
        Err(VcsWorktreeError::Mismatch { detail, .. }) => detail,
        other => panic!("{other:?}"),
    }
}

fn admin(place: &GitPlace, worktree: &Worktree) -> PathBuf {
    PathBuf::from(place.ok(&path(&worktree.path), &["rev-parse", "--absolute-git-dir"]))
}

#[tokio::test]
async fn a_pruned_registration_is_said_and_nothing_is_made_over_it() {
    let place = GitPlace::default();
    let repo = place.repository();
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    place.write(&worktree.path, "work", "precious\n");
    let (at, moved) = (path(&worktree.path), place.home().join("moved"));
    fs::rename(&at, &moved).unwrap();
    place.ok(&path(&repo), &["worktree", "prune"]);
    fs::rename(&moved, &at).unwrap();
    let said = wrong(&*vcs, &worktree).await;
    assert!(said.contains("not registered") && said.contains("move them away"), "{said}");
    let refused = vcs.make(attempt(1), &worktree, &Origin::Base).await;
    assert!(matches!(refused, Err(VcsWorktreeError::Mismatch { .. })), "{refused:?}");
    assert_eq!(place.read(&worktree.path, "work").as_deref(), Some("precious\n"));
}

#[tokio::test]
async fn what_the_message_says_mends_a_link_that_was_broken() {
    type Break = fn(&Path, &Path);
    let breaks: [(&str, Break); 4] = [
        ("gone", |at, _| fs::remove_file(at.join(".git")).unwrap()),
        ("damaged", |at, _| fs::write(at.join(".git"), "rubbish\n").unwrap()),
        ("moved", |at, home| {
            fs::write(at.join(".git"), format!("gitdir: {}\n", home.display())).unwrap()
        }),
        ("registered", |at, home| {
            let link = fs::read_to_string(at.join(".git")).unwrap();
            let admin = Path::new(link.trim_end().strip_prefix("gitdir: ").unwrap());
            // Something is there: one that leads nowhere is mended without a word.
            fs::create_dir(home.join("x")).unwrap();
            fs::write(admin.join("gitdir"), format!("{}/x/.git\n", home.display())).unwrap();
        }),
    ];
    for (name, broken) in breaks {
        let place = GitPlace::default();
        let repo = place.repository();
        let vcs = place.open().await;
        let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
        let at = path(&worktree.path);
        broken(&at, &place.home());
        let said = wrong(&*vcs, &worktree).await;
        let (_, command) = said.split_once('`').unwrap_or_else(|| panic!("{name}: {said}"));
        let (command, _) = command.split_once('`').unwrap();
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", command]).env_clear().envs(place.env());
        assert!(shell.status().unwrap().success(), "{command}");
        vcs.verify(attempt(1), &worktree).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[tokio::test]
async fn a_worktree_that_git_moved_is_said_to_be_elsewhere_and_comes_back() {
    let place = GitPlace::default();
    let repo = place.repository();
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    let (at, away) = (path(&worktree.path), place.home().join("away"));
    let (here, there) = (at.to_str().unwrap(), away.to_str().unwrap());
    place.ok(&path(&repo), &["worktree", "move", here, there]);
    let said = wrong(&*vcs, &worktree).await;
    assert_eq!(said, format!("it was moved to {there}; `git worktree move` brings it back"));
    let refused = vcs.diff(attempt(1), &worktree, DiffDetail::Files).await;
    assert!(matches!(refused, Err(VcsWorktreeError::Mismatch { .. })), "{refused:?}");
    let found = vcs.survey(std::slice::from_ref(&worktree.repo)).await.unwrap();
    let [found] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((&found.path, found.attempt), (&worktree.path, Some(attempt(1))));
    assert_eq!(found.state, FoundState::Foreign { detail: said });
    place.ok(&path(&repo), &["worktree", "move", there, here]);
    vcs.verify(attempt(1), &worktree).await.unwrap();
    // One that is nowhere is gone.
    place.ok(&path(&repo), &["worktree", "move", here, there]);
    fs::remove_dir_all(&away).unwrap();
    let gone = vcs.verify(attempt(1), &worktree).await;
    assert!(matches!(gone, Err(VcsWorktreeError::Gone { .. })), "{gone:?}");
}

#[tokio::test]
async fn a_locked_worktree_is_the_recorded_one() {
    let place = GitPlace::default();
    let repo = place.repository();
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    place.ok(&path(&repo), &["worktree", "lock", path(&worktree.path).to_str().unwrap()]);
    vcs.verify(attempt(1), &worktree).await.unwrap();
    vcs.make(attempt(1), &worktree, &Origin::Base).await.unwrap();
}

#[tokio::test]
async fn markers_of_others_and_newer_ones_are_said() {
    let place = GitPlace::default();
    let repo = place.repository();
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    let marker = admin(&place, &worktree).join("windlass-worktree");
    let text = fs::read_to_string(&marker).unwrap();
    for (changed, said) in [
        (text.replace("data_directory=data", "data_directory=theirs"), "(theirs)"),
        (text.replace("windlass-worktree 1", "windlass-worktree 2"), "newer version"),
        (text.replace("attempt=", "attempt=x"), "damaged"),
        (String::new(), "damaged"),
    ] {
        fs::write(&marker, changed).unwrap();
        let found = wrong(&*vcs, &worktree).await;
        assert!(found.contains(said), "{found}");
    }
    fs::remove_file(&marker).unwrap();
    assert!(wrong(&*vcs, &worktree).await.contains("is gone: restoring it marks it again"));
    vcs.make(attempt(1), &worktree, &Origin::Base).await.unwrap();
    vcs.verify(attempt(1), &worktree).await.unwrap();
    // Nothing says that it was ever ours.
    fs::remove_file(&marker).unwrap();
    fs::remove_file(marker.with_file_name("windlass-index")).unwrap();
    let refused = vcs.make(attempt(1), &worktree, &Origin::Base).await;
    assert!(matches!(refused, Err(VcsWorktreeError::Mismatch { .. })), "{refused:?}");
    assert!(wrong(&*vcs, &worktree).await.contains("no marker of ours"));
    // One without the record, as older versions wrote it.
    let old: String = text
        .lines()
        .filter(|line| !line.starts_with("worktree="))
        .fold(String::new(), |all, line| format!("{all}{line}\n"));
    assert_ne!(old, text);
    fs::write(&marker, old).unwrap();
    vcs.verify(attempt(1), &worktree).await.unwrap();
}

#[tokio::test]
async fn a_branch_that_differs_in_case_alone_is_taken_where_case_does_not_count() {
    let place = GitPlace::default();
    let repo = place.repository();
    place.branch(&repo, "Topic/One");
    let vcs = place.open().await;
    let request =
        || WorktreeRequest { branch: Some("topic/one".into()), ..place.request(&repo, 1) };
    vcs.plan(request()).await.unwrap();
    place.ok(&path(&repo), &["config", "core.ignoreCase", "true"]);
    let refused = vcs.plan(request()).await;
    let Err(VcsWorktreeError::BranchExists { branch }) = refused else { panic!("{refused:?}") };
    assert_eq!(branch, "Topic/One");
}

/// Gives a repository a hook.
fn hook(place: &GitPlace, dir: &Path, script: &str) {
    let folder = place.home().join("hooks");
    fs::create_dir_all(&folder).unwrap();
    let hook = folder.join("post-checkout");
    write_program(&hook, format!("#!/bin/sh\n{script}\n"));
    place.ok(dir, &["config", "core.hooksPath", folder.to_str().unwrap()]);
}

#[tokio::test]
async fn a_hook_sees_what_git_shows_it() {
    let place = GitPlace::default();
    let repo = place.repository();
    let seen = r#"{ pwd; echo "$@"; env | grep -E '^GIT_(DIR|WORK_TREE|INDEX_FILE)='; ls; }"#;
    hook(&place, &path(&repo), &format!("{seen} > {:?}", place.home().join("seen")));
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    let ours = fs::read_to_string(place.home().join("seen")).unwrap();
    let theirs = place.home().join("theirs");
    place.ok(&path(&repo), &["worktree", "add", "--quiet", theirs.to_str().unwrap()]);
    let expected = fs::read_to_string(place.home().join("seen")).unwrap();
    let at = path(&worktree.path);
    assert_eq!(ours, expected.replace(theirs.to_str().unwrap(), at.to_str().unwrap()));
    vcs.verify(attempt(1), &worktree).await.unwrap();
}
