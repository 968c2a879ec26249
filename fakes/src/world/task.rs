//! A program that runs: where it is, what it waits for, and how it takes signals.

use std::sync::Arc;

use bytes::Bytes;
use windlass_core::locator::Locator;
use windlass_core::log_store::Stream;
use windlass_core::outcome::Exit;
use windlass_core::vcs_worktree::GitStep;

use super::State;
use super::happened::{Happened, ProcessName, Signaller};
use super::kernel::{Birth, CHILD, CONTINUE, KILL, PIPE, Role, TERM};
use super::program::{Op, Trap};

/// A running program.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    ops: Arc<[Op]>,
    at: usize,
    wait: Wait,
    trap: Trap,
    /// When it exits with a code, because it was asked to.
    ending: Option<(u64, u8)>,
    /// It cannot be killed.
    stuck: bool,
    /// It holds the pipes of its start open.
    pub(crate) holds_output: bool,
    /// Its name, as the kernel has it.
    pub(crate) called: Arc<str>,
    directory: Arc<Locator>,
    /// What it does, if it is a git step.
    step: Option<Arc<GitStep>>,
}

/// What a program waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Nothing,
    /// So many milliseconds since the boot.
    Until(u64),
    Release,
    Input,
    /// For room in a pipe; so many bytes of what it writes are written.
    Room(usize),
    Ever,
}

/// What becomes of a process that gets a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Dies,
    Later,
    Ignored,
}

/// What becomes of bytes that are written into a pipe.
pub(crate) enum Written {
    /// So many were taken.
    Taken(usize),
    /// Nobody reads.
    Broken,
}

impl Task {
    pub(crate) fn new(
        ops: Arc<[Op]>,
        called: Arc<str>,
        directory: Arc<Locator>,
        step: Option<Arc<GitStep>>,
    ) -> Self {
        Self {
            ops,
            at: 0,
            wait: Wait::Nothing,
            trap: Trap::Dies,
            ending: None,
            stuck: false,
            holds_output: true,
            called,
            directory,
            step,
        }
    }

    /// A child that begins with what its parent has.
    fn fork(&self, ops: Arc<[Op]>) -> Self {
        let (at, wait, ending, step) = (0, Wait::Nothing, None, None);
        Self { ops, at, wait, ending, step, ..self.clone() }
    }

    pub(crate) fn wake_at_ms(&self) -> Option<u64> {
        let wait = match self.wait {
            Wait::Until(at) => Some(at),
            Wait::Nothing | Wait::Release | Wait::Input | Wait::Room(_) | Wait::Ever => None,
        };
        [wait, self.ending.map(|(at, _)| at)].into_iter().flatten().min()
    }

    /// Takes a signal.
    pub(crate) fn hear(&mut self, signal: u8, now_ms: u64) -> Heard {
        match (signal, self.trap) {
            (KILL, _) if self.stuck => Heard::Ignored,
            (KILL, _) => Heard::Dies,
            _ if self.stuck => Heard::Ignored,
            (TERM, Trap::Ignores) => Heard::Ignored,
            (TERM, Trap::Delays(ms, code)) => {
                self.ending.get_or_insert((now_ms.saturating_add(ms), code));
                Heard::Later
            }
            (CHILD | CONTINUE, _) => Heard::Ignored,
            (_, _) => Heard::Dies,
        }
    }

    /// Says whether it waits for its shim to read or to write.
    pub(crate) fn waits_for_pipe(&self) -> bool {
        matches!(self.wait, Wait::Input | Wait::Room(_))
    }

    /// Says that it may go on, if that is what it waits for.
    pub(crate) fn release(&mut self) -> bool {
        let waits = self.wait == Wait::Release;
        if waits {
            self.wait = Wait::Nothing;
        }
        waits
    }
}

/// What a step of a program came to.
enum Next {
    /// It goes on with the next.
    On,
    /// It waits.
    Waits,
    /// It is over.
    Over,
}

impl State {
    fn task(&mut self, pid: u32) -> Option<&mut Task> {
        match &mut self.kernel.processes.get_mut(&pid)?.role {
            Role::Task(task) => Some(task),
            Role::Shim(_) | Role::Gated | Role::Stranger | Role::Gone => None,
        }
    }

    /// Says whether a process that lives has this as its directory.
    pub(crate) fn is_worked_in(&self, directory: &Locator) -> bool {
        self.kernel.processes.values().any(|process| match &process.role {
            Role::Task(task) => process.lives() && *task.directory == *directory,
            Role::Shim(_) | Role::Gated | Role::Stranger | Role::Gone => false,
        })
    }

    /// Lets a program do what it does until it waits.
    pub(crate) fn run_task(&mut self, pid: u32) {
        let now_ms = self.boot_ms();
        loop {
            let Some(task) = self.task(pid) else { return };
            if let Some((_, code)) = task.ending.filter(|(at, _)| *at <= now_ms) {
                return self.end(pid, Exit::Code(code), false);
            }
            match task.wait {
                Wait::Until(at) if at > now_ms => return,
                Wait::Until(_) => task.wait = Wait::Nothing,
                Wait::Release | Wait::Ever => return,
                Wait::Nothing | Wait::Input | Wait::Room(_) => {}
            }
            let ops = Arc::clone(&task.ops);
            let at = task.at;
            let next = match ops.get(at) {
                Some(op) => self.perform(pid, op, now_ms),
                None => {
                    self.end(pid, Exit::Code(0), false);
                    Next::Over
                }
            };
            match next {
                Next::On => {
                    if let Some(task) = self.task(pid) {
                        task.at += 1;
                        if !matches!(task.wait, Wait::Until(_) | Wait::Release | Wait::Ever) {
                            task.wait = Wait::Nothing;
                        }
                    }
                }
                Next::Waits | Next::Over => return,
            }
        }
    }

    /// Does one thing of a program.
    fn perform(&mut self, pid: u32, op: &Op, now_ms: u64) -> Next {
        match op {
            Op::Write(stream, bytes) => return self.write(pid, *stream, bytes),
            Op::Echo => return self.echo(pid),
            Op::Exit(code) => self.end(pid, Exit::Code(*code), false),
            Op::Die(signal) => {
                self.signal_itself(pid, *signal);
                self.end(pid, Exit::Signal(*signal), false);
            }
            Op::OutOfMemory => {
                let process = self.kernel.processes.get(&pid);
                if let Some((start, name)) = process.map(|process| (process.start, process.name)) {
                    let by = Signaller::Kernel;
                    self.note(|| Happened::Signalled { start, process: name, signal: KILL, by });
                }
                self.end(pid, Exit::Signal(KILL), true);
            }
            Op::Fork(ops) => {
                let _out_of_numbers = self.fork_task(pid, Arc::clone(ops));
            }
            Op::Daemon(ops) => {
                let middle: Arc<[Op]> =
                    Arc::new([Op::SetSession, Op::Fork(Arc::clone(ops)), Op::Exit(0)]);
                let _out_of_numbers = self.fork_task(pid, middle);
            }
            Op::File(path, content) => self.write_file(pid, path, content),
            Op::GitStep => {
                let step = self.task(pid).and_then(|task| task.step.clone());
                let code = step.map_or(1, |step| self.perform_step(&step));
                self.end(pid, Exit::Code(code), false);
            }
            Op::SetSession | Op::SetGroup | Op::Unmark => self.leave(pid, op),
            Op::Sleep(_)
            | Op::AwaitRelease
            | Op::Forever
            | Op::Trap(_)
            | Op::CloseOutput
            | Op::Stuck => self.set(pid, op, now_ms),
        }
        match self.task(pid) {
            Some(_) => Next::On,
            None => Next::Over,
        }
    }

    /// Does what concerns the program alone.
    fn set(&mut self, pid: u32, op: &Op, now_ms: u64) {
        let start = self.kernel.processes.get(&pid).and_then(|process| process.start);
        let Some(task) = self.task(pid) else { return };
        match op {
            Op::Sleep(ms) => task.wait = Wait::Until(now_ms.saturating_add(*ms)),
            Op::AwaitRelease => task.wait = Wait::Release,
            Op::Forever => task.wait = Wait::Ever,
            Op::Trap(trap) => task.trap = *trap,
            Op::Stuck => task.stuck = true,
            Op::CloseOutput => {
                task.holds_output = false;
                self.tell_reader(start);
            }
            _ => {}
        }
    }

    /// Leaves its session, its group, or its mark behind.
    fn leave(&mut self, pid: u32, op: &Op) {
        let Some(process) = self.kernel.processes.get_mut(&pid) else { return };
        match op {
            Op::SetSession => (process.session, process.group) = (pid, pid),
            Op::SetGroup => process.group = pid,
            _ => process.marked = false,
        }
    }

    fn signal_itself(&mut self, pid: u32, signal: u8) {
        let Some(process) = self.kernel.processes.get(&pid) else { return };
        let (start, name) = (process.start, process.name);
        let by = Signaller::Itself;
        self.note(|| Happened::Signalled { start, process: name, signal, by });
    }

    /// Makes a child; `None` if there is no number for one.
    fn fork_task(&mut self, pid: u32, ops: Arc<[Op]>) -> Option<ProcessName> {
        let process = self.kernel.processes.get(&pid)?;
        let (start, parent) = (process.start?, process.name);
        let Role::Task(task) = &process.role else { return None };
        let birth = Birth {
            parent: pid,
            group: Some(process.group),
            session: Some(process.session),
            start: process.start,
            marked: process.marked,
            leader: false,
            role: Role::Task(task.fork(ops)),
        };
        let child = self.birth(birth)?;
        self.note(|| Happened::Forked { start, parent, child });
        self.kernel.wake(child.pid);
        Some(child)
    }

    /// Writes into a pipe, or waits until it has room.
    fn write(&mut self, pid: u32, stream: Stream, bytes: &Bytes) -> Next {
        let Some(task) = self.task(pid) else { return Next::Over };
        let from = match task.wait {
            Wait::Room(written) => written,
            Wait::Nothing | Wait::Until(_) | Wait::Release | Wait::Input | Wait::Ever => 0,
        };
        if !task.holds_output {
            return Next::On;
        }
        match self.write_pipe(pid, stream, &bytes.slice(from..)) {
            Written::Broken => {
                self.signal_itself(pid, PIPE);
                self.end(pid, Exit::Signal(PIPE), false);
                Next::Over
            }
            Written::Taken(len) if from + len == bytes.len() => Next::On,
            Written::Taken(len) => {
                if let Some(task) = self.task(pid) {
                    task.wait = Wait::Room(from + len);
                }
                Next::Waits
            }
        }
    }

    /// Copies what there is of its input; over when that ends.
    fn echo(&mut self, pid: u32) -> Next {
        // What was read and did not fit into the pipe is held by the pipe that it came from.
        loop {
            let Some((bytes, ended)) = self.peek_input(pid) else { return Next::On };
            if bytes.is_empty() {
                if ended {
                    return Next::On;
                }
                if let Some(task) = self.task(pid) {
                    task.wait = Wait::Input;
                }
                return Next::Waits;
            }
            match self.write_pipe(pid, Stream::Stdout, &bytes) {
                Written::Broken => {
                    self.signal_itself(pid, PIPE);
                    self.end(pid, Exit::Signal(PIPE), false);
                    return Next::Over;
                }
                Written::Taken(0) => {
                    if let Some(task) = self.task(pid) {
                        task.wait = Wait::Room(0);
                    }
                    return Next::Waits;
                }
                Written::Taken(len) => self.take_input(pid, len),
            }
        }
    }

    /// Writes a file in the directory of a program, if that is there.
    fn write_file(&mut self, pid: u32, path: &str, content: &[u8]) {
        let Some(task) = self.task(pid) else { return };
        let directory = Arc::clone(&task.directory);
        let process = self.kernel.processes.get(&pid).map(|process| process.name);
        self.write_in(process, &directory, path, content);
    }
}
