//! The host: starts by itself, one for a data directory, leaves without taking anything along.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use windlass_tests::isolated;
use windlass_tests::process::{PATIENCE, ended, open, signal};
use windlass_tests::sandbox::Sandbox;

use super::{run_detached, run_until_ready, sandbox, schemas, show, with_repo};

fn host_pid(sandbox: &Sandbox) -> u32 {
    let status = sandbox.run(["host", "status", "--json"]).expect(0).json();
    schemas().assert("host-status.json", &status);
    u32::try_from(status["pid"].as_u64().unwrap()).unwrap()
}

isolated! {
    fn killing_the_host_in_the_middle_changes_nothing() {
        let (sandbox, repo) = with_repo();
        let fifo = sandbox.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
        let script = format!("echo before; cat {}; echo made > new; exit 0", fifo.display());
        let id = run_detached(&sandbox, &repo, &[], &script);
        let mut follower = sandbox.start(["logs", "-f", &id]);
        assert_eq!(follower.line().as_deref(), Some("before"));
        drop(follower);

        let host = open(host_pid(&sandbox)).unwrap();
        signal(&host, rustix::process::Signal::KILL).unwrap();
        assert!(ended(&host, PATIENCE).unwrap());
        // Written while no host lives.
        fs::write(&fifo, "between\n").unwrap();

        sandbox.run(["wait", &id]).expect(0);
        assert_eq!(sandbox.run(["logs", &id, "--raw"]).expect(0).text(), "before\nbetween\n");
        let execution = show(&sandbox, &id);
        let committed = execution["committed"].as_str().unwrap_or_else(|| panic!("{execution:#}"));
        assert_eq!(repo.git(["show", &format!("{committed}:new")]), "made");
    }

    fn a_deadline_holds_while_no_host_lives() {
        let (sandbox, repo) = with_repo();
        let script = "echo $$ > pid; echo ready; exec sleep 1000";
        let id = run_detached(&sandbox, &repo, &["--timeout", "1s"], script);
        let mut follower = sandbox.start(["logs", "-f", &id]);
        assert_eq!(follower.line().as_deref(), Some("ready"));
        let worktree = sandbox.run(["path", &id]).expect(0).text().trim().to_owned();
        let command = open(fs::read_to_string(format!("{worktree}/pid")).unwrap().trim().parse().unwrap()).unwrap();
        let host = open(host_pid(&sandbox)).unwrap();
        signal(&host, rustix::process::Signal::KILL).unwrap();
        assert!(ended(&host, PATIENCE).unwrap());
        assert!(ended(&command, PATIENCE).unwrap(), "the deadline did not hold");
        sandbox.run(["wait", &id]).expect(124);
    }

    fn a_host_that_leaves_takes_nothing_along() {
        let (sandbox, repo) = with_repo();
        let id = run_until_ready(&sandbox, &repo);
        let first = host_pid(&sandbox);
        let host = open(first).unwrap();
        sandbox.run(["host", "stop"]).expect(0);
        assert!(ended(&host, PATIENCE).unwrap());
        assert_eq!(show(&sandbox, &id)["status"], "running");
        assert_ne!(host_pid(&sandbox), first);
        sandbox.run(["stop", &id]).expect(0);
    }

    fn a_terminated_host_drains_and_takes_nothing_along() {
        let (sandbox, repo) = with_repo();
        let id = run_until_ready(&sandbox, &repo);
        let host = open(host_pid(&sandbox)).unwrap();
        signal(&host, rustix::process::Signal::TERM).unwrap();
        assert!(ended(&host, PATIENCE).unwrap());
        assert_eq!(show(&sandbox, &id)["status"], "running");
    }

    fn a_second_host_is_refused() {
        let (sandbox, repo) = with_repo();
        run_detached(&sandbox, &repo, &[], "exec sleep 1000");
        let ran = sandbox.run(["host", "run", "--json"]).expect(4);
        let error = ran.error();
        schemas().assert("error.json", &error);
        assert!(error["error"]["hint"].is_string(), "{error}");
    }

    fn a_host_is_not_started_from_inside_an_execution() {
        let (sandbox, repo) = with_repo();
        let other = sandbox.path().join("other");
        let program = env!("CARGO_BIN_EXE_windlass-under-test");
        let script = format!("{program} --data-dir {} ps; echo $?", other.display());
        let ran = super::run_script(&sandbox, &repo, &[], &script).expect(0);
        assert_eq!(ran.text(), "5\n", "{}", ran.stderr);
    }

    fn without_a_host_and_without_leave_to_start_one_there_is_no_answer() {
        let sandbox = sandbox();
        let ran = sandbox.run(["ps", "--no-start", "--json"]).expect(5);
        schemas().assert("error.json", &ran.error());
        sandbox.run(["host", "status", "--no-start"]).expect(5);
    }

    fn starting_many_at_once_gives_one_host() {
        let sandbox = sandbox();
        let clients: Vec<_> = (0..16).map(|_| sandbox.start(["host", "status", "--json"])).collect();
        sandbox.run(["ps"]).expect(0);
        let pid = host_pid(&sandbox);
        for client in clients {
            // One that asked before there was a host is told so.
            let ran = client.wait();
            assert!(ran.code == Some(5) || u64::from(pid) == ran.json()["pid"], "{ran:?}");
        }
        let started: Vec<_> = (0..16).map(|_| sandbox.start(["ps"])).collect();
        assert!(started.into_iter().all(|client| client.wait().code == Some(0)));
        assert_eq!(host_pid(&sandbox), pid);
    }

    fn a_repeated_start_race_has_one_winner() {
        let sandbox = sandbox();
        let clients: Vec<_> = (0..16).map(|_| sandbox.start(["ps"])).collect();
        for client in clients {
            let ran = client.wait();
            assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        }
    }

    fn a_data_directory_with_a_long_path_or_odd_names_works() {
        let repo = windlass_tests::repo::TempRepo::with_commit();
        for name in ["x".repeat(250), "mit Räumen und ünïcode".to_owned()] {
            let sandbox = sandbox();
            let data = sandbox.path().join(&name).join("y".repeat(60));
            let data = data.to_str().unwrap();
            let ran = sandbox.run_in(repo.path(), ["--data-dir", data, "run", "--", "echo", "here"]).expect(0);
            assert_eq!(ran.text(), "here\n");
        }
    }

    fn events_number_everything_that_changed() {
        let (sandbox, repo) = with_repo();
        let id = run_detached(&sandbox, &repo, &[], "true");
        sandbox.run(["wait", &id]).expect(0);
        let events = sandbox.run(["events", "--json"]).expect(0).json_lines();
        events.iter().for_each(|event| schemas().assert("change.json", event));
        let numbers: Vec<u64> = events.iter().map(|event| event["number"].as_u64().unwrap()).collect();
        assert!(!numbers.is_empty() && numbers.is_sorted(), "{numbers:?}");
        let middle = numbers[numbers.len() / 2];
        let rest = sandbox.run(["events", "--json", "--after", &middle.to_string()]).expect(0).json_lines();
        assert_eq!(rest, events.iter().filter(|event| event["number"].as_u64().unwrap() > middle).cloned().collect::<Vec<_>>());
    }

    fn the_doctor_finds_a_healthy_machine_healthy() {
        let sandbox = sandbox();
        let ran = sandbox.run(["doctor", "--json"]).expect(0);
        ran.json_lines().iter().for_each(|check| schemas().assert("check.json", check));
        sandbox.run(["ps"]).expect(0);
        sandbox.run(["doctor"]).expect(0);
        sandbox.run(["host", "stop"]).expect(0);
        fs::set_permissions(sandbox.data_dir(), fs::Permissions::from_mode(0o777)).unwrap();
        let checks = sandbox.run(["doctor", "--json"]).expect(0).json_lines();
        let directory = checks.iter().find(|check| check["name"] == "data directory").unwrap();
        assert!(directory["status"] == "warning" && directory["hint"].is_string(), "{directory}");

        let mut without_git = sandbox.command(["doctor", "--json"]);
        let checks = windlass_tests::sandbox::run(without_git.env("PATH", sandbox.path())).expect(1).json_lines();
        let git = checks.iter().find(|check| check["name"] == "git").unwrap();
        assert!(git["status"] == "failed" && git["hint"].is_string(), "{git}");
    }

    fn settings_are_kept_and_checked() {
        let sandbox = sandbox();
        sandbox.run(["config", "set", "limits.per_host", "7"]).expect(0);
        assert_eq!(sandbox.run(["config", "get", "limits.per_host"]).expect(0).text(), "7\n");
        sandbox.run(["config", "unset", "limits.per_host"]).expect(0);
        assert_eq!(sandbox.run(["config", "get", "limits.per_host"]).expect(0).text(), "32\n");
        sandbox.run(["config", "set", "limits.per_host", "many"]).expect(2);
        sandbox.run(["config", "get", "no.such.setting"]).expect(3);
    }

    fn nothing_is_started_below_the_floor_of_free_disk_space() {
        let (sandbox, repo) = with_repo();
        sandbox.run(["config", "set", "disk_floor_bytes", &u64::MAX.to_string()]).expect(0);
        let error = super::run_script(&sandbox, &repo, &["--json"], "true").expect(122).error();
        assert_eq!(error["error"]["kind"], "disk_floor", "{error}");
        sandbox.run(["host", "stop"]).expect(0);
        sandbox.run(["config", "set", "disk_floor_bytes", "0"]).expect(0);
        super::run_script(&sandbox, &repo, &[], "true").expect(0);
        let shown = sandbox.run(["config"]).expect(0);
        assert!(shown.text().contains("runs without an owner"), "{}", shown.text());
    }

    fn completion_scripts_name_the_verbs() {
        let sandbox = sandbox();
        for shell in ["bash", "zsh", "fish"] {
            assert!(sandbox.run(["util", "completion", shell]).expect(0).text().contains("exec"), "{shell}");
        }
        assert!(!sandbox.data_dir().exists(), "a completion script needs no data directory");
    }
}
