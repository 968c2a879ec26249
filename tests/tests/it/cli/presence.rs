//! A host that leaves, or whose socket or directory goes, while others use it.

use std::fs;
use std::path::Path;

use windlass_tests::isolated;
use windlass_tests::process::{PATIENCE, ended, open};
use windlass_tests::sandbox::Sandbox;

use super::{run_script, run_until_ready, sandbox, schemas, with_repo};

fn host_pid(sandbox: &Sandbox) -> u64 {
    sandbox.run(["host", "status", "--json"]).expect(0).json()["pid"].as_u64().unwrap()
}

/// Makes a pipe with a name, for a command that is to wait until somebody writes.
fn fifo(path: &Path) {
    rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RWXU).unwrap();
}

isolated! {
    fn a_run_goes_on_with_the_next_host_however_often_one_is_ended() {
        let (sandbox, repo) = with_repo();
        let gate = sandbox.path().join("gate");
        fifo(&gate);
        let script = format!("echo ready; read _ < {}; echo done; exit 9", gate.display());
        let repo = repo.path().to_str().unwrap().to_owned();
        let mut follower = sandbox.start(["run", "--repo", &repo, "--", "sh", "-c", &script]);
        assert_eq!(follower.line().as_deref(), Some("ready"));
        for _ in 0..8 {
            // 5 says that the next one had not been started yet.
            let stopped = sandbox.run(["host", "stop"]);
            assert!(matches!(stopped.code, Some(0 | 5)), "{stopped:?}");
        }
        fs::write(&gate, "go\n").unwrap();
        let done = follower.line();
        let ended = follower.wait().expect(9);
        assert_eq!(done.as_deref(), Some("done"), "{ended:?}");
    }

    fn a_socket_that_was_removed_is_made_again() {
        let (sandbox, repo) = with_repo();
        let id = run_until_ready(&sandbox, &repo);
        let pid = host_pid(&sandbox);
        fs::remove_file(sandbox.data_dir().join("host.sock")).unwrap();
        let listed = sandbox.run(["ps", "--json"]).expect(0).json_lines();
        assert_eq!(listed.len(), 1);
        assert_eq!(host_pid(&sandbox), pid, "another host");
        sandbox.run(["stop", &id]).expect(0);
        sandbox.run(["host", "stop"]).expect(0);
    }

    fn a_host_leaves_with_its_directory() {
        let sandbox = sandbox();
        sandbox.run(["ps"]).expect(0);
        let host = open(u32::try_from(host_pid(&sandbox)).unwrap()).unwrap();
        fs::remove_dir_all(sandbox.data_dir()).unwrap();
        assert!(ended(&host, PATIENCE).unwrap(), "it lives on");
        sandbox.run(["ps"]).expect(0);
    }

    fn a_directory_that_was_moved_is_refused_until_it_is_meant() {
        let (sandbox, repo) = with_repo();
        let ran = run_script(&sandbox, &repo, &[], "pwd; echo x > made").expect(0);
        let host = open(u32::try_from(host_pid(&sandbox)).unwrap()).unwrap();
        let (here, there) = (sandbox.data_dir(), sandbox.path().join("elsewhere"));
        fs::rename(&here, &there).unwrap();
        assert!(ended(&host, PATIENCE).unwrap(), "it lives on");
        let there = there.to_str().unwrap();
        for (verb, code) in [(&["ls"][..], 4), (&["run", "--dir", "/", "--", "true"], 122)] {
            let refused = sandbox.run([&["--json", "--data-dir", there], verb].concat()).expect(code);
            let error = refused.error();
            schemas().assert("error.json", &error);
            assert_eq!(error["error"]["kind"], "moved", "{error}");
            let message = error["error"]["message"].as_str().unwrap();
            assert!(message.contains(here.to_str().unwrap()), "{message}");
        }
        // Moved back, all is as it was.
        fs::rename(there, &here).unwrap();
        let worktree = ran.text().trim();
        assert_eq!(sandbox.run(["exec", "@last", "--", "pwd"]).expect(0).text().trim(), worktree);
    }

    fn status_and_other_verbs_agree_about_a_host_that_is_not_there() {
        let sandbox = sandbox();
        sandbox.run(["ps"]).expect(0);
        sandbox.run(["host", "stop"]).expect(0);
        sandbox.run(["host", "status"]).expect(5);
        let lock = windlass::api::lock::HostLock::try_take(&sandbox.data_dir().join("host.lock"));
        let lock = lock.unwrap().unwrap();
        lock.sign("somebody, process 1\n").unwrap();
        let seen = ["status", "stop"].map(|verb| sandbox.run(["--json", "host", verb]).expect(4).error());
        for error in seen {
            assert_eq!(error["error"]["kind"], "host_exists", "{error}");
            assert!(error["error"]["message"].as_str().unwrap().contains("somebody"), "{error}");
        }
        drop(lock);
    }
}
