//! Creation under `kill -9` at each step, in several processes at once, and after a power cut.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use windlass_conformance::vcs_worktree::{MakeAtOnce as _, VcsWorktreePlace as _};
use windlass_core::id::AttemptId;
use windlass_core::locator::Locator;
use windlass_core::vcs_worktree::{
    CreateMode, Creation, Origin, VcsWorktree, VcsWorktreeError, WorktreeRequest,
};
use windlass_core::workspace::Worktree;
use windlass_local::{GitOptions, GitWorktrees};

use crate::place::{GitPlace, attempt, path, step_command, write_program};

/// Tells a test that it is the process that creates, and where its orders are.
pub(crate) const ORDERS: &str = "WORKTREE_TEST_ORDERS";

/// Runs one test of this program again, as the process that creates.
pub(crate) fn creating(name: &str, orders: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -c 0; exec \"$0\" --exact \"$1\" --nocapture"]);
    command.arg(std::env::current_exe().unwrap()).arg(name).env(ORDERS, orders);
    command
}

/// What a process that creates is to do.
#[derive(serde::Serialize, serde::Deserialize)]
struct Orders {
    home: PathBuf,
    data_directory: String,
    program: PathBuf,
    /// With the numbers of their attempts.
    worktrees: Vec<(u32, Worktree)>,
}

impl Orders {
    fn write(&self, path: &Path) {
        fs::write(path, serde_json::to_vec(self).unwrap()).unwrap();
    }

    /// Follows the orders, if this is the process that has any.
    async fn follow() -> bool {
        let Some(path) = std::env::var_os(ORDERS) else { return false };
        let orders: Self = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let root = orders.home.join(&orders.data_directory).join("worktrees");
        let env = [
            ("PATH".into(), std::env::var_os("PATH").unwrap()),
            ("HOME".into(), orders.home.clone().into_os_string()),
        ];
        let options = GitOptions {
            program: orders.program,
            ..GitOptions::new(orders.data_directory, root, env)
        };
        let vcs = GitWorktrees::open(options).await.unwrap();
        let making = orders.worktrees.iter().map(|(number, worktree)| {
            let vcs = &vcs;
            async move { make(&**vcs, attempt(*number), worktree).await }
        });
        for made in futures::future::join_all(making).await {
            made.unwrap();
        }
        true
    }
}

/// Makes a worktree to its end; dies as its step does.
async fn make(
    vcs: &dyn VcsWorktree,
    attempt: AttemptId,
    worktree: &Worktree,
) -> Result<(), VcsWorktreeError> {
    let made = vcs.create(attempt, worktree, &Origin::Base, CreateMode::Begin).await?;
    if let Creation::Run(step) = made {
        if step_command(&step).status().unwrap().signal().is_some() {
            rustix::process::kill_process(rustix::process::getpid(), Signal::KILL).unwrap();
        }
        vcs.create(attempt, worktree, &Origin::Base, CreateMode::Conclude).await?;
    }
    Ok(())
}

/// A git that kills whoever called it, at one call.
pub(crate) fn killing_git(place: &GitPlace, at: u32, after: bool) -> PathBuf {
    let (program, count) = (place.home().join("killing-git"), place.home().join("calls"));
    drop(fs::remove_file(&count));
    let run = if after { "git \"$@\"" } else { ":" };
    let script = format!(
        "#!/bin/sh\nn=$(($(cat {count:?} 2>/dev/null || echo 0) + 1))\necho $n > {count:?}\n\
         if [ $n = {at} ]; then {run}; kill -9 $PPID; exit 1; fi\nexec git \"$@\"\n"
    );
    write_program(&program, script);
    program
}

async fn plan(place: &GitPlace, vcs: &dyn VcsWorktree, repo: &Locator, number: u32) -> Worktree {
    let request = WorktreeRequest { copy: vec![".env".to_owned()], ..place.request(repo, number) };
    vcs.plan(request).await.unwrap().worktree
}

/// What must hold after the next host has created it.
fn assert_whole(place: &GitPlace, repo: &Locator, worktree: &Worktree, number: u32) {
    let at = path(&worktree.path);
    let status = place.ok(&at, &["status", "--porcelain"]).replace("\n?? hooked", "");
    assert_eq!(status, "?? .env");
    assert_eq!(place.read(&worktree.path, ".env").as_deref(), Some("A=1\n"));
    assert_eq!(place.ok(&at, &["branch", "--show-current"]), worktree.branch);
    let listed = place.ok(&path(repo), &["worktree", "list", "--porcelain"]);
    assert_eq!(listed.matches("worktree ").count(), number as usize + 1, "{listed}");
    assert!(!listed.contains("locked") && !listed.contains("prunable"), "{listed}");
    let left: Vec<_> = fs::read_dir(at.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('.'))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    place.ok(&path(repo), &["fsck", "--strict", "--no-dangling"]);
}

/// Kills the creating process at every call of git, before and after it, until it gets through.
async fn killed_at_every_git(name: &str, prepare: impl Fn(&GitPlace, &Locator)) {
    if Orders::follow().await {
        return;
    }
    for after in [false, true] {
        let place = GitPlace::default();
        let repo = place.repository();
        prepare(&place, &repo);
        let hooked = path(&repo).join(".git/hooks/post-checkout").exists();
        place.write(&repo, ".env", "A=1\n");
        let mut number = 0;
        loop {
            number += 1;
            let vcs = place.open().await;
            let worktree = plan(&place, &*vcs, &repo, number).await;
            drop(vcs);
            // The first call asks for the version.
            let program = killing_git(&place, number + 1, after);
            let orders = place.home().join("orders");
            let data_directory = "data".to_owned();
            let worktrees = vec![(number, worktree.clone())];
            Orders { home: place.home(), data_directory, program, worktrees }.write(&orders);
            let ended = creating(name, &orders).output().unwrap();
            let killed = ended.status.signal() == Some(9);
            assert!(killed || ended.status.success(), "{ended:?}");
            let vcs = place.open().await;
            place
                .make(&*vcs, attempt(number), &worktree, &Origin::Base)
                .await
                .unwrap_or_else(|error| panic!("call {number}, after: {after}: {error}"));
            assert_eq!(place.hook_runs(&repo), if hooked { number } else { 0 }, "{number}");
            assert_whole(&place, &repo, &worktree, number);
            if !killed {
                break;
            }
        }
        assert!(number > 3, "it was killed {number} times");
    }
}

#[tokio::test]
async fn a_creation_killed_at_any_command_is_done_again() {
    let name = "crashes::a_creation_killed_at_any_command_is_done_again";
    killed_at_every_git(name, |_, _| {}).await;
}

#[tokio::test]
async fn a_creation_by_git_killed_at_any_command_is_done_again() {
    let name = "crashes::a_creation_by_git_killed_at_any_command_is_done_again";
    killed_at_every_git(name, |place, repo| {
        place.write(repo, ".gitattributes", "greeting filter=up\n");
        place.commit(repo, "filtered");
        let dir = path(repo);
        place.ok(&dir, &["config", "filter.up.smudge", "tr a-z A-Z"]);
        place.ok(&dir, &["config", "filter.up.clean", "tr A-Z a-z"]);
        place.hook(repo, false);
    })
    .await;
}

#[tokio::test]
async fn a_creation_killed_while_files_are_written_is_done_again() {
    if Orders::follow().await {
        return;
    }
    let name = "crashes::a_creation_killed_while_files_are_written_is_done_again";
    let place = GitPlace::default();
    let repo = place.repository();
    for number in 0..40 {
        place.write(&repo, &format!("d{}/{number}", number % 5), "x\n");
    }
    // The kernel kills whoever writes more than its limit.
    place.write(&repo, "d2/large", &"0123456789abcdef".repeat(1 << 17));
    place.commit(&repo, "large");
    place.write(&repo, ".env", "A=1\n");
    let vcs = place.open().await;
    let worktree = plan(&place, &*vcs, &repo, 1).await;
    drop(vcs);
    let orders = place.home().join("orders");
    let (home, data_directory) = (place.home(), "data".to_owned());
    let worktrees = vec![(1, worktree.clone())];
    Orders { home, data_directory, program: "git".into(), worktrees }.write(&orders);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -c 0; ulimit -f 1024; exec \"$0\" --exact \"$1\" --nocapture"]);
    limited.arg(std::env::current_exe().unwrap()).arg(name).env(ORDERS, &orders);
    let ended = limited.output().unwrap();
    assert_eq!(ended.status.signal(), Some(rustix::process::Signal::XFSZ.as_raw()), "{ended:?}");
    assert!(path(&worktree.path).exists());
    let vcs = place.open().await;
    assert!(vcs.verify(attempt(1), &worktree).await.is_err());
    vcs.make(attempt(1), &worktree, &Origin::Base).await.unwrap();
    assert_whole(&place, &repo, &worktree, 1);
}

#[tokio::test]
async fn twenty_are_made_at_once_by_four_processes() {
    if Orders::follow().await {
        return;
    }
    let name = "crashes::twenty_are_made_at_once_by_four_processes";
    let place = GitPlace::default();
    let repo = place.repository();
    place.write(&repo, ".env", "A=1\n");
    let mut processes = Vec::new();
    let mut all = Vec::new();
    for process in 0..4 {
        let data_directory = format!("data {process}");
        let vcs = GitWorktrees::open(place.options(&data_directory)).await.unwrap();
        let mut worktrees = Vec::new();
        for number in process * 5..process * 5 + 5 {
            worktrees.push((number, plan(&place, &*vcs, &repo, number).await));
        }
        drop(vcs);
        all.extend(
            worktrees
                .iter()
                .map(|(number, worktree)| (data_directory.clone(), *number, worktree.clone())),
        );
        let orders = place.home().join(format!("orders {process}"));
        let home = place.home();
        Orders { home, data_directory, program: "git".into(), worktrees }.write(&orders);
        processes.push(creating(name, &orders).spawn().unwrap());
    }
    for mut process in processes {
        assert!(process.wait().unwrap().success());
    }
    for (data_directory, number, worktree) in &all {
        let vcs = GitWorktrees::open(place.options(data_directory)).await.unwrap();
        vcs.verify(attempt(*number), worktree).await.unwrap();
        assert_eq!(place.ok(&path(&worktree.path), &["status", "--porcelain"]), "?? .env");
    }
    let listed = place.ok(&path(&repo), &["worktree", "list", "--porcelain"]);
    assert_eq!(listed.matches("worktree ").count(), 21);
    assert!(!listed.contains("locked") && !listed.contains("prunable"), "{listed}");
    place.ok(&path(&repo), &["fsck", "--strict"]);
}

/// Leaves a worktree as a machine does that went down before its files were on the disk.
fn cut_the_power(place: &GitPlace, worktree: &Worktree) -> PathBuf {
    let at = path(&worktree.path);
    let admin = PathBuf::from(place.ok(&at, &["rev-parse", "--absolute-git-dir"]));
    fs::write(admin.join("windlass-unsynced"), "01890a5d-ac96-774b-bcce-b302099a8057").unwrap();
    admin
}

#[tokio::test]
async fn a_worktree_that_may_not_be_on_the_disk_is_not_trusted_and_is_completed() {
    let place = GitPlace::default();
    let repo = place.repository();
    for name in ["emptied", "zeroed", "cut", "gone", "d/gone", "mine", "kept"] {
        place.write(&repo, name, &format!("{name}: one\ntwo\n"));
    }
    place.make_executable(&repo, "emptied");
    place.commit(&repo, "files");
    for lost_index in [false, true] {
        let number = u32::from(lost_index) + 1;
        let vcs = place.open().await;
        let worktree = place.worktree(&*vcs, &repo, number).await.unwrap();
        drop(vcs);
        let at = path(&worktree.path);
        let whole = crate::sources::content(&at);
        let admin = cut_the_power(&place, &worktree);
        fs::write(at.join("emptied"), "").unwrap();
        fs::write(at.join("zeroed"), [0; 16]).unwrap();
        fs::write(at.join("cut"), "cut: one\n\0\0\0").unwrap();
        fs::remove_file(at.join("gone")).unwrap();
        fs::remove_dir_all(at.join("d")).unwrap();
        fs::write(at.join("mine"), "my work\n").unwrap();
        fs::write(at.join("new"), "my new work\n").unwrap();
        if lost_index {
            fs::write(admin.join("index"), "").unwrap();
        }
        let vcs = place.open().await;
        let refused = vcs.verify(attempt(number), &worktree).await;
        let Err(VcsWorktreeError::Mismatch { detail, .. }) = refused else { panic!("{refused:?}") };
        assert!(detail.contains("went down"), "{detail}");
        vcs.make(attempt(number), &worktree, &Origin::Base).await.unwrap();
        vcs.verify(attempt(number), &worktree).await.unwrap();
        assert_eq!(place.read(&worktree.path, "mine").as_deref(), Some("my work\n"));
        assert_eq!(place.read(&worktree.path, "new").as_deref(), Some("my new work\n"));
        let status = place.ok(&at, &["status", "--porcelain"]);
        assert_eq!(status, " M mine\n?? new", "lost index: {lost_index}");
        place.write(&worktree.path, "mine", "mine: one\ntwo\n");
        place.delete(&worktree.path, "new");
        assert!(crate::sources::content(&at) == whole);
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_said_to_be_on_the_disk_after_a_while() {
    let place = GitPlace::default();
    let repo = place.repository();
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    let at = path(&worktree.path);
    let admin = PathBuf::from(place.ok(&at, &["rev-parse", "--absolute-git-dir"]));
    let note = admin.join("windlass-unsynced");
    // Told by the kernel, not asked again and again.
    let watch = rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::empty()).unwrap();
    let gone = rustix::fs::inotify::WatchFlags::DELETE;
    rustix::fs::inotify::add_watch(&watch, &admin, gone).unwrap();
    while note.exists() {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        rustix::fs::inotify::Reader::new(&watch, &mut buffer).next().unwrap();
    }
    vcs.verify(attempt(1), &worktree).await.unwrap();
}
