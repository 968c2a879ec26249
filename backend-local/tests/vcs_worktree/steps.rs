//! The step that checks out files where hooks and filters have a part in it: what they see and say, what hangs and what
//! stays behind, and what a host finds that comes after one that was killed.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use windlass_conformance::vcs_worktree::VcsWorktreePlace as _;
use windlass_core::locator::Locator;
use windlass_core::vcs_worktree::{
    CreateMode, Creation, GitStep, Origin, VcsWorktree, VcsWorktreeError, WorktreeRequest,
};
use windlass_core::workspace::Worktree;
use windlass_local::{GitOptions, GitWorktrees};

use crate::crashes::creating;
use crate::place::{GitPlace, attempt, path, step_command, write_program};

/// Begins a worktree that needs a step.
async fn begin(place: &GitPlace, repo: &Locator, number: u32) -> (Worktree, GitStep) {
    let vcs = place.open().await;
    let request = WorktreeRequest { copy: vec![".env*".to_owned()], ..place.request(repo, number) };
    let worktree = vcs.plan(request).await.unwrap().worktree;
    let made = vcs.create(attempt(number), &worktree, &Origin::Base, CreateMode::Begin).await;
    let Ok(Creation::Run(step)) = made else { panic!("{made:?}") };
    (worktree, step)
}

async fn create(
    vcs: &dyn VcsWorktree,
    number: u32,
    worktree: &Worktree,
    mode: CreateMode,
) -> Result<Creation, VcsWorktreeError> {
    vcs.create(attempt(number), worktree, &Origin::Base, mode).await
}

/// Nothing of a creation is left: neither branch nor registration, directory or note.
#[track_caller]
fn assert_nothing(place: &GitPlace, repo: &Locator, worktree: &Worktree) {
    assert_eq!(place.branches(repo), ["main"]);
    assert!(!path(repo).join(".git/worktrees").exists());
    assert!(!path(&worktree.path).parent().unwrap().exists());
}

/// The private git directory of a worktree, half made or not.
fn admin(worktree: &Worktree) -> PathBuf {
    let link = fs::read_to_string(path(&worktree.path).join(".git")).unwrap();
    PathBuf::from(link.strip_prefix("gitdir: ").unwrap().trim_end())
}

#[tokio::test]
async fn what_a_hook_says_is_what_the_step_says() {
    let place = GitPlace::default();
    let repo = place.repository();
    place.post_checkout(&repo, "echo said on output; echo said on error >&2; exit 3");
    let (worktree, step) = begin(&place, &repo, 1).await;
    assert_eq!(place.run_step(&step), (Some(3), "said on output\nsaid on error\n".to_owned()));
    let vcs = place.open().await;
    let refused = create(&*vcs, 1, &worktree, CreateMode::Conclude).await;
    assert!(matches!(refused, Err(VcsWorktreeError::Incomplete { .. })), "{refused:?}");
    assert_nothing(&place, &repo, &worktree);
}

#[tokio::test]
async fn a_hook_that_cannot_be_executed_is_none() {
    let place = GitPlace::default();
    let repo = place.repository();
    place.post_checkout(&repo, "exit 3");
    let hook = path(&repo).join(".git/hooks/post-checkout");
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o644)).unwrap();
    let vcs = place.open().await;
    let worktree = vcs.plan(place.request(&repo, 1)).await.unwrap().worktree;
    let made = create(&*vcs, 1, &worktree, CreateMode::Begin).await;
    assert!(matches!(made, Ok(Creation::Done(_))), "{made:?}");
}

#[tokio::test]
async fn a_hook_elsewhere_is_found_as_git_finds_it() {
    let place = GitPlace::default();
    let repo = place.repository();
    place.post_checkout(&repo, "echo ran > hooked");
    let hooks = path(&repo).join(".git/hooks");
    fs::rename(&hooks, place.home().join("my hooks")).unwrap();
    place.ok(&path(&repo), &["config", "core.hooksPath", "~/my hooks"]);
    let (worktree, step) = begin(&place, &repo, 1).await;
    assert_eq!(place.run_step(&step), (Some(0), String::new()));
    assert_eq!(place.read(&worktree.path, "hooked").as_deref(), Some("ran\n"));
}

#[tokio::test]
async fn a_hanging_hook_that_is_killed_leaves_nothing() {
    let place = GitPlace::default();
    let repo = place.repository();
    place.post_checkout(&repo, "echo ran > hooked; echo installing; (sleep 600) & sleep 600");
    let (worktree, step) = begin(&place, &repo, 1).await;
    let mut command = step_command(&step);
    let mut running = command.stderr(Stdio::piped()).process_group(0).spawn().unwrap();
    let mut said = [0; 11];
    running.stderr.as_mut().unwrap().read_exact(&mut said).unwrap();
    assert_eq!(&said, b"installing\n");
    let group = rustix::process::Pid::from_child(&running);
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    running.wait().unwrap();
    assert_eq!(place.read(&worktree.path, "greeting").as_deref(), Some("hello\n"));
    let vcs = place.open().await;
    let refused = create(&*vcs, 1, &worktree, CreateMode::Conclude).await;
    assert!(matches!(refused, Err(VcsWorktreeError::Incomplete { .. })), "{refused:?}");
    assert_nothing(&place, &repo, &worktree);
}

/// What holds the step's lock may be at it: nobody undoes what goes on.
#[tokio::test]
async fn a_step_that_goes_on_is_waited_for_and_others_are_made_meanwhile() {
    let place = GitPlace::default();
    let repo = place.repository();
    place.hook(&repo, false);
    let (worktree, step) = begin(&place, &repo, 1).await;
    let lock = path(&step.repository_lock).join("windlass.lock");
    let file = fs::File::create(&lock).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let options = GitOptions { lock_wait: Duration::from_millis(200), ..place.options("data") };
    let vcs = GitWorktrees::open(options).await.unwrap();
    for mode in [CreateMode::Begin, CreateMode::Conclude] {
        let refused = create(&*vcs, 1, &worktree, mode).await;
        assert!(matches!(refused, Err(VcsWorktreeError::Busy { .. })), "{refused:?}");
    }
    place.worktree(&*vcs, &repo, 2).await.unwrap();
    assert!(place.perform(&step));
    drop(file);
    let made = create(&*vcs, 1, &worktree, CreateMode::Conclude).await;
    assert!(matches!(made, Ok(Creation::Done(_))), "{made:?}");
    assert_eq!(place.hook_runs(&repo), 2);
    let left: Vec<_> = fs::read_dir(admin(&worktree))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("windlass-checkout") || name == "windlass.lock")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// A filter that speaks git's protocol for many files: it turns them into capitals.
const CAPITALS: &str = r#"#!/bin/sh
get() {
    length=$(dd bs=1 count=4 2>/dev/null)
    [ -n "$length" ] || exit 0
    length=$((0x$length))
    [ "$length" != 0 ] || return 1
    data=$(dd bs=1 count=$((length - 4)) 2>/dev/null; printf x)
    data=${data%x}
}
put() {
    printf '%04x%s' $((${#1} + 4)) "$1"
}
line() {
    put "$1
"
}
while get; do :; done
line git-filter-server; line version=2; printf 0000
while get; do :; done
line capability=smudge; printf 0000
while :; do
    while get; do :; done
    text=
    while get; do text=$text$data; done
    line status=success; printf 0000
    line "$(printf %s "$text" | tr a-z A-Z)"; printf 00000000
done
"#;

fn script(place: &GitPlace, name: &str, text: &str) -> PathBuf {
    let program = place.home().join(name);
    write_program(&program, text);
    program
}

#[tokio::test]
async fn filters_of_both_kinds_run_in_the_step_and_nowhere_else() {
    let place = GitPlace::default();
    let repo = place.repository();
    let dir = path(&repo);
    place.write(&repo, ".gitattributes", "[attr]loud filter=up\nsub/* loud\n");
    place.write(&repo, "sub/more", "more\n");
    place.commit(&repo, "attributes");
    let capitals = script(&place, "capitals", CAPITALS);
    let capitals = capitals.to_str().unwrap();
    for (number, kind, command) in [(1, "smudge", "tr a-z A-Z"), (2, "process", capitals)] {
        place.git(&dir, &["config", "--remove-section", "filter.up"]);
        place.ok(&dir, &["config", &format!("filter.up.{kind}"), command]);
        place.ok(&dir, &["config", "filter.up.required", "true"]);
        let (worktree, step) = begin(&place, &repo, number).await;
        assert_eq!(place.read(&worktree.path, "greeting"), None, "{kind}");
        assert_eq!(place.run_step(&step), (Some(0), String::new()), "{kind}");
        let vcs = place.open().await;
        let made = create(&*vcs, number, &worktree, CreateMode::Conclude).await;
        assert!(matches!(made, Ok(Creation::Done(_))), "{made:?}");
        assert_eq!(place.read(&worktree.path, "sub/more").as_deref(), Some("MORE\n"), "{kind}");
        assert_eq!(place.read(&worktree.path, "greeting").as_deref(), Some("hello\n"), "{kind}");
    }
}

#[tokio::test]
async fn a_filter_that_no_file_passes_needs_no_step() {
    let place = GitPlace::default();
    let repo = place.repository();
    let dir = path(&repo);
    place.write(&repo, ".gitattributes", "*.psd filter=up\ngreeting -filter\nsub/* filter=off\n");
    place.commit(&repo, "attributes");
    for (key, value) in
        [("up.smudge", "tr a-z A-Z"), ("off.smudge", ""), ("off.clean", "tr A-Z a-z")]
    {
        place.ok(&dir, &["config", &format!("filter.{key}"), value]);
    }
    let vcs = place.open().await;
    let worktree = vcs.plan(place.request(&repo, 1)).await.unwrap().worktree;
    let made = create(&*vcs, 1, &worktree, CreateMode::Begin).await;
    assert!(matches!(made, Ok(Creation::Done(_))), "{made:?}");
}

/// The copy of the index is of the checkout, whatever a hook does to the files and the index.
#[tokio::test]
async fn what_a_hook_changes_is_work_that_is_saved() {
    let place = GitPlace::default();
    let repo = place.repository();
    place.post_checkout(&repo, "echo changed > greeting; git add greeting; echo x > sub/numbers");
    let vcs = place.open().await;
    let worktree = place.worktree(&*vcs, &repo, 1).await.unwrap();
    let saved = vcs.save(attempt(1), &worktree, &crate::place::REMOVAL).await.unwrap();
    assert_eq!(saved.snapshot.unwrap().entries, 2);
}

/// What the process that concludes is to do.
#[derive(serde::Serialize, serde::Deserialize)]
struct Orders {
    home: PathBuf,
    worktree: Worktree,
}

impl Orders {
    /// Follows the orders, if this is the process that has any.
    async fn follow() -> bool {
        let Some(path) = std::env::var_os(crate::crashes::ORDERS) else { return false };
        let orders: Self = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let env = [
            ("PATH".into(), std::env::var_os("PATH").unwrap()),
            ("HOME".into(), orders.home.clone().into_os_string()),
        ];
        let options = GitOptions::new("data", orders.home.join("data/worktrees"), env);
        let vcs = GitWorktrees::open(options).await.unwrap();
        create(&*vcs, 1, &orders.worktree, CreateMode::Conclude).await.unwrap();
        true
    }
}

/// Killed after a file was copied in and before it is whole, and at other changes: the hook does not run again, and what
/// is copied is what is there.
#[tokio::test]
async fn a_conclusion_killed_at_any_change_is_done_again_without_the_hook() {
    let name = "steps::a_conclusion_killed_at_any_change_is_done_again_without_the_hook";
    if Orders::follow().await {
        return;
    }
    for (call, least) in [("fchmod", 2), ("rename", 2), ("unlink", 1)] {
        for number in 1.. {
            let place = GitPlace::default();
            let repo = place.repository();
            place.write(&repo, ".env", "A=1\n");
            place.write(&repo, ".env.local", &"B=2\n".repeat(1000));
            place.hook(&repo, false);
            let (worktree, step) = begin(&place, &repo, 1).await;
            assert!(place.perform(&step));
            let orders = place.home().join("orders");
            let told = Orders { home: place.home(), worktree: worktree.clone() };
            fs::write(&orders, serde_json::to_vec(&told).unwrap()).unwrap();
            let Some(ended) = killed(&creating(name, &orders), call, number) else { return };
            let vcs = place.open().await;
            let made = create(&*vcs, 1, &worktree, CreateMode::Begin).await;
            assert!(matches!(made, Ok(Creation::Done(_))), "{call} {number}: {made:?}");
            assert_eq!(place.hook_runs(&repo), 1, "{call} {number}");
            let read = |file| place.read(&worktree.path, file);
            assert_eq!(read(".env").as_deref(), Some("A=1\n"));
            assert_eq!(read(".env.local").unwrap(), "B=2\n".repeat(1000), "{call} {number}");
            assert!(!admin(&worktree).join("windlass-checkout.done").exists());
            if ended {
                assert!(number > least, "{call}: it was killed {} times", number - 1);
                break;
            }
        }
    }
}

/// Runs a command that is killed before the effect of a system call; says whether it came to its end. Nothing where there
/// is no strace.
fn killed(command: &std::process::Command, call: &str, number: u32) -> Option<bool> {
    let mut traced = std::process::Command::new("strace");
    // It counts in each thread.
    let inject = format!("inject={call}:signal=KILL:when={number}");
    traced.args(["-f", "-qqq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject]);
    traced.arg(command.get_program()).args(command.get_args());
    traced.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    match traced.output() {
        Ok(ended) => Some(ended.status.success()),
        Err(_) => {
            eprintln!("not run: there is no strace here");
            None
        }
    }
}
