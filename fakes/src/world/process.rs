//! What was launched in a place: a command, what it left behind, and the shim that watches over them.

use std::collections::BTreeSet;
use std::time::Duration;

use uuid::Uuid;
use windlass_core::action::{Leftovers, Stdin};
use windlass_core::container_service::{LaunchSpec, Running, StopCause, StopRequest, lost};
use windlass_core::execution::{
    EndCause, ExitReport, FinalReport, ResourceUse, Survivor, SurvivorReason,
};
use windlass_core::input::InputMessage;
use windlass_core::log_store::Stream;
use windlass_core::outcome::{Deadline, Exit, Lost, NotStarted, Outcome};
use windlass_core::time::Timestamp;

use super::Script;
use crate::log_store::Log;

/// The most bytes of input that wait to be read.
pub(crate) const INPUT_LIMIT_BYTES: u64 = 1 << 20;

const TERM: u8 = 15;
const KILL: u8 = 9;

/// What happens to a command from outside.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// It begins.
    Begin,
    /// It may go on.
    Release,
    /// It is asked to end.
    Term,
    /// It is made to end.
    Kill,
    /// Bytes arrive on its input.
    Fed(Vec<u8>),
    /// Its input ends.
    Closed,
}

/// Why a message is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    NotNext { next: u64 },
    Full,
    Closed,
}

/// A launched command with its shim.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    script: Script,
    running: Running,
    leftovers: Leftovers,
    idle: Option<Duration>,
    grace: Duration,
    /// The command's own process lives.
    command: bool,
    /// Children that it left behind, by their numbers.
    children: Vec<u32>,
    /// The shim lives. Without it nothing is recorded and no timer fires.
    supervised: bool,
    /// Why it was asked to end, by the first who asked.
    cause: Option<EndCause>,
    kill_at: Option<Timestamp>,
    total_at: Option<Timestamp>,
    idle_at: Option<Timestamp>,
    stdin: Input,
    end: Option<FinalReport>,
    /// Why it never ran.
    failure: Option<(NotStarted, String)>,
}

#[derive(Clone, Debug)]
struct Input {
    open: bool,
    next: u64,
    known: BTreeSet<Uuid>,
    waiting_bytes: u64,
}

impl Process {
    /// Starts a command, and lets it go as far as it goes by itself.
    pub(crate) fn start(
        spec: &LaunchSpec,
        script: Script,
        pids: [u32; 2],
        log: &mut Log,
        now: Timestamp,
    ) -> Self {
        let after = |limit: Duration| now.plus_ms(millis(limit));
        let [pid, child] = pids;
        let mut process = Self {
            running: Running { pid, since: now },
            leftovers: spec.leftovers,
            idle: spec.idle,
            grace: spec.grace,
            command: true,
            children: if script == Script::LeaveChild { vec![child] } else { Vec::new() },
            script,
            supervised: true,
            cause: None,
            kill_at: None,
            total_at: spec.total.map(after),
            idle_at: spec.idle.map(after),
            stdin: Input {
                open: spec.stdin == Stdin::Messages,
                next: 0,
                known: BTreeSet::new(),
                waiting_bytes: 0,
            },
            end: None,
            failure: None,
        };
        process.step(Step::Begin, log, now);
        process
    }

    /// Records that a command could not be started.
    pub(crate) fn failed(
        spec: &LaunchSpec,
        reason: NotStarted,
        message: String,
        log: &mut Log,
        now: Timestamp,
    ) -> Self {
        let mut process = Self::start(spec, Script::Forever, [0, 0], &mut Log::default(), now);
        process.command = false;
        process.failure = Some((reason, message));
        process.conclude(Outcome::NotStarted { reason }, None, log, now);
        process
    }

    pub(crate) fn running(&self) -> Running {
        self.running
    }

    pub(crate) fn failure(&self) -> Option<&(NotStarted, String)> {
        self.failure.as_ref()
    }

    pub(crate) fn end(&self) -> Option<&FinalReport> {
        self.end.as_ref()
    }

    /// Counts what lives of it.
    pub(crate) fn alive(&self) -> usize {
        usize::from(self.command) + self.children.len()
    }

    /// Says whether nobody watches over it although it has not ended.
    pub(crate) fn is_orphan(&self) -> bool {
        !self.supervised && self.end.is_none()
    }

    pub(crate) fn kill_supervisor(&mut self) {
        self.supervised = false;
    }

    /// Ends what nobody watches over: its processes are killed, its outcome is lost.
    pub(crate) fn sweep(&mut self, log: &mut Log, now: Timestamp) {
        assert!(self.is_orphan(), "what is supervised or has ended is not swept");
        self.command = false;
        self.children.clear();
        let report = lost(Lost::SupervisorDied, now);
        self.conclude(report.outcome, None, log, now);
    }

    pub(crate) fn next_timer(&self) -> Option<Timestamp> {
        if !self.supervised || self.end.is_some() {
            return None;
        }
        let deadlines = [self.total_at, self.idle_at].into_iter().flatten().min();
        self.kill_at.or(deadlines)
    }

    /// Does what is due.
    pub(crate) fn fire(&mut self, log: &mut Log, now: Timestamp) {
        if self.next_timer().is_none_or(|due| due > now) {
            return;
        }
        let due = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
        if due(self.kill_at) {
            self.step(Step::Kill, log, now);
        } else if due(self.total_at) {
            self.ask(EndCause::TimedOut { limit: Deadline::Total }, self.grace, log, now);
        } else {
            self.ask(EndCause::TimedOut { limit: Deadline::Idle }, self.grace, log, now);
        }
    }

    /// Takes a request to stop.
    pub(crate) fn stop(&mut self, request: StopRequest, log: &mut Log, now: Timestamp) {
        let cause = match request.cause {
            StopCause::Stop { by } => EndCause::Stopped { by },
            StopCause::Complete { by } => EndCause::Completed { by },
        };
        if self.supervised && self.end.is_none() {
            self.ask(cause, request.grace, log, now);
        }
    }

    /// Asks the command to end, the first time with TERM, and sets when it is killed; a shorter grace counts.
    fn ask(&mut self, cause: EndCause, grace: Duration, log: &mut Log, now: Timestamp) {
        let kill_at = now.plus_ms(millis(grace));
        self.kill_at = Some(self.kill_at.map_or(kill_at, |earlier| earlier.min(kill_at)));
        if grace.is_zero() {
            self.cause.get_or_insert(cause);
            self.step(Step::Kill, log, now);
        } else if self.cause.is_none() {
            self.cause = Some(cause);
            self.step(Step::Term, log, now);
        }
    }

    /// Takes a message for the command's input.
    pub(crate) fn feed(
        &mut self,
        message: &InputMessage,
        log: &mut Log,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let len = message.bytes.len() as u64;
        if self.stdin.known.contains(&message.key) {
            return Ok(());
        }
        if !self.stdin.open || !self.supervised || self.end.is_some() {
            return Err(Refusal::Closed);
        }
        if message.position != self.stdin.next {
            return Err(Refusal::NotNext { next: self.stdin.next });
        }
        if self.stdin.waiting_bytes + len > INPUT_LIMIT_BYTES {
            return Err(Refusal::Full);
        }
        self.stdin.next += 1;
        self.stdin.known.insert(message.key);
        self.stdin.open = !message.close;
        // In the log before it is written.
        if message.secret {
            log.write_secret(len, now);
        } else if len > 0 {
            log.write(Stream::Stdin, &message.bytes, now);
        }
        self.step(Step::Fed(message.bytes.to_vec()), log, now);
        if message.close {
            self.step(Step::Closed, log, now);
        }
        Ok(())
    }

    /// Lets the command see something, and does what it does then.
    pub(crate) fn step(&mut self, step: Step, log: &mut Log, now: Timestamp) {
        if !self.command {
            return;
        }
        match (&self.script, step) {
            (_, Step::Kill) => self.exit(Exit::Signal(KILL), log, now),
            (Script::IgnoreTerm, Step::Term) => {}
            (_, Step::Term) => self.exit(Exit::Signal(TERM), log, now),
            (Script::Exit(code), Step::Begin) => self.exit(Exit::Code(*code), log, now),
            (Script::Die(signal), Step::Begin) => self.exit(Exit::Signal(*signal), log, now),
            (Script::LeaveChild, Step::Begin) => self.exit(Exit::Code(0), log, now),
            (Script::Print { stdout, stderr }, Step::Begin) => {
                for (stream, bytes) in [(Stream::Stdout, stdout), (Stream::Stderr, stderr)] {
                    if !bytes.is_empty() {
                        log.write(stream, bytes, now);
                    }
                }
                self.exit(Exit::Code(0), log, now);
            }
            (
                Script::UntilReleased(_)
                | Script::Forever
                | Script::IgnoreTerm
                | Script::EchoStdin
                | Script::IgnoreStdin,
                Step::Begin,
            ) => self.print(b"ready", log, now),
            (Script::UntilReleased(code), Step::Release) => {
                self.exit(Exit::Code(*code), log, now);
            }
            (Script::EchoStdin, Step::Fed(bytes)) => self.print(&bytes, log, now),
            (Script::EchoStdin, Step::Closed) => self.exit(Exit::Code(0), log, now),
            (_, Step::Fed(bytes)) => self.stdin.waiting_bytes += bytes.len() as u64,
            (_, Step::Release | Step::Closed) => {}
        }
    }

    fn print(&mut self, bytes: &[u8], log: &mut Log, now: Timestamp) {
        // A command whose shim is dead writes into a broken pipe.
        if self.supervised && !bytes.is_empty() {
            log.write(Stream::Stdout, bytes, now);
            self.idle_at = self.idle.map(|idle| now.plus_ms(millis(idle)));
        }
    }

    /// The command ends, and with it what it leaves behind, unless that is to be left.
    fn exit(&mut self, exit: Exit, log: &mut Log, now: Timestamp) {
        self.command = false;
        if !self.supervised {
            return;
        }
        let natural = match exit {
            Exit::Code(code) => Outcome::Exited { code },
            Exit::Signal(signal) => Outcome::Signaled { signal },
        };
        let outcome = self.cause.map_or(natural, EndCause::outcome);
        if self.cause.is_some() || self.leftovers == Leftovers::Stop {
            self.children.clear();
        }
        self.conclude(outcome, Some(exit), log, now);
    }

    fn conclude(&mut self, outcome: Outcome, exit: Option<Exit>, log: &mut Log, now: Timestamp) {
        assert!(self.end.is_none(), "an execution ends once");
        log.seal();
        let sums = log.status();
        let survivor =
            |&pid: &u32| Survivor { pid, name: "child".to_owned(), reason: SurvivorReason::Left };
        self.stdin.open = false;
        self.end = Some(FinalReport {
            exit: ExitReport {
                outcome,
                exit,
                at: now,
                usage: ResourceUse::default(),
                out_of_memory: false,
            },
            last_seq: sums.last.0,
            bytes: sums.bytes,
            dropped_bytes: sums.dropped_bytes,
            output_incomplete: matches!(outcome, Outcome::Lost { .. }),
            survivors: self.children.iter().map(survivor).collect(),
            more_survivors: 0,
        });
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
