//! Tells whether a directory is a repository of its own, as git does when it looks for one.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fstat, openat, readlinkat, statat};

/// Longer files are none of git's.
const MAX_BYTES: u64 = 8192;

/// Says whether the entry `.git` of a directory makes it a repository.
pub(super) fn is_repository(dir: impl AsFd) -> bool {
    let Ok(stat) = statat(&dir, c".git", AtFlags::empty()) else { return false };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => directory(&dir, b".git").is_some_and(|git| is_git_dir(&git)),
        FileType::RegularFile => match file(&dir, b".git") {
            Some(content) => target(&content)
                .and_then(|target| directory(&dir, target))
                .is_some_and(|git| is_git_dir(&git)),
            // Git, too, takes one that it cannot read for a repository.
            None => true,
        },
        _ => false,
    }
}

fn target(content: &[u8]) -> Option<&[u8]> {
    let path = content.strip_prefix(b"gitdir: ")?;
    let end = path.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |at| at + 1);
    (end > 0).then(|| &path[..end])
}

fn is_git_dir(git: &OwnedFd) -> bool {
    let shared = match file(git, b"commondir") {
        Some(content) => {
            let path = content.trim_ascii_end();
            directory(git, path)
        }
        None => git.try_clone().ok(),
    };
    let Some(shared) = shared else { return false };
    names_a_ref(git)
        && ["objects", "refs"].iter().all(|name| directory(&shared, name.as_bytes()).is_some())
}

/// A valid HEAD: a link to a ref, the name of a ref, or an object's name.
fn names_a_ref(git: &OwnedFd) -> bool {
    if let Ok(link) = readlinkat(git, c"HEAD", Vec::new()) {
        return link.to_bytes().starts_with(b"refs/");
    }
    let Some(content) = file(git, b"HEAD") else { return false };
    match content.strip_prefix(b"ref:") {
        Some(name) => name.trim_ascii_start().starts_with(b"refs/"),
        None => content.len() >= 40 && content[..40].iter().all(u8::is_ascii_hexdigit),
    }
}

fn directory(at: impl AsFd, path: &[u8]) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(at, OsStr::from_bytes(path), flags, Mode::empty()).ok()
}

fn file(at: impl AsFd, path: &[u8]) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(at, OsStr::from_bytes(path), flags, Mode::empty()).ok()?;
    if FileType::from_raw_mode(fstat(&file).ok()?.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut content = Vec::new();
    File::from(file).take(MAX_BYTES).read_to_end(&mut content).ok()?;
    Some(content)
}
