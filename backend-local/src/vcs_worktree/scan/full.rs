//! Sees every entry of a worktree and tells how it stands against a checkout of HEAD.

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr, OsString};
use std::io;
use std::ops::{ControlFlow, Range};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use gix::hash::Kind as HashKind;
use gix::index::entry::Flags;
use gix::objs::Kind as ObjectKind;

use super::copies::Copies;
use super::ignore::{self, Rules};
use super::index::{Group, Index, Known, groups};
use super::staged::{HeadItem, Objects};
use super::walk::{Directory, Item, Kind, Next, Unread, Visit};
use super::{Differing, Standing, content, nested};
use crate::vcs_worktree::copied::Copied;
use crate::vcs_worktree::tree::{Entry, Fixed, Listing, Stamp};

const GIT: &[u8] = b".git";
pub(super) const GITLINK: u32 = 0o160_000;
const LINK: u32 = 0o120_000;
const EXECUTABLE: u32 = 0o100_755;

/// Larger files that were copied in are taken for unchanged by their time alone.
const DIGEST_BYTES: u64 = 64 << 20;

/// What holds for the whole worktree.
pub(super) struct Full<'a> {
    pub(super) known: &'a [Known<'a>],
    /// The index as a checkout left it, and the place in it of what is known.
    pub(super) original: Option<(&'a Index, Vec<Option<usize>>)>,
    /// No file is converted when it is checked out.
    pub(super) plain: bool,
    pub(super) sparse: bool,
    /// The file system has executable bits and links.
    pub(super) file_mode: bool,
    pub(super) links: bool,
    pub(super) hash: HashKind,
    pub(super) objects: &'a Mutex<Objects>,
    /// What was copied in when the worktree was made.
    pub(super) copies: Copies,
    pub(super) seen: Mutex<Seen>,
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) directories: Vec<(Vec<u8>, Listing)>,
    /// Directories that were not looked into.
    pub(super) closed: Vec<(Vec<u8>, Entry)>,
    pub(super) differing: Vec<Differing>,
    pub(super) deleted: Vec<PathBuf>,
    pub(super) doubts: Vec<Doubt>,
    /// What nobody could delete.
    pub(super) fixed: Vec<(PathBuf, Fixed)>,
}

/// A file whose bytes may be what conversions make of HEAD's.
#[derive(Debug)]
pub(super) struct Doubt {
    pub(super) path: Vec<u8>,
    pub(super) stamp: Stamp,
    pub(super) head: HeadItem,
    /// Its bytes are HEAD's, unconverted.
    pub(super) raw: bool,
}

/// What is known of a directory before it is read.
#[derive(Clone, Debug)]
pub(super) struct Context {
    range: Range<usize>,
    rules: Rules,
    ignored: bool,
    nested: bool,
    /// Index or HEAD have a submodule here.
    gitlink: bool,
    /// The index has an entry with this path, whatever it is.
    indexed: bool,
}

impl Context {
    pub(super) const fn top(range: Range<usize>, rules: Rules) -> Self {
        Self { range, rules, ignored: false, nested: false, gitlink: false, indexed: false }
    }
}

impl Visit for Full<'_> {
    type Context = Context;

    fn directory(
        &self,
        directory: Directory,
        context: Context,
    ) -> io::Result<ControlFlow<(), Next<Context>>> {
        let mut context = context;
        let top = directory.path.is_empty();
        self.settle(&directory, &mut context)?;
        let prefix = if top { 0 } else { directory.path.len() + 1 };
        let groups = groups(self.known, context.range.clone(), prefix);
        let mut of =
            Of { full: self, directory: &directory, context: &context, groups, seen: Vec::new() };
        of.seen.resize(of.groups.len(), false);
        let mut found = Seen::default();
        let mut entries = BTreeMap::new();
        let mut next = Vec::new();
        for item in directory.items() {
            let name = OsString::from_vec(item.name.to_bytes().to_vec());
            match of.item(item, &mut found)? {
                Some(Met::Entry(entry)) => drop(entries.insert(name, entry)),
                Some(Met::Directory(context)) => next.push((item.name.to_owned(), context)),
                None => {}
            }
        }
        let missing = of.groups.iter().zip(&of.seen).filter(|(_, seen)| !**seen);
        for (group, _) in missing {
            self.missing(group.own.into_iter().chain(group.below.clone()), &mut found);
        }
        if directory.is_empty() && !top && !context.gitlink {
            let standing = match context.unknown() {
                // What the index has, or has something below, is not ignored, whatever the rules say.
                Standing::Ignored if context.indexed || self.is_tracked_below(&context) => {
                    Standing::Untracked
                }
                other => other,
            };
            found.differing.push(differing(&directory.path, standing));
        }
        found.fixed.extend(directory.fixed.map(|fixed| (path_buf(&directory.path), fixed)));
        let listing = Listing { stamp: directory.stamp, entries };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.directories.push((directory.path, listing));
        seen.differing.append(&mut found.differing);
        seen.deleted.append(&mut found.deleted);
        seen.doubts.append(&mut found.doubts);
        seen.fixed.append(&mut found.fixed);
        Ok(ControlFlow::Continue(next))
    }

    fn unread(&self, path: Vec<u8>, why: Unread, context: Context) -> ControlFlow<()> {
        let mut found = Seen::default();
        let entry = match why {
            Unread::Gone => {
                self.missing(context.range.clone(), &mut found);
                None
            }
            Unread::Mount => Some(Entry::Mount),
            Unread::Unreadable(stamp) => Some(Entry::Unreadable(stamp)),
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.deleted.append(&mut found.deleted);
        if let Some(entry) = entry {
            let heads = |known: &Known<'_>| known.head().is_some();
            let standing = if self.known[context.range.clone()].iter().any(heads) {
                Standing::Changed
            } else {
                context.unknown()
            };
            seen.differing.push(differing(&path, standing));
            seen.closed.push((path, entry));
        }
        ControlFlow::Continue(())
    }
}

impl Full<'_> {
    /// Finds out whether it is a repository, and adds its rules.
    fn settle(&self, directory: &Directory, context: &mut Context) -> io::Result<()> {
        if context.nested {
            return Ok(());
        }
        let top = directory.path.is_empty();
        if !top && directory.has(GIT) {
            let tracked =
                self.known[context.range.clone()].iter().any(|known| known.entry.is_some());
            if !tracked && nested::is_repository(directory.fd()?) {
                context.nested = true;
                return Ok(());
            }
        }
        if context.ignored {
            return Ok(());
        }
        let patterns = if directory.has(b".gitignore") {
            ignore::of(directory.fd()?)?
        } else {
            let path = directory.path_of(b".gitignore");
            hidden_patterns(&self.known[context.range.clone()], &path, self.objects)
        };
        if let Some(patterns) = patterns {
            context.rules.add(&patterns, if top { 0 } else { directory.path.len() + 1 });
        }
        Ok(())
    }

    fn is_tracked_below(&self, context: &Context) -> bool {
        self.known[context.range.clone()].iter().any(|known| known.entry.is_some())
    }

    /// Notes what HEAD has and is not there.
    fn missing(&self, known: impl Iterator<Item = usize>, found: &mut Seen) {
        for known in known.map(|at| &self.known[at]) {
            let hidden = self.sparse && known.has(Flags::SKIP_WORKTREE);
            if known.head().is_some() && !hidden {
                found.deleted.push(path_buf(known.path));
            }
        }
    }

    /// Compares a file or link with what HEAD has there. `None` if conversions decide.
    fn judge(&self, of: &Of<'_, '_>, item: &CStr, at: usize, met: (Kind, &Stamp)) -> Judged {
        let known = &self.known[at];
        let (kind, stamp) = met;
        let Some(head) = known.head() else { return Judged::Untracked };
        let link = kind == Kind::Link;
        let fits = match head.mode {
            GITLINK => false,
            LINK => link || (!self.links && kind == Kind::File),
            _ => kind == Kind::File,
        };
        // What is hidden by a sparse checkout and there all the same is not what a checkout gives.
        if !fits || (self.sparse && known.has(Flags::SKIP_WORKTREE)) {
            return Judged::Changed;
        }
        let proven = self.is_as_checked_out(at, head, stamp);
        let executable = stamp.mode & 0o100 != 0;
        if head.mode != LINK
            && executable != (head.mode == EXECUTABLE)
            && (self.file_mode || !proven)
        {
            return Judged::Changed;
        }
        if proven {
            return Judged::Same;
        }
        let Ok(fd) = of.directory.fd() else { return Judged::Changed };
        let bytes = if link {
            content::link(fd, item, self.hash)
        } else {
            content::file(fd, item, stamp, self.hash)
        };
        match bytes.map(|bytes| bytes == head.oid) {
            None => Judged::Changed,
            Some(raw) if link || self.plain => {
                if raw {
                    Judged::Same
                } else {
                    Judged::Changed
                }
            }
            Some(raw) => Judged::Doubt(head, raw),
        }
    }

    /// Says whether a file is exactly as a checkout of what HEAD has wrote it, by its time and number.
    fn is_as_checked_out(&self, at: usize, head: HeadItem, stamp: &Stamp) -> bool {
        // The index itself proves nothing: git may have taken a file for clean under attributes that HEAD does not have.
        let Some((original, places)) = &self.original else { return false };
        let entry = places[at].map(|place| original.state.entry(place));
        entry.is_some_and(|entry| {
            entry.id == head.oid
                && entry.mode.bits() == head.mode
                && original.is_unchanged(entry, stamp)
        })
    }
}

/// The patterns of a directory whose file of them is not checked out: git takes them from the index.
pub(super) fn hidden_patterns(
    known: &[Known<'_>],
    path: &[u8],
    objects: &Mutex<Objects>,
) -> Option<Vec<u8>> {
    let at = known.binary_search_by(|known| known.path.cmp(path)).ok()?;
    let entry = known[at].entry.filter(|entry| entry.flags.contains(Flags::SKIP_WORKTREE))?;
    let objects = objects.lock().unwrap_or_else(PoisonError::into_inner);
    objects.read(&entry.id, ObjectKind::Blob).ok()
}

impl Context {
    /// How something stands that HEAD does not have.
    const fn unknown(&self) -> Standing {
        if self.nested {
            Standing::Nested
        } else if self.ignored {
            Standing::Ignored
        } else {
            Standing::Untracked
        }
    }
}

/// How a file was found to be.
enum Judged {
    Same,
    Changed,
    Untracked,
    Doubt(HeadItem, bool),
}

/// What an entry is.
enum Met {
    Entry(Entry),
    Directory(Context),
}

/// One directory while it is seen.
struct Of<'a, 'b> {
    full: &'a Full<'b>,
    directory: &'a Directory,
    context: &'a Context,
    groups: Vec<Group<'a>>,
    /// Of each group, whether there is anything.
    seen: Vec<bool>,
}

impl Of<'_, '_> {
    fn item(&mut self, item: Item<'_>, found: &mut Seen) -> io::Result<Option<Met>> {
        let name = item.name.to_bytes();
        let group = self.groups.binary_search_by(|group| group.name.cmp(name)).ok();
        let mut kind = item.kind;
        let mut stamp = None;
        if kind != Kind::Dir {
            // Gone again: as if it had never been there.
            let Some((looked, fixed)) = self.directory.look_closely(item.name)? else {
                return Ok(None);
            };
            kind = super::walk::kind_of_mode(looked.mode);
            stamp = Some(looked);
            found.fixed.extend(fixed.map(|fixed| (path_buf(&self.directory.path_of(name)), fixed)));
        }
        if let Some(group) = group {
            self.seen[group] = true;
        }
        let path = self.directory.path_of(name);
        let (own, below) = match group.map(|group| &self.groups[group]) {
            Some(group) => (group.own, group.below.clone()),
            None => (None, 0..0),
        };
        let Some(stamp) = stamp.filter(|_| kind != Kind::Dir) else {
            return Ok(Some(Met::Directory(self.below(&path, own, below, found))));
        };
        self.full.missing(below, found);
        if let Some(standing) = self.standing(item, kind, &stamp, &path, own, found) {
            found.differing.push(differing(&path, standing));
        }
        let entry = if kind == Kind::Special { Entry::Special(stamp) } else { Entry::File(stamp) };
        Ok(Some(Met::Entry(entry)))
    }

    fn below(
        &self,
        path: &[u8],
        own: Option<usize>,
        below: Range<usize>,
        found: &mut Seen,
    ) -> Context {
        let known = own.map(|own| &self.full.known[own]);
        let link = |known: &Known<'_>| {
            known.is_gitlink() || known.head().is_some_and(|head| head.mode == GITLINK)
        };
        let gitlink = known.is_some_and(link);
        if !gitlink && known.is_some_and(|known| known.head().is_some()) {
            found.deleted.push(path_buf(path));
        }
        let nested = self.context.nested || gitlink || name_of(path) == GIT;
        let ignored = self.context.ignored || (!nested && self.context.rules.ignore(path, true));
        let indexed = known.is_some_and(|known| known.entry.is_some());
        let rules = self.context.rules.clone();
        Context { range: below, rules, ignored, nested, gitlink, indexed }
    }

    fn is_as_copied(&self, item: Item<'_>, path: &[u8], stamp: &Stamp) -> bool {
        let path = Path::new(OsStr::from_bytes(path));
        let Some(Copied { stamp: first, sha256 }) = self.full.copies.get(path) else {
            return false;
        };
        if (stamp.mode, stamp.size) != (first.mode, first.size) {
            return false;
        }
        // A change within one tick of the clock does not show in the time. Large files take longer to copy than that.
        let untouched =
            stamp.ino == first.ino && stamp.mtime == first.mtime && stamp.ctime == first.ctime;
        let unchanged = (untouched && stamp.size > DIGEST_BYTES)
            || self
                .directory
                .fd()
                .is_ok_and(|fd| content::has_digest(fd, item.name, stamp, sha256));
        unchanged && self.full.copies.are_where_they_came_from(path, stamp, sha256)
    }

    /// `None` if a checkout of HEAD gives it, or it cannot be told yet.
    fn standing(
        &self,
        item: Item<'_>,
        kind: Kind,
        stamp: &Stamp,
        path: &[u8],
        own: Option<usize>,
        found: &mut Seen,
    ) -> Option<Standing> {
        let git = name_of(path) == GIT;
        if git && self.directory.path.is_empty() {
            return None;
        }
        if git || self.context.nested {
            return Some(Standing::Nested);
        }
        let Some(own) = own else {
            if self.is_as_copied(item, path, stamp) {
                return Some(Standing::CopiedIn);
            }
            return Some(match self.context.unknown() {
                Standing::Untracked if self.context.rules.ignore(path, false) => Standing::Ignored,
                other => other,
            });
        };
        match self.full.judge(self, item.name, own, (kind, stamp)) {
            Judged::Same => None,
            Judged::Changed => Some(Standing::Changed),
            Judged::Untracked => Some(Standing::Untracked),
            Judged::Doubt(head, raw) => {
                found.doubts.push(Doubt { path: path.to_vec(), stamp: *stamp, head, raw });
                None
            }
        }
    }
}

fn name_of(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or(path)
}

pub(super) fn differing(path: &[u8], standing: Standing) -> Differing {
    Differing { path: path_buf(path), standing }
}

pub(super) fn path_buf(path: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(path.to_vec()))
}
