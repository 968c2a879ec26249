//! K: what happened in the kernel, folded.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use windlass_core::id::ExecutionId;
use windlass_core::locator::Locator;
use windlass_core::log_store::Stream;
use windlass_core::outcome::{Exit, NotStarted};
use windlass_core::shim::journal::Record;
use windlass_core::time::Timestamp;
use windlass_fakes::world::{Happened, ProcessName, Signaller, StartId};

/// A process that was seen.
#[derive(Clone, Debug)]
pub struct Process {
    /// Of which start; `None` for a stranger.
    pub start: Option<StartId>,
    /// It lives.
    pub alive: bool,
}

/// A start that was seen.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// The command's own process.
    pub leader: Option<ProcessName>,
    /// When its shim was about to let it run: its deadlines count from here.
    pub gate_at: Option<Timestamp>,
    /// When its program was executed.
    pub started_at: Option<Timestamp>,
    /// The directory that it runs in.
    pub directory: Option<Locator>,
    /// Why it was not.
    pub not_started: Option<NotStarted>,
    /// How its own process ended, as the kernel saw it.
    pub exit: Option<Exit>,
    /// When.
    pub exited_at: Option<Timestamp>,
    /// The kernel killed it for lack of memory.
    pub out_of_memory: bool,
    /// What it wrote, in order.
    pub output: Vec<(Stream, Bytes)>,
    /// How many of those pieces were written before its own process ended.
    pub before_exit: usize,
    /// The records of its journal that are on the disk.
    pub journal: Vec<Record>,
    /// Signals to its processes, in order.
    pub signals: Vec<(ProcessName, u8, Signaller)>,
    /// Its shim was started.
    pub shims: u32,
    /// Its shim was killed before it had written its last record.
    pub shim_killed: bool,
    /// The power was lost before its last record was on the disk.
    pub lost_power: bool,
    /// Its processes that live.
    pub living: BTreeSet<ProcessName>,
}

impl Start {
    /// Says whether a journal record that tells the outcome is on the disk.
    #[must_use]
    pub fn outcome_is_durable(&self) -> bool {
        self.journal.iter().any(|record| {
            matches!(record, Record::ExecFailed(_) | Record::Exited(_) | Record::Final(_))
        })
    }
}

/// What happened in the kernel.
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    processes: BTreeMap<ProcessName, Process>,
    starts: BTreeMap<StartId, Start>,
    /// What was written in directories: by path, and what was written there by whom.
    files: BTreeMap<Locator, BTreeSet<String>>,
    power_losses: u32,
}

impl Kernel {
    /// Takes something that happened.
    pub fn take(&mut self, at: Timestamp, happened: &Happened) {
        match happened {
            Happened::ShimStarted { start, .. } => {
                let seen = self.start(*start);
                seen.shims += 1;
                seen.gate_at.get_or_insert(at);
            }
            Happened::Started { start, process, directory } => {
                self.appears(*process, Some(*start));
                let seen = self.start(*start);
                seen.leader = Some(*process);
                seen.started_at = Some(at);
                seen.directory = Some(directory.clone());
            }
            Happened::NotStarted { start, reason } => {
                self.start(*start).not_started = Some(*reason);
            }
            Happened::Forked { start, child, .. } => self.appears(*child, Some(*start)),
            Happened::StrangerStarted { process } => self.appears(*process, None),
            Happened::Exited { start, process, leader, exit, out_of_memory } => {
                self.disappears(*process);
                if let (Some(start), true) = (start, leader) {
                    let seen = self.start(*start);
                    seen.exit = Some(*exit);
                    seen.exited_at = Some(at);
                    seen.out_of_memory = *out_of_memory;
                    seen.before_exit = seen.output.len();
                }
            }
            Happened::Signalled { start, process, signal, by } => {
                if let Some(start) = start {
                    self.start(*start).signals.push((*process, *signal, *by));
                }
            }
            Happened::Wrote { start, stream, bytes, .. } => {
                self.start(*start).output.push((*stream, bytes.clone()));
            }
            Happened::FileWritten { directory, path, .. } => {
                self.files.entry(directory.clone()).or_default().insert(path.clone());
            }
            Happened::Recorded { start, record } => {
                let seen = self.start(*start);
                if matches!(record, Record::Started(_)) {
                    seen.gate_at.get_or_insert(at);
                }
                seen.journal.push(record.clone());
            }
            Happened::ShimGone { start, killed, .. } => {
                let seen = self.start(*start);
                let complete = seen.journal.iter().any(|record| matches!(record, Record::Final(_)));
                seen.shim_killed |= *killed && !complete;
            }
            Happened::PowerLost { .. } => self.lose_power(),
            Happened::PidReused { .. }
            | Happened::LogSynced { .. }
            | Happened::PlaceRemoved { .. }
            | Happened::DirectoryMade { .. }
            | Happened::DirectoryRenamed { .. }
            | Happened::DirectoryRemoved { .. } => {}
        }
    }

    fn start(&mut self, start: StartId) -> &mut Start {
        self.starts.entry(start).or_default()
    }

    fn appears(&mut self, process: ProcessName, start: Option<StartId>) {
        self.processes.insert(process, Process { start, alive: true });
        if let Some(start) = start {
            self.start(start).living.insert(process);
        }
    }

    fn disappears(&mut self, process: ProcessName) {
        let Some(known) = self.processes.get_mut(&process) else { return };
        known.alive = false;
        if let Some(start) = known.start {
            self.start(start).living.remove(&process);
        }
    }

    fn lose_power(&mut self) {
        self.power_losses += 1;
        for process in self.processes.values_mut() {
            process.alive = false;
        }
        for start in self.starts.values_mut() {
            start.living.clear();
            start.lost_power |= !start.outcome_is_durable();
        }
    }

    /// Returns how often the power was lost.
    #[must_use]
    pub fn power_losses(&self) -> u32 {
        self.power_losses
    }

    /// Returns a process.
    #[must_use]
    pub fn process(&self, name: ProcessName) -> Option<&Process> {
        self.processes.get(&name)
    }

    /// Returns all starts.
    pub fn starts(&self) -> impl Iterator<Item = (StartId, &Start)> {
        self.starts.iter().map(|(id, start)| (*id, start))
    }

    /// Returns one start.
    #[must_use]
    pub fn of_start(&self, start: StartId) -> Option<&Start> {
        self.starts.get(&start)
    }

    /// Returns the starts of an execution.
    pub fn starts_of(&self, execution: ExecutionId) -> impl Iterator<Item = (StartId, &Start)> {
        self.starts().filter(move |(id, _)| id.execution == execution)
    }

    /// Returns the files that were written in a directory.
    pub fn files_written(&self, directory: &Locator) -> impl Iterator<Item = &str> {
        self.files.get(directory).into_iter().flatten().map(String::as_str)
    }
}
