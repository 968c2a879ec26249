//! A shim: the machine that ships, with its system calls performed on the virtual kernel.
//!
//! One loop as the real one has it: what is ready is told to the machine, output before the ends of children; the effects of
//! a step are performed in order, and a sync blocks all of it for as long as the disk takes.

use std::collections::VecDeque;

use windlass_core::container_service::LaunchSpec;
use windlass_core::execution::ExecFailure;
use windlass_core::id::Epoch;
use windlass_core::outcome::Exit;
use windlass_core::shim::frame::FrameTime;
use windlass_core::shim::journal::Record;
use windlass_core::shim::machine::{self, Config, Conn, Effect, Input, LeaderExit, Now};
use windlass_core::shim::message::Request;

use super::State;
use super::happened::{Happened, ProcessName, Signaller, StartId};
use super::kernel::{Birth, INIT, KILL, Role};
use super::pipe::{Output, StdinPipe};
use super::site::Holder;

/// A shim.
#[derive(Clone, Debug)]
pub(crate) struct Shim {
    pub(crate) machine: machine::State,
    pub(crate) start: StartId,
    /// The epoch that launched it.
    pub(super) epoch: Epoch,
    /// What it is to run, until the fork.
    pub(super) launch: Option<Box<LaunchSpec>>,
    pub(super) command: Option<Command>,
    pub(crate) outputs: Vec<Output>,
    pub(crate) stdin: StdinPipe,
    /// Whom it tells what happens.
    pub(crate) conns: Vec<Conn>,
    /// Others may connect.
    pub(super) listens: bool,
    /// What the machine is told next.
    inputs: VecDeque<Input>,
    /// What is to be done of the last step.
    pub(super) todo: VecDeque<Todo>,
    requests: VecDeque<(Conn, Request)>,
    child_changed: bool,
    terminated: bool,
    /// When the sync that it waits for is done.
    pub(super) busy_until: Option<u64>,
    /// Somebody has stopped it: it does nothing until it is told to go on.
    frozen: bool,
    /// How many effects it has performed.
    performed: u32,
    pub(super) leaving: bool,
}

/// The command, from the fork to the end of the shim.
#[derive(Clone, Debug)]
pub(super) struct Command {
    pub(super) pid: u32,
    /// When it was made.
    pub(super) began: Now,
    /// What the child said of its program; `None` until it has.
    pub(super) word: Option<Result<(), ExecFailure>>,
    /// The machine was told of that.
    pub(super) settled: bool,
    /// When it will have executed its program, once the gate is open.
    pub(super) executes_at: Option<u64>,
    pub(super) exit: Option<LeaderExit>,
}

/// What a shim has to do.
#[derive(Clone, Debug)]
pub(super) enum Todo {
    Effect(Effect),
    /// The journal's sync is done.
    Recorded(Vec<Record>),
    /// The log's sync is done.
    LogSynced,
}

/// What is done to a shim before one of its effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ambush {
    /// It is killed.
    Kill,
    /// It is stopped as by SIGSTOP.
    Freeze,
}

impl Shim {
    /// Returns when it wants to be woken, in milliseconds since the boot.
    pub(crate) fn wake_at_ms(&self) -> Option<u64> {
        if self.frozen {
            return None;
        }
        if self.busy_until.is_some() {
            return self.busy_until;
        }
        let held = self.outputs.iter().filter_map(|output| output.cutter.due_ms()).min();
        let executes = self.command.as_ref().and_then(|command| command.executes_at);
        [self.machine.wake_at_ms(), held, executes].into_iter().flatten().min()
    }

    pub(crate) fn child_changed(&mut self) {
        self.child_changed = true;
    }

    pub(crate) fn terminated(&mut self) {
        self.terminated = true;
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen
    }

    pub(crate) fn freeze(&mut self) {
        self.frozen = true;
    }

    pub(crate) fn thaw(&mut self) {
        self.frozen = false;
    }

    /// Says whether it answers whoever connects now.
    pub(crate) fn listens(&self) -> bool {
        self.listens && !self.leaving
    }

    pub(crate) fn ask(&mut self, conn: Conn, request: Request) {
        self.requests.push_back((conn, request));
    }

    pub(super) fn is_open(&self) -> bool {
        self.outputs.iter().any(|output| output.open)
    }
}

impl State {
    pub(crate) fn shim(&mut self, pid: u32) -> Option<&mut Shim> {
        match &mut self.kernel.processes.get_mut(&pid)?.role {
            Role::Shim(shim) => Some(shim),
            Role::Task(_) | Role::Gated | Role::Stranger | Role::Gone => None,
        }
    }

    /// The time of a shim's step, by both clocks.
    pub(super) fn machine_now(&self) -> Now {
        Now { boot_ms: self.boot_ms(), wall: self.now }
    }

    pub(super) fn frame_time(&self) -> FrameTime {
        FrameTime { wall: self.now, boot_ns: self.boot_ms().saturating_mul(1_000_000) }
    }

    /// Starts a shim with its first connection; `None` if no process can be made.
    ///
    /// It leaves at once where the place is taken or was used, as the connection's end says.
    pub(crate) fn spawn_shim(
        &mut self,
        start: StartId,
        spec: Box<LaunchSpec>,
        epoch: Epoch,
        conn: Conn,
    ) -> Option<u32> {
        if self.kernel.refuses_spawns {
            return None;
        }
        let ms =
            |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let config = Config {
            execution: start.execution,
            nonce: start.nonce,
            epoch,
            shim_pid: 0,
            stdin: spec.stdin,
            leftovers: spec.leftovers,
            total_ms: spec.total.map(ms),
            idle_ms: spec.idle.map(ms),
            grace_ms: ms(spec.grace),
        };
        let pid = self.kernel.next_number()?;
        let machine = machine::State::new(Config { shim_pid: pid, ..config });
        let shim = Shim {
            machine,
            start,
            epoch,
            launch: Some(spec),
            command: None,
            outputs: Vec::new(),
            stdin: StdinPipe::default(),
            conns: vec![conn],
            listens: false,
            inputs: VecDeque::from([Input::Begun]),
            todo: VecDeque::new(),
            requests: VecDeque::new(),
            child_changed: false,
            terminated: false,
            busy_until: None,
            frozen: false,
            performed: 0,
            leaving: false,
        };
        let name = self.birth(Birth {
            parent: INIT,
            group: None,
            session: None,
            start: Some(start),
            marked: false,
            leader: false,
            role: Role::Shim(Box::new(shim)),
        })?;
        self.note(|| Happened::ShimStarted { start, shim: name });
        if self.takes_place(start, name) {
            self.kernel.wake(pid);
        } else {
            self.end(pid, Exit::Code(1), false);
        }
        Some(pid)
    }

    /// Lets a shim take the lock of its place, if that is free and the place was never used.
    fn takes_place(&mut self, start: StartId, shim: ProcessName) -> bool {
        let Some(site) = self.site(start) else { return false };
        if site.lock.is_some() {
            return false;
        }
        site.was_locked = true;
        if !site.is_untouched(start) {
            return false;
        }
        site.lock = Some(Holder::Shim(shim));
        true
    }

    /// Lets a shim do what it has to until it waits.
    pub(crate) fn run_shim(&mut self, pid: u32) {
        loop {
            let now = self.machine_now();
            let Some(shim) = self.shim(pid) else { return };
            if shim.frozen || shim.busy_until.is_some_and(|until| until > now.boot_ms) {
                return;
            }
            shim.busy_until = None;
            if let Some(todo) = shim.todo.pop_front() {
                if matches!(todo, Todo::Effect(_)) && self.is_ambushed(pid) {
                    // What it was about to do is still to be done, if ever it goes on.
                    if let Some(shim) = self.shim(pid) {
                        shim.todo.push_front(todo);
                    }
                    continue;
                }
                self.perform_todo(pid, todo);
            } else if let Some(input) = shim.inputs.pop_front() {
                let effects = shim.machine.advance(now, input);
                shim.todo.extend(effects.into_iter().map(Todo::Effect));
            } else if shim.leaving {
                return self.end(pid, Exit::Code(0), false);
            } else if !self.poll_shim(pid, now) {
                return;
            }
        }
    }

    /// Counts an effect that is about to be performed; says whether something was done to the shim instead.
    fn is_ambushed(&mut self, pid: u32) -> bool {
        let Some(shim) = self.shim(pid) else { return true };
        let (performed, execution) = (shim.performed, shim.start.execution);
        match self.ambushes.get(&execution) {
            Some((at, ambush)) if *at <= performed => {
                let ambush = *ambush;
                self.ambushes.remove(&execution);
                match ambush {
                    Ambush::Kill => {
                        self.signal(pid, KILL, Signaller::Somebody);
                    }
                    Ambush::Freeze => {
                        if let Some(shim) = self.shim(pid) {
                            shim.freeze();
                        }
                    }
                }
                true
            }
            Some(_) | None => {
                if let Some(shim) = self.shim(pid) {
                    shim.performed += 1;
                }
                false
            }
        }
    }

    /// Tells the machine what is due or ready; says whether anything was. The ends of children come before their output: the
    /// real one hears of both in any order.
    fn poll_shim(&mut self, pid: u32, now: Now) -> bool {
        self.execute_due(pid, now);
        self.release_held(pid, now);
        let Some(shim) = self.shim(pid) else { return false };
        if shim.machine.wake_at_ms().is_some_and(|at| at <= now.boot_ms) {
            shim.inputs.push_back(Input::Woke);
            return true;
        }
        if self.hear_child(pid) {
            return true;
        }
        let Some(shim) = self.shim(pid) else { return false };
        if std::mem::take(&mut shim.terminated) {
            shim.inputs.push_back(Input::Terminated);
            return true;
        }
        if std::mem::take(&mut shim.child_changed) {
            if let Some(children) = self.look_at_children(pid) {
                self.tell_machine(pid, children);
            }
            return true;
        }
        if self.read_outputs(pid) {
            return true;
        }
        let Some(shim) = self.shim(pid) else { return false };
        if shim.stdin.is_ready() {
            let written = self.write_stdin(pid);
            let any = !written.is_empty();
            written.into_iter().for_each(|input| self.tell_machine(pid, input));
            if any {
                return true;
            }
        }
        let Some(shim) = self.shim(pid) else { return false };
        match shim.requests.pop_front() {
            Some((conn, request)) => {
                shim.inputs.push_back(Input::Asked { conn, request });
                true
            }
            None => false,
        }
    }

    pub(super) fn tell_machine(&mut self, pid: u32, input: Input) {
        if let Some(shim) = self.shim(pid) {
            shim.inputs.push_back(input);
        }
    }

    /// Hears whether the program runs.
    fn hear_child(&mut self, pid: u32) -> bool {
        let command = self.shim(pid).and_then(|shim| shim.command.as_mut());
        let Some(command) = command.filter(|command| !command.settled) else { return false };
        let Some(word) = command.word else { return false };
        command.settled = true;
        self.tell_machine(
            pid,
            match word {
                Ok(()) => Input::Executed,
                Err(failure) => Input::ExecFailed(failure),
            },
        );
        true
    }

    /// Looks at the children and reaps all but the leader; nothing if there is no command.
    pub(super) fn look_at_children(&mut self, pid: u32) -> Option<Input> {
        let now = self.machine_now();
        let leader = self.shim(pid)?.command.as_ref()?.pid;
        let exit = self.kernel.processes.get(&leader).and_then(|process| process.exit);
        loop {
            let children = self.kernel.children(pid);
            let others = children.into_iter().filter(|child| *child != leader);
            // What a zombie left was given to us when it ended.
            if others.fold(0, |reaped, child| reaped + u32::from(self.reap(child))) == 0 {
                break;
            }
        }
        let others = self.kernel.children(pid).into_iter().any(|child| child != leader);
        let command = self.shim(pid)?.command.as_mut()?;
        if let (None, Some(exit)) = (&command.exit, exit) {
            command.exit = Some(LeaderExit {
                wait_status: match exit {
                    Exit::Code(code) => u32::from(code) << 8,
                    Exit::Signal(signal) => u32::from(signal),
                },
                usage: windlass_core::execution::ResourceUse::default(),
                // As the real one: only a cgroup of its own would tell.
                out_of_memory: false,
                at: now.by_the_clock_of(command.began),
            });
        }
        if command.exit.is_some()
            && !command.settled
            && let Some(Err(failure)) = command.word
        {
            // As the real one: the end of a child that could not execute the program is no end of the program.
            command.settled = true;
            return Some(Input::ExecFailed(failure));
        }
        Some(Input::Children { leader: command.exit, others })
    }

    /// Does what a shim's end brings about: its lock is free, its connections break, its pipes have no reader.
    pub(crate) fn shim_gone(&mut self, name: ProcessName, shim: &Shim, exit: Exit) {
        let start = shim.start;
        let killed = matches!(exit, Exit::Signal(_));
        self.note(|| Happened::ShimGone { start, shim: name, killed });
        if let Some(site) = self.site(start)
            && site.lock == Some(Holder::Shim(name))
        {
            site.lock = None;
        }
        for conn in &shim.conns {
            self.hang_up(*conn);
        }
        for conn in shim.requests.iter().map(|(conn, _)| *conn) {
            self.hang_up(conn);
        }
        self.abandon_child(shim);
        let writers: Vec<u32> =
            self.kernel.members(start).map(|process| process.name.pid).collect();
        writers.into_iter().for_each(|pid| self.kernel.wake(pid));
    }
}
