//! What a host knows of one start: a connection to its shim while that lives, and what it looked up when it did not.
//!
//! Watchers are parts of the world that go with their host. As the tasks of the real service they go on by themselves,
//! whether or not anybody waits for what they find.

use std::collections::BTreeMap;

use windlass_core::container_service::{Place, Running};
use windlass_core::execution::{ExecFailure, ExitReport, FinalReport};
use windlass_core::id::Epoch;
use windlass_core::outcome::Exit;
use windlass_core::shim::journal::Started;
use windlass_core::shim::machine::Conn;
use windlass_core::shim::message::{InputRefusal, Notice, Request, Stop, Welcome};

use super::look::Look;
use crate::world::{HostToken, ProcessName, Signaller, StartId, State};

/// How long a shim may take to answer before it counts as mute, in milliseconds.
pub(crate) const PATIENCE_MS: u64 = 2_000;

/// Names a watcher: which host's, of which start.
pub(crate) type WatcherKey = (HostToken, StartId);

/// What a host knows of one start.
#[derive(Clone, Debug)]
pub(crate) struct Watcher {
    pub(crate) place: Place,
    pub(crate) epoch: Epoch,
    pub(crate) known: Known,
    pub(super) mode: Mode,
    /// From TERM to KILL for what a dead shim left, in milliseconds.
    pub(super) grace_ms: u64,
    /// The command, if it lived when we heard of it, and how it ended since.
    pub(super) leader: Option<(ProcessName, Option<Exit>)>,
    pub(super) started: Option<Started>,
    /// When a shim that has not told of a start is looked at.
    undecided_until: Option<u64>,
    /// Who waits for an answer of the shim, in order.
    pending: Vec<(u64, Epoch)>,
    answers: BTreeMap<u64, Answer>,
}

/// What a watcher does.
#[derive(Clone, Debug)]
pub(super) enum Mode {
    /// It listens to the shim.
    Serving(Conn),
    /// It looks at the place.
    Looking(Look),
    /// It waits for a mute shim to go or to speak.
    Watching,
    /// Nothing will change any more.
    Done,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Taken,
    Superseded,
    /// The connection broke before there was one.
    Broken,
}

/// What is known. It only grows, but for the trouble.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(super) running: Option<Running>,
    pub(super) failed: Option<ExecFailure>,
    pub(super) exited: Option<ExitReport>,
    pub(super) finished: Option<FinalReport>,
    /// The journal has the end.
    pub(super) recorded: bool,
    pub(super) never_ran: bool,
    pub(super) trouble: Option<Trouble>,
}

/// What keeps a host from knowing more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    Unresponsive(&'static str),
    Superseded,
    Foreign(&'static str),
    Unverifiable(&'static str),
}

/// Whose a connection is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Owner {
    Watcher(WatcherKey),
    /// Somebody who sends one message to standard input and waits for the answer.
    Letter(u64),
}

/// A connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    shim: u32,
    owner: Owner,
}

/// What became of a message to standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Taken,
    Refused(InputRefusal, u64),
    Superseded,
    Broken,
}

impl Known {
    fn welcome(&mut self, welcome: &Welcome) {
        self.running = welcome.started.as_ref().map(running).or(self.running);
        self.failed = welcome.exec_failed.or(self.failed);
        self.exited = welcome.exited.clone().or_else(|| self.exited.take());
        self.trouble = None;
        if let Some(report) = &welcome.finished {
            self.finish(report.clone(), true);
        }
    }

    pub(super) fn finish(&mut self, report: FinalReport, recorded: bool) {
        self.exited = Some(report.exit.clone());
        self.finished = Some(report);
        self.recorded = recorded;
        self.trouble = None;
    }

    /// Says whether it is known what became of a launch.
    pub(super) fn is_decided(&self) -> bool {
        self.running.is_some() || self.exited.is_some() || self.never_ran || self.trouble.is_some()
    }

    /// Says whether what is not known now never will be.
    pub(super) fn is_stuck(&self) -> bool {
        match self.trouble {
            None | Some(Trouble::Unresponsive(_)) => false,
            Some(Trouble::Superseded | Trouble::Foreign(_) | Trouble::Unverifiable(_)) => true,
        }
    }
}

/// Returns the command of a journal, for people.
pub(super) fn running(started: &Started) -> Running {
    Running { pid: started.pid, since: started.at }
}

impl Watcher {
    fn new(place: Place, epoch: Epoch, grace_ms: u64, mode: Mode) -> Self {
        Self {
            place,
            epoch,
            known: Known::default(),
            mode,
            grace_ms,
            leader: None,
            started: None,
            undecided_until: None,
            pending: Vec::new(),
            answers: BTreeMap::new(),
        }
    }

    /// Returns when it wants to be woken, in milliseconds since the boot.
    pub(crate) fn wake_at_ms(&self) -> Option<u64> {
        match &self.mode {
            Mode::Serving(_) => self.undecided_until,
            Mode::Looking(look) => look.wake_at_ms(),
            Mode::Watching | Mode::Done => None,
        }
    }

    fn fail_pending(&mut self) {
        for (ticket, _) in self.pending.drain(..) {
            self.answers.insert(ticket, Answer::Broken);
        }
    }

    /// Fails what came from a lower epoch.
    fn superseded(&mut self, epoch: Epoch) {
        let answers = &mut self.answers;
        self.pending.retain(|(ticket, held)| {
            if *held < epoch {
                answers.insert(*ticket, Answer::Superseded);
            }
            *held >= epoch
        });
    }

    pub(super) fn take_answer(&mut self, ticket: u64) -> Option<Answer> {
        self.answers.remove(&ticket)
    }

    pub(super) fn is_useful(&self) -> bool {
        self.known.trouble.is_none()
    }

    /// Says whether it is still finding out what there is.
    pub(super) fn is_looking(&self) -> bool {
        matches!(self.mode, Mode::Looking(_))
    }
}

impl State {
    /// Begins to watch a start whose shim was just started.
    pub(super) fn watch_launch(
        &mut self,
        key: WatcherKey,
        place: &Place,
        epoch: Epoch,
        grace_ms: u64,
    ) -> Conn {
        let conn = Conn(self.fresh_number());
        let mut watcher = Watcher::new(place.clone(), epoch, grace_ms, Mode::Serving(conn));
        watcher.undecided_until = Some(self.boot_ms().saturating_add(PATIENCE_MS));
        self.watchers.insert(key, watcher);
        conn
    }

    /// Notes where a connection leads, once the shim has its number.
    pub(super) fn connected(&mut self, conn: Conn, shim: u32, owner: Owner) {
        let lives = self.kernel.processes.get(&shim).is_some_and(crate::world::Process::lives);
        self.lines.insert(conn, Line { shim, owner });
        if !lives {
            self.hang_up(conn);
        }
    }

    /// Begins to look at a place, keeping what another watcher knew of the command.
    pub(super) fn watch_place(
        &mut self,
        key: WatcherKey,
        place: &Place,
        epoch: Epoch,
        grace_ms: u64,
    ) {
        let look = Look::new(self.boot_ms());
        let mut watcher = Watcher::new(place.clone(), epoch, grace_ms, Mode::Looking(look));
        if let Some(before) = self.watchers.remove(&key) {
            watcher.leader = before.leader;
            if let Mode::Serving(conn) = before.mode {
                self.close_line(conn);
            }
            self.unlock_of_host(key);
        }
        self.watchers.insert(key, watcher);
        self.stirred = true;
    }

    /// Connects to the shim of a start; `None` if nobody answers there.
    pub(crate) fn connect(&mut self, start: StartId, owner: Owner) -> Option<Conn> {
        let pid = self.shim_of(start)?;
        if !self.shim(pid)?.listens() {
            return None;
        }
        let conn = Conn(self.fresh_number());
        self.shim(pid)?.conns.push(conn);
        self.lines.insert(conn, Line { shim: pid, owner });
        Some(conn)
    }

    /// Says something to a shim.
    pub(crate) fn ask(&mut self, conn: Conn, request: Request) {
        let Some(line) = self.lines.get(&conn).copied() else { return };
        if let Some(shim) = self.shim(line.shim) {
            shim.ask(conn, request);
            self.kernel.wake(line.shim);
        }
    }

    /// Closes our end of a connection.
    pub(crate) fn close_line(&mut self, conn: Conn) {
        if let Some(line) = self.lines.remove(&conn)
            && let Some(shim) = self.shim(line.shim)
        {
            shim.conns.retain(|other| *other != conn);
        }
    }

    /// The other end of a connection is gone.
    pub(crate) fn hang_up(&mut self, conn: Conn) {
        let Some(line) = self.lines.remove(&conn) else { return };
        self.stirred = true;
        let now_ms = self.boot_ms();
        match line.owner {
            Owner::Letter(letter) => {
                self.letters.entry(letter).or_insert(Reply::Broken);
            }
            Owner::Watcher(key) => {
                let Some(watcher) = self.watchers.get_mut(&key) else { return };
                match &mut watcher.mode {
                    Mode::Serving(serving) if *serving == conn => {
                        watcher.fail_pending();
                        watcher.mode = Mode::Looking(Look::new(now_ms));
                    }
                    Mode::Looking(look) => look.hung_up(conn),
                    Mode::Serving(_) | Mode::Watching | Mode::Done => {}
                }
            }
        }
    }

    /// Tells a host something.
    pub(crate) fn tell(&mut self, conn: Conn, notice: &windlass_core::shim::message::Notice) {
        let Some(line) = self.lines.get(&conn).copied() else { return };
        match line.owner {
            Owner::Letter(letter) => {
                let reply = match notice {
                    Notice::InputTaken { .. } => Reply::Taken,
                    Notice::InputRefused { reason, next, .. } => Reply::Refused(*reason, *next),
                    Notice::Superseded { .. } => Reply::Superseded,
                    _ => return,
                };
                self.letters.insert(letter, reply);
                self.close_line(conn);
            }
            Owner::Watcher(key) => self.notice(key, conn, notice),
        }
    }

    /// Takes in what a shim says.
    fn notice(&mut self, key: WatcherKey, conn: Conn, notice: &Notice) {
        let Some(watcher) = self.watchers.get_mut(&key) else { return };
        match notice {
            Notice::Welcome(welcome) if watcher.is_looking() => {
                if welcome.epoch > watcher.epoch {
                    watcher.known.trouble = Some(Trouble::Superseded);
                    watcher.mode = Mode::Done;
                    self.close_line(conn);
                    return;
                }
                watcher.mode = Mode::Serving(conn);
                watcher.known.welcome(welcome);
                if watcher.known.finished.is_some() {
                    watcher.mode = Mode::Done;
                    self.close_line(conn);
                }
                let started = welcome.started.clone();
                self.hold(key, started);
            }
            Notice::Welcome(welcome) => {
                watcher.known.welcome(welcome);
                let started = welcome.started.clone();
                self.hold(key, started);
            }
            Notice::Started(started) => {
                watcher.known.running = Some(running(started));
                self.hold(key, Some((**started).clone()));
            }
            Notice::ExecFailed(failure) => {
                watcher.known.failed = Some(*failure);
                watcher.known.exited = Some(failure.report());
            }
            Notice::Exited(report) => watcher.known.exited = Some(report.clone()),
            Notice::Final(report) => {
                watcher.known.finish((**report).clone(), true);
                watcher.fail_pending();
                watcher.mode = Mode::Done;
                self.close_line(conn);
            }
            Notice::StopTaken => {
                if !watcher.pending.is_empty() {
                    let (ticket, _) = watcher.pending.remove(0);
                    watcher.answers.insert(ticket, Answer::Taken);
                }
            }
            Notice::Superseded { epoch } => watcher.superseded(*epoch),
            Notice::InputTaken { .. } | Notice::InputRefused { .. } => {}
            Notice::Unsupported { .. } => watcher.fail_pending(),
        }
    }

    /// Keeps a handle to the command while it lives: how it ended can be read from it even if the shim dies.
    pub(super) fn hold(&mut self, key: WatcherKey, started: Option<Started>) {
        let Some(started) = started else { return };
        let living = self.command_of(&started);
        if let Some(watcher) = self.watchers.get_mut(&key) {
            watcher.undecided_until = None;
            if watcher.leader.is_none() {
                watcher.leader = living.map(|name| (name, None));
            }
            watcher.started = Some(started);
        }
    }

    /// Returns the process that a journal names, if it lives.
    pub(super) fn command_of(&self, started: &Started) -> Option<ProcessName> {
        let other_boot = started.boot != self.kernel.boot_id();
        if other_boot && !windlass_core::planted!(SignalledAfterRestart) {
            return None;
        }
        let process = self.kernel.processes.get(&started.pid)?;
        let is_it = process.lives() && process.name.start_ticks == started.start_ticks;
        is_it.then_some(process.name)
    }

    /// Tells those who hold a handle to a command how it ended.
    pub(crate) fn leader_ended(&mut self, name: ProcessName, exit: Exit) {
        for watcher in self.watchers.values_mut() {
            match &mut watcher.leader {
                Some((leader, seen)) if *leader == name => *seen = Some(exit),
                Some(_) | None => {}
            }
        }
    }

    /// Gives a stop to whoever can bring it about; `None` while that is being found out.
    pub(super) fn order_stop(&mut self, key: WatcherKey, stop: Stop) -> Option<Ordered> {
        let ticket = self.fresh_number();
        let watcher = self.watchers.get_mut(&key)?;
        match &watcher.mode {
            Mode::Looking(_) => None,
            Mode::Done => Some(Ordered::Over),
            Mode::Serving(conn) => {
                let conn = *conn;
                watcher.pending.push((ticket, stop.epoch));
                self.wake_shim(key.1);
                self.ask(conn, Request::Stop(stop));
                Some(Ordered::Asked(ticket))
            }
            Mode::Watching => {
                let started = watcher.started.clone();
                Some(self.stop_by_handle(key, started, stop))
            }
        }
    }

    /// Lets a shim go on that somebody stopped: it could not do what it is told.
    pub(super) fn wake_shim(&mut self, start: StartId) {
        if let Some(pid) = self.shim_of(start)
            && let Some(shim) = self.shim(pid)
        {
            shim.thaw();
            self.kernel.wake(pid);
        }
    }

    /// Signals the command itself, as its shim does not answer.
    fn stop_by_handle(&mut self, key: WatcherKey, started: Option<Started>, stop: Stop) -> Ordered {
        let journal = self.site(key.1).and_then(|site| site.readable());
        let started = started.or_else(|| journal.and_then(|journal| journal.started().cloned()));
        let Some(started) = started else { return Ordered::Unknown };
        let Some(command) = self.command_of(&started) else { return Ordered::Done };
        if stop.grace_ms == 0 {
            self.signal(command.pid, crate::world::KILL, Signaller::Host);
        } else {
            self.signal(command.pid, crate::world::TERM, Signaller::Host);
            let at = self.boot_ms().saturating_add(stop.grace_ms);
            self.kill_later.push((at, command, key.0));
        }
        Ordered::Done
    }

    /// Ends what a host held: its connections, its locks, what it was about to do.
    pub(crate) fn host_gone(&mut self, host: HostToken) {
        let keys: Vec<WatcherKey> =
            self.watchers.keys().filter(|(token, _)| *token == host).copied().collect();
        for key in keys {
            if let Some(watcher) = self.watchers.remove(&key) {
                match watcher.mode {
                    Mode::Serving(conn) => self.close_line(conn),
                    Mode::Looking(look) => {
                        look.conn().into_iter().for_each(|it| self.close_line(it))
                    }
                    Mode::Watching | Mode::Done => {}
                }
            }
            self.unlock_of_host(key);
        }
        self.kill_later.retain(|(_, _, token)| *token != host);
        self.stirred = true;
    }

    /// Lets every watcher go on that has something to do.
    pub(crate) fn run_watchers(&mut self) {
        let now_ms = self.boot_ms();
        let due: Vec<(u64, ProcessName, HostToken)> =
            self.kill_later.extract_if(.., |(at, _, _)| *at <= now_ms).collect();
        for (_, command, _) in due {
            if self.kernel.living(command).is_some() {
                self.signal(command.pid, crate::world::KILL, Signaller::Host);
            }
        }
        let keys: Vec<WatcherKey> = self
            .watchers
            .iter()
            .filter(|(_, watcher)| !matches!(watcher.mode, Mode::Done))
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            self.run_watcher(key, now_ms);
        }
    }

    fn run_watcher(&mut self, key: WatcherKey, now_ms: u64) {
        let Some(watcher) = self.watchers.get_mut(&key) else { return };
        match &watcher.mode {
            Mode::Looking(_) => self.go_on_looking(key),
            Mode::Watching => {
                let answers = self.shim_of(key.1).is_none_or(|pid| self.answers(pid));
                if answers && let Some(watcher) = self.watchers.get_mut(&key) {
                    watcher.mode = Mode::Looking(Look::new(now_ms));
                    self.go_on_looking(key);
                }
            }
            Mode::Serving(_) => {
                if watcher.undecided_until.is_some_and(|until| until <= now_ms) {
                    watcher.undecided_until = None;
                    let journal = self.site(key.1).and_then(|site| site.readable());
                    let started = journal.and_then(|journal| journal.started().cloned());
                    if started.is_some() {
                        self.hold(key, started);
                        self.wake_shim(key.1);
                    }
                }
            }
            Mode::Done => {}
        }
    }

    fn answers(&mut self, pid: u32) -> bool {
        self.shim(pid).is_some_and(|shim| shim.listens() && !shim.is_frozen())
    }

    /// Sends one message to the standard input of a start; its answer comes under the number that is returned, `None` if nobody listens there.
    pub(crate) fn letter(
        &mut self,
        start: StartId,
        input: windlass_core::shim::message::Input,
    ) -> Option<u64> {
        let letter = self.fresh_number();
        let conn = self.connect(start, Owner::Letter(letter))?;
        self.ask(conn, Request::Input(input));
        Some(letter)
    }
}

/// What became of the order to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ordered {
    /// The shim was asked; the answer has this number.
    Asked(u64),
    /// It was done without the shim.
    Done,
    /// There is nothing to stop any more.
    Over,
    /// Nobody knows whom to signal.
    Unknown,
}
