//! Decides what of a worktree is stored: everything that differs, ignored entries as far as they are asked for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use gix::bstr::ByteSlice as _;
use gix::glob::pattern::Case;
use rustix::fs::FileType;
use windlass_core::snapshot::{LeftOut, LeftOutReason};
use windlass_core::vcs_worktree::{Ignored, Unsavable};

use super::super::locator;
use super::super::scan::{Scan, Standing};
use super::super::tree::{Entry, Listing, Stamp};

/// How an entry gets into the snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// A directory.
    Dir,
    /// A file whose bytes are stored.
    File,
    /// A link that is stored.
    Link,
    /// A file that a checkout gives.
    SameFile,
    /// A link that a checkout gives.
    SameLink,
    /// A file that was copied in and is unchanged.
    Copied([u8; 32]),
    /// Another name of the file that this part, by number, stands for.
    Hard(usize),
}

/// One entry that the snapshot describes.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    pub(super) path: PathBuf,
    pub(super) stamp: Stamp,
    pub(super) part: Part,
}

/// What is to be stored of a directory.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// Every entry, directories before what is in them.
    pub(super) chosen: Vec<Chosen>,
    /// What is not stored.
    pub(super) left_out: Vec<LeftOut>,
    /// What cannot be stored and was not to be left out: each with its reason.
    pub(super) refused: Vec<String>,
    /// Something is stored, or a directory is there that no checkout makes.
    work: bool,
}

/// What decides beside the entries themselves.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    pub(super) ignored: &'a Ignored,
    pub(super) unsavable: Unsavable,
    /// What was copied in, with its SHA-256.
    pub(super) copied: BTreeMap<PathBuf, [u8; 32]>,
    /// What would not hold still while it was read and is given up.
    pub(super) restless: &'a HashSet<PathBuf>,
}

/// An ignored entry, with all that is in it.
#[derive(Debug)]
struct Group {
    path: PathBuf,
    bytes: u64,
}

impl Selection {
    /// Chooses of a worktree.
    pub(super) fn of_worktree(scan: &Scan, rules: &Rules<'_>) -> Self {
        let standings: HashMap<&Path, Standing> =
            scan.differing.iter().map(|one| (one.path.as_path(), one.standing)).collect();
        let patterns = match rules.ignored {
            Ignored::UpTo(_) => None,
            Ignored::Globs(globs) => Some(gix::ignore::Search::from_overrides(
                globs,
                gix::ignore::search::Ignore::default(),
            )),
        };
        let mut grouping = Grouping { standings: &standings, patterns, groups: Vec::new() };
        let top = grouping.collect(&scan.listing, &mut PathBuf::new());
        if top == Kind::Ignored {
            // Everything is ignored: its parts are, not the worktree itself.
            grouping.split(&scan.listing, Path::new(""));
        }
        let mut groups = grouping.groups;
        groups.sort_by(|a, b| a.bytes.cmp(&b.bytes).then_with(|| a.path.cmp(&b.path)));
        let kept = match rules.ignored {
            Ignored::UpTo(limit) => {
                let mut sum = 0_u64;
                groups
                    .iter()
                    .take_while(|group| {
                        sum = sum.saturating_add(group.bytes);
                        sum <= *limit
                    })
                    .count()
            }
            Ignored::Globs(_) => 0,
        };
        let without = groups.split_off(kept);
        let mut selection = Self::default();
        let left = |group: &Group| LeftOut {
            path: locator(&group.path),
            bytes: group.bytes,
            reason: LeftOutReason::Ignored,
        };
        selection.left_out = without.iter().map(left).collect();
        let without: HashSet<PathBuf> = without.into_iter().map(|group| group.path).collect();
        let mut walk = Walk {
            rules: Some(rules),
            standings: &standings,
            without: &without,
            whole: false,
            names: HashMap::new(),
            selection,
        };
        walk.dir(&scan.listing, &mut PathBuf::new());
        let mut selection = walk.selection;
        selection.left_out.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
        selection
    }

    /// Chooses everything of a directory, such as a private git directory; what is special in it is passed over.
    pub(super) fn of_everything(listing: &Listing, without: &HashSet<PathBuf>) -> Self {
        let mut walk = Walk {
            rules: None,
            standings: &HashMap::new(),
            without,
            whole: true,
            names: HashMap::new(),
            selection: Self::default(),
        };
        walk.dir(listing, &mut PathBuf::new());
        walk.selection
    }

    /// Says whether something is stored or left out.
    pub(super) fn holds_work(&self) -> bool {
        self.work || !self.left_out.is_empty()
    }
}

/// What a directory consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Nothing but ignored entries.
    Ignored,
    /// Nothing that counts.
    Neutral,
    /// Something else.
    Other,
}

/// Finds the topmost directories in which everything is ignored.
struct Grouping<'a> {
    standings: &'a HashMap<&'a Path, Standing>,
    /// Ignored entries that are stored whatever their size.
    patterns: Option<gix::ignore::Search>,
    groups: Vec<Group>,
}

impl Grouping<'_> {
    /// Adds the groups below a directory, unless the directory is itself one.
    fn collect(&mut self, listing: &Listing, path: &mut PathBuf) -> Kind {
        let begun = self.groups.len();
        let mut kind = Kind::Neutral;
        for (name, entry) in &listing.entries {
            path.push(name);
            let one = match entry {
                Entry::Dir(below) if !below.entries.is_empty() => {
                    let below_kind = self.collect(below, path);
                    if below_kind == Kind::Ignored {
                        self.groups.push(Group { path: path.clone(), bytes: bytes(below) });
                    }
                    below_kind
                }
                _ => {
                    let one = self.kind(path, matches!(entry, Entry::Dir(_)));
                    if one == Kind::Ignored {
                        self.groups.push(Group { path: path.clone(), bytes: size(entry) });
                    }
                    one
                }
            };
            kind = match (kind, one) {
                (Kind::Other, _) | (_, Kind::Other) => Kind::Other,
                (Kind::Ignored, _) | (_, Kind::Ignored) => Kind::Ignored,
                (Kind::Neutral, Kind::Neutral) => Kind::Neutral,
            };
            path.pop();
        }
        if kind == Kind::Ignored {
            self.groups.truncate(begun);
        }
        kind
    }

    /// Adds what is in a directory, each for itself.
    fn split(&mut self, listing: &Listing, path: &Path) {
        for (name, entry) in &listing.entries {
            let path = path.join(name);
            let ignored = match entry {
                Entry::Dir(below) if !below.entries.is_empty() => {
                    let begun = self.groups.len();
                    let kind = self.collect(below, &mut path.clone());
                    self.groups.truncate(begun);
                    kind == Kind::Ignored
                }
                other => self.kind(&path, matches!(other, Entry::Dir(_))) == Kind::Ignored,
            };
            if ignored {
                self.groups.push(Group { path, bytes: size(entry) });
            }
        }
    }

    fn kind(&self, path: &Path, is_dir: bool) -> Kind {
        if path == Path::new(".git") {
            return Kind::Neutral;
        }
        match self.standings.get(path) {
            Some(Standing::Ignored) if self.asked_for(path, is_dir) => Kind::Other,
            Some(Standing::Ignored) => Kind::Ignored,
            Some(Standing::CopiedIn) => Kind::Neutral,
            Some(Standing::Same | Standing::Changed | Standing::Untracked | Standing::Nested) => {
                Kind::Other
            }
            None => Kind::Other,
        }
    }

    fn asked_for(&self, path: &Path, is_dir: bool) -> bool {
        let Some(patterns) = &self.patterns else { return false };
        let matched = path.ancestors().enumerate().find_map(|(up, path)| {
            let path = path.as_os_str().as_bytes();
            let found = patterns.pattern_matching_relative_path(
                path.as_bstr(),
                Some(up > 0 || is_dir),
                Case::Sensitive,
            );
            if path.is_empty() { None } else { found }
        });
        matched.is_some_and(|found| !found.pattern.is_negative())
    }
}

fn size(entry: &Entry) -> u64 {
    match entry {
        Entry::File(stamp) => stamp.size,
        Entry::Dir(below) => bytes(below),
        Entry::Special(_) | Entry::Unreadable(_) | Entry::Mount => 0,
    }
}

fn bytes(listing: &Listing) -> u64 {
    listing.entries.values().map(size).fold(0, u64::saturating_add)
}

/// Goes through all entries.
struct Walk<'a> {
    /// `None` for a directory that is stored whole.
    rules: Option<&'a Rules<'a>>,
    standings: &'a HashMap<&'a Path, Standing>,
    without: &'a HashSet<PathBuf>,
    whole: bool,
    /// The first name of each file, by device and inode.
    names: HashMap<(i128, u64), usize>,
    selection: Selection,
}

impl Walk<'_> {
    fn dir(&mut self, listing: &Listing, path: &mut PathBuf) {
        let extra = match self.standings.get(path.as_path()) {
            Some(Standing::Same | Standing::CopiedIn) | None => false,
            Some(_) => true,
        };
        self.selection.work |= extra;
        self.choose(path, listing.stamp, Part::Dir);
        for (name, entry) in &listing.entries {
            path.push(name);
            let link_to_repository = !self.whole && path.as_path() == Path::new(".git");
            if !link_to_repository && !self.without.contains(path.as_path()) {
                self.entry(entry, path);
            }
            path.pop();
        }
    }

    fn entry(&mut self, entry: &Entry, path: &mut PathBuf) {
        match entry {
            Entry::Dir(below) => self.dir(below, path),
            Entry::File(stamp) => self.file(path, stamp),
            Entry::Special(stamp) if self.rules.is_some() => {
                self.unsavable(path, special(stamp.mode));
            }
            // What git keeps beside its state, such as the socket of a monitor.
            Entry::Special(_) => {}
            Entry::Unreadable(_) => self.unsavable(path, "it may not be read"),
            Entry::Mount => self.unsavable(path, "something is mounted there"),
        }
    }

    fn file(&mut self, path: &Path, stamp: &Stamp) {
        let link = FileType::from_raw_mode(stamp.mode) == FileType::Symlink;
        if self.rules.is_some_and(|rules| rules.restless.contains(path)) {
            self.unsavable(path, "it changes while it is read");
            return;
        }
        let standing = if self.whole {
            Standing::Untracked
        } else {
            self.standings.get(path).copied().unwrap_or(Standing::Same)
        };
        let part = match (standing, link) {
            (Standing::Same, true) => Part::SameLink,
            (Standing::Same, false) => Part::SameFile,
            (Standing::CopiedIn, false) => {
                match self.rules.and_then(|rules| rules.copied.get(path)) {
                    Some(sha256) => Part::Copied(*sha256),
                    None => Part::File,
                }
            }
            (_, true) => Part::Link,
            (_, false) => Part::File,
        };
        if matches!(part, Part::Copied(_)) {
            self.choose(path, *stamp, part);
            return;
        }
        // A link that was copied in is stored, since it is small, but it exists elsewhere.
        let stored = matches!(part, Part::File | Part::Link);
        self.selection.work |= stored && !(link && standing == Standing::CopiedIn);
        match self.names.get(&(stamp.dev, stamp.ino)).copied() {
            None => {
                self.names.insert((stamp.dev, stamp.ino), self.selection.chosen.len());
                self.choose(path, *stamp, part);
            }
            Some(first) => {
                // The bytes are stored once, and they are if any name needs them.
                if stored {
                    self.selection.chosen[first].part = part;
                }
                self.choose(path, *stamp, Part::Hard(first));
            }
        }
    }

    fn choose(&mut self, path: &Path, stamp: Stamp, part: Part) {
        self.selection.chosen.push(Chosen { path: path.to_owned(), stamp, part });
    }

    fn unsavable(&mut self, path: &Path, reason: &str) {
        match self.rules.map(|rules| rules.unsavable) {
            Some(Unsavable::Discard) => self.selection.left_out.push(LeftOut {
                path: locator(path),
                bytes: 0,
                reason: LeftOutReason::Discarded,
            }),
            Some(Unsavable::Refuse) | None => {
                self.selection.refused.push(named(path.as_os_str(), reason));
            }
        }
    }
}

/// Names an entry with a reason, for people.
pub(super) fn named(path: &OsStr, reason: &str) -> String {
    format!("{}: {reason}", path.to_string_lossy().escape_debug())
}

fn special(mode: u32) -> &'static str {
    match FileType::from_raw_mode(mode) {
        FileType::Socket => "it is a socket",
        FileType::Fifo => "it is a pipe",
        FileType::CharacterDevice | FileType::BlockDevice => "it is a device",
        _ => "it is a special file",
    }
}
