//! Copying of files that git does not track: what matches, what is refused, and that nothing leads out.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use windlass_conformance::vcs_worktree::{MakeAtOnce as _, VcsWorktreePlace as _};
use windlass_core::locator::Locator;
use windlass_core::vcs_worktree::{Origin, VcsWorktreeError, VcsWorktreeExt as _, WorktreeRequest};
use windlass_core::workspace::Worktree;

use crate::comebacks::origin;
use crate::place::{GitPlace, REMOVAL, attempt, locator, path};

fn put(dir: &Path, name: impl AsRef<Path>, text: &str) {
    let file = dir.join(name.as_ref());
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

/// Makes a worktree with copies, standing in `from`.
async fn copied(
    place: &GitPlace,
    from: &Locator,
    globs: &[&str],
) -> Result<Worktree, VcsWorktreeError> {
    let vcs = place.open().await;
    let copy = globs.iter().map(|glob| (*glob).to_owned()).collect();
    let request = WorktreeRequest { copy, ..place.request(from, 1) };
    let worktree = vcs.plan(request).await?.worktree;
    vcs.make(attempt(1), &worktree, &Origin::Base).await?;
    Ok(worktree)
}

/// The names of all that is in a worktree and git does not track.
fn untracked(place: &GitPlace, worktree: &Worktree) -> Vec<String> {
    let listed = place.ok(&path(&worktree.path), &["ls-files", "--others"]);
    listed.lines().map(str::to_owned).collect()
}

#[track_caller]
fn assert_refused(result: Result<Worktree, VcsWorktreeError>, named: &str) {
    let Err(VcsWorktreeError::CannotCopy { entries }) = result else { panic!("{result:?}") };
    assert!(entries.iter().any(|entry| entry.contains(named)), "{entries:?}");
}

#[tokio::test]
async fn what_matches_is_copied_with_mode_and_times() {
    let place = GitPlace::default();
    let repo = place.repository();
    let dir = path(&repo);
    put(&dir, ".gitignore", ".env*\nlocal/\n");
    place.commit(&repo, "ignore");
    put(&dir, ".env", "SECRET=1\n");
    put(&dir, ".env.example", "SECRET=\n");
    put(&dir, "sub/.env.local", "A=2\n");
    put(&dir, "local/deep/settings", "x\n");
    put(&dir, "local/run", "#!/bin/sh\n");
    put(&dir, "untracked.txt", "seen by git\n");
    put(&dir, "greeting", "changed, and tracked\n");
    symlink("deep/settings", dir.join("local/link")).unwrap();
    fs::set_permissions(dir.join(".env"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(dir.join("local/run"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::set_permissions(dir.join("local/deep"), fs::Permissions::from_mode(0o700)).unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    for name in [".env", "local/deep"] {
        fs::File::open(dir.join(name)).unwrap().set_modified(old).unwrap();
    }
    let globs = [".env*", "!.env.example", "local/", "untracked.txt", "greeting", "nothing*"];
    let worktree = copied(&place, &repo, &globs).await.unwrap();
    let expected = [
        ".env",
        "local/deep/settings",
        "local/link",
        "local/run",
        "sub/.env.local",
        "untracked.txt",
    ];
    assert_eq!(untracked(&place, &worktree), expected);
    let at = path(&worktree.path);
    assert_eq!(fs::read_to_string(at.join("greeting")).unwrap(), "hello\n");
    assert_eq!(fs::read_to_string(at.join("local/deep/settings")).unwrap(), "x\n");
    assert_eq!(fs::read_link(at.join("local/link")).unwrap(), Path::new("deep/settings"));
    for name in [".env", "local/run", "local/deep", "local/deep/settings", "local/link"] {
        let (from, to) = (dir.join(name), at.join(name));
        let (from, to) = (from.symlink_metadata().unwrap(), to.symlink_metadata().unwrap());
        assert_eq!(from.mode(), to.mode(), "{name}");
        let times = |meta: &fs::Metadata| (meta.mtime(), meta.mtime_nsec());
        assert_eq!(times(&from), times(&to), "{name}");
        assert_ne!(from.ino(), to.ino());
    }
    assert!(dir.join(".env").exists());
}

#[tokio::test]
async fn a_copy_starts_at_the_root_of_the_checkout_that_was_stood_in() {
    let place = GitPlace::default();
    let repo = place.repository();
    let linked = place.home().join("linked");
    place
        .ok(&path(&repo), &["worktree", "add", "--quiet", "-b", "topic", linked.to_str().unwrap()]);
    put(&path(&repo), ".env", "of the main checkout\n");
    put(&linked, ".env", "of the linked one\n");
    put(&linked, "sub/x", "y\n");
    let worktree = copied(&place, &locator(&linked.join("sub")), &[".env"]).await.unwrap();
    assert_eq!(place.read(&worktree.path, ".env").as_deref(), Some("of the linked one\n"));
    assert_eq!(path(&worktree.copy.unwrap().from), linked);
}

#[tokio::test]
async fn a_bare_repository_has_nothing_to_copy() {
    let place = GitPlace::default();
    let source = place.repository();
    let bare = place.home().join("bare.git");
    place.ok(&path(&source), &["clone", "--quiet", "--bare", ".", bare.to_str().unwrap()]);
    let worktree = copied(&place, &locator(&bare), &[".env"]).await.unwrap();
    assert_eq!(worktree.copy, None);
}

#[tokio::test]
async fn globs_that_lead_out_are_refused_before_anything_is_made() {
    let place = GitPlace::default();
    let repo = place.repository();
    for glob in ["../x", "/etc/passwd", "a/../../b", "", "x\n/etc"] {
        assert_refused(copied(&place, &repo, &[".env", glob]).await, &format!("{glob:?}"));
    }
    assert_eq!(place.branches(&repo), ["main"]);
}

#[tokio::test]
async fn links_that_lead_out_and_special_files_are_refused_by_name() {
    type Make = fn(&Path);
    let cases: [(&str, Make); 7] = [
        ("an absolute link", |dir| symlink("/etc/passwd", dir.join("x")).unwrap()),
        ("a link up", |dir| symlink("../outside", dir.join("x")).unwrap()),
        ("a link through a link", |dir| {
            symlink("..", dir.join("up")).unwrap();
            symlink("up/outside", dir.join("x")).unwrap();
        }),
        ("a link that goes out and comes back", |dir| {
            let back = PathBuf::from("..").join(dir.file_name().unwrap()).join("greeting");
            symlink(back, dir.join("x")).unwrap();
        }),
        ("a socket", |dir| drop(UnixListener::bind(dir.join("x")).unwrap())),
        ("a pipe", |dir| {
            rustix::fs::mkfifoat(rustix::fs::CWD, dir.join("x"), rustix::fs::Mode::RWXU).unwrap();
        }),
        ("a repository", |dir| {
            let mut init = std::process::Command::new("git");
            assert!(init.args(["init", "-q", "x"]).current_dir(dir).status().unwrap().success());
            put(dir, "x/file", "1");
        }),
    ];
    for (name, make) in cases {
        eprintln!("{name}");
        let place = GitPlace::default();
        let repo = place.repository();
        let dir = path(&repo);
        put(&place.home(), "outside", "precious\n");
        put(&dir, ".env", "1\n");
        make(&dir);
        let refused = copied(&place, &repo, &[".env", "x"]).await;
        // Git itself lists neither sockets nor pipes: there is nothing to name.
        if name == "a socket" || name == "a pipe" {
            let worktree = refused.unwrap();
            assert_eq!(untracked(&place, &worktree), [".env"]);
            continue;
        }
        assert_refused(refused, "x");
        assert_eq!(place.branches(&repo), ["main"], "{name}");
        assert!(!dir.join(".git/worktrees").exists());
    }
}

#[tokio::test]
async fn links_that_stay_inside_or_lead_nowhere_are_copied_as_links() {
    let place = GitPlace::default();
    let repo = place.repository();
    let dir = path(&repo);
    fs::create_dir(dir.join("l")).unwrap();
    for (target, name) in [("../greeting", "l/in"), ("nothing", "l/none"), ("self", "l/self")] {
        symlink(target, dir.join(name)).unwrap();
    }
    let worktree = copied(&place, &repo, &["l"]).await.unwrap();
    assert_eq!(untracked(&place, &worktree), ["l/in", "l/none", "l/self"]);
    assert_eq!(fs::read_to_string(path(&worktree.path).join("l/in")).unwrap(), "hello\n");
}

#[tokio::test]
async fn what_is_there_stays_and_no_link_of_the_worktree_is_followed() {
    let place = GitPlace::default();
    let repo = place.repository();
    let dir = path(&repo);
    let outside = place.home().join("outside");
    fs::create_dir(&outside).unwrap();
    // What the base has, as it is there.
    symlink(&outside, dir.join("folder")).unwrap();
    put(&dir, "settings", "of the base\n");
    place.commit(&repo, "base");
    place.ok(&dir, &["rm", "--quiet", "--cached", "folder", "settings"]);
    place.ok(&dir, &["commit", "--quiet", "--message", "no longer tracked"]);
    fs::remove_file(dir.join("folder")).unwrap();
    put(&dir, "folder/escaped", "x\n");
    put(&dir, "settings", "of the checkout\n");
    let vcs = place.open().await;
    let request = WorktreeRequest {
        base: Some("HEAD~1".to_owned()),
        copy: vec!["folder".to_owned(), "settings".to_owned()],
        ..place.request(&repo, 1)
    };
    let worktree = vcs.plan(request).await.unwrap().worktree;
    vcs.make(attempt(1), &worktree, &Origin::Base).await.unwrap();
    assert_eq!(place.read(&worktree.path, "settings").as_deref(), Some("of the base\n"));
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(place.ok(&path(&worktree.path), &["status", "--porcelain", "--ignored"]), "");
}

#[tokio::test]
async fn odd_names_large_files_and_many_are_copied() {
    let place = GitPlace::default();
    let repo = place.repository();
    let dir = path(&repo).join("c");
    put(&dir, OsStr::from_bytes(b"raw \xff"), "1");
    put(&dir, "two\nlines", "2");
    put(&dir, "n".repeat(255), "3");
    put(&dir, "large", &"0123456789abcdef".repeat(200_000));
    for number in 0..300 {
        put(&dir, format!("many/{}/{number}", number % 7), "x");
    }
    let worktree = copied(&place, &repo, &["c"]).await.unwrap();
    let to = path(&worktree.path).join("c");
    assert!(crate::sources::content(&dir) == crate::sources::content(&to));
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_named() {
    let place = GitPlace::default();
    let repo = place.repository();
    put(&path(&repo), "secret", "1\n");
    let file = path(&repo).join("secret");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    let result = copied(&place, &repo, &["secret"]).await;
    if rustix::process::geteuid().is_root() {
        // Root reads it, and keeps its mode.
        let at = path(&result.unwrap().path).join("secret");
        assert_eq!(at.metadata().unwrap().mode() & 0o777, 0);
    } else {
        assert_refused(result, "secret");
    }
}

#[tokio::test]
async fn a_checkout_that_is_gone_is_said_and_leaves_nothing() {
    let place = GitPlace::default();
    let repo = place.repository();
    let linked = place.home().join("linked");
    place
        .ok(&path(&repo), &["worktree", "add", "--quiet", "-b", "topic", linked.to_str().unwrap()]);
    let vcs = place.open().await;
    let request =
        WorktreeRequest { copy: vec![".env".to_owned()], ..place.request(&locator(&linked), 1) };
    let worktree = vcs.plan(request).await.unwrap().worktree;
    fs::remove_dir_all(&linked).unwrap();
    vcs.make(attempt(1), &worktree, &Origin::Base).await.unwrap_err();
    assert!(!path(&worktree.path).exists());
    assert_eq!(place.branches(&repo), ["main", "topic"]);
}

/// A copy exists elsewhere only as long as the place that it came from is unchanged.
#[tokio::test]
async fn a_copy_whose_source_changed_or_went_is_saved() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 3] = [
        ("changed", |dir| {
            put(dir, ".env", "NEW\n");
            fs::remove_file(dir.join(".env.link")).unwrap();
            symlink("elsewhere", dir.join(".env.link")).unwrap();
        }),
        ("gone", |dir| {
            fs::remove_file(dir.join(".env")).unwrap();
            fs::remove_file(dir.join(".env.link")).unwrap();
        }),
        ("behind a link", |dir| {
            fs::rename(dir, dir.with_extension("moved")).unwrap();
            symlink(dir.with_extension("moved"), dir).unwrap();
        }),
    ];
    for (name, change) in changes {
        let place = GitPlace::default();
        let repo = place.repository();
        let linked = place.home().join("linked");
        place.ok(&path(&repo), &["worktree", "add", "--quiet", linked.to_str().unwrap()]);
        put(&linked, ".env", "OLD\n");
        symlink("nothing", linked.join(".env.link")).unwrap();
        let worktree = copied(&place, &locator(&linked), &[".env*"]).await.unwrap();
        change(&linked);
        let vcs = place.open().await;
        let saved = vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.unwrap();
        let snapshot = saved.snapshot.as_ref().unwrap_or_else(|| panic!("{name}: not saved"));
        assert_eq!(snapshot.entries, 2, "{name}");
        vcs.make(attempt(1), &worktree, &origin(&saved)).await.unwrap();
        assert_eq!(place.read(&worktree.path, ".env").as_deref(), Some("OLD\n"), "{name}");
        let link = fs::read_link(path(&worktree.path).join(".env.link")).unwrap();
        assert_eq!(link, Path::new("nothing"), "{name}");
    }
}
