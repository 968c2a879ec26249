//! The virtual kernel: numbers that are given again, start times, parents, groups, sessions, zombies and signals.
//!
//! It knows what a process is, not what it does: that is a [`Task`] or a [`Shim`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use windlass_core::outcome::Exit;
use windlass_core::time::Timestamp;

use super::State;
use super::happened::{Happened, ProcessName, Signaller, StartId};
use super::shim::Shim;
use super::task::{Heard, Task};

/// The request to end.
pub(crate) const TERM: u8 = 15;
/// The end.
pub(crate) const KILL: u8 = 9;
/// Nobody reads what was written.
pub(crate) const PIPE: u8 = 13;
/// A child changed its state.
pub(crate) const CHILD: u8 = 17;
/// The request to go on.
pub(crate) const CONTINUE: u8 = 18;
/// As from a keyboard.
pub(crate) const INTERRUPT: u8 = 2;

/// The process that adopts what nobody else does, and reaps it.
pub(crate) const INIT: u32 = 1;
/// The first number that is given again when they have run out.
const FIRST: u32 = 2;
/// How many numbers there are, unless somebody says otherwise: few enough to run out, enough for some hundred at once.
const NUMBERS: u32 = 512;
/// Milliseconds of a kernel tick.
const TICK_MS: u64 = 10;
/// The inode of the one pid namespace.
pub(crate) const PID_NAMESPACE: u64 = 0xf000_0000;

/// Every process, and what is needed to make more.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    pub(crate) boot: u32,
    pub(crate) booted_at: Timestamp,
    pub(crate) numbers: u32,
    last: u32,
    pub(crate) processes: BTreeMap<u32, Process>,
    /// The start times of those who had the numbers last, in this boot.
    given: BTreeMap<u32, u64>,
    /// Who has something to do, in order.
    ready: VecDeque<u32>,
    /// No shim can be started.
    pub(crate) refuses_spawns: bool,
}

/// A process, or what its parent has not reaped of it.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) name: ProcessName,
    pub(crate) parent: u32,
    pub(crate) group: u32,
    pub(crate) session: u32,
    /// Of which start it is; `None` for a stranger.
    pub(crate) start: Option<StartId>,
    /// Its environment says so.
    pub(crate) marked: bool,
    /// It is the command's own process.
    pub(crate) leader: bool,
    /// How it ended, until it is reaped.
    pub(crate) exit: Option<Exit>,
    pub(crate) role: Role,
    is_ready: bool,
}

/// What a process is.
#[derive(Clone, Debug)]
pub(crate) enum Role {
    /// A shim.
    Shim(Box<Shim>),
    /// A child that waits behind its gate.
    Gated,
    /// A program.
    Task(Task),
    /// Nobody's: it does nothing, and dies from what others die from.
    Stranger,
    /// It has ended.
    Gone,
}

/// What a new process is made with.
pub(crate) struct Birth {
    pub(crate) parent: u32,
    /// The group; `None` is one of its own.
    pub(crate) group: Option<u32>,
    /// The session; `None` is one of its own.
    pub(crate) session: Option<u32>,
    pub(crate) start: Option<StartId>,
    pub(crate) marked: bool,
    pub(crate) leader: bool,
    pub(crate) role: Role,
}

impl Process {
    pub(crate) fn lives(&self) -> bool {
        self.exit.is_none()
    }

    /// Returns the shim that it is.
    pub(crate) fn shim(&self) -> Option<&Shim> {
        match &self.role {
            Role::Shim(shim) => Some(shim),
            Role::Gated | Role::Task(_) | Role::Stranger | Role::Gone => None,
        }
    }

    /// Returns when it wants to be woken, in milliseconds since the boot.
    fn wake_at_ms(&self) -> Option<u64> {
        match &self.role {
            Role::Shim(shim) => shim.wake_at_ms(),
            Role::Task(task) => task.wake_at_ms(),
            Role::Gated | Role::Stranger | Role::Gone => None,
        }
    }
}

impl Kernel {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            boot: 1,
            booted_at: now,
            numbers: NUMBERS,
            last: INIT,
            processes: BTreeMap::new(),
            given: BTreeMap::new(),
            ready: VecDeque::new(),
            refuses_spawns: false,
        }
    }

    /// Everything is gone, and another boot begins.
    pub(crate) fn restart(&mut self, now: Timestamp) {
        self.boot += 1;
        self.booted_at = now;
        self.last = INIT;
        self.processes.clear();
        self.given.clear();
        self.ready.clear();
    }

    /// Returns this boot's id.
    pub(crate) fn boot_id(&self) -> [u8; 16] {
        let mut id = [0xb0; 16];
        id[..4].copy_from_slice(&self.boot.to_be_bytes());
        id
    }

    /// Says whether a process may be given a number now: nobody has it, and no group or session is called by it.
    fn is_free(&self, pid: u32) -> bool {
        !self.processes.contains_key(&pid)
            && self.processes.values().all(|other| other.group != pid && other.session != pid)
    }

    /// Returns the number that the next process gets.
    pub(super) fn next_number(&self) -> Option<u32> {
        let limit = self.numbers.max(FIRST + 1);
        let after = |pid: u32| if pid + 1 >= limit { FIRST } else { pid + 1 };
        let mut pid = after(self.last);
        for _ in 0..limit {
            if self.is_free(pid) {
                return Some(pid);
            }
            pid = after(pid);
        }
        None
    }

    /// Makes a process; `None` if there is no number for it. Returns its name and, if its number was used before in this
    /// boot, who had it last.
    fn make(
        &mut self,
        pid: u32,
        now: Timestamp,
        birth: Birth,
    ) -> (ProcessName, Option<ProcessName>) {
        self.last = pid;
        let now_ticks = now.ms_since(self.booted_at) / TICK_MS;
        let before = self.given.get(&pid).copied();
        let start_ticks = before.map_or(now_ticks, |before| now_ticks.max(before + 1));
        self.given.insert(pid, start_ticks);
        let name = ProcessName { boot: self.boot, pid, start_ticks };
        let Birth { parent, group, session, start, marked, leader, role } = birth;
        let process = Process {
            name,
            parent,
            group: group.unwrap_or(pid),
            session: session.unwrap_or(pid),
            start,
            marked,
            leader,
            exit: None,
            role,
            is_ready: false,
        };
        self.processes.insert(pid, process);
        let formerly = before.map(|start_ticks| ProcessName { boot: self.boot, pid, start_ticks });
        (name, formerly)
    }

    /// Returns the process of this name, if it lives.
    pub(crate) fn living(&self, name: ProcessName) -> Option<&Process> {
        self.processes.get(&name.pid).filter(|process| process.name == name && process.lives())
    }

    /// Says that a process has something to do.
    pub(crate) fn wake(&mut self, pid: u32) {
        if let Some(process) = self.processes.get_mut(&pid)
            && process.lives()
            && !process.is_ready
        {
            process.is_ready = true;
            self.ready.push_back(pid);
        }
    }

    /// Returns who has something to do, and lets it be forgotten.
    pub(crate) fn next_ready(&mut self) -> Option<u32> {
        while let Some(pid) = self.ready.pop_front() {
            if let Some(process) = self.processes.get_mut(&pid)
                && process.is_ready
            {
                process.is_ready = false;
                return Some(pid);
            }
        }
        None
    }

    /// Returns when somebody wants to be woken, in milliseconds since the boot.
    pub(crate) fn wake_at_ms(&self) -> Option<u64> {
        self.processes.values().filter_map(Process::wake_at_ms).min()
    }

    /// Says that everybody whose time has come has something to do.
    pub(crate) fn wake_due(&mut self, now_ms: u64) {
        for (pid, process) in &mut self.processes {
            if !process.is_ready && process.wake_at_ms().is_some_and(|at| at <= now_ms) {
                process.is_ready = true;
                self.ready.push_back(*pid);
            }
        }
    }

    /// Lists what is below a process, dead or alive.
    pub(crate) fn descendants(&self, of: u32) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        let mut next = vec![of];
        while let Some(parent) = next.pop() {
            for (pid, process) in &self.processes {
                if process.parent == parent && found.insert(*pid) {
                    next.push(*pid);
                }
            }
        }
        found
    }

    /// Lists the children of a process, dead or alive.
    pub(crate) fn children(&self, of: u32) -> Vec<u32> {
        let children = self.processes.iter().filter(|(_, process)| process.parent == of);
        children.map(|(pid, _)| *pid).collect()
    }

    /// Lists who lives of a group.
    pub(crate) fn group(&self, group: u32) -> Vec<u32> {
        let members =
            self.processes.iter().filter(|(_, process)| process.group == group && process.lives());
        members.map(|(pid, _)| *pid).collect()
    }

    /// Lists who lives of a start, its shim aside.
    pub(crate) fn members(&self, start: StartId) -> impl Iterator<Item = &Process> {
        self.processes.values().filter(move |process| {
            process.start == Some(start) && process.lives() && process.shim().is_none()
        })
    }
}

impl State {
    /// Milliseconds since the boot.
    pub(crate) fn boot_ms(&self) -> u64 {
        self.now.ms_since(self.kernel.booted_at)
    }

    /// Makes a process; `None` if there is no number for it.
    pub(crate) fn birth(&mut self, birth: Birth) -> Option<ProcessName> {
        let pid = self.kernel.next_number()?;
        let (process, formerly) = self.kernel.make(pid, self.now, birth);
        if let Some(formerly) = formerly {
            self.note(|| Happened::PidReused { process, formerly });
        }
        Some(process)
    }

    /// Makes a process that is nobody's, with this number if it is free.
    pub(crate) fn birth_of_stranger(&mut self, pid: Option<u32>) -> Option<ProcessName> {
        let pid = match pid {
            Some(pid) => Some(pid).filter(|pid| *pid > INIT && self.kernel.is_free(*pid)),
            None => self.kernel.next_number(),
        }?;
        let birth = Birth {
            parent: INIT,
            group: None,
            session: None,
            start: None,
            marked: false,
            leader: false,
            role: Role::Stranger,
        };
        let (process, formerly) = self.kernel.make(pid, self.now, birth);
        if let Some(formerly) = formerly {
            self.note(|| Happened::PidReused { process, formerly });
        }
        self.note(|| Happened::StrangerStarted { process });
        Some(process)
    }

    /// Ends a process: it is a zombie until its parent reaps it, and its children get another parent.
    pub(crate) fn end(&mut self, pid: u32, exit: Exit, out_of_memory: bool) {
        let Some(process) = self.kernel.processes.get_mut(&pid) else { return };
        if !process.lives() {
            return;
        }
        process.exit = Some(exit);
        let role = std::mem::replace(&mut process.role, Role::Gone);
        let (name, parent, start, leader) =
            (process.name, process.parent, process.start, process.leader);
        match role {
            Role::Shim(shim) => self.shim_gone(name, &shim, exit),
            Role::Task(_) | Role::Stranger | Role::Gone => {
                self.note(|| Happened::Exited {
                    start,
                    process: name,
                    leader,
                    exit,
                    out_of_memory,
                });
            }
            // It never executed anything.
            Role::Gated => {}
        }
        if leader {
            self.leader_ended(name, exit);
        }
        self.orphan_children(pid);
        self.tell_parent(pid, parent);
        self.tell_reader(start);
        self.stirred = true;
    }

    /// Gives the children of a process to the shim that it is below, or to the first process.
    fn orphan_children(&mut self, of: u32) {
        let mut reaper = self.kernel.processes.get(&of).map_or(INIT, |process| process.parent);
        while reaper != INIT {
            match self.kernel.processes.get(&reaper) {
                Some(above) if above.lives() && above.shim().is_some() => break,
                Some(above) => reaper = above.parent,
                None => reaper = INIT,
            }
        }
        for child in self.kernel.children(of) {
            let Some(process) = self.kernel.processes.get_mut(&child) else { continue };
            process.parent = reaper;
            if !process.lives() {
                self.tell_parent(child, reaper);
            }
        }
    }

    /// Tells the parent of a zombie; the first process reaps at once.
    fn tell_parent(&mut self, pid: u32, parent: u32) {
        match self.kernel.processes.get(&parent) {
            Some(above) if above.lives() => {
                if let Some(above) = self.kernel.processes.get_mut(&parent)
                    && let Role::Shim(shim) = &mut above.role
                {
                    shim.child_changed();
                }
                self.kernel.wake(parent);
            }
            Some(_) | None => drop(self.kernel.processes.remove(&pid)),
        }
    }

    /// Lets the shim of a start look at its pipes.
    pub(crate) fn tell_reader(&mut self, start: Option<StartId>) {
        if let Some(pid) = start.and_then(|start| self.shim_of(start)) {
            self.kernel.wake(pid);
        }
    }

    /// Returns the living shim of a start.
    pub(crate) fn shim_of(&self, start: StartId) -> Option<u32> {
        let shims = self.kernel.processes.iter();
        let mut shims =
            shims.filter(|(_, process)| process.start == Some(start) && process.lives());
        shims.find(|(_, process)| process.shim().is_some()).map(|(pid, _)| *pid)
    }

    /// Signals a process, if it lives.
    pub(crate) fn signal(&mut self, pid: u32, signal: u8, by: Signaller) {
        let Some(process) = self.kernel.processes.get(&pid).filter(|process| process.lives())
        else {
            return;
        };
        let (start, name) = (process.start, process.name);
        self.note(|| Happened::Signalled { start, process: name, signal, by });
        let Some(process) = self.kernel.processes.get_mut(&pid) else { return };
        let heard = match &mut process.role {
            Role::Shim(shim) if signal == TERM => {
                shim.terminated();
                Heard::Later
            }
            Role::Shim(shim) if signal == CONTINUE => {
                shim.thaw();
                Heard::Later
            }
            Role::Shim(_) if signal != KILL => Heard::Ignored,
            Role::Task(task) => task.hear(signal, self.now.ms_since(self.kernel.booted_at)),
            Role::Shim(_) | Role::Gated | Role::Stranger | Role::Gone => Heard::Dies,
        };
        match heard {
            Heard::Dies => self.end(pid, Exit::Signal(signal), false),
            Heard::Later => self.kernel.wake(pid),
            Heard::Ignored => {}
        }
    }

    /// Takes a zombie off the list; says whether it was one.
    pub(crate) fn reap(&mut self, pid: u32) -> bool {
        let is_zombie = self.kernel.processes.get(&pid).is_some_and(|process| !process.lives());
        if is_zombie {
            self.kernel.processes.remove(&pid);
        }
        is_zombie
    }
}
