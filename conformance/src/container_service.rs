//! The suite of [`ContainerService`].
#![expect(clippy::panic, reason = "a case that fails panics")]

mod adoption;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use windlass_core::container_service::{
    Adoption, ContainerService, ContainerServiceError, LaunchSpec, Launched, Place, Running,
    StopCause, StopRequest,
};
use windlass_core::execution::FinalReport;
use windlass_core::id::{Epoch, ExecutionId};
use windlass_core::outcome::{CompletedBy, Deadline, Exit, NotStarted, Outcome, StoppedBy};

pub use self::adoption::{
    a_dead_supervisor_is_lost_after_a_restart, a_dead_supervisor_is_lost_and_its_tree_ended,
    a_place_without_a_launch_is_closed_for_ever, a_running_execution_is_adopted_after_a_restart,
    an_adopted_execution_reports_its_exit, an_exit_without_a_host_is_found_after_a_restart,
    damaged_evidence_is_lost_and_never_launched,
};
pub use crate::script::Script;
use crate::script::{fresh_execution, fresh_nonce};

/// Where a container service keeps its evidence, and the world that its commands run in.
#[async_trait]
pub trait ContainerServicePlace: Default + Send + Sync {
    /// Opens the service. Opening again, after what was opened is dropped, is a restart of the host; opening again beside
    /// it is a second host.
    async fn open(&self) -> Arc<dyn ContainerService>;

    /// Says how to run a script: no deadlines, no lock, a grace of 5 s, and as [`Stdin::Messages`] only where the
    /// script reads or ignores its input.
    ///
    /// [`Stdin::Messages`]: windlass_core::action::Stdin::Messages
    fn spec(&self, script: &Script, execution: ExecutionId) -> LaunchSpec;

    /// Lets a script that waits go on.
    async fn release(&self, execution: ExecutionId);

    /// Waits until the log has this many bytes of output at least, or is at its end, and returns the bytes of all
    /// streams in order, gaps and input left out.
    async fn output(&self, execution: ExecutionId, place: &Place, at_least: usize) -> Vec<u8>;

    /// Counts the processes of the execution that live, by looking at the processes themselves.
    async fn alive(&self, execution: ExecutionId) -> usize;

    /// Kills what supervises the execution, and nothing else, and waits until it is gone.
    async fn kill_supervisor(&self, execution: ExecutionId, place: &Place);

    /// Damages the evidence of an execution beyond reading.
    async fn damage(&self, execution: ExecutionId, place: &Place);
}

/// Expands the suite over places: `container_service_suite! { local => Local }`.
#[macro_export]
macro_rules! container_service_suite {
    ($($places:tt)*) => {
        $crate::expand!(container_service { $($places)* } [
            preparing_again_gives_the_same_place,
            an_exit_code_is_reported,
            a_signal_is_reported,
            output_is_counted_in_the_final_report,
            an_exit_is_reported_however_often_and_late_it_is_asked_for,
            a_missing_program_is_not_started,
            what_may_not_be_executed_is_not_started,
            a_missing_directory_is_not_started,
            what_was_not_started_says_so_after_a_restart,
            a_stop_ends_it_as_stopped,
            a_stop_that_is_ignored_is_followed_by_a_kill,
            a_shorter_grace_counts,
            a_completed_execution_is_ended_as_completed,
            a_stop_after_the_end_changes_nothing,
            a_place_is_used_once,
            launching_again_after_the_end_does_not_run_it_again,
            a_running_execution_is_adopted_after_a_restart,
            an_exit_without_a_host_is_found_after_a_restart,
            an_adopted_execution_reports_its_exit,
            a_place_without_a_launch_is_closed_for_ever,
            nothing_is_attached_before_a_launch_or_adoption,
            the_total_deadline_fires,
            the_idle_deadline_fires,
            a_deadline_fires_without_a_host,
            an_older_epoch_neither_stops_nor_adopts,
            what_it_leaves_is_ended_before_the_final_report,
            an_escapee_is_ended_before_the_final_report,
            a_dead_supervisor_is_lost_and_its_tree_ended,
            a_dead_supervisor_is_lost_after_a_restart,
            damaged_evidence_is_lost_and_never_launched,
            places_are_listed_until_they_are_discarded,
            a_place_in_use_is_not_discarded,
            room_is_measured,
            fifty_run_at_once,
        ]);
    };
}

/// The epoch that cases begin with.
const EPOCH: Epoch = Epoch(1);

/// One prepared start.
struct Start {
    execution: ExecutionId,
    place: Place,
}

/// Prepares room for a new execution.
async fn prepare(service: &dyn ContainerService) -> Start {
    let execution = fresh_execution();
    let place = service.prepare(execution, fresh_nonce()).await.expect("room for an execution");
    Start { execution, place }
}

/// Prepares and launches a script and insists that it runs.
async fn launch(
    place: &impl ContainerServicePlace,
    service: &dyn ContainerService,
    script: &Script,
) -> (Start, Running) {
    let start = prepare(service).await;
    let spec = place.spec(script, start.execution);
    let launched = service.launch(&start.place, spec, EPOCH).await.expect("a launch");
    let Launched::Running(running) = launched else { panic!("{launched:?}") };
    (start, running)
}

async fn exited(service: &dyn ContainerService, start: &Start) -> Outcome {
    service.exited(start.execution, &start.place).await.expect("an exit").outcome
}

async fn finished(service: &dyn ContainerService, start: &Start) -> FinalReport {
    service.finished(start.execution, &start.place).await.expect("an end")
}

async fn stop(service: &dyn ContainerService, start: &Start, grace: Duration) {
    let request = stop_request(grace);
    service.stop(start.execution, &start.place, request).await.expect("an accepted stop");
}

fn stop_request(grace: Duration) -> StopRequest {
    StopRequest { cause: StopCause::Stop { by: StoppedBy::User }, grace, epoch: EPOCH }
}

async fn adopt(service: &dyn ContainerService, start: &Start, epoch: Epoch) -> Adoption {
    service.adopt(start.execution, &start.place, epoch).await.expect("an adoption")
}

/// Waits until the script has said that it is ready.
async fn ready(place: &impl ContainerServicePlace, start: &Start) {
    place.output(start.execution, &start.place, "ready".len()).await;
}

const STOPPED: Outcome = Outcome::Stopped { by: StoppedBy::User };
const LONG: Duration = Duration::from_secs(3600);
const GRACE: Duration = Duration::from_secs(30);

/// A crash after `prepare` leads to another one with the same arguments.
pub async fn preparing_again_gives_the_same_place(place: impl ContainerServicePlace) {
    let (execution, nonce) = (fresh_execution(), fresh_nonce());
    let service = place.open().await;
    let first = service.prepare(execution, nonce).await.expect("room");
    assert_eq!(service.prepare(execution, nonce).await.expect("room"), first);
    drop(service);
    let service = place.open().await;
    assert_eq!(service.prepare(execution, nonce).await.expect("room"), first);
    let other = service.prepare(execution, fresh_nonce()).await.expect("room");
    assert_ne!(other.locator, first.locator);
}

/// The code is the kernel's.
pub async fn an_exit_code_is_reported(place: impl ContainerServicePlace) {
    let service = place.open().await;
    for code in [0, 42, 255] {
        let (start, running) = launch(&place, &*service, &Script::Exit(code)).await;
        assert_ne!(running.pid, 0);
        let report = service.exited(start.execution, &start.place).await.expect("an exit");
        assert_eq!(report.outcome, Outcome::Exited { code });
        assert_eq!(report.exit, Some(Exit::Code(code)));
        assert!(report.at >= running.since, "{report:?} {running:?}");
    }
}

/// A death that we did not cause is its own.
pub async fn a_signal_is_reported(place: impl ContainerServicePlace) {
    let service = place.open().await;
    for signal in [9, 15] {
        let (start, _) = launch(&place, &*service, &Script::Die(signal)).await;
        let report = service.exited(start.execution, &start.place).await.expect("an exit");
        assert_eq!(report.outcome, Outcome::Signaled { signal });
        assert_eq!(report.exit, Some(Exit::Signal(signal)));
    }
}

/// The sums of the log are in the final report.
pub async fn output_is_counted_in_the_final_report(place: impl ContainerServicePlace) {
    let service = place.open().await;
    let script = Script::Print { stdout: "to the left", stderr: "to the right" };
    let (start, _) = launch(&place, &*service, &script).await;
    let report = finished(&*service, &start).await;
    assert_eq!(report.exit.outcome, Outcome::Exited { code: 0 });
    assert_eq!(report.bytes, 23);
    assert_eq!((report.dropped_bytes, report.output_incomplete), (0, false));
    assert!(report.last_seq >= 2, "{report:?}");
    let output = place.output(start.execution, &start.place, usize::MAX).await;
    let mut sorted = output.clone();
    sorted.sort_unstable();
    let mut expected = b"to the leftto the right".to_vec();
    expected.sort_unstable();
    assert_eq!(sorted, expected, "{:?}", String::from_utf8_lossy(&output));
}

/// A report does not wear out.
pub async fn an_exit_is_reported_however_often_and_late_it_is_asked_for(
    place: impl ContainerServicePlace,
) {
    let service = place.open().await;
    let (start, _) = launch(&place, &*service, &Script::Exit(3)).await;
    let report = finished(&*service, &start).await;
    for _ in 0..3 {
        assert_eq!(finished(&*service, &start).await, report);
        assert_eq!(exited(&*service, &start).await, Outcome::Exited { code: 3 });
    }
    drop(service);
    let service = place.open().await;
    assert_eq!(adopt(&*service, &start, EPOCH).await, Adoption::Ended(report.clone()));
    assert_eq!(adopt(&*service, &start, EPOCH).await, Adoption::Ended(report.clone()));
    assert_eq!(finished(&*service, &start).await, report);
}

/// Launches what cannot start, and returns the reason.
async fn not_started(place: &impl ContainerServicePlace, script: &Script) -> (NotStarted, String) {
    let service = place.open().await;
    let start = prepare(&*service).await;
    let spec = place.spec(script, start.execution);
    match service.launch(&start.place, spec, EPOCH).await.expect("a launch") {
        Launched::NotStarted { reason, message } => (reason, message),
        Launched::Running(running) => panic!("{script:?} runs: {running:?}"),
    }
}

/// The message names the program.
pub async fn a_missing_program_is_not_started(place: impl ContainerServicePlace) {
    let (reason, message) = not_started(&place, &Script::MissingProgram).await;
    assert_eq!(reason, NotStarted::ProgramNotFound);
    let spec = place.spec(&Script::MissingProgram, fresh_execution());
    let program = String::from_utf8_lossy(&spec.argv[0].0).into_owned();
    assert!(message.contains(&program), "{message} does not name {program}");
}

/// A file without the executable bit.
pub async fn what_may_not_be_executed_is_not_started(place: impl ContainerServicePlace) {
    let (reason, _) = not_started(&place, &Script::NotExecutable).await;
    assert_eq!(reason, NotStarted::NotExecutable);
}

/// A directory that is gone is not a missing program.
pub async fn a_missing_directory_is_not_started(place: impl ContainerServicePlace) {
    let (reason, _) = not_started(&place, &Script::MissingDirectory).await;
    assert_eq!(reason, NotStarted::DirectoryGone);
}

/// The evidence of a failed start is as good as that of an exit.
pub async fn what_was_not_started_says_so_after_a_restart(place: impl ContainerServicePlace) {
    let service = place.open().await;
    let start = prepare(&*service).await;
    let spec = place.spec(&Script::MissingProgram, start.execution);
    service.launch(&start.place, spec, EPOCH).await.expect("a launch");
    drop(service);
    let service = place.open().await;
    let Adoption::Ended(report) = adopt(&*service, &start, EPOCH).await else {
        panic!("not ended")
    };
    let reason = NotStarted::ProgramNotFound;
    assert_eq!(report.exit.outcome, Outcome::NotStarted { reason });
    assert_eq!(report.exit.exit, None);
}

/// The exit tells what the kernel saw, the outcome why.
pub async fn a_stop_ends_it_as_stopped(place: impl ContainerServicePlace) {
    let service = place.open().await;
    let (start, _) = launch(&place, &*service, &Script::Forever).await;
    ready(&place, &start).await;
    stop(&*service, &start, GRACE).await;
    stop(&*service, &start, GRACE).await;
    let report = finished(&*service, &start).await;
    assert_eq!(report.exit.outcome, STOPPED);
    assert_eq!(report.exit.exit, Some(Exit::Signal(15)));
    assert_eq!((report.survivors.len(), report.more_survivors), (0, 0));
    assert_eq!(place.alive(start.execution).await, 0);
}

/// TERM is asked, KILL is told.
pub async fn a_stop_that_is_ignored_is_followed_by_a_kill(place: impl ContainerServicePlace) {
    let service = place.open().await;
    let (start, _) = launch(&place, &*service, &Script::IgnoreTerm).await;
    ready(&place, &start).await;
    stop(&*service, &start, Duration::from_millis(50)).await;
    let report = finished(&*service, &start).await;
    assert_eq!(report.exit.outcome, STOPPED);
    assert_eq!(report.exit.exit, Some(Exit::Signal(9)));
    assert_eq!(place.alive(start.execution).await, 0);
}

/// Impatience is granted.
pub async fn a_shorter_grace_counts(place: impl ContainerServicePlace) {
    let service = place.open().await;
    let (start, _) = launch(&place, &*service, &Script::IgnoreTerm).await;
    ready(&place, &start).await;
    stop(&*service, &start, LONG).await;
    stop(&*service, &start, Duration::ZERO).await;
    assert_eq!(exited(&*service, &start).await, STOPPED);
}

/// Who completes is not stopped.
pub async fn a_completed_execution_is_ended_as_completed(place: impl ContainerServicePlace) {
    let service = place.open().await;
    let (start, _) = launch(&place, &*service, &Script::Forever).await;
    ready(&place, &start).await;
    let cause = StopCause::Complete { by: CompletedBy::Program };
    let request = StopRequest { cause, grace: GRACE, epoch: EPOCH };
    service.stop(start.execution, &start.place, request).await.expect("an accepted stop");
    let expected = Outcome::Completed { by: CompletedBy::Program };
    assert_eq!(exited(&*service, &start).await, expected);
}

/// A natural exit that came first wins.
pub async fn a_stop_after_the_end_changes_nothing(place: impl ContainerServicePlace) {
    let service = place.open().await;
    let (start, _) = launch(&place, &*service, &Script::Exit(7)).await;
    let report = finished(&*service, &start).await;
    // Accepted or not attached any more: both are true.
    let request = stop_request(GRACE);
    match service.stop(start.execution, &start.place, request).await {
        Ok(()) | Err(ContainerServiceError::NotAttached { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    assert_eq!(finished(&*service, &start).await, report);
}

/// Launching again while it runs attaches to what runs.
pub async fn a_place_is_used_once(place: impl ContainerServicePlace) {
    let service = place.open().await;
    let (start, running) = launch(&place, &*service, &Script::UntilReleased(5)).await;
    ready(&place, &start).await;
    let again = place.spec(&Script::UntilReleased(5), start.execution);
    let launched = service.launch(&start.place, again.clone(), EPOCH).await.expect("a launch");
    assert_eq!(launched, Launched::Running(running));
    drop(service);
    let service = place.open().await;
    let launched = service.launch(&start.place, again, EPOCH).await.expect("a launch");
    assert_eq!(launched, Launched::Running(running));
    place.release(start.execution).await;
    assert_eq!(exited(&*service, &start).await, Outcome::Exited { code: 5 });
    let output = place.output(start.execution, &start.place, usize::MAX).await;
    assert_eq!(output, b"ready");
}

/// Evidence of an end is not room for a start.
pub async fn launching_again_after_the_end_does_not_run_it_again(
    place: impl ContainerServicePlace,
) {
    let service = place.open().await;
    let script = Script::Print { stdout: "once", stderr: "" };
    let (start, _) = launch(&place, &*service, &script).await;
    finished(&*service, &start).await;
    for _ in 0..2 {
        let spec = place.spec(&script, start.execution);
        let launched = service.launch(&start.place, spec, EPOCH).await.expect("a launch");
        assert!(matches!(launched, Launched::Running(_)), "{launched:?}");
        assert_eq!(exited(&*service, &start).await, Outcome::Exited { code: 0 });
    }
    let output = place.output(start.execution, &start.place, usize::MAX).await;
    assert_eq!(output, b"once");
}

/// A place alone is nothing to wait for.
pub async fn nothing_is_attached_before_a_launch_or_adoption(place: impl ContainerServicePlace) {
    let service = place.open().await;
    let start = prepare(&*service).await;
    let (execution, at) = (start.execution, &start.place);
    let answers = [
        service.exited(execution, at).await.err(),
        service.finished(execution, at).await.err(),
        service.stop(execution, at, stop_request(GRACE)).await.err(),
    ];
    for answer in answers {
        assert!(
            matches!(answer, Some(ContainerServiceError::NotAttached { execution: id }) if id == execution),
            "{answer:?}"
        );
    }
}

/// A deadline is an outcome of its own.
pub async fn the_total_deadline_fires(place: impl ContainerServicePlace) {
    let service = place.open().await;
    let start = prepare(&*service).await;
    let mut spec = place.spec(&Script::IgnoreTerm, start.execution);
    (spec.total, spec.grace) = (Some(Duration::from_millis(200)), Duration::from_millis(50));
    service.launch(&start.place, spec, EPOCH).await.expect("a launch");
    assert_eq!(exited(&*service, &start).await, Outcome::TimedOut { limit: Deadline::Total });
    assert_eq!(place.alive(start.execution).await, 0);
}

/// Silence is a reason.
pub async fn the_idle_deadline_fires(place: impl ContainerServicePlace) {
    let service = place.open().await;
    let start = prepare(&*service).await;
    let mut spec = place.spec(&Script::Forever, start.execution);
    (spec.idle, spec.total) = (Some(Duration::from_millis(300)), Some(LONG));
    service.launch(&start.place, spec, EPOCH).await.expect("a launch");
    assert_eq!(exited(&*service, &start).await, Outcome::TimedOut { limit: Deadline::Idle });
}

/// Nobody needs to watch for a deadline to hold.
pub async fn a_deadline_fires_without_a_host(place: impl ContainerServicePlace) {
    let service = place.open().await;
    let start = prepare(&*service).await;
    let mut spec = place.spec(&Script::Forever, start.execution);
    spec.total = Some(Duration::from_millis(300));
    service.launch(&start.place, spec, EPOCH).await.expect("a launch");
    drop(service);
    place.output(start.execution, &start.place, usize::MAX).await;
    let service = place.open().await;
    let outcome = match adopt(&*service, &start, EPOCH).await {
        Adoption::Ended(report) => report.exit.outcome,
        Adoption::Running { .. } => exited(&*service, &start).await,
        other => panic!("{other:?}"),
    };
    assert_eq!(outcome, Outcome::TimedOut { limit: Deadline::Total });
}

/// Whoever was superseded has no say.
pub async fn an_older_epoch_neither_stops_nor_adopts(place: impl ContainerServicePlace) {
    let old = place.open().await;
    let (start, _) = launch(&place, &*old, &Script::Forever).await;
    ready(&place, &start).await;
    let new = place.open().await;
    assert!(matches!(adopt(&*new, &start, Epoch(2)).await, Adoption::Running { .. }));
    let (execution, at) = (start.execution, &start.place);
    let refused = old.stop(execution, at, stop_request(GRACE)).await;
    let superseded = |error: &ContainerServiceError| {
        matches!(error, ContainerServiceError::Superseded { held: EPOCH })
    };
    assert!(refused.as_ref().is_err_and(superseded), "{refused:?}");
    let refused = place.open().await.adopt(execution, at, EPOCH).await;
    assert!(refused.as_ref().is_err_and(superseded), "{refused:?}");
    assert_ne!(place.alive(execution).await, 0);
    let request = StopRequest { epoch: Epoch(2), ..stop_request(GRACE) };
    new.stop(execution, at, request).await.expect("an accepted stop");
    assert_eq!(exited(&*new, &start).await, STOPPED);
}

/// A natural exit takes its children along, and stays natural.
pub async fn what_it_leaves_is_ended_before_the_final_report(place: impl ContainerServicePlace) {
    leftovers(&place, &Script::LeaveChild).await;
}

/// A session of its own is no hiding place.
pub async fn an_escapee_is_ended_before_the_final_report(place: impl ContainerServicePlace) {
    leftovers(&place, &Script::LeaveEscapee).await;
}

async fn leftovers(place: &impl ContainerServicePlace, script: &Script) {
    let service = place.open().await;
    let (start, _) = launch(place, &*service, script).await;
    let report = finished(&*service, &start).await;
    assert_eq!(report.exit.outcome, Outcome::Exited { code: 0 });
    assert_eq!((report.survivors.len(), report.more_survivors), (0, 0));
    assert_eq!(place.alive(start.execution).await, 0);
}

/// What is left over is found, and what is removed is gone.
pub async fn places_are_listed_until_they_are_discarded(place: impl ContainerServicePlace) {
    let service = place.open().await;
    let (ran, _) = launch(&place, &*service, &Script::Exit(0)).await;
    finished(&*service, &ran).await;
    let unused = prepare(&*service).await;
    drop(service);
    let service = place.open().await;
    let mut listed = service.places().await.expect("a list");
    listed.sort_by_key(|(execution, _)| *execution);
    let mut expected = vec![(ran.execution, ran.place), (unused.execution, unused.place)];
    expected.sort_by_key(|(execution, _)| *execution);
    assert_eq!(listed, expected);
    for (execution, place) in &expected {
        service.discard(*execution, place).await.expect("a removal");
        service.discard(*execution, place).await.expect("nothing to remove");
    }
    assert_eq!(service.places().await.expect("a list"), []);
}

/// Evidence of what runs stays.
pub async fn a_place_in_use_is_not_discarded(place: impl ContainerServicePlace) {
    let service = place.open().await;
    let (start, _) = launch(&place, &*service, &Script::Forever).await;
    ready(&place, &start).await;
    assert!(service.discard(start.execution, &start.place).await.is_err());
    stop(&*service, &start, GRACE).await;
    assert_eq!(exited(&*service, &start).await, STOPPED);
}

/// There is some.
pub async fn room_is_measured(place: impl ContainerServicePlace) {
    let room = place.open().await.room().await.expect("a measure");
    assert_ne!(room.free_bytes, 0);
}

/// None is mistaken for another.
pub async fn fifty_run_at_once(place: impl ContainerServicePlace) {
    let service = place.open().await;
    let runs = (0..50_u8).map(|code| {
        let (place, service) = (&place, Arc::clone(&service));
        async move {
            let (start, _) = launch(place, &*service, &Script::Exit(code)).await;
            (code, finished(&*service, &start).await.exit.outcome)
        }
    });
    for (code, outcome) in futures::future::join_all(runs).await {
        assert_eq!(outcome, Outcome::Exited { code });
    }
}
