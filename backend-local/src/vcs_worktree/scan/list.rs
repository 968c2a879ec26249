//! Lists a directory tree without comparing it with anything.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::walk::{Directory, Kind, Next, Unread, Visit, kind_of_mode, walk};
use crate::group::Cancel;
use crate::vcs_worktree::tree::{Entry, Listing};

/// Directories that were read, and those that were not, by path.
type Seen = (Vec<(Vec<u8>, Listing)>, Vec<(Vec<u8>, Entry)>);

struct All {
    seen: Mutex<Seen>,
}

impl Visit for All {
    type Context = ();

    fn directory(&self, directory: Directory, (): ()) -> io::Result<ControlFlow<(), Next<()>>> {
        let mut entries = BTreeMap::new();
        let mut next = Vec::new();
        for item in directory.items() {
            let looked = match item.kind {
                Kind::Dir => None,
                // Gone again: nothing to list.
                _ => match directory.look(item.name)? {
                    Some(stamp) => {
                        Some(stamp).filter(|stamp| kind_of_mode(stamp.mode) != Kind::Dir)
                    }
                    None => continue,
                },
            };
            let Some(stamp) = looked else {
                next.push((item.name.to_owned(), ()));
                continue;
            };
            let entry = match kind_of_mode(stamp.mode) {
                Kind::File | Kind::Link => Entry::File(stamp),
                Kind::Special | Kind::Dir => Entry::Special(stamp),
            };
            entries.insert(OsString::from_vec(item.name.to_bytes().to_vec()), entry);
        }
        let listing = Listing { stamp: directory.stamp, entries };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.0.push((directory.path, listing));
        Ok(ControlFlow::Continue(next))
    }

    fn unread(&self, path: Vec<u8>, why: Unread, (): ()) -> ControlFlow<()> {
        let entry = match why {
            Unread::Gone => return ControlFlow::Continue(()),
            Unread::Mount => Entry::Mount,
            Unread::Unreadable(stamp) => Entry::Unreadable(stamp),
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.1.push((path, entry));
        ControlFlow::Continue(())
    }
}

/// Lists a directory. `None` if there is none.
pub(in crate::vcs_worktree) fn list(path: &Path) -> io::Result<Option<Listing>> {
    let all = All { seen: Mutex::default() };
    match walk(path, &all, (), None, &Cancel::never()) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    let (directories, closed) = all.seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(assemble(directories, closed))
}

/// Puts directories into each other. `None` if there is no top.
pub(super) fn assemble(
    directories: Vec<(Vec<u8>, Listing)>,
    closed: Vec<(Vec<u8>, Entry)>,
) -> Option<Listing> {
    let open = directories.into_iter().map(|(path, listing)| (path, Entry::Dir(listing)));
    let mut all: Vec<(Vec<u8>, Entry)> = open.chain(closed).collect();
    // Each directory right before what is below it.
    all.sort_by(|(one, _), (other, _)| {
        let part = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
        one.iter().map(part).cmp(other.iter().map(part))
    });
    let mut above: Vec<(Vec<u8>, Listing)> = Vec::new();
    for (path, entry) in all {
        while above.last().is_some_and(|(top, _)| !is_in(&path, top)) {
            fold(&mut above);
        }
        match entry {
            Entry::Dir(listing) => above.push((path, listing)),
            other => {
                let (_, parent) = above.last_mut()?;
                parent.entries.insert(last_name(&path), other);
            }
        }
    }
    while above.len() > 1 {
        fold(&mut above);
    }
    above.pop().map(|(_, top)| top)
}

fn fold(above: &mut Vec<(Vec<u8>, Listing)>) {
    if let Some((path, listing)) = above.pop()
        && let Some((_, parent)) = above.last_mut()
    {
        parent.entries.insert(last_name(&path), Entry::Dir(listing));
    }
}

fn is_in(path: &[u8], directory: &[u8]) -> bool {
    directory.is_empty()
        || path.strip_prefix(directory).is_some_and(|rest| rest.first() == Some(&b'/'))
}

fn last_name(path: &[u8]) -> std::ffi::OsString {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    OsStr::from_bytes(name).to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn everything_is_in_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a/b/c", "a-b/c", "a.b", "z/empty/er"] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        fs::remove_file(dir.path().join("z/empty/er")).unwrap();
        let listing = list(dir.path()).unwrap().unwrap();
        let mut seen = Vec::new();
        listing.each(&mut |path, _| seen.push(path.to_owned()));
        seen.sort();
        assert_eq!(seen, ["a/b/c", "a-b/c", "a.b"].map(std::path::PathBuf::from));
        let Entry::Dir(z) = &listing.entries[OsStr::new("z")] else { panic!("z is no directory") };
        assert!(
            matches!(&z.entries[OsStr::new("empty")], Entry::Dir(empty) if empty.entries.is_empty())
        );
        assert!(list(&dir.path().join("missing")).unwrap().is_none());
        assert!(list(&dir.path().join("a.b")).is_err());
    }
}
