//! The environment, and the data directory's own configuration.
//!
//! This is the only reader of the environment; everything else gets values.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy as _;
use serde::Deserialize;
use uuid::Uuid;
use windlass::api::lock::{LOCK_FILE, SOCKET_FILE};
use windlass::core::id::NodeId;

use crate::args::{Global, LogsKind, StoreKind};
use crate::error::{Class, CliError};

/// The format of data directories that this version makes and knows.
pub const FORMAT: u32 = 1;

/// What the environment says, read once.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// All variables.
    pub variables: Vec<(OsString, OsString)>,
}

impl Environment {
    /// Reads it.
    #[must_use]
    pub fn read() -> Self {
        Self { variables: std::env::vars_os().collect() }
    }

    /// Returns a variable's value; an empty one counts as none.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        let found = self.variables.iter().find(|(have, _)| have == name);
        found.map(|(_, value)| value.as_os_str()).filter(|value| !value.is_empty())
    }

    /// Returns the execution that this process belongs to, if its environment names one.
    #[must_use]
    pub fn execution(&self) -> Option<&OsStr> {
        self.get("WINDLASS_EXECUTION_ID")
    }

    /// Returns the owner to act for.
    ///
    /// # Errors
    ///
    /// It cannot be one.
    pub fn owner(&self, global: &Global) -> Result<Option<String>, CliError> {
        let owner = match (&global.owner, self.get("WINDLASS_OWNER")) {
            (Some(owner), _) => Some(owner.clone()),
            (None, Some(owner)) => Some(owner.to_string_lossy().into_owned()),
            (None, None) => None,
        };
        check_header("--owner", owner)
    }

    /// Returns the data directory to use, as an absolute path.
    ///
    /// # Errors
    ///
    /// No place is known for it.
    pub fn data_dir(&self, global: &Global) -> Result<PathBuf, CliError> {
        let named = global.data_dir.clone();
        let path = match named.or_else(|| self.get("WINDLASS_DATA_DIR").map(PathBuf::from)) {
            Some(path) => path,
            None => match etcetera::choose_base_strategy() {
                Ok(strategy) => strategy.data_dir().join("windlass"),
                Err(_) => {
                    return Err(CliError::usage(
                        "there is no home directory to keep data in",
                        "name a data directory with --data-dir or WINDLASS_DATA_DIR",
                    ));
                }
            },
        };
        std::path::absolute(&path).map_err(|error| CliError::io("find the data directory", &error))
    }
}

/// Checks a text that travels in a header.
///
/// # Errors
///
/// It is empty, too long or has control characters.
pub fn check_header(flag: &str, text: Option<String>) -> Result<Option<String>, CliError> {
    match text {
        Some(text) if text.is_empty() || text.len() > 256 || text.chars().any(char::is_control) => {
            Err(CliError::usage(
                format!("{flag} is not 1 to 256 bytes of printable text"),
                format!("leave {flag} out, or give it a short text without line breaks"),
            ))
        }
        text => Ok(text),
    }
}

/// What `config.toml` says. Written once, when the data directory is made.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Fixed {
    /// The format of the directory.
    pub format: u32,
    /// The store.
    pub store: StoreKind,
    /// The log store.
    pub logs: LogsKind,
    /// This machine's name in the records.
    pub node: Uuid,
}

/// A data directory.
#[derive(Clone, Debug)]
pub struct DataDir {
    /// Where it is; absolute.
    pub path: PathBuf,
    /// What was fixed when it was made; `None` if another program made it, whose host it is.
    pub fixed: Option<Fixed>,
}

/// The names that a data directory may hold before it has a `config.toml`: what an interrupted start left.
const OUR_NAMES: [&str; 4] = ["host.lock", "host.start", "host.log", "settings.toml"];

/// The names that a program which embeds the engine leaves in a data directory of its own.
const EMBEDDED_NAMES: [&str; 2] = ["node", "runs"];

impl DataDir {
    /// Opens a data directory, and makes it if it is not there.
    ///
    /// # Errors
    ///
    /// It is of a newer version, of another user, not a data directory, or of other kinds than `global` asks for.
    pub fn open_or_create(path: &Path, global: &Global) -> Result<Self, CliError> {
        if let Some(found) = Self::open(path, global)? {
            return found.ours();
        }
        create_directory(path)?;
        check_owner(path)?;
        check_empty(path)?;
        let store = global.store.unwrap_or(StoreKind::Sqlite);
        let fixed = Fixed {
            format: FORMAT,
            store,
            logs: global.logs.unwrap_or(LogsKind::Files).beside(store),
            node: crate::context::random_uuid()?,
        };
        let text = format!(
            "# Written once when this data directory was made. Settings are in settings.toml.\n\
             format = {}\nstore = \"{}\"\nlogs = \"{}\"\nnode = \"{}\"\n",
            fixed.format,
            fixed.store.as_str(),
            fixed.logs.as_str(),
            fixed.node
        );
        write_once(path, "config.toml", &text)
            .map_err(|error| CliError::unusable(format!("write {}", show(path)), &error))?;
        // Somebody else may have been first, with other kinds.
        let found = Self::open(path, global)?.ok_or_else(|| {
            CliError::new(
                Class::Refused,
                "data_directory",
                format!("{} was taken away while it was made", show(path)),
                "try again",
            )
        })?;
        found.ours()
    }

    /// Refuses a directory that another program made: it can be asked through its host, and only so.
    ///
    /// # Errors
    ///
    /// It belongs to another program.
    pub(crate) fn ours(self) -> Result<Self, CliError> {
        if self.fixed.is_some() {
            return Ok(self);
        }
        Err(CliError::new(
            Class::Refused,
            "not_a_data_directory",
            format!("{} belongs to another program, which drives it itself", show(&self.path)),
            "use that program, or name another directory with --data-dir",
        ))
    }

    /// Opens a data directory; `None` if there is none.
    ///
    /// # Errors
    ///
    /// As [`DataDir::open_or_create`].
    pub fn open(path: &Path, global: &Global) -> Result<Option<Self>, CliError> {
        let file = path.join("config.toml");
        match fs::metadata(path) {
            Ok(_) => check_owner(path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CliError::unusable(format!("open {}", show(path)), &error)),
        }
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A program that embeds the engine leaves its socket there and nothing else for us.
                let is_embedded = path.join(SOCKET_FILE).exists();
                return Ok(is_embedded.then(|| Self { path: path.to_owned(), fixed: None }));
            }
            Err(error) => return Err(CliError::unusable(format!("read {}", show(&file)), &error)),
        };
        let fixed = parse_fixed(&text, &file)?;
        let store = global.store.map(StoreKind::as_str);
        let logs = global.logs.map(|kind| kind.beside(fixed.store).as_str());
        check_kind("--store", store, fixed.store.as_str(), path)?;
        check_kind("--logs", logs, fixed.logs.as_str(), path)?;
        Ok(Some(Self { path: path.to_owned(), fixed: Some(fixed) }))
    }

    /// Returns the name of this machine in the records; nil in a directory of another program.
    #[must_use]
    pub fn node(&self) -> NodeId {
        NodeId(self.fixed.as_ref().map_or(Uuid::nil(), |fixed| fixed.node))
    }

    /// Returns the path of the lock that the host holds for its life.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.path.join(LOCK_FILE)
    }

    /// Returns the path of the lock that is held while a host starts.
    #[must_use]
    pub fn start_lock(&self) -> PathBuf {
        self.path.join("host.start")
    }

    /// Returns the path of the host's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path.join(SOCKET_FILE)
    }

    /// Returns the path of the host's log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.path.join("host.log")
    }

    /// Returns the kind of the store. Directories of other programs have the usual one.
    #[must_use]
    pub fn store_kind(&self) -> StoreKind {
        self.fixed.as_ref().map_or(StoreKind::Sqlite, |fixed| fixed.store)
    }

    /// Returns the kind of the log store.
    #[must_use]
    pub fn logs_kind(&self) -> LogsKind {
        self.fixed.as_ref().map_or(LogsKind::Files, |fixed| fixed.logs)
    }

    /// Returns the path of the database.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.path.join(match self.store_kind() {
            StoreKind::Sqlite => "windlass.db",
            StoreKind::Redb => "windlass.redb",
        })
    }

    /// Returns the path of the database that keeps the logs.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.path.join(match self.logs_kind().beside(self.store_kind()) {
            LogsKind::Files => "runs",
            LogsKind::Sqlite | LogsKind::Store => "logs.db",
            LogsKind::Redb => "logs.redb",
        })
    }

    /// Returns the path of the settings.
    #[must_use]
    pub fn settings(&self) -> PathBuf {
        self.path.join("settings.toml")
    }
}

/// Shows a path to people.
#[must_use]
pub fn show(path: &Path) -> String {
    path.display().to_string()
}

fn create_directory(path: &Path) -> Result<(), CliError> {
    let failed = |error| CliError::unusable(format!("make {}", show(path)), &error);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn check_owner(path: &Path) -> Result<(), CliError> {
    let metadata = fs::metadata(path)
        .map_err(|error| CliError::unusable(format!("open {}", show(path)), &error))?;
    if !metadata.is_dir() {
        return Err(CliError::new(
            Class::Refused,
            "not_a_data_directory",
            format!("{} is not a directory", show(path)),
            "name another one with --data-dir",
        ));
    }
    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != user {
        return Err(CliError::new(
            Class::Refused,
            "other_user",
            format!(
                "the data directory {} belongs to user {owner}, and this is user {user}",
                show(path)
            ),
            "use it as that user, or name another one with --data-dir",
        ));
    }
    Ok(())
}

/// Refuses to make a data directory of a directory that is in use for something else.
fn check_empty(path: &Path) -> Result<(), CliError> {
    let failed = |error| CliError::unusable(format!("read {}", show(path)), &error);
    for entry in fs::read_dir(path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let text = name.to_string_lossy();
        // Another process may be making the same directory right now.
        if !OUR_NAMES.contains(&text.as_ref()) && !text.starts_with("config.toml") {
            if EMBEDDED_NAMES.iter().all(|name| path.join(name).exists()) {
                return Err(CliError::new(
                    Class::Refused,
                    "not_a_data_directory",
                    format!(
                        "{} belongs to another program, which does not run or serves no API",
                        show(path)
                    ),
                    "start that program, or name another directory with --data-dir",
                ));
            }
            return Err(CliError::new(
                Class::Refused,
                "not_a_data_directory",
                format!("{} holds {text:?} and is no data directory", show(path)),
                "name a new or empty directory with --data-dir",
            ));
        }
    }
    Ok(())
}

fn parse_fixed(text: &str, file: &Path) -> Result<Fixed, CliError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let damaged = |error: &toml::de::Error| {
        CliError::new(
            Class::Refused,
            "damaged",
            format!("{} is damaged: {}", show(file), error.message()),
            "put back what was there: format, store, logs and node (docs/cli.md says how it looks)",
        )
    };
    // The format first: a newer one may have other fields.
    let Format { format } = toml::from_str(text).map_err(|error| damaged(&error))?;
    if format > FORMAT {
        return Err(CliError::new(
            Class::Refused,
            "newer_format",
            format!("{} has format {format}, this version knows up to {FORMAT}", show(file)),
            "use the newer windlass that made it, or another --data-dir",
        ));
    }
    let mut fixed: Fixed = toml::from_str(text).map_err(|error| damaged(&error))?;
    fixed.logs = fixed.logs.beside(fixed.store);
    Ok(fixed)
}

fn check_kind(flag: &str, asked: Option<&str>, have: &str, path: &Path) -> Result<(), CliError> {
    match asked {
        Some(asked) if asked != have => Err(CliError::new(
            Class::Refused,
            "other_kind",
            format!("{} was made with {flag} {have}, not {asked}", show(path)),
            format!("leave {flag} out, or make another data directory with --data-dir"),
        )),
        _ => Ok(()),
    }
}

/// Writes a file durably unless it is there already. Whoever is first wins.
fn write_once(directory: &Path, name: &str, text: &str) -> io::Result<()> {
    let fresh = directory.join(format!("{name}.{}", std::process::id()));
    write_synced(&fresh, text)?;
    let linked = fs::hard_link(&fresh, directory.join(name));
    fs::remove_file(&fresh)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => File::open(directory)?.sync_all(),
    }
}

/// Writes a file durably in place of the one that is there.
///
/// # Errors
///
/// The system's; the file that was there is then still there.
pub fn replace(directory: &Path, name: &str, text: &str) -> io::Result<()> {
    let fresh = directory.join(format!("{name}.{}", std::process::id()));
    write_synced(&fresh, text)?;
    fs::rename(&fresh, directory.join(name))?;
    File::open(directory)?.sync_all()
}

fn write_synced(path: &Path, text: &str) -> io::Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Cli;

    fn global(line: &str) -> Global {
        Cli::try_parse_from(line.split(' ')).unwrap().global
    }

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment { variables: pairs.iter().map(|(k, v)| (k.into(), v.into())).collect() }
    }

    #[test]
    fn flags_win_over_the_environment() {
        let environment = environment(&[("WINDLASS_DATA_DIR", "/env"), ("WINDLASS_OWNER", "her")]);
        let flags = global("windlass --data-dir /flag --owner me ps");
        assert_eq!(environment.data_dir(&flags).unwrap(), Path::new("/flag"));
        assert_eq!(environment.owner(&flags).unwrap().as_deref(), Some("me"));
        let none = global("windlass ps");
        assert_eq!(environment.data_dir(&none).unwrap(), Path::new("/env"));
        assert_eq!(environment.owner(&none).unwrap().as_deref(), Some("her"));
    }

    #[test]
    fn a_data_directory_is_made_once_and_keeps_its_node() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("ä b").join("data");
        let made = DataDir::open_or_create(&path, &global("windlass ps")).unwrap();
        let again = DataDir::open_or_create(&path, &global("windlass --store sqlite ps")).unwrap();
        assert_eq!(made.fixed, again.fixed);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
    }

    #[test]
    fn newer_other_and_foreign_directories_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let kind = |text: &str| {
            fs::write(root.path().join("config.toml"), text).unwrap();
            DataDir::open_or_create(root.path(), &global("windlass --store sqlite ps"))
                .unwrap_err()
                .view
                .kind
        };
        assert_eq!(kind("format = 2\nshape = \"new\"\n"), "newer_format");
        assert_eq!(kind("format = \"x\"\n"), "damaged");
        assert_eq!(kind("format = 1\n"), "damaged");
        let other = "format = 1\nstore = \"redb\"\nlogs = \"files\"\nnode = \"00000000-0000-0000-0000-000000000001\"\n";
        assert_eq!(kind(other), "other_kind");
        fs::remove_file(root.path().join("config.toml")).unwrap();
        fs::write(root.path().join("thesis.tex"), "").unwrap();
        let error = DataDir::open_or_create(root.path(), &global("windlass ps")).unwrap_err();
        assert_eq!(error.view.kind, "not_a_data_directory");
    }

    #[test]
    fn what_a_directory_keeps_its_records_and_logs_in_is_fixed_when_it_is_made() {
        let root = tempfile::tempdir().unwrap();
        for (number, (flags, store, logs)) in [
            ("", StoreKind::Sqlite, LogsKind::Files),
            ("--store sqlite --logs store ", StoreKind::Sqlite, LogsKind::Sqlite),
            ("--store redb ", StoreKind::Redb, LogsKind::Files),
            ("--store redb --logs store ", StoreKind::Redb, LogsKind::Redb),
            ("--store redb --logs sqlite ", StoreKind::Redb, LogsKind::Sqlite),
        ]
        .into_iter()
        .enumerate()
        {
            let path = root.path().join(number.to_string());
            let open = |line: &str| DataDir::open_or_create(&path, &global(line));
            let made = open(&format!("windlass {flags}ps")).unwrap();
            assert_eq!((made.store_kind(), made.logs_kind()), (store, logs));
            let again = open("windlass ps").unwrap();
            assert_eq!((again.store_kind(), again.logs_kind()), (store, logs), "{flags}");
            for (flag, word) in [
                ("--store", "sqlite"),
                ("--store", "redb"),
                ("--logs", "files"),
                ("--logs", "sqlite"),
                ("--logs", "redb"),
            ] {
                let have = if flag == "--store" { store.as_str() } else { logs.as_str() };
                let opened = open(&format!("windlass {flag} {word} ps"));
                assert_eq!(opened.is_ok(), word == have, "{flags}and then {flag} {word}");
                if let Err(error) = opened {
                    assert_eq!(error.view.kind, "other_kind");
                    assert!(error.view.message.contains(have), "{}", error.view.message);
                    assert!(error.view.hint.is_some_and(|hint| hint.contains(flag)));
                }
            }
        }
    }

    #[test]
    fn owners_are_printable() {
        let global = global("windlass ps");
        assert!(environment(&[("WINDLASS_OWNER", "a\nb")]).owner(&global).is_err());
        assert_eq!(environment(&[("WINDLASS_OWNER", "")]).owner(&global).unwrap(), None);
    }
}
