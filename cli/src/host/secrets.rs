//! Resolves secrets at launch: from the host's environment, a file, or a command. Values are neither kept nor printed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use windlass::core::action::SecretSource;
use windlass::core::id::ExecutionId;
use windlass::core::locator::OsBytes;
use windlass::core::secrets::{SecretGone, Secrets};

use crate::config::Environment;

/// How long a command may take to print a secret.
const DEADLINE: Duration = Duration::from_secs(60);

/// The longest secret.
const MAX_BYTES: u64 = 64 << 10;

/// The sources that a host knows.
pub(crate) struct HostSecrets {
    environment: Environment,
}

impl fmt::Debug for HostSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostSecrets")
    }
}

impl HostSecrets {
    /// Takes the host's environment.
    #[must_use]
    pub(crate) fn new(environment: Environment) -> Self {
        Self { environment }
    }

    /// Returns a value, or why there is none.
    async fn value(&self, source: &SecretSource) -> Result<Vec<u8>, String> {
        let value = match source {
            SecretSource::HostEnv { name } => {
                let found =
                    self.environment.variables.iter().find(|(have, _)| have == name.as_str());
                let value = found.map(|(_, value)| OsString::into_vec(value.clone()));
                return value.ok_or_else(|| format!("the host has no variable {name}"));
            }
            SecretSource::File { path } => {
                let path = path.clone();
                // A pipe or a file on a slow disk must not hold up the host.
                let read = tokio::task::spawn_blocking(move || read_file(&path)).await;
                read.map_err(|error| error.to_string())??
            }
            SecretSource::Command { argv } => output_of(argv).await?,
            SecretSource::Memory => return Err("it is in nobody's memory".to_owned()),
        };
        Ok(without_newline(value))
    }
}

#[async_trait]
impl Secrets for HostSecrets {
    async fn resolve(
        &self,
        _execution: ExecutionId,
        wanted: &BTreeMap<String, SecretSource>,
    ) -> Result<BTreeMap<String, OsBytes>, SecretGone> {
        let mut values = BTreeMap::new();
        for (name, source) in wanted {
            let value = self.value(source).await;
            let value = value.map_err(|why| SecretGone { name: name.clone(), why })?;
            values.insert(name.clone(), OsBytes(value));
        }
        Ok(values)
    }
}

fn read_file(path: &str) -> Result<Vec<u8>, String> {
    let mut value = Vec::new();
    let read =
        std::fs::File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut value));
    match read {
        Ok(_) => fits(value).ok_or_else(|| format!("{path} {TOO_LONG}")),
        Err(error) => Err(format!("{path} cannot be read: {error}")),
    }
}

/// Runs a command in a group of its own and returns what it prints, if it ends with 0 in time. What it was is not repeated
/// in a message: people write secrets into commands.
async fn output_of(argv: &[String]) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("its command cannot be run: {error}");
    let Some((program, arguments)) = argv.split_first() else {
        return Err("its command is empty".to_owned());
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let group = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let Some(pipe) = child.stdout.take() else {
        return Err("its command has no output".to_owned());
    };
    let read = async {
        let mut value = Vec::new();
        pipe.take(MAX_BYTES + 1).read_to_end(&mut value).await.map_err(failed)?;
        let status = child.wait().await.map_err(failed)?;
        // One that prints too much loses its listener, and ends badly for that.
        let is_long = u64::try_from(value.len()).is_ok_and(|len| len > MAX_BYTES);
        let ended_well = status.success() || is_long;
        if ended_well { Ok(value) } else { Err(format!("its command ended with {status}")) }
    };
    if let Ok(value) = tokio::time::timeout(DEADLINE, read).await {
        return fits(value?).ok_or_else(|| format!("what its command prints {TOO_LONG}"));
    }
    if let Some(group) = group {
        // It was not waited for, so the number is still its own.
        let _gone = kill_process_group(group, Signal::KILL);
    }
    let _status = child.wait().await;
    Err(format!("its command did not end within {} s", DEADLINE.as_secs()))
}

/// Why a value is not taken.
const TOO_LONG: &str = "is longer than 64 KiB";

fn fits(value: Vec<u8>) -> Option<Vec<u8>> {
    (u64::try_from(value.len()).unwrap_or(u64::MAX) <= MAX_BYTES).then_some(value)
}

fn without_newline(mut value: Vec<u8>) -> Vec<u8> {
    if value.last() == Some(&b'\n') {
        value.pop();
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn resolve(source: SecretSource) -> Option<String> {
        let variables = vec![("TOKEN".into(), "t\n".into())];
        let secrets = HostSecrets::new(Environment { variables });
        let wanted = BTreeMap::from([("S".to_owned(), source)]);
        let id = ExecutionId(uuid::Uuid::nil());
        let found = secrets.resolve(id, &wanted).await.ok()?;
        Some(String::from_utf8(found["S"].0.clone()).unwrap())
    }

    fn shell(text: &str) -> SecretSource {
        SecretSource::Command { argv: ["/bin/sh", "-c", text].map(str::to_owned).to_vec() }
    }

    #[tokio::test]
    async fn every_source_gives_its_value_and_one_newline_goes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "f\n\n").unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        assert_eq!(resolve(SecretSource::File { path }).await.as_deref(), Some("f\n"));
        assert_eq!(resolve(shell("echo c")).await.as_deref(), Some("c"));
        let env = SecretSource::HostEnv { name: "TOKEN".to_owned() };
        assert_eq!(resolve(env).await.as_deref(), Some("t\n"));
    }

    #[tokio::test]
    async fn what_fails_is_gone_and_says_why() {
        let file = SecretSource::File { path: "/nonexistent".to_owned() };
        for (source, why) in [
            (shell("echo c; exit 3"), "exit status: 3"),
            (shell("head -c 70000 /dev/zero"), "longer than"),
            (file, "/nonexistent cannot be read: No such file"),
            (SecretSource::HostEnv { name: "NOPE".to_owned() }, "no variable NOPE"),
        ] {
            let secrets = HostSecrets::new(Environment { variables: Vec::new() });
            let wanted = BTreeMap::from([("S".to_owned(), source)]);
            let gone = secrets.resolve(ExecutionId(uuid::Uuid::nil()), &wanted).await.unwrap_err();
            assert!(gone.name == "S" && gone.why.contains(why), "{gone}");
        }
    }
}
