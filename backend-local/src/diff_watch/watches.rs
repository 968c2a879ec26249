//! Which directories are watched, by inotify, and what it says about them.
//!
//! A directory is watched before it is read, so that what changes behind the reader's back is told. Ignored directories are
//! not read and so not watched.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Bound;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use super::DiffWatchLimits;
use super::pending::Pending;

/// Most paths that are remembered as of no account.
const MOST_QUIET: usize = 4_096;
/// How much is read at a time.
const BUFFER: usize = 64 << 10;

const TREE: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::EXCL_UNLINK)
    .union(WatchFlags::DONT_FOLLOW)
    .union(WatchFlags::ONLYDIR);
/// Git replaces its files by renaming; reflogs are appended to.
const GIT: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ONLYDIR);

/// What a directory is to the worktree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It belongs to it, at this path.
    Tree(Arc<[u8]>),
    /// Its private git directory.
    Private,
    /// The common git directory.
    Common,
    /// What is in the folder `info` of the common git directory.
    Info,
    /// Refs.
    Refs,
    /// The git directory of the repository at this path.
    Inside(Arc<[u8]>),
}

#[derive(Debug)]
struct Watch {
    role: Role,
    /// When it was last armed, in looks at everything.
    round: u64,
}

#[derive(Debug, Default)]
struct Table {
    watches: HashMap<i32, Watch>,
    /// Those of the worktree.
    tree: BTreeMap<Arc<[u8]>, i32>,
    /// Which of the worktree could not be watched.
    unwatched: HashSet<Vec<u8>>,
    /// Files that are ignored: what happens to them is of no account.
    quiet: HashSet<Vec<u8>>,
    round: u64,
}

/// The watches of one worktree.
#[derive(Debug)]
pub(super) struct Watches {
    inotify: AsyncFd<OwnedFd>,
    top: PathBuf,
    limits: DiffWatchLimits,
    table: Mutex<Table>,
}

impl Watches {
    /// Begins to watch nothing yet. Needs a tokio runtime.
    pub(super) fn new(top: &Path, limits: DiffWatchLimits) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let inotify = crate::kernel::register(inotify)?;
        Ok(Self { inotify, top: top.to_owned(), limits, table: Mutex::default() })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches a directory of the worktree. That it cannot be is counted.
    pub(super) fn arm(&self, path: &[u8]) {
        let full = match path {
            [] => self.top.clone(),
            path => self.top.join(OsStr::from_bytes(path)),
        };
        // The table is held meanwhile: what is read from a new watch must not be of an unknown one.
        let mut table = self.table();
        let added =
            match table.tree.len() < self.limits.directories || table.tree.contains_key(path) {
                true => inotify::add_watch(&self.inotify, &full, TREE),
                false => Err(Errno::NOSPC),
            };
        match added {
            Ok(wd) => {
                table.unwatched.remove(path);
                table.add_to_tree(wd, path);
            }
            // Somebody was quicker; whoever looks there finds it, too.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(_) => drop(table.unwatched.insert(path.to_vec())),
        }
    }

    /// Watches one of git's directories; says whether it was not watched before.
    pub(super) fn arm_git(&self, directory: &Path, role: Role) -> bool {
        let mut table = self.table();
        let Ok(wd) = inotify::add_watch(&self.inotify, directory, GIT) else { return false };
        let round = table.round;
        let before = table.watches.insert(wd, Watch { role: role.clone(), round });
        before.is_none_or(|before| before.role != role)
    }

    /// Begins a look at everything: what is not armed until it has [ended](Self::end_round) is not watched after it.
    pub(super) fn begin_round(&self) {
        let mut table = self.table();
        table.round += 1;
        table.unwatched.clear();
        table.quiet.clear();
    }

    /// Ends a look at everything.
    pub(super) fn end_round(&self) {
        let mut table = self.table();
        let round = table.round;
        let old: Vec<i32> = table
            .watches
            .iter()
            .filter(|(_, watch)| watch.round < round)
            .map(|(wd, _)| *wd)
            .collect();
        for wd in old {
            self.disarm(&mut table, wd);
        }
    }

    /// Notes files that are ignored.
    pub(super) fn hush(&self, paths: Vec<Vec<u8>>) {
        let mut table = self.table();
        if table.quiet.len() + paths.len() > MOST_QUIET {
            table.quiet.clear();
        }
        table.quiet.extend(paths.into_iter().take(MOST_QUIET));
    }

    /// How many directories are not watched that should be.
    pub(super) fn unwatched(&self) -> u64 {
        u64::try_from(self.table().unwatched.len()).unwrap_or(u64::MAX)
    }

    /// Waits until something happened and notes it.
    ///
    /// # Cancel safety
    ///
    /// May be dropped; nothing is lost.
    pub(super) async fn happened(&self, into: &mut Pending) -> io::Result<()> {
        let mut ready = self.inotify.readable().await?;
        self.read(into)?;
        ready.clear_ready();
        // What came in between must not wait for what comes next.
        self.read(into)
    }

    /// Notes what has happened by now.
    pub(super) fn read(&self, into: &mut Pending) -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        let mut count = 0;
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            count += 1;
            let name = event.file_name().map_or(&[][..], |name| name.to_bytes());
            let flags = event.events();
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) || count > self.limits.events {
                into.missed();
            }
            self.note(event.wd(), flags, name, into);
        }
    }

    fn note(&self, wd: i32, flags: ReadFlags, name: &[u8], into: &mut Pending) {
        let mut table = self.table();
        if flags.contains(ReadFlags::IGNORED) {
            table.forget(wd);
            return;
        }
        let Some(watch) = table.watches.get(&wd) else { return };
        // Git makes each file under another name first.
        let is_lock = name.ends_with(b".lock");
        match watch.role.clone() {
            Role::Tree(directory) => self.note_in_tree(&mut table, &directory, flags, name, into),
            Role::Private => match name {
                b"HEAD" | b"reftable" => into.moved(),
                b"index" | b"config.worktree" | b"info" => into.everywhere(),
                _ => {}
            },
            Role::Common => match name {
                b"packed-refs" | b"refs" | b"reftable" | b"shallow" => into.moved(),
                b"config" | b"info" => into.everywhere(),
                _ => {}
            },
            Role::Info => match name {
                b"exclude" | b"attributes" | b"grafts" => into.everywhere(),
                _ => {}
            },
            Role::Refs if !is_lock => into.moved(),
            Role::Inside(repository) if !is_lock => into.at(repository.to_vec()),
            Role::Refs | Role::Inside(_) => {}
        }
    }

    fn note_in_tree(
        &self,
        table: &mut Table,
        directory: &Arc<[u8]>,
        flags: ReadFlags,
        name: &[u8],
        into: &mut Pending,
    ) {
        if name.is_empty() {
            let top_is_gone = directory.is_empty()
                && flags
                    .intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT);
            if top_is_gone {
                into.moved();
                into.everywhere();
            } else if flags.intersects(ReadFlags::ATTRIB | ReadFlags::UNMOUNT)
                && !directory.is_empty()
            {
                into.at(directory.to_vec());
            }
            // Of others their parents tell.
            return;
        }
        match name {
            // Either may change what any file below is.
            b".gitignore" => {
                table.quiet.clear();
                return into.at(directory.to_vec());
            }
            b".gitattributes" => return into.everywhere(),
            b".git" if directory.is_empty() => {
                into.moved();
                return into.everywhere();
            }
            b".git" => return into.at(directory.to_vec()),
            _ => {}
        }
        let path = match &**directory {
            [] => name.to_vec(),
            directory => [directory, b"/", name].concat(),
        };
        if flags.contains(ReadFlags::ISDIR) {
            // It keeps its watches, which would tell of it under its former name.
            if flags.contains(ReadFlags::MOVED_FROM) {
                for wd in table.at_and_below(&path) {
                    self.disarm(table, wd);
                }
            }
        } else if table.quiet.contains(&path) {
            return;
        }
        into.at(path);
    }

    fn disarm(&self, table: &mut Table, wd: i32) {
        table.forget(wd);
        // One that is gone already is what we want.
        let _gone = inotify::remove_watch(&self.inotify, wd);
    }
}

impl Table {
    fn add_to_tree(&mut self, wd: i32, path: &[u8]) {
        let path: Arc<[u8]> = match self.tree.get_key_value(path) {
            Some((path, known)) if *known == wd => Arc::clone(path),
            _ => Arc::from(path),
        };
        let role = Role::Tree(Arc::clone(&path));
        let watch = Watch { role, round: self.round };
        if let Some(Watch { role: Role::Tree(before), .. }) = self.watches.insert(wd, watch)
            && before != path
            && self.tree.get(&before) == Some(&wd)
        {
            self.tree.remove(&before);
        }
        self.tree.insert(path, wd);
    }

    fn forget(&mut self, wd: i32) {
        if let Some(Watch { role: Role::Tree(path), .. }) = self.watches.remove(&wd)
            && self.tree.get(&path) == Some(&wd)
        {
            self.tree.remove(&path);
        }
    }

    fn at_and_below(&self, path: &[u8]) -> Vec<i32> {
        let front = [path, b"/"].concat();
        let at = self.tree.get(path).copied();
        let from: Bound<&[u8]> = Bound::Included(&front);
        let below = self.tree.range::<[u8], _>((from, Bound::Unbounded));
        let below = below.take_while(|(path, _)| path.starts_with(&front)).map(|(_, wd)| *wd);
        at.into_iter().chain(below).collect()
    }
}
