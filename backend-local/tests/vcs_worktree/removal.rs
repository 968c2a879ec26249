//! Removal: only what was saved goes, only as it was saved, and a crash at any point is gone on from.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use windlass_conformance::vcs_worktree::{MakeAtOnce as _, VcsWorktreePlace as _};
use windlass_core::vcs_worktree::{
    BranchFate, Origin, Removal, Removed, SaveRequest, Saved, Unfinished, VcsWorktree as _,
    VcsWorktreeError, VcsWorktreeExt as _,
};
use windlass_core::workspace::Worktree;
use windlass_local::GitWorktrees;

use crate::place::{GitPlace, REMOVAL, attempt, path};

pub(crate) async fn open(place: &GitPlace) -> Arc<GitWorktrees> {
    GitWorktrees::open(place.options("data")).await.unwrap()
}

pub(crate) async fn created(place: &GitPlace) -> (Arc<GitWorktrees>, Worktree) {
    let repo = place.repository();
    let vcs = open(place).await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    (vcs, worktree)
}

pub(crate) fn admin(worktree: &Worktree) -> PathBuf {
    let at = path(&worktree.path);
    path(&worktree.repo).join("worktrees").join(at.file_name().unwrap())
}

/// What is beside the worktree while it is being removed.
pub(crate) fn beside(worktree: &Worktree, end: &str) -> PathBuf {
    path(&worktree.path).with_file_name(format!(".removing-{}{end}", attempt(1)))
}

pub(crate) fn aside(worktree: &Worktree) -> PathBuf {
    beside(worktree, "")
}

pub(crate) fn at(worktree: &Worktree) -> PathBuf {
    path(&worktree.path)
}

/// The folders of the trash.
pub(crate) fn trash(place: &GitPlace) -> Vec<PathBuf> {
    let root = place.home().join("data/worktrees/.trash");
    let mut folders: Vec<_> =
        fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

#[track_caller]
pub(crate) fn assert_unsaved<T: std::fmt::Debug>(result: &Result<T, VcsWorktreeError>, said: &str) {
    let Err(VcsWorktreeError::Unsaved { detail, .. }) = result else { panic!("{result:?}") };
    assert!(detail.contains(said), "{said:?} in {detail}");
}

/// Nothing of it is left in the repository or beside it, but the branch.
#[track_caller]
pub(crate) fn assert_removed(place: &GitPlace, worktree: &Worktree) {
    let common = path(&worktree.repo);
    let beside = at(worktree).parent().unwrap().to_owned();
    assert!(!beside.exists(), "{:?}", fs::read_dir(&beside).unwrap().collect::<Vec<_>>());
    assert!(!common.join("worktrees").exists());
    let leftovers = fs::read_dir(&common)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("removed"));
    assert_eq!(leftovers.count(), 0);
    place.tip(&worktree.repo, &worktree.branch);
    place.ok(&common, &["fsck", "--strict"]);
}

/// As that, and every file of it is deleted.
pub(crate) async fn assert_gone(place: &GitPlace, vcs: &GitWorktrees, worktree: &Worktree) {
    vcs.settle().await.unwrap();
    assert_eq!(trash(place), [] as [&Path; 0]);
    assert_removed(place, worktree);
}

fn removed(saved: &Saved) -> Origin {
    let snapshot = saved.snapshot.as_ref().map(|snapshot| snapshot.number);
    Origin::Removed(Removed { head: saved.head.clone(), branch: saved.branch.clone(), snapshot })
}

#[tokio::test]
async fn what_is_clean_needs_no_snapshot() {
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    let at = at(&worktree);
    place.write(&worktree.path, "new", "x\n");
    place.commit(&worktree.path, "first try");
    fs::set_permissions(at.join("greeting"), std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .unwrap();
    let head = place.tip(&worktree.repo, &worktree.branch);
    let saved = vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.unwrap();
    assert_eq!(saved, Saved { head, branch: Some(worktree.branch.clone()), snapshot: None });
    assert_gone(&place, &vcs, &worktree).await;
    // What is gone is no error.
    vcs.remove(attempt(1), &worktree, Removal::Worktree).await.unwrap();
}

#[tokio::test]
async fn what_was_not_saved_is_not_removed() {
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    for removal in [Removal::Worktree, Removal::WorktreeAndBranch] {
        assert_unsaved(&vcs.remove(attempt(1), &worktree, removal).await, "not saved");
        vcs.verify(attempt(1), &worktree).await.unwrap();
    }
    // Saved at its place is not saved from aside.
    let in_place = SaveRequest { from: windlass_core::vcs_worktree::SaveFrom::Place, ..REMOVAL };
    vcs.save(attempt(1), &worktree, &in_place).await.unwrap();
    assert_unsaved(&vcs.remove(attempt(1), &worktree, Removal::Worktree).await, "not saved");
    vcs.verify(attempt(1), &worktree).await.unwrap();
    assert!(!aside(&worktree).exists());
}

/// Once saved it is aside, answers the same again, and making it again puts it back.
#[tokio::test]
async fn what_was_saved_is_aside_until_it_is_removed_or_made_again() {
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    place.write(&worktree.path, "new", "x\n");
    let saved = vcs.save(attempt(1), &worktree, &REMOVAL).await.unwrap();
    assert!(saved.snapshot.is_some());
    assert!(!at(&worktree).exists() && aside(&worktree).join("new").exists());
    let gone = vcs.verify(attempt(1), &worktree).await;
    assert!(matches!(gone, Err(VcsWorktreeError::Gone { .. })), "{gone:?}");
    let next_host = open(&place).await;
    assert_eq!(next_host.save(attempt(1), &worktree, &REMOVAL).await.unwrap(), saved);
    // Git knows where it is, and does not take it for gone.
    place.ok(&path(&worktree.repo), &["worktree", "prune"]);
    assert!(admin(&worktree).exists());
    next_host.make(attempt(1), &worktree, &removed(&saved)).await.unwrap();
    assert_eq!(place.read(&worktree.path, "new").unwrap(), "x\n");
    vcs.verify(attempt(1), &worktree).await.unwrap();
    assert_eq!(place.ok(&at(&worktree), &["status", "--porcelain"]), "?? new");
    assert!(!beside(&worktree, ".saved").exists());
}

type Dirt = fn(&GitPlace, &Worktree);

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
async fn what_is_not_at_rest_refuses_unless_it_is_to_be_saved_so() {
    let kinds: [(&str, Dirt); 5] = [
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
    ];
    for (said, make) in kinds {
        let place = GitPlace::default();
        let (vcs, worktree) = created(&place).await;
        make(&place, &worktree);
        let before = place.ok(&at(&worktree), &["status", "--porcelain", "--ignored"]);
        let refused = vcs.save(attempt(1), &worktree, &REMOVAL).await;
        let Err(VcsWorktreeError::Unfinished { detail, .. }) = refused else {
            panic!("{refused:?}")
        };
        assert!(detail.contains(said), "{said:?} in {detail}");
        assert_eq!(place.ok(&at(&worktree), &["status", "--porcelain", "--ignored"]), before);
        assert!(!aside(&worktree).exists());
        let forced = SaveRequest { unfinished: Unfinished::Save, ..REMOVAL };
        vcs.save_and_remove(attempt(1), &worktree, &forced).await.unwrap();
        assert_gone(&place, &vcs, &worktree).await;
    }
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
    let vcs = open(&place).await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    symlink(&outside, at(&worktree).join("untracked link")).unwrap();
    vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.unwrap();
    assert_gone(&place, &vcs, &worktree).await;
    assert!(outside.join("precious").exists());
}

#[tokio::test]
async fn sparse_checkouts_are_removed() {
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    let at = at(&worktree);
    place.ok(&at, &["sparse-checkout", "set", "nothing"]);
    assert!(!at.join("sub").exists());
    vcs.verify(attempt(1), &worktree).await.unwrap();
    assert!(!vcs.status(attempt(1), &worktree).await.unwrap().dirty);
    vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.unwrap();
    assert_gone(&place, &vcs, &worktree).await;
}

/// Names and modes that make deleting hard.
#[tokio::test]
async fn odd_names_modes_and_links_are_deleted() {
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::PermissionsExt;
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    let at = at(&worktree);
    let names: [&[u8]; 4] = [b"new\nline", b"\xff\xfe", &[b'n'; 255], b" "];
    for name in names {
        fs::write(at.join(std::ffi::OsStr::from_bytes(name)), "x").unwrap();
    }
    fs::hard_link(at.join(" "), at.join("second name")).unwrap();
    fs::create_dir_all(at.join("closed/below")).unwrap();
    fs::write(at.join("closed/below/file"), "x").unwrap();
    fs::set_permissions(at.join("closed/below"), PermissionsExt::from_mode(0o500)).unwrap();
    let saved = vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.unwrap();
    assert!(saved.snapshot.is_some());
    assert_gone(&place, &vcs, &worktree).await;
}

type Crash = fn(&GitPlace, &Worktree);

fn deleting(_: &GitPlace, worktree: &Worktree) {
    fs::rename(beside(worktree, ".saved"), beside(worktree, ".deleting")).unwrap();
}

fn unregistered(place: &GitPlace, worktree: &Worktree) -> PathBuf {
    deleting(place, worktree);
    let discarded = path(&worktree.repo).join(format!("windlass-removed-{}", attempt(1)));
    fs::rename(admin(worktree), &discarded).unwrap();
    fs::remove_dir(path(&worktree.repo).join("worktrees")).unwrap();
    discarded
}

fn in_trash(place: &GitPlace, worktree: &Worktree) -> PathBuf {
    fs::remove_dir_all(unregistered(place, worktree)).unwrap();
    let folder = place.home().join("data/worktrees/.trash/1");
    fs::create_dir(&folder).unwrap();
    fs::hard_link(beside(worktree, ".deleting"), folder.join("record")).unwrap();
    folder
}

/// Where a removal that crashed may have stopped.
const CRASHES: [(&str, Crash); 10] = [
    ("saved", |_, _| {}),
    ("deleting", deleting),
    ("half unregistered", |place, worktree| {
        fs::remove_file(unregistered(place, worktree).join("HEAD")).unwrap();
    }),
    ("unregistered", |place, worktree| {
        fs::remove_dir_all(unregistered(place, worktree)).unwrap();
    }),
    ("a folder in the trash", |place, worktree| {
        fs::remove_file(in_trash(place, worktree).join("record")).unwrap();
    }),
    ("its record in the trash", |place, worktree| drop(in_trash(place, worktree))),
    ("itself in the trash", |place, worktree| {
        fs::rename(aside(worktree), in_trash(place, worktree).join("tree")).unwrap();
    }),
    ("all of it in the trash", |place, worktree| {
        fs::rename(aside(worktree), in_trash(place, worktree).join("tree")).unwrap();
        fs::remove_file(beside(worktree, ".deleting")).unwrap();
    }),
    ("half deleted", |place, worktree| {
        let folder = in_trash(place, worktree);
        fs::rename(aside(worktree), folder.join("tree")).unwrap();
        fs::remove_file(beside(worktree, ".deleting")).unwrap();
        fs::remove_file(folder.join("tree/.git")).unwrap();
        fs::remove_dir_all(folder.join("tree/sub")).unwrap();
    }),
    ("deleted", |place, worktree| {
        fs::remove_dir_all(aside(worktree)).unwrap();
        fs::remove_file(in_trash(place, worktree).join("record")).unwrap();
        fs::remove_file(beside(worktree, ".deleting")).unwrap();
    }),
];

#[tokio::test]
async fn a_removal_that_crashed_anywhere_is_gone_on_with() {
    for (name, crash) in CRASHES {
        let place = GitPlace::default();
        let (vcs, worktree) = created(&place).await;
        place.write(&worktree.path, "new", "x\n");
        let saved = vcs.save(attempt(1), &worktree, &REMOVAL).await.unwrap();
        drop(vcs);
        crash(&place, &worktree);
        let vcs = open(&place).await;
        let gone = vcs.verify(attempt(1), &worktree).await;
        assert!(matches!(gone, Err(VcsWorktreeError::Gone { .. })), "{name}: {gone:?}");
        if beside(&worktree, ".saved").exists() || beside(&worktree, ".deleting").exists() {
            let again = vcs.save(attempt(1), &worktree, &REMOVAL).await.unwrap();
            assert_eq!(again, saved, "{name}");
        }
        vcs.remove(attempt(1), &worktree, Removal::Worktree)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        fs::create_dir_all(at(&worktree).parent().unwrap()).unwrap();
        vcs.remove(attempt(1), &worktree, Removal::Worktree).await.unwrap();
        vcs.survey(&[]).await.unwrap();
        assert_gone(&place, &vcs, &worktree).await;
        vcs.make(attempt(1), &worktree, &removed(&saved)).await.unwrap();
        assert_eq!(place.read(&worktree.path, "new").unwrap(), "x\n", "{name}");
    }
}

/// Where a saving that crashed may have stopped: whoever looks next finds everything in its place.
#[tokio::test]
async fn a_saving_that_crashed_anywhere_is_put_back() {
    type Crash = fn(&Worktree);
    fn taken(worktree: &Worktree) {
        fs::rename(at(worktree), aside(worktree)).unwrap();
    }
    let crashes: [(&str, Crash); 4] = [
        ("taken aside", taken),
        ("registered aside", |worktree| {
            taken(worktree);
            let link = aside(worktree).join(".git");
            fs::write(admin(worktree).join("gitdir"), format!("{}\n", link.display())).unwrap();
        }),
        ("half a record", |worktree| {
            taken(worktree);
            fs::write(beside(worktree, ".saved"), "windlass-saved 1\n{").unwrap();
        }),
        ("a record that was being written", |worktree| {
            taken(worktree);
            fs::write(beside(worktree, ".saved.new"), "windlass-saved 1\n{").unwrap();
        }),
    ];
    type Look = fn(Arc<GitWorktrees>, Worktree) -> futures::future::BoxFuture<'static, ()>;
    let looks: [Look; 4] = [
        |vcs, worktree| {
            Box::pin(async move { drop(vcs.verify(attempt(1), &worktree).await.unwrap()) })
        },
        |vcs, worktree| {
            Box::pin(async move { drop(vcs.status(attempt(1), &worktree).await.unwrap()) })
        },
        |vcs, worktree| {
            Box::pin(async move {
                drop(vcs.make(attempt(1), &worktree, &Origin::Base).await.unwrap());
            })
        },
        |vcs, worktree| {
            Box::pin(async move {
                let removed = vcs.remove(attempt(1), &worktree, Removal::Worktree).await;
                assert_unsaved(&removed, "not saved");
            })
        },
    ];
    for (name, crash) in crashes {
        for look in looks {
            let place = GitPlace::default();
            let (vcs, worktree) = created(&place).await;
            place.write(&worktree.path, "new", "x\n");
            drop(vcs);
            crash(&worktree);
            let vcs = open(&place).await;
            look(Arc::clone(&vcs), worktree.clone()).await;
            assert!(!aside(&worktree).exists() && !beside(&worktree, ".saved").exists(), "{name}");
            assert_eq!(place.ok(&at(&worktree), &["status", "--porcelain"]), "?? new", "{name}");
            vcs.verify(attempt(1), &worktree).await.unwrap();
            vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.unwrap();
            assert_gone(&place, &vcs, &worktree).await;
        }
    }
}

#[tokio::test]
async fn what_took_its_place_meanwhile_is_named_and_left_alone() {
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    fs::rename(at(&worktree), aside(&worktree)).unwrap();
    place.write(&worktree.path, "stranger", "x\n");
    for _ in 0..2 {
        let refused = vcs.save(attempt(1), &worktree, &REMOVAL).await;
        let Err(VcsWorktreeError::Mismatch { detail, .. }) = refused else { panic!("{refused:?}") };
        assert!(detail.contains(".removing-"), "{detail}");
        assert!(aside(&worktree).join("greeting").exists());
    }
    fs::remove_dir_all(at(&worktree)).unwrap();
    vcs.verify(attempt(1), &worktree).await.unwrap();
    // Once it is saved, what took its place does not hinder.
    vcs.save(attempt(1), &worktree, &REMOVAL).await.unwrap();
    place.write(&worktree.path, "stranger", "x\n");
    vcs.remove(attempt(1), &worktree, Removal::Worktree).await.unwrap();
    assert_eq!(place.read(&worktree.path, "stranger").unwrap(), "x\n");
    assert!(!aside(&worktree).exists() && !admin(&worktree).exists());
}

/// What changed in its git state after it was saved is no more what was saved.
#[tokio::test]
async fn git_state_that_changed_after_the_saving_puts_it_back() {
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    vcs.save(attempt(1), &worktree, &REMOVAL).await.unwrap();
    place.write(&crate::place::locator(&aside(&worktree)), "staged", "x\n");
    place.ok(&aside(&worktree), &["add", "staged"]);
    assert_unsaved(&vcs.remove(attempt(1), &worktree, Removal::Worktree).await, "changed since");
    assert_eq!(place.ok(&at(&worktree), &["status", "--porcelain"]), "A  staged");
    let saved = vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.unwrap();
    assert!(saved.snapshot.is_some());
    assert_gone(&place, &vcs, &worktree).await;
}

#[tokio::test]
async fn a_snapshot_that_went_refuses_the_removal() {
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    place.write(&worktree.path, "new", "x\n");
    let saved = vcs.save(attempt(1), &worktree, &REMOVAL).await.unwrap();
    fs::remove_file(path(&saved.snapshot.as_ref().unwrap().archive)).unwrap();
    let refused = vcs.remove(attempt(1), &worktree, Removal::Worktree).await;
    assert!(matches!(refused, Err(VcsWorktreeError::NoSnapshot { .. })), "{refused:?}");
    assert_eq!(place.read(&worktree.path, "new").unwrap(), "x\n");
    vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.unwrap();
    assert_gone(&place, &vcs, &worktree).await;
}

/// The branch goes on request, with what only it reaches in the snapshot.
#[tokio::test]
async fn the_branch_goes_only_when_nothing_goes_with_it() {
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    let common = path(&worktree.repo);
    place.write(&worktree.path, "new", "x\n");
    let commit = place.commit(&worktree.path, "only here");
    vcs.save(attempt(1), &worktree, &REMOVAL).await.unwrap();
    let refused = vcs.remove(attempt(1), &worktree, Removal::WorktreeAndBranch).await;
    assert_unsaved(&refused, "no other branch reaches");
    vcs.verify(attempt(1), &worktree).await.unwrap();
    let goes = SaveRequest { branch: BranchFate::Goes, ..REMOVAL };
    let saved = vcs.save(attempt(1), &worktree, &goes).await.unwrap();
    assert_eq!(saved.snapshot.as_ref().unwrap().commits, 1);
    for _ in 0..2 {
        vcs.remove(attempt(1), &worktree, Removal::WorktreeAndBranch).await.unwrap();
        assert_eq!(place.branches(&worktree.repo), ["main"]);
    }
    place.ok(&common, &["reflog", "expire", "--expire=now", "--all"]);
    place.ok(&common, &["prune", "--expire=now"]);
    vcs.make(attempt(1), &worktree, &removed(&saved)).await.unwrap();
    assert_eq!(place.tip(&worktree.repo, &worktree.branch), commit);
}

#[tokio::test]
async fn a_branch_that_others_reach_use_or_moved_goes_or_stays() {
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    let common = path(&worktree.repo);
    // Nothing is on it that main does not reach.
    vcs.save(attempt(1), &worktree, &REMOVAL).await.unwrap();
    let elsewhere = place.home().join("elsewhere");
    place.ok(&common, &["worktree", "add", "--force", "-q", elsewhere.to_str().unwrap(), "main~0"]);
    place.ok(&elsewhere, &["symbolic-ref", "HEAD", &format!("refs/heads/{}", worktree.branch)]);
    fs::remove_file(admin(&worktree).join("HEAD")).unwrap();
    fs::write(admin(&worktree).join("HEAD"), format!("{}\n", worktree.base_oid)).unwrap();
    let refused = vcs.remove(attempt(1), &worktree, Removal::WorktreeAndBranch).await;
    assert_unsaved(&refused, "changed since");
    vcs.save(attempt(1), &worktree, &REMOVAL).await.unwrap();
    let refused = vcs.remove(attempt(1), &worktree, Removal::WorktreeAndBranch).await;
    assert_unsaved(&refused, "checked out in");
    place.ok(&common, &["worktree", "remove", "--force", elsewhere.to_str().unwrap()]);
    vcs.save(attempt(1), &worktree, &REMOVAL).await.unwrap();
    let tree = format!("{}^{{tree}}", worktree.base_oid);
    let moved = place.ok(&common, &["commit-tree", "-m", "moved", &tree]);
    place.ok(&common, &["update-ref", &format!("refs/heads/{}", worktree.branch), &moved]);
    let refused = vcs.remove(attempt(1), &worktree, Removal::WorktreeAndBranch).await;
    assert_unsaved(&refused, "has moved");
    place.ok(&common, &["branch", "also", &moved]);
    vcs.save(attempt(1), &worktree, &REMOVAL).await.unwrap();
    vcs.remove(attempt(1), &worktree, Removal::WorktreeAndBranch).await.unwrap();
    assert_eq!(place.branches(&worktree.repo), ["also", "main"]);
    // A worktree that is gone already: the branch alone.
    let second = place.worktree(&*vcs, &worktree.repo, 2).await.unwrap();
    vcs.save_and_remove(attempt(2), &second, &REMOVAL).await.unwrap();
    place.ok(&common, &["update-ref", &format!("refs/heads/{}", second.branch), &moved]);
    vcs.remove(attempt(2), &second, Removal::WorktreeAndBranch).await.unwrap();
    assert_eq!(place.branches(&worktree.repo), ["also", "main"]);
}

#[tokio::test]
async fn what_was_never_whole_is_undone() {
    for save_first in [false, true] {
        let place = GitPlace::default();
        let (vcs, worktree) = created(&place).await;
        let name = at(&worktree).file_name().unwrap().to_string_lossy().into_owned();
        let note = at(&worktree).with_file_name(format!(".{name}.creating"));
        let marker = fs::read_to_string(admin(&worktree).join("windlass-worktree")).unwrap();
        let (branch, oid) = (&worktree.branch, &worktree.base_oid);
        fs::write(note, format!("{marker}branch={branch}\noid={oid}\nstart=new-branch\n")).unwrap();
        fs::remove_file(admin(&worktree).join("windlass-worktree")).unwrap();
        if save_first {
            let gone = vcs.save(attempt(1), &worktree, &REMOVAL).await;
            assert!(matches!(gone, Err(VcsWorktreeError::Gone { .. })), "{gone:?}");
        }
        vcs.remove(attempt(1), &worktree, Removal::Worktree).await.unwrap();
        assert!(!at(&worktree).parent().unwrap().exists());
        assert!(!path(&worktree.repo).join("worktrees").exists());
        assert_eq!(place.branches(&worktree.repo), ["main"]);
        assert_eq!(vcs.survey(std::slice::from_ref(&worktree.repo)).await.unwrap(), []);
    }
}
