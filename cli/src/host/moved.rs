//! Recognises a data directory that was copied, restored or moved: it is another directory than the one that was
//! recorded, or is elsewhere, where the paths in its records lead to nothing.
//!
//! Its processes and worktrees may be those of the original, so nothing is touched until somebody says that it is meant.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde::Deserialize;

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
}

impl Identity {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        // Without a boot id every boot is another one, and the inode alone counts.
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let boot = boot.trim().to_owned();
        let path = fs::canonicalize(path)?.into_os_string().into_string().ok();
        let path = path.filter(|path| !path.chars().any(char::is_control));
        Ok(Self { inode: metadata.ino(), device: metadata.dev(), boot, path })
    }

    /// Returns where it was, if that is not where it is.
    fn moved_from<'a>(&self, recorded: &'a Self) -> Option<&'a str> {
        let here = self.path.as_deref()?;
        recorded.path.as_deref().filter(|there| *there != here)
    }

    fn is_other_than(&self, recorded: &Self) -> bool {
        let same_boot = self.boot == recorded.boot && !self.boot.is_empty();
        self.inode != recorded.inode || same_boot && self.device != recorded.device
    }
}

/// Checks that the data directory is the recorded one, and records it if it is new or `moved` says that it is meant.
/// The caller holds the host's lock. Returns whether it was moved.
///
/// # Errors
///
/// It is another one, or the record cannot be read or written.
pub(crate) fn check(data: &DataDir, moved: bool) -> Result<bool, CliError> {
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
                "move it back to {there}; or take it over where it is, with its records, logs and snapshots but without the worktrees, whose paths are recorded: windlass host run --moved"
            ),
        ));
    }
    if !matches!(&recorded, Some(Ok(recorded)) if *recorded == here) {
        let mut text = format!(
            "# Which directory this is; another one is a copy.\ninode = {}\ndevice = {}\nboot = \"{}\"\n",
            here.inode, here.device, here.boot
        );
        if let Some(path) = &here.path {
            // Without control characters the quotes of JSON are those of TOML.
            text.push_str(&format!("path = {}\n", serde_json::Value::from(path.as_str())));
        }
        replace(&data.path, FILE, &text).map_err(|error| failed("write", &error))?;
    }
    Ok(is_other)
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
        assert!(!check(&original, false).unwrap());
        assert!(!check(&original, false).unwrap());

        let copy = root.path().join("two");
        fs::create_dir(&copy).unwrap();
        for name in ["config.toml", FILE] {
            fs::copy(original.path.join(name), copy.join(name)).unwrap();
        }
        let copy = DataDir::open(&copy, &global).unwrap().unwrap();
        assert_eq!(check(&copy, false).unwrap_err().view.kind, "copied");
        assert!(check(&copy, true).unwrap());
        assert!(!check(&copy, false).unwrap());

        let renamed = root.path().join("three");
        fs::rename(&original.path, &renamed).unwrap();
        let renamed = DataDir::open(&renamed, &global).unwrap().unwrap();
        let refused = check(&renamed, false).unwrap_err().view;
        assert_eq!(refused.kind, "moved");
        assert!(refused.message.contains(&show(&original.path)), "{}", refused.message);
        fs::rename(&renamed.path, &original.path).unwrap();
        assert!(!check(&original, false).unwrap(), "it was moved back");
        fs::rename(&original.path, &renamed.path).unwrap();
        check(&renamed, true).unwrap();
        assert!(!check(&renamed, false).unwrap());
    }

    #[test]
    fn a_device_counts_within_one_boot() {
        let recorded = Identity { inode: 1, device: 2, boot: "b".to_owned(), path: None };
        let other = |inode, device, boot: &str| {
            Identity { inode, device, boot: boot.to_owned(), path: None }.is_other_than(&recorded)
        };
        assert!(!other(1, 2, "b"));
        assert!(other(1, 3, "b"));
        assert!(!other(1, 3, "c"));
        assert!(other(9, 2, "c"));
    }
}
