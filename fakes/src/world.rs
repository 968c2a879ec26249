//! The world that the fakes of one machine share: its kernel, places, logs, records, repositories, and the time.
//!
//! Everything in it is a value, and nothing in it is random. It has no clock: time stands until somebody sets it, or, if it
//! is told to flow, jumps to the next timer when somebody waits. What may go one way or the other is said by whoever calls:
//! see [`Loss`], [`Pace`], [`World::ambush_shim`] and the words of a `script` in the module `program`.

mod command;
mod happened;
mod kernel;
mod loss;
mod pace;
mod pipe;
mod program;
mod shim;
mod shim_calls;
mod site;
mod state;
mod task;

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use windlass_core::container_service::{Place, Room};
use windlass_core::id::{ExecutionId, Nonce};
use windlass_core::locator::Locator;
use windlass_core::time::Timestamp;

pub use self::happened::{Happened, ProcessName, Signaller, StartId};
pub(crate) use self::kernel::{KILL, PID_NAMESPACE, Process, TERM};
pub use self::loss::{Loss, Unsynced};
pub use self::pace::{Ambush, Pace};
pub(crate) use self::shim_calls::survivor;
pub(crate) use self::site::{Holder, HostToken, Site};
pub(crate) use self::state::State;

/// How time passes in a world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Time {
    /// Only [`World::set_now`] moves it.
    #[default]
    Stands,
    /// It jumps to the next timer when somebody waits for an end or for growth.
    Flows,
}

/// A world. Clones are handles to the same one; [`World::fork`] makes another.
#[derive(Clone, Debug)]
pub struct World {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) state: State,
    waiting: Vec<Waker>,
    /// Who wants to know of every change of directories and files.
    followers: Vec<Waker>,
}

impl Shared {
    /// Returns who is to be told that directories or files changed.
    pub(crate) fn take_followers(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.followers)
    }
}

impl Default for World {
    /// Makes an empty world at the beginning of time, which stands.
    fn default() -> Self {
        Self::new(Timestamp(0), Time::Stands)
    }
}

impl World {
    /// Makes an empty world at a time.
    #[must_use]
    pub fn new(now: Timestamp, time: Time) -> Self {
        Self::of(State::new(now, time))
    }

    fn of(state: State) -> Self {
        Self {
            shared: Arc::new(Mutex::new(Shared {
                state,
                waiting: Vec::new(),
                followers: Vec::new(),
            })),
        }
    }

    /// Makes another world that is as this one is now, and goes its own way. It has no hosts: what those of this world
    /// have open is not open there.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::of(self.lock().state.without_hosts())
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

    /// Returns when the next timer of a process, a shim or a host's look at a place fires, if there is one.
    #[must_use]
    pub fn next_timer(&self) -> Option<Timestamp> {
        self.look(State::next_timer)
    }

    /// Says how long things take. Nothing takes any time unless it is said here.
    pub fn set_pace(&self, pace: Pace) {
        self.change(|state| state.pace = pace);
    }

    /// Begins to collect what happens, for [`take_happened`](Self::take_happened).
    pub fn collect_happened(&self) {
        self.edit(|state| {
            state.happened.get_or_insert_default();
        });
    }

    /// Returns what happened since this was called last, in order; nothing where nobody began to collect.
    #[must_use]
    pub fn take_happened(&self) -> Vec<(Timestamp, Happened)> {
        self.edit(|state| state.happened.as_mut().map(std::mem::take).unwrap_or_default())
    }

    /// Cuts the power, and starts the machine again at once: processes are gone, the boot is another one, and what was not
    /// synced is as `loss` says. Hosts are gone as well: whoever drives them drops what they had.
    pub fn power_loss(&self, loss: Loss) {
        self.change(|state| state.lose_power(loss));
    }

    /// Kills the shim of an execution with SIGKILL, and nothing else; says whether there was one.
    pub fn kill_shim(&self, execution: ExecutionId) -> bool {
        self.change(|state| {
            let shims = state.shims_of(execution);
            for pid in &shims {
                state.signal(*pid, KILL, Signaller::Somebody);
            }
            !shims.is_empty()
        })
    }

    /// Stops the shim of an execution as SIGSTOP does, until it is [thawed](Self::thaw_shim) or a host lets it go on; says
    /// whether there was one.
    pub fn freeze_shim(&self, execution: ExecutionId) -> bool {
        self.change(|state| state.with_shims(execution, shim::Shim::freeze))
    }

    /// Lets a stopped shim go on; says whether there was one.
    pub fn thaw_shim(&self, execution: ExecutionId) -> bool {
        self.change(|state| state.with_shims(execution, shim::Shim::thaw))
    }

    /// Does something to the shim of an execution right before it performs an effect of its machine, counted from 0 over
    /// its life. Until then it may not even have been started.
    pub fn ambush_shim(&self, execution: ExecutionId, effect: u32, ambush: Ambush) {
        self.edit(|state| {
            state.ambushes.insert(execution, (effect, ambush));
        });
    }

    /// Lets every stopped shim go on, and forgets what was to be done to any.
    pub fn leave_shims_alone(&self) {
        self.change(|state| {
            state.ambushes.clear();
            let starts: Vec<_> = state.sites.keys().map(|start| start.execution).collect();
            for execution in starts {
                state.with_shims(execution, shim::Shim::thaw);
            }
        });
    }

    /// Lets the next so many appends to the journal of an execution fail, each after its bytes were written: they may or
    /// may not be durable.
    pub fn fail_persists(&self, execution: ExecutionId, count: u32) {
        self.edit(|state| {
            state.failing.insert(execution, count);
        });
    }

    /// Says whether shims can be started.
    pub fn refuse_spawns(&self, refuse: bool) {
        self.edit(|state| state.kernel.refuses_spawns = refuse);
    }

    /// Says how many process numbers there are: numbers are given in order and again from the first that is free. The
    /// first is 2.
    pub fn set_numbers(&self, numbers: u32) {
        self.edit(|state| state.kernel.numbers = numbers);
    }

    /// Starts a process that is nobody's, with this number if one is given; `None` if the number is not free.
    pub fn start_stranger(&self, pid: Option<u32>) -> Option<ProcessName> {
        self.change(|state| state.birth_of_stranger(pid))
    }

    /// Signals whatever process has this number now; nothing happens if none has.
    pub fn signal(&self, pid: u32, signal: u8) {
        self.change(|state| state.signal(pid, signal, Signaller::Somebody));
    }

    /// Says whether a process lives.
    #[must_use]
    pub fn lives(&self, process: ProcessName) -> bool {
        self.look(|state| state.kernel.living(process).is_some())
    }

    /// Lists the processes of an execution that live, its shim aside.
    #[must_use]
    pub fn processes(&self, execution: ExecutionId) -> Vec<ProcessName> {
        self.look(|state| {
            let living = state.kernel.processes.values().filter(|process| {
                let ours = process.start.is_some_and(|start| start.execution == execution);
                ours && process.lives() && process.shim().is_none()
            });
            living.map(|process| process.name).collect()
        })
    }

    /// Says how much room there is. Without free bytes no place is made, and output is dropped.
    pub fn set_room(&self, room: Room) {
        self.edit(|state| state.room = room);
    }

    /// Takes a directory away: nothing can be launched in it.
    pub fn remove_directory(&self, directory: &Locator) {
        self.edit(|state| {
            state.missing.insert(directory.clone());
        });
    }

    /// Lets a command that waits go on.
    pub fn release(&self, execution: ExecutionId) {
        self.change(|state| state.release(execution));
    }

    /// Counts the processes of an execution that live, its shim aside.
    #[must_use]
    pub fn alive(&self, execution: ExecutionId) -> usize {
        self.look(|state| {
            let living = state.kernel.processes.values().filter(|process| {
                let ours = process.start.is_some_and(|start| start.execution == execution);
                ours && process.lives() && process.shim().is_none()
            });
            living.count()
        })
    }

    /// Damages the journal of a place beyond reading.
    pub fn damage(&self, execution: ExecutionId, nonce: Nonce) {
        self.edit(|state| {
            if let Some(site) = state.site(StartId { execution, nonce }) {
                site.damage();
            }
        });
    }

    /// Takes the directory of a place away, with its journal and its log, as somebody does who tidies up by hand.
    pub fn remove_place(&self, execution: ExecutionId, place: &Place) {
        let start = StartId { execution, nonce: place.nonce };
        self.change(|state| {
            state.sites.remove(&start);
            state.logs.remove(&start);
            state.note(|| Happened::PlaceRemoved { start });
        });
    }

    /// Reads the state.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock().state)
    }

    /// Changes something that nobody waits for and that gives no process anything to do.
    pub(crate) fn edit<T>(&self, edit: impl FnOnce(&mut State) -> T) -> T {
        edit(&mut self.lock().state)
    }

    /// Changes the state, lets everybody go on who can, and wakes everybody who waits for something in it.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut shared = self.lock();
        let changed = change(&mut shared.state);
        shared.state.settle();
        let waiting = std::mem::take(&mut shared.waiting);
        let followers = shared.take_followers();
        drop(shared);
        waiting.into_iter().chain(followers).for_each(Waker::wake);
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
            let answer = ready(state);
            // Whoever asks may have given somebody something to do.
            let busy = state.settle();
            changed |= busy;
            if answer.is_some() {
                break answer;
            }
            if busy {
                continue;
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

    /// Wakes somebody when directories or files change next.
    pub(crate) fn follow_disk(&self, waker: &Waker) {
        let mut shared = self.lock();
        if !shared.followers.iter().any(|known| known.will_wake(waker)) {
            shared.followers.push(waker.clone());
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Shared> {
        // A failed assertion of one caller must not hide what the others see.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
