//! What differs between trees of files.

use std::collections::BTreeSet;

use windlass_core::locator::Locator;
use windlass_core::vcs_worktree::{ChangeKind, FileDiff};

use super::history::{File, Files};

/// Says whether a file that is not tracked is ignored: by a line of the top `.gitignore` that is its name.
pub(super) fn ignored(files: &Files, path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    files.get(".gitignore").is_some_and(|list| {
        list.content.split(|byte| *byte == b'\n').any(|line| line == name.as_bytes())
    })
}

/// The files that git sees: the tracked ones, and the others unless they are ignored.
fn seen(index: &Files, files: &Files) -> Files {
    let sees = |path: &str| index.contains_key(path) || !ignored(files, path);
    let visible = files.iter().filter(|(path, _)| sees(path));
    visible.map(|(path, file)| (path.clone(), file.clone())).collect()
}

/// Says whether nothing differs from what is committed, in the index or in the files, ignored ones aside.
pub(super) fn same(committed: &Files, index: &Files, files: &Files) -> bool {
    index == committed && seen(index, files) == *committed
}

/// The files that a commit of everything would hold.
pub(super) fn all(index: &Files, files: &Files) -> Files {
    seen(index, files)
}

/// Names everything that differs, ignored files included.
pub(super) fn differing(committed: &Files, files: &Files) -> Vec<String> {
    let paths: BTreeSet<_> = committed.keys().chain(files.keys()).collect();
    paths.into_iter().filter(|path| committed.get(*path) != files.get(*path)).cloned().collect()
}

/// Says whether a file is meant by one of these globs: by its name, or by its path where the glob has a slash.
pub(super) fn globbed(globs: &[String], path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    globs.iter().any(|glob| match glob.contains('/') {
        true => wild(glob.trim_start_matches('/'), path),
        false => wild(glob, name),
    })
}

/// Matches a text with a pattern in which `*` stands for anything.
fn wild(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|tail| {
            let ends = tail.char_indices().map(|(at, _)| at).chain([tail.len()]);
            ends.rev().any(|at| wild(rest, &tail[at..]))
        }),
    }
}

/// Lists the changes from `old` to what is there, in path order.
pub(super) fn files(old: &Files, index: &Files, files: &Files) -> Vec<FileDiff> {
    let new = seen(index, files);
    let mut gone: Vec<_> = old.keys().filter(|path| !new.contains_key(*path)).collect();
    let mut changes = Vec::new();
    for (path, file) in &new {
        let mut change = FileDiff {
            path: Locator::new(path.as_bytes()),
            old_path: None,
            change: ChangeKind::Modified,
            added: Some(0),
            removed: Some(0),
            mode: Some(if file.executable { "100755" } else { "100644" }.to_owned()),
            untracked: !index.contains_key(path),
            too_large: false,
        };
        if let Some(before) = old.get(path) {
            if before == file {
                continue;
            }
            (change.added, change.removed) = counts(Some(before), Some(file));
        } else if let Some(from) = gone.iter().position(|from| old[*from].content == file.content) {
            change.change = ChangeKind::Renamed;
            change.old_path = Some(Locator::new(gone.remove(from).as_bytes()));
        } else {
            change.change = ChangeKind::Added;
            (change.added, change.removed) = counts(None, Some(file));
        }
        changes.push(change);
    }
    changes.extend(gone.into_iter().map(|path| {
        let (added, removed) = counts(old.get(path), None);
        FileDiff {
            path: Locator::new(path.as_bytes()),
            old_path: None,
            change: ChangeKind::Deleted,
            added,
            removed,
            mode: None,
            untracked: false,
            too_large: false,
        }
    }));
    changes.sort_by(|one, other| one.path.cmp(&other.path));
    changes
}

fn lines(file: Option<&File>) -> Vec<&[u8]> {
    let content = file.map(|file| file.content.as_slice()).unwrap_or_default();
    content.split_inclusive(|byte| *byte == b'\n').collect()
}

/// Counts lines added and removed; none for binary content.
fn counts(old: Option<&File>, new: Option<&File>) -> (Option<u64>, Option<u64>) {
    let binary = |file: Option<&File>| file.is_some_and(|file| file.content.contains(&0));
    if binary(old) || binary(new) {
        return (None, None);
    }
    let (old, new) = (lines(old), lines(new));
    let common = longest_common(&old, &new);
    let count = |lines: &[&[u8]]| u64::try_from(lines.len() - common).ok();
    (count(&new), count(&old))
}

/// The length of the longest common subsequence.
fn longest_common(old: &[&[u8]], new: &[&[u8]]) -> usize {
    let mut row = vec![0; new.len() + 1];
    for line in old {
        let mut diagonal = 0;
        for (column, other) in new.iter().enumerate() {
            let above = row[column + 1];
            row[column + 1] = if line == other { diagonal + 1 } else { above.max(row[column]) };
            diagonal = above;
        }
    }
    row[new.len()]
}

/// Writes the changes as a patch in which every changed file is one hunk, renamed ones a deletion and an addition.
pub(super) fn patch(old: &Files, index: &Files, files: &Files) -> Vec<u8> {
    let new = seen(index, files);
    let paths: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let mut patch = Vec::new();
    for path in paths {
        let (before, after) = (old.get(path), new.get(path));
        if before == after {
            continue;
        }
        let mut say = |text: String| patch.extend_from_slice(text.as_bytes());
        say(format!("diff --git a/{path} b/{path}\n"));
        let mode = |file: &File| if file.executable { 100_755 } else { 100_644 };
        match (before, after) {
            (None, Some(after)) => say(format!("new file mode {}\n", mode(after))),
            (Some(before), None) => say(format!("deleted file mode {}\n", mode(before))),
            (Some(before), Some(after)) if mode(before) != mode(after) => {
                say(format!("old mode {}\nnew mode {}\n", mode(before), mode(after)));
            }
            _ => {}
        }
        let (removed, added) = (lines(before), lines(after));
        if removed == added {
            continue;
        }
        let side = |letter: char, file: Option<&File>| match file {
            None => "/dev/null".to_owned(),
            Some(_) => format!("{letter}/{path}"),
        };
        let range = |lines: &[&[u8]]| format!("{},{}", usize::from(!lines.is_empty()), lines.len());
        say(format!("--- {}\n+++ {}\n", side('a', before), side('b', after)));
        say(format!("@@ -{} +{} @@\n", range(&removed), range(&added)));
        for (sign, lines) in [(b'-', removed), (b'+', added)] {
            for line in lines {
                patch.push(sign);
                patch.extend_from_slice(line);
                if !line.ends_with(b"\n") {
                    patch.extend_from_slice(b"\n\\ No newline at end of file\n");
                }
            }
        }
    }
    patch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_as_a_shortest_edit_has_them() {
        let file = |text: &str| File { content: text.as_bytes().to_vec(), executable: false };
        for (old, new, expected) in [
            ("1\n2\n3\n", "1\n3\n4\n5\n", (Some(2), Some(1))),
            ("", "a\nb", (Some(2), Some(0))),
            ("a\nb\n", "b\na\n", (Some(1), Some(1))),
            ("a\0", "b", (None, None)),
        ] {
            assert_eq!(counts(Some(&file(old)), Some(&file(new))), expected, "{old:?} {new:?}");
        }
    }

    #[test]
    fn globs_without_a_slash_are_about_names() {
        let globs = |text: &str| vec![text.to_owned()];
        for (glob, path, expected) in [
            (".env*", ".env", true),
            (".env*", "sub/.env.local", true),
            (".env*", "env", false),
            ("sub/*.key", "sub/a.key", true),
            ("sub/*.key", "a.key", false),
            ("*a*a", "baba", true),
        ] {
            assert_eq!(globbed(&globs(glob), path), expected, "{glob} {path}");
        }
    }
}
