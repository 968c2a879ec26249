//! Git's command line: which program, in which environment, and what its failures mean.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use windlass_core::error::BackendError;
use windlass_core::locator::OsBytes;
use windlass_core::vcs_worktree::VcsWorktreeError;

use super::BACKEND;
use crate::group::{self, Cancel, Capture, Ended, Helper, HelperError};

/// The oldest version that will do: 2.36 syncs refs and index on request (`core.fsync`).
const OLDEST: (u32, u32) = (2, 36);
/// More output than this of a command whose output is a list is refused.
pub(super) const LIST_MAX: usize = 256 << 20;

/// Said to every git, so that nobody's configuration changes what it does or prints.
const ALWAYS: [&str; 5] = [
    // A monitor is a program of the user's choice, started by looking.
    "core.fsmonitor=false",
    "core.quotePath=true",
    "color.ui=false",
    // Objects are never collected by us.
    "gc.auto=0",
    "maintenance.auto=false",
];

/// What every git sees: it asks nobody, refreshes nothing by looking, and speaks one language.
const OURS: [(&str, &str); 8] = [
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_OPTIONAL_LOCKS", "0"),
    ("GIT_ASKPASS", "true"),
    ("SSH_ASKPASS", "true"),
    ("GIT_PAGER", "cat"),
    ("GIT_EDITOR", ":"),
    ("GIT_SEQUENCE_EDITOR", ":"),
    ("LC_ALL", "C"),
];

/// A git that works.
#[derive(Debug)]
pub(super) struct Git {
    program: PathBuf,
    env: Vec<(OsString, OsString)>,
    deadline: Duration,
    /// Where attributes for the whole system would be; `None` if git does not say.
    system_attributes: OnceLock<Option<PathBuf>>,
}

impl Git {
    /// Finds the program and asks its version.
    pub(super) fn find(
        program: &Path,
        env: Vec<(OsString, OsString)>,
        deadline: Duration,
    ) -> Result<Self, VcsWorktreeError> {
        let program = locate(program, &env).ok_or_else(|| VcsWorktreeError::NoGit {
            detail: format!("{} was not found", program.display()),
        })?;
        let env = environment(env);
        let git = Self { program, env, deadline, system_attributes: OnceLock::new() };
        let version = git.command("version").run(&Cancel::never()).map_err(|error| {
            VcsWorktreeError::NoGit {
                detail: format!("{} does not run: {error}", git.program.display()),
            }
        })?;
        let text = String::from_utf8_lossy(&version.stdout);
        match parse_version(&text) {
            Some(found) if found >= OLDEST => Ok(git),
            _ => Err(VcsWorktreeError::NoGit {
                detail: format!(
                    "{} says {:?}, at least {}.{} is needed",
                    git.program.display(),
                    text.trim(),
                    OLDEST.0,
                    OLDEST.1,
                ),
            }),
        }
    }

    /// The program's absolute path.
    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// What a variable is in git's environment.
    pub(super) fn var(&self, name: &str) -> Option<&OsStr> {
        let mut set = self.env.iter().filter(|(known, _)| known == name);
        set.next_back().map(|(_, value)| value.as_os_str())
    }

    /// Begins a command that knows no repository yet; `name` may be several words and is what errors call it.
    pub(super) fn command(&self, name: &'static str) -> GitCommand<'_> {
        GitCommand {
            git: self,
            name,
            globals: ALWAYS.iter().flat_map(|set| ["-c".into(), OsString::from(set)]).collect(),
            args: name.split(' ').map(OsString::from).collect(),
            env: Vec::new(),
            stdin: None,
            capture: Capture::UpTo(LIST_MAX),
        }
    }

    /// What a git step sets, whatever the environment: nobody is there to be asked.
    pub(super) fn step_env() -> Vec<(String, OsBytes)> {
        let asks = |(name, _): &&(&str, &str)| name.starts_with("GIT_") || name.starts_with("SSH_");
        let kept = OURS.iter().filter(asks).filter(|(name, _)| *name != "GIT_OPTIONAL_LOCKS");
        kept.map(|(name, value)| ((*name).to_owned(), (*value).into())).collect()
    }

    /// The environment of a git step for which there is no other: the one that was given, as far as its names are text.
    pub(super) fn base_env(&self) -> Vec<(String, OsBytes)> {
        let given = self.env.iter().filter(|(name, _)| !OURS.iter().any(|(ours, _)| name == ours));
        let named = given.filter_map(|(name, value)| {
            Some((name.to_str()?.to_owned(), OsBytes(value.as_bytes().to_vec())))
        });
        named.collect()
    }

    /// Where attributes for the whole system would be; git is asked once. `None` if it does not say (before 2.41).
    pub(super) fn system_attributes(&self) -> Option<&Path> {
        let asked = || {
            let asked = self.command("var").arg("GIT_ATTR_SYSTEM").run(&Cancel::never()).ok()?;
            let named = without_newline(&asked.stdout);
            let named = Path::new(OsStr::from_bytes(named)).to_owned();
            (asked.status.success() && named.is_absolute()).then_some(named)
        };
        self.system_attributes.get_or_init(asked).as_deref()
    }

    /// How long a command may take.
    pub(super) const fn deadline(&self) -> Duration {
        self.deadline
    }

    /// The value of a variable that every git sees.
    pub(super) fn variable(&self, name: &str) -> Option<&OsStr> {
        let found = self.env.iter().find(|(given, _)| given == name);
        found.map(|(_, value)| value.as_os_str())
    }

    /// Begins a command in whatever repository `dir` is in.
    pub(super) fn within(&self, dir: &Path, name: &'static str) -> GitCommand<'_> {
        let mut command = self.command(name);
        command.globals.extend(["-C".into(), dir.into()]);
        command
    }

    /// Begins a command on a repository, apart from any checkout.
    pub(super) fn on_repository(&self, common: &Path, name: &'static str) -> GitCommand<'_> {
        let mut command = self.command(name);
        command.globals.push(joined("--git-dir=", common));
        command
    }

    /// Begins a command in a worktree, told where everything is so that nothing else can be found by searching.
    pub(super) fn on_worktree(
        &self,
        admin: &Path,
        path: &Path,
        name: &'static str,
    ) -> GitCommand<'_> {
        let mut command = self.within(path, name);
        command.globals.extend([joined("--git-dir=", admin), joined("--work-tree=", path)]);
        command
    }
}

fn joined(option: &str, path: &Path) -> OsString {
    let mut text = OsString::from(option);
    text.push(path);
    text
}

/// One git command.
#[derive(Debug)]
#[must_use = "a command does nothing until it is run"]
pub(super) struct GitCommand<'a> {
    git: &'a Git,
    name: &'static str,
    globals: Vec<OsString>,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    stdin: Option<File>,
    capture: Capture,
}

impl GitCommand<'_> {
    pub(super) fn set_all(self, config: &[String]) -> Self {
        config.iter().fold(self, |command, config| command.set(config))
    }

    pub(super) fn set(mut self, config: &str) -> Self {
        self.globals.extend(["-c".into(), config.into()]);
        self
    }

    pub(super) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    pub(super) fn args<const N: usize>(mut self, args: [&str; N]) -> Self {
        self.args.extend(args.iter().map(OsString::from));
        self
    }

    pub(super) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    pub(super) fn stdin(mut self, file: File) -> Self {
        self.stdin = Some(file);
        self
    }

    pub(super) fn capture(mut self, capture: Capture) -> Self {
        self.capture = capture;
        self
    }

    /// Runs it; the caller judges the exit code.
    pub(super) fn run(self, cancel: &Cancel) -> Result<Ended, VcsWorktreeError> {
        let args: Vec<OsString> = self.globals.into_iter().chain(self.args).collect();
        let env: Vec<_> = self.git.env.iter().cloned().chain(self.env).collect();
        let helper = Helper {
            program: &self.git.program,
            args: &args,
            env: &env,
            stdin: self.stdin,
            stdout: self.capture,
            deadline: self.git.deadline,
        };
        group::run(helper, cancel).map_err(|error| helper_failed(self.name, error))
    }

    /// Runs it and takes any exit code but 0 as its failure.
    pub(super) fn output(self, cancel: &Cancel) -> Result<Vec<u8>, VcsWorktreeError> {
        let name = self.name;
        let any = matches!(self.capture, Capture::Any);
        let ended = self.run(cancel)?;
        if ended.status.success() || (any && !ended.stdout.is_empty()) {
            Ok(ended.stdout)
        } else {
            Err(failure(name, &ended))
        }
    }

    /// Runs it and takes 1 as "no"; more is its failure.
    pub(super) fn answer(self, cancel: &Cancel) -> Result<Option<Vec<u8>>, VcsWorktreeError> {
        let name = self.name;
        let ended = self.run(cancel)?;
        match ended.status.code() {
            Some(0) => Ok(Some(ended.stdout)),
            Some(1) => Ok(None),
            _ => Err(failure(name, &ended)),
        }
    }
}

/// Makes an error of a command, or of work in its place, that did not come to its end.
pub(super) fn helper_failed(name: &'static str, error: HelperError) -> VcsWorktreeError {
    match error {
        HelperError::Deadline(..) | HelperError::Cancelled => {
            BackendError::transient(BACKEND, name, error).into()
        }
        HelperError::Spawn(_) | HelperError::TooMuch(_) | HelperError::Watch(_) => {
            BackendError::permanent(BACKEND, name, error).into()
        }
    }
}

/// Makes an error of what git said.
pub(super) fn failure(command: &str, ended: &Ended) -> VcsWorktreeError {
    let stderr = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
    if stderr.contains("No space left on device") || stderr.contains("Disk quota exceeded") {
        return VcsWorktreeError::Full;
    }
    let stderr = if stderr.is_empty() { ended.status.to_string() } else { stderr };
    VcsWorktreeError::Git { command: command.to_owned(), stderr }
}

/// The first line of what git printed, without its end.
pub(super) fn first_line(output: &[u8]) -> &[u8] {
    output.split(|byte| *byte == b'\n').next().unwrap_or_default()
}

/// What git printed as its last line, which may be a path with line ends in it.
pub(super) fn without_newline(output: &[u8]) -> &[u8] {
    output.strip_suffix(b"\n").unwrap_or(output)
}

/// What every git sees: the given environment without variables that would lead it elsewhere or make it ask.
fn environment(given: Vec<(OsString, OsString)>) -> Vec<(OsString, OsString)> {
    let replaced = |name: &OsStr| {
        let bytes = name.as_encoded_bytes();
        bytes.starts_with(b"GIT_")
            || bytes == b"LANGUAGE"
            || OURS.iter().any(|(ours, _)| name == *ours)
    };
    let kept = given.into_iter().filter(|(name, _)| !replaced(name));
    kept.chain(OURS.map(|(name, value)| (name.into(), value.into()))).collect()
}

fn locate(program: &Path, env: &[(OsString, OsString)]) -> Option<PathBuf> {
    if program.is_absolute() {
        return Some(program.to_owned());
    }
    let (_, path) = env.iter().find(|(name, _)| name == "PATH")?;
    std::env::split_paths(path).filter(|dir| dir.is_absolute()).map(|dir| dir.join(program)).find(
        |file| rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file(),
    )
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.strip_prefix("git version ")?.split(|char: char| !char.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_vendors_write_them() {
        for (text, expected) in [
            ("git version 2.47.3\n", Some((2, 47))),
            ("git version 2.39.5 (Apple Git-154)\n", Some((2, 39))),
            ("git version 2.51.0.rc1\n", Some((2, 51))),
            ("busybox\n", None),
            ("git version two\n", None),
        ] {
            assert_eq!(parse_version(text), expected, "{text:?}");
        }
    }

    #[test]
    fn git_sees_nothing_that_would_lead_it_elsewhere() {
        let given = [("GIT_DIR", "/x"), ("HOME", "/h"), ("LC_ALL", "de_DE"), ("LANGUAGE", "de")];
        let env = environment(given.map(|(name, value)| (name.into(), value.into())).to_vec());
        assert!(env.contains(&("HOME".into(), "/h".into())));
        assert!(!env.iter().any(|(name, _)| name == "GIT_DIR" || name == "LANGUAGE"));
        assert_eq!(env.iter().filter(|(name, _)| name == "LC_ALL").count(), 1);
    }
}
