//! A data directory that was moved, and one that was copied: what is registered names the place before.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use windlass_conformance::vcs_worktree::MakeAtOnce as _;
use windlass_core::vcs_worktree::{
    DiffDetail, FoundState, Origin, Removal, Removed, VcsWorktree, VcsWorktreeError,
    VcsWorktreeExt as _,
};
use windlass_core::workspace::Worktree;
use windlass_local::{GitOptions, GitWorktrees, Provenance};

use crate::place::{GitPlace, REMOVAL, attempt, locator, path};

const DATA: &str = "data";
const ELSEWHERE: &str = "elsewhere";

/// Opens the worktrees of the data directory where it is by now.
async fn open_at(place: &GitPlace, folder: &str) -> Arc<GitWorktrees> {
    let root = place.home().join(folder).join("worktrees");
    let options =
        GitOptions { provenance: Provenance::Moved, ..GitOptions::new(DATA, root, place.env()) };
    GitWorktrees::open(options).await.unwrap()
}

/// The record as it is once it names another folder.
fn in_folder(place: &GitPlace, worktree: &Worktree, folder: &str) -> Worktree {
    let at = path(&worktree.path);
    let below = at.strip_prefix(place.home().join(DATA)).unwrap();
    Worktree { path: locator(&place.home().join(folder).join(below)), ..worktree.clone() }
}

fn shift(place: &GitPlace) {
    fs::rename(place.home().join(DATA), place.home().join(ELSEWHERE)).unwrap();
}

fn copy(place: &GitPlace) {
    let [from, to] = [DATA, ELSEWHERE].map(|name| place.home().join(name));
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// A worktree with an untracked file, in a data directory that nobody has open.
async fn made(place: &GitPlace) -> Worktree {
    let vcs = open_at(place, DATA).await;
    let worktree = place.worktree(&*vcs, &place.repository(), 1).await.unwrap();
    fs::write(path(&worktree.path).join("new"), "work\n").unwrap();
    worktree
}

/// The places that the user's git lists, but for the checkout itself.
fn listed(place: &GitPlace, worktree: &Worktree) -> Vec<PathBuf> {
    let list = place.ok(&path(&worktree.repo), &["worktree", "list", "--porcelain"]);
    let places = list.lines().filter_map(|line| line.strip_prefix("worktree "));
    places.skip(1).map(PathBuf::from).collect()
}

/// Saves, removes and restores it.
async fn goes_and_comes_back(vcs: &GitWorktrees, worktree: &Worktree) {
    let saved = vcs.save_and_remove(attempt(1), worktree, &REMOVAL).await.unwrap();
    let at = path(&worktree.path);
    assert!(!at.exists());
    let number = saved.snapshot.map(|snapshot| snapshot.number);
    let removed = Removed { head: saved.head, branch: saved.branch, snapshot: number };
    vcs.make(attempt(1), worktree, &Origin::Removed(removed)).await.unwrap();
    assert_eq!(fs::read_to_string(at.join("new")).unwrap(), "work\n");
    vcs.settle().await.unwrap();
}

#[tokio::test]
async fn what_was_moved_is_found_verified_and_mended() {
    let place = GitPlace::default();
    let before = made(&place).await;
    shift(&place);
    let after = in_folder(&place, &before, ELSEWHERE);
    let vcs = open_at(&place, ELSEWHERE).await;
    // A survey looks only; it names the place where it is.
    let found = vcs.survey(std::slice::from_ref(&before.repo)).await.unwrap();
    let [only] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((&only.path, &only.state), (&after.path, &FoundState::Whole));
    assert_eq!(only.worktree.as_ref(), Some(&after));
    assert_eq!(listed(&place, &before), [path(&before.path)]);
    let diff = vcs.diff(attempt(1), &after, DiffDetail::Files).await.unwrap();
    assert_eq!(diff.files.len(), 1);
    assert_eq!(listed(&place, &before), [path(&after.path)]);
    // So does the next host, which was told nothing of a move.
    drop(vcs);
    let root = place.home().join(ELSEWHERE).join("worktrees");
    let vcs = GitWorktrees::open(GitOptions::new(DATA, root, place.env())).await.unwrap();
    let found = vcs.survey(std::slice::from_ref(&before.repo)).await.unwrap();
    assert_eq!(found[0].worktree.as_ref(), Some(&after));
    goes_and_comes_back(&vcs, &after).await;
    assert_eq!(place.ok(&path(&after.path), &["status", "--short"]), "?? new");
    assert!(!place.home().join(DATA).exists());
}

#[tokio::test]
async fn what_was_under_removal_when_it_was_moved_is_gone_on_with() {
    for crashed in ["aside", "saved", "restored to a copied disk"] {
        let place = GitPlace::default();
        let before = made(&place).await;
        let vcs = open_at(&place, DATA).await;
        let saved = vcs.save(attempt(1), &before, &REMOVAL).await.unwrap();
        drop(vcs);
        let after = in_folder(&place, &before, ELSEWHERE);
        if crashed == "restored to a copied disk" {
            copy(&place);
            fs::remove_dir_all(place.home().join(DATA)).unwrap();
        } else {
            shift(&place);
        }
        if crashed == "aside" {
            let record = path(&after.path);
            let record = record.with_file_name(format!(".removing-{}.saved", attempt(1)));
            fs::remove_file(record).unwrap();
        }
        let vcs = open_at(&place, ELSEWHERE).await;
        let found = vcs.survey(std::slice::from_ref(&before.repo)).await.unwrap();
        assert_eq!(found[0].state, FoundState::Removing, "{crashed}: {found:?}");
        assert_eq!(found[0].worktree.as_ref(), Some(&after), "{crashed}");
        let number = saved.snapshot.map(|snapshot| snapshot.number);
        let removed = Removed { head: saved.head, branch: saved.branch, snapshot: number };
        let origin = Origin::Removed(removed);
        vcs.make(attempt(1), &after, &origin).await.unwrap();
        assert_eq!(fs::read_to_string(path(&after.path).join("new")).unwrap(), "work\n");
        assert_eq!(listed(&place, &before), [path(&after.path)], "{crashed}");
        goes_and_comes_back(&vcs, &after).await;
    }
}

#[tokio::test]
async fn links_that_are_relative_and_a_directory_that_went_are_mended_too() {
    for gone in [false, true] {
        let place = GitPlace::default();
        let before = made(&place).await;
        let at = path(&before.path);
        let link = fs::read_to_string(at.join(".git")).unwrap();
        let admin = PathBuf::from(link.trim_end().strip_prefix("gitdir: ").unwrap());
        // As `worktree.useRelativePaths` has it.
        let up = "../".repeat(at.strip_prefix(place.home()).unwrap().components().count());
        let below = admin.strip_prefix(place.home()).unwrap();
        fs::write(at.join(".git"), format!("gitdir: {up}{}\n", below.display())).unwrap();
        let up = "../".repeat(below.components().count());
        let back = at.strip_prefix(place.home()).unwrap().join(".git");
        fs::write(admin.join("gitdir"), format!("{up}{}\n", back.display())).unwrap();
        place.ok(&at, &["status"]);
        // Deeper than before: what was relative leads nowhere.
        let folder = "deeper/elsewhere";
        fs::create_dir(place.home().join("deeper")).unwrap();
        fs::rename(place.home().join(DATA), place.home().join(folder)).unwrap();
        let after = in_folder(&place, &before, folder);
        let vcs = open_at(&place, folder).await;
        if gone {
            fs::remove_dir_all(path(&after.path)).unwrap();
            let missing = vcs.verify(attempt(1), &after).await;
            assert!(matches!(missing, Err(VcsWorktreeError::Gone { .. })), "{missing:?}");
            vcs.make(attempt(1), &after, &Origin::Base).await.unwrap();
            fs::write(path(&after.path).join("new"), "work\n").unwrap();
        }
        vcs.verify(attempt(1), &after).await.unwrap();
        assert_eq!(place.ok(&path(&after.path), &["status", "--short"]), "?? new");
        assert_eq!(listed(&place, &before), [path(&after.path)]);
        goes_and_comes_back(&vcs, &after).await;
    }
}

#[tokio::test]
async fn a_copy_leaves_alone_what_its_original_uses() {
    let place = GitPlace::default();
    let theirs = made(&place).await;
    copy(&place);
    let ours = in_folder(&place, &theirs, ELSEWHERE);
    let (original, copy) = (open_at(&place, DATA).await, open_at(&place, ELSEWHERE).await);
    let refused = |said: VcsWorktreeError| {
        let text = said.to_string();
        assert!(matches!(said, VcsWorktreeError::Mismatch { .. }), "{said:?}");
        assert!(text.contains("it is a copy"), "{text}");
        assert!(text.contains(&path(&theirs.path).display().to_string()), "{text}");
    };
    refused(copy.verify(attempt(1), &ours).await.unwrap_err());
    refused(copy.save(attempt(1), &ours, &REMOVAL).await.unwrap_err());
    refused(copy.remove(attempt(1), &ours, Removal::Worktree).await.unwrap_err());
    refused(copy.make(attempt(1), &ours, &Origin::Base).await.unwrap_err());
    let found = copy.survey(std::slice::from_ref(&ours.repo)).await.unwrap();
    let [only] = found.as_slice() else { panic!("{found:?}") };
    let FoundState::Foreign { detail } = &only.state else { panic!("{only:?}") };
    assert!(detail.contains("it is a copy"), "{detail}");
    original.verify(attempt(1), &theirs).await.unwrap();
    // Once its files are out of the way the copy has nothing, and makes one of its own beside.
    fs::rename(path(&ours.path), place.home().join("away")).unwrap();
    let missing = copy.save(attempt(1), &ours, &REMOVAL).await;
    assert!(matches!(missing, Err(VcsWorktreeError::Gone { .. })), "{missing:?}");
    copy.remove(attempt(1), &ours, Removal::Worktree).await.unwrap();
    let head = original.verify(attempt(1), &theirs).await.unwrap().head;
    let removed = Removed { head, branch: Some(ours.branch.clone()), snapshot: None };
    let made = copy.make(attempt(1), &ours, &Origin::Removed(removed)).await.unwrap();
    assert_eq!(made.branch, None, "the original is on the branch");
    fs::write(path(&ours.path).join("new"), "work\n").unwrap();
    // Each has its own; neither finds the other's by the attempt.
    goes_and_comes_back(&original, &theirs).await;
    goes_and_comes_back(&copy, &ours).await;
    original.save_and_remove(attempt(1), &theirs, &REMOVAL).await.unwrap();
    assert_eq!(listed(&place, &ours), [path(&ours.path)]);
    copy.verify(attempt(1), &ours).await.unwrap();
}

#[tokio::test]
async fn a_copy_takes_over_once_its_original_is_out_of_the_way() {
    let place = GitPlace::default();
    let theirs = made(&place).await;
    copy(&place);
    let ours = in_folder(&place, &theirs, ELSEWHERE);
    let copy = open_at(&place, ELSEWHERE).await;
    copy.verify(attempt(1), &ours).await.unwrap_err();
    // Another data directory has come there by now.
    fs::rename(place.home().join(DATA), place.home().join("old")).unwrap();
    let root = place.home().join(DATA).join("worktrees");
    let stranger = GitOptions::new("a stranger", root, place.env());
    let stranger = GitWorktrees::open(stranger).await.unwrap();
    copy.verify(attempt(1), &ours).await.unwrap();
    goes_and_comes_back(&copy, &ours).await;
    assert!(stranger.survey(std::slice::from_ref(&ours.repo)).await.unwrap().is_empty());
    assert_eq!(everything(&place.home().join("old/worktrees")), 1, "its files are untouched");
}

/// How many untracked files of the user are in the worktrees below a root.
fn everything(root: &Path) -> usize {
    let folders = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let worktrees = folders.filter(|folder| folder.is_dir()).flat_map(|folder| {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    });
    worktrees.filter(|worktree| worktree.join("new").exists()).count()
}
