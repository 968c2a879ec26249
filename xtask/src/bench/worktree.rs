//! Worktrees of a large and a small repository, each operation in turn with what git itself needs for it.
//!
//! An operation is a function that adds its lines to a report; it is named in [`OPERATIONS`]. It finds a repository with
//! a worktree in the [`Bed`], and leaves both as they were.

mod creation;
mod look;
mod removal;
mod snapshot;

use std::ffi::OsString;
use std::fs;
use std::io::{BufWriter, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use uuid::Uuid;
use windlass::core::id::AttemptId;
use windlass::core::locator::Locator;
use windlass::core::vcs_worktree::{CreateMode, Creation, Origin, VcsWorktree, WorktreeRequest};
use windlass::core::workspace::Worktree;
use windlass_local::{GitOptions, GitWorktrees};

use super::Bench;
use super::measure::{Contender, Sample, Taken, interleave};
use super::report::{Report, Unit, Want};
use crate::failure::{Doing, Failure};

/// Measures one operation on a repository, and says so in the report.
type Operation = fn(&Bed<'_>, &mut Report) -> Result<(), Failure>;

const OPERATIONS: &[Operation] =
    &[look::dirty, look::diff, snapshot::save, creation::create, removal::remove];

/// Files of the large and of the small repository.
const FILES: [u64; 2] = [50_000, 2_000];
/// How many files are in a directory.
const PER_DIRECTORY: u64 = 25;
/// Bytes of a file, by its number: 3.4 KB on average, as in source trees.
const BYTES: [usize; 5] = [200, 900, 2_400, 4_500, 8_800];
/// What a small repository may take longer than the ratio says.
const SMALL_EXTRA_SECONDS: f64 = 0.005;

pub(super) fn measure(bench: &Bench) -> Result<Report, Failure> {
    let mut report = Report::default();
    for files in FILES {
        let bed = Bed::new(bench, bench.size(files), files == FILES[1])?;
        for operation in OPERATIONS {
            operation(&bed, &mut report)?;
        }
    }
    Ok(report)
}

/// A repository with a worktree.
pub(crate) struct Bed<'a> {
    pub(crate) bench: &'a Bench,
    pub(crate) files: u64,
    small: bool,
    pub(crate) dir: PathBuf,
    pub(crate) repo: PathBuf,
    pub(crate) vcs: Arc<GitWorktrees>,
    pub(crate) attempt: AttemptId,
    pub(crate) worktree: Worktree,
    /// The worktree's directory.
    pub(crate) at: PathBuf,
}

impl std::fmt::Debug for Bed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bed")
            .field("files", &self.files)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl<'a> Bed<'a> {
    pub(super) fn new(bench: &'a Bench, files: u64, small: bool) -> Result<Self, Failure> {
        let dir = bench.fresh(&format!("worktrees-of-{files}"));
        let repo = dir.join("repo");
        fs::create_dir_all(&repo).doing(format_args!("make {}", repo.display()))?;
        import(&repo, files)?;
        let vcs = bench.runtime.block_on(open(&dir))?;
        let attempt = AttemptId(Uuid::from_u128(u128::from(files)));
        let worktree = create(bench, &vcs, attempt, &repo)?;
        let at = path_of(&worktree.path);
        Ok(Self { bench, files, small, dir, repo, vcs, attempt, worktree, at })
    }

    /// Opens another backend on the same directory, which knows nothing yet.
    pub(super) fn open(&self) -> Result<Arc<GitWorktrees>, Failure> {
        self.bench.runtime.block_on(self.open_async())
    }

    /// Does the same within a runtime.
    pub(super) async fn open_async(&self) -> Result<Arc<GitWorktrees>, Failure> {
        open(&self.dir).await
    }

    /// Makes another worktree of the repository.
    pub(crate) fn create(&self, attempt: AttemptId) -> Result<Worktree, Failure> {
        create(self.bench, &self.vcs, attempt, &self.repo)
    }

    /// Runs git in a directory and returns what it prints.
    pub(crate) fn git(&self, dir: &Path, args: &[&str]) -> Result<Vec<u8>, Failure> {
        git(&self.dir, dir, args)
    }

    /// What this repository may take longer than a ratio says.
    pub(crate) fn extra(&self) -> f64 {
        if self.small { SMALL_EXTRA_SECONDS } else { 0.0 }
    }

    /// The path of a file, by its number.
    pub(crate) fn file(&self, number: u64) -> PathBuf {
        self.at.join(path(number))
    }

    /// Lets git and us take turns, and adds both to the report; we may take `ratio` times as long as git.
    pub(crate) fn compare(
        &self,
        report: &mut Report,
        labels: [&'static str; 2],
        ratio: f64,
        mut theirs: impl FnMut() -> Result<(), Failure>,
        mut ours: impl FnMut() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let taken = interleave(
            self.bench.rounds(),
            vec![
                Contender::new(labels[0], || Sample::each(TURNS, &mut theirs)),
                Contender::new(labels[1], || Sample::each(TURNS, &mut ours)),
            ],
        )?;
        let [theirs, ours]: &[Taken; 2] =
            taken.as_slice().try_into().map_err(|_| Failure::new("two take turns"))?;
        let extra = self.extra();
        report.add_title(format!("{} files", self.files));
        report.add(theirs, Unit::Times, None, &[]);
        report.add(ours, Unit::Times, Some(theirs), &[Want::RatioAndMore(ratio, extra)]);
        Ok(())
    }
}

async fn open(dir: &Path) -> Result<Arc<GitWorktrees>, Failure> {
    let options = GitOptions::new("bench", dir.join("worktrees"), environment(dir));
    GitWorktrees::open(options).await.doing("open the backend")
}

/// How often something is done in one turn.
const TURNS: u64 = 5;

fn create(
    bench: &Bench,
    vcs: &GitWorktrees,
    attempt: AttemptId,
    repo: &Path,
) -> Result<Worktree, Failure> {
    let request = WorktreeRequest {
        attempt,
        repo: Locator::new(repo.as_os_str().as_bytes()),
        base: None,
        branch: None,
        title: "bench".to_owned(),
        copy: Vec::new(),
    };
    bench.runtime.block_on(async {
        let planned = vcs.plan(request).await.doing("plan a worktree")?;
        let made = vcs.create(attempt, &planned.worktree, &Origin::Base, CreateMode::Begin);
        at_once(made.await.doing("create a worktree")?)?;
        Ok(planned.worktree)
    })
}

/// Refuses what would measure half a creation.
fn at_once(made: Creation) -> Result<(), Failure> {
    match made {
        Creation::Done(_) => Ok(()),
        Creation::Run(_) => Err(Failure::new(
            "to create a worktree at once: a hook or filter of yours has a part in it",
        )),
    }
}

fn path_of(locator: &Locator) -> PathBuf {
    PathBuf::from(OsString::from_vec(locator.as_bytes().to_vec()))
}

fn environment(home: &Path) -> Vec<(OsString, OsString)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    vec![
        ("PATH".into(), path),
        ("HOME".into(), home.into()),
        ("GIT_CONFIG_NOSYSTEM".into(), "1".into()),
    ]
}

fn git(home: &Path, dir: &Path, args: &[&str]) -> Result<Vec<u8>, Failure> {
    let output = command(home, dir, args).output().doing("run git")?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(Failure::new(format!("git {}: {said}", args.join(" "))))
    }
}

fn command(home: &Path, dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("git");
    command
        .args(["-c", "user.name=Bench", "-c", "user.email=bench@example.org"])
        .args(args)
        .current_dir(dir)
        .env_clear()
        .envs(environment(home));
    command
}

fn path(number: u64) -> String {
    let directory = number / PER_DIRECTORY;
    format!("part-{}/module-{directory}/file-{number}.txt", directory / 50)
}

/// Makes a repository with one commit of many files.
fn import(repo: &Path, files: u64) -> Result<(), Failure> {
    git(repo, repo, &["init", "--quiet", "--initial-branch=main"])?;
    let mut importing = command(repo, repo, &["fast-import", "--quiet"])
        .stdin(Stdio::piped())
        .spawn()
        .doing("run git fast-import")?;
    let written = importing.stdin.take().ok_or_else(|| Failure::new("git has no input"))?;
    let mut stream = BufWriter::new(written);
    let doing = "write to git fast-import";
    stream
        .write_all(b"commit refs/heads/main\ncommitter B <b@example.org> 0 +0000\ndata 0\n")
        .doing(doing)?;
    for number in 0..files {
        let content = content(number);
        writeln!(stream, "M 100644 inline {}\ndata {}", path(number), content.len())
            .doing(doing)?;
        stream.write_all(&content).doing(doing)?;
        stream.write_all(b"\n").doing(doing)?;
    }
    stream.flush().doing(doing)?;
    drop(stream);
    let status = importing.wait().doing("wait for git fast-import")?;
    if !status.success() {
        return Err(Failure::new(format!("git fast-import ended with {status}")));
    }
    git(repo, repo, &["symbolic-ref", "HEAD", "refs/heads/main"]).map(drop)
}

/// Text that differs from file to file and does not compress to nothing.
fn content(number: u64) -> Vec<u8> {
    let length = BYTES[usize::try_from(number % 5).unwrap_or_default()];
    let mut content = Vec::with_capacity(length + 80);
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while content.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        content.extend_from_slice(
            format!("let value_{:x} = compute({});\n", state >> 40, state % 1000).as_bytes(),
        );
    }
    content
}
