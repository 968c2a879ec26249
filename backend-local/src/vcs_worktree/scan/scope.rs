//! How much of a worktree is looked at: all of it, or some paths with what is below them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Which entries of a directory are looked at.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    /// All, and everything below them.
    All,
    /// These, and of what is below them that much.
    Names(Arc<Names>),
}

/// Names in a directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names(BTreeMap<Vec<u8>, Part>);

impl Part {
    /// Those with these paths, which are relative to the top, and everything below them. The empty path is the top.
    pub(crate) fn of<'a>(paths: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut top = Names::default();
        for path in paths {
            if path.is_empty() {
                return Self::All;
            }
            top.add(path);
        }
        Self::Names(Arc::new(top))
    }

    pub(crate) const fn is_all(&self) -> bool {
        matches!(self, Self::All)
    }

    /// Says whether an entry of this name is looked at.
    pub(super) fn has(&self, name: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::Names(names) => names.0.contains_key(name),
        }
    }

    /// How much of an entry is looked at that is looked at.
    pub(super) fn below(&self, name: &[u8]) -> Self {
        match self {
            Self::All => Self::All,
            Self::Names(names) => names.0.get(name).cloned().unwrap_or(Self::All),
        }
    }

    /// Says whether a path is looked at for itself, not only because it is on the way to others.
    pub(crate) fn covers(&self, path: &[u8]) -> bool {
        let mut part = self;
        for name in path.split(|byte| *byte == b'/') {
            match part {
                Self::All => return true,
                Self::Names(names) => match names.0.get(name) {
                    Some(below) => part = below,
                    None => return false,
                },
            }
        }
        part.is_all()
    }
}

impl Names {
    fn add(&mut self, path: &[u8]) {
        let cut = path.iter().position(|byte| *byte == b'/');
        let Some(cut) = cut else {
            self.0.insert(path.to_vec(), Part::All);
            return;
        };
        let below = self.0.entry(path[..cut].to_vec());
        let below = below.or_insert_with(|| Part::Names(Arc::default()));
        if let Part::Names(names) = below {
            Arc::make_mut(names).add(&path[cut + 1..]);
        }
    }
}

/// What is met on the way, by its path.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Entered<'a> {
    /// A directory, before it is read; not the top.
    Directory(&'a [u8]),
    /// What may be a repository inside, before that is known.
    Repository(&'a [u8]),
}

/// How much is looked at, and who wants to know which directories are.
pub(crate) struct Scope<'a> {
    pub(crate) part: Part,
    pub(crate) enters: Option<&'a (dyn Fn(Entered<'_>) + Sync)>,
}

impl fmt::Debug for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("part", &self.part).finish_non_exhaustive()
    }
}

impl Scope<'_> {
    pub(crate) const fn everything() -> Self {
        Self { part: Part::All, enters: None }
    }

    /// Says whether somebody wants to know which directories there are, whatever else can be told.
    pub(super) const fn is_followed(&self) -> bool {
        self.enters.is_some()
    }

    pub(super) fn enter(&self, entered: Entered<'_>) {
        if let Some(enters) = self.enters {
            enters(entered);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_what_was_named_and_what_is_below_it() {
        let part = Part::of([&b"a/b"[..], b"a/b/c", b"d", b"a/e/f"]);
        for (path, covered) in [
            ("a", false),
            ("a/b", true),
            ("a/b/c/d", true),
            ("a/bc", false),
            ("d/x", true),
            ("a/e", false),
            ("a/e/f", true),
            ("x", false),
        ] {
            assert_eq!(part.covers(path.as_bytes()), covered, "{path}");
        }
        assert!(part.has(b"a") && !part.has(b"x") && part.below(b"d").is_all());
        assert!(Part::of([&b"a"[..], b""]).is_all());
        assert!(!Part::of([]).covers(b"a"));
    }
}
