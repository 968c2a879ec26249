//! The loop: waits for anything to happen, tells the machine, and does what it says.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use windlass_core::execution::{ExecFailure, ExecStep};
use windlass_core::shim::journal::Started;
use windlass_core::shim::machine::{Config, Conn, Effect, Input, LeaderExit, Now, Signal, State};
use windlass_core::shim::message::{Launch, PROTOCOL_VERSION};

use crate::VERSION;
use crate::control::{Control, receive_launch};
use crate::journal::{JournalFile, Lock, NotOurs};
use crate::log::Log;
use crate::output::Outputs;
use crate::spawn::{self, Child};
use crate::stdin::StdinPipe;
use crate::sys::{self, Signals, Timer};
use crate::tree::{Here, Stat, Tree};

/// The command, from the fork to the end of the shim.
#[derive(Debug)]
struct Command {
    tree: Tree,
    child: Child,
    /// When it was made.
    began: Now,
    /// Whether the child's error pipe has said its word.
    settled: bool,
    exit: Option<LeaderExit>,
}

/// What a polled descriptor is.
#[derive(Clone, Copy, Debug)]
enum Token {
    Signals,
    Timer,
    Listener,
    Errors,
    Output(usize),
    Stdin,
    Connection(Conn),
}

/// The shim.
#[derive(Debug)]
pub(crate) struct Supervisor {
    machine: State,
    /// Until the fork.
    launch: Option<Launch>,
    lock: Lock,
    journal: JournalFile,
    log: Log,
    control: Control,
    outputs: Outputs,
    stdin: StdinPipe,
    command: Option<Command>,
    signals: Signals,
    timer: Timer,
    /// Kept to the end, so that the repository stays locked until then.
    repository_lock: Option<OwnedFd>,
    leaving: bool,
}

/// Runs the shim from the first to the last; returns its exit code.
pub(crate) fn supervise() -> u8 {
    match Supervisor::start() {
        Ok(mut supervisor) => match supervisor.run() {
            Ok(()) => 0,
            Err(error) => {
                say!("cannot go on: {error}");
                1
            }
        },
        Err(reason) => {
            match reason {
                NotOurs::Locked => say!("the place is taken"),
                NotOurs::Used => say!("something was started here before"),
                NotOurs::Foreign(why) => say!("{why}"),
                NotOurs::Io(error) => say!("cannot start: {error}"),
            }
            1
        }
    }
}

impl Supervisor {
    /// Gets a launch and everything that the first step needs. Nothing was recorded when it fails.
    fn start() -> Result<Self, NotOurs> {
        sys::detach().map_err(NotOurs::Io)?;
        let signals = Signals::listen().map_err(NotOurs::Io)?;
        let mut socket = UnixStream::from(sys::take_standard_input().map_err(NotOurs::Io)?);
        let (launch, received) = receive_launch(&mut socket).map_err(NotOurs::Io)?;
        let lock = Lock::take()?;
        let journal = JournalFile::open(&launch, &lock)?;
        let log = Log::new(&launch);
        Ok(Self {
            machine: State::new(Config::new(&launch, std::process::id())),
            lock,
            journal,
            control: Control::new(socket, received).map_err(NotOurs::Io)?,
            outputs: Outputs::new(log.entry_bytes()),
            log,
            stdin: StdinPipe::default(),
            command: None,
            signals,
            timer: Timer::new().map_err(NotOurs::Io)?,
            repository_lock: repository_lock(),
            launch: Some(launch),
            leaving: false,
        })
    }

    fn run(&mut self) -> io::Result<()> {
        self.feed(Input::Begun);
        // The host may have said more in the same breath as the launch.
        self.on_requests(Conn(0));
        while !self.leaving {
            let ready = self.wait()?;
            for (token, hung_up) in ready {
                if self.leaving {
                    break;
                }
                self.on_ready(token, hung_up);
            }
        }
        self.control.close();
        Ok(())
    }

    /// Waits until something is ready or due; tells the machine what is due.
    fn wait(&mut self) -> io::Result<Vec<(Token, bool)>> {
        let wake_ms = self.machine.wake_at_ms().into_iter().chain(self.outputs.due_ms()).min();
        if let Some(wake_ms) = wake_ms {
            if wake_ms <= sys::now().boot_ms {
                self.on_due();
                return Ok(Vec::new());
            }
            self.timer.arm(wake_ms)?;
        }
        let (tokens, mut fds) = self.interests();
        sys::poll(&mut fds)?;
        let ready = tokens.into_iter().zip(fds).filter(|(_, fd)| fd.revents != 0);
        Ok(ready
            .map(|(token, fd)| (token, fd.revents & (libc::POLLERR | libc::POLLHUP) != 0))
            .collect())
    }

    /// Lists what to wait for. Output stands before signals, so that what a command said is known before its end, and
    /// the error pipe before both.
    fn interests(&self) -> (Vec<Token>, Vec<libc::pollfd>) {
        let mut tokens = Vec::with_capacity(8);
        let mut fds = Vec::with_capacity(8);
        let mut add = |token: Token, fd: BorrowedFd<'_>, events: libc::c_short| {
            tokens.push(token);
            fds.push(libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 });
        };
        if let Some(command) = self.command.as_ref().filter(|command| !command.settled) {
            add(Token::Errors, command.child.errors.as_fd(), libc::POLLIN);
        }
        for (index, pipe) in self.outputs.open() {
            add(Token::Output(index), pipe, libc::POLLIN);
        }
        add(Token::Signals, self.signals.as_fd(), libc::POLLIN);
        add(Token::Timer, self.timer.as_fd(), libc::POLLIN);
        if let Some((pipe, waiting)) = self.stdin.fd() {
            // Without interest in writing the kernel still tells when nobody reads any more.
            add(Token::Stdin, pipe, if waiting { libc::POLLOUT } else { 0 });
        }
        if let Some(listener) = self.control.listener() {
            add(Token::Listener, listener, libc::POLLIN);
        }
        for (conn, socket, unsent) in self.control.connections() {
            let events = if unsent { libc::POLLIN | libc::POLLOUT } else { libc::POLLIN };
            add(Token::Connection(conn), socket, events);
        }
        (tokens, fds)
    }

    fn on_ready(&mut self, token: Token, hung_up: bool) {
        match token {
            Token::Errors => self.on_errors(),
            Token::Output(index) => {
                if self.outputs.read(index, &mut self.log) {
                    self.feed(Input::Output);
                }
                if !self.outputs.any_open() {
                    self.feed(Input::PipesClosed);
                }
            }
            Token::Signals => {
                if self.signals.take() {
                    self.feed(Input::Terminated);
                }
                self.on_errors();
                let children = self.look();
                self.feed_all(children);
            }
            Token::Timer => {
                self.timer.fired();
                self.on_due();
            }
            Token::Stdin => {
                if hung_up {
                    self.stdin.close();
                    self.feed(Input::InputEnded);
                } else {
                    let inputs = self.write_stdin();
                    self.feed_all(inputs);
                }
            }
            Token::Listener => self.control.accept(),
            Token::Connection(conn) => {
                self.control.flush(conn);
                for request in self.control.receive(conn) {
                    self.feed(Input::Asked { conn, request });
                }
            }
        }
    }

    fn on_requests(&mut self, conn: Conn) {
        for request in self.control.parse(conn) {
            self.feed(Input::Asked { conn, request });
        }
    }

    fn on_due(&mut self) {
        let now_ms = sys::now().boot_ms;
        self.outputs.release_due(now_ms, &mut self.log);
        if self.machine.wake_at_ms().is_some_and(|wake_ms| wake_ms <= now_ms) {
            self.feed(Input::Woke);
        }
    }

    /// Hears whether the program runs.
    fn on_errors(&mut self) {
        let Some(command) = self.command.as_mut().filter(|command| !command.settled) else {
            return;
        };
        let Some(word) = spawn::read_error(&mut command.child.errors) else { return };
        command.settled = true;
        match word {
            Ok(()) => self.feed(Input::Executed),
            Err(failure) => self.feed(Input::ExecFailed(failure)),
        }
    }

    /// Looks at the children; nothing if there is no command.
    fn look(&mut self) -> Option<Input> {
        let command = self.command.as_mut()?;
        if command.exit.is_none() {
            let seen = sys::peek_exit(command.child.pid).unwrap_or(None);
            command.exit = seen.map(|seen| LeaderExit {
                wait_status: seen.wait_status,
                usage: seen.usage,
                // Only a cgroup of its own would tell; a guess is worth less than nothing.
                out_of_memory: false,
                // Between the start and the end lies what it took, though somebody set the clock meanwhile.
                at: sys::now().by_the_clock_of(command.began),
            });
        }
        if command.exit.is_some()
            && !command.settled
            && let Some(Err(failure)) = spawn::read_error(&mut command.child.errors)
        {
            // The end of a child that could not execute the program is no end of the program.
            command.settled = true;
            return Some(Input::ExecFailed(failure));
        }
        let others = command.tree.reap_strangers();
        Some(Input::Children { leader: command.exit, others })
    }

    fn write_stdin(&mut self) -> Vec<Input> {
        let written = self.stdin.write();
        let mut inputs = Vec::new();
        if written.bytes > 0 {
            inputs.push(Input::InputWritten { bytes: written.bytes });
        }
        if written.ended {
            inputs.push(Input::InputEnded);
        }
        inputs
    }

    fn feed_all(&mut self, inputs: impl IntoIterator<Item = Input>) {
        for input in inputs {
            self.feed(input);
        }
    }

    /// Tells the machine something and does what it says, and what follows from that.
    fn feed(&mut self, input: Input) {
        let mut queue = VecDeque::from([input]);
        while let Some(input) = queue.pop_front() {
            let effects = self.machine.advance(sys::now(), input);
            for effect in effects {
                if let Effect::Persist(records) = &effect
                    && let Err(error) = self.journal.append(records)
                {
                    say!("the journal could not be written: {error}");
                    let errno = error.raw_os_error().and_then(|errno| u32::try_from(errno).ok());
                    queue.push_back(Input::PersistFailed { errno: errno.unwrap_or(0) });
                    break;
                }
                queue.extend(self.perform(effect));
            }
        }
    }

    /// Does one thing; returns what the machine has to hear of it.
    fn perform(&mut self, effect: Effect) -> Vec<Input> {
        match effect {
            // Done by the caller, as it is a barrier.
            Effect::Persist(_) => {}
            Effect::Fork => return vec![self.fork()],
            Effect::OpenGate => self.open_gate(),
            Effect::CloseGate => self.close_gate(),
            Effect::Look => return self.look().into_iter().collect(),
            Effect::Drain => {
                self.outputs.drain(&mut self.log);
                let (open, logged) = (self.outputs.any_open(), !self.log.is_empty());
                return vec![Input::Drained { open, logged }];
            }
            Effect::SignalGroup(signal) => {
                if let Some(command) = &self.command {
                    // A group that is gone needs no signal. What is stopped could not heed one, so it goes on.
                    let _ = sys::signal_group(command.child.pid, number(signal));
                    let _ = sys::signal_group(command.child.pid, libc::SIGCONT);
                }
            }
            Effect::SignalRest(signal) => {
                if let Some(command) = &self.command {
                    command.tree.signal_rest(number(signal));
                    command.tree.signal_rest(libc::SIGCONT);
                }
            }
            Effect::KillTree => {
                if let Some(command) = &self.command {
                    command.tree.kill();
                }
            }
            Effect::NameSurvivors { reason } => {
                let found = self.command.as_ref().map(|command| command.tree.survivors(reason));
                let (named, more) = found.unwrap_or_default();
                return vec![Input::Survivors { named, more }];
            }
            Effect::FeedInput { bytes, secret, close } => {
                self.stdin.feed(&bytes, secret, close, &mut self.log);
                return self.write_stdin();
            }
            Effect::CloseInput => self.stdin.close(),
            Effect::SealLog => return vec![Input::LogSealed(self.log.seal())],
            Effect::Tell { to, notice } => self.control.tell(to, &notice),
            Effect::Leave => self.leaving = true,
        }
        Vec::new()
    }

    /// Makes the child behind the gate.
    fn fork(&mut self) -> Input {
        match self.try_fork() {
            Ok(started) => Input::Forked(Box::new(started)),
            Err(failure) => Input::ExecFailed(failure),
        }
    }

    fn try_fork(&mut self) -> Result<Started, ExecFailure> {
        let prepare = |error: io::Error| spawn::failure(ExecStep::Prepare, &error);
        let launch = self.launch.take().ok_or_else(|| prepare(io::ErrorKind::NotFound.into()))?;
        let here = Here::read().map_err(prepare)?;
        self.control.listen().map_err(prepare)?;
        let inherited = self.repository_lock.as_ref().map(AsFd::as_fd);
        let (child, streams) = spawn::spawn(&launch, self.lock.file().as_fd(), inherited)?;
        let pid = child.pid;
        // The child is ours and not reaped, so the number is its own.
        let pidfs_handle =
            sys::open_pidfd(pid).ok().and_then(|pidfd| sys::pidfs_handle(pidfd.as_fd()));
        let ticks = |pid: u32| Stat::read(pid).map(|stat| stat.start_ticks);
        let (start_ticks, shim_start_ticks) = (ticks(pid), ticks(std::process::id()));
        self.outputs.take(streams.stdout, streams.stderr);
        self.stdin.open(streams.stdin);
        let tree = Tree::new(pid);
        let began = sys::now();
        self.command = Some(Command { tree, child, began, settled: false, exit: None });
        // Without a start time nobody could ever verify it.
        let gone = || prepare(io::Error::from_raw_os_error(libc::ESRCH));
        Ok(Started {
            epoch: launch.epoch,
            protocol: PROTOCOL_VERSION,
            shim_version: VERSION.to_owned(),
            boot: here.boot,
            pid_namespace: here.pid_namespace,
            pid,
            start_ticks: start_ticks.ok_or_else(gone)?,
            pidfs_handle,
            group: pid,
            cgroup: None,
            shim_pid: std::process::id(),
            shim_start_ticks: shim_start_ticks.ok_or_else(gone)?,
            at: began.wall,
        })
    }

    fn open_gate(&mut self) {
        let gate = self.command.as_mut().and_then(|command| command.child.gate.take());
        if let Some(mut gate) = gate {
            // A child that is gone is seen as every child's end is.
            let _ = io::Write::write_all(&mut gate, b"g");
        }
    }

    /// Closes the gate and waits for the child, which ends at once: behind the gate, or after it has told why it cannot
    /// execute the program.
    fn close_gate(&mut self) {
        if let Some(mut command) = self.command.take() {
            command.child.gate = None;
            sys::reap_blocking(command.child.pid);
        }
    }
}

fn number(signal: Signal) -> libc::c_int {
    match signal {
        Signal::Interrupt => libc::SIGINT,
        Signal::Terminate => libc::SIGTERM,
    }
}

/// Returns the repository's lock, if standard output is one.
fn repository_lock() -> Option<OwnedFd> {
    let file = File::from(io::stdout().as_fd().try_clone_to_owned().ok()?);
    file.metadata().ok()?.is_file().then(|| file.into())
}
