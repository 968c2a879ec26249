//! Which paths are ignored, by git's rules: the patterns of each directory on the way, then `info/exclude`, then the
//! user's own.

use std::io::{self, Read as _};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use gix::glob::pattern::Case;
use gix::glob::search::pattern::List;
use gix::ignore::search::{Ignore, pattern_matching_relative_path};
use rustix::fs::{CWD, Mode, OFlags, openat};

/// As git: larger files of patterns are not read.
const MAX_BYTES: u64 = 100 << 20;

/// The rules that hold in a directory.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    case: Case,
    innermost: Option<Arc<Node>>,
}

#[derive(Debug)]
struct Node {
    list: List<Ignore>,
    /// Length of the directory's path with the slash at its end.
    base: usize,
    outer: Option<Arc<Node>>,
}

impl Rules {
    /// The rules of the top. Files that are not there or cannot be read have no rules, as with git.
    pub(super) fn new(fold_case: bool, excludes_file: Option<&Path>, info_exclude: &Path) -> Self {
        let case = if fold_case { Case::Fold } else { Case::Sensitive };
        let mut rules = Self { case, innermost: None };
        for file in excludes_file.into_iter().chain([info_exclude]) {
            if let Ok(Some(content)) = read(CWD, file, OFlags::empty()) {
                rules.add(&content, 0);
            }
        }
        rules
    }

    /// Adds the patterns of a directory, whose path with a slash at its end is `base` long.
    pub(super) fn add(&mut self, content: &[u8], base: usize) {
        let parse = Ignore { support_precious: false };
        let Ok(list) = List::from_bytes(content, ".gitignore".into(), None, parse) else { return };
        if !list.patterns.is_empty() {
            let outer = self.innermost.take();
            self.innermost = Some(Arc::new(Node { list, base, outer }));
        }
    }

    /// Says whether an entry of the directory is ignored by itself, not because it is in one that is.
    pub(super) fn ignore(&self, path: &[u8], is_dir: bool) -> bool {
        let name = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
        let mut node = self.innermost.as_deref();
        while let Some(Node { list, base, outer }) = node {
            let relative = path.get(*base..).unwrap_or_default();
            let name = name.checked_sub(*base).filter(|at| *at > 0);
            let found = pattern_matching_relative_path(
                list,
                relative.into(),
                name,
                Some(is_dir),
                self.case,
            );
            if let Some(found) = found {
                return !found.pattern.is_negative();
            }
            node = outer.as_deref();
        }
        false
    }
}

/// Says whether any of these files, or a directory on the way to it, is meant by a pattern as in `.gitignore`.
pub(in crate::vcs_worktree) fn is_any_meant<'a>(
    pattern: &str,
    mut files: impl Iterator<Item = &'a [u8]>,
) -> bool {
    let mut rules = Rules { case: Case::Sensitive, innermost: None };
    rules.add(pattern.as_bytes(), 0);
    files.any(|file| {
        let mut ends = file.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        ends.any(|(end, _)| rules.ignore(&file[..end], true)) || rules.ignore(file, false)
    })
}

/// Reads the patterns of a directory, not through a link; `None` if it has none that git would read.
pub(super) fn of(dir: impl AsFd) -> io::Result<Option<Vec<u8>>> {
    read(dir, Path::new(".gitignore"), OFlags::NOFOLLOW)
}

fn read(at: impl AsFd, path: &Path, flags: OFlags) -> io::Result<Option<Vec<u8>>> {
    // A pipe must not be waited for.
    let flags = flags | OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = openat(at, path, flags, Mode::empty()) else { return Ok(None) };
    let file = std::fs::File::from(file);
    let meta = file.metadata()?;
    if !meta.is_file() || meta.len() > MAX_BYTES {
        return Ok(None);
    }
    let mut content = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut content)?;
    Ok(Some(content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_files_and_what_is_below_directories() {
        let files = [b".env.local".as_slice(), b"keys/deep/one", b"a/b.txt"];
        for (pattern, expected) in [
            (".env*", true),
            ("keys/", true),
            ("one", true),
            ("deep/", true),
            ("a/*.txt", true),
            ("/b.txt", false),
            ("one/", false),
            (".npmrc", false),
        ] {
            assert_eq!(is_any_meant(pattern, files.into_iter()), expected, "{pattern}");
        }
    }
}
