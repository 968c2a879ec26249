//! Describes the git step that commits what is dirty. It runs as an execution, never here: hooks are the user's code.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use windlass_core::id::AttemptId;
use windlass_core::locator::OsBytes;
use windlass_core::vcs_worktree::{GitStep, Identity, StepPlan, VcsWorktreeError};
use windlass_core::workspace::Worktree;

use super::Inner;
use super::verify::Found;
use crate::group::Cancel;

/// What the step runs. Nothing is put into the text: git, the way, what is added, what is synced before the flush, the
/// common git directory, the message, and what `git add` is told are its arguments.
///
/// Everything that the commit needs is synced at once before anything names it: one flush of the file system costs less
/// than one of each object. The plain way makes the commit without looking at every file once more, which `git commit`
/// does; it is for repositories where that has nothing else to do. A second run finds the tree committed and ends well.
/// Git's automatic maintenance is off: objects are never collected by us.
const SCRIPT: &str = r#"git=$1 way=$2 add=$3 synced=$4 common=$5 message=$6
shift 6
unset $("$git" rev-parse --local-env-vars)
run() {
    "$git" -c core.fsync="$fsync" -c core.fsyncMethod=fsync -c gc.auto=0 -c maintenance.auto=false "$@"
}
flush() {
    sync -f "$common/objects" "$common" 2>/dev/null || sync
}
fsync=$synced
run add "$add" -- "$@" || exit
tree=$(run write-tree) || exit
parent=$(run rev-parse --verify HEAD) || exit
if [ "$tree" = "$(run rev-parse --verify "$parent^{tree}")" ] && [ "$way" != merge ]; then
    flush
    exit 0
fi
[ "$synced" = all ] || flush
fsync=all
if [ "$way" != plain ]; then
    run commit --quiet --allow-empty-message --cleanup=whitespace --message="$message" || exit
    flush
    exit
fi
commit=$(printf '%s' "$message" | run commit-tree -p "$parent" -F - "$tree") || exit
subject=${message%%"
"*}
run update-ref -m "commit: $subject" HEAD "$commit" "$parent" || exit
flush
"#;

/// What git syncs before the flush: the index alone where one flush does the rest, as it replaces one that was whole;
/// everything elsewhere.
const SYNCED: &str = if cfg!(target_os = "linux") { "index" } else { "all" };

/// Files of the private git directory that `git commit` looks at or ends; the plain way does not.
const CONCLUDED: [&str; 8] = [
    "MERGE_HEAD",
    "MERGE_MSG",
    "SQUASH_MSG",
    "CHERRY_PICK_HEAD",
    "REVERT_HEAD",
    "rebase-merge",
    "rebase-apply",
    "sequencer",
];

/// How a commit is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// By plumbing alone.
    Plain,
    /// By `git commit`: hooks run, signatures are made.
    Full,
    /// By `git commit`, even if the tree is the one of HEAD.
    Merge,
}

impl Way {
    fn word(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Full => "full",
            Self::Merge => "merge",
        }
    }
}

impl Inner {
    pub(super) fn plan_commit(
        &self,
        cancel: &Cancel,
        attempt: AttemptId,
        worktree: &Worktree,
        message: &str,
        fallback: &Identity,
    ) -> Result<StepPlan, VcsWorktreeError> {
        let found = self.verify(cancel, attempt, worktree)?;
        self.clear_locks(cancel, &found)?;
        let dirt = self.dirt(cancel, &found)?;
        if !dirt.unmerged.is_empty() {
            // They would be committed with their conflict marks in them.
            let detail = format!("unmerged files: {}", named(&dirt.unmerged));
            return Err(VcsWorktreeError::Unfinished { path: worktree.path.clone(), detail });
        }
        let merging = found.admin.join("MERGE_HEAD").exists();
        // A merge whose result equals HEAD still has to be concluded.
        if !dirt.any() && !merging {
            return Ok(StepPlan::Nothing { head: found.verified.head });
        }
        let settings = self.settings(cancel, &found)?;
        let concludes = CONCLUDED.iter().any(|file| found.admin.join(file).exists());
        let way = match () {
            () if merging => Way::Merge,
            () if concludes || settings.wants_porcelain(&found.common) => Way::Full,
            () => Way::Plain,
        };
        let add = if dirt.untracked { "--all" } else { "--update" };
        let mut argv: Vec<OsBytes> =
            vec!["/bin/sh".into(), "-c".into(), SCRIPT.into(), "windlass-commit".into()];
        argv.push(OsBytes(self.git.program().as_os_str().as_bytes().to_vec()));
        argv.extend([way.word().into(), add.into(), SYNCED.into()]);
        argv.push(OsBytes(found.common.as_os_str().as_bytes().to_vec()));
        argv.push(cleaned(message).into());
        if !dirt.nested.is_empty() {
            argv.push(":/".into());
            argv.extend(dirt.nested.into_iter().map(|path| {
                let mut pattern = b":(top,exclude,literal)".to_vec();
                pattern.extend(path);
                OsBytes(pattern)
            }));
        }
        let mut env = unattended();
        env.extend(settings.identity(fallback));
        Ok(StepPlan::Run(GitStep {
            argv,
            env,
            base_env: self.git.base_env(),
            cwd: worktree.path.clone(),
            repository_lock: worktree.repo.clone(),
        }))
    }

    /// Looks for what a commit would take. A nested repository is not: all that a commit could hold of it is a link to
    /// a commit that nobody else has.
    pub(super) fn dirt(&self, cancel: &Cancel, found: &Found) -> Result<Dirt, VcsWorktreeError> {
        let status = self.git.on_worktree(&found.admin, &found.path, "status");
        let status = status.args(["--porcelain", "-z", "--no-renames", "--untracked-files=all"]);
        let output = status.arg("--ignore-submodules=dirty").output(cancel)?;
        let mut dirt = Dirt::default();
        for entry in output.split(|byte| *byte == 0) {
            match entry {
                [b'?', b'?', b' ', path @ .., b'/'] => dirt.nested.push(path.to_vec()),
                [b'?', b'?', b' ', ..] => dirt.untracked = true,
                [b'U', _, b' ', path @ ..]
                | [_, b'U', b' ', path @ ..]
                | [b'A', b'A', b' ', path @ ..]
                | [b'D', b'D', b' ', path @ ..] => {
                    dirt.unmerged.push(String::from_utf8_lossy(path).into_owned());
                }
                [_, _, b' ', ..] => dirt.tracked = true,
                _ => {}
            }
        }
        Ok(dirt)
    }

    /// Reads what a commit has to know of the configuration. What is configured is handed on explicitly, as the commit
    /// runs in the environment of the command, which may hide the configuration.
    pub(super) fn settings(
        &self,
        cancel: &Cancel,
        found: &Found,
    ) -> Result<Settings, VcsWorktreeError> {
        let asked = self.git.on_worktree(&found.admin, &found.path, "config");
        let asked = asked.args(["--null", "--get-regexp"]);
        let asked = asked.arg(
            r"^((user|author|committer)\.(name|email)|core\.hookspath|commit\.gpgsign|hook\..*)$",
        );
        let answer = asked.answer(cancel)?.unwrap_or_default();
        let mut known = BTreeMap::new();
        for entry in answer.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()) {
            let text = String::from_utf8_lossy(entry);
            // A key alone means "true".
            let (key, value) = text.split_once('\n').unwrap_or((&text, "true"));
            known.insert(key.to_owned(), value.trim().to_owned());
        }
        Ok(Settings { known })
    }
}

/// What is configured about commits.
#[derive(Debug)]
pub(super) struct Settings {
    known: BTreeMap<String, String>,
}

impl Settings {
    /// Names author and committer: as configured, else the fallback; git's own guess from user and host is none.
    pub(super) fn identity(&self, fallback: &Identity) -> Vec<(String, OsBytes)> {
        let configured = |role: &str, part: &str| {
            let set = |section: &str| self.known.get(&format!("{section}.{part}"));
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
        env
    }

    /// Says whether `git commit` has more to do than to make a commit: hooks to run, or a signature to make.
    fn wants_porcelain(&self, common: &Path) -> bool {
        let signs = self.known.get("commit.gpgsign").is_some_and(|value| {
            !matches!(value.to_ascii_lowercase().as_str(), "false" | "no" | "off" | "0" | "")
        });
        let hooked =
            self.known.keys().any(|key| key.starts_with("hook.") || key == "core.hookspath");
        signs || hooked || has_hooks(&common.join("hooks"))
    }
}

/// Says whether there is a hook that git would run. What cannot be looked at may be one.
fn has_hooks(folder: &Path) -> bool {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return error.kind() != io::ErrorKind::NotFound,
    };
    entries.into_iter().any(|entry| {
        entry.is_ok_and(|entry| {
            !entry.file_name().as_encoded_bytes().ends_with(b".sample")
                && rustix::fs::access(entry.path(), rustix::fs::Access::EXEC_OK).is_ok()
        })
    })
}

/// Variables of a git that nobody answers.
pub(super) fn unattended() -> Vec<(String, OsBytes)> {
    [("GIT_TERMINAL_PROMPT", "0"), ("GIT_EDITOR", ":"), ("GIT_PAGER", "cat")]
        .map(|(name, value)| (name.to_owned(), value.into()))
        .into()
}

/// Names the first few.
pub(super) fn named(names: &[String]) -> String {
    const NAMED: usize = 8;
    let first: Vec<_> =
        names.iter().take(NAMED).map(|name| name.escape_debug().to_string()).collect();
    match names.len().saturating_sub(NAMED) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// Makes a message as `git commit --cleanup=whitespace` would: no spaces at the ends of lines, no blank lines at both
/// ends, no more than one in a row. An argument cannot hold a zero byte.
pub(super) fn cleaned(message: &str) -> String {
    let message = message.replace('\0', "\u{fffd}");
    let mut cleaned = String::with_capacity(message.len() + 1);
    let mut blank = false;
    for line in message.lines().map(str::trim_end) {
        if line.is_empty() {
            blank = !cleaned.is_empty();
            continue;
        }
        if blank {
            cleaned.push('\n');
        }
        blank = false;
        cleaned.push_str(line);
        cleaned.push('\n');
    }
    cleaned
}

/// What a commit finds.
#[derive(Debug, Default)]
pub(super) struct Dirt {
    /// Tracked files changed, or something is staged.
    tracked: bool,
    /// There are untracked files.
    untracked: bool,
    /// Untracked repositories, which it leaves.
    nested: Vec<Vec<u8>>,
    /// Files with conflicts.
    pub(super) unmerged: Vec<String>,
}

impl Dirt {
    /// Something that a commit takes.
    pub(super) fn any(&self) -> bool {
        self.tracked || self.untracked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cleaned_as_git_does() {
        for (message, expected) in [
            ("a", "a\n"),
            ("\n\n a  \n\n\n\nb\t\n\n", " a\n\nb\n"),
            ("", ""),
            (" \n\t\n", ""),
            ("a\0b\r\nc", "a\u{fffd}b\nc\n"),
        ] {
            assert_eq!(cleaned(message), expected, "{message:?}");
        }
    }
}
