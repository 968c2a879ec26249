//! What people are told: at once, of the right thing, with what helps.

use std::fs;
use std::path::{Path, PathBuf};

use windlass_tests::isolated;
use windlass_tests::repo::git_in;

use super::{run_detached, run_script, run_until_ready, schemas, show, with_repo};

isolated! {
    fn a_secret_without_a_value_is_refused_at_once() {
        let (sandbox, repo) = with_repo();
        for (secret, why) in [
            ("S=file:/no/such/file", "/no/such/file"),
            ("S=cmd:exit 3", "exit status: 3"),
            ("S=env:NO_SUCH_VARIABLE", "NO_SUCH_VARIABLE"),
        ] {
            let ran = run_script(&sandbox, &repo, &["--json", "--secret", secret], "true").expect(122);
            let error = ran.error();
            schemas().assert("error.json", &error);
            assert_eq!(error["error"]["kind"], "no_secret", "{error}");
            let message = error["error"]["message"].as_str().unwrap();
            assert!(message.contains("secret S") && message.contains(why), "{message}");
        }
        assert_eq!(sandbox.run(["ls", "-a"]).expect(0).text(), "", "an attempt was left");
        run_script(&sandbox, &repo, &[], "true").expect(0);
        sandbox.run(["exec", "@last", "--secret", "S=file:/no/such/file", "--", "true"]).expect(122);
    }

    fn a_repeated_request_is_not_refused_for_a_source_that_is_gone() {
        let (sandbox, repo) = with_repo();
        let file = sandbox.path().join("secret");
        fs::write(&file, "v").unwrap();
        let secret = format!("S=file:{}", file.display());
        let flags = ["--key", "once", "--secret", &secret];
        let id = run_detached(&sandbox, &repo, &flags, "test $S = v");
        sandbox.run(["wait", &id]).expect(0);
        fs::remove_file(&file).unwrap();
        assert_eq!(run_detached(&sandbox, &repo, &flags, "test $S = v"), id);
    }

    fn a_secret_that_went_with_its_host_is_named_and_can_be_given_again() {
        let (sandbox, repo) = with_repo();
        sandbox.run(["config", "set", "limits.per_host", "1"]).expect(0);
        let running = run_until_ready(&sandbox, &repo);
        let ask = |key: &[&str]| {
            let mut command = sandbox.command([&["run", "-d", "--secret", "TOKEN"], key, &["--", "sh", "-c", "test $TOKEN = t"]].concat());
            command.current_dir(repo.path()).env("TOKEN", "t");
            windlass_tests::sandbox::run(&mut command).expect(0).text().trim().to_owned()
        };
        let waiting = ask(&[]);
        let queued = show(&sandbox, &waiting);
        assert_eq!((&queued["status"], &queued["missing_secret"]), (&"queued".into(), &serde_json::Value::Null));
        sandbox.run(["host", "stop"]).expect(0);
        sandbox.run(["stop", &running]).expect(0);
        let mut events = sandbox.start(["events", "-f", "--json"]);
        let without = loop {
            let seen = show(&sandbox, &waiting);
            if seen["waiting_for"] == "secret" {
                break seen;
            }
            assert!(events.line().is_some());
        };
        schemas().assert("execution.json", &without);
        assert_eq!(without["missing_secret"], "TOKEN");
        let text = sandbox.run(["show", &waiting]).expect(0);
        assert!(text.text().contains("the secret TOKEN"), "{}", text.text());
        assert_eq!(ask(&["--key", without["client_key"].as_str().unwrap()]), waiting);
        sandbox.run(["wait", &waiting]).expect(0);
    }

    fn a_wait_of_no_time_tells_how_it_stands() {
        let (sandbox, repo) = with_repo();
        let done = run_detached(&sandbox, &repo, &[], "echo x > made; exit 0");
        let failed = run_detached(&sandbox, &repo, &[], "exit 7");
        sandbox.run(["wait", &done, &failed]).expect(7);
        let running = run_until_ready(&sandbox, &repo);
        for limit in ["0s", "1ms"] {
            sandbox.run(["wait", &done, "--timeout", limit]).expect(0);
            sandbox.run(["wait", &done, &failed, "--timeout", limit]).expect(7);
            sandbox.run(["wait", &running, &failed, "--any", "--timeout", limit]).expect(7);
            let told = sandbox.run(["wait", &running, &done, "--timeout", limit]).expect(119);
            assert!(told.text().contains(&done), "what is done is told: {}", told.text());
        }
    }

    fn a_restore_says_what_is_not_as_it_was() {
        let (sandbox, repo) = with_repo();
        run_script(&sandbox, &repo, &["--branch", "topic"], "echo x > made").expect(0);
        let there = sandbox.run(["restore", "topic"]).expect(0);
        assert!(there.stderr.contains("was not removed"), "{}", there.stderr);
        sandbox.run(["rm", "topic"]).expect(0);
        let quiet = sandbox.run(["restore", "topic"]).expect(0);
        assert_eq!(quiet.stderr, "", "it is as it was");
        sandbox.run(["rm", "topic"]).expect(0);
        repo.git(["branch", "-f", "topic", "main"]);
        let told = sandbox.run(["restore", "topic", "--json"]).expect(0);
        assert!(told.stderr.contains("HEAD is detached") && told.stderr.contains("topic"), "{}", told.stderr);
        assert_eq!(told.json()["branch"], serde_json::Value::Null);
        assert_eq!(repo.git(["rev-parse", "topic"]), repo.git(["rev-parse", "main"]));
    }

    fn a_worktree_that_is_gone_is_listed_as_gone() {
        let (sandbox, repo) = with_repo();
        let ran = run_script(&sandbox, &repo, &[], "pwd").expect(0);
        fs::remove_dir_all(ran.text().trim()).unwrap();
        let seen = sandbox.run(["ls", "--json"]).expect(0).json_lines();
        assert_eq!(seen[0]["missing"], true, "{seen:?}");
        assert!(sandbox.run(["ls"]).expect(0).text().contains(" gone "));
        let id = seen[0]["id"].as_str().unwrap();
        assert!(sandbox.run(["show", id]).expect(0).text().contains("(gone: somebody deleted it)"));
    }

    fn repositories_of_their_own_are_named_as_not_committed() {
        let (sandbox, repo) = with_repo();
        let script = "git init -q nested; echo x > nested/file";
        let ran = sandbox.run_in(repo.path(), ["run", "--merge-streams", "--", "sh", "-c", script]).expect(0);
        let expected = "nested is a repository of its own and is not committed";
        assert!(ran.stderr.contains(expected), "{}", ran.stderr);
        let committed = sandbox.run(["commit", "@last"]).expect(0);
        assert!(committed.stderr.contains(expected), "{}", committed.stderr);
        let attempt = ran.stderr.split(' ').next().unwrap();
        assert!(sandbox.run(["show", attempt]).expect(0).text().contains(expected));
    }

    fn a_failure_that_left_changes_says_so_without_a_terminal_too() {
        let (sandbox, repo) = with_repo();
        let ran = run_script(&sandbox, &repo, &[], "echo x > made; exit 3").expect(3);
        assert!(ran.stderr.contains("changes not committed; windlass diff a-"), "{}", ran.stderr);
        let clean = run_script(&sandbox, &repo, &[], "exit 3").expect(3);
        assert_eq!(clean.stderr.lines().count(), 1, "{}", clean.stderr);
    }

    fn what_was_stopped_is_killed_in_every_word_and_found_by_both() {
        let (sandbox, repo) = with_repo();
        let id = run_until_ready(&sandbox, &repo);
        let told = sandbox.run(["stop", &id]).expect(0);
        assert!(told.text().contains("killed: stopped"), "{}", told.text());
        assert!(sandbox.run(["show", &id]).expect(0).text().contains("killed: stopped"));
        for word in ["killed", "stopped"] {
            let found = sandbox.run(["ps", "--status", word, "--json"]).expect(0).json_lines();
            assert_eq!(found.len(), 1, "{word}");
        }
    }

    fn what_was_typed_is_shown_when_it_is_asked_for() {
        let (sandbox, repo) = with_repo();
        let id = run_detached(&sandbox, &repo, &["--stdin"], "read line; echo got $line; echo more");
        sandbox.run(["input", &id, "--close", "typed"]).expect(0);
        sandbox.run(["wait", &id]).expect(0);
        assert_eq!(sandbox.run(["logs", &id, "--stream", "stdin"]).expect(0).text(), "typed\n");
        assert!(sandbox.run(["logs", &id, "--limit", "1"]).expect(0).text().starts_with("got typed\n"));
        assert_eq!(sandbox.run(["logs", &id, "--raw"]).expect(0).text(), "got typed\nmore\n");
    }

    fn hints_fit() {
        let (sandbox, repo) = with_repo();
        let copied = run_script(&sandbox, &repo, &["--copy", "/etc/passwd"], "true").expect(122);
        assert!(copied.stderr.contains(".gitignore") && !copied.stderr.contains("above"), "{}", copied.stderr);
        let absent = sandbox.run(["run", "--repo", "/no/such/place", "--", "true"]).expect(122);
        assert!(absent.stderr.contains("there is no /no/such/place"), "{}", absent.stderr);
        for (branch, why) in [("refs/heads/q", "without refs/heads/"), (&*"b".repeat(260), "250 bytes")] {
            let refused = run_script(&sandbox, &repo, &["--branch", branch], "true").expect(122);
            assert!(refused.stderr.contains(why), "{}", refused.stderr);
        }
        repo.git(["branch", "windlass"]);
        let in_the_way = run_script(&sandbox, &repo, &[], "true").expect(122);
        assert!(in_the_way.stderr.contains("worktrees.branch_prefix"), "{}", in_the_way.stderr);
        repo.git(["branch", "-D", "windlass"]);
        let short = sandbox.run(["show", "abc"]).expect(3);
        assert!(short.stderr.contains("4 digits"), "{}", short.stderr);
        for timeout in ["-5s", "99999999999999999999h"] {
            let refused = run_script(&sandbox, &repo, &["--timeout", timeout], "true").expect(120);
            assert!(refused.stderr.contains("duration"), "{}", refused.stderr);
        }
        let negative = sandbox.run(["config", "set", "limits.queue", "-1"]).expect(2);
        assert!(negative.stderr.contains("a number from 1 on"), "{}", negative.stderr);
        sandbox.run(["config", "set", "disk_floor_bytes", &u64::MAX.to_string()]).expect(0);
        let floor = sandbox.run(["doctor"]).expect(1);
        assert!(floor.text().contains("disk_floor_bytes"), "{}", floor.text());
    }

    fn a_worktree_that_somebody_works_in_is_told_by_whom_to_end_it() {
        let (sandbox, repo) = with_repo();
        let id = run_until_ready(&sandbox, &repo);
        let ours = sandbox.run(["rm", "@last"]).expect(4);
        assert!(ours.stderr.contains("windlass rm --force"), "{}", ours.stderr);
        let commit = sandbox.run(["commit", "@last"]).expect(4);
        assert!(!commit.stderr.contains("--force"), "{}", commit.stderr);
        sandbox.run(["stop", &id]).expect(0);
    }

    fn an_attempt_without_its_repository_says_that() {
        let (sandbox, repo) = with_repo();
        let ran = run_script(&sandbox, &repo, &["--branch", "topic"], "pwd; echo x > made").expect(0);
        let worktree = PathBuf::from(ran.text().trim());
        sandbox.run(["rm", "topic"]).expect(0);
        let away = sandbox.path().join("away");
        fs::rename(repo.path(), &away).unwrap();
        let refused = sandbox.run(["--json", "restore", "topic"]);
        fs::rename(&away, repo.path()).unwrap();
        let error = refused.expect(4).error();
        assert_eq!(error["error"]["kind"], "repository_gone", "{error}");
        assert!(!worktree.exists());
        sandbox.run(["restore", "topic"]).expect(0);
        assert_eq!(git_in(Path::new(&worktree), ["rev-parse", "--abbrev-ref", "HEAD"]), "topic");
    }
}
