//! What becomes of worktrees: S18.

use std::collections::{BTreeMap, BTreeSet};

use windlass_core::action::RunReason;
use windlass_core::id::{AttemptId, Epoch};
use windlass_core::locator::Locator;
use windlass_core::process_store::{Kind, Write};
use windlass_core::record::{AttemptRecord, AttemptStatus, Phase};
use windlass_fakes::faulty::{About, Site, Told};
use windlass_fakes::world::Happened;

use super::super::event::{Answer, Event, Life, What};
use super::super::plan::{Blow, Verb};
use super::super::view::{Value, View};
use super::{Oracle, Violation};

/// S18: nothing is removed without its claim, while anything lives or waits in it, or that does not come back.
#[derive(Debug, Default)]
pub(super) struct NothingLost {
    led_to: BTreeMap<String, AttemptId>,
    /// Files that were written in a directory since it was made.
    written: BTreeMap<Locator, BTreeSet<String>>,
    /// Attempts whose worktree may have been put back to a commit: what was there is in a snapshot.
    put_back: BTreeSet<AttemptId>,
    /// Attempts of which somebody gave up a snapshot, whatever it held.
    given_up: BTreeSet<AttemptId>,
    /// The epochs that hosts acquired last.
    epochs: BTreeMap<Life, Epoch>,
    /// Hosts that were last told that a batch of theirs is durable, which was then right, about whom.
    told: BTreeMap<Life, AttemptId>,
    /// Calls that save or remove and were begun under a claim.
    under_way: BTreeSet<(Life, AttemptId)>,
}

/// Says whether the plan lets a user delete the directory of an attempt.
fn user_deletes(attempt: &AttemptRecord, view: &View<'_>) -> bool {
    view.plan.interventions.iter().any(|intervention| {
        matches!(&intervention.what, Blow::DeleteDirectory { of } if *of == attempt.title)
    })
}

impl NothingLost {
    /// Looks at a directory that goes away.
    fn goes(&self, directory: &Locator, view: &View<'_>) -> Result<(), Violation> {
        let is_there = |attempt: &&std::sync::Arc<AttemptRecord>| {
            attempt.workspace.worktree().is_some_and(|worktree| worktree.path == *directory)
        };
        let Some(attempt) = view.store.attempts().find(is_there) else { return Ok(()) };
        let wrong = |what: &str| {
            let what = format!("the worktree of {} is taken away: {what}", attempt.title);
            Err(Violation::new(self.name(), what))
        };
        if user_deletes(attempt, view) || attempt.status == AttemptStatus::Creating {
            // What was begun of a creation is undone.
            return Ok(());
        }
        if self.is_late(attempt.id, view) {
            return Ok(());
        }
        if attempt.status != AttemptStatus::Removing || attempt.claim.is_none() {
            return wrong("no claim is durable");
        }
        for (_, start) in view.kernel.starts() {
            if start.directory.as_ref() == Some(directory) && !start.living.is_empty() {
                return wrong("a process lives in it");
            }
        }
        let pending =
            view.store.executions_of(attempt.id).any(|record| record.phase < Phase::Ended);
        if pending {
            return wrong("an execution in it has not ended");
        }
        Ok(())
    }

    /// Says whether a call is under way that was right when it began, by a host that was superseded since. What is on
    /// its way already cannot be held back; what it takes away is aside, and whoever removes next finds it there.
    fn is_late(&self, attempt: AttemptId, view: &View<'_>) -> bool {
        let is_old = |life| self.epochs.get(life).is_some_and(|held| *held < view.store.epoch());
        self.under_way.iter().any(|(life, about)| *about == attempt && is_old(life))
    }

    /// Looks at a worktree that was put back to a commit: what is not there any more was saved.
    fn was_put_back(&mut self, writes: &[Write], view: &View<'_>) -> Result<(), Violation> {
        for write in writes.iter().filter(|write| write.key().kind == Kind::Attempt) {
            let Some(kept) = view.store.get(write.key()) else { continue };
            let (Value::Attempt(now), Some(Value::Attempt(before))) = (&kept.value, &kept.before)
            else {
                continue;
            };
            if now.resetting.as_ref().is_some_and(|resetting| resetting.saved) {
                self.put_back.insert(now.id);
            }
            if before.resetting.is_none() || now.resetting.is_some() {
                continue;
            }
            let Some(worktree) = now.workspace.worktree() else { continue };
            let Some(written) = self.written.get_mut(&worktree.path) else { continue };
            let repositories = &view.scene.repositories;
            if !repositories.exists(&worktree.path) {
                continue;
            }
            let is_there = |path: &String| repositories.read(&worktree.path, path).is_some();
            let saved = |path: &&String| repositories.is_saved(now.id, path);
            let excused = user_deletes(now, view)
                || self.given_up.contains(&now.id)
                || view.kernel.power_losses() > 0;
            let lost = written.iter().find(|path| !is_there(path) && !saved(path));
            if let Some(path) = lost.filter(|_| !excused) {
                let title = &now.title;
                let what = format!("the worktree of {title} was put back, and {path} is nowhere");
                return Err(Violation::new("S18 nothing unsaved is removed", what));
            }
            written.retain(is_there);
        }
        Ok(())
    }

    /// Looks at a worktree that was made again.
    fn came_back(&self, id: AttemptId, view: &View<'_>) -> Result<(), Violation> {
        let Some(attempt) = view.store.attempt(id) else { return Ok(()) };
        // It may be gone again by the time that the answer is heard.
        let gone = [AttemptStatus::Creating, AttemptStatus::Removing, AttemptStatus::Removed];
        if gone.contains(&attempt.status) {
            return Ok(());
        }
        // What was not synced when the power went was nobody's to save.
        if user_deletes(attempt, view)
            || self.given_up.contains(&id)
            || view.kernel.power_losses() > 0
        {
            return Ok(());
        }
        let Some(worktree) = attempt.workspace.worktree() else { return Ok(()) };
        let Some(written) = self.written.get(&worktree.path) else { return Ok(()) };
        let repositories = &view.scene.repositories;
        let is_saved = |path: &str| self.put_back.contains(&id) && repositories.is_saved(id, path);
        let missing = written
            .iter()
            .find(|path| repositories.read(&worktree.path, path).is_none() && !is_saved(path));
        match missing {
            None => Ok(()),
            Some(path) => {
                let what = format!("the worktree of {} came back without {path}", attempt.title);
                Err(Violation::new(self.name(), what))
            }
        }
    }
}

/// Looks at the executions of a batch that are new: nothing but a git step of ours is taken under a claim.
fn taken_under_claim(writes: &[Write], view: &View<'_>) -> Option<String> {
    writes.iter().filter(|write| write.key().kind == Kind::Execution).find_map(|write| {
        let kept = view.store.get(write.key())?;
        let Value::Execution(record) = &kept.value else { return None };
        let attempt = view.store.attempt(record.attempt)?;
        let is_new = kept.before.is_none() && record.action.run_reason != RunReason::Git;
        let claimed = is_new && attempt.claim.is_some();
        claimed.then(|| {
            let name = record.client_key.as_deref().unwrap_or("one without a key");
            format!("execution {name} is taken while {} is claimed", attempt.title)
        })
    })
}

impl Oracle for NothingLost {
    fn name(&self) -> &'static str {
        "S18 nothing unsaved is removed"
    }

    fn check(&mut self, event: &Event, view: &View<'_>) -> Result<(), Violation> {
        match &event.what {
            What::Answered { request, answer: Answer::Accepted(accepted), .. } => {
                self.led_to.insert(request.name.clone(), accepted.attempt);
                Ok(())
            }
            What::Answered { request, answer: Answer::Done, .. } => match &request.verb {
                Verb::Restore { of, snapshot: None } => {
                    let named = |attempt: &&std::sync::Arc<AttemptRecord>| attempt.title == *of;
                    let found = view.store.attempts().find(named).map(|attempt| attempt.id);
                    let id = self.led_to.get(of).copied().or(found);
                    id.map_or(Ok(()), |id| self.came_back(id, view))
                }
                _ => Ok(()),
            },
            What::Asked { request, .. } => {
                if let Verb::RemoveSnapshot { of, force, .. } = &request.verb {
                    // What was put back can be made again without the snapshot of what was there.
                    let of = self.led_to.get(of).filter(|id| *force || self.put_back.contains(id));
                    self.given_up.extend(of);
                }
                Ok(())
            }
            What::Committed { writes, .. } => match taken_under_claim(writes, view) {
                None => self.was_put_back(writes, view),
                Some(what) => Err(Violation::new(self.name(), what)),
            },
            What::Acquired { life, lease } => {
                self.epochs.insert(*life, lease.epoch);
                Ok(())
            }
            What::Called { life, call, .. } if matches!(call.site, Site::Save | Site::Remove) => {
                // The news of its claim may have come when that was another host's to say.
                if let About::Attempt(id) = call.about
                    && (self.told.remove(life) == Some(id)
                        || view.store.attempt(id).is_some_and(|attempt| attempt.claim.is_some()))
                {
                    self.under_way.insert((*life, id));
                }
                Ok(())
            }
            What::Returned { life, call, told: Told::Done, .. } if call.site == Site::Commit => {
                if let About::Attempt(id) = call.about {
                    self.told.insert(*life, id);
                }
                Ok(())
            }
            What::Returned { life, call, .. } if matches!(call.site, Site::Save | Site::Remove) => {
                if let About::Attempt(id) = call.about {
                    self.under_way.remove(&(*life, id));
                }
                Ok(())
            }
            What::Happened(Happened::FileWritten { directory, path, .. }) => {
                self.written.entry(directory.clone()).or_default().insert(path.clone());
                Ok(())
            }
            What::Happened(Happened::DirectoryRenamed { from, .. }) => self.goes(from, view),
            What::Happened(Happened::DirectoryRemoved { directory }) => self.goes(directory, view),
            _ => Ok(()),
        }
    }

    fn end(&mut self, _: &View<'_>) -> Result<(), Violation> {
        Ok(())
    }
}
