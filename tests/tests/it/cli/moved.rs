//! `host run --moved`: a data directory that was moved, and one that was copied, with its worktrees.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use windlass_tests::isolated;
use windlass_tests::repo::TempRepo;
use windlass_tests::sandbox::{Ran, Running, Sandbox};

use super::{run_script, with_repo};

/// Where the data directory is after it was moved or copied.
fn elsewhere(sandbox: &Sandbox) -> PathBuf {
    sandbox.path().join("elsewhere")
}

/// Runs a command line on the data directory that is elsewhere.
fn there<A: AsRef<OsStr>>(sandbox: &Sandbox, arguments: impl IntoIterator<Item = A>) -> Ran {
    let mut command = sandbox.command(arguments);
    windlass_tests::sandbox::run(command.env("WINDLASS_DATA_DIR", elsewhere(sandbox)))
}

/// Starts a host that takes over what is elsewhere.
fn take_over(sandbox: &Sandbox) -> Running {
    let mut command = sandbox.command(["host", "run", "--moved"]);
    let mut host = Running::start(command.env("WINDLASS_DATA_DIR", elsewhere(sandbox)));
    while let Some(line) = host.error_line() {
        if line.contains("is ready") {
            return host;
        }
    }
    panic!("the host ended: {:?}", host.wait());
}

/// Two attempts: one whose worktree is there, and one whose worktree was removed, with work that is not committed.
fn two_attempts(sandbox: &Sandbox, repo: &TempRepo) -> [PathBuf; 2] {
    let worktrees = ["one", "two"].map(|branch| {
        let script = format!("pwd; echo {branch} > made");
        let ran = run_script(sandbox, repo, &["--no-commit", "--branch", branch], &script);
        PathBuf::from(ran.expect(0).text().trim())
    });
    sandbox.run(["rm", "two"]).expect(0);
    sandbox.run(["host", "stop"]).expect(0);
    worktrees
}

/// The path in the data directory that is elsewhere.
fn shifted(sandbox: &Sandbox, path: &Path) -> PathBuf {
    elsewhere(sandbox).join(path.strip_prefix(sandbox.data_dir()).unwrap())
}

fn registered(repo: &TempRepo) -> Vec<PathBuf> {
    let list = repo.git(["worktree", "list", "--porcelain"]);
    let places = list.lines().filter_map(|line| line.strip_prefix("worktree "));
    places.skip(1).map(PathBuf::from).collect()
}

fn copy(sandbox: &Sandbox) {
    let copied =
        Command::new("cp").arg("-a").args([sandbox.data_dir(), elsewhere(sandbox)]).status();
    assert!(copied.unwrap().success());
}

isolated! {
    fn the_worktrees_of_a_moved_data_directory_are_given_back() {
        for by_copying in [false, true] {
            let (sandbox, repo) = with_repo();
            let before = two_attempts(&sandbox, &repo);
            let [one, two] = [0, 1].map(|n| shifted(&sandbox, &before[n]));
            if by_copying {
                copy(&sandbox);
                fs::remove_dir_all(sandbox.data_dir()).unwrap();
            } else {
                fs::rename(sandbox.data_dir(), elsewhere(&sandbox)).unwrap();
            }
            let refused = there(&sandbox, ["ls"]);
            assert!(refused.code != Some(0) && refused.stderr.contains("--moved"), "{refused:?}");
            let host = take_over(&sandbox);
            assert_eq!(there(&sandbox, ["path", "one"]).expect(0).text().trim(), one.to_str().unwrap());
            let listed = there(&sandbox, ["ls", "-a", "--json"]).expect(0).json_lines();
            let listed: Vec<_> = listed.iter().map(|attempt| attempt["worktree"].as_str().unwrap()).collect();
            assert_eq!(listed, [two.to_str().unwrap(), one.to_str().unwrap()]);
            assert!(there(&sandbox, ["diff", "one", "--stat"]).expect(0).text().contains("made"));
            assert_eq!(there(&sandbox, ["exec", "one", "--", "sh", "-c", "pwd; cat made"]).expect(0).text(),
                format!("{}\none\n", one.display()));
            assert_eq!(registered(&repo), [one.as_path()]);
            let snapshots = there(&sandbox, ["snapshots", "two", "--json"]).expect(0).json_lines();
            assert!(Path::new(snapshots[0]["archive"].as_str().unwrap()).exists(), "{snapshots:?}");
            there(&sandbox, ["restore", "two"]).expect(0);
            assert_eq!(fs::read_to_string(two.join("made")).unwrap(), "two\n");
            there(&sandbox, ["rm", "one"]).expect(0);
            there(&sandbox, ["restore", "one"]).expect(0);
            assert_eq!(fs::read_to_string(one.join("made")).unwrap(), "one\n");
            // The next host needs to be told nothing.
            drop(host);
            there(&sandbox, ["exec", "two", "--", "true"]).expect(0);
            there(&sandbox, ["rm", "one", "two"]).expect(0);
            assert_eq!(registered(&repo), Vec::<PathBuf>::new());
            assert!(!sandbox.data_dir().exists());
        }
    }

    fn a_copy_of_a_data_directory_leaves_alone_what_its_original_uses() {
        let (sandbox, repo) = with_repo();
        let before = two_attempts(&sandbox, &repo);
        copy(&sandbox);
        let [one, two] = [0, 1].map(|n| shifted(&sandbox, &before[n]));
        let host = take_over(&sandbox);
        for verb in ["diff", "rm", "restore"] {
            let refused = there(&sandbox, [verb, "one"]).expect(4);
            let named = refused.stderr.contains(one.to_str().unwrap()) && refused.stderr.contains(before[0].to_str().unwrap());
            assert!(named && refused.stderr.contains("it is a copy"), "{verb}: {}", refused.stderr);
        }
        let refused = there(&sandbox, ["exec", "one", "--", "true"]).expect(126);
        assert!(refused.stderr.contains("it is a copy"), "{}", refused.stderr);
        assert_eq!(registered(&repo), [before[0].as_path()]);
        // What was removed comes back in both, each in its own place.
        there(&sandbox, ["restore", "two"]).expect(0);
        sandbox.run(["restore", "two"]).expect(0);
        for at in [&two, &before[1]] {
            assert_eq!(fs::read_to_string(at.join("made")).unwrap(), "two\n");
        }
        sandbox.run(["exec", "one", "--", "true"]).expect(0);
        sandbox.run(["rm", "two"]).expect(0);
        there(&sandbox, ["exec", "two", "--", "true"]).expect(0);
        sandbox.run(["host", "stop"]).expect(0);
        // Once the original is out of the way the rest is taken over, too.
        fs::rename(sandbox.data_dir(), sandbox.path().join("old")).unwrap();
        there(&sandbox, ["exec", "one", "--", "cat", "made"]).expect(0);
        there(&sandbox, ["rm", "one"]).expect(0);
        assert_eq!(registered(&repo), [two.as_path()]);
        drop(host);
    }
}
