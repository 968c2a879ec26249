//! `dev`: servers beside the chain, with ports of their own.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use rustix::process::Signal;
use serde_json::Value;
use windlass_tests::isolated;
use windlass_tests::repo::TempRepo;
use windlass_tests::sandbox::Sandbox;

use super::{kill_host, run_script, schemas, show, with_repo};

/// Serves its directory on the first of its ports.
const SERVE: &str = "exec python3 -m http.server --bind 127.0.0.1 $WINDLASS_PORT_BASE";

/// A sandbox whose attempts have ports from `first` on, which no other test uses, and an attempt whose chain is over.
fn with_attempt(first: u16, agent: &str) -> (Sandbox, TempRepo, String) {
    let (sandbox, repo) = with_repo();
    sandbox.run(["config", "set", "ports.first", &first.to_string()]).expect(0);
    sandbox.run(["config", "set", "ports.blocks", "2"]).expect(0);
    run_script(&sandbox, &repo, &[], agent).expect(0);
    let id = newest(&sandbox);
    (sandbox, repo, id)
}

fn newest(sandbox: &Sandbox) -> String {
    let view = sandbox.run(["ls", "--json"]).expect(0).json_lines().remove(0);
    view["id"].as_str().unwrap().to_owned()
}

/// Starts a dev server in the background and returns its id when it listens.
fn serve(sandbox: &Sandbox, attempt: &str, flags: &[&str]) -> String {
    let arguments = ["dev", attempt, "-d", "--ready-port", "+0", "--shell", SERVE];
    let ran = sandbox.run([&arguments, flags].concat()).expect(0);
    assert!(ran.stderr.contains("windlass: ready: http://localhost:"), "{}", ran.stderr);
    ran.text().trim().to_owned()
}

fn port(view: &Value) -> u16 {
    u16::try_from(view["port_base"].as_u64().unwrap()).unwrap()
}

/// Asks a server of an attempt for a file.
fn fetch(sandbox: &Sandbox, attempt: &str, file: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port(&show(sandbox, attempt)))).unwrap();
    write!(stream, "GET /{file} HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// Waits for the end of an execution without minding how it ended.
fn wait(sandbox: &Sandbox, id: &str) -> Value {
    let _code = sandbox.run(["wait", id]);
    show(sandbox, id)
}

isolated! {
    fn it_serves_beside_the_chain_until_its_attempt_is_stopped() {
        let (sandbox, _repo, attempt) = with_attempt(21_000, "cat >> heard; echo here > page");
        let server = serve(&sandbox, &attempt, &[]);
        assert!(fetch(&sandbox, &attempt, "page").ends_with("\r\n\r\nhere\n"));
        let view = show(&sandbox, &server);
        schemas().assert("execution.json", &view);
        assert_eq!((&view["run_reason"], &view["status"], &view["timeout_ms"]), (&"dev_server".into(), &"running".into(), &Value::Null));
        let whole = show(&sandbox, &attempt);
        schemas().assert("attempt.json", &whole);
        assert_eq!(whole["status"], "finished");
        // Messages do not wait for it.
        sandbox.run(["send", &attempt, "go on"]).expect(0);
        let chain = show(&sandbox, &attempt)["executions"][0].as_str().unwrap().to_owned();
        sandbox.run(["wait", &chain]).expect(0);
        assert!(fetch(&sandbox, &attempt, "heard").ends_with("go on\n"));
        sandbox.run(["stop", &attempt]).expect(0);
        assert_eq!(show(&sandbox, &server)["status"], "killed");
        assert!(TcpStream::connect(("127.0.0.1", port(&whole))).is_err());
        assert_eq!(show(&sandbox, &attempt)["status"], "finished");
    }

    fn everything_in_an_attempt_has_the_same_ports_and_no_other_attempt_has_them() {
        let (sandbox, repo, first) = with_attempt(21_020, "echo $WINDLASS_PORT_BASE > port");
        let base = port(&show(&sandbox, &first));
        assert!([21_020, 21_030].contains(&base), "{base}");
        let read = |id: &str| sandbox.run(["exec", id, "--shell", "cat port; echo $WINDLASS_PORT_BASE"]).expect(0).text().to_owned();
        assert_eq!(read(&first), format!("{base}\n{base}\n"));
        run_script(&sandbox, &repo, &[], "true").expect(0);
        let second = newest(&sandbox);
        assert_eq!(port(&show(&sandbox, &second)), 42_050 - base, "the other one");
        // The next host knows, and a worktree that is made again has them again.
        sandbox.run(["rm", &first]).expect(0);
        sandbox.run(["host", "stop"]).expect(0);
        assert_eq!(read(&first), format!("{base}\n{base}\n"));
        let listed = sandbox.run(["ls", "--json"]).expect(0).json_lines();
        assert!(listed.iter().any(|view| view["port_base"] == base), "{listed:?}");
        let own = sandbox.run(["run", "--dir", "/", "--env", "WINDLASS_PORT_BASE=1", "--", "true"]);
        own.expect(120);
    }

    fn an_attempt_has_one_and_another_takes_its_place_when_it_is_dead() {
        let (sandbox, _repo, attempt) = with_attempt(21_040, "echo here > page");
        let first = serve(&sandbox, &attempt, &[]);
        let refused = sandbox.run(["dev", &attempt, "-d", "--json", "--", "true"]).expect(122);
        let error = refused.error();
        assert_eq!(error["error"]["kind"], "dev_server_runs");
        assert!(error["error"]["hint"].as_str().unwrap().contains("--replace"), "{error}");
        let second = serve(&sandbox, &attempt, &["--replace"]);
        assert_eq!((&show(&sandbox, &first)["status"], &show(&sandbox, &second)["status"]), (&"killed".into(), &"running".into()));
        // A removal needs no force for it, and the next one makes the worktree again.
        sandbox.run(["rm", &attempt]).expect(0);
        assert_eq!(show(&sandbox, &second)["status"], "killed");
        serve(&sandbox, &attempt, &[]);
        assert!(fetch(&sandbox, &attempt, "page").ends_with("here\n"));
        sandbox.run(["retry", &attempt]).expect(0);
        assert!(sandbox.run(["ps", "--json"]).expect(0).json_lines().iter().all(|view| view["run_reason"] != "dev_server"));
    }

    fn a_line_says_that_it_is_ready_however_it_is_written() {
        let (sandbox, _repo, attempt) = with_attempt(21_060, "true");
        let script = "printf 'liste'; sleep 0.2; printf 'ning on 7'; sleep 0.2; echo 0; exec sleep 1000";
        let mut server = sandbox.start(["dev", &attempt, "--ready-pattern", "listening on [0-9]", "--shell", script]);
        assert!(server.error_line().unwrap().contains("x-"));
        assert_eq!(server.error_line().as_deref(), Some("windlass: ready: listening on 7"));
        assert_eq!(server.line().as_deref(), Some("listening on 70"));
        server.signal(Signal::INT);
        let left = server.wait();
        assert!(left.stderr.contains("runs on"), "{left:?}");
        sandbox.run(["stop", &attempt]).expect(0);
    }

    fn one_that_ends_before_it_is_ready_is_an_error_with_what_it_said() {
        let (sandbox, _repo, attempt) = with_attempt(21_080, "true");
        for (how, code) in [("-d", 122), ("--on-interrupt=detach", 7)] {
            let failed = sandbox.run(["dev", &attempt, how, "--ready-port", "+0", "--shell", "echo no port >&2; exit 7"]).expect(code);
            assert!(failed.stderr.contains("ended before it was ready"), "{failed:?}");
            assert!(failed.stderr.contains("no port"), "{failed:?}");
        }
        // Whoever says nothing and ends well was not ready either.
        let failed = sandbox.run(["dev", &attempt, "--ready-pattern", "x", "--", "true"]).expect(1);
        assert!(failed.stderr.contains("ended before it was ready"), "{failed:?}");
        assert_eq!(show(&sandbox, &attempt)["status"], "finished");
    }

    fn one_that_is_not_ready_in_time_is_left_running() {
        let (sandbox, _repo, attempt) = with_attempt(21_100, "true");
        let late = sandbox.run(["dev", &attempt, "-d", "--json", "--ready-port", "+1", "--ready-timeout", "300ms", "--shell", SERVE]).expect(119);
        let error = late.error();
        assert_eq!(error["error"]["kind"], "not_ready");
        assert!(error["error"]["message"].as_str().unwrap().contains("port"), "{error}");
        let running = sandbox.run(["ps", "--json"]).expect(0).json_lines();
        assert_eq!(running[0]["run_reason"], "dev_server");
        sandbox.run(["stop", &attempt]).expect(0);
        for wrong in [["--ready-timeout", "1s"], ["--ready-pattern", "("], ["--ready-port", "0"]] {
            sandbox.run([&["dev", &attempt, "-d"], wrong.as_slice(), &["--", "true"]].concat()).expect(120);
        }
        assert!(sandbox.run(["ps", "--json"]).expect(0).json_lines().is_empty(), "nothing was started for them");
    }

    fn without_a_command_the_script_of_the_project_runs() {
        let (sandbox, repo) = with_repo();
        sandbox.run_in(repo.path(), ["project", "add", "--name", "app"]).expect(0);
        let task = sandbox.run(["task", "add", "Do it", "-p", "app"]).expect(0).text().trim().to_owned();
        sandbox.run(["run", "--task", &task, "--", "true"]).expect(0);
        let attempt = newest(&sandbox);
        let none = sandbox.run(["dev", &attempt, "--json"]).expect(122);
        assert_eq!(none.error()["error"]["kind"], "no_dev_script");
        sandbox.run(["project", "set", "app", "--dev", "echo from the project"]).expect(0);
        assert_eq!(sandbox.run(["dev", &attempt]).expect(0).text(), "from the project\n");
        // One that belongs to no task has the project of its repository.
        run_script(&sandbox, &repo, &[], "true").expect(0);
        assert_eq!(sandbox.run(["dev", &newest(&sandbox)]).expect(0).text(), "from the project\n");
    }

    fn the_next_host_adopts_it() {
        let (sandbox, _repo, attempt) = with_attempt(21_120, "echo here > page");
        sandbox.run(["config", "set", "limits.dev_servers", "1"]).expect(0);
        sandbox.run(["host", "stop"]).expect(0);
        let server = serve(&sandbox, &attempt, &[]);
        kill_host(&sandbox);
        assert!(fetch(&sandbox, &attempt, "page").ends_with("here\n"));
        // It counts for the limit that dev servers have, and for no other.
        let other = ["run", "--dir", sandbox.path().to_str().unwrap(), "--", "true"].map(str::to_owned);
        sandbox.run(&other).expect(0);
        let there = newest(&sandbox);
        let refused = sandbox.run(["dev", &there, "--no-queue", "--json", "--", "true"]).expect(122);
        assert_eq!(refused.error()["error"]["kind"], "limit_executions");
        // Ready is ready, for whoever asks later, too.
        kill_host(&sandbox);
        let again = serve(&sandbox, &attempt, &["--replace"]);
        assert_eq!(wait(&sandbox, &server)["status"], "killed");
        sandbox.run(["stop", &again]).expect(0);
    }
}
