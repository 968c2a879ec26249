//! The state of a world at one moment, and how it goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use windlass_core::container_service::{Place, Room};
use windlass_core::id::ExecutionId;
use windlass_core::locator::Locator;
use windlass_core::shim::machine::Conn;
use windlass_core::time::Timestamp;

use super::Time;
use super::happened::{Happened, ProcessName, StartId};
use super::kernel::{Kernel, Role};
use super::loss::Loss;
use super::pace::{Ambush, Pace};
use super::shim::Shim;
use super::site::{Holder, HostToken, Site};
use crate::container_service::{HostWatcher, Line, Reply, WatcherKey};
use crate::log_store::Log;
use crate::process_store::Store;
use crate::vcs_worktree::{Disk, WorktreeStep};

/// The state of a world at one moment.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) now: Timestamp,
    pub(crate) time: Time,
    pub(crate) pace: Pace,
    pub(crate) kernel: Kernel,
    /// The places, by their start.
    pub(crate) sites: BTreeMap<StartId, Arc<Site>>,
    pub(crate) logs: BTreeMap<StartId, Arc<Log>>,
    pub(crate) store: Store,
    pub(crate) disk: Arc<Disk>,
    pub(crate) room: Room,
    /// Directories that are not there.
    pub(crate) missing: BTreeSet<Locator>,
    /// What hosts know of starts.
    pub(crate) watchers: BTreeMap<WatcherKey, HostWatcher>,
    /// Connections between hosts and shims.
    pub(crate) lines: BTreeMap<Conn, Line>,
    /// What became of messages to standard input.
    pub(crate) letters: BTreeMap<u64, Reply>,
    /// Whom a host will kill, and when.
    pub(crate) kill_later: Vec<(u64, ProcessName, HostToken)>,
    pub(crate) ambushes: BTreeMap<ExecutionId, (u32, Ambush)>,
    /// How many appends to journals are to fail.
    pub(crate) failing: BTreeMap<ExecutionId, u32>,
    /// When somebody who waits for the time to pass wants to be woken.
    pub(crate) alarms: BTreeMap<u64, Timestamp>,
    /// Repositories whose lock is held, and creations that somebody is at.
    pub(crate) repository_locks: BTreeSet<Locator>,
    pub(crate) creations: BTreeSet<Locator>,
    /// At which step of a worktree the next call stops.
    pub(crate) worktree_stop: Option<WorktreeStep>,
    /// Something happened that hosts may be looking for.
    pub(crate) stirred: bool,
    /// What happened since somebody asked last, if anybody asks.
    pub(crate) happened: Option<Vec<(Timestamp, Happened)>>,
    last_number: u64,
}

impl State {
    pub(crate) fn new(now: Timestamp, time: Time) -> Self {
        Self {
            now,
            time,
            pace: Pace::default(),
            kernel: Kernel::new(now),
            sites: BTreeMap::new(),
            logs: BTreeMap::new(),
            store: Store::default(),
            disk: Arc::default(),
            room: Room { free_bytes: 1 << 40, floor_bytes: 1 << 30 },
            missing: BTreeSet::new(),
            watchers: BTreeMap::new(),
            lines: BTreeMap::new(),
            letters: BTreeMap::new(),
            kill_later: Vec::new(),
            ambushes: BTreeMap::new(),
            failing: BTreeMap::new(),
            alarms: BTreeMap::new(),
            repository_locks: BTreeSet::new(),
            creations: BTreeSet::new(),
            worktree_stop: None,
            stirred: false,
            happened: None,
            last_number: 0,
        }
    }

    /// Notes what happened, if anybody asks for it.
    pub(crate) fn note(&mut self, happened: impl FnOnce() -> Happened) {
        let now = self.now;
        if let Some(all) = &mut self.happened {
            all.push((now, happened()));
        }
    }

    /// Returns a number that was never given before.
    pub(crate) fn fresh_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Makes a place.
    pub(crate) fn make_site(&mut self, start: StartId, place: Place) {
        let site = Site::new(start, place, self.kernel.boot_id());
        self.sites.insert(start, Arc::new(site));
    }

    /// Says whether there is no such directory.
    pub(crate) fn is_missing(&self, directory: &Locator) -> bool {
        self.missing.contains(directory) || self.disk.lacks(directory)
    }

    /// Lists the living shims of an execution.
    pub(crate) fn shims_of(&self, execution: ExecutionId) -> Vec<u32> {
        let shims = self.kernel.processes.iter().filter(|(_, process)| {
            let ours = process.start.is_some_and(|start| start.execution == execution);
            ours && process.lives() && process.shim().is_some()
        });
        shims.map(|(pid, _)| *pid).collect()
    }

    /// Does something to the shims of an execution; says whether there are any.
    pub(crate) fn with_shims(&mut self, execution: ExecutionId, act: fn(&mut Shim)) -> bool {
        let shims = self.shims_of(execution);
        for pid in &shims {
            if let Some(shim) = self.shim(*pid) {
                act(shim);
            }
            self.kernel.wake(*pid);
        }
        self.stirred = true;
        !shims.is_empty()
    }

    /// Counts down the appends that are to fail; says whether this one does.
    pub(crate) fn persist_fails(&mut self, execution: ExecutionId) -> bool {
        match self.failing.get_mut(&execution) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Lets the programs of an execution go on that wait to be released.
    pub(crate) fn release(&mut self, execution: ExecutionId) {
        let mut released = Vec::new();
        for (pid, process) in &mut self.kernel.processes {
            let ours = process.start.is_some_and(|start| start.execution == execution);
            if let Role::Task(task) = &mut process.role
                && ours
                && task.release()
            {
                released.push(*pid);
            }
        }
        released.into_iter().for_each(|pid| self.kernel.wake(pid));
    }

    /// Returns when the next timer fires.
    pub(crate) fn next_timer(&self) -> Option<Timestamp> {
        let boot = self.kernel.booted_at;
        let watchers = self.watchers.values().filter_map(HostWatcher::wake_at_ms);
        let kills = self.kill_later.iter().map(|(at, _, _)| *at);
        let processes = self.kernel.wake_at_ms();
        let of_boot = watchers.chain(kills).chain(processes).min().map(|ms| boot.plus_ms(ms));
        let alarms = self.alarms.values().copied().min();
        [of_boot, alarms].into_iter().flatten().min()
    }

    /// Moves time to `now`, and lets what is due on the way happen in order.
    pub(crate) fn advance(&mut self, now: Timestamp) {
        assert!(now >= self.now, "time went back from {:?} to {now:?}", self.now);
        self.settle();
        while let Some(due) = self.next_timer().filter(|due| *due <= now) {
            self.now = self.now.max(due);
            let now_ms = self.boot_ms();
            self.alarms.retain(|_, at| *at > due);
            self.kernel.wake_due(now_ms);
            // Whoever looks at a place may have looked for long enough.
            self.stirred = true;
            self.settle();
        }
        self.now = now;
    }

    /// Lets everybody go on who can, until nobody can; says whether anybody could.
    pub(crate) fn settle(&mut self) -> bool {
        let mut any = false;
        loop {
            while let Some(pid) = self.kernel.next_ready() {
                any = true;
                match self.kernel.processes.get(&pid).map(|process| &process.role) {
                    Some(Role::Shim(_)) => self.run_shim(pid),
                    Some(Role::Task(_)) => self.run_task(pid),
                    Some(Role::Gated | Role::Stranger | Role::Gone) | None => {}
                }
            }
            if !std::mem::take(&mut self.stirred) {
                return any;
            }
            any = true;
            self.run_watchers();
        }
    }

    /// Cuts the power, and starts the machine again.
    pub(crate) fn lose_power(&mut self, loss: Loss) {
        self.forget_hosts();
        self.kernel.restart(self.now);
        for site in self.sites.values_mut() {
            Arc::make_mut(site).lose(loss.journals);
        }
        for log in self.logs.values_mut() {
            Arc::make_mut(log).lose(loss.logs);
        }
        self.store.lose(loss.store);
        let now = self.now;
        Arc::make_mut(&mut self.disk).lose(now, loss.worktrees);
        self.ambushes.clear();
        self.failing.clear();
        let boot = self.kernel.boot;
        self.note(|| Happened::PowerLost { boot });
    }

    /// Returns the state as it would be if every host were gone.
    pub(crate) fn without_hosts(&mut self) -> Self {
        let watchers = std::mem::take(&mut self.watchers);
        let lines = std::mem::take(&mut self.lines);
        let mut other = self.clone();
        (self.watchers, self.lines) = (watchers, lines);
        other.forget_hosts();
        other
    }

    /// Forgets all that hosts hold.
    pub(crate) fn forget_hosts(&mut self) {
        self.watchers.clear();
        self.lines.clear();
        self.letters.clear();
        self.kill_later.clear();
        self.alarms.clear();
        self.repository_locks.clear();
        self.creations.clear();
        for site in self.sites.values_mut() {
            if matches!(site.lock, Some(Holder::Host(_))) {
                Arc::make_mut(site).lock = None;
            }
        }
    }
}
