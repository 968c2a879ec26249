//! Chains: setup, command and cleanup, on real scripts.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use windlass_tests::isolated;
use windlass_tests::repo::{TempRepo, git_in};
use windlass_tests::sandbox::{Ran, Sandbox};

use super::{kill_host, schemas, show, with_repo};

const SETUP: &str = "echo setup; echo dep > dep";
const CLEANUP: &str = "echo cleanup; echo tidy > tidy";

/// Runs a script as the command of a chain.
fn run(sandbox: &Sandbox, repo: &TempRepo, flags: &[&str], script: &str) -> Ran {
    super::run_script(sandbox, repo, flags, script)
}

/// The reasons and states of all executions, oldest first; git steps by their names.
fn history(sandbox: &Sandbox) -> Vec<String> {
    let mut all = sandbox.run(["ps", "-a", "--json"]).expect(0).json_lines();
    all.reverse();
    let line = |view: &Value| {
        schemas().assert("execution.json", view);
        let reason = view["run_reason"].as_str().unwrap();
        let step = view["action"]["argv"][3].as_str().filter(|_| reason == "git");
        let what = step.map_or(reason, |step| step.trim_start_matches("windlass-"));
        format!("{what} {}", view["status"].as_str().unwrap())
    };
    all.iter().map(line).collect()
}

fn attempt(sandbox: &Sandbox) -> Value {
    let view = sandbox.run(["ls", "--json"]).expect(0).json_lines().remove(0);
    schemas().assert("attempt.json", &view);
    show(sandbox, view["id"].as_str().unwrap())
}

fn worktree(sandbox: &Sandbox) -> PathBuf {
    PathBuf::from(attempt(sandbox)["worktree"].as_str().unwrap())
}

/// How many commits the attempt has, and whether something is not committed.
fn commits(sandbox: &Sandbox) -> (u64, bool) {
    let view = attempt(sandbox);
    (view["ahead"].as_u64().unwrap(), view["dirty"].as_bool().unwrap())
}

/// Two named pipes of which a script writes one when it has begun and reads the other before it ends.
struct Gate {
    began: PathBuf,
    go: PathBuf,
}

impl Gate {
    fn new(folder: &Path, name: &str) -> Self {
        let pipe = |end: &str| {
            let path = folder.join(format!("{name}.{end}"));
            rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap();
            path
        };
        Self { began: pipe("began"), go: pipe("go") }
    }

    /// What the script does at this gate.
    fn text(&self) -> String {
        format!("echo x > {}; read x < {}", self.began.display(), self.go.display())
    }

    fn has_begun(&self) {
        assert_eq!(fs::read(&self.began).unwrap(), b"x\n");
    }

    fn open(&self) {
        fs::write(&self.go, "x\n").unwrap();
    }
}

isolated! {
    fn setup_command_and_cleanup_run_one_after_the_other_and_are_committed() {
        let (sandbox, repo) = with_repo();
        let flags = ["--setup", SETUP, "--cleanup", CLEANUP, "--env", "WHO=me"];
        let ran = run(&sandbox, &repo, &flags, "echo agent $WHO; cat dep; echo x > made").expect(0);
        assert_eq!(ran.text(), "setup\nagent me\ndep\ncleanup\n");
        assert_eq!(history(&sandbox), ["setup completed", "agent completed", "commit completed", "cleanup completed", "commit completed"]);
        assert_eq!(commits(&sandbox), (2, false));
        let view = attempt(&sandbox);
        assert_eq!((&view["status"], &view["reason"], &view["active"]), (&"finished".into(), &Value::Null, &Value::Null));
        let subjects = git_in(&worktree(&sandbox), ["log", "-1", "--format=%s"]);
        assert!(subjects.starts_with("Clean up after a-"), "{subjects}");
        let text = sandbox.run(["show", view["id"].as_str().unwrap()]).expect(0).text().to_owned();
        for reason in ["setup: completed", "agent: completed", "cleanup: completed", "git: completed"] {
            assert!(text.contains(reason), "{reason} in {text}");
        }
        let setup = show(&sandbox, view["executions"][4].as_str().unwrap());
        assert_eq!((&setup["run_reason"], &setup["followed_by"]), (&"setup".into(), &view["executions"][3]));
        let table = sandbox.run(["ps", "-a"]).expect(0).text().to_owned();
        assert!(table.contains("setup: echo setup") && table.contains("cleanup: echo cleanup"), "{table}");
    }

    fn a_setup_that_fails_is_all_that_runs_and_gives_its_code() {
        let (sandbox, repo) = with_repo();
        let flags = ["--setup", "echo no >&2; exit 7", "--cleanup", CLEANUP];
        let ran = run(&sandbox, &repo, &flags, "echo agent").expect(7);
        assert_eq!(ran.text(), "");
        assert!(ran.stderr.contains("setup x-") && ran.stderr.contains("failed with code 7; the command was not started"), "{}", ran.stderr);
        assert_eq!(history(&sandbox), ["setup failed"]);
        let view = attempt(&sandbox);
        assert_eq!((&view["status"], &view["reason"]["kind"], &view["snapshots"]), (&"held".into(), &"ended_badly".into(), &0.into()));
    }

    fn cleanup_follows_commits_and_nothing_else() {
        let (sandbox, repo) = with_repo();
        run(&sandbox, &repo, &["--setup", "true", "--cleanup", CLEANUP], "true").expect(0);
        assert_eq!(history(&sandbox), ["setup completed", "agent completed"]);
        assert_eq!(attempt(&sandbox)["status"], "finished");
        let (sandbox, repo) = with_repo();
        let own = "echo x > made; git add made; git -c user.name=n -c user.email=e commit -qm own";
        run(&sandbox, &repo, &["--cleanup", CLEANUP], own).expect(0);
        assert_eq!(history(&sandbox), ["agent completed", "cleanup completed", "commit completed"]);
        let (sandbox, repo) = with_repo();
        run(&sandbox, &repo, &["--cleanup", CLEANUP], "echo x > made; exit 3").expect(3);
        assert_eq!(history(&sandbox), ["agent failed"]);
        assert_eq!(attempt(&sandbox)["status"], "held");
        // Where nothing is committed, its own commits count all the same.
        let (sandbox, repo) = with_repo();
        run(&sandbox, &repo, &["--cleanup", "echo x > left; exit 1", "--no-commit"], own).expect(0);
        assert_eq!(history(&sandbox), ["agent completed", "cleanup failed"]);
        assert_eq!(commits(&sandbox), (1, true));
    }

    fn what_a_bad_cleanup_did_is_saved_and_undone() {
        let (sandbox, repo) = with_repo();
        repo.write(".gitignore", "kept\n");
        let _ = repo.commit("ignore");
        let half = "echo half > made; echo new > new; echo mine > kept; git add new; \
                    git -c user.name=n -c user.email=e commit -qm half; echo more > more; exit 9";
        let ran = run(&sandbox, &repo, &["--cleanup", half], "echo x > made").expect(0);
        assert!(ran.stderr.contains("cleanup x-") && ran.stderr.contains("failed with code 9; what it changed was saved and undone"), "{}", ran.stderr);
        assert_eq!(history(&sandbox), ["agent completed", "commit completed", "cleanup failed", "reset completed"]);
        let view = attempt(&sandbox);
        assert_eq!((&view["status"], &view["reason"]["kind"]), (&"finished".into(), &"cleanup_failed".into()));
        assert_eq!(commits(&sandbox), (1, false));
        let place = worktree(&sandbox);
        assert_eq!(fs::read_to_string(place.join("made")).unwrap(), "x\n");
        assert!(!place.join("new").exists() && !place.join("more").exists() && place.join("kept").exists());
        let saved = sandbox.run(["snapshots", view["id"].as_str().unwrap(), "--json"]).expect(0).json_lines();
        schemas().assert("snapshot.json", &saved[0]);
        assert_eq!((&saved[0]["cause"], &saved[0]["commits"].as_u64().map(|commits| commits >= 1)), (&"reset".into(), &Some(true)));
        // What goes on from it has nothing of it.
        sandbox.run(["exec", view["id"].as_str().unwrap(), "--", "sh", "-c", "test ! -e new"]).expect(0);
    }

    fn a_stop_binds_the_whole_chain_at_each_place() {
        let (sandbox, repo) = with_repo();
        let gate = Gate::new(sandbox.path(), "setup");
        let id = super::run_detached(&sandbox, &repo, &["--setup", &gate.text(), "--cleanup", CLEANUP], "echo agent");
        gate.has_begun();
        assert_eq!(attempt(&sandbox)["active"]["run_reason"], "setup");
        assert!(sandbox.run(["ls"]).expect(0).text().contains("running (setup)"));
        sandbox.run(["stop", &id]).expect(0);
        assert_eq!(history(&sandbox), ["setup killed"]);
        assert_eq!(attempt(&sandbox)["reason"]["kind"], "stopped");
        // By the name of one that has ended.
        let (sandbox, repo) = with_repo();
        let gate = Gate::new(sandbox.path(), "agent");
        let id = super::run_detached(&sandbox, &repo, &["--setup", "true", "--cleanup", CLEANUP], &gate.text());
        gate.has_begun();
        sandbox.run(["stop", &id]).expect(0);
        sandbox.run(["wait", &id]).expect(143);
        assert_eq!(history(&sandbox), ["setup completed", "agent killed"]);
        assert_eq!(attempt(&sandbox)["status"], "held");
        // What a cleanup left half done is undone all the same.
        let (sandbox, repo) = with_repo();
        let gate = Gate::new(sandbox.path(), "cleanup");
        let cleanup = format!("echo half > half; {}", gate.text());
        super::run_detached(&sandbox, &repo, &["--cleanup", &cleanup], "echo x > made");
        gate.has_begun();
        let id = attempt(&sandbox)["id"].as_str().unwrap().to_owned();
        sandbox.run(["stop", &id]).expect(0);
        assert_eq!(history(&sandbox), ["agent completed", "commit completed", "cleanup killed", "reset completed"]);
        assert_eq!((attempt(&sandbox)["reason"]["kind"].as_str(), commits(&sandbox)), (Some("stopped"), (1, false)));
    }

    fn a_stop_returns_when_the_attempt_is_at_rest() {
        let hook = |repo: &TempRepo, name: &str, text: &str| {
            let path = repo.path().join(".git/hooks").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        };
        // While the worktree is made.
        let (sandbox, repo) = with_repo();
        let gate = Gate::new(sandbox.path(), "made");
        hook(&repo, "post-checkout", &gate.text());
        super::run_detached(&sandbox, &repo, &[], "echo x > made");
        gate.has_begun();
        let id = attempt(&sandbox)["id"].as_str().unwrap().to_owned();
        sandbox.run(["stop", &id]).expect(0);
        let status = attempt(&sandbox)["status"].clone();
        assert!(["failed", "held"].contains(&status.as_str().unwrap()), "{status}");
        // While the work is committed.
        let (sandbox, repo) = with_repo();
        let gate = Gate::new(sandbox.path(), "committed");
        hook(&repo, "pre-commit", &gate.text());
        super::run_detached(&sandbox, &repo, &["--cleanup", CLEANUP], "echo x > made");
        gate.has_begun();
        let id = attempt(&sandbox)["id"].as_str().unwrap().to_owned();
        sandbox.run(["stop", &id]).expect(0);
        let view = attempt(&sandbox);
        assert_eq!((&view["status"], &view["reason"]["kind"], &view["active"]), (&"held".into(), &"stopped".into(), &Value::Null));
        assert!(worktree(&sandbox).join("made").exists());
    }

    fn a_host_that_is_killed_at_each_place_changes_nothing() {
        let (sandbox, repo) = with_repo();
        let [setup, agent, cleanup] = ["setup", "agent", "cleanup"].map(|name| Gate::new(sandbox.path(), name));
        let hook = Gate::new(sandbox.path(), "hook");
        let path = repo.path().join(".git/hooks/pre-commit");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\n[ -e made ] && [ ! -e tidy ] || exit 0\n{}\n", hook.text())).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let flags = ["--setup", &format!("echo x > dep; {}", setup.text()), "--cleanup", &format!("{CLEANUP}; {}", cleanup.text())];
        let id = super::run_detached(&sandbox, &repo, &flags, &format!("cat dep > made; {}", agent.text()));
        for gate in [setup, agent, hook, cleanup] {
            gate.has_begun();
            kill_host(&sandbox);
            gate.open();
            // Somebody asks, and a host is there again.
            sandbox.run(["host", "status"]);
            sandbox.run(["ps"]).expect(0);
        }
        sandbox.run(["wait", &id]).expect(0);
        let mut events = sandbox.start(["events", "-f", "--json"]);
        while attempt(&sandbox)["status"] != "finished" {
            assert!(events.line().is_some());
        }
        assert_eq!(history(&sandbox), ["setup completed", "agent completed", "commit completed", "cleanup completed", "commit completed"]);
        assert_eq!(commits(&sandbox), (2, false));
    }

    fn a_host_that_is_killed_during_a_bad_cleanup_has_it_undone_by_the_next() {
        let (sandbox, repo) = with_repo();
        let gate = Gate::new(sandbox.path(), "cleanup");
        let cleanup = format!("echo half > made; {}; exit 1", gate.text());
        super::run_detached(&sandbox, &repo, &["--cleanup", &cleanup], "echo x > made");
        gate.has_begun();
        kill_host(&sandbox);
        gate.open();
        let mut events = sandbox.start(["events", "-f", "--json"]);
        while attempt(&sandbox)["status"] != "finished" {
            assert!(events.line().is_some());
        }
        assert_eq!(history(&sandbox), ["agent completed", "commit completed", "cleanup failed", "reset completed"]);
        assert_eq!(fs::read_to_string(worktree(&sandbox).join("made")).unwrap(), "x\n");
    }

    fn an_attempt_of_a_task_runs_the_scripts_of_its_project() {
        let (sandbox, repo) = with_repo();
        let project = ["project", "add", "--name", "app", "--setup", SETUP, "--cleanup", CLEANUP, "--no-commit"];
        sandbox.run_in(repo.path(), project).expect(0);
        let task = sandbox.run(["task", "add", "Do it", "-p", "app"]).expect(0).text().trim().to_owned();
        let run = |flags: &[&str]| {
            let arguments = [&["run", "--task", &task], flags, &["--", "sh", "-c", "echo agent; ls; echo x > made"]].concat();
            sandbox.run(arguments).expect(0).text().to_owned()
        };
        assert_eq!(run(&[]), "setup\nagent\nREADME.md\ndep\nsrc\n", "nothing is committed, so nothing is tidied up");
        assert_eq!(run(&["--commit"]), "setup\nagent\nREADME.md\ndep\nsrc\ncleanup\n");
        assert_eq!(commits(&sandbox), (2, false));
        assert_eq!(run(&["--commit", "--setup", "", "--cleanup", "echo other"]), "agent\nREADME.md\nsrc\nother\n");
        let here = sandbox.path().join("dir");
        fs::create_dir(&here).unwrap();
        assert_eq!(run(&["--dir", here.to_str().unwrap()]), "agent\n", "they prepare no directory of the user's");
    }

    fn waiting_for_a_setup_is_waiting_for_the_command_and_json_tells_of_that() {
        let (sandbox, repo) = with_repo();
        let id = super::run_detached(&sandbox, &repo, &["--setup", "true"], "exit 5");
        let waited = sandbox.run(["wait", &id, "--json"]).expect(5).json();
        assert_eq!(waited["run_reason"], "agent");
        sandbox.run(["wait", &id, "--timeout", "0s"]).expect(5);
        let mut command = sandbox.command(["run", "--json", "--setup", "true", "--cleanup", "exit 1", "--secret", "TOKEN", "--", "sh", "-c", "echo ${#TOKEN} > made"]);
        let ran = windlass_tests::sandbox::run(command.current_dir(repo.path()).env("TOKEN", "hush")).expect(0);
        let view = ran.json();
        schemas().assert("execution.json", &view);
        assert_eq!((&view["run_reason"], &view["exit_code"], view["committed"].is_string()), (&"agent".into(), &0.into(), true));
        assert_eq!(fs::read_to_string(worktree(&sandbox).join("made")).unwrap(), "4\n");
        let mut command = sandbox.command(["run", "--setup", "echo $TOKEN", "--cleanup", "echo $TOKEN", "--secret", "TOKEN", "--", "sh", "-c", "echo $TOKEN > made"]);
        let ran = windlass_tests::sandbox::run(command.current_dir(repo.path()).env("TOKEN", "hush")).expect(0);
        assert_eq!(ran.text(), "hush\nhush\n", "a secret is there for each of them");
    }

    fn input_goes_to_the_command_and_not_to_the_scripts() {
        let (sandbox, repo) = with_repo();
        let mut command = sandbox.command(["run", "-i", "--setup", "cat", "--cleanup", "cat", "--", "sh", "-c", "cat; echo x > made"]);
        let mut child = command.current_dir(repo.path()).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"typed\n").unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"typed\n"[..]));
    }
}
