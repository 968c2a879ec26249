//! Worktrees in whose files the user's code has a part: hooks and filters run once, are shown, stopped and outlived.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use windlass_tests::isolated;
use windlass_tests::process::{PATIENCE, ended, open};
use windlass_tests::repo::TempRepo;
use windlass_tests::sandbox::Sandbox;

use super::{kill_host, run_detached, run_script, show, with_repo};

/// Gives a repository a hook that runs after a checkout.
fn hook(repo: &TempRepo, script: &str) {
    hook_named(repo, "post-checkout", script);
}

fn hook_named(repo: &TempRepo, name: &str, script: &str) {
    let hook = repo.path().join(".git/hooks").join(name);
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    fs::write(&hook, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
}

fn fifo(sandbox: &Sandbox, name: &str) -> PathBuf {
    let fifo = sandbox.path().join(name);
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
    fifo
}

/// The execution that checks out the files of the newest worktree.
fn checkout(sandbox: &Sandbox) -> String {
    let all = sandbox.run(["ps", "--all", "--json"]).expect(0).json_lines();
    let git = all.iter().find(|view| view["run_reason"] == "git");
    git.unwrap_or_else(|| panic!("{all:?}"))["id"].as_str().unwrap().to_owned()
}

isolated! {
    fn a_hook_outlives_the_host_and_runs_once() {
        let (sandbox, repo) = with_repo();
        let (begun, go, runs) = (fifo(&sandbox, "begun"), fifo(&sandbox, "go"), sandbox.path().join("runs"));
        hook(&repo, &format!("echo ran >> {runs:?}; echo installing; echo > {begun:?}; cat {go:?}; echo made > hooked"));
        let id = run_detached(&sandbox, &repo, &["--no-commit"], "cat hooked README.md > seen; pwd");
        // It runs, and the command waits for it.
        drop(fs::read(&begun).unwrap());
        assert_eq!(show(&sandbox, &id)["status"], "queued");
        kill_host(&sandbox);
        // Told while no host lives.
        fs::write(&go, "told while no host lived\n").unwrap();
        sandbox.run(["wait", &id]).expect(0);
        assert_eq!(fs::read_to_string(&runs).unwrap(), "ran\n");
        let worktree = PathBuf::from(sandbox.run(["path", &id]).expect(0).text().trim());
        let readme = fs::read_to_string(repo.path().join("README.md")).unwrap();
        assert_eq!(fs::read_to_string(worktree.join("seen")).unwrap(), format!("made\n{readme}"));
        // What it said is in the log of its execution.
        let git = checkout(&sandbox);
        let said = sandbox.run(["logs", &git, "--raw"]).expect(0);
        assert_eq!(said.text(), "installing\ntold while no host lived\n");
        assert!(sandbox.run(["ps", "--all"]).expect(0).text().contains("checkout"));
        repo.git(["fsck", "--strict"]);
    }

    fn a_hook_that_fails_is_quoted_and_nothing_of_the_worktree_stays() {
        let (sandbox, repo) = with_repo();
        hook(&repo, "echo no package server; exit 3");
        let refused = run_script(&sandbox, &repo, &[], "true").expect(126);
        assert!(refused.stderr.contains("failed with code 3: no package server"), "{}", refused.stderr);
        let attempt = show(&sandbox, "@last");
        let shown = show(&sandbox, attempt["attempt_id"].as_str().unwrap_or("@last"));
        assert!(shown.to_string().contains("no package server"), "{shown}");
        assert_eq!(repo.git(["worktree", "list", "--porcelain"]).matches("worktree ").count(), 1);
        assert_eq!(repo.git(["branch", "--list"]).lines().count(), 1);
        hook(&repo, "exit 0");
        run_script(&sandbox, &repo, &[], "true").expect(0);
    }

    fn a_stop_and_a_removal_reach_a_hook_that_hangs() {
        let (sandbox, repo) = with_repo();
        let begun = fifo(&sandbox, "begun");
        hook(&repo, &format!("echo $$ > {begun:?}; (exec setsid sleep 1000) & exec sleep 1000"));
        for verb in [&["stop"][..], &["rm", "--force"]] {
            let id = run_detached(&sandbox, &repo, &[], "true");
            let pid = fs::read_to_string(&begun).unwrap().trim().parse().unwrap();
            let running = open(pid).unwrap();
            sandbox.run([verb, &[id.as_str()]].concat()).expect(0);
            assert!(ended(&running, PATIENCE).unwrap());
            if verb == ["stop"] {
                sandbox.run(["wait", &id]).expect(143);
                sandbox.run(["rm", "--force", &id]).expect(0);
            }
            assert_eq!(repo.git(["branch", "--list"]).lines().count(), 1);
            assert_eq!(repo.git(["worktree", "list", "--porcelain"]).matches("worktree ").count(), 1);
        }
    }

    fn what_was_stopped_while_it_was_committed_can_be_removed_at_once() {
        let (sandbox, repo) = with_repo();
        let begun = fifo(&sandbox, "begun");
        hook_named(&repo, "pre-commit", &format!("echo $$ > {begun:?}; exec sleep 1000"));
        for by_attempt in [true, false] {
            let id = run_detached(&sandbox, &repo, &[], "echo x > x");
            let pid = fs::read_to_string(&begun).unwrap().trim().parse().unwrap();
            let running = open(pid).unwrap();
            let attempt = show(&sandbox, &id)["attempt_id"].as_str().unwrap().to_owned();
            let refused = sandbox.run(["rm", &attempt]).expect(4);
            let executions = show(&sandbox, &attempt)["executions"].clone();
            let git = executions[0].as_str().unwrap();
            let digits = &git[git.len() - 8..];
            assert!(refused.stderr.contains(&format!("execution x-{digits} has not ended")), "{}", refused.stderr);
            sandbox.run(["stop", if by_attempt { &attempt } else { &id }]).expect(0);
            assert!(ended(&running, PATIENCE).unwrap());
            let removed = sandbox.run(["rm", &attempt]).expect(0);
            assert!(removed.stderr.contains("removed"), "{}", removed.stderr);
        }
    }

    fn a_filter_has_its_part_when_a_worktree_is_made_and_made_again() {
        let (sandbox, repo) = with_repo();
        let runs = sandbox.path().join("runs");
        repo.write(".gitattributes", "loud filter=up\n");
        repo.write("loud", "text\n");
        let _ = repo.commit("filtered");
        let smudge = format!("sh -c 'echo ran >> {}; tr a-z A-Z'", runs.display());
        repo.git(["config", "filter.up.smudge", &smudge]);
        repo.git(["config", "filter.up.clean", "tr A-Z a-z"]);
        let ran = run_script(&sandbox, &repo, &["--no-commit"], "cat loud; echo x > new").expect(0);
        assert_eq!(ran.text(), "TEXT\n");
        sandbox.run(["rm", "@last"]).expect(0);
        let restored = sandbox.run(["restore", "@last"]).expect(0);
        let worktree = PathBuf::from(restored.text().trim());
        assert_eq!(fs::read_to_string(worktree.join("loud")).unwrap(), "TEXT\n");
        assert_eq!(fs::read_to_string(worktree.join("new")).unwrap(), "x\n");
        assert_eq!(fs::read_to_string(&runs).unwrap(), "ran\nran\n");
    }
}
