//! A worktree as far as anybody can tell: two of one worktree are equal if nothing was lost.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use windlass_core::workspace::Worktree;

use crate::place::{GitPlace, path};

/// One entry.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    mode: u32,
    mtime: (i64, i64),
    size: u64,
    /// Bytes or target; of a long file only its blocks' digest.
    content: Vec<u8>,
    /// The first name of the same file.
    first: Option<PathBuf>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = String::from_utf8_lossy(self.content.get(..60).unwrap_or(&self.content));
        let Self { mode, mtime, size, first, .. } = self;
        write!(f, "{mode:o} {mtime:?} {size} {first:?} {text:?}")
    }
}

/// A worktree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Portrait {
    pub(crate) entries: BTreeMap<PathBuf, Entry>,
    pub(crate) git: BTreeMap<PathBuf, Entry>,
    pub(crate) said: Vec<String>,
}

/// Takes one. Nothing is written by it.
pub(crate) fn portrait(place: &GitPlace, worktree: &Worktree) -> Portrait {
    let dir = path(&worktree.path);
    let admin = PathBuf::from(place.ok(&dir, &["rev-parse", "--absolute-git-dir"]));
    let mut entries = BTreeMap::new();
    collect(&dir, &mut PathBuf::new(), &mut entries, &mut BTreeMap::new());
    entries.remove(Path::new(".git"));
    let mut git = BTreeMap::new();
    collect(&admin, &mut PathBuf::new(), &mut git, &mut BTreeMap::new());
    git.retain(|path, _| {
        let name = path.components().next().map(|part| part.as_os_str().to_string_lossy());
        // The index is compared by what git says of it; HEAD too.
        !name.is_none_or(|name| {
            matches!(&*name, "index" | "gitdir" | "commondir" | "HEAD" | "reftable")
        })
    });
    for (path, entry) in &mut git {
        // Git touches it by reading it.
        if path.to_string_lossy().starts_with("sharedindex.") {
            entry.mtime = (0, 0);
        }
    }
    let asked: [&[&str]; 6] = [
        &["ls-files", "--stage", "-v"],
        &["ls-files", "--resolve-undo"],
        &["status", "--porcelain=v2", "--branch", "--ignored", "--untracked-files=all"],
        &["reflog", "show", "HEAD", "--"],
        &["rev-parse", "HEAD"],
        &["diff", "--cached", "--no-ext-diff"],
    ];
    let said = asked.iter().map(|args| {
        let args = [&["--no-optional-locks", "-c", "core.quotePath=true"], *args].concat();
        place.ok(&dir, &args)
    });
    Portrait { entries, git, said: said.collect() }
}

fn collect(
    dir: &Path,
    at: &mut PathBuf,
    entries: &mut BTreeMap<PathBuf, Entry>,
    names: &mut BTreeMap<(u64, u64), PathBuf>,
) {
    let own = dir.symlink_metadata().unwrap();
    entries.insert(at.clone(), entry(dir, &own, None));
    let mut children: Vec<_> = fs::read_dir(dir).unwrap().map(|one| one.unwrap()).collect();
    children.sort_by_key(fs::DirEntry::file_name);
    for child in children {
        // Notes of ours come and go by themselves.
        if child.file_name().to_string_lossy().starts_with("windlass-") {
            continue;
        }
        let (path, meta) = (child.path(), child.metadata().unwrap());
        at.push(child.file_name());
        if meta.is_dir() {
            collect(&path, at, entries, names);
        } else {
            let first = names.entry((meta.dev(), meta.ino())).or_insert_with(|| at.clone()).clone();
            let first = (meta.nlink() > 1 && first != *at).then_some(first);
            entries.insert(at.clone(), entry(&path, &meta, first));
        }
        at.pop();
    }
}

fn entry(path: &Path, meta: &fs::Metadata, first: Option<PathBuf>) -> Entry {
    let content = if meta.is_symlink() {
        fs::read_link(path).unwrap().into_os_string().into_encoded_bytes()
    } else if meta.is_file() && meta.len() < 64 << 20 {
        fs::read(path).unwrap()
    } else {
        Vec::new()
    };
    let mode = if meta.is_symlink() { 0o120_777 } else { meta.mode() };
    let size = if meta.is_dir() { 0 } else { meta.len() };
    Entry { mode, mtime: (meta.mtime(), meta.mtime_nsec()), size, content, first }
}

/// Says where two differ.
#[track_caller]
pub(crate) fn assert_same(after: &Portrait, before: &Portrait) {
    for (after, before) in [(&after.entries, &before.entries), (&after.git, &before.git)] {
        for path in after.keys().chain(before.keys()) {
            let (one, other) = (after.get(path), before.get(path));
            assert!(one == other, "{path:?}\nis  {one:?}\nwas {other:?}");
        }
    }
    for (after, before) in after.said.iter().zip(&before.said) {
        assert_eq!(after, before);
    }
}
