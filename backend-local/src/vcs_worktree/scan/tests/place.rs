//! A repository with a worktree, and what git says of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;
use windlass_core::vcs_worktree::Verified;
use windlass_core::workspace::{CopyIn, Oid};

use crate::group::Cancel;
use crate::vcs_worktree::scan::{Scan, Standing};
use crate::vcs_worktree::tree::{Entry, Listing};
use crate::vcs_worktree::verify::Found;
use crate::vcs_worktree::{GitOptions, Inner, locator};

pub(in crate::vcs_worktree) struct Place {
    home: TempDir,
    pub(in crate::vcs_worktree) inner: Inner,
    pub(in crate::vcs_worktree) repo: PathBuf,
    /// The worktree, once there is one.
    pub(in crate::vcs_worktree) at: PathBuf,
}

impl Place {
    /// Makes an empty repository; `init` is for `git init`.
    pub(in crate::vcs_worktree) fn new(init: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(home.path()).unwrap();
        let env = [
            ("PATH".into(), std::env::var_os("PATH").unwrap()),
            ("HOME".into(), root.clone().into_os_string()),
            ("GIT_CONFIG_NOSYSTEM".into(), "1".into()),
        ];
        let inner = Inner::open(GitOptions::new("data", root.join("worktrees"), env)).unwrap();
        let (repo, at) = (root.join("repo"), root.join("worktree"));
        fs::create_dir(&repo).unwrap();
        let place = Self { home, inner, repo, at };
        place.git(&place.repo, &[&["init", "-q", "-b", "main"], init].concat());
        place
    }

    pub(in crate::vcs_worktree) fn home(&self) -> PathBuf {
        fs::canonicalize(self.home.path()).unwrap()
    }

    pub(in crate::vcs_worktree) fn command(&self, dir: &Path) -> Command {
        let mut command = Command::new("git");
        command
            .args(["-c", "user.name=U", "-c", "user.email=u@example.org"])
            .args(["-c", "protocol.file.allow=always", "-c", "gc.auto=0"])
            .current_dir(dir)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.home())
            .env("GIT_CONFIG_NOSYSTEM", "1");
        command
    }

    /// What git prints when it succeeds.
    #[track_caller]
    pub(in crate::vcs_worktree) fn git(&self, dir: &Path, args: &[&str]) -> Vec<u8> {
        let output = self.command(dir).args(args).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {args:?}: {stderr}");
        output.stdout
    }

    /// Lets git try; says whether it succeeded.
    pub(in crate::vcs_worktree) fn tries(&self, dir: &Path, args: &[&str]) -> bool {
        self.command(dir).args(args).output().unwrap().status.success()
    }

    pub(in crate::vcs_worktree) fn commit(&self, dir: &Path) {
        self.git(dir, &["add", "--all"]);
        self.git(dir, &["commit", "-q", "--allow-empty", "-m", "m"]);
    }

    /// Makes the worktree, as a creation leaves it.
    pub(in crate::vcs_worktree) fn worktree(&self) {
        let at = self.at.to_str().unwrap();
        self.git(&self.repo, &["worktree", "add", "-q", "-b", "work", at]);
        let index = self.admin().join("index");
        let copy = self.admin().join("windlass-index");
        fs::copy(&index, &copy).unwrap();
        let written = index.metadata().unwrap().modified().unwrap();
        fs::File::options().write(true).open(copy).unwrap().set_modified(written).unwrap();
    }

    /// Forgets how the checkout was, as in worktrees that were made before this was kept.
    pub(in crate::vcs_worktree) fn forget(&self) {
        fs::remove_file(self.admin().join("windlass-index")).unwrap();
    }

    pub(in crate::vcs_worktree) fn admin(&self) -> PathBuf {
        let printed = self.git(&self.at, &["rev-parse", "--absolute-git-dir"]);
        PathBuf::from(OsString::from_vec(printed.trim_ascii_end().to_vec()))
    }

    pub(in crate::vcs_worktree) fn found(&self) -> Found {
        let head = self.git(&self.at, &["rev-parse", "HEAD"]);
        let head = Oid(String::from_utf8(head.trim_ascii_end().to_vec()).unwrap());
        let common =
            self.git(&self.at, &["rev-parse", "--path-format=absolute", "--git-common-dir"]);
        let common = PathBuf::from(OsString::from_vec(common.trim_ascii_end().to_vec()));
        let verified = Verified { head, branch: Some("work".to_owned()) };
        Found { path: self.at.clone(), admin: self.admin(), common, verified }
    }

    pub(in crate::vcs_worktree) fn scan(&self) -> Scan {
        let copy = CopyIn { from: locator(&self.repo), globs: Vec::new() };
        self.inner.scan(&Cancel::never(), &self.found(), Some(&copy)).unwrap()
    }

    pub(in crate::vcs_worktree) fn is_dirty(&self) -> bool {
        self.inner.is_dirty(&Cancel::never(), &self.found()).unwrap()
    }

    pub(in crate::vcs_worktree) fn write(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let path = self.at.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// How the paths stand that are not the same, as text.
    pub(in crate::vcs_worktree) fn standings(&self) -> Vec<(String, Standing)> {
        let scan = self.scan();
        let text = |path: &Path| path.as_os_str().as_bytes().escape_ascii().to_string();
        scan.differing.iter().map(|one| (text(&one.path), one.standing)).collect()
    }

    /// Checks a look against git, byte by byte.
    #[track_caller]
    pub(in crate::vcs_worktree) fn check(&self) {
        let before = self.fingerprint();
        let scan = self.scan();
        let dirty = self.is_dirty();
        assert!(before == self.fingerprint(), "index or objects were written");
        let expected = self.expected();
        let show = |all: &BTreeMap<Vec<u8>, Standing>| {
            let show = |(path, standing): (&Vec<u8>, &Standing)| {
                format!("{} {standing:?}", path.escape_ascii())
            };
            all.iter().map(show).collect::<Vec<_>>()
        };
        let mut found: BTreeMap<_, _> = scan
            .differing
            .iter()
            .map(|one| (one.path.as_os_str().as_bytes().to_vec(), one.standing))
            .collect();
        assert_eq!(found.len(), scan.differing.len(), "something is named twice");
        // What a program makes is not made here: what is not proven to be as it was checked out counts as changed.
        let made_by_programs = self.made_by_programs();
        found.retain(|path, standing| {
            *standing != Standing::Changed
                || expected.differing.contains_key(path)
                || !made_by_programs.contains(path)
        });
        assert_eq!(show(&found), show(&expected.differing));
        let deleted: BTreeSet<_> =
            scan.deleted.iter().map(|path| path.as_os_str().as_bytes().to_vec()).collect();
        assert_eq!(deleted, expected.deleted);
        assert_eq!(listed(&scan.listing), expected.there);
        let mut status = self.command(&self.at);
        status.args(["status", "--porcelain", "-z", "--ignore-submodules=none"]);
        let status = status.output().unwrap();
        // Git gives up on a submodule that it cannot read.
        if status.status.success() {
            assert_eq!(dirty, !status.stdout.is_empty(), "{}", status.stdout.escape_ascii());
        }
        let sorted = scan.differing.is_sorted_by(|one, other| one.path < other.path);
        assert!(sorted && scan.deleted.is_sorted());
    }

    /// Files of HEAD whose content a filter or an encoding makes.
    fn made_by_programs(&self) -> BTreeSet<Vec<u8>> {
        let head = self.git(&self.at, &["ls-tree", "-rz", "--name-only", "--full-tree", "HEAD"]);
        let made = |path: &Vec<u8>| {
            let mut command = self.command(&self.at);
            command.args([
                "check-attr",
                "--source=HEAD",
                "-z",
                "filter",
                "working-tree-encoding",
                "--",
            ]);
            let output = command.arg(OsStr::from_bytes(path)).output().unwrap().stdout;
            let values: Vec<_> = output.split(|byte| *byte == 0).skip(2).step_by(3).collect();
            values.iter().any(|value| *value != b"unspecified")
        };
        paths(&head).into_iter().filter(made).collect()
    }

    fn fingerprint(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let index = self.admin().join("index");
        let mut seen = vec![(index.clone(), fs::read(&index).unwrap_or_default())];
        for (path, meta) in tree(&self.repo.join(".git/objects")) {
            seen.push((
                OsString::from_vec(path).into(),
                format!("{:?}", meta.modified()).into_bytes(),
            ));
        }
        seen
    }

    fn expected(&self) -> Expected {
        let reference = self.home().join("reference");
        let to = reference.to_str().unwrap();
        self.git(&self.at, &["worktree", "add", "-q", "--detach", to, "HEAD"]);
        let head: BTreeSet<Vec<u8>> =
            paths(&self.git(&self.at, &["ls-tree", "-rz", "--name-only", "--full-tree", "HEAD"]));
        let links: BTreeSet<Vec<u8>> = self.gitlinks();
        let there = tree(&self.at);
        let mut expected = Expected::default();
        let repositories = self.repositories(&there, &links);
        let untold: Vec<_> = there.keys().filter(|path| !head.contains(*path)).cloned().collect();
        let ignored = self.ignored(&untold);
        for (path, meta) in &there {
            expected.there.insert(path.clone());
            if path == b".git" {
                continue;
            }
            let nested = |repository: &Vec<u8>| is_in(path, repository);
            let in_git = path.split(|byte| *byte == b'/').any(|name| name == b".git");
            if meta.is_dir() {
                let empty =
                    fs::read_dir(self.at.join(OsStr::from_bytes(path))).unwrap().next().is_none();
                if !empty || links.contains(path) {
                    continue;
                }
            }
            let standing = if in_git || repositories.iter().any(nested) {
                Standing::Nested
            } else if head.contains(path) && !meta.is_dir() {
                if self.is_same(&reference, path) {
                    continue;
                }
                Standing::Changed
            } else if ignored.contains(path) {
                Standing::Ignored
            } else {
                Standing::Untracked
            };
            expected.differing.insert(path.clone(), standing);
        }
        let is_there = |path: &Vec<u8>| {
            there.get(path).is_some_and(|meta| !meta.is_dir() || links.contains(path))
        };
        let made: BTreeSet<_> = tree(&reference).into_keys().collect();
        expected.deleted =
            head.into_iter().filter(|path| made.contains(path) && !is_there(path)).collect();
        self.git(&self.repo, &["worktree", "remove", "--force", "--force", to]);
        expected
    }

    fn gitlinks(&self) -> BTreeSet<Vec<u8>> {
        let head = self.git(&self.at, &["ls-tree", "-rz", "--full-tree", "HEAD"]);
        let staged = self.git(&self.at, &["ls-files", "-z", "--stage"]);
        let all = [head, staged].concat();
        let links = all.split(|byte| *byte == 0).filter(|line| line.starts_with(b"160000"));
        links
            .map(|line| line[line.iter().position(|byte| *byte == b'\t').unwrap() + 1..].to_vec())
            .collect()
    }

    /// Repositories that git would not look into, and what is below submodules.
    fn repositories(
        &self,
        there: &BTreeMap<Vec<u8>, fs::Metadata>,
        links: &BTreeSet<Vec<u8>>,
    ) -> BTreeSet<Vec<u8>> {
        let tracked = paths(&self.git(&self.at, &["ls-files", "-z"]));
        let mut repositories = links.clone();
        for path in there.keys() {
            let Some(dir) = path.strip_suffix(b"/.git") else { continue };
            if tracked.iter().any(|tracked| is_in(tracked, dir)) {
                continue;
            }
            let dir_path = self.at.join(OsStr::from_bytes(dir));
            let top =
                self.command(&dir_path).args(["rev-parse", "--show-toplevel"]).output().unwrap();
            if top.status.success()
                && top.stdout.trim_ascii_end() == dir_path.as_os_str().as_bytes()
            {
                repositories.insert(dir.to_vec());
            }
        }
        repositories
    }

    fn ignored(&self, paths: &[Vec<u8>]) -> BTreeSet<Vec<u8>> {
        // What is inside another repository is not asked for: git refuses.
        let askable = paths
            .iter()
            .filter(|path| !path.split(|byte| *byte == b'/').any(|name| name == b".git"));
        let mut ignored = BTreeSet::new();
        for path in askable {
            let mut child = self
                .command(&self.at)
                .args(["check-ignore", "-z", "--stdin"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(&[path.as_slice(), b"\0"].concat()).unwrap();
            if child.wait_with_output().unwrap().status.success() {
                ignored.insert(path.clone());
            }
        }
        ignored
    }

    fn is_same(&self, reference: &Path, path: &[u8]) -> bool {
        let look = |top: &Path| {
            let file = top.join(OsStr::from_bytes(path));
            let meta = file.symlink_metadata().ok()?;
            let kind = meta.file_type();
            if kind.is_symlink() {
                let target = fs::read_link(&file).unwrap();
                return Some((1, false, target.into_os_string().into_vec()));
            }
            if kind.is_fifo() || kind.is_socket() {
                return Some((2, false, Vec::new()));
            }
            if kind.is_dir() {
                return Some((3, false, Vec::new()));
            }
            Some((0, meta.permissions().mode() & 0o100 != 0, fs::read(file).unwrap()))
        };
        look(reference).is_some_and(|made| look(&self.at) == Some(made))
    }
}

#[derive(Debug, Default)]
struct Expected {
    differing: BTreeMap<Vec<u8>, Standing>,
    deleted: BTreeSet<Vec<u8>>,
    there: BTreeSet<Vec<u8>>,
}

fn paths(output: &[u8]) -> BTreeSet<Vec<u8>> {
    let all = output.split(|byte| *byte == 0).filter(|path| !path.is_empty());
    all.map(<[u8]>::to_vec).collect()
}

fn is_in(path: &[u8], dir: &[u8]) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.starts_with(b"/"))
}

/// Everything below a directory.
fn tree(top: &Path) -> BTreeMap<Vec<u8>, fs::Metadata> {
    let (mut seen, mut folders) = (BTreeMap::new(), vec![top.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            if meta.is_dir() {
                folders.push(path.clone());
            }
            seen.insert(path.strip_prefix(top).unwrap().as_os_str().as_bytes().to_vec(), meta);
        }
    }
    seen
}

fn listed(listing: &Listing) -> BTreeSet<Vec<u8>> {
    fn add(listing: &Listing, path: &Path, all: &mut BTreeSet<Vec<u8>>) {
        for (name, entry) in &listing.entries {
            let path = path.join(name);
            all.insert(path.as_os_str().as_bytes().to_vec());
            if let Entry::Dir(below) = entry {
                add(below, &path, all);
            }
        }
    }
    let mut all = BTreeSet::new();
    add(listing, Path::new(""), &mut all);
    all
}
