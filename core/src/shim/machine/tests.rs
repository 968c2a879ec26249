//! Tables first, then a small world that obeys the contract and checks the order of everything that was done.

use proptest::prelude::*;

use super::*;
use crate::execution::ExecStep;
use crate::outcome::{Deadline, Exit, NotStarted, Outcome, StoppedBy};
use crate::shim::journal::Stopping;
use crate::shim::message::{self, InputRefusal, Stop};

const HOST: Conn = Conn(7);
const USER: EndCause = EndCause::Stopped { by: StoppedBy::User };
const GRACE_MS: u64 = 5_000;

fn config() -> Config {
    Config {
        execution: ExecutionId(Uuid::from_u128(1)),
        nonce: Nonce(Uuid::from_u128(2)),
        epoch: Epoch(3),
        shim_pid: 4,
        stdin: Stdin::Messages,
        leftovers: Leftovers::Stop,
        total_ms: Some(60_000),
        idle_ms: Some(10_000),
        grace_ms: GRACE_MS,
    }
}

fn at(boot_ms: u64) -> Now {
    Now { boot_ms, wall: Timestamp(1_000_000 + boot_ms) }
}

fn started() -> Box<Started> {
    Box::new(Started {
        epoch: Epoch(3),
        protocol: 1,
        shim_version: "0".to_owned(),
        boot: [1; 16],
        pid_namespace: 5,
        pid: 6,
        start_ticks: 7,
        pidfs_handle: None,
        group: 6,
        cgroup: None,
        shim_pid: 4,
        shim_start_ticks: 8,
        at: Timestamp(1_000_000),
    })
}

fn exit(wait_status: u32) -> LeaderExit {
    LeaderExit {
        wait_status,
        usage: ResourceUse::default(),
        out_of_memory: false,
        at: Timestamp(2_000_000),
    }
}

fn gone(wait_status: u32) -> Input {
    Input::Children { leader: Some(exit(wait_status)), others: false }
}

fn stop(epoch: u64, grace_ms: u64) -> Input {
    let stop = Stop { epoch: Epoch(epoch), cause: USER, grace_ms, interrupt_ms: 0 };
    Input::Asked { conn: HOST, request: Request::Stop(stop) }
}

fn feed(key: u128, position: u64, bytes: &[u8]) -> Input {
    let input = message::Input {
        epoch: Epoch(3),
        key: Uuid::from_u128(key),
        position,
        secret: false,
        close: false,
        bytes: bytes.to_vec(),
    };
    Input::Asked { conn: HOST, request: Request::Input(input) }
}

fn tell(notice: Notice) -> Effect {
    Effect::Tell { to: To::One(HOST), notice }
}

fn stopping(cause: EndCause, boot_ms: u64) -> Effect {
    let record = Stopping { cause, epoch: Epoch(3), at: at(boot_ms).wall };
    Effect::Persist(vec![Record::Stopping(record)])
}

const STILL_ALIVE: Input = Input::Children { leader: None, others: false };

/// The inputs that bring a command to run at time 0.
fn running() -> Vec<(u64, Input)> {
    vec![(0, Input::Begun), (0, Input::Forked(started())), (0, Input::Executed)]
}

/// Feeds `inputs` at their times and returns the machine and the effects of the last one.
fn drive(config: Config, inputs: impl IntoIterator<Item = (u64, Input)>) -> (State, Vec<Effect>) {
    let mut last = (State::new(config), Vec::new());
    for (time, input) in inputs {
        let Step { state, effects } = step(last.0, at(time), input);
        last = (state, effects);
    }
    last
}

/// Brings a command to run, feeds `inputs` and compares the effects of the last one.
#[track_caller]
fn check(inputs: &[(u64, Input)], expected: &[Effect]) {
    let (_, effects) = drive(config(), running().into_iter().chain(inputs.iter().cloned()));
    assert_eq!(effects, expected);
}

/// Does the same and returns the outcome that the last input made durable.
#[track_caller]
fn outcome(inputs: &[(u64, Input)]) -> (Outcome, Option<Exit>) {
    let (state, effects) = drive(config(), running().into_iter().chain(inputs.iter().cloned()));
    assert!(effects.contains(&Effect::Leave), "{effects:?}");
    let report = state.finished.unwrap().exit;
    (report.outcome, report.exit)
}

#[test]
fn the_gate_opens_behind_the_synced_record() {
    let inputs = [(0, Input::Begun), (0, Input::Forked(started()))];
    let (_, effects) = drive(config(), inputs);
    let record = Record::Started(started());
    assert_eq!(effects, [Effect::Persist(vec![record]), Effect::OpenGate]);
}

#[test]
fn a_start_that_cannot_be_recorded_never_runs() {
    let inputs = [
        (0, Input::Begun),
        (0, Input::Forked(started())),
        (5, Input::PersistFailed { errno: 5 }),
        (6, Input::LogSealed(LogTotals::default())),
    ];
    let (_, effects) = drive(config(), inputs[..3].to_vec());
    assert_eq!(effects, [Effect::CloseGate, Effect::SealLog]);
    let (state, effects) = drive(config(), inputs);
    let failure = ExecFailure {
        step: ExecStep::Record,
        errno: 5,
        reason: NotStarted::SpawnFailed,
        at: at(5).wall,
    };
    let report = state.finished.unwrap();
    assert_eq!(
        effects[0],
        Effect::Persist(vec![Record::ExecFailed(failure), Record::Final(report)])
    );
    assert!(!effects.contains(&Effect::OpenGate));
}

#[test]
fn a_missing_program_is_one_sync_and_two_notices() {
    let failure = ExecFailure {
        step: ExecStep::Exec,
        errno: 2,
        reason: NotStarted::ProgramNotFound,
        at: Timestamp(9),
    };
    for forked in [true, false] {
        let mut inputs = vec![(0, Input::Begun)];
        if forked {
            inputs.push((0, Input::Forked(started())));
        }
        inputs.push((1, Input::ExecFailed(failure)));
        inputs.push((1, Input::LogSealed(LogTotals::default())));
        let (state, effects) = drive(config(), inputs);
        let report = state.finished.unwrap();
        assert_eq!(
            effects,
            [
                Effect::Persist(vec![Record::ExecFailed(failure), Record::Final(report.clone())]),
                Effect::Tell { to: To::All, notice: Notice::ExecFailed(failure) },
                Effect::Tell { to: To::All, notice: Notice::Final(report) },
                Effect::Leave,
            ]
        );
    }
}

#[test]
fn a_silent_command_ends_in_one_sync() {
    let end = [(9, gone(0)), (9, Input::Drained { open: false, logged: false })];
    check(&end[..1], &[Effect::CloseInput, Effect::Drain]);
    check(&end, &[Effect::SealLog]);
    let sealed = (9, Input::LogSealed(LogTotals::default()));
    let (state, effects) = drive(config(), running().into_iter().chain(end).chain([sealed]));
    let report = state.finished.unwrap();
    let record = Record::Exited(Box::new(crate::shim::journal::Exited {
        wait_status: 0,
        after_our_signal: false,
        report: report.exit.clone(),
    }));
    assert_eq!(
        effects,
        [
            Effect::Persist(vec![record, Record::Final(report.clone())]),
            Effect::Tell { to: To::All, notice: Notice::Exited(report.exit.clone()) },
            Effect::Tell { to: To::All, notice: Notice::Final(report) },
            Effect::Leave,
        ]
    );
}

#[test]
fn the_outcome_of_a_command_that_wrote_does_not_wait_for_the_log() {
    let end = [(9, gone(42 << 8)), (9, Input::Drained { open: false, logged: true })];
    let (state, effects) = drive(config(), running().into_iter().chain(end));
    assert!(matches!(effects[..], [Effect::Persist(_), Effect::Tell { .. }, Effect::SealLog]));
    assert_eq!(state.exit.unwrap().outcome, Outcome::Exited { code: 42 });
}

#[test]
fn a_held_pipe_is_waited_for_and_then_reported() {
    let drained = Input::Drained { open: true, logged: true };
    let until = 9 + HELD_PIPES_MS;
    let inputs = [(9, gone(0)), (9, drained.clone()), (until - 1, Input::Woke)];
    check(&inputs, &[]);
    let (state, _) = drive(config(), running().into_iter().chain(inputs[..2].to_vec()));
    assert_eq!(state.wake_at_ms(), Some(until));
    let inputs = [(9, gone(0)), (9, drained.clone()), (until, Input::Woke)];
    check(&inputs, &[Effect::Drain]);
    let end = [(until, drained), (until, Input::LogSealed(LogTotals::default()))];
    let all = running().into_iter().chain(inputs).chain(end);
    assert!(drive(config(), all).0.finished.unwrap().output_incomplete);
}

#[test]
fn leftovers_are_ended_by_the_ladder_after_the_outcome() {
    let left = Input::Children { leader: Some(exit(0)), others: true };
    let drained = Input::Drained { open: false, logged: false };
    let mut inputs = vec![(9, left.clone()), (9, drained)];
    let (state, effects) = drive(config(), running().into_iter().chain(inputs.clone()));
    assert!(matches!(effects[..], [Effect::Persist(_), Effect::Tell { .. }]), "{effects:?}");
    assert_eq!(state.wake_at_ms(), Some(9));
    inputs.push((9, Input::Woke));
    let term = [Effect::SignalGroup(Signal::Terminate), Effect::SignalRest(Signal::Terminate)];
    check(&inputs, &term);
    inputs.push((9 + GRACE_MS, Input::Woke));
    check(&inputs, &[Effect::KillTree]);
    inputs.push((9 + GRACE_MS, gone(0)));
    check(&inputs, &[Effect::Drain]);
}

#[test]
fn leftovers_that_may_stay_are_named() {
    let left = Input::Children { leader: Some(exit(0)), others: true };
    let leave = Config { leftovers: Leftovers::Leave, ..config() };
    let inputs = [
        (9, left),
        (9, Input::Drained { open: false, logged: false }),
        (9, Input::Woke),
        (9, Input::Survivors { named: Vec::new(), more: 3 }),
        (9, Input::Drained { open: false, logged: false }),
        (9, Input::LogSealed(LogTotals::default())),
    ];
    let all = running().into_iter().chain(inputs);
    let (_, effects) = drive(leave.clone(), all.clone().take(6));
    assert_eq!(effects, [Effect::NameSurvivors { reason: SurvivorReason::Left }]);
    assert_eq!(drive(leave, all).0.finished.unwrap().more_survivors, 3);
}

#[test]
fn a_stop_is_recorded_before_it_looks_and_looks_before_it_signals() {
    let taken = tell(Notice::StopTaken);
    check(&[(9, stop(3, 100))], &[stopping(USER, 9), Effect::Look, taken]);
    let mut inputs = vec![(9, stop(3, 100)), (9, STILL_ALIVE)];
    check(&inputs, &[Effect::SignalGroup(Signal::Terminate)]);
    inputs.push((108, Input::Woke));
    check(&inputs, &[]);
    inputs.push((109, Input::Woke));
    check(&inputs, &[Effect::KillTree]);
    inputs.push((110, gone(9)));
    check(&inputs, &[Effect::CloseInput, Effect::Drain]);
    inputs.push((110, Input::Drained { open: false, logged: false }));
    inputs.push((110, Input::LogSealed(LogTotals::default())));
    assert_eq!(outcome(&inputs), (Outcome::Stopped { by: StoppedBy::User }, Some(Exit::Signal(9))));
}

#[test]
fn a_natural_exit_wins_over_a_stop_that_has_not_signalled() {
    let inputs = [
        (9, stop(3, 100)),
        (9, gone(3 << 8)),
        (9, Input::Drained { open: false, logged: false }),
        (9, Input::LogSealed(LogTotals::default())),
    ];
    assert_eq!(outcome(&inputs), (Outcome::Exited { code: 3 }, Some(Exit::Code(3))));
}

#[test]
fn an_exit_after_our_signal_is_ours_whatever_its_code() {
    let inputs = [
        (9, stop(3, 100)),
        (9, STILL_ALIVE),
        (10, gone(0)),
        (10, Input::Drained { open: false, logged: false }),
        (10, Input::LogSealed(LogTotals::default())),
    ];
    assert_eq!(outcome(&inputs), (Outcome::Stopped { by: StoppedBy::User }, Some(Exit::Code(0))));
}

#[test]
fn a_stop_that_cannot_be_recorded_goes_on() {
    check(&[(9, stop(3, 100)), (9, Input::PersistFailed { errno: 5 })], &[Effect::Look]);
}

#[test]
fn the_outcome_of_a_stop_waits_for_the_whole_tree() {
    let left = Input::Children { leader: Some(exit(15)), others: true };
    let mut inputs = vec![(9, stop(3, 100)), (9, STILL_ALIVE), (10, left)];
    // Those that left the group were not told before.
    check(&inputs, &[Effect::CloseInput, Effect::SignalRest(Signal::Terminate)]);
    inputs.push((109, Input::Woke));
    check(&inputs, &[Effect::KillTree]);
    inputs.push((109 + KILL_WAIT_MS, Input::Woke));
    check(&inputs, &[Effect::NameSurvivors { reason: SurvivorReason::Unkillable }]);
    inputs.push((20_000, Input::Survivors { named: Vec::new(), more: 1 }));
    check(&inputs, &[Effect::Drain]);
}

#[test]
fn killing_is_repeated_with_growing_pauses_until_it_is_given_up() {
    let inputs = [(0, stop(3, 0)), (0, STILL_ALIVE)];
    let (mut state, effects) = drive(config(), running().into_iter().chain(inputs));
    assert_eq!(effects, [Effect::KillTree]);
    let mut passes = 0;
    while let Some(wake_ms) = state.wake_at_ms() {
        assert!(wake_ms <= KILL_WAIT_MS);
        let next = step(state, at(wake_ms), Input::Woke);
        passes += next.effects.iter().filter(|effect| **effect == Effect::KillTree).count();
        state = next.state;
    }
    assert!((15..30).contains(&passes), "{passes}");
    assert_eq!(state.phase, Phase::Naming);
}

#[test]
fn a_second_stop_may_hurry_the_first_and_changes_nothing_else() {
    let inputs = [(9, stop(3, 5_000)), (9, STILL_ALIVE), (10, stop(3, 50))];
    check(&inputs, &[tell(Notice::StopTaken)]);
    let (state, _) = drive(config(), running().into_iter().chain(inputs.clone()));
    assert_eq!(state.wake_at_ms(), Some(60));
    let inputs = [(9, stop(3, 50)), (9, STILL_ALIVE), (10, stop(3, 5_000))];
    let (state, _) = drive(config(), running().into_iter().chain(inputs));
    assert_eq!(state.wake_at_ms(), Some(59));
}

#[test]
fn an_interrupt_comes_first_if_it_is_asked_for() {
    let asked = Stop { epoch: Epoch(3), cause: USER, grace_ms: 100, interrupt_ms: 30 };
    let asked = Input::Asked { conn: HOST, request: Request::Stop(asked) };
    let mut inputs = vec![(0, asked), (0, STILL_ALIVE)];
    check(&inputs, &[Effect::SignalGroup(Signal::Interrupt)]);
    inputs.push((30, Input::Woke));
    check(&inputs, &[Effect::SignalGroup(Signal::Terminate)]);
    inputs.push((130, Input::Woke));
    check(&inputs, &[Effect::KillTree]);
}

#[test]
fn a_wall_clock_that_is_set_moves_no_deadline_and_makes_nothing_longer() {
    const HOUR_MS: u64 = 3_600_000;
    let limits = Config { total_ms: Some(60_000), idle_ms: None, ..config() };
    let mut state = drive(limits, running()).0;
    // Back by an hour, then forward by a day: only the clock since the boot counts.
    for (boot_ms, wall) in [(59_000, 1), (59_998, 1 + 24 * HOUR_MS), (59_999, 0)] {
        let now = Now { boot_ms, wall: Timestamp(1_000_000 + HOUR_MS * wall) };
        let Step { state: next, effects } = step(state, now, Input::Woke);
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Persist(_))), "{effects:?}");
        state = next;
    }
    let late = Now { boot_ms: 60_000, wall: Timestamp(0) };
    let effects = step(state, late, Input::Woke).effects;
    let cause = EndCause::TimedOut { limit: Deadline::Total };
    let expected = Stopping { cause, epoch: Epoch(3), at: Timestamp(0) };
    assert!(effects.contains(&Effect::Persist(vec![Record::Stopping(expected)])), "{effects:?}");

    let began = Now { boot_ms: 500, wall: Timestamp(10 * HOUR_MS) };
    for wall in [0, 9 * HOUR_MS, 34 * HOUR_MS] {
        let ended = Now { boot_ms: 1_700, wall: Timestamp(wall) };
        assert_eq!(ended.by_the_clock_of(began), Timestamp(10 * HOUR_MS + 1_200));
    }
}

#[test]
fn deadlines_end_it_and_say_which() {
    let total = EndCause::TimedOut { limit: Deadline::Total };
    let idle = EndCause::TimedOut { limit: Deadline::Idle };
    let (state, _) = drive(config(), running());
    assert_eq!(state.wake_at_ms(), Some(10_000));
    check(&[(9_999, Input::Woke)], &[]);
    check(&[(10_000, Input::Woke)], &[stopping(idle, 10_000), Effect::Look]);
    let busy = (1..=6).map(|n| (n * 9_999, Input::Output)).collect::<Vec<_>>();
    let late = busy.into_iter().chain([(60_000, Input::Woke)]).collect::<Vec<_>>();
    check(&late, &[stopping(total, 60_000), Effect::Look]);
}

#[test]
fn a_stop_before_the_fork_means_that_nothing_runs() {
    let (_, effects) = drive(config(), [(0, Input::Begun), (0, stop(3, 0))]);
    let expected = [Effect::CloseGate, Effect::SealLog, tell(Notice::StopTaken)];
    assert_eq!(effects, expected);
}

#[test]
fn a_lower_epoch_is_refused_and_a_higher_one_remembered() {
    let refused = tell(Notice::Superseded { epoch: Epoch(4) });
    let hello = |epoch| Input::Asked {
        conn: HOST,
        request: Request::Hello { version: 1, epoch: Epoch(epoch) },
    };
    check(&[(1, hello(4)), (2, stop(3, 0))], std::slice::from_ref(&refused));
    check(&[(1, hello(4)), (2, feed(1, 0, b"x"))], std::slice::from_ref(&refused));
    let (_, effects) = drive(config(), running().into_iter().chain([(1, hello(4)), (2, hello(3))]));
    let Effect::Tell { notice: Notice::Welcome(welcome), .. } = &effects[0] else { panic!() };
    assert_eq!((welcome.epoch, welcome.started.as_ref().unwrap().pid), (Epoch(4), 6));
    assert_eq!(effects[1..], [refused]);
}

#[test]
fn input_is_taken_once_and_in_order() {
    let key = Uuid::from_u128(1);
    let taken = tell(Notice::InputTaken { key, position: 0 });
    let fed = Effect::FeedInput { bytes: b"a".to_vec(), secret: false, close: false };
    check(&[(1, feed(1, 0, b"a"))], &[fed, taken.clone()]);
    check(&[(1, feed(1, 0, b"a")), (2, feed(1, 0, b"a"))], &[taken]);
    let refused = |key, position, reason, next| {
        tell(Notice::InputRefused { key: Uuid::from_u128(key), position, reason, next })
    };
    let other = [(1, feed(1, 0, b"a")), (2, feed(2, 0, b"b"))];
    check(&other, &[refused(2, 0, InputRefusal::NotNext, 1)]);
    let big = vec![0; 1 << 20];
    let full = [(1, feed(1, 0, &big)), (2, feed(2, 1, b"b"))];
    check(&full, &[refused(2, 1, InputRefusal::Full, 1)]);
    let read = (2, Input::InputWritten { bytes: 1 << 20 });
    let fed = Effect::FeedInput { bytes: b"b".to_vec(), secret: false, close: false };
    let taken = tell(Notice::InputTaken { key: Uuid::from_u128(2), position: 1 });
    check(&[full[0].clone(), read, full[1].clone()], &[fed, taken]);
    let closed = [(1, Input::InputEnded), (2, feed(1, 0, b"a"))];
    check(&closed, &[refused(1, 0, InputRefusal::Closed, 0)]);
}

/// A command as the world knows it.
#[derive(Clone, Debug)]
struct Command {
    /// How long it runs by itself.
    runs_ms: u64,
    ignores_term: bool,
    /// How long a child that left its group outlives it; `None` is no child.
    child_ms: Option<u64>,
    child_ignores_term: bool,
    /// Somebody outside the tree holds its output for ever.
    held: bool,
    writes: bool,
    /// The first `Persist` with this number fails.
    failing_persist: Option<usize>,
}

/// Performs effects on a command, and checks their order.
struct World {
    now_ms: u64,
    command: Command,
    config: Config,
    persists: usize,
    durable: Vec<Record>,
    gate_open: bool,
    left: bool,
    leader: Option<(u64, u32)>,
    child_dead_ms: Option<u64>,
    term_ms: Option<u64>,
    killed: bool,
    reported: bool,
    answers: VecDeque<Input>,
}

impl World {
    fn new(command: Command, config: Config) -> Self {
        Self {
            now_ms: 0,
            command,
            config,
            persists: 0,
            durable: Vec::new(),
            gate_open: false,
            left: false,
            leader: None,
            child_dead_ms: None,
            term_ms: None,
            killed: false,
            reported: false,
            answers: VecDeque::new(),
        }
    }

    fn has(&self, wanted: impl Fn(&Record) -> bool) -> bool {
        self.durable.iter().any(wanted)
    }

    fn children(&self) -> Input {
        let leader = self.leader.filter(|(at_ms, _)| *at_ms <= self.now_ms);
        let others = self.gate_open
            && self.command.child_ms.is_some()
            && self.child_dead_ms.is_none_or(|at_ms| at_ms > self.now_ms);
        Input::Children { leader: leader.map(|(_, status)| exit(status)), others }
    }

    fn end_leader(&mut self, status: u32) {
        if self.leader.is_none_or(|(at_ms, _)| at_ms > self.now_ms) {
            self.leader = Some((self.now_ms, status));
        }
    }

    fn end_child(&mut self) {
        if self.child_dead_ms.is_none_or(|at_ms| at_ms > self.now_ms) {
            self.child_dead_ms = Some(self.now_ms);
        }
    }

    /// Performs effects; returns whether the barrier held.
    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            assert!(!self.left, "{effect:?} after the shim left");
            match effect {
                Effect::Fork => self.answers.push_back(Input::Forked(started())),
                Effect::Persist(records) => {
                    self.persists += 1;
                    if self.command.failing_persist == Some(self.persists) {
                        self.answers.push_back(Input::PersistFailed { errno: 5 });
                        return;
                    }
                    self.record(records);
                }
                Effect::OpenGate => {
                    assert!(matches!(self.durable[..], [Record::Started(_)]), "the gate");
                    self.gate_open = true;
                    self.leader = Some((self.command.runs_ms, 0));
                    self.child_dead_ms = self.command.child_ms.map(|ms| self.command.runs_ms + ms);
                    self.answers.push_back(Input::Executed);
                }
                Effect::CloseGate => assert!(!self.gate_open),
                Effect::Look => self.answers.push_back(self.children()),
                Effect::Drain => {
                    let open = self.command.held;
                    let logged = self.command.writes;
                    self.answers.push_back(Input::Drained { open, logged });
                }
                Effect::SignalGroup(_) => {
                    self.may_signal();
                    self.term_ms = self.term_ms.or(Some(self.now_ms));
                    if !self.command.ignores_term {
                        self.end_leader(15);
                    }
                }
                Effect::SignalRest(_) => {
                    self.may_signal();
                    if !self.command.child_ignores_term {
                        self.end_child();
                    }
                }
                Effect::KillTree => {
                    self.may_signal();
                    let grace_ms = self.config.grace_ms;
                    let term_ms = self.term_ms.unwrap_or(self.now_ms);
                    assert!(grace_ms == 0 || self.now_ms - term_ms >= grace_ms, "KILL too early");
                    assert!(grace_ms == 0 || self.term_ms.is_some(), "KILL without TERM");
                    self.killed = true;
                    self.end_leader(9);
                    self.end_child();
                }
                Effect::NameSurvivors { .. } => {
                    self.answers.push_back(Input::Survivors { named: Vec::new(), more: 1 });
                }
                Effect::FeedInput { .. } | Effect::CloseInput => {}
                Effect::SealLog => self.answers.push_back(Input::LogSealed(LogTotals::default())),
                Effect::Tell { notice, .. } => self.told(&notice),
                Effect::Leave => self.left = true,
            }
        }
    }

    fn may_signal(&self) {
        let natural = self.leader.is_some_and(|(at_ms, _)| at_ms <= self.now_ms);
        let recorded = self.has(|record| matches!(record, Record::Stopping(_)));
        assert!(
            recorded || natural || self.command.failing_persist.is_some(),
            "a signal before the record of why"
        );
    }

    fn record(&mut self, records: Vec<Record>) {
        for record in records {
            assert!(!self.has(|old| matches!(old, Record::Final(_))), "{record:?} after the end");
            match &record {
                Record::Exited(_) | Record::ExecFailed(_) => {
                    let terminal =
                        |old: &Record| matches!(old, Record::Exited(_) | Record::ExecFailed(_));
                    assert!(!self.has(terminal), "a second terminal record");
                }
                Record::Started(_) | Record::Stopping(_) | Record::Final(_) | Record::Void(_) => {}
            }
            self.durable.push(record);
        }
    }

    fn told(&mut self, notice: &Notice) {
        match notice {
            Notice::Exited(_) => {
                assert!(!self.reported, "an outcome told twice");
                self.reported = true;
                assert!(
                    self.has(|record| matches!(record, Record::Exited(_) | Record::Final(_))),
                    "an outcome told before it is durable"
                );
            }
            Notice::Final(_) => {
                assert!(
                    self.has(|record| matches!(record, Record::Final(_))),
                    "an end not durable"
                );
            }
            Notice::Welcome(_)
            | Notice::Started(_)
            | Notice::ExecFailed(_)
            | Notice::StopTaken
            | Notice::InputTaken { .. }
            | Notice::InputRefused { .. }
            | Notice::Superseded { .. }
            | Notice::Unsupported { .. } => {}
        }
    }

    /// The next time at which something happens by itself.
    fn next_ms(&self, state: &State) -> Option<u64> {
        let deaths = self.leader.map(|(at_ms, _)| at_ms).into_iter().chain(self.child_dead_ms);
        let deaths = deaths.filter(|at_ms| *at_ms > self.now_ms);
        let wake_ms = state.wake_at_ms().map(|at_ms| at_ms.max(self.now_ms));
        deaths.chain(wake_ms).min()
    }
}

/// Runs a command to its end, with stops at some times; returns the world after it.
fn live(command: Command, config: Config, stops: &[u64]) -> (World, State) {
    let mut world = World::new(command, config.clone());
    let mut state = State::new(config);
    let mut stops = stops.to_vec();
    stops.sort_unstable();
    world.answers.push_back(Input::Begun);
    let feed = |world: &mut World, state: &mut State, input: Input| {
        world.answers.push_back(input);
        while let Some(input) = world.answers.pop_front() {
            let Step { state: next, effects } = step(state.clone(), at(world.now_ms), input);
            *state = next;
            world.perform(effects);
        }
    };
    feed(&mut world, &mut state, Input::Output);
    for _ in 0..500 {
        if world.left {
            break;
        }
        let next_ms = world.next_ms(&state).unwrap_or(u64::MAX);
        match stops.first().copied().filter(|at_ms| *at_ms <= next_ms) {
            Some(at_ms) => {
                stops.remove(0);
                world.now_ms = world.now_ms.max(at_ms);
                let grace_ms = world.config.grace_ms;
                feed(&mut world, &mut state, stop(3, grace_ms));
            }
            None => {
                assert_ne!(next_ms, u64::MAX, "stuck in {:?}", state.phase);
                world.now_ms = next_ms;
            }
        }
        if !world.left && world.gate_open {
            let children = world.children();
            feed(&mut world, &mut state, children);
        }
        if !world.left && state.wake_at_ms().is_some_and(|at_ms| at_ms <= world.now_ms) {
            feed(&mut world, &mut state, Input::Woke);
        }
    }
    (world, state)
}

fn commands() -> impl Strategy<Value = Command> {
    (
        1_u64..100_000,
        any::<bool>(),
        proptest::option::of(0_u64..100_000),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        proptest::option::weighted(0.3, 1_usize..5),
    )
        .prop_map(
            |(
                runs_ms,
                ignores_term,
                child_ms,
                child_ignores_term,
                held,
                writes,
                failing_persist,
            )| {
                Command {
                    runs_ms,
                    ignores_term,
                    child_ms,
                    child_ignores_term,
                    held,
                    writes,
                    failing_persist,
                }
            },
        )
}

proptest! {
    #[test]
    fn every_execution_ends_once_and_in_order(
        command in commands(),
        stops in proptest::collection::vec(0_u64..120_000, 0..4),
        grace_ms in prop_oneof![Just(0_u64), 1_u64..10_000],
        leave in any::<bool>(),
        total_ms in proptest::option::of(1_u64..100_000),
        idle_ms in proptest::option::of(1_u64..100_000),
    ) {
        let leftovers = if leave { Leftovers::Leave } else { Leftovers::Stop };
        let config = Config { grace_ms, leftovers, total_ms, idle_ms, ..config() };
        let failing = command.failing_persist.is_some();
        let left_alone = command.child_ms.is_some() && leave;
        let (world, state) = live(command, config, &stops);
        prop_assert!(world.left, "stuck in {:?}", state.phase);
        // Only a failed sync leaves an execution without its end.
        prop_assert!(failing || world.has(|record| matches!(record, Record::Final(_))));
        // What the record says is what happened.
        if let Some(report) = &state.finished {
            let natural = world.leader.map(|(_, status)| Exit::from_wait_status(status));
            match report.exit.outcome {
                Outcome::Exited { .. } => prop_assert_eq!(report.exit.exit, natural),
                Outcome::Stopped { .. } | Outcome::TimedOut { .. } => {
                    prop_assert!(world.term_ms.is_some() || world.killed);
                }
                Outcome::NotStarted { .. } => prop_assert!(!world.gate_open),
                Outcome::Signaled { .. } | Outcome::Completed { .. } | Outcome::Lost { .. } => {
                    prop_assert!(false, "{:?}", report.exit.outcome);
                }
            }
            // The command's own end, where it was seen, is a record of its own and was told.
            if world.gate_open {
                prop_assert!(world.reported);
                prop_assert!(world.has(|record| matches!(record, Record::Exited(_))));
            }
            // Nothing of the tree lives that is not named.
            let alive = matches!(world.children(), Input::Children { others: true, .. });
            prop_assert!(!alive || (left_alone && report.more_survivors > 0) || !world.gate_open);
        }
    }

    #[test]
    fn any_input_at_any_time_is_borne(choices in proptest::collection::vec((0_usize..15, 0_u64..20_000), 0..60)) {
        let mut state = State::new(config());
        let mut now_ms = 0;
        let mut gate_may_open = false;
        for (choice, pause_ms) in choices {
            now_ms += pause_ms;
            let inputs = [
                Input::Begun,
                Input::Forked(started()),
                Input::Executed,
                Input::Output,
                Input::PipesClosed,
                STILL_ALIVE,
                gone(0),
                Input::Children { leader: Some(exit(9)), others: true },
                Input::Drained { open: true, logged: true },
                Input::Survivors { named: Vec::new(), more: 0 },
                Input::LogSealed(LogTotals::default()),
                Input::PersistFailed { errno: 5 },
                Input::Woke,
                stop(3, 10),
                feed(u128::from(now_ms), 0, b"x"),
            ];
            let Step { state: next, effects } = step(state, at(now_ms), inputs[choice].clone());
            state = next;
            for effect in &effects {
                match effect {
                    Effect::Persist(records) => {
                        gate_may_open = matches!(records[..], [Record::Started(_)]);
                    }
                    Effect::OpenGate => prop_assert!(gate_may_open),
                    _ => {}
                }
            }
        }
    }
}
