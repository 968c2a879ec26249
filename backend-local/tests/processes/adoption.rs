//! The rows of the adoption matrix, for real.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use windlass_conformance::container_service::{ContainerServicePlace as _, Script};
use windlass_conformance::script::{fresh_execution, fresh_nonce};
use windlass_core::container_service::{
    Adoption, ContainerService, Launched, Place, StopCause, StopRequest,
};
use windlass_core::execution::FinalReport;
use windlass_core::id::{Epoch, ExecutionId};
use windlass_core::outcome::{Exit, Lost, NotStarted, Outcome, StoppedBy};
use windlass_core::shim::journal::{Record, Started};
use windlass_local::{LocalContainers, LocalOptions, Provenance};

use crate::place::{Local, is_alive, kill, marked, path_of, read_journal};

/// One launched execution.
pub(crate) struct Run {
    pub(crate) execution: ExecutionId,
    pub(crate) place: Place,
}

impl Run {
    /// Launches a script and waits until it says that it is ready.
    pub(crate) async fn ready(local: &Local, service: &LocalContainers, script: &Script) -> Self {
        let execution = fresh_execution();
        let place = service.prepare(execution, fresh_nonce()).await.unwrap();
        let spec = local.spec(script, execution);
        let launched = service.launch(&place, spec, Epoch(1)).await.unwrap();
        assert!(matches!(launched, Launched::Running(_)), "{launched:?}");
        local.output(execution, &place, "ready".len()).await;
        Self { execution, place }
    }

    pub(crate) fn started(&self) -> Started {
        read_journal(&self.place).started().unwrap().clone()
    }

    pub(crate) async fn adopt(&self, service: &LocalContainers) -> Adoption {
        service.adopt(self.execution, &self.place, Epoch(1)).await.unwrap()
    }

    /// Adopts what must have ended.
    pub(crate) async fn ended(&self, service: &LocalContainers) -> FinalReport {
        match self.adopt(service).await {
            Adoption::Ended(report) => report,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn stop(&self, service: &LocalContainers, grace: Duration) {
        let cause = StopCause::Stop { by: StoppedBy::User };
        let request = StopRequest { cause, grace, epoch: Epoch(1) };
        service.stop(self.execution, &self.place, request).await.unwrap();
    }

    pub(crate) async fn finished(&self, service: &LocalContainers) -> FinalReport {
        service.finished(self.execution, &self.place).await.unwrap()
    }

    /// Writes the journal again with other records, each as synced as it was.
    fn rewrite(&self, change: impl FnMut(Record) -> Option<Record>) {
        let journal = read_journal(&self.place);
        let mut bytes = journal.header.encode().to_vec();
        let mut at = windlass_core::shim::journal::RECORDS_OFFSET;
        for (number, record) in journal.records.into_iter().filter_map(change).enumerate() {
            let record = record.encode(u8::try_from(number).unwrap());
            bytes[at..at + record.len()].copy_from_slice(&record);
            at += record.len();
        }
        fs::write(path_of(&self.place).join("journal"), bytes).unwrap();
    }

    /// Changes the identity that the journal recorded.
    fn rewrite_started(&self, mut change: impl FnMut(&mut Started)) {
        self.rewrite(|mut record| {
            if let Record::Started(started) = &mut record {
                change(started);
            }
            Some(record)
        });
    }
}

fn lost(reason: Lost) -> Outcome {
    Outcome::Lost { reason }
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

/// Copies a directory as `cp -a` does.
fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

fn open_copy(local: &Local, name: &str, provenance: Provenance) -> Arc<LocalContainers> {
    let runs_dir = local.home().join(name);
    LocalContainers::open(LocalOptions { runs_dir, provenance, ..local.options() }).unwrap()
}

#[tokio::test]
async fn row_0_a_copied_directory_touches_nothing() {
    let local = Local::default();
    let service = local.open();
    let live = Run::ready(&local, &service, &Script::Forever).await;
    let dead = Run::ready(&local, &service, &Script::Forever).await;
    drop(service);
    let (command, shim) = (dead.started().pid, dead.started().shim_pid);
    kill(shim);
    copy(&local.runs(), &local.home().join("copy"));
    let copied = open_copy(&local, "copy", Provenance::InPlace);
    let listed = copied.places().await.unwrap();
    assert_eq!(listed.len(), 2);
    for run in [&live, &dead] {
        let (_, place) = listed.iter().find(|(execution, _)| *execution == run.execution).unwrap();
        for place in [&run.place, place] {
            let run = Run { execution: run.execution, place: place.clone() };
            assert!(matches!(run.adopt(&copied).await, Adoption::Foreign { .. }));
            assert!(copied.discard(run.execution, place).await.is_err());
        }
    }
    assert!(is_alive(command));
    // Moved on purpose, it is read, and still nothing is signalled.
    let moved = open_copy(&local, "copy", Provenance::Moved);
    assert_eq!(dead.ended(&moved).await.exit.outcome, lost(Lost::MachineRestarted));
    assert!(is_alive(command));
    drop((copied, moved));
    let service = local.open();
    assert_eq!(dead.ended(&service).await.exit.outcome, lost(Lost::SupervisorDied));
    assert!(!is_alive(command));
    assert!(matches!(live.adopt(&service).await, Adoption::Running { .. }));
    live.stop(&service, Duration::ZERO).await;
    live.finished(&service).await;
}

#[tokio::test]
async fn row_0_a_place_of_another_machine_is_foreign() {
    let local = Local::default();
    let service = local.open();
    let mut run = Run::ready(&local, &service, &Script::Forever).await;
    let place = run.place.clone();
    let mut fields: Vec<String> = place.identity.split(' ').map(str::to_owned).collect();
    fields[1] = uuid::Uuid::from_u128(1).simple().to_string();
    run.place.identity = fields.join(" ");
    let next = local.open();
    assert!(matches!(run.adopt(&next).await, Adoption::Foreign { .. }));
    run.place = place;
    run.stop(&service, Duration::ZERO).await;
    run.finished(&service).await;
}

#[tokio::test]
async fn row_1_what_runs_without_readable_evidence_is_swept_and_lost() {
    let newer = |journal: &Path| {
        let mut bytes = fs::read(journal).unwrap();
        bytes[8] = 2;
        let crc = 128 - 4;
        let sum = crc32fast::hash(&bytes[..crc]);
        bytes[crc..128].copy_from_slice(&sum.to_le_bytes());
        fs::write(journal, bytes).unwrap();
    };
    let damaged = |journal: &Path| {
        let file = fs::OpenOptions::new().write(true).open(journal).unwrap();
        file.write_all_at(b"?", 140).unwrap();
        // A record that says that what is damaged was synced.
        let void = windlass_core::shim::journal::Void {
            epoch: Epoch(1),
            at: windlass_core::time::Timestamp(1),
        };
        file.write_all_at(&Record::Void(void).encode(1), 2000).unwrap();
    };
    let removed = |journal: &Path| fs::remove_file(journal).unwrap();
    let gone = |journal: &Path| fs::remove_dir_all(journal.parent().unwrap()).unwrap();
    type Damage<'a> = (&'a str, &'a dyn Fn(&Path));
    let damages: [Damage<'_>; 4] =
        [("newer", &newer), ("damaged", &damaged), ("removed", &removed), ("gone", &gone)];
    for (name, damage) in damages {
        let local = Local::default();
        let service = local.open();
        let run = Run::ready(&local, &service, &Script::IgnoreTerm).await;
        drop(service);
        let started = run.started();
        kill(started.shim_pid);
        damage(&path_of(&run.place).join("journal"));
        assert!(is_alive(started.pid), "{name}");
        let service = local.open();
        let report = run.ended(&service).await;
        assert_eq!(report.exit.outcome, lost(Lost::EvidenceDamaged), "{name}");
        assert!(!is_alive(started.pid), "{name}");
    }
}

#[tokio::test]
async fn row_3_a_mute_shim_is_left_alone_and_its_command_stopped_on_request() {
    let local = Local::default();
    let service = local.open();
    let run = Run::ready(&local, &service, &Script::Forever).await;
    drop(service);
    let started = run.started();
    signal(started.shim_pid, Signal::STOP);
    let service = local.open();
    assert!(matches!(run.adopt(&service).await, Adoption::Unresponsive { .. }));
    assert!(is_alive(started.pid) && is_alive(started.shim_pid));
    run.stop(&service, Duration::ZERO).await;
    signal(started.shim_pid, Signal::CONT);
    // The shim saw a signal that it did not send.
    let report = run.finished(&*local.adopted(&run).await).await;
    assert_eq!(report.exit.exit, Some(Exit::Signal(9)));
    assert!(marked(run.execution).is_empty());
}

#[tokio::test]
async fn row_3_an_answer_for_another_start_is_left_alone() {
    let local = Local::default();
    let service = local.open();
    let run = Run::ready(&local, &service, &Script::Forever).await;
    let other = Run::ready(&local, &service, &Script::Forever).await;
    drop(service);
    let socket = |run: &Run| path_of(&run.place).join("ctl");
    let aside = local.home().join("aside");
    fs::rename(socket(&run), &aside).unwrap();
    fs::rename(socket(&other), socket(&run)).unwrap();
    let service = local.open();
    let Adoption::Unresponsive { detail } = run.adopt(&service).await else { panic!("answered") };
    assert!(detail.contains(&other.execution.to_string()), "{detail}");
    assert!(is_alive(run.started().pid) && is_alive(other.started().pid));
    fs::rename(socket(&run), socket(&other)).unwrap();
    fs::rename(&aside, socket(&run)).unwrap();
    for run in [run, other] {
        assert!(matches!(run.adopt(&service).await, Adoption::Running { .. }));
        run.stop(&service, Duration::ZERO).await;
        run.finished(&service).await;
    }
}

#[tokio::test]
async fn row_6_an_exit_without_a_final_record_is_the_outcome() {
    for (script, outcome, exit) in [
        (Script::Exit(42), Outcome::Exited { code: 42 }, Some(Exit::Code(42))),
        (Script::MissingProgram, Outcome::NotStarted { reason: NotStarted::ProgramNotFound }, None),
    ] {
        let local = Local::default();
        let service = local.open();
        let execution = fresh_execution();
        let place = service.prepare(execution, fresh_nonce()).await.unwrap();
        let spec = local.spec(&script, execution);
        service.launch(&place, spec, Epoch(1)).await.unwrap();
        let run = Run { execution, place };
        run.finished(&service).await;
        drop(service);
        run.rewrite(|record| (!matches!(record, Record::Final(_))).then_some(record));
        let report = run.ended(&local.open()).await;
        assert_eq!((report.exit.outcome, report.exit.exit), (outcome, exit));
        assert!(!report.output_incomplete);
    }
}

#[tokio::test]
async fn row_6_the_cause_of_a_stop_survives_the_shim() {
    let local = Local::default();
    let service = local.open();
    let run = Run::ready(&local, &service, &Script::Forever).await;
    run.stop(&service, Duration::from_secs(30)).await;
    let before = run.finished(&service).await;
    drop(service);
    run.rewrite(|record| (!matches!(record, Record::Final(_))).then_some(record));
    let report = run.ended(&local.open()).await;
    assert_eq!(report, before);
    assert_eq!(report.exit.outcome, Outcome::Stopped { by: StoppedBy::User });
}

#[tokio::test]
async fn row_8_after_a_restart_of_the_machine_nothing_is_signalled() {
    let local = Local::default();
    let service = local.open();
    let run = Run::ready(&local, &service, &Script::Forever).await;
    drop(service);
    let started = run.started();
    kill(started.shim_pid);
    run.rewrite_started(|started| started.boot = [7; 16]);
    let report = run.ended(&local.open()).await;
    assert_eq!(report.exit.outcome, lost(Lost::MachineRestarted));
    assert_eq!((report.bytes, report.output_incomplete), (5, true));
    assert!(is_alive(started.pid));
    kill(started.pid);
}

#[tokio::test]
async fn row_8_in_another_pid_namespace_nothing_is_concluded() {
    let local = Local::default();
    let service = local.open();
    let run = Run::ready(&local, &service, &Script::Forever).await;
    drop(service);
    let started = run.started();
    kill(started.shim_pid);
    run.rewrite_started(|started| started.pid_namespace += 1);
    let service = local.open();
    assert!(matches!(run.adopt(&service).await, Adoption::Unverifiable { .. }));
    assert!(is_alive(started.pid));
    // Nothing was written either: seen from its own namespace it is what it was.
    run.rewrite_started(|started| started.pid_namespace -= 1);
    assert_eq!(run.ended(&service).await.exit.outcome, lost(Lost::SupervisorDied));
    assert!(!is_alive(started.pid));
}

#[tokio::test]
async fn row_9_a_command_without_a_shim_is_stopped_and_lost() {
    let local = Local::default();
    let service = local.open();
    let run = Run::ready(&local, &service, &Script::IgnoreTerm).await;
    drop(service);
    kill(run.started().shim_pid);
    let report = run.ended(&local.open()).await;
    assert_eq!((report.exit.outcome, report.exit.exit), (lost(Lost::SupervisorDied), None));
    assert!(marked(run.execution).is_empty());
}

#[tokio::test]
async fn row_10_what_an_attached_host_saw_becomes_the_exit() {
    let local = Local::default();
    let service = local.open();
    let run = Run::ready(&local, &service, &Script::UntilReleased(42)).await;
    let started = run.started();
    signal(started.shim_pid, Signal::STOP);
    let watched = pidfd(started.pid);
    local.release(run.execution).await;
    readable(&watched).await;
    kill(started.shim_pid);
    let report = run.finished(&service).await;
    assert_eq!(report.exit.outcome, lost(Lost::SupervisorDied));
    // Kernels before 6.15 do not tell.
    assert!(matches!(report.exit.exit, Some(Exit::Code(42)) | None), "{report:?}");
    let adopted = run.ended(&local.open()).await;
    assert_eq!(adopted.exit.outcome, lost(Lost::SupervisorDied));
    assert_eq!(adopted.exit.exit, None);
}

fn pidfd(pid: u32) -> std::os::fd::OwnedFd {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap()
}

async fn readable(fd: &std::os::fd::OwnedFd) {
    let fd = fd.try_clone().unwrap();
    let wait = move || {
        let mut wait = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut wait, None).unwrap()
    };
    tokio::task::spawn_blocking(wait).await.unwrap();
}

/// Somebody who has nothing to do with any execution, and ends with the test.
struct Bystander(Child);

impl Bystander {
    fn new() -> Self {
        use std::os::unix::process::CommandExt as _;
        let mut command = Command::new("sleep");
        Self(command.arg("600").process_group(0).stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn a_bystander_with_a_recycled_number_is_never_signalled() {
    let local = Local::default();
    let service = local.open();
    let run = Run::ready(&local, &service, &Script::Forever).await;
    drop(service);
    let started = run.started();
    kill(started.shim_pid);
    kill(started.pid);
    let bystander = Bystander::new();
    // The number is the bystander's now, and so are its group's.
    run.rewrite_started(|started| {
        started.pid = bystander.0.id();
        started.group = bystander.0.id();
    });
    let service = local.open();
    let report = run.ended(&service).await;
    assert_eq!(report.exit.outcome, lost(Lost::SupervisorDied));
    assert!(is_alive(bystander.0.id()));
    // Nor is it taken for the shim of a place whose lock somebody holds.
    let lock = fs::File::open(path_of(&run.place).join("lock")).unwrap();
    lock.try_lock().unwrap();
    run.rewrite_started(|started| started.shim_pid = bystander.0.id());
    let service = local.open();
    assert!(matches!(run.adopt(&service).await, Adoption::Unresponsive { .. }));
    run.stop(&service, Duration::ZERO).await;
    assert!(is_alive(bystander.0.id()));
}

impl Local {
    /// Opens the service again and adopts a run.
    async fn adopted(&self, run: &Run) -> Arc<LocalContainers> {
        let service = self.open();
        run.adopt(&service).await;
        service
    }
}
