//! Creation and identity: odd repositories, odd paths, several at once.

use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use windlass_conformance::vcs_worktree::{MakeAtOnce as _, VcsWorktreePlace as _};
use windlass_core::vcs_worktree::{
    DiffDetail, Origin, VcsWorktree, VcsWorktreeError, VcsWorktreeExt as _, WorktreeRequest,
};
use windlass_local::{GitOptions, GitWorktrees};

use crate::place::{GitPlace, REMOVAL, attempt, locator, path, write_program};

#[track_caller]
fn assert_mismatch<T: std::fmt::Debug>(result: &Result<T, VcsWorktreeError>, said: &str) {
    let Err(VcsWorktreeError::Mismatch { detail, .. }) = result else { panic!("{result:?}") };
    assert!(detail.contains(said), "{detail}");
}

/// What a repository shows to its user beside the objects.
pub(crate) fn outline(place: &GitPlace, common: &Path) -> String {
    let dir = common.parent().unwrap();
    let refs = place.ok(dir, &["for-each-ref"]);
    let worktrees = place.ok(dir, &["worktree", "list", "--porcelain"]);
    let mut names: Vec<_> =
        fs::read_dir(common).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.retain(|name| !matches!(name.as_bytes(), b"windlass.lock" | b"logs"));
    names.sort();
    format!("{refs}\n{worktrees}\n{names:?}")
}

#[tokio::test]
async fn odd_paths_work_from_plan_to_removal() {
    let place = GitPlace::default();
    let long = place.home().join("d".repeat(100)).join("e".repeat(120));
    let raw = place.home().join(std::ffi::OsStr::from_bytes(b"raw \xff\xfe"));
    let line = place.home().join("two\nlines");
    for (number, dir) in (1..).zip([
        long,
        raw,
        line,
        place.home().join("Größe \"x\" 'y' $z"),
        place.home().join("a:b"),
    ]) {
        let repo = place.repository_at(&dir);
        let vcs = place.open().await;
        let worktree = place.worktree(&*vcs, &repo, number).await.unwrap();
        assert_eq!(path(&worktree.repo), dir.join(".git"));
        place.write(&worktree.path, "new\nfile", "x\n");
        let diff = vcs.diff(attempt(number), &worktree, DiffDetail::Patch).await.unwrap();
        assert_eq!(diff.files.len(), 1);
        place.delete(&worktree.path, "new\nfile");
        let status = vcs.status(attempt(number), &worktree).await.unwrap();
        assert!(!status.dirty);
        vcs.save_and_remove(attempt(number), &worktree, &REMOVAL).await.unwrap();
    }
}

#[tokio::test]
async fn a_root_with_odd_names_works() {
    let place = GitPlace::default();
    let repo = place.repository();
    let root = place.home().join("Wurzel ü \"q\"").join(std::ffi::OsStr::from_bytes(b"\xff:x"));
    let vcs = GitWorktrees::open(GitOptions::new("d", root.clone(), place.env())).await.unwrap();
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    assert!(path(&worktree.path).starts_with(&root));
    place.write(&worktree.path, "x", "1\n");
    let diff = vcs.diff(attempt(1), &worktree, DiffDetail::Files).await.unwrap();
    assert_eq!(diff.files.len(), 1);
    place.delete(&worktree.path, "x");
    vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.unwrap();
}

#[tokio::test]
async fn a_bare_repository_has_worktrees() {
    let place = GitPlace::default();
    let source = place.repository();
    let bare = place.home().join("tool.git");
    place.ok(&path(&source), &["clone", "--quiet", "--bare", ".", bare.to_str().unwrap()]);
    let vcs = place.open().await;
    let planned = vcs.plan(place.request(&locator(&bare), 1)).await.unwrap();
    assert!(!planned.source_is_dirty);
    assert_eq!(planned.worktree.target.as_deref(), Some("main"));
    vcs.make(attempt(1), &planned.worktree, &Origin::Base).await.unwrap();
    place.write(&planned.worktree.path, "new", "x\n");
    assert!(vcs.status(attempt(1), &planned.worktree).await.unwrap().dirty);
    place.delete(&planned.worktree.path, "new");
    vcs.save_and_remove(attempt(1), &planned.worktree, &REMOVAL).await.unwrap();
}

#[tokio::test]
async fn a_detached_head_and_a_remote_branch_are_bases_without_target() {
    let place = GitPlace::default();
    let source = place.repository();
    let clone = place.home().join("clone");
    place.ok(&path(&source), &["clone", "--quiet", ".", clone.to_str().unwrap()]);
    let vcs = place.open().await;
    let repo = locator(&clone);
    place.ok(&clone, &["switch", "--quiet", "--detach"]);
    let planned = vcs.plan(place.request(&repo, 1)).await.unwrap().worktree;
    assert_eq!((planned.base.as_str(), planned.target), ("HEAD", None));
    let remote = WorktreeRequest { base: Some("origin/main".into()), ..place.request(&repo, 2) };
    let worktree = vcs.plan(remote).await.unwrap().worktree;
    assert_eq!(worktree.target, None);
    vcs.make(attempt(2), &worktree, &Origin::Base).await.unwrap();
    let tracked = place.git(&path(&worktree.path), &["rev-parse", "@{upstream}"]);
    assert!(!tracked.status.success(), "no upstream is configured");
}

#[tokio::test]
async fn refs_in_tables_are_left_to_git() {
    let place = GitPlace::default();
    let dir = place.home().join("tables");
    fs::create_dir(&dir).unwrap();
    if !place.git(&dir, &["init", "--quiet", "--ref-format=reftable"]).status.success() {
        eprintln!("not run: this git has no reftable");
        return;
    }
    let repo = locator(&dir);
    place.write(&repo, "a", "1\n");
    place.commit(&repo, "first");
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    let verified = vcs.verify(attempt(1), &worktree).await.unwrap();
    assert_eq!(verified.branch, Some(worktree.branch.clone()));
    place.write(&worktree.path, "a", "2\n");
    place.commit(&worktree.path, "work");
    place.write(&repo, "b", "2\n");
    place.commit(&repo, "theirs");
    let status = vcs.status(attempt(1), &worktree).await.unwrap();
    assert_eq!((status.dirty, status.ahead, status.behind), (false, 1, 1));
    place.detach(&worktree.path);
    place.write(&worktree.path, "a", "3\n");
    place.commit(&worktree.path, "lost?");
    let saved = vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.unwrap();
    assert!(saved.snapshot.unwrap().commits > 0);
    assert!(!path(&worktree.path).exists());
}

#[tokio::test]
async fn refs_that_were_packed_are_found() {
    let place = GitPlace::default();
    let repo = place.repository();
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    let before = vcs.verify(attempt(1), &worktree).await.unwrap();
    place.ok(&path(&repo), &["pack-refs", "--all"]);
    assert_eq!(vcs.verify(attempt(1), &worktree).await.unwrap(), before);
    let taken = WorktreeRequest { branch: Some("main/x".into()), ..place.request(&repo, 2) };
    let refused = vcs.plan(taken).await;
    assert!(matches!(refused, Err(VcsWorktreeError::BranchExists { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_branch_that_bears_the_prefix_is_named() {
    let place = GitPlace::default();
    let repo = place.repository();
    place.branch(&repo, "windlass");
    let vcs = place.open().await;
    let refused = vcs.plan(place.request(&repo, 1)).await;
    let Err(VcsWorktreeError::BranchExists { branch }) = refused else { panic!("{refused:?}") };
    assert_eq!(branch, "windlass");
}

#[tokio::test]
async fn names_that_are_taken_are_made_longer() {
    let place = GitPlace::default();
    let repo = place.repository();
    let vcs = place.open().await;
    let first = place.worktree(&*vcs, &repo, 1).await.unwrap();
    // Another attempt whose id ends in the same eight digits.
    let twin =
        windlass_core::id::AttemptId(uuid::Uuid::from_u128(attempt(1).0.as_u128() | 1 << 90));
    let request = WorktreeRequest { attempt: twin, ..place.request(&repo, 1) };
    let second = vcs.plan(request).await.unwrap().worktree;
    assert_ne!((&first.path, &first.branch), (&second.path, &second.branch));
    vcs.make(twin, &second, &Origin::Base).await.unwrap();
}

#[tokio::test]
async fn twenty_are_made_at_once() {
    let place = GitPlace::default();
    let repo = place.repository();
    let (ours, theirs) = (place.open().await, place.open_other().await);
    let making = (0..20).map(|number| {
        let vcs: Arc<dyn VcsWorktree> = Arc::clone(if number % 2 == 0 { &ours } else { &theirs });
        let request = place.request(&repo, number);
        tokio::spawn(async move {
            let worktree = vcs.plan(request).await?.worktree;
            vcs.make(attempt(number), &worktree, &Origin::Base).await?;
            vcs.verify(attempt(number), &worktree).await.map(|_| worktree)
        })
    });
    let mut paths = std::collections::BTreeSet::new();
    for made in futures::future::join_all(making).await {
        paths.insert(made.unwrap().unwrap().path);
    }
    assert_eq!(paths.len(), 20);
    place.ok(&path(&repo), &["fsck", "--strict"]);
    let listed = place.ok(&path(&repo), &["worktree", "list", "--porcelain"]);
    assert_eq!(listed.matches("worktree ").count(), 21);
    assert!(!listed.contains("locked") && !listed.contains("prunable"), "{listed}");
}

#[tokio::test]
async fn another_process_holding_the_lock_is_named() {
    let place = GitPlace::default();
    let repo = place.repository();
    let options = GitOptions { lock_wait: Duration::from_millis(200), ..place.options("data") };
    let vcs = GitWorktrees::open(options).await.unwrap();
    let worktree = vcs.plan(place.request(&repo, 1)).await.unwrap().worktree;
    let lock = path(&worktree.repo).join("windlass.lock");
    let script = r#"exec 9>"$0"; flock 9; echo held; read -r _"#;
    let mut other = std::process::Command::new("sh")
        .args(["-c", script])
        .arg(&lock)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 5];
    std::io::Read::read_exact(other.stdout.as_mut().unwrap(), &mut said).unwrap();
    let refused = vcs.make(attempt(1), &worktree, &Origin::Base).await;
    assert!(matches!(refused, Err(VcsWorktreeError::Busy { .. })), "{refused:?}");
    assert!(vcs.verify(attempt(1), &worktree).await.is_err());
    other.stdin.take().unwrap().write_all(b"\n").unwrap();
    other.wait().unwrap();
    vcs.make(attempt(1), &worktree, &Origin::Base).await.unwrap();
}

#[tokio::test]
async fn what_was_moved_or_replaced_by_hand_is_said() {
    let place = GitPlace::default();
    let repo = place.repository();
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    let (at, moved) = (path(&worktree.path), place.home().join("moved"));
    // Moved by hand, by git, and back.
    fs::rename(&at, &moved).unwrap();
    let gone = vcs.verify(attempt(1), &worktree).await;
    assert!(matches!(gone, Err(VcsWorktreeError::Gone { .. })), "{gone:?}");
    fs::rename(&moved, &at).unwrap();
    vcs.verify(attempt(1), &worktree).await.unwrap();
    place.ok(&path(&repo), &["worktree", "move", at.to_str().unwrap(), moved.to_str().unwrap()]);
    assert_mismatch(&vcs.make(attempt(1), &worktree, &Origin::Base).await, "moved to");
    assert_mismatch(&vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await, "moved to");
    place.ok(&path(&repo), &["worktree", "move", moved.to_str().unwrap(), at.to_str().unwrap()]);
    vcs.verify(attempt(1), &worktree).await.unwrap();
    // A link to it, a link on the way, a repository of its own, no .git, unregistered.
    fs::rename(&at, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &at).unwrap();
    assert_mismatch(&vcs.verify(attempt(1), &worktree).await, "no directory");
    fs::remove_file(&at).unwrap();
    fs::rename(&moved, &at).unwrap();
    let folder = at.parent().unwrap();
    fs::rename(folder, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, folder).unwrap();
    assert_mismatch(&vcs.verify(attempt(1), &worktree).await, "link");
    fs::remove_file(folder).unwrap();
    fs::rename(&moved, folder).unwrap();
    let link = fs::read(at.join(".git")).unwrap();
    fs::remove_file(at.join(".git")).unwrap();
    assert_mismatch(&vcs.verify(attempt(1), &worktree).await, ".git is gone");
    place.ok(&at, &["init", "--quiet"]);
    assert_mismatch(&vcs.verify(attempt(1), &worktree).await, "repository of its own");
    fs::remove_dir_all(at.join(".git")).unwrap();
    fs::write(at.join(".git"), "rubbish").unwrap();
    assert_mismatch(&vcs.verify(attempt(1), &worktree).await, "damaged");
    fs::write(at.join(".git"), &link).unwrap();
    vcs.verify(attempt(1), &worktree).await.unwrap();
    fs::rename(path(&repo), place.home().join("elsewhere")).unwrap();
    assert_mismatch(&vcs.verify(attempt(1), &worktree).await, "is gone");
    assert_mismatch(&vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await, "is gone");
    assert!(at.join("greeting").exists());
}

#[tokio::test]
async fn links_to_another_repository_are_a_mismatch() {
    let place = GitPlace::default();
    let (repo, other) = (place.repository(), place.repository());
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    let stranger = place.worktree(&*vcs, &other, 2).await.unwrap();
    fs::copy(path(&stranger.path).join(".git"), path(&worktree.path).join(".git")).unwrap();
    assert_mismatch(&vcs.verify(attempt(1), &worktree).await, "it belongs to");
    let beside = place.worktree(&*vcs, &repo, 3).await.unwrap();
    fs::copy(path(&beside.path).join(".git"), path(&worktree.path).join(".git")).unwrap();
    assert_mismatch(&vcs.verify(attempt(1), &worktree).await, "it is registered as");
}

#[tokio::test]
async fn an_unborn_head_is_said() {
    let place = GitPlace::default();
    let repo = place.repository();
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    place.ok(&path(&worktree.path), &["checkout", "--quiet", "--orphan", "fresh"]);
    assert_mismatch(&vcs.verify(attempt(1), &worktree).await, "fresh");
}

#[tokio::test]
async fn without_a_git_every_use_is_an_error_until_there_is_one() {
    let place = GitPlace::default();
    let repo = place.repository();
    let old = place.home().join("old");
    write_program(&old, "#!/bin/sh\necho git version 2.35.9\n");
    for (program, said) in [
        (PathBuf::from("no-such-git"), "not found"),
        (place.home().join("missing"), "does not run"),
        (old.clone(), "2.36"),
    ] {
        let options = GitOptions { program, ..place.options("data") };
        let vcs = GitWorktrees::open(options).await.unwrap();
        let refused = place.worktree(&*vcs, &repo, 1).await;
        let Err(VcsWorktreeError::NoGit { detail }) = refused else { panic!("{refused:?}") };
        assert!(detail.contains(said), "{detail}");
    }
    let options = GitOptions { program: old.clone(), ..place.options("data") };
    let vcs = GitWorktrees::open(options).await.unwrap();
    fs::write(&old, "#!/bin/sh\nexec git \"$@\"\n").unwrap();
    place.worktree(&*vcs, &repo, 1).await.unwrap();
}

#[tokio::test]
async fn the_users_environment_and_configuration_do_not_lead_astray() {
    let place = GitPlace::default();
    let (repo, other) = (place.repository(), place.repository());
    let mut env = place.env();
    env.push(("GIT_DIR".into(), path(&other).join(".git").into()));
    env.push(("GIT_INDEX_FILE".into(), "/nonexistent".into()));
    for (key, value) in [
        ("status.showUntrackedFiles", "no"),
        ("diff.noprefix", "true"),
        ("diff.external", "false"),
        ("color.ui", "always"),
        ("core.fsmonitor", "false; touch /nonexistent"),
        ("diff.renames", "false"),
        ("diff.orderFile", "/nonexistent"),
    ] {
        place.ok(&path(&repo), &["config", key, value]);
    }
    let options = GitOptions::new("data", place.home().join("root"), env);
    let vcs = GitWorktrees::open(options).await.unwrap();
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    assert_eq!(path(&worktree.repo), path(&repo).join(".git"));
    place.write(&worktree.path, "new", "x\n");
    assert!(vcs.status(attempt(1), &worktree).await.unwrap().dirty);
    let diff = vcs.diff(attempt(1), &worktree, DiffDetail::Patch).await.unwrap();
    let patch = String::from_utf8(diff.patch.unwrap()).unwrap();
    assert!(patch.starts_with("diff --git a/new b/new\nnew file mode 100644\n"), "{patch}");
}

/// Runs a test again in a mount namespace of its own, with a small file system at `SMALL_DISK`.
///
/// The place in there; `None` outside, where the run inside was the test. The mount ends with the namespace.
pub(crate) fn on_a_small_disk(name: &str) -> Option<PathBuf> {
    if let Some(disk) = std::env::var_os("SMALL_DISK") {
        return Some(PathBuf::from(disk));
    }
    let disk = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o size=8m small "$SMALL_DISK" || exit 77
        exec "$0" --exact "$1" --nocapture"#;
    let run = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env("SMALL_DISK", disk.path())
        .output();
    match run {
        Ok(output) if output.status.success() => {
            assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
        }
        Ok(output) if output.status.code() == Some(101) => {
            panic!("{}", String::from_utf8_lossy(&output.stderr));
        }
        other => eprintln!("not run: no mount namespace here: {other:?}"),
    }
    None
}

#[tokio::test]
async fn a_full_disk_leaves_nothing() {
    let name = "creation::a_full_disk_leaves_nothing";
    let Some(disk) = on_a_small_disk(name) else { return };
    let place = GitPlace::default();
    let repo = place.repository();
    place.write(&repo, "large", &"x".repeat(16 << 20));
    place.commit(&repo, "large");
    let vcs =
        GitWorktrees::open(GitOptions::new("d", disk.join("root"), place.env())).await.unwrap();
    let worktree = vcs.plan(place.request(&repo, 1)).await.unwrap().worktree;
    let before = outline(&place, &path(&worktree.repo));
    let refused = vcs.make(attempt(1), &worktree, &Origin::Base).await;
    assert!(matches!(refused, Err(VcsWorktreeError::Full)), "{refused:?}");
    assert_eq!(outline(&place, &path(&worktree.repo)), before);
    assert!(!path(&worktree.path).parent().unwrap().exists());
    // Not even the note of the creation can be written.
    let rest = fs::File::create(disk.join("rest")).unwrap();
    let filled = std::io::copy(&mut std::io::repeat(0), &mut &rest);
    assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    let refused = vcs.make(attempt(1), &worktree, &Origin::Base).await;
    assert!(matches!(refused, Err(VcsWorktreeError::Full)), "{refused:?}");
    assert_eq!(outline(&place, &path(&worktree.repo)), before);
    drop(rest);
    fs::remove_file(disk.join("rest")).unwrap();
    place.delete(&repo, "large");
    place.commit(&repo, "small again");
    place.worktree(&*vcs, &repo, 2).await.unwrap();
}

#[tokio::test]
async fn a_read_only_file_system_is_said() {
    let name = "creation::a_read_only_file_system_is_said";
    let Some(disk) = on_a_small_disk(name) else { return };
    let place = GitPlace::default();
    let repo = place.repository();
    let vcs =
        GitWorktrees::open(GitOptions::new("d", disk.join("root"), place.env())).await.unwrap();
    let worktree = vcs.plan(place.request(&repo, 1)).await.unwrap().worktree;
    let before = outline(&place, &path(&worktree.repo));
    let remount = ["-o", "remount,ro", disk.to_str().unwrap()];
    assert!(std::process::Command::new("mount").args(remount).status().unwrap().success());
    let refused = vcs.make(attempt(1), &worktree, &Origin::Base).await;
    let Err(VcsWorktreeError::Backend(error)) = refused else { panic!("{refused:?}") };
    let chain = format!("{:?}", error.source);
    assert!(chain.contains("ReadOnlyFilesystem"), "{chain}");
    assert_eq!(outline(&place, &path(&worktree.repo)), before);
}
