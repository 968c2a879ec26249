//! Each oracle complains about a history that is made up for it, and about nothing before.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use uuid::Uuid;
use windlass::request::Accepted;
use windlass_core::action::{
    Action, ActionKind, Leftovers, OutputMode, RunOptions, RunReason, Stdin, TimeLimits,
};
use windlass_core::container_service::Place as Room;
use windlass_core::id::{AttemptId, Epoch, ExecutionId, FollowUpId, HostId, NodeId, Nonce};
use windlass_core::locator::Locator;
use windlass_core::log_store::{LogItem, LogKey, LogPage, LogStore as _, Seq, Stream};
use windlass_core::outcome::{Exit, Lost, Outcome, StoppedBy};
use windlass_core::process_store::{ChangeNumber, Expect, Lease, Revision, Write};
use windlass_core::record::{
    AttemptRecord, AttemptStatus, CommitPolicy, ExecutionRecord, FollowUpRecord, FollowUpState,
    Hold, NewAttempt, NewExecution, Phase,
};
use windlass_core::time::Timestamp;
use windlass_core::workspace::{Oid, Workspace, Worktree};
use windlass_fakes::faulty::{About, Call, CallNumber, Fault, Site};
use windlass_fakes::world::{Happened, ProcessName, Signaller, StartId};

use super::*;
use crate::simulation::event::{Answer, Ask, Life, What};
use crate::simulation::place::Place;
use crate::simulation::plan::{Launch, Plan, Request, Settings, Swarm, Verb};
use crate::simulation::view::{Kernel, Store};

const X: ExecutionId = ExecutionId(Uuid::from_u128(1));
const Y: ExecutionId = ExecutionId(Uuid::from_u128(2));
const A: AttemptId = AttemptId(Uuid::from_u128(9));
const NONCE: Nonce = Nonce(Uuid::from_u128(5));
const START: StartId = StartId { execution: X, nonce: NONCE };

/// A history that is told to one oracle.
struct History {
    oracle: Box<dyn Oracle>,
    plan: Plan,
    place: Place,
    store: Store,
    kernel: Kernel,
    events: u64,
    changes: u64,
}

impl History {
    fn of(name: &str) -> Self {
        let oracle = all().into_iter().find(|oracle| oracle.name().starts_with(name)).unwrap();
        let plan = Plan {
            seed: 0,
            scenario: String::new(),
            settings: Settings { per_owner: 1, per_host: 1, ..Settings::default() },
            requests: Vec::new(),
            interventions: Vec::new(),
            swarm: Swarm::default(),
            fixed: Vec::new(),
        };
        let (store, kernel) = (Store::default(), Kernel::default());
        Self { oracle, plan, place: Place::new(), store, kernel, events: 0, changes: 0 }
    }

    fn tell(&mut self, what: What) -> Result<(), Violation> {
        self.events += 1;
        let at = self.place.scene.world.now();
        match &what {
            What::Committed { writes, number, .. } => self.store.take(writes, *number),
            What::Acquired { lease, .. } => self.store.acquired(lease.epoch),
            What::Happened(happened) => self.kernel.take(at, happened),
            _ => {}
        }
        let event = Event { number: self.events, at, what };
        let Self { oracle, plan, place, store, kernel, .. } = self;
        let view = View { plan, now: at, store, kernel, scene: &place.scene, healed: false };
        oracle.check(&event, &view)
    }

    fn end(&mut self) -> Result<(), Violation> {
        let now = self.place.scene.world.now();
        let Self { oracle, plan, place, store, kernel, .. } = self;
        let view = View { plan, now, store, kernel, scene: &place.scene, healed: true };
        oracle.end(&view)
    }

    /// Tells what all agree with.
    #[track_caller]
    fn good(mut self, what: What) -> Self {
        assert_eq!(self.tell(what), Ok(()));
        self
    }

    /// Tells what the oracle complains about.
    #[track_caller]
    fn bad(mut self, what: What) {
        let name = self.oracle.name();
        let violation = self.tell(what).expect_err("it holds");
        assert_eq!(violation.oracle, name);
    }

    #[track_caller]
    fn bad_end(mut self) {
        let name = self.oracle.name();
        assert_eq!(self.end().expect_err("it holds").oracle, name);
    }

    fn commit(&mut self, writes: Vec<Write>) -> What {
        self.commit_as(writes, 0)
    }

    fn commit_as(&mut self, writes: Vec<Write>, epoch: u64) -> What {
        self.changes += 1;
        let (number, writes) = (ChangeNumber(self.changes), writes.into());
        What::Committed { life: Life(1), lease: lease(epoch), number, writes }
    }

    #[track_caller]
    fn holds(mut self, writes: Vec<Write>) -> Self {
        let what = self.commit(writes);
        self.good(what)
    }

    #[track_caller]
    fn breaks(mut self, writes: Vec<Write>) {
        let what = self.commit(writes);
        self.bad(what);
    }
}

fn lease(epoch: u64) -> Lease {
    let (node, host) = (NodeId(Uuid::nil()), HostId(Uuid::nil()));
    Lease { node, host, epoch: Epoch(epoch) }
}

fn options() -> RunOptions {
    RunOptions {
        env: Default::default(),
        secrets: Default::default(),
        stdin: Stdin::Null,
        output: OutputMode::Separate,
        leftovers: Leftovers::Stop,
        limits: TimeLimits { total_ms: None, idle_ms: None, grace_ms: 1 },
        log_cap_bytes: 1 << 20,
    }
}

fn execution(id: ExecutionId, phase: Phase) -> ExecutionRecord {
    let argv = vec!["exit".into(), "0".into()];
    let mut record = ExecutionRecord::queued(NewExecution {
        id,
        attempt: A,
        owner: None,
        client_key: Some(id.to_string()),
        action: Action {
            kind: ActionKind::Command { argv },
            run_reason: RunReason::Agent,
            next: None,
        },
        options: options(),
        repository_lock: None,
        cwd: Locator::new("/w"),
        at: Timestamp(1),
    });
    record.phase = phase;
    if phase > Phase::Queued {
        record.place = Some(room());
    }
    record
}

fn ended(outcome: Outcome, exit: Option<Exit>) -> ExecutionRecord {
    let mut record = execution(X, Phase::Ended);
    record.outcome = Some(outcome);
    record.exit = exit;
    record
}

fn room() -> Room {
    Room { locator: Locator::new("/place"), nonce: NONCE, identity: "1".to_owned() }
}

fn worktree() -> Worktree {
    Worktree {
        repo: Locator::new("/repository/.git"),
        path: Locator::new("/data/data/worktrees/w"),
        branch: "b".to_owned(),
        base: "main".to_owned(),
        base_oid: Oid("0".repeat(40)),
        target: None,
        copy: None,
    }
}

fn attempt(status: AttemptStatus) -> AttemptRecord {
    let mut record = AttemptRecord::new(NewAttempt {
        id: A,
        title: "r1".to_owned(),
        owner: None,
        workspace: Workspace::Worktree(worktree()),
        commit: CommitPolicy::Commit,
        node: NodeId(Uuid::nil()),
        host: HostId(Uuid::nil()),
        epoch: Epoch(0),
        at: Timestamp(1),
    });
    record.status = status;
    record
}

fn new<T: windlass_core::record::Recorded>(record: &T) -> Write {
    Write::Put { record: record.encode(), expect: Expect::Absent }
}

fn over<T: windlass_core::record::Recorded>(record: &T, revision: u64) -> Write {
    Write::Put { record: record.encode(), expect: Expect::At(Revision(revision)) }
}

fn process(pid: u32) -> ProcessName {
    ProcessName { boot: 1, pid, start_ticks: u64::from(pid) }
}

fn started(start: StartId, pid: u32) -> What {
    let directory = Locator::new("/data/data/worktrees/w");
    What::Happened(Happened::Started { start, process: process(pid), directory })
}

fn exited(start: StartId, pid: u32, exit: Exit) -> What {
    let (start, process) = (Some(start), process(pid));
    let (leader, out_of_memory) = (true, false);
    What::Happened(Happened::Exited { start, process, leader, exit, out_of_memory })
}

fn signalled(pid: u32, signal: u8, start: Option<StartId>, by: Signaller) -> What {
    What::Happened(Happened::Signalled { start, process: process(pid), signal, by })
}

fn wrote(bytes: &'static [u8]) -> What {
    let (process, stream, bytes) = (process(7), Stream::Stdout, Bytes::from_static(bytes));
    What::Happened(Happened::Wrote { start: START, process, stream, bytes })
}

fn answered(name: &str, verb: Verb, answer: Answer) -> What {
    let request = Request { at_ms: 0, name: name.to_owned(), owner: None, verb };
    What::Answered { ask: Ask(1), request: Arc::new(request), answer }
}

fn asked(name: &str, verb: Verb) -> What {
    let request = Request { at_ms: 0, name: name.to_owned(), owner: None, verb };
    What::Asked { ask: Ask(1), life: Life(1), request: Arc::new(request) }
}

fn accepted(execution: ExecutionId) -> What {
    let (setup, cleanup) = (String::new(), String::new());
    let verb =
        Verb::Run { worktree: true, commit: true, setup, cleanup, launch: Launch::default() };
    let (source_is_dirty, unmatched) = (false, Vec::new());
    let accepted = Accepted { attempt: A, execution, source_is_dirty, unmatched };
    answered("r1", verb, Answer::Accepted(accepted))
}

/// Writes a log that says these bytes.
fn log(history: &History, bytes: &'static [u8]) {
    let key = LogKey { execution: X, place: room() };
    let len = bytes.len() as u64;
    let bytes = Bytes::from_static(bytes);
    let (seq, at, stream, partial) = (Seq(1), Timestamp(1), Stream::Stdout, false);
    let item = LogItem::Entry { seq, at, stream, partial, bytes, len };
    let logs = &history.place.scene.logs;
    logs.append(&key, vec![item]).now_or_never().expect("it does not wait").unwrap();
}

#[test]
fn s1_an_accepted_run_without_a_record() {
    History::of("S1 ").bad(accepted(X));
}

#[test]
fn s2_one_key_with_two_executions() {
    History::of("S2 ").good(accepted(X)).bad(accepted(Y));
    let mut again = execution(Y, Phase::Queued);
    again.client_key = Some(X.to_string());
    History::of("S2 ").holds(vec![new(&execution(X, Phase::Queued))]).breaks(vec![new(&again)]);
}

#[test]
fn s3_a_start_that_no_record_names() {
    History::of("S3 ").bad(started(START, 7));
    let queued = vec![new(&execution(X, Phase::Queued))];
    History::of("S3 ").holds(queued).bad(started(START, 7));
    let other = StartId { execution: X, nonce: Nonce(Uuid::nil()) };
    let starting = vec![new(&execution(X, Phase::Starting))];
    History::of("S3 ").holds(starting).bad(started(other, 8));
}

#[test]
fn s4_a_second_start() {
    let other = StartId { execution: X, nonce: Nonce(Uuid::nil()) };
    History::of("S4 ").good(started(START, 7)).bad(started(other, 8));
}

#[test]
fn s5_work_that_is_committed_after_a_stop() {
    let mut committing = attempt(AttemptStatus::Committing);
    committing.committing = Some(X);
    let mut git = execution(Y, Phase::Queued);
    git.action.run_reason = RunReason::Git;
    let done = ended(Outcome::Exited { code: 0 }, Some(Exit::Code(0)));
    let verb = || Verb::StopAttempt { of: "r1".to_owned() };
    let stop = || answered("q1", verb(), Answer::Done);
    let ask = || asked("q1", verb());
    History::of("S5 ")
        .good(accepted(X))
        .holds(vec![new(&committing), new(&done)])
        .good(ask())
        .good(stop())
        .breaks(vec![new(&git)]);
    let failed = ended(Outcome::Exited { code: 1 }, Some(Exit::Code(1)));
    History::of("S5 ").holds(vec![new(&committing), new(&failed)]).breaks(vec![new(&git)]);
    History::of("S5 ")
        .good(accepted(X))
        .holds(vec![new(&execution(X, Phase::Queued))])
        .good(ask())
        .good(stop())
        .bad(started(START, 7));
}

#[test]
fn s6_an_outcome_that_the_kernel_did_not_see() {
    let ran = |exit| History::of("S6 ").good(started(START, 7)).good(exited(START, 7, exit));
    ran(Exit::Code(1)).breaks(vec![new(&ended(Outcome::Exited { code: 0 }, Some(Exit::Code(0))))]);
    ran(Exit::Code(0)).holds(vec![new(&ended(Outcome::Exited { code: 0 }, Some(Exit::Code(0))))]);
    let stopped = Outcome::Stopped { by: StoppedBy::User };
    ran(Exit::Signal(15)).breaks(vec![new(&ended(stopped, Some(Exit::Signal(15))))]);
    let signaled = Outcome::Signaled { signal: 9 };
    ran(Exit::Code(0)).breaks(vec![new(&ended(signaled, Some(Exit::Signal(9))))]);
    let reason = windlass_core::outcome::NotStarted::Stopped;
    ran(Exit::Code(0)).breaks(vec![new(&ended(Outcome::NotStarted { reason }, None))]);
}

#[test]
fn s7_a_loss_that_nothing_excuses() {
    let lost = ended(Outcome::Lost { reason: Lost::SupervisorDied }, None);
    History::of("S7 ").good(started(START, 7)).breaks(vec![new(&lost)]);
    let (shim, killed) = (process(6), true);
    let gone = What::Happened(Happened::ShimGone { start: START, shim, killed });
    History::of("S7 ").good(started(START, 7)).good(gone).holds(vec![new(&lost)]);
}

#[test]
fn s8_an_outcome_that_changes() {
    let first = ended(Outcome::Exited { code: 0 }, Some(Exit::Code(0)));
    let other = ended(Outcome::Exited { code: 1 }, Some(Exit::Code(0)));
    History::of("S8 ").holds(vec![new(&first)]).breaks(vec![over(&other, 1)]);
    let running = execution(X, Phase::Running);
    let starting = execution(X, Phase::Starting);
    History::of("S8 ").holds(vec![new(&running)]).breaks(vec![over(&starting, 1)]);
    let removed = attempt(AttemptStatus::Removed);
    let finished = attempt(AttemptStatus::Finished);
    History::of("S8 ").holds(vec![new(&removed)]).breaks(vec![over(&finished, 1)]);
    History::of("S8 ").breaks(vec![new(&attempt(AttemptStatus::Removing))]);
}

#[test]
fn s9_an_end_with_a_child_that_is_not_named() {
    let mut record = ended(Outcome::Exited { code: 0 }, Some(Exit::Code(0)));
    record.phase = Phase::Final;
    let (parent, child) = (process(7), process(8));
    let forked = What::Happened(Happened::Forked { start: START, parent, child });
    let history = History::of("S9 ").good(started(START, 7)).good(forked);
    history.good(exited(START, 7, Exit::Code(0))).breaks(vec![new(&record)]);
}

#[test]
fn s10_a_signal_for_somebody_else() {
    let (ours, other) = (Signaller::Shim(START), StartId { execution: Y, nonce: NONCE });
    let history = || History::of("S10 ").good(started(START, 7));
    history().bad(signalled(8, 15, Some(other), ours));
    history().bad(signalled(7, 9, Some(START), ours));
    history().good(signalled(7, 15, Some(START), ours)).good(signalled(7, 9, Some(START), ours));
    let told = history().good(signalled(7, 15, Some(START), ours));
    told.bad(signalled(7, 15, Some(START), ours));
    history().bad(signalled(7, 9, Some(START), Signaller::Host));
    history().bad(signalled(99, 9, None, Signaller::Host));
}

#[test]
fn s11_a_tree_without_a_record() {
    let serves = What::HostServes { life: Life(1), epoch: Epoch(1) };
    History::of("S11 ").good(started(START, 7)).bad(serves);
}

#[test]
fn s12_what_is_left_over() {
    History::of("S12 ").good(started(START, 7)).bad_end();
    let history = History::of("S12 ");
    let containers = windlass_fakes::MemoryContainers::new(history.place.scene.world.clone());
    let prepare =
        windlass_core::container_service::ContainerService::prepare(&containers, X, NONCE);
    prepare.now_or_never().expect("it does not wait").unwrap();
    history.bad_end();
}

#[test]
fn s13_a_batch_of_an_older_epoch() {
    let acquired = |epoch| What::Acquired { life: Life(1), lease: lease(epoch) };
    let mut history = History::of("S13 ").good(acquired(1)).good(acquired(2));
    let late = history.commit_as(vec![new(&execution(X, Phase::Queued))], 1);
    history.bad(late);
}

#[test]
fn s14_a_log_with_what_was_never_written() {
    let history = History::of("S14 ").good(started(START, 7)).good(wrote(b"true\n"));
    log(&history, b"false\n");
    let mut record = ended(Outcome::Exited { code: 0 }, Some(Exit::Code(0)));
    record.phase = Phase::Final;
    history.good(exited(START, 7, Exit::Code(0))).breaks(vec![new(&record)]);
}

#[test]
fn s15_a_log_that_loses_what_was_on_the_disk() {
    let history = History::of("S15 ");
    log(&history, b"one\n");
    let synced = What::Happened(Happened::LogSynced { start: START, last_seq: 2 });
    history.holds(vec![new(&execution(X, Phase::Running))]).good(synced).bad_end();
}

#[test]
fn s16_an_outcome_before_its_output() {
    let history = History::of("S16 ").good(started(START, 7)).good(wrote(b"one\ntwo\n"));
    log(&history, b"one\n");
    let record = ended(Outcome::Exited { code: 0 }, Some(Exit::Code(0)));
    history.good(exited(START, 7, Exit::Code(0))).breaks(vec![new(&record)]);
}

#[test]
fn s17_a_reader_that_goes_on_elsewhere() {
    let read = |after: u64, seq: u64| {
        let (bytes, at, stream) = (Bytes::from_static(b"x"), Timestamp(1), Stream::Stdout);
        let (seq, partial, len) = (Seq(seq), false, 1);
        let item = LogItem::Entry { seq, at, stream, partial, bytes, len };
        let page = LogPage { items: Arc::from([item]), next: seq, end: false };
        What::Read { execution: X, follower: Ask(1), after: Seq(after), page }
    };
    let asked = || asked("q1", Verb::Follow { of: "r1".to_owned() });
    History::of("S17 ").good(asked()).good(read(0, 1)).good(read(1, 2)).bad(read(1, 2));
    History::of("S17 ").good(asked()).bad(read(0, 2));
}

#[test]
fn s18_a_worktree_that_goes_without_a_claim() {
    let directory = || worktree().path;
    let gone = || What::Happened(Happened::DirectoryRemoved { directory: directory() });
    let finished = vec![new(&attempt(AttemptStatus::Finished))];
    History::of("S18 ").holds(finished).bad(gone());
    let mut removing = attempt(AttemptStatus::Removing);
    removing.claim = Some(windlass_core::record::Claim::Remove);
    History::of("S18 ").holds(vec![new(&removing)]).good(gone());
    let running = History::of("S18 ").holds(vec![new(&execution(X, Phase::Running))]);
    running.holds(vec![new(&removing)]).bad(gone());
    let history = History::of("S18 ").holds(vec![new(&removing)]);
    history.good(started(START, 7)).bad(gone());
}

#[test]
fn s18_something_starts_under_a_claim() {
    let mut removing = attempt(AttemptStatus::Removing);
    removing.claim = Some(windlass_core::record::Claim::Remove);
    let mut step = execution(Y, Phase::Queued);
    step.action.run_reason = RunReason::Git;
    let history = History::of("S18 ").holds(vec![new(&removing)]).holds(vec![new(&step)]);
    history.breaks(vec![new(&execution(X, Phase::Queued))]);
}

#[test]
fn s19_two_of_one_chain() {
    let other = StartId { execution: Y, nonce: NONCE };
    let both = vec![new(&execution(X, Phase::Starting)), new(&execution(Y, Phase::Starting))];
    History::of("S19 ").holds(both).good(started(START, 7)).bad(started(other, 8));
}

#[test]
fn s21_more_than_may_run() {
    let other = StartId { execution: Y, nonce: NONCE };
    let mut beside = execution(Y, Phase::Starting);
    beside.action.run_reason = RunReason::Background;
    let both = vec![new(&execution(X, Phase::Starting)), new(&beside)];
    History::of("S21 ").holds(both).good(started(START, 7)).bad(started(other, 8));
}

#[test]
fn s22_a_batch_over_an_older_revision() {
    let record = execution(X, Phase::Queued);
    let twice = History::of("S22 ").holds(vec![new(&record)]).holds(vec![over(&record, 1)]);
    twice.breaks(vec![over(&record, 1)]);
}

#[test]
fn s23_a_shim_too_many() {
    let shim = |pid| What::Happened(Happened::ShimStarted { start: START, shim: process(pid) });
    let history = History::of("S23 ").good(shim(2)).good(shim(3)).good(shim(4)).good(shim(5));
    history.bad(shim(6));
    let call = Call { site: Site::Get, about: About::Nothing };
    let called = || {
        let (life, number, fault) = (Life(1), CallNumber(1), Fault::None);
        What::Called { life, number, call, fault }
    };
    let mut history = History::of("S23 ");
    for _ in 0..3_000 {
        history = history.good(called());
    }
    history.bad(called());
}

#[test]
fn s24_slots_that_no_record_knows() {
    let says = |running| What::HostSays { life: Life(1), running, queued: 0 };
    History::of("S24 ").good(says(0)).bad(says(1));
}

fn message(position: u64, state: FollowUpState, execution: Option<ExecutionId>) -> FollowUpRecord {
    let of = self::execution(X, Phase::Queued);
    FollowUpRecord {
        id: FollowUpId(Uuid::from_u128(position.into())),
        attempt: A,
        owner: None,
        client_key: Some(format!("m{position}")),
        digest: Uuid::nil(),
        text: "more".to_owned(),
        position,
        state,
        action: of.action,
        options: of.options,
        cwd: of.cwd,
        execution,
        attachments: Vec::new(),
        reset: false,
        created_at: Timestamp(1),
    }
}

/// An execution that a message has started.
fn about_a_message(id: ExecutionId) -> ExecutionRecord {
    let mut record = execution(id, Phase::Queued);
    record.text = Some("more".to_owned());
    record
}

#[test]
fn s25_a_message_that_starts_two_or_none() {
    use FollowUpState::{Cancelled, Consumed, Held, Queued};
    let waits = message(1, Queued, None);
    let taken = message(1, Consumed, Some(X));
    let of = || History::of("S25 ");
    of().breaks(vec![new(&taken)]);
    of().breaks(vec![new(&execution(X, Phase::Queued)), new(&taken)]);
    let (both, second) = (about_a_message(X), message(2, Consumed, Some(X)));
    let good = || of().holds(vec![new(&waits)]).holds(vec![new(&both), over(&taken, 1)]);
    good().breaks(vec![new(&second)]);
    good().good(started(START, 7)).breaks(vec![over(&message(1, Held, None), 2)]);
    good().breaks(vec![new(&about_a_message(Y)), over(&message(1, Consumed, Some(Y)), 2)]);
    let overtakes = vec![new(&about_a_message(X)), new(&second)];
    of().holds(vec![new(&waits)]).breaks(overtakes);
    let cancelled = of().holds(vec![new(&message(1, Cancelled, None))]);
    cancelled.breaks(vec![over(&waits, 1)]);
    let (send, text) = (|of| Verb::Send { of, text: "more".to_owned() }, "r1".to_owned());
    of().bad(answered("m1", send(text), Answer::Done));
}

#[test]
fn s25_a_message_that_starts_after_a_stop_or_never() {
    use FollowUpState::{Consumed, Queued};
    let (waits, taken) = (message(1, Queued, None), message(1, Consumed, Some(X)));
    let verb = || Verb::StopAttempt { of: "r1".to_owned() };
    let stopped = || {
        let history = History::of("S25 ").good(accepted(Y)).holds(vec![new(&waits)]);
        history.good(asked("q1", verb())).good(answered("q1", verb(), Answer::Done))
    };
    let begins = || vec![new(&about_a_message(X)), over(&taken, 1)];
    stopped().breaks(begins());
    let release = Verb::Hold { of: "r1".to_owned(), held: false };
    stopped().good(asked("q2", release)).holds(begins());
    let mut finished = attempt(AttemptStatus::Finished);
    History::of("S25 ").holds(vec![new(&waits)]).breaks(vec![new(&finished)]);
    finished.queue = 1;
    History::of("S25 ").holds(vec![new(&waits), new(&finished)]).bad_end();
    finished.queue_held = Some(Hold::Asked);
    let mut held = History::of("S25 ").holds(vec![new(&waits), new(&finished)]);
    assert_eq!(held.end(), Ok(()));
}

#[test]
fn s25_a_text_that_is_read_twice() {
    let mut reads = about_a_message(X);
    reads.action.kind = ActionKind::Command { argv: vec!["echo-stdin".into()] };
    let mut read = reads.clone();
    read.phase = Phase::Final;
    read.outcome = Some(Outcome::Exited { code: 0 });
    let ran = || {
        let history = History::of("S25 ").holds(vec![new(&reads)]).good(started(START, 7));
        history.good(wrote(b"ready")).good(wrote(b"more\n"))
    };
    let mut once = ran().holds(vec![over(&read, 1)]);
    assert_eq!(once.end(), Ok(()));
    ran().good(wrote(b"more\n")).holds(vec![over(&read, 1)]).bad_end();
}

#[test]
fn s26_a_chain_that_goes_on_and_may_not() {
    let of = || History::of("S26 ");
    let mut setup = execution(X, Phase::Final);
    setup.action.run_reason = RunReason::Setup;
    setup.outcome = Some(Outcome::Exited { code: 0 });
    setup.followed_by = Some(Y);
    let agent = execution(Y, Phase::Queued);
    of().holds(vec![new(&setup), new(&agent)]);
    let mut failed = setup.clone();
    failed.outcome = Some(Outcome::Exited { code: 1 });
    of().breaks(vec![new(&failed), new(&agent)]);
    let mut early = setup.clone();
    early.phase = Phase::Ended;
    of().breaks(vec![new(&early), new(&agent)]);
    let mut cleanup = agent.clone();
    cleanup.action.run_reason = RunReason::Cleanup;
    of().breaks(vec![new(&setup), new(&cleanup)]);
    // Nothing changed, so there is nothing to tidy up.
    let mut idle = setup.clone();
    idle.action.run_reason = RunReason::Agent;
    of().breaks(vec![new(&idle), new(&cleanup)]);
    idle.committed = Some(Oid("1".repeat(40)));
    of().holds(vec![new(&idle), new(&cleanup)]);
    let mut runs = setup.clone();
    (runs.phase, runs.outcome, runs.followed_by) = (Phase::Running, None, None);
    let verb = || Verb::Stop { of: "r1".to_owned(), grace_ms: None };
    of().good(accepted(X))
        .holds(vec![new(&runs)])
        .good(asked("q1", verb()))
        .good(answered("q1", verb(), Answer::Done))
        .breaks(vec![over(&setup, 1), new(&agent)]);
}

#[test]
fn s26_a_history_that_is_rewritten() {
    let z = ExecutionId(Uuid::from_u128(3));
    let mut ended = execution(X, Phase::Final);
    ended.outcome = Some(Outcome::Exited { code: 0 });
    let mut superseded = ended.clone();
    superseded.superseded_by = Some(Y);
    let of = || History::of("S26 ").holds(vec![new(&ended)]);
    of().breaks(vec![over(&superseded, 1)]);
    let again = execution(Y, Phase::Queued);
    let tried = || of().holds(vec![over(&superseded, 1), new(&again)]);
    let mut other = superseded.clone();
    other.superseded_by = Some(z);
    tried().breaks(vec![over(&other, 2), new(&execution(z, Phase::Queued))]);
}
