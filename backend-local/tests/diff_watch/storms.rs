//! Much at once, more than the system tells, and what comes and goes.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Command;

use windlass_conformance::diff_watch::{Following, Ports, worktree};
use windlass_conformance::vcs_worktree::VcsWorktreePlace as _;
use windlass_core::diff_watch::DiffEvent;
use windlass_core::vcs_worktree::ChangeKind;
use windlass_core::workspace::Worktree;
use windlass_local::{DiffWatchLimits, GitWorktrees};

use crate::likeness::agree;
use crate::place::{GitPlace, path};

fn run<F: Future<Output = ()>>(case: impl FnOnce(GitPlace) -> F) {
    windlass_conformance::block_on(case(GitPlace::default()));
}

/// A worktree that is followed and known.
async fn followed(place: &GitPlace) -> (Ports, Worktree, Following) {
    let (ports, _, worktree) = worktree(place).await;
    let mut following = Following::begin(&ports, &worktree, None).await;
    agree(&ports, &worktree, &mut following).await;
    (ports, worktree, following)
}

/// The same, with other limits of what is watched.
async fn followed_within(
    place: &GitPlace,
    limits: DiffWatchLimits,
) -> (Ports, Worktree, Following) {
    let (ports, _, worktree) = worktree(place).await;
    drop(ports);
    let mut options = place.options("data");
    options.diff_watch = limits;
    let worktrees = GitWorktrees::open(options).await.unwrap();
    let ports = Ports { worktrees: worktrees.clone(), watch: worktrees };
    let following = Following::begin(&ports, &worktree, None).await;
    (ports, worktree, following)
}

fn fill(top: &Path, files: usize) {
    for number in 0..files {
        let dir = top.join(format!("many/{}", number / 100));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(number.to_string()), format!("{number}\n")).unwrap();
    }
}

fn sh(top: &Path, script: &str) {
    let ran = Command::new("/bin/sh").args(["-ec", script]).current_dir(top).status().unwrap();
    assert!(ran.success(), "{script}");
}

#[test]
fn ten_thousand_files_at_once_are_all_told() {
    run(async |place| {
        let (ports, worktree, mut following) = followed(&place).await;
        fill(&path(&worktree.path), 10_000);
        agree(&ports, &worktree, &mut following).await;
        assert_eq!(following.mirror.files().count(), 10_000);
        fs::remove_dir_all(path(&worktree.path).join("many")).unwrap();
        agree(&ports, &worktree, &mut following).await;
        assert_eq!(following.mirror.files().count(), 0);
    });
}

#[test]
fn directories_that_are_renamed_to_and_fro_are_followed() {
    run(async |place| {
        let (ports, worktree, mut following) = followed(&place).await;
        let top = path(&worktree.path);
        fill(&top, 300);
        place.commit(&worktree.path, "many");
        let storm = "for i in 1 2 3 4 5 6 7 8; do mv many was; mv was/0 was/x; mv was many; mv many/x many/0; done";
        sh(&top, storm);
        agree(&ports, &worktree, &mut following).await;
        sh(&top, &format!("{storm}; mv many/1 many/y; mkdir many/1; mv many/y many/1/in"));
        agree(&ports, &worktree, &mut following).await;
        // Each is still watched where it is now.
        fs::write(top.join("many/1/in/100"), "changed\n").unwrap();
        fs::write(top.join("many/0/new"), "x\n").unwrap();
        agree(&ports, &worktree, &mut following).await;
        let paths: Vec<_> = following.mirror.files().map(|file| file.path.to_string()).collect();
        assert!(
            paths.contains(&"many/1/in/100".to_owned()) && paths.contains(&"many/0/new".to_owned())
        );
    });
}

#[test]
fn more_than_the_system_tells_begins_a_generation() {
    run(async |place| {
        let limits = DiffWatchLimits { events: 0, ..DiffWatchLimits::default() };
        let (ports, worktree, mut following) = followed_within(&place, limits).await;
        agree(&ports, &worktree, &mut following).await;
        let before = following.mirror.generation();
        fill(&path(&worktree.path), 200);
        while following.mirror.generation() == before {
            following.read_on().await.unwrap();
        }
        agree(&ports, &worktree, &mut following).await;
        assert_eq!(following.mirror.files().count(), 200);
    });
}

#[test]
fn directories_beyond_the_limit_are_looked_at_when_others_change_and_that_is_said() {
    run(async |place| {
        let limits = DiffWatchLimits { directories: 2, ..DiffWatchLimits::default() };
        let (ports, worktree, mut following) = followed_within(&place, limits).await;
        agree(&ports, &worktree, &mut following).await;
        assert_eq!(following.mirror.unwatched(), 0);
        let top = path(&worktree.path);
        fill(&top, 250);
        fs::write(top.join("greeting"), "changed after that\n").unwrap();
        agree(&ports, &worktree, &mut following).await;
        // `many` and its three directories; `sub` and the top are watched.
        assert_eq!(following.mirror.unwatched(), 4);
        fs::write(top.join("many/0/0"), "changed where nobody looks\n").unwrap();
        fs::write(top.join("greeting"), "changed\n").unwrap();
        agree(&ports, &worktree, &mut following).await;
        // Where there is room again everything is watched.
        fs::remove_dir_all(top.join("many")).unwrap();
        fs::write(top.join("greeting"), "changed again\n").unwrap();
        while following.mirror.unwatched() != 0 {
            following.read_on().await.unwrap();
        }
    });
}

#[test]
fn a_base_that_moves_begins_a_generation() {
    run(async |place| {
        let (ports, repo, worktree) = worktree(&place).await;
        let mut following = Following::begin(&ports, &worktree, None).await;
        place.write(&worktree.path, "new", "x\n");
        let head = place.commit(&worktree.path, "work");
        agree(&ports, &worktree, &mut following).await;
        assert_eq!(following.mirror.files().count(), 1);
        let before = following.mirror.generation();
        place.ok(&path(&repo), &["merge", "--quiet", "--ff-only", &worktree.branch]);
        while following.mirror.base() != Some(&head) {
            following.read_on().await.unwrap();
        }
        agree(&ports, &worktree, &mut following).await;
        assert!(following.mirror.generation() > before);
        assert_eq!(following.mirror.files().count(), 0);
    });
}

#[test]
fn ignored_directories_are_not_watched_and_their_storms_not_told() {
    run(async |place| {
        let (ports, worktree, mut following) = followed(&place).await;
        let top = path(&worktree.path);
        fs::write(top.join(".gitignore"), "many\n").unwrap();
        agree(&ports, &worktree, &mut following).await;
        fill(&top, 3_000);
        fs::write(top.join("greeting"), "changed\n").unwrap();
        let mut told = Vec::new();
        while !following.mirror.files().any(|file| file.path.as_bytes() == b"greeting") {
            told.extend(following.read_on().await.unwrap());
        }
        agree(&ports, &worktree, &mut following).await;
        let others = told.iter().filter(|told| match &told.event {
            DiffEvent::File { file, .. } => file.path.as_bytes() != b"greeting",
            DiffEvent::Current { unwatched, .. } => *unwatched > 0,
            DiffEvent::Began { .. } | DiffEvent::Removed { .. } => true,
        });
        assert_eq!(others.count(), 0);
        // Its rule gone, it is watched at once.
        fs::remove_file(top.join(".gitignore")).unwrap();
        agree(&ports, &worktree, &mut following).await;
        fs::write(top.join("many/29/2999"), "seen\n").unwrap();
        agree(&ports, &worktree, &mut following).await;
    });
}

#[test]
fn what_comes_and_goes_between_event_and_look_is_as_it_is_in_the_end() {
    run(async |place| {
        let (ports, worktree, mut following) = followed(&place).await;
        let top = path(&worktree.path);
        for round in 0..3 {
            sh(
                &top,
                "i=0; while [ $i -lt 60 ]; do echo $i > t$i; mv t$i u; mkdir d; echo x > d/x; rm -r d u; i=$((i+1)); done",
            );
            fs::write(top.join("greeting"), format!("{round}\n")).unwrap();
            agree(&ports, &worktree, &mut following).await;
        }
        let paths: Vec<_> = following.mirror.files().map(|file| file.path.to_string()).collect();
        assert_eq!(paths, ["greeting"]);
    });
}

#[test]
fn names_of_any_bytes_and_submodules_are_told_as_a_plain_diff_has_them() {
    run(async |place| {
        let module = place.repository();
        let (ports, worktree, mut following) = followed(&place).await;
        let top = path(&worktree.path);
        fs::create_dir(top.join(OsStr::from_bytes(b"d\xff\xfe"))).unwrap();
        let name = OsStr::from_bytes(b"d\xff\xfe/new\nline\t\"\x01");
        fs::write(top.join(name), "x\n").unwrap();
        agree(&ports, &worktree, &mut following).await;
        assert_eq!(following.mirror.files().count(), 1);
        let module = path(&module);
        place.ok(&top, &["submodule", "--quiet", "add", module.to_str().unwrap(), "module"]);
        agree(&ports, &worktree, &mut following).await;
        place.commit(&worktree.path, "module");
        agree(&ports, &worktree, &mut following).await;
        let link = |following: &Following| {
            let file = following.mirror.files().find(|file| file.path.as_bytes() == b"module");
            file.map(|file| (file.change, file.mode.clone()))
        };
        assert_eq!(link(&following), Some((ChangeKind::Added, Some("160000".to_owned()))));
        let before = following.mirror.patch();
        place.ok(&top.join("module"), &["commit", "--quiet", "--allow-empty", "-m", "inside"]);
        while following.mirror.patch() == before {
            following.read_on().await.unwrap();
        }
        agree(&ports, &worktree, &mut following).await;
    });
}
