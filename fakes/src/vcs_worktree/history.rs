//! Commits, branches and what reaches what.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;
use windlass_core::locator::Locator;
use windlass_core::vcs_worktree::{Identity, VcsWorktreeError};
use windlass_core::workspace::{Oid, Worktree};

use super::Registration;
use super::making::UsersCode;

/// A file's content and whether it can be executed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct File {
    pub(super) content: Vec<u8>,
    pub(super) executable: bool,
}

/// A tree of files by their paths.
pub(super) type Files = BTreeMap<String, File>;

/// A commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Commit {
    pub(super) parent: Option<Oid>,
    /// The other parent of a merge.
    pub(super) merges: Option<Oid>,
    pub(super) files: Files,
    pub(super) message: String,
    pub(super) author: Identity,
}

impl Commit {
    /// Names it by what it is, so that the order of independent commits changes no name.
    pub(super) fn oid(&self) -> Oid {
        let text = format!("{self:?}");
        let hex = Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()).simple().to_string();
        Oid(format!("{hex}{}", &hex[..8]))
    }
}

/// What a checkout's HEAD names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Head {
    Branch(String),
    Detached(Oid),
}

impl Head {
    pub(super) fn branch(&self) -> Option<&str> {
        match self {
            Self::Branch(name) => Some(name),
            Self::Detached(_) => None,
        }
    }
}

/// A repository.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Repository {
    pub(super) commits: BTreeMap<Oid, Commit>,
    pub(super) branches: BTreeMap<String, Oid>,
    pub(super) tags: BTreeMap<String, Oid>,
    pub(super) identity: Option<Identity>,
    pub(super) checkouts: BTreeMap<Locator, Registration>,
    pub(super) users_code: UsersCode,
    /// What was pushed last, by remote and branch.
    pub(super) pushed: BTreeMap<String, Oid>,
}

impl Repository {
    /// The checkout that is no worktree.
    pub(super) fn main(&self) -> Option<&Registration> {
        self.checkouts.values().find(|registration| registration.ours.is_none())
    }

    pub(super) fn oid(&self, head: &Head) -> Option<Oid> {
        match head {
            Head::Branch(name) => self.branches.get(name).cloned(),
            Head::Detached(oid) => Some(oid.clone()),
        }
    }

    pub(super) fn files(&self, head: &Head) -> Option<Files> {
        Some(self.commits.get(&self.oid(head)?)?.files.clone())
    }

    /// What the HEAD of a checkout holds.
    pub(super) fn checked_out(&self, dir: &Locator) -> Option<Files> {
        self.files(&self.checkouts.get(dir)?.head)
    }

    /// What the index of a checkout holds.
    pub(super) fn index(&self, dir: &Locator) -> Option<Files> {
        let mut files = self.checked_out(dir)?;
        for (path, staged) in &self.checkouts.get(dir)?.staged {
            match staged {
                Some(file) => files.insert(path.clone(), file.clone()),
                None => files.remove(path),
            };
        }
        Some(files)
    }

    /// Says whether a branch is checked out somewhere.
    pub(super) fn is_checked_out(&self, branch: &str) -> bool {
        self.checkouts.values().any(|registration| registration.head.branch() == Some(branch))
    }

    /// Resolves a base to a commit and, if it is a branch, the branch.
    pub(super) fn resolve(&self, name: &str, head: Option<&Head>) -> Option<(Oid, Option<String>)> {
        if name == "HEAD" {
            let head = head?;
            return Some((self.oid(head)?, head.branch().map(str::to_owned)));
        }
        if let Some(oid) = self.tags.get(name) {
            return Some((oid.clone(), None));
        }
        if let Some(oid) = self.branches.get(name) {
            return Some((oid.clone(), Some(name.to_owned())));
        }
        let oid = Oid(name.to_owned());
        self.commits.contains_key(&oid).then_some((oid, None))
    }

    /// Refuses what git would not take for a new branch.
    pub(super) fn free(&self, branch: &str) -> Result<(), VcsWorktreeError> {
        if !is_branch_name(branch) {
            return Err(VcsWorktreeError::InvalidBranch { branch: branch.to_owned() });
        }
        let below = |inner: &str, outer: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'))
        };
        let in_the_way =
            |other: &&String| *other == branch || below(other, branch) || below(branch, other);
        match self.branches.keys().find(in_the_way) {
            None => Ok(()),
            Some(other) => Err(VcsWorktreeError::BranchExists { branch: other.clone() }),
        }
    }

    pub(super) fn goal(&self, worktree: &Worktree) -> Oid {
        let target = worktree.target.as_ref().and_then(|target| self.branches.get(target));
        target.unwrap_or(&worktree.base_oid).clone()
    }

    /// The commits from `oid` back to the first one.
    pub(super) fn line(&self, oid: &Oid) -> Vec<Oid> {
        let parent = |oid: &Oid| self.commits.get(oid)?.parent.clone();
        std::iter::successors(Some(oid.clone()), parent).collect()
    }

    /// Counts the commits that `of` reaches and `without` does not.
    pub(super) fn count(&self, of: &Oid, without: &Oid) -> u64 {
        let without: BTreeSet<_> = self.line(without).into_iter().collect();
        let count = self.line(of).iter().filter(|oid| !without.contains(oid)).count();
        u64::try_from(count).unwrap_or(u64::MAX)
    }

    pub(super) fn merge_base(&self, one: &Oid, other: &Oid) -> Option<Oid> {
        let one: BTreeSet<_> = self.line(one).into_iter().collect();
        self.line(other).into_iter().find(|oid| one.contains(oid))
    }

    /// Lists the commits from `been` back that neither tag nor branch reaches, not counting the branch that goes.
    pub(super) fn unreached(&self, been: &BTreeSet<Oid>, goes: Option<&str>) -> BTreeSet<Oid> {
        let stay = self.branches.iter().filter(|(name, _)| goes != Some(name.as_str()));
        let tips = stay.map(|(_, tip)| tip).chain(self.tags.values());
        let reached: BTreeSet<_> = tips.flat_map(|tip| self.line(tip)).collect();
        let going = goes.and_then(|name| self.branches.get(name));
        let ours = been.iter().chain(going).flat_map(|oid| self.line(oid));
        ours.filter(|oid| !reached.contains(oid)).collect()
    }
}

fn is_branch_name(name: &str) -> bool {
    let refused = |char: char| char.is_control() || " ~^:?*[\\".contains(char);
    let component = |part: &str| {
        !(part.is_empty()
            || part.starts_with('.')
            || part.ends_with('.')
            || part.ends_with(".lock"))
    };
    !matches!(name, "HEAD" | "@")
        && !name.starts_with('-')
        && !name.contains("..")
        && !name.contains("@{")
        && !name.contains(refused)
        && name.split('/').all(component)
}
