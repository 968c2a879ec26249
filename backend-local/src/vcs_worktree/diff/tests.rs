//! The narrow comparison against the one of everything, and what only large files show.

use std::fs;

use proptest::prelude::*;
use windlass_core::vcs_worktree::{ChangeKind, DIFF_FILE_BYTES, FileDiff};
use windlass_core::workspace::Oid;

use super::*;
use crate::vcs_worktree::scan::tests::place::Place;
use crate::vcs_worktree::scan::tests::random::{Step, step, take};

/// What comes out one way or the other.
fn outcome(place: &Place, base: &Oid, narrow: bool) -> Option<(Vec<FileDiff>, Vec<u8>)> {
    let (inner, found, cancel) = (&place.inner, place.found(), Cancel::never());
    let scratch = inner.scratch.dir().unwrap();
    let comparison = if narrow {
        Comparison::Narrow(Box::new(
            inner.narrow(&cancel, &found, base, &Scope::everything()).unwrap()?,
        ))
    } else {
        let (sides, untracked) = inner.whole(&cancel, &found, base, &scratch).unwrap();
        Comparison::Whole(sides, untracked)
    };
    let (files, patch) = inner.compare(&cancel, &found, &scratch, &comparison, true).unwrap();
    let patch = match patch {
        Some(patch) => patch,
        None => inner.patch_without(&cancel, &found, &scratch, &comparison, &[]).unwrap(),
    };
    Some((files, patch))
}

fn head(place: &Place) -> Oid {
    place.found().verified.head
}

/// Says whether both ways must agree to the letter. Git's own way has another answer where paths are unmerged, and pairs
/// what counts as gone with what is new, of which only one is seen here.
fn is_comparable(place: &Place, base: &Oid) -> bool {
    let unmerged = place.git(&place.at, &["ls-files", "--unmerged"]);
    let narrowed =
        place.inner.narrow(&Cancel::never(), &place.found(), base, &Scope::everything()).unwrap();
    unmerged.is_empty() && narrowed.is_some_and(|(narrowed, _)| narrowed.absent.is_empty())
}

fn run(seed: &[Step], work: &[Step], dirt: &[Step]) {
    let place = Place::new(&[]);
    fs::write(place.repo.join("base"), "base\n").unwrap();
    for step in seed {
        take(&place, &place.repo, step);
    }
    drop(place.command(&place.repo).args(["add", "--all", "--ignore-errors"]).output().unwrap());
    place.git(&place.repo, &["commit", "-q", "--allow-empty", "-m", "m"]);
    place.worktree();
    let base = head(&place);
    for step in work {
        take(&place, &place.at, step);
    }
    drop(place.command(&place.at).args(["add", "--all", "--ignore-errors"]).output().unwrap());
    place.tries(&place.at, &["commit", "-q", "-m", "work"]);
    for step in dirt {
        take(&place, &place.at, step);
    }
    let Some((files, patch)) = outcome(&place, &base, true) else { return };
    let (all, whole) = outcome(&place, &base, false).unwrap();
    if is_comparable(&place, &base) {
        assert_eq!(counted(files), counted(all));
        assert_eq!(lines(&patch), lines(&whole));
    }
}

/// Of a binary file that only moved git says 0 lines where it knows both objects, and nothing where it reads one.
fn counted(mut files: Vec<FileDiff>) -> Vec<FileDiff> {
    for file in &mut files {
        let only_moved = matches!(file.change, ChangeKind::Renamed | ChangeKind::Copied)
            && (file.added, file.removed) == (Some(0), Some(0));
        if only_moved {
            (file.added, file.removed) = (None, None);
        }
    }
    files
}

/// A patch without the names of objects: git names what it read from the index, not what lies in the worktree.
fn lines(patch: &[u8]) -> Vec<String> {
    let lines = patch.split(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"index "));
    lines.map(|line| line.escape_ascii().to_string()).collect()
}

/// What git's own comparison can wait for, or cannot be told apart, is left out.
fn comparable() -> impl Strategy<Value = Step> {
    step().prop_filter("compared elsewhere", |step| {
        !matches!(
            step,
            Step::Pipe(_)
                | Step::JunkGit(_)
                | Step::Hide(..)
                | Step::Nested(..)
                | Step::Attributes(..)
                | Step::IntendToAdd(_)
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    })]

    #[test]
    fn comparing_what_may_differ_gives_what_comparing_everything_gives(
        seed in prop::collection::vec(comparable(), 0..12),
        work in prop::collection::vec(comparable(), 0..8),
        dirt in prop::collection::vec(comparable(), 0..12),
    ) {
        run(&seed, &work, &dirt);
    }
}

#[test]
fn what_is_ignored_since_or_no_file_any_more_is_deleted() {
    let place = Place::new(&[]);
    for file in ["kept", "ignored", "pipe"] {
        fs::write(place.repo.join(file), "1\n2\n").unwrap();
    }
    place.commit(&place.repo);
    place.worktree();
    let base = head(&place);
    place.git(&place.at, &["rm", "-q", "--cached", "ignored"]);
    place.write(".gitignore", "ignored\n");
    fs::remove_file(place.at.join("pipe")).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    let pipe = place.at.join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let (files, patch) = outcome(&place, &base, true).unwrap();
    let seen: Vec<_> =
        files.iter().map(|file| (file.path.to_string(), file.change, file.removed)).collect();
    assert_eq!(
        seen,
        [
            (".gitignore".to_owned(), ChangeKind::Added, Some(0)),
            ("ignored".to_owned(), ChangeKind::Deleted, Some(2)),
            ("pipe".to_owned(), ChangeKind::Deleted, Some(2)),
        ]
    );
    let patch = String::from_utf8(patch).unwrap();
    assert!(
        patch.contains("deleted file mode 100644\n") && patch.contains("--- a/pipe\n"),
        "{patch}"
    );
}

#[test]
fn large_files_are_counted_and_named_but_not_in_the_patch() {
    let place = Place::new(&[]);
    let line = "0123456789abcdef\n";
    let large = line.repeat(usize::try_from(DIFF_FILE_BYTES).unwrap() / line.len() + 1);
    fs::write(place.repo.join("shrinks"), &large).unwrap();
    fs::write(place.repo.join("small"), "1\n").unwrap();
    place.commit(&place.repo);
    place.worktree();
    let base = head(&place);
    place.write("shrinks", "1\n");
    place.write("small", "2\n");
    place.write("grown \u{fc}", &large);
    let huge = fs::File::create(place.at.join("huge")).unwrap();
    huge.set_len(17 << 20).unwrap();
    let (inner, found, cancel) = (&place.inner, place.found(), Cancel::never());
    let scratch = inner.scratch.dir().unwrap();
    for narrow in [true, false] {
        let comparison = if narrow {
            Comparison::Narrow(Box::new(
                inner.narrow(&cancel, &found, &base, &Scope::everything()).unwrap().unwrap(),
            ))
        } else {
            let (sides, untracked) = inner.whole(&cancel, &found, &base, &scratch).unwrap();
            Comparison::Whole(sides, untracked)
        };
        let (mut files, tried) =
            inner.compare(&cancel, &found, &scratch, &comparison, true).unwrap();
        assert!(tried.is_none());
        let sizes = inner.sizes(&cancel, &found, &base, &comparison, &files).unwrap();
        mark_too_large(&mut files, &sizes);
        let count = u64::try_from(large.lines().count()).unwrap();
        let seen: Vec<_> = files
            .iter()
            .map(|file| (file.path.to_string(), file.added, file.removed, file.too_large))
            .collect();
        assert_eq!(
            seen,
            [
                ("grown \u{fc}".to_owned(), Some(count), Some(0), true),
                ("huge".to_owned(), None, None, true),
                ("shrinks".to_owned(), Some(1), Some(count), true),
                ("small".to_owned(), Some(1), Some(1), false),
            ]
        );
        let left_out: Vec<_> = files.iter().filter(|file| file.too_large).collect();
        let patch = inner.patch_without(&cancel, &found, &scratch, &comparison, &left_out).unwrap();
        assert!(patch.len() < 1000);
        let text = String::from_utf8(patch.clone()).unwrap();
        assert!(text.contains("huge is too large and not in this patch\n"), "{text}");
        // Git takes the rest of it.
        let clean = place.home().join(format!("clean-{narrow}"));
        place.git(
            &place.at,
            &["worktree", "add", "-q", "--detach", clean.to_str().unwrap(), &base.0],
        );
        fs::write(place.home().join("patch"), patch).unwrap();
        place.git(&clean, &["apply", "../patch"]);
        assert_eq!(fs::read(clean.join("small")).unwrap(), b"2\n");
    }
}

#[test]
fn files_that_fill_the_patch_leave_the_later_ones_out() {
    let file = |name: &str| FileDiff {
        path: windlass_core::locator::Locator::new(name.as_bytes()),
        old_path: None,
        change: ChangeKind::Added,
        added: None,
        removed: None,
        mode: None,
        untracked: true,
        too_large: false,
    };
    let mut files: Vec<_> = (0..101).map(|number| file(&format!("{number:03}"))).collect();
    files.push(file("small"));
    let mut sizes = vec![(0, DIFF_FILE_BYTES); 101];
    sizes.push((0, 0));
    mark_too_large(&mut files, &sizes);
    let large: Vec<_> =
        files.iter().filter(|file| file.too_large).map(|file| file.path.to_string()).collect();
    assert_eq!(large, ["100"]);
}
