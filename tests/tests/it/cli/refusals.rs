//! Bad input: a clear error that says what to do, the right code, nothing left behind.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use windlass::api::lock::{HostLock, LOCK_FILE};
use windlass_tests::isolated;
use windlass_tests::repo::TempRepo;
use windlass_tests::sandbox::{Ran, Sandbox};

use super::{run_script, sandbox, schemas, with_repo};

/// Fails unless it was refused with `code`, in words and as JSON, with a hint, and no attempt was left.
#[track_caller]
fn refused(sandbox: &Sandbox, dir: &Path, arguments: &[&str], code: i32) {
    let plain = sandbox.run_in(dir, arguments).expect(code);
    assert_eq!(plain.text(), "", "something on standard output");
    assert!(plain.stderr.contains("hint"), "no hint: {}", plain.stderr);
    let json = sandbox.run_in(dir, [&["--json"], arguments].concat()).expect(code);
    let error = json.error();
    schemas().assert("error.json", &error);
    assert!(error["error"]["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{error}");
    no_attempt(sandbox);
}

/// A data directory that was used, without a host.
fn with_data() -> (Sandbox, PathBuf) {
    let sandbox = sandbox();
    sandbox.run(["ps"]).expect(0);
    sandbox.run(["host", "stop"]).expect(0);
    let data = sandbox.data_dir();
    (sandbox, data)
}

/// Fails unless `data` is refused as a data directory by the one rule for all of them, whatever the verb; returns the
/// message.
#[track_caller]
fn unusable(sandbox: &Sandbox, data: &Path, kind: &str) -> String {
    let data = data.to_str().unwrap();
    let mut messages =
        [(&["ps"][..], 4), (&["run", "--dir", "/", "--", "true"], 122), (&["wait", "@last"], 122)]
            .map(|(verb, code)| {
                let ran =
                    sandbox.run([&["--json", "--data-dir", data], verb].concat()).expect(code);
                assert_eq!(ran.text(), "");
                let error = ran.error();
                schemas().assert("error.json", &error);
                assert_eq!(error["error"]["kind"], kind, "{error}");
                assert!(
                    error["error"]["hint"].as_str().is_some_and(|hint| !hint.is_empty()),
                    "{error}"
                );
                error["error"]["message"].as_str().unwrap().to_owned()
            });
    std::mem::take(&mut messages[0])
}

#[track_caller]
fn no_attempt(sandbox: &Sandbox) {
    assert_eq!(sandbox.run(["ls", "-a"]).expect(0).text(), "", "an attempt was left");
    let entries =
        fs::read_dir(sandbox.data_dir().join("worktrees")).into_iter().flatten().flatten();
    // What begins with a dot is ours to work with, and no worktree.
    let left: Vec<_> =
        entries.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b".")).collect();
    assert!(left.is_empty(), "left in the worktrees: {left:?}");
}

isolated! {
    fn not_a_repository() {
        let sandbox = sandbox();
        refused(&sandbox, sandbox.path(), &["run", "--", "true"], 122);
        refused(&sandbox, sandbox.path(), &["run", "--repo", "/no/such/place", "--", "true"], 122);
    }

    fn a_repository_without_a_commit() {
        let (sandbox, repo) = (sandbox(), TempRepo::empty());
        refused(&sandbox, repo.path(), &["run", "--", "true"], 122);
    }

    fn an_unknown_base() {
        let (sandbox, repo) = with_repo();
        refused(&sandbox, repo.path(), &["run", "--base", "no-such-branch", "--", "true"], 122);
    }

    fn a_branch_that_exists_or_cannot_exist() {
        let (sandbox, repo) = with_repo();
        repo.git(["branch", "taken"]);
        refused(&sandbox, repo.path(), &["run", "--branch", "taken", "--", "true"], 122);
        refused(&sandbox, repo.path(), &["run", "--branch", "taken/below", "--", "true"], 122);
        let below = sandbox.run_in(repo.path(), ["run", "--branch", "taken/below", "--", "true"]).expect(122);
        assert!(below.stderr.contains("branch \"taken\" exists and keeps \"taken/below\" from being made"), "{}", below.stderr);
        refused(&sandbox, repo.path(), &["run", "--branch", "a..b", "--", "true"], 122);
        assert_eq!(repo.git(["branch", "--format=%(refname:short)"]), "main\ntaken");
    }

    fn a_directory_that_is_not_there() {
        let sandbox = sandbox();
        let ran = sandbox.run(["run", "--dir", "/no/such/place", "--", "true"]).expect(122);
        assert!(ran.stderr.contains("/no/such/place"), "{}", ran.stderr);
        assert!(!Path::new("/no/such").exists());
    }

    fn a_directory_whose_attempt_was_removed_is_not_called_a_worktree() {
        let sandbox = sandbox();
        sandbox.run(["run", "--dir", sandbox.path().to_str().unwrap(), "--", "true"]).expect(0);
        sandbox.run(["rm", "@last"]).expect(0);
        let ran = sandbox.run(["exec", "@last", "--", "true"]).expect(122);
        assert!(ran.stderr.contains("the directory that it ran in is yours"), "{}", ran.stderr);
        assert!(!ran.stderr.contains("branch") && !ran.stderr.contains("worktree"), "{}", ran.stderr);
    }

    fn a_worktree_that_is_gone_is_not_run_in() {
        let (sandbox, repo) = with_repo();
        let ran = run_script(&sandbox, &repo, &[], "pwd").expect(0);
        fs::remove_dir_all(ran.text().trim()).unwrap();
        let again = sandbox.run(["exec", "@last", "--", "true"]);
        assert!(matches!(again.code, Some(122 | 126)), "{again:?}");
        let refused = sandbox.run(["diff", "@last"]).expect(4);
        assert!(refused.stderr.contains("windlass restore"), "{}", refused.stderr);
    }

    fn a_machine_without_git() {
        let (sandbox, repo) = with_repo();
        // A path that has a shell and no git.
        let bin = sandbox.path().join("bin");
        fs::create_dir(&bin).unwrap();
        std::os::unix::fs::symlink("/bin/sh", bin.join("sh")).unwrap();
        let mut command = sandbox.command(["--json", "run", "--", "true"]);
        command.current_dir(repo.path()).env("PATH", &bin);
        let ran: Ran = windlass_tests::sandbox::run(&mut command).expect(122);
        assert!(ran.error()["error"]["message"].as_str().unwrap().contains("git was not found"), "{}", ran.stderr);
        no_attempt(&sandbox);
        // A directory needs no git.
        sandbox.run(["run", "--dir", sandbox.path().to_str().unwrap(), "--", "/bin/sh", "-c", "exit 0"]).expect(0);
    }

    fn a_data_directory_of_a_newer_version() {
        let (sandbox, data) = with_data();
        let config = data.join("config.toml");
        let text = fs::read_to_string(&config).unwrap();
        let newer: String = text
            .lines()
            .map(|line| if line.starts_with("format") { "format = 4000\n".to_owned() } else { format!("{line}\n") })
            .collect();
        assert_ne!(text, newer, "no format in {text}");
        fs::write(&config, &newer).unwrap();
        let message = unusable(&sandbox, &data, "newer_format");
        assert!(message.contains("4000"), "{message}");
        assert_eq!(fs::read_to_string(&config).unwrap(), newer, "it was touched");
    }

    fn a_database_of_a_newer_version() {
        let (sandbox, data) = with_data();
        let database = data.join("windlass.db");
        let mut bytes = fs::read(&database).unwrap();
        // The user version of a SQLite file, big-endian.
        bytes[60..64].copy_from_slice(&4_000_u32.to_be_bytes());
        fs::write(&database, &bytes).unwrap();
        let message = unusable(&sandbox, &data, "newer_format");
        assert!(message.contains("4000"), "{message}");
        assert!(fs::read(&database).unwrap() == bytes, "it was touched");
    }

    fn damage_in_the_data_directory() {
        for (file, kind) in [("config.toml", "damaged"), ("settings.toml", "damaged"), ("windlass.db", "store")] {
            let (sandbox, data) = with_data();
            let garbage = "[garbage ".repeat(2_000);
            fs::write(data.join(file), &garbage).unwrap();
            let message = unusable(&sandbox, &data, kind);
            assert!(message.contains(file), "{message}");
            assert!(fs::read(data.join(file)).unwrap() == garbage.as_bytes(), "{file} was touched");
        }
        let (sandbox, data) = with_data();
        fs::write(data.join("settings.toml"), "\"limits.per_host\" = \"many\"\n").unwrap();
        unusable(&sandbox, &data, "damaged");
    }

    fn a_path_that_no_data_directory_can_have() {
        let sandbox = sandbox();
        let file = sandbox.path().join("file");
        fs::write(&file, "x").unwrap();
        let thesis = sandbox.path().join("thesis");
        fs::create_dir(&thesis).unwrap();
        fs::write(thesis.join("thesis.tex"), "x").unwrap();
        let dangling = sandbox.path().join("dangling");
        std::os::unix::fs::symlink("/no/such/place", &dangling).unwrap();
        // The first is too long a name, the next too long a path for the system, the last for the database.
        let deep = |count| (0..count).fold(sandbox.path().to_owned(), |path, _| path.join("x".repeat(100)));
        for (path, kind) in [
            (&file, "not_a_data_directory"),
            (&thesis, "not_a_data_directory"),
            (&file.join("data"), "data_directory"),
            (&dangling, "data_directory"),
            (&sandbox.path().join("x".repeat(300)), "data_directory"),
            (&deep(50), "data_directory"),
            (&deep(6), "store"),
        ] {
            unusable(&sandbox, path, kind);
        }
        assert_eq!(fs::read_dir(&thesis).unwrap().count(), 1);
    }

    fn a_copied_data_directory() {
        let (sandbox, data) = with_data();
        let copy = sandbox.path().join("copy");
        fs::create_dir(&copy).unwrap();
        for entry in fs::read_dir(&data).unwrap().flatten().filter(|entry| entry.path().is_file()) {
            fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
        unusable(&sandbox, &copy, "copied");
        sandbox.run(["ps"]).expect(0);
    }

    fn a_data_directory_in_use_by_a_program_without_an_api() {
        let (sandbox, data) = with_data();
        let held = HostLock::try_take(&data.join(LOCK_FILE)).unwrap().unwrap();
        let message = unusable(&sandbox, &data, "host_exists");
        assert!(message.contains("serves no API"), "{message}");
        drop(held);
        sandbox.run(["ps"]).expect(0);
    }

    fn another_store_than_the_data_directory_has() {
        let sandbox = sandbox();
        sandbox.run(["ps"]).expect(0);
        sandbox.run(["ps", "--store", "redb"]).expect(4);
        sandbox.run(["ps", "--store", "no-such-store"]).expect(2);
    }

    fn a_data_directory_that_cannot_be_written() {
        if !rustix::process::getuid().is_root() {
            return windlass_tests::not_run("a data directory of another user: needs root to make one");
        }
        let sandbox = sandbox();
        fs::create_dir(sandbox.data_dir()).unwrap();
        std::os::unix::fs::chown(sandbox.data_dir(), Some(12_345), Some(12_345)).unwrap();
        unusable(&sandbox, &sandbox.data_dir(), "other_user");
        assert_eq!(fs::read_dir(sandbox.data_dir()).unwrap().count(), 0, "something was written");
        if !reachable_by_others(Path::new(env!("CARGO_BIN_EXE_windlass-under-test"))) {
            return windlass_tests::not_run("a data directory without permission: the checkout is closed to other users");
        }
        // The same for its own user, who may read it, or read all and write the directory but not the database.
        fs::set_permissions(sandbox.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let data = sandbox.data_dir();
        let as_other = |arguments: &[&str]| {
            let mut command = sandbox.command(arguments);
            std::os::unix::process::CommandExt::uid(&mut command, 12_345);
            std::os::unix::process::CommandExt::gid(&mut command, 12_345);
            windlass_tests::sandbox::run(&mut command)
        };
        as_other(&["ps"]).expect(0);
        as_other(&["host", "stop"]).expect(0);
        for (path, mode) in [(data.join("windlass.db"), 0o400), (data.clone(), 0o500), (data, 0o000)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            for (verb, code) in [(&["--json", "ps"][..], 4), (&["--json", "run", "--dir", "/", "--", "true"], 122)] {
                let error = as_other(verb).expect(code).error();
                assert_eq!(error["error"]["kind"], "data_directory", "{error}");
            }
        }
    }

    fn no_permission_for_the_directory() {
        if !rustix::process::getuid().is_root() {
            return windlass_tests::not_run("a directory without permission: needs root to become another user");
        }
        let sandbox = sandbox();
        let closed = sandbox.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        // Another user, who may use the sandbox but not this directory.
        let home = sandbox.path().join("other-home");
        fs::create_dir(&home).unwrap();
        std::os::unix::fs::chown(&home, Some(12_345), Some(12_345)).unwrap();
        fs::set_permissions(sandbox.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let data = home.join("data");
        let mut command = sandbox.command(["--json", "--data-dir", data.to_str().unwrap(), "run", "--dir"]);
        command.arg(&closed).args(["--", "true"]).current_dir(&home).env("HOME", &home);
        std::os::unix::process::CommandExt::uid(&mut command, 12_345);
        std::os::unix::process::CommandExt::gid(&mut command, 12_345);
        if !reachable_by_others(Path::new(env!("CARGO_BIN_EXE_windlass-under-test"))) {
            return windlass_tests::not_run("a directory without permission: the checkout is closed to other users");
        }
        let ran = windlass_tests::sandbox::run(&mut command);
        assert!(matches!(ran.code, Some(122 | 126)), "{ran:?}");
    }

    fn usage_that_makes_no_sense() {
        let sandbox = sandbox();
        sandbox.run(["no-such-verb"]).expect(2);
        sandbox.run(["ps", "--no-such-flag"]).expect(2);
        sandbox.run(["run"]).expect(120);
        sandbox.run(["exec", "@last"]).expect(120);
        sandbox.run(["wait"]).expect(120);
        assert!(!sandbox.data_dir().exists());
    }

    fn things_that_are_not_there() {
        let sandbox = sandbox();
        for verb in [["show", "x-12345678"], ["path", "@last"], ["logs", "x-12345678"], ["stop", "x-12345678"], ["diff", "@last"]] {
            refused(&sandbox, sandbox.path(), &verb, 3);
        }
        refused(&sandbox, sandbox.path(), &["rm", "a-12345678"], 3);
        refused(&sandbox, sandbox.path(), &["exec", "@last", "--", "true"], 123);
        refused(&sandbox, sandbox.path(), &["wait", "x-12345678"], 123);
    }
}

/// Says whether every directory above `path` lets anybody through.
fn reachable_by_others(path: &Path) -> bool {
    path.ancestors().skip(1).all(|dir| {
        fs::metadata(dir).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0)
    })
}
