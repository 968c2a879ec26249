//! `ps`, `wait`, `stop`, `exec`, `input`, `show` of an execution.

use std::fs;
use std::path::Path;

use serde_json::json;
use windlass_tests::isolated;
use windlass_tests::process::{PATIENCE, ended, open};

use super::{run_detached, run_script, sandbox, schemas, show, with_repo};

isolated! {
    fn what_runs_is_listed_and_what_ended_on_request() {
        let (sandbox, repo) = with_repo();
        let done = run_detached(&sandbox, &repo, &[], "exit 1");
        sandbox.run(["wait", &done]).expect(1);
        let running = run_detached(&sandbox, &repo, &[], "exec sleep 1000");
        let list = |flags: &[&str]| {
            let ran = sandbox.run([&["ps", "--json"], flags].concat()).expect(0);
            let lines = ran.json_lines();
            lines.iter().for_each(|line| schemas().assert("execution.json", line));
            lines.iter().map(|line| suffix(line["id"].as_str().unwrap())).collect::<Vec<_>>()
        };
        let (done, running) = (suffix(&done), suffix(&running));
        assert_eq!(list(&[]), [running.as_str()]);
        assert_eq!(list(&["-a"]), [running, done.clone()]);
        assert_eq!(list(&["-a", "--status", "failed"]), [done]);
        assert_eq!(list(&["--status", "queued"]), Vec::<String>::new());
        assert_eq!(sandbox.run(["ps", "--status", "queued"]).expect(0).text(), "");
    }

    fn waiting_ends_with_the_first_code_that_is_not_0_in_the_order_given() {
        let (sandbox, repo) = with_repo();
        let ids = ["exit 0", "exit 5", "exit 6"].map(|script| run_detached(&sandbox, &repo, &[], script));
        sandbox.run(["wait", &ids[0], &ids[1], &ids[2]]).expect(5);
        sandbox.run(["wait", &ids[2], &ids[1]]).expect(6);
        sandbox.run(["wait", &ids[0]]).expect(0);
    }

    fn waiting_for_any_ends_with_the_first_end() {
        let (sandbox, repo) = with_repo();
        let long = run_detached(&sandbox, &repo, &[], "exec sleep 1000");
        let short = run_detached(&sandbox, &repo, &[], "exit 9");
        sandbox.run(["wait", &long, &short, "--any"]).expect(9);
        sandbox.run(["wait", &long, "--timeout", "50ms"]).expect(119);
    }

    fn a_stop_ends_every_shape_of_descendant() {
        let (sandbox, repo) = with_repo();
        // Pids of: a child in the group, one in a session of its own, one orphaned by a double fork, one that ignores TERM.
        let script = "sleep 1000 & echo $! > pids; \
                      setsid sh -c 'echo $$ >> pids; exec sleep 1000' & \
                      (setsid sh -c 'sleep 1000 & echo $! >> pids' &) ; \
                      sh -c 'trap \"\" TERM; echo $$ >> pids; while :; do sleep 1000; done' & \
                      while [ $(wc -l < pids) -lt 4 ]; do :; done; echo ready; wait";
        let mut running = sandbox.start(["run", "--repo", repo.path().to_str().unwrap(), "--no-commit", "--", "sh", "-c", script]);
        assert_eq!(running.line().as_deref(), Some("ready"));
        let worktree = sandbox.run(["path", "@last"]).expect(0).text().trim().to_owned();
        let pids = fs::read_to_string(Path::new(&worktree).join("pids")).unwrap();
        let handles: Vec<_> = pids.lines().map(|pid| open(pid.parse().unwrap()).unwrap()).collect();
        assert_eq!(handles.len(), 4);

        let stopped = sandbox.run(["stop", "@last", "--grace", "100ms", "--json"]).expect(0).json();
        schemas().assert("execution.json", &stopped);
        assert_eq!(stopped["status"], "killed", "{stopped:#}");
        assert_eq!(stopped["survivors"], json!([]));
        for handle in &handles {
            assert!(ended(handle, std::time::Duration::ZERO).unwrap(), "one of {pids:?} lives after the stop");
        }
        assert_eq!(running.wait().code, Some(143));
    }

    fn stopping_again_and_stopping_what_has_ended_changes_nothing() {
        let (sandbox, repo) = with_repo();
        let id = run_detached(&sandbox, &repo, &[], "exit 4");
        sandbox.run(["wait", &id]).expect(4);
        sandbox.run(["stop", &id]).expect(0);
        assert_eq!(show(&sandbox, &id)["outcome"], json!({"kind": "exited", "code": 4}));
    }

    fn one_more_command_runs_in_the_worktree_of_an_attempt() {
        let (sandbox, repo) = with_repo();
        let ran = run_script(&sandbox, &repo, &[], "pwd; echo x > made").expect(0);
        let again = sandbox.run(["exec", "@last", "--", "sh", "-c", "pwd; cat made; exit 3"]).expect(3);
        assert_eq!(again.text(), format!("{}x\n", ran.text()));
        let id = sandbox.run(["exec", "@last", "-d", "--", "true"]).expect(0).text().trim().to_owned();
        sandbox.run(["wait", &id]).expect(0);
        assert_eq!(show(&sandbox, &id)["run_reason"], "background");
    }

    fn a_detached_execution_is_fed_from_elsewhere() {
        let sandbox = sandbox();
        let dir = sandbox.path().to_str().unwrap().to_owned();
        let started = sandbox.run(["run", "-d", "-i", "--dir", &dir, "--", "cat"]).expect(0);
        let id = started.text().trim();
        sandbox.run(["input", id, "hello", "--close"]).expect(0);
        sandbox.run(["wait", id]).expect(0);
        assert_eq!(sandbox.run(["logs", "--raw", id]).expect(0).text(), "hello\n");
    }

    fn messages_reach_standard_input_in_order_and_once() {
        let (sandbox, repo) = with_repo();
        let path = repo.path().to_str().unwrap();
        let mut command = sandbox.command(["run", "--repo", path, "--stdin", "--on-interrupt", "detach", "--", "cat"]);
        // Standard input stays open: this end is held until the messages were written.
        let (reader, writer) = std::io::pipe().unwrap();
        command.stdin(reader);
        let mut running = windlass_tests::sandbox::Running::start(&mut command);
        let id = running.error_line().unwrap().split(' ').nth(1).unwrap().to_owned();
        drop(command);
        for _ in 0..2 {
            sandbox.run(["input", &id, "one", "--key", "first"]).expect(0);
        }
        sandbox.run(["input", &id, "two", "--key", "second"]).expect(0);
        assert_eq!(running.line().as_deref(), Some("one"));
        assert_eq!(running.line().as_deref(), Some("two"));
        sandbox.run(["input", &id, "--close", ""]).expect(0);
        drop(writer);
        assert_eq!(running.wait().expect(0).text(), "");
        sandbox.run(["input", &id, "late"]).expect(4);
    }

    fn an_id_is_taken_in_every_form_that_is_documented() {
        let (sandbox, repo) = with_repo();
        let short = run_detached(&sandbox, &repo, &["--branch", "topic"], "true");
        sandbox.run(["wait", &short]).expect(0);
        let full = show(&sandbox, &short)["id"].as_str().unwrap().to_owned();
        for form in [full.as_str(), &short, &short[2..], &short[short.len() - 4..], "@last"] {
            assert_eq!(show(&sandbox, form)["id"], full.as_str(), "{form}");
        }
        assert_eq!(show(&sandbox, "topic")["branch"], "topic");
        for unknown in ["x-00000000", "no-such-branch", "abc"] {
            sandbox.run(["show", unknown]).expect(3);
            sandbox.run(["wait", unknown]).expect(123);
        }
    }

    fn an_execution_waits_for_a_slot_or_is_refused_by_choice() {
        let (sandbox, repo) = with_repo();
        sandbox.run(["config", "set", "limits.per_host", "1"]).expect(0);
        let first = run_detached(&sandbox, &repo, &[], "exec sleep 1000");
        let second = run_detached(&sandbox, &repo, &[], "exit 8");
        let third = run_detached(&sandbox, &repo, &[], "true");
        for (id, before) in [(&second, 0), (&third, 1)] {
            let shown = show(&sandbox, id);
            schemas().assert("execution.json", &shown);
            assert_eq!(
                (&shown["status"], &shown["waiting_for"], &shown["queue"]),
                (&json!("queued"), &json!("slot"), &json!(before)),
                "{shown:#}"
            );
        }
        let listed = sandbox.run(["ps", "--json"]).expect(0).json_lines();
        let queue: Vec<_> = listed.iter().map(|one| one["queue"].as_u64()).collect();
        assert_eq!(queue, [Some(1), Some(0), None], "newest first");
        let refused = run_script(&sandbox, &repo, &["-d", "--no-queue"], "true");
        assert_eq!(refused.code, Some(122), "{}", refused.stderr);
        sandbox.run(["stop", &first]).expect(0);
        sandbox.run(["wait", &second]).expect(8);
    }

    fn a_stopped_queued_execution_never_starts() {
        let (sandbox, repo) = with_repo();
        sandbox.run(["config", "set", "limits.per_host", "1"]).expect(0);
        let first = run_detached(&sandbox, &repo, &[], "exec sleep 1000");
        let witness = sandbox.path().join("ran");
        let second = run_detached(&sandbox, &repo, &[], &format!("touch {}", witness.display()));
        sandbox.run(["stop", &second]).expect(0);
        sandbox.run(["stop", &first]).expect(0);
        sandbox.run(["wait", &second]).expect(143);
        assert!(!witness.exists());
    }

    fn a_command_that_ends_before_anybody_looks_is_known_all_the_same() {
        let (sandbox, repo) = with_repo();
        let id = run_detached(&sandbox, &repo, &[], "echo quick");
        let host = sandbox.run(["host", "status", "--json"]).expect(0).json();
        schemas().assert("host-status.json", &host);
        let host = open(u32::try_from(host["pid"].as_u64().unwrap()).unwrap()).unwrap();
        windlass_tests::process::signal(&host, rustix::process::Signal::KILL).unwrap();
        assert!(ended(&host, PATIENCE).unwrap());
        sandbox.run(["wait", &id]).expect(0);
        assert_eq!(sandbox.run(["logs", &id, "--raw"]).expect(0).text(), "quick\n");
    }
}

/// Returns the last 8 hex digits.
fn suffix(id: &str) -> String {
    id[id.len() - 8..].to_owned()
}
