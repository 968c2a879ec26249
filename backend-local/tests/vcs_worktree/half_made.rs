//! Creations that came to no end: what they left is told, undone or completed, and nothing of others with it.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use windlass_conformance::vcs_worktree::{MakeAtOnce as _, VcsWorktreePlace as _};
use windlass_core::locator::Locator;
use windlass_core::vcs_worktree::{Origin, Removal, VcsWorktree, VcsWorktreeError};
use windlass_core::workspace::Worktree;
use windlass_local::{GitOptions, GitWorktrees};

use crate::creation::outline;
use crate::place::{GitPlace, attempt, path, write_program};

/// Makes branch, registration and files as a creation does, but for what says whose they are.
fn add(place: &GitPlace, worktree: &Worktree) {
    let at = path(&worktree.path);
    let args = ["worktree", "add", "--quiet", "-b", &worktree.branch, at.to_str().unwrap()];
    place.ok(&path(&worktree.repo), &args);
}

fn admin(worktree: &Worktree) -> PathBuf {
    let name = path(&worktree.path);
    path(&worktree.repo).join("worktrees").join(name.file_name().unwrap())
}

fn beside(worktree: &Worktree, end: &str) -> PathBuf {
    let at = path(&worktree.path);
    at.with_file_name(format!(".{}{end}", at.file_name().unwrap().to_str().unwrap()))
}

/// Writes the note of a creation that has begun, as the first version did.
fn note_creation(worktree: &Worktree) -> PathBuf {
    let note = beside(worktree, ".creating");
    fs::create_dir_all(note.parent().unwrap()).unwrap();
    let (id, branch, oid) = (attempt(1), &worktree.branch, &worktree.base_oid);
    let text = format!(
        "windlass-worktree 1\ndata_directory=data\nattempt={id}\nbranch={branch}\noid={oid}\n"
    );
    fs::write(&note, text).unwrap();
    note
}

/// States in which a creation that crashed may leave things, each made with the tools of git.
#[tokio::test]
async fn a_creation_that_crashed_anywhere_is_done_again() {
    type Crash = fn(&GitPlace, &Worktree);
    let crashes: [(&str, Crash); 7] = [
        ("nothing but the note", |_, _| {}),
        ("a branch alone", |place, worktree| {
            place.ok(&path(&worktree.repo), &["branch", &worktree.branch]);
        }),
        ("a registration without anything in it", |_, worktree| {
            fs::create_dir_all(admin(worktree)).unwrap();
        }),
        ("a registration without a directory", |place, worktree| {
            add(place, worktree);
            fs::remove_dir_all(path(&worktree.path)).unwrap();
        }),
        ("a directory without a registration", |place, worktree| {
            add(place, worktree);
            fs::remove_dir_all(admin(worktree)).unwrap();
        }),
        ("half of the files", |place, worktree| {
            add(place, worktree);
            fs::remove_file(path(&worktree.path).join("greeting")).unwrap();
            fs::write(admin(worktree).join("locked"), "initializing").unwrap();
            fs::write(admin(worktree).join("index.lock"), "").unwrap();
        }),
        ("everything but the marker", add),
    ];
    for (name, crash) in crashes {
        let place = GitPlace::default();
        let repo = place.repository();
        let vcs = place.open().await;
        let worktree = vcs.plan(place.request(&repo, 1)).await.unwrap().worktree;
        let at = path(&worktree.path);
        let note = note_creation(&worktree);
        crash(&place, &worktree);
        assert!(vcs.verify(attempt(1), &worktree).await.is_err(), "{name}");
        vcs.make(attempt(1), &worktree, &Origin::Base)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!note.exists(), "{name}");
        assert_eq!(place.ok(&at, &["status", "--porcelain"]), "", "{name}");
        place.ok(&path(&repo), &["fsck", "--strict"]);
        let listed = place.ok(&path(&repo), &["worktree", "list"]);
        assert_eq!(listed.lines().count(), 2, "{name}: {listed}");
    }
}

/// A creation that crashed when all of its files were there.
async fn half_made(place: &GitPlace) -> (Locator, Worktree, PathBuf) {
    let repo = place.repository();
    let vcs = place.open().await;
    let worktree = vcs.plan(place.request(&repo, 1)).await.unwrap().worktree;
    let note = note_creation(&worktree);
    (repo, worktree, note)
}

#[tokio::test]
async fn what_others_put_into_a_half_made_worktree_stays() {
    let place = GitPlace::default();
    let (repo, worktree, note) = half_made(&place).await;
    let at = path(&worktree.path);
    add(&place, &worktree);
    // What the checkout was writing when it was killed is no work of anybody.
    fs::write(at.join("greeting"), "").unwrap();
    fs::write(at.join("sub/numbers"), "mine\n").unwrap();
    place.write(&worktree.path, "sub/notes", "mine, too\n");
    let vcs = place.open().await;
    let refused = vcs.make(attempt(1), &worktree, &Origin::Base).await;
    let Err(VcsWorktreeError::Mismatch { detail, .. }) = &refused else { panic!("{refused:?}") };
    assert!(detail.contains("sub") && detail.contains("move it away"), "{detail}");
    assert!(!note.exists() && !at.join(".git").exists() && !at.join("greeting").exists());
    assert_eq!(place.read(&worktree.path, "sub/numbers").as_deref(), Some("mine\n"));
    assert_eq!(place.read(&worktree.path, "sub/notes").as_deref(), Some("mine, too\n"));
    assert_eq!(place.ok(&path(&repo), &["branch", "--list", &worktree.branch]), "");
    // It still is in the way, until it is moved.
    vcs.make(attempt(1), &worktree, &Origin::Base).await.unwrap_err();
    fs::rename(at.join("sub"), place.home().join("mine")).unwrap();
    vcs.make(attempt(1), &worktree, &Origin::Base).await.unwrap();
    assert_eq!(place.ok(&at, &["status", "--porcelain"]), "");
}

#[tokio::test]
async fn what_others_put_into_a_half_made_worktree_stays_when_that_is_removed() {
    let place = GitPlace::default();
    let (repo, worktree, note) = half_made(&place).await;
    add(&place, &worktree);
    place.write(&worktree.path, "notes", "mine\n");
    let vcs = place.open().await;
    vcs.remove(attempt(1), &worktree, Removal::Worktree).await.unwrap();
    assert_eq!(place.read(&worktree.path, "notes").as_deref(), Some("mine\n"));
    assert!(!note.exists() && !path(&worktree.path).join("greeting").exists());
    assert_eq!(place.ok(&path(&repo), &["worktree", "list"]).lines().count(), 1);
}

#[tokio::test]
async fn a_strangers_directory_in_the_place_of_a_half_made_worktree_is_left_alone() {
    let place = GitPlace::default();
    let (repo, worktree, _note) = half_made(&place).await;
    let at = path(&worktree.path);
    place.ok(&path(&repo), &["clone", "--quiet", ".", at.to_str().unwrap()]);
    let vcs = place.open().await;
    let refused = vcs.make(attempt(1), &worktree, &Origin::Base).await;
    assert!(matches!(refused, Err(VcsWorktreeError::Mismatch { .. })), "{refused:?}");
    assert_eq!(place.ok(&at, &["status", "--porcelain"]), "");
    // A copy of the same files, without any git.
    fs::remove_dir_all(at.join(".git")).unwrap();
    note_creation(&worktree);
    let refused = vcs.make(attempt(1), &worktree, &Origin::Base).await;
    assert!(matches!(refused, Err(VcsWorktreeError::Mismatch { .. })), "{refused:?}");
    assert_eq!(place.read(&worktree.path, "greeting").as_deref(), Some("hello\n"));
    // A link to somebody's directory.
    let elsewhere = place.home().join("elsewhere");
    fs::rename(&at, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &at).unwrap();
    note_creation(&worktree);
    vcs.make(attempt(1), &worktree, &Origin::Base).await.unwrap_err();
    assert!(at.is_symlink() && elsewhere.join("greeting").exists());
}

#[tokio::test]
async fn a_branch_that_moved_on_is_never_undone() {
    let place = GitPlace::default();
    let repo = place.repository();
    let vcs = place.open().await;
    let worktree = vcs.plan(place.request(&repo, 1)).await.unwrap().worktree;
    place.switch(&repo, &worktree.branch);
    place.write(&repo, "new", "x\n");
    let tip = place.commit(&repo, "somebody's");
    let at = path(&worktree.path);
    let note = note_creation(&worktree);
    let refused = vcs.make(attempt(1), &worktree, &Origin::Base).await;
    assert!(matches!(refused, Err(VcsWorktreeError::BranchExists { .. })), "{refused:?}");
    assert_eq!(place.tip(&repo, &worktree.branch), tip);
    assert!(!at.exists() && !note.exists());
}

#[tokio::test]
async fn a_worktree_whose_directory_was_deleted_is_filled_again() {
    let place = GitPlace::default();
    let repo = place.repository();
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    place.write(&worktree.path, "new", "x\n");
    let head = place.commit(&worktree.path, "work");
    place.write(&worktree.path, "staged", "y\n");
    place.ok(&path(&worktree.path), &["add", "staged"]);
    place.delete_directory(&worktree.path);
    // What a crash left of another try is no more than that.
    let filling = beside(&worktree, ".filling.new");
    fs::create_dir(&filling).unwrap();
    fs::write(filling.join(".git"), format!("gitdir: {}\n", admin(&worktree).display())).unwrap();
    fs::write(filling.join("greeting"), "h").unwrap();
    let verified = vcs.make(attempt(1), &worktree, &Origin::Base).await.unwrap();
    assert!(!filling.exists());
    assert_eq!(verified.head, head);
    assert_eq!(place.ok(&path(&worktree.path), &["status", "--porcelain"]), "A  staged");
}

#[tokio::test]
async fn a_failing_checkout_leaves_nothing() {
    let place = GitPlace::default();
    let repo = place.repository();
    place.write(&repo, ".gitattributes", "greeting filter=broken\n");
    place.commit(&repo, "filtered");
    place.write(&repo, "greeting", "HELLO\n");
    place.ok(&path(&repo), &["config", "filter.broken.smudge", "echo broken >&2; false"]);
    place.ok(&path(&repo), &["config", "filter.broken.required", "true"]);
    let vcs = place.open().await;
    // Git cannot tell what is clean without the filter.
    let planned = vcs.plan(place.request(&repo, 1)).await.unwrap();
    assert!(planned.source_is_dirty);
    let worktree = planned.worktree;
    let before = outline(&place, &path(&worktree.repo));
    let refused = place.make(&*vcs, attempt(1), &worktree, &Origin::Base).await;
    let Err(VcsWorktreeError::Git { stderr, .. }) = refused else { panic!("{refused:?}") };
    assert!(stderr.contains("broken"), "{stderr}");
    assert_eq!(outline(&place, &path(&worktree.repo)), before);
    assert!(!path(&worktree.path).parent().unwrap().exists());
}

#[tokio::test]
async fn a_dropped_creation_can_be_done_again() {
    let place = GitPlace::default();
    let repo = place.repository();
    let (program, begun) = (place.home().join("hanging-git"), place.home().join("begun"));
    rustix::fs::mkfifoat(rustix::fs::CWD, &begun, rustix::fs::Mode::RWXU).unwrap();
    // It hangs when the worktree is registered, until it is told not to.
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *--no-checkout*) [ -p {begun:?} ] && {{ git \"$@\"; echo > {begun:?}; exec sleep 600; }};; esac\nexec git \"$@\"\n"
    );
    write_program(&program, script);
    let options = GitOptions { program, ..place.options("data") };
    let vcs: Arc<dyn VcsWorktree> = GitWorktrees::open(options).await.unwrap();
    let worktree = vcs.plan(place.request(&repo, 1)).await.unwrap().worktree;
    let making = {
        let (vcs, worktree) = (Arc::clone(&vcs), worktree.clone());
        tokio::spawn(
            async move { vcs.make(attempt(1), &worktree, &Origin::Base).await.map(|_| ()) },
        )
    };
    let told = begun.clone();
    tokio::task::spawn_blocking(move || fs::read(told).unwrap()).await.unwrap();
    making.abort();
    assert!(making.await.unwrap_err().is_cancelled());
    fs::remove_file(&begun).unwrap();
    vcs.make(attempt(1), &worktree, &Origin::Base).await.unwrap();
    assert_eq!(place.ok(&path(&worktree.path), &["status", "--porcelain"]), "");
}
