//! `retry`: what was done is saved and undone, and the command is run again.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::Value;
use windlass_tests::isolated;
use windlass_tests::process::{PATIENCE, ended, open, signal};
use windlass_tests::repo::git_in;
use windlass_tests::sandbox::Sandbox;

use super::{run_detached, run_script, schemas, show, with_repo};

fn attempt(sandbox: &Sandbox) -> Value {
    let view = sandbox.run(["ls", "--json"]).expect(0).json_lines().remove(0);
    show(sandbox, view["id"].as_str().unwrap())
}

fn id(sandbox: &Sandbox) -> String {
    attempt(sandbox)["id"].as_str().unwrap().to_owned()
}

fn worktree(sandbox: &Sandbox) -> PathBuf {
    PathBuf::from(attempt(sandbox)["worktree"].as_str().unwrap())
}

isolated! {
    fn what_was_done_is_saved_and_undone_and_the_command_is_run_again() {
        let (sandbox, repo) = with_repo();
        repo.write(".gitignore", "count\n");
        let _ = repo.commit("ignore");
        let base = repo.git(["rev-parse", "HEAD"]);
        let agent = "echo x >> count; wc -l < count | tr -d ' ' > made; echo work > work";
        run_script(&sandbox, &repo, &["--cleanup", "echo tidy > tidy"], agent).expect(0);
        let attempt_id = id(&sandbox);
        fs::write(worktree(&sandbox).join("mine"), "by hand\n").unwrap();
        let first = attempt(&sandbox)["executions"].clone();
        sandbox.run(["retry", &attempt_id]).expect(0);
        let view = attempt(&sandbox);
        assert_eq!((&view["status"], &view["ahead"], &view["dirty"]), (&"finished".into(), &2.into(), &false.into()));
        let place = worktree(&sandbox);
        assert_eq!(fs::read_to_string(place.join("made")).unwrap(), "2\n", "ignored files stay");
        assert!(!place.join("mine").exists());
        assert_eq!(git_in(&place, ["rev-parse", "HEAD~2"]).trim(), base.trim());
        // Nothing is dropped: the history says what came instead, the snapshot has the rest.
        let again = view["executions"].as_array().unwrap();
        let agent = again.iter().map(|it| show(&sandbox, it.as_str().unwrap())).find(|it| it["run_reason"] == "agent").unwrap();
        schemas().assert("execution.json", &agent);
        for old in first.as_array().unwrap() {
            assert_eq!(show(&sandbox, old.as_str().unwrap())["superseded_by"], agent["id"]);
        }
        let saved = sandbox.run(["snapshots", &attempt_id, "--json"]).expect(0).json_lines();
        assert_eq!((&saved[0]["cause"], &saved[0]["commits"]), (&"reset".into(), &2.into()));
    }

    fn a_retry_stops_what_runs_and_may_begin_with_the_setup() {
        let (sandbox, repo) = with_repo();
        let agent = "[ -e ../once ] || { touch ../once; echo ready; exec sleep 1000; }; echo x > made";
        run_detached(&sandbox, &repo, &["--setup", "echo setup > dep"], agent);
        let mut events = sandbox.start(["events", "-f", "--json"]);
        while attempt(&sandbox)["active"]["run_reason"] != "agent" {
            assert!(events.line().is_some());
        }
        let agent = attempt(&sandbox)["active"]["execution_id"].as_str().unwrap().to_owned();
        let mut follower = sandbox.start(["logs", "-f", &agent]);
        assert_eq!(follower.line().as_deref(), Some("ready"));
        let setup = attempt(&sandbox)["executions"][1].as_str().unwrap().to_owned();
        sandbox.run(["retry", &setup]).expect(0);
        assert_eq!(show(&sandbox, &agent)["status"], "killed");
        let place = worktree(&sandbox);
        assert!(place.join("made").exists() && place.join("dep").exists());
        let reasons: Vec<_> = attempt(&sandbox)["executions"].as_array().unwrap().iter().map(|it| show(&sandbox, it.as_str().unwrap())["run_reason"].clone()).collect();
        assert_eq!(reasons.iter().filter(|it| **it == "setup").count(), 2, "{reasons:?}");
    }

    fn a_host_that_is_killed_during_a_retry_goes_on_with_it_once() {
        let (sandbox, repo) = with_repo();
        run_script(&sandbox, &repo, &[], "echo x > made; echo y >> ../runs").expect(0);
        let keyed = ["retry", "-d", "--key", "again", &id(&sandbox)].map(str::to_owned);
        let retried = sandbox.run(&keyed).expect(0).text().trim().to_owned();
        let pid = sandbox.run(["host", "status", "--json"]).expect(0).json()["pid"].as_u64().unwrap();
        let host = open(u32::try_from(pid).unwrap()).unwrap();
        signal(&host, Signal::KILL).unwrap();
        assert!(ended(&host, PATIENCE).unwrap());
        sandbox.run(["wait", &retried]).expect(0);
        let runs = worktree(&sandbox).parent().unwrap().join("runs");
        assert_eq!(fs::read_to_string(runs).unwrap(), "y\ny\n");
        assert_eq!(attempt(&sandbox)["ahead"], 1);
    }

    fn a_try_may_read_something_else() {
        let (sandbox, repo) = with_repo();
        run_script(&sandbox, &repo, &["--setup", "true"], "cat > made").expect(0);
        let all = attempt(&sandbox)["executions"].clone();
        let setup = all[all.as_array().unwrap().len() - 1].as_str().unwrap().to_owned();
        sandbox.run(["retry", &id(&sandbox), "--prompt", "first"]).expect(0);
        sandbox.run(["retry", &id(&sandbox)]).expect(0);
        assert_eq!(fs::read_to_string(worktree(&sandbox).join("made")).unwrap(), "first\n", "it reads the same again");
        sandbox.run(["retry", &id(&sandbox), "--prompt", "second"]).expect(0);
        assert_eq!(fs::read_to_string(worktree(&sandbox).join("made")).unwrap(), "second\n");
        assert_eq!(attempt(&sandbox)["ahead"], 1);
        let refused = sandbox.run(["retry", &setup, "--prompt", "x", "--json"]).expect(122);
        assert_eq!(refused.error()["error"]["kind"], "wrong_state");
        sandbox.run(["retry", &id(&sandbox), "--prompt", " "]).expect(120);
    }

    fn a_message_with_a_reset_begins_at_the_last_commit() {
        let (sandbox, repo) = with_repo();
        run_script(&sandbox, &repo, &[], "cat >> made").expect(0);
        let place = worktree(&sandbox);
        fs::write(place.join("mine"), "by hand\n").unwrap();
        fs::write(place.join("made"), "spoiled\n").unwrap();
        sandbox.run(["send", &id(&sandbox), "--reset", "go on"]).expect(0);
        let mut events = sandbox.start(["events", "-f", "--json"]);
        while attempt(&sandbox)["status"] != "finished" {
            assert!(events.line().is_some());
        }
        assert_eq!(fs::read_to_string(place.join("made")).unwrap(), "go on\n");
        assert!(!place.join("mine").exists());
        let saved = sandbox.run(["snapshots", &id(&sandbox), "--json"]).expect(0).json_lines();
        assert_eq!(saved[0]["cause"], "reset");
        let here = sandbox.path().to_str().unwrap();
        sandbox.run(["run", "--dir", here, "--", "true"]).expect(0);
        let refused = sandbox.run(["send", "@last", "--reset", "x", "--json"]).expect(4);
        assert_eq!(refused.error()["error"]["kind"], "not_a_worktree");
    }

    fn what_never_began_or_is_none_of_the_chain_is_refused() {
        let (sandbox, repo) = with_repo();
        run_script(&sandbox, &repo, &[], "true").expect(0);
        let beside = sandbox.run(["exec", "-d", &id(&sandbox), "--", "true"]).expect(0).text().trim().to_owned();
        sandbox.run(["wait", &beside]).expect(0);
        let refused = sandbox.run(["retry", &beside, "--json"]).expect(122);
        assert_eq!(refused.error()["error"]["kind"], "wrong_state");
        let here = sandbox.path().to_str().unwrap();
        sandbox.run(["run", "--dir", here, "--", "true"]).expect(0);
        let refused = sandbox.run(["retry", "@last", "--json"]).expect(122);
        assert!(["not_a_worktree", "wrong_state"].contains(&refused.error()["error"]["kind"].as_str().unwrap()), "{refused:?}");
    }

    fn a_repeated_retry_is_told_of_the_try_that_it_led_to_and_stops_nothing() {
        let (sandbox, repo) = with_repo();
        let agent = "[ -e ../once ] || { touch ../once; exit 0; }; echo ready; exec sleep 1000";
        run_script(&sandbox, &repo, &[], agent).expect(0);
        let keyed = ["retry", "-d", "--key", "again", &id(&sandbox)].map(str::to_owned);
        let first = sandbox.run(&keyed).expect(0).text().trim().to_owned();
        let mut follower = sandbox.start(["logs", "-f", &first]);
        assert_eq!(follower.line().as_deref(), Some("ready"));
        assert_eq!(sandbox.run(&keyed).expect(0).text().trim(), first);
        assert_eq!(show(&sandbox, &first)["status"], "running");
        // What cannot be done stops nothing either.
        sandbox.run(["retry", &id(&sandbox), "--from", "x-00000000"]).expect(123);
        assert_eq!(show(&sandbox, &first)["status"], "running");
        sandbox.run(["stop", &id(&sandbox)]).expect(0);
    }

    fn what_was_given_for_one_run_alone_is_not_waited_for() {
        let (sandbox, repo) = with_repo();
        let place = repo.path().to_str().unwrap();
        let secret = ["run", "--repo", place, "--secret", "TOKEN", "--", "sh", "-c", "echo x > made"];
        windlass_tests::sandbox::run(sandbox.command(secret).env("TOKEN", "t0p")).expect(0);
        for (verb, code) in [(["retry", &id(&sandbox), "--json"].to_vec(), 122), (["send", &id(&sandbox), "x", "--json"].to_vec(), 4)] {
            let refused = sandbox.run(verb).expect(code);
            let message = refused.error()["error"]["message"].as_str().unwrap().to_owned();
            assert!(message.contains("TOKEN"), "{message}");
        }
        assert!(worktree(&sandbox).join("made").exists(), "nothing is undone");
        let typed = ["run", "--repo", place, "-i", "--", "sh", "-c", "cat >> ../typed"];
        windlass_tests::sandbox::run(sandbox.command(typed).stdin(std::process::Stdio::null())).expect(0);
        sandbox.run(["retry", &id(&sandbox)]).expect(0);
    }
}
