//! What a shim does when its machine says so: its system calls, on the virtual kernel.

use std::collections::BTreeSet;

use windlass_core::execution::{Survivor, SurvivorReason};
use windlass_core::log_store::Stream;
use windlass_core::outcome::Exit;
use windlass_core::shim::journal::{NAMED_SURVIVORS, Record};
use windlass_core::shim::machine::{Effect, Input, Now, Signal, To};

use super::State;
use super::happened::{Happened, Signaller, StartId};
use super::kernel::{INTERRUPT, KILL, Role, TERM};
use super::shim::Todo;

/// Input or output failed.
pub(super) const EIO: u32 = 5;

/// How many reads one pipe gets before others are looked at.
const READS_AT_ONCE: usize = 16;

impl State {
    /// Does one thing, and tells the machine what it has to hear of it.
    pub(super) fn perform_todo(&mut self, pid: u32, todo: Todo) {
        match todo {
            Todo::Effect(effect) => self.perform_effect(pid, effect),
            Todo::Recorded(records) => {
                if let Some(start) = self.start_of(pid) {
                    self.journal_synced(start, records);
                }
            }
            Todo::LogSynced => self.log_sealed(pid),
        }
    }

    pub(super) fn start_of(&mut self, pid: u32) -> Option<StartId> {
        Some(self.shim(pid)?.start)
    }

    fn perform_effect(&mut self, pid: u32, effect: Effect) {
        match effect {
            Effect::Fork => {
                let made = self.fork_command(pid);
                self.tell_machine(pid, made);
            }
            Effect::Persist(records) => self.persist(pid, records),
            Effect::OpenGate => {
                let at = self.boot_ms().saturating_add(self.pace.exec_ms);
                if let Some(command) = self.shim(pid).and_then(|shim| shim.command.as_mut()) {
                    command.executes_at = Some(at);
                }
                let now = self.machine_now();
                self.execute_due(pid, now);
            }
            Effect::CloseGate => {
                let command = self.shim(pid).and_then(|shim| shim.command.take());
                if let Some(command) = command {
                    self.end(command.pid, Exit::Code(0), false);
                    self.reap(command.pid);
                }
            }
            Effect::Look => {
                if let Some(children) = self.look_at_children(pid) {
                    self.tell_machine(pid, children);
                }
            }
            Effect::Drain => self.drain(pid),
            Effect::SignalGroup(signal) => self.signal_group(pid, signal),
            Effect::SignalRest(signal) => self.signal_rest(pid, signal),
            Effect::KillTree => self.kill_tree(pid),
            Effect::NameSurvivors { reason } => self.name_survivors(pid, reason),
            Effect::FeedInput { bytes, secret, close } => {
                self.feed_input(pid, bytes, secret, close);
            }
            Effect::CloseInput => {
                if let Some(shim) = self.shim(pid) {
                    shim.stdin.close();
                }
                self.wake_writers(pid);
            }
            Effect::SealLog => self.seal_log(pid),
            Effect::Tell { to, notice } => {
                let Some(shim) = self.shim(pid) else { return };
                match to {
                    To::One(conn) => self.tell(conn, &notice),
                    To::All => {
                        let conns = shim.conns.clone();
                        conns.into_iter().for_each(|conn| self.tell(conn, &notice));
                    }
                }
            }
            Effect::Leave => {
                if let Some(shim) = self.shim(pid) {
                    shim.leaving = true;
                }
            }
        }
    }

    fn persist(&mut self, pid: u32, records: Vec<Record>) {
        let Some(start) = self.start_of(pid) else { return };
        let sync_ms = self.pace.sync_ms;
        let until = self.boot_ms().saturating_add(sync_ms);
        let fails = self.persist_fails(start.execution);
        let written = self.site(start).is_some_and(|site| site.append(&records));
        let Some(shim) = self.shim(pid) else { return };
        if fails || !written {
            // What stood behind the barrier is not done.
            shim.todo.clear();
            self.tell_machine(pid, Input::PersistFailed { errno: EIO });
        } else if sync_ms > 0 {
            shim.busy_until = Some(until);
            shim.todo.push_front(Todo::Recorded(records));
        } else {
            self.journal_synced(start, records);
        }
    }

    /// Says that the journal is on the disk.
    pub(super) fn journal_synced(&mut self, start: StartId, records: Vec<Record>) {
        if let Some(site) = self.site(start) {
            site.synced(records.len());
        }
        for record in records {
            self.note(|| Happened::Recorded { start, record });
        }
        self.stirred = true;
    }

    /// Logs what is in the pipes, and tells the machine.
    pub(super) fn read_outputs(&mut self, pid: u32) -> bool {
        let (mut any, mut closed) = (false, false);
        let Some(shim) = self.shim(pid) else { return false };
        for index in 0..shim.outputs.len() {
            let (read, ended) = self.read_output(pid, index, READS_AT_ONCE);
            any |= read;
            closed |= ended;
        }
        if any {
            self.tell_machine(pid, Input::Output);
            self.wake_writers(pid);
        }
        if closed && self.shim(pid).is_some_and(|shim| !shim.is_open()) {
            self.tell_machine(pid, Input::PipesClosed);
        }
        any || closed
    }

    /// Reads one pipe for so many times; says whether there was anything, and whether its end was read.
    fn read_output(&mut self, pid: u32, index: usize, reads: usize) -> (bool, bool) {
        let (mut any, time) = (false, self.frame_time());
        let Some(start) = self.start_of(pid) else { return (false, false) };
        let entry_bytes = self.log(start).entry_bytes();
        for _ in 0..reads {
            let Some(shim) = self.shim(pid) else { return (any, false) };
            let Some(output) = shim.outputs.get_mut(index).filter(|output| output.open) else {
                return (any, false);
            };
            if output.pipe.len() == 0 {
                break;
            }
            any = true;
            let held = output.cutter.held().len();
            let read = output.pipe.take(entry_bytes - held);
            let stream = output.stream;
            let data = if held == 0 { read } else { [output.cutter.held(), &read].concat().into() };
            let cut = output.cutter.cut(&data, time.boot_ns / 1_000_000);
            let lines = data.slice(..cut.lines);
            let rest = data.slice(cut.lines..cut.lines + cut.rest);
            for (bytes, partial) in [(lines, false), (rest, true)] {
                if !bytes.is_empty() {
                    self.log_entry(start, stream, partial, bytes);
                }
            }
        }
        (any, self.close_if_unheld(pid, index))
    }

    /// Notes that a pipe is at its end, if nobody holds it and it is empty.
    fn close_if_unheld(&mut self, pid: u32, index: usize) -> bool {
        let Some(start) = self.start_of(pid) else { return false };
        let holds = |role: &Role| match role {
            Role::Task(task) => task.holds_output,
            Role::Gated => true,
            Role::Shim(_) | Role::Stranger | Role::Gone => false,
        };
        let held = self.kernel.members(start).any(|process| holds(&process.role));
        let Some(shim) = self.shim(pid) else { return false };
        let Some(output) = shim.outputs.get_mut(index) else { return false };
        if held || !output.open || output.pipe.len() > 0 {
            return false;
        }
        output.open = false;
        self.release_output(pid, index);
        true
    }

    fn release_output(&mut self, pid: u32, index: usize) {
        let Some(shim) = self.shim(pid) else { return };
        let start = shim.start;
        let Some(output) = shim.outputs.get_mut(index) else { return };
        let (stream, (held, len)) = (output.stream, output.cutter.release());
        if len > 0 {
            self.log_entry(start, stream, true, bytes::Bytes::copy_from_slice(&held[..len]));
        }
    }

    /// Logs what was held back for too long.
    pub(super) fn release_held(&mut self, pid: u32, now: Now) {
        let Some(shim) = self.shim(pid) else { return };
        let due: Vec<usize> = shim
            .outputs
            .iter()
            .enumerate()
            .filter(|(_, output)| output.cutter.due_ms().is_some_and(|due| due <= now.boot_ms))
            .map(|(index, _)| index)
            .collect();
        due.into_iter().for_each(|index| self.release_output(pid, index));
    }

    /// Logs what the pipes hold right now and what was held back of it.
    fn drain(&mut self, pid: u32) {
        let count = self.shim(pid).map_or(0, |shim| shim.outputs.len());
        for index in 0..count {
            let _read = self.read_output(pid, index, usize::MAX);
            self.release_output(pid, index);
        }
        self.wake_writers(pid);
        let Some(shim) = self.shim(pid) else { return };
        let (open, start) = (shim.is_open(), shim.start);
        let logged = !self.log(start).is_empty();
        self.tell_machine(pid, Input::Drained { open, logged });
    }

    fn feed_input(&mut self, pid: u32, bytes: Vec<u8>, secret: bool, close: bool) {
        let Some(start) = self.start_of(pid) else { return };
        if secret {
            self.log_secret(start, !bytes.ends_with(b"\n"), bytes.len() as u64);
        } else {
            let size = self.log(start).entry_bytes();
            for piece in bytes.chunks(size) {
                let partial = !piece.ends_with(b"\n");
                self.log_entry(start, Stream::Stdin, partial, bytes::Bytes::copy_from_slice(piece));
            }
        }
        if let Some(shim) = self.shim(pid) {
            shim.stdin.queue(bytes, close);
        }
        for input in self.write_stdin(pid) {
            self.tell_machine(pid, input);
        }
    }

    pub(super) fn write_stdin(&mut self, pid: u32) -> Vec<Input> {
        let Some(shim) = self.shim(pid) else { return Vec::new() };
        let (bytes, ended) = shim.stdin.write();
        let mut inputs = Vec::new();
        if bytes > 0 {
            inputs.push(Input::InputWritten { bytes });
        }
        if ended {
            inputs.push(Input::InputEnded);
        }
        self.wake_writers(pid);
        inputs
    }

    fn seal_log(&mut self, pid: u32) {
        let Some(start) = self.start_of(pid) else { return };
        self.seal_written(start);
        let until = self.boot_ms().saturating_add(self.pace.sync_ms);
        let sync_ms = self.pace.sync_ms;
        let Some(shim) = self.shim(pid) else { return };
        if sync_ms > 0 {
            shim.busy_until = Some(until);
            shim.todo.push_front(Todo::LogSynced);
        } else {
            self.log_sealed(pid);
        }
    }

    /// Tells the machine that the log is complete and on the disk.
    fn log_sealed(&mut self, pid: u32) {
        let Some(start) = self.start_of(pid) else { return };
        let totals = self.sync_log(start);
        self.tell_machine(pid, Input::LogSealed(totals));
    }

    fn leader_of(&mut self, pid: u32) -> Option<(u32, Signaller)> {
        let shim = self.shim(pid)?;
        Some((shim.command.as_ref()?.pid, Signaller::Shim(shim.start)))
    }

    /// Signals the group of the command. Nothing of it is ever stopped, so nothing has to be told to go on.
    fn signal_group(&mut self, pid: u32, signal: Signal) {
        let Some((leader, by)) = self.leader_of(pid) else { return };
        for member in self.kernel.group(leader) {
            self.signal(member, number(signal), by);
        }
    }

    /// Signals what left the group and not the tree.
    fn signal_rest(&mut self, pid: u32, signal: Signal) {
        let Some((leader, by)) = self.leader_of(pid) else { return };
        for member in self.kernel.descendants(pid) {
            let outside =
                self.kernel.processes.get(&member).is_some_and(|process| process.group != leader);
            if outside {
                self.signal(member, number(signal), by);
            }
        }
    }

    /// Kills the group and every descendant, until a walk finds no new one.
    fn kill_tree(&mut self, pid: u32) {
        let Some((leader, by)) = self.leader_of(pid) else { return };
        for member in self.kernel.group(leader) {
            self.signal(member, KILL, by);
        }
        let mut signalled = BTreeSet::new();
        loop {
            let new: Vec<u32> = self
                .kernel
                .descendants(pid)
                .into_iter()
                .filter(|member| signalled.insert(*member))
                .collect();
            if new.is_empty() {
                return;
            }
            for member in new {
                self.signal(member, KILL, by);
            }
        }
    }

    fn name_survivors(&mut self, pid: u32, reason: SurvivorReason) {
        let below = self.kernel.descendants(pid);
        let living = below.iter().filter_map(|pid| {
            let process = self.kernel.processes.get(pid)?;
            process.lives().then(|| survivor(process, reason))
        });
        let mut named: Vec<Survivor> = living.collect();
        let more = named.len().saturating_sub(NAMED_SURVIVORS);
        named.truncate(NAMED_SURVIVORS);
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        self.tell_machine(pid, Input::Survivors { named, more });
    }
}

/// Names a process that lives.
pub(crate) fn survivor(process: &super::kernel::Process, reason: SurvivorReason) -> Survivor {
    let name = match &process.role {
        Role::Task(task) => task.called.to_string(),
        Role::Gated | Role::Shim(_) | Role::Stranger | Role::Gone => String::from("shim"),
    };
    Survivor { pid: process.name.pid, name, reason }
}

fn number(signal: Signal) -> u8 {
    match signal {
        Signal::Interrupt => INTERRUPT,
        Signal::Terminate => TERM,
    }
}
