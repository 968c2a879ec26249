//! The world that the fakes of one machine share: places, processes, logs, and the time.
//!
//! Everything in it is a value. It has no clock: time stands until somebody sets it, or, if it is told to flow, jumps to the
//! next timer when somebody waits.

mod process;
mod script;

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use windlass_core::container_service::{Place, Room};
use windlass_core::id::{Epoch, ExecutionId};
use windlass_core::locator::Locator;
use windlass_core::time::Timestamp;

pub(crate) use self::process::{INPUT_LIMIT_BYTES, Process, Refusal, Step};
pub(crate) use self::script::{Program, Script};
use crate::log_store::Log;

/// How time passes in a world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Time {
    /// Only [`World::set_now`] moves it.
    #[default]
    Stands,
    /// It jumps to the next timer when somebody waits for an end or for growth.
    Flows,
}

/// The state of a world at one moment.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) now: Timestamp,
    time: Time,
    last_pid: u32,
    last_identity: u64,
    /// What is in each place, by its locator.
    pub(crate) sites: BTreeMap<Locator, Site>,
    /// The logs, by the locator of their place.
    pub(crate) logs: BTreeMap<Locator, Log>,
    missing: BTreeSet<Locator>,
    pub(crate) room: Room,
}

/// What is in a place.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) execution: ExecutionId,
    pub(crate) place: Place,
    /// The highest epoch that was heard of.
    pub(crate) epoch: Epoch,
    pub(crate) evidence: Evidence,
}

/// What a place says about its execution.
#[derive(Clone, Debug)]
pub(crate) enum Evidence {
    /// Nothing was started.
    Empty,
    /// Nothing was started and nothing ever will be.
    Closed,
    /// It cannot be read.
    Damaged,
    /// It was launched.
    Launched(Box<Process>),
}

impl Site {
    /// Takes note of an epoch; returns whether it is the highest.
    pub(crate) fn raise(&mut self, epoch: Epoch) -> bool {
        self.epoch = self.epoch.max(epoch);
        self.epoch == epoch
    }

    /// Returns what was launched.
    pub(crate) fn process(&self) -> Option<&Process> {
        match &self.evidence {
            Evidence::Launched(process) => Some(process),
            Evidence::Empty | Evidence::Closed | Evidence::Damaged => None,
        }
    }
}

impl State {
    /// Returns a process number that was never given before.
    pub(crate) fn fresh_pid(&mut self) -> u32 {
        self.last_pid += 1;
        self.last_pid
    }

    /// Returns an identity that no room had before.
    pub(crate) fn fresh_identity(&mut self) -> String {
        self.last_identity += 1;
        format!("room {}", self.last_identity)
    }

    pub(crate) fn is_missing(&self, directory: &Locator) -> bool {
        self.missing.contains(directory)
    }

    /// Does something to what was launched in a place, with its log at hand.
    pub(crate) fn with_process<T>(
        &mut self,
        locator: &Locator,
        act: impl FnOnce(&mut Process, &mut Log, Timestamp) -> T,
    ) -> Option<T> {
        let site = self.sites.get_mut(locator)?;
        let Evidence::Launched(process) = &mut site.evidence else { return None };
        let log = self.logs.entry(locator.clone()).or_default();
        Some(act(process, log, self.now))
    }

    /// Returns when the next timer of any shim fires.
    fn next_timer(&self) -> Option<Timestamp> {
        self.sites.values().filter_map(|site| site.process()?.next_timer()).min()
    }

    /// Moves time to `now`, and fires what is due on the way, in order.
    fn advance(&mut self, now: Timestamp) {
        assert!(now >= self.now, "time went back from {:?} to {now:?}", self.now);
        while let Some(due) = self.next_timer().filter(|due| *due <= now) {
            self.now = self.now.max(due);
            let locators: Vec<Locator> = self.sites.keys().cloned().collect();
            for locator in locators {
                self.with_process(&locator, |process, log, now| process.fire(log, now));
            }
        }
        self.now = now;
    }
}

/// A world. Clones are handles to the same one; [`World::fork`] makes another.
#[derive(Clone, Debug)]
pub struct World {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    state: State,
    waiting: Vec<Waker>,
}

impl World {
    /// Makes an empty world at a time.
    #[must_use]
    pub fn new(now: Timestamp, time: Time) -> Self {
        Self::of(State {
            now,
            time,
            last_pid: 0,
            last_identity: 0,
            sites: BTreeMap::new(),
            logs: BTreeMap::new(),
            missing: BTreeSet::new(),
            room: Room { free_bytes: 1 << 40, floor_bytes: 1 << 30 },
        })
    }

    fn of(state: State) -> Self {
        Self { shared: Arc::new(Mutex::new(Shared { state, waiting: Vec::new() })) }
    }

    /// Makes another world that is as this one is now, and goes its own way.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::of(self.lock().state.clone())
    }

    /// Returns the time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.look(|state| state.now)
    }

    /// Moves the time on; what is due happens in order.
    ///
    /// # Panics
    ///
    /// When time would go back.
    pub fn set_now(&self, now: Timestamp) {
        self.change(|state| state.advance(now));
    }

    /// Returns when the next timer fires, if there is one.
    #[must_use]
    pub fn next_timer(&self) -> Option<Timestamp> {
        self.look(State::next_timer)
    }

    /// Says how much room there is.
    pub fn set_room(&self, room: Room) {
        self.change(|state| state.room = room);
    }

    /// Takes a directory away: nothing can be launched in it.
    pub fn remove_directory(&self, directory: &Locator) {
        self.change(|state| state.missing.insert(directory.clone()));
    }

    /// Lets a command that waits go on.
    pub fn release(&self, execution: ExecutionId) {
        self.change(|state| {
            for locator in state.locators_of(execution) {
                state.with_process(&locator, |process, log, now| {
                    process.step(Step::Release, log, now)
                });
            }
        });
    }

    /// Counts the processes of an execution that live.
    #[must_use]
    pub fn alive(&self, execution: ExecutionId) -> usize {
        self.look(|state| {
            let of_execution = state.sites.values().filter(|site| site.execution == execution);
            of_execution.filter_map(Site::process).map(Process::alive).sum()
        })
    }

    /// Kills what supervises an execution, and nothing else.
    pub fn kill_supervisor(&self, place: &Place) {
        self.change(|state| {
            state.with_process(&place.locator, |process, _, _| process.kill_supervisor());
        });
    }

    /// Damages the evidence in a place beyond reading. Its processes die with it.
    pub fn damage(&self, place: &Place) {
        self.change(|state| {
            if let Some(site) = state.sites.get_mut(&place.locator) {
                site.evidence = Evidence::Damaged;
            }
        });
    }

    /// Reads the state.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock().state)
    }

    /// Changes the state, and wakes everybody who waits for something in it.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut shared = self.lock();
        let changed = change(&mut shared.state);
        let waiting = std::mem::take(&mut shared.waiting);
        drop(shared);
        waiting.into_iter().for_each(Waker::wake);
        changed
    }

    /// Waits until `ready` has an answer. Where time flows, it passes meanwhile.
    pub(crate) async fn wait<T>(&self, mut ready: impl FnMut(&mut State) -> Option<T> + Send) -> T {
        poll_fn(|context| self.poll_wait(context, &mut ready)).await
    }

    fn poll_wait<T>(
        &self,
        context: &Context<'_>,
        ready: &mut impl FnMut(&mut State) -> Option<T>,
    ) -> Poll<T> {
        let mut shared = self.lock();
        let mut changed = false;
        let answer = loop {
            let state = &mut shared.state;
            if let Some(answer) = ready(state) {
                // Whoever finds its answer may have changed something, for example swept what nobody watches over.
                changed = true;
                break Some(answer);
            }
            match state.next_timer() {
                Some(due) if state.time == Time::Flows => {
                    state.advance(due.max(state.now));
                    changed = true;
                }
                _ => break None,
            }
        };
        let others = if changed { std::mem::take(&mut shared.waiting) } else { Vec::new() };
        let known = |waker: &Waker| waker.will_wake(context.waker());
        if answer.is_none() && !shared.waiting.iter().any(known) {
            shared.waiting.push(context.waker().clone());
        }
        drop(shared);
        others.into_iter().for_each(Waker::wake);
        answer.map_or(Poll::Pending, Poll::Ready)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // A failed assertion of one caller must not hide what the others see.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn locators_of(&self, execution: ExecutionId) -> Vec<Locator> {
        let of_execution = self.sites.iter().filter(|(_, site)| site.execution == execution);
        of_execution.map(|(locator, _)| locator.clone()).collect()
    }
}
