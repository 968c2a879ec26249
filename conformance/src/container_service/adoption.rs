//! Cases about hosts and supervisors that die.
#![expect(clippy::panic, reason = "a case that fails panics")]

use windlass_core::container_service::{Adoption, Launched};
use windlass_core::outcome::{Exit, Lost, Outcome};

use super::{
    ContainerServicePlace, EPOCH, GRACE, STOPPED, adopt, exited, finished, launch, prepare, ready,
    stop,
};
use crate::script::Script;

/// The host is gone, the work is not.
pub async fn a_running_execution_is_adopted_after_a_restart(place: impl ContainerServicePlace) {
    let service = place.open().await;
    let (start, running) = launch(&place, &*service, &Script::Forever).await;
    ready(&place, &start).await;
    drop(service);
    let service = place.open().await;
    let adoption = adopt(&*service, &start, EPOCH).await;
    assert_eq!(adoption, Adoption::Running { running: Some(running), exited: None });
    assert_eq!(adopt(&*service, &start, EPOCH).await, adoption);
    stop(&*service, &start, GRACE).await;
    assert_eq!(exited(&*service, &start).await, STOPPED);
    assert_eq!(finished(&*service, &start).await.exit.exit, Some(Exit::Signal(15)));
}

/// Nobody was there to see it, and it is known all the same.
pub async fn an_exit_without_a_host_is_found_after_a_restart(place: impl ContainerServicePlace) {
    let service = place.open().await;
    let (start, _) = launch(&place, &*service, &Script::UntilReleased(42)).await;
    ready(&place, &start).await;
    drop(service);
    place.release(start.execution).await;
    // The log's end is the shim's last word before the final record.
    place.output(start.execution, &start.place, usize::MAX).await;
    let service = place.open().await;
    let outcome = match adopt(&*service, &start, EPOCH).await {
        Adoption::Ended(report) => report.exit.outcome,
        Adoption::Running { .. } => exited(&*service, &start).await,
        other => panic!("{other:?}"),
    };
    assert_eq!(outcome, Outcome::Exited { code: 42 });
}

/// An adopted child is as good as one's own.
pub async fn an_adopted_execution_reports_its_exit(place: impl ContainerServicePlace) {
    let service = place.open().await;
    let (start, _) = launch(&place, &*service, &Script::UntilReleased(9)).await;
    ready(&place, &start).await;
    drop(service);
    let service = place.open().await;
    assert!(matches!(adopt(&*service, &start, EPOCH).await, Adoption::Running { .. }));
    place.release(start.execution).await;
    assert_eq!(exited(&*service, &start).await, Outcome::Exited { code: 9 });
    assert_eq!(finished(&*service, &start).await.exit.exit, Some(Exit::Code(9)));
}

/// Who found it empty closed it.
pub async fn a_place_without_a_launch_is_closed_for_ever(place: impl ContainerServicePlace) {
    let service = place.open().await;
    let start = prepare(&*service).await;
    assert_eq!(adopt(&*service, &start, EPOCH).await, Adoption::NeverRan);
    let script = Script::Print { stdout: "ran", stderr: "" };
    let spec = place.spec(&script, start.execution);
    let launched = service.launch(&start.place, spec, EPOCH).await.expect("a launch");
    assert!(matches!(launched, Launched::NotStarted { .. }), "{launched:?}");
    drop(service);
    let service = place.open().await;
    assert_eq!(adopt(&*service, &start, EPOCH).await, Adoption::NeverRan);
    assert_eq!(place.alive(start.execution).await, 0);
}

const SUPERVISOR_DIED: Outcome = Outcome::Lost { reason: Lost::SupervisorDied };

/// What cannot be known is said to be lost, and nothing of it runs on unseen.
pub async fn a_dead_supervisor_is_lost_and_its_tree_ended(place: impl ContainerServicePlace) {
    let service = place.open().await;
    let (start, _) = launch(&place, &*service, &Script::IgnoreTerm).await;
    ready(&place, &start).await;
    place.kill_supervisor(start.execution, &start.place).await;
    assert_eq!(exited(&*service, &start).await, SUPERVISOR_DIED);
    let report = finished(&*service, &start).await;
    assert_eq!(place.alive(start.execution).await, 0);
    assert_eq!((report.exit.outcome, report.bytes), (SUPERVISOR_DIED, 5));
}

/// The same, found by the next host.
pub async fn a_dead_supervisor_is_lost_after_a_restart(place: impl ContainerServicePlace) {
    let service = place.open().await;
    let (start, _) = launch(&place, &*service, &Script::Forever).await;
    ready(&place, &start).await;
    drop(service);
    place.kill_supervisor(start.execution, &start.place).await;
    let service = place.open().await;
    let Adoption::Ended(report) = adopt(&*service, &start, EPOCH).await else {
        panic!("not ended")
    };
    assert_eq!(report.exit.outcome, SUPERVISOR_DIED);
    assert_eq!((report.exit.exit, report.last_seq, report.bytes), (None, 1, 5));
    assert_eq!(place.alive(start.execution).await, 0);
    assert_eq!(exited(&*service, &start).await, SUPERVISOR_DIED);
}

/// Damage is never permission to start.
pub async fn damaged_evidence_is_lost_and_never_launched(place: impl ContainerServicePlace) {
    let service = place.open().await;
    let (start, _) = launch(&place, &*service, &Script::Exit(0)).await;
    finished(&*service, &start).await;
    let fresh = prepare(&*service).await;
    drop(service);
    for start in [start, fresh] {
        place.damage(start.execution, &start.place).await;
        let service = place.open().await;
        let script = Script::Print { stdout: "ran", stderr: "" };
        let spec = place.spec(&script, start.execution);
        let launched = service.launch(&start.place, spec, EPOCH).await;
        assert!(!matches!(launched, Ok(Launched::Running(_))), "{launched:?}");
        let Adoption::Ended(report) = adopt(&*service, &start, EPOCH).await else {
            panic!("not ended")
        };
        assert_eq!(report.exit.outcome, Outcome::Lost { reason: Lost::EvidenceDamaged });
        assert_eq!(report.bytes, 0, "it ran");
    }
}
