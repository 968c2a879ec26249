//! Every shape of descendant, reached by a stop, and by a sweep when the shim is dead.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use windlass_conformance::container_service::{ContainerServicePlace as _, Script};
use windlass_conformance::script::{fresh_execution, fresh_nonce};
use windlass_core::container_service::{ContainerService as _, LaunchSpec};
use windlass_core::id::Epoch;
use windlass_core::outcome::{Lost, Outcome, StoppedBy};
use windlass_local::LocalContainers;

use crate::adoption::Run;
use crate::place::{Local, is_alive, kill, marked};

/// A child, one in a session of its own, one whose parent has gone, and one that is both.
const SHAPES: &str = "
    sleep 600 &
    setsid sleep 600 &
    (sleep 600 &)
    (setsid sleep 600 &)
    trap '' TERM
    printf ready
    exec sleep 600";

async fn run(local: &Local, service: &LocalContainers, script: &str) -> Run {
    let execution = fresh_execution();
    let place = service.prepare(execution, fresh_nonce()).await.unwrap();
    let spec = LaunchSpec { execution, ..local.shell(script, &[]) };
    service.launch(&place, spec, Epoch(1)).await.unwrap();
    local.output(execution, &place, "ready".len()).await;
    Run { execution, place }
}

#[tokio::test]
async fn a_stop_reaches_all_four_shapes() {
    let local = Local::default();
    let service = local.open();
    let run = run(&local, &service, SHAPES).await;
    run.stop(&service, Duration::from_millis(100)).await;
    let report = run.finished(&service).await;
    assert_eq!(report.exit.outcome, Outcome::Stopped { by: StoppedBy::User });
    assert_eq!((report.survivors, report.more_survivors), (Vec::new(), 0));
    assert!(marked(run.execution).is_empty());
}

#[tokio::test]
async fn a_sweep_reaches_all_four_shapes() {
    let local = Local::default();
    let service = local.open();
    let run = run(&local, &service, SHAPES).await;
    drop(service);
    let started = run.started();
    kill(started.shim_pid);
    assert!(is_alive(started.pid));
    let report = run.ended(&local.open()).await;
    assert_eq!(report.exit.outcome, Outcome::Lost { reason: Lost::SupervisorDied });
    assert_eq!((report.survivors, report.more_survivors), (Vec::new(), 0));
    assert!(marked(run.execution).is_empty());
}

#[tokio::test]
async fn a_member_of_the_group_without_the_mark_is_found_by_the_handle_of_its_leader() {
    let local = Local::default();
    let service = local.open();
    let script = "env -i sleep 600 > /dev/null 2>&1 & printf 'ready %s' $!; exec sleep 600";
    let run = run(&local, &service, script).await;
    let output = local.output(run.execution, &run.place, "ready 1".len()).await;
    let child = String::from_utf8(output).unwrap().rsplit_once(' ').unwrap().1.parse().unwrap();
    let started = run.started();
    let shim = Pid::from_raw(i32::try_from(started.shim_pid).unwrap()).unwrap();
    kill_process(shim, Signal::STOP).unwrap();
    kill(started.pid);
    assert!(is_alive(child));
    kill(started.shim_pid);
    let report = run.finished(&service).await;
    assert_eq!(report.exit.outcome, Outcome::Lost { reason: Lost::SupervisorDied });
    // Kernels before 6.9 cannot ask for a group by its leader, and then it is beyond finding.
    let known = started.pidfs_handle.is_some();
    assert_eq!(is_alive(child), !known);
    if !known {
        kill(child);
    }
}

#[tokio::test]
async fn a_sweep_asks_before_it_kills() {
    let local = Local::default();
    let service = local.open();
    let told = local.home().join("told");
    // A shell says on stderr what its children die from, and nobody reads that any more.
    let script = format!(
        "exec 2> /dev/null; trap 'echo told > {}; exit 0' TERM; printf ready; while :; do sleep 0.01; done",
        told.display()
    );
    let run = run(&local, &service, &script).await;
    drop(service);
    kill(run.started().shim_pid);
    let mut options = local.options();
    options.orphan_grace = Duration::from_secs(30);
    let report = run.ended(&LocalContainers::open(options).unwrap()).await;
    assert!(told.exists(), "{report:?}");
}

#[tokio::test]
async fn a_service_that_is_dropped_leaves_everything_running() {
    let local = Local::default();
    let service = local.open();
    let run = Run::ready(&local, &service, &Script::Forever).await;
    drop(service);
    let started = run.started();
    assert!(is_alive(started.pid) && is_alive(started.shim_pid));
    let service = local.open();
    run.adopt(&service).await;
    run.stop(&service, Duration::ZERO).await;
    run.finished(&service).await;
    assert!(!is_alive(started.pid));
}
