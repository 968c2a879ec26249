//! `run`: what it makes, what it prints, how it ends.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use windlass_tests::isolated;
use windlass_tests::repo::{TempRepo, git_in};

use super::{run_detached, run_script, sandbox, schemas, show, with_repo};

isolated! {
    fn a_command_runs_in_a_new_worktree_and_what_it_changed_is_committed() {
        let (sandbox, repo) = with_repo();
        let head = repo.git(["rev-parse", "HEAD"]);
        let ran = run_script(&sandbox, &repo, &["--title", "Say Hello"], "pwd; echo hello > new; echo oops >&2").expect(0);

        let attempt = sandbox.run(["show", "@last", "--json"]).expect(0).json();
        let execution = show(&sandbox, ran.stderr.lines().next().unwrap().split(' ').nth(1).unwrap());
        schemas().assert("execution.json", &execution);
        let worktree = sandbox.run(["path", execution["attempt_id"].as_str().unwrap()]).expect(0);
        assert_eq!(ran.text(), worktree.text());
        assert!(ran.stderr.lines().any(|line| line == "oops"), "{}", ran.stderr);

        let committed = execution["committed"].as_str().unwrap_or_else(|| panic!("{execution:#} {attempt:#}"));
        assert_eq!(git_in(repo.path(), ["show", &format!("{committed}:new")]), "hello");
        assert_eq!(execution["before_head"], head.as_str());
        assert_eq!(execution["after_head"], head.as_str(), "the command itself committed nothing");
        assert_eq!(repo.git(["rev-parse", "HEAD"]), head, "the user's branch moved");
        assert_eq!(repo.git(["status", "--porcelain"]), "", "the user's checkout is dirty");
    }

    fn the_exit_code_is_that_of_the_command() {
        let (sandbox, repo) = with_repo();
        let code = |flags: &[&str], script: &str| run_script(&sandbox, &repo, flags, script).code.unwrap();
        assert_eq!(code(&[], "exit 0"), 0);
        assert_eq!(code(&[], "exit 7"), 7);
        assert_eq!(code(&[], "kill -KILL $$"), 128 + 9);
        assert_eq!(code(&[], "kill -USR1 $$"), 128 + 10);
        assert_eq!(code(&["--timeout", "100ms"], "sleep 1000"), 124);
        assert_eq!(code(&["--idle-timeout", "100ms"], "echo a; sleep 1000"), 124);
    }

    fn a_program_that_cannot_be_started_has_a_code_of_its_own() {
        let (sandbox, repo) = with_repo();
        repo.write("plain", "no program");
        fs::set_permissions(repo.path().join("plain"), fs::Permissions::from_mode(0o644)).unwrap();
        let _: String = repo.commit("a file that is no program");
        for (program, code) in [("no-such-program", 127), ("./plain", 126)] {
            let ran = sandbox.run_in(repo.path(), ["run", "--", program]).expect(code);
            let id = ran.stderr.lines().next().unwrap().split(' ').nth(1).unwrap().to_owned();
            let execution = show(&sandbox, &id);
            assert_eq!(execution["outcome"]["kind"], "not_started", "{execution:#}");
            assert_eq!(execution["exit"], serde_json::Value::Null);
            assert_eq!(execution["exit_code"], code);
        }
    }

    fn detached_it_prints_the_execution_alone_and_runs_on() {
        let (sandbox, repo) = with_repo();
        let id = run_detached(&sandbox, &repo, &[], "exit 3");
        assert!(id.starts_with("x-") && id.len() == 10, "{id}");
        let ended = sandbox.run(["wait", &id, "--json"]).expect(3).json();
        schemas().assert("execution.json", &ended);
        assert_eq!(ended["outcome"], serde_json::json!({"kind": "exited", "code": 3}));
    }

    fn a_plain_directory_is_left_as_the_command_leaves_it() {
        let (sandbox, repo) = with_repo();
        let directory = repo.path().to_str().unwrap();
        sandbox.run(["run", "--dir", directory, "--", "sh", "-c", "pwd; echo x > made"]).expect(0);
        assert_eq!(repo.git(["status", "--porcelain"]), "?? made");
        sandbox.run(["rm", "@last"]);
        assert!(repo.path().join("made").exists());
        assert_eq!(repo.git(["worktree", "list", "--porcelain"]).matches("worktree ").count(), 1);
    }

    fn a_shell_text_is_run_by_a_shell() {
        let (sandbox, repo) = with_repo();
        let ran = sandbox.run_in(repo.path(), ["run", "--shell", "echo a && echo b | tr b c"]).expect(0);
        assert_eq!(ran.text(), "a\nc\n");
    }

    fn branch_base_and_title_are_taken() {
        let (sandbox, repo) = with_repo();
        let first = repo.git(["rev-parse", "HEAD"]);
        repo.write("second", "x");
        let _: String = repo.commit("second");
        let flags = ["--base", &first, "--branch", "feature/new-parser", "--title", "Der Größte"];
        let ran = run_script(&sandbox, &repo, &flags, "ls; git rev-parse --abbrev-ref HEAD").expect(0);
        assert_eq!(ran.text(), "README.md\nsrc\nfeature/new-parser\n");
        let attempt = sandbox.run(["show", "feature/new-parser", "--json"]).expect(0).json();
        schemas().assert("attempt.json", &attempt);
        assert_eq!(attempt["title"], "Der Größte");
        assert_eq!(attempt["base_oid"], first.as_str());
    }

    fn changes_stay_in_the_worktree_if_nothing_is_to_be_committed() {
        let (sandbox, repo) = with_repo();
        let ran = run_script(&sandbox, &repo, &["--no-commit"], "pwd; echo x > made").expect(0);
        let worktree = std::path::Path::new(ran.text().trim());
        assert_eq!(git_in(worktree, ["status", "--porcelain"]), "?? made");
        assert_eq!(git_in(worktree, ["rev-parse", "HEAD"]), repo.git(["rev-parse", "HEAD"]));
    }

    fn nothing_is_committed_after_a_bad_end() {
        let (sandbox, repo) = with_repo();
        let ran = run_script(&sandbox, &repo, &[], "pwd; echo x > made; exit 1").expect(1);
        let worktree = std::path::Path::new(ran.text().trim());
        assert_eq!(git_in(worktree, ["status", "--porcelain"]), "?? made");
        assert_eq!(git_in(worktree, ["rev-parse", "HEAD"]), repo.git(["rev-parse", "HEAD"]));
    }

    fn a_hook_that_refuses_fails_the_commit_and_keeps_the_work() {
        let (sandbox, repo) = with_repo();
        let hook = repo.path().join(".git/hooks/pre-commit");
        fs::create_dir_all(hook.parent().unwrap()).unwrap();
        fs::write(&hook, "#!/bin/sh\necho not like this >&2\nexit 1\n").unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
        let ran = run_script(&sandbox, &repo, &[], "pwd; echo x > made").expect(1);
        let worktree = std::path::Path::new(ran.text().trim());
        assert!(worktree.join("made").exists());
        let attempt = sandbox.run(["ls", "--json"]).expect(0).json_lines().remove(0);
        assert_eq!((&attempt["status"], attempt["reason"].is_null()), (&"held".into(), false), "{attempt:#}");
    }

    fn the_environment_is_what_was_asked_for() {
        let (sandbox, repo) = with_repo();
        let print = "echo ${A-none} ${B-none} ${C-none} ${WINDLASS_EXECUTION_ID:+id} ${WINDLASS_ATTEMPT_ID:+id}";
        let run = |flags: &[&str]| {
            let arguments = [&["run"], flags, &["--", "sh", "-c", print]].concat();
            let mut command = sandbox.command(arguments);
            command.current_dir(repo.path()).env("A", "from-here").env("C", "not-asked-for");
            windlass_tests::sandbox::run(&mut command).expect(0).text().to_owned()
        };
        assert_eq!(run(&[]), "none none none id id\n");
        assert_eq!(run(&["--env", "A", "--env", "B=given"]), "from-here given none id id\n");
        assert_eq!(run(&["--env-all"]), "from-here none not-asked-for id id\n");
    }

    fn a_secret_reaches_the_command_and_no_file() {
        let (sandbox, repo) = with_repo();
        let secret = "correct-horse-battery-staple";
        let mut command = sandbox.command(["run", "--secret", "TOKEN", "--", "sh", "-c", "echo ${#TOKEN}"]);
        command.current_dir(repo.path()).env("TOKEN", secret);
        let ran = windlass_tests::sandbox::run(&mut command).expect(0);
        assert_eq!(ran.text(), format!("{}\n", secret.len()));
        let found = files_with(&sandbox.data_dir(), secret.as_bytes());
        assert_eq!(found, Vec::<std::path::PathBuf>::new());
    }

    fn one_pipe_for_both_streams_keeps_the_order_of_writing() {
        let (sandbox, repo) = with_repo();
        let script = "i=0; while [ $i -lt 200 ]; do echo $i; i=$((i+1)); echo $i >&2; i=$((i+1)); done";
        let ran = run_script(&sandbox, &repo, &["--merge-streams"], script).expect(0);
        let expected: String = (0..200).map(|i| format!("{i}\n")).collect();
        assert_eq!(ran.text(), expected);
    }

    fn standard_input_is_null_unless_it_is_forwarded() {
        let (sandbox, repo) = with_repo();
        assert_eq!(run_script(&sandbox, &repo, &[], "wc -c").expect(0).text().trim(), "0");
        let mut command = sandbox.command(["run", "--stdin", "--", "sh", "-c", "cat; echo end"]);
        command.current_dir(repo.path());
        let mut input = tempfile::tempfile().unwrap();
        input.write_all(b"one\ntwo").unwrap();
        std::io::Seek::rewind(&mut input).unwrap();
        command.stdin(input);
        assert_eq!(windlass_tests::sandbox::run(&mut command).expect(0).text(), "one\ntwoend\n");
    }

    fn what_a_command_leaves_behind_is_ended_unless_it_is_to_stay() {
        let (sandbox, repo) = with_repo();
        let script = "sleep 1000 >/dev/null 2>&1 & echo $!";
        let ran = run_script(&sandbox, &repo, &[], script).expect(0);
        assert!(!lives(ran.text().trim()), "it was left running");
        let ran = run_script(&sandbox, &repo, &["--leave-running"], script).expect(0);
        assert!(lives(ran.text().trim()), "it was ended");
    }

    fn a_repeated_request_is_the_same_execution() {
        let (sandbox, repo) = with_repo();
        let keyed = ["--key", "once"];
        let first = run_detached(&sandbox, &repo, &keyed, "echo ran >> ../count; exit 0");
        let second = run_detached(&sandbox, &repo, &keyed, "echo ran >> ../count; exit 0");
        assert_eq!(first, second);
        assert_eq!(sandbox.run(["ps", "-a", "--json"]).expect(0).json_lines().len(), 1);
        let other = run_script(&sandbox, &repo, &["-d", "--key", "once"], "echo something else");
        assert_eq!(other.code, Some(122), "the same key for another request: {}", other.stderr);
    }

    fn a_key_stands_for_what_was_asked_for_and_not_for_where_it_was_asked() {
        let (sandbox, repo) = with_repo();
        let elsewhere = |dir: &std::path::Path, flags: &[&str], lang: &str| {
            let asked = ["run", "-d", "--key", "once", "--repo", repo.path().to_str().unwrap()];
            let mut command = sandbox.command([&asked, flags, &["--", "true"]].concat());
            command.current_dir(dir).env("LANG", lang).env("TERM", lang).env("XDG_DATA_HOME", lang);
            windlass_tests::sandbox::run(&mut command)
        };
        let first = elsewhere(repo.path(), &[], "C").expect(0);
        for flags in [&[][..], &["--no-queue"], &["--env-all"]] {
            let again = elsewhere(sandbox.path(), flags, "C.UTF-8").expect(0);
            assert_eq!(again.text(), first.text(), "{flags:?}");
        }
        assert_eq!(sandbox.run(["ps", "-a", "--json"]).expect(0).json_lines().iter().filter(|one| one["run_reason"] == "agent").count(), 1);
        for flags in [&["--env", "A=b"][..], &["--timeout", "1h"], &["--secret", "T=env:HOME"], &["--base", "main"]] {
            let error = elsewhere(repo.path(), &[&["--json"], flags].concat(), "C").expect(122).error();
            assert_eq!(error["error"]["kind"], "key_reused", "{flags:?}");
        }
    }

    fn what_windlass_sets_is_not_taken_from_people() {
        let (sandbox, repo) = with_repo();
        for flag in ["--env", "--secret"] {
            for value in ["WINDLASS_EXECUTION_ID=env:X", "WINDLASS_ATTEMPT_ID"] {
                let ran = run_script(&sandbox, &repo, &[flag, value], "true").expect(120);
                assert!(ran.stderr.contains(value.split('=').next().unwrap()), "{}", ran.stderr);
            }
        }
        assert!(!sandbox.data_dir().exists());
    }

    fn owners_do_not_see_each_other() {
        let (sandbox, repo) = with_repo();
        let ada = run_detached(&sandbox, &repo, &["--owner", "ada"], "true");
        let bob = run_detached(&sandbox, &repo, &["--owner", "bob"], "true");
        let seen = |owner: &[&str]| {
            let ran = sandbox.run([&["ps", "-a", "--json"], owner].concat()).expect(0);
            ran.json_lines().iter().map(|one| one["owner"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(seen(&["--owner", "ada"]), ["ada"]);
        assert_eq!(seen(&[]), ["bob", "ada"]);
        sandbox.run(["show", &bob, "--owner", "ada"]).expect(3);
        sandbox.run(["show", &ada, "--owner", "ada"]).expect(0);
    }

    fn names_with_spaces_and_other_scripts_are_names_like_any() {
        let sandbox = sandbox();
        let repo = TempRepo::with_commit_named("Projekt größer — プロジェクト");
        repo.write("a file\twith a tab", "x");
        let _: String = repo.commit("odd names");
        let ran = run_script(&sandbox, &repo, &["--title", "日本語"], "ls; echo y > 'neue Datei'").expect(0);
        assert!(ran.text().contains("a file\twith a tab"), "{}", ran.text());
        let diff = sandbox.run(["diff", "@last", "--stat"]).expect(0);
        assert!(diff.text().contains("neue Datei"), "{}", diff.text());
    }

    fn sources_of_a_real_project_become_a_worktree() {
        let Some(repo) = TempRepo::of_crate("tokio") else {
            return windlass_tests::not_run("run in a repository of real sources: cargo keeps none here");
        };
        let sandbox = super::sandbox();
        let ran = run_script(&sandbox, &repo, &[], "git ls-files | wc -l; git status --porcelain").expect(0);
        assert_eq!(ran.text().trim(), repo.git(["ls-files"]).lines().count().to_string());
    }
}

fn lives(pid: &str) -> bool {
    // What has ended and was not waited for yet does not live; the state follows the name in brackets.
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z')))
}

/// Lists the files below `dir` that contain `needle`.
fn files_with(dir: &std::path::Path, needle: &[u8]) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(files_with(&entry.path(), needle));
        } else if kind.is_file() {
            let bytes = fs::read(entry.path()).unwrap();
            if bytes.windows(needle.len()).any(|part| part == needle) {
                found.push(entry.path());
            }
        }
    }
    found
}
