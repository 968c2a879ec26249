//! `task` and `run --task`: what somebody wants done, and the attempts that try.

use std::io::Write as _;
use std::process::Stdio;

use rustix::process::Signal;
use windlass_tests::isolated;
use windlass_tests::process::{PATIENCE, ended, open, signal};
use windlass_tests::repo::TempRepo;
use windlass_tests::sandbox::Sandbox;

use super::{schemas, show, with_repo};

/// Makes the repository a project and adds a task; returns its id.
fn task(sandbox: &Sandbox, repo: &TempRepo, project: &[&str]) -> String {
    sandbox.run_in(repo.path(), [&["project", "add", "--name", "app"], project].concat()).expect(0);
    sandbox.run(["task", "add", "Do it", "-p", "app"]).expect(0).text().trim().to_owned()
}

fn status(sandbox: &Sandbox, task: &str) -> String {
    let view = sandbox.run(["task", "show", task, "--json"]).expect(0).json();
    schemas().assert("task.json", &view);
    view["status"].as_str().unwrap().to_owned()
}

/// Kills the host as nobody would, and waits until it is gone.
fn kill_host(sandbox: &Sandbox) {
    let pid = sandbox.run(["host", "status", "--json"]).expect(0).json()["pid"].as_u64().unwrap();
    let host = open(u32::try_from(pid).unwrap()).unwrap();
    signal(&host, Signal::KILL).unwrap();
    assert!(ended(&host, PATIENCE).unwrap());
}

isolated! {
    fn a_task_goes_from_todo_over_its_attempts_to_done() {
        let (sandbox, repo) = with_repo();
        let id = task(&sandbox, &repo, &["--no-commit"]);
        assert!(id.starts_with("t-"), "{id}");
        assert_eq!(status(&sandbox, &id), "todo");
        let running = sandbox.run(["run", "-d", "--task", &id, "-i", "--", "sh", "-c", "echo x > made; read line"]).expect(0);
        let running = running.text().trim().to_owned();
        // Its input is written when it runs.
        let mut events = sandbox.start(["events", "-f", "--json"]);
        while status(&sandbox, &id) != "in_progress" {
            assert!(events.line().is_some());
        }
        let busy = sandbox.run(["task", "rm", &id, "--json"]).expect(4);
        assert_eq!(busy.error()["error"]["kind"], "busy");
        sandbox.run(["input", &running, "go"]).expect(0);
        sandbox.run(["wait", &running]).expect(0);
        assert_eq!(status(&sandbox, &id), "in_review");
        // As the project says: nothing is committed.
        let view = sandbox.run(["task", "show", &id, "--json"]).expect(0).json();
        let attempt = show(&sandbox, view["attempts"][0]["id"].as_str().unwrap());
        assert_eq!((&attempt["dirty"], &attempt["title"], &attempt["task_id"]), (&true.into(), &"Do it".into(), &view["id"]));
        assert!(sandbox.run(["show", attempt["id"].as_str().unwrap()]).expect(0).text().contains(&id));
        let listed = sandbox.run(["ls", "--task", &id, "--json"]).expect(0).json_lines();
        assert_eq!(listed.len(), 1);
        sandbox.run_in(repo.path(), ["run", "--", "true"]).expect(0);
        assert_eq!(sandbox.run(["ls", "--task", &id, "--json"]).expect(0).json_lines().len(), 1);
        sandbox.run(["task", "set", &id, "--status", "done"]).expect(0);
        assert_eq!(status(&sandbox, &id), "done");
        sandbox.run(["run", "--task", &id, "--", "false"]).expect(1);
        assert_eq!(status(&sandbox, &id), "in_review");
        let text = sandbox.run(["task", "show", &id]).expect(0);
        assert!(text.text().contains("held") && text.text().contains("finished"), "{}", text.text());
    }

    fn nothing_starts_for_a_task_that_is_closed() {
        let (sandbox, repo) = with_repo();
        let id = task(&sandbox, &repo, &[]);
        for word in ["cancelled", "archived"] {
            sandbox.run(["task", "set", &id, "--status", word]).expect(0);
            assert_eq!(status(&sandbox, &id), word);
            let refused = sandbox.run(["run", "--task", &id, "--json", "--", "true"]).expect(122);
            let error = &refused.error()["error"];
            assert_eq!(error["kind"], "task_closed");
            assert!(error["hint"].as_str().unwrap().contains("reopen"), "{error}");
        }
        assert_eq!(sandbox.run(["ls", "-a", "--json"]).expect(0).text(), "");
        sandbox.run(["task", "set", &id, "--status", "reopen"]).expect(0);
        assert_eq!(status(&sandbox, &id), "todo");
        sandbox.run(["run", "--task", &id, "--", "true"]).expect(0);
        sandbox.run(["run", "--task", "t-00000000", "--", "true"]).expect(123);
    }

    fn an_attempt_of_a_task_takes_what_its_project_says() {
        let (sandbox, repo) = with_repo();
        repo.write(".gitignore", ".env*\n");
        let _ = repo.commit("ignore");
        repo.git(["branch", "develop"]);
        let _ = repo.commit("later");
        repo.write(".env", "secret\n");
        let id = task(&sandbox, &repo, &["--base", "develop", "--copy", ".env*", "--dev", "make serve"]);
        let ran = sandbox.run(["run", "--task", &id, "--", "sh", "-c", "cat .env; git rev-parse HEAD; echo x > made"]).expect(0);
        assert_eq!(ran.text(), format!("secret\n{}\n", repo.git(["rev-parse", "develop"]).trim()));
        let view = sandbox.run(["ls", "--task", &id, "--json"]).expect(0).json_lines();
        assert_eq!((&view[0]["base"], &view[0]["dirty"], &view[0]["ahead"]), (&"develop".into(), &false.into(), &1.into()));
        let ran = sandbox.run(["run", "--task", &id, "--base", "HEAD", "--copy", "nothing", "--title", "Other", "--", "sh", "-c", "ls -A"]).expect(0);
        assert!(!ran.text().contains(".env\n"), "{}", ran.text());
        let here = sandbox.path().to_str().unwrap();
        sandbox.run(["run", "--task", &id, "--dir", here, "--", "true"]).expect(0);
        let text = sandbox.run(["task", "ls"]).expect(0);
        assert!(text.text().contains("in_review  app      3 "), "{}", text.text());
    }

    fn descriptions_come_from_text_files_and_standard_input() {
        let (sandbox, repo) = with_repo();
        let id = task(&sandbox, &repo, &[]);
        let description = || sandbox.run(["task", "show", &id, "--json"]).expect(0).json()["description"].clone();
        assert_eq!(description(), "");
        sandbox.run(["task", "set", &id, "--description", "one"]).expect(0);
        assert_eq!(description(), "one");
        let file = sandbox.path().join("notes");
        std::fs::write(&file, "two\nlines\n").unwrap();
        sandbox.run(["task", "set", &id, "--description-file", file.to_str().unwrap()]).expect(0);
        assert_eq!(description(), "two\nlines\n");
        let mut command = sandbox.command(["task", "add", "More", "-p", "app", "--description-file", "-", "--json"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all("typed\n".as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let view: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        schemas().assert("task.json", &view);
        assert_eq!(view["description"], "typed\n");
        std::fs::write(&file, "x".repeat((1 << 20) + 1)).unwrap();
        sandbox.run(["task", "set", &id, "--description-file", file.to_str().unwrap()]).expect(2);
        sandbox.run(["task", "set", &id, "--description-file", "/nonexistent"]).expect(1);
        sandbox.run(["task", "set", &id, "--title", "two\nlines"]).expect(2);
        assert_eq!(description(), "two\nlines\n");
    }

    fn a_change_of_an_older_version_conflicts() {
        let (sandbox, repo) = with_repo();
        let id = task(&sandbox, &repo, &[]);
        sandbox.run(["task", "set", &id, "--title", "One", "--if-version", "1"]).expect(0);
        let late = sandbox.run(["task", "set", &id, "--title", "Other", "--if-version", "1", "--json"]).expect(4);
        assert_eq!(late.error()["error"]["kind"], "conflict");
        let view = sandbox.run(["task", "set", &id, "--status", "done", "--json"]).expect(0).json();
        assert_eq!((&view["title"], &view["version"]), (&"One".into(), &3.into()));
        sandbox.run(["task", "set", &id]).expect(2);
    }

    fn a_removed_task_leaves_its_attempts_and_their_work() {
        let (sandbox, repo) = with_repo();
        let id = task(&sandbox, &repo, &[]);
        sandbox.run(["run", "--task", &id, "--branch", "topic", "--", "sh", "-c", "echo x > made"]).expect(0);
        let parent = sandbox.run(["task", "add", "Go on", "-p", "app", "--parent", "@last", "--json"]).expect(0).json();
        let attempt = show(&sandbox, "topic");
        assert_eq!(parent["parent_attempt_id"], attempt["id"]);
        sandbox.run(["task", "rm", &id]).expect(0);
        sandbox.run(["task", "show", &id]).expect(3);
        assert_eq!(show(&sandbox, "topic")["status"], "finished");
        let second = sandbox.run(["task", "add", "Again", "-p", "app"]).expect(0).text().trim().to_owned();
        sandbox.run(["run", "--task", &second, "--branch", "other", "--", "true"]).expect(0);
        sandbox.run(["task", "rm", &second, "--attempts"]).expect(0);
        let view = show(&sandbox, "other");
        assert_eq!(view["status"], "removed");
        assert!(repo.git(["branch", "--list", "other"]).contains("other"));
    }

    fn a_task_of_the_repository_one_stands_in_needs_no_name() {
        let (sandbox, repo) = with_repo();
        let none = sandbox.run_in(repo.path(), ["task", "add", "x", "--json"]).expect(3);
        assert!(none.error()["error"]["hint"].as_str().unwrap().contains("project add"));
        let id = task(&sandbox, &repo, &[]);
        let ran = sandbox.run(["run", "--task", &id, "--", "pwd"]).expect(0);
        // Also in a worktree of it.
        let worktree = std::path::PathBuf::from(ran.text().trim());
        let here = sandbox.run_in(&worktree, ["task", "add", "y", "--json"]).expect(0).json();
        assert_eq!(here["project_id"], sandbox.run(["task", "show", &id, "--json"]).expect(0).json()["project_id"]);
        assert_eq!(sandbox.run(["task", "ls", "-p", "app", "--status", "todo", "--json"]).expect(0).json_lines().len(), 1);
    }
    fn a_killed_host_loses_no_project_and_no_task() {
        let (sandbox, repo) = with_repo();
        let id = task(&sandbox, &repo, &[]);
        let running = sandbox.run(["run", "-d", "--task", &id, "-i", "--", "sh", "-c", "read line"]).expect(0);
        let running = running.text().trim().to_owned();
        let mut events = sandbox.start(["events", "-f", "--json"]);
        while status(&sandbox, &id) != "in_progress" {
            assert!(events.line().is_some());
        }
        kill_host(&sandbox);
        assert_eq!(status(&sandbox, &id), "in_progress");
        sandbox.run(["input", &running, "go"]).expect(0);
        sandbox.run(["wait", &running]).expect(0);
        // The follower has gone on where it was.
        while !events.line().unwrap().contains("in_review") {}
        sandbox.run(["task", "set", &id, "--status", "done"]).expect(0);
        kill_host(&sandbox);
        assert_eq!(status(&sandbox, &id), "done");
    }
}
