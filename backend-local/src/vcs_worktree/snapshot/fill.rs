//! Puts a snapshot over a checkout of its commit: every byte, mode, link and time as it was, then all of it compared.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::Stat;
use windlass_core::vcs_worktree::VcsWorktreeError;

use super::super::below::Below;
use super::super::checkout::CHECKED_OUT_INDEX;
use super::super::copied::{self, Copied};
use super::super::tree::{self, Entry, Listing, stamp};
use super::super::verify::Found;
use super::super::{failed, path_of, settle};
use super::archive::{self, CHUNK, Member, ReadError};
use super::examine::Examined;
use super::git_state::{INDEX, INDEX_LOCK, is_state};
use super::index_file::IndexFile;
use super::listing::{Bytes, Item, Side, What};
use super::sparse::{Piece, Stored, read_map};
use super::{digest, unpack};

/// Why a snapshot could not be put over a checkout.
#[derive(Debug)]
pub(super) enum Unfilled {
    /// It, or what became of it, is not what was written; why, for people.
    Damaged(String),
    /// Something else failed.
    Failed(VcsWorktreeError),
}

/// A restoration under way.
pub(super) struct Filling<'a> {
    pub(super) archive: &'a Path,
    pub(super) examined: &'a Examined,
    pub(super) found: &'a Found,
    /// Where the pieces of files with holes are.
    pieces: HashMap<PathBuf, Vec<Piece>>,
    /// Copied files that are as they were.
    copied: HashSet<PathBuf>,
}

impl<'a> Filling<'a> {
    pub(super) fn new(archive: &'a Path, examined: &'a Examined, found: &'a Found) -> Self {
        let (pieces, copied) = (HashMap::new(), HashSet::new());
        Self { archive, examined, found, pieces, copied }
    }

    /// Puts everything in its place, syncs and compares.
    pub(super) fn fill(&mut self) -> Result<(), Unfilled> {
        self.permit()?;
        let mut work = self.open(Side::Work)?;
        let mut git = self.open(Side::Git)?;
        self.clear(&mut work, Side::Work)?;
        self.clear(&mut git, Side::Git)?;
        for item in self.items() {
            if item.what == What::Dir && !item.path.as_os_str().is_empty() {
                let below = if item.side == Side::Work { &mut work } else { &mut git };
                unpack::dir(below, &item.path).map_err(|error| self.failed(item, error))?;
            }
        }
        self.unpack(&mut work, &mut git)?;
        let copied = self.copy_in(&mut work)?;
        self.links(&mut work, &mut git)?;
        work.forget();
        git.forget();
        // Directories last, the deepest first: what is made in them changes them.
        for dirs in [false, true] {
            for item in self.items().rev().filter(|item| (item.what == What::Dir) == dirs) {
                let below = if item.side == Side::Work { &mut work } else { &mut git };
                if self.is_finished(item) {
                    unpack::finish(below, item).map_err(|error| self.failed(item, error))?;
                }
            }
        }
        work.forget();
        self.list_copied(&mut work, copied)?;
        self.indexes(&mut work, &mut git)?;
        let (admin, path) = (&self.found.admin, &self.found.path);
        settle::settle_now(admin, path).map_err(|error| self.at(path, error))?;
        self.compare(&mut work, &mut git)
    }

    fn items(&self) -> impl DoubleEndedIterator<Item = &'a Item> + use<'a> {
        self.examined.items.iter()
    }

    fn root(&self, side: Side) -> &'a Path {
        match side {
            Side::Work => &self.found.path,
            Side::Git => &self.found.admin,
        }
    }

    fn open(&self, side: Side) -> Result<Below, Unfilled> {
        let root = self.root(side);
        Below::open(root).map_err(|error| self.at(root, error))
    }

    fn at(&self, path: &Path, error: io::Error) -> Unfilled {
        Unfilled::Failed(failed("restore", path, error))
    }

    fn failed(&self, item: &Item, error: io::Error) -> Unfilled {
        self.at(&self.root(item.side).join(&item.path), error)
    }

    fn damaged(item: &Item, why: &str) -> Unfilled {
        Unfilled::Damaged(format!("{:?} {why}", String::from_utf8_lossy(&item.member())))
    }

    /// The snapshot is as it was; what a checkout gives is not.
    fn checked_out_otherwise(&self, item: &Item, why: &str) -> Unfilled {
        let detail = format!(
            "a checkout of {} gives {:?} otherwise than when it was saved (it {why}): have attributes, filters or \
             core.autocrlf changed? Set them as they were and restore again, then change them; or unpack {} by hand",
            self.found.verified.head,
            String::from_utf8_lossy(item.path.as_os_str().as_bytes()),
            self.archive.display(),
        );
        Unfilled::Failed(super::super::mismatch(&self.found.path, detail))
    }

    /// Refuses a listing that would write what a snapshot never holds.
    fn permit(&self) -> Result<(), Unfilled> {
        for item in self.items().filter(|item| item.side == Side::Git) {
            let mut parts = item.path.components();
            let Some(first) = parts.next() else { continue };
            let in_module = first.as_os_str() == "modules";
            let link = matches!(item.what, What::Link { .. });
            if !is_state(first.as_os_str()) || (link && !in_module) {
                return Err(Self::damaged(item, "is nothing that a snapshot holds"));
            }
        }
        let moved = Path::new(self.found.admin.file_name().unwrap_or_default())
            != path_of(&self.examined.manifest.registration);
        let modules =
            self.items().any(|item| item.side == Side::Git && item.path == Path::new("modules"));
        if moved && modules {
            let detail = format!(
                "its submodules are registered as {}, and another worktree has taken that name: remove that one first",
                self.examined.manifest.registration
            );
            let path = &self.found.path;
            return Err(Unfilled::Failed(super::super::mismatch(path, detail)));
        }
        Ok(())
    }

    /// Removes what a checkout has and the snapshot has not.
    fn clear(&self, below: &mut Below, side: Side) -> Result<(), Unfilled> {
        if side == Side::Work && !self.examined.manifest.directory {
            return Ok(());
        }
        let root = self.root(side);
        let listing = tree::list(root).map_err(|error| self.at(root, error))?;
        let Some(listing) = listing else {
            return Err(self.at(root, io::ErrorKind::NotFound.into()));
        };
        let kinds = unpack::kinds(self.items().filter(|item| item.side == side));
        let kept = |path: &Path, dir: bool| kinds.contains(&(path, dir)) || is_apart(side, path);
        unpack::clear(below, &listing, &kept).map_err(|error| self.at(root, error))
    }

    /// Unpacks the files.
    fn unpack(&mut self, work: &mut Below, git: &mut Below) -> Result<(), Unfilled> {
        let stored: HashMap<Vec<u8>, &Item> = self
            .items()
            .filter(|item| item.stored().is_some() && !is_made(item))
            .map(|item| (item.member(), item))
            .collect();
        let mut pieces = HashMap::new();
        let read = archive::read(self.archive, &mut |member: &Member, data| {
            let Some(item) = stored.get(&member.name) else { return Ok(()) };
            let below = if item.side == Side::Work { &mut *work } else { &mut *git };
            let mut unpacked = || -> io::Result<Option<Vec<Piece>>> {
                let file = unpack::file(below, &item.path)?;
                if !matches!(item.what, What::Sparse(_)) {
                    return unpack::content(&file, data).map(|()| None);
                }
                let map = read_map(data, item.size)?.ok_or(io::ErrorKind::InvalidData)?;
                unpack::pieces(&file, data, &map, item.size)?;
                Ok(Some(map))
            };
            match unpacked() {
                Ok(None) => {}
                Ok(Some(map)) => drop(pieces.insert(item.path.clone(), map)),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Err(Self::damaged(item, "has no map of its holes"));
                }
                Err(error) => return Err(self.failed(item, error)),
            }
            Ok(())
        });
        self.pieces = pieces;
        match read {
            Ok(_) => Ok(()),
            Err(ReadError::Stopped(error)) => Err(error),
            Err(ReadError::Missing) => Err(Unfilled::Damaged("it is gone".to_owned())),
            Err(ReadError::Damaged(why)) => Err(Unfilled::Damaged(why)),
        }
    }

    /// Copies in what was copied in, from where it came; what is not there any more stays away.
    fn copy_in(&mut self, work: &mut Below) -> Result<Vec<&'a Item>, Unfilled> {
        let mut done = Vec::new();
        let Some(copy) = &self.examined.manifest.worktree.copy else { return Ok(done) };
        let Ok(mut from) = Below::open(&path_of(&copy.from)) else { return Ok(done) };
        for item in self.items() {
            let What::File(Bytes::Copied(sha256)) = &item.what else { continue };
            let Ok(source) = from.file(&item.path) else { continue };
            if !source.metadata().is_ok_and(|meta| meta.is_file()) {
                continue;
            }
            let made = unpack::file(work, &item.path).and_then(|file| {
                unpack::content(&file, &mut io::BufReader::with_capacity(CHUNK, source))?;
                rewound(&file)
            });
            let file = made.map_err(|error| self.failed(item, error))?;
            if digest(file).map_err(|error| self.failed(item, error))? == *sha256 {
                self.copied.insert(item.path.clone());
            }
            done.push(item);
        }
        Ok(done)
    }

    /// Lists what was copied in, as it is now.
    fn list_copied(&self, work: &mut Below, items: Vec<&Item>) -> Result<(), Unfilled> {
        let mut list = BTreeMap::new();
        for item in items {
            let mut look = || -> io::Result<Copied> {
                let file = work.file(&item.path)?;
                let stamp = stamp(&rustix::fs::fstat(&file)?);
                Ok(Copied { stamp, sha256: digest(file)? })
            };
            list.insert(item.path.clone(), look().map_err(|error| self.failed(item, error))?);
        }
        if list.is_empty() {
            return Ok(());
        }
        let admin = &self.found.admin;
        copied::write(admin, &list).map_err(|error| self.at(admin, error))
    }

    /// Makes links and further names.
    fn links(&self, work: &mut Below, git: &mut Below) -> Result<(), Unfilled> {
        for item in self.items() {
            let below = if item.side == Side::Work { &mut *work } else { &mut *git };
            let made = match &item.what {
                What::Link { target, checkout: false } => unpack::link(below, &item.path, target),
                What::Hard(first) => {
                    let mut again = self.open(item.side)?;
                    unpack::hard(below, &mut again, &item.path, first)
                }
                What::Link { .. } | What::Dir | What::File(_) | What::Sparse(_) => Ok(()),
            };
            made.map_err(|error| self.failed(item, error))?;
        }
        Ok(())
    }

    /// Says whether an entry gets its permissions and time.
    fn is_finished(&self, item: &Item) -> bool {
        let absent =
            matches!(item.what, What::File(Bytes::Copied(_))) && !self.copied.contains(&item.path);
        let own_root = item.side == Side::Git && item.path.as_os_str().is_empty();
        !absent && !own_root && !is_made(item)
    }

    /// Puts the index back, and tells it and the copy that a checkout made how the files are now.
    fn indexes(&self, work: &mut Below, git: &mut Below) -> Result<(), Unfilled> {
        let head = &self.found.verified.head.0;
        let (mut held, mut same) = (HashSet::new(), HashSet::new());
        let mut firsts = HashSet::new();
        for item in self.items().filter(|item| item.side == Side::Work) {
            if item.indexed {
                held.insert(item.path.as_path());
            }
            let checkout = match &item.what {
                What::File(Bytes::Checkout) | What::Link { checkout: true, .. } => true,
                What::Hard(first) => firsts.contains(first.as_path()),
                What::File(_) | What::Sparse(_) | What::Link { .. } | What::Dir => false,
            };
            if checkout {
                same.insert(item.path.as_path());
                firsts.insert(item.path.as_path());
            }
        }
        if let Some(item) = self.items().find(|item| is_index(item)) {
            let bytes = self.member(item)?;
            let bytes = restated(bytes, head, &held, work);
            self.put_index(git, &bytes)?;
            unpack::finish(git, item).map_err(|error| self.failed(item, error))?;
        }
        let path = Path::new(CHECKED_OUT_INDEX);
        let mut read = || -> io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            git.file(path)?.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        match read() {
            Ok(bytes) => self.write(git, path, &restated(bytes, head, &same, work)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(self.at(&self.found.admin.join(path), error)),
        }
    }

    /// Gives the worktree this index, or leaves the one it has, also over a power cut: git refuses to look after a
    /// repository of which one worktree has half an index.
    fn put_index(&self, git: &mut Below, bytes: &[u8]) -> Result<(), Unfilled> {
        let lock = Path::new(INDEX_LOCK);
        let mut put = || -> io::Result<()> {
            let file = unpack::file(git, lock)?;
            file.write_all_at(bytes, 0)?;
            file.sync_data()?;
            let (admin, name) = git.parent(lock)?;
            Ok(rustix::fs::renameat(admin, name, admin, INDEX)?)
        };
        put().map_err(|error| self.at(&self.found.admin.join(INDEX), error))
    }

    fn write(&self, git: &mut Below, path: &Path, bytes: &[u8]) -> Result<(), Unfilled> {
        let written = unpack::file(git, path).and_then(|file| file.write_all_at(bytes, 0));
        written.map_err(|error| self.at(&self.found.admin.join(path), error))
    }

    /// Reads a member into memory.
    fn member(&self, item: &Item) -> Result<Vec<u8>, Unfilled> {
        let (name, mut content) = (item.member(), Vec::new());
        let read = archive::read(self.archive, &mut |member: &Member, data| {
            if member.name == name {
                let read = data.read_to_end(&mut content);
                read.map_err(|error| Unfilled::Damaged(error.to_string()))?;
            }
            Ok(())
        });
        match read {
            Ok(_) => Ok(content),
            Err(ReadError::Stopped(error)) => Err(error),
            Err(ReadError::Missing) => Err(Unfilled::Damaged("it is gone".to_owned())),
            Err(ReadError::Damaged(why)) => Err(Unfilled::Damaged(why)),
        }
    }

    /// Compares all that is there now with the listing.
    fn compare(&self, work: &mut Below, git: &mut Below) -> Result<(), Unfilled> {
        work.forget();
        git.forget();
        for item in self.items() {
            let below = if item.side == Side::Work { &mut *work } else { &mut *git };
            let looked = self.differs(below, item).map_err(|error| self.failed(item, error))?;
            match looked {
                None => {}
                Some(why) if item.what == What::File(Bytes::Checkout) => {
                    return Err(self.checked_out_otherwise(item, why));
                }
                Some(why) => return Err(Self::damaged(item, why)),
            }
        }
        if !self.examined.manifest.directory {
            return Ok(());
        }
        let root = self.root(Side::Work);
        let listing = tree::list(root).map_err(|error| self.at(root, error))?;
        let kinds = unpack::kinds(self.items().filter(|item| item.side == Side::Work));
        let mut more = None;
        each(listing.as_ref(), &mut PathBuf::new(), &mut |path, dir| {
            if !kinds.contains(&(path, dir)) && !is_apart(Side::Work, path) {
                more = Some(path.to_owned());
            }
        });
        match more {
            None => Ok(()),
            Some(path) => {
                Err(Unfilled::Damaged(format!("{path:?} came out though it was not there")))
            }
        }
    }

    /// Says how an entry differs from its line.
    fn differs(&self, below: &mut Below, item: &Item) -> io::Result<Option<&'static str>> {
        if item.side == Side::Git && item.path.as_os_str().is_empty() || is_head(item) {
            return Ok(None);
        }
        if matches!(item.what, What::File(Bytes::Copied(_))) && !self.copied.contains(&item.path) {
            return Ok(None);
        }
        let stat = match below.stat(&item.path) {
            Ok(stat) => stat,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Some("did not come out"));
            }
            Err(error) => return Err(error),
        };
        let now = stamp(&stat);
        if is_index(item) {
            return Ok((now.size != item.size).then_some("has another size"));
        }
        let link = matches!(item.what, What::Link { .. });
        // No system changes the permissions of a link.
        if now.mode & 0o7777 != item.mode && !link {
            return Ok(Some("has other permissions"));
        }
        if !is_time(now.mtime, item.mtime) {
            return Ok(Some("has another time"));
        }
        if item.what != What::Dir && now.size != item.size {
            return Ok(Some("has another size"));
        }
        self.content_differs(below, item, &stat)
    }

    fn content_differs(
        &self,
        below: &mut Below,
        item: &Item,
        stat: &Stat,
    ) -> io::Result<Option<&'static str>> {
        let same = match &item.what {
            What::Dir | What::File(Bytes::Checkout) => true,
            What::File(Bytes::Archive(sha256) | Bytes::Copied(sha256)) => {
                digest(below.file(&item.path)?)? == *sha256
            }
            What::Sparse(sha256) => {
                let file = below.file(&item.path)?;
                let pieces = self.pieces.get(&item.path).cloned().unwrap_or_default();
                digest(Stored::new(&file, pieces, item.size))? == *sha256
            }
            What::Link { target, .. } => below.link(&item.path)? == *target,
            What::Hard(first) => {
                let first = below.stat(first)?;
                (first.st_dev, first.st_ino) == (stat.st_dev, stat.st_ino)
            }
        };
        Ok((!same).then_some("has other content"))
    }
}

/// Says whether a file has the time that it was given, as far as its file system keeps times.
fn is_time(now: (i64, i128), given: (i64, u32)) -> bool {
    let nanoseconds = i128::from(given.1);
    let steps = [1, 100, 1_000, 1_000_000, 1_000_000_000];
    now.0 == given.0 && steps.iter().any(|step| now.1 == nanoseconds / step * step)
}

/// What stays as the creation made it.
fn is_apart(side: Side, path: &Path) -> bool {
    let Some(first) = path.components().next() else { return true };
    match side {
        Side::Work => path == Path::new(".git"),
        Side::Git => {
            let first = first.as_os_str();
            !is_state(first) || first == INDEX || first == "HEAD"
        }
    }
}

/// Which branch is checked out is decided anew.
fn is_head(item: &Item) -> bool {
    item.side == Side::Git && item.path == Path::new("HEAD")
}

fn is_index(item: &Item) -> bool {
    item.side == Side::Git && item.path == Path::new(INDEX)
}

/// It is made otherwise than by unpacking.
fn is_made(item: &Item) -> bool {
    is_head(item) || is_index(item)
}

/// Tells an index how these files are now; one that is not understood stays as it is.
fn restated(bytes: Vec<u8>, head: &str, paths: &HashSet<&Path>, work: &mut Below) -> Vec<u8> {
    let kept = bytes.clone();
    let Some(mut index) = IndexFile::read(bytes, head) else { return kept };
    index.restate(&mut |path| paths.contains(path).then(|| work.stat(path).ok()).flatten());
    index.into_bytes().unwrap_or(kept)
}

fn rewound(file: &File) -> io::Result<File> {
    use std::io::Seek as _;
    let mut again = file.try_clone()?;
    again.rewind()?;
    Ok(again)
}

fn each(listing: Option<&Listing>, path: &mut PathBuf, see: &mut dyn FnMut(&Path, bool)) {
    for (name, entry) in listing.into_iter().flat_map(|listing| &listing.entries) {
        path.push(OsStr::from_bytes(name.as_bytes()));
        match entry {
            Entry::Dir(below) => {
                see(path, true);
                each(Some(below), path, see);
            }
            Entry::File(_) | Entry::Special(_) | Entry::Unreadable(_) | Entry::Mount => {
                see(path, false);
            }
        }
        path.pop();
    }
}
