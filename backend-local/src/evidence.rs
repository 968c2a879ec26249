//! Looks at a place in the one order that gives right verdicts, and brings about what the verdict says.
//!
//! The lock first. Held: ask who holds it. Free: keep it, read the journal under it, then look at the processes, and
//! keep it until the end is decided. The verdict itself is core's.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;
use windlass_core::container_service::{Place, Running, lost};
use windlass_core::execution::{ExitReport, FinalReport};
use windlass_core::id::{Epoch, ExecutionId};
use windlass_core::outcome::{Exit, Lost, Outcome};
use windlass_core::shim::adoption::{
    Answer, Command, Doubt, Evidence, Journal, Lock, Match, Observations, Stranger, Sweep, Verdict,
    verdict,
};
use windlass_core::shim::journal::{self, Record, Started, Void};
use windlass_core::shim::message::Welcome;

use crate::connection::{Connection, HELLO_PATIENCE, Hello, hello};
use crate::identity::{Found, Pidfd, ProcessIdentity, compare};
use crate::kernel::exit_of;
use crate::log_store;
use crate::node::{Node, Provenance, now};
use crate::place::{PlaceDir, PlaceIdentity, PlaceLock};
use crate::segment_reader::{SegmentReader, Sums};
use crate::sweep::{self, Survivors, Target};

/// One start, as it is recorded.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) execution: ExecutionId,
    pub(crate) place: Place,
    pub(crate) epoch: Epoch,
    /// A handle to the command, from when it lived, if we were attached then.
    pub(crate) leader: Option<Arc<Pidfd>>,
}

impl Start {
    /// Names a start, without a part in it.
    pub(crate) fn unattached(execution: ExecutionId, place: &Place) -> Self {
        Self { execution, place: place.clone(), epoch: Epoch::default(), leader: None }
    }
}

/// What a place turned out to be, with everything done that the verdict asks for.
#[derive(Debug)]
pub(crate) enum Examined {
    /// It is supervised, and this is the connection.
    Supervised(Connection, Box<Welcome>),
    /// It has ended.
    Ended(Ended),
    /// It never ran and never will.
    NeverRan,
    /// A host with a higher epoch drives it.
    Superseded,
    /// Its supervisor lives and does not answer.
    Unresponsive(String),
    /// It is not ours.
    Foreign(String),
    /// It cannot be told whether it runs.
    Unverifiable(String),
}

/// An execution's end.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) report: FinalReport,
    /// The command, if it was started.
    pub(crate) running: Option<Running>,
    /// The journal says so itself; else it was concluded.
    pub(crate) recorded: bool,
}

/// What is behind a lock that was free.
#[derive(Debug)]
struct Taken {
    /// The place, unless it is gone.
    place: Option<(PlaceDir, PlaceLock)>,
    journal: journal::Verdict,
    evidence: Evidence,
    /// What an attached host's handle saw of the command.
    exit: Option<Exit>,
}

/// What was seen at first.
#[derive(Debug)]
enum Seen {
    Foreign(Stranger),
    Held { place: PlaceDir, shim: Option<ProcessIdentity> },
    Taken(Box<Taken>),
}

/// Returns the command of a journal, for people.
pub(crate) fn running(started: &Started) -> Running {
    Running { pid: started.pid, since: started.at }
}

/// Returns the identity of a recorded command.
pub(crate) fn command(started: &Started) -> ProcessIdentity {
    ProcessIdentity {
        pid: started.pid,
        start_ticks: Some(started.start_ticks),
        pidfs: started.pidfs_handle.map(u64::from_ne_bytes),
    }
}

/// Returns the identity of a recorded shim.
pub(crate) fn shim(started: &Started) -> ProcessIdentity {
    ProcessIdentity {
        pid: started.shim_pid,
        start_ticks: Some(started.shim_start_ticks),
        pidfs: None,
    }
}

/// Examines a place and acts on the verdict.
///
/// # Errors
///
/// When the place cannot be read; nothing was decided.
///
/// # Cancel safety
///
/// May be dropped and called again.
pub(crate) async fn examine(node: &Arc<Node>, start: &Start) -> io::Result<Examined> {
    let deadline = Instant::now() + HELLO_PATIENCE;
    let mut change = None;
    loop {
        let (place, shim) = match look(node, start).await? {
            Seen::Foreign(stranger) => return Ok(Examined::Foreign(foreign(stranger))),
            Seen::Taken(taken) => return conclude(node, start, *taken).await,
            Seen::Held { place, shim } => (place, shim),
        };
        let answer = hello(&place, start.execution, start.place.nonce, start.epoch).await;
        let lock = Lock::Held(answer.answer());
        let ours = Observations { directory: Match::Same, machine: Match::Same, lock };
        let detail = match (verdict(ours), answer) {
            (Verdict::Attach, Hello::Ours(connection, welcome)) => {
                return Ok(Examined::Supervised(connection, welcome));
            }
            (Verdict::Superseded, _) => return Ok(Examined::Superseded),
            (_, Hello::Not(Answer::Mute, detail)) if Instant::now() < deadline => {
                // It may be about to listen, or about to leave: whichever it is changes something.
                let Some(change) = &mut change else {
                    change = Some(Change::of(node, &place, shim)?);
                    continue;
                };
                change.wait(deadline).await;
                drop(detail);
                continue;
            }
            (_, Hello::Not(_, detail)) => detail,
            (_, Hello::Ours(..)) => "the shim answered beside the matrix".to_owned(),
        };
        return Ok(Examined::Unresponsive(detail));
    }
}

/// Something that may happen to a place whose shim does not answer.
struct Change {
    follower: crate::follow::Follower,
    shim: Option<Pidfd>,
}

impl Change {
    fn of(node: &Node, place: &PlaceDir, shim: Option<ProcessIdentity>) -> io::Result<Self> {
        let shim = match shim.map(|shim| shim.find()) {
            Some(Found::Alive(fd)) => Some(fd),
            Some(Found::Gone | Found::Unknown) | None => None,
        };
        Ok(Self { follower: node.follow(place.fd())?, shim })
    }

    /// Waits for it, until the deadline.
    async fn wait(&mut self, deadline: Instant) {
        let gone = async {
            match self.shim.take() {
                Some(shim) => sweep::gone(shim.into_fd()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = gone => {}
            () = self.follower.changed() => {}
            () = tokio::time::sleep_until(deadline) => {}
        }
    }
}

/// Looks at a place, the lock first.
async fn look(node: &Arc<Node>, start: &Start) -> io::Result<Seen> {
    let (node, start) = (Arc::clone(node), start.clone());
    tokio::task::spawn_blocking(move || look_now(&node, &start)).await.map_err(io::Error::other)?
}

fn look_now(node: &Node, start: &Start) -> io::Result<Seen> {
    let Some(recorded) = PlaceIdentity::decode(&start.place.identity) else {
        return Ok(Seen::Foreign(Stranger::Directory));
    };
    let place = node.runs.place(start.execution, start.place.nonce)?;
    let moved = node.options.provenance == Provenance::Moved;
    if !moved {
        let machine = recorded.machine(&node.here);
        let directory = recorded.directory(&node.here, &node.runs, place.as_ref());
        // The rest of the observations cannot change this row.
        let lock = Lock::Held(Answer::Mute);
        if let Verdict::Foreign(stranger) = verdict(Observations { directory, machine, lock }) {
            return Ok(Seen::Foreign(stranger));
        }
    }
    let Some(place) = place else {
        let journal = journal::Verdict::Damaged;
        let kind = Journal::Missing;
        return Ok(Seen::Taken(Box::new(taken(node, start, &recorded, None, journal, kind))));
    };
    let Some(lock) = place.try_lock()? else {
        let shim = match place.read_journal()? {
            journal::Verdict::Readable(journal) => journal.started().map(shim),
            journal::Verdict::Newer { .. } | journal::Verdict::Damaged => None,
        };
        return Ok(Seen::Held { place, shim });
    };
    let journal = place.read_journal()?;
    let kind = match &journal {
        journal::Verdict::Readable(read)
            if (read.header.execution, read.header.nonce)
                != (start.execution, start.place.nonce) =>
        {
            Journal::Damaged
        }
        journal => Journal::of(journal),
    };
    let place = Some((place, lock));
    Ok(Seen::Taken(Box::new(taken(node, start, &recorded, place, journal, kind))))
}

/// Gathers the evidence under the lock.
fn taken(
    node: &Node,
    start: &Start,
    recorded: &PlaceIdentity,
    place: Option<(PlaceDir, PlaceLock)>,
    journal: journal::Verdict,
    kind: Journal,
) -> Taken {
    let here = &node.here;
    let (boot, pid_namespace, command) = match started(&journal) {
        Some(started) => (
            compare(Some(Uuid::from_bytes(started.boot)), here.boot),
            compare(Some(started.pid_namespace), here.pid_namespace),
            Some(command(started)),
        ),
        None => (compare(recorded.boot, here.boot), Match::Unknown, None),
    };
    // Of a directory that was moved on purpose nothing that runs is ours to signal.
    let boot = if node.options.provenance == Provenance::Moved { Match::Differs } else { boot };
    let command = match command.map(|command| command.find()) {
        Some(Found::Alive(_)) => Command::Alive,
        Some(Found::Gone) => Command::Gone,
        Some(Found::Unknown) | None => Command::Unknown,
    };
    let exit = start.leader.as_ref().and_then(exit_of);
    Taken {
        place,
        journal,
        evidence: Evidence { journal: kind, boot, pid_namespace, command },
        exit,
    }
}

fn started(journal: &journal::Verdict) -> Option<&Started> {
    match journal {
        journal::Verdict::Readable(journal) => journal.started(),
        journal::Verdict::Newer { .. } | journal::Verdict::Damaged => None,
    }
}

/// Does what the verdict on a free lock says, and lets go of the lock then.
async fn conclude(node: &Arc<Node>, start: &Start, taken: Taken) -> io::Result<Examined> {
    let lock = Lock::Taken(taken.evidence);
    let ours = Observations { directory: Match::Same, machine: Match::Same, lock };
    let (sweep, grace, reason) = match verdict(ours) {
        Verdict::NeverRan => return Ok(Examined::NeverRan),
        Verdict::CloseForEver => return close_for_ever(start.epoch, taken).await,
        Verdict::Ended => return Ok(recorded_end(&taken)),
        Verdict::Unverifiable(doubt) => {
            return Ok(Examined::Unverifiable(unverifiable(doubt).to_owned()));
        }
        Verdict::LostRestarted => (Sweep::Nothing, Duration::ZERO, Some(Lost::MachineRestarted)),
        Verdict::SweepThenEnded { sweep } => (sweep, Duration::ZERO, None),
        Verdict::SweepThenLost { sweep, reason } => (sweep, Duration::ZERO, Some(reason)),
        Verdict::StopTreeThenLost => {
            (Sweep::Tree, node.options.orphan_grace, Some(Lost::SupervisorDied))
        }
        // Verdicts on what is not ours or not free; the observations above say that it is.
        Verdict::Foreign(stranger) => return Ok(Examined::Foreign(foreign(stranger))),
        Verdict::Attach | Verdict::Superseded | Verdict::Unresponsive(_) => {
            return Ok(Examined::Unresponsive("the lock was free and held at once".to_owned()));
        }
    };
    let target = Target {
        execution: start.execution,
        scope: sweep,
        command: started(&taken.journal).map(command),
        leader: start.leader.clone(),
    };
    let survivors = sweep::end_tree(target, grace).await;
    let (execution, nonce) = (start.execution, start.place.nonce);
    let ended = tokio::task::spawn_blocking(move || {
        let sums = match &taken.place {
            Some((place, _lock)) => {
                log_store::seal(place)?;
                SegmentReader::new(place, execution, nonce).sums()?
            }
            None => Sums::default(),
        };
        Ok(concluded_end(&taken, reason, survivors, sums))
    });
    ended.await.map_err(io::Error::other)?
}

/// Row 7: writes that nothing ever ran, and makes it so.
async fn close_for_ever(epoch: Epoch, taken: Taken) -> io::Result<Examined> {
    let closed = tokio::task::spawn_blocking(move || {
        if let (Some((place, _lock)), journal::Verdict::Readable(journal)) =
            (&taken.place, &taken.journal)
        {
            place.append_journal(journal, &Record::Void(Void { epoch, at: now() }))?;
        }
        Ok(Examined::NeverRan)
    });
    closed.await.map_err(io::Error::other)?
}

/// Row 5: the journal has the whole report.
fn recorded_end(taken: &Taken) -> Examined {
    match &taken.journal {
        journal::Verdict::Readable(journal) => match journal.finished() {
            Some(report) => Examined::Ended(Ended {
                report: report.clone(),
                running: journal.started().map(running),
                recorded: true,
            }),
            None => Examined::Unresponsive("the journal has no end".to_owned()),
        },
        journal::Verdict::Newer { .. } | journal::Verdict::Damaged => {
            Examined::Unresponsive("the journal has no end".to_owned())
        }
    }
}

/// Rows 1, 6 and 8 to 10: the report is put together from what is left.
fn concluded_end(
    taken: &Taken,
    reason: Option<Lost>,
    survivors: Survivors,
    sums: Sums,
) -> Examined {
    let (exit, incomplete) = match (&taken.journal, reason) {
        (journal::Verdict::Readable(journal), None) => {
            let seen = journal.exited().map(|exited| exited.report.clone());
            let failed = journal.exec_failed().map(|failure| failure.report());
            // What the pipes held at the exit is in the log before the exit is in the journal; what others wrote later
            // is not, and what was not synced may not have survived the boot.
            let incomplete = survivors.found_any || taken.evidence.boot != Match::Same;
            let exit = seen.or(failed).unwrap_or_else(|| lost(Lost::EvidenceDamaged, now()));
            let ran = !matches!(exit.outcome, Outcome::NotStarted { .. });
            (exit, incomplete && ran)
        }
        (_, reason) => {
            let reason = reason.unwrap_or(Lost::EvidenceDamaged);
            let gone = taken.evidence.command == Command::Gone;
            let exit = taken.exit.filter(|_| gone);
            (ExitReport { exit, ..lost(reason, now()) }, true)
        }
    };
    let report = FinalReport {
        exit,
        last_seq: sums.last_seq,
        bytes: sums.bytes,
        dropped_bytes: sums.dropped_bytes,
        output_incomplete: incomplete,
        survivors: survivors.named,
        more_survivors: survivors.more,
    };
    let running = started(&taken.journal).map(running);
    Examined::Ended(Ended { report, running, recorded: false })
}

fn foreign(stranger: Stranger) -> String {
    match stranger {
        Stranger::Directory => "the directory is not the recorded one; was it copied?",
        Stranger::Machine => "the place was made on another machine",
    }
    .to_owned()
}

fn unverifiable(doubt: Doubt) -> &'static str {
    match doubt {
        Doubt::PidNamespace => "it was started in another pid namespace",
        Doubt::Identity => "what the journal recorded of its process cannot be verified here",
    }
}

/// Whether a place is of use to anybody.
#[derive(Debug)]
pub(crate) enum Use {
    /// Nothing runs in it, and we hold the lock.
    None(PlaceLock),
    /// It is not there.
    Gone,
    /// Something runs in it, or may.
    Some(String),
}

/// Takes the lock of a place that is to be removed; waits for a shim that is about to leave.
///
/// # Errors
///
/// When the place cannot be read, or is not ours.
pub(crate) async fn usage(node: &Arc<Node>, start: &Start) -> io::Result<Use> {
    let deadline = Instant::now() + HELLO_PATIENCE;
    let mut change = None;
    loop {
        let (place, shim) = match look(node, start).await? {
            Seen::Foreign(stranger) => return Err(io::Error::other(foreign(stranger))),
            Seen::Held { place, shim } => (place, shim),
            Seen::Taken(taken) => {
                let alive =
                    taken.evidence.command == Command::Alive && taken.evidence.boot == Match::Same;
                return Ok(match taken.place {
                    None => Use::Gone,
                    Some(_) if alive => Use::Some("its command lives without a shim".to_owned()),
                    Some((_, lock)) => Use::None(lock),
                });
            }
        };
        let over = match place.read_journal()? {
            journal::Verdict::Readable(journal) => journal.finished().is_some(),
            journal::Verdict::Newer { .. } | journal::Verdict::Damaged => false,
        };
        if !over || Instant::now() >= deadline {
            return Ok(Use::Some("a shim is in it".to_owned()));
        }
        match &mut change {
            None => change = Some(Change::of(node, &place, shim)?),
            Some(change) => change.wait(deadline).await,
        }
    }
}

/// Returns what the journal of a place says of an end, without touching anything.
pub(crate) async fn recorded(node: &Arc<Node>, start: &Start) -> io::Result<Option<FinalReport>> {
    let (node, start) = (Arc::clone(node), start.clone());
    let read = tokio::task::spawn_blocking(move || {
        let Some(place) = node.runs.place(start.execution, start.place.nonce)? else {
            return Ok(None);
        };
        Ok(match place.read_journal()? {
            journal::Verdict::Readable(journal) => journal.finished().cloned(),
            journal::Verdict::Newer { .. } | journal::Verdict::Damaged => None,
        })
    });
    read.await.map_err(io::Error::other)?
}

/// Says whether a place is the recorded one, as it was made.
fn never_locked(node: &Node, start: &Start) -> io::Result<bool> {
    let Some(recorded) = PlaceIdentity::decode(&start.place.identity) else { return Ok(false) };
    let Some(place) = node.runs.place(start.execution, start.place.nonce)? else {
        // What became of it is not for a launch to find out: that ends processes.
        return Err(io::Error::new(io::ErrorKind::NotFound, "its place is gone"));
    };
    let machine = recorded.machine(&node.here);
    let directory = recorded.directory(&node.here, &node.runs, Some(&place));
    let lock = Lock::Held(Answer::Mute);
    if let Verdict::Foreign(_) = verdict(Observations { directory, machine, lock }) {
        return Ok(false);
    }
    if place.was_locked()? {
        return Ok(false);
    }
    Ok(match place.read_journal()? {
        journal::Verdict::Readable(journal) => {
            let whose = (journal.header.execution, journal.header.nonce);
            whose == (start.execution, start.place.nonce) && journal.is_untouched()
        }
        journal::Verdict::Newer { .. } | journal::Verdict::Damaged => false,
    })
}

/// Says whether a place was never used: it is ours, nobody holds its lock, and its journal has nothing in it.
///
/// Where nobody ever took the lock it is not taken for this either: the common case costs two system calls less.
pub(crate) async fn untouched(node: &Arc<Node>, start: &Start) -> io::Result<bool> {
    let (blocking, of) = (Arc::clone(node), start.clone());
    let never_locked = tokio::task::spawn_blocking(move || never_locked(&blocking, &of));
    if never_locked.await.map_err(io::Error::other)?? {
        return Ok(true);
    }
    Ok(match look(node, start).await? {
        Seen::Foreign(_) | Seen::Held { .. } => false,
        Seen::Taken(taken) => match (&taken.journal, taken.evidence.journal) {
            (journal::Verdict::Readable(journal), Journal::Empty) => journal.is_untouched(),
            _ => false,
        },
    })
}
