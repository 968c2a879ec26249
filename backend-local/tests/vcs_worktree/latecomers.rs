//! Whoever still has a way into a worktree when its deletion has begun: what he does is kept and reported.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use windlass_conformance::vcs_worktree::{MakeAtOnce as _, VcsWorktreePlace as _};
use windlass_core::vcs_worktree::{
    BranchFate, FoundState, Origin, Removal, SaveFrom, SaveRequest, Unfinished, Unsavable,
    VcsWorktree as _, VcsWorktreeError, VcsWorktreeExt as _,
};
use windlass_core::workspace::{Oid, Worktree};
use windlass_local::GitWorktrees;

use crate::comebacks::origin;
use crate::place::{GitPlace, REMOVAL, attempt, path};
use crate::removal::{aside, assert_gone, assert_removed, at, beside, created, open, trash};
use crate::strangers::{Mounted, Stranger, on_tmpfs};

/// A removal that crashed right after its deletion began.
async fn deleting(place: &GitPlace, request: &SaveRequest) -> Worktree {
    let (vcs, worktree) = created(place).await;
    vcs.save(attempt(1), &worktree, request).await.unwrap();
    fs::rename(beside(&worktree, ".saved"), beside(&worktree, ".deleting")).unwrap();
    worktree
}

/// The one thing that had to stay, and what is said of it.
async fn leftover(vcs: &GitWorktrees) -> (PathBuf, String) {
    vcs.settle().await.unwrap();
    let found = vcs.survey(&[]).await.unwrap();
    let [left] = found.as_slice() else { panic!("{found:?}") };
    let FoundState::Leftover { detail } = &left.state else { panic!("{left:?}") };
    assert_eq!(left.attempt, Some(attempt(1)));
    (path(&left.path), detail.clone())
}

#[tokio::test]
async fn what_was_staged_after_the_deletion_began_is_kept() {
    let place = GitPlace::default();
    let worktree = deleting(&place, &REMOVAL).await;
    fs::write(aside(&worktree).join("sub/numbers"), "late\n").unwrap();
    place.ok(&aside(&worktree), &["add", "sub/numbers"]);
    let staged = place.ok(&aside(&worktree), &["rev-parse", ":sub/numbers"]);
    fs::write(aside(&worktree).join("sub/numbers"), "1\n2\n3\n").unwrap();
    let vcs = open(&place).await;
    vcs.remove(attempt(1), &worktree, Removal::Worktree).await.unwrap();
    vcs.settle().await.unwrap();
    assert_removed(&place, &worktree);
    let found = vcs.survey(&[]).await.unwrap();
    let index = found.iter().map(|found| path(&found.path).join("index")).find(|at| at.exists());
    let index = index.unwrap_or_else(|| panic!("{found:?}"));
    let listed = std::process::Command::new("git")
        .args(["ls-files", "--stage", "sub/numbers"])
        .current_dir(path(&worktree.repo))
        .env("GIT_DIR", ".")
        .env("GIT_INDEX_FILE", &index)
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains(&staged), "{listed}");
    // It stays until it is taken away, by whichever host.
    drop(vcs);
    let vcs = open(&place).await;
    vcs.settle().await.unwrap();
    assert!(index.exists());
    for found in vcs.survey(&[]).await.unwrap() {
        fs::remove_dir_all(path(&found.path)).unwrap();
    }
    assert_gone(&place, &vcs, &worktree).await;
}

#[tokio::test]
async fn a_commit_on_no_branch_after_the_deletion_began_is_kept() {
    let place = GitPlace::default();
    let worktree = deleting(&place, &REMOVAL).await;
    place.ok(&aside(&worktree), &["switch", "--quiet", "--detach"]);
    place.ok(&aside(&worktree), &["commit", "--quiet", "--allow-empty", "--message", "late"]);
    let late = place.ok(&aside(&worktree), &["rev-parse", "HEAD"]);
    let vcs = open(&place).await;
    vcs.remove(attempt(1), &worktree, Removal::Worktree).await.unwrap();
    let (left, detail) = leftover(&vcs).await;
    assert!(detail.contains("HEAD"), "{detail}");
    assert_eq!(fs::read_to_string(left.join("HEAD")).unwrap().trim_end(), late);
    // The same attempt comes and goes again beside it.
    vcs.make(attempt(1), &worktree, &Origin::Base).await.unwrap_err();
    let removed = windlass_core::vcs_worktree::Removed {
        head: worktree.base_oid.clone(),
        branch: Some(worktree.branch.clone()),
        snapshot: None,
    };
    vcs.make(attempt(1), &worktree, &Origin::Removed(removed)).await.unwrap();
    vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.unwrap();
    assert_eq!(leftover(&vcs).await.0, left);
}

/// Where the trash is on another file system it stays in the repository, and is reported all the same.
#[tokio::test]
async fn what_cannot_be_moved_into_the_trash_stays_where_it_is() {
    let place = GitPlace::default();
    if !on_tmpfs(&place, "16m").await {
        eprintln!("not run: mounting is not allowed here");
        return;
    }
    let data = place.home().join("data");
    let mounted = Mounted(&data);
    let worktree = deleting(&place, &REMOVAL).await;
    place.ok(&aside(&worktree), &["switch", "--quiet", "--detach"]);
    let vcs = open(&place).await;
    vcs.remove(attempt(1), &worktree, Removal::Worktree).await.unwrap();
    let (left, detail) = leftover(&vcs).await;
    assert!(detail.contains("HEAD"), "{detail}");
    assert!(left.starts_with(path(&worktree.repo)) && left.join("HEAD").exists(), "{left:?}");
    fs::remove_dir_all(left).unwrap();
    vcs.settle().await.unwrap();
    assert_eq!(vcs.survey(&[]).await.unwrap(), []);
    assert_gone(&place, &vcs, &worktree).await;
    drop(vcs);
    drop(mounted);
}

/// Maps a file (readable and writable, shared) and closes it; python's own mapping would keep a descriptor.
const MAPS: &str = r#"exec python3 -c 'import ctypes, os, sys
file = os.open(sys.argv[1], os.O_RDWR)
c = ctypes.CDLL(None)
c.mmap.restype = ctypes.c_void_p
c.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
mapped = c.mmap(None, 4096, 3, 1, file, 0)
os.close(file)
print("ready", flush=True)
sys.stdin.readline()
ctypes.memmove(mapped, b"late", 4)' "$1""#;

#[tokio::test]
async fn whoever_has_a_file_mapped_for_writing_refuses_the_removal() {
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    let file = at(&worktree).join("greeting");
    let mut stranger = Stranger::new(MAPS, &[&file]);
    if stranger.line().is_none() {
        eprintln!("not run: there is no python to map a file");
        return;
    }
    let refused = vcs.save(attempt(1), &worktree, &REMOVAL).await;
    let Err(VcsWorktreeError::Occupied { detail, .. }) = refused else { panic!("{refused:?}") };
    assert!(detail.contains("has greeting mapped for writing"), "{detail}");
    assert!(!aside(&worktree).exists());
    stranger.end();
    assert_eq!(place.read(&worktree.path, "greeting").unwrap(), "lateo\n");
    vcs.save_and_remove(attempt(1), &worktree, &REMOVAL).await.unwrap();
    assert_gone(&place, &vcs, &worktree).await;
}

fn going() -> SaveRequest {
    SaveRequest { branch: BranchFate::Goes, unfinished: Unfinished::Save, ..REMOVAL }
}

/// Deletes what no branch reaches.
fn collect(place: &GitPlace, worktree: &Worktree) {
    place.ok(&path(&worktree.repo), &["reflog", "expire", "--expire=now", "--all"]);
    place.ok(&path(&worktree.repo), &["prune", "--expire=now"]);
}

#[tokio::test]
async fn a_branch_that_went_comes_back_also_where_head_was_elsewhere() {
    for elsewhere in [&["--detach", "main"][..], &["--create", "other", "main"]] {
        let place = GitPlace::default();
        let (vcs, worktree) = created(&place).await;
        place.write(&worktree.path, "new", "x\n");
        let commit = place.commit(&worktree.path, "only here");
        place.ok(&at(&worktree), &[&["switch", "--quiet"], elsewhere].concat());
        let saved = vcs.save(attempt(1), &worktree, &going()).await.unwrap();
        vcs.remove(attempt(1), &worktree, Removal::WorktreeAndBranch).await.unwrap();
        assert!(!place.branches(&worktree.repo).contains(&worktree.branch), "{elsewhere:?}");
        collect(&place, &worktree);
        let again = vcs.make(attempt(1), &worktree, &origin(&saved)).await.unwrap();
        assert_eq!((&again.head, &again.branch), (&saved.head, &saved.branch));
        let branches = place.branches(&worktree.repo);
        assert!(branches.contains(&worktree.branch), "{elsewhere:?}: {branches:?} {saved:?}");
        assert_eq!(place.tip(&worktree.repo, &worktree.branch), commit);
    }
}

#[tokio::test]
async fn a_branch_that_was_renamed_goes_and_comes_back_by_its_new_name() {
    for elsewhere in [false, true] {
        let place = GitPlace::default();
        let (vcs, worktree) = created(&place).await;
        place.write(&worktree.path, "new", "x\n");
        let commit = place.commit(&worktree.path, "only here");
        for name in ["first/name", "renamed"] {
            place.rename_branch(&worktree.path, name);
        }
        if elsewhere {
            place.ok(&at(&worktree), &["switch", "--quiet", "--detach", "main"]);
        }
        // Of nobody's branch that has come since, whatever its name.
        place.branch(&worktree.repo, "first/name");
        let saved = vcs.save(attempt(1), &worktree, &going()).await.unwrap();
        vcs.remove(attempt(1), &worktree, Removal::WorktreeAndBranch).await.unwrap();
        assert_eq!(place.branches(&worktree.repo), ["first/name", "main"]);
        collect(&place, &worktree);
        vcs.make(attempt(1), &worktree, &origin(&saved)).await.unwrap();
        assert_eq!(place.tip(&worktree.repo, "renamed"), commit);
        let current = (!elsewhere).then(|| "renamed".to_owned());
        assert_eq!(vcs.verify(attempt(1), &worktree).await.unwrap().branch, current);
    }
}

/// One whose branch somebody deleted asks for nothing, and never for the branch that he switched to.
#[tokio::test]
async fn the_branch_that_somebody_switched_to_never_goes() {
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    place.switch(&worktree.path, "theirs");
    place.delete_branch(&worktree.repo, &worktree.branch);
    vcs.save(attempt(1), &worktree, &going()).await.unwrap();
    vcs.remove(attempt(1), &worktree, Removal::WorktreeAndBranch).await.unwrap();
    assert_eq!(place.branches(&worktree.repo), ["main", "theirs"]);
    assert_eq!(place.tip(&worktree.repo, "theirs"), Oid(worktree.base_oid.0.clone()));
    vcs.settle().await.unwrap();
    assert_eq!(trash(&place), [] as [&Path; 0]);
}

/// Whoever writes into a file all the time, here in our own process, which is not looked at.
struct Restless {
    stop: Arc<AtomicBool>,
    writers: Vec<std::thread::JoinHandle<()>>,
}

impl Restless {
    /// Large and without order, so that reading and packing it takes longer than any pause of the writers.
    fn new(file: &Path) -> Self {
        let mut noise = vec![0; 4 << 20];
        for part in noise.chunks_mut(1 << 20) {
            rustix::rand::getrandom(part, rustix::rand::GetRandomFlags::empty()).unwrap();
        }
        fs::write(file, noise).unwrap();
        let file = Arc::new(fs::File::options().write(true).open(file).unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let writer = |at: u64| {
            let (file, stop) = (Arc::clone(&file), Arc::clone(&stop));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    file.write_all_at(b"x", at).unwrap();
                }
            })
        };
        Self { writers: [0, 1 << 20].map(writer).into(), stop }
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.join().unwrap();
        }
    }
}

#[tokio::test]
async fn what_never_holds_still_refuses_or_is_discarded_and_stays() {
    let place = GitPlace::default();
    let (vcs, worktree) = created(&place).await;
    place.write(&worktree.path, "new", "x\n");
    let restless = Restless::new(&at(&worktree).join("busy"));
    for from in [SaveFrom::Place, SaveFrom::Aside] {
        let refused = vcs.save(attempt(1), &worktree, &SaveRequest { from, ..REMOVAL }).await;
        let Err(VcsWorktreeError::Unsavable { entries, .. }) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(entries, ["busy: it changes while it is read"], "{from:?}");
        assert!(at(&worktree).join("busy").exists() && !aside(&worktree).exists());
    }
    let discarding = SaveRequest { unsavable: Unsavable::Discard, ..REMOVAL };
    let saved = vcs.save(attempt(1), &worktree, &discarding).await.unwrap();
    let snapshot = saved.snapshot.as_ref().unwrap();
    let left: Vec<_> = snapshot.left_out.iter().map(|left| left.path.to_string()).collect();
    assert_eq!((left, snapshot.entries), (vec!["busy".to_owned()], 1));
    vcs.remove(attempt(1), &worktree, Removal::Worktree).await.unwrap();
    // It changed after it was listed: nobody but the one who asked can say that this too may go.
    let (left, detail) = leftover(&vcs).await;
    assert!(detail.contains("busy (it was written since)"), "{detail}");
    assert!(!left.join("new").exists());
    restless.end();
    vcs.make(attempt(1), &worktree, &origin(&saved)).await.unwrap();
    assert_eq!(place.read(&worktree.path, "new").unwrap(), "x\n");
    assert!(!at(&worktree).join("busy").exists());
}
