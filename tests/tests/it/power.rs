//! Worktrees under power cuts: a real file system stops in the middle of each operation, at many moments of it.

use std::ffi::OsString;
use std::fs;
use std::future::Future;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use uuid::Uuid;
use windlass_conformance::vcs_worktree::MakeAtOnce as _;
use windlass_core::id::AttemptId;
use windlass_core::locator::Locator;
use windlass_core::snapshot::SnapshotNumber;
use windlass_core::vcs_worktree::{
    Identity, Origin, Removal, Removed, SaveRequest, StepPlan, VcsWorktree, VcsWorktreeError,
    VcsWorktreeExt as _, WorktreeRequest,
};
use windlass_core::workspace::Worktree;
use windlass_local::{GitOptions, GitWorktrees};
use windlass_tests::power::Disk;
use windlass_tests::worktrees::{difference, everything};
use windlass_tests::{isolated, not_run};

/// At how many moments of each operation the power is cut.
const MOMENTS: u32 = 12;
const REMOVAL: SaveRequest = SaveRequest::before_removal(SnapshotNumber::FIRST);

fn attempt() -> AttemptId {
    AttemptId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001))
}

/// A disk with a repository and a data directory on it.
struct Lab {
    disk: Disk,
    runtime: tokio::runtime::Runtime,
}

impl Lab {
    /// `None`, and a remark, where no power can be cut.
    fn open() -> Option<Self> {
        let disk = match Disk::new(96) {
            Ok(disk) => disk,
            Err(why) => {
                not_run(&format!("worktrees under power cuts: {why}"));
                return None;
            }
        };
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let lab =
            Self { disk, runtime: { runtime }.worker_threads(2).enable_all().build().unwrap() };
        let repo = lab.repo();
        fs::create_dir_all(repo.join("src/deep")).unwrap();
        for number in 0..120 {
            let text = format!("file {number}\n").repeat(50 + number);
            fs::write(repo.join(format!("src/{number}.txt")), text).unwrap();
        }
        fs::write(repo.join("src/deep/tool.sh"), "#!/bin/sh\n").unwrap();
        fs::write(repo.join(".gitignore"), "*.log\n").unwrap();
        lab.git(&repo, &["init", "--quiet", "--initial-branch=main"]);
        lab.git(&repo, &["add", "--all"]);
        lab.git(&repo, &["commit", "--quiet", "-m", "first"]);
        lab.disk.sync();
        Some(lab)
    }

    fn repo(&self) -> PathBuf {
        self.disk.path().join("repo")
    }

    fn env(&self) -> Vec<(OsString, OsString)> {
        let path = std::env::var_os("PATH").unwrap();
        vec![("PATH".into(), path), ("HOME".into(), self.disk.path().into())]
    }

    #[track_caller]
    fn git(&self, dir: &Path, args: &[&str]) -> String {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]).args(args);
        let output = git.current_dir(dir).env_clear().envs(self.env()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {args:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a new host opens.
    fn vcs(&self) -> Arc<GitWorktrees> {
        let root = self.disk.path().join("data/worktrees");
        self.runtime.block_on(GitWorktrees::open(GitOptions::new("lab", root, self.env()))).unwrap()
    }

    fn plan(&self) -> Worktree {
        let request = WorktreeRequest {
            attempt: attempt(),
            repo: Locator::new(self.repo().as_os_str().as_bytes()),
            base: None,
            branch: Some("work".to_owned()),
            title: "Work".to_owned(),
            copy: Vec::new(),
        };
        self.runtime.block_on(self.vcs().plan(request)).unwrap().worktree
    }

    /// Makes the worktree and everything in it that a removal has to save.
    fn dirty(&self) -> Worktree {
        let worktree = self.plan();
        let vcs = self.vcs();
        self.runtime.block_on(vcs.make(attempt(), &worktree, &Origin::Base)).unwrap();
        let at = path(&worktree);
        fs::write(at.join("src/0.txt"), "changed\n").unwrap();
        fs::remove_file(at.join("src/1.txt")).unwrap();
        fs::write(at.join("new.txt"), "new\n").unwrap();
        fs::write(at.join("ignored.log"), "ignored\n".repeat(5_000)).unwrap();
        fs::create_dir(at.join("empty")).unwrap();
        std::os::unix::fs::symlink("src/2.txt", at.join("link")).unwrap();
        fs::write(at.join("src/3.txt"), "committed\n").unwrap();
        self.git(&at, &["commit", "--quiet", "-m", "own work", "src/3.txt"]);
        fs::write(at.join("src/4.txt"), "staged\n").unwrap();
        self.git(&at, &["add", "src/4.txt"]);
        fs::create_dir(at.join("nested")).unwrap();
        self.git(&at.join("nested"), &["init", "--quiet"]);
        fs::write(at.join("nested/inner"), "inner\n").unwrap();
        self.disk.sync();
        worktree
    }

    /// Performs an operation and cuts the power after `delay`; says whether it had ended by then.
    fn cut<T: Send + 'static>(
        &self,
        delay: Duration,
        operation: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (end, ends) = mpsc::channel();
        let running = self.runtime.spawn(async move {
            let result = operation.await;
            drop(end);
            result
        });
        // Nothing is ever sent: it waits for the end, or for the moment.
        let ended = ends.recv_timeout(delay) == Err::<(), _>(RecvTimeoutError::Disconnected);
        self.disk.cut();
        let result = self.runtime.block_on(running).unwrap();
        // What still runs on the blocking pool has files open.
        self.quiet();
        self.disk.restart();
        ended.then_some(result)
    }

    /// Waits until no thread and no git of ours has a file open on the disk.
    fn quiet(&self) {
        let disk = self.disk.path();
        let open = || -> Vec<(PathBuf, PathBuf)> {
            let processes = fs::read_dir("/proc").unwrap().flatten().map(|process| process.path());
            let links = processes.flat_map(|process| {
                let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
                open.map(|link| link.path()).chain([process.join("cwd")]).collect::<Vec<_>>()
            });
            let targets = links.filter_map(|link| Some((fs::read_link(&link).ok()?, link)));
            targets.filter(|(target, _)| target.starts_with(&disk)).collect()
        };
        let begun = Instant::now();
        loop {
            let open = open();
            if open.is_empty() {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "these stay open: {open:?}");
            thread::yield_now();
        }
    }
}

fn path(worktree: &Worktree) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(worktree.path.as_bytes()))
}

/// Says how long an operation takes when nothing happens to it.
fn duration(lab: &Lab, operation: impl Future<Output = ()>) -> Duration {
    let begun = Instant::now();
    lab.runtime.block_on(operation);
    begun.elapsed()
}

fn moments(whole: Duration) -> impl Iterator<Item = Duration> {
    (0..MOMENTS).map(move |moment| whole * moment / (MOMENTS - 2))
}

/// The repository is whole: nothing that a ref names is missing.
fn assert_whole(lab: &Lab) {
    lab.git(&lab.repo(), &["fsck", "--strict", "--connectivity-only", "--no-dangling"]);
    lab.git(&lab.repo(), &["worktree", "list"]);
}

isolated! {
    fn a_creation_survives_a_power_cut_or_is_made_again() {
        let mut whole = None;
        let mut moment = 0;
        loop {
            let Some(lab) = Lab::open() else { return };
            let worktree = lab.plan();
            lab.disk.sync();
            let vcs = lab.vcs();
            let made = worktree.clone();
            let create = async move {
                vcs.make(attempt(), &made, &Origin::Base).await.map(drop)
            };
            let Some(whole) = whole else {
                whole = Some(duration(&lab, async { create.await.unwrap() }));
                continue;
            };
            let Some(delay) = moments(whole).nth(moment) else { break };
            moment += 1;
            let acknowledged = matches!(lab.cut(delay, create), Some(Ok(())));
            let vcs = lab.vcs();
            let verified = lab.runtime.block_on(vcs.verify(attempt(), &worktree));
            match verified {
                Ok(_) => {}
                // It was there, but what was not yet on the disk is not trusted.
                Err(VcsWorktreeError::Mismatch { .. }) => {}
                Err(error) => assert!(!acknowledged, "acknowledged, then cut at {delay:?}: {error}"),
            }
            lab.runtime.block_on(vcs.make(attempt(), &worktree, &Origin::Base)).unwrap();
            assert_whole(&lab);
            assert_eq!(lab.git(&path(&worktree), &["status", "--porcelain"]), "", "{delay:?}");
            // Git trusts times; this looks at the bytes.
            lab.git(&path(&worktree), &["-c", "core.checkStat=minimal", "update-index", "--really-refresh"]);
            let tree = lab.git(&path(&worktree), &["ls-tree", "-r", "HEAD"]);
            assert_eq!(tree.lines().count(), 122);
            for number in 0..120 {
                let text = format!("file {number}\n").repeat(50 + number);
                let file = path(&worktree).join(format!("src/{number}.txt"));
                assert_eq!(fs::read_to_string(file).unwrap(), text, "cut at {delay:?}");
            }
        }
    }

    fn a_removal_under_a_power_cut_loses_nothing_and_is_finished_later() {
        let mut whole = None;
        let mut moment = 0;
        loop {
            let Some(lab) = Lab::open() else { return };
            let worktree = lab.dirty();
            let before = everything(&path(&worktree));
            let vcs = lab.vcs();
            let going = worktree.clone();
            // What is saved is recorded in between, elsewhere: a store has power cuts of its own.
            let saved = Arc::new(OnceLock::new());
            let answer = Arc::clone(&saved);
            let remove = async move {
                let saved = vcs.save(attempt(), &going, &REMOVAL).await?;
                drop(answer.set(saved));
                vcs.remove(attempt(), &going, Removal::Worktree).await
            };
            let Some(whole) = whole else {
                whole = Some(duration(&lab, async { remove.await.unwrap() }));
                continue;
            };
            let Some(delay) = moments(whole).nth(moment) else { break };
            moment += 1;
            drop(lab.cut(delay, remove));
            assert_whole(&lab);
            let vcs = lab.vcs();
            let again = lab.runtime.block_on(async {
                if saved.get().is_none() {
                    drop(saved.set(vcs.save(attempt(), &worktree, &REMOVAL).await?));
                }
                vcs.remove(attempt(), &worktree, Removal::Worktree).await
            });
            again.unwrap_or_else(|error| panic!("cut at {delay:?}: {error}"));
            let saved = saved.get().unwrap().clone();
            assert!(!path(&worktree).exists());
            let removed =
                Removed { head: saved.head, branch: saved.branch, snapshot: Some(SnapshotNumber::FIRST) };
            let origin = Origin::Removed(removed);
            lab.runtime.block_on(vcs.make(attempt(), &worktree, &origin)).unwrap();
            let lost = difference(&before, &everything(&path(&worktree)));
            assert_eq!(lost, "", "cut at {delay:?}");
        }
    }

    fn a_restoration_under_a_power_cut_is_made_again() {
        let mut whole = None;
        let mut moment = 0;
        loop {
            let Some(lab) = Lab::open() else { return };
            let worktree = lab.dirty();
            let before = everything(&path(&worktree));
            let vcs = lab.vcs();
            let saved = lab.runtime.block_on(vcs.save_and_remove(attempt(), &worktree, &REMOVAL));
            let saved = saved.unwrap();
            lab.disk.sync();
            let removed =
                Removed { head: saved.head, branch: saved.branch, snapshot: Some(SnapshotNumber::FIRST) };
            let origin = Origin::Removed(removed);
            let (back, from) = (worktree.clone(), origin.clone());
            let restore = async move { vcs.make(attempt(), &back, &from).await.map(drop) };
            let Some(whole) = whole else {
                whole = Some(duration(&lab, async { restore.await.unwrap() }));
                continue;
            };
            let Some(delay) = moments(whole).nth(moment) else { break };
            moment += 1;
            drop(lab.cut(delay, restore));
            assert_whole(&lab);
            let vcs = lab.vcs();
            let again = lab.runtime.block_on(vcs.make(attempt(), &worktree, &origin));
            again.unwrap_or_else(|error: VcsWorktreeError| panic!("cut at {delay:?}: {error}"));
            let lost = difference(&before, &everything(&path(&worktree)));
            assert_eq!(lost, "", "cut at {delay:?}");
        }
    }

    fn a_commit_that_was_reported_is_there_after_a_power_cut() {
        let mut whole = None;
        let mut moment = 0;
        loop {
            let Some(lab) = Lab::open() else { return };
            let worktree = lab.dirty();
            let vcs = lab.vcs();
            let identity = Identity { name: "Ada".to_owned(), email: "ada@example.org".to_owned() };
            let plan = vcs.plan_commit(attempt(), &worktree, "work", &identity);
            let StepPlan::Run(step) = lab.runtime.block_on(plan).unwrap() else { panic!("clean") };
            drop(vcs);
            let arguments: Vec<OsString> = step
                .argv
                .iter()
                .map(|argument| std::ffi::OsStr::from_bytes(&argument.0).to_owned())
                .collect();
            let mut command = Command::new(&arguments[0]);
            command.args(&arguments[1..]).current_dir(path(&worktree)).env_clear().envs(lab.env());
            for (name, value) in &step.env {
                command.env(name, std::ffi::OsStr::from_bytes(&value.0));
            }
            let commit = async move {
                tokio::task::spawn_blocking(move || command.output().unwrap().status.success())
                    .await
                    .unwrap()
            };
            let old = lab.git(&path(&worktree), &["rev-parse", "HEAD"]);
            let Some(whole) = whole else {
                whole = Some(duration(&lab, async { assert!(commit.await) }));
                continue;
            };
            let Some(delay) = moments(whole).nth(moment) else { break };
            moment += 1;
            let reported = lab.cut(delay, commit) == Some(true);
            assert_whole(&lab);
            let new = lab.git(&path(&worktree), &["rev-parse", "HEAD"]);
            if reported {
                assert_ne!(new, old, "reported, then cut at {delay:?}");
            }
            if new != old {
                let listed = lab.git(&path(&worktree), &["ls-tree", "-r", "--name-only", "HEAD"]);
                assert!(listed.contains("new.txt"), "cut at {delay:?}: {listed}");
                for object in ["HEAD:new.txt", "HEAD:src/0.txt", "HEAD:src/4.txt"] {
                    lab.git(&path(&worktree), &["cat-file", "blob", object]);
                }
            }
        }
    }
}
