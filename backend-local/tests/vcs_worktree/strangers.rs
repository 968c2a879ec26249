//! Those who do not know that a worktree is being removed: processes that write in it, people who delete or move it, file
//! systems in it. Every byte is in the snapshot or still on disk.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use windlass_conformance::vcs_worktree::{MakeAtOnce as _, VcsWorktreePlace as _};
use windlass_core::snapshot::SnapshotNumber;
use windlass_core::vcs_worktree::{
    FoundState, Origin, Removal, Removed, SaveRequest, Unsavable, VcsWorktree as _,
    VcsWorktreeError, VcsWorktreeExt as _,
};
use windlass_core::workspace::Worktree;
use windlass_local::GitWorktrees;

use crate::place::{GitPlace, REMOVAL, attempt, path};
use crate::removal::{
    admin, aside, assert_gone, assert_removed, assert_unsaved, at, created, open, trash,
};

/// A program of the system; says whether it succeeded.
fn run(program: &str, args: &[&Path]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|output| output.status.success())
}

/// A stranger: a shell that ends when its standard input is closed, or that writes until it cannot.
pub(crate) struct Stranger {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Stranger {
    pub(crate) fn new(script: &str, args: &[&Path]) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", script, "sh"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    pub(crate) fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line).unwrap();
        (read > 0).then(|| line.trim_end().to_owned())
    }

    /// Lets it end; returns what it said since.
    pub(crate) fn end(mut self) -> Vec<String> {
        drop(self.child.stdin.take());
        let said = std::iter::from_fn(|| self.line()).collect();
        self.child.wait().unwrap();
        said
    }
}

#[tokio::test]
async fn whoever_works_in_it_refuses_the_removal() {
    for script in [
        r#"cd "$1/sub"; echo; read x"#,
        r#"exec 3>>"$1/log"; echo; read x"#,
        r#"exec 3<"$1"; echo; read x"#,
    ] {
        let place = GitPlace::default();
        let (vcs, worktree) = created(&place).await;
        let mut stranger = Stranger::new(script, &[&at(&worktree)]);
        stranger.line().unwrap();
        let refused = vcs.save(attempt(1), &worktree, &REMOVAL).await;
        let Err(VcsWorktreeError::Occupied { detail, .. }) = refused else { panic!("{refused:?}") };
        assert!(detail.contains(&format!("process {} (sh)", stranger.child.id())), "{detail}");
        vcs.verify(attempt(1), &worktree).await.unwrap();
        stranger.end();
        vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.unwrap();
        assert_gone(&place, &vcs, &worktree).await;
    }
}

/// Somebody who stepped in between saving and removing.
#[tokio::test]
async fn whoever_came_after_the_saving_has_it_put_back() {
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    vcs.save(attempt(1), &worktree, &REMOVAL).await.unwrap();
    let mut stranger =
        Stranger::new(r#"cd "$1"; echo; read x; echo late >late"#, &[&aside(&worktree)]);
    stranger.line().unwrap();
    let refused = vcs.remove(attempt(1), &worktree, Removal::Worktree).await;
    assert!(matches!(refused, Err(VcsWorktreeError::Occupied { .. })), "{refused:?}");
    stranger.end();
    assert_eq!(place.read(&worktree.path, "late").unwrap(), "late\n");
    vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.unwrap();
    assert_gone(&place, &vcs, &worktree).await;
}

/// Collects the lines of a file wherever the worktree may be by now.
fn lines(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// A stranger that writes by path, as quickly as it can, while it is removed: what it was told is written is in the
/// snapshot or on disk.
#[tokio::test]
async fn a_stranger_that_keeps_writing_loses_nothing() {
    let script = r#"
        trap '' PIPE
        i=0
        while [ $i -lt 2000 ]; do
            i=$((i + 1))
            echo $i >>"$1/log" || exit
            echo $i >"$1/sub/file $i" || exit
            echo $i
        done"#;
    for round in 0..4_u32 {
        let place = GitPlace::default();
        let (vcs, worktree) = created(&place).await;
        let mut stranger = Stranger::new(script, &[&at(&worktree)]);
        let mut told = Vec::new();
        for _ in 0..=round * 20 {
            told.push(stranger.line().unwrap());
        }
        let removed = vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await;
        if removed.is_err() {
            // It was in the way, and has it still.
            vcs.verify(attempt(1), &worktree).await.unwrap();
            drop(stranger.child.kill());
        }
        told.extend(stranger.end());
        vcs.settle().await.unwrap();
        let left = trash(&place).into_iter().map(|folder| folder.join("tree"));
        let mut places: Vec<_> = left.collect();
        if let Ok(saved) = &removed {
            let origin = Origin::Removed(Removed {
                head: saved.head.clone(),
                branch: saved.branch.clone(),
                snapshot: saved.snapshot.as_ref().map(|snapshot| snapshot.number),
            });
            vcs.make(attempt(1), &worktree, &origin).await.unwrap();
        }
        places.push(at(&worktree));
        let logged: BTreeSet<String> =
            places.iter().flat_map(|place| lines(&place.join("log"))).collect();
        for number in &told {
            assert!(logged.contains(number), "{number}: {removed:?}");
            let name = format!("sub/file {number}");
            let kept = places.iter().any(|place| lines(&place.join(&name)) == [number.as_str()]);
            assert!(kept, "{name}: {removed:?}");
        }
    }
}

/// One who has the directory open, here in our own process, and writes while it is saved, removed and deleted.
#[tokio::test]
async fn what_appears_meanwhile_stays_and_is_reported_until_it_is_taken_away() {
    for round in 0..6_u32 {
        let place = GitPlace::default();
        let (vcs, worktree) = created(&place).await;
        let inside = fs::File::open(at(&worktree)).unwrap();
        let (begun, begin) = std::sync::mpsc::channel();
        let writer = std::thread::spawn(move || {
            let mut written = Vec::new();
            begun.send(()).unwrap();
            for number in 0..=round * 300 {
                let name = format!("late {number}");
                let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
                let mode = rustix::fs::Mode::RWXU;
                // The directory may be gone, then nothing can be written any more.
                let Ok(file) = rustix::fs::openat(&inside, &name, flags, mode) else { break };
                rustix::io::write(&file, b"x").unwrap();
                written.push(name);
            }
            written
        });
        begin.recv().unwrap();
        let removed = vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await;
        let written = writer.join().unwrap();
        vcs.settle().await.unwrap();
        let mut places: Vec<_> = trash(&place).iter().map(|folder| folder.join("tree")).collect();
        if let Ok(saved) = &removed {
            let snapshot = saved.snapshot.as_ref().map(|snapshot| snapshot.number);
            let (head, branch) = (saved.head.clone(), saved.branch.clone());
            let origin = Origin::Removed(Removed { head, branch, snapshot });
            vcs.make(attempt(1), &worktree, &origin).await.unwrap();
        }
        places.push(at(&worktree));
        let kept = |name: &String| {
            places.iter().any(|place| fs::read(place.join(name)).is_ok_and(|read| read == b"x"))
        };
        assert!(written.iter().all(kept), "{removed:?}");
    }
}

#[tokio::test]
async fn leftovers_are_reported_until_they_are_taken_away() {
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    vcs.save(attempt(1), &worktree, &REMOVAL).await.unwrap();
    fs::write(aside(&worktree).join("late\nnew"), "x").unwrap();
    fs::write(aside(&worktree).join("sub/numbers"), "late").unwrap();
    vcs.remove(attempt(1), &worktree, Removal::Worktree).await.unwrap();
    vcs.settle().await.unwrap();
    assert_removed(&place, &worktree);
    for _ in 0..2 {
        let next_host = open(&place).await;
        next_host.settle().await.unwrap();
        let found = next_host.survey(&[]).await.unwrap();
        let [left] = found.as_slice() else { panic!("{found:?}") };
        let FoundState::Leftover { detail } = &left.state else { panic!("{left:?}") };
        assert!(detail.contains(r"late\nnew") && detail.contains("sub/numbers"), "{detail}");
        assert_eq!((left.attempt, left.worktree.as_ref()), (Some(attempt(1)), Some(&worktree)));
        let left = path(&left.path);
        assert_eq!(fs::read(left.join("sub/numbers")).unwrap(), b"late");
        assert!(!left.join("greeting").exists());
    }
    // Its name is free again.
    vcs.make(attempt(1), &worktree, &Origin::Base).await.unwrap_err();
    let left = path(&vcs.survey(&[]).await.unwrap()[0].path);
    fs::remove_file(left.join("sub/numbers")).unwrap();
    fs::remove_file(left.join("late\nnew")).unwrap();
    vcs.survey(&[]).await.unwrap();
    vcs.settle().await.unwrap();
    assert_eq!(vcs.survey(&[]).await.unwrap(), []);
    assert_gone(&place, &vcs, &worktree).await;
}

/// A removal is done before the commits that hold its files are on the disk: after a power cut in between, the files stay.
#[tokio::test]
async fn files_whose_commits_may_not_be_on_disk_stay() {
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    vcs.save(attempt(1), &worktree, &REMOVAL).await.unwrap();
    drop(vcs);
    // As if it had been handed over in another boot.
    let record = crate::removal::beside(&worktree, ".saved");
    let other_boot = uuid::Uuid::from_u128(7).to_string();
    let content = rewritten(&fs::read(&record).unwrap(), &other_boot);
    let folder = place.home().join("data/worktrees/.trash/1");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("record"), content).unwrap();
    fs::rename(aside(&worktree), folder.join("tree")).unwrap();
    fs::remove_file(record).unwrap();
    let vcs = open(&place).await;
    vcs.settle().await.unwrap();
    assert!(folder.join("tree/greeting").exists());
    let found = vcs.survey(&[]).await.unwrap();
    let FoundState::Leftover { detail } = &found[0].state else { panic!("{found:?}") };
    assert!(detail.contains("went down"), "{detail}");
    // Once they are known to be, an other boot does not matter.
    fs::write(folder.join("synced"), "").unwrap();
    vcs.settle().await.unwrap();
    assert!(!folder.exists());
}

/// A record with another boot in it.
fn rewritten(record: &[u8], boot: &str) -> Vec<u8> {
    use sha2::Digest as _;
    let body = &record[..record.len() - 32];
    let key = b"\"boot\":\"";
    let start = body.windows(key.len()).position(|window| window == key).unwrap() + key.len();
    let mut content = body.to_vec();
    content[start..start + boot.len()].copy_from_slice(boot.as_bytes());
    let sum = sha2::Sha256::digest(&content);
    content.extend_from_slice(&sum);
    content
}

#[tokio::test]
async fn a_worktree_that_somebody_deleted_is_removed_and_its_branch_is_free() {
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    let common = path(&worktree.repo);
    fs::remove_dir_all(at(&worktree).parent().unwrap()).unwrap();
    assert_unsaved(&vcs.remove(attempt(1), &worktree, Removal::Worktree).await, "not saved");
    assert!(admin(&worktree).exists());
    let saved = vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.unwrap();
    assert_eq!(saved.snapshot, None);
    assert_gone(&place, &vcs, &worktree).await;
    let elsewhere = place.home().join("elsewhere");
    place.ok(&common, &["worktree", "add", "-q", elsewhere.to_str().unwrap(), &worktree.branch]);
    // Nothing is left of it now.
    let gone = vcs.save(attempt(1), &worktree, &REMOVAL).await;
    assert!(matches!(gone, Err(VcsWorktreeError::Gone { .. })), "{gone:?}");
    vcs.remove(attempt(1), &worktree, Removal::Worktree).await.unwrap();
}

#[tokio::test]
async fn what_was_staged_in_a_worktree_that_somebody_deleted_comes_back() {
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    place.write(&worktree.path, "staged", "x\n");
    place.ok(&at(&worktree), &["add", "staged"]);
    place.delete_directory(&worktree.path);
    let saved = vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.unwrap();
    assert_gone(&place, &vcs, &worktree).await;
    let number = saved.snapshot.unwrap().number;
    place.ok(&path(&worktree.repo), &["prune", "--expire=now"]);
    let (head, branch) = (saved.head, saved.branch);
    let origin = Origin::Removed(Removed { head, branch, snapshot: Some(number) });
    vcs.make(attempt(1), &worktree, &origin).await.unwrap();
    assert_eq!(place.indexed(&worktree.path, "staged").unwrap(), "x\n");
}

/// Deleted after it was saved: everything is in the snapshot.
#[tokio::test]
async fn what_was_deleted_after_the_saving_does_not_hinder() {
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    vcs.save(attempt(1), &worktree, &REMOVAL).await.unwrap();
    fs::remove_dir_all(aside(&worktree)).unwrap();
    vcs.remove(attempt(1), &worktree, Removal::Worktree).await.unwrap();
    assert_gone(&place, &vcs, &worktree).await;
}

#[tokio::test]
async fn what_was_moved_is_named_and_left_alone() {
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    let elsewhere = place.home().join("elsewhere");
    let (from, to) = (at(&worktree), elsewhere.clone());
    place.ok(
        &path(&worktree.repo),
        &["worktree", "move", from.to_str().unwrap(), to.to_str().unwrap()],
    );
    let refused = vcs.save(attempt(1), &worktree, &REMOVAL).await.map(drop);
    let removed = vcs.remove(attempt(1), &worktree, Removal::Worktree).await;
    for refused in [refused.unwrap_err(), removed.unwrap_err()] {
        match refused {
            VcsWorktreeError::Mismatch { detail, .. } => {
                assert!(detail.contains("moved to"), "{detail}")
            }
            VcsWorktreeError::Unsaved { .. } => {}
            other => panic!("{other:?}"),
        }
        assert!(elsewhere.join("greeting").exists());
    }
}

async fn assert_mismatch(vcs: &GitWorktrees, worktree: &Worktree, said: &str) {
    let saved = vcs.save(attempt(1), worktree, &REMOVAL).await.map(drop);
    let removed = vcs.remove(attempt(1), worktree, Removal::Worktree).await;
    for refused in [saved, removed] {
        let Err(VcsWorktreeError::Mismatch { detail, .. }) = refused else { panic!("{refused:?}") };
        assert!(detail.contains(said), "{said:?} in {detail}");
    }
}

#[tokio::test]
async fn without_its_repository_nothing_is_touched() {
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    let repo = path(&worktree.repo).parent().unwrap().to_owned();
    fs::rename(&repo, place.home().join("moved")).unwrap();
    assert_mismatch(&vcs, &worktree, "bring it back").await;
    assert!(at(&worktree).join("greeting").exists());
    fs::rename(place.home().join("moved"), &repo).unwrap();
    // Aside, too.
    vcs.save(attempt(1), &worktree, &REMOVAL).await.unwrap();
    fs::rename(&repo, place.home().join("moved")).unwrap();
    assert_mismatch(&vcs, &worktree, "bring it back").await;
    assert!(aside(&worktree).join("greeting").exists());
    fs::rename(place.home().join("moved"), &repo).unwrap();
    vcs.remove(attempt(1), &worktree, Removal::Worktree).await.unwrap();
    assert_gone(&place, &vcs, &worktree).await;
}

/// A mount or a limit of this machine that a test needs; gone when the value is.
pub(crate) struct Mounted<'a>(pub(crate) &'a Path);

impl<'a> Mounted<'a> {
    fn new(args: &[&Path], at: &'a Path) -> Option<Self> {
        run("mount", &[args, &[at]].concat()).then_some(Self(at))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        assert!(run("umount", &[self.0]) || std::thread::panicking());
    }
}

#[tokio::test]
async fn a_mount_inside_refuses_and_is_never_entered() {
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    let inside = at(&worktree).join("mounted");
    let outside = place.home().join("outside");
    fs::create_dir(&inside).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "x").unwrap();
    let Some(mounted) = Mounted::new(&[Path::new("--bind"), &outside], &inside) else {
        eprintln!("not run: mounting is not allowed here");
        return;
    };
    let refused = vcs.save(attempt(1), &worktree, &REMOVAL).await;
    let Err(VcsWorktreeError::Unsavable { entries, .. }) = refused else { panic!("{refused:?}") };
    assert!(entries[0].contains("mounted"), "{entries:?}");
    vcs.verify(attempt(1), &worktree).await.unwrap();
    // Discarded, the rest goes and the mount stays.
    let discarding = SaveRequest { unsavable: Unsavable::Discard, ..REMOVAL };
    vcs.save_and_remove(attempt(1), &worktree, &discarding).await.unwrap();
    vcs.settle().await.unwrap();
    assert!(outside.join("precious").exists());
    let found = vcs.survey(&[]).await.unwrap();
    let FoundState::Leftover { detail } = &found[0].state else { panic!("{found:?}") };
    assert!(detail.contains("mounted"), "{detail}");
    let left = path(&found[0].path).join("mounted");
    assert_eq!(fs::read_dir(&left).unwrap().count(), 1);
    std::mem::forget(mounted);
    assert!(run("umount", &[&left]));
    vcs.survey(&[]).await.unwrap();
    assert!(outside.join("precious").exists());
}

#[tokio::test]
async fn an_immutable_file_stays_and_is_named() {
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    let file = at(&worktree).join("sub/numbers");
    if !run("chattr", &[Path::new("+i"), &file]) {
        eprintln!("not run: files cannot be made immutable here");
        return;
    }
    let removed = vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await;
    vcs.settle().await.unwrap();
    let found = vcs.survey(std::slice::from_ref(&worktree.repo)).await.unwrap();
    let left = path(&found[0].path);
    let stayed = [left.join("sub/numbers"), file].into_iter().find(|file| file.exists()).unwrap();
    assert!(run("chattr", &[Path::new("-i"), &stayed]));
    if let Err(error) = removed {
        // It was seen before.
        assert!(error.to_string().contains("sub/numbers"), "{error}");
        vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.unwrap();
    } else {
        let FoundState::Leftover { detail } = &found[0].state else { panic!("{found:?}") };
        assert!(detail.contains("sub/numbers") && detail.contains("immutable"), "{detail}");
        assert!(!left.join("greeting").exists());
        // It was changed since, if only in that; to delete it is now somebody else's decision.
        fs::remove_file(stayed).unwrap();
    }
    vcs.survey(&[]).await.unwrap();
    assert_gone(&place, &vcs, &worktree).await;
}

/// A place whose data directory is on a small file system of its own; `None` where that cannot be.
pub(crate) async fn on_tmpfs(place: &GitPlace, size: &str) -> bool {
    let data = place.home().join("data");
    fs::create_dir_all(&data).unwrap();
    let options = format!("size={size}");
    let args = ["-t", "tmpfs", "-o", &options, "tmpfs"].map(Path::new);
    run("mount", &[&args[..], &[&data]].concat())
}

#[tokio::test]
async fn a_disk_that_fills_up_while_saving_loses_nothing_and_leaves_nothing() {
    let place = GitPlace::default();
    if !on_tmpfs(&place, "3m").await {
        eprintln!("not run: mounting is not allowed here");
        return;
    }
    let data = place.home().join("data");
    let mounted = Mounted(&data);
    let (vcs, worktree) = created(&place).await;
    // Random, so that it is no smaller in an archive.
    let mut random = vec![0; 2 << 20];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).unwrap();
    fs::write(at(&worktree).join("big"), &random).unwrap();
    let before = files(&data);
    let refused = vcs.save(attempt(1), &worktree, &REMOVAL).await;
    assert!(matches!(refused, Err(VcsWorktreeError::Full)), "{refused:?}");
    assert_eq!(files(&data), before);
    assert_eq!(fs::read(at(&worktree).join("big")).unwrap(), random);
    vcs.verify(attempt(1), &worktree).await.unwrap();
    fs::remove_file(at(&worktree).join("big")).unwrap();
    vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.unwrap();
    assert_gone(&place, &vcs, &worktree).await;
    drop(vcs);
    drop(mounted);
}

/// Every file below a directory, but for what is in use for a moment only.
fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn a_read_only_file_system_refuses_and_says_so() {
    let place = GitPlace::default();
    if !on_tmpfs(&place, "3m").await {
        eprintln!("not run: mounting is not allowed here");
        return;
    }
    let data = place.home().join("data");
    let mounted = Mounted(&data);
    let (vcs, worktree) = created(&place).await;
    let remount = |options: &str| {
        assert!(run("mount", &[Path::new("-o"), Path::new(options), &data]), "{options}");
    };
    remount("remount,ro");
    let refused = vcs.save(attempt(1), &worktree, &REMOVAL).await.unwrap_err();
    remount("remount,rw");
    let chain = std::iter::successors(Some(&refused as &dyn std::error::Error), |one| one.source());
    let said: Vec<_> = chain.map(ToString::to_string).collect();
    assert!(said.iter().any(|said| said.contains("Read-only file system")), "{said:?}");
    assert!(at(&worktree).join("greeting").exists() && !aside(&worktree).exists());
    vcs.verify(attempt(1), &worktree).await.unwrap();
    vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.unwrap();
    assert_gone(&place, &vcs, &worktree).await;
    drop(vcs);
    drop(mounted);
}

/// A snapshot is removed once, and its number is free again.
#[tokio::test]
async fn a_snapshot_is_removed() {
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    place.write(&worktree.path, "new", "x\n");
    let saved = vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.unwrap();
    let archive = path(&saved.snapshot.unwrap().archive);
    assert!(archive.exists());
    for _ in 0..2 {
        let first = Removal::Snapshot(SnapshotNumber::FIRST);
        vcs.remove(attempt(1), &worktree, first).await.unwrap();
        assert!(!archive.exists());
    }
}
