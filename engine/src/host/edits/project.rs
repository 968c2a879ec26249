//! Projects: added, changed, removed.

use windlass_core::id::{AttemptId, ProjectId};
use windlass_core::locator::Locator;
use windlass_core::process_store::{Expect, Kind, ProcessStoreExt as _, Query, Revision, Write};
use windlass_core::record::{ProjectDefaults, ProjectRecord, Recorded, TaskRecord};
use windlass_core::vcs_worktree::{VcsWorktreeError, WorktreeRequest};
use windlass_core::workspace::Worktree;

use super::{Editing, Prepared, check_version, put_changed};
use crate::error::{EngineError, RefusalCode};
use crate::handle::SCRIPT_BYTES;
use crate::host::prelude::worktree_error;
use crate::host::records::{decode_error, read_project, store_error};
use crate::request::{ProjectChange, ProjectRequest};

/// The most characters of a name.
const NAME_CHARS: usize = 100;

impl Editing<'_> {
    pub(super) async fn add_project(
        &self,
        request: ProjectRequest,
    ) -> Result<Prepared, EngineError> {
        let ProjectRequest { repo, with } = request;
        let mut defaults = ProjectDefaults::none();
        let name = with.name.clone();
        change_defaults(&mut defaults, with)?;
        let worktree = self.plan(&repo, &defaults).await?;
        let repo = worktree.copy.map_or(repo, |copy| copy.from);
        let name = match name {
            Some(name) => checked_name(&name)?,
            None => checked_name(&directory_name(&repo))?,
        };
        self.check_free(&name, self.owner(), None).await?;
        let record = ProjectRecord {
            id: ProjectId::new(self.at, self.ten),
            name,
            owner: self.caller.owner.clone(),
            repo,
            git_dir: worktree.repo,
            defaults,
            created_at: self.at,
        };
        let writes = vec![Write::Put { record: record.encode(), expect: Expect::Absent }];
        Ok(Prepared { made: record.key(), writes })
    }

    pub(super) async fn set_project(
        &self,
        id: ProjectId,
        version: Option<Revision>,
        change: ProjectChange,
    ) -> Result<Prepared, EngineError> {
        let (before, stored) = read_project(self.ports, self.owner(), id).await?;
        check_version(&stored, version, &id.short())?;
        let mut after = before.clone();
        if let Some(name) = &change.name {
            after.name = checked_name(name)?;
            self.check_free(&after.name, before.owner.as_deref(), Some(id)).await?;
        }
        change_defaults(&mut after.defaults, change)?;
        if (&before.defaults.base, &before.defaults.copy)
            != (&after.defaults.base, &after.defaults.copy)
        {
            self.plan(&after.repo, &after.defaults).await?;
        }
        Ok(Prepared { made: after.key(), writes: put_changed(&before, &after, &stored) })
    }

    pub(super) async fn remove_project(
        &self,
        id: ProjectId,
        force: bool,
    ) -> Result<Prepared, EngineError> {
        let (record, stored) = read_project(self.ports, self.owner(), id).await?;
        let mut query = Query::newest(Kind::Task, Query::MAX_LIMIT);
        query.parent = Some(id.0);
        let tasks = self.ports.store.list_all(query).await.map_err(store_error)?;
        if !tasks.is_empty() && !force {
            let count = match tasks.len() {
                1 => "a task".to_owned(),
                count => format!("{count} tasks"),
            };
            let reason = format!("project {} has {count}", record.name);
            return Err(EngineError::refused(RefusalCode::InUse, reason));
        }
        let mut writes = Vec::with_capacity(tasks.len() + 1);
        for task in tasks {
            // One that cannot be read has attempts that may be active: it is not taken along unseen.
            let known = TaskRecord::decode(&task.record).map_err(decode_error)?;
            self.check_quiet(known.id).await?;
            writes.push(Write::Delete { key: task.record.key, expect: task.revision });
        }
        writes.push(Write::Delete { key: stored.record.key, expect: stored.revision });
        Ok(Prepared { made: stored.record.key, writes })
    }

    /// Asks what a worktree of a project would be: whether there is a repository, with that base, and where.
    async fn plan(
        &self,
        repo: &Locator,
        defaults: &ProjectDefaults,
    ) -> Result<Worktree, EngineError> {
        let mut copy = defaults.copy.clone();
        if copy.is_empty() {
            // Where files would be copied from is the root of the checkout.
            copy.push("*".to_owned());
        }
        let request = WorktreeRequest {
            attempt: AttemptId::new(self.at, self.ten),
            repo: repo.clone(),
            base: defaults.base.clone(),
            branch: None,
            title: String::new(),
            copy,
        };
        let planned: Result<_, VcsWorktreeError> = self.ports.worktrees.plan(request).await;
        Ok(planned.map_err(worktree_error)?.worktree)
    }

    /// Refuses a name that another project of the same owner has.
    async fn check_free(
        &self,
        name: &str,
        owner: Option<&str>,
        except: Option<ProjectId>,
    ) -> Result<(), EngineError> {
        let mut query = Query::newest(Kind::Project, Query::MAX_LIMIT);
        query.owner = owner.map(str::to_owned);
        for stored in self.ports.store.list_all(query).await.map_err(store_error)? {
            let Ok(other) = ProjectRecord::decode(&stored.record) else { continue };
            if other.name == name && other.owner.as_deref() == owner && Some(other.id) != except {
                let reason = format!("{} is called {name} already", other.id.short());
                return Err(EngineError::refused(RefusalCode::NameTaken, reason));
            }
        }
        Ok(())
    }
}

fn change_defaults(
    defaults: &mut ProjectDefaults,
    change: ProjectChange,
) -> Result<(), EngineError> {
    let ProjectChange { name: _, base, setup, cleanup, dev, copy, commit } = change;
    for script in [&setup, &cleanup, &dev].into_iter().flatten().flatten() {
        if script.len() > SCRIPT_BYTES {
            let reason = format!("a script is longer than {} KiB", SCRIPT_BYTES >> 10);
            return Err(EngineError::Invalid { reason });
        }
    }
    let given = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
    for (place, value) in [
        (&mut defaults.base, base),
        (&mut defaults.setup, setup),
        (&mut defaults.cleanup, cleanup),
        (&mut defaults.dev, dev),
    ] {
        if let Some(value) = value {
            *place = given(value);
        }
    }
    defaults.copy = copy.unwrap_or_else(|| std::mem::take(&mut defaults.copy));
    defaults.commit = commit.unwrap_or(defaults.commit);
    Ok(())
}

/// Returns what a locator ends with: the name of a directory, or of a repository that is one.
fn directory_name(repo: &Locator) -> String {
    let text = repo.to_string();
    let last = text.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    last.strip_suffix(".git").filter(|name| !name.is_empty()).unwrap_or(last).to_owned()
}

fn checked_name(name: &str) -> Result<String, EngineError> {
    let name = name.trim();
    let why = if name.is_empty() {
        "a project has a name"
    } else if name.chars().count() > NAME_CHARS {
        "the name of a project has at most 100 characters"
    } else if name.chars().any(char::is_control) {
        "the name of a project is one line without control characters"
    } else {
        return Ok(name.to_owned());
    };
    Err(EngineError::Invalid { reason: why.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_is_called_as_its_directory() {
        for (path, name) in
            [("/srv/app", "app"), ("/srv/app/", "app"), ("/srv/app.git", "app"), ("/.git", ".git")]
        {
            assert_eq!(directory_name(&Locator::new(path)), name);
        }
    }

    #[test]
    fn a_name_is_one_short_line() {
        assert_eq!(checked_name(" a b ").unwrap(), "a b");
        for name in ["", " ", "a\nb", &"x".repeat(101)] {
            assert!(checked_name(name).is_err(), "{name:?}");
        }
    }
}
