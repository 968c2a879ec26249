//! What is special about starting: locks, environments, long paths, many at once, and hosts that go away in the midst.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, PidfdFlags, Resource, getrlimit, pidfd_open};
use windlass_conformance::container_service::{ContainerServicePlace as _, Script};
use windlass_conformance::script::{fresh_execution, fresh_nonce};
use windlass_core::container_service::{Adoption, ContainerService as _, LaunchSpec, Launched};
use windlass_core::id::Epoch;
use windlass_core::locator::{Locator, OsBytes};
use windlass_core::outcome::Outcome;
use windlass_local::{LocalContainers, LocalOptions, OpenFiles};

use crate::adoption::Run;
use crate::place::{Local, marked};

#[tokio::test]
async fn the_lock_of_a_repository_is_held_while_the_command_lives() {
    let local = Local::default();
    let service = local.open();
    let repository = local.home().join("repository");
    fs::create_dir(&repository).unwrap();
    let lock = Locator::new(repository.as_os_str().as_bytes());
    let launch = |script: Script| {
        let (service, local, lock) = (Arc::clone(&service), &local, lock.clone());
        async move {
            let execution = fresh_execution();
            let place = service.prepare(execution, fresh_nonce()).await.unwrap();
            let spec = LaunchSpec { repository_lock: Some(lock), ..local.spec(&script, execution) };
            let launched = service.launch(&place, spec, Epoch(1)).await.unwrap();
            assert!(matches!(launched, Launched::Running(_)), "{launched:?}");
            Run { execution, place }
        }
    };
    let first = launch(Script::Forever).await;
    let file = fs::File::open(repository.join("windlass.lock")).unwrap();
    assert!(file.try_lock().is_err());
    let second = launch(Script::Exit(0));
    tokio::pin!(second);
    let waits = futures::poll!(second.as_mut());
    assert!(waits.is_pending());
    assert!(file.try_lock().is_err());
    first.stop(&service, Duration::ZERO).await;
    first.finished(&service).await;
    second.await.finished(&service).await;
    // Nobody is left who could hold it, but for a shim that is about to leave.
    tokio::task::spawn_blocking(move || file.lock()).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_command_gets_its_environment_and_the_shim_none() {
    let local = Local::default();
    let service = local.open();
    let execution = fresh_execution();
    let place = service.prepare(execution, fresh_nonce()).await.unwrap();
    // Not through an exec, during which a process shows no environment.
    let fifo = local.home().join("fifo");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let mut spec =
        local.shell("printf ready; read -r line < \"$1\"", &[&fifo.display().to_string()]);
    spec.execution = execution;
    spec.env.push(("SECRET".into(), OsBytes(b"\xffx".to_vec())));
    service.launch(&place, spec, Epoch(1)).await.unwrap();
    let run = Run { execution, place };
    local.output(execution, &run.place, "ready".len()).await;
    let started = run.started();
    assert_eq!(fs::read(format!("/proc/{}/environ", started.shim_pid)).unwrap(), b"");
    let environ = fs::read(format!("/proc/{}/environ", started.pid)).unwrap();
    let items: Vec<&[u8]> = environ.split(|byte| *byte == 0).collect();
    assert!(items.contains(&b"SECRET=\xffx".as_slice()));
    assert!(marked(execution).contains(&started.pid));
    // Nothing of it is on the disk.
    for file in fs::read_dir(crate::place::path_of(&run.place)).unwrap() {
        let path = file.unwrap().path();
        let bytes = if path.ends_with("ctl") { Vec::new() } else { fs::read(&path).unwrap() };
        assert!(!bytes.windows(6).any(|window| window == b"SECRET"), "{}", path.display());
    }
    run.stop(&service, Duration::ZERO).await;
    run.finished(&service).await;
}

#[test]
fn commands_get_the_limit_of_open_files_that_was_there_before() {
    // In a process of its own: a limit is the process's.
    let test = "launch::raising_the_limit_of_open_files";
    let mut lowered = Command::new("sh");
    lowered.args(["-c", "ulimit -S -n 300 && exec \"$0\" --exact \"$1\" --nocapture"]);
    lowered.arg(std::env::current_exe().unwrap()).arg(test).env("WINDLASS_TEST_LOWERED", "1");
    assert!(lowered.status().unwrap().success());
}

#[tokio::test]
async fn raising_the_limit_of_open_files() {
    let local = Local::default();
    let lowered = std::env::var_os("WINDLASS_TEST_LOWERED").is_some();
    let before = getrlimit(Resource::Nofile);
    let open_files = if lowered { OpenFiles::Raise } else { OpenFiles::Keep };
    let options = LocalOptions { open_files, ..local.options() };
    let service = LocalContainers::open(options).unwrap();
    let now = getrlimit(Resource::Nofile);
    assert_eq!(now.current, if lowered { before.maximum } else { before.current });
    let execution = fresh_execution();
    let place = service.prepare(execution, fresh_nonce()).await.unwrap();
    let spec = LaunchSpec { execution, ..local.shell("ulimit -S -n", &[]) };
    service.launch(&place, spec, Epoch(1)).await.unwrap();
    service.finished(execution, &place).await.unwrap();
    let said = local.output(execution, &place, usize::MAX).await;
    let expected = before.current.map_or("unlimited".to_owned(), |limit| limit.to_string());
    assert_eq!(String::from_utf8(said).unwrap().trim(), expected);
}

#[tokio::test]
async fn a_path_of_any_length_is_launched_and_adopted_in() {
    let local = Local::default();
    let mut runs_dir = local.home().to_owned();
    for name in ["with spaces and ünïcode", &"x".repeat(200), &"y".repeat(200)] {
        runs_dir.push(name);
    }
    let options = LocalOptions { runs_dir, ..local.options() };
    let service = LocalContainers::open(options.clone()).unwrap();
    let execution = fresh_execution();
    let place = service.prepare(execution, fresh_nonce()).await.unwrap();
    let spec = local.spec(&Script::Forever, execution);
    service.launch(&place, spec, Epoch(1)).await.unwrap();
    let run = Run { execution, place };
    drop(service);
    let service = LocalContainers::open(options).unwrap();
    assert!(matches!(run.adopt(&service).await, Adoption::Running { .. }));
    run.stop(&service, Duration::ZERO).await;
    run.finished(&service).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_run_at_once_and_are_adopted() {
    let local = Local::default();
    let service = local.open();
    let runs = join_all((0..200).map(|_| Run::ready(&local, &service, &Script::Forever))).await;
    drop(service);
    let service = local.open();
    let adoptions = join_all(runs.iter().map(|run| run.adopt(&service))).await;
    assert!(adoptions.iter().all(|adoption| matches!(adoption, Adoption::Running { .. })));
    join_all(runs.iter().map(|run| run.stop(&service, Duration::ZERO))).await;
    for report in join_all(runs.iter().map(|run| run.finished(&service))).await {
        assert!(matches!(report.exit.outcome, Outcome::Stopped { .. }), "{report:?}");
    }
}

#[tokio::test]
async fn a_launch_that_is_dropped_is_told_by_adopting() {
    let local = Local::default();
    for moment in 0..30 {
        let service = local.open();
        let execution = fresh_execution();
        let place = service.prepare(execution, fresh_nonce()).await.unwrap();
        let spec = local.spec(&Script::Forever, execution);
        let patience = Duration::from_micros(100 * moment);
        let launch = service.launch(&place, spec, Epoch(1));
        let launched = tokio::time::timeout(patience, launch).await;
        drop(service);
        let run = Run { execution, place };
        let service = local.open();
        match run.adopt(&service).await {
            Adoption::NeverRan => {
                assert!(launched.is_err(), "{launched:?}");
                assert!(marked(execution).is_empty());
            }
            Adoption::Running { .. } => {
                run.stop(&service, Duration::ZERO).await;
                run.finished(&service).await;
            }
            other => panic!("{moment}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_shim_that_has_left_is_reaped() {
    let local = Local::default();
    let service = local.open();
    let run = Run::ready(&local, &service, &Script::UntilReleased(0)).await;
    let pid = Pid::from_raw(i32::try_from(run.started().shim_pid).unwrap()).unwrap();
    let shim: OwnedFd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    local.release(run.execution).await;
    run.finished(&service).await;
    let reaped = move || {
        // Readable when it has ended, hung up when it is reaped; before Linux 6.9 only the former is told.
        poll(&mut [PollFd::new(&shim, PollFlags::IN)], None).unwrap();
        let hup = rustix::fs::fstatfs(&shim).unwrap().f_type == 0x5049_4446;
        if hup {
            poll(&mut [PollFd::new(&shim, PollFlags::empty())], None).unwrap();
        }
    };
    tokio::task::spawn_blocking(reaped).await.unwrap();
}

#[tokio::test]
async fn output_that_nobody_reads_does_not_hold_anything_up() {
    let local = Local::default();
    let service = local.open();
    let execution = fresh_execution();
    let place = service.prepare(execution, fresh_nonce()).await.unwrap();
    let spec = local.shell("head -c 20000000 /dev/zero; echo end >&2", &[]);
    let spec = LaunchSpec { execution, ..spec };
    service.launch(&place, spec, Epoch(1)).await.unwrap();
    let run = Run { execution, place };
    let report = run.finished(&service).await;
    assert_eq!((report.bytes, report.dropped_bytes), (20_000_004, 0));
    let output = local.output(execution, &run.place, usize::MAX).await;
    assert_eq!(output.len(), 20_000_004);
}
