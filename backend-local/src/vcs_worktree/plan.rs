//! Resolves a request: which repository, base, branch and path.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use uuid::Uuid;
use windlass_core::id::AttemptId;
use windlass_core::locator::Locator;
use windlass_core::vcs_worktree::{Planned, VcsWorktreeError, WorktreeRequest};
use windlass_core::workspace::{CopyIn, Oid, Worktree};

use super::copy::check_globs;
use super::git::{failure, first_line, without_newline};
use super::name::slug;
use super::refs::{self, HEADS, Ref};
use super::{Inner, failed, locator, path_of};
use crate::group::{Cancel, Capture};

/// Where a request stands.
struct Source {
    /// The common git directory.
    common: PathBuf,
    /// There is a checkout around it.
    checkout: bool,
}

/// What a base is.
struct Base {
    named: String,
    oid: Oid,
    target: Option<String>,
}

impl Inner {
    /// Resolves a request. Makes nothing.
    pub(super) fn plan(
        &self,
        cancel: &Cancel,
        request: &WorktreeRequest,
    ) -> Result<Planned, VcsWorktreeError> {
        let dir = path_of(&request.repo);
        check_globs(&request.copy)?;
        let source = self.source(cancel, &dir)?;
        let copy = match source.checkout && !request.copy.is_empty() {
            true => Some(CopyIn { from: self.top(cancel, &dir)?, globs: request.copy.clone() }),
            false => None,
        };
        let base = self.base(cancel, &dir, &source.common, request.base.as_deref())?;
        let names = Names::new(request.attempt, &request.title);
        let branch = match &request.branch {
            Some(branch) => self.free_branch(cancel, &source.common, branch.clone()),
            None => {
                let short =
                    self.free_branch(cancel, &source.common, names.branch(&self.branch_prefix));
                match short {
                    Err(VcsWorktreeError::BranchExists { .. }) => {
                        let long = names.long_branch(&self.branch_prefix);
                        self.free_branch(cancel, &source.common, long)
                    }
                    other => other,
                }
            }
        }?;
        let folder = self.root.join(folder_name(&source.common));
        let path = [names.dir(), names.long_dir()].map(|name| folder.join(name));
        let [short, long] = path;
        let path = if short.symlink_metadata().is_ok() { long } else { short };
        let source_is_dirty = source.checkout && self.has_changes(cancel, &dir)?;
        let worktree = Worktree {
            repo: locator(&source.common),
            path: locator(&path),
            branch,
            base: base.named,
            base_oid: base.oid,
            target: base.target,
            copy,
        };
        let unmatched = worktree.copy.as_ref().map(|copy| self.unmatched(cancel, copy));
        let unmatched = unmatched.unwrap_or_default();
        Ok(Planned { worktree, source_is_dirty, unmatched })
    }

    fn source(&self, cancel: &Cancel, dir: &Path) -> Result<Source, VcsWorktreeError> {
        let none = || VcsWorktreeError::NotARepository { path: locator(dir) };
        if !dir.is_absolute() || !dir.is_dir() {
            return Err(none());
        }
        let asked = self.git.within(dir, "rev-parse");
        let asked =
            asked.args(["--is-inside-work-tree", "--path-format=absolute", "--git-common-dir"]);
        let ended = asked.run(cancel)?;
        if !ended.status.success() {
            let error = failure("rev-parse", &ended);
            let stderr = String::from_utf8_lossy(&ended.stderr);
            return Err(if stderr.contains("not a git repository") { none() } else { error });
        }
        let first = first_line(&ended.stdout);
        let common = without_newline(ended.stdout.get(first.len() + 1..).unwrap_or_default());
        let common = Path::new(OsStr::from_bytes(common));
        let common = fs::canonicalize(common).map_err(|error| failed("plan", common, error))?;
        Ok(Source { common, checkout: first == b"true" })
    }

    /// The root of the checkout that a directory is in.
    fn top(&self, cancel: &Cancel, dir: &Path) -> Result<Locator, VcsWorktreeError> {
        let asked = self.git.within(dir, "rev-parse");
        let top = asked.args(["--path-format=absolute", "--show-toplevel"]).output(cancel)?;
        Ok(Locator::new(without_newline(&top)))
    }

    fn base(
        &self,
        cancel: &Cancel,
        dir: &Path,
        common: &Path,
        named: Option<&str>,
    ) -> Result<Base, VcsWorktreeError> {
        let name = named.unwrap_or("HEAD");
        let ask = |option: &str, what: &str| {
            let asked = self.git.within(dir, "rev-parse").args([option, "--verify", "--quiet"]);
            asked.args(["--end-of-options", what]).run(cancel)
        };
        let commit = ask("--revs-only", &format!("{name}^{{commit}}"))?;
        let oid = refs::oid(first_line(&commit.stdout)).filter(|_| commit.status.success());
        let Some(oid) = oid else {
            let any = self.git.on_repository(common, "for-each-ref").arg("--count=1");
            return Err(if any.output(cancel)?.is_empty() {
                VcsWorktreeError::Empty { repo: locator(dir) }
            } else {
                VcsWorktreeError::UnknownBase { base: name.to_owned() }
            });
        };
        let full = ask("--symbolic-full-name", name)?.stdout;
        let full = String::from_utf8_lossy(first_line(&full)).into_owned();
        let target = full.strip_prefix(HEADS).map(str::to_owned);
        let named = named.map(str::to_owned).or_else(|| target.clone());
        Ok(Base { named: named.unwrap_or_else(|| name.to_owned()), oid, target })
    }

    /// Checks that git would take a name for a new branch.
    fn free_branch(
        &self,
        cancel: &Cancel,
        common: &Path,
        branch: String,
    ) -> Result<String, VcsWorktreeError> {
        // Git takes `@{-1}` for the branch before; its answer is then another name. `@` means HEAD wherever it is used.
        let asked = self.git.on_repository(common, "check-ref-format").arg("--branch");
        let asked = asked.arg(&branch).run(cancel)?;
        let same = without_newline(&asked.stdout) == branch.as_bytes();
        if !asked.status.success() || !same || matches!(branch.as_str(), "HEAD" | "@") {
            return Err(VcsWorktreeError::InvalidBranch { branch });
        }
        // A branch `a` is in the way of `a/b`, and the reverse.
        for (slash, _) in branch.match_indices('/') {
            let above = &branch[..slash];
            if self.branch_oid(cancel, common, above)?.is_some() {
                return Err(VcsWorktreeError::BranchExists { branch: above.to_owned() });
            }
        }
        let asked = self.git.on_repository(common, "for-each-ref").arg("--format=%(refname)");
        let asked = asked.arg("--ignore-case").arg(format!("{HEADS}{branch}")).output(cancel)?;
        let listed = asked.split(|byte| *byte == b'\n').filter_map(|name| {
            let name = name.strip_prefix(HEADS.as_bytes())?;
            Some(String::from_utf8_lossy(name).into_owned())
        });
        let (same, other_case): (Vec<_>, Vec<_>) =
            listed.partition(|taken| taken.starts_with(branch.as_str()));
        let taken = match (same.into_iter().next(), other_case.into_iter().next()) {
            (Some(taken), _) => Some(taken),
            // Where names that differ in case alone are one file, so are their branches.
            (None, Some(taken)) if self.ignores_case(cancel, common)? => Some(taken),
            (None, _) => None,
        };
        match taken {
            None => Ok(branch),
            Some(branch) => Err(VcsWorktreeError::BranchExists { branch }),
        }
    }

    fn ignores_case(&self, cancel: &Cancel, common: &Path) -> Result<bool, VcsWorktreeError> {
        let asked = self.git.on_repository(common, "config");
        let asked = asked.args(["--type=bool", "--get", "core.ignoreCase"]).answer(cancel)?;
        Ok(asked.is_some_and(|answer| first_line(&answer) == b"true"))
    }

    /// Reads the commit of a branch.
    pub(super) fn branch_oid(
        &self,
        cancel: &Cancel,
        common: &Path,
        branch: &str,
    ) -> Result<Option<Oid>, VcsWorktreeError> {
        let name = format!("{HEADS}{branch}");
        match refs::read(common, &name).map_err(|error| failed("read branch", common, error))? {
            Ref::Commit(oid) => Ok(Some(oid)),
            Ref::Missing => Ok(None),
            Ref::Unusual => {
                let asked = self.git.on_repository(common, "rev-parse");
                let asked = asked.args(["--verify", "--quiet", "--end-of-options", &name]);
                let found = asked.answer(cancel)?;
                Ok(found.and_then(|found| refs::oid(first_line(&found))))
            }
        }
    }

    fn has_changes(&self, cancel: &Cancel, dir: &Path) -> Result<bool, VcsWorktreeError> {
        let asked = self.git.within(dir, "status").args(["--porcelain", "-z", "--no-renames"]);
        let asked = asked.args(["--untracked-files=normal", "--ignore-submodules=none"]);
        match asked.capture(Capture::Any).output(cancel) {
            Ok(output) => Ok(!output.is_empty()),
            // A filter that is broken, an index that is: nothing says that all of it will be in the worktree.
            Err(VcsWorktreeError::Git { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// The names that come from an attempt: a short one, and a long one in case it is taken.
struct Names {
    short: String,
    long: String,
    slug: String,
}

impl Names {
    fn new(attempt: AttemptId, title: &str) -> Self {
        let long = attempt.0.simple().to_string();
        Self { short: long[24..].to_owned(), long, slug: slug(title) }
    }

    fn branch(&self, prefix: &str) -> String {
        format!("{prefix}{}", hyphened(&self.short, &self.slug))
    }

    fn long_branch(&self, prefix: &str) -> String {
        format!("{prefix}{}", hyphened(&self.long, &self.slug))
    }

    fn dir(&self) -> String {
        hyphened(&self.slug, &self.short)
    }

    fn long_dir(&self) -> String {
        hyphened(&self.slug, &self.long)
    }
}

fn hyphened(first: &str, second: &str) -> String {
    match (first, second) {
        ("", only) | (only, "") => only.to_owned(),
        (first, second) => format!("{first}-{second}"),
    }
}

/// Names the folder of a repository's worktrees so that people recognise it and no two share one.
fn folder_name(common: &Path) -> String {
    let last = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let own = last(common).unwrap_or_default();
    let name = match own.as_str() {
        ".git" => common.parent().and_then(last).unwrap_or_default(),
        own => own.strip_suffix(".git").unwrap_or(own).to_owned(),
    };
    let hash = Uuid::new_v5(&Uuid::NAMESPACE_URL, common.as_os_str().as_bytes()).simple();
    hyphened(&slug(&name), &hash.to_string()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_named_after_the_repository() {
        for (common, begin) in [
            ("/home/x/My Project/.git", "my-project-"),
            ("/srv/git/tool.git", "tool-"),
            ("/srv/git/bare", "bare-"),
            ("/.git", ""),
        ] {
            let name = folder_name(Path::new(common));
            assert_eq!(name.len(), begin.len() + 8, "{name}");
            assert!(name.starts_with(begin), "{name}");
        }
        assert_ne!(folder_name(Path::new("/a/x/.git")), folder_name(Path::new("/b/x/.git")));
    }
}
