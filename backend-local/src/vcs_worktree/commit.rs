//! Describes the git step that commits what is dirty. It runs as an execution, never here: hooks are the user's code.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;

use windlass_core::id::AttemptId;
use windlass_core::locator::OsBytes;
use windlass_core::vcs_worktree::{CommitPlan, GitStep, Identity, VcsWorktreeError};
use windlass_core::workspace::Worktree;

use super::Inner;
use super::verify::Found;
use crate::group::Cancel;

/// What the step runs. Its arguments are git, the message, and what `git add` is told; nothing is put into the text.
///
/// A second run finds nothing staged and ends well. Unmerged files are not committed with their conflict marks in them.
/// Git's automatic maintenance is off: objects are never collected by us.
const SCRIPT: &str = r#"git=$1 message=$2
shift 2
unset $("$git" rev-parse --local-env-vars)
run() {
    "$git" -c core.fsync=all -c core.fsyncMethod=fsync -c gc.auto=0 -c maintenance.auto=false "$@"
}
if [ -n "$(run ls-files --unmerged)" ]; then
    echo 'some files are unmerged:' >&2
    run diff --name-only --diff-filter=U >&2
    exit 1
fi
run add --all -- "$@" || exit
run diff --cached --quiet --no-ext-diff --ignore-submodules=none
case $? in
0) [ -e "$(run rev-parse --git-path MERGE_HEAD)" ] || exit 0 ;;
1) ;;
*) exit 1 ;;
esac
run commit --quiet --cleanup=whitespace --message="$message"
"#;

impl Inner {
    pub(super) fn plan_commit(
        &self,
        cancel: &Cancel,
        attempt: AttemptId,
        worktree: &Worktree,
        message: &str,
        fallback: &Identity,
    ) -> Result<CommitPlan, VcsWorktreeError> {
        let found = self.verify(cancel, attempt, worktree)?;
        let Dirt { any, nested } = self.dirt(cancel, &found)?;
        // A merge whose result equals HEAD still has to be concluded.
        if !any && !found.admin.join("MERGE_HEAD").exists() {
            return Ok(CommitPlan::Clean { head: found.verified.head });
        }
        let mut argv: Vec<OsBytes> =
            vec!["/bin/sh".into(), "-c".into(), SCRIPT.into(), "windlass-commit".into()];
        argv.push(OsBytes(self.git.program().as_os_str().as_bytes().to_vec()));
        // An argument cannot hold a zero byte.
        argv.push(message.replace('\0', "\u{fffd}").into());
        if !nested.is_empty() {
            argv.push(":/".into());
            argv.extend(nested.into_iter().map(|path| {
                let mut pattern = b":(top,exclude,literal)".to_vec();
                pattern.extend(path);
                OsBytes(pattern)
            }));
        }
        let mut env: Vec<(String, OsBytes)> =
            [("GIT_TERMINAL_PROMPT", "0"), ("GIT_EDITOR", ":"), ("GIT_PAGER", "cat")]
                .map(|(name, value)| (name.to_owned(), value.into()))
                .into();
        env.extend(self.identity(cancel, &found, fallback)?);
        Ok(CommitPlan::Run(GitStep {
            argv,
            env,
            cwd: worktree.path.clone(),
            repository_lock: worktree.repo.clone(),
        }))
    }

    /// Looks for what a commit would take. A nested repository is not: all that a commit could hold of it is a link to
    /// a commit that nobody else has.
    fn dirt(&self, cancel: &Cancel, found: &Found) -> Result<Dirt, VcsWorktreeError> {
        let status = self.git.on_worktree(&found.admin, &found.path, "status");
        let status = status.args(["--porcelain", "-z", "--no-renames", "--untracked-files=all"]);
        let output = status.arg("--ignore-submodules=dirty").output(cancel)?;
        let mut dirt = Dirt::default();
        for entry in output.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()) {
            match entry.strip_prefix(b"?? ").and_then(|path| path.strip_suffix(b"/")) {
                Some(nested) => dirt.nested.push(nested.to_vec()),
                None => dirt.any = true,
            }
        }
        Ok(dirt)
    }

    /// Names author and committer: as configured, else the fallback; git's own guess from user and host is none. What is
    /// configured is named too, as the commit runs in the environment of the command, which may hide the configuration.
    fn identity(
        &self,
        cancel: &Cancel,
        found: &Found,
        fallback: &Identity,
    ) -> Result<Vec<(String, OsBytes)>, VcsWorktreeError> {
        let asked = self.git.on_worktree(&found.admin, &found.path, "config");
        let asked = asked.args(["--null", "--get-regexp"]);
        let asked = asked.arg(r"^(user|author|committer)\.(name|email)$");
        let answer = asked.answer(cancel)?.unwrap_or_default();
        let mut known = BTreeMap::new();
        for entry in answer.split(|byte| *byte == 0) {
            let text = String::from_utf8_lossy(entry);
            if let Some((key, value)) = text.split_once('\n') {
                known.insert(key.to_owned(), value.trim().to_owned());
            }
        }
        let configured = |role: &str, part: &str| {
            let set = |section: &str| known.get(&format!("{section}.{part}"));
            set(role).or_else(|| set("user")).filter(|value| !value.is_empty())
        };
        let mut env = Vec::new();
        for (role, prefix) in [("author", "GIT_AUTHOR"), ("committer", "GIT_COMMITTER")] {
            let (name, email) = match (configured(role, "name"), configured(role, "email")) {
                (Some(name), Some(email)) => (name, email),
                _ => (&fallback.name, &fallback.email),
            };
            env.push((format!("{prefix}_NAME"), name.as_str().into()));
            env.push((format!("{prefix}_EMAIL"), email.as_str().into()));
        }
        Ok(env)
    }
}

/// What a commit finds.
#[derive(Debug, Default)]
struct Dirt {
    /// Something that it takes.
    any: bool,
    /// Untracked repositories, which it leaves.
    nested: Vec<Vec<u8>>,
}
