//! What happened since the last look, as far as it decides where to look next.

use std::collections::BTreeSet;

/// More paths than this are looked at by looking at everything.
const MOST_PATHS: usize = 8_192;

/// What happened.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Something happened there, or below.
    paths: BTreeSet<Vec<u8>>,
    /// It may have happened anywhere.
    everywhere: bool,
    /// The system could not tell everything.
    missed: bool,
    /// Where the worktree stands may have changed.
    moved: bool,
    /// How much was added, for whoever waits until it becomes quiet.
    count: usize,
}

impl Pending {
    /// Notes that something happened at a path, which is relative to the top; the empty one is the top.
    pub(super) fn at(&mut self, path: Vec<u8>) {
        self.count += 1;
        if self.everywhere {
            return;
        }
        if path.is_empty() || self.paths.len() >= MOST_PATHS {
            return self.everywhere();
        }
        self.paths.insert(path);
    }

    /// Notes that something happened that may have changed anything.
    pub(super) fn everywhere(&mut self) {
        self.count += 1;
        self.everywhere = true;
        self.paths.clear();
    }

    /// Notes that the system could not tell everything.
    pub(super) fn missed(&mut self) {
        self.missed = true;
        self.everywhere();
    }

    /// Notes that HEAD or a branch may be another one.
    pub(super) fn moved(&mut self) {
        self.count += 1;
        self.moved = true;
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.everywhere && !self.moved && self.paths.is_empty()
    }

    /// How much happened.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The paths; `None` if everything is to be looked at.
    pub(super) fn paths(&self) -> Option<&BTreeSet<Vec<u8>>> {
        (!self.everywhere).then_some(&self.paths)
    }

    /// Says whether HEAD or a branch may be another one.
    pub(super) const fn has_moved(&self) -> bool {
        self.moved
    }

    /// Says whether something was missed.
    pub(super) const fn has_missed(&self) -> bool {
        self.missed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_paths_are_everywhere_and_what_was_missed_stays_so() {
        let mut pending = Pending::default();
        assert!(pending.is_empty());
        pending.at(b"a".to_vec());
        pending.at(b"a".to_vec());
        assert_eq!((pending.count(), pending.paths().map(BTreeSet::len)), (2, Some(1)));
        for number in 0..MOST_PATHS {
            pending.at(number.to_string().into_bytes());
        }
        assert!(pending.paths().is_none() && !pending.has_missed() && !pending.is_empty());
        pending.missed();
        pending.at(b"b".to_vec());
        assert!(pending.has_missed() && pending.paths().is_none());
        let mut pending = Pending::default();
        pending.moved();
        assert!(!pending.is_empty() && pending.paths().is_some_and(BTreeSet::is_empty));
        pending.at(Vec::new());
        assert!(pending.paths().is_none());
    }
}
