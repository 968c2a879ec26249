//! What of a half-made worktree is its creation's own: that goes when the creation is undone. What anybody else put there
//! stays.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use windlass_core::vcs_worktree::VcsWorktreeError;

use super::step;
use crate::group::Cancel;
use crate::vcs_worktree::marker::Intent;
use crate::vcs_worktree::tree::{self, Entry, Listing, Unread};
use crate::vcs_worktree::verify::{read_link, registrations};
use crate::vcs_worktree::{Inner, copy, failed, mismatch};

/// A longer file is no link to a private git directory.
const MAX_LINK_BYTES: u64 = 64 << 10;
/// The mode by which git names a link.
const LINK: &[u8] = b"120000";

impl Inner {
    /// Takes away what a creation made at `path`.
    ///
    /// Where the user's code had a part in it, and where a snapshot was being restored, that is all of it. Else it is what
    /// the commit has, as far as it was written, and what was copied in.
    pub(super) fn clear(
        &self,
        never: &Cancel,
        common: &Path,
        path: &Path,
        intent: &Intent,
    ) -> Result<(), VcsWorktreeError> {
        let at = |error| failed("undo", path, error);
        let link = path.join(".git");
        let half = || {
            let all = registrations(common)?;
            Ok::<_, VcsWorktreeError>(
                all.into_iter().find(|admin| self.is_half(admin, path, intent)),
            )
        };
        let admin = match Link::of(&link, path).map_err(at)? {
            Link::To(admin) if self.was_begun(common, path, &admin, intent) => Some(admin),
            // Somebody's own.
            Link::To(_) | Link::Other => return Ok(()),
            // Git writes it before any other file: what has none is empty, or nothing that we made.
            Link::Missing => {
                drop(fs::remove_dir(path));
                return Ok(());
            }
            // A power cut came before it was on the disk.
            Link::Blank => half()?,
        };
        if intent.from_snapshot || admin.as_deref().is_some_and(step::was_asked) {
            return tree::delete_all(path).map_err(at);
        }
        if let Some(admin) = &admin {
            copy::take_back(path, admin).map_err(at)?;
        }
        let Some(mut listing) = tree::list(path).map_err(at)? else { return Ok(()) };
        listing.entries.remove(OsStr::new(".git"));
        self.made(never, common, path, intent).keep(&mut listing, &mut PathBuf::new());
        let mut pace = || ControlFlow::Continue(());
        tree::delete(path, &listing, false, Unread::Stay, &mut pace).map_err(at)?;
        // The last, so that a crash before this is undone like this one.
        fs::remove_file(&link).map_err(at)?;
        drop(fs::remove_dir(path));
        Ok(())
    }

    /// Says whether the private git directory that a worktree names is, or was, the one that its creation made.
    fn was_begun(&self, common: &Path, path: &Path, admin: &Path, intent: &Intent) -> bool {
        admin.parent() == Some(&*common.join("worktrees"))
            && match admin.symlink_metadata() {
                Ok(_) => self.is_half(admin, path, intent),
                // Nobody else takes a name that begins with our unique one.
                Err(error) => error.kind() == io::ErrorKind::NotFound && is_named_for(admin, path),
            }
    }

    /// Looks up what the checkout of a commit writes.
    fn made<'a>(&self, never: &Cancel, common: &Path, path: &'a Path, intent: &Intent) -> Made<'a> {
        let listed = self.git.on_repository(common, "ls-tree").args(["-r", "-z", &intent.oid]);
        // Of what cannot be read nothing is known to be ours.
        let listed = listed.output(never).unwrap_or_default();
        let entries = listed.split(|byte| *byte == 0).filter_map(Committed::parse).collect();
        let config = self.config(never, common, common).ok();
        let objects = config.and_then(|config| self.open_repository(common, &config).ok());
        Made { path, entries, objects }
    }
}

/// What stands where a worktree has its link to its private git directory.
enum Link {
    To(PathBuf),
    /// A file without anything in it, or of zeros.
    Blank,
    Missing,
    /// A repository, or something that is no link.
    Other,
}

impl Link {
    fn of(link: &Path, path: &Path) -> io::Result<Self> {
        if fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_dir()) {
            return Ok(Self::Other);
        }
        let meta = match fs::symlink_metadata(link) {
            Ok(meta) => meta,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(Self::Missing);
            }
            Err(error) => return Err(error),
        };
        if !meta.is_file() || meta.len() > MAX_LINK_BYTES {
            return Ok(Self::Other);
        }
        if fs::read(link)?.iter().all(|byte| *byte == 0) {
            return Ok(Self::Blank);
        }
        Ok(read_link(link, "gitdir: ", path).ok().flatten().map_or(Self::Other, Self::To))
    }
}

/// A file or link of a commit.
struct Committed {
    is_link: bool,
    oid: String,
}

impl Committed {
    /// Reads a record of `git ls-tree -z`: mode, kind and name of an object, a tab, its path.
    fn parse(record: &[u8]) -> Option<(OsString, Self)> {
        let tab = record.iter().position(|byte| *byte == b'\t')?;
        let (object, path) = (record.get(..tab)?, record.get(tab + 1..)?);
        let mut words = object.split(|byte| *byte == b' ');
        let (mode, oid) = (words.next()?, words.nth(1)?);
        let oid = String::from_utf8(oid.to_vec()).ok()?;
        Some((OsStr::from_bytes(path).to_owned(), Self { is_link: mode == LINK, oid }))
    }
}

/// What a checkout writes into a worktree.
struct Made<'a> {
    path: &'a Path,
    entries: BTreeMap<OsString, Committed>,
    /// Without them a path of the commit is taken for what the commit has there.
    objects: Option<gix::Repository>,
}

impl Made<'_> {
    /// Takes out of a listing what the checkout did not write. `at` is where it is, relative to the worktree.
    fn keep(&self, listing: &mut Listing, at: &mut PathBuf) {
        listing.entries.retain(|name, entry| {
            at.push(name);
            let ours = match entry {
                Entry::File(_) => self.has(at),
                Entry::Dir(below) => {
                    self.keep(below, at);
                    true
                }
                Entry::Special(_) | Entry::Unreadable(_) | Entry::Mount => false,
            };
            at.pop();
            ours
        });
    }

    fn has(&self, at: &Path) -> bool {
        let Some(committed) = self.entries.get(at.as_os_str()) else { return false };
        let Some(objects) = &self.objects else { return true };
        let Ok(oid) = committed.oid.parse::<gix::ObjectId>() else { return false };
        let Ok(blob) = objects.find_blob(oid) else { return false };
        let path = self.path.join(at);
        if committed.is_link {
            fs::read_link(path).is_ok_and(|to| to.as_os_str().as_bytes() == blob.data)
        } else {
            File::open(path).is_ok_and(|file| is_of(file, &blob.data).unwrap_or(false))
        }
    }
}

/// Says whether a file is what a checkout has written of a blob by now, whichever ends of lines it writes, or what a power
/// cut left of that: zeros where something was not on the disk yet.
fn is_of(file: impl Read, blob: &[u8]) -> io::Result<bool> {
    // With each end of line two bytes it is twice as long at most; more is somebody else's.
    let most = u64::try_from(blob.len()).unwrap_or(u64::MAX).saturating_mul(2).saturating_add(1);
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    let lacks = |(byte, whole): (&u8, &u8)| byte == whole || *byte == 0;
    if bytes.len() <= blob.len() && bytes.iter().zip(blob).all(lacks) {
        return Ok(true);
    }
    let counts = |byte: &&u8| **byte != b'\r';
    let mut rest = blob.iter().filter(counts);
    Ok(bytes.iter().filter(counts).all(|byte| rest.next() == Some(byte)))
}

/// Says whether git named a private git directory after a worktree.
pub(super) fn is_named_for(admin: &Path, path: &Path) -> bool {
    match (admin.file_name(), path.file_name()) {
        (Some(admin), Some(path)) => admin.as_encoded_bytes().starts_with(path.as_encoded_bytes()),
        _ => false,
    }
}

/// Refuses a place where something is left that no creation made.
pub(super) fn refuse_leftover(path: &Path) -> Result<(), VcsWorktreeError> {
    let name = match fs::read_dir(path) {
        Ok(mut entries) => entries.next().and_then(Result::ok).map(|entry| entry.file_name()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed("create", path, error)),
    };
    match name {
        None => Ok(()),
        Some(name) => {
            let name = name.display();
            let detail =
                format!("{name} there was not made by Windlass: move it away, and try again");
            Err(mismatch(path, detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_checkout_writes_is_told_from_what_others_do() {
        let blob = b"one\ntwo\n";
        let cut: [&[u8]; 4] = [b"", b"\0\0\0", b"one\n\0\0\0", b"\0\0\0\0two\n"];
        for ours in [&b"o"[..], b"one\ntw", blob, b"one\r\ntwo\r\n", b"one\r"].iter().chain(&cut) {
            assert!(is_of(*ours, blob).unwrap(), "{ours:?}");
        }
        for other in [&b"x"[..], b"one\ntwo\nthree\n", b"one\n\n", b"one\ntwo\n\0"] {
            assert!(!is_of(other, blob).unwrap(), "{other:?}");
        }
    }
}
