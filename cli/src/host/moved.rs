//! Recognises a data directory that was copied, restored or moved: it is another directory than the one that was
//! recorded, or is elsewhere, where the paths in its records lead to nothing.
//!
//! Its processes and worktrees may be those of the original, so nothing is touched until somebody says that it is meant.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde::Deserialize;
use windlass::core::locator::Locator;
use windlass::relocation::Relocate;

use crate::config::{DataDir, replace, show};
use crate::error::{Class, CliError};

/// The file that says which directory it is.
const FILE: &str = "place.toml";

/// Which directory it is. A device's number holds for one boot, an inode's for ever.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Identity {
    inode: u64,
    device: u64,
    boot: String,
    /// Where it is; not known of one that an earlier version recorded, or whose path is no plain text.
    path: Option<String>,
    /// Where it was when its records were written, until they are changed.
    #[serde(default)]
    former: Vec<String>,
}

/// What is known of a data directory that may be used.
#[derive(Debug)]
pub(crate) struct Checked {
    /// It is another directory than the one that was recorded.
    pub(crate) is_other: bool,
    /// Where the paths in its records lead, if not to where it is.
    pub(crate) moves: Option<Moves>,
}

/// From where to where a data directory was moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Moves {
    from: Vec<String>,
    to: String,
}

impl Moves {
    /// Says where it was, for people.
    pub(crate) fn from(&self) -> String {
        self.from.join(", ")
    }
}

/// Returns what is left of a path below a directory, or of that itself.
fn below<'a>(directory: &str, path: &'a [u8]) -> Option<&'a [u8]> {
    let rest = path.strip_prefix(directory.as_bytes())?;
    (rest.is_empty() || rest.starts_with(b"/")).then_some(rest)
}

impl Relocate for Moves {
    fn relocate(&self, from: &Locator) -> Option<Locator> {
        let is_inside = |former: &String| below(former, self.to.as_bytes()).is_some();
        if self.from.iter().any(is_inside) && below(&self.to, from.as_bytes()).is_some() {
            // It was moved into a place below the one where it was, and this leads there already.
            return None;
        }
        let rest = self.from.iter().find_map(|former| below(former, from.as_bytes()))?;
        Some(Locator::new([self.to.as_bytes(), rest].concat()))
    }
}

impl Identity {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        // Without a boot id every boot is another one, and the inode alone counts.
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot = boot.trim().to_owned();
        let path = fs::canonicalize(path)?.into_os_string().into_string().ok();
        let path = path.filter(|path| !path.chars().any(char::is_control));
        let former = Vec::new();
        Ok(Self { inode: metadata.ino(), device: metadata.dev(), boot, path, former })
    }

    /// Returns where it was, if that is not where it is.
    fn moved_from<'a>(&self, recorded: &'a Self) -> Option<&'a str> {
        let here = self.path.as_deref()?;
        recorded.path.as_deref().filter(|there| *there != here)
    }

    /// Where it was when its records were written, if not here.
    fn with_former(mut self, recorded: &Self) -> Self {
        let all = recorded.former.iter().chain(&recorded.path);
        // Without knowing where it is nothing leads here.
        let here = self.path.as_ref();
        let former = all.filter(|former| here.is_some_and(|here| *former != here));
        self.former = former.cloned().collect();
        self
    }

    fn moves(&self) -> Option<Moves> {
        let to = self.path.clone().filter(|_| !self.former.is_empty())?;
        Some(Moves { from: self.former.clone(), to })
    }

    fn text(&self) -> String {
        let mut text = format!(
            "# Which directory this is; another one is a copy.\ninode = {}\ndevice = {}\nboot = \"{}\"\n",
            self.inode, self.device, self.boot
        );
        // Without control characters the quotes of JSON are those of TOML.
        let quoted = |path: &str| serde_json::Value::from(path).to_string();
        if let Some(path) = &self.path {
            text.push_str(&format!("path = {}\n", quoted(path)));
        }
        if !self.former.is_empty() {
            let former: Vec<_> = self.former.iter().map(|path| quoted(path)).collect();
            text.push_str(&format!("former = [{}]\n", former.join(", ")));
        }
        text
    }

    fn is_other_than(&self, recorded: &Self) -> bool {
        let same_boot = self.boot == recorded.boot && !self.boot.is_empty();
        self.inode != recorded.inode || same_boot && self.device != recorded.device
    }
}

/// Checks that the data directory is the recorded one, and records it if it is new or `moved` says that it is meant.
/// The caller holds the host's lock.
///
/// # Errors
///
/// It is another one, or the record cannot be read or written.
pub(crate) fn check(data: &DataDir, moved: bool) -> Result<Checked, CliError> {
    let file = data.path.join(FILE);
    let failed = |what: &str, error: &io::Error| {
        CliError::unusable(format!("{what} {}", show(&file)), error)
    };
    let here = Identity::of(&data.path).map_err(|error| failed("make", &error))?;
    let recorded = match fs::read_to_string(&file) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed("read", &error)),
    };
    // A record that cannot be read says nothing; to be asked once more is better than to touch another's work.
    let recorded = recorded.map(|text| toml::from_str::<Identity>(&text));
    let is_other = match &recorded {
        None => false,
        Some(Ok(recorded)) => here.is_other_than(recorded),
        Some(Err(_)) => true,
    };
    if is_other && !moved {
        return Err(CliError::new(
            Class::Refused,
            "copied",
            format!(
                "{} is a copy, or was moved to another file system or restored",
                show(&data.path)
            ),
            "if the original is not in use any more: windlass host run --moved; else use another --data-dir",
        ));
    }
    if let (false, false, Some(Ok(recorded))) = (is_other, moved, &recorded)
        && let Some(there) = here.moved_from(recorded)
    {
        return Err(CliError::new(
            Class::Refused,
            "moved",
            format!("{} was moved from {there}", show(&data.path)),
            format!(
                "move it back to {there}; or take it over where it is, with its worktrees: windlass host run --moved"
            ),
        ));
    }
    let here = match &recorded {
        Some(Ok(recorded)) => here.with_former(recorded),
        Some(Err(_)) | None => here,
    };
    if !matches!(&recorded, Some(Ok(recorded)) if *recorded == here) {
        replace(&data.path, FILE, &here.text()).map_err(|error| failed("write", &error))?;
    }
    Ok(Checked { is_other, moves: here.moves() })
}

/// Notes that all records name where the data directory is. The caller holds the host's lock.
///
/// # Errors
///
/// It cannot be written; then the records are looked through again by the next host.
pub(crate) fn taken_over(data: &DataDir) -> Result<(), CliError> {
    let noted = Identity::of(&data.path).and_then(|here| replace(&data.path, FILE, &here.text()));
    noted.map_err(|error| {
        CliError::unusable(format!("write {}", show(&data.path.join(FILE))), &error)
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn a_copy_is_refused_until_it_is_meant() {
        let root = tempfile::tempdir().unwrap();
        let global = Cli::try_parse_from(["windlass", "ps"]).unwrap().global;
        let original = DataDir::open_or_create(&root.path().join("one"), &global).unwrap();
        let is_other = |data: &DataDir, moved| check(data, moved).unwrap().is_other;
        assert!(!is_other(&original, false));
        assert!(!is_other(&original, false));

        let copy = root.path().join("two");
        fs::create_dir(&copy).unwrap();
        for name in ["config.toml", FILE] {
            fs::copy(original.path.join(name), copy.join(name)).unwrap();
        }
        let copy = DataDir::open(&copy, &global).unwrap().unwrap();
        assert_eq!(check(&copy, false).unwrap_err().view.kind, "copied");
        assert!(is_other(&copy, true));
        assert!(!is_other(&copy, false));

        let renamed = root.path().join("three");
        fs::rename(&original.path, &renamed).unwrap();
        let renamed = DataDir::open(&renamed, &global).unwrap().unwrap();
        let refused = check(&renamed, false).unwrap_err().view;
        assert_eq!(refused.kind, "moved");
        assert!(refused.message.contains(&show(&original.path)), "{}", refused.message);
        fs::rename(&renamed.path, &original.path).unwrap();
        assert!(!is_other(&original, false), "it was moved back");
        fs::rename(&original.path, &renamed.path).unwrap();
        check(&renamed, true).unwrap();
        assert!(!is_other(&renamed, false));
    }

    #[test]
    fn what_its_records_name_is_known_until_they_are_changed() {
        let root = tempfile::tempdir().unwrap();
        let global = Cli::try_parse_from(["windlass", "ps"]).unwrap().global;
        let original = DataDir::open_or_create(&root.path().join("one"), &global).unwrap();
        assert_eq!(check(&original, false).unwrap().moves, None);
        let at = |name: &str| fs::canonicalize(root.path()).unwrap().join(name);
        let moved = |from: &str, to: &str| {
            fs::rename(at(from), at(to)).unwrap();
            DataDir::open(&at(to), &global).unwrap().unwrap()
        };
        let leads = |moves: &Option<Moves>, from: &str| {
            let locator = Locator::new(at(from).as_os_str().as_encoded_bytes());
            moves.as_ref().and_then(|moves| moves.relocate(&locator)).map(|to| to.to_string())
        };
        let two = moved("one", "two");
        let moves = check(&two, true).unwrap().moves;
        assert_eq!(leads(&moves, "one/worktrees/a"), Some(show(&at("two/worktrees/a"))));
        assert_eq!(leads(&moves, "one-more/worktrees/a"), None);
        // Nobody came to change them before it was moved again.
        assert_eq!(check(&two, false).unwrap().moves, moves);
        let three = moved("two", "three");
        let moves = check(&three, true).unwrap().moves;
        for from in ["one", "two"] {
            assert_eq!(leads(&moves, from), Some(show(&at("three"))));
        }
        taken_over(&three).unwrap();
        assert_eq!(check(&three, false).unwrap().moves, None);
        let one = moved("three", "one");
        let moves = check(&one, true).unwrap().moves;
        assert_eq!(leads(&moves, "three/x"), Some(show(&at("one/x"))));
        assert_eq!(leads(&moves, "one/x"), None);
    }

    #[test]
    fn what_was_moved_below_or_above_where_it_was_is_led_there_once() {
        let leads = |from: &str, to: &str, path: &str| {
            let moves = Moves { from: vec![from.to_owned()], to: to.to_owned() };
            moves.relocate(&Locator::new(path)).map(|to| to.to_string())
        };
        assert_eq!(leads("/a", "/a/b", "/a/x").as_deref(), Some("/a/b/x"));
        assert_eq!(leads("/a", "/a/b", "/a/b/x"), None);
        assert_eq!(leads("/a", "/a/b", "/a").as_deref(), Some("/a/b"));
        assert_eq!(leads("/a/b", "/a", "/a/b/x").as_deref(), Some("/a/x"));
        assert_eq!(leads("/a/b", "/a", "/a/x"), None);
    }

    #[test]
    fn a_device_counts_within_one_boot() {
        let recorded =
            Identity { inode: 1, device: 2, boot: "b".to_owned(), path: None, former: Vec::new() };
        let other = |inode, device, boot: &str| {
            let (boot, former) = (boot.to_owned(), Vec::new());
            Identity { inode, device, boot, path: None, former }.is_other_than(&recorded)
        };
        assert!(!other(1, 2, "b"));
        assert!(other(1, 3, "b"));
        assert!(!other(1, 3, "c"));
        assert!(other(9, 2, "c"));
    }
}
