//! Reads a snapshot back and compares all of it with its listing and manifest.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use windlass_core::vcs_worktree::VcsWorktreeError;

use super::super::failed;
use super::archive::{self, CHUNK, Kind, Member, ReadError};
use super::listing::{self, Bytes, Item, What, hex, member};
use super::manifest::{self, Checksum, Manifest};
use super::{BUNDLE, DELETED, LISTING, OBJECTS};

/// A longer listing is not ours.
const LISTING_BYTES: u64 = 4 << 30;

/// A snapshot that is whole.
#[derive(Debug)]
pub(super) struct Examined {
    pub(super) manifest: Manifest,
    pub(super) items: Vec<Item>,
    /// Of the archive, in hexadecimal.
    pub(super) sha256: String,
    /// Of the archive.
    pub(super) bytes: u64,
}

/// Why a snapshot cannot be used.
#[derive(Debug)]
pub(super) enum Unusable {
    /// There is none.
    Missing,
    /// It is not what was written; why, for people.
    Damaged(String),
    /// Something else failed.
    Failed(VcsWorktreeError),
}

/// What a member was when it was read.
struct Seen {
    kind: Kind,
    sha256: [u8; 32],
    target: Vec<u8>,
    size: u64,
}

/// Reads a snapshot. Its bundle and its pack are put into `into`, if there is one, under their names.
pub(super) fn examine(path: &Path, into: Option<&Path>) -> Result<Examined, Unusable> {
    let mut seen: HashMap<Vec<u8>, Seen> = HashMap::new();
    let (mut texts, mut last) = (HashMap::new(), Vec::new());
    let read = archive::read(path, &mut |member, data| {
        let mut kept = match member.name.as_slice() {
            name if name == LISTING.as_bytes() || name == manifest::NAME.as_bytes() => {
                let limit =
                    if name == LISTING.as_bytes() { LISTING_BYTES } else { manifest::MAX_BYTES };
                if member.size > limit {
                    return Err(Unusable::Damaged(format!("{:?} is too long", shown(name))));
                }
                Keep::Text(Vec::new())
            }
            name if name == BUNDLE.as_bytes() || name == OBJECTS.as_bytes() => match into {
                None => Keep::Nothing,
                Some(into) => {
                    let path = into.join(Path::new(&*String::from_utf8_lossy(name)));
                    let file = File::create_new(&path);
                    Keep::File(
                        file.map_err(|error| Unusable::Failed(failed("restore", &path, error)))?,
                        path,
                    )
                }
            },
            _ => Keep::Nothing,
        };
        let sha256 = consume(data, &mut kept)?;
        if let Keep::Text(text) = kept {
            texts.insert(member.name.clone(), text);
        }
        last.clone_from(&member.name);
        let Member { kind, target, size, .. } = member;
        let one = Seen { kind: *kind, sha256, target: target.clone(), size: *size };
        match seen.insert(member.name.clone(), one) {
            None => Ok(()),
            Some(_) => Err(Unusable::Damaged(format!("it has {:?} twice", shown(&member.name)))),
        }
    });
    let (sha256, bytes) = read.map_err(|error| match error {
        ReadError::Missing => Unusable::Missing,
        ReadError::Damaged(why) => Unusable::Damaged(why),
        ReadError::Stopped(unusable) => unusable,
    })?;
    let damaged = |why: &str| Unusable::Damaged(why.to_owned());
    if last != manifest::NAME.as_bytes() {
        return Err(damaged("its manifest is missing at the end"));
    }
    let manifest = texts.remove(manifest::NAME.as_bytes()).unwrap_or_default();
    let manifest = Manifest::read(&manifest).map_err(Unusable::Damaged)?;
    let listing = texts.remove(LISTING.as_bytes()).ok_or_else(|| damaged("it has no listing"))?;
    let items = listing::read(&listing).ok_or_else(|| damaged("its listing is damaged"))?;
    seen.remove(manifest::NAME.as_bytes());
    others(&manifest, &mut seen).map_err(Unusable::Damaged)?;
    entries(&items, seen).map_err(Unusable::Damaged)?;
    Ok(Examined { manifest, items, sha256: hex(&sha256), bytes })
}

/// What is kept of a member.
enum Keep {
    Nothing,
    Text(Vec<u8>),
    File(File, PathBuf),
}

fn consume(data: &mut dyn Read, kept: &mut Keep) -> Result<[u8; 32], Unusable> {
    use std::io::Write as _;
    let mut sha256 = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = match data.read(&mut buffer) {
            Ok(0) => return Ok(sha256.finalize().into()),
            Ok(read) => &buffer[..read],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Unusable::Damaged(error.to_string())),
        };
        sha256.update(read);
        match kept {
            Keep::Nothing => {}
            Keep::Text(text) => text.extend_from_slice(read),
            Keep::File(file, path) => {
                let written = file.write_all(read);
                written.map_err(|error| Unusable::Failed(failed("restore", path, error)))?;
            }
        }
    }
}

/// Compares the members that stand for no entry with the manifest.
fn others(manifest: &Manifest, seen: &mut HashMap<Vec<u8>, Seen>) -> Result<(), String> {
    for (name, Checksum { bytes, sha256 }) in &manifest.members {
        if ![LISTING, DELETED, BUNDLE, OBJECTS].contains(&name.as_str()) {
            return Err(format!("its manifest names {name:?}"));
        }
        match seen.remove(name.as_bytes()) {
            None => return Err(format!("{name} is missing")),
            Some(one)
                if one.kind != Kind::File || one.size != *bytes || hex(&one.sha256) != *sha256 =>
            {
                return Err(format!("{name} is not what was written"));
            }
            Some(_) => {}
        }
    }
    if manifest.members.contains_key(LISTING) {
        Ok(())
    } else {
        Err("it has no listing".to_owned())
    }
}

/// Compares the other members with the listing.
fn entries(items: &[Item], mut seen: HashMap<Vec<u8>, Seen>) -> Result<(), String> {
    for item in items {
        let name = item.member();
        let found = seen.remove(&name);
        let fits = match (&item.what, &found) {
            (What::File(Bytes::Archive(sha256)), Some(one)) => {
                one.kind == Kind::File && one.sha256 == *sha256 && one.size == item.size
            }
            (What::Sparse(sha256), Some(one)) => one.kind == Kind::Sparse && one.sha256 == *sha256,
            (What::File(Bytes::Archive(_)) | What::Sparse(_), None) => false,
            (What::Dir, Some(one)) => one.kind == Kind::Dir,
            (What::Link { target, checkout: false }, Some(one)) => {
                one.kind == Kind::Link && one.target == *target
            }
            (What::Link { checkout: false, .. }, None) => false,
            (What::Hard(first), Some(one)) => {
                one.kind == Kind::Hard && one.target == member(item.side, first)
            }
            (What::Dir | What::Hard(_), None) => true,
            (What::File(Bytes::Checkout | Bytes::Copied(_)) | What::Link { .. }, found) => {
                found.is_none()
            }
        };
        if !fits {
            return Err(format!("{:?} is not what was written", shown(&name)));
        }
    }
    match seen.keys().min() {
        None => Ok(()),
        Some(name) => Err(format!("{:?} is not in its listing", shown(name))),
    }
}

/// A member's name, for people.
fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
