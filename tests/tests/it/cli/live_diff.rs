//! `diff -f`: a diff as it changes.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::Value;
use windlass_tests::isolated;
use windlass_tests::sandbox::{Running, Sandbox};

use super::terminal::Terminal;
use super::{run_script, schemas, show, with_repo};

/// A worktree with one change, at rest.
fn worktree(sandbox: &Sandbox, repo: &windlass_tests::repo::TempRepo) -> PathBuf {
    let ran = run_script(sandbox, repo, &["--no-commit"], "pwd; echo x > made").expect(0);
    Path::new(ran.text().trim()).to_owned()
}

/// Reads events until everything is told that was seen, and at least `wanted` of a kind.
fn until_current(running: &mut Running, kind: &str) -> Vec<Value> {
    let mut events: Vec<Value> = Vec::new();
    loop {
        let line = running.line().expect("another event");
        let event: Value = serde_json::from_str(&line).unwrap();
        schemas().assert("diff-event.json", &event);
        let is_current = event["event"] == "current";
        events.push(event);
        if is_current && events.iter().any(|event| event["event"] == kind) {
            return events;
        }
    }
}

fn told(events: &[Value]) -> Vec<(&str, &str)> {
    let name = |event: &Value| event["event"].as_str().map(str::to_owned);
    let kinds = ["file", "removed"];
    events
        .iter()
        .filter(|event| name(event).is_some_and(|name| kinds.contains(&name.as_str())))
        .map(|event| {
            let path = event["path"].as_str().or_else(|| event["file"]["path"].as_str());
            (event["event"].as_str().unwrap(), path.unwrap())
        })
        .collect()
}

isolated! {
    fn a_followed_diff_begins_whole_and_goes_on_with_what_changes() {
        let (sandbox, repo) = with_repo();
        let top = worktree(&sandbox, &repo);
        let mut following = sandbox.start(["diff", "@last", "-f", "--json"]);
        let events = until_current(&mut following, "file");
        assert_eq!((&events[0]["event"], told(&events)), (&"began".into(), vec![("file", "made")]));
        assert!(events[1]["patch"].as_str().unwrap().contains("\n+x\n"), "{events:?}");
        let index = repo.git(["count-objects", "-v"]);
        fs::write(top.join("README.md"), "changed\n").unwrap();
        assert_eq!(told(&until_current(&mut following, "file")), [("file", "README.md")]);
        fs::remove_file(top.join("made")).unwrap();
        assert_eq!(told(&until_current(&mut following, "removed")), [("removed", "made")]);
        assert_eq!(repo.git(["count-objects", "-v"]), index);
        // It goes on while executions come and go, and a commit is no new generation.
        sandbox.run(["exec", "@last", "--", "sh", "-c", "echo y > later"]).expect(0);
        assert_eq!(told(&until_current(&mut following, "file")), [("file", "later")]);
        sandbox.run(["commit", "@last", "-m", "work"]).expect(0);
        let events = until_current(&mut following, "file");
        assert!(events.iter().all(|event| event["event"] != "began"), "{events:?}");
        following.signal(Signal::INT);
        following.wait().expect(130);
    }

    fn a_removed_worktree_comes_back_to_be_followed_and_its_removal_ends_that() {
        let (sandbox, repo) = with_repo();
        let top = worktree(&sandbox, &repo);
        let id = show(&sandbox, "@last")["id"].as_str().unwrap().to_owned();
        sandbox.run(["rm", &id]).expect(0);
        assert!(!top.exists());
        let mut following = sandbox.start(["diff", &id, "-f", "--json"]);
        assert_eq!(told(&until_current(&mut following, "file")), [("file", "made")]);
        assert!(top.exists());
        sandbox.run(["rm", &id]).expect(0);
        let ran = following.wait().expect(4);
        assert_eq!(ran.error()["error"]["kind"], "workspace_gone");
    }

    fn a_removal_that_is_refused_ends_nothing() {
        let (sandbox, repo) = with_repo();
        let top = worktree(&sandbox, &repo);
        let mut following = sandbox.start(["diff", "@last", "-f", "--json"]);
        until_current(&mut following, "file");
        rustix::fs::mkfifoat(rustix::fs::CWD, top.join("pipe"), rustix::fs::Mode::RWXU).unwrap();
        sandbox.run(["rm", "@last"]).expect(4);
        fs::write(top.join("later"), "x\n").unwrap();
        let mut events = Vec::new();
        while !told(&events).contains(&("file", "later")) {
            events.extend(until_current(&mut following, "current"));
        }
    }

    fn another_host_tells_a_followed_diff_anew() {
        let (sandbox, repo) = with_repo();
        let top = worktree(&sandbox, &repo);
        let mut following = sandbox.start(["diff", "@last", "-f", "--json"]);
        let first = until_current(&mut following, "file");
        sandbox.run(["host", "stop"]).expect(0);
        let again = until_current(&mut following, "began");
        assert!(again[0]["generation"].as_u64() > first[0]["generation"].as_u64());
        assert_eq!(told(&again), [("file", "made")]);
        fs::write(top.join("new"), "x\n").unwrap();
        assert_eq!(told(&until_current(&mut following, "file")), [("file", "new")]);
    }

    fn a_pipe_gets_a_line_for_each_change() {
        let (sandbox, repo) = with_repo();
        let top = worktree(&sandbox, &repo);
        let mut following = sandbox.start(["diff", "@last", "-f"]);
        assert_eq!(following.line().as_deref(), Some("? +1 -0 made"));
        fs::write(top.join("README.md"), "").unwrap();
        let line = following.line().unwrap();
        assert!(line.starts_with("M +0 -") && line.ends_with(" README.md"), "{line}");
        fs::remove_file(top.join("made")).unwrap();
        assert_eq!(following.line().as_deref(), Some("- made"));
    }

    fn a_terminal_shows_a_table_that_is_drawn_again() {
        let (sandbox, repo) = with_repo();
        let top = worktree(&sandbox, &repo);
        let Some(mut terminal) = Terminal::open(&sandbox) else { return };
        let program = env!("CARGO_BIN_EXE_windlass-under-test");
        terminal.line(&format!("cd {}", repo.path().display()));
        terminal.line(&format!("{program} --color never diff @last -f; echo co''de=$?;"));
        let shown = terminal.until("1 file changed, 1 line added, 0 removed; against");
        assert!(shown.contains("made"), "{shown}");
        fs::write(top.join("second"), "1\n2\n").unwrap();
        let shown = terminal.until("2 files changed, 3 lines added, 0 removed; against");
        assert!(shown.contains("second"), "{shown}");
        terminal.tmux(&["send-keys", "C-c"]);
        terminal.until("code=130");
    }

    fn a_directory_has_no_diff_to_follow() {
        let (sandbox, _) = with_repo();
        let dir = sandbox.path().to_str().unwrap();
        sandbox.run(["run", "--dir", dir, "--", "true"]).expect(0);
        let ran = sandbox.run(["diff", "@last", "-f", "--json"]).expect(4);
        assert_eq!((ran.text(), ran.error()["error"]["kind"].as_str()), ("", Some("not_a_worktree")));
    }
}
