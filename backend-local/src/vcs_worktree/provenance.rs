//! Recognises a worktrees root that was copied or restored: it is another directory than the one that was recorded in it.
//!
//! Its worktrees may be those of the original, and its records name them, so nothing is touched until somebody says that
//! it is meant.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::marker::write_durably;
use super::record::boot;
use crate::node::Provenance;

/// The file in the root that says which directory it is.
pub(super) const FILE: &str = ".place";
const FIRST_LINE: &str = "windlass-root 1";

/// Which directory it is. A device's number holds for one boot, an inode's for ever.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    inode: u64,
    device: u64,
    boot: Option<String>,
    /// Whose root it is; not known of one that an earlier version recorded.
    data_directory: Option<String>,
}

impl Identity {
    fn of(root: &Path, data_directory: &str) -> io::Result<Self> {
        let meta = fs::metadata(root)?;
        let data_directory = Some(data_directory.to_owned());
        Ok(Self { inode: meta.ino(), device: meta.dev(), boot: boot(), data_directory })
    }

    fn is_other_than(&self, recorded: &Self) -> bool {
        let same_boot = self.boot.is_some() && self.boot == recorded.boot;
        self.inode != recorded.inode || same_boot && self.device != recorded.device
    }

    fn lines(&self) -> String {
        let boot = self.boot.as_deref().unwrap_or_default();
        let (inode, device) = (self.inode, self.device);
        let whose = self.data_directory.as_ref();
        let whose = whose.map_or_else(String::new, |whose| format!("data_directory={whose}\n"));
        format!("{FIRST_LINE}\ninode={inode}\ndevice={device}\nboot={boot}\n{whose}")
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next() != Some(FIRST_LINE) {
            return None;
        }
        let mut value = |key: &str| lines.next()?.strip_prefix(key)?.strip_prefix('=');
        let (inode, device) = (value("inode")?.parse().ok()?, value("device")?.parse().ok()?);
        let boot = value("boot").filter(|boot| !boot.is_empty()).map(str::to_owned);
        let data_directory = value("data_directory").map(str::to_owned);
        Some(Self { inode, device, boot, data_directory })
    }
}

/// Says whether a directory is the worktrees root of a data directory, the original or a copy. One that does not say whose
/// it is counts as such.
pub(super) fn is_root_of(root: &Path, data_directory: &str) -> bool {
    let Ok(text) = fs::read_to_string(root.join(FILE)) else { return false };
    let whose = Identity::parse(&text).and_then(|recorded| recorded.data_directory);
    whose.is_none_or(|whose| whose == data_directory)
}

/// Checks that the root is the recorded one, and records it if it is new or was moved on purpose. Says why nothing in it
/// may be touched, if so.
pub(super) fn check(
    root: &Path,
    data_directory: &str,
    provenance: Provenance,
) -> io::Result<Option<String>> {
    let file = root.join(FILE);
    let here = Identity::of(root, data_directory)?;
    let recorded = match fs::read_to_string(&file) {
        Ok(text) => Some(Identity::parse(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Some(None),
        Err(error) => return Err(error),
    };
    // A record that cannot be read says nothing; to be asked once more is better than to touch another's work.
    let is_other = match &recorded {
        None => false,
        Some(Some(recorded)) => here.is_other_than(recorded),
        Some(None) => true,
    };
    if is_other && provenance == Provenance::InPlace {
        return Ok(Some(format!(
            "{} is a copy, or was moved to another file system or restored, and nobody said that this was meant",
            root.display()
        )));
    }
    if recorded.flatten().is_none_or(|recorded| recorded != here) {
        write_durably(&file, here.lines().as_bytes())?;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_refused_until_it_is_meant() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two, three] = ["one", "two", "three"].map(|name| dir.path().join(name));
        fs::create_dir(&one).unwrap();
        assert!(check(&one, "d", Provenance::InPlace).unwrap().is_none());
        assert!(check(&one, "d", Provenance::InPlace).unwrap().is_none());
        fs::create_dir(&two).unwrap();
        fs::copy(one.join(FILE), two.join(FILE)).unwrap();
        assert!(check(&two, "d", Provenance::InPlace).unwrap().unwrap().contains("copy"));
        assert!(check(&two, "d", Provenance::Moved).unwrap().is_none());
        assert!(check(&two, "d", Provenance::InPlace).unwrap().is_none());
        fs::rename(&one, &three).unwrap();
        assert!(check(&three, "d", Provenance::InPlace).unwrap().is_none());
        fs::write(three.join(FILE), "?").unwrap();
        assert!(check(&three, "d", Provenance::InPlace).unwrap().is_some());
    }

    #[test]
    fn a_device_counts_within_one_boot() {
        let data_directory = Some("d".to_owned());
        let boot = Some("b".to_owned());
        let recorded = Identity { inode: 1, device: 2, boot, data_directory };
        let other = |inode, device, boot: Option<&str>| {
            let boot = boot.map(str::to_owned);
            Identity { inode, device, boot, data_directory: None }.is_other_than(&recorded)
        };
        assert!(!other(1, 2, Some("b")));
        assert!(other(1, 3, Some("b")));
        assert!(!other(1, 3, Some("c")));
        assert!(!other(1, 3, None));
        assert!(other(9, 2, Some("c")));
        assert_eq!(Identity::parse(&recorded.lines()), Some(recorded));
    }

    #[test]
    fn a_root_says_whose_it_is_and_an_old_one_may_be_anybodys() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_root_of(dir.path(), "d"));
        check(dir.path(), "d", Provenance::InPlace).unwrap();
        assert!(is_root_of(dir.path(), "d") && !is_root_of(dir.path(), "e"));
        let old = format!("{FIRST_LINE}\ninode=1\ndevice=2\nboot=\n");
        assert_eq!(Identity::parse(&old).unwrap().boot, None);
        fs::write(dir.path().join(FILE), old).unwrap();
        assert!(is_root_of(dir.path(), "e"));
    }
}
