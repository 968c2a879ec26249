//! What lives: S9, S10, S11, S12.

use std::collections::{BTreeMap, BTreeSet};

use futures::FutureExt as _;
use windlass_core::container_service::ContainerService as _;
use windlass_core::id::{AttemptId, Epoch, ExecutionId};
use windlass_core::process_store::{Kind, Write};
use windlass_core::record::{AttemptStatus, ExecutionRecord, Phase};
use windlass_core::vcs_worktree::{FoundState, VcsWorktree as _};
use windlass_fakes::faulty::{About, Site};
use windlass_fakes::world::{Happened, ProcessName, Signaller, StartId};
use windlass_fakes::{MemoryContainers, MemoryWorktrees};

use super::super::event::{Event, Life, What};
use super::super::place;
use super::super::view::{Start, View};
use super::{Oracle, Violation};

const TERM: u8 = 15;
const KILL: u8 = 9;

/// Says whether a record names all that lives of a start.
fn names_all(record: &ExecutionRecord, start: &Start) -> bool {
    if record.more_survivors > 0 {
        let named = record.survivors.len() as u64 + u64::from(record.more_survivors);
        return start.living.len() as u64 <= named;
    }
    start.living.iter().all(|name| record.survivors.iter().any(|left| left.pid == name.pid))
}

/// S9: nothing is final while something of it lives that is not named.
#[derive(Debug, Default)]
pub(super) struct NamedSurvivors;

impl Oracle for NamedSurvivors {
    fn name(&self) -> &'static str {
        "S9 survivors are named"
    }

    fn check(&mut self, event: &Event, view: &View<'_>) -> Result<(), Violation> {
        let What::Committed { writes, .. } = &event.what else { return Ok(()) };
        for write in writes.iter().filter(|write| write.key().kind == Kind::Execution) {
            let id = windlass_core::id::ExecutionId(write.key().id);
            let Some(record) = view.store.execution(id) else { continue };
            if record.phase != Phase::Final {
                continue;
            }
            for (_, start) in view.kernel.starts_of(id) {
                if !names_all(record, start) {
                    let name = record.client_key.as_deref().unwrap_or("a git step");
                    let what = format!(
                        "execution {name} is final, {} of its processes live, and {} are named",
                        start.living.len(),
                        record.survivors.len()
                    );
                    return Err(Violation::new(self.name(), what));
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, _: &View<'_>) -> Result<(), Violation> {
        Ok(())
    }
}

/// S10: signals reach only whom they are meant for, TERM comes before KILL, and a repeated stop is no second one.
#[derive(Debug, Default)]
pub(super) struct Signals {
    asked: BTreeMap<StartId, u64>,
    told: BTreeMap<(StartId, ProcessName), u64>,
    quick: bool,
}

impl Oracle for Signals {
    fn name(&self) -> &'static str {
        "S10 signals"
    }

    fn check(&mut self, event: &Event, view: &View<'_>) -> Result<(), Violation> {
        if let What::Asked { request, .. } = &event.what {
            use super::super::plan::Verb;
            self.quick |= matches!(request.verb, Verb::Stop { grace_ms: Some(0), .. });
        }
        let What::Happened(Happened::Signalled { start, process, signal, by }) = &event.what else {
            return Ok(());
        };
        let wrong = |what: &str| Err(Violation::new("S10 signals", what));
        match by {
            Signaller::Shim(sender) => {
                if *start != Some(*sender) {
                    return wrong("a shim signals a process that is not of its execution");
                }
                if *signal == TERM {
                    let first = self.told.insert((*sender, *process), event.number);
                    self.asked.entry(*sender).or_insert(event.number);
                    if let Some(first) = first {
                        let what = "a process is asked twice to end";
                        return Err(Violation::new("S10 signals", what).because([first]));
                    }
                }
                if *signal == KILL && !self.asked.contains_key(sender) && !self.quick {
                    return wrong("a process is killed that was not asked to end");
                }
                Ok(())
            }
            Signaller::Host => {
                let Some(start) = start else {
                    return wrong("a host signals a process that is nobody's");
                };
                let unwatched = view.kernel.of_start(*start).is_some_and(|start| start.shim_killed);
                if unwatched { Ok(()) } else { wrong("a host signals a process whose shim lives") }
            }
            Signaller::Itself | Signaller::Kernel | Signaller::Somebody => Ok(()),
        }
    }

    fn end(&mut self, _: &View<'_>) -> Result<(), Violation> {
        Ok(())
    }
}

/// S11: every tree that lives has exactly one record, which names its start.
#[derive(Debug, Default)]
pub(super) struct Owned;

impl Owned {
    fn look(&self, view: &View<'_>) -> Result<(), Violation> {
        for (id, start) in view.kernel.starts().filter(|(_, start)| !start.living.is_empty()) {
            let record = view.store.execution(id.execution);
            let nonce = record.and_then(|record| record.place.as_ref()).map(|place| place.nonce);
            if nonce != Some(id.nonce) {
                let count = start.living.len();
                let what = format!("{count} processes live of a start that no record names");
                return Err(Violation::new(self.name(), what));
            }
        }
        Ok(())
    }
}

impl Oracle for Owned {
    fn name(&self) -> &'static str {
        "S11 every tree is owned"
    }

    fn check(&mut self, event: &Event, view: &View<'_>) -> Result<(), Violation> {
        match event.what {
            What::HostServes { .. } | What::HostSays { .. } | What::Healed => self.look(view),
            _ => Ok(()),
        }
    }

    fn end(&mut self, view: &View<'_>) -> Result<(), Violation> {
        self.look(view)
    }
}

/// S12: when everything has ended nothing is left over: no process, place or worktree that nobody knows.
#[derive(Debug, Default)]
pub(super) struct NoOrphans {
    epochs: BTreeMap<Life, Epoch>,
    /// Attempts whose worktree a host made that had lost the records meanwhile. The lock of the data directory keeps such two
    /// apart; what it does all the same is for cleanup, which finds it.
    late: BTreeSet<AttemptId>,
    /// When the last host took over, and when executions became final, by the number of the event.
    served: u64,
    finals: BTreeMap<ExecutionId, u64>,
}

impl NoOrphans {
    fn places(&self, view: &View<'_>) -> Result<(), Violation> {
        let containers = MemoryContainers::new(view.scene.world.clone());
        let places = containers.places().now_or_never().and_then(Result::ok).unwrap_or_default();
        for (execution, place) in places {
            let record = view.store.execution(execution);
            if self.finals.get(&execution).is_some_and(|at| *at > self.served) {
                // A host that died before it recorded this place left it; the next one to come clears it. Before its
                // execution is final it may be one that is about to be used.
                continue;
            }
            if record.is_none_or(|record| record.place.as_ref() != Some(&place)) {
                let what = format!("{} is the place of no record", place.locator);
                return Err(Violation::new(self.name(), what));
            }
        }
        Ok(())
    }

    fn worktrees(&self, view: &View<'_>) -> Result<(), Violation> {
        let repositories = &view.scene.repositories;
        let worktrees = MemoryWorktrees::open(repositories, place::DATA);
        let repos: BTreeSet<_> = view
            .store
            .attempts()
            .filter_map(|attempt| attempt.workspace.worktree().map(|tree| tree.repo.clone()))
            .collect();
        let repos: Vec<_> = repos.into_iter().collect();
        let found = worktrees.survey(&repos).now_or_never().and_then(Result::ok);
        for found in found.unwrap_or_default() {
            let Some(attempt) = found.attempt.filter(|id| !self.late.contains(id)) else {
                continue;
            };
            let wrong =
                |what: &str| Err(Violation::new(self.name(), format!("{}: {what}", found.path)));
            let Some(attempt) = view.store.attempt(attempt) else {
                return wrong("a worktree whose attempt has no record");
            };
            match found.state {
                FoundState::Creating => return wrong("a worktree is half made"),
                FoundState::Removing => return wrong("a worktree is half removed"),
                FoundState::Whole | FoundState::Missing
                    if attempt.status == AttemptStatus::Removed =>
                {
                    return wrong("a worktree is there that is recorded as removed");
                }
                FoundState::Whole
                | FoundState::Missing
                | FoundState::Leftover { .. }
                | FoundState::Foreign { .. } => {}
            }
        }
        Ok(())
    }
}

impl Oracle for NoOrphans {
    fn name(&self) -> &'static str {
        "S12 no orphans"
    }

    fn check(&mut self, event: &Event, view: &View<'_>) -> Result<(), Violation> {
        match &event.what {
            What::Acquired { life, lease } => {
                self.epochs.insert(*life, lease.epoch);
            }
            What::HostServes { .. } => self.served = event.number,
            What::Committed { writes, .. } => {
                let of_executions =
                    writes.iter().map(Write::key).filter(|key| key.kind == Kind::Execution);
                for id in of_executions.map(|key| ExecutionId(key.id)) {
                    if view.store.execution(id).is_some_and(|it| it.phase == Phase::Final) {
                        self.finals.entry(id).or_insert(event.number);
                    }
                }
            }
            What::Performed { life, call, .. } if call.site == Site::Create => {
                let is_old = self.epochs.get(life).is_some_and(|held| *held < view.store.epoch());
                if let (true, About::Attempt(id)) = (is_old, call.about) {
                    self.late.insert(id);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, view: &View<'_>) -> Result<(), Violation> {
        for (id, start) in view.kernel.starts().filter(|(_, start)| !start.living.is_empty()) {
            let named = view
                .store
                .execution(id.execution)
                .is_some_and(|record| record.phase == Phase::Final && names_all(record, start));
            if !named {
                let what =
                    "processes live of an execution that has not ended or does not name them";
                return Err(Violation::new(self.name(), what));
            }
        }
        self.places(view)?;
        self.worktrees(view)
    }
}
