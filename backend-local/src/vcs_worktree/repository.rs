//! Opens a worktree's repository in this process, with the configuration that git itself finds, and says where only git
//! can do what git does.
//!
//! Nothing is read from this process's environment: git, run in the environment that it was given, lists its
//! configuration, and what matters of it is handed on.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use gix::bstr::ByteSlice as _;
use gix::open::{Options, Permissions};
use gix::sec::Trust;
use windlass_core::vcs_worktree::VcsWorktreeError;

use super::Inner;
use super::git::Git;
use crate::group::Cancel;

/// Options of `core` that change which bytes, modes and index entries a checkout gives.
const HANDED_ON: [&str; 13] = [
    "core.autocrlf",
    "core.checkroundtripencoding",
    "core.checkstat",
    "core.deltabasecachelimit",
    "core.eol",
    "core.filemode",
    "core.ignorecase",
    "core.precomposeunicode",
    "core.protecthfs",
    "core.protectntfs",
    "core.safecrlf",
    "core.symlinks",
    "core.trustctime",
];
/// An object of more bytes is left to git, which writes it piece by piece.
const LARGEST_OBJECT: u64 = 256 << 20;
/// A longer attributes file, or a longer line of one, is read by git alone.
const ATTRIBUTES_MAX: usize = 1 << 20;
const ATTRIBUTE_LINE_MAX: usize = 2000;

/// The configuration of a repository as git lists it.
#[derive(Debug, Default)]
pub(super) struct Config {
    entries: Vec<(String, Option<Vec<u8>>)>,
}

impl Config {
    fn parse(listed: &[u8]) -> Self {
        let entries = listed.split(|byte| *byte == 0).filter(|entry| !entry.is_empty());
        let entries = entries.map(|entry| match entry.split_once_str("\n") {
            Some((key, value)) => {
                (String::from_utf8_lossy(key).into_owned(), Some(value.to_owned()))
            }
            None => (String::from_utf8_lossy(entry).into_owned(), None),
        });
        Self { entries: entries.collect() }
    }

    /// The last value of a key; one that stands without a value is `true`.
    pub(super) fn value(&self, key: &str) -> Option<&[u8]> {
        let found = self.entries.iter().rev().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_deref().unwrap_or(b"true"))
    }

    /// The last value of a key as a boolean; what is none counts as `true`.
    pub(super) fn truth(&self, key: &str) -> Option<bool> {
        self.value(key).map(is_true)
    }

    /// Says whether `wanted` is true of any key and value.
    pub(super) fn any(&self, wanted: impl Fn(&str, &[u8]) -> bool) -> bool {
        let value = |value: &Option<Vec<u8>>| value.clone().unwrap_or_else(|| b"true".to_vec());
        self.entries.iter().any(|(key, given)| wanted(key, &value(given)))
    }
}

impl Config {
    /// Names the filters that have something to run at a checkout.
    pub(super) fn drivers(&self) -> impl Iterator<Item = Vec<u8>> {
        let named = |key: &str| {
            let name = key.strip_prefix("filter.")?;
            let name = name.strip_suffix(".smudge").or_else(|| name.strip_suffix(".process"))?;
            // One that is set to nothing is none.
            let runs = self.value(key).is_some_and(|command| !command.is_empty());
            runs.then(|| name.as_bytes().to_vec())
        };
        self.entries.iter().filter_map(move |(key, _)| named(key))
    }

    /// What to set for a git that is to run no filter at all.
    pub(super) fn unfiltered(&self) -> Vec<String> {
        let filters = self.entries.iter().filter_map(|(key, _)| {
            let (name, _) = key.strip_prefix("filter.")?.rsplit_once('.')?;
            Some(name)
        });
        let filters: BTreeSet<&str> = filters.collect();
        let settings = ["clean=", "smudge=", "process=", "required=false"];
        let each = |name| settings.map(|setting| format!("filter.{name}.{setting}"));
        filters.into_iter().flat_map(each).collect()
    }
}

fn is_true(value: &[u8]) -> bool {
    let text = value.to_ascii_lowercase();
    !matches!(text.as_slice(), b"" | b"false" | b"no" | b"off" | b"0")
}

/// Why only git can do something, for people.
pub(super) type OnlyGit = String;

impl Inner {
    /// Lists the configuration that git finds in a worktree.
    pub(super) fn config(
        &self,
        cancel: &Cancel,
        admin: &Path,
        path: &Path,
    ) -> Result<Config, VcsWorktreeError> {
        let listed = self.git.on_worktree(admin, path, "config").args(["--list", "--null"]);
        Ok(Config::parse(&listed.output(cancel)?))
    }

    /// Opens the repository of a worktree by its private git directory, for reading.
    ///
    /// # Errors
    ///
    /// Says why only git can read it.
    pub(super) fn open_repository(
        &self,
        admin: &Path,
        config: &Config,
    ) -> Result<gix::Repository, OnlyGit> {
        if let Some(why) = odd_format(config) {
            return Err(why);
        }
        let mut overrides: Vec<Vec<u8>> = Vec::new();
        for key in HANDED_ON {
            if let Some(value) = config.value(key) {
                overrides.push([key.as_bytes(), b"=", value].concat());
            }
        }
        if let Some(file) = user_attributes(&self.git, config)? {
            overrides.push([b"core.attributesFile=", file.as_os_str().as_bytes()].concat());
        }
        overrides.push(format!("gitoxide.objects.allocLimit={LARGEST_OBJECT}").into_bytes());
        let mut permissions = Permissions::isolated();
        // The user's file is named above; nothing else is looked for.
        permissions.attributes.git = true;
        let options = Options::isolated()
            .permissions(permissions)
            .with(Trust::Full)
            .open_path_as_is(true)
            .strict_config(true)
            .config_overrides(overrides.into_iter().map(gix::bstr::BString::from));
        let opened = gix::open_opts(admin, options).map_err(|error| error.to_string())?;
        Ok(opened)
    }
}

/// Why a repository's format is for git alone.
fn odd_format(config: &Config) -> Option<OnlyGit> {
    let known = |key: &str, value: &[u8]| match key {
        "extensions.objectformat" => value.eq_ignore_ascii_case(b"sha1"),
        "extensions.refstorage" => value.eq_ignore_ascii_case(b"files"),
        "extensions.worktreeconfig" => !is_true(value),
        "extensions.noop" | "extensions.preciousobjects" | "extensions.relativeworktrees" => true,
        _ => false,
    };
    let odd = |key: &str, value: &[u8]| key.starts_with("extensions.") && !known(key, value);
    if config.any(odd) {
        return Some("the repository uses an extension of git's format".to_owned());
    }
    let promised = |key: &str, value: &[u8]| {
        key.starts_with("remote.")
            && ((key.ends_with(".promisor") && is_true(value))
                || key.ends_with(".partialclonefilter"))
    };
    if config.any(promised) {
        return Some("objects may be missing: it is a partial clone".to_owned());
    }
    let unlike = [
        ("core.filemode", true),
        ("core.symlinks", true),
        ("core.ignorecase", false),
        ("core.precomposeunicode", false),
        ("core.sparsecheckout", false),
    ];
    for (key, usual) in unlike {
        if config.truth(key).is_some_and(|set| set != usual) {
            return Some(format!("{key} is {}", !usual));
        }
    }
    if config.value("core.worktree").is_some() {
        return Some("core.worktree is set".to_owned());
    }
    None
}

/// Why the attributes that hold in a checkout need git itself, if they do: they name filters, encodings or identities.
pub(super) fn odd_attributes(
    git: &Git,
    config: &Config,
    common: &Path,
    in_tree: &[Vec<u8>],
) -> Option<OnlyGit> {
    if git.system_attributes().is_none_or(|file| file.symlink_metadata().is_ok()) {
        return Some("there are attributes for the whole system".to_owned());
    }
    let user = match user_attributes(git, config) {
        Ok(user) => user,
        Err(why) => return Some(why),
    };
    let outside = [user, Some(common.join("info/attributes"))].into_iter().flatten();
    let mut texts = Vec::new();
    for file in outside {
        match fs::read(&file) {
            Ok(text) => texts.push(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => return Some(format!("{} cannot be read", file.display())),
        }
    }
    let filters = config.drivers().next().is_some();
    texts.iter().chain(in_tree).find_map(|text| odd_text(text, filters))
}

fn odd_text(text: &[u8], filters: bool) -> Option<OnlyGit> {
    if text.len() > ATTRIBUTES_MAX {
        return Some("an attributes file is very long".to_owned());
    }
    for line in text.split(|byte| *byte == b'\n') {
        if line.len() > ATTRIBUTE_LINE_MAX {
            return Some("a line of attributes is very long".to_owned());
        }
        for word in line.split(u8::is_ascii_whitespace) {
            let word = word.strip_prefix(b"-").or(word.strip_prefix(b"!")).unwrap_or(word);
            let name = word.split(|byte| *byte == b'=').next().unwrap_or_default();
            match name {
                b"filter" if filters => return Some("a filter is configured".to_owned()),
                b"ident" | b"working-tree-encoding" => {
                    return Some("attributes change the content of files".to_owned());
                }
                _ => {}
            }
        }
    }
    None
}

/// The user's attributes file, as git would find it; it need not exist.
fn user_attributes(git: &Git, config: &Config) -> Result<Option<PathBuf>, OnlyGit> {
    let home = || git.variable("HOME").filter(|home| !home.is_empty()).map(Path::new);
    match config.value("core.attributesfile") {
        Some(named) => {
            let named_by_git = || "core.attributesFile is named in git's own way".to_owned();
            match (named.strip_prefix(b"~/"), named.first()) {
                (Some(below), _) => {
                    let home = home().ok_or_else(named_by_git)?;
                    Ok(Some(home.join(OsString::from_vec(below.to_vec()))))
                }
                (None, Some(b'/')) => Ok(Some(PathBuf::from(OsString::from_vec(named.to_vec())))),
                (None, None) => Ok(None),
                (None, Some(_)) => Err(named_by_git()),
            }
        }
        None => {
            let config = git.variable("XDG_CONFIG_HOME").filter(|home| !home.is_empty());
            let folder =
                config.map(PathBuf::from).or_else(|| home().map(|home| home.join(".config")));
            Ok(folder.map(|folder| folder.join("git/attributes")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text.replace(' ', "\n").replace(';', "\0").as_bytes())
    }

    #[test]
    fn the_last_value_counts_and_no_value_is_true() {
        let config = config("a.b 1;a.b no;a.c;");
        assert_eq!(config.value("a.b"), Some(&b"no"[..]));
        assert_eq!(config.truth("a.b"), Some(false));
        assert_eq!(config.truth("a.c"), Some(true));
        assert_eq!(config.truth("a.d"), None);
    }

    #[test]
    fn formats_that_only_git_knows_are_left_to_it() {
        for (text, odd) in [
            ("core.filemode true;core.bare false", false),
            ("extensions.objectformat sha1", false),
            ("extensions.objectformat sha256", true),
            ("extensions.worktreeconfig true", true),
            ("extensions.worktreeconfig false", false),
            ("extensions.somethingnew 1", true),
            ("remote.origin.promisor true", true),
            ("remote.promisor.url x", false),
            ("core.sparsecheckout", true),
            ("core.filemode false", true),
            ("core.worktree /x", true),
        ] {
            assert_eq!(odd_format(&config(text)).is_some(), odd, "{text}");
        }
    }

    #[test]
    fn attributes_that_change_content_are_left_to_git() {
        for (text, filters, odd) in [
            ("*.txt text=auto eol=crlf\n*.bin binary\n", true, false),
            ("*.psd filter=lfs diff=lfs merge=lfs -text\n", false, false),
            ("*.psd filter=lfs diff=lfs merge=lfs -text\n", true, true),
            ("[attr]large filter=lfs\n", true, true),
            ("* ident\n", false, true),
            ("*.ps1 text working-tree-encoding=UTF-16", false, true),
            ("identity text\n", true, false),
        ] {
            assert_eq!(odd_text(text.as_bytes(), filters).is_some(), odd, "{text}");
        }
    }
}
