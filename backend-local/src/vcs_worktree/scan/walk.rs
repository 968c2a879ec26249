//! Walks a directory tree on a few threads, never through a link and never across a mount.
//!
//! Each directory is opened from the top by its path, so that no descriptor is held for what still waits. What the walk
//! means is up to its visitor.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::num::NonZero;
use std::ops::ControlFlow;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{Access, AtFlags, CWD, Dir, FileType, Mode, OFlags, accessat, openat, statat};
use rustix::io::Errno;

use super::memory::Remembered;
use crate::group::Cancel;
use crate::vcs_worktree::tree::{Fixed, MountId, Stamp, look, mount_of, stamp};

/// Most threads. Looking is bound by the kernel's locks soon after.
const THREADS: usize = 4;
/// How many directories are walked before other threads help.
const ALONE: u32 = 8;
/// Deeper directories are not looked into: no path that a program can name leads there.
const DEEPEST: usize = 2048;

/// What kind of entry a directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Link,
    Dir,
    Special,
}

/// One entry of a directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item<'a> {
    pub(super) name: &'a CStr,
    pub(super) kind: Kind,
}

/// A directory that was read.
#[derive(Debug)]
pub(super) struct Directory {
    open: Dir,
    /// Relative to the top, without a slash at its end.
    pub(super) path: Vec<u8>,
    pub(super) stamp: Stamp,
    pub(super) fixed: Option<Fixed>,
    /// The names one after the other, each with a zero byte.
    names: Arc<[u8]>,
    /// Where each name ends, its zero byte included.
    items: Arc<[(usize, Kind)]>,
}

impl Directory {
    pub(super) fn items(&self) -> impl Iterator<Item = Item<'_>> {
        let mut begin = 0;
        self.items.iter().filter_map(move |(end, kind)| {
            let name = CStr::from_bytes_with_nul(self.names.get(begin..*end)?).ok()?;
            begin = *end;
            Some(Item { name, kind: *kind })
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) fn has(&self, name: &[u8]) -> bool {
        self.items().any(|item| item.name.to_bytes() == name)
    }

    /// Looks at an entry, not through it. `None` if it is gone.
    pub(super) fn look(&self, name: &CStr) -> io::Result<Option<Stamp>> {
        match statat(self.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stamp(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The same, and says why nobody could delete it, if that is so.
    pub(super) fn look_closely(&self, name: &CStr) -> io::Result<Option<(Stamp, Option<Fixed>)>> {
        match look(self.fd()?, name) {
            Ok(looked) => Ok(Some((looked.stamp, looked.fixed))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn fd(&self) -> io::Result<BorrowedFd<'_>> {
        Ok(self.open.fd()?)
    }

    /// The path of an entry, relative to the top.
    pub(super) fn path_of(&self, name: &[u8]) -> Vec<u8> {
        joined(&self.path, name)
    }
}

/// Why a directory was not read.
#[derive(Debug)]
pub(super) enum Unread {
    /// It is no directory any more.
    Gone,
    /// Something is mounted there.
    Mount,
    /// The system does not let us, or it is deeper than any path.
    Unreadable(Stamp),
}

/// Directories to look at next, by name, with what the visitor needs there.
pub(super) type Next<C> = Vec<(CString, C)>;

/// What a walk is for.
pub(super) trait Visit: Sync {
    /// What is known of a directory before it is read.
    type Context: Send;

    /// Sees a directory; says where to go on.
    fn directory(
        &self,
        directory: Directory,
        context: Self::Context,
    ) -> io::Result<ControlFlow<(), Next<Self::Context>>>;

    /// Sees a directory that could not be read.
    fn unread(&self, path: Vec<u8>, why: Unread, context: Self::Context) -> ControlFlow<()>;
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Walked {
    /// Everything was seen.
    All,
    /// The visitor had seen enough.
    Enough,
    /// Nobody waits for it any more.
    Cancelled,
}

struct Job<C> {
    path: Vec<u8>,
    depth: usize,
    context: C,
}

struct Queue<C> {
    jobs: Vec<Job<C>>,
    working: usize,
    ended: Option<io::Result<Walked>>,
}

struct Walk<'a, V: Visit> {
    top: OwnedFd,
    mount: MountId,
    visitor: &'a V,
    memory: Option<&'a Remembered>,
    cancel: &'a Cancel,
    queue: Mutex<Queue<V::Context>>,
    changed: Condvar,
}

/// Walks the tree at `top`. With a memory, directories that are as they were are not read again.
pub(super) fn walk<V: Visit>(
    top: &Path,
    visitor: &V,
    context: V::Context,
    memory: Option<&Remembered>,
    cancel: &Cancel,
) -> io::Result<Walked> {
    let top = openat(CWD, top, dir_flags(), Mode::empty())?;
    let mount = mount_of(&top)?;
    let first = Job { path: Vec::new(), depth: 0, context };
    let queue = Mutex::new(Queue { jobs: vec![first], working: 0, ended: None });
    let walk = Walk { top, mount, visitor, memory, cancel, queue, changed: Condvar::new() };
    // What has few directories is walked before another thread would have begun.
    for _ in 0..ALONE {
        match walk.take() {
            Some(job) => walk.go(job),
            None => break,
        }
    }
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(THREADS);
    let waiting = walk.lock().jobs.len();
    std::thread::scope(|scope| {
        for _ in 1..threads.min(waiting) {
            scope.spawn(|| walk.work());
        }
        walk.work();
    });
    let queue = walk.queue.into_inner().unwrap_or_else(PoisonError::into_inner);
    queue.ended.unwrap_or(Ok(Walked::All))
}

impl<V: Visit> Walk<'_, V> {
    fn work(&self) {
        while let Some(job) = self.take() {
            self.go(job);
        }
    }

    fn go(&self, job: Job<V::Context>) {
        let depth = job.depth + 1;
        let done = self.perform(job);
        let mut queue = self.lock();
        queue.working -= 1;
        match done {
            Ok(ControlFlow::Continue((path, next))) => {
                queue.jobs.extend(next.into_iter().map(|(name, context)| Job {
                    path: joined(&path, name.to_bytes()),
                    depth,
                    context,
                }));
            }
            Ok(ControlFlow::Break(how)) => queue.ended = queue.ended.take().or(Some(Ok(how))),
            Err(error) => queue.ended = Some(Err(error)),
        }
        drop(queue);
        self.changed.notify_all();
    }

    fn take(&self) -> Option<Job<V::Context>> {
        let mut queue = self.lock();
        loop {
            if queue.ended.is_some() {
                return None;
            }
            if let Some(job) = queue.jobs.pop() {
                queue.working += 1;
                return Some(job);
            }
            if queue.working == 0 {
                return None;
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<V::Context>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn perform(&self, job: Job<V::Context>) -> io::Result<ControlFlow<Walked, Found<V::Context>>> {
        if self.cancel.pause(Duration::ZERO) {
            return Ok(ControlFlow::Break(Walked::Cancelled));
        }
        let Job { path, depth, context } = job;
        let read = if depth > DEEPEST { Err(Errno::NAMETOOLONG.into()) } else { self.read(&path) };
        let why = match read {
            Ok(Some(directory)) => {
                let next = self.visitor.directory(directory, context)?;
                return Ok(match next {
                    ControlFlow::Continue(next) => ControlFlow::Continue((path, next)),
                    ControlFlow::Break(()) => ControlFlow::Break(Walked::Enough),
                });
            }
            Ok(None) => Unread::Mount,
            Err(error) if depth == 0 => return Err(error),
            Err(error) => self.why_unread(&path, error)?,
        };
        Ok(match self.visitor.unread(path, why, context) {
            ControlFlow::Continue(()) => ControlFlow::Continue(Default::default()),
            ControlFlow::Break(()) => ControlFlow::Break(Walked::Enough),
        })
    }

    /// `None` if it is a mount.
    fn read(&self, path: &[u8]) -> io::Result<Option<Directory>> {
        let fd = open_below(&self.top, path)?;
        let looked = look(&fd, c"")?;
        if !path.is_empty() && looked.mount() != self.mount {
            return Ok(None);
        }
        let (stamp, fixed) = (looked.stamp, looked.fixed);
        let mut open = Dir::new(fd)?;
        if let Some(held) = self.memory.and_then(|memory| memory.recall(path, &stamp)) {
            let (names, items) = (held.names, held.items);
            return Ok(Some(Directory { open, path: path.to_vec(), stamp, fixed, names, items }));
        }
        let (mut names, mut items) = (Vec::new(), Vec::new());
        while let Some(entry) = open.read() {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => match statat(open.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => kind_of(FileType::from_raw_mode(stat.st_mode)),
                    Err(Errno::NOENT) => continue,
                    Err(error) => return Err(error.into()),
                },
                known => kind_of(known),
            };
            names.extend_from_slice(name.to_bytes_with_nul());
            items.push((names.len(), kind));
        }
        // Its names can be read, and nothing that they name can be reached: for us it is unreadable.
        if !items.is_empty()
            && accessat(open.fd()?, c".", Access::EXEC_OK, AtFlags::EACCESS) == Err(Errno::ACCESS)
        {
            return Err(Errno::ACCESS.into());
        }
        let (names, items) = (Arc::from(names), Arc::from(items));
        if let Some(memory) = self.memory {
            memory.keep(path, &stamp, &names, &items);
        }
        Ok(Some(Directory { open, path: path.to_vec(), stamp, fixed, names, items }))
    }

    fn why_unread(&self, path: &[u8], error: io::Error) -> io::Result<Unread> {
        match Errno::from_io_error(&error) {
            // No longer a directory, or reached over what became a link.
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(Unread::Gone),
            Some(
                Errno::ACCESS
                | Errno::PERM
                | Errno::IO
                | Errno::STALE
                | Errno::NOTCONN
                | Errno::NAMETOOLONG,
            ) => {
                let cut = path.iter().rposition(|byte| *byte == b'/');
                let (parent, name) = match cut {
                    Some(at) => (&path[..at], &path[at + 1..]),
                    None => (&path[..0], path),
                };
                let parent = open_below(&self.top, parent)?;
                match statat(&parent, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => Ok(Unread::Unreadable(stamp(&stat))),
                    Err(Errno::NOENT) => Ok(Unread::Gone),
                    Err(error) => Err(error.into()),
                }
            }
            _ => Err(error),
        }
    }
}

type Found<C> = (Vec<u8>, Next<C>);

fn joined(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut joined = Vec::with_capacity(path.len() + 1 + name.len());
    if !path.is_empty() {
        joined.extend_from_slice(path);
        joined.push(b'/');
    }
    joined.extend_from_slice(name);
    joined
}

const fn kind_of(kind: FileType) -> Kind {
    match kind {
        FileType::RegularFile => Kind::File,
        FileType::Symlink => Kind::Link,
        FileType::Directory => Kind::Dir,
        FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Kind::Special,
    }
}

/// What kind of entry has this mode.
pub(super) const fn kind_of_mode(mode: u32) -> Kind {
    match mode & 0o170_000 {
        0o100_000 => Kind::File,
        0o120_000 => Kind::Link,
        0o040_000 => Kind::Dir,
        _ => Kind::Special,
    }
}

const fn dir_flags() -> OFlags {
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC)
}

/// Opens a directory below `top`, through no link.
pub(super) fn open_below(top: &OwnedFd, path: &[u8]) -> io::Result<OwnedFd> {
    if path.is_empty() {
        return Ok(openat(top, ".", dir_flags(), Mode::empty())?);
    }
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{ResolveFlags, openat2};
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match openat2(top, OsStr::from_bytes(path), dir_flags(), Mode::empty(), resolve) {
            // A sandbox may not know it, and its path has a limit: then step by step.
            Err(Errno::NOSYS | Errno::PERM | Errno::NAMETOOLONG | Errno::AGAIN) => {}
            other => return Ok(other?),
        }
    }
    let mut at: Option<OwnedFd> = None;
    for name in path.split(|byte| *byte == b'/') {
        let from = at.as_ref().unwrap_or(top);
        at = Some(openat(from, OsStr::from_bytes(name), dir_flags(), Mode::empty())?);
    }
    at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
}
