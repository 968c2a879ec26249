//! What a worktree is compared with: configuration, index, HEAD, and the rules of what is ignored.

use std::path::{Path, PathBuf};

use gix::ObjectId;
use gix::hash::Kind as HashKind;
use windlass_core::error::BackendError;
use windlass_core::vcs_worktree::VcsWorktreeError;

use super::config::Config;
use super::convert;
use super::ignore::Rules;
use super::index::{Index, Read, Sum, known};
use super::staged::{HeadItem, Objects, Staged, StagedError, staged};
use crate::group::Cancel;
use crate::vcs_worktree::verify::Found;
use crate::vcs_worktree::{BACKEND, Inner, failed};

/// In the private git directory: the index.
const INDEX: &str = "index";
/// In the private git directory: the index as the checkout left it.
const ORIGINAL: &str = "windlass-index";

/// What a look is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// What git would show.
    Changes,
    /// Also whether bytes are exactly those of a checkout.
    Bytes,
}

/// The index as the checkout left it.
enum Original {
    Read(Read),
    /// The index has still the same content.
    Shared(Sum),
}

impl Original {
    fn read(found: &Found, hash: HashKind) -> Self {
        let file = found.admin.join(ORIGINAL);
        let now = Sum::read(&found.admin.join(INDEX), hash);
        match (Sum::read(&file, hash), now) {
            (Some(sum), Some(now)) if sum.is_of_the_same(&now) => Self::Shared(sum),
            _ => Self::Read(Index::read(&file, hash)),
        }
    }
}

/// Everything that is read before the tree itself.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) config: Config,
    pub(super) hash: HashKind,
    pub(super) objects: Objects,
    pub(super) index: Index,
    /// The index is missing or cannot be read; it counts as empty.
    pub(super) damaged: bool,
    pub(super) original: Option<Index>,
    pub(super) staged: Vec<Staged>,
    pub(super) rules: Rules,
    pub(super) sparse: bool,
    /// No file is converted when it is checked out.
    pub(super) plain: bool,
    pub(super) index_has_attributes_of_head: bool,
}

impl Sources {
    pub(super) fn read(
        inner: &Inner,
        cancel: &Cancel,
        found: &Found,
        want: Want,
    ) -> Result<Self, VcsWorktreeError> {
        let head = ObjectId::from_hex(found.verified.head.0.as_bytes()).map_err(|error| {
            BackendError::permanent(BACKEND, "look", std::io::Error::other(error))
        })?;
        let hash = head.kind();
        let (config, index, original) = std::thread::scope(|scope| {
            let config = scope.spawn(|| Config::ask(&inner.git, cancel, found));
            let original = scope.spawn(|| match want {
                Want::Bytes => Original::read(found, hash),
                Want::Changes => Original::Read(Read::Missing),
            });
            let index = Index::read(&found.admin.join(INDEX), hash);
            (config.join(), index, original.join())
        });
        let died =
            || BackendError::permanent(BACKEND, "look", std::io::Error::other("a thread died"));
        let config = config.map_err(|_| died())??;
        let original = match (original.map_err(|_| died())?, &index) {
            (Original::Read(read), _) => read,
            (Original::Shared(sum), Read::Index(index)) => match index.shared(&sum) {
                Some(original) => Read::Index(original),
                // It was written anew meanwhile.
                None => Index::read(&found.admin.join(ORIGINAL), hash),
            },
            (Original::Shared(_), Read::Missing | Read::Damaged) => {
                Index::read(&found.admin.join(ORIGINAL), hash)
            }
        };
        let original = match original {
            Read::Index(original) => Some(original),
            Read::Missing | Read::Damaged => None,
        };
        let (mut index, damaged) = match index {
            Read::Index(index) => (index, false),
            // Everything is compared with HEAD by content then.
            Read::Missing | Read::Damaged => (Index::empty(hash), true),
        };
        let objects = Objects::open(&found.common, hash)
            .map_err(|error| failed("look", &found.common, error))?;
        let staged = inner.compare_with_head(cancel, found, (&objects, &head), &mut index)?;
        let rules = inner.rules(cancel, found, &config)?;
        let known = known(&index, &staged);
        let attributes = |known: &super::index::Known<'_>| is_attributes(known.path);
        let plain = !convert::converts_without_attributes(&config)
            && !known.iter().any(attributes)
            && !inner.has_other_attributes(cancel, found, &config)?;
        // What was checked out under other attributes is not what a checkout of HEAD gives.
        let original = original.filter(|original| {
            let state = &original.state;
            let theirs = state.entries().iter().filter_map(|entry| {
                let path: &[u8] = entry.path(state);
                is_attributes(path).then_some((path, entry.id))
            });
            let heads = known.iter().filter(|known| attributes(known));
            let heads = heads.filter_map(|known| Some((known.path, known.head()?.oid)));
            theirs.eq(heads)
        });
        let index_has_attributes_of_head = !damaged
            && !known.iter().any(|known| attributes(known) && known.entry_of_head().is_none());
        drop(known);
        let sparse = config.is("core.sparsecheckout", false);
        Ok(Self {
            config,
            hash,
            objects,
            index,
            damaged,
            original,
            staged,
            rules,
            sparse,
            plain,
            index_has_attributes_of_head,
        })
    }
}

impl Inner {
    /// Compares HEAD with the index; a sparse one is filled where that is needed.
    fn compare_with_head(
        &self,
        cancel: &Cancel,
        found: &Found,
        of: (&Objects, &ObjectId),
        index: &mut Index,
    ) -> Result<Vec<Staged>, VcsWorktreeError> {
        let (objects, head) = of;
        let refused = |error: StagedError| {
            VcsWorktreeError::from(BackendError::permanent(BACKEND, "look", error))
        };
        let there = |path: PathBuf| found.path.join(path).symlink_metadata().is_ok();
        if index.state.is_sparse() && index.sparse_directories().any(there) {
            index.expand(objects).map_err(refused)?;
        }
        let replaced = is_replaced(&found.common);
        let tree = if replaced { None } else { objects.tree_of(head).ok() };
        let mut compared = match &tree {
            Some(tree) => staged(objects, &index.state, tree),
            None => Err(StagedError::Object(*head)),
        };
        if let (Err(StagedError::Sparse), Some(tree)) = (&compared, &tree) {
            index.expand(objects).map_err(refused)?;
            compared = staged(objects, &index.state, tree);
        }
        match compared {
            Ok(staged) => Ok(staged),
            // What we cannot read git may be able to; if not, it says why.
            Err(_) => {
                index.expand(objects).map_err(refused)?;
                let listed = self.git.on_repository(&found.common, "ls-tree");
                let listed = listed.env("GIT_NO_LAZY_FETCH", "1");
                let listed = listed.args(["-r", "-z", "--full-tree", &found.verified.head.0]);
                Ok(staged_by_list(index, &parse_tree(&listed.output(cancel)?)))
            }
        }
    }

    fn rules(
        &self,
        cancel: &Cancel,
        found: &Found,
        config: &Config,
    ) -> Result<Rules, VcsWorktreeError> {
        let user = config.path(&self.git, cancel, found, "core.excludesfile", "ignore")?;
        let fold = config.is("core.ignorecase", false);
        Ok(Rules::new(fold, user.as_deref(), &found.common.join("info/exclude")))
    }

    /// Says whether attributes may come from elsewhere than a commit.
    fn has_other_attributes(
        &self,
        cancel: &Cancel,
        found: &Found,
        config: &Config,
    ) -> Result<bool, VcsWorktreeError> {
        let user = config.path(&self.git, cancel, found, "core.attributesfile", "attributes")?;
        // Where git was built to look depends on where it is.
        let prefix = self.git.program().parent().and_then(Path::parent);
        let system = prefix.map(|prefix| prefix.join("etc/gitattributes"));
        let files = [
            Some(found.common.join("info/attributes")),
            Some(PathBuf::from("/etc/gitattributes")),
            system,
            user,
        ];
        Ok(files.into_iter().flatten().any(|file| file.exists()))
    }
}

/// Says whether a file of this path gives attributes.
fn is_attributes(path: &[u8]) -> bool {
    let before = path.strip_suffix(b".gitattributes");
    before.is_some_and(|before| before.is_empty() || before.ends_with(b"/"))
}

/// Says whether git may show other objects than those that are named.
pub(super) fn is_replaced(common: &Path) -> bool {
    let folder = common.join("refs/replace");
    if std::fs::read_dir(folder).is_ok_and(|mut refs| refs.next().is_some()) {
        return true;
    }
    if common.join("info/grafts").exists() || common.join("reftable").exists() {
        return true;
    }
    let packed = std::fs::read(common.join("packed-refs")).unwrap_or_default();
    let name = b" refs/replace/";
    packed.windows(name.len()).any(|window| window == name)
}

/// Reads lines of `mode SP type SP oid TAB path`.
fn parse_tree(output: &[u8]) -> Vec<(Vec<u8>, HeadItem)> {
    let parse = |line: &[u8]| {
        let tab = line.iter().position(|byte| *byte == b'\t')?;
        let mut words = std::str::from_utf8(&line[..tab]).ok()?.split(' ');
        let mode = u32::from_str_radix(words.next()?, 8).ok()?;
        let oid = ObjectId::from_hex(words.nth(1)?.as_bytes()).ok()?;
        Some((line[tab + 1..].to_vec(), HeadItem { mode, oid }))
    };
    output.split(|byte| *byte == 0).filter_map(parse).collect()
}

fn staged_by_list(index: &Index, head: &[(Vec<u8>, HeadItem)]) -> Vec<Staged> {
    let mut items: Vec<Staged> =
        head.iter().map(|(path, item)| Staged { path: path.clone(), head: Some(*item) }).collect();
    items.sort_by(|one, other| one.path.cmp(&other.path));
    let same = |known: &super::index::Known<'_>, head: Option<HeadItem>| {
        let entry = known
            .entry
            .filter(|_| !known.unmerged && !known.has(gix::index::entry::Flags::INTENT_TO_ADD));
        entry.map(|entry| HeadItem { mode: entry.mode.bits(), oid: entry.id }) == head
    };
    let both = known(index, &items);
    let differing = both.iter().filter_map(|known| {
        let at = items.binary_search_by(|item| item.path.as_slice().cmp(known.path));
        let head = at.ok().and_then(|at| items[at].head);
        (!same(known, head)).then(|| Staged { path: known.path.to_vec(), head })
    });
    differing.collect()
}

/// Says whether two commits are on one line of history, and how far apart, without asking git.
///
/// Returns how many commits each has that the other has not; `None` if the lines branch or merge.
pub(crate) fn apart(common: &Path, one: &str, other: &str) -> Option<Apart> {
    /// Longer ways are left to git, which has better means.
    const LONGEST: usize = 256;
    if is_replaced(common) || common.join("shallow").exists() {
        return None;
    }
    let (one, other) =
        (ObjectId::from_hex(one.as_bytes()).ok()?, ObjectId::from_hex(other.as_bytes()).ok()?);
    let objects = Objects::open(common, one.kind()).ok()?;
    let mut lines = [vec![one], vec![other]];
    for step in 0..LONGEST {
        for side in [0, 1] {
            let [mine, theirs] = if side == 0 { [0, 1] } else { [1, 0] };
            if let Some(tip) = lines[mine].get(step)
                && let Some(met) = lines[theirs].iter().position(|commit| commit == tip)
            {
                let counts = if side == 0 { (step, met) } else { (met, step) };
                let count = |steps| u64::try_from(steps).unwrap_or(u64::MAX);
                return Some(Apart { base: *tip, one: count(counts.0), other: count(counts.1) });
            }
        }
        for line in &mut lines {
            if let Some(tip) = line.get(step) {
                match objects.parents_of(tip).ok()?.as_slice() {
                    [parent] => line.push(*parent),
                    [] => {}
                    _ => return None,
                }
            }
        }
    }
    None
}

/// How far two commits are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Apart {
    /// Where their lines meet.
    pub(crate) base: ObjectId,
    pub(crate) one: u64,
    pub(crate) other: u64,
}
