//! `send`: messages that are queued for an attempt, on real commands.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;
use windlass_tests::isolated;
use windlass_tests::process::{PATIENCE, ended, open, signal};
use windlass_tests::sandbox::Sandbox;

use super::{run_detached, run_script, schemas, show, with_repo};

/// A command that appends what it is told to a file.
const AGENT: &str = "cat >> told; echo done";

fn attempt(sandbox: &Sandbox) -> Value {
    let view = sandbox.run(["ls", "-a", "--json"]).expect(0).json_lines().remove(0);
    schemas().assert("attempt.json", &view);
    show(sandbox, view["id"].as_str().unwrap())
}

fn id(sandbox: &Sandbox) -> String {
    attempt(sandbox)["id"].as_str().unwrap().to_owned()
}

fn told(sandbox: &Sandbox) -> String {
    let worktree = PathBuf::from(attempt(sandbox)["worktree"].as_str().unwrap());
    fs::read_to_string(worktree.join("told")).unwrap_or_default()
}

/// Waits, by events, until an attempt is as wanted.
fn until(sandbox: &Sandbox, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut events = sandbox.start(["events", "-f", "--json"]);
    loop {
        let view = attempt(sandbox);
        if wanted(&view) {
            return view;
        }
        assert!(events.line().is_some());
    }
}

fn is_over(view: &Value) -> bool {
    (view["status"] == "finished" || view["status"] == "held") && view["active"].is_null()
}

fn kill_host(sandbox: &Sandbox) {
    let pid = sandbox.run(["host", "status", "--json"]).expect(0).json()["pid"].as_u64().unwrap();
    let host = open(u32::try_from(pid).unwrap()).unwrap();
    signal(&host, Signal::KILL).unwrap();
    assert!(ended(&host, PATIENCE).unwrap());
}

fn fifo(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap();
    path
}

isolated! {
    fn a_message_runs_the_command_again_with_it_on_standard_input_and_no_setup() {
        let (sandbox, repo) = with_repo();
        let flags = ["--setup", "echo setup >> ran", "--cleanup", "echo cleanup >> ran"];
        run_script(&sandbox, &repo, &flags, AGENT).expect(0);
        let sent = sandbox.run(["send", &id(&sandbox), "go on"]).expect(0);
        assert!(sent.text().starts_with("f-") && sent.stderr.contains("is run by x-"), "{sent:?}");
        until(&sandbox, is_over);
        assert_eq!(told(&sandbox), "go on\n");
        let worktree = PathBuf::from(attempt(&sandbox)["worktree"].as_str().unwrap());
        assert_eq!(fs::read_to_string(worktree.join("ran")).unwrap(), "setup\ncleanup\ncleanup\n");
        let mut command = sandbox.command(["send", &id(&sandbox), "-", "--json"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"two\nlines\n").unwrap();
        let output = child.wait_with_output().unwrap();
        let view: Value = serde_json::from_slice(&output.stdout).unwrap();
        schemas().assert("follow-up.json", &view);
        assert_eq!((&view["status"], &view["position"]), (&"consumed".into(), &2.into()));
        sandbox.run(["wait", view["execution_id"].as_str().unwrap()]).expect(0);
        until(&sandbox, is_over);
        assert_eq!(told(&sandbox), "go on\ntwo\nlines\n");
        let log = sandbox.run(["logs", view["execution_id"].as_str().unwrap(), "--stream", "stdin"]).expect(0);
        assert_eq!(log.text(), "two\nlines\n");
    }

    fn messages_wait_for_the_chain_and_are_changed_meanwhile_by_one_editor_at_a_time() {
        let (sandbox, repo) = with_repo();
        let (began, go) = (fifo(sandbox.path(), "began"), fifo(sandbox.path(), "go"));
        let agent = format!("{AGENT}; [ -e first ] || {{ touch first; echo x > {}; read x < {}; }}", began.display(), go.display());
        run_detached(&sandbox, &repo, &[], &agent);
        fs::read(&began).unwrap();
        let attempt_id = id(&sandbox);
        let send = |text: &str| {
            let sent = sandbox.run(["send", &attempt_id, text]).expect(0);
            assert!(sent.stderr.contains("waits until the chain is over"), "{sent:?}");
            sent.text().trim().to_owned()
        };
        let (one, two, three) = (send("one"), send("two"), send("three"));
        assert!(sandbox.run(["ls"]).expect(0).text().contains("running (3 wait)"));
        assert!(sandbox.run(["show", &attempt_id]).expect(0).text().contains(&format!("{one} queued (version 1): one")));
        sandbox.run(["send", &attempt_id, "--replace", &one, "--if-version", "1", "other"]).expect(0);
        let late = sandbox.run(["send", &attempt_id, "--replace", "1", "--if-version", "1", "late", "--json"]).expect(4);
        assert_eq!(late.error()["error"]["kind"], "conflict");
        let view = sandbox.run(["send", &attempt_id, "--cancel", &two, "--json"]).expect(0).json();
        assert_eq!(view["status"], "cancelled");
        let gone = sandbox.run(["send", &attempt_id, "--cancel", &two, "--json"]).expect(4);
        assert_eq!(gone.error()["error"]["kind"], "no_follow_up");
        sandbox.run(["send", &attempt_id, "--cancel", "9"]).expect(3);
        fs::write(&go, "x\n").unwrap();
        until(&sandbox, is_over);
        assert_eq!(told(&sandbox), "other\nthree\n");
        let gone = sandbox.run(["send", &attempt_id, "--cancel", &three, "--json"]).expect(4);
        assert_eq!(gone.error()["error"]["kind"], "no_follow_up");
        sandbox.run(["send", &attempt_id, " "]).expect(2);
    }

    fn what_waits_is_held_by_a_stop_and_released_by_somebody() {
        let (sandbox, repo) = with_repo();
        let began = fifo(sandbox.path(), "began");
        let agent = format!("{AGENT}; [ -e first ] || {{ touch first; echo x > {}; exec sleep 1000; }}", began.display());
        run_detached(&sandbox, &repo, &[], &agent);
        fs::read(&began).unwrap();
        let attempt_id = id(&sandbox);
        sandbox.run(["send", &attempt_id, "one"]).expect(0);
        sandbox.run(["stop", &attempt_id]).expect(0);
        let view = until(&sandbox, is_over);
        assert_eq!((&view["queue_held"], &view["queue"][0]["status"]), (&"stopped".into(), &"held".into()));
        let behind = sandbox.run(["send", &attempt_id, "two"]).expect(0);
        assert!(behind.stderr.contains("is held: the chain before was stopped"), "{behind:?}");
        assert!(sandbox.run(["ls"]).expect(0).text().contains("held (2 held)"));
        kill_host(&sandbox);
        assert_eq!(attempt(&sandbox)["queue"].as_array().unwrap().len(), 2);
        sandbox.run(["send", &attempt_id, "--release"]).expect(0);
        until(&sandbox, |view| is_over(view) && view["queue"] == serde_json::json!([]));
        assert_eq!(told(&sandbox), "one\ntwo\n");
        // Held by request: nothing starts, whatever ends.
        sandbox.run(["send", &attempt_id, "--hold"]).expect(0);
        let view = sandbox.run(["send", &attempt_id, "three", "--json"]).expect(0).json();
        assert_eq!(view["status"], "held");
        assert_eq!(attempt(&sandbox)["queue_held"], "asked");
    }

    fn a_removed_worktree_is_made_again_for_a_message_and_a_key_sends_it_once() {
        let (sandbox, repo) = with_repo();
        run_script(&sandbox, &repo, &[], &format!("{AGENT}; echo x > made")).expect(0);
        let attempt_id = id(&sandbox);
        sandbox.run(["rm", &attempt_id]).expect(0);
        let keyed = |text: &str, code: i32| sandbox.run(["send", &attempt_id, text, "--key", "k", "--json"]).expect(code);
        let first = keyed("back", 0).json();
        assert_eq!(keyed("back", 0).json()["id"], first["id"]);
        assert_eq!(keyed("other", 4).error()["error"]["kind"], "key_reused");
        until(&sandbox, is_over);
        assert_eq!(told(&sandbox), "back\n");
        sandbox.run(["send", &attempt_id, "never", "--key", "n"]).expect(0);
        until(&sandbox, is_over);
        assert_eq!(told(&sandbox), "back\nnever\n");
    }

    fn a_host_that_is_killed_between_messages_loses_none_and_starts_none_twice() {
        let (sandbox, repo) = with_repo();
        let (began, go) = (fifo(sandbox.path(), "began"), fifo(sandbox.path(), "go"));
        let agent = format!("{AGENT}; echo x > {}; read x < {}", began.display(), go.display());
        run_detached(&sandbox, &repo, &[], &agent);
        fs::read(&began).unwrap();
        let attempt_id = id(&sandbox);
        for text in ["one", "two", "three"] {
            sandbox.run(["send", &attempt_id, text]).expect(0);
        }
        for _ in 0..3 {
            kill_host(&sandbox);
            fs::write(&go, "x\n").unwrap();
            // Somebody asks, and a host is there again that goes on.
            sandbox.run(["ps"]).expect(0);
            fs::read(&began).unwrap();
        }
        fs::write(&go, "x\n").unwrap();
        until(&sandbox, is_over);
        assert_eq!(told(&sandbox), "one\ntwo\nthree\n");
    }

    fn nothing_is_sent_for_a_task_that_is_closed_or_where_nothing_ran() {
        let (sandbox, repo) = with_repo();
        sandbox.run_in(repo.path(), ["project", "add", "--name", "app"]).expect(0);
        let task = sandbox.run(["task", "add", "Do it", "-p", "app"]).expect(0).text().trim().to_owned();
        sandbox.run(["run", "--task", &task, "--", "sh", "-c", AGENT]).expect(0);
        sandbox.run(["task", "set", &task, "--status", "archived"]).expect(0);
        let refused = sandbox.run(["send", &id(&sandbox), "x", "--json"]).expect(4);
        assert_eq!(refused.error()["error"]["kind"], "task_closed");
        let exec = sandbox.run(["exec", &id(&sandbox), "--json", "--", "true"]).expect(122);
        assert_eq!(exec.error()["error"]["kind"], "task_closed");
        assert!(exec.error()["error"]["hint"].as_str().unwrap().contains("reopen"));
        run_script(&sandbox, &repo, &["--setup", "exit 1"], AGENT).expect(1);
        let refused = sandbox.run(["send", &id(&sandbox), "x", "--json"]).expect(4);
        assert_eq!(refused.error()["error"]["kind"], "wrong_state");
    }

    fn a_task_is_closed_only_when_no_message_would_start_anything_in_it() {
        let (sandbox, repo) = with_repo();
        let (began, go) = (fifo(sandbox.path(), "began"), fifo(sandbox.path(), "go"));
        let agent = format!("{AGENT}; echo x > {}; read x < {}", began.display(), go.display());
        sandbox.run_in(repo.path(), ["project", "add", "--name", "app"]).expect(0);
        let task = sandbox.run(["task", "add", "Do it", "-p", "app"]).expect(0).text().trim().to_owned();
        sandbox.run(["run", "-d", "--task", &task, "--", "sh", "-c", &agent]).expect(0);
        fs::read(&began).unwrap();
        sandbox.run(["send", &id(&sandbox), "more"]).expect(0);
        let close = ["task", "set", &task, "--status", "cancelled", "--json"];
        let refused = sandbox.run(close).expect(4);
        assert_eq!(refused.error()["error"]["kind"], "busy");
        assert!(refused.error()["error"]["message"].as_str().unwrap().contains("--hold"));
        sandbox.run(["send", &id(&sandbox), "--hold"]).expect(0);
        sandbox.run(close).expect(0);
        fs::write(&go, "x\n").unwrap();
        let view = until(&sandbox, is_over);
        assert_eq!((&view["queue_held"], told(&sandbox)), (&"asked".into(), String::new()));
    }
}
