//! Lists what is below the worktrees root, and the registrations of ours whose directory is gone. Looks at no file of any
//! worktree but its `.git`.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use windlass_core::id::AttemptId;
use windlass_core::locator::Locator;
use windlass_core::vcs_worktree::{Found, FoundState, VcsWorktreeError};
use windlass_core::workspace::Worktree;

use super::aside::{DELETING, PREFIX, SAVED, exists, link_of};
use super::marker::{Intent, Marker, Read};
use super::record::Record;
use super::trash::{self, Remains};
use super::verify::{moved_to, read_link, registrations};
use super::{Inner, failed, locator, moved, path_of, provenance, scratch};

/// Most paths in the description of what was left.
const NAMED: usize = 16;
/// What the names of files end with that are being written.
const TEMPORARY: &str = ".new";

impl Inner {
    /// Lists everything; also has the trash tried again.
    pub(super) fn survey(&self, repos: &[Locator]) -> Result<Vec<Found>, VcsWorktreeError> {
        let mut found = Vec::new();
        let folders = entries(&self.root);
        for folder in folders.map_err(|error| failed("survey", &self.root, error))? {
            let name = folder.file_name().unwrap_or_default();
            if name == scratch::FOLDER || name == trash::FOLDER || name == provenance::FILE {
                continue;
            }
            if folder.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
                self.survey_folder(&folder, &mut found);
            } else {
                found.push(foreign(&folder, "it is no directory of ours"));
            }
        }
        for repo in repos {
            let repo = path_of(repo);
            // Named by its checkout or by its common git directory.
            let inside = repo.join(".git");
            let common = if inside.is_dir() { inside } else { repo };
            self.survey_registrations(&common, &mut found);
        }
        let remains = self.trash.remains();
        let remains = remains.map_err(|error| failed("survey", &self.root, error))?;
        found.extend(remains.into_iter().map(left));
        found.sort_by(|one, other| one.path.cmp(&other.path));
        found.dedup_by(|one, other| one.path == other.path);
        self.trash.empty();
        Ok(found)
    }

    /// Lists what is in the folder of one repository's worktrees.
    fn survey_folder(&self, folder: &Path, found: &mut Vec<Found>) {
        let all = match entries(folder) {
            Ok(all) => all,
            // It went with the last of its worktrees.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                found.push(foreign(folder, format!("it cannot be read: {error}")));
                return;
            }
        };
        let notes: Vec<PathBuf> = all.iter().filter_map(|path| place_of_note(path)).collect();
        for path in &all {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if let Some(rest) = name.strip_prefix(PREFIX) {
                found.extend(self.aside(path, rest));
            } else if let Some(place) = place_of_note(path) {
                found.push(self.half_made_at(path, &place));
            } else if !(name.ends_with(TEMPORARY) || notes.contains(path)) {
                found.push(self.at_place(path));
            }
        }
    }

    /// Describes what stands where worktrees stand.
    fn at_place(&self, path: &Path) -> Found {
        self.registered_at(path, path).unwrap_or_else(|why| foreign(path, why))
    }

    /// Describes a directory whose registration should name `place`; the error says why it is not ours.
    fn registered_at(&self, path: &Path, place: &Path) -> Result<Found, String> {
        let unread = |error: io::Error| format!("it cannot be read: {error}");
        if let Some(why) = &self.copied {
            return Err(why.clone());
        }
        let meta = path.symlink_metadata().map_err(unread)?;
        let link = path.join(".git");
        let plain = link.symlink_metadata().is_ok_and(|meta| meta.is_file());
        if !meta.is_dir() || !plain {
            return Err("it is no worktree".to_owned());
        }
        let admin = read_link(&link, "gitdir: ", path).map_err(unread)?;
        let admin = admin.and_then(|admin| fs::canonicalize(admin).ok());
        let admin = admin.ok_or("its repository does not know it, or is gone")?;
        let attempt = self.owner(&admin)?;
        match link_of(&admin).ok().flatten() {
            Some(link) if link == *path || link == *place || self.is_left(&link) => {}
            Some(link) if self.original(&link).is_some() => {
                return Err(moved::copied(path, &link));
            }
            link => {
                let link = link.unwrap_or_default();
                return Err(format!("it is registered as {}", link.display()));
            }
        }
        let worktree = self.worktree_of(&admin, path);
        let state = FoundState::Whole;
        Ok(Found { path: locator(path), attempt: Some(attempt), worktree, state })
    }

    /// The record that stands in a marker, of what lies beside `path`.
    fn worktree_of(&self, admin: &Path, path: &Path) -> Option<Worktree> {
        let worktree = Marker::worktree(admin).unwrap_or_default()?;
        Some(self.at_home(path.parent().unwrap_or(&self.root), worktree))
    }

    /// Says whose a private git directory is, if it is ours.
    fn owner(&self, admin: &Path) -> Result<AttemptId, String> {
        match Marker::read(admin) {
            Ok(Read::Says(marker)) if marker.data_directory == self.data_directory => {
                Ok(marker.attempt)
            }
            Ok(Read::Says(_)) => Err("it belongs to another data directory".to_owned()),
            Ok(Read::Missing) => Err("it carries no marker of ours".to_owned()),
            Ok(Read::Unclear(why)) => Err(why),
            Err(error) => Err(format!("its marker cannot be read: {error}")),
        }
    }

    /// Describes a part of a removal that had begun; several parts of one are described once.
    fn aside(&self, path: &Path, rest: &str) -> Option<Found> {
        let (attempt, end) = match rest.split_once('.') {
            Some((attempt, end)) => (attempt, Some(end)),
            None => (rest, None),
        };
        let Ok(attempt) = attempt.parse::<AttemptId>() else {
            return Some(foreign(path, "it is nothing of ours"));
        };
        let directory = path.with_file_name(format!("{PREFIX}{attempt}"));
        // The directory speaks for its record.
        let is_record = end.is_some_and(|end| SAVED[1..] == *end || DELETING[1..] == *end);
        match end {
            Some(_) if !is_record => return None,
            Some(_) if directory.symlink_metadata().is_ok() => return None,
            Some(_) | None => {}
        }
        let record = [DELETING, SAVED].iter().find_map(|end| {
            let file = path.with_file_name(format!("{PREFIX}{attempt}{end}"));
            Record::read_summary(&file).ok().flatten()
        });
        let ours = |record: &Record| {
            record.attempt == attempt && record.data_directory == self.data_directory
        };
        let worktree = match record {
            Some(record) if self.copied.is_none() && ours(&record) => {
                Some(self.at_home(path.parent().unwrap_or(&self.root), record.worktree))
            }
            Some(_) => return Some(foreign(path, "it belongs to another data directory")),
            None => match self.registered_at(path, path) {
                Ok(found) => found.worktree,
                Err(why) => match self.place_of_aside(path, attempt) {
                    Some(worktree) => Some(worktree),
                    None => return Some(foreign(path, why)),
                },
            },
        };
        let state = FoundState::Removing;
        Some(Found { path: locator(&directory), attempt: Some(attempt), worktree, state })
    }

    /// The record of a worktree whose directory was just taken aside: its registration still names its place.
    fn place_of_aside(&self, path: &Path, attempt: AttemptId) -> Option<Worktree> {
        let admin = read_link(&path.join(".git"), "gitdir: ", path).ok()??;
        let place = link_of(&admin).ok()??;
        let own = self.owner(&admin).ok()? == attempt && place.parent() == path.parent();
        if self.copied.is_some() || !own {
            return None;
        }
        self.worktree_of(&admin, path)
    }

    /// Describes a creation that had begun.
    fn half_made_at(&self, note: &Path, place: &Path) -> Found {
        let found = match Intent::read(note) {
            Ok(Read::Says(intent)) if self.copied.is_some() => {
                drop(intent);
                Err("its data directory is a copy".to_owned())
            }
            Ok(Read::Says(intent)) if intent.marker.data_directory == self.data_directory => {
                let folder = place.parent().unwrap_or(&self.root);
                let worktree = intent.worktree.map(|worktree| self.at_home(folder, worktree));
                Ok((intent.marker.attempt, worktree))
            }
            Ok(Read::Says(_)) => Err("it belongs to another data directory".to_owned()),
            Ok(Read::Missing) => Err("the note of its creation went".to_owned()),
            Ok(Read::Unclear(why)) => Err(why),
            Err(error) => Err(format!("the note of its creation cannot be read: {error}")),
        };
        match found {
            Ok((attempt, worktree)) => Found {
                path: locator(place),
                attempt: Some(attempt),
                worktree,
                state: FoundState::Creating,
            },
            Err(why) => foreign(place, why),
        }
    }

    /// Adds the registrations of ours in a repository whose directory is gone from below our root, or was moved by git.
    fn survey_registrations(&self, common: &Path, found: &mut Vec<Found>) {
        // A repository that cannot be read tells nothing of what is missing.
        for admin in registrations(common).unwrap_or_default() {
            let Ok(attempt) = self.owner(&admin) else { continue };
            let Ok(Some(place)) = link_of(&admin) else { continue };
            // Under removal it is described by what is aside.
            let aside = place.with_file_name(format!("{PREFIX}{attempt}"));
            let named = |found: &Found| found.attempt == Some(attempt);
            let another = self.original(&place).is_some();
            if self.copied.is_some()
                || another
                || aside.symlink_metadata().is_ok()
                || found.iter().any(named)
            {
                continue;
            }
            let left = self.is_left(&place);
            let worktree = Marker::worktree(&admin).unwrap_or_default();
            let worktree = match place.parent().and_then(Path::file_name) {
                Some(folder) if left => {
                    worktree.map(|own| self.at_home(&self.root.join(folder), own))
                }
                Some(_) | None => worktree,
            };
            let path = worktree.as_ref().map_or_else(|| locator(&place), |own| own.path.clone());
            let gone = |path: &Path| exists(path).is_ok_and(|there| !there);
            let state = if left || gone(&place) && place.starts_with(&self.root) {
                FoundState::Missing
            } else if gone(&path_of(&path))
                && let Some(detail) = moved_to(&admin, &path_of(&path))
            {
                FoundState::Foreign { detail }
            } else {
                continue;
            };
            found.push(Found { path, attempt: Some(attempt), worktree, state });
        }
    }
}

/// Where the worktree stands, or will, that a note of a creation is about.
fn place_of_note(note: &Path) -> Option<PathBuf> {
    let name = note.file_name()?.as_bytes();
    let place = name.strip_prefix(b".")?.strip_suffix(b".creating")?;
    Some(note.with_file_name(OsStr::from_bytes(place)))
}

fn foreign(path: &Path, why: impl Into<String>) -> Found {
    let state = FoundState::Foreign { detail: why.into() };
    Found { path: locator(path), attempt: None, worktree: None, state }
}

/// Describes what a removal had to leave.
fn left(remains: Remains) -> Found {
    let Remains { tree, record, leftover } = remains;
    let named = leftover.stayed.iter().take(NAMED);
    let named: Vec<String> =
        named.map(|(path, why)| format!("{} ({why})", path.to_string().escape_debug())).collect();
    let unnamed = leftover.stayed.len().saturating_sub(NAMED) as u64 + leftover.more;
    let more = if unnamed == 0 { String::new() } else { format!(" and {unnamed} more") };
    let detail = format!("{}{more}", named.join(", "));
    let attempt = record.as_ref().map(|record| record.attempt);
    let worktree = record.map(|record| record.worktree);
    Found { path: locator(&tree), attempt, worktree, state: FoundState::Leftover { detail } }
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vcs_worktree::scan::tests::place::Place;

    /// One that may not be read keeps nobody from hearing of the others; root may read all, so it is a file here.
    #[test]
    fn a_folder_that_cannot_be_listed_is_reported_and_one_that_went_is_not() {
        let place = Place::new(&[]);
        let (file, gone) = (place.home().join("file"), place.home().join("gone"));
        fs::write(&file, "x").unwrap();
        let mut found = Vec::new();
        place.inner.survey_folder(&file, &mut found);
        place.inner.survey_folder(&gone, &mut found);
        let [only] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(only.path, locator(&file));
        let FoundState::Foreign { detail } = &only.state else { panic!("{only:?}") };
        assert!(detail.contains("cannot be read"), "{detail}");
    }
}
