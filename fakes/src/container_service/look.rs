//! How a host looks at a place: the lock first; held, it asks who holds it; free, it keeps it, reads the journal under it,
//! looks at the processes, and does what core's verdict says before it lets go.

use std::collections::BTreeSet;

use windlass_core::container_service::lost;
use windlass_core::execution::{ExitReport, FinalReport, Survivor, SurvivorReason};
use windlass_core::outcome::{Lost, Outcome};
use windlass_core::shim::adoption::{
    self, Evidence, Journal, Lock, Match, Observations, Sweep, Verdict, verdict,
};
use windlass_core::shim::journal::{NAMED_SURVIVORS, Record, Started, Void};
use windlass_core::shim::machine::Conn;
use windlass_core::shim::message::{PROTOCOL_VERSION, Request};

use super::watcher::{Mode, Owner, PATIENCE_MS, Trouble, WatcherKey, running};
use crate::world::{
    Happened, Holder, KILL, PID_NAMESPACE, ProcessName, Signaller, StartId, State, TERM, survivor,
};

/// How long a killed process may take to be gone before it is named, in milliseconds.
const KILL_PATIENCE_MS: u64 = 10_000;

/// A look that is under way.
#[derive(Clone, Debug)]
pub(super) struct Look {
    /// When a shim that does not answer counts as mute.
    until: u64,
    stage: Stage,
}

#[derive(Clone, Debug)]
enum Stage {
    /// Nothing was found out, or nobody answered yet.
    Begin,
    /// The shim was asked who it is.
    Asked(Conn),
    /// The lock is ours, and what is left of the execution is being ended.
    Sweeping(Box<Sweeping>),
}

/// The end of an execution whose shim is dead.
#[derive(Clone, Debug)]
struct Sweeping {
    scope: Sweep,
    /// Why it is lost; `None` if the journal says how it ended.
    reason: Option<Lost>,
    evidence: Evidence,
    started: Option<Started>,
    rung: Rung,
    found_any: bool,
    left: Vec<(ProcessName, Survivor)>,
}

#[derive(Clone, Debug)]
enum Rung {
    /// TERM is still to be sent, with so many milliseconds to follow it.
    Ask(u64),
    /// These got TERM.
    Asked(Vec<ProcessName>, u64),
    /// KILL is sent until nobody is found.
    Kill,
    /// These got KILL.
    Killed(Vec<ProcessName>, u64),
}

impl Look {
    pub(super) fn new(now_ms: u64) -> Self {
        Self { until: now_ms.saturating_add(PATIENCE_MS), stage: Stage::Begin }
    }

    pub(super) fn wake_at_ms(&self) -> Option<u64> {
        match &self.stage {
            Stage::Begin | Stage::Asked(_) => Some(self.until),
            Stage::Sweeping(sweeping) => match &sweeping.rung {
                Rung::Asked(_, until) | Rung::Killed(_, until) => Some(*until),
                Rung::Ask(_) | Rung::Kill => None,
            },
        }
    }

    pub(super) fn conn(&self) -> Option<Conn> {
        match &self.stage {
            Stage::Asked(conn) => Some(*conn),
            Stage::Begin | Stage::Sweeping(_) => None,
        }
    }

    /// The connection that was asked over broke: whoever answered is about to leave.
    pub(super) fn hung_up(&mut self, conn: Conn) {
        if self.conn() == Some(conn) {
            self.stage = Stage::Begin;
        }
    }
}

impl State {
    fn look_of(&mut self, key: WatcherKey) -> Option<&mut Look> {
        match &mut self.watchers.get_mut(&key)?.mode {
            Mode::Looking(look) => Some(look),
            Mode::Serving(_) | Mode::Watching | Mode::Done => None,
        }
    }

    /// Goes on with a look as far as it goes.
    pub(super) fn go_on_looking(&mut self, key: WatcherKey) {
        let now_ms = self.boot_ms();
        loop {
            let Some(look) = self.look_of(key) else { return };
            let is_late = look.until <= now_ms;
            match &look.stage {
                Stage::Begin => {
                    if !self.begin_look(key) {
                        if is_late {
                            self.give_up(key, "the shim does not answer");
                        }
                        return;
                    }
                }
                Stage::Asked(conn) => {
                    let conn = *conn;
                    if is_late {
                        self.close_line(conn);
                        self.give_up(key, "the shim does not answer");
                    }
                    return;
                }
                Stage::Sweeping(_) => {
                    if !self.go_on_sweeping(key, now_ms) {
                        return;
                    }
                }
            }
        }
    }

    fn give_up(&mut self, key: WatcherKey, why: &'static str) {
        if let Some(watcher) = self.watchers.get_mut(&key) {
            watcher.known.trouble = Some(Trouble::Unresponsive(why));
            watcher.mode = Mode::Watching;
        }
    }

    fn in_trouble(&mut self, key: WatcherKey, trouble: Trouble) {
        if let Some(watcher) = self.watchers.get_mut(&key) {
            watcher.known.trouble = Some(trouble);
            watcher.mode = Mode::Done;
        }
    }

    /// Looks, the lock first; says whether that led anywhere.
    fn begin_look(&mut self, key: WatcherKey) -> bool {
        let (host, start) = key;
        let Some(watcher) = self.watchers.get(&key) else { return false };
        let (recorded, epoch) = (watcher.place.clone(), watcher.epoch);
        let Some(made_in) = super::boot_of(&recorded.identity) else {
            self.in_trouble(key, Trouble::Foreign(FOREIGN));
            return true;
        };
        let Some(site) = self.site(start) else {
            // Of what is gone only what carries the mark can be found.
            let boot = same(made_in == self.kernel.boot);
            self.conclude(key, Journal::Missing, boot, None);
            return true;
        };
        if site.place != recorded {
            self.in_trouble(key, Trouble::Foreign(FOREIGN));
            return true;
        }
        if site.lock.is_some() {
            let Some(conn) = self.connect(start, Owner::Watcher(key)) else { return false };
            self.ask(conn, Request::Hello { version: PROTOCOL_VERSION, epoch });
            if let Some(look) = self.look_of(key) {
                look.stage = Stage::Asked(conn);
            }
            return true;
        }
        (site.lock, site.was_locked) = (Some(Holder::Host(host)), true);
        let made_in_boot = site.boot;
        let journal = site.journal();
        let kind = Journal::of(journal);
        let started = site.readable().and_then(|journal| journal.started().cloned());
        let boot = started.as_ref().map_or(made_in_boot, |started| started.boot);
        let boot = same(boot == self.kernel.boot_id());
        self.conclude(key, kind, boot, started);
        true
    }

    /// Acts on the verdict about a place whose lock is ours.
    fn conclude(
        &mut self,
        key: WatcherKey,
        journal: Journal,
        boot: Match,
        started: Option<Started>,
    ) {
        let command = match &started {
            Some(started) if self.command_of(started).is_some() => adoption::Command::Alive,
            Some(_) => adoption::Command::Gone,
            None => adoption::Command::Unknown,
        };
        let pid_namespace = started
            .as_ref()
            .map_or(Match::Unknown, |started| same(started.pid_namespace == PID_NAMESPACE));
        let evidence = Evidence { journal, boot, pid_namespace, command };
        let lock = Lock::Taken(evidence);
        let observed = Observations { directory: Match::Same, machine: Match::Same, lock };
        let grace_ms = self.watchers.get(&key).map_or(0, |watcher| watcher.grace_ms);
        let (scope, grace_ms, reason) = match verdict(observed) {
            Verdict::NeverRan => return self.never_ran(key),
            Verdict::CloseForEver => return self.close_for_ever(key),
            Verdict::Ended => return self.recorded_end(key),
            Verdict::Unverifiable(_) => {
                self.unlock_of_host(key);
                return self.in_trouble(key, Trouble::Unverifiable(UNVERIFIABLE));
            }
            Verdict::LostRestarted => (Sweep::Nothing, 0, Some(Lost::MachineRestarted)),
            Verdict::SweepThenEnded { sweep } => (sweep, 0, None),
            Verdict::SweepThenLost { sweep, reason } => (sweep, 0, Some(reason)),
            Verdict::StopTreeThenLost => (Sweep::Tree, grace_ms, Some(Lost::SupervisorDied)),
            Verdict::Foreign(_)
            | Verdict::Attach
            | Verdict::Superseded
            | Verdict::Unresponsive(_) => {
                self.unlock_of_host(key);
                return self.in_trouble(key, Trouble::Foreign(FOREIGN));
            }
        };
        let rung = if grace_ms > 0 { Rung::Ask(grace_ms) } else { Rung::Kill };
        let (found_any, left) = (false, Vec::new());
        let sweeping = Sweeping { scope, reason, evidence, started, rung, found_any, left };
        if let Some(look) = self.look_of(key) {
            look.stage = Stage::Sweeping(Box::new(sweeping));
        }
    }

    fn done(&mut self, key: WatcherKey) {
        self.unlock_of_host(key);
        if let Some(watcher) = self.watchers.get_mut(&key) {
            watcher.mode = Mode::Done;
        }
    }

    fn never_ran(&mut self, key: WatcherKey) {
        if let Some(watcher) = self.watchers.get_mut(&key) {
            watcher.known.never_ran = true;
        }
        self.done(key);
    }

    /// Row 7: writes that nothing ever ran, and makes it so.
    fn close_for_ever(&mut self, key: WatcherKey) {
        let epoch = self.watchers.get(&key).map(|watcher| watcher.epoch).unwrap_or_default();
        let (start, at) = (key.1, self.now);
        let record = Record::Void(Void { epoch, at });
        if let Some(site) = self.site(start) {
            site.append_as_host(&record);
        }
        self.note(|| Happened::Recorded { start, record });
        self.never_ran(key);
    }

    /// Row 5: the journal has the whole report.
    fn recorded_end(&mut self, key: WatcherKey) {
        let journal = self.site(key.1).and_then(|site| site.readable());
        let found = journal.and_then(|journal| {
            Some((journal.finished()?.clone(), journal.started().map(running)))
        });
        if let (Some((report, running)), Some(watcher)) = (found, self.watchers.get_mut(&key)) {
            watcher.known.running = running.or(watcher.known.running);
            watcher.known.finish(report, true);
        }
        self.done(key);
    }

    /// Goes on with a sweep; says whether it can go on at once.
    fn go_on_sweeping(&mut self, key: WatcherKey, now_ms: u64) -> bool {
        let Some(look) = self.look_of(key) else { return false };
        let Stage::Sweeping(sweeping) = &look.stage else { return false };
        let (scope, started) = (sweeping.scope, sweeping.started.clone());
        let known: BTreeSet<ProcessName> = sweeping.left.iter().map(|(name, _)| *name).collect();
        let next = match sweeping.rung.clone() {
            _ if scope == Sweep::Nothing => None,
            Rung::Ask(grace_ms) => {
                let members = self.remains(key, scope, started.as_ref());
                self.signal_remains(&members, TERM);
                Some((Rung::Asked(members, now_ms.saturating_add(grace_ms)), Vec::new()))
            }
            Rung::Asked(members, until) => {
                if until > now_ms && self.any_lives(&members) {
                    return false;
                }
                Some((Rung::Kill, Vec::new()))
            }
            Rung::Kill => {
                let mut members = self.remains(key, scope, started.as_ref());
                members.retain(|member| !known.contains(member));
                self.signal_remains(&members, KILL);
                let until = now_ms.saturating_add(KILL_PATIENCE_MS);
                (!members.is_empty()).then_some((Rung::Killed(members, until), Vec::new()))
            }
            Rung::Killed(members, until) => {
                if until > now_ms && self.any_lives(&members) {
                    return false;
                }
                let reason = SurvivorReason::Unkillable;
                let left = members.into_iter().filter_map(|member| {
                    let process = self.kernel.living(member)?;
                    Some((member, survivor(process, reason)))
                });
                let left = left.collect();
                Some((Rung::Kill, left))
            }
        };
        let Some(look) = self.look_of(key) else { return false };
        let Stage::Sweeping(sweeping) = &mut look.stage else { return false };
        match next {
            Some((rung, left)) => {
                sweeping.found_any |= match &rung {
                    Rung::Asked(members, _) | Rung::Killed(members, _) => !members.is_empty(),
                    Rung::Ask(_) | Rung::Kill => false,
                };
                sweeping.left.extend(left);
                sweeping.rung = rung;
                true
            }
            None => {
                let sweeping = (**sweeping).clone();
                self.concluded_end(key, sweeping);
                false
            }
        }
    }

    fn any_lives(&self, members: &[ProcessName]) -> bool {
        members.iter().any(|member| self.kernel.living(*member).is_some())
    }

    fn signal_remains(&mut self, members: &[ProcessName], signal: u8) {
        for member in members {
            if self.kernel.living(*member).is_some() {
                self.signal(member.pid, signal, Signaller::Host);
            }
        }
    }

    /// Finds who lives of an execution: the recorded command, who carries the mark, who descends from a member or shares a
    /// member's group and session.
    fn remains(
        &self,
        key: WatcherKey,
        scope: Sweep,
        started: Option<&Started>,
    ) -> Vec<ProcessName> {
        let execution = key.1.execution;
        let all = &self.kernel.processes;
        let mut found: BTreeSet<u32> = all
            .iter()
            .filter(|(_, process)| {
                let of_execution = process.start.is_some_and(|it| it.execution == execution);
                process.lives() && process.marked && of_execution
            })
            .map(|(pid, _)| *pid)
            .collect();
        if scope == Sweep::Tree
            && let Some(started) = started
        {
            match self.command_of(started) {
                Some(command) => drop(found.insert(command.pid)),
                // The number is the group's as long as the group that our handle means has members.
                None => {
                    let leader = self.watchers.get(&key).and_then(|watcher| watcher.leader);
                    let ours = leader.is_some_and(|(leader, _)| {
                        leader.pid == started.pid && leader.start_ticks == started.start_ticks
                    });
                    if ours {
                        found.extend(self.kernel.group(started.group));
                    }
                }
            }
        }
        loop {
            let groups: BTreeSet<(u32, u32)> = found
                .iter()
                .filter_map(|pid| all.get(pid))
                .map(|process| (process.group, process.session))
                .collect();
            let more: Vec<u32> = all
                .iter()
                .filter(|(pid, process)| process.lives() && !found.contains(pid))
                .filter(|(_, process)| {
                    found.contains(&process.parent)
                        || groups.contains(&(process.group, process.session))
                })
                .map(|(pid, _)| *pid)
                .collect();
            if more.is_empty() {
                break;
            }
            found.extend(more);
        }
        found.into_iter().filter_map(|pid| all.get(&pid)).map(|process| process.name).collect()
    }

    /// Rows 1, 6 and 8 to 10: the report is put together from what is left.
    fn concluded_end(&mut self, key: WatcherKey, sweeping: Sweeping) {
        let start = key.1;
        let Sweeping { reason, evidence, started, found_any, left, .. } = sweeping;
        let sums = match self.site(start).is_some() {
            true => {
                self.mark_log(start);
                self.log(start).sums()
            }
            false => windlass_core::log_store::LogStatus::default(),
        };
        let now = self.now;
        let (exit, incomplete) = match reason {
            None => {
                let journal = self.site(start).and_then(|site| site.readable());
                let exit = journal.and_then(|journal| {
                    let seen = journal.exited().map(|exited| exited.report.clone());
                    seen.or_else(|| journal.exec_failed().map(|failure| failure.report()))
                });
                let exit = exit.unwrap_or_else(|| lost(Lost::EvidenceDamaged, now));
                let ran = !matches!(exit.outcome, Outcome::NotStarted { .. });
                (exit, ran && (found_any || evidence.boot != Match::Same))
            }
            Some(reason) => {
                let leader = self.watchers.get(&key).and_then(|watcher| watcher.leader);
                let gone = evidence.command == adoption::Command::Gone;
                let exit = leader.and_then(|(_, exit)| exit).filter(|_| gone);
                (ExitReport { exit, ..lost(reason, now) }, true)
            }
        };
        let mut survivors: Vec<Survivor> = left.into_iter().map(|(_, survivor)| survivor).collect();
        let more = survivors.len().saturating_sub(NAMED_SURVIVORS);
        survivors.truncate(NAMED_SURVIVORS);
        let report = FinalReport {
            exit,
            last_seq: sums.last.0,
            bytes: sums.bytes,
            dropped_bytes: sums.dropped_bytes,
            output_incomplete: incomplete,
            survivors,
            more_survivors: u32::try_from(more).unwrap_or(u32::MAX),
        };
        if let Some(watcher) = self.watchers.get_mut(&key) {
            watcher.known.running = started.as_ref().map(running).or(watcher.known.running);
            watcher.known.finish(report, false);
        }
        self.done(key);
    }

    /// Lets go of a lock that a host took to look.
    pub(super) fn unlock_of_host(&mut self, key: WatcherKey) {
        let (host, start) = key;
        if let Some(site) = self.site(start)
            && site.lock == Some(Holder::Host(host))
        {
            site.lock = None;
            self.stirred = true;
        }
    }

    /// Marks a log as complete: nobody is left who writes it. What was written is on the disk before.
    fn mark_log(&mut self, start: StartId) {
        let log = self.log(start);
        log.sync();
        log.marked = true;
    }
}

const FOREIGN: &str = "the room is not the recorded one";
const UNVERIFIABLE: &str = "it was started in another pid namespace";

fn same(is_same: bool) -> Match {
    if is_same { Match::Same } else { Match::Differs }
}
