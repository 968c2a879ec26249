//! What only a world can show of shims: death and stops between two effects, torn journals, logs with lost tails, numbers
//! that are given again.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

use std::collections::BTreeSet;
use std::time::Duration;

use futures::FutureExt as _;
use windlass_conformance::script::{fresh_execution, fresh_nonce};
use windlass_core::action::{Leftovers, OutputMode, Stdin};
use windlass_core::container_service::{
    Adoption, ContainerService as _, ContainerServiceError, LaunchSpec, Launched, Place, Room,
    StopCause, StopRequest,
};
use windlass_core::id::{Epoch, ExecutionId};
use windlass_core::locator::Locator;
use windlass_core::log_store::{
    From, GapCause, LogItem, LogKey, LogPage, LogStore as _, ReadOptions, Seq,
};
use windlass_core::outcome::{Exit, Lost, NotStarted, Outcome, StoppedBy};
use windlass_core::time::Timestamp;
use windlass_fakes::{
    Ambush, Happened, Loss, MemoryContainers, MemoryLogs, Pace, Signaller, Time, Unsynced, World,
};

/// No future of a world waits for anything but its time.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("an answer at once")
}

fn spec(execution: ExecutionId, words: &[&str]) -> LaunchSpec {
    LaunchSpec {
        execution,
        argv: words.iter().map(|&word| word.into()).collect(),
        env: Vec::new(),
        cwd: Locator::new("memory:workspace"),
        stdin: Stdin::Null,
        output: OutputMode::Separate,
        leftovers: Leftovers::Stop,
        total: None,
        idle: None,
        grace: Duration::from_millis(50),
        log_cap_bytes: 1 << 20,
        repository_lock: None,
    }
}

/// One execution in a world of its own.
struct Run {
    world: World,
    containers: MemoryContainers,
    execution: ExecutionId,
    place: Place,
}

impl Run {
    fn prepare() -> Self {
        let world = World::new(Timestamp(1_000), Time::Stands);
        world.collect_happened();
        let containers = MemoryContainers::new(world.clone());
        let execution = fresh_execution();
        let place = now(containers.prepare(execution, fresh_nonce())).unwrap();
        Self { world, containers, execution, place }
    }

    fn launched(words: &[&str]) -> Self {
        let run = Self::prepare();
        let launched = now(run.launch(words)).unwrap();
        assert!(matches!(launched, Launched::Running(_)), "{launched:?}");
        run
    }

    async fn launch(&self, words: &[&str]) -> Result<Launched, ContainerServiceError> {
        self.containers.launch(&self.place, spec(self.execution, words), Epoch(1)).await
    }

    /// What the next host finds; time passes until it knows.
    fn found(&self) -> Adoption {
        let next = MemoryContainers::new(self.world.clone());
        let mut adopting = Box::pin(next.adopt(self.execution, &self.place, Epoch(2)));
        loop {
            if let Some(adopted) = (&mut adopting).now_or_never() {
                return adopted.unwrap();
            }
            let due = self.world.next_timer().expect("something to wait for");
            self.world.set_now(due);
        }
    }

    fn outcome_found(&self) -> Outcome {
        match self.found() {
            Adoption::Ended(report) => report.exit.outcome,
            other => panic!("{other:?}"),
        }
    }

    fn log(&self) -> LogPage {
        let log = LogKey { execution: self.execution, place: self.place.clone() };
        let from = From::After(Seq(0));
        let options = ReadOptions { from, max_items: 1000, max_bytes: u64::MAX };
        now(MemoryLogs::new(self.world.clone()).read(&log, options)).unwrap()
    }

    fn stop(&self, grace: Duration) -> Result<(), ContainerServiceError> {
        let cause = StopCause::Stop { by: StoppedBy::User };
        let request = StopRequest { cause, grace, epoch: Epoch(1) };
        now(self.containers.stop(self.execution, &self.place, request))
    }

    fn starts(&self) -> usize {
        let happened = self.world.take_happened();
        happened.iter().filter(|(_, it)| matches!(it, Happened::Started { .. })).count()
    }
}

#[test]
fn a_shim_may_die_before_any_of_its_effects() {
    let mut outcomes = BTreeSet::new();
    for effect in 0.. {
        let run = Run::prepare();
        run.world.ambush_shim(run.execution, effect, Ambush::Kill);
        let _doubt = run.launch(&["script", "out:x", "exit:3"]).now_or_never();
        let found = run.found();
        let starts = run.starts();
        assert!(starts <= 1, "it was started {starts} times");
        outcomes.insert(match found {
            Adoption::NeverRan => {
                assert_eq!(starts, 0, "it ran, though it is said that it never did");
                "never ran"
            }
            Adoption::Ended(report) => match report.exit.outcome {
                Outcome::Exited { code: 3 } => "exited",
                Outcome::Lost { reason: Lost::SupervisorDied } => "lost",
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        });
        assert_eq!(run.world.alive(run.execution), 0);
        if run.world.kill_shim(run.execution) || effect > 40 {
            panic!("a shim is left");
        }
        let undisturbed = effect > 20;
        if undisturbed {
            break;
        }
    }
    assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), ["exited", "lost", "never ran"]);
}

#[test]
fn a_power_loss_while_the_start_is_synced_never_ran_or_is_lost() {
    for (unsynced, expected) in [
        (Unsynced::Gone, Adoption::NeverRan),
        (Unsynced::Torn { permille: 500 }, Adoption::NeverRan),
        (Unsynced::Zeroed { permille: 900 }, Adoption::NeverRan),
    ] {
        let run = Run::prepare();
        run.world.set_pace(Pace { sync_ms: 5, ..Pace::default() });
        assert!(run.launch(&["forever"]).now_or_never().is_none());
        run.world.power_loss(Loss::of(unsynced));
        assert_eq!(run.found(), expected, "{unsynced:?}");
        assert_eq!(run.starts(), 0);
    }
    let run = Run::prepare();
    run.world.set_pace(Pace { sync_ms: 5, ..Pace::default() });
    assert!(run.launch(&["forever"]).now_or_never().is_none());
    run.world.power_loss(Loss::NOTHING);
    assert_eq!(run.outcome_found(), Outcome::Lost { reason: Lost::MachineRestarted });
    assert_eq!(run.starts(), 0);
}

#[test]
fn a_log_that_lost_its_tail_ends_earlier_or_with_a_gap() {
    let words = ["script", "out:one\n", "sleep:10", "out:two\n", "forever"];
    let torn = |unsynced| {
        let run = Run::launched(&words);
        run.world.set_now(Timestamp(1_010));
        assert_eq!(run.log().items.len(), 2);
        run.world.power_loss(Loss::of(unsynced));
        let outcome = run.outcome_found();
        assert_eq!(outcome, Outcome::Lost { reason: Lost::MachineRestarted });
        run.log()
    };
    let page = torn(Unsynced::Gone);
    assert!(page.end && page.items.is_empty(), "{page:?}");
    let page = torn(Unsynced::Torn { permille: 500 });
    assert!(page.end && page.items.len() == 1, "{page:?}");
    let page = torn(Unsynced::Zeroed { permille: 500 });
    assert!(page.end, "{page:?}");
    assert!(
        matches!(
            page.items[..],
            [
                LogItem::Entry { .. },
                LogItem::Gap { first: Seq(2), last: None, cause: GapCause::Power, .. }
            ]
        ),
        "{page:?}"
    );
    let page = torn(Unsynced::Kept);
    assert_eq!(page.items.len(), 2);
}

#[test]
fn what_is_final_survives_a_power_loss_with_all_of_its_log() {
    let run = Run::launched(&["print", "left", "right"]);
    run.world.power_loss(Loss::ALL);
    assert_eq!(run.outcome_found(), Outcome::Exited { code: 0 });
    assert_eq!(run.log().items.len(), 2);
}

#[test]
fn a_stopped_shim_is_unresponsive_until_it_goes_on() {
    let run = Run::launched(&["wait", "4"]);
    assert!(run.world.freeze_shim(run.execution));
    let found = run.found();
    assert!(matches!(found, Adoption::Unresponsive { .. }), "{found:?}");
    assert_eq!(run.world.alive(run.execution), 1);
    assert!(run.world.thaw_shim(run.execution));
    run.world.release(run.execution);
    assert_eq!(run.outcome_found(), Outcome::Exited { code: 4 });
}

#[test]
fn a_stop_lets_a_stopped_shim_go_on() {
    let run = Run::launched(&["forever"]);
    assert!(run.world.freeze_shim(run.execution));
    run.stop(Duration::from_secs(5)).unwrap();
    let report = now(run.containers.finished(run.execution, &run.place)).unwrap();
    assert_eq!(report.exit.outcome, Outcome::Stopped { by: StoppedBy::User });
    assert_eq!(report.exit.exit, Some(Exit::Signal(15)));
}

#[test]
fn a_start_that_cannot_be_recorded_never_runs() {
    let run = Run::prepare();
    run.world.fail_persists(run.execution, 1);
    let launched = now(run.launch(&["exit", "0"])).unwrap();
    let reason = NotStarted::SpawnFailed;
    assert!(
        matches!(launched, Launched::NotStarted { reason: found, .. } if found == reason),
        "{launched:?}"
    );
    assert_eq!(run.starts(), 0);
    assert_eq!(run.outcome_found(), Outcome::NotStarted { reason });
}

#[test]
fn a_shim_that_cannot_be_started_leaves_the_place_as_it_was() {
    let run = Run::prepare();
    run.world.refuse_spawns(true);
    assert!(now(run.launch(&["exit", "0"])).is_err());
    run.world.refuse_spawns(false);
    assert!(matches!(now(run.launch(&["exit", "7"])), Ok(Launched::Running(_))));
    assert_eq!(run.outcome_found(), Outcome::Exited { code: 7 });
}

#[test]
fn numbers_are_given_again_and_nobody_is_hit_by_mistake() {
    let run = Run::launched(&["ignore-term"]);
    let [command] = run.world.processes(run.execution)[..] else { panic!("one process") };
    // The command and its shim die together, and a stranger gets the command's number.
    assert!(run.world.kill_shim(run.execution));
    run.world.signal(command.pid, 9);
    let stranger = run.world.start_stranger(Some(command.pid)).expect("a free number");
    assert!(stranger != command && stranger.pid == command.pid);
    run.world.set_now(Timestamp(90_000));
    assert_eq!(run.outcome_found(), Outcome::Lost { reason: Lost::SupervisorDied });
    assert!(run.world.lives(stranger), "a stranger was killed");
    let happened = run.world.take_happened();
    assert!(happened.iter().any(|(_, it)| matches!(it, Happened::PidReused { .. })));
    let hit = happened.iter().filter(|(_, it)| {
        matches!(it, Happened::Signalled { process, by, .. } if *process == stranger && *by != Signaller::Somebody)
    });
    assert_eq!(hit.count(), 0);
}

#[test]
fn a_small_space_of_numbers_runs_out_and_is_used_again() {
    let world = World::new(Timestamp(0), Time::Stands);
    world.set_numbers(8);
    world.collect_happened();
    let containers = MemoryContainers::new(world.clone());
    for code in 0..20 {
        let execution = fresh_execution();
        let place = now(containers.prepare(execution, fresh_nonce())).unwrap();
        let words = ["exit".to_owned(), code.to_string()];
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        now(containers.launch(&place, spec(execution, &words), Epoch(1))).unwrap();
        let report = now(containers.finished(execution, &place)).unwrap();
        assert_eq!(report.exit.outcome, Outcome::Exited { code });
    }
    let reused = world.take_happened();
    assert!(reused.iter().any(|(_, it)| matches!(it, Happened::PidReused { .. })));
}

#[test]
fn output_on_a_full_disk_is_a_gap() {
    let run = Run::launched(&["script", "out:a", "wait", "out:b", "sleep:10", "out:c", "exit:0"]);
    let room = Room { free_bytes: 1 << 30, floor_bytes: 0 };
    run.world.set_room(Room { free_bytes: 0, ..room });
    run.world.release(run.execution);
    run.world.set_room(room);
    run.world.set_now(Timestamp(2_000));
    let report = now(run.containers.finished(run.execution, &run.place)).unwrap();
    assert_eq!((report.bytes, report.dropped_bytes, report.output_incomplete), (3, 1, false));
    let page = run.log();
    assert!(
        matches!(
            page.items[..],
            [
                LogItem::Entry { .. },
                LogItem::Gap { first: Seq(2), last: Some(Seq(2)), bytes: 1, cause: GapCause::Full },
                LogItem::Entry { .. }
            ]
        ),
        "{page:?}"
    );
}

#[test]
fn the_cap_keeps_head_and_tail() {
    let run = Run::prepare();
    let small = LaunchSpec {
        log_cap_bytes: 64 << 10,
        ..spec(run.execution, &["script", "burst:400:1000"])
    };
    now(run.containers.launch(&run.place, small, Epoch(1))).unwrap();
    let report = now(run.containers.finished(run.execution, &run.place)).unwrap();
    assert_eq!(report.bytes, 400 * 1001);
    let page = run.log();
    let gaps: Vec<_> = page
        .items
        .iter()
        .filter_map(|item| match item {
            LogItem::Gap { bytes, cause: GapCause::Cap, .. } => Some(*bytes),
            LogItem::Gap { .. } | LogItem::Entry { .. } => None,
        })
        .collect();
    assert_eq!(gaps, [report.dropped_bytes]);
    let kept: u64 = page
        .items
        .iter()
        .map(|item| match item {
            LogItem::Entry { len, .. } => *len,
            LogItem::Gap { .. } => 0,
        })
        .sum();
    assert!(kept <= 64 << 10, "{kept}");
    assert_eq!(kept + report.dropped_bytes, report.bytes);
}
