//! Random days of work on worktrees: hosts that are killed at any moment, a user who makes every kind of dirt, and a ledger
//! of what must be there.
//!
//! The hosts are child processes that perform one operation after the other ([`serve`]); a killed one takes its git with
//! it. Several data directories share the repositories. The ledger compares every entry's kind, mode, bytes and time, and
//! what git says of branch, index and history.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use windlass_conformance::vcs_worktree::MakeAtOnce as _;
use windlass_core::id::AttemptId;
use windlass_core::locator::Locator;
use windlass_core::snapshot::SnapshotNumber;
use windlass_core::vcs_worktree::{
    GitStep, Identity, Origin, Removal, Removed, SaveRequest, StepPlan, VcsWorktree as _,
    VcsWorktreeError, VcsWorktreeExt as _, WorktreeRequest,
};
use windlass_core::workspace::Worktree;
use windlass_local::{GitOptions, GitWorktrees};

use crate::repo::{TempRepo, git_in};

/// What a host is asked.
#[derive(Debug, Serialize, Deserialize)]
enum Ask {
    Plan { attempt: AttemptId, repo: Locator, branch: String },
    Create { attempt: AttemptId, worktree: Worktree, origin: Origin },
    Verify { attempt: AttemptId, worktree: Worktree },
    Commit { attempt: AttemptId, worktree: Worktree, message: String },
    Save { attempt: AttemptId, worktree: Worktree, number: SnapshotNumber },
    Remove { attempt: AttemptId, worktree: Worktree },
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Planned(Worktree),
    Done,
    Saved(Removed),
    Refused(String),
}

/// Plays a host for the data directory `data`: reads requests from standard input, one a line, until it ends.
///
/// # Errors
///
/// When its standard streams fail.
pub fn serve(data: &Path) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(1).enable_all().build()?;
    let env =
        ["PATH", "HOME"].into_iter().filter_map(|name| Some((name.into(), env::var_os(name)?)));
    let identity = data.display().to_string();
    let options = GitOptions::new(identity, data.join("worktrees"), env);
    let vcs = runtime.block_on(GitWorktrees::open(options));
    let vcs = vcs.map_err(|error| io::Error::other(chain(&error)))?;
    for line in io::stdin().lock().lines() {
        let ask: Ask = serde_json::from_str(&line?).map_err(io::Error::other)?;
        let answer = runtime.block_on(answer(&vcs, ask));
        let answer = answer.unwrap_or_else(|error| Answer::Refused(chain(&error)));
        let mut text = serde_json::to_string(&answer).map_err(io::Error::other)?;
        text.push('\n');
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        stdout.flush()?;
    }
    Ok(())
}

fn chain(error: &VcsWorktreeError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

async fn answer(vcs: &GitWorktrees, ask: Ask) -> Result<Answer, VcsWorktreeError> {
    match ask {
        Ask::Plan { attempt, repo, branch } => {
            let (base, title, copy) = (None, "Work".to_owned(), Vec::new());
            let branch = Some(branch);
            let request = WorktreeRequest { attempt, repo, base, branch, title, copy };
            Ok(Answer::Planned(vcs.plan(request).await?.worktree))
        }
        Ask::Create { attempt, worktree, origin } => {
            vcs.make(attempt, &worktree, &origin).await.map(|_| Answer::Done)
        }
        Ask::Verify { attempt, worktree } => {
            vcs.verify(attempt, &worktree).await.map(|_| Answer::Done)
        }
        Ask::Commit { attempt, worktree, message } => {
            let identity = Identity { name: "Ada".to_owned(), email: "ada@example.org".to_owned() };
            match vcs.plan_commit(attempt, &worktree, &message, &identity).await? {
                StepPlan::Nothing { .. } => Ok(Answer::Done),
                StepPlan::Run(step) => Ok(perform(&step)),
            }
        }
        Ask::Save { attempt, worktree, number } => {
            let request = SaveRequest::before_removal(number);
            let saved = vcs.save(attempt, &worktree, &request).await?;
            let snapshot = saved.snapshot.map(|snapshot| snapshot.number);
            Ok(Answer::Saved(Removed { head: saved.head, branch: saved.branch, snapshot }))
        }
        Ask::Remove { attempt, worktree } => {
            vcs.remove(attempt, &worktree, Removal::Worktree).await.map(|()| Answer::Done)
        }
    }
}

/// Performs a git step; in the product a shim does.
fn perform(step: &GitStep) -> Answer {
    let arguments: Vec<_> =
        step.argv.iter().map(|argument| OsStr::from_bytes(&argument.0)).collect();
    let Some((program, arguments)) = arguments.split_first() else {
        return Answer::Refused("an empty step".to_owned());
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(OsStr::from_bytes(step.cwd.as_bytes()))
        .stdin(Stdio::null());
    command.envs(step.env.iter().map(|(name, value)| (name, OsStr::from_bytes(&value.0))));
    match command.output() {
        Ok(output) if output.status.success() => Answer::Done,
        Ok(output) => Answer::Refused(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Answer::Refused(error.to_string()),
    }
}

/// Everything of a worktree that people would miss: each entry with its kind, mode, time and bytes, and what git says.
///
/// # Panics
///
/// When it cannot be read.
#[must_use]
pub fn everything(worktree: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    walk(worktree, worktree, &mut found);
    for arguments in [
        &["status", "--porcelain=v2", "--branch", "--ignored"][..],
        &["ls-files", "--stage", "-v"],
        &["log", "--format=%H %s"],
    ] {
        let mut options = vec!["--no-optional-locks"];
        options.extend(arguments);
        // No entry has such a name.
        let name = PathBuf::from("/").join(arguments.join(" "));
        found.insert(name, git_in(worktree, options));
    }
    found
}

fn walk(top: &Path, dir: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(dir).expect("a directory of the worktree") {
        let entry = entry.expect("an entry of the worktree");
        let (path, meta) = (entry.path(), entry.metadata().expect("its metadata"));
        let name = path.strip_prefix(top).expect("a path inside").to_owned();
        // The link to the private git directory, which may have another name.
        if name == Path::new(".git") {
            continue;
        }
        let (mode, time) = (meta.permissions().mode(), (meta.mtime(), meta.mtime_nsec()));
        let said = if meta.is_dir() {
            walk(top, &path, found);
            format!("directory {mode:o}")
        } else if meta.is_symlink() {
            format!("link to {:?}", fs::read_link(&path).expect("a link"))
        } else {
            let bytes = fs::read(&path).expect("a file of the worktree");
            format!("file {mode:o} {time:?} {:?}", String::from_utf8_lossy(&bytes))
        };
        found.insert(name, said);
    }
}

/// Says in which entries two states differ; empty if in none.
#[must_use]
pub fn difference(before: &BTreeMap<PathBuf, String>, after: &BTreeMap<PathBuf, String>) -> String {
    let mut said = String::new();
    let shown = |text: Option<&String>| {
        text.map_or("nothing".to_owned(), |text| text.chars().take(400).collect::<String>())
    };
    for name in before.keys().chain(after.keys().filter(|name| !before.contains_key(*name))) {
        let (old, new) = (before.get(name), after.get(name));
        if old != new {
            said.push_str(&format!("{name:?}:\n  was {}\n  is  {}\n", shown(old), shown(new)));
        }
    }
    said
}

/// The same without the times and the exact permissions of files: what a checkout gives.
fn without_times(all: &BTreeMap<PathBuf, String>) -> BTreeMap<PathBuf, String> {
    let plain =
        |said: &String| match said.strip_prefix("file ").and_then(|rest| rest.split_once(") ")) {
            Some((_, bytes)) => format!("file {bytes}"),
            None => said.clone(),
        };
    all.iter().map(|(name, said)| (name.clone(), plain(said))).collect()
}

/// Numbers that look random and are the same for the same seed.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    /// The next number, below `end`.
    fn below(&mut self, end: usize) -> usize {
        // SplitMix64, by Steele, Lea and Flood.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % u64::try_from(end.max(1)).unwrap_or(1)).unwrap_or_default()
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// A host that is running.
#[derive(Debug)]
struct Host {
    process: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Host {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut process = command.spawn().expect("a host can be started");
        let asks = process.stdin.take().expect("its standard input");
        let answers = BufReader::new(process.stdout.take().expect("its standard output"));
        Self { process, asks, answers }
    }

    /// Waits until it answers, or for so long.
    fn wait(&self, time: Duration) {
        let time = Timespec { tv_sec: 0, tv_nsec: time.subsec_nanos().into() };
        let mut answers = [PollFd::new(self.answers.get_ref(), PollFlags::IN)];
        poll(&mut answers, Some(&time)).expect("a pipe that can be waited for");
    }

    /// Kills it and every git that it started.
    fn kill(mut self) {
        if let Some(group) = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw) {
            kill_process_group(group, Signal::KILL).expect("a host that is ours");
        }
        self.process.wait().expect("a host that is ours");
        // Its answers end when the last process that could write there is gone.
        drop(io::copy(&mut self.answers, &mut io::sink()));
    }
}

/// One attempt as the ledger has it.
#[derive(Debug)]
struct Entry {
    attempt: AttemptId,
    /// Which data directory it is of.
    data: usize,
    worktree: Worktree,
    /// What must be there.
    expected: BTreeMap<PathBuf, String>,
    /// How to bring it back; `None` while it is there.
    removed: Option<Removed>,
    /// The last snapshot.
    number: u32,
}

impl Entry {
    fn path(&self) -> PathBuf {
        PathBuf::from(OsString::from(OsStr::from_bytes(self.worktree.path.as_bytes())))
    }
}

/// What was done in some random days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Worktrees made.
    pub created: u32,
    /// Rounds of dirt.
    pub dirtied: u32,
    /// Commits asked for.
    pub commits: u32,
    /// Removals.
    pub removed: u32,
    /// Removed worktrees that were brought back and compared.
    pub restored: u32,
    /// Hosts killed in the middle of an operation.
    pub killed: u32,
}

/// Random days of work on five repositories, by hosts of two data directories in turn.
pub struct Days<'a> {
    /// Starts the program that calls [`serve`] for a data directory.
    host: &'a dyn Fn(&Path) -> Command,
    dice: Dice,
    repos: Vec<TempRepo>,
    data: [PathBuf; 2],
    hosts: [Option<Host>; 2],
    entries: Vec<Entry>,
    tally: Tally,
}

impl std::fmt::Debug for Days<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Days").field("data", &self.data).finish_non_exhaustive()
    }
}

/// How many attempts there are at once.
const ATTEMPTS: usize = 12;
/// How often a request is repeated when its host is killed.
const REPEATS: u32 = 12;

impl<'a> Days<'a> {
    /// Prepares the repositories in `room`: three of real sources where there are some, two made up.
    ///
    /// # Panics
    ///
    /// When the machine refuses, as every method here does: nothing can be said then.
    #[must_use]
    pub fn new(host: &'a dyn Fn(&Path) -> Command, room: &Path, seed: u64) -> Self {
        let mut repos: Vec<_> =
            ["itoa", "fnv", "cfg-if"].into_iter().filter_map(TempRepo::of_crate).collect();
        while repos.len() < 5 {
            let repo = TempRepo::with_commit_named(format!("repo {}", repos.len()));
            for number in 0..20 {
                repo.write(format!("dir {}/file {number}", number % 4), format!("{number}\n"));
            }
            repo.write(".gitattributes", "*.txt text eol=crlf\n*.bin -text\n");
            repo.write("lines.txt", "one\ntwo\n");
            repos.push(repo);
        }
        for repo in &repos {
            repo.write(".gitignore", "*.log\n/target/\n");
            drop(repo.commit("more"));
        }
        let data = [room.join("first"), room.join("second")];
        for dir in &data {
            fs::create_dir_all(dir).expect("a data directory");
        }
        let (dice, hosts) = (Dice(seed), [None, None]);
        Self { host, dice, repos, data, hosts, entries: Vec::new(), tally: Tally::default() }
    }

    /// Performs so many operations, then brings everything back and compares it; `progress` hears of each.
    ///
    /// # Panics
    ///
    /// When something is lost, or refused without reason.
    pub fn run(mut self, operations: u32, progress: &mut dyn FnMut(u32, Tally)) -> Tally {
        for operation in 0..operations {
            match self.dice.below(10) {
                0 | 1 if self.entries.len() < ATTEMPTS => self.create(),
                2 | 3 => self.remove(),
                4 | 5 => self.restore(),
                6 => self.commit(),
                _ => self.dirty(),
            }
            progress(operation, self.tally);
        }
        self.finish();
        self.tally
    }

    /// Asks the host of a data directory; it may be killed in the middle, and the next one is asked again.
    fn ask(&mut self, data: usize, ask: &Ask) -> Answer {
        let mut text = serde_json::to_string(ask).expect("a request in JSON");
        text.push('\n');
        for _ in 0..REPEATS {
            let host = self.hosts[data].take();
            let mut host = host.unwrap_or_else(|| Host::start((self.host)(&self.data[data])));
            host.asks.write_all(text.as_bytes()).expect("a host that listens");
            if self.dice.chance(20) {
                host.wait(Duration::from_micros(self.dice.below(60_000) as u64));
                host.kill();
                self.tally.killed += 1;
                continue;
            }
            let mut line = String::new();
            host.answers.read_line(&mut line).expect("an answer");
            assert!(!line.is_empty(), "the host died of {ask:?}");
            self.hosts[data] = Some(host);
            return serde_json::from_str(&line).expect("an answer in JSON");
        }
        panic!("no host lived long enough for {ask:?}")
    }

    fn create(&mut self) {
        let number = u128::from(self.tally.created) + 1;
        let attempt =
            AttemptId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 | number));
        let (data, at) = (self.dice.below(2), self.dice.below(self.repos.len()));
        let repo = Locator::new(self.repos[at].path().as_os_str().as_bytes());
        let branch = format!("work/{number}");
        let planned = self.ask(data, &Ask::Plan { attempt, repo, branch });
        let Answer::Planned(worktree) = planned else { panic!("{planned:?}") };
        let create = Ask::Create { attempt, worktree: worktree.clone(), origin: Origin::Base };
        let made = self.ask(data, &create);
        assert!(matches!(made, Answer::Done), "{made:?}");
        let mut entry =
            Entry { attempt, data, worktree, expected: BTreeMap::new(), removed: None, number: 0 };
        entry.expected = everything(&entry.path());
        let status = git_in(&entry.path(), ["--no-optional-locks", "status", "--porcelain"]);
        assert_eq!(status, "", "a new worktree is clean");
        self.tally.created += 1;
        self.entries.push(entry);
    }

    /// Picks an entry that is there, or one that is removed.
    fn pick(&mut self, removed: bool) -> Option<usize> {
        let fitting: Vec<_> = (0..self.entries.len())
            .filter(|n| self.entries[*n].removed.is_some() == removed)
            .collect();
        (!fitting.is_empty()).then(|| *self.dice.pick(&fitting))
    }

    fn dirty(&mut self) {
        let Some(n) = self.pick(false) else { return };
        let at = self.entries[n].path();
        for _ in 0..=self.dice.below(4) {
            soil(&mut self.dice, &at);
        }
        self.entries[n].expected = everything(&at);
        self.tally.dirtied += 1;
    }

    fn commit(&mut self) {
        let Some(n) = self.pick(false) else { return };
        let entry = &self.entries[n];
        let (attempt, worktree, at) = (entry.attempt, entry.worktree.clone(), entry.path());
        let message = "a commit".to_owned();
        let done = self.ask(entry.data, &Ask::Commit { attempt, worktree, message });
        assert!(matches!(done, Answer::Done), "{done:?} in {at:?}");
        let after = everything(&at);
        // A commit changes what git says, and no entry.
        let entries = |all: &BTreeMap<PathBuf, String>| {
            let mut all = all.clone();
            all.retain(|name, _| name.is_relative());
            all
        };
        let changed = difference(&entries(&self.entries[n].expected), &entries(&after));
        assert_eq!(changed, "", "a commit in {at:?} changed entries");
        self.entries[n].expected = after;
        self.tally.commits += 1;
    }

    fn remove(&mut self) {
        let Some(n) = self.pick(false) else { return };
        let entry = &mut self.entries[n];
        entry.number += 1;
        let (attempt, worktree) = (entry.attempt, entry.worktree.clone());
        let number = SnapshotNumber(entry.number);
        let data = entry.data;
        let save = Ask::Save { attempt, worktree: worktree.clone(), number };
        match self.ask(data, &save) {
            Answer::Saved(removed) => self.entries[n].removed = Some(removed),
            other => panic!("{other:?}"),
        }
        let removed = self.ask(data, &Ask::Remove { attempt, worktree });
        assert!(matches!(removed, Answer::Done), "{removed:?}");
        let entry = &self.entries[n];
        assert!(fs::symlink_metadata(entry.path()).is_err(), "{:?} is still there", entry.path());
        self.tally.removed += 1;
    }

    fn restore(&mut self) {
        let Some(n) = self.pick(true) else { return };
        self.bring_back(n);
    }

    fn bring_back(&mut self, n: usize) {
        let entry = &self.entries[n];
        let Some(removed) = entry.removed.clone() else { return };
        let (attempt, worktree) = (entry.attempt, entry.worktree.clone());
        let origin = Origin::Removed(removed);
        let made = self.ask(entry.data, &Ask::Create { attempt, worktree, origin });
        assert!(matches!(made, Answer::Done), "{made:?}");
        let entry = &mut self.entries[n];
        let found = everything(&entry.path());
        let lost = match entry.removed.take() {
            Some(Removed { snapshot: Some(_), .. }) => difference(&entry.expected, &found),
            // There was nothing to save: it is checked out anew.
            _ => difference(&without_times(&entry.expected), &without_times(&found)),
        };
        assert_eq!(lost, "", "{:?} did not come back as it was", entry.path());
        entry.expected = found;
        self.tally.restored += 1;
    }

    fn finish(&mut self) {
        for n in 0..self.entries.len() {
            self.bring_back(n);
            let entry = &self.entries[n];
            let lost = difference(&entry.expected, &everything(&entry.path()));
            assert_eq!(lost, "", "{:?} is not as it was left", entry.path());
            let (attempt, worktree) = (entry.attempt, entry.worktree.clone());
            // The other data directory's host touches nothing of it.
            let foreign = self.ask(1 - entry.data, &Ask::Verify { attempt, worktree });
            assert!(matches!(foreign, Answer::Refused(_)), "{foreign:?}");
        }
        for host in &mut self.hosts {
            if let Some(host) = host.take() {
                host.kill();
            }
        }
        for repo in &self.repos {
            repo.git(["fsck", "--strict", "--no-dangling"]);
        }
    }
}

/// Makes one random kind of dirt.
fn soil(dice: &mut Dice, at: &Path) {
    let tracked = git_in(at, ["ls-files"]);
    let there: Vec<PathBuf> = tracked
        .lines()
        .map(|name| at.join(name))
        .filter(|path| path.symlink_metadata().is_ok_and(|meta| meta.is_file()))
        .collect();
    let number = dice.below(1_000);
    let bytes = vec![b'x'; dice.below(20_000)];
    match dice.below(14) {
        0..=2 if !there.is_empty() => {
            fs::write(dice.pick(&there), format!("changed {number}\r\n")).expect("a change");
        }
        3 if !there.is_empty() => fs::remove_file(dice.pick(&there)).expect("a deletion"),
        4 if !there.is_empty() => {
            let mode = *dice.pick(&[0o600, 0o640, 0o700, 0o755, 0o444]);
            let permissions = fs::Permissions::from_mode(mode);
            fs::set_permissions(dice.pick(&there), permissions).expect("another mode");
        }
        5 => fs::write(at.join(format!("new {number}\n\u{e9}")), bytes).expect("a new file"),
        6 => fs::write(at.join(OsStr::from_bytes(b"raw \xff\xfe")), bytes).expect("a raw name"),
        7 => fs::write(at.join(format!("{number}.log")), bytes).expect("an ignored file"),
        8 => {
            let link = at.join(format!("link {number}"));
            drop(fs::remove_file(&link));
            symlink("../nowhere", link).expect("a link");
        }
        9 => {
            fs::create_dir_all(at.join(format!("empty {number}/deep"))).expect("empty directories")
        }
        10 => drop(git_in(at, ["add", "--all", "--", ":/", ":(exclude)nested*"])),
        11 => {
            drop(git_in(at, ["add", "--update"]));
            drop(git_in(
                at,
                [
                    "-c",
                    "user.name=Bob",
                    "-c",
                    "user.email=bob@example.org",
                    "commit",
                    "--quiet",
                    "--allow-empty",
                    "-m",
                    "his own",
                ],
            ));
        }
        12 => {
            let nested = at.join(format!("nested {number}"));
            if fs::create_dir(&nested).is_ok() {
                drop(git_in(&nested, ["init", "--quiet"]));
                fs::write(nested.join("inner"), bytes).expect("a nested file");
            }
        }
        _ => {
            let target = at.join("target/debug");
            fs::create_dir_all(&target).expect("an ignored directory");
            fs::write(target.join(format!("{number}")), bytes).expect("an ignored file");
        }
    }
}
