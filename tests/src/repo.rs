//! Git repositories for tests.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A repository in a temporary directory, with an identity of its own and nobody's global configuration.
#[derive(Debug)]
pub struct TempRepo {
    dir: TempDir,
    path: PathBuf,
}

impl TempRepo {
    /// Makes a repository without a commit.
    ///
    /// # Panics
    ///
    /// When git or the disk refuses, as every method here does: a test cannot go on then.
    #[must_use]
    pub fn empty() -> Self {
        Self::empty_named("repo")
    }

    /// Makes a repository without a commit in a directory of this name.
    #[must_use]
    pub fn empty_named(name: impl AsRef<OsStr>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().canonicalize().expect("its real path").join(name.as_ref());
        fs::create_dir(&path).expect("a directory for the repository");
        let repo = Self { dir, path };
        repo.git(["init", "--quiet", "--initial-branch=main"]);
        repo.git(["config", "user.name", "Ada Example"]);
        repo.git(["config", "user.email", "ada@example.org"]);
        repo
    }

    /// Makes a repository with one commit of two files.
    #[must_use]
    pub fn with_commit() -> Self {
        Self::empty().filled()
    }

    /// Makes the same in a directory of this name.
    #[must_use]
    pub fn with_commit_named(name: impl AsRef<OsStr>) -> Self {
        Self::empty_named(name).filled()
    }

    fn filled(self) -> Self {
        self.write("README.md", "# A repository\n");
        self.write("src/main.rs", "fn main() {}\n");
        self.commit_all("first");
        self
    }

    /// Makes a repository of the sources of a crate that the tests were built with, the largest version; `None` where
    /// cargo keeps no sources.
    #[must_use]
    pub fn of_crate(name: &str) -> Option<Self> {
        let sources = crate_sources(name)?;
        let repo = Self::empty();
        copy(&sources, &repo.path);
        repo.commit_all("sources");
        Some(repo)
    }

    /// Returns the top directory, without links in it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the temporary directory that the repository is in.
    #[must_use]
    pub fn parent(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file, with the directories that it needs.
    pub fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let path = self.path.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("the directories of the file");
        fs::write(path, content).expect("the file");
    }

    /// Commits everything; returns the commit's id.
    #[must_use = "or call git"]
    pub fn commit(&self, message: &str) -> String {
        self.commit_all(message);
        self.git(["rev-parse", "HEAD"])
    }

    fn commit_all(&self, message: &str) {
        self.git(["add", "--all"]);
        self.git(["commit", "--quiet", "--allow-empty", "-m", message]);
    }

    /// Runs git here; returns what it printed, without the last newline.
    pub fn git<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> String {
        git_in(&self.path, arguments)
    }
}

/// Runs git in `dir`; returns what it printed, without the last newline.
///
/// # Panics
///
/// When git cannot be run or fails.
pub fn git_in<A: AsRef<OsStr>>(dir: &Path, arguments: impl IntoIterator<Item = A>) -> String {
    let mut command = Command::new("git");
    command
        .current_dir(dir)
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1");
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(name);
    }
    let Output { status, stdout, stderr } = command.output().expect("git can be run");
    assert!(status.success(), "{command:?}: {status}\n{}", String::from_utf8_lossy(&stderr));
    let text = String::from_utf8(stdout).expect("git's answer in UTF-8");
    text.strip_suffix('\n').map_or(text.clone(), str::to_owned)
}

/// Finds the unpacked sources of a crate.
fn crate_sources(name: &str) -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))?;
    let registries = fs::read_dir(home.join("registry/src")).ok()?;
    let sources = registries
        .flatten()
        .filter_map(|registry| fs::read_dir(registry.path()).ok())
        .flatten()
        .flatten();
    let of_crate = sources.filter(|source| {
        let version = source
            .file_name()
            .to_str()
            .and_then(|file| file.strip_prefix(name)?.strip_prefix('-').map(str::to_owned));
        version.is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()))
    });
    of_crate.map(|source| source.path()).max()
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("the sources") {
        let entry = entry.expect("a source");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("the type of a source").is_dir() {
            fs::create_dir(&target).expect("a directory");
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("a copy");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_has_what_was_written_and_nobody_elses_settings() {
        let repo = TempRepo::with_commit_named("mit Räumen");
        assert_eq!(repo.git(["ls-files"]), "README.md\nsrc/main.rs");
        assert_eq!(repo.git(["log", "--format=%an"]), "Ada Example");
        repo.write("new", "x");
        let head = repo.commit("second");
        assert_eq!(repo.git(["rev-list", "--count", &head]), "2");
    }

    #[test]
    fn sources_of_a_crate_become_a_repository() {
        let Some(repo) = TempRepo::of_crate("tempfile") else {
            return crate::not_run("a repository of real sources: cargo keeps none here");
        };
        assert!(repo.git(["ls-files"]).contains("src/lib.rs"));
    }
}
