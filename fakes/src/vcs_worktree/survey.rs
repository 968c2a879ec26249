//! Listing what is where worktrees are made.

use std::collections::BTreeMap;

use windlass_core::locator::Locator;
use windlass_core::vcs_worktree::{Found, FoundState};

use super::Disk;

impl Disk {
    /// Lists what lies below `root` and the registrations of a data directory in `repos`.
    pub(super) fn survey(&self, root: &str, data_directory: &str, repos: &[Locator]) -> Vec<Found> {
        let below = |path: &&Locator| path.as_bytes().starts_with(root.as_bytes());
        let foreign = |detail: &str| FoundState::Foreign { detail: detail.to_owned() };
        let mut found = BTreeMap::new();
        for path in self.plain.keys().filter(below) {
            found.insert(path.clone(), unowned(path, foreign("it carries no marker")));
        }
        for (path, checkout) in self.checkouts.iter().filter(|(path, _)| below(path)) {
            let repository = self.repositories.get(&checkout.repository);
            let registration = repository.and_then(|repo| repo.checkouts.get(path));
            let ours = registration.and_then(|registration| registration.ours.as_ref());
            let thing = match ours {
                Some(((owner, attempt), worktree)) if owner == data_directory => Found {
                    path: path.clone(),
                    attempt: Some(*attempt),
                    worktree: Some(worktree.clone()),
                    state: self.stands(path),
                },
                Some(_) => unowned(path, foreign("it belongs to another data directory")),
                None => unowned(path, foreign("it is not registered")),
            };
            found.insert(path.clone(), thing);
        }
        for repository in repos.iter().filter_map(|repo| self.repositories.get(repo)) {
            for (path, registration) in &repository.checkouts {
                let Some(((owner, attempt), worktree)) = &registration.ours else { continue };
                let is_there = self.checkouts.contains_key(path) || self.asides.contains_key(path);
                if owner == data_directory && !is_there {
                    let thing = Found {
                        path: path.clone(),
                        attempt: Some(*attempt),
                        worktree: Some(worktree.clone()),
                        state: FoundState::Missing,
                    };
                    found.entry(path.clone()).or_insert(thing);
                }
            }
        }
        self.survey_unfinished(root, data_directory, &mut found);
        for (path, leftover) in self.leftovers.iter().filter(|(path, _)| below(path)) {
            let names: Vec<_> = leftover.files.keys().cloned().collect();
            let thing = Found {
                path: Locator::new([path.as_bytes(), b".leftover"].concat()),
                attempt: Some(leftover.marker.1),
                worktree: None,
                state: FoundState::Leftover { detail: names.join(", ") },
            };
            found.insert(thing.path.clone(), thing);
        }
        found.into_values().collect()
    }

    /// Adds creations that have no directory yet, and removals that had begun.
    fn survey_unfinished(
        &self,
        root: &str,
        data_directory: &str,
        found: &mut BTreeMap<Locator, Found>,
    ) {
        let below = |path: &&Locator| path.as_bytes().starts_with(root.as_bytes());
        let foreign = |detail: &str| FoundState::Foreign { detail: detail.to_owned() };
        for (path, (owner, attempt), worktree) in self.notes().filter(|(path, ..)| below(path)) {
            let thing = match owner == data_directory {
                true => Found {
                    path: path.clone(),
                    attempt: Some(*attempt),
                    worktree: Some(worktree.clone()),
                    state: FoundState::Creating,
                },
                false => unowned(path, foreign("it belongs to another data directory")),
            };
            found.insert(path.clone(), thing);
        }
        for (path, aside) in self.asides.iter().filter(|(path, _)| below(path)) {
            let Some(((_, attempt), worktree)) = &aside.ours else { continue };
            let thing = Found {
                path: Locator::new([path.as_bytes(), b".removing"].concat()),
                attempt: Some(*attempt),
                worktree: Some(worktree.clone()),
                state: FoundState::Removing,
            };
            found.insert(thing.path.clone(), thing);
        }
    }
}

impl Disk {
    fn stands(&self, path: &Locator) -> FoundState {
        match self.half_made.get(path) {
            Some(_) => FoundState::Creating,
            None => FoundState::Whole,
        }
    }
}

fn unowned(path: &Locator, state: FoundState) -> Found {
    Found { path: path.clone(), attempt: None, worktree: None, state }
}
