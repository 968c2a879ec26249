//! What simulations rely on: time, forks and leftovers of a [`World`].

use std::time::Duration;

use futures::FutureExt as _;
use windlass_conformance::script::{fresh_execution, fresh_nonce};
use windlass_core::action::{Leftovers, OutputMode, Stdin};
use windlass_core::container_service::{
    Adoption, ContainerService as _, ContainerServiceError, LaunchSpec, Place, Room,
};
use windlass_core::execution::SurvivorReason;
use windlass_core::id::{Epoch, ExecutionId};
use windlass_core::locator::Locator;
use windlass_core::outcome::{Deadline, Outcome};
use windlass_core::time::Timestamp;
use windlass_fakes::{MemoryContainers, Time, World};

fn spec(execution: ExecutionId, words: &[&str]) -> LaunchSpec {
    LaunchSpec {
        execution,
        argv: words.iter().map(|&word| word.into()).collect(),
        env: Vec::new(),
        cwd: Locator::new("memory:workspace"),
        stdin: Stdin::Null,
        output: OutputMode::Separate,
        leftovers: Leftovers::Stop,
        total: Some(Duration::from_millis(500)),
        idle: None,
        grace: Duration::from_millis(50),
        log_cap_bytes: 1 << 20,
        repository_lock: None,
    }
}

/// Launches a command; no future of a fake waits but for time.
fn launch(containers: &MemoryContainers, spec: LaunchSpec) -> Place {
    let prepared = containers.prepare(spec.execution, fresh_nonce());
    let place = prepared.now_or_never().expect("no wait").expect("room");
    let launched = containers.launch(&place, spec, Epoch(1)).now_or_never();
    launched.expect("no wait").expect("a launch");
    place
}

#[test]
fn time_stands_until_it_is_set() {
    let world = World::new(Timestamp(1_000), Time::Stands);
    let containers = MemoryContainers::new(world.clone());
    let execution = fresh_execution();
    let place = launch(&containers, spec(execution, &["ignore-term"]));
    let mut exited = containers.exited(execution, &place);
    for now in [1_000, 1_499, 1_500, 1_549] {
        world.set_now(Timestamp(now));
        assert!((&mut exited).now_or_never().is_none(), "at {now}");
    }
    assert_eq!(world.next_timer(), Some(Timestamp(1_550)));
    world.set_now(Timestamp(9_000));
    let report = exited.now_or_never().expect("an end").expect("a report");
    assert_eq!(report.outcome, Outcome::TimedOut { limit: Deadline::Total });
    assert_eq!((report.at, world.now()), (Timestamp(1_550), Timestamp(9_000)));
    assert_eq!(world.next_timer(), None);
}

#[test]
fn a_fork_goes_its_own_way() {
    let world = World::new(Timestamp(0), Time::Stands);
    let containers = MemoryContainers::new(world.clone());
    let execution = fresh_execution();
    let place = launch(&containers, spec(execution, &["wait", "3"]));
    let fork = world.fork();
    world.release(execution);
    assert_eq!((world.alive(execution), fork.alive(execution)), (0, 1));
    let adopted = MemoryContainers::new(fork).adopt(execution, &place, Epoch(2)).now_or_never();
    let adoption = adopted.expect("no wait").expect("an adoption");
    assert!(matches!(adoption, Adoption::Running { exited: None, .. }), "{adoption:?}");
}

#[test]
fn leftovers_that_are_left_are_named() {
    let world = World::new(Timestamp(0), Time::Stands);
    let containers = MemoryContainers::new(world.clone());
    let execution = fresh_execution();
    let left = LaunchSpec { leftovers: Leftovers::Leave, ..spec(execution, &["leave-child"]) };
    let place = launch(&containers, left);
    let report = containers.finished(execution, &place).now_or_never().expect("an end");
    let survivors = report.expect("a report").survivors;
    assert_eq!(
        survivors.iter().map(|survivor| survivor.reason).collect::<Vec<_>>(),
        [SurvivorReason::Left]
    );
    assert_eq!(world.alive(execution), 1);
}

#[test]
fn no_room_is_made_on_a_full_disk() {
    let world = World::new(Timestamp(0), Time::Stands);
    let containers = MemoryContainers::new(world.clone());
    world.set_room(Room { free_bytes: 0, floor_bytes: 1 });
    let refused = containers.prepare(fresh_execution(), fresh_nonce()).now_or_never();
    assert!(matches!(refused, Some(Err(ContainerServiceError::Full))), "{refused:?}");
    let places = containers.places().now_or_never().expect("no wait").expect("a list");
    assert_eq!(places, []);
}

#[test]
fn another_room_under_the_same_name_is_foreign() {
    let world = World::new(Timestamp(0), Time::Stands);
    let containers = MemoryContainers::new(world.clone());
    let execution = fresh_execution();
    let place = launch(&containers, spec(execution, &["exit", "0"]));
    let copied = Place { identity: "copied".to_owned(), ..place };
    // Whoever launched it knows it; the next host looks.
    let adopted = MemoryContainers::new(world).adopt(execution, &copied, Epoch(1)).now_or_never();
    let adoption = adopted.expect("no wait").expect("an adoption");
    assert!(matches!(adoption, Adoption::Foreign { .. }), "{adoption:?}");
}
