//! The member `manifest.json`: what a snapshot is of, and the checksums of its other members.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use windlass_core::id::AttemptId;
use windlass_core::locator::Locator;
use windlass_core::snapshot::{LeftOut, SnapshotNumber};
use windlass_core::workspace::{Oid, Worktree};

/// The name of the member; it is the last one.
pub(super) const NAME: &str = "manifest.json";
/// Says what the archive is.
const FORMAT: &str = "windlass-snapshot";
/// The version that is written and read.
const VERSION: u32 = 1;
/// A longer one is not ours.
pub(super) const MAX_BYTES: u64 = 256 << 20;

/// The manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) format: String,
    pub(super) version: u32,
    pub(super) attempt: AttemptId,
    pub(super) number: SnapshotNumber,
    pub(super) worktree: Worktree,
    /// The name of its private git directory.
    pub(super) registration: Locator,
    pub(super) head: Oid,
    /// Without `refs/heads/`; `None` if HEAD was detached.
    pub(super) branch: Option<String>,
    /// There was a directory; if not, only what the private git directory held is here.
    pub(super) directory: bool,
    pub(super) entries: u64,
    pub(super) bytes: u64,
    pub(super) deleted: u64,
    pub(super) commits: u64,
    pub(super) left_out: Vec<LeftOut>,
    /// Of the members that no line of the listing describes.
    pub(super) members: BTreeMap<String, Checksum>,
}

/// What a member must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checksum {
    pub(super) bytes: u64,
    /// In hexadecimal.
    pub(super) sha256: String,
}

/// The two fields that stay in every version.
#[derive(Deserialize)]
struct Header {
    format: String,
    version: u32,
}

impl Manifest {
    /// The format and version of what is written.
    pub(super) fn header() -> (String, u32) {
        (FORMAT.to_owned(), VERSION)
    }

    /// Reads one; the error is for people.
    pub(super) fn read(text: &[u8]) -> Result<Self, String> {
        let header: Header =
            serde_json::from_slice(text).map_err(|error| format!("its manifest: {error}"))?;
        match header {
            Header { format, .. } if format != FORMAT => Err("it is no snapshot".to_owned()),
            Header { version, .. } if version > VERSION => {
                Err(format!("it has version {version}, this program knows {VERSION}"))
            }
            Header { .. } => {
                serde_json::from_slice(text).map_err(|error| format!("its manifest: {error}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_format_a_newer_version_and_damage_are_told_apart() {
        for (text, said) in [
            (r#"{"format":"x","version":1}"#, "no snapshot"),
            (r#"{"format":"windlass-snapshot","version":2,"new":1}"#, "version 2"),
            (r#"{"format":"windlass-snapshot","version":1}"#, "missing field"),
            ("{", "manifest"),
        ] {
            let error = Manifest::read(text.as_bytes()).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
