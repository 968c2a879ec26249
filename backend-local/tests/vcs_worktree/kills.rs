//! `kill -9` at each step of saving and removing: afterwards either the worktree or its snapshot has everything, and the
//! same requests again finish the work.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use windlass_conformance::vcs_worktree::{MakeAtOnce as _, VcsWorktreePlace as _};
use windlass_core::locator::Locator;
use windlass_core::snapshot::SnapshotNumber;
use windlass_core::vcs_worktree::{
    Origin, Removal, Removed, SaveRequest, Unfinished, VcsWorktree as _, VcsWorktreeError,
    VcsWorktreeExt as _,
};
use windlass_core::workspace::{Oid, Worktree};
use windlass_local::{GitOptions, GitWorktrees};

use crate::crashes::{ORDERS, creating, killing_git};
use crate::place::{GitPlace, REMOVAL, attempt, path};
use crate::removal::{at, open, trash};

/// Also with an operation in progress.
fn forced() -> SaveRequest {
    SaveRequest { unfinished: Unfinished::Save, ..REMOVAL }
}

/// What the process that removes is to do.
#[derive(serde::Serialize, serde::Deserialize)]
struct Orders {
    home: PathBuf,
    program: PathBuf,
    number: u32,
    worktree: Worktree,
}

impl Orders {
    /// Follows the orders, if this is the process that has any.
    async fn follow() -> bool {
        let Some(path) = std::env::var_os(ORDERS) else { return false };
        let orders: Self = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let root = orders.home.join("data/worktrees");
        let env = [
            ("PATH".into(), std::env::var_os("PATH").unwrap()),
            ("HOME".into(), orders.home.clone().into_os_string()),
        ];
        let program = orders.program;
        let options = GitOptions { program, ..GitOptions::new("data", root, env) };
        let vcs = GitWorktrees::open(options).await.unwrap();
        let attempt = attempt(orders.number);
        vcs.save_and_remove(attempt, &orders.worktree, &forced()).await.unwrap();
        vcs.settle().await.unwrap();
        true
    }
}

/// A worktree with something of each kind that exists nowhere else.
async fn dirty(place: &GitPlace, repo: &Locator, number: u32) -> (Worktree, String) {
    let vcs = open(place).await;
    let worktree = place.worktree(&*vcs, repo, number).await.unwrap();
    let at = at(&worktree);
    place.ok(&at, &["switch", "--quiet", "--detach"]);
    place.write(&worktree.path, "committed", "only here\n");
    place.commit(&worktree.path, "only here");
    place.write(&worktree.path, "staged", "staged\n");
    place.ok(&at, &["add", "staged"]);
    place.write(&worktree.path, "staged", "and changed\n");
    place.write(&worktree.path, "untracked/file", "untracked\n");
    place.delete(&worktree.path, "greeting");
    (worktree.clone(), status(place, &at))
}

fn status(place: &GitPlace, at: &Path) -> String {
    place.ok(at, &["status", "--porcelain=v2", "--untracked-files=all"])
}

/// Everything is there, as it was.
#[track_caller]
fn assert_whole(place: &GitPlace, worktree: &Worktree, before: &str, step: &str) {
    assert_eq!(status(place, &at(worktree)), before, "{step}");
    assert_eq!(place.read(&worktree.path, "staged").unwrap(), "and changed\n", "{step}");
    assert_eq!(place.read(&worktree.path, "untracked/file").unwrap(), "untracked\n", "{step}");
    assert_eq!(place.indexed(&worktree.path, "staged").unwrap(), "staged\n", "{step}");
    assert_eq!(place.read(&worktree.path, "committed").unwrap(), "only here\n", "{step}");
}

/// What the next host does: it finds everything in its place or saved, removes it, and can bring it back.
async fn go_on(
    place: &GitPlace,
    worktree: &Worktree,
    number: u32,
    head: &Oid,
    before: &str,
    step: &str,
) {
    let attempt = attempt(number);
    let vcs = open(place).await;
    match vcs.verify(attempt, worktree).await {
        Ok(_) => assert_whole(place, worktree, before, step),
        Err(VcsWorktreeError::Gone { .. }) => {}
        Err(error) => panic!("{step}: {error:?}"),
    }
    match vcs.save(attempt, worktree, &forced()).await {
        Ok(saved) => assert_eq!(saved.snapshot.unwrap().number, SnapshotNumber::FIRST, "{step}"),
        // It was removed, all of it.
        Err(VcsWorktreeError::Gone { .. }) => {}
        Err(error) => panic!("{step}: {error:?}"),
    }
    vcs.remove(attempt, worktree, Removal::Worktree).await.unwrap();
    vcs.survey(&[]).await.unwrap();
    vcs.settle().await.unwrap();
    assert_eq!(trash(place), [] as [&Path; 0], "{step}");
    assert!(!at(worktree).parent().unwrap().exists(), "{step}");
    let common = path(&worktree.repo);
    assert!(!common.join("worktrees").exists(), "{step}");
    place.ok(&common, &["prune", "--expire=now"]);
    let origin = Origin::Removed(Removed {
        head: head.clone(),
        branch: None,
        snapshot: Some(SnapshotNumber::FIRST),
    });
    vcs.make(attempt, worktree, &origin).await.unwrap_or_else(|error| panic!("{step}: {error}"));
    assert_whole(place, worktree, before, step);
    vcs.save_and_remove(attempt, worktree, &SaveRequest { number: SnapshotNumber(2), ..forced() })
        .await
        .unwrap();
    vcs.settle().await.unwrap();
}

/// Lets another process remove worktrees, killed at one step after the other, until one gets through.
async fn killed_at_every_step(
    least: u32,
    run: impl Fn(&GitPlace, u32, &dyn Fn(PathBuf) -> PathBuf) -> Option<Output>,
) {
    let place = GitPlace::default();
    let repo = place.repository();
    for number in 1.. {
        let (worktree, before) = dirty(&place, &repo, number).await;
        let head = Oid(place.ok(&at(&worktree), &["rev-parse", "HEAD"]));
        let write = |program: PathBuf| {
            let orders = Orders { home: place.home(), program, number, worktree: worktree.clone() };
            let path = place.home().join("orders");
            fs::write(&path, serde_json::to_vec(&orders).unwrap()).unwrap();
            path
        };
        let Some(ended) = run(&place, number, &write) else { return };
        go_on(&place, &worktree, number, &head, &before, &format!("step {number}")).await;
        // A git of it may have been killed instead, then it failed.
        if ended.status.success() {
            assert!(number > least, "it was killed {} times", number - 1);
            return;
        }
    }
}

#[tokio::test]
async fn a_removal_killed_at_any_command_loses_nothing() {
    let name = "kills::a_removal_killed_at_any_command_loses_nothing";
    if Orders::follow().await {
        return;
    }
    for after in [false, true] {
        killed_at_every_step(3, |place, number, write| {
            // The first call asks for the version.
            let orders = write(killing_git(place, number + 1, after));
            Some(creating(name, &orders).output().unwrap())
        })
        .await;
    }
}

/// At every system call that changes what the next host finds, before its effect.
#[tokio::test]
async fn a_removal_killed_at_any_change_loses_nothing() {
    let name = "kills::a_removal_killed_at_any_change_loses_nothing";
    if Orders::follow().await {
        return;
    }
    for (call, least) in [("renameat2", 2), ("rename", 2), ("unlink", 1)] {
        killed_at_every_step(least, |_, number, write| {
            let own = creating(name, &write("git".into()));
            let mut traced = Command::new("strace");
            // It counts in each thread.
            let inject = format!("inject={call}:signal=KILL:when={number}");
            traced.args(["-f", "-qqq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
            traced.args(["-e", &inject]).arg(own.get_program()).args(own.get_args());
            traced.envs(own.get_envs().filter_map(|(key, value)| Some((key, value?))));
            match traced.output() {
                Ok(ended) => Some(ended),
                Err(_) => {
                    eprintln!("not run: there is no strace here");
                    None
                }
            }
        })
        .await;
    }
}
