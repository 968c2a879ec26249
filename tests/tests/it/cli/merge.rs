//! `merge`, `rebase`, `abort`, `push` and `set`: what becomes of the commits of attempts, whoever dies meanwhile.

use std::fs;
use std::path::PathBuf;

use rustix::process::Signal;
use serde_json::Value;
use windlass_tests::isolated;
use windlass_tests::process::{PATIENCE, ended, open, signal};
use windlass_tests::repo::{TempRepo, git_in};
use windlass_tests::sandbox::Sandbox;

use super::{run_script, schemas, show, with_repo};

/// An attempt with one commit; returns its id.
fn worked(sandbox: &Sandbox, repo: &TempRepo, script: &str) -> String {
    run_script(sandbox, repo, &["--title", "Change it"], script).expect(0);
    let view = sandbox.run(["ls", "--json"]).expect(0).json_lines().remove(0);
    view["id"].as_str().unwrap().to_owned()
}

fn worktree(sandbox: &Sandbox, id: &str) -> PathBuf {
    PathBuf::from(show(sandbox, id)["worktree"].as_str().unwrap())
}

fn kind(error: &Value) -> &str {
    schemas().assert("error.json", error);
    error["error"]["kind"].as_str().unwrap()
}

isolated! {
    fn work_is_merged_into_its_target_and_the_checkout_follows() {
        let (sandbox, repo) = with_repo();
        let id = worked(&sandbox, &repo, "echo new > new; echo changed > README.md");
        let merged = sandbox.run(["merge", &id, "--squash", "--json"]).expect(0).json();
        schemas().assert("integrated.json", &merged);
        assert_eq!((&merged["result"], &merged["target"], &merged["style"]), (&"merged".into(), &"main".into(), &"squash".into()));
        let head = repo.git(["rev-parse", "main"]);
        assert_eq!(merged["commit"], head.trim());
        assert_eq!(repo.git(["log", "-1", "--format=%s", "main"]).trim(), "Change it");
        assert_eq!(repo.git(["status", "--porcelain"]), "");
        assert_eq!(fs::read_to_string(repo.path().join("new")).unwrap(), "new\n");
        let view = show(&sandbox, &id);
        schemas().assert("attempt.json", &view);
        assert_eq!((&view["merged"]["commit"], &view["landed"]), (&merged["commit"], &true.into()));
        assert!(sandbox.run(["ls"]).expect(0).text().contains("finished (merged)"));
        let step = show(&sandbox, merged["execution_id"].as_str().unwrap());
        assert_eq!(step["run_reason"], "git");
        // Once more, and when the worktree is gone, it is as it was.
        let again = sandbox.run(["merge", &id, "--squash"]).expect(0);
        assert_eq!((again.text().trim(), again.stderr.contains("was merged before")), (head.trim(), true));
        let diff = sandbox.run(["diff", &id]).expect(0).stdout;
        assert!(String::from_utf8_lossy(&diff).contains("+new"));
        sandbox.run(["rm", "--delete-branch", &id]).expect(0);
        assert_eq!(sandbox.run(["diff", &id]).expect(0).stdout, diff);
        sandbox.run(["merge", &id]).expect(0);
        assert_eq!(show(&sandbox, &id)["status"], "removed");
        assert_eq!(repo.git(["rev-parse", "main"]), head);
    }

    fn a_merge_commit_goes_where_it_is_told_and_the_task_is_done() {
        let (sandbox, repo) = with_repo();
        repo.git(["branch", "next"]);
        sandbox.run_in(repo.path(), ["project", "add"]).expect(0);
        let task = sandbox.run_in(repo.path(), ["task", "add", "Do it"]).expect(0).text().trim().to_owned();
        sandbox.run_in(repo.path(), ["run", "--task", &task, "--", "sh", "-c", "echo x > x"]).expect(0);
        let status = || sandbox.run(["task", "show", &task, "--json"]).expect(0).json()["status"].clone();
        assert_eq!(status(), "in_review");
        sandbox.run(["merge", "@last", "--into", "next", "-m", "All of it"]).expect(0);
        assert_eq!(status(), "done");
        assert_eq!(repo.git(["log", "-1", "--format=%s", "next"]).trim(), "All of it");
        assert_eq!(repo.git(["rev-list", "--count", "next^2..next"]).trim(), "1");
        assert_eq!(show(&sandbox, "@last")["target"], Value::Null, "@last is the execution");
        let attempt = sandbox.run(["ls", "--json"]).expect(0).json_lines().remove(0);
        assert_eq!((&attempt["target"], &attempt["merged"]["target"]), (&"main".into(), &"next".into()));
    }

    fn what_cannot_be_merged_is_refused_with_what_to_do_and_nothing_is_touched() {
        let (sandbox, repo) = with_repo();
        let id = worked(&sandbox, &repo, "echo mine > README.md");
        let refused = |arguments: &[&str], expected: &str, says: &str| {
            let before = (repo.git(["rev-parse", "main"]), repo.git(["status", "--porcelain"]));
            let error = sandbox.run([&["--json"], arguments].concat()).expect(4).error();
            assert_eq!(kind(&error), expected, "{arguments:?}: {error}");
            let message = error["error"]["message"].as_str().unwrap();
            assert!(message.contains(says), "{arguments:?}: {message}");
            assert!(error["error"]["hint"].is_string());
            assert_eq!((repo.git(["rev-parse", "main"]), repo.git(["status", "--porcelain"])), before);
        };
        repo.write("README.md", "dirty\n");
        refused(&["merge", &id], "dirty", "README.md");
        let _ = repo.commit("theirs");
        refused(&["merge", &id], "merge_conflict", "README.md");
        refused(&["merge", &id, "--into", "missing"], "no_target", "missing");
        refused(&["push", &id], "no_target", "remote");
        refused(&["abort", &id], "nothing_to_do", "in progress");
        refused(&["rebase", &id, "--continue"], "nothing_to_do", "no rebase");
        fs::write(worktree(&sandbox, &id).join("forgotten"), "x").unwrap();
        refused(&["merge", &id], "dirty", "forgotten");
        refused(&["rebase", &id], "dirty", "forgotten");
        for wrong in [["merge", &id, "--into", "a b"], ["set", &id, "--pr", "nowhere"]] {
            sandbox.run(wrong).expect(2);
        }
        let idle = worked(&sandbox, &repo, "true");
        refused(&["merge", &idle], "nothing_to_do", "no commit of its own");
        let view = show(&sandbox, &id);
        assert_eq!((&view["status"], &view["merged"], &view["landed"]), (&"finished".into(), &Value::Null, &false.into()));
    }

    fn a_rebase_that_conflicts_is_resolved_by_somebody_and_goes_on() {
        let (sandbox, repo) = with_repo();
        let id = worked(&sandbox, &repo, "echo mine > README.md");
        repo.write("README.md", "theirs\n");
        let _ = repo.commit("theirs");
        let ran = sandbox.run(["rebase", &id, "--json"]).expect(4);
        let told = ran.json();
        schemas().assert("integrated.json", &told);
        assert_eq!((&told["result"], &told["files"]), (&"conflicts".into(), &serde_json::json!(["README.md"])));
        assert_eq!(kind(&ran.error()), "merge_conflict");
        let view = show(&sandbox, &id);
        schemas().assert("attempt.json", &view);
        assert_eq!((&view["in_progress"], &view["conflicts"]), (&"rebase".into(), &serde_json::json!(["README.md"])));
        assert_eq!((&view["landed"], &view["status"]), (&false.into(), &"finished".into()));
        assert!(sandbox.run(["ls"]).expect(0).text().contains("1 conflicts"));
        sandbox.run(["merge", &id]).expect(4);
        sandbox.run(["rebase", &id, "--continue"]).expect(4);
        sandbox.run(["exec", &id, "--", "sh", "-c", "echo both > README.md; git add README.md"]).expect(0);
        sandbox.run(["rebase", &id, "--continue"]).expect(0);
        sandbox.run(["merge", &id]).expect(0);
        assert_eq!(fs::read_to_string(repo.path().join("README.md")).unwrap(), "both\n");
        assert_eq!(show(&sandbox, &id)["ahead"], 1, "the commits of others are not its own");
    }

    fn what_is_given_up_is_saved_and_the_worktree_is_as_before() {
        let (sandbox, repo) = with_repo();
        let id = worked(&sandbox, &repo, "echo mine > README.md");
        let place = worktree(&sandbox, &id);
        let head = git_in(&place, ["rev-parse", "HEAD"]);
        repo.write("README.md", "theirs\n");
        let _ = repo.commit("theirs");
        sandbox.run(["rebase", &id]).expect(4);
        fs::write(place.join("README.md"), "half resolved\n").unwrap();
        sandbox.run(["abort", &id]).expect(0);
        assert_eq!((git_in(&place, ["rev-parse", "HEAD"]), git_in(&place, ["status", "--porcelain"])), (head, String::new()));
        let saved = sandbox.run(["snapshots", &id, "--json"]).expect(0).json_lines();
        assert_eq!(saved[0]["cause"], "reset");
        let archive = saved[0]["archive"].as_str().unwrap();
        let read = std::process::Command::new("tar").args(["--zstd", "-xOf", archive, "files/README.md"]).output().unwrap();
        assert_eq!(read.stdout, b"half resolved\n");
    }

    fn a_branch_is_pushed_and_its_pull_request_is_noted() {
        let (sandbox, repo) = with_repo();
        let there = sandbox.path().join("there.git");
        let there = there.to_str().unwrap();
        repo.git(["init", "--quiet", "--bare", there]);
        repo.git(["remote", "add", "origin", there]);
        let id = worked(&sandbox, &repo, "echo new > new");
        let pushed = sandbox.run(["push", &id, "--json"]).expect(0).json();
        schemas().assert("integrated.json", &pushed);
        let branch = pushed["branch"].as_str().unwrap();
        assert_eq!(repo.git(["--git-dir", there, "rev-parse", branch]).trim(), pushed["head"]);
        let hook = repo.path().join(".git/hooks/pre-push");
        fs::create_dir_all(hook.parent().unwrap()).unwrap();
        let mut writer = std::process::Command::new("/bin/sh");
        writer.args(["-c", "printf '#!/bin/sh\necho not today >&2\nexit 1\n' > \"$0\" && chmod 755 \"$0\""]);
        assert!(writer.arg(&hook).status().unwrap().success());
        let error = sandbox.run(["push", &id, "--remote", "origin", "--json"]).expect(4).error();
        assert!(kind(&error) == "git" && error.to_string().contains("not today"), "{error}");
        let url = "https://example.org/pulls/7";
        sandbox.run(["set", &id, "--pr", url, "--target", "next"]).expect(0);
        sandbox.run(["set", &id, "--pr", url, "--pr-state", "merged"]).expect(0);
        let view = show(&sandbox, &id);
        schemas().assert("attempt.json", &view);
        assert_eq!((&view["pull_requests"][0]["state"], &view["target"]), (&"merged".into(), &"next".into()));
        let text = sandbox.run(["show", &id]).expect(0);
        assert!(text.text().contains("https://example.org/pulls/7 (merged)"), "{}", text.text());
    }

    fn a_merge_whose_host_is_killed_is_done_once_by_the_next() {
        let (sandbox, repo) = with_repo();
        let id = worked(&sandbox, &repo, "echo new > new");
        // The user's hook keeps the step busy until it is told to go on.
        let (began, go_on) = (sandbox.path().join("began"), sandbox.path().join("go on"));
        for fifo in [&began, &go_on] {
            assert!(std::process::Command::new("mkfifo").arg(fifo).status().unwrap().success());
        }
        let hook = repo.path().join(".git/hooks/post-merge");
        fs::create_dir_all(hook.parent().unwrap()).unwrap();
        let script = format!("#!/bin/sh\\necho ran >> '{}'\\necho > '{}'\\nread x < '{}'\\n",
            sandbox.path().join("runs").display(), began.display(), go_on.display());
        let mut writer = std::process::Command::new("/bin/sh");
        writer.args(["-c", "printf \"$1\" > \"$0\" && chmod 755 \"$0\""]).arg(&hook).arg(script);
        assert!(writer.status().unwrap().success());
        let merging = sandbox.start(["merge", &id]);
        fs::read(&began).unwrap();
        let pid = sandbox.run(["host", "status", "--json"]).expect(0).json()["pid"].as_u64().unwrap();
        let pid = u32::try_from(pid).unwrap();
        let host = open(pid).unwrap();
        signal(&host, Signal::KILL).unwrap();
        assert!(ended(&host, PATIENCE).unwrap(), "the host did not die");
        fs::write(&go_on, "\n").unwrap();
        // Whoever asked asks the next host again by itself.
        merging.wait().expect(0);
        assert_eq!(fs::read_to_string(sandbox.path().join("runs")).unwrap(), "ran\n");
        assert_eq!(repo.git(["rev-list", "--count", "--first-parent", "main"]).trim(), "2");
        assert_eq!(repo.git(["status", "--porcelain"]), "");
        let view = show(&sandbox, &id);
        assert_eq!((&view["merged"]["target"], &view["integrating"]), (&"main".into(), &Value::Null));
    }
}
