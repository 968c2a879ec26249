//! What is found where worktrees are made, and whose it is; a copied data directory touches nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use windlass_conformance::vcs_worktree::{MakeAtOnce as _, VcsWorktreePlace as _};
use windlass_core::vcs_worktree::{
    Found, FoundState, Origin, Removal, VcsWorktree as _, VcsWorktreeError, VcsWorktreeExt as _,
};
use windlass_core::workspace::Worktree;
use windlass_local::{GitWorktrees, Provenance};

use crate::place::{GitPlace, REMOVAL, attempt, locator, path};
use crate::removal::{admin, aside, at, beside, created, open};

/// One word for a state.
fn word(state: &FoundState) -> &'static str {
    match state {
        FoundState::Whole => "whole",
        FoundState::Missing => "missing",
        FoundState::Creating => "creating",
        FoundState::Removing => "removing",
        FoundState::Leftover { .. } => "leftover",
        FoundState::Foreign { .. } => "foreign",
    }
}

fn words(found: &[Found]) -> Vec<(PathBuf, &'static str)> {
    found.iter().map(|found| (path(&found.path), word(&found.state))).collect()
}

#[tokio::test]
async fn everything_is_found_in_path_order_with_what_it_is() {
    let place = GitPlace::default();
    let repo = place.repository();
    let vcs = open(&place).await;
    let mut made = Vec::new();
    for number in 1..=3 {
        made.push(place.worktree(&*vcs, &repo, number).await.unwrap());
    }
    vcs.save(attempt(2), &made[1], &REMOVAL).await.unwrap();
    place.delete_directory(&made[2].path);
    let folder = at(&made[0]).parent().unwrap().to_owned();
    let root = folder.parent().unwrap().to_owned();
    fs::create_dir(folder.join("plain")).unwrap();
    fs::write(folder.join("file"), "x").unwrap();
    fs::write(root.join("file"), "x").unwrap();
    let others = GitWorktrees::open(place.options("other")).await.unwrap();
    let foreign = place.worktree(&*others, &repo, 9).await.unwrap();
    let found = vcs.survey(std::slice::from_ref(&repo)).await.unwrap();
    let removing = at(&made[1]).with_file_name(format!(".removing-{}", attempt(2)));
    let mut expected = vec![
        (removing, "removing"),
        (at(&made[0]), "whole"),
        (at(&made[2]), "missing"),
        (folder.join("plain"), "foreign"),
        (folder.join("file"), "foreign"),
        (root.join("file"), "foreign"),
    ];
    expected.sort();
    assert_eq!(words(&found), expected);
    for found in &found {
        let Some(attempt) = found.attempt else { continue };
        let number = usize::from(attempt.0.as_bytes()[15]) - 1;
        assert_eq!(found.worktree.as_ref(), Some(&made[number]), "{found:?}");
    }
    // A directory of another data directory that got in here.
    fs::rename(at(&foreign), folder.join("moved in")).unwrap();
    let found = vcs.survey(&[]).await.unwrap();
    let moved = found.iter().find(|found| path(&found.path).ends_with("moved in")).unwrap();
    let FoundState::Foreign { detail } = &moved.state else { panic!("{moved:?}") };
    assert!(detail.contains("another data directory"), "{detail}");
    // Other registrations of the repository are not ours to report.
    assert_eq!(others.survey(std::slice::from_ref(&repo)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn each_step_of_a_removal_is_found_once() {
    type Step = fn(&Worktree);
    let steps: [(&str, Step); 4] = [
        ("taken aside", |worktree| {
            fs::rename(at(worktree), aside(worktree)).unwrap();
        }),
        ("a record that is being written", |worktree| {
            fs::rename(at(worktree), aside(worktree)).unwrap();
            fs::write(beside(worktree, ".saved.new"), "x").unwrap();
        }),
        ("a record that is damaged", |worktree| {
            fs::rename(at(worktree), aside(worktree)).unwrap();
            fs::write(beside(worktree, ".saved"), "x").unwrap();
        }),
        ("registered aside", |worktree| {
            fs::rename(at(worktree), aside(worktree)).unwrap();
            let link = aside(worktree).join(".git");
            fs::write(admin(worktree).join("gitdir"), format!("{}\n", link.display())).unwrap();
        }),
    ];
    for (name, step) in steps {
        let place = GitPlace::default();
        let (vcs, worktree) = created(&place).await;
        step(&worktree);
        let found = vcs.survey(std::slice::from_ref(&worktree.repo)).await.unwrap();
        assert_eq!(words(&found), [(aside(&worktree), "removing")], "{name}");
        assert_eq!(found[0].attempt, Some(attempt(1)), "{name}");
        assert_eq!(found[0].worktree.as_ref(), Some(&worktree), "{name}");
    }
    // The directory went, the record is there.
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    vcs.save(attempt(1), &worktree, &REMOVAL).await.unwrap();
    fs::remove_dir_all(aside(&worktree)).unwrap();
    for record in [".saved", ".deleting"] {
        let found = vcs.survey(std::slice::from_ref(&worktree.repo)).await.unwrap();
        assert_eq!(words(&found), [(aside(&worktree), "removing")]);
        assert_eq!(found[0].worktree.as_ref(), Some(&worktree));
        if record == ".saved" {
            fs::rename(beside(&worktree, ".saved"), beside(&worktree, ".deleting")).unwrap();
        }
    }
}

#[tokio::test]
async fn a_creation_that_had_begun_is_found() {
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    let name = at(&worktree).file_name().unwrap().to_string_lossy().into_owned();
    let note = at(&worktree).with_file_name(format!(".{name}.creating"));
    let lines = |data: &str| {
        format!(
            "windlass-worktree 1\ndata_directory={data}\nattempt={}\nbranch={}\noid={}\n",
            attempt(1).0,
            worktree.branch,
            worktree.base_oid
        )
    };
    for (data, state) in [("data", "creating"), ("other", "foreign")] {
        fs::write(&note, lines(data)).unwrap();
        let found = vcs.survey(&[]).await.unwrap();
        assert_eq!(words(&found), [(at(&worktree), state)]);
    }
}

/// Copies as an administrator would; `cp -a` keeps links, modes and times.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(copied.success());
}

/// Everything in a directory that a copy might touch, with inodes.
fn content(dir: &Path) -> Vec<(PathBuf, u64, Vec<u8>)> {
    use std::os::unix::fs::MetadataExt as _;
    let (mut seen, mut folders) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            if path.components().any(|part| part.as_os_str() == ".scratch") {
                continue;
            }
            if meta.is_dir() {
                folders.push(path.clone());
                seen.push((path, meta.ino(), Vec::new()));
            } else {
                let content = fs::read(&path).unwrap_or_default();
                seen.push((path, meta.ino(), content));
            }
        }
    }
    seen.sort();
    seen
}

/// Says which entries differ, which is shorter than all of them.
#[track_caller]
fn assert_same<C: AsRef<[(PathBuf, u64, Vec<u8>)]>>(before: &[C], now: &[C]) {
    for (before, now) in before.iter().zip(now) {
        let (before, now) = (before.as_ref(), now.as_ref());
        let differing = before
            .iter()
            .filter(|entry| !now.contains(entry))
            .chain(now.iter().filter(|entry| !before.contains(entry)));
        let differing: Vec<_> = differing.map(|(path, ..)| path).collect();
        assert!(differing.is_empty(), "{differing:?}");
    }
}

#[tokio::test]
async fn a_copied_data_directory_touches_nothing() {
    let place = GitPlace::default();
    let repo = place.repository();
    let vcs = open(&place).await;
    let whole = place.worktree(&*vcs, &repo, 1).await.unwrap();
    let saved = place.worktree(&*vcs, &repo, 2).await.unwrap();
    let gone = place.worktree(&*vcs, &repo, 3).await.unwrap();
    vcs.save(attempt(2), &saved, &REMOVAL).await.unwrap();
    vcs.save(attempt(3), &gone, &REMOVAL).await.unwrap();
    let late = at(&gone).with_file_name(format!(".removing-{}", attempt(3))).join("late");
    fs::write(late, "x").unwrap();
    vcs.remove(attempt(3), &gone, Removal::Worktree).await.unwrap();
    vcs.settle().await.unwrap();
    let (data, copied) = (place.home().join("data"), place.home().join("copy"));
    copy(&data, &copied);
    let moved = |worktree: &Worktree| {
        let below = at(worktree).strip_prefix(&data).unwrap().to_owned();
        Worktree { path: locator(&copied.join(below)), ..worktree.clone() }
    };
    let look = || [&data, &copied, &path(&repo)].map(|dir| content(dir));
    let before = look();
    let mut options = place.options("data");
    options.worktrees_root = copied.join("worktrees");
    {
        let copies = GitWorktrees::open(options.clone()).await.unwrap();
        copies.settle().await.unwrap();
        for (number, worktree) in [(1, &whole), (2, &saved), (3, &gone)] {
            for worktree in [worktree.clone(), moved(worktree)] {
                let attempt = attempt(number);
                let results = [
                    copies.verify(attempt, &worktree).await.map(drop),
                    copies.make(attempt, &worktree, &Origin::Base).await.map(drop),
                    copies.save(attempt, &worktree, &REMOVAL).await.map(drop),
                    copies.remove(attempt, &worktree, Removal::Worktree).await,
                    copies.remove(attempt, &worktree, Removal::WorktreeAndBranch).await,
                ];
                for result in results {
                    let mismatch = matches!(result, Err(VcsWorktreeError::Mismatch { .. }));
                    assert!(mismatch, "{number}: {result:?}");
                }
            }
        }
        let found = copies.survey(std::slice::from_ref(&repo)).await.unwrap();
        let ours: Vec<_> = found
            .iter()
            .filter(|found| {
                !matches!(found.state, FoundState::Foreign { .. } | FoundState::Leftover { .. })
            })
            .collect();
        assert!(ours.is_empty(), "{ours:?}");
        copies.settle().await.unwrap();
    }
    assert_same(&before, &look());
    // On purpose: what is in it still names the original, whose directories are left alone.
    options.provenance = Provenance::Moved;
    let meant = GitWorktrees::open(options).await.unwrap();
    for (number, worktree) in [(1, &whole), (2, &saved)] {
        let worktree = moved(worktree);
        let refused = meant.save_and_remove(attempt(number), &worktree, &REMOVAL).await;
        assert!(matches!(refused, Err(VcsWorktreeError::Mismatch { .. })), "{refused:?}");
    }
    meant.settle().await.unwrap();
    let now = look();
    assert_same(&[&before[0], &before[2]], &[&now[0], &now[2]]);
    // The original goes on.
    vcs.save_and_remove(attempt(1), &whole, &REMOVAL).await.unwrap();
    vcs.save_and_remove(attempt(2), &saved, &REMOVAL).await.unwrap();
    let fresh = place.worktree(&*meant, &repo, 4).await.unwrap();
    meant.save_and_remove(attempt(4), &fresh, &REMOVAL).await.unwrap();
}

/// Two data directories on one repository, with the same attempts.
#[tokio::test]
async fn another_data_directory_is_never_touched() {
    let place = GitPlace::default();
    let repo = place.repository();
    let vcs = open(&place).await;
    let others = GitWorktrees::open(place.options("other")).await.unwrap();
    let ours = place.worktree(&*vcs, &repo, 1).await.unwrap();
    let mut request = place.request(&repo, 1);
    request.branch = Some("theirs".to_owned());
    let theirs = others.plan(request).await.unwrap().worktree;
    others.make(attempt(1), &theirs, &Origin::Base).await.unwrap();
    let before = content(&at(&theirs));
    vcs.save_and_remove(attempt(1), &ours, &REMOVAL).await.unwrap();
    for result in [
        vcs.save(attempt(1), &theirs, &REMOVAL).await.map(drop),
        vcs.remove(attempt(1), &theirs, Removal::Worktree).await,
    ] {
        assert!(matches!(result, Err(VcsWorktreeError::Mismatch { .. })), "{result:?}");
    }
    assert_eq!(content(&at(&theirs)), before);
    others.verify(attempt(1), &theirs).await.unwrap();
    others.save_and_remove(attempt(1), &theirs, &REMOVAL).await.unwrap();
}
