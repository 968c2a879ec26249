//! Snapshots: what is kept and what is not, and that nothing else is touched.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use windlass_conformance::vcs_worktree::{MakeAtOnce as _, VcsWorktreePlace as _};
use windlass_core::locator::Locator;
use windlass_core::snapshot::{LeftOutReason, Snapshot};
use windlass_core::vcs_worktree::{
    BranchFate, Ignored, Removal, SaveFrom, SaveRequest, Unsavable, VcsWorktreeError,
    VcsWorktreeExt as _,
};
use windlass_local::{GitOptions, GitWorktrees};

use crate::comebacks::{archive, dated, diverge, origin};
use crate::creation::on_a_small_disk;
use crate::place::{GitPlace, REMOVAL, attempt, path};
use crate::portrait::{assert_same, portrait};

#[tokio::test]
async fn a_clean_worktree_needs_no_snapshot() {
    assert_eq!(comes_back_without().await, None);
}

async fn comes_back_without() -> Option<Snapshot> {
    let place = GitPlace::default();
    let repo = place.repository();
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    place.write(&worktree.path, "new", "x\n");
    place.commit(&worktree.path, "work");
    let saved = vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.unwrap();
    let again = vcs.make(attempt(1), &worktree, &origin(&saved)).await.unwrap();
    assert_eq!(again.branch, Some(worktree.branch.clone()));
    assert_eq!(place.read(&worktree.path, "new").as_deref(), Some("x\n"));
    assert_eq!(place.ok(&path(&worktree.path), &["status", "--porcelain"]), "");
    saved.snapshot
}

#[tokio::test]
async fn saving_writes_nothing_in_the_repository() {
    let place = GitPlace::default();
    let repo = place.repository();
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    let dir = path(&worktree.path);
    place.write(&worktree.path, "greeting", "thrown away\n");
    place.commit(&worktree.path, "thrown away");
    place.ok(&dir, &["reset", "--quiet", "--hard", "HEAD~1"]);
    place.write(&worktree.path, "staged", "x\n");
    place.ok(&dir, &["add", "staged"]);
    let before = place.fingerprint(&worktree);
    let seen = portrait(&place, &worktree);
    let request = SaveRequest { from: SaveFrom::Place, ..REMOVAL };
    let saved = vcs.save(attempt(1), &worktree, &request).await.unwrap();
    let snapshot = saved.snapshot.unwrap();
    assert_eq!((snapshot.commits, snapshot.entries), (1, 1));
    assert!(place.fingerprint(&worktree) == before);
    assert_same(&portrait(&place, &worktree), &seen);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    let file = archive(&snapshot);
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    assert_eq!(file.metadata().unwrap().len(), snapshot.archive_bytes);
    assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
    // Saving again under a number that is not recorded replaces what was there.
    place.write(&worktree.path, "more", "x\n");
    let again = vcs.save(attempt(1), &worktree, &request).await.unwrap().snapshot.unwrap();
    assert_eq!((again.archive, again.entries), (snapshot.archive, 2));
}

#[tokio::test]
async fn a_branch_that_goes_takes_its_commits_along() {
    let place = GitPlace::default();
    let repo = place.repository();
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    place.write(&worktree.path, "new", "x\n");
    let head = place.commit(&worktree.path, "work");
    let request = SaveRequest { branch: BranchFate::Goes, ..REMOVAL };
    let saved = vcs.save(attempt(1), &worktree, &request).await.unwrap();
    assert_eq!(saved.snapshot.as_ref().map(|snapshot| snapshot.commits), Some(1));
    vcs.remove(attempt(1), &worktree, Removal::WorktreeAndBranch).await.unwrap();
    assert_eq!(place.branches(&repo), ["main"]);
    place.ok(&path(&repo), &["reflog", "expire", "--expire=now", "--all"]);
    place.ok(&path(&repo), &["gc", "--quiet", "--prune=now"]);
    assert!(!place.git(&path(&repo), &["cat-file", "-e", &head.0]).status.success());
    let again = vcs.make(attempt(1), &worktree, &origin(&saved)).await.unwrap();
    assert_eq!((&again.head, &again.branch), (&head, &Some(worktree.branch.clone())));
    assert_eq!(place.tip(&repo, &worktree.branch), head);
    place.ok(&path(&repo), &["fsck", "--strict"]);
}

#[tokio::test]
async fn objects_that_were_collected_meanwhile_come_back() {
    let place = GitPlace::default();
    let repo = place.repository();
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    let dir = path(&worktree.path);
    diverge(&place, &dir);
    place.ok(&dir, &["branch", "-D", "theirs"]);
    place.write(&worktree.path, "staged", "only staged\n");
    place.ok(&dir, &["add", "staged"]);
    place.write(&worktree.path, "staged", "later\n");
    let before = portrait(&place, &worktree);
    let saved = vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.unwrap();
    place.ok(&path(&repo), &["reflog", "expire", "--expire=now", "--all"]);
    place.ok(&path(&repo), &["gc", "--quiet", "--prune=now"]);
    vcs.make(attempt(1), &worktree, &origin(&saved)).await.unwrap();
    assert_same(&portrait(&place, &worktree), &before);
    place.ok(&dir, &["fsck", "--strict", "--no-dangling"]);
}

fn ignoring(place: &GitPlace) -> Locator {
    let repo = place.repository();
    place.write(&repo, ".gitignore", "*.log\n/target\n.env\nnode_modules\n");
    place.commit(&repo, "ignore");
    repo
}

#[tokio::test]
async fn ignored_entries_are_kept_smallest_first_and_the_rest_is_named() {
    let place = GitPlace::default();
    let repo = ignoring(&place);
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    let at = &worktree.path;
    place.write(at, ".env", "A=1\n");
    place.write(at, "notes.log", &"n".repeat(1000));
    place.write(at, "target/debug/a", &"x".repeat(1500));
    place.write(at, "target/debug/b", "small");
    place.write(at, "sub/node_modules/x/y", &"x".repeat(5000));
    let request = SaveRequest { ignored: Ignored::UpTo(2000), ..REMOVAL };
    let saved = vcs.save_and_remove(attempt(1), &worktree, &request).await.unwrap();
    let snapshot = saved.snapshot.as_ref().unwrap();
    let named: Vec<_> = snapshot
        .left_out
        .iter()
        .map(|left| (left.path.to_string(), left.bytes, left.reason))
        .collect();
    let ignored = LeftOutReason::Ignored;
    let expected =
        [("sub/node_modules".to_owned(), 5000, ignored), ("target".to_owned(), 1505, ignored)];
    assert_eq!(named, expected);
    assert_eq!((snapshot.entries, snapshot.left_out_bytes, snapshot.more_left_out), (2, 6505, 0));
    vcs.make(attempt(1), &worktree, &origin(&saved)).await.unwrap();
    assert_eq!(place.read(at, ".env").as_deref(), Some("A=1\n"));
    assert!(place.read(at, "notes.log").is_some());
    assert_eq!(place.read(at, "target/debug/b"), None);
}

#[tokio::test]
async fn ignored_entries_are_kept_by_globs() {
    let place = GitPlace::default();
    let repo = ignoring(&place);
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    let at = &worktree.path;
    for file in [".env", "notes.log", "target/keep/a", "target/keep/b", "target/c"] {
        place.write(at, file, "text\n");
    }
    let globs = vec![".env".to_owned(), "/target/keep".to_owned(), "!target/keep/b".to_owned()];
    let request = SaveRequest { ignored: Ignored::Globs(globs), ..REMOVAL };
    let saved = vcs.save_and_remove(attempt(1), &worktree, &request).await.unwrap();
    let left: Vec<_> = saved
        .snapshot
        .as_ref()
        .unwrap()
        .left_out
        .iter()
        .map(|left| left.path.to_string())
        .collect();
    assert_eq!(left, ["notes.log", "target/c", "target/keep/b"]);
    vcs.make(attempt(1), &worktree, &origin(&saved)).await.unwrap();
    assert!(place.read(at, ".env").is_some() && place.read(at, "target/keep/a").is_some());
}

#[tokio::test]
async fn what_cannot_be_saved_is_named_or_discarded() {
    let place = GitPlace::default();
    let repo = place.repository();
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    let dir = path(&worktree.path);
    place.write(&worktree.path, "new", "x\n");
    let socket = std::os::unix::net::UnixListener::bind(dir.join("socket")).unwrap();
    let pipe = Command::new("mkfifo").arg(dir.join("two\nlines")).status().unwrap();
    assert!(pipe.success());
    let refused = vcs.save(attempt(1), &worktree, &REMOVAL).await;
    let Err(VcsWorktreeError::Unsavable { entries, path: named }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(named, worktree.path);
    assert_eq!(entries, ["socket: it is a socket", "two\\nlines: it is a pipe"]);
    assert!(dir.join("socket").exists(), "it was put back");
    let request = SaveRequest { unsavable: Unsavable::Discard, ..REMOVAL };
    let saved = vcs.save_and_remove(attempt(1), &worktree, &request).await.unwrap();
    let left = &saved.snapshot.as_ref().unwrap().left_out;
    assert_eq!(left.len(), 2);
    assert!(left.iter().all(|left| left.reason == LeftOutReason::Discarded));
    drop(socket);
    vcs.make(attempt(1), &worktree, &origin(&saved)).await.unwrap();
    assert!(dir.join("new").exists() && !dir.join("socket").exists());
}

#[tokio::test]
async fn a_full_quota_refuses_and_evicts_nothing() {
    let place = GitPlace::default();
    let repo = place.repository();
    let options = GitOptions { snapshot_quota_bytes: 8 << 10, ..place.options("data") };
    let vcs = GitWorktrees::open(options).await.unwrap();
    let first = place.worktree(&*vcs, &repo, 1).await.unwrap();
    place.write(&first.path, "new", "x\n");
    let kept = vcs.save_and_remove(attempt(1), &first, &REMOVAL).await.unwrap();
    let second = place.worktree(&*vcs, &repo, 2).await.unwrap();
    fs::write(path(&second.path).join("noise"), noise(32 << 10)).unwrap();
    let refused = vcs.save_and_remove(attempt(2), &second, &REMOVAL).await;
    let Err(VcsWorktreeError::Quota { used, limit }) = refused else { panic!("{refused:?}") };
    assert!(used > limit && limit == 8 << 10);
    assert!(path(&second.path).join("noise").exists());
    let kept_at = archive(kept.snapshot.as_ref().unwrap());
    let root = kept_at.parent().unwrap().parent().unwrap();
    assert_eq!(fs::read_dir(root).unwrap().count(), 1, "nothing is left of what was begun");
    vcs.make(attempt(1), &first, &origin(&kept)).await.unwrap();
}

/// Bytes that do not become fewer by compression.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..bytes.div_ceil(8)).flat_map(|_| next().to_le_bytes()).collect()
}

#[tokio::test]
async fn a_full_disk_refuses_and_leaves_nothing() {
    let Some(disk) = on_a_small_disk("snapshots::a_full_disk_refuses_and_leaves_nothing") else {
        return;
    };
    let place = GitPlace::default();
    let repo = place.repository();
    let snapshots = disk.join("snapshots");
    let options = GitOptions { snapshots_root: snapshots.clone(), ..place.options("data") };
    let vcs = GitWorktrees::open(options).await.unwrap();
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    let dir = path(&worktree.path);
    for number in 0..4 {
        fs::write(dir.join(format!("noise {number}")), noise(4 << 20)).unwrap();
    }
    let before = portrait(&place, &worktree);
    let refused = vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await;
    assert!(matches!(refused, Err(VcsWorktreeError::Full)), "{refused:?}");
    assert_eq!(fs::read_dir(&snapshots).unwrap().count(), 0);
    assert_same(&portrait(&place, &worktree), &before);
    for number in 1..4 {
        fs::remove_file(dir.join(format!("noise {number}"))).unwrap();
    }
    let saved = vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.unwrap();
    vcs.make(attempt(1), &worktree, &origin(&saved)).await.unwrap();
    assert!(fs::read(dir.join("noise 0")).unwrap() == noise(4 << 20));
}

#[tokio::test]
async fn status_needs_to_read_no_file_after_a_restoration() {
    let place = GitPlace::default();
    let repo = place.repository();
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    let dir = path(&worktree.path);
    // Else it would be too young for git to trust.
    for file in ["greeting", "sub/numbers"] {
        dated(&dir.join(file), 1_000_000_000, 0);
    }
    place.ok(&dir, &["update-index", "-q", "--refresh"]);
    place.write(&worktree.path, "new", "x\n");
    let saved = vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.unwrap();
    vcs.make(attempt(1), &worktree, &origin(&saved)).await.unwrap();
    // It looks at times and numbers alone.
    assert_eq!(place.ok(&dir, &["diff-files", "--name-only"]), "");
    assert_eq!(place.ok(&dir, &["status", "--porcelain"]), "?? new");
    assert!(vcs.status(attempt(1), &worktree).await.unwrap().dirty);
}
