//! A directory with worktrees and a user who has git.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;
use uuid::Uuid;
use windlass_conformance::vcs_worktree::VcsWorktreePlace;
use windlass_core::id::AttemptId;
use windlass_core::locator::Locator;
use windlass_core::snapshot::SnapshotNumber;
use windlass_core::vcs_worktree::{
    CreateMode, Creation, GitStep, Identity, Origin, SaveRequest, VcsWorktree, VcsWorktreeError,
    Verified, WorktreeRequest,
};
use windlass_core::workspace::{Oid, Worktree};
use windlass_local::{GitOptions, GitWorktrees};

/// Makes a program. Another process writes it: while this one has a file open for writing, processes that other tests make
/// have a copy of the descriptor for a moment, and what is open for writing cannot be executed.
pub(crate) fn write_program(at: &Path, text: impl AsRef<str>) {
    let mut writer = Command::new("/bin/sh");
    writer.args(["-c", "printf %s \"$1\" > \"$0\" && chmod 755 \"$0\""]).arg(at).arg(text.as_ref());
    assert!(writer.status().unwrap().success());
}

/// What comes before a removal by the safe rules.
pub(crate) const REMOVAL: SaveRequest = SaveRequest::before_removal(SnapshotNumber::FIRST);

/// The suite's place for [`GitWorktrees`], and more for the cases of this backend alone.
pub(crate) struct GitPlace {
    home: TempDir,
    repositories: AtomicU32,
}

impl Default for GitPlace {
    fn default() -> Self {
        let home = tempfile::tempdir().unwrap();
        Self { home, repositories: AtomicU32::new(0) }
    }
}

pub(crate) fn attempt(number: u32) -> AttemptId {
    AttemptId(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 | u128::from(number)))
}

pub(crate) fn locator(path: &Path) -> Locator {
    Locator::new(path.as_os_str().as_bytes())
}

pub(crate) fn path(locator: &Locator) -> PathBuf {
    PathBuf::from(OsString::from_vec(locator.as_bytes().to_vec()))
}

/// What runs a step, in the environment that it comes with.
pub(crate) fn step_command(step: &GitStep) -> Command {
    let os = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
    let mut command = Command::new(os(&step.argv[0].0));
    command.args(step.argv[1..].iter().map(|arg| os(&arg.0))).current_dir(path(&step.cwd));
    let env = step.base_env.iter().chain(&step.env);
    command.env_clear().envs(env.map(|(name, value)| (name, os(&value.0))));
    command
}

impl GitPlace {
    pub(crate) fn home(&self) -> PathBuf {
        fs::canonicalize(self.home.path()).unwrap()
    }

    /// The environment of user and backend: nobody's configuration.
    pub(crate) fn env(&self) -> Vec<(OsString, OsString)> {
        let path = std::env::var_os("PATH").unwrap();
        vec![("PATH".into(), path), ("HOME".into(), self.home().into_os_string())]
    }

    pub(crate) fn options(&self, data_directory: &str) -> GitOptions {
        GitOptions::new(
            data_directory,
            self.home().join(data_directory).join("worktrees"),
            self.env(),
        )
    }

    /// What the user's git says.
    pub(crate) fn git(&self, dir: &Path, args: &[&str]) -> Output {
        Command::new("git")
            .args(["-c", "user.name=User", "-c", "user.email=user@example.org"])
            .args(["-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always"])
            .args(args)
            .current_dir(dir)
            .env_clear()
            .envs(self.env())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .output()
            .unwrap()
    }

    /// What the user's git prints when it succeeds.
    #[track_caller]
    pub(crate) fn ok(&self, dir: &Path, args: &[&str]) -> String {
        let output = self.git(dir, args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {args:?}: {stderr}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Makes a repository with a commit at a path.
    pub(crate) fn repository_at(&self, dir: &Path) -> Locator {
        fs::create_dir_all(dir).unwrap();
        self.ok(dir, &["init", "--quiet"]);
        let dir = locator(dir);
        self.write(&dir, "greeting", "hello\n");
        self.write(&dir, "sub/numbers", "1\n2\n3\n");
        self.commit(&dir, "first");
        dir
    }

    pub(crate) fn repository(&self) -> Locator {
        let number = self.repositories.fetch_add(1, Ordering::Relaxed);
        self.repository_at(&self.home().join(format!("repository {number}")))
    }

    pub(crate) fn request(&self, repo: &Locator, number: u32) -> WorktreeRequest {
        WorktreeRequest {
            attempt: attempt(number),
            repo: repo.clone(),
            base: None,
            branch: None,
            title: "Some work".to_owned(),
            copy: Vec::new(),
        }
    }

    /// Makes a worktree of a repository.
    pub(crate) async fn worktree(
        &self,
        vcs: &dyn VcsWorktree,
        repo: &Locator,
        number: u32,
    ) -> Result<Worktree, VcsWorktreeError> {
        let worktree = vcs.plan(self.request(repo, number)).await?.worktree;
        self.make(vcs, attempt(number), &worktree, &Origin::Base).await?;
        Ok(worktree)
    }

    /// Runs a step as an execution would; returns its exit code and standard error.
    pub(crate) fn run_step(&self, step: &GitStep) -> (Option<i32>, String) {
        let output = step_command(step).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Where the hook of a repository tells that it ran.
    fn runs(&self, dir: &Locator) -> PathBuf {
        let name = path(dir).file_name().unwrap().to_str().unwrap().replace(' ', "-");
        self.home().join(format!("hook-runs-{name}"))
    }

    /// Gives a repository a hook that runs after a checkout.
    pub(crate) fn post_checkout(&self, dir: &Locator, script: &str) {
        let hook = path(dir).join(".git/hooks/post-checkout");
        fs::create_dir_all(hook.parent().unwrap()).unwrap();
        write_program(&hook, format!("#!/bin/sh\n{script}\n"));
    }

    /// Makes a worktree to its end, and runs the step that it asks for, if it does.
    pub(crate) async fn make(
        &self,
        vcs: &dyn VcsWorktree,
        attempt: AttemptId,
        worktree: &Worktree,
        origin: &Origin,
    ) -> Result<Verified, VcsWorktreeError> {
        let step = match vcs.create(attempt, worktree, origin, CreateMode::Begin).await? {
            Creation::Done(verified) => return Ok(verified),
            Creation::Run(step) => step,
        };
        let (code, said) = self.run_step(&step);
        match vcs.create(attempt, worktree, origin, CreateMode::Conclude).await {
            Ok(Creation::Done(verified)) => Ok(verified),
            Ok(Creation::Run(step)) => panic!("another step: {step:?}"),
            Err(error) => {
                assert_ne!(code, Some(0), "{said}: {error:?}");
                Err(VcsWorktreeError::Git { command: "step".to_owned(), stderr: said })
            }
        }
    }

    /// A fingerprint of index and objects of a repository and a worktree's private directory.
    pub(crate) fn fingerprint(&self, worktree: &Worktree) -> Vec<(PathBuf, Vec<u8>)> {
        let common = path(&worktree.repo);
        let admin = self.ok(&path(&worktree.path), &["rev-parse", "--absolute-git-dir"]);
        let mut seen = Vec::new();
        for file in [common.join("index"), PathBuf::from(admin).join("index")] {
            let content = fs::read(&file).unwrap_or_default();
            let modified = file.metadata().map(|meta| meta.modified().unwrap());
            seen.push((file, format!("{modified:?} {content:?}").into_bytes()));
        }
        let mut folders = vec![common.join("objects")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path.clone());
                    seen.push((path, Vec::new()));
                } else {
                    let content = fs::read(&path).unwrap();
                    seen.push((path, content));
                }
            }
        }
        seen.sort();
        seen
    }
}

impl VcsWorktreePlace for GitPlace {
    async fn open(&self) -> Arc<dyn VcsWorktree> {
        GitWorktrees::open(self.options("data")).await.unwrap()
    }

    async fn open_other(&self) -> Arc<dyn VcsWorktree> {
        GitWorktrees::open(self.options("other")).await.unwrap()
    }

    fn init(&self) -> Locator {
        let number = self.repositories.fetch_add(1, Ordering::Relaxed);
        let dir = self.home().join(format!("repository {number}"));
        fs::create_dir(&dir).unwrap();
        self.ok(&dir, &["init", "--quiet"]);
        locator(&dir)
    }

    fn directory(&self) -> Locator {
        let dir = self.home().join("plain");
        fs::create_dir(&dir).unwrap();
        locator(&dir)
    }

    fn write(&self, dir: &Locator, file: &str, content: &str) {
        let file = path(dir).join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }

    fn read(&self, dir: &Locator, file: &str) -> Option<String> {
        fs::read_to_string(path(dir).join(file)).ok()
    }

    fn delete(&self, dir: &Locator, file: &str) {
        fs::remove_file(path(dir).join(file)).unwrap();
    }

    fn make_executable(&self, dir: &Locator, file: &str) {
        let file = path(dir).join(file);
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn make_special(&self, dir: &Locator, file: &str) {
        let made = Command::new("mkfifo").arg(path(dir).join(file)).status().unwrap();
        assert!(made.success());
    }

    fn stage(&self, dir: &Locator, file: &str) {
        self.ok(&path(dir), &["add", "--all", "--", file]);
    }

    fn indexed(&self, dir: &Locator, file: &str) -> Option<String> {
        let output = self.git(&path(dir), &["cat-file", "blob", &format!(":{file}")]);
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    fn hook(&self, dir: &Locator, fails: bool) {
        let runs = self.runs(dir);
        let script = format!("echo ran >> {runs:?}\necho x > hooked\nexit {}", u8::from(fails));
        self.post_checkout(dir, &script);
    }

    fn hook_runs(&self, dir: &Locator) -> u32 {
        let runs = fs::read_to_string(self.runs(dir)).unwrap_or_default();
        u32::try_from(runs.lines().count()).unwrap()
    }

    fn filter(&self, dir: &Locator) {
        self.ok(&path(dir), &["config", "filter.same.smudge", "cat"]);
        self.write(dir, ".gitattributes", "greeting filter=same\n");
        self.commit(dir, "filtered");
    }

    fn begin_merge(&self, dir: &Locator, branch: &str) {
        let merge = ["merge", "--quiet", "--no-commit", "--no-ff", "--strategy", "ours", branch];
        self.ok(&path(dir), &merge);
        assert!(self.is_merging(dir));
    }

    fn is_merging(&self, dir: &Locator) -> bool {
        let merging = ["rev-parse", "--quiet", "--verify", "MERGE_HEAD"];
        self.git(&path(dir), &merging).status.success()
    }

    fn delete_branch(&self, dir: &Locator, name: &str) {
        self.ok(&path(dir), &["branch", "--quiet", "-D", name]);
    }

    fn commit(&self, dir: &Locator, message: &str) -> Oid {
        let dir = path(dir);
        self.ok(&dir, &["add", "--all"]);
        self.ok(&dir, &["commit", "--quiet", "--message", message]);
        Oid(self.ok(&dir, &["rev-parse", "HEAD"]))
    }

    fn identify(&self, dir: &Locator, identity: &Identity) {
        self.ok(&path(dir), &["config", "user.name", &identity.name]);
        self.ok(&path(dir), &["config", "user.email", &identity.email]);
    }

    fn branch(&self, dir: &Locator, name: &str) {
        self.ok(&path(dir), &["branch", name]);
    }

    fn tag(&self, dir: &Locator, name: &str) {
        self.ok(&path(dir), &["tag", name]);
    }

    fn rename_branch(&self, dir: &Locator, name: &str) {
        self.ok(&path(dir), &["branch", "--move", name]);
    }

    fn switch(&self, dir: &Locator, name: &str) {
        self.ok(&path(dir), &["switch", "--quiet", "--create", name]);
    }

    fn detach(&self, dir: &Locator) {
        self.ok(&path(dir), &["switch", "--quiet", "--detach"]);
    }

    fn branches(&self, dir: &Locator) -> Vec<String> {
        let format = "--format=%(refname:lstrip=2)";
        let listed = self.ok(&path(dir), &["for-each-ref", format, "refs/heads/"]);
        listed.lines().map(str::to_owned).collect()
    }

    fn tip(&self, dir: &Locator, branch: &str) -> Oid {
        Oid(self.ok(&path(dir), &["rev-parse", "--verify", &format!("refs/heads/{branch}")]))
    }

    fn delete_directory(&self, dir: &Locator) {
        fs::remove_dir_all(path(dir)).unwrap();
    }

    fn replace_directory(&self, dir: &Locator) {
        self.delete_directory(dir);
        self.write(dir, "stranger", "x\n");
    }

    fn exists(&self, dir: &Locator) -> bool {
        path(dir).exists()
    }

    fn perform(&self, step: &GitStep) -> bool {
        self.run_step(step).0 == Some(0)
    }

    fn last_commit(&self, dir: &Locator) -> (String, Identity) {
        let dir = path(dir);
        let name = self.ok(&dir, &["log", "-1", "--format=%an"]);
        let email = self.ok(&dir, &["log", "-1", "--format=%ae"]);
        (self.ok(&dir, &["log", "-1", "--format=%B"]), Identity { name, email })
    }
}
