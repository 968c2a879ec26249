//! Compares the bytes of a file or link with an object.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

use gix::ObjectId;
use gix::hash::Kind as HashKind;
use gix::objs::Kind;
use rustix::fs::{Mode, OFlags, fstat, openat, readlinkat};
use sha2::{Digest as _, Sha256};

use crate::vcs_worktree::tree::{Stamp, stamp};

const BUFFER: usize = 64 << 10;

/// The name that git would give the bytes of a file, without any conversion. `None` if they cannot be told: it is gone,
/// another one, cannot be read or changed meanwhile.
pub(super) fn file(
    dir: impl AsFd,
    name: &CStr,
    listed: &Stamp,
    hash: HashKind,
) -> Option<ObjectId> {
    let file = open(dir, name, listed)?;
    let named = blob(&mut (&file).take(listed.size), listed.size, hash).ok()?;
    // What was written to meanwhile is not what was listed.
    (stamp(&fstat(&file).ok()?) == *listed).then_some(named)
}

/// Opens a file that was listed, if it still is that one.
pub(super) fn open(dir: impl AsFd, name: &CStr, listed: &Stamp) -> Option<File> {
    // It may have become a pipe, which must not be waited for.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(dir, name, flags, Mode::empty()).ok()?;
    (stamp(&fstat(&file).ok()?) == *listed).then(|| File::from(file))
}

/// As [`file`], of where a link leads.
pub(super) fn link(dir: impl AsFd, name: &CStr, hash: HashKind) -> Option<ObjectId> {
    let target = readlinkat(dir, name, Vec::new()).ok()?;
    let target = target.to_bytes();
    blob(&mut &*target, target.len() as u64, hash).ok()
}

/// Says whether a file or link has these bytes, by their SHA-256.
pub(super) fn has_digest(dir: impl AsFd, name: &CStr, listed: &Stamp, sha256: &[u8; 32]) -> bool {
    let found = if super::walk::kind_of_mode(listed.mode) == super::walk::Kind::Link {
        match readlinkat(dir, name, Vec::new()) {
            Ok(target) => digest(&mut target.to_bytes()),
            Err(error) => Err(error.into()),
        }
    } else {
        let Some(mut file) = open(dir, name, listed) else { return false };
        digest(&mut file)
    };
    found.is_ok_and(|found| found == *sha256)
}

/// The SHA-256 of what a reader gives.
pub(super) fn digest(from: &mut dyn Read) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(hash.finalize().into()),
            Ok(read) => hash.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn blob(from: &mut impl Read, size: u64, hash: HashKind) -> io::Result<ObjectId> {
    let mut hasher = gix::hash::hasher(hash);
    hasher.update(&gix::objs::encode::loose_header(Kind::Blob, size));
    let mut buffer = vec![0; BUFFER];
    let mut left = size;
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(&buffer[..read]);
        left = left.saturating_sub(read as u64);
    }
    if left > 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    hasher.try_finalize().map_err(io::Error::other)
}
