//! The shim's own logic as a pure machine: gate, deadlines, stop ladder, drain, order of the journal.
//!
//! [`step`] takes what happened and answers with what to do; the shim binary does it with system calls, the simulation
//! on a virtual kernel. It knows no descriptor, no path and no signal number. Total: it never fails and never panics.
//!
//! # Contract for whoever performs the effects
//!
//! - Effects are performed in their order. [`Effect::Persist`] is a barrier: if it fails, the effects behind it are
//!   dropped and [`Input::PersistFailed`] is the next input.
//! - `Fork`, `Look`, `Drain`, `NameSurvivors` and `SealLog` are answered: when all effects of a step are done, the
//!   answers are the next inputs.
//! - [`Input::Woke`] comes at or after [`State::wake_at_ms`], which may have passed already.
//!
//! The files: this one has the values and the dispatch, `course` the way from start to end, `ladder` the stop,
//! `requests` what hosts ask for.

mod course;
mod ladder;
mod requests;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use uuid::Uuid;

use crate::execution::{
    EndCause, ExecFailure, ExitReport, FinalReport, Leftovers, ResourceUse, Stdin, Survivor,
    SurvivorReason,
};
use crate::id::{Epoch, ExecutionId, Nonce};
use crate::shim::journal::{Record, Started};
use crate::shim::message::{Launch, Notice, Request};
use crate::time::Timestamp;
use ladder::Ladder;

/// How long pipes that somebody holds open after the exit are read on, in milliseconds.
pub const HELD_PIPES_MS: u64 = 500;
/// How long after KILL survivors are waited for before they are named, in milliseconds.
pub const KILL_WAIT_MS: u64 = 10_000;
/// How many input messages are known by their keys after they were taken.
pub const KNOWN_INPUTS: usize = 1024;

/// What the machine is told once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which execution.
    pub execution: ExecutionId,
    /// Which start.
    pub nonce: Nonce,
    /// The epoch that launches it.
    pub epoch: Epoch,
    /// The shim's own process number, for hosts.
    pub shim_pid: u32,
    /// Standard input.
    pub stdin: Stdin,
    /// What happens to leftovers after a natural exit.
    pub leftovers: Leftovers,
    /// Total run time in milliseconds.
    pub total_ms: Option<u64>,
    /// Longest time without output in milliseconds.
    pub idle_ms: Option<u64>,
    /// From TERM to KILL for deadlines and leftovers, in milliseconds.
    pub grace_ms: u64,
}

impl Config {
    /// Takes what the machine needs out of a launch.
    #[must_use]
    pub fn new(launch: &Launch, shim_pid: u32) -> Self {
        Self {
            execution: launch.execution,
            nonce: launch.nonce,
            epoch: launch.epoch,
            shim_pid,
            stdin: launch.stdin,
            leftovers: launch.leftovers,
            total_ms: launch.total_ms,
            idle_ms: launch.idle_ms,
            grace_ms: launch.grace_ms,
        }
    }
}

/// The time of an input, by both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since the boot, sleep included: what deadlines are measured in.
    pub boot_ms: u64,
    /// The wall clock: what records say.
    pub wall: Timestamp,
}

impl Now {
    /// Returns this time as the wall clock would say it if nobody had set it since `began`: what lies between is measured
    /// by the clock that is never set.
    #[must_use]
    pub fn by_the_clock_of(self, began: Self) -> Timestamp {
        began.wall.plus_ms(self.boot_ms.saturating_sub(began.boot_ms))
    }
}

/// A control connection, as its owner names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conn(pub u64);

/// How the command's own process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderExit {
    /// The status as the kernel packs it.
    pub wait_status: u32,
    /// What it and what it waited for used.
    pub usage: ResourceUse,
    /// The kernel killed it for lack of memory.
    pub out_of_memory: bool,
    /// When it was seen.
    pub at: Timestamp,
}

/// What the log holds after it was sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogTotals {
    /// The last number, 0 if there is none.
    pub last_seq: u64,
    /// Payload bytes, the dropped ones included.
    pub bytes: u64,
    /// Payload bytes that were dropped.
    pub dropped_bytes: u64,
    /// The end of the log could not be written or synced.
    pub tail_missing: bool,
}

/// A fact, or a request of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The journal is ours and untouched: begin. Once, first.
    Begun,
    /// The child was made and waits behind the gate.
    Forked(Box<Started>),
    /// The program runs: the child's error pipe was closed without a word. Before any exit of the leader is told.
    Executed,
    /// The command cannot be started: before or after the fork.
    ExecFailed(ExecFailure),
    /// Something was read from a pipe.
    Output,
    /// All output pipes are at their end.
    PipesClosed,
    /// Children were looked at, and all but the leader reaped.
    Children {
        /// The leader, if it has exited; it is a zombie and stays one.
        leader: Option<LeaderExit>,
        /// Whether anything else of the tree lives.
        others: bool,
    },
    /// What the pipes held when the drain began is in the log.
    Drained {
        /// Somebody still holds a pipe open.
        open: bool,
        /// Something was ever logged.
        logged: bool,
    },
    /// What still lives, at most 16 by name.
    Survivors {
        /// The named ones.
        named: Vec<Survivor>,
        /// How many more.
        more: u32,
    },
    /// The log is complete and synced, as far as the disk let it.
    LogSealed(LogTotals),
    /// The records before the barrier may not be durable; what stood behind it was not done.
    PersistFailed {
        /// The system's error number.
        errno: u32,
    },
    /// It is [`State::wake_at_ms`] or later.
    Woke,
    /// A host says something.
    Asked {
        /// On which connection.
        conn: Conn,
        /// What.
        request: Request,
    },
    /// The shim itself was asked by a signal to end: its machine is going down, or somebody picked it out of a list.
    Terminated,
    /// The command's end of the input pipe took bytes.
    InputWritten {
        /// How many.
        bytes: u64,
    },
    /// The command closed its input, or everything up to a closing message was written.
    InputEnded,
}

/// A signal, by its purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// An interrupt, as from a keyboard.
    Interrupt,
    /// The request to end.
    Terminate,
}

/// Whom a notice is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// One connection.
    One(Conn),
    /// Every connection.
    All,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make the child behind the gate. Answer: `Forked` or `ExecFailed`.
    Fork,
    /// Append the records with one write and sync them: a barrier.
    Persist(Vec<Record>),
    /// Let the child go on to execute the program.
    OpenGate,
    /// Close the gate without a word, so that the child never executes anything, and wait until it is gone.
    CloseGate,
    /// Look at the children. Answer: `Children`.
    Look,
    /// Log what the pipes hold right now. Answer: `Drained`.
    Drain,
    /// Signal the command's group.
    SignalGroup(Signal),
    /// Signal what left the group but not the tree.
    SignalRest(Signal),
    /// Kill the group and every descendant, again and again until no new one is found.
    KillTree,
    /// Find out what lives. Answer: `Survivors`.
    NameSurvivors {
        /// The reason for those that may be signalled.
        reason: SurvivorReason,
    },
    /// Log a message to standard input (its length only, if it is secret), then queue it for writing.
    FeedInput {
        /// The message's bytes.
        bytes: Vec<u8>,
        /// Whether they are kept out of the log.
        secret: bool,
        /// Whether the stream is closed behind them.
        close: bool,
    },
    /// Close the command's input and forget what was not written.
    CloseInput,
    /// Finish and sync the log. Answer: `LogSealed`.
    SealLog,
    /// Tell hosts.
    Tell {
        /// Which.
        to: To,
        /// What.
        notice: Notice,
    },
    /// End the shim: everything is done, or nothing more can be.
    Leave,
}

/// What follows from an input.
#[must_use = "effects that are dropped never happen"]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The machine after it.
    pub state: State,
    /// What to do.
    pub effects: Vec<Effect>,
}

/// Where the execution is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing was done.
    New,
    /// The child is being made.
    Forking,
    /// It runs. Its `Started` is synced but for the moment in which `Persist` is performed.
    Running { since_ms: u64, output_ms: u64 },
    /// It ended by itself, and what the pipes hold is being read.
    Draining,
    /// The outcome is known; whoever holds pipes open may finish until then.
    Settling { until_ms: u64 },
    /// It, or what it left, is being ended.
    Ending(Ladder),
    /// Survivors are being named.
    Naming,
    /// The tree is dead or given up, and what the pipes hold is being read.
    Concluding,
    /// The log is being sealed; then the last record is written.
    Sealing,
    /// Nothing is left to do.
    Gone,
}

/// Who writes what to standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
struct StdinOrder {
    /// The position of the next message.
    next: u64,
    /// The keys of the last messages, oldest first.
    known: VecDeque<Uuid>,
    /// Bytes taken and not yet written.
    waiting_bytes: u64,
    /// Nothing is taken any more.
    closed: bool,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    config: Config,
    epoch: Epoch,
    phase: Phase,
    started: Option<Box<Started>>,
    /// The program runs, as far as is known.
    executed: bool,
    exec_failed: Option<ExecFailure>,
    leader: Option<LeaderExit>,
    /// Anything of the tree but the leader lived when children were last looked at.
    others: bool,
    pipes_open: bool,
    /// A signal of ours went out before the leader's exit was seen.
    after_our_signal: bool,
    stopping: Option<EndCause>,
    /// The shortest grace that a stop asked for.
    stop_grace_ms: Option<u64>,
    /// The outcome, once it is decided.
    exit: Option<ExitReport>,
    /// Hosts were told of it: it is durable.
    exit_told: bool,
    survivors: (Vec<Survivor>, u32),
    finished: Option<Box<FinalReport>>,
    stdin: StdinOrder,
}

impl State {
    /// Returns a machine that has done nothing.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let closed = match config.stdin {
            Stdin::Null => true,
            Stdin::Messages => false,
        };
        Self {
            epoch: config.epoch,
            config,
            phase: Phase::New,
            started: None,
            executed: false,
            exec_failed: None,
            leader: None,
            others: false,
            pipes_open: true,
            after_our_signal: false,
            stopping: None,
            stop_grace_ms: None,
            exit: None,
            exit_told: false,
            survivors: (Vec::new(), 0),
            finished: None,
            stdin: StdinOrder { next: 0, known: VecDeque::new(), waiting_bytes: 0, closed },
        }
    }

    /// Returns when [`Input::Woke`] is wanted, in milliseconds since the boot.
    #[must_use]
    pub fn wake_at_ms(&self) -> Option<u64> {
        match &self.phase {
            Phase::Running { .. } if planted!(DeadlineForgotten) => None,
            Phase::Running { since_ms, output_ms } => {
                let total = self.config.total_ms.map(|ms| since_ms.saturating_add(ms));
                let idle = self.config.idle_ms.map(|ms| output_ms.saturating_add(ms));
                total.into_iter().chain(idle).min()
            }
            Phase::Settling { until_ms } => Some(*until_ms),
            Phase::Ending(ladder) => ladder.wake_at_ms(),
            Phase::New
            | Phase::Forking
            | Phase::Draining
            | Phase::Naming
            | Phase::Concluding
            | Phase::Sealing
            | Phase::Gone => None,
        }
    }
}

/// Does one step.
pub fn step(mut state: State, now: Now, input: Input) -> Step {
    let effects = state.advance(now, input);
    Step { state, effects }
}

impl State {
    /// Does one step in place, for the loop that owns the machine.
    #[must_use = "effects that are dropped never happen"]
    pub fn advance(&mut self, now: Now, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        let out = &mut effects;
        match input {
            Input::Begun => self.on_begun(out),
            Input::Forked(started) => self.on_forked(now, started, out),
            Input::Executed => self.on_executed(out),
            Input::ExecFailed(failure) => self.on_exec_failed(failure, out),
            Input::Output => self.on_output(now),
            Input::PipesClosed => self.on_pipes_closed(now, out),
            Input::Children { leader, others } => self.on_children(now, leader, others, out),
            Input::Drained { open, logged } => self.on_drained(now, open, logged, out),
            Input::Survivors { named, more } => self.on_survivors(named, more, out),
            Input::LogSealed(totals) => self.on_log_sealed(now, totals, out),
            Input::PersistFailed { errno } => self.on_persist_failed(now, errno, out),
            Input::Woke => self.on_woke(now, out),
            Input::Asked { conn, request } => self.on_asked(now, conn, request, out),
            Input::Terminated => self.on_terminated(now, out),
            Input::InputWritten { bytes } => {
                self.stdin.waiting_bytes = self.stdin.waiting_bytes.saturating_sub(bytes);
            }
            Input::InputEnded => self.close_stdin(),
        }
        effects
    }
}
