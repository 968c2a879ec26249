//! Turns the flags of `run` and `exec` into a launch request: the command and its environment.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use windlass::core::action::{ActionKind, Leftovers, OutputMode, SecretSource, Stdin};
use windlass::core::locator::{Locator, OsBytes};
use windlass::request::{AttachRequest, LaunchRequest, WhenFull};

use crate::args::LaunchArgs;
use crate::config::Environment;
use crate::duration::millis;
use crate::error::{Class, CliError};

/// The shell that texts are run with.
const SHELL: &str = "/bin/sh";

/// The variables that are taken from the caller without being asked for.
const TAKEN: [&str; 8] =
    ["PATH", "HOME", "USER", "SHELL", "LANG", "TERM", "TMPDIR", "SSH_AUTH_SOCK"];
const TAKEN_PREFIXES: [&str; 2] = ["LC_", "XDG_"];

/// The variables that the engine sets; those of the caller belong to another execution.
const MARKS: [&str; 5] = [
    "WINDLASS_EXECUTION_ID",
    "WINDLASS_ATTEMPT_ID",
    "WINDLASS_BRANCH",
    "WINDLASS_PORT_BASE",
    "WINDLASS_ATTACHMENTS",
];

fn bytes(text: &OsStr) -> OsBytes {
    OsBytes(text.as_bytes().to_vec())
}

/// Returns the locator of a path, which is made absolute.
///
/// # Errors
///
/// There is no current directory to start from.
pub fn locator(path: &Path) -> Result<Locator, CliError> {
    let path = std::path::absolute(path)
        .map_err(|error| CliError::io("find the current directory", &error))?;
    Ok(Locator::new(path.into_os_string().into_vec()))
}

/// Names a directory to run in, which must be there: a run that cannot start would only leave a record.
///
/// # Errors
///
/// It is no directory.
pub fn directory(path: &Path) -> Result<Locator, CliError> {
    if path.is_dir() {
        return locator(path);
    }
    Err(CliError::new(
        Class::Refused,
        "not_a_directory",
        format!("{} is not a directory that is there", path.display()),
        "make it first, or name another one with --dir",
    ))
}

/// Refuses a repository at a path where nothing is.
///
/// # Errors
///
/// There is nothing.
pub fn is_there(repo: &Path) -> Result<(), CliError> {
    match repo.try_exists() {
        Ok(false) => Err(CliError::new(
            Class::Refused,
            "not_a_repository",
            format!("there is no {}", repo.display()),
            "name a directory in a git repository with --repo, or stand in one",
        )),
        // What cannot be looked at is the host's to say.
        Ok(true) | Err(_) => Ok(()),
    }
}

/// Names the files that are handed over. A link stands for what it leads to.
///
/// # Errors
///
/// One of them is not there.
pub fn attached(files: &[PathBuf]) -> Result<Vec<AttachRequest>, CliError> {
    let one = |file: &PathBuf| {
        let found = std::fs::canonicalize(file).map_err(|error| {
            CliError::new(
                Class::Refused,
                "cannot_attach",
                format!("failed to find {}: {error}", file.display()),
                "name a file that is there",
            )
        })?;
        let called = file.to_string_lossy().into_owned();
        Ok(AttachRequest { file: locator(&found)?, called })
    };
    files.iter().map(one).collect()
}

/// Makes the launch request.
///
/// # Errors
///
/// A variable has no value here or an impossible name, or a secret has an unknown source.
pub fn request(args: &LaunchArgs, caller: &Environment) -> Result<LaunchRequest, CliError> {
    let action = match &args.shell {
        Some(script) => ActionKind::Script { shell: SHELL.to_owned(), script: script.clone() },
        None => ActionKind::Command { argv: args.command.iter().map(|word| bytes(word)).collect() },
    };
    let mut request = LaunchRequest::new(action);
    request.inherited_env = inherited(args, caller);
    request.env = named(args, caller)?;
    for text in &args.secret {
        let (name, source, value) = secret(text, caller)?;
        request.inherited_env.remove(&name);
        request.env.remove(&name);
        request.secrets.insert(name.clone(), source);
        match value {
            Some(value) => request.secret_values.insert(name, value),
            None => request.secret_values.remove(&name),
        };
    }
    if args.stdin {
        request.stdin = Stdin::Messages;
    }
    if args.merge_streams {
        request.output = OutputMode::Merged;
    }
    if args.leave_running {
        request.leftovers = Leftovers::Leave;
    }
    if args.no_queue {
        request.when_full = WhenFull::Refuse;
    }
    request.timeout_ms = args.timeout.map(millis);
    request.idle_timeout_ms = args.idle_timeout.map(millis);
    Ok(request)
}

/// Returns what of the caller's environment is taken without being named.
fn inherited(args: &LaunchArgs, caller: &Environment) -> BTreeMap<String, OsBytes> {
    let mut taken = BTreeMap::new();
    for (name, value) in &caller.variables {
        // Names that are not UTF-8 cannot be recorded; none of the list is one.
        let Some(name) = name.to_str() else { continue };
        let is_listed =
            TAKEN.contains(&name) || TAKEN_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        if (is_listed || args.env_all) && !MARKS.contains(&name) {
            taken.insert(name.to_owned(), bytes(value));
        }
    }
    taken
}

/// Returns what is set, or taken by name.
fn named(args: &LaunchArgs, caller: &Environment) -> Result<BTreeMap<String, OsBytes>, CliError> {
    let mut set = BTreeMap::new();
    for text in &args.env {
        let (name, value) = split("--env", text)?;
        let value = match value {
            Some(value) => OsBytes(value.into_vec()),
            None => value_here("--env", &name, caller)?,
        };
        set.insert(name, value);
    }
    Ok(set)
}

/// Splits `NAME=VALUE` or `NAME`.
fn split(flag: &str, text: &OsStr) -> Result<(String, Option<OsString>), CliError> {
    let raw = text.as_bytes();
    let end = raw.iter().position(|&byte| byte == b'=');
    let (name, value) = match end {
        Some(end) => (&raw[..end], Some(OsString::from_vec(raw[end + 1..].to_vec()))),
        None => (raw, None),
    };
    match std::str::from_utf8(name) {
        Ok(name) if MARKS.contains(&name) => Err(CliError::usage(
            format!("{flag} {name}: Windlass sets {name} itself, to what belongs to the execution"),
            "leave it out, or hand the value on under another name",
        )),
        Ok(name) if !name.is_empty() => Ok((name.to_owned(), value)),
        _ => Err(CliError::usage(
            format!("{flag} {} has no name that is UTF-8", text.display()),
            format!("write {flag} NAME=VALUE, or {flag} NAME to take it from here"),
        )),
    }
}

fn value_here(flag: &str, name: &str, caller: &Environment) -> Result<OsBytes, CliError> {
    let found = caller.variables.iter().find(|(have, _)| have == name);
    found.map(|(_, value)| bytes(value)).ok_or_else(|| {
        CliError::usage(
            format!("{flag} {name}: there is no variable {name} here"),
            format!("set it first, or write {flag} {name}=…"),
        )
    })
}

/// Reads `K`, `K=file:PATH`, `K=env:NAME` or `K=cmd:TEXT`: name, source and the bare value, if that is it.
fn secret(
    text: &OsStr,
    caller: &Environment,
) -> Result<(String, SecretSource, Option<OsBytes>), CliError> {
    let (name, source) = split("--secret", text)?;
    let Some(source) = source else {
        let value = value_here("--secret", &name, caller)?;
        return Ok((name, SecretSource::Memory, Some(value)));
    };
    // The text is not repeated in the message: it may be a value that was given by mistake.
    let unknown = || {
        CliError::usage(
            format!("--secret {name}=… does not say where the value comes from"),
            format!(
                "write {name}=file:PATH, {name}=env:NAME or {name}=cmd:TEXT, or set {name} here and write --secret {name}"
            ),
        )
    };
    let (kind, rest) =
        source.to_str().and_then(|source| source.split_once(':')).ok_or_else(unknown)?;
    let source = match kind {
        "file" => {
            let path = std::path::absolute(rest)
                .map_err(|error| CliError::io("find the current directory", &error))?;
            let path = path.into_os_string().into_string().map_err(|_| unknown())?;
            SecretSource::File { path }
        }
        "env" => SecretSource::HostEnv { name: rest.to_owned() },
        "cmd" => {
            SecretSource::Command { argv: vec![SHELL.to_owned(), "-c".to_owned(), rest.to_owned()] }
        }
        _ => return Err(unknown()),
    };
    Ok((name, source, None))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Verb};

    fn caller() -> Environment {
        let pairs = [
            ("PATH", "/bin"),
            ("LC_ALL", "C"),
            ("XDG_CACHE_HOME", "/c"),
            ("TOKEN", "t0p"),
            ("EDITOR", "vi"),
            ("WINDLASS_EXECUTION_ID", "x"),
        ];
        Environment { variables: pairs.iter().map(|(k, v)| (k.into(), v.into())).collect() }
    }

    fn made(line: &str) -> Result<LaunchRequest, CliError> {
        let words = format!("windlass run {line} -- true");
        let Verb::Run(run) = Cli::try_parse_from(words.split(' ')).unwrap().verb else {
            panic!("not run");
        };
        request(&run.launch, &caller())
    }

    fn names(request: &LaunchRequest) -> Vec<&str> {
        let both: BTreeSet<_> = request.inherited_env.keys().chain(request.env.keys()).collect();
        both.into_iter().map(String::as_str).collect()
    }

    #[test]
    fn only_the_list_is_taken_unless_asked() {
        assert_eq!(names(&made("-d").unwrap()), ["LC_ALL", "PATH", "XDG_CACHE_HOME"]);
        let all = made("--env-all").unwrap();
        assert_eq!(names(&all), ["EDITOR", "LC_ALL", "PATH", "TOKEN", "XDG_CACHE_HOME"]);
        let some = made("--env EDITOR --env PATH=/opt --env A=b=c --env E=").unwrap();
        assert_eq!(names(&some), ["A", "E", "EDITOR", "LC_ALL", "PATH", "XDG_CACHE_HOME"]);
        assert_eq!(some.env.keys().collect::<Vec<_>>(), ["A", "E", "EDITOR", "PATH"]);
        assert_eq!(some.env["PATH"], "/opt".into());
        assert_eq!(some.env["A"], "b=c".into());
        assert_eq!(some.env["E"], "".into());
        assert!(made("--env NOPE").is_err());
        assert!(made("--env =x").is_err());
    }

    #[test]
    fn what_windlass_sets_is_not_taken_from_people() {
        for mark in MARKS {
            for line in [
                format!("--env {mark}=x"),
                format!("--env {mark}"),
                format!("--secret {mark}"),
                format!("--secret {mark}=env:X"),
            ] {
                let error = made(&line).unwrap_err();
                assert_eq!(error.class, Class::Usage, "{line}");
                assert!(error.view.message.contains(mark), "{error}");
            }
        }
        assert!(made("--env WINDLASS_OWNER=me").is_ok());
    }

    #[test]
    fn secrets_are_references_and_leave_the_environment() {
        let all = made("--env-all --secret TOKEN --secret F=file:/k --secret E=env:X").unwrap();
        assert!(!all.env.contains_key("TOKEN") && !all.inherited_env.contains_key("TOKEN"));
        assert_eq!(all.secrets["TOKEN"], SecretSource::Memory);
        assert_eq!(all.secret_values["TOKEN"], "t0p".into());
        assert_eq!(all.secrets["F"], SecretSource::File { path: "/k".to_owned() });
        assert_eq!(all.secrets["E"], SecretSource::HostEnv { name: "X".to_owned() });
        assert_eq!(all.secret_values.len(), 1);
        let command = made("--secret C=cmd:pass").unwrap();
        let argv = ["/bin/sh", "-c", "pass"].map(str::to_owned).to_vec();
        assert_eq!(command.secrets["C"], SecretSource::Command { argv });
    }

    #[test]
    fn a_value_given_by_mistake_is_not_repeated() {
        let error = made("--secret TOKEN=hunter2").unwrap_err();
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }

    #[test]
    fn flags_become_options() {
        let request =
            made("-i --merge-streams --leave-running --no-queue --timeout 2m --idle-timeout 500ms");
        let request = request.unwrap();
        assert_eq!(request.stdin, Stdin::Messages);
        assert_eq!(request.output, OutputMode::Merged);
        assert_eq!(request.leftovers, Leftovers::Leave);
        assert_eq!(request.when_full, WhenFull::Refuse);
        assert_eq!((request.timeout_ms, request.idle_timeout_ms), (Some(120_000), Some(500)));
    }
}
