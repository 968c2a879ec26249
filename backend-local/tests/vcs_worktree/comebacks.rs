//! What is taken away comes back as it was: every odd kind of work by name.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use windlass_conformance::vcs_worktree::VcsWorktreePlace as _;
use windlass_core::locator::Locator;
use windlass_core::snapshot::Snapshot;
use windlass_core::vcs_worktree::{
    Origin, Removed, SaveRequest, Saved, Unfinished, VcsWorktreeError, VcsWorktreeExt as _,
};

use crate::place::{GitPlace, REMOVAL, attempt, locator, path};
use crate::portrait::{assert_same, portrait};

pub(crate) fn unfinished() -> SaveRequest {
    SaveRequest { unfinished: Unfinished::Save, ..REMOVAL }
}

pub(crate) fn origin(saved: &Saved) -> Origin {
    let snapshot = saved.snapshot.as_ref().map(|snapshot| snapshot.number);
    Origin::Removed(Removed { head: saved.head.clone(), branch: saved.branch.clone(), snapshot })
}

pub(crate) fn archive(snapshot: &Snapshot) -> PathBuf {
    path(&snapshot.archive)
}
/// Does work in a worktree, takes it away and brings it back: it must be as it was.
async fn comes_back(
    request: &SaveRequest,
    work: impl FnOnce(&GitPlace, &Path),
) -> Option<Snapshot> {
    let place = GitPlace::default();
    let repo = place.repository();
    comes_back_from(&place, &repo, request, work).await
}

async fn comes_back_from(
    place: &GitPlace,
    repo: &Locator,
    request: &SaveRequest,
    work: impl FnOnce(&GitPlace, &Path),
) -> Option<Snapshot> {
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, repo, 1).await.unwrap();
    let dir = path(&worktree.path);
    work(place, &dir);
    let before = portrait(place, &worktree);
    let saved = vcs.save_and_remove(attempt(1), &worktree, request).await.unwrap();
    assert!(!dir.exists());
    let vcs = place.open().await;
    place.make(&*vcs, attempt(1), &worktree, &origin(&saved)).await.unwrap();
    assert_same(&portrait(place, &worktree), &before);
    place.ok(&dir, &["fsck", "--no-dangling", "--connectivity-only"]);
    // What came back can be taken away again.
    let again = SaveRequest { number: request.number.next(), ..request.clone() };
    let saved_again = vcs.save_and_remove(attempt(1), &worktree, &again).await.unwrap();
    assert_eq!(saved_again.snapshot.is_some(), saved.snapshot.is_some());
    place.make(&*vcs, attempt(1), &worktree, &origin(&saved_again)).await.unwrap();
    assert_same(&portrait(place, &worktree), &before);
    saved.snapshot
}

/// Gives a file or directory a time of its own.
pub(crate) fn dated(path: &Path, seconds: i64, nanos: u32) {
    let age = Duration::new(seconds.unsigned_abs(), 0);
    let base =
        if seconds < 0 { SystemTime::UNIX_EPOCH - age } else { SystemTime::UNIX_EPOCH + age };
    let time = base + Duration::from_nanos(nanos.into());
    File::open(path).unwrap().set_modified(time).unwrap();
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Fails for a reason that is expected, such as a conflict.
pub(crate) fn fails(place: &GitPlace, dir: &Path, args: &[&str]) {
    assert!(!place.git(dir, args).status.success(), "{args:?}");
}

/// Two branches that cannot be merged: `theirs`, and the one that is checked out.
pub(crate) fn diverge(place: &GitPlace, dir: &Path) {
    place.ok(dir, &["branch", "theirs"]);
    fs::write(dir.join("greeting"), "ours\n").unwrap();
    fs::write(dir.join("more"), "ours\n").unwrap();
    place.commit(&locator(dir), "ours");
    let branch = place.ok(dir, &["branch", "--show-current"]);
    place.ok(dir, &["switch", "--quiet", "theirs"]);
    for text in ["theirs\n", "theirs again\n"] {
        fs::write(dir.join("greeting"), text).unwrap();
        fs::write(dir.join("other"), text).unwrap();
        place.commit(&locator(dir), text.trim());
    }
    place.ok(dir, &["switch", "--quiet", &branch]);
    fs::write(dir.join("untracked"), "x").unwrap();
}

macro_rules! comes_back {
    ($($(#[$doc:meta])* $name:ident($place:ident, $dir:ident) $work:block)+) => {$(
        $(#[$doc])*
        #[tokio::test]
        async fn $name() {
            let work = |$place: &GitPlace, $dir: &Path| {
                // Not every case needs both.
                let (_, _) = ($place, $dir);
                $work
            };
            let snapshot = comes_back(&unfinished(), work).await;
            assert!(snapshot.is_some());
        }
    )+};
}

comes_back! {
    changed_bytes_come_back(place, dir) {
        fs::write(dir.join("greeting"), b"\xff\r\n\0").unwrap();
        dated(&dir.join("greeting"), -86_401, 123_456_789);
    }

    permissions_and_times_come_back(place, dir) {
        mode(&dir.join("greeting"), 0o4751);
        fs::write(dir.join("secret"), "x").unwrap();
        mode(&dir.join("secret"), 0o000);
        fs::create_dir(dir.join("shut")).unwrap();
        fs::write(dir.join("shut/file"), "x").unwrap();
        dated(&dir.join("shut/file"), 5_000_000_000, 1);
        mode(&dir.join("shut"), 0o1511);
        dated(&dir.join("sub"), 1, 999_999_999);
        mode(dir, 0o750);
        dated(dir, 1_000_000_000, 5);
    }

    empty_directories_and_files_come_back(place, dir) {
        fs::create_dir_all(dir.join("a/b/c")).unwrap();
        fs::create_dir_all(dir.join("a/d")).unwrap();
        fs::write(dir.join("empty"), "").unwrap();
        dated(&dir.join("a/b/c"), 7, 7);
    }

    one_empty_directory_comes_back(place, dir) {
        fs::create_dir(dir.join("empty")).unwrap();
    }

    links_come_back(place, dir) {
        for (name, target) in [
            ("dangling", "no/where"),
            ("loop", "loop"),
            ("out", "/etc/passwd"),
            ("up", "../../.."),
            ("odd", ".//greeting/../x//"),
            ("inside", "sub"),
        ] {
            symlink(target, dir.join(name)).unwrap();
        }
        symlink("t".repeat(3000), dir.join("far")).unwrap();
        symlink(OsStr::from_bytes(b"\xff\n\""), dir.join("raw")).unwrap();
    }

    kinds_that_changed_come_back(place, dir) {
        fs::remove_file(dir.join("greeting")).unwrap();
        fs::create_dir(dir.join("greeting")).unwrap();
        fs::write(dir.join("greeting/inside"), "x").unwrap();
        fs::remove_dir_all(dir.join("sub")).unwrap();
        symlink("greeting", dir.join("sub")).unwrap();
    }

    a_directory_that_became_a_file_comes_back(place, dir) {
        fs::remove_dir_all(dir.join("sub")).unwrap();
        fs::write(dir.join("sub"), "x").unwrap();
    }

    deletions_come_back(place, dir) {
        fs::remove_dir_all(dir.join("sub")).unwrap();
    }

    everything_deleted_comes_back(place, dir) {
        fs::remove_dir_all(dir.join("sub")).unwrap();
        fs::remove_file(dir.join("greeting")).unwrap();
    }

    odd_names_come_back(place, dir) {
        for name in [
            b"raw \xff\xfe".as_slice(),
            b"two\nlines",
            b"-rf",
            b" ",
            b"*",
            b"\\ \"'$x",
            b"...",
            b"tab\there",
            "Größe".as_bytes(),
            "gro\u{308}\u{df}e".as_bytes(),
            b"Case",
            b"case",
            b"con:aux",
        ] {
            let name = OsStr::from_bytes(name);
            fs::write(dir.join(name), name.as_bytes()).unwrap();
            fs::create_dir(dir.join("sub").join(name)).unwrap();
            fs::write(dir.join("sub").join(name).join("x"), "x").unwrap();
        }
        let mut deep = dir.join("n".repeat(255));
        fs::write(dir.join("m".repeat(255)), "x").unwrap();
        for _ in 0..8 {
            fs::create_dir(&deep).unwrap();
            deep.push("d".repeat(255));
        }
        fs::write(deep, "deep").unwrap();
    }

    staged_work_comes_back(place, dir) {
        fs::write(dir.join("greeting"), "staged\n").unwrap();
        fs::write(dir.join("new"), "staged\n").unwrap();
        fs::write(dir.join("gone"), "staged\n").unwrap();
        place.ok(dir, &["add", "greeting", "new", "gone"]);
        place.ok(dir, &["mv", "sub/numbers", "sub/renamed"]);
        fs::write(dir.join("greeting"), "later\n").unwrap();
        fs::remove_file(dir.join("gone")).unwrap();
    }

    what_is_only_staged_comes_back(place, dir) {
        fs::write(dir.join("greeting"), "staged\n").unwrap();
        place.ok(dir, &["add", "greeting"]);
        fs::write(dir.join("greeting"), "hello\n").unwrap();
    }

    flags_of_the_index_come_back(place, dir) {
        fs::write(dir.join("intended"), "x\n").unwrap();
        place.ok(dir, &["add", "--intent-to-add", "intended"]);
        place.ok(dir, &["update-index", "--assume-unchanged", "greeting"]);
        place.ok(dir, &["update-index", "--skip-worktree", "sub/numbers"]);
        fs::write(dir.join("greeting"), "hidden\n").unwrap();
        fs::write(dir.join("sub/numbers"), "hidden\n").unwrap();
    }

    every_version_of_the_index_comes_back(place, dir) {
        place.ok(dir, &["update-index", "--index-version", "4"]);
        fs::write(dir.join("greeting"), "changed\n").unwrap();
    }

    a_split_index_comes_back(place, dir) {
        place.ok(dir, &["update-index", "--split-index"]);
        fs::write(dir.join("new"), "x\n").unwrap();
        place.ok(dir, &["add", "new"]);
        fs::write(dir.join("greeting"), "changed\n").unwrap();
    }

    a_merge_comes_back(place, dir) {
        diverge(place, dir);
        fails(place, dir, &["merge", "--quiet", "theirs"]);
        fs::write(dir.join("greeting"), "half solved\n").unwrap();
    }

    a_settled_merge_comes_back(place, dir) {
        diverge(place, dir);
        fails(place, dir, &["-c", "rerere.enabled=true", "merge", "--quiet", "theirs"]);
        fs::write(dir.join("greeting"), "solved\n").unwrap();
        place.ok(dir, &["add", "greeting"]);
    }

    a_rebase_comes_back(place, dir) {
        diverge(place, dir);
        fs::write(dir.join("sub/numbers"), "stashed\n").unwrap();
        fails(place, dir, &["rebase", "--quiet", "--autostash", "theirs"]);
    }

    an_applying_rebase_comes_back(place, dir) {
        diverge(place, dir);
        fails(place, dir, &["rebase", "--quiet", "--apply", "theirs"]);
    }

    a_cherry_pick_comes_back(place, dir) {
        diverge(place, dir);
        fails(place, dir, &["cherry-pick", "HEAD..theirs"]);
    }

    a_revert_comes_back(place, dir) {
        diverge(place, dir);
        fs::remove_file(dir.join("untracked")).unwrap();
        fs::write(dir.join("greeting"), "later\n").unwrap();
        place.commit(&locator(dir), "later");
        fails(place, dir, &["revert", "--no-edit", "HEAD~1"]);
    }

    a_bisection_comes_back(place, dir) {
        for number in 0..4 {
            fs::write(dir.join("greeting"), format!("{number}\n")).unwrap();
            place.commit(&locator(dir), &number.to_string());
        }
        place.ok(dir, &["bisect", "start", "HEAD", "HEAD~3"]);
    }

    commits_that_no_branch_reaches_come_back(place, dir) {
        place.ok(dir, &["switch", "--quiet", "--detach"]);
        fs::write(dir.join("greeting"), "lost?\n").unwrap();
        place.commit(&locator(dir), "lost?");
        fs::write(dir.join("new"), "amended\n").unwrap();
        place.ok(dir, &["add", "new"]);
        place.ok(dir, &["commit", "--quiet", "--amend", "-m", "amended"]);
    }

    commits_that_only_the_log_reaches_come_back(place, dir) {
        fs::write(dir.join("greeting"), "thrown away\n").unwrap();
        place.commit(&locator(dir), "thrown away");
        place.ok(dir, &["reset", "--quiet", "--hard", "HEAD~1"]);
    }

    refs_of_the_worktree_come_back(place, dir) {
        fs::write(dir.join("greeting"), "kept\n").unwrap();
        place.commit(&locator(dir), "kept");
        place.ok(dir, &["update-ref", "refs/worktree/kept", "HEAD"]);
        place.ok(dir, &["reset", "--quiet", "--hard", "HEAD~1"]);
    }

    nested_repositories_come_back(place, dir) {
        for name in ["with", "without", "ignored/in"] {
            let nested = dir.join(name);
            fs::create_dir_all(&nested).unwrap();
            place.ok(&nested, &["init", "--quiet"]);
            fs::write(nested.join("file"), "x\n").unwrap();
        }
        fs::write(dir.join(".gitignore"), "ignored\n").unwrap();
        place.commit(&locator(&dir.join("with")), "inside");
        fs::write(dir.join("with/dirty"), "x\n").unwrap();
        fs::create_dir(dir.join("with/empty")).unwrap();
    }

    hard_links_come_back(place, dir) {
        fs::hard_link(dir.join("greeting"), dir.join("again")).unwrap();
        fs::write(dir.join("one"), "x").unwrap();
        fs::hard_link(dir.join("one"), dir.join("a-two")).unwrap();
        fs::hard_link(dir.join("one"), dir.join("sub/three")).unwrap();
        symlink("x", dir.join("l1")).unwrap();
    }

    long_files_come_back(place, dir) {
        let mut file = File::create(dir.join("long")).unwrap();
        for number in 0..600_000_u32 {
            file.write_all(&number.wrapping_mul(2_654_435_761).to_le_bytes()).unwrap();
        }
    }

    holes_come_back(place, dir) {
        for (name, size, data) in [
            ("e\nd", 3_u64 << 40, vec![5_u64]),
            ("begin", 1 << 30, vec![(1 << 30) - 4]),
            ("middle", 9 << 30, vec![0, 5 << 30, 6 << 30]),
            ("nothing", 2 << 30, vec![]),
            (&*"long".repeat(50), 2 << 30, vec![7]),
        ] {
            let mut file = File::create(dir.join(OsStr::from_bytes(name.as_bytes()))).unwrap();
            file.set_len(size).unwrap();
            for at in data {
                file.seek(SeekFrom::Start(at)).unwrap();
                file.write_all(b"data").unwrap();
            }
        }
    }

    a_file_that_looks_like_a_map_comes_back(place, dir) {
        fs::create_dir(dir.join("GNUSparseFile.0")).unwrap();
        fs::write(dir.join("GNUSparseFile.0/x"), "1\n0\n5\n").unwrap();
        fs::write(dir.join("manifest.json"), "{}").unwrap();
        fs::write(dir.join("listing"), "x").unwrap();
    }

    a_worktree_of_its_own_inside_comes_back(place, dir) {
        place.ok(dir, &["worktree", "add", "--quiet", "--detach", "inner"]);
        fs::write(dir.join("inner/new"), "x").unwrap();
    }
}

#[tokio::test]
async fn filtered_and_converted_bytes_come_back() {
    let place = GitPlace::default();
    let repo = place.repository();
    let source = path(&repo);
    fs::write(source.join(".gitattributes"), "*.dos text eol=crlf\n*.up filter=up\n$id ident\n")
        .unwrap();
    place.ok(&source, &["config", "filter.up.smudge", "tr a-z A-Z"]);
    place.ok(&source, &["config", "filter.up.clean", "tr A-Z a-z"]);
    fs::write(source.join("a.dos"), "a\r\nb\r\n").unwrap();
    fs::write(source.join("b.dos"), "a\r\nb\r\n").unwrap();
    fs::write(source.join("a.up"), "LOUD\n").unwrap();
    fs::write(source.join("b.up"), "LOUD\n").unwrap();
    place.commit(&repo, "filters");
    let snapshot = comes_back_from(&place, &repo, &REMOVAL, |_, dir| {
        // Git takes all of these for unchanged.
        fs::write(dir.join("a.dos"), "a\nb\r\n").unwrap();
        fs::write(dir.join("a.up"), "Loud\n").unwrap();
    })
    .await
    .unwrap();
    assert_eq!(snapshot.entries, 2);
}

#[tokio::test]
async fn submodules_come_back_with_their_work() {
    let place = GitPlace::default();
    let module = place.repository();
    let repo = place.repository();
    let source = path(&repo);
    let from = path(&module).into_os_string().into_string().unwrap();
    place.ok(&source, &["submodule", "--quiet", "add", &from, "module"]);
    place.commit(&repo, "module");
    let snapshot = comes_back_from(&place, &repo, &unfinished(), |place, dir| {
        place.ok(dir, &["submodule", "--quiet", "update", "--init"]);
        let module = dir.join("module");
        fs::write(module.join("greeting"), "changed\n").unwrap();
        place.commit(&locator(&module), "inside");
        fs::write(module.join("untracked"), "x\n").unwrap();
    })
    .await
    .unwrap();
    assert!(snapshot.entries > 2);
}

#[tokio::test]
async fn a_sparse_checkout_comes_back() {
    let place = GitPlace::default();
    let repo = place.repository();
    comes_back_from(&place, &repo, &REMOVAL, |place, dir| {
        place.ok(dir, &["sparse-checkout", "set", "--no-cone", "/greeting"]);
        fs::write(dir.join("greeting"), "changed\n").unwrap();
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn other_formats_of_repositories_come_back() {
    for format in ["--object-format=sha256", "--ref-format=reftable"] {
        let place = GitPlace::default();
        let dir = place.home().join("repository");
        fs::create_dir(&dir).unwrap();
        if !place.git(&dir, &["init", "--quiet", format]).status.success() {
            eprintln!("not run: this git does not know {format}");
            continue;
        }
        let repo = place.repository_at(&dir);
        comes_back_from(&place, &repo, &unfinished(), |place, dir| {
            diverge(place, dir);
            fs::write(dir.join("staged"), "x\n").unwrap();
            place.ok(dir, &["add", "staged"]);
            place.ok(dir, &["commit", "--quiet", "-m", "gone"]);
            place.ok(dir, &["reset", "--quiet", "--hard", "HEAD~1"]);
            fails(place, dir, &["merge", "--quiet", "theirs"]);
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn shallow_and_partial_clones_fetch_nothing() {
    for depth in ["--depth=1", "--filter=blob:none"] {
        let place = GitPlace::default();
        let source = place.repository();
        place.ok(&path(&source), &["config", "uploadpack.allowFilter", "true"]);
        place.write(&source, "greeting", "later\n");
        place.commit(&source, "second");
        let clone = place.home().join("clone");
        let from = format!("file://{}", path(&source).display());
        place.ok(&place.home(), &["clone", "--quiet", depth, &from, clone.to_str().unwrap()]);
        let repo = locator(&clone);
        let moved = place.home().join("offline");
        comes_back_from(&place, &repo, &REMOVAL, |place, dir| {
            fs::write(dir.join("greeting"), "changed\n").unwrap();
            place.ok(dir, &["switch", "--quiet", "--detach"]);
            place.commit(&locator(dir), "lost?");
            fs::write(dir.join("new"), "x\n").unwrap();
            place.ok(dir, &["add", "new"]);
            fs::rename(path(&source), moved).unwrap();
        })
        .await
        .unwrap();
    }
}

/// What a checkout gives depends on settings: a snapshot is not damaged because they have changed.
#[tokio::test]
async fn changed_line_ends_are_told_and_not_taken_for_damage() {
    let place = GitPlace::default();
    let repo = place.repository();
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    place.write(&worktree.path, "new", "work\n");
    let before = portrait(&place, &worktree);
    let saved = vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.unwrap();
    place.ok(&path(&repo), &["config", "core.autocrlf", "true"]);
    let refused = place.make(&*vcs, attempt(1), &worktree, &origin(&saved)).await;
    let Err(VcsWorktreeError::Mismatch { detail, .. }) = refused else { panic!("{refused:?}") };
    assert!(detail.contains("core.autocrlf") && detail.contains("greeting"), "{detail}");
    assert!(!path(&worktree.path).exists());
    place.ok(&path(&repo), &["config", "--unset", "core.autocrlf"]);
    place.make(&*vcs, attempt(1), &worktree, &origin(&saved)).await.unwrap();
    assert_same(&portrait(&place, &worktree), &before);
}
