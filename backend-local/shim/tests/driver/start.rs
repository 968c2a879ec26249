//! From the launch message to the first instruction of the program, or to the reason why there is none.

use std::fs::{self, File};
use std::process::Stdio;

use windlass_core::execution::ExecStep;
use windlass_core::id::{Epoch, Nonce};
use windlass_core::outcome::{Exit, NotStarted, Outcome};
use windlass_core::shim::frame::Stream;
use windlass_core::shim::journal::Record;
use windlass_core::shim::message::{Launch, Notice, Request};

use crate::place::{command, hear, say, stop};
use crate::{Place, script};

#[track_caller]
fn check_exit(launch: Launch, outcome: Outcome, exit: Exit) {
    let place = Place::new();
    let mut host = place.launch(launch);
    let started = host.started();
    assert_eq!(place.journal().started(), Some(&started));
    let report = host.exited();
    assert_eq!((report.outcome, report.exit), (outcome, Some(exit)));
    assert_eq!(host.finished().exit, report);
}

#[track_caller]
fn check_refusal(launch: Launch, step: ExecStep, errno: i32, reason: NotStarted) {
    let place = Place::new();
    let mut host = place.launch(launch);
    let failure = host.exec_failed();
    assert_eq!((failure.step, failure.errno), (step, errno as u32));
    let report = host.finished();
    assert_eq!(report.exit.outcome, Outcome::NotStarted { reason });
    assert_eq!(place.journal().exec_failed(), Some(&failure));
}

#[test]
fn a_code_comes_back_as_it_was() {
    check_exit(command(&["true"]), Outcome::Exited { code: 0 }, Exit::Code(0));
    check_exit(script("exit 42"), Outcome::Exited { code: 42 }, Exit::Code(42));
}

#[test]
fn a_death_by_signal_is_no_code() {
    let segv = script("ulimit -c 0; kill -SEGV $$");
    check_exit(segv, Outcome::Signaled { signal: 11 }, Exit::Signal(11));
}

#[test]
fn the_journal_has_the_whole_story_in_order() {
    let place = Place::new();
    place.launch(script("exit 3")).finished();
    let journal = place.journal();
    assert!(matches!(
        journal.records[..],
        [Record::Started(_), Record::Exited(_), Record::Final(_)]
    ));
    let exited = journal.exited().unwrap();
    assert_eq!((exited.wait_status, exited.after_our_signal), (3 << 8, false));
    let started = journal.started().unwrap();
    assert_eq!(started.group, started.pid);
    assert!(started.start_ticks >= started.shim_start_ticks);
}

#[test]
fn a_program_that_is_not_there_is_told_from_one_that_may_not_run() {
    let (exec, missing) = (ExecStep::Exec, NotStarted::ProgramNotFound);
    check_refusal(command(&["no-such-program"]), exec, libc::ENOENT, missing);
    check_refusal(command(&["/no/such/program"]), exec, libc::ENOENT, missing);
    check_refusal(command(&[""]), exec, libc::ENOENT, missing);
    check_refusal(command(&["/etc/passwd"]), exec, libc::EACCES, NotStarted::NotExecutable);
    check_refusal(command(&["/bin"]), exec, libc::EACCES, NotStarted::NotExecutable);
}

#[test]
fn a_script_whose_interpreter_is_missing_is_there_but_cannot_run() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let path = place.path("lost");
    fs::write(&path, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let program = command(&[path.to_str().unwrap()]);
    check_refusal(program, ExecStep::Interpreter, libc::ENOENT, NotStarted::NotExecutable);
}

#[test]
fn a_directory_that_is_gone_is_told_before_anything_is_forked() {
    let gone = Launch { cwd: b"/no/such/directory".to_vec(), ..command(&["true"]) };
    check_refusal(gone, ExecStep::Directory, libc::ENOENT, NotStarted::DirectoryGone);
    let file = Launch { cwd: b"/etc/passwd".to_vec(), ..command(&["true"]) };
    check_refusal(file, ExecStep::Directory, libc::ENOTDIR, NotStarted::DirectoryGone);
    let place = Place::new();
    let gone = Launch { cwd: b"/no/such/directory".to_vec(), ..command(&["true"]) };
    place.launch(gone).finished();
    assert_eq!(place.journal().started(), None);
}

#[test]
fn a_launch_that_is_not_whole_starts_nothing() {
    let touched = Place::new();
    let launch = Request::Launch(Box::new(script(&format!("touch {}", touched.scratch()))));
    let bytes = launch.encode();
    for cut in [0, 3, 4, 5, 60, bytes.len() - 1] {
        let place = Place::new();
        let mut host = place.start(Stdio::null());
        host.mutter(&bytes[..cut]);
        host.hang_up();
        assert!(!host.left().success());
        assert!(place.journal().is_untouched(), "{cut}");
    }
    assert!(!touched.path("scratch").exists());
}

#[test]
fn another_start_is_none_of_its_business() {
    let place = Place::new();
    let other = Launch { nonce: Nonce(uuid::Uuid::from_u128(77)), ..command(&["true"]) };
    let mut host = place.launch(other);
    assert_eq!(host.hear(), None);
    assert!(!host.left().success());
    assert!(place.journal().is_untouched());
}

#[test]
fn a_second_shim_leaves_at_once_and_a_later_one_too() {
    let place = Place::new();
    let mut first = place.launch(script("sleep 300"));
    first.started();
    let mut second = place.launch(script("exit 9"));
    assert_eq!(second.hear(), None);
    assert!(!second.left().success());
    first.stop(0);
    first.finished();
    let before = place.journal();
    let mut third = place.launch(script("exit 9"));
    assert_eq!(third.hear(), None);
    assert_eq!(place.journal(), before);
}

#[test]
fn the_command_gets_what_it_was_given_and_nothing_of_the_shim() {
    let place = Place::new();
    let env =
        vec![(b"PATH".to_vec(), b"/usr/bin:/bin".to_vec()), (b"X".to_vec(), b"\xff".to_vec())];
    let text = "env -u PATH -u PWD -u SHLVL -u _ -u READY env; ls /proc/$$/fd; pwd; \
                grep -E 'Sig(Blk|Ign)' /proc/self/status; \
                [ \"$(cut -d' ' -f5 /proc/$$/stat)\" = $$ ] && echo leads";
    let mut host = place.launch(Launch { env, cwd: b"/usr".to_vec(), ..script(text) });
    assert_eq!(host.finished().exit.outcome, Outcome::Exited { code: 0 });
    let output = place.stream(Stream::Stdout);
    let expected = b"X=\xff\n0\n1\n2\n/usr\n\
        SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\nleads\n";
    assert_eq!(String::from_utf8_lossy(&output), String::from_utf8_lossy(expected));
}

#[test]
fn the_command_is_taken_before_its_shim_when_memory_runs_out() {
    let place = Place::new();
    let text = "cat /proc/$$/oom_score_adj; cat /proc/$PPID/oom_score_adj";
    place.launch(script(text)).finished();
    let scores = place.stdout();
    let scores = scores.lines().map(|line| line.parse::<i32>().unwrap()).collect::<Vec<_>>();
    assert!(scores[0] > scores[1] || scores == [1000, 1000], "{scores:?}");
}

#[test]
fn a_repository_stays_locked_until_the_execution_is_over() {
    let place = Place::new();
    let path = place.path("repository.lock");
    let lock = File::create(&path).unwrap();
    lock.lock().unwrap();
    let mut host = place.start(Stdio::from(lock));
    host.say(&Request::Launch(Box::new(script("sleep 300"))));
    let started = host.started();
    let other = File::open(&path).unwrap();
    assert!(other.try_lock().is_err());
    let held = fs::read_dir(format!("/proc/{}/fd", started.pid)).unwrap();
    let held = held.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    assert_eq!(held.filter(|target| *target == path).count(), 1);
    host.stop(0);
    host.finished();
    other.try_lock().unwrap();
}

#[test]
fn megabytes_of_arguments_and_environment_arrive() {
    let place = Place::new();
    let long = "x".repeat(100_000);
    let mut launch = script("printf %s \"$*\" | wc -c; printf %s \"$V9\" | wc -c");
    launch.argv.push(b"sh".to_vec());
    launch.argv.extend((0..5).map(|_| long.as_bytes().to_vec()));
    launch.env.extend((0..10).map(|n| (format!("V{n}").into_bytes(), long.as_bytes().to_vec())));
    place.launch(launch).finished();
    assert_eq!(place.stdout(), "500004\n100000\n");
}

#[test]
fn hosts_are_told_where_it_is_and_older_ones_are_refused() {
    let place = Place::new();
    let mut host = place.launch(script("sleep 300"));
    let started = host.started();
    let (mut other, mut received) = (place.connect(), Vec::new());
    say(&mut other, &Request::Hello { version: 1, epoch: Epoch(4) });
    let heard = hear(&mut other, &mut received);
    let Some(Notice::Welcome(welcome)) = heard else { panic!("{heard:?}") };
    assert_eq!((welcome.epoch, welcome.started), (Epoch(4), Some(started)));
    host.stop(0);
    let refused = Notice::Superseded { epoch: Epoch(4) };
    assert_eq!(host.hear(), Some(refused));
    host.say(&Request::Status);
    assert_eq!(host.welcome().exited, None);
    say(&mut other, &stop(4, 0));
    host.finished();
}
