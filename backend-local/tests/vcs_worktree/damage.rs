//! Restoration: what is damaged or hostile makes nothing, plain tools get work back, a crash is gone on from.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use windlass_conformance::vcs_worktree::{MakeAtOnce as _, VcsWorktreePlace as _};
use windlass_core::vcs_worktree::{SaveRequest, Saved, VcsWorktreeError, VcsWorktreeExt as _};
use windlass_core::workspace::Worktree;

use crate::comebacks::{archive, origin};
use crate::place::{GitPlace, REMOVAL, attempt, path};
use crate::portrait::{assert_same, portrait};
use crate::removal::created;

/// A worktree that was taken away, and how to ask for it.
async fn taken(place: &GitPlace) -> (Worktree, Saved, PathBuf) {
    let repo = place.repository();
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    let dir = path(&worktree.path);
    place.write(&worktree.path, "greeting", "thrown away\n");
    place.commit(&worktree.path, "thrown away");
    place.ok(&dir, &["reset", "--quiet", "--hard", "HEAD~1"]);
    for (file, text) in [("staged", "first\n"), ("new", "some text\n")] {
        place.write(&worktree.path, file, text);
        place.ok(&dir, &["add", file]);
    }
    place.write(&worktree.path, "staged", "second\n");
    place.delete(&worktree.path, "sub/numbers");
    symlink("new", dir.join("link")).unwrap();
    let saved = vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.unwrap();
    let file = archive(saved.snapshot.as_ref().unwrap());
    (worktree, saved, file)
}

/// Repacks an archive with plain tools after `change` worked on its parts.
fn repack(place: &GitPlace, file: &Path, change: impl FnOnce(&Path)) {
    let parts = place.home().join("parts");
    fs::create_dir(&parts).unwrap();
    let run = |program: &str, args: &[&OsStr]| {
        assert!(Command::new(program).args(args).status().unwrap().success(), "{args:?}");
    };
    let os = OsStr::new;
    run("tar", &[os("--zstd"), os("-xf"), file.as_os_str(), os("-C"), parts.as_os_str()]);
    change(&parts);
    let mut names: Vec<_> =
        fs::read_dir(&parts).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort_by_key(|name| (name == "manifest.json", name.clone()));
    let mut args = vec![os("--zstd"), os("-cf"), file.as_os_str(), os("-C"), parts.as_os_str()];
    args.extend(names.iter().map(std::ffi::OsString::as_os_str));
    run("tar", &args);
    fs::remove_dir_all(parts).unwrap();
}

/// What is done to the unpacked members of a snapshot.
type Damage = Box<dyn FnOnce(&Path)>;

/// Every kind of damage, with its name.
fn damages() -> Vec<(String, Damage)> {
    let members = [
        "files/new",
        "files/staged",
        "git/index",
        "git/ORIG_HEAD",
        "git/logs/HEAD",
        "commits.bundle",
        "objects.pack",
        "deleted",
        "listing",
        "manifest.json",
    ];
    let mut damages: Vec<(String, Damage)> = Vec::new();
    for member in members {
        damages.push((
            format!("{member} changed"),
            Box::new(move |parts| {
                let mut bytes = fs::read(parts.join(member)).unwrap();
                match bytes.iter_mut().rev().find(|byte| byte.is_ascii_alphanumeric()) {
                    Some(byte) => *byte ^= 1,
                    None => bytes.push(b'x'),
                }
                fs::write(parts.join(member), bytes).unwrap();
            }),
        ));
        damages.push((
            format!("{member} missing"),
            Box::new(move |parts| {
                fs::remove_file(parts.join(member)).unwrap();
            }),
        ));
    }
    damages.push((
        "a stranger".into(),
        Box::new(|parts| fs::write(parts.join("files/x"), "x").unwrap()),
    ));
    damages.push((
        "another link".into(),
        Box::new(|parts| {
            fs::remove_file(parts.join("files/link")).unwrap();
            symlink("/etc/passwd", parts.join("files/link")).unwrap();
        }),
    ));
    damages.push((
        "a newer version".into(),
        Box::new(|parts| {
            let text = fs::read_to_string(parts.join("manifest.json")).unwrap();
            fs::write(
                parts.join("manifest.json"),
                text.replace("\"version\": 1", "\"version\": 2"),
            )
            .unwrap();
        }),
    ));
    damages
}

#[tokio::test]
async fn every_damage_is_told_and_nothing_is_made() {
    let place = GitPlace::default();
    let (worktree, saved, file) = taken(&place).await;
    let whole = fs::read(&file).unwrap();
    let repo = path(&worktree.repo);
    let refs = place.ok(&repo, &["for-each-ref"]);
    let vcs = place.open().await;
    let nothing_is_made = async |what: &str| {
        let refused = vcs.make(attempt(1), &worktree, &origin(&saved)).await;
        let Err(VcsWorktreeError::DamagedSnapshot { number, detail }) = refused else {
            panic!("{what}: {refused:?}")
        };
        assert_eq!(number, saved.snapshot.as_ref().unwrap().number);
        assert!(!path(&worktree.path).exists(), "{what}: {detail}");
        assert_eq!(place.ok(&repo, &["for-each-ref"]), refs, "{what}");
        assert!(!repo.join("worktrees").exists(), "{what}");
        detail
    };
    for (what, damage) in damages() {
        repack(&place, &file, damage);
        let detail = nothing_is_made(&what).await;
        assert_eq!(detail.contains("version 2"), what == "a newer version", "{what}: {detail}");
        fs::write(&file, &whole).unwrap();
    }
    for length in [0, 1, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&file, &whole[..length]).unwrap();
        nothing_is_made(&format!("cut at {length}")).await;
    }
    fs::write(&file, &whole).unwrap();
    vcs.make(attempt(1), &worktree, &origin(&saved)).await.unwrap();
}

/// Changes the listing and everything that vouches for it.
fn forge(parts: &Path, change: impl FnOnce(String) -> String) {
    use sha2::Digest as _;
    let listing = fs::read_to_string(parts.join("listing")).unwrap();
    let sum = |text: &str| -> String {
        sha2::Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let forged = change(listing.clone());
    fs::write(parts.join("listing"), &forged).unwrap();
    let manifest = fs::read_to_string(parts.join("manifest.json")).unwrap();
    let manifest = manifest.replace(&sum(&listing), &sum(&forged)).replace(
        &format!("\"bytes\": {},\n      \"sha256\": \"{}\"", listing.len(), sum(&forged)),
        &format!("\"bytes\": {},\n      \"sha256\": \"{}\"", forged.len(), sum(&forged)),
    );
    fs::write(parts.join("manifest.json"), manifest).unwrap();
}

#[tokio::test]
async fn a_hostile_archive_writes_nothing_outside() {
    let place = GitPlace::default();
    let (worktree, saved, file) = taken(&place).await;
    let whole = fs::read(&file).unwrap();
    let outside = place.home().join("outside");
    fs::create_dir(&outside).unwrap();
    let link =
        format!("work link 0777 0.000000000 1 archive - \"evil\" \"{}\"\n", outside.display());
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let file_line =
        |side: &str, name: &str| format!("{side} file 0644 0.000000000 0 {empty} - \"{name}\"\n");
    let forgeries: Vec<(String, &str, Option<&str>)> = vec![
        (file_line("work", "../escaped"), "escaped", None),
        (file_line("git", "gitdir"), "git/gitdir", None),
        (file_line("git", "commondir"), "git/commondir", None),
        (file_line("git", "windlass-worktree"), "git/windlass-worktree", None),
        (file_line("work", ".git"), "files/.git", None),
        (format!("{link}{}", file_line("work", "evil/x")), "files/evil/x", None),
        (format!("{link}work dir 0755 0.000000000 0 - - \"evil/d\"\n"), "none", None),
        (
            format!("git link 0777 0.000000000 1 archive - \"ORIG\" \"{}\"\n", outside.display()),
            "git/ORIG",
            Some("link"),
        ),
        ("work hard 0644 0.000000000 0 - - \"h\" \"../../x\"\n".to_owned(), "none", None),
    ];
    let vcs = place.open().await;
    for (lines, member, kind) in forgeries {
        repack(&place, &file, |parts| {
            forge(parts, |listing| format!("{listing}{lines}"));
            let at = parts.join(member);
            match kind {
                Some(_) => symlink(&outside, at).unwrap(),
                None if member != "none" => {
                    fs::create_dir_all(at.parent().unwrap()).unwrap();
                    fs::write(at, "").unwrap();
                }
                None => {}
            }
        });
        let refused = vcs.make(attempt(1), &worktree, &origin(&saved)).await;
        assert!(
            matches!(refused, Err(VcsWorktreeError::DamagedSnapshot { .. })),
            "{lines}: {refused:?}"
        );
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{lines}");
        assert!(!path(&worktree.path).exists());
        fs::write(&file, &whole).unwrap();
    }
    vcs.make(attempt(1), &worktree, &origin(&saved)).await.unwrap();
}

#[tokio::test]
async fn work_is_got_back_with_plain_tools() {
    let place = GitPlace::default();
    let (worktree, _, file) = taken(&place).await;
    let repo = path(&worktree.repo);
    place.ok(&repo, &["reflog", "expire", "--expire=now", "--all"]);
    place.ok(&repo, &["gc", "--quiet", "--prune=now"]);
    let parts = place.home().join("parts");
    fs::create_dir(&parts).unwrap();
    let tar = ["--zstd", "-C", parts.to_str().unwrap(), "-xpf"];
    assert!(Command::new("tar").args(tar).arg(&file).status().unwrap().success());
    assert_eq!(fs::read(parts.join("files/staged")).unwrap(), b"second\n");
    assert_eq!(fs::read_link(parts.join("files/link")).unwrap(), Path::new("new"));
    assert_eq!(fs::read_to_string(parts.join("deleted")).unwrap(), "\"sub/numbers\"\n");
    let bundle = parts.join("commits.bundle").into_os_string().into_string().unwrap();
    place.ok(&repo, &["bundle", "verify", "--quiet", &bundle]);
    place.ok(&repo, &["fetch", "--quiet", &bundle, "refs/*:refs/restored/*"]);
    let log = place.ok(&repo, &["log", "--format=%s", "refs/restored/windlass/lost/1"]);
    assert_eq!(log, "thrown away\nfirst");
    let pack = File::open(parts.join("objects.pack")).unwrap();
    let indexed = Command::new("git")
        .args(["index-pack", "--stdin"])
        .current_dir(&repo)
        .envs(place.env())
        .stdin(pack)
        .output()
        .unwrap();
    assert!(indexed.status.success(), "{indexed:?}");
    let staged = Command::new("git")
        .args(["cat-file", "blob", ":staged"])
        .current_dir(&repo)
        .envs(place.env())
        .env("GIT_INDEX_FILE", parts.join("git/index"))
        .output()
        .unwrap();
    assert_eq!(staged.stdout, b"first\n");
}

#[tokio::test]
async fn holes_are_unpacked_by_plain_tar() {
    let place = GitPlace::default();
    let repo = place.repository();
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    let mut sparse = File::create(path(&worktree.path).join("holes")).unwrap();
    sparse.set_len(1 << 30).unwrap();
    sparse.seek(SeekFrom::Start(1 << 29)).unwrap();
    sparse.write_all(b"middle").unwrap();
    let saved = vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.unwrap();
    let snapshot = saved.snapshot.unwrap();
    assert!(snapshot.archive_bytes < 64 << 10);
    let tar = Command::new("tar")
        .args(["--zstd", "-C"])
        .arg(place.home())
        .arg("-xf")
        .arg(archive(&snapshot))
        .status();
    assert!(tar.unwrap().success());
    let file = File::open(place.home().join("files/holes")).unwrap();
    let mut read = [0; 6];
    file.read_exact_at(&mut read, 1 << 29).unwrap();
    assert_eq!((&read, file.metadata().unwrap().len()), (b"middle", 1 << 30));
}

#[tokio::test]
async fn a_half_made_restoration_is_undone_and_done_again() {
    let place = GitPlace::default();
    let (worktree, saved, _) = taken(&place).await;
    let dir = path(&worktree.path);
    let vcs = place.open().await;
    vcs.make(attempt(1), &worktree, &origin(&saved)).await.unwrap();
    let before = portrait(&place, &worktree);
    let again = SaveRequest { number: REMOVAL.number.next(), ..REMOVAL };
    let saved = vcs.save_and_remove(attempt(1), &worktree, &again).await.unwrap();
    // A crash within: the note is there, a checkout on its branch, some of the files.
    let repo = path(&worktree.repo);
    place.ok(&repo, &["worktree", "add", "--quiet", dir.to_str().unwrap(), &worktree.branch]);
    fs::write(dir.join("new"), "some").unwrap();
    let note =
        dir.with_file_name(format!(".{}.creating", dir.file_name().unwrap().to_str().unwrap()));
    let marker = format!(
        "windlass-worktree 1\ndata_directory=data\nattempt={}\nbranch={}\noid={}\nstart=existing\nfiles=snapshot\n",
        attempt(1),
        worktree.branch,
        saved.head
    );
    fs::write(&note, marker).unwrap();
    let vcs = place.open().await;
    let verified = vcs.make(attempt(1), &worktree, &origin(&saved)).await.unwrap();
    assert_eq!(verified.branch, Some(worktree.branch.clone()));
    assert_same(&portrait(&place, &worktree), &before);
    assert!(!note.exists());
}

/// Takes an object out of a repository, as a failing disk does.
fn lose(place: &GitPlace, repo: &Path, name: &str) {
    let oid = place.ok(repo, &["rev-parse", name]);
    fs::remove_file(repo.join("objects").join(&oid[..2]).join(&oid[2..])).unwrap();
}

#[tokio::test]
async fn a_file_that_the_repository_has_lost_is_saved() {
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    let (repo, head) = (path(&worktree.repo), &worktree.base_oid);
    lose(&place, &repo, &format!("{head}:greeting"));
    let saved = vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.unwrap();
    let snapshot = saved.snapshot.unwrap();
    assert_eq!(snapshot.entries, 1);
    // The archive has it, whatever git can make of the commit.
    let parts = place.home().join("parts");
    fs::create_dir(&parts).unwrap();
    let tar = ["--zstd", "-C", parts.to_str().unwrap(), "-xf"];
    assert!(Command::new("tar").args(tar).arg(archive(&snapshot)).status().unwrap().success());
    assert_eq!(fs::read_to_string(parts.join("files/greeting")).unwrap(), "hello\n");
}

#[tokio::test]
async fn a_directory_that_the_repository_has_lost_refuses_the_removal() {
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    let (repo, head) = (path(&worktree.repo), &worktree.base_oid);
    lose(&place, &repo, &format!("{head}:sub"));
    let refused = vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await;
    let Err(VcsWorktreeError::Unsavable { entries, .. }) = &refused else { panic!("{refused:?}") };
    assert!(entries[0].starts_with("sub ("), "{entries:?}");
    assert!(path(&worktree.path).join("sub/numbers").exists());
    // As it says: the worktree still knows what was in it.
    let told = entries[0].rsplit_once(": ").unwrap().1.strip_suffix(')').unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", told]).current_dir(path(&worktree.path)).envs(place.env());
    assert!(shell.status().unwrap().success(), "{told}");
    vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.unwrap();
}

#[tokio::test]
async fn a_broken_ref_keeps_nobody_from_saving() {
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    let heads = path(&worktree.repo).join("refs/heads");
    fs::write(heads.join("broken"), "garbage\n").unwrap();
    fs::write(heads.join("gone"), format!("{}\n", "12".repeat(20))).unwrap();
    place.write(&worktree.path, "greeting", "changed\n");
    place.ok(&path(&worktree.path), &["checkout", "--quiet", "--detach"]);
    place.ok(&path(&worktree.path), &["commit", "--quiet", "--allow-empty", "-m", "mine"]);
    let saved = vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.unwrap();
    assert_eq!(saved.snapshot.unwrap().commits, 1);
}
