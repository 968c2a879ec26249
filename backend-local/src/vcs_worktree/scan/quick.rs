//! Sees what git would show as changed or untracked, and nothing more: what is ignored is not looked into.

use std::io;
use std::ops::{ControlFlow, Range};
use std::sync::{Mutex, PoisonError};

use gix::hash::Kind as HashKind;
use gix::index::entry::{Flags, Mode};

use super::full::hidden_patterns;
use super::ignore::{self, Rules};
use super::index::{Group, Index, Known, groups};
use super::scope::{Entered, Part, Scope};
use super::staged::Objects;
use super::walk::{Directory, Item, Kind, Next, Unread, Visit, kind_of_mode};
use super::{content, nested};
use crate::vcs_worktree::tree::Stamp;

/// What holds for the whole worktree.
pub(super) struct Quick<'a> {
    pub(super) known: &'a [Known<'a>],
    pub(super) index: &'a Index,
    /// No file is converted: its bytes alone tell whether it changed.
    pub(super) plain: bool,
    pub(super) sparse: bool,
    pub(super) file_mode: bool,
    pub(super) links: bool,
    pub(super) hash: HashKind,
    pub(super) objects: &'a Mutex<Objects>,
    /// The first difference is enough.
    pub(super) any: bool,
    pub(super) scope: &'a Scope<'a>,
    pub(super) seen: Mutex<Changes>,
}

/// What git would show, by path.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Tracked and not what the index says.
    pub(crate) changed: Vec<Vec<u8>>,
    /// Tracked; its content decides, after conversions.
    pub(crate) unsure: Vec<Vec<u8>>,
    /// Submodules that are there; their own state decides.
    pub(crate) submodules: Vec<Vec<u8>>,
    /// Files and links that are not tracked.
    pub(crate) untracked: Vec<Vec<u8>>,
    /// Repositories that are not tracked.
    pub(crate) repositories: Vec<Vec<u8>>,
    /// Files that are not tracked because they are ignored, where a part of the worktree is looked at.
    pub(crate) ignored: Vec<Vec<u8>>,
    /// There is a file of attributes that the index does not have.
    pub(crate) attributes: bool,
}

impl Changes {
    /// Says whether something differs whatever contents are.
    pub(crate) fn is_certain(&self) -> bool {
        !(self.changed.is_empty() && self.untracked.is_empty() && self.repositories.is_empty())
    }

    /// Every path that git may show.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &[u8]> {
        let tracked = self.changed.iter().chain(&self.unsure).chain(&self.submodules);
        tracked.chain(&self.untracked).chain(&self.repositories).map(Vec::as_slice)
    }

    fn append(&mut self, other: &mut Self) {
        self.changed.append(&mut other.changed);
        self.unsure.append(&mut other.unsure);
        self.submodules.append(&mut other.submodules);
        self.untracked.append(&mut other.untracked);
        self.repositories.append(&mut other.repositories);
        self.ignored.append(&mut other.ignored);
        self.attributes |= other.attributes;
    }
}

/// What is known of a directory before it is read.
#[derive(Clone, Debug)]
pub(super) struct Context {
    range: Range<usize>,
    rules: Rules,
    part: Part,
    ignored: bool,
    gitlink: bool,
}

impl Context {
    pub(super) const fn top(range: Range<usize>, rules: Rules, part: Part) -> Self {
        Self { range, rules, part, ignored: false, gitlink: false }
    }
}

impl Visit for Quick<'_> {
    type Context = Context;

    fn directory(
        &self,
        directory: Directory,
        context: Context,
    ) -> io::Result<ControlFlow<(), Next<Context>>> {
        let mut found = Changes::default();
        let next = self.entries(&directory, context, &mut found)?;
        Ok(match self.note(found) {
            ControlFlow::Continue(()) => ControlFlow::Continue(next),
            ControlFlow::Break(()) => ControlFlow::Break(()),
        })
    }

    fn unread(&self, _: Vec<u8>, why: Unread, context: Context) -> ControlFlow<()> {
        let mut found = Changes::default();
        match why {
            // Git looks at what is mounted; what it cannot read is not there for it.
            Unread::Mount | Unread::Gone | Unread::Unreadable(_) => {
                self.missing(context.range, &mut found);
            }
        }
        self.note(found)
    }
}

impl Quick<'_> {
    fn note(&self, found: Changes) -> ControlFlow<()> {
        let mut found = found;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.append(&mut found);
        if self.any && seen.is_certain() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn entries(
        &self,
        directory: &Directory,
        context: Context,
        found: &mut Changes,
    ) -> io::Result<Next<Context>> {
        let mut context = context;
        let top = directory.path.is_empty();
        let known = &self.known[context.range.clone()];
        if !top && directory.has(b".git") {
            // One that is only being made is one soon.
            self.scope.enter(Entered::Repository(&directory.path));
            let tracked = known.iter().any(|known| known.entry.is_some());
            if (context.gitlink || !tracked) && nested::is_repository(directory.fd()?) {
                let list =
                    if context.gitlink { &mut found.submodules } else { &mut found.repositories };
                list.push(directory.path.clone());
                return Ok(Vec::new());
            }
        }
        if context.gitlink {
            return Ok(Vec::new());
        }
        if !context.ignored {
            let patterns = if directory.has(b".gitignore") {
                ignore::of(directory.fd()?)?
            } else {
                hidden_patterns(known, &directory.path_of(b".gitignore"), self.objects)
            };
            if let Some(patterns) = patterns {
                context.rules.add(&patterns, if top { 0 } else { directory.path.len() + 1 });
            }
        }
        let prefix = if top { 0 } else { directory.path.len() + 1 };
        let groups = groups(self.known, context.range.clone(), prefix);
        let mut seen = vec![false; groups.len()];
        let mut next = Vec::new();
        for item in directory.items() {
            let name = item.name.to_bytes();
            if !context.part.has(name) {
                continue;
            }
            let at = groups.binary_search_by(|group| group.name.cmp(name)).ok();
            let met = self.item(directory, &context, item, at.map(|at| &groups[at]), found)?;
            if let (Some(at), true) = (at, met.is_some()) {
                seen[at] = true;
            }
            if let Some(Some(below)) = met {
                next.push((item.name.to_owned(), below));
            }
        }
        for (group, _) in groups.iter().zip(seen).filter(|(_, seen)| !seen) {
            if !context.part.has(group.name) {
                continue;
            }
            self.missing(group.own.into_iter().chain(group.below.clone()), found);
        }
        Ok(next)
    }

    /// `None` if it is gone; where to go on, if it is a directory.
    fn item(
        &self,
        directory: &Directory,
        context: &Context,
        item: Item<'_>,
        group: Option<&Group<'_>>,
        found: &mut Changes,
    ) -> io::Result<Option<Option<Context>>> {
        let own = group.and_then(|group| group.own).map(|own| &self.known[own]);
        let own = own.filter(|known| known.entry.is_some());
        let below = group.map_or(0..0, |group| group.below.clone());
        let name = item.name.to_bytes();
        if name == b".git" {
            return Ok(Some(None));
        }
        if item.kind == Kind::Dir {
            let path = directory.path_of(name);
            let gitlink = own.is_some_and(Known::is_gitlink);
            if let Some(known) = own.filter(|_| !gitlink) {
                self.absent(known, found);
            }
            let ignored = context.ignored || context.rules.ignore(&path, true);
            let tracked = || self.known[below.clone()].iter().any(|known| known.entry.is_some());
            if ignored && !gitlink && !tracked() {
                return Ok(Some(None));
            }
            let rules = context.rules.clone();
            let part = context.part.below(name);
            self.scope.enter(Entered::Directory(&path));
            return Ok(Some(Some(Context { range: below, rules, part, ignored, gitlink })));
        }
        self.missing(below, found);
        let Some(known) = own else {
            found.attributes |= name == b".gitattributes";
            let shown = matches!(item.kind, Kind::File | Kind::Link);
            let path = directory.path_of(name);
            if shown && !context.ignored && !context.rules.ignore(&path, false) {
                found.untracked.push(path);
            } else if shown && !context.part.is_all() {
                found.ignored.push(path);
            }
            return Ok(Some(None));
        };
        let Some(stamp) = directory.look(item.name)? else { return Ok(None) };
        self.compare(directory, item, known, &stamp, found);
        Ok(Some(None))
    }

    fn compare(
        &self,
        directory: &Directory,
        item: Item<'_>,
        known: &Known<'_>,
        stamp: &Stamp,
        found: &mut Changes,
    ) {
        let Some(entry) = known.entry else { return };
        if known.unmerged {
            return found.changed.push(known.path.to_vec());
        }
        let hidden = known.has(Flags::SKIP_WORKTREE) && !self.sparse;
        if hidden || known.has(Flags::ASSUME_VALID) {
            return;
        }
        let kind = kind_of_mode(stamp.mode);
        let fits = match entry.mode {
            Mode::SYMLINK => kind == Kind::Link || (!self.links && kind == Kind::File),
            Mode::FILE | Mode::FILE_EXECUTABLE => kind == Kind::File,
            _ => false,
        };
        let executable = stamp.mode & 0o100 != 0;
        let same_mode = !self.file_mode
            || entry.mode == Mode::SYMLINK
            || executable == (entry.mode == Mode::FILE_EXECUTABLE);
        if !fits || !same_mode || known.has(Flags::INTENT_TO_ADD) {
            return found.changed.push(known.path.to_vec());
        }
        if self.index.is_unchanged(entry, stamp) {
            return;
        }
        if !self.plain || !self.any {
            return found.unsure.push(known.path.to_vec());
        }
        let bytes = directory.fd().ok().and_then(|fd| {
            if kind == Kind::Link {
                content::link(fd, item.name, self.hash)
            } else {
                content::file(fd, item.name, stamp, self.hash)
            }
        });
        match bytes {
            Some(bytes) if bytes == entry.id => {}
            Some(_) => found.changed.push(known.path.to_vec()),
            None => found.unsure.push(known.path.to_vec()),
        }
    }

    fn missing(&self, known: impl Iterator<Item = usize>, found: &mut Changes) {
        for known in known.map(|at| &self.known[at]).filter(|known| known.entry.is_some()) {
            self.absent(known, found);
        }
    }

    fn absent(&self, known: &Known<'_>, found: &mut Changes) {
        let hidden = known.has(Flags::SKIP_WORKTREE) || known.has(Flags::ASSUME_VALID);
        if known.unmerged || !hidden {
            found.changed.push(known.path.to_vec());
        }
    }
}
