//! Reads what `git diff --raw --numstat -z` prints.

use std::collections::{BTreeMap, BTreeSet};

use windlass_core::locator::Locator;
use windlass_core::vcs_worktree::{ChangeKind, FileDiff};

use super::{GITLINK, Untracked};

/// What git printed, understood.
#[derive(Debug)]
pub(super) struct Parsed<'a> {
    pub(super) files: Vec<FileDiff>,
    pub(super) patch: &'a [u8],
    /// The counts could not be told.
    pub(super) uncounted: bool,
    /// The files as they come in the patch.
    order: Vec<(Vec<u8>, ChangeKind)>,
}

impl<'a> Parsed<'a> {
    /// Reads raw lines, then counts, then the patch, the latter two after an empty record.
    pub(super) fn read(output: &'a [u8]) -> Self {
        let mut records = Records { rest: output };
        let mut files = BTreeMap::new();
        let mut counts = BTreeMap::new();
        let mut order = Vec::new();
        while let Some(record) = records.next() {
            if let Some(raw) = record.strip_prefix(b":") {
                if let Some(file) = raw_line(raw, &mut records) {
                    order.push((file.path.as_bytes().to_vec(), file.change));
                    // An unmerged file comes twice; the second says what the worktree holds.
                    files.insert(file.path.as_bytes().to_vec(), file);
                }
            } else if record.is_empty() {
                break;
            } else if let Some((path, count)) = count_line(record, &mut records) {
                counts.insert(path.to_vec(), count);
            }
        }
        let mut uncounted = false;
        if counts.is_empty() && !files.is_empty() {
            match count_patch(&order, records.rest) {
                Some(counted) => counts = counted,
                None => uncounted = true,
            }
        }
        let with_counts = |(path, file): (Vec<u8>, FileDiff)| {
            let (added, removed) = counts.get(path.as_slice()).copied().unwrap_or_default();
            FileDiff { added, removed, ..file }
        };
        let files = files.into_iter().map(with_counts).collect();
        Self { files, patch: records.rest, uncounted, order }
    }

    /// Splits the patch into what it says of each file. `None` if it is not of exactly these files.
    pub(super) fn parts(&self) -> Option<BTreeMap<Vec<u8>, &'a [u8]>> {
        let mut begins = Vec::new();
        let mut at = 0;
        for line in self.patch.split_inclusive(|byte| *byte == b'\n') {
            // No line of a file begins so: each has a sign before it.
            if line.starts_with(b"diff --git ") {
                begins.push(at);
            }
            at += line.len();
        }
        let mut ends = begins.iter().skip(1).copied().chain([self.patch.len()]);
        let mut begins = begins.iter().copied();
        let mut parts = BTreeMap::new();
        for (path, change) in &self.order {
            let begin = begins.next()?;
            let mut end = ends.next()?;
            // What became another kind of entry is deleted and made.
            if *change == ChangeKind::TypeChanged {
                begins.next()?;
                end = ends.next()?;
            }
            parts.insert(path.clone(), &self.patch[begin..end]);
        }
        (begins.next().is_none() && parts.len() == self.order.len()).then_some(parts)
    }

    /// Marks what is not tracked, adds repositories that git could not compare, and puts all in path order.
    pub(super) fn name_untracked(files: Vec<FileDiff>, untracked: &Untracked) -> Vec<FileDiff> {
        let mut files = files;
        for file in &mut files {
            let path = file.path.as_bytes();
            file.untracked =
                untracked.files.contains(path) || untracked.repositories.contains(path);
        }
        // One in the place of a file is told as that being gone, of which the patch is: no path is named twice.
        let known: BTreeSet<Vec<u8>> =
            files.iter().map(|file| file.path.as_bytes().to_vec()).collect();
        let unborn = untracked.unborn.iter().filter(|path| !known.contains(*path));
        files.extend(unborn.map(|path| FileDiff {
            path: Locator::new(path.clone()),
            old_path: None,
            change: ChangeKind::Added,
            added: None,
            removed: None,
            mode: Some(GITLINK.to_owned()),
            untracked: true,
            too_large: false,
        }));
        files.sort_by(|one, other| one.path.cmp(&other.path));
        files
    }
}

/// Records that end with a zero byte.
struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.iter().position(|byte| *byte == 0)?;
        let (record, rest) = (&self.rest[..end], &self.rest[end + 1..]);
        self.rest = rest;
        Some(record)
    }
}

/// Reads `old-mode new-mode old-oid new-oid status`, followed by one or two paths.
fn raw_line(line: &[u8], records: &mut Records<'_>) -> Option<FileDiff> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split(' ');
    let (_, mode, _, _) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let status = words.next()?;
    let first = records.next()?;
    let (change, moved) = match status.as_bytes().first()? {
        b'A' => (ChangeKind::Added, false),
        b'D' => (ChangeKind::Deleted, false),
        b'R' => (ChangeKind::Renamed, true),
        b'C' => (ChangeKind::Copied, true),
        b'T' => (ChangeKind::TypeChanged, false),
        _ => (ChangeKind::Modified, false),
    };
    let (old, path) = if moved { (Some(first), records.next()?) } else { (None, first) };
    Some(FileDiff {
        path: Locator::new(path),
        old_path: old.map(Locator::new),
        change,
        added: None,
        removed: None,
        mode: (change != ChangeKind::Deleted).then(|| mode.to_owned()),
        untracked: false,
        too_large: false,
    })
}

type Count = (Option<u64>, Option<u64>);

/// Counts lines in a patch of files in this order. `None` if it is not of exactly these, or does not say of each whether
/// it is binary: one whose content is the same has no lines in it.
fn count_patch(order: &[(Vec<u8>, ChangeKind)], patch: &[u8]) -> Option<BTreeMap<Vec<u8>, Count>> {
    let mut sections: Vec<Count> = Vec::new();
    let (mut in_hunk, mut told) = (false, true);
    for line in patch.split(|byte| *byte == b'\n') {
        // No line of a file begins so: each has a sign before it.
        if line.starts_with(b"diff --git ") {
            if !told {
                return None;
            }
            sections.push((Some(0), Some(0)));
            (in_hunk, told) = (false, false);
            continue;
        }
        let (added, removed) = sections.last_mut()?;
        match line {
            b"GIT binary patch" if !in_hunk => {
                (*added, *removed) = (None, None);
                told = true;
            }
            [b'@', b'@', b' ', ..] => (in_hunk, told) = (true, true),
            [b'+', ..] if in_hunk => *added = added.map(|added| added + 1),
            [b'-', ..] if in_hunk => *removed = removed.map(|removed| removed + 1),
            _ => {}
        }
    }
    if !told {
        return None;
    }
    let mut sections = sections.into_iter();
    let mut counts = BTreeMap::new();
    for (path, change) in order {
        let mut count: Count = sections.next()?;
        // What became another kind of entry is deleted and made.
        if *change == ChangeKind::TypeChanged {
            let other = sections.next()?;
            let sum = |one: Option<u64>, other: Option<u64>| Some(one? + other?);
            count = (sum(count.0, other.0), sum(count.1, other.1));
        }
        counts.insert(path.clone(), count);
    }
    sections.next().is_none().then_some(counts)
}

/// Reads `added TAB removed TAB path`, or without a path but followed by the old and the new one.
fn count_line<'a>(line: &'a [u8], records: &mut Records<'a>) -> Option<(&'a [u8], Count)> {
    let mut words = line.splitn(3, |byte| *byte == b'\t');
    let mut number = || -> Option<Option<u64>> {
        let text = std::str::from_utf8(words.next()?).ok()?;
        Some(text.parse().ok())
    };
    let count = (number()?, number()?);
    match words.next()? {
        b"" => {
            records.next()?;
            Some((records.next()?, count))
        }
        path => Some((path, count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_anything_in_them_are_read() {
        let output = b":100644 100755 11 22 M\0a\nb\0:100644 100644 11 11 R100\0old\0\xff\0\
            :100644 000000 11 00 D\0gone\0\
            1\t2\ta\nb\0-\t-\t\0old\0\xff\x000\t1\tgone\0\0diff --git a/x\0b\n";
        let parsed = Parsed::read(output);
        assert_eq!(parsed.patch, b"diff --git a/x\0b\n");
        let seen: Vec<_> = parsed
            .files
            .iter()
            .map(|file| {
                (file.path.as_bytes(), file.change, file.added, file.removed, file.mode.as_deref())
            })
            .collect();
        assert_eq!(
            seen,
            [
                (&b"a\nb"[..], ChangeKind::Modified, Some(1), Some(2), Some("100755")),
                (b"gone", ChangeKind::Deleted, Some(0), Some(1), None),
                (b"\xff", ChangeKind::Renamed, None, None, Some("100644")),
            ]
        );
        assert_eq!(parsed.files[2].old_path, Some(Locator::new(*b"old")));
        assert!(Parsed::read(b"").files.is_empty());
    }

    #[test]
    fn lines_are_counted_in_the_patch_where_it_tells() {
        let raw =
            b":100644 100644 11 22 M\0a\0:100644 120000 11 22 T\0t\0:100644 100644 11 22 M\0z\0\0";
        let a = "diff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -1 +1,2 @@\n--- a\n+++ b\n+diff --git\n";
        let t =
            "diff --git a/t b/t\n@@ -1 +0,0 @@\n-x\ndiff --git a/t b/t\n@@ -0,0 +1 @@\n+y\n\\ No\n";
        let z = "diff --git a/z b/z\nGIT binary patch\nliteral 1\nIcmZ\n\n";
        let read = |patch: String| {
            let output = [raw.to_vec(), patch.into_bytes()].concat();
            let parsed = Parsed::read(&output);
            let counts = |file: &FileDiff| (file.added, file.removed);
            let parts =
                parsed.parts().map(|parts| parts.into_values().collect::<Vec<_>>().concat());
            assert!(parts.is_none_or(|parts| parts == parsed.patch));
            (!parsed.uncounted).then(|| parsed.files.iter().map(counts).collect::<Vec<_>>())
        };
        let counted = [(Some(2), Some(1)), (Some(1), Some(1)), (None, None)];
        assert_eq!(read(format!("{a}{t}{z}")), Some(counted.to_vec()));
        let output = [raw.to_vec(), format!("{a}{t}{z}").into_bytes()].concat();
        let parts = Parsed::read(&output).parts().unwrap();
        let expected = [("a", a), ("t", t), ("z", z)];
        let expected = expected.map(|(path, part)| (path.as_bytes().to_vec(), part.as_bytes()));
        assert_eq!(parts, BTreeMap::from(expected));
        let output = [raw.to_vec(), format!("{a}{z}").into_bytes()].concat();
        assert_eq!(Parsed::read(&output).parts(), None);
        // A section too few, one too many, and one that does not tell.
        assert_eq!(read(format!("{a}{z}")), None);
        assert_eq!(read(format!("{a}{t}{z}{z}")), None);
        assert_eq!(read(format!("{a}{t}diff --git a/z b/z\nold mode 100644\n")), None);
    }
}
