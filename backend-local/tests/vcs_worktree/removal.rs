//! Removal: nothing that exists nowhere else goes with it, and a crash at any point is gone on from.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use windlass_conformance::vcs_worktree::VcsWorktreePlace as _;
use windlass_core::vcs_worktree::{VcsWorktree, VcsWorktreeError};
use windlass_core::workspace::Worktree;

use crate::place::{GitPlace, attempt, path};

async fn created(place: &GitPlace) -> (Arc<dyn VcsWorktree>, Worktree) {
    let repo = place.repository();
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    (vcs, worktree)
}

fn admin(worktree: &Worktree) -> PathBuf {
    let at = path(&worktree.path);
    path(&worktree.repo).join("worktrees").join(at.file_name().unwrap())
}

fn aside(worktree: &Worktree) -> PathBuf {
    path(&worktree.path).with_file_name(format!(".removing-{}", attempt(1)))
}

#[track_caller]
fn assert_unsaved(result: &Result<(), VcsWorktreeError>, said: &str) {
    let Err(VcsWorktreeError::Unsaved { detail, .. }) = result else { panic!("{result:?}") };
    assert!(detail.contains(said), "{said:?} in {detail}");
}

/// Nothing of it is left in the repository or beside it, but the branch.
fn assert_removed(place: &GitPlace, worktree: &Worktree) {
    let common = path(&worktree.repo);
    assert!(!path(&worktree.path).exists() && !aside(worktree).exists());
    assert!(!common.join("worktrees").exists());
    let leftovers = fs::read_dir(&common)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("removed"));
    assert_eq!(leftovers.count(), 0);
    place.tip(&worktree.repo, &worktree.branch);
    place.ok(&common, &["fsck", "--strict"]);
}

type Dirt = fn(&GitPlace, &Worktree);

fn at(worktree: &Worktree) -> PathBuf {
    path(&worktree.path)
}

/// Makes each kind of dirt in a worktree of its own; the removal must refuse and say this.
async fn assert_each_refuses(dirt: &[(&str, Dirt)]) {
    for (said, make) in dirt {
        let place = GitPlace::default();
        let (vcs, worktree) = created(&place).await;
        make(&place, &worktree);
        let before = place.ok(&at(&worktree), &["status", "--porcelain", "--ignored"]);
        assert_unsaved(&vcs.remove(attempt(1), &worktree).await, said);
        vcs.verify(attempt(1), &worktree).await.unwrap();
        assert_eq!(place.ok(&at(&worktree), &["status", "--porcelain", "--ignored"]), before);
        assert!(!aside(&worktree).exists());
    }
}

#[tokio::test]
async fn files_that_exist_nowhere_else_refuse() {
    assert_each_refuses(&[
        ("changed: greeting", |place, worktree| place.write(&worktree.path, "greeting", "x\n")),
        ("changed: new", |place, worktree| {
            place.write(&worktree.path, "new", "x\n");
            place.ok(&at(worktree), &["add", "new"]);
        }),
        ("changed: sub/numbers", |place, worktree| {
            place.make_executable(&worktree.path, "sub/numbers");
        }),
        ("greeting", |place, worktree| {
            place.ok(&at(worktree), &["update-index", "--assume-unchanged", "greeting"]);
            place.write(&worktree.path, "greeting", "hidden\n");
        }),
        ("greeting", |place, worktree| {
            place.ok(&at(worktree), &["update-index", "--skip-worktree", "greeting"]);
            place.write(&worktree.path, "greeting", "hidden\n");
        }),
        ("untracked: a\\nb (2 B)", |place, worktree| place.write(&worktree.path, "a\nb", "x\n")),
        ("ignored: target/ (3 KiB)", |place, worktree| {
            place.write(&worktree.path, "target/debug/x", &"x".repeat(4000));
            fs::write(path(&worktree.repo).join("info/exclude"), "target/\n").unwrap();
        }),
        ("nested", |place, worktree| {
            place.repository_at(&at(worktree).join("nested"));
        }),
        ("unborn", |place, worktree| {
            place.write(&worktree.path, "unborn/file", "x\n");
            place.ok(&at(worktree).join("unborn"), &["init", "--quiet"]);
        }),
        ("special files: sub/pipe", |_, worktree| {
            let pipe = at(worktree).join("sub/pipe");
            rustix::fs::mkfifoat(rustix::fs::CWD, pipe, rustix::fs::Mode::RWXU).unwrap();
        }),
        ("untracked: link", |_, worktree| symlink("/etc", at(worktree).join("link")).unwrap()),
    ])
    .await;
}

fn conflict(place: &GitPlace, worktree: &Worktree) {
    place.write(&worktree.path, "greeting", "ours\n");
    place.commit(&worktree.path, "ours");
    let repo = at(worktree);
    place.ok(&repo, &["branch", "theirs", "HEAD~1"]);
    place.ok(&repo, &["switch", "--quiet", "theirs"]);
    place.write(&worktree.path, "greeting", "theirs\n");
    place.commit(&worktree.path, "theirs");
    place.ok(&repo, &["switch", "--quiet", &worktree.branch]);
}

#[tokio::test]
async fn states_that_exist_nowhere_else_refuse() {
    assert_each_refuses(&[
        ("a merge is in progress", |place, worktree| {
            conflict(place, worktree);
            place.git(&at(worktree), &["merge", "--quiet", "theirs"]);
        }),
        ("a rebase is in progress", |place, worktree| {
            conflict(place, worktree);
            place.git(&at(worktree), &["rebase", "--quiet", "theirs"]);
        }),
        ("a cherry-pick is in progress", |place, worktree| {
            conflict(place, worktree);
            place.git(&at(worktree), &["cherry-pick", "theirs"]);
        }),
        ("a bisect is in progress", |place, worktree| {
            place.ok(&at(worktree), &["bisect", "start"]);
        }),
        ("it is locked: keep", |place, worktree| {
            place.ok(&at(worktree), &["worktree", "lock", "--reason", "keep", "."]);
        }),
        ("commits that no branch reaches", |place, worktree| {
            place.ok(&at(worktree), &["switch", "--quiet", "--detach"]);
            place.write(&worktree.path, "new", "x\n");
            place.commit(&worktree.path, "abandoned");
            place.ok(&at(worktree), &["switch", "--quiet", &worktree.branch]);
        }),
    ])
    .await;
}

#[tokio::test]
async fn submodules_with_a_checkout_refuse() {
    let place = GitPlace::default();
    let (repo, library) = (place.repository(), place.repository());
    let library = path(&library);
    place.ok(&path(&repo), &["submodule", "--quiet", "add", library.to_str().unwrap(), "lib"]);
    place.commit(&repo, "with a submodule");
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    let at = path(&worktree.path);
    place.ok(&at, &["submodule", "--quiet", "update", "--init"]);
    assert_unsaved(&vcs.remove(attempt(1), &worktree).await, "submodules");
    place.ok(&at, &["submodule", "--quiet", "deinit", "--all"]);
    assert_unsaved(&vcs.remove(attempt(1), &worktree).await, "submodules");
    fs::remove_dir_all(admin(&worktree).join("modules")).unwrap();
    vcs.remove(attempt(1), &worktree).await.unwrap();
    assert!(library.join("greeting").exists());
}

#[tokio::test]
async fn amended_commits_and_empty_directories_do_not_hinder() {
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    let at = path(&worktree.path);
    place.write(&worktree.path, "new", "x\n");
    place.commit(&worktree.path, "first try");
    place.ok(&at, &["commit", "--quiet", "--amend", "--message", "second try"]);
    fs::create_dir_all(at.join("empty/below")).unwrap();
    vcs.remove(attempt(1), &worktree).await.unwrap();
    assert_removed(&place, &worktree);
}

#[tokio::test]
async fn links_out_are_not_followed() {
    let place = GitPlace::default();
    let repo = place.repository();
    let outside = place.home().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "x").unwrap();
    symlink(&outside, path(&repo).join("out")).unwrap();
    symlink("loop", path(&repo).join("loop")).unwrap();
    place.commit(&repo, "links");
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    vcs.remove(attempt(1), &worktree).await.unwrap();
    assert_removed(&place, &worktree);
    assert!(outside.join("precious").exists());
}

#[tokio::test]
async fn sparse_checkouts_are_removed() {
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    let at = path(&worktree.path);
    place.ok(&at, &["sparse-checkout", "set", "nothing"]);
    assert!(!at.join("sub").exists());
    vcs.verify(attempt(1), &worktree).await.unwrap();
    assert!(!vcs.status(attempt(1), &worktree).await.unwrap().dirty);
    vcs.remove(attempt(1), &worktree).await.unwrap();
    assert_removed(&place, &worktree);
}

/// Where a removal that crashed may have stopped.
#[tokio::test]
async fn a_removal_that_crashed_anywhere_is_gone_on_with() {
    type Crash = fn(&Worktree);
    fn deleting(worktree: &Worktree) {
        fs::rename(path(&worktree.path), aside(worktree)).unwrap();
        fs::write(admin(worktree).join("windlass-deleting"), "").unwrap();
    }
    let crashes: [(&str, Crash); 5] = [
        ("renamed", |worktree| fs::rename(path(&worktree.path), aside(worktree)).unwrap()),
        ("deleting", |worktree| {
            deleting(worktree);
            fs::remove_file(aside(worktree).join(".git")).unwrap();
            fs::remove_file(aside(worktree).join("greeting")).unwrap();
        }),
        ("deleted", |worktree| {
            deleting(worktree);
            fs::remove_dir_all(aside(worktree)).unwrap();
        }),
        ("unregistered", |worktree| {
            deleting(worktree);
            fs::remove_dir_all(aside(worktree)).unwrap();
            let discarded = path(&worktree.repo).join(format!("windlass-removed-{}", attempt(1)));
            fs::rename(admin(worktree), discarded).unwrap();
            fs::remove_dir(path(&worktree.repo).join("worktrees")).unwrap();
        }),
        ("half unregistered", |worktree| {
            deleting(worktree);
            fs::remove_dir_all(aside(worktree)).unwrap();
            let discarded = path(&worktree.repo).join(format!("windlass-removed-{}", attempt(1)));
            fs::rename(admin(worktree), &discarded).unwrap();
            fs::remove_file(discarded.join("HEAD")).unwrap();
            fs::remove_dir(path(&worktree.repo).join("worktrees")).unwrap();
        }),
    ];
    for (name, crash) in crashes {
        let place = GitPlace::default();
        let (vcs, worktree) = created(&place).await;
        crash(&worktree);
        let gone = vcs.verify(attempt(1), &worktree).await;
        assert!(matches!(gone, Err(VcsWorktreeError::Gone { .. })), "{name}: {gone:?}");
        vcs.remove(attempt(1), &worktree).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_removed(&place, &worktree);
    }
}

#[tokio::test]
async fn what_was_written_after_a_crash_is_kept_and_named() {
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    // Not yet deleting: it comes back whole.
    fs::rename(path(&worktree.path), aside(&worktree)).unwrap();
    fs::write(aside(&worktree).join("late"), "x").unwrap();
    assert_unsaved(&vcs.remove(attempt(1), &worktree).await, "late");
    vcs.verify(attempt(1), &worktree).await.unwrap();
    place.delete(&worktree.path, "late");
    // Deleting: what is left stays aside.
    fs::rename(path(&worktree.path), aside(&worktree)).unwrap();
    fs::write(admin(&worktree).join("windlass-deleting"), "").unwrap();
    fs::remove_file(aside(&worktree).join("greeting")).unwrap();
    fs::write(aside(&worktree).join("sub/numbers"), "late\n").unwrap();
    for _ in 0..2 {
        assert_unsaved(&vcs.remove(attempt(1), &worktree).await, "sub/numbers");
        assert_eq!(fs::read(aside(&worktree).join("sub/numbers")).unwrap(), b"late\n");
    }
    fs::write(aside(&worktree).join("sub/numbers"), "1\n2\n3\n").unwrap();
    vcs.remove(attempt(1), &worktree).await.unwrap();
    assert_removed(&place, &worktree);
}

/// A stranger that stands in the directory writes while it is removed: every byte is in a refusal or on disk.
#[tokio::test]
async fn a_stranger_that_writes_meanwhile_loses_nothing() {
    for round in 0..6_u32 {
        let place = GitPlace::default();
        let (vcs, worktree) = created(&place).await;
        let inside = fs::File::open(path(&worktree.path)).unwrap();
        let (begun, begin) = std::sync::mpsc::channel();
        let writer = std::thread::spawn(move || {
            let mut written = Vec::new();
            begun.send(()).unwrap();
            for number in 0..2000_u32 {
                let name = format!("late {number}");
                let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
                let mode = rustix::fs::Mode::RWXU;
                // The directory may be gone, then nothing can be written any more.
                let Ok(file) = rustix::fs::openat(&inside, &name, flags, mode) else { break };
                rustix::io::write(&file, b"x").unwrap();
                written.push(name);
                if number == round * 300 {
                    break;
                }
            }
            written
        });
        begin.recv().unwrap();
        let removed = vcs.remove(attempt(1), &worktree).await;
        let written = writer.join().unwrap();
        let places = [path(&worktree.path), aside(&worktree)];
        let kept = |name: &String| places.iter().any(|place: &PathBuf| place.join(name).exists());
        assert!(written.iter().all(kept), "{removed:?}");
        assert!(removed.is_err() || written.is_empty());
    }
}

#[tokio::test]
async fn a_mount_inside_refuses() {
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    let inside = path(&worktree.path).join("mounted");
    let outside = place.home().join("outside");
    fs::create_dir(&inside).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "x").unwrap();
    let run = |program: &str, args: &[&Path]| {
        std::process::Command::new(program)
            .args(args)
            .output()
            .is_ok_and(|out| out.status.success())
    };
    if !run("mount", &[Path::new("--bind"), &outside, &inside]) {
        eprintln!("not run: mounting is not allowed here");
        return;
    }
    let refused = vcs.remove(attempt(1), &worktree).await;
    let listed = fs::read_dir(&inside).unwrap().count();
    assert!(run("umount", &[&inside]));
    assert_unsaved(&refused, "mount");
    assert_eq!(listed, 1);
    assert!(outside.join("precious").exists());
    vcs.remove(attempt(1), &worktree).await.unwrap();
    assert_removed(&place, &worktree);
}
