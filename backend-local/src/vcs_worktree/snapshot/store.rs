//! Stores the entries of a directory, each exactly as it was at one moment.
//!
//! What changes while it is read is read again. A stamp tells a change only from one tick of the kernel's clock to the
//! next, so nothing is read that changed within the last one.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::super::below::{Below, shown};
use super::super::failed;
use super::super::tree::{Stamp, look, stamp};
use super::archive::{Attributes, CHUNK, Writer};
use super::index_file::State;
use super::listing::{Bytes, Item, Side, What, member};
use super::selection::{Chosen, Part, Selection, named};
use super::sparse;
use crate::group::Cancel;
use windlass_core::vcs_worktree::VcsWorktreeError;

/// How often a file that changes is read.
const READS: u32 = 3;
/// Longer files are not read into memory.
const SMALL: u64 = 1 << 20;
/// The longest tick of the kernel's clock.
const TICK: Duration = Duration::from_millis(10);

/// Why storing stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// This changes while it is read, or is not what was listed any more.
    Restless(Side, PathBuf),
    /// This cannot be read; with the reason.
    Unsavable(Side, PathBuf, &'static str),
    /// Something else failed.
    Failed(VcsWorktreeError),
}

impl From<VcsWorktreeError> for Stop {
    fn from(error: VcsWorktreeError) -> Self {
        Self::Failed(error)
    }
}

impl Stop {
    /// Names the entry, for people.
    pub(super) fn named(side: Side, path: &Path, reason: &str) -> String {
        match side {
            Side::Work => named(path.as_os_str(), reason),
            Side::Git => named(Path::new("(git)").join(path).as_os_str(), reason),
        }
    }
}

/// What was stored.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub(super) items: Vec<Item>,
    /// What each stored entry looked like when it was read.
    pub(super) stamps: Vec<(Side, PathBuf, Stamp)>,
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

/// Stores the entries of one directory.
#[derive(Debug)]
pub(super) struct Source<'a> {
    pub(super) side: Side,
    pub(super) root: &'a Path,
    pub(super) selection: &'a Selection,
    /// The states of files that the index holds.
    pub(super) indexed: HashMap<&'a Path, State>,
    /// What the kernel will not let go is refused, since it is to be deleted.
    pub(super) refuse_immutable: bool,
}

impl Source<'_> {
    /// Stores all that was chosen. `full` is asked after each whether there is still room.
    pub(super) fn store(
        &self,
        cancel: &Cancel,
        writer: &mut Writer,
        stored: &mut Stored,
        full: &dyn Fn(&mut Writer) -> Result<(), VcsWorktreeError>,
    ) -> Result<(), Stop> {
        let at_root = |error| Stop::Failed(failed("save", self.root, error));
        let mut below = Below::open(self.root).map_err(at_root)?;
        let chosen = &self.selection.chosen;
        let newest = chosen.iter().filter(|one| matches!(one.part, Part::File | Part::Link));
        settle(cancel, newest.map(|one| one.stamp.ctime).max());
        let shown_dirs = self.dirs();
        for (number, one) in chosen.iter().enumerate() {
            let what = match &one.part {
                Part::Dir => {
                    if shown_dirs[number] {
                        let written =
                            writer.dir(&member(self.side, &one.path), attributes(&one.stamp));
                        written.map_err(at_root)?;
                    }
                    What::Dir
                }
                Part::File | Part::Link => {
                    self.one(cancel, &mut below, writer, one, stored)?;
                    full(writer)?;
                    continue;
                }
                Part::SameFile => What::File(Bytes::Checkout),
                Part::Copied(sha256) => What::File(Bytes::Copied(*sha256)),
                Part::SameLink => {
                    let target = below.link(&one.path).map_err(|error| self.unread(one, error))?;
                    What::Link { target, checkout: true }
                }
                Part::Hard(first) => {
                    let first = &chosen[*first];
                    if matches!(first.part, Part::File | Part::Link) {
                        let (name, target) = (&one.path, member(self.side, &first.path));
                        let name = member(self.side, name);
                        let linked = writer.link(&name, attributes(&one.stamp), true, &target);
                        linked.map_err(at_root)?;
                        stored.entries += 1;
                        stored.stamps.push((self.side, one.path.clone(), one.stamp));
                    }
                    What::Hard(first.path.clone())
                }
            };
            stored.items.push(self.item(one, &one.stamp, what));
        }
        Ok(())
    }

    /// Says of each directory whether it has a member: if something in it does, or nothing is in it at all.
    fn dirs(&self) -> Vec<bool> {
        let chosen = &self.selection.chosen;
        let numbers: HashMap<&Path, usize> = (0..)
            .zip(chosen)
            .filter(|(_, one)| one.part == Part::Dir)
            .map(|(number, one)| (one.path.as_path(), number))
            .collect();
        let mut shown = vec![false; chosen.len()];
        for (number, one) in chosen.iter().enumerate() {
            let followed =
                chosen.get(number + 1).is_some_and(|next| next.path.starts_with(&one.path));
            let empty = one.part == Part::Dir && !followed;
            if !empty && !matches!(one.part, Part::File | Part::Link) {
                continue;
            }
            for above in one.path.ancestors() {
                if let Some(number) = numbers.get(above) {
                    shown[*number] = true;
                }
            }
        }
        shown
    }

    fn item(&self, one: &Chosen, stamp: &Stamp, what: What) -> Item {
        let nanoseconds = u32::try_from(stamp.mtime.1).unwrap_or_default();
        Item {
            side: self.side,
            path: one.path.clone(),
            size: if what == What::Dir { 0 } else { stamp.size },
            what,
            mode: stamp.mode & 0o7777,
            mtime: (stamp.mtime.0, nanoseconds),
            indexed: self.indexed.get(one.path.as_path()).is_some_and(|held| held.is(stamp)),
        }
    }

    fn unread(&self, one: &Chosen, error: io::Error) -> Stop {
        if error.raw_os_error() == Some(libc::ELOOP) {
            // It is a link now.
            return Stop::Restless(self.side, one.path.clone());
        }
        match error.kind() {
            io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::InvalidInput => Stop::Restless(self.side, one.path.clone()),
            io::ErrorKind::PermissionDenied => {
                Stop::Unsavable(self.side, one.path.clone(), "it may not be read")
            }
            _ => failed("save", &shown(self.root, &one.path), error).into(),
        }
    }

    fn one(
        &self,
        cancel: &Cancel,
        below: &mut Below,
        writer: &mut Writer,
        one: &Chosen,
        stored: &mut Stored,
    ) -> Result<(), Stop> {
        for read in 0..READS {
            if read > 0 {
                // A directory on the way may have been replaced.
                below.forget();
            }
            let taken = match one.part {
                Part::Link => self.link(below, writer, one)?,
                _ => self.file(below, writer, one)?,
            };
            if let Some((what, stamp)) = taken {
                stored.entries += 1;
                stored.bytes = stored.bytes.saturating_add(stamp.size);
                stored.stamps.push((self.side, one.path.clone(), stamp));
                stored.items.push(self.item(one, &stamp, what));
                return Ok(());
            }
            settle(cancel, Some(now()));
        }
        Err(Stop::Restless(self.side, one.path.clone()))
    }

    /// Stores a link; `None` if it changed meanwhile.
    fn link(
        &self,
        below: &mut Below,
        writer: &mut Writer,
        one: &Chosen,
    ) -> Result<Option<(What, Stamp)>, Stop> {
        let mut look = || -> io::Result<(Stamp, Vec<u8>, Stamp)> {
            let before = stamp(&below.stat(&one.path)?);
            let target = below.link(&one.path)?;
            Ok((before, target, stamp(&below.stat(&one.path)?)))
        };
        let (before, target, after) = look().map_err(|error| self.unread(one, error))?;
        if before != after {
            return Ok(None);
        }
        let name = member(self.side, &one.path);
        let written = writer.link(&name, attributes(&before), false, &target);
        written.map_err(|error| failed("save", self.root, error))?;
        Ok(Some((What::Link { target, checkout: false }, before)))
    }

    /// Stores a file; `None` if it changed meanwhile, and then nothing of it is in the archive.
    fn file(
        &self,
        below: &mut Below,
        writer: &mut Writer,
        one: &Chosen,
    ) -> Result<Option<(What, Stamp)>, Stop> {
        let unread = |error| self.unread(one, error);
        let unwritten = |error| Stop::Failed(failed("save", self.root, error));
        let file = below.file(&one.path).map_err(unread)?;
        let stat = rustix::fs::fstat(&file).map_err(|error| unread(error.into()))?;
        let before = stamp(&stat);
        if before.mode & 0o170_000 != 0o100_000 {
            return Ok(None);
        }
        if self.refuse_immutable
            && let Some(fixed) = look(&file, c"").ok().and_then(|looked| looked.fixed)
        {
            return Err(Stop::Unsavable(self.side, one.path.clone(), fixed.why()));
        }
        let unchanged = || {
            rustix::fs::fstat(&file)
                .map(|stat| stamp(&stat) == before)
                .map_err(|e| unread(e.into()))
        };
        let (name, attributes) = (member(self.side, &one.path), attributes(&before));
        if before.size <= SMALL {
            let mut content = Vec::new();
            (&file).take(SMALL + 1).read_to_end(&mut content).map_err(unread)?;
            if u64::try_from(content.len()) != Ok(before.size) || !unchanged()? {
                return Ok(None);
            }
            let written = writer.file(&name, attributes, before.size, content.as_slice());
            return Ok(Some((What::File(Bytes::Archive(written.map_err(unwritten)?)), before)));
        }
        let mark = writer.mark().map_err(unwritten)?;
        let blocks = u64::try_from(stat.st_blocks).unwrap_or(u64::MAX);
        let written = match sparse::pieces(&file, before.size, blocks).map_err(unread)? {
            Some(pieces) => {
                let mut data = sparse::Stored::new(&file, pieces, before.size);
                let stored = data.size();
                writer.sparse(&name, attributes, before.size, stored, &mut data).map(What::Sparse)
            }
            None => {
                let rewound = rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0));
                rewound.map_err(|error| unread(error.into()))?;
                let data = io::BufReader::with_capacity(CHUNK, &file).take(before.size);
                writer
                    .file(&name, attributes, before.size, data)
                    .map(|sha256| What::File(Bytes::Archive(sha256)))
            }
        };
        match written {
            Ok(what) if unchanged()? => Ok(Some((what, before))),
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(unwritten(error)),
            // It changed, or became shorter.
            Ok(_) | Err(_) => writer.go_back(mark).map(|()| None).map_err(unwritten),
        }
    }
}

fn attributes(stamp: &Stamp) -> Attributes {
    Attributes { mode: stamp.mode & 0o7777, mtime: stamp.mtime.0 }
}

fn now() -> (i64, i128) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (i64::try_from(now.as_secs()).unwrap_or(i64::MAX), now.subsec_nanos().into())
}

/// Waits until a change that comes now has another time than this one had.
fn settle(cancel: &Cancel, changed: Option<(i64, i128)>) {
    let Some((seconds, nanoseconds)) = changed else { return };
    let total =
        |(seconds, nanoseconds): (i64, i128)| i128::from(seconds) * 1_000_000_000 + nanoseconds;
    let age = total(now()) - total((seconds, nanoseconds));
    if let Ok(age) = u64::try_from(age)
        && let Some(rest) = TICK.checked_sub(Duration::from_nanos(age))
    {
        // Whoever is not interested any more is noticed at the next command.
        cancel.pause(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::super::archive::read;
    use super::*;
    use crate::vcs_worktree::tree;
    use std::collections::HashSet;
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;

    /// Stores a directory to which `change` is done after it was listed.
    fn stored(make: impl FnOnce(&Path), change: impl FnOnce(&Path)) -> Result<Vec<Vec<u8>>, Stop> {
        let top = tempfile::tempdir().unwrap();
        let root = top.path().join("root");
        fs::create_dir(&root).unwrap();
        fs::write(top.path().join("outside"), "secret").unwrap();
        make(&root);
        let listing = tree::list(&root).unwrap().unwrap();
        let selection = Selection::of_everything(&listing, &HashSet::new());
        change(&root);
        let archive = top.path().join("archive");
        let file = File::options().read(true).write(true).create_new(true).open(&archive).unwrap();
        let mut writer = Writer::new(&file).unwrap();
        let mut stored = Stored::default();
        let source = Source {
            side: Side::Work,
            root: &root,
            selection: &selection,
            indexed: HashMap::new(),
            refuse_immutable: true,
        };
        source.store(&Cancel::never(), &mut writer, &mut stored, &|_| Ok(()))?;
        writer.finish().unwrap();
        let mut contents = Vec::new();
        let seen = read(&archive, &mut |_, data| {
            let mut content = Vec::new();
            data.read_to_end(&mut content)?;
            contents.push(content);
            Ok::<_, io::Error>(())
        });
        seen.unwrap();
        Ok(contents)
    }

    #[track_caller]
    fn assert_restless(stored: Result<Vec<Vec<u8>>, Stop>, named: &str) {
        match stored {
            Err(Stop::Restless(Side::Work, path)) => assert_eq!(path, Path::new(named)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_takes_the_place_of_a_listed_file_is_not_stored_for_it() {
        let make = |root: &Path| {
            fs::create_dir(root.join("d")).unwrap();
            fs::write(root.join("d/f"), "x").unwrap();
        };
        let gone = |root: &Path| fs::remove_file(root.join("d/f")).unwrap();
        assert_restless(stored(make, gone), "d/f");
        let link = |root: &Path| {
            gone(root);
            symlink("../../outside", root.join("d/f")).unwrap();
        };
        assert_restless(stored(make, link), "d/f");
        let way = |root: &Path| {
            fs::rename(root.join("d"), root.join("e")).unwrap();
            symlink("e", root.join("d")).unwrap();
        };
        assert_restless(stored(make, way), "d/f");
        // It would be waited for without end.
        let pipe = |root: &Path| {
            gone(root);
            let made = std::process::Command::new("mkfifo").arg(root.join("d/f")).status();
            assert!(made.unwrap().success());
        };
        assert_restless(stored(make, pipe), "d/f");
    }

    #[test]
    fn what_was_written_since_it_was_listed_is_stored_as_it_is() {
        let make = |root: &Path| fs::write(root.join("f"), "before").unwrap();
        let change = |root: &Path| fs::write(root.join("f"), "much later").unwrap();
        let contents = stored(make, change).unwrap();
        assert_eq!(contents.last().unwrap(), b"much later");
    }
}
