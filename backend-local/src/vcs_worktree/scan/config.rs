//! The configuration as git itself sees it: with every file, include and condition.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use windlass_core::vcs_worktree::VcsWorktreeError;

use crate::group::Cancel;
use crate::vcs_worktree::git::{Git, without_newline};
use crate::vcs_worktree::verify::Found;

/// The last value of each key; a key without a value is set.
#[derive(Debug, Default)]
pub(super) struct Config {
    values: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Config {
    /// Asks git for all of it.
    pub(super) fn ask(git: &Git, cancel: &Cancel, found: &Found) -> Result<Self, VcsWorktreeError> {
        let asked = git.on_worktree(&found.admin, &found.path, "config");
        let output = asked.args(["--list", "-z"]).output(cancel)?;
        Ok(Self::parse(&output))
    }

    fn parse(output: &[u8]) -> Self {
        let mut values = BTreeMap::new();
        for entry in output.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()) {
            match entry.iter().position(|byte| *byte == b'\n') {
                Some(at) => values.insert(entry[..at].to_vec(), Some(entry[at + 1..].to_vec())),
                None => values.insert(entry.to_vec(), None),
            };
        }
        Self { values }
    }

    /// A truth value as git reads one; what is none counts as `default`.
    pub(super) fn is(&self, key: &str, default: bool) -> bool {
        match self.values.get(key.as_bytes()) {
            None => default,
            Some(None) => true,
            Some(Some(value)) => truth(value).unwrap_or(default),
        }
    }

    /// Says whether a remote is said to have what the repository lacks.
    pub(super) fn is_partial(&self) -> bool {
        self.values.keys().any(|key| key.starts_with(b"remote.") && key.ends_with(b".promisor"))
    }

    pub(super) fn get(&self, key: &str) -> Option<&[u8]> {
        self.values.get(key.as_bytes())?.as_deref()
    }

    /// Says whether a filter of this name has a program that makes what is checked out.
    pub(super) fn smudges(&self, filter: &[u8]) -> bool {
        [&b"smudge"[..], b"process"].iter().any(|part| {
            let key = [b"filter.", filter, b".", part].concat();
            self.values.get(&key).is_some_and(|value| value.as_ref().is_some_and(|v| !v.is_empty()))
        })
    }

    /// A path as git reads one, from the top of the worktree; without one it is `file` in the user's folder for git.
    pub(super) fn path(
        &self,
        git: &Git,
        cancel: &Cancel,
        found: &Found,
        key: &str,
        file: &str,
    ) -> Result<Option<PathBuf>, VcsWorktreeError> {
        let path = |bytes: &[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
        match self.get(key) {
            Some([]) => Ok(None),
            Some(value) if value.starts_with(b"~") || value.starts_with(b"%") => {
                let asked = git.on_worktree(&found.admin, &found.path, "config");
                let answer = asked.args(["--type=path", "--get", key]).answer(cancel)?;
                Ok(answer.map(|answer| found.path.join(path(without_newline(&answer)))))
            }
            Some(value) => Ok(Some(found.path.join(path(value)))),
            None => {
                let folder = |name: &str| git.var(name).filter(|dir| !dir.is_empty());
                let folder = match folder("XDG_CONFIG_HOME") {
                    Some(dir) => Some(PathBuf::from(dir)),
                    None => folder("HOME").map(|home| PathBuf::from(home).join(".config")),
                };
                Ok(folder.map(|folder| folder.join("git").join(file)))
            }
        }
    }
}

/// What git takes for true or false.
fn truth(value: &[u8]) -> Option<bool> {
    match value.to_ascii_lowercase().as_slice() {
        b"true" | b"yes" | b"on" => Some(true),
        b"false" | b"no" | b"off" | b"" => Some(false),
        number => Some(std::str::from_utf8(number).ok()?.parse::<i64>().ok()? != 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_their_last_value_and_none_is_true() {
        let config =
            Config::parse(b"a.b\nno\0c.d\0a.b\n2\0e.f\nline\nline\0filter.x y.smudge\ncat\0");
        assert!(config.is("a.b", false) && config.is("c.d", false) && config.is("g.h", true));
        assert_eq!(config.get("e.f"), Some(&b"line\nline"[..]));
        assert!(config.smudges(b"x y") && !config.smudges(b"x"));
        assert_eq!(truth(b"maybe"), None);
    }
}
