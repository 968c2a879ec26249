//! In what a data directory keeps records and logs: chosen when it is made, the same from outside.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::inotify;
use serde_json::Value;
use windlass_redb::{RedbOptions, RedbStore};
use windlass_tests::isolated;
use windlass_tests::process::{PATIENCE, ended, open, signal};
use windlass_tests::sandbox::Sandbox;

use super::{kill_host, run_detached, run_script, sandbox, schemas, show, with_repo};

/// Every choice: the flags, and the files that it makes.
const CHOICES: [(&[&str], [&str; 2]); 4] = [
    (&[], ["windlass.db", "runs"]),
    (&["--logs", "store"], ["windlass.db", "logs.db"]),
    (&["--store", "redb"], ["windlass.redb", "runs"]),
    (&["--store", "redb", "--logs", "store"], ["windlass.redb", "logs.redb"]),
];

const IN_REDB: &[&str] = CHOICES[3].0;

/// Finds where an execution runs.
fn place_of(sandbox: &Sandbox, id: &str) -> PathBuf {
    let name = show(sandbox, id)["id"].as_str().unwrap().to_owned();
    let runs = fs::read_dir(sandbox.data_dir().join("runs")).unwrap().flatten();
    let mut found = runs.filter(|entry| entry.file_name().to_string_lossy().starts_with(&name));
    found.next().unwrap().path()
}

fn segments(place: &Path) -> usize {
    let names = fs::read_dir(place).unwrap().flatten().map(|entry| entry.file_name());
    names.filter(|name| name.to_string_lossy().ends_with(".seg")).count()
}

/// Waits until there are no segments in a place.
fn until_moved(place: &Path) {
    let events = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&events, place, inotify::WatchFlags::DELETE).unwrap();
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(&events, &mut buffer);
    while segments(place) > 0 {
        // Blocks; the test's own deadline ends a wait in vain.
        events.next().unwrap();
    }
}

fn check<'a>(checks: &'a [Value], name: &str) -> &'a Value {
    checks.iter().find(|check| check["name"] == name).unwrap()
}

isolated! {
    fn whatever_it_is_kept_in_a_run_survives_its_host_and_comes_back_after_its_removal() {
        for (flags, files) in CHOICES {
            let (sandbox, repo) = with_repo();
            let fifo = sandbox.path().join("fifo");
            rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).unwrap();
            let script = format!("echo before; cat {}; seq 1 5000; echo made > new", fifo.display());
            let id = run_detached(&sandbox, &repo, flags, &script);
            let mut follower = sandbox.start(["logs", "-f", &id]);
            assert_eq!(follower.line().as_deref(), Some("before"));
            drop(follower);
            kill_host(&sandbox);
            // Written while no host lives.
            fs::write(&fifo, "between\n").unwrap();
            let mut follower = sandbox.start(["logs", "-f", &id]);
            let numbers: String = (1..=5000).map(|number| format!("{number}\n")).collect();
            let expected = format!("before\nbetween\n{numbers}");
            for line in expected.lines() {
                assert_eq!(follower.line().as_deref(), Some(line), "{flags:?}");
            }
            assert_eq!(follower.line(), None);
            sandbox.run(["wait", &id]).expect(0);
            assert!(sandbox.run(["logs", &id, "--raw"]).expect(0).text() == expected, "{flags:?}");
            let attempt = show(&sandbox, &id)["attempt_id"].as_str().unwrap().to_owned();
            sandbox.run(["rm", &attempt]).expect(0);
            sandbox.run(["restore", &attempt]).expect(0);
            let worktree = sandbox.run(["path", &attempt]).expect(0).text().trim().to_owned();
            assert_eq!(fs::read_to_string(format!("{worktree}/new")).unwrap(), "made\n");
            kill_host(&sandbox);
            assert!(sandbox.run(["logs", &id, "--raw"]).expect(0).text() == expected, "{flags:?}");
            for file in files {
                assert!(sandbox.data_dir().join(file).exists(), "{flags:?} made no {file}");
            }
        }
    }

    fn logs_that_are_kept_in_a_store_are_moved_there_whole() {
        for logs in ["sqlite", "redb"] {
            let (sandbox, repo) = with_repo();
            let script = "seq 1 20000; printf unended; seq 1 20000 >&2";
            let id = run_detached(&sandbox, &repo, &["--logs", logs], script);
            sandbox.run(["wait", &id]).expect(0);
            let place = place_of(&sandbox, &id);
            let before = sandbox.run(["logs", &id, "--json"]).expect(0).stdout;
            until_moved(&place);
            let tail = |sandbox: &Sandbox| sandbox.run(["logs", &id, "--json", "--tail", "7"]).expect(0).stdout;
            let last = tail(&sandbox);
            assert!(sandbox.run(["logs", &id, "--json"]).expect(0).stdout == before, "{logs}");
            sandbox.run(["host", "stop"]).expect(0);
            assert!(sandbox.run(["logs", &id, "--json"]).expect(0).stdout == before, "{logs}");
            assert!(tail(&sandbox) == last && before.ends_with(&last), "{logs}");
            let status = show(&sandbox, &id)["log"].clone();
            assert_eq!(status["sealed"], true, "{status}");
            let hits = sandbox.run(["search", "^19999$", "--json"]).expect(0).json_lines();
            assert_eq!(hits.len(), 2);
        }
    }

    fn what_a_host_left_the_next_one_moves() {
        let (sandbox, repo) = with_repo();
        let id = run_detached(&sandbox, &repo, IN_REDB, "seq 1 1000; exec sleep 1000");
        let mut follower = sandbox.start(["logs", "-f", "--limit", "1", &id]);
        assert!(follower.line().is_some());
        let place = place_of(&sandbox, &id);
        let command = show(&sandbox, &id)["pid"].as_u64().unwrap();
        kill_host(&sandbox);
        // It ends while no host lives.
        let command = open(u32::try_from(command).unwrap()).unwrap();
        signal(&command, rustix::process::Signal::KILL).unwrap();
        assert!(ended(&command, PATIENCE).unwrap());
        sandbox.run(["wait", &id]).expect(137);
        until_moved(&place);
        let numbers: String = (1..=1000).map(|number| format!("{number}\n")).collect();
        assert!(sandbox.run(["logs", &id, "--raw"]).expect(0).text() == numbers);
    }

    fn a_choice_is_made_once_and_named_where_one_looks() {
        let (sandbox, repo) = with_repo();
        run_script(&sandbox, &repo, IN_REDB, "true").expect(0);
        run_script(&sandbox, &repo, IN_REDB, "true").expect(0);
        for other in [["--store", "sqlite"], ["--logs", "files"], ["--logs", "sqlite"]] {
            let error = run_script(&sandbox, &repo, &[&["--json"], &other[..]].concat(), "true").expect(122).error();
            schemas().assert("error.json", &error);
            assert_eq!(error["error"]["kind"], "other_kind", "{error}");
            assert!(error["error"]["hint"].as_str().unwrap().contains(other[0]), "{error}");
        }
        let status = sandbox.run(["host", "status", "--json"]).expect(0).json();
        assert_eq!((status["store"].as_str(), status["logs"].as_str()), (Some("redb"), Some("redb")));
        let config = sandbox.run(["config", "--json"]).expect(0).json();
        assert_eq!((config["store"].as_str(), config["logs"].as_str()), (Some("redb"), Some("redb")));
        for is_up in [true, false] {
            let checks = sandbox.run(["doctor", "--json"]).expect(0).json_lines();
            let [store, logs] = ["store", "logs"].map(|name| check(&checks, name)["detail"].as_str().unwrap());
            assert!(store.starts_with("redb: ") && logs.starts_with("redb: "), "{store}; {logs}");
            // Once more without a host.
            sandbox.run(["host", "stop"]).expect(if is_up { 0 } else { 5 });
        }
    }

    fn a_database_that_another_program_has_open_is_named_like_a_second_host() {
        let sandbox = sandbox();
        sandbox.run([IN_REDB, &["ps"]].concat()).expect(0);
        sandbox.run(["host", "stop"]).expect(0);
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        let path = sandbox.data_dir().join("windlass.redb");
        let store = runtime.block_on(RedbStore::open(&path, RedbOptions::default())).unwrap();
        let error = sandbox.run(["ps", "--json"]).expect(4).error();
        assert_eq!(error["error"]["kind"], "host_exists", "{error}");
        let checks = sandbox.run(["doctor", "--json"]).expect(1).json_lines();
        assert_eq!(check(&checks, "store")["status"], "failed");
        runtime.block_on(store.close());
        sandbox.run(["ps"]).expect(0);
    }

    fn compacting_needs_the_directory_for_itself_and_loses_nothing() {
        for (flags, files) in CHOICES {
            let (sandbox, repo) = with_repo();
            let id = run_detached(&sandbox, &repo, flags, "seq 1 20000");
            sandbox.run(["wait", &id]).expect(0);
            let before = sandbox.run(["logs", &id]).expect(0).stdout;
            let error = sandbox.run(["util", "compact", "--json"]).expect(4).error();
            assert_eq!(error["error"]["kind"], "host_exists", "{error}");
            sandbox.run(["host", "stop"]).expect(0);
            let compacted = sandbox.run(["util", "compact", "--json"]).expect(0).json_lines();
            assert_eq!(compacted.len(), files.iter().filter(|file| **file != "runs").count());
            for (one, file) in compacted.iter().zip(files) {
                assert!(one["file"].as_str().unwrap().ends_with(file), "{one}");
                let [before, after] = ["bytes_before", "bytes_after"].map(|key| one[key].as_u64().unwrap());
                assert!(after > 0 && after <= before.max(1 << 20), "{one}");
            }
            assert!(sandbox.run(["logs", &id]).expect(0).stdout == before, "{flags:?}");
            sandbox.run(["host", "stop"]).expect(0);
            let checks = sandbox.run(["doctor", "--json"]).expect(0).json_lines();
            assert_eq!(check(&checks, "store")["status"], "ok");
        }
        let nowhere = sandbox().run(["util", "compact"]).expect(3);
        assert!(nowhere.stderr.contains("no data directory"), "{}", nowhere.stderr);
    }
}
